/*
 * diff.c - the difference between two trees
 *
 * Two positions move through two trees at once. A position stands on an item,
 * or on a child that it has not gone down into; its key is a lower bound of all
 * that is still to come there. The position with the smaller key moves: an item
 * is in that tree alone; a child is entered. At equal keys two items are
 * compared; of a child and an item, or of children of different level, the
 * higher one is entered; and two pointers to the same node are passed without
 * reading it: everything below is shared.
 */
#include "btree/tree.h"

struct side {
	struct tree *tree;
	void *node[COWFS_MAX_LEVEL + 1];
	unsigned slot[COWFS_MAX_LEVEL + 1];
	unsigned levels;
	unsigned level; /* where it stands; = levels: on the root pointer */
	bool end;
	struct key key;
};

/* The key where it stands, but not below what has been done. */
static void set_key(struct side *s, const struct key *from)
{
	s->key = s->level < s->levels ?
			 node_key(s->node[s->level], s->slot[s->level]) :
			 KEY_MIN;
	if (key_cmp(&s->key, from) < 0)
		s->key = *from;
}

/* To what follows the place where it stands, here or further up. */
static void pass(struct side *s, const struct key *from)
{
	for (; s->level < s->levels; s->level++) {
		if (++s->slot[s->level] < nr(s->node[s->level])) {
			set_key(s, from);
			return;
		}
	}
	s->end = true;
}

static struct nptr side_ptr(const struct side *s)
{
	return s->level == s->levels ?
		       s->tree->root :
		       node_child(s->node[s->level], s->slot[s->level]);
}

/* Into the child on which it stands, to what is there from `from` on. */
static int enter(struct side *s, const struct key *from)
{
	struct nptr p = side_ptr(s);
	unsigned level = s->level - 1;
	struct frame *fr;
	unsigned slot;
	int err;

	err = tree_node(s->tree, &p, level, &fr);
	if (err == -EAGAIN)
		return tree_want(s->tree, &p, s->node, s->slot, level,
				 s->levels);
	if (err)
		return err;
	if (level)
		slot = inner_find(fr->buf, from);
	else
		(void)leaf_find(fr->buf, from, &slot);
	s->node[level] = fr->buf;
	s->slot[level] = slot;
	s->level = level;
	if (slot < nr(fr->buf))
		set_key(s, from);
	else
		pass(s, from); /* nothing left in this leaf */
	return 0;
}

static int side_start(struct side *s, struct tree *t, const struct key *from)
{
	*s = (struct side){ .tree = t };
	if (!t->root.blk) {
		s->end = true;
		return 0;
	}
	if (t->root.level > COWFS_MAX_LEVEL)
		return report(-ECOW_CORRUPT, "tree %u: root of level %u",
			      t->kind, t->root.level);
	s->level = s->levels = t->root.level + 1u;
	set_key(s, from);
	return 0;
}

static bool on_item(const struct side *s)
{
	return s->level == 0;
}

static struct item side_item(const struct side *s)
{
	return node_item(s->node[0], s->slot[0], s->tree->forest->size);
}

/* The same child, or the same place in the same node. */
static bool same(const struct side *a, const struct side *b)
{
	struct nptr p, q;

	if (a->level != b->level)
		return false;
	if (a->level < a->levels && b->level < b->levels &&
	    a->node[a->level] == b->node[b->level] &&
	    a->slot[a->level] == b->slot[b->level])
		return true;
	if (on_item(a))
		return false;
	p = side_ptr(a);
	q = side_ptr(b);
	return p.blk == q.blk && p.gen == q.gen && p.level == q.level;
}

/* Beyond all that is the same from here on: whole nodes if possible. */
static void pass_same(struct side *a, struct side *b, const struct key *from)
{
	while (a->level < a->levels && b->level < b->levels &&
	       a->node[a->level] == b->node[b->level] &&
	       a->slot[a->level] == b->slot[b->level]) {
		a->level++;
		b->level++;
	}
	pass(a, from);
	pass(b, from);
}

struct diff {
	struct side a, b;
	struct key *from;
	tree_diff_fn *fn;
	void *arg;
};

/* Everything up to the key k is done. */
static void done_with(struct diff *d, const struct key *k)
{
	*d->from = *k;
	if (++d->from->off == 0 && ++d->from->type == 0 &&
	    ++d->from->obj == 0) {
		*d->from = KEY_MAX;
		d->a.end = d->b.end = true;
	}
}

static int only(struct diff *d, struct side *s)
{
	struct item it = side_item(s);
	struct key k = s->key;
	int err;

	err = s == &d->a ? d->fn(d->arg, &k, &it, NULL) :
			   d->fn(d->arg, &k, NULL, &it);
	if (err)
		return err;
	pass(s, &k);
	done_with(d, &k);
	return 0;
}

static int both(struct diff *d)
{
	struct item x = side_item(&d->a);
	struct item y = side_item(&d->b);
	struct key k = d->a.key;

	if (x.len != y.len || memcmp(x.data, y.data, x.len)) {
		int err = d->fn(d->arg, &k, &x, &y);

		if (err)
			return err;
	}
	pass(&d->a, &k);
	pass(&d->b, &k);
	done_with(d, &k);
	return 0;
}

static int step(struct diff *d)
{
	struct side *a = &d->a;
	struct side *b = &d->b;
	struct side *s = a;
	int order;

	if (a->end || b->end) {
		s = a->end ? b : a;
		return on_item(s) ? only(d, s) : enter(s, d->from);
	}
	if (same(a, b)) {
		pass_same(a, b, d->from);
		return 0;
	}
	order = key_cmp(&a->key, &b->key);
	if (order) {
		s = order < 0 ? a : b;
		*d->from = s->key;
		return on_item(s) ? only(d, s) : enter(s, d->from);
	}
	if (on_item(a) && on_item(b))
		return both(d);
	if (a->level < b->level)
		return enter(b, d->from);
	if (b->level < a->level)
		return enter(a, d->from);
	return enter(a, d->from);
}

int tree_diff(struct tree *a, struct tree *b, struct key *from,
	      tree_diff_fn *fn, void *arg)
{
	struct diff d = { .from = from, .fn = fn, .arg = arg };
	int err;

	err = side_start(&d.a, a, from);
	if (!err)
		err = side_start(&d.b, b, from);
	while (!err && !(d.a.end && d.b.end))
		err = step(&d);
	return err;
}
