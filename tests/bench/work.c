/*
 * work.c - the loads that scripts/bench times
 *
 *	work [-l SECONDS] [-p PROCESSES] LOAD ARGUMENT...
 *
 * Prints "OPERATIONS SECONDS BYTES" of the load alone: what prepares it is not
 * in the time. -l ends a load early that can be (those marked l); -p shares
 * the directories of one with as many processes (marked p).
 *
 *	seqwrite FILE BYTES CALL       write from the start, fsync
 *	seqread FILE CALL
 *	randwrite FILE COUNT [each]    4 KiB calls; fsync at the end or each (l)
 *	randread FILE COUNT THREADS    4 KiB calls (l)
 *	mmapwrite FILE BYTES           every page, msync
 *	mmapread FILE
 *	create DIR DIRS FILES SIZE     FILES in each of DIRS (p; so are these:)
 *	stat DIR DIRS FILES
 *	read DIR DIRS FILES
 *	delete DIR DIRS FILES
 *	readdir DIR DIRS
 *	walk DIR                       lstat of all below
 *	rename DIR COUNT               to and fro between two directories
 *	link DIR COUNT                 one file's names: made, then removed
 *	fsyncs DIR COUNT               create, write 4 KiB, fsync (l)
 *	replace DIR COUNT              write 4 KiB, fsync, rename over (l)
 *	sqlite FILE COUNT JOURNAL      one INSERT each transaction (l)
 *	exec COUNT FILE COMMAND...     %d in an argument is the number; FILE: a
 *	                               4 KiB write to it before each, "-": none
 *	shutdown DIR                   the kernel's filesystem, as by power cut
 *
 * Exit status: 0, 1 failed, 2 wrong usage, 77 not possible here.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define EXIT_SKIP 77
#define MAX_PROCESSES 64u
#define MAX_THREADS 64u

struct result {
	uint64_t ops, bytes;
	double seconds;
};

static double limit;
static unsigned processes = 1;

static void __attribute__((noreturn, format(printf, 2, 3)))
quit(int status, const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	va_start(ap, fmt);
	fputs("work: ", stderr);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	if (status == EXIT_FAILURE)
		fprintf(stderr, ": %s", strerror(err));
	fputc('\n', stderr);
	exit(status);
}

static void check(bool good, const char *what)
{
	if (!good)
		quit(EXIT_FAILURE, "%s", what);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool time_is_up(double start)
{
	return limit > 0 && now() - start > limit;
}

static uint64_t number(const char *s)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno || end == s || *end || !n)
		quit(2, "'%s' is not a number above 0", s);
	return n;
}

/* xorshift: the same sequence for every filesystem */
static uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Bytes that no filesystem can make smaller. */
static char *random_buffer(size_t len)
{
	uint64_t state = 88172645463325252u;
	uint64_t *p;
	size_t i;

	len = (len + 7) / 8 * 8;
	p = aligned_alloc(BLOCK, (len + BLOCK - 1) / BLOCK * BLOCK);
	if (!p)
		quit(EXIT_FAILURE, "memory");
	for (i = 0; i < len / 8; i++)
		p[i] = random_next(&state);
	return (char *)p;
}

static int open_or_quit(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	check(fd >= 0, path);
	return fd;
}

static void write_all(int fd, const char *buf, size_t len, const char *path)
{
	check(write(fd, buf, len) == (ssize_t)len, path);
}

static uint64_t size_of(int fd, const char *path)
{
	struct stat st;

	check(!fstat(fd, &st), path);
	check(st.st_size >= (off_t)BLOCK, path);
	return (uint64_t)st.st_size;
}

/* ---- one large file ---- */

static void do_seqwrite(char **arg, struct result *r)
{
	uint64_t size = number(arg[1]), call = number(arg[2]), done;
	char *buf = random_buffer(call + (1u << 20));
	int fd = open_or_quit(arg[0], O_WRONLY | O_CREAT | O_TRUNC);
	double start = now();

	/* Another part of the buffer each time: no two blocks are alike. */
	for (done = 0; done < size; done += call, r->ops++)
		write_all(fd, buf + r->ops * 8 % (1u << 20), call, arg[0]);
	check(!fsync(fd), arg[0]);
	check(!close(fd), arg[0]);
	r->seconds = now() - start;
	r->bytes = done;
	free(buf);
}

