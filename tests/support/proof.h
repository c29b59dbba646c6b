/*
 * proof.h - a commit of which nothing says that it was complete
 */
#ifndef TEST_PROOF_H
#define TEST_PROOF_H

#include "cowfs/bdev.h"

/* As if the power had gone before the newest superblock was written once more,
 * without COWFS_STATE_UNVERIFIED. That it has been is asserted. */
void proof_lost(struct bdev *dev);

#endif
