/*
 * test_testdev.c - the devices that other tests rely on
 */
#include <stdlib.h>
#include <string.h>

#include "support/test.h"
#include "support/testdev.h"
#include "util/util.h"

#define SECTORS 64u
#define SIZE (SECTORS * TEST_SECTOR)

static struct bdev *mem, *dev;

static void setup(void)
{
	ck_ok(bdev_open_mem(SIZE, &mem));
	dev = NULL;
}

static void teardown(void)
{
	bdev_close(dev);
	bdev_close(mem);
}

/* n sectors full of c */
static int put(struct bdev *d, unsigned sector, unsigned n, char c)
{
	char buf[16 * TEST_SECTOR];

	memset(buf, c, sizeof(buf));
	return bdev_write(d, sector * TEST_SECTOR, buf, n * TEST_SECTOR);
}

/* What is in each sector, as text: '.' for zeros. */
static const char *look(struct bdev *d, unsigned n)
{
	static char text[SECTORS + 1];
	char buf[TEST_SECTOR];
	unsigned i;

	for (i = 0; i < n; i++) {
		ck_ok(bdev_read(d, i * TEST_SECTOR, buf, sizeof(buf)));
		ck_assert(!memcmp(buf, buf + 1, sizeof(buf) - 1));
		text[i] = buf[0] ? buf[0] : '.';
	}
	text[n] = '\0';
	return text;
}

START_TEST(the_nth_operation_fails_once)
{
	char buf[512];
	unsigned rule;

	ck_ok(fault_open(mem, &dev));
	rule = fault_nth(dev, FAULT_WRITE, 3, -EIO);
	fault_nth(dev, FAULT_READ, 2, -EIO);
	fault_nth(dev, FAULT_FLUSH, 1, -ENOSPC);
	ck_ok(put(dev, 0, 1, 'a'));
	ck_ok(put(dev, 1, 1, 'b'));
	ck_err(put(dev, 2, 1, 'c'), -EIO);
	ck_ok(put(dev, 3, 1, 'd'));
	ck_err(bdev_flush(dev), -ENOSPC);
	ck_ok(bdev_flush(dev));
	ck_ok(bdev_read(dev, 0, buf, 512));
	ck_err(bdev_read(dev, 0, buf, 512), -EIO);
	ck_ok(bdev_read(dev, 0, buf, 512));
	ck_assert_str_eq(look(mem, 5), "ab.d.");
	ck_assert_uint_eq(fault_hits(dev, rule), 1);
	ck_assert_uint_eq(fault_count(dev, FAULT_WRITE), 4);
	ck_assert_uint_eq(fault_count(dev, FAULT_READ), 3);
	ck_assert_uint_eq(fault_count(dev, FAULT_FLUSH), 2);
}
END_TEST

START_TEST(a_bad_spot_stays_bad_until_cleared)
{
	ck_ok(fault_open(mem, &dev));
	fault_range(dev, FAULT_WRITE, 4 * 512, 2 * 512, -EIO);
	fault_from(dev, FAULT_FLUSH, 2, -EIO);
	ck_ok(put(dev, 0, 4, 'a'));
	ck_err(put(dev, 3, 2, 'b'), -EIO);
	ck_err(put(dev, 5, 1, 'b'), -EIO);
	ck_ok(put(dev, 6, 1, 'c'));
	ck_ok(bdev_flush(dev));
	ck_err(bdev_flush(dev), -EIO);
	ck_err(bdev_flush(dev), -EIO);
	fault_clear(dev);
	ck_ok(bdev_flush(dev));
	ck_ok(put(dev, 5, 1, 'd'));
	ck_assert_str_eq(look(mem, 8), "aaaa.dc.");
}
END_TEST

START_TEST(writes_are_torn_and_lost)
{
	ck_ok(fault_open(mem, &dev));
	fault_add(dev, &(struct fault_rule){ .op = FAULT_WRITE,
		  .kind = FAULT_TORN, .sectors = 3, .times = 1, .err = -EIO });
	fault_add(dev, &(struct fault_rule){ .op = FAULT_WRITE,
		  .kind = FAULT_LOST, .times = 1 });
	ck_err(put(dev, 0, 8, 'a'), -EIO);
	ck_ok(put(dev, 8, 2, 'b'));
	ck_ok(put(dev, 10, 1, 'c'));
	ck_assert_str_eq(look(mem, 12), "aaa.......c.");
}
END_TEST

