/*
 * test_txn_nodes.c - nodes are read, evicted and lost while commits go on
 */
#include "unit/txn_fixture.h"

static int change_references(struct store *s, int n)
{
	struct key k = KEY(5, COWFS_KEY_INODE, 0);
	struct op op;
	uint64_t i;
	int err = op_write(&op, s, ALLOC_NORMAL, 1);

	if (err)
		return err;
	do
		err = put_locked(s, &k, (uint64_t)n + 1);
	while (op_again(&op, &err));
	for (i = 2000; !err && i < 60000; i += 2)
		err = alloc_ref(s->alloc, i, 1, n, 0);
	return op_end(&op, err);
}

static int look_up_locked(struct store *s, void *arg)
{
	struct key k = KEY(5, COWFS_KEY_INODE, 0);
	struct item it;

	(void)arg;
	return tree_get(&s->fs, &k, &it);
}

START_TEST(a_commit_gets_through_with_a_cache_far_too_small)
{
	struct store_config cfg = { .cache_bytes = 1 };
	struct store *s;

	teardown();
	format(256 * MIB, 4096);
	cfg.dev = mem;
	ck_ok(store_open(&cfg, &s));
	ck_ok(change_references(s, 1));
	ck_ok(store_commit(s, NULL, NULL));
	/* a cache holds at least 64 */
	ck_assert_uint_gt(s->refs.nodes, 2 * 64);
	ck_ok(store_commit(s, NULL, NULL));
	ck_ok(change_references(s, 1));
	ck_ok(store_commit(s, look_up_locked, NULL));
	ck_ok(store_commit(s, NULL, NULL));
	ck_ok(change_references(s, -2));
	ck_ok(store_commit(s, NULL, NULL));
	ck_assert_uint_eq(s->refs.nodes, 0);
	ck_ok(store_close(s));
}
END_TEST

/* ---- a flush that fails ---- */

static struct bdev_ops lossy_ops; /* of `mem`, but for flush */
static uint8_t *flushed;          /* all of it, as it was */

/* What was written is lost, as it is if the host lets go of pages that it could
 * not write. */
static int losing_flush(struct bdev *dev)
{
	ck_ok(bdev_write(dev, 0, flushed, dev->size));
	return -EIO;
}

START_TEST(what_a_failed_flush_has_lost_can_be_read_all_the_same)
{
	struct store_config cfg = { .dev = mem, .cache_bytes = 64 * 4096 };
	struct store *s = open_on(mem, 0);
	uint64_t i;

	fill(s, 5000, 1);
	ck_ok(store_close(s));
	ck_ok(store_open(&cfg, &s));
	flushed = malloc(mem->size);
	ck_assert_ptr_nonnull(flushed);
	ck_ok(bdev_read(mem, 0, flushed, mem->size));
	fill(s, 500, 2); /* few enough to need no commit */
	lossy_ops = *mem->ops;
	lossy_ops.flush = losing_flush;
	mem->ops = &lossy_ops;
	test_log_hide();
	ck_err(store_commit(s, NULL, NULL), -EIO);
	ck_assert(store_stopped(s));
	for (i = 501; i <= 5000; i++) /* more than the cache holds */
		ck_assert_uint_eq(value(s, i), i * 1000 + 1);
	expect(s, &s->fs, 500, 2);
	test_log_show();
	store_abandon(s);
	free(flushed);
}
END_TEST

/* ---- reading while a generation is closed ---- */

static void fill_at_once(struct store *s, uint64_t n)
{
	struct op op;
	uint64_t i;

	ck_ok(op_write(&op, s, ALLOC_NORMAL, 1));
	for (i = 1; i <= n; i++) {
		struct key k = KEY(i, COWFS_KEY_INODE, 0);

		ck_ok(put_locked(s, &k, i));
	}
	ck_ok(op_end(&op, 0));
	ck_ok(store_close(s));
}

#define HUGE_ITEMS 4u /* that make a leaf full, each a quarter of it */

static void fill_with_huge(struct store *s, uint64_t n)
{
	static const uint8_t data[COWFS_ITEM_MAX(4096)];
	struct op op;
	uint64_t i;

	ck_ok(op_write(&op, s, ALLOC_NORMAL, 1));
	for (i = 0; i < n; i++) {
		struct key k = KEY(i, COWFS_KEY_INODE, 0);

		ck_ok(tree_put(&s->fs, &k, data, sizeof(data)));
	}
	ck_ok(op_end(&op, 0));
	ck_ok(store_close(s));
}

/* All of a leaf, so that its keys belong to the one before, which is at hand. */
static int delete_leaf_locked(struct store *s, uint64_t first)
{
	struct key k = KEY(first - 1, COWFS_KEY_INODE, 0);
	struct item it;
	int err = tree_get(&s->fs, &k, &it);

	for (k.obj = first; !err && k.obj < first + HUGE_ITEMS; k.obj++)
		err = tree_prepare(&s->fs, &k);
	for (k.obj = first; !err && k.obj < first + HUGE_ITEMS; k.obj++)
		err = tree_delete(&s->fs, &k);
	return err;
}

