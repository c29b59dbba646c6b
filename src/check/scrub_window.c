/*
 * scrub_window.c - file data in the order of addresses, a bounded part at a time
 *
 * Extents are taken as the walk meets them, each with its checksums, as long as
 * memory lasts. When it is used up they are put in order, what several extents
 * share is kept once, and the upper half is left to a later window: what was
 * taken is always all that there is between `from` and `limit`.
 *
 *   WN1  After tidy() pieces are disjoint and in order, so memory holds a
 *        piece and its checksums for each block once, and half of it at least
 *        stays in the window: every window brings the scrub further.
 *   WN2  Extents that share blocks must agree about them. Of those that don't,
 *        one is wrong whatever the disk holds; that is reported, and the block
 *        verified against the one met first.
 */
#include "check/scrub.h"

#define NO_CSUMS UINT32_MAX

struct piece {
	uint64_t blk, blk2;
	uint32_t len;
	uint32_t at;  /* of its checksums; NO_CSUMS: preallocated */
	bool awaits;  /* see awaits_recovery */
};

struct window {
	uint64_t from, limit;
	uint64_t max; /* bytes */
	struct piece *piece;
	size_t n, room;
	uint32_t *csum;
	size_t csums, csum_room;
	bool tidy;
};

int window_new(uint64_t from, uint64_t bytes, struct window **out)
{
	struct window *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->from = from;
	w->limit = UINT64_MAX;
	w->max = bytes;
	*out = w;
	return 0;
}

void window_free(struct window *w)
{
	if (!w)
		return;
	free(w->piece);
	free(w->csum);
	free(w);
}

uint64_t window_end(const struct window *w)
{
	return w->limit;
}

/* ---- taking ---- */

static uint64_t bytes_used(const struct window *w)
{
	return w->n * sizeof(*w->piece) + w->csums * sizeof(*w->csum);
}

static bool grow(struct window *w, size_t csums)
{
	size_t room;
	void *at;

	if (w->n == w->room) {
		room = w->room ? w->room + w->room / 2 : 256;
		at = realloc(w->piece, room * sizeof(*w->piece));
		if (!at)
			return false;
		w->piece = at;
		w->room = room;
	}
	if (w->csum_room - w->csums < csums) {
		room = w->csum_room + w->csum_room / 2 + csums + 1024;
		at = realloc(w->csum, room * sizeof(*w->csum));
		if (!at)
			return false;
		w->csum = at;
		w->csum_room = room;
	}
	return true;
}

/* The part of an extent that lies in the window. */
static int take(struct window *w, const struct check *c,
		const struct extent_rec *e)
{
	uint32_t skip = 0, len = e->len;
	struct piece *p;

	if (e->blk >= w->limit || e->blk + len <= w->from)
		return 0;
	if (e->blk < w->from)
		skip = (uint32_t)(w->from - e->blk);
	len = (uint32_t)min_u64(len, w->limit - e->blk) - skip;
	if (!grow(w, e->csum ? len : 0))
		return -ENOMEM;
	p = &w->piece[w->n++];
	*p = (struct piece){ .blk = e->blk + skip,
			     .blk2 = e->blk2 ? e->blk2 + skip : 0,
			     .len = len,
			     .at = NO_CSUMS,
			     .awaits = awaits_recovery(c, e->gen) };
	if (e->csum) {
		p->at = (uint32_t)w->csums;
		for (uint32_t i = 0; i < len; i++)
			w->csum[w->csums + i] = from_le32(e->csum[skip + i]);
		w->csums += len;
	}
	w->tidy = false;
	return 0;
}

/* ---- putting in order ---- */

static int by_place(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	if (x->blk != y->blk)
		return x->blk < y->blk ? -1 : 1;
	return x->len > y->len ? -1 : x->len < y->len;
}

/* Do two pieces agree about a block that both have? */
static bool agree(const struct window *w, const struct piece *a,
		  const struct piece *b, uint64_t blk)
{
	if ((a->at == NO_CSUMS) != (b->at == NO_CSUMS) ||
	    !a->blk2 != !b->blk2 ||
	    (a->blk2 && a->blk2 - a->blk != b->blk2 - b->blk))
		return false;
	return a->at == NO_CSUMS || w->csum[a->at + (blk - a->blk)] ==
					    w->csum[b->at + (blk - b->blk)];
}

/* p begins before `cover`, where the first n pieces end. */
static void compare(const struct window *w, struct check *c, size_t n,
		    const struct piece *p, uint64_t cover)
{
	uint64_t end = min_u64(cover, p->blk + p->len);

	for (size_t i = n; i-- && w->piece[i].blk + w->piece[i].len > p->blk;) {
		const struct piece *q = &w->piece[i];
		uint64_t to = min_u64(end, q->blk + q->len);

		for (uint64_t b = max_u64(p->blk, q->blk); b < to; b++) {
			if (agree(w, p, q, b))
				continue;
			problem(c, P_EXTENT_BAD, "extents disagree about block "
				"%" PRIu64, b);
			return;
		}
	}
}

