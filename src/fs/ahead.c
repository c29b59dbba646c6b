/*
 * ahead.c - what a reader will want next, for the device to fetch
 *
 * Hints only: nothing here can change what is read. Two kinds of readers:
 *
 *   - One who reads on (in long pieces: so the kernel's read-ahead asks): the
 *     extents of the next WINDOW bytes are asked for while this piece is still
 *     read and copied. The system below does that by itself only as long as
 *     the file lies in one piece.
 *   - One who reads here and there in short pieces. Fetching 128 KiB takes the
 *     device little longer than 4 KiB. So where a piece is missing from the
 *     host's cache, its neighbours on the device are asked for, too, as long
 *     as that pays: each miss counts one up, each hit one down, and beyond a
 *     limit only what is wanted is read. Neighbours, not the same extent: what
 *     was written in the same seconds lies together, so of a file overwritten
 *     at random the neighbours are its own blocks as well. The limit is what
 *     a reader can come to before half of the file is there (misses less
 *     hits, by chance: three tenths of the clusters), and no more than
 *     AROUND_MAX: it bounds what is read in vain of a huge file, to 64 MiB.
 *     (The kernel does the same with faults of mapped files, mmap_miss.)
 *   - One who reads many files that are not longer than that: the files of a
 *     directory, say. Its neighbours are the next files. All these files are
 *     one reader, who is tried again now and then when it did not pay.
 *
 * Readers are told apart by file, in a small table without locks. What one knows
 * of a file is lost when another file comes to the same place, or wrong when
 * two threads change it at once: all that costs is a hint.
 */
#include "fs/data.h"

#define LONG (UINT64_C(64) << 10)
#define SHORT (UINT64_C(32) << 10)
#define WINDOW (UINT64_C(4) << 20)
#define STEP (UINT64_C(1) << 20)
/* Pieces arrive out of order, so far apart at most. */
#define SCATTER (UINT64_C(4) << 20)
#define RUNS 16u
#define CLUSTER 32u /* blocks */
#define AROUND_MAX 512u
#define RETRY 32u

static void set(_Atomic uint64_t *p, uint64_t v)
{
	atomic_store_explicit(p, v, memory_order_relaxed);
}

static uint64_t get(_Atomic uint64_t *p)
{
	return atomic_load_explicit(p, memory_order_relaxed);
}

static struct reader *reader_of(struct fs *fs, const struct view *v,
				uint64_t ino)
{
	uint64_t key = hash_u64(ino ^ hash_u64((uintptr_t)v)) | 1;
	struct reader *r = &fs->reader[key / 2 % FS_READERS];

	if (get(&r->key) == key)
		return r;
	set(&r->key, key);
	set(&r->next, 0);
	set(&r->end, 0);
	set(&r->misses, 0);
	return r;
}

/* ---- those who read on ---- */

struct window {
	struct fs *fs;
	struct view *view;
	uint64_t ino, from, to; /* blocks */
	unsigned runs;
	struct { uint64_t blk, len; } run[RUNS];
};

static int find_runs(struct window *w)
{
	struct tree *t = view_tree(w->fs, w->view);
	struct extent_iter it;
	struct extent e;
	int err;

	w->runs = 0;
	if (!t)
		return -ESTALE;
	err = extent_first(&it, w->fs, t, w->ino, w->from, &e);
	for (; !err && e.lblk < w->to && w->runs < RUNS;
	     err = extent_next(&it, &e)) {
		extent_crop(&e, w->from, w->to);
		if (e.kind != COWFS_EXTENT_DATA)
			continue;
		w->run[w->runs].blk = e.blk;
		w->run[w->runs++].len = e.len;
		if (e.lblk + e.len == w->to)
			break; /* do not ask for a node behind it */
	}
	return err == -ENOENT ? 0 : err;
}

static void fetch(struct fs *fs, struct view *v, uint64_t ino, uint64_t from,
		  uint64_t to)
{
	struct window w = { .fs = fs, .view = v, .ino = ino,
			    .from = from / BLOCK, .to = blocks_of(to) };
	struct op op;
	int err;

	op_read(&op, fs->s);
	do
		err = find_runs(&w);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	for (unsigned i = 0; !err && i < w.runs; i++)
		block_fetch(&fs->s->io, w.run[i].blk, w.run[i].len);
}

void ahead_read_on(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
		   uint64_t len, uint64_t size, bool whole)
{
	uint64_t next, end, want, from = off + len;
	struct reader *r;

	if (len < LONG || from >= size)
		return;
	r = reader_of(fs, v, ino);
	next = get(&r->next);
	end = get(&r->end);
	want = min_u64(from + WINDOW, size);
	if (off == 0) {
		end = 0;
		from = whole ? len : 0; /* this piece comes first */
	} else if (off > next + SCATTER || off + SCATTER < next) {
		set(&r->next, off + len); /* from here on, maybe */
		set(&r->end, 0);
		return;
	}
	set(&r->next, off == 0 ? len : max_u64(next, off + len));
	from = max_u64(from, end);
	if (want <= from || (want - from < STEP && want < size))
		return;
	set(&r->end, want);
	fetch(fs, v, ino, from, want);
}

/* ---- those who read here and there ---- */

static void note(struct fs *fs, struct reader *r, uint64_t blk, bool absent,
		 uint64_t limit, uint64_t retry)
{
	uint64_t misses = get(&r->misses);

	if (!absent) {
		if (misses)
			set(&r->misses, min_u64(misses, limit) - 1);
		return;
	}
	if (misses >= limit && !retry)
		return;
	set(&r->misses, misses + 1);
	if (misses < limit || misses % retry == 0)
		block_ahead(&fs->s->io, blk / CLUSTER * CLUSTER, CLUSTER);
}

void ahead_read_around(struct fs *fs, struct view *v, uint64_t ino,
		       uint64_t len, uint64_t size, uint64_t blk, bool absent)
{
	uint64_t clusters = blocks_of(size) / CLUSTER;

	if (len > SHORT)
		return;
	if (clusters <= 1)
		note(fs, reader_of(fs, v, 0), blk, absent, AROUND_MAX, RETRY);
	else
		note(fs, reader_of(fs, v, ino), blk, absent,
		     min_u64(AROUND_MAX, 16 + clusters / 3), 0);
}