START_TEST(fsync_gets_through_with_a_cache_far_too_small)
{
	struct store_config cfg = { .dev = mem, .cache_bytes = 64 * 4096 };
	const unsigned leaves = 200;
	struct commit_stats before, after;
	struct store *s;
	struct op op;
	uint64_t i, val;
	int err;

	fill_with_huge(open_on(mem, 0), (2 * leaves + 10) * HUGE_ITEMS);
	ck_ok(store_open(&cfg, &s));
	store_commit_stats(s, &before);
	for (i = 1; i <= leaves; i++) {
		ck_ok(op_write(&op, s, ALLOC_FREEING, 4));
		do
			err = delete_leaf_locked(s, 2 * i * HUGE_ITEMS);
		while (op_again(&op, &err));
		ck_ok(op_end(&op, err));
	}
	store_commit_stats(s, &after);
	ck_assert_uint_eq(after.commits, before.commits); /* all in one */
	ck_ok(store_sync(s));
	store_abandon(s);
	s = open_on(mem, 0);
	for (i = 1; i <= leaves; i++) {
		ck_ok(get_in(s, &s->fs, 2 * i * HUGE_ITEMS - 1, &val));
		ck_err(get_in(s, &s->fs, 2 * i * HUGE_ITEMS, &val), -ENOENT);
	}
	ck_ok(store_close(s));
}
END_TEST

#define READERS 16u
#define TRIES 5u /* the last one of a commit's keeps the lock (PRELOAD_TRIES) */

static struct bdev_ops gated_ops; /* of `mem`, but for read */
static int (*ungated_read)(struct bdev *dev, uint64_t off, void *buf,
			   size_t len);
static struct store *gated_store;
static _Thread_local bool is_reader;
static _Atomic unsigned waiting, ended, failed;
static _Atomic bool gate_open;
static unsigned tried; /* by the commit */
static uint64_t evicted_under_lock;

static void nap(unsigned ms)
{
	const struct timespec t = { .tv_nsec = ms * 1000000L };

	nanosleep(&t, NULL);
}

static uint64_t evicted(void)
{
	struct forest_stats st;

	forest_stats(gated_store->forest, &st);
	return st.evicted;
}

/* Readers wait until the commit reads with the tree lock held, which waits for
 * what they do then. */
static int gated_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	if (is_reader) {
		atomic_fetch_add(&waiting, 1);
		while (!atomic_load(&gate_open))
			nap(1);
	} else if (tried == TRIES) {
		evicted_under_lock = evicted();
		atomic_store(&gate_open, true);
		nap(300);
		evicted_under_lock = evicted() - evicted_under_lock;
		ck_assert_uint_eq(atomic_load(&ended), 0);
	}
	return ungated_read(dev, off, buf, len);
}

static void *read_one(void *arg)
{
	uint64_t val;

	is_reader = true;
	if (get_in(gated_store, &gated_store->fs, *(uint64_t *)arg, &val))
		atomic_fetch_add(&failed, 1);
	atomic_fetch_add(&ended, 1);
	return NULL;
}

/* A leaf that is not in memory, another one each time. */
static int miss_locked(struct store *s, void *arg)
{
	struct key k = KEY(15000 + 100 * tried, COWFS_KEY_INODE, 0);
	struct item it;

	(void)arg;
	if (tried == TRIES)
		return 0;
	tried++;
	return tree_get(&s->fs, &k, &it);
}

START_TEST(nodes_are_not_evicted_beside_one_who_holds_the_tree_lock)
{
	struct store_config cfg = { .dev = mem, .cache_bytes = 1 };
	uint64_t obj[READERS], val;
	pthread_t thread[READERS];
	unsigned i;

	fill_at_once(open_on(mem, 0), 20000);
	ck_ok(store_open(&cfg, &gated_store));
	for (i = 10000; i < 15000; i += 20) /* the cache is full */
		ck_ok(get_in(gated_store, &gated_store->fs, i, &val));
	for (i = 0; i < READERS; i++) {
		obj[i] = 1000 * i / 2 + 500;
		/* a neighbour: the nodes above them are in memory */
		ck_ok(get_in(gated_store, &gated_store->fs, obj[i] + 100,
			     &val));
	}
	gated_ops = *mem->ops;
	ungated_read = gated_ops.read;
	gated_ops.read = gated_read;
	mem->ops = &gated_ops;
	for (i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, read_one,
						&obj[i]), 0);
	while (atomic_load(&waiting) < READERS)
		nap(1);
	ck_ok(store_commit(gated_store, miss_locked, NULL));
	ck_assert_uint_eq(tried, TRIES);
	ck_assert(atomic_load(&gate_open));
	for (i = 0; i < READERS; i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_eq(atomic_load(&failed), 0);
	ck_assert_uint_eq(evicted_under_lock, 0);
	ck_ok(store_close(gated_store));
}
END_TEST

static Suite *nodes_suite(void)
{
	Suite *s = suite_create("txn nodes");
	TCase *tc = tcase_create("nodes");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, a_commit_gets_through_with_a_cache_far_too_small);
	tcase_add_test(tc,
		       what_a_failed_flush_has_lost_can_be_read_all_the_same);
	tcase_add_test(tc, fsync_gets_through_with_a_cache_far_too_small);
	tcase_add_test(tc,
		       nodes_are_not_evicted_beside_one_who_holds_the_tree_lock);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(nodes_suite());
}