static void do_seqread(char **arg, struct result *r)
{
	uint64_t call = number(arg[1]);
	char *buf = random_buffer(call);
	int fd = open_or_quit(arg[0], O_RDONLY);
	double start = now();
	ssize_t n;

	while ((n = read(fd, buf, call)) > 0) {
		r->bytes += (uint64_t)n;
		r->ops++;
	}
	check(!n, arg[0]);
	r->seconds = now() - start;
	close(fd);
	free(buf);
}

static void do_randwrite(char **arg, struct result *r)
{
	bool each = arg[2] && !strcmp(arg[2], "each");
	uint64_t count = number(arg[1]), state = 42, blocks;
	char *buf = random_buffer(BLOCK + (1u << 16));
	int fd = open_or_quit(arg[0], O_WRONLY);
	double start;
	off_t off;

	blocks = size_of(fd, arg[0]) / BLOCK;
	start = now();
	for (; r->ops < count && !time_is_up(start); r->ops++) {
		off = (off_t)(random_next(&state) % blocks * BLOCK);
		check(pwrite(fd, buf + r->ops * 8 % (1u << 16), BLOCK, off) ==
		      BLOCK, arg[0]);
		if (each)
			check(!fsync(fd), arg[0]);
	}
	check(!fsync(fd), arg[0]);
	r->seconds = now() - start;
	r->bytes = r->ops * BLOCK;
	close(fd);
	free(buf);
}

struct reader {
	pthread_t thread;
	const char *path;
	uint64_t count, state, blocks, done;
	double start;
	int fd;
};

static void *read_blocks(void *p)
{
	struct reader *r = p;
	char buf[BLOCK];

	for (; r->done < r->count && !time_is_up(r->start); r->done++)
		check(pread(r->fd, buf, BLOCK, (off_t)
			    (random_next(&r->state) % r->blocks * BLOCK)) ==
		      BLOCK, r->path);
	return NULL;
}

static void do_randread(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]), threads = number(arg[2]), i;
	struct reader readers[MAX_THREADS] = { 0 };
	int fd = open_or_quit(arg[0], O_RDONLY);
	double start;

	if (threads > MAX_THREADS)
		quit(2, "%s: too many threads", arg[2]);
	/* What is read by chance is all that is read. */
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	start = now();
	for (i = 0; i < threads; i++) {
		readers[i] = (struct reader){
			.path = arg[0], .count = count / threads,
			.state = 42 + i * 7919, .start = start, .fd = fd,
			.blocks = size_of(fd, arg[0]) / BLOCK,
		};
		check(!pthread_create(&readers[i].thread, NULL, read_blocks,
				      &readers[i]), "thread");
	}
	for (i = 0; i < threads; i++) {
		pthread_join(readers[i].thread, NULL);
		r->ops += readers[i].done;
	}
	r->seconds = now() - start;
	r->bytes = r->ops * BLOCK;
	close(fd);
}

static void do_mmapwrite(char **arg, struct result *r)
{
	uint64_t size = number(arg[1]) / BLOCK * BLOCK, off;
	int fd = open_or_quit(arg[0], O_RDWR | O_CREAT | O_TRUNC);
	char *buf = random_buffer(BLOCK + (1u << 16));
	double start = now();
	char *map;

	check(!ftruncate(fd, (off_t)size), arg[0]);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED, arg[0]);
	for (off = 0; off < size; off += BLOCK, r->ops++)
		memcpy(map + off, buf + r->ops * 8 % (1u << 16), BLOCK);
	check(!msync(map, size, MS_SYNC), arg[0]);
	check(!munmap(map, size), arg[0]);
	r->seconds = now() - start;
	r->bytes = size;
	close(fd);
	free(buf);
}

static void do_mmapread(char **arg, struct result *r)
{
	int fd = open_or_quit(arg[0], O_RDONLY);
	uint64_t size = size_of(fd, arg[0]), off;
	volatile char sum = 0;
	double start = now();
	const char *map;

	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	check(map != MAP_FAILED, arg[0]);
	for (off = 0; off < size; off += BLOCK, r->ops++)
		sum = (char)(sum ^ map[off]);
	r->seconds = now() - start;
	r->bytes = size;
	munmap((void *)(uintptr_t)map, size);
	close(fd);
}

