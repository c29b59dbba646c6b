/*
 * alloc.h - layer 2: which blocks are free, and who else refers to the others
 *
 *   A1  A block handed out by take is in nobody's hands until it is given back
 *       or owned and then freed.
 *   A2  A block freed in generation N that was written before N is handed out
 *       again only when N+1 is durable: neither of the two newest superblocks
 *       names it then; and only after all readers who might still look at it
 *       have left (grace.h).
 *   A3  A block that was written in the running generation and freed in it was
 *       never named by a superblock: it waits only for the readers.
 *   A4  The free-space record stored with generation N is exactly the set of
 *       blocks that generation N's trees own: blocks in flight (taken, not yet
 *       owned) are free there, blocks freed up to N as well.
 *   A5  Space is counted in *slots* too: runs of node_blocks blocks, aligned to
 *       their length, entirely free. Nodes are always allocated as slots, and
 *       data may break a slot only while more than the reserve are left: free
 *       space scattered in single blocks can't starve the trees.
 *   A6  Reference changes are gathered in memory and cancel out there; what is
 *       left is applied to the reference tree at commit. A block whose count of
 *       extra references would become -1 is freed then.
 *
 * The allocator keeps its maps in trees, but knows no trees: see alloc_store.
 * One mutex guards everything here; it is a leaf lock (nothing is called while
 * it is held except util).  alloc_flush and alloc_preload call the store
 * without holding it; they run under the tree lock, which keeps out everybody
 * who could change references.
 */
#ifndef COW_ALLOC_H
#define COW_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

#include "util/grace.h"
#include "util/imap.h"
#include "util/util.h"

struct alloc;

/* One interval of extra references. */
struct ref_ival {
	uint64_t start, len;
	uint32_t extra;
};

/*
 * Persistent maps, provided from above. All may return -EAGAIN: a node must be
 * read first; the caller of alloc_* passes that on up. But after ref_prepare
 * (at) returned 0, and as long as the tree lock is kept, ref_put and ref_del
 * of intervals with start == at do not.
 */
struct alloc_store {
	/* interval with the greatest start <= at / smallest start >= at;
	 * -ENOENT */
	int (*ref_floor)(void *arg, uint64_t at, struct ref_ival *out);
	int (*ref_ceil)(void *arg, uint64_t at, struct ref_ival *out);
	int (*ref_put)(void *arg, const struct ref_ival *iv); /* insert or set
						extra of the same start, len */
	int (*ref_del)(void *arg, const struct ref_ival *iv);
	/* make changes to intervals that start at `at` possible without I/O,
	 * whatever their length */
	int (*ref_prepare)(void *arg, uint64_t at);
	/* rec: struct cowfs_disk_chunk and bitmap; len 0: delete the item,
	 * which is fine if there is none */
	int (*space_put)(void *arg, uint64_t chunk, const void *rec,
			 size_t len);
	int (*space_prepare)(void *arg, uint64_t chunk);
	/* Extra copies; NULL: there are none. Blocks that have lost their last
	 * reference go, and their copies with them. prepare: make that possible
	 * without I/O for *run blocks from blk on, or for fewer: then *run
	 * becomes less. drop: of blocks so prepared; frees the copies. */
	int (*copy_prepare)(void *arg, uint64_t blk, uint64_t *run);
	int (*copy_drop)(void *arg, uint64_t blk, uint64_t len);
	void *arg;
};

enum alloc_area {
	AREA_META,  /* nodes, first copy: from the start of the device */
	AREA_META2, /* second copy: from the middle of it */
	AREA_DATA,
	AREA_DATA2, /* second copy of data, far from the first */
	AREA_EXTRA, /* the same, made later: as near to the hint as may be */
	AREAS
};

/* Who asks decides how deep into the reserve it may reach. */
enum alloc_class {
	ALLOC_NORMAL,   /* leaves the whole reserve */
	ALLOC_FREEING,  /* rm, truncate: leaves half of it */
	ALLOC_INTERNAL, /* commit, dropping snapshots, ends of what was begun:
			   leaves nothing */
};

/*
 * An allocator for blocks 0 .. blocks-1 with everything free except blocks
 * 0..19 and the last four. node_blocks: blocks of a node, a power of two.
 * copies: metadata copies (scales the reserve). gen: the running generation.
 */
