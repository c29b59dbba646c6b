/*
 * rescue_log.c - what fsync promised after the last commit
 *
 * Records hold items as they are to be, so for a rescue nothing has to be
 * applied: the tree's items and the log's, both in key order, pass by merged,
 * and where both have one the log's counts. So neither the maps nor the nodes
 * on the way to an item need to be readable, and nothing is written, not even
 * in memory. Blocks that a record carries are looked at where the device has no
 * good copy.
 *
 * Which records count is as in replay.c (L4), but that there is no allocator to
 * say which blocks nobody owned before: those are of extents younger than the
 * superblock that no earlier record names.
 *
 * Memory: the records, which are no longer than the log's area (up to 32 MiB as
 * mkfs makes it; the format allows 256 MiB), and 64 bytes for each item.
 */
#include "check/rescue.h"

/* Younger than what the superblock says. */
#define GEN_ANY (UINT64_MAX >> 1)

struct log_item {
	struct key key;
	struct item item; /* in a record */
	uint64_t order;   /* the highest of a key counts */
	bool gone;
};

struct log_block {
	uint64_t blk;
	const uint8_t *data;
};

struct loading {
	struct cowfs_rescue *r;
	struct log_reader log;
	struct imap named; /* blocks, by records before the one looked at */
};

/* ---- one record ---- */

typedef int entry_fn(struct loading *l, const struct record_entry *e);

/* rec: of the records that are kept. */
static int each_entry(struct loading *l, const uint8_t *rec, entry_fn *fn)
{
	const struct cowfs_disk_log *d = (const void *)rec;
	size_t at = sizeof(*d);
	struct record_entry e;
	int err = 0;

	for (uint32_t i = 0; !err && i < from_le32(d->count); i++)
		err = log_next_entry(&l->log, rec, &at, &e) ? fn(l, &e) :
							      -ECOW_CORRUPT;
	return err;
}

/* -ENOENT: the entry names no blocks. */
static int blocks_named(struct loading *l, const struct record_entry *e,
			struct extent_rec *x)
{
	struct check *c = &l->r->c;

	if (e->kind != COWFS_LOG_ITEM || e->key.type != COWFS_KEY_EXTENT)
		return -ENOENT;
	if (extent_parse(c, &e->key, &e->item, x) ||
	    !in_device(c, x->blk, x->len) ||
	    (x->blk2 && !in_device(c, x->blk2, x->len)))
		return -ECOW_CORRUPT;
	return 0;
}

static int look_at(struct loading *l, const struct record_entry *e)
{
	struct extent_rec x;
	int err = blocks_named(l, e, &x);

	return err == -ENOENT ? 0 : err;
}

static int name_blocks(struct loading *l, const struct record_entry *e)
{
	struct extent_rec x;
	int err = blocks_named(l, e, &x);

	return err ? (err == -ENOENT ? 0 : err) :
		     imap_add(&l->named, x.blk, x.len, 1);
}

static int take_entry(struct loading *l, const struct record_entry *e)
{
	struct cowfs_rescue *r = l->r;
	struct log_block *b;
	struct log_item *it;

	if (e->kind == COWFS_LOG_BLOCK) {
		b = array_add(&r->log.blocks, sizeof(*b));
		if (!b)
			return -ENOMEM;
		*b = (struct log_block){ e->key.obj, e->item.data };
		return 0;
	}
	it = array_add(&r->log.items, sizeof(*it));
	if (!it)
		return -ENOMEM;
	*it = (struct log_item){ .key = e->key, .item = e->item,
				 .order = r->log.items.n,
				 .gone = e->kind == COWFS_LOG_GONE };
	return 0;
}

/* ---- the last one (L4) ---- */

static int has_arrived(struct loading *l, const struct record_entry *e)
{
	struct cowfs_rescue *r = l->r;
	struct copies_read got;
	struct extent_rec x;
	struct ival iv;
	int err = blocks_named(l, e, &x);

	if (err || !x.csum || x.gen <= r->gen)
		return err == -ENOENT ? 0 : err;
	for (uint32_t i = 0; i < x.len && !err; i++) {
		struct copies at = { x.blk + i, x.blk2 ? x.blk2 + i : 0 };
		uint32_t csum = from_le32(x.csum[i]);

		imap_get(&l->named, at.a, &iv);
		if (iv.n || rescue_log_block(r, at.a, csum))
			continue;
		err = read_copies(&r->c, at, 1, &csum, false, false, r->c.data,
				  &got);
		if (!err && got.lost[0] & 1)
			err = -ECOW_CSUM;
	}
	return err;
}

static int by_block(const void *a, const void *b)
{
	const struct log_block *x = a, *y = b;

	return x->blk < y->blk ? -1 : x->blk > y->blk;
}