START_TEST(bits_flip_on_reads_and_writes)
{
	char buf[1024];

	ck_ok(fault_open(mem, &dev));
	ck_ok(put(dev, 0, 2, 'a'));
	fault_add(dev, &(struct fault_rule){ .op = FAULT_READ,
		  .kind = FAULT_FLIP, .off = 700, .bit = 1 });
	ck_ok(bdev_read(dev, 0, buf, 1024));
	ck_assert_int_eq(buf[700], 'a' ^ 2);
	ck_assert_int_eq(buf[699], 'a');
	ck_ok(bdev_read(dev, 0, buf, 512));
	ck_assert_str_eq(look(mem, 3), "aa.");
	fault_add(dev, &(struct fault_rule){ .op = FAULT_WRITE,
		  .kind = FAULT_FLIP, .off = 512, .bit = 0 });
	ck_ok(put(dev, 1, 1, 'a'));
	ck_ok(bdev_read(mem, 512, buf, 512));
	ck_assert_int_eq(buf[0], 'a' ^ 1);
	flip_bit(mem, 512, 0);
	ck_assert_str_eq(look(mem, 3), "aa.");
}
END_TEST

START_TEST(an_overlay_leaves_what_is_below)
{
	static uint8_t want[SIZE], got[SIZE];
	unsigned i, rounds = test_rounds(500);
	struct rng r;

	rng_init(&r, test_seed(), 30);
	rng_fill(&r, want, sizeof(want));
	ck_ok(bdev_write(mem, 0, want, sizeof(want)));
	ck_ok(overlay_open(mem, &dev));
	for (i = 0; i < rounds; i++) {
		uint64_t at = rng_below(&r, SECTORS) * 512;
		uint64_t n = rng_below(&r, SECTORS) * 512;

		n = min_u64(n, SIZE - at);
		if (i % 4 == 0 && n <= 2048) {
			rng_fill(&r, want + at, n);
			ck_ok(bdev_write(dev, at, want + at, n));
		}
		ck_ok(bdev_read(dev, at, got, n));
		ck_assert(!memcmp(got, want + at, n));
	}
	ck_ok(bdev_read(dev, 0, got, sizeof(got)));
	ck_assert_mem_eq(got, want, sizeof(got));
	/* below there is still the first fill */
	rng_init(&r, test_seed(), 30);
	rng_fill(&r, want, sizeof(want));
	ck_ok(bdev_read(mem, 0, got, sizeof(got)));
	ck_assert_mem_eq(got, want, sizeof(got));
}
END_TEST

static struct bdev *log_dev, *base;
static struct replay replay;

/* aa | flush | bb, cccc, d | flush | e */
static void record(void)
{
	ck_ok(log_open(mem, &log_dev));
	ck_ok(bdev_open_mem(SIZE, &base));
	ck_ok(put(log_dev, 0, 2, 'a'));  /* 0 */
	ck_ok(bdev_flush(log_dev));      /* 1 */
	ck_ok(put(log_dev, 2, 2, 'b'));  /* 2 */
	ck_ok(put(log_dev, 4, 4, 'c'));  /* 3 */
	ck_ok(put(log_dev, 0, 1, 'd'));  /* 4 */
	ck_ok(bdev_flush(log_dev));      /* 5 */
	ck_ok(put(log_dev, 1, 1, 'e'));  /* 6 */
	replay_init(&replay, log_dev, base);
}

static void forget(void)
{
	bdev_close(log_dev);
	bdev_close(base);
}

static void check_state(size_t cut, struct pick p, const char *want)
{
	struct bdev *state;

	ck_ok(replay_state(&replay, cut, &p, &state));
	ck_assert_str_eq(look(state, 8), want);
	bdev_close(state);
}

START_TEST(the_log_has_writes_and_flushes_in_order)
{
	const struct log_entry *e;

	record();
	ck_assert_uint_eq(log_count(log_dev), 7);
	e = log_get(log_dev, 3);
	ck_assert_int_eq(e->kind, LOG_WRITE);
	ck_assert_uint_eq(e->off, 4 * 512);
	ck_assert_uint_eq(e->len, 4 * 512);
	ck_assert_int_eq(e->data[2047], 'c');
	ck_assert_int_eq(log_get(log_dev, 5)->kind, LOG_FLUSH);
	ck_assert_str_eq(look(mem, 8), "debbcccc");
	log_reset(log_dev);
	ck_assert_uint_eq(log_count(log_dev), 0);
	forget();
}
END_TEST

