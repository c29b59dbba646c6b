/*
 * test_block_past.c - what is read past the host's cache, asked for ahead, or
 * staged
 */
#include "unit/block_fixture.h"

/* ---- reads past the host's cache ---- */

static struct {
	int err;        /* what comes of them */
	bool flip;      /* and whether a bit is wrong then */
	unsigned calls;
	uint64_t ahead, fetch; /* bytes it was told of */
} past;

/* As read_past and as read_now. */
static int past_read(struct bdev *dev, unsigned side, uint64_t off, void *buf,
		     size_t len)
{
	ck_assert_uint_eq(side, 0);
	(void)dev;
	past.calls++;
	if (past.err)
		return past.err;
	ck_ok(bdev_read(t.mem, off, buf, len));
	((uint8_t *)buf)[len / 2] ^= past.flip;
	return 0;
}

static int usual_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	(void)dev;
	return bdev_read(t.dev, off, buf, len);
}

static int usual_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			int n)
{
	(void)dev;
	return bdev_writev(t.dev, off, iov, n);
}

static void note_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	(void)dev;
	(void)off;
	past.ahead += len;
}

static void note_fetch(struct bdev *dev, uint64_t off, uint64_t len)
{
	(void)dev;
	(void)off;
	past.fetch += len;
}

/* The faulty device with this one thing more. */
static void set_past(int err, bool flip)
{
	static const struct bdev_ops ops = { .read = usual_read,
					     .writev = usual_writev,
					     .ahead = note_ahead,
					     .fetch = note_fetch,
					     .read_past = past_read,
					     .read_now = past_read };
	static struct bdev dev;

	dev = (struct bdev){ .ops = &ops, .size = t.dev->size,
			     .name = "device with a cache" };
	t.io.dev = &dev;
	past.err = err;
	past.flip = flip;
	past.calls = 0;
	past.ahead = past.fetch = 0;
}

static void read_all(uint64_t reads)
{
	uint64_t before = fault_count(t.dev, FAULT_READ);

	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	ck_assert_uint_eq(past.calls, 1);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ) - before, reads);
	check_stats(0, 0, 0, 0);
	ck_assert_uint_eq(test_log_count(), 0);
}

START_TEST(the_device_may_have_what_is_wanted_past_the_cache)
{
	uint64_t before = fault_count(t.dev, FAULT_READ);

	set_past(0, false);
	read_all(0);
	clear_buf();
	ck_ok(block_read_node(&t.io, both, N, t.whole, t.buf));
	check_buf();
	ck_assert_uint_eq(past.calls, 2);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), before);
}
END_TEST

START_TEST(scrub_asks_the_device_itself)
{
	unsigned bad = 0, repaired = 0;

	set_past(0, false);
	ck_ok(block_scrub(&t.io, both, N, t.csum, false, false, t.buf, &bad,
			  &repaired, NULL));
	ck_assert_uint_eq(bad, 0);
	ck_assert_uint_eq(past.calls, 0);
	ck_assert_uint_gt(fault_count(t.dev, FAULT_READ), 0);
}
END_TEST

START_TEST(what_goes_wrong_past_the_cache_is_no_event)
{
	set_past(0, true);
	read_all(1);
	set_past(-EAGAIN, false);
	read_all(1);
	set_past(-EIO, false);
	read_all(1);
}
END_TEST

START_TEST(damage_found_past_the_cache_is_mended)
{
	set_past(0, false);
	spoil(A + 7);
	clear_buf();
	ck_ok(block_read_data(&t.io, both, N, t.csum, t.buf));
	check_buf();
	check_disk(A);
	check_stats(1, 0, 1, 0);
}
END_TEST

