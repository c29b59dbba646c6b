/*
 * replay.c - bring the file tree to the state of the last fsync (log.h)
 *
 * What a record does to the allocator follows from the items alone: each extent
 * that it removes or replaces takes a reference from its blocks, each one it
 * brings gives one. Blocks that were cut and put elsewhere cancel out; of those
 * that were free the first reference is what claiming them means; the others
 * gain or lose references.
 *
 * Applying a record copies nodes. Where these go must be free for every record,
 * the last one included: so all records are read first, and what they name is
 * claimed, before the first one is applied.
 *
 * What records carry is staged (block.h): reads see it, and the device gets it
 * before the next superblock, if this store ever writes one. Only blocks that
 * nobody owned are staged, whatever a record says, and only bytes that match
 * their extent. A repair can't tell who owned what: it keeps all that might be
 * somebody's, also what a commit that was not finished names, which may be the
 * very blocks that the log carries. There the record is taken at its word.
 */
#include <inttypes.h>

#include "txn/log.h"
#include "txn/private.h"

/* Pieces of ranges looked at: far more than a full log has, few enough for one
 * that lies to be refused within a minute. */
#define STEPS_MAX (UINT64_C(1) << 27)

struct replay {
	struct store *s;
	uint64_t steps;
	struct log_reader log;
	void *data;    /* a block */
	const uint8_t **record; /* as they were read */
	const uint8_t *rec;     /* the one that is looked at */
	uint64_t records; /* that count */
	uint64_t room;    /* of record[] */
	uint64_t end;     /* where they end: block of the area */
	unsigned blocks;  /* carried by this one */
	uint64_t carried_blk[LOG_RECORD_MAX / COWFS_BLOCK_SIZE];
	const uint8_t *carried[LOG_RECORD_MAX / COWFS_BLOCK_SIZE];
	struct imap change; /* references, by block of the first copy */
	struct imap mate;   /* second copy minus first */
};

/* ---- a record ---- */

typedef int entry_fn(struct replay *r, const struct record_entry *e);

static int each_entry(struct replay *r, entry_fn *fn)
{
	const struct cowfs_disk_log *d = (const void *)r->rec;
	size_t at = sizeof(*d);
	uint32_t i, n = from_le32(d->count);
	struct record_entry e;
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		if (!log_next_entry(&r->log, r->rec, &at, &e))
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
	uint64_t max = COWFS_EXTENT_MAX(from_le32(r->s->super.node_size));
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
	if (b.blk > end || b.len > end - b.blk || b.len == 0 || b.len > max ||
	    b.blk < COWFS_FIRST_BLOCK ||
	    (b.blk2 && (b.blk2 > end || b.len > end - b.blk2 ||
			b.blk2 < COWFS_FIRST_BLOCK)) ||
	    (b.csum && (it->len - sizeof(d)) / 4 < b.len))
		return report(-ECOW_CORRUPT, "log: impossible extent");
	*out = b;
	return 0;
}

/* -ENOENT: the entry brings none. */
static int blocks_of_entry(const struct replay *r, const struct record_entry *e,
			   struct blocks *out)
{
	return e->kind == COWFS_LOG_ITEM
		       ? blocks_of_item(r, &e->key, &e->item, out)
		       : -ENOENT;
}

/* What adding to a range costs: the pieces that it is in already. */
static int count_pieces(struct replay *r, const struct blocks *b)
{
	uint64_t at = b->blk, end = b->blk + b->len;
	struct ival iv;

	while (at < end && imap_next(&r->change, at, &iv) && iv.start < end) {
		if (r->steps++ == STEPS_MAX)
			return report(-ECOW_CORRUPT, "log: too much in it");
		at = iv.start + iv.len;
	}
	return 0;
}

