/*
 * file.c - reading and writing the contents of regular files
 *
 *   W1  A write step (up to 1 MiB) is one transaction: contents, map, size and
 *       times change together or not at all.
 *   W2  Blocks are replaced, never written in place; of a block that is written
 *       in part the rest is read, and verified, first.
 *   W3  In the last block of a file, bytes behind its end are zero. Growing a
 *       file needs no look at them.
 *   W4  The map and the size used for a read are those of one moment.
 */
#include "fs/data.h"

int file_writable(struct fs *fs)
{
	return fs->opt.readonly || store_readonly(fs->s) ? -EROFS : 0;
}

int file_get_from(struct tree *t, uint64_t ino, struct cowfs_disk_inode *out)
{
	struct cowfs_disk_inode d;
	uint32_t mode;
	int err;

	err = inode_read(t, ino, &d);
	if (err)
		return err;
	mode = from_le32(d.mode);
	if (S_ISDIR(mode))
		return -EISDIR;
	if (!S_ISREG(mode))
		return -EINVAL;
	*out = d;
	return 0;
}

int file_get(struct fs *fs, uint64_t ino, struct cowfs_disk_inode *out)
{
	return file_get_from(&fs->s->fs, ino, out);
}

int file_may_write(const struct cowfs_disk_inode *d, const struct write *w)
{
	uint32_t flags = from_le32(d->flags);

	/* What the kernel held back was allowed when it was written. */
	if (w->flags & (FS_WRITE_INTERNAL | FS_WRITE_CACHED))
		return 0;
	if (flags & COWFS_INODE_IMMUTABLE)
		return -EPERM;
	if (flags & COWFS_INODE_APPEND && w->off < from_le64(d->size))
		return -EPERM;
	return 0;
}

int priv_prepare(struct fs *fs, uint64_t ino, bool kill, struct priv *p)
{
	size_t len;
	int err;

	*p = (struct priv){ .kill = kill };
	if (!kill)
		return 0;
	err = xattr_get_locked(fs, &fs->s->fs, ino, CAPABILITY_NAME, NULL, 0,
			       &len);
	if (err == -ENODATA)
		return 0;
	if (err)
		return err;
	p->cap = true;
	return xattr_prepare(fs, ino, CAPABILITY_NAME, 0);
}

int priv_kill(struct fs *fs, uint64_t ino, const struct priv *p,
	      struct cowfs_disk_inode *d)
{
	if (!p->kill)
		return 0;
	inode_kill_suid(d, false); /* who writes is not known here */
	return p->cap ? xattr_remove_locked(fs, ino, CAPABILITY_NAME, d) : 0;
}

void write_touch(const struct write *w, struct cowfs_disk_inode *d)
{
	/* The kernel keeps the times of what it caches, and sends them when
	 * they have changed, before this request or after it. */
	if (!(w->flags & FS_WRITE_CACHED) || w->flags & FS_WRITE_TOUCH)
		inode_touch(d, true);
}

/* ---- reading ---- */

/* An unaligned piece of DATA_BYTES touches one block more. */
#define READ_BLOCKS (DATA_BLOCKS + 1)
#define NOW_BYTES (128u << 10)

/* block_read_now or block_read_data */
typedef int block_read_fn(struct blockio *io, struct copies at, size_t n,
			  const uint32_t *csum, void *buf);

/* Blocks that lie together on the device, or a stretch of zeros (at.a = 0). */
struct segment {
	uint32_t first, len; /* blocks, from the first one of the read */
	struct copies at;
};

struct read {
	struct fs *fs;
	struct view *view;
	uint64_t ino, off;
	uint8_t *buf;
	size_t room; /* of buf */
	size_t len;  /* of that, within the file */
	unsigned segments;
	uint64_t blk; /* the first block's; 0: none */
	struct cowfs_disk_inode inode;
	struct segment seg[READ_BLOCKS];
	uint32_t csum[READ_BLOCKS];
};

/* Does `at` go on where a segment ends (zeros after zeros, too)? */
static bool goes_on(const struct segment *s, struct copies at)
{
	if (!at.a || !s->at.a)
		return !at.a && !s->at.a;
	if (s->at.a + s->len != at.a)
		return false;
	return s->at.b ? s->at.b + s->len == at.b : !at.b;
}

static void add_segment(struct read *r, uint32_t first, uint32_t len,
			struct copies at)
{
	struct segment *last;

