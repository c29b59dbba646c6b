/*
 * test_blockmap.c - the map of blocks, against an array; what images that lie
 * make it cost
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/private.h"
#include "check/repair.h"
#include "cowfs/cowfs.h"
#include "support/image.h"

#define BLOCKS (3 * COWFS_CHUNK_BLOCKS + 100)

struct model {
	uint32_t count[BLOCKS];
	uint16_t mark[BLOCKS];
};

static void compare(const struct blockmap *m, const struct model *want)
{
	for (uint64_t b = 0; b < BLOCKS; b++) {
		const struct blockmap_chunk *c =
			blockmap_chunk(m, b / COWFS_CHUNK_BLOCKS);
		unsigned i = (unsigned)(b % COWFS_CHUNK_BLOCKS);

		ck_assert_msg((c ? c->mark[i] : 0) == want->mark[b] &&
			      (c ? c->count[i] : 0) == want->count[b],
			      "block %" PRIu64, b);
	}
}

/* Two cells at a time, as check has them. */
static void change(struct blockmap *m, struct model *want, struct rng *r,
		   uint64_t b)
{
	uint64_t other = rng_below(r, BLOCKS), print = rng_below(r, 3);
	struct cell cell, twin;

	ck_ok(blockmap_cell(m, b, &cell));
	ck_assert_uint_eq(cell.mark, want->mark[b]);
	ck_assert_uint_eq(cell.count, want->count[b]);
	ck_ok(blockmap_cell(m, other, &twin));
	if (other != b && rng_one_in(r, 4)) {
		cell_set(&twin, MARK_COPY, 0);
		want->mark[other] = MARK_COPY;
		want->count[other] = 1;
	}
	if (cell_kind(&cell) != MARK_FREE && rng_one_in(r, 2)) {
		cell_add(&cell);
		want->count[b]++;
	} else {
		cell_set(&cell, MARK_DATA, print);
		want->mark[b] = (uint16_t)(print << MARK_BITS | MARK_DATA);
		want->count[b] = 1;
	}
}

START_TEST(map_is_like_an_array)
{
	struct model *want;
	struct blockmap m;
	struct rng r;
	unsigned rounds = test_rounds(8);

	rng_init(&r, test_seed(), 91);
	for (unsigned i = 0; i < rounds; i++) {
		want = calloc(1, sizeof(*want));
		ck_ok(blockmap_init(&m, BLOCKS));
		/* few ones stay runs, many become dense */
		for (unsigned n = i % 2 ? 20000 : 700; n; n--) {
			uint64_t b = rng_below(&r, BLOCKS);
			unsigned len = rng_one_in(&r, 9) ? 60 : 1;

			for (; len-- && b < BLOCKS; b++)
				change(&m, want, &r, b);
		}
		compare(&m, want);
		blockmap_fini(&m);
		free(want);
	}
}
END_TEST

START_TEST(chunks_come_in_order)
{
	static const uint64_t at[] = { 77, 3, UINT64_C(1) << 35, 12, 0, 500 };
	static const uint64_t sorted[] = { 0, 3, 12, 77, 500,
					   UINT64_C(1) << 35 };
	uint64_t n = 0;
	struct blockmap m;
	struct cell cell;

	ck_ok(blockmap_init(&m, COWFS_MAX_BLOCKS));
	ck_assert_uint_eq(blockmap_next(&m, 0), m.chunks);
	for (unsigned i = 0; i < 6; i++)
		ck_ok(blockmap_cell(&m, at[i] * COWFS_CHUNK_BLOCKS, &cell));
	for (unsigned i = 0; i < 6; i++, n++) {
		n = blockmap_next(&m, n);
		ck_assert_uint_eq(n, sorted[i]);
	}
	ck_assert_uint_eq(blockmap_next(&m, n), m.chunks);
	blockmap_fini(&m);
}
END_TEST

START_TEST(scattered_blocks_cost_little_each)
{
	const uint64_t n = 300000;
	struct blockmap m;
	struct cell cell;
	struct rng r;

	rng_init(&r, test_seed(), 92);
	ck_ok(blockmap_init(&m, COWFS_MAX_BLOCKS));
	for (uint64_t i = 0; i < n; i++) {
		ck_ok(blockmap_cell(&m, rng_below(&r, COWFS_MAX_BLOCKS),
				    &cell));
		cell_set(&cell, MARK_DATA, i);
	}
	ck_assert_uint_lt(blockmap_bytes(&m), n * 200);
	blockmap_fini(&m);
}
END_TEST

