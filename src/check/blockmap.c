/*
 * blockmap.c - what each block of the device is, and how many refer to it
 *
 * Memory follows what an image says, not how large it claims to be: an image
 * may name 2^48 blocks, and scatter its pointers so that no two of them fall
 * into the same chunk. So chunks are found by a hash table, and one is kept
 *
 *	as runs	of blocks that are alike, 8 bytes each, while they are few: a
 *		node is two of them, unwritten space of any length one;
 *	dense	6 bytes for each of its blocks, from RUNS_MAX runs on.
 *
 * A pointer touches two chunks at most (four with the second copy), each new
 * one costs about 130 bytes, and 16 bytes more for the runs: some ten times the
 * bytes that the pointer itself takes on the device is the worst, six bytes a
 * block is usual. Chunks that are not dense are limited (blockmap_limit): only an
 * image made for it needs so many. Dense ones are not: there is something on the
 * device for each of their runs.
 *
 * A cell that was asked for can be set without failing: room for the runs that
 * it may make is there, for two cells at a time.
 */
#include <unistd.h>

#include "check/private.h"

#define RUNS_FIRST 4u
#define RUNS_MAX 1024u /* 8 KiB; a dense chunk has 24 */
#define CELL_RUNS 2u   /* that setting one cell may add */
#define MAX_LEAST (UINT64_C(1) << 30)

/* From block `start` of the chunk to the next run. The first starts at 0. */
struct run {
	uint32_t count;
	uint16_t start, mark;
};

struct blockmap_part {
	uint64_t n; /* of the chunk */
	struct blockmap_chunk *dense; /* or NULL: */
	struct run *run;
	uint16_t runs, room;
};

struct blockmap_dir {
	struct blockmap_part **slot; /* hash table: slots, a power of two */
	struct blockmap_part **part; /* all of them; sorted if `sorted` */
	size_t slots, parts, part_room;
	bool sorted, refused;
	struct blockmap_part *last;  /* asked for */
	uint64_t used, max;          /* bytes, dense chunks excepted */
	uint64_t dense;              /* chunks */
	struct blockmap_chunk plain; /* chunk plain_n, for who reads it */
	struct blockmap_part *plain_of;
};

/* ---- memory ---- */

static uint64_t default_limit(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);

	if (pages <= 0 || size <= 0)
		return MAX_LEAST;
	return max_u64((uint64_t)pages * (uint64_t)size / 4, MAX_LEAST);
}

/* May so many bytes more be used? */
static bool take(struct blockmap_dir *d, uint64_t bytes)
{
	if (bytes <= d->max && d->used <= d->max - bytes) {
		d->used += bytes;
		return true;
	}
	if (!d->refused)
		log_msg(LOG_LVL_ERROR, "what this image names is scattered so "
			"far that a map of it takes more than %" PRIu64
			" MiB of memory: refused", d->max >> 20);
	d->refused = true;
	return false;
}

void blockmap_limit(struct blockmap *m, uint64_t bytes)
{
	m->dir->max = bytes;
}

uint64_t blockmap_bytes(const struct blockmap *m)
{
	return m->dir->used + m->dir->dense * sizeof(struct blockmap_chunk);
}

int blockmap_init(struct blockmap *m, uint64_t blocks)
{
	memset(m, 0, sizeof(*m));
	m->blocks = blocks;
	m->chunks = blocks / COWFS_CHUNK_BLOCKS +
		    (blocks % COWFS_CHUNK_BLOCKS != 0);
	m->dir = calloc(1, sizeof(*m->dir));
	if (!m->dir)
		return -ENOMEM;
	m->dir->max = default_limit();
	return 0;
}

void blockmap_fini(struct blockmap *m)
{
	struct blockmap_dir *d = m->dir;

	if (!d)
		return;
	for (size_t i = 0; i < d->parts; i++) {
		free(d->part[i]->dense);
		free(d->part[i]->run);
		free(d->part[i]);
	}
	free(d->slot);
	free(d->part);
	free(d);
	m->dir = NULL;
}

/* ---- finding a chunk ---- */

static struct blockmap_part *find_part(const struct blockmap *m, uint64_t n)
{
	struct blockmap_dir *d = m->dir;
	size_t i;

