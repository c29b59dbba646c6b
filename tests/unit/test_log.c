/*
 * test_log.c - the log: replaying it, and the data that its records carry
 */
#include "unit/log_fixture.h"

/* Data comes round the device to where replaying would put its nodes first. */
static void overwrite_in_pieces(unsigned rounds)
{
	struct lab l = open_on(mem, 0);
	uint64_t ino = make_file(&l, "file");
	unsigned i;

	for (i = 0; i < rounds; i++) {
		write_piece(&l, ino, i * 11 % 32 * PIECE, i);
		ck_ok(fs_fsync(l.fs, ino, false));
		expect_after_crash(mem, digest(&l));
		if (i % 8 == 7)
			ck_ok(store_commit(l.s, NULL, NULL));
	}
	close_it(&l);
}

START_TEST(replaying_keeps_off_what_later_records_name)
{
	overwrite_in_pieces(240);
}
END_TEST

/* ---- records that carry data ---- */

/* Nothing is lost by a power cut now. */
static void expect_after_cut(struct recorded *r)
{
	uint64_t want = digest(&r->l);
	struct bdev *dev = after_cut(r);

	expect_after_crash(dev, want);
	crash(&r->l);
	bdev_close(dev);
	end_recording(r);
}

START_TEST(few_data_are_carried_and_nothing_else_is_flushed)
{
	struct recorded r;
	uint64_t ino;
	unsigned i;
	size_t from;

	record(&r);
	ino = make_file(&r.l, "file");
	write_piece(&r.l, ino, 0, 1);
	ck_ok(store_commit(r.l.s, NULL, NULL));
	from = log_count(r.log);
	for (i = 0; i < 6; i++) { /* the log has room for them */
		write_bytes(&r.l, ino, i * 7 % 16 * 4096 + i, 3000 + 900 * i,
			    (uint8_t)i);
		ck_ok(fs_fsync(r.l.fs, ino, false));
	}
	ck_assert_uint_eq(flushes(r.log, from), 0);
	expect_after_cut(&r);
}
END_TEST

START_TEST(many_data_are_written_once_and_flushed)
{
	struct commit_stats before, after;
	struct recorded r;
	uint64_t ino;
	size_t from;

	record(&r);
	ino = make_file(&r.l, "file");
	ck_ok(store_commit(r.l.s, NULL, NULL));
	from = log_count(r.log);
	store_commit_stats(r.l.s, &before);
	write_piece(&r.l, ino, 0, 1);
	write_piece(&r.l, ino, PIECE, 2);
	ck_ok(fs_fsync(r.l.fs, ino, false));
	store_commit_stats(r.l.s, &after);
	ck_assert_uint_eq(after.log_appends - before.log_appends, 1);
	ck_assert_uint_le(after.log_bytes - before.log_bytes, 4096);
	ck_assert_uint_eq(flushes(r.log, from), 1);
	/* and what was flushed needs no second one */
	write_bytes(&r.l, ino, 5000, 100, 3);
	ck_ok(fs_fsync(r.l.fs, ino, false));
	ck_assert_uint_eq(flushes(r.log, from), 1);
	expect_after_cut(&r);
}
END_TEST

/* A file that grows is one extent, which each record brings anew. */
START_TEST(each_block_is_carried_once)
{
	struct lab l = open_on(mem, 0);
	struct commit_stats before, after;
	uint64_t ino = make_file(&l, "file");
	unsigned i;

	write_bytes(&l, ino, 0, 8192, 1);
	ck_ok(fs_fsync(l.fs, ino, false));
	for (i = 2; i < 10; i++) {
		store_commit_stats(l.s, &before);
		write_bytes(&l, ino, i * 4096, 4096, (uint8_t)i);
		ck_ok(fs_fsync(l.fs, ino, false));
		store_commit_stats(l.s, &after);
		ck_assert_uint_eq(after.log_bytes - before.log_bytes, 8192);
	}
	close_it(&l);
}
END_TEST

/* Nor is it once only in the life of a place: what comes there later is other data. */
START_TEST(a_place_used_again_is_carried_again)
{
	bool used[DEV_SIZE / COWFS_BLOCK_SIZE] = { false }, again = false;
	struct lab l = open_on(mem, 0);
	struct commit_stats before, after;
	uint64_t ino, blk;
	unsigned i, n;

	for (i = 0; i < 1000 && !again; i++) {
		ino = make_file(&l, "file");
		write_bytes(&l, ino, 0, 12 * COWFS_BLOCK_SIZE, (uint8_t)i);
		blk = first_block(&l, ino);
		for (n = 0; n < 12; n++) {
			again |= used[blk + n];
			used[blk + n] = true;
		}
		store_commit_stats(l.s, &before);
		ck_ok(fs_fsync(l.fs, ino, false));
		store_commit_stats(l.s, &after);
		ck_assert_uint_eq(after.log_bytes - before.log_bytes,
				  13 * COWFS_BLOCK_SIZE);
		ck_ok(fs_unlink(l.fs, COWFS_INO_ROOT, "file", 4, NULL));
		ck_ok(store_commit(l.s, NULL, NULL));
	}
	ck_assert(again);
	close_it(&l);
}
END_TEST

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "f%u", i);
}

