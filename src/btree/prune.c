/*
 * prune.c - cutting off what cannot be read; moving what lies in the way
 *
 * For repair only. The node to go is named by its level and by a key that
 * leads to it; nothing here looks into it. What it held is lost, and the keys
 * it stood for fall to its left neighbour, as after any deletion.
 */
#include "btree/tree.h"

/* The way from the root down to `level`; p->fr below it is not set. */
static int path_to(const struct tree *t, const struct key *k, unsigned level,
		   struct path *p)
{
	void *nodes[COWFS_MAX_LEVEL + 1];
	struct nptr ptr = t->root;
	int err;

	if (ptr.level > COWFS_MAX_LEVEL)
		return -ECOW_CORRUPT;
	p->levels = ptr.level + 1u;
	for (unsigned l = ptr.level;; l--) {
		err = tree_node(t, &ptr, l, &p->fr[l]);
		if (err == -EAGAIN)
			return tree_want(t, &ptr, nodes, p->slot, l,
					 p->levels);
		if (err || l == level)
			return err;
		nodes[l] = p->fr[l]->buf;
		p->slot[l] = inner_find(nodes[l], k);
		ptr = node_child(nodes[l], p->slot[l]);
	}
}

/* Make the path our own, down to `level`. */
static int own_path(struct tree *t, struct path *p, unsigned level)
{
	struct frame *parent = NULL;
	int err = cache_reserve(t->forest, p->levels);

	for (unsigned l = p->levels; !err && l-- > level;) {
		err = cow_node(t, parent, parent ? p->slot[l + 1] : 0,
			       p->fr[l], &p->fr[l]);
		parent = p->fr[l];
	}
	return err;
}

static void clear(struct tree *t)
{
	t->root = (struct nptr){ .blk = 0 };
	t->nodes = 0;
}

int tree_cut(struct tree *t, const struct key *k, unsigned level,
	     uint64_t blk)
{
	struct path p;
	unsigned l = level + 1;
	int err;

	if (!t->root.blk || t->root.level < level ||
	    (t->root.level == level && t->root.blk != blk))
		return -ENOENT;
	if (t->root.level == level) {
		t->forest->changes++;
		clear(t);
		return 0;
	}
	err = path_to(t, k, l, &p);
	if (err)
		return err;
	p.slot[l] = inner_find(p.fr[l]->buf, k);
	if (node_child(p.fr[l]->buf, p.slot[l]).blk != blk)
		return -ENOENT;
	err = own_path(t, &p, l);
	if (err)
		return err;
	t->forest->changes++;
	for (; l < p.levels; l++) {
		inner_delete(p.fr[l]->buf, p.slot[l]);
		if (nr(p.fr[l]->buf))
			return 0;
		cow_drop(t, p.fr[l]);
	}
	clear(t);
	return 0;
}

int tree_move(struct tree *t, const struct key *k, unsigned level,
	      uint64_t blk)
{
	struct path p;
	int err;

	if (!t->root.blk || t->root.level < level)
		return -ENOENT;
	err = path_to(t, k, level, &p);
	if (err)
		return err;
	if (p.fr[level]->blk != blk)
		return -ENOENT;
	t->forest->changes++;
	return own_path(t, &p, level);
}
