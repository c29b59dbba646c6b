/*
 * ops_file.c - callbacks for open files and their contents
 *
 * A handle is a few bits (daemon.h); all else the node id says. Files in
 * snapshots have no handles in the fs layer: they can't change or go away while
 * the kernel knows them.
 */
#include <fcntl.h>

#include "fuse/daemon.h"

#define KICK_MS 1000 /* after the last writer closed */
#define BLOCKS_NS UINT64_C(1000000000)

static bool wants_write(int flags)
{
	return (flags & O_ACCMODE) != O_RDONLY;
}

static void set_handle(struct fuse_file_info *fi)
{
	fi->fh = wants_write(fi->flags) ? HANDLE_WRITES : 0;
	if (fi->flags & O_DSYNC) /* which O_SYNC has, too */
		fi->fh |= HANDLE_SYNC;
	/* Nobody but the kernel changes files: its pages stay right. */
	fi->keep_cache = 1;
}

/* (What it has in its cache the kernel makes durable by itself: FSYNC follows.) */
int file_changed(struct daemon *d, const struct fuse_file_info *fi, int err)
{
	if (err || !(d->opt->sync || (fi && fi->fh & HANDLE_SYNC)))
		return err;
	return fs_fsync(d->fs, COWFS_INO_ROOT, false);
}

static void drop_handle(struct daemon *d, uint64_t ino, bool write)
{
	bool last = false;

	fs_release(d->fs, ino, write, &last);
	if (write && last)
		store_kick(d->store, KICK_MS);
}

/* The kernel marks the time of an empty file, too. */
static int truncate_open(struct daemon *d, fuse_req_t req, uint64_t ino)
{
	struct attr set = { .size = 0 }, a;
	struct cred cred = req_cred(req);
	unsigned what = FS_SET_SIZE | FS_SET_MTIME_NOW;
	int err;

	if (worker_kill_priv(d))
		what |= FS_SET_KILL_PRIV;
	err = fs_setattr(d->fs, ino, what, &set, &cred, &a);
	err = file_changed(d, NULL, err);
	if (err)
		range_in_doubt(d, nid_live(d, ino), 0, INT64_MAX);
	return err;
}

/* What the kernel reads from its cache it does not tell of: that the file was
 * opened has to do for the access time. (Whoever opens it keeps it in memory, so
 * this notification waits for nothing.) */
static int open_cached(struct daemon *d, uint64_t ino, int flags)
{
	bool noted, write = wants_write(flags);
	int err;

	if ((flags & O_ACCMODE) == O_WRONLY || flags & (O_NOATIME | O_TRUNC))
		return fs_open(d->fs, ino, write, flags & O_APPEND);
	err = fs_open_cached(d->fs, ino, write, flags & O_APPEND, &noted);
	if (!err && noted)
		inval_attr(d, nid_live(d, ino));
	return err;
}

static int open_live(struct daemon *d, fuse_req_t req, uint64_t ino, int flags)
{
	bool write = wants_write(flags);
	int err;

	err = open_cached(d, ino, flags);
	if (err)
		return err;
	if (flags & O_TRUNC)
		err = truncate_open(d, req, ino);
	if (err)
		drop_handle(d, ino, write);
	return err;
}

/*
 * Who has opened an append-only file may not change what is in it by taking
 * O_APPEND away (fcntl) or through a mapping: the kernel, which knows nothing of
 * it, holds back none of his writes, so that each is looked at, and maps nothing.
 */
static bool only_appends(struct daemon *d, const struct nid *n, int flags)
{
	struct attr a;

	if (n->kind != NID_LIVE || !wants_write(flags) || !(flags & O_APPEND))
		return false;
	return !fs_getattr(d->fs, n->view, n->ino, &a) &&
	       a.flags & COWFS_INODE_APPEND;
}

