/*
 * test_repair.c - damaged files, names, snapshots and data: what is wrong is put
 * right, and nothing else is touched
 */
#include <dirent.h>

#include "snapshot/snapshot.h"
#include "unit/repair_fixture.h"

/* ---- files and names ---- */

START_TEST(sound_image_is_left_alone)
{
	struct cowfs_disk_super d;

	unmount_it();
	d = get_super();
	repair_all();
	ck_assert_uint_eq(res.check.problems, 0);
	ck_assert(!res.committed && !res.mended);
	ck_assert_uint_eq(from_le64(get_super().gen), from_le64(d.gen));
}
END_TEST

/* What it goes on from may have holes: that it does is no proof that all of it was
 * there (super_goes_on_from). */
START_TEST(a_repair_proves_nothing)
{
	struct cowfs_disk_super d;

	edit_inode(ino_link, nlink_more);
	unmount_it();
	d = get_super();
	repair_all();
	ck_assert(res.committed);
	ck_assert_uint_gt(from_le64(get_super().gen), from_le64(d.gen));
	ck_assert_uint_eq(from_le32(get_super().back), 0);
}
END_TEST

START_TEST(wrong_counts_are_set_without_asking)
{
	struct repair_options safe = { .all = false };

	edit_inode(ino_link, nlink_more);
	edit_inode(ino_sub, nlink_more);
	unmount_it();
	ck_ok(run(&safe));
	ck_assert(res.committed && !res.needs_all);
	assert_clean();
}
END_TEST

START_TEST(entry_without_inode_goes)
{
	struct attr a;

	put_dirent(ino_dir, "ghost", slot_of("ghost"), 1 << 20, DT_REG);
	unmount_it();
	assert_repairs();
	ck_assert(was_told("'ghost' in '/dir'"));
	mount_it();
	ck_assert(!there(ino_dir, "ghost", &a));
}
END_TEST

START_TEST(inode_without_entry_goes_to_lost_and_found)
{
	char name[32];
	struct attr a, b;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_DIRENT, slot_of("dir")));
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "lost+found", &a));
	snprintf(name, sizeof(name), "#%" PRIu64, ino_dir);
	ck_assert(there(a.ino, name, &b));
	ck_assert_uint_eq(b.ino, ino_dir);
	ck_assert(there(ino_dir, "small", &a));
}
END_TEST

START_TEST(lost_inode_of_a_directory_is_made_anew)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_INODE, 0));
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(ino_dir, "sub", &a));
	ck_assert(S_ISDIR(a.mode));
	ck_assert(there(a.ino, "file-299", &a));
}
END_TEST

static void spoil_acl(void *data, uint32_t len)
{
	((uint8_t *)data)[len - 8] ^= 0x40; /* a tag */
}

/* Nobody could make anything in the directory, or change its mode. */
START_TEST(impossible_acl_goes)
{
	static const uint8_t acl[] = {
		2, 0, 0, 0,
		1, 0, 7, 0, 255, 255, 255, 255,
		2, 0, 6, 0, 5, 0, 0, 0,
		4, 0, 5, 0, 255, 255, 255, 255,
		16, 0, 7, 0, 255, 255, 255, 255,
		32, 0, 0, 0, 255, 255, 255, 255,
	};
	static const char *const names[] = { "system.posix_acl_access",
					     "system.posix_acl_default" };
	char back[100];
	size_t len;

	ck_ok(fs_setxattr(fs, ino_dir, names[_i], acl, sizeof(acl), 0,
			  &root_cred));
	unmount_it();
	assert_clean();
	mount_it();
	edit(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_XATTR, slot_of(names[_i])),
	     spoil_acl);
	unmount_it();
	assert_found_only(P_XATTR_BAD);
	assert_repairs();
	mount_it();
	ck_err(fs_getxattr(fs, fs_live(fs), ino_dir, names[_i], back,
			   sizeof(back), &len), -ENODATA);
	make_node(ino_dir, "new", S_IFREG | 0644, NULL);
}
END_TEST

static uint32_t value_id;

static void note_value(void *data, uint32_t len)
{
	struct cowfs_disk_xattr *d = data;

	(void)len;
	value_id = from_le32(d->value_id);
}

static void take_value(void *data, uint32_t len)
{
	struct cowfs_disk_xattr *d = data;

	(void)len;
	d->value_id = to_le32(value_id);
}

static struct key xattr_key(const char *name)
{
	return KEY(ino_xattr, COWFS_KEY_XATTR, slot_of(name));
}

static int xattr_len(const char *name, size_t *len)
{
	static char value[COWFS_XATTR_SIZE_MAX];

	return fs_getxattr(fs, fs_live(fs), ino_xattr, name, value,
			   sizeof(value), len);
}

