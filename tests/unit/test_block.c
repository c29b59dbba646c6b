/*
 * test_block.c - checked reads, second copies, repair, scrub
 */
#include <pthread.h>

#include "unit/block_fixture.h"

/* ---- reading ---- */

START_TEST(a_sound_read_takes_one_request_and_counts_it)
{
	uint64_t before = fault_count(t.dev, FAULT_READ);

	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	clear_buf();
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), before + 2);
	ck_assert_uint_eq(atomic_load(&t.io.stats.reads), 2);
	ck_assert_uint_eq(atomic_load(&t.io.stats.read_bytes), 2 * N * BS);
	ck_assert_uint_eq(atomic_load(&t.io.stats.writes), 2);
	ck_assert_uint_eq(atomic_load(&t.io.stats.write_bytes), 2 * N * BS);
	check_stats(0, 0, 0, 0);
	ck_assert_uint_eq(test_log_count(), 0);
}
END_TEST

START_TEST(a_node_with_a_bad_first_copy_is_mended)
{
	spoil(A + 3);
	clear_buf();
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	check_disk(A);
	check_stats(1, 0, 1, 0);
	ck_assert_uint_eq(test_log_count(), 1);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "block 100"));
	ck_assert_ptr_nonnull(strstr(test_log_last(), "rewritten"));
}
END_TEST

START_TEST(a_node_bad_on_both_copies_is_an_error_and_stays)
{
	static uint8_t before[N * BS], after[N * BS];

	spoil(A);
	spoil(B + N - 1);
	ck_ok(bdev_read(t.mem, A * BS, before, sizeof(before)));
	ck_err(block_read_node(&t.io, both, N, t.whole, t.buf), -ECOW_CSUM);
	check_stats(2, 0, 0, 1);
	ck_ok(bdev_read(t.mem, A * BS, after, sizeof(after)));
	ck_assert_mem_eq(before, after, sizeof(after));
}
END_TEST

START_TEST(a_node_with_one_bad_copy_is_an_error)
{
	spoil(A + 1);
	ck_err(block_read_node(&t.io, one, N, t.whole, t.buf), -ECOW_CSUM);
	check_stats(1, 0, 0, 1);
}
END_TEST

START_TEST(an_unreadable_node_comes_from_the_second_copy)
{
	fault_range(t.dev, FAULT_READ, A * BS, N * BS, -EIO);
	clear_buf();
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	check_stats(0, 1, 1, 0);
}
END_TEST

START_TEST(one_failing_read_is_enough_to_use_the_second_copy)
{
	unsigned rule = fault_nth(t.dev, FAULT_READ, 1, -EIO);

	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	ck_assert_uint_eq(fault_hits(t.dev, rule), 1);
	check_stats(0, 1, 1, 0);
}
END_TEST

START_TEST(copies_that_cannot_be_read_are_eio)
{
	fault_from(t.dev, FAULT_READ, 1, -EIO);
	ck_err(block_read_node(&t.io, both, N, t.whole, t.buf), -EIO);
	check_stats(0, 2, 0, 1);
	ck_err(block_read_node(&t.io, one, N, t.whole, t.buf), -EIO);
	ck_err(block_read_data(&t.io, both, N, t.csum, t.buf), -EIO);
}
END_TEST

START_TEST(an_unreadable_and_a_wrong_copy_are_eio)
{
	spoil(A);
	fault_range(t.dev, FAULT_READ, B * BS, N * BS, -EIO);
	ck_err(block_read_node(&t.io, both, N, t.whole, t.buf), -EIO);
	check_stats(1, 1, 0, 1);
}
END_TEST

START_TEST(other_device_errors_are_eio_too)
{
	fault_from(t.dev, FAULT_READ, 1, -ENXIO);
	ck_err(block_read_node(&t.io, one, N, t.whole, t.buf), -EIO);
}
END_TEST

