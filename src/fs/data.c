/*
 * data.c - blocks for file contents: taken, written, mapped or given back
 *
 * See data.h for the order and why.
 */
#include "fs/data.h"

unsigned data_leaves(struct fs *fs, uint64_t items, uint64_t csums)
{
	uint64_t each = sizeof(struct cowfs_disk_item) +
			sizeof(struct cowfs_disk_extent);
	uint64_t bytes = items * each + csums * 4;
	uint64_t body = COWFS_NODE_BODY(forest_node_size(fs->s->forest));

	/* Leaves are half full after a split; inode, neighbours, an xattr. */
	return (unsigned)(5 + 2 * bytes / body);
}

int data_begin(struct fs *fs, const struct inode *in, uint64_t lblk,
	       uint32_t blocks, struct data *d)
{
	struct extent before = { .blk = 0 };
	int err;

	if (lblk) {
		err = extent_at(fs, &fs->s->fs, in->ino, lblk - 1, &before);
		if (err)
			return err;
	}
	d->lblk = lblk;
	d->blocks = blocks;
	d->runs = 0;
	d->sides = store_sides_added(fs->s);
	d->two = fs->s->super.data_copies > 1;
	d->hint.a = before.blk ? before.blk + 1 : in->alloc_hint;
	d->hint.b = before.blk2 ? before.blk2 + 1 : 0;
	return 0;
}

static int take_run(struct fs *fs, struct data *d, uint32_t want,
		    struct data_run *run)
{
	uint64_t blk, blk2 = 0, got, got2;
	int err;

	err = alloc_take(fs->s->alloc, AREA_DATA, d->hint.a, want, &blk, &got);
	if (err)
		return err;
	if (d->two) {
		err = alloc_take(fs->s->alloc, AREA_DATA2, d->hint.b, got,
				 &blk2, &got2);
		if (err) {
			alloc_give_back(fs->s->alloc, blk, got);
			return err;
		}
		if (got2 < got)
			alloc_give_back(fs->s->alloc, blk + got2, got - got2);
		got = got2;
		d->hint.b = blk2 + got;
	}
	d->hint.a = blk + got;
	*run = (struct data_run){ .at = { blk, blk2 }, .len = (uint32_t)got };
	return 0;
}

int data_take(struct fs *fs, struct data *d)
{
	uint32_t max = COWFS_EXTENT_MAX(forest_node_size(fs->s->forest));
	uint32_t taken = 0, want;
	unsigned tries = 0;
	int err;

	while (taken < d->blocks) {
		if (d->runs == DATA_RUNS)
			break;
		want = d->blocks - taken < max ? d->blocks - taken : max;
		err = take_run(fs, d, want, &d->run[d->runs]);
		if (err == -ENOSPC) {
			err = store_make_room(fs->s, tries++);
			if (!err)
				continue;
		}
		if (err) {
			data_give_back(fs, d);
			return err;
		}
		taken += d->run[d->runs++].len;
	}
	d->blocks = taken;
	return 0;
}

void data_give_back(struct fs *fs, struct data *d)
{
	const struct data_run *r;

	/* Half-way some may be owned already, and it matters no more. */
	if (store_stopped(fs->s))
		return;
	for (unsigned i = 0; i < d->runs; i++) {
		r = &d->run[i];
		alloc_give_back(fs->s->alloc, r->at.a, r->len);
		if (r->at.b)
			alloc_give_back(fs->s->alloc, r->at.b, r->len);
	}
	d->runs = 0;
}

/* The part of src that is blocks skip .. skip + n - 1 of it. */
static int slice(const struct iovec *src, int cnt, size_t skip, size_t n,
		 struct iovec *out)
{
	size_t part;
	int used = 0;

	skip *= BLOCK;
	n *= BLOCK;
	for (int i = 0; i < cnt && n; i++) {
		if (skip >= src[i].iov_len) {
			skip -= src[i].iov_len;
			continue;
		}
		part = src[i].iov_len - skip;
		if (part > n)
			part = n;
		out[used++] = (struct iovec){
			.iov_base = (char *)src[i].iov_base + skip,
			.iov_len = part,
		};
		skip = 0;
		n -= part;
	}
	return used;
}

int data_write(struct fs *fs, struct data *d, const struct iovec *iov, int cnt)
{
	struct iovec part[3];
	const struct data_run *r;
	size_t at = 0;
	int err, n;

	for (int i = 0; i < cnt; i++) {
		checksum_blocks(iov[i].iov_base, iov[i].iov_len / BLOCK,
				d->csum + at);
		at += iov[i].iov_len / BLOCK;
	}
	at = 0;
	for (unsigned i = 0; i < d->runs; i++) {
		r = &d->run[i];
		n = slice(iov, cnt, at, r->len, part);
		err = block_writev(&fs->s->io, r->at.a, part, n);
		if (!err && r->at.b) {
			n = slice(iov, cnt, at, r->len, part);
			err = block_writev(&fs->s->io, r->at.b, part, n);
		}
		if (err)
			return err;
		at += r->len;
	}
	return 0;
}

int data_prepare(struct fs *fs, uint64_t ino, const struct data *d)
{
	uint64_t lblk = d->lblk;
	int err = d->sides == store_sides_added(fs->s) ? 0 : -ERESTART;

	for (unsigned i = 0; !err && i < d->runs; i++) {
		err = extent_prepare_map(fs, ino, lblk);
		lblk += d->run[i].len;
	}
	return err;
}

int data_map(struct fs *fs, struct inode *in, const struct data *d,
	     uint8_t kind, struct cowfs_disk_inode *inode)
{
	bool sums = kind == COWFS_EXTENT_DATA;
	struct alloc *a = fs->s->alloc;
	const struct data_run *r;
	uint32_t at = 0;
	int err = 0;

	for (unsigned i = 0; i < d->runs; i++) {
		r = &d->run[i];
		err = extent_map(fs, in->ino, d->lblk + at, r->at, r->len,
				 kind, 0, sums ? d->csum + at : NULL, inode);
		if (err)
			break; /* this one is still in flight */
		alloc_own(a, r->at.a, r->len);
		if (r->at.b)
			alloc_own(a, r->at.b, r->len);
		at += r->len;
		in->alloc_hint = r->at.a + r->len;
	}
	return err;
}
