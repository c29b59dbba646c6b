/*
 * mutate.c - change an image as a recipe says
 *
 * Numbers that are too large count modulo what there is, so that each step does
 * something more often than not.
 *
 * The upper half of recipe[1] says of a mirror how its sides come about (enum
 * sides_are) and which of them are there.
 */
#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "fuzz/hostile.h"
#include "util/util.h"

enum sides_are {
	SIDES_ALIKE,  /* both were changed */
	SIDES_ONE,    /* one was, */
	SIDES_OTHER,  /* or the other */
	SIDES_APART,  /* both say that they are all right */
};

enum sides_there { BOTH, FIRST, SECOND, SWAPPED };

/* ---- values ---- */

static uint64_t load(const uint8_t *p, unsigned width)
{
	uint64_t v = 0;

	while (width--)
		v = v << 8 | p[width];
	return v;
}

static void store_bytes(uint8_t *p, unsigned width, uint64_t v)
{
	for (unsigned i = 0; i < width; i++, v >>= 8)
		p[i] = (uint8_t)v;
}

uint64_t step_value(const struct work *w, uint64_t old)
{
	const struct place *p = &w->b->place[w->st.arg % w->b->places];
	uint64_t gen = from_le64(w->super[0].gen), one = 1;
	uint32_t arg = w->st.arg;
	const uint64_t value[] = {
		arg, 0, 1, UINT64_MAX, old + 1, old - 1, old + arg, old - arg,
		old ^ one << arg % 64, one << arg % 64, (one << arg % 64) - 1,
		0 - (one << arg % 64), p->blk, p->blk2, p->blk + 1,
		w->b->blocks, w->b->blocks - 1,
		w->b->blocks - COWFS_SUPER_SLOTS - arg % 16, gen, gen + 1,
		gen - 1, COWFS_INO_ROOT, COWFS_INO_FIRST + arg % 64,
		COWFS_INO_MAX, COWFS_FILE_BLOCKS_MAX - arg % 3,
		(uint64_t)COWFS_FILE_SIZE_MAX - arg % 3, old << 1, old >> 1,
		(uint64_t)arg << 32, (uint64_t)arg << 16, 16 + arg % 4,
		from_le64(w->super[0].log.blk),
	};

	return value[w->st.value % ARRAY_SIZE(value)];
}

void step_change(const struct work *w, uint8_t *p, uint32_t len, unsigned at)
{
	unsigned width = 1u << w->st.width % 4;

	while (width > len)
		width /= 2;
	if (!width)
		return;
	p += at % (len / width) * width;
	store_bytes(p, width, step_value(w, load(p, width)));
}

void step_field(const struct work *w, uint8_t *p, unsigned width)
{
	store_bytes(p, width, step_value(w, load(p, width)));
}

/* ---- where ---- */

uint8_t *step_node(const struct work *w, size_t i, bool *sane)
{
	const struct place *p = &w->b->place[i % w->b->nodes];
	uint8_t *node = flat_edit(w->dev, p->blk, p->blocks);
	const struct cowfs_disk_node *h = (void *)node;
	struct nptr ptr = { .blk = from_le64(h->blk), .gen = from_le64(h->gen),
			    .level = h->level };
	char why[128];

	if (sane)
		*sane = node_verify(node, w->b->node_size, &ptr, h->tree,
				    h->uuid, NULL, NULL, why,
				    sizeof(why)) == 0;
	return node;
}

static unsigned entries(const struct work *w, const uint8_t *node)
{
	uint32_t room = COWFS_NODE_BODY(w->b->node_size);

	return (unsigned)min_u64(nr(node), room / (level_of(node) ?
						   CHILD_SIZE : ITEM_HEAD));
}

/* ---- what ---- */

static void change_head(struct work *w)
{
	static const uint8_t at[] = { 0, 4, 5, 6, 8, 16, 24 };
	static const uint8_t width[] = { 4, 1, 1, 2, 8, 8, 8 };
	unsigned i = w->st.field % ARRAY_SIZE(at);

	step_field(w, step_node(w, w->st.node, NULL) + at[i], width[i]);
}

/* Key, place and length of an item; key and pointer of a child. */
static void change_entry(struct work *w)
{
	static const uint8_t item_at[] = { 0, 8, 9, 17, 19 };
	static const uint8_t item_width[] = { 8, 1, 8, 2, 2 };
	static const uint8_t child_at[] = { 0, 8, 9, 17, 25, 33, 45 };
	static const uint8_t child_width[] = { 8, 1, 8, 8, 8, 8, 1 };
	uint8_t *node = step_node(w, w->st.node, NULL);
	unsigned n = entries(w, node), i;

	if (!n)
		return;
	if (level_of(node)) {
		i = w->st.field % ARRAY_SIZE(child_at);
		step_field(w, (uint8_t *)(node_children(node) +
					    w->st.entry % n) + child_at[i],
			     child_width[i]);
	} else {
		i = w->st.field % ARRAY_SIZE(item_at);
		step_field(w, (uint8_t *)(node_items(node) +
					    w->st.entry % n) + item_at[i],
			     item_width[i]);
	}
}

