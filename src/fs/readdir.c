/*
 * readdir.c - listing directories
 *
 * Entries are collected in batches under the tree lock and handed out without
 * it. The cookie of an entry is its key's offset, which never changes, so a
 * listing goes on at the right place whatever came and went in between: an
 * entry that exists all the time is seen exactly once.
 */
#include "fs/private.h"

#include <dirent.h>
#include <inttypes.h>
#include <sys/stat.h>

#define BATCH 64
#define COOKIE_DOT 1u
#define COOKIE_DOTDOT 2u

struct found {
	struct attr attr;
	uint64_t ino, cookie;
	size_t len;
	uint8_t type;
	char name[COWFS_NAME_MAX];
};

struct listing {
	struct fs *fs;
	struct view *v;
	uint64_t dir;
	uint64_t after; /* cookie of the last one collected */
	bool want_attr;
	struct cowfs_disk_inode d;
	unsigned n;
	bool end;
	struct found found[BATCH];
};

static int fill_attr(struct listing *l, struct tree *t, uint64_t ino,
		     uint8_t type, struct attr *out)
{
	struct cowfs_disk_inode d;
	int err;

	if (!l->want_attr)
		return 0;
	err = inode_read(t, ino, &d);
	if (err == -ESTALE || (!err && IFTODT(from_le32(d.mode)) != type))
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": an entry does not fit inode %" PRIu64,
			      l->dir, ino);
	if (!err)
		inode_to_attr(&d, ino, out);
	return err;
}

static int add(struct listing *l, struct tree *t, const struct entry *e)
{
	struct found *f = &l->found[l->n];
	int err;

	err = fill_attr(l, t, e->ino, e->type, &f->attr);
	if (err)
		return err;
	f->ino = e->ino;
	f->cookie = e->key.off;
	f->type = e->type;
	f->len = e->len;
	memcpy(f->name, e->name, e->len);
	l->after = e->key.off;
	l->n++;
	return 0;
}

static int add_dots(struct listing *l, struct tree *t)
{
	struct entry e = { .type = DT_DIR, .name = ".." };
	int err = 0;

	if (l->after < COOKIE_DOT) {
		e.ino = l->dir;
		e.len = 1;
		e.key.off = COOKIE_DOT;
		err = add(l, t, &e);
	}
	if (!err && l->after < COOKIE_DOTDOT) {
		e.ino = from_le64(l->d.parent);
		e.len = 2;
		e.key.off = COOKIE_DOTDOT;
		err = add(l, t, &e);
	}
	return err;
}

/* Goes on where it was, if -EAGAIN interrupted it. */
static int collect_locked(struct listing *l)
{
	struct tree *t = view_tree(l->fs, l->v);
	struct cursor c;
	struct entry e;
	struct key k;
	int err;

	if (!t)
		return -ESTALE;
	err = dir_read(t, l->dir, &l->d);
	if (!err)
		err = add_dots(l, t);
	if (err)
		return err;
	if (l->after >= INT64_MAX) {
		l->end = true;
		return 0;
	}
	k = KEY(l->dir, COWFS_KEY_DIRENT, l->after + 1);
	for (err = cursor_ceil(&c, t, &k); !err && l->n < BATCH;
	     err = cursor_next(&c)) {
		if (c.key.obj != l->dir || c.key.type != COWFS_KEY_DIRENT) {
			l->end = true;
			return 0;
		}
		err = entry_from_item(&c.key, &c.item, &e);
		if (!err)
			err = add(l, t, &e);
		if (err)
			return err;
	}
	if (err == -ENOENT)
		l->end = true;
	/* A full batch needs nothing more, not even the next leaf. */
	return err == -ENOENT || l->n == BATCH ? 0 : err;
}

static int collect(struct listing *l)
{
	struct op op;
	int err;

	l->n = 0;
	op_read(&op, l->fs->s);
	do
		err = collect_locked(l);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* False: fn has had enough. */
static bool hand_out(const struct listing *l, fs_readdir_fn *fn, void *arg)
{
	unsigned i;

	for (i = 0; i < l->n; i++) {
		const struct found *f = &l->found[i];
		struct fs_dirent e = {
			.name = f->name, .len = f->len, .ino = f->ino,
			.cookie = f->cookie, .type = f->type,
			.attr = l->want_attr ? &f->attr : NULL,
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
	l->end = false;
	do
		err = collect(l);
	while (!err && hand_out(l, fn, arg) && !l->end);
	if (!err && v == &fs->live)
		inode_note_access(fs, dir, &l->d);
	free(l);
	return err;
}
