/*
 * extent.c - the map of a file: which blocks hold its contents
 *
 *   E1  The extents of a file do not overlap; what none covers is a hole.
 *   E2  Cutting an extent keeps the checksums of what is left of it.
 *   E3  Blocks are freed at once only if nobody else can refer to them: their
 *       extent is younger than the newest snapshot of the tree and was never
 *       shared with another extent. Else a reference is dropped, and the count
 *       decides.
 *   E4  All blocks of an extent were written in the generation it names:
 *       extents of different generations are not joined. The allocator (A3)
 *       takes that number for the blocks' age when they are freed, and recovery
 *       takes it to know what the newest commit has written; neither may be
 *       told the age of a neighbour.
 *
 * A cut is planned while -EAGAIN is still possible: extent_prepare_cut notes
 * the keys of the items it is going to touch, and extent_do_cut gets them one
 * by one, without looking left or right, where a node could be missing.
 */
#include <inttypes.h>

#include "fs/private.h"

#define ITEM_MAX COWFS_ITEM_MAX(COWFS_MAX_NODE_SIZE)
#define HEAD ((uint32_t)sizeof(struct cowfs_disk_extent))

static struct key extent_key(uint64_t ino, uint64_t lblk)
{
	return KEY(ino, COWFS_KEY_EXTENT, lblk);
}

static bool is_extent_of(const struct key *k, uint64_t ino)
{
	return k->obj == ino && k->type == COWFS_KEY_EXTENT;
}

/* Do the blocks lie where data may lie? */
static bool on_device(struct fs *fs, uint64_t blk, uint32_t len)
{
	uint64_t end = fs->s->io.blocks - COWFS_SUPER_SLOTS;

	return blk >= COWFS_FIRST_BLOCK && blk <= end && len <= end - blk;
}

/* What is wrong with an extent; NULL: nothing. */
static const char *fault_of(struct fs *fs, const struct extent *e,
			    const struct cowfs_disk_extent *d,
			    uint32_t item_len)
{
	uint32_t max = COWFS_EXTENT_MAX(forest_node_size(fs->s->forest));

	if (e->kind > COWFS_EXTENT_PREALLOC)
		return "unknown kind";
	if (d->compression != COWFS_COMPRESS_NONE)
		return "unknown compression";
	if (!e->len || e->len > max)
		return "impossible length";
	if (from_le32(d->disk_len) != e->len || from_le32(d->disk_off))
		return "impossible place in it";
	if (item_len != HEAD + (e->kind == COWFS_EXTENT_DATA ? 4 * e->len : 0))
		return "wrong number of checksums";
	if (e->lblk >= COWFS_FILE_BLOCKS_MAX ||
	    e->len > COWFS_FILE_BLOCKS_MAX - e->lblk)
		return "beyond the largest file";
	if (!on_device(fs, e->blk, e->len) ||
	    (e->blk2 && !on_device(fs, e->blk2, e->len)))
		return "blocks outside the device";
	if (!e->gen || e->gen > forest_gen(fs->s->forest))
		return "impossible generation";
	return NULL;
}

int extent_from_item(struct fs *fs, const struct key *k, const struct item *it,
		     struct extent *out)
{
	const struct cowfs_disk_extent *d = it->data;
	const char *fault = "item too short";
	struct extent e;

	if (it->len >= HEAD) {
		e = (struct extent){
			.lblk = k->off,
			.blk = from_le64(d->blk),
			.blk2 = from_le64(d->blk2),
			.gen = from_le64(d->gen),
			.len = from_le32(d->len),
			.kind = d->kind,
			.flags = d->flags,
			.csum = d->kind == COWFS_EXTENT_DATA
					? (const struct le32 *)(d + 1)
					: NULL,
		};
		fault = fault_of(fs, &e, d, it->len);
	}
	if (fault)
		return report(-ECOW_CORRUPT,
			      "inode %" PRIu64 ": extent at block %" PRIu64
			      ": %s",
			      k->obj, k->off, fault);
	*out = e;
	return 0;
}

static int report_overlap(uint64_t ino, uint64_t lblk)
{
	return report(-ECOW_CORRUPT,
		      "inode %" PRIu64 ": extents overlap at block %" PRIu64,
		      ino, lblk);
}

/* ---- reading the map ---- */

/* The extent the cursor stands on, if it is one of this file. */
static int here(struct extent_iter *it, struct extent *out)
{
	struct extent e;
	int err;

	if (!is_extent_of(&it->c.key, it->ino))
		return -ENOENT;
	err = extent_from_item(it->fs, &it->c.key, &it->c.item, &e);
	if (err)
		return err;
	if (e.lblk < it->end)
		return report_overlap(it->ino, e.lblk);
	it->end = e.lblk + e.len;
	*out = e;
	return 0;
}

