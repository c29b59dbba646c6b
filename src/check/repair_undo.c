/*
 * repair_undo.c - back to the state before a repair
 *
 * Its superblock is still there, and so is all that it names: a repair writes
 * to free places only (M1), and the superblock says so as long as nothing else
 * was written (COWFS_STATE_REPAIRED). That is not taken on trust: no node of
 * the repair may lie where the state before has anything. Then the repair's
 * superblock is wiped, which makes the one before it the newest.
 */
#include "check/mend.h"

struct undo {
	const struct blockmap *before;
	uint64_t gen;
	bool clash;
};

static bool in_use(const struct undo *u, uint64_t blk)
{
	const struct blockmap_chunk *chunk =
		blockmap_chunk(u->before, blk / COWFS_CHUNK_BLOCKS);

	return chunk && chunk->mark[blk % COWFS_CHUNK_BLOCKS];
}

/* A node of the repair: nodes are all that it writes. */
static void new_node(void *arg, const struct nptr *p, unsigned blocks)
{
	struct undo *u = arg;

	if (p->gen != u->gen)
		return;
	for (unsigned i = 0; i < blocks; i++) {
		u->clash |= in_use(u, p->blk + i);
		u->clash |= p->blk2 && in_use(u, p->blk2 + i);
	}
}

/* Do the blocks of the state before still have what they had? */
static int compare(struct blockio *io, const struct super *now,
		   const struct super *before)
{
	struct check_options opt = { .data = false };
	struct check a, b;
	struct undo u = { .before = &a.map, .gen = now->gen };
	int err;

	memset(&b, 0, sizeof(b));
	err = check_pass(&a, io, &before->d, &opt, NULL, false);
	if (!err) {
		opt.node = new_node;
		opt.arg = &u;
		err = check_pass(&b, io, &now->d, &opt, NULL, false);
	}
	check_fini(&a);
	check_fini(&b);
	return !err && u.clash ? -EBUSY : err;
}

static int wipe(struct blockio *io, uint64_t gen)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	unsigned slot = (unsigned)(gen % COWFS_SUPER_SLOTS);
	int err = 0;

	for (unsigned far = 0; !err && far < 2; far++)
		err = block_write(io, super_slot_block(io->blocks, slot, far),
				  1, zero);
	return err ? err : block_flush(io);
}

int repair_undo(struct bdev *dev)
{
	struct super_scan *scan = malloc(sizeof(*scan));
	struct blockio io;
	int err;

	if (!scan)
		return -ENOMEM;
	err = super_scan(dev, scan);
	if (!err && (scan->count < 2 ||
		     !(scan->found[0].d.state & COWFS_STATE_REPAIRED) ||
		     scan->found[1].total_blocks !=
			     scan->found[0].total_blocks))
		err = -ENOENT;
	if (!err) {
		/* else the side that is not there would bring it back */
		if (bdev_bad_sides(dev))
			err = report(-ENODEV, "%s: both sides of the mirror "
				     "are needed", dev->name);
	}
	if (!err) {
		block_init(&io, dev, scan->found[0].total_blocks, false);
		err = compare(&io, &scan->found[0], &scan->found[1]);
	}
	if (!err)
		err = wipe(&io, scan->found[0].gen);
	free(scan);
	return err;
}
