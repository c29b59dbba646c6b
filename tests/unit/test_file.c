/*
 * test_file.c - contents of files: reading, writing, truncating, holes, sharing
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/fs.h"
#include "support/test.h"
#include "support/testdev.h"

#define BLOCK COWFS_BLOCK_SIZE
#define MIB (UINT64_C(1) << 20)

/* ---- a filesystem in memory ---- */

static struct bdev *mem, *dev;
static struct store *store;
static struct fs *fs;
static const struct cred root_cred;

static void mount_it(void)
{
	struct store_config cfg = { .dev = dev, .cache_bytes = 1 << 20 };
	struct fs_options opt = { .noatime = true };

	ck_ok(store_open(&cfg, &store));
	ck_ok(snap_start(store));
	ck_ok(fs_mount(store, &opt, &fs));
}

static void umount_it(void)
{
	fs_umount(fs);
	ck_ok(store_close(store));
}

static void make(uint64_t size, uint32_t node_size, unsigned data_copies)
{
	struct store_format f = { .blocks = size / BLOCK,
				  .node_size = node_size,
				  .meta_copies = 2,
				  .data_copies = data_copies };
	struct store_config cfg;

	ck_ok(bdev_open_mem(size, &mem));
	ck_ok(fault_open(mem, &dev));
	ck_ok(store_format(dev, &f));
	cfg = (struct store_config){ .dev = dev };
	ck_ok(store_open(&cfg, &store));
	ck_ok(fs_format(store, 0, 0, 0755));
	ck_ok(store_close(store));
	mount_it();
}

static void unmake(void)
{
	umount_it();
	bdev_close(dev);
	bdev_close(mem);
}

static void setup(void)
{
	make(64 * MIB, 16384, 1);
}

static uint64_t create(const char *name)
{
	struct attr a;

	ck_ok(fs_create(fs, COWFS_INO_ROOT, name, strlen(name), S_IFREG | 0644,
			0, NULL, &root_cred, &a));
	return a.ino;
}

static void unlink_name(const char *name)
{
	ck_ok(fs_unlink(fs, COWFS_INO_ROOT, name, strlen(name), NULL));
}

static struct attr attr_of(uint64_t ino)
{
	struct attr a;

	ck_ok(fs_getattr(fs, fs_live(fs), ino, &a));
	return a;
}

static int truncate_to(uint64_t ino, uint64_t size)
{
	struct attr set = { .size = size }, out;

	return fs_setattr(fs, ino, FS_SET_SIZE, &set, &root_cred, &out);
}

static uint8_t *pattern(size_t len, uint64_t seed)
{
	uint8_t *buf = malloc(len + 1);
	struct rng r;

	ck_assert_ptr_nonnull(buf);
	rng_init(&r, seed, 7);
	rng_fill(&r, buf, len);
	return buf;
}

