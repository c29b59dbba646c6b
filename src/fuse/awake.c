/*
 * awake.c - processors do not fall asleep while requests follow each other
 *
 * A file operation is a conversation: the client sleeps while the daemon works,
 * the daemon while the client does. On an otherwise idle machine each of them
 * leaves a processor with nothing to do, and it goes to sleep; to be woken takes
 * it longer than the request did. With
 * /dev/cpu_dma_latency (the kernel's PM QoS) a program says how long that may
 * take. Held while one process creates, looks at and deletes 2,000 files, these
 * take 0.23, 0.03 and 0.07 s, else 0.8 to 2, 0.2 to 0.5 and 0.2 to 0.8.
 *
 * Idle processors that do not sleep use power, and in a virtual machine time of
 * the host's. So it is asked for once requests have come fast for a while, and
 * then for as long as they have come, but not more than CREDIT_MAX ticks, in
 * vain: at most as much is wasted as was of use. Idle, nothing runs here.
 *
 * The kernel forgets what was asked when the file is closed, or the daemon
 * killed. Only root may open it: the others do without.
 */
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define DEVICE "/dev/cpu_dma_latency"
#define DRIVER "/sys/devices/system/cpu/cpuidle/current_driver"

#define FAST_NS 1000000u /* a request that was waited for no longer */
#define RUSH 16u         /* of these in a row */
#define TICK_NS 1000000
#define CREDIT_MIN 2
#define CREDIT_MAX 16

/* In microseconds. In a virtual machine HLT takes longer than it says; of a real
 * one the first state is said to take about that (not measured). */
#define IN_A_GUEST 0
#define ON_METAL 2

/* Open means held. -1: it can't be had. */
static int hold(int32_t us)
{
	int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, &us, sizeof(us)) != (ssize_t)sizeof(us)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* As long as requests come, and some time after. */
static void stay(struct awake *a)
{
	const struct timespec tick = { .tv_nsec = TICK_NS };
	uint64_t seen, last = atomic_load(&a->seen);
	int credit = CREDIT_MIN;

	while (credit > 0 && !atomic_load(&a->ending)) {
		nanosleep(&tick, NULL);
		seen = atomic_load(&a->seen);
		if (seen == last)
			credit--;
		else if (credit < CREDIT_MAX)
			credit++;
		last = seen;
	}
}

static void *awake_main(void *arg)
{
	struct awake *a = arg;
	int fd;

	for (;;) {
		while (sem_wait(&a->wanted))
			; /* EINTR */
		if (atomic_load(&a->ending))
			return NULL;
		fd = hold(a->latency);
		if (fd < 0)
			return NULL; /* held is left true: not asked again */
		stay(a);
		close(fd);
		atomic_store(&a->held, false);
	}
}

void awake_note(struct daemon *d, uint64_t waited)
{
	struct awake *a = &d->awake;

	if (!a->started)
		return;
	atomic_store_explicit(&a->seen,
			      atomic_load_explicit(&a->seen,
						   memory_order_relaxed) + 1,
			      memory_order_relaxed);
	if (atomic_load_explicit(&a->held, memory_order_relaxed))
		return;
	a->rush = waited < FAST_NS ? a->rush + 1 : 0;
	if (a->rush < RUSH)
		return;
	a->rush = 0;
	atomic_store(&a->held, true);
	sem_post(&a->wanted);
}

void awake_start(struct daemon *d)
{
	struct awake *a = &d->awake;
	char driver[32];

	atomic_init(&a->seen, 0);
	atomic_init(&a->held, false);
	atomic_init(&a->ending, false);
	a->rush = 0;
	a->started = false;
	if (!d->turn.poll_ns || access(DEVICE, W_OK) ||
	    !first_line(DRIVER, driver, sizeof(driver)) ||
	    !strcmp(driver, "none"))
		return;
	a->latency = !strcmp(driver, "haltpoll") ? IN_A_GUEST : ON_METAL;
	sem_init(&a->wanted, 0, 0);
	a->started = !pthread_create(&a->thread, NULL, awake_main, a);
	if (!a->started)
		sem_destroy(&a->wanted);
}

void awake_stop(struct daemon *d)
{
	struct awake *a = &d->awake;

	if (!a->started)
		return;
	atomic_store(&a->ending, true);
	sem_post(&a->wanted);
	pthread_join(a->thread, NULL);
	sem_destroy(&a->wanted);
	a->started = false;
}
