/*
 * test_fs_damage.c - items that are impossible, though their checksums are right
 *
 * Items are changed through the tree, behind the back of the filesystem.
 */
#include <dirent.h>
#include <stdio.h> /* RENAME_* */
#include <sys/xattr.h>

#include "fs/private.h"
#include "support/testdev.h"
#include "unit/fs_fixture.h"

static void poke(const struct key *k, uint32_t at, const void *bytes,
		 uint32_t n)
{
	struct op op;
	uint32_t len;
	void *data;
	int err;

	ck_ok(op_write(&op, store, ALLOC_NORMAL, 1));
	do {
		err = tree_prepare(&store->fs, k);
		if (!err)
			err = tree_edit(&store->fs, k, &data, &len);
	} while (op_again(&op, &err));
	ck_ok(err);
	if (at < len)
		memcpy((char *)data + at, bytes, min_u64(n, len - at));
	ck_ok(op_end(&op, 0));
}

static void undamaged_image(void)
{
	make(8 * MIB, 4096);
	test_log_hide();
}

static void close_damaged(void)
{
	int err;

	test_log_show();
	fs_umount(fs);
	err = store_close(store); /* may have been stopped by the damage */
	(void)err;
	bdev_close(dev);
}

START_TEST(circle_of_directories_is_found)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(a, "b");
	uint64_t c = make_dir(b, "c"), d = make_dir(ROOT, "d");
	struct key k = KEY(b, COWFS_KEY_INODE, 0);
	struct le64 parent = to_le64(c);

	make_dir(ROOT, "e");
	poke(&k, offsetof(struct cowfs_disk_inode, parent), &parent, 8);
	ck_err(rename_it(ROOT, "e", c, "e", 0), -ECOW_CORRUPT);
	parent = to_le64(b); /* its own parent */
	poke(&k, offsetof(struct cowfs_disk_inode, parent), &parent, 8);
	ck_err(rename_it(ROOT, "e", c, "e", 0), -ECOW_CORRUPT);
	parent = to_le64(5555); /* nobody */
	poke(&k, offsetof(struct cowfs_disk_inode, parent), &parent, 8);
	ck_err(rename_it(ROOT, "e", c, "e", 0), -ECOW_CORRUPT);
	ck_ok(rename_it(ROOT, "e", d, "e", 0));
}
END_TEST

START_TEST(impossible_inodes_are_reported)
{
	uint64_t f = make_file(ROOT, "f");
	struct key k = KEY(f, COWFS_KEY_INODE, 0);
	struct attr a;
	static const struct { uint32_t at, value; } bad[] = {
		{ offsetof(struct cowfs_disk_inode, mode), 0 },
		{ offsetof(struct cowfs_disk_inode, mode), 0170644 },
		{ offsetof(struct cowfs_disk_inode, mode), S_IFREG | 1 << 20 },
		{ offsetof(struct cowfs_disk_inode, nlink), 0x80000000 },
		{ offsetof(struct cowfs_disk_inode, size) + 4, 0x80000000 },
		{ offsetof(struct cowfs_disk_inode, blocks) + 4, 1 << 20 },
		{ offsetof(struct cowfs_disk_inode, flags), 0x80000000 },
		{ offsetof(struct cowfs_disk_inode, mtime) + 8, 1000000000 },
	};
	struct le32 was, v;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		v = to_le32(bad[i].value);
		was = to_le32(bad[i].at == 0 ? S_IFREG | 0644 :
			      bad[i].at == 0x0c ? 1 : 0);
		poke(&k, bad[i].at, &v, 4);
		ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ECOW_CORRUPT);
		ck_err(unlink_it(ROOT, "f"), -ECOW_CORRUPT);
		poke(&k, bad[i].at, &was, 4);
		ck_ok(fs_getattr(fs, fs_live(fs), f, &a));
	}
	v = to_le32(S_IFDIR | 0755); /* not what the entry says */
	poke(&k, 0, &v, 4);
	ck_err(look(ROOT, "f", &a), -ECOW_CORRUPT);
	ck_err(unlink_it(ROOT, "f"), -ECOW_CORRUPT);
	ck_assert(!store_stopped(store));
}
END_TEST

