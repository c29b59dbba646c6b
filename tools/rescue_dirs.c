/*
 * rescue_dirs.c - directories that are written to, as open descriptors
 *
 * However deep a tree is, a path is never made of it: each directory is opened
 * from the one that it is in. Some stay open; the way to one begins at the
 * nearest that is. Directories are made from the top down, level by level, so
 * the one above is open then, and get their attributes from the bottom up: the
 * way there is "..", if that is the one that was made (others may move
 * directories meanwhile, and what is set are owners). So a tree costs as many
 * steps as it has directories, not that times its depth; but for one that is
 * both deep and more than RESCUE_DIRS wide at each level.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rescue.h"
#include "tool.h"

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define LOST_FOUND "lost+found"

int rescue_dirs_init(struct rescue *r)
{
	r->lost_fd = -1;
	r->open = malloc(RESCUE_DIRS * sizeof(*r->open));
	for (unsigned i = 0; r->open && i < RESCUE_DIRS; i++)
		r->open[i] = (struct rescue_dir){ .inode = NOWHERE, .fd = -1 };
	return r->open ? 0 : -ENOMEM;
}

static void let_go(struct rescue *r, struct rescue_dir *d)
{
	if (d->inode == NOWHERE)
		return;
	close(d->fd);
	r->inode[d->inode].slot = 0;
	d->inode = NOWHERE;
}

void rescue_dirs_fini(struct rescue *r)
{
	for (unsigned i = 0; r->open && i < RESCUE_DIRS; i++)
		let_go(r, &r->open[i]);
	free(r->open);
	r->open = NULL;
	if (r->lost_fd >= 0)
		close(r->lost_fd);
}

/* Takes over fd. */
static void keep_open(struct rescue *r, size_t inode, int fd)
{
	struct rescue_dir *d;

	while (r->open[r->hand].used) {
		r->open[r->hand].used = false;
		r->hand = (r->hand + 1) % RESCUE_DIRS;
	}
	d = &r->open[r->hand];
	let_go(r, d);
	*d = (struct rescue_dir){ .inode = inode, .fd = fd, .used = true };
	r->inode[inode].slot = r->hand + 1;
	r->hand = (r->hand + 1) % RESCUE_DIRS;
}

static int open_lost(struct rescue *r, int *fd)
{
	if (r->lost_fd < 0)
		r->lost_fd = openat(r->dir, LOST_FOUND, DIR_FLAGS);
	*fd = r->lost_fd;
	return *fd < 0 ? errno : 0;
}

/* Is it open already? */
static bool is_open(struct rescue *r, const struct rescue_inode *in, int *fd)
{
	struct rescue_dir *d;

	if (in->ino == COWFS_INO_ROOT) {
		*fd = r->dir;
		return true;
	}
	if (!in->slot)
		return false;
	d = &r->open[in->slot - 1];
	d->used = true;
	*fd = d->fd;
	return true;
}

static int step_down(struct rescue *r, const struct rescue_inode *in, int *fd)
{
	struct rescue_inode *dir;
	char buf[32];
	const char *name = rescue_name_of(r, in, buf, &dir);
	int next = openat(*fd, name, DIR_FLAGS);

	if (next < 0)
		return errno;
	keep_open(r, (size_t)(in - r->inode), next);
	*fd = next;
	return 0;
}

int rescue_dir(struct rescue *r, const struct rescue_inode *in, int *fd)
{
	const struct rescue_inode *at;
	struct rescue_inode *dir;
	size_t depth = 0, room = 0;
	void *way = NULL;
	char buf[32];
	int err = 0;

	for (at = in; at && !is_open(r, at, fd); at = dir) {
		err = -rescue_grow(&way, depth, &room, sizeof(at));
		if (err)
			break;
		((const struct rescue_inode **)way)[depth++] = at;
		rescue_name_of(r, at, buf, &dir);
	}
	if (!err && !at)
		err = open_lost(r, fd);
	while (!err && depth)
		err = step_down(r, ((const struct rescue_inode **)way)[--depth],
				fd);
	free(way);
	return err;
}

void rescue_dir_up(struct rescue *r, const struct rescue_inode *in)
{
	struct rescue_inode *dir;
	struct stat st;
	char buf[32];
	int fd, up;

	rescue_name_of(r, in, buf, &dir);
	if (!dir || !dir->made || is_open(r, dir, &up) || !is_open(r, in, &fd))
		return;
	up = openat(fd, "..", DIR_FLAGS);
	if (up < 0)
		return;
	if (!fstat(up, &st) && st.st_dev == r->host_dev &&
	    st.st_ino == dir->host)
		keep_open(r, (size_t)(dir - r->inode), up);
	else
		close(up);
}