	if (r->segments) {
		last = &r->seg[r->segments - 1];
		if (goes_on(last, at)) {
			last->len += len;
			return;
		}
	}
	r->seg[r->segments++] = (struct segment){ first, len, at };
}

static void add_extent(struct read *r, uint64_t base, const struct extent *e)
{
	uint32_t first = (uint32_t)(e->lblk - base);
	struct copies at = { e->blk, e->blk2 };

	if (e->kind != COWFS_EXTENT_DATA) {
		add_segment(r, first, e->len, (struct copies){ 0, 0 });
		return;
	}
	for (uint32_t i = 0; i < e->len; i++)
		r->csum[first + i] = from_le32(e->csum[i]);
	add_segment(r, first, e->len, at);
}

/* T: what blocks the read needs. */
static int read_map(struct read *r, struct tree *t)
{
	uint64_t base = r->off / BLOCK, end = blocks_of(r->off + r->len);
	uint64_t at = base;
	struct extent_iter it;
	struct extent e;
	int err;

	r->segments = 0;
	err = extent_first(&it, r->fs, t, r->ino, base, &e);
	if (!err && e.lblk <= base && e.kind == COWFS_EXTENT_DATA)
		r->blk = e.blk + (base - e.lblk);
	for (; !err && e.lblk < end; err = extent_next(&it, &e)) {
		extent_crop(&e, base, end);
		if (e.lblk > at)
			add_segment(r, (uint32_t)(at - base),
				    (uint32_t)(e.lblk - at),
				    (struct copies){ 0, 0 });
		add_extent(r, base, &e);
		at = e.lblk + e.len;
		if (at == end)
			return 0; /* do not ask for a node behind it */
	}
	if (err && err != -ENOENT)
		return err;
	add_segment(r, (uint32_t)(at - base), (uint32_t)(end - at),
		    (struct copies){ 0, 0 });
	return 0;
}

static int read_locked(struct read *r)
{
	struct tree *t = view_tree(r->fs, r->view);
	uint64_t size;
	struct item it;
	int err;

	if (!t)
		return -ESTALE;
	err = file_get_from(t, r->ino, &r->inode);
	if (err)
		return err;
	size = from_le64(r->inode.size);
	r->segments = 0;
	r->blk = 0;
	r->len = 0;
	if (r->off >= size)
		return 0;
	r->len = (size_t)min_u64(r->room, size - r->off);
	if (!inode_is_inline(&r->inode))
		return read_map(r, t);
	err = inline_get(t, r->ino, &r->inode, &it);
	if (!err)
		memcpy(r->buf, (const uint8_t *)it.data + r->off, r->len);
	return err;
}

/* Block i of segment s, of which only a part is wanted. */
static int read_part(struct read *r, const struct segment *s, uint32_t i,
		     block_read_fn *how)
{
	uint64_t start = (r->off / BLOCK + s->first + i) * BLOCK;
	uint64_t from = max_u64(start, r->off);
	uint64_t to = min_u64(start + BLOCK, r->off + r->len);
	struct copies at = { s->at.a + i, s->at.b ? s->at.b + i : 0 };
	uint8_t bounce[BLOCK] __attribute__((aligned(BLOCK)));
	int err;

	err = how(&r->fs->s->io, at, 1, &r->csum[s->first + i], bounce);
	if (!err)
		memcpy(r->buf + (from - r->off), bounce + (from - start),
		       to - from);
	return err;
}

static int read_segment(struct read *r, const struct segment *s,
			block_read_fn *how)
{
	uint64_t start = (r->off / BLOCK + s->first) * BLOCK;
	uint64_t end = start + (uint64_t)s->len * BLOCK;
	uint64_t room_end = r->off + r->room;
	uint32_t from = 0, to = s->len;
	struct copies at;
	int err = 0;

	if (!s->at.a) {
		start = max_u64(start, r->off);
		end = min_u64(end, r->off + r->len);
		memset(r->buf + (start - r->off), 0, end - start);
		return 0;
	}
	if (start < r->off)
		err = read_part(r, s, from++, how);
	/* The last block may go beyond the file's end, not the buffer's. */
	if (!err && end > room_end && from < to)
		err = read_part(r, s, --to, how);
	if (err || from == to)
		return err;
	at = (struct copies){ s->at.a + from, s->at.b ? s->at.b + from : 0 };
	return how(&r->fs->s->io, at, to - from, &r->csum[s->first + from],
		   r->buf + (start + (uint64_t)from * BLOCK - r->off));
}

