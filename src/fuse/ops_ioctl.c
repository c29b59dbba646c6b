/*
 * ops_ioctl.c - ioctls: flags as chattr(1) has them, and what cowctl asks
 *
 * What takes long or waits for the kernel goes to the control thread, which
 * answers the request itself.
 */
#include <linux/fs.h>
#include <sys/ioctl.h>

#include "fuse/daemon.h"

struct call {
	fuse_req_t req;
	struct daemon *d;
	fuse_ino_t ino;
	const void *in;
	size_t in_len, out_len;
};

static void reply_out(const struct call *c, const void *out, size_t len)
{
	if (c->out_len < len)
		fuse_reply_err(c->req, EINVAL);
	else
		fuse_reply_ioctl(c->req, 0, out, len);
}

static bool terminated(const char *name)
{
	return memchr(name, '\0', COWFS_IOC_NAME);
}

/* ---- inode flags ---- */

static const struct {
	uint32_t inode, xflag;
} xflags[] = {
	{ COWFS_INODE_SYNC, FS_XFLAG_SYNC },
	{ COWFS_INODE_IMMUTABLE, FS_XFLAG_IMMUTABLE },
	{ COWFS_INODE_APPEND, FS_XFLAG_APPEND },
	{ COWFS_INODE_NODUMP, FS_XFLAG_NODUMP },
	{ COWFS_INODE_NOATIME, FS_XFLAG_NOATIME },
};

static int get_flags(const struct call *c, uint32_t *flags)
{
	struct attr a;
	struct nid n;
	int err;

	err = nid_enter(c->d, c->ino, &n);
	if (err)
		return err;
	*flags = 0;
	if (n.kind != NID_LISTING) {
		err = fs_getattr(c->d->fs, n.view, n.ino, &a);
		if (!err)
			*flags = a.flags & COWFS_INODE_USER_FLAGS;
	}
	nid_leave(c->d, &n);
	return err;
}

/* Set the flags in mask; others stay. */
static int set_flags(const struct call *c, uint32_t mask, uint32_t flags)
{
	const uint32_t root_only = COWFS_INODE_IMMUTABLE | COWFS_INODE_APPEND;
	/* The kernel, which holds writes back, does not know of them. */
	const uint32_t vain = COWFS_INODE_SYNC | COWFS_INODE_DIRSYNC;
	struct cred cred = req_cred(c->req);
	struct attr a, set;
	struct nid n;
	int err;

	err = nid_enter_live(c->d, c->ino, &n);
	if (err)
		return err;
	err = fs_getattr(c->d->fs, n.view, n.ino, &a);
	if (!err) {
		flags = (a.flags & ~mask) | (flags & mask);
		if (cred.uid && (cred.uid != a.uid ||
				 (a.flags ^ flags) & root_only))
			err = -EPERM;
		else if (flags & ~a.flags & vain)
			err = -EOPNOTSUPP;
	}
	if (!err) {
		set = a;
		set.flags = flags;
		err = fs_setattr(c->d->fs, n.ino, FS_SET_FLAGS, &set, &cred,
				 &a);
		err = file_changed(c->d, NULL, err);
	}
	nid_leave(c->d, &n);
	return err;
}

static void get_fs_flags(const struct call *c)
{
	uint32_t flags;
	int err = get_flags(c, &flags);

	if (err)
		reply_err(c->req, err);
	else
		reply_out(c, &flags, sizeof(flags));
}

static void set_fs_flags(const struct call *c)
{
	uint32_t flags;
	int err = -EINVAL;

	if (c->in_len >= sizeof(flags)) {
		memcpy(&flags, c->in, sizeof(flags));
		err = flags & ~COWFS_INODE_USER_FLAGS ? -EOPNOTSUPP :
		      set_flags(c, COWFS_INODE_USER_FLAGS, flags);
	}
	if (err)
		reply_err(c->req, err);
	else
		fuse_reply_ioctl(c->req, 0, NULL, 0);
}

