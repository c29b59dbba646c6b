/*
 * crashverify.c - hold a filesystem against the journals of the crash test
 *
 * usage: crashverify MOUNT JOURNALS ROUND WORKERS
 *
 * For each worker's directory, live and in each snapshot of the round:
 *
 *   V1  The names are those after some prefix of the worker's operations, at
 *       least as long as what fsync promised.
 *   V2  Each piece of a file is where it was written, of a version no older
 *       than its last fsync and no newer than the last write begun; zeros only
 *       where there may be a hole.
 *   V3  A size is between those that the file had since its last fsync.
 *   V4  A snapshot that was acknowledged is there; whatever was done before it
 *       was asked for is in it, fsync or not; what began after it isn't.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/crashlog.h"

/* What a cell may hold: a version from lo to hi; zeros if lo is 0 or if they
 * were there for a while. */
struct cell {
	uint32_t lo, hi, cur;
	bool zero;
};

struct file {
	uint32_t id;
	uint32_t size_lo, size_hi, size;
	size_t last_name_op; /* index into the name operations, plus one */
	struct cell cell[FILE_MAX + 64];
};

struct names {
	uint32_t id[SLOTS]; /* 0: free */
};

struct check {
	const char *where; /* for messages */
	uint32_t round, worker;
	const struct record *rec;
	size_t count;
	struct file **file; /* by number - 1 */
	size_t files;
	struct names *after; /* after[n]: the names after n name operations */
	size_t names, promised; /* V1: promised .. names */
	unsigned faults;
	bool quiet;
};

