/*
 * test_mirror.c - the device of two sides: what each is asked and told, who is
 * dropped, who comes and goes
 */
#include <pthread.h>

#include "unit/mirror_fixture.h"

/* ---- the device ---- */

START_TEST(a_mirror_is_as_large_as_its_smaller_side)
{
	ck_assert_uint_eq(t.dev->size, (uint64_t)BLOCKS * BS);
	ck_assert_uint_eq(bdev_sides(t.dev), 2);
	ck_assert_uint_eq(bdev_sides(t.mem[0]), 1);
	ck_assert_int_eq(bdev_side_state(t.mem[0], 0), SIDE_GOOD);
}
END_TEST

START_TEST(writes_and_flushes_go_to_both_sides)
{
	uint64_t n = fault_count(t.side[1], FAULT_FLUSH);

	check_all_disks();
	ck_ok(bdev_flush(t.dev));
	ck_assert_uint_eq(fault_count(t.side[0], FAULT_FLUSH), n + 1);
	ck_assert_uint_eq(fault_count(t.side[1], FAULT_FLUSH), n + 1);
}
END_TEST

START_TEST(many_buffers_arrive_in_order_on_both_sides)
{
	struct iovec iov[N];
	unsigned i;

	for (i = 0; i < N; i++)
		iov[i] = (struct iovec){ t.good + (size_t)i * BS, BS };
	ck_ok(block_writev(&t.io, 3000, iov, N));
	check_disk(0, 3000);
	check_disk(1, 3000);
}
END_TEST

START_TEST(a_long_read_uses_both_sides)
{
	uint8_t *buf = malloc(MIB);
	uint64_t off, n[2];
	unsigned i;

	for (i = 0; i < 2; i++)
		n[i] = fault_count(t.side[i], FAULT_READ);
	for (off = 0; off < 8 * MIB; off += MIB)
		ck_ok(bdev_read(t.dev, off, buf, MIB));
	for (i = 0; i < 2; i++)
		ck_assert_uint_eq(fault_count(t.side[i], FAULT_READ), n[i] + 4);
	free(buf);
}
END_TEST

/* A device that counts the bytes it is told will be read. */
static uint64_t told[2];

static void note_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	told[dev->name[0] - '0'] += len;
	ck_assert_uint_eq(off >> 20, (off + len - 1) >> 20);
}

static void no_close(struct bdev *dev)
{
	(void)dev;
}

START_TEST(each_side_is_told_of_what_it_will_be_read_for)
{
	static const struct bdev_ops ops = { .ahead = note_ahead,
					     .close = no_close };
	struct bdev a = { .ops = &ops, .size = 16 * MIB, .name = "0" };
	struct bdev b = { .ops = &ops, .size = 16 * MIB, .name = "1" };
	struct bdev *side[2] = { &a, &b }, *dev;

	ck_ok(bdev_open_mirror(side, &dev));
	bdev_ahead(dev, MIB / 2, 4 * MIB);
	ck_assert_uint_eq(told[0], 2 * MIB);
	ck_assert_uint_eq(told[1], 2 * MIB);
	bdev_set_side(dev, 0, SIDE_STALE);
	bdev_fetch(dev, 0, 3 * MIB);
	ck_assert_uint_eq(told[0], 2 * MIB);
	ck_assert_uint_eq(told[1], 5 * MIB);
	bdev_close(dev);
}
END_TEST

static int past_name(struct bdev *dev, unsigned side, uint64_t off, void *buf,
		     size_t len)
{
	(void)off;
	ck_assert_uint_eq(side, 0);
	memset(buf, dev->name[0], len);
	return dev->name[0] == '1' ? -EIO : 0;
}