int extent_first(struct extent_iter *it, struct fs *fs, struct tree *t,
		 uint64_t ino, uint64_t lblk, struct extent *out)
{
	struct key k = extent_key(ino, lblk);
	struct extent e;
	int err;

	it->fs = fs;
	it->ino = ino;
	it->end = 0;
	err = cursor_floor(&it->c, t, &k);
	if (err == -ENOENT) {
		err = cursor_ceil(&it->c, t, &k);
		return err ? err : here(it, out);
	}
	if (err)
		return err;
	err = here(it, &e);
	if (!err && it->end > lblk) {
		*out = e;
		return 0;
	}
	if (err && err != -ENOENT)
		return err;
	err = extent_next(it, &e);
	if (err)
		return err;
	/* in a damaged tree a leaf may lie on another side of lblk than the
	 * keys above it say; nobody is to be led backwards */
	if (it->end <= lblk)
		return report_overlap(ino, e.lblk);
	*out = e;
	return 0;
}

int extent_next(struct extent_iter *it, struct extent *out)
{
	int err = cursor_next(&it->c);

	return err ? err : here(it, out);
}

/* The last extent that begins at or before lblk. */
static int extent_last(struct extent_iter *it, struct fs *fs, struct tree *t,
		       uint64_t ino, uint64_t lblk, struct extent *out)
{
	struct key k = extent_key(ino, lblk);
	int err;

	it->fs = fs;
	it->ino = ino;
	it->end = 0;
	err = cursor_floor(&it->c, t, &k);
	return err ? err : here(it, out);
}

/* The one before it. */
static int extent_prev(struct extent_iter *it, struct extent *out)
{
	uint64_t limit = it->c.key.off;
	struct extent e;
	int err = cursor_prev(&it->c);

	if (err)
		return err;
	it->end = 0;
	err = here(it, &e);
	if (err)
		return err;
	if (e.lblk + e.len > limit)
		return report_overlap(it->ino, limit);
	*out = e;
	return 0;
}

void extent_crop(struct extent *e, uint64_t lblk, uint64_t end)
{
	uint64_t skip = lblk > e->lblk ? lblk - e->lblk : 0;

	if (end < e->lblk + e->len)
		e->len = (uint32_t)(end - e->lblk);
	if (!skip)
		return;
	e->lblk += skip;
	e->len -= (uint32_t)skip;
	if (!e->blk)
		return;
	e->blk += skip;
	if (e->blk2)
		e->blk2 += skip;
	if (e->csum)
		e->csum += skip;
}

int extent_at(struct fs *fs, struct tree *t, uint64_t ino, uint64_t lblk,
	      struct extent *out)
{
	uint64_t next = COWFS_FILE_BLOCKS_MAX;
	struct extent_iter it;
	struct extent e;
	int err;

	err = extent_first(&it, fs, t, ino, lblk, &e);
	if (err && err != -ENOENT)
		return err;
	if (!err && e.lblk <= lblk) {
		extent_crop(&e, lblk, UINT64_MAX);
		*out = e;
		return 0;
	}
	if (!err)
		next = e.lblk;
	next = next > lblk ? next - lblk : 0;
	*out = (struct extent){ .lblk = lblk,
				.len = (uint32_t)min_u64(next, UINT32_MAX) };
	return 0;
}

/* ---- cutting ---- */

static unsigned cut_max(const struct extent_cut *cut)
{
	return cut->max && cut->max < EXTENT_CUT_MAX ? cut->max
						     : EXTENT_CUT_MAX;
}

/* Note the items from the front on. *split: the last one goes on behind. */
static int plan_forward(struct fs *fs, struct extent_cut *cut, bool *split)
{
	uint64_t end = cut->lblk + cut->len;
	struct extent_iter it;
	struct extent e;
	int err;

	err = extent_first(&it, fs, &fs->s->fs, cut->ino, cut->lblk, &e);
	for (; !err && e.lblk < end; err = extent_next(&it, &e)) {
		if (cut->items == cut_max(cut))
			return 0;
		cut->item[cut->items++] = e.lblk;
		cut->done = min_u64(e.lblk + e.len, end) - cut->lblk;
		*split = e.lblk + e.len > end;
	}
	if (err && err != -ENOENT)
		return err;
	cut->done = cut->len;
	return 0;
}

