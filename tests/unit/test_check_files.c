/*
 * test_check_files.c - check finds damage in what files say of each other
 */
#include <dirent.h>
#include <string.h>

#include "cowfs/cowfs.h"
#include "check/repair.h"
#include "support/image.h"

/* ---- file trees ---- */

static void bad_mode(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->mode = to_le32(0170644);
}

static void bad_nsec(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->btime.nsec = to_le32(1000000000);
}

START_TEST(malformed_inode_is_found)
{
	edit_inode(ino_small, bad_mode);
	edit_inode(ino_link, bad_nsec);
	unmount_it();
	assert_found(P_INODE_BAD);
	ck_assert_uint_eq(seen.n[P_INODE_BAD], 2);
}
END_TEST

static void assert_mended(void)
{
	struct repair_options opt = { .all = true };
	struct repair_result res;

	ck_ok(repair_run(dev, &opt, &res));
	ck_assert(res.committed);
	assert_clean();
}

static void unknown_flag(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->flags = to_le32(from_le32(d->flags) | 0x80000000u);
}

/* A mount shows nobody such an inode. */
START_TEST(unknown_flags_are_found)
{
	struct attr a;

	edit_inode(ino_small, unknown_flag);
	ck_assert_int_eq(fs_lookup(fs, fs_live(fs), ino_dir, "small", 5, &a),
			 -ECOW_CORRUPT);
	unmount_it();
	assert_found_only(P_INODE_BAD);
	assert_mended();
	mount_it();
	ck_ok(fs_lookup(fs, fs_live(fs), ino_dir, "small", 5, &a));
}
END_TEST

static void no_parent(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->parent = to_le64(0);
}

/* A mount refuses it. */
START_TEST(root_without_a_parent_is_found)
{
	edit_inode(1, no_parent);
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_found_only(P_INODE_PARENT);
	assert_mended();
	mount_it();
}
END_TEST

START_TEST(inode_number_of_the_future_is_found)
{
	struct key k;
	uint32_t len = get_first(COWFS_ROOT_FS, ino_link, COWFS_KEY_INODE, &k,
				 scratch);

	put(COWFS_ROOT_FS, KEY(1 << 30, COWFS_KEY_INODE, 0), scratch, len);
	put(COWFS_ROOT_FS, KEY(17, COWFS_KEY_INODE, 0), scratch, len);
	unmount_it();
	assert_found(P_INODE_NUMBER);
	ck_assert_uint_eq(seen.n[P_INODE_NUMBER], 2);
	ck_assert_uint_eq(seen.n[P_INODE_UNLINKED], 2);
}
END_TEST

START_TEST(wrong_link_count_is_found)
{
	edit_inode(ino_link, nlink_more);
	edit_inode(ino_sub, nlink_more);
	unmount_it();
	assert_found_only(P_INODE_NLINK);
	ck_assert_uint_eq(seen.total, 2);
}
END_TEST

static void size_more(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->size = to_le64(from_le64(d->size) + 1);
}

START_TEST(wrong_size_of_a_directory_is_found)
{
	edit_inode(ino_sub, size_more);
	unmount_it();
	assert_found_only(P_INODE_SIZE);
}
END_TEST

static void blocks_more(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->blocks = to_le64(from_le64(d->blocks) + 1);
}

START_TEST(wrong_block_count_is_found)
{
	edit_inode(ino_big, blocks_more);
	unmount_it();
	assert_found_only(P_INODE_BLOCKS);
}
END_TEST

START_TEST(inode_without_entry_is_found)
{
	del(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_DIRENT, slot_of("small")));
	unmount_it();
	assert_found(P_INODE_UNLINKED);
	ck_assert_uint_eq(seen.n[P_INODE_SIZE], 1);
	ck_assert_uint_eq(seen.total, 2);
}
END_TEST

static void parent_root(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->parent = to_le64(1);
}

