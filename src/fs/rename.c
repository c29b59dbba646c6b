/*
 * rename.c - moving names: rename, replace, exchange
 *
 * Up to four inodes take part: two directories, which may be one, and what the
 * two names mean. All are read and checked, then all keys prepared, then
 * everything is changed in one operation.
 */
#include "fs/private.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h> /* RENAME_* */
#include <sys/stat.h>

struct side {
	uint64_t dir;
	struct name name;
	struct cowfs_disk_inode d; /* of the directory */
	struct entry e;            /* e.ino 0: there is no such name */
	struct victim v;           /* what the name means */
};

struct renaming {
	struct fs *fs;
	unsigned flags;
	struct side from, to;
	struct cowfs_disk_inode *to_d; /* of the target directory: to.d, or
					  from.d if it is the same */
};

static bool exchanges(const struct renaming *r)
{
	return r->flags & RENAME_EXCHANGE;
}

/*
 * Is `dir` `top` itself or below it? Goes up by parent pointers; a damaged
 * image may have a circle of them, which a second walker at half the speed
 * meets (Floyd).
 */
static int is_below(struct tree *t, uint64_t dir, uint64_t top, bool *below)
{
	uint64_t slow = dir;
	struct cowfs_disk_inode d;
	bool step = false;
	int err;

	*below = true;
	while (dir != top) {
		if (dir == COWFS_INO_ROOT) {
			*below = false;
			return 0;
		}
		err = dir_read(t, dir, &d);
		if (err == -ESTALE || err == -ENOTDIR)
			err = report(-ECOW_CORRUPT, "inode %" PRIu64
				     ": a parent, but no directory", dir);
		if (err)
			return err;
		dir = from_le64(d.parent);
		if (step) {
			err = dir_read(t, slow, &d);
			if (err)
				return err;
			slow = from_le64(d.parent);
		}
		step = !step;
		if (dir == slow && dir != COWFS_INO_ROOT && dir != top)
			return report(-ECOW_CORRUPT, "directory %" PRIu64
				      ": is its own ancestor", dir);
	}
	return 0;
}

static int read_side(struct renaming *r, struct side *s, bool must_exist)
{
	struct tree *t = &r->fs->s->fs;
	int err;

	err = dir_read(t, s->dir, &s->d);
	if (err)
		return err;
	err = dir_find(t, s->dir, &s->name, &s->e);
	if (err == -ENOENT && !must_exist)
		return 0;
	return err;
}

/* A directory must not come to lie in itself. */
static int check_loops(struct renaming *r)
{
	struct tree *t = &r->fs->s->fs;
	bool below;
	int err;

	if (r->from.dir == r->to.dir)
		return 0;
	if (r->from.e.type == DT_DIR) {
		err = is_below(t, r->to.dir, r->from.e.ino, &below);
		if (err || below)
			return err ? err : -EINVAL;
	}
	if (exchanges(r) && r->to.e.type == DT_DIR) {
		err = is_below(t, r->from.dir, r->to.e.ino, &below);
		if (err || below)
			return err ? err : -EINVAL;
	}
	return 0;
}

/* May the target's name be given to something else? */
static int check_target(struct renaming *r)
{
	bool dir = r->from.e.type == DT_DIR, old_dir = r->to.e.type == DT_DIR;
	int err;

	if (!r->to.e.ino)
		return r->to.e.key.off ? 0 : -ENOSPC;
	if (r->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (r->to.e.ino == r->from.e.ino)
		return 0; /* nothing will happen to it */
	err = dir_may_remove(r->to_d);
	if (!err)
		err = victim_read(r->fs, &r->to.e, &r->to.v);
	if (err || exchanges(r))
		return err;
	if (dir != old_dir)
		return dir ? -ENOTDIR : -EISDIR;
	return dir ? dir_empty(&r->fs->s->fs, r->to.e.ino) : 0;
}

/* How many subdirectories the target directory gains. */
static int subdirs_gained(const struct renaming *r)
{
	return (r->from.e.type == DT_DIR) -
	       (r->to.e.ino && r->to.e.type == DT_DIR);
}

static int check_counts(struct renaming *r)
{
	int gain = subdirs_gained(r);
	const struct side *s = &r->from;
	const struct cowfs_disk_inode *d = r->to_d;

	if (gain > 0 && from_le32(d->nlink) >= COWFS_LINK_MAX &&
	    d != &s->d)
		return -EMLINK;
	/* Counts that would fall below what a directory has at least. */
	if (!from_le64(s->d.size) || (r->to.e.ino && !from_le64(d->size)) ||
	    (s->e.type == DT_DIR && from_le32(s->d.nlink) < 3) ||
	    (r->to.e.ino && r->to.e.type == DT_DIR &&
	     from_le32(d->nlink) < 3))
		return report(-ECOW_CORRUPT, "directory %" PRIu64 " or %"
			      PRIu64 ": more entries than it counts", s->dir,
			      r->to.dir);
	return 0;
}

/* *done: both names mean the same file, which is left as it is. */
static int check(struct renaming *r, bool *done)
{
	int err;

	*done = false;
	err = read_side(r, &r->from, true);
	if (!err)
		err = read_side(r, &r->to, exchanges(r));
	if (err)
		return err;
	r->to_d = r->from.dir == r->to.dir ? &r->from.d : &r->to.d;
	err = dir_may_remove(&r->from.d);
	if (!err)
		err = dir_may_add(r->to_d);
	if (!err)
		err = victim_read(r->fs, &r->from.e, &r->from.v);
	if (!err)
		err = check_loops(r);
	if (!err)
		err = check_target(r);
	if (err)
		return err;
	*done = r->from.e.ino == r->to.e.ino;
	return check_counts(r);
}

static int prepare(struct renaming *r)
{
	struct tree *t = &r->fs->s->fs;
	struct key keys[] = {
		INODE_KEY(r->from.dir), INODE_KEY(r->to.dir),
		r->from.e.key, r->to.e.key, INODE_KEY(r->from.e.ino),
		INODE_KEY(r->to.e.ino ? r->to.e.ino : r->to.dir),
	};
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < ARRAY_SIZE(keys); i++)
		err = tree_prepare(t, &keys[i]);
	if (!err && r->to.e.ino && !exchanges(r))
		err = victim_plan(r->fs, &r->to.v);
	return err;
}

