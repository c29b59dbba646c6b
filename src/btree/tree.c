/*
 * tree.c - ways down a tree: find, get, prepare
 *
 * A descent does one look into the node table and one binary search per level.
 * Whatever node it comes upon has been verified when it was loaded, but perhaps
 * as another node's child: place, generation, checksum, level and kind are
 * compared with what this parent says, so that damage can't lead a descent in
 * circles or into another tree.
 */
#include <assert.h>
#include <inttypes.h>

#include "btree/tree.h"

static int mismatch(const struct tree *t, const struct nptr *p)
{
	return report(-ECOW_CORRUPT,
		      "tree %u: pointer to block %" PRIu64 ", generation %"
		      PRIu64 ", does not fit the node there", t->kind, p->blk,
		      p->gen);
}

int tree_node(const struct tree *t, const struct nptr *p, unsigned level,
	      struct frame **out)
{
	const struct forest *f = t->forest;
	struct frame *fr = cache_find(f, p->blk, p->gen);

	if (!fr) {
		/* nodes of the running generation are all in memory */
		if (p->gen >= f->gen || p->level != level)
			return mismatch(t, p);
		return -EAGAIN;
	}
	if (fr->level != level || p->level != level || fr->kind != t->kind ||
	    (fr->gen != f->gen && fr->csum != p->csum))
		return mismatch(t, p);
	*out = fr;
	return 0;
}

int tree_child(const struct tree *t, const void *node, unsigned slot,
	       struct frame **out)
{
	struct nptr p = node_child(node, slot);

	return tree_node(t, &p, level_of(node) - 1, out);
}

int tree_want(const struct tree *t, const struct nptr *p, void *const *nodes,
	      const unsigned *slots, unsigned level, unsigned levels)
{
	struct key lo = KEY_MIN;
	struct key hi;
	bool has_hi = false;

	if (level + 1 < levels)
		lo = node_key(nodes[level + 1], slots[level + 1]);
	for (unsigned l = level + 1; l < levels && !has_hi; l++) {
		if (slots[l] + 1 < nr(nodes[l])) {
			hi = node_key(nodes[l], slots[l] + 1);
			has_hi = true;
		}
	}
	return cache_want(t->forest, p, t->kind, &lo, has_hi ? &hi : NULL,
			  level == 0 && levels > 1 ? nodes[1] : NULL,
			  levels > 1 ? slots[1] : 0);
}

static int want_below(const struct tree *t, const struct nptr *ptr,
		      const struct path *p, unsigned level)
{
	void *nodes[COWFS_MAX_LEVEL + 1];

	for (unsigned l = level + 1; l < p->levels; l++)
		nodes[l] = p->fr[l]->buf;
	return tree_want(t, ptr, nodes, p->slot, level, p->levels);
}

int tree_path(const struct tree *t, const struct key *k, struct path *p)
{
	struct nptr ptr = t->root;
	unsigned level = ptr.level;
	int err;

	if (!ptr.blk)
		return -ENOENT;
	if (level > COWFS_MAX_LEVEL)
		return mismatch(t, &ptr);
	p->levels = level + 1;
	for (;; level--) {
		const void *node;

		err = tree_node(t, &ptr, level, &p->fr[level]);
		if (err == -EAGAIN)
			return want_below(t, &ptr, p, level);
		if (err)
			return err;
		if (!level)
			break;
		node = p->fr[level]->buf;
		p->slot[level] = inner_find(node, k);
		ptr = node_child(node, p->slot[level]);
	}
	p->found = leaf_find(p->fr[0]->buf, k, &p->slot[0]);
	cache_count_hit(t->forest, p->levels);
	return 0;
}

int tree_get(struct tree *t, const struct key *k, struct item *out)
{
	struct path p;
	int err = tree_path(t, k, &p);

	if (err)
		return err;
	if (!p.found)
		return -ENOENT;
	*out = node_item(p.fr[0]->buf, p.slot[0], t->forest->size);
	return 0;
}

bool node_is_low(const struct tree *t, const struct frame *fr)
{
	uint32_t size = t->forest->size;

	return node_used(fr->buf, size) < COWFS_NODE_BODY(size) / 4;
}

