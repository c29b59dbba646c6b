/*
 * rescue_write.c - writing what was rescued
 *
 *   1. directories, parents first, for us alone;
 *   2. files, symlinks and the rest, as their contents come by, each under its
 *      first name; owner, xattrs, mode and times as soon as it is complete;
 *   3. the other names of files;
 *   4. xattrs, owners, modes and times of directories, children first: nothing
 *      is made in them any more that would inherit or change them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "rescue.h"
#include "tool.h"

#define LOST_FOUND "lost+found"

static void failed(struct rescue *r, const struct rescue_inode *in,
		   const char *what, int err)
{
	char why[400];

	snprintf(why, sizeof(why), "%s: %s", what, strerror(err));
	rescue_missing(r, in, NULL, 0, 0, why);
}

/* ---- directories ---- */

/* The directory that an inode is in, as a descriptor that stays ours. */
static int parent_of(struct rescue *r, const struct rescue_inode *in,
		     const char **name, char *buf, int *fd)
{
	struct rescue_inode *dir;

	*name = rescue_name_of(r, in, buf, &dir);
	return rescue_dir(r, dir, fd);
}

/* So that the same one is known again. */
static void note_host(struct rescue_inode *in, int dir, const char *name)
{
	struct stat st;

	if (!fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
		in->host = st.st_ino;
}

static void make_dir(struct rescue *r, struct rescue_inode *in)
{
	const char *name;
	char buf[32];
	int fd, err;

	if (in->ino == COWFS_INO_ROOT)
		return;
	if (in->via == NOWHERE && mkdirat(r->dir, LOST_FOUND, 0700) &&
	    errno != EEXIST)
		failed(r, in, LOST_FOUND, errno);
	err = parent_of(r, in, &name, buf, &fd);
	if (!err && mkdirat(fd, name, 0700))
		err = errno;
	/* what is there may be used, but stays as it is */
	if (!err) {
		in->made = true;
		note_host(in, fd, name);
	} else if (err != EEXIST) {
		failed(r, in, "cannot be made", err);
	}
}

/* ---- xattrs ---- */

static void free_xattr(struct rescue_xattr *x)
{
	free(x->name);
	free(x->val);
}

/* system: those that chmod must come before; else the others. */
static void set_xattrs(struct rescue *r, const struct rescue_inode *in,
		       const struct rescue_xattr *x, size_t n, int fd,
		       const char *path, bool system)
{
	char what[300];

	for (size_t i = 0; i < n; i++) {
		if ((strncmp(x[i].name, "user.", 5) != 0) != system)
			continue;
		if (fd >= 0 ? !fsetxattr(fd, x[i].name, x[i].val, x[i].len, 0) :
			      !lsetxattr(path, x[i].name, x[i].val, x[i].len,
					 0))
			continue;
		snprintf(what, sizeof(what), "xattr %s", x[i].name);
		failed(r, in, what, errno);
	}
}

static int take_xattr(void *arg, const char *name, const void *val, size_t len)
{
	struct rescue *r = arg;
	struct rescue_xattr x = { .len = len, .inode = r->cur };
	void *at = r->xattr;
	int err;

	if (r->cur == NOWHERE || r->dry)
		return 0;
	err = rescue_grow(&at, r->xattrs, &r->xattr_room, sizeof(x));
	r->xattr = at;
	x.name = strdup(name);
	x.val = malloc(len ? len : 1);
	if (err || !x.name || !x.val) {
		free_xattr(&x);
		return -ENOMEM;
	}
	memcpy(x.val, val, len);
	r->xattr[r->xattrs++] = x;
	return 0;
}

static int lost_xattr(void *arg, const char *name)
{
	struct rescue *r = arg;
	char why[300];

	snprintf(why, sizeof(why), "xattr %s is lost", name);
	if (r->cur != NOWHERE)
		rescue_missing(r, &r->inode[r->cur], NULL, 0, 0, why);
	return 0;
}

/* ---- attributes ---- */

static mode_t mode_for(const struct rescue *r, const struct rescue_inode *in)
{
	mode_t mode = in->mode & 07777;

	/* not for somebody else */
	if (!r->root && (in->uid != geteuid() || in->gid != getegid()))
		mode &= (mode_t)~06000;
	return mode;
}

static struct timespec time_of(const struct cowfs_disk_time *t)
{
	return (struct timespec){ .tv_sec = (time_t)from_le64(t->sec),
				  .tv_nsec = (long)from_le32(t->nsec) };
}

/* Of the name in directory dir; fd: the same, opened, or -1. Without it somebody
 * else may have put a symlink there meanwhile, if dir was there before. */
static void set_attrs(struct rescue *r, const struct rescue_inode *in, int dir,
		      const char *name, int fd, const struct rescue_xattr *x,
		      size_t n)
{
	struct timespec t[2] = { time_of(&in->atime), time_of(&in->mtime) };
	char path[300];

	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir, name);
	if (r->root && (fd >= 0 ? fchown(fd, in->uid, in->gid) :
				  fchownat(dir, name, in->uid, in->gid,
					   AT_SYMLINK_NOFOLLOW)))
		failed(r, in, "owner", errno);
	set_xattrs(r, in, x, n, fd, path, false);
	if (!S_ISLNK(in->mode) &&
	    (fd >= 0 ? fchmod(fd, mode_for(r, in)) :
		       fchmodat(dir, name, mode_for(r, in),
				AT_SYMLINK_NOFOLLOW)))
		failed(r, in, "mode", errno);
	set_xattrs(r, in, x, n, fd, path, true);
	if (fd >= 0 ? futimens(fd, t) :
		      utimensat(dir, name, t, AT_SYMLINK_NOFOLLOW))
		failed(r, in, "times", errno);
}

