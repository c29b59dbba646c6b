/*
 * model_btree.c - random changes, commits and snapshots against sorted arrays
 *
 * A small universe of keys, so that everything collides: the model is an array
 * of values by key number. Snapshots keep a copy of the array. Caches are
 * tiny: nearly every operation meets -EAGAIN somewhere.
 */
#include <string.h>

#include "support/lab.h"
#include "support/test.h"
#include "support/testdev.h"

#define SNAPS 4

struct value {
	uint32_t len; /* UINT32_MAX: absent */
	uint64_t seed; /* of its bytes; of an extent: first block */
	uint32_t blocks; /* > 0: an extent */
};

struct model {
	struct lab l;
	struct rng rng;
	unsigned keys;
	struct value *live;
	struct {
		struct value *v;
		struct tree t;
	} snap[SNAPS];
	uint8_t *buf;
	unsigned ops;
	unsigned shape; /* how keys are laid out */
};

static struct key key_of(const struct model *m, unsigned i)
{
	switch (m->shape) {
	case 0: /* one object, counted through */
		return KEY(7, COWFS_KEY_EXTENT, i);
	case 1: /* a few items per object */
		return KEY(i / 5 + 1, COWFS_KEY_EXTENT, i % 5 * 1000);
	default: /* far apart, differing in the highest byte */
		return KEY((uint64_t)i << 48 | 1, COWFS_KEY_EXTENT,
			   UINT64_MAX - i);
	}
}

static void fill(uint8_t *to, uint32_t len, uint64_t seed)
{
	struct rng r;

	rng_init(&r, seed, 99);
	rng_fill(&r, to, len);
}

/* The bytes of a value, in m->buf. Only what is shorter than an extent's head
 * or names block 0 may not look like an extent. */
static void render(struct model *m, const struct value *v)
{
	struct cowfs_disk_extent *e = (void *)m->buf;

	fill(m->buf, v->len, v->seed);
	if (v->len < sizeof(*e))
		return;
	e->blk = to_le64(v->blocks ? v->seed : 0);
	e->blk2 = to_le64(0);
	e->len = to_le32(v->blocks);
	e->gen = to_le64(1);
	e->flags = 0;
}

static bool absent(const struct value *v)
{
	return v->len == UINT32_MAX;
}

static void compare(struct model *m, struct item it, const struct value *v,
		    unsigned i)
{
	render(m, v);
	ck_assert_msg(it.len == v->len && !memcmp(it.data, m->buf, v->len),
		      "key %u: item of %u bytes, model %u (op %u)", i, it.len,
		      v->len, m->ops);
}

/* ---- reading ---- */

static void check_get(struct model *m, struct tree *t, const struct value *v,
		      unsigned i)
{
	struct key k = key_of(m, i);
	struct item it;
	int err = LAB_RETRY(&m->l, tree_get(t, &k, &it));

	if (absent(&v[i])) {
		ck_err(err, -ENOENT);
		return;
	}
	ck_ok(err);
	compare(m, it, &v[i], i);
}

/* First present key at or after i (or before, backwards); keys: none. */
static unsigned seek(const struct model *m, const struct value *v, unsigned i,
		     bool forward)
{
	while (i < m->keys && absent(&v[i]))
		i = forward ? i + 1 : i ? i - 1 : m->keys;
	return i;
}

static void check_on(struct model *m, const struct cursor *c,
		     const struct value *v, unsigned i)
{
	struct key k = key_of(m, i);

	ck_assert_int_eq(key_cmp(&c->key, &k), 0);
	compare(m, c->item, &v[i], i);
}

/* A cursor from a random key, some steps to and fro; a miss within it starts
 * it anew at the key where it stood. */
static void check_cursor(struct model *m, struct tree *t,
			 const struct value *v, unsigned i, unsigned steps,
			 bool forward)
{
	struct cursor c;
	struct key k = key_of(m, i);
	int err;

	err = forward ? LAB_RETRY(&m->l, cursor_ceil(&c, t, &k)) :
			LAB_RETRY(&m->l, cursor_floor(&c, t, &k));
	i = seek(m, v, i, forward);
	if (i == m->keys) {
		ck_err(err, -ENOENT);
		return;
	}
	ck_ok(err);
	check_on(m, &c, v, i);
	while (steps--) {
		unsigned next = forward ? i + 1 : i ? i - 1 : m->keys;

		next = seek(m, v, next, forward);
		for (;;) {
			err = forward ? cursor_next(&c) : cursor_prev(&c);
			if (err != -EAGAIN)
				break;
			check_on(m, &c, v, i); /* it stays */
			ck_ok(lab_load(&m->l));
			k = key_of(m, i);
			ck_ok(LAB_RETRY(&m->l, cursor_ceil(&c, t, &k)));
		}
		ck_assert_int_eq(err, next == m->keys ? -ENOENT : 0);
		if (err) {
			check_on(m, &c, v, i);
			return;
		}
		i = next;
		check_on(m, &c, v, i);
	}
}

