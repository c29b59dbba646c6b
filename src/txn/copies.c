/*
 * copies.c - the tree of extra copies of data (COWFS_ROOT_COPIES)
 *
 *   E1  An item covers blocks that a tree names and that may have more than one
 *       reference: those lose their last one through the allocator's count,
 *       never by alloc_free. There copies_drop is called, in the same closing.
 *   E2  The blocks of a copy belong to its item: owned when it is put, freed
 *       when it goes, and never shared.
 *   E3  What the tree says is a hint to a reader: a copy is believed only if it
 *       has the checksum that the extent brought. Damage to the tree costs
 *       copies, no data.
 *   E4  Copies have no checksum of their own generation's: a superblock that
 *       names new ones is not written before they are durable.
 *
 * Neighbours are merged, and cut where part of them goes. Who makes copies, and
 * for what, is another's business (snapshot/redun.c).
 */
#include <inttypes.h>

#include "txn/private.h"

static int damaged(const struct cursor *c)
{
	return report(-ECOW_CORRUPT, "copies tree: impossible item %" PRIu64
		      "+%" PRIu64, c->key.obj, c->key.off);
}

static int ival_from(struct store *s, const struct cursor *c,
		     struct copy_ival *out)
{
	uint64_t end = s->io.blocks - COWFS_SUPER_SLOTS;
	const struct cowfs_disk_copy *d = c->item.data;
	struct copy_ival iv = { .start = c->key.obj, .len = c->key.off };

	if (c->key.type != COWFS_KEY_COPY || c->item.len != sizeof(*d))
		return damaged(c);
	iv.at = from_le64(d->blk);
	if (!iv.len || iv.start < COWFS_FIRST_BLOCK || iv.start >= end ||
	    iv.len > end - iv.start || iv.at < COWFS_FIRST_BLOCK ||
	    iv.at >= end || iv.len > end - iv.at)
		return damaged(c);
	*out = iv;
	return 0;
}

static struct key key_of(const struct copy_ival *iv)
{
	return KEY(iv->start, COWFS_KEY_COPY, iv->len);
}

/* ---- looking ---- */

/* The last one that begins at or before blk. */
static int floor_of(struct store *s, uint64_t blk, struct copy_ival *out)
{
	struct key k = KEY(blk, UINT8_MAX, UINT64_MAX);
	struct cursor c;
	int err = cursor_floor(&c, &s->copies, &k);

	return err ? err : ival_from(s, &c, out);
}

static int ceil_of(struct store *s, uint64_t blk, struct copy_ival *out)
{
	struct key k = KEY(blk, 0, 0);
	struct cursor c;
	int err = cursor_ceil(&c, &s->copies, &k);

	return err ? err : ival_from(s, &c, out);
}

int copies_next(struct store *s, uint64_t blk, struct copy_ival *out)
{
	struct copy_ival iv;
	int err = floor_of(s, blk, &iv);

	if (!err && blk - iv.start < iv.len) {
		*out = iv;
		return 0;
	}
	return err && err != -ENOENT ? err : ceil_of(s, blk, out);
}

int copies_before(struct store *s, uint64_t blk, struct copy_ival *out)
{
	return blk ? floor_of(s, blk - 1, out) : -ENOENT;
}

uint64_t copies_finder(void *arg, uint64_t blk)
{
	struct store *s = arg;
	struct copy_ival iv;
	uint64_t at = 0;
	struct op op;
	int err;

	if (!store_copied(s))
		return 0;
	op_read(&op, s);
	do
		err = copies_next(s, blk, &iv);
	while (op_again(&op, &err));
	if (!err && iv.start <= blk)
		at = iv.at + (blk - iv.start);
	return op_end(&op, err) ? 0 : at;
}

/* ---- changing ---- */

static int put(struct store *s, uint64_t start, uint64_t end, uint64_t at)
{
	struct copy_ival iv = { .start = start, .len = end - start };
	struct cowfs_disk_copy d = { .blk = to_le64(at) };
	struct key k = key_of(&iv);

	return iv.len ? tree_put(&s->copies, &k, &d, sizeof(d)) : 0;
}

static int del(struct store *s, const struct copy_ival *iv)
{
	struct key k = key_of(iv);

	return tree_delete(&s->copies, &k);
}

static void count(struct store *s, uint64_t copied)
{
	s->copied = copied;
	atomic_store(&s->p->copies_hint, copied);
}

