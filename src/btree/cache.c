/*
 * cache.c - nodes in memory: found, loaded, frozen, evicted
 *
 * Frames live in one hash table and, by state, in one of a few lists. Clean
 * ones form a clock: the hand takes from the front of the list, and what was
 * used since it last came by goes to the back. Eviction needs the exclusive
 * tree lock, as readers hold plain pointers; it is done in batches, so that a
 * scan through a tree larger than the cache takes that lock rarely, and only by
 * those who made the cache grow (forest_load, node_batch_done).
 *
 * Spare frames keep their buffers. Those who load nodes leave alone the ones
 * that changes rely on (forest_spare).
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "btree/cache.h"

#define MIN_CACHE_NODES 64u
#define EVICT_BATCH 256u

/* What the last -EAGAIN of this thread wanted: between that and forest_load
 * the caller has only dropped a lock. */
struct wanted {
	struct forest *forest;
	struct nptr ptr;
	struct key lo, hi;
	bool has_hi;
	uint8_t kind;
	unsigned ahead; /* how many leaves are wanted next, probably */
	uint64_t next[AHEAD_MAX];
};

static _Thread_local struct wanted wanted;

/* ---- buffers ---- */

/*
 * Cut from slabs, used again, and freed with the forest. Left to malloc (glibc
 * 2.36), whose holes of just that size are no good for what is to be aligned, a
 * daemon with a cache of 32 MiB had 100 MiB in such holes after ten minutes.
 */
#define SLAB_BYTES ((size_t)1 << 20)

struct slab {
	struct slab *next;
	char *mem;
};

/* A sanitizer sees what is used after it was freed in buffers that are. */
#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define KEEP_BUFS false
#else
#define KEEP_BUFS true
#endif

/* L */
static bool slab_add(struct forest *f)
{
	struct slab *slab = malloc(sizeof(*slab));

	if (!slab)
		return false;
	slab->mem = aligned_alloc(COWFS_BLOCK_SIZE, SLAB_BYTES);
	if (!slab->mem) {
		free(slab);
		return false;
	}
	slab->next = f->slabs;
	f->slabs = slab;
	f->slab_left = SLAB_BYTES;
	return true;
}

/* L: from what was never used of the last slab. */
static void *slab_cut(struct forest *f)
{
	if (f->slab_left < f->size && !slab_add(f))
		return NULL;
	f->slab_left -= f->size;
	return f->slabs->mem + f->slab_left;
}

/* L */
static void *buf_take(struct forest *f)
{
	void *buf = f->bufs;

	if (!KEEP_BUFS)
		return aligned_alloc(COWFS_BLOCK_SIZE, f->size);
	if (!buf)
		return slab_cut(f);
	memcpy(&f->bufs, buf, sizeof(f->bufs));
	return buf;
}

/* L */
static void buf_put(struct forest *f, void *buf)
{
	if (!KEEP_BUFS) {
		free(buf);
		return;
	}
	memcpy(buf, &f->bufs, sizeof(f->bufs));
	f->bufs = buf;
}

static void free_slabs(struct forest *f)
{
	struct slab *next;

	for (struct slab *slab = f->slabs; slab; slab = next) {
		next = slab->next;
		free(slab->mem);
		free(slab);
	}
}

/* ---- frames ---- */

static struct frame *frame_alloc(struct forest *f)
{
	struct frame *fr = calloc(1, sizeof(*fr));

	if (!fr)
		return NULL;
	mutex_lock(&f->lock);
	fr->buf = buf_take(f);
	mutex_unlock(&f->lock);
	if (!fr->buf) {
		free(fr);
		return NULL;
	}
	list_init(&fr->link);
	return fr;
}

/* L */
static void frame_free(struct forest *f, struct frame *fr)
{
	buf_put(f, fr->buf);
	free(fr);
}

/* L: a frame that nobody uses any more. */
static void put_spare_locked(struct forest *f, struct frame *fr)
{
	size_t keep = max_u64(f->spare_want, MIN_CACHE_NODES);

	if (f->n_spare >= keep) {
		frame_free(f, fr);
		return;
	}
	fr->state = FRAME_SPARE;
	list_push(&f->spare, &fr->link);
	f->n_spare++;
}

/* A frame from the spare ones if more than `leave` are there, or a new one. */
static struct frame *get_spare(struct forest *f, size_t leave)
{
	struct frame *fr = NULL;

	mutex_lock(&f->lock);
	if (f->n_spare > leave) {
		fr = list_entry(f->spare.next, struct frame, link);
		list_remove(&fr->link);
		f->n_spare--;
	}
	mutex_unlock(&f->lock);
	return fr ? fr : frame_alloc(f);
}