/* Names of equal hashes are not to be found, so others are put where a name
 * belongs: counters from..to-1 of its hash. */
static void crowd(const struct key *base, unsigned from, unsigned to,
		  const void *item, uint32_t len, uint32_t vary_at)
{
	uint8_t copy[64];
	struct op op;
	unsigned i;
	int err;

	memcpy(copy, item, len);
	for (i = from; i < to; i++) {
		struct key k = KEY(base->obj, base->type, base->off | i);

		copy[vary_at] = (uint8_t)(i % 64 + '0');
		copy[vary_at + 1] = (uint8_t)(i / 64 + 'a');
		ck_ok(op_write(&op, store, ALLOC_NORMAL, 1));
		do {
			err = tree_prepare(&store->fs, &k);
			if (!err)
				err = tree_insert(&store->fs, &k, copy, len,
						  NULL);
		} while (op_again(&op, &err));
		ck_ok(op_end(&op, err));
	}
}

static void uncrowd(const struct key *base, unsigned i)
{
	struct key k = KEY(base->obj, base->type, base->off | i);
	struct op op;
	int err;

	ck_ok(op_write(&op, store, ALLOC_NORMAL, 1));
	do {
		err = tree_prepare(&store->fs, &k);
		if (!err)
			err = tree_delete(&store->fs, &k);
	} while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
}

static void crowd_names(uint64_t dir, const char *name, unsigned from,
			unsigned to)
{
	struct key k = KEY(dir, COWFS_KEY_DIRENT,
			   name_hash(fs, name, strlen(name)));
	struct cowfs_disk_dirent e = { .ino = to_le64(COWFS_INO_MAX),
				       .type = DT_REG };
	uint8_t item[sizeof(e) + 2];

	memcpy(item, &e, sizeof(e));
	crowd(&k, from, to, item, sizeof(item), sizeof(e));
}

START_TEST(names_of_equal_hashes_live_together)
{
	uint64_t d = make_dir(ROOT, "d"), x;
	struct key k = KEY(d, COWFS_KEY_DIRENT, name_hash(fs, "x", 1));
	struct attr a;
	unsigned n = 0;

	crowd_names(d, "x", 0, 3);
	ck_err(look(d, "x", &a), -ENOENT);
	x = make_file(d, "x"); /* counter 3 */
	uncrowd(&k, 1);
	ck_assert_uint_eq(ino_of(d, "x"), x);
	ck_err(make_as(d, "x", S_IFREG, &root_cred, &a), -EEXIST);
	ck_ok(rename_it(d, "x", d, "y", 0));
	ck_ok(rename_it(d, "y", d, "x", 0)); /* counter 1 */
	ck_assert_uint_eq(ino_of(d, "x"), x);
	ck_ok(fs_readdir(fs, fs_live(fs), d, 0, false, take_entry, &n));
	ck_assert_uint_eq(n, 2 + 3);
	ck_ok(unlink_it(d, "x"));
	ck_err(look(d, "x", &a), -ENOENT);
	crowd_names(d, "x", 3, 256);
	uncrowd(&k, 255);
	x = make_file(d, "x"); /* counter 1 again */
	crowd_names(d, "x", 255, 256);
	ck_assert_uint_eq(ino_of(d, "x"), x);
	ck_ok(rename_it(d, "x", d, "y", 0));
	crowd_names(make_dir(ROOT, "e"), "x", 0, 256);
	ck_err(make_as(ino_of(ROOT, "e"), "x", S_IFREG, &root_cred, &a),
	       -ENOSPC);
	ck_err(rename_it(d, "y", ino_of(ROOT, "e"), "x", 0), -ENOSPC);
	ck_err(link_it(x, ino_of(ROOT, "e"), "x"), -ENOSPC);
	ck_assert(!store_stopped(store));
}
END_TEST

