/*
 * test_btree.c - trees: items come and go, are committed, and shared
 */
#include "unit/btree_fixture.h"

/* ---- items ---- */

START_TEST(insert_splits_a_full_leaf)
{
	struct forest_stats st;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 4, 900);
	ck_assert_uint_eq(l.fs.root.level, 0);
	ck_ok(add(&l, 10, 900));
	ck_assert_uint_eq(l.fs.root.level, 1);
	ck_assert_uint_eq(l.fs.nodes, 3);
	forest_stats(l.forest, &st);
	ck_assert_uint_eq(st.splits, 1);
	check_range(&l, &l.fs, 0, 4, 900);
	lab_close(&l);
}
END_TEST

START_TEST(results_are_as_promised)
{
	struct key k = num(1);
	struct item it;
	struct lab l;
	void *data;
	uint32_t len;

	lab_open(&l, &small);
	ck_err(tree_get(&l.fs, &k, &it), -ENOENT);
	ck_err(tree_delete(&l.fs, &k), -ENOENT);
	ck_err(tree_edit(&l.fs, &k, &data, &len), -ENOENT);
	ck_err(tree_insert(&l.fs, &k, NULL, COWFS_ITEM_MAX(SIZE) + 1, NULL),
	       -EFBIG);
	ck_err(tree_put(&l.fs, &k, NULL, COWFS_ITEM_MAX(SIZE) + 1), -EFBIG);
	ck_assert_uint_eq(forest_changes(l.forest), 0);
	ck_ok(tree_insert(&l.fs, &k, "abc", 3, &data));
	ck_assert(!memcmp(data, "abc", 3));
	ck_err(tree_insert(&l.fs, &k, "abd", 3, NULL), -EEXIST);
	ck_assert_uint_eq(forest_changes(l.forest), 1);
	ck_ok(tree_put(&l.fs, &k, "long enough", 11));
	ck_ok(tree_edit(&l.fs, &k, &data, &len));
	ck_assert_uint_eq(len, 11);
	memcpy(data, "LONG", 4);
	ck_ok(tree_get(&l.fs, &k, &it));
	ck_assert(!memcmp(it.data, "LONG enough", 11));
	ck_ok(tree_put(&l.fs, &k, NULL, 0));
	ck_ok(tree_get(&l.fs, &k, &it));
	ck_assert_uint_eq(it.len, 0);
	l.fs.readonly = true;
	ck_err(tree_delete(&l.fs, &k), -EROFS);
	ck_err(tree_prepare(&l.fs, &k), -EROFS);
	l.fs.readonly = false;
	ck_ok(tree_delete(&l.fs, &k));
	ck_assert_uint_eq(l.fs.root.blk, 0);
	ck_assert_uint_eq(l.fs.nodes, 0);
	lab_close(&l);
}
END_TEST

/* Average fill of a tree's leaves, percent. */
static uint64_t fill_of(const struct lab *l, uint64_t items, uint32_t len)
{
	return items * (len + 21) * 100 /
	       (l->fs.nodes * COWFS_NODE_BODY(l->cfg.node_size));
}

START_TEST(items_in_a_row_fill_their_leaves)
{
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 5000, 50);
	ck_assert_uint_ge(fill_of(&l, 5000, 50), 90);
	lab_close(&l);

	/* and so in the middle of others */
	lab_open(&l, &small);
	add_range(&l, 0, 20, 50);
	add_range(&l, 9000, 9020, 50);
	add_range(&l, 100, 5100, 50);
	ck_assert_uint_ge(fill_of(&l, 5040, 50), 90);
	lab_close(&l);
}
END_TEST

/* As directories fill: each new inode comes last of all, its name somewhere
 * behind that of its directory. */
START_TEST(names_before_new_inodes_leave_full_leaves)
{
	uint64_t dir, i, ino = 0, hash;
	struct lab l;

	lab_open(&l, &small);
	for (dir = 0; dir < 200; dir++) {
		uint64_t parent = ino++;

		ck_ok(add(&l, parent, 60));
		for (i = 0; i < 10; i++, ino++) {
			struct key k;

			hash = (ino * UINT64_C(0x9e3779b97f4a7c15)) >> 20;
			k = KEY(parent, COWFS_KEY_DIRENT, hash);
			ck_ok(add(&l, ino, 60));
			ck_ok(tree_insert(&l.fs, &k, NULL, 20, NULL));
		}
	}
	ck_assert_uint_ge((200 * 11 * 81 + 2000 * 41) * 100 /
			  (l.fs.nodes * COWFS_NODE_BODY(SIZE)), 80);
	ck_ok(lab_commit(&l));
	check_range(&l, &l.fs, 0, ino, 60);
	lab_close(&l);
}
END_TEST

