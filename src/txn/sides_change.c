/*
 * sides_change.c - one side more, one side less
 *
 *   D6  A crash at any write leaves the filesystem as it was before or as it is
 *       after; and in no case two devices that can each be opened for writing
 *       without a word about the other.
 *
 * Both hold the commit lock from the first write to the superblock that says so,
 * so nothing is acknowledged in between, by a commit or by the log.
 *
 * Adding, in this order:
 *
 *   1. The new device is emptied: what others would probe at its start, all
 *      superblocks, and the records in the log; flushed. An old one might be
 *      taken for something: who was a side of this filesystem, or a copy of it,
 *      and was used alone, has records of generations that are yet to come.
 *   2. It gets the newest superblock as the side that it will be, and stale;
 *      flushed. From here on it can't be opened for writing alone, and by that
 *      superblock it is known as soon as the other says that it has a side.
 *   3. It is attached: every write that ends from now on goes to both (S4). The
 *      side whose place it takes, if one failed in use, is let go of before.
 *      Data that were written before, and are named by nothing yet, are written
 *      again (store_sides_added): the scrub that fills the side begins with what
 *      is named, and might begin before they are.
 *   4. A commit: the superblock says that there are two sides, and that this one
 *      is stale (sides_note).
 *
 * A crash before the superblock of 4 is on the old side leaves that as it was;
 * nobody looks for the new one, which says of itself that it is not complete.
 *
 * Removing:
 *
 *   1. The side is detached: nothing is written to it any more. It has all that
 *      was acknowledged, so a crash now is like any other crash.
 *   2. A commit on what is left: it is no mirror. From here on the side that went
 *      belongs to nobody, and says that the other one is missing.
 *   3. The superblocks of the side that went are emptied: two filesystems with
 *      one uuid are one too many.
 *
 * After both: three more commits, so that no slot says otherwise.
 *
 * A commit that finds storage full is kept, and made when there is room (commit.c,
 * C6). Then the side is there, or gone, all the same: of 4 nobody has to hear, as
 * what is promised of a new side is promised when it has been filled. After 2 it
 * is too early for 3.
 */
#include "txn/private.h"

static int rewrite_supers(struct store *s)
{
	unsigned i;
	int err = 0;

	for (i = 1; !err && i < COWFS_SUPER_SLOTS; i++)
		err = store_commit(s, commit_nothing, NULL);
	/* without room: those that come then do it */
	return err == -EINPROGRESS || err == -ENOSPC ? 0 : err;
}

unsigned store_sides_added(struct store *s)
{
	return atomic_load(&s->p->sides_added);
}

bool store_is_mirror(struct store *s)
{
	return atomic_load(&s->p->mirror);
}

/* All slots of a device that is nobody's side; flushed. */
static int wipe_supers(struct bdev *dev, uint64_t blocks)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	uint64_t blk;
	unsigned i;
	int err = 0;

	for (i = 0; !err && i < 2 * COWFS_SUPER_SLOTS; i++) {
		blk = super_slot_block(blocks, i % COWFS_SUPER_SLOTS,
				       i >= COWFS_SUPER_SLOTS);
		err = bdev_write(dev, blk * COWFS_BLOCK_SIZE, zero,
				 sizeof(zero));
	}
	return err ? err : bdev_flush(dev);
}

/* ---- adding ---- */

/* Nothing there looks like the head of a record any more. */
static int wipe_records(struct bdev *dev, uint64_t blk, uint64_t n)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	struct cowfs_disk_log d;
	int err = 0;

	for (uint64_t at = blk; !err && at < blk + n; at++)
		if (bdev_read(dev, at * COWFS_BLOCK_SIZE, &d, sizeof(d)) ||
		    from_le32(d.magic) == COWFS_LOG_MAGIC)
			err = bdev_write(dev, at * COWFS_BLOCK_SIZE, zero,
					 sizeof(zero));
	return err;
}

/* Step 1. Far slots lie where the size of a filesystem says: also where they
 * would be if one had filled the device. */
static int empty_device(struct store *s, struct bdev *dev)
{
	static const uint8_t zero[COWFS_SUPER_NEAR * COWFS_BLOCK_SIZE];
	const struct cowfs_disk_area *log = &s->super.log;
	uint64_t blocks = s->io.blocks;
	int err = bdev_write(dev, 0, zero, sizeof(zero));

	if (!err)
		err = wipe_records(dev, from_le64(log->blk),
				   from_le32(log->blocks));
	if (!err && dev->size / COWFS_BLOCK_SIZE != blocks)
		err = wipe_supers(dev, dev->size / COWFS_BLOCK_SIZE);
	return err ? err : wipe_supers(dev, blocks);
}

/* d becomes that of a mirror of which `side` is the new one. */
static void set_mirror(struct cowfs_disk_super *d, unsigned side,
		       const uint8_t uuid[16])
{
	if (!super_is_mirror(d)) {
		d->incompat = to_le64(from_le64(d->incompat) |
				      COWFS_INCOMPAT_MIRROR);
		memset(&d->mirror, 0, sizeof(d->mirror));
		memcpy(d->mirror.dev_uuid[!side], d->dev_uuid,
		       sizeof(d->dev_uuid));
	}
	d->dev_count = to_le16(BDEV_SIDES);
	memcpy(d->mirror.dev_uuid[side], uuid, sizeof(d->dev_uuid));
}