START_TEST(xattrs_of_equal_hashes_live_together)
{
	uint64_t f = make_file(ROOT, "f");
	struct key k = KEY(f, COWFS_KEY_XATTR, name_hash(fs, "user.x", 6));
	struct cowfs_disk_xattr x = { .name_len = 7 };
	uint8_t item[sizeof(x) + 7], val[5000] = { 7 };
	char buf[5000];
	size_t len;

	memcpy(item, &x, sizeof(x));
	memcpy(item + sizeof(x), "user.??", 7);
	crowd(&k, 0, 3, item, sizeof(item), sizeof(x) + 5);
	ck_err(fs_getxattr(fs, fs_live(fs), f, "user.x", NULL, 0, &len),
	       -ENODATA);
	ck_ok(fs_setxattr(fs, f, "user.x", val, 5000, 0, &root_cred));
	uncrowd(&k, 1);
	ck_ok(fs_getxattr(fs, fs_live(fs), f, "user.x", buf, 5000, &len));
	ck_assert_uint_eq(len, 5000);
	ck_assert_mem_eq(buf, val, 5000);
	ck_ok(fs_setxattr(fs, f, "user.x", "short", 5, XATTR_REPLACE,
			  &root_cred));
	ck_ok(fs_listxattr(fs, fs_live(fs), f, buf, 5000, &len));
	ck_assert_uint_eq(len, 8 + 8 + 7);
	ck_ok(fs_removexattr(fs, f, "user.x"));
	ck_err(fs_removexattr(fs, f, "user.x"), -ENODATA);
	crowd(&k, 1, 2, item, sizeof(item), sizeof(x) + 5);
	crowd(&k, 3, 256, item, sizeof(item), sizeof(x) + 5);
	ck_err(fs_setxattr(fs, f, "user.x", "1", 1, 0, &root_cred), -ENOSPC);
	uncrowd(&k, 200);
	ck_ok(fs_setxattr(fs, f, "user.x", "1", 1, 0, &root_cred));
	ck_ok(fs_getxattr(fs, fs_live(fs), f, "user.x", buf, 9, &len));
	ck_assert(!store_stopped(store));
}
END_TEST

static void populate(void)
{
	uint64_t d = make_dir(ROOT, "d"), f = make_file(d, "f");
	struct attr a;
	uint8_t val[3000] = { 1 };

	make_dir(d, "e");
	ck_ok(link_it(f, ROOT, "f2"));
	ck_ok(fs_create(fs, d, "l", 1, S_IFLNK, 0, "target", &root_cred, &a));
	ck_ok(fs_setxattr(fs, f, "user.a", "1", 1, 0, &root_cred));
	ck_ok(fs_setxattr(fs, f, "user.b", val, 3000, 0, &root_cred));
	ck_ok(fs_write(fs, f, 0, val, sizeof(val), 0));
	ck_ok(fs_write(fs, make_file(d, "g"), 100000, val, 1, 0));
	ck_ok(fs_tmpfile(fs, ROOT, 0600, &root_cred, &a));
}

/* A random item of the file tree gets a random byte somewhere. */
static void damage(struct rng *r)
{
	uint8_t byte = (uint8_t)rng_next(r);
	unsigned pick = (unsigned)rng_below(r, 40), i = 0;
	struct key k = KEY_MIN, at = KEY_MIN;
	uint32_t len = 0;
	struct cursor c;
	struct op op;
	int err;

	op_read(&op, store);
	do
		for (err = cursor_ceil(&c, &store->fs, &k); !err && i <= pick;
		     err = cursor_next(&c), i++) {
			at = c.key;
			len = c.item.len;
		}
	while (op_again(&op, &err));
	err = op_end(&op, err == -ENOENT ? 0 : err);
	ck_ok(err);
	if (len)
		poke(&at, (uint32_t)rng_below(r, len), &byte, 1);
}

