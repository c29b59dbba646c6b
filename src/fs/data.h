/*
 * data.h - blocks of file contents on their way to the map; private to src/fs
 *
 * Contents get to the device in this order, so that no I/O happens under the
 * tree lock and a failure leaves no trace:
 *
 *	1. data_begin    what is asked for, where it had best lie (T shared)
 *	2. data_take     blocks in nobody's hands
 *	3. data_write    their contents, and checksums
 *	4. data_prepare  all that may return -EAGAIN (T)
 *	5. data_map      the allocator's owner and the map (T exclusive)
 *
 * or data_give_back after any failure from 3 on. Between the steps the live
 * tree may be replaced (fs_restore): who has looked at it in step 1 compares
 * fs->restores in step 4, and begins again (-ERESTART, never seen outside)
 * when it differs. So does who has written while a side of a mirror came that
 * lacks it (step 4 looks).
 */
#ifndef COW_FS_DATA_H
#define COW_FS_DATA_H

#include <sys/stat.h>
#include <sys/uio.h>

#include "fs/private.h"

#define BLOCK COWFS_BLOCK_SIZE
#define DATA_BLOCKS 256u /* most blocks with contents in one step */
#define DATA_BYTES ((size_t)DATA_BLOCKS * BLOCK)
#define DATA_RUNS 256u

struct data_run {
	struct copies at;
	uint32_t len;
};

struct data {
	uint64_t lblk;   /* first block in the file */
	uint32_t blocks; /* how many */
	bool two;        /* two copies */
	unsigned sides;  /* store_sides_added */
	struct copies hint;
	unsigned runs;
	struct data_run run[DATA_RUNS];
	uint32_t csum[DATA_BLOCKS];
};

/* T: -EAGAIN, -ECOW_CORRUPT. */
MUST_CHECK int data_begin(struct fs *fs, const struct inode *in,
			  uint64_t lblk, uint32_t blocks, struct data *d);
/* No lock but I. Blocks for all of it (or d->blocks becomes less, if it would
 * be more than DATA_RUNS pieces). Commits when that frees blocks. -ENOSPC. */
MUST_CHECK int data_take(struct fs *fs, struct data *d);
void data_give_back(struct fs *fs, struct data *d);
/* Contents, whole blocks in each of at most three buffers. */
MUST_CHECK int data_write(struct fs *fs, struct data *d,
			  const struct iovec *iov, int cnt);
MUST_CHECK int data_prepare(struct fs *fs, uint64_t ino, const struct data *d);
/* Sets in->alloc_hint. */
MUST_CHECK int data_map(struct fs *fs, struct inode *in, const struct data *d,
			uint8_t kind, struct cowfs_disk_inode *inode);

/* Leaves that an operation on this many items, with this many checksums in
 * them, may change. */
unsigned data_leaves(struct fs *fs, uint64_t items, uint64_t csums);

/* ---- inline.c: small contents in the leaf ---- */

static inline bool inode_is_inline(const struct cowfs_disk_inode *d)
{
	return from_le32(d->flags) & COWFS_INODE_INLINE;
}

/* T. -EAGAIN, -ECOW_CORRUPT (none there, or not of the inode's size). */
MUST_CHECK int inline_get(struct tree *t, uint64_t ino,
			  const struct cowfs_disk_inode *d, struct item *out);
/* T exclusive, after tree_prepare of INLINE_KEY: set contents of d->size bytes
 * (0: there are none). Changes d, does not store it. */
#define INLINE_KEY(ino) KEY(ino, COWFS_KEY_INLINE, 0)
MUST_CHECK int inline_set(struct fs *fs, uint64_t ino,
			  struct cowfs_disk_inode *d, const void *data,
			  uint32_t len);
/* I: turn inline contents into extents; the file looks the same. */
MUST_CHECK int inline_to_extents(struct fs *fs, struct inode *in);
/* I: write if the file is, and stays, small enough; else *done is false. */
struct write;
MUST_CHECK int inline_write(const struct write *w, bool *done);

/* ---- file.c ---- */

/* T: a regular file of the live tree. -EISDIR, -EINVAL, -ESTALE, -EAGAIN. */
MUST_CHECK int file_get(struct fs *fs, uint64_t ino,
			struct cowfs_disk_inode *out);
/* Of any tree. */
MUST_CHECK int file_get_from(struct tree *t, uint64_t ino,
			     struct cowfs_disk_inode *out);
/* -EROFS unless files may be changed. */
MUST_CHECK int file_writable(struct fs *fs);

struct write {
	struct fs *fs;
	struct inode *in;
	uint64_t off;
	const uint8_t *buf;
	size_t len; /* of one step */
	unsigned flags;
};

#define FS_WRITE_INTERNAL 0x100u /* flags and times do not matter */

/* -EPERM by the inode's flags. */
MUST_CHECK int file_may_write(const struct cowfs_disk_inode *d,
			      const struct write *w);
/* The inode's times after a write. I is held. */
void write_touch(const struct write *w, struct cowfs_disk_inode *d);
/* I is held. As fs_write and fs_read, but without access times. */
MUST_CHECK int file_write(struct fs *fs, struct inode *in, uint64_t off,
			  const void *buf, size_t len, unsigned flags);
MUST_CHECK int file_read(struct fs *fs, struct view *v, uint64_t ino,
			 uint64_t off, void *buf, size_t len, size_t *got,
			 struct cowfs_disk_inode *d);
/* I: zero bytes within one block, below the end of the file. */
MUST_CHECK int file_zero_part(struct fs *fs, struct inode *in, uint64_t off,
			      uint64_t end);
/* I: can it be done: is there room for it now (-ENOSPC), and what is kept of the
 * block sound? */
MUST_CHECK int file_may_zero(struct fs *fs, struct inode *in, uint64_t off);

/* I, in steps of one transaction each: let go of whole blocks lblk .. end-1
 * (truncate.c). */
MUST_CHECK int file_punch(struct fs *fs, struct inode *in, uint64_t lblk,
			  uint64_t end);

/* T exclusive: set-id bits and capabilities go with a change of contents. */
struct priv {
	bool kill, cap;
};
MUST_CHECK int priv_prepare(struct fs *fs, uint64_t ino, bool kill,
			    struct priv *p);
MUST_CHECK int priv_kill(struct fs *fs, uint64_t ino, const struct priv *p,
			 struct cowfs_disk_inode *d);

#endif
