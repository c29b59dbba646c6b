/*
 * alloc.c - making an allocator and feeding it the stored records
 */
#include "alloc/private.h"

/* Blocks that belong to superblocks, or lie past the end of the device. */
static int mark_reserved(struct alloc *a, uint64_t blk, uint64_t len)
{
	int err;

	if (!len)
		return 0;
	err = space_reserve(a, BUSY, blk, len);
	if (!err)
		err = space_reserve(a, OWNED, blk, len);
	if (err)
		return err;
	space_fill(a, BUSY, blk, len, true);
	space_fill(a, OWNED, blk, len, true);
	return 0;
}

static int init(struct alloc *a)
{
	uint64_t end = a->chunks * CHUNK;
	uint64_t far = a->blocks - COWFS_SUPER_SLOTS;
	int err;

	err = map_init(a);
	if (err)
		return err;
	/* Bits past the end count as blocks till they are marked here. */
	a->free[BUSY] = end;
	a->free[OWNED] = end;
	a->slots = end / a->node_blocks;
	err = pending_init(a);
	if (!err)
		err = mark_reserved(a, 0, COWFS_FIRST_BLOCK);
	if (!err)
		err = mark_reserved(a, far, end - far);
	if (err)
		return err;
	reserve_init(a);
	policy_init(a);
	return 0;
}

int alloc_new(uint64_t blocks, unsigned node_blocks, unsigned copies,
	      uint64_t gen, struct grace *grace, struct alloc **out)
{
	struct alloc *a;
	int err;

	if (blocks < COWFS_MIN_BLOCKS || blocks > COWFS_MAX_BLOCKS ||
	    !node_blocks || node_blocks & (node_blocks - 1) ||
	    node_blocks > COWFS_MAX_NODE_SIZE / COWFS_BLOCK_SIZE ||
	    copies < 1 || copies > 2 || !gen)
		return -EINVAL;
	a = calloc(1, sizeof(*a));
	if (!a)
		return -ENOMEM;
	a->blocks = blocks;
	a->chunks = (blocks - 1) / CHUNK + 1;
	a->node_blocks = node_blocks;
	a->copies = copies;
	a->first_mask = UINT64_MAX / ((UINT64_C(1) << node_blocks) - 1);
	a->gen = gen;
	a->durable = gen - 1;
	a->grace = grace;
	mutex_init(&a->lock, LOCK_LEAF);
	list_init(&a->closed);
	list_init(&a->limbo);
	imap_init(&a->delta);
	imap_init(&a->mates);
	err = init(a);
	if (err) {
		alloc_free_all(a);
		return err;
	}
	*out = a;
	return 0;
}

void alloc_free_all(struct alloc *a)
{
	if (!a)
		return;
	imap_clear(&a->delta);
	imap_clear(&a->mates);
	pending_fini(a);
	map_fini(a);
	mutex_fini(&a->lock);
	free(a);
}

/* ---- stored records ---- */

/* What is wrong with a record, or NULL. */
static const char *record_problem(const struct alloc *a, uint64_t n,
				  const struct cowfs_disk_chunk *head,
				  const uint64_t *bits)
{
	uint64_t end = (n + 1) * CHUNK, far = a->blocks - COWFS_SUPER_SLOTS;
	struct chunk c = { .bits = { [OWNED] = (uint64_t *)(uintptr_t)bits } };
	unsigned i, used = 0, off;

	if (!bits)
		return from_le16(head->free) ? "free blocks but no bitmap" :
					       NULL;
	for (i = 0; i < CHUNK_WORDS; i++)
		used += (unsigned)__builtin_popcountll(bits[i]);
	if (from_le16(head->free) != CHUNK - used || used == CHUNK)
		return "the count of free blocks is wrong";
	if (n == 0 && !chunk_all(&c, OWNED, 0, COWFS_FIRST_BLOCK, true))
		return "superblocks are shown free";
	if (end <= far)
		return NULL;
	off = far > n * CHUNK ? (unsigned)(far - n * CHUNK) : 0;
	if (!chunk_all(&c, OWNED, off, CHUNK - off, true))
		return "far superblocks or the end are shown free";
	return NULL;
}

static int chunk_load(const struct alloc *a, struct chunk *c,
		      const uint64_t *bits)
{
	unsigned i, slots = 0, free = 0;
	int err;

	err = chunk_reserve(c, BUSY);
	if (!err)
		err = chunk_reserve(c, OWNED);
	if (err)
		return err;
	memcpy(c->bits[BUSY], bits, COWFS_CHUNK_BYTES);
	memcpy(c->bits[OWNED], bits, COWFS_CHUNK_BYTES);
	for (i = 0; i < CHUNK_WORDS; i++) {
		free += (unsigned)__builtin_popcountll(~bits[i]);
		slots += (unsigned)__builtin_popcountll(slot_mask(a, ~bits[i]));
	}
	c->free[BUSY] = (uint16_t)free;
	c->free[OWNED] = (uint16_t)free;
	c->slots = (uint16_t)slots;
	return 0;
}

/* Replace whatever the chunk was. bits NULL: all used. */
static int load_locked(struct alloc *a, uint64_t n, const uint64_t *bits,
		       bool meta)
{
	struct chunk *c = map_get(a, n), old;
	int err = 0;

	if (!c)
		return -ENOMEM;
	old = *c;
	if (bits) {
		err = chunk_load(a, c, bits);
	} else {
		chunk_fill(a, c, BUSY, 0, CHUNK, true);
		chunk_fill(a, c, OWNED, 0, CHUNK, true);
	}
	if (err)
		return err;
	a->free[BUSY] -= old.free[BUSY];
	a->free[OWNED] -= old.free[OWNED];
	a->slots -= old.slots;
	c->meta = meta;
	a->free[BUSY] += c->free[BUSY];
	a->free[OWNED] += c->free[OWNED];
	a->slots += c->slots;
	chunk_trim(c);
	space_set_dirty(a, n, false);
	map_changed(a, n);
	return 0;
}

int alloc_load(struct alloc *a, uint64_t chunk, const void *rec, size_t len)
{
	const uint8_t *p = rec;
	struct cowfs_disk_chunk head;
	uint64_t bits[CHUNK_WORDS];
	const uint64_t *given;
	const char *problem;
	unsigned i;
	int err;

	if (chunk >= a->chunks)
		return report(-ECOW_CORRUPT, "space record of chunk %" PRIu64
			      ", but there are only %" PRIu64, chunk,
			      a->chunks);
	if (len != sizeof(head) && len != CHUNK_RECORD)
		return report(-ECOW_CORRUPT, "space record of chunk %" PRIu64
			      " has %zu bytes", chunk, len);
	memcpy(&head, p, sizeof(head));
	p += sizeof(head);
	for (i = 0; len == CHUNK_RECORD && i < CHUNK_WORDS; i++) {
		struct le64 w;

		memcpy(&w, p + i * sizeof(w), sizeof(w));
		bits[i] = from_le64(w);
	}
	given = len == CHUNK_RECORD ? bits : NULL;
	problem = record_problem(a, chunk, &head, given);
	if (problem)
		return report(-ECOW_CORRUPT, "space record of chunk %" PRIu64
			      ": %s", chunk, problem);
	mutex_lock(&a->lock);
	err = load_locked(a, chunk, given, head.flags & COWFS_CHUNK_META);
	mutex_unlock(&a->lock);
	return err;
}
