/*
 * test_fs_inodes.c - inodes: orphans, references, attributes, views, restores
 */
#include <stdio.h> /* RENAME_* */

#include "unit/fs_fixture.h"

/* ---- orphans and references ---- */

START_TEST(unlinked_file_lives_while_it_is_open)
{
	struct attr a;
	uint64_t f = make_file(ROOT, "f"), ino = 0;

	ck_ok(fs_ref(fs, f));
	ck_ok(fs_open(fs, f, true, false));
	ck_ok(fs_unlink(fs, ROOT, "f", 1, &ino));
	ck_assert_uint_eq(ino, f);
	ck_assert_uint_eq(attr_of(f).nlink, 0);
	ck_ok(fs_write(fs, f, 0, "hello", 5, 0));
	ck_err(link_it(f, ROOT, "again"), -ENOENT);
	fs_release(fs, f, true, NULL);
	ck_assert_uint_eq(attr_of(f).nlink, 0);
	fs_unref(fs, f, 1);
	ck_ok(store_drain(store));
	ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ESTALE);
	ck_err(fs_open(fs, f, false, false), -ESTALE);
}
END_TEST

START_TEST(orphans_of_a_crash_go_at_the_next_mount)
{
	uint64_t before = free_blocks(), f = make_file(ROOT, "f");
	char *buf = calloc(1, MIB);
	struct attr a;
	unsigned i;

	for (i = 0; i < 4; i++)
		ck_ok(fs_write(fs, f, 2 * i * MIB, buf, MIB, 0));
	free(buf);
	ck_ok(fs_open(fs, f, false, false));
	ck_ok(unlink_it(ROOT, "f"));
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	mount_it();
	ck_assert_uint_eq(attr_of(f).nlink, 0);
	ck_assert_uint_eq(free_blocks(), before);
	ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ESTALE);
}
END_TEST

START_TEST(removed_directory_stays_for_whoever_stands_in_it)
{
	uint64_t d = make_dir(ROOT, "d");
	struct attr a;

	ck_ok(fs_ref(fs, d));
	ck_ok(rmdir_it(ROOT, "d"));
	ck_assert_uint_eq(attr_of(d).nlink, 0);
	ck_err(make_as(d, "f", S_IFREG, &root_cred, &a), -ENOENT);
	ck_err(rename_it(ROOT, "none", d, "x", 0), -ENOENT);
	ck_err(link_it(make_file(ROOT, "f"), d, "f"), -ENOENT);
	ck_err(rename_it(ROOT, "f", d, "f", 0), -ENOENT);
	ck_ok(look(d, "..", &a));
	fs_unref(fs, d, 1);
	ck_ok(store_drain(store));
	ck_err(fs_getattr(fs, fs_live(fs), d, &a), -ESTALE);
}
END_TEST

START_TEST(removed_pipe_stays_for_whoever_has_it_open)
{
	static const uint32_t kinds[] = { S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK };
	struct attr a, b;
	unsigned i;

	/* The kernel opens these itself: what is known is its reference. */
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		ck_ok(make_as(ROOT, "p", kinds[i] | 0600, &root_cred, &a));
		ck_ok(fs_ref(fs, a.ino));
		ck_ok(unlink_it(ROOT, "p"));
		ck_assert_uint_eq(attr_of(a.ino).nlink, 0);
		/* ... but not for who comes with its number (a handle) */
		ck_err(look(a.ino, ".", &b), -ESTALE);
		fs_unref(fs, a.ino, 1);
		ck_ok(store_drain(store));
		ck_err(fs_getattr(fs, fs_live(fs), a.ino, &b), -ESTALE);
	}
}
END_TEST

START_TEST(file_with_many_extents_goes_in_steps)
{
	uint64_t before, f;
	struct attr a;
	unsigned i;

	before = free_blocks();
	f = make_file(ROOT, "f");
	for (i = 0; i < 300; i++)
		ck_ok(fs_write(fs, f, i * UINT64_C(8192), "x", 1, 0));
	ck_ok(unlink_it(ROOT, "f"));
	ck_assert_uint_eq(attr_of(f).nlink, 0); /* too much for one step */
	ck_assert_uint_eq(free_blocks(), before);
	ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ESTALE);
}
END_TEST

