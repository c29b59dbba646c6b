/*
 * link.c - giving an inode one more name, and taking names away
 */
#include "fs/private.h"

#include <dirent.h>
#include <inttypes.h>
#include <sys/stat.h>

#define LOCKED_FLAGS (COWFS_INODE_IMMUTABLE | COWFS_INODE_APPEND)

int dir_may_add(const struct cowfs_disk_inode *dir)
{
	if (!from_le32(dir->nlink))
		return -ENOENT;
	return from_le32(dir->flags) & COWFS_INODE_IMMUTABLE ? -EPERM : 0;
}

int dir_may_remove(const struct cowfs_disk_inode *dir)
{
	return from_le32(dir->flags) & LOCKED_FLAGS ? -EPERM : 0;
}

/* ---- losing a name ---- */

int victim_read(struct fs *fs, const struct entry *e, struct victim *v)
{
	uint32_t mode, nlink;
	int err;

	v->ino = e->ino;
	err = inode_read(&fs->s->fs, e->ino, &v->d);
	if (err && err != -ESTALE)
		return err;
	mode = from_le32(v->d.mode);
	nlink = from_le32(v->d.nlink);
	if (err || IFTODT(mode) != e->type || !nlink ||
	    e->ino == e->key.obj)
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": entry %" PRIx64 " does not fit inode %"
			      PRIu64, e->key.obj, e->key.off, e->ino);
	return from_le32(v->d.flags) & LOCKED_FLAGS ? -EPERM : 0;
}

int victim_plan(struct fs *fs, struct victim *v)
{
	struct key k = INODE_KEY(v->ino), o = ORPHAN_KEY(v->ino);
	uint32_t mode = from_le32(v->d.mode);
	bool dir = S_ISDIR(mode), told = S_ISREG(mode) || S_ISLNK(mode);
	struct item it;
	int err;

	err = tree_prepare(&fs->s->fs, &k);
	if (err)
		return err;
	v->fate = VICTIM_KEEPS;
	if (!dir && from_le32(v->d.nlink) > 1)
		return 0;
	v->fate = VICTIM_ORPHAN;
	/* A directory may be somebody's working directory without being open,
	 * and nobody tells when a pipe, socket or device is opened; a file that
	 * is not open can't be reached any more. */
	if (!inode_in_use(fs, v->ino, told)) {
		err = destroy_plan(fs, v->ino, &v->plan);
		if (err)
			return err;
		if (v->plan.whole)
			v->fate = VICTIM_GOES;
	}
	if (v->fate == VICTIM_GOES)
		return 0;
	err = tree_get(&fs->s->fs, &o, &it);
	if (!err)
		return report(-ECOW_CORRUPT, "inode %" PRIu64 ": an orphan "
			      "that has a name", v->ino);
	return err == -ENOENT ? tree_prepare(&fs->s->fs, &o) : err;
}

int victim_apply(struct fs *fs, struct victim *v)
{
	int err;

	if (v->fate == VICTIM_GOES)
		return destroy_apply(fs, &v->plan, &v->d);
	inode_touch(&v->d, false);
	if (v->fate == VICTIM_KEEPS) {
		v->d.nlink = to_le32(from_le32(v->d.nlink) - 1);
		return inode_write(fs, v->ino, &v->d);
	}
	v->d.nlink = to_le32(0);
	err = inode_write(fs, v->ino, &v->d);
	return err ? err : orphan_add(fs, v->ino);
}

/* ---- unlink, rmdir ---- */

struct removal {
	uint64_t dir;
	struct name name;
	bool rmdir;
	struct victim v;
};

static int check_kind(struct fs *fs, const struct removal *r, bool is_dir)
{
	if (!r->rmdir)
		return is_dir ? -EISDIR : 0;
	if (!is_dir)
		return -ENOTDIR;
	return dir_empty(&fs->s->fs, r->v.ino);
}

static int remove_locked(struct fs *fs, struct removal *r)
{
	struct tree *t = &fs->s->fs;
	struct cowfs_disk_inode dir;
	struct key k = INODE_KEY(r->dir);
	struct entry e;
	int err;

	err = dir_read(t, r->dir, &dir);
	if (!err)
		err = dir_find(t, r->dir, &r->name, &e);
	if (!err)
		err = dir_may_remove(&dir);
	if (!err)
		err = victim_read(fs, &e, &r->v);
	if (!err)
		err = check_kind(fs, r, e.type == DT_DIR);
	if (err)
		return err;
	if (!from_le64(dir.size) ||
	    (r->rmdir && from_le32(dir.nlink) < 3))
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": more entries than it counts", r->dir);
	err = tree_prepare(t, &k);
	if (!err)
		err = tree_prepare(t, &e.key);
	if (!err)
		err = victim_plan(fs, &r->v);
	if (!err)
		err = tree_delete(t, &e.key);
	if (err)
		return err;
	dir_count(&dir, -1, r->rmdir ? -1 : 0);
	err = inode_write(fs, r->dir, &dir);
	return err ? err : victim_apply(fs, &r->v);
}

