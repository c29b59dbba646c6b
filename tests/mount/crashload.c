/*
 * crashload.c - the load of the crash test: several processes that write until
 *               the daemon dies, and a journal of what they did
 *
 * usage: crashload MOUNT JOURNALS SEED ROUND WORKERS COWCTL
 *
 * Worker n works in MOUNT/rROUND/wN and writes JOURNALS/N; one more process
 * makes snapshots named rROUND-K (journal JOURNALS/snap), deletes those of the
 * round before, and removes the directories of the round before that. Ends
 * with 0 when the filesystem went away, with 1 when it misbehaved before that.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "mount/crashlog.h"

struct file {
	uint32_t id; /* 0: the slot is free */
	uint32_t version, cells;
	int fd;
};

struct worker {
	const char *mount;
	char dir[4096];
	uint64_t random;
	uint64_t *seq; /* shared by all processes */
	uint32_t round, number, next;
	int journal;
	struct file slot[SLOTS];
	unsigned char buf[FILE_MAX * CELL];
};

/* ---- common ---- */

static uint32_t draw(struct worker *w, uint32_t below)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 32) % below;
}

/*
 * Has the daemon died? Then every error is in order. A dying connection gives
 * ECONNABORTED, ENOTCONN, EIO or even EINTR; whether it is dead shows at the
 * mount point, a moment later at most.
 */
static bool mount_is_dead(const struct worker *w)
{
	struct timespec pause = { .tv_nsec = 50000000 };
	struct statvfs st;
	int i;

	for (i = 0; i < 60; i++) {
		/* Never answered from a cache. */
		if (statvfs(w->mount, &st) < 0)
			return true;
		nanosleep(&pause, NULL);
	}
	return false;
}

/* The end of this process: fine if the filesystem is gone. */
static _Noreturn void leave(const struct worker *w, const char *what)
{
	int err = errno;

	if (mount_is_dead(w))
		_exit(0);
	fprintf(stderr, "crashload: worker %u: %s: %s\n", w->number, what,
		strerror(err));
	_exit(1);
}

static void journal(struct worker *w, struct record r, bool ack)
{
	r.seq = __atomic_fetch_add(w->seq, 1, __ATOMIC_SEQ_CST);
	/* The journal must not claim a promise that was not made, nor lose
	 * one: it is on disk before the worker goes on. */
	if (write(w->journal, &r, sizeof(r)) != (ssize_t)sizeof(r) ||
	    (ack && fdatasync(w->journal) < 0)) {
		perror("crashload: journal");
		_exit(1);
	}
}

static void slot_path(const struct worker *w, uint32_t slot, char out[4200])
{
	snprintf(out, 4200, "%s/%c/name%u", w->dir, SLOT_DIR(slot) ? 'b' : 'a',
		 slot);
}

/* ---- operations ---- */

static void op_create(struct worker *w, uint32_t slot)
{
	struct file *f = &w->slot[slot];
	char path[4200];

	f->id = w->number << 24 | ++w->next;
	f->version = 0;
	f->cells = 0;
	journal(w, (struct record){ .kind = REC_CREATE, .slot = slot,
				    .file = f->id }, false);
	slot_path(w, slot, path);
	f->fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
	if (f->fd < 0)
		leave(w, "create");
}

static void make_pieces(struct worker *w, const struct file *f, uint32_t first,
			uint32_t count)
{
	struct piece p = { w->round, f->id, f->version, 0 };
	size_t i, n = count * PIECES;

	for (i = 0; i < n; i++) {
		p.at = (uint32_t)(first * PIECES + i);
		memcpy(w->buf + i * sizeof(p), &p, sizeof(p));
	}
}

static void write_mapped(struct worker *w, const struct file *f,
			 uint32_t first, uint32_t count)
{
	size_t end = (size_t)(first + count) * CELL;
	char *map = mmap(NULL, end, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd,
			 0);

	if (map == MAP_FAILED)
		leave(w, "mmap");
	memcpy(map + (size_t)first * CELL, w->buf, (size_t)count * CELL);
	munmap(map, end);
}