START_TEST(small_file_is_gone_with_its_name)
{
	uint64_t f = make_file(ROOT, "f");
	struct attr a;

	ck_ok(fs_write(fs, f, 0, "small", 5, 0));
	ck_ok(fs_setxattr(fs, f, "user.a", "1", 1, 0, &root_cred));
	ck_ok(unlink_it(ROOT, "f"));
	ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ESTALE);
}
END_TEST

START_TEST(tmpfile_waits_for_its_maker_and_may_get_a_name)
{
	struct attr a, b;

	ck_ok(fs_tmpfile(fs, ROOT, 0600, &user_cred, &a));
	ck_ok(fs_tmpfile(fs, ROOT, 0600, &user_cred, &b));
	ck_assert_uint_eq(a.nlink, 0);
	ck_ok(store_drain(store));
	ck_ok(fs_ref(fs, a.ino));
	ck_ok(fs_open(fs, a.ino, true, false));
	ck_ok(fs_ref(fs, b.ino));
	ck_ok(fs_write(fs, a.ino, 0, "x", 1, 0));
	ck_ok(link_it(a.ino, ROOT, "named"));
	ck_assert_uint_eq(attr_of(a.ino).nlink, 1);
	fs_release(fs, a.ino, true, NULL);
	fs_unref(fs, a.ino, 1);
	fs_unref(fs, b.ino, 1);
	ck_ok(store_drain(store));
	ck_assert_uint_eq(ino_of(ROOT, "named"), a.ino);
	ck_err(fs_getattr(fs, fs_live(fs), b.ino, &b), -ESTALE);
	/* it is an ordinary file now: removed while open, it gets no name */
	ck_ok(fs_open(fs, a.ino, true, false));
	ck_ok(unlink_it(ROOT, "named"));
	ck_err(link_it(a.ino, ROOT, "again"), -ENOENT);
	fs_release(fs, a.ino, true, NULL);
}
END_TEST

START_TEST(last_writer_is_told_apart)
{
	uint64_t f = make_file(ROOT, "f");
	bool last;

	ck_ok(fs_open(fs, f, true, false));
	ck_ok(fs_open(fs, f, true, false));
	ck_ok(fs_open(fs, f, false, false));
	fs_release(fs, f, true, &last);
	ck_assert(!last);
	fs_release(fs, f, true, &last);
	ck_assert(last);
	fs_release(fs, f, false, &last);
	ck_assert(!last);
}
END_TEST

struct seen { unsigned n, open; uint64_t sum; };

static void count(void *arg, uint64_t ino, bool open)
{
	struct seen *s = arg;

	s->n++;
	s->open += open;
	s->sum += ino;
}

static void see(void *arg, uint64_t ino, bool open)
{
	count(arg, ino, open);
	/* the list may change under the walk */
	fs_release(fs, ino, true, NULL);
	fs_unref(fs, ino, 1);
}

START_TEST(writers_and_references_are_listed)
{
	struct seen s = { 0 };
	uint64_t sum = 0, f;
	unsigned i;
	char name[16];

	for (i = 0; i < 3000; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		f = make_file(ROOT, name);
		ck_ok(fs_ref(fs, f));
		if (i % 3 == 0) {
			ck_ok(fs_open(fs, f, true, false));
			sum += f;
		} else {
			ck_ok(fs_open(fs, f, false, false));
			fs_release(fs, f, false, NULL);
		}
		if (i % 9 == 0) { /* and once more, by another */
			ck_ok(fs_open(fs, f, true, false));
			fs_release(fs, f, true, NULL);
		}
	}
	fs_each_writer(fs, count, &s);
	ck_assert_uint_eq(s.n, 1000);
	ck_assert_uint_eq(s.open, 1000);
	ck_assert_uint_eq(s.sum, sum);
	s = (struct seen){ 0 };
	fs_each_ref(fs, see, &s);
	ck_assert_uint_eq(s.n, 3000);
	ck_assert_uint_eq(s.open, 1000);
	s.n = 0;
	fs_each_ref(fs, see, &s);
	fs_each_writer(fs, count, &s);
	ck_assert_uint_eq(s.n, 0);
}
END_TEST

