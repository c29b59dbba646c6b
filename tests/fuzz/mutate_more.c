/*
 * mutate_more.c - changes aimed at what is rare in an image
 *
 * An item of a small tree, an entry of the log or what a superblock says about
 * a mirror is hit by chance once in thousands of recipes, and hardly ever in a
 * way that is nearly right. These look for it.
 */
#include <string.h>

#include "btree/node.h"
#include "fuzz/hostile.h"
#include "util/util.h"

/* ---- trees ---- */

/* The first leaf of that tree from the step's node on; NULL: there is none. */
static uint8_t *leaf_of(const struct work *w, uint8_t tree)
{
	const struct base *b = w->b;
	uint8_t *node;
	bool sane;

	for (size_t i = 0; i < b->nodes; i++) {
		const struct place *p =
			&b->place[(w->st.node + i) % b->nodes];

		if (p->tree != tree || p->level)
			continue;
		node = step_node(w, (w->st.node + i) % b->nodes, &sane);
		if (sane && !level_of(node))
			return node;
	}
	return NULL;
}

static const struct place *data_at(const struct work *w, uint32_t i)
{
	const struct base *b = w->b;
	size_t datas = b->places - b->nodes;

	return &b->place[b->nodes + i % datas];
}

static void put_item(const struct work *w, uint8_t *node, const struct key *k,
		     const void *data, uint32_t len)
{
	uint32_t size = w->b->node_size;
	unsigned slot;

	if (leaf_find(node, k, &slot))
		leaf_delete(node, size, slot);
	if (node_room(node, size) >= ITEM_HEAD + len)
		leaf_insert(node, size, slot, k, data, len);
}

/* Where a copy might be said to lie. */
static uint64_t copy_place(const struct work *w)
{
	switch (w->st.field % 4) {
	case 0: /* somebody's */
		return w->b->place[w->st.arg % w->b->places].blk;
	case 1: /* its own, nearly */
		return data_at(w, w->st.entry)->blk + w->st.arg % 5;
	case 2: /* free, probably */
		return w->b->blocks - 16 - w->st.arg % 64;
	}
	return step_value(w, data_at(w, w->st.entry)->blk);
}

/* An item that is new, or in the way of another. */
static void put_copy(const struct work *w, uint8_t *node)
{
	struct cowfs_disk_copy d = { .blk = to_le64(copy_place(w)) };
	struct key k = KEY(data_at(w, w->st.entry)->blk, COWFS_KEY_COPY,
			   1u + w->st.value % 8);

	if (w->st.width & 16)
		k.obj = step_value(w, k.obj);
	if (w->st.width & 32)
		k.off = step_value(w, k.off);
	put_item(w, node, &k, &d, sizeof(d));
}

void mutate_copies(struct work *w)
{
	uint8_t *node = leaf_of(w, COWFS_ROOT_COPIES);
	struct cowfs_disk_copy *d;
	unsigned slot;
	struct item it;

	if (!node) {
		mutate_rare(w);
		return;
	}
	if (w->st.width & 8 || !nr(node)) {
		put_copy(w, node);
		return;
	}
	slot = w->st.entry % nr(node);
	it = node_item(node, slot, w->b->node_size);
	d = (void *)(uintptr_t)it.data;
	switch (w->st.width % 4) {
	case 0:
		step_field(w, node_items(node)[slot].key.off.b, 8);
		break;
	case 1:
		step_field(w, node_items(node)[slot].key.obj.b, 8);
		break;
	case 2:
		if (it.len >= sizeof(*d))
			d->blk = to_le64(copy_place(w));
		break;
	default:
		leaf_delete(node, w->b->node_size, slot);
	}
}

/* The item of that type that comes after so many others; NULL: there is none. */
static uint8_t *item_of(const struct work *w, uint8_t type, unsigned *slot)
{
	size_t nodes = w->b->nodes;
	unsigned skip = w->st.entry % 16;
	uint8_t *node, *last = NULL;
	bool sane;

	for (size_t i = 0; i < nodes; i++) {
		if (w->b->place[(w->st.node + i) % nodes].level)
			continue;
		node = step_node(w, (w->st.node + i) % nodes, &sane);
		for (unsigned n = 0; sane && !level_of(node) && n < nr(node);
		     n++) {
			if (node_items(node)[n].key.type != type)
				continue;
			last = node;
			*slot = n;
			if (!skip--)
				return node;
		}
	}
	return last;
}

