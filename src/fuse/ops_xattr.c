/*
 * ops_xattr.c - callbacks for extended attributes
 *
 * The kernel checks who may touch which namespace; ACLs, too, come as
 * attributes (POSIX_ACL). Where that is off (session.c), it does not expect an
 * ACL to change the mode, and is told.
 */
#include <linux/limits.h>

#include "fuse/daemon.h"

/* Answer a query of `size` bytes (0: only the length is wanted). */
static void reply_value(fuse_req_t req, size_t size, const void *buf,
			size_t len)
{
	if (size)
		fuse_reply_buf(req, buf, len);
	else
		fuse_reply_xattr(req, len);
}

static void on_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			size_t size)
{
	struct daemon *d = req_daemon(req);
	void *buf = worker_buf(d, size);
	size_t len = 0;
	struct nid n;
	int err;

	err = buf ? nid_enter(d, ino, &n) : -ENOMEM;
	if (!err) {
		err = n.kind == NID_LISTING ? -ENODATA :
		      fs_getxattr(d->fs, n.view, n.ino, name, buf, size, &len);
		nid_leave(d, &n);
	}
	if (err)
		reply_err(req, err);
	else
		reply_value(req, size, buf, len);
}

/* Names that only root may know of are left out; what is left is as long. */
static size_t without_trusted(char *list, size_t len)
{
	static const char trusted[] = "trusted.";
	size_t n, left = 0;

	for (size_t at = 0; at < len; at += n) {
		n = strlen(list + at) + 1;
		if (!strncmp(list + at, trusted, sizeof(trusted) - 1))
			continue;
		memmove(list + left, list + at, n);
		left += n;
	}
	return left;
}

/* The kernel shows what it is told to whoever asks, and who copies all that is
 * listed stumbles over what he can't have. */
static void on_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	struct daemon *d = req_daemon(req);
	bool all = !fuse_req_ctx(req)->uid;
	size_t len = 0, room = all ? size : max_u64(size, XATTR_LIST_MAX);
	void *buf = worker_buf(d, room);
	struct nid n;
	int err;

	err = buf ? nid_enter(d, ino, &n) : -ENOMEM;
	if (!err) {
		if (n.kind != NID_LISTING)
			err = fs_listxattr(d->fs, n.view, n.ino, buf, room,
					   &len);
		nid_leave(d, &n);
	}
	if (!err && !all) {
		len = without_trusted(buf, len);
		err = size && len > size ? -ERANGE : 0;
	}
	if (err)
		reply_err(req, err);
	else
		reply_value(req, size, buf, len);
}

static bool is_acl(const char *name)
{
	static const char acl[] = "system.posix_acl_";

	return !strncmp(name, acl, sizeof(acl) - 1);
}

static void mode_may_differ(struct daemon *d, fuse_ino_t ino,
			    const char *name)
{
	if (d->root_only && is_acl(name))
		inval_attr(d, ino);
}

static void on_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name,
			const char *value, size_t size, int flags)
{
	struct daemon *d = req_daemon(req);
	struct cred cred = req_cred(req);
	struct nid n;
	int err;

	err = nid_enter_live(d, ino, &n);
	if (!err) {
		err = fs_setxattr(d->fs, n.ino, name, value, size, flags,
				  &cred);
		err = file_changed(d, NULL, err);
		nid_leave(d, &n);
	}
	if (!err)
		mode_may_differ(d, ino, name);
	reply_err(req, err);
}

static void on_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	struct daemon *d = req_daemon(req);
	struct nid n;
	int err;

	err = nid_enter_live(d, ino, &n);
	if (!err) {
		err = fs_removexattr(d->fs, n.ino, name);
		err = file_changed(d, NULL, err);
		nid_leave(d, &n);
	}
	if (err == -ENODATA && is_acl(name))
		err = 0; /* as other filesystems have it */
	if (!err)
		mode_may_differ(d, ino, name);
	reply_err(req, err);
}

void ops_xattr(struct fuse_lowlevel_ops *ops)
{
	ops->getxattr = on_getxattr;
	ops->listxattr = on_listxattr;
	ops->setxattr = on_setxattr;
	ops->removexattr = on_removexattr;
}