START_TEST(references_end_with_a_restore_and_handles_stay)
{
	uint64_t f = make_file(ROOT, "f"), g = make_file(ROOT, "g");
	struct seen s = { 0 };

	ck_ok(fs_ref(fs, f));
	ck_ok(fs_ref(fs, g));
	ck_ok(fs_open(fs, g, true, false));
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_restore(fs, "s", NULL, NULL));
	fs_each_ref(fs, see, &s);
	ck_assert_uint_eq(s.n, 0);
	ck_ok(fs_ref(fs, g));
	fs_each_ref(fs, see, &s);
	ck_assert_uint_eq(s.n, 1);
	ck_assert_uint_eq(s.open, 1);
}
END_TEST

START_TEST(unmounting_stops_the_removal_of_orphans)
{
	uint64_t before = free_blocks(), f = make_file(ROOT, "f");
	unsigned i;

	for (i = 0; i < 3000; i++)
		ck_ok(fs_write(fs, f, i * UINT64_C(8192), "x", 1, 0));
	ck_ok(fs_open(fs, f, false, false));
	ck_ok(unlink_it(ROOT, "f"));
	ck_ok(store_start(store));
	fs_release(fs, f, false, NULL);
	umount_it(); /* somewhere in the middle of it */
	test_check_device(dev);
	mount_it();
	ck_assert_uint_eq(free_blocks(), before);
}
END_TEST

/* ---- setattr, flags ---- */

START_TEST(chmod_and_chown_follow_the_set_id_rules)
{
	uint64_t f = make_file(ROOT, "f");

	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 06755 },
		       &root_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 06755);
	ck_ok(set_attr(f, FS_SET_UID, (struct attr){ .uid = 5 }, &root_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0755);
	/* set-gid without group execute means locking: root keeps it */
	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 06644 },
		       &root_cred));
	ck_ok(set_attr(f, FS_SET_GID, (struct attr){ .gid = 5 }, &root_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 02644);
	/* the mode given in the same call is meant */
	ck_ok(set_attr(f, FS_SET_GID | FS_SET_MODE,
		       (struct attr){ .gid = 6, .mode = 06755 }, &root_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 06755);
	ck_assert_uint_eq(attr_of(f).gid, 6);
	ck_ok(set_attr(f, FS_SET_KILL_PRIV, (struct attr){ .mode = 0 },
		       &user_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0755);
	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 02755 },
		       &user_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0755);
}
END_TEST

START_TEST(setattr_with_a_size_does_the_rest_too)
{
	uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");
	struct attr set = { .size = 10000, .mode = 0600,
			    .mtime = { 77, 5 } };
	struct attr a;

	ck_ok(fs_setattr(fs, f, FS_SET_SIZE | FS_SET_MODE | FS_SET_MTIME, &set,
			 &root_cred, &a));
	ck_assert_uint_eq(a.size, 10000);
	ck_assert_uint_eq(a.mode, S_IFREG | 0600);
	ck_assert_int_eq(a.mtime.sec, 77);
	ck_ok(fs_setattr(fs, f, FS_SET_SIZE, &(struct attr){ .size = 3 },
			 &root_cred, &a));
	ck_assert_uint_eq(a.size, 3);
	ck_assert_int_ne(a.mtime.sec, 77);
	ck_err(set_attr(d, FS_SET_SIZE, set, &root_cred), -EISDIR);
	set.size = (uint64_t)1 << 63;
	ck_err(set_attr(f, FS_SET_SIZE, set, &root_cred), -EFBIG);
}
END_TEST

static int set_flags(uint64_t ino, uint32_t flags, const struct cred *cred)
{
	return set_attr(ino, FS_SET_FLAGS, (struct attr){ .flags = flags },
			cred);
}

