/*
 * node.c - the bytes of one node: search, insert, delete, move
 *
 * A leaf's data lies against the end of the body in reverse order of items, so
 * the data of neighbouring items is one run of bytes: whatever moves, one
 * memmove moves it, and the offsets of its items change by one amount.
 * Whoever takes bytes out of use zeroes them (T5).
 */
#include <assert.h>

#include "btree/node.h"

struct key key_from_disk(const struct cowfs_disk_key *d)
{
	return key_load(d);
}

struct cowfs_disk_key key_to_disk(const struct key *k)
{
	return (struct cowfs_disk_key){ .obj = to_le64(k->obj),
					.type = k->type,
					.off = to_le64(k->off) };
}

struct nptr nptr_from_disk(const struct cowfs_disk_ptr *d)
{
	return (struct nptr){ .blk = from_le64(d->blk),
			      .blk2 = from_le64(d->blk2),
			      .gen = from_le64(d->gen),
			      .csum = from_le32(d->csum),
			      .level = d->level };
}

struct cowfs_disk_ptr nptr_to_disk(const struct nptr *p)
{
	return (struct cowfs_disk_ptr){ .blk = to_le64(p->blk),
					.blk2 = to_le64(p->blk2),
					.gen = to_le64(p->gen),
					.csum = to_le32(p->csum),
					.level = p->level };
}

unsigned node_count(const void *node)
{
	return nr(node);
}

unsigned node_level(const void *node)
{
	return level_of(node);
}

struct key node_key(const void *node, unsigned i)
{
	return level_of(node) ? key_load(&node_children(node)[i].key) :
				key_load(&node_items(node)[i].key);
}

struct nptr node_child(const void *node, unsigned i)
{
	return nptr_from_disk(&node_children(node)[i].ptr);
}

struct item node_item(const void *node, unsigned i, uint32_t node_size)
{
	const struct cowfs_disk_item *it = &node_items(node)[i];

	(void)node_size;
	return (struct item){
		.data = (const uint8_t *)node + NODE_HEAD + from_le16(it->off),
		.len = from_le16(it->len),
	};
}

/* ---- search ---- */

/* First of n keys that is >= k (leaf) or > k (above); stride is a constant in
 * both callers, so that the multiplication costs nothing. */
static inline __attribute__((always_inline)) unsigned
bound(const uint8_t *keys, size_t stride, unsigned n, const struct key *k,
      int above)
{
	unsigned lo = 0;
	unsigned len = n;

	while (len) {
		unsigned half = len / 2;
		const void *at = keys + (size_t)(lo + half) * stride;

		if (key_cmp_disk(at, k) < above) {
			lo += half + 1;
			len -= half + 1;
		} else {
			len = half;
		}
	}
	return lo;
}

bool leaf_find(const void *leaf, const struct key *k, unsigned *slot)
{
	const struct cowfs_disk_item *it = node_items(leaf);
	unsigned n = nr(leaf);
	unsigned i = bound((const uint8_t *)it, sizeof(*it), n, k, 0);

	*slot = i;
	return i < n && key_cmp_disk(&it[i].key, k) == 0;
}

unsigned inner_find(const void *inner, const struct key *k)
{
	const struct cowfs_disk_child *c = node_children(inner);
	unsigned i = bound((const uint8_t *)c, sizeof(*c), nr(inner), k, 1);

	return i ? i - 1 : 0;
}

/* ---- sizes ---- */

static void set_count(void *node, unsigned n)
{
	((struct cowfs_disk_node *)node)->count = to_le16((uint16_t)n);
}

static uint8_t *body(void *node)
{
	return (uint8_t *)node + NODE_HEAD;
}

static uint32_t item_off(const void *leaf, unsigned i)
{
	return from_le16(node_items(leaf)[i].off);
}

static uint32_t item_len(const void *leaf, unsigned i)
{
	return from_le16(node_items(leaf)[i].len);
}

/* Where the data of items before i ends, seen from the end: the data of item i
 * ends there. */
static uint32_t data_end(const void *leaf, uint32_t node_size, unsigned i)
{
	return i ? item_off(leaf, i - 1) : COWFS_NODE_BODY(node_size);
}

