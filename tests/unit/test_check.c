/*
 * test_check.c - check finds nothing where nothing is wrong; scrub; facade
 */
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "support/image.h"

/* ---- nothing wrong ---- */

START_TEST(clean_image_has_no_problem)
{
	unmount_it();
	assert_clean();
	ck_assert_uint_gt(result.nodes, 25);
	ck_assert_uint_eq(result.prealloc_blocks, 50);
	ck_assert_uint_gt(result.data_blocks, BIG_BLOCKS - 4);
	ck_assert_uint_eq(result.blocks, result.nodes + result.data_blocks +
					 result.prealloc_blocks);
	ck_assert_uint_eq(result.checksums,
			  result.blocks - result.prealloc_blocks);
	ck_assert_uint_eq(result.dirs, 3);
	ck_assert_uint_eq(result.inodes, 309);
}
END_TEST

START_TEST(snapshots_and_clones_are_clean)
{
	uint64_t ino, copied;
	char name[32];

	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "snap-%u", i);
		ck_ok(snap_create(store, name, NULL));
		fill(ino_big, i * 50000, 30000, i);
		ino = make_node(1, name, S_IFREG | 0644, NULL);
		ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, ino, 0,
				    BIG_BLOCKS << 12, &copied));
	}
	ck_ok(fs_restore(fs, "snap-7", COWFS_SNAP_UNDO, NULL));
	ck_ok(fs_unlink(fs, ino_dir, "big", 3, NULL));
	ck_ok(fs_snap_delete(fs, "snap-3"));
	ck_ok(fs_snap_delete(fs, "snap-19"));
	unmount_it();
	assert_clean();
	ck_assert_uint_eq(result.snapshots, 19);
	ck_assert_uint_eq(result.light_snapshots, 0);
	ck_assert_uint_eq(result.blocks, result.nodes + result.data_blocks +
					 result.prealloc_blocks);
}
END_TEST

START_TEST(unfinished_drop_is_clean)
{
	for (unsigned i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "file-%u", i * 3);
		if (i == 50)
			ck_ok(snap_create(store, "s", NULL));
		ck_ok(fs_unlink(fs, ino_sub, name, strlen(name), NULL));
	}
	ck_ok(fs_snap_delete(fs, "s"));
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_clean();
}
END_TEST

START_TEST(orphan_is_clean)
{
	ck_ok(fs_ref(fs, ino_big));
	ck_ok(fs_open(fs, ino_big, true, false));
	ck_ok(fs_unlink(fs, ino_dir, "big", 3, NULL));
	ck_ok(snap_create(store, "with-orphan", NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_clean();
}
END_TEST

START_TEST(checksums_of_scrub_are_all_blocks)
{
	struct check_options opt = { .data = true };

	ck_ok(fs_fallocate(fs, ino_big,
			   FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
			   400 << 12, 50 << 12, &root_cred));
	ck_ok(snap_create(store, "s", NULL));
	fill(ino_big, 0, 100000, 9);
	unmount_it();
	ck_ok(check_options(&opt));
	ck_assert_uint_eq(result.blocks, result.checksums);
	ck_assert_uint_eq(result.problems, 0);
}
END_TEST

/* ---- cancel, progress ---- */

static uint64_t last_done, last_total;
static unsigned calls, cancel_at;

static int note_progress(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	ck_assert_uint_ge(done, last_done);
	ck_assert_uint_le(done, total);
	last_done = done;
	last_total = total;
	return ++calls == cancel_at;
}

START_TEST(progress_reaches_the_end)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .progress = note_progress };

	unmount_it();
	ck_ok(check_options(&opt));
	ck_assert_uint_gt(calls, 1);
	ck_assert_uint_eq(last_done, last_total);
}
END_TEST

START_TEST(cancel_ends_it)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .progress = note_progress };

	unmount_it();
	calls = 0;
	last_done = 0;
	cancel_at = 1;
	ck_err(check_options(&opt), -ECANCELED);
	ck_assert(result.cancelled);
	ck_assert_uint_eq(calls, 1);
}
END_TEST

/* ---- scrub of a running store ---- */

static void wait_scrub(struct scrub *sc, struct cowfs_ioc_scrub *st)
{
	for (unsigned i = 0; i < 30000; i++) {
		scrub_status(sc, st);
		if (!st->running)
			return;
		usleep(1000);
	}
	ck_abort_msg("scrub does not end");
}

