/*
 * test_lazy.c - a store that is opened as a mount does it: nothing is written, and
 * what was found becomes durable before anything that builds on it
 */
#include <pthread.h>

#include "unit/log_fixture.h"

#define READERS 2
#define BIG 24u /* pieces */
#define SCATTERED 1200u

static unsigned writes(struct bdev *log, size_t from)
{
	unsigned n = 0;

	for (; from < log_count(log); from++)
		n += log_get(log, from)->kind == LOG_WRITE;
	return n;
}

/* A file, changed in place, of which fsync says that it is durable; what the log
 * carries is less than a piece. Killed; its digest. */
static uint64_t leave_log(uint64_t *ino, bool carried)
{
	struct lab l = open_on(mem, 0);
	uint64_t want;

	*ino = make_file(&l, "a");
	write_piece(&l, *ino, 0, 1);
	write_piece(&l, *ino, PIECE, 2);
	ck_ok(store_commit(l.s, NULL, NULL));
	if (carried)
		write_bytes(&l, *ino, 4096, 4096, 9);
	else
		write_piece(&l, *ino, 0, 3);
	ck_ok(fs_fsync(l.fs, *ino, false));
	want = digest(&l);
	crash(&l);
	return want;
}

/* ---- opening ---- */

static void opening_is_reading(uint64_t want)
{
	struct recorded rec;

	record_device(&rec);
	rec.l = open_on(rec.log, STORE_LAZY);
	ck_assert_uint_eq(digest(&rec.l), want);
	crash(&rec.l);
	ck_assert_uint_eq(writes(rec.log, 0), 0);
	ck_assert_uint_eq(flushes(rec.log, 0), 0);
	end_recording(&rec);
	expect_after_crash(mem, want);
}

START_TEST(opening_writes_and_flushes_nothing)
{
	struct lab l = open_on(mem, STORE_LAZY);
	uint64_t ino = make_file(&l, "first"), want;

	write_piece(&l, ino, 0, 1);
	want = digest(&l);
	close_it(&l);
	opening_is_reading(want);
	want = leave_log(&ino, false);
	opening_is_reading(want);
}
END_TEST

START_TEST(nor_does_what_the_log_carried)
{
	uint64_t ino;

	opening_is_reading(leave_log(&ino, true));
}
END_TEST

/* Step 5 of opening is not put off where it matters at once. */
START_TEST(damaged_superblocks_are_made_good_at_once)
{
	struct super_scan scan;
	struct recorded rec;
	uint64_t ino;

	leave_log(&ino, false);
	ck_ok(super_scan(mem, &scan));
	flip_bit(mem, super_slot_block(DEV_SIZE / COWFS_BLOCK_SIZE,
				       scan.found[0].d.slot, true) *
			      COWFS_BLOCK_SIZE + 100, 3);
	test_log_hide();
	record_device(&rec);
	rec.l = open_on(rec.log, STORE_LAZY);
	crash(&rec.l);
	test_log_show();
	ck_assert_uint_ge(writes(rec.log, 0), 2);
	end_recording(&rec);
}
END_TEST

/* Nor does that it can't be made good stop anybody. */
START_TEST(a_slot_that_stays_damaged_stops_nothing)
{
	struct super_scan scan;
	struct bdev *faulty;
	uint64_t ino, at;
	struct lab l;

	leave_log(&ino, false);
	ck_ok(super_scan(mem, &scan));
	at = super_slot_block(DEV_SIZE / COWFS_BLOCK_SIZE,
			      scan.found[0].d.slot, true) * COWFS_BLOCK_SIZE;
	flip_bit(mem, at + 100, 3);
	ck_ok(fault_open(mem, &faulty));
	fault_range(faulty, FAULT_WRITE, at, COWFS_BLOCK_SIZE, -EIO);
	test_log_hide();
	l = open_on(faulty, STORE_LAZY);
	write_bytes(&l, ino, 0, 4096, 7);
	ck_ok(fs_fsync(l.fs, ino, false));
	close_it(&l);
	test_log_show();
	bdev_close(faulty);
}
END_TEST

/* Nothing proves that the newest commit was done: it is gone on from at once. */
START_TEST(an_unproven_commit_is_gone_on_from_at_once)
{
	struct killed k;

	killed_init(&k, 1);
	ck_err(store_commit(k.r.l.s, NULL, NULL), -EIO);
	crash(&k.r.l);
	killed_reopen(&k, STORE_LAZY);
	ck_assert_int_eq(log_get(k.r.log, k.from)->kind, LOG_FLUSH);
	ck_assert_uint_ge(writes(k.r.log, k.from), 2);
	crash(&k.r.l);
	killed_fini(&k);
}
END_TEST