static void trim(struct piece *p, uint64_t from)
{
	uint32_t skip = (uint32_t)(from - p->blk);

	p->blk += skip;
	p->blk2 += p->blk2 ? skip : 0;
	p->len -= skip;
	p->at += p->at == NO_CSUMS ? 0 : skip;
}

/* Each block once (WN1). */
static void make_disjoint(struct window *w, struct check *c)
{
	uint64_t cover = 0;
	size_t n = 0;

	for (size_t i = 0; i < w->n; i++) {
		struct piece p = w->piece[i];

		if (p.blk < cover) {
			compare(w, c, n, &p, cover);
			if (p.blk + p.len <= cover)
				continue;
			trim(&p, cover);
		}
		cover = p.blk + p.len;
		w->piece[n++] = p;
	}
	w->n = n;
}

/* Only the checksums that pieces have. */
static int pack(struct window *w)
{
	size_t n = 0, room = 0;
	uint32_t *csum;

	for (size_t i = 0; i < w->n; i++)
		if (w->piece[i].at != NO_CSUMS)
			room += w->piece[i].len;
	csum = malloc((room + 1) * sizeof(*csum));
	if (!csum)
		return -ENOMEM;
	for (size_t i = 0; i < w->n; i++) {
		struct piece *p = &w->piece[i];

		if (p->at == NO_CSUMS)
			continue;
		memcpy(csum + n, w->csum + p->at, p->len * sizeof(*csum));
		p->at = (uint32_t)n;
		n += p->len;
	}
	free(w->csum);
	w->csum = csum;
	w->csums = n;
	w->csum_room = room + 1;
	return 0;
}

/* Leave what does not fit into half the memory to a later window. */
static void cut(struct window *w)
{
	uint64_t used = 0;

	for (size_t i = 0; i < w->n; i++) {
		struct piece *p = &w->piece[i];

		used += sizeof(*p) + (p->at == NO_CSUMS ? 0 : 4 * p->len);
		if (used <= w->max / 2)
			continue;
		w->limit = p->blk + p->len;
		w->n = i + 1;
		return;
	}
}

/* full: memory is used up. What is wrong here was not looked at by an earlier
 * walk, quiet or not. */
static int tidy(struct window *w, struct check *c, bool full)
{
	bool quiet = c->quiet;

	if (w->tidy && !full)
		return 0;
	c->quiet = false;
	if (w->n)
		qsort(w->piece, w->n, sizeof(*w->piece), by_place);
	make_disjoint(w, c);
	c->quiet = quiet;
	if (full)
		cut(w);
	w->tidy = true;
	return pack(w);
}

/* Where there are extra copies the map has to know of all data, so that none is
 * taken for a copy's place (copies.c). */
static int mark_data(struct walk *w, const void *node)
{
	struct ival iv;

	return imap_next(&w->c->extra, 0, &iv) ? data_leaf(w, node) : 0;
}

int window_leaf(struct walk *w, const void *node)
{
	struct window *win = w->c->leaf_arg;
	unsigned n = node_count(node);
	int err = mark_data(w, node);

	for (unsigned i = w->first_slot; i < n && !err && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct extent_rec e;
		struct item it;

		if (k.type != COWFS_KEY_EXTENT)
			continue;
		it = node_item(node, i, w->c->node_size);
		if (extent_ok(w, &k, &it, &e))
			err = take(win, w->c, &e);
		if (!err && bytes_used(win) > win->max)
			err = tidy(win, w->c, true);
	}
	return err;
}

/* ---- verifying ---- */

struct sweep {
	struct window *w;
	struct check *c;
	struct piece batch; /* blocks that lie one after the other */
	struct window_done sum;
};

/* One block that did not match when it was read with others. */
static int one_block(struct sweep *s, uint32_t i)
{
	struct check *c = s->c;
	const struct piece *p = &s->batch;
	struct copies at = { .a = p->blk + i, .b = p->blk2 ? p->blk2 + i : 0 };
	struct check_bad bad = { .blk = at.a, .blk2 = at.b, .blocks = 1,
				 .gen = c->gen };
	struct copies_read r;
	int err;

	err = read_copies(c, at, 1, &s->w->csum[p->at + i], false,
			  c->opt->mend, c->data, &r);
	if (err || c->stop)
		return err;
	bad.lost = r.lost[0] & 1;
	bad.copies = r.bad;
	bad.repaired = r.repaired;
	s->sum.checksums += !bad.lost;
	if (r.bad && c->opt->bad && (bad.lost || !p->awaits))
		c->opt->bad(c->opt->arg, &bad);
	return 0;
}

static bool has_stale_side(struct bdev *dev)
{
	for (unsigned i = 0; i < bdev_sides(dev); i++)
		if (bdev_side_state(dev, i) == SIDE_STALE)
			return true;
	return false;
}

/* Most are good: they are read at once, and only where they are not each by
 * itself. */