/* Of more changes than are noted a record would have a part. */
START_TEST(very_many_changes_are_committed)
{
	struct lab l = open_on(mem, 0);
	uint64_t want, gen;
	char name[16];
	unsigned i;

	for (i = 0; i < 2500; i++) {
		name_of(i, name);
		make_file(&l, name);
	}
	ck_ok(store_commit(l.s, NULL, NULL));
	gen = store_durable_gen(l.s);
	for (i = 0; i < 2500; i++) {
		name_of(i, name);
		ck_ok(fs_unlink(l.fs, COWFS_INO_ROOT, name, strlen(name),
				NULL));
	}
	ck_ok(fs_fsync(l.fs, COWFS_INO_ROOT, false));
	ck_assert_uint_eq(store_durable_gen(l.s), gen + 1);
	want = digest(&l);
	crash(&l);
	expect_after_crash(mem, want);
}
END_TEST

/* Contents that have to be read to be carried, and can't be. */
START_TEST(what_cannot_be_read_is_flushed_instead)
{
	struct bdev *log, *faulty;
	uint64_t ino, blk;
	struct lab l;
	size_t from;

	ck_ok(fault_open(mem, &faulty));
	ck_ok(log_open(faulty, &log));
	l = open_on(log, 0);
	ino = make_file(&l, "file");
	ck_ok(store_commit(l.s, NULL, NULL));
	write_bytes(&l, ino, 0, 5000, 9);
	blk = first_block(&l, ino);
	fault_range(faulty, FAULT_READ, blk * COWFS_BLOCK_SIZE, 1, -EIO);
	from = log_count(log);
	test_log_hide();
	ck_ok(fs_fsync(l.fs, ino, false));
	test_log_show();
	ck_assert_uint_eq(flushes(log, from), 1);
	crash(&l);
	bdev_close(log);
	bdev_close(faulty);
	l = open_on(mem, STORE_READONLY);
	test_check(l.s);
	close_it(&l);
}
END_TEST

/* What fsync promised lies in the log alone, and whoever only looks comes upon
 * that after a power cut. */
struct reader {
	struct recorded r;
	struct bdev *dev, *faulty; /* after the cut; faults over that */
	uint64_t blk;              /* first one of what the log carries */
	uint64_t want;
};

static void reader_init(struct reader *x)
{
	uint64_t ino;

	record(&x->r);
	ino = make_file(&x->r.l, "file");
	ck_ok(store_commit(x->r.l.s, NULL, NULL));
	write_bytes(&x->r.l, ino, 0, 20000, 7);
	ck_ok(fs_fsync(x->r.l.fs, ino, false));
	x->want = digest(&x->r.l);
	x->blk = first_block(&x->r.l, ino);
	x->dev = after_cut(&x->r);
	ck_ok(fault_open(x->dev, &x->faulty));
}

static void reader_sees_all(struct reader *x)
{
	struct lab l;

	test_log_hide();
	l = open_on(x->faulty, STORE_READONLY);
	test_log_show();
	ck_assert_uint_eq(digest(&l), x->want);
	test_check(l.s);
	close_it(&l);
}

static void reader_fini(struct reader *x)
{
	bdev_close(x->faulty);
	crash(&x->r.l);
	bdev_close(x->dev);
	end_recording(&x->r);
}

/* Whoever only looks writes nothing, and sees it all the same. */
START_TEST(a_reader_sees_what_is_only_in_the_log)
{
	struct reader x;

	reader_init(&x);
	reader_sees_all(&x);
	ck_assert_uint_eq(fault_count(x.faulty, FAULT_WRITE), 0);
	reader_fini(&x);
}
END_TEST

/* Half a sector was written when the power went, and can't be read. */
START_TEST(a_reader_needs_no_place_of_which_the_log_has_the_contents)
{
	struct reader x;

	reader_init(&x);
	fault_range(x.faulty, FAULT_READ, (x.blk + 1) * COWFS_BLOCK_SIZE, 1,
		    -EIO);
	reader_sees_all(&x);
	reader_fini(&x);
}
END_TEST

