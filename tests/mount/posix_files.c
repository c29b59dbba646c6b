/*
 * posix_files.c - claims about the contents of files on a mounted filesystem
 */
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "mount/posix.h"

#define MIB (1024 * 1024)

/* Size and contents of part of an open file. */
static bool range_is(int fd, uint64_t off, size_t len, unsigned salt)
{
	char *buf = malloc(len);
	bool good = pread(fd, buf, len, (off_t)off) == (ssize_t)len &&
		    filled(buf, len, off, salt);

	free(buf);
	return good;
}

static bool range_is_zero(int fd, uint64_t off, size_t len)
{
	char *buf = malloc(len);
	bool good = pread(fd, buf, len, (off_t)off) == (ssize_t)len &&
		    all_zero(buf, len);

	free(buf);
	return good;
}

/* Drop what the kernel has cached, so that reads come from the daemon. */
static bool forget_pages(int fd)
{
	return fsync(fd) == 0 &&
	       posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) == 0;
}

static void files_of_any_size_read_back(void)
{
	static const size_t sizes[] = { 0,	1,    100,   2000,   4095,
					4096,	4097, 10000, 131072, 131073,
					1048576, 5000000 };
	char name[32];
	size_t i;
	int fd;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(name, sizeof(name), "f%zu", sizes[i]);
		fd = make_file(name, sizes[i], (unsigned)i);
		CHECK(fd >= 0 && forget_pages(fd) && close(fd) == 0);
		CHECK(file_is(name, sizes[i], (unsigned)i));
	}
}

static void overwrites_at_odd_places_read_back(void)
{
	enum { SIZE = 300000, ROUNDS = 300 };
	char *model = calloc(1, SIZE), *buf = malloc(SIZE);
	int i, fd = open("f", O_RDWR | O_CREAT, 0644);
	unsigned x = 12345;

	CHECK(model && buf && fd >= 0 && ftruncate(fd, SIZE) == 0);
	for (i = 0; i < ROUNDS; i++) {
		size_t off, len;

		x = x * 1103515245 + 12345;
		off = (x >> 8) % SIZE;
		x = x * 1103515245 + 12345;
		len = (x >> 8) % 9000;
		if (len > SIZE - off)
			len = SIZE - off;
		fill(model + off, len, x, 7);
		CHECK(pwrite(fd, model + off, len, (off_t)off) ==
		      (ssize_t)len);
		if (i % 50 == 49)
			CHECK(forget_pages(fd));
	}
	CHECK(forget_pages(fd));
	CHECK(pread(fd, buf, SIZE, 0) == SIZE);
	CHECK(memcmp(model, buf, SIZE) == 0);
	close(fd);
	free(model);
	free(buf);
}

static void unlinked_files_live_while_open(void)
{
	struct stat st;
	int fd = make_file("f", MIB, 1);

	CHECK(fd >= 0 && unlink("f") == 0);
	CHECK(fstat(fd, &st) == 0 && st.st_nlink == 0);
	CHECK(forget_pages(fd) && range_is(fd, 0, MIB, 1));
	CHECK(pwrite(fd, "abc", 3, 2 * MIB) == 3);
	CHECK(ftruncate(fd, 100) == 0 && range_is(fd, 0, 100, 1));
	CHECK(close(fd) == 0);
	FAILS(open("f", O_RDONLY), ENOENT);
}

static void thousands_unlinked_while_open(void)
{
	enum { N = 3000 };
	static int fds[N];
	struct rlimit rl = { N + 100, N + 100 };
	char name[32];
	uint64_t got;
	int i;

	if (setrlimit(RLIMIT_NOFILE, &rl) < 0)
		SKIP("can't open %d files here", N);
	for (i = 0; i < N; i++) {
		uint64_t id = (uint64_t)i * 77;

		snprintf(name, sizeof(name), "f%d", i);
		fds[i] = open(name, O_RDWR | O_CREAT, 0600);
		CHECK(fds[i] >= 0 && write(fds[i], &id, 8) == 8);
		CHECK(unlink(name) == 0);
	}
	for (i = 0; i < N; i++) {
		CHECK(pread(fds[i], &got, 8, 0) == 8);
		CHECK(got == (uint64_t)i * 77 && close(fds[i]) == 0);
	}
}

