/*
 * test_btree_nodes.c - nodes between the device and memory: errors, the cache,
 * threads
 */
#include "unit/btree_fixture.h"

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
	b = forest_close_gen(l->forest);
	alloc_close(l->alloc, gen);
	lab_locked = false;
	pthread_rwlock_unlock(&l->lock);
	ck_ok(node_batch_write(b, &bytes));
	node_batch_done(b, true);
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

static void add_errors(TCase *tc)
{
	tcase_add_test(tc, a_bad_copy_is_replaced_by_the_other);
	tcase_add_test(tc, a_read_error_passes_and_leaves_no_trace);
	tcase_add_test(tc, a_node_that_is_another_one_is_refused);
	tcase_add_test(tc, nodes_that_could_not_be_written_stay_in_memory);
}

static void add_cache(TCase *tc)
{
	tcase_add_test(tc, a_walk_tells_the_device_of_the_leaves_to_come);
	tcase_add_test(tc, the_cache_keeps_to_its_limit);
	tcase_add_test(tc, node_read_takes_nodes_from_memory_or_device);
}

static void add_threads(TCase *tc)
{
	tcase_add_test(tc, readers_writer_and_commits_go_on_together);
}

int main(void)
{
	Suite *s = suite_create("btree, nodes");

	test_case(s, "errors", 0, NULL, NULL, add_errors);
	test_case(s, "cache", 0, NULL, NULL, add_cache);
	test_case(s, "threads", 0, NULL, NULL, add_threads);
	return test_main(s);
}
