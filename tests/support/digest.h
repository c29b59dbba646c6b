/*
 * digest.h - the visible state of a filesystem as one number
 *
 * Names, attributes (atime left out), contents, xattrs, hard links (by inode
 * number), and the same of every snapshot. Two states with the same digest look
 * the same to users.
 */
#ifndef TEST_DIGEST_H
#define TEST_DIGEST_H

#include "fs/fs.h"

/* Of the live tree, and of all snapshots with their names.
 * -errno of the first call that failed. */
MUST_CHECK int fs_digest(struct fs *fs, uint64_t *out);
/* Of one view. */
MUST_CHECK int view_digest(struct fs *fs, struct view *v, uint64_t *out);

#endif