static int read_segments(struct read *r, block_read_fn *how)
{
	int err = 0;

	for (unsigned i = 0; !err && i < r->segments; i++)
		err = read_segment(r, &r->seg[i], how);
	return err;
}

/*
 * A piece that nobody has to wait for is copied at once, by whoever serves the
 * request: a thread that may have to wait lets another one have the next
 * request first (may_wait), which for something so short costs more.
 */
static int read_blocks(struct read *r)
{
	uint64_t size = from_le64(r->inode.size);
	int err = -EOPNOTSUPP;

	ahead_read_on(r->fs, r->view, r->ino, r->off, r->len, size,
		      r->segments == 1);
	if (r->len <= NOW_BYTES)
		err = read_segments(r, block_read_now);
	if (r->blk && (!err || err == -EAGAIN))
		ahead_read_around(r->fs, r->view, r->ino, r->len, size, r->blk,
				  err);
	return err ? read_segments(r, block_read_data) : 0;
}

/* One piece: the blocks found are not reused before we leave. */
static int read_piece(struct read *r)
{
	unsigned ticket = store_enter(r->fs->s);
	struct op op;
	int err;

	op_read(&op, r->fs->s);
	do
		err = read_locked(r);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err && r->segments)
		err = read_blocks(r);
	store_leave(r->fs->s, ticket);
	return err;
}

int file_read(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
	      void *buf, size_t len, size_t *got, struct cowfs_disk_inode *d)
{
	struct read r; /* not initialised: it is large */
	size_t done = 0;
	int err;

	if (off > COWFS_FILE_SIZE_MAX)
		return -EINVAL;
	r.fs = fs;
	r.view = v;
	r.ino = ino;
	r.off = off;
	r.buf = buf;
	do {
		r.room = len - done < DATA_BYTES ? len - done : DATA_BYTES;
		err = read_piece(&r);
		if (err)
			return err;
		done += r.len;
		r.off += r.len;
		r.buf += r.len;
	} while (r.len && r.len == r.room && done < len);
	*got = done;
	*d = r.inode;
	return 0;
}

int fs_read(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
	    void *buf, size_t len, size_t *got)
{
	struct cowfs_disk_inode d;
	int err;

	err = file_read(fs, v, ino, off, buf, len, got, &d);
	if (!err && len && v == fs_live(fs))
		inode_note_access(fs, ino, &d);
	return err;
}

int fs_read_quietly(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
		    void *buf, size_t len, size_t *got)
{
	struct cowfs_disk_inode d;

	return file_read(fs, v, ino, off, buf, len, got, &d);
}

/* ---- writing ---- */

/* A block that is written in part. */
struct edge {
	bool used;
	bool on_device; /* else the rest of it is zeros */
	uint64_t lblk;
	struct copies at;
	uint32_t csum;
	uint8_t buf[BLOCK] __attribute__((aligned(BLOCK)));
};

struct step {
	struct write w;
	uint64_t restores;
	uint64_t size; /* of the file before it */
	bool is_inline;
	struct edge head, tail;
	struct data data;
	struct extent_cut cut;
};

/* T: where the old bytes of an edge are, if any of them stay. */
static int edge_find(struct step *s, struct edge *g)
{
	uint64_t start = g->lblk * BLOCK, end = s->w.off + s->w.len;
	struct extent e;
	int err;

	g->on_device = false;
	if (start >= s->size)
		return 0;
	if (start >= s->w.off && end >= s->size)
		return 0;
	err = extent_at(s->w.fs, &s->w.fs->s->fs, s->w.in->ino, g->lblk, &e);
	if (err || !e.blk || e.kind != COWFS_EXTENT_DATA)
		return err;
	g->on_device = true;
	g->at = (struct copies){ e.blk, e.blk2 };
	g->csum = from_le32(e.csum[0]);
	return 0;
}

static int edge_fill(struct step *s, struct edge *g)
{
	uint64_t start = g->lblk * BLOCK;
	uint64_t from = max_u64(s->w.off, start);
	uint64_t to = min_u64(s->w.off + s->w.len, start + BLOCK);
	int err;

	memset(g->buf, 0, BLOCK);
	if (g->on_device) {
		err = block_read_data(&s->w.fs->s->io, g->at, 1, &g->csum,
				      g->buf);
		if (err)
			return err;
		if (s->size - start < BLOCK) /* W3, whoever wrote it */
			memset(g->buf + (s->size - start), 0,
			       BLOCK - (s->size - start));
	}
	memcpy(g->buf + (from - start), s->w.buf + (from - s->w.off),
	       to - from);
	return 0;
}