static void change_item(struct work *w)
{
	bool sane;
	uint8_t *node = step_node(w, w->st.node, &sane);
	struct item it;

	if (!sane || level_of(node) || !nr(node))
		return;
	it = node_item(node, w->st.entry % nr(node), w->b->node_size);
	step_change(w, (uint8_t *)(uintptr_t)it.data, it.len, w->st.field);
}

static void change_super(struct work *w)
{
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		step_change(w, (uint8_t *)&w->super[i], 0x510, w->st.entry);
}

static void change_log(struct work *w)
{
	uint64_t blk = from_le64(w->b->super[0].log.blk);
	uint64_t n = from_le32(w->b->super[0].log.blocks);
	uint8_t *log = flat_edit(w->dev, blk, n);
	const struct cowfs_disk_log *d = (void *)log;
	uint32_t len = from_le32(d->len);

	if (len > n * COWFS_BLOCK_SIZE || len < sizeof(*d))
		len = (uint32_t)(n * COWFS_BLOCK_SIZE);
	step_change(w, log, len, w->st.entry);
}

static void delete_entry(struct work *w)
{
	bool sane;
	uint8_t *node = step_node(w, w->st.node, &sane);

	if (!sane || !nr(node))
		return;
	if (level_of(node))
		inner_delete(node, w->st.entry % nr(node));
	else
		leaf_delete(node, w->b->node_size, w->st.entry % nr(node));
}

/* An item of some leaf into this one, with another key. */
static void insert_item(struct work *w)
{
	bool sane, from_sane;
	uint8_t *node = step_node(w, w->st.node, &sane);
	uint8_t *from = step_node(w, w->st.arg, &from_sane);
	uint8_t copy[COWFS_MAX_NODE_SIZE / 4];
	struct item it;
	struct key k;
	unsigned slot, i;

	if (!sane || !from_sane || level_of(node) || level_of(from) ||
	    !nr(from))
		return;
	i = w->st.entry % nr(from);
	it = node_item(from, i, w->b->node_size);
	k = node_key(from, i);
	if (w->st.width & 4)
		k.obj = step_value(w, k.obj);
	if (w->st.width & 8)
		k.type = w->st.field;
	if (w->st.width & 16)
		k.off = step_value(w, k.off);
	if (leaf_find(node, &k, &slot) ||
	    node_room(node, w->b->node_size) < ITEM_HEAD + it.len)
		return;
	memcpy(copy, it.data, it.len);
	leaf_insert(node, w->b->node_size, slot, &k, copy, it.len);
}

static void resize_item(struct work *w)
{
	bool sane;
	uint8_t *node = step_node(w, w->st.node, &sane);
	uint8_t data[COWFS_MAX_NODE_SIZE / 4];
	uint32_t len, size = w->b->node_size;
	struct item it;
	unsigned slot;

	if (!sane || level_of(node) || !nr(node))
		return;
	slot = w->st.entry % nr(node);
	it = node_item(node, slot, size);
	len = (uint32_t)step_value(w, it.len) % (COWFS_ITEM_MAX(size) + 1);
	if (len > it.len + node_room(node, size))
		return;
	memset(data, w->st.field, sizeof(data));
	memcpy(data, it.data, min_u64(len, it.len));
	leaf_replace(node, size, slot, data, len);
}

/* Some node's pointer in place of another. */
static void redirect(struct work *w)
{
	const struct place *p = &w->b->place[w->st.arg % w->b->nodes];
	const struct cowfs_disk_node *h;
	struct cowfs_disk_ptr ptr = { .blk = to_le64(p->blk),
				      .blk2 = to_le64(p->blk2) };
	bool sane;
	uint8_t *node;
	struct item it;
	unsigned slot;

	h = (const void *)(flat_bytes(w->dev) + p->blk * COWFS_BLOCK_SIZE);
	ptr.gen = h->gen;
	ptr.level = h->level;
	if (w->st.value % 4 == 0) {
		w->super[0].roots[w->st.field % 5].ptr = ptr;
		w->super[1].roots[w->st.field % 5].ptr = ptr;
		return;
	}
	node = step_node(w, w->st.node, &sane);
	if (!sane || !nr(node))
		return;
	slot = w->st.entry % nr(node);
	if (level_of(node)) {
		if (w->st.value % 4 == 1) /* past the check of levels */
			ptr.level = (uint8_t)(level_of(node) - 1);
		node_children(node)[slot].ptr = ptr;
		return;
	}
	it = node_item(node, slot, w->b->node_size);
	if (it.len >= sizeof(ptr) &&
	    node_items(node)[slot].key.type >= COWFS_KEY_SNAP)
		memcpy((uint8_t *)(uintptr_t)it.data, &ptr, sizeof(ptr));
}

