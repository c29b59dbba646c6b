/*
 * supers.c - all slots of the superblock, near and far
 *
 * A crash leaves traces here that are no damage: the slot being written then
 * may be torn in one copy or both, or written in one copy only. So of an image
 * that was not closed in order, or gone on with since, the slots of the newest
 * generation and of the next one are not complained about (the next mount writes
 * them). Nor are those from the one that it goes on from: a mount makes them good
 * after its first commit, and may have ended just there. And a copy that is merely
 * older than its twin is complained about only if it is that of the newest
 * generation and everything was closed in order (which is said only once both
 * copies are durable). A copy that is empty while its twin is not has been wiped
 * (super_lost_copies).
 */
#include <stdio.h>

#include "check/private.h"

struct slot {
	unsigned n, side;
	bool far;
	uint64_t gen; /* 0: nothing valid there */
};

/* " of NAME" on a mirror. */
static const char *of_side(const struct check *c, unsigned side, char out[128])
{
	out[0] = '\0';
	if (bdev_sides(c->io->dev) > 1)
		snprintf(out, 128, " of %s",
			 bdev_side_name(c->io->dev, side));
	return out;
}

static void look(struct check *c, struct slot *slot, bool tolerant)
{
	uint64_t blk = super_slot_block(c->blocks, slot->n, slot->far);
	char why[128] = "cannot be read", name[128];
	struct cowfs_disk_super d;
	bool ro = false;
	int err;

	err = bdev_read_side(c->io->dev, slot->side, blk * COWFS_BLOCK_SIZE,
			     &d, sizeof(d));
	if (!err && super_empty(&d))
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
			"%s: %s", slot->n, slot->far ? "far" : "near", blk,
			of_side(c, slot->side, name), why);
}

static void compare(struct check *c, const struct slot *a,
		    const struct slot *b)
{
	char x[128], y[128];

	if (a->gen != b->gen && a->gen && b->gen)
		problem(c, P_SUPER_STALE, "slot %u: generation %" PRIu64
			" %s%s, %" PRIu64 " %s%s", a->n, a->gen,
			a->far ? "far" : "near", of_side(c, a->side, x),
			b->gen, b->far ? "far" : "near",
			of_side(c, b->side, y));
}

static void look_for_lost(struct check *c, unsigned side)
{
	unsigned lost = super_lost_copies(c->io->dev, side, &c->super), i;
	char name[128];

	for (i = 0; i < 2 * COWFS_SUPER_SLOTS; i++)
		if (lost >> i & 1)
			problem(c, P_SUPER_BAD, "slot %u, %s copy, block %"
				PRIu64 "%s: is empty", i / 2,
				i % 2 ? "far" : "near",
				super_slot_block(c->blocks, i / 2, i % 2),
				of_side(c, side, name));
}

/* May crashes have torn slot number n? */
static bool may_be_torn(const struct check *c, unsigned n)
{
	uint64_t ahead = (n - c->gen) % COWFS_SUPER_SLOTS;
	uint64_t behind = (c->gen - n) % COWFS_SUPER_SLOTS;

	return ahead <= 1 || behind <= max_u64(from_le32(c->super.back), 1);
}

void supers_check(struct check *c)
{
	bool clean = super_at_rest(c->io->dev, &c->super);
	unsigned newest = (unsigned)(c->gen % COWFS_SUPER_SLOTS);
	unsigned i, side;

	for (side = 0; side < bdev_sides(c->io->dev); side++)
		if (bdev_side_state(c->io->dev, side) == SIDE_GOOD)
			look_for_lost(c, side);
	for (i = 0; i < COWFS_SUPER_SLOTS; i++) {
		bool tolerant = !clean && may_be_torn(c, i);
		struct slot first = { .n = i };

		for (side = 0; side < bdev_sides(c->io->dev); side++) {
			struct slot near = { .n = i, .side = side };
			struct slot far = { .n = i, .side = side, .far = true };

			if (bdev_side_state(c->io->dev, side) != SIDE_GOOD)
				continue;
			look(c, &near, tolerant);
			look(c, &far, tolerant);
			if (!clean || i != newest)
				continue;
			compare(c, &near, &far);
			if (first.gen)
				compare(c, &first, &near);
			first = near;
		}
	}
}