/* What is known about a node without reading anything: 0, or -EAGAIN when
 * something is missing, which is remembered. */
static int ready(const struct tree *t, const struct frame *fr)
{
	bool shared;

	return fr->gen == t->forest->gen ? 0 : cow_shared(t, fr, &shared);
}

static int neighbour_ready(const struct tree *t, const struct path *p,
			   unsigned level, unsigned slot)
{
	const void *parent = p->fr[level + 1]->buf;
	struct path side = *p;
	struct frame *fr;
	struct nptr ptr;
	int err;

	err = tree_child(t, parent, slot, &fr);
	if (!err)
		return ready(t, fr);
	if (err != -EAGAIN)
		return err;
	ptr = node_child(parent, slot);
	side.slot[level + 1] = slot;
	return want_below(t, &ptr, &side, level);
}

/*
 * A node that is nearly empty may become empty, and then a neighbour inherits
 * its keys; one of them, at least, has to be ready for that. (A node that
 * becomes empty by many deletions at once, its neighbours being absent, stays
 * in the tree as an empty leaf: see balance.c.)
 */
static int neighbours_ready(const struct tree *t, const struct path *p,
			    unsigned level)
{
	unsigned slot = p->slot[level + 1];
	unsigned n = nr(p->fr[level + 1]->buf);
	int err;

	if (slot + 1 < n) {
		err = neighbour_ready(t, p, level, slot + 1);
		if (err != -EAGAIN || !slot)
			return err;
	}
	return slot ? neighbour_ready(t, p, level, slot - 1) : 0;
}

/* *p: the way to k; changes there need no I/O. -ENOENT: the tree is empty. */
static int prepare_path(struct tree *t, const struct key *k, struct path *p)
{
	int err;

	if (t->readonly || !t->forest->cfg.alloc)
		return -EROFS;
	err = tree_path(t, k, p);
	if (err)
		return err;
	for (unsigned l = p->levels; l-- > 0;) {
		err = ready(t, p->fr[l]);
		if (err)
			return err;
		if (l + 1 < p->levels && node_is_low(t, p->fr[l])) {
			err = neighbours_ready(t, p, l);
			if (err)
				return err;
		}
	}
	return 0;
}

int tree_prepare(struct tree *t, const struct key *k)
{
	struct path p;
	int err = prepare_path(t, k, &p);

	return err == -ENOENT ? 0 : err;
}

/* Does the leaf hold an item before the path's key, and one behind hi? */
static bool leaf_spans(const struct path *p, const struct key *hi)
{
	const void *leaf = p->fr[0]->buf;
	struct key last;

	if (!p->slot[0])
		return false;
	last = node_key(leaf, nr(leaf) - 1);
	return key_cmp(&last, hi) > 0;
}

/* The first key that belongs to the next leaf. False: there is none. */
static bool path_end(const struct path *p, struct key *end)
{
	for (unsigned l = 1; l < p->levels; l++) {
		const void *node = p->fr[l]->buf;

		if (p->slot[l] + 1 < nr(node)) {
			*end = node_key(node, p->slot[l] + 1);
			return true;
		}
	}
	return false;
}

static int prepare_beside(struct tree *t, const struct key *lo,
			  const struct key *hi)
{
	struct cursor c;
	int err;

	err = cursor_floor(&c, t, lo);
	if (!err)
		err = tree_prepare(t, &c.key);
	if (err && err != -ENOENT)
		return err;
	err = cursor_ceil(&c, t, hi);
	if (!err)
		err = tree_prepare(t, &c.key);
	return err == -ENOENT ? 0 : err;
}

int tree_prepare_range(struct tree *t, const struct key *lo,
		       const struct key *hi)
{
	struct key at = *lo;
	struct path p;
	int err;

	err = prepare_path(t, &at, &p);
	if (!err && leaf_spans(&p, hi))
		return 0; /* by far the most frequent case */
	while (!err && path_end(&p, &at) && key_cmp(&at, hi) <= 0)
		err = prepare_path(t, &at, &p);
	if (err)
		return err == -ENOENT ? 0 : err;
	return prepare_beside(t, lo, hi);
}
