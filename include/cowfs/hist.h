/*
 * hist.h - histograms of durations and sizes: how they are laid out
 *
 * Eight buckets for each power of two: whatever the value, its bucket is no
 * wider than an eighth of it, so a percentile read off the upper ends is at
 * most 12.5% too high. Values below 16 have buckets of their own. No value is
 * out of range. The daemon counts (util/hist.h), cowctl gets the counts and
 * subtracts those of a moment ago.
 */
#ifndef COWFS_HIST_H
#define COWFS_HIST_H

#include <stdint.h>

#define COWFS_HIST_SUB_BITS 3u
#define COWFS_HIST_SUB (1u << COWFS_HIST_SUB_BITS)
#define COWFS_HIST_BUCKETS ((64u - COWFS_HIST_SUB_BITS + 1) * COWFS_HIST_SUB)

struct cowfs_hist {
	uint64_t count; /* of all values: what the buckets add up to */
	uint64_t sum;
	uint64_t max;   /* the largest value ever */
	uint64_t bucket[COWFS_HIST_BUCKETS];
};

static inline unsigned cowfs_hist_bucket(uint64_t v)
{
	unsigned shift;

	if (v < COWFS_HIST_SUB)
		return (unsigned)v;
	shift = 63u - (unsigned)__builtin_clzll(v) - COWFS_HIST_SUB_BITS;
	/* v >> shift is 8 to 15 */
	return shift * COWFS_HIST_SUB + (unsigned)(v >> shift);
}

/* The largest value that goes to bucket i. */
uint64_t cowfs_hist_upper(unsigned i);

/* A value that `permille` of 1000 of all values do not exceed: the upper end of
 * a bucket, but not beyond max. 0 if there are none. */
uint64_t cowfs_hist_percentile(const struct cowfs_hist *h, unsigned permille);

/* What came to `now` since `before`, which is older. max becomes the upper end
 * of the highest bucket that something came to, if it was not raised. */
void cowfs_hist_since(const struct cowfs_hist *now,
		      const struct cowfs_hist *before, struct cowfs_hist *out);

#endif
