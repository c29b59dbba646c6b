/*
 * test_btree.c - trees, their cache, their commits
 */
#include <string.h>

#include "btree/node.h"
#include "support/lab.h"
#include "support/test.h"
#include "support/testdev.h"

#define SIZE 4096u

static const struct lab_config small = {
	.node_size = SIZE, .copies = 1, .blocks = 8192,
};
static const struct lab_config twice = {
	.node_size = SIZE, .copies = 2, .blocks = 8192,
};

/* ---- trees ---- */

static struct key num(uint64_t i)
{
	return KEY(i, COWFS_KEY_INODE, 0);
}

static int add(struct lab *l, uint64_t i, uint32_t len)
{
	struct key k = num(i);
	void *out;
	int err;

	err = LAB_RETRY(l, tree_prepare(&l->fs, &k));
	if (!err)
		err = tree_insert(&l->fs, &k, NULL, len, &out);
	if (!err && len >= 8)
		memcpy(out, &i, 8);
	return err;
}

static int del(struct lab *l, uint64_t i)
{
	struct key k = num(i);
	int err = LAB_RETRY(l, tree_prepare(&l->fs, &k));

	return err ? err : tree_delete(&l->fs, &k);
}

static int look(struct lab *l, struct tree *t, uint64_t i, struct item *it)
{
	struct key k = num(i);

	return LAB_RETRY(l, tree_get(t, &k, it));
}

static void check_has(struct lab *l, struct tree *t, uint64_t i, uint32_t len)
{
	struct item it;

	ck_ok(look(l, t, i, &it));
	ck_assert_uint_eq(it.len, len);
	ck_assert(!memcmp(it.data, &i, 8));
}

static void add_range(struct lab *l, uint64_t from, uint64_t to, uint32_t len)
{
	for (; from < to; from++)
		ck_ok(add(l, from, len));
}

static void check_range(struct lab *l, struct tree *t, uint64_t from,
			uint64_t to, uint32_t len)
{
	for (; from < to; from++)
		check_has(l, t, from, len);
}

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

/* ---- errors of the device ---- */

START_TEST(a_bad_copy_is_replaced_by_the_other)
{
	struct item it;
	struct lab l;

	lab_open(&l, &twice);
	add_range(&l, 0, 3000, 100);
	ck_ok(lab_commit(&l));
	lab_reopen(&l);
	flip_bit(l.mem, l.fs_root.blk * COWFS_BLOCK_SIZE + 100, 3);
	test_log_hide();
	check_range(&l, &l.fs, 0, 3000, 100);
	ck_assert_uint_eq(l.io.stats.repaired, 1);

	lab_reopen(&l);
	flip_bit(l.mem, l.fs_root.blk * COWFS_BLOCK_SIZE + 100, 3);
	flip_bit(l.mem, l.fs_root.blk2 * COWFS_BLOCK_SIZE + 100, 3);
	ck_err(look(&l, &l.fs, 5, &it), -ECOW_CSUM);
	test_log_show();
	lab_close(&l);
}
END_TEST

START_TEST(a_read_error_passes_and_leaves_no_trace)
{
	struct item it;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 3000, 100);
	ck_ok(lab_commit(&l));
	test_log_hide();
	for (unsigned n = 1; n <= 3; n++) {
		lab_reopen(&l);
		fault_nth(l.dev, FAULT_READ, n, -EIO);
		ck_err(look(&l, &l.fs, 5, &it), -EIO);
		check_has(&l, &l.fs, 5, 100);
		fault_clear(l.dev);
	}
	test_log_show();
	lab_close(&l);
}
END_TEST

START_TEST(a_node_that_is_another_one_is_refused)
{
	struct nptr good, bad;
	struct item it;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 3000, 100);
	ck_ok(lab_commit(&l));
	good = l.fs_root;
	test_log_hide();
	for (unsigned i = 0; i < 5; i++) {
		bad = good;
		switch (i) {
		case 0: bad.gen--; break;
		case 1: bad.level++; break;
		case 2: bad.level--; break;
		case 3: bad.gen = l.gen + 5; break;
		default: bad.level = COWFS_MAX_LEVEL + 1; break;
		}
		l.fs_root = bad;
		lab_reopen(&l);
		ck_err(look(&l, &l.fs, 5, &it), -ECOW_CORRUPT);
		/* nor from the cache */
		l.fs.root = good;
		check_has(&l, &l.fs, 5, 100);
		l.fs.root = bad;
		ck_err(look(&l, &l.fs, 5, &it), -ECOW_CORRUPT);
		l.fs.root = good;
		l.fs.root.csum++;
		ck_err(look(&l, &l.fs, 5, &it), -ECOW_CORRUPT);
	}
	test_log_show();
	lab_close(&l);
}
END_TEST

