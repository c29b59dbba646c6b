/*
 * test_mirror_blocks.c - checked reads and scrub on two sides: which is read, and
 * what is mended from where
 */
#include "unit/mirror_fixture.h"

/* ---- checked reads ---- */

START_TEST(a_bad_copy_is_mended_from_the_other_side)
{
	unsigned i;

	for (i = 0; i < N; i++)
		spoil(i % 2, A + i);
	read_and_check(one);
	read_and_check(one);
	/* the ranges that side 1 is read for are not looked at on side 0 */
	check_disk(bdev_prefer(t.dev, A * BS), A);
	ck_assert_uint_ge(atomic_load(&t.io.stats.repaired), N / 2);
	ck_assert_ptr_nonnull(strstr(test_log_last(), " of faulty"));
}
END_TEST

START_TEST(of_four_places_one_is_enough)
{
	unsigned i, k, p;

	for (i = 0; i < N; i++)
		for (k = 0, p = (unsigned)rng_below(&t.rng, 4); k < 4; k++)
			if (k != p)
				spoil(k & 1, (k & 2 ? B : A) + i);
	read_and_check(both);
	check_disk(bdev_prefer(t.dev, A * BS), A);
}
END_TEST

START_TEST(a_unit_bad_everywhere_is_an_error)
{
	spoil(0, A + 7);
	spoil(1, A + 7);
	ck_err(block_read_data(&t.io, one, N, t.csum, t.buf), -ECOW_CSUM);
	ck_assert_uint_eq(atomic_load(&t.io.stats.unrepairable), 1);
	fault_range(t.side[1], FAULT_READ, (A + 7) * BS, BS, -EIO);
	ck_err(block_read_data(&t.io, one, N, t.csum, t.buf), -EIO);
}
END_TEST

START_TEST(a_stale_side_is_not_read_unless_nothing_else_is_left)
{
	unsigned s = bdev_prefer(t.dev, A * BS);
	uint64_t reads = fault_count(t.side[s], FAULT_READ);

	bdev_set_side(t.dev, s, SIDE_STALE);
	read_and_check(both);
	spoil(!s, A + 3);
	read_and_check(both); /* from the second copy */
	ck_assert_uint_eq(fault_count(t.side[s], FAULT_READ), reads);
	spoil(!s, A + 4);
	read_and_check(one);
	ck_assert_uint_eq(fault_count(t.side[s], FAULT_READ), reads + 1);
	check_disk(!s, A);
	/* bad bytes there are neither returned nor counted */
	spoil(s, A + 5);
	spoil(!s, A + 5);
	ck_err(block_read_data(&t.io, one, N, t.csum, t.buf), -ECOW_CSUM);
	ck_assert_uint_eq(atomic_load(&t.io.stats.csum_errors), 3);
}
END_TEST

/* What is fetched ahead is fetched from the side that is to be read (tell). */
START_TEST(each_part_is_read_from_the_side_that_was_told_of_it)
{
	const struct copies at = { B, A };
	const uint64_t border = 8 * MIB;
	unsigned before = bdev_prefer(t.dev, border - BS), i;
	uint64_t reads[2];

	ck_assert_uint_lt(B * BS, border);
	ck_assert_uint_gt((B + N) * BS, border);
	ck_assert_uint_ne(before, bdev_prefer(t.dev, border));
	for (i = 0; i < 2; i++)
		reads[i] = fault_count(t.side[i], FAULT_READ);
	memset(t.buf, 0x5a, sizeof(t.buf));
	ck_ok(block_read_data(&t.io, at, N, t.csum, t.buf));
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
	for (i = 0; i < 2; i++)
		ck_assert_uint_eq(fault_count(t.side[i], FAULT_READ),
				  reads[i] + 1);
	/* each bad block is found in its own places */
	spoil(before, B);
	spoil(before, A);
	spoil(!before, B + N - 1);
	spoil(!before, A + N - 1);
	ck_ok(block_read_data(&t.io, at, N, t.csum, t.buf));
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
	check_disk(before, B);
	check_disk(!before, B);
	/* copies that overlap do so over both parts */
	ck_err(block_read_data(&t.io, (struct copies){ B, B + N - 1 }, N,
			       t.csum, t.buf), -ECOW_CORRUPT);
	bdev_set_side(t.dev, before, SIDE_GONE);
	reads[0] = fault_count(t.side[!before], FAULT_READ);
	ck_ok(block_read_data(&t.io, at, N, t.csum, t.buf));
	ck_assert_uint_eq(fault_count(t.side[!before], FAULT_READ),
			  reads[0] + 1);
}
END_TEST

/* ---- scrub ---- */

static void scrub(struct copies at, bool whole, unsigned want_bad,
		  unsigned want_repaired)
{
	unsigned bad = 0, repaired = 0, i;
	uint8_t lost[(N + 7) / 8] = { 0 };

	ck_ok(block_scrub(&t.io, at, N, whole ? &t.whole : t.csum, whole, true,
			  t.buf, &bad, &repaired, lost));
	ck_assert_uint_eq(bad, want_bad);
	ck_assert_uint_eq(repaired, want_repaired);
	for (i = 0; i < sizeof(lost); i++)
		ck_assert_uint_eq(lost[i], 0);
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
}