START_TEST(data_bad_in_different_copies_come_together_whole)
{
	unsigned i, bad_a = 0;

	for (i = 0; i < N; i++) {
		if (i % 3 == 0) {
			spoil(A + i);
			bad_a++;
		} else if (i % 3 == 1) {
			spoil(B + i);
		}
	}
	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	check_disk(A);
	/* bad blocks of the second copy are not looked at */
	check_stats(bad_a, 0, bad_a, 0);
}
END_TEST

START_TEST(data_with_a_block_bad_in_both_copies_fail)
{
	spoil(A + 70);
	spoil(B + 70);
	ck_err(block_read_data(&t.io, both, N, t.csum, t.buf), -ECOW_CSUM);
	check_stats(2, 0, 0, 1);
	/* and the blocks beside it can still be had */
	ck_ok(block_read_data(&t.io, both, 70, t.csum, t.buf));
	ck_ok(block_read_data(&t.io, (struct copies){ A + 71, B + 71 },
			      N - 71, t.csum + 71, t.buf));
}
END_TEST

START_TEST(data_with_a_bad_spot_lose_only_that)
{
	fault_range(t.dev, FAULT_READ, (A + 10) * BS + 512, 512, -EIO);
	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	check_stats(0, 1, 1, 0);
	ck_err(block_read_data(&t.io, one, N, t.csum, t.buf), -EIO);
	ck_ok(block_read_data(&t.io, one, 10, t.csum, t.buf));
}
END_TEST

START_TEST(a_bit_flipped_on_the_way_is_found)
{
	fault_add(t.dev, &(struct fault_rule){ .op = FAULT_READ,
		  .kind = FAULT_FLIP, .off = (A + 5) * BS + 99, .bit = 7,
		  .times = 1 });
	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	check_stats(1, 0, 1, 0);
}
END_TEST

START_TEST(lost_torn_and_misdirected_writes_are_found)
{
	uint8_t next[BS];
	uint32_t csum;

	rng_fill(&t.rng, next, sizeof(next));
	csum = checksum(0, next, sizeof(next));

	fault_add(t.dev, &(struct fault_rule){ .op = FAULT_WRITE,
		  .kind = FAULT_LOST, .times = 1 });
	ck_ok(block_write(&t.io, A, 1, next));
	ck_err(block_read_node(&t.io, one, 1, csum, t.buf), -ECOW_CSUM);

	fault_add(t.dev, &(struct fault_rule){ .op = FAULT_WRITE,
		  .kind = FAULT_TORN, .sectors = 3, .times = 1 });
	ck_ok(block_write(&t.io, A, 1, next));
	ck_err(block_read_node(&t.io, one, 1, csum, t.buf), -ECOW_CSUM);

	ck_ok(block_write(&t.io, A + 1, 1, next));
	ck_err(block_read_node(&t.io, one, 1, csum, t.buf), -ECOW_CSUM);
}
END_TEST

START_TEST(a_read_only_filesystem_is_not_mended)
{
	uint64_t writes = fault_count(t.dev, FAULT_WRITE);
	unsigned bad = 0, repaired = 0;

	block_init(&t.io, t.dev, BLOCKS, false);
	spoil(A);
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	check_stats(2, 0, 0, 0);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "not rewritten"));
	ck_ok(block_scrub(&t.io, both, N, t.csum, false, true, t.buf, &bad,
			  &repaired, NULL));
	ck_assert_uint_eq(bad, 1);
	ck_assert_uint_eq(repaired, 0);

	/* nor is a device that can't be written, whatever the caller says */
	t.dev->readonly = true;
	block_init(&t.io, t.dev, BLOCKS, true);
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_stats(1, 0, 0, 0);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes);
}
END_TEST