START_TEST(nodes_that_could_not_be_written_stay_in_memory)
{
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 20000, 50);
	fault_from(l.dev, FAULT_WRITE, 2, -EIO);
	test_log_hide();
	ck_err(lab_commit(&l), -EIO);
	test_log_show();
	check_range(&l, &l.fs, 0, 20000, 50);
	lab_close(&l);
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

/* ---- cache ---- */

/* Bytes that the device was told of while a cold tree was walked. */
static uint64_t told(struct lab *l, bool walk)
{
	uint64_t before = fault_ahead_bytes(l->dev);
	struct key k = KEY_MIN;
	struct cursor c;
	int err = 0;

	lab_reopen(l);
	for (unsigned n = 0; n < (walk ? 20000 : 1); n++, k = c.key) {
		k.off++;
		err = LAB_RETRY(l, cursor_ceil(&c, &l->fs, &k));
		ck_ok(err);
	}
	return fault_ahead_bytes(l->dev) - before;
}

START_TEST(a_walk_tells_the_device_of_the_leaves_to_come)
{
	uint64_t leaves, bytes;
	struct lab l;

	lab_open(&l, &small);
	add_range(&l, 0, 20001, 50);
	ck_ok(lab_commit(&l));
	leaves = l.fs.nodes;
	bytes = told(&l, true);
	/* nearly all of them, and seldom the same one twice */
	ck_assert_uint_ge(bytes, leaves * 9 / 10 * SIZE);
	ck_assert_uint_le(bytes, leaves * 5 / 4 * SIZE);
	/* of one look no more than a few */
	ck_assert_uint_le(told(&l, false), 8 * SIZE);
	lab_close(&l);
}
END_TEST

START_TEST(the_cache_keeps_to_its_limit)
{
	struct lab_config cfg = small;
	struct forest_stats st;
	struct lab l;

	cfg.cache_bytes = 100 * SIZE;
	lab_open(&l, &cfg);
	add_range(&l, 0, 20000, 100);
	ck_ok(lab_commit(&l)); /* not even after writing much */
	forest_stats(l.forest, &st);
	ck_assert_uint_le(st.nodes, 110);
	ck_assert_uint_eq(st.dirty_bytes, 0);
	for (unsigned i = 0; i < 3; i++)
		check_range(&l, &l.fs, 0, 20000, 100);
	forest_stats(l.forest, &st);
	ck_assert_uint_le(st.nodes, 110);
	ck_assert_uint_gt(st.evicted, 1000);
	/* nodes near the root are used all the time and stay */
	ck_assert_uint_lt(st.misses, 3 * (l.fs.nodes + 50));
	lab_close(&l);
}
END_TEST

START_TEST(node_read_takes_nodes_from_memory_or_device)
{
	uint8_t *a = malloc(SIZE);
	uint8_t *b = malloc(SIZE);
	struct key lo = num(1);
	struct lab l;
	uint64_t reads;

	ck_assert(a && b);
	lab_open(&l, &small);
	add_range(&l, 0, 3000, 100);
	ck_ok(lab_commit(&l));
	reads = l.io.stats.reads;
	ck_ok(node_read(l.forest, &l.fs_root, COWFS_ROOT_FS, NULL, NULL, true,
			a));
	ck_assert_uint_eq(l.io.stats.reads, reads);
	ck_ok(node_read(l.forest, &l.fs_root, COWFS_ROOT_FS, NULL, NULL, false,
			b));
	ck_assert_uint_eq(l.io.stats.reads, reads + 1);
	ck_assert(!memcmp(a, b, SIZE));
	test_log_hide();
	for (int cached = 0; cached < 2; cached++) {
		ck_err(node_read(l.forest, &l.fs_root, COWFS_ROOT_SNAP, NULL,
				 NULL, cached, a), -ECOW_CORRUPT);
		ck_err(node_read(l.forest, &l.fs_root, COWFS_ROOT_FS, &lo,
				 NULL, cached, a), -ECOW_CORRUPT);
	}
	test_log_show();
	lab_close(&l);
	free(a);
	free(b);
}
END_TEST

/* ---- threads ---- */

struct crowd {
	struct lab l;
	_Atomic bool stop;
	_Atomic uint64_t reads;
};

static int look_under_lock(struct lab *l, uint64_t i, uint64_t *value)
{
	struct key k = num(i);
	struct item it;
	unsigned ticket = grace_enter(&l->grace);
	int err;

	do {
		pthread_rwlock_rdlock(&l->lock);
		err = tree_get(&l->fs, &k, &it);
		if (!err)
			memcpy(value, it.data, 8);
		pthread_rwlock_unlock(&l->lock);
	} while (err == -EAGAIN && !(err = forest_load(l->forest)));
	grace_leave(&l->grace, ticket);
	return err;
}