static int count_blocks(struct replay *r, const struct blocks *b, int n)
{
	struct ival had;
	uint64_t at, len;
	int err = count_pieces(r, b);

	if (!err)
		err = imap_add(&r->change, b->blk, b->len, n);
	for (at = b->blk; !err && b->blk2 && at < b->blk + b->len; at += len) {
		if (r->steps++ == STEPS_MAX)
			return report(-ECOW_CORRUPT, "log: too much in it");
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

static int count_entry(struct replay *r, const struct record_entry *e)
{
	struct blocks b;
	struct item old;
	int err;

	if (e->kind == COWFS_LOG_BLOCK || e->key.type != COWFS_KEY_EXTENT)
		return 0;
	err = item_now(r, &e->key, &old);
	if (!err)
		err = blocks_of_item(r, &e->key, &old, &b);
	if (!err)
		err = count_blocks(r, &b, -1);
	if ((err && err != -ENOENT) || e->kind == COWFS_LOG_GONE)
		return err == -ENOENT ? 0 : err;
	err = blocks_of_entry(r, e, &b);
	if (!err)
		err = count_blocks(r, &b, 1);
	return err == -ENOENT ? 0 : err;
}

/* Can it be applied? */
static int look_at_entry(struct replay *r, const struct record_entry *e)
{
	struct blocks b;
	int err = blocks_of_entry(r, e, &b);

	return err == -ENOENT ? 0 : err;
}

/* Has the block arrived, in one copy at least? The other is mended. -EIO: it
 * cannot be read now. */
static int check_block(struct replay *r, struct copies at, uint32_t csum)
{
	bool mend = !store_readonly(r->s);
	unsigned bad = 0, repaired = 0;
	uint8_t lost = 0;
	int err = block_scrub(&r->s->io, at, 1, &csum, false, mend, r->data,
			      &bad, &repaired, &lost);

	if (!err && lost)
		err = block_read_data(&r->s->io, at, 1, &csum, r->data);
	return err;
}

/* What the record carries of a block that is to have this checksum; NULL. */
static const uint8_t *carried(const struct replay *r, uint64_t blk,
			      uint32_t csum)
{
	unsigned i;

	for (i = 0; i < r->blocks; i++)
		if (r->carried_blk[i] == blk &&
		    checksum(0, r->carried[i], COWFS_BLOCK_SIZE) == csum)
			return r->carried[i];
	return NULL;
}

static int note_carried(struct replay *r, const struct record_entry *e)
{
	if (e->kind != COWFS_LOG_BLOCK)
		return 0;
	/* More than that can't be in a record. */
	r->carried[r->blocks] = e->item.data;
	r->carried_blk[r->blocks++] = e->key.obj;
	return 0;
}

typedef int block_fn(struct replay *r, struct copies at, uint32_t csum,
		     const uint8_t *data);

/* Each block of data that neither a tree nor an earlier record owned, or all;
 * data: NULL if it is not carried. */
static int each_block(struct replay *r, const struct record_entry *e, bool all,
		      block_fn *fn)
{
	struct copies at;
	struct blocks b;
	uint32_t csum;
	uint64_t i;
	int err = blocks_of_entry(r, e, &b);

	if (err || !b.csum)
		return err == -ENOENT ? 0 : err;
	for (i = 0; !err && i < b.len; i++) {
		at = (struct copies){ b.blk + i, b.blk2 ? b.blk2 + i : 0 };
		csum = from_le32(b.csum[i]);
		if (all || !alloc_owned(r->s->alloc, at.a, 1))
			err = fn(r, at, csum, carried(r, at.a, csum));
	}
	return err;
}

/* L4 */
static int check_new(struct replay *r, struct copies at, uint32_t csum,
		     const uint8_t *data)
{
	return data ? 0 : check_block(r, at, csum);
}

static int check_entry(struct replay *r, const struct record_entry *e)
{
	return each_block(r, e, false, check_new);
}

static int stage_new(struct replay *r, struct copies at, uint32_t csum,
		     const uint8_t *data)
{
	struct blockio *io = &r->s->io;
	int err;

	(void)csum;
	if (!data)
		return 0;
	err = block_stage(io, at.a, data);
	/* Somebody's block as the second copy: a hostile image. */
	if (!err && at.b &&
	    (r->s->p->repair || !alloc_owned(r->s->alloc, at.b, 1)))
		err = block_stage(io, at.b, data);
	return err;
}

static int stage_entry(struct replay *r, const struct record_entry *e)
{
	return each_block(r, e, r->s->p->repair, stage_new);
}

/* The blocks of a range that are free, for the entry that names them; first:
 * these are the copies whose references are counted. */
static int claim_range(struct replay *r, uint64_t blk, uint64_t len, bool first)
{
	struct alloc *a = r->s->alloc;
	uint64_t end = blk + len, n;
	bool owned = false;
	int err = 0;

	for (; !err && blk < end; blk += n) {
		n = alloc_owned_run(a, blk, end - blk, &owned);
		if (n == 0)
			return -EINVAL;
		if (r->steps++ == STEPS_MAX)
			return report(-ECOW_CORRUPT, "log: too much in it");
		if (owned)
			continue;
		err = alloc_claim(a, blk, n);
		if (!err && first)
			err = imap_add(&r->change, blk, n, -1);
	}
	return err;
}

static int claim_entry(struct replay *r, const struct record_entry *e)
{
	struct blocks b;
	int err = blocks_of_entry(r, e, &b);

	if (!err)
		err = claim_range(r, b.blk, b.len, true);
	if (!err && b.blk2)
		err = claim_range(r, b.blk2, b.len, false);
	return err == -ENOENT ? 0 : err;
}

/* ---- applying ---- */

static int apply_entry(struct replay *r, const struct record_entry *e)
{
	struct store *s = r->s;
	int err;

	if (e->kind == COWFS_LOG_BLOCK)
		return 0;
	for (;;) {
		err = tree_prepare(&s->fs, &e->key);
		if (!err && e->kind == COWFS_LOG_GONE)
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

/* What all records together did to references. */
static int apply_blocks(struct replay *r)
{
	uint64_t at = 0, len;
	struct ival iv, mate;
	int err = 0;

	while (!err && imap_next(&r->change, at, &iv)) {
		at = max_u64(at, iv.start);
		imap_get(&r->mate, at, &mate);
		len = min_u64(iv.start + iv.len - at, mate.len);
		err = alloc_ref(r->s->alloc, at, len, (int)iv.n,
				mate.n ? at + (uint64_t)mate.n : 0);
		at += len;
	}
	return err;
}

/* ---- record by record ---- */

typedef int record_fn(struct replay *r, uint64_t seq);

static int each_record(struct replay *r, record_fn *fn)
{
	uint64_t seq, n = r->records;
	int err = 0;

	for (seq = 0; !err && seq < n; seq++) {
		r->rec = r->record[seq];
		err = fn(r, seq);
	}
	return err;
}

/* The record that was read last, in memory that stays if it is staged. */
static int keep_record(struct replay *r)
{
	const struct cowfs_disk_log *d = (const void *)r->log.rec;
	uint64_t room = r->room ? r->room * 2 : 64;
	size_t len = from_le32(d->len);
	void *v;

	if (r->records == r->room) {
		v = realloc(r->record, room * sizeof(*r->record));
		if (!v)
			return -ENOMEM;
		r->record = v;
		r->room = room;
	}
	v = block_stage_room(&r->s->io, len);
	if (!v)
		return -ENOMEM;
	memcpy(v, d, len);
	r->record[r->records++] = v;
	return 0;
}

/* All records, up to one that is not there or not to be believed. */
static int read_records(struct replay *r)
{
	uint64_t blocks = 0;
	int err = 0;

	for (r->end = 0; !err; r->end += err ? 0 : blocks) {
		err = log_read(&r->log, r->end, r->records, &blocks);
		r->rec = r->log.rec;
		if (!err)
			err = each_entry(r, look_at_entry);
		if (!err)
			err = keep_record(r);
	}
	return err == -ENOMEM ? err : 0;
}

/* As with superblocks (store.c, 5): who writes would write over it. */
static int unread(const struct replay *r)
{
	static const char text[] = "cannot be read, and may be there";
	struct store *s = r->s;

	s->p->log_found.unread = true;
	if (!s->p->readonly && !s->p->repair)
		return report(-EIO, "%s: log record %" PRIu64 " %s: not opened "
			      "for writing", s->dev->name, r->records, text);
	if (!s->p->quiet)
		log_msg(LOG_LVL_WARN, "%s: log record %" PRIu64 " %s",
			s->dev->name, r->records, text);
	return 0;
}

static int check_read(const struct replay *r)
{
	return r->log.unread ? unread(r) : 0;
}

static void look_behind(struct replay *r)
{
	struct store *s = r->s;

	s->p->log_found.damaged = log_goes_on(&r->log, r->end, r->records);
	if (s->p->log_found.damaged && !s->p->quiet)
		log_msg(LOG_LVL_ERROR, "%s: log record %" PRIu64 " is damaged: "
			"what was fsynced after it and before the last commit "
			"is lost", s->dev->name, r->records);
}

/* L4: the one before the last is whole, or the last would not be there. */
static int claim_record(struct replay *r, uint64_t seq)
{
	int err;

	r->blocks = 0;
	err = each_entry(r, note_carried);
	if (!err && seq + 1 == r->records) {
		err = each_entry(r, check_entry);
		if (err && err != -ENOMEM) {
			r->records--; /* its data did not arrive */
			if (err == -EIO)
				return unread(r);
			r->s->p->log_found.unfinished = true;
			return 0;
		}
	}
	if (!err)
		err = each_entry(r, stage_entry);
	return err ? err : each_entry(r, claim_entry);
}

static int apply_record(struct replay *r, uint64_t seq)
{
	const struct cowfs_disk_log *d = (const void *)r->rec;
	struct store *s = r->s;
	uint64_t ino = from_le64(d->next_ino);
	int err;

	err = each_entry(r, count_entry);
	if (!err)
		err = each_entry(r, apply_entry);
	if (!err && ino > from_le64(s->super.next_ino) && ino <= COWFS_INO_MAX)
		s->super.next_ino = d->next_ino;
	return err ? report(err, "%s: log record %" PRIu64 " cannot be applied",
			    s->dev->name, seq)
		   : 0;
}

static int replay_all(struct replay *r)
{
	int err = read_records(r);

	if (!err)
		err = check_read(r);
	if (err)
		return err;
	look_behind(r);
	err = each_record(r, claim_record);
	if (!err)
		err = each_record(r, apply_record);
	return err ? err : apply_blocks(r);
}

static int replay_new(struct replay *r, struct store *s)
{
	*r = (struct replay){ .s = s };
	imap_init(&r->change);
	imap_init(&r->mate);
	r->data = aligned_alloc(COWFS_BLOCK_SIZE, COWFS_BLOCK_SIZE);
	return r->data ? log_reader_init(&r->log, s->dev, &s->super) : -ENOMEM;
}

static void replay_free(struct replay *r)
{
	imap_clear(&r->change);
	imap_clear(&r->mate);
	log_reader_fini(&r->log);
	free(r->record);
	free(r->data);
}

int log_begun(struct store *s, bool *begun)
{
	struct log_reader log;
	uint64_t blocks;
	int err = log_reader_init(&log, s->dev, &s->super);

	if (!err)
		*begun = log_read(&log, 0, 0, &blocks) == 0;
	log_reader_fini(&log);
	return err;
}

/* One that rotted somewhere before the end was there. */
int log_missing(struct store *s, unsigned also, uint64_t missing[BDEV_SIDES],
		uint64_t *records)
{
	uint64_t at = 0, seq = 0, n, blocks = 0;
	struct log_reader log;
	bool found = true;
	unsigned i;
	int err = log_reader_init(&log, s->dev, &s->super);

	memset(missing, 0, BDEV_SIDES * sizeof(*missing));
	if (err)
		return err;
	while (found) {
		bool has[BDEV_SIDES] = { false };

		found = false;
		for (i = 0; i < bdev_sides(s->dev); i++) {
			if ((bdev_side_state(s->dev, i) != SIDE_GOOD &&
			     !(also & 1u << i)) ||
			    log_read_side(&log, i, at, seq, &n))
				continue;
			found = has[i] = true;
			blocks = n;
		}
		for (i = 0; found && i < BDEV_SIDES; i++)
			missing[i] = has[i] ? 0 : missing[i] + 1;
		at += blocks;
		seq += found;
	}
	log_reader_fini(&log);
	*records = seq;
	return 0;
}

/* ---- repair ---- */

static int spare_entry(struct replay *r, const struct record_entry *e)
{
	struct blocks b;
	int err = blocks_of_entry(r, e, &b);

	if (!err)
		err = alloc_spare(r->s->alloc, b.blk, b.len);
	if (!err && b.blk2)
		err = alloc_spare(r->s->alloc, b.blk2, b.len);
	return err == -ENOENT ? 0 : err;
}

/* Applying a record makes nodes; they must not lie where a later record's data
 * is. A mount places nodes as the writer did before it; a repair does not. */
int log_spare(struct store *s)
{
	struct replay r = { .s = s };
	uint64_t at = 0, seq = 0, blocks;
	int err = 0;

	if (!log_counts(&s->super))
		return 0;
	err = log_reader_init(&r.log, s->dev, &s->super);
	for (; !err && !log_read(&r.log, at, seq, &blocks);
	     at += blocks, seq++) {
		r.rec = r.log.rec;
		err = each_entry(&r, spare_entry);
	}
	log_reader_fini(&r.log);
	return err == -ENOMEM ? err : 0; /* replaying ends there, too */
}

int log_replay(struct store *s, uint64_t *records)
{
	bool readonly = s->fs.readonly;
	struct replay r;
	int err;

	*records = 0;
	if (!log_counts(&s->super))
		return 0;
	err = replay_new(&r, s);
	s->fs.readonly = false; /* in memory even a read-only store moves on */
	tree_lock(s);
	load_under_lock(s, true);
	if (!err)
		err = replay_all(&r);
	load_under_lock(s, false);
	s->changed = r.records != 0;
	tree_unlock(s);
	s->fs.readonly = readonly;
	if (!err) {
		*records = s->p->log_found.records = r.records;
		s->p->log_found.tried = true;
	}
	replay_free(&r);
	return err;
}