/* Two xattrs say that one value is theirs; of the same length, or of others. */
START_TEST(value_with_two_names_is_kept)
{
	static const size_t more[] = { 0, 1, 9000 };
	static char value[COWFS_XATTR_SIZE_MAX];
	size_t len, now;
	unsigned left = 0;

	ck_ok(xattr_len("user.large", &len));
	for (unsigned i = 0; i < 4; i++) {
		char name[] = { 'u', 's', 'e', 'r', '.', (char)('p' + i), 0 };

		ck_ok(fs_setxattr(fs, ino_xattr, name, value, len + more[_i],
				  0, &root_cred));
		edit(COWFS_ROOT_FS, xattr_key("user.large"), note_value);
		edit(COWFS_ROOT_FS, xattr_key(name), take_value);
	}
	unmount_it();
	assert_repairs();
	mount_it();
	if (more[_i]) {
		ck_ok(xattr_len("user.large", &now));
		ck_assert_uint_eq(now, len);
	}
	for (unsigned i = 0; i < 4; i++) {
		char name[] = { 'u', 's', 'e', 'r', '.', (char)('p' + i), 0 };

		left += xattr_len(name, &now) == 0;
	}
	left += xattr_len("user.large", &now) == 0;
	ck_assert_uint_eq(left, 1);
}
END_TEST

static void no_directory(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->mode = to_le32((from_le32(d->mode) & 07777) | S_IFREG);
}

/* What it has shows what it was: nothing is lost, or moved. */
START_TEST(directory_that_says_it_is_none_is_one_again)
{
	struct repair_options safe = { .all = false };
	struct attr was, a;

	ck_assert(there(ino_dir, "sub", &was));
	edit_inode(ino_dir, no_directory);
	edit_inode(ino_sub, no_directory);
	edit_inode(1, no_directory);
	stop_dead();
	ck_ok(run(&safe));
	ck_assert(res.committed && !res.left);
	assert_clean();
	mount_it();
	ck_assert(!there(1, "lost+found", &a));
	ck_assert(there(1, "dir", &a));
	ck_assert(there(ino_dir, "sub", &a));
	ck_assert_uint_eq(a.mode, was.mode);
	ck_assert_uint_eq(a.nlink, was.nlink);
	ck_assert(there(ino_sub, "file-299", &a));
}
END_TEST

START_TEST(lost_root_directory_is_made_anew)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_INODE, 0));
	stop_dead();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "dir", &a));
}
END_TEST

START_TEST(loop_of_directories_is_opened)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_DIRENT, slot_of("dir")));
	put_dirent(ino_sub, "dir", slot_of("dir"), ino_dir, DT_DIR);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "lost+found", &a));
	ck_assert(there(ino_sub, "file-299", &a));
}
END_TEST

static void bad_everything(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->btime.nsec = to_le32(UINT32_MAX);
	d->gen = to_le64(UINT64_MAX - 1);
	d->nlink = to_le32(UINT32_MAX);
	d->blocks = to_le64(UINT64_MAX);
}

static void bad_mode(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->mode = to_le32(0170644);
}

START_TEST(impossible_inodes_are_made_possible)
{
	struct attr a;

	edit_inode(ino_big, bad_everything);
	edit_inode(ino_small, bad_mode);
	stop_dead();
	assert_repairs();
	mount_it();
	ck_ok(fs_getattr(fs, fs_live(fs), ino_big, &a));
	ck_assert_uint_eq(a.nlink, 1);
	ck_assert_uint_eq(a.size, BIG_BLOCKS * COWFS_BLOCK_SIZE);
	ck_assert(there(ino_dir, "small", &a));
	ck_assert_uint_eq(a.size, 100);
}
END_TEST

START_TEST(items_that_mean_nothing_go)
{
	put(COWFS_ROOT_FS, KEY(ino_big, 0x77, 0), "?", 1);
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, 77777), NULL, 0);
	put(COWFS_ROOT_FS, KEY(ino_small, COWFS_KEY_XATTR_DATA, 5 << 16), "x",
	    1);
	put(COWFS_ROOT_FS, KEY(3000, COWFS_KEY_XATTR, 5 << 8), "x", 1);
	put_dirent(ino_dir, "a/b", slot_of("a/b"), ino_small, DT_REG);
	put_dirent(ino_dir, "small", slot_of("small") + 3, ino_small, DT_REG);
	stop_dead();
	assert_repairs();
}
END_TEST

START_TEST(misplaced_entry_is_moved)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_DIRENT, slot_of("small")));
	put_dirent(ino_dir, "small", slot_of("other"), ino_small, DT_FIFO);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(ino_dir, "small", &a));
	ck_assert_uint_eq(a.ino, ino_small);
}
END_TEST

static void extent_kind(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->kind = 7;
}

