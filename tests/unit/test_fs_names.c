/*
 * test_fs_names.c - names, inodes, attributes, orphans, views, restores
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h> /* RENAME_* */
#include <sys/xattr.h>
#include <unistd.h>

#include "fs/private.h"
#include "unit/fs_fixture.h"

/* ---- creating and looking up ---- */

START_TEST(root_is_its_own_parent)
{
	struct attr a;

	ck_ok(look(ROOT, "..", &a));
	ck_assert_uint_eq(a.ino, ROOT);
	ck_ok(look(ROOT, ".", &a));
	ck_assert_uint_eq(a.ino, ROOT);
	ck_assert_uint_eq(a.nlink, 2);
	ck_assert(S_ISDIR(a.mode));
}
END_TEST

START_TEST(created_file_is_found_after_remount)
{
	struct attr a, b;

	ck_ok(make_as(ROOT, "file", S_IFREG | 0666, &user_cred, &a));
	ck_assert_uint_ge(a.ino, COWFS_INO_FIRST);
	ck_assert_uint_eq(a.mode, S_IFREG | 0644);
	ck_assert_uint_eq(a.uid, 1000);
	ck_assert_uint_eq(a.gid, 1000);
	ck_assert_uint_eq(a.nlink, 1);
	remount();
	ck_ok(look(ROOT, "file", &b));
	ck_assert_mem_eq(&a, &b, sizeof(a));
	ck_err(look(ROOT, "files", &b), -ENOENT);
	ck_err(look(a.ino, "x", &b), -ENOTDIR);
	ck_ok(look(a.ino, ".", &b));
	ck_err(look(99999, "x", &b), -ESTALE);
}
END_TEST

START_TEST(create_refuses_what_exists_and_bad_names)
{
	char name[257];
	struct attr a;

	make_file(ROOT, "f");
	ck_err(make_as(ROOT, "f", S_IFREG, &root_cred, &a), -EEXIST);
	ck_err(make_as(ROOT, "f", S_IFDIR, &root_cred, &a), -EEXIST);
	ck_err(make_as(ROOT, "", S_IFREG, &root_cred, &a), -EINVAL);
	ck_err(make_as(ROOT, ".", S_IFREG, &root_cred, &a), -EINVAL);
	ck_err(make_as(ROOT, "..", S_IFREG, &root_cred, &a), -EINVAL);
	ck_err(make_as(ROOT, "a/b", S_IFREG, &root_cred, &a), -EINVAL);
	ck_err(fs_create(fs, ROOT, "a\0b", 3, S_IFREG, 0, NULL, &root_cred,
			 &a), -EINVAL);
	ck_err(make_as(ROOT, "k", 0644, &root_cred, &a), -EINVAL);
	memset(name, 'n', 256);
	name[256] = 0;
	ck_err(make_as(ROOT, name, S_IFREG, &root_cred, &a), -ENAMETOOLONG);
	ck_err(look(ROOT, name, &a), -ENAMETOOLONG);
	name[255] = 0;
	ck_ok(make_as(ROOT, name, S_IFREG, &root_cred, &a));
	ck_assert_uint_eq(ino_of(ROOT, name), a.ino);
}
END_TEST

START_TEST(directories_count_entries_and_subdirectories)
{
	uint64_t d = make_dir(ROOT, "d");
	struct attr a;

	ck_assert_uint_eq(attr_of(ROOT).nlink, 3);
	ck_assert_uint_eq(attr_of(d).size, 0);
	make_dir(d, "sub");
	make_file(d, "file");
	a = attr_of(d);
	ck_assert_uint_eq(a.nlink, 3);
	ck_assert_uint_gt(a.size, 0);
	ck_err(rmdir_it(ROOT, "d"), -ENOTEMPTY);
	ck_ok(rmdir_it(d, "sub"));
	ck_assert_uint_eq(attr_of(d).nlink, 2);
	ck_ok(unlink_it(d, "file"));
	ck_assert_uint_eq(attr_of(d).size, 0);
	ck_ok(rmdir_it(ROOT, "d"));
	ck_assert_uint_eq(attr_of(ROOT).nlink, 2);
	ck_err(fs_getattr(fs, fs_live(fs), d, &a), -ESTALE);
}
END_TEST

START_TEST(special_files_keep_kind_and_device)
{
	static const uint32_t kinds[] = { S_IFCHR, S_IFBLK, S_IFIFO,
					  S_IFSOCK };
	struct attr a;
	char name[8];
	unsigned i;

	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		ck_ok(fs_create(fs, ROOT, name, 2, kinds[i] | 0600,
				259u << 20 | 77, NULL, &root_cred, &a));
	}
	remount();
	for (i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		ck_ok(look(ROOT, name, &a));
		ck_assert_uint_eq(a.mode, kinds[i] | 0600);
		ck_assert_uint_eq(a.rdev, i < 2 ? 259u << 20 | 77 : 0);
		ck_ok(unlink_it(ROOT, name));
	}
}
END_TEST

