/*
 * limits.c - what the system allows the process
 *
 * Who mounts may have limits that are meant for other programs: a signal ends
 * what writes too far into a file or takes too much time, and the mount with it.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "fuse/daemon.h"

/* To what it may be; false: it is. */
static bool raised(struct rlimit *lim)
{
	bool more = lim->rlim_cur != lim->rlim_max;

	lim->rlim_cur = lim->rlim_max;
	return more;
}

void limits_raise(void)
{
	struct rlimit lim;

	if (!getrlimit(RLIMIT_FSIZE, &lim) && raised(&lim))
		(void)setrlimit(RLIMIT_FSIZE, &lim);
	if (!getrlimit(RLIMIT_CPU, &lim) && raised(&lim))
		(void)setrlimit(RLIMIT_CPU, &lim);
	/* An error is enough. */
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGXCPU, SIG_IGN);
}

int limits_allow(const struct options *o, const struct bdev *dev)
{
	struct rlimit lim;
	struct stat st;

	if (dev->readonly || stat(o->image, &st) || !S_ISREG(st.st_mode) ||
	    getrlimit(RLIMIT_FSIZE, &lim) || lim.rlim_cur >= dev->size)
		return 0;
	fprintf(stderr, "%s: %s: larger than files may be that are written "
		"here (ulimit -f; -o ro mounts it read-only)\n", o->program,
		o->image);
	return -EFBIG;
}

static void *wait_for_ever(void *arg)
{
	(void)arg;
	for (;;)
		pause();
	return NULL;
}

/*
 * The library ends its threads by cancelling them. For that libc loads another
 * library the first time, and ends the process if it can't: so that is done while
 * there is memory.
 */
void limits_try_cancel(void)
{
	pthread_t t;

	if (pthread_create(&t, NULL, wait_for_ever, NULL))
		return;
	pthread_cancel(t);
	pthread_join(t, NULL);
}