static void put_spare(struct forest *f, struct frame *fr)
{
	mutex_lock(&f->lock);
	put_spare_locked(f, fr);
	mutex_unlock(&f->lock);
}

static int fill_spare(struct forest *f, size_t n)
{
	struct frame *fr;
	size_t have;

	for (;;) {
		mutex_lock(&f->lock);
		have = f->n_spare;
		mutex_unlock(&f->lock);
		if (have >= n)
			return 0;
		fr = frame_alloc(f);
		if (!fr)
			return -ENOMEM;
		mutex_lock(&f->lock);
		list_push(&f->spare, &fr->link);
		f->n_spare++;
		mutex_unlock(&f->lock);
	}
}

int forest_spare(struct forest *f, unsigned n)
{
	mutex_lock(&f->lock);
	if (f->spare_want < n)
		f->spare_want = n;
	mutex_unlock(&f->lock);
	return fill_spare(f, n);
}

int cache_reserve(struct forest *f, size_t n)
{
	return fill_spare(f, n);
}

/* ---- the table ---- */

/* L */
static void table_add(struct forest *f, struct frame *fr)
{
	struct frame *_Atomic *head = &f->table[frame_hash(f, fr->blk)];

	fr->next = atomic_load_explicit(head, memory_order_relaxed);
	atomic_store_explicit(head, fr, memory_order_release);
}

/* W and L */
static void table_remove(struct forest *f, struct frame *fr)
{
	struct frame *_Atomic *head = &f->table[frame_hash(f, fr->blk)];
	struct frame *at = atomic_load_explicit(head, memory_order_relaxed);

	if (at == fr) {
		atomic_store_explicit(head, fr->next, memory_order_relaxed);
		return;
	}
	while (at->next != fr)
		at = at->next;
	at->next = fr->next;
}

/* W and L: twice the buckets; if there is no memory chains get longer. */
static void table_grow(struct forest *f)
{
	size_t old = f->mask + 1;
	struct frame *_Atomic *from = f->table;
	struct frame *_Atomic *to = calloc(old * 2, sizeof(*to));

	if (!to)
		return;
	f->table = to;
	f->mask = old * 2 - 1;
	for (size_t i = 0; i < old; i++) {
		struct frame *fr = atomic_load_explicit(&from[i],
							memory_order_relaxed);

		while (fr) {
			struct frame *next = fr->next;

			table_add(f, fr);
			fr = next;
		}
	}
	free(from);
}

static size_t in_table_locked(const struct forest *f)
{
	return f->n_clean + f->n_dirty + f->n_frozen;
}

/* ---- dirty, frozen, gone ---- */

struct frame *cache_new_dirty(struct forest *f, uint64_t blk, uint64_t blk2)
{
	struct frame *fr = get_spare(f, 0);

	if (!fr)
		return NULL;
	fr->blk = blk;
	fr->blk2 = blk2;
	fr->gen = f->gen;
	fr->state = FRAME_DIRTY;
	fr->dead = false;
	fr->sealed = false;
	fr->seq_slot = fr->seq_run = 0;
	atomic_store_explicit(&fr->used, true, memory_order_relaxed);
	mutex_lock(&f->lock);
	if (in_table_locked(f) > f->mask)
		table_grow(f);
	list_append(&f->dirty, &fr->link);
	f->n_dirty++;
	table_add(f, fr);
	mutex_unlock(&f->lock);
	return fr;
}

void cache_drop(struct forest *f, struct frame *fr)
{
	mutex_lock(&f->lock);
	table_remove(f, fr);
	if (fr->state == FRAME_FROZEN) {
		fr->dead = true; /* still being written */
	} else {
		list_remove(&fr->link);
		if (fr->state == FRAME_DIRTY)
			f->n_dirty--;
		else
			f->n_clean--;
		put_spare_locked(f, fr);
	}
	mutex_unlock(&f->lock);
}

void cache_freeze(struct forest *f, struct list *to)
{
	struct list *e;

	mutex_lock(&f->lock);
	list_for_each(e, &f->dirty)
		list_entry(e, struct frame, link)->state = FRAME_FROZEN;
	list_splice(to, &f->dirty);
	f->n_frozen += f->n_dirty;
	f->n_dirty = 0;
	mutex_unlock(&f->lock);
}

