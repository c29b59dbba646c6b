/*
 * order.h - is the order of locks kept?
 *
 * Every lock has a rank, the table below (and in src/README.md, with what each
 * guards). In a build with COWFS_LOCK_CHECK (make DEBUG=1, asan, tsan, and what
 * scripts/test runs) a thread that takes a lock while it holds one of the same
 * or a greater rank is ended with a message, whether or not anybody was in its
 * way: every run of every test looks for deadlocks that need an unlucky moment
 * to happen. Other builds have none of it.
 *
 *   - two locks of one rank: only if they are numbered, the lower number first;
 *   - a lock taken by trylock may come out of order (it can't wait), but counts
 *     for what comes after it;
 *   - whoever holds the tree lock does no I/O and waits for no condition,
 *     unless it said that it knows what it does (order_tree_io).
 */
#ifndef COW_UTIL_ORDER_H
#define COW_UTIL_ORDER_H

#include <stdbool.h>
#include <stdint.h>

enum lock_rank { /* outermost first */
	LOCK_GATE,    /* G  daemon->gate */
	LOCK_VIEWS,   /* V  fs->views_lock */
	LOCK_INODE,   /* I  inode->lock, by inode number */
	LOCK_COMMIT,  /* C  store_private.commit_lock */
	LOCK_TREE,    /* T  the tree lock */
	LOCK_WAIT,    /* W  store_private.wait_lock */
	/* leaves, as far as cowfs goes: under them only what is below them here
	 * may be locked */
	LOCK_LEAF,    /* fs->table_lock, cache, allocator, daemon's tables */
	LOCK_GRACE,   /* grace->lock: the allocator asks under its lock */
	LOCK_MEND,    /* blockio.mend_lock: held over the rewriting of a copy */
	LOCK_DEVICE,  /* what a device has for itself ... */
	LOCK_DEVICE_BELOW, /* ... when another one is stacked on it */
	LOCK_RANKS
};

/* Of a lock. number 0: it has none. */
struct lock_place {
	uint64_t number;
	enum lock_rank rank;
};

#ifdef COWFS_LOCK_CHECK
/* The calling thread is about to wait for a lock / has it / lets go of it. */
void order_want(const void *lock, struct lock_place place);
void order_have(const void *lock, struct lock_place place);
void order_left(const void *lock);
/* It is about to do I/O, or to wait for a condition. */
void order_io(void);
/* From here on it may, even under the tree lock; nests. */
void order_tree_io(bool allowed);
#else
static inline void order_want(const void *lock, struct lock_place place)
{
	(void)lock;
	(void)place;
}

static inline void order_have(const void *lock, struct lock_place place)
{
	(void)lock;
	(void)place;
}

static inline void order_left(const void *lock)
{
	(void)lock;
}

static inline void order_io(void)
{
}

static inline void order_tree_io(bool allowed)
{
	(void)allowed;
}
#endif

#endif
