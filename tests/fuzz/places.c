/* places.c - what lies where in an image that is all right */
#include <stdlib.h>
#include <string.h>

#include "btree/node.h"
#include "fuzz/hostile.h"

struct finder {
	struct base *b;
	size_t room;
	uint8_t *seen; /* a byte per block */
	struct place *data;
	size_t datas, data_room;
};

static void add(struct place **list, size_t *n, size_t *room, struct place p)
{
	if (*n == *room) {
		*room = *room ? *room * 2 : 64;
		*list = realloc(*list, *room * sizeof(**list));
		if (!*list)
			abort();
	}
	(*list)[(*n)++] = p;
}

static void find_node(struct finder *f, const struct nptr *p, uint8_t tree);

static void find_extent(struct finder *f, const struct item *it)
{
	const struct cowfs_disk_extent *d = it->data;
	uint64_t blk = from_le64(d->blk), blk2 = from_le64(d->blk2);

	if (d->kind != COWFS_EXTENT_DATA)
		return;
	for (uint32_t i = 0; i < from_le32(d->len); i++) {
		struct place p = { .blk = blk + i,
				   .blk2 = blk2 ? blk2 + i : 0,
				   .blocks = 1,
				   .data = true };

		if (!f->seen[p.blk])
			add(&f->data, &f->datas, &f->data_room, p);
		f->seen[p.blk] = 1;
	}
}

static void find_in_item(struct finder *f, uint8_t tree, const struct key *k,
			 const struct item *it)
{
	struct nptr p;

	if (tree == COWFS_ROOT_FS && k->type == COWFS_KEY_EXTENT)
		find_extent(f, it);
	if (tree != COWFS_ROOT_SNAP || (k->type != COWFS_KEY_SNAP &&
					k->type != COWFS_KEY_DROP))
		return;
	p = nptr_from_disk(it->data);
	find_node(f, &p, COWFS_ROOT_FS);
}

static void find_node(struct finder *f, const struct nptr *p, uint8_t tree)
{
	struct base *b = f->b;
	const uint8_t *node = flat_bytes(b->dev) + p->blk * COWFS_BLOCK_SIZE;

	if (!p->blk || f->seen[p->blk])
		return;
	f->seen[p->blk] = 1;
	add(&b->place, &b->nodes, &f->room,
	    (struct place){ .blk = p->blk, .blk2 = p->blk2,
			    .blocks = b->node_size / COWFS_BLOCK_SIZE,
			    .tree = tree, .level = p->level });
	for (unsigned i = 0; i < nr(node); i++) {
		struct key k = node_key(node, i);

		if (p->level) {
			struct nptr child = node_child(node, i);

			find_node(f, &child, tree);
		} else {
			struct item it = node_item(node, i, b->node_size);

			find_in_item(f, tree, &k, &it);
		}
	}
}

void places_find(struct base *b)
{
	struct finder f = { .b = b };

	f.seen = calloc(b->blocks, 1);
	if (!f.seen)
		abort();
	for (unsigned i = 0; i < COWFS_ROOTS; i++) {
		struct nptr p = nptr_from_disk(&b->super[0].roots[i].ptr);

		find_node(&f, &p, (uint8_t)i);
	}
	b->places = b->nodes;
	for (size_t i = 0; i < f.datas; i++)
		add(&b->place, &b->places, &f.room, f.data[i]);
	free(f.data);
	free(f.seen);
}