static void truncate_cuts_and_extends_with_zeros(void)
{
	struct stat st;
	int ro, fd = make_file("f", 100000, 1);

	CHECK(fd >= 0 && ftruncate(fd, 50001) == 0);
	CHECK(ftruncate(fd, 200000) == 0);
	CHECK(forget_pages(fd));
	CHECK(range_is(fd, 0, 50001, 1));
	CHECK(range_is_zero(fd, 50001, 149999));
	CHECK(fstat(fd, &st) == 0 && st.st_size == 200000);
	CHECK(truncate("f", 0) == 0 && fstat(fd, &st) == 0);
	CHECK(st.st_size == 0 && st.st_blocks == 0);
	ro = open("f", O_RDONLY);
	FAILS(ftruncate(ro, 1), EINVAL);
	FAILS(write(ro, "x", 1), EBADF);
	FAILS(truncate(".", 1), EISDIR);
	FAILS(ftruncate(fd, -1), EINVAL);
	close(ro);
	close(fd);
}

static void small_files_grow_and_shrink_across_the_inline_limit(void)
{
	int i, fd = open("f", O_RDWR | O_CREAT, 0644);
	static char buf[40000];
	size_t len;

	CHECK(fd >= 0);
	for (i = 0; i < 60; i++) {
		len = (size_t)(i * 7919) % sizeof(buf);
		fill(buf, len, 0, 3);
		CHECK(ftruncate(fd, 0) == 0);
		CHECK(pwrite(fd, buf, len, 0) == (ssize_t)len);
		if (i % 3 == 0)
			CHECK(forget_pages(fd));
		CHECK(len == 0 || range_is(fd, 0, len, 3));
		len /= 2;
		CHECK(ftruncate(fd, (off_t)len) == 0 && forget_pages(fd));
		CHECK(file_is("f", len, 3));
	}
	close(fd);
}

static void holes_are_found_and_take_no_space(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	struct stat st;
	char x[4096];

	fill(x, sizeof(x), 0, 1);
	CHECK(fd >= 0 && pwrite(fd, x, 4096, 10 * MIB) == 4096);
	CHECK(pwrite(fd, x, 4096, 1024LL * MIB) == 4096 && fsync(fd) == 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 1024LL * MIB + 4096);
	CHECK(st.st_blocks <= 64);
	CHECK(lseek(fd, 0, SEEK_DATA) == 10 * MIB);
	CHECK(lseek(fd, 10 * MIB, SEEK_HOLE) == 10 * MIB + 4096);
	CHECK(lseek(fd, 11 * MIB, SEEK_DATA) == 1024LL * MIB);
	CHECK(lseek(fd, 1024LL * MIB, SEEK_HOLE) == st.st_size);
	CHECK(lseek(fd, 0, SEEK_HOLE) == 0);
	FAILS(lseek(fd, st.st_size, SEEK_DATA), ENXIO);
	CHECK(range_is_zero(fd, 512LL * MIB, 65536));
	close(fd);
}

