/*
 * posix_names.c - claims about names and directories on a mounted filesystem
 */
#include <dirent.h>
#include <limits.h>
#include <linux/fs.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "mount/posix.h"

static int touch(const char *name)
{
	int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);

	if (fd < 0)
		return -1;
	return close(fd);
}

static ino_t ino_of(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0 ? st.st_ino : 0;
}

static nlink_t nlink_of(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0 ? st.st_nlink : 0;
}

static int count_entries(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	if (!d)
		return -1;
	while ((e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			n++;
	closedir(d);
	return n;
}

static void create_excl_refuses_an_existing_name(void)
{
	CHECK(touch("a") == 0);
	FAILS(touch("a"), EEXIST);
	FAILS(mkdir("a", 0755), EEXIST);
	FAILS(symlink("x", "a"), EEXIST);
	FAILS(mknod("a", S_IFIFO | 0644, 0), EEXIST);
	FAILS(link("a", "a"), EEXIST);
	FAILS(open("no/such/dir", O_CREAT | O_WRONLY, 0644), ENOENT);
	FAILS(open("a/b", O_CREAT | O_WRONLY, 0644), ENOTDIR);
}

static void rename_replaces_a_file(void)
{
	CHECK(close(make_file("a", 5000, 1)) == 0);
	CHECK(close(make_file("b", 7000, 2)) == 0);
	CHECK(rename("a", "b") == 0);
	CHECK(file_is("b", 5000, 1));
	FAILS(access("a", F_OK), ENOENT);
	CHECK(count_entries(".") == 1);
}

static void rename_of_two_links_to_one_file_does_nothing(void)
{
	CHECK(touch("a") == 0 && link("a", "b") == 0);
	CHECK(rename("a", "b") == 0);
	CHECK(nlink_of("a") == 2 && nlink_of("b") == 2);
}

static void rename_keeps_the_rules_of_directories(void)
{
	CHECK(mkdir("d", 0755) == 0 && mkdir("e", 0755) == 0);
	CHECK(touch("f") == 0 && touch("e/x") == 0);
	FAILS(rename("d", "f"), ENOTDIR);
	FAILS(rename("f", "d"), EISDIR);
	FAILS(rename("d", "e"), ENOTEMPTY);
	FAILS(rename("d", "d/in"), EINVAL);
	FAILS(rename("nothing", "d"), ENOENT);
	CHECK(rename("e", "d") == 0);
	CHECK(access("d/x", F_OK) == 0 && ino_of("e") == 0);
	CHECK(nlink_of(".") == 3);
}

static void rename_moves_a_directory_with_its_parent(void)
{
	ino_t here = ino_of(".");

	CHECK(mkdir("a", 0755) == 0 && mkdir("a/sub", 0755) == 0);
	CHECK(mkdir("b", 0755) == 0 && touch("a/sub/x") == 0);
	CHECK(nlink_of("a") == 3 && nlink_of("b") == 2);
	CHECK(rename("a/sub", "b/moved") == 0);
	CHECK(nlink_of("a") == 2 && nlink_of("b") == 3);
	CHECK(ino_of("b/moved/..") == ino_of("b"));
	CHECK(rename("b/moved", "top") == 0);
	CHECK(ino_of("top/..") == here);
	CHECK(access("top/x", F_OK) == 0);
}

static void rename_noreplace_refuses_an_existing_name(void)
{
	CHECK(close(make_file("a", 10, 1)) == 0);
	CHECK(close(make_file("b", 20, 2)) == 0);
	FAILS(renameat2(AT_FDCWD, "a", AT_FDCWD, "b", RENAME_NOREPLACE),
	      EEXIST);
	CHECK(file_is("a", 10, 1) && file_is("b", 20, 2));
	CHECK(renameat2(AT_FDCWD, "a", AT_FDCWD, "c", RENAME_NOREPLACE) == 0);
	CHECK(file_is("c", 10, 1) && ino_of("a") == 0);
}

static void rename_exchange_swaps_a_file_and_a_directory(void)
{
	CHECK(mkdir("d", 0755) == 0 && mkdir("d/sub", 0755) == 0);
	CHECK(mkdir("p", 0755) == 0);
	CHECK(close(make_file("p/f", 99, 3)) == 0);
	FAILS(renameat2(AT_FDCWD, "d", AT_FDCWD, "no", RENAME_EXCHANGE),
	      ENOENT);
	CHECK(renameat2(AT_FDCWD, "d", AT_FDCWD, "p/f", RENAME_EXCHANGE) == 0);
	CHECK(file_is("d", 99, 3));
	CHECK(ino_of("p/f/..") == ino_of("p") && nlink_of("p") == 3);
	CHECK(nlink_of(".") == 3); /* p; d is a file now */
	FAILS(renameat2(AT_FDCWD, "p", AT_FDCWD, "p/f/sub", RENAME_EXCHANGE),
	      EINVAL);
}

static void rename_over_an_open_file_keeps_its_contents(void)
{
	char buf[4096];
	int fd = make_file("old", sizeof(buf), 1);

	CHECK(fd >= 0 && close(make_file("new", 100, 2)) == 0);
	CHECK(rename("new", "old") == 0);
	CHECK(pread(fd, buf, sizeof(buf), 0) == sizeof(buf));
	CHECK(filled(buf, sizeof(buf), 0, 1));
	close(fd);
}

static void hard_links_share_one_inode(void)
{
	int fd;

	CHECK(close(make_file("a", 3000, 1)) == 0 && mkdir("d", 0755) == 0);
	CHECK(link("a", "d/b") == 0 && nlink_of("a") == 2);
	CHECK(ino_of("a") == ino_of("d/b"));
	fd = open("d/b", O_WRONLY | O_APPEND);
	CHECK(fd >= 0 && write(fd, "more", 4) == 4 && close(fd) == 0);
	fd = open("a", O_RDONLY);
	CHECK(fd >= 0 && lseek(fd, 0, SEEK_END) == 3004 && close(fd) == 0);
	FAILS(link("d", "e"), EPERM);
	FAILS(link("none", "e"), ENOENT);
	CHECK(unlink("a") == 0 && nlink_of("d/b") == 1);
}

static void many_hard_links_count_right(void)
{
	char name[32];
	int i;

	CHECK(touch("a") == 0);
	for (i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		CHECK(link("a", name) == 0);
	}
	CHECK(nlink_of("a") == 501);
	for (i = 0; i < 500; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		CHECK(unlink(name) == 0);
	}
	CHECK(nlink_of("a") == 1);
}

static void names_up_to_255_bytes_and_of_any_bytes(void)
{
	char name[300];
	int i, seen = 0;
	struct dirent *e;
	DIR *d;

	memset(name, 'n', sizeof(name));
	name[256] = '\0';
	FAILS(touch(name), ENAMETOOLONG);
	FAILS(mkdir(name, 0755), ENAMETOOLONG);
	FAILS(access(name, F_OK), ENAMETOOLONG);
	name[255] = '\0';
	CHECK(touch(name) == 0);
	CHECK(rename(name, "short") == 0 && rename("short", name) == 0);
	for (i = 1; i < 256; i++) {
		char odd[3] = { '_', (char)i, '\0' };

		if (i != '/')
			CHECK(touch(odd) == 0);
	}
	d = opendir(".");
	CHECK(d);
	while ((e = readdir(d)))
		seen += e->d_name[0] == '_' && strlen(e->d_name) == 2;
	closedir(d);
	CHECK(seen == 254);
}

static void symlinks_up_to_4095_bytes(void)
{
	char target[5000], got[5000];
	size_t lens[] = { 1, 100, 2000, 3990, 4095 };
	size_t i;
	struct stat st;

	for (i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		memset(target, 't', sizeof(target));
		target[lens[i]] = '\0';
		CHECK(symlink(target, "l") == 0);
		CHECK(readlink("l", got, sizeof(got)) == (ssize_t)lens[i]);
		CHECK(memcmp(target, got, lens[i]) == 0);
		CHECK(lstat("l", &st) == 0 && st.st_size == (off_t)lens[i]);
		CHECK(S_ISLNK(st.st_mode) && unlink("l") == 0);
	}
	CHECK(symlink("l2", "l1") == 0 && symlink("l1", "l2") == 0);
	FAILS(open("l1", O_RDONLY), ELOOP);
	FAILS(open("l1", O_RDONLY | O_NOFOLLOW), ELOOP);
}

static void unlink_and_rmdir_keep_their_rules(void)
{
	CHECK(mkdir("d", 0755) == 0 && touch("d/x") == 0 && touch("f") == 0);
	FAILS(unlink("d"), EISDIR);
	FAILS(rmdir("f"), ENOTDIR);
	FAILS(rmdir("d"), ENOTEMPTY);
	FAILS(rmdir("."), EINVAL);
	FAILS(unlink("no"), ENOENT);
	FAILS(rmdir("no"), ENOENT);
	CHECK(unlink("d/x") == 0 && rmdir("d") == 0);
	CHECK(nlink_of(".") == 2);
}

static void a_removed_directory_takes_no_entries(void)
{
	int fd;

	CHECK(mkdir("d", 0755) == 0);
	fd = open("d", O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && rmdir("d") == 0);
	FAILS(openat(fd, "x", O_CREAT | O_WRONLY, 0644), ENOENT);
	FAILS(mkdirat(fd, "x", 0755), ENOENT);
	close(fd);
}

static void inode_numbers_are_not_reused(void)
{
	ino_t ino[64];
	int i, k;

	for (i = 0; i < 64; i++) {
		CHECK(touch("f") == 0);
		ino[i] = ino_of("f");
		CHECK(ino[i] != 0 && unlink("f") == 0);
		for (k = 0; k < i; k++)
			CHECK(ino[k] != ino[i]);
	}
}

static void a_large_directory_lists_each_entry_once(void)
{
	enum { N = 10000 };
	static unsigned char seen[N];
	char name[32];
	struct dirent *e;
	int i, n = 0;
	DIR *d;

	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		CHECK(touch(name) == 0);
	}
	d = opendir(".");
	CHECK(d);
	while ((e = readdir(d))) {
		if (sscanf(e->d_name, "entry-%d", &i) != 1)
			continue;
		CHECK(i >= 0 && i < N && !seen[i] && e->d_type == DT_REG);
		seen[i] = 1;
		n++;
	}
	closedir(d);
	CHECK(n == N);
	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		CHECK(unlink(name) == 0);
	}
	CHECK(count_entries(".") == 0);
}

