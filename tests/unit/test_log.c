/*
 * test_log.c - what fsync promised is there after a crash: the log, replaying
 * it, and what opening may do to the state it found
 */
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/test.h"
#include "support/testdev.h"
#include "txn/log.h"

#define MIB (UINT64_C(1) << 20)
#define DEV_SIZE (12 * MIB)
#define PIECE 65536u

struct lab {
	struct store *s;
	struct fs *fs;
};

static struct bdev *mem;
static const struct cred root_cred = { .umask = 022 };

static struct lab open_on(struct bdev *dev, unsigned flags)
{
	struct store_config cfg = { .dev = dev, .flags = flags,
				    .cache_bytes = 1 << 20 };
	struct fs_options opt = { .readonly = flags & STORE_READONLY,
				  .noatime = true };
	struct lab l;

	ck_ok(store_open(&cfg, &l.s));
	ck_ok(snap_start(l.s));
	ck_ok(fs_mount(l.s, &opt, &l.fs));
	return l;
}

static void close_it(struct lab *l)
{
	fs_umount(l->fs);
	ck_ok(store_close(l->s));
}

static void crash(struct lab *l)
{
	fs_umount(l->fs);
	store_abandon(l->s);
}

static void make(unsigned meta_copies, unsigned data_copies)
{
	struct store_format f = { .blocks = DEV_SIZE / COWFS_BLOCK_SIZE,
				  .node_size = 4096,
				  .meta_copies = meta_copies,
				  .data_copies = data_copies };
	struct store_config cfg = { 0 };
	struct store *s;

	ck_ok(bdev_open_mem(DEV_SIZE, &mem));
	ck_ok(store_format(mem, &f));
	cfg.dev = mem;
	ck_ok(store_open(&cfg, &s));
	ck_ok(fs_format(s, 0, 0, 0755));
	ck_ok(store_close(s));
}

static void setup(void)
{
	make(1, 1);
}

static void setup_two(void)
{
	make(2, 2);
}

static void teardown(void)
{
	bdev_close(mem);
}

static uint64_t make_file(struct lab *l, const char *name)
{
	struct attr a;

	ck_ok(fs_create(l->fs, COWFS_INO_ROOT, name, strlen(name),
			S_IFREG | 0644, 0, NULL, &root_cred, &a));
	return a.ino;
}

static void write_piece(struct lab *l, uint64_t ino, uint64_t off,
			unsigned salt)
{
	static uint8_t buf[PIECE];
	struct rng r;

	rng_init(&r, 1, salt);
	rng_fill(&r, buf, sizeof(buf));
	ck_ok(fs_write(l->fs, ino, off, buf, sizeof(buf), 0));
}

static uint64_t digest(struct lab *l)
{
	uint64_t d;

	ck_ok(fs_digest(l->fs, &d));
	return d;
}

static void found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", problem_name(p), where);
}

