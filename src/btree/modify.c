/*
 * modify.c - insert, put, edit, delete
 *
 * Each change finds its way, makes the nodes on it its own (cow.c), makes room
 * (balance.c) and then does what can't fail. Only that last step counts as a
 * change (forest_changes): until then the tree holds the same items.
 */
#include <assert.h>

#include "btree/tree.h"

static int may_change(const struct tree *t)
{
	return t->readonly || !t->forest->cfg.alloc ? -EROFS : 0;
}

/* A change is done, and can't fail any more. */
static void note_change(struct tree *t, const struct key *k)
{
	struct forest *f = t->forest;

	f->changes++;
	if (f->note && t->kind == COWFS_ROOT_FS)
		f->note(f->note_arg, k);
}

static int first_leaf(struct tree *t, struct path *p)
{
	struct frame *fr;
	int err;

	err = cow_new(t, 0, &fr);
	if (err)
		return err;
	t->root = frame_ptr(fr);
	*p = (struct path){ .fr = { fr }, .levels = 1 };
	return 0;
}

/* A key below all others: it becomes the first one of the nodes above, too. */
static void lower_keys(struct path *p, const struct key *k)
{
	for (unsigned l = 1; l < p->levels; l++) {
		void *node = p->fr[l]->buf;

		if (key_cmp_disk(&node_children(node)[p->slot[l]].key, k) <= 0)
			return;
		inner_set_key(node, p->slot[l], k);
	}
}

/* Remember whether inserts follow each other: a later split goes by it. */
static void note_sequence(struct frame *leaf, unsigned slot)
{
	if (slot == leaf->seq_slot + 1u) {
		if (leaf->seq_run < UINT16_MAX)
			leaf->seq_run++;
	} else {
		leaf->seq_run = 0;
	}
	leaf->seq_slot = (uint16_t)slot;
}

/* p leads to where k belongs, it is not there. */
static int insert_at(struct tree *t, struct path *p, const struct key *k,
		     const void *data, uint32_t len, void **out)
{
	uint32_t size = t->forest->size;
	void *at;
	int err;

	if (node_room(p->fr[0]->buf, size) < ITEM_HEAD + len) {
		err = balance_split(t, p, k, len, true);
		if (err)
			return err;
	}
	at = leaf_insert(p->fr[0]->buf, size, p->slot[0], k, data, len);
	note_sequence(p->fr[0], p->slot[0]);
	lower_keys(p, k);
	note_change(t, k);
	if (out)
		*out = at;
	return 0;
}

int tree_insert(struct tree *t, const struct key *k, const void *data,
		uint32_t len, void **out)
{
	struct path p;
	int err;

	err = may_change(t);
	if (err)
		return err;
	if (len > COWFS_ITEM_MAX(t->forest->size))
		return -EFBIG;
	err = tree_path(t, k, &p);
	if (!err && p.found)
		return -EEXIST;
	if (!err)
		err = cow_path(t, &p);
	else if (err == -ENOENT)
		err = first_leaf(t, &p);
	if (err)
		return err;
	return insert_at(t, &p, k, data, len, out);
}

static int replace_at(struct tree *t, struct path *p, const struct key *k,
		      const void *data, uint32_t len)
{
	uint32_t size = t->forest->size;
	void *leaf = p->fr[0]->buf;
	uint32_t old = node_item(leaf, p->slot[0], size).len;
	int err;

	if (len > old && len - old > node_room(leaf, size)) {
		err = balance_split(t, p, k, len, false);
		if (err)
			return err;
	}
	leaf_replace(p->fr[0]->buf, size, p->slot[0], data, len);
	note_change(t, k);
	if (len < old && node_is_low(t, p->fr[0]))
		balance_low(t, p);
	return 0;
}

int tree_put(struct tree *t, const struct key *k, const void *data,
	     uint32_t len)
{
	struct path p;
	int err;

	err = may_change(t);
	if (err)
		return err;
	if (len > COWFS_ITEM_MAX(t->forest->size))
		return -EFBIG;
	err = tree_path(t, k, &p);
	if (err == -ENOENT) {
		p.found = false;
		err = first_leaf(t, &p);
	} else if (!err) {
		err = cow_path(t, &p);
	}
	if (err)
		return err;
	return p.found ? replace_at(t, &p, k, data, len) :
			 insert_at(t, &p, k, data, len, NULL);
}

/* The way to an item that is there, ours to change. */
static int own_item(struct tree *t, const struct key *k, struct path *p)
{
	int err;

	err = may_change(t);
	if (err)
		return err;
	err = tree_path(t, k, p);
	if (err)
		return err;
	if (!p->found)
		return -ENOENT;
	return cow_path(t, p);
}

int tree_edit(struct tree *t, const struct key *k, void **data, uint32_t *len)
{
	struct path p;
	struct item it;
	int err;

	err = own_item(t, k, &p);
	if (err)
		return err;
	it = node_item(p.fr[0]->buf, p.slot[0], t->forest->size);
	note_change(t, k);
	*data = (void *)(uintptr_t)it.data;
	*len = it.len;
	return 0;
}

int tree_delete(struct tree *t, const struct key *k)
{
	struct path p;
	int err;

	err = own_item(t, k, &p);
	if (err)
		return err;
	leaf_delete(p.fr[0]->buf, t->forest->size, p.slot[0]);
	p.fr[0]->seq_run = 0;
	note_change(t, k);
	if (node_is_low(t, p.fr[0]))
		balance_low(t, &p);
	return 0;
}