START_TEST(symlinks_of_every_length_read_back)
{
	static const size_t lens[] = { 1, 100, 986, 987, 988, 1974, 1975,
				       4000, 4095 };
	char target[4097], name[16], got[4096];
	uint64_t ino[ARRAY_SIZE(lens)];
	struct attr a;
	size_t i, len;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		memset(target, (int)('a' + i), sizeof(target));
		target[lens[i]] = 0;
		snprintf(name, sizeof(name), "l%zu", i);
		ck_ok(fs_create(fs, ROOT, name, strlen(name), S_IFLNK, 0,
				target, &user_cred, &a));
		ck_assert_uint_eq(a.mode, S_IFLNK | 0777);
		ck_assert_uint_eq(a.size, lens[i]);
		ino[i] = a.ino;
	}
	remount();
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		memset(target, (int)('a' + i), sizeof(target));
		len = sizeof(got);
		ck_ok(fs_readlink(fs, fs_live(fs), ino[i], got, &len));
		ck_assert_uint_eq(len, lens[i]);
		ck_assert_mem_eq(got, target, len);
		len = min_u64(7, lens[i]);
		ck_ok(fs_readlink(fs, fs_live(fs), ino[i], got, &len));
		ck_assert_uint_eq(len, min_u64(7, lens[i]));
	}
	target[4096] = 0;
	ck_err(fs_create(fs, ROOT, "long", 4, S_IFLNK, 0, target, &root_cred,
			 &a), -ENAMETOOLONG);
	ck_err(fs_create(fs, ROOT, "none", 4, S_IFLNK, 0, "", &root_cred, &a),
	       -ENOENT);
	len = sizeof(got);
	ck_err(fs_readlink(fs, fs_live(fs), ROOT, got, &len), -EINVAL);
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		snprintf(name, sizeof(name), "l%zu", i);
		ck_ok(unlink_it(ROOT, name));
	}
}
END_TEST

START_TEST(set_group_id_directories_hand_on_their_group)
{
	struct attr a, d;

	ck_ok(make_as(ROOT, "d", S_IFDIR | S_ISGID | 0777, &root_cred, &d));
	ck_ok(set_attr(d.ino, FS_SET_GID, (struct attr){ .gid = 55 },
		       &root_cred));
	ck_ok(make_as(d.ino, "f", S_IFREG | 0644, &user_cred, &a));
	ck_assert_uint_eq(a.gid, 55);
	ck_assert_uint_eq(a.mode, S_IFREG | 0644);
	ck_ok(make_as(d.ino, "sub", S_IFDIR | 0755, &user_cred, &a));
	ck_assert_uint_eq(a.gid, 55);
	ck_assert_uint_eq(a.mode, S_IFDIR | S_ISGID | 0755);
	/* a program of a group one is not in */
	ck_ok(make_as(d.ino, "p", S_IFREG | S_ISGID | 0755, &user_cred, &a));
	ck_assert_uint_eq(a.mode, S_IFREG | 0755);
	ck_ok(make_as(d.ino, "q", S_IFREG | S_ISGID | 0755, &root_cred, &a));
	ck_assert_uint_eq(a.mode, S_IFREG | S_ISGID | 0755);
}
END_TEST

static bool asked_in_group(void *arg, uint32_t gid)
{
	unsigned *n = arg;

	(*n)++;
	return gid == 55;
}

START_TEST(supplementary_groups_are_asked_without_the_tree_lock)
{
	unsigned asked = 0;
	struct cred c = { .uid = 1000, .gid = 1000,
			  .in_group = asked_in_group, .arg = &asked };
	struct attr a;

	ck_ok(make_as(ROOT, "f", S_IFREG | 0755, &c, &a));
	ck_ok(set_attr(a.ino, FS_SET_GID, (struct attr){ .gid = 55 },
		       &root_cred));
	ck_ok(set_attr(a.ino, FS_SET_MODE, (struct attr){ .mode = 02755 },
		       &c));
	ck_assert_uint_eq(attr_of(a.ino).mode, S_IFREG | 02755);
	ck_assert_uint_eq(asked, 1);
	ck_ok(set_attr(a.ino, FS_SET_GID, (struct attr){ .gid = 56 },
		       &root_cred));
	ck_ok(set_attr(a.ino, FS_SET_MODE, (struct attr){ .mode = 02755 },
		       &c));
	ck_assert_uint_eq(attr_of(a.ino).mode, S_IFREG | 0755);
	ck_assert_uint_eq(asked, 2);
}
END_TEST

