/*
 * pending.c - blocks that were freed, and when they may be used again
 *
 *	running --close--> closed --durable--> limbo --readers gone--> free
 *	fresh --------------------------------'
 *
 * Batches are plain arrays of extents: what is freed together mostly lies
 * together, and comes in order, so that the last extent grows. A batch may
 * always wait longer than it must, never shorter: where memory for a new batch
 * is missing, the old one just goes on.
 */
#include "alloc/private.h"

#define POLL_FREES 1024   /* look at limbo every so many frees */
#define RELEASE_PIECE 4096 /* extents; then let others have the lock */

static struct batch *batch_new(void)
{
	struct batch *b = calloc(1, sizeof(*b));

	if (b)
		list_init(&b->link);
	return b;
}

static void batch_free(struct batch *b)
{
	if (!b)
		return;
	free(b->v);
	free(b);
}

static int batch_reserve(struct batch *b)
{
	size_t room = b->room ? b->room * 2 : 16;
	struct extent *v;

	if (b->count < b->room)
		return 0;
	v = realloc(b->v, room * sizeof(*v));
	if (!v)
		return -ENOMEM;
	b->v = v;
	b->room = room;
	return 0;
}

static void batch_add(struct batch *b, uint64_t start, uint64_t len)
{
	struct extent *last = b->count ? &b->v[b->count - 1] : NULL;

	if (last && last->start + last->len == start) {
		last->len += len;
	} else if (last && start + len == last->start) {
		last->start = start;
		last->len += len;
	} else {
		assert(b->count < b->room);
		b->v[b->count++] = (struct extent){ start, len };
	}
}

int pending_init(struct alloc *a)
{
	a->running = batch_new();
	a->fresh = batch_new();
	return a->running && a->fresh ? 0 : -ENOMEM;
}

static void list_drain(struct list *head)
{
	struct list *e, *tmp;

	list_for_each_safe(e, tmp, head)
		batch_free(list_entry(e, struct batch, link));
	list_init(head);
}

void pending_fini(struct alloc *a)
{
	batch_free(a->running);
	batch_free(a->fresh);
	list_drain(&a->closed);
	list_drain(&a->limbo);
}

/* ---- on the way to limbo, and out of it ---- */

static void to_limbo(struct alloc *a, struct batch *b)
{
	b->stamp = grace_stamp(a->grace);
	list_append(&a->limbo, &b->link);
}

static void fresh_to_limbo(struct alloc *a)
{
	struct batch *b;

	if (!a->fresh->count)
		return;
	b = batch_new();
	if (!b)
		return;
	to_limbo(a, a->fresh);
	a->fresh = b;
}

/* May the two newest superblocks, or a hold, still need these? */
static bool settled(const struct alloc *a, const struct batch *b, bool unhold)
{
	if (b->gen >= a->durable)
		return false;
	return unhold || !a->holds || a->hold_broken || b->gen <= a->hold_gen;
}

/* True if there was one that only a hold kept. */
static bool closed_to_limbo(struct alloc *a, bool unhold)
{
	struct list *e, *tmp;
	bool held = false;

	list_for_each_safe(e, tmp, &a->closed) {
		struct batch *b = list_entry(e, struct batch, link);

		if (!settled(a, b, unhold))
			break; /* in order: all the others are younger */
		held |= !settled(a, b, false);
		list_remove(e);
		to_limbo(a, b);
	}
	return held;
}

/* Free at most max extents of a batch; false: no memory for it now. */
static bool batch_release(struct alloc *a, struct batch *b, size_t *max)
{
	for (; b->count && *max; --*max) {
		struct extent *e = &b->v[b->count - 1];

		if (space_reserve(a, BUSY, e->start, e->len))
			return false;
		space_fill(a, BUSY, e->start, e->len, false);
		a->pending -= e->len;
		b->count--;
	}
	return true;
}

/* True if max was reached before the end of what could be released. */
static bool release(struct alloc *a, size_t max)
{
	struct batch *b;

	a->frees = 0;
	while (!list_empty(&a->limbo)) {
		b = list_entry(a->limbo.next, struct batch, link);
		if (!grace_passed(a->grace, b->stamp))
			return false;
		if (!batch_release(a, b, &max))
			return false;
		if (b->count)
			return true;
		list_remove(&b->link);
		batch_free(b);
	}
	return false;
}

int pending_reserve(struct alloc *a, bool fresh)
{
	return batch_reserve(fresh ? a->fresh : a->running);
}

void pending_add(struct alloc *a, uint64_t blk, uint64_t len, bool fresh)
{
	batch_add(fresh ? a->fresh : a->running, blk, len);
	a->pending += len;
	if (fresh && ++a->frees >= POLL_FREES) {
		fresh_to_limbo(a);
		(void)release(a, RELEASE_PIECE);
	}
}

bool pending_reclaim(struct alloc *a, bool break_hold)
{
	uint64_t before = a->pending;

	if (break_hold) {
		if (!a->holds || a->hold_broken || !closed_to_limbo(a, true))
			return false;
		a->hold_broken = true;
	}
	fresh_to_limbo(a);
	(void)release(a, SIZE_MAX);
	return a->pending != before;
}

/* ---- generations ---- */

void alloc_close(struct alloc *a, uint64_t gen)
{
	struct batch *b;

	mutex_lock(&a->lock);
	assert(gen == a->gen);
	if (a->running->count) {
		b = batch_new();
		if (b) {
			a->running->gen = gen;
			list_append(&a->closed, &a->running->link);
			a->running = b;
		}
	}
	a->gen = gen + 1;
	policy_new_gen(a);
	a->logged = false;
	mutex_unlock(&a->lock);
}

void alloc_durable(struct alloc *a, uint64_t gen)
{
	bool more;

	mutex_lock(&a->lock);
	a->durable = max_u64(a->durable, gen);
	(void)closed_to_limbo(a, false);
	fresh_to_limbo(a);
	do {
		more = release(a, RELEASE_PIECE);
		if (more) {
			mutex_unlock(&a->lock);
			mutex_lock(&a->lock);
		}
	} while (more);
	mutex_unlock(&a->lock);
}

/* ---- holds ---- */

/*
 * The durable state D names what was freed in D + 1 and later. One more is
 * held, in case the store is just about to call alloc_durable for a state
 * that it does not show yet.
 */
void alloc_hold(struct alloc *a)
{
	mutex_lock(&a->lock);
	if (!a->holds++) {
		a->hold_gen = a->durable ? a->durable - 1 : 0;
		a->hold_broken = false;
	}
	mutex_unlock(&a->lock);
}

void alloc_unhold(struct alloc *a)
{
	mutex_lock(&a->lock);
	assert(a->holds);
	if (!--a->holds) {
		a->hold_broken = false;
		(void)closed_to_limbo(a, false);
	}
	mutex_unlock(&a->lock);
}

bool alloc_hold_broken(struct alloc *a)
{
	bool broken;

	mutex_lock(&a->lock);
	broken = a->hold_broken;
	mutex_unlock(&a->lock);
	return broken;
}

void alloc_logged(struct alloc *a)
{
	mutex_lock(&a->lock);
	a->logged = true;
	mutex_unlock(&a->lock);
}