START_TEST(used_blocks_in_a_row_cost_six_bytes_each)
{
	const uint64_t n = 1 << 20;
	struct blockmap m;
	struct cell cell;

	ck_ok(blockmap_init(&m, COWFS_MAX_BLOCKS));
	for (uint64_t i = 0; i < n; i++) {
		ck_ok(blockmap_cell(&m, i, &cell));
		cell_set(&cell, MARK_DATA, i);
	}
	ck_assert_uint_lt(blockmap_bytes(&m), n * 7);
	blockmap_fini(&m);
}
END_TEST

START_TEST(too_much_is_refused)
{
	struct blockmap m;
	struct cell cell;
	uint64_t i;
	int err = 0;

	test_log_hide();
	ck_ok(blockmap_init(&m, COWFS_MAX_BLOCKS));
	blockmap_limit(&m, 1 << 20);
	for (i = 0; !err && i < 100000; i++)
		err = blockmap_cell(&m, i * 9999, &cell);
	ck_err(err, -ENOMEM);
	ck_assert_uint_gt(i, 1000);
	ck_assert_uint_le(blockmap_bytes(&m), 1 << 20);
	ck_assert_uint_eq(test_log_count(), 1);
	blockmap_fini(&m);
	test_log_show();
}
END_TEST

/* ---- whole images ---- */

#define SCATTER 1500u

/* 2^48 blocks, and a file whose blocks lie all over them. */
static void setup_huge(void)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };
	uint64_t ino;

	test_log_hide();
	ck_ok(bdev_open_mem(COWFS_MAX_BLOCKS * 4096, &dev));
	ck_ok(cowfs_mkfs(dev, &opt));
	mount_it();
	ino = make_node(1, "scattered", S_IFREG | 0644, NULL);
	for (uint64_t i = 0; i < SCATTER; i++) {
		struct cowfs_disk_extent d = {
			.blk = to_le64(hash_u64(i) % (COWFS_MAX_BLOCKS - 99) +
				       40),
			.gen = to_le64(1), .len = to_le32(50),
			.disk_len = to_le32(50),
			.kind = COWFS_EXTENT_PREALLOC,
		};

		put(COWFS_ROOT_FS, KEY(ino, COWFS_KEY_EXTENT, i * 64), &d,
		    sizeof(d));
	}
	unmount_it();
}

START_TEST(scattered_image_is_checked_and_repaired)
{
	struct check_options opt = { .semantics = true, .found = note };
	struct repair_options ro = { .all = true };
	struct repair_result res;

	ck_ok(check_options(&opt));
	ck_assert_uint_gt(seen.n[P_SPACE_USED], SCATTER / 2);
	ck_ok(repair_run(dev, &ro, &res));
	ck_assert(res.committed);
	ck_ok(check_options(&opt));
	ck_assert_msg(seen.total == 0, "%u problems, the last: %s", seen.total,
		      seen.last);
	ck_assert_uint_gt(result.prealloc_blocks, SCATTER * 40);
}
END_TEST

START_TEST(scattered_image_is_refused_if_memory_is_short)
{
	struct check_options opt = { .semantics = true, .found = note,
				     .map_bytes = 100000 };

	ck_err(check_options(&opt), -ENOMEM);
	opt.map_bytes = SCATTER * 1000;
	ck_ok(check_options(&opt));
}
END_TEST

/* A reference record of all blocks there are. */
START_TEST(long_interval_is_one_problem)
{
	struct check_options opt = { .semantics = true, .found = note };
	struct cowfs_disk_ref d = { .extra = to_le32(3) };
	struct key k = KEY(40, COWFS_KEY_REF, COWFS_MAX_BLOCKS - 50);
	struct op op;
	int err;

	mount_it();
	ck_ok(op_write(&op, store, ALLOC_NORMAL, 4));
	do {
		err = tree_prepare(&store->refs, &k);
		if (!err)
			err = tree_put(&store->refs, &k, &d, sizeof(d));
	} while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
	unmount_it();
	ck_ok(check_options(&opt));
	ck_assert_uint_gt(seen.n[P_REF_WRONG], 0);
	ck_assert_uint_lt(seen.n[P_REF_WRONG], 20 * SCATTER);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("blockmap");
	TCase *tc = tcase_create("map");

	tcase_add_test(tc, map_is_like_an_array);
	tcase_add_test(tc, chunks_come_in_order);
	tcase_add_test(tc, scattered_blocks_cost_little_each);
	tcase_add_test(tc, used_blocks_in_a_row_cost_six_bytes_each);
	tcase_add_test(tc, too_much_is_refused);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	tc = tcase_create("huge image");
	tcase_add_checked_fixture(tc, setup_huge, teardown);
	tcase_add_test(tc, scattered_image_is_checked_and_repaired);
	tcase_add_test(tc, scattered_image_is_refused_if_memory_is_short);
	tcase_add_test(tc, long_interval_is_one_problem);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	return test_main(s);
}