START_TEST(scrub_mends_any_place_from_any_other)
{
	unsigned i, k, p, n = 0;

	for (i = 0; i < N; i++)
		for (k = 0, p = (unsigned)rng_below(&t.rng, 4); k < 4; k++)
			if (k != p && rng_one_in(&t.rng, 2)) {
				spoil(k & 1, (k & 2 ? B : A) + i);
				n++;
			}
	scrub(both, false, n, n);
	check_all_disks();
	scrub(both, false, 0, 0);
	spoil(1, B + 9);
	spoil(0, A + 9);
	spoil(0, B + 9);
	scrub(both, true, 3, 3);
	check_all_disks();
}
END_TEST

START_TEST(scrub_brings_a_stale_side_up_to_date)
{
	uint8_t zero[BS] = { 0 };
	uint64_t writes;
	unsigned i, s = (unsigned)rng_below(&t.rng, 2);

	for (i = 0; i < N; i++) {
		ck_ok(bdev_write(t.mem[s], (A + i) * BS, zero, BS));
		ck_ok(bdev_write(t.mem[s], (B + i) * BS, zero, BS));
	}
	bdev_set_side(t.dev, s, SIDE_STALE);
	writes = fault_count(t.side[s], FAULT_WRITE);
	scrub(both, false, 0, 0);
	check_all_disks();
	ck_assert_uint_eq(atomic_load(&t.io.stats.resynced), 2 * N);
	ck_assert_uint_eq(atomic_load(&t.io.stats.csum_errors), 0);
	ck_assert_uint_eq(test_log_count(), 0);
	/* in large pieces */
	ck_assert_uint_le(fault_count(t.side[s], FAULT_WRITE), writes + 6);
	scrub(both, false, 0, 0);
	ck_assert_uint_eq(atomic_load(&t.io.stats.resynced), 2 * N);
}
END_TEST

/* Else a repair would give up what is there. */
START_TEST(scrub_that_only_looks_finds_what_only_a_stale_side_has)
{
	unsigned bad = 0, repaired = 0, whole;
	uint8_t lost[(N + 7) / 8] = { 0 };
	uint64_t writes = fault_count(t.side[1], FAULT_WRITE);

	bdev_set_side(t.dev, 0, SIDE_STALE);
	spoil(1, A + 3);
	spoil(1, A + 70);
	for (whole = 0; whole < 2; whole++) {
		ck_ok(block_scrub(&t.io, one, N, whole ? &t.whole : t.csum,
				  whole, false, t.buf, &bad, &repaired, lost));
		ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
	}
	for (unsigned i = 0; i < sizeof(lost); i++)
		ck_assert_uint_eq(lost[i], 0);
	ck_assert_uint_eq(bad, 3); /* two blocks, and the node */
	ck_assert_uint_eq(repaired, 0);
	ck_assert_uint_eq(fault_count(t.side[1], FAULT_WRITE), writes);
	spoil(0, A + 70);
	ck_ok(block_scrub(&t.io, one, N, t.csum, false, false, t.buf, &bad,
			  &repaired, lost));
	ck_assert_uint_eq(lost[70 / 8], 1u << 70 % 8);
}
END_TEST

START_TEST(scrub_that_only_looks_leaves_a_stale_side_alone)
{
	unsigned bad = 0, repaired = 0;
	uint64_t writes = fault_count(t.side[0], FAULT_WRITE);
	uint64_t reads = fault_count(t.side[0], FAULT_READ);

	spoil(0, A);
	bdev_set_side(t.dev, 0, SIDE_STALE);
	ck_ok(block_scrub(&t.io, both, N, t.csum, false, false, t.buf, &bad,
			  &repaired, NULL));
	ck_assert_uint_eq(bad, 0);
	ck_assert_uint_eq(fault_count(t.side[0], FAULT_WRITE), writes);
	ck_assert_uint_eq(fault_count(t.side[0], FAULT_READ), reads);
}
END_TEST

START_TEST(a_side_that_cannot_be_mended_is_dropped)
{
	spoil(1, A + 3);
	fault_from(t.side[1], FAULT_WRITE, 1, -EIO);
	scrub(both, false, 1, 0);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2);
	scrub(both, false, 0, 0);
}
END_TEST

static void add_reads(TCase *tc)
{
	tcase_add_test(tc, a_bad_copy_is_mended_from_the_other_side);
	tcase_add_test(tc, of_four_places_one_is_enough);
	tcase_add_test(tc,
		       each_part_is_read_from_the_side_that_was_told_of_it);
	tcase_add_test(tc, a_unit_bad_everywhere_is_an_error);
	tcase_add_test(tc,
		       a_stale_side_is_not_read_unless_nothing_else_is_left);
}

static void add_scrub(TCase *tc)
{
	tcase_add_test(tc, scrub_mends_any_place_from_any_other);
	tcase_add_test(tc, scrub_brings_a_stale_side_up_to_date);
	tcase_add_test(tc,
		       scrub_that_only_looks_finds_what_only_a_stale_side_has);
	tcase_add_test(tc, scrub_that_only_looks_leaves_a_stale_side_alone);
	tcase_add_test(tc, a_side_that_cannot_be_mended_is_dropped);
}

int main(void)
{
	Suite *s = suite_create("mirror, blocks");

	test_case(s, "reads", 60, setup, teardown, add_reads);
	test_case(s, "scrub", 60, setup, teardown, add_scrub);
	return test_main(s);
}
