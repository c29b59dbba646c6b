/*
 * ops_node.c - callbacks for one inode: look up, forget, attributes
 */
#include "fuse/daemon.h"

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct daemon *d = req_daemon(req);
	struct attr a;
	struct nid n;
	int err;

	err = nid_enter(d, parent, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	if (n.kind == NID_LISTING) {
		snapdir_lookup(req, name);
	} else if (snapdir_is_name(&n, name)) {
		snapdir_reply_entry(req);
	} else {
		err = fs_lookup(d->fs, n.view, n.ino, name, strlen(name), &a);
		if (!err)
			reply_entry(req, &n, &a);
		else if (err == -ENOENT)
			reply_negative(req);
		else
			reply_err(req, err);
	}
	nid_leave(d, &n);
}

static void on_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	struct daemon *d = req_daemon(req);

	gate_enter(d);
	nid_forget(d, ino, nlookup);
	gate_leave(d);
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	struct daemon *d = req_daemon(req);

	gate_enter(d);
	for (size_t i = 0; i < count; i++)
		nid_forget(d, forgets[i].ino, forgets[i].nlookup);
	gate_leave(d);
	fuse_reply_none(req);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct attr a;
	struct nid n;
	int err;

	err = full_refuses(d, fi) ? -ENOSPC : nid_enter(d, ino, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	if (n.kind == NID_LISTING)
		snapdir_attr(d, &a);
	else
		err = fs_getattr(d->fs, n.view, n.ino, &a);
	if (err)
		reply_err(req, err);
	else
		reply_attr(req, &n, &a);
	nid_leave(d, &n);
}

static const struct {
	int fuse;
	unsigned fs;
} set_bits[] = {
	{ FUSE_SET_ATTR_MODE, FS_SET_MODE },
	{ FUSE_SET_ATTR_UID, FS_SET_UID },
	{ FUSE_SET_ATTR_GID, FS_SET_GID },
	{ FUSE_SET_ATTR_SIZE, FS_SET_SIZE },
	{ FUSE_SET_ATTR_ATIME, FS_SET_ATIME },
	{ FUSE_SET_ATTR_MTIME, FS_SET_MTIME },
	{ FUSE_SET_ATTR_CTIME, FS_SET_CTIME },
	{ FUSE_SET_ATTR_ATIME_NOW, FS_SET_ATIME_NOW },
	{ FUSE_SET_ATTR_MTIME_NOW, FS_SET_MTIME_NOW },
};

static struct timespec64 from_timespec(struct timespec t)
{
	return (struct timespec64){ .sec = t.tv_sec,
				    .nsec = (uint32_t)t.tv_nsec };
}

static unsigned set_from_stat(struct daemon *d, const struct stat *st,
			      int to_set, struct attr *a)
{
	unsigned what = 0;

	for (size_t i = 0; i < ARRAY_SIZE(set_bits); i++)
		if (to_set & set_bits[i].fuse)
			what |= set_bits[i].fs;
	/* Nothing to be set at all is how the kernel says, before a write, a
	 * fallocate or a copy, that set-id bits are to go. */
	if (worker_kill_priv(d) || !to_set)
		what |= FS_SET_KILL_PRIV;
	*a = (struct attr){ .mode = st->st_mode, .uid = st->st_uid,
			    .gid = st->st_gid, .size = (uint64_t)st->st_size,
			    .atime = from_timespec(st->st_atim),
			    .mtime = from_timespec(st->st_mtim),
			    .ctime = from_timespec(st->st_ctim) };
	return what;
}

/* The kernel writes back the times of a file that is gone already: nobody will
 * see them, but an error would come back to the next syncfs(2). */
static bool only_times(unsigned what)
{
	return what && !(what & ~(unsigned)(FS_SET_ATIME | FS_SET_MTIME |
					    FS_SET_CTIME));
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st,
		       int to_set, struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct cred cred = req_cred(req);
	struct attr set, a;
	unsigned what;
	struct nid n;
	int err;

	err = nid_enter_live(d, ino, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	what = set_from_stat(d, st, to_set, &set);
	err = fs_setattr(d->fs, n.ino, what, &set, &cred, &a);
	if (!only_times(what))
		err = file_changed(d, fi, err);
	if (err == -ESTALE && only_times(what)) {
		a = set;
		a.ino = n.ino;
		a.mode = S_IFREG;
		err = 0;
	}
	if (err && what & FS_SET_SIZE)
		range_in_doubt(d, ino, st->st_size, INT64_MAX - st->st_size);
	if (!err)
		reply_attr(req, &n, &a);
	else if (what & FS_SET_SIZE) /* rewrites a partial block */
		reply_data_err(req, err);
	else
		reply_err(req, err);
	nid_leave(d, &n);
}

static void on_readlink(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = req_daemon(req);
	char target[COWFS_SYMLINK_MAX + 1];
	size_t len = COWFS_SYMLINK_MAX;
	struct nid n;
	int err;

	err = nid_enter(d, ino, &n);
	if (!err) {
		err = n.kind == NID_LISTING ? -EINVAL :
		      fs_readlink(d->fs, n.view, n.ino, target, &len);
		nid_leave(d, &n);
	}
	if (err) {
		reply_err(req, err);
		return;
	}
	target[len] = '\0';
	fuse_reply_readlink(req, target);
}

static void on_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct daemon *d = req_daemon(req);
	struct fs_statfs s;
	struct statvfs v;
	int err;

	(void)ino;
	err = fs_statfs(d->fs, &s);
	if (err) {
		reply_err(req, err);
		return;
	}
	memset(&v, 0, sizeof(v));
	v.f_bsize = v.f_frsize = COWFS_BLOCK_SIZE;
	v.f_blocks = s.blocks;
	v.f_bfree = s.free;
	v.f_bavail = s.avail;
	v.f_files = s.files;
	v.f_ffree = v.f_favail = s.files_free;
	v.f_namemax = COWFS_NAME_MAX;
	fuse_reply_statfs(req, &v);
}

/* Only of a mount that is for root alone: root may all but execute what nobody
 * may, and change what is immutable or in a snapshot. */
static void on_access(fuse_req_t req, fuse_ino_t ino, int mask)
{
	struct daemon *d = req_daemon(req);
	struct attr a;
	struct nid n;
	int err;

	err = nid_enter(d, ino, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	if (n.kind != NID_LIVE && mask & W_OK)
		err = -EROFS;
	else if (n.kind != NID_LISTING && mask & (X_OK | W_OK))
		err = fs_getattr(d->fs, n.view, n.ino, &a);
	if (!err && n.kind != NID_LISTING && mask & (X_OK | W_OK)) {
		if (mask & W_OK && a.flags & COWFS_INODE_IMMUTABLE)
			err = -EPERM;
		else if (mask & X_OK && !S_ISDIR(a.mode) &&
			 !(a.mode & (S_IXUSR | S_IXGRP | S_IXOTH)))
			err = -EACCES;
	}
	reply_err(req, err);
	nid_leave(d, &n);
}

void ops_node(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = on_lookup;
	ops->forget = on_forget;
	ops->forget_multi = on_forget_multi;
	ops->getattr = on_getattr;
	ops->setattr = on_setattr;
	ops->readlink = on_readlink;
	ops->statfs = on_statfs;
	ops->access = on_access;
}