START_TEST(wrong_parent_is_found)
{
	edit_inode(ino_sub, parent_root);
	unmount_it();
	assert_found_only(P_INODE_PARENT);
}
END_TEST

START_TEST(items_without_inode_are_found)
{
	del(COWFS_ROOT_FS, KEY(ino_small, COWFS_KEY_INODE, 0));
	unmount_it();
	assert_found(P_INODE_MISSING);
	ck_assert_uint_eq(seen.n[P_DIRENT_DANGLING], 1);
	ck_assert_uint_eq(seen.total, 2);
}
END_TEST

START_TEST(malformed_entry_is_found)
{
	put_dirent(ino_dir, "a/b", slot_of("a/b"), ino_small, DT_REG);
	put_dirent(ino_dir, "..", slot_of(".."), ino_dir, DT_DIR);
	put_dirent(ino_dir, "what", slot_of("what"), ino_small, 99);
	unmount_it();
	assert_found(P_DIRENT_BAD);
	ck_assert_uint_eq(seen.n[P_DIRENT_BAD], 3);
}
END_TEST

START_TEST(name_twice_is_found)
{
	put_dirent(ino_dir, "small", slot_of("small") + 3, ino_small, DT_REG);
	unmount_it();
	assert_found(P_DIRENT_BAD);
}
END_TEST

START_TEST(wrong_hash_is_found)
{
	del(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_DIRENT, slot_of("small")));
	put_dirent(ino_dir, "small", slot_of("other"), ino_small, DT_REG);
	unmount_it();
	assert_found_only(P_DIRENT_HASH);
}
END_TEST

START_TEST(dangling_entry_is_found)
{
	put_dirent(ino_dir, "ghost", slot_of("ghost"), 1 << 20, DT_REG);
	edit_inode(ino_dir, size_more);
	unmount_it();
	assert_found_only(P_DIRENT_DANGLING);
}
END_TEST

START_TEST(wrong_type_of_an_entry_is_found)
{
	put_dirent(ino_dir, "small", slot_of("small"), ino_small, DT_FIFO);
	unmount_it();
	assert_found_only(P_DIRENT_TYPE);
}
END_TEST

static void size_less(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->size = to_le64(from_le64(d->size) - 1);
}

static void nlink_less(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->nlink = to_le32(from_le32(d->nlink) - 1);
}

static uint64_t new_parent;

static void set_parent(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->parent = to_le64(new_parent);
}

START_TEST(loop_of_directories_is_found)
{
	/* dir leaves the root for its own subdirectory */
	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_DIRENT, slot_of("dir")));
	edit_inode(1, size_less);
	edit_inode(1, nlink_less);
	put_dirent(ino_sub, "dir", slot_of("dir"), ino_dir, DT_DIR);
	edit_inode(ino_sub, size_more);
	edit_inode(ino_sub, nlink_more);
	new_parent = ino_sub;
	edit_inode(ino_dir, set_parent);
	unmount_it();
	assert_found_only(P_DIR_LOOP);
	ck_assert_uint_eq(seen.total, 1);
}
END_TEST

START_TEST(directory_with_two_names_is_found)
{
	put_dirent(1, "again", slot_of("again"), ino_sub, DT_DIR);
	edit_inode(1, size_more);
	edit_inode(1, nlink_more);
	unmount_it();
	assert_found(P_DIR_LINKED_TWICE);
}
END_TEST

START_TEST(missing_root_is_found)
{
	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_INODE, 0));
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_found(P_ROOT_MISSING);
}
END_TEST

static void extent_kind(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->kind = 7;
}

static struct key big_extent(void)
{
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	return k;
}

START_TEST(malformed_extent_is_found)
{
	edit(COWFS_ROOT_FS, big_extent(), extent_kind);
	unmount_it();
	assert_found(P_EXTENT_BAD);
	/* nobody knows what it owned: nothing is said about that */
	ck_assert_uint_eq(seen.n[P_SPACE_FREE], 0);
	ck_assert_uint_eq(seen.n[P_INODE_BLOCKS], 1);
}
END_TEST

