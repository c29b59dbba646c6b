/*
 * replay.c - bring the file tree to the state of the last fsync (log.h)
 *
 * What a record does to the allocator follows from the items alone: each extent
 * that it removes or replaces takes a reference from its blocks, each one it
 * brings gives one. Blocks that were cut and put elsewhere cancel out; blocks
 * that end up with more and were free are claimed (and their contents checked
 * first, L4); the others gain or lose references.
 */
#include <inttypes.h>

#include "txn/log.h"
#include "txn/private.h"

struct replay {
	struct store *s;
	uint8_t *buf;  /* LOG_RECORD_MAX */
	void *data;    /* a block */
	struct imap change; /* references, by block of the first copy */
	struct imap mate;   /* second copy minus first */
};

struct entry {
	struct key key;
	struct item item;
	bool gone;
};

/* ---- reading a record ---- */

static int head_ok(const struct store *s, const struct cowfs_disk_log *d,
		   uint64_t seq, uint64_t room)
{
	uint32_t len = from_le32(d->len);

	return from_le32(d->magic) == COWFS_LOG_MAGIC &&
	       memcmp(d->uuid, s->super.uuid, sizeof(d->uuid)) == 0 &&
	       from_le64(d->base) == from_le64(s->super.gen) &&
	       from_le64(d->seq) == seq && len >= sizeof(*d) && len <= room &&
	       len <= LOG_RECORD_MAX;
}

/* The record at block `at` of the area. -ENOENT: the log ends here. */
static int read_record(struct replay *r, uint64_t at, uint64_t seq,
		       uint64_t *blocks)
{
	struct store *s = r->s;
	const struct cowfs_disk_log *d = (const void *)r->buf;
	uint64_t area = from_le32(s->super.log.blocks);
	uint64_t off = (from_le64(s->super.log.blk) + at) * COWFS_BLOCK_SIZE;
	uint32_t len;

	if (at >= area)
		return -ENOENT;
	if (bdev_read(s->dev, off, r->buf, COWFS_BLOCK_SIZE) ||
	    !head_ok(s, d, seq, (area - at) * COWFS_BLOCK_SIZE))
		return -ENOENT;
	len = from_le32(d->len);
	*blocks = blocks_of(len);
	if (bdev_read(s->dev, off, r->buf, *blocks * COWFS_BLOCK_SIZE) ||
	    checksum(0, r->buf + 8, len - 8) != from_le32(d->csum))
		return -ENOENT;
	return 0;
}

static bool next_entry(const struct replay *r, size_t *at, struct entry *e)
{
	const struct cowfs_disk_log *d = (const void *)r->buf;
	size_t len = from_le32(d->len);
	struct cowfs_disk_log_entry de;

	if (len - *at < sizeof(de))
		return false;
	memcpy(&de, r->buf + *at, sizeof(de));
	*at += sizeof(de);
	e->key = key_from_disk(&de.key);
	e->gone = de.gone;
	e->item.len = from_le16(de.len);
	e->item.data = r->buf + *at;
	if (e->item.len > len - *at ||
	    e->item.len > COWFS_ITEM_MAX(from_le32(r->s->super.node_size)))
		return false;
	*at += e->item.len;
	return true;
}

typedef int entry_fn(struct replay *r, const struct entry *e);

static int each_entry(struct replay *r, entry_fn *fn)
{
	const struct cowfs_disk_log *d = (const void *)r->buf;
	size_t at = sizeof(*d);
	uint32_t i, n = from_le32(d->count);
	struct entry e;
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		if (!next_entry(r, &at, &e))
			return report(-ECOW_CORRUPT,
				      "log: impossible entry %" PRIu32, i);
		err = fn(r, &e);
	}
	return err;
}

/* ---- what it does to blocks ---- */

struct blocks {
	uint64_t blk, blk2, len;
	const struct le32 *csum; /* NULL: unwritten */
};