START_TEST(the_first_commit_makes_lost_copies_good)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	struct super_scan scan;
	struct check_result res;
	uint64_t ino, at;
	struct lab l;

	leave_log(&ino, false);
	for (unsigned i = 0; i < 6; i++) { /* each slot has been used */
		l = open_on(mem, 0);
		close_it(&l);
	}
	ck_ok(super_scan(mem, &scan));
	at = super_slot_block(DEV_SIZE / COWFS_BLOCK_SIZE,
			      (scan.found[0].d.slot + 2u) % COWFS_SUPER_SLOTS,
			      true);
	ck_ok(bdev_write(mem, at * COWFS_BLOCK_SIZE, zero, sizeof(zero)));
	l = open_on(mem, STORE_LAZY);
	close_it(&l);
	l = open_on(mem, STORE_READONLY);
	ck_ok(check_run(l.s, &(struct check_options){ .data = true }, &res));
	ck_assert_uint_eq(res.problems, 0);
	close_it(&l);
}
END_TEST

/* ---- what was found in memory ---- */

/* Proven, but its last record, and what that names, were not flushed. */
static void leave_unflushed(struct killed *k)
{
	struct attr a;

	killed_init(k, 1);
	ck_ok(fs_lookup(k->r.l.fs, fs_live(k->r.l.fs), COWFS_INO_ROOT, "a", 1,
			&a));
	write_piece(&k->r.l, a.ino, PIECE, 3); /* too much to be carried */
	k->change = digest(&k->r.l);
	ck_err(fs_fsync(k->r.l.fs, a.ino, false), -EIO);
	crash(&k->r.l);
	killed_reopen(k, STORE_LAZY);
	ck_assert_uint_eq(log_count(k->r.log), k->from);
}

/* B4: whatever is written first, there was a flush before it. */
START_TEST(what_is_written_first_is_preceded_by_a_flush)
{
	struct killed k;
	uint64_t ino;
	size_t i;

	leave_unflushed(&k);
	ino = make_file(&k.r.l, "b");
	for (i = 0; i < BIG; i++) /* to places of their own, at once */
		write_piece(&k.r.l, ino, i * PIECE, 4);
	ck_assert_uint_ge(writes(k.r.log, k.from), 1);
	ck_assert_int_eq(log_get(k.r.log, k.from)->kind, LOG_FLUSH);
	crash(&k.r.l);
	cut_everywhere(&k, k.old, k.change);
	killed_fini(&k);
}
END_TEST

/* Nothing changed since, but what was found may be in memory only. */
static void asked_for(bool commit)
{
	struct bdev *dev;
	struct killed k;
	struct attr a;

	leave_unflushed(&k);
	ck_ok(fs_lookup(k.r.l.fs, fs_live(k.r.l.fs), COWFS_INO_ROOT, "a", 1,
			&a));
	ck_ok(commit ? store_commit(k.r.l.s, NULL, NULL) :
		       fs_fsync(k.r.l.fs, a.ino, false));
	dev = after_cut(&k.r);
	expect_after_crash(dev, k.change);
	bdev_close(dev);
	crash(&k.r.l);
	killed_fini(&k);
}

START_TEST(fsync_of_what_was_found_makes_it_durable)
{
	asked_for(false);
	teardown();
	setup();
	asked_for(true);
}
END_TEST

/* ---- killed again before the first commit ---- */

/* Until so many blocks are left. */
static void fill_up(unsigned blocks)
{
	struct lab l = open_on(mem, 0);
	uint64_t ino = make_file(&l, "fill"), n;
	struct alloc_info info;

	for (n = 0;; n++) {
		alloc_info(l.s->alloc, &info);
		if (info.avail < blocks)
			break;
		write_piece(&l, ino, n * PIECE, 1);
	}
	close_it(&l);
}

/* A block far from the others: an extent of its own. */
static void write_far(struct lab *l, uint64_t ino, unsigned n, uint8_t salt)
{
	write_bytes(l, ino, n * UINT64_C(3) * 4096, 4096, salt);
}

/* What the log names is not given to others while nothing newer is durable,
 * however little space there is: neither by who wrote it nor by who found it. */
START_TEST(what_the_log_names_stays_until_the_next_commit)
{
	uint64_t ino, want, gen;
	struct lab l;
	unsigned n;

	fill_up(SCATTERED + 300);
	l = open_on(mem, 0);
	ino = make_file(&l, "a");
	ck_ok(store_commit(l.s, NULL, NULL));
	for (n = 0; n < SCATTERED; n++)
		write_far(&l, ino, n, 1);
	ck_ok(fs_fsync(l.fs, ino, false));
	want = digest(&l);
	if (_i) {
		crash(&l);
		l = open_on(mem, STORE_LAZY);
	}
	gen = store_durable_gen(l.s);
	ck_ok(fs_unlink(l.fs, COWFS_INO_ROOT, "a", 1, NULL));
	ck_ok(store_drain(l.s));
	ino = make_file(&l, "b");
	for (n = 0; store_durable_gen(l.s) == gen; n++) {
		if (n % 50 == 0)
			expect_after_crash(mem, want);
		write_far(&l, ino, n, 2);
	}
	ck_assert_uint_ge(n, 50);
	crash(&l);
}
END_TEST

