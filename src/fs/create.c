/*
 * create.c - new inodes: files of every kind, symlinks, files without a name
 */
#include "fs/private.h"

#include <inttypes.h>
#include <sys/stat.h>

struct creation {
	struct fs *fs;
	uint64_t dir, ino;
	bool unnamed;
	struct name name;
	uint32_t mode, rdev;
	const char *target; /* of a symlink, or NULL */
	uint32_t target_len;
	struct member member;
	struct cowfs_disk_inode d, parent;
	struct key at;      /* of the entry */
	/* what the directory's default ACL makes of it */
	size_t acl_len;     /* 0: none */
	bool minimal;       /* the access ACL says no more than the mode */
	uint8_t acl[ACL_BYTES_MAX], access[ACL_BYTES_MAX]; /* not zeroed */
};

static bool is_dir(const struct creation *c)
{
	return S_ISDIR(c->mode);
}

/* ---- symlink targets: INLINE items of up to the largest size ---- */

static uint32_t piece_max(struct fs *fs)
{
	return COWFS_ITEM_MAX(forest_node_size(fs->s->forest));
}

static uint32_t pieces(struct fs *fs, uint32_t len)
{
	return (len + piece_max(fs) - 1) / piece_max(fs);
}

static int prepare_target(struct creation *c)
{
	uint32_t i, n = pieces(c->fs, c->target_len);
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		struct key k = KEY(c->ino, COWFS_KEY_INLINE, i);

		err = tree_prepare(&c->fs->s->fs, &k);
	}
	return err;
}

static int put_target(struct creation *c)
{
	uint32_t i, n = pieces(c->fs, c->target_len), max = piece_max(c->fs);
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		struct key k = KEY(c->ino, COWFS_KEY_INLINE, i);
		uint32_t off = i * max;

		err = tree_insert(&c->fs->s->fs, &k, c->target + off,
				  (uint32_t)min_u64(max, c->target_len - off),
				  NULL);
	}
	return err;
}

struct reading {
	struct fs *fs;
	struct view *v;
	uint64_t ino;
	char *buf;
	size_t room, len;
	struct cowfs_disk_inode d;
};

static int readlink_locked(struct reading *r)
{
	struct tree *t = view_tree(r->fs, r->v);
	uint32_t size, i, off, want, max = piece_max(r->fs);
	struct item it;
	int err;

	if (!t)
		return -ESTALE;
	err = inode_read(t, r->ino, &r->d);
	if (err)
		return err;
	if (!S_ISLNK(from_le32(r->d.mode)))
		return -EINVAL;
	size = (uint32_t)from_le64(r->d.size); /* at most a path's length */
	for (i = 0; i < pieces(r->fs, size); i++) {
		struct key k = KEY(r->ino, COWFS_KEY_INLINE, i);

		off = i * max;
		want = (uint32_t)min_u64(max, size - off);
		err = tree_get(t, &k, &it);
		if (err && err != -ENOENT)
			return err;
		if (err || it.len != want)
			return report(-ECOW_CORRUPT, "symlink %" PRIu64
				      ": target is not as long as it says",
				      r->ino);
		if (off < r->room)
			memcpy(r->buf + off, it.data,
			       min_u64(want, r->room - off));
	}
	r->len = min_u64(size, r->room);
	return 0;
}

int fs_readlink(struct fs *fs, struct view *v, uint64_t ino, char *buf,
		size_t *len)
{
	struct reading r = { .fs = fs, .v = v, .ino = ino, .buf = buf,
			     .room = *len };
	struct op op;
	int err;

	op_read(&op, fs->s);
	do
		err = readlink_locked(&r);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (err)
		return err;
	*len = r.len;
	if (v == &fs->live)
		inode_note_access(fs, ino, &r.d);
	return 0;
}

/* ---- what the new inode looks like ---- */

/* The next number; nothing may lie in the tree under it yet. */
static int new_number(struct creation *c)
{
	uint64_t ino = from_le64(c->fs->s->super.next_ino);
	struct key k = KEY(ino, 0, 0);
	struct cursor cur;
	int err;

	if (ino >= COWFS_INO_MAX) /* the next one has to be possible, too */
		return -ENOSPC;
	err = cursor_ceil(&cur, &c->fs->s->fs, &k);
	if (err && err != -ENOENT)
		return err;
	if (ino < COWFS_INO_FIRST || (!err && cur.key.obj == ino))
		return report(-ECOW_CORRUPT, "inode number %" PRIu64
			      ": next, but in use", ino);
	c->ino = ino;
	return 0;
}