/* ---- many small files ---- */

struct many {
	const char *dir;
	uint64_t dirs, files, size;
	char *buf;
};

typedef void many_fn(const struct many *m, uint64_t dir, struct result *r);

static void name_dir(const struct many *m, uint64_t dir, char *to, size_t room)
{
	snprintf(to, room, "%s/d%04u", m->dir, (unsigned)dir);
}

static void name_file(const struct many *m, uint64_t dir, uint64_t file,
		      char *to, size_t room)
{
	snprintf(to, room, "%s/d%04u/file-%06u", m->dir, (unsigned)dir,
		 (unsigned)file);
}

static void create_dir(const struct many *m, uint64_t dir, struct result *r)
{
	char path[4096];
	uint64_t i;
	int fd;

	name_dir(m, dir, path, sizeof(path));
	check(!mkdir(path, 0755), path);
	for (i = 0; i < m->files; i++, r->ops++) {
		name_file(m, dir, i, path, sizeof(path));
		fd = open_or_quit(path, O_WRONLY | O_CREAT | O_EXCL);
		if (m->size)
			write_all(fd, m->buf + (dir + i) % 512 * 8, m->size,
				  path);
		check(!close(fd), path);
		r->bytes += m->size;
	}
}

static void stat_dir(const struct many *m, uint64_t dir, struct result *r)
{
	char path[4096];
	struct stat st;
	uint64_t i;

	for (i = 0; i < m->files; i++, r->ops++) {
		name_file(m, dir, i, path, sizeof(path));
		check(!stat(path, &st), path);
	}
}

static void read_dir(const struct many *m, uint64_t dir, struct result *r)
{
	char path[4096], buf[65536];
	uint64_t i;
	ssize_t n;
	int fd;

	for (i = 0; i < m->files; i++, r->ops++) {
		name_file(m, dir, i, path, sizeof(path));
		fd = open_or_quit(path, O_RDONLY);
		while ((n = read(fd, buf, sizeof(buf))) > 0)
			r->bytes += (uint64_t)n;
		check(!n, path);
		close(fd);
	}
}

static void delete_dir(const struct many *m, uint64_t dir, struct result *r)
{
	char path[4096];
	uint64_t i;

	for (i = 0; i < m->files; i++, r->ops++) {
		name_file(m, dir, i, path, sizeof(path));
		check(!unlink(path), path);
	}
	name_dir(m, dir, path, sizeof(path));
	check(!rmdir(path), path);
}

static void list_dir(const struct many *m, uint64_t dir, struct result *r)
{
	char path[4096];
	DIR *d;

	name_dir(m, dir, path, sizeof(path));
	d = opendir(path);
	check(d, path);
	errno = 0;
	while (readdir(d))
		r->ops++;
	check(!errno, path);
	r->ops -= 2; /* the dots */
	closedir(d);
}

/* What the processes share: they wait for go, and add up. */
struct shared {
	_Atomic bool go;
	_Atomic unsigned ready;
	_Atomic uint64_t ops, bytes;
};

static void one_process(const struct many *m, many_fn *fn, unsigned k,
			struct shared *s)
{
	struct result r = { 0 };
	uint64_t dir;

	atomic_fetch_add(&s->ready, 1);
	while (!atomic_load(&s->go))
		usleep(100);
	for (dir = k; dir < m->dirs; dir += processes)
		fn(m, dir, &r);
	atomic_fetch_add(&s->ops, r.ops);
	atomic_fetch_add(&s->bytes, r.bytes);
	_exit(0);
}

