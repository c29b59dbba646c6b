/*
 * mount.h - making, opening, closing and checking a filesystem on a device
 */
#ifndef TEST_MOUNT_H
#define TEST_MOUNT_H

#include "fs/fs.h"

/* One that fills dev and has a root directory; its store is left open, for
 * whatever is to be set before it is used. */
struct store *test_format(struct bdev *dev, uint32_t node_size,
			  unsigned meta_copies, unsigned data_copies);

/* Open it as the daemon does, but without threads. Errors of store_open and
 * fs_mount; nothing is open then. */
MUST_CHECK int test_mount_with(const struct store_config *cfg,
			       const struct fs_options *opt, struct store **s,
			       struct fs **fs);
/* The same, and no atime changes. flags: of struct store_config; cache: bytes, 0
 * for the default. */
MUST_CHECK int test_mount(struct bdev *dev, unsigned flags, size_t cache,
			  struct store **s, struct fs **fs);
void test_umount(struct store *s, struct fs *fs);

/* A check in full, data too, finds nothing; what it finds is printed. */
void test_check(struct store *s);
/* Of what lies on dev, which is not open. */
void test_check_device(struct bdev *dev);

#endif
