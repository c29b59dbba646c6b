/*
 * balance.c - splitting full nodes, filling up and dissolving low ones
 *
 * What does not fit is first offered to the neighbours (shift.c).
 *
 * Splits go from the top down, each one leaving a valid tree with the same
 * items, so that running out of space between two of them does no harm. The
 * highest node to split is the one below the lowest inner node with room.
 *
 * A leaf splits in the middle of its bytes, but where items come in a row the
 * left half is left full: at the end of a leaf (files and directories grow
 * there), and in its middle after a run of inserts one after the other.
 *
 * Low nodes (under a quarter full) are joined with a neighbour under the same
 * parent, or get some of its entries, if it is in memory and known to be shared
 * or not: nothing is read for that. tree_prepare sees to it that this is so for
 * nodes that are low already. The node on the path always receives, so that
 * joining allocates nothing. An empty leaf whose neighbours are not at hand
 * stays, as an empty leaf: its keys would otherwise fall to a node that must be
 * read first (T2).
 */
#include <assert.h>

#include "btree/tree.h"

#define SEQUENCE 4u /* so many inserts in a row are expected to go on */

/* ---- splitting ---- */

/* Put a new, empty right sibling of path node `level` into its parent. */
static int add_right(struct tree *t, struct path *p, unsigned level,
		     const struct key *sep, struct frame **out)
{
	struct frame *parent = p->fr[level + 1];
	struct nptr ptr;
	int err;

	err = cow_new(t, level, out);
	if (err)
		return err;
	ptr = frame_ptr(*out);
	inner_insert(parent->buf, p->slot[level + 1] + 1, sep, &ptr);
	atomic_fetch_add_explicit(&t->forest->splits, 1, memory_order_relaxed);
	return 0;
}

static int split_inner(struct tree *t, struct path *p, unsigned level)
{
	uint32_t size = t->forest->size;
	struct frame *left = p->fr[level];
	unsigned n = nr(left->buf);
	unsigned slot = p->slot[level];
	/* children keep coming at the end? then leave this one full */
	unsigned keep = slot + 1 == n ? n - 1 : n / 2;
	struct key sep = node_key(left->buf, keep);
	struct frame *right;
	int err;

	err = add_right(t, p, level, &sep, &right);
	if (err)
		return err;
	node_add_front(right->buf, left->buf, size, n - keep);
	node_cut_back(left->buf, size, n - keep);
	if (slot >= keep) {
		p->fr[level] = right;
		p->slot[level] = slot - keep;
		p->slot[level + 1]++;
	}
	return 0;
}

/* A new root with the old one as its only child. */
static int grow(struct tree *t, struct path *p)
{
	struct frame *old = p->fr[p->levels - 1];
	struct nptr ptr = frame_ptr(old);
	struct key first = node_key(old->buf, 0);
	struct frame *fr;
	int err;

	if (p->levels > COWFS_MAX_LEVEL)
		return -EFBIG;
	err = cow_new(t, p->levels, &fr);
	if (err)
		return err;
	inner_insert(fr->buf, 0, &first, &ptr);
	t->root = frame_ptr(fr);
	p->fr[p->levels] = fr;
	p->slot[p->levels] = 0;
	p->levels++;
	return 0;
}

/* A leaf as it would be with the change: entry `slot` is new, or (!fresh) has
 * a new weight. */
struct plan {
	const void *leaf;
	uint32_t size, cap;
	unsigned n, slot; /* n: entries, the new one included */
	uint32_t weight;
	bool fresh;
};

static uint32_t plan_weight(const struct plan *pl, unsigned i)
{
	if (i == pl->slot)
		return pl->weight;
	if (pl->fresh && i > pl->slot)
		i--;
	return node_weight(pl->leaf, pl->size, i, i + 1);
}

/* How many entries stay left: what comes closest to one half each. Entries
 * weigh a quarter at most, so both halves fit. */
static unsigned plan_half(const struct plan *pl)
{
	uint32_t total = 0;
	uint32_t left = 0;
	unsigned i;

	for (i = 0; i < pl->n; i++)
		total += plan_weight(pl, i);
	for (i = 0; i < pl->n - 1; i++) {
		uint32_t w = plan_weight(pl, i);

		if (left + w / 2 > total / 2)
			break;
		left += w;
	}
	return i ? i : 1;
}

