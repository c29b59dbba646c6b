/* proof.c - taking the proof of a commit away */
#include "support/proof.h"
#include "support/test.h"
#include "txn/txn.h"

void proof_lost(struct bdev *dev)
{
	struct cowfs_disk_super near, far;
	uint64_t blocks = dev->size / COWFS_BLOCK_SIZE;
	struct super newest;
	unsigned slot;

	ck_ok(super_newest(dev, &newest));
	slot = newest.d.slot;
	ck_ok(bdev_read(dev, super_slot_block(0, slot, false) *
			COWFS_BLOCK_SIZE, &near, sizeof(near)));
	ck_ok(bdev_read(dev, super_slot_block(blocks, slot, true) *
			COWFS_BLOCK_SIZE, &far, sizeof(far)));
	ck_assert(super_proven(&near));
	ck_assert(!super_proven(&far));
	ck_ok(bdev_write(dev, super_slot_block(0, slot, false) *
			 COWFS_BLOCK_SIZE, &far, sizeof(far)));
}
