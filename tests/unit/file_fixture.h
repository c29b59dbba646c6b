/*
 * file_fixture.h - a filesystem in memory for tests of the contents of files
 *
 * Its device can be made to fail (support/testdev.h), it has two copies of
 * metadata, and one or two of data.
 */
#ifndef FILE_FIXTURE_H
#define FILE_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define BLOCK COWFS_BLOCK_SIZE
#define MIB (UINT64_C(1) << 20)

static struct bdev *mem, *dev;
static struct store *store;
static struct fs *fs;
static const struct cred root_cred;

static inline void mount_it(void)
{
	ck_ok(test_mount(dev, 0, 1 << 20, &store, &fs));
}

static inline void umount_it(void)
{
	test_umount(store, fs);
}

static inline void make(uint64_t size, uint32_t node_size, unsigned data_copies)
{
	ck_ok(bdev_open_mem(size, &mem));
	ck_ok(fault_open(mem, &dev));
	ck_ok(store_close(test_format(dev, node_size, 2, data_copies)));
	mount_it();
}

static inline void unmake(void)
{
	umount_it();
	bdev_close(dev);
	bdev_close(mem);
}

static inline void setup(void)
{
	make(64 * MIB, 16384, 1);
}

static inline uint64_t create(const char *name)
{
	struct attr a;

	ck_ok(fs_create(fs, COWFS_INO_ROOT, name, strlen(name), S_IFREG | 0644,
			0, NULL, &root_cred, &a));
	return a.ino;
}

static inline void unlink_name(const char *name)
{
	ck_ok(fs_unlink(fs, COWFS_INO_ROOT, name, strlen(name), NULL));
}

static inline struct attr attr_of(uint64_t ino)
{
	struct attr a;

	ck_ok(fs_getattr(fs, fs_live(fs), ino, &a));
	return a;
}

static inline int truncate_to(uint64_t ino, uint64_t size)
{
	struct attr set = { .size = size }, out;

	return fs_setattr(fs, ino, FS_SET_SIZE, &set, &root_cred, &out);
}

static inline uint8_t *pattern(size_t len, uint64_t seed)
{
	uint8_t *buf = malloc(len + 1);
	struct rng r;

	ck_assert_ptr_nonnull(buf);
	rng_init(&r, seed, 7);
	rng_fill(&r, buf, len);
	return buf;
}

/* The file is exactly these bytes, in every view of reading it. */
static inline void expect_in(struct view *v, uint64_t ino, const uint8_t *want,
		      size_t len)
{
	uint8_t *buf = malloc(len + 100);
	size_t got;

	memset(buf, 0xee, len + 100);
	ck_ok(fs_read(fs, v, ino, 0, buf, len + 100, &got));
	ck_assert_uint_eq(got, len);
	for (size_t i = 0; memcmp(buf, want, len) && i < len; i++)
		if (buf[i] != want[i])
			ck_abort_msg("byte %zu: %02x, not %02x", i, buf[i],
				     want[i]);
	free(buf);
}

static inline void expect(uint64_t ino, const uint8_t *want, size_t len)
{
	ck_assert_uint_eq(attr_of(ino).size, len);
	expect_in(fs_live(fs), ino, want, len);
}

static inline void settle(void)
{
	for (int i = 0; i < 3; i++) {
		ck_ok(store_drain(store));
		ck_ok(store_commit(store, NULL, NULL));
	}
}

static inline uint64_t free_blocks(void)
{
	struct alloc_info info;

	settle();
	alloc_info(store->alloc, &info);
	return info.free;
}

static inline uint64_t blk_at(uint64_t ino, uint64_t off)
{
	struct fs_map m;

	ck_ok(fs_map(fs, fs_live(fs), ino, off, &m));
	return m.blk;
}

#endif
