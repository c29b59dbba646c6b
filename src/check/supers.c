/*
 * supers.c - all slots of the superblock, near and far
 *
 * A crash leaves traces here that are no damage: the slot being written then
 * may be torn in one copy or both, or written in one copy only. So of an image
 * that was not closed in order, the slots of the newest generation and of the
 * next one are not complained about (the next mount writes them), and a copy
 * that is merely older than its twin only if it is that of the newest
 * generation and everything was closed in order.
 */
#include "check/private.h"

struct slot {
	unsigned n;
	bool far;
	uint64_t gen; /* 0: nothing valid there */
};

static bool all_zero(const void *buf, size_t len)
{
	const uint8_t *b = buf;

	return b[0] == 0 && memcmp(b, b + 1, len - 1) == 0;
}

static void look(struct check *c, struct slot *slot, bool tolerant)
{
	uint64_t blk = super_slot_block(c->blocks, slot->n, slot->far);
	struct cowfs_disk_super d;
	char why[128] = "cannot be read";
	bool ro = false;
	int err;

	err = bdev_read(c->io->dev, blk * COWFS_BLOCK_SIZE, &d, sizeof(d));
	if (!err && all_zero(&d, sizeof(d)))
		return;
	if (!err)
		err = super_verify(&d, c->io->dev->size / COWFS_BLOCK_SIZE,
				   &ro, why, sizeof(why));
	if (!err && (memcmp(d.uuid, c->super.uuid, sizeof(d.uuid)) != 0 ||
		     from_le64(d.total_blocks) != c->blocks ||
		     d.slot != slot->n))
		return; /* left over from another filesystem, or size */
	if (!err)
		slot->gen = from_le64(d.gen);
	else if (!tolerant)
		problem(c, P_SUPER_BAD, "slot %u, %s copy, block %" PRIu64
			": %s", slot->n, slot->far ? "far" : "near", blk, why);
}

void supers_check(struct check *c)
{
	bool clean = c->super.state & COWFS_STATE_CLEAN;
	unsigned newest = (unsigned)(c->gen % COWFS_SUPER_SLOTS);
	unsigned next = (newest + 1) % COWFS_SUPER_SLOTS;

	for (unsigned i = 0; i < COWFS_SUPER_SLOTS; i++) {
		struct slot near = { .n = i }, far = { .n = i, .far = true };
		bool tolerant = !clean && (i == newest || i == next);

		look(c, &near, tolerant);
		look(c, &far, tolerant);
		if (clean && i == newest && near.gen != far.gen && near.gen &&
		    far.gen)
			problem(c, P_SUPER_STALE, "slot %u: generation %"
				PRIu64 " near, %" PRIu64 " far", i, near.gen,
				far.gen);
	}
}
