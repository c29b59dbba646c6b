/*
 * xattr_ops.c - extended attributes as callers see them: names, flags, ACLs
 */
#include "fs/private.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#define LOCKED_FLAGS (COWFS_INODE_IMMUTABLE | COWFS_INODE_APPEND)

enum kind { KIND_PLAIN, KIND_ACCESS, KIND_DEFAULT };

static int check_name(const char *name, enum kind *kind)
{
	static const char *const spaces[] = { "user.", "trusted.",
					      "security." };
	size_t i, n, len = strlen(name);

	if (!len || len > COWFS_NAME_MAX)
		return -ERANGE;
	*kind = KIND_PLAIN;
	for (i = 0; i < ARRAY_SIZE(spaces); i++) {
		n = strlen(spaces[i]);
		if (!strncmp(name, spaces[i], n))
			return name[n] ? 0 : -EINVAL;
	}
	if (!strcmp(name, ACL_ACCESS_NAME))
		*kind = KIND_ACCESS;
	else if (!strcmp(name, ACL_DEFAULT_NAME))
		*kind = KIND_DEFAULT;
	else
		return -EOPNOTSUPP;
	return 0;
}

/* ---- reading ---- */

struct get {
	struct fs *fs;
	struct view *v;
	uint64_t ino;
	const char *name; /* NULL: list */
	enum kind kind;
	void *buf;
	size_t size, len;
};

static int get_locked(struct get *g)
{
	struct tree *t = view_tree(g->fs, g->v);
	struct cowfs_disk_inode d;
	int err;

	if (!t)
		return -ESTALE;
	err = inode_read(t, g->ino, &d);
	if (err)
		return err;
	if (!g->name)
		return xattr_list_locked(t, g->ino, g->buf, g->size, &g->len);
	if (g->kind != KIND_PLAIN && !(from_le32(d.flags) & COWFS_INODE_ACL))
		return -ENODATA;
	return xattr_get_locked(g->fs, t, g->ino, g->name, g->buf, g->size,
				&g->len);
}

static int get(struct get *g, size_t *len)
{
	struct op op;
	int err;

	op_read(&op, g->fs->s);
	do
		err = get_locked(g);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err)
		*len = g->len;
	return err;
}

int fs_getxattr(struct fs *fs, struct view *v, uint64_t ino, const char *name,
		void *buf, size_t size, size_t *len)
{
	struct get g = { .fs = fs, .v = v, .ino = ino, .name = name,
			 .buf = buf, .size = size };
	int err;

	err = check_name(name, &g.kind);
	return err ? err : get(&g, len);
}

int fs_listxattr(struct fs *fs, struct view *v, uint64_t ino, char *buf,
		 size_t size, size_t *len)
{
	struct get g = { .fs = fs, .v = v, .ino = ino, .buf = buf,
			 .size = size };

	return get(&g, len);
}

/* ---- changing ---- */

struct set {
	struct fs *fs;
	uint64_t ino;
	const char *name;
	enum kind kind;
	const void *val;
	size_t len;
	int flags;
	bool remove;
	struct member member;
	struct cowfs_disk_inode d;
};

static int exists(struct set *s, const char *name, bool *there)
{
	size_t len;
	int err;

	err = xattr_get_locked(s->fs, &s->fs->s->fs, s->ino, name, NULL, 0,
			       &len);
	*there = !err;
	return err == -ENODATA ? 0 : err;
}

/* An access ACL is the mode in more words. *minimal: in no more words. */
static int mode_from_acl(struct set *s, bool *minimal)
{
	uint32_t mode = from_le32(s->d.mode);
	bool in;
	int err;

	if (mode & S_ISGID) {
		err = member_ask(&s->member, from_le32(s->d.gid), &in);
		if (err)
			return err;
		if (!in)
			mode &= ~(uint32_t)S_ISGID;
	}
	acl_to_mode(s->val, s->len, &mode, minimal);
	s->d.mode = to_le32(mode);
	return 0;
}