static void readdir_survives_removals_and_seekdir(void)
{
	char name[256];
	struct dirent *e;
	int i, n = 0;
	long at;
	DIR *d;

	for (i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "%d", i);
		CHECK(touch(name) == 0);
	}
	d = opendir(".");
	CHECK(d);
	/* What rm -r does: remove while listing. None may be missed. */
	while ((e = readdir(d)))
		if (e->d_name[0] != '.')
			CHECK(unlink(e->d_name) == 0);
	closedir(d);
	CHECK(count_entries(".") == 0);

	for (i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%d", i);
		CHECK(touch(name) == 0);
	}
	d = opendir(".");
	CHECK(d);
	for (i = 0; i < 50; i++)
		CHECK(readdir(d));
	at = telldir(d);
	e = readdir(d);
	CHECK(e);
	snprintf(name, sizeof(name), "%s", e->d_name);
	while (readdir(d))
		n++;
	seekdir(d, at);
	e = readdir(d);
	CHECK(e && strcmp(e->d_name, name) == 0);
	rewinddir(d);
	for (n = 0; readdir(d); n++)
		;
	closedir(d);
	CHECK(n == 102);
}

/* Names in one call's worth of entries; -1. */
static int some_names(int fd, char name[][16], int max)
{
	static char buf[32768];
	long got = syscall(SYS_getdents64, fd, buf, sizeof(buf));
	int n = 0;

	for (long at = 0; at < got && n < max; n++) {
		struct dirent64 *e = (struct dirent64 *)(buf + at);

		snprintf(name[n], 16, "%.15s", e->d_name);
		at += e->d_reclen;
	}
	return got < 0 ? -1 : n;
}

