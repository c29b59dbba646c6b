/*
 * test_file.c - contents of files: reading, writing, truncating, holes
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "unit/file_fixture.h"

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

/* Whoever is not root loses them by any change of contents. */
START_TEST(other_changes_clear_set_id_bits_too)
{
	static const struct cred user = { .uid = 1000, .gid = 1000 };
	struct attr set = { .mode = 06755 }, out;
	uint64_t ino, from, n;

	setup();
	ino = create("f");
	from = create("g");
	ck_ok(fs_fallocate(fs, from, 0, 0, 4 * BLOCK, NULL));
	ck_ok(fs_setattr(fs, ino, FS_SET_MODE, &set, &root_cred, &out));
	ck_ok(fs_fallocate(fs, ino, 0, 0, 4 * BLOCK, &root_cred));
	ck_ok(fs_copy_range_by(fs, &root_cred, fs_live(fs), from, 0, ino, 0,
			       4 * BLOCK, &n));
	ck_assert_uint_eq(attr_of(ino).mode & 07777, 06755);
	ck_ok(fs_fallocate(fs, ino, 0, 0, 4 * BLOCK, &user));
	ck_assert_uint_eq(attr_of(ino).mode & 07777, 0755);
	ck_ok(fs_setattr(fs, ino, FS_SET_MODE, &set, &root_cred, &out));
	ck_ok(fs_copy_range_by(fs, &user, fs_live(fs), from, 0, ino, 0,
			       4 * BLOCK, &n));
	ck_assert_uint_eq(attr_of(ino).mode & 07777, 0755);
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

static void age(uint64_t ino)
{
	struct attr old = { .mtime = { 77, 5 }, .ctime = { 78, 5 } }, out;

	ck_ok(fs_setattr(fs, ino, FS_SET_MTIME | FS_SET_CTIME, &old, &root_cred,
			 &out));
}

START_TEST(truncate_to_the_same_size_leaves_the_times)
{
	static const uint64_t sizes[] = { 0, 5, 10000, 8192 };
	uint64_t ino;

	setup();
	ino = create("f");
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		ck_ok(truncate_to(ino, 0));
		if (sizes[i])
			ck_ok(fs_write(fs, ino, sizes[i] - 1, "x", 1, 0));
		age(ino);
		ck_ok(truncate_to(ino, sizes[i]));
		ck_assert_int_eq(attr_of(ino).mtime.sec, 77);
		ck_assert_int_eq(attr_of(ino).ctime.sec, 78);
		ck_ok(truncate_to(ino, sizes[i] + 1));
		ck_assert_int_ne(attr_of(ino).mtime.sec, 77);
		age(ino);
		ck_ok(truncate_to(ino, sizes[i]));
		ck_assert_int_ne(attr_of(ino).mtime.sec, 77);
		ck_assert_int_ne(attr_of(ino).ctime.sec, 78);
	}
	unmake();
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
	/* to one that it grows to: it stays */
	ck_ok(fs_fallocate(fs, ino, FALLOC_FL_KEEP_SIZE, 5 * MIB, MIB, NULL));
	ck_ok(truncate_to(ino, 5 * MIB + 1));
	ck_assert_uint_eq(attr_of(ino).blocks, 6 * MIB / 512);
	ck_ok(truncate_to(ino, 0));
	ck_assert_uint_eq(free_blocks(), before);
	ck_err(fs_fallocate(fs, ino, 0, 0, 100 * MIB, NULL), -ENOSPC);
	ck_assert_uint_eq(attr_of(ino).blocks, 0);
	unmake();
	free(zero);
	free(data);
}
END_TEST

/* What cannot fit is not begun: each block takes two. */
START_TEST(preallocation_of_two_copies_that_do_not_fit_changes_nothing)
{
	uint64_t ino;

	make(64 * MIB, 16384, 2);
	ino = create("f");
	ck_err(fs_fallocate(fs, ino, 0, 0, 40 * MIB, NULL), -ENOSPC);
	ck_assert_uint_eq(attr_of(ino).blocks, 0);
	ck_ok(fs_fallocate(fs, ino, 0, 0, 20 * MIB, NULL));
	unmake();
}
END_TEST

static void write_by_kernel(uint64_t ino, const uint8_t *data, size_t len,
			    unsigned flags, bool touches)
{
	struct attr old = { .mtime = { .sec = 5 } }, out;

	ck_ok(fs_setattr(fs, ino, FS_SET_MTIME, &old, &root_cred, &out));
	ck_ok(fs_write(fs, ino, 0, data, len, FS_WRITE_CACHED | flags));
	ck_assert_int_eq(attr_of(ino).mtime.sec != 5, touches);
}

/* What the kernel writes of what it kept changes no times, unless it is to. */
START_TEST(the_kernel_keeps_the_times_of_what_it_keeps)
{
	uint8_t *data = pattern(2 * BLOCK, 11);
	uint64_t ino;

	setup();
	ino = create("f");
	write_by_kernel(ino, data, 1, 0, false);
	write_by_kernel(ino, data, 1, FS_WRITE_TOUCH, true);
	write_by_kernel(ino, data, 2 * BLOCK, 0, false);
	write_by_kernel(ino, data, 2 * BLOCK, FS_WRITE_TOUCH, true);
	expect(ino, data, 2 * BLOCK);
	unmake();
	free(data);
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
	tcase_add_test(t, other_changes_clear_set_id_bits_too);
	tcase_add_test(t, truncate_keeps_the_head_and_zeroes_the_rest);
	tcase_add_test(t, truncate_to_the_same_size_leaves_the_times);
	tcase_add_test(t, truncate_lets_go_of_many_extents);
	tcase_add_test(t, seek_tells_data_from_holes);
	tcase_add_test(t, punched_and_zeroed_ranges_read_as_zeros);
	tcase_add_test(t, preallocation_takes_space_and_reads_as_zeros);
	tcase_add_test(t,
		preallocation_of_two_copies_that_do_not_fit_changes_nothing);
	tcase_add_test(t, the_kernel_keeps_the_times_of_what_it_keeps);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(file_suite());
}
