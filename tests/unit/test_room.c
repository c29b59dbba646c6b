/*
 * test_room.c - storage that is full, and has room again
 *
 * An image is sparse as a rule, and what it lies on may have no room for what is
 * written, though the filesystem has. Nothing is lost by it, nobody is promised
 * anything meanwhile, and all goes on when there is room.
 */
#include "check/repair.h"
#include "snapshot/snapshot.h"
#include "support/testdev.h"
#include "unit/fs_fixture.h"

#define WRITES_MAX 64u /* of a commit here, at most */

static struct bdev *below;

static void begin(void)
{
	ck_ok(bdev_open_mem(64 * MIB, &below));
	ck_ok(fault_open(below, &dev));
	make_on(16384, 2);
	ck_ok(store_start(store));
	test_log_hide();
}

static void end(void)
{
	test_log_show();
	teardown();
	bdev_close(below);
}

/* As if the daemon were killed now: is the file there after the next mount? */
static bool would_last(const char *name)
{
	struct bdev *was = dev, *copy;
	struct store *s = store;
	struct fs *f = fs;
	struct attr a;
	int err;

	ck_ok(overlay_open(below, &copy));
	dev = copy;
	mount_it();
	err = look(ROOT, name, &a);
	umount_it();
	test_check_device(dev);
	bdev_close(copy);
	dev = was;
	store = s;
	fs = f;
	return !err;
}

static void make_numbered(const char *what, unsigned n)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%u", what, n);
	(void)make_file(ROOT, name);
}

static bool lasts_numbered(const char *what, unsigned n)
{
	char name[32];

	snprintf(name, sizeof(name), "%s%u", what, n);
	return would_last(name);
}

/* Whichever of its writes finds none, those of the superblock too. */
START_TEST(a_commit_is_made_when_there_is_room)
{
	unsigned n;

	for (n = 1; n < WRITES_MAX; n++) {
		make_numbered("before", n);
		(void)fault_from(dev, FAULT_WRITE, n, -ENOSPC);
		if (!store_commit(store, NULL, NULL))
			break;
		ck_assert(!store_stopped(store));
		make_numbered("meanwhile", n);
		ck_err(store_commit(store, NULL, NULL), -ENOSPC);
		ck_err(fs_fsync(fs, ROOT, 0), -ENOSPC);
		ck_err(fs_fsync(fs, ROOT, 0), -ENOSPC);
		ck_assert(n == 1 || lasts_numbered("meanwhile", n - 1));
		fault_clear(dev);
		ck_ok(n % 2 ? store_commit(store, NULL, NULL)
			    : fs_fsync(fs, ROOT, 0));
		ck_assert(lasts_numbered("before", n));
		ck_assert(lasts_numbered("meanwhile", n));
	}
	ck_assert_uint_gt(n, 5); /* nodes twice, superblocks, the mark */
	ck_assert_uint_lt(n, WRITES_MAX);
	fault_clear(dev);
}
END_TEST

START_TEST(what_fsync_could_not_store_it_does_not_promise)
{
	static const char text[] = "text";
	uint64_t ino = make_file(ROOT, "f");
	unsigned n;

	ck_ok(store_commit(store, NULL, NULL));
	for (n = 1; n < 4; n++) {
		make_numbered("other", n);
		ck_ok(fs_write(fs, ino, n, text, sizeof(text), 0));
		(void)fault_from(dev, FAULT_WRITE, n, -ENOSPC);
		if (fs_fsync(fs, ino, 0)) /* an append is one write */
			ck_err(fs_fsync(fs, ino, 0), -ENOSPC);
		else
			ck_assert(lasts_numbered("other", n));
		fault_clear(dev);
		ck_ok(fs_fsync(fs, ino, 0));
		ck_assert(lasts_numbered("other", n));
	}
}
END_TEST

/* Nothing has to be asked for. */
START_TEST(the_timer_tries_again)
{
	const struct timespec nap = { .tv_nsec = 20000000 };
	uint64_t gen;
	unsigned i;

	make_numbered("f", 1);
	(void)fault_from(dev, FAULT_WRITE, 2, -ENOSPC);
	ck_err(store_commit(store, NULL, NULL), -ENOSPC);
	gen = store_durable_gen(store);
	fault_clear(dev);
	for (i = 0; i < 500 && store_durable_gen(store) == gen; i++)
		nanosleep(&nap, NULL);
	ck_assert_uint_gt(store_durable_gen(store), gen);
	ck_assert(lasts_numbered("f", 1));
}
END_TEST