/* ---- contents ---- */

/* Make it, but for symlinks, whose target comes. */
static int make_file(struct rescue *r, const struct rescue_inode *in, int dir,
		     const char *name)
{
	if (S_ISREG(in->mode)) {
		r->fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL |
					  O_NOFOLLOW | O_CLOEXEC, 0600);
		return r->fd < 0 ? errno : 0;
	}
	if (S_ISLNK(in->mode) || S_ISDIR(in->mode))
		return 0;
	return mknodat(dir, name, (in->mode & S_IFMT) | 0600,
		       makedev(in->rdev >> 20, in->rdev & 0xfffff)) ?
		       errno : 0;
}

static int begin(void *arg, uint64_t ino)
{
	struct rescue *r = arg;
	struct rescue_inode *in = rescue_find(r, ino);
	const char *name;
	char buf[32];
	int dir, err;

	r->cur = NOWHERE;
	r->fd = -1;
	r->cut_off = false;
	r->link_len = 0;
	r->own_xattrs = r->xattrs;
	tool_progress("Rescuing", r->done++, r->inodes, 0);
	if (!in || !in->placed)
		return 0;
	r->cur = (size_t)(in - r->inode);
	if (r->dry || S_ISDIR(in->mode)) {
		in->made |= r->dry;
		return 0;
	}
	if (in->via == NOWHERE)
		(void)mkdirat(r->dir, LOST_FOUND, 0700);
	err = parent_of(r, in, &name, buf, &dir);
	if (!err)
		err = make_file(r, in, dir, name);
	if (err) {
		failed(r, in, err == EEXIST ? "not overwritten" :
		       "cannot be made", err);
		r->cur = NOWHERE;
	} else {
		in->made = true;
	}
	return 0;
}

/* Where a file has reached its limit, or storage, what follows need not be tried:
 * it is said once. Without room other files are not tried, either. */
static int not_written(struct rescue *r, const struct rescue_inode *in,
		       uint64_t off, uint64_t len, int err)
{
	bool full = err == ENOSPC || err == EDQUOT;
	char why[400];

	snprintf(why, sizeof(why), "writing: %s", strerror(err));
	r->cut_off = full || err == EFBIG;
	rescue_missing(r, in, NULL, off, r->cut_off ? in->size - off : len,
		       why);
	return full ? -err : 0;
}

