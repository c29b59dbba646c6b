/*
 * copy.c - copy_file_range: sharing whole blocks, copying the rest
 *
 *   K1  One step is one transaction: of a range whose copying was cut short, a
 *       prefix has been copied.
 *   K2  Blocks named by two extents are marked COWFS_EXTENT_SHARED in both (a
 *       snapshot's own items can't be changed; they are known by their age) and
 *       keep the generation in which they were written.
 *   K3  A last block that the source's end cuts in two is shared only if it
 *       becomes the last one of the target: bytes behind the end are zero, and
 *       in the target nothing may lie there.
 *   K4  A block with as many references as half the counter holds is not shared
 *       any more, but copied: the other half is for copies of shared nodes, which
 *       nobody can refuse.
 */
#include "fs/data.h"

#define SHARE_ITEMS 64u
#define SHARE_CSUMS 4096u
#define SHARE_REFS (UINT32_MAX / 2)
_Static_assert(SHARE_CSUMS >= COWFS_EXTENT_MAX(COWFS_MAX_NODE_SIZE),
	       "a step can share the longest extent");

/* What becomes of a stretch of the target. */
struct piece {
	struct extent e;  /* lblk: in the target */
	uint64_t item;    /* key of the source's item */
	uint32_t csum;    /* index */
};

struct copy {
	struct fs *fs;
	struct view *view;
	struct inode *in; /* target */
	uint64_t ino;     /* source */
	uint64_t off, to, left;
	bool kill_priv;
	uint8_t *buf; /* for bytes; DATA_BYTES, once needed */

	/* found by look */
	uint64_t restores;
	uint64_t src_size, dst_size;
	bool src_inline, dst_inline;

	/* a step of sharing */
	uint64_t blocks; /* in: wanted; out: done */
	unsigned pieces;
	uint32_t csums;
	struct piece piece[SHARE_ITEMS];
	uint32_t csum[SHARE_CSUMS];
	struct extent_cut cut;
};

static bool is_live(const struct copy *c)
{
	return c->view == fs_live(c->fs);
}

static int look_locked(struct copy *c)
{
	struct tree *t = view_tree(c->fs, c->view);
	struct cowfs_disk_inode src, dst;
	int err;

	if (!t)
		return -ESTALE;
	err = file_get_from(t, c->ino, &src);
	if (!err)
		err = file_get(c->fs, c->in->ino, &dst);
	if (err)
		return err;
	if (from_le32(dst.flags) & (COWFS_INODE_IMMUTABLE | COWFS_INODE_APPEND))
		return -EPERM;
	c->restores = c->fs->restores;
	c->src_size = from_le64(src.size);
	c->dst_size = from_le64(dst.size);
	c->src_inline = inode_is_inline(&src);
	c->dst_inline = inode_is_inline(&dst);
	return 0;
}

