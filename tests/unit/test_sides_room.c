/*
 * test_sides_room.c - a mirror whose sides find no room below them, or fail, in
 * whatever they are asked to do
 *
 * Where both are full nothing is lost, and none is dropped for it; where one is,
 * the other goes on.
 */
#include "snapshot/snapshot.h"
#include "unit/sides_fixture.h"

#define WRITES_MAX 64u /* of a commit here, at most */

static void fill(unsigned mask, unsigned n)
{
	for (unsigned i = 0; i < 2; i++)
		if (mask & 1u << i)
			(void)fault_from(t.side[i], FAULT_WRITE, n, -ENOSPC);
}

static void make_room(void)
{
	fault_clear(t.side[0]);
	fault_clear(t.side[1]);
}

static void begin(void)
{
	setup();
	ck_ok(store_start(t.s));
}

/* Whichever of its writes finds none first, those of the superblock too. */
START_TEST(a_commit_is_made_when_both_have_room)
{
	unsigned n;

	for (n = 1; n < WRITES_MAX; n++) {
		ck_ok(write_file("f", false));
		fill(BOTH, n);
		if (!store_commit(t.s, NULL, NULL))
			break;
		ck_assert(!store_stopped(t.s));
		ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
		ck_err(store_commit(t.s, NULL, NULL), -ENOSPC);
		make_room();
		ck_ok(store_commit(t.s, NULL, NULL));
		ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	}
	ck_assert_uint_gt(n, 5); /* nodes twice, superblocks, the mark */
	ck_assert_uint_lt(n, WRITES_MAX);
	make_room();
	t.digest = look();
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_each_side();
}
END_TEST

/* The side that is full first is dropped if the other did what was asked. */
START_TEST(one_that_is_full_earlier_is_dropped_at_most)
{
	unsigned n = 1 + (unsigned)_i;

	ck_ok(write_file("f", false));
	fill(1, n);
	fill(2, n + 1);
	if (store_commit(t.s, NULL, NULL))
		ck_assert_uint_ne(bdev_bad_sides(t.dev), BOTH);
	ck_assert(!store_stopped(t.s));
	make_room();
	ck_ok(store_commit(t.s, NULL, NULL));
	t.digest = look();
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
	scrub();
	close_it();
	check_each_side();
}
END_TEST

/* ---- anything ---- */

#define STEPS 60u

static struct {
	uint64_t digest[4 * STEPS];
	unsigned count, promised;
} seen;

static void reached(bool promised)
{
	seen.digest[seen.count] = look();
	if (promised)
		seen.promised = seen.count;
	seen.count++;
}

static bool among(uint64_t digest, unsigned from)
{
	for (unsigned i = from; i < seen.count; i++)
		if (seen.digest[i] == digest)
			return true;
	return false;
}

/* A flush that failed fails from then on (file.c, F2). */
static void arm(void)
{
	static const int errs[] = { -ENOSPC, -ENOSPC, -EIO };
	unsigned mask = 1 + (unsigned)rng_below(&t.rng, 3), i;
	bool flush = rng_one_in(&t.rng, 6), same = rng_one_in(&t.rng, 2);
	unsigned n = 1 + (unsigned)rng_below(&t.rng, 12);
	int err = errs[rng_below(&t.rng, 3)];

	for (i = 0; i < 2; i++) {
		if (!same)
			n = 1 + (unsigned)rng_below(&t.rng, 12);
		if (!(mask & 1u << i))
			continue;
		if (flush || err == -EIO)
			(void)fault_from(t.side[i], flush ? FAULT_FLUSH :
					 FAULT_WRITE, n, err);
		else
			(void)fault_add(t.side[i], &(struct fault_rule){
				.op = FAULT_WRITE, .skip = n - 1, .err = err,
				.times = (unsigned)rng_below(&t.rng, 20) });
	}
}