/* W: evict up to n clean frames beyond the limit. */
static void evict(struct forest *f, size_t n)
{
	size_t looks = 0;

	mutex_lock(&f->lock);
	/* twice around: the first time may only find used ones */
	for (looks = 2 * f->n_clean; n && looks && f->n_clean > f->limit;
	     looks--) {
		struct frame *fr = list_entry(f->clean.next, struct frame,
					      link);

		list_remove(&fr->link);
		if (atomic_exchange_explicit(&fr->used, false,
					     memory_order_relaxed)) {
			list_append(&f->clean, &fr->link);
			continue;
		}
		table_remove(f, fr);
		f->n_clean--;
		put_spare_locked(f, fr);
		atomic_fetch_add_explicit(&f->evicted, 1,
					  memory_order_relaxed);
		n--;
	}
	mutex_unlock(&f->lock);
}

static bool over_limit(struct forest *f, size_t slack)
{
	bool over;

	mutex_lock(&f->lock);
	over = f->n_clean > f->limit + slack;
	mutex_unlock(&f->lock);
	return over;
}

/* N: once the cache is a bit too large bring it down to its limit; the lock is
 * not held for long at a time. */
static void shrink(struct forest *f)
{
	size_t slack = min_u64(f->limit / 16, EVICT_BATCH);

	if (!f->tree_lock || !over_limit(f, slack))
		return;
	do {
		f->tree_lock(f->lock_arg);
		evict(f, EVICT_BATCH);
		f->tree_unlock(f->lock_arg);
	} while (over_limit(f, EVICT_BATCH));
}

void cache_thaw(struct forest *f, struct list *from, bool ok)
{
	struct list *e, *tmp;

	mutex_lock(&f->lock);
	list_for_each_safe(e, tmp, from) {
		struct frame *fr = list_entry(e, struct frame, link);

		list_remove(&fr->link);
		if (!ok && !fr->dead) {
			/* the device does not have it: memory must */
			list_append(&f->lost, &fr->link);
			continue;
		}
		f->n_frozen--;
		if (fr->dead) {
			put_spare_locked(f, fr);
			continue;
		}
		fr->state = FRAME_CLEAN;
		list_append(&f->clean, &fr->link);
		f->n_clean++;
	}
	mutex_unlock(&f->lock);
	shrink(f);
}

/* ---- loading ---- */

int cache_want(struct forest *f, const struct nptr *p, uint8_t kind,
	       const struct key *lo, const struct key *hi, const void *parent,
	       unsigned slot)
{
	struct wanted *w = &wanted;

	w->forest = f;
	w->ptr = *p;
	w->lo = *lo;
	w->has_hi = hi != NULL;
	if (hi)
		w->hi = *hi;
	w->kind = kind;
	w->ahead = parent ? ahead_find(f, parent, slot, w->next) : 0;
	return -EAGAIN;
}

int cache_read(struct forest *f, const struct nptr *p, uint8_t kind,
	       const struct key *lo, const struct key *hi, void *buf)
{
	struct copies at = { .a = p->blk, .b = p->blk2 };
	char why[160];
	int err;

	err = block_read_node(f->cfg.io, at, f->node_blocks, p->csum, buf);
	if (err)
		return err;
	err = node_verify(buf, f->size, p, kind, f->cfg.uuid, lo, hi, why,
			  sizeof(why));
	if (err)
		return report(err, "node at block %" PRIu64 ": %s", p->blk,
			      why);
	return 0;
}

/* L not held: make fr findable unless another thread was faster. */
static bool add_clean(struct forest *f, struct frame *fr)
{
	struct frame *at;

	mutex_lock(&f->lock);
	at = cache_find(f, fr->blk, fr->gen);
	if (!at) {
		fr->state = FRAME_CLEAN;
		list_append(&f->clean, &fr->link);
		f->n_clean++;
		table_add(f, fr);
	}
	mutex_unlock(&f->lock);
	return !at;
}

int forest_load(struct forest *f)
{
	struct wanted *w = &wanted;
	struct frame *fr;
	size_t leave;
	int err;

	if (w->forest != f)
		return 0;
	w->forest = NULL;
	mutex_lock(&f->lock);
	leave = f->spare_want;
	mutex_unlock(&f->lock);
	fr = get_spare(f, leave);
	if (!fr)
		return -ENOMEM;
	atomic_fetch_add_explicit(&f->misses, 1, memory_order_relaxed);
	/* first: the device is busy with them while this one is read */
	ahead_tell(f, w->next, w->ahead);
	err = cache_read(f, &w->ptr, w->kind, &w->lo, w->has_hi ? &w->hi : NULL,
			 fr->buf);
	if (err) {
		put_spare(f, fr);
		return err;
	}
	fr->blk = w->ptr.blk;
	fr->blk2 = w->ptr.blk2;
	fr->gen = w->ptr.gen;
	fr->csum = w->ptr.csum;
	fr->level = w->ptr.level;
	fr->kind = w->kind;
	fr->dead = fr->sealed = false;
	fr->seq_slot = fr->seq_run = 0;
	atomic_store_explicit(&fr->used, true, memory_order_relaxed);
	if (!add_clean(f, fr))
		put_spare(f, fr);
	shrink(f);
	return 0;
}

