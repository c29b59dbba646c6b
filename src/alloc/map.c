/*
 * map.c - all chunks, and which of them are of a kind
 *
 * A radix tree of 64 children a node; a child that is not there stands for
 * chunks that were never touched, all free. For each kind a node has one bit
 * per child: "a chunk of this kind is below". Finding the next one is a few
 * count-trailing-zeros, however large and full the device is, and a device
 * of 10 TiB costs nothing until it is used.
 */
#include "alloc/private.h"

#define FAN 64u
#define FAN_BITS 6u
#define MAX_HEIGHT 6 /* 64^6 = 2^36 chunks; COWFS_MAX_BLOCKS has 2^35 */

_Static_assert(COWFS_MAX_BLOCKS / CHUNK <= UINT64_C(1) << (FAN_BITS * 6),
	       "MAX_HEIGHT");

struct summary {
	uint64_t has[KINDS];
};

struct leaf {
	struct summary sum;
	struct chunk chunk[FAN];
};

struct inner {
	struct summary sum;
	void *child[FAN];
};

/* Chunks below one child of a node of this level (leaves: 0). */
static uint64_t span(unsigned level)
{
	return UINT64_C(1) << (FAN_BITS * level);
}

static unsigned child_of(uint64_t n, unsigned level)
{
	return (unsigned)(n >> (FAN_BITS * level)) % FAN;
}

static uint64_t usable(const struct alloc *a, uint64_t n)
{
	uint64_t lo = max_u64(n * CHUNK, COWFS_FIRST_BLOCK);
	uint64_t hi = min_u64((n + 1) * CHUNK, a->blocks - COWFS_SUPER_SLOTS);

	return hi > lo ? hi - lo : 0;
}

static bool chunk_is(const struct alloc *a, const struct chunk *c, uint64_t n,
		     enum kind kind)
{
	switch (kind) {
	case KIND_DATA:
		return c->free[BUSY] && !c->meta;
	case KIND_MIXED:
		return c->free[BUSY] && c->meta;
	case KIND_NODE:
		return c->slots && c->meta;
	case KIND_SLOT:
		return c->slots;
	case KIND_BROKEN:
		return c->free[BUSY] > c->slots * a->node_blocks;
	case KIND_EMPTY:
		return c->slots && c->free[BUSY] == usable(a, n);
	case KIND_DIRTY:
		return c->dirty;
	default:
		return false;
	}
}

/* The kinds of a chunk that was never touched. */
static bool pristine_is(enum kind kind)
{
	return kind == KIND_DATA || kind == KIND_SLOT || kind == KIND_EMPTY;
}

static void sum_init(const struct alloc *a, struct summary *s, uint64_t base,
		     unsigned level)
{
	uint64_t left = (a->chunks - base - 1) / span(level) + 1;
	uint64_t all = left >= FAN ? UINT64_MAX : (UINT64_C(1) << left) - 1;
	unsigned k;

	for (k = 0; k < KINDS; k++)
		s->has[k] = pristine_is((enum kind)k) ? all : 0;
}

static void *node_new(const struct alloc *a, uint64_t base, unsigned level)
{
	struct inner *in;
	struct leaf *leaf;
	unsigned i;

	if (level) {
		in = calloc(1, sizeof(*in));
		if (in)
			sum_init(a, &in->sum, base, level);
		return in;
	}
	leaf = calloc(1, sizeof(*leaf));
	if (!leaf)
		return NULL;
	sum_init(a, &leaf->sum, base, 0);
	for (i = 0; i < FAN; i++)
		chunk_init(a, &leaf->chunk[i]);
	return leaf;
}

int map_init(struct alloc *a)
{
	while (a->chunks > span(a->height + 1))
		a->height++;
	assert(a->height < MAX_HEIGHT);
	chunk_init(a, &a->pristine);
	a->empty = a->chunks;
	a->root = node_new(a, 0, a->height);
	return a->root ? 0 : -ENOMEM;
}

static void node_free(void *node, unsigned level)
{
	struct inner *in = node;
	struct leaf *leaf = node;
	unsigned i;

	if (!node)
		return;
	for (i = 0; i < FAN; i++) {
		if (level)
			node_free(in->child[i], level - 1);
		else
			chunk_fini(&leaf->chunk[i]);
	}
	free(node);
}

void map_fini(struct alloc *a)
{
	node_free(a->root, a->height);
	a->root = NULL;
}

struct chunk *map_get(struct alloc *a, uint64_t n)
{
	unsigned level = a->height;
	void *node = a->root;