START_TEST(thousands_of_names_in_one_directory)
{
	uint64_t d = make_dir(ROOT, "d"), first = 0;
	char name[64];
	unsigned i, n = 3000;

	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "name number %u", i);
		first = i ? first : make_file(d, name);
		if (i)
			make_file(d, name);
	}
	remount();
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "name number %u", i);
		ck_assert_uint_eq(ino_of(d, name), first + i);
	}
	for (i = 0; i < n; i += 2) {
		snprintf(name, sizeof(name), "name number %u", i);
		ck_ok(unlink_it(d, name));
	}
	ck_assert_uint_eq(attr_of(d).size, n / 2 * 32);
	for (i = 1; i < n; i += 2) {
		snprintf(name, sizeof(name), "name number %u", i);
		ck_ok(unlink_it(d, name));
	}
	ck_ok(rmdir_it(ROOT, "d"));
}
END_TEST

/* ---- times ---- */

static void wait_a_tick(void)
{
	struct timespec64 t = now_real();

	while (!later(now_real(), t))
		;
}

START_TEST(names_mark_the_times_posix_says)
{
	struct attr d0, d1, f0, f1;
	uint64_t f, d = make_dir(ROOT, "d");

	d0 = attr_of(d);
	wait_a_tick();
	f = make_file(d, "f");
	d1 = attr_of(d);
	f0 = attr_of(f);
	ck_assert(later(d1.mtime, d0.mtime) && later(d1.ctime, d0.ctime));
	wait_a_tick();
	ck_ok(link_it(f, ROOT, "f2"));
	f1 = attr_of(f);
	ck_assert(later(f1.ctime, f0.ctime) && !later(f1.mtime, f0.mtime));
	ck_assert_uint_eq(f1.nlink, 2);
	wait_a_tick();
	ck_ok(rename_it(d, "f", d, "g", 0));
	f0 = attr_of(f);
	d0 = attr_of(d);
	ck_assert(later(f0.ctime, f1.ctime) && later(d0.mtime, d1.mtime));
	wait_a_tick();
	ck_ok(unlink_it(d, "g"));
	f1 = attr_of(f);
	ck_assert(later(f1.ctime, f0.ctime));
	ck_assert(later(attr_of(d).mtime, d0.mtime));
	ck_assert_uint_eq(f1.nlink, 1);
}
END_TEST

START_TEST(times_of_all_centuries_are_kept)
{
	struct attr a = { .atime = { -62135596800, 1 },
			  .mtime = { 253402300799, 999999999 },
			  .ctime = { 4102444800, 7 } };
	uint64_t f = make_file(ROOT, "f");
	struct attr got;

	ck_ok(set_attr(f, FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME, a,
		       &root_cred));
	remount();
	got = attr_of(f);
	ck_assert(got.atime.sec == a.atime.sec && got.atime.nsec == 1);
	ck_assert(got.mtime.sec == a.mtime.sec &&
		  got.mtime.nsec == 999999999);
	ck_assert(got.ctime.sec == a.ctime.sec && got.ctime.nsec == 7);
	a.atime.nsec = 1000000000;
	ck_err(set_attr(f, FS_SET_ATIME, a, &root_cred), -EINVAL);
}
END_TEST

static void read_link(uint64_t ino)
{
	char buf[16];
	size_t len = sizeof(buf);

	ck_ok(fs_readlink(fs, fs_live(fs), ino, buf, &len));
}

START_TEST(relatime_marks_a_read_once_after_a_change)
{
	struct fs_options opt = { .noatime = false };
	struct attr a, b, set;

	umount_it();
	mount_with(&opt, 0);
	ck_ok(fs_create(fs, ROOT, "l", 1, S_IFLNK, 0, "t", &root_cred, &a));
	wait_a_tick();
	read_link(a.ino);
	b = attr_of(a.ino);
	ck_assert(later(b.atime, a.atime));
	ck_assert(!later(b.ctime, a.ctime));
	wait_a_tick();
	read_link(a.ino);
	a = attr_of(a.ino);
	ck_assert(!later(a.atime, b.atime));
	/* older than a day, though younger than the last change */
	set = a;
	set.atime.sec -= 86401;
	set.mtime.sec = set.ctime.sec = a.atime.sec - 200000;
	ck_ok(set_attr(a.ino, FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME, set,
		       &root_cred));
	read_link(a.ino);
	ck_assert(later(attr_of(a.ino).atime, set.atime));
}
END_TEST

/* ---- unlink, orphans ---- */

START_TEST(removing_says_why_not)
{
	uint64_t d = make_dir(ROOT, "d");

	make_file(ROOT, "f");
	ck_err(unlink_it(ROOT, "d"), -EISDIR);
	ck_err(rmdir_it(ROOT, "f"), -ENOTDIR);
	ck_err(unlink_it(ROOT, "none"), -ENOENT);
	ck_err(rmdir_it(ROOT, "none"), -ENOENT);
	ck_err(unlink_it(12345, "none"), -ESTALE);
	make_file(d, "x");
	ck_err(rmdir_it(ROOT, "d"), -ENOTEMPTY);
}
END_TEST

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

struct seen { unsigned n; uint64_t sum; };

static void see(void *arg, uint64_t ino)
{
	struct seen *s = arg;

	s->n++;
	s->sum += ino;
	/* the list may change under the walk */
	fs_release(fs, ino, true, NULL);
	fs_unref(fs, ino, 1);
}

