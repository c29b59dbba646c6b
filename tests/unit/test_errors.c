/*
 * test_errors.c - a write that failed is heard of at every open file
 *
 * What was written before the device failed may be lost for any of them, so
 * each fsync must say so, also one that is called after the device is well
 * again: nobody may take it for a promise.
 */
#include "support/testdev.h"
#include "unit/fs_fixture.h"

#define FILES 5u

static struct bdev *below;
static uint64_t file[FILES];

static void open_files(void)
{
	char name[] = "0";

	ck_ok(bdev_open_mem(64 * MIB, &below));
	ck_ok(fault_open(below, &dev));
	make_on(16384, 2);
	for (unsigned i = 0; i < FILES; i++) {
		name[0] = (char)('0' + i);
		file[i] = make_file(ROOT, name);
		ck_ok(fs_fsync(fs, file[i], 0));
	}
	test_log_hide();
}

static void close_all(void)
{
	fault_clear(dev);
	fs_umount(fs);
	ck_assert_int_ne(store_close(store), 0); /* its caller hears, too */
	bdev_close(dev);
	/* What was promised before is there. */
	dev = below;
	mount_it();
	for (unsigned i = 0; i < FILES; i++) {
		struct attr a;
		char name[] = { (char)('0' + i), 0 };

		ck_ok(fs_lookup(fs, fs_live(fs), ROOT, name, 1, &a));
	}
	test_log_show();
	teardown();
}

static void write_all_files(size_t len)
{
	static char text[8192];

	for (unsigned i = 0; i < FILES; i++)
		ck_ok(fs_write(fs, file[i], 0, text, len, 0));
}

static void each_hears_of_it(enum fault_op op, size_t len)
{
	write_all_files(len);
	(void)fault_from(dev, op, 1, -EIO);
	ck_assert_int_ne(fs_fsync(fs, file[0], 0), 0);
	ck_assert_int_ne(fs_fsync(fs, file[1], 1), 0);
	fault_clear(dev);
	for (unsigned i = 0; i < FILES; i++)
		ck_assert_int_ne(fs_fsync(fs, file[i], (int)(i % 2)), 0);
	/* and of a commit that failed in the background */
	ck_assert_int_ne(store_commit(store, NULL, NULL), 0);
}

START_TEST(a_failing_log_is_heard_of_at_each_file)
{
	each_hears_of_it(FAULT_WRITE, 100);
}
END_TEST

START_TEST(a_failing_flush_is_heard_of_at_each_file)
{
	each_hears_of_it(FAULT_FLUSH, 8192);
}
END_TEST

START_TEST(a_failing_commit_is_heard_of_at_each_file)
{
	write_all_files(8192);
	(void)fault_from(dev, FAULT_WRITE, 1, -EIO);
	ck_assert_int_ne(store_commit(store, NULL, NULL), 0);
	fault_clear(dev);
	for (unsigned i = 0; i < FILES; i++)
		ck_assert_int_ne(fs_fsync(fs, file[i], 0), 0);
}
END_TEST

static Suite *errors_suite(void)
{
	Suite *su = suite_create("errors");
	TCase *tc = tcase_create("errors");

	tcase_add_checked_fixture(tc, open_files, close_all);
	tcase_add_test(tc, a_failing_log_is_heard_of_at_each_file);
	tcase_add_test(tc, a_failing_flush_is_heard_of_at_each_file);
	tcase_add_test(tc, a_failing_commit_is_heard_of_at_each_file);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(errors_suite());
}