static void get_xflags(const struct call *c)
{
	struct fsxattr x;
	uint32_t flags;
	int err = get_flags(c, &flags);

	memset(&x, 0, sizeof(x));
	for (size_t i = 0; !err && i < ARRAY_SIZE(xflags); i++)
		if (flags & xflags[i].inode)
			x.fsx_xflags |= xflags[i].xflag;
	if (err)
		reply_err(c->req, err);
	else
		reply_out(c, &x, sizeof(x));
}

static void set_xflags(const struct call *c)
{
	uint32_t mask = 0, flags = 0, known = 0;
	struct fsxattr x;
	int err = -EINVAL;

	if (c->in_len >= sizeof(x)) {
		memcpy(&x, c->in, sizeof(x));
		for (size_t i = 0; i < ARRAY_SIZE(xflags); i++) {
			mask |= xflags[i].inode;
			known |= xflags[i].xflag;
			if (x.fsx_xflags & xflags[i].xflag)
				flags |= xflags[i].inode;
		}
		/* No projects, no extent sizes. */
		err = x.fsx_xflags & ~known || x.fsx_extsize ||
		      x.fsx_projid || x.fsx_cowextsize ? -EOPNOTSUPP :
		      set_flags(c, mask, flags);
	}
	if (err)
		reply_err(c->req, err);
	else
		fuse_reply_ioctl(c->req, 0, NULL, 0);
}

static void get_label(const struct call *c)
{
	struct cowfs_disk_super s;
	char label[FSLABEL_MAX];

	store_durable_super(c->d->store, &s);
	memset(label, 0, sizeof(label));
	memcpy(label, s.label, sizeof(s.label) - 1);
	reply_out(c, label, sizeof(label));
}

/* ---- cowctl: what is answered at once ---- */

static void get_info(const struct call *c)
{
	struct cowfs_ioc_info info;
	int err = info_fill(c->d, &info);

	if (err)
		reply_err(c->req, err);
	else
		reply_out(c, &info, sizeof(info));
}

static void get_stats(const struct call *c)
{
	struct cowfs_ioc_stats stats;
	int err = info_stats(c->d, &stats);

	if (err)
		reply_err(c->req, err);
	else
		reply_out(c, &stats, sizeof(stats));
}

static void get_hists(const struct call *c)
{
	struct cowfs_ioc_hist_list *l = worker_buf(c->d, sizeof(*l));
	uint64_t from;

	if (!l || c->in_len < sizeof(*l)) {
		fuse_reply_err(c->req, l ? EINVAL : ENOMEM);
		return;
	}
	memcpy(&from, c->in, sizeof(from));
	memset(l, 0, sizeof(*l));
	l->from = from;
	info_hists(c->d, l);
	reply_out(c, l, sizeof(*l));
}

static void snap_list(const struct call *c)
{
	struct cowfs_ioc_snap_list *l = worker_buf(c->d, sizeof(*l));
	struct snap_info s;
	uint64_t id;
	int err = 0;

	if (!l || c->in_len < sizeof(*l)) {
		fuse_reply_err(c->req, l ? EINVAL : ENOMEM);
		return;
	}
	memcpy(&id, c->in, sizeof(id));
	memset(l, 0, sizeof(*l));
	while (l->count < COWFS_IOC_SNAPS) {
		err = snap_next(c->d->store, id, &s);
		if (err)
			break;
		info_snap(&s, &l->snap[l->count++]);
		id = s.id + 1;
	}
	if (!err)
		l->from = id;
	if (err && err != -ENOENT)
		reply_err(c->req, err);
	else
		reply_out(c, l, sizeof(*l));
}

static void scrub_state(const struct call *c)
{
	struct cowfs_ioc_scrub s;

	scrub_status(c->d->scrub, &s);
	reply_out(c, &s, sizeof(s));
}