/* Written, not yet stored: neither may be taken for a hole. */
static void holes_are_none_where_pages_wait_to_be_stored(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	int other = open("f", O_RDONLY);
	char x[4096], *map;

	fill(x, sizeof(x), 0, 1);
	CHECK(fd >= 0 && other >= 0 && ftruncate(fd, 8 * MIB) == 0);
	CHECK(pwrite(fd, x, 100, 50) == 100);
	CHECK(lseek(fd, 50, SEEK_DATA) == 50);
	CHECK(lseek(fd, 0, SEEK_HOLE) == 4096);
	CHECK(pwrite(fd, x, 4096, 2 * MIB) == 4096);
	CHECK(lseek(other, 4096, SEEK_DATA) == 2 * MIB);
	CHECK(pwrite(fd, x, 4096, 2 * MIB + 4096) == 4096);
	CHECK(lseek(other, 2 * MIB, SEEK_HOLE) == 2 * MIB + 8192);
	/* The hole between data is filled, and so the next one. */
	CHECK(pwrite(fd, x, 4096, 2 * MIB + 12288) == 4096 && fsync(fd) == 0);
	CHECK(pwrite(fd, x, 4096, 2 * MIB + 8192) == 4096);
	CHECK(pwrite(fd, x, 4096, 2 * MIB + 16384) == 4096);
	CHECK(lseek(fd, 2 * MIB, SEEK_HOLE) == 2 * MIB + 20480);
	map = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED);
	map[4 * MIB] = 1;
	CHECK(lseek(other, 3 * MIB, SEEK_DATA) == 4 * MIB);
	CHECK(munmap(map, 8 * MIB) == 0);
	/* Beyond the end that was stored last, and up to the new one. */
	FAILS(lseek(fd, 8 * MIB, SEEK_DATA), ENXIO);
	CHECK(pwrite(fd, x, 1000, 8 * MIB) == 1000);
	CHECK(lseek(fd, 8 * MIB, SEEK_DATA) == 8 * MIB);
	CHECK(pwrite(fd, x, 1000, 8 * MIB + 1000) == 1000);
	CHECK(lseek(fd, 8 * MIB, SEEK_HOLE) == 8 * MIB + 2000);
	FAILS(lseek(fd, 8 * MIB + 2000, SEEK_HOLE), ENXIO);
	close(other);
	close(fd);
}

/* Its pages are stored, and it is known to have closed, while we look. */
static void nor_while_who_wrote_them_closes(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644), ready[2], i;
	pid_t pid;
	char c;

	for (i = 0; i < 200; i++) {
		CHECK(fd >= 0 && ftruncate(fd, 0) == 0 &&
		      ftruncate(fd, MIB) == 0 && close(fd) == 0);
		CHECK(pipe(ready) == 0);
		pid = fork();
		if (pid == 0) {
			fd = open("f", O_RDWR);
			if (pwrite(fd, "x", 1, MIB / 2) == 1 &&
			    write(ready[1], "", 1) == 1)
				close(fd);
			_exit(0);
		}
		close(ready[1]);
		fd = open("f", O_RDONLY);
		CHECK(read(ready[0], &c, 1) == 1);
		CHECK(lseek(fd, 0, SEEK_DATA) == MIB / 2);
		CHECK(waitpid(pid, NULL, 0) == pid);
		close(ready[0]);
		close(fd);
		fd = open("f", O_RDWR);
	}
	close(fd);
}

static void fallocate_reserves_punches_and_zeroes(void)
{
	int fd = make_file("f", MIB, 1);
	struct stat st;

	CHECK(fd >= 0 && fsync(fd) == 0);
	CHECK(fallocate(fd, 0, 0, 2 * MIB) == 0 && fstat(fd, &st) == 0);
	CHECK(st.st_size == 2 * MIB && range_is(fd, 0, MIB, 1));
	CHECK(range_is_zero(fd, MIB, MIB));
	CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 4 * MIB, MIB) == 0);
	CHECK(fstat(fd, &st) == 0 && st.st_size == 2 * MIB);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10001,
			100000) == 0);
	CHECK(range_is(fd, 0, 10001, 1) && range_is_zero(fd, 10001, 100000));
	CHECK(range_is(fd, 110001, 200000, 1));
	CHECK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 500000, 33333) == 0);
	CHECK(range_is_zero(fd, 500000, 33333));
	CHECK(forget_pages(fd) && range_is_zero(fd, 500000, 33333));
	CHECK(range_is(fd, 533333, 300000, 1));
	CHECK(pwrite(fd, "y", 1, MIB + 5) == 1 && forget_pages(fd));
	CHECK(range_is_zero(fd, MIB, 5) && range_is_zero(fd, MIB + 6, 9000));
	FAILS(fallocate(fd, 0, 0, 0), EINVAL);
	close(fd);
}