/* Step 2. */
static int announce(struct store *s, struct bdev *dev, unsigned side,
		    const uint8_t uuid[16])
{
	struct cowfs_disk_super d;
	unsigned slot, far;
	int err = 0;

	store_durable_super(s, &d);
	set_mirror(&d, side, uuid);
	d.state &= (uint8_t)~COWFS_STATE_CLEAN;
	d.mirror.stale_gen[side] = d.gen;
	d.mirror.synced_gen[side] = d.mirror.since_gen[side] = to_le64(0);
	super_for_side(&d, side, &d);
	slot = (unsigned)(from_le64(d.gen) % COWFS_SUPER_SLOTS);
	for (far = 0; !err && far < 2; far++)
		err = bdev_write(dev, super_slot_block(s->io.blocks, slot, far) *
				 COWFS_BLOCK_SIZE, &d, sizeof(d));
	return err ? err : bdev_flush(dev);
}

/* C. *attached: dev is the mirror's. *gone: the device of a side that failed in
 * use, whose place it takes. */
static int add_locked(struct store *s, struct bdev *dev, bool *attached,
		      struct bdev **gone)
{
	unsigned side = bdev_side_state(s->dev, 0) == SIDE_GONE ? 0 : 1;
	uint8_t uuid[16];
	int err;

	if (bdev_sides(s->dev) > 1 &&
	    bdev_side_state(s->dev, side) != SIDE_GONE)
		return -EINVAL;
	random_bytes(uuid, sizeof(uuid));
	err = commit_kept(s); /* its superblock knows one side */
	if (!err)
		err = empty_device(s, dev);
	if (!err)
		err = announce(s, dev, side, uuid);
	if (!err && bdev_sides(s->dev) > 1)
		err = bdev_mirror_detach(s->dev, side, gone);
	if (!err)
		err = bdev_mirror_attach(s->dev, dev);
	if (err)
		return err;
	*attached = true;
	s->p->stale_gen[side] = s->p->synced_gen[side] = 0;
	atomic_store(&s->p->since_gen[side], 0);
	tree_lock(s);
	set_mirror(&s->super, side, uuid);
	atomic_fetch_add(&s->p->sides_added, 1);
	tree_unlock(s);
	atomic_store(&s->p->mirror, true);
	return commit_locked(s, commit_nothing, NULL, true);
}

int store_mirror_add(struct store *s, struct bdev *dev)
{
	struct bdev *gone = NULL;
	bool attached = false;
	int err = 0;

	if (s->p->readonly || store_stopped(s))
		err = -EROFS;
	else if (dev->size / COWFS_BLOCK_SIZE < s->io.blocks)
		err = -ENOSPC;
	if (!err) {
		mutex_lock(&s->p->commit_lock);
		err = add_locked(s, dev, &attached, &gone);
		mutex_unlock(&s->p->commit_lock);
	}
	bdev_close(gone);
	if (!attached)
		bdev_close(dev);
	if (err == -EINPROGRESS)
		return 0;
	return err ? err : rewrite_supers(s);
}

/* ---- removing ---- */

static void set_single(struct store *s)
{
	struct cowfs_disk_super *d = &s->super;

	tree_lock(s);
	d->incompat = to_le64(from_le64(d->incompat) & ~COWFS_INCOMPAT_MIRROR);
	random_bytes(d->dev_uuid, sizeof(d->dev_uuid));
	d->dev_index = to_le16(0);
	d->dev_count = to_le16(1);
	d->both_gen = to_le64(0);
	memset(&d->mirror, 0, sizeof(d->mirror));
	tree_unlock(s);
	atomic_store(&s->p->mirror, false);
}

/* C. *gone: the device that was the side, if there was one. */
static int remove_locked(struct store *s, unsigned side, struct bdev **gone)
{
	unsigned i;
	int err;

	if (!store_is_mirror(s))
		return -EINVAL;
	err = commit_kept(s);
	if (!err)
		err = bdev_mirror_detach(s->dev, side, gone);
	if (err)
		return err;
	set_single(s);
	memset(s->p->alone, 0, sizeof(s->p->alone));
	s->p->alone_sides = 0;
	for (i = 0; i < BDEV_SIDES; i++) {
		s->p->stale_gen[i] = s->p->synced_gen[i] = 0;
		atomic_store(&s->p->since_gen[i], 0);
	}
	return commit_locked(s, commit_nothing, NULL, true);
}

int store_mirror_remove(struct store *s, unsigned side)
{
	struct bdev *gone = NULL;
	int err;

	if (s->p->readonly || store_stopped(s))
		return -EROFS;
	mutex_lock(&s->p->commit_lock);
	err = remove_locked(s, side, &gone);
	mutex_unlock(&s->p->commit_lock);
	if (!err)
		err = rewrite_supers(s);
	if (gone && (err || wipe_supers(gone, s->io.blocks)))
		log_msg(LOG_LVL_WARN, "%s: was removed from the mirror, but "
			"its superblocks could not be emptied", gone->name);
	bdev_close(gone);
	return err;
}