START_TEST(a_snapshot_is_made_or_is_not)
{
	struct fault_rule some = { .op = FAULT_WRITE, .times = 3,
				   .err = -ENOSPC };
	struct snap_info info;

	make_numbered("f", 1);
	(void)fault_from(dev, FAULT_WRITE, 1, -ENOSPC);
	ck_err(store_commit(store, NULL, NULL), -ENOSPC);
	ck_err(snap_create(store, "no", NULL), -ENOSPC);
	ck_assert(!store_stopped(store));
	ck_err(snap_find(store, "no", &info), -ENOENT);
	fault_clear(dev);
	ck_ok(snap_create(store, "yes", NULL));
	/* Its own commit finds none for a while. */
	(void)fault_add(dev, &some);
	ck_ok(snap_create(store, "later", NULL));
	ck_ok(snap_find(store, "later", &info));
	ck_ok(snap_delete(store, "yes"));
	ck_ok(store_drain(store));
}
END_TEST

/* Who is told that it is under way finds it done, and it lasts later. */
START_TEST(what_a_snapshot_has_changed_stays_changed)
{
	struct snap_info info;
	bool replaced;

	make_numbered("f", 1);
	ck_ok(snap_create(store, "s", NULL));
	(void)fault_from(dev, FAULT_WRITE, 1, -ENOSPC);
	ck_err(snap_create(store, "t", NULL), -EINPROGRESS);
	ck_ok(snap_find(store, "t", &info));
	ck_err(fs_fsync(fs, ROOT, 0), -ENOSPC);
	fault_clear(dev);
	ck_ok(fs_fsync(fs, ROOT, 0));
	make_numbered("f", 2);
	ck_ok(store_commit(store, NULL, NULL));
	(void)fault_from(dev, FAULT_WRITE, 2, -ENOSPC);
	ck_err(fs_restore(fs, "s", COWFS_SNAP_UNDO, &replaced), -EINPROGRESS);
	ck_assert(replaced);
	ck_assert(lasts_numbered("f", 2)); /* so far */
	fault_clear(dev);
	ck_ok(fs_fsync(fs, ROOT, 0));
	ck_assert(!lasts_numbered("f", 2));
	(void)fault_from(dev, FAULT_WRITE, 3, -ENOSPC);
	ck_err(fs_snap_delete(fs, "t"), -EINPROGRESS);
	ck_err(snap_find(store, "t", &info), -ENOENT);
	fault_clear(dev);
	ck_ok(store_commit(store, NULL, NULL));
	ck_ok(store_drain(store));
	ck_assert(lasts_numbered("f", 1));
}
END_TEST

/* What was to be flushed nobody has any more: it cannot be tried again. */
START_TEST(a_flush_that_finds_none_is_the_last)
{
	make_numbered("f", 1);
	ck_ok(store_commit(store, NULL, NULL));
	make_numbered("f", 2);
	(void)fault_nth(dev, FAULT_FLUSH, 1, -ENOSPC);
	ck_err(store_commit(store, NULL, NULL), -ENOSPC);
	ck_assert(store_stopped(store));
	ck_assert_ptr_nonnull(strstr(test_log_last(), "a flush found no room"));
	ck_err(fs_fsync(fs, ROOT, 0), -EIO);
	fs_umount(fs);
	store_abandon(store);
	mount_it();
	ck_assert(lasts_numbered("f", 1));
}
END_TEST

static uint64_t first_block(uint64_t ino)
{
	struct fs_map m;

	ck_ok(fs_map(fs, fs_live(fs), ino, 0, &m));
	return m.blk;
}

