/*
 * ops_dir.c - callbacks for directories
 *
 * opendir is answered ENOSYS once; from then on the kernel opens directories
 * itself and caches what they list. Cookies are the fs layer's; 3 is the one of
 * .snapshots in the root, behind the dots and before all names.
 */
#include <dirent.h>
#include <linux/fuse.h>

#include "fuse/daemon.h"

#define SNAPDIR_COOKIE 3u
#define SHORT_LISTING 8192u /* bytes */

struct listing {
	fuse_req_t req;
	struct daemon *d;
	const struct nid *n;
	size_t size;
	struct dir_answer a;
	bool plus;
	bool snapdir; /* .snapshots is still to be listed */
	int err;
};

static bool is_dot(const struct fs_dirent *e)
{
	return e->name[0] == '.' &&
	       (e->len == 1 || (e->len == 2 && e->name[1] == '.'));
}

static uint64_t listed_ino(const struct nid *n, const struct fs_dirent *e)
{
	if (n->kind == NID_LISTING)
		return e->ino;
	/* Above the root of a snapshot is the directory that lists it. */
	if (n->kind == NID_SNAPSHOT && n->ino == COWFS_INO_ROOT &&
	    is_dot(e) && e->len == 2)
		return SNAPDIR_INO;
	return nid_st_ino(n, e->ino);
}

/* Bytes that the entry took (more than were left: it did not fit). */
static size_t put_plain(struct listing *l, const struct fs_dirent *e,
			const char *name)
{
	struct stat st = { .st_mode = (mode_t)e->type << 12 };

	st.st_ino = listed_ino(l->n, e);
	return fuse_add_direntry(l->req, l->a.buf + l->a.used, l->size - l->a.used,
				 name, &st, (off_t)e->cookie);
}

static size_t put_plus(struct listing *l, const struct fs_dirent *e,
		       const char *name)
{
	struct fuse_entry_param p;
	bool ref = e->attr && !is_dot(e);
	size_t need;

	if (e->attr) {
		fill_entry(l->d, l->n, e->attr, &p);
	} else {
		memset(&p, 0, sizeof(p));
		p.attr.st_mode = (mode_t)e->type << 12;
	}
	p.attr.st_ino = listed_ino(l->n, e);
	if (!ref)
		p.ino = 0; /* no lookup count goes with it */
	need = fuse_add_direntry_plus(l->req, NULL, 0, name, &p, 0);
	if (need > l->size - l->a.used)
		return need;
	if (ref) {
		l->err = nid_ref(l->d, l->n, e->ino);
		if (l->err)
			return SIZE_MAX;
	}
	return fuse_add_direntry_plus(l->req, l->a.buf + l->a.used,
				      l->size - l->a.used, name, &p,
				      (off_t)e->cookie);
}

/* This takes longer than others should wait (turn.c, T2). */
static void pass_turn(struct daemon *d)
{
	struct worker *w = worker_self(d);

	if (w)
		turn_pass(w);
}

static int put(struct listing *l, const struct fs_dirent *e)
{
	char name[COWFS_NAME_MAX + 1];
	size_t took;

	if (l->a.used > SHORT_LISTING)
		pass_turn(l->d);
	if (e->len > COWFS_NAME_MAX) {
		l->err = -ECOW_CORRUPT;
		return 1;
	}
	memcpy(name, e->name, e->len);
	name[e->len] = '\0';
	took = l->plus ? put_plus(l, e, name) : put_plain(l, e, name);
	if (took > l->size - l->a.used) {
		l->a.full = true;
		return 1;
	}
	l->a.used += took;
	l->a.last = e->cookie;
	return 0;
}

static int put_snapdir(struct listing *l)
{
	struct fs_dirent e = { .name = SNAPDIR_NAME,
			       .len = sizeof(SNAPDIR_NAME) - 1,
			       .ino = SNAPDIR_INO, .cookie = SNAPDIR_COOKIE,
			       .type = DT_DIR };

	l->snapdir = false;
	return put(l, &e);
}

