/*
 * mix.c - a bit of everything, for threads of the daemon to meet each other
 *
 * usage: mix DIR SECONDS SEED
 *
 * Picks names out of a few, in directories that other processes of this
 * program use as well, and does something to them: what is tested is not what
 * comes of it (others change it at the same time, snapshots are restored), but
 * that nothing but the expected errors come back. Those who look at the daemon
 * with a sanitizer see the rest. Exit status 1, with a line on stderr, after an
 * error that can't be.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define DIRS 3u
#define NAMES 24u
#define BYTES (192u << 10)

static uint64_t rng;
static char buf[BYTES];
static sigjmp_buf lost;

static unsigned below(unsigned n)
{
	rng ^= rng >> 12;
	rng ^= rng << 25;
	rng ^= rng >> 27;
	return (unsigned)((rng * UINT64_C(2685821657736338717)) >> 33) % n;
}

/* What others can bring about: a name that came or went, a file of a state that
 * was replaced by a restore, a full disk. */
static void check(long got, const char *what)
{
	static const int fine[] = { ENOENT, EEXIST, ESTALE, ENOTEMPTY, EISDIR,
				    ENOTDIR, ENOSPC, ENODATA, EINVAL, EMLINK,
				    ENXIO, EROFS, ESPIPE, EPIPE, EAGAIN };

	if (got >= 0)
		return;
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		if (errno == fine[i])
			return;
	fprintf(stderr, "mix: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* The file belongs to a state that a restore has replaced. */
static bool replaced(int fd)
{
	struct statx stx;

	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_SIZE,
		     &stx) && errno == ESTALE;
}

/* Pages written through a mapping that the daemon no longer takes: whoever asks
 * the kernel for that file next hears of it, as EIO. */
static void check_of(int fd, int other, long got, const char *what)
{
	int err = errno;

	if (got < 0 && err == EIO && (replaced(fd) || replaced(other)))
		err = ESTALE;
	errno = err;
	check(got, what);
}

static const char *name(void)
{
	static char names[4][64];
	static unsigned turn;
	char *s = names[turn++ % 4];

	snprintf(s, sizeof(names[0]), "d%u/f%u", below(DIRS), below(NAMES));
	return s;
}

static int open_some(int flags)
{
	int fd = open(name(), flags | O_CLOEXEC | O_NOFOLLOW |
			       O_NONBLOCK /* fifos */, 0644);

	if (fd < 0 && errno == ELOOP)
		errno = ENOENT;
	check(fd, "open");
	return fd;
}

static void do_write(void)
{
	int fd = open_some(O_RDWR | O_CREAT | (below(4) ? 0 : O_TRUNC));

	if (fd < 0)
		return;
	check(pwrite(fd, buf, 1 + below(BYTES), below(BYTES)), "write");
	if (!below(4))
		check_of(fd, fd, below(2) ? fsync(fd) : fdatasync(fd),
			 "fsync");
	close(fd);
}

static void do_append(void)
{
	int fd = open_some(O_WRONLY | O_CREAT | O_APPEND);

	if (fd < 0)
		return;
	check(write(fd, buf, 1 + below(9000)), "append");
	close(fd);
}

static void do_read(void)
{
	static char to[BYTES];
	int fd = open_some(O_RDONLY);

	if (fd < 0)
		return;
	check(pread(fd, to, sizeof(to), below(BYTES)), "read");
	check(lseek(fd, below(BYTES), below(2) ? SEEK_HOLE : SEEK_DATA),
	      "lseek");
	close(fd);
}

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(lost, 1); /* the file is shorter by now, or gone */
}

static void do_mmap(void)
{
	volatile int fd = open_some(O_RDWR | O_CREAT);
	char *volatile p = MAP_FAILED;
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_size > 4096)
		p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE,
			 MAP_SHARED, fd, 0);
	if (p != MAP_FAILED) {
		if (!sigsetjmp(lost, 1)) {
			memset(p + below((unsigned)st.st_size - 4096), 'm',
			       4096);
			(void)msync(p, (size_t)st.st_size,
				    below(2) ? MS_SYNC : MS_ASYNC);
		}
		munmap(p, (size_t)st.st_size);
	}
	close(fd);
}

