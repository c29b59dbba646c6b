/*
 * falloc.c - fallocate: preallocating, punching holes, zeroing
 *
 * All work in steps of one transaction each; after a crash a prefix of the
 * range may be done. Preallocated blocks are never written in place: a write
 * goes to new blocks and lets go of them, as everywhere (a block that a durable
 * superblock names is not written). They keep others from using the space, and
 * come back when it is written.
 */
#include <linux/falloc.h>

#include "fs/data.h"

#define PREALLOC_STEP 16384u /* blocks */
#define PREALLOC_LEAST 16u

struct falloc {
	struct fs *fs;
	struct inode *in;
	int mode;
	uint64_t off, end;
	bool kill_priv;
	/* as found at the beginning */
	uint64_t size, blocks;
	bool is_inline, two;
};

static int begin_locked(struct falloc *f)
{
	struct cowfs_disk_inode d;
	uint32_t flags;
	int err;

	err = file_get(f->fs, f->in->ino, &d);
	if (err)
		return err;
	flags = from_le32(d.flags);
	if (flags & COWFS_INODE_IMMUTABLE)
		return -EPERM;
	if (flags & COWFS_INODE_APPEND && f->mode & ~FALLOC_FL_KEEP_SIZE)
		return -EPERM;
	f->size = from_le64(d.size);
	f->blocks = from_le64(d.blocks);
	f->is_inline = inode_is_inline(&d);
	f->two = f->fs->s->super.data_copies > 1;
	return 0;
}

