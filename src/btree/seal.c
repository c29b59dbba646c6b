/*
 * seal.c - closing a generation: checksums, batch, writing
 *
 * A node's checksum lies in its parent, so trees are sealed from the bottom
 * up. Every change marks the whole way from the root as not sealed any more;
 * sealing again after a few more changes costs only those ways.
 *
 * A batch is a list of frozen frames. Their bytes do not change any more (T1):
 * they are written without any lock.
 */
#include <assert.h>
#include <limits.h>

#include "btree/tree.h"

#define MAX_WRITE (UINT32_C(1) << 20) /* bytes in one request */

/* ---- sealing ---- */

static void seal_frame(struct tree *t, struct frame *fr);

static void seal_children(struct tree *t, struct frame *fr)
{
	struct forest *f = t->forest;
	struct cowfs_disk_child *c = node_children(fr->buf);
	unsigned n = nr(fr->buf);

	for (unsigned i = 0; i < n; i++) {
		struct frame *child;

		if (from_le64(c[i].ptr.gen) != f->gen)
			continue;
		child = cache_find(f, from_le64(c[i].ptr.blk), f->gen);
		assert(child && child->level + 1 == fr->level);
		seal_frame(t, child);
		c[i].ptr.csum = to_le32(child->csum);
	}
}

/* Recursion is bounded by the level, which falls. */
static void seal_frame(struct tree *t, struct frame *fr)
{
	if (fr->sealed)
		return;
	if (fr->level)
		seal_children(t, fr);
	fr->csum = checksum(0, fr->buf, t->forest->size);
	fr->sealed = true;
}

void tree_seal(struct tree *t)
{
	struct forest *f = t->forest;
	struct frame *root;

	if (!t->root.blk || t->root.gen != f->gen)
		return;
	root = cache_find(f, t->root.blk, t->root.gen);
	assert(root);
	seal_frame(t, root);
	t->root.csum = root->csum;
}

/* ---- the batch ---- */

struct node_batch *forest_close_gen(struct forest *f)
{
	struct node_batch *b = &f->batch;

	assert(!b->forest);
	b->forest = f;
	b->count = f->n_dirty;
	list_init(&b->frames);
	cache_freeze(f, &b->frames);
	f->gen++;
	return b;
}

struct place {
	uint64_t blk;
	void *buf;
};

static int by_blk(const void *a, const void *b)
{
	const struct place *x = a;
	const struct place *y = b;

	return x->blk < y->blk ? -1 : x->blk > y->blk;
}

/* Nodes from at[0] on that lie next to each other, at most one request. */
static size_t run_length(const struct forest *f, const struct place *at,
			 size_t n)
{
	size_t max = min_u64(n, MAX_WRITE / f->size);
	size_t i = 1;

	while (i < max && at[i].blk == at[i - 1].blk + f->node_blocks)
		i++;
	return i;
}

static int write_places(struct forest *f, struct place *at, size_t n)
{
	struct iovec iov[MAX_WRITE / COWFS_MIN_NODE_SIZE];

	_Static_assert(ARRAY_SIZE(iov) <= IOV_MAX, "one request");
	qsort(at, n, sizeof(*at), by_blk);
	while (n) {
		size_t run = run_length(f, at, n);
		int err;

		for (size_t i = 0; i < run; i++)
			iov[i] = (struct iovec){ .iov_base = at[i].buf,
						 .iov_len = f->size };
		err = block_writev(f->cfg.io, at->blk, iov, (int)run);
		if (err)
			return err;
		at += run;
		n -= run;
	}
	return 0;
}

/* First or second copies; *n: how many there are. at: room for as many, or NULL:
 * without memory to put them in order each is written by itself. */
static int write_copies(struct forest *f, const struct list *frames,
			bool second, struct place *at, size_t *n)
{
	struct list *e;

	*n = 0;
	list_for_each(e, frames) {
		const struct frame *fr = list_entry(e, struct frame, link);
		struct place one = { .blk = second ? fr->blk2 : fr->blk,
				     .buf = fr->buf };
		int err = 0;

		if (!one.blk)
			continue;
		if (at)
			at[*n] = one;
		else
			err = write_places(f, &one, 1);
		if (err)
			return err;
		++*n;
	}
	return at && *n ? write_places(f, at, *n) : 0;
}

static int write_frames(struct forest *f, const struct list *frames,
			size_t count, uint64_t *bytes)
{
	struct place *at = malloc(count * sizeof(*at));
	size_t first, second = 0;
	int err = write_copies(f, frames, false, at, &first);

	if (!err)
		err = write_copies(f, frames, true, at, &second);
	free(at);
	*bytes = err ? 0 : (uint64_t)(first + second) * f->size;
	return err;
}

int node_batch_write(struct node_batch *b, uint64_t *bytes)
{
	*bytes = 0;
	return b->count ? write_frames(b->forest, &b->frames, b->count, bytes) :
			  0;
}

int forest_write(struct forest *f)
{
	uint64_t bytes;

	return f->n_dirty ? write_frames(f, &f->dirty, f->n_dirty, &bytes) : 0;
}

void node_batch_done(struct node_batch *b, bool durable)
{
	if (!b)
		return;
	cache_thaw(b->forest, &b->frames, durable);
	b->forest = NULL;
}