START_TEST(what_is_read_unheard_is_not_mended_logged_or_counted)
{
	uint64_t writes = fault_count(t.dev, FAULT_WRITE);
	unsigned bad = 0, repaired = 0;
	struct blockio io;

	spoil(A);
	spoil(B);
	spoil(A + 1);
	/* what is staged is seen, and stays when this is gone */
	ck_ok(block_stage(&t.io, A, t.good));
	block_init_unheard(&io, &t.io);
	ck_ok(block_scrub(&io, both, N, t.csum, false, true, t.buf, &bad,
			  &repaired, NULL));
	check_buf();
	ck_assert_uint_eq(bad, 2);
	ck_assert_uint_eq(repaired, 0);
	check_stats(0, 0, 0, 0);
	ck_assert_uint_eq(atomic_load(&t.io.stats.reads), 0);
	ck_assert_uint_eq(test_log_count(), 0);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes);
	ck_assert(block_all_staged(block_staged(&t.io), A, 1));
	block_fini(&t.io);
}
END_TEST

START_TEST(a_copy_that_cannot_be_rewritten_does_no_harm)
{
	fault_from(t.dev, FAULT_WRITE, 1, -EIO);
	spoil(A);
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	check_stats(1, 0, 0, 0);
}
END_TEST

START_TEST(superblocks_are_never_rewritten)
{
	static const uint64_t super[] = { COWFS_SUPER_NEAR,
					  COWFS_FIRST_BLOCK - 1, BLOCKS - 4,
					  BLOCKS - 1 };
	uint64_t writes;
	unsigned i;

	writes = fault_count(t.dev, FAULT_WRITE);
	for (i = 0; i < ARRAY_SIZE(super); i++) {
		ck_ok(block_read_node(&t.io, (struct copies){ super[i], B }, 1,
				      t.csum[0], t.buf));
		ck_ok(block_read_data(&t.io, (struct copies){ super[i], B }, 1,
				      t.csum, t.buf));
	}
	/* a run that reaches into them */
	ck_ok(block_read_node(&t.io, (struct copies){ BLOCKS - 10, B }, 7,
			      checksum(0, t.good, 7 * BS), t.buf));
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes);
	/* just beside them is no matter */
	ck_ok(block_read_node(&t.io, (struct copies){ BLOCKS - 10, B }, 6,
			      checksum(0, t.good, 6 * BS), t.buf));
	ck_ok(block_read_node(&t.io, (struct copies){ COWFS_FIRST_BLOCK, B },
			      6, checksum(0, t.good, 6 * BS), t.buf));
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes + 2);
}
END_TEST

START_TEST(impossible_addresses_are_refused_unread)
{
	static const struct copies wild[] = {
		{ 0, 0 },
		{ BLOCKS, 0 },
		{ BLOCKS - N + 1, 0 },
		{ UINT64_MAX, 0 },
		{ UINT64_MAX - N + 1, 0 },
		{ UINT64_C(1) << 52, 0 },       /* offset wraps to 0 */
		{ (UINT64_C(1) << 52) + A, 0 }, /* ... to a block that is */
		{ A, BLOCKS - N + 1 },
		{ A, UINT64_MAX },
		{ 0, A },
		{ A, A },         /* copies overlap */
		{ A, A + N - 1 },
		{ A + N - 1, A },
	};
	uint64_t reads = fault_count(t.dev, FAULT_READ);
	uint64_t writes = fault_count(t.dev, FAULT_WRITE);
	unsigned i, bad = 0, repaired = 0;
	uint8_t lost[(N + 7) / 8];

	for (i = 0; i < ARRAY_SIZE(wild); i++) {
		ck_err(block_read_node(&t.io, wild[i], N, t.whole, t.buf),
		       -ECOW_CORRUPT);
		ck_err(block_read_data(&t.io, wild[i], N, t.csum, t.buf),
		       -ECOW_CORRUPT);
		ck_err(block_scrub(&t.io, wild[i], N, t.csum, false, true,
				   t.buf, &bad, &repaired, lost),
		       -ECOW_CORRUPT);
		if (i < 7)
			ck_err(block_write(&t.io, wild[i].a, N, t.buf),
			       -ECOW_CORRUPT);
	}
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), reads);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes);
	ck_assert_uint_eq(bad + repaired, 0);
	/* lengths that wrap */
	ck_err(block_read_node(&t.io, both, SIZE_MAX, t.whole, t.buf),
	       -ECOW_CORRUPT);
	ck_err(block_read_data(&t.io, one, SIZE_MAX - A + 1, t.csum, t.buf),
	       -ECOW_CORRUPT);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), reads);
	/* the log is not flooded */
	ck_assert_uint_gt(test_log_count(), 0);
	ck_assert_uint_lt(test_log_count(), 20);
}
END_TEST