START_TEST(writers_and_references_are_listed)
{
	struct seen s = { 0, 0 };
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
		}
	}
	fs_each_writer(fs, see, &s);
	ck_assert_uint_eq(s.n, 1000);
	ck_assert_uint_eq(s.sum, sum);
	s.n = 0;
	fs_each_ref(fs, see, &s);
	ck_assert_uint_eq(s.n, 2000);
	s.n = 0;
	fs_each_ref(fs, see, &s);
	ck_assert_uint_eq(s.n, 0);
}
END_TEST

/* ---- link, rename ---- */

START_TEST(link_refuses_directories_and_existing_names)
{
	uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");

	ck_err(link_it(d, ROOT, "d2"), -EPERM);
	ck_err(link_it(f, ROOT, "d"), -EEXIST);
	ck_err(link_it(f, f, "x"), -ENOTDIR);
	ck_err(link_it(4711, ROOT, "x"), -ESTALE);
	ck_ok(link_it(f, d, "f"));
	ck_ok(unlink_it(ROOT, "f"));
	ck_assert_uint_eq(ino_of(d, "f"), f);
}
END_TEST

START_TEST(rename_moves_files_and_directories)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(ROOT, "b");
	uint64_t f = make_file(a, "f"), s = make_dir(a, "s");
	struct attr at;

	ck_ok(rename_it(a, "f", b, "g", 0));
	ck_err(look(a, "f", &at), -ENOENT);
	ck_assert_uint_eq(ino_of(b, "g"), f);
	ck_ok(rename_it(a, "s", b, "t", 0));
	ck_assert_uint_eq(ino_of(s, ".."), b);
	ck_assert_uint_eq(attr_of(a).nlink, 2);
	ck_assert_uint_eq(attr_of(b).nlink, 3);
	ck_assert_uint_eq(attr_of(a).size, 0);
	ck_ok(rename_it(b, "t", b, "u", 0));
	ck_assert_uint_eq(attr_of(b).nlink, 3);
	ck_assert_uint_eq(ino_of(b, "u"), s);
}
END_TEST

START_TEST(rename_replaces_only_like_by_like)
{
	uint64_t d = make_dir(ROOT, "d"), e = make_dir(ROOT, "e"), f;
	struct attr a;

	f = make_file(ROOT, "f");
	make_file(ROOT, "g");
	ck_err(rename_it(ROOT, "f", ROOT, "d", 0), -EISDIR);
	ck_err(rename_it(ROOT, "d", ROOT, "f", 0), -ENOTDIR);
	make_file(e, "x");
	ck_err(rename_it(ROOT, "d", ROOT, "e", 0), -ENOTEMPTY);
	ck_err(rename_it(ROOT, "none", ROOT, "e", 0), -ENOENT);
	ck_ok(rename_it(ROOT, "f", ROOT, "g", 0));
	ck_assert_uint_eq(ino_of(ROOT, "g"), f);
	ck_ok(unlink_it(e, "x"));
	ck_ok(rename_it(ROOT, "d", ROOT, "e", 0));
	ck_assert_uint_eq(ino_of(ROOT, "e"), d);
	ck_err(fs_getattr(fs, fs_live(fs), e, &a), -ESTALE);
	ck_assert_uint_eq(attr_of(ROOT).nlink, 3);
	e = make_dir(d, "deep");
	make_dir(ROOT, "top");
	ck_ok(rename_it(ROOT, "top", d, "deep", 0));
	ck_assert_uint_eq(attr_of(ROOT).nlink, 3);
	ck_assert_uint_eq(attr_of(d).nlink, 3);
}
END_TEST

START_TEST(rename_of_two_names_of_one_file_does_nothing)
{
	uint64_t f = make_file(ROOT, "f");

	ck_ok(link_it(f, ROOT, "g"));
	ck_ok(rename_it(ROOT, "f", ROOT, "g", 0));
	ck_assert_uint_eq(ino_of(ROOT, "f"), f);
	ck_assert_uint_eq(ino_of(ROOT, "g"), f);
	ck_ok(rename_it(ROOT, "f", ROOT, "f", 0));
	ck_assert_uint_eq(attr_of(f).nlink, 2);
	make_file(make_dir(ROOT, "d"), "x");
	ck_ok(rename_it(ROOT, "d", ROOT, "d", 0));
	ck_ok(rename_it(ROOT, "f", ROOT, "g", RENAME_EXCHANGE));
	ck_err(rename_it(ROOT, "f", ROOT, "f", RENAME_NOREPLACE), -EEXIST);
}
END_TEST

