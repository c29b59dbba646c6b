/*
 * hist.h - counting into a histogram, from many threads
 *
 * Cheap enough to be always on: two relaxed additions and a look at max. Many
 * threads that count at the same time are kept on different cache lines by
 * whoever owns the histograms, if it matters: one histogram for each, added up
 * when somebody asks (hist_read adds).
 */
#ifndef COW_UTIL_HIST_H
#define COW_UTIL_HIST_H

#include <stdatomic.h>

#include "cowfs/hist.h"

/* All zero to begin with. */
struct hist {
	_Atomic uint64_t sum, max;
	_Atomic uint64_t bucket[COWFS_HIST_BUCKETS];
};

static inline void hist_add(struct hist *h, uint64_t v)
{
	uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);

	atomic_fetch_add_explicit(&h->bucket[cowfs_hist_bucket(v)], 1,
				  memory_order_relaxed);
	atomic_fetch_add_explicit(&h->sum, v, memory_order_relaxed);
	while (v > max &&
	       !atomic_compare_exchange_weak_explicit(&h->max, &max, v,
						      memory_order_relaxed,
						      memory_order_relaxed))
		;
}

/* Add what is in h to *out. What is counted meanwhile may be in it in part: in
 * a bucket, but not in the sum. */
void hist_read(const struct hist *h, struct cowfs_hist *out);

#endif
