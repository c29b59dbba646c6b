/*
 * test_btree.c - nodes, trees, cache
 */
#include <string.h>

#include "btree/node.h"
#include "support/lab.h"
#include "support/test.h"
#include "support/testdev.h"

#define SIZE 4096u

static const uint8_t uuid[16] = "a lab";

static const struct lab_config small = {
	.node_size = SIZE, .copies = 1, .blocks = 8192,
};
static const struct lab_config twice = {
	.node_size = SIZE, .copies = 2, .blocks = 8192,
};

/* ---- the bytes of a node ---- */

#define LEAF_MAX 200u

struct leaf_model {
	unsigned n;
	struct key key[LEAF_MAX];
	uint32_t len[LEAF_MAX];
	uint8_t byte[LEAF_MAX]; /* that its data is made of */
};

static struct nptr place_of(const void *node)
{
	return (struct nptr){ .blk = from_le64(node_head(node)->blk),
			      .gen = from_le64(node_head(node)->gen),
			      .level = node_head(node)->level };
}

static void check_sound(const void *node)
{
	struct nptr p = place_of(node);
	char why[128] = "";

	ck_assert_msg(node_verify(node, SIZE, &p, 0, uuid, NULL, NULL, why,
				  sizeof(why)) == 0, "%s", why);
}

static void check_gap(const uint8_t *node)
{
	uint32_t from = NODE_HEAD;
	uint32_t to = SIZE;

	if (node_level(node)) {
		from += node_count(node) * CHILD_SIZE;
	} else {
		from += node_count(node) * ITEM_HEAD;
		to = from + node_room(node, SIZE);
	}
	while (from < to && !node[from])
		from++;
	ck_assert_msg(from >= to, "stale byte at %u", from);
}

static void check_leaf(const void *leaf, const struct leaf_model *m)
{
	unsigned good = 0;

	check_sound(leaf);
	check_gap(leaf);
	ck_assert_uint_eq(node_count(leaf), m->n);
	for (; good < m->n; good++) {
		struct item it = node_item(leaf, good, SIZE);
		struct key k = node_key(leaf, good);
		uint8_t want[SIZE];

		memset(want, m->byte[good], sizeof(want));
		if (key_cmp(&k, &m->key[good]) || it.len != m->len[good] ||
		    memcmp(it.data, want, it.len))
			break;
	}
	ck_assert_msg(good == m->n, "item %u is wrong", good);
}

static void model_insert(struct leaf_model *m, unsigned at, struct key k,
			 uint32_t len, uint8_t byte)
{
	for (unsigned i = m->n++; i > at; i--) {
		m->key[i] = m->key[i - 1];
		m->len[i] = m->len[i - 1];
		m->byte[i] = m->byte[i - 1];
	}
	m->key[at] = k;
	m->len[at] = len;
	m->byte[at] = byte;
}

static void model_delete(struct leaf_model *m, unsigned at)
{
	m->n--;
	for (unsigned i = at; i < m->n; i++) {
		m->key[i] = m->key[i + 1];
		m->len[i] = m->len[i + 1];
		m->byte[i] = m->byte[i + 1];
	}
}

static void new_leaf(void *leaf)
{
	node_init(leaf, SIZE, 0, 0, uuid);
	node_set_place(leaf, 40, 3);
}

static void leaf_step(struct rng *r, void *leaf, struct leaf_model *m)
{
	uint8_t buf[SIZE];
	struct key k = KEY(rng_below(r, 4), (uint8_t)rng_below(r, 4),
			   rng_below(r, 20));
	uint32_t len = (uint32_t)rng_below(r, rng_one_in(r, 8) ? 900 : 60);
	uint8_t byte = (uint8_t)(1 + rng_below(r, 255));
	unsigned slot;
	bool found = leaf_find(leaf, &k, &slot);

	memset(buf, byte, sizeof(buf));
	if (!found) {
		if (m->n == LEAF_MAX ||
		    node_room(leaf, SIZE) < ITEM_HEAD + len)
			return;
		leaf_insert(leaf, SIZE, slot, &k, buf, len);
		model_insert(m, slot, k, len, byte);
	} else if (rng_one_in(r, 2)) {
		leaf_delete(leaf, SIZE, slot);
		model_delete(m, slot);
	} else if (len <= m->len[slot] + node_room(leaf, SIZE)) {
		leaf_replace(leaf, SIZE, slot, buf, len);
		m->len[slot] = len;
		m->byte[slot] = byte;
	}
}

