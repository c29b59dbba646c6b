/*
 * flush.c - writing down at commit what changed
 *
 * Writing a chunk's record changes the space tree, whose nodes come from and
 * go back to the chunks written here. It converges: a node is copied once in
 * a transaction and changed in place after that.
 */
#include "alloc/private.h"

/* Records written in one flush, per chunk that was dirty, before something
 * must be wrong with the store. */
#define WRITES_MAX 64

static int sticky(struct alloc *a)
{
	int err;

	mutex_lock(&a->lock);
	err = a->err;
	mutex_unlock(&a->lock);
	return err;
}

bool alloc_failed(struct alloc *a)
{
	return sticky(a) != 0;
}

/* ---- preload ---- */

static int preload_chunks(struct alloc *a, const struct alloc_store *st)
{
	uint64_t n;
	int err = 0;

	for (;;) {
		mutex_lock(&a->lock);
		n = map_find(a, KIND_DIRTY, a->preload_chunk, a->chunks);
		a->preload_chunk = n == NO_CHUNK ? 0 : n;
		mutex_unlock(&a->lock);
		if (n == NO_CHUNK)
			return 0;
		err = st->space_prepare(st->arg, n);
		if (err)
			return err;
		mutex_lock(&a->lock);
		a->preload_chunk = n + 1;
		mutex_unlock(&a->lock);
	}
}

/*
 * Goes on where it met -EAGAIN the last time: with very many changes and a
 * small cache it would never get through in one go, and alloc_flush copes.
 */
int alloc_preload(struct alloc *a, const struct alloc_store *st)
{
	int err = sticky(a);

	if (!err && !a->preload_chunks)
		err = refs_preload(a, st);
	if (err)
		return err;
	a->preload_chunks = true;
	err = preload_chunks(a, st);
	a->preload_chunks = err != 0;
	return err;
}

/* ---- flush ---- */

/* The next dirty chunk's record as it is now; the chunk counts as clean. */
static uint64_t next_record(struct alloc *a, uint64_t from, void *rec,
			    size_t *len)
{
	uint64_t n;

	mutex_lock(&a->lock);
	n = map_find_round(a, KIND_DIRTY, 0, a->chunks,
			   min_u64(from, a->chunks));
	if (n != NO_CHUNK) {
		*len = chunk_encode(map_peek(a, n), rec);
		/* Clean first: writing the record may allocate in this very
		 * chunk, which makes it dirty again. */
		space_set_dirty(a, n, false);
	}
	mutex_unlock(&a->lock);
	return n;
}

static int flush_chunks(struct alloc *a, const struct alloc_store *st)
{
	uint8_t rec[CHUNK_RECORD];
	uint64_t n = 0, left;
	size_t len;
	int err;

	mutex_lock(&a->lock);
	left = (a->dirty + WRITES_MAX) * WRITES_MAX;
	mutex_unlock(&a->lock);
	while ((n = next_record(a, n, rec, &len)) != NO_CHUNK) {
		err = left-- ? st->space_put(st->arg, n, rec, len) : -ELOOP;
		if (err) {
			mutex_lock(&a->lock);
			space_set_dirty(a, n, true);
			mutex_unlock(&a->lock);
		}
		if (err == -ELOOP)
			return report(err, "space records do not settle");
		if (err)
			return err;
		n++;
	}
	return 0;
}

int alloc_flush(struct alloc *a, const struct alloc_store *st)
{
	int err = sticky(a);

	if (!err)
		err = refs_flush(a, st);
	if (!err)
		err = flush_chunks(a, st);
	/* Freeing while records were written may have failed. */
	return err ? err : sticky(a);
}

bool alloc_dirty(struct alloc *a)
{
	bool dirty;

	mutex_lock(&a->lock);
	dirty = a->dirty || a->delta.count;
	mutex_unlock(&a->lock);
	return dirty;
}