START_TEST(a_read_that_is_tried_is_of_one_side_and_tells_nothing_of_it)
{
	static const struct bdev_ops ops = { .read_past = past_name,
					     .read_now = past_name,
					     .close = no_close };
	struct bdev a = { .ops = &ops, .size = 16 * MIB, .name = "0" };
	struct bdev b = { .ops = &ops, .size = 16 * MIB, .name = "1" };
	struct bdev *side[2] = { &a, &b }, *dev;
	char buf[512];

	ck_ok(bdev_open_mirror(side, &dev));
	ck_ok(bdev_read_past(dev, 0, 0, buf, sizeof(buf)));
	ck_assert_int_eq(buf[511], '0');
	ck_err(bdev_read_past(dev, 1, 0, buf, sizeof(buf)), -EIO);
	ck_assert_int_eq(buf[0], '1');
	ck_ok(bdev_read_now(dev, 0, 0, buf, sizeof(buf)));
	ck_err(bdev_read_now(dev, 1, 0, buf, sizeof(buf)), -EIO);
	ck_assert_int_eq(buf[0], '1');
	ck_assert_uint_eq(bdev_bad_sides(dev), 0);
	bdev_set_side(dev, 0, SIDE_GONE);
	ck_err(bdev_read_past(dev, 0, 0, buf, sizeof(buf)), -EIO);
	ck_err(bdev_read_now(dev, 0, 0, buf, sizeof(buf)), -EIO);
	bdev_close(dev);
}
END_TEST

START_TEST(a_side_that_fails_to_write_is_dropped_and_left_alone)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	uint64_t writes, reads, flushes;

	fault_nth(t.side[s], FAULT_WRITE, 1, -EIO);
	ck_ok(block_write(&t.io, 3000, 1, t.good));
	ck_assert_int_eq(state(s), SIDE_GONE);
	ck_assert_int_eq(state(!s), SIDE_GOOD);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 1u << s);
	ck_assert_uint_eq(test_log_count(), 1);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "dropped"));
	writes = fault_count(t.side[s], FAULT_WRITE);
	reads = fault_count(t.side[s], FAULT_READ);
	flushes = fault_count(t.side[s], FAULT_FLUSH);
	ck_ok(block_write(&t.io, 3000, N, t.good));
	ck_ok(bdev_flush(t.dev));
	read_and_check(both);
	spoil(!s, A + 3); /* nor is it mended, or used for mending */
	ck_err(block_read_data(&t.io, one, N, t.csum, t.buf), -ECOW_CSUM);
	bdev_discard(t.dev, 0, MIB);
	bdev_set_side(t.dev, s, SIDE_GOOD); /* there is no way back */
	ck_assert_int_eq(state(s), SIDE_GONE);
	ck_assert_uint_eq(fault_count(t.side[s], FAULT_WRITE), writes);
	ck_assert_uint_eq(fault_count(t.side[s], FAULT_READ), reads);
	ck_assert_uint_eq(fault_count(t.side[s], FAULT_FLUSH), flushes);
	ck_assert_uint_eq(test_log_count(), 2);
}
END_TEST

START_TEST(a_side_that_fails_to_flush_is_dropped)
{
	fault_nth(t.side[0], FAULT_FLUSH, 1, -EIO);
	ck_ok(bdev_flush(t.dev));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 1);
	ck_ok(bdev_flush(t.dev));
	/* the last one is not: its error is the caller's */
	fault_nth(t.side[1], FAULT_FLUSH, 1, -EIO);
	ck_err(bdev_flush(t.dev), -EIO);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 1);
}
END_TEST

START_TEST(an_error_of_both_sides_drops_none)
{
	fault_nth(t.side[0], FAULT_WRITE, 1, -ENOSPC);
	fault_nth(t.side[1], FAULT_WRITE, 1, -ENOSPC);
	ck_err(block_write(&t.io, 3000, 1, t.good), -ENOSPC);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_ok(block_write(&t.io, 3000, N, t.good));
	check_disk(0, 3000);
	check_disk(1, 3000);
}
END_TEST