bool cache_copy(struct forest *f, const struct nptr *p, uint8_t kind,
		void *buf)
{
	struct frame *fr;
	bool found;

	mutex_lock(&f->lock);
	fr = cache_find(f, p->blk, p->gen);
	found = fr && fr->state != FRAME_DIRTY && fr->csum == p->csum &&
		fr->level == p->level && fr->kind == kind;
	if (found)
		memcpy(buf, fr->buf, f->size);
	mutex_unlock(&f->lock);
	return found;
}

/* ---- the forest itself ---- */

static bool config_ok(const struct forest_config *cfg)
{
	uint32_t s = cfg->node_size;

	return s >= COWFS_MIN_NODE_SIZE && s <= COWFS_MAX_NODE_SIZE &&
	       !(s & (s - 1)) && (cfg->copies == 1 || cfg->copies == 2);
}

int forest_new(const struct forest_config *cfg, struct forest **out)
{
	struct forest *f;
	size_t buckets = 256;

	if (!config_ok(cfg))
		return -EINVAL;
	f = aligned_alloc(64, (sizeof(*f) + 63) / 64 * 64);
	if (!f)
		return -ENOMEM;
	memset(f, 0, sizeof(*f));
	f->cfg = *cfg;
	f->size = cfg->node_size;
	f->node_blocks = cfg->node_size / COWFS_BLOCK_SIZE;
	f->gen = cfg->gen;
	f->limit = max_u64(cfg->cache_bytes / f->size, MIN_CACHE_NODES);
	while (buckets < f->limit && buckets < SIZE_MAX / 4 / sizeof(void *))
		buckets *= 2;
	f->table = calloc(buckets, sizeof(*f->table));
	if (!f->table) {
		free(f);
		return -ENOMEM;
	}
	f->mask = buckets - 1;
	mutex_init(&f->lock, LOCK_LEAF);
	list_init(&f->clean);
	list_init(&f->dirty);
	list_init(&f->spare);
	list_init(&f->lost);
	*out = f;
	return 0;
}

static void free_list(struct forest *f, struct list *l)
{
	struct list *e, *tmp;

	list_for_each_safe(e, tmp, l)
		frame_free(f, list_entry(e, struct frame, link));
}

void forest_free(struct forest *f)
{
	if (!f)
		return;
	free_list(f, &f->clean);
	free_list(f, &f->dirty);
	free_list(f, &f->spare);
	free_list(f, &f->lost);
	free_slabs(f);
	mutex_fini(&f->lock);
	free(f->table);
	free(f);
}

void forest_set_lock(struct forest *f, void (*lock)(void *arg),
		     void (*unlock)(void *arg), void *arg)
{
	f->tree_lock = lock;
	f->tree_unlock = unlock;
	f->lock_arg = arg;
}

void forest_set_note(struct forest *f,
		     void (*note)(void *arg, const struct key *k), void *arg)
{
	f->note = note;
	f->note_arg = arg;
}

uint32_t forest_node_size(const struct forest *f)
{
	return f->size;
}

uint64_t forest_gen(const struct forest *f)
{
	return f->gen;
}

uint64_t forest_changes(const struct forest *f)
{
	return f->changes;
}

size_t forest_dirty(const struct forest *f)
{
	return f->n_dirty * f->size;
}

/* Spread over cache lines: readers on several CPUs count at the same time. */
void cache_count_hit(struct forest *f, unsigned n)
{
	static _Atomic unsigned threads;
	static _Thread_local unsigned mine;

	if (!mine)
		mine = 1 + atomic_fetch_add(&threads, 1) % HIT_STRIPES;
	atomic_fetch_add_explicit(&f->hits[mine - 1].n, n,
				  memory_order_relaxed);
}

void forest_stats(struct forest *f, struct forest_stats *out)
{
	struct forest_stats st = {
		.misses = atomic_load(&f->misses),
		.evicted = atomic_load(&f->evicted),
		.cow_copies = atomic_load(&f->cow_copies),
		.splits = atomic_load(&f->splits),
		.merges = atomic_load(&f->merges),
		.limit = f->limit * f->size,
	};

	for (unsigned i = 0; i < HIT_STRIPES; i++)
		st.hits += atomic_load(&f->hits[i].n);
	mutex_lock(&f->lock);
	st.nodes = in_table_locked(f);
	st.bytes = (st.nodes + f->n_spare) * f->size;
	st.dirty_bytes = f->n_dirty * f->size;
	mutex_unlock(&f->lock);
	*out = st;
}