static void by_processes(const struct many *m, many_fn *fn, struct result *r)
{
	struct shared *s = mmap(NULL, sizeof(*s), PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status, bad = 0;
	double start;
	unsigned k;
	pid_t pid;

	check(s != MAP_FAILED, "memory");
	for (k = 0; k < processes; k++) {
		pid = fork();
		check(pid >= 0, "fork");
		if (!pid)
			one_process(m, fn, k, s);
	}
	while (atomic_load(&s->ready) < processes)
		usleep(1000);
	start = now();
	atomic_store(&s->go, true);
	for (k = 0; k < processes; k++)
		bad |= wait(&status) < 0 || status;
	r->seconds = now() - start;
	r->ops = atomic_load(&s->ops);
	r->bytes = atomic_load(&s->bytes);
	if (bad)
		exit(EXIT_FAILURE); /* the process said why */
}

static void do_many(many_fn *fn, const struct many *m, struct result *r)
{
	double start;
	uint64_t dir;

	if (processes > 1) {
		by_processes(m, fn, r);
		return;
	}
	start = now();
	for (dir = 0; dir < m->dirs; dir++)
		fn(m, dir, r);
	r->seconds = now() - start;
}

static void do_create(char **arg, struct result *r)
{
	struct many m = { .dir = arg[0], .dirs = number(arg[1]),
			  .files = number(arg[2]) };

	m.size = strcmp(arg[3], "0") ? number(arg[3]) : 0;
	m.buf = random_buffer(m.size + BLOCK);
	check(!mkdir(m.dir, 0755) || errno == EEXIST, m.dir);
	do_many(create_dir, &m, r);
	free(m.buf);
}

static void do_each_file(char **arg, struct result *r, many_fn *fn)
{
	struct many m = { .dir = arg[0], .dirs = number(arg[1]),
			  .files = number(arg[2]) };

	do_many(fn, &m, r);
}

static void do_stat(char **arg, struct result *r)
{
	do_each_file(arg, r, stat_dir);
}

static void do_read(char **arg, struct result *r)
{
	do_each_file(arg, r, read_dir);
}

static void do_delete(char **arg, struct result *r)
{
	do_each_file(arg, r, delete_dir);
}

static void do_readdir(char **arg, struct result *r)
{
	struct many m = { .dir = arg[0], .dirs = number(arg[1]) };

	do_many(list_dir, &m, r);
}

static uint64_t walked;

static int walk_one(const char *path, const struct stat *st, int kind,
		    struct FTW *f)
{
	(void)path;
	(void)st;
	(void)f;
	walked++;
	return kind == FTW_NS || kind == FTW_DNR;
}

static void do_walk(char **arg, struct result *r)
{
	double start = now();

	check(!nftw(arg[0], walk_one, 16, FTW_PHYS), arg[0]);
	r->seconds = now() - start;
	r->ops = walked;
}

/* ---- names ---- */

static int open_dir(const char *path)
{
	check(!mkdir(path, 0755) || errno == EEXIST, path);
	return open_or_quit(path, O_RDONLY | O_DIRECTORY);
}

static void make_at(int dir, const char *name)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	check(fd >= 0, name);
	close(fd);
}

/* Some hundred files change between two directories, again and again. */
static void do_rename(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]), i;
	char path[4096], from[32], to[32];
	int dir[2], a;
	double start;

	check(!mkdir(arg[0], 0755), arg[0]);
	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%u", arg[0], (unsigned)i);
		dir[i] = open_dir(path);
	}
	for (i = 0; i < 500; i++) {
		snprintf(from, sizeof(from), "0-%u", (unsigned)i);
		make_at(dir[0], from);
	}
	start = now();
	for (i = 0; i < count; i++, r->ops++) {
		a = i / 500 % 2;
		snprintf(from, sizeof(from), "%d-%u", a, (unsigned)(i % 500));
		snprintf(to, sizeof(to), "%d-%u", !a, (unsigned)(i % 500));
		check(!renameat(dir[a], from, dir[!a], to), from);
	}
	r->seconds = now() - start;
	close(dir[0]);
	close(dir[1]);
}

static void do_link(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]), i, k;
	int dir = open_dir(arg[0]);
	double start;
	char name[32];

	make_at(dir, "file");
	start = now();
	/* In portions: some filesystems allow 1,000 names and a few more. */
	for (i = 0; i < count; i += 500) {
		for (k = 0; k < 500; k++, r->ops++) {
			snprintf(name, sizeof(name), "link-%u", (unsigned)k);
			check(!linkat(dir, "file", dir, name, 0), name);
		}
		for (k = 0; k < 500; k++, r->ops++) {
			snprintf(name, sizeof(name), "link-%u", (unsigned)k);
			check(!unlinkat(dir, name, 0), name);
		}
	}
	r->seconds = now() - start;
	close(dir);
}

/* ---- durable ---- */

static void write_durably(int dir, const char *name, const char *buf)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			0644);

	check(fd >= 0, name);
	write_all(fd, buf, BLOCK, name);
	check(!fsync(fd), name);
	check(!close(fd), name);
}

