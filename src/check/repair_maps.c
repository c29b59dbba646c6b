/*
 * repair_maps.c - what must not be overwritten; both maps made anew
 */
#include "check/mend.h"

static bool used(const struct blockmap_chunk *chunk, unsigned i)
{
	unsigned kind = chunk->mark[i] & MARK_MASK;

	return kind != MARK_FREE && kind != MARK_RESERVED;
}

int keep_map(struct repair *r, const struct blockmap *m)
{
	int err = 0;

	for (uint64_t n = blockmap_next(m, 0); !err && n < m->chunks;
	     n = blockmap_next(m, n + 1)) {
		const struct blockmap_chunk *chunk = blockmap_chunk(m, n);
		unsigned from = 0, to;

		for (; !err && from < COWFS_CHUNK_BLOCKS; from = to) {
			for (to = from; to < COWFS_CHUNK_BLOCKS; to++)
				if (!used(chunk, to))
					break;
			if (to > from)
				err = alloc_keep(r->s->alloc,
						 n * COWFS_CHUNK_BLOCKS + from,
						 to - from);
			else
				to++;
		}
	}
	return err;
}

/* ---- the space records as they are ---- */

static int keep_chunk(struct walk *w, uint64_t n, const uint8_t *bits)
{
	struct repair *r = w->arg;
	uint64_t base = n * COWFS_CHUNK_BLOCKS;
	int err = 0;

	for (unsigned i = 0; !err && i < COWFS_CHUNK_BLOCKS; i++)
		if ((!bits || bits[i / 8] >> i % 8 & 1) &&
		    in_device(w->c, base + i, 1))
			err = alloc_keep(r->s->alloc, base + i, 1);
	return err;
}

static int keep_leaf(struct walk *w, const void *node)
{
	const struct cowfs_disk_chunk *d;
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, w->c->node_size);

		if (k.type != COWFS_KEY_SPACE || k.obj >= w->c->map.chunks)
			continue;
		d = it.data;
		if (it.len == sizeof(*d))
			err = keep_chunk(w, k.obj, NULL);
		else if (it.len == sizeof(*d) + COWFS_CHUNK_BYTES)
			err = keep_chunk(w, k.obj, (const uint8_t *)(d + 1));
	}
	return err;
}

int keep_records(struct repair *r, struct check *c)
{
	struct walk w = { .c = c, .name = "space tree", .again = true,
			  .kind = COWFS_ROOT_SPACE, .tree = TREE_OTHER,
			  .each = keep_leaf, .arg = r };
	struct nptr root =
		nptr_from_disk(&c->super.roots[COWFS_ROOT_SPACE].ptr);

	return walk_tree(&w, &root);
}

/* ---- extra copies ---- */

static int put_copy(struct repair *r, const struct copy_ival *iv)
{
	struct store *s = r->s;
	int err;

	while ((err = copies_prepare(s, iv)) == -EAGAIN) {
		err = forest_load(s->forest);
		if (err)
			return err;
	}
	return err ? err : copies_add(s, iv);
}

/* Is block blk one that may have a copy at `at`? Then that is taken. */
static int take_copy(struct blockmap *m, uint64_t blk, uint64_t at, bool *fits)
{
	struct cell cell;
	int err = blockmap_cell(m, blk, &cell);

	*fits = !err && cell_kind(&cell) == MARK_DATA;
	if (*fits)
		err = blockmap_cell(m, at, &cell);
	if (err)
		return err;
	*fits = *fits && cell_kind(&cell) == MARK_FREE;
	if (*fits)
		cell_set(&cell, MARK_COPY, 0);
	return 0;
}

/* Those that do not fit go; the others are marked. */
static int fit_copies(struct repair *r, struct blockmap *m)
{
	uint64_t at = 0, gone = 0;
	struct ival iv;
	bool fits;
	int err = 0;

	for (; !err && imap_next(&r->extra, at, &iv); at++) {
		at = max_u64(at, iv.start);
		err = take_copy(m, at, at + (uint64_t)iv.n, &fits);
		if (err || fits)
			continue;
		gone++;
		err = imap_add(&r->extra, at, 1, -iv.n);
	}
	if (!err && gone)
		tell(r, "extra copies of %" PRIu64 " blocks are let go of",
		     gone);
	return err;
}

