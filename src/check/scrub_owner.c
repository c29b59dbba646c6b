/*
 * scrub_owner.c - whose the damaged blocks are
 *
 * Only where damage was found. A first walk over all leaves, each once however
 * many trees share it, tells which stretches of which files have damaged
 * blocks; a second one which directories name these files (scrub_hits.c). Then
 * each tree, the live one and every snapshot, is asked for just these: does it
 * have that stretch on that block, and what is the file called there. A damaged
 * node is looked for on the way to its first key in each tree.
 *
 *   OW1  A block counts as somebody's only if what names it is no younger than
 *        the state in which the damage was seen: younger contents were written
 *        over it and have nothing to do with it.
 */
#include "check/scrub_owner.h"

/* ---- one tree ---- */

struct tree_of {
	uint8_t kind; /* enum cowfs_scrub_tree */
	const char *name;
	struct nptr root;
};

struct asking {
	struct owners *o;
	const struct hit *h;
};

static int ask_item(void *arg, const struct key *k, const struct item *it)
{
	struct asking *a = arg;
	struct check *c = a->o->l->c;
	uint64_t end = a->h->lblk + a->h->len, from, to;
	struct extent_rec e;

	if (k->type != COWFS_KEY_EXTENT || extent_parse(c, k, it, &e) ||
	    e.lblk + e.len <= a->h->lblk || e.lblk >= end)
		return 0;
	from = max_u64(e.lblk, a->h->lblk) - e.lblk;
	to = min_u64(e.lblk + e.len, end) - e.lblk;
	return hits_of_extent(a->o, &e, e.blk + from, e.blk + to, &a->o->here);
}

/* Which of the hits does this tree have? */
static int ask_tree(struct owners *o, const struct tree_of *t)
{
	uint64_t longest = COWFS_EXTENT_MAX(o->l->c->node_size);
	const struct hit *h = o->hits.at;
	int err = 0;

	o->here.n = 0;
	for (size_t i = 0; i < o->hits.n && !err && !o->l->c->stop; i++) {
		struct asking a = { .o = o, .h = &h[i] };
		uint64_t lo = h[i].lblk > longest ? h[i].lblk - longest : 0;

		err = look_range(o->l, &t->root,
				 KEY(h[i].ino, COWFS_KEY_EXTENT, lo),
				 KEY(h[i].ino, COWFS_KEY_EXTENT,
				     h[i].lblk + h[i].len - 1),
				 ask_item, &a);
	}
	hits_join(&o->here);
	return err;
}

/* ---- what they are called ---- */

/* Names of the inode in one directory, one after the other in an array of
 * bytes, each with its NUL. */
static int keep_name(void *arg, const char *name, size_t len)
{
	struct array *a = arg;

	for (size_t i = 0; i <= len; i++) {
		char *at = array_add(a, 1);

		if (!at)
			return -ENOMEM;
		*at = i < len ? name[i] : '\0';
	}
	return 0;
}

static int paths_in(struct owners *o, const struct tree_of *t, uint64_t dir,
		    uint64_t ino, struct array *paths)
{
	char *buf = malloc(2 * (TEXT_MAX + 1)), *path;
	struct array names = { 0 };
	const char *at;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	path = buf + TEXT_MAX + 1;
	err = look_names(o->l, &t->root, dir, ino, keep_name, &names);
	if (!err && names.n && look_dir_path(o->l, &t->root, dir, buf)) {
		at = names.at;
		while (!err && at < (char *)names.at + names.n) {
			look_join(path, buf, at, strlen(at));
			err = keep_name(paths, path, strlen(path));
			at += strlen(at) + 1;
		}
	}
	array_free(&names);
	free(buf);
	return err;
}

/* All paths of an inode in one tree, each with its NUL. */
static int find_paths(struct owners *o, const struct tree_of *t, uint64_t ino,
		      struct array *paths)
{
	const struct named *v = o->names.at;
	size_t lo = 0, hi = o->names.n;
	int err = 0;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < o->names.n && v[lo].ino == ino && !err; lo++)
		err = paths_in(o, t, v[lo].dir, ino, paths);
	return err;
}

/* ---- entries ---- */

/* A hit of this tree, with the paths of its file. */
struct found {
	struct hit h;
	const struct tree_of *tree;
	size_t path, paths_end; /* in found_all.paths */
};

