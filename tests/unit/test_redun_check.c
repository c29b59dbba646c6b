/*
 * test_redun_check.c - scrub, fsck and repair know extra copies
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/repair.h"
#include "snapshot/snapshot.h"
#include "support/image.h"

static struct repair_result res;
static struct copy_ival iv; /* of the first extent of `big` */

/* Everything has an extra copy; mounted. */
static void setup_copied(void)
{
	setup();
	ck_ok(redun_start(store));
	ck_ok(redun_set(store, 2));
	ck_ok(snap_create(store, "one", NULL));
	ck_ok(store_drain(store));
	ck_assert_uint_ge(store_copied(store), BIG_BLOCKS);
}

static void find_copy(void)
{
	uint64_t blk = big_block();
	struct op op;
	int err;

	op_read(&op, store);
	do
		err = copies_next(store, blk, &iv);
	while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
	ck_assert_uint_le(iv.start, blk);
}

static struct key item(void)
{
	return KEY(iv.start, COWFS_KEY_COPY, iv.len);
}

static uint64_t copy_of_big(void)
{
	return iv.at + (big_block() - iv.start);
}

static void scrub(void)
{
	struct check_options opt = { .data = true, .mend = true,
				     .found = note };

	memset(&seen, 0, sizeof(seen));
	ck_ok(check_run(store, &opt, &result));
}

static void repair(void)
{
	struct repair_options opt = { .all = false, .data = true };

	ck_ok(repair_run(dev, &opt, &res));
	ck_assert_uint_eq(res.left, 0);
}

START_TEST(copies_check_clean)
{
	uint64_t copied = store_copied(store);

	unmount_it();
	assert_clean();
	ck_assert_uint_eq(result.extra_copies, copied);
	ck_assert(from_le64(get_super().ro_compat) & COWFS_RO_COMPAT_COPIES);
}
END_TEST

