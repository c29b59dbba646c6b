/*
 * rebuild.c - an allocator whose maps are made anew (repair)
 *
 * The stored maps may be wrong in both directions. So repair first keeps
 * whatever anybody might own from being handed out, changes the trees, counts
 * what they own then, and has that written as the new record. What was kept
 * and turns out to be free is usable after the next mount.
 */
#include "alloc/private.h"

void alloc_rebuild(struct alloc *a)
{
	mutex_lock(&a->lock);
	a->rebuilding = true;
	mutex_unlock(&a->lock);
}

/* Bits that are all alike are let go of (chunk_trim), even if one was only set
 * that was set before: so each kind gets its own just before. */
static int mark(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err = space_reserve(a, BUSY, blk, len);

	if (err)
		return err;
	space_fill(a, BUSY, blk, len, true);
	err = space_reserve(a, OWNED, blk, len);
	if (!err)
		space_fill(a, OWNED, blk, len, true);
	return err;
}

int alloc_keep(struct alloc *a, uint64_t blk, uint64_t len)
{
	uint64_t end = blk + len;
	int err = 0;

	if (!space_valid(a, blk, len))
		return -EINVAL;
	mutex_lock(&a->lock);
	for (uint64_t n; !err && blk < end; blk += n) {
		n = min_u64(end - blk, CHUNK - blk % CHUNK);
		err = mark(a, blk, n);
	}
	mutex_unlock(&a->lock);
	return err;
}

int alloc_spare(struct alloc *a, uint64_t blk, uint64_t len)
{
	uint64_t end = blk + len;
	int err = 0;

	if (!space_valid(a, blk, len))
		return -EINVAL;
	mutex_lock(&a->lock);
	for (uint64_t n; !err && blk < end; blk += n) {
		n = min_u64(end - blk, CHUNK - blk % CHUNK);
		err = space_reserve(a, BUSY, blk, n);
		if (!err)
			space_fill(a, BUSY, blk, n, true);
	}
	mutex_unlock(&a->lock);
	return err;
}

static bool is_owned(const struct alloc *a, uint64_t base, unsigned i,
		     const uint64_t *bits)
{
	return !space_valid(a, base + i, 1) ||
	       (bits && bits[i / 64] >> i % 64 & 1);
}

static int set_owned_locked(struct alloc *a, uint64_t n, const uint64_t *bits)
{
	const struct chunk *old = map_peek(a, n);
	uint64_t base = n * CHUNK;
	bool meta = old->meta;
	struct chunk *c;
	unsigned from, to;
	int err;

	if (!bits && old->free[OWNED] == CHUNK)
		return 0;
	err = space_reserve(a, OWNED, base, CHUNK);
	if (err)
		return err;
	space_fill(a, OWNED, base, CHUNK, false);
	for (from = 0; !err && from < CHUNK; from = to) {
		bool owned = is_owned(a, base, from, bits);

		for (to = from + 1; to < CHUNK; to++)
			if (is_owned(a, base, to, bits) != owned)
				break;
		if (owned)
			err = mark(a, base + from, to - from);
	}
	c = map_get(a, n);
	if (c) {
		c->meta = meta;
		map_changed(a, n);
	}
	return err;
}

int alloc_set_owned(struct alloc *a, uint64_t chunk, const uint64_t *bits)
{
	int err = -EINVAL;

	mutex_lock(&a->lock);
	if (chunk < a->chunks)
		err = set_owned_locked(a, chunk, bits);
	mutex_unlock(&a->lock);
	return err;
}

uint64_t alloc_next(struct alloc *a, uint64_t chunk)
{
	uint64_t n;

	mutex_lock(&a->lock);
	n = map_next(a, chunk);
	mutex_unlock(&a->lock);
	return n;
}