/* 0: what was done before is promised. */
static int change(void)
{
	static const struct check_options resync = { .data = true,
						     .mend = true };
	struct check_result res;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "f%u", (unsigned)rng_below(&t.rng, 10));
	switch (rng_below(&t.rng, 12)) {
	case 0:
		return store_commit(t.s, NULL, NULL);
	case 1:
		return snap_create(t.s, name, NULL);
	case 6:
		return check_run(t.s, &resync, &res) ? -EIO : -EAGAIN;
	case 2:
		return fs_snap_delete(t.fs, name);
	case 3:
		err = fs_restore(t.fs, name, COWFS_SNAP_UNDO, &(bool){ false });
		return err;
	case 4:
		err = fs_unlink(t.fs, COWFS_INO_ROOT, name, strlen(name), NULL);
		return err ? err : -EAGAIN;
	case 5:
		err = write_file(name, false);
		return err ? err : -EAGAIN;
	default:
		return write_file(name, true);
	}
}

/* What each set of sides has after the crash, which it is given a copy of. */
static void expect(unsigned mask, bool was_good, bool known)
{
	struct bdev *mem[2] = { t.mem[0], t.mem[1] };
	unsigned i;
	int err;

	for (i = 0; i < 2; i++)
		ck_ok(overlay_open(mem[i], &t.mem[i]));
	err = open_it(mask);
	if (err)
		ck_assert(mask != BOTH && !was_good);
	else {
		uint64_t d = look();
		ck_assert_msg(!known || among(d, was_good ? seen.promised : 0),
			      "sides %u, good %d: not what was promised",
			      mask, was_good);
		close_it();
		check_fully(mask);
	}
	for (i = 0; i < 2; i++) {
		bdev_close(t.mem[i]);
		t.mem[i] = mem[i];
	}
}

static void one_round(void)
{
	unsigned i, good, first;
	int err;

	if (rng_one_in(&t.rng, 3)) { /* one is away */
		ck_ok(open_it(1 + (unsigned)rng_below(&t.rng, 2)));
		ck_ok(write_file("away", true));
		close_it();
	}
	ck_ok(open_it(BOTH));
	first = bdev_bad_sides(t.dev);
	ck_ok(store_start(t.s));
	seen.count = seen.promised = 0;
	reached(true);
	for (i = 0; i < STEPS; i++) {
		if (rng_one_in(&t.rng, 8))
			arm();
		else if (rng_one_in(&t.rng, 8))
			make_room();
		err = change();
		reached(!err);
	}
	good = BOTH & ~bdev_bad_sides(t.dev);
	if (rng_one_in(&t.rng, 3))
		make_room();
	if (rng_one_in(&t.rng, 3)) {
		fs_umount(t.fs);
		err = store_close(t.s);
		good = BOTH & ~bdev_bad_sides(t.dev);
		bdev_close(t.dev);
		t.s = NULL;
		t.dev = NULL;
		if (!err)
			seen.promised = seen.count - 1;
	} else {
		crash();
	}
	for (i = 0; i < 2; i++)
		expect(1u << i, good & 1u << i, !(first & 1u << i));
	expect(BOTH, true, true);
	ck_ok(open_it(BOTH));
	scrub();
	close_it();
	check_fully(BOTH);
	check_fully(1);
	check_fully(2);
}

START_TEST(whatever_fails_keeps_what_was_promised)
{
	unsigned n = test_rounds(4);

	close_it();
	while (n--)
		one_round();
}
END_TEST

static void add_all(TCase *tc)
{
	tcase_add_test(tc, a_commit_is_made_when_both_have_room);
	tcase_add_loop_test(tc, one_that_is_full_earlier_is_dropped_at_most, 0,
			    12);
}

static void add_any(TCase *tc)
{
	tcase_add_test(tc, whatever_fails_keeps_what_was_promised);
}

static Suite *sides_room_suite(void)
{
	Suite *s = suite_create("sides, room");

	test_case(s, "full", 120, begin, teardown, add_all);
	test_case(s, "any", 0, setup, teardown, add_any);
	return s;
}

int main(void)
{
	return test_main(sides_room_suite());
}