static void extent_outside(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->blk = to_le64(UINT64_MAX - 3);
}

static void extent_super(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->blk = to_le64(18);
}

START_TEST(extent_outside_the_device_is_found)
{
	edit(COWFS_ROOT_FS, big_extent(), extent_outside);
	unmount_it();
	assert_found_only(P_OUT_OF_DEVICE);
	mount_it();
	edit(COWFS_ROOT_FS, big_extent(), extent_super);
	unmount_it();
	assert_found_only(P_OUT_OF_DEVICE);
}
END_TEST

static void put_extent(uint64_t ino, uint64_t lblk, uint64_t blk, uint32_t len,
		       uint8_t kind, uint64_t gen)
{
	struct cowfs_disk_extent d = { .blk = to_le64(blk),
				       .gen = to_le64(gen),
				       .len = to_le32(len),
				       .disk_len = to_le32(len),
				       .kind = kind };

	put(COWFS_ROOT_FS, KEY(ino, COWFS_KEY_EXTENT, lblk), &d, sizeof(d));
}

START_TEST(overlapping_extents_are_found)
{
	put_extent(ino_big, 1, DEV_BYTES / 4096 - 20, 1, COWFS_EXTENT_PREALLOC,
		   1);
	unmount_it();
	assert_found(P_EXTENT_OVERLAP);
	ck_assert_uint_eq(seen.n[P_SPACE_USED], 1);
	ck_assert_uint_eq(seen.n[P_INODE_BLOCKS], 1);
}
END_TEST

START_TEST(data_in_a_node_is_found)
{
	put_extent(ino_big, 1000, store->snap.root.blk ? store->snap.root.blk :
				  store->fs.root.blk, 1, COWFS_EXTENT_PREALLOC,
		   1);
	edit_inode(ino_big, blocks_more);
	ck_ok(store_commit(store, NULL, NULL));
	put_extent(ino_big, 1000, store->space.root.blk, 1,
		   COWFS_EXTENT_PREALLOC, 1);
	ck_ok(store_commit(store, NULL, NULL));
	put_extent(ino_big, 1000, store->space.root.blk, 1,
		   COWFS_EXTENT_PREALLOC, 1);
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	check_fully();
	ck_assert_uint_gt(seen.total, 0);
}
END_TEST

static void size_small(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->size = to_le64(100 << 12);
}

START_TEST(data_beyond_the_end_is_found)
{
	edit_inode(ino_big, size_small);
	unmount_it();
	assert_found_only(P_EXTENT_BEYOND);
}
END_TEST

START_TEST(block_of_two_files_is_found)
{
	struct key k = big_extent();
	struct cowfs_disk_extent d;
	uint32_t len = get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k,
				 scratch);

	memcpy(&d, scratch, sizeof(d));
	put(COWFS_ROOT_FS, KEY(ino_link, COWFS_KEY_EXTENT, 0), scratch, len);
	unmount_it();
	assert_found(P_SHARED_GEN);
	ck_assert_uint_eq(seen.n[P_REF_WRONG], 1);
	ck_assert_uint_eq(seen.n[P_INODE_BLOCKS], 1);
}
END_TEST

/* The one that is not marked would be freed with no look at the other. */
START_TEST(preallocated_blocks_of_two_files_are_found)
{
	struct cowfs_disk_extent d = {
		.blk = to_le64(DEV_BYTES / 4096 - 20), .gen = to_le64(1),
		.len = to_le32(1), .disk_len = to_le32(1),
		.kind = COWFS_EXTENT_PREALLOC,
	};

	ck_assert_uint_lt(ino_big, ino_link);
	put(COWFS_ROOT_FS, KEY(ino_big, COWFS_KEY_EXTENT, 1000), &d, sizeof(d));
	d.flags = COWFS_EXTENT_SHARED;
	put(COWFS_ROOT_FS, KEY(ino_link, COWFS_KEY_EXTENT, 0), &d, sizeof(d));
	unmount_it();
	assert_found(P_SHARED_GEN);
	assert_mended();
}
END_TEST

