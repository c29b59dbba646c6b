/*
 * node.h - the bytes of one node: search, insert, delete, move
 *
 * Buffers in, buffers out: no I/O, no cache, no locks. A node here has been
 * verified or was made here; callers make sure that what they add fits.
 */
#ifndef COW_BTREE_NODE_H
#define COW_BTREE_NODE_H

#include "btree/btree.h"
#include "util/util.h"

#define NODE_HEAD ((uint32_t)sizeof(struct cowfs_disk_node))
#define ITEM_HEAD ((uint32_t)sizeof(struct cowfs_disk_item))
#define CHILD_SIZE ((uint32_t)sizeof(struct cowfs_disk_child))

static inline struct cowfs_disk_item *node_items(const void *node)
{
	return (void *)((uint8_t *)(uintptr_t)node + NODE_HEAD);
}

static inline struct cowfs_disk_child *node_children(const void *node)
{
	return (void *)((uint8_t *)(uintptr_t)node + NODE_HEAD);
}

/* node_count and node_level, for hot paths. */
static inline unsigned nr(const void *node)
{
	return from_le16(node_head(node)->count);
}

static inline unsigned level_of(const void *node)
{
	return node_head(node)->level;
}

static inline int key_cmp_disk(const struct cowfs_disk_key *d,
			       const struct key *k)
{
	uint64_t x = from_le64(d->obj);

	if (x != k->obj)
		return x < k->obj ? -1 : 1;
	if (d->type != k->type)
		return d->type < k->type ? -1 : 1;
	x = from_le64(d->off);
	if (x != k->off)
		return x < k->off ? -1 : 1;
	return 0;
}

static inline struct key key_load(const struct cowfs_disk_key *d)
{
	return (struct key){ .obj = from_le64(d->obj),
			     .off = from_le64(d->off),
			     .type = d->type };
}

/* Slot of the first item >= k (count if there is none); is it k itself? */
bool leaf_find(const void *leaf, const struct key *k, unsigned *slot);
/* Slot of the child that k belongs to; the first one goes down to -infinity. */
unsigned inner_find(const void *inner, const struct key *k);

void node_init(void *node, uint32_t node_size, unsigned level, uint8_t tree,
	       const uint8_t uuid[16]);
void node_set_place(void *node, uint64_t blk, uint64_t gen);

/* Bytes of the body in use; left. */
uint32_t node_used(const void *node, uint32_t node_size);
uint32_t node_room(const void *node, uint32_t node_size);
/* Bytes that entries from..to-1 take. */
uint32_t node_weight(const void *node, uint32_t node_size, unsigned from,
		     unsigned to);
unsigned inner_max(uint32_t node_size);

/* Items; data NULL: zeros. The data's place is returned. */
void *leaf_insert(void *leaf, uint32_t node_size, unsigned slot,
		  const struct key *k, const void *data, uint32_t len);
void *leaf_replace(void *leaf, uint32_t node_size, unsigned slot,
		   const void *data, uint32_t len);
void leaf_delete(void *leaf, uint32_t node_size, unsigned slot);

/* Children. */
void inner_insert(void *inner, unsigned slot, const struct key *k,
		  const struct nptr *p);
void inner_delete(void *inner, unsigned slot);
void inner_set_ptr(void *inner, unsigned slot, const struct nptr *p);
void inner_set_key(void *inner, unsigned slot, const struct key *k);

/* Copy the last n entries of `from` to the front of `to`; its first n to the
 * back of `to`. Of the same level; what comes must fit. */
void node_add_front(void *to, const void *from, uint32_t node_size,
		    unsigned n);
void node_add_back(void *to, const void *from, uint32_t node_size, unsigned n);
/* Remove the first n entries, the last n. */
void node_cut_front(void *node, uint32_t node_size, unsigned n);
void node_cut_back(void *node, uint32_t node_size, unsigned n);

#endif
