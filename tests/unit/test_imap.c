/*
 * test_imap.c - interval maps, against an array of counts
 *
 * imap.c is compiled in here, so that its allocations can be made to fail.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"
#include "util/util.h"

static long allocs_left = -1; /* -1: no limit */

static void *limited_malloc(size_t n)
{
	if (allocs_left == 0)
		return NULL;
	if (allocs_left > 0)
		allocs_left--;
	return malloc(n);
}

#define malloc(n) limited_malloc(n)
#include "util/imap.c"
#undef malloc

#define RANGE 300u

/* Deep inside: order, no overlap, no zero, no equal neighbours, balance. */
struct walk {
	size_t count;
	uint64_t end;
	int64_t last_n;
};

static int walk(const struct imap_node *p, struct walk *w)
{
	int l, r;

	if (!p)
		return 0;
	l = walk(p->left, w);
	ck_fast(p->len > 0);
	ck_fast(p->n != 0);
	if (w->count++) {
		ck_fast(p->start >= w->end);
		ck_fast(p->start > w->end || p->n != w->last_n);
	}
	w->end = p->start + p->len;
	w->last_n = p->n;
	r = walk(p->right, w);
	ck_fast(l - r <= 1 && r - l <= 1);
	ck_fast(p->height == (l > r ? l : r) + 1);
	return p->height;
}

static void check_shape(const struct imap *m)
{
	struct walk w = { 0 };

	walk(m->root, &w);
	ck_assert_uint_eq(w.count, m->count);
}

static uint64_t run_length(const int64_t *want, uint64_t at)
{
	uint64_t end = at;

	while (end < RANGE && want[end] == want[at])
		end++;
	/* beyond the range there are only zeros, for ever */
	return (end == RANGE && want[at] == 0 ? UINT64_MAX : end) - at;
}

static void check_equal(const struct imap *m, const int64_t *want)
{
	struct ival iv;
	uint64_t at, next;
	bool found;

	check_shape(m);
	for (at = 0; at < RANGE; at++) {
		imap_get(m, at, &iv);
		ck_fast(iv.start == at);
		ck_fast(iv.n == want[at]);
		ck_fast(iv.len == run_length(want, at));
		for (next = at; next < RANGE && !want[next]; next++)
			;
		found = imap_next(m, at, &iv);
		ck_fast(found == (next < RANGE));
		if (!found)
			continue;
		ck_fast(iv.n == want[next]);
		ck_fast(iv.start <= next && next < iv.start + iv.len);
		ck_fast(iv.start == next || next == at);
		ck_fast(iv.start + iv.len == next + run_length(want, next));
	}
}

START_TEST(an_empty_map_is_one_gap)
{
	struct imap m;
	struct ival iv = { .start = 77 };

	imap_init(&m);
	imap_get(&m, 5, &iv);
	ck_assert_uint_eq(iv.start, 5);
	ck_assert_uint_eq(iv.len, UINT64_MAX - 5);
	ck_assert_int_eq(iv.n, 0);
	iv.start = 77;
	ck_assert(!imap_next(&m, 0, &iv));
	ck_assert_uint_eq(iv.start, 77);
	ck_ok(imap_add(&m, 5, 10, 0));
	ck_ok(imap_add(&m, 5, 0, 3));
	ck_assert_uint_eq(m.count, 0);
	imap_clear(&m);
}
END_TEST

START_TEST(neighbours_with_equal_counts_become_one)
{
	struct imap m;
	struct ival iv;

	imap_init(&m);
	ck_ok(imap_add(&m, 10, 10, 2));
	ck_ok(imap_add(&m, 30, 10, 2));
	ck_assert_uint_eq(m.count, 2);
	ck_ok(imap_add(&m, 20, 10, 2));
	ck_assert_uint_eq(m.count, 1);
	ck_assert(imap_next(&m, 0, &iv));
	ck_assert_uint_eq(iv.start, 10);
	ck_assert_uint_eq(iv.len, 30);
	imap_clear(&m);
}
END_TEST

START_TEST(what_is_taken_back_leaves_nothing)
{
	struct imap m;

	imap_init(&m);
	ck_ok(imap_add(&m, 0, 1000, 1));
	ck_ok(imap_add(&m, 300, 100, -1));
	ck_assert_uint_eq(m.count, 2);
	ck_ok(imap_add(&m, 0, 300, -1));
	ck_ok(imap_add(&m, 400, 600, -1));
	ck_assert_uint_eq(m.count, 0);
	ck_assert_ptr_null(m.root);
}
END_TEST

