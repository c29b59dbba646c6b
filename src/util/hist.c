/*
 * hist.c - histograms: adding up, percentiles, what came since
 */
#include "util/hist.h"
#include "util/util.h"

uint64_t cowfs_hist_upper(unsigned i)
{
	unsigned shift;
	uint64_t top;

	if (i < 2 * COWFS_HIST_SUB)
		return i;
	shift = i / COWFS_HIST_SUB - 1;
	top = i % COWFS_HIST_SUB + COWFS_HIST_SUB;
	/* the last one: 16 << 60 is 0, less one 2^64 - 1 */
	return ((top + 1) << shift) - 1;
}

uint64_t cowfs_hist_percentile(const struct cowfs_hist *h, unsigned permille)
{
	uint64_t rank, seen = 0;
	unsigned i;

	if (!h->count)
		return 0;
	/* rounded up, without overflow */
	rank = h->count / 1000 * permille +
	       (h->count % 1000 * permille + 999) / 1000;
	for (i = 0; i < COWFS_HIST_BUCKETS; i++) {
		seen += h->bucket[i];
		if (seen && seen >= rank)
			return min_u64(cowfs_hist_upper(i), h->max);
	}
	return h->max;
}

void cowfs_hist_since(const struct cowfs_hist *now,
		      const struct cowfs_hist *before, struct cowfs_hist *out)
{
	struct cowfs_hist d = { .sum = now->sum - before->sum };
	unsigned i, last = 0;

	for (i = 0; i < COWFS_HIST_BUCKETS; i++) {
		d.bucket[i] = now->bucket[i] - before->bucket[i];
		d.count += d.bucket[i];
		if (d.bucket[i])
			last = i;
	}
	if (d.count)
		d.max = min_u64(cowfs_hist_upper(last), now->max);
	if (now->max > before->max)
		d.max = now->max;
	*out = d;
}

void hist_read(const struct hist *h, struct cowfs_hist *out)
{
	uint64_t n, max;
	unsigned i;

	for (i = 0; i < COWFS_HIST_BUCKETS; i++) {
		n = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
		out->bucket[i] += n;
		out->count += n;
	}
	out->sum += atomic_load_explicit(&h->sum, memory_order_relaxed);
	max = atomic_load_explicit(&h->max, memory_order_relaxed);
	out->max = max_u64(out->max, max);
}