/* "f" with number 1 was fsynced, which only the log says. */
static void kill_with_log_unread(void)
{
	uint64_t log;

	ck_ok(store_commit(store, NULL, NULL));
	make_numbered("f", 1);
	ck_ok(fs_fsync(fs, ROOT, 0));
	log = from_le64(store->super.log.blk);
	fs_umount(fs);
	store_abandon(store);
	(void)fault_range(dev, FAULT_READ, log * COWFS_BLOCK_SIZE,
			  COWFS_BLOCK_SIZE, -EIO);
}

/* Nor is a log that cannot be read for a moment taken for its end: what fsync
 * promised would be gone. */
START_TEST(a_log_that_cannot_be_read_is_not_written_over)
{
	kill_with_log_unread();
	ck_err(test_mount(dev, 0, 0, &store, &fs), -EIO);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "cannot be read"));
	ck_ok(test_mount(dev, STORE_READONLY, 0, &store, &fs));
	fs_umount(fs);
	store_abandon(store);
	fault_clear(dev);
	mount_it();
	ck_ok(store_commit(store, NULL, NULL));
	ck_assert(lasts_numbered("f", 1));
}
END_TEST

/* The same of data that do not lie in the record. */
static void kill_with_data_unread(void)
{
	static const uint8_t data[256 << 10];
	uint64_t ino, blk;

	ck_ok(store_commit(store, NULL, NULL));
	ino = make_file(ROOT, "f1");
	ck_ok(fs_write(fs, ino, 0, data, sizeof(data), 0));
	ck_ok(fs_fsync(fs, ino, 0));
	blk = first_block(ino);
	fs_umount(fs);
	store_abandon(store);
	(void)fault_range(dev, FAULT_READ, blk * COWFS_BLOCK_SIZE,
			  COWFS_BLOCK_SIZE, -EIO);
}

START_TEST(a_record_whose_data_cannot_be_read_is_not_written_over)
{
	kill_with_data_unread();
	ck_err(test_mount(dev, 0, 0, &store, &fs), -EIO);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "cannot be read"));
	ck_ok(test_mount(dev, STORE_READONLY, 0, &store, &fs));
	fs_umount(fs);
	store_abandon(store);
	fault_clear(dev);
	mount_it();
	ck_ok(store_commit(store, NULL, NULL));
	ck_assert(lasts_numbered("f", 1));
}
END_TEST

static uint64_t faults_left(bool all, struct repair_result *res)
{
	struct repair_options opt = { .all = all };

	ck_ok(repair_run(dev, &opt, res));
	return res->check.problems;
}

/* fsck tells of it, and gives up what may be there only if told to. */
static void given_up_if_told_to(void)
{
	struct repair_result res;

	ck_assert_uint_eq(faults_left(false, &res), 1);
	ck_assert(res.needs_all && !res.committed);
	ck_err(test_mount(dev, 0, 0, &store, &fs), -EIO);
	ck_assert_uint_eq(faults_left(true, &res), 1);
	ck_assert(res.committed && !res.left);
	mount_it();
	ck_assert(!lasts_numbered("f", 1));
}

START_TEST(a_log_that_cannot_be_read_is_mended_by_giving_it_up)
{
	kill_with_log_unread();
	given_up_if_told_to();
}
END_TEST

START_TEST(so_is_a_record_whose_data_cannot_be_read)
{
	kill_with_data_unread();
	given_up_if_told_to();
}
END_TEST

static Suite *room_suite(void)
{
	Suite *su = suite_create("room");
	TCase *tc = tcase_create("room");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, begin, end);
	tcase_add_test(tc, a_commit_is_made_when_there_is_room);
	tcase_add_test(tc, what_fsync_could_not_store_it_does_not_promise);
	tcase_add_test(tc, the_timer_tries_again);
	tcase_add_test(tc, a_snapshot_is_made_or_is_not);
	tcase_add_test(tc, what_a_snapshot_has_changed_stays_changed);
	tcase_add_test(tc, a_log_that_cannot_be_read_is_not_written_over);
	tcase_add_test(tc,
		       a_log_that_cannot_be_read_is_mended_by_giving_it_up);
	tcase_add_test(tc,
		       a_record_whose_data_cannot_be_read_is_not_written_over);
	tcase_add_test(tc, so_is_a_record_whose_data_cannot_be_read);
	tcase_add_test(tc, a_flush_that_finds_none_is_the_last);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(room_suite());
}