/* Answers that are made before somebody asks for them must not tell of what
 * has gone since. */
static void a_listing_from_a_place_on_shows_what_is_there(void)
{
	enum { N = 3000 };
	static char first[N][16], next[N][16];
	int i, n, m, fd, again;
	char name[16];
	off_t at;

	for (i = 0; i < N; i++) {
		snprintf(name, sizeof(name), "%d", i);
		CHECK(touch(name) == 0);
	}
	fd = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && some_names(fd, first, N) > 0);
	at = lseek(fd, 0, SEEK_CUR);
	n = some_names(fd, first, N);
	CHECK(at > 0 && n > 100);
	/* What the kernel keeps of this listing is out of date now. */
	CHECK(touch("new") == 0 && unlink("new") == 0);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && some_names(fd, next, N) > 0);
	usleep(50000); /* time to make the next answer */
	CHECK(unlink(first[n / 2]) == 0);
	again = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(again >= 0 && lseek(again, at, SEEK_SET) == at);
	m = some_names(again, next, N);
	close(again);
	close(fd);
	CHECK(m > n / 2 + 1);
	for (i = 0; i < m; i++)
		CHECK(strcmp(next[i], first[n / 2]) != 0);
	CHECK(strcmp(next[0], first[0]) == 0);
	CHECK(strcmp(next[n / 2], first[n / 2 + 1]) == 0);
}