START_TEST(fsync_before_the_first_commit_is_one)
{
	uint64_t ino, gen, want;
	struct lab l;

	leave_log(&ino, true);
	l = open_on(mem, STORE_LAZY);
	gen = store_durable_gen(l.s);
	write_bytes(&l, ino, 0, 4096, 7);
	ck_ok(fs_fsync(l.fs, ino, false));
	ck_assert_uint_gt(store_durable_gen(l.s), gen);
	gen = store_durable_gen(l.s);
	write_bytes(&l, ino, 0, 4096, 8);
	ck_ok(fs_fsync(l.fs, ino, false));
	ck_assert_uint_eq(store_durable_gen(l.s), gen);
	want = digest(&l);
	crash(&l);
	expect_after_crash(mem, want);
}
END_TEST

/* ---- in time ---- */

static void nap(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	nanosleep(&ms, NULL);
}

START_TEST(the_first_commit_comes_by_itself)
{
	uint64_t ino, gen, want = leave_log(&ino, true);
	struct lab l = open_on(mem, STORE_LAZY);
	unsigned ms;

	gen = store_durable_gen(l.s);
	ck_ok(store_start(l.s));
	for (ms = 0; ms < 20000 && store_durable_gen(l.s) == gen; ms++)
		nap();
	ck_assert_uint_gt(store_durable_gen(l.s), gen);
	ck_assert_uint_eq(digest(&l), want);
	close_it(&l);
	expect_after_crash(mem, want);
}
END_TEST

/* What the log carried goes from memory to its place under readers. */
struct reader {
	struct lab *l;
	uint64_t ino;
	_Atomic bool *done;
};

static void *read_on(void *arg)
{
	const struct reader *r = arg;
	static const uint8_t nine[4096] = { 9 };
	uint8_t buf[4096];
	size_t got;

	do {
		ck_ok(fs_read(r->l->fs, fs_live(r->l->fs), r->ino, 4096, buf,
			      sizeof(buf), &got));
		ck_assert_uint_eq(got, sizeof(buf));
		ck_assert_int_eq(buf[0], nine[0]);
		ck_assert_int_eq(memcmp(buf, buf + 1, sizeof(buf) - 1), 0);
	} while (!atomic_load(r->done));
	return NULL;
}

START_TEST(what_was_carried_is_read_while_it_goes_to_its_place)
{
	unsigned rounds = test_rounds(10), i, k;

	for (i = 0; i < rounds; i++) {
		_Atomic bool done = false;
		pthread_t thread[READERS];
		struct reader r = { .done = &done };
		struct lab l;

		leave_log(&r.ino, true);
		l = open_on(mem, STORE_LAZY);
		r.l = &l;
		for (k = 0; k < READERS; k++)
			ck_ok(-pthread_create(&thread[k], NULL, read_on, &r));
		for (k = 0; k < 4; k++) {
			nap();
			write_piece(&l, r.ino, PIECE, k);
			ck_ok(store_commit(l.s, NULL, NULL));
		}
		atomic_store(&done, true);
		for (k = 0; k < READERS; k++)
			ck_ok(-pthread_join(thread[k], NULL));
		ck_ok(fs_unlink(l.fs, COWFS_INO_ROOT, "a", 1, NULL));
		close_it(&l);
	}
}
END_TEST

static void add_all(TCase *tc)
{
	tcase_add_test(tc, opening_writes_and_flushes_nothing);
	tcase_add_test(tc, nor_does_what_the_log_carried);
	tcase_add_test(tc, damaged_superblocks_are_made_good_at_once);
	tcase_add_test(tc, a_slot_that_stays_damaged_stops_nothing);
	tcase_add_test(tc, an_unproven_commit_is_gone_on_from_at_once);
	tcase_add_test(tc, the_first_commit_makes_lost_copies_good);
	tcase_add_test(tc, what_is_written_first_is_preceded_by_a_flush);
	tcase_add_test(tc, fsync_of_what_was_found_makes_it_durable);
	tcase_add_loop_test(tc, what_the_log_names_stays_until_the_next_commit,
			    0, 2);
	tcase_add_test(tc, fsync_before_the_first_commit_is_one);
	tcase_add_test(tc, the_first_commit_comes_by_itself);
	tcase_add_test(tc,
		       what_was_carried_is_read_while_it_goes_to_its_place);
}

int main(void)
{
	Suite *s = suite_create("lazy");

	test_case(s, "one copy", 300, setup, teardown, add_all);
	return test_main(s);
}
