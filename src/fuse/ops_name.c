/*
 * ops_name.c - callbacks that make, move and remove names
 */
#include <sys/sysmacros.h>

#include "fuse/daemon.h"

/* The directory a name is to change in: of the live tree, and the name not
 * that of the virtual directory. G on success. */
static int enter_dir(struct daemon *d, fuse_ino_t id, const char *name,
		     int if_snapdir, struct nid *n)
{
	int err;

	err = nid_enter_live(d, id, n);
	if (!err && snapdir_is_name(n, name)) {
		err = if_snapdir;
		nid_leave(d, n);
	}
	return err;
}

int name_changed(struct daemon *d, int err)
{
	if (err || !d->opt->dirsync)
		return err;
	return fs_fsync(d->fs, COWFS_INO_ROOT, false);
}

static void create_entry(fuse_req_t req, fuse_ino_t parent, const char *name,
			 uint32_t mode, uint32_t rdev, const char *target)
{
	struct daemon *d = req_daemon(req);
	struct cred cred = req_cred(req);
	struct attr a;
	struct nid n;
	int err;

	err = enter_dir(d, parent, name, -EEXIST, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	err = fs_create(d->fs, n.ino, name, strlen(name), mode, rdev, target,
			&cred, &a);
	err = name_changed(d, err);
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &n, &a);
	nid_leave(d, &n);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode, dev_t rdev)
{
	create_entry(req, parent, name, mode,
		     major(rdev) << 20 | (minor(rdev) & 0xfffff), NULL);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name,
		     mode_t mode)
{
	create_entry(req, parent, name, S_IFDIR | (mode & ~(mode_t)S_IFMT), 0,
		     NULL);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		       const char *name)
{
	create_entry(req, parent, name, S_IFLNK | 0777, 0, target);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct daemon *d = req_daemon(req);
	struct nid n;
	int err;

	err = enter_dir(d, parent, name, -EISDIR, &n);
	if (!err) {
		err = fs_unlink(d->fs, n.ino, name, strlen(name), NULL);
		err = name_changed(d, err);
		nid_leave(d, &n);
	}
	reply_err(req, err);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct daemon *d = req_daemon(req);
	struct nid n;
	int err;

	err = enter_dir(d, parent, name, -EBUSY, &n);
	if (!err) {
		err = fs_rmdir(d->fs, n.ino, name, strlen(name), NULL);
		err = name_changed(d, err);
		nid_leave(d, &n);
	}
	reply_err(req, err);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t newparent, const char *newname,
		      unsigned flags)
{
	struct daemon *d = req_daemon(req);
	struct nid from, to;
	int err;

	err = enter_dir(d, parent, name, -EBUSY, &from);
	if (!err) {
		err = nid_get_live(d, newparent, &to);
		if (!err && snapdir_is_name(&to, newname))
			err = -EBUSY;
		if (!err)
			err = fs_rename(d->fs, from.ino, name, strlen(name),
					to.ino, newname, strlen(newname),
					flags);
		err = name_changed(d, err);
		nid_leave(d, &from);
	}
	reply_err(req, err);
}

static void on_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent,
		    const char *newname)
{
	struct daemon *d = req_daemon(req);
	struct nid n, dir;
	struct attr a;
	int err;

	err = enter_dir(d, newparent, newname, -EEXIST, &dir);
	if (err) {
		reply_err(req, err);
		return;
	}
	err = nid_get_live(d, ino, &n);
	if (!err)
		err = fs_link(d->fs, n.ino, dir.ino, newname, strlen(newname),
			      &a);
	err = name_changed(d, err);
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &dir, &a);
	nid_leave(d, &dir);
}

void ops_name(struct fuse_lowlevel_ops *ops)
{
	ops->mknod = on_mknod;
	ops->mkdir = on_mkdir;
	ops->symlink = on_symlink;
	ops->unlink = on_unlink;
	ops->rmdir = on_rmdir;
	ops->rename = on_rename;
	ops->link = on_link;
}