static int begin(struct falloc *f)
{
	struct op op;
	int err;

	op_read(&op, f->fs->s);
	do
		err = begin_locked(f);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* ---- holes ---- */

static int zero_inline(struct falloc *f)
{
	static const uint8_t zeros[COWFS_INLINE_MAX(COWFS_MAX_NODE_SIZE)];
	uint64_t end = min_u64(f->end, f->size);

	if (f->off >= end)
		return 0;
	return file_write(f->fs, f->in, f->off, zeros, (size_t)(end - f->off),
			  FS_WRITE_INTERNAL);
}

/* Whole blocks become a hole, parts of blocks are zeroed. */
static int punch(struct falloc *f)
{
	uint64_t end = f->end < f->size ? f->end : blocks_of(f->end) * BLOCK;
	uint64_t first = blocks_of(f->off), last = end / BLOCK;
	int err = 0;

	if (first > last)
		return file_zero_part(f->fs, f->in, f->off, end);
	if (f->off % BLOCK)
		err = file_zero_part(f->fs, f->in, f->off, first * BLOCK);
	if (!err && end % BLOCK)
		err = file_zero_part(f->fs, f->in, last * BLOCK, end);
	return err ? err : file_punch(f->fs, f->in, first, last);
}

/* ---- preallocation ---- */

/* A hole, as far as one step goes. */
struct hole {
	uint64_t lblk, end;
	uint64_t step; /* blocks, at most */
	uint64_t restores;
	struct data data;
};

/* T: the first hole in [h->lblk, h->end); data.blocks is 0 if there is none. */
static int find_hole(struct falloc *f, struct hole *h)
{
	struct extent_iter it;
	struct extent e;
	uint64_t len;
	int err;

	h->restores = f->fs->restores;
	h->data.blocks = 0;
	err = extent_first(&it, f->fs, &f->fs->s->fs, f->in->ino, h->lblk, &e);
	while (!err && e.lblk <= h->lblk && h->lblk < h->end) {
		h->lblk = e.lblk + e.len; /* kept over -EAGAIN */
		err = extent_next(&it, &e);
	}
	if (err && err != -ENOENT)
		return err;
	if (h->lblk >= h->end)
		return 0;
	len = min_u64(h->end - h->lblk, h->step);
	if (!err)
		len = min_u64(len, e.lblk - h->lblk);
	return data_begin(f->fs, f->in, h->lblk, (uint32_t)len, &h->data);
}

static int fill_locked(struct falloc *f, struct hole *h)
{
	struct key k = INODE_KEY(f->in->ino);
	struct cowfs_disk_inode d;
	int err;

	if (h->restores != f->fs->restores)
		return -ERESTART;
	err = file_get(f->fs, f->in->ino, &d);
	if (!err)
		err = tree_prepare(&f->fs->s->fs, &k);
	if (!err)
		err = data_prepare(f->fs, f->in->ino, &h->data);
	if (err)
		return err;
	err = data_map(f->fs, f->in, &h->data, COWFS_EXTENT_PREALLOC, &d);
	return err ? err : inode_write(f->fs, f->in->ino, &d);
}

static int fill_hole(struct falloc *f, struct hole *h)
{
	struct op op;
	int err;

	err = data_take(f->fs, &h->data);
	if (err)
		return err;
	err = op_write(&op, f->fs->s, ALLOC_NORMAL,
		       data_leaves(f->fs, h->data.runs, 0));
	if (!err) {
		do
			err = fill_locked(f, h);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	}
	if (err)
		data_give_back(f->fs, &h->data);
	return err;
}

/* A step may take so many blocks that none are left for the nodes it changes:
 * on a device that is nearly full the steps become shorter. */
static int shorten(struct hole *h, int err)
{
	if (err != -ENOSPC || h->step <= PREALLOC_LEAST)
		return err;
	h->step /= 2;
	return 0;
}

/* Fail before anything is done if the range cannot possibly fit. */
static int check_room(struct falloc *f)
{
	uint64_t want = blocks_of(f->end) - f->off / BLOCK;
	struct alloc_info info;
	unsigned tries = 0;
	int err = 0;

	want -= min_u64(want, f->blocks);
	if (f->two)
		want *= 2;
	alloc_info(f->fs->s->alloc, &info);
	while (!err && want > info.avail + info.pending) {
		err = store_make_room(f->fs->s, tries++);
		alloc_info(f->fs->s->alloc, &info);
	}
	return err;
}

static int preallocate(struct falloc *f)
{
	struct hole h = { .lblk = f->off / BLOCK, .end = blocks_of(f->end),
			  .step = PREALLOC_STEP };
	struct op op;
	int err;

	do {
		op_read(&op, f->fs->s);
		do
			err = find_hole(f, &h);
		while (op_again(&op, &err));
		err = op_end(&op, err);
		if (err || !h.data.blocks)
			break;
		err = fill_hole(f, &h);
		if (!err)
			h.lblk += h.data.blocks;
		else
			err = shorten(&h, err);
	} while (!err);
	return err;
}

/* ---- size and times, at the end ---- */

static int finish_locked(struct falloc *f)
{
	struct key k = INODE_KEY(f->in->ino);
	struct cowfs_disk_inode d;
	struct priv priv;
	int err;

	err = file_get(f->fs, f->in->ino, &d);
	if (!err)
		err = tree_prepare(&f->fs->s->fs, &k);
	if (!err)
		err = priv_prepare(f->fs, f->in->ino, f->kill_priv, &priv);
	if (err)
		return err;
	if (!(f->mode & FALLOC_FL_KEEP_SIZE) && f->end > from_le64(d.size)) {
		if (inode_is_inline(&d))
			return -ERESTART;
		d.size = to_le64(f->end);
	}
	err = priv_kill(f->fs, f->in->ino, &priv, &d);
	if (err)
		return err;
	inode_touch(&d, true);
	return inode_write(f->fs, f->in->ino, &d);
}

static int finish(struct falloc *f)
{
	struct op op;
	int err;

	err = op_write(&op, f->fs->s, f->mode & FALLOC_FL_PUNCH_HOLE
					      ? ALLOC_FREEING
					      : ALLOC_NORMAL, 3);
	if (err)
		return err;
	do
		err = finish_locked(f);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

static int falloc_once(struct falloc *f)
{
	bool zero = f->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	bool alloc = !(f->mode & FALLOC_FL_PUNCH_HOLE);
	int err;

	err = begin(f);
	if (err)
		return err;
	if (f->is_inline && zero && (!alloc || f->end <= f->size)) {
		err = zero_inline(f);
		return err ? err : finish(f);
	}
	if (f->is_inline) {
		err = inline_to_extents(f->fs, f->in);
		return err ? err : -ERESTART;
	}
	if (alloc)
		err = check_room(f); /* before anything is gone */
	if (!err && zero)
		err = punch(f);
	if (!err && alloc)
		err = preallocate(f);
	return err ? err : finish(f);
}

/* -EOPNOTSUPP, -EINVAL, -EFBIG. */
static int check_args(int mode, uint64_t off, uint64_t len)
{
	switch (mode) {
	case 0:
	case FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
	case FALLOC_FL_ZERO_RANGE:
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (!len)
		return -EINVAL;
	if (off > COWFS_FILE_SIZE_MAX || len > COWFS_FILE_SIZE_MAX - off)
		return -EFBIG;
	return 0;
}

int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t off,
		 uint64_t len, const struct cred *cred)
{
	struct falloc f = { .fs = fs, .mode = mode, .off = off,
			    .end = off + len,
			    .kill_priv = cred && cred->uid };
	int err;

	err = check_args(mode, off, len);
	if (!err)
		err = file_writable(fs);
	if (err)
		return err;
	f.in = inode_get(fs, ino);
	if (!f.in)
		return -ENOMEM;
	mutex_lock(&f.in->lock);
	do
		err = falloc_once(&f);
	while (err == -ERESTART);
	mutex_unlock(&f.in->lock);
	inode_put(fs, f.in);
	return err;
}
