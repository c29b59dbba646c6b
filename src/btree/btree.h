/*
 * btree.h - layer 3: one copy-on-write B-tree for every tree; node cache
 *
 * Nodes in memory have the bytes of nodes on disk (format.h); there is no
 * second representation.
 *
 * Locking. The *tree lock* is one read-write lock of the layer above (txn),
 * over all trees. Functions marked R want it held at least shared, functions
 * marked W exclusively. No function does I/O under it: what needs a node that
 * is not in memory returns -EAGAIN and remembers the node for the calling
 * thread; the caller drops the lock, calls forest_load (marked N: no lock),
 * takes the lock and starts again. Nodes are evicted only under the exclusive
 * lock, so pointers into nodes (struct item) are good until the lock is
 * dropped; under the exclusive lock, until the next change to the tree.
 *
 *   T1  A node of an older generation than the running one is never changed:
 *       it is copied to a new place, and so are the nodes above it.
 *   T2  A change either happens wholly or returns an error having changed
 *       nothing, and -EAGAIN only before anything changed. After tree_prepare
 *       of a key returned 0, and as long as the lock is kept, changes to that
 *       key do not return -EAGAIN, whatever other changes happen before them.
 *       (Rebalancing uses a neighbour only if it happens to be resident; a
 *       leaf may be left empty for want of one.)
 *   T3  Copying a node that is shared (some other node or root refers to it,
 *       too) adds a reference to each child (or to each data extent of a leaf
 *       of a file tree) and drops one from the node; copying one that is not
 *       frees its blocks (Rodeh, "B-trees, Shadowing, and Clones", 2008).
 *       A node is certainly not shared if its generation > tree->shared_gen.
 *       A node below a shared node counts as shared.
 *   T4  Whatever is read from the device is verified field by field before
 *       anything looks at it (verify.c): magic, uuid, own address, generation,
 *       level, tree, count, bounds, key order, keys within the range the
 *       parent promised.
 *   T5  Nodes hold no stale bytes: gaps are zero.
 */
#ifndef COW_BTREE_H
#define COW_BTREE_H

#include <stdbool.h>
#include <stdint.h>

#include "alloc/alloc.h"
#include "block/block.h"
#include "cowfs/format.h"

struct key {
	uint64_t obj;
	uint64_t off;
	uint8_t type;
};

#define KEY(o, t, f) ((struct key){ .obj = (o), .off = (f), .type = (t) })
#define KEY_MIN KEY(0, 0, 0)
#define KEY_MAX KEY(UINT64_MAX, UINT8_MAX, UINT64_MAX)

static inline int key_cmp(const struct key *a, const struct key *b)
{
	if (a->obj != b->obj)
		return a->obj < b->obj ? -1 : 1;
	if (a->type != b->type)
		return a->type < b->type ? -1 : 1;
	if (a->off != b->off)
		return a->off < b->off ? -1 : 1;
	return 0;
}

struct key key_from_disk(const struct cowfs_disk_key *d);
struct cowfs_disk_key key_to_disk(const struct key *k);

/* Pointer to a node, in memory. blk == 0: an empty tree. */
struct nptr {
	uint64_t blk, blk2, gen;
	uint32_t csum;
	uint8_t level;
};

struct nptr nptr_from_disk(const struct cowfs_disk_ptr *d);
struct cowfs_disk_ptr nptr_to_disk(const struct nptr *p);

struct forest;

/* One tree. Fields are guarded by the tree lock. */
struct tree {
	struct forest *forest;
	struct nptr root;
	uint64_t nodes;      /* how many it has, as well as known */
	uint64_t shared_gen; /* T3; 0: no node was ever shared */
	uint8_t kind;        /* enum cowfs_root */
	bool readonly;       /* a snapshot's tree */
};

/* Data of an item, in its node. */
struct item {
	const void *data;
	uint32_t len;
};

/* ---- the forest: what all trees of one filesystem share ---- */

struct forest_config {
	struct blockio *io;      /* outlives the forest */
	struct alloc *alloc;     /* outlives the forest; NULL: read-only */
	const struct alloc_store *store; /* to ask for references */
	uint32_t node_size;
	unsigned copies;         /* of new nodes: 1 or 2 */
	uint8_t uuid[16];
	size_t cache_bytes;      /* for clean nodes; at least 64 nodes are kept */
	uint64_t gen;            /* the running generation */
};