/* The block that record `at` carries first; its entry's place in *e. */
static uint64_t find_carried(struct bdev *dev, uint8_t *rec, size_t room,
			     size_t *e)
{
	const struct cowfs_disk_log *d = (const void *)rec;
	struct cowfs_disk_log_entry de;
	size_t at = sizeof(*d);

	ck_ok(bdev_read(dev, LOG_FIRST_BLOCK * COWFS_BLOCK_SIZE, rec, room));
	ck_assert_uint_eq(from_le32(d->magic), COWFS_LOG_MAGIC);
	for (;; at += sizeof(de) + from_le16(de.len)) {
		ck_assert_uint_lt(at, from_le32(d->len));
		memcpy(&de, rec + at, sizeof(de));
		if (de.kind == COWFS_LOG_BLOCK)
			break;
	}
	*e = at;
	return from_le64(de.key.obj);
}

/* An image made by hand says that the record carries somebody's block. */
START_TEST(a_record_cannot_overwrite_what_has_an_owner)
{
	static uint8_t rec[65536], old[COWFS_BLOCK_SIZE], now[sizeof(old)];
	struct cowfs_disk_log *d = (void *)rec;
	struct cowfs_disk_log_entry de;
	struct lab l = open_on(mem, 0);
	uint64_t a = make_file(&l, "a"), b = make_file(&l, "b"), blk;
	size_t at;

	write_piece(&l, a, 0, 1);
	ck_ok(store_commit(l.s, NULL, NULL));
	blk = first_block(&l, a);
	write_bytes(&l, b, 0, 5000, 9);
	ck_ok(fs_fsync(l.fs, b, false));
	crash(&l);
	ck_ok(bdev_read(mem, blk * COWFS_BLOCK_SIZE, old, sizeof(old)));
	(void)find_carried(mem, rec, sizeof(rec), &at);
	memcpy(&de, rec + at, sizeof(de));
	de.key.obj = to_le64(blk);
	memcpy(rec + at, &de, sizeof(de));
	d->csum = to_le32(checksum(0, rec + 8, from_le32(d->len) - 8));
	ck_ok(bdev_write(mem, LOG_FIRST_BLOCK * COWFS_BLOCK_SIZE, rec,
			 sizeof(rec)));
	test_log_hide();
	l = open_on(mem, 0);
	test_log_show();
	test_check(l.s);
	close_it(&l);
	ck_ok(bdev_read(mem, blk * COWFS_BLOCK_SIZE, now, sizeof(now)));
	ck_assert_mem_eq(old, now, sizeof(old));
}
END_TEST

/* One record that was changed by hand, and that says it is whole. */
struct forged {
	uint8_t rec[65536];
	struct cowfs_disk_log *d; /* its head */
	size_t at;                /* of what it carries first */
	uint64_t before, after;   /* digests without it, and with it */
};

static void forge_begin(struct forged *f)
{
	struct lab l = open_on(mem, 0);
	uint64_t ino = make_file(&l, "file");

	ck_ok(store_commit(l.s, NULL, NULL));
	f->before = digest(&l);
	write_bytes(&l, ino, 0, 5000, 9);
	ck_ok(fs_fsync(l.fs, ino, false));
	f->after = digest(&l);
	crash(&l);
	(void)find_carried(mem, f->rec, sizeof(f->rec), &f->at);
	f->at += sizeof(struct cowfs_disk_log_entry);
	f->d = (void *)f->rec;
}

static void forge_end(struct forged *f)
{
	size_t len = from_le32(f->d->len);

	f->d->csum = to_le32(checksum(0, f->rec + 8, len - 8));
	ck_ok(bdev_write(mem, LOG_FIRST_BLOCK * COWFS_BLOCK_SIZE, f->rec,
			 sizeof(f->rec)));
}

/* Else it would take the place of what is good. */
START_TEST(carried_data_that_do_not_match_are_not_used)
{
	static struct forged f;

	forge_begin(&f);
	f.rec[f.at + 7] ^= 1;
	forge_end(&f);
	expect_after_crash(mem, f.after);
}
END_TEST

START_TEST(a_record_of_another_filesystem_does_not_count)
{
	static struct forged f;

	forge_begin(&f);
	f.d->uuid[3] ^= 1;
	forge_end(&f);
	expect_after_crash(mem, f.before);
}
END_TEST

/* Nothing was written after it. */
START_TEST(a_superblock_that_says_clean_has_no_log)
{
	static struct forged f;
	struct super_scan scan;
	uint64_t want;
	struct lab l;

	forge_begin(&f);
	l = open_on(mem, 0);
	ck_ok(fs_unlink(l.fs, COWFS_INO_ROOT, "file", 4, NULL));
	want = digest(&l);
	close_it(&l);
	ck_ok(super_scan(mem, &scan));
	ck_assert(scan.found[0].d.state & COWFS_STATE_CLEAN);
	f.d->base = scan.found[0].d.gen;
	forge_end(&f);
	expect_after_crash(mem, want);
}
END_TEST