static void op_write(struct worker *w, struct file *f, bool append)
{
	uint32_t first = append ? f->cells : draw(w, f->cells + 9);
	uint32_t count = 1 + draw(w, draw(w, 8) ? 24 : 600);
	size_t len;

	if (first >= FILE_MAX)
		first = 0;
	if (count > FILE_MAX - first)
		count = FILE_MAX - first;
	f->version++;
	journal(w, (struct record){ .kind = REC_WRITE, .file = f->id,
				    .version = f->version, .a = first,
				    .b = count }, false);
	make_pieces(w, f, first, count);
	len = (size_t)count * CELL;
	if (first + count <= f->cells && draw(w, 4) == 0) {
		write_mapped(w, f, first, count);
		return;
	}
	if (pwrite(f->fd, w->buf, len, (off_t)first * CELL) != (ssize_t)len)
		leave(w, "write");
	if (first + count > f->cells)
		f->cells = first + count;
}

static void op_truncate(struct worker *w, struct file *f)
{
	uint32_t to = draw(w, f->cells + 30);

	if (to > FILE_MAX)
		to = FILE_MAX;
	journal(w, (struct record){ .kind = REC_TRUNCATE, .file = f->id,
				    .a = to }, false);
	if (ftruncate(f->fd, (off_t)to * CELL) < 0)
		leave(w, "truncate");
	f->cells = to;
}

static void op_punch(struct worker *w, struct file *f)
{
	uint32_t first, count;

	if (f->cells == 0)
		return;
	first = draw(w, f->cells);
	count = 1 + draw(w, f->cells - first);
	journal(w, (struct record){ .kind = REC_PUNCH, .file = f->id,
				    .a = first, .b = count }, false);
	if (fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      (off_t)first * CELL, (off_t)count * CELL) < 0)
		leave(w, "punch");
}

static void op_sync(struct worker *w, struct file *f)
{
	if ((draw(w, 3) ? fsync(f->fd) : fdatasync(f->fd)) < 0)
		leave(w, "fsync");
	journal(w, (struct record){ .kind = REC_SYNCED, .file = f->id }, true);
}

static void op_sync_dir(struct worker *w)
{
	uint32_t side = draw(w, 2);
	char path[4200];
	int fd;

	snprintf(path, sizeof(path), "%s/%c", w->dir, side ? 'b' : 'a');
	fd = open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0 || fsync(fd) < 0)
		leave(w, "fsync of a directory");
	journal(w, (struct record){ .kind = REC_DIR_SYNCED, .a = side }, true);
	close(fd);
}

static void op_rename(struct worker *w, uint32_t slot)
{
	uint32_t to = draw(w, SLOTS);
	char from_path[4200], to_path[4200];

	if (to == slot)
		return;
	journal(w, (struct record){ .kind = REC_RENAME, .slot = slot,
				    .a = to }, false);
	slot_path(w, slot, from_path);
	slot_path(w, to, to_path);
	if (rename(from_path, to_path) < 0)
		leave(w, "rename");
	if (w->slot[to].id)
		close(w->slot[to].fd);
	w->slot[to] = w->slot[slot];
	w->slot[slot].id = 0;
}

static void op_unlink(struct worker *w, uint32_t slot)
{
	char path[4200];

	journal(w, (struct record){ .kind = REC_UNLINK, .slot = slot }, false);
	slot_path(w, slot, path);
	if (unlink(path) < 0)
		leave(w, "unlink");
	close(w->slot[slot].fd);
	w->slot[slot].id = 0;
}

/* New contents under an old name, as editors do it. */
static void op_replace(struct worker *w, uint32_t slot)
{
	uint32_t spare;

	for (spare = 0; spare < SLOTS; spare++)
		if (!w->slot[spare].id)
			break;
	if (spare == SLOTS || spare == slot)
		return;
	op_create(w, spare);
	op_write(w, &w->slot[spare], true);
	op_sync(w, &w->slot[spare]);
	op_rename(w, spare);
}

static void step(struct worker *w)
{
	uint32_t slot = draw(w, SLOTS), what = draw(w, 100);
	struct file *f = &w->slot[slot];

	if (!f->id)
		op_create(w, slot);
	else if (what < 34)
		op_write(w, f, false);
	else if (what < 50)
		op_write(w, f, true);
	else if (what < 58)
		op_truncate(w, f);
	else if (what < 63)
		op_punch(w, f);
	else if (what < 78)
		op_sync(w, f);
	else if (what < 83)
		op_sync_dir(w);
	else if (what < 89)
		op_rename(w, slot);
	else if (what < 94)
		op_unlink(w, slot);
	else
		op_replace(w, slot);
}

