/*
 * test_full.c - deleting where no room is left
 */
#include <inttypes.h>
#include <linux/falloc.h>

#include "unit/fs_fixture.h"

#define BLOCKS 52000u

static uint8_t mib[MIB];

/* All blocks of `from`, in an order that is none, each an extent of its own. */
static void scatter(uint64_t from, uint64_t to, unsigned step)
{
	uint64_t copied;

	for (uint64_t i = 0; i < BLOCKS; i += step)
		ck_ok(fs_copy_range(fs, fs_live(fs), from,
				    i * 7919 % BLOCKS * 4096, to, i * 8192,
				    4096, &copied));
}

static void fill_up(uint64_t ino)
{
	uint64_t off = 0;
	int err;

	for (size_t len = MIB; len >= 4096; len /= 2) {
		while (!(err = fs_write(fs, ino, off, mib, len, 0)))
			off += len;
		ck_err(err, -ENOSPC);
	}
}

static int punch(uint64_t ino, uint64_t off)
{
	return fs_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE |
			    FALLOC_FL_KEEP_SIZE, off, 4096, &root_cred);
}

/* Holes in what a snapshot has, too, take space. */
static void punch_until_full(uint64_t ino)
{
	int err = 0;

	for (uint64_t i = 0; !err && i < BLOCKS; i += 20)
		err = punch(ino, i * 8192);
	ck_err(err, -ENOSPC);
}

/*
 * One snapshot holds references to blocks all over the disk, each with another
 * count than its neighbours: letting go of it changes every leaf of the reference
 * tree, of which there are more than can be copied at once.
 */
START_TEST(a_snapshot_of_many_shared_blocks_goes_on_a_full_disk)
{
	struct alloc_info info;
	uint64_t a, b, c, d;
	uint64_t before;

	ck_ok(bdev_open_mem(256 * MIB, &dev));
	make_on(4096, 2);
	a = make_file(ROOT, "a");
	b = make_file(ROOT, "b");
	c = make_file(ROOT, "c");
	d = make_file(ROOT, "d");
	for (uint64_t i = 0; i < BLOCKS; i += 256)
		ck_ok(fs_write(fs, a, i * 4096, mib,
			       min_u64(256, BLOCKS - i) * 4096, 0));
	scatter(a, b, 1);
	scatter(a, c, 2);
	scatter(a, d, 1);
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(unlink_it(ROOT, "d"));
	ck_ok(store_drain(store));
	fill_up(make_file(ROOT, "filler"));
	punch_until_full(b);
	alloc_info(store->alloc, &info);
	before = info.free;
	ck_ok(snap_delete(store, "s"));
	ck_ok(store_drain(store));
	ck_ok(store_commit(store, NULL, NULL));
	alloc_info(store->alloc, &info);
	ck_assert_uint_gt(info.free, before + 1000);
}
END_TEST

/*
 * Removing what a snapshot has copies every node on the way, and frees none: on a
 * full disk that comes out of the reserve, which has to do for some thousand
 * files of a small image, whatever their order.
 */
START_TEST(files_that_a_snapshot_has_can_be_removed_on_a_full_disk)
{
	const unsigned files = 6000;
	char name[16];

	ck_ok(bdev_open_mem(128 * MIB, &dev));
	make_on(16384, 2);
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_ok(fs_write(fs, make_file(ROOT, name), 0, mib, 5000, 0));
	}
	ck_ok(snap_create(store, "s", NULL));
	fill_up(make_file(ROOT, "filler"));
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "f%u", i * 3571 % files);
		ck_ok(unlink_it(ROOT, name));
	}
	ck_ok(snap_delete(store, "s"));
	ck_ok(store_drain(store));
	ck_ok(store_commit(store, NULL, NULL));
}
END_TEST

static int set_size(uint64_t ino, uint64_t size)
{
	struct attr set = { .size = size }, a;

	return fs_setattr(fs, ino, FS_SET_SIZE | FS_SET_MTIME | FS_SET_CTIME,
			  &set, &root_cred, &a);
}

/*
 * The kernel keeps the sizes of files itself: where it was told that a file could
 * not be made shorter it goes on with the old one. So must we, however much was
 * cut off before there was no room to go on.
 */
START_TEST(a_file_that_cannot_be_cut_off_keeps_its_size)
{
	const uint64_t pieces = 600, size = pieces * 8192;
	uint64_t ino[60], blk, got, copied, i;
	unsigned partly = 0;
	char name[8];

	ck_ok(bdev_open_mem(64 * MIB, &dev));
	make_on(4096, 2);
	ino[0] = make_file(ROOT, "0");
	for (i = 0; i < pieces; i++)
		ck_ok(fs_write(fs, ino[0], i * 8192 + 4096, mib, 4096, 0));
	for (i = 1; i < ARRAY_SIZE(ino); i++) {
		snprintf(name, sizeof(name), "%" PRIu64, i);
		ino[i] = make_file(ROOT, name);
		ck_ok(fs_copy_range(fs, fs_live(fs), ino[0], 0, ino[i], 0,
				    size, &copied));
	}
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(alloc_take(store->alloc, AREA_DATA, 0, 256, &blk, &got));
	fill_up(make_file(ROOT, "filler"));
	for (i = 0; i < pieces * 50; i += 50)
		if (punch(ino[i / pieces], i % pieces * 8192 + 4096))
			break;
	/* block by block there is more room, until there is enough */
	for (i = 0; i < got; i++) {
		struct attr a = attr_of(ino[59]), b;
		int err = set_size(ino[59], 0);

		b = attr_of(ino[59]);
		if (!err)
			break;
		ck_err(err, -ENOSPC);
		ck_assert_uint_eq(b.size, a.size);
		partly += b.blocks < a.blocks;
		alloc_give_back(store->alloc, blk + i, 1);
	}
	ck_assert_uint_gt(partly, 0);
	ck_assert_uint_lt(i, got);
	alloc_give_back(store->alloc, blk + i, got - i);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, a_file_that_cannot_be_cut_off_keeps_its_size);
	tcase_add_test(tc,
		       files_that_a_snapshot_has_can_be_removed_on_a_full_disk);
	tcase_add_test(tc,
		       a_snapshot_of_many_shared_blocks_goes_on_a_full_disk);
}

static void nothing(void)
{
}

int main(void)
{
	Suite *s = suite_create("full");

	add_case(s, "delete", nothing, add_tests);
	return test_main(s);
}