static void try_everything(void)
{
	static const char *const names[] = { "d", "e", "f", "f2", "g", "l" };
	char buf[5000];
	struct attr a;
	uint64_t ino;
	size_t len;
	unsigned i;
	int err = 0;

	for (ino = COWFS_INO_FIRST; ino < COWFS_INO_FIRST + 8; ino++) {
		len = sizeof(buf);
		err |= fs_getattr(fs, fs_live(fs), ino, &a);
		err |= fs_readlink(fs, fs_live(fs), ino, buf, &len);
		err |= fs_listxattr(fs, fs_live(fs), ino, buf, 5000, &len);
		err |= fs_getxattr(fs, fs_live(fs), ino, "user.b", buf, 5000,
				   &len);
		err |= fs_setxattr(fs, ino, "user.b", buf, 4000, 0,
				   &root_cred);
		err |= fs_removexattr(fs, ino, "user.a");
		err |= fs_readdir(fs, fs_live(fs), ino, 0, true,
				  take_entry, NULL);
		err |= set_attr(ino, FS_SET_MODE, (struct attr){ .mode = 0 },
				&root_cred);
		err |= fs_read(fs, fs_live(fs), ino, 0, buf, 5000, &len);
	}
	for (i = 0; i < 36; i++) {
		err |= rename_it(i % 2 ? ROOT : COWFS_INO_FIRST, names[i / 6],
				 i % 3 ? ROOT : COWFS_INO_FIRST + 2,
				 names[i % 6], i % 5 ? 0 : RENAME_EXCHANGE);
		err |= link_it(COWFS_INO_FIRST + i % 8, ROOT, names[i / 6]);
		err |= make_as(COWFS_INO_FIRST, names[i / 6], S_IFDIR,
			       &root_cred, &a);
	}
	for (i = 0; i < 24; i++) {
		ino = COWFS_INO_FIRST - i % 4 + 2;
		ino = i % 4 ? ino : ROOT;
		err |= unlink_it(ino, names[i / 4]);
		err |= rmdir_it(ino, names[i / 4]);
	}
	fs_unref(fs, COWFS_INO_FIRST, 1);
	err |= store_drain(store);
	(void)err; /* any error will do, as long as it is one */
}

START_TEST(damaged_items_never_crash)
{
	unsigned i, j, n = test_rounds(400);
	struct rng r;
	int err;

	rng_init(&r, test_seed(), 11);
	for (i = 0; i < n; i++) {
		undamaged_image();
		populate();
		for (j = 0; j <= rng_below(&r, 4); j++)
			damage(&r);
		fs_umount(fs);
		fs = NULL;
		err = fs_mount(store, &(struct fs_options){ 0 }, &fs);
		if (!err)
			try_everything();
		close_damaged();
	}
}
END_TEST

/* Nothing would be durable any more, and nobody be told. */
START_TEST(a_store_that_cannot_commit_stops)
{
	static const uint8_t zeros[MIB];
	uint64_t a = make_file(ROOT, "a"), b = make_file(ROOT, "b"), copied;
	struct nptr root;
	struct attr at;

	ck_ok(fs_write(fs, a, 0, zeros, 65536, 0));
	ck_ok(fs_copy_range(fs, fs_live(fs), a, 0, b, 0, 65536, &copied));
	remount();
	root = store->refs.root;
	ck_ok(bdev_write(dev, root.blk * 4096, zeros, 4096));
	ck_ok(unlink_it(ROOT, "b"));
	ck_assert(store_commit(store, NULL, NULL) < 0);
	ck_assert(store_stopped(store));
	ck_err(make_as(ROOT, "c", S_IFREG | 0644, &root_cred, &at), -EROFS);
	ck_ok(look(ROOT, "a", &at));
}
END_TEST

static TCase *damage_case(void)
{
	TCase *tc = tcase_create("damage");

	tcase_add_checked_fixture(tc, undamaged_image, close_damaged);
	tcase_add_test(tc, a_store_that_cannot_commit_stops);
	tcase_add_test(tc, circle_of_directories_is_found);
	tcase_add_test(tc, impossible_inodes_are_reported);
	tcase_add_test(tc, names_of_equal_hashes_live_together);
	tcase_add_test(tc, xattrs_of_equal_hashes_live_together);
	return tc;
}

/* ---- restoring ---- */

#define ORPHANS 400u /* in several leaves */

static uint64_t an_orphan;