START_TEST(a_leaf_stays_packed_and_its_gap_zero)
{
	static uint8_t leaf[SIZE];
	static struct leaf_model m;
	struct rng r;

	rng_init(&r, test_seed(), 1);
	new_leaf(leaf);
	for (unsigned i = 0; i < test_rounds(5000); i++) {
		leaf_step(&r, leaf, &m);
		check_leaf(leaf, &m);
	}
}
END_TEST

static void fill_leaf(void *leaf, struct leaf_model *m, unsigned n,
		      uint64_t first)
{
	new_leaf(leaf);
	m->n = 0;
	for (unsigned i = 0; i < n; i++) {
		uint8_t buf[64];
		uint8_t byte = (uint8_t)(1 + (first + i) % 255);
		uint32_t len = (uint32_t)((first + i) * 7 % 64);

		memset(buf, byte, sizeof(buf));
		leaf_insert(leaf, SIZE, i, &KEY(first + i, 1, 0), buf, len);
		model_insert(m, i, KEY(first + i, 1, 0), len, byte);
	}
}

START_TEST(entries_move_between_leaves_both_ways)
{
	static uint8_t left[SIZE], right[SIZE];
	static struct leaf_model l, r;

	for (unsigned n = 0; n <= 20; n++) {
		fill_leaf(left, &l, 20, 100);
		fill_leaf(right, &r, 15, 200);
		node_add_front(right, left, SIZE, n);
		node_cut_back(left, SIZE, n);
		for (unsigned i = 0; i < n; i++) {
			l.n--;
			model_insert(&r, 0, l.key[l.n], l.len[l.n],
				     l.byte[l.n]);
		}
		check_leaf(left, &l);
		check_leaf(right, &r);
		for (unsigned i = 0; i < n; i++) {
			model_insert(&l, l.n, r.key[0], r.len[0], r.byte[0]);
			model_delete(&r, 0);
		}
		node_add_back(left, right, SIZE, n);
		node_cut_front(right, SIZE, n);
		check_leaf(left, &l);
		check_leaf(right, &r);
	}
}
END_TEST

static void fill_inner(void *inner, unsigned n, uint64_t first)
{
	node_init(inner, SIZE, 1, 0, uuid);
	node_set_place(inner, 40, 3);
	for (unsigned i = 0; i < n; i++) {
		struct nptr p = { .blk = first + i, .gen = 2 };

		inner_insert(inner, i, &KEY(first + i, 1, 0), &p);
	}
}

START_TEST(children_are_found_added_moved_and_removed)
{
	static uint8_t a[SIZE], b[SIZE];

	fill_inner(a, 30, 100);
	fill_inner(b, 10, 200);
	ck_assert_uint_eq(inner_find(a, &KEY(0, 0, 0)), 0);
	ck_assert_uint_eq(inner_find(a, &KEY(110, 0, 9)), 9);
	ck_assert_uint_eq(inner_find(a, &KEY(110, 1, 0)), 10);
	ck_assert_uint_eq(inner_find(a, &KEY(999, 0, 0)), 29);
	node_add_front(b, a, SIZE, 12);
	node_cut_back(a, SIZE, 12);
	inner_delete(b, 5);
	inner_insert(b, 5, &KEY(123, 1, 0),
		     &(struct nptr){ .blk = 123, .gen = 2 });
	for (unsigned i = 0; i < 22; i++)
		ck_assert_uint_eq(node_child(b, i).blk,
				  i < 12 ? 118 + i : 188 + i);
	ck_assert_uint_eq(node_count(a), 18);
	node_add_back(a, b, SIZE, 12);
	node_cut_front(b, SIZE, 12);
	check_sound(a);
	check_sound(b);
	check_gap(a);
	check_gap(b);
	ck_assert_uint_eq(node_count(a), 30);
	ck_assert_uint_eq(node_child(b, 0).blk, 200);
}
END_TEST

/* ---- verification ---- */

static int verify(const void *node, const struct nptr *p)
{
	char why[128] = "";
	int err = node_verify(node, SIZE, p, 0, uuid, &KEY(50, 0, 0),
			      &KEY(300, 0, 0), why, sizeof(why));

	ck_assert_int_eq(err != 0, why[0] != 0);
	return err;
}

