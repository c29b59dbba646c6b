/*
 * log.c - noting changed items, appending them to the log (log.h)
 */
#include "txn/log.h"
#include "txn/private.h"

#define NOTES_MAX 4096u /* beyond that a commit is the better way */
#define BUCKETS (NOTES_MAX * 2)

struct log {
	struct store *s;
	uint64_t blk, blocks; /* the area; blocks 0: there is none */

	/* T */
	struct key *key;      /* noted, each once */
	uint32_t *bucket;     /* hash table of indices into key, plus one */
	unsigned count;
	bool overflow;        /* more than NOTES_MAX */

	/* C */
	uint64_t at, seq;     /* where the next record goes, block of the area */
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

void log_forget(struct log *log)
{
	if (log->count)
		memset(log->bucket, 0, BUCKETS * sizeof(*log->bucket));
	log->count = 0;
	log->overflow = false;
}

void log_restart(struct log *log)
{
	log->at = 0;
	log->seq = 0;
}

/* ---- appending ---- */

/* Put one item into the record at *len. -EFBIG, -EAGAIN. */
static int pack_item(struct log *log, const struct key *k, size_t room,
		     size_t *len)
{
	struct cowfs_disk_log_entry e = { .key = key_to_disk(k) };
	struct item it = { .data = NULL };
	int err = tree_get(&log->s->fs, k, &it);

	if (err && err != -ENOENT)
		return err;
	if (room - *len < sizeof(e) + it.len)
		return -EFBIG;
	e.gone = err == -ENOENT;
	e.len = to_le16((uint16_t)it.len);
	memcpy(log->buf + *len, &e, sizeof(e));
	if (it.len)
		memcpy(log->buf + *len + sizeof(e), it.data, it.len);
	*len += sizeof(e) + it.len;
	return 0;
}

/* T shared: all that was noted, as a record. */
static int pack(struct log *log, size_t *len)
{
	uint64_t left = (log->blocks - log->at) * COWFS_BLOCK_SIZE;
	size_t room = (size_t)min_u64(left, LOG_RECORD_MAX);
	unsigned i;
	int err = 0;

	*len = sizeof(struct cowfs_disk_log);
	if (log->overflow || room < COWFS_BLOCK_SIZE)
		return -EFBIG;
	for (i = 0; !err && i < log->count; i++)
		err = pack_item(log, &log->key[i], room, len);
	return err;
}

static void seal(struct log *log, size_t len, unsigned count)
{
	struct store *s = log->s;
	struct cowfs_disk_log *d = (struct cowfs_disk_log *)log->buf;

	memset(d, 0, sizeof(*d));
	d->magic = to_le32(COWFS_LOG_MAGIC);
	d->len = to_le32((uint32_t)len);
	d->count = to_le32(count);
	d->base = to_le64(forest_gen(s->forest) - 1);
	d->seq = to_le64(log->seq);
	d->next_ino = s->super.next_ino;
	memcpy(d->uuid, s->super.uuid, sizeof(d->uuid));
	d->csum = to_le32(checksum(0, log->buf + 8, len - 8));
}

/* The record of this moment, sealed; what was noted is forgotten. */
static int collect(struct log *log, size_t *len, uint64_t *ops)
{
	struct store *s = log->s;
	int err;

	for (;;) {
		tree_lock_shared(s);
		err = pack(log, len);
		if (err != -EAGAIN)
			break;
		tree_unlock(s);
		/* A commit has no need of a node that can't be had. */
		if (forest_load(s->forest))
			return -EFBIG;
	}
	if (!err) {
		/* L3, before anybody can free what the record names */
		alloc_logged(s->alloc);
		seal(log, *len, log->count);
		log_forget(log);
		*ops = atomic_load(&s->p->ops);
	}
	tree_unlock(s);
	return err;
}

int log_append(struct log *log, uint64_t *ops)
{
	uint64_t n;
	size_t len;
	int err;

	if (!log->blocks)
		return -EFBIG;
	err = collect(log, &len, ops);
	if (err)
		return err;
	n = blocks_of(len);
	memset(log->buf + len, 0, n * COWFS_BLOCK_SIZE - len);
	err = block_write(&log->s->io, log->blk + log->at, n, log->buf);
	if (!err)
		err = block_flush(&log->s->io);
	if (err)
		return err;
	log->at += n;
	log->seq++;
	atomic_fetch_add(&log->appends, 1);
	atomic_fetch_add(&log->bytes, n * COWFS_BLOCK_SIZE);
	return 0;
}

void log_stats(const struct log *log, struct log_stats *out)
{
	out->appends = atomic_load(&log->appends);
	out->bytes = atomic_load(&log->bytes);
}