/* The file is exactly these bytes, in every view of reading it. */
static void expect_in(struct view *v, uint64_t ino, const uint8_t *want,
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

static void expect(uint64_t ino, const uint8_t *want, size_t len)
{
	ck_assert_uint_eq(attr_of(ino).size, len);
	expect_in(fs_live(fs), ino, want, len);
}

static void settle(void)
{
	for (int i = 0; i < 3; i++) {
		ck_ok(store_drain(store));
		ck_ok(store_commit(store, NULL, NULL));
	}
}

static uint64_t free_blocks(void)
{
	struct alloc_info info;

	settle();
	alloc_info(store->alloc, &info);
	return info.free;
}

static uint64_t blk_at(uint64_t ino, uint64_t off)
{
	struct fs_map m;

	ck_ok(fs_map(fs, fs_live(fs), ino, off, &m));
	return m.blk;
}

/* ---- reading and writing ---- */

static void boundaries(uint32_t node_size)
{
	uint64_t inl = COWFS_INLINE_MAX(node_size);
	uint64_t at[] = { 0, 1, inl - 1, inl, inl + 1, BLOCK - 1, BLOCK,
			  BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 5 };
	size_t size[] = { 0, 100, 3 * BLOCK - 500 };
	uint8_t *data = pattern(8 * BLOCK, 1), *model = malloc(16 * BLOCK);
	uint64_t ino;
	size_t end;

	for (size_t i = 0; i < ARRAY_SIZE(at) * ARRAY_SIZE(at) * 3; i++) {
		uint64_t off = at[i / 3 % ARRAY_SIZE(at)];
		uint64_t len = at[i / 3 / ARRAY_SIZE(at)];
		size_t old = size[i % 3];

		ino = create("f");
		memset(model, 0, 16 * BLOCK);
		memcpy(model, data + 50, old);
		ck_ok(fs_write(fs, ino, 0, model, old, 0));
		ck_ok(fs_write(fs, ino, off, data, len, 0));
		memcpy(model + off, data, len);
		end = len && off + len > old ? off + len : old;
		expect(ino, model, end);
		for (size_t from = 0; from < end; from += 1000) {
			uint8_t part[777];
			size_t got;

			ck_ok(fs_read(fs, fs_live(fs), ino, from, part,
				      sizeof(part), &got));
			ck_assert_uint_eq(got, min_u64(777, end - from));
			ck_assert_mem_eq(part, model + from, got);
		}
		unlink_name("f");
	}
	free(data);
	free(model);
}

START_TEST(writes_hold_at_every_boundary)
{
	static const uint32_t node_size[] = { 4096, 16384, 65536 };
	uint64_t before;

	make(64 * MIB, node_size[_i], 1);
	create("g");
	unlink_name("g");
	before = free_blocks();
	boundaries(node_size[_i]);
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
}
END_TEST

START_TEST(contents_survive_a_remount)
{
	uint8_t *data = pattern(3 * MIB + 77, 2);
	uint64_t small, large;

	setup();
	small = create("small");
	large = create("large");
	ck_ok(fs_write(fs, small, 0, data, 1234, 0));
	ck_ok(fs_write(fs, large, 0, data, 3 * MIB + 77, 0));
	umount_it();
	mount_it();
	expect(small, data, 1234);
	expect(large, data, 3 * MIB + 77);
	unmake();
	free(data);
}
END_TEST

START_TEST(sequential_writes_give_long_extents)
{
	uint8_t *data = pattern(MIB, 3);
	struct fs_map m;
	uint64_t ino;

	setup();
	ino = create("f");
	for (unsigned i = 0; i < 256; i++)
		ck_ok(fs_write(fs, ino, i * BLOCK, data + i * BLOCK, BLOCK,
			       0));
	ck_ok(fs_map(fs, fs_live(fs), ino, 0, &m));
	ck_assert_uint_eq(m.len, MIB);
	ck_assert_uint_eq(attr_of(ino).blocks, MIB / 512);
	expect(ino, data, MIB);
	unmake();
	free(data);
}
END_TEST

/* Joined, the older blocks would pass for as young as the others: freed now,
 * they could be used again though the durable state names them. */
START_TEST(extents_of_different_transactions_stay_apart)
{
	uint8_t *data = pattern(20 * BLOCK, 26);
	struct fs_map m;
	uint64_t ino;

	setup();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, 16 * BLOCK, 0));
	ck_ok(store_commit(store, NULL, NULL));
	ck_ok(fs_write(fs, ino, 16 * BLOCK, data + 16 * BLOCK, 2 * BLOCK, 0));
	ck_ok(fs_write(fs, ino, 18 * BLOCK, data + 18 * BLOCK, 2 * BLOCK, 0));
	ck_ok(fs_map(fs, fs_live(fs), ino, 0, &m));
	ck_assert_uint_eq(m.len, 16 * BLOCK);
	ck_assert_uint_eq(blk_at(ino, 16 * BLOCK), m.blk + 16);
	ck_ok(fs_map(fs, fs_live(fs), ino, 16 * BLOCK, &m));
	ck_assert_uint_eq(m.len, 4 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	unmake();
	free(data);
}
END_TEST

START_TEST(a_write_in_the_middle_leaves_the_rest)
{
	uint8_t *data = pattern(2 * MIB, 4), *model = pattern(2 * MIB, 5);
	uint64_t ino;

	setup();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, model, 2 * MIB, 0));
	for (unsigned i = 0; i < 60; i++) {
		uint64_t off = (i * 37777) % (2 * MIB - 9000);
		size_t len = 1 + i * 149 % 9000;

		ck_ok(fs_write(fs, ino, off, data + i, len, 0));
		memcpy(model + off, data + i, len);
	}
	expect(ino, model, 2 * MIB);
	ck_assert_uint_eq(attr_of(ino).blocks, 2 * MIB / 512);
	umount_it();
	mount_it();
	expect(ino, model, 2 * MIB);
	unmake();
	free(data);
	free(model);
}
END_TEST

START_TEST(a_piece_may_replace_256_extents)
{
	uint8_t *data = pattern(MIB, 6), *model = malloc(257 * BLOCK);
	uint64_t ino, other, before;

	make(64 * MIB, 4096, 1);
	create("g");
	before = free_blocks();
	ino = create("f");
	other = create("o");
	/* alternately, so that no two blocks of one file are neighbours */
	for (unsigned i = 0; i < 257; i++) {
		ck_ok(fs_write(fs, ino, i * BLOCK, data + 77, BLOCK, 0));
		memcpy(model + i * BLOCK, data + 77, BLOCK);
		ck_ok(fs_write(fs, other, i * BLOCK, data, BLOCK, 0));
	}
	ck_ok(fs_write(fs, ino, 5, data, MIB, 0));
	memcpy(model + 5, data, MIB);
	expect(ino, model, 257 * BLOCK);
	unlink_name("f");
	unlink_name("o");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(model);
}
END_TEST