static void d_type_and_dot_entries_are_right(void)
{
	struct dirent *e;
	int seen = 0;
	DIR *d;

	CHECK(mkdir("d", 0755) == 0 && touch("f") == 0);
	CHECK(symlink("x", "l") == 0 && mkfifo("p", 0644) == 0);
	d = opendir(".");
	CHECK(d);
	while ((e = readdir(d))) {
		switch (e->d_name[0]) {
		case 'd': CHECK(e->d_type == DT_DIR); break;
		case 'f': CHECK(e->d_type == DT_REG); break;
		case 'l': CHECK(e->d_type == DT_LNK); break;
		case 'p': CHECK(e->d_type == DT_FIFO); break;
		case '.': CHECK(e->d_type == DT_DIR); break;
		default: FAIL("stray entry %s", e->d_name);
		}
		CHECK(e->d_ino == ino_of(e->d_name));
		seen++;
	}
	closedir(d);
	CHECK(seen == 6);
}

static void deep_trees_and_long_paths(void)
{
	char up[64] = "..";
	int i, fd;

	for (i = 0; i < 300; i++)
		CHECK(mkdir("directory-level", 0755) == 0 &&
		      chdir("directory-level") == 0);
	CHECK(touch("leaf") == 0);
	fd = open("leaf", O_RDONLY);
	CHECK(fd >= 0 && close(fd) == 0 && unlink("leaf") == 0);
	for (i = 0; i < 300; i++)
		CHECK(chdir(up) == 0 && rmdir("directory-level") == 0);
}

static void open_fifos_outlive_their_names(void)
{
	struct stat st;
	char c = 0;
	int fd;

	CHECK(mkfifo("p", 0600) == 0 && (fd = open("p", O_RDWR)) >= 0);
	CHECK(unlink("p") == 0);
	CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0 && S_ISFIFO(st.st_mode));
	CHECK(fchmod(fd, 0640) == 0 && fstat(fd, &st) == 0);
	CHECK((st.st_mode & 07777) == 0640);
	CHECK(write(fd, "x", 1) == 1 && read(fd, &c, 1) == 1 && c == 'x');
	CHECK(close(fd) == 0);
}

static void fifos_carry_data(void)
{
	char buf[8];
	pid_t pid;
	int fd, status;

	CHECK(mkfifo("p", 0600) == 0);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		fd = open("p", O_WRONLY);
		_exit(fd >= 0 && write(fd, "hello", 5) == 5 ? 0 : 1);
	}
	fd = open("p", O_RDONLY);
	CHECK(fd >= 0 && read(fd, buf, sizeof(buf)) == 5);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	close(fd);
}