START_TEST(scrub_mends_a_mounted_filesystem)
{
	struct cowfs_ioc_scrub st;
	uint64_t blk = big_block();
	struct scrub *sc;

	ck_ok(store_commit(store, NULL, NULL));
	flip_block(blk + 3);
	flip_block(store->fs.root.blk);
	ck_ok(scrub_new(store, &sc));
	ck_ok(scrub_start(sc, false, 0));
	wait_scrub(sc, &st);
	ck_assert(st.finished);
	ck_assert_int_eq(st.error, 0);
	ck_assert_uint_eq(st.repaired, 2);
	ck_assert_uint_eq(st.lost, 0);
	ck_assert_uint_eq(st.damaged, 0);
	ck_ok(scrub_start(sc, false, 0));
	wait_scrub(sc, &st);
	ck_assert(st.finished);
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(st.checksums + st.prealloc_blocks,
			  st.blocks);
	scrub_free(sc);
	unmount_it();
	assert_clean();
}
END_TEST

static void assert_scrub_found_nothing(const struct cowfs_ioc_scrub *st)
{
	ck_assert_msg(st->problems == 0, "%" PRIu64 " problems", st->problems);
}

START_TEST(scrub_of_a_busy_filesystem_finds_nothing)
{
	struct cowfs_ioc_scrub st;
	struct scrub *sc;
	struct rng r;

	ck_ok(store_start(store));
	ck_ok(scrub_new(store, &sc));
	rng_init(&r, test_seed(), 3);
	for (unsigned round = 0; round < test_rounds(3); round++) {
		ck_ok(scrub_start(sc, false, 0));
		do {
			char name[32];

			snprintf(name, sizeof(name), "file-%u",
				 (unsigned)rng_below(&r, 300));
			if (!fs_unlink(fs, ino_sub, name, strlen(name), NULL))
				fill(make_node(ino_sub, name, S_IFREG | 0644,
					       NULL), 0,
				     rng_range(&r, 1, 40000), 1);
			fill(ino_big, rng_below(&r, 1000000), 200000, 5);
			if (rng_one_in(&r, 4))
				ck_ok(store_commit(store, NULL, NULL));
			scrub_status(sc, &st);
		} while (st.running);
		ck_assert_int_eq(st.error, 0);
		assert_scrub_found_nothing(&st);
	}
	scrub_free(sc);
	unmount_it();
	assert_clean();
}
END_TEST

/* Write until nothing is left but `spare` MiB. */
static void fill_up(unsigned spare)
{
	uint64_t ino = make_node(1, "filler", S_IFREG | 0644, NULL);
	struct attr set = { 0 }, a;
	static uint8_t mib[1 << 20];
	uint64_t off = 0;
	int err;

	while (!(err = fs_write(fs, ino, off, mib, sizeof(mib), 0)))
		off += sizeof(mib);
	ck_assert_int_eq(err, -ENOSPC);
	set.size = off - ((uint64_t)spare << 20);
	ck_ok(fs_setattr(fs, ino, FS_SET_SIZE, &set, &root_cred, &a));
	for (unsigned i = 0; i < 3; i++)
		ck_ok(store_commit(store, NULL, NULL));
}

/* What scrub holds back is all that is left: it must give way, and take
 * nothing that it then sees for damage. */
