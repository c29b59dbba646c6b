/*
 * cursor.c - items in key order
 *
 * A cursor is the way down to one item. Moving within a leaf touches nothing
 * else; at its end the nearest node above with a next child leads on. Empty
 * leaves (balance.c) are passed over.
 */
#include "btree/tree.h"

static int put_on(struct cursor *c, unsigned slot)
{
	const void *leaf = c->node[0];

	c->slot[0] = slot;
	c->key = key_load(&node_items(leaf)[slot].key);
	c->item = node_item(leaf, slot, c->tree->forest->size);
	return 0;
}

/* From c->node[level], c->slot[level] down along the first or last children. */
static int go_down(struct cursor *c, unsigned level, bool forward)
{
	struct frame *fr;
	struct nptr p;
	int err;

	for (; level > 0; level--) {
		err = tree_child(c->tree, c->node[level], c->slot[level], &fr);
		if (err == -EAGAIN) {
			p = node_child(c->node[level], c->slot[level]);
			return tree_want(c->tree, &p, c->node, c->slot,
					 level - 1, c->levels);
		}
		if (err)
			return err;
		c->node[level - 1] = fr->buf;
		c->slot[level - 1] = forward || !nr(fr->buf) ?
					     0 : nr(fr->buf) - 1;
	}
	return 0;
}

/* Lowest level above the leaf where the cursor can go on; 0: none. */
static unsigned turn(const struct cursor *c, bool forward)
{
	for (unsigned l = 1; l < c->levels; l++) {
		if (forward ? c->slot[l] + 1 < nr(c->node[l]) : c->slot[l] > 0)
			return l;
	}
	return 0;
}

/*
 * To the nearest item in another leaf. In a sound tree it lies beyond `from`;
 * one that does not is damage (the same leaf reached twice), and without this
 * check it might keep us here for ever.
 */
static int change_leaf(struct cursor *c, bool forward, const struct key *from)
{
	struct cursor to = *c;
	int order;

	do {
		unsigned level = turn(&to, forward);
		int err;

		if (!level)
			return -ENOENT;
		to.slot[level] += forward ? 1u : -1u;
		err = go_down(&to, level, forward);
		if (err)
			return err;
	} while (!nr(to.node[0]));
	(void)put_on(&to, to.slot[0]);
	order = key_cmp(&to.key, from);
	if (forward ? order <= 0 : order >= 0)
		return report(-ECOW_CORRUPT, "tree %u: leaves out of order",
			      c->tree->kind);
	cache_count_hit(c->tree->forest, 1);
	*c = to;
	return 0;
}

/* The leaf k belongs to; slot[0] is where it is or would be. */
static int place(struct cursor *c, struct tree *t, const struct key *k,
		 bool *found)
{
	struct path p;
	int err;

	c->tree = t;
	c->levels = 0;
	err = tree_path(t, k, &p);
	if (err)
		return err;
	for (unsigned l = 0; l < p.levels; l++) {
		c->node[l] = p.fr[l]->buf;
		c->slot[l] = p.slot[l];
	}
	c->levels = p.levels;
	*found = p.found;
	return 0;
}

static int unplaced(struct cursor *c, int err)
{
	if (err)
		c->levels = 0;
	return err;
}

int cursor_ceil(struct cursor *c, struct tree *t, const struct key *k)
{
	bool found;
	int err = place(c, t, k, &found);

	if (err)
		return err;
	if (c->slot[0] < nr(c->node[0]))
		return put_on(c, c->slot[0]);
	return unplaced(c, change_leaf(c, true, k));
}

int cursor_floor(struct cursor *c, struct tree *t, const struct key *k)
{
	bool found;
	int err = place(c, t, k, &found);

	if (err)
		return err;
	if (found)
		return put_on(c, c->slot[0]);
	if (c->slot[0])
		return put_on(c, c->slot[0] - 1);
	return unplaced(c, change_leaf(c, false, k));
}

int cursor_next(struct cursor *c)
{
	struct key from = c->key;

	if (!c->levels)
		return -ENOENT;
	if (c->slot[0] + 1 < nr(c->node[0]))
		return put_on(c, c->slot[0] + 1);
	return change_leaf(c, true, &from);
}

int cursor_prev(struct cursor *c)
{
	struct key from = c->key;

	if (!c->levels)
		return -ENOENT;
	if (c->slot[0])
		return put_on(c, c->slot[0] - 1);
	return change_leaf(c, false, &from);
}