__attribute__((format(printf, 2, 3))) static void
fault(struct check *c, const char *fmt, ...)
{
	va_list ap;

	c->faults++;
	if (c->quiet || c->faults > 10)
		return;
	fprintf(stderr, "crashverify: %s: ", c->where);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

static void *must(void *p)
{
	if (!p) {
		perror("crashverify");
		exit(2);
	}
	return p;
}

/* ---- replaying a journal ---- */

static struct file *file_of(struct check *c, uint32_t id)
{
	uint32_t n = id & 0xffffff;

	if (id >> 24 != c->worker || n == 0 || n > c->files)
		return NULL;
	return c->file[n - 1];
}

static void replay_create(struct check *c, const struct record *r)
{
	struct file *f = must(calloc(1, sizeof(*f)));

	f->id = r->file;
	c->file = must(realloc(c->file, (c->files + 1) * sizeof(*c->file)));
	c->file[c->files++] = f;
}

static void set_size(struct file *f, uint32_t cells)
{
	f->size = cells;
	if (cells < f->size_lo)
		f->size_lo = cells;
	if (cells > f->size_hi)
		f->size_hi = cells;
}

static void replay_write(struct file *f, const struct record *r)
{
	uint32_t i;

	for (i = r->a; i < r->a + r->b; i++) {
		f->cell[i].cur = r->version;
		f->cell[i].hi = r->version;
	}
	if (r->a + r->b > f->size)
		set_size(f, r->a + r->b);
}

static void replay_zero(struct file *f, uint32_t from, uint32_t to)
{
	uint32_t i;

	for (i = from; i < to; i++) {
		f->cell[i].cur = 0;
		f->cell[i].zero = true;
	}
}

/* From here on the file is what it is now, or newer. */
static void promise_file(struct file *f)
{
	size_t i;

	for (i = 0; i < sizeof(f->cell) / sizeof(f->cell[0]); i++) {
		struct cell *cell = &f->cell[i];

		cell->lo = cell->hi = cell->cur;
		cell->zero = cell->cur == 0;
	}
	f->size_lo = f->size_hi = f->size;
}

static void promise_names(struct check *c, size_t upto)
{
	if (upto > c->promised)
		c->promised = upto;
}

/* One more state of the names. */
static struct names *next_names(struct check *c)
{
	c->after = must(realloc(c->after, (c->names + 2) * sizeof(*c->after)));
	c->after[c->names + 1] = c->after[c->names];
	c->names++;
	return &c->after[c->names];
}

static void touch_name(struct check *c, uint32_t id)
{
	struct file *f = file_of(c, id);

	if (f)
		f->last_name_op = c->names;
}

/* Name operations that touched a directory, up to the newest. */
static void promise_dir(struct check *c, uint32_t side)
{
	size_t n, slot;

	for (n = c->names; n > 0; n--)
		for (slot = side; slot < SLOTS; slot += 2)
			if (c->after[n].id[slot] != c->after[n - 1].id[slot]) {
				promise_names(c, n);
				return;
			}
}

static void replay_names(struct check *c, const struct record *r)
{
	struct names *now = next_names(c);

	if (r->kind == REC_CREATE) {
		now->id[r->slot] = r->file;
	} else if (r->kind == REC_RENAME) {
		now->id[r->a] = now->id[r->slot];
		now->id[r->slot] = 0;
		touch_name(c, now->id[r->a]);
		return;
	} else {
		now->id[r->slot] = 0;
	}
	touch_name(c, r->file);
}

static void replay(struct check *c, const struct record *r)
{
	struct file *f = file_of(c, r->file);

	switch (r->kind) {
	case REC_CREATE:
		replay_create(c, r);
		replay_names(c, r);
		break;
	case REC_RENAME:
	case REC_UNLINK:
		replay_names(c, r);
		break;
	case REC_WRITE:
		replay_write(f, r);
		break;
	case REC_PUNCH:
		replay_zero(f, r->a, r->a + r->b);
		break;
	case REC_TRUNCATE:
		if (r->a < f->size)
			replay_zero(f, r->a, f->size);
		set_size(f, r->a);
		break;
	case REC_SYNCED:
		promise_file(f);
		promise_names(c, f->last_name_op);
		break;
	case REC_DIR_SYNCED:
		promise_dir(c, r->a);
		break;
	default:
		fprintf(stderr, "crashverify: strange record\n");
		exit(2);
	}
}

/* Everything so far is promised (V4). */
static void promise_all(struct check *c)
{
	size_t i;

	for (i = 0; i < c->files; i++)
		promise_file(c->file[i]);
	promise_names(c, c->names);
}

static bool is_promise(const struct record *r)
{
	return r->kind == REC_SYNCED || r->kind == REC_DIR_SYNCED;
}

/*
 * Replay what began before `until`. Operations known to be finished before
 * `asked` - all begun before it but the last, which may have been under way -
 * are promised.
 */
static void replay_all(struct check *c, uint64_t asked, uint64_t until)
{
	size_t i;

	c->after = must(calloc(1, sizeof(*c->after)));
	for (i = 0; i < c->count && c->rec[i].seq < until; i++) {
		/* A promise made while the snapshot was taken: perhaps after
		 * it. */
		if (asked && c->rec[i].seq > asked && is_promise(&c->rec[i]))
			continue;
		if (i + 1 < c->count ? c->rec[i + 1].seq > asked &&
					       c->rec[i].seq < asked :
				       c->rec[i].seq < asked)
			promise_all(c);
		replay(c, &c->rec[i]);
	}
}

/* ---- looking ---- */

static void look_piece(struct check *c, const struct file *f,
		       const struct piece *p, uint32_t at, const char *name)
{
	static const struct piece zero;
	const struct cell *cell = &f->cell[at / PIECES];

	if (memcmp(p, &zero, sizeof(zero)) == 0) {
		if (cell->lo != 0 && !cell->zero)
			fault(c, "%s: zeros at byte %zu, promised version %u",
			      name, at * sizeof(*p), cell->lo);
		return;
	}
	if (p->round != c->round || p->file != f->id || p->at != at)
		fault(c, "%s: foreign bytes at %zu: round %u file %x at %zu",
		      name, at * sizeof(*p), p->round, p->file,
		      p->at * sizeof(*p));
	else if (p->version < cell->lo || p->version > cell->hi)
		fault(c, "%s: version %u at byte %zu, not %u to %u", name,
		      p->version, at * sizeof(*p), cell->lo, cell->hi);
}

static void look_file(struct check *c, const struct file *f, const char *path,
		      const char *name)
{
	static unsigned char buf[(FILE_MAX + 64) * CELL];
	struct piece p;
	size_t len, i;
	ssize_t got;
	int fd = open(path, O_RDONLY);

	got = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
	if (got < 0) {
		fault(c, "%s: %s", name, strerror(errno));
		if (fd >= 0)
			close(fd);
		return;
	}
	close(fd);
	len = (size_t)got;
	if (len < (size_t)f->size_lo * CELL || len > (size_t)f->size_hi * CELL)
		fault(c, "%s: %zu bytes, not %u to %u", name, len,
		      f->size_lo * CELL, f->size_hi * CELL);
	for (i = 0; i < len / sizeof(p); i++) {
		memcpy(&p, buf + i * sizeof(p), sizeof(p));
		look_piece(c, f, &p, (uint32_t)i, name);
	}
}

/* Which file lies under a name: read from its pieces. 0: none, 1: no piece
 * tells (empty, or holes only). */
static uint32_t identify(const char *path)
{
	struct piece p[PIECES];
	uint32_t id = 1;
	size_t i;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return errno == ENOENT ? 0 : 1;
	while (id == 1 && read(fd, p, sizeof(p)) == (ssize_t)sizeof(p))
		for (i = 0; i < PIECES && id == 1; i++)
			if (p[i].file)
				id = p[i].file;
	close(fd);
	return id;
}

static void slot_path(const char *dir, uint32_t slot, char out[4300])
{
	snprintf(out, 4300, "%s/%c/name%u", dir, SLOT_DIR(slot) ? 'b' : 'a',
		 slot);
}

static bool names_match(const struct names *want, const struct names *seen)
{
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		if ((want->id[i] == 0) != (seen->id[i] == 0))
			return false;
		if (seen->id[i] > 1 && want->id[i] != seen->id[i])
			return false;
	}
	return true;
}