/* -ENOENT: the item names no blocks. */
static int blocks_of_item(const struct replay *r, const struct key *k,
			  const struct item *it, struct blocks *out)
{
	uint64_t end = r->s->io.blocks - COWFS_SUPER_SLOTS;
	struct cowfs_disk_extent d;
	struct blocks b;

	if (k->type != COWFS_KEY_EXTENT)
		return -ENOENT;
	if (it->len < sizeof(d))
		return -ECOW_CORRUPT;
	memcpy(&d, it->data, sizeof(d));
	b = (struct blocks){ .blk = from_le64(d.blk), .blk2 = from_le64(d.blk2),
			     .len = from_le32(d.len) };
	if (b.blk == 0)
		return -ENOENT;
	if (d.kind == COWFS_EXTENT_DATA)
		b.csum = (const struct le32 *)((const uint8_t *)it->data +
					       sizeof(d));
	if (b.blk > end || b.len > end - b.blk || b.len == 0 ||
	    b.blk < COWFS_FIRST_BLOCK ||
	    (b.blk2 && (b.blk2 > end || b.len > end - b.blk2 ||
			b.blk2 < COWFS_FIRST_BLOCK)) ||
	    (b.csum && (it->len - sizeof(d)) / 4 < b.len))
		return report(-ECOW_CORRUPT, "log: impossible extent");
	*out = b;
	return 0;
}

static int count_blocks(struct replay *r, const struct blocks *b, int n)
{
	struct ival had;
	uint64_t at, len;
	int err = imap_add(&r->change, b->blk, b->len, n);

	for (at = b->blk; !err && b->blk2 && at < b->blk + b->len; at += len) {
		imap_get(&r->mate, at, &had);
		len = min_u64(had.len, b->blk + b->len - at);
		if (had.n == 0)
			err = imap_add(&r->mate, at, len,
				       (int64_t)(b->blk2 - b->blk));
	}
	return err;
}

/* T: the item that is there now; none: -ENOENT. */
static int item_now(struct replay *r, const struct key *k, struct item *out)
{
	struct store *s = r->s;
	int err;

	for (;;) {
		err = tree_get(&s->fs, k, out);
		if (err != -EAGAIN)
			return err;
		err = forest_load(s->forest);
		if (err)
			return err;
	}
}

static int count_entry(struct replay *r, const struct entry *e)
{
	struct blocks b;
	struct item old;
	int err;

	if (e->key.type != COWFS_KEY_EXTENT)
		return 0;
	err = item_now(r, &e->key, &old);
	if (!err)
		err = blocks_of_item(r, &e->key, &old, &b);
	if (!err)
		err = count_blocks(r, &b, -1);
	if ((err && err != -ENOENT) || e->gone)
		return err == -ENOENT ? 0 : err;
	err = blocks_of_item(r, &e->key, &e->item, &b);
	if (!err)
		err = count_blocks(r, &b, 1);
	return err == -ENOENT ? 0 : err;
}

/* Has the block arrived, in one copy at least? The other is mended. */
static int check_block(struct replay *r, struct copies at, uint32_t csum)
{
	bool mend = !store_readonly(r->s);
	unsigned bad = 0, repaired = 0;
	uint8_t lost = 0;
	int err = block_scrub(&r->s->io, at, 1, &csum, false, mend, r->data,
			      &bad, &repaired, &lost);

	return !err && lost ? -ECOW_CSUM : err;
}

/* L4: data that no tree owned before must have arrived. */
static int check_entry(struct replay *r, const struct entry *e)
{
	struct store *s = r->s;
	struct copies at;
	struct blocks b;
	uint32_t csum;
	uint64_t i;
	int err;

	if (e->gone)
		return 0;
	err = blocks_of_item(r, &e->key, &e->item, &b);
	if (err || !b.csum)
		return err == -ENOENT ? 0 : err;
	for (i = 0; !err && i < b.len; i++) {
		at = (struct copies){ b.blk + i, b.blk2 ? b.blk2 + i : 0 };
		csum = from_le32(b.csum[i]);
		if (!alloc_owned(s->alloc, at.a, 1))
			err = check_block(r, at, csum);
	}
	return err;
}

/* ---- applying ---- */

