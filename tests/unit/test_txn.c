/*
 * test_txn.c - operations, commits, superblock slots, recovery, snapshots, on
 * bare trees (no files): items of the file tree stand for a filesystem
 */
#include "unit/txn_fixture.h"


START_TEST(what_was_committed_is_there_after_a_kill)
{
	struct store *s = open_on(mem, 0);

	fill(s, 500, 1);
	ck_ok(store_commit(s, NULL, NULL));
	ck_ok(put(s, 1, 42)); /* not committed */
	store_abandon(s);
	s = open_on(mem, 0);
	expect(s, &s->fs, 500, 1);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(closing_commits_and_marks_clean)
{
	struct store *s = open_on(mem, 0);
	struct super_scan scan;

	ck_ok(put(s, 5, 55));
	ck_ok(super_scan(mem, &scan));
	ck_assert(!(scan.found[0].d.state & COWFS_STATE_CLEAN));
	ck_ok(store_close(s));
	ck_ok(super_scan(mem, &scan));
	ck_assert(scan.found[0].d.state & COWFS_STATE_CLEAN);
	s = open_on(mem, STORE_READONLY);
	ck_assert_uint_eq(value(s, 5), 55);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(a_readonly_store_writes_nothing)
{
	struct store *s = open_on(mem, 0);
	struct bdev *log;
	struct op op;

	ck_ok(put(s, 5, 55));
	ck_ok(store_commit(s, NULL, NULL));
	store_abandon(s); /* not clean: there is something to recover */
	ck_ok(log_open(mem, &log));
	s = open_on(log, STORE_READONLY);
	ck_assert_uint_eq(value(s, 5), 55);
	ck_err(op_write(&op, s, ALLOC_NORMAL, 1), -EROFS);
	ck_ok(store_close(s));
	ck_assert_uint_eq(log_count(log), 0);
	bdev_close(log);
}
END_TEST

START_TEST(a_commit_without_changes_writes_nothing_more)
{
	struct store *s = open_on(mem, 0);
	uint64_t before;
	unsigned i;

	ck_ok(put(s, 5, 55));
	for (i = 0; i < 4; i++) /* lets pending frees come home */
		ck_ok(store_commit(s, NULL, NULL));
	before = atomic_load(&s->io.stats.writes);
	ck_ok(store_commit(s, NULL, NULL));
	ck_assert_uint_eq(before, atomic_load(&s->io.stats.writes));
	ck_ok(store_close(s));
}
END_TEST

/* Nor is it among those that may be gone back to, should newer ones rot. */
static void assert_no_slot_has(uint64_t gen)
{
	static struct super_scan scan;
	unsigned i;

	ck_ok(super_scan(mem, &scan));
	for (i = 0; i < scan.count; i++)
		ck_assert_uint_ne(scan.found[i].gen, gen);
}

START_TEST(a_lost_node_of_a_commit_under_way_gives_the_one_before)
{
	struct store *s = open_on(mem, 0);
	struct nptr root;
	uint64_t passed;

	fill(s, 300, 1);
	ck_ok(store_commit(s, NULL, NULL));
	fill(s, 300, 2);
	ck_ok(store_commit(s, NULL, NULL));
	root = s->fs.root;
	passed = store_durable_gen(s);
	store_abandon(s);
	proof_lost(mem);
	flip_bit(mem, root.blk * COWFS_BLOCK_SIZE + 100, 3);
	flip_bit(mem, root.blk2 * COWFS_BLOCK_SIZE + 100, 3);
	test_log_hide();
	s = open_on(mem, 0);
	test_log_show();
	assert_no_slot_has(passed);
	expect(s, &s->fs, 300, 1);
	ck_ok(store_close(s));
	/* and it stays so */
	s = open_on(mem, 0);
	expect(s, &s->fs, 300, 1);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(one_bad_copy_is_mended_at_recovery)
{
	struct store *s = open_on(mem, 0);
	struct nptr root;
	uint8_t a[4096], b[4096];

	fill(s, 300, 1);
	ck_ok(store_commit(s, NULL, NULL));
	root = s->fs.root;
	store_abandon(s);
	proof_lost(mem);
	flip_bit(mem, root.blk2 * COWFS_BLOCK_SIZE + 100, 3);
	test_log_hide();
	s = open_on(mem, 0);
	test_log_show();
	expect(s, &s->fs, 300, 1);
	ck_ok(store_close(s));
	ck_ok(bdev_read(mem, root.blk * 4096, a, sizeof(a)));
	ck_ok(bdev_read(mem, root.blk2 * 4096, b, sizeof(b)));
	ck_assert_mem_eq(a, b, sizeof(a));
}
END_TEST

START_TEST(any_two_superblock_slots_may_rot)
{
	struct store *s = open_on(mem, 0);
	unsigned i, j;

	fill(s, 50, 1);
	ck_ok(store_close(s));
	for (i = 0; i < 8; i++)
		for (j = 0; j < i; j++) {
			struct bdev *over;
			uint64_t n = mem->size / 4096;

			ck_ok(overlay_open(mem, &over));
			flip_bit(over, super_slot_block(n, i % 4, i >= 4) *
					       4096 + 130, 1);
			flip_bit(over, super_slot_block(n, j % 4, j >= 4) *
					       4096 + 131, 1);
			s = open_on(over, STORE_READONLY);
			if (i - j != 4) /* both copies of one slot */
				expect(s, &s->fs, 50, 1);
			ck_ok(store_close(s));
			bdev_close(over);
		}
}
END_TEST

START_TEST(a_failed_write_stops_the_store_and_keeps_the_last_commit)
{
	struct bdev *dev;
	struct store *s;

	ck_ok(fault_open(mem, &dev));
	s = open_on(dev, 0);
	fill(s, 100, 1);
	ck_ok(store_commit(s, NULL, NULL));
	fill(s, 100, 2);
	fault_from(dev, FAULT_WRITE, 1, -EIO);
	test_log_hide();
	ck_err(store_commit(s, NULL, NULL), -EIO);
	ck_assert(store_stopped(s));
	ck_err(put(s, 1, 1), -EROFS);
	ck_err(store_commit(s, NULL, NULL), -EIO);
	expect(s, &s->fs, 100, 2); /* reading goes on */
	ck_err(store_close(s), -EIO);
	fault_clear(dev);
	s = open_on(dev, 0);
	test_log_show();
	expect(s, &s->fs, 100, 1);
	ck_ok(store_close(s));
	bdev_close(dev);
}
END_TEST

START_TEST(a_snapshot_keeps_what_changes_later)
{
	struct store *s = open_on(mem, 0);
	struct snap_info a, b;
	struct tree t;

	fill(s, 400, 1);
	ck_ok(snap_create(s, "one", &a));
	fill(s, 400, 2);
	ck_ok(snap_create(s, "two", &b));
	fill(s, 400, 3);
	ck_ok(store_close(s));
	s = open_on(mem, 0);
	ck_ok(snap_find(s, "one", &a));
	snap_tree(s, &a, &t);
	expect(s, &t, 400, 1);
	ck_ok(snap_find(s, "two", &b));
	snap_tree(s, &b, &t);
	expect(s, &t, 400, 2);
	expect(s, &s->fs, 400, 3);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(restore_brings_back_and_undo_undoes)
{
	struct store *s = open_on(mem, 0);
	struct snap_info one;

	fill(s, 400, 1);
	ck_ok(snap_create(s, "one", &one));
	fill(s, 800, 2);
	ck_assert_uint_ne(s->fs.nodes, one.nodes);
	ck_ok(snap_restore(s, "one", COWFS_SNAP_UNDO, NULL, NULL));
	ck_assert_uint_eq(s->fs.nodes, one.nodes);
	expect(s, &s->fs, 400, 1);
	fill(s, 10, 9);
	ck_ok(snap_restore(s, COWFS_SNAP_UNDO, COWFS_SNAP_UNDO, NULL, NULL));
	expect(s, &s->fs, 400, 2);
	ck_ok(store_drain(s));
	store_abandon(s);
	s = open_on(mem, 0);
	expect(s, &s->fs, 400, 2);
	ck_ok(snap_restore(s, COWFS_SNAP_UNDO, NULL, NULL, NULL));
	expect(s, &s->fs, 10, 9);
	ck_ok(store_drain(s));
	ck_err(snap_restore(s, "none", NULL, NULL, NULL), -ENOENT);
	ck_err(snap_restore(s, "one", "one", NULL, NULL), -EEXIST);
	ck_ok(store_close(s));
}
END_TEST

static uint64_t settled_free(struct store *s)
{
	struct alloc_info info;
	unsigned i;

	ck_ok(store_drain(s));
	for (i = 0; i < 4; i++)
		ck_ok(store_commit(s, NULL, NULL));
	alloc_info(s->alloc, &info);
	ck_assert_uint_eq(info.pending, 0);
	return info.free;
}

START_TEST(deleting_snapshots_gives_all_space_back)
{
	struct store *s = open_on(mem, 0);
	char name[16];
	uint64_t before, after;
	unsigned i;

	fill(s, 3000, 0);
	before = settled_free(s);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		ck_ok(snap_create(s, name, NULL));
		if (i % 3)
			fill(s, 100 * i, i);
	}
	fill(s, 3000, 0);
	for (i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "s%u", (i * 7) % 20);
		ck_ok(snap_delete(s, name));
	}
	ck_err(snap_delete(s, "s1"), -ENOENT);
	after = settled_free(s);
	/* nodes may be filled differently; no more than a few */
	ck_assert_uint_ge(after + 64, before);
	expect(s, &s->fs, 3000, 0);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(an_interrupted_drop_goes_on_after_a_kill)
{
	struct store *s = open_on(mem, 0);
	uint64_t before, drops;

	fill(s, 3000, 0);
	before = settled_free(s);
	ck_ok(snap_create(s, "x", NULL));
	fill(s, 3000, 1);
	ck_ok(snap_delete(s, "x"));
	ck_ok(snap_drops(s, &drops));
	ck_assert_uint_eq(drops, 1);
	store_abandon(s);
	s = open_on(mem, 0);
	ck_ok(snap_drops(s, &drops));
	ck_assert_uint_eq(drops, 1);
	ck_assert_uint_ge(settled_free(s) + 64, before);
	ck_ok(snap_drops(s, &drops));
	ck_assert_uint_eq(drops, 0);
	expect(s, &s->fs, 3000, 1);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(names_of_snapshots_are_checked)
{
	struct store *s = open_on(mem, 0);
	char name[80];
	struct snap_info info;
	uint64_t n;

	memset(name, 'n', sizeof(name));
	name[64] = '\0';
	ck_err(snap_create(s, name, NULL), -ENAMETOOLONG);
	name[63] = '\0';
	ck_ok(snap_create(s, name, NULL));
	ck_err(snap_create(s, name, NULL), -EEXIST);
	ck_err(snap_create(s, "", NULL), -EINVAL);
	ck_err(snap_create(s, "a/b", NULL), -EINVAL);
	ck_err(snap_create(s, "..", NULL), -EINVAL);
	ck_err(snap_create(s, "@undo", NULL), -EINVAL);
	ck_ok(snap_create(s, "\xff odd \n", NULL));
	ck_ok(snap_find(s, "\xff odd \n", &info));
	ck_ok(snap_count(s, &n));
	ck_assert_uint_eq(n, 2);
	ck_ok(store_close(s));
}
END_TEST

struct hammer {
	struct store *s;
	uint64_t base;
};

static void *hammer_main(void *arg)
{
	struct hammer *h = arg;
	uint64_t i;

	for (i = 0; i < 3000; i++) {
		if (put(h->s, h->base + i % 500, i))
			return h;
		if (i % 100 == 0 && store_commit(h->s, NULL, NULL))
			return h;
	}
	return NULL;
}

START_TEST(many_threads_write_and_commit_at_once)
{
	struct store *s = open_on(mem, 0);
	struct hammer h[4];
	pthread_t t[4];
	unsigned i;
	void *bad;

	ck_ok(store_start(s));
	for (i = 0; i < 4; i++) {
		h[i] = (struct hammer){ s, 10000 * (i + 1) };
		ck_assert_int_eq(pthread_create(&t[i], NULL, hammer_main,
						&h[i]), 0);
	}
	for (i = 0; i < 20; i++) {
		char name[8];

		snprintf(name, sizeof(name), "s%u", i);
		ck_ok(snap_create(s, name, NULL));
		if (i % 2)
			ck_ok(snap_delete(s, name));
	}
	for (i = 0; i < 4; i++) {
		pthread_join(t[i], &bad);
		ck_assert_ptr_null(bad);
		ck_assert_uint_eq(value(s, 10000 * (i + 1) + 499), 2999);
	}
	ck_ok(store_drain(s));
	ck_ok(store_close(s));
	s = open_on(mem, STORE_READONLY);
	for (i = 0; i < 4; i++)
		ck_assert_uint_eq(value(s, 10000 * (i + 1) + 499), 2999);
	ck_ok(store_close(s));
}
END_TEST

static int counted_work(void *arg)
{
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
	return 0;
}

START_TEST(work_that_is_wanted_later_is_done_then_and_once)
{
	const struct timespec nap = { .tv_nsec = 1000000 };
	_Atomic unsigned count = 0;
	struct store *s = open_on(mem, 0);
	uint64_t began = now_ns();
	unsigned i;

	store_set_work(s, WORK_ORPHAN, counted_work, &count);
	ck_ok(store_start(s));
	store_wake_later(s, WORK_ORPHAN, 600000);
	store_wake_later(s, WORK_ORPHAN, 50);
	ck_ok(store_drain(s)); /* nothing is left now */
	for (i = 0; i < 20000 && !atomic_load(&count); i++)
		nanosleep(&nap, NULL);
	ck_assert_uint_ge(now_ns() - began, UINT64_C(50000000));
	for (i = 0; i < 100; i++)
		nanosleep(&nap, NULL);
	ck_assert_uint_eq(atomic_load(&count), 1);
	store_set_work(s, WORK_ORPHAN, NULL, NULL);
	ck_ok(store_close(s));
}
END_TEST

START_TEST(a_full_device_says_so_and_stays_usable)
{
	struct store *s;
	uint64_t i, n;
	int err = 0;

	teardown();
	format(8 * MIB, 4096);
	s = open_on(mem, 0);
	for (n = 1; n < 1000000; n++) {
		err = put(s, n, n);
		if (err)
			break;
	}
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert(!store_stopped(s));
	ck_ok(store_commit(s, NULL, NULL));
	for (i = 1; i < n; i += 97)
		ck_assert_uint_eq(value(s, i), i);
	ck_ok(store_close(s));
	s = open_on(mem, 0);
	ck_assert_uint_eq(value(s, n - 1), n - 1);
	ck_ok(store_close(s));
}
END_TEST

/* Of the first snapshot, as a hostile image has it. */
static void spoil_root(struct store *s, uint64_t blk, uint64_t gen)
{
	struct key k = KEY(1, COWFS_KEY_SNAP, 0);
	struct cowfs_disk_snap *d;
	struct op op;
	void *data;
	uint32_t len;
	int err;

	ck_ok(op_write(&op, s, ALLOC_NORMAL, 1));
	do {
		err = tree_prepare(&s->snap, &k);
		if (!err)
			err = tree_edit(&s->snap, &k, &data, &len);
	} while (op_again(&op, &err));
	ck_ok(err);
	d = data;
	d->root.ptr.blk = to_le64(from_le64(d->root.ptr.blk) + blk);
	d->root.ptr.gen = to_le64(from_le64(d->root.ptr.gen) + gen);
	d->gen = to_le64(from_le64(d->gen) + gen);
	ck_ok(op_end(&op, 0));
}

static void a_root_is_refused(uint64_t blk, uint64_t gen)
{
	struct store *s;
	unsigned i;

	teardown();
	format(64 * MIB, 16384);
	s = open_on(mem, 0);
	fill(s, 10, 1);
	ck_ok(snap_create(s, "s", NULL));
	spoil_root(s, blk, gen);
	test_log_hide();
	ck_err(snap_restore(s, "s", NULL, NULL, NULL), -ECOW_CORRUPT);
	test_log_show();
	for (i = 0; i < 8; i++) {
		ck_ok(put(s, 11, i));
		ck_ok(store_commit(s, NULL, NULL));
	}
	ck_ok(store_close(s));
	s = open_on(mem, STORE_READONLY);
	expect(s, &s->fs, 10, 1);
	ck_ok(store_close(s));
}

START_TEST(a_snapshot_with_an_impossible_root_is_not_restored)
{
	a_root_is_refused(0, 4); /* of a generation yet to come */
	a_root_is_refused(1, 0); /* not where nodes lie */
	a_root_is_refused(UINT64_C(1) << 40, 0);
}
END_TEST

/* Both copies of a slot. */
static void put_super(struct cowfs_disk_super *d)
{
	unsigned far;

	super_seal(d);
	for (far = 0; far < 2; far++)
		ck_ok(bdev_write(mem, super_slot_block(
					 from_le64(d->total_blocks), d->slot,
					 far) * COWFS_BLOCK_SIZE,
				 d, sizeof(*d)));
}

/* The newest superblock, as of another generation. */
static void set_generation(uint64_t gen)
{
	struct super newest;

	ck_ok(super_newest(mem, &newest));
	newest.d.gen = to_le64(gen);
	put_super(&newest.d);
}

START_TEST(generations_that_cannot_count_on_are_not_written)
{
	struct store_config cfg = { .dev = mem };
	struct store *s = open_on(mem, 0);
	unsigned i;

	fill(s, 10, 1);
	ck_ok(store_close(s));
	set_generation(INT64_MAX);
	for (i = 0; i < 6; i++) {
		test_log_hide();
		ck_err(store_open(&cfg, &s), -ECOW_CORRUPT);
		test_log_show();
	}
	s = open_on(mem, STORE_READONLY);
	expect(s, &s->fs, 10, 1);
	ck_ok(store_close(s));
}
END_TEST

/* A newer cowfs has left old slots behind that could be read: to go on from them
 * would give up all that it did. */
START_TEST(nobody_goes_back_behind_a_feature_that_he_does_not_know)
{
	struct store_config cfg = { .dev = mem };
	struct store *s = open_on(mem, 0);
	struct super newest, now;
	struct le64 known;

	fill(s, 10, 1);
	ck_ok(store_commit(s, NULL, NULL));
	ck_ok(store_close(s));
	ck_ok(super_newest(mem, &newest));
	known = newest.d.incompat;
	newest.d.incompat = to_le64(from_le64(known) | UINT64_C(1) << 40);
	put_super(&newest.d);
	test_log_hide();
	ck_err(store_open(&cfg, &s), -ENOTSUP);
	cfg.flags = STORE_READONLY;
	ck_err(store_open(&cfg, &s), -ENOTSUP);
	test_log_show();
	newest.d.incompat = known;
	put_super(&newest.d);
	ck_ok(super_newest(mem, &now));
	ck_assert_mem_eq(&now.d, &newest.d, sizeof(now.d));
}
END_TEST

static Suite *txn_suite(void)
{
	Suite *su = suite_create("txn");
	TCase *tc = tcase_create("txn");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, what_was_committed_is_there_after_a_kill);
	tcase_add_test(tc, closing_commits_and_marks_clean);
	tcase_add_test(tc, a_readonly_store_writes_nothing);
	tcase_add_test(tc, a_commit_without_changes_writes_nothing_more);
	tcase_add_test(tc,
		       a_lost_node_of_a_commit_under_way_gives_the_one_before);
	tcase_add_test(tc, one_bad_copy_is_mended_at_recovery);
	tcase_add_test(tc, any_two_superblock_slots_may_rot);
	tcase_add_test(tc,
		       a_failed_write_stops_the_store_and_keeps_the_last_commit);
	tcase_add_test(tc, a_snapshot_keeps_what_changes_later);
	tcase_add_test(tc, restore_brings_back_and_undo_undoes);
	tcase_add_test(tc, deleting_snapshots_gives_all_space_back);
	tcase_add_test(tc, an_interrupted_drop_goes_on_after_a_kill);
	tcase_add_test(tc, names_of_snapshots_are_checked);
	tcase_add_test(tc,
		       nobody_goes_back_behind_a_feature_that_he_does_not_know);
	tcase_add_test(tc, many_threads_write_and_commit_at_once);
	tcase_add_test(tc, work_that_is_wanted_later_is_done_then_and_once);
	tcase_add_test(tc, a_full_device_says_so_and_stays_usable);
	tcase_add_test(tc,
		       a_snapshot_with_an_impossible_root_is_not_restored);
	tcase_add_test(tc, generations_that_cannot_count_on_are_not_written);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(txn_suite());
}