MUST_CHECK int forest_new(const struct forest_config *cfg,
			  struct forest **out);
void forest_free(struct forest *f); /* NULL is fine; all nodes go */

uint32_t forest_node_size(const struct forest *f);
uint64_t forest_gen(const struct forest *f); /* R: the running generation */

/* N: read the node that the last -EAGAIN of this thread wanted (from a good
 * copy, verified). 0: try again. -ECOW_CSUM, -ECOW_CORRUPT, -EIO, -ENOMEM.
 * May take the tree lock itself (through lock/unlock below) to evict. */
MUST_CHECK int forest_load(struct forest *f);

/* How forest_load evicts: the layer above hands its exclusive tree lock. */
void forest_set_lock(struct forest *f, void (*lock)(void *arg),
		     void (*unlock)(void *arg), void *arg);

/* Before threads start: note is called, W, for each item of the file tree that
 * is changed (inserted, set, opened for change in place, deleted). */
void forest_set_note(struct forest *f,
		     void (*note)(void *arg, const struct key *k), void *arg);

/* N: make sure at least n spare node buffers exist, so that changes do not
 * fail with -ENOMEM in the middle. */
MUST_CHECK int forest_spare(struct forest *f, unsigned n);

/* R: how often trees were changed since the forest was made. */
uint64_t forest_changes(const struct forest *f);
/* R: bytes of nodes of the running generation. */
size_t forest_dirty(const struct forest *f);

struct forest_stats {
	uint64_t hits, misses, evicted;
	uint64_t nodes, bytes; /* in memory now */
	uint64_t limit; /* bytes of clean nodes that are kept */
	uint64_t dirty_bytes;
	uint64_t cow_copies, splits, merges;
};
void forest_stats(struct forest *f, struct forest_stats *out);

/* ---- reading ---- */

/* R: find one item. -ENOENT, -EAGAIN. */
MUST_CHECK int tree_get(struct tree *t, const struct key *k, struct item *out);

struct cursor {
	struct tree *tree;
	void *node[COWFS_MAX_LEVEL + 1]; /* [0] = leaf */
	unsigned slot[COWFS_MAX_LEVEL + 1];
	unsigned levels; /* 0: not placed */
	struct key key;  /* of the item it stands on */
	struct item item;
};

/* R: stand on the first item >= k (or the last item <= k). -ENOENT if there is
 * none, -EAGAIN. A cursor holds nothing; it dies with the lock or a change. */
MUST_CHECK int cursor_ceil(struct cursor *c, struct tree *t,
			   const struct key *k);
MUST_CHECK int cursor_floor(struct cursor *c, struct tree *t,
			    const struct key *k);
/* R: move on. -ENOENT at the end (the cursor stays), -EAGAIN (it stays). */
MUST_CHECK int cursor_next(struct cursor *c);
MUST_CHECK int cursor_prev(struct cursor *c);

/* ---- changing; running generation, W ---- */

/* Changes to k cannot return -EAGAIN any more (T2). R is enough. */
MUST_CHECK int tree_prepare(struct tree *t, const struct key *k);
/* The same for all keys from lo to hi, for the item at or before lo, and for that
 * at or behind hi. */
MUST_CHECK int tree_prepare_range(struct tree *t, const struct key *lo,
				  const struct key *hi);

/* Add an item. data may be NULL for zeros; *out (if not NULL) gets the place
 * of its data for filling in. -EEXIST, -EAGAIN, -ENOSPC, -ENOMEM, -EFBIG (len >
 * COWFS_ITEM_MAX). */
MUST_CHECK int tree_insert(struct tree *t, const struct key *k,
			   const void *data, uint32_t len, void **out);
/* Set an item's data, of any length; inserts it if it is not there. */
MUST_CHECK int tree_put(struct tree *t, const struct key *k, const void *data,
			uint32_t len);
/* Get an item's data for change in place, length unchanged. -ENOENT. The
 * pointer is good until the next change of any tree or end of the lock. */
MUST_CHECK int tree_edit(struct tree *t, const struct key *k, void **data,
			 uint32_t *len);