static void check_all(struct model *m, struct tree *t, const struct value *v)
{
	check_cursor(m, t, v, 0, m->keys, true);
	check_cursor(m, t, v, m->keys - 1, m->keys, false);
	for (unsigned i = 0; i < m->keys; i++)
		check_get(m, t, v, i);
}

/* ---- changing ---- */

static struct value random_value(struct model *m)
{
	uint32_t max = COWFS_ITEM_MAX(m->l.cfg.node_size);
	struct value v = { .seed = rng_next(&m->rng) };

	switch (rng_below(&m->rng, 6)) {
	case 0:
		v.len = (uint32_t)rng_below(&m->rng, max + 1);
		break;
	case 1:
		v.len = max;
		break;
	default:
		v.len = 40 + (uint32_t)rng_below(&m->rng, 100);
	}
	if (v.len < sizeof(struct cowfs_disk_extent))
		v.len = sizeof(struct cowfs_disk_extent);
	if (v.len && rng_one_in(&m->rng, 4)) {
		uint64_t blk, got;

		if (!alloc_take(m->l.alloc, AREA_DATA, 0,
				1 + rng_below(&m->rng, 4), &blk, &got)) {
			alloc_own(m->l.alloc, blk, got);
			v.seed = blk;
			v.blocks = (uint32_t)got;
		}
	}
	return v;
}

/* The live tree lets go of an extent: as the file layer does. */
static void drop_extent(struct model *m, const struct value *v)
{
	if (absent(v) || !v->blocks)
		return;
	ck_ok(alloc_ref(m->l.alloc, v->seed, v->blocks, -1, 0));
}

/* Of a key that has been prepared. */
static void change(struct model *m, unsigned i, bool remove)
{
	struct key k = key_of(m, i);
	struct value *v = &m->live[i];
	struct value old = *v;
	bool was = !absent(v);
	void *data;
	uint32_t len;

	if (remove) {
		ck_err(tree_delete(&m->l.fs, &k), was ? 0 : -ENOENT);
		v->len = UINT32_MAX;
		drop_extent(m, &old);
		return;
	}
	if (was && rng_one_in(&m->rng, 3)) { /* same length, in place */
		ck_ok(tree_edit(&m->l.fs, &k, &data, &len));
		ck_assert_uint_eq(len, v->len);
		if (v->len >= sizeof(struct cowfs_disk_extent) && !v->blocks) {
			v->seed = rng_next(&m->rng);
			render(m, v);
			memcpy(data, m->buf, len);
		}
		return;
	}
	*v = random_value(m);
	render(m, v);
	if (rng_one_in(&m->rng, 2)) {
		ck_err(tree_insert(&m->l.fs, &k, m->buf, v->len, &data),
		       was ? -EEXIST : 0);
		if (!was) {
			ck_assert(!memcmp(data, m->buf, v->len));
			return;
		}
	}
	ck_ok(tree_put(&m->l.fs, &k, m->buf, v->len));
	drop_extent(m, &old);
}

/* Many keys are prepared, then all are changed: T2 for a whole batch. */
static void change_many(struct model *m, unsigned from, unsigned n, bool remove)
{
	unsigned i;
	int err;

	if (n > m->keys - from)
		n = m->keys - from;
	do {
		err = 0;
		for (i = 0; !err && i < n; i++) {
			struct key k = key_of(m, from + i);

			err = tree_prepare(&m->l.fs, &k);
		}
	} while (err == -EAGAIN && !lab_load(&m->l));
	ck_ok(err);
	for (i = 0; i < n; i++)
		change(m, from + (remove ? i : n - 1 - i), remove);
}

/* ---- snapshots ---- */

static struct value *copy_of(const struct model *m)
{
	struct value *v = malloc(m->keys * sizeof(*v));

	ck_assert_ptr_nonnull(v);
	memcpy(v, m->live, m->keys * sizeof(*v));
	return v;
}

