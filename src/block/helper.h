/*
 * helper.h - a thread that does one thing while its caller does another
 * (private to src/block)
 *
 * For what waits for storage: a flush, or a durable write. Tasks are carried
 * out one at a time, in the order of their coming.
 */
#ifndef COW_HELPER_H
#define COW_HELPER_H

#include "cowfs/bdev.h"
#include "util/list.h"
#include "util/util.h"

/* The caller's, from helper_begin until helper_end. */
struct task {
	struct list list;
	struct bdev *dev;
	uint64_t off;
	struct iovec *iov; /* may be changed; NULL: a flush */
	int n;
	int err;           /* lock  0 or -errno, once it has ended */
	bool ended;        /* lock */
};

struct helper {
	pthread_t thread;
	_Atomic bool started;
	struct mutex lock; /* a leaf, as a device's */
	pthread_cond_t wake, done;
	struct list tasks; /* lock */
	bool quit;         /* lock */
};

void helper_init(struct helper *h);
/* Start the thread, if that has not been done; one caller at a time. -EAGAIN,
 * ... */
MUST_CHECK int helper_start(struct helper *h);
/* Nobody uses it any more. */
void helper_fini(struct helper *h);

/* In this thread. */
MUST_CHECK int task_run(const struct task *t);
/* In the other one: helper_end waits for it and says how it went. */
void helper_begin(struct helper *h, struct task *t);
MUST_CHECK int helper_end(struct helper *h, struct task *t);

#endif
