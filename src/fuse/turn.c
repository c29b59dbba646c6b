/*
 * turn.c - one thread at a time waits for requests
 *
 * What a request costs is mostly waking threads up: the client wakes a thread
 * of the daemon, that one wakes the client. With several threads asleep in
 * read(2) the kernel wakes them in turn, so each request finds one that is cold,
 * and requests that nobody waits for (FORGET, RELEASE) wake more. So only one
 * thread, who has the *turn*, reads; the others sleep on a semaphore. It keeps
 * the turn while it serves a request that is likely to be short, and finds the
 * next one itself.
 *
 *   T1  Nobody sleeps while he has the turn, except in read(2) here: whatever
 *       may sleep (a lock that is taken, a condition, the device) says so
 *       beforehand (may_wait() in util), and the turn passes to a thread that
 *       sleeps. So what one request waits for may itself be a request.
 *   T2  A request that is not known to be short, or while requests come faster
 *       than one thread serves them, passes the turn before it is served.
 *   T3  A thread that ends passes it, too. (libfuse ends them all at once, by
 *       cancelling; then nobody needs it any more.)
 *
 * Before it sleeps, whoever has the turn looks for the next request for some
 * microseconds (-o poll=), giving way to any thread that wants to run: the
 * client's answer to a reply often is its next request, and finding it costs
 * less than being woken for it. That it does so only while it pays is what
 * `luck` is for: it falls with every vain search and rises with every
 * one that finds, or would have found, a request. Where giving way takes long,
 * others want the processor: a thread that sleeps gets it back sooner, when its
 * request comes, than one that yields (large directory filled at a load of 25:
 * 1400 ms looking, 569 ms sleeping). Then it is not tried for a long time.
 */
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define STREAK 16     /* requests found waiting, one after the other: T2 */
#define LUCK_MAX 16
#define LOST_MIN 64 /* requests until it is tried again: each time twice */
#define LOST_MAX 16384
#define LONG_YIELD_NS 20000u
#define SHORT_WRITE (16u << 10) /* bytes */


void turn_pass(struct worker *w)
{
	if (!w->has_turn)
		return;
	w->has_turn = false;
	sem_post(&w->turn->free);
}

static void before_wait(void *arg)
{
	struct worker *w = pthread_getspecific(((struct daemon *)arg)->worker_key);

	if (w)
		turn_pass(w);
}

void turn_init(struct daemon *d)
{
	cpu_set_t cpus;

	sem_init(&d->turn.free, 0, 1);
	d->turn.luck = LUCK_MAX;
	d->turn.lost = LOST_MIN;
	/* On one processor the client runs only when nobody polls. */
	if (!sched_getaffinity(0, sizeof(cpus), &cpus) && CPU_COUNT(&cpus) > 1)
		d->turn.poll_ns = (uint64_t)d->opt->poll_us * 1000;
	wait_set_hook(before_wait, d);
}

void turn_fini(struct daemon *d)
{
	wait_set_hook(NULL, NULL);
	sem_destroy(&d->turn.free);
}

static bool is_short(const struct fuse_in_header *in)
{
	switch (in->opcode) {
	case FUSE_LOOKUP:
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_GETATTR:
	case FUSE_SETATTR:
	case FUSE_READLINK:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_CREATE:
	case FUSE_OPEN:
	case FUSE_FLUSH:
	case FUSE_RELEASE:
	case FUSE_OPENDIR:
	case FUSE_RELEASEDIR:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_ACCESS:
	case FUSE_STATFS:
		return true;
	case FUSE_WRITE:
		return in->len <= SHORT_WRITE;
	case FUSE_READ: /* it passes the turn before it asks the device */
	case FUSE_READDIR: /* and these if there is much to list */
	case FUSE_READDIRPLUS:
		return true;
	default:
		return false;
	}
}

static bool is_ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) != 0;
}

/* Look for a request for a while. */
static void search(struct turn *t, int fd, uint64_t begin)
{
	uint64_t last = begin, now;

	do {
		sched_yield();
		now = now_ns();
		if (now - last > LONG_YIELD_NS) {
			t->luck = -t->lost;
			if (t->lost < LOST_MAX)
				t->lost *= 2;
			return;
		}
		if (is_ready(fd)) {
			if (t->luck < LUCK_MAX)
				t->luck++;
			else
				t->lost = LOST_MIN;
			return;
		}
		last = now_ns();
	} while (last - begin < t->poll_ns);
	t->luck--;
}

static ssize_t wait_read(struct daemon *d, int fd, void *buf, size_t len)
{
	struct turn *t = &d->turn;
	uint64_t begin, waited;
	bool lucky = t->luck > 0;
	ssize_t got;

	t->streak = 0;
	if (!t->poll_ns)
		return read(fd, buf, len);
	begin = now_ns();
	if (lucky)
		search(t, fd, begin);
	got = read(fd, buf, len);
	waited = now_ns() - begin;
	if (!lucky)
		t->luck += waited < 2 * t->poll_ns;
	awake_note(d, waited);
	return got;
}

ssize_t turn_read(struct daemon *d, int fd, void *buf, size_t len)
{
	struct worker *w = worker_self(d);
	struct turn *t = &d->turn;
	bool rush;
	ssize_t got;

	if (!w)
		return read(fd, buf, len); /* no memory: like one of many */
	w->turn = t;
	if (!w->has_turn) {
		if (sem_wait(&t->free))
			return -1;
		w->has_turn = true;
	}
	if (is_ready(fd)) {
		t->streak++;
		got = read(fd, buf, len);
		awake_note(d, 0);
	} else {
		got = wait_read(d, fd, buf, len);
	}
	if (got < (ssize_t)sizeof(struct fuse_in_header))
		return got;
	rush = t->streak > STREAK;
	flight_note(d, w, buf); /* may wait: t is another's then */
	if (rush || !is_short(buf))
		turn_pass(w);
	return got;
}
