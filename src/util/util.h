/*
 * util.h - what every layer uses and no other library offers as is
 */
#ifndef COW_UTIL_H
#define COW_UTIL_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "cowfs/error.h"
#include "cowfs/format.h"
#include "util/order.h"

#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) \
	((type *)(void *)((char *)(ptr) - offsetof(type, member)))

static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* Blocks that hold n bytes. */
static inline uint64_t blocks_of(uint64_t n)
{
	return n / COWFS_BLOCK_SIZE + (n % COWFS_BLOCK_SIZE != 0);
}

/* Bytes in n buffers. */
static inline uint64_t iov_bytes(const struct iovec *iov, int n)
{
	uint64_t len = 0;

	while (n-- > 0)
		len += iov[n].iov_len;
	return len;
}

/* ---- checksum.c: the one checksum function ---- */

/* CRC-32 as zlib's crc32(crc, buf, len): same polynomial, same value, the
 * fastest implementation that the build found. crc is 0 to begin with. */
uint32_t checksum(uint32_t crc, const void *buf, size_t len);

/* csum[i] of each of n blocks at buf. */
void checksum_blocks(const void *buf, size_t n, uint32_t *csum);

/* ---- hash.c ---- */

/* SipHash-2-4 (Aumasson, Bernstein 2012) of len bytes under a 16-byte key. */
uint64_t siphash(const uint8_t key[16], const void *buf, size_t len);

/* Cheap mixing of a number, for tables in memory. */
static inline uint64_t hash_u64(uint64_t x)
{
	x ^= x >> 32;
	x *= UINT64_C(0x9e3779b97f4a7c15);
	return x ^ x >> 29;
}

/* ---- log.c ---- */

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };

/* Where messages go (default: stderr, one line each, "cowfs: ..."). The sink
 * gets whole lines without newline; it may be called by any thread. Set before
 * threads start. */
typedef void log_sink_fn(void *arg, enum log_level level, const char *line);
void log_set_sink(log_sink_fn *fn, void *arg);
void log_set_level(enum log_level max);
void log_msg(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Log an error and return the code, so that message and code cannot part. */
int report(int err, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* For messages that a failing device can repeat without end: a burst in every
 * few seconds. All zero to begin with; any thread. */
struct log_limit { _Atomic uint64_t since, count; };
/* May one more be logged? *dropped: how many the last window swallowed. */
bool log_allowed(struct log_limit *l, uint64_t *dropped);

/* ---- lock.c: locks that know whether they are held (debug builds) ---- */

/*
 * Called by a thread before anything that may make it sleep: a lock that is
 * taken, a condition, the device, the log. Whoever runs it may want others to
 * know (src/fuse/turn.c). The hook may be called, by any thread, for a moment
 * after it was taken away (fn NULL).
 */
void may_wait(void);
void wait_set_hook(void (*fn)(void *arg), void *arg);

/* A lock's rank is its place in the order in which locks are taken (order.h,
 * checked in debug builds). */
struct rwlock {
	pthread_rwlock_t l;
	struct lock_place place;
};

/* Writers go first: whoever waits to write keeps new readers out, so one thread
 * must not read-lock it twice. */
void rwlock_init(struct rwlock *l, enum lock_rank rank);
void rwlock_fini(struct rwlock *l);
void rwlock_rdlock(struct rwlock *l);
void rwlock_wrlock(struct rwlock *l);
void rwlock_unlock(struct rwlock *l);

struct mutex {
	pthread_mutex_t m;
	struct lock_place place;
#ifndef NDEBUG
	pthread_t owner;
	bool held;
#endif
};

void mutex_init(struct mutex *m, enum lock_rank rank);
/* One of several of its rank that may be held at once, lower numbers first. */
void mutex_init_numbered(struct mutex *m, enum lock_rank rank,
			 uint64_t number);
void mutex_fini(struct mutex *m);
void mutex_lock(struct mutex *m);
bool mutex_trylock(struct mutex *m);
void mutex_unlock(struct mutex *m);
/* In debug builds abort unless the calling thread holds m. */
void mutex_assert_held(const struct mutex *m);
void cond_init(pthread_cond_t *c); /* CLOCK_MONOTONIC */
/* Wait for c or until ms milliseconds have passed (UINT64_MAX: for ever).
 * false: time ran out. */
bool cond_wait_ms(pthread_cond_t *c, struct mutex *m, uint64_t ms);

/* ---- clock.c ---- */

struct timespec64 { int64_t sec; uint32_t nsec; };

/* CLOCK_REALTIME_COARSE, or the kernel's stamp if that is ahead (clock.c). */
struct timespec64 now_real(void);
void now_real_after(struct timespec64 t); /* the kernel has stamped with t */
uint64_t now_ns(void);            /* CLOCK_MONOTONIC */
struct cowfs_disk_time time_to_disk(struct timespec64 t);
struct timespec64 time_from_disk(struct cowfs_disk_time t);

/* Open what a descriptor that was made with O_PATH is of. -ENOENT: no /proc. */
MUST_CHECK int open_path_fd(int at, int flags);

/* Fill with random bytes (getrandom). */
void random_bytes(void *buf, size_t len);
/* First line of a small file, without its end, cut to room - 1 bytes; false: there
 * is none, or it is empty. */
bool first_line(const char *path, char *out, size_t room);

#endif