static unsigned node_blocks(const struct model *m)
{
	return m->l.cfg.node_size / COWFS_BLOCK_SIZE;
}

static void snap_make(struct model *m, unsigned i)
{
	if (m->snap[i].v)
		return;
	tree_seal(&m->l.fs);
	m->snap[i].v = copy_of(m);
	m->snap[i].t = m->l.fs;
	m->snap[i].t.readonly = true;
	m->l.fs.shared_gen = forest_gen(m->l.forest);
	if (m->l.fs.root.blk)
		ck_ok(alloc_ref(m->l.alloc, m->l.fs.root.blk, node_blocks(m), 1,
				0));
	ck_ok(lab_commit(&m->l));
}

static void drop_node(struct model *m, const struct nptr *p);

static int drop_data(void *arg, const struct node_ref *ref)
{
	struct model *m = arg;

	return alloc_ref(m->l.alloc, ref->blk, ref->len, -1, ref->blk2);
}

/* Recursively let go of a reference to a node. */
static void drop_node(struct model *m, const struct nptr *p)
{
	uint32_t size = m->l.cfg.node_size;
	uint32_t extra;
	uint8_t *buf;

	ck_ok(LAB_RETRY(&m->l, alloc_extra(m->l.alloc, &m->l.store, p->blk,
					   &extra, NULL)));
	if (!extra) {
		buf = aligned_alloc(COWFS_BLOCK_SIZE, size);
		ck_assert_ptr_nonnull(buf);
		ck_ok(node_read(m->l.forest, p, COWFS_ROOT_FS, NULL, NULL,
				rng_one_in(&m->rng, 2), buf));
		for (unsigned i = 0; p->level && i < node_count(buf); i++) {
			struct nptr child = node_child(buf, i);

			drop_node(m, &child);
		}
		if (!p->level)
			ck_ok(node_for_each_ref(buf, size, drop_data, m));
		free(buf);
	}
	ck_ok(alloc_ref(m->l.alloc, p->blk, node_blocks(m), -1, p->blk2));
}

static void snap_drop(struct model *m, unsigned i)
{
	if (!m->snap[i].v)
		return;
	if (m->snap[i].t.root.blk)
		drop_node(m, &m->snap[i].t.root);
	free(m->snap[i].v);
	m->snap[i].v = NULL;
}

/* ---- difference ---- */

struct seen {
	struct model *m;
	const struct value *a, *b;
	unsigned next;
};

static bool differ(const struct value *a, const struct value *b)
{
	if (absent(a) || absent(b))
		return absent(a) != absent(b);
	return a->len != b->len || a->seed != b->seed ||
	       a->blocks != b->blocks;
}

static int on_diff(void *arg, const struct key *k, const struct item *a,
		   const struct item *b)
{
	struct seen *s = arg;
	struct key want;

	while (s->next < s->m->keys &&
	       !differ(&s->a[s->next], &s->b[s->next]))
		s->next++;
	ck_assert_uint_lt(s->next, s->m->keys);
	want = key_of(s->m, s->next);
	ck_assert_int_eq(key_cmp(k, &want), 0);
	ck_assert_int_eq(a != NULL, !absent(&s->a[s->next]));
	ck_assert_int_eq(b != NULL, !absent(&s->b[s->next]));
	if (a)
		compare(s->m, *a, &s->a[s->next], s->next);
	if (b)
		compare(s->m, *b, &s->b[s->next], s->next);
	s->next++;
	return 0;
}

static void check_diff(struct model *m, struct tree *a, struct tree *b,
		       const struct value *va, const struct value *vb)
{
	struct seen s = { .m = m, .a = va, .b = vb };
	struct key from = KEY_MIN;

	ck_ok(LAB_RETRY(&m->l, tree_diff(a, b, &from, on_diff, &s)));
	while (s.next < m->keys && !differ(&va[s.next], &vb[s.next]))
		s.next++;
	ck_assert_uint_eq(s.next, m->keys);
}

/* ---- rounds ---- */

static void check_state(struct model *m)
{
	struct nptr roots[SNAPS];
	uint16_t *count;
	size_t n = 0;

	check_all(m, &m->l.fs, m->live);
	for (unsigned i = 0; i < SNAPS; i++) {
		if (!m->snap[i].v)
			continue;
		m->snap[i].t.forest = m->l.forest;
		check_all(m, &m->snap[i].t, m->snap[i].v);
		check_diff(m, &m->snap[i].t, &m->l.fs, m->snap[i].v, m->live);
		roots[n++] = m->snap[i].t.root;
	}
	lab_check(&m->l, roots, n);
	count = calloc(m->l.cfg.blocks, sizeof(*count));
	ck_assert_ptr_nonnull(count);
	ck_assert_uint_eq(lab_count(&m->l, &m->l.fs_root, COWFS_ROOT_FS,
				    count), m->l.fs.nodes);
	free(count);
}