START_TEST(the_last_blocks_of_the_device_can_be_used)
{
	ck_ok(block_write(&t.io, BLOCKS - N, N, t.good));
	ck_ok(block_read_data(&t.io, (struct copies){ BLOCKS - N, 0 }, N,
			      t.csum, t.buf));
	ck_ok(block_read_data(&t.io, (struct copies){ BLOCKS - N,
						      BLOCKS - 2 * N },
			      N, t.csum, t.buf));
}
END_TEST

START_TEST(a_write_gives_the_devices_error)
{
	fault_nth(t.dev, FAULT_WRITE, 1, -ENOSPC);
	ck_err(block_write(&t.io, A, 1, t.good), -ENOSPC);
	fault_nth(t.dev, FAULT_FLUSH, 1, -EIO);
	ck_err(block_flush(&t.io), -EIO);
	ck_ok(block_flush(&t.io));
	ck_assert_uint_eq(atomic_load(&t.io.stats.flushes), 2);
}
END_TEST

START_TEST(writev_gathers)
{
	struct iovec iov[3] = {
		{ .iov_base = t.good, .iov_len = 2 * BS },
		{ .iov_base = t.good + 2 * BS, .iov_len = BS },
		{ .iov_base = t.good + 3 * BS, .iov_len = (N - 3) * BS },
	};

	ck_ok(block_writev(&t.io, 3000, iov, 3));
	check_disk(3000);
}
END_TEST

/* ---- scrub ---- */

static void scrub(bool whole, bool mend, unsigned want_bad,
		  unsigned want_repaired, unsigned want_lost)
{
	unsigned bad = 1000, repaired = 2000, n = 0, i;
	uint8_t lost[(N + 7) / 8] = { 0 };

	clear_buf();
	ck_ok(block_scrub(&t.io, both, N, whole ? &t.whole : t.csum, whole,
			  mend, t.buf, &bad, &repaired, lost));
	ck_assert_uint_eq(bad, 1000 + want_bad);
	ck_assert_uint_eq(repaired, 2000 + want_repaired);
	for (i = 0; i < sizeof(lost) * 8; i++)
		n += lost[i / 8] >> i % 8 & 1;
	ck_assert_uint_eq(n, want_lost);
	if (!want_lost)
		check_buf();
}

START_TEST(scrub_of_sound_copies_finds_nothing)
{
	scrub(false, true, 0, 0, 0);
	scrub(true, true, 0, 0, 0);
	check_stats(0, 0, 0, 0);
}
END_TEST

START_TEST(scrub_mends_each_copy_from_the_other)
{
	unsigned i;

	for (i = 0; i < N; i += 2)
		spoil((i % 4 ? A : B) + i);
	scrub(false, true, N / 2, N / 2, 0);
	check_disk(A);
	check_disk(B);
	scrub(false, true, 0, 0, 0);
}
END_TEST

START_TEST(scrub_mends_either_copy_of_a_node)
{
	spoil(B + 9);
	spoil(B + 100);
	scrub(true, true, 1, 1, 0);
	check_disk(B);
	spoil(A);
	scrub(true, true, 1, 1, 0);
	check_disk(A);
	scrub(true, true, 0, 0, 0);
}
END_TEST