static void swap_nodes(struct work *w)
{
	uint8_t *a = step_node(w, w->st.node, NULL);
	uint8_t *b = step_node(w, w->st.arg, NULL);
	static uint8_t t[COWFS_MAX_NODE_SIZE];
	uint32_t size = w->b->node_size;

	if (a == b)
		return;
	memcpy(t, a, size);
	memcpy(a, b, size);
	if (w->st.value % 2)
		memcpy(b, t, size);
}

static void change_raw(struct work *w)
{
	step_change(w, step_node(w, w->st.node, NULL), w->b->node_size, w->st.entry);
}

static void do_step(struct work *w)
{
	static void (*const ops[])(struct work *w) = {
		change_item, change_item, change_item, change_item,
		change_entry, change_entry, change_head, change_super,
		change_log, delete_entry, insert_item, insert_item,
		resize_item, redirect, swap_nodes, change_raw,
		mutate_copies, mutate_copies, mutate_record, mutate_record,
		mutate_mirror, mutate_mirror, mutate_rare, mutate_rare,
	};

	ops[w->st.op % ARRAY_SIZE(ops)](w);
}

static struct step step_at(const uint8_t *p)
{
	return (struct step){
		.op = p[0],
		.node = (uint16_t)(p[1] | p[2] << 8),
		.entry = (uint16_t)(p[3] | p[4] << 8),
		.field = p[5],
		.value = p[6],
		.width = p[7],
		.arg = (uint32_t)load(p + 8, 4),
	};
}

static void apply_steps(struct work *w, const uint8_t *recipe, size_t len)
{
	unsigned i;
	size_t at;

	for (at = RECIPE_HEAD; at + RECIPE_STEP <= len && at < RECIPE_MAX;
	     at += RECIPE_STEP) {
		w->st = step_at(recipe + at);
		do_step(w);
	}
	for (i = 0; recipe[1] & RECIPE_UNVERIFIED && i < BDEV_SIDES; i++) {
		w->super[i].state |= COWFS_STATE_UNVERIFIED;
		w->super[i].state &= (uint8_t)~COWFS_STATE_CLEAN;
	}
}

/* Side 0 is done. */
static void other_side(struct work *w, struct bdev *const dev[BDEV_SIDES],
		       unsigned flags)
{
	const struct base *b = w->b;
	struct cowfs_disk_super *super = w->super;
	enum sides_are are = (enum sides_are)(flags >> 4 & 3);

	if (are == SIDES_APART) {
		fixup(b, dev[1], &super[1], flags);
		return;
	}
	memcpy(super[1].roots, super[0].roots, sizeof(super[1].roots));
	if (are != SIDES_ONE)
		flat_copy(dev[1], dev[0]);
	if (are == SIDES_OTHER) {
		flat_reset(dev[0], flat_bytes(b->dev));
		fixup_super(b, dev[0], &super[0], flags);
	}
	fixup_super(b, dev[1], &super[1], flags);
}

void recipe_apply(const struct base *b, struct bdev *const dev[BDEV_SIDES],
		  const uint8_t *recipe, size_t len)
{
	struct work w = { .b = b, .dev = dev[0],
			  .super = { b->super[0], b->super[1] } };

	apply_steps(&w, recipe, len);
	fixup(b, dev[0], &w.super[0], recipe[1]);
	if (b->other)
		other_side(&w, dev, recipe[1]);
}

/* ---- the whole ---- */

static void flat_like(const struct bdev *base, struct bdev **dev)
{
	uint64_t blocks = base->size / COWFS_BLOCK_SIZE;

	if (!*dev) {
		must(flat_open(blocks, dev), "device");
		memcpy(flat_edit(*dev, 0, blocks), flat_bytes(base),
		       base->size);
	}
	flat_reset(*dev, flat_bytes(base));
}

static struct bdev *assemble(struct bdev *const dev[BDEV_SIDES],
			     enum sides_there there)
{
	struct bdev *side[BDEV_SIDES] = { NULL, NULL }, *mirror;

	if (there != SECOND)
		must(flat_share(dev[0], &side[there == SWAPPED]), "side");
	if (there != FIRST)
		must(flat_share(dev[1], &side[there != SWAPPED]), "side");
	must(bdev_open_mirror(side, &mirror), "mirror");
	return mirror;
}

void recipe_run(const uint8_t *recipe, size_t len)
{
	static struct bdev *dev[BASE_KINDS][BDEV_SIDES];
	const struct base *b;
	struct bdev *mirror;
	unsigned kind;

	if (len < RECIPE_HEAD)
		return;
	kind = recipe[0] % BASE_KINDS;
	b = base_get(kind);
	flat_like(b->dev, &dev[kind][0]);
	if (b->other)
		flat_like(b->other, &dev[kind][1]);
	recipe_apply(b, dev[kind], recipe, len);
	if (!b->other) {
		tour(dev[kind][0], load(recipe + 2, 2));
		return;
	}
	mirror = assemble(dev[kind], (enum sides_there)(recipe[1] >> 6));
	tour(mirror, load(recipe + 2, 2));
	bdev_close(mirror);
}