MUST_CHECK int alloc_new(uint64_t blocks, unsigned node_blocks,
			 unsigned copies, uint64_t gen, struct grace *grace,
			 struct alloc **out);
void alloc_free_all(struct alloc *a); /* NULL is fine */

/* Feed a stored chunk record at mount. -ECOW_CORRUPT (reported) if it is
 * impossible: length, chunk number, free count, reserved blocks shown free. */
MUST_CHECK int alloc_load(struct alloc *a, uint64_t chunk, const void *rec,
			  size_t len);

/* ---- data, two-phase: take, write, then own under the tree lock ---- */

/*
 * Take up to `want` contiguous blocks (at least one). Prefers to continue at
 * `hint` (0: none), then next-fit for a run of `want`, then the longest run
 * near by. -ENOSPC when only the reserve is left (the caller may commit twice
 * and retry if alloc_pending says it helps), -ENOMEM.
 */
MUST_CHECK int alloc_take(struct alloc *a, enum alloc_area area, uint64_t hint,
			  uint64_t want, uint64_t *blk, uint64_t *got);
/* The write failed or was not wanted: back to free (after grace). */
void alloc_give_back(struct alloc *a, uint64_t blk, uint64_t len);
/* The blocks are named by a tree now. */
void alloc_own(struct alloc *a, uint64_t blk, uint64_t len);

/* These very blocks, free until now, are named by a tree or the superblock
 * (recovery; mkfs). -EBUSY: they are not all free. -EINVAL, -ENOMEM. */
MUST_CHECK int alloc_claim(struct alloc *a, uint64_t blk, uint64_t len);
/* Are all of them owned? */
bool alloc_owned(struct alloc *a, uint64_t blk, uint64_t len);
/* How many blocks from blk on, len at most, are alike: *owned or not. 0: they
 * are not between the superblocks. */
uint64_t alloc_owned_run(struct alloc *a, uint64_t blk, uint64_t len,
			 bool *owned);

/* ---- nodes ---- */

/* Take and own one slot. -ENOSPC only if there is truly none. -ENOMEM. */
MUST_CHECK int alloc_node(struct alloc *a, enum alloc_area area, uint64_t *blk);

/* ---- freeing and references ---- */

/*
 * Blocks that have no other reference, written in generation `born`. If nobody
 * owns them (a corrupt tree), or memory runs out, nothing is freed, and
 * alloc_preload and alloc_flush return the error from then on. So they do when
 * blocks are owned or given back that are not in flight.
 */
void alloc_free(struct alloc *a, uint64_t blk, uint64_t len, uint64_t born);

/*
 * Change the number of references of first-copy blocks by n (batched, A6).
 * blk2: where the second copies lie (0: none), freed along with the first.
 * -ENOMEM: nothing changed.
 */
MUST_CHECK int alloc_ref(struct alloc *a, uint64_t blk, uint64_t len, int n,
			 uint64_t blk2);

/* Some were changed that must not have been, and memory runs out: it is as with
 * alloc_free. */
void alloc_spoil(struct alloc *a, int err);

/* Extra references of block blk, batched changes included; *run (if not NULL)
 * how many blocks from blk have the same. -EAGAIN, -ECOW_CORRUPT. Under the
 * tree lock (shared is enough). */
MUST_CHECK int alloc_extra(struct alloc *a, const struct alloc_store *st,
			   uint64_t blk, uint32_t *extra, uint64_t *run);

/* How many references block blk has, batched changes included (0: nobody owns
 * it, or will after the commit); *run how many blocks from blk, `max` at most,
 * have the same. As alloc_extra. */
MUST_CHECK int alloc_refs(struct alloc *a, const struct alloc_store *st,
			  uint64_t blk, uint64_t max, uint64_t *refs,
			  uint64_t *run);

/* ---- space left ---- */

/* 0 if an operation of this class may change `nodes` nodes, else -ENOSPC. */
MUST_CHECK int alloc_check(struct alloc *a, enum alloc_class cls,
			   unsigned nodes);
/* So many more changes of references can surely be written down by the next
 * commit: for who may take all that is left (ALLOC_INTERNAL), but gathers
 * changes without end. Half of the space is left for other nodes. */
uint64_t alloc_ref_room(struct alloc *a);
/* Could commits make more blocks available (pending frees, batched
 * dereferences)? Every commit makes a few blocks pending itself: try twice,
 * not until this is false. */