/* A snapshot of open files without names. */
static void image_with_orphans(void)
{
	uint64_t ino[ORPHANS];

	make(32 * MIB, 4096);
	for (unsigned i = 0; i < ORPHANS; i++) {
		ino[i] = make_file(ROOT, "f");
		ck_ok(fs_open(fs, ino[i], false, false));
		ck_ok(unlink_it(ROOT, "f"));
	}
	an_orphan = ino[ORPHANS - 1];
	ck_ok(snap_create(store, "s", NULL));
	for (unsigned i = 0; i < ORPHANS; i++)
		fs_release(fs, ino[i], false, NULL);
	make_file(ROOT, "new");
	ck_ok(store_drain(store));
	umount_it();
}

static void drop_image(void)
{
	bdev_close(dev);
}

/* The n-th read of a restore fails. false: there are fewer. */
static bool restore_with_bad_read(unsigned n)
{
	struct bdev *over, *bad;
	unsigned rule;
	struct attr a;
	bool hit, replaced;
	int err, after;

	ck_ok(overlay_open(dev, &over));
	ck_ok(fault_open(over, &bad));
	ck_ok(test_mount(bad, 0, 0, &store, &fs));
	rule = fault_nth(bad, FAULT_READ, n, -EIO);
	err = fs_restore(fs, "s", NULL, &replaced);
	hit = fault_hits(bad, rule);
	fault_clear(bad);
	ck_assert(replaced == !err);
	ck_err(look(ROOT, "new", &a), err ? 0 : -ENOENT);
	if (!err) {
		ck_ok(store_drain(store));
		ck_err(fs_getattr(fs, fs_live(fs), an_orphan, &a), -ESTALE);
	}
	fs_umount(fs);
	after = store_close(store);
	ck_assert(err || !after);
	bdev_close(bad);
	bdev_close(over);
	return hit;
}

START_TEST(a_restore_is_done_or_has_failed)
{
	unsigned n = 1;

	test_log_hide();
	while (restore_with_bad_read(n))
		n++;
	test_log_show();
	ck_assert_uint_gt(n, 5);
}
END_TEST

/* Both copies of the node that a snapshot begins with are gone. The live tree,
 * of which all has been copied since, stays. */
START_TEST(a_tree_that_cannot_be_read_is_not_restored)
{
	static const uint8_t zeros[4096];
	struct snap_info info;
	struct attr a;
	bool replaced;

	mount_it();
	ck_ok(snap_find(store, "s", &info));
	umount_it();
	ck_ok(bdev_write(dev, info.root.blk * 4096, zeros, 4096));
	if (info.root.blk2)
		ck_ok(bdev_write(dev, info.root.blk2 * 4096, zeros, 4096));
	test_log_hide();
	mount_it();
	ck_assert(fs_restore(fs, "s", NULL, &replaced) < 0);
	ck_assert(!replaced);
	ck_ok(look(ROOT, "new", &a));
	remount();
	ck_ok(look(ROOT, "new", &a));
	umount_it();
	test_log_show();
}
END_TEST

/* ... nor one that has no root directory. */
START_TEST(a_tree_without_a_root_is_not_restored)
{
	struct key root = KEY(ROOT, COWFS_KEY_INODE, 0);
	struct attr a;
	bool replaced;

	mount_it();
	uncrowd(&root, 0);
	ck_ok(snap_create(store, "empty", NULL));
	ck_ok(fs_restore(fs, "s", NULL, &replaced));
	ck_err(fs_restore(fs, "empty", NULL, &replaced), -ECOW_CORRUPT);
	ck_assert(!replaced);
	ck_err(look(ROOT, "new", &a), -ENOENT);
	remount();
	umount_it();
}
END_TEST

static TCase *restore_case(void)
{
	TCase *tc = tcase_create("restore");

	tcase_add_checked_fixture(tc, image_with_orphans, drop_image);
	tcase_add_test(tc, a_restore_is_done_or_has_failed);
	tcase_add_test(tc, a_tree_that_cannot_be_read_is_not_restored);
	tcase_add_test(tc, a_tree_without_a_root_is_not_restored);
	return tc;
}

static TCase *fuzz_case(void)
{
	TCase *tc = tcase_create("fuzz");

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, damaged_items_never_crash);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("fs damage");

	suite_add_tcase(s, damage_case());
	suite_add_tcase(s, restore_case());
	suite_add_tcase(s, fuzz_case());
	return test_main(s);
}
