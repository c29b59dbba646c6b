/*
 * drop.c - letting go of a file tree in the background
 *
 * A DROP record stands for one reference to a node. One step of the work takes
 * the first record and does a bounded piece of it in one operation:
 *
 *   D1  The node has other references: it loses this one; the record goes.
 *   D2  It has none. Its references go with it: children first, a batch at a
 *       time, `next` in the record says how far. A child with other references
 *       loses one; a leaf without is read and freed with its extents; an inner
 *       node without gets a record of its own (started: nobody else refers to
 *       it, and nobody can begin to).
 *   D3  All children are gone: the node is freed and its record removed.
 *
 *   D4  No more is let go of than a commit can write down with what space is
 *       left, though nothing is kept from this work: on a full disk a batch is
 *       as small as it must be, and committed before the next one.
 *
 * Each step is complete in itself, so a crash repeats nothing. A node that can't
 * be read keeps its record; it is passed over until the next mount, and fsck
 * deals with it.
 */
#include <inttypes.h>

#include "snapshot/private.h"

#define BATCH_CHILDREN 128u
#define BATCH_LEAVES 16u
/* Steps, and what they let go of, between commits: it is gathered in memory, and
 * written down while operations are kept out (some 3 us for each change). Who
 * asks for a commit meanwhile waits for that, too. */
#define COMMIT_STEPS 32u
#define COMMIT_CHANGES 4096u
/* Of the smallest item that refers to anything, with its key. */
#define ITEM_BYTES 64u

struct dropper {
	struct store *s;
	struct key from; /* records before it could not be read this time */
	unsigned steps;  /* since it last asked for a commit */
};

struct record {
	struct key key;
	struct nptr ptr;
	uint32_t next;
	bool started;
};

/* A child of the node at hand, looked at before the operation. */
struct child {
	struct nptr ptr;
	struct key lo, hi;
	bool bounded; /* hi counts */
	bool shared;
	void *leaf;   /* its bytes, if it is an unshared leaf */
};

struct step {
	struct store *s;
	struct record rec;
	void *node;
	struct child *child;
	unsigned children, leaves;
};

int snap_drop_from_item(const struct key *k, const struct item *it,
			struct nptr *ptr, uint32_t *next, bool *started)
{
	const struct cowfs_disk_drop *d = it->data;
	struct nptr p;

	if (it->len != sizeof(*d))
		return report(-ECOW_CORRUPT, "drop record of %" PRIu64
			      ": wrong length", k->off);
	p = nptr_from_disk(&d->ptr);
	/* bounded: who goes on behind it counts up */
	if (p.blk != k->off || p.blk >= COWFS_MAX_BLOCKS ||
	    p.level > COWFS_MAX_LEVEL || d->started > 1)
		return report(-ECOW_CORRUPT, "drop record of %" PRIu64
			      ": impossible", k->off);
	*ptr = p;
	*next = from_le32(d->next);
	*started = d->started;
	return 0;
}

static uint64_t node_blocks(const struct store *s)
{
	return forest_node_size(s->forest) / COWFS_BLOCK_SIZE;
}

static int put_record(struct store *s, const struct nptr *ptr, uint32_t next,
		      bool started)
{
	struct key k = DROP_KEY(ptr->blk);
	struct cowfs_disk_drop d = { .ptr = nptr_to_disk(ptr),
				     .next = to_le32(next),
				     .started = started };

	return tree_put(&s->snap, &k, &d, sizeof(d));
}

int drop_add(struct store *s, const struct nptr *root, bool started)
{
	struct key k = DROP_KEY(root->blk);
	struct item it;
	int err;

	if (root->blk == 0)
		return 0;
	err = tree_get(&s->snap, &k, &it);
	if (err == -ENOENT)
		return put_record(s, root, 0, started);
	if (err)
		return err;
	/* One record is there: two references to lose, one of them at once. */
	return alloc_ref(s->alloc, root->blk, node_blocks(s), -1, root->blk2);
}

/* ---- looking, before the operation ---- */

static int find_record(struct store *s, const struct key *from,
		       struct record *out)
{
	struct cursor c;
	int err = cursor_ceil(&c, &s->snap, from);

	if (err)
		return err;
	if (c.key.obj != 0 || c.key.type != COWFS_KEY_DROP)
		return -ENOENT;
	out->key = c.key;
	return snap_drop_from_item(&c.key, &c.item, &out->ptr, &out->next,
				   &out->started);
}

static int is_shared(struct store *s, uint64_t blk, bool *shared)
{
	uint32_t extra;
	int err = alloc_extra(s->alloc, &s->refs_space, blk, &extra, NULL);

	if (!err)
		*shared = extra > 0;
	return err;
}

/* References that a leaf may hold. */
static uint64_t leaf_refs(const struct store *s)
{
	return forest_node_size(s->forest) / ITEM_BYTES;
}