START_TEST(deleting_gives_nodes_back)
{
	struct alloc_info before, after;
	struct lab l;

	lab_open(&l, &twice);
	for (unsigned i = 0; i < 4; i++)
		ck_ok(lab_commit(&l));
	alloc_info(l.alloc, &before);
	add_range(&l, 0, 5000, 100);
	ck_assert_uint_ge(l.fs.root.level, 2);
	ck_ok(lab_commit(&l));
	for (uint64_t i = 0; i < 5000; i++) {
		if (i % 10)
			ck_ok(del(&l, i * 7 % 5000));
	}
	ck_assert_uint_le(l.fs.nodes, 60);
	for (uint64_t i = 0; i < 5000; i += 10)
		ck_ok(del(&l, i * 7 % 5000));
	ck_assert_uint_eq(l.fs.root.blk, 0);
	for (unsigned i = 0; i < 4; i++)
		ck_ok(lab_commit(&l));
	alloc_info(l.alloc, &after);
	ck_assert_uint_eq(after.free, before.free);
	lab_close(&l);
}
END_TEST

/* Whole leaves, in an order that comes to a neighbour after 113 others: it is
 * not in memory unless tree_prepare asks for it. */
START_TEST(deleting_with_a_cold_cache_leaves_no_empty_leaf)
{
	const uint64_t leaf = COWFS_NODE_BODY(SIZE) / (100 + ITEM_HEAD);
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 480 * leaf, 100);
	ck_assert_uint_ge(l.fs.nodes, 480);
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	for (uint64_t i = 0; i < 480; i++) {
		for (uint64_t k = 0; k < leaf; k++)
			ck_ok(del(&l, i * 17 % 480 * leaf + k));
		if (i % 8 == 0)
			ck_ok(lab_commit(&l)); /* evicts */
	}
	ck_assert_uint_eq(l.fs.root.blk, 0);
	ck_assert_uint_eq(l.fs.nodes, 0);
	lab_close(&l);
}
END_TEST

START_TEST(a_change_after_sealing_is_sealed_again)
{
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 3000, 100);
	tree_seal(&l.fs);
	for (uint64_t i = 0; i < 3000; i += 500)
		ck_ok(del(&l, i));
	ck_ok(add(&l, 4000, 100));
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	check_range(&l, &l.fs, 1, 500, 100);
	check_range(&l, &l.fs, 2501, 3000, 100);
	check_has(&l, &l.fs, 4000, 100);
	lab_close(&l);
}
END_TEST

START_TEST(an_item_below_all_others_is_found_after_a_reopen)
{
	struct lab l;

	lab_open(&l, &small);
	for (uint64_t i = 4000; i > 0; i--)
		ck_ok(add(&l, i, 100));
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	check_range(&l, &l.fs, 1, 4001, 100);
	lab_close(&l);
}
END_TEST

START_TEST(nothing_changes_before_eagain)
{
	struct key k = num(777);
	uint64_t changes;
	struct lab l;
	int again = 0;
	int err;

	lab_open(&l, &small);
	add_range(&l, 0, 3000, 100);
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	changes = forest_changes(l.forest);
	while ((err = tree_delete(&l.fs, &k)) == -EAGAIN) {
		again++;
		ck_assert_uint_eq(forest_changes(l.forest), changes);
		ck_assert_uint_eq(l.fs.root.blk, l.fs_root.blk);
		ck_ok(forest_load(l.forest));
	}
	ck_ok(err);
	ck_assert_int_eq(again, 3); /* one for each level */
	lab_close(&l);
}
END_TEST

/* Every key of the range, there or not, and the items on both sides. Many leaves
 * have lost the items that their parents' keys were made of. */
static void change_around(struct lab *l, uint64_t lo, uint64_t hi)
{
	struct key from = KEY(lo, 0, 0), to = KEY(hi, UINT8_MAX, 0), k;
	uint64_t first = lo ? lo - 1 : 0, last = hi + 1;
	int err;

	while (first && first % 7 == 3)
		first--;
	while (last % 7 == 3)
		last++;
	ck_ok(LAB_RETRY(l, tree_prepare_range(&l->fs, &from, &to)));
	for (uint64_t i = first; i <= last; i++) {
		if (i > first && i < lo)
			continue;
		k = num(i);
		err = tree_put(&l->fs, &k, NULL, 100);
		ck_assert_msg(!err, "%d: put %lu of %lu to %lu", err,
			      (unsigned long)i, (unsigned long)lo,
			      (unsigned long)hi);
	}
}