static int look_locked(struct step *s)
{
	uint64_t end = s->w.off + s->w.len;
	uint64_t first = s->w.off / BLOCK, last = (end - 1) / BLOCK;
	struct cowfs_disk_inode d;
	int err;

	err = file_get(s->w.fs, s->w.in->ino, &d);
	if (!err)
		err = file_may_write(&d, &s->w);
	if (err)
		return err;
	s->restores = s->w.fs->restores;
	s->size = from_le64(d.size);
	s->is_inline = inode_is_inline(&d);
	if (s->is_inline)
		return 0;
	s->head.lblk = first;
	s->head.used = s->w.off % BLOCK || (first == last && end % BLOCK);
	s->tail.lblk = last;
	s->tail.used = first != last && end % BLOCK;
	if (s->head.used)
		err = edge_find(s, &s->head);
	if (!err && s->tail.used)
		err = edge_find(s, &s->tail);
	s->cut = (struct extent_cut){ .ino = s->w.in->ino, .lblk = first,
				      .len = last - first + 1 };
	if (!err)
		err = extent_prepare_cut(s->w.fs, &s->cut);
	return err ? err
		   : data_begin(s->w.fs, s->w.in, first,
				(uint32_t)(last - first + 1), &s->data);
}

/* Look, and read what has to be kept of the blocks at both ends. */
static int step_look(struct step *s)
{
	unsigned ticket = store_enter(s->w.fs->s);
	struct op op;
	int err;

	op_read(&op, s->w.fs->s);
	do
		err = look_locked(s);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err && !s->is_inline && s->head.used)
		err = edge_fill(s, &s->head);
	if (!err && !s->is_inline && s->tail.used)
		err = edge_fill(s, &s->tail);
	store_leave(s->w.fs->s, ticket);
	return err;
}

static int step_write(struct step *s)
{
	uint64_t from = s->w.off, to = s->w.off + s->w.len;
	struct iovec iov[3];
	int n = 0;

	if (s->head.used) {
		iov[n++] = (struct iovec){ s->head.buf, BLOCK };
		from = (s->head.lblk + 1) * BLOCK;
	}
	if (s->tail.used)
		to = s->tail.lblk * BLOCK;
	if (from < to)
		iov[n++] = (struct iovec){
			(void *)(uintptr_t)(s->w.buf + (from - s->w.off)),
			to - from
		};
	if (s->tail.used)
		iov[n++] = (struct iovec){ s->tail.buf, BLOCK };
	return data_write(s->w.fs, &s->data, iov, n);
}

static int step_locked(struct step *s)
{
	struct key k = INODE_KEY(s->w.in->ino);
	uint64_t end = s->w.off + s->w.len;
	struct fs *fs = s->w.fs;
	struct cowfs_disk_inode d;
	struct priv priv;
	int err;

	if (s->restores != fs->restores)
		return -ERESTART;
	err = file_get(fs, s->w.in->ino, &d);
	if (!err)
		err = tree_prepare(&fs->s->fs, &k);
	if (!err)
		err = extent_prepare_cut(fs, &s->cut);
	if (!err)
		err = data_prepare(fs, s->w.in->ino, &s->data);
	if (!err)
		err = priv_prepare(fs, s->w.in->ino,
				   s->w.flags & FS_WRITE_KILL_PRIV, &priv);
	if (err)
		return err;
	err = extent_do_cut(fs, &s->cut, &d);
	if (!err)
		err = data_map(fs, s->w.in, &s->data, COWFS_EXTENT_DATA, &d);
	if (!err)
		err = priv_kill(fs, s->w.in->ino, &priv, &d);
	if (err)
		return err;
	d.size = to_le64(max_u64(from_le64(d.size), end));
	write_touch(&s->w, &d);
	return inode_write(fs, s->w.in->ino, &d);
}

static int step_store(struct step *s)
{
	struct fs *fs = s->w.fs;
	struct op op;
	int err;

	err = data_take(fs, &s->data);
	if (err)
		return err;
	err = step_write(s);
	if (!err)
		err = op_write(&op, fs->s, ALLOC_NORMAL,
				    data_leaves(fs,
						s->data.runs + s->cut.items,
						s->data.blocks));
	if (!err) {
		do
			err = step_locked(s);
		while (op_again(&op, &err));
		err = op_end(&op, err);
	}
	if (err)
		data_give_back(fs, &s->data);
	return err;
}