static void younger(uint8_t *node, unsigned slot)
{
	const struct cowfs_disk_item *it =
		(const void *)(node + sizeof(struct cowfs_disk_node));
	struct cowfs_disk_extent *d = (void *)(node +
		sizeof(struct cowfs_disk_node) + from_le16(it[slot].off));
	const struct cowfs_disk_node *head = (const void *)node;

	ck_assert_uint_eq(it[slot].key.type, COWFS_KEY_EXTENT);
	d->gen = to_le64(from_le64(head->gen) + 1);
}

/* Who lets go of it would think that no snapshot can have it. */
START_TEST(extent_younger_than_its_node_is_found)
{
	struct key k = big_extent();
	uint64_t before = from_le64(get_super().gen);

	/* a generation in which that leaf does not change */
	put(COWFS_ROOT_SNAP, KEY(0, COWFS_KEY_SETTING, 77), "x", 1);
	ck_ok(store_commit(store, NULL, NULL));
	unmount_it();
	ck_assert_uint_gt(from_le64(get_super().gen), before);
	patch(COWFS_ROOT_FS, k, 0, younger);
	assert_found_only(P_EXTENT_BAD);
	assert_mended();
}
END_TEST

static void other_csum(void *data, uint32_t len)
{
	(void)len;
	((uint8_t *)data)[sizeof(struct cowfs_disk_extent)] ^= 0x55;
}

START_TEST(disagreeing_extents_are_found)
{
	uint64_t copied;

	ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, ino_link, 0, 8 << 12,
			    &copied));
	ck_assert_uint_eq(copied, 8 << 12);
	edit(COWFS_ROOT_FS, KEY(ino_link, COWFS_KEY_EXTENT, 0), other_csum);
	unmount_it();
	assert_found_only(P_EXTENT_BAD);
}
END_TEST

START_TEST(malformed_inline_contents_are_found)
{
	put(COWFS_ROOT_FS, KEY(ino_small, COWFS_KEY_INLINE, 0), "abc", 3);
	put(COWFS_ROOT_FS, KEY(ino_link, COWFS_KEY_INLINE, 0), "abc", 3);
	unmount_it();
	assert_found_only(P_INLINE_BAD);
	ck_assert_uint_eq(seen.total, 2);
}
END_TEST

static void xattr_len(void *data, uint32_t len)
{
	struct cowfs_disk_xattr *d = data;

	(void)len;
	d->value_len = to_le32(from_le32(d->value_len) + 1);
}

START_TEST(malformed_xattr_is_found)
{
	edit(COWFS_ROOT_FS, KEY(ino_xattr, COWFS_KEY_XATTR, slot_of("user.a")),
	     xattr_len);
	unmount_it();
	assert_found_only(P_XATTR_BAD);
}
END_TEST

START_TEST(incomplete_xattr_value_is_found)
{
	struct key k;

	get_first(COWFS_ROOT_FS, ino_xattr, COWFS_KEY_XATTR_DATA, &k, scratch);
	del(COWFS_ROOT_FS, k);
	unmount_it();
	assert_found_only(P_XATTR_BAD);
	mount_it();
	put(COWFS_ROOT_FS, KEY(ino_small, COWFS_KEY_XATTR_DATA, 5 << 16), "x",
	    1);
	unmount_it();
	assert_found_only(P_XATTR_BAD);
}
END_TEST

START_TEST(wrong_orphans_are_found)
{
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, ino_small), NULL, 0);
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, 77777), NULL, 0);
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_found_only(P_ORPHAN_BAD);
	ck_assert_uint_eq(seen.total, 2);
}
END_TEST