static void one_op(struct model *m)
{
	unsigned i = (unsigned)rng_below(&m->rng, m->keys);
	unsigned n = 1 + (unsigned)rng_below(&m->rng, 40);
	unsigned s = (unsigned)rng_below(&m->rng, SNAPS);

	m->ops++;
	switch (rng_below(&m->rng, 24)) {
	case 0:
		check_cursor(m, &m->l.fs, m->live, i, n,
			     rng_one_in(&m->rng, 2));
		break;
	case 1:
		if (m->snap[s].v)
			check_cursor(m, &m->snap[s].t, m->snap[s].v, i, n,
				     rng_one_in(&m->rng, 2));
		break;
	case 2:
		change_many(m, i, n, true);
		break;
	case 3:
		change_many(m, i, n, false);
		break;
	case 4:
		check_get(m, &m->l.fs, m->live, i);
		break;
	case 5:
		if (rng_one_in(&m->rng, 4))
			ck_ok(lab_commit(&m->l));
		break;
	default:
		change_many(m, i, 1, rng_below(&m->rng, 100) <
						30 + m->ops / 400 % 2 * 40);
	}
}

static void commit_and_reopen(struct model *m)
{
	ck_ok(lab_commit(&m->l));
	/* Two more, or what was freed is still pending. */
	if (rng_one_in(&m->rng, 2))
		lab_reopen(&m->l);
	for (unsigned i = 0; i < SNAPS; i++)
		m->snap[i].t.forest = m->l.forest;
}

static void run(uint32_t node_size, unsigned copies, unsigned keys,
		unsigned ops, unsigned shape)
{
	struct lab_config cfg = { .node_size = node_size, .copies = copies,
				  .blocks = 16384 + node_size };
	struct model m = { .keys = keys, .shape = shape };

	rng_init(&m.rng, test_seed(), node_size + shape * 7 + copies);
	lab_open(&m.l, &cfg);
	lab_locked = true;
	m.l.flaky = 37;
	test_log_hide();
	m.live = malloc(keys * sizeof(*m.live));
	m.buf = malloc(node_size);
	ck_assert(m.live && m.buf);
	for (unsigned i = 0; i < keys; i++)
		m.live[i].len = UINT32_MAX;
	while (m.ops < ops) {
		one_op(&m);
		if (rng_one_in(&m.rng, 250))
			snap_make(&m, (unsigned)rng_below(&m.rng, SNAPS));
		if (rng_one_in(&m.rng, 350))
			snap_drop(&m, (unsigned)rng_below(&m.rng, SNAPS));
		if (rng_one_in(&m.rng, 500))
			commit_and_reopen(&m);
		if (rng_one_in(&m.rng, 1500)) {
			ck_ok(lab_commit(&m.l));
			check_state(&m);
		}
	}
	for (unsigned i = 0; i < SNAPS; i++)
		snap_drop(&m, i);
	/* one by one: of many at a time an empty leaf may stay (balance.c) */
	for (unsigned i = 0; i < keys; i++)
		change_many(&m, i, 1, true);
	if (m.l.fs.root.blk) /* it still stands from an earlier batch */
		ck_assert_uint_le(m.l.fs.nodes, 3);
	ck_ok(lab_commit(&m.l));
	check_state(&m);
	test_log_show();
	lab_close(&m.l);
	free(m.live);
	free(m.buf);
}

static const uint32_t sizes[] = { 4096, 8192, 16384, 32768, 65536 };

START_TEST(trees_and_snapshots_hold_what_the_model_holds)
{
	uint32_t size = sizes[_i];

	run(size, 1 + (unsigned)_i % 2, 3000, test_rounds(4000), 0);
	run(size, 2 - (unsigned)_i % 2, 2000, test_rounds(2000), 1);
	run(size, 1, 500, test_rounds(2000), 2);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("model_btree");
	TCase *tc = tcase_create("random");

	tcase_set_timeout(tc, 0);
	tcase_add_loop_test(tc, trees_and_snapshots_hold_what_the_model_holds,
			    0, ARRAY_SIZE(sizes));
	suite_add_tcase(s, tc);
	return test_main(s);
}