static void reject(const uint8_t *good, unsigned at, uint8_t byte)
{
	static uint8_t bad[SIZE];
	struct nptr p = place_of(good);

	memcpy(bad, good, SIZE);
	ck_assert_int_ne(bad[at], byte);
	bad[at] = byte;
	ck_assert_msg(verify(bad, &p) == -ECOW_CORRUPT,
		      "byte %u = %u passes", at, byte);
}

START_TEST(verify_rejects_each_field_that_is_wrong)
{
	static uint8_t leaf[SIZE], inner[SIZE];
	static struct leaf_model m;
	struct nptr p;
	unsigned body = NODE_HEAD;

	fill_leaf(leaf, &m, 20, 100);
	p = place_of(leaf);
	ck_ok(verify(leaf, &p));
	for (unsigned at = 0; at < 0x28; at++)
		reject(leaf, at, (uint8_t)(leaf[at] + 1));
	reject(leaf, 7, 255); /* count */
	reject(leaf, body, 101); /* first key = second */
	reject(leaf, body, 40); /* below lo */
	reject(leaf, body + 19 * 21 + 1, 9); /* last key above hi */
	for (unsigned i = 0; i < 20; i++) {
		reject(leaf, body + i * 21 + 17, (uint8_t)(leaf[body + i * 21 +
			17] ^ 1)); /* off */
		reject(leaf, body + i * 21 + 19, (uint8_t)(leaf[body + i * 21 +
			19] ^ 64)); /* len */
	}

	fill_inner(inner, 10, 100);
	p = place_of(inner);
	ck_ok(verify(inner, &p));
	reject(inner, 6, 0); /* no child */
	reject(inner, 6, 255); /* more than fit */
	body += 17; /* the first pointer */
	reject(inner, body + 6, 1); /* blk too large */
	reject(inner, body, 0); /* blk 0 */
	reject(inner, body + 8, 100); /* second copy = first */
	reject(inner, body + 0x10, 4); /* younger than its parent */
	reject(inner, body + 0x10, 0); /* born never */
	reject(inner, body + 0x1c, 1); /* level */
}
END_TEST

START_TEST(verify_survives_random_bytes)
{
	static uint8_t node[SIZE], bad[SIZE];
	static struct leaf_model m;
	struct rng r;

	rng_init(&r, test_seed(), 2);
	for (unsigned i = 0; i < test_rounds(20000); i++) {
		struct nptr p;

		if (rng_one_in(&r, 2))
			fill_leaf(node, &m, 20, 100);
		else
			fill_inner(node, 30, 100);
		p = place_of(node);
		memcpy(bad, node, SIZE);
		for (unsigned n = 1 + (unsigned)rng_below(&r, 8); n; n--)
			bad[rng_below(&r, 700)] = (uint8_t)rng_next(&r);
		if (verify(bad, &p))
			continue;
		/* what passes can be walked */
		for (unsigned k = 0; k < node_count(bad); k++) {
			if (!node_level(bad))
				ck_assert_uint_le(node_item(bad, k, SIZE).len,
						  COWFS_ITEM_MAX(SIZE));
		}
	}
}
END_TEST

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
	for (unsigned i = 0; i < test_rounds(30); i++) {
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

static TCase *node_tests(void)
{
	TCase *tc = tcase_create("node");

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, a_leaf_stays_packed_and_its_gap_zero);
	tcase_add_test(tc, entries_move_between_leaves_both_ways);
	tcase_add_test(tc, children_are_found_added_moved_and_removed);
	tcase_add_test(tc, verify_rejects_each_field_that_is_wrong);
	tcase_add_test(tc, verify_survives_random_bytes);
	return tc;
}

static TCase *tree_tests(void)
{
	TCase *tc = tcase_create("tree");

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, insert_splits_a_full_leaf);
	tcase_add_test(tc, results_are_as_promised);
	tcase_add_test(tc, items_in_a_row_fill_their_leaves);
	tcase_add_test(tc, deleting_gives_nodes_back);
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
	tcase_add_test(tc, the_cache_keeps_to_its_limit);
	tcase_add_test(tc, node_read_takes_nodes_from_memory_or_device);
	tcase_add_test(tc, readers_writer_and_commits_go_on_together);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("btree");

	suite_add_tcase(s, node_tests());
	suite_add_tcase(s, tree_tests());
	return test_main(s);
}
