/*
 * test_log_open.c - what opening makes of the state it finds: rot in the newest
 * commit or the log, what a killed program left, crashes while opening
 */
#include "support/proof.h"
#include "unit/log_fixture.h"

/* ---- rot in what was done ---- */

/* A block that rots costs what is in it, not all that came after it. */
static void rot_and_open(uint64_t blk, uint64_t bad, uint64_t good)
{
	static uint8_t buf[PIECE];
	struct lab l;
	size_t got;

	flip_bit(mem, blk * COWFS_BLOCK_SIZE + 5, 3);
	test_log_hide();
	l = open_on(mem, 0);
	ck_err(fs_read(l.fs, fs_live(l.fs), bad, 0, buf, sizeof(buf), &got),
	       -ECOW_CSUM);
	ck_ok(fs_read(l.fs, fs_live(l.fs), good, 0, buf, sizeof(buf), &got));
	ck_assert_uint_eq(got, sizeof(buf));
	close_it(&l);
	test_log_show();
}

START_TEST(rot_in_a_commit_that_was_done_takes_nothing_back)
{
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), b = make_file(&l, "b"), blk;

	write_piece(&l, a, 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	blk = first_block(&l, a);
	write_piece(&l, b, 0, 2);
	ck_ok(fs_fsync(l.fs, b, false));
	crash(&l);
	rot_and_open(blk, a, b);
}
END_TEST

START_TEST(rot_in_a_record_that_was_done_takes_nothing_back)
{
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), b = make_file(&l, "b"), blk;

	ck_ok(store_commit(l.s, NULL, NULL));
	write_piece(&l, a, 0, 1);
	write_piece(&l, a, PIECE, 1); /* more than a record carries */
	ck_ok(fs_fsync(l.fs, a, false));
	blk = first_block(&l, a);
	write_piece(&l, b, 0, 2);
	ck_ok(fs_fsync(l.fs, b, false));
	crash(&l);
	rot_and_open(blk, a, b);
}
END_TEST

/* But of the last one nobody knows whether it was done. */
START_TEST(a_last_record_of_which_data_are_missing_is_told_and_left_out)
{
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), want;
	struct log_found found;

	ck_ok(store_commit(l.s, NULL, NULL));
	want = digest(&l);
	write_piece(&l, a, 0, 1);
	write_piece(&l, a, PIECE, 1); /* more than a record carries */
	ck_ok(fs_fsync(l.fs, a, false));
	flip_bit(mem, first_block(&l, a) * COWFS_BLOCK_SIZE + 5, 3);
	crash(&l);
	test_log_hide();
	l = open_on(mem, STORE_READONLY);
	test_log_show();
	store_log_found(l.s, &found);
	ck_assert(found.tried && found.unfinished && !found.damaged);
	ck_assert_uint_eq(found.records, 0);
	ck_assert_uint_eq(digest(&l), want);
	close_it(&l);
}
END_TEST

/* A record names blocks that were there before it, too, as what is left of an
 * extent: whether these are good says nothing of the record. */
START_TEST(rot_in_what_was_there_before_takes_no_record_back)
{
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), b = make_file(&l, "b"), blk;

	write_piece(&l, a, 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	blk = first_block(&l, a);
	write_bytes(&l, a, PIECE / 2, 4096, 2);
	write_piece(&l, b, 0, 2);
	ck_ok(fs_fsync(l.fs, b, false));
	crash(&l);
	rot_and_open(blk, a, b);
}
END_TEST