bool alloc_pending(struct alloc *a);

struct alloc_info {
	uint64_t blocks;   /* all */
	uint64_t free;     /* not owned and not in flight; pending ones count */
	uint64_t avail;    /* of these, what ordinary users can still fill */
	uint64_t pending;  /* freed, not yet reusable */
	uint64_t reserve;  /* blocks kept back */
	uint64_t stored_free; /* free blocks as the space records say (A4) */
	uint64_t gathered; /* reference changes for the next commit to apply */
	/* how scattered what can be handed out at once is: */
	uint64_t ready;    /* free and not pending */
	uint64_t in_slots; /* of these, in free slots (A5) */
	uint64_t in_chunks; /* ... in chunks (16 MiB) that are all free */
};
void alloc_info(struct alloc *a, struct alloc_info *out);

/* Nodes in the reference, space and copies trees now (for the reserve). */
void alloc_note_trees(struct alloc *a, uint64_t ref_nodes,
		      uint64_t space_nodes, uint64_t copy_nodes);

/* ---- commit; all under the exclusive tree lock ---- */

/* Everything alloc_flush will need resident is, as far as the cache can hold
 * it: else -EAGAIN, and the next call goes on from there. Changes nothing; the
 * shared tree lock is enough. */
MUST_CHECK int alloc_preload(struct alloc *a, const struct alloc_store *st);
/*
 * Apply gathered reference changes, then write changed chunk records until
 * nothing changes any more. -EAGAIN is rare after alloc_preload, but possible
 * (writing records may allocate in a chunk whose record is not in memory): all
 * is consistent then; the tree lock may be dropped to read the node, and
 * alloc_flush called again. Any other error leaves a transaction that can't be
 * kept.
 */
MUST_CHECK int alloc_flush(struct alloc *a, const struct alloc_store *st);
/* The log names blocks written in the running generation (any lock): from now
 * until it is closed, A3 does not hold; blocks freed wait as A2 says. */
void alloc_logged(struct alloc *a);
/* Did freeing or owning blocks fail? No commit can be made any more. */
bool alloc_failed(struct alloc *a);
/* Is there anything for alloc_flush to do? */
bool alloc_dirty(struct alloc *a);
/* Generation gen is closed, gen + 1 runs: frees from now on belong there. */
void alloc_close(struct alloc *a, uint64_t gen);
/* gen is durable (any lock): frees of gen - 1 and before become usable. Those
 * who may ask for the newest superblock have to be shown gen before. */
void alloc_durable(struct alloc *a, uint64_t gen);

/*
 * Keep all blocks that the newest durable state names from being reused until
 * alloc_unhold (scrub, send). To be called before looking at which state that
 * is. Space pressure breaks a hold: alloc_hold_broken. Counted; while there is
 * one at all, the oldest counts.
 */
void alloc_hold(struct alloc *a);
void alloc_unhold(struct alloc *a);
bool alloc_hold_broken(struct alloc *a);

/* ---- repair (rebuild.c) ---- */

/*
 * A new allocator for a filesystem whose maps are not to be believed: from
 * now on nothing is freed, reference changes are forgotten, and every block has
 * one reference. Who refers to what is counted anew afterwards.
 */
void alloc_rebuild(struct alloc *a);
/* These blocks must not be handed out; some may be busy already. -EINVAL,
 * -ENOMEM. */
MUST_CHECK int alloc_keep(struct alloc *a, uint64_t blk, uint64_t len);
/* These blocks may be claimed (alloc_claim), and are not handed out before
 * (log records name them). Owned ones stay as they are. -EINVAL, -ENOMEM. */
MUST_CHECK int alloc_spare(struct alloc *a, uint64_t blk, uint64_t len);
/*
 * What trees own in a chunk from now on, one bit per block (NULL: nothing);
 * what else is busy stays so till the allocator goes, but counts as free on
 * disk. Its record will be written. Reserved blocks are added.
 */
MUST_CHECK int alloc_set_owned(struct alloc *a, uint64_t chunk,
			       const uint64_t *bits);
/* First chunk >= n in which anything may be owned; others have no record and
 * need none. As many as the device has: none. */
uint64_t alloc_next(struct alloc *a, uint64_t chunk);

/* Is block blk used, as alloc_flush would record it now (tests, check)? */
bool alloc_is_used(struct alloc *a, uint64_t blk);

#endif
