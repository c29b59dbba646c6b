/*
 * truncate.c - changing a file's size; letting go of stretches of it
 *
 * A large file shrinks in steps, from its end, and its size shrinks with it:
 * after a crash it may be longer than asked for, but what it has are bytes that
 * were there before. (With the size set first, blocks still mapped behind the
 * end would come back to light when the file grows again.)
 *
 * A size that is what it was leaves the times as they are: the kernel, which
 * keeps them itself, leaves its own, too.
 */
#include "fs/data.h"

/* Items touched in one step, and the leaves these may lie in: the longest are a
 * quarter of a leaf. */
#define CUT_ITEMS 16u
#define CUT_LEAVES (CUT_ITEMS / 2 + 4)

struct shrink {
	struct fs *fs;
	uint64_t ino;
	uint64_t size;
	bool last;  /* set exactly this size in the end */
	bool done;  /* out */
};

/* Nothing is mapped from block s->size on, or less than before. */
static int shrink_locked(struct shrink *s)
{
	struct extent_cut cut = { .ino = s->ino, .lblk = blocks_of(s->size),
				  .max = CUT_ITEMS, .from_end = true };
	struct key k = INODE_KEY(s->ino);
	struct cowfs_disk_inode d;
	uint64_t kept;
	int err;

	cut.len = COWFS_FILE_BLOCKS_MAX - cut.lblk;
	err = file_get(s->fs, s->ino, &d);
	if (err)
		return err;
	if (inode_is_inline(&d))
		return -ERESTART;
	err = tree_prepare(&s->fs->s->fs, &k);
	if (!err && s->size <= from_le64(d.size)) /* growing: leave it */
		err = extent_prepare_cut(s->fs, &cut);
	else
		cut.done = cut.len;
	if (err)
		return err;
	s->done = cut.done == cut.len;
	err = extent_do_cut(s->fs, &cut, &d);
	if (err)
		return err;
	kept = (COWFS_FILE_BLOCKS_MAX - cut.done) * BLOCK;
	if (s->done)
		kept = s->size;
	if (kept < from_le64(d.size) ||
	    (kept > from_le64(d.size) && s->done && s->last)) {
		d.size = to_le64(kept);
		inode_touch(&d, true);
	}
	return inode_write(s->fs, s->ino, &d);
}

static int shrink(struct shrink *s)
{
	struct op op;
	int err;

	do {
		err = op_write(&op, s->fs->s, ALLOC_FREEING, CUT_LEAVES);
		if (err)
			return err;
		do
			err = shrink_locked(s);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	} while (!err && !s->done);
	return err;
}

/* ---- small contents ---- */

struct resize {
	struct fs *fs;
	uint64_t ino, size;
	/* out */
	uint64_t old_size;
	bool is_inline, done;
};

static int resize_locked(struct resize *r)
{
	uint32_t max = COWFS_INLINE_MAX(forest_node_size(r->fs->s->forest));
	uint8_t buf[COWFS_INLINE_MAX(COWFS_MAX_NODE_SIZE)] = { 0 };
	struct key ki = INODE_KEY(r->ino), kc = INLINE_KEY(r->ino);
	struct cowfs_disk_inode d;
	struct item it;
	int err;

	err = file_get(r->fs, r->ino, &d);
	if (err)
		return err;
	r->old_size = from_le64(d.size);
	r->is_inline = inode_is_inline(&d);
	r->done = r->is_inline && r->size <= max;
	if (!r->done)
		return 0;
	err = inline_get(&r->fs->s->fs, r->ino, &d, &it);
	if (err)
		return err;
	memcpy(buf, it.data, min_u64(it.len, r->size));
	err = tree_prepare(&r->fs->s->fs, &ki);
	if (!err)
		err = tree_prepare(&r->fs->s->fs, &kc);
	if (err)
		return err;
	err = inline_set(r->fs, r->ino, &d, buf, (uint32_t)r->size);
	if (err)
		return err;
	if (r->size != r->old_size)
		inode_touch(&d, true);
	return inode_write(r->fs, r->ino, &d);
}

