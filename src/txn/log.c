/*
 * log.c - noting changed items, appending them to the log (log.h)
 */
#include "txn/log.h"
#include "txn/private.h"

#define NOTES_MAX 4096u /* beyond that a commit is the better way */
/* So many nodes are read for one record, at most. (Where whole leaves were
 * deleted, that is where their keys belong now; a small cache would never hold
 * all of them at once.) */
#define LOADS_MAX 32u
#define BUCKETS (NOTES_MAX * 2)

struct log {
	struct store *s;
	uint64_t blk, blocks; /* the area; blocks 0: there is none */
	bool carry;           /* records may carry blocks */

	/* T */
	struct key *key;      /* noted, each once */
	uint32_t *bucket;     /* hash table of indices into key, plus one */
	unsigned count;
	bool overflow;        /* more than NOTES_MAX */

	/* C */
	bool begun;           /* the superblock it is based on is this store's */
	uint64_t at, seq;     /* where the next record goes, block of the area */
	uint64_t ready;       /* blocks of the area that were made ready */
	struct imap safe;     /* blocks written in the running generation that
				 are durable or in the log (L6) */
	uint8_t *buf;         /* LOG_RECORD_MAX */
	_Atomic uint64_t appends, bytes;
};

uint64_t log_size_for(uint64_t blocks)
{
	uint64_t n = blocks / 256;

	return n < 32 ? 32 : n > 8192 ? 8192 : n;
}

int log_new(struct store *s, struct log **out)
{
	struct log *log = calloc(1, sizeof(*log));

	if (!log)
		return -ENOMEM;
	log->s = s;
	log->blk = from_le64(s->super.log.blk);
	log->blocks = from_le32(s->super.log.blocks);
	log->carry = from_le64(s->super.incompat) & COWFS_INCOMPAT_LOG_DATA;
	imap_init(&log->safe);
	log->key = calloc(NOTES_MAX, sizeof(*log->key));
	log->bucket = calloc(BUCKETS, sizeof(*log->bucket));
	log->buf = aligned_alloc(COWFS_BLOCK_SIZE, LOG_RECORD_MAX);
	if (!log->key || !log->bucket || !log->buf) {
		log_free(log);
		return -ENOMEM;
	}
	*out = log;
	return 0;
}

void log_free(struct log *log)
{
	if (!log)
		return;
	imap_clear(&log->safe);
	free(log->key);
	free(log->bucket);
	free(log->buf);
	free(log);
}

/* ---- noting ---- */

static unsigned hash_key(const struct key *k)
{
	return (unsigned)(hash_u64(k->obj ^ hash_u64(k->off + k->type)) %
			  BUCKETS);
}

void log_note(void *arg, const struct key *k)
{
	struct log *log = arg;
	unsigned i;

	if (log->overflow)
		return;
	for (i = hash_key(k); log->bucket[i]; i = (i + 1) % BUCKETS)
		if (key_cmp(&log->key[log->bucket[i] - 1], k) == 0)
			return;
	if (log->count == NOTES_MAX) {
		log->overflow = true;
		return;
	}
	log->key[log->count++] = *k;
	log->bucket[i] = log->count;
}

static void forget_notes(struct log *log)
{
	if (log->count)
		memset(log->bucket, 0, BUCKETS * sizeof(*log->bucket));
	log->count = 0;
	log->overflow = false;
}

void log_forget(struct log *log)
{
	forget_notes(log);
	imap_clear(&log->safe);
}

void log_restart(struct log *log)
{
	log->begun = true;
	log->at = 0;
	log->seq = 0;
}

/* ---- packing ---- */

/* A block whose contents go into the record. */
struct carried {
	struct copies at;
	uint32_t csum;
};

struct record {
	struct log *log;
	size_t len, room;
	unsigned count; /* entries */
	struct imap fresh; /* blocks that no record before this one names */
	unsigned blocks;   /* of these, up to LOG_CARRY_MAX */
	bool flush;        /* they are too many, or can't be carried */
	struct carried carried[LOG_CARRY_MAX];
};

static void entry_put(struct record *r, const struct cowfs_disk_log_entry *e)
{
	memcpy(r->log->buf + r->len, e, sizeof(*e));
	r->len += sizeof(*e);
	r->count++;
}

