/*
 * test_scrub.c - scrub: stretches, going on, in the background
 */
#include <pthread.h>
#include <unistd.h>

#include "unit/scrub_fixture.h"

#define MIB (UINT64_C(1) << 20)

/* ---- counts ---- */

/* Snapshots that share most of their extents with others. */
static void make_history(void)
{
	char name[32];

	for (unsigned i = 0; i < 8; i++) {
		uint64_t ino, copied;

		snprintf(name, sizeof(name), "snap-%u", i);
		ck_ok(snap_create(store, name, NULL));
		fill(ino_big, i * 100000, 30000, i);
		ino = make_node(1, name, S_IFREG | 0644, NULL);
		ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, ino, 0,
				    BIG_BLOCKS << 12, &copied));
		fill(ino, i * 4096 * 3, 20000, i + 50);
	}
	ck_ok(store_commit(store, NULL, NULL));
}

static void assert_counted_once(void)
{
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(st.checksums, st.blocks - st.prealloc_blocks);
	ck_assert_uint_eq(st.prealloc_blocks, 50);
	ck_assert_uint_eq(st.done, st.total);
}

START_TEST(every_window_gives_the_same_counts)
{
	static const uint64_t windows[] = { 0, 100000, 20000, 3000, 500, 64 };
	struct check_options opt = { .data = true };
	struct check_result res;

	make_history();
	ck_ok(check_run(store, &opt, &res));
	ck_assert_uint_gt(res.data_blocks, BIG_BLOCKS);
	for (unsigned i = 0; i < 6; i++) {
		new_scrub(windows[i]);
		run_it(false, NULL);
		assert_counted_once();
		ck_assert_uint_eq(st.data_blocks, res.data_blocks);
		ck_assert_uint_eq(st.snapshots, 8);
		/* its own record may have cost a node */
		ck_assert_uint_le(st.nodes, res.nodes + 2);
		ck_assert_uint_ge(st.nodes, res.nodes);
		free_scrub();
	}
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- going on ---- */

/* How often progress was told of, and when something is to be done then. */
static unsigned calls, stop_at;

static int pause_there(void *arg)
{
	(void)arg;
	if (++calls == stop_at)
		ck_ok(scrub_pause(sc));
	return 0;
}

/* The ways in which a scrub comes to be gone on with. */
static void interrupt(unsigned how)
{
	if (how == 0) /* paused only */
		return;
	if (how == 1) {
		free_scrub();
		unmount_it();
	} else {
		ck_ok(store_commit(store, NULL, NULL));
		free_scrub();
		fs_umount(fs);
		store_abandon(store); /* as in a crash */
		store = NULL;
	}
	mount_it();
	new_scrub(2000);
	scrub_status(sc, &st);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert(!st.running);
}

START_TEST(paused_anywhere_and_resumed_counts_each_block_once)
{
	uint64_t data;
	bool ended;

	make_history();
	new_scrub(2000);
	run_it(false, NULL);
	data = st.data_blocks;
	free_scrub();
	for (stop_at = 1, ended = false; !ended; stop_at++) {
		uint64_t before;

		new_scrub(2000);
		calls = 0;
		run_it(false, pause_there);
		ended = st.state == COWFS_SCRUB_FINISHED;
		before = st.data_blocks;
		if (!ended) {
			interrupt(stop_at % 3);
			ck_assert_uint_eq(st.data_blocks, before);
			run_it(true, NULL);
		}
		assert_counted_once();
		ck_assert_uint_eq(st.data_blocks, data);
		free_scrub();
	}
	ck_assert_uint_gt(stop_at, 10);
	unmount_it();
	assert_clean();
}
END_TEST

static struct bdev *copy;

/* The device as a crash would leave it now. */
static int copy_there(void *arg)
{
	(void)arg;
	if (++calls == stop_at) {
		ck_ok(store_commit(store, NULL, NULL));
		ck_ok(dev_copy(copy, dev));
	}
	return 0;
}

START_TEST(after_a_crash_it_goes_on_from_where_it_was_noted)
{
	struct bdev *keep = dev;
	unsigned under_way = 0;
	int64_t early;
	uint64_t data;

	make_history();
	lose(big_block() + 20);
	new_scrub(2000);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 1);
	data = st.data_blocks;
	early = st.began;
	for (stop_at = 3; stop_at < 13; stop_at++) {
		ck_ok(bdev_open_mem(DEV_BYTES, &copy));
		scrub_set_window(sc, 2000, 0);
		calls = 0;
		run_it(false, copy_there);
		free_scrub();
		unmount_it();
		dev = copy;
		mount_it();
		new_scrub(2000);
		scrub_status(sc, &st);
		ck_assert_int_eq(st.state, COWFS_SCRUB_RUNNING);
		ck_assert(!st.running);
		ck_assert_int_ge(st.began, early);
		ck_assert_uint_lt(st.data_blocks, data);
		under_way += st.data_blocks > 0;
		run_it(true, NULL);
		ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
		ck_assert_uint_eq(st.data_blocks, data);
		ck_assert_uint_eq(st.lost, 1);
		ck_assert_uint_eq(st.problems, 1);
		read_report();
		ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
		free_scrub();
		unmount_it();
		bdev_close(copy);
		dev = keep;
		mount_it();
		new_scrub(2000);
	}
	ck_assert_uint_gt(under_way, 4);
	free_scrub();
}
END_TEST

