/*
 * test_node.c - the bytes of a node, and their verification
 */
#include <string.h>

#include "btree/node.h"
#include "support/test.h"

#define SIZE 4096u

static const uint8_t uuid[16] = "a test";

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

int main(void)
{
	Suite *s = suite_create("node");
	TCase *tc = tcase_create("node");

	tcase_set_timeout(tc, 0);
	tcase_add_test(tc, a_leaf_stays_packed_and_its_gap_zero);
	tcase_add_test(tc, entries_move_between_leaves_both_ways);
	tcase_add_test(tc, children_are_found_added_moved_and_removed);
	tcase_add_test(tc, verify_rejects_each_field_that_is_wrong);
	tcase_add_test(tc, verify_survives_random_bytes);
	suite_add_tcase(s, tc);
	return test_main(s);
}
