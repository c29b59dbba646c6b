/*
 * work.c - the two background threads: commits in time, and background work
 *
 * The timer thread commits every commit_ms if something changed, or earlier when
 * asked (store_kick). The worker runs the registered kinds of work one step at
 * a time. They are two so that a long list of work never delays a commit.
 */
#include "txn/private.h"

#define NS_PER_MS UINT64_C(1000000)

void work_init(struct store *s)
{
	cond_init(&s->p->timer_cond);
	cond_init(&s->p->work_cond);
	cond_init(&s->p->idle_cond);
}

void work_fini(struct store *s)
{
	pthread_cond_destroy(&s->p->timer_cond);
	pthread_cond_destroy(&s->p->work_cond);
	pthread_cond_destroy(&s->p->idle_cond);
}

static void commit_if_needed(struct store *s)
{
	struct store_private *p = s->p;

	store_look(s);
	if (!store_stopped(s) &&
	    (atomic_load(&p->changed_hint) || alloc_pending(s->alloc) ||
	     sides_unnoted(s) || atomic_load(&p->unwritten)) &&
	    store_commit(s, NULL, NULL))
		return; /* reported, and kept or stopped there */
}

static void *timer_main(void *arg)
{
	struct store *s = arg;
	struct store_private *p = s->p;
	uint64_t now;

	mutex_lock(&p->wait_lock);
	p->deadline = now_ns() + NS_PER_MS *
			  (atomic_load(&p->changed_hint) ? SETTLE_MS :
							   p->commit_ms);
	while (!p->quit) {
		now = now_ns();
		if (now < p->deadline) {
			(void)cond_wait_ms(&p->timer_cond, &p->wait_lock,
					   (p->deadline - now) / NS_PER_MS + 1);
			continue;
		}
		p->deadline = now + p->commit_ms * NS_PER_MS;
		mutex_unlock(&p->wait_lock);
		commit_if_needed(s);
		mutex_lock(&p->wait_lock);
	}
	mutex_unlock(&p->wait_lock);
	return NULL;
}

void store_kick(struct store *s, unsigned ms)
{
	struct store_private *p = s->p;
	uint64_t at = now_ns() + ms * NS_PER_MS;

	mutex_lock(&p->wait_lock);
	if (p->threads && at < p->deadline) {
		p->deadline = at;
		pthread_cond_signal(&p->timer_cond);
	}
	mutex_unlock(&p->wait_lock);
}

/* ---- work ---- */

/* Run one step of one wanted kind; W is held, and dropped meanwhile. false:
 * nothing is wanted. *err: what a step returned. */
static bool work_step(struct store *s, int *err)
{
	struct store_private *p = s->p;
	unsigned i, kind;
	int more;

	/* in turn, so that none waits for the end of another */
	for (i = 1; i <= WORK_KINDS; i++) {
		kind = (p->running + i) % WORK_KINDS;
		struct work *w = &p->work[kind], run = *w;

		if (!w->wanted || !w->fn)
			continue;
		w->wanted = false; /* a wake meanwhile sets it again */
		p->working = true;
		p->running = kind;
		mutex_unlock(&p->wait_lock);
		more = run.fn(run.arg);
		mutex_lock(&p->wait_lock);
		p->working = false;
		pthread_cond_broadcast(&p->idle_cond);
		if (more > 0)
			w->wanted = true;
		else if (more < 0)
			*err = more;
		return true;
	}
	return false;
}

/* What has become due is wanted; milliseconds until the next will be. */
static uint64_t become_due(struct store_private *p)
{
	uint64_t now = now_ns(), ms = UINT64_MAX;
	unsigned i;

	for (i = 0; i < WORK_KINDS; i++) {
		struct work *w = &p->work[i];

		if (!w->later)
			continue;
		if (w->later > now) {
			ms = min_u64(ms, (w->later - now) / 1000000 + 1);
			continue;
		}
		w->later = 0;
		w->wanted = true;
	}
	return ms;
}

