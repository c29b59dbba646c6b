/*
 * test_hist.c - histograms: layout, percentiles, differences, many threads
 */
#include <pthread.h>
#include <string.h>

#include "support/test.h"
#include "util/hist.h"
#include "util/util.h"

static void fill(struct cowfs_hist *out, const uint64_t *v, size_t n)
{
	static struct hist h;

	memset(&h, 0, sizeof(h));
	for (size_t i = 0; i < n; i++)
		hist_add(&h, v[i]);
	memset(out, 0, sizeof(*out));
	hist_read(&h, out);
}

START_TEST(every_value_has_one_bucket_of_an_eighth_at_most)
{
	uint64_t lower = 0;

	for (unsigned i = 0; i < COWFS_HIST_BUCKETS; i++) {
		uint64_t upper = cowfs_hist_upper(i);

		ck_fast(upper >= lower);
		ck_fast(cowfs_hist_bucket(lower) == i);
		ck_fast(cowfs_hist_bucket(upper) == i);
		ck_fast(cowfs_hist_bucket(lower + (upper - lower) / 2) == i);
		/* no wider than an eighth of its smallest value */
		ck_fast(upper - lower <= lower / COWFS_HIST_SUB);
		lower = upper + 1;
	}
	ck_assert_uint_eq(lower, 0); /* the last one ends with 2^64 - 1 */
}
END_TEST

START_TEST(an_empty_histogram_has_percentiles_of_zero)
{
	struct cowfs_hist h;

	fill(&h, NULL, 0);
	ck_assert_uint_eq(h.count, 0);
	ck_assert_uint_eq(cowfs_hist_percentile(&h, 0), 0);
	ck_assert_uint_eq(cowfs_hist_percentile(&h, 1000), 0);
}
END_TEST

START_TEST(one_value_is_every_percentile)
{
	const uint64_t values[] = { 0, 1, 15, 16, 17, 123456789,
				    UINT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		struct cowfs_hist h;

		fill(&h, &values[i], 1);
		ck_assert_uint_eq(h.max, values[i]);
		ck_assert_uint_eq(h.sum, values[i]);
		ck_assert_uint_eq(cowfs_hist_percentile(&h, 1), values[i]);
		ck_assert_uint_eq(cowfs_hist_percentile(&h, 500), values[i]);
		ck_assert_uint_eq(cowfs_hist_percentile(&h, 1000), values[i]);
	}
}
END_TEST

static int by_value(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

START_TEST(percentiles_are_an_eighth_too_high_at_most)
{
	static uint64_t v[10007];
	static const unsigned permille[] = { 1, 10, 500, 900, 990, 999, 1000 };
	struct cowfs_hist h;
	struct rng r;

	rng_init(&r, test_seed(), 1);
	for (size_t i = 0; i < ARRAY_SIZE(v); i++)
		v[i] = rng_next(&r) >> rng_below(&r, 64);
	fill(&h, v, ARRAY_SIZE(v));
	qsort(v, ARRAY_SIZE(v), sizeof(*v), by_value);
	ck_assert_uint_eq(h.count, ARRAY_SIZE(v));
	for (size_t i = 0; i < ARRAY_SIZE(permille); i++) {
		size_t rank = (ARRAY_SIZE(v) * permille[i] + 999) / 1000;
		uint64_t want = v[rank - 1];
		uint64_t got = cowfs_hist_percentile(&h, permille[i]);

		ck_assert_uint_ge(got, want);
		ck_assert_uint_le(got - want, want / COWFS_HIST_SUB);
	}
	ck_assert_uint_eq(cowfs_hist_percentile(&h, 1000),
			  v[ARRAY_SIZE(v) - 1]);
}
END_TEST

START_TEST(what_came_since_is_told_alone)
{
	static const uint64_t early[] = { 5, 1000000 }, all[] = { 5, 1000000,
								  7, 90 };
	struct cowfs_hist a, b, d;

	fill(&a, early, ARRAY_SIZE(early));
	fill(&b, all, ARRAY_SIZE(all));
	cowfs_hist_since(&b, &a, &d);
	ck_assert_uint_eq(d.count, 2);
	ck_assert_uint_eq(d.sum, 97);
	ck_assert_uint_eq(cowfs_hist_percentile(&d, 500), 7);
	/* the greatest of before is not the greatest of now */
	ck_assert_uint_ge(d.max, 90);
	ck_assert_uint_le(d.max, 90 + 90 / COWFS_HIST_SUB);
	cowfs_hist_since(&b, &b, &d);
	ck_assert_uint_eq(d.count, 0);
	ck_assert_uint_eq(d.max, 0);
	/* into one of the two it is made of */
	cowfs_hist_since(&b, &a, &b);
	ck_assert_uint_eq(b.count, 2);
}
END_TEST

#define THREADS 4
#define EACH 50000u

static struct hist shared;

static void *add_many(void *arg)
{
	uint64_t first = *(uint64_t *)arg;

	for (uint64_t i = 0; i < EACH; i++)
		hist_add(&shared, first + i);
	return NULL;
}

START_TEST(threads_lose_nothing)
{
	pthread_t t[THREADS];
	uint64_t first[THREADS], all = THREADS * EACH;
	struct cowfs_hist h = { 0 };

	memset(&shared, 0, sizeof(shared));
	for (unsigned i = 0; i < THREADS; i++) {
		first[i] = i * EACH;
		ck_assert_int_eq(pthread_create(&t[i], NULL, add_many,
						&first[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		memset(&h, 0, sizeof(h));
		hist_read(&shared, &h);
		ck_fast(h.count <= all && h.max < all);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	memset(&h, 0, sizeof(h));
	hist_read(&shared, &h);
	ck_assert_uint_eq(h.count, all);
	ck_assert_uint_eq(h.sum, all * (all - 1) / 2);
	ck_assert_uint_eq(h.max, all - 1);
}
END_TEST

static Suite *hist_suite(void)
{
	Suite *su = suite_create("hist");
	TCase *tc = tcase_create("hist");

	tcase_add_test(tc, every_value_has_one_bucket_of_an_eighth_at_most);
	tcase_add_test(tc, an_empty_histogram_has_percentiles_of_zero);
	tcase_add_test(tc, one_value_is_every_percentile);
	tcase_add_test(tc, percentiles_are_an_eighth_too_high_at_most);
	tcase_add_test(tc, what_came_since_is_told_alone);
	tcase_add_test(tc, threads_lose_nothing);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(hist_suite());
}