/* Each copy of each block is looked at where it is: nothing is to be mended. */
START_TEST(second_copies_are_looked_at_in_their_places)
{
	struct lab l = open_on(mem, 0);
	uint64_t want;

	write_piece(&l, make_file(&l, "a"), 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	want = digest(&l);
	crash(&l);
	proof_lost(mem);
	l = open_on(mem, 0);
	ck_assert_uint_eq(l.s->io.stats.csum_errors, 0);
	ck_assert_uint_eq(l.s->io.stats.repaired, 0);
	ck_assert_uint_eq(digest(&l), want);
	close_it(&l);
}
END_TEST

/* The other one is mended then, but not by who only reads. */
START_TEST(one_good_copy_is_enough_for_the_last_record)
{
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), want;
	struct recorded rec;

	ck_ok(store_commit(l.s, NULL, NULL));
	write_piece(&l, a, 0, 1);
	write_piece(&l, a, PIECE, 2); /* more than a record carries */
	ck_ok(fs_fsync(l.fs, a, false));
	want = digest(&l);
	flip_bit(mem, first_block(&l, a) * COWFS_BLOCK_SIZE + 5, 3);
	crash(&l);
	record_device(&rec);
	test_log_hide();
	l = open_on(rec.log, STORE_READONLY);
	ck_assert_uint_eq(digest(&l), want);
	close_it(&l);
	ck_assert_uint_eq(log_count(rec.log), 0);
	l = open_on(rec.log, 0);
	test_log_show();
	ck_assert_uint_eq(l.s->io.stats.repaired, 1);
	ck_assert_uint_eq(digest(&l), want);
	close_it(&l);
	end_recording(&rec);
}
END_TEST

/* Block of record seq. */
static uint64_t place_of(const struct cowfs_disk_super *super, uint64_t seq)
{
	struct log_reader l;
	uint64_t at = 0, blocks, i;

	ck_ok(log_reader_init(&l, mem, super));
	for (i = 0; i < seq; i++, at += blocks)
		ck_ok(log_read(&l, at, i, &blocks));
	log_reader_fini(&l);
	return from_le64(super->log.blk) + at;
}

#define RECORDS 6u

/* So many fsyncs, and a crash. */
static struct cowfs_disk_super make_records(const char *prefix)
{
	struct lab l = open_on(mem, 0);
	struct cowfs_disk_super super;
	char name[40];

	ck_ok(store_commit(l.s, NULL, NULL));
	for (unsigned i = 0; i < RECORDS; i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), "%s-%u", prefix, i);
		ino = make_file(&l, name);
		write_piece(&l, ino, 0, 1);
		ck_ok(fs_fsync(l.fs, ino, false));
	}
	super = l.s->super;
	crash(&l);
	return super;
}

/* Records [bad, end) of the log rot. What opening has to say. */
static unsigned messages_if_rotten(uint64_t bad, uint64_t end)
{
	struct cowfs_disk_super super;
	uint64_t place[RECORDS];
	char name[40];
	struct lab l;
	unsigned said;

	snprintf(name, sizeof(name), "%u-%u", (unsigned)bad, (unsigned)end);
	super = make_records(name);
	for (uint64_t i = bad; i < end; i++)
		place[i] = place_of(&super, i);
	for (uint64_t i = bad; i < end; i++)
		flip_bit(mem, place[i] * COWFS_BLOCK_SIZE + 50, 3);
	test_log_hide();
	l = open_on(mem, 0);
	said = test_log_count();
	close_it(&l);
	test_log_show();
	return said;
}

START_TEST(rot_within_the_log_is_told_from_its_end)
{
	/* so many records applied; and that there was more */
	ck_assert_uint_eq(messages_if_rotten(2, 3), 2);
	/* nor do several in a row hide what follows them; records before: none */
	ck_assert_uint_eq(messages_if_rotten(1, 5), 2);
	ck_assert_uint_eq(messages_if_rotten(0, 4), 1);
}
END_TEST

START_TEST(rot_of_the_last_record_looks_like_its_end)
{
	ck_assert_uint_eq(messages_if_rotten(5, 6), 1);
	ck_assert_uint_eq(messages_if_rotten(4, 6), 1);
}
END_TEST

/* Records before a bad spot count, also those that are read together with it. */
START_TEST(a_bad_spot_hides_no_record_before_it)
{
	struct cowfs_disk_super super = make_records("spot");
	struct log_found found;
	struct bdev *faulty;
	struct lab l;

	test_log_hide();
	for (unsigned i = 0; i <= RECORDS; i++) {
		ck_ok(fault_open(mem, &faulty));
		fault_range(faulty, FAULT_READ,
			    place_of(&super, i) * COWFS_BLOCK_SIZE,
			    COWFS_BLOCK_SIZE, -EIO);
		l = open_on(faulty, STORE_READONLY);
		store_log_found(l.s, &found);
		ck_assert_uint_eq(found.records, i);
		ck_assert_int_eq(found.damaged, i < RECORDS - 1);
		close_it(&l);
		bdev_close(faulty);
	}
	test_log_show();
}
END_TEST