START_TEST(impossible_extent_becomes_a_hole)
{
	struct repair_options safe = { .all = false };
	uint64_t hole;
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	edit(COWFS_ROOT_FS, k, extent_kind);
	unmount_it();
	ck_ok(run(&safe));
	ck_assert(res.needs_all && !res.committed);
	ck_assert_uint_gt(res.left, 0);
	assert_repairs();
	ck_assert(was_told("'/dir/big'"));
	mount_it();
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, 0, SEEK_HOLE, &hole));
	ck_assert_uint_eq(hole, 0);
}
END_TEST

/* ---- snapshots ---- */

START_TEST(leaf_shared_with_snapshots_is_cut_out_of_all)
{
	struct key k;

	ck_ok(snap_create(store, "a", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "b", NULL));
	make_node(1, "y", S_IFREG | 0644, NULL);
	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	unmount_it();
	lose_leaf(COWFS_ROOT_FS, k);
	assert_repairs();
	ck_assert_uint_eq(result.snapshots, 2);
	ck_assert(was_told("snapshot 1: "));
	ck_assert(was_told("snapshot 2: "));
}
END_TEST

START_TEST(snapshot_without_a_root_goes)
{
	struct snap_info info;

	ck_ok(snap_create(store, "gone", &info));
	ck_ok(snap_create(store, "stays", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "too", NULL));
	ck_ok(snap_delete(store, "stays"));
	unmount_it();
	flip_block(info.root.blk);
	flip_block(info.root.blk2);
	assert_repairs();
	mount_it();
	ck_err(snap_find(store, "gone", &info), -ENOENT);
	ck_ok(snap_find(store, "too", &info));
}
END_TEST

static uint64_t far_off;

static void root_of_the_future(void *data, uint32_t len)
{
	struct cowfs_disk_snap *d = data;

	(void)len;
	d->root.ptr.gen = to_le64(forest_gen(store->forest) + 1 + far_off);
}

/* Of the generation that the repair writes, or of a later one. */
START_TEST(snapshot_with_a_root_of_the_future_goes)
{
	struct snap_info info;
	struct key k;

	far_off = (uint64_t)_i << 60;
	share_something();
	get_first(COWFS_ROOT_SNAP, 1, COWFS_KEY_SNAP, &k, scratch);
	edit(COWFS_ROOT_SNAP, k, root_of_the_future);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_err(snap_find(store, "s", &info), -ENOENT);
}
END_TEST

static void odd_record(void *data, uint32_t len)
{
	struct cowfs_disk_snap *d = data;

	(void)len;
	d->time.nsec = to_le32(UINT32_MAX);
	d->gen = to_le64(UINT64_MAX >> 2);
}

/* Its tree is sound: none of that is a reason to let go of it. */
START_TEST(snapshot_with_an_odd_record_is_kept)
{
	struct repair_options safe = { .all = false };
	struct cowfs_disk_super d;
	struct view *v;
	struct key k;

	share_something();
	get_first(COWFS_ROOT_SNAP, 1, COWFS_KEY_SNAP, &k, scratch);
	if (_i)
		edit(COWFS_ROOT_SNAP, k, odd_record);
	unmount_it();
	d = get_super();
	if (!_i)
		d.next_snap = to_le64(1);
	put_super(&d);
	assert_found_only(P_SNAP_BAD);
	ck_ok(run(&safe));
	ck_assert(res.committed && !res.left);
	assert_clean();
	mount_it();
	ck_ok(fs_view_open(fs, "s", &v));
	fs_view_put(fs, v);
	ck_ok(snap_create(store, "t", NULL));
	unmount_it();
	assert_clean();
}
END_TEST

/* Nodes of the snapshot would be changed in place, and freed. */
START_TEST(what_may_be_shared_is_known_again)
{
	struct cowfs_disk_super d;

	share_something();
	unmount_it();
	d = get_super();
	ck_assert_uint_gt(from_le64(d.shared_gen), 0);
	d.shared_gen = to_le64(0);
	put_super(&d);
	assert_repairs();
	mount_it();
	fill(ino_big, 0, 5000, 78);
	fill(ino_small, 0, 50, 5);
	unmount_it();
	assert_clean();
}
END_TEST

/* Or a number would be given to a second file. */
START_TEST(inode_numbers_go_on_above_all_there_are)
{
	struct cowfs_disk_super d;
	uint64_t next;

	unmount_it();
	d = get_super();
	next = from_le64(d.next_ino);
	d.next_ino = to_le64(COWFS_INO_FIRST);
	put_super(&d);
	assert_repairs();
	ck_assert_uint_ge(from_le64(get_super().next_ino), next);
}
END_TEST

START_TEST(deletes_under_way_are_finished)
{
	struct snap_info info;
	uint64_t n;

	share_something();
	ck_ok(snap_find(store, "s", &info));
	ck_ok(snap_delete(store, "s"));
	edit_inode(ino_link, nlink_more);
	stop_dead();
	repair_all();
	assert_clean();
	mount_it();
	ck_ok(snap_drops(store, &n));
	ck_assert_uint_eq(n, 0);
}
END_TEST