START_TEST(bad_arguments_are_refused)
{
	struct attr set = { .flags = COWFS_INODE_IMMUTABLE }, out;
	uint8_t byte = 1;
	size_t got;
	uint64_t ino, other, pos;

	setup();
	ino = create("f");
	ck_err(fs_read(fs, fs_live(fs), COWFS_INO_ROOT, 0, &byte, 1, &got),
	       -EISDIR);
	ck_err(fs_write(fs, COWFS_INO_ROOT, 0, &byte, 1, 0), -EISDIR);
	ck_err(fs_write(fs, 99999, 0, &byte, 1, 0), -ESTALE);
	ck_err(fs_write(fs, ino, INT64_MAX, &byte, 1, 0), -EFBIG);
	ck_ok(fs_write(fs, ino, INT64_MAX - 1, &byte, 1, 0));
	ck_assert_uint_eq(attr_of(ino).size, INT64_MAX);
	ck_ok(fs_read(fs, fs_live(fs), ino, INT64_MAX - 1, &byte, 1, &got));
	ck_assert_uint_eq(got, 1);
	ck_assert_uint_eq(byte, 1);
	ck_ok(fs_seek(fs, fs_live(fs), ino, 0, SEEK_DATA, &pos));
	ck_assert_uint_eq(pos, INT64_MAX / BLOCK * BLOCK);
	ck_err(truncate_to(ino, UINT64_C(1) << 63), -EFBIG);
	ck_ok(truncate_to(ino, INT64_MAX));
	ck_ok(truncate_to(ino, 0));
	ck_assert_uint_eq(attr_of(ino).blocks, 0);
	ck_err(fs_fallocate(fs, ino, FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK, NULL),
	       -EOPNOTSUPP);
	ck_err(fs_fallocate(fs, ino, 0, 0, 0, NULL), -EINVAL);
	ck_err(fs_fallocate(fs, ino, 0, INT64_MAX, 1, NULL), -EFBIG);
	ck_ok(fs_setattr(fs, ino, FS_SET_FLAGS, &set, &root_cred, &out));
	ck_err(fs_write(fs, ino, 0, &byte, 1, 0), -EPERM);
	ck_err(truncate_to(ino, 5), -EPERM);
	ck_err(fs_fallocate(fs, ino, 0, 0, 1, NULL), -EPERM);
	other = create("g");
	ck_ok(fs_write(fs, other, 0, &byte, 1, 0));
	ck_err(fs_copy_range(fs, fs_live(fs), other, 0, ino, 0, 1, &pos),
	       -EPERM);
	set.flags = COWFS_INODE_APPEND;
	ck_ok(fs_setattr(fs, ino, FS_SET_FLAGS, &set, &root_cred, &out));
	ck_ok(fs_write(fs, ino, 0, &byte, 1, 0));
	ck_err(fs_write(fs, ino, 0, &byte, 1, 0), -EPERM);
	ck_ok(fs_write(fs, ino, 1, &byte, 1, 0));
	ck_err(truncate_to(ino, 0), -EPERM);
	ck_err(fs_fallocate(fs, ino, FALLOC_FL_ZERO_RANGE, 0, 1, NULL), -EPERM);
	unmake();
}
END_TEST

START_TEST(writing_clears_set_id_bits_when_told)
{
	struct attr set = { .mode = 06755 }, out;
	uint64_t ino;

	setup();
	ino = create("f");
	for (uint64_t off = 0; off <= 100000; off += 100000) {
		ck_ok(fs_setattr(fs, ino, FS_SET_MODE, &set, &root_cred,
				 &out));
		ck_ok(fs_setxattr(fs, ino, "security.capability", "x", 1, 0,
				  &root_cred));
		ck_ok(fs_write(fs, ino, off, "a", 1, 0));
		ck_assert_uint_eq(attr_of(ino).mode & 07777, 06755);
		ck_ok(fs_write(fs, ino, off, "a", 1, FS_WRITE_KILL_PRIV));
		ck_assert_uint_eq(attr_of(ino).mode & 07777, 0755);
		ck_err(fs_removexattr(fs, ino, "security.capability"),
		       -ENODATA);
	}
	unmake();
}
END_TEST

/* ---- size ---- */

START_TEST(truncate_keeps_the_head_and_zeroes_the_rest)
{
	static const size_t size[] = { 0, 1, 100, 2029, 2030, 4095, 4096, 4097,
				       8192, 9999, 40000, MIB + 5 };
	size_t n = ARRAY_SIZE(size), max = 2 * MIB;
	uint8_t *data = pattern(max, 8), *model = malloc(max);
	uint64_t ino, before;

	setup();
	create("g");
	before = free_blocks();
	for (size_t i = 0; i < n * n; i++) {
		size_t a = size[i / n], b = size[i % n];

		ino = create("f");
		ck_ok(fs_write(fs, ino, 0, data, a, 0));
		ck_ok(truncate_to(ino, b));
		memset(model, 0, max);
		memcpy(model, data, a < b ? a : b);
		expect(ino, model, b);
		ck_ok(truncate_to(ino, b + 20000));
		expect(ino, model, b + 20000);
		unlink_name("f");
	}
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(model);
}
END_TEST