/* Blocks i .. i + n - 1 of an extent are fresh. */
static void add_fresh(struct record *r, const struct cowfs_disk_extent *d,
		      const struct le32 *csum, uint64_t i, uint64_t n)
{
	uint64_t blk = from_le64(d->blk), blk2 = from_le64(d->blk2);

	/* Not to be remembered: they are durable, and nobody knows. */
	if (imap_add(&r->fresh, blk + i, n, 1))
		r->flush = true;
	if (!r->log->carry || n > LOG_CARRY_MAX - r->blocks)
		r->flush = true;
	if (r->flush)
		return;
	for (; n; n--, i++)
		r->carried[r->blocks++] = (struct carried){
			.at = { blk + i, blk2 ? blk2 + i : 0 },
			.csum = from_le32(csum[i]),
		};
}

/* Look for blocks in an item that are neither durable nor carried yet (L6). */
static void find_fresh(struct record *r, const struct key *k,
		       const struct item *it)
{
	const struct cowfs_disk_extent *d = it->data;
	uint64_t blk, len, i, n;
	struct ival safe, seen;

	if (k->type != COWFS_KEY_EXTENT || it->len < sizeof(*d) ||
	    d->kind != COWFS_EXTENT_DATA ||
	    from_le64(d->gen) != forest_gen(r->log->s->forest))
		return;
	blk = from_le64(d->blk);
	len = min_u64(from_le32(d->len), (it->len - sizeof(*d)) / 4);
	for (i = 0; i < len; i += n) {
		imap_get(&r->log->safe, blk + i, &safe);
		imap_get(&r->fresh, blk + i, &seen);
		n = min_u64(min_u64(safe.len, seen.len), len - i);
		if (!safe.n && !seen.n)
			add_fresh(r, d, (const struct le32 *)(d + 1), i, n);
	}
}

/* Put one item into the record. -EFBIG, -EAGAIN. */
static int pack_item(struct record *r, const struct key *k)
{
	struct cowfs_disk_log_entry e = { .key = key_to_disk(k) };
	struct item it = { .data = NULL };
	int err = tree_get(&r->log->s->fs, k, &it);

	if (err && err != -ENOENT)
		return err;
	if (r->room - r->len < sizeof(e) + it.len)
		return -EFBIG;
	e.kind = err ? COWFS_LOG_GONE : COWFS_LOG_ITEM;
	e.len = to_le16((uint16_t)it.len);
	entry_put(r, &e);
	if (err)
		return 0;
	memcpy(r->log->buf + r->len, it.data, it.len);
	r->len += it.len;
	find_fresh(r, k, &it);
	return 0;
}

/* T shared: all that was noted, as a record. */
static int pack(struct record *r)
{
	struct log *log = r->log;
	uint64_t left = (log->blocks - log->at) * COWFS_BLOCK_SIZE;
	size_t each = sizeof(struct cowfs_disk_log_entry) + COWFS_BLOCK_SIZE;
	unsigned i;
	int err = 0;

	imap_clear(&r->fresh);
	r->len = sizeof(struct cowfs_disk_log);
	r->room = (size_t)min_u64(left, LOG_RECORD_MAX);
	r->count = r->blocks = 0;
	r->flush = false;
	if (log->overflow || r->room < COWFS_BLOCK_SIZE)
		return -EFBIG;
	for (i = 0; !err && i < log->count; i++)
		err = pack_item(r, &log->key[i]);
	if ((r->room - r->len) / each < r->blocks)
		r->flush = true;
	return err;
}

/* What is to be carried. No lock is needed: from alloc_logged to the end of the
 * generation, which C puts off, these blocks keep their contents. */
static int pack_data(struct record *r)
{
	struct cowfs_disk_log_entry e = {
		.len = to_le16(COWFS_BLOCK_SIZE),
		.kind = COWFS_LOG_BLOCK,
	};
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < r->blocks; i++) {
		e.key.obj = to_le64(r->carried[i].at.a);
		entry_put(r, &e);
		err = block_read_data(&r->log->s->io, r->carried[i].at, 1,
				      &r->carried[i].csum,
				      r->log->buf + r->len);
		r->len += COWFS_BLOCK_SIZE;
	}
	return err;
}