static void do_size(void)
{
	int fd = open_some(O_RDWR);

	if (fd < 0)
		return;
	switch (below(3)) {
	case 0:
		check(ftruncate(fd, below(BYTES)), "ftruncate");
		break;
	case 1:
		check_of(fd, fd, fallocate(fd, FALLOC_FL_PUNCH_HOLE |
					   FALLOC_FL_KEEP_SIZE, below(BYTES),
					   1 + below(BYTES)), "punch");
		break;
	default:
		check_of(fd, fd, fallocate(fd, 0, below(BYTES),
					   1 + below(BYTES)), "fallocate");
	}
	close(fd);
}

static void do_copy(void)
{
	int from = open_some(O_RDONLY);
	int to = open_some(O_WRONLY | O_CREAT);

	if (from >= 0 && to >= 0)
		check_of(from, to,
			 copy_file_range(from, NULL, to, NULL, BYTES, 0),
			 "copy");
	if (from >= 0)
		close(from);
	if (to >= 0)
		close(to);
}

static void do_rename(void)
{
	unsigned flags = below(3) ? 0 : below(2) ? 1 /* NOREPLACE */ : 2;
	const char *from = name(), *to = name();

	check(renameat2(AT_FDCWD, from, AT_FDCWD, to, flags), "rename");
}

static void do_unlink(void)
{
	const char *n = name();
	int got = unlink(n);

	if (got && (errno == EISDIR || errno == EPERM))
		got = rmdir(n);
	check(got, "unlink");
}

static void do_make(void)
{
	switch (below(4)) {
	case 0:
		check(mkdir(name(), 0755), "mkdir");
		break;
	case 1:
		check(symlink("somewhere", name()), "symlink");
		break;
	case 2: {
		const char *from = name();
		int got = link(from, name());

		if (got && errno == EPERM) /* of a directory */
			got = 0;
		check(got, "link");
		break;
	}
	default:
		check(mknod(name(), S_IFIFO | 0600, 0), "mknod");
	}
}

static void do_attr(void)
{
	const char *n = name();
	char value[200];
	int got = 0;

	switch (below(4)) {
	case 0:
		got = lsetxattr(n, "trusted.mix", buf, below(sizeof(value)),
				0);
		break;
	case 1:
		got = (int)lgetxattr(n, "trusted.mix", value, sizeof(value));
		break;
	case 2:
		got = fchmodat(AT_FDCWD, n, below(01000), 0);
		break;
	default: {
		struct stat st;

		got = lstat(n, &st);
	}
	}
	check(got, "attributes");
}

static void do_list(void)
{
	char d[8];
	DIR *dir;

	snprintf(d, sizeof(d), "d%u", below(DIRS));
	dir = opendir(below(4) ? d : ".snapshots");
	check(dir ? 0 : -1, "opendir");
	if (!dir)
		return;
	for (struct dirent *e; (e = readdir(dir));) {
		struct stat st;

		if (!below(4))
			(void)fstatat(dirfd(dir), e->d_name, &st,
				      AT_SYMLINK_NOFOLLOW);
	}
	closedir(dir);
}

static void do_statfs(void)
{
	struct statvfs v;

	check(statvfs(".", &v), "statvfs");
}

static void (*const things[])(void) = {
	do_write, do_write, do_write, do_append, do_read, do_read, do_mmap,
	do_size, do_copy, do_rename, do_rename, do_unlink, do_unlink, do_make,
	do_attr, do_attr, do_list, do_statfs,
};

int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = on_bus };
	unsigned long n = 0;
	time_t end;

	if (argc != 4) {
		fprintf(stderr, "usage: mix DIR SECONDS SEED\n");
		return 2;
	}
	end = time(NULL) + atol(argv[2]);
	rng = strtoull(argv[3], NULL, 10) * 2654435761u + 88172645463325252u;
	sigaction(SIGBUS, &sa, NULL);
	signal(SIGPIPE, SIG_IGN); /* fifos: who reads may go at any time */
	for (size_t i = 0; i < sizeof(buf); i++)
		buf[i] = (char)below(256);
	for (; time(NULL) < end; n++) {
		/* A restore takes the working directory away. */
		if (n % 64 == 0 && chdir(argv[1])) {
			fprintf(stderr, "mix: %s: %s\n", argv[1],
				strerror(errno));
			return 1;
		}
		things[below(sizeof(things) / sizeof(things[0]))]();
	}
	printf("%lu\n", n);
	return 0;
}