START_TEST(immutable_files_do_not_change)
{
	uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");
	struct attr a = { .mode = 0600 };

	make_file(d, "x");
	ck_err(set_flags(f, COWFS_INODE_IMMUTABLE, &user_cred), -EPERM);
	ck_ok(set_flags(f, COWFS_INODE_IMMUTABLE, &root_cred));
	ck_ok(set_flags(d, COWFS_INODE_IMMUTABLE, &root_cred));
	ck_assert_uint_eq(attr_of(f).flags, COWFS_INODE_IMMUTABLE);
	ck_err(unlink_it(ROOT, "f"), -EPERM);
	ck_err(link_it(f, ROOT, "g"), -EPERM);
	ck_err(rename_it(ROOT, "f", ROOT, "g", 0), -EPERM);
	make_file(ROOT, "h");
	ck_err(rename_it(ROOT, "h", ROOT, "f", 0), -EPERM);
	ck_err(rename_it(ROOT, "h", ROOT, "f", RENAME_EXCHANGE), -EPERM);
	ck_err(set_attr(f, FS_SET_MODE, a, &root_cred), -EPERM);
	ck_err(set_attr(f, FS_SET_SIZE, a, &root_cred), -EPERM);
	ck_err(set_attr(f, FS_SET_MTIME_NOW, a, &root_cred), -EPERM);
	ck_err(fs_setxattr(fs, f, "user.x", "1", 1, 0, &root_cred), -EPERM);
	ck_err(fs_open(fs, f, true, false), -EPERM);
	ck_ok(fs_open(fs, f, false, false));
	fs_release(fs, f, false, NULL);
	ck_err(make_as(d, "y", S_IFREG, &root_cred, &a), -EPERM);
	ck_err(unlink_it(d, "x"), -EPERM);
	ck_err(rename_it(d, "x", ROOT, "x", 0), -EPERM);
	ck_err(rename_it(ROOT, "h", d, "h", 0), -EPERM);
	ck_err(link_it(ino_of(ROOT, "h"), d, "h"), -EPERM);
	ck_err(fs_tmpfile(fs, d, 0600, &root_cred, &a), -EPERM);
	ck_err(rmdir_it(ROOT, "d"), -EPERM);
	ck_err(set_flags(f, 0x40000000, &root_cred), -EOPNOTSUPP);
	ck_ok(set_flags(f, 0, &root_cred));
	ck_ok(unlink_it(ROOT, "f"));
}
END_TEST

START_TEST(append_only_grows_and_nothing_else)
{
	uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");
	struct attr a = { .mode = 0600, .mtime = { 5, 5 } };

	make_file(d, "x");
	ck_ok(set_flags(f, COWFS_INODE_APPEND, &root_cred));
	ck_ok(set_flags(d, COWFS_INODE_APPEND, &root_cred));
	ck_err(fs_open(fs, f, true, false), -EPERM);
	ck_ok(fs_open(fs, f, true, true));
	fs_release(fs, f, true, NULL);
	ck_err(unlink_it(ROOT, "f"), -EPERM);
	ck_err(set_attr(f, FS_SET_MODE, a, &root_cred), -EPERM);
	ck_err(set_attr(f, FS_SET_SIZE, a, &root_cred), -EPERM);
	ck_err(set_attr(f, FS_SET_ATIME | FS_SET_MTIME, a, &root_cred),
	       -EPERM);
	ck_ok(set_attr(f, FS_SET_MTIME_NOW, a, &root_cred));
	make_file(d, "y");
	ck_err(unlink_it(d, "x"), -EPERM);
	ck_err(rename_it(d, "x", d, "z", 0), -EPERM);
	make_file(ROOT, "h");
	ck_err(rename_it(ROOT, "h", d, "x", 0), -EPERM);
	ck_ok(rename_it(ROOT, "h", d, "h", 0));
}
END_TEST