static void check_clean(struct store *s)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = found };
	struct check_result res;

	ck_ok(check_run(s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
}

/* As it would be found now by whoever opens it, in one of two states; the
 * device stays as it is. */
static void expect_either(struct bdev *dev, uint64_t a, uint64_t b)
{
	struct bdev *over;
	uint64_t seen;
	struct lab l;

	ck_ok(overlay_open(dev, &over));
	test_log_hide();
	l = open_on(over, STORE_READONLY);
	seen = digest(&l);
	ck_assert(seen == a || seen == b);
	close_it(&l);
	l = open_on(over, 0);
	ck_assert_uint_eq(digest(&l), seen);
	write_piece(&l, make_file(&l, "after"), 0, 1);
	close_it(&l);
	l = open_on(over, STORE_READONLY);
	check_clean(l.s);
	close_it(&l);
	test_log_show();
	bdev_close(over);
}

static void expect_after_crash(struct bdev *dev, uint64_t want)
{
	expect_either(dev, want, want);
}

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

/* Blocks of a file whose first one is blk. */
static uint64_t first_block(struct lab *l, uint64_t ino)
{
	struct key k = KEY(ino, COWFS_KEY_EXTENT, 0);
	struct cowfs_disk_extent d = { .len = to_le32(0) };
	struct item it;
	struct op op;
	int err;

	op_read(&op, l->s);
	do {
		err = tree_get(&l->s->fs, &k, &it);
		if (!err)
			memcpy(&d, it.data, sizeof(d));
	} while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
	return from_le64(d.blk);
}

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

/* Six fsyncs; then records [bad, end) of the log rot. What opening has to say. */
static unsigned messages_if_rotten(uint64_t bad, uint64_t end)
{
	struct lab l = open_on(mem, 0);
	struct cowfs_disk_super super;
	uint64_t place[6];
	char name[40];
	unsigned said;

	ck_ok(store_commit(l.s, NULL, NULL));
	for (unsigned i = 0; i < 6; i++) {
		uint64_t ino;

		snprintf(name, sizeof(name), "%u-%u-%u", (unsigned)bad,
			 (unsigned)end, i);
		ino = make_file(&l, name);
		write_piece(&l, ino, 0, 1);
		ck_ok(fs_fsync(l.fs, ino, false));
	}
	super = l.s->super;
	crash(&l);
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

/* ---- records that carry data ---- */

static void write_bytes(struct lab *l, uint64_t ino, uint64_t off, size_t n,
			uint8_t salt)
{
	static uint8_t buf[PIECE];

	memset(buf, salt, n);
	ck_ok(fs_write(l->fs, ino, off, buf, n, 0));
}

/* Flushes of everything among the entries from `from` on. */
static unsigned flushes(struct bdev *log, size_t from)
{
	unsigned n = 0;

	for (; from < log_count(log); from++)
		n += log_get(log, from)->kind == LOG_FLUSH &&
		     !log_get(log, from)->len;
	return n;
}

/* A lab over a recording device; base is what it began with. */
struct recorded {
	struct bdev *base, *log;
	struct lab l;
};

static void record(struct recorded *r)
{
	ck_ok(bdev_open_mem(DEV_SIZE, &r->base));
	ck_ok(dev_copy(r->base, mem));
	ck_ok(log_open(mem, &r->log));
	r->l = open_on(r->log, 0);
}

/* The device of a power cut now, where of what was not flushed nothing arrived
 * (but what durable writes wrote). */
static struct bdev *after_cut(struct recorded *r)
{
	struct pick p = PICK(PICK_NONE);
	struct bdev *dev;
	struct replay rep;
	size_t sure;

	replay_init(&rep, r->log, r->base);
	ck_ok(replay_cut(&rep, log_count(r->log), &sure));
	ck_ok(replay_state(&rep, log_count(r->log), &p, &dev));
	return dev;
}

static void end_recording(struct recorded *r, struct bdev *dev)
{
	bdev_close(dev);
	bdev_close(r->log);
	bdev_close(r->base);
}

START_TEST(few_data_are_carried_and_nothing_else_is_flushed)
{
	struct recorded r;
	struct bdev *dev;
	uint64_t ino, want;
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
	want = digest(&r.l);
	dev = after_cut(&r);
	expect_after_crash(dev, want);
	crash(&r.l);
	end_recording(&r, dev);
}
END_TEST

START_TEST(many_data_are_written_once_and_flushed)
{
	struct commit_stats before, after;
	struct recorded r;
	struct bdev *dev;
	uint64_t ino, want;
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
	want = digest(&r.l);
	dev = after_cut(&r);
	expect_after_crash(dev, want);
	crash(&r.l);
	end_recording(&r, dev);
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

/* Whoever only looks writes nothing, and sees it all the same. */
START_TEST(a_reader_sees_what_is_only_in_the_log)
{
	struct bdev *dev, *faulty;
	struct recorded r;
	uint64_t ino, want;
	struct lab l;

	record(&r);
	ino = make_file(&r.l, "file");
	ck_ok(store_commit(r.l.s, NULL, NULL));
	write_bytes(&r.l, ino, 0, 20000, 7);
	ck_ok(fs_fsync(r.l.fs, ino, false));
	want = digest(&r.l);
	dev = after_cut(&r);
	ck_ok(fault_open(dev, &faulty));
	test_log_hide();
	l = open_on(faulty, STORE_READONLY);
	test_log_show();
	ck_assert_uint_eq(digest(&l), want);
	check_clean(l.s);
	close_it(&l);
	ck_assert_uint_eq(fault_count(faulty, FAULT_WRITE), 0);
	bdev_close(faulty);
	crash(&r.l);
	end_recording(&r, dev);
}
END_TEST

/* Half a sector was written when the power went, and can't be read. */
START_TEST(a_reader_needs_no_place_of_which_the_log_has_the_contents)
{
	struct bdev *dev, *faulty;
	struct recorded r;
	uint64_t ino, want, blk;
	struct lab l;

	record(&r);
	ino = make_file(&r.l, "file");
	ck_ok(store_commit(r.l.s, NULL, NULL));
	write_bytes(&r.l, ino, 0, 20000, 7);
	ck_ok(fs_fsync(r.l.fs, ino, false));
	want = digest(&r.l);
	blk = first_block(&r.l, ino);
	dev = after_cut(&r);
	ck_ok(fault_open(dev, &faulty));
	fault_range(faulty, FAULT_READ, (blk + 1) * COWFS_BLOCK_SIZE, 1, -EIO);
	l = open_on(faulty, STORE_READONLY);
	ck_assert_uint_eq(digest(&l), want);
	check_clean(l.s);
	close_it(&l);
	bdev_close(faulty);
	crash(&r.l);
	end_recording(&r, dev);
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
	check_clean(l.s);
	close_it(&l);
	ck_ok(bdev_read(mem, blk * COWFS_BLOCK_SIZE, now, sizeof(now)));
	ck_assert_mem_eq(old, now, sizeof(old));
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

/* Contents that have to be read to be carried, and can't be. */
START_TEST(what_cannot_be_read_is_flushed_instead)
{
	struct bdev *log, *faulty;
	uint64_t ino, blk;
	struct lab l;
	size_t from;

	ck_ok(log_open(mem, &log));
	ck_ok(fault_open(log, &faulty));
	l = open_on(faulty, 0);
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
	bdev_close(faulty);
	l = open_on(mem, STORE_READONLY);
	check_clean(l.s);
	close_it(&l);
	bdev_close(log);
}
END_TEST

/* Some states of a power cut at any time since log entry `from`. */
static void cut_everywhere(struct bdev *log, struct bdev *base, size_t from,
			   uint64_t old, uint64_t want)
{
	struct pick p = PICK(PICK_SEED);
	struct bdev *dev;
	struct replay r;
	struct rng rng;
	size_t cut, sure;
	unsigned i;

	rng_init(&rng, test_seed(), 7);
	replay_init(&r, log, base);
	for (cut = from; cut <= log_count(log); cut++) {
		ck_ok(replay_cut(&r, cut, &sure));
		for (i = 0; i < 32; i++) {
			p.seed = rng_next(&rng);
			ck_ok(replay_state(&r, cut, &p, &dev));
			expect_either(dev, old, want);
			bdev_close(dev);
			if (cut == sure)
				break;
		}
	}
}

/* Killed when all was written but not flushed, opened again, power cut: what
 * was found in the system's memory may be lost, but not half of it. */
START_TEST(what_a_killed_program_left_is_flushed_before_it_counts)
{
	struct bdev *base, *log, *faulty;
	uint64_t ino, old, want;
	struct lab l;
	size_t from;

	l = open_on(mem, 0);
	ino = make_file(&l, "a");
	write_piece(&l, ino, 0, 1);
	old = digest(&l);
	close_it(&l);
	ck_ok(bdev_open_mem(DEV_SIZE, &base));
	ck_ok(dev_copy(base, mem));
	ck_ok(log_open(mem, &log));
	ck_ok(fault_open(log, &faulty));
	l = open_on(faulty, 0);
	write_piece(&l, ino, 0, 2);
	want = digest(&l);
	fault_from(faulty, FAULT_FLUSH, 1, -EIO);
	test_log_hide();
	ck_err(store_commit(l.s, NULL, NULL), -EIO);
	crash(&l);
	from = log_count(log);
	l = open_on(log, 0); /* finds all of it */
	test_log_show();
	ck_assert_uint_eq(digest(&l), want);
	crash(&l);
	cut_everywhere(log, base, from, old, want);
	bdev_close(faulty);
	bdev_close(log);
	bdev_close(base);
}
END_TEST

/* The same while it said that all was well: that is no superblock to be
 * believed more than another, but all that it names is on the disk. */
START_TEST(what_was_left_by_one_killed_while_closing_needs_no_flush)
{
	struct bdev *base, *log, *faulty;
	uint64_t ino, old, want;
	struct lab l;
	size_t from;

	l = open_on(mem, 0);
	ino = make_file(&l, "a");
	write_piece(&l, ino, 0, 1);
	old = digest(&l);
	close_it(&l);
	ck_ok(bdev_open_mem(DEV_SIZE, &base));
	ck_ok(dev_copy(base, mem));
	ck_ok(log_open(mem, &log));
	ck_ok(fault_open(log, &faulty));
	l = open_on(faulty, 0);
	write_piece(&l, ino, 0, 2);
	want = digest(&l);
	/* what it names, itself, and then the word CLEAN */
	fault_from(faulty, FAULT_FLUSH, 3, -EIO);
	test_log_hide();
	fs_umount(l.fs);
	ck_err(store_close(l.s), -EIO);
	from = log_count(log);
	l = open_on(log, 0);
	test_log_show();
	ck_assert_uint_eq(digest(&l), want);
	ck_assert_int_eq(log_get(log, from)->kind, LOG_WRITE);
	crash(&l);
	cut_everywhere(log, base, from, want, want);
	ck_assert_uint_ne(old, want);
	bdev_close(faulty);
	bdev_close(log);
	bdev_close(base);
}
END_TEST

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
}
END_TEST

/* Each time the new superblock arrives, and a node it names does not. */
START_TEST(crashes_while_opening_never_use_up_the_state_found)
{
	struct bdev *base, *log, *dev;
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
	write_piece(&l, ino, 0, 2);
	ck_ok(fs_fsync(l.fs, ino, false));
	want = digest(&l);
	crash(&l);
	test_log_hide();
	for (n = 0; n < 9; n++) {
		ck_ok(bdev_open_mem(DEV_SIZE, &base));
		ck_ok(dev_copy(base, mem));
		ck_ok(log_open(mem, &log));
		l = open_on(log, 0);
		ck_assert_uint_eq(digest(&l), want);
		crash(&l);
		/* the first flush comes before anything is written */
		for (i = 0; log_get(log, i)->kind != LOG_WRITE; i++)
			;
		p.which = i;
		for (; log_get(log, i)->kind == LOG_WRITE; i++)
			;
		replay_init(&r, log, base);
		ck_ok(replay_cut(&r, i, &sure));
		ck_ok(replay_state(&r, i, &p, &dev));
		bdev_close(mem);
		ck_ok(bdev_open_mem(DEV_SIZE, &mem));
		ck_ok(dev_copy(mem, dev));
		bdev_close(dev);
		bdev_close(log);
		bdev_close(base);
	}
	test_log_show();
	expect_after_crash(mem, want);
}
END_TEST

static Suite *log_suite(void)
{
	Suite *su = suite_create("log");
	TCase *one = tcase_create("one copy");
	TCase *two = tcase_create("two copies");

	tcase_set_timeout(one, 300);
	tcase_add_checked_fixture(one, setup, teardown);
	tcase_add_test(one, replaying_keeps_off_what_later_records_name);
	tcase_add_test(one, rot_in_a_commit_that_was_done_takes_nothing_back);
	tcase_add_test(one, rot_in_a_record_that_was_done_takes_nothing_back);
	tcase_add_test(one, rot_within_the_log_is_told_from_its_end);
	tcase_add_test(one, rot_of_the_last_record_looks_like_its_end);
	tcase_add_test(one,
		       what_a_killed_program_left_is_flushed_before_it_counts);
	tcase_add_test(one,
		       what_was_left_by_one_killed_while_closing_needs_no_flush);
	tcase_add_test(one, opening_flushes_what_it_must);
	tcase_add_test(one,
		       crashes_while_opening_never_use_up_the_state_found);
	tcase_add_test(one,
		       few_data_are_carried_and_nothing_else_is_flushed);
	tcase_add_test(one, many_data_are_written_once_and_flushed);
	tcase_add_test(one, each_block_is_carried_once);
	tcase_add_test(one, a_reader_sees_what_is_only_in_the_log);
	tcase_add_test(one,
		a_reader_needs_no_place_of_which_the_log_has_the_contents);
	tcase_add_test(one, a_record_cannot_overwrite_what_has_an_owner);
	tcase_add_test(one, a_repair_puts_carried_data_in_place);
	tcase_add_test(one, what_cannot_be_read_is_flushed_instead);
	suite_add_tcase(su, one);
	tcase_set_timeout(two, 300);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_add_test(two, replaying_keeps_off_what_later_records_name);
	tcase_add_test(two,
		       few_data_are_carried_and_nothing_else_is_flushed);
	tcase_add_test(two, a_reader_sees_what_is_only_in_the_log);
	suite_add_tcase(su, two);
	return su;
}

int main(void)
{
	return test_main(log_suite());
}
