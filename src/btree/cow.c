/*
 * cow.c - copying nodes that must not change; who refers to what (T1, T3)
 *
 * Everything goes from the top down: when a node's turn comes its parent is of
 * the running generation, and if the parent was shared the node has gained its
 * reference already, so that the allocator's answer is about this node alone.
 *
 * Each function here does its work wholly or not at all, and the tree holds
 * the same items before and after. So a change that fails on its way leaves a
 * tree with some nodes copied, and nothing to roll back.
 */
#include <assert.h>
#include <inttypes.h>
#include <limits.h>

#include "btree/tree.h"

struct nptr frame_ptr(const struct frame *fr)
{
	return (struct nptr){ .blk = fr->blk, .blk2 = fr->blk2, .gen = fr->gen,
			      .csum = fr->csum, .level = fr->level };
}

int cow_shared(const struct tree *t, const struct frame *fr, bool *shared)
{
	struct forest *f = t->forest;
	uint32_t extra = 0;
	int err;

	if (fr->gen <= t->shared_gen && fr->gen != f->gen) {
		err = alloc_extra(f->cfg.alloc, f->cfg.store, fr->blk, &extra,
				  NULL);
		if (err)
			return err;
	}
	*shared = extra > 0;
	return 0;
}

/* ---- who refers to what ---- */

struct ref_change {
	struct forest *forest;
	int n;
	unsigned done, limit; /* references changed; to change */
};

static int change_ref(void *arg, const struct node_ref *ref)
{
	struct ref_change *c = arg;
	uint64_t blocks = c->forest->cfg.io->blocks;
	int err;

	if (c->done == c->limit)
		return 0;
	if (ref->blk >= blocks || ref->len > blocks - ref->blk ||
	    (ref->blk2 &&
	     (ref->blk2 >= blocks || ref->len > blocks - ref->blk2)))
		return report(-ECOW_CORRUPT,
			      "reference to %" PRIu64 "+%" PRIu64
			      " is outside the device", ref->blk, ref->len);
	err = alloc_ref(c->forest->cfg.alloc, ref->blk, ref->len, c->n,
			ref->blk2);
	if (!err)
		c->done++;
	return err;
}

/* A shared node's references now count for two. All of them or none, or no commit
 * will be made. */
static int keep_refs(struct forest *f, const struct frame *fr)
{
	struct ref_change c = { .forest = f, .n = 1, .limit = UINT_MAX };
	int undo;
	int err;

	err = node_for_each_ref(fr->buf, f->size, change_ref, &c);
	if (!err)
		err = alloc_ref(f->cfg.alloc, fr->blk, f->node_blocks, -1,
				fr->blk2);
	if (!err)
		return 0;
	c = (struct ref_change){ .forest = f, .n = -1, .limit = c.done };
	undo = node_for_each_ref(fr->buf, f->size, change_ref, &c);
	if (undo) /* wrong counts are not to be written */
		alloc_spoil(f->cfg.alloc, undo);
	return err;
}

/* ---- nodes come and go ---- */

static void give_up_blocks(struct forest *f, uint64_t blk, uint64_t blk2,
			   uint64_t gen)
{
	alloc_free(f->cfg.alloc, blk, f->node_blocks, gen);
	if (blk2)
		alloc_free(f->cfg.alloc, blk2, f->node_blocks, gen);
}

static int new_frame(struct forest *f, struct frame **out)
{
	uint64_t blk;
	uint64_t blk2 = 0;
	int err;

	err = alloc_node(f->cfg.alloc, AREA_META, &blk);
	if (err)
		return err;
	if (f->cfg.copies == 2)
		err = alloc_node(f->cfg.alloc, AREA_META2, &blk2);
	if (err) {
		give_up_blocks(f, blk, 0, f->gen);
		return err;
	}
	*out = cache_new_dirty(f, blk, blk2);
	if (!*out) {
		give_up_blocks(f, blk, blk2, f->gen);
		return -ENOMEM;
	}
	return 0;
}

int cow_new(struct tree *t, unsigned level, struct frame **out)
{
	struct forest *f = t->forest;
	struct frame *fr;
	int err;

	err = new_frame(f, &fr);
	if (err)
		return err;
	fr->level = (uint8_t)level;
	fr->kind = t->kind;
	node_init(fr->buf, f->size, level, t->kind, f->cfg.uuid);
	node_set_place(fr->buf, fr->blk, fr->gen);
	t->nodes++;
	*out = fr;
	return 0;
}

static void forget(struct forest *f, struct frame *fr)
{
	give_up_blocks(f, fr->blk, fr->blk2, fr->gen);
	cache_drop(f, fr);
}

static void tree_shrank(struct tree *t)
{
	if (t->nodes) /* a hint, and from the device */
		t->nodes--;
}

void cow_drop(struct tree *t, struct frame *fr)
{
	assert(fr->gen == t->forest->gen);
	forget(t->forest, fr);
	tree_shrank(t);
}

int cow_release(struct tree *t, struct frame *fr)
{
	bool shared;
	int err;

	err = cow_shared(t, fr, &shared);
	if (!err && shared)
		err = keep_refs(t->forest, fr);
	if (err)
		return err;
	if (!shared)
		forget(t->forest, fr);
	tree_shrank(t);
	return 0;
}

static void set_child(struct tree *t, struct frame *parent, unsigned slot,
		      const struct frame *fr)
{
	struct nptr p = frame_ptr(fr);

	if (parent)
		inner_set_ptr(parent->buf, slot, &p);
	else
		t->root = p;
}

int cow_node(struct tree *t, struct frame *parent, unsigned slot,
	     struct frame *fr, struct frame **out)
{
	struct forest *f = t->forest;
	struct frame *to;
	int err;

	if (fr->gen == f->gen) {
		fr->sealed = false;
		*out = fr;
		return 0;
	}
	err = new_frame(f, &to);
	if (err)
		return err;
	memcpy(to->buf, fr->buf, f->size);
	node_set_place(to->buf, to->blk, to->gen);
	to->level = fr->level;
	to->kind = fr->kind;
	to->csum = 0;
	t->nodes++;
	err = cow_release(t, fr);
	if (err) {
		cow_drop(t, to);
		return err;
	}
	set_child(t, parent, slot, to);
	atomic_fetch_add_explicit(&f->cow_copies, 1, memory_order_relaxed);
	*out = to;
	return 0;
}

int cow_path(struct tree *t, struct path *p)
{
	struct frame *parent = NULL;
	int err;

	if (p->fr[0]->gen != t->forest->gen) {
		err = cache_reserve(t->forest, p->levels);
		if (err)
			return err;
	}
	for (unsigned l = p->levels; l-- > 0;) {
		unsigned slot = parent ? p->slot[l + 1] : 0;

		err = cow_node(t, parent, slot, p->fr[l], &p->fr[l]);
		if (err)
			return err;
		parent = p->fr[l];
	}
	return 0;
}
