/*
 * posix_meta.c - claims about attributes, times and xattrs on a mounted
 *                filesystem
 */
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

#include "mount/posix.h"

static struct stat st_of(const char *name)
{
	struct stat st = { 0 };

	if (lstat(name, &st) < 0)
		memset(&st, 0, sizeof(st));
	return st;
}

static bool later(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec ||
	       (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

static bool same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Times the kernel keeps may be as coarse as its tick. */
static void tick(void)
{
	struct timespec t = { .tv_nsec = 15000000 };

	nanosleep(&t, NULL);
}

static int touch(const char *name)
{
	return close(open(name, O_CREAT | O_WRONLY, 0644));
}

static void utimensat_takes_now_omit_and_any_time(void)
{
	struct timespec t[2] = { { 1000000000, 123456789 },
				 { 1000000001, 987654321 } };
	struct stat a, b;

	CHECK(touch("f") == 0 && utimensat(AT_FDCWD, "f", t, 0) == 0);
	a = st_of("f");
	CHECK(same(a.st_atim, t[0]) && same(a.st_mtim, t[1]));
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_nsec = UTIME_NOW;
	CHECK(utimensat(AT_FDCWD, "f", t, 0) == 0);
	b = st_of("f");
	CHECK(same(b.st_atim, a.st_atim) && later(b.st_mtim, a.st_mtim));
	t[0].tv_nsec = 1000000000;
	t[1].tv_nsec = 0;
	FAILS(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
	CHECK(symlink("f", "l") == 0);
	t[0] = t[1] = (struct timespec){ 5, 6 };
	CHECK(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW) == 0);
	CHECK(st_of("l").st_mtim.tv_sec == 5);
	CHECK(st_of("f").st_mtim.tv_sec != 5);
}

static void times_before_1970_and_after_2038_are_kept(void)
{
	static const int64_t secs[] = { -1,	     -86400LL * 365 * 60,
					2147483648LL, 4102444800LL,
					4294967296LL, 10413792000LL };
	size_t i;

	CHECK(touch("f") == 0);
	for (i = 0; i < sizeof(secs) / sizeof(secs[0]); i++) {
		struct timespec t[2] = { { secs[i], 1 },
					 { secs[i], 999999999 } };
		struct stat st;

		CHECK(utimensat(AT_FDCWD, "f", t, 0) == 0);
		st = st_of("f");
		CHECK(same(st.st_atim, t[0]) && same(st.st_mtim, t[1]));
	}
}

static void changes_mark_mtime_and_ctime(void)
{
	struct stat a, b;
	int fd;

	CHECK(touch("f") == 0);
	a = st_of("f");
	tick();
	CHECK(chmod("f", 0600) == 0);
	b = st_of("f");
	CHECK(later(b.st_ctim, a.st_ctim) && same(b.st_mtim, a.st_mtim));
	tick();
	fd = open("f", O_WRONLY);
	CHECK(fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0);
	a = st_of("f");
	CHECK(later(a.st_mtim, b.st_mtim) && later(a.st_ctim, b.st_ctim));
	tick();
	CHECK(truncate("f", 100) == 0);
	b = st_of("f");
	CHECK(later(b.st_mtim, a.st_mtim) && later(b.st_ctim, a.st_ctim));
	tick();
	CHECK(link("f", "g") == 0);
	a = st_of("f");
	CHECK(later(a.st_ctim, b.st_ctim) && same(a.st_mtim, b.st_mtim));
	tick();
	CHECK(rename("g", "h") == 0 && unlink("h") == 0);
	b = st_of("f");
	CHECK(later(b.st_ctim, a.st_ctim) && b.st_nlink == 1);
}

static void who_opens_with_noatime_leaves_no_trace(void)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct stat st;
	char byte;
	int fd = make_file("f", 100000, 1);

	/* Out of the kernel's cache: what that has nobody is told of. */
	CHECK(fd >= 0 && fsync(fd) == 0 && futimens(fd, old) == 0);
	CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0);
	CHECK(close(fd) == 0 && (fd = open("f", O_RDONLY | O_NOATIME)) >= 0);
	CHECK(read(fd, &byte, 1) == 1 && close(fd) == 0);
	CHECK(stat("f", &st) == 0 && st.st_atime == 1000);
}

