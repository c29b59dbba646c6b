/*
 * scrub_hits.c - which stretches of which files lie on damaged blocks, and
 * which directories name these files
 */
#include "check/scrub_owner.h"

/* Stretches and names that are looked for; more are counted. */
#define HITS_MAX 50000u

/* Stretches that run in parallel to their blocks come together. */
static int by_stretch(const void *a, const void *b)
{
	const struct hit *x = a, *y = b;
	uint64_t dx = x->blk - x->lblk, dy = y->blk - y->lblk;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	if (x->range != y->range)
		return x->range < y->range ? -1 : 1;
	if (dx != dy)
		return dx < dy ? -1 : 1;
	return x->lblk < y->lblk ? -1 : x->lblk > y->lblk;
}

/* h begins in a, or where it ends: then a takes it in. */
static bool absorb(struct hit *a, const struct hit *h)
{
	if (a->ino != h->ino || a->range != h->range ||
	    a->blk - a->lblk != h->blk - h->lblk || h->lblk < a->lblk ||
	    h->lblk > a->lblk + a->len)
		return false;
	a->len = max_u64(a->len, h->lblk + h->len - a->lblk);
	return true;
}

void hits_join(struct array *a)
{
	struct hit *v = a->at;
	size_t n = 0;

	if (!a->n)
		return;
	qsort(v, a->n, sizeof(*v), by_stretch);
	for (size_t i = 1; i < a->n; i++)
		if (!absorb(&v[n], &v[i]))
			v[++n] = v[i];
	a->n = n + 1;
}

static int by_pair(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	if (x[0] != y[0])
		return x[0] < y[0] ? -1 : 1;
	return x[1] < y[1] ? -1 : x[1] > y[1];
}

static int by_word(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Sort, and each only once. */
static void settle(struct array *a, size_t size,
		   int (*cmp)(const void *, const void *))
{
	char *v = a->at;
	size_t n = 0;

	if (!a->n)
		return;
	qsort(v, a->n, size, cmp);
	for (size_t i = 1; i < a->n; i++)
		if (cmp(v + n * size, v + i * size) != 0 && ++n != i)
			memcpy(v + n * size, v + i * size, size);
	a->n = n + 1;
}

static int add_hit(struct owners *o, struct array *to, const struct hit *h)
{
	struct hit *last = to->n ? (struct hit *)to->at + to->n - 1 : NULL;

	if (last && absorb(last, h))
		return 0;
	if (to->n >= HITS_MAX)
		hits_join(to);
	if (to->n >= HITS_MAX) {
		o->untold++;
		return 0;
	}
	last = array_add(to, sizeof(*h));
	if (!last)
		return -ENOMEM;
	*last = *h;
	return 0;
}

/* Those that OW1 lets count. */
int hits_of_extent(struct owners *o, const struct extent_rec *e, uint64_t from,
		   uint64_t to, struct array *out)
{
	const struct damage *v = o->d->list.at;
	int err = 0;

	for (size_t i = damage_at(o->d, from);
	     i < o->d->list.n && v[i].blk < to && !err; i++) {
		uint64_t a = max_u64(from, v[i].blk);
		uint64_t b = min_u64(to, v[i].blk + v[i].blocks);
		struct hit h = { .ino = e->ino, .range = v[i].blk,
				 .lblk = e->lblk + (a - e->blk), .len = b - a,
				 .blk = a };

		if (!v[i].node && e->gen <= v[i].gen)
			err = add_hit(o, out, &h);
	}
	return err;
}

/* ---- the walks ---- */

static int hit_leaf(struct walk *w, const void *node)
{
	struct owners *o = w->c->leaf_arg;
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = w->first_slot; i < n && !err; i++) {
		struct key k = node_key(node, i);
		struct extent_rec e;
		struct item it;

		if (k.type != COWFS_KEY_EXTENT)
			continue;
		it = node_item(node, i, w->c->node_size);
		if (!extent_parse(w->c, &k, &it, &e))
			err = hits_of_extent(o, &e, e.blk, e.blk + e.len,
					     &o->hits);
	}
	return err;
}

static int name_leaf(struct walk *w, const void *node)
{
	struct owners *o = w->c->leaf_arg;
	unsigned n = node_count(node);

	for (unsigned i = w->first_slot; i < n; i++) {
		struct key k = node_key(node, i);
		const struct cowfs_disk_dirent *d;
		struct named *name;
		struct item it;
		uint64_t ino;

		if (k.type != COWFS_KEY_DIRENT)
			continue;
		it = node_item(node, i, w->c->node_size);
		d = it.data;
		if (it.len <= sizeof(*d))
			continue;
		ino = from_le64(d->ino);
		if (!bsearch(&ino, o->inodes.at, o->inodes.n, sizeof(ino),
			     by_word))
			continue;
		if (o->names.n >= HITS_MAX)
			settle(&o->names, sizeof(*name), by_pair);
		if (o->names.n >= HITS_MAX) {
			o->untold++;
			continue;
		}
		name = array_add(&o->names, sizeof(*name));
		if (!name)
			return -ENOMEM;
		*name = (struct named){ .ino = ino, .dir = k.obj };
	}
	return 0;
}

/* All leaves once more; what was met before is forgotten. */
static int walk_again(struct owners *o, leaf_fn *fn)
{
	struct check *c = o->l->c;
	uint64_t blocks = c->map.blocks;
	int err;

	blockmap_fini(&c->map);
	c->snaps.n = c->names.n = c->drops.n = 0;
	c->leaf = fn;
	c->leaf_arg = o;
	c->quiet = true;
	err = blockmap_init(&c->map, blocks);
	return err ? err : check_trees(c);
}

void damage_inodes(const struct damage *d, uint64_t *first, uint64_t *last)
{
	*first = d->lo.obj;
	*last = UINT64_MAX;
	if (!d->has_hi)
		return;
	*last = d->hi.obj;
	/* hi itself lies outside */
	if (*last > *first && d->hi.type <= COWFS_KEY_INODE && !d->hi.off)
		--*last;
}

static int list_inode(struct owners *o, uint64_t ino)
{
	uint64_t *at = array_add(&o->inodes, sizeof(*at));

	if (!at)
		return -ENOMEM;
	*at = ino;
	return 0;
}

/* Whose names are needed. */
static int list_inodes(struct owners *o)
{
	const struct damage *d = o->d->list.at;
	const struct hit *h = o->hits.at;
	int err = 0;

	for (size_t i = 0; i < o->hits.n && !err; i++)
		if (!i || h[i].ino != h[i - 1].ino)
			err = list_inode(o, h[i].ino);
	for (size_t i = 0; i < o->d->list.n && !err; i++) {
		uint64_t first, last;

		if (!d[i].node || d[i].root != COWFS_ROOT_FS)
			continue;
		damage_inodes(&d[i], &first, &last);
		if (first == last)
			err = list_inode(o, first);
	}
	settle(&o->inodes, sizeof(uint64_t), by_word);
	return err;
}

int owners_collect(struct owners *o)
{
	int err = walk_again(o, hit_leaf);

	hits_join(&o->hits);
	if (!err && !o->l->c->stop)
		err = list_inodes(o);
	if (!err && !o->l->c->stop && o->inodes.n)
		err = walk_again(o, name_leaf);
	settle(&o->names, sizeof(struct named), by_pair);
	return err;
}