static int apply_entry(struct replay *r, const struct entry *e)
{
	struct store *s = r->s;
	int err;

	for (;;) {
		err = tree_prepare(&s->fs, &e->key);
		if (!err && e->gone)
			err = tree_delete(&s->fs, &e->key);
		else if (!err)
			err = tree_put(&s->fs, &e->key, e->item.data,
				       e->item.len);
		if (err != -EAGAIN)
			return err == -ENOENT ? 0 : err;
		err = forest_load(s->forest);
		if (err)
			return err;
	}
}

/* A stretch of blocks, all owned before or all free. */
static int apply_stretch(struct replay *r, uint64_t blk, uint64_t len, int64_t n,
			 uint64_t blk2, bool owned)
{
	struct alloc *a = r->s->alloc;
	int err;

	if (owned)
		return alloc_ref(a, blk, len, (int)n, blk2);
	if (n < 0)
		return report(-ECOW_CORRUPT, "log: block %" PRIu64 " is free",
			      blk);
	err = alloc_claim(a, blk, len);
	if (!err && blk2)
		err = alloc_claim(a, blk2, len);
	return !err && n > 1 ? alloc_ref(a, blk, len, (int)n - 1, blk2) : err;
}

static int apply_blocks(struct replay *r)
{
	struct alloc *a = r->s->alloc;
	uint64_t at = 0, len, max;
	struct ival iv, mate;
	bool owned;
	int err = 0;

	while (!err && imap_next(&r->change, at, &iv)) {
		at = max_u64(at, iv.start);
		imap_get(&r->mate, at, &mate);
		max = min_u64(iv.start + iv.len - at, mate.len);
		owned = alloc_owned(a, at, 1);
		for (len = 1; len < max; len++)
			if (alloc_owned(a, at + len, 1) != owned)
				break;
		err = apply_stretch(r, at, len, iv.n,
				    mate.n ? at + (uint64_t)mate.n : 0, owned);
		at += len;
	}
	return err;
}

static int apply_record(struct replay *r)
{
	const struct cowfs_disk_log *d = (const void *)r->buf;
	struct store *s = r->s;
	uint64_t ino = from_le64(d->next_ino);
	int err;

	imap_clear(&r->change);
	imap_clear(&r->mate);
	err = each_entry(r, count_entry);
	if (!err)
		err = apply_blocks(r);
	if (!err)
		err = each_entry(r, apply_entry);
	if (!err && ino > from_le64(s->super.next_ino) && ino <= COWFS_INO_MAX)
		s->super.next_ino = d->next_ino;
	return err;
}

static int replay_all(struct replay *r, uint64_t *records)
{
	uint64_t at = 0, seq = 0, blocks;
	int err;

	for (;; at += blocks, seq++) {
		err = read_record(r, at, seq, &blocks);
		if (!err && each_entry(r, check_entry))
			err = -ENOENT; /* its data did not arrive */
		if (err == -ENOENT)
			break;
		if (!err)
			err = apply_record(r);
		if (err)
			return report(err, "%s: log record %" PRIu64
				      " cannot be applied", r->s->dev->name,
				      seq);
	}
	*records = seq;
	return 0;
}

int log_replay(struct store *s, uint64_t *records)
{
	struct replay r = { .s = s };
	bool readonly = s->fs.readonly;
	int err = -ENOMEM;

	*records = 0;
	if (!from_le32(s->super.log.blocks) ||
	    s->super.state & COWFS_STATE_CLEAN)
		return 0;
	imap_init(&r.change);
	imap_init(&r.mate);
	r.buf = aligned_alloc(COWFS_BLOCK_SIZE, LOG_RECORD_MAX);
	r.data = aligned_alloc(COWFS_BLOCK_SIZE, COWFS_BLOCK_SIZE);
	s->fs.readonly = false; /* in memory even a read-only store moves on */
	tree_lock(s);
	atomic_store(&s->p->closing, true); /* so loading may evict under T */
	if (r.buf && r.data)
		err = replay_all(&r, records);
	atomic_store(&s->p->closing, false);
	s->changed = *records != 0;
	tree_unlock(s);
	s->fs.readonly = readonly;
	imap_clear(&r.change);
	imap_clear(&r.mate);
	free(r.buf);
	free(r.data);
	return err;
}