/* They come as somebody's utimensat(2) of mtime alone does. */
START_TEST(locked_files_take_times_that_are_written_back)
{
	const unsigned what = FS_SET_MTIME | FS_SET_CTIME;
	const uint32_t flags[] = { COWFS_INODE_APPEND, COWFS_INODE_IMMUTABLE };
	uint64_t f = make_file(ROOT, "f");
	struct attr now = attr_of(f), a;

	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		ck_ok(fs_open(fs, f, true, false));
		ck_ok(set_flags(f, flags[i], &root_cred));
		now.mtime.sec++;
		a = (struct attr){ .mtime = now.mtime, .ctime = now.mtime };
		ck_ok(set_attr(f, what, a, &root_cred));
		ck_assert_int_eq(attr_of(f).mtime.sec, now.mtime.sec);
		a.mtime.sec -= 10; /* not back */
		ck_ok(set_attr(f, what, a, &root_cred));
		ck_assert_int_eq(attr_of(f).mtime.sec, now.mtime.sec);
		a.mtime.sec += 20; /* nor beyond now */
		ck_ok(set_attr(f, what, a, &root_cred));
		ck_assert_int_eq(attr_of(f).mtime.sec, now.mtime.sec);
		fs_release(fs, f, true, NULL);
		ck_err(set_attr(f, what, a, &root_cred), -EPERM);
		ck_ok(set_flags(f, 0, &root_cred));
	}
}
END_TEST

START_TEST(read_only_mount_refuses_every_change)
{
	struct fs_options opt = { .readonly = true };
	uint64_t f = make_file(ROOT, "f");
	struct attr a = { .mode = 0600 };

	umount_it();
	mount_with(&opt, 0);
	ck_err(make_as(ROOT, "g", S_IFREG, &root_cred, &a), -EROFS);
	ck_err(fs_tmpfile(fs, ROOT, 0600, &root_cred, &a), -EROFS);
	ck_err(unlink_it(ROOT, "f"), -EROFS);
	ck_err(link_it(f, ROOT, "g"), -EROFS);
	ck_err(rename_it(ROOT, "f", ROOT, "g", 0), -EROFS);
	ck_err(set_attr(f, FS_SET_MODE, a, &root_cred), -EROFS);
	ck_err(set_attr(f, FS_SET_SIZE, a, &root_cred), -EROFS);
	ck_err(fs_setxattr(fs, f, "user.x", "1", 1, 0, &root_cred), -EROFS);
	ck_err(fs_open(fs, f, true, false), -EROFS);
	ck_err(fs_restore(fs, "x", NULL, NULL), -EROFS);
	ck_err(fs_snap_delete(fs, "x"), -EROFS);
	ck_assert_uint_eq(ino_of(ROOT, "f"), f);
}
END_TEST

START_TEST(full_filesystem_still_lets_files_go)
{
	uint64_t d, before;
	struct attr a;
	char name[300];
	unsigned i, n;
	int err = 0;

	umount_it();
	bdev_close(dev);
	make(COWFS_MIN_BLOCKS * COWFS_BLOCK_SIZE, 4096);
	before = free_blocks();
	d = make_dir(ROOT, "d");
	for (n = 0; !err; n++) {
		memset(name, 'x', 240);
		snprintf(name + 240, 32, "%u", n);
		err = make_as(d, name, S_IFREG, &root_cred, &a);
	}
	ck_err(err, -ENOSPC);
	ck_assert_uint_gt(n, 5000);
	ck_ok(set_attr(d, FS_SET_MTIME_NOW, a, &root_cred));
	for (i = 0; i < n - 1; i++) {
		memset(name, 'x', 240);
		snprintf(name + 240, 32, "%u", i);
		ck_ok(unlink_it(d, name));
	}
	ck_ok(rmdir_it(ROOT, "d"));
	ck_assert_uint_eq(free_blocks(), before);
}
END_TEST

/* ---- snapshots ---- */