/* Which children come next, and who else refers to them; one at least (D4). */
static int look_at_children(struct step *st)
{
	unsigned i, n = node_count(st->node), at = st->rec.next;
	uint64_t room = alloc_ref_room(st->s->alloc), refs = 0;
	int err = 0;

	st->children = st->leaves = 0;
	for (i = at; i < n && st->children < BATCH_CHILDREN; i++) {
		struct child *c = &st->child[st->children];

		c->ptr = node_child(st->node, i);
		c->lo = node_key(st->node, i);
		c->bounded = i + 1 < n;
		if (c->bounded)
			c->hi = node_key(st->node, i + 1);
		err = is_shared(st->s, c->ptr.blk, &c->shared);
		if (err)
			return err;
		refs += c->shared ? 1 : leaf_refs(st->s);
		if ((!c->shared && st->leaves == BATCH_LEAVES) ||
		    (st->children && refs > room))
			break;
		st->leaves += !c->shared;
		st->children++;
	}
	return 0;
}

static int read_leaves(struct step *st)
{
	uint32_t size = forest_node_size(st->s->forest);
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < st->children; i++) {
		struct child *c = &st->child[i];

		if (c->shared || c->ptr.level > 0)
			continue;
		c->leaf = aligned_alloc(COWFS_BLOCK_SIZE, size);
		if (!c->leaf)
			return -ENOMEM;
		err = node_read(st->s->forest, &c->ptr, COWFS_ROOT_FS, &c->lo,
				c->bounded ? &c->hi : NULL, true, c->leaf);
	}
	return err;
}

static void forget_leaves(struct step *st)
{
	unsigned i;

	for (i = 0; i < BATCH_CHILDREN; i++) {
		free(st->child[i].leaf);
		st->child[i].leaf = NULL;
	}
}

/* ---- the operation ---- */

static int drop_extent(void *arg, const struct node_ref *ref)
{
	struct store *s = arg;

	return alloc_ref(s->alloc, ref->blk, ref->len, -1, ref->blk2);
}

static void free_node(struct store *s, const struct nptr *p)
{
	alloc_free(s->alloc, p->blk, node_blocks(s), p->gen);
	if (p->blk2)
		alloc_free(s->alloc, p->blk2, node_blocks(s), p->gen);
}

/* All references that an unshared leaf holds, then the leaf. */
static int drop_leaf(struct store *s, const struct nptr *p, const void *leaf)
{
	int err = node_for_each_ref(leaf, forest_node_size(s->forest),
				    drop_extent, s);

	if (!err)
		free_node(s, p);
	return err;
}

static int drop_child(struct step *st, const struct child *c)
{
	struct store *s = st->s;

	if (c->shared)
		return alloc_ref(s->alloc, c->ptr.blk, node_blocks(s), -1,
				 c->ptr.blk2);
	if (c->leaf)
		return drop_leaf(s, &c->ptr, c->leaf);
	return drop_add(s, &c->ptr, true);
}

/* Is what was seen still so? Only sharedness can have changed (the live tree
 * copies nodes); st->children is cut where it did. */
static int confirm(struct step *st)
{
	struct store *s = st->s;
	struct record now;
	struct key k;
	unsigned i;
	bool shared;
	int err;

	err = find_record(s, &st->rec.key, &now);
	if (!err)
		err = tree_prepare(&s->snap, &st->rec.key);
	for (i = 0; !err && i < st->children; i++) {
		struct child *c = &st->child[i];

		err = is_shared(s, c->ptr.blk, &shared);
		if (!err && shared != c->shared) {
			st->children = i;
			break;
		}
		if (!err && !shared && c->ptr.level > 0) {
			k = DROP_KEY(c->ptr.blk);
			err = tree_prepare(&s->snap, &k);
		}
	}
	return err;
}

static int drop_children(struct step *st)
{
	struct store *s = st->s;
	uint32_t next;
	unsigned i;
	int err;

	err = confirm(st);
	if (err)
		return err;
	next = st->rec.next + st->children;
	if (next < node_count(st->node))
		err = put_record(s, &st->rec.ptr, next, true);
	else
		err = tree_delete(&s->snap, &st->rec.key);
	for (i = 0; !err && i < st->children; i++)
		err = drop_child(st, &st->child[i]);
	if (!err && next == node_count(st->node))
		free_node(s, &st->rec.ptr);
	return err;
}

/* The root of a tree that is one leaf. */
static int drop_root_leaf(struct step *st)
{
	int err = tree_prepare(&st->s->snap, &st->rec.key);

	if (!err)
		err = tree_delete(&st->s->snap, &st->rec.key);
	return err ? err : drop_leaf(st->s, &st->rec.ptr, st->node);
}