static int remove_name(struct fs *fs, uint64_t dir, const char *name,
		       size_t len, bool rmdir, uint64_t *ino)
{
	struct removal r = { .dir = dir, .rmdir = rmdir };
	struct op op;
	int err;

	err = name_init(fs, &r.name, name, len);
	if (!err)
		err = fs_op_write(fs, &op, ALLOC_FREEING, 6);
	if (err)
		return err;
	do
		err = remove_locked(fs, &r);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err && ino)
		*ino = r.v.ino;
	return err;
}

int fs_unlink(struct fs *fs, uint64_t dir, const char *name, size_t len,
	      uint64_t *ino)
{
	return remove_name(fs, dir, name, len, false, ino);
}

int fs_rmdir(struct fs *fs, uint64_t dir, const char *name, size_t len,
	     uint64_t *ino)
{
	return remove_name(fs, dir, name, len, true, ino);
}

/* ---- link ---- */

struct linking {
	uint64_t ino, dir;
	struct name name;
	struct cowfs_disk_inode d;
};

static int may_link(const struct cowfs_disk_inode *d)
{
	uint32_t flags = from_le32(d->flags), nlink = from_le32(d->nlink);

	if (S_ISDIR(from_le32(d->mode)) || (flags & LOCKED_FLAGS))
		return -EPERM;
	if (!nlink && !(flags & COWFS_INODE_TMPFILE))
		return -ENOENT;
	return nlink >= COWFS_LINK_MAX ? -EMLINK : 0;
}

static int link_check(struct fs *fs, struct linking *l,
		      struct cowfs_disk_inode *dir, struct key *at)
{
	struct tree *t = &fs->s->fs;
	struct entry e;
	int err;

	err = inode_read(t, l->ino, &l->d);
	if (!err)
		err = dir_read(t, l->dir, dir);
	if (!err)
		err = dir_may_add(dir);
	if (!err)
		err = may_link(&l->d);
	if (err)
		return err;
	err = dir_find(t, l->dir, &l->name, &e);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	*at = e.key;
	return e.key.off ? 0 : -ENOSPC;
}

static int link_locked(struct fs *fs, struct linking *l)
{
	struct tree *t = &fs->s->fs;
	struct key ik = INODE_KEY(l->ino), dk = INODE_KEY(l->dir);
	struct key ok = ORPHAN_KEY(l->ino), at;
	struct cowfs_disk_inode dir;
	struct item it;
	bool was_orphan;
	int err;

	err = link_check(fs, l, &dir, &at);
	if (err)
		return err;
	was_orphan = !from_le32(l->d.nlink);
	err = tree_prepare(t, &at);
	if (!err)
		err = tree_prepare(t, &ik);
	if (!err)
		err = tree_prepare(t, &dk);
	if (!err && was_orphan) {
		err = tree_get(t, &ok, &it);
		if (err == -ENOENT)
			err = report(-ECOW_CORRUPT, "inode %" PRIu64
				     ": no link and no orphan", l->ino);
		if (!err)
			err = tree_prepare(t, &ok);
	}
	if (!err)
		err = dir_add(fs, &at, &l->name, l->ino,
			      from_le32(l->d.mode));
	if (err)
		return err;
	if (was_orphan) {
		l->d.flags = to_le32(from_le32(l->d.flags) &
				     ~COWFS_INODE_TMPFILE);
		err = tree_delete(t, &ok);
		if (err)
			return err;
		inode_set_orphan(fs, l->ino, false);
	}
	l->d.nlink = to_le32(from_le32(l->d.nlink) + 1);
	l->d.parent = to_le64(l->dir);
	inode_touch(&l->d, false);
	dir_count(&dir, 1, 0);
	err = inode_write(fs, l->ino, &l->d);
	return err ? err : inode_write(fs, l->dir, &dir);
}

int fs_link(struct fs *fs, uint64_t ino, uint64_t dir, const char *name,
	    size_t len, struct attr *out)
{
	struct linking l = { .ino = ino, .dir = dir };
	struct op op;
	int err;

	err = name_init(fs, &l.name, name, len);
	if (!err)
		err = fs_op_write(fs, &op, ALLOC_NORMAL, 4);
	if (err)
		return err;
	do
		err = link_locked(fs, &l);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err)
		inode_to_attr(&l.d, ino, out);
	return err;
}
