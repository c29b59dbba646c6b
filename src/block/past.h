/*
 * past.h - long reads of a file, past the host's cache
 */
#ifndef COW_PAST_H
#define COW_PAST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "util/util.h"

/* Of one file. May be used by many threads. */
struct past {
	_Atomic int fd;         /* the file once more; -1: not yet */
	atomic_bool refused;    /* it can't be opened or read so */
	_Atomic uint64_t quiet; /* now_ns() from which on nobody writes */
};

#define PAST_MAX (UINT64_C(2) << 20) /* bytes in one read */

/* fd: the file. */
void past_init(struct past *p, int fd);
void past_fini(struct past *p);

/* The file is about to be written. */
void past_writes(struct past *p);

/* Is it worth while to try now? */
bool past_likely(struct past *p);

/*
 * Read all of a range of the file that is open as fd. off, and where buffers
 * begin and end: multiples of the page size. Any error is one of this way of
 * reading only: -EOPNOTSUPP (not here, or not now), -EAGAIN (it is in the cache,
 * or may be), -EIO, ...
 */
MUST_CHECK int past_readv(struct past *p, int fd, uint64_t off,
			  const struct iovec *iov, int n);

#endif