/* Remove an item. -ENOENT. */
MUST_CHECK int tree_delete(struct tree *t, const struct key *k);

/* Repair: take the node at block blk, at `level` on the way to k, out of the
 * tree, with all below it and without looking at it; it need not be readable.
 * -ENOENT: it is not there. -EAGAIN (nodes above it), -ENOSPC, -ENOMEM. */
MUST_CHECK int tree_cut(struct tree *t, const struct key *k, unsigned level,
			uint64_t blk);
/* Repair: have that node and those above it in new places. */
MUST_CHECK int tree_move(struct tree *t, const struct key *k, unsigned level,
			 uint64_t blk);

/* ---- commit ---- */

/* W: compute the checksums of the tree's nodes of the running generation,
 * bottom up, and put them into their parents and t->root. */
void tree_seal(struct tree *t);

/* W: freeze all nodes of the running generation as a batch to be written, and
 * begin generation gen + 1. Sealed trees only; the batch before must be done. */
struct node_batch;
struct node_batch *forest_close_gen(struct forest *f);
/* N: write a batch (both copies, neighbours joined into large writes). */
MUST_CHECK int node_batch_write(struct node_batch *b, uint64_t *bytes);
/* N: if its nodes are durable they may be evicted, and some are, through
 * lock/unlock as in forest_load. Else they stay in memory: a flush that failed
 * may have lost them. NULL is fine. */
void node_batch_done(struct node_batch *b, bool durable);
/* W: write all nodes of the running generation to their places, both copies,
 * though it goes on (repair: to read them as a check does). Sealed trees only. */
MUST_CHECK int forest_write(struct forest *f);

/* ---- nodes one by one: dropping, checking, comparing (read-only) ---- */

/*
 * N: read the node p points at into buf (node_size bytes) and verify it as the
 * root of a subtree whose keys are (if lo) >= *lo and (if hi) < *hi. Takes it
 * from the cache if it is there (use_cache) without making it resident
 * otherwise. Nodes of closed generations only. tree: expected kind.
 */
MUST_CHECK int node_read(struct forest *f, const struct nptr *p, uint8_t tree,
			 const struct key *lo, const struct key *hi,
			 bool use_cache, void *buf);

/* What is in a verified node. */
static inline const struct cowfs_disk_node *node_head(const void *node)
{
	return node;
}
unsigned node_count(const void *node);
unsigned node_level(const void *node);
struct key node_key(const void *node, unsigned i);
struct nptr node_child(const void *node, unsigned i); /* level > 0 */
struct item node_item(const void *node, unsigned i, uint32_t node_size);

/*
 * Verify the bytes of a node against what its parent promised, without I/O
 * (fsck, fuzzers). why: what is wrong, at least 128 bytes.
 */
MUST_CHECK int node_verify(const void *node, uint32_t node_size,
			   const struct nptr *p, uint8_t tree,
			   const uint8_t uuid[16], const struct key *lo,
			   const struct key *hi, char *why, size_t why_len);

/*
 * R: call fn for each item that is in one tree but not in the other, or
 * differs, in key order (a or b is NULL then), skipping what both share
 * without reading it. fn's non-zero return ends it and is returned. After
 * -EAGAIN call again with *from, which is moved on past what fn has seen.
 */
typedef int tree_diff_fn(void *arg, const struct key *k, const struct item *a,
			 const struct item *b);
MUST_CHECK int tree_diff(struct tree *a, struct tree *b, struct key *from,
			 tree_diff_fn *fn, void *arg);

/*
 * For each reference that a file tree's node holds: children (inner nodes) or
 * data extents (leaves of COWFS_ROOT_FS). Used by T3, dropping, and checking.
 */
struct node_ref {
	uint64_t blk, blk2;
	uint64_t len; /* blocks */
	uint64_t gen;
	bool data;    /* an extent, not a node */
	bool maybe_shared; /* an extent marked COWFS_EXTENT_SHARED */
	unsigned slot;
};
typedef int node_ref_fn(void *arg, const struct node_ref *ref);
MUST_CHECK int node_for_each_ref(const void *node, uint32_t node_size,
				 node_ref_fn *fn, void *arg);

#endif
