/*
 * chunk.c - the bits of one chunk: set, clear, count slots, record
 *
 * Most chunks of a large device are all free or all used; those need no bits.
 */
#include "alloc/private.h"

_Static_assert(CHUNK % 64 == 0 && CHUNK <= UINT16_MAX, "counters and words");

void chunk_init(const struct alloc *a, struct chunk *c)
{
	memset(c, 0, sizeof(*c));
	c->free[BUSY] = CHUNK;
	c->free[OWNED] = CHUNK;
	c->slots = (uint16_t)(CHUNK / a->node_blocks);
}

void chunk_fini(struct chunk *c)
{
	free(c->bits[BUSY]);
	free(c->bits[OWNED]);
}

int chunk_reserve(struct chunk *c, enum bitmap m)
{
	uint64_t *w;

	if (c->bits[m])
		return 0;
	w = malloc(COWFS_CHUNK_BYTES);
	if (!w)
		return -ENOMEM;
	memset(w, c->free[m] ? 0 : 0xff, COWFS_CHUNK_BYTES);
	c->bits[m] = w;
	return 0;
}

/* Bits off .. of word i that belong to [off, off + len). */
static uint64_t word_mask(unsigned i, unsigned off, unsigned len)
{
	unsigned lo = off > i * 64 ? off - i * 64 : 0;
	unsigned hi = off + len < i * 64 + 64 ? off + len - i * 64 : 64;
	uint64_t below = hi == 64 ? UINT64_MAX : (UINT64_C(1) << hi) - 1;

	return below & UINT64_MAX << lo;
}

static unsigned word_slots(const struct alloc *a, uint64_t busy)
{
	return (unsigned)__builtin_popcountll(slot_mask(a, ~busy));
}

static void fill_whole(const struct alloc *a, struct chunk *c, enum bitmap m,
		       bool set)
{
	if (c->bits[m])
		memset(c->bits[m], set ? 0xff : 0, COWFS_CHUNK_BYTES);
	c->free[m] = set ? 0 : CHUNK;
	if (m == BUSY)
		c->slots = (uint16_t)(set ? 0 : CHUNK / a->node_blocks);
}

void chunk_fill(const struct alloc *a, struct chunk *c, enum bitmap m,
		unsigned off, unsigned len, bool set)
{
	unsigned i, slots = c->slots;
	uint64_t *w = c->bits[m];

	assert(len && len <= CHUNK && off <= CHUNK - len);
	if (len == CHUNK) {
		fill_whole(a, c, m, set);
		return;
	}
	assert(w);
	for (i = off / 64; i <= (off + len - 1) / 64; i++) {
		uint64_t mask = word_mask(i, off, len);
		uint64_t now = set ? w[i] | mask : w[i] & ~mask;

		if (m == BUSY)
			slots += word_slots(a, now) - word_slots(a, w[i]);
		w[i] = now;
	}
	c->slots = (uint16_t)slots;
	c->free[m] = (uint16_t)(set ? c->free[m] - len : c->free[m] + len);
}

bool chunk_all(const struct chunk *c, enum bitmap m, unsigned off,
	       unsigned len, bool set)
{
	unsigned i;

	if (!c->bits[m])
		return set == (c->free[m] == 0);
	for (i = off / 64; i <= (off + len - 1) / 64; i++) {
		uint64_t mask = word_mask(i, off, len);

		if ((c->bits[m][i] & mask) != (set ? mask : 0))
			return false;
	}
	return true;
}

/*
 * The bits of OWNED stay while any block is busy but not owned: a block in
 * flight must find them when it is owned, which can't fail.
 */
void chunk_trim(struct chunk *c)
{
	bool none = c->free[BUSY] == CHUNK, all = c->free[OWNED] == 0;

	if (none || c->free[BUSY] == 0) {
		free(c->bits[BUSY]);
		c->bits[BUSY] = NULL;
	}
	if (none || all) {
		free(c->bits[OWNED]);
		c->bits[OWNED] = NULL;
	}
}

bool chunk_slot(const struct alloc *a, const struct chunk *c, unsigned off,
		unsigned *out)
{
	uint64_t from = UINT64_MAX << off % 64;
	unsigned i;

	for (i = off / 64; i < CHUNK_WORDS; i++) {
		uint64_t w = slot_mask(a, ~chunk_word(c, BUSY, i)) & from;

		if (w) {
			*out = i * 64 + (unsigned)__builtin_ctzll(w);
			return true;
		}
		from = UINT64_MAX;
	}
	return false;
}

size_t chunk_encode(const struct chunk *c, void *rec)
{
	struct cowfs_disk_chunk head = {
		.free = to_le16(c->free[OWNED]),
		.flags = c->meta ? COWFS_CHUNK_META : 0,
	};
	uint8_t *p = rec;
	unsigned i;

	if (c->free[OWNED] == CHUNK)
		return 0;
	memcpy(p, &head, sizeof(head));
	if (!c->free[OWNED])
		return sizeof(head);
	p += sizeof(head);
	for (i = 0; i < CHUNK_WORDS; i++) {
		struct le64 w = to_le64(chunk_word(c, OWNED, i));

		memcpy(p + i * sizeof(w), &w, sizeof(w));
	}
	return CHUNK_RECORD;
}
