/*
 * maps.c - the allocator's maps, kept in the reference tree and the space tree
 *
 * All of it runs under the tree lock and may return -EAGAIN (btree.h).
 */
#include <inttypes.h>

#include "txn/private.h"

static int ref_from(struct store *s, const struct cursor *c,
		    struct ref_ival *out)
{
	const struct cowfs_disk_ref *d = c->item.data;

	if (c->key.type != COWFS_KEY_REF || c->item.len != sizeof(*d) ||
	    c->key.off == 0 || c->key.obj >= s->io.blocks ||
	    c->key.off > s->io.blocks - c->key.obj || from_le32(d->extra) == 0)
		return report(-ECOW_CORRUPT,
			      "reference tree: impossible item %" PRIu64
			      "+%" PRIu64,
			      c->key.obj, c->key.off);
	out->start = c->key.obj;
	out->len = c->key.off;
	out->extra = from_le32(d->extra);
	return 0;
}

static int ref_floor(void *arg, uint64_t at, struct ref_ival *out)
{
	struct store *s = arg;
	struct key k = KEY(at, UINT8_MAX, UINT64_MAX);
	struct cursor c;
	int err = cursor_floor(&c, &s->refs, &k);

	return err ? err : ref_from(s, &c, out);
}

static int ref_ceil(void *arg, uint64_t at, struct ref_ival *out)
{
	struct store *s = arg;
	struct key k = KEY(at, 0, 0);
	struct cursor c;
	int err = cursor_ceil(&c, &s->refs, &k);

	return err ? err : ref_from(s, &c, out);
}

static int ref_put(void *arg, const struct ref_ival *iv)
{
	struct store *s = arg;
	struct key k = KEY(iv->start, COWFS_KEY_REF, iv->len);
	struct cowfs_disk_ref d = { .extra = to_le32(iv->extra) };

	return tree_put(&s->refs, &k, &d, sizeof(d));
}

static int ref_del(void *arg, const struct ref_ival *iv)
{
	struct store *s = arg;
	struct key k = KEY(iv->start, COWFS_KEY_REF, iv->len);

	return tree_delete(&s->refs, &k);
}

int map_prepare(struct tree *t, uint8_t type, uint64_t at)
{
	struct key lo = KEY(at, type, 0), hi = KEY(at, type, UINT64_MAX);

	return tree_prepare_range(t, &lo, &hi);
}

static int ref_prepare(void *arg, uint64_t at)
{
	struct store *s = arg;

	return map_prepare(&s->refs, COWFS_KEY_REF, at);
}

static int space_put(void *arg, uint64_t chunk, const void *rec, size_t len)
{
	struct store *s = arg;
	struct key k = KEY(chunk, COWFS_KEY_SPACE, 0);
	int err;

	if (len)
		return tree_put(&s->space, &k, rec, (uint32_t)len);
	err = tree_delete(&s->space, &k);
	return err == -ENOENT ? 0 : err;
}

static int space_prepare(void *arg, uint64_t chunk)
{
	struct store *s = arg;
	struct key k = KEY(chunk, COWFS_KEY_SPACE, 0);

	return tree_prepare(&s->space, &k);
}

int map_prepare_space(struct store *s, uint64_t blk, uint64_t len)
{
	uint64_t n = blk / COWFS_CHUNK_BLOCKS;
	int err = 0;

	for (; !err && n <= (blk + len - 1) / COWFS_CHUNK_BLOCKS; n++)
		err = space_prepare(s, n);
	return err;
}

void maps_init(struct store *s)
{
	s->refs_space = (struct alloc_store){
		.ref_floor = ref_floor,
		.ref_ceil = ref_ceil,
		.ref_put = ref_put,
		.ref_del = ref_del,
		.ref_prepare = ref_prepare,
		.space_put = space_put,
		.space_prepare = space_prepare,
		.copy_prepare = copies_prepare_drop,
		.copy_drop = copies_drop,
		.arg = s,
	};
}

/* Take records from *from on until one is missing in memory or all are in. */
static int load_some(struct store *s, struct key *from)
{
	struct cursor c;
	int err;

	for (err = cursor_ceil(&c, &s->space, from); !err;
	     err = cursor_next(&c)) {
		*from = c.key;
		if (c.key.type != COWFS_KEY_SPACE || c.key.off != 0)
			return report(-ECOW_CORRUPT,
				      "space tree: impossible item %" PRIu64,
				      c.key.obj);
		err = alloc_load(s->alloc, c.key.obj, c.item.data, c.item.len);
		if (err)
			return err;
		from->type++; /* not twice after -EAGAIN */
	}
	return err == -ENOENT ? 0 : err;
}

int maps_load(struct store *s)
{
	struct key from = KEY_MIN;
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = load_some(s, &from);
	while (op_again(&op, &err));
	return op_end(&op, err);
}