START_TEST(what_was_verified_is_not_read_again)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	new_scrub(1000);
	calls = 0;
	stop_at = 4; /* some windows are done then */
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert_uint_gt(st.data_blocks, 1);
	ck_assert_uint_lt(st.data_blocks, BIG_BLOCKS - 10);
	lose(blk);                  /* done */
	lose(blk + BIG_BLOCKS - 5); /* not yet */
	run_it(true, NULL);
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.lost, 1);
	read_report();
	ck_assert_uint_eq(from_le64(first_of(COWFS_SCRUB_DATA)->blk),
			  blk + BIG_BLOCKS - 5);
	run_it(false, NULL); /* anew */
	ck_assert_uint_eq(st.lost, 2);
	free_scrub();
}
END_TEST

START_TEST(damage_found_before_a_pause_stays_in_the_report)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	lose(blk);
	new_scrub(1000);
	calls = 0;
	stop_at = 5;
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert_uint_eq(st.lost, 1);
	interrupt(1);
	ck_assert_uint_eq(st.lost, 1);
	run_it(true, NULL);
	ck_assert_uint_eq(st.lost, 1);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	/* and after it has ended, too */
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.damaged, 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	/* a new one forgets it */
	fill(ino_big, 0, 4096, 2);
	run_it(false, NULL);
	read_report();
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(entries, 0);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_uint_eq(entries, 0);
	free_scrub();
}
END_TEST

START_TEST(the_verbs_refuse_what_makes_no_sense)
{
	new_scrub(1000);
	ck_err(scrub_pause(sc), -ESRCH);
	ck_err(scrub_cancel(sc), -ESRCH);
	ck_err(scrub_set_rate(sc, 1), -ESRCH);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	calls = 0;
	stop_at = 3;
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_ok(scrub_cancel(sc));
	scrub_status(sc, &st);
	ck_assert(st.cancelled);
	ck_err(scrub_cancel(sc), -ESRCH);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	run_it(false, NULL);
	ck_assert(st.finished);
	free_scrub();
}
END_TEST

/* ---- a record that cannot be ---- */