/* The inode that moved to another directory (or only to another name). */
static int write_moved(struct renaming *r, struct side *s, uint64_t dir)
{
	s->v.d.parent = to_le64(dir);
	inode_touch(&s->v.d, false);
	return inode_write(r->fs, s->e.ino, &s->v.d);
}

static int write_dirs(struct renaming *r)
{
	int gain = subdirs_gained(r);
	int lost = exchanges(r) ? gain : r->from.e.type == DT_DIR;
	int err;

	dir_count(&r->from.d, exchanges(r) ? 0 : -1, -lost);
	dir_count(r->to_d, exchanges(r) || r->to.e.ino ? 0 : 1, gain);
	err = inode_write(r->fs, r->from.dir, &r->from.d);
	if (!err && r->from.dir != r->to.dir)
		err = inode_write(r->fs, r->to.dir, &r->to.d);
	return err;
}

static int move(struct renaming *r)
{
	struct fs *fs = r->fs;
	uint32_t mode = from_le32(r->from.v.d.mode);
	int err;

	if (r->to.e.ino)
		err = dir_set(fs, &r->to.e.key, r->from.e.ino, mode);
	else
		err = dir_add(fs, &r->to.e.key, &r->to.name, r->from.e.ino,
			      mode);
	if (!err)
		err = tree_delete(&fs->s->fs, &r->from.e.key);
	if (!err)
		err = write_dirs(r);
	if (!err)
		err = write_moved(r, &r->from, r->to.dir);
	if (!err && r->to.e.ino)
		err = victim_apply(fs, &r->to.v);
	return err;
}

static int exchange(struct renaming *r)
{
	struct fs *fs = r->fs;
	int err;

	err = dir_set(fs, &r->to.e.key, r->from.e.ino,
		      from_le32(r->from.v.d.mode));
	if (!err)
		err = dir_set(fs, &r->from.e.key, r->to.e.ino,
			      from_le32(r->to.v.d.mode));
	if (!err)
		err = write_dirs(r);
	if (!err)
		err = write_moved(r, &r->from, r->to.dir);
	return err ? err : write_moved(r, &r->to, r->from.dir);
}

static int rename_locked(struct renaming *r)
{
	bool done;
	int err;

	err = check(r, &done);
	if (err || done)
		return err;
	err = prepare(r);
	if (err)
		return err;
	return exchanges(r) ? exchange(r) : move(r);
}

int fs_rename(struct fs *fs, uint64_t dir, const char *name, size_t len,
	      uint64_t newdir, const char *newname, size_t newlen,
	      unsigned flags)
{
	struct renaming r = { .fs = fs, .flags = flags };
	struct op op;
	int err;

	if ((flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) ||
	    flags == (RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	r.from.dir = dir;
	r.to.dir = newdir;
	err = name_init(fs, &r.from.name, name, len);
	if (!err)
		err = name_init(fs, &r.to.name, newname, newlen);
	if (!err)
		err = fs_op_write(fs, &op, ALLOC_FREEING, 8);
	if (err)
		return err;
	do
		err = rename_locked(&r);
	while (op_again(&op, &err));
	return op_end(&op, err);
}