START_TEST(directory_does_not_move_into_itself)
{
	uint64_t a = make_dir(ROOT, "a"), b = make_dir(a, "b");
	uint64_t c = make_dir(b, "c");

	ck_err(rename_it(ROOT, "a", a, "x", 0), -EINVAL);
	ck_err(rename_it(ROOT, "a", b, "x", 0), -EINVAL);
	ck_err(rename_it(ROOT, "a", c, "x", 0), -EINVAL);
	ck_err(rename_it(b, "c", ROOT, "a", 0), -ENOTEMPTY);
	ck_err(rename_it(b, "c", ROOT, "a", RENAME_EXCHANGE), -EINVAL);
	ck_err(rename_it(ROOT, "a", b, "c", RENAME_EXCHANGE), -EINVAL);
	ck_ok(rename_it(b, "c", ROOT, "c", 0));
	ck_ok(rename_it(ROOT, "a", c, "a", 0));
	ck_assert_uint_eq(ino_of(a, ".."), c);
}
END_TEST

START_TEST(noreplace_and_exchange)
{
	uint64_t d = make_dir(ROOT, "d"), e = make_dir(ROOT, "e");
	uint64_t f = make_file(e, "f"), s = make_dir(d, "s");

	ck_err(rename_it(d, "s", e, "f", RENAME_NOREPLACE), -EEXIST);
	ck_err(rename_it(d, "s", e, "g", RENAME_EXCHANGE), -ENOENT);
	ck_err(rename_it(d, "s", e, "f", 8), -EINVAL);
	ck_err(rename_it(d, "s", e, "f",
			 RENAME_NOREPLACE | RENAME_EXCHANGE), -EINVAL);
	ck_ok(rename_it(d, "s", e, "f", RENAME_EXCHANGE));
	ck_assert_uint_eq(ino_of(d, "s"), f);
	ck_assert_uint_eq(ino_of(e, "f"), s);
	ck_assert_uint_eq(ino_of(s, ".."), e);
	ck_assert_uint_eq(attr_of(d).nlink, 2);
	ck_assert_uint_eq(attr_of(e).nlink, 3);
	ck_ok(rename_it(e, "f", d, "new", RENAME_NOREPLACE));
	ck_assert_uint_eq(attr_of(d).nlink, 3);
	ck_ok(rename_it(d, "s", d, "new", RENAME_EXCHANGE));
	ck_assert_uint_eq(ino_of(d, "new"), f);
}
END_TEST

START_TEST(replaced_file_lives_while_it_is_open)
{
	uint64_t f = make_file(ROOT, "f"), g = make_file(ROOT, "g");
	struct attr a;

	ck_ok(fs_open(fs, g, false, false));
	ck_ok(rename_it(ROOT, "f", ROOT, "g", 0));
	ck_assert_uint_eq(ino_of(ROOT, "g"), f);
	ck_assert_uint_eq(attr_of(g).nlink, 0);
	fs_release(fs, g, false, NULL);
	ck_ok(store_drain(store));
	ck_err(fs_getattr(fs, fs_live(fs), g, &a), -ESTALE);
}
END_TEST

/* ---- readdir ---- */

#define MANY 400

struct list_state {
	unsigned n, stop_after;
	uint64_t last;
	bool ordered, dots[2], attrs;
	uint8_t seen[MANY];
};

static int list_one(void *arg, const struct fs_dirent *e)
{
	struct list_state *s = arg;
	unsigned i;

	if (s->stop_after && s->n == s->stop_after)
		return 1;
	s->n++;
	if (e->cookie <= s->last)
		s->ordered = false;
	s->last = e->cookie;
	if (e->attr && (e->attr->ino != e->ino ||
			IFTODT(e->attr->mode) != e->type))
		s->attrs = false;
	if (e->len == 1 && e->name[0] == '.')
		s->dots[0] = e->cookie == 1;
	else if (e->len == 2 && !memcmp(e->name, "..", 2))
		s->dots[1] = e->cookie == 2;
	else if (sscanf(e->name, "e%u", &i) == 1 && i < MANY)
		s->seen[i]++;
	return 0;
}

static void make_many(uint64_t d)
{
	char name[16];
	unsigned i;

	for (i = 0; i < MANY; i++) {
		snprintf(name, sizeof(name), "e%u.", i);
		if (i % 5)
			make_file(d, name);
		else
			make_dir(d, name);
	}
}

START_TEST(readdir_shows_each_entry_once_in_cookie_order)
{
	uint64_t d = make_dir(ROOT, "d");
	struct list_state s;
	unsigned i, step, plus;

	make_many(d);
	for (plus = 0; plus < 2; plus++)
		for (step = 0; step < 120; step = step * 2 + 1) {
			memset(&s, 0, sizeof(s));
			s.ordered = s.attrs = true;
			s.stop_after = step;
			do {
				s.n = 0;
				ck_ok(fs_readdir(fs, fs_live(fs), d, s.last,
						 plus, list_one, &s));
			} while (step && s.n);
			ck_assert(s.ordered && s.attrs);
			ck_assert(s.dots[0] && s.dots[1]);
			for (i = 0; i < MANY; i++)
				ck_assert_uint_eq(s.seen[i], 1);
		}
	ck_err(fs_readdir(fs, fs_live(fs), make_file(ROOT, "f"), 0, false,
			  list_one, &s), -ENOTDIR);
	ck_err(fs_readdir(fs, fs_live(fs), 777777, 0, false, list_one, &s),
	       -ESTALE);
}
END_TEST