static void *reader(void *arg)
{
	struct crowd *c = arg;
	struct rng r;
	uint64_t value = 0;

	rng_init(&r, test_seed(), 1000 + atomic_fetch_add(&c->reads, 1));
	while (!atomic_load(&c->stop)) {
		uint64_t i = rng_below(&r, 4000) * 2;

		if (look_under_lock(&c->l, i, &value) || value != i)
			return (void *)1;
		atomic_fetch_add(&c->reads, 1);
	}
	return NULL;
}

/* Odd keys come and go. */
static void write_some(struct lab *l, struct rng *r)
{
	struct key k = num(rng_below(r, 4000) * 2 + 1);
	uint8_t data[100] = { 0 };
	bool put = rng_one_in(r, 2);
	int err;

	do {
		pthread_rwlock_wrlock(&l->lock);
		err = tree_prepare(&l->fs, &k);
		if (!err)
			err = put ? tree_put(&l->fs, &k, data, sizeof(data)) :
				    tree_delete(&l->fs, &k);
		pthread_rwlock_unlock(&l->lock);
	} while (err == -EAGAIN && !(err = forest_load(l->forest)));
	ck_assert(!err || err == -ENOENT);
}

/* As lab_commit, but only the closing is under the lock. */
static void commit_beside(struct lab *l)
{
	struct node_batch *b;
	uint64_t bytes, gen;

	pthread_rwlock_wrlock(&l->lock);
	lab_locked = true;
	gen = forest_gen(l->forest);
	tree_seal(&l->fs);
	ck_ok(LAB_RETRY(l, alloc_flush(l->alloc, &l->store)));
	tree_seal(&l->refs);
	tree_seal(&l->space);
	ck_ok(forest_close_gen(l->forest, &b));
	alloc_close(l->alloc, gen);
	lab_locked = false;
	pthread_rwlock_unlock(&l->lock);
	ck_ok(node_batch_write(b, &bytes));
	node_batch_done(b);
	alloc_durable(l->alloc, gen);
}

START_TEST(readers_writer_and_commits_go_on_together)
{
	static struct crowd c;
	unsigned rounds = test_rounds(30);
	pthread_t t[3];
	struct rng r;
	void *bad;

	rng_init(&r, test_seed(), 3);
	lab_open(&c.l, &twice);
	for (uint64_t i = 0; i < 4000; i++)
		ck_ok(add(&c.l, i * 2, 100));
	ck_ok(lab_commit(&c.l));
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, reader, &c), 0);
	for (unsigned i = 0; i < rounds || (c.reads < 100 && i < 9999); i++) {
		for (unsigned n = 0; n < 20; n++)
			write_some(&c.l, &r);
		commit_beside(&c.l);
	}
	atomic_store(&c.stop, true);
	for (unsigned i = 0; i < ARRAY_SIZE(t); i++) {
		pthread_join(t[i], &bad);
		ck_assert_ptr_null(bad);
	}
	ck_assert_uint_gt(c.reads, 100);
	lab_close(&c.l);
}
END_TEST

static TCase *tree_tests(void)
{
	TCase *tc = tcase_create("tree");

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, insert_splits_a_full_leaf);
	tcase_add_test(tc, results_are_as_promised);
	tcase_add_test(tc, items_in_a_row_fill_their_leaves);
	tcase_add_test(tc, names_before_new_inodes_leave_full_leaves);
	tcase_add_test(tc, deleting_gives_nodes_back);
	tcase_add_test(tc, deleting_with_a_cold_cache_leaves_no_empty_leaf);
	tcase_add_test(tc, a_change_after_sealing_is_sealed_again);
	tcase_add_test(tc, an_item_below_all_others_is_found_after_a_reopen);
	tcase_add_test(tc, nothing_changes_before_eagain);
	tcase_add_test(tc, what_is_committed_is_never_overwritten);
	tcase_add_test(tc, a_bad_copy_is_replaced_by_the_other);
	tcase_add_test(tc, a_read_error_passes_and_leaves_no_trace);
	tcase_add_test(tc, a_node_that_is_another_one_is_refused);
	tcase_add_test(tc, nodes_that_could_not_be_written_stay_in_memory);
	tcase_add_test(tc, a_full_device_leaves_a_sound_tree);
	tcase_add_test(tc, a_snapshot_keeps_its_items);
	tcase_add_test(tc,
		       copying_a_bad_leaf_leaves_all_counts_as_they_were);
	tcase_add_test(tc, diff_does_not_read_what_is_shared);
	tcase_add_test(tc, a_walk_tells_the_device_of_the_leaves_to_come);
	tcase_add_test(tc, the_cache_keeps_to_its_limit);
	tcase_add_test(tc, node_read_takes_nodes_from_memory_or_device);
	tcase_add_test(tc, readers_writer_and_commits_go_on_together);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("btree");

	suite_add_tcase(s, tree_tests());
	return test_main(s);
}