static int put_copies(struct repair *r)
{
	uint64_t at = 0;
	struct ival iv;
	int err = 0;

	for (; !err && imap_next(&r->extra, at, &iv); at = iv.start + iv.len) {
		struct copy_ival copy = { .start = iv.start, .len = iv.len,
					  .at = iv.start + (uint64_t)iv.n };

		err = put_copy(r, &copy);
	}
	return err;
}

int forget_copies(struct repair *r)
{
	struct store *s = r->s;
	int err;

	copies_clear(s);
	while ((err = redun_prepare_forget(s)) == -EAGAIN) {
		err = forest_load(s->forest);
		if (err == -ECOW_CSUM || err == -ECOW_CORRUPT || err == -EIO)
			return 0; /* the setting lies in what will be cut out */
		if (err)
			return err;
	}
	if (err == -ECOW_CORRUPT)
		return 0; /* the setting is, and that is dealt with by whom it
			     concerns: nothing is made */
	return err ? err : redun_forget(s);
}

/* ---- new maps ---- */

/* First chunk >= n that the walk or the allocator has something in. */
static uint64_t next_known(struct repair *r, const struct blockmap *m,
			   uint64_t n)
{
	return min_u64(blockmap_next(m, n), alloc_next(r->s->alloc, n));
}

static int set_owned(struct repair *r, const struct blockmap *m)
{
	uint64_t bits[COWFS_CHUNK_BLOCKS / 64], n;
	int err = 0;

	for (n = next_known(r, m, 0); !err && n < m->chunks;
	     n = next_known(r, m, n + 1)) {
		const struct blockmap_chunk *chunk = blockmap_chunk(m, n);

		memset(bits, 0, sizeof(bits));
		for (unsigned i = 0; chunk && i < COWFS_CHUNK_BLOCKS; i++)
			if (used(chunk, i))
				bits[i / 64] |= UINT64_C(1) << i % 64;
		err = alloc_set_owned(r->s->alloc, n, chunk ? bits : NULL);
	}
	return err;
}

static int put_ref(struct repair *r, uint64_t from, uint64_t to,
		   uint32_t extra)
{
	struct cowfs_disk_ref d = { .extra = to_le32(extra) };
	struct key k = KEY(from, COWFS_KEY_REF, to - from);

	return extra ? mend_put(r, &r->s->refs, &k, &d, sizeof(d)) : 0;
}

static uint32_t extra_of(const struct blockmap_chunk *chunk, unsigned i)
{
	return chunk && used(chunk, i) && chunk->count[i] ?
		       chunk->count[i] - 1 : 0;
}

static int make_refs(struct repair *r, const struct blockmap *m)
{
	uint64_t from = 0; /* of a run with the same count */
	uint32_t extra = 0;
	int err = 0;

	/* the chunk after one is looked at, too: there the run ends */
	for (uint64_t n = blockmap_next(m, 0); !err && n < m->chunks;
	     n = extra ? n + 1 : blockmap_next(m, n + 1)) {
		const struct blockmap_chunk *chunk = blockmap_chunk(m, n);
		uint64_t base = n * COWFS_CHUNK_BLOCKS;

		for (unsigned i = 0; !err && i < COWFS_CHUNK_BLOCKS; i++) {
			uint32_t now = extra_of(chunk, i);

			if (now == extra)
				continue;
			err = put_ref(r, from, base + i, extra);
			from = base + i;
			extra = now;
		}
	}
	return err ? err : put_ref(r, from, m->blocks, extra);
}

int make_maps(struct repair *r, struct blockmap *m)
{
	int err = fit_copies(r, m);

	if (!err)
		err = set_owned(r, m);
	if (!err)
		err = put_copies(r);
	if (!err)
		err = make_refs(r, m);
	return err ? err : store_repair_maps(r->s);
}
