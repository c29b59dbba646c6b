/*
 * repair.c - a store whose trees are changed without trusting its maps
 *
 * Everything a repair writes lies where nobody's blocks are, until store_close
 * writes the superblock: cut off at any write, the device has its old state.
 * Nodes may be written, looked at, changed and written again; no superblock has
 * named them yet.
 */
#include "txn/private.h"

void store_repair_begin(struct store *s)
{
	tree_lock(s);
	load_under_lock(s, true);
}

void store_repair_end(struct store *s)
{
	load_under_lock(s, false);
	tree_unlock(s);
}

int store_repair_replay(struct store *s, uint64_t *records)
{
	int err = log_spare(s);

	return err ? err : log_replay(s, records);
}

int store_repair_write(struct store *s, struct cowfs_disk_super *out)
{
	int err;

	tree_seal(&s->fs);
	tree_seal(&s->snap);
	tree_seal(&s->space);
	tree_seal(&s->refs);
	tree_seal(&s->copies);
	err = forest_write(s->forest);
	if (err)
		return err;
	fill_super(s);
	*out = s->super;
	super_seal(out);
	return 0;
}

int store_repair_maps(struct store *s)
{
	return flush_maps(s);
}