START_TEST(a_prepared_range_is_changed_without_reading)
{
	static const uint64_t lens[] = { 0, 1, 40, 400 };
	const uint64_t count = 3000;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, count, 100);
	for (uint64_t i = 3; i < count; i += 7)
		ck_ok(del(&l, i));
	ck_ok(lab_commit(&l));
	for (uint64_t i = 0; i < count; i++) {
		uint64_t lo = i * 7919 % count;

		lab_reopen(&l);
		change_around(&l, lo, lo + lens[i % 4]);
	}
	lab_close(&l);
}
END_TEST

static void read_all(struct lab *l, uint8_t *to)
{
	ck_ok(bdev_read(l->mem, 0, to, l->cfg.blocks * COWFS_BLOCK_SIZE));
}

START_TEST(what_is_committed_is_never_overwritten)
{
	size_t bytes = small.blocks * COWFS_BLOCK_SIZE;
	uint8_t *before = malloc(bytes);
	uint8_t *after = malloc(bytes);
	uint16_t *used = calloc(small.blocks, sizeof(*used));
	struct lab l;

	ck_assert(before && after && used);
	lab_open(&l, &small);
	add_range(&l, 0, 2000, 100);
	ck_ok(lab_commit(&l));
	lab_count(&l, &l.fs_root, COWFS_ROOT_FS, used);
	lab_count(&l, &l.space_root, COWFS_ROOT_SPACE, used);
	read_all(&l, before);
	for (uint64_t i = 0; i < 2000; i += 2)
		ck_ok(del(&l, i));
	add_range(&l, 5000, 6000, 200);
	ck_ok(lab_commit(&l));
	read_all(&l, after);
	for (uint64_t b = 0; b < small.blocks; b++) {
		if (used[b])
			ck_assert(!memcmp(before + b * 4096, after + b * 4096,
					  4096));
	}
	lab_close(&l);
	free(before);
	free(after);
	free(used);
}
END_TEST

START_TEST(a_full_device_leaves_a_sound_tree)
{
	struct lab_config cfg = { .node_size = SIZE, .copies = 2,
				  .blocks = COWFS_MIN_BLOCKS };
	struct lab l;
	uint64_t n = 0;
	int err;

	lab_open(&l, &cfg);
	while (!(err = add(&l, n * 2654435761u % 1000003, 400)))
		n++;
	ck_err(err, -ENOSPC);
	ck_assert_uint_gt(n, 2000);
	for (uint64_t i = 0; i < n; i++)
		check_has(&l, &l.fs, i * 2654435761u % 1000003, 400);
	for (uint64_t i = 0; i < n; i++)
		ck_ok(del(&l, i * 2654435761u % 1000003));
	ck_assert_uint_eq(l.fs.root.blk, 0);
	lab_close(&l);
}
END_TEST

/* ---- sharing ---- */

static void snapshot(struct lab *l, struct tree *out)
{
	tree_seal(&l->fs);
	*out = l->fs;
	out->readonly = true;
	l->fs.shared_gen = forest_gen(l->forest);
	ck_ok(alloc_ref(l->alloc, out->root.blk, l->cfg.node_size / 4096, 1,
			0));
	ck_ok(lab_commit(l));
}

START_TEST(a_snapshot_keeps_its_items)
{
	struct tree snap;
	struct lab l;

	lab_open(&l, &twice);
	add_range(&l, 0, 3000, 100);
	snapshot(&l, &snap);
	for (uint64_t i = 0; i < 3000; i++)
		ck_ok(del(&l, i));
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	snap.forest = l.forest;
	check_range(&l, &snap, 0, 3000, 100);
	lab_check(&l, &snap.root, 1);
	lab_close(&l);
}
END_TEST

#define GROUP 32u

/* Of three groups one goes, and one but for an item. */
static bool goes(uint64_t i)
{
	return i / GROUP % 3 == 0 || (i / GROUP % 3 == 1 && i % GROUP != 7);
}

/* Low nodes are joined with neighbours that a snapshot has, too, or get some of
 * their items; with items of a quarter of a leaf they get empty first. */
START_TEST(low_nodes_have_neighbours_that_are_shared)
{
	uint32_t len = _i ? 900 : 100;
	uint64_t n = _i ? 600 : 3000;
	struct tree snap;
	struct item it;
	struct lab l;

	lab_open(&l, &twice);
	add_range(&l, 0, n, len);
	snapshot(&l, &snap);
	for (uint64_t i = n; i-- > 0;) {
		if (goes(i))
			ck_ok(del(&l, i));
		if (i % 500 == 0)
			ck_ok(lab_commit(&l));
	}
	lab_check(&l, &snap.root, 1);
	lab_reopen(&l);
	snap.forest = l.forest;
	check_range(&l, &snap, 0, n, len);
	for (uint64_t i = 0; i < n; i++) {
		if (goes(i))
			ck_err(look(&l, &l.fs, i, &it), -ENOENT);
		else
			check_has(&l, &l.fs, i, len);
	}
	for (uint64_t i = 0; i < n; i++)
		if (goes(i))
			ck_ok(add(&l, i, len));
	for (uint64_t i = 0; i < n; i++)
		ck_ok(del(&l, i));
	ck_assert_uint_eq(l.fs.nodes, 0);
	ck_ok(lab_commit(&l));
	check_range(&l, &snap, 0, n, len);
	lab_check(&l, &snap.root, 1);
	lab_close(&l);
}
END_TEST