START_TEST(each_side_gets_its_own)
{
	uint8_t a[BS] = { 1 }, b[BS] = { 2 }, got[BS];
	const void *const own[] = { a, b }, *const second[] = { NULL, a };

	ck_ok(bdev_write_each(t.dev, 3000 * BS, own, BS));
	ck_ok(bdev_read_side(t.dev, 0, 3000 * BS, got, BS));
	ck_assert_mem_eq(got, a, BS);
	ck_ok(bdev_read_side(t.dev, 1, 3000 * BS, got, BS));
	ck_assert_mem_eq(got, b, BS);
	bdev_set_side(t.dev, 1, SIDE_STALE);
	ck_ok(bdev_write_each(t.dev, 3000 * BS, second, BS));
	ck_ok(bdev_read_side(t.dev, 1, 3000 * BS, got, BS));
	ck_assert_mem_eq(got, a, BS);
	fault_nth(t.side[0], FAULT_WRITE, 1, -ENOSPC);
	fault_nth(t.side[1], FAULT_WRITE, 1, -ENOSPC);
	ck_err(bdev_write_each(t.dev, 3000 * BS, own, BS), -ENOSPC);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2); /* no other than before */
	ck_assert_int_eq(state(1), SIDE_STALE);
	fault_nth(t.side[1], FAULT_WRITE, 1, -ENOSPC);
	ck_ok(bdev_write_each(t.dev, 3000 * BS, own, BS));
	ck_assert_int_eq(state(1), SIDE_GONE);
	ck_ok(bdev_write_each(t.dev, 3000 * BS, own, BS));
}
END_TEST

/* Nobody else did it, so that side is not behind: the caller has to know. */
START_TEST(an_error_of_what_is_for_a_stale_side_alone_is_told)
{
	const void *const second[] = { NULL, t.good };

	bdev_set_side(t.dev, 1, SIDE_STALE);
	fault_nth(t.side[1], FAULT_WRITE, 1, -ENOSPC);
	ck_err(bdev_write_each(t.dev, 3000 * BS, second, BS), -ENOSPC);
	ck_assert_int_eq(state(0), SIDE_GOOD);
	ck_assert_int_eq(state(1), SIDE_STALE);
}
END_TEST

START_TEST(an_error_of_one_side_alone_is_told_and_drops_it)
{
	uint8_t block[BS] = { 1 };

	fault_nth(t.side[1], FAULT_WRITE, 1, -EIO);
	ck_err(bdev_write_side(t.dev, 1, 3000 * BS, block, BS), -EIO);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2);
	fault_nth(t.side[0], FAULT_WRITE, 1, -EIO);
	ck_err(bdev_write_side(t.dev, 0, 3000 * BS, block, BS), -EIO);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2);
	ck_ok(bdev_write_side(t.dev, 0, 3000 * BS, block, BS));
}
END_TEST

/* One that is stale cannot go on without it. */
START_TEST(the_last_good_side_is_not_dropped_for_a_stale_one)
{
	bdev_set_side(t.dev, 1, SIDE_STALE);
	fault_nth(t.side[0], FAULT_WRITE, 1, -EIO);
	ck_err(bdev_write_side(t.dev, 0, 3000 * BS, t.good, BS), -EIO);
	ck_assert_int_eq(state(0), SIDE_GOOD);
	ck_assert_int_eq(state(1), SIDE_STALE);
}
END_TEST

START_TEST(an_error_of_a_stale_side_is_no_error)
{
	bdev_set_side(t.dev, 0, SIDE_STALE);
	fault_nth(t.side[0], FAULT_WRITE, 1, -EIO);
	ck_ok(block_write(&t.io, 3000, 1, t.good));
	ck_assert_int_eq(state(0), SIDE_GONE);
}
END_TEST