static int put_entry(void *arg, const struct fs_dirent *e)
{
	struct listing *l = arg;

	if (l->snapdir && e->cookie > SNAPDIR_COOKIE && put_snapdir(l))
		return 1;
	return put(l, e);
}

static int list_dir(struct listing *l, uint64_t after)
{
	int err;

	l->snapdir = l->d->opt->snapdir && after < SNAPDIR_COOKIE &&
		     snapdir_is_name(l->n, SNAPDIR_NAME);
	if (l->n->kind == NID_LISTING)
		err = snapdir_readdir(l->d, after, put_entry, l);
	else
		err = fs_readdir(l->d->fs, l->n->view, l->n->ino, after,
				 l->plus, put_entry, l);
	if (!err && l->snapdir && !l->err)
		(void)put_snapdir(l); /* an otherwise empty root */
	return err ? err : l->err;
}

/* The answer did not arrive: take the references in it back. */
static void undo_refs(struct listing *l)
{
	size_t at = 0;

	while (at < l->a.used) {
		struct fuse_direntplus p;

		memcpy(&p, l->a.buf + at, sizeof(p));
		if (p.entry_out.nodeid)
			nid_forget(l->d, p.entry_out.nodeid, 1);
		at += FUSE_DIRENTPLUS_SIZE(&p);
	}
}

/* An answer was sent and more follow: make the next. */
static void list_ahead(const struct listing *sent, fuse_ino_t ino)
{
	struct dir_place at = { ino, sent->a.last, sent->size };
	/* (Nothing looks at the request when an entry is put.) */
	struct listing l = { .d = sent->d, .n = sent->n, .size = sent->size };
	struct dir_piece *p = dirahead_begin(l.d, &at);
	int err;

	if (!p)
		return;
	pass_turn(l.d);
	l.a = p->a;
	err = list_dir(&l, at.after);
	p->a = l.a;
	dirahead_end(l.d, p, !err);
}

static void read_dir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		     bool plus)
{
	struct daemon *d = req_daemon(req);
	struct listing l = { .req = req, .d = d, .size = size, .plus = plus };
	struct dir_place at = { ino, (uint64_t)off, size };
	struct nid n;
	int err;

	l.a.buf = worker_buf(d, size);
	err = l.a.buf ? nid_enter(d, ino, &n) : -ENOMEM;
	if (err) {
		reply_err(req, err);
		return;
	}
	l.n = &n;
	if (plus || n.kind != NID_LIVE || !dirahead_take(d, &at, &l.a))
		err = list_dir(&l, at.after);
	/* What was listed before an error is told first; the error comes again
	 * with the next call. */
	if (err && !l.a.used)
		reply_err(req, err);
	else if (fuse_reply_buf(req, l.a.buf, l.a.used) && plus)
		undo_refs(&l);
	/* Names alone are made ahead: who goes on with attributes wants others.
	 * (At the beginning the kernel asks for them in any case.) */
	else if (l.a.full && n.kind == NID_LIVE && (!plus || !off))
		list_ahead(&l, ino);
	nid_leave(d, &n);
}

static void on_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	read_dir(req, ino, size, off, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	read_dir(req, ino, size, off, true);
}

static void on_opendir(fuse_req_t req, fuse_ino_t ino,
		       struct fuse_file_info *fi)
{
	struct daemon *d = req_daemon(req);

	(void)ino;
	if (!d->keep_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void on_releasedir(fuse_req_t req, fuse_ino_t ino,
			  struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void on_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync,
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

void ops_dir(struct fuse_lowlevel_ops *ops)
{
	ops->opendir = on_opendir;
	ops->readdir = on_readdir;
	ops->readdirplus = on_readdirplus;
	ops->releasedir = on_releasedir;
	ops->fsyncdir = on_fsyncdir;
}
