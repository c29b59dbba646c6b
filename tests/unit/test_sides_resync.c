/*
 * test_sides_resync.c - a filesystem on a mirror: sides that are filled, added
 * and removed
 */
#include <pthread.h>
#include <time.h>

#include "unit/sides_fixture.h"

/* ---- a side that was away ---- */

START_TEST(a_side_that_was_away_is_stale_until_scrub_is_done)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);

	close_it();
	ck_ok(open_it(1u << !s));
	ck_assert_int_eq(state(s), SIDE_GONE);
	write_some(10);
	close_it();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	write_some(5);
	close_it(); /* it has the newest superblock now, and is stale still */
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
	scrub();
	ck_assert_int_eq(state(s), SIDE_GOOD);
	ck_assert_uint_gt(atomic_load(&t.s->io.stats.resynced), 0);
	write_some(5);
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	close_it();
	check_each_side();
}
END_TEST

/* Whatever lies on a stale side, nothing is read from it. */
START_TEST(a_side_that_was_zeroed_is_stale)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);

	close_it();
	wipe(s);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
	write_some(5);
	scrub();
	close_it();
	check_each_side();
}
END_TEST

START_TEST(an_incomplete_side_alone_may_be_read_but_not_written)
{
	uint64_t digest;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	write_some(3);
	close_it();
	ck_err(open_it(2), -ENODEV);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "not complete"));
	ck_ok(open_it(1)); /* the good one may */
	close_it();
	ck_ok(open_it(BOTH));
	scrub();
	close_it();
	ck_ok(open_it(2));
	ck_ok(fs_digest(t.fs, &digest));
	ck_assert_uint_eq(digest, t.digest);
}
END_TEST

/* ---- filling it in several goes ---- */

static int pause_half_way(void *arg)
{
	struct cowfs_ioc_scrub now;

	scrub_status(arg, &now);
	if (now.data_blocks > 300)
		ck_ok(scrub_pause(arg));
	return 0;
}

static int no_pause(void *arg)
{
	(void)arg;
	return 0;
}

/* A scrub in small pieces; what it says at its end. */
static struct cowfs_ioc_scrub fill(bool resume, bool half)
{
	struct cowfs_ioc_scrub now;
	struct scrub *sc;

	ck_ok(scrub_new(t.s, &sc));
	scrub_set_window(sc, 1 << 20, 0);
	ck_ok(scrub_here(sc, resume, 0, half ? pause_half_way : no_pause, sc));
	scrub_status(sc, &now);
	ck_assert_int_eq(now.state, half ? COWFS_SCRUB_PAUSED :
					   COWFS_SCRUB_FINISHED);
	scrub_free(sc);
	return now;
}

/* What happens between the two; those after the first three make the side miss
 * something, or may have. */
START_TEST(filling_a_side_goes_on_where_it_was_unless_it_missed_something)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct bdev *old = NULL;
	struct cowfs_ioc_scrub now;

	write_big();
	t.digest = look();
	close_it();
	wipe(s);
	ck_ok(open_it(BOTH));
	ck_ok(store_commit(t.s, NULL, NULL));
	if (_i == 5)
		old = copy_of(s);
	(void)fill(false, true);
	ck_ok(store_commit(t.s, NULL, NULL));
	write_some(3);
	if (_i % 2)
		crash();
	else
		close_it();
	switch (_i) {
	case 2: /* more of the same */
		ck_ok(open_it(BOTH));
		write_some(3);
		crash();
		break;
	case 3: /* it was away */
	case 4:
		ck_ok(open_it(1u << !s));
		write_some(5);
		close_it();
		if (_i == 3)
			break;
		ck_ok(open_it(BOTH)); /* and seen before */
		write_some(1);
		crash();
		break;
	case 5:
		put_back(s, old);
		break;
	case 6: /* it fails */
		ck_ok(open_it(BOTH));
		fault_from(t.side[s], FAULT_WRITE, 1, -EIO);
		ck_ok(write_file("missed", true));
		t.digest = look();
		crash();
		break;
	}
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	now = fill(true, false);
	if (_i < 3)
		ck_assert_uint_lt(now.run_done + 300, now.done);
	ck_assert_int_eq(state(s), SIDE_GOOD);
	close_it();
	check_each_side();
}
END_TEST