	assert(n < a->chunks);
	for (; level; level--) {
		struct inner *in = node;
		void **child = &in->child[child_of(n, level)];

		if (!*child)
			*child = node_new(a, n & ~(span(level) - 1),
					  level - 1);
		if (!*child)
			return NULL;
		node = *child;
	}
	return &((struct leaf *)node)->chunk[child_of(n, 0)];
}

const struct chunk *map_peek(const struct alloc *a, uint64_t n)
{
	const void *node = a->root;
	unsigned level;

	assert(n < a->chunks);
	for (level = a->height; level && node; level--)
		node = ((const struct inner *)node)->child[child_of(n, level)];
	if (!node)
		return &a->pristine;
	return &((const struct leaf *)node)->chunk[child_of(n, 0)];
}

/* Set child i's bit of each kind as `is` has it. True if what the node tells
 * its own parent changed. */
static bool sum_set(struct summary *s, unsigned i, const bool is[KINDS])
{
	uint64_t bit = UINT64_C(1) << i;
	bool changed = false;
	unsigned k;

	for (k = 0; k < KINDS; k++) {
		uint64_t old = s->has[k];

		s->has[k] = is[k] ? old | bit : old & ~bit;
		changed |= !old != !s->has[k];
	}
	return changed;
}

void map_changed(struct alloc *a, uint64_t n)
{
	struct summary *path[MAX_HEIGHT];
	void *node = a->root;
	const struct chunk *c;
	unsigned level, k;
	bool is[KINDS];

	for (level = a->height;; level--) {
		path[level] = node; /* the first member of both kinds */
		if (!level)
			break;
		node = ((struct inner *)node)->child[child_of(n, level)];
	}
	c = &((struct leaf *)node)->chunk[child_of(n, 0)];
	for (k = 0; k < KINDS; k++)
		is[k] = chunk_is(a, c, n, (enum kind)k);
	a->empty -= path[0]->has[KIND_EMPTY] >> child_of(n, 0) & 1;
	a->empty += is[KIND_EMPTY];
	for (level = 0; level <= a->height; level++) {
		if (!sum_set(path[level], child_of(n, level), is))
			return;
		for (k = 0; k < KINDS; k++)
			is[k] = path[level]->has[k] != 0;
	}
}

/* First chunk >= from below node, whose first chunk is base. */
static uint64_t find_below(const void *node, unsigned level, uint64_t base,
			   enum kind kind, uint64_t from)
{
	const struct summary *s = node;
	uint64_t mask;
	unsigned i;

	if (!node)
		return pristine_is(kind) ? max_u64(base, from) : NO_CHUNK;
	i = from > base ? child_of(from, level) : 0;
	for (mask = s->has[kind] & UINT64_MAX << i; mask; mask &= mask - 1) {
		uint64_t at, found;

		i = (unsigned)__builtin_ctzll(mask);
		at = base + i * span(level);
		if (!level)
			return at;
		found = find_below(((const struct inner *)node)->child[i],
				   level - 1, at, kind, from);
		if (found != NO_CHUNK)
			return found;
	}
	return NO_CHUNK;
}

uint64_t map_find(const struct alloc *a, enum kind kind, uint64_t from,
		  uint64_t to)
{
	uint64_t n;

	if (from >= to)
		return NO_CHUNK;
	n = find_below(a->root, a->height, 0, kind, from);
	return n < to ? n : NO_CHUNK;
}

uint64_t map_find_round(const struct alloc *a, enum kind kind, uint64_t lo,
			uint64_t hi, uint64_t from)
{
	uint64_t n = map_find(a, kind, from, hi);

	return n != NO_CHUNK ? n : map_find(a, kind, lo, from);
}

bool map_is(const struct alloc *a, enum kind kind, uint64_t n)
{
	return chunk_is(a, map_peek(a, n), n, kind);
}

/* First leaf at or after `from` below node, whose first chunk is base. */
static uint64_t next_leaf(const void *node, unsigned level, uint64_t base,
			  uint64_t from)
{
	const struct inner *in = node;

	if (!node)
		return NO_CHUNK;
	if (!level)
		return max_u64(base, from);
	for (unsigned i = from > base ? child_of(from, level) : 0; i < FAN;
	     i++) {
		uint64_t at = base + i * span(level), found;

		found = next_leaf(in->child[i], level - 1, at, from);
		if (found != NO_CHUNK)
			return found;
	}
	return NO_CHUNK;
}

uint64_t map_next(const struct alloc *a, uint64_t n)
{
	uint64_t found = NO_CHUNK;

	if (n < a->chunks)
		found = next_leaf(a->root, a->height, 0, n);
	return min_u64(found, a->chunks);
}