/* next_ino: as it was when the items were packed. */
static void seal(struct record *r, struct le64 next_ino)
{
	struct log *log = r->log;
	struct store *s = log->s;
	struct cowfs_disk_log *d = (struct cowfs_disk_log *)log->buf;

	memset(d, 0, sizeof(*d));
	d->magic = to_le32(COWFS_LOG_MAGIC);
	d->len = to_le32((uint32_t)r->len);
	d->count = to_le32(r->count);
	d->base = to_le64(forest_gen(s->forest) - 1);
	d->seq = to_le64(log->seq);
	d->next_ino = next_ino;
	memcpy(d->uuid, s->super.uuid, sizeof(d->uuid));
	d->csum = to_le32(checksum(0, log->buf + 8, r->len - 8));
}

/* The record of this moment, sealed; what was noted is forgotten. */
static int collect(struct record *r, uint64_t *ops)
{
	struct store *s = r->log->s;
	struct le64 next_ino;
	unsigned count, loads;
	size_t len;
	int err;

	for (loads = 0;; loads++) {
		tree_lock_shared(s);
		err = pack(r);
		if (err != -EAGAIN)
			break;
		tree_unlock(s);
		/* A commit has no need of nodes that can't be had. */
		if (loads == LOADS_MAX || forest_load(s->forest))
			return -EFBIG;
	}
	if (!err) {
		/* L3, before anybody can free what the record names */
		alloc_logged(s->alloc);
		next_ino = s->super.next_ino;
		forget_notes(r->log);
		*ops = atomic_load(&s->p->ops);
	}
	tree_unlock(s);
	if (err)
		return err;
	len = r->len;
	count = r->count;
	/* What can't be read is not carried: the flush decides, as it does for
	 * more data. */
	if (!r->flush && pack_data(r)) {
		r->len = len;
		r->count = count;
		r->flush = true;
	}
	seal(r, next_ino);
	return 0;
}

/* ---- appending ---- */

/* C: what the record names is durable, in its place or in the log. What can't
 * be remembered will be carried or flushed once more. */
static void note_safe(struct record *r)
{
	struct ival iv;
	uint64_t at = 0;

	while (imap_next(&r->fresh, at, &iv)) {
		at = iv.start + iv.len;
		if (imap_add(&r->log->safe, iv.start, iv.len, 1))
			return;
	}
}

/* For the longest record. -ENOSPC: there is no room for it. */
static int make_ready(struct log *log)
{
	uint64_t end = min_u64(log->at + blocks_of(LOG_RECORD_MAX),
			       log->blocks);
	uint64_t step;
	int err;

	while (log->ready < end) {
		step = min_u64(LOG_READY_STEP, log->blocks - log->ready);
		err = block_prepare(&log->s->io, log->blk + log->ready, step);
		if (err)
			return err;
		log->ready += step;
	}
	return 0;
}

static int write_record(struct record *r)
{
	struct log *log = r->log;
	struct blockio *io = &log->s->io;
	uint64_t n = blocks_of(r->len);
	int err;

	memset(log->buf + r->len, 0, n * COWFS_BLOCK_SIZE - r->len);
	if (!r->flush) {
		err = block_write_durable(io, log->blk + log->at, n, log->buf);
	} else {
		err = block_write(io, log->blk + log->at, n, log->buf);
		if (!err)
			err = block_flush(io);
	}
	if (err)
		return err;
	log->at += n;
	log->seq++;
	atomic_fetch_add(&log->appends, 1);
	atomic_fetch_add(&log->bytes, n * COWFS_BLOCK_SIZE);
	note_safe(r);
	return 0;
}

int log_append(struct log *log, uint64_t *ops)
{
	struct record r; /* carried is large and set where it counts */
	uint64_t covered = 0;
	int err;

	if (!log->blocks || !log->begun || make_ready(log))
		return -EFBIG;
	r.log = log;
	imap_init(&r.fresh);
	err = collect(&r, &covered);
	if (!err)
		err = write_record(&r);
	imap_clear(&r.fresh);
	if (err == -ENOSPC) { /* what was noted is not there: no more records */
		tree_lock(log->s);
		log->overflow = true;
		tree_unlock(log->s);
		return -EFBIG;
	}
	if (!err)
		*ops = covered;
	return err;
}

void log_stats(const struct log *log, struct log_stats *out)
{
	out->appends = atomic_load(&log->appends);
	out->bytes = atomic_load(&log->bytes);
}