static void a_hole_punched_gives_its_space_back(void)
{
	int fd = make_file("f", 4 * MIB, 1);
	struct stat a, b;

	/* The kernel asks for st_blocks anew when a writer closes. */
	CHECK(fd >= 0 && close(fd) == 0 && stat("f", &a) == 0);
	CHECK(a.st_blocks >= 4 * MIB / 512);
	fd = open("f", O_RDWR);
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
			3 * MIB) == 0);
	CHECK(fstat(fd, &b) == 0);
	CHECK(b.st_blocks <= a.st_blocks - 3 * MIB / 512);
	CHECK(lseek(fd, 0, SEEK_DATA) == 3 * MIB);
	close(fd);
}

static void copy_file_range_copies_at_any_offset(void)
{
	int a = make_file("a", MIB, 1);
	int b = open("b", O_RDWR | O_CREAT, 0644);
	off_t from, to;
	char *buf = malloc(MIB);
	ssize_t got;
	size_t left;

	CHECK(a >= 0 && b >= 0 && buf);
	from = 0, to = 0, left = MIB;
	while (left > 0) {
		got = copy_file_range(a, &from, b, &to, left, 0);
		CHECK(got > 0);
		left -= (size_t)got;
	}
	CHECK(file_is("b", MIB, 1));
	/* The copy is a copy: neither sees what becomes of the other. */
	CHECK(pwrite(a, "changed", 7, 8192) == 7 && fsync(a) == 0);
	CHECK(file_is("b", MIB, 1));
	from = 12345, to = 100, left = 50000;
	while (left > 0) {
		got = copy_file_range(a, &from, b, &to, left, 0);
		CHECK(got > 0);
		left -= (size_t)got;
	}
	CHECK(forget_pages(b) && pread(b, buf, 50000, 100) == 50000);
	CHECK(filled(buf, 50000, 12345, 1));
	CHECK(range_is(b, 0, 100, 1) && range_is(b, 50100, 100000, 1));
	from = MIB, to = 0;
	CHECK(copy_file_range(a, &from, b, &to, 10, 0) == 0);
	from = 0, to = 10;
	FAILS(copy_file_range(a, &from, a, &to, 100, 0), EINVAL);
	free(buf);
	close(a);
	close(b);
}

static void mmap_and_read_see_the_same_bytes(void)
{
	int fd = make_file("f", MIB, 1);
	char *map, c;

	CHECK(fd >= 0);
	map = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED && filled(map, MIB, 0, 1));
	fill(map + 5000, 9000, 5000, 2);
	CHECK(range_is(fd, 5000, 9000, 2));
	CHECK(pwrite(fd, "Z", 1, 77777) == 1 && map[77777] == 'Z');
	CHECK(msync(map, MIB, MS_SYNC) == 0 && munmap(map, MIB) == 0);
	CHECK(forget_pages(fd));
	CHECK(range_is(fd, 5000, 9000, 2) && range_is(fd, 0, 5000, 1));
	CHECK(pread(fd, &c, 1, 77777) == 1 && c == 'Z');
	close(fd);
}

static void mmap_survives_close_and_unlink(void)
{
	int fd = make_file("f", 300000, 1);
	char *map;

	CHECK(fd >= 0);
	map = mmap(NULL, 300000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED && close(fd) == 0 && unlink("f") == 0);
	map[250000] = 'q';
	CHECK(filled(map, 250000, 0, 1) && map[250000] == 'q');
	CHECK(munmap(map, 300000) == 0);
}