static _Noreturn void work(struct worker *w)
{
	char path[4200];
	int i;

	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s%s", w->dir, i ? "/b" : "/a");
		if (i == 0 && mkdir(w->dir, 0755) < 0 && errno != EEXIST)
			leave(w, "mkdir");
		if (mkdir(path, 0755) < 0)
			leave(w, "mkdir");
	}
	for (;;)
		step(w);
}

/* ---- snapshots and cleaning up ---- */

static int run(char *const argv[])
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return -1;
	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		/* Errors of a dying mount are no news. */
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], argv);
		_exit(127);
	}
	if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

static int cowctl(struct worker *w, const char *program, const char *verb,
		  const char *name)
{
	char *argv[] = { (char *)(uintptr_t)program,
			 (char *)(uintptr_t)w->mount, (char[]){ "snapshot" },
			 (char *)(uintptr_t)verb, (char *)(uintptr_t)name,
			 NULL };

	return run(argv);
}

static _Noreturn void snapshots(struct worker *w, const char *program)
{
	char name[64], old[4200];
	char *rm[] = { (char[]){ "rm" }, (char[]){ "-rf" }, old, NULL };
	struct timespec pause = { 0 };
	uint32_t k;

	if (w->round >= 2) {
		snprintf(old, sizeof(old), "%s/r%u", w->mount, w->round - 2);
		(void)run(rm);
	}
	for (k = 0;; k++) {
		pause.tv_nsec = 20000000 + draw(w, 300000000);
		nanosleep(&pause, NULL);
		snprintf(name, sizeof(name), "r%u-%u", w->round, k);
		journal(w, (struct record){ .kind = REC_SNAP, .a = k }, false);
		if (cowctl(w, program, "create", name) != 0)
			leave(w, "snapshot create");
		journal(w, (struct record){ .kind = REC_SNAPPED, .a = k },
			true);
		if (w->round == 0)
			continue;
		snprintf(name, sizeof(name), "r%u-%u", w->round - 1, k);
		(void)cowctl(w, program, "delete", name);
	}
}

/* ---- start ---- */

static pid_t start(struct worker *w, const char *journals, uint64_t seed,
		   uint32_t number, const char *program)
{
	char path[4200], name[16] = "snap";
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	w->number = number;
	w->random = seed * UINT64_C(0x9e3779b97f4a7c15) + number + 1;
	if (!program)
		snprintf(name, sizeof(name), "%u", number);
	snprintf(path, sizeof(path), "%s/%s", journals, name);
	w->journal = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND, 0644);
	if (w->journal < 0) {
		perror(path);
		_exit(1);
	}
	snprintf(w->dir, sizeof(w->dir), "%s/r%u/w%u", w->mount, w->round,
		 number);
	if (program)
		snapshots(w, program);
	work(w);
}

int main(int argc, char **argv)
{
	struct worker *w = calloc(1, sizeof(*w));
	uint32_t i, workers;
	char path[4200];
	int status, bad = 0;

	if (argc != 7 || !w) {
		fprintf(stderr, "usage: crashload MOUNT JOURNALS SEED ROUND "
				"WORKERS COWCTL\n");
		return 2;
	}
	w->mount = argv[1];
	w->round = (uint32_t)strtoul(argv[4], NULL, 10);
	workers = (uint32_t)strtoul(argv[5], NULL, 10);
	w->seq = mmap(NULL, sizeof(*w->seq), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (w->seq == MAP_FAILED)
		return 1;
	*w->seq = 1;
	snprintf(path, sizeof(path), "%s/r%u", w->mount, w->round);
	if (mkdir(path, 0755) < 0)
		leave(w, path);
	for (i = 0; i <= workers; i++)
		if (start(w, argv[2], strtoull(argv[3], NULL, 10), i,
			  i == workers ? argv[6] : NULL) < 0)
			return 1;
	while (wait(&status) > 0) {
		if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
			continue;
		/* The pages of a mapped file go with the daemon. */
		if (WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS &&
		    mount_is_dead(w))
			continue;
		bad = 1;
	}
	return bad;
}
