/*
 * fixup.c - make the checksums of a damaged image right, bottom up
 *
 * Follows the pointers as they are now, wherever they lead inside the device;
 * a node that was met before keeps what it got then, so a loop ends (and the
 * checksum in it stays wrong: nothing can make it right).
 */
#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "fuzz/hostile.h"
#include "util/util.h"

enum visit { NEW, OPEN, DONE };

struct fixer {
	const struct base *b;
	struct bdev *dev;
	unsigned flags;
	uint64_t node_blocks;
	uint8_t *visit;  /* by block */
	uint32_t *csum;
};

static bool inside(const struct fixer *f, uint64_t blk, uint64_t n)
{
	uint64_t end = f->b->blocks - COWFS_SUPER_SLOTS;

	return blk >= COWFS_FIRST_BLOCK && blk < end && n <= end - blk;
}

static bool node_fits(const struct fixer *f, uint64_t blk)
{
	return inside(f, blk, f->node_blocks) && blk % f->node_blocks == 0;
}

static void fix_ptr(struct fixer *f, struct cowfs_disk_ptr *p, uint8_t tree);

/* Contents of blocks that a record of the log carries. */
struct load {
	uint64_t blk;
	const uint8_t *at;
};

#define LOADS_MAX 64u

struct loads {
	struct load list[LOADS_MAX];
	unsigned n;
};

static const uint8_t *contents(const struct fixer *f, const struct loads *l,
			       uint64_t blk)
{
	for (unsigned i = 0; l && i < l->n; i++)
		if (l->list[i].blk == blk)
			return l->list[i].at;
	return flat_bytes(f->dev) + blk * COWFS_BLOCK_SIZE;
}

/* l: of the record that the extent is in; NULL: of a tree. */
static void fix_extent(struct fixer *f, uint8_t *data, uint32_t len,
		       const struct loads *l)
{
	struct cowfs_disk_extent *d = (void *)data;
	struct le32 *csum = (void *)(d + 1);
	uint64_t blk;
	uint32_t i, n;

	if (!(f->flags & RECIPE_DATA) || len < sizeof(*d) ||
	    d->kind != COWFS_EXTENT_DATA)
		return;
	blk = from_le64(d->blk);
	n = (uint32_t)min_u64(from_le32(d->len), (len - sizeof(*d)) / 4);
	for (i = 0; i < n && inside(f, blk, i + 1); i++)
		csum[i] = to_le32(checksum(0, contents(f, l, blk + i),
					   COWFS_BLOCK_SIZE));
}

static void fix_item(struct fixer *f, uint8_t *node, unsigned i)
{
	struct cowfs_disk_item *it = node_items(node) + i;
	uint32_t off = from_le16(it->off), len = from_le16(it->len);
	uint32_t end = COWFS_NODE_BODY(f->b->node_size);
	uint8_t *data = node + NODE_HEAD + off;

	if (off > end || len > end - off)
		return;
	if (it->key.type == COWFS_KEY_EXTENT)
		fix_extent(f, data, len, NULL);
	if ((it->key.type == COWFS_KEY_SNAP ||
	     it->key.type == COWFS_KEY_DROP) &&
	    len >= sizeof(struct cowfs_disk_ptr))
		fix_ptr(f, (void *)data, COWFS_ROOT_FS);
}

static void fix_node(struct fixer *f, uint8_t *node,
		     const struct cowfs_disk_ptr *p, uint8_t tree)
{
	struct cowfs_disk_node *h = (void *)node;
	uint32_t room = COWFS_NODE_BODY(f->b->node_size);
	unsigned i, n;

	if (f->flags & RECIPE_HEADS) {
		h->blk = p->blk;
		h->gen = p->gen;
		h->level = p->level;
		h->tree = tree;
	}
	n = (unsigned)min_u64(nr(node), room / (h->level ? CHILD_SIZE :
							   ITEM_HEAD));
	for (i = 0; i < n; i++) {
		if (h->level)
			fix_ptr(f, &node_children(node)[i].ptr, tree);
		else
			fix_item(f, node, i);
	}
}

