/*
 * signal.c - SIGTERM, SIGINT and SIGHUP unmount in order
 *
 * A thread waits for them, all others have them blocked: what follows takes
 * locks and waits for the kernel, which no handler may.
 */
#include <signal.h>

#include "fuse/daemon.h"

static void ending_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
}

void signals_block(void)
{
	sigset_t set;

	ending_signals(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void *signal_main(void *arg)
{
	struct job job = { .kind = JOB_QUIT };
	struct daemon *d = arg;
	sigset_t set;
	int sig;

	ending_signals(&set);
	while (sigwait(&set, &sig) || !atomic_load(&d->loop_ended)) {
		log_msg(LOG_LVL_INFO, "%s: unmounting", d->opt->dir);
		/* Not understood now, the next signal tries again. */
		if (!control_add(d, &job))
			break;
	}
	return NULL;
}

int signals_start(struct daemon *d)
{
	int err = pthread_create(&d->signal_thread, NULL, signal_main, d);

	d->signals_started = !err;
	return -err;
}

void signals_stop(struct daemon *d)
{
	if (!d->signals_started)
		return;
	atomic_store(&d->loop_ended, true);
	pthread_kill(d->signal_thread, SIGTERM);
	pthread_join(d->signal_thread, NULL);
	d->signals_started = false;
}