static int look(struct copy *c)
{
	struct op op;
	int err;

	op_read(&op, c->fs->s);
	do
		err = look_locked(c);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* ---- sharing ---- */

/* Note that blocks from source block s->lblk on are what e says. false: the
 * step is full. */
static bool add_piece(struct copy *c, const struct extent *e, uint64_t item)
{
	struct piece *p = &c->piece[c->pieces];
	uint32_t n = e->kind == COWFS_EXTENT_DATA ? e->len : 0;

	if (c->pieces == SHARE_ITEMS || n > SHARE_CSUMS - c->csums)
		return false;
	p->e = *e;
	p->e.lblk = e->lblk - c->off / BLOCK + c->to / BLOCK;
	p->e.flags |= COWFS_EXTENT_SHARED;
	p->e.csum = NULL;
	p->item = item;
	p->csum = c->csums;
	for (uint32_t i = 0; i < n; i++)
		c->csum[c->csums++] = from_le32(e->csum[i]);
	c->pieces++;
	return true;
}

/* T: the source's extents; c->blocks becomes how many blocks they speak of. */
static int collect(struct copy *c, struct tree *t)
{
	uint64_t first = c->off / BLOCK, end = first + c->blocks;
	struct extent_iter it;
	struct extent e;
	uint64_t item;
	int err;

	c->pieces = 0;
	c->csums = 0;
	err = extent_first(&it, c->fs, t, c->ino, first, &e);
	while (!err && e.lblk < end) {
		item = e.lblk;
		extent_crop(&e, first, end);
		/* What is preallocated reads as zeros: a hole. */
		if (e.kind == COWFS_EXTENT_DATA && !add_piece(c, &e, item)) {
			c->blocks = e.lblk - first;
			return 0;
		}
		if (e.lblk + e.len == end)
			return 0;
		err = extent_next(&it, &e);
	}
	return err == -ENOENT ? 0 : err;
}

/* The target's range can be cut only so far in one step. */
static void trim(struct copy *c)
{
	uint64_t end = c->to / BLOCK + c->cut.done;
	struct piece *p;

	c->blocks = c->cut.len = c->cut.done;
	while (c->pieces && c->piece[c->pieces - 1].e.lblk >= end)
		c->pieces--;
	if (!c->pieces)
		return;
	p = &c->piece[c->pieces - 1];
	extent_crop(&p->e, p->e.lblk, end);
}

/* K4. -EMLINK: it is to be copied. */
static int check_refs(const struct copy *c, const struct extent *e)
{
	struct store *s = c->fs->s;
	uint64_t at = e->blk, end = e->blk + e->len, run;
	uint32_t extra;
	int err;

	for (; at < end; at += run) {
		err = alloc_extra(s->alloc, &s->refs_space, at, &extra, &run);
		if (err)
			return err;
		if (extra >= SHARE_REFS)
			return -EMLINK;
	}
	return 0;
}

static int prepare(struct copy *c, struct tree *t)
{
	struct key k = INODE_KEY(c->in->ino);
	int err;

	err = collect(c, t);
	if (err)
		return err;
	c->cut = (struct extent_cut){ .ino = c->in->ino,
				      .lblk = c->to / BLOCK,
				      .len = c->blocks };
	err = extent_prepare_cut(c->fs, &c->cut);
	if (err)
		return err;
	trim(c);
	err = tree_prepare(&c->fs->s->fs, &k);
	for (unsigned i = 0; !err && i < c->pieces; i++) {
		err = check_refs(c, &c->piece[i].e);
		if (!err)
			err = extent_prepare_map(c->fs, c->in->ino,
						 c->piece[i].e.lblk);
		if (err || !is_live(c))
			continue;
		k = KEY(c->ino, COWFS_KEY_EXTENT, c->piece[i].item);
		err = tree_prepare(t, &k);
	}
	return err;
}

/* Those of the first n pieces; where that fails wrong counts are not written. */
static void take_back_refs(struct copy *c, unsigned n)
{
	struct alloc *a = c->fs->s->alloc;
	int err = 0;

	for (unsigned i = 0; !err && i < n; i++) {
		const struct extent *e = &c->piece[i].e;

		err = alloc_ref(a, e->blk, e->len, -1, e->blk2);
	}
	if (err)
		alloc_spoil(a, err);
}

/* One more reference for each block; nothing else has changed yet. */
static int add_refs(struct copy *c)
{
	for (unsigned i = 0; i < c->pieces; i++) {
		const struct extent *e = &c->piece[i].e;
		int err = alloc_ref(c->fs->s->alloc, e->blk, e->len, 1, e->blk2);

		if (err) {
			take_back_refs(c, i);
			return err;
		}
	}
	return 0;
}

static int mark_shared(struct copy *c, uint64_t item)
{
	struct key k = KEY(c->ino, COWFS_KEY_EXTENT, item);
	struct tree *t = &c->fs->s->fs;
	const struct cowfs_disk_extent *old;
	struct item it;
	uint32_t len;
	void *data;
	int err;

	err = tree_get(t, &k, &it);
	if (err)
		return err;
	old = it.data;
	if (old->flags & COWFS_EXTENT_SHARED)
		return 0;
	err = tree_edit(t, &k, &data, &len);
	if (!err)
		((struct cowfs_disk_extent *)data)->flags |=
			COWFS_EXTENT_SHARED;
	return err;
}

static int change(struct copy *c, struct cowfs_disk_inode *d)
{
	const struct piece *p;
	int err;

	err = add_refs(c);
	if (err)
		return err;
	/* Before the cut: it may split a source item of the same file. */
	for (unsigned i = 0; !err && is_live(c) && i < c->pieces; i++)
		err = mark_shared(c, c->piece[i].item);
	if (!err)
		err = extent_do_cut(c->fs, &c->cut, d);
	for (unsigned i = 0; !err && i < c->pieces; i++) {
		p = &c->piece[i];
		err = extent_map_gen(c->fs, c->in->ino, &p->e,
				     c->csum + p->csum, d);
	}
	/* No memory for a copy of the first node, and no item is changed: that is
	 * no reason to stop. (If one is, the store stops.) */
	if (err)
		take_back_refs(c, c->pieces);
	return err;
}

static int share_locked(struct copy *c, uint64_t bytes)
{
	struct tree *t = view_tree(c->fs, c->view);
	struct cowfs_disk_inode d;
	struct priv priv;
	int err;

	if (c->restores != c->fs->restores || !t)
		return -ERESTART;
	err = file_get(c->fs, c->in->ino, &d);
	c->blocks = blocks_of(bytes);
	if (!err)
		err = prepare(c, t);
	if (!err)
		err = priv_prepare(c->fs, c->in->ino, c->kill_priv, &priv);
	if (err)
		return err;
	bytes = min_u64(bytes, c->blocks * BLOCK);
	err = change(c, &d);
	if (!err)
		err = priv_kill(c->fs, c->in->ino, &priv, &d);
	if (err)
		return err;
	d.size = to_le64(max_u64(from_le64(d.size), c->to + bytes));
	inode_touch(&d, true);
	return inode_write(c->fs, c->in->ino, &d);
}

static int share_step(struct copy *c, uint64_t *bytes)
{
	struct op op;
	int err;

	if (c->dst_inline) {
		err = inline_to_extents(c->fs, c->in);
		return err ? err : -ERESTART;
	}
	err = op_write(&op, c->fs->s, ALLOC_NORMAL,
			    2 * data_leaves(c->fs, 2 * SHARE_ITEMS,
					    SHARE_CSUMS));
	if (err)
		return err;
	do
		err = share_locked(c, *bytes);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err)
		*bytes = min_u64(*bytes, c->blocks * BLOCK);
	return err;
}