/* ... as what was just written is: whoever reads it asks nobody. */
static void reading_from_the_cache_marks_a_file_once(void)
{
	struct stat made, once;
	char byte;
	int fd = make_file("f", 5000, 1);

	CHECK(fd >= 0 && close(fd) == 0);
	made = st_of("f");
	tick();
	CHECK((fd = open("f", O_RDONLY)) >= 0);
	CHECK(read(fd, &byte, 1) == 1 && close(fd) == 0);
	once = st_of("f");
	CHECK(later(once.st_atim, made.st_atim));
	CHECK(same(once.st_mtim, made.st_mtim));
	CHECK(same(once.st_ctim, made.st_ctim));
	tick();
	CHECK((fd = open("f", O_RDONLY)) >= 0);
	CHECK(read(fd, &byte, 1) == 1 && close(fd) == 0);
	CHECK(same(st_of("f").st_atim, once.st_atim));
	tick();
	CHECK(chmod("f", 0600) == 0 && (fd = open("f", O_WRONLY)) >= 0);
	CHECK(close(fd) == 0 && same(st_of("f").st_atim, once.st_atim));
}

static void entries_mark_their_directory(void)
{
	struct stat a, b;

	CHECK(mkdir("d", 0755) == 0);
	a = st_of("d");
	tick();
	CHECK(touch("d/x") == 0);
	b = st_of("d");
	CHECK(later(b.st_mtim, a.st_mtim) && later(b.st_ctim, a.st_ctim));
	tick();
	CHECK(rename("d/x", "d/y") == 0);
	a = st_of("d");
	CHECK(later(a.st_mtim, b.st_mtim));
	tick();
	CHECK(unlink("d/y") == 0);
	b = st_of("d");
	CHECK(later(b.st_mtim, a.st_mtim) && b.st_nlink == 2);
}

static void a_write_clears_nothing_a_stat_sees_the_size(void)
{
	int fd = open("f", O_RDWR | O_CREAT | O_EXCL, 0640);
	struct stat st;
	int i;

	CHECK(fd >= 0);
	for (i = 1; i <= 100; i++) {
		CHECK(write(fd, "0123456789", 10) == 10);
		CHECK(fstat(fd, &st) == 0 && st.st_size == i * 10);
		CHECK(stat("f", &st) == 0 && st.st_size == i * 10);
	}
	CHECK((st.st_mode & 07777) == 0640);
	close(fd);
}

static void blocks_tell_what_a_file_takes(void)
{
	int fd = make_file("f", 1 << 20, 1);
	struct stat st;

	CHECK(fd >= 0 && close(fd) == 0 && stat("f", &st) == 0);
	CHECK(st.st_blocks >= 2048 && st.st_blocks <= 2100);
	CHECK(st.st_blksize >= 4096);
}

static void statfs_is_consistent(void)
{
	struct statvfs a, b;
	int fd;

	CHECK(statvfs(".", &a) == 0);
	CHECK(a.f_bsize >= 4096 && a.f_frsize > 0 && a.f_namemax == 255);
	CHECK(a.f_bfree <= a.f_blocks && a.f_bavail <= a.f_bfree);
	CHECK(a.f_files >= a.f_ffree && a.f_ffree > 0);
	fd = make_file("f", 8 << 20, 1);
	CHECK(fd >= 0 && fsync(fd) == 0 && statvfs(".", &b) == 0);
	CHECK(b.f_blocks == a.f_blocks && b.f_bfree < a.f_bfree);
	CHECK((a.f_bfree - b.f_bfree) * a.f_frsize >= 8 << 20);
	CHECK((a.f_bfree - b.f_bfree) * a.f_frsize < 9 << 20);
	close(fd);
}

static void xattrs_obey_create_and_replace(void)
{
	char buf[100];

	CHECK(touch("f") == 0);
	FAILS(getxattr("f", "user.a", buf, 100), ENODATA);
	FAILS(removexattr("f", "user.a"), ENODATA);
	FAILS(setxattr("f", "user.a", "1", 1, XATTR_REPLACE), ENODATA);
	CHECK(setxattr("f", "user.a", "one", 3, XATTR_CREATE) == 0);
	FAILS(setxattr("f", "user.a", "1", 1, XATTR_CREATE), EEXIST);
	CHECK(setxattr("f", "user.a", "three", 5, XATTR_REPLACE) == 0);
	CHECK(getxattr("f", "user.a", NULL, 0) == 5);
	FAILS(getxattr("f", "user.a", buf, 4), ERANGE);
	CHECK(getxattr("f", "user.a", buf, 100) == 5);
	CHECK(memcmp(buf, "three", 5) == 0);
	CHECK(setxattr("f", "user.empty", "", 0, 0) == 0);
	CHECK(getxattr("f", "user.empty", buf, 100) == 0);
	CHECK(listxattr("f", buf, 100) == 18);
	FAILS(listxattr("f", buf, 10), ERANGE);
	CHECK(removexattr("f", "user.a") == 0);
	CHECK(listxattr("f", buf, 100) == 11);
	FAILS(setxattr("f", "strange.a", "1", 1, 0), EOPNOTSUPP);
}

