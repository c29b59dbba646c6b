/*
 * verify.c - is this really the node that its parent meant? (T4)
 *
 * Called for every node that comes from a device, before anything else looks
 * at it. What passes here can be searched, iterated, split and merged without
 * further doubt: counts and offsets stay inside the node, keys ascend within
 * the range the parent promised, no item is larger than splitting can handle,
 * and levels fall by one, so that every way down ends.
 *
 * Left to others: whether a child's address lies on the device (block.h B3)
 * and what the items mean.
 */
#include <inttypes.h>
#include <stdio.h>

#include "btree/node.h"

struct check {
	const void *node;
	uint32_t node_size;
	char *why;
	size_t why_len;
};

static int wrong(const struct check *c, const char *fmt, ...)
	PRINTF_LIKE(2, 3);

static int wrong(const struct check *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->why, c->why_len, fmt, ap);
	va_end(ap);
	return -ECOW_CORRUPT;
}

static int check_head(const struct check *c, const struct nptr *p,
		      uint8_t tree, const uint8_t uuid[16])
{
	const struct cowfs_disk_node *h = c->node;

	if (from_le32(h->magic) != COWFS_NODE_MAGIC)
		return wrong(c, "no node: magic %08" PRIx32,
			     from_le32(h->magic));
	if (memcmp(h->uuid, uuid, sizeof(h->uuid)))
		return wrong(c, "node of another filesystem");
	if (from_le64(h->blk) != p->blk)
		return wrong(c, "node belongs at block %" PRIu64,
			     from_le64(h->blk));
	if (from_le64(h->gen) != p->gen)
		return wrong(c, "generation %" PRIu64 ", not %" PRIu64,
			     from_le64(h->gen), p->gen);
	if (h->level != p->level || h->level > COWFS_MAX_LEVEL)
		return wrong(c, "level %u, not %u", h->level, p->level);
	if (h->tree != tree)
		return wrong(c, "of tree %u, not %u", h->tree, tree);
	return 0;
}

static int check_items(const struct check *c, unsigned n)
{
	uint32_t cap = COWFS_NODE_BODY(c->node_size);
	const struct cowfs_disk_item *it = node_items(c->node);
	uint32_t end = cap;
	uint32_t floor = n * ITEM_HEAD;

	if (n > cap / ITEM_HEAD)
		return wrong(c, "%u items can't fit", n);
	for (unsigned i = 0; i < n; i++) {
		uint32_t off = from_le16(it[i].off);
		uint32_t len = from_le16(it[i].len);

		if (len > COWFS_ITEM_MAX(c->node_size))
			return wrong(c, "item %u: %" PRIu32 " bytes", i, len);
		if (off < floor || off > end || end - off != len)
			return wrong(c, "item %u at %" PRIu32 "+%" PRIu32
				     ", should end at %" PRIu32, i, off, len,
				     end);
		end = off;
	}
	return 0;
}

static int check_child(const struct check *c, unsigned i)
{
	const struct cowfs_disk_node *h = c->node;
	struct nptr p = node_child(c->node, i);
	uint64_t mask = c->node_size / COWFS_BLOCK_SIZE - 1;

	if (!p.blk || p.blk >= COWFS_MAX_BLOCKS || (p.blk & mask))
		return wrong(c, "child %u at block %" PRIu64, i, p.blk);
	if (p.blk2 == p.blk || p.blk2 >= COWFS_MAX_BLOCKS || (p.blk2 & mask))
		return wrong(c, "child %u: second copy at block %" PRIu64, i,
			     p.blk2);
	if (!p.gen || p.gen > from_le64(h->gen))
		return wrong(c, "child %u: generation %" PRIu64, i, p.gen);
	if (p.level != h->level - 1)
		return wrong(c, "child %u: level %u", i, p.level);
	return 0;
}

static int check_children(const struct check *c, unsigned n)
{
	int err;

	if (!n || n > inner_max(c->node_size))
		return wrong(c, "%u children", n);
	for (unsigned i = 0; i < n; i++) {
		err = check_child(c, i);
		if (err)
			return err;
	}
	return 0;
}

static int check_keys(const struct check *c, unsigned n, const struct key *lo,
		      const struct key *hi)
{
	struct key before;

	if (!n)
		return 0;
	before = node_key(c->node, 0);
	if (lo && key_cmp(&before, lo) < 0)
		return wrong(c, "first key is below the parent's");
	for (unsigned i = 1; i < n; i++) {
		struct key k = node_key(c->node, i);

		if (key_cmp(&before, &k) >= 0)
			return wrong(c, "key %u out of order", i);
		before = k;
	}
	if (hi && key_cmp(&before, hi) >= 0)
		return wrong(c, "last key is beyond the parent's next");
	return 0;
}

int node_verify(const void *node, uint32_t node_size, const struct nptr *p,
		uint8_t tree, const uint8_t uuid[16], const struct key *lo,
		const struct key *hi, char *why, size_t why_len)
{
	struct check c = { .node = node, .node_size = node_size, .why = why,
			   .why_len = why_len };
	unsigned n = nr(node);
	int err;

	err = check_head(&c, p, tree, uuid);
	if (err)
		return err;
	err = level_of(node) ? check_children(&c, n) : check_items(&c, n);
	if (err)
		return err;
	return check_keys(&c, n, lo, hi);
}
