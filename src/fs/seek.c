/*
 * seek.c - where a file has contents and where holes
 *
 * Preallocated stretches read as zeros and count as holes.
 */
#include <unistd.h>

#include "fs/data.h"

#define SEEK_ITEMS 1024 /* looked at before others get the tree lock */

struct seek {
	struct fs *fs;
	struct view *view;
	uint64_t ino, off;
	bool hole;    /* what is wanted */
	uint64_t at;  /* block to go on with */
	bool done;
	uint64_t out;
};

static int found(struct seek *s, uint64_t pos)
{
	s->done = true;
	s->out = max_u64(pos, s->off);
	return 0;
}

/* Data or hole at s->at or behind it, within the file. */
static int seek_map(struct seek *s, struct tree *t, uint64_t size)
{
	struct extent_iter it;
	struct extent e;
	int err;

	err = extent_first(&it, s->fs, t, s->ino, s->at, &e);
	for (int i = 0; !err && i < SEEK_ITEMS; i++) {
		if (e.lblk >= blocks_of(size))
			break;
		if (s->hole && (e.lblk > s->at || e.kind != COWFS_EXTENT_DATA))
			break;
		if (!s->hole && e.kind == COWFS_EXTENT_DATA)
			return found(s, e.lblk * BLOCK);
		s->at = e.lblk + e.len; /* kept over -EAGAIN */
		if (s->at >= blocks_of(size))
			break;
		err = extent_next(&it, &e);
		if (i == SEEK_ITEMS - 1 && !err)
			return 0; /* go on later */
	}
	if (err && err != -ENOENT)
		return err;
	if (!s->hole)
		return -ENXIO;
	return found(s, min_u64(s->at * BLOCK, size));
}

static int seek_locked(struct seek *s)
{
	struct tree *t = view_tree(s->fs, s->view);
	struct cowfs_disk_inode d;
	uint64_t size;
	int err;

	if (!t)
		return -ESTALE;
	err = file_get_from(t, s->ino, &d);
	if (err)
		return err;
	size = from_le64(d.size);
	if (s->off >= size)
		return -ENXIO;
	if (inode_is_inline(&d))
		return found(s, s->hole ? size : s->off);
	return seek_map(s, t, size);
}

int fs_seek(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
	    int whence, uint64_t *out)
{
	struct seek s = { .fs = fs, .view = v, .ino = ino, .off = off,
			  .hole = whence == SEEK_HOLE, .at = off / BLOCK };
	struct op op;
	int err = 0;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	while (!err && !s.done) {
		op_read(&op, fs->s);
		do
			err = seek_locked(&s);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	}
	if (!err)
		*out = s.out;
	return err;
}

static int map_locked(struct fs *fs, struct view *v, uint64_t ino,
		      uint64_t off, struct fs_map *out)
{
	struct tree *t = view_tree(fs, v);
	struct cowfs_disk_inode d;
	struct extent e;
	int err;

	if (!t)
		return -ESTALE;
	err = file_get_from(t, ino, &d);
	if (err)
		return err;
	if (inode_is_inline(&d) && off < from_le64(d.size)) {
		*out = (struct fs_map){ .len = from_le64(d.size),
					.is_inline = true };
		return 0;
	}
	err = extent_at(fs, t, ino, off / BLOCK, &e);
	if (err)
		return err;
	*out = (struct fs_map){
		.off = e.lblk * BLOCK,
		.len = (uint64_t)e.len * BLOCK,
		.blk = e.blk,
		.prealloc = e.blk && e.kind == COWFS_EXTENT_PREALLOC,
		.shared = e.flags & COWFS_EXTENT_SHARED,
	};
	return 0;
}

int fs_map(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
	   struct fs_map *out)
{
	struct op op;
	int err;

	if (off > COWFS_FILE_SIZE_MAX)
		return -EINVAL;
	op_read(&op, fs->s);
	do
		err = map_locked(fs, v, ino, off, out);
	while (op_again(&op, &err));
	return op_end(&op, err);
}
