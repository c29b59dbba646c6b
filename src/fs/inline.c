/*
 * inline.c - small file contents in the leaf, beside the inode
 *
 * A file with COWFS_INODE_INLINE has one INLINE item of exactly the inode's
 * size, more than 0 and at most COWFS_INLINE_MAX bytes, and no extents.
 */
#include <inttypes.h>

#include "fs/data.h"

#define SMALL_MAX COWFS_INLINE_MAX(COWFS_MAX_NODE_SIZE)

static uint32_t small_max(struct fs *fs)
{
	return COWFS_INLINE_MAX(forest_node_size(fs->s->forest));
}

int inline_get(struct tree *t, uint64_t ino, const struct cowfs_disk_inode *d,
	       struct item *out)
{
	struct key k = INLINE_KEY(ino);
	struct item it;
	int err;

	err = tree_get(t, &k, &it);
	if (err && err != -ENOENT)
		return err;
	if (err || it.len != from_le64(d->size) || it.len > SMALL_MAX)
		return report(-ECOW_CORRUPT,
			      "inode %" PRIu64 ": inline contents %s", ino,
			      err ? "missing" : "of another size");
	*out = it;
	return 0;
}

int inline_set(struct fs *fs, uint64_t ino, struct cowfs_disk_inode *d,
	       const void *data, uint32_t len)
{
	uint32_t flags = from_le32(d->flags);
	struct key k = INLINE_KEY(ino);
	int err = 0;

	if (len) {
		err = tree_put(&fs->s->fs, &k, data, len);
		flags |= COWFS_INODE_INLINE;
	} else if (flags & COWFS_INODE_INLINE) {
		err = tree_delete(&fs->s->fs, &k);
		flags &= ~COWFS_INODE_INLINE;
	}
	if (err)
		return err;
	d->flags = to_le32(flags);
	d->size = to_le64(len);
	return 0;
}

/* ---- writing ---- */

/* Old contents into buf, zeros after them. */
static int inline_load(struct fs *fs, uint64_t ino,
		       const struct cowfs_disk_inode *d, uint8_t *buf)
{
	struct item it;
	int err;

	memset(buf, 0, SMALL_MAX);
	if (!inode_is_inline(d))
		return 0;
	err = inline_get(&fs->s->fs, ino, d, &it);
	if (err)
		return err;
	memcpy(buf, it.data, it.len);
	return 0;
}

static bool can_be_inline(struct fs *fs, const struct cowfs_disk_inode *d)
{
	if (inode_is_inline(d))
		return true;
	/* Nothing is mapped, not even preallocated: a hole at most. */
	return !from_le64(d->blocks) && from_le64(d->size) <= small_max(fs);
}

static int inline_write_locked(const struct write *w, bool *done)
{
	struct key ki = INODE_KEY(w->in->ino), kc = INLINE_KEY(w->in->ino);
	struct cowfs_disk_inode d;
	uint8_t buf[SMALL_MAX];
	struct priv priv;
	uint64_t size;
	int err;

	err = file_get(w->fs, w->in->ino, &d);
	if (err)
		return err;
	*done = can_be_inline(w->fs, &d);
	if (!*done)
		return 0;
	size = max_u64(from_le64(d.size), w->off + w->len);
	err = file_may_write(&d, w);
	if (!err)
		err = inline_load(w->fs, w->in->ino, &d, buf);
	if (!err)
		err = tree_prepare(&w->fs->s->fs, &ki);
	if (!err)
		err = tree_prepare(&w->fs->s->fs, &kc);
	if (!err)
		err = priv_prepare(w->fs, w->in->ino,
				   w->flags & FS_WRITE_KILL_PRIV, &priv);
	if (err)
		return err;
	memcpy(buf + w->off, w->buf, w->len);
	err = inline_set(w->fs, w->in->ino, &d, buf, (uint32_t)size);
	if (!err)
		err = priv_kill(w->fs, w->in->ino, &priv, &d);
	if (err)
		return err;
	write_touch(w, &d);
	return inode_write(w->fs, w->in->ino, &d);
}

int inline_write(const struct write *w, bool *done)
{
	struct op op;
	int err;

	*done = false;
	if (w->off > small_max(w->fs) || w->len > small_max(w->fs) - w->off)
		return 0;
	err = op_write(&op, w->fs->s, ALLOC_NORMAL, 4);
	if (err)
		return err;
	do
		err = inline_write_locked(w, done);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* ---- growing out of the leaf ---- */

struct grow {
	struct fs *fs;
	struct inode *in;
	uint64_t restores;
	bool is_inline;
	struct data data;
	uint8_t buf[(SMALL_MAX + BLOCK - 1) / BLOCK * BLOCK];
};

static int grow_look(struct grow *g)
{
	struct cowfs_disk_inode d;
	int err;

	err = file_get(g->fs, g->in->ino, &d);
	if (err)
		return err;
	g->restores = g->fs->restores;
	g->is_inline = inode_is_inline(&d);
	if (!g->is_inline)
		return 0;
	memset(g->buf, 0, sizeof(g->buf));
	err = inline_load(g->fs, g->in->ino, &d, g->buf);
	if (err)
		return err;
	return data_begin(g->fs, g->in, 0,
			  (uint32_t)blocks_of(from_le64(d.size)), &g->data);
}

static int grow_locked(struct grow *g)
{
	struct key ki = INODE_KEY(g->in->ino), kc = INLINE_KEY(g->in->ino);
	struct tree *t = &g->fs->s->fs;
	struct cowfs_disk_inode d;
	uint64_t size;
	int err;

	if (g->restores != g->fs->restores)
		return -ERESTART;
	err = file_get(g->fs, g->in->ino, &d);
	if (!err)
		err = tree_prepare(t, &ki);
	if (!err)
		err = tree_prepare(t, &kc);
	if (!err)
		err = data_prepare(g->fs, g->in->ino, &g->data);
	if (err)
		return err;
	size = from_le64(d.size);
	err = inline_set(g->fs, g->in->ino, &d, NULL, 0);
	d.size = to_le64(size);
	if (!err)
		err = data_map(g->fs, g->in, &g->data, COWFS_EXTENT_DATA, &d);
	return err ? err : inode_write(g->fs, g->in->ino, &d);
}

static int grow_write(struct grow *g)
{
	struct iovec iov = { .iov_base = g->buf,
			     .iov_len = (size_t)g->data.blocks * BLOCK };
	struct op op;
	int err;

	err = data_take(g->fs, &g->data);
	if (err)
		return err;
	err = data_write(g->fs, &g->data, &iov, 1);
	if (!err)
		err = op_write(&op, g->fs->s, ALLOC_NORMAL,
				    data_leaves(g->fs, 2, g->data.blocks));
	if (!err) {
		do
			err = grow_locked(g);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	}
	if (err)
		data_give_back(g->fs, &g->data);
	return err;
}

int inline_to_extents(struct fs *fs, struct inode *in)
{
	struct grow g = { .fs = fs, .in = in };
	struct op op;
	int err;

	do {
		op_read(&op, fs->s);
		do
			err = grow_look(&g);
		while (op_again(&op, &err));
		err = op_end(&op, err);
		if (!err && g.is_inline)
			err = grow_write(&g);
	} while (err == -ERESTART);
	return err;
}
