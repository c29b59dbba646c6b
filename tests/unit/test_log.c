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
	ck_ok(fs_fsync(l.fs, a, false));
	blk = first_block(&l, a);
	write_piece(&l, b, 0, 2);
	ck_ok(fs_fsync(l.fs, b, false));
	crash(&l);
	rot_and_open(blk, a, b);
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
	tcase_add_test(one,
		       what_a_killed_program_left_is_flushed_before_it_counts);
	tcase_add_test(one,
		       crashes_while_opening_never_use_up_the_state_found);
	suite_add_tcase(su, one);
	tcase_set_timeout(two, 300);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_add_test(two, replaying_keeps_off_what_later_records_name);
	suite_add_tcase(su, two);
	return su;
}

int main(void)
{
	return test_main(log_suite());
}