START_TEST(what_only_a_stale_side_did_is_not_done)
{
	bdev_set_side(t.dev, 0, SIDE_STALE);
	fault_nth(t.side[1], FAULT_WRITE, 1, -EIO);
	fault_nth(t.side[1], FAULT_FLUSH, 1, -EIO);
	ck_err(block_write(&t.io, 3000, 1, t.good), -EIO);
	ck_err(bdev_flush(t.dev), -EIO);
	ck_assert_int_eq(state(1), SIDE_GOOD);
}
END_TEST

START_TEST(a_read_error_is_made_up_for_by_the_other_side)
{
	uint8_t block[BS];
	unsigned rule[2];

	rule[0] = fault_nth(t.side[0], FAULT_READ, 1, -EIO);
	rule[1] = fault_nth(t.side[1], FAULT_READ, 2, -EIO);
	ck_ok(bdev_read(t.dev, A * BS, block, BS));
	ck_assert_mem_eq(block, t.good, BS);
	ck_ok(bdev_read(t.dev, A * BS + MIB, block, BS));
	ck_assert_uint_eq(fault_hits(t.side[0], rule[0]) +
			  fault_hits(t.side[1], rule[1]), 2);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
}
END_TEST

START_TEST(a_stale_side_makes_up_for_no_read_error)
{
	bdev_set_side(t.dev, 1, SIDE_STALE);
	fault_nth(t.side[0], FAULT_READ, 1, -EIO);
	ck_err(bdev_read(t.dev, A * BS, t.buf, BS), -EIO);
}
END_TEST

static int no_room[2];

static int prepare_or_not(struct bdev *dev, uint64_t off, uint64_t len)
{
	(void)off;
	(void)len;
	return no_room[dev->name[0] - '0'];
}

START_TEST(room_on_a_good_side_is_enough)
{
	static const struct bdev_ops ops = { .prepare = prepare_or_not,
					     .close = no_close };
	struct bdev a = { .ops = &ops, .size = 16 * MIB, .name = "0" };
	struct bdev b = { .ops = &ops, .size = 16 * MIB, .name = "1" };
	struct bdev *side[2] = { &a, &b }, *dev;

	ck_ok(bdev_open_mirror(side, &dev));
	no_room[0] = -ENOSPC;
	no_room[1] = 0;
	ck_ok(bdev_prepare(dev, 0, BS));
	bdev_set_side(dev, 1, SIDE_STALE);
	ck_err(bdev_prepare(dev, 0, BS), -ENOSPC);
	bdev_set_side(dev, 1, SIDE_GOOD);
	no_room[1] = -ENOSPC;
	ck_err(bdev_prepare(dev, 0, BS), -ENOSPC);
	ck_assert_uint_eq(bdev_bad_sides(dev), 0);
	bdev_close(dev);
}
END_TEST

START_TEST(a_missing_side_is_gone_until_one_is_attached)
{
	struct bdev *side[2] = { NULL, t.mem[1] }, *dev, *small;

	ck_ok(bdev_open_mirror(side, &dev));
	ck_assert_uint_eq(bdev_bad_sides(dev), 1);
	ck_assert_uint_eq(dev->size, t.mem[1]->size);
	ck_ok(bdev_write(dev, A * BS, t.good, BS));
	ck_err(bdev_read_side(dev, 0, A * BS, t.buf, BS), -EIO);
	ck_assert_str_eq(dev->name, "memory");
	ck_ok(bdev_open_mem(8 * MIB, &small));
	ck_ok(bdev_mirror_attach(dev, small));
	ck_assert_uint_eq(dev->size, 8 * MIB);
	ck_assert_int_eq(bdev_side_state(dev, 0), SIDE_STALE);
	ck_err(bdev_mirror_attach(dev, small), -EINVAL);
	bdev_close(dev);
	ck_ok(bdev_open_mem((uint64_t)BLOCKS * BS, &t.mem[1]));
	side[1] = NULL;
	ck_err(bdev_open_mirror(side, &dev), -EINVAL);
}
END_TEST