START_TEST(the_largest_numbers_fit)
{
	struct imap m;
	struct ival iv;

	imap_init(&m);
	ck_ok(imap_add(&m, UINT64_MAX - 4, 4, 7));
	ck_ok(imap_add(&m, 0, UINT64_MAX, -7));
	imap_get(&m, 0, &iv);
	ck_assert_uint_eq(iv.len, UINT64_MAX - 4);
	ck_assert_int_eq(iv.n, -7);
	ck_assert_uint_eq(m.count, 1);
	imap_get(&m, UINT64_MAX - 2, &iv);
	ck_assert_uint_eq(iv.len, 2);
	ck_assert_int_eq(iv.n, 0);
	imap_clear(&m);
}
END_TEST

START_TEST(a_moved_map_is_the_old_one_and_leaves_an_empty_one)
{
	struct imap a, b;
	struct ival iv;

	imap_init(&a);
	imap_init(&b);
	ck_ok(imap_add(&a, 5, 6, 7));
	imap_move(&b, &a);
	ck_assert(!imap_next(&a, 0, &iv));
	ck_assert_uint_eq(a.count, 0);
	ck_assert(imap_next(&b, 0, &iv));
	ck_assert_int_eq(iv.n, 7);
	ck_assert_uint_eq(b.count, 1);
	imap_clear(&a);
	imap_clear(&b);
}
END_TEST

START_TEST(random_changes_give_what_an_array_gives)
{
	int64_t want[RANGE] = { 0 };
	unsigned i, rounds = test_rounds(4000);
	uint64_t start, len, k;
	struct imap m;
	struct rng r;
	int64_t n;

	rng_init(&r, test_seed(), 10);
	imap_init(&m);
	for (i = 0; i < rounds; i++) {
		start = rng_below(&r, RANGE);
		len = rng_range(&r, 1, min_u64(RANGE - start,
					       rng_one_in(&r, 4) ? RANGE : 9));
		n = (int64_t)rng_below(&r, 5) - 2;
		if (rng_one_in(&r, 3)) /* often back to zero */
			n = -want[start];
		ck_ok(imap_add(&m, start, len, n));
		for (k = start; k < start + len; k++)
			want[k] += n;
		check_equal(&m, want);
	}
	imap_clear(&m);
}
END_TEST

START_TEST(without_memory_nothing_changes)
{
	int64_t want[RANGE] = { 0 };
	unsigned i, failed = 0, rounds = test_rounds(1500);
	uint64_t start, len, k;
	struct imap m;
	struct rng r;
	int64_t n;
	int err;

	rng_init(&r, test_seed(), 11);
	imap_init(&m);
	for (i = 0; i < rounds; i++) {
		start = rng_below(&r, RANGE);
		len = rng_range(&r, 1, RANGE - start);
		n = (int64_t)rng_below(&r, 5) - 2;
		allocs_left = (long)rng_below(&r, 4);
		err = imap_add(&m, start, len, n);
		allocs_left = -1;
		failed += err != 0;
		if (err)
			ck_assert_int_eq(err, -ENOMEM);
		for (k = start; !err && k < start + len; k++)
			want[k] += n;
		check_equal(&m, want);
	}
	ck_assert_uint_gt(failed, 0);
	imap_clear(&m);
}
END_TEST

/* An AVL tree of n pieces is at most 1.44 log2(n) high. */
START_TEST(the_tree_stays_low_whatever_the_order_of_keys)
{
	struct imap m;
	uint64_t i, k;
	int how;

	for (how = 0; how < 3; how++) {
		imap_init(&m);
		for (i = 0; i < 20000; i++) {
			k = how == 0 ? i : how == 1 ? 20000 - i :
			    (i % 2 ? i : 20000 - i);
			ck_fast(!imap_add(&m, k * 3, 1, 1));
		}
		check_shape(&m);
		ck_assert_int_le(m.root->height, 21);
		for (i = 0; i < 20000; i++) /* every second one goes */
			ck_fast(i % 2 || !imap_add(&m, i * 3, 1, -1));
		check_shape(&m);
		imap_clear(&m);
	}
}
END_TEST

static Suite *imap_suite(void)
{
	Suite *s = suite_create("imap");
	TCase *tc = tcase_create("imap");

	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, an_empty_map_is_one_gap);
	tcase_add_test(tc, neighbours_with_equal_counts_become_one);
	tcase_add_test(tc, what_is_taken_back_leaves_nothing);
	tcase_add_test(tc, the_largest_numbers_fit);
	tcase_add_test(tc, a_moved_map_is_the_old_one_and_leaves_an_empty_one);
	tcase_add_test(tc, random_changes_give_what_an_array_gives);
	tcase_add_test(tc, without_memory_nothing_changes);
	tcase_add_test(tc, the_tree_stays_low_whatever_the_order_of_keys);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(imap_suite());
}