static void do_fsyncs(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]);
	char *buf = random_buffer(BLOCK * 2);
	int dir = open_dir(arg[0]);
	double start = now();
	char name[32];

	for (; r->ops < count && !time_is_up(start); r->ops++) {
		snprintf(name, sizeof(name), "file-%06u", (unsigned)r->ops);
		write_durably(dir, name, buf + r->ops % 512 * 8);
	}
	r->seconds = now() - start;
	r->bytes = r->ops * BLOCK;
	close(dir);
	free(buf);
}

/* As editors and package managers do it. */
static void do_replace(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]);
	char *buf = random_buffer(BLOCK * 2);
	int dir = open_dir(arg[0]);
	double start = now();
	char name[32];

	for (; r->ops < count && !time_is_up(start); r->ops++) {
		snprintf(name, sizeof(name), "file-%02u",
			 (unsigned)(r->ops % 50));
		write_durably(dir, "temporary", buf + r->ops % 512 * 8);
		check(!renameat(dir, "temporary", dir, name), name);
	}
	check(!fsync(dir), arg[0]);
	r->seconds = now() - start;
	r->bytes = r->ops * BLOCK;
	close(dir);
	free(buf);
}

/* The three calls needed of sqlite, which is looked for at run time: building
 * the tests must not need it. */
struct sqlite {
	int (*open)(const char *path, void **db);
	int (*exec)(void *db, const char *sql, void *fn, void *arg, char **msg);
	int (*close)(void *db);
	void *db;
};

static void sqlite_load(struct sqlite *s)
{
	void *lib = dlopen("libsqlite3.so.0", RTLD_NOW);

	if (!lib)
		quit(EXIT_SKIP, "no libsqlite3.so.0");
	*(void **)&s->open = dlsym(lib, "sqlite3_open");
	*(void **)&s->exec = dlsym(lib, "sqlite3_exec");
	*(void **)&s->close = dlsym(lib, "sqlite3_close");
	if (!s->open || !s->exec || !s->close)
		quit(EXIT_SKIP, "libsqlite3.so.0: not as expected");
}

static void sql(struct sqlite *s, const char *text)
{
	char *msg = NULL;

	if (s->exec(s->db, text, NULL, NULL, &msg))
		quit(1, "%s: %s", text, msg ? msg : "failed");
}

static void do_sqlite(char **arg, struct result *r)
{
	uint64_t count = number(arg[1]);
	struct sqlite s = { 0 };
	char text[256];
	double start;

	sqlite_load(&s);
	if (s.open(arg[0], &s.db))
		quit(1, "%s: can't be opened", arg[0]);
	snprintf(text, sizeof(text), "PRAGMA journal_mode=%s", arg[2]);
	sql(&s, text);
	sql(&s, "PRAGMA synchronous=FULL");
	sql(&s, "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)");
	start = now();
	for (; r->ops < count && !time_is_up(start); r->ops++) {
		snprintf(text, sizeof(text),
			 "INSERT INTO t (name) VALUES ('row %u and what else "
			 "a row of some 100 bytes contains in a database')",
			 (unsigned)r->ops);
		sql(&s, text);
	}
	r->seconds = now() - start;
	if (s.close(s.db))
		quit(1, "%s: can't be closed", arg[0]);
	r->bytes = r->ops * 100;
}

/* ---- other programs ---- */

static void put_number(const char *from, uint64_t n, char *to, size_t room)
{
	const char *at = strstr(from, "%d");

	if (at)
		snprintf(to, room, "%.*s%u%s", (int)(at - from), from,
			 (unsigned)n, at + 2);
	else
		snprintf(to, room, "%s", from);
}