static int owner_and_mode(struct creation *c, uint32_t *gid, uint32_t *mode)
{
	const struct cred *cred = c->member.cred;
	uint32_t pmode = from_le32(c->parent.mode);
	bool in;
	int err;

	*gid = cred->gid;
	*mode = c->mode;
	if (!(pmode & S_ISGID))
		return 0;
	*gid = from_le32(c->parent.gid);
	if (is_dir(c)) {
		*mode |= S_ISGID;
	} else if ((*mode & S_ISGID) && (*mode & S_IXGRP)) {
		/* Nobody makes programs of a group he is not in. */
		err = member_ask(&c->member, *gid, &in);
		if (err)
			return err;
		if (!in)
			*mode &= ~(uint32_t)S_ISGID;
	}
	return 0;
}

/* Default ACL of the directory, else the umask. */
static int apply_default(struct creation *c, uint32_t *mode)
{
	int err = -ENODATA;

	c->acl_len = 0;
	c->minimal = true;
	if (S_ISLNK(c->mode))
		return 0;
	if (from_le32(c->parent.flags) & COWFS_INODE_ACL)
		err = xattr_get_locked(c->fs, &c->fs->s->fs, c->dir,
				       ACL_DEFAULT_NAME, c->acl,
				       sizeof(c->acl), &c->acl_len);
	if (err == -ENODATA) {
		*mode &= ~(c->member.cred->umask & 0777u);
		return 0;
	}
	if (err == -ERANGE || (!err && acl_check(c->acl, c->acl_len)))
		err = report(-ECOW_CORRUPT, "directory %" PRIu64
			     ": impossible default ACL", c->dir);
	if (err)
		return err;
	memcpy(c->access, c->acl, c->acl_len);
	acl_inherit(c->access, c->acl_len, mode, &c->minimal);
	return 0;
}

static int fill_inode(struct creation *c)
{
	struct cowfs_disk_inode *d = &c->d;
	uint32_t gid, mode, flags = 0;
	int err;

	err = owner_and_mode(c, &gid, &mode);
	if (!err)
		err = apply_default(c, &mode);
	if (err)
		return err;
	if (c->acl_len && (is_dir(c) || !c->minimal))
		flags |= COWFS_INODE_ACL;
	if (c->target)
		flags |= COWFS_INODE_INLINE;
	if (c->unnamed)
		flags |= COWFS_INODE_TMPFILE;
	memset(d, 0, sizeof(*d));
	d->mode = to_le32(mode);
	d->uid = to_le32(c->member.cred->uid);
	d->gid = to_le32(gid);
	d->nlink = to_le32(is_dir(c) ? 2 : c->unnamed ? 0 : 1);
	d->size = to_le64(c->target_len);
	d->gen = to_le64(forest_gen(c->fs->s->forest));
	d->parent = to_le64(c->dir);
	d->flags = to_le32(flags);
	d->rdev = to_le32(c->rdev);
	inode_touch(d, true);
	d->atime = d->btime = d->ctime;
	return 0;
}

/* ---- doing it ---- */

static int check_place(struct creation *c)
{
	struct entry e;
	int err;

	err = dir_read(&c->fs->s->fs, c->dir, &c->parent);
	if (!err && !c->unnamed) {
		err = dir_find(&c->fs->s->fs, c->dir, &c->name, &e);
		err = err == -ENOENT ? 0 : err ? err : -EEXIST;
		c->at = e.key;
	}
	if (!err)
		err = dir_may_add(&c->parent);
	if (err || c->unnamed)
		return err;
	if (!c->at.off)
		return -ENOSPC;
	if (is_dir(c) && from_le32(c->parent.nlink) >= COWFS_LINK_MAX)
		return -EMLINK;
	return 0;
}

static int prepare(struct creation *c)
{
	struct key keys[] = {
		INODE_KEY(c->ino),
		c->unnamed ? ORPHAN_KEY(c->ino) : INODE_KEY(c->dir),
		c->unnamed ? INODE_KEY(c->ino) : c->at,
	};
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < ARRAY_SIZE(keys); i++)
		err = tree_prepare(&c->fs->s->fs, &keys[i]);
	if (!err && c->target)
		err = prepare_target(c);
	if (!err && c->acl_len && !c->minimal)
		err = xattr_prepare(c->fs, c->ino, ACL_ACCESS_NAME,
				    c->acl_len);
	if (!err && c->acl_len && is_dir(c))
		err = xattr_prepare(c->fs, c->ino, ACL_DEFAULT_NAME,
				    c->acl_len);
	return err;
}