START_TEST(scrub_of_a_full_filesystem_finds_nothing)
{
	struct cowfs_ioc_scrub st;
	struct scrub *sc;
	struct rng r;
	int err;

	fill_up(3);
	ck_ok(store_start(store));
	ck_ok(scrub_new(store, &sc));
	rng_init(&r, test_seed(), 4);
	for (unsigned round = 0; round < test_rounds(3); round++) {
		ck_ok(scrub_start(sc, false, 0));
		do {
			static uint8_t buf[700000];

			rng_fill(&r, buf, 100);
			err = fs_write(fs, ino_big, rng_below(&r, 500000), buf,
				       sizeof(buf), 0);
			ck_assert_msg(err == 0 || err == -ENOSPC, "%s",
				      test_errname(err));
			scrub_status(sc, &st);
		} while (st.running);
		ck_assert(st.error == 0 || st.error == -EAGAIN);
		assert_scrub_found_nothing(&st);
	}
	/* nor does it log or count what others wrote where it had let go */
	ck_assert_uint_eq(atomic_load(&store->io.stats.csum_errors), 0);
	ck_assert_uint_eq(atomic_load(&store->io.stats.unrepairable), 0);
	scrub_free(sc);
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(scrub_can_be_cancelled_and_freed_at_any_time)
{
	struct cowfs_ioc_scrub st;
	struct scrub *sc;
	int err;

	ck_ok(scrub_new(store, &sc));
	ck_err(scrub_cancel(sc), -ESRCH);
	ck_ok(scrub_start(sc, false, 0));
	err = scrub_cancel(sc);
	ck_assert(err == 0 || err == -ESRCH);
	wait_scrub(sc, &st);
	ck_assert(st.finished || st.cancelled);
	ck_ok(scrub_start(sc, false, 0));
	scrub_free(sc);
	scrub_free(NULL);
}
END_TEST

/* ---- the facade ---- */

START_TEST(facade_does_what_the_daemon_does)
{
	struct cowfs_ioc_info before, after;
	struct cowfs_ioc_snap snap;
	struct cowfs_ioc_scrub out;
	struct cowfs_check opt = { .data = true, .semantics = true };
	struct cowfs *c;

	unmount_it();
	ck_ok(cowfs_open(dev, true, &c));
	ck_ok(cowfs_info(c, &before));
	ck_assert_uint_eq(before.node_size, 4096);
	ck_assert_uint_eq(before.blocks, DEV_BYTES / 4096);
	ck_ok(cowfs_snap_create(c, "one", &snap));
	ck_assert_str_eq(snap.name, "one");
	ck_assert_uint_ne(snap.root_block, 0);
	ck_err(cowfs_snap_create(c, "one", &snap), -EEXIST);
	ck_err(cowfs_snap_create(c, "@mine", &snap), -EINVAL);
	ck_ok(cowfs_snap_restore(c, "one", "kept"));
	ck_err(cowfs_snap_restore(c, "two", NULL), -ENOENT);
	ck_ok(cowfs_info(c, &after));
	ck_assert_uint_eq(after.snapshots, 2);
	ck_ok(cowfs_snap_next(c, snap.id + 1, &snap));
	ck_assert_str_eq(snap.name, "kept");
	ck_err(cowfs_snap_next(c, snap.id + 1, &snap), -ENOENT);
	ck_ok(cowfs_snap_delete(c, "one"));
	ck_ok(cowfs_snap_delete(c, "kept"));
	ck_ok(cowfs_close(c));
	ck_ok(cowfs_open(dev, false, &c));
	ck_ok(cowfs_info(c, &after));
	ck_assert_uint_eq(after.snapshots, 0);
	ck_assert_uint_eq(after.drops, 0);
	ck_err(cowfs_snap_create(c, "no", &snap), -EROFS);
	ck_ok(cowfs_check(c, &opt, &out));
	ck_assert_uint_eq(out.problems, 0);
	ck_ok(cowfs_close(c));
}
END_TEST

START_TEST(reading_writes_nothing)
{
	struct cowfs_check opt = { .data = true, .semantics = true,
				   .mend = true };
	struct cowfs_ioc_scrub out;
	struct bdev *log;
	struct cowfs *c;

	unmount_it();
	ck_ok(log_open(dev, &log));
	ck_ok(cowfs_open(log, false, &c));
	ck_ok(cowfs_check(c, &opt, &out));
	ck_ok(cowfs_close(c));
	ck_ok(cowfs_check_device(log, &opt, &out));
	for (size_t i = 0; i < log_count(log); i++)
		ck_assert(log_get(log, i)->kind != LOG_WRITE);
	bdev_close(log);
}
END_TEST

START_TEST(mkfs_refuses_what_it_cannot_make)
{
	struct cowfs_mkfs opt = { .node_size = 5000 };
	struct bdev *small;

	ck_ok(bdev_open_mem(COWFS_MIN_BLOCKS * 4096 - 4096, &small));
	ck_err(cowfs_mkfs(dev, &opt), -EINVAL);
	opt = (struct cowfs_mkfs){ .metadata_copies = 3 };
	ck_err(cowfs_mkfs(dev, &opt), -EINVAL);
	opt = (struct cowfs_mkfs){ 0 };
	ck_err(cowfs_mkfs(small, &opt), -ENOSPC);
	bdev_close(small);
}
END_TEST

START_TEST(mkfs_makes_every_size_clean)
{
	static const uint32_t sizes[] = { 4096, 8192, 16384, 32768, 65536 };
	struct check_options opt = { .data = true, .semantics = true,
				     .found = note };
	struct bdev *keep = dev;

	for (unsigned i = 0; i < 5 * 4; i++) {
		struct cowfs_mkfs m = { .node_size = sizes[i / 4],
					.metadata_copies = i % 2 + 1 };
		uint64_t blocks = i & 2 ? COWFS_MIN_BLOCKS :
					  8192 * 5 + i * 3 + 1;

		ck_ok(bdev_open_mem(blocks * 4096 + 512 * i, &dev));
		ck_ok(cowfs_mkfs(dev, &m));
		ck_assert_str_eq(cowfs_probe(dev), "cowfs");
		ck_ok(check_options(&opt));
		ck_assert_msg(seen.total == 0, "%s", seen.last);
		bdev_close(dev);
	}
	dev = keep;
}
END_TEST

START_TEST(an_impossible_newest_superblock_is_told)
{
	struct cowfs_disk_super d;
	uint64_t gen;

	unmount_it();
	d = get_super();
	gen = from_le64(d.gen);
	d.gen = to_le64(gen + 1);
	d.free_blocks = to_le64(UINT64_MAX);
	put_super(&d);
	test_log_hide();
	mount_it();
	ck_assert_uint_eq(test_log_count(), 1);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "is left out (superb"
						      "lock: more blocks"));
	test_log_show();
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(probe_knows_others)
{
	struct bdev *d;

	ck_ok(bdev_open_mem(1 << 20, &d));
	ck_assert_ptr_null(cowfs_probe(d));
	flip_bit(d, 1080, 0);
	ck_assert_ptr_null(cowfs_probe(d));
	ck_ok(bdev_write(d, 1024, (uint8_t[512]){ [56] = 0x53, [57] = 0xef },
			 512));
	ck_assert_ptr_nonnull(strstr(cowfs_probe(d), "ext"));
	ck_ok(bdev_write(d, 1024, (uint8_t[512]){ 0 }, 512));
	ck_ok(bdev_write(d, 0, (uint8_t[512]){ [510] = 0x55, [511] = 0xaa },
			 512));
	ck_assert_str_eq(cowfs_probe(d), "partition table");
	ck_ok(bdev_write(d, 0, (uint8_t[512]){ "XFSB" }, 512));
	ck_assert_str_eq(cowfs_probe(d), "xfs");
	bdev_close(d);
}
END_TEST