struct found_all {
	struct array list, paths;
};

static int keep_found(struct owners *o, const struct tree_of *t,
		      struct found_all *all)
{
	const struct hit *h = o->here.at;
	size_t begin = 0, end = 0;
	int err = 0;

	for (size_t i = 0; i < o->here.n && !err && !o->l->c->stop; i++) {
		struct found *f;

		if (all->paths.n + all->list.n * sizeof(*f) > REPORT_MAX) {
			o->untold++;
			continue;
		}
		if (!i || h[i].ino != h[i - 1].ino) {
			begin = all->paths.n;
			err = find_paths(o, t, h[i].ino, &all->paths);
			end = all->paths.n;
		}
		f = err ? NULL : array_add(&all->list, sizeof(*f));
		if (f)
			*f = (struct found){ .h = h[i], .tree = t,
					     .path = begin, .paths_end = end };
		else if (!err)
			err = -ENOMEM;
	}
	return err;
}

/* In the order of the damage, then of the trees as they were asked. */
static int by_block(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	if (x->h.blk != y->h.blk)
		return x->h.blk < y->h.blk ? -1 : 1;
	if (x->tree != y->tree)
		return x->tree < y->tree ? -1 : 1;
	return x->h.ino < y->h.ino ? -1 : x->h.ino > y->h.ino;
}

static void tell_file(struct owners *o, const struct found *f,
		      const struct array *paths)
{
	struct cowfs_disk_scrub_entry e = {
		.what = COWFS_SCRUB_FILE,
		.tree = f->tree->kind,
		.blk = to_le64(f->h.blk),
		.blocks = to_le64(f->h.len),
		.ino = to_le64(f->h.ino),
		.off = to_le64(f->h.lblk * COWFS_BLOCK_SIZE),
		.len = to_le64(f->h.len * COWFS_BLOCK_SIZE),
	};
	const char *all = paths->at;
	size_t at = f->path;

	if (at == f->paths_end)
		report_add(o->r, e, f->tree->name, NULL);
	for (; at < f->paths_end; at += strlen(all + at) + 1)
		report_add(o->r, e, f->tree->name, all + at);
}

/* Damage d, but only its blocks [from, to). */
static void tell_range(struct owners *o, const struct damage *d, uint64_t from,
		       uint64_t to)
{
	struct damage part = *d;

	part.blk = from;
	part.blk2 += part.blk2 ? from - d->blk : 0;
	part.blocks = to - from;
	report_damage(o->r, &part);
}

/*
 * One range of data, and all who have some of it: f[0..n), by block. What
 * nobody has any more was freed since, and is not told - if everybody could be
 * asked.
 */
static void tell_data(struct owners *o, struct damage *d,
		      const struct found *f, size_t n, bool complete,
		      const struct array *paths)
{
	size_t i = 0, j;

	if (!complete)
		tell_range(o, d, d->blk, d->blk + d->blocks);
	while (i < n) {
		uint64_t from = f[i].h.blk, to = from;

		for (j = i; j < n && f[j].h.blk <= to; j++)
			to = max_u64(to, f[j].h.blk + f[j].h.len);
		if (complete)
			tell_range(o, d, from, to);
		for (; i < j; i++)
			tell_file(o, &f[i], paths);
		d->owned += to - from;
	}
}

static int part_path(struct owners *o, const struct tree_of *t, uint64_t ino,
		     char *path)
{
	struct array paths = { 0 };
	int err = find_paths(o, t, ino, &paths);

	if (!err && paths.n)
		memcpy(path, paths.at, strlen(paths.at) + 1);
	else if (ino == COWFS_INO_ROOT)
		memcpy(path, "/", 2);
	array_free(&paths);
	return err;
}

static int tell_part(struct owners *o, const struct damage *d,
		     const struct tree_of *t)
{
	struct cowfs_disk_scrub_entry e = { .what = COWFS_SCRUB_PART,
					    .tree = t->kind, .root = d->root };
	char *path = calloc(1, TEXT_MAX + 1);
	uint64_t first, last;
	int err = 0;

	if (!path)
		return -ENOMEM;
	damage_inodes(d, &first, &last);
	e.ino = to_le64(first);
	e.ino_last = to_le64(last);
	if (first == last && d->root == COWFS_ROOT_FS)
		err = part_path(o, t, first, path);
	report_add(o->r, e, t->name, path);
	free(path);
	return err;
}

