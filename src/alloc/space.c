/*
 * space.c - ranges of blocks: taken, owned, let go of
 *
 *	free --take--> in flight --own--> owned --free--> pending --> free
 *	                  `--give_back-------------------'
 *
 * What can run out of memory is reserved where a call may still fail:
 * alloc_take makes the OWNED bits, too, so that alloc_own has nothing to
 * allocate. Freeing can't fail by contract; when it does, or when somebody
 * frees what nobody owns (a corrupt tree), a->err remembers, and no commit will
 * be made of it.
 */
#include "alloc/private.h"

/* The part of [blk, end) in blk's chunk. */
static unsigned piece(uint64_t blk, uint64_t end)
{
	return (unsigned)min_u64(end - blk, CHUNK - blk % CHUNK);
}

bool space_valid(const struct alloc *a, uint64_t blk, uint64_t len)
{
	uint64_t end = a->blocks - COWFS_SUPER_SLOTS;

	return len && blk >= COWFS_FIRST_BLOCK && blk < end &&
	       len <= end - blk;
}

bool space_all(const struct alloc *a, enum bitmap m, uint64_t blk,
	       uint64_t len, bool set)
{
	uint64_t end = blk + len;

	for (; blk < end; blk += piece(blk, end)) {
		const struct chunk *c = map_peek(a, blk / CHUNK);

		if (!chunk_all(c, m, (unsigned)(blk % CHUNK), piece(blk, end),
			       set))
			return false;
	}
	return true;
}

int space_reserve(struct alloc *a, enum bitmap m, uint64_t blk, uint64_t len)
{
	uint64_t end = blk + len;
	int err;

	for (; blk < end; blk += piece(blk, end)) {
		struct chunk *c = map_get(a, blk / CHUNK);

		if (!c)
			return -ENOMEM;
		err = chunk_reserve(c, m);
		if (err)
			return err;
	}
	return 0;
}

void space_set_dirty(struct alloc *a, uint64_t n, bool dirty)
{
	struct chunk *c = map_get(a, n);

	/* Only chunks that were changed are ever set; they exist. */
	assert(c);
	if (c->dirty == dirty)
		return;
	c->dirty = dirty;
	a->dirty = dirty ? a->dirty + 1 : a->dirty - 1;
	map_changed(a, n);
}

static void fill_piece(struct alloc *a, enum bitmap m, uint64_t blk,
		       unsigned len, bool set)
{
	struct chunk *c = map_get(a, blk / CHUNK);

	assert(c);
	a->free[m] -= c->free[m];
	a->slots -= c->slots;
	chunk_fill(a, c, m, (unsigned)(blk % CHUNK), len, set);
	a->free[m] += c->free[m];
	a->slots += c->slots;
	if (m == OWNED) {
		if (!c->dirty)
			a->dirty++;
		c->dirty = true;
		/* Nobody's chunk any more: data may have it as well. The
		 * first chunk and the last never get there; small devices
		 * share them anyway. */
		if (c->free[OWNED] == CHUNK)
			c->meta = false;
	}
	chunk_trim(c);
	map_changed(a, blk / CHUNK);
}

void space_fill(struct alloc *a, enum bitmap m, uint64_t blk, uint64_t len,
		bool set)
{
	uint64_t end = blk + len;

	for (; blk < end; blk += piece(blk, end))
		fill_piece(a, m, blk, piece(blk, end), set);
}

/* ---- data ---- */

static int take_locked(struct alloc *a, enum alloc_area area, uint64_t hint,
		       uint64_t want, struct extent *out)
{
	struct extent e;
	int err;

	err = policy_data(a, area, hint, want, &e);
	if (err && pending_reclaim(a, false))
		err = policy_data(a, area, hint, want, &e);
	if (err && pending_reclaim(a, true))
		err = policy_data(a, area, hint, want, &e);
	if (!err)
		err = space_reserve(a, OWNED, e.start, e.len);
	if (!err)
		err = space_reserve(a, BUSY, e.start, e.len);
	if (err)
		return err;
	space_fill(a, BUSY, e.start, e.len, true);
	a->in_flight += e.len;
	a->cursor[area] = e.start + e.len;
	*out = e;
	return 0;
}

int alloc_take(struct alloc *a, enum alloc_area area, uint64_t hint,
	       uint64_t want, uint64_t *blk, uint64_t *got)
{
	struct extent e;
	int err;

	if (!want || area < AREA_DATA || area >= AREAS)
		return -EINVAL;
	mutex_lock(&a->lock);
	err = take_locked(a, area, hint, want, &e);
	mutex_unlock(&a->lock);
	if (err)
		return err;
	*blk = e.start;
	*got = e.len;
	return 0;
}

static bool in_flight(const struct alloc *a, uint64_t blk, uint64_t len)
{
	return space_valid(a, blk, len) && space_all(a, BUSY, blk, len, true) &&
	       space_all(a, OWNED, blk, len, false);
}

void alloc_give_back(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err = 0;

	if (!len)
		return;
	mutex_lock(&a->lock);
	if (!in_flight(a, blk, len)) {
		a->err = err = -ECOW_CORRUPT;
	} else if (!pending_reserve(a, true)) {
		/* Without memory they stay in flight until unmount: a loss
		 * of space for a while, and none on disk. */
		a->in_flight -= len;
		pending_add(a, blk, len, true);
	}
	mutex_unlock(&a->lock);
	if (err)
		(void)report(err, "blocks %" PRIu64 "+%" PRIu64
			     " given back but not in flight", blk, len);
}