START_TEST(readdir_goes_on_while_entries_come_and_go)
{
	uint64_t d = make_dir(ROOT, "d");
	struct list_state s = { .stop_after = 7, .ordered = true };
	char name[16];
	unsigned i, round = 0;

	make_many(d);
	do {
		s.n = 0;
		ck_ok(fs_readdir(fs, fs_live(fs), d, s.last, true, list_one,
				 &s));
		/* 1, 11, 21, .. vanish on the way, others come */
		i = round * 10 + 1;
		if (i < MANY) {
			snprintf(name, sizeof(name), "e%u.", i);
			ck_ok(unlink_it(d, name));
			snprintf(name, sizeof(name), "new%u", i);
			make_file(d, name);
		}
		round++;
	} while (s.n);
	for (i = 0; i < MANY; i++)
		if (i % 10 != 1)
			ck_assert_uint_eq(s.seen[i], 1);
		else
			ck_assert_uint_le(s.seen[i], 1);
}
END_TEST

START_TEST(tiny_cache_makes_every_operation_wait_for_nodes)
{
	struct fs_options opt = { .noatime = true };
	uint64_t d = make_dir(ROOT, "d");
	struct list_state s;
	char name[300];
	unsigned i;

	for (i = 0; i < 1500; i++) {
		memset(name, 'x', 200);
		snprintf(name + 200, 32, "%u", i);
		make_file(d, name);
	}
	make_many(d);
	umount_it();
	mount_with(&opt, 1);
	memset(&s, 0, sizeof(s));
	s.ordered = s.attrs = true;
	ck_ok(fs_readdir(fs, fs_live(fs), d, 0, true, list_one, &s));
	ck_assert_uint_eq(s.n, 1500 + MANY + 2);
	ck_assert(s.ordered && s.attrs);
	for (i = 0; i < 1500; i++) {
		memset(name, 'x', 200);
		snprintf(name + 200, 32, "%u", i);
		if (i % 3 == 0)
			ck_ok(unlink_it(d, name));
		else if (i % 3 == 1)
			ck_ok(rename_it(d, name, ROOT, name, 0));
		if (i % 100 == 0)
			ck_ok(store_commit(store, NULL, NULL));
	}
	ck_assert_uint_eq(attr_of(d).size, (500 + MANY) * 32);
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
	/* as the kernel writes back times of appended data */
	ck_ok(set_attr(f, FS_SET_MTIME | FS_SET_CTIME, a, &root_cred));
	make_file(d, "y");
	ck_err(unlink_it(d, "x"), -EPERM);
	ck_err(rename_it(d, "x", d, "z", 0), -EPERM);
	make_file(ROOT, "h");
	ck_err(rename_it(ROOT, "h", d, "x", 0), -EPERM);
	ck_ok(rename_it(ROOT, "h", d, "h", 0));
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
	ck_err(fs_restore(fs, "x", NULL), -EROFS);
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
	ck_err(fs_restore(fs, "none", NULL), -ENOENT);
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO));
	ck_assert_uint_eq(ino_of(ROOT, "f"), f);
	ck_err(look(ROOT, "g", &a), -ENOENT);
	ck_err(fs_getattr(fs, fs_live(fs), g, &a), -ESTALE);
	ck_err(fs_write(fs, g, 0, "x", 1, 0), -ESTALE);
	fs_release(fs, g, true, NULL);
	fs_unref(fs, g, 1);
	h = make_file(ROOT, "h");
	ck_assert_uint_gt(h, g);
	ck_ok(fs_restore(fs, COWFS_SNAP_UNDO, COWFS_SNAP_UNDO));
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
	ck_ok(fs_restore(fs, "s", NULL));
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
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO));
	ck_ok(fs_view_open(fs, COWFS_SNAP_UNDO, &v));
	ck_ok(fs_lookup(fs, v, ROOT, "g", 1, &a));
	ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO));
	ck_err(fs_lookup(fs, v, ROOT, "g", 1, &a), -ESTALE);
	fs_view_put(fs, v);
	ck_ok(fs_view_open(fs, COWFS_SNAP_UNDO, &v));
	ck_err(fs_lookup(fs, v, ROOT, "g", 1, &a), -ENOENT);
	ck_ok(fs_restore(fs, "s", NULL)); /* @undo stays */
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

/* ---- many at once ---- */

#define THREADS 4

struct worker {
	pthread_t thread;
	struct rng rng;
	uint64_t dirs[3];
	int bad; /* an error that must not be */
};

static int nothing(void *arg, const struct fs_dirent *e)
{
	(void)arg;
	(void)e;
	return 0;
}

