/*
 * cache.h - nodes in memory: found by place and generation
 *
 * Private to src/btree. Locks: W, R as in btree.h; L is forest->lock, a leaf.
 *
 * A frame is found without a lock by whoever holds the tree lock (R): frames
 * enter a chain at its head with a release store, and leave it only under W.
 * Whoever does not hold the tree lock looks under L.
 */
#ifndef COW_BTREE_CACHE_H
#define COW_BTREE_CACHE_H

#include <stdatomic.h>

#include "btree/node.h"
#include "util/list.h"

enum frame_state {
	FRAME_SPARE,
	FRAME_CLEAN,  /* on the device as it is here; may be evicted */
	FRAME_DIRTY,  /* of the running generation; changes in place */
	FRAME_FROZEN, /* of a closed generation, being written (or the write
			 failed: kept for good) */
};

struct frame {
	struct frame *next; /* in its chain; W and L */
	uint64_t blk, blk2, gen; /* set before it is found, then constant */
	void *buf;
	uint32_t csum;  /* of a frame that is not dirty */
	uint8_t level, kind;
	uint8_t state;  /* L to change; W or L to read */
	bool dead;      /* L; frozen, and no longer in the table */
	bool sealed;    /* W; csum holds although dirty */
	_Atomic bool used; /* since the clock hand last came by */
	uint16_t seq_slot, seq_run; /* W; where inserts go on in a row */
	struct list link;  /* L; list of its state */
};

#define HIT_STRIPES 16u

struct hit_stripe {
	_Alignas(64) _Atomic uint64_t n;
};

/* Of the generation that was closed last. */
struct node_batch {
	struct forest *forest; /* NULL: none, or done */
	struct list frames;
	size_t count;
};

struct forest {
	struct forest_config cfg;
	uint32_t size;        /* of a node, bytes */
	unsigned node_blocks;
	uint64_t gen;         /* W */
	uint64_t changes;     /* W */
	size_t limit;         /* frames to keep when clean */
	struct node_batch batch; /* of whoever closed it */

	struct frame *_Atomic *table; /* W to replace */
	size_t mask;

	struct mutex lock;    /* L */
	struct list clean, dirty, spare, lost; /* L */
	size_t n_clean, n_dirty, n_frozen, n_spare; /* L; n_dirty also R */
	size_t spare_want;    /* L; spares that only changes may use */
	void *bufs;           /* L: not in use, each begins with the next */
	struct slab *slabs;   /* L: what they are cut from, the last first */
	size_t slab_left;     /* L: of the last */

	void (*tree_lock)(void *arg);
	void (*tree_unlock)(void *arg);
	void *lock_arg;
	void (*note)(void *arg, const struct key *k); /* - */
	void *note_arg; /* - */

	_Atomic uint64_t misses, evicted, cow_copies, splits, merges;
	struct hit_stripe hits[HIT_STRIPES];
};

/* Table: the only test for "the same node" is place and generation together:
 * places are used again, a place in a generation never is while anyone could
 * still ask for what was there. */
static inline size_t frame_hash(const struct forest *f, uint64_t blk)
{
	return (size_t)hash_u64(blk / f->node_blocks) & f->mask;
}

/* R */
static inline struct frame *cache_find(const struct forest *f, uint64_t blk,
				       uint64_t gen)
{
	struct frame *fr = atomic_load_explicit(&f->table[frame_hash(f, blk)],
						memory_order_acquire);

	while (fr && (fr->blk != blk || fr->gen != gen))
		fr = fr->next;
	if (fr && !atomic_load_explicit(&fr->used, memory_order_relaxed))
		atomic_store_explicit(&fr->used, true, memory_order_relaxed);
	return fr;
}

/* W: at least n spare frames are there for taking. -ENOMEM. */
MUST_CHECK int cache_reserve(struct forest *f, size_t n);
/* W: a frame of the running generation for a new node at blk, findable; buf is
 * undefined. NULL: no memory. */
struct frame *cache_new_dirty(struct forest *f, uint64_t blk, uint64_t blk2);
/* W: its node does not exist any more. */
void cache_drop(struct forest *f, struct frame *fr);
/* L not held: take it if there (closed generations only): copies its bytes. */
bool cache_copy(struct forest *f, const struct nptr *p, uint8_t kind,
		void *buf);

/* W: all dirty frames go to list `to`, frozen. */
void cache_freeze(struct forest *f, struct list *to);
/* N: frames of `from` are clean now, or lost if ok is false. */
void cache_thaw(struct forest *f, struct list *from, bool ok);

/* Remember the node that -EAGAIN wants; returns -EAGAIN. hi may be NULL. For a
 * leaf: the node above it, and its slot there; else NULL. */
MUST_CHECK int cache_want(struct forest *f, const struct nptr *p, uint8_t kind,
			  const struct key *lo, const struct key *hi,
			  const void *parent, unsigned slot);

#define AHEAD_MAX 32u /* leaves */

/* R: leaves after `slot` of their parent that are worth reading beforehand. */
unsigned ahead_find(const struct forest *f, const void *parent, unsigned slot,
		    uint64_t blk[AHEAD_MAX]);
/* N: tell the device. The list is sorted. */
void ahead_tell(struct forest *f, uint64_t *blk, unsigned n);

/* Read and verify from the device. */
MUST_CHECK int cache_read(struct forest *f, const struct nptr *p, uint8_t kind,
			  const struct key *lo, const struct key *hi,
			  void *buf);
void cache_count_hit(struct forest *f, unsigned n);

#endif