/* ---- what a killed program left ---- */

/* Killed when all was written but not flushed, opened again, power cut: what
 * was found in the system's memory may be lost, but not half of it. */
START_TEST(what_a_killed_program_left_is_flushed_before_it_counts)
{
	struct killed k;

	killed_init(&k, 1);
	ck_err(store_commit(k.r.l.s, NULL, NULL), -EIO);
	crash(&k.r.l);
	killed_reopen(&k, 0);
	crash(&k.r.l);
	cut_everywhere(&k, k.old, k.change);
	killed_fini(&k);
}
END_TEST

/* The same while it said that all was well: that is no superblock to be
 * believed more than another, but all that it names is on the disk. */
START_TEST(what_was_left_by_one_killed_while_closing_needs_no_flush)
{
	struct killed k;

	/* what it names, itself, and then the word CLEAN */
	killed_init(&k, 3);
	fs_umount(k.r.l.fs);
	ck_err(store_close(k.r.l.s), -EIO);
	killed_reopen(&k, 0);
	ck_assert_int_eq(log_get(k.r.log, k.from)->kind, LOG_WRITE);
	crash(&k.r.l);
	cut_everywhere(&k, k.change, k.change);
	ck_assert_uint_ne(k.old, k.change);
	killed_fini(&k);
}
END_TEST

static void assert_flush(const struct log_entry *e)
{
	ck_assert_int_eq(e->kind, LOG_FLUSH);
	ck_assert_uint_eq(e->len, 0);
}

/* Both copies lie in the place of those without it: torn at once they would
 * take the newest generation with them. */
START_TEST(the_word_clean_is_durable_in_one_copy_before_the_other)
{
	struct recorded rec;
	const struct log_entry *near, *far;
	size_t n;

	record(&rec);
	write_bytes(&rec.l, make_file(&rec.l, "a"), 0, 100, 7);
	close_it(&rec.l);
	n = log_count(rec.log);
	ck_assert_uint_gt(n, 5);
	assert_flush(log_get(rec.log, n - 1));
	far = log_get(rec.log, n - 2);
	assert_flush(log_get(rec.log, n - 3));
	near = log_get(rec.log, n - 4);
	assert_flush(log_get(rec.log, n - 5));
	ck_assert_int_eq(near->kind, LOG_WRITE);
	ck_assert_int_eq(far->kind, LOG_WRITE);
	ck_assert_uint_eq(near->len, COWFS_BLOCK_SIZE);
	ck_assert_uint_eq(far->off,
			  DEV_SIZE - COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE +
			  near->off - COWFS_SUPER_NEAR * COWFS_BLOCK_SIZE);
	ck_assert(((const struct cowfs_disk_super *)near->data)->state &
		  COWFS_STATE_CLEAN);
	end_recording(&rec);
}
END_TEST

/* ---- opening ---- */

static unsigned flushes_of_opening(void)
{
	struct bdev *log;
	struct lab l;
	unsigned n;

	ck_ok(log_open(mem, &log));
	l = open_on(log, 0);
	n = flushes(log, 0);
	close_it(&l);
	bdev_close(log);
	return n;
}

