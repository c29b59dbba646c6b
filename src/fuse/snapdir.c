/*
 * snapdir.c - .snapshots in the root directory: every snapshot as a directory
 *
 * It exists in no tree. Names in it come and go with snapshots, so the kernel
 * is not to remember them; what is inside a snapshot never changes and may be
 * kept for ever.
 */
#include <dirent.h>

#include "fuse/daemon.h"

bool snapdir_is_name(const struct nid *dir, const char *name)
{
	return dir->kind == NID_LIVE && dir->ino == COWFS_INO_ROOT &&
	       !strcmp(name, SNAPDIR_NAME);
}

void snapdir_attr(struct daemon *d, struct attr *out)
{
	struct timespec64 t = { .sec = atomic_load(&d->snapdir_sec) };

	*out = (struct attr){ .ino = SNAPDIR_INO, .gen = 1,
			      .mode = S_IFDIR | 0555, .nlink = 2,
			      .uid = d->owner, .atime = t, .mtime = t,
			      .ctime = t, .btime = t };
}

void snapdir_reply_entry(fuse_req_t req)
{
	struct daemon *d = req_daemon(req);
	struct nid n = { .kind = NID_LISTING, .ino = SNAPDIR_INO };
	struct fuse_entry_param e;
	struct attr a;

	snapdir_attr(d, &a);
	fill_entry(d, &n, &a, &e);
	e.attr_timeout = 1.0;
	fuse_reply_entry(req, &e);
}

/* The entry of a snapshot's root directory. */
static int root_entry(struct daemon *d, const struct nid *n,
		      struct fuse_entry_param *e)
{
	struct attr a;
	int err;

	err = fs_getattr(d->fs, n->view, COWFS_INO_ROOT, &a);
	if (err)
		return err;
	fill_entry(d, n, &a, e);
	e->entry_timeout = 0;
	return 0;
}

/* "." and ".." are asked for by file handles. */
static void lookup_dots(fuse_req_t req, bool up)
{
	struct daemon *d = req_daemon(req);
	struct nid root;
	struct attr a;
	int err;

	if (!up) {
		snapdir_reply_entry(req);
		return;
	}
	err = nid_get(d, COWFS_INO_ROOT, &root);
	if (!err)
		err = fs_getattr(d->fs, root.view, COWFS_INO_ROOT, &a);
	if (err)
		reply_err(req, err);
	else
		reply_entry(req, &root, &a);
}

void snapdir_lookup(fuse_req_t req, const char *name)
{
	struct daemon *d = req_daemon(req);
	struct fuse_entry_param e;
	struct view *v;
	struct nid n;
	int err;

	if (!strcmp(name, ".") || !strcmp(name, "..")) {
		lookup_dots(req, name[1]);
		return;
	}
	err = fs_view_open(d->fs, name, &v);
	/* No snapshot can have such a name. */
	if (err == -EINVAL)
		err = -ENOENT;
	if (!err)
		err = nid_of_view(d, v, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	/* The kernel's reference is one more: what it forgets while we answer
	 * must not take the view from under us. */
	err = root_entry(d, &n, &e);
	if (!err)
		err = nid_ref(d, &n, n.ino);
	if (err)
		reply_err(req, err);
	else if (fuse_reply_entry(req, &e))
		nid_put(d, &n);
	nid_put(d, &n);
}

static int dot(uint64_t after, uint64_t cookie, const char *name,
	       uint64_t ino, fs_readdir_fn *fn, void *arg)
{
	struct fs_dirent e = { .name = name, .len = strlen(name), .ino = ino,
			       .cookie = cookie, .type = DT_DIR };

	return after < cookie ? fn(arg, &e) : 0;
}

/* Cookies: 1 and 2 for the dots, then snapshot id + 2. The entries carry no
 * attributes: with READDIRPLUS that makes the kernel look them up. */
int snapdir_readdir(struct daemon *d, uint64_t after, fs_readdir_fn *fn,
		    void *arg)
{
	uint64_t id = after < 2 ? 0 : after - 1;
	struct snap_info s;
	int err;

	if (dot(after, 1, ".", SNAPDIR_INO, fn, arg) ||
	    dot(after, 2, "..", COWFS_INO_ROOT, fn, arg))
		return 0;
	for (;; id = s.id + 1) {
		struct fs_dirent e = { .name = s.name, .type = DT_DIR };

		err = snap_next(d->store, id, &s);
		if (err)
			return err == -ENOENT ? 0 : err;
		e.len = strlen(s.name);
		e.cookie = s.id + 2;
		e.ino = (1 + s.id % 65535) << NID_INO_BITS | COWFS_INO_ROOT;
		if (fn(arg, &e))
			return 0;
	}
}