/* How many of n bytes can be shared now, beginning at once. */
static uint64_t shareable(const struct copy *c, uint64_t n)
{
	if (c->src_inline || c->off % BLOCK || c->to % BLOCK)
		return 0;
	if (c->off + n == c->src_size && c->to + n >= c->dst_size)
		return n; /* K3 */
	return n / BLOCK * BLOCK;
}

/* ---- copying bytes ---- */

static int bytes_step(struct copy *c, uint64_t *bytes)
{
	/* No more than one step of writing takes (K1). */
	uint64_t n = min_u64(*bytes, DATA_BYTES - c->to % BLOCK);
	struct cowfs_disk_inode d;
	size_t got;
	int err;

	/* Up to where sharing may begin. */
	if (!c->src_inline && c->off % BLOCK &&
	    c->off % BLOCK == c->to % BLOCK)
		n = min_u64(n, BLOCK - c->off % BLOCK);
	if (!c->buf)
		c->buf = malloc(DATA_BYTES);
	if (!c->buf)
		return -ENOMEM;
	err = file_read(c->fs, c->view, c->ino, c->off, c->buf, (size_t)n,
			&got, &d);
	if (!err)
		err = file_write(c->fs, c->in, c->to, c->buf, got,
				 c->kill_priv ? FS_WRITE_KILL_PRIV : 0);
	*bytes = got;
	return err;
}