/* *drop: nothing is to be stored. */
static int check_acl(struct set *s, bool *drop)
{
	uint32_t mode = from_le32(s->d.mode);

	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	if (*drop)
		return 0;
	if (s->kind == KIND_DEFAULT)
		return S_ISDIR(mode) ? 0 : -EACCES;
	return mode_from_acl(s, drop);
}

static int acl_flag(struct set *s, bool drop)
{
	uint32_t flags = from_le32(s->d.flags);
	bool other;
	int err;

	err = exists(s, s->kind == KIND_ACCESS ? ACL_DEFAULT_NAME
					       : ACL_ACCESS_NAME, &other);
	if (err)
		return err;
	if (drop && !other)
		flags &= ~COWFS_INODE_ACL;
	else
		flags |= COWFS_INODE_ACL;
	s->d.flags = to_le32(flags);
	return 0;
}

static int check(struct set *s, bool *drop, bool *there)
{
	int err;

	err = inode_read(&s->fs->s->fs, s->ino, &s->d);
	if (err)
		return err;
	if (from_le32(s->d.flags) & LOCKED_FLAGS)
		return -EPERM;
	err = exists(s, s->name, there);
	if (err)
		return err;
	if (*there && (s->flags & XATTR_CREATE))
		return -EEXIST;
	if (!*there && (s->remove || (s->flags & XATTR_REPLACE)))
		return -ENODATA;
	if (s->kind == KIND_PLAIN)
		return 0;
	err = check_acl(s, drop);
	return err ? err : acl_flag(s, *drop);
}

static int set_locked(struct set *s)
{
	struct key k = INODE_KEY(s->ino);
	struct fs *fs = s->fs;
	bool drop = s->remove, there;
	int err;

	/* An ACL of no entries is none. */
	if (s->kind != KIND_PLAIN && !s->val)
		drop = true;
	err = check(s, &drop, &there);
	if (!err)
		err = tree_prepare(&fs->s->fs, &k);
	if (!err && (there || !drop))
		err = xattr_prepare(fs, s->ino, s->name, drop ? 0 : s->len);
	if (err)
		return err;
	if (!drop)
		err = xattr_set_locked(fs, s->ino, s->name, s->val, s->len,
				       &s->d);
	else if (there)
		err = xattr_remove_locked(fs, s->ino, s->name, &s->d);
	if (err)
		return err;
	inode_touch(&s->d, false);
	return inode_write(fs, s->ino, &s->d);
}

static int change(struct set *s)
{
	struct fs *fs = s->fs;
	/* an external value's items fill a quarter of a leaf each */
	unsigned leaves = 4 + (unsigned)(4 * s->len /
					 forest_node_size(fs->s->forest));
	struct op op;
	int err;

	do {
		err = fs_op_write(fs, &op, s->remove ? ALLOC_FREEING
						     : ALLOC_NORMAL, leaves);
		if (err)
			return err;
		do
			err = set_locked(s);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	} while (member_retry(&s->member, err));
	return err;
}

int fs_setxattr(struct fs *fs, uint64_t ino, const char *name,
		const void *val, size_t len, int flags,
		const struct cred *cred)
{
	struct set s = { .fs = fs, .ino = ino, .name = name, .val = val,
			 .len = len, .flags = flags,
			 .member = { .cred = cred } };
	int err;

	err = check_name(name, &s.kind);
	if (err)
		return err;
	if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) ||
	    flags == (XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (len > COWFS_XATTR_SIZE_MAX)
		return -E2BIG;
	if (s.kind != KIND_PLAIN) {
		if (len <= sizeof(struct le32)) {
			s.val = NULL;
		} else {
			if (len > ACL_BYTES_MAX)
				return -E2BIG;
			err = acl_check(val, len);
			if (err)
				return err;
		}
	}
	return change(&s);
}

int fs_removexattr(struct fs *fs, uint64_t ino, const char *name)
{
	struct set s = { .fs = fs, .ino = ino, .name = name, .remove = true };
	int err;

	err = check_name(name, &s.kind);
	return err ? err : change(&s);
}