static int random_op(struct worker *w)
{
	uint64_t d = w->dirs[rng_below(&w->rng, 3)];
	uint64_t e = w->dirs[rng_below(&w->rng, 3)];
	char n[8], m[8], buf[64];
	struct attr a;
	size_t len;
	int err;

	snprintf(n, sizeof(n), "%u", (unsigned)rng_below(&w->rng, 12));
	snprintf(m, sizeof(m), "%u", (unsigned)rng_below(&w->rng, 12));
	switch (rng_below(&w->rng, 10)) {
	case 0:
		return make_as(d, n, S_IFREG | 0644, &root_cred, &a);
	case 1:
		return make_as(d, n, S_IFDIR | 0755, &root_cred, &a);
	case 2:
		return unlink_it(d, n);
	case 3:
		return rmdir_it(d, n);
	case 4:
		return rename_it(d, n, e, m, 0);
	case 5:
		return rename_it(d, n, e, m, RENAME_EXCHANGE);
	case 6:
		return fs_readdir(fs, fs_live(fs), d, 0, true, nothing, NULL);
	case 7:
		err = look(d, n, &a);
		if (err)
			return err;
		err = fs_open(fs, a.ino, false, false);
		if (err)
			return err;
		if (S_ISREG(a.mode))
			err = fs_write(fs, a.ino, 0, "data", 4, 0);
		fs_release(fs, a.ino, false, NULL);
		return err;
	case 8:
		err = look(d, n, &a);
		return err ? err : fs_setxattr(fs, a.ino, "user.n", n, 2, 0,
					       &root_cred);
	default:
		err = look(d, n, &a);
		return err ? err : fs_getxattr(fs, fs_live(fs), a.ino,
					       "user.n", buf, sizeof(buf),
					       &len);
	}
}

static bool expected(int err)
{
	static const int fine[] = { 0, -EEXIST, -ENOENT, -ENOTDIR, -EISDIR,
				    -ENOTEMPTY, -ESTALE, -ENODATA, -EINVAL };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fine); i++)
		if (err == fine[i])
			return true;
	return false;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned i, n = test_rounds(1500);
	int err;

	for (i = 0; i < n && !w->bad; i++) {
		err = random_op(w);
		if (!expected(err))
			w->bad = err;
		if (rng_one_in(&w->rng, 200) && store_commit(store, NULL, NULL))
			w->bad = -EIO;
	}
	return NULL;
}

static void run_workers(struct worker *w, bool snapshots)
{
	uint64_t dirs[3] = { make_dir(ROOT, "a"), make_dir(ROOT, "b"), ROOT };
	struct view *v;
	struct attr a;
	unsigned i;

	for (i = 0; i < THREADS; i++) {
		rng_init(&w[i].rng, test_seed(), i);
		memcpy(w[i].dirs, dirs, sizeof(dirs));
		w[i].bad = 0;
		ck_assert_int_eq(pthread_create(&w[i].thread, NULL, work,
						&w[i]), 0);
	}
	for (i = 0; snapshots && i < 20; i++) {
		ck_ok(snap_create(store, "s", NULL));
		ck_ok(fs_view_open(fs, "s", &v));
		ck_ok(fs_readdir(fs, v, ROOT, 0, true, nothing, NULL));
		if (i % 2)
			ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO));
		ck_ok(fs_snap_delete(fs, "s"));
		ck_err(fs_getattr(fs, v, ROOT, &a), -ESTALE);
		fs_view_put(fs, v);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		ck_assert_msg(!w[i].bad, "thread %u: %s", i,
			      strerror(-w[i].bad));
	}
}

START_TEST(threads_work_in_the_same_directories)
{
	struct worker w[THREADS];

	ck_ok(store_start(store));
	run_workers(w, false);
}
END_TEST

START_TEST(threads_work_while_snapshots_come_and_go)
{
	struct worker w[THREADS];

	ck_ok(store_start(store));
	run_workers(w, true);
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
	check_image();
	mount_it();
	ck_assert_uint_eq(free_blocks(), before);
}
END_TEST

/* ---- damage that checksums do not show ---- */

/* Change an item behind the back of the filesystem. */
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
	struct list_state s = { .ordered = true };

	crowd_names(d, "x", 0, 3);
	ck_err(look(d, "x", &a), -ENOENT);
	x = make_file(d, "x"); /* counter 3 */
	uncrowd(&k, 1);
	ck_assert_uint_eq(ino_of(d, "x"), x);
	ck_err(make_as(d, "x", S_IFREG, &root_cred, &a), -EEXIST);
	ck_ok(rename_it(d, "x", d, "y", 0));
	ck_ok(rename_it(d, "y", d, "x", 0)); /* counter 1 */
	ck_assert_uint_eq(ino_of(d, "x"), x);
	ck_ok(fs_readdir(fs, fs_live(fs), d, 0, false, list_one, &s));
	ck_assert_uint_eq(s.n, 2 + 3);
	ck_assert(s.ordered);
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
		err |= fs_readdir(fs, fs_live(fs), ino, 0, true, nothing,
				  NULL);
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

