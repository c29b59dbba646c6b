/*
 * walk.c - nodes one by one: reading them without the cache, what they refer to
 */
#include <inttypes.h>

#include "btree/tree.h"

int node_read(struct forest *f, const struct nptr *p, uint8_t tree,
	      const struct key *lo, const struct key *hi, bool use_cache,
	      void *buf)
{
	char why[160];
	int err;

	if (p->level > COWFS_MAX_LEVEL)
		return report(-ECOW_CORRUPT, "pointer to block %" PRIu64
			      ": level %u", p->blk, p->level);
	if (!use_cache || !cache_copy(f, p, tree, buf))
		return cache_read(f, p, tree, lo, hi, buf);
	/* it was verified against its parent's range, which may be another */
	err = node_verify(buf, f->size, p, tree, f->cfg.uuid, lo, hi, why,
			  sizeof(why));
	if (err)
		return report(err, "node at block %" PRIu64 ": %s", p->blk,
			      why);
	return 0;
}

/* ---- the references that a node holds ---- */

static int ref_of_extent(const struct item *it, struct node_ref *ref)
{
	const struct cowfs_disk_extent *e = it->data;

	if (it->len < sizeof(*e))
		return report(-ECOW_CORRUPT, "extent of %" PRIu32 " bytes",
			      it->len);
	ref->blk = from_le64(e->blk);
	ref->blk2 = from_le64(e->blk2);
	ref->gen = from_le64(e->gen);
	ref->len = from_le32(e->len);
	ref->maybe_shared = (e->flags & COWFS_EXTENT_SHARED) != 0;
	if (ref->blk && (!ref->len || ref->blk >= COWFS_MAX_BLOCKS ||
			 ref->blk2 >= COWFS_MAX_BLOCKS))
		return report(-ECOW_CORRUPT,
			      "extent at %" PRIu64 ", %" PRIu64 " of %" PRIu64
			      " blocks", ref->blk, ref->blk2, ref->len);
	return 0;
}

static int each_extent(const void *leaf, uint32_t node_size, node_ref_fn *fn,
		       void *arg)
{
	const struct cowfs_disk_item *it = node_items(leaf);
	unsigned n = nr(leaf);

	for (unsigned i = 0; i < n; i++) {
		struct node_ref ref = { .data = true, .slot = i };
		struct item item;
		int err;

		if (it[i].key.type != COWFS_KEY_EXTENT)
			continue;
		item = node_item(leaf, i, node_size);
		err = ref_of_extent(&item, &ref);
		if (!err && ref.blk)
			err = fn(arg, &ref);
		if (err)
			return err;
	}
	return 0;
}

int node_for_each_ref(const void *node, uint32_t node_size, node_ref_fn *fn,
		      void *arg)
{
	unsigned n = nr(node);
	int err;

	if (!level_of(node))
		return node_head(node)->tree == COWFS_ROOT_FS ?
			       each_extent(node, node_size, fn, arg) : 0;
	for (unsigned i = 0; i < n; i++) {
		struct nptr p = node_child(node, i);
		struct node_ref ref = { .blk = p.blk, .blk2 = p.blk2,
					.len = node_size / COWFS_BLOCK_SIZE,
					.gen = p.gen, .slot = i };

		err = fn(arg, &ref);
		if (err)
			return err;
	}
	return 0;
}
