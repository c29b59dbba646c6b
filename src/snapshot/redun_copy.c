/*
 * redun_copy.c - a batch of extra copies: taken, written, recorded
 */
#include <assert.h>

#include "snapshot/redun.h"

/* As far away as can be, on a device that is thought to be a ring. */
static uint64_t far_from(const struct store *s, uint64_t blk)
{
	uint64_t half = s->io.blocks / 2;

	return blk < half ? blk + half : blk - half;
}

int batch_add(struct store *s, struct batch *b, uint64_t blk,
	      const struct le32 *csum, uint32_t *len)
{
	struct piece *p = &b->piece[b->pieces];
	uint64_t want = min_u64(*len, BATCH_BLOCKS - b->blocks), got, at;
	int err;

	assert(!batch_full(b));
	err = alloc_take(s->alloc, AREA_EXTRA, far_from(s, blk), want, &at,
			 &got);
	if (err)
		return err;
	*p = (struct piece){ .iv = { .start = blk, .len = got, .at = at },
			     .csum = b->blocks };
	for (uint64_t i = 0; i < got; i++)
		b->csum[b->blocks++] = from_le32(csum[i]);
	b->pieces++;
	*len = (uint32_t)got;
	return 0;
}

void batch_drop(struct store *s, struct batch *b)
{
	if (!store_stopped(s))
		for (unsigned i = 0; i < b->pieces; i++)
			alloc_give_back(s->alloc, b->piece[i].iv.at,
					b->piece[i].iv.len);
	b->pieces = b->blocks = 0;
}

static bool damage(int err)
{
	return err == -ECOW_CSUM || err == -ECOW_CORRUPT || err == -EIO;
}

/* Blocks that cannot be read have no copy to be had. */
static int copy_piece(struct store *s, struct batch *b, struct piece *p)
{
	struct copies from = { .a = p->iv.start };
	int err;

	err = block_read_data(&s->io, from, p->iv.len, &b->csum[p->csum],
			      b->buf);
	p->bad = damage(err);
	if (err)
		return p->bad ? 0 : err;
	return block_write(&s->io, p->iv.at, p->iv.len, b->buf);
}

/* In a grace section: what the hold keeps at its beginning is not handed out
 * before its end. */
static int copy_all(struct store *s, struct batch *b)
{
	unsigned ticket = store_enter(s);
	int err = alloc_hold_broken(s->alloc) ? -ESTALE : 0;

	b->sides = store_sides_added(s);
	for (unsigned i = 0; !err && i < b->pieces; i++)
		err = copy_piece(s, b, &b->piece[i]);
	store_leave(s, ticket);
	return err;
}

/* N1: is it all still there, and without a copy? */
static int confirm(struct store *s, struct piece *p)
{
	struct copy_ival other;
	uint64_t blk = p->iv.start, end = blk + p->iv.len, refs, run;
	int err = 0;

	for (; !err && blk < end && !p->bad; blk += run) {
		err = alloc_refs(s->alloc, &s->refs_space, blk, end - blk,
				 &refs, &run);
		if (!err && !refs)
			p->bad = true;
	}
	if (!err && !p->bad)
		err = copies_next(s, p->iv.start, &other);
	if (!err && !p->bad && other.start < end)
		p->bad = true;
	if ((err && err != -ENOENT) || p->bad)
		return err;
	return copies_prepare(s, &p->iv);
}

/* Two leaves may have brought the same blocks. */
static bool is_twice(const struct batch *b, unsigned n)
{
	const struct copy_ival *iv = &b->piece[n].iv, *other;

	for (unsigned i = 0; i < n; i++) {
		other = &b->piece[i].iv;
		if (!b->piece[i].bad && iv->start < other->start + other->len &&
		    other->start < iv->start + iv->len)
			return true;
	}
	return false;
}

static int record(struct store *s, struct batch *b)
{
	int err = 0;

	if (alloc_hold_broken(s->alloc) || b->sides != store_sides_added(s))
		return -ESTALE;
	for (unsigned i = 0; !err && i < b->pieces; i++) {
		b->piece[i].bad |= is_twice(b, i);
		err = confirm(s, &b->piece[i]);
	}
	for (unsigned i = 0; !err && i < b->pieces; i++) {
		struct piece *p = &b->piece[i];

		if (p->bad)
			continue;
		err = copies_add(s, &p->iv);
		if (!err)
			alloc_own(s->alloc, p->iv.at, p->iv.len);
	}
	return err;
}

/* Pieces that were recorded are nobody's to give back. */
static void keep_bad(struct batch *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->pieces; i++)
		if (b->piece[i].bad)
			b->piece[n++] = b->piece[i];
	b->pieces = n;
}

int batch_run(struct store *s, struct batch *b)
{
	struct op op;
	int err;

	if (!b->pieces)
		return 0;
	err = copy_all(s, b);
	if (!err)
		err = op_write(&op, s, ALLOC_NORMAL, 2 + b->pieces);
	if (!err) {
		do
			err = record(s, b);
		while (op_again(&op, &err));
		err = op_end(&op, err);
		if (!err)
			keep_bad(b);
	}
	batch_drop(s, b);
	return err;
}