/* D1 */
static int drop_one_ref(struct step *st)
{
	struct store *s = st->s;
	bool shared;
	int err;

	err = tree_prepare(&s->snap, &st->rec.key);
	if (!err)
		err = is_shared(s, st->rec.ptr.blk, &shared);
	if (err || !shared)
		return err; /* not shared any more: next time, D2 */
	err = tree_delete(&s->snap, &st->rec.key);
	return err ? err
		   : alloc_ref(s->alloc, st->rec.ptr.blk, node_blocks(s), -1,
			       st->rec.ptr.blk2);
}

static int operate(struct step *st, int (*fn)(struct step *st))
{
	struct op op;
	int err;

	err = op_write(&op, st->s, ALLOC_INTERNAL, 4);
	if (err)
		return err;
	do
		err = fn(st);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* ---- one step ---- */

static int look(struct step *st, const struct key *from, bool *shared)
{
	struct op op;
	int err;

	op_read(&op, st->s);
	do {
		*shared = false;
		err = find_record(st->s, from, &st->rec);
		if (!err && !st->rec.started)
			err = is_shared(st->s, st->rec.ptr.blk, shared);
	} while (op_again(&op, &err));
	return op_end(&op, err);
}

static int plan_children(struct step *st)
{
	struct op op;
	int err;

	op_read(&op, st->s);
	do
		err = look_at_children(st);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	return err ? err : read_leaves(st);
}

/* D2 and D3 */
static int drop_unshared(struct step *st)
{
	struct key lo = KEY_MIN;
	int err;

	err = node_read(st->s->forest, &st->rec.ptr, COWFS_ROOT_FS, &lo, NULL,
			true, st->node);
	if (err)
		return err;
	if (st->rec.ptr.level == 0)
		return operate(st, drop_root_leaf);
	if (st->rec.next > node_count(st->node))
		return report(-ECOW_CORRUPT, "drop record of %" PRIu64
			      ": beyond its node", st->rec.ptr.blk);
	err = plan_children(st);
	return err ? err : operate(st, drop_children);
}

static bool damage(int err)
{
	return err == -ECOW_CSUM || err == -ECOW_CORRUPT || err == -EIO;
}

static int step_new(struct store *s, struct step *st)
{
	*st = (struct step){ .s = s };
	st->node = aligned_alloc(COWFS_BLOCK_SIZE, forest_node_size(s->forest));
	st->child = calloc(BATCH_CHILDREN, sizeof(*st->child));
	return st->node && st->child ? 0 : -ENOMEM;
}

static int drop_step(struct dropper *d)
{
	struct step st;
	bool shared;
	int err;

	err = step_new(d->s, &st);
	if (!err)
		err = look(&st, &d->from, &shared);
	if (!err)
		err = shared ? operate(&st, drop_one_ref) : drop_unshared(&st);
	if (damage(err) && !store_stopped(d->s) && st.rec.ptr.blk) {
		log_msg(LOG_LVL_ERROR,
			"space of a deleted snapshot below node %" PRIu64
			" cannot be freed: %s",
			st.rec.ptr.blk, strerror(-err));
		d->from = st.rec.key;
		d->from.off++;
		err = 0;
	}
	if (st.child)
		forget_leaves(&st);
	free(st.child);
	free(st.node);
	return err;
}

/* Is what was let go of to be written down before there is more? */
static bool commit_first(const struct dropper *d)
{
	uint64_t batch = BATCH_CHILDREN + BATCH_LEAVES * leaf_refs(d->s);
	struct alloc_info info;

	if (!d->steps)
		return false;
	alloc_info(d->s->alloc, &info);
	return d->steps == COMMIT_STEPS || info.gathered >= COMMIT_CHANGES ||
	       alloc_ref_room(d->s->alloc) < batch;
}

/* WORK_DROP */
static int drop_work(void *arg)
{
	struct dropper *d = arg;
	int err = 0;

	if (store_stopped(d->s))
		return 0;
	if (commit_first(d)) {
		d->steps = 0;
		err = store_commit(d->s, NULL, NULL);
	}
	if (!err)
		err = drop_step(d);
	if (!err)
		d->steps++;
	return err == -ENOENT ? 0 : err ? err : 1;
}

int snap_start(struct store *s)
{
	struct dropper *d;

	if (store_readonly(s))
		return 0;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->s = s;
	d->from = DROP_KEY(0);
	store_own(s, d, free);
	store_set_work(s, WORK_DROP, drop_work, d);
	store_wake(s, WORK_DROP);
	return 0;
}

static int count_locked(struct store *s, uint64_t *count)
{
	struct key from = DROP_KEY(0);
	struct cursor c;
	uint64_t n = 0;
	int err;

	for (err = cursor_ceil(&c, &s->snap, &from); !err;
	     err = cursor_next(&c)) {
		if (c.key.obj != 0 || c.key.type != COWFS_KEY_DROP)
			break;
		n++;
	}
	if (err && err != -ENOENT)
		return err;
	*count = n;
	return 0;
}

int snap_drops(struct store *s, uint64_t *count)
{
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = count_locked(s, count);
	while (op_again(&op, &err));
	return op_end(&op, err);
}