START_TEST(views_show_snapshots_until_they_are_deleted)
{
	uint64_t f = make_file(ROOT, "f");
	struct view *v, *w;
	struct attr a;

	ck_ok(snap_create(store, "s", NULL));
	ck_ok(unlink_it(ROOT, "f"));
	make_file(ROOT, "g");
	ck_err(fs_view_open(fs, "none", &v), -ENOENT);
	ck_ok(fs_view_open(fs, "s", &v));
	ck_ok(fs_view_open(fs, "s", &w));
	ck_assert_ptr_eq(v, w);
	ck_assert_uint_ne(view_snap_id(v), 0);
	ck_ok(fs_lookup(fs, v, ROOT, "f", 1, &a));
	ck_assert_uint_eq(a.ino, f);
	ck_err(fs_lookup(fs, v, ROOT, "g", 1, &a), -ENOENT);
	fs_view_put(fs, w);
	ck_err(fs_snap_delete(fs, "none"), -ENOENT);
	ck_ok(fs_snap_delete(fs, "s"));
	ck_err(fs_lookup(fs, v, ROOT, "f", 1, &a), -ESTALE);
	ck_err(fs_getattr(fs, v, ROOT, &a), -ESTALE);
	/* a new one of the same name is another */
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_view_open(fs, "s", &w));
	ck_assert_ptr_ne(v, w);
	ck_ok(fs_lookup(fs, w, ROOT, "g", 1, &a));
	fs_view_put(fs, v);
	fs_view_put(fs, w);
}
END_TEST

START_TEST(restore_brings_back_names_and_forgets_new_ones)
{
	uint64_t f = make_file(ROOT, "f"), g, h;
	struct attr a;

	ck_ok(snap_create(store, "s", NULL));
	g = make_file(ROOT, "g");
	ck_ok(fs_ref(fs, g));
	ck_ok(fs_open(fs, g, true, false));
	ck_ok(unlink_it(ROOT, "f"));
	ck_err(fs_restore(fs, "none", NULL, NULL), -ENOENT);
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO, NULL));
	ck_assert_uint_eq(ino_of(ROOT, "f"), f);
	ck_err(look(ROOT, "g", &a), -ENOENT);
	ck_err(fs_getattr(fs, fs_live(fs), g, &a), -ESTALE);
	ck_err(fs_write(fs, g, 0, "x", 1, 0), -ESTALE);
	fs_release(fs, g, true, NULL);
	fs_unref(fs, g, 1);
	h = make_file(ROOT, "h");
	ck_assert_uint_gt(h, g);
	ck_ok(fs_restore(fs, COWFS_SNAP_UNDO, COWFS_SNAP_UNDO, NULL));
	ck_assert_uint_eq(ino_of(ROOT, "g"), g);
	ck_err(look(ROOT, "f", &a), -ENOENT);
	ck_err(look(ROOT, "h", &a), -ENOENT);
}
END_TEST

START_TEST(orphans_follow_a_restore)
{
	uint64_t before = free_blocks(), f = make_file(ROOT, "f"), g;
	struct attr a;

	g = make_file(ROOT, "g");
	ck_ok(fs_open(fs, f, true, false));
	ck_ok(fs_open(fs, g, true, false));
	ck_ok(unlink_it(ROOT, "f"));
	ck_ok(unlink_it(ROOT, "g"));
	ck_ok(snap_create(store, "s", NULL)); /* holds two orphans */
	fs_release(fs, g, true, NULL);
	ck_ok(store_drain(store));
	ck_err(fs_getattr(fs, fs_live(fs), g, &a), -ESTALE);
	ck_ok(fs_restore(fs, "s", NULL, NULL));
	ck_ok(store_drain(store));
	/* g is back and goes again; f is still open */
	ck_err(fs_getattr(fs, fs_live(fs), g, &a), -ESTALE);
	ck_assert_uint_eq(attr_of(f).nlink, 0);
	fs_release(fs, f, true, NULL);
	ck_ok(store_drain(store));
	ck_err(fs_getattr(fs, fs_live(fs), f, &a), -ESTALE);
	ck_ok(fs_snap_delete(fs, "s"));
	ck_assert_uint_ge(free_blocks() + 2, before);
}
END_TEST