START_TEST(what_can_be_read_at_once_is_verified_and_no_event)
{
	set_past(0, false);
	clear_buf();
	ck_ok(block_read_now(&t.io, both, N, t.csum, t.buf));
	check_buf();
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), 0);
	set_past(-EAGAIN, false);
	ck_err(block_read_now(&t.io, one, N, t.csum, t.buf), -EAGAIN);
	set_past(0, true);
	ck_err(block_read_now(&t.io, both, N, t.csum, t.buf), -ECOW_CSUM);
	ck_err(block_read_now(&t.io, (struct copies){ BLOCKS - 1, 0 }, 2,
			      t.csum, t.buf), -ECOW_CORRUPT);
	t.io.dev = t.dev; /* which can't tell */
	ck_err(block_read_now(&t.io, both, N, t.csum, t.buf), -EOPNOTSUPP);
	check_stats(0, 0, 0, 0);
	ck_assert_uint_eq(fault_count(t.dev, FAULT_READ), 0);
}
END_TEST

START_TEST(what_is_staged_is_not_read_past)
{
	uint64_t blocks;

	set_past(0, false);
	ck_assert_ptr_nonnull(block_stage_room(&t.io, 1000));
	ck_assert_ptr_null(block_staged(&t.io)); /* nothing is, in it */
	ck_ok(block_stage(&t.io, A + 5, t.good + 5 * BS));
	spoil(A + 5);
	clear_buf();
	ck_ok(block_read_data(&t.io, one, N, t.csum, t.buf));
	check_buf();
	ck_err(block_read_now(&t.io, one, N, t.csum, t.buf), -EOPNOTSUPP);
	ck_assert_uint_eq(past.calls, 0);
	block_fetch(&t.io, A, N); /* in vain, for the same reason */
	ck_assert_uint_eq(past.fetch, 0);
	ck_assert_uint_eq(past.ahead, N * BS);
	ck_ok(block_unstage(&t.io, &blocks));
	block_fini(&t.io);
	read_all(0);
	block_fetch(&t.io, A, N);
	ck_assert_uint_eq(past.fetch, N * BS);
	ck_assert_uint_eq(past.ahead, N * BS);
}
END_TEST

START_TEST(what_is_staged_last_counts_from_memory_of_any_size)
{
	/* rooms that fill a piece of memory, fit no more, need one alone */
	const size_t sizes[] = { 1, BS - 1, 60000, BS, 300000, 3 << 20, BS };
	uint64_t blocks, wrong = 0;
	uint8_t *room[7];

	for (unsigned i = 0; i < 7; i++) {
		room[i] = block_stage_room(&t.io, sizes[i]);
		ck_assert_ptr_nonnull(room[i]);
		ck_assert_uint_eq((uintptr_t)room[i] % 8, 0);
		memset(room[i], (int)i + 1, sizes[i]);
	}
	for (unsigned i = 0; i < 7; i++)
		for (size_t at = 0; at < sizes[i]; at++)
			wrong += room[i][at] != i + 1;
	ck_assert_uint_eq(wrong, 0);
	memcpy(room[5], t.good, BS);
	spoil(A);
	clear_buf();
	ck_ok(block_stage(&t.io, A, room[3]));
	ck_ok(block_stage(&t.io, A, room[5]));
	ck_ok(block_read_data(&t.io, one, 1, t.csum, t.buf));
	ck_ok(block_unstage(&t.io, &blocks));
	ck_assert_uint_eq(blocks, 1);
	block_fini(&t.io);
	clear_buf();
	ck_ok(block_read_data(&t.io, one, N, t.csum, t.buf));
	check_buf();
}
END_TEST

static Suite *past_suite(void)
{
	Suite *s = suite_create("block_past");
	TCase *tc = tcase_create("past");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_device_may_have_what_is_wanted_past_the_cache);
	tcase_add_test(tc, scrub_asks_the_device_itself);
	tcase_add_test(tc, what_goes_wrong_past_the_cache_is_no_event);
	tcase_add_test(tc, what_can_be_read_at_once_is_verified_and_no_event);
	tcase_add_test(tc, damage_found_past_the_cache_is_mended);
	tcase_add_test(tc, what_is_staged_is_not_read_past);
	tcase_add_test(tc,
		       what_is_staged_last_counts_from_memory_of_any_size);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(past_suite());
}
