/*
 * reply.c - answers to the kernel
 */
#include <sys/sysmacros.h>

#include "fuse/daemon.h"

static void stop_if_damaged(struct daemon *d, int err)
{
	if (d->opt->errors == ERRORS_REMOUNT_RO && !store_stopped(d->store) &&
	    !store_readonly(d->store))
		store_stop(d->store, err,
			   "metadata is damaged (errors=remount-ro)");
}

void reply_err(fuse_req_t req, int err)
{
	if (err == -ECOW_CSUM || err == -ECOW_CORRUPT)
		stop_if_damaged(req_daemon(req), err);
	fuse_reply_err(req, -cowfs_errno_for_user(err));
}

void reply_data_err(fuse_req_t req, int err)
{
	if (err == -ECOW_CSUM)
		err = -EIO;
	reply_err(req, err);
}

static struct timespec to_timespec(struct timespec64 t)
{
	return (struct timespec){ .tv_sec = t.sec, .tv_nsec = t.nsec };
}

void attr_to_stat(const struct nid *n, const struct attr *a, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_ino = nid_st_ino(n, a->ino);
	st->st_mode = a->mode;
	st->st_nlink = a->nlink;
	st->st_uid = a->uid;
	st->st_gid = a->gid;
	st->st_rdev = makedev(a->rdev >> 20, a->rdev & 0xfffff);
	st->st_size = (off_t)a->size;
	st->st_blocks = (blkcnt_t)a->blocks;
	st->st_blksize = COWFS_BLOCK_SIZE;
	st->st_atim = to_timespec(a->atime);
	st->st_mtim = to_timespec(a->mtime);
	st->st_ctim = to_timespec(a->ctime);
}

void reply_attr(fuse_req_t req, const struct nid *n, const struct attr *a)
{
	struct stat st;

	attr_to_stat(n, a, &st);
	/* The listing changes with snapshots made through other ways. */
	fuse_reply_attr(req, &st, n->kind == NID_LISTING ? 1.0 : FOREVER);
}

/*
 * Who has a handle of a file that was lost in a crash is not to open another one
 * with it: that may have the number of the lost one, and be made in the
 * generation that was under way then. It was not made at the same time. Nor is a
 * handle of a file in one snapshot to open the same file of another, of which the
 * view has the index now that was the first one's. (The kernel keeps 32 bits. What
 * the listing says of times changes. The kernel has the root with 0: those before
 * 6.9 take another one for another inode when they look up "..", and whoever comes
 * to the mount gets EIO from then on.)
 */
static uint32_t generation(const struct nid *n, const struct attr *a)
{
	uint64_t made = (uint64_t)a->btime.sec * 1000000000 +
			(uint64_t)a->btime.nsec;

	if (n->kind == NID_LISTING)
		return 1;
	if (n->kind == NID_LIVE && a->ino == COWFS_INO_ROOT)
		return 0;
	made += view_snap_id(n->view);
	return (uint32_t)hash_u64(a->gen ^ hash_u64(made));
}

void fill_entry(struct daemon *d, const struct nid *n, const struct attr *a,
		struct fuse_entry_param *e)
{
	memset(e, 0, sizeof(*e));
	e->ino = nid_make(d, n, a->ino);
	e->generation = generation(n, a);
	attr_to_stat(n, a, &e->attr);
	e->attr_timeout = FOREVER;
	e->entry_timeout = FOREVER;
}

void reply_entry(fuse_req_t req, const struct nid *n, const struct attr *a)
{
	struct daemon *d = req_daemon(req);
	struct fuse_entry_param e;
	int err;

	err = nid_ref(d, n, a->ino);
	if (err) {
		reply_err(req, err);
		return;
	}
	fill_entry(d, n, a, &e);
	if (fuse_reply_entry(req, &e))
		nid_unref(d, n, a->ino, 1); /* whoever asked is gone */
}

void reply_negative(fuse_req_t req)
{
	struct fuse_entry_param e = { .entry_timeout = FOREVER };

	fuse_reply_entry(req, &e);
}

static bool caller_in_group(void *arg, uint32_t gid)
{
	fuse_req_t req = arg;
	int room = 64, n;
	bool found = false;
	gid_t *list, *more;

	list = malloc((size_t)room * sizeof(*list));
	if (!list)
		return false;
	n = fuse_req_getgroups(req, room, list);
	if (n > room) {
		room = n;
		more = realloc(list, (size_t)room * sizeof(*list));
		if (!more) {
			free(list);
			return false;
		}
		list = more;
		n = fuse_req_getgroups(req, room, list);
	}
	for (int i = 0; i < n && i < room && !found; i++)
		found = list[i] == gid;
	free(list);
	return found;
}

struct cred req_cred(fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	return (struct cred){ .uid = ctx->uid, .gid = ctx->gid,
			      .umask = ctx->umask,
			      .in_group = caller_in_group, .arg = req };
}
