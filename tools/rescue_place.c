/*
 * rescue_place.c - where each inode of a damaged image goes
 *
 * First what is below the root, then directories that no entry names, each with
 * what is below it, then those that are named in a circle, then files. A
 * directory has one place only, whatever names it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "rescue.h"

static int place(struct rescue *r, struct rescue_inode *in, size_t via)
{
	in->placed = true;
	in->via = via;
	if (S_ISDIR(in->mode))
		r->order[r->dirs++] = (size_t)(in - r->inode);
	return 0;
}

/* Breadth first: order[] is the list of what is still to be looked into. */
static void place_below(struct rescue *r, size_t from)
{
	for (; from < r->dirs; from++) {
		const struct rescue_inode *dir = &r->inode[r->order[from]];
		size_t n, at = rescue_entries(r, dir->ino, &n);

		for (size_t end = at + n; at < end; at++) {
			struct rescue_name *name = &r->name[at];
			struct rescue_inode *in = rescue_find(r, name->ino);

			name->used = true;
			if (!in || (in->placed && S_ISDIR(in->mode)))
				rescue_missing(r, dir, name, 0, 0, in ?
					"this directory has another name" :
					"its inode is lost");
			if (in && !in->placed)
				place(r, in, at);
		}
	}
}

static void place_lost(struct rescue *r, struct rescue_inode *in)
{
	size_t from = r->dirs;

	place(r, in, NOWHERE);
	place_below(r, from);
}

int rescue_place(struct rescue *r)
{
	struct rescue_inode *in, *root = rescue_find(r, COWFS_INO_ROOT);

	r->order = malloc((r->inodes + 1) * sizeof(*r->order));
	if (!r->order)
		return -ENOMEM;
	if (root && S_ISDIR(root->mode))
		place_lost(r, root);
	for (unsigned round = 0; round < 3; round++)
		for (size_t i = 0; i < r->inodes; i++) {
			in = &r->inode[i];
			/* removed while open: nobody misses it */
			if (in->placed || (!in->nlink && !in->named))
				continue;
			if (round == 2 || (S_ISDIR(in->mode) &&
					   (round || !in->named)))
				place_lost(r, in);
		}
	return 0;
}

const char *rescue_name_of(const struct rescue *r,
			   const struct rescue_inode *in, char *buf,
			   struct rescue_inode **dir)
{
	*dir = NULL;
	if (in->via == NOWHERE) {
		snprintf(buf, 32, "#%" PRIu64, in->ino);
		return buf;
	}
	*dir = rescue_find(r, r->name[in->via].dir);
	return r->text + r->name[in->via].text;
}

char *rescue_path(const struct rescue *r, const struct rescue_inode *in)
{
	const struct rescue_inode *at;
	struct rescue_inode *dir;
	char buf[32], *path;
	const char *name;
	size_t len = 16, n;

	for (at = in; at && at->ino != COWFS_INO_ROOT; at = dir)
		len += strlen(rescue_name_of(r, at, buf, &dir)) + 1;
	path = malloc(len);
	if (!path)
		return NULL;
	path[--len] = '\0';
	for (at = in; at && at->ino != COWFS_INO_ROOT; at = dir) {
		name = rescue_name_of(r, at, buf, &dir);
		n = strlen(name);
		len -= n;
		memcpy(path + len, name, n);
		path[--len] = '/';
		if (!dir) {
			len -= 11;
			memcpy(path + len, "/lost+found", 11);
		}
	}
	if (in->ino == COWFS_INO_ROOT)
		path[--len] = '/';
	memmove(path, path + len, strlen(path + len) + 1);
	return path;
}
