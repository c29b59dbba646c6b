/*
 * test_fs_threads.c - many threads in the same directories
 */
#include <pthread.h>
#include <stdio.h> /* RENAME_* */

#include "unit/fs_fixture.h"

#define THREADS 4

struct worker {
	pthread_t thread;
	struct rng rng;
	uint64_t dirs[3];
	int bad; /* an error that must not be */
};

static int random_op(struct worker *w)
{
	uint64_t d = w->dirs[rng_below(&w->rng, 3)];
	uint64_t e = w->dirs[rng_below(&w->rng, 3)];
	char n[8], m[8], buf[64];
	struct attr a;
	size_t len;
	int err;

	snprintf(n, sizeof(n), "%u", (unsigned)rng_below(&w->rng, 12));
	snprintf(m, sizeof(m), "%u", (unsigned)rng_below(&w->rng, 12));
	switch (rng_below(&w->rng, 10)) {
	case 0:
		return make_as(d, n, S_IFREG | 0644, &root_cred, &a);
	case 1:
		return make_as(d, n, S_IFDIR | 0755, &root_cred, &a);
	case 2:
		return unlink_it(d, n);
	case 3:
		return rmdir_it(d, n);
	case 4:
		return rename_it(d, n, e, m, 0);
	case 5:
		return rename_it(d, n, e, m, RENAME_EXCHANGE);
	case 6:
		return fs_readdir(fs, fs_live(fs), d, 0, true, take_entry, NULL);
	case 7:
		err = look(d, n, &a);
		if (err)
			return err;
		err = fs_open(fs, a.ino, false, false);
		if (err)
			return err;
		if (S_ISREG(a.mode))
			err = fs_write(fs, a.ino, 0, "data", 4, 0);
		fs_release(fs, a.ino, false, NULL);
		return err;
	case 8:
		err = look(d, n, &a);
		return err ? err : fs_setxattr(fs, a.ino, "user.n", n, 2, 0,
					       &root_cred);
	default:
		err = look(d, n, &a);
		return err ? err : fs_getxattr(fs, fs_live(fs), a.ino,
					       "user.n", buf, sizeof(buf),
					       &len);
	}
}

static bool expected(int err)
{
	static const int fine[] = { 0, -EEXIST, -ENOENT, -ENOTDIR, -EISDIR,
				    -ENOTEMPTY, -ESTALE, -ENODATA, -EINVAL };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fine); i++)
		if (err == fine[i])
			return true;
	return false;
}

static void *work(void *arg)
{
	struct worker *w = arg;
	unsigned i, n = test_rounds(1500);
	int err;

	for (i = 0; i < n && !w->bad; i++) {
		err = random_op(w);
		if (!expected(err))
			w->bad = err;
		if (rng_one_in(&w->rng, 200) && store_commit(store, NULL, NULL))
			w->bad = -EIO;
	}
	return NULL;
}

static void run_workers(struct worker *w, bool snapshots)
{
	uint64_t dirs[3] = { make_dir(ROOT, "a"), make_dir(ROOT, "b"), ROOT };
	struct view *v;
	struct attr a;
	unsigned i;

	for (i = 0; i < THREADS; i++) {
		rng_init(&w[i].rng, test_seed(), i);
		memcpy(w[i].dirs, dirs, sizeof(dirs));
		w[i].bad = 0;
		ck_assert_int_eq(pthread_create(&w[i].thread, NULL, work,
						&w[i]), 0);
	}
	for (i = 0; snapshots && i < 20; i++) {
		ck_ok(snap_create(store, "s", NULL));
		ck_ok(fs_view_open(fs, "s", &v));
		ck_ok(fs_readdir(fs, v, ROOT, 0, true, take_entry, NULL));
		if (i % 2)
			ck_ok(fs_restore(fs, "s", COWFS_SNAP_UNDO, NULL));
		ck_ok(fs_snap_delete(fs, "s"));
		ck_err(fs_getattr(fs, v, ROOT, &a), -ESTALE);
		fs_view_put(fs, v);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(w[i].thread, NULL);
		ck_assert_msg(!w[i].bad, "thread %u: %s", i,
			      strerror(-w[i].bad));
	}
}

START_TEST(threads_work_in_the_same_directories)
{
	struct worker w[THREADS];

	ck_ok(store_start(store));
	run_workers(w, false);
}
END_TEST

START_TEST(threads_work_while_snapshots_come_and_go)
{
	struct worker w[THREADS];

	ck_ok(store_start(store));
	run_workers(w, true);
}
END_TEST

static void add_threads(TCase *tc)
{
	tcase_add_test(tc, threads_work_in_the_same_directories);
	tcase_add_test(tc, threads_work_while_snapshots_come_and_go);
}

int main(void)
{
	Suite *s = suite_create("fs threads");

	add_case(s, "threads", setup, add_threads);
	add_case(s, "threads in small nodes", setup_small_nodes, add_threads);
	return test_main(s);
}