static uint64_t gen_after_base(struct forged *f, uint64_t base)
{
	struct lab l;
	uint64_t gen;

	f->d->base = to_le64(base);
	forge_end(f);
	test_log_hide();
	l = open_on(mem, 0);
	test_log_show();
	gen = store_durable_gen(l.s);
	close_it(&l);
	return gen;
}

/* The superblock that it was based on is lost: its number is not used again, or
 * the record would count. But numbers that cannot be are not believed. */
START_TEST(generations_go_on_above_what_the_log_is_based_on)
{
	static struct forged f;
	uint64_t base;

	forge_begin(&f);
	base = from_le64(f.d->base) + 50;
	ck_assert_uint_gt(gen_after_base(&f, base), base);
	base += UINT64_C(1) << 40;
	ck_assert_uint_lt(gen_after_base(&f, base), base);
}
END_TEST

/* The commit after the fsync was not finished: a repair takes care not to touch
 * what that one names, which is what the log carries. */
START_TEST(a_repair_puts_carried_data_in_place)
{
	struct store_config cfg = { .flags = STORE_REPAIR,
				    .cache_bytes = 1 << 20 };
	static uint8_t rec[65536], want[COWFS_BLOCK_SIZE], now[sizeof(want)];
	struct lab l = open_on(mem, 0);
	uint64_t ino, blk, records;
	struct store *s;
	size_t at;

	ino = make_file(&l, "file");
	ck_ok(store_commit(l.s, NULL, NULL));
	write_bytes(&l, ino, 0, 5000, 9);
	ck_ok(fs_fsync(l.fs, ino, false));
	crash(&l);
	blk = find_carried(mem, rec, sizeof(rec), &at);
	memcpy(want, rec + at + sizeof(struct cowfs_disk_log_entry),
	       sizeof(want));
	memset(now, 0, sizeof(now));
	ck_ok(bdev_write(mem, blk * COWFS_BLOCK_SIZE, now, sizeof(now)));
	test_log_hide();
	cfg.dev = mem;
	ck_ok(store_open(&cfg, &s));
	ck_ok(alloc_keep(s->alloc, blk, 1));
	ck_ok(store_repair_replay(s, &records));
	test_log_show();
	ck_assert_uint_eq(records, 1);
	ck_ok(bdev_read(mem, blk * COWFS_BLOCK_SIZE, now, sizeof(now)));
	ck_assert_uint_eq(now[0], 0); /* nothing before the end */
	ck_ok(block_read_data(&s->io, (struct copies){ blk, 0 }, 1,
			      &(uint32_t){ checksum(0, want, sizeof(want)) },
			      now));
	ck_assert_mem_eq(want, now, sizeof(want));
	store_abandon(s);
}
END_TEST

static void add_one_copy(TCase *tc)
{
	tcase_add_test(tc, replaying_keeps_off_what_later_records_name);
	tcase_add_test(tc, few_data_are_carried_and_nothing_else_is_flushed);
	tcase_add_test(tc, many_data_are_written_once_and_flushed);
	tcase_add_test(tc, each_block_is_carried_once);
	tcase_add_test(tc, a_place_used_again_is_carried_again);
	tcase_add_test(tc, very_many_changes_are_committed);
	tcase_add_test(tc, what_cannot_be_read_is_flushed_instead);
	tcase_add_test(tc, a_reader_sees_what_is_only_in_the_log);
	tcase_add_test(tc,
		a_reader_needs_no_place_of_which_the_log_has_the_contents);
	tcase_add_test(tc, a_record_cannot_overwrite_what_has_an_owner);
	tcase_add_test(tc, carried_data_that_do_not_match_are_not_used);
	tcase_add_test(tc, a_record_of_another_filesystem_does_not_count);
	tcase_add_test(tc, a_superblock_that_says_clean_has_no_log);
	tcase_add_test(tc, generations_go_on_above_what_the_log_is_based_on);
	tcase_add_test(tc, a_repair_puts_carried_data_in_place);
}

static void add_two_copies(TCase *tc)
{
	tcase_add_test(tc, replaying_keeps_off_what_later_records_name);
	tcase_add_test(tc, few_data_are_carried_and_nothing_else_is_flushed);
	tcase_add_test(tc, a_reader_sees_what_is_only_in_the_log);
}

int main(void)
{
	Suite *s = suite_create("log");

	test_case(s, "one copy", 300, setup, teardown, add_one_copy);
	test_case(s, "two copies", 300, setup_two, teardown, add_two_copies);
	return test_main(s);
}
