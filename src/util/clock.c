/*
 * clock.c - time, and random bytes
 */
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "util/util.h"

#define NSEC_PER_SEC 1000000000u

struct timespec64 now_real(void)
{
	struct timespec t;

	/* The kernel stamps what it caches with this clock; a finer one would
	 * be ahead of it, and times would go backwards. */
	clock_gettime(CLOCK_REALTIME_COARSE, &t);
	return (struct timespec64){ .sec = t.tv_sec,
				    .nsec = (uint32_t)t.tv_nsec };
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
