/*
 * recover.c - is all there that a superblock written in one flush names?
 *
 * A commit writes nodes of its own generation only, and every node above such a
 * node is of that generation, too. So it is enough to follow pointers of that
 * generation from the superblock: trees, snapshots taken and roots let go of in
 * that commit, data extents written for it. Everything older was durable before.
 *
 * That is asked only where nothing proves that the flush had returned (format.h,
 * COWFS_STATE_UNVERIFIED): afterwards a block that is missing here has rotted.
 */
#include <inttypes.h>

#include "txn/private.h"

struct walk {
	struct store *s;
	uint64_t gen;
	bool mend;
	void *data; /* scratch for a data block */
	struct imap seen; /* nodes by block: their checksum and 1 */
};

/* Once more, for the reason. */
static int why_lost(struct walk *w, struct copies at, uint64_t n,
		    const uint32_t *csum, bool whole, void *buf)
{
	struct blockio *io = &w->s->io;

	return whole ? block_read_node(io, at, n, *csum, buf)
		     : block_read_data(io, at, n, csum, buf);
}

/* 0 if a good copy of each of the n blocks is there; -EIO: there may be one that
 * cannot be read now. */
static int good(struct walk *w, struct copies at, uint64_t n,
		const uint32_t *csum, bool whole, void *buf)
{
	uint8_t lost[COWFS_MAX_NODE_SIZE / COWFS_BLOCK_SIZE] = { 0 };
	unsigned bad = 0, repaired = 0;
	uint64_t i;
	int err;

	err = block_scrub(&w->s->io, at, n, csum, whole, w->mend, buf, &bad,
			  &repaired, lost);
	for (i = 0; !err && i < sizeof(lost); i++)
		if (lost[i])
			return why_lost(w, at, n, csum, whole, buf);
	return err;
}

/* Data of one extent, block by block. */
static int check_extent(struct walk *w, const struct item *it)
{
	const struct cowfs_disk_extent *d = it->data;
	const struct le32 *csum = (const struct le32 *)(d + 1);
	struct copies at;
	uint32_t i, len, sum;
	int err;

	if (it->len < sizeof(*d))
		return -ECOW_CORRUPT;
	len = from_le32(d->len);
	if (from_le64(d->gen) != w->gen || d->kind == COWFS_EXTENT_PREALLOC)
		return 0;
	if ((it->len - sizeof(*d)) / sizeof(*csum) < len)
		return -ECOW_CORRUPT;
	at = (struct copies){ from_le64(d->blk), from_le64(d->blk2) };
	for (i = 0; i < len; i++) {
		sum = from_le32(csum[i]);
		err = good(w, at, 1, &sum, false, w->data);
		if (err)
			return err;
		at.a++;
		at.b += at.b != 0;
	}
	return 0;
}

static int check_node(struct walk *w, const struct nptr *p, uint8_t tree,
		      const struct key *lo, const struct key *hi);

/* The snapshot tree's items that point at nodes begin with the pointer. */
_Static_assert(offsetof(struct cowfs_disk_snap, root.ptr) == 0, "snap");
_Static_assert(offsetof(struct cowfs_disk_drop, ptr) == 0, "drop");

/* Pointers that lie in leaves: snapshots and drops, and data. */
static int check_item(struct walk *w, uint8_t tree, const struct key *k,
		      const struct item *it)
{
	struct key lo = KEY_MIN;
	struct nptr p;

	if (tree == COWFS_ROOT_FS)
		return k->type == COWFS_KEY_EXTENT ? check_extent(w, it) : 0;
	if (tree != COWFS_ROOT_SNAP ||
	    (k->type != COWFS_KEY_SNAP && k->type != COWFS_KEY_DROP))
		return 0;
	if (it->len < sizeof(struct cowfs_disk_ptr))
		return -ECOW_CORRUPT;
	p = nptr_from_disk(it->data);
	return check_node(w, &p, COWFS_ROOT_FS, &lo, NULL);
}

static int check_body(struct walk *w, const void *node, uint8_t tree,
		      const struct key *hi)
{
	uint32_t size = from_le32(w->s->super.node_size);
	unsigned i, n = node_count(node);
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		struct key k = node_key(node, i);

		if (node_level(node) > 0) {
			struct nptr p = node_child(node, i);
			struct key next;

			if (i + 1 < n)
				next = node_key(node, i + 1);
			err = check_node(w, &p, tree, &k,
					 i + 1 < n ? &next : hi);
		} else {
			struct item it = node_item(node, i, size);

			err = check_item(w, tree, &k, &it);
		}
	}
	return err;
}

/*
 * A snapshot shares its nodes with the live tree, and an image may claim any
 * number of snapshots: each node is looked at once. 0: it was; -ENOENT: it was
 * not.
 */
static int check_again(struct walk *w, const struct nptr *p)
{
	int64_t csum = (int64_t)p->csum + 1;
	struct ival iv;
	int err;

	imap_get(&w->seen, p->blk, &iv);
	if (iv.n)
		return iv.n == csum ? 0 : -ECOW_CSUM;
	err = imap_add(&w->seen, p->blk, 1, csum);
	return err ? err : -ENOENT;
}

static int check_node(struct walk *w, const struct nptr *p, uint8_t tree,
		      const struct key *lo, const struct key *hi)
{
	uint32_t size = from_le32(w->s->super.node_size);
	char why[128];
	void *buf;
	int err;

	if (p->blk == 0 || p->gen != w->gen)
		return 0;
	if (p->level > COWFS_MAX_LEVEL || p->blk >= COWFS_MAX_BLOCKS)
		return -ECOW_CORRUPT;
	err = check_again(w, p);
	if (err != -ENOENT)
		return err;
	buf = aligned_alloc(COWFS_BLOCK_SIZE, size);
	if (!buf)
		return -ENOMEM;
	err = good(w, (struct copies){ p->blk, p->blk2 },
		   size / COWFS_BLOCK_SIZE, &p->csum, true, buf);
	if (!err)
		err = node_verify(buf, size, p, tree, w->s->super.uuid, lo, hi,
				  why, sizeof(why));
	if (!err)
		err = check_body(w, buf, tree, hi);
	free(buf);
	return err;
}

int recover_verify(struct store *s, const struct cowfs_disk_super *d, bool mend)
{
	static const uint8_t kinds[] = { COWFS_ROOT_FS, COWFS_ROOT_SNAP,
					 COWFS_ROOT_SPACE, COWFS_ROOT_REFS,
					 COWFS_ROOT_COPIES };
	struct walk w = { .s = s, .gen = from_le64(d->gen), .mend = mend };
	struct key lo = KEY_MIN;
	int err = 0;
	size_t i;

	w.data = aligned_alloc(COWFS_BLOCK_SIZE, COWFS_BLOCK_SIZE);
	if (!w.data)
		return -ENOMEM;
	imap_init(&w.seen);
	for (i = 0; !err && i < ARRAY_SIZE(kinds); i++) {
		struct nptr p = nptr_from_disk(&d->roots[kinds[i]].ptr);

		err = check_node(&w, &p, kinds[i], &lo, NULL);
	}
	imap_clear(&w.seen);
	free(w.data);
	return err;
}