START_TEST(opening_flushes_what_it_must)
{
	struct lab l = open_on(mem, 0);
	uint64_t ino = make_file(&l, "a");

	close_it(&l);
	ck_assert_uint_eq(flushes_of_opening(), 1);
	l = open_on(mem, 0);
	write_piece(&l, ino, 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	crash(&l);
	/* found in memory, perhaps */
	ck_assert_uint_eq(flushes_of_opening(), 2);
	l = open_on(mem, 0);
	write_bytes(&l, ino, 0, 100, 7);
	ck_ok(fs_fsync(l.fs, ino, false));
	crash(&l);
	/* that, and what the log carried */
	ck_assert_uint_eq(flushes_of_opening(), 2);
	l = open_on(mem, 0);
	(void)make_file(&l, "b");
	ck_ok(fs_fsync(l.fs, COWFS_INO_ROOT, false));
	crash(&l);
	/* no less if it carried nothing */
	ck_assert_uint_eq(flushes_of_opening(), 2);
}
END_TEST

/* Each time the new superblock arrives, and a node it names does not. */
START_TEST(crashes_while_opening_never_use_up_the_state_found)
{
	struct recorded rec;
	struct bdev *dev;
	struct pick p = PICK(PICK_BUT);
	uint64_t ino, want;
	struct replay r;
	struct lab l;
	size_t sure, i;
	unsigned n;

	l = open_on(mem, 0);
	ino = make_file(&l, "a");
	write_piece(&l, ino, 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	write_piece(&l, ino, 0, 2); /* too much for the log to carry it, */
	write_piece(&l, ino, PIECE, 3); /* which would be written first */
	ck_ok(fs_fsync(l.fs, ino, false));
	want = digest(&l);
	crash(&l);
	test_log_hide();
	for (n = 0; n < 9; n++) {
		record(&rec);
		ck_assert_uint_eq(digest(&rec.l), want);
		crash(&rec.l);
		/* the first flush comes before anything is written */
		for (i = 0; log_get(rec.log, i)->kind != LOG_WRITE; i++)
			;
		p.which = i;
		for (; log_get(rec.log, i)->kind == LOG_WRITE; i++)
			;
		ck_assert_uint_ge(log_get(rec.log, i - 1)->off,
				  DEV_SIZE - COWFS_SUPER_SLOTS *
						     COWFS_BLOCK_SIZE);
		ck_assert_uint_lt(log_get(rec.log, p.which)->off,
				  DEV_SIZE - COWFS_SUPER_SLOTS *
						     COWFS_BLOCK_SIZE);
		replay_init(&r, rec.log, rec.base);
		ck_ok(replay_cut(&r, i, &sure));
		ck_ok(replay_state(&r, i, &p, &dev));
		bdev_close(mem);
		ck_ok(bdev_open_mem(DEV_SIZE, &mem));
		ck_ok(dev_copy(mem, dev));
		bdev_close(dev);
		end_recording(&rec);
	}
	test_log_show();
	expect_after_crash(mem, want);
}
END_TEST

static void add_all(TCase *tc)
{
	tcase_add_test(tc, rot_in_a_commit_that_was_done_takes_nothing_back);
	tcase_add_test(tc, rot_in_a_record_that_was_done_takes_nothing_back);
	tcase_add_test(tc,
		a_last_record_of_which_data_are_missing_is_told_and_left_out);
	tcase_add_test(tc, rot_in_what_was_there_before_takes_no_record_back);
	tcase_add_test(tc, rot_within_the_log_is_told_from_its_end);
	tcase_add_test(tc, rot_of_the_last_record_looks_like_its_end);
	tcase_add_test(tc, a_bad_spot_hides_no_record_before_it);
	tcase_add_test(tc,
		       what_a_killed_program_left_is_flushed_before_it_counts);
	tcase_add_test(tc,
		what_was_left_by_one_killed_while_closing_needs_no_flush);
	tcase_add_test(tc,
		the_word_clean_is_durable_in_one_copy_before_the_other);
	tcase_add_test(tc, opening_flushes_what_it_must);
	tcase_add_test(tc, crashes_while_opening_never_use_up_the_state_found);
}

static void add_two(TCase *tc)
{
	tcase_add_test(tc, second_copies_are_looked_at_in_their_places);
	tcase_add_test(tc, one_good_copy_is_enough_for_the_last_record);
}

int main(void)
{
	Suite *s = suite_create("log, opening");

	test_case(s, "one copy", 300, setup, teardown, add_all);
	test_case(s, "two copies", 300, setup_two, teardown, add_two);
	return test_main(s);
}