/* Any superblock leads to the filesystem, so each alone must keep mkfs off. */
START_TEST(probe_knows_each_super)
{
	static const uint8_t zero[4096];
	struct bdev *d;

	ck_ok(bdev_open_mem(8 << 20, &d));
	for (unsigned i = 0; i < 2 * COWFS_SUPER_SLOTS; i++) {
		uint64_t at = (i < COWFS_SUPER_SLOTS ? COWFS_SUPER_NEAR + i :
						       2048 - 8 + i) * 4096;

		ck_assert_ptr_null(cowfs_probe(d));
		ck_ok(bdev_write(d, at + 8, COWFS_MAGIC, 8));
		ck_assert_str_eq(cowfs_probe(d), "cowfs");
		ck_ok(bdev_write(d, at, zero, sizeof(zero)));
	}
	bdev_close(d);
}
END_TEST

/* ---- */

static Suite *check_suite(void)
{
	Suite *s = suite_create("check");
	TCase *t = tcase_create("all");
	TCase *two = tcase_create("copies");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, clean_image_has_no_problem);
	tcase_add_test(t, snapshots_and_clones_are_clean);
	tcase_add_test(t, unfinished_drop_is_clean);
	tcase_add_test(t, orphan_is_clean);
	tcase_add_test(t, checksums_of_scrub_are_all_blocks);
	tcase_add_test(t, progress_reaches_the_end);
	tcase_add_test(t, cancel_ends_it);
	tcase_add_test(t, scrub_of_a_busy_filesystem_finds_nothing);
	tcase_add_test(t, scrub_of_a_full_filesystem_finds_nothing);
	tcase_add_test(t, scrub_can_be_cancelled_and_freed_at_any_time);
	tcase_add_test(t, facade_does_what_the_daemon_does);
	tcase_add_test(t, reading_writes_nothing);
	tcase_add_test(t, mkfs_refuses_what_it_cannot_make);
	tcase_add_test(t, mkfs_makes_every_size_clean);
	tcase_add_test(t, an_impossible_newest_superblock_is_told);
	tcase_add_test(t, probe_knows_others);
	tcase_add_test(t, probe_knows_each_super);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_set_timeout(two, 300);
	tcase_add_test(two, scrub_mends_a_mounted_filesystem);
	suite_add_tcase(s, two);
	return s;
}

int main(void)
{
	return test_main(check_suite());
}