START_TEST(scrub_without_mend_writes_nothing)
{
	uint64_t writes = fault_count(t.dev, FAULT_WRITE);

	spoil(A + 1);
	spoil(B + 2);
	scrub(false, false, 2, 0, 0);
	scrub(true, false, 2, 0, N);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_WRITE), writes);
}
END_TEST

START_TEST(scrub_names_the_blocks_that_are_lost)
{
	uint8_t lost[(N + 7) / 8] = { 0 };
	unsigned bad = 0, repaired = 0, i;

	for (i = 60; i < 70; i++) { /* across two sweeps */
		spoil(A + i);
		spoil(B + i);
	}
	spoil(A + 80);
	ck_ok(block_scrub(&t.io, both, N, t.csum, false, true, t.buf, &bad,
			  &repaired, lost));
	ck_assert_uint_eq(bad, 21);
	ck_assert_uint_eq(repaired, 1);
	for (i = 0; i < N; i++)
		ck_assert_int_eq(lost[i / 8] >> i % 8 & 1,
				 i >= 60 && i < 70);
	ck_assert_uint_eq(atomic_load(&t.io.stats.unrepairable), 10);
	/* NULL for those who do not ask */
	ck_ok(block_scrub(&t.io, both, N, t.csum, false, true, t.buf, &bad,
			  &repaired, NULL));
}
END_TEST

START_TEST(scrub_of_a_single_copy_only_reports)
{
	uint8_t lost[(N + 7) / 8] = { 0 };
	unsigned bad = 0, repaired = 0;

	spoil(A + 149);
	ck_ok(block_scrub(&t.io, one, N, t.csum, false, true, t.buf, &bad,
			  &repaired, lost));
	ck_assert_uint_eq(bad, 1);
	ck_assert_uint_eq(repaired, 0);
	ck_assert_uint_eq(lost[149 / 8], 1u << 149 % 8);
}
END_TEST

START_TEST(scrub_mends_what_cannot_be_read)
{
	fault_range(t.dev, FAULT_READ, (A + 3) * BS, BS, -EIO);
	fault_range(t.dev, FAULT_READ, (B + 130) * BS, BS, -EIO);
	scrub(false, true, 2, 2, 0);
	check_stats(0, 2, 2, 0);
}
END_TEST

/* Any pattern of damage: what a read gives is right, and gives up only where
 * both copies are bad. */
START_TEST(random_damage_is_mended_or_reported_never_returned)
{
	unsigned round, rounds = test_rounds(150);

	for (round = 0; round < rounds; round++) {
		bool bad_a[N] = { 0 }, bad_b[N] = { 0 }, dead = false;
		unsigned i, n = 1 + (unsigned)rng_below(&t.rng, N);
		uint64_t one_in = rng_range(&t.rng, 2, 200);
		int err;

		ck_ok(bdev_write(t.mem, A * BS, t.good, sizeof(t.good)));
		ck_ok(bdev_write(t.mem, B * BS, t.good, sizeof(t.good)));
		for (i = 0; i < n; i++) {
			bad_a[i] = rng_one_in(&t.rng, one_in);
			bad_b[i] = rng_one_in(&t.rng, one_in);
			dead |= bad_a[i] && bad_b[i];
			if (bad_a[i])
				spoil(A + i);
			if (bad_b[i])
				spoil(B + i);
		}
		clear_buf();
		err = block_read_data(&t.io, both, n, t.csum, t.buf);
		ck_assert_int_eq(err, dead ? -ECOW_CSUM : 0);
		if (dead)
			continue;
		ck_assert_mem_eq(t.buf, t.good, n * BS);
		for (i = n; i < N; i++) /* nothing past the end was touched */
			ck_assert_uint_eq(t.buf[(size_t)i * BS], 0x5a);
		check_disk(A);
	}
}
END_TEST