static void direct_io_aligned_and_not(void)
{
	int plain, fd = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	char *buf;
	ssize_t got;

	if (fd < 0 && errno == EINVAL)
		SKIP("no O_DIRECT");
	CHECK(fd >= 0 && posix_memalign((void **)&buf, 4096, MIB) == 0);
	fill(buf, MIB, 0, 1);
	CHECK(pwrite(fd, buf, MIB, 0) == MIB);
	memset(buf, 0, MIB);
	CHECK(pread(fd, buf, MIB, 0) == MIB && filled(buf, MIB, 0, 1));
	/* Unaligned: refused or right. */
	fill(buf, 1000, 5001, 2);
	got = pwrite(fd, buf, 1000, 5001);
	CHECK(got == 1000 || (got == -1 && errno == EINVAL));
	plain = open("f", O_RDONLY);
	CHECK(range_is(plain, 5001, 1000, got == 1000 ? 2 : 1));
	CHECK(range_is(plain, 0, 5001, 1) && range_is(plain, 6001, 9000, 1));
	got = pread(fd, buf + 1, 777, 4097);
	CHECK(got == -1 || filled(buf + 1, 777, 4097, 1));
	free(buf);
	close(plain);
	close(fd);
}

static void buffered_and_direct_writes_agree(void)
{
	int fd = make_file("f", 256 * 1024, 1);
	int direct = open("f", O_RDWR | O_DIRECT);
	char *buf;

	if (direct < 0)
		SKIP("no O_DIRECT");
	CHECK(fd >= 0 && posix_memalign((void **)&buf, 4096, 8192) == 0);
	/* Dirty pages are there; a direct read must see them. */
	CHECK(pread(direct, buf, 8192, 4096) == 8192);
	CHECK(filled(buf, 8192, 4096, 1));
	fill(buf, 8192, 16384, 2);
	CHECK(pwrite(direct, buf, 8192, 16384) == 8192);
	CHECK(range_is(fd, 16384, 8192, 2) && range_is(fd, 0, 16384, 1));
	free(buf);
	close(direct);
	close(fd);
}

static void appends_of_two_processes_all_arrive(void)
{
	enum { N = 400, LEN = 37 };
	char buf[LEN], line[LEN];
	int i, k, status, counts[2] = { 0, 0 };
	pid_t pid[2];
	FILE *f;

	CHECK(close(open("f", O_CREAT | O_WRONLY, 0644)) == 0);
	for (k = 0; k < 2; k++) {
		pid[k] = fork();
		CHECK(pid[k] >= 0);
		if (pid[k] == 0) {
			int fd = open("f", O_WRONLY | O_APPEND);

			memset(buf, 'a' + k, LEN - 1);
			buf[LEN - 1] = '\n';
			for (i = 0; i < N; i++)
				if (write(fd, buf, LEN) != LEN)
					_exit(1);
			_exit(0);
		}
	}
	for (k = 0; k < 2; k++)
		CHECK(waitpid(pid[k], &status, 0) == pid[k] && status == 0);
	f = fopen("f", "r");
	CHECK(f);
	while (fread(line, 1, LEN, f) == LEN) {
		CHECK(line[LEN - 1] == '\n' && line[0] == line[LEN - 2]);
		counts[line[0] - 'a']++;
	}
	fclose(f);
	CHECK(counts[0] == N && counts[1] == N);
}

static void vectors_sendfile_and_splice(void)
{
	int a = make_file("a", 200000, 1);
	int b = open("b", O_RDWR | O_CREAT, 0644);
	int c = open("c", O_RDWR | O_CREAT, 0644);
	struct iovec iov[3];
	char x[3][1000];
	int i, p[2];
	off_t off = 0;

	CHECK(a >= 0 && b >= 0 && c >= 0 && pipe(p) == 0);
	CHECK(sendfile(b, a, &off, 200000) == 200000);
	CHECK(file_is("b", 200000, 1));
	for (i = 0; i < 3; i++) {
		fill(x[i], 1000, (uint64_t)i * 1000, 2);
		iov[i].iov_base = x[i];
		iov[i].iov_len = 1000;
	}
	CHECK(pwritev(c, iov, 3, 0) == 3000 && file_is("c", 3000, 2));
	off = 0;
	CHECK(splice(a, &off, p[1], NULL, 4096, 0) == 4096);
	off = 0;
	CHECK(splice(p[0], NULL, c, &off, 4096, 0) == 4096);
	CHECK(file_is("c", 4096, 1));
	close(a);
	close(b);
	close(c);
	close(p[0]);
	close(p[1]);
}