START_TEST(truncate_lets_go_of_many_extents)
{
	uint64_t ino, before;
	uint8_t block[BLOCK] = { 1 };

	setup();
	ino = create("f");
	before = free_blocks();
	for (uint64_t i = 0; i < 1000; i++)
		ck_ok(fs_write(fs, ino, i * 2 * BLOCK, block, BLOCK, 0));
	ck_assert_uint_eq(attr_of(ino).blocks, 1000 * 8);
	ck_ok(truncate_to(ino, 0));
	ck_assert_uint_eq(attr_of(ino).blocks, 0);
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
}
END_TEST

/* ---- holes and preallocation ---- */

START_TEST(seek_tells_data_from_holes)
{
	struct view *v;
	uint64_t ino, pos;

	setup();
	v = fs_live(fs);
	ino = create("f");
	ck_err(fs_seek(fs, v, ino, 0, SEEK_DATA, &pos), -ENXIO);
	ck_ok(fs_write(fs, ino, 0, "abc", 3, 0));
	ck_ok(fs_seek(fs, v, ino, 1, SEEK_DATA, &pos));
	ck_assert_uint_eq(pos, 1);
	ck_ok(fs_seek(fs, v, ino, 1, SEEK_HOLE, &pos));
	ck_assert_uint_eq(pos, 3);
	ck_ok(truncate_to(ino, 100 * BLOCK));
	ck_ok(fs_write(fs, ino, 10 * BLOCK + 7, "abc", 3, 0));
	ck_ok(fs_write(fs, ino, 11 * BLOCK + 7, "abc", 3, 0));
	ck_ok(fs_fallocate(fs, ino, 0, 12 * BLOCK, 5 * BLOCK, NULL));
	ck_ok(fs_seek(fs, v, ino, 0, SEEK_HOLE, &pos));
	ck_assert_uint_eq(pos, BLOCK);
	ck_ok(fs_seek(fs, v, ino, BLOCK, SEEK_HOLE, &pos));
	ck_assert_uint_eq(pos, BLOCK);
	ck_ok(fs_seek(fs, v, ino, BLOCK + 9, SEEK_DATA, &pos));
	ck_assert_uint_eq(pos, 10 * BLOCK);
	ck_ok(fs_seek(fs, v, ino, 10 * BLOCK + 9, SEEK_DATA, &pos));
	ck_assert_uint_eq(pos, 10 * BLOCK + 9);
	ck_ok(fs_seek(fs, v, ino, 10 * BLOCK + 9, SEEK_HOLE, &pos));
	ck_assert_uint_eq(pos, 12 * BLOCK);
	ck_err(fs_seek(fs, v, ino, 12 * BLOCK, SEEK_DATA, &pos), -ENXIO);
	ck_err(fs_seek(fs, v, ino, 100 * BLOCK, SEEK_HOLE, &pos), -ENXIO);
	ck_err(fs_seek(fs, v, ino, 0, SEEK_SET, &pos), -EINVAL);
	unmake();
}
END_TEST