START_TEST(unknown_item_is_found)
{
	put(COWFS_ROOT_FS, KEY(ino_big, 0x77, 0), "?", 1);
	unmount_it();
	assert_found_only(P_ITEM_UNKNOWN);
}
END_TEST

START_TEST(every_problem_has_a_name)
{
	for (unsigned p = 0; p < P_COUNT; p++) {
		ck_assert_str_ne(problem_name(p), "unknown");
		ck_assert_ptr_nonnull(problem_text(p));
		for (unsigned q = 0; q < p; q++)
			ck_assert_str_ne(problem_name(p), problem_name(q));
	}
}
END_TEST

/* ---- */

static void no_links(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->nlink = to_le32(0);
}

/* Even if it is listed: letting go of it would take the names in it. */
START_TEST(orphan_with_entries_is_found)
{
	const uint64_t who[] = { COWFS_INO_ROOT, ino_sub };
	struct repair_options opt = { .all = true };
	struct repair_result res;
	struct attr a;

	edit_inode(who[_i], no_links);
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, who[_i]), NULL, 0);
	fs_umount(fs); /* not drained, which would remove it */
	fs = NULL;
	ck_ok(store_close(store));
	store = NULL;
	assert_found(P_ORPHAN_BAD);
	ck_ok(repair_run(dev, &opt, &res));
	assert_clean();
	mount_it();
	ck_ok(store_drain(store));
	ck_ok(fs_lookup(fs, fs_live(fs), 1, "dir", 3, &a));
	ck_ok(fs_lookup(fs, fs_live(fs), ino_sub, "file-7", 6, &a));
}
END_TEST

static Suite *check_files_suite(void)
{
	Suite *s = suite_create("check_files");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, malformed_inode_is_found);
	tcase_add_test(t, unknown_flags_are_found);
	tcase_add_test(t, root_without_a_parent_is_found);
	tcase_add_test(t, inode_number_of_the_future_is_found);
	tcase_add_test(t, wrong_link_count_is_found);
	tcase_add_test(t, wrong_size_of_a_directory_is_found);
	tcase_add_test(t, wrong_block_count_is_found);
	tcase_add_test(t, inode_without_entry_is_found);
	tcase_add_test(t, wrong_parent_is_found);
	tcase_add_test(t, items_without_inode_are_found);
	tcase_add_test(t, malformed_entry_is_found);
	tcase_add_test(t, name_twice_is_found);
	tcase_add_test(t, wrong_hash_is_found);
	tcase_add_test(t, dangling_entry_is_found);
	tcase_add_test(t, wrong_type_of_an_entry_is_found);
	tcase_add_test(t, loop_of_directories_is_found);
	tcase_add_test(t, directory_with_two_names_is_found);
	tcase_add_test(t, missing_root_is_found);
	tcase_add_test(t, malformed_extent_is_found);
	tcase_add_test(t, extent_outside_the_device_is_found);
	tcase_add_test(t, overlapping_extents_are_found);
	tcase_add_test(t, data_in_a_node_is_found);
	tcase_add_test(t, data_beyond_the_end_is_found);
	tcase_add_test(t, block_of_two_files_is_found);
	tcase_add_test(t, preallocated_blocks_of_two_files_are_found);
	tcase_add_test(t, extent_younger_than_its_node_is_found);
	tcase_add_test(t, disagreeing_extents_are_found);
	tcase_add_test(t, malformed_inline_contents_are_found);
	tcase_add_test(t, malformed_xattr_is_found);
	tcase_add_test(t, incomplete_xattr_value_is_found);
	tcase_add_test(t, wrong_orphans_are_found);
	tcase_add_test(t, unknown_item_is_found);
	tcase_add_loop_test(t, orphan_with_entries_is_found, 0, 2);
	tcase_add_test(t, every_problem_has_a_name);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(check_files_suite());
}