START_TEST(restore_over_undo_ends_views_of_the_old_one)
{
	struct view *v;
	struct attr a;

	make_file(ROOT, "f");
	ck_ok(snap_create(store, "s", NULL));
	make_file(ROOT, "g");
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO, NULL));
	ck_ok(fs_view_open(fs, COWFS_SNAP_UNDO, &v));
	ck_ok(fs_lookup(fs, v, ROOT, "g", 1, &a));
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO, NULL));
	ck_err(fs_lookup(fs, v, ROOT, "g", 1, &a), -ESTALE);
	fs_view_put(fs, v);
	ck_ok(fs_view_open(fs, COWFS_SNAP_UNDO, &v));
	ck_err(fs_lookup(fs, v, ROOT, "g", 1, &a), -ENOENT);
	ck_ok(fs_restore(fs, "s", NULL, NULL)); /* @undo stays */
	ck_ok(fs_lookup(fs, v, ROOT, "f", 1, &a));
	fs_view_put(fs, v);
}
END_TEST

START_TEST(snapshot_can_be_mounted_in_place_of_the_live_tree)
{
	struct fs_options opt = { .snapshot = "s" };
	struct attr a;

	make_file(ROOT, "f");
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(unlink_it(ROOT, "f"));
	umount_it();
	mount_with(&opt, 0);
	ck_ok(look(ROOT, "f", &a));
	ck_err(make_as(ROOT, "g", S_IFREG, &root_cred, &a), -EROFS);
	ck_err(unlink_it(ROOT, "f"), -EROFS);
	umount_it();
	mount_it();
	ck_err(look(ROOT, "f", &a), -ENOENT);
}
END_TEST

START_TEST(statfs_adds_up)
{
	struct fs_statfs s, t;
	char *buf = calloc(1, MIB);
	uint64_t f = make_file(ROOT, "f");

	ck_ok(fs_statfs(fs, &s));
	ck_assert_uint_eq(s.blocks, 64 * MIB / COWFS_BLOCK_SIZE);
	ck_assert(s.avail <= s.free && s.free < s.blocks);
	ck_assert(s.files > s.files_free && s.files_free > 1000);
	ck_ok(fs_write(fs, f, 0, buf, MIB, 0));
	ck_ok(fs_statfs(fs, &t));
	ck_assert_uint_ge(s.free - t.free, 256);
	ck_assert_uint_le(s.free - t.free, 300);
	free(buf);
}
END_TEST

/* ---- */

static void add_inodes(TCase *tc)
{
	tcase_add_test(tc, unlinked_file_lives_while_it_is_open);
	tcase_add_test(tc, orphans_of_a_crash_go_at_the_next_mount);
	tcase_add_test(tc, removed_directory_stays_for_whoever_stands_in_it);
	tcase_add_test(tc, removed_pipe_stays_for_whoever_has_it_open);
	tcase_add_test(tc, file_with_many_extents_goes_in_steps);
	tcase_add_test(tc, small_file_is_gone_with_its_name);
	tcase_add_test(tc, tmpfile_waits_for_its_maker_and_may_get_a_name);
	tcase_add_test(tc, last_writer_is_told_apart);
	tcase_add_test(tc, writers_and_references_are_listed);
	tcase_add_test(tc, references_end_with_a_restore_and_handles_stay);
	tcase_add_test(tc, chmod_and_chown_follow_the_set_id_rules);
	tcase_add_test(tc, setattr_with_a_size_does_the_rest_too);
	tcase_add_test(tc, immutable_files_do_not_change);
	tcase_add_test(tc, append_only_grows_and_nothing_else);
	tcase_add_test(tc, locked_files_take_times_that_are_written_back);
	tcase_add_test(tc, read_only_mount_refuses_every_change);
	tcase_add_test(tc, full_filesystem_still_lets_files_go);
	tcase_add_test(tc, views_show_snapshots_until_they_are_deleted);
	tcase_add_test(tc, restore_brings_back_names_and_forgets_new_ones);
	tcase_add_test(tc, orphans_follow_a_restore);
	tcase_add_test(tc, restore_over_undo_ends_views_of_the_old_one);
	tcase_add_test(tc,
		       snapshot_can_be_mounted_in_place_of_the_live_tree);
	tcase_add_test(tc, statfs_adds_up);
	tcase_add_test(tc, unmounting_stops_the_removal_of_orphans);
}

int main(void)
{
	Suite *s = suite_create("fs inodes");

	add_case(s, "inodes", setup, add_inodes);
	add_case(s, "inodes in small nodes", setup_small_nodes, add_inodes);
	return test_main(s);
}