START_TEST(punched_and_zeroed_ranges_read_as_zeros)
{
	static const int mode[] = {
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	static const uint64_t at[] = { 0, 1, 4095, 4096, 4097, 10000, 40000,
				       50000, 60000 };
	size_t n = ARRAY_SIZE(at);
	uint8_t *data = pattern(50000, 9), *model = malloc(50000);
	uint64_t ino, before, blocks;

	setup();
	create("g");
	before = free_blocks();
	for (size_t i = 0; i < 2 * n * n; i++) {
		uint64_t off = at[i / 2 / n], len = at[i / 2 % n] + 1;
		size_t size = i % 3 ? 50000 : 1500;

		ino = create("f");
		ck_ok(fs_write(fs, ino, 0, data, size, 0));
		ck_ok(fs_fallocate(fs, ino, mode[i % 2], off, len, NULL));
		memcpy(model, data, size);
		if (off < size)
			memset(model + off, 0, min_u64(len, size - off));
		expect(ino, model, size);
		blocks = attr_of(ino).blocks;
		if (i % 2 == 0)
			ck_assert_uint_le(blocks, blocks_of(size) * 8);
		if (i % 2 == 0 && off == 0 && len > size)
			ck_assert_uint_eq(blocks, size > 2029 ? 0 : 3);
		unlink_name("f");
	}
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(model);
}
END_TEST

START_TEST(preallocation_takes_space_and_reads_as_zeros)
{
	uint8_t *zero = calloc(1, 5 * MIB), *data = pattern(10000, 10);
	struct fs_map m;
	uint64_t ino, before;

	setup();
	ino = create("f");
	before = free_blocks();
	ck_ok(fs_fallocate(fs, ino, FALLOC_FL_KEEP_SIZE, 0, 5 * MIB, NULL));
	ck_assert_uint_eq(attr_of(ino).size, 0);
	ck_assert_uint_eq(attr_of(ino).blocks, 5 * MIB / 512);
	ck_ok(fs_map(fs, fs_live(fs), ino, MIB, &m));
	ck_assert(m.prealloc);
	ck_assert_uint_le(free_blocks(), before - 5 * MIB / BLOCK);
	ck_ok(fs_fallocate(fs, ino, 0, 0, 5 * MIB, NULL));
	ck_assert_uint_eq(attr_of(ino).blocks, 5 * MIB / 512);
	expect(ino, zero, 5 * MIB);
	ck_ok(fs_write(fs, ino, MIB + 100, data, 10000, 0));
	memcpy(zero + MIB + 100, data, 10000);
	expect(ino, zero, 5 * MIB);
	ck_assert_uint_eq(attr_of(ino).blocks, 5 * MIB / 512);
	/* to the same size: what lies behind it goes */
	ck_ok(fs_fallocate(fs, ino, FALLOC_FL_KEEP_SIZE, 5 * MIB, MIB, NULL));
	ck_assert_uint_eq(attr_of(ino).blocks, 6 * MIB / 512);
	ck_ok(truncate_to(ino, 5 * MIB));
	ck_assert_uint_eq(attr_of(ino).blocks, 5 * MIB / 512);
	ck_ok(truncate_to(ino, 0));
	ck_assert_uint_eq(free_blocks(), before);
	ck_err(fs_fallocate(fs, ino, 0, 0, 100 * MIB, NULL), -ENOSPC);
	ck_assert_uint_eq(attr_of(ino).blocks, 0);
	unmake();
	free(zero);
	free(data);
}
END_TEST

/* ---- copying ---- */

static uint64_t copy(struct view *v, uint64_t from, uint64_t off, uint64_t to,
		     uint64_t to_off, uint64_t len)
{
	uint64_t copied = 0;

	ck_ok(fs_copy_range(fs, v, from, off, to, to_off, len, &copied));
	return copied;
}

START_TEST(a_copy_shares_blocks_until_one_is_written)
{
	size_t len = 3 * MIB + 123;
	uint8_t *data = pattern(len, 11), *model = malloc(len);
	uint64_t a, b, before, used;
	struct fs_map m;

	setup();
	before = free_blocks();
	a = create("a");
	b = create("b");
	ck_ok(fs_write(fs, a, 0, data, len, 0));
	used = free_blocks();
	ck_assert_uint_eq(copy(fs_live(fs), a, 0, b, 0, len + MIB), len);
	ck_assert_uint_ge(free_blocks() + 20, used);
	expect(b, data, len);
	ck_assert_uint_eq(blk_at(a, MIB), blk_at(b, MIB));
	ck_assert_uint_eq(blk_at(a, len - 1), blk_at(b, len - 1));
	ck_ok(fs_map(fs, fs_live(fs), a, 0, &m));
	ck_assert(m.shared);
	memcpy(model, data, len);
	memcpy(model + MIB + 7, data, 100000);
	ck_ok(fs_write(fs, b, MIB + 7, data, 100000, 0));
	expect(b, model, len);
	expect(a, data, len);
	unlink_name("a");
	settle();
	umount_it();
	mount_it();
	expect(b, model, len);
	unlink_name("b");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(model);
}
END_TEST

START_TEST(any_ranges_can_be_copied)
{
	static const uint64_t at[] = { 0, 1, 4096, 4097, 12288, 30000 };
	size_t n = ARRAY_SIZE(at), size = 50000, max = 100000;
	uint8_t *src = pattern(size, 12), *dst = pattern(size, 13);
	uint8_t *model = malloc(max);
	uint64_t a, b, before, len, end, done;

	setup();
	create("g");
	before = free_blocks();
	for (size_t i = 0; i < n * n * n * 2; i++) {
		uint64_t from = at[i % n], to = at[i / n % n];
		uint64_t want = at[i / n / n % n] + 1;
		size_t old = i < n * n * n ? 20000 : 100;

		a = create("a");
		b = create("b");
		ck_ok(fs_write(fs, a, 0, src, size, 0));
		ck_ok(fs_write(fs, b, 0, dst, old, 0));
		done = copy(fs_live(fs), a, from, b, to, want);
		len = min_u64(want, size - from);
		ck_assert_uint_eq(done, len);
		memset(model, 0, max);
		memcpy(model, dst, old);
		memcpy(model + to, src + from, len);
		end = max_u64(old, to + len);
		expect(b, model, end);
		expect(a, src, size);
		unlink_name("a");
		unlink_name("b");
	}
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(src);
	free(dst);
	free(model);
}
END_TEST

START_TEST(a_last_block_is_shared_only_as_a_last_block)
{
	uint8_t *src = pattern(BLOCK + 100, 24), *dst = pattern(3 * BLOCK, 25);
	uint64_t a, b, c;

	setup();
	a = create("a");
	b = create("b");
	c = create("c");
	ck_ok(fs_write(fs, a, 0, src, BLOCK + 100, 0));
	ck_ok(fs_write(fs, b, 0, dst, 3 * BLOCK, 0));
	ck_ok(fs_write(fs, c, 0, dst, BLOCK + 50, 0));
	copy(fs_live(fs), a, 0, b, 0, BLOCK + 100);
	copy(fs_live(fs), a, 0, c, 0, BLOCK + 100);
	expect(c, src, BLOCK + 100);
	memcpy(dst, src, BLOCK + 100);
	expect(b, dst, 3 * BLOCK);
	ck_assert_uint_eq(blk_at(a, BLOCK), blk_at(c, BLOCK));
	ck_assert_uint_ne(blk_at(a, BLOCK), blk_at(b, BLOCK));
	unmake();
	free(src);
	free(dst);
}
END_TEST

START_TEST(a_file_can_be_copied_within_itself)
{
	uint8_t *data = pattern(20 * BLOCK, 14);
	uint64_t ino, copied, before;

	setup();
	before = free_blocks();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, 20 * BLOCK, 0));
	ck_err(fs_copy_range(fs, fs_live(fs), ino, 0, ino, BLOCK, 2 * BLOCK,
			     &copied), -EINVAL);
	copy(fs_live(fs), ino, 0, ino, 10 * BLOCK, 5 * BLOCK);
	memcpy(data + 10 * BLOCK, data, 5 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	copy(fs_live(fs), ino, 12 * BLOCK, ino, 2 * BLOCK, 3 * BLOCK);
	expect(ino, data, 20 * BLOCK); /* the same blocks again */
	copy(fs_live(fs), ino, 9 * BLOCK, ino, 0, 4 * BLOCK);
	memmove(data, data + 9 * BLOCK, 4 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	ck_assert_uint_eq(attr_of(ino).blocks, 20 * 8);
	unlink_name("f");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
}
END_TEST

START_TEST(holes_are_copied_as_holes)
{
	uint8_t *model = calloc(1, 40 * BLOCK), *data = pattern(BLOCK, 15);
	uint64_t a, b;

	setup();
	a = create("a");
	b = create("b");
	memset(model, 'x', 40 * BLOCK);
	ck_ok(fs_write(fs, b, 0, model, 40 * BLOCK, 0));
	ck_ok(fs_write(fs, a, 10 * BLOCK, data, BLOCK, 0));
	ck_ok(fs_fallocate(fs, a, 0, 20 * BLOCK, 5 * BLOCK, NULL));
	ck_ok(truncate_to(a, 30 * BLOCK));
	copy(fs_live(fs), a, 0, b, BLOCK, 30 * BLOCK);
	memset(model + BLOCK, 0, 30 * BLOCK);
	memcpy(model + 11 * BLOCK, data, BLOCK);
	expect(b, model, 40 * BLOCK);
	ck_assert_uint_eq(attr_of(b).blocks, 11 * 8);
	unmake();
	free(model);
	free(data);
}
END_TEST

START_TEST(files_come_back_from_a_snapshot)
{
	size_t len = 2 * MIB + 5;
	uint8_t *data = pattern(len, 16), *other = pattern(len, 17);
	uint64_t big, small, to, before;
	struct view *v;

	setup();
	before = free_blocks();
	big = create("big");
	small = create("small");
	ck_ok(fs_write(fs, big, 0, data, len, 0));
	ck_ok(fs_write(fs, small, 0, data, 500, 0));
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_write(fs, big, 1000, other, MIB, 0));
	ck_ok(fs_write(fs, small, 0, other, 5000, 0));
	ck_ok(fs_view_open(fs, "s", &v));
	expect_in(v, big, data, len);
	expect_in(v, small, data, 500);
	to = create("to");
	ck_assert_uint_eq(copy(v, big, 0, to, 0, len), len);
	expect(to, data, len);
	ck_ok(truncate_to(small, 0));
	ck_assert_uint_eq(copy(v, small, 0, small, 0, 10000), 500);
	expect(small, data, 500);
	ck_assert_uint_eq(copy(v, big, 0, big, 0, len), len);
	expect(big, data, len);
	fs_view_put(fs, v);
	ck_ok(fs_snap_delete(fs, "s"));
	settle();
	umount_it();
	mount_it();
	expect(to, data, len);
	expect(big, data, len);
	unlink_name("big");
	unlink_name("small");
	unlink_name("to");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(other);
}
END_TEST