/* ---- data ---- */

START_TEST(data_without_a_good_copy_stays_unless_punched)
{
	struct repair_options opt = { .all = true, .data = true };
	uint64_t blk = big_block(), hole;

	unmount_it();
	flip_block(blk + 1);
	ck_ok(run(&opt));
	ck_assert(!res.committed);
	ck_assert_uint_eq(res.left, 1);
	ck_assert(was_told("'/dir/big' (inode"));
	ck_assert(was_told("bytes 4096 to 8191"));
	assert_found_only(P_DATA_UNREADABLE);
	opt.punch = true;
	ck_ok(run(&opt));
	ck_assert(res.committed);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
	mount_it();
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, 0, SEEK_HOLE, &hole));
	ck_assert_uint_eq(hole, 4096);
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, hole, SEEK_DATA, &hole));
	ck_assert_uint_eq(hole, 8192);
}
END_TEST

/* What is behind the hole has both its copies still. */
START_TEST(punched_in_both_copies)
{
	struct repair_options opt = { .all = true, .data = true,
				      .punch = true };
	struct cowfs_disk_extent d, rest;
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	memcpy(&d, scratch, sizeof(d));
	ck_assert_uint_ne(from_le64(d.blk2), 0);
	unmount_it();
	flip_block(from_le64(d.blk));
	flip_block(from_le64(d.blk2));
	ck_ok(run(&opt));
	ck_assert(res.committed);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
	mount_it();
	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	memcpy(&rest, scratch, sizeof(rest));
	ck_assert_uint_eq(k.off, 1);
	ck_assert_uint_eq(from_le64(rest.blk), from_le64(d.blk) + 1);
	ck_assert_uint_eq(from_le64(rest.blk2), from_le64(d.blk2) + 1);
}
END_TEST

START_TEST(punched_in_snapshots_too)
{
	struct repair_options opt = { .all = true, .punch = true };
	uint64_t blk = big_block();

	ck_ok(snap_create(store, "a", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "b", NULL));
	fill(ino_big, 20 << 12, 4096, 99);
	unmount_it();
	flip_block(blk + 3);
	ck_ok(run(&opt));
	assert_clean();
}
END_TEST

static void add_files(TCase *tc)
{
	tcase_add_test(tc, sound_image_is_left_alone);
	tcase_add_test(tc, a_repair_proves_nothing);
	tcase_add_test(tc, wrong_counts_are_set_without_asking);
	tcase_add_test(tc, entry_without_inode_goes);
	tcase_add_test(tc, inode_without_entry_goes_to_lost_and_found);
	tcase_add_test(tc, lost_inode_of_a_directory_is_made_anew);
	tcase_add_loop_test(tc, impossible_acl_goes, 0, 2);
	tcase_add_loop_test(tc, value_with_two_names_is_kept, 0, 3);
	tcase_add_test(tc, directory_that_says_it_is_none_is_one_again);
	tcase_add_test(tc, lost_root_directory_is_made_anew);
	tcase_add_test(tc, loop_of_directories_is_opened);
	tcase_add_test(tc, impossible_inodes_are_made_possible);
	tcase_add_test(tc, items_that_mean_nothing_go);
	tcase_add_test(tc, misplaced_entry_is_moved);
	tcase_add_test(tc, impossible_extent_becomes_a_hole);
}

static void add_snapshots(TCase *tc)
{
	tcase_add_test(tc, leaf_shared_with_snapshots_is_cut_out_of_all);
	tcase_add_test(tc, snapshot_without_a_root_goes);
	tcase_add_loop_test(tc, snapshot_with_a_root_of_the_future_goes, 0, 2);
	tcase_add_loop_test(tc, snapshot_with_an_odd_record_is_kept, 0, 2);
	tcase_add_test(tc, what_may_be_shared_is_known_again);
	tcase_add_test(tc, inode_numbers_go_on_above_all_there_are);
	tcase_add_test(tc, deletes_under_way_are_finished);
}

static void add_data(TCase *tc)
{
	tcase_add_test(tc, data_without_a_good_copy_stays_unless_punched);
	tcase_add_test(tc, punched_in_snapshots_too);
}

static void add_two(TCase *tc)
{
	tcase_add_test(tc, punched_in_both_copies);
}

int main(void)
{
	Suite *s = suite_create("repair");

	test_case(s, "files and names", 300, setup, teardown, add_files);
	test_case(s, "snapshots", 300, setup, teardown, add_snapshots);
	test_case(s, "data", 300, setup, teardown, add_data);
	test_case(s, "two copies", 300, setup_two, teardown, add_two);
	return test_main(s);
}
