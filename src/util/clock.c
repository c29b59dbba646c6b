/*
 * clock.c - time, and random bytes
 *
 * From Linux 6.13 on the kernel's own stamps may be later than the coarse clock
 * by a part of a tick: never before a fine one that it gave to a file elsewhere
 * (ext4, tmpfs), and nobody else can read that clock. Who changed a file after
 * the kernel had stamped it would set its times back; what was made later would
 * look older. So the latest stamp that the kernel has sent is the least that
 * now_real gives.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "util/util.h"

#define NSEC_PER_SEC 1000000000

/* The latest ctime of the kernel's own, in nanoseconds. */
static _Atomic int64_t kernel_ns;

/* A tick of the slowest kernel, and as much again. */
#define AHEAD_MAX 20000000

static int64_t coarse_ns(void)
{
	struct timespec t;

	/* The kernel stamps what it caches with this clock; a finer one would
	 * be ahead of it, and times would go backwards. */
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return (int64_t)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

/* Ahead by more than a tick: a clock that was set back since. */
static bool within_tick(int64_t ns, int64_t now)
{
	return ns > now && ns - now <= AHEAD_MAX;
}

struct timespec64 now_real(void)
{
	int64_t now = coarse_ns(), kernel = atomic_load(&kernel_ns);

	if (within_tick(kernel, now))
		now = kernel;
	return (struct timespec64){ .sec = now / NSEC_PER_SEC,
				    .nsec = (uint32_t)(now % NSEC_PER_SEC) };
}

void now_real_after(struct timespec64 t)
{
	int64_t now = coarse_ns(), kernel = atomic_load(&kernel_ns), ns;

	if (t.sec < 0 || t.sec > INT64_MAX / NSEC_PER_SEC - 1)
		return;
	ns = t.sec * NSEC_PER_SEC + t.nsec;
	if (!within_tick(ns, now))
		return;
	while (!(within_tick(kernel, now) && kernel >= ns) &&
	       !atomic_compare_exchange_weak(&kernel_ns, &kernel, ns))
		;
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

struct cowfs_disk_time time_to_disk(struct timespec64 t)
{
	return (struct cowfs_disk_time){ .sec = to_le64((uint64_t)t.sec),
					 .nsec = to_le32(t.nsec) };
}

/* Nanoseconds that a disk may claim end at a second's end: kernel and libc
 * trust them to. */
struct timespec64 time_from_disk(struct cowfs_disk_time t)
{
	uint32_t nsec = from_le32(t.nsec);

	return (struct timespec64){
		.sec = (int64_t)from_le64(t.sec),
		.nsec = nsec < NSEC_PER_SEC ? nsec : NSEC_PER_SEC - 1,
	};
}

void random_bytes(void *buf, size_t len)
{
	uint8_t *p = buf;
	ssize_t got;

	while (len > 0) {
		got = getrandom(p, len, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			/* UUIDs and hash keys must not be guessable: no
			 * fallback to anything weaker */
			perror("cowfs: getrandom");
			abort();
		}
		p += got;
		len -= (size_t)got;
	}
}