/* ---- damage and lack of space ---- */

START_TEST(a_bad_block_is_never_returned)
{
	uint8_t *data = pattern(20 * BLOCK, 18), byte;
	uint64_t ino, blk;
	size_t got;

	setup();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, 20 * BLOCK, 0));
	blk = blk_at(ino, 7 * BLOCK);
	flip_bit(mem, blk * BLOCK + 99, 3);
	test_log_hide();
	ck_err(fs_read(fs, fs_live(fs), ino, 7 * BLOCK, &byte, 1, &got),
	       -ECOW_CSUM);
	ck_err(fs_write(fs, ino, 7 * BLOCK + 10, "x", 1, 0), -ECOW_CSUM);
	ck_err(truncate_to(ino, 7 * BLOCK + 10), -ECOW_CSUM);
	test_log_show();
	ck_ok(fs_read(fs, fs_live(fs), ino, 6 * BLOCK, &byte, 1, &got));
	ck_assert_uint_eq(byte, data[6 * BLOCK]);
	/* wholly overwritten, it is good again */
	ck_ok(fs_write(fs, ino, 7 * BLOCK, data, BLOCK, 0));
	memcpy(data + 7 * BLOCK, data, BLOCK);
	expect(ino, data, 8 * BLOCK);
	unmake();
	free(data);
}
END_TEST

