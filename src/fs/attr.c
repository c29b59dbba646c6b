/*
 * attr.c - reading and changing attributes
 */
#include "fs/private.h"

#include <inttypes.h>
#include <sys/stat.h>

#define LOCKED_FLAGS (COWFS_INODE_IMMUTABLE | COWFS_INODE_APPEND)
#define NSEC_MAX 999999999u

/* ---- membership in groups ---- */

int member_ask(struct member *m, uint32_t gid, bool *in)
{
	const struct cred *c = m->cred;

	if (!c || !c->uid || c->gid == gid) {
		*in = true;
	} else if (!c->in_group) {
		*in = false;
	} else if (m->known && m->gid == gid) {
		*in = m->in;
	} else {
		m->gid = gid;
		m->known = false;
		return -ERESTART;
	}
	return 0;
}

bool member_retry(struct member *m, int err)
{
	if (err != -ERESTART)
		return false;
	m->in = m->cred->in_group(m->cred->arg, m->gid);
	m->known = true;
	return true;
}

/* ---- getattr ---- */

static int getattr_locked(struct fs *fs, struct view *v, uint64_t ino,
			  struct cowfs_disk_inode *d)
{
	struct tree *t = view_tree(fs, v);

	return t ? inode_read(t, ino, d) : -ESTALE;
}

int fs_getattr(struct fs *fs, struct view *v, uint64_t ino, struct attr *out)
{
	struct cowfs_disk_inode d;
	struct op op;
	int err;

	op_read(&op, fs->s);
	do
		err = getattr_locked(fs, v, ino, &d);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err)
		inode_to_attr(&d, ino, out);
	return err;
}

/* ---- setattr ---- */

#define WHAT_OWNER (FS_SET_UID | FS_SET_GID)
#define WHAT_TIMES (FS_SET_ATIME | FS_SET_MTIME | FS_SET_CTIME)

struct change {
	struct fs *fs;
	uint64_t ino;
	unsigned what;
	enum alloc_class cls;
	const struct attr *set;
	struct member member;
	struct cowfs_disk_inode d;
	size_t acl_len;   /* 0: no access ACL to change */
	bool capability;  /* security.capability is to go */
	uint8_t acl[ACL_BYTES_MAX];
};