static unsigned count_names(const char *dir, char side)
{
	char path[4300];
	struct dirent *e;
	unsigned n = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/%c", dir, side);
	d = opendir(path);
	if (!d)
		return 0;
	while ((e = readdir(d)))
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static void show_names(const struct check *c, const struct names *seen)
{
	size_t i;

	for (i = 0; i < SLOTS; i++)
		fprintf(stderr, "\tname%zu: seen %x, promised %x, last %x\n",
			i, seen->id[i], c->after[c->promised].id[i],
			c->after[c->names].id[i]);
}

/* The contents of all files, if the names are those after n operations. */
static void look_files(struct check *c, const char *dir,
		       const struct names *seen, size_t n)
{
	char path[4300], name[32];
	uint32_t i;

	for (i = 0; i < SLOTS; i++) {
		if (seen->id[i] == 0)
			continue;
		slot_path(dir, i, path);
		snprintf(name, sizeof(name), "name%u", i);
		look_file(c, file_of(c, c->after[n].id[i]), path, name);
	}
}

/*
 * A file without contents doesn't tell which one it is, so more than one state
 * of the names may match: one of them must match in contents, too.
 */
static void look_states(struct check *c, const char *dir,
			const struct names *seen)
{
	size_t n, first = SIZE_MAX;
	unsigned before = c->faults;

	for (n = c->promised; n <= c->names; n++) {
		if (!names_match(&c->after[n], seen))
			continue;
		if (first == SIZE_MAX)
			first = n;
		c->quiet = true;
		look_files(c, dir, seen, n);
		c->quiet = false;
		if (c->faults == before)
			return;
		c->faults = before;
	}
	if (first != SIZE_MAX) {
		look_files(c, dir, seen, first);
		return;
	}
	fault(c, "names are of no state from %zu to %zu", c->promised,
	      c->names);
	show_names(c, seen);
}

static void look(struct check *c, const char *dir)
{
	struct names seen;
	char path[4300];
	unsigned listed, found = 0;
	uint32_t i;

	for (i = 0; i < SLOTS; i++) {
		slot_path(dir, i, path);
		seen.id[i] = identify(path);
		found += seen.id[i] != 0;
	}
	listed = count_names(dir, 'a') + count_names(dir, 'b');
	if (listed != found)
		fault(c, "%u names listed, %u found", listed, found);
	look_states(c, dir, &seen);
}

/* ---- all of it ---- */

static struct record *load(const char *journals, const char *name,
			   size_t *count)
{
	struct record *rec;
	struct stat st;
	char path[4300];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", journals, name);
	fd = open(path, O_RDONLY);
	if (fd < 0) {
		*count = 0; /* killed before it began */
		return NULL;
	}
	if (fstat(fd, &st) < 0)
		must(NULL);
	rec = must(malloc((size_t)st.st_size + 1));
	if (read(fd, rec, (size_t)st.st_size) != st.st_size)
		must(NULL);
	close(fd);
	*count = (size_t)st.st_size / sizeof(*rec);
	return rec;
}

struct job {
	const char *mount, *journals;
	uint32_t round, workers;
	unsigned faults;
	size_t records;
};

/* All workers' directories below top. */
static void verify(struct job *job, const char *top, uint64_t asked,
		   uint64_t until)
{
	char name[16], dir[4200];
	uint32_t i;
	size_t k;

	for (i = 0; i < job->workers; i++) {
		struct check c = { .where = dir, .round = job->round,
				   .worker = i };
		struct record *rec;

		snprintf(name, sizeof(name), "%u", i);
		snprintf(dir, sizeof(dir), "%s/r%u/w%u", top, job->round, i);
		c.rec = rec = load(job->journals, name, &c.count);
		replay_all(&c, asked, until);
		look(&c, dir);
		job->faults += c.faults;
		job->records += c.count;
		for (k = 0; k < c.files; k++)
			free(c.file[k]);
		free(c.file);
		free(c.after);
		free(rec);
	}
}

static unsigned verify_snapshots(struct job *job)
{
	struct record *rec;
	size_t i, count;
	char top[4096];
	struct stat st;
	bool acked;
	unsigned n = 0;

	rec = load(job->journals, "snap", &count);
	for (i = 0; i < count; i++) {
		if (rec[i].kind != REC_SNAP)
			continue;
		acked = i + 1 < count && rec[i + 1].kind == REC_SNAPPED;
		snprintf(top, sizeof(top), "%s/.snapshots/r%u-%u", job->mount,
			 job->round, rec[i].a);
		if (stat(top, &st) < 0) {
			if (acked) {
				fprintf(stderr, "crashverify: %s: %s\n", top,
					strerror(errno));
				job->faults++;
			}
			continue;
		}
		verify(job, top, rec[i].seq,
		       acked ? rec[i + 1].seq : UINT64_MAX);
		n++;
	}
	free(rec);
	return n;
}

int main(int argc, char **argv)
{
	struct job job = { 0 };
	unsigned snaps = 0;

	/* "live": the directories only; their snapshots may be deleted by
	 * now. */
	if (argc != 5 && !(argc == 6 && strcmp(argv[5], "live") == 0)) {
		fprintf(stderr, "usage: crashverify MOUNT JOURNALS ROUND "
				"WORKERS [live]\n");
		return 2;
	}
	job.mount = argv[1];
	job.journals = argv[2];
	job.round = (uint32_t)strtoul(argv[3], NULL, 10);
	job.workers = (uint32_t)strtoul(argv[4], NULL, 10);
	verify(&job, job.mount, 0, UINT64_MAX);
	printf("%zu operations", job.records);
	if (argc == 5)
		snaps = verify_snapshots(&job);
	printf(", %u snapshots, %u faults\n", snaps, job.faults);
	return job.faults ? 1 : 0;
}