START_TEST(the_second_copy_mends_the_first)
{
	uint8_t *data = pattern(300 * BLOCK, 19);
	uint64_t ino, blk, before;

	make(64 * MIB, 16384, 2);
	before = free_blocks();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, 300 * BLOCK, 0));
	ck_ok(fs_write(fs, ino, 9 * BLOCK + 5, data, 5 * BLOCK, 0));
	memmove(data + 9 * BLOCK + 5, data, 5 * BLOCK);
	blk = blk_at(ino, 50 * BLOCK);
	flip_bit(mem, blk * BLOCK + 99, 3);
	test_log_hide();
	expect(ino, data, 300 * BLOCK);
	test_log_show();
	ck_assert_uint_eq(store->io.stats.repaired, 1);
	expect(ino, data, 300 * BLOCK);
	ck_assert_uint_eq(store->io.stats.csum_errors, 1);
	unlink_name("f");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
}
END_TEST

START_TEST(a_failed_write_changes_nothing)
{
	uint8_t *data = pattern(MIB, 20), *other = pattern(MIB, 21);
	uint64_t ino, before;

	setup();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, MIB, 0));
	before = free_blocks();
	fault_nth(dev, FAULT_WRITE, 1, -EIO);
	ck_err(fs_write(fs, ino, 100, other, MIB / 2, 0), -EIO);
	fault_clear(dev);
	expect(ino, data, MIB);
	ck_assert_uint_eq(free_blocks(), before);
	ck_ok(fs_write(fs, ino, 100, other, MIB / 2, 0));
	memcpy(data + 100, other, MIB / 2);
	expect(ino, data, MIB);
	unmake();
	free(data);
	free(other);
}
END_TEST

static void fill(uint32_t node_size, size_t piece)
{
	uint8_t *data = pattern(MIB, 22), *buf = malloc(MIB);
	uint64_t ino, before, n = 0;
	size_t got;
	int err;

	make(24 * MIB, node_size, 1);
	create("g");
	unlink_name("g");
	before = free_blocks();
	ino = create("f");
	do {
		data[0] = (uint8_t)n;
		err = fs_write(fs, ino, n * piece, data, piece, 0);
		if (!err)
			n++;
	} while (!err);
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_eq(attr_of(ino).size, n * piece);
	ck_assert_uint_gt(n * piece, 12 * MIB);
	ck_ok(store_commit(store, NULL, NULL));
	umount_it();
	mount_it();
	for (uint64_t i = 0; i < n; i++) {
		ck_ok(fs_read(fs, fs_live(fs), ino, i * piece, buf, piece,
			      &got));
		data[0] = (uint8_t)i;
		ck_assert_mem_eq(buf, data, piece);
	}
	ck_ok(truncate_to(ino, 5 * MIB));
	ck_ok(fs_write(fs, ino, 5 * MIB, data, MIB, 0));
	unlink_name("f");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(buf);
}

START_TEST(a_full_disk_loses_nothing_and_empties_again)
{
	static const size_t piece[] = { MIB, 4096, 16384 };

	fill(_i == 1 ? 4096 : 16384, piece[_i]);
}
END_TEST

/* Deleting a large file goes on in the background: its space can be had all
 * the same. */
START_TEST(space_of_a_file_just_deleted_can_be_used)
{
	uint8_t *data = pattern(MIB, 27);
	char name[] = "0";
	uint64_t ino, n = 0;
	struct attr a;

	make(24 * MIB, 16384, 1);
	if (_i)
		ck_ok(store_start(store));
	for (; name[0] < '4'; name[0]++)
		create(name);
	for (int round = 0; round < 4; round++) {
		name[0] = (char)('0' + round);
		ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, name, 1, &a));
		ino = a.ino;
		if (round == 3)
			ck_ok(fs_fallocate(fs, ino, 0, 0, (n - 1) * MIB, NULL));
		else if (round)
			for (uint64_t i = 0; i < n - 1; i++)
				ck_ok(fs_write(fs, ino, i * MIB, data, MIB, 0));
		else
			while (!fs_write(fs, ino, n * MIB, data, MIB, 0))
				n++;
		for (uint64_t i = 0; i < 100; i++) /* many extents */
			ck_ok(fs_write(fs, ino, i * 2 * BLOCK, data, BLOCK, 0));
		unlink_name(name);
	}
	unmake();
	free(data);
}
END_TEST

START_TEST(overwriting_works_as_long_as_one_piece_fits)
{
	uint8_t *data = pattern(MIB, 23);
	uint64_t ino, n = 0;

	make(24 * MIB, 16384, 1);
	ino = create("f");
	while (!fs_write(fs, ino, n * MIB, data, MIB, 0))
		n++;
	ck_ok(truncate_to(ino, (n - 2) * MIB));
	for (unsigned i = 0; i < 3 * n; i++) {
		data[0]++;
		ck_ok(fs_write(fs, ino, i % (n - 2) * MIB, data, MIB, 0));
	}
	unmake();
	free(data);
}
END_TEST