/* Resize inline contents if they stay inline; in any case see what there is. */
static int resize(struct resize *r)
{
	struct op op;
	int err;

	err = op_write(&op, r->fs->s, ALLOC_FREEING, 4);
	if (err)
		return err;
	do
		err = resize_locked(r);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* ---- any size ---- */

/* Does cutting off what lies from block lblk on give blocks back at once? */
static int gives_room(struct fs *fs, uint64_t ino, uint64_t lblk, bool *out)
{
	struct extent_iter it;
	struct extent e;
	struct op op;
	int err;

	*out = false;
	op_read(&op, fs->s);
	do {
		err = extent_first(&it, fs, &fs->s->fs, ino, lblk, &e);
		while (!err && !*out) {
			*out = extent_is_ours(fs, &e);
			lblk = e.lblk + e.len; /* kept over -EAGAIN */
			err = extent_next(&it, &e);
		}
	} while (op_again(&op, &err));
	err = op_end(&op, err);
	return err == -ENOENT ? 0 : err;
}

static int keep_size_locked(struct fs *fs, uint64_t ino, uint64_t size)
{
	struct key k = INODE_KEY(ino);
	struct cowfs_disk_inode d;
	int err;

	err = file_get(fs, ino, &d);
	if (err || inode_is_inline(&d) || from_le64(d.size) >= size)
		return err;
	err = tree_prepare(&fs->s->fs, &k);
	if (err)
		return err;
	d.size = to_le64(size);
	return inode_write(fs, ino, &d);
}

/* Cutting off failed, perhaps after some steps. The kernel, which keeps sizes
 * itself, goes on with the old one, and so does the file: what was cut off is a
 * hole. No space is kept from that. */
static int keep_size(struct fs *fs, uint64_t ino, uint64_t size, int err)
{
	struct op op;
	int kept;

	kept = op_write(&op, fs->s, ALLOC_INTERNAL, 1);
	if (kept)
		return err;
	do
		kept = keep_size_locked(fs, ino, size);
	while (op_again(&op, &kept));
	return op_end(&op, kept) ? -EIO : err;
}

/*
 * The end will lie within a block: its rest becomes zero. First goes all behind
 * that block, so that there is room for a copy; if there would be none even
 * then, as snapshots hold what goes, or the block can't be read, the file stays as
 * it is.
 */
static int shrink_into(struct fs *fs, struct inode *in, uint64_t size,
		       uint64_t old_size)
{
	struct shrink s = { .fs = fs, .ino = in->ino,
			    .size = blocks_of(size) * BLOCK };
	bool gains;
	int err;

	err = file_may_zero(fs, in, size);
	if (err == -ENOSPC) {
		err = gives_room(fs, in->ino, blocks_of(size), &gains);
		if (!err && !gains)
			err = -ENOSPC;
	}
	if (!err && s.size <= old_size)
		err = shrink(&s);
	return err ? err : file_zero_part(fs, in, size, s.size);
}

static int truncate_once(struct fs *fs, struct inode *in, uint64_t size)
{
	struct resize r = { .fs = fs, .ino = in->ino, .size = size };
	struct shrink s = { .fs = fs, .ino = in->ino };
	int err;

	err = resize(&r);
	if (err || r.done)
		return err;
	if (r.is_inline) {
		err = inline_to_extents(fs, in);
		return err ? err : -ERESTART;
	}
	if (size < r.old_size && size % BLOCK)
		err = shrink_into(fs, in, size, r.old_size);
	s.size = size;
	s.last = true;
	if (!err)
		err = shrink(&s);
	if (!err || err == -ERESTART || size >= r.old_size)
		return err;
	return keep_size(fs, in->ino, r.old_size, err);
}

int file_truncate(struct fs *fs, struct inode *in, uint64_t size)
{
	int err;

	if (size > COWFS_FILE_SIZE_MAX)
		return -EFBIG;
	err = file_writable(fs);
	if (err)
		return err;
	do
		err = truncate_once(fs, in, size);
	while (err == -ERESTART);
	return err;
}

/* ---- holes ---- */

static int punch_locked(struct fs *fs, struct extent_cut *cut)
{
	struct key k = INODE_KEY(cut->ino);
	struct cowfs_disk_inode d;
	int err;

	err = file_get(fs, cut->ino, &d);
	if (!err)
		err = tree_prepare(&fs->s->fs, &k);
	if (!err)
		err = extent_prepare_cut(fs, cut);
	if (err || !cut->items)
		return err;
	err = extent_do_cut(fs, cut, &d);
	if (err)
		return err;
	inode_touch(&d, true);
	return inode_write(fs, cut->ino, &d);
}

int file_punch(struct fs *fs, struct inode *in, uint64_t lblk, uint64_t end)
{
	struct extent_cut cut = { .ino = in->ino, .max = CUT_ITEMS };
	struct op op;
	int err = 0;

	for (; !err && lblk < end; lblk += cut.done) {
		cut.lblk = lblk;
		cut.len = end - lblk;
		err = op_write(&op, fs->s, ALLOC_FREEING, CUT_LEAVES);
		if (err)
			return err;
		do
			err = punch_locked(fs, &cut);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	}
	return err;
}