static int verify_batch(struct sweep *s)
{
	const struct piece *p = &s->batch;
	struct check *c = s->c;
	struct copies at = { .a = p->blk, .b = p->blk2 };
	struct copies_read r;
	int err;

	err = read_copies(c, at, p->len, &s->w->csum[p->at], false, false,
			  c->data, &r);
	if (err || c->stop)
		return err;
	/* A side that lacks blocks gets them in this run, too (block.h). */
	if (!r.bad && c->opt->mend && has_stale_side(c->io->dev))
		err = read_copies(c, at, p->len, &s->w->csum[p->at], false,
				  true, c->data, &r);
	if (err || c->stop)
		return err;
	if (!r.bad) {
		s->sum.checksums += p->len;
		return 0;
	}
	for (uint32_t i = 0; i < p->len && !err && !c->stop; i++)
		err = one_block(s, i);
	return err;
}

static bool harmless(unsigned mark)
{
	return mark == MARK_FREE || mark == MARK_DATA ||
	       mark == MARK_DATA_YOUNG || mark == MARK_PREALLOC ||
	       mark == MARK_PREALLOC_YOUNG;
}

/* Data where a node lies? */
static void look_for_nodes(struct sweep *s)
{
	const struct blockmap_chunk *chunk = NULL;
	const struct piece *p = &s->batch;

	for (uint64_t b = p->blk; b < p->blk + p->len; b++) {
		uint64_t at = b % COWFS_CHUNK_BLOCKS;

		if (b == p->blk || at == 0)
			chunk = blockmap_chunk(&s->c->map,
					       b / COWFS_CHUNK_BLOCKS);
		if (!chunk || harmless(chunk->mark[at] & MARK_MASK))
			continue;
		problem(s->c, P_OVERLAP, "data block %" PRIu64
			" lies where something else does", b);
		return;
	}
}

static int flush(struct sweep *s)
{
	const struct piece *p = &s->batch;
	int err = 0;

	if (!p->len)
		return 0;
	look_for_nodes(s);
	if (p->at == NO_CSUMS)
		s->sum.prealloc += p->len;
	else
		err = verify_batch(s);
	if (err || s->c->stop)
		return err;
	s->sum.blocks += p->len;
	s->sum.copies += p->len * (p->blk2 ? 2u : 1u);
	s->sum.pos = p->blk + p->len;
	return 0;
}

/* Neighbours are read at once, whatever file they belong to. After pack() their
 * checksums lie one after the other, too. */
static bool joins(const struct piece *a, const struct piece *b)
{
	if (a->blk + a->len != b->blk || !a->blk2 != !b->blk2 ||
	    a->awaits != b->awaits || a->len >= DATA_BLOCKS)
		return false;
	if (a->blk2 && a->blk2 + a->len != b->blk2)
		return false;
	return a->at == NO_CSUMS ? b->at == NO_CSUMS :
				   b->at == a->at + a->len;
}

static int sweep_part(struct sweep *s, struct piece p,
		       void (*done)(void *arg, const struct window_done *d),
		       void *arg)
{
	int err;

	while (p.len) {
		struct piece *b = &s->batch;
		uint32_t n;

		if (b->len && !joins(b, &p)) {
			err = flush(s);
			if (err || s->c->stop)
				return err;
			done(arg, &s->sum);
			s->sum = (struct window_done){ .pos = s->sum.pos };
			b->len = 0;
		}
		if (!b->len)
			*b = (struct piece){ .blk = p.blk, .blk2 = p.blk2,
					     .at = p.at, .awaits = p.awaits };
		n = (uint32_t)min_u64(p.len, DATA_BLOCKS - b->len);
		b->len += n;
		trim(&p, p.blk + n);
	}
	return 0;
}

/* With the extra copies of its blocks: all have been judged by now. */
static int sweep_piece(struct sweep *s, struct piece p,
		       void (*done)(void *arg, const struct window_done *d),
		       void *arg)
{
	struct piece part;
	struct ival iv;
	int err = 0;

	while (p.len && !err && !s->c->stop) {
		part = p;
		if (!p.blk2 && p.at != NO_CSUMS) {
			imap_get(&s->c->extra, p.blk, &iv);
			part.len = (uint32_t)min_u64(p.len, iv.len);
			if (iv.n)
				part.blk2 = p.blk + (uint64_t)iv.n;
		}
		err = sweep_part(s, part, done, arg);
		trim(&p, p.blk + part.len);
	}
	return err;
}

int window_verify(struct window *w, struct check *c,
		  void (*done)(void *arg, const struct window_done *d),
		  void *arg)
{
	struct sweep s = { .w = w, .c = c, .sum = { .pos = w->from } };
	int err = tidy(w, c, false);

	for (size_t i = 0; i < w->n && !err && !c->stop; i++)
		err = sweep_piece(&s, w->piece[i], done, arg);
	if (!err && !c->stop)
		err = flush(&s);
	if (err || c->stop)
		return err;
	s.sum.pos = max_u64(s.sum.pos, w->limit == UINT64_MAX ?
					       c->blocks : w->limit);
	done(arg, &s.sum);
	return 0;
}