static void *read_often(void *arg)
{
	uint8_t *buf = malloc(N * BS);
	int i;

	for (i = 0; i < 30; i++) {
		if (block_read_data(&t.io, both, N, t.csum, buf) ||
		    memcmp(buf, t.good, N * BS))
			*(bool *)arg = true;
	}
	free(buf);
	return NULL;
}

static void ignore(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

START_TEST(many_threads_read_and_mend_at_once)
{
	bool failed[4] = { false };
	pthread_t th[4];
	unsigned i;

	log_set_sink(ignore, NULL); /* the counting one is for one thread */
	for (i = 0; i < N; i += 5)
		spoil(A + i);
	for (i = 0; i < 4; i++)
		ck_assert(!pthread_create(&th[i], NULL, read_often,
					  &failed[i]));
	for (i = 0; i < 4; i++) {
		pthread_join(th[i], NULL);
		ck_assert(!failed[i]);
	}
	check_disk(A);
	ck_assert_uint_ge(atomic_load(&t.io.stats.repaired), N / 5);
}
END_TEST

static void add_read_tests(TCase *tc)
{
	tcase_add_test(tc, a_sound_read_takes_one_request_and_counts_it);
	tcase_add_test(tc, a_node_with_a_bad_first_copy_is_mended);
	tcase_add_test(tc, a_node_bad_on_both_copies_is_an_error_and_stays);
	tcase_add_test(tc, a_node_with_one_bad_copy_is_an_error);
	tcase_add_test(tc, an_unreadable_node_comes_from_the_second_copy);
	tcase_add_test(tc, one_failing_read_is_enough_to_use_the_second_copy);
	tcase_add_test(tc, copies_that_cannot_be_read_are_eio);
	tcase_add_test(tc, an_unreadable_and_a_wrong_copy_are_eio);
	tcase_add_test(tc, other_device_errors_are_eio_too);
	tcase_add_test(tc, data_bad_in_different_copies_come_together_whole);
	tcase_add_test(tc, data_with_a_block_bad_in_both_copies_fail);
	tcase_add_test(tc, data_with_a_bad_spot_lose_only_that);
	tcase_add_test(tc, a_bit_flipped_on_the_way_is_found);
	tcase_add_test(tc, lost_torn_and_misdirected_writes_are_found);
	tcase_add_test(tc, a_read_only_filesystem_is_not_mended);
	tcase_add_test(tc,
		       what_is_read_unheard_is_not_mended_logged_or_counted);
	tcase_add_test(tc, a_copy_that_cannot_be_rewritten_does_no_harm);
	tcase_add_test(tc, superblocks_are_never_rewritten);
	tcase_add_test(tc, impossible_addresses_are_refused_unread);
	tcase_add_test(tc, the_last_blocks_of_the_device_can_be_used);
	tcase_add_test(tc, a_write_gives_the_devices_error);
	tcase_add_test(tc, writev_gathers);
	tcase_add_test(tc, random_damage_is_mended_or_reported_never_returned);
	tcase_add_test(tc, many_threads_read_and_mend_at_once);
}

static Suite *block_suite(void)
{
	Suite *s = suite_create("block");
	TCase *tc = tcase_create("read");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	add_read_tests(tc);
	suite_add_tcase(s, tc);

	tc = tcase_create("scrub");
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, scrub_of_sound_copies_finds_nothing);
	tcase_add_test(tc, scrub_mends_each_copy_from_the_other);
	tcase_add_test(tc, scrub_mends_either_copy_of_a_node);
	tcase_add_test(tc, scrub_without_mend_writes_nothing);
	tcase_add_test(tc, scrub_names_the_blocks_that_are_lost);
	tcase_add_test(tc, scrub_of_a_single_copy_only_reports);
	tcase_add_test(tc, scrub_mends_what_cannot_be_read);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(block_suite());
}