static void scrub_page(const struct call *c)
{
	struct cowfs_ioc_report *page = worker_buf(c->d, sizeof(*page));

	if (!page || c->in_len < sizeof(*page)) {
		fuse_reply_err(c->req, page ? EINVAL : ENOMEM);
		return;
	}
	memset(page, 0, sizeof(*page));
	memcpy(&page->from, c->in, sizeof(page->from));
	scrub_report(c->d->scrub, page);
	reply_out(c, page, sizeof(*page));
}

static int scrub_verb(struct scrub *sc, const struct cowfs_ioc_scrub_do *v)
{
	switch (v->verb) {
	case COWFS_SCRUB_START:
		return scrub_start(sc, false, v->rate);
	case COWFS_SCRUB_RESUME:
		return scrub_start(sc, true, v->rate);
	case COWFS_SCRUB_PAUSE:
		return scrub_pause(sc);
	case COWFS_SCRUB_CANCEL:
		return scrub_cancel(sc);
	case COWFS_SCRUB_RATE:
		return scrub_set_rate(sc, v->rate);
	default:
		return -EINVAL;
	}
}

static void scrub_do(const struct call *c)
{
	struct cowfs_ioc_scrub_do v;
	int err = -EINVAL;

	if (c->in_len >= sizeof(v)) {
		memcpy(&v, c->in, sizeof(v));
		err = scrub_verb(c->d->scrub, &v);
	}
	if (err)
		reply_err(c->req, err);
	else
		fuse_reply_ioctl(c->req, 0, NULL, 0);
}

static void set_noatime(const struct call *c)
{
	uint32_t no;

	if (c->in_len < sizeof(no)) {
		fuse_reply_err(c->req, EINVAL);
		return;
	}
	memcpy(&no, c->in, sizeof(no));
	fs_set_noatime(c->d->fs, no);
	fuse_reply_ioctl(c->req, 0, NULL, 0);
}

/* ---- cowctl: what the control thread does ---- */

static void queue_job(const struct call *c, struct job *job, int err)
{
	job->req = c->req;
	if (err)
		reply_err(c->req, err);
	else
		control_hand_over(c->d, job);
}

static void queue_sync(const struct call *c)
{
	struct job job = { .kind = JOB_SYNC };

	queue_job(c, &job, 0);
}

/* Copies a structure that holds a name at `name` of its bytes. */
static int take(const struct call *c, void *to, size_t len, const char *name)
{
	if (c->in_len < len)
		return -EINVAL;
	memcpy(to, c->in, len);
	return terminated(name) ? 0 : -EINVAL;
}

static void queue_create(const struct call *c)
{
	struct job job = { .kind = JOB_SNAP_CREATE };
	int err = take(c, &job.snap, sizeof(job.snap), job.snap.name);

	if (!err && c->out_len < sizeof(job.snap))
		err = -EINVAL;
	if (!err)
		err = snap_check_name(job.snap.name, false);
	queue_job(c, &job, err);
}

static void queue_delete(const struct call *c)
{
	struct job job = { .kind = JOB_SNAP_DELETE };
	int err = take(c, &job.snap, sizeof(job.snap), job.snap.name);

	if (!err)
		err = snap_check_name(job.snap.name, true);
	queue_job(c, &job, err);
}

static void queue_restore(const struct call *c)
{
	struct job job = { .kind = JOB_SNAP_RESTORE };
	const char *save = job.restore.save;
	int err = take(c, &job.restore, sizeof(job.restore),
		       job.restore.name);

	if (!err && !terminated(save))
		err = -EINVAL;
	if (!err)
		err = snap_check_name(job.restore.name, true);
	if (!err && *save && strcmp(save, COWFS_SNAP_UNDO))
		err = snap_check_name(save, false);
	queue_job(c, &job, err);
}