static int cancel(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	(void)total;
	return done > 200;
}

START_TEST(a_scrub_that_was_cancelled_leaves_it_stale)
{
	struct check_options opt = { .data = true, .mend = true,
				     .progress = cancel };
	struct check_result res;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	write_some(40);
	ck_err(check_run(t.s, &opt, &res), -ECANCELED);
	ck_assert_int_eq(state(1), SIDE_STALE);
	opt.progress = NULL; /* nor does one that only looks, or at nodes */
	opt.data = false;
	ck_ok(check_run(t.s, &opt, &res));
	opt.data = true;
	opt.mend = false;
	ck_ok(check_run(t.s, &opt, &res));
	ck_assert_int_eq(state(1), SIDE_STALE);
	close_it();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(1), SIDE_STALE);
	ck_assert_uint_ne(said_stale(0, 1), 0);
	ck_assert_uint_ne(said_stale(1, 1), 0);
}
END_TEST

START_TEST(a_side_that_fails_during_resync_stays_stale)
{
	close_it();
	wipe(0);
	ck_ok(open_it(BOTH));
	fail_side(0, FAULT_WRITE, 5);
	(void)write_file("x", true);
	scrub();
	ck_assert_int_eq(state(0), SIDE_GONE);
	t.digest = look();
	close_it();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(0), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* The last write of a resync reached only one side: either way it is right. */
START_TEST(a_crash_at_the_end_of_a_resync_is_safe)
{
	unsigned s = (unsigned)_i % 2, i;
	struct bdev *old[2], *now[2];

	close_it();
	wipe(0);
	ck_ok(open_it(BOTH));
	write_some(3);
	for (i = 0; i < 3; i++) /* so that the scrub finds nothing to commit */
		ck_ok(store_commit(t.s, NULL, NULL));
	old[!s] = copy_of(!s);
	scrub();
	now[s] = copy_of(s);
	crash();
	if (s == 1 && _i >= 2) { /* and side 1 never comes back */
		bdev_close(old[!s]);
		bdev_close(now[s]);
		check_contents(1);
		return;
	}
	put_back(s, now[s]);
	put_back(!s, old[!s]);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(1), SIDE_GOOD);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_contents(BOTH);
	check_contents(2);
}
END_TEST

/* D7 in sides.c. */
START_TEST(since_when_a_stale_side_missed_nothing_is_known)
{
	struct cowfs_disk_super d;
	struct bdev *old;
	uint64_t since;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	since = store_side_since(t.s, 1);
	ck_assert_uint_ne(since, 0);
	write_some(3);
	ck_ok(store_commit(t.s, NULL, NULL));
	ck_assert_uint_eq(store_side_since(t.s, 1), since);
	old = copy_of(1);
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(store_side_since(t.s, 1), since);
	crash();
	put_back(1, old); /* it lacks a superblock */
	ck_ok(open_it(BOTH));
	ck_assert_uint_gt(store_side_since(t.s, 1), since);
	since = store_side_since(t.s, 1);
	ck_ok(write_file("first", true));
	old = copy_of(1);
	ck_ok(write_file("last", true));
	d = super_of(1);
	crash();
	put_back(1, old); /* a record of the log, and nothing else */
	ck_assert_uint_eq(from_le64(super_of(1).gen), from_le64(d.gen));
	ck_ok(open_it(BOTH));
	ck_assert_uint_gt(store_side_since(t.s, 1), since);
}
END_TEST

/* Before fsync returns. */
START_TEST(that_a_stale_side_missed_something_is_written_down)
{
	struct cowfs_disk_super d;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	ck_ok(store_commit(t.s, NULL, NULL));
	d = super_of(0);
	ck_assert_uint_ne(from_le64(d.mirror.since_gen[1]), 0);
	fail_side(1, FAULT_WRITE, 1);
	ck_ok(write_file("missed", true));
	ck_assert_int_eq(state(1), SIDE_GONE);
	d = super_of(0);
	ck_assert_uint_eq(from_le64(d.mirror.since_gen[1]), 0);
}
END_TEST

