/*
 * tree.h - ways down a tree, copying, balancing (private to src/btree)
 */
#ifndef COW_BTREE_TREE_H
#define COW_BTREE_TREE_H

#include "btree/cache.h"

/* A way from the root to the leaf that a key belongs to. */
struct path {
	struct frame *fr[COWFS_MAX_LEVEL + 1]; /* [0] = leaf */
	unsigned slot[COWFS_MAX_LEVEL + 1];
	unsigned levels;
	bool found; /* slot[0] holds the key itself */
};

/* ---- tree.c; R ---- */

/* The node p points at. -EAGAIN (nothing remembered yet), -ECOW_CORRUPT. */
MUST_CHECK int tree_node(const struct tree *t, const struct nptr *p,
			 unsigned level, struct frame **out);
/* Child `slot` of inner node `node`, as above. */
MUST_CHECK int tree_child(const struct tree *t, const void *node, unsigned slot,
			  struct frame **out);
/* Nothing above level leads down from nodes[level + 1], slots[level + 1], ... :
 * remember the missing node there, with the range of keys it must keep to. */
MUST_CHECK int tree_want(const struct tree *t, const struct nptr *p,
			 void *const *nodes, const unsigned *slots,
			 unsigned level, unsigned levels);
/* -ENOENT: the tree is empty. -EAGAIN (remembered), -ECOW_CORRUPT. */
MUST_CHECK int tree_path(const struct tree *t, const struct key *k,
			 struct path *p);

/* Is a node under a quarter full? */
bool node_is_low(const struct tree *t, const struct frame *fr);

/* ---- cow.c; W ---- */

/* 0 and *shared; -EAGAIN, -ECOW_CORRUPT. R is enough. */
MUST_CHECK int cow_shared(const struct tree *t, const struct frame *fr,
			  bool *shared);
/* A new node, dirty, empty, not linked to anything. -ENOSPC, -ENOMEM. */
MUST_CHECK int cow_new(struct tree *t, unsigned level, struct frame **out);
/* Another node took the place of fr's, with all its entries: let go of it. fr
 * may be gone then. -EAGAIN, -ENOMEM, -ECOW_CORRUPT: nothing changed. */
MUST_CHECK int cow_release(struct tree *t, struct frame *fr);
/* The same for an empty or useless node of the running generation. */
void cow_drop(struct tree *t, struct frame *fr);
/* Make the child in `slot` of parent (NULL: the root) one of the running
 * generation. parent is dirty. Errors: nothing changed. */
MUST_CHECK int cow_node(struct tree *t, struct frame *parent, unsigned slot,
			struct frame *fr, struct frame **out);
/* The same for all nodes of a path, from the top. On error some may be copied:
 * the tree holds the same items all the same. */
MUST_CHECK int cow_path(struct tree *t, struct path *p);
struct nptr frame_ptr(const struct frame *fr);

/* ---- shift.c; W; paths wholly of the running generation ---- */

/* Room for a new item of `len` bytes at slot[0], by moving entries to a
 * neighbour; the path is moved along. False: no neighbour can help, nothing was
 * changed. */
bool shift_leaf(struct tree *t, struct path *p, const struct key *k,
		uint32_t len);

/* ---- balance.c; W; paths wholly of the running generation ---- */

/* Make room along the path, splitting where nothing else helps, until the leaf
 * can take `len` bytes of data: for a new item at slot[0], or (!fresh) as the
 * new length of the item there. The path is moved along. k: the key. -ENOSPC,
 * -ENOMEM: the tree holds the same items. */
MUST_CHECK int balance_split(struct tree *t, struct path *p,
			     const struct key *k, uint32_t len, bool fresh);
/* After something was removed from the leaf: fill it up from a neighbour or
 * dissolve it, and so on upwards, as far as that needs no I/O. The path is of
 * no use after that. */
void balance_low(struct tree *t, struct path *p);

#endif