/* A flush in parallel: its error is never lost, whoever waits for it. */
static void *flush_often(void *arg)
{
	for (int i = 0; i < 200; i++)
		if (bdev_flush(t.dev))
			*(bool *)arg = true;
	return NULL;
}

START_TEST(flushes_in_parallel_cover_all_who_wait)
{
	bool failed[4] = { false };
	pthread_t th[4];
	unsigned i;

	ck_ok(bdev_start(t.dev));
	for (i = 0; i < 4; i++)
		ck_assert(!pthread_create(&th[i], NULL, flush_often,
					  &failed[i]));
	for (i = 0; i < 4; i++) {
		pthread_join(th[i], NULL);
		ck_assert(!failed[i]);
	}
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(fault_count(t.side[0], FAULT_FLUSH), 800);
	ck_assert_uint_ge(fault_count(t.side[1], FAULT_FLUSH), 200);
	fault_nth(t.side[1], FAULT_FLUSH, 1, -EIO);
	ck_ok(bdev_flush(t.dev));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2);
}
END_TEST

/* Two sides whose durable writes wait for each other. */
static struct {
	struct mutex lock;
	pthread_cond_t both;
	unsigned n;
} meeting;

static int meet(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	int err = bdev_writev(t.mem[dev->name[0] - '0'], off, iov, n);

	mutex_lock(&meeting.lock);
	meeting.n++;
	pthread_cond_broadcast(&meeting.both);
	while (meeting.n % 2)
		if (cond_wait_ms(&meeting.both, &meeting.lock, 10000))
			break;
	err = err ? err : meeting.n % 2 ? -ETIMEDOUT : 0;
	mutex_unlock(&meeting.lock);
	return err;
}

START_TEST(durable_writes_go_to_both_sides_at_once)
{
	static const struct bdev_ops ops = { .writev_durable = meet,
					     .close = no_close };
	struct bdev a = { .ops = &ops, .size = 16 * MIB, .name = "0" };
	struct bdev b = { .ops = &ops, .size = 16 * MIB, .name = "1" };
	struct bdev *side[2] = { &a, &b }, *dev;
	struct blockio io;

	mutex_init(&meeting.lock, LOCK_DEVICE_BELOW);
	cond_init(&meeting.both);
	ck_ok(bdev_open_mirror(side, &dev));
	ck_ok(bdev_start(dev));
	block_init(&io, dev, BLOCKS, true);
	ck_ok(block_write_durable(&io, 3000, N, t.good));
	ck_assert_uint_eq(meeting.n, 2);
	ck_assert_uint_eq(bdev_bad_sides(dev), 0);
	bdev_close(dev);
	check_disk(0, 3000);
	check_disk(1, 3000);
	pthread_cond_destroy(&meeting.both);
	mutex_fini(&meeting.lock);
}
END_TEST

START_TEST(a_side_that_fails_in_a_durable_write_is_dropped)
{
	enum fault_op op = _i & 2 ? FAULT_FLUSH : FAULT_WRITE;
	unsigned s = _i & 1;

	if (_i & 4)
		ck_ok(bdev_start(t.dev));
	fault_nth(t.side[s], op, 1, -EIO);
	ck_ok(block_write_durable(&t.io, 3000, N, t.good));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 1u << s);
	check_disk(!s, 3000);
	fault_nth(t.side[!s], op, 1, -ENOSPC);
	ck_err(block_write_durable(&t.io, 3000, N, t.good), -ENOSPC);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 1u << s);
}
END_TEST

/* ---- sides that come and go ---- */

static struct {
	_Atomic bool quit;
	_Atomic uint64_t done[4];
} busy;

