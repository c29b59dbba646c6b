/*
 * test_fs_names.c - names: creating, removing, renaming, listing; times
 */
#include <dirent.h>
#include <stdio.h> /* RENAME_* */

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

START_TEST(times_do_not_go_back_behind_the_kernels)
{
	uint64_t f = make_file(ROOT, "f");
	struct attr a = { .ctime = now_real() };

	a.ctime.nsec += 10000000;
	a.ctime.sec += a.ctime.nsec / 1000000000;
	a.ctime.nsec %= 1000000000;
	a.mtime = a.ctime;
	ck_ok(set_attr(f, FS_SET_MTIME | FS_SET_CTIME, a, &root_cred));
	ck_ok(link_it(f, ROOT, "f2"));
	ck_assert(!later(a.ctime, attr_of(f).ctime));
	ck_assert(!later(a.mtime, attr_of(make_file(ROOT, "g")).mtime));
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

START_TEST(strictatime_marks_every_read)
{
	struct fs_options opt = { .strictatime = true };
	struct timespec64 last;
	struct attr a;
	unsigned i;

	umount_it();
	mount_with(&opt, 0);
	ck_ok(fs_create(fs, ROOT, "l", 1, S_IFLNK, 0, "t", &root_cred, &a));
	for (i = 0; i < 3; i++) {
		last = attr_of(a.ino).atime;
		wait_a_tick();
		read_link(a.ino);
		ck_assert(later(attr_of(a.ino).atime, last));
	}
}
END_TEST

/* ---- link, unlink, rename ---- */

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

static int count_attrs(void *arg, const struct fs_dirent *e)
{
	unsigned *n = arg;

	if (e->cookie > 2 && e->attr)
		(*n)++;
	return 0;
}

/* Nodes read from the device by a listing with attributes. */
static uint64_t cold_listing(const char *name, uint64_t after, unsigned *attrs)
{
	uint64_t d, before;

	umount_it();
	mount_it();
	d = ino_of(ROOT, name);
	before = atomic_load(&store->io.stats.reads);
	*attrs = 0;
	ck_ok(fs_readdir(fs, fs_live(fs), d, after, true, count_attrs,
			 attrs));
	return atomic_load(&store->io.stats.reads) - before;
}

START_TEST(a_large_directory_is_listed_without_reading_its_inodes)
{
	uint64_t large = make_dir(ROOT, "large");
	uint64_t small = make_dir(ROOT, "small");
	unsigned attrs, again = 0;
	char name[16];
	unsigned i;

	for (i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "n%u", i);
		make_file(large, name);
		if (i % 10 == 0)
			make_file(small, name);
	}
	/* 2000 names of 35 bytes; their inodes would be 330 KB more */
	ck_assert_uint_le(cold_listing("large", 0, &attrs), 24);
	ck_assert_uint_lt(attrs, 200);
	/* what is in memory is given, and what is asked for later on */
	ck_assert_uint_ge(cold_listing("large", 3, &attrs), 20);
	ck_assert_uint_eq(attrs, 2000);
	ck_ok(fs_readdir(fs, fs_live(fs), large, 0, true, count_attrs,
			 &again));
	ck_assert_uint_eq(again, 2000);
	(void)cold_listing("small", 0, &attrs);
	ck_assert_uint_eq(attrs, 200);
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
	tcase_add_test(tc, times_do_not_go_back_behind_the_kernels);
	tcase_add_test(tc, times_of_all_centuries_are_kept);
	tcase_add_test(tc, relatime_marks_a_read_once_after_a_change);
	tcase_add_test(tc, strictatime_marks_every_read);
	tcase_add_test(tc, removing_says_why_not);
	tcase_add_test(tc, link_refuses_directories_and_existing_names);
	tcase_add_test(tc, rename_moves_files_and_directories);
	tcase_add_test(tc, rename_replaces_only_like_by_like);
	tcase_add_test(tc, rename_of_two_names_of_one_file_does_nothing);
	tcase_add_test(tc, directory_does_not_move_into_itself);
	tcase_add_test(tc, noreplace_and_exchange);
	tcase_add_test(tc, replaced_file_lives_while_it_is_open);
	tcase_add_test(tc, readdir_shows_each_entry_once_in_cookie_order);
	tcase_add_test(tc,
		       a_large_directory_is_listed_without_reading_its_inodes);
	tcase_add_test(tc, readdir_goes_on_while_entries_come_and_go);
	tcase_add_test(tc, tiny_cache_makes_every_operation_wait_for_nodes);
}

int main(void)
{
	Suite *s = suite_create("fs names");

	add_case(s, "names", setup, add_names);
	add_case(s, "names in small nodes", setup_small_nodes, add_names);
	return test_main(s);
}
