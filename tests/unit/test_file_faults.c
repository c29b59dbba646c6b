/*
 * test_file_faults.c - contents of files: rot, lack of space, many at once
 */
#include <pthread.h>
#include <stdatomic.h>

#include "unit/file_fixture.h"

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
	expect(ino, data, 20 * BLOCK);
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

/* Also where first copies lie together and second ones do not, and where only a
 * part of a block is wanted. */
START_TEST(second_copies_are_found_block_by_block)
{
	uint8_t *data = pattern(8 * BLOCK, 24), part[100];
	uint64_t a, b, blk;
	size_t got;

	make(64 * MIB, 16384, 2);
	a = create("a");
	ck_ok(fs_write(fs, a, 0, data, 4 * BLOCK, 0));
	/* another's second copies follow */
	ck_ok(alloc_take(store->alloc, AREA_DATA2, 0, 4, &b, &blk));
	ck_ok(fs_write(fs, a, 4 * BLOCK, data + 4 * BLOCK, 4 * BLOCK, 0));
	alloc_give_back(store->alloc, b, blk);
	blk = blk_at(a, 0);
	ck_assert_uint_eq(blk_at(a, 4 * BLOCK), blk + 4);
	flip_bit(mem, (blk + 5) * BLOCK + 99, 3);
	test_log_hide();
	expect(a, data, 8 * BLOCK);
	flip_bit(mem, (blk + 2) * BLOCK + 99, 3);
	ck_ok(fs_read(fs, fs_live(fs), a, 2 * BLOCK + 77, part, sizeof(part),
		      &got));
	test_log_show();
	ck_assert_mem_eq(part, data + 2 * BLOCK + 77, sizeof(part));
	ck_assert_uint_eq(store->io.stats.repaired, 2);
	unmake();
	free(data);
}
END_TEST

/* Whoever asks is told of what write(2) had left in the kernel's cache. */
START_TEST(what_could_not_be_stored_is_told_once)
{
	uint8_t *data = pattern(4 * BLOCK, 25);
	uint64_t ino;

	setup();
	ino = create("f");
	ck_ok(fs_ref(fs, ino));
	ck_ok(fs_open(fs, ino, true, false));
	fault_nth(dev, FAULT_WRITE, 1, -EIO);
	ck_err(fs_write(fs, ino, 0, data, 4 * BLOCK, 0), -EIO);
	ck_ok(fs_take_lost(fs));
	fault_nth(dev, FAULT_WRITE, 1, -EIO);
	ck_err(fs_write(fs, ino, 0, data, 4 * BLOCK, FS_WRITE_CACHED), -EIO);
	fault_clear(dev);
	ck_err(fs_take_lost(fs), -EIO);
	ck_ok(fs_take_lost(fs));
	fs_release(fs, ino, true, NULL);
	fs_unref(fs, ino, 1);
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

/* Cutting off what a snapshot holds gives no room for the copy of a block that
 * the new end needs; and what is kept of that block may be damaged. */
START_TEST(a_failed_truncate_changes_nothing)
{
	uint8_t *data = pattern(5 * BLOCK, 28), *more = pattern(MIB, 29);
	uint64_t ino[200], big, n = 0;
	char name[8];
	int err = 0;

	make(24 * MIB, 16384, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(ino); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ino[i] = create(name);
		ck_ok(fs_write(fs, ino[i], 0, data, 5 * BLOCK, 0));
	}
	fault_nth(dev, FAULT_READ, 1, -EIO);
	ck_err(truncate_to(ino[0], BLOCK + 100), -EIO);
	fault_clear(dev);
	expect(ino[0], data, 5 * BLOCK);
	ck_ok(snap_create(store, "s", NULL));
	big = create("big");
	for (size_t piece = MIB; piece >= BLOCK; piece /= 2)
		while (!(err = fs_write(fs, big, n, more, piece, 0)))
			n += piece;
	ck_err(err, -ENOSPC);
	for (unsigned i = 0; i < ARRAY_SIZE(ino); i++) {
		err = truncate_to(ino[i], BLOCK + 100);
		expect(ino[i], data, err ? 5 * BLOCK : BLOCK + 100);
	}
	ck_err(err, -ENOSPC);
	unmake();
	free(data);
	free(more);
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

/* Whoever keeps what he was told of the tree must know of its end. */
START_TEST(a_restore_says_whether_the_tree_was_replaced)
{
	uint64_t ino;
	bool replaced = true;

	setup();
	ino = create("f");
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_write(fs, ino, 0, "abc", 3, 0));
	ck_err(fs_restore(fs, "none", NULL, &replaced), -ENOENT);
	ck_assert(!replaced);
	ck_assert_uint_eq(attr_of(ino).size, 3);
	ck_ok(fs_restore(fs, "s", "t", &replaced));
	ck_assert(replaced);
	ck_assert_uint_eq(attr_of(ino).size, 0);
	fault_from(dev, FAULT_WRITE, 1, -EIO);
	replaced = false;
	test_log_hide();
	ck_err(fs_restore(fs, "t", NULL, &replaced), -EIO);
	test_log_show();
	ck_assert(replaced);
	ck_assert_uint_eq(attr_of(ino).size, 3);
	fs_umount(fs);
	ck_err(store_close(store), -EIO);
	bdev_close(dev);
	bdev_close(mem);
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
			ck_ok(fs_restore(fs, "s", NULL, NULL));
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

static Suite *file_faults_suite(void)
{
	Suite *s = suite_create("file faults");
	TCase *t = tcase_create("file faults");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_bad_block_is_never_returned);
	tcase_add_test(t, the_second_copy_mends_the_first);
	tcase_add_test(t, second_copies_are_found_block_by_block);
	tcase_add_test(t, what_could_not_be_stored_is_told_once);
	tcase_add_test(t, a_failed_write_changes_nothing);
	tcase_add_test(t, a_restore_says_whether_the_tree_was_replaced);
	tcase_add_loop_test(t, a_full_disk_loses_nothing_and_empties_again, 0,
			    3);
	tcase_add_test(t, a_failed_truncate_changes_nothing);
	tcase_add_loop_test(t, space_of_a_file_just_deleted_can_be_used, 0, 2);
	tcase_add_test(t, overwriting_works_as_long_as_one_piece_fits);
	tcase_add_test(t, readers_see_whole_blocks_beside_writers);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(file_faults_suite());
}