START_TEST(a_cut_keeps_what_was_flushed_and_the_picked_rest)
{
	struct pick p;
	size_t sure;

	record();
	ck_ok(replay_cut(&replay, 1, &sure));
	ck_assert_uint_eq(sure, 0);
	check_state(1, PICK(PICK_NONE), "........");
	check_state(1, PICK(PICK_ALL), "aa......");
	ck_ok(replay_cut(&replay, 5, &sure));
	ck_assert_uint_eq(sure, 2);
	check_state(5, PICK(PICK_NONE), "aa......");
	check_state(5, PICK(PICK_ALL), "dabbcccc");
	p = PICK(PICK_ONLY);
	p.which = 3;
	check_state(5, p, "aa..cccc");
	p.how = PICK_BUT;
	check_state(5, p, "dabb....");
	p = PICK(PICK_MASK);
	p.mask = 5; /* entries 2 and 4 */
	check_state(5, p, "dabb....");
	p = PICK(PICK_ALL);
	p.torn = 3;
	p.sectors = 1;
	check_state(5, p, "dabbc...");
	check_state(4, p, "aabbc...");
	ck_ok(replay_cut(&replay, 7, &sure));
	ck_assert_uint_eq(sure, 6);
	check_state(7, PICK(PICK_NONE), "dabbcccc");
	check_state(7, PICK(PICK_ALL), "debbcccc");
	forget();
}
END_TEST

START_TEST(seeded_subsets_repeat_and_vary)
{
	char first[16], again[16];
	bool varied = false, scattered = false;
	struct bdev *state;
	struct pick p;
	size_t sure;
	unsigned i;

	record();
	ck_ok(replay_cut(&replay, 5, &sure));
	for (i = 1; i < 40; i++) {
		p = PICK(PICK_SEED);
		p.seed = i;
		ck_ok(replay_state(&replay, 5, &p, &state));
		strcpy(again, look(state, 8));
		bdev_close(state);
		check_state(5, p, again);
		varied |= i > 1 && strcmp(first, again);
		strcpy(first, again);
		p = PICK(PICK_ALL);
		p.torn = 3;
		p.torn_seed = i;
		ck_ok(replay_state(&replay, 5, &p, &state));
		/* a first sector missing: more than a torn tail */
		scattered |= !strncmp(look(state, 8), "dabb.c", 6);
		bdev_close(state);
	}
	ck_assert(varied);
	ck_assert(scattered);
	forget();
}
END_TEST

START_TEST(what_failed_below_is_not_recorded)
{
	struct bdev *log;

	ck_ok(fault_open(mem, &dev));
	ck_ok(log_open(dev, &log));
	fault_nth(dev, FAULT_WRITE, 2, -EIO);
	fault_nth(dev, FAULT_FLUSH, 1, -EIO);
	ck_ok(put(log, 0, 1, 'a'));
	ck_err(put(log, 1, 1, 'b'), -EIO);
	ck_err(bdev_flush(log), -EIO);
	ck_ok(put(log, 2, 1, 'c'));
	ck_assert_uint_eq(log_count(log), 2);
	ck_assert_uint_eq(log_get(log, 1)->off, 1024);
	bdev_close(log);
}
END_TEST

START_TEST(dev_copy_copies_all)
{
	struct bdev *to;

	ck_ok(put(mem, 3, 2, 'x'));
	ck_ok(put(mem, SECTORS - 1, 1, 'y'));
	ck_ok(bdev_open_mem(SIZE, &to));
	ck_ok(dev_copy(to, mem));
	ck_assert_str_eq(look(to, 6), "...xx.");
	ck_assert_int_eq(look(to, SECTORS)[SECTORS - 1], 'y');
	bdev_close(to);
}
END_TEST

START_TEST(random_numbers_repeat_by_seed_and_differ_by_stream)
{
	struct rng a, b, c;
	uint8_t buf[7] = { 0 };

	rng_init(&a, 42, 1);
	rng_init(&b, 42, 1);
	rng_init(&c, 42, 2);
	ck_assert_uint_eq(rng_next(&a), rng_next(&b));
	ck_assert_uint_ne(rng_next(&a), rng_next(&c));
	ck_assert_uint_lt(rng_below(&a, 3), 3);
	ck_assert_uint_eq(rng_range(&a, 9, 9), 9);
	ck_assert(rng_one_in(&a, 1));
	rng_fill(&a, buf, 3);
	ck_assert_uint_eq(buf[3], 0);
}
END_TEST

static Suite *testdev_suite(void)
{
	Suite *s = suite_create("testdev");
	TCase *tc = tcase_create("testdev");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_nth_operation_fails_once);
	tcase_add_test(tc, a_bad_spot_stays_bad_until_cleared);
	tcase_add_test(tc, writes_are_torn_and_lost);
	tcase_add_test(tc, bits_flip_on_reads_and_writes);
	tcase_add_test(tc, an_overlay_leaves_what_is_below);
	tcase_add_test(tc, the_log_has_writes_and_flushes_in_order);
	tcase_add_test(tc, a_cut_keeps_what_was_flushed_and_the_picked_rest);
	tcase_add_test(tc, seeded_subsets_repeat_and_vary);
	tcase_add_test(tc, what_failed_below_is_not_recorded);
	tcase_add_test(tc, dev_copy_copies_all);
	tcase_add_test(tc, random_numbers_repeat_by_seed_and_differ_by_stream);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(testdev_suite());
}