static int plan_backward(struct fs *fs, struct extent_cut *cut, bool *split)
{
	uint64_t end = cut->lblk + cut->len;
	struct extent_iter it;
	struct extent e;
	int err;

	err = extent_last(&it, fs, &fs->s->fs, cut->ino, end - 1, &e);
	for (; !err && e.lblk + e.len > cut->lblk;
	     err = extent_prev(&it, &e)) {
		if (cut->items == cut_max(cut))
			return 0;
		if (!cut->items)
			*split = e.lblk + e.len > end;
		cut->item[cut->items++] = e.lblk;
		cut->done = end - max_u64(e.lblk, cut->lblk);
	}
	if (err && err != -ENOENT)
		return err;
	cut->done = cut->len;
	return 0;
}

int extent_prepare_cut(struct fs *fs, struct extent_cut *cut)
{
	bool split = false;
	struct key k;
	int err;

	cut->items = 0;
	cut->done = 0;
	if (!cut->len)
		return 0;
	err = cut->from_end ? plan_backward(fs, cut, &split)
			    : plan_forward(fs, cut, &split);
	for (unsigned i = 0; !err && i < cut->items; i++) {
		k = extent_key(cut->ino, cut->item[i]);
		err = tree_prepare(&fs->s->fs, &k);
	}
	if (!err && split) {
		/* what is left behind the range gets a key of its own */
		k = extent_key(cut->ino, cut->lblk + cut->len);
		err = tree_prepare(&fs->s->fs, &k);
	}
	return err;
}

bool extent_is_ours(struct fs *fs, const struct extent *e)
{
	return e->gen > fs->s->fs.shared_gen &&
	       !(e->flags & COWFS_EXTENT_SHARED);
}

/* The blocks of e are not named by this file any more (E3). */
static int let_go(struct fs *fs, const struct extent *e)
{
	struct alloc *a = fs->s->alloc;

	if (!extent_is_ours(fs, e))
		return alloc_ref(a, e->blk, e->len, -1, e->blk2);
	alloc_free(a, e->blk, e->len, e->gen);
	if (e->blk2)
		alloc_free(a, e->blk2, e->len, e->gen);
	return 0;
}

/* Replace the item of `whole` by what lies outside [a, b). */
static int put_rest(struct fs *fs, uint64_t ino, const struct extent *whole,
		    const struct item *it, uint64_t a, uint64_t b)
{
	struct key k = extent_key(ino, whole->lblk);
	uint32_t left = (uint32_t)(a - whole->lblk);
	uint32_t skip = (uint32_t)(b - whole->lblk);
	uint32_t right = whole->len - skip;
	uint32_t each = whole->csum ? 4 : 0;
	struct tree *t = &fs->s->fs;
	uint8_t buf[ITEM_MAX];
	struct cowfs_disk_extent h;
	int err;

	memcpy(buf, it->data, it->len); /* the item moves with the change */
	memcpy(&h, buf, sizeof(h));
	if (left) {
		h.len = h.disk_len = to_le32(left);
		memcpy(buf, &h, sizeof(h));
		err = tree_put(t, &k, buf, HEAD + each * left);
	} else {
		err = tree_delete(t, &k);
	}
	if (err || !right)
		return err;
	h.len = h.disk_len = to_le32(right);
	h.blk = to_le64(whole->blk + skip);
	if (whole->blk2)
		h.blk2 = to_le64(whole->blk2 + skip);
	/* The head goes right before the checksums that stay, over some that
	 * do not. */
	memcpy(buf + each * skip, &h, sizeof(h));
	k.off = b;
	return tree_insert(t, &k, buf + each * skip, HEAD + each * right, NULL);
}

static int cut_one(struct fs *fs, const struct extent_cut *cut, uint64_t lblk,
		   struct cowfs_disk_inode *d)
{
	struct key k = extent_key(cut->ino, lblk);
	uint64_t a, b, mapped = from_le64(d->blocks);
	struct extent whole, gone;
	struct item it;
	int err;

	err = tree_get(&fs->s->fs, &k, &it);
	if (!err)
		err = extent_from_item(fs, &k, &it, &whole);
	if (err)
		return err;
	a = max_u64(cut->lblk, whole.lblk);
	b = min_u64(cut->lblk + cut->len, whole.lblk + whole.len);
	gone = whole;
	extent_crop(&gone, a, b);
	if (gone.len == whole.len)
		err = tree_delete(&fs->s->fs, &k);
	else
		err = put_rest(fs, cut->ino, &whole, &it, a, b);
	if (!err)
		err = let_go(fs, &gone);
	if (!err)
		d->blocks = to_le64(mapped - min_u64(gone.len, mapped));
	return err;
}

int extent_do_cut(struct fs *fs, struct extent_cut *cut,
		  struct cowfs_disk_inode *d)
{
	int err = 0;

	for (unsigned i = 0; !err && i < cut->items; i++)
		err = cut_one(fs, cut, cut->item[i], d);
	return err;
}

/* ---- mapping ---- */