START_TEST(scrub_mends_data_and_copies_from_each_other)
{
	find_copy();
	flip_block(big_block());
	scrub();
	ck_assert_uint_eq(result.bad_copies, 1);
	ck_assert_uint_eq(result.repaired, 1);
	ck_assert_uint_eq(seen.n[P_DATA_COPY], 1);
	flip_block(copy_of_big());
	scrub();
	ck_assert_uint_eq(result.bad_copies, 1);
	ck_assert_uint_eq(result.repaired, 1);
	scrub();
	ck_assert_uint_eq(result.problems, 0);
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(both_bad_is_lost)
{
	find_copy();
	flip_block(big_block());
	flip_block(copy_of_big());
	scrub();
	ck_assert_uint_eq(result.lost, 1);
	ck_assert_uint_eq(result.bad_copies, 2);
}
END_TEST

static void elsewhere(void *data, uint32_t len)
{
	struct cowfs_disk_copy *d = data;

	(void)len;
	/* where its neighbours' copies lie */
	d->blk = to_le64(from_le64(d->blk) + 1);
}

START_TEST(a_copy_at_the_wrong_place_is_found_and_mended)
{
	uint64_t copied = store_copied(store);

	find_copy();
	edit(COWFS_ROOT_COPIES, item(), elsewhere);
	unmount_it();
	check_fully();
	ck_assert_uint_gt(seen.total, 0);
	repair();
	assert_clean();
	/* What goes is the item, which may be a long one, and its neighbours. */
	ck_assert_uint_gt(result.extra_copies, copied / 8);
}
END_TEST

static void on_others(void *data, uint32_t len)
{
	struct cowfs_disk_copy *d = data;

	(void)len;
	d->blk = to_le64(32); /* the log */
}

START_TEST(a_copy_on_blocks_of_others_loses)
{
	find_copy();
	edit(COWFS_ROOT_COPIES, item(), on_others);
	unmount_it();
	assert_found(P_OVERLAP);
	repair();
	assert_clean();
	mount_it();
	unmount_it();
}
END_TEST

START_TEST(a_copy_of_what_nobody_has_is_found)
{
	struct cowfs_disk_copy d;

	find_copy();
	/* swap data and copy: it covers blocks that no file names */
	del(COWFS_ROOT_COPIES, item());
	d.blk = to_le64(iv.start);
	put(COWFS_ROOT_COPIES, KEY(iv.at, COWFS_KEY_COPY, iv.len), &d,
	    sizeof(d));
	unmount_it();
	check_fully();
	ck_assert_uint_gt(seen.n[P_COPY_STRAY] + seen.n[P_OVERLAP], 0);
	repair();
	assert_clean();
}
END_TEST

START_TEST(a_malformed_item_goes)
{
	char bytes[9] = { 0 };

	put(COWFS_ROOT_COPIES, KEY(1 << 20, COWFS_KEY_COPY, 5), bytes,
	    sizeof(bytes));
	unmount_it();
	assert_found_only(P_COPY_BAD);
	repair();
	assert_clean();
}
END_TEST

START_TEST(a_wrong_count_is_set)
{
	struct cowfs_disk_super d;

	unmount_it();
	d = get_super();
	d.roots[COWFS_ROOT_COPIES].copies = to_le64(7);
	put_super(&d);
	assert_found_only(P_COPY_COUNT);
	repair();
	assert_clean();
}
END_TEST

START_TEST(repair_of_something_else_keeps_copies)
{
	uint64_t copied = store_copied(store);

	edit_inode(ino_link, nlink_more);
	unmount_it();
	repair();
	assert_clean();
	ck_assert_uint_eq(result.extra_copies, copied);
	mount_it();
	ck_ok(snap_delete(store, "one"));
	unmount_it();
	assert_clean();
	ck_assert_uint_eq(result.extra_copies, copied);
}
END_TEST

static void wreck(uint8_t *node, unsigned slot)
{
	(void)slot;
	memset(node, 0xff, 4096);
}

START_TEST(an_unreadable_tree_is_made_anew)
{
	struct key k = KEY(0, 0, 0);

	unmount_it();
	patch(COWFS_ROOT_COPIES, k, 0, wreck);
	check_fully();
	ck_assert_uint_gt(seen.n[P_NODE_CORRUPT], 0);
	repair();
	assert_clean();
	mount_it();
	ck_ok(redun_start(store));
	ck_ok(store_drain(store)); /* a pass is due again */
	ck_assert_uint_ge(store_copied(store), BIG_BLOCKS);
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(repair_reads_rotten_data_from_its_copy)
{
	find_copy();
	edit_inode(ino_link, nlink_more);
	unmount_it();
	flip_block(iv.start + 1);
	repair();
	assert_clean();
}
END_TEST

START_TEST(who_does_not_know_copies_may_only_read)
{
	struct super_scan scan;
	struct cowfs_disk_super d;

	unmount_it();
	d = get_super();
	d.ro_compat = to_le64(from_le64(d.ro_compat) | UINT64_C(1) << 40);
	put_super(&d);
	ck_ok(super_scan(dev, &scan));
	ck_assert(scan.ro_only);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("extra copies, checked");
	TCase *tc = tcase_create("extra copies");

	tcase_add_checked_fixture(tc, setup_copied, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, copies_check_clean);
	tcase_add_test(tc, scrub_mends_data_and_copies_from_each_other);
	tcase_add_test(tc, both_bad_is_lost);
	tcase_add_test(tc, a_copy_at_the_wrong_place_is_found_and_mended);
	tcase_add_test(tc, a_copy_on_blocks_of_others_loses);
	tcase_add_test(tc, a_copy_of_what_nobody_has_is_found);
	tcase_add_test(tc, a_malformed_item_goes);
	tcase_add_test(tc, a_wrong_count_is_set);
	tcase_add_test(tc, repair_of_something_else_keeps_copies);
	tcase_add_test(tc, an_unreadable_tree_is_made_anew);
	tcase_add_test(tc, repair_reads_rotten_data_from_its_copy);
	tcase_add_test(tc, who_does_not_know_copies_may_only_read);
	suite_add_tcase(s, tc);
	return test_main(s);
}