void node_init(void *node, uint32_t node_size, unsigned level, uint8_t tree,
	       const uint8_t uuid[16])
{
	struct cowfs_disk_node *h = node;

	memset(node, 0, node_size);
	h->magic = to_le32(COWFS_NODE_MAGIC);
	h->level = (uint8_t)level;
	h->tree = tree;
	memcpy(h->uuid, uuid, sizeof(h->uuid));
}

void node_set_place(void *node, uint64_t blk, uint64_t gen)
{
	struct cowfs_disk_node *h = node;

	h->blk = to_le64(blk);
	h->gen = to_le64(gen);
}

uint32_t node_weight(const void *node, uint32_t node_size, unsigned from,
		     unsigned to)
{
	if (level_of(node))
		return (to - from) * CHILD_SIZE;
	return (to - from) * ITEM_HEAD + data_end(node, node_size, from) -
	       data_end(node, node_size, to);
}

uint32_t node_used(const void *node, uint32_t node_size)
{
	return node_weight(node, node_size, 0, nr(node));
}

uint32_t node_room(const void *node, uint32_t node_size)
{
	return COWFS_NODE_BODY(node_size) - node_used(node, node_size);
}

unsigned inner_max(uint32_t node_size)
{
	return COWFS_NODE_BODY(node_size) / CHILD_SIZE;
}

/* ---- items ---- */

/* Add delta to the offsets of items from..to-1. */
static void shift_offs(void *leaf, unsigned from, unsigned to, int delta)
{
	struct cowfs_disk_item *it = node_items(leaf);

	for (unsigned i = from; i < to; i++)
		it[i].off = to_le16((uint16_t)(from_le16(it[i].off) + delta));
}

static void fill(void *to, const void *data, uint32_t len)
{
	if (!len)
		return;
	if (data)
		memcpy(to, data, len);
	else
		memset(to, 0, len);
}

void *leaf_insert(void *leaf, uint32_t node_size, unsigned slot,
		  const struct key *k, const void *data, uint32_t len)
{
	struct cowfs_disk_item *it = node_items(leaf);
	unsigned n = nr(leaf);
	uint32_t low = data_end(leaf, node_size, n);
	uint32_t end = data_end(leaf, node_size, slot);
	uint8_t *b = body(leaf);

	assert(node_room(leaf, node_size) >= ITEM_HEAD + len);
	if (slot < n) {
		memmove(b + low - len, b + low, end - low);
		shift_offs(leaf, slot, n, -(int)len);
		memmove(it + slot + 1, it + slot, (n - slot) * sizeof(*it));
	}
	it[slot].key = key_to_disk(k);
	it[slot].off = to_le16((uint16_t)(end - len));
	it[slot].len = to_le16((uint16_t)len);
	set_count(leaf, n + 1);
	fill(b + end - len, data, len);
	return b + end - len;
}

/* Make room for a new length of item slot; its own bytes are undefined then. */
static void resize(void *leaf, uint32_t node_size, unsigned slot, uint32_t len)
{
	unsigned n = nr(leaf);
	uint32_t low = data_end(leaf, node_size, n);
	uint32_t off = item_off(leaf, slot);
	int grow = (int)len - (int)item_len(leaf, slot);
	uint8_t *b = body(leaf);

	assert(grow <= (int)node_room(leaf, node_size));
	memmove(b + (int)low - grow, b + low, off - low);
	if (grow < 0)
		memset(b + low, 0, (size_t)-grow);
	shift_offs(leaf, slot, n, -grow);
	node_items(leaf)[slot].len = to_le16((uint16_t)len);
}

void *leaf_replace(void *leaf, uint32_t node_size, unsigned slot,
		   const void *data, uint32_t len)
{
	uint8_t *at;

	if (len != item_len(leaf, slot))
		resize(leaf, node_size, slot, len);
	at = body(leaf) + item_off(leaf, slot);
	fill(at, data, len);
	return at;
}

void leaf_delete(void *leaf, uint32_t node_size, unsigned slot)
{
	struct cowfs_disk_item *it = node_items(leaf);
	unsigned n = nr(leaf);

	assert(slot < n);
	if (item_len(leaf, slot))
		resize(leaf, node_size, slot, 0);
	memmove(it + slot, it + slot + 1, (n - slot - 1) * sizeof(*it));
	memset(it + n - 1, 0, sizeof(*it));
	set_count(leaf, n - 1);
}

/* ---- children ---- */