void alloc_own(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err = 0;

	if (!len)
		return;
	mutex_lock(&a->lock);
	if (in_flight(a, blk, len)) {
		space_fill(a, OWNED, blk, len, true);
		a->in_flight -= len;
	} else {
		a->err = err = -ECOW_CORRUPT;
	}
	mutex_unlock(&a->lock);
	if (err)
		(void)report(err, "blocks %" PRIu64 "+%" PRIu64
			     " owned but not in flight", blk, len);
}

/* ---- by address ---- */

static int claim_locked(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err;

	if (!space_valid(a, blk, len))
		return -EINVAL;
	if (!space_all(a, a->rebuilding ? OWNED : BUSY, blk, len, false))
		return -EBUSY;
	err = space_reserve(a, OWNED, blk, len);
	if (!err)
		err = space_reserve(a, BUSY, blk, len);
	if (err)
		return err;
	space_fill(a, BUSY, blk, len, true);
	space_fill(a, OWNED, blk, len, true);
	return 0;
}

int alloc_claim(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err;

	mutex_lock(&a->lock);
	err = claim_locked(a, blk, len);
	mutex_unlock(&a->lock);
	return err;
}

bool alloc_owned(struct alloc *a, uint64_t blk, uint64_t len)
{
	bool owned;

	mutex_lock(&a->lock);
	owned = space_valid(a, blk, len) &&
		space_all(a, OWNED, blk, len, true);
	mutex_unlock(&a->lock);
	return owned;
}

/* How far from block blk on OWNED is as `set` has it. */
static uint64_t owned_run(const struct alloc *a, uint64_t blk, uint64_t end,
			  bool set)
{
	uint64_t at = blk;

	while (at < end) {
		const struct chunk *c = map_peek(a, at / CHUNK);
		unsigned off = (unsigned)(at % CHUNK), bit = off % 64;
		uint64_t other;

		if (!c->bits[OWNED]) {
			if (set != (c->free[OWNED] == 0))
				break;
			at += CHUNK - off;
			continue;
		}
		other = c->bits[OWNED][off / 64] ^ (set ? UINT64_MAX : 0);
		other >>= bit;
		at += other ? (unsigned)__builtin_ctzll(other) : 64 - bit;
		if (other)
			break;
	}
	return min_u64(at, end) - blk;
}

uint64_t alloc_owned_run(struct alloc *a, uint64_t blk, uint64_t len,
			 bool *owned)
{
	uint64_t n = 0;

	mutex_lock(&a->lock);
	if (space_valid(a, blk, len)) {
		*owned = space_all(a, OWNED, blk, 1, true);
		n = owned_run(a, blk, blk + len, *owned);
	}
	mutex_unlock(&a->lock);
	return n;
}

/* ---- nodes ---- */

static int node_locked(struct alloc *a, enum alloc_area area, uint64_t *out)
{
	struct chunk *c;
	uint64_t blk;
	bool meta;
	int err;

	err = policy_node(a, area, &blk, &meta);
	if (err && pending_reclaim(a, false))
		err = policy_node(a, area, &blk, &meta);
	if (err && pending_reclaim(a, true))
		err = policy_node(a, area, &blk, &meta);
	if (!err)
		err = space_reserve(a, OWNED, blk, a->node_blocks);
	if (!err)
		err = space_reserve(a, BUSY, blk, a->node_blocks);
	if (err)
		return err;
	c = map_get(a, blk / CHUNK);
	assert(c);
	c->meta |= meta;
	space_fill(a, BUSY, blk, a->node_blocks, true);
	space_fill(a, OWNED, blk, a->node_blocks, true);
	policy_took_node(a, area, blk);
	*out = blk;
	return 0;
}

int alloc_node(struct alloc *a, enum alloc_area area, uint64_t *blk)
{
	int err;

	if (area != AREA_META && area != AREA_META2)
		return -EINVAL;
	mutex_lock(&a->lock);
	err = node_locked(a, area, blk);
	mutex_unlock(&a->lock);
	return err;
}

/* ---- freeing ---- */

int space_free(struct alloc *a, uint64_t blk, uint64_t len, uint64_t born)
{
	bool fresh = born == a->gen && !a->logged;
	int err;

	if (a->rebuilding)
		return 0;
	if (!space_valid(a, blk, len) || !space_all(a, OWNED, blk, len, true))
		return a->err = -ECOW_CORRUPT;
	err = space_reserve(a, OWNED, blk, len);
	if (!err)
		err = pending_reserve(a, fresh);
	if (err)
		return a->err = err;
	space_fill(a, OWNED, blk, len, false);
	pending_add(a, blk, len, fresh);
	return 0;
}

void alloc_free(struct alloc *a, uint64_t blk, uint64_t len, uint64_t born)
{
	int err;

	if (!len)
		return;
	mutex_lock(&a->lock);
	err = space_free(a, blk, len, born);
	mutex_unlock(&a->lock);
	if (err)
		(void)report(err, "cannot free blocks %" PRIu64 "+%" PRIu64
			     "%s", blk, len, err == -ECOW_CORRUPT ?
			     ": nobody owns them" : "");
}

bool alloc_is_used(struct alloc *a, uint64_t blk)
{
	bool used;

	if (blk >= a->blocks)
		return false;
	mutex_lock(&a->lock);
	used = space_all(a, OWNED, blk, 1, true);
	mutex_unlock(&a->lock);
	return used;
}