/* What was copied to it is durable before anybody says so. */
START_TEST(a_side_that_fails_to_flush_what_was_copied_stays_stale)
{
	uint64_t gen;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	gen = store_durable_gen(t.s);
	fail_side(1, FAULT_FLUSH, 1);
	ck_ok(store_resynced(t.s, 2));
	ck_assert_int_eq(state(1), SIDE_GONE);
	ck_assert_uint_eq(store_durable_gen(t.s), gen);
	ck_assert_ptr_null(strstr(test_log_last(), "complete again"));
}
END_TEST

/* It fails when it has just been told: one superblock has both words. */
START_TEST(of_two_words_in_one_superblock_stale_counts)
{
	struct cowfs_disk_super d;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	fail_side(1, FAULT_FLUSH, 2);
	ck_ok(store_resynced(t.s, 2));
	ck_assert_int_eq(state(1), SIDE_GONE);
	d = super_of(0);
	ck_assert_uint_eq(from_le64(d.mirror.synced_gen[1]), from_le64(d.gen));
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(1), SIDE_STALE);
}
END_TEST

/* Or it would contradict whoever says later that the side is stale. */
START_TEST(that_a_side_is_complete_is_said_once)
{
	struct cowfs_disk_super d;
	uint64_t gen;

	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	scrub();
	d = super_of(1);
	gen = from_le64(d.mirror.synced_gen[1]);
	ck_assert_uint_ne(gen, 0);
	scribble('a', false);
	d = super_of(1);
	ck_assert_uint_eq(from_le64(d.mirror.synced_gen[1]), gen);
}
END_TEST

/* ---- more sides, fewer sides ---- */

START_TEST(a_side_lost_for_good_is_replaced)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct cowfs_disk_super d, old;
	struct bdev *new, *gone = t.mem[s];

	close_it();
	old = super_of(s);
	ck_ok(open_it(1u << !s));
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[s]));
	ck_ok(fault_open(t.mem[s], &new));
	ck_ok(store_mirror_add(t.s, new));
	ck_assert_int_eq(state(s), SIDE_STALE);
	write_some(3);
	close_it();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	scrub();
	close_it();
	check_each_side();
	d = super_of(!s);
	ck_assert_mem_ne(d.mirror.dev_uuid[s], old.dev_uuid, 16);
	/* the one that was replaced is not taken for its successor */
	new = t.mem[s];
	t.mem[s] = gone;
	ck_err(open_it(BOTH), -EINVAL);
	t.mem[s] = new;
	bdev_close(gone);
}
END_TEST

START_TEST(a_single_image_becomes_a_mirror_and_a_single_one_again)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };
	struct store_config cfg = { 0 };
	struct store *s;
	struct bdev *new;

	close_it();
	wipe(0);
	wipe(1);
	ck_ok(cowfs_mkfs(t.mem[0], &opt));
	ck_ok(open_it(1));
	write_some(5);
	ck_err(store_mirror_remove(t.s, 1), -EINVAL);
	ck_ok(bdev_open_mem(DEV_BYTES - 4096, &new));
	ck_err(store_mirror_add(t.s, new), -ENOSPC);
	ck_ok(fault_open(t.mem[1], &new));
	ck_ok(store_mirror_add(t.s, new));
	scrub(); /* at once, if wanted */
	close_it();
	check_each_side();
	ck_ok(open_it(1));
	ck_ok(store_mirror_remove(t.s, 1));
	close_it();
	cfg.dev = t.mem[0];
	ck_ok(store_open(&cfg, &s));
	ck_assert_uint_eq(from_le64(s->super.incompat) &
				  COWFS_INCOMPAT_MIRROR, 0);
	ck_ok(store_close(s));
	ck_err(open_it(BOTH), -EINVAL);
	ck_ok(open_it(2)); /* as it was, by itself */
}
END_TEST

/* A new side that went its own way once has a log of generations that the
 * filesystem has yet to come to. */
START_TEST(the_log_of_a_new_side_is_not_believed)
{
	uint64_t gen = 0;
	struct bdev *new;
	unsigned i;

	close_it();
	ck_ok(open_it(2));
	for (i = 0; i < 40; i++) {
		scribble('x', false);
		gen = store_durable_gen(t.s);
		scribble('y', true);
		scribble('z', true);
	}
	ck_assert_uint_eq(store_durable_gen(t.s), gen);
	crash();
	ck_ok(open_it(1));
	ck_ok(store_mirror_remove(t.s, 1));
	ck_ok(fault_open(t.mem[1], &new));
	ck_ok(store_mirror_add(t.s, new));
	scrub();
	while (store_durable_gen(t.s) < gen)
		scribble('a', false);
	ck_assert_uint_eq(store_durable_gen(t.s), gen);
	if (_i)
		scribble('b', true);
	t.digest = look();
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	close_it();
	check_each_side();
}
END_TEST