/* ---- the whole ---- */

static int copy_step(struct copy *c, uint64_t *bytes)
{
	uint64_t n, shared;
	int err;

	*bytes = 0;
	err = look(c);
	if (err || c->off >= c->src_size)
		return err;
	n = min_u64(c->left, c->src_size - c->off);
	c->left = n; /* a file copied into itself has no end otherwise */
	shared = shareable(c, n);
	if (shared) {
		err = share_step(c, &shared);
		if (err != -EMLINK)
			n = shared;
	}
	if (!shared || err == -EMLINK)
		err = bytes_step(c, &n);
	if (!err)
		*bytes = n;
	return err;
}

static int copy_locked(struct copy *c, uint64_t *copied)
{
	uint64_t bytes, done = 0;
	int err = 0;

	while (c->left) {
		do
			err = copy_step(c, &bytes);
		while (err == -ERESTART);
		if (err || !bytes)
			break;
		c->off += bytes;
		c->to += bytes;
		c->left -= bytes;
		done += bytes;
	}
	if (err && !done)
		return err;
	*copied = done;
	return 0;
}

/* Two inodes, lower number first; b may be NULL. */
static void lock_both(struct inode *a, struct inode *b)
{
	if (b && b->ino < a->ino)
		mutex_lock(&b->lock);
	mutex_lock(&a->lock);
	if (b && b->ino > a->ino)
		mutex_lock(&b->lock);
}

static int copy_in(struct fs *fs, bool kill_priv, struct view *from,
		   uint64_t ino, uint64_t off, struct inode *in,
		   uint64_t to_off, uint64_t len, uint64_t *copied)
{
	struct inode *src = NULL;
	struct copy *c;
	int err;

	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct copy){ .fs = fs, .view = from, .ino = ino, .off = off,
			    .in = in, .to = to_off, .left = len,
			    .kill_priv = kill_priv };
	if (is_live(c) && ino != in->ino) {
		src = inode_get(fs, ino);
		if (!src) {
			free(c);
			return -ENOMEM;
		}
	}
	lock_both(in, src);
	err = copy_locked(c, copied);
	if (src)
		mutex_unlock(&src->lock);
	mutex_unlock(&in->lock);
	inode_put(fs, src);
	free(c->buf);
	free(c);
	return err;
}

int fs_copy_range(struct fs *fs, struct view *from, uint64_t ino, uint64_t off,
		  uint64_t to, uint64_t to_off, uint64_t len, uint64_t *copied)
{
	return fs_copy_range_by(fs, NULL, from, ino, off, to, to_off, len,
				copied);
}

int fs_copy_range_by(struct fs *fs, const struct cred *cred, struct view *from,
		     uint64_t ino, uint64_t off, uint64_t to, uint64_t to_off,
		     uint64_t len, uint64_t *copied)
{
	bool kill_priv = !cred || cred->uid;
	struct inode *in;
	int err;

	err = file_writable(fs);
	if (err)
		return err;
	if (to_off >= COWFS_FILE_SIZE_MAX)
		return -EFBIG;
	if (off > COWFS_FILE_SIZE_MAX)
		return -EINVAL;
	len = min_u64(len, COWFS_FILE_SIZE_MAX - off);
	len = min_u64(len, COWFS_FILE_SIZE_MAX - to_off);
	if (from == fs_live(fs) && ino == to && off < to_off + len &&
	    to_off < off + len)
		return -EINVAL;
	in = inode_get(fs, to);
	if (!in)
		return -ENOMEM;
	err = copy_in(fs, kill_priv, from, ino, off, in, to_off, len, copied);
	inode_put(fs, in);
	return err;
}