static void *work_main(void *arg)
{
	struct store *s = arg;
	struct store_private *p = s->p;
	uint64_t ms;
	int err = 0;

	mutex_lock(&p->wait_lock);
	while (!p->quit) {
		ms = become_due(p);
		if (work_step(s, &err))
			continue;
		pthread_cond_broadcast(&p->idle_cond);
		(void)cond_wait_ms(&p->work_cond, &p->wait_lock, ms);
	}
	pthread_cond_broadcast(&p->idle_cond);
	mutex_unlock(&p->wait_lock);
	return NULL;
}

void store_set_work(struct store *s, enum store_work kind, store_work_fn *fn,
		    void *arg)
{
	struct store_private *p = s->p;

	mutex_lock(&p->wait_lock);
	p->work[kind].fn = fn;
	p->work[kind].arg = arg;
	/* Whoever takes its fn back may free the arg afterwards. */
	while (p->working && p->running == (unsigned)kind)
		(void)cond_wait_ms(&p->idle_cond, &p->wait_lock, UINT64_MAX);
	mutex_unlock(&p->wait_lock);
}

void store_wake(struct store *s, enum store_work kind)
{
	mutex_lock(&s->p->wait_lock);
	s->p->work[kind].wanted = true;
	pthread_cond_signal(&s->p->work_cond);
	mutex_unlock(&s->p->wait_lock);
}

void store_wake_later(struct store *s, enum store_work kind, uint64_t ms)
{
	mutex_lock(&s->p->wait_lock);
	s->p->work[kind].later = now_ns() + ms * 1000000;
	pthread_cond_signal(&s->p->work_cond);
	mutex_unlock(&s->p->wait_lock);
}

bool store_works(struct store *s, enum store_work kind)
{
	struct store_private *p = s->p;
	bool works;

	mutex_lock(&p->wait_lock);
	works = (p->work[kind].wanted && p->work[kind].fn) ||
		(p->working && p->running == (unsigned)kind);
	mutex_unlock(&p->wait_lock);
	return works;
}

static bool idle(const struct store_private *p)
{
	unsigned i;

	for (i = 0; i < WORK_KINDS; i++)
		if (p->work[i].wanted && p->work[i].fn)
			return false;
	return !p->working;
}

bool work_may_wait(struct store *s)
{
	struct store_private *p = s->p;
	bool may;

	mutex_lock(&p->wait_lock);
	may = p->threads ? !pthread_equal(p->work_thread, pthread_self())
			 : !p->working;
	mutex_unlock(&p->wait_lock);
	return may;
}

int store_drain(struct store *s)
{
	struct store_private *p = s->p;
	int err = 0;

	mutex_lock(&p->wait_lock);
	if (p->threads)
		while (!idle(p) && !p->quit)
			(void)cond_wait_ms(&p->idle_cond, &p->wait_lock,
					   UINT64_MAX);
	else
		while (work_step(s, &err))
			;
	mutex_unlock(&p->wait_lock);
	return err;
}

int store_start(struct store *s)
{
	struct store_private *p = s->p;
	int err;

	err = bdev_start(s->dev);
	if (err)
		return report(err, "cannot start a thread: %s",
			      strerror(-err));
	if (p->readonly)
		return 0;
	mutex_lock(&p->wait_lock);
	p->threads = true;
	p->quit = false;
	mutex_unlock(&p->wait_lock);
	err = pthread_create(&p->timer_thread, NULL, timer_main, s);
	if (!err) {
		err = pthread_create(&p->work_thread, NULL, work_main, s);
		if (!err)
			return 0;
		mutex_lock(&p->wait_lock);
		p->quit = true;
		pthread_cond_signal(&p->timer_cond);
		mutex_unlock(&p->wait_lock);
		pthread_join(p->timer_thread, NULL);
	}
	p->threads = false;
	return report(-err, "cannot start a thread: %s", strerror(err));
}

void work_stop(struct store *s)
{
	struct store_private *p = s->p;

	mutex_lock(&p->wait_lock);
	if (!p->threads) {
		mutex_unlock(&p->wait_lock);
		return;
	}
	p->quit = true;
	pthread_cond_signal(&p->timer_cond);
	pthread_cond_signal(&p->work_cond);
	mutex_unlock(&p->wait_lock);
	pthread_join(p->timer_thread, NULL);
	pthread_join(p->work_thread, NULL);
	p->threads = false;
}