static void fix_ptr(struct fixer *f, struct cowfs_disk_ptr *p, uint8_t tree)
{
	uint64_t blk = from_le64(p->blk), blk2 = from_le64(p->blk2);
	uint8_t *node;

	if (!node_fits(f, blk))
		return;
	if (f->visit[blk] == NEW) {
		f->visit[blk] = OPEN;
		node = flat_edit(f->dev, blk, f->node_blocks);
		fix_node(f, node, p, tree);
		f->csum[blk] = checksum(0, node, f->b->node_size);
		f->visit[blk] = DONE;
		if (blk2 && node_fits(f, blk2) && blk2 != blk &&
		    f->visit[blk2] == NEW)
			memcpy(flat_edit(f->dev, blk2, f->node_blocks), node,
			       f->b->node_size);
	}
	if (f->visit[blk] == DONE)
		p->csum = to_le32(f->csum[blk]);
}

/* The entry at *at of a record, of which it moves to the end; NULL: none. */
static struct cowfs_disk_log_entry *log_entry(uint8_t *rec, uint32_t len,
					      uint32_t *at)
{
	struct cowfs_disk_log_entry *e = (void *)(rec + *at);

	if (len - *at < sizeof(*e) ||
	    from_le16(e->len) > len - *at - sizeof(*e))
		return NULL;
	*at += (uint32_t)sizeof(*e) + from_le16(e->len);
	return e;
}

static void fix_entries(struct fixer *f, uint8_t *rec, uint32_t len)
{
	const uint32_t head = sizeof(struct cowfs_disk_log);
	struct cowfs_disk_log_entry *e;
	struct loads l = { .n = 0 };
	uint32_t at;

	for (at = head; (e = log_entry(rec, len, &at)) && l.n < LOADS_MAX;)
		if (e->kind == COWFS_LOG_BLOCK &&
		    from_le16(e->len) == COWFS_BLOCK_SIZE)
			l.list[l.n++] = (struct load){
				from_le64(e->key.obj), (uint8_t *)(e + 1) };
	for (at = head; (e = log_entry(rec, len, &at));)
		if (e->kind == COWFS_LOG_ITEM &&
		    e->key.type == COWFS_KEY_EXTENT)
			fix_extent(f, (uint8_t *)(e + 1), from_le16(e->len),
				   &l);
}

/* Records of the log, as many as follow each other. */
static void fix_log(struct fixer *f, const struct cowfs_disk_super *super)
{
	uint64_t at = from_le64(f->b->super[0].log.blk);
	uint64_t left = from_le32(f->b->super[0].log.blocks);
	struct cowfs_disk_log *d;
	uint64_t len, n;

	for (; left && inside(f, at, left); at += n, left -= n) {
		d = (void *)flat_edit(f->dev, at, left);
		len = from_le32(d->len);
		if (from_le32(d->magic) != COWFS_LOG_MAGIC ||
		    len < sizeof(*d) || len > left * COWFS_BLOCK_SIZE)
			return;
		if (f->flags & RECIPE_HEADS)
			d->base = super->gen;
		if (f->flags & RECIPE_DATA)
			fix_entries(f, (uint8_t *)d, (uint32_t)len);
		d->csum = to_le32(checksum(0, (uint8_t *)d + 8, len - 8));
		n = blocks_of(len);
	}
}

void fixup_super(const struct base *b, struct bdev *dev,
		 struct cowfs_disk_super *super, unsigned flags)
{
	uint64_t near = COWFS_SUPER_NEAR, far = b->blocks - COWFS_SUPER_SLOTS;
	unsigned slot;

	super_seal(super);
	slot = super->slot % COWFS_SUPER_SLOTS;
	if (flags & RECIPE_ALONE) {
		memset(flat_edit(dev, near, COWFS_SUPER_SLOTS), 0,
		       COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE);
		memset(flat_edit(dev, far, COWFS_SUPER_SLOTS), 0,
		       COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE);
	}
	memcpy(flat_edit(dev, near + slot, 1), super, sizeof(*super));
	memcpy(flat_edit(dev, far + slot, 1), super, sizeof(*super));
}

void fixup(const struct base *b, struct bdev *dev,
	   struct cowfs_disk_super *super, unsigned flags)
{
	struct fixer f = { .b = b, .dev = dev, .flags = flags };
	unsigned i;

	f.node_blocks = b->node_size / COWFS_BLOCK_SIZE;
	f.visit = calloc(b->blocks, 1);
	f.csum = calloc(b->blocks, sizeof(*f.csum));
	if (!f.visit || !f.csum)
		abort();
	for (i = 0; i < COWFS_ROOTS; i++)
		fix_ptr(&f, &super->roots[i].ptr, (uint8_t)i);
	fix_log(&f, super);
	fixup_super(b, dev, super, flags);
	free(f.visit);
	free(f.csum);
}