static int write_step(struct step *s)
{
	bool done;
	int err;

	err = inline_write(&s->w, &done);
	if (err || done)
		return err;
	err = step_look(s);
	if (!err && s->is_inline) {
		err = inline_to_extents(s->w.fs, s->w.in);
		if (!err)
			err = -ERESTART;
	}
	return err ? err : step_store(s);
}

int file_write(struct fs *fs, struct inode *in, uint64_t off, const void *buf,
	       size_t len, unsigned flags)
{
	struct step s;
	uint64_t stop;
	int err = 0;

	s.w = (struct write){ .fs = fs, .in = in, .off = off, .buf = buf,
			      .flags = flags };
	while (!err && len) {
		stop = (s.w.off / BLOCK + DATA_BLOCKS) * BLOCK;
		s.w.len = (size_t)min_u64(len, stop - s.w.off);
		do
			err = write_step(&s);
		while (err == -ERESTART);
		s.w.off += s.w.len;
		s.w.buf += s.w.len;
		len -= s.w.len;
	}
	return err;
}

int fs_write(struct fs *fs, uint64_t ino, uint64_t off, const void *buf,
	     size_t len, unsigned flags)
{
	struct inode *in;
	int err;

	err = file_writable(fs);
	if (err)
		return err;
	if (off > COWFS_FILE_SIZE_MAX || len > COWFS_FILE_SIZE_MAX - off)
		return -EFBIG;
	in = inode_get(fs, ino);
	if (!in)
		return -ENOMEM;
	mutex_lock(&in->lock);
	err = file_write(fs, in, off, buf, len, flags);
	mutex_unlock(&in->lock);
	if (err && flags & FS_WRITE_CACHED)
		inode_note_lost(fs, in, err);
	inode_put(fs, in);
	return err;
}

/* ---- small things ---- */

/* Whether block lblk has contents: zeroing what reads as zeros is no work. */
static int has_data(struct fs *fs, uint64_t ino, uint64_t lblk, bool *out,
		    uint64_t *size)
{
	struct cowfs_disk_inode d;
	struct extent e;
	struct op op;
	int err;

	op_read(&op, fs->s);
	do {
		err = file_get(fs, ino, &d);
		if (!err)
			err = extent_at(fs, &fs->s->fs, ino, lblk, &e);
	} while (op_again(&op, &err));
	err = op_end(&op, err);
	if (err)
		return err;
	*out = e.blk && e.kind == COWFS_EXTENT_DATA;
	*size = from_le64(d.size);
	return 0;
}

int file_zero_part(struct fs *fs, struct inode *in, uint64_t off, uint64_t end)
{
	static const uint8_t zeros[BLOCK];
	uint64_t size;
	bool data;
	int err;

	err = has_data(fs, in->ino, off / BLOCK, &data, &size);
	if (err || !data)
		return err;
	end = min_u64(end, size); /* W3: zero behind it */
	if (off >= end)
		return 0;
	return file_write(fs, in, off, zeros, (size_t)(end - off),
			  FS_WRITE_INTERNAL);
}

int file_may_zero(struct fs *fs, struct inode *in, uint64_t off)
{
	struct data d = { .blocks = 1 };
	struct cowfs_disk_inode inode;
	uint64_t size;
	struct op op;
	size_t got;
	uint8_t byte;
	bool data;
	int err;

	err = has_data(fs, in->ino, off / BLOCK, &data, &size);
	if (err || !data || off >= size)
		return err;
	err = file_read(fs, &fs->live, in->ino, off, &byte, 1, &got, &inode);
	if (err)
		return err;
	d.two = fs->s->super.data_copies > 1;
	err = data_take(fs, &d);
	if (err)
		return err;
	err = op_write(&op, fs->s, ALLOC_NORMAL, data_leaves(fs, 2, 1));
	if (!err)
		err = op_end(&op, 0);
	data_give_back(fs, &d);
	return err;
}

int fs_fsync(struct fs *fs, uint64_t ino, bool datasync)
{
	(void)ino; /* all that was done is covered, in order */
	(void)datasync;
	if (file_writable(fs))
		return 0;
	return store_sync(fs->s);
}