static int take_data(void *arg, uint64_t off, const void *buf, size_t len)
{
	struct rescue *r = arg;
	const struct rescue_inode *in;
	const char *p = buf;
	ssize_t n;

	if (r->cur == NOWHERE || r->cut_off)
		return 0;
	in = &r->inode[r->cur];
	if (off >= in->size)
		return 0;
	if (len > in->size - off)
		len = (size_t)(in->size - off);
	if (S_ISLNK(in->mode) && off < COWFS_SYMLINK_MAX) {
		if (len > COWFS_SYMLINK_MAX - off)
			len = (size_t)(COWFS_SYMLINK_MAX - off);
		if (off > r->link_len) /* a hole: not what another had there */
			memset(r->link + r->link_len, 0, off - r->link_len);
		memcpy(r->link + off, buf, len);
		r->link_len = (size_t)off + len;
	}
	while (r->fd >= 0 && len) {
		n = pwrite(r->fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return not_written(r, in, off, len, n ? errno : EIO);
		r->bytes += (uint64_t)n;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	r->bytes += len; /* of a dry run, or a target */
	return 0;
}

static int take_lost(void *arg, uint64_t off, uint64_t len)
{
	struct rescue *r = arg;

	if (r->cur != NOWHERE && !r->cut_off)
		rescue_missing(r, &r->inode[r->cur], NULL, off, len,
			       "cannot be read");
	return 0;
}

/* Part of a target leads somewhere else. */
static bool link_whole(const struct rescue *r, const struct rescue_inode *in)
{
	return r->link_len && r->link_len == in->size &&
	       !memchr(r->link, 0, r->link_len);
}

static void finish(struct rescue *r, struct rescue_inode *in)
{
	const char *name;
	char buf[32];
	int dir, err = parent_of(r, in, &name, buf, &dir);

	r->link[r->link_len] = '\0';
	if (!err && S_ISLNK(in->mode) && symlinkat(r->link, dir, name))
		err = errno;
	if (!err && r->fd >= 0 && !r->cut_off &&
	    ftruncate(r->fd, (off_t)in->size))
		err = errno;
	if (err) {
		in->made = in->made && !S_ISLNK(in->mode);
		failed(r, in, err == EEXIST ? "not overwritten" :
		       "cannot be made", err);
	} else {
		set_attrs(r, in, dir, name, r->fd, r->xattr + r->own_xattrs,
			  r->xattrs - r->own_xattrs);
		r->files++;
	}
}

static int end(void *arg)
{
	struct rescue *r = arg;
	struct rescue_inode *in;

	if (r->cur == NOWHERE)
		return 0;
	in = &r->inode[r->cur];
	if (S_ISLNK(in->mode) && !link_whole(r, in)) {
		in->made = false;
		failed(r, in, "cannot be made", ENODATA);
	} else if (!S_ISDIR(in->mode)) { /* their xattrs wait */
		if (r->dry)
			r->files++;
		else
			finish(r, in);
	}
	if (r->dry || S_ISDIR(in->mode))
		return 0;
	if (r->fd >= 0 && close(r->fd))
		failed(r, in, "writing", errno);
	r->fd = -1;
	while (r->xattrs > r->own_xattrs)
		free_xattr(&r->xattr[--r->xattrs]);
	return 0;
}

/* ---- other names, and directories at the end ---- */

static void link_name(struct rescue *r, const struct rescue_inode *in, size_t i)
{
	const struct rescue_inode *dir = rescue_find(r, r->name[i].dir);
	struct rescue_inode twin = *in;
	const char *from, *to;
	char buf[32], buf2[32];
	int fd, fd2 = -1, err;

	twin.via = i;
	err = parent_of(r, in, &from, buf, &fd);
	if (!err && (fd2 = dup(fd)) < 0)
		err = errno;
	if (!err)
		err = parent_of(r, &twin, &to, buf2, &fd);
	if (!err && linkat(fd2, from, fd, to, 0))
		err = errno;
	if (fd2 >= 0)
		close(fd2);
	if (err)
		rescue_missing(r, dir, &r->name[i], 0, 0, err == EEXIST ?
			       "not overwritten" : strerror(err));
}

static void link_names(struct rescue *r)
{
	for (size_t i = 0; i < r->names; i++) {
		const struct rescue_inode *in;

		if (!r->name[i].used)
			continue;
		in = rescue_find(r, r->name[i].ino);
		if (in && in->made && !S_ISDIR(in->mode) && in->via != i)
			link_name(r, in, i);
	}
}

/* Index of the first xattr of an inode; they are in order of inodes. */
static size_t xattrs_of(const struct rescue *r, size_t inode, size_t *n)
{
	size_t lo = 0, hi = r->xattrs, at;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->xattr[mid].inode < inode)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (at = lo; at < r->xattrs && r->xattr[at].inode == inode; at++)
		;
	*n = at - lo;
	return lo;
}

static void finish_dirs(struct rescue *r)
{
	for (size_t i = r->dirs; i--;) {
		const struct rescue_inode *in = &r->inode[r->order[i]];
		size_t n, x = xattrs_of(r, r->order[i], &n);
		int fd, err;

		if (!in->made)
			continue;
		/* up, before it may be closed to us */
		err = rescue_dir(r, in, &fd);
		if (!err) {
			rescue_dir_up(r, in);
			err = rescue_dir(r, in, &fd);
		}
		if (err) {
			failed(r, in, "attributes", err);
			continue;
		}
		set_attrs(r, in, fd, ".", fd, r->xattr + x, n);
	}
}

static int write_all(struct rescue *r, const struct cowfs_rescue_sink *sink)
{
	struct stat st;
	int err;

	if (!r->dry && !fstat(r->dir, &st))
		r->host_dev = st.st_dev;
	for (size_t i = 0; i < r->dirs && !r->dry; i++)
		make_dir(r, &r->inode[r->order[i]]);
	err = cowfs_rescue_contents(r->image, sink);
	if (r->fd >= 0)
		close(r->fd);
	if (!r->dry) {
		link_names(r);
		finish_dirs(r);
	}
	return err;
}

int rescue_write(struct rescue *r)
{
	struct cowfs_rescue_sink sink = {
		.begin = begin, .xattr = take_xattr, .data = take_data,
		.lost = take_lost, .lost_xattr = lost_xattr, .end = end,
		.arg = r,
	};
	int err = rescue_dirs_init(r);

	r->fd = -1;
	r->root = geteuid() == 0;
	r->link = malloc(COWFS_SYMLINK_MAX + 1);
	if (!r->link)
		err = -ENOMEM;
	if (!err)
		err = write_all(r, &sink);
	rescue_dirs_fini(r);
	while (r->xattrs)
		free_xattr(&r->xattr[--r->xattrs]);
	free(r->xattr);
	free(r->link);
	return err;
}