static int open_snapshot(const struct nid *n, int flags)
{
	if (n->kind == NID_LISTING)
		return -EISDIR;
	return wants_write(flags) || flags & O_TRUNC ? -EROFS : 0;
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct nid n;
	int err;

	err = nid_enter(d, ino, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	if (n.kind == NID_LIVE)
		err = open_live(d, req, n.ino, fi->flags);
	else
		err = open_snapshot(&n, fi->flags);
	set_handle(fi);
	fi->direct_io = !err && only_appends(d, &n, fi->flags);
	if (fi->direct_io)
		fi->fh |= HANDLE_APPENDS;
	if (err)
		reply_data_err(req, err);
	else if (fuse_reply_open(req, fi) && n.kind == NID_LIVE)
		drop_handle(d, n.ino, fi->fh & HANDLE_WRITES);
	nid_leave(d, &n);
}

/*
 * Without O_EXCL the kernel asks for this only if it believes that there is no
 * such name. If there is one (a restore brought it back meanwhile), nobody has
 * checked who may open it: -ESTALE has the kernel look the name up and decide
 * anew.
 */
static int make_file(struct daemon *d, fuse_req_t req, uint64_t dir,
		     const char *name, uint32_t mode, int flags,
		     struct attr *a)
{
	struct cred cred = req_cred(req);
	int err;

	err = fs_create(d->fs, dir, name, strlen(name),
			S_IFREG | (mode & 07777), 0, NULL, &cred, a);
	if (err == -EEXIST && !(flags & O_EXCL))
		return -ESTALE;
	return name_changed(d, err);
}

static int create_file(struct daemon *d, fuse_req_t req, const struct nid *n,
		       const char *name, mode_t mode, int flags,
		       struct attr *a)
{
	int err;

	if (snapdir_is_name(n, name))
		return -EEXIST;
	err = make_file(d, req, n->ino, name, mode, flags, a);
	if (err)
		return err;
	err = nid_ref(d, n, a->ino);
	if (err)
		return err;
	err = open_live(d, req, a->ino, flags & ~O_TRUNC);
	if (err)
		nid_unref(d, n, a->ino, 1);
	return err;
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct fuse_entry_param e;
	struct attr a;
	struct nid n;
	int err;

	err = nid_enter_live(d, parent, &n);
	if (err) {
		reply_err(req, err);
		return;
	}
	err = create_file(d, req, &n, name, mode, fi->flags, &a);
	if (err) {
		reply_err(req, err);
	} else {
		set_handle(fi);
		fill_entry(d, &n, &a, &e);
		if (fuse_reply_create(req, &e, fi)) {
			drop_handle(d, a.ino, fi->fh & HANDLE_WRITES);
			nid_unref(d, &n, a.ino, 1);
		}
	}
	nid_leave(d, &n);
}

/*
 * Of what goes past its cache the kernel does not note the time, and takes no
 * other than its own for a file that it knows. So it is made to forget this one.
 * (While somebody has it open it goes on with the old time.)
 */
static void forget_times(struct daemon *d, fuse_ino_t ino)
{
	struct job job = { .kind = JOB_PRUNE, .ino = ino };

	if (control_add(d, &job))
		log_msg(LOG_LVL_DEBUG, "no memory: an append-only file may be "
			"seen with an old time");
}

static void on_release(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);

	/* Whatever epoch the id is of: the handle is the inode number's. */
	if (!(ino & NID_VIEW)) {
		gate_enter(d);
		drop_handle(d, ino & NID_INO_MASK, fi->fh & HANDLE_WRITES);
		gate_leave(d);
	}
	fuse_reply_err(req, 0);
	if (fi->fh & HANDLE_APPENDS)
		forget_times(d, ino);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	size_t got = 0;
	struct nid n;
	void *buf;
	int err;

	buf = worker_buf(d, size);
	if (!buf || off < 0) {
		reply_err(req, buf ? -EINVAL : -ENOMEM);
		return;
	}
	err = nid_enter(d, ino, &n);
	if (!err) {
		if (n.kind == NID_LISTING)
			err = -EISDIR;
		else if (fi->flags & O_NOATIME)
			err = fs_read_quietly(d->fs, n.view, n.ino,
					      (uint64_t)off, buf, size, &got);
		else
			err = fs_read(d->fs, n.view, n.ino, (uint64_t)off, buf,
				      size, &got);
		nid_leave(d, &n);
	}
	if (err)
		reply_data_err(req, err);
	else
		fuse_reply_buf(req, buf, got);
}

/* Past its cache the kernel leaves it to us: it says with each write what the
 * file, the mount or the call (RWF_DSYNC) asks for. */
static bool wants_sync(const struct fuse_file_info *fi)
{
	return !fi->writepage && fi->fh & HANDLE_APPENDS && fi->flags & O_DSYNC;
}

/*
 * The kernel has written back what it held. How many blocks a file takes it does
 * not count, and asks when the file is closed; of one that stays open, a log or a
 * disk of a virtual machine, it would show those it had when it was opened. So
 * as long as something is written, it is told to ask again, once a second.
 */
