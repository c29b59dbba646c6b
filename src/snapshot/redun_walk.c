/*
 * redun_walk.c - which data do how many roots reach?
 *
 * Level by level from the top: the nodes of one level, each once, with the sum
 * of what reaches their parents, and of the roots that lie on that level. A
 * child's generation is no younger than its parent's, so nodes of set.done or
 * older, which need no look, have no children that do (src/README.md tells why
 * they need none).
 *
 * In a leaf the count of an extent's blocks is that of the leaf, and one more
 * for each reference beyond the first, which come from other leaves (or this
 * one) that some root reaches.
 */
#include <inttypes.h>

#include "snapshot/redun.h"

/* Nodes above the leaves that one step looks at. */
#define STEP_NODES 32u
/* Extents of a leaf that one hold of the tree lock looks at. */
#define STEP_EXTENTS 64u

/* ---- lists of nodes ---- */

static int by_block(const void *a, const void *b)
{
	const struct seen_node *x = a, *y = b;

	if (x->ptr.blk != y->ptr.blk)
		return x->ptr.blk < y->ptr.blk ? -1 : 1;
	return 0;
}

static uint32_t add_counts(uint32_t a, uint32_t b)
{
	return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* In order of blocks, each once. */
static void list_merge(struct seen_list *l)
{
	size_t n = 0;

	if (l->n)
		qsort(l->at, l->n, sizeof(*l->at), by_block);
	for (size_t i = 0; i < l->n; i++) {
		struct seen_node *last = n ? &l->at[n - 1] : NULL;

		if (last && last->ptr.blk == l->at[i].ptr.blk) {
			last->count = add_counts(last->count, l->at[i].count);
			last->live |= l->at[i].live;
		} else {
			l->at[n++] = l->at[i];
		}
	}
	l->n = l->merged = n;
}

static int list_add(struct seen_list *l, const struct seen_node *node)
{
	size_t room;
	void *at;

	/* Merging takes time: not before there is as much again. */
	if (l->n == l->room && l->n > 2 * l->merged)
		list_merge(l);
	if (l->n >= l->room / 2 && (l->n == l->room || l->n == l->merged)) {
		room = l->room ? l->room * 2 : 64;
		at = realloc(l->at, room * sizeof(*l->at));
		if (!at)
			return -ENOMEM;
		l->at = at;
		l->room = room;
	}
	l->at[l->n++] = *node;
	return 0;
}

static void list_free(struct seen_list *l)
{
	free(l->at);
	*l = (struct seen_list){ 0 };
}

/* ---- roots ---- */

static int add_root(struct pass *p, const struct nptr *ptr, bool live)
{
	struct seen_node node = { .ptr = *ptr, .count = 1, .live = live };

	return ptr->blk ? list_add(&p->roots, &node) : 0;
}

static int find_roots(struct pass *p, const struct cowfs_disk_super *super)
{
	struct nptr live = nptr_from_disk(&super->roots[COWFS_ROOT_FS].ptr);
	struct snap_info info;
	uint64_t id = 0;
	int err = add_root(p, &live, true);

	while (!err) {
		err = snap_next(p->s, id, &info);
		id = info.id + 1;
		if (!err)
			err = add_root(p, &info.root, false);
	}
	return err == -ENOENT ? 0 : err;
}

/* The roots of this level join its nodes. */
static int join_roots(struct pass *p)
{
	int err = 0;

	for (size_t i = 0; !err && i < p->roots.n; i++)
		if (p->roots.at[i].ptr.level == p->level &&
		    p->roots.at[i].ptr.gen > p->set.done)
			err = list_add(&p->now, &p->roots.at[i]);
	list_merge(&p->now);
	p->next = 0;
	return err;
}

/* Can there be anything at all? */
static bool worth_it(const struct pass *p)
{
	return p->roots.n >= p->set.count || p->s->refs.root.blk;
}

static int look_for_roots(struct pass *p)
{
	struct cowfs_disk_super super;
	struct op op;
	bool worth;
	int err = store_commit(p->s, NULL, NULL);

	if (err)
		return err;
	store_durable_super(p->s, &super);
	p->low = from_le64(super.gen);
	p->seen = from_le64(super.next_snap);
	err = find_roots(p, &super);
	op_read(&op, p->s);
	worth = worth_it(p);
	if (op_end(&op, err))
		return err;
	for (size_t i = 0; i < p->roots.n; i++)
		if (p->roots.at[i].ptr.level > p->level)
			p->level = p->roots.at[i].ptr.level;
	return worth ? join_roots(p) : -ENODATA;
}

int pass_begin(struct store *s, const struct setting *set, struct pass **out)
{
	struct pass *p = calloc(1, sizeof(*p));
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->s = s;
	p->set = *set;
	alloc_hold(s->alloc); /* before looking at what is durable */
	p->node = aligned_alloc(COWFS_BLOCK_SIZE, forest_node_size(s->forest));
	p->batch.buf = aligned_alloc(COWFS_BLOCK_SIZE,
				     BATCH_BLOCKS * COWFS_BLOCK_SIZE);
	if (p->node && p->batch.buf)
		err = look_for_roots(p);
	if (err) {
		pass_free(p);
		return err;
	}
	*out = p;
	return 0;
}

void pass_free(struct pass *p)
{
	if (!p)
		return;
	batch_drop(p->s, &p->batch);
	alloc_unhold(p->s->alloc);
	list_free(&p->roots);
	list_free(&p->now);
	list_free(&p->below);
	free(p->batch.buf);
	free(p->node);
	free(p);
}

/* ---- nodes ---- */

/* Into p->node. Damage is reported below; what hangs there is left out. */
static int read_node(struct pass *p, const struct nptr *ptr, bool *good)
{
	unsigned ticket = store_enter(p->s);
	int err = -ESTALE;

	if (!alloc_hold_broken(p->s->alloc))
		err = node_read(p->s->forest, ptr, COWFS_ROOT_FS, NULL, NULL,
				true, p->node);
	store_leave(p->s, ticket);
	*good = !err;
	return err == -ENOMEM || err == -ESTALE ? err : 0;
}

static int add_children(struct pass *p, const struct seen_node *parent)
{
	struct seen_node c = { .count = parent->count, .live = parent->live };
	unsigned n = node_count(p->node);
	int err = 0;

	for (unsigned i = 0; !err && i < n; i++) {
		c.ptr = node_child(p->node, i);
		if (c.ptr.gen <= p->set.done || c.ptr.gen > parent->ptr.gen ||
		    c.ptr.level + 1u != parent->ptr.level)
			continue;
		err = list_add(&p->below, &c);
	}
	return err;
}

/* The next node of this level. */
static int open_node(struct pass *p)
{
	const struct seen_node *n = &p->now.at[p->next++];
	bool good;
	int err;

	if (n->live && n->count < p->set.count)
		p->low = min_u64(p->low, n->ptr.gen - 1);
	err = read_node(p, &n->ptr, &good);
	if (err || !good)
		return err;
	if (p->level)
		return add_children(p, n);
	p->leaf = true;
	p->leaf_count = n->count;
	p->slot = 0;
	p->off = 0;
	return 0;
}

/* ---- leaves ---- */

struct data_extent {
	uint64_t blk;
	uint32_t len;
	const struct le32 *csum;
};

/* The extent that is next, if it is one that may have an extra copy. */
static bool extent_here(const struct pass *p, struct data_extent *out)
{
	uint32_t size = forest_node_size(p->s->forest);
	uint64_t end = p->s->io.blocks - COWFS_SUPER_SLOTS;
	struct item it = node_item(p->node, p->slot, size);
	const struct cowfs_disk_extent *d = it.data;

	if (node_key(p->node, p->slot).type != COWFS_KEY_EXTENT ||
	    it.len < sizeof(*d) || d->kind != COWFS_EXTENT_DATA ||
	    from_le64(d->blk2))
		return false;
	*out = (struct data_extent){ .blk = from_le64(d->blk),
				     .len = from_le32(d->len),
				     .csum = (const struct le32 *)(d + 1) };
	return out->len && (it.len - sizeof(*d)) / 4 == out->len &&
	       out->blk >= COWFS_FIRST_BLOCK && out->blk < end &&
	       out->len <= end - out->blk;
}

/*
 * T: the blocks of an extent from p->off on that are all to have a copy, or all
 * not: *len.
 */
static int judge(struct pass *p, const struct data_extent *e, bool *wanted,
		 uint32_t *len)
{
	struct store *s = p->s;
	uint64_t blk = e->blk + p->off, max = e->len - p->off, refs;
	struct copy_ival iv;
	int err;

	*wanted = false;
	err = copies_next(s, blk, &iv);
	if (err && err != -ENOENT)
		return err;
	if (!err && iv.start <= blk) {
		*len = (uint32_t)min_u64(max, iv.start + iv.len - blk);
		return 0;
	}
	if (!err)
		max = min_u64(max, iv.start - blk);
	err = alloc_refs(s->alloc, &s->refs_space, blk, max, &refs, &max);
	if (err)
		return err;
	*wanted = refs && p->leaf_count + (refs - 1) >= p->set.count;
	*len = (uint32_t)max;
	return 0;
}

static void next_item(struct pass *p)
{
	p->slot++;
	p->off = 0;
}

/* T: go on to the first blocks that are to have a copy; *len of them. 0 of them
 * at the end of the leaf, or for a rest. */
static int find_wanted(struct pass *p, struct data_extent *e, uint32_t *len)
{
	unsigned n = node_count(p->node), looks = 0;
	bool wanted;
	int err;

	*len = 0;
	for (; p->slot < n && looks < STEP_EXTENTS; next_item(p)) {
		if (!extent_here(p, e))
			continue;
		while (p->off < e->len) {
			err = judge(p, e, &wanted, len);
			if (err || wanted)
				return err;
			p->off += *len;
			*len = 0;
			looks++;
		}
	}
	return 0;
}

/* What is in the leaf goes to the batch, as far as there is room. */
static int look_through(struct pass *p)
{
	struct data_extent e = { .len = 0 };
	struct op op;
	uint32_t len;
	int err;

	op_read(&op, p->s);
	do
		err = find_wanted(p, &e, &len);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (err)
		return err;
	if (len) {
		err = batch_add(p->s, &p->batch, e.blk + p->off,
				e.csum + p->off, &len);
		p->off += err ? 0 : len;
	} else if (p->slot == node_count(p->node)) {
		p->leaf = false;
	}
	return err;
}

/* ---- steps ---- */

static int next_level(struct pass *p)
{
	struct seen_list old = p->now;

	p->level--;
	p->now = p->below;
	p->below = old;
	p->below.n = p->below.merged = 0;
	return join_roots(p);
}

static int step_leaf(struct pass *p)
{
	int err = 0;

	for (unsigned i = 0; !err && i < STEP_EXTENTS; i++) {
		if (batch_full(&p->batch))
			return batch_run(p->s, &p->batch);
		if (p->leaf)
			err = look_through(p);
		else if (p->next < p->now.n)
			err = open_node(p);
		else
			return batch_run(p->s, &p->batch);
	}
	return err;
}

static bool at_end(const struct pass *p)
{
	return !p->level && p->next == p->now.n && !p->leaf &&
	       !p->batch.pieces;
}

int pass_step(struct pass *p)
{
	int err = 0;

	if (!p->level) {
		err = step_leaf(p);
	} else {
		for (unsigned i = 0; !err && i < STEP_NODES; i++) {
			if (p->next == p->now.n) {
				err = next_level(p);
				break;
			}
			err = open_node(p);
		}
	}
	if (err == -EAGAIN)
		err = -EIO; /* op_again has seen to it; it cannot be */
	return err ? err : !at_end(p);
}