	if (!d->slots)
		return NULL;
	if (d->last && d->last->n == n)
		return d->last;
	for (i = hash_u64(n) & (d->slots - 1); d->slot[i];
	     i = (i + 1) & (d->slots - 1))
		if (d->slot[i]->n == n)
			return d->last = d->slot[i];
	return NULL;
}

static void enter(struct blockmap_part **slot, size_t slots,
		  struct blockmap_part *p)
{
	size_t i = hash_u64(p->n) & (slots - 1);

	while (slot[i])
		i = (i + 1) & (slots - 1);
	slot[i] = p;
}

/* Room for one more in the table and in the list. */
static int grow_dir(struct blockmap_dir *d)
{
	size_t slots = d->slots ? d->slots * 2 : 256;
	size_t room = d->part_room ? d->part_room * 2 : 128;
	struct blockmap_part **slot, **part;

	if (d->parts == d->part_room) {
		if (!take(d, (room - d->part_room) * sizeof(*part)))
			return -ENOMEM;
		part = realloc(d->part, room * sizeof(*part));
		if (!part)
			return -ENOMEM;
		d->part = part;
		d->part_room = room;
	}
	if (d->parts < d->slots / 2)
		return 0;
	if (!take(d, (slots - d->slots) * sizeof(*slot)))
		return -ENOMEM;
	slot = calloc(slots, sizeof(*slot));
	if (!slot)
		return -ENOMEM;
	for (size_t i = 0; i < d->parts; i++)
		enter(slot, slots, d->part[i]);
	free(d->slot);
	d->slot = slot;
	d->slots = slots;
	return 0;
}

static struct blockmap_part *make_part(const struct blockmap *m, uint64_t n)
{
	struct blockmap_dir *d = m->dir;
	struct blockmap_part *p;

	if (grow_dir(d) ||
	    !take(d, sizeof(*p) + RUNS_FIRST * sizeof(*p->run) + 32))
		return NULL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->n = n;
	p->run = calloc(RUNS_FIRST, sizeof(*p->run));
	if (!p->run) {
		free(p);
		return NULL;
	}
	p->room = RUNS_FIRST;
	p->runs = 1; /* all free */
	d->sorted = d->sorted && (!d->parts || d->part[d->parts - 1]->n < n);
	d->part[d->parts++] = p;
	enter(d->slot, d->slots, p);
	return d->last = p;
}

static int by_number(const void *a, const void *b)
{
	const struct blockmap_part *const *x = a, *const *y = b;

	return (*x)->n < (*y)->n ? -1 : (*x)->n > (*y)->n;
}

uint64_t blockmap_next(const struct blockmap *m, uint64_t n)
{
	struct blockmap_dir *d = m->dir;
	size_t lo = 0, hi = d->parts;

	if (!d->sorted && d->parts)
		qsort(d->part, d->parts, sizeof(*d->part), by_number);
	d->sorted = true;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (d->part[mid]->n < n)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < d->parts ? d->part[lo]->n : m->chunks;
}

/* ---- the runs of a chunk ---- */

