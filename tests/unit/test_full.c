/*
 * test_full.c - deleting where no room is left
 */
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

/* Holes in what a snapshot has, too, take space. */
static void punch_until_full(uint64_t ino)
{
	int err = 0;

	for (uint64_t i = 0; !err && i < BLOCKS; i += 20)
		err = fs_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE |
				   FALLOC_FL_KEEP_SIZE, i * 8192, 4096,
				   &root_cred);
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

static void add_tests(TCase *tc)
{
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
