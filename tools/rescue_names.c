/*
 * rescue_names.c - inodes and names of a damaged image, in memory
 */
#include <stdlib.h>
#include <string.h>

#include "rescue.h"

int rescue_grow(void **at, size_t n, size_t *room, size_t size)
{
	size_t want = *room ? *room * 2 : 256;
	void *p;

	if (n < *room)
		return 0;
	if (want > SIZE_MAX / size)
		return -ENOMEM;
	p = realloc(*at, want * size);
	if (!p)
		return -ENOMEM;
	*at = p;
	*room = want;
	return 0;
}

static int take_inode(void *arg, uint64_t ino, const struct cowfs_disk_inode *d)
{
	struct rescue *r = arg;
	struct rescue_inode *in;
	void *at = r->inode;
	int err = rescue_grow(&at, r->inodes, &r->inode_room, sizeof(*in));

	r->inode = at;
	if (err)
		return err;
	in = &r->inode[r->inodes++];
	*in = (struct rescue_inode){
		.ino = ino, .size = from_le64(d->size),
		.mode = from_le32(d->mode), .uid = from_le32(d->uid),
		.gid = from_le32(d->gid), .nlink = from_le32(d->nlink),
		.rdev = from_le32(d->rdev), .atime = d->atime,
		.mtime = d->mtime, .via = NOWHERE,
	};
	return 0;
}

static int take_name(void *arg, uint64_t dir, uint64_t ino, const char *name,
		     size_t len)
{
	struct rescue *r = arg;
	void *at = r->name, *text = r->text;
	int err = rescue_grow(&at, r->names, &r->name_room, sizeof(*r->name));

	r->name = at;
	while (!err && r->text_room - r->text_len < len + 1) {
		err = rescue_grow(&text, r->text_room, &r->text_room, 1);
		r->text = text;
	}
	if (err)
		return err;
	r->name[r->names++] = (struct rescue_name){ .dir = dir, .ino = ino,
						    .text = r->text_len };
	memcpy(r->text + r->text_len, name, len);
	r->text[r->text_len + len] = '\0';
	r->text_len += len + 1;
	return 0;
}

int rescue_collect(struct rescue *r)
{
	struct cowfs_rescue_sink sink = { .inode = take_inode,
					  .name = take_name, .arg = r };
	struct rescue_inode *in;
	int err = cowfs_rescue_names(r->image, &sink);

	for (size_t i = 0; !err && i < r->names; i++) {
		in = rescue_find(r, r->name[i].ino);
		if (in)
			in->named = true;
	}
	cowfs_rescue_info(r->image, &r->info);
	return err;
}

struct rescue_inode *rescue_find(const struct rescue *r, uint64_t ino)
{
	size_t lo = 0, hi = r->inodes;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->inode[mid].ino < ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < r->inodes && r->inode[lo].ino == ino ? &r->inode[lo] :
							   NULL;
}

size_t rescue_entries(const struct rescue *r, uint64_t dir, size_t *n)
{
	size_t lo = 0, hi = r->names, at;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->name[mid].dir < dir)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (at = lo; at < r->names && r->name[at].dir == dir; at++)
		;
	*n = at - lo;
	return lo;
}