void mutate_rare(struct work *w)
{
	static const uint8_t type[] = {
		COWFS_KEY_SETTING, COWFS_KEY_SETTING, COWFS_KEY_DROP,
		COWFS_KEY_SNAP, COWFS_KEY_SNAP_NAME, COWFS_KEY_REF,
		COWFS_KEY_SPACE, COWFS_KEY_ORPHAN, COWFS_KEY_COPY,
		COWFS_KEY_EXTENT, COWFS_KEY_XATTR, COWFS_KEY_XATTR_DATA,
	};
	uint8_t *node;
	struct item it;
	unsigned slot;

	node = item_of(w, type[w->st.arg % ARRAY_SIZE(type)], &slot);
	if (!node)
		return;
	it = node_item(node, slot, w->b->node_size);
	if (w->st.width & 8)
		step_change(w, (uint8_t *)&node_items(node)[slot].key, 16,
			    w->st.field);
	else
		step_change(w, (uint8_t *)(uintptr_t)it.data, it.len,
			    w->st.field);
}

/* ---- the log ---- */

/* The record of that number, or the last before it. */
static uint8_t *record(const struct work *w, unsigned n, uint32_t *len)
{
	uint64_t blk = from_le64(w->b->super[0].log.blk);
	uint64_t left = from_le32(w->b->super[0].log.blocks);
	uint8_t *log = flat_edit(w->dev, blk, left), *found = NULL;
	const struct cowfs_disk_log *d;
	uint64_t used;

	for (;; n--) {
		d = (const void *)log;
		if (!left || from_le32(d->magic) != COWFS_LOG_MAGIC ||
		    from_le32(d->len) < sizeof(*d) ||
		    from_le32(d->len) > left * COWFS_BLOCK_SIZE)
			return found;
		found = log;
		*len = from_le32(d->len);
		if (!n)
			return found;
		used = blocks_of(*len);
		log += used * COWFS_BLOCK_SIZE;
		left -= used;
	}
}

/* In the same way. */
static struct cowfs_disk_log_entry *entry_of(uint8_t *rec, uint32_t len,
					     unsigned n)
{
	struct cowfs_disk_log_entry *e, *found = NULL;
	uint32_t at = sizeof(struct cowfs_disk_log);

	for (;; n--) {
		e = (void *)(rec + at);
		if (len - at < sizeof(*e) ||
		    from_le16(e->len) > len - at - sizeof(*e))
			return found;
		found = e;
		if (!n)
			return found;
		at += (uint32_t)sizeof(*e) + from_le16(e->len);
	}
}

void mutate_record(struct work *w)
{
	unsigned at = w->st.field >> 3;
	uint32_t len = 0;
	uint8_t *rec = record(w, w->st.node % 3, &len);
	struct cowfs_disk_log_entry *e;

	if (!rec)
		return;
	e = entry_of(rec, len, w->st.entry % 64);
	if (!e || w->st.field % 8 == 7) {
		step_change(w, rec, sizeof(struct cowfs_disk_log), at);
		return;
	}
	switch (w->st.field % 8) {
	case 0:
		step_field(w, e->key.obj.b, 8);
		break;
	case 1:
		step_field(w, &e->key.type, 1);
		break;
	case 2:
		step_field(w, e->key.off.b, 8);
		break;
	case 3:
		step_field(w, &e->kind, 1);
		break;
	case 4:
		step_field(w, e->len.b, 2);
		break;
	default:
		step_change(w, (uint8_t *)(e + 1), from_le16(e->len), at);
	}
}

/* ---- mirrors ---- */

static void mirror_field(struct work *w, struct cowfs_disk_super *d)
{
	unsigned side = w->st.field >> 7;

	switch (w->st.field % 11) {
	case 0:
	case 1:
		step_field(w, d->mirror.stale_gen[side].b, 8);
		break;
	case 2:
	case 3:
		step_field(w, d->mirror.synced_gen[side].b, 8);
		break;
	case 4:
		step_field(w, d->dev_index.b, 2);
		break;
	case 5:
		step_field(w, d->dev_count.b, 2);
		break;
	case 6:
		d->incompat.b[0] ^= (uint8_t)(1u + w->st.arg % 3);
		break;
	case 7:
		step_field(w, d->mirror.dev_uuid[side] + w->st.arg % 16, 1);
		break;
	case 8: /* ahead of the other, or behind */
		d->gen = to_le64(from_le64(d->gen) + w->st.arg % 11 - 5);
		break;
	case 9:
		d->ro_compat.b[0] ^= COWFS_RO_COMPAT_COPIES;
		break;
	case 10:
		step_field(w, d->total_blocks.b, 8);
		break;
	}
}

void mutate_mirror(struct work *w)
{
	unsigned who = w->st.node % 3; /* one, the other, both */

	for (unsigned i = 0; i < BDEV_SIDES; i++)
		if (who == i || who == 2 || !w->b->other)
			mirror_field(w, &w->super[i]);
}