static void sockets_can_be_bound_and_reached(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX, .sun_path = "s" };
	int a = socket(AF_UNIX, SOCK_STREAM, 0);
	int b = socket(AF_UNIX, SOCK_STREAM, 0);
	struct stat st;

	CHECK(a >= 0 && b >= 0);
	CHECK(bind(a, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	CHECK(lstat("s", &st) == 0 && S_ISSOCK(st.st_mode));
	CHECK(listen(a, 1) == 0);
	CHECK(connect(b, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	close(a);
	close(b);
}

static void device_nodes_keep_their_numbers(void)
{
	struct stat st;

	if (geteuid() != 0)
		SKIP("needs root");
	CHECK(mknod("c", S_IFCHR | 0600, makedev(4000, 700001)) == 0);
	CHECK(mknod("b", S_IFBLK | 0600, makedev(8, 17)) == 0);
	CHECK(stat("c", &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(major(st.st_rdev) == 4000 && minor(st.st_rdev) == 700001);
	CHECK(stat("b", &st) == 0 && S_ISBLK(st.st_mode));
	CHECK(st.st_rdev == makedev(8, 17));
}

static void tmpfile_works_or_says_that_it_cannot(void)
{
	char proc[64];
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0) {
		CHECK(errno == EOPNOTSUPP || errno == EISDIR);
		SKIP("no O_TMPFILE in this libfuse");
	}
	CHECK(write(fd, "x", 1) == 1);
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	CHECK(linkat(AT_FDCWD, proc, AT_FDCWD, "t", AT_SYMLINK_FOLLOW) == 0);
	CHECK(close(fd) == 0 && nlink_of("t") == 1);
}

static void handles_find_files_again_until_they_are_gone(void)
{
	struct file_handle *h = malloc(sizeof(*h) + MAX_HANDLE_SZ);
	int mount_id, fd, dir = open(".", O_RDONLY | O_DIRECTORY);
	char buf[100];

	if (geteuid() != 0)
		SKIP("needs root");
	CHECK(h && dir >= 0 && close(make_file("f", 100, 1)) == 0);
	h->handle_bytes = MAX_HANDLE_SZ;
	CHECK(name_to_handle_at(AT_FDCWD, "f", h, &mount_id, 0) == 0);
	CHECK(rename("f", "g") == 0);
	fd = open_by_handle_at(dir, h, O_RDONLY);
	CHECK(fd >= 0 && read(fd, buf, 100) == 100 && filled(buf, 100, 0, 1));
	CHECK(close(fd) == 0 && unlink("g") == 0);
	FAILS(open_by_handle_at(dir, h, O_RDONLY), ESTALE);
	close(dir);
	free(h);
}

static const struct posix_case cases[] = {
	CASE(create_excl_refuses_an_existing_name),
	CASE(rename_replaces_a_file),
	CASE(rename_of_two_links_to_one_file_does_nothing),
	CASE(rename_keeps_the_rules_of_directories),
	CASE(rename_moves_a_directory_with_its_parent),
	CASE(rename_noreplace_refuses_an_existing_name),
	CASE(rename_exchange_swaps_a_file_and_a_directory),
	CASE(rename_over_an_open_file_keeps_its_contents),
	CASE(hard_links_share_one_inode),
	CASE(many_hard_links_count_right),
	CASE(names_up_to_255_bytes_and_of_any_bytes),
	CASE(symlinks_up_to_4095_bytes),
	CASE(unlink_and_rmdir_keep_their_rules),
	CASE(a_removed_directory_takes_no_entries),
	CASE(inode_numbers_are_not_reused),
	CASE(a_large_directory_lists_each_entry_once),
	CASE(readdir_survives_removals_and_seekdir),
	CASE(a_listing_from_a_place_on_shows_what_is_there),
	CASE(d_type_and_dot_entries_are_right),
	CASE(deep_trees_and_long_paths),
	CASE(open_fifos_outlive_their_names),
	CASE(fifos_carry_data),
	CASE(sockets_can_be_bound_and_reached),
	CASE(device_nodes_keep_their_numbers),
	CASE(tmpfile_works_or_says_that_it_cannot),
	CASE(handles_find_files_again_until_they_are_gone),
};

POSIX_MAIN(cases)
