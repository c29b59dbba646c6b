/*
 * lock.c - a mutex that knows its owner, and waiting with a deadline
 *
 * In debug builds a mutex remembers who holds it. The owner's field is read
 * without the lock by mutex_assert_held: only the running thread ever stores
 * its own identity there and it takes it away before it unlocks, so it reads
 * itself exactly if it holds the lock, whatever others do at the same time.
 * Relaxed atomics make that defined.
 */
#include <stdio.h>
#include <time.h>

#include "util/util.h"

/* pthread calls fail only if they are misused: not a state to go on from. */
static void check(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "cowfs: %s: %s\n", what, strerror(err));
		abort();
	}
}

#ifndef NDEBUG

static bool is_mine(const struct mutex *m)
{
	return __atomic_load_n(&m->held, __ATOMIC_RELAXED) &&
	       pthread_equal(__atomic_load_n(&m->owner, __ATOMIC_RELAXED),
			     pthread_self());
}

static void set_owner(struct mutex *m)
{
	__atomic_store_n(&m->owner, pthread_self(), __ATOMIC_RELAXED);
	__atomic_store_n(&m->held, true, __ATOMIC_RELAXED);
}

static void clear_owner(struct mutex *m)
{
	__atomic_store_n(&m->held, false, __ATOMIC_RELAXED);
	__atomic_store_n(&m->owner, (pthread_t)0, __ATOMIC_RELAXED);
}

static void want(const struct mutex *m, bool mine, const char *what)
{
	if (is_mine(m) != mine) {
		fprintf(stderr, "cowfs: mutex: %s\n", what);
		abort();
	}
}

#else

static void set_owner(struct mutex *m)
{
	(void)m;
}

static void clear_owner(struct mutex *m)
{
	(void)m;
}

static void want(const struct mutex *m, bool mine, const char *what)
{
	(void)m;
	(void)mine;
	(void)what;
}

#endif

/* Threads of the store run before the daemon sets the hook, and after it takes
 * it away: arg is there when fn is, and stays. */
static void (*_Atomic wait_hook)(void *arg);
static void *_Atomic wait_arg;

void wait_set_hook(void (*fn)(void *arg), void *arg)
{
	if (fn)
		atomic_store_explicit(&wait_arg, arg, memory_order_relaxed);
	atomic_store_explicit(&wait_hook, fn, memory_order_release);
}

void may_wait(void)
{
	void (*fn)(void *) = atomic_load_explicit(&wait_hook,
						  memory_order_acquire);

	if (fn)
		fn(atomic_load_explicit(&wait_arg, memory_order_relaxed));
}

void rwlock_init(struct rwlock *l, enum lock_rank rank)
{
	pthread_rwlockattr_t attr;

	l->place = (struct lock_place){ .rank = rank };
	check(pthread_rwlockattr_init(&attr), "pthread_rwlockattr_init");
	check(pthread_rwlockattr_setkind_np(
		      &attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP),
	      "pthread_rwlockattr_setkind_np");
	check(pthread_rwlock_init(&l->l, &attr), "pthread_rwlock_init");
	pthread_rwlockattr_destroy(&attr);
}

void rwlock_fini(struct rwlock *l)
{
	check(pthread_rwlock_destroy(&l->l), "pthread_rwlock_destroy");
}

void rwlock_rdlock(struct rwlock *l)
{
	order_want(l, l->place);
	if (pthread_rwlock_tryrdlock(&l->l)) {
		may_wait();
		check(pthread_rwlock_rdlock(&l->l), "pthread_rwlock_rdlock");
	}
	order_have(l, l->place);
}

void rwlock_wrlock(struct rwlock *l)
{
	order_want(l, l->place);
	if (pthread_rwlock_trywrlock(&l->l)) {
		may_wait();
		check(pthread_rwlock_wrlock(&l->l), "pthread_rwlock_wrlock");
	}
	order_have(l, l->place);
}

void rwlock_unlock(struct rwlock *l)
{
	order_left(l);
	check(pthread_rwlock_unlock(&l->l), "pthread_rwlock_unlock");
}

void mutex_init_numbered(struct mutex *m, enum lock_rank rank, uint64_t number)
{
	check(pthread_mutex_init(&m->m, NULL), "pthread_mutex_init");
	m->place = (struct lock_place){ .rank = rank, .number = number };
	clear_owner(m);
}

void mutex_init(struct mutex *m, enum lock_rank rank)
{
	mutex_init_numbered(m, rank, 0);
}

void mutex_fini(struct mutex *m)
{
	check(pthread_mutex_destroy(&m->m), "pthread_mutex_destroy");
}

void mutex_lock(struct mutex *m)
{
	want(m, false, "locked twice by one thread");
	order_want(m, m->place);
	if (pthread_mutex_trylock(&m->m)) {
		may_wait();
		check(pthread_mutex_lock(&m->m), "pthread_mutex_lock");
	}
	order_have(m, m->place);
	set_owner(m);
}

bool mutex_trylock(struct mutex *m)
{
	int err = pthread_mutex_trylock(&m->m);

	if (err == EBUSY)
		return false;
	check(err, "pthread_mutex_trylock");
	order_have(m, m->place);
	set_owner(m);
	return true;
}

void mutex_unlock(struct mutex *m)
{
	want(m, true, "unlocked by one who does not hold it");
	clear_owner(m);
	order_left(m);
	check(pthread_mutex_unlock(&m->m), "pthread_mutex_unlock");
}

void mutex_assert_held(const struct mutex *m)
{
	want(m, true, "not held where it must be");
}

void cond_init(pthread_cond_t *c)
{
	pthread_condattr_t attr;

	check(pthread_condattr_init(&attr), "pthread_condattr_init");
	check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC),
	      "pthread_condattr_setclock");
	check(pthread_cond_init(c, &attr), "pthread_cond_init");
	pthread_condattr_destroy(&attr);
}

bool cond_wait_ms(pthread_cond_t *c, struct mutex *m, uint64_t ms)
{
	struct timespec until;
	int err;

	mutex_assert_held(m);
	order_io();
	may_wait();
	clear_owner(m);
	order_left(m);
	order_want(m, m->place); /* when it comes back */
	if (ms == UINT64_MAX) {
		err = pthread_cond_wait(c, &m->m);
	} else {
		clock_gettime(CLOCK_MONOTONIC, &until);
		/* at most 2^64 / 1000 s: no overflow */
		until.tv_sec += (time_t)(ms / 1000);
		until.tv_nsec += (long)(ms % 1000) * 1000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_nsec -= 1000000000;
			until.tv_sec++;
		}
		err = pthread_cond_timedwait(c, &m->m, &until);
	}
	order_have(m, m->place);
	set_owner(m);
	if (err == ETIMEDOUT)
		return false;
	check(err, "pthread_cond_wait");
	return true;
}