static void put_extent(struct lab *l, uint64_t i, uint64_t blk, uint32_t len)
{
	struct cowfs_disk_extent e = { .blk = to_le64(blk),
				       .len = to_le32(len) };
	struct key k = KEY(i, COWFS_KEY_EXTENT, 0);

	ck_ok(tree_put(&l->fs, &k, &e, sizeof(e)));
}

START_TEST(copying_a_bad_leaf_leaves_all_counts_as_they_were)
{
	struct key k = KEY(2, COWFS_KEY_EXTENT, 0);
	uint64_t blk, got;
	uint32_t extra;
	struct tree snap;
	struct lab l;

	lab_open(&l, &small);
	ck_ok(alloc_take(l.alloc, AREA_DATA, 0, 8, &blk, &got));
	alloc_own(l.alloc, blk, got);
	put_extent(&l, 1, blk, 2);
	put_extent(&l, 2, blk + 2, 2);
	put_extent(&l, 3, l.cfg.blocks - 1, 2); /* beyond the end */
	put_extent(&l, 4, blk + 4, 2);
	snapshot(&l, &snap);
	test_log_hide();
	ck_err(tree_delete(&l.fs, &k), -ECOW_CORRUPT);
	test_log_show();
	for (uint64_t b = blk; b < blk + got; b++) {
		ck_ok(alloc_extra(l.alloc, &l.store, b, &extra, NULL));
		ck_assert_uint_eq(extra, 0);
	}
	ck_ok(alloc_extra(l.alloc, &l.store, snap.root.blk, &extra, NULL));
	ck_assert_uint_eq(extra, 1);
	ck_assert_uint_eq(l.fs.root.blk, snap.root.blk);
	lab_close(&l);
}
END_TEST

static int count_diff(void *arg, const struct key *k, const struct item *a,
		      const struct item *b)
{
	(void)k;
	ck_assert(a != NULL || b != NULL);
	(*(unsigned *)arg)++;
	return 0;
}

START_TEST(diff_does_not_read_what_is_shared)
{
	struct key from = KEY_MIN;
	unsigned n = 0;
	struct tree snap;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 20000, 100);
	snapshot(&l, &snap);
	ck_ok(del(&l, 10000));
	ck_ok(add(&l, 40000, 100));
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	snap.forest = l.forest;
	l.loads = 0;
	ck_ok(LAB_RETRY(&l, tree_diff(&snap, &l.fs, &from, count_diff, &n)));
	ck_assert_uint_eq(n, 2);
	ck_assert_uint_le(l.loads, 16); /* two ways down in each tree */
	lab_close(&l);
}
END_TEST

static void add_items(TCase *tc)
{
	tcase_add_test(tc, insert_splits_a_full_leaf);
	tcase_add_test(tc, results_are_as_promised);
	tcase_add_test(tc, items_in_a_row_fill_their_leaves);
	tcase_add_test(tc, names_before_new_inodes_leave_full_leaves);
	tcase_add_test(tc, deleting_gives_nodes_back);
	tcase_add_test(tc, deleting_with_a_cold_cache_leaves_no_empty_leaf);
	tcase_add_test(tc, a_change_after_sealing_is_sealed_again);
	tcase_add_test(tc, an_item_below_all_others_is_found_after_a_reopen);
	tcase_add_test(tc, nothing_changes_before_eagain);
	tcase_add_test(tc, a_prepared_range_is_changed_without_reading);
	tcase_add_test(tc, what_is_committed_is_never_overwritten);
	tcase_add_test(tc, a_full_device_leaves_a_sound_tree);
}

static void add_sharing(TCase *tc)
{
	tcase_add_test(tc, a_snapshot_keeps_its_items);
	tcase_add_loop_test(tc, low_nodes_have_neighbours_that_are_shared, 0,
			    2);
	tcase_add_test(tc, copying_a_bad_leaf_leaves_all_counts_as_they_were);
	tcase_add_test(tc, diff_does_not_read_what_is_shared);
}

int main(void)
{
	Suite *s = suite_create("btree");

	test_case(s, "items", 0, NULL, NULL, add_items);
	test_case(s, "sharing", 0, NULL, NULL, add_sharing);
	return test_main(s);
}