/* ---- */

static void add_names(TCase *tc)
{
	tcase_add_test(tc, root_is_its_own_parent);
	tcase_add_test(tc, created_file_is_found_after_remount);
	tcase_add_test(tc, create_refuses_what_exists_and_bad_names);
	tcase_add_test(tc, directories_count_entries_and_subdirectories);
	tcase_add_test(tc, special_files_keep_kind_and_device);
	tcase_add_test(tc, symlinks_of_every_length_read_back);
	tcase_add_test(tc, set_group_id_directories_hand_on_their_group);
	tcase_add_test(tc,
		       supplementary_groups_are_asked_without_the_tree_lock);
	tcase_add_test(tc, thousands_of_names_in_one_directory);
	tcase_add_test(tc, names_mark_the_times_posix_says);
	tcase_add_test(tc, times_of_all_centuries_are_kept);
	tcase_add_test(tc, relatime_marks_a_read_once_after_a_change);
	tcase_add_test(tc, removing_says_why_not);
	tcase_add_test(tc, link_refuses_directories_and_existing_names);
	tcase_add_test(tc, rename_moves_files_and_directories);
	tcase_add_test(tc, rename_replaces_only_like_by_like);
	tcase_add_test(tc, rename_of_two_names_of_one_file_does_nothing);
	tcase_add_test(tc, directory_does_not_move_into_itself);
	tcase_add_test(tc, noreplace_and_exchange);
	tcase_add_test(tc, replaced_file_lives_while_it_is_open);
	tcase_add_test(tc, readdir_shows_each_entry_once_in_cookie_order);
	tcase_add_test(tc, readdir_goes_on_while_entries_come_and_go);
	tcase_add_test(tc, tiny_cache_makes_every_operation_wait_for_nodes);
}

static void add_inodes(TCase *tc)
{
	tcase_add_test(tc, unlinked_file_lives_while_it_is_open);
	tcase_add_test(tc, orphans_of_a_crash_go_at_the_next_mount);
	tcase_add_test(tc, removed_directory_stays_for_whoever_stands_in_it);
	tcase_add_test(tc, file_with_many_extents_goes_in_steps);
	tcase_add_test(tc, small_file_is_gone_with_its_name);
	tcase_add_test(tc, tmpfile_waits_for_its_maker_and_may_get_a_name);
	tcase_add_test(tc, last_writer_is_told_apart);
	tcase_add_test(tc, writers_and_references_are_listed);
	tcase_add_test(tc, chmod_and_chown_follow_the_set_id_rules);
	tcase_add_test(tc, setattr_with_a_size_does_the_rest_too);
	tcase_add_test(tc, immutable_files_do_not_change);
	tcase_add_test(tc, append_only_grows_and_nothing_else);
	tcase_add_test(tc, read_only_mount_refuses_every_change);
	tcase_add_test(tc, full_filesystem_still_lets_files_go);
	tcase_add_test(tc, views_show_snapshots_until_they_are_deleted);
	tcase_add_test(tc, restore_brings_back_names_and_forgets_new_ones);
	tcase_add_test(tc, orphans_follow_a_restore);
	tcase_add_test(tc, restore_over_undo_ends_views_of_the_old_one);
	tcase_add_test(tc,
		       snapshot_can_be_mounted_in_place_of_the_live_tree);
	tcase_add_test(tc, statfs_adds_up);
	tcase_add_test(tc, threads_work_in_the_same_directories);
	tcase_add_test(tc, threads_work_while_snapshots_come_and_go);
	tcase_add_test(tc, unmounting_stops_the_removal_of_orphans);
}

static TCase *damage_case(void)
{
	TCase *tc = tcase_create("damage");

	tcase_add_checked_fixture(tc, undamaged_image, close_damaged);
	tcase_add_test(tc, circle_of_directories_is_found);
	tcase_add_test(tc, impossible_inodes_are_reported);
	tcase_add_test(tc, names_of_equal_hashes_live_together);
	tcase_add_test(tc, xattrs_of_equal_hashes_live_together);
	return tc;
}

static TCase *fuzz_case(void)
{
	TCase *tc = tcase_create("fuzz");

	tcase_set_timeout(tc, 300);
	tcase_add_test(tc, damaged_items_never_crash);
	return tc;
}

static void add_case(Suite *s, const char *name, SFun before,
		     void (*add)(TCase *))
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, before, teardown);
	tcase_set_timeout(tc, 120);
	add(tc);
	suite_add_tcase(s, tc);
}

int main(void)
{
	Suite *s = suite_create("fs names");

	add_case(s, "names", setup, add_names);
	add_case(s, "names in small nodes", setup_small_nodes, add_names);
	add_case(s, "inodes", setup, add_inodes);
	add_case(s, "inodes in small nodes", setup_small_nodes, add_inodes);
	suite_add_tcase(s, damage_case());
	suite_add_tcase(s, fuzz_case());
	return test_main(s);
}