int copies_prepare(struct store *s, const struct copy_ival *iv)
{
	struct copy_ival left;
	int err;

	err = map_prepare(&s->copies, COWFS_KEY_COPY, iv->start);
	if (!err)
		err = map_prepare(&s->copies, COWFS_KEY_COPY,
				  iv->start + iv->len);
	if (err)
		return err;
	err = floor_of(s, iv->start, &left);
	if (!err)
		err = map_prepare(&s->copies, COWFS_KEY_COPY, left.start);
	return err == -ENOENT ? 0 : err;
}

/* Does b go on where a ends, and its copy as well? */
static bool goes_on(const struct copy_ival *a, const struct copy_ival *b)
{
	return a->start + a->len == b->start && a->at + a->len == b->at;
}

int copies_add(struct store *s, const struct copy_ival *iv)
{
	struct copy_ival now = *iv, other;
	int err;

	err = floor_of(s, now.start, &other);
	if (!err && goes_on(&other, &now)) {
		err = del(s, &other);
		now.start = other.start;
		now.at = other.at;
		now.len += other.len;
	}
	if (err && err != -ENOENT)
		return err;
	err = ceil_of(s, now.start + now.len, &other);
	if (!err && goes_on(&now, &other)) {
		err = del(s, &other);
		now.len += other.len;
	}
	if (err && err != -ENOENT)
		return err;
	err = put(s, now.start, now.start + now.len, now.at);
	if (err)
		return err;
	count(s, s->copied + iv->len);
	s->p->unsummed = true;
	return 0;
}

int copies_take(struct store *s, const struct copy_ival *iv)
{
	int err = del(s, iv);

	if (err)
		return err;
	/* born 0: as alloc_free has it for blocks of unknown age */
	alloc_free(s->alloc, iv->at, iv->len, 0);
	count(s, s->copied - min_u64(s->copied, iv->len));
	return 0;
}

void copies_none(struct store *s)
{
	count(s, 0);
}

/* ---- blocks that lost their last reference ---- */

int copies_prepare_drop(void *arg, uint64_t blk, uint64_t *run)
{
	struct store *s = arg;
	struct copy_ival iv;
	int err = copies_next(s, blk, &iv);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (iv.start > blk) {
		*run = min_u64(*run, iv.start - blk);
		return 0;
	}
	*run = min_u64(*run, iv.start + iv.len - blk);
	err = map_prepare(&s->copies, COWFS_KEY_COPY, iv.start);
	if (!err)
		err = map_prepare(&s->copies, COWFS_KEY_COPY, blk + *run);
	return err ? err :
	       map_prepare_space(s, iv.at + (blk - iv.start), *run);
}

int copies_drop(void *arg, uint64_t blk, uint64_t len)
{
	struct store *s = arg;
	struct copy_ival iv;
	uint64_t before;
	int err = copies_next(s, blk, &iv);

	if (err || iv.start > blk)
		return err == -ENOENT ? 0 : err;
	before = blk - iv.start;
	err = del(s, &iv);
	if (!err)
		err = put(s, iv.start, blk, iv.at);
	if (!err)
		err = put(s, blk + len, iv.start + iv.len,
			  iv.at + before + len);
	if (err)
		return err;
	alloc_free(s->alloc, iv.at + before, len, 0);
	count(s, s->copied - min_u64(s->copied, len));
	return 0;
}

/* ---- the whole ---- */

void copies_init(struct store *s)
{
	/* bounded: it is from the device */
	count(s, min_u64(from_le64(s->super.roots[COWFS_ROOT_COPIES].copies),
			 s->io.blocks));
}

void copies_clear(struct store *s)
{
	s->copies.root = (struct nptr){ .blk = 0 };
	s->copies.nodes = 0;
	count(s, 0);
}

void copies_fill_super(struct store *s)
{
	struct cowfs_disk_root *d = &s->super.roots[COWFS_ROOT_COPIES];
	uint64_t ro = from_le64(s->super.ro_compat) & ~COWFS_RO_COMPAT_COPIES;

	*d = (struct cowfs_disk_root){ .ptr = nptr_to_disk(&s->copies.root),
				       .nodes = to_le64(s->copies.nodes),
				       .copies = to_le64(s->copied) };
	if (s->copies.root.blk)
		ro |= COWFS_RO_COMPAT_COPIES;
	s->super.ro_compat = to_le64(ro);
}

uint64_t store_copied(struct store *s)
{
	return atomic_load(&s->p->copies_hint);
}

enum give_back store_give_back(struct store *s)
{
	return (enum give_back)atomic_exchange(&s->p->give_back, GIVE_NONE);
}

void copies_watch(struct store *s)
{
	struct alloc_info info;

	if (!store_copied(s))
		return;
	alloc_info(s->alloc, &info);
	if (info.avail < info.blocks / STORE_SHORT)
		store_wake(s, WORK_COPIES);
}