void inner_insert(void *inner, unsigned slot, const struct key *k,
		  const struct nptr *p)
{
	struct cowfs_disk_child *c = node_children(inner);
	unsigned n = nr(inner);

	memmove(c + slot + 1, c + slot, (n - slot) * sizeof(*c));
	c[slot].key = key_to_disk(k);
	c[slot].ptr = nptr_to_disk(p);
	set_count(inner, n + 1);
}

void inner_delete(void *inner, unsigned slot)
{
	struct cowfs_disk_child *c = node_children(inner);
	unsigned n = nr(inner);

	assert(slot < n);
	memmove(c + slot, c + slot + 1, (n - slot - 1) * sizeof(*c));
	memset(c + n - 1, 0, sizeof(*c));
	set_count(inner, n - 1);
}

void inner_set_ptr(void *inner, unsigned slot, const struct nptr *p)
{
	node_children(inner)[slot].ptr = nptr_to_disk(p);
}

void inner_set_key(void *inner, unsigned slot, const struct key *k)
{
	node_children(inner)[slot].key = key_to_disk(k);
}

/* ---- moving entries between neighbours ---- */

static void add_children(void *to, unsigned at, const void *from,
			 unsigned first, unsigned n)
{
	struct cowfs_disk_child *c = node_children(to);

	memmove(c + at + n, c + at, (nr(to) - at) * sizeof(*c));
	memcpy(c + at, node_children(from) + first, n * sizeof(*c));
}

static void add_items(void *to, unsigned at, const void *from, unsigned first,
		      unsigned n, uint32_t node_size)
{
	struct cowfs_disk_item *it = node_items(to);
	unsigned have = nr(to);
	uint32_t from_end = data_end(from, node_size, first);
	uint32_t from_low = data_end(from, node_size, first + n);
	uint32_t len = from_end - from_low;
	uint32_t end = data_end(to, node_size, at);
	uint32_t low = data_end(to, node_size, have);
	uint8_t *b = body(to);

	memmove(b + low - len, b + low, end - low);
	shift_offs(to, at, have, -(int)len);
	memmove(it + at + n, it + at, (have - at) * sizeof(*it));

	memcpy(b + end - len, (const uint8_t *)from + NODE_HEAD + from_low,
	       len);
	memcpy(it + at, node_items(from) + first, n * sizeof(*it));
	shift_offs(to, at, at + n, (int)end - (int)from_end);
}

static void add(void *to, unsigned at, const void *from, unsigned first,
		unsigned n, uint32_t node_size)
{
	assert(node_weight(from, node_size, first, first + n) <=
	       node_room(to, node_size));
	if (level_of(to))
		add_children(to, at, from, first, n);
	else
		add_items(to, at, from, first, n, node_size);
	set_count(to, nr(to) + n);
}

void node_add_front(void *to, const void *from, uint32_t node_size, unsigned n)
{
	assert(n <= nr(from));
	add(to, 0, from, nr(from) - n, n, node_size);
}

void node_add_back(void *to, const void *from, uint32_t node_size, unsigned n)
{
	assert(n <= nr(from));
	add(to, nr(to), from, 0, n, node_size);
}

static void cut_data(void *leaf, unsigned from, unsigned n, uint32_t node_size)
{
	unsigned have = nr(leaf);
	uint32_t low = data_end(leaf, node_size, have);
	uint32_t cut_low = data_end(leaf, node_size, from + n);
	uint32_t len = data_end(leaf, node_size, from) - cut_low;

	memmove(body(leaf) + low + len, body(leaf) + low, cut_low - low);
	memset(body(leaf) + low, 0, len);
	shift_offs(leaf, from + n, have, (int)len);
}

static void cut(void *node, unsigned from, unsigned n, uint32_t node_size)
{
	size_t each = level_of(node) ? CHILD_SIZE : ITEM_HEAD;
	unsigned rest = nr(node) - from - n;
	uint8_t *at = body(node) + from * each;

	if (!level_of(node))
		cut_data(node, from, n, node_size);
	memmove(at, at + n * each, rest * each);
	memset(at + rest * each, 0, n * each);
	set_count(node, nr(node) - n);
}

void node_cut_front(void *node, uint32_t node_size, unsigned n)
{
	assert(n <= nr(node));
	cut(node, 0, n, node_size);
}

void node_cut_back(void *node, uint32_t node_size, unsigned n)
{
	assert(n <= nr(node));
	cut(node, nr(node) - n, n, node_size);
}