static bool has_node(struct owners *o, const struct tree_of *t,
		     const struct damage *d)
{
	struct nptr p;

	return look_node(o->l, &t->root, d->lo, d->level, &p) &&
	       p.blk == d->blk && p.gen <= d->gen;
}

static int tell_node(struct owners *o, struct damage *d,
		     const struct tree_of *t, size_t n, bool complete)
{
	static const struct tree_of other = { .kind = COWFS_SCRUB_OTHER };
	int err = 0;

	if (d->root != COWFS_ROOT_FS) {
		d->owned = d->blocks;
		report_damage(o->r, d);
		return tell_part(o, d, &other);
	}
	for (size_t i = 0; i < n && !err && !o->l->c->stop; i++) {
		if (!has_node(o, &t[i], d))
			continue;
		if (!d->owned)
			report_damage(o->r, d);
		d->owned = d->blocks;
		err = tell_part(o, d, &t[i]);
	}
	if (!err && !d->owned && !(complete && !o->l->damaged))
		report_damage(o->r, d);
	return err;
}

static int tell_all(struct owners *o, const struct tree_of *t, size_t trees,
		    struct found_all *all, bool complete)
{
	struct damage *v = o->d->list.at;
	const struct found *f = all->list.at;
	size_t at = 0;
	int err = 0;

	if (all->list.n)
		qsort(all->list.at, all->list.n, sizeof(*f), by_block);
	for (size_t i = 0; i < o->d->list.n && !err && !o->l->c->stop; i++) {
		size_t n = 0;

		v[i].owned = 0;
		while (!v[i].node && at + n < all->list.n &&
		       f[at + n].h.blk < v[i].blk + v[i].blocks)
			n++;
		if (v[i].node)
			err = tell_node(o, &v[i], t, trees, complete);
		else
			tell_data(o, &v[i], f + at, n, complete, &all->paths);
		at += n;
	}
	return err;
}

/* ---- all trees ---- */

static struct tree_of *list_trees(struct check *c, size_t *n)
{
	const struct snap_rec *snap = c->snaps.at;
	const struct drop_rec *drop = c->drops.at;
	struct tree_of *t;

	t = calloc(1 + c->snaps.n + c->drops.n, sizeof(*t));
	if (!t)
		return NULL;
	*n = 0;
	t[(*n)++] = (struct tree_of){
		.kind = COWFS_SCRUB_LIVE,
		.root = nptr_from_disk(&c->super.roots[COWFS_ROOT_FS].ptr),
	};
	for (size_t i = c->snaps.n; i--;)
		t[(*n)++] = (struct tree_of){ .kind = COWFS_SCRUB_SNAPSHOT,
					      .name = snap[i].name,
					      .root = snap[i].root };
	for (size_t i = 0; i < c->drops.n; i++)
		t[(*n)++] = (struct tree_of){ .kind = COWFS_SCRUB_DROPPED,
					      .root = drop[i].ptr };
	return t;
}

static bool all_seen(const struct owners *o)
{
	return !o->l->c->lost && !o->l->damaged && !o->untold && !o->d->untold;
}

static int ask_all(struct owners *o)
{
	struct found_all all = { 0 };
	struct tree_of *t;
	size_t n = 0;
	int err = 0;

	memset(o->l->at, 0, sizeof(o->l->at));
	t = list_trees(o->l->c, &n);
	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n && !err && !o->l->c->stop; i++) {
		err = ask_tree(o, &t[i]);
		if (!err)
			err = keep_found(o, &t[i], &all);
	}
	if (!err && !o->l->c->stop)
		err = tell_all(o, t, n, &all, all_seen(o));
	array_free(&all.list);
	array_free(&all.paths);
	free(t);
	return err;
}

int owners_find(struct look *l, struct damages *d, struct report *r,
		bool *complete)
{
	struct owners o = { .l = l, .d = d, .r = r };
	int err;

	err = owners_collect(&o);
	if (!err && !l->c->stop)
		err = ask_all(&o);
	*complete = all_seen(&o);
	r->untold += o.untold;
	array_free(&o.hits);
	array_free(&o.inodes);
	array_free(&o.names);
	array_free(&o.here);
	return err ? err : l->c->stop;
}