static unsigned find_run(const struct blockmap_part *p, unsigned off)
{
	unsigned lo = 0, hi = p->runs; /* run lo starts at or before off */

	if (p->run[hi - 1].start <= off) /* where things are usually added */
		return hi - 1;
	while (hi - lo > 1) {
		unsigned mid = (lo + hi) / 2;

		if (p->run[mid].start <= off)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

static unsigned run_end(const struct blockmap_part *p, unsigned i)
{
	return i + 1u < p->runs ? p->run[i + 1].start : COWFS_CHUNK_BLOCKS;
}

static void insert_run(struct blockmap_part *p, unsigned at, struct run r)
{
	memmove(p->run + at + 1, p->run + at,
		(p->runs - at) * sizeof(*p->run));
	p->run[at] = r;
	p->runs++;
}

static void delete_run(struct blockmap_part *p, unsigned at)
{
	p->runs--;
	memmove(p->run + at, p->run + at + 1,
		(p->runs - at) * sizeof(*p->run));
}

static bool alike(const struct run *a, const struct run *b)
{
	return a->mark == b->mark && a->count == b->count;
}

/* One block: cut out of its run, joined with a neighbour that is like it. */
static void set_run(struct blockmap_part *p, unsigned off, uint16_t mark,
		    uint32_t count)
{
	struct run r = { .count = count, .start = (uint16_t)off, .mark = mark };
	unsigned i = find_run(p, off);
	struct run rest = p->run[i];

	if (alike(&rest, &r))
		return;
	if (off + 1 < run_end(p, i)) {
		rest.start = (uint16_t)(off + 1);
		insert_run(p, i + 1, rest);
	}
	if (p->run[i].start == off)
		p->run[i] = r;
	else
		insert_run(p, ++i, r);
	if (i + 1u < p->runs && alike(&p->run[i], &p->run[i + 1]))
		delete_run(p, i + 1);
	if (i && alike(&p->run[i - 1], &p->run[i]))
		delete_run(p, i);
}

static void spread(const struct blockmap_part *p, struct blockmap_chunk *out)
{
	for (unsigned i = 0; i < p->runs; i++)
		for (unsigned b = p->run[i].start; b < run_end(p, i); b++) {
			out->count[b] = p->run[i].count;
			out->mark[b] = p->run[i].mark;
		}
}

static int make_dense(struct blockmap_dir *d, struct blockmap_part *p)
{
	p->dense = malloc(sizeof(*p->dense));
	if (!p->dense)
		return -ENOMEM;
	spread(p, p->dense);
	free(p->run);
	p->run = NULL;
	d->used -= p->room * sizeof(*p->run);
	d->dense++;
	p->room = p->runs = 0;
	return 0;
}

/* For two cells. */
static int make_room(struct blockmap_dir *d, struct blockmap_part *p)
{
	unsigned want = p->runs + 2 * CELL_RUNS, room = p->room * 2u;
	struct run *run;

	if (p->dense || want <= p->room)
		return 0;
	if (room > RUNS_MAX)
		return make_dense(d, p);
	if (!take(d, (room - p->room) * sizeof(*run)))
		return -ENOMEM;
	run = realloc(p->run, room * sizeof(*run));
	if (!run)
		return -ENOMEM;
	p->run = run;
	p->room = (uint16_t)room;
	return 0;
}

/* ---- cells ---- */

int blockmap_cell(struct blockmap *m, uint64_t blk, struct cell *out)
{
	uint64_t n = blk / COWFS_CHUNK_BLOCKS;
	unsigned off = (unsigned)(blk % COWFS_CHUNK_BLOCKS);
	struct blockmap_part *p = find_part(m, n);

	if (!p)
		p = make_part(m, n);
	if (!p || make_room(m->dir, p))
		return -ENOMEM;
	*out = (struct cell){ .dir = m->dir, .part = p, .off = off };
	if (p->dense) {
		out->mark = p->dense->mark[off];
		out->count = p->dense->count[off];
	} else {
		const struct run *r = &p->run[find_run(p, off)];

		out->mark = r->mark;
		out->count = r->count;
	}
	return 0;
}

static void put_cell(struct cell *c)
{
	struct blockmap_part *p = c->part;

	if (c->dir->plain_of == p)
		c->dir->plain_of = NULL;
	if (p->dense) {
		p->dense->mark[c->off] = c->mark;
		p->dense->count[c->off] = c->count;
	} else {
		set_run(p, c->off, c->mark, c->count);
	}
}

void cell_set(struct cell *c, enum mark kind, uint64_t print)
{
	c->mark = (uint16_t)((print & 0xfff) << MARK_BITS | kind);
	c->count = 1;
	put_cell(c);
}

void cell_add(struct cell *c)
{
	if (c->count == UINT32_MAX)
		return;
	c->count++;
	put_cell(c);
}

const struct blockmap_chunk *blockmap_chunk(const struct blockmap *m,
					    uint64_t n)
{
	struct blockmap_dir *d = m->dir;
	struct blockmap_part *p = find_part(m, n);

	if (!p)
		return NULL;
	if (p->dense)
		return p->dense;
	if (d->plain_of != p)
		spread(p, &d->plain);
	d->plain_of = p;
	return &d->plain;
}

int blockmap_reserve(struct blockmap *m, uint64_t blk, uint64_t len,
		     enum mark kind)
{
	struct cell cell;
	int err;

	for (uint64_t i = 0; i < len; i++) {
		err = blockmap_cell(m, blk + i, &cell);
		if (err)
			return err;
		cell_set(&cell, kind, 0);
	}
	return 0;
}