static void sort_blocks(struct cowfs_rescue *r)
{
	if (r->log.blocks.n)
		qsort(r->log.blocks.at, r->log.blocks.n,
		      sizeof(struct log_block), by_block);
}

/* What a record that does not count carries is not looked for either. */
static int check_last(struct loading *l)
{
	struct array *recs = &l->r->log.records;
	uint8_t **rec = recs->at;
	int err;

	if (!recs->n)
		return 0;
	for (size_t i = 0; i + 1 < recs->n; i++) {
		err = each_entry(l, rec[i], name_blocks);
		if (err)
			return err;
	}
	err = each_entry(l, rec[recs->n - 1], take_entry);
	sort_blocks(l->r);
	if (!err)
		err = each_entry(l, rec[recs->n - 1], has_arrived);
	l->r->log.items.n = l->r->log.blocks.n = 0;
	if (!err || err == -ENOMEM)
		return err;
	free(rec[--recs->n]);
	return 0;
}

/* ---- all of them ---- */

static int keep_record(struct loading *l, uint64_t blocks)
{
	struct array *recs = &l->r->log.records;
	size_t len = blocks * COWFS_BLOCK_SIZE;
	uint8_t *copy = malloc(len), **at;

	at = copy ? array_add(recs, sizeof(*at)) : NULL;
	if (!at) {
		free(copy);
		return -ENOMEM;
	}
	memcpy(copy, l->log.rec, len);
	*at = copy;
	return 0;
}

/* The first that is not there, or not to be believed, ends it. */
static int read_records(struct loading *l)
{
	uint64_t at = 0, seq = 0, blocks;
	int err = 0;

	for (; !err && !log_read(&l->log, at, seq, &blocks);
	     at += blocks, seq++) {
		if (each_entry(l, l->log.rec, look_at))
			break;
		err = keep_record(l, blocks);
	}
	l->r->log_damaged = !err && (l->log.unread ||
				     log_goes_on(&l->log, at, seq));
	return err;
}

static int by_key(const void *a, const void *b)
{
	const struct log_item *x = a, *y = b;
	int cmp = key_cmp(&x->key, &y->key);

	return cmp ? cmp : x->order < y->order ? -1 : x->order > y->order;
}

/* Of each key the last. */
static void sort_items(struct cowfs_rescue *r)
{
	struct log_item *it = r->log.items.at;
	size_t n = 0;

	if (!r->log.items.n)
		return;
	qsort(it, r->log.items.n, sizeof(*it), by_key);
	for (size_t i = 0; i < r->log.items.n; i++)
		if (i + 1 == r->log.items.n ||
		    key_cmp(&it[i].key, &it[i + 1].key) != 0)
			it[n++] = it[i];
	r->log.items.n = n;
}

int rescue_log_load(struct cowfs_rescue *r)
{
	struct loading l = { .r = r };
	int err;

	if (!log_counts(&r->c.super))
		return 0;
	r->c.gen = GEN_ANY; /* checksums vouch for what is in the log */
	imap_init(&l.named);
	err = log_reader_init(&l.log, r->dev, &r->c.super);
	if (!err)
		err = read_records(&l);
	if (!err)
		err = check_last(&l);
	for (size_t i = 0; !err && i < r->log.records.n; i++)
		err = each_entry(&l, ((uint8_t **)r->log.records.at)[i],
				 take_entry);
	if (!r->log.records.n)
		r->c.gen = r->gen;
	log_reader_fini(&l.log);
	imap_clear(&l.named);
	sort_blocks(r);
	sort_items(r);
	return err;
}

void rescue_log_fini(struct cowfs_rescue *r)
{
	uint8_t **rec = r->log.records.at;

	for (size_t i = 0; i < r->log.records.n; i++)
		free(rec[i]);
	array_free(&r->log.records);
	array_free(&r->log.items);
	array_free(&r->log.blocks);
}

/* ---- while a tree passes by ---- */

const uint8_t *rescue_log_block(const struct cowfs_rescue *r, uint64_t blk,
				uint32_t csum)
{
	const struct log_block *b = r->log.blocks.at;
	size_t lo = 0, hi = r->log.blocks.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (b[mid].blk < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < r->log.blocks.n && b[lo].blk == blk; lo++)
		if (checksum(0, b[lo].data, COWFS_BLOCK_SIZE) == csum)
			return b[lo].data;
	return NULL;
}

int rescue_log_until(struct cowfs_rescue *r, const struct key *k, bool *taken)
{
	const struct log_item *it = r->log.items.at;
	int err = 0;

	*taken = false;
	for (; !err && r->log.at < r->log.items.n; r->log.at++) {
		const struct log_item *l = &it[r->log.at];
		int cmp = k ? key_cmp(&l->key, k) : -1;

		if (cmp > 0)
			break;
		*taken = cmp == 0;
		if (!l->gone)
			err = rescue_item(r, &l->key, &l->item);
	}
	return err;
}