static void note_growth(struct daemon *d)
{
	struct job job = { .kind = JOB_BLOCKS };

	if (atomic_load(&d->growing) || atomic_exchange(&d->growing, true))
		return;
	job.due = now_ns() + BLOCKS_NS;
	if (control_add(d, &job))
		atomic_store(&d->growing, false);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *buf,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	unsigned flags = 0;
	struct nid n;
	int err;

	if (fi->writepage) {
		flags |= FS_WRITE_CACHED;
		if (!atomic_load_explicit(&d->stored, memory_order_relaxed))
			atomic_store(&d->stored, true);
	}
	/* A snapshot must not show new contents with an old time. */
	if (atomic_load(&d->draining))
		flags |= FS_WRITE_TOUCH;
	if (worker_kill_priv(d))
		flags |= FS_WRITE_KILL_PRIV;
	err = nid_enter_live(d, ino, &n);
	if (!err) {
		err = off < 0 ? -EINVAL :
		      fs_write(d->fs, n.ino, (uint64_t)off, buf, size, flags);
		if (!err && wants_sync(fi))
			err = fs_fsync(d->fs, n.ino, true);
		nid_leave(d, &n);
	}
	if (!err && fi->writepage)
		note_growth(d);
	/* Who has read the end of the file has it in a page with zeros behind. */
	if (!err && d->keeps_past && fi->fh & HANDLE_APPENDS && !fi->writepage)
		range_in_doubt(d, ino, off, (off_t)size);
	if (err == -ENOSPC && fi->writepage)
		full_note(d, ino);
	if (err)
		reply_data_err(req, err);
	else
		fuse_reply_write(req, size);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int datasync,
		     struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct nid n;
	int err;

	(void)fi;
	err = nid_enter(d, ino, &n);
	if (!err) {
		if (n.kind == NID_LIVE && !store_readonly(d->store))
			err = fs_fsync(d->fs, n.ino, datasync);
		nid_leave(d, &n);
	}
	reply_err(req, err);
}

void range_in_doubt(struct daemon *d, fuse_ino_t ino, off_t off, off_t len)
{
	struct job job = { .kind = JOB_RANGE };
	int err;

	job.range = (struct range){ .ino = ino, .from = (uint64_t)off,
				    .to = (uint64_t)off + (uint64_t)len };
	err = control_add(d, &job);
	if (err == -ENOBUFS) { /* of too many files: then of all */
		job.range = (struct range){ .to = UINT64_MAX };
		err = control_add(d, &job);
	}
	if (err)
		log_msg(LOG_LVL_WARN, "no memory: what was written or zeroed may "
			"be seen as it was for a while");
}

static void on_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off,
			 off_t len, struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct cred cred = req_cred(req);
	struct nid n;
	int err;

	err = off < 0 || len <= 0 ? -EINVAL : nid_enter_live(d, ino, &n);
	if (!err) {
		err = fs_fallocate(d->fs, n.ino, mode, (uint64_t)off,
				   (uint64_t)len, &cred);
		err = file_changed(d, fi, err);
		nid_leave(d, &n);
		if (err && mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
			range_in_doubt(d, ino, off, len);
	}
	reply_data_err(req, err);
}

static int copy_range(fuse_req_t req, const struct nid *from, uint64_t off,
		      fuse_ino_t to_id, uint64_t to_off, uint64_t len,
		      uint64_t *copied)
{
	struct daemon *d = req_daemon(req);
	struct cred cred = req_cred(req);
	struct nid to;
	int err;

	if (from->kind == NID_LISTING)
		return -EISDIR;
	err = nid_get_live(d, to_id, &to);
	if (err)
		return err;
	return fs_copy_range_by(d->fs, &cred, from->view, from->ino, off,
				to.ino, to_off, len, copied);
}

static void on_copy_file_range(fuse_req_t req, fuse_ino_t ino_in, off_t off_in,
			       struct fuse_file_info *fi_in,
			       fuse_ino_t ino_out, off_t off_out,
			       struct fuse_file_info *fi_out, size_t len,
			       int flags)
{
	struct daemon *d = req_daemon(req);
	uint64_t copied = 0;
	struct nid from;
	int err;

	(void)fi_in;
	err = flags || off_in < 0 || off_out < 0 ? -EINVAL :
	      nid_enter(d, ino_in, &from);
	if (!err) {
		/* The answer has 32 bits. */
		len = min_u64(len, UINT32_MAX & ~(uint64_t)0xfffff);
		err = copy_range(req, &from, (uint64_t)off_in, ino_out,
				 (uint64_t)off_out, len, &copied);
		err = file_changed(d, fi_out, err);
		nid_leave(d, &from);
	}
	if (err)
		reply_data_err(req, err);
	else
		fuse_reply_write(req, copied);
}

void ops_file(struct fuse_lowlevel_ops *ops)
{
	ops->open = on_open;
	ops->create = on_create;
	ops->release = on_release;
	ops->read = on_read;
	ops->write = on_write;
	ops->fsync = on_fsync;
	ops->fallocate = on_fallocate;
	ops->copy_file_range = on_copy_file_range;
	/* flush is left out: answered ENOSYS once, it is not sent again */
}