/* The extent that ends right before lblk. -ENOENT. */
static int neighbour(struct fs *fs, uint64_t ino, uint64_t lblk,
		     struct extent *out)
{
	struct extent_iter it;
	struct extent e;
	int err;

	if (!lblk)
		return -ENOENT;
	err = extent_last(&it, fs, &fs->s->fs, ino, lblk - 1, &e);
	if (err)
		return err;
	if (e.lblk + e.len != lblk)
		return -ENOENT;
	*out = e;
	return 0;
}

int extent_prepare_map(struct fs *fs, uint64_t ino, uint64_t lblk)
{
	struct key k = extent_key(ino, lblk);
	struct extent e;
	int err;

	err = tree_prepare(&fs->s->fs, &k);
	if (err)
		return err;
	err = neighbour(fs, ino, lblk, &e);
	if (err)
		return err == -ENOENT ? 0 : err;
	k.off = e.lblk;
	return tree_prepare(&fs->s->fs, &k);
}

/* May b, which begins where a ends in the file, be part of a? (E4) */
static bool continues(struct fs *fs, const struct extent *a,
		      const struct extent *b)
{
	uint32_t max = COWFS_EXTENT_MAX(forest_node_size(fs->s->forest));

	return a->kind == b->kind && a->flags == b->flags &&
	       a->gen == b->gen && a->blk + a->len == b->blk &&
	       (a->blk2 ? a->blk2 + a->len == b->blk2 : !b->blk2) &&
	       a->len <= max && b->len <= max - a->len;
}

static void put_csums(uint8_t *at, const uint32_t *csum, uint32_t n)
{
	struct le32 v;

	for (uint32_t i = 0; i < n; i++) {
		v = to_le32(csum[i]);
		memcpy(at + 4 * (size_t)i, &v, 4);
	}
}

/* Make the extent before e longer by e. */
static int join(struct fs *fs, uint64_t ino, const struct extent *before,
		const struct extent *e, const uint32_t *csum)
{
	struct key k = extent_key(ino, before->lblk);
	struct le32 len = to_le32(before->len + e->len);
	struct cowfs_disk_extent h;
	uint8_t buf[ITEM_MAX];
	struct item it;
	uint32_t size;
	int err;

	err = tree_get(&fs->s->fs, &k, &it);
	if (err)
		return err;
	memcpy(buf, it.data, it.len);
	memcpy(&h, buf, sizeof(h));
	h.len = h.disk_len = len;
	memcpy(buf, &h, sizeof(h));
	size = it.len;
	if (csum) {
		put_csums(buf + size, csum, e->len);
		size += 4 * e->len;
	}
	return tree_put(&fs->s->fs, &k, buf, size);
}

static int insert(struct fs *fs, uint64_t ino, const struct extent *e,
		  const uint32_t *csum)
{
	struct cowfs_disk_extent h = {
		.blk = to_le64(e->blk),
		.blk2 = to_le64(e->blk2),
		.gen = to_le64(e->gen),
		.len = to_le32(e->len),
		.disk_len = to_le32(e->len),
		.kind = e->kind,
		.flags = e->flags,
	};
	struct key k = extent_key(ino, e->lblk);
	void *at;
	int err;

	err = tree_insert(&fs->s->fs, &k, NULL,
			  HEAD + (csum ? 4 * e->len : 0), &at);
	if (err)
		return err;
	memcpy(at, &h, sizeof(h));
	if (csum)
		put_csums((uint8_t *)at + HEAD, csum, e->len);
	return 0;
}

int extent_map_gen(struct fs *fs, uint64_t ino, const struct extent *e,
		   const uint32_t *csum, struct cowfs_disk_inode *d)
{
	struct extent before;
	int err;

	/* A neighbour that is not in memory is none: joining is a nicety. */
	err = neighbour(fs, ino, e->lblk, &before);
	if (err && err != -ENOENT && err != -EAGAIN)
		return err;
	if (!err && continues(fs, &before, e))
		err = join(fs, ino, &before, e, csum);
	else
		err = insert(fs, ino, e, csum);
	if (!err)
		d->blocks = to_le64(from_le64(d->blocks) + e->len);
	return err;
}

int extent_map(struct fs *fs, uint64_t ino, uint64_t lblk, struct copies at,
	       uint32_t len, uint8_t kind, uint8_t flags, const uint32_t *csum,
	       struct cowfs_disk_inode *d)
{
	struct extent e = {
		.lblk = lblk,
		.blk = at.a,
		.blk2 = at.b,
		.gen = forest_gen(fs->s->forest),
		.len = len,
		.kind = kind,
		.flags = flags,
	};

	return extent_map_gen(fs, ino, &e, csum, d);
}