static void run_once(char **argv, uint64_t n)
{
	char *copy[64], text[64][512];
	int status, k, err;
	pid_t pid;

	for (k = 0; k < 63 && argv[k]; k++) {
		if (strlen(argv[k]) >= sizeof(text[k]) - 24) {
			copy[k] = argv[k];
			continue;
		}
		put_number(argv[k], n, text[k], sizeof(text[k]));
		copy[k] = text[k];
	}
	copy[k] = NULL;
	err = posix_spawnp(&pid, copy[0], NULL, NULL, copy, environ);
	if (err) {
		errno = err;
		check(false, copy[0]);
	}
	check(waitpid(pid, &status, 0) == pid, "wait");
	if (status)
		quit(EXIT_FAILURE + 2, "%s: status %d", copy[0],
		     WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

/* Standard output is the result's: what the programs say goes elsewhere. */
static int take_stdout(void)
{
	int keep = dup(STDOUT_FILENO), null = open_or_quit("/dev/null", O_RDWR);

	check(keep >= 0 && dup2(null, STDOUT_FILENO) >= 0, "output");
	close(null);
	fcntl(keep, F_SETFD, FD_CLOEXEC);
	return keep;
}

static void do_exec(char **arg, struct result *r)
{
	uint64_t count = number(arg[0]), state = 1, blocks = 0;
	char *buf = random_buffer(BLOCK * 2);
	int fd = -1, out = take_stdout();
	double start;

	if (strcmp(arg[1], "-")) {
		fd = open_or_quit(arg[1], O_WRONLY);
		blocks = size_of(fd, arg[1]) / BLOCK;
	}
	start = now();
	for (; r->ops < count; r->ops++) {
		if (fd >= 0)
			check(pwrite(fd, buf + r->ops % 512 * 8, BLOCK, (off_t)
				     (random_next(&state) % blocks * BLOCK)) ==
			      BLOCK, arg[1]);
		run_once(arg + 2, r->ops);
	}
	r->seconds = now() - start;
	if (fd >= 0)
		close(fd);
	free(buf);
	check(dup2(out, STDOUT_FILENO) >= 0, "output");
	close(out);
}

/* ext4 and others have this ioctl (FS_IOC_SHUTDOWN, EXT4_IOC_SHUTDOWN). */
static void do_shutdown(char **arg, struct result *r)
{
	uint32_t no_log_flush = 2;
	int fd = open_or_quit(arg[0], O_RDONLY | O_DIRECTORY);

	if (ioctl(fd, _IOR('X', 125, uint32_t), &no_log_flush))
		quit(EXIT_SKIP, "%s: can't be shut down", arg[0]);
	r->ops = 1;
	close(fd);
}

/* ---- which ---- */

static const struct load {
	const char *name;
	int min, max; /* arguments */
	void (*run)(char **arg, struct result *r);
} loads[] = {
	{ "seqwrite", 3, 3, do_seqwrite },
	{ "seqread", 2, 2, do_seqread },
	{ "randwrite", 2, 3, do_randwrite },
	{ "randread", 3, 3, do_randread },
	{ "mmapwrite", 2, 2, do_mmapwrite },
	{ "mmapread", 1, 1, do_mmapread },
	{ "create", 4, 4, do_create },
	{ "stat", 3, 3, do_stat },
	{ "read", 3, 3, do_read },
	{ "delete", 3, 3, do_delete },
	{ "readdir", 2, 2, do_readdir },
	{ "walk", 1, 1, do_walk },
	{ "rename", 2, 2, do_rename },
	{ "link", 2, 2, do_link },
	{ "fsyncs", 2, 2, do_fsyncs },
	{ "replace", 2, 2, do_replace },
	{ "sqlite", 3, 3, do_sqlite },
	{ "exec", 3, 60, do_exec },
	{ "shutdown", 1, 1, do_shutdown },
};

int main(int argc, char **argv)
{
	struct result r = { 0 };
	size_t i;
	int c;

	while ((c = getopt(argc, argv, "+l:p:")) != -1) {
		if (c == 'l')
			limit = strtod(optarg, NULL);
		else if (c == 'p')
			processes = (unsigned)number(optarg);
		else
			return 2;
	}
	argc -= optind;
	argv += optind;
	if (processes > MAX_PROCESSES)
		quit(2, "too many processes");
	for (i = 0; argc && i < sizeof(loads) / sizeof(loads[0]); i++) {
		if (strcmp(loads[i].name, argv[0]))
			continue;
		if (argc - 1 < loads[i].min || argc - 1 > loads[i].max)
			quit(2, "%s: wrong number of arguments", argv[0]);
		loads[i].run(argv + 1, &r);
		printf("%llu %.6f %llu\n", (unsigned long long)r.ops,
		       r.seconds, (unsigned long long)r.bytes);
		return 0;
	}
	quit(2, "which load? See the head of work.c");
}