static int put_contents(struct creation *c)
{
	int err = 0;

	/* First: xattrs are looked for from the inode on. */
	err = inode_write(c->fs, c->ino, &c->d);
	if (!err && c->target)
		err = put_target(c);
	if (!err && c->acl_len && !c->minimal)
		err = xattr_set_locked(c->fs, c->ino, ACL_ACCESS_NAME,
				       c->access, c->acl_len, &c->d);
	if (!err && c->acl_len && is_dir(c))
		err = xattr_set_locked(c->fs, c->ino, ACL_DEFAULT_NAME,
				       c->acl, c->acl_len, &c->d);
	if (!err && c->acl_len)
		err = inode_write(c->fs, c->ino, &c->d);
	return err;
}

static int put_name(struct creation *c)
{
	int err;

	err = dir_add(c->fs, &c->at, &c->name, c->ino, c->mode);
	if (err)
		return err;
	dir_count(&c->parent, 1, is_dir(c));
	return inode_write(c->fs, c->dir, &c->parent);
}

static int create_locked(struct creation *c)
{
	int err;

	err = check_place(c);
	if (!err)
		err = new_number(c);
	if (!err)
		err = fill_inode(c);
	if (!err)
		err = prepare(c);
	/* Needs memory, so it comes before the first change. */
	if (!err && c->unnamed)
		err = inode_make_fresh(c->fs, c->ino);
	if (!err)
		err = put_contents(c);
	if (err)
		return err;
	c->fs->s->super.next_ino = to_le64(c->ino + 1);
	return c->unnamed ? orphan_add(c->fs, c->ino) : put_name(c);
}

static int create(struct creation *c, struct attr *out)
{
	struct fs *fs = c->fs;
	struct op op;
	int err;

	do {
		err = fs_op_write(fs, &op, ALLOC_NORMAL,
				  5 + pieces(fs, c->target_len));
		if (err)
			return err;
		do
			err = create_locked(c);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	} while (member_retry(&c->member, err));
	if (!err)
		inode_to_attr(&c->d, c->ino, out);
	return err;
}

static int check_kind(const struct creation *c, const char *target)
{
	switch (c->mode & S_IFMT) {
	case S_IFLNK:
		return target ? 0 : -EINVAL;
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return target ? -EINVAL : 0;
	}
	return -EINVAL;
}

static int creation_new(struct fs *fs, uint64_t dir, uint32_t mode,
			const char *target, const struct cred *cred,
			struct creation **out)
{
	struct creation *c = malloc(sizeof(*c));
	size_t len = target ? strlen(target) : 0;
	int err;

	if (!c)
		return -ENOMEM;
	memset(c, 0, offsetof(struct creation, acl));
	c->fs = fs;
	c->dir = dir;
	c->mode = mode & (S_IFMT | 07777u);
	c->target = target;
	c->member.cred = cred;
	err = check_kind(c, target);
	if (!err && len > COWFS_SYMLINK_MAX)
		err = -ENAMETOOLONG;
	if (!err && target && !len)
		err = -ENOENT;
	if (err) {
		free(c);
		return err;
	}
	c->target_len = (uint32_t)len;
	if (target)
		c->mode |= 0777;
	*out = c;
	return 0;
}

int fs_create(struct fs *fs, uint64_t dir, const char *name, size_t len,
	      uint32_t mode, uint32_t rdev, const char *target,
	      const struct cred *cred, struct attr *out)
{
	struct creation *c;
	int err;

	err = creation_new(fs, dir, mode, target, cred, &c);
	if (err)
		return err;
	if (S_ISCHR(mode) || S_ISBLK(mode))
		c->rdev = rdev;
	err = name_init(fs, &c->name, name, len);
	if (!err)
		err = create(c, out);
	free(c);
	return err;
}

int fs_tmpfile(struct fs *fs, uint64_t dir, uint32_t mode,
	       const struct cred *cred, struct attr *out)
{
	struct creation *c;
	int err;

	err = creation_new(fs, dir, S_IFREG | (mode & 07777), NULL, cred, &c);
	if (err)
		return err;
	c->unnamed = true;
	err = create(c, out);
	free(c);
	return err;
}