/* ---- many at once ---- */

#define SHARED_BLOCKS 64
static _Atomic bool stop_now;
static uint64_t shared_ino;

static void *write_blocks(void *arg)
{
	uint8_t buf[4 * BLOCK];
	struct rng r;
	uint64_t at;

	rng_init(&r, test_seed(), (uint64_t)(uintptr_t)arg);
	for (unsigned i = 0; i < test_rounds(1500); i++) {
		at = rng_below(&r, SHARED_BLOCKS - 4);
		memset(buf, (int)rng_range(&r, 1, 255), sizeof(buf));
		if (rng_one_in(&r, 30))
			ck_ok(truncate_to(shared_ino, at * BLOCK));
		else if (rng_one_in(&r, 30))
			ck_ok(store_commit(store, NULL, NULL));
		else if (rng_one_in(&r, 60))
			ck_ok(fs_restore(fs, "s", NULL));
		else
			ck_ok(fs_write(fs, shared_ino, at * BLOCK, buf,
				       BLOCK * rng_range(&r, 1, 4), 0));
	}
	return NULL;
}

/* Every block is all one byte: writes are whole, freed blocks not reused. */
static void *read_blocks(void *arg)
{
	uint8_t buf[16 * BLOCK];
	struct rng r;
	size_t got;

	rng_init(&r, test_seed(), (uint64_t)(uintptr_t)arg);
	while (!stop_now) {
		ck_ok(fs_read(fs, fs_live(fs), shared_ino,
			      rng_below(&r, SHARED_BLOCKS) * BLOCK, buf,
			      sizeof(buf), &got));
		if (got % BLOCK)
			abort();
		for (size_t b = 0; b < got; b += BLOCK)
			if (memcmp(buf + b, buf + b + 1, BLOCK - 1))
				abort();
	}
	return NULL;
}

START_TEST(readers_see_whole_blocks_beside_writers)
{
	pthread_t w[2], r[2];

	setup();
	ck_ok(store_start(store));
	stop_now = false;
	shared_ino = create("f");
	ck_ok(fs_fallocate(fs, shared_ino, 0, 0, SHARED_BLOCKS * BLOCK, NULL));
	ck_ok(snap_create(store, "s", NULL));
	for (uintptr_t i = 0; i < 2; i++) {
		pthread_create(&w[i], NULL, write_blocks, (void *)(i + 1));
		pthread_create(&r[i], NULL, read_blocks, (void *)(i + 10));
	}
	pthread_join(w[0], NULL);
	pthread_join(w[1], NULL);
	stop_now = true;
	pthread_join(r[0], NULL);
	pthread_join(r[1], NULL);
	unmake();
}
END_TEST

static Suite *file_suite(void)
{
	Suite *s = suite_create("file");
	TCase *t = tcase_create("file");

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, writes_hold_at_every_boundary, 0, 3);
	tcase_add_test(t, contents_survive_a_remount);
	tcase_add_test(t, sequential_writes_give_long_extents);
	tcase_add_test(t, extents_of_different_transactions_stay_apart);
	tcase_add_test(t, a_write_in_the_middle_leaves_the_rest);
	tcase_add_test(t, a_piece_may_replace_256_extents);
	tcase_add_test(t, bad_arguments_are_refused);
	tcase_add_test(t, writing_clears_set_id_bits_when_told);
	tcase_add_test(t, truncate_keeps_the_head_and_zeroes_the_rest);
	tcase_add_test(t, truncate_lets_go_of_many_extents);
	tcase_add_test(t, seek_tells_data_from_holes);
	tcase_add_test(t, punched_and_zeroed_ranges_read_as_zeros);
	tcase_add_test(t, preallocation_takes_space_and_reads_as_zeros);
	tcase_add_test(t, a_copy_shares_blocks_until_one_is_written);
	tcase_add_test(t, any_ranges_can_be_copied);
	tcase_add_test(t, a_last_block_is_shared_only_as_a_last_block);
	tcase_add_test(t, a_file_can_be_copied_within_itself);
	tcase_add_test(t, holes_are_copied_as_holes);
	tcase_add_test(t, files_come_back_from_a_snapshot);
	tcase_add_test(t, a_bad_block_is_never_returned);
	tcase_add_test(t, the_second_copy_mends_the_first);
	tcase_add_test(t, a_failed_write_changes_nothing);
	tcase_add_loop_test(t, a_full_disk_loses_nothing_and_empties_again, 0,
			    3);
	tcase_add_loop_test(t, space_of_a_file_just_deleted_can_be_used, 0, 2);
	tcase_add_test(t, overwriting_works_as_long_as_one_piece_fits);
	tcase_add_test(t, readers_see_whole_blocks_beside_writers);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(file_suite());
}