/* Entries before `keep` stay left: does either half overflow? */
static bool plan_fits(const struct plan *pl, unsigned keep)
{
	uint32_t left = 0;
	uint32_t right = 0;

	for (unsigned i = 0; i < pl->n; i++) {
		if (i < keep)
			left += plan_weight(pl, i);
		else
			right += plan_weight(pl, i);
	}
	return left <= pl->cap && right <= pl->cap;
}

static unsigned plan_keep(const struct plan *pl, const struct frame *leaf)
{
	if (!pl->fresh)
		return plan_half(pl);
	if (pl->slot + 1 == pl->n)
		return pl->slot;
	if (leaf->seq_run >= SEQUENCE && pl->slot == leaf->seq_slot + 1u) {
		/* with the new one to the left, its successors go on there */
		if (plan_fits(pl, pl->slot + 1))
			return pl->slot + 1;
		if (plan_fits(pl, pl->slot))
			return pl->slot;
	}
	return plan_half(pl);
}

static int split_leaf(struct tree *t, struct path *p, const struct key *k,
		      uint32_t len, bool fresh)
{
	struct frame *left = p->fr[0];
	unsigned n = nr(left->buf);
	uint32_t size = t->forest->size;
	struct plan pl = { .leaf = left->buf, .size = size,
			   .cap = COWFS_NODE_BODY(size), .n = n + fresh,
			   .slot = p->slot[0], .weight = ITEM_HEAD + len,
			   .fresh = fresh };
	unsigned keep = plan_keep(&pl, left);
	/* entries that are there already and stay */
	unsigned stay = keep - (fresh && p->slot[0] < keep);
	struct frame *right;
	struct key sep;
	int err;

	sep = keep == p->slot[0] ? *k : node_key(left->buf, stay);
	err = add_right(t, p, 0, &sep, &right);
	if (err)
		return err;
	node_add_front(right->buf, left->buf, size, n - stay);
	node_cut_back(left->buf, size, n - stay);
	left->seq_run = 0;
	if (p->slot[0] >= keep) {
		p->fr[0] = right;
		p->slot[0] -= keep;
		p->slot[1]++;
	}
	return 0;
}

int balance_split(struct tree *t, struct path *p, const struct key *k,
		  uint32_t len, bool fresh)
{
	unsigned max = inner_max(t->forest->size);
	unsigned top = 1; /* lowest inner node with room */
	int err;

	if (fresh && shift_leaf(t, p, k, len))
		return 0;
	/* a second half of each node, and a new root */
	err = cache_reserve(t->forest, p->levels + 1);
	if (err)
		return err;
	while (top < p->levels && nr(p->fr[top]->buf) >= max)
		top++;
	if (top == p->levels) {
		err = grow(t, p);
		if (err)
			return err;
	}
	for (unsigned l = top - 1; l > 0; l--) {
		err = split_inner(t, p, l);
		if (err)
			return err;
	}
	return split_leaf(t, p, k, len, fresh);
}

/* ---- low nodes ---- */

/* The neighbour in `slot` of the parent, if it may be used without I/O. */
static struct frame *neighbour(struct tree *t, const struct path *p,
			       unsigned level, unsigned slot)
{
	struct frame *fr;
	bool shared;

	if (tree_child(t, p->fr[level + 1]->buf, slot, &fr) ||
	    cow_shared(t, fr, &shared))
		return NULL;
	return fr;
}

/* All entries of neighbour `fr`, in `side` of the parent, come to the path's
 * node `level`; fr goes. */
static bool join(struct tree *t, struct path *p, unsigned level, unsigned side,
		 struct frame *fr)
{
	uint32_t size = t->forest->size;
	void *parent = p->fr[level + 1]->buf;
	void *node = p->fr[level]->buf;
	unsigned n = nr(fr->buf);
	bool left = side < p->slot[level + 1];
	struct key first = node_key(parent, side);

	if (node_used(node, size) + node_used(fr->buf, size) >
	    COWFS_NODE_BODY(size) / 4 * 3)
		return false;
	if (left)
		node_add_front(node, fr->buf, size, n);
	else
		node_add_back(node, fr->buf, size, n);
	if (cow_release(t, fr)) {
		if (left)
			node_cut_front(node, size, n);
		else
			node_cut_back(node, size, n);
		return false;
	}
	if (left) {
		inner_set_key(parent, p->slot[level + 1], &first);
		p->slot[level] += n;
		p->slot[level + 1]--;
	}
	inner_delete(parent, side);
	atomic_fetch_add_explicit(&t->forest->merges, 1, memory_order_relaxed);
	return true;
}

/* So many entries of a neighbour make both nodes about equal; 0: not worth
 * it. They come from its end or from its front. */
