/*
 * readdir.c - listing directories
 *
 * Entries are collected in batches under the tree lock and handed out without
 * it. The cookie of an entry is its key's offset, which never changes, so a
 * listing goes on at the right place whatever came and went in between: an
 * entry that exists all the time is seen exactly once.
 *
 * Attributes, if they are wanted, are those of the moment when the batch was
 * collected. They are read in the order of inode numbers, in which they lie on
 * the device. In a large directory a first reply's worth of inodes is scattered
 * over all of it, and most of those who list it want the names alone: at its
 * beginning (the kernel asks for attributes there whatever the caller wants)
 * only what is in memory is given.
 */
#include "fs/private.h"

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>

#define BATCH 64
#define LARGE 256u /* entries; more than the first reply can hold */
#define NO_NAMES UINT_MAX /* listing.done: names are still to be collected */
#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u

struct found {
	struct attr attr;
	bool has_attr;
	uint8_t type;
	uint8_t len;
	unsigned name; /* where in names[] */
	uint64_t ino, cookie;
};

struct listing {
	struct fs *fs;
	struct view *v;
	uint64_t dir;
	uint64_t after; /* cookie of the last one collected */
	bool want_attr;
	bool first;     /* the listing began here */
	bool lazy;      /* only what is in memory */
	struct cowfs_disk_inode d;
	uint64_t changes, root; /* of the tree, when names were collected */
	unsigned n, done; /* names; of these, attributes */
	unsigned used;  /* of names[] */
	bool end;
	struct found found[BATCH];
	struct found *order[BATCH]; /* by inode number */
	char names[BATCH * COWFS_NAME_MAX];
};

static void add(struct listing *l, const struct entry *e)
{
	struct found *f = &l->found[l->n];

	f->has_attr = false;
	f->ino = e->ino;
	f->cookie = e->key.off;
	f->type = e->type;
	f->len = (uint8_t)e->len;
	f->name = l->used;
	memcpy(l->names + l->used, e->name, e->len);
	l->used += (unsigned)e->len;
	l->order[l->n++] = f;
}

static void add_dots(struct listing *l)
{
	struct entry e = { .type = DT_DIR, .name = ".." };

	if (l->after < COOKIE_DOT) {
		e.ino = l->dir;
		e.len = 1;
		e.key.off = COOKIE_DOT;
		add(l, &e);
	}
	if (l->after < COOKIE_DOTDOT) {
		e.ino = from_le64(l->d.parent);
		e.len = 2;
		e.key.off = COOKIE_DOTDOT;
		add(l, &e);
	}
}

static int collect_names(struct listing *l, struct tree *t)
{
	struct key k = KEY(l->dir, COWFS_KEY_DIRENT, l->after + 1);
	struct cursor c;
	struct entry e;
	int err;

	l->n = l->used = 0;
	err = dir_read(t, l->dir, &l->d);
	if (err)
		return err;
	add_dots(l);
	l->end = l->after >= INT64_MAX;
	if (l->end)
		return 0;
	for (err = cursor_ceil(&c, t, &k); !err && l->n < BATCH;
	     err = cursor_next(&c)) {
		if (c.key.obj != l->dir || c.key.type != COWFS_KEY_DIRENT) {
			l->end = true;
			return 0;
		}
		err = entry_from_item(&c.key, &c.item, &e);
		if (err)
			return err;
		add(l, &e);
	}
	if (err == -ENOENT)
		l->end = true;
	/* A full batch needs nothing more, not even the next leaf. */
	return err == -ENOENT || l->n == BATCH ? 0 : err;
}

static int by_ino(const void *a, const void *b)
{
	const struct found *x = *(struct found *const *)a;
	const struct found *y = *(struct found *const *)b;

	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int read_attr(const struct listing *l, struct tree *t, struct found *f)
{
	struct cowfs_disk_inode d;
	int err;

	err = inode_read(t, f->ino, &d);
	if (err == -ESTALE || (!err && IFTODT(from_le32(d.mode)) != f->type))
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": an entry does not fit inode %" PRIu64,
			      l->dir, f->ino);
	if (err)
		return err;
	inode_to_attr(&d, f->ino, &f->attr);
	f->has_attr = true;
	return 0;
}

static int collect_attrs(struct listing *l, struct tree *t)
{
	int err = 0;

	for (; !err && l->done < l->n; l->done += !err)
		err = read_attr(l, t, l->order[l->done]);
	return err == -EAGAIN && l->lazy ? 0 : err;
}

/* Goes on where it was if -EAGAIN interrupted it, unless something changed. */
static int collect_locked(struct listing *l)
{
	struct tree *t = view_tree(l->fs, l->v);
	uint64_t changes = forest_changes(l->fs->s->forest);
	int err;

	if (!t)
		return -ESTALE;
	if (l->done == NO_NAMES || l->changes != changes ||
	    l->root != t->root.blk) {
		l->done = NO_NAMES;
		err = collect_names(l, t);
		if (err || !l->want_attr)
			return err;
		l->changes = changes;
		l->root = t->root.blk;
		l->done = 0;
		l->lazy = l->first && from_le64(l->d.size) > LARGE;
		qsort(l->order, l->n, sizeof(l->order[0]), by_ino);
	}
	return collect_attrs(l, t);
}

static int collect(struct listing *l)
{
	struct op op;
	int err;

	l->done = NO_NAMES;
	op_read(&op, l->fs->s);
	do
		err = collect_locked(l);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err && l->n)
		l->after = l->found[l->n - 1].cookie;
	return err;
}

/* False: fn has had enough. */
static bool hand_out(const struct listing *l, fs_readdir_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < l->n; i++) {
		const struct found *f = &l->found[i];
		struct fs_dirent e = {
			.name = l->names + f->name, .len = f->len,
			.ino = f->ino, .cookie = f->cookie, .type = f->type,
			.attr = f->has_attr ? &f->attr : NULL,
		};

		if (fn(arg, &e))
			return false;
	}
	return true;
}

int fs_readdir(struct fs *fs, struct view *v, uint64_t dir, uint64_t after,
	       bool want_attr, fs_readdir_fn *fn, void *arg)
{
	struct listing *l = malloc(sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	l->fs = fs;
	l->v = v;
	l->dir = dir;
	l->after = after;
	l->want_attr = want_attr;
	l->first = !after;
	do
		err = collect(l);
	while (!err && hand_out(l, fn, arg) && !l->end);
	if (!err && v == &fs->live)
		inode_note_access(fs, dir, &l->d);
	free(l);
	return err;
}

uint64_t fs_changes(struct fs *fs)
{
	uint64_t changes;
	struct op op;

	op_read(&op, fs->s);
	changes = forest_changes(fs->s->forest);
	(void)!op_end(&op, 0);
	return changes;
}