static void offsets_up_to_the_largest_file(void)
{
	int fd = open("f", O_RDWR | O_CREAT, 0644);
	off_t big = (off_t)1 << 42;
	char c = 0;

	CHECK(fd >= 0 && pwrite(fd, "x", 1, big) == 1 && forget_pages(fd));
	CHECK(pread(fd, &c, 1, big) == 1 && c == 'x');
	CHECK(pread(fd, &c, 1, big + 1) == 0);
	CHECK(pread(fd, &c, 1, big - 1) == 1 && c == 0);
	CHECK(pwrite(fd, "x", 1, INT64_MAX) == -1);
	CHECK(errno == EFBIG || errno == EINVAL);
	close(fd);
}

static void locks_exclude_each_other(void)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
			    .l_start = 10, .l_len = 10 };
	int a = make_file("f", 100, 1), b = open("f", O_RDWR);

	CHECK(a >= 0 && b >= 0);
	CHECK(flock(a, LOCK_EX) == 0);
	FAILS(flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK(flock(a, LOCK_UN) == 0 && flock(b, LOCK_EX | LOCK_NB) == 0);
	CHECK(fcntl(a, F_OFD_SETLK, &lk) == 0);
	FAILS(fcntl(b, F_OFD_SETLK, &lk), EAGAIN);
	lk.l_start = 30;
	CHECK(fcntl(b, F_OFD_SETLK, &lk) == 0);
	close(a);
	close(b);
}

static void o_trunc_and_o_sync_and_fsync(void)
{
	struct stat st;
	int fd, dir;

	CHECK(close(make_file("f", 50000, 1)) == 0);
	fd = open("f", O_WRONLY | O_TRUNC | O_SYNC);
	CHECK(fd >= 0 && fstat(fd, &st) == 0 && st.st_size == 0);
	CHECK(write(fd, "abc", 3) == 3 && fdatasync(fd) == 0);
	CHECK(fsync(fd) == 0 && close(fd) == 0);
	fd = open("f", O_RDONLY);
	CHECK(fd >= 0 && fsync(fd) == 0 && close(fd) == 0);
	dir = open(".", O_RDONLY | O_DIRECTORY);
	CHECK(dir >= 0 && fsync(dir) == 0 && fdatasync(dir) == 0);
	close(dir);
}

static const struct posix_case cases[] = {
	CASE(files_of_any_size_read_back),
	CASE(overwrites_at_odd_places_read_back),
	CASE(unlinked_files_live_while_open),
	CASE(thousands_unlinked_while_open),
	CASE(truncate_cuts_and_extends_with_zeros),
	CASE(small_files_grow_and_shrink_across_the_inline_limit),
	CASE(holes_are_found_and_take_no_space),
	CASE(holes_are_none_where_pages_wait_to_be_stored),
	CASE(nor_while_who_wrote_them_closes),
	CASE(fallocate_reserves_punches_and_zeroes),
	CASE(a_hole_punched_gives_its_space_back),
	CASE(copy_file_range_copies_at_any_offset),
	CASE(mmap_and_read_see_the_same_bytes),
	CASE(mmap_survives_close_and_unlink),
	CASE(direct_io_aligned_and_not),
	CASE(buffered_and_direct_writes_agree),
	CASE(appends_of_two_processes_all_arrive),
	CASE(vectors_sendfile_and_splice),
	CASE(offsets_up_to_the_largest_file),
	CASE(locks_exclude_each_other),
	CASE(o_trunc_and_o_sync_and_fsync),
};

POSIX_MAIN(cases)