static unsigned half_of(const struct tree *t, const void *from, const void *to,
			bool end)
{
	uint32_t size = t->forest->size;
	uint32_t give = node_used(from, size);
	uint32_t have = node_used(to, size);
	unsigned count = nr(from);
	unsigned n = 0;

	while (n + 1 < count) {
		unsigned i = end ? count - 1 - n : n;
		uint32_t w = node_weight(from, size, i, i + 1);

		if (have + w > give - w)
			break;
		have += w;
		give -= w;
		n++;
	}
	return n;
}

/* Take entries from a neighbour that is too full to join with. */
static bool borrow(struct tree *t, struct path *p, unsigned level,
		   unsigned side, struct frame *fr)
{
	uint32_t size = t->forest->size;
	struct frame *parent = p->fr[level + 1];
	void *node = p->fr[level]->buf;
	bool left = side < p->slot[level + 1];
	unsigned n = half_of(t, fr->buf, node, left);
	struct key first;

	if (!n || cow_node(t, parent, side, fr, &fr))
		return false;
	fr->seq_run = 0;
	if (left) {
		node_add_front(node, fr->buf, size, n);
		node_cut_back(fr->buf, size, n);
		first = node_key(node, 0);
		inner_set_key(parent->buf, p->slot[level + 1], &first);
		p->slot[level] += n;
	} else {
		node_add_back(node, fr->buf, size, n);
		node_cut_front(fr->buf, size, n);
		first = node_key(fr->buf, 0);
		inner_set_key(parent->buf, side, &first);
	}
	return true;
}

/* An empty leaf goes; the neighbour in `side` inherits its keys. */
static void dissolve(struct tree *t, struct path *p, unsigned side)
{
	void *parent = p->fr[1]->buf;
	unsigned slot = p->slot[1];
	struct key first = node_key(parent, slot);

	if (side > slot)
		inner_set_key(parent, side, &first);
	inner_delete(parent, slot);
	cow_drop(t, p->fr[0]);
	p->fr[0] = NULL;
}

/* Empty leaves left over beside this one (see the head of this file). */
static void join_empty(struct tree *t, struct path *p)
{
	for (unsigned side = 0; side < 2; side++) {
		unsigned slot = p->slot[1];
		unsigned at = side ? slot + 1 : slot - 1;
		struct frame *fr;

		if (side ? at >= nr(p->fr[1]->buf) : !slot)
			continue;
		fr = neighbour(t, p, 0, at);
		if (fr && !nr(fr->buf))
			(void)join(t, p, 0, at, fr);
	}
}

static void lift(struct tree *t, struct path *p, unsigned level)
{
	unsigned slot, n;
	struct frame *left, *right;

	if (!level)
		join_empty(t, p);
	slot = p->slot[level + 1];
	n = nr(p->fr[level + 1]->buf);
	left = slot ? neighbour(t, p, level, slot - 1) : NULL;
	right = slot + 1 < n ? neighbour(t, p, level, slot + 1) : NULL;
	if (!nr(p->fr[level]->buf)) {
		if (left || right)
			dissolve(t, p, left ? slot - 1 : slot + 1);
		return;
	}
	if (left && join(t, p, level, slot - 1, left))
		return;
	if (right && join(t, p, level, slot + 1, right))
		return;
	if (left && borrow(t, p, level, slot - 1, left))
		return;
	if (right)
		(void)borrow(t, p, level, slot + 1, right);
}

/* A root with one child is replaced by it, an empty one by nothing. */
static void lower_root(struct tree *t, struct path *p)
{
	while (p->levels > 1 && nr(p->fr[p->levels - 1]->buf) == 1) {
		struct frame *root = p->fr[p->levels - 1];

		t->root = node_child(root->buf, 0);
		cow_drop(t, root);
		p->levels--;
	}
	if (p->levels == 1 && p->fr[0] && !nr(p->fr[0]->buf)) {
		cow_drop(t, p->fr[0]);
		p->fr[0] = NULL;
		t->root = (struct nptr){ .blk = 0 };
	}
}

void balance_low(struct tree *t, struct path *p)
{
	/* A leaf that has no neighbour below its parent may have one once the
	 * parent has been joined with another: hence twice. */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned l = 0; l + 1 < p->levels; l++) {
			if (!node_is_low(t, p->fr[l]))
				break;
			lift(t, p, l);
		}
		lower_root(t, p);
		if (!p->fr[0] || nr(p->fr[0]->buf))
			return;
	}
}