static void get_setting(const struct call *c)
{
	struct cowfs_ioc_setting io = { .value = 0 };
	int err = take(c, &io, sizeof(io), io.name);

	if (!err)
		err = check_get_setting(c->d->store, &io);
	if (err)
		reply_err(c->req, err);
	else
		reply_out(c, &io, sizeof(io));
}

static void queue_setting(const struct call *c)
{
	struct job job = { .kind = JOB_SETTING };
	int err = take(c, &job.setting, sizeof(job.setting),
		       job.setting.name);

	queue_job(c, &job, err);
}

static void queue_mirror(const struct call *c)
{
	struct job job = { .kind = JOB_MIRROR };
	int err = -EINVAL;

	if (c->in_len >= sizeof(job.mirror)) {
		memcpy(&job.mirror, c->in, sizeof(job.mirror));
		if (memchr(job.mirror.path, '\0', sizeof(job.mirror.path)))
			err = 0;
	}
	if (!err && !caller_sees_our_files(c->d, c->req))
		err = -EPERM;
	queue_job(c, &job, err);
}

/* ---- which is which ---- */

static const struct ioctl_entry {
	unsigned cmd;
	bool control; /* only root and the owner of the mount */
	void (*fn)(const struct call *c);
} table[] = {
	{ (unsigned)FS_IOC_GETFLAGS, false, get_fs_flags },
	{ (unsigned)FS_IOC_SETFLAGS, false, set_fs_flags },
	{ (unsigned)FS_IOC_FSGETXATTR, false, get_xflags },
	{ (unsigned)FS_IOC_FSSETXATTR, false, set_xflags },
	{ (unsigned)FS_IOC_GETFSLABEL, false, get_label },
	{ (unsigned)COWFS_IOC_INFO, false, get_info },
	{ (unsigned)COWFS_IOC_STATS, false, get_stats },
	{ (unsigned)COWFS_IOC_HIST_LIST, false, get_hists },
	{ (unsigned)COWFS_IOC_SNAP_LIST, false, snap_list },
	{ (unsigned)COWFS_IOC_SCRUB_STATUS, false, scrub_state },
	{ (unsigned)COWFS_IOC_GET_SETTING, false, get_setting },
	{ (unsigned)COWFS_IOC_SET_SETTING, true, queue_setting },
	{ (unsigned)COWFS_IOC_SCRUB_REPORT, true, scrub_page },
	{ (unsigned)COWFS_IOC_SCRUB_DO, true, scrub_do },
	{ (unsigned)COWFS_IOC_NOATIME, true, set_noatime },
	{ (unsigned)COWFS_IOC_MIRROR, true, queue_mirror },
	{ (unsigned)COWFS_IOC_SYNC, true, queue_sync },
	{ (unsigned)COWFS_IOC_SNAP_CREATE, true, queue_create },
	{ (unsigned)COWFS_IOC_SNAP_DELETE, true, queue_delete },
	{ (unsigned)COWFS_IOC_SNAP_RESTORE, true, queue_restore },
};

static void on_ioctl(fuse_req_t req, fuse_ino_t ino, unsigned cmd, void *arg,
		     struct fuse_file_info *fi, unsigned flags,
		     const void *in_buf, size_t in_bufsz, size_t out_bufsz)
{
	struct call c = { .req = req, .d = req_daemon(req), .ino = ino,
			  .in = in_buf, .in_len = in_bufsz,
			  .out_len = out_bufsz };

	(void)arg;
	(void)fi;
	(void)flags;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		if (table[i].cmd != cmd)
			continue;
		if (table[i].control && !caller_may_control(c.d, req))
			fuse_reply_err(req, EPERM);
		else
			table[i].fn(&c);
		return;
	}
	fuse_reply_err(req, cmd == (unsigned)FITRIM ? EOPNOTSUPP : ENOTTY);
}

void ops_ioctl(struct fuse_lowlevel_ops *ops)
{
	ops->ioctl = on_ioctl;
}
