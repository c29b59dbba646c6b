/*
 * fetch.h - what will be read soon, fetched past the host's cache
 * (private to src/block)
 */
#ifndef COW_FETCH_H
#define COW_FETCH_H

#include "block/past.h"

struct fetch;

/* Of the file that is open as fd, of so many bytes; past: how it is read. Both
 * live longer. Starts threads. -ENOMEM, -EAGAIN. */
MUST_CHECK int fetch_open(struct past *past, int fd, uint64_t size,
			  struct fetch **out);
/* Nobody uses it any more. NULL: nothing. */
void fetch_close(struct fetch *f);

/* The range will be read soon. False: nothing can be fetched now, and the hint
 * is to be given in another way. Waits for no device. */
bool fetch_ask(struct fetch *f, uint64_t off, uint64_t len);

/* Take the range from what was fetched. -EAGAIN: it is just being read, and the
 * caller does not want to wait; -ENOENT: not all of it is here, nor on its
 * way. */
MUST_CHECK int fetch_take(struct fetch *f, uint64_t off, void *buf, size_t len,
			  bool wait);

/* The range has just been written, or tried to. */
void fetch_written(struct fetch *f, uint64_t off, uint64_t len);

#endif