START_TEST(a_record_that_cannot_be_is_no_record)
{
	struct rng r;
	uint8_t junk[300];

	rng_init(&r, test_seed(), 9);
	for (unsigned i = 0; i < test_rounds(300); i++) {
		uint32_t len = (uint32_t)rng_range(&r, 1, sizeof(junk));
		uint64_t n = rng_below(&r, 4);

		rng_fill(&r, junk, sizeof(junk));
		if (rng_one_in(&r, 2) && !n)
			len = sizeof(struct cowfs_disk_scrub);
		if (rng_one_in(&r, 2)) { /* nearly right */
			junk[0] = (uint8_t)rng_below(&r, 6);
			memset(junk + 1, 0, 7);
			memset(junk + 0x2a, 0, 6);
		}
		put(COWFS_ROOT_SNAP,
		    KEY(0, COWFS_KEY_SETTING,
			COWFS_SETTING(COWFS_SETTING_SCRUB, n)), junk, len);
		new_scrub(3000);
		read_report();
		if (i % 16 == 0) {
			ck_assert_int_eq(scrub_here(sc, true, 0, NULL, NULL) %
						 ENOENT, 0);
			run_it(false, NULL);
			ck_assert_uint_eq(st.problems, 0);
		}
		free_scrub();
	}
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- in the background ---- */

static void wait_end(void)
{
	for (unsigned i = 0; i < 30000; i++) {
		scrub_status(sc, &st);
		if (!st.running)
			return;
		usleep(1000);
	}
	ck_abort_msg("scrub does not end");
}

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

START_TEST(a_rate_is_kept_and_can_be_changed)
{
	uint64_t began = now_ms();

	new_scrub(0);
	ck_ok(scrub_start(sc, false, 4 * MIB));
	ck_err(scrub_start(sc, false, 0), -EBUSY);
	wait_end();
	ck_assert(st.finished);
	ck_assert_uint_eq(st.rate, 4 * MIB);
	/* 1.2 MB of data, and nodes */
	ck_assert_uint_gt(now_ms() - began, 200);
	began = now_ms();
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	scrub_status(sc, &st);
	ck_assert(st.running);
	ck_ok(scrub_set_rate(sc, 0));
	wait_end();
	ck_assert(st.finished);
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	ck_ok(scrub_cancel(sc));
	wait_end();
	ck_assert(st.cancelled);
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	free_scrub(); /* an unmount waits for nothing */
	ck_assert_uint_lt(now_ms() - began, 20000);
	new_scrub(0);
	scrub_status(sc, &st);
	ck_assert_int_eq(st.state, COWFS_SCRUB_RUNNING);
	ck_assert(!st.running);
	ck_ok(scrub_start(sc, true, 0));
	wait_end();
	ck_assert(st.finished);
	free_scrub();
}
END_TEST

struct upset {
	_Atomic bool end;
	unsigned rounds;
};

/* What may happen to trees while they are walked. */
static void *upset_trees(void *arg)
{
	struct upset *u = arg;

	for (unsigned i = 0; !atomic_load(&u->end); i++, u->rounds++) {
		char name[32];

		snprintf(name, sizeof(name), "up-%u", i);
		ck_ok(snap_create(store, name, NULL));
		fill(ino_big, i % 50 * 20000, 90000, i);
		if (i % 3 == 2) {
			snprintf(name, sizeof(name), "up-%u", i - 1);
			ck_ok(fs_restore(fs, name,
					 i % 2 ? NULL : COWFS_SNAP_UNDO, NULL));
		}
		if (i >= 4) {
			snprintf(name, sizeof(name), "up-%u", i - 4);
			ck_ok(fs_snap_delete(fs, name));
		}
		if (i % 4 == 0)
			ck_ok(store_commit(store, NULL, NULL));
	}
	return NULL;
}

START_TEST(snapshots_may_come_and_go_and_be_restored)
{
	unsigned rounds = test_rounds(12);
	struct upset u = { .rounds = 0 };
	pthread_t thread;

	ck_ok(store_start(store));
	new_scrub(3000);
	ck_assert_int_eq(pthread_create(&thread, NULL, upset_trees, &u), 0);
	for (unsigned i = 0; i < rounds; i++) {
		ck_ok(scrub_start(sc, false, 0));
		/* not for ever: each time all metadata is walked again, which
		 * takes longer than the pause where programs are slow */
		for (unsigned k = 0; k < 5 && i % 3 == 2 &&
				     scrub_pause(sc) == 0; k++) {
			wait_end();
			if (st.state == COWFS_SCRUB_PAUSED)
				ck_ok(scrub_start(sc, true, 0));
			usleep(3000);
		}
		do {
			static struct cowfs_ioc_report page;

			page.from = i * 7;
			scrub_report(sc, &page);
			scrub_status(sc, &st);
			usleep(500);
		} while (st.running);
		ck_assert_int_eq(st.error, 0);
		ck_assert_uint_eq(st.problems, 0);
		ck_assert(st.finished);
	}
	atomic_store(&u.end, true);
	pthread_join(thread, NULL);
	ck_assert_uint_gt(u.rounds, 3);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

static void add_all(TCase *tc)
{
	tcase_add_test(tc, every_window_gives_the_same_counts);
	tcase_add_test(tc, paused_anywhere_and_resumed_counts_each_block_once);
	tcase_add_test(tc, after_a_crash_it_goes_on_from_where_it_was_noted);
	tcase_add_test(tc, what_was_verified_is_not_read_again);
	tcase_add_test(tc, damage_found_before_a_pause_stays_in_the_report);
	tcase_add_test(tc, the_verbs_refuse_what_makes_no_sense);
	tcase_add_test(tc, a_record_that_cannot_be_is_no_record);
	tcase_add_test(tc, a_rate_is_kept_and_can_be_changed);
	tcase_add_test(tc, snapshots_may_come_and_go_and_be_restored);
}

int main(void)
{
	Suite *s = suite_create("scrub");

	test_case(s, "one copy of data", 300, setup, teardown, add_all);
	return test_main(s);
}