/* Each thread writes its own block, counting up. */
static void *keep_writing(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t n, block[BS / 8] = { 0 };

	for (n = 1; !atomic_load(&busy.quit); n++) {
		block[0] = n;
		ck_ok(bdev_write(t.dev, (3000 + me) * BS, block, BS));
		if (n % 8 == 0)
			ck_ok(bdev_write_durable(t.dev, (3010 + me) * BS,
						 block, BS));
		bdev_ahead(t.dev, A * BS, BS);
		ck_ok(bdev_read(t.dev, (3000 + me) * BS, block, BS));
		ck_assert_uint_eq(block[0], n);
		atomic_store(&busy.done[me], n);
	}
	return NULL;
}

/* What was written since `from` is on a side. */
static void check_since(unsigned side, const uint64_t from[4])
{
	uint64_t block[BS / 8];
	unsigned i;

	for (i = 0; i < 4; i++) {
		ck_ok(bdev_read(t.mem[side], (3000 + i) * BS, block, BS));
		ck_assert_uint_ge(block[0], from[i]);
	}
}

/* Writers may be where they were when they come next. */
static void let_them_work(uint64_t from[4])
{
	unsigned i;

	for (i = 0; i < 4; i++)
		from[i] = atomic_load(&busy.done[i]);
	for (i = 0; i < 4; i++)
		while (atomic_load(&busy.done[i]) < from[i] + 2)
			nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
}

START_TEST(a_side_comes_and_goes_while_others_write)
{
	uint64_t from[4], writes, reads;
	struct bdev *gone;
	pthread_t th[4];
	unsigned i, s;

	atomic_store(&busy.quit, false);
	ck_ok(bdev_start(t.dev));
	for (i = 0; i < 4; i++)
		ck_assert(!pthread_create(&th[i], NULL, keep_writing,
					  (void *)(uintptr_t)i));
	for (i = 0; i < test_rounds(20); i++) {
		s = i % 2;
		let_them_work(from);
		ck_ok(bdev_mirror_detach(t.dev, s, &gone));
		ck_assert_ptr_eq(gone, t.side[s]);
		writes = fault_count(gone, FAULT_WRITE);
		reads = fault_count(gone, FAULT_READ);
		ck_err(bdev_mirror_detach(t.dev, !s, &gone), -EBUSY);
		ck_assert_str_eq(bdev_side_name(t.dev, s), "(missing)");
		let_them_work(from);
		ck_assert_uint_eq(fault_count(t.side[s], FAULT_WRITE), writes);
		ck_assert_uint_eq(fault_count(t.side[s], FAULT_READ), reads);
		ck_ok(bdev_mirror_attach(t.dev, t.side[s]));
		ck_assert_int_eq(state(s), SIDE_STALE);
		let_them_work(from);
		check_since(s, from);
		/* as a scrub does */
		bdev_set_side(t.dev, s, SIDE_GOOD);
	}
	atomic_store(&busy.quit, true);
	for (i = 0; i < 4; i++)
		pthread_join(th[i], NULL);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
}
END_TEST

/* ---- what is there no more ---- */

static int lost_as[2];

static int is_lost(struct bdev *dev)
{
	return lost_as[dev->name[0] - '0'];
}

START_TEST(a_side_that_is_there_no_more_is_dropped)
{
	static const struct bdev_ops ops = { .lost = is_lost,
					     .close = no_close };
	struct bdev a = { .ops = &ops, .size = 16 * MIB, .name = "0" };
	struct bdev b = { .ops = &ops, .size = 16 * MIB, .name = "1" };
	struct bdev *side[2] = { &a, &b }, *dev;

	ck_ok(bdev_open_mirror(side, &dev));
	ck_ok(bdev_lost(dev));
	lost_as[0] = lost_as[1] = -ENOENT; /* then nothing is won by it */
	ck_err(bdev_lost(dev), -ENOENT);
	ck_assert_uint_eq(bdev_bad_sides(dev), 0);
	lost_as[_i] = 0;
	ck_ok(bdev_lost(dev));
	ck_assert_uint_eq(bdev_bad_sides(dev), 1u << !_i);
	lost_as[_i] = -ENODEV;
	ck_err(bdev_lost(dev), -ENODEV);
	ck_assert_uint_eq(bdev_bad_sides(dev), 1u << !_i);
	bdev_close(dev);
	ck_ok(bdev_lost(t.dev)); /* memory stays */
}
END_TEST

