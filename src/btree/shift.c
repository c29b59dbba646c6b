/*
 * shift.c - room in a full leaf without a new node
 *
 * Before a leaf is split, a neighbour under the same parent that has room takes
 * some of its entries, if it is of the running generation: then nothing is
 * copied, nothing can fail, and the commit writes no node more. Without this
 * the leaves of a directory that is being filled stay half empty: new inodes
 * go to the end of the tree, where leaves are left full, but the names of their
 * directory lie a leaf or two before it, and each full leaf that a name comes
 * to is split in the middle, for good. (1000 files of one block in 20
 * directories: leaves 56 % full, so each metadata byte was written nearly
 * twice, and read as often by whoever lists them.)
 *
 * An eighth of a leaf moves at a time: a leaf that gives stays nearly full, as
 * it may get no more, and the work is shared by the inserts that follow.
 */
#include "btree/tree.h"

struct shift {
	struct frame *leaf, *side;
	uint32_t size;
	uint32_t weight;   /* of the new item */
	unsigned slot;     /* of it, in the leaf */
	unsigned move;     /* entries that go */
	bool there;        /* the new item goes with them */
};

/* A neighbour that may be changed as it is, in `slot` of the parent. */
static struct frame *open_neighbour(const struct tree *t, const struct path *p,
				    unsigned slot)
{
	struct frame *fr;

	if (tree_child(t, p->fr[1]->buf, slot, &fr) ||
	    fr->gen != t->forest->gen)
		return NULL;
	return fr;
}

/* Is there room enough, wherever the new item goes? */
static bool fits(const struct shift *s, uint32_t moved)
{
	uint32_t there = node_room(s->side->buf, s->size);
	uint32_t here = node_room(s->leaf->buf, s->size);

	if (s->there)
		return there >= moved + s->weight;
	return there >= moved && here + moved >= s->weight;
}

/*
 * How many entries go to the right or left. The new item alone, if it comes at
 * that end: it may be the first of many.
 */
static bool choose(struct shift *s, bool right)
{
	unsigned n = nr(s->leaf->buf);
	unsigned before = right ? n - s->slot : s->slot; /* it on that side */
	uint32_t want = COWFS_NODE_BODY(s->size) / 8;
	uint32_t moved = 0;

	s->move = 0;
	s->there = true;
	if (!before)
		return fits(s, want);
	while (moved < want && s->move + 1 < n) {
		unsigned i = right ? n - 1 - s->move : s->move;

		moved += node_weight(s->leaf->buf, s->size, i, i + 1);
		s->move++;
	}
	s->there = before < s->move;
	return fits(s, moved);
}

static void to_right(struct path *p, const struct shift *s,
		     const struct key *k)
{
	unsigned left = nr(s->leaf->buf) - s->move; /* entries that stay */
	struct key first;

	node_add_front(s->side->buf, s->leaf->buf, s->size, s->move);
	node_cut_back(s->leaf->buf, s->size, s->move);
	first = s->there && s->slot == left ? *k : node_key(s->side->buf, 0);
	inner_set_key(p->fr[1]->buf, p->slot[1] + 1, &first);
	if (!s->there)
		return;
	p->fr[0] = s->side;
	p->slot[0] = s->slot - left;
	p->slot[1]++;
}

static void to_left(struct path *p, const struct shift *s, const struct key *k)
{
	unsigned had = nr(s->side->buf);
	struct key first;

	node_add_back(s->side->buf, s->leaf->buf, s->size, s->move);
	node_cut_front(s->leaf->buf, s->size, s->move);
	first = !s->there && s->slot == s->move ? *k :
						  node_key(s->leaf->buf, 0);
	inner_set_key(p->fr[1]->buf, p->slot[1], &first);
	if (!s->there) {
		p->slot[0] = s->slot - s->move;
		return;
	}
	p->fr[0] = s->side;
	p->slot[0] = had + s->slot;
	p->slot[1]--;
}

bool shift_leaf(struct tree *t, struct path *p, const struct key *k,
		uint32_t len)
{
	struct shift s = { .leaf = p->fr[0], .size = t->forest->size,
			   .weight = ITEM_HEAD + len, .slot = p->slot[0] };

	if (p->levels < 2)
		return false;
	for (unsigned right = 2; right-- > 0;) {
		unsigned at = p->slot[1];

		if (right ? at + 1 >= nr(p->fr[1]->buf) : !at)
			continue;
		s.side = open_neighbour(t, p, right ? at + 1 : at - 1);
		if (!s.side || !choose(&s, right))
			continue;
		s.side->sealed = false;
		s.side->seq_run = s.leaf->seq_run = 0;
		if (right)
			to_right(p, &s, k);
		else
			to_left(p, &s, k);
		return true;
	}
	return false;
}