static void xattr_values_up_to_64_kib(void)
{
	static const size_t sizes[] = { 1, 100, 3000, 5000, 20000, 65536 };
	char *val = malloc(65537), *got = malloc(65536);
	size_t i;

	CHECK(val && got && touch("f") == 0);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		fill(val, sizes[i], 0, (unsigned)i);
		CHECK(setxattr("f", "user.v", val, sizes[i], 0) == 0);
		CHECK(getxattr("f", "user.v", got, 65536) ==
		      (ssize_t)sizes[i]);
		CHECK(memcmp(val, got, sizes[i]) == 0);
	}
	FAILS(setxattr("f", "user.v", val, 65537, 0), E2BIG);
	CHECK(getxattr("f", "user.v", NULL, 0) == 65536);
	CHECK(removexattr("f", "user.v") == 0);
	free(val);
	free(got);
}

static void a_file_can_have_hundreds_of_xattrs(void)
{
	char name[300], val[64], got[64];
	int i;

	CHECK(touch("f") == 0);
	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "user.attribute-%d", i);
		snprintf(val, sizeof(val), "value %d", i * i);
		CHECK(setxattr("f", name, val, strlen(val), 0) == 0);
	}
	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "user.attribute-%d", i);
		snprintf(val, sizeof(val), "value %d", i * i);
		CHECK(getxattr("f", name, got, sizeof(got)) ==
		      (ssize_t)strlen(val));
		CHECK(memcmp(val, got, strlen(val)) == 0);
	}
	CHECK(listxattr("f", NULL, 0) > 300 * 16);
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[255] = '\0';
	CHECK(setxattr("f", name, "x", 1, 0) == 0);
}

static void xattrs_of_other_kinds(void)
{
	char buf[16];

	CHECK(mkdir("d", 0755) == 0 && symlink("d", "l") == 0);
	CHECK(setxattr("d", "user.dir", "x", 1, 0) == 0);
	FAILS(lsetxattr("l", "user.x", "x", 1, 0), EPERM);
	if (geteuid() != 0)
		return;
	CHECK(setxattr("d", "trusted.t", "yes", 3, 0) == 0);
	CHECK(getxattr("d", "trusted.t", buf, 16) == 3);
	CHECK(setxattr("d", "security.mine", "yes", 3, 0) == 0);
	CHECK(getxattr("d", "security.mine", buf, 16) == 3);
	CHECK(lsetxattr("l", "trusted.t", "on link", 7, 0) == 0);
	CHECK(lgetxattr("l", "trusted.t", buf, 16) == 7);
}

static void modes_keep_all_their_bits(void)
{
	mode_t m;

	CHECK(touch("f") == 0 && mkdir("d", 0755) == 0);
	for (m = 0; m < 010000; m += 037) {
		CHECK(chmod("f", m) == 0);
		CHECK((st_of("f").st_mode & 07777) == m);
		CHECK(chmod("d", m) == 0);
		CHECK((st_of("d").st_mode & 07777) == m);
	}
}

static void chown_clears_set_id_bits(void)
{
	if (geteuid() != 0)
		SKIP("needs root");
	CHECK(touch("f") == 0 && chmod("f", 06755) == 0);
	CHECK(chown("f", 1234, 4321) == 0);
	CHECK(st_of("f").st_uid == 1234 && st_of("f").st_gid == 4321);
	CHECK((st_of("f").st_mode & 07777) == 0755);
	CHECK(chown("f", (uid_t)-1, 7) == 0);
	CHECK(st_of("f").st_uid == 1234 && st_of("f").st_gid == 7);
	CHECK(mkdir("d", 0755) == 0 && chmod("d", 02755) == 0);
	CHECK(chown("d", 5, 5) == 0 && (st_of("d").st_mode & 02000));
	CHECK(symlink("f", "l") == 0 && lchown("l", 9, 9) == 0);
	CHECK(st_of("l").st_uid == 9 && st_of("f").st_uid == 1234);
}

static const struct posix_case cases[] = {
	CASE(utimensat_takes_now_omit_and_any_time),
	CASE(times_before_1970_and_after_2038_are_kept),
	CASE(changes_mark_mtime_and_ctime),
	CASE(who_opens_with_noatime_leaves_no_trace),
	CASE(reading_from_the_cache_marks_a_file_once),
	CASE(entries_mark_their_directory),
	CASE(a_write_clears_nothing_a_stat_sees_the_size),
	CASE(blocks_tell_what_a_file_takes),
	CASE(statfs_is_consistent),
	CASE(xattrs_obey_create_and_replace),
	CASE(xattr_values_up_to_64_kib),
	CASE(a_file_can_have_hundreds_of_xattrs),
	CASE(xattrs_of_other_kinds),
	CASE(modes_keep_all_their_bits),
	CASE(chown_clears_set_id_bits),
};

POSIX_MAIN(cases)