/* ---- a writer, held up between writing and naming what he wrote ---- */

static _Thread_local bool is_writer;
static _Atomic bool arrived, may_go;
static uint64_t written;

static void nap(void)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	nanosleep(&ms, NULL);
}

static void hold_up(void *arg)
{
	(void)arg;
	if (!is_writer)
		return;
	atomic_store(&arrived, true);
	while (!atomic_load(&may_go))
		nap();
}

static void *writer_main(void *arg)
{
	static uint8_t buf[60000];

	is_writer = true;
	memset(buf, 'w', sizeof(buf));
	return fs_write(t.fs, written, 0, buf, sizeof(buf), 0) ? arg : NULL;
}

START_TEST(what_is_written_while_a_side_comes_is_on_both)
{
	pthread_t writer;
	struct bdev *new;
	struct attr a;
	struct op op;
	void *bad;

	close_it();
	ck_ok(open_it(1));
	ck_ok(fs_create(t.fs, COWFS_INO_ROOT, "w", 1, S_IFREG | 0644, 0, NULL,
			&cred, &a));
	written = a.ino;
	/* The first that he has to wait for is the tree, when all is written. */
	op_read(&op, t.s);
	wait_set_hook(hold_up, NULL);
	ck_assert_int_eq(pthread_create(&writer, NULL, writer_main, &a), 0);
	while (!atomic_load(&arrived))
		nap();
	ck_ok(op_end(&op, 0));
	ck_ok(fault_open(t.mem[1], &new));
	ck_ok(store_mirror_add(t.s, new));
	scrub();
	ck_assert_int_eq(state(1), SIDE_GOOD);
	atomic_store(&may_go, true);
	pthread_join(writer, &bad);
	wait_set_hook(NULL, NULL);
	ck_assert_ptr_null(bad);
	close_it();
	ck_ok(open_flags(1, true)); /* nothing is mended */
	t.digest = look();
	close_it();
	check_each_side();
}
END_TEST

static void add_away(TCase *tc)
{
	tcase_add_test(tc, a_side_that_was_away_is_stale_until_scrub_is_done);
	tcase_add_test(tc, a_side_that_was_zeroed_is_stale);
	tcase_add_test(tc,
		       an_incomplete_side_alone_may_be_read_but_not_written);
}

static void add_filling(TCase *tc)
{
	tcase_add_loop_test(tc,
		filling_a_side_goes_on_where_it_was_unless_it_missed_something, 0, 7);
	tcase_add_test(tc, a_scrub_that_was_cancelled_leaves_it_stale);
	tcase_add_test(tc, a_side_that_fails_during_resync_stays_stale);
	tcase_add_test(tc, since_when_a_stale_side_missed_nothing_is_known);
	tcase_add_test(tc, that_a_stale_side_missed_something_is_written_down);
	tcase_add_test(tc,
		a_side_that_fails_to_flush_what_was_copied_stays_stale);
	tcase_add_test(tc, of_two_words_in_one_superblock_stale_counts);
	tcase_add_test(tc, that_a_side_is_complete_is_said_once);
	tcase_add_loop_test(tc, a_crash_at_the_end_of_a_resync_is_safe, 0, 4);
}

static void add_more(TCase *tc)
{
	tcase_add_test(tc, a_side_lost_for_good_is_replaced);
	tcase_add_test(tc, what_is_written_while_a_side_comes_is_on_both);
	tcase_add_test(tc,
		       a_single_image_becomes_a_mirror_and_a_single_one_again);
	tcase_add_loop_test(tc, the_log_of_a_new_side_is_not_believed, 0, 2);
}

int main(void)
{
	Suite *s = suite_create("sides, resync");

	test_case(s, "one was away", 60, setup, teardown, add_away);
	test_case(s, "filling", 60, setup, teardown, add_filling);
	test_case(s, "more and fewer", 60, setup, teardown, add_more);
	return test_main(s);
}
