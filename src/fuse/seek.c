/*
 * seek.c - SEEK_DATA and SEEK_HOLE
 *
 * The kernel asks us without writing back what it holds of the file: where we
 * know of a hole, it may have data. A copy made from such an answer would lose
 * them. So a hole of a file that is open for writing is believed only after the
 * kernel has written back its pages of just that hole, which waits for requests
 * (D1: the control thread). Where we know of data there are data. Nobody else
 * writes, truncates or punches meanwhile: the kernel holds the inode's lock
 * while it asks; what is stored through a mapping may still come.
 */
#include <unistd.h>

#include "fuse/daemon.h"

#define TO_THE_END UINT64_MAX

/* An answer, and the hole that it depends on: from < to if there is one. */
struct answer {
	uint64_t at;
	uint64_t from, to;
};

/* The hole that begins at the answer, which may be the end of the file. */
static int hole_at(struct daemon *d, const struct nid *n, struct answer *a)
{
	int err = fs_seek(d->fs, n->view, n->ino, a->at, SEEK_DATA, &a->to);

	a->from = a->at;
	if (err == -ENXIO) {
		a->to = TO_THE_END;
		err = 0;
	}
	return err;
}

static int look(struct daemon *d, const struct nid *n, const struct seek *s,
		struct answer *a)
{
	bool written;
	int err;

	/* Before looking: who closes it now has what it wrote stored first, and
	 * perhaps only after we have looked. */
	written = n->kind == NID_LIVE && fs_is_written(d->fs, n->ino);
	a->from = a->to = 0;
	err = fs_seek(d->fs, n->view, n->ino, s->off, s->whence, &a->at);
	if ((err && err != -ENXIO) || !written)
		return err;
	if (!err && s->whence == SEEK_HOLE)
		return hole_at(d, n, a);
	a->from = s->off;
	a->to = err ? TO_THE_END : a->at;
	return err;
}

static int enter_and_look(struct daemon *d, const struct seek *s,
			  struct answer *a)
{
	struct nid n;
	int err;

	*a = (struct answer){ 0 };
	err = nid_enter(d, s->ino, &n);
	if (err)
		return err;
	err = n.kind == NID_LISTING ? -EINVAL : look(d, &n, s, a);
	nid_leave(d, &n);
	return err;
}

static void reply(fuse_req_t req, int err, uint64_t at)
{
	if (err)
		reply_err(req, err);
	else
		fuse_reply_lseek(req, (off_t)at);
}

/*
 * Each turn but the first looks at a hole farther on, as the one before was
 * filled; the last at one that is written back.
 */
void seek_run(struct daemon *d, fuse_req_t req, const struct seek *s)
{
	uint64_t from = TO_THE_END, to = 0; /* this is written back */
	struct answer a;
	int err;

	for (;;) {
		err = enter_and_look(d, s, &a);
		if (a.from >= a.to || (a.from >= from && a.to <= to))
			break;
		from = a.from;
		to = a.to;
		inval_range(d, s->ino, from, to);
	}
	reply(req, err, a.at);
}

static void on_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence,
		     struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);
	struct job job = { .kind = JOB_SEEK, .req = req };
	struct answer a = { 0 };
	int err;

	(void)fi;
	job.seek = (struct seek){ .ino = ino, .off = (uint64_t)off,
				  .whence = whence };
	err = off < 0 ? -ENXIO : enter_and_look(d, &job.seek, &a);
	if (a.from < a.to)
		control_hand_over(d, &job);
	else
		reply(req, err, a.at);
}

void ops_seek(struct fuse_lowlevel_ops *ops)
{
	ops->lseek = on_lseek;
}
