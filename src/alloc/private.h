/*
 * private.h - what the files of the allocator share
 *
 * Two bits for each block:
 *
 *	BUSY	may not be handed out: owned, in flight, or freed and
 *		pending (alloc.h A2, A3)
 *	OWNED	a tree names it; this is what goes to disk (A4)
 *
 * OWNED implies BUSY.  All functions here want a->lock held.
 */
#ifndef COW_ALLOC_PRIVATE_H
#define COW_ALLOC_PRIVATE_H

#include <assert.h>
#include <inttypes.h>

#include "alloc/alloc.h"
#include "util/list.h"

#define CHUNK COWFS_CHUNK_BLOCKS
#define CHUNK_WORDS (CHUNK / 64u)
#define NO_CHUNK UINT64_MAX

enum bitmap { BUSY, OWNED, BITMAPS };

struct chunk {
	uint64_t *bits[BITMAPS]; /* NULL: all alike; free[] says which */
	uint16_t free[BITMAPS];  /* zero bits */
	uint16_t slots;          /* free ones (A5) */
	bool meta;               /* nodes are to be allocated here */
	bool dirty;              /* its record on disk is out of date */
};

/* What a chunk may be looked for as; see chunk_is. */
enum kind {
	KIND_DATA,   /* has free blocks, and is not for nodes */
	KIND_MIXED,  /* has free blocks though it is for nodes */
	KIND_NODE,   /* for nodes, has free slots */
	KIND_SLOT,   /* has free slots */
	KIND_BROKEN, /* has free blocks outside of free slots */
	KIND_EMPTY,  /* nothing but free slots and reserved blocks */
	KIND_DIRTY,
	KINDS
};

struct extent {
	uint64_t start, len;
};

/* Freed blocks that become reusable together. */
struct batch {
	struct list link;
	uint64_t gen;   /* they were freed in it or before */
	uint64_t stamp; /* once in limbo: of grace */
	struct extent *v;
	size_t count, room;
};

/* Nodes that were allocated one after the other. */
struct row {
	uint64_t last; /* the highest of them in its chunk */
	unsigned gaps; /* nodes of this generation that went below it */
};

struct alloc {
	/* never changed after alloc_new */
	uint64_t blocks;
	uint64_t chunks;
	unsigned node_blocks;
	unsigned copies;
	uint64_t first_mask;   /* bits of a word at which slots begin */
	unsigned height;       /* of the map of chunks; 0: only a leaf */
	unsigned path;         /* nodes from root to leaf, a safe guess */
	bool rebuilding;       /* frees and references do not count */
	uint64_t floor;        /* slots kept back, but for the commit part */
	uint64_t bottom;       /* of these, enough for anybody who frees */
	struct chunk pristine; /* stands in for what was never touched */
	struct grace *grace;

	struct mutex lock; /* guards all the rest */
	void *root;        /* of the map of chunks */
	uint64_t gen;      /* running */
	bool logged;       /* the log may name its blocks (alloc_logged) */
	uint64_t durable;
	int err; /* sticky: what happened can't be recorded, flush no more */

	/* sums over all chunks */
	uint64_t free[BITMAPS], slots, dirty;
	uint64_t empty; /* chunks of KIND_EMPTY */
	uint64_t in_flight, pending; /* blocks */

	uint64_t cursor[AREAS]; /* where each area goes on */
	struct row row[AREA_META2 + 1];

	struct batch *running; /* freed in the running generation ... */
	struct list closed;    /* ... in older ones, oldest first */
	struct batch *fresh;   /* wait for readers only, not yet stamped */
	struct list limbo;     /* wait for readers, in order of stamps */
	unsigned frees;        /* since limbo was last looked at */

	unsigned holds;
	uint64_t hold_gen; /* frees of younger generations are held */
	bool hold_broken;

	struct imap delta; /* reference changes not yet in the tree (A6) */
	struct imap mates; /* second copy minus first, for what lost some */
	uint64_t ref_nodes, space_nodes, copy_nodes;

	uint64_t preload_ref, preload_chunk; /* where alloc_preload goes on */
	bool preload_chunks; /* there; for references it is done */
};

/* ---- chunk.c: the bits of one chunk ---- */

/* First blocks of free slots among the free blocks of a word. */
static inline uint64_t slot_mask(const struct alloc *a, uint64_t free)
{
	unsigned s;

	for (s = 1; s < a->node_blocks; s <<= 1)
		free &= free >> s;
	return free & a->first_mask;
}

static inline uint64_t chunk_word(const struct chunk *c, enum bitmap m,
				  unsigned i)
{
	if (c->bits[m])
		return c->bits[m][i];
	return c->free[m] ? 0 : UINT64_MAX;
}