static bool same_time(struct timespec64 a, struct timespec64 b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static bool earlier(struct timespec64 a, struct timespec64 b)
{
	return a.sec < b.sec || (a.sec == b.sec && a.nsec < b.nsec);
}

/* The kernel writes back the times of what was written through a handle; it may
 * have been opened before the file was made immutable or append-only. */
static bool writes_back(const struct change *c)
{
	return c->what == (FS_SET_MTIME | FS_SET_CTIME) &&
	       fs_is_written(c->fs, c->ino);
}

/* What an append-only file still accepts: "now", and what the kernel sends when
 * it writes back times, of data or of ctime alone. */
static bool append_accepts(const struct change *c)
{
	unsigned what = c->what;

	if (writes_back(c))
		return true;
	if (what & FS_SET_ATIME_NOW)
		what &= ~(unsigned)FS_SET_ATIME;
	if (what & FS_SET_MTIME_NOW)
		what &= ~(unsigned)FS_SET_MTIME;
	what &= ~(unsigned)(FS_SET_FLAGS | FS_SET_KILL_PRIV |
			    FS_SET_ATIME_NOW | FS_SET_MTIME_NOW);
	if (what == (FS_SET_MTIME | FS_SET_CTIME))
		return same_time(c->set->mtime, c->set->ctime) ||
		       same_time(c->set->mtime, time_from_disk(c->d.mtime));
	return !what || what == FS_SET_CTIME;
}

static int check_flags(const struct change *c)
{
	uint32_t old = from_le32(c->d.flags) & COWFS_INODE_USER_FLAGS;
	const struct cred *cred = c->member.cred;

	if (!(c->what & FS_SET_FLAGS))
		return 0;
	if (c->set->flags & ~COWFS_INODE_USER_FLAGS)
		return -EOPNOTSUPP;
	if (!cred || !cred->uid)
		return 0;
	if (cred->uid != from_le32(c->d.uid) ||
	    ((c->set->flags ^ old) & LOCKED_FLAGS))
		return -EPERM;
	return 0;
}

static int check(const struct change *c)
{
	uint32_t flags = from_le32(c->d.flags), mode = from_le32(c->d.mode);

	if ((flags & COWFS_INODE_IMMUTABLE) &&
	    (c->what & ~(unsigned)FS_SET_FLAGS) && !writes_back(c))
		return -EPERM;
	if ((flags & COWFS_INODE_APPEND) && !append_accepts(c))
		return -EPERM;
	if (c->what & FS_SET_SIZE) {
		if (S_ISDIR(mode))
			return -EISDIR;
		if (!S_ISREG(mode))
			return -EINVAL;
		if (c->set->size > COWFS_FILE_SIZE_MAX)
			return -EFBIG;
	}
	if ((c->what & FS_SET_MODE) && S_ISLNK(mode))
		return -EOPNOTSUPP;
	if (((c->what & FS_SET_ATIME) && c->set->atime.nsec > NSEC_MAX) ||
	    ((c->what & FS_SET_MTIME) && c->set->mtime.nsec > NSEC_MAX) ||
	    ((c->what & FS_SET_CTIME) && c->set->ctime.nsec > NSEC_MAX))
		return -EINVAL;
	return check_flags(c);
}

/* Changing the owner takes away what would let the file act for the new one. */
static int new_owner(struct change *c)
{
	uint32_t mode = from_le32(c->d.mode), gid = from_le32(c->d.gid);
	bool in;
	int err;

	if (!S_ISDIR(mode)) {
		mode &= ~(uint32_t)S_ISUID;
		if ((mode & S_ISGID) && !(mode & S_IXGRP)) {
			err = member_ask(&c->member, gid, &in);
			if (err)
				return err;
			if (!in)
				mode &= ~(uint32_t)S_ISGID;
		} else {
			mode &= ~(uint32_t)S_ISGID;
		}
		c->d.mode = to_le32(mode);
	}
	if (c->what & FS_SET_UID)
		c->d.uid = to_le32(c->set->uid);
	if (c->what & FS_SET_GID)
		c->d.gid = to_le32(c->set->gid);
	return 0;
}

static int new_mode(struct change *c)
{
	uint32_t mode = (from_le32(c->d.mode) & S_IFMT) |
			(c->set->mode & 07777);
	bool in;
	int err;

	if (mode & S_ISGID) {
		err = member_ask(&c->member, from_le32(c->d.gid), &in);
		if (err)
			return err;
		if (!in)
			mode &= ~(uint32_t)S_ISGID;
	}
	c->d.mode = to_le32(mode);
	return 0;
}

/* Somebody's utimensat(2) looks like the kernel's writing back: where only the
 * latter is allowed, the time does not go back, nor beyond now. */
static bool may_be_mtime(const struct change *c)
{
	return !(from_le32(c->d.flags) & LOCKED_FLAGS) || !writes_back(c) ||
	       (!earlier(c->set->mtime, time_from_disk(c->d.mtime)) &&
		!earlier(c->set->ctime, c->set->mtime));
}

static void new_times(struct change *c)
{
	unsigned what = c->what;
	struct cowfs_disk_time now;

	if (what & FS_SET_CTIME)
		now_real_after(c->set->ctime);
	now = time_to_disk(now_real());
	if (what & FS_SET_ATIME)
		c->d.atime = time_to_disk(c->set->atime);
	if (what & FS_SET_MTIME && may_be_mtime(c))
		c->d.mtime = time_to_disk(c->set->mtime);
	if (what & FS_SET_ATIME_NOW)
		c->d.atime = now;
	if (what & FS_SET_MTIME_NOW)
		c->d.mtime = now;
	c->d.ctime = what & FS_SET_CTIME ? time_to_disk(c->set->ctime) : now;
}

static int kill_suid(struct change *c)
{
	bool member = true;
	int err = 0;

	if (from_le32(c->d.mode) & S_ISGID)
		err = member_ask(&c->member, from_le32(c->d.gid), &member);
	if (!err)
		inode_kill_suid(&c->d, member);
	return err;
}

/* The inode as it will be. */
static int apply(struct change *c)
{
	int err = 0;

	if (c->what & WHAT_OWNER)
		err = new_owner(c);
	else if (c->what & FS_SET_KILL_PRIV)
		err = kill_suid(c);
	if (!err && (c->what & FS_SET_MODE))
		err = new_mode(c);
	if (err)
		return err;
	if (c->what & FS_SET_FLAGS)
		c->d.flags = to_le32((from_le32(c->d.flags) &
				      ~COWFS_INODE_USER_FLAGS) |
				     c->set->flags);
	new_times(c);
	return 0;
}

static int prepare_acl(struct change *c)
{
	struct tree *t = &c->fs->s->fs;
	int err;

	c->acl_len = 0;
	if (!(c->what & FS_SET_MODE) ||
	    !(from_le32(c->d.flags) & COWFS_INODE_ACL))
		return 0;
	err = xattr_get_locked(c->fs, t, c->ino, ACL_ACCESS_NAME, c->acl,
			       sizeof(c->acl), &c->acl_len);
	if (err == -ENODATA)
		return 0;
	if (err == -ERANGE || (!err && acl_check(c->acl, c->acl_len)))
		err = report(-ECOW_CORRUPT, "inode %" PRIu64
			     ": impossible ACL", c->ino);
	if (err)
		return err;
	acl_chmod(c->acl, c->acl_len, from_le32(c->d.mode));
	return xattr_prepare(c->fs, c->ino, ACL_ACCESS_NAME, c->acl_len);
}

static int prepare_capability(struct change *c)
{
	size_t len;
	int err;

	c->capability = false;
	if (!(c->what & (WHAT_OWNER | FS_SET_KILL_PRIV)) ||
	    !S_ISREG(from_le32(c->d.mode)))
		return 0;
	err = xattr_get_locked(c->fs, &c->fs->s->fs, c->ino, CAPABILITY_NAME,
			       NULL, 0, &len);
	if (err)
		return err == -ENODATA ? 0 : err;
	c->capability = true;
	return xattr_prepare(c->fs, c->ino, CAPABILITY_NAME, 0);
}

static int setattr_locked(struct change *c)
{
	struct key k = INODE_KEY(c->ino);
	struct fs *fs = c->fs;
	int err;

	err = inode_read(&fs->s->fs, c->ino, &c->d);
	if (!err)
		err = check(c);
	if (!err)
		err = apply(c);
	if (!err)
		err = prepare_acl(c);
	if (!err)
		err = prepare_capability(c);
	if (!err)
		err = tree_prepare(&fs->s->fs, &k);
	if (!err && c->acl_len)
		err = xattr_set_locked(fs, c->ino, ACL_ACCESS_NAME, c->acl,
				       c->acl_len, &c->d);
	if (!err && c->capability)
		err = xattr_remove_locked(fs, c->ino, CAPABILITY_NAME, &c->d);
	return err ? err : inode_write(fs, c->ino, &c->d);
}

static int change(struct change *c)
{
	struct op op;
	int err;

	do {
		err = fs_op_write(c->fs, &op, c->cls, 5);
		if (err)
			return err;
		do
			err = setattr_locked(c);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	} while (member_retry(&c->member, err));
	return err;
}

/* All reasons to refuse, before the size is changed in steps. */
static int check_first(struct change *c)
{
	struct op op;
	int err;

	if (c->fs->opt.readonly)
		return -EROFS;
	op_read(&op, c->fs->s);
	do {
		err = inode_read(&c->fs->s->fs, c->ino, &c->d);
		if (!err)
			err = check(c);
	} while (op_again(&op, &err));
	return op_end(&op, err);
}

static int change_only(struct change *c, unsigned part)
{
	unsigned what = c->what;
	int err;

	c->what = part;
	err = change(c);
	c->what = what;
	return err;
}

static int set_size(struct change *c)
{
	struct inode *in;
	int err;

	err = check_first(c);
	/* What a new content must not have goes before it. */
	if (!err && c->what & FS_SET_KILL_PRIV)
		err = change_only(c, FS_SET_KILL_PRIV);
	if (err)
		return err;
	in = inode_get(c->fs, c->ino);
	if (!in)
		return -ENOMEM;
	mutex_lock(&in->lock);
	err = file_truncate(c->fs, in, c->set->size);
	mutex_unlock(&in->lock);
	inode_put(c->fs, in);
	return err;
}

int fs_setattr(struct fs *fs, uint64_t ino, unsigned what,
	       const struct attr *set, const struct cred *cred,
	       struct attr *out)
{
	struct change *c;
	int err = 0;

	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	memset(c, 0, offsetof(struct change, acl));
	c->fs = fs;
	c->ino = ino;
	c->what = what;
	/* Half the reserve: times must be stored on a full disk. */
	c->cls = ALLOC_FREEING;
	c->set = set;
	c->member.cred = cred;
	if (what & FS_SET_SIZE) {
		err = set_size(c);
		c->what &= ~(unsigned)(FS_SET_SIZE | FS_SET_KILL_PRIV);
		/* What belongs to a size that is new must not fail. */
		c->cls = ALLOC_INTERNAL;
	}
	if (!err && c->what) {
		err = change(c);
		if (!err)
			inode_to_attr(&c->d, ino, out);
	} else if (!err) {
		err = fs_getattr(fs, &fs->live, ino, out);
	}
	free(c);
	return err;
}