START_TEST(a_plain_device_can_become_a_mirror)
{
	struct bdev *plain, *dev, *gone;
	uint8_t block[BS];

	ck_ok(bdev_open_mem(8 * MIB, &plain));
	ck_ok(bdev_open_extensible(plain, &dev));
	ck_assert_uint_eq(bdev_sides(dev), 1);
	ck_assert_uint_eq(bdev_bad_sides(dev), 0);
	ck_ok(bdev_write_side(dev, 0, 4 * MIB, t.good, BS));
	ck_ok(bdev_read_side(dev, 0, 4 * MIB, block, BS));
	ck_assert_mem_eq(block, t.good, BS);
	ck_ok(bdev_open_mem(8 * MIB, &plain));
	ck_ok(bdev_mirror_attach(dev, plain));
	ck_assert_uint_eq(bdev_sides(dev), 2);
	ck_assert_uint_eq(bdev_bad_sides(dev), 2);
	ck_err(bdev_mirror_detach(dev, 0, &gone), -EBUSY);
	bdev_close(dev);
	ck_err(bdev_mirror_detach(t.mem[0], 0, &gone), -EINVAL);
}
END_TEST

static void add_both(TCase *tc)
{
	tcase_add_test(tc, a_mirror_is_as_large_as_its_smaller_side);
	tcase_add_test(tc, writes_and_flushes_go_to_both_sides);
	tcase_add_test(tc, many_buffers_arrive_in_order_on_both_sides);
	tcase_add_test(tc, a_long_read_uses_both_sides);
	tcase_add_test(tc, each_side_is_told_of_what_it_will_be_read_for);
	tcase_add_test(tc,
		a_read_that_is_tried_is_of_one_side_and_tells_nothing_of_it);
	tcase_add_test(tc,
		       a_side_that_fails_to_write_is_dropped_and_left_alone);
	tcase_add_test(tc, a_side_that_fails_to_flush_is_dropped);
	tcase_add_test(tc, an_error_of_both_sides_drops_none);
	tcase_add_test(tc, each_side_gets_its_own);
	tcase_add_test(tc, an_error_of_what_is_for_a_stale_side_alone_is_told);
	tcase_add_test(tc, an_error_of_one_side_alone_is_told_and_drops_it);
	tcase_add_test(tc, the_last_good_side_is_not_dropped_for_a_stale_one);
	tcase_add_test(tc, an_error_of_a_stale_side_is_no_error);
	tcase_add_test(tc, what_only_a_stale_side_did_is_not_done);
	tcase_add_test(tc, a_read_error_is_made_up_for_by_the_other_side);
	tcase_add_test(tc, a_stale_side_makes_up_for_no_read_error);
	tcase_add_test(tc, room_on_a_good_side_is_enough);
	tcase_add_test(tc, a_missing_side_is_gone_until_one_is_attached);
	tcase_add_test(tc, flushes_in_parallel_cover_all_who_wait);
	tcase_add_test(tc, durable_writes_go_to_both_sides_at_once);
	tcase_add_loop_test(tc, a_side_that_fails_in_a_durable_write_is_dropped,
			    0, 8);
}

static void add_coming(TCase *tc)
{
	tcase_add_test(tc, a_side_comes_and_goes_while_others_write);
	tcase_add_loop_test(tc, a_side_that_is_there_no_more_is_dropped, 0, 2);
	tcase_add_test(tc, a_plain_device_can_become_a_mirror);
}

int main(void)
{
	Suite *s = suite_create("mirror");

	test_case(s, "both sides", 60, setup, teardown, add_both);
	test_case(s, "come and go", 60, setup, teardown, add_coming);
	return test_main(s);
}