void chunk_init(const struct alloc *a, struct chunk *c);
void chunk_fini(struct chunk *c);
/* Have bits of their own, so that changes can't fail. -ENOMEM. */
MUST_CHECK int chunk_reserve(struct chunk *c, enum bitmap m);
/* Set or clear; bits[m] must be there unless it is the whole chunk. */
void chunk_fill(const struct alloc *a, struct chunk *c, enum bitmap m,
		unsigned off, unsigned len, bool set);
bool chunk_all(const struct chunk *c, enum bitmap m, unsigned off,
	       unsigned len, bool set);
/* Let go of bits that are all alike. */
void chunk_trim(struct chunk *c);
/* First free slot at or after block off of the chunk; false: none. */
bool chunk_slot(const struct alloc *a, const struct chunk *c, unsigned off,
		unsigned *out);
/* Its record: bytes written, 0 if it needs none. rec: CHUNK_RECORD bytes. */
#define CHUNK_RECORD (sizeof(struct cowfs_disk_chunk) + COWFS_CHUNK_BYTES)
size_t chunk_encode(const struct chunk *c, void *rec);

/* ---- map.c: all chunks, and which of them are of a kind ---- */

MUST_CHECK int map_init(struct alloc *a);
void map_fini(struct alloc *a);
/* For change; NULL: no memory. After it: map_changed. */
struct chunk *map_get(struct alloc *a, uint64_t n);
/* For reading. */
const struct chunk *map_peek(const struct alloc *a, uint64_t n);
void map_changed(struct alloc *a, uint64_t n);
/* First chunk of a kind in [from, to), or NO_CHUNK. */
uint64_t map_find(const struct alloc *a, enum kind kind, uint64_t from,
		  uint64_t to);
/* The same for all of [lo, hi), but beginning with from (in it). */
uint64_t map_find_round(const struct alloc *a, enum kind kind, uint64_t lo,
			uint64_t hi, uint64_t from);
bool map_is(const struct alloc *a, enum kind kind, uint64_t n);
/* First chunk >= n that is there (touched, or beside one that was); a->chunks:
 * none. */
uint64_t map_next(const struct alloc *a, uint64_t n);

/* ---- space.c: ranges of blocks ---- */

/* Are these blocks of the device, and not reserved for superblocks? */
bool space_valid(const struct alloc *a, uint64_t blk, uint64_t len);
bool space_all(const struct alloc *a, enum bitmap m, uint64_t blk,
	       uint64_t len, bool set);
MUST_CHECK int space_reserve(struct alloc *a, enum bitmap m, uint64_t blk,
			     uint64_t len);
/* After space_reserve (or when the bits are known to be there). */
void space_fill(struct alloc *a, enum bitmap m, uint64_t blk, uint64_t len,
		bool set);
void space_set_dirty(struct alloc *a, uint64_t n, bool dirty);
/* alloc_free, with the error that is to be reported. */
MUST_CHECK int space_free(struct alloc *a, uint64_t blk, uint64_t len,
			  uint64_t born);

/* ---- policy.c: where to allocate ---- */

/* A run of free blocks: -ENOSPC. only_broken and the number of slots that may
 * be broken come from the reserve. */
MUST_CHECK int policy_data(const struct alloc *a, enum alloc_area area,
			   uint64_t hint, uint64_t want, struct extent *out);
/* A free slot. *meta: make its chunk one for nodes. */
MUST_CHECK int policy_node(const struct alloc *a, enum alloc_area area,
			   uint64_t *blk, bool *meta);
void policy_init(struct alloc *a);
/* It was taken. */
void policy_took_node(struct alloc *a, enum alloc_area area, uint64_t blk);
void policy_new_gen(struct alloc *a);

/* ---- pending.c ---- */

MUST_CHECK int pending_init(struct alloc *a);
void pending_fini(struct alloc *a);
/* Enough memory for one pending_add of this kind. */
MUST_CHECK int pending_reserve(struct alloc *a, bool fresh);
/* The blocks were let go of in the running generation; fresh: no superblock
 * ever named them. */
void pending_add(struct alloc *a, uint64_t blk, uint64_t len, bool fresh);
/* Hand back what readers have left; at the utmost break a hold for it. True
 * if anything came back. */
bool pending_reclaim(struct alloc *a, bool break_hold);

/* ---- reserve.c ---- */

void reserve_init(struct alloc *a);
/* Slots that data must leave. */
uint64_t reserve_slots(const struct alloc *a);

/* ---- refs.c (these call the store, without a->lock) ---- */

MUST_CHECK int refs_preload(struct alloc *a, const struct alloc_store *st);
MUST_CHECK int refs_flush(struct alloc *a, const struct alloc_store *st);

#endif
