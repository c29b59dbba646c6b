/*
 * test_sides.c - a filesystem on a mirror: which of its sides are believed when
 * it is opened, and what is noted of one that fails
 */
#include "check/repair.h"
#include "unit/sides_fixture.h"

/* ---- both sides are well ---- */

START_TEST(each_side_has_everything)
{
	struct cowfs_disk_super a, b;

	close_it();
	check_each_side();
	a = super_of(0);
	b = super_of(1);
	ck_assert_uint_eq(from_le16(a.dev_index), 0);
	ck_assert_uint_eq(from_le16(b.dev_index), 1);
	ck_assert_mem_eq(a.mirror.dev_uuid[0], a.dev_uuid, 16);
	ck_assert_mem_eq(a.mirror.dev_uuid[1], b.dev_uuid, 16);
	ck_assert_uint_eq(from_le64(a.incompat) & COWFS_INCOMPAT_MIRROR,
			  COWFS_INCOMPAT_MIRROR);
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
}
END_TEST

START_TEST(a_side_alone_is_refused_unless_asked_for)
{
	struct store_config cfg = { .flags = STORE_READONLY };
	struct check_result res;
	struct check_options opt = { 0 };
	struct store *s;

	close_it();
	cfg.dev = t.mem[0];
	ck_err(store_open(&cfg, &s), -ENODEV);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "mirror"));
	ck_err(check_device(t.mem[1], &opt, &res), -ENODEV);
}
END_TEST

START_TEST(sides_in_the_wrong_order_or_of_two_filesystems_are_refused)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };
	struct bdev *mem = t.mem[0];

	close_it();
	t.mem[0] = t.mem[1];
	t.mem[1] = mem;
	ck_err(open_it(BOTH), -EINVAL);
	mem = copy_of(1); /* side 0 of the old one */
	assemble(BOTH, false);
	ck_ok(cowfs_mkfs(t.dev, &opt));
	bdev_close(t.dev);
	put_back(0, mem);
	ck_err(open_it(BOTH), -EINVAL);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "not the sides of one"));
}
END_TEST

/* Opened again, nothing is missing on any of them. */
static void expect_both_good(void)
{
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_each_side();
}

START_TEST(after_a_crash_neither_side_is_stale)
{
	crash();
	expect_both_good();
}
END_TEST

/* Nothing of the last commit reached one side: the commit counts, and both
 * have it afterwards. */
START_TEST(a_side_one_commit_behind_is_brought_along)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct bdev *old;

	ck_ok(store_commit(t.s, NULL, NULL));
	old = copy_of(s);
	ck_ok(write_file("last", false));
	ck_ok(store_commit(t.s, NULL, NULL));
	t.digest = look();
	crash();
	put_back(s, old);
	expect_both_good();
}
END_TEST

/* The places of a superblock on one side, as they are on another device. */
static void slot_from(unsigned side, struct bdev *from, uint64_t gen)
{
	uint64_t at;

	for (unsigned far = 0; far < 2; far++) {
		uint8_t buf[COWFS_BLOCK_SIZE];

		at = super_slot_block(DEV_BYTES / COWFS_BLOCK_SIZE,
				      (unsigned)(gen % COWFS_SUPER_SLOTS), far) *
		     COWFS_BLOCK_SIZE;
		ck_ok(bdev_read(from, at, buf, sizeof(buf)));
		ck_ok(bdev_write(t.mem[side], at, buf, sizeof(buf)));
	}
}

/*
 * Of a commit one side got all, or just the superblock; then there is another
 * crash while opening, before any slot was mended: each side has a superblock now
 * that the other one never had.
 */
START_TEST(two_crashes_in_a_row_make_neither_side_stale)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct bdev *old[2], *has;
	uint64_t gen;

	ck_ok(store_commit(t.s, NULL, NULL));
	t.digest = look();
	old[0] = copy_of(0);
	old[1] = copy_of(1);
	ck_ok(write_file("last", false));
	ck_ok(store_commit(t.s, NULL, NULL));
	gen = from_le64(super_of(s).gen);
	if (!_i)
		t.digest = look();
	crash();
	has = copy_of(s);
	if (_i) { /* what it names is nowhere */
		struct cowfs_disk_super d = super_of(s);

		put_back(s, old[s]);
		slot_from(s, has, gen);
		d.state |= COWFS_STATE_UNVERIFIED;
		super_for_side(&d, s, &d);
		ck_ok(bdev_write(t.mem[s], super_slot_block(
			DEV_BYTES / COWFS_BLOCK_SIZE, d.slot, 0) *
			COWFS_BLOCK_SIZE, &d, sizeof(d)));
		bdev_close(has);
		has = copy_of(s);
	} else {
		bdev_close(old[s]);
	}
	ck_ok(bdev_open_mem(DEV_BYTES, &old[s]));
	ck_ok(dev_copy(old[s], old[!s]));
	put_back(!s, old[!s]);
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
	crash();
	slot_from(!s, old[s], gen);
	bdev_close(old[s]);
	put_back(s, has);
	ck_assert_uint_gt(from_le64(super_of(!s).gen),
			  from_le64(super_of(s).gen));
	expect_both_good();
}
END_TEST

START_TEST(a_log_record_on_one_side_is_enough)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct bdev *old;

	ck_ok(store_commit(t.s, NULL, NULL));
	ck_ok(write_file("first", true));
	old = copy_of(s);
	ck_ok(write_file("last", true));
	t.digest = look();
	crash();
	put_back(s, old);
	expect_both_good();
}
END_TEST

/* Something is wrong with the newest superblock, on both sides. */
static void hurt_super(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct cowfs_disk_super d = super_of(i);

		d.free_blocks = to_le64(from_le64(d.free_blocks) - 1);
		super_seal(&d);
		for (unsigned far = 0; far < 2; far++)
			ck_ok(bdev_write(t.mem[i], super_slot_block(
				DEV_BYTES / COWFS_BLOCK_SIZE, d.slot, far) *
				COWFS_BLOCK_SIZE, &d, sizeof(d)));
	}
}

/* A repair reads superblocks more than once: what was found out by other means
 * stays so. */
START_TEST(a_repair_does_not_make_a_side_complete)
{
	struct repair_options opt = { .all = true };
	unsigned s = (unsigned)_i % 2;
	struct repair_result res;
	struct bdev *old;

	scribble('a', false);
	scribble('b', true);
	old = copy_of(s);
	scribble('c', true);
	scribble('d', true);
	t.digest = look();
	crash();
	put_back(s, old);
	hurt_super();
	assemble(BOTH, false);
	ck_ok(repair_run(t.dev, &opt, &res));
	ck_assert(res.committed);
	bdev_close(t.dev);
	t.dev = NULL;
	ck_assert_uint_ne(said_stale(!s, s), 0);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
	scrub();
	close_it();
	check_each_side();
}
END_TEST

/* All slots of one side are lost: it is filled again, all of it that is. */
START_TEST(superblocks_are_mended_on_either_side)
{
	unsigned s = (unsigned)_i % 2, i;
	static _Alignas(8) uint8_t a[COWFS_BLOCK_SIZE], b[COWFS_BLOCK_SIZE];
	struct bdev *old;
	uint64_t blk;

	close_it();
	old = copy_of(s);
	memset(a, 0xa5, sizeof(a));
	for (i = 0; i < 8; i++) /* all but the newest, near and far */
		if (i % 4 != super_of(!s).slot)
			ck_ok(bdev_write(t.mem[s], super_slot_block(
				DEV_BYTES / 4096, i % 4, i >= 4) * 4096, a,
				sizeof(a)));
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	crash();
	for (i = 0; i < 8; i++) {
		blk = super_slot_block(DEV_BYTES / 4096, i % 4, i >= 4);
		ck_ok(bdev_read(t.mem[s], blk * 4096, a, sizeof(a)));
		ck_ok(bdev_read(old, blk * 4096, b, sizeof(b)));
		/* as it was, but for the proof that one copy had, or newer */
		a[offsetof(struct cowfs_disk_super, state)] |=
			b[offsetof(struct cowfs_disk_super, state)] &
			COWFS_STATE_UNVERIFIED;
		super_seal((struct cowfs_disk_super *)a);
		if (i % 4 != super_of(s).slot)
			ck_assert_mem_eq(a, b, sizeof(a));
	}
	bdev_close(old);
}
END_TEST

/* ---- a side fails ---- */

START_TEST(what_fsync_promised_while_a_side_fails_is_kept)
{
	enum fault_op op = _i % 2 ? FAULT_FLUSH : FAULT_WRITE;
	unsigned s = (unsigned)_i / 2 % 2, n = (unsigned)_i / 4 + 1, tries;

	if (_i % 3 == 0)
		ck_ok(store_commit(t.s, NULL, NULL));
	fail_side(s, op, n);
	for (tries = 0; state(s) != SIDE_GONE; tries++) {
		ck_assert_uint_lt(tries, 50);
		ck_ok(write_file("promised", true));
	}
	t.digest = look();
	/* written down on the other side, durably, before fsync returned */
	ck_assert_uint_ne(said_stale(!s, s), 0);
	crash();
	check_contents(1u << !s);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
	scrub();
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	close_it();
	ck_assert_uint_eq(said_stale(!s, s), 0);
	check_each_side();
}
END_TEST

START_TEST(a_side_that_fails_in_a_commit_is_named_in_it)
{
	unsigned s = (unsigned)_i % 2, n = (unsigned)_i / 2 + 1;

	ck_ok(write_file("x", false));
	fail_side(s, FAULT_WRITE, n);
	ck_ok(store_commit(t.s, NULL, NULL));
	if (state(s) == SIDE_GONE)
		ck_assert_uint_ne(said_stale(!s, s), 0);
	t.digest = look();
	crash();
	check_contents(1u << !s);
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* The only word about a side that is stale may be what cannot be read now. */
START_TEST(the_other_side_does_not_stand_in_for_what_cannot_be_read)
{
	uint64_t gen, at;
	unsigned far;

	ck_ok(write_file("f", true));
	ck_ok(store_commit(t.s, NULL, NULL));
	fail_side(1, FAULT_WRITE, 1);
	scribble(7, false);
	t.digest = look();
	gen = store_durable_gen(t.s);
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 2);
	crash();
	assemble(BOTH, false);
	for (far = 0; far < 2; far++) {
		at = super_slot_block(DEV_BYTES / COWFS_BLOCK_SIZE,
				      gen % COWFS_SUPER_SLOTS, far);
		fault_range(t.side[0], FAULT_READ, at * COWFS_BLOCK_SIZE,
			    COWFS_BLOCK_SIZE, -EIO);
	}
	ck_err(test_mount(t.dev, 0, 0, &t.s, &t.fs), -EIO);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "cannot be read"));
	bdev_close(t.dev);
	t.s = NULL;
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
	ck_assert_int_eq(state(1), SIDE_STALE);
}
END_TEST

/*
 * One side loses what a commit writes below the superblock, and fails to flush;
 * the other one goes at the n-th write of the superblock's near copy. Whatever is
 * believed then, the first side has all of it, or is stale.
 */
START_TEST(what_one_side_did_not_flush_is_not_proven)
{
	unsigned s = (unsigned)_i % 2, n = (unsigned)_i / 2;
	struct fault_rule lost = { .op = FAULT_WRITE, .kind = FAULT_LOST };
	struct fault_rule off = { .op = FAULT_WRITE, .err = -EIO, .skip = n };

	lost.off = COWFS_FIRST_BLOCK * COWFS_BLOCK_SIZE;
	lost.len = DEV_BYTES - lost.off - COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE;
	off.off = COWFS_SUPER_NEAR * COWFS_BLOCK_SIZE;
	off.len = COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE;
	ck_ok(write_file("x", true));
	(void)fault_add(t.side[s], &lost);
	fail_side(s, FAULT_FLUSH, 1);
	(void)fault_add(t.side[!s], &off);
	ck_err(store_commit(t.s, NULL, NULL), -EIO);
	crash();
	ck_ok(open_it(BOTH));
	t.digest = look();
	if (state(s) == SIDE_STALE)
		scrub();
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	close_it();
	check_each_side();
}
END_TEST

/* Each time it is mounted alone it has more generations than the other one. */
START_TEST(two_that_went_on_alone_are_told_however_often_one_was_mounted)
{
	struct bdev *old;
	unsigned i;

	close_it();
	old = copy_of(1);
	ck_ok(open_it(BOTH));
	write_some(1);
	close_it();
	put_back(1, old);
	for (i = 0; i < 20u * (unsigned)(_i + 1); i++) {
		if (i % 20 == 0) {
			if (i)
				close_it();
			ck_ok(open_it(2));
		}
		scribble((uint8_t)i, false);
	}
	close_it();
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* Also when it is marked clean, which is the last thing that is written. */
START_TEST(a_side_that_fails_while_closing_is_named)
{
	struct bdev *fault;
	unsigned rule;
	uint64_t hits;

	scribble('a', false);
	fault = t.side[1];
	rule = fault_nth(fault, FAULT_WRITE, (unsigned)_i + 1, -EIO);
	fs_umount(t.fs);
	ck_ok(store_drain(t.s));
	ck_ok(store_close(t.s));
	hits = fault_hits(fault, rule);
	bdev_close(t.dev);
	t.s = NULL;
	ck_assert_int_eq(said_stale(0, 1) != 0, hits != 0);
}
END_TEST

START_TEST(the_timer_writes_down_what_a_reader_noticed)
{
	static uint8_t block[COWFS_BLOCK_SIZE];

	ck_ok(store_commit(t.s, NULL, NULL));
	fail_side(0, FAULT_WRITE, 1);
	ck_err(bdev_write_side(t.dev, 0, 4096, block, sizeof(block)), -EIO);
	ck_ok(store_start(t.s));
	store_kick(t.s, 0);
	for (unsigned i = 0; i < 500 && !said_stale(1, 0); i++)
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	ck_assert_uint_ne(said_stale(1, 0), 0);
}
END_TEST

START_TEST(an_error_of_the_last_side_stops_writing)
{
	fail_side(1, FAULT_WRITE, 1);
	ck_ok(write_file("x", true));
	t.digest = look();
	fail_side(0, FAULT_WRITE, 1);
	ck_assert_int_ne(write_file("y", true), 0);
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(1), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* ---- a side that has older contents ---- */

START_TEST(a_side_much_older_is_stale_though_nobody_says_so)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);
	struct bdev *old;

	close_it();
	old = copy_of(s);
	ck_ok(open_it(BOTH));
	write_some(30);
	for (unsigned i = 0; i < 5; i++) {
		ck_ok(write_file("more", false));
		ck_ok(store_commit(t.s, NULL, NULL));
	}
	t.digest = look();
	close_it();
	put_back(s, old);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(s), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
	scrub();
	close_it();
	check_each_side();
}
END_TEST

/* What is done after the copy was taken that is put back. */
static void go_on(unsigned i)
{
	static const char *const ways[] = {
		"", "f", "ff", "fff", "c", "cf", "cff", "fc", "cc", "ccc",
		"cccc", "b", "bf", "cb", "bc", "fccf",
	};
	const char *way = ways[i % ARRAY_SIZE(ways)];

	for (; *way; way++) {
		if (*way == 'b')
			write_big();
		else
			ck_ok(write_file(*way == 'f' ? "synced" : "x",
					 *way == 'f'));
		if (*way == 'c')
			ck_ok(store_commit(t.s, NULL, NULL));
	}
	t.digest = look();
}

/*
 * An older copy of one side is put back. It is found out, or what it lacks is
 * there after opening: in no case is a side GOOD that does not have everything.
 * What a crash can leave is no reason for a resync.
 */
START_TEST(a_side_that_is_put_back_is_never_trusted_too_far)
{
	/* 'g' it is GOOD, 's' STALE after a crash; '?' if an fsync may have
	 * taken a commit, which makes a difference. */
	static const char crashes[] = "gg??gss?sssgssss";
	unsigned s = (unsigned)rng_below(&t.rng, 2), way = (unsigned)_i % 16;
	bool clean = _i / 16 % 2;
	struct bdev *old;

	ck_ok(store_commit(t.s, NULL, NULL));
	if (_i / 32)
		ck_ok(write_file("first", true));
	old = copy_of(s);
	go_on(way);
	if (clean)
		close_it();
	else
		crash();
	put_back(s, old);
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(look(), t.digest);
	ck_assert_int_eq(state(!s), SIDE_GOOD);
	if (clean || crashes[way] != '?')
		ck_assert_int_eq(state(s), !clean && crashes[way] == 'g' ?
						   SIDE_GOOD : SIDE_STALE);
	if (state(s) == SIDE_STALE)
		scrub();
	ck_assert_int_eq(state(s), SIDE_GOOD);
	close_it();
	check_each_side();
}
END_TEST

/* It has no commit of its own since, but the one that opening made. */
START_TEST(what_the_commit_of_opening_says_counts)
{
	struct bdev *old;

	ck_ok(store_commit(t.s, NULL, NULL));
	old = copy_of(1);
	scribble('a', false);
	t.digest = look();
	crash();
	ck_ok(open_it(BOTH));
	crash();
	put_back(1, old);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(0), SIDE_GOOD);
	ck_assert_int_eq(state(1), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* Though it is the newer one, and the other one does not say so. */
START_TEST(a_side_that_calls_itself_stale_is)
{
	struct bdev *old;

	close_it();
	old = copy_of(0);
	wipe(1);
	ck_ok(open_it(BOTH));
	scribble('a', false);
	crash();
	put_back(0, old);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(0), SIDE_GOOD);
	ck_assert_int_eq(state(1), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* Side 0 is brought up to date, then side 1 is lost at once, before it heard of
 * that: that it calls side 0 stale does not count any more. */
START_TEST(the_later_word_counts)
{
	struct bdev *old;

	close_it();
	wipe(0);
	ck_ok(open_it(BOTH));
	write_some(3);
	ck_ok(store_commit(t.s, NULL, NULL));
	old = copy_of(1);
	scrub();
	fail_side(1, FAULT_WRITE, 1);
	write_some(3);
	crash();
	put_back(1, old);
	ck_assert_uint_ne(said_stale(1, 0), 0);
	ck_assert_uint_ne(said_stale(0, 1), 0);
	ck_ok(open_it(BOTH));
	ck_assert_int_eq(state(0), SIDE_GOOD);
	ck_assert_int_eq(state(1), SIDE_STALE);
	ck_assert_uint_eq(look(), t.digest);
}
END_TEST

/* ---- split brain ---- */

static void use_alone(unsigned side)
{
	ck_ok(open_it(1u << side));
	write_some(2);
	close_it();
}

START_TEST(sides_that_were_used_alone_are_refused)
{
	unsigned s = (unsigned)rng_below(&t.rng, 2);

	if (_i)
		close_it();
	else
		crash();
	use_alone(s);
	use_alone(!s);
	if (_i == 2)
		use_alone(s);
	ck_err(open_it(BOTH), -ENOTUNIQ);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "mirror remove"));
	ck_err(open_flags(BOTH, true), -ENOTUNIQ);
	/* each alone can still be had */
	ck_ok(open_it(1u << s));
}
END_TEST

/* An old copy of one side was used alone, and calls the other stale, which went
 * on, too: that it does not say the same in return changes nothing. */
START_TEST(sides_that_went_different_ways_are_refused)
{
	struct bdev *old;

	close_it();
	old = copy_of(1);
	ck_ok(open_it(BOTH));
	write_some(1);
	close_it();
	put_back(1, old);
	use_alone(1);
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* The same, if the old copy was the one that was used more. */
START_TEST(since_when_the_other_side_is_stale_is_kept)
{
	struct bdev *old;
	unsigned i;

	close_it();
	old = copy_of(1);
	ck_ok(open_it(BOTH));
	write_some(1);
	close_it();
	put_back(1, old);
	ck_ok(open_it(2));
	for (i = 0; i < 20; i++)
		scribble((uint8_t)i, false);
	close_it();
	ck_assert_uint_gt(from_le64(super_of(1).gen),
			  from_le64(super_of(0).gen));
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* Also if it is just one commit behind: then it calls the other one stale as of
 * what that has. */
START_TEST(one_commit_of_its_own_is_enough)
{
	struct bdev *old;

	ck_ok(store_commit(t.s, NULL, NULL));
	old = copy_of(1);
	scribble('a', false);
	if (_i)
		close_it();
	else
		crash();
	put_back(1, old);
	use_alone(1);
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* Brings side 0 up to date, which has lost everything. */
static void resync(void)
{
	close_it();
	wipe(0);
	ck_ok(open_it(BOTH));
	scrub();
}

/* That side 0 was complete when it had been brought up to date is no later word
 * than that of an old copy that went on alone, be that used more or less. */
START_TEST(a_copy_from_before_a_resync_that_went_on_is_told)
{
	struct bdev *old;
	unsigned i;

	close_it();
	old = copy_of(1);
	ck_ok(open_it(BOTH));
	for (i = 0; i < 20; i++)
		scribble((uint8_t)i, false);
	resync();
	scribble('x', false);
	close_it();
	put_back(1, old);
	ck_ok(open_it(2));
	for (i = 0; i < 1u + 60u * (unsigned)(_i % 2); i++)
		scribble((uint8_t)i, false);
	close_it();
	if (_i / 2)
		use_alone(0);
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* A copy of a side as it was while it was filled is not what it became. */
START_TEST(a_copy_that_is_not_complete_stays_so)
{
	struct bdev *old;
	unsigned i;

	close_it();
	wipe(0);
	ck_ok(open_it(BOTH));
	scribble('a', false);
	close_it();
	old = copy_of(0);
	ck_ok(open_it(BOTH));
	scrub();
	close_it();
	wipe(1);
	ck_ok(open_it(BOTH));
	for (i = 0; i < 6; i++)
		scribble((uint8_t)i, false);
	close_it();
	put_back(0, old);
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* Superblocks of one generation that differ, and no word of stale sides. */
START_TEST(two_superblocks_of_one_generation_are_refused)
{
	struct cowfs_disk_super d;
	const void *const buf[2] = { NULL, &d };
	struct blockio io;

	close_it();
	assemble(BOTH, false);
	d = super_of(1);
	memcpy(d.label, "other", 6);
	block_init(&io, t.dev, from_le64(d.total_blocks), false);
	super_for_side(&d, 1, &d);
	ck_ok(block_write_each(&io, super_slot_block(io.blocks, d.slot, 0), 1,
			       buf));
	ck_ok(block_write_each(&io, super_slot_block(io.blocks, d.slot, 1), 1,
			       buf));
	bdev_close(t.dev);
	ck_err(open_it(BOTH), -ENOTUNIQ);
}
END_TEST

/* ---- undoing a repair ---- */

/* As if the newest superblock was that of a repair. */
static void say_repaired(void)
{
	static struct super_scan scan;
	struct blockio io;

	assemble(BOTH, false);
	ck_ok(super_scan(t.dev, &scan));
	scan.found[0].d.state |= COWFS_STATE_REPAIRED;
	super_seal(&scan.found[0].d);
	block_init(&io, t.dev, scan.found[0].total_blocks, false);
	ck_ok(super_write(&io, &scan.found[0].d));
	bdev_close(t.dev);
}

/* The side that is not there would bring it back. */
START_TEST(a_repair_is_undone_on_both_sides_or_not_at_all)
{
	unsigned s;

	close_it();
	say_repaired();
	for (s = 0; s < 2; s++) {
		assemble(1u << s, false);
		test_log_hide();
		ck_err(cowfs_repair_undo(t.dev), -ENODEV);
		test_log_show();
		bdev_close(t.dev);
	}
	assemble(BOTH, false);
	ck_ok(cowfs_repair_undo(t.dev));
	ck_err(cowfs_repair_undo(t.dev), -ENOENT);
	bdev_close(t.dev);
	t.dev = NULL;
	ck_ok(open_it(BOTH));
}
END_TEST

static void add_well(TCase *tc)
{
	tcase_add_test(tc, each_side_has_everything);
	tcase_add_test(tc, a_side_alone_is_refused_unless_asked_for);
	tcase_add_test(tc,
		sides_in_the_wrong_order_or_of_two_filesystems_are_refused);
	tcase_add_test(tc, after_a_crash_neither_side_is_stale);
	tcase_add_test(tc, a_side_one_commit_behind_is_brought_along);
	tcase_add_loop_test(tc, two_crashes_in_a_row_make_neither_side_stale,
			    0, 2);
	tcase_add_test(tc, a_log_record_on_one_side_is_enough);
	tcase_add_loop_test(tc, a_repair_does_not_make_a_side_complete, 0, 2);
	tcase_add_loop_test(tc, superblocks_are_mended_on_either_side, 0, 2);
	tcase_add_test(tc, a_repair_is_undone_on_both_sides_or_not_at_all);
}

static void add_failing(TCase *tc)
{
	tcase_add_loop_test(tc, what_fsync_promised_while_a_side_fails_is_kept,
			    0, 40);
	tcase_add_loop_test(tc, a_side_that_fails_in_a_commit_is_named_in_it,
			    0, 24);
	tcase_add_test(tc,
		the_other_side_does_not_stand_in_for_what_cannot_be_read);
	tcase_add_loop_test(tc, what_one_side_did_not_flush_is_not_proven,
			    0, 6);
	tcase_add_loop_test(tc, a_side_that_fails_while_closing_is_named, 0, 24);
	tcase_add_loop_test(tc,
		two_that_went_on_alone_are_told_however_often_one_was_mounted,
		0, 3);
	tcase_add_test(tc, the_timer_writes_down_what_a_reader_noticed);
	tcase_add_test(tc, an_error_of_the_last_side_stops_writing);
}

static void add_older(TCase *tc)
{
	tcase_add_test(tc, a_side_much_older_is_stale_though_nobody_says_so);
	tcase_add_loop_test(tc,
		a_side_that_is_put_back_is_never_trusted_too_far, 0, 64);
	tcase_add_test(tc, what_the_commit_of_opening_says_counts);
	tcase_add_test(tc, a_side_that_calls_itself_stale_is);
	tcase_add_test(tc, the_later_word_counts);
}

static void add_split(TCase *tc)
{
	tcase_add_loop_test(tc, sides_that_were_used_alone_are_refused, 0, 3);
	tcase_add_test(tc, sides_that_went_different_ways_are_refused);
	tcase_add_loop_test(tc, one_commit_of_its_own_is_enough, 0, 2);
	tcase_add_loop_test(tc,
		a_copy_from_before_a_resync_that_went_on_is_told, 0, 4);
	tcase_add_test(tc, a_copy_that_is_not_complete_stays_so);
	tcase_add_test(tc, since_when_the_other_side_is_stale_is_kept);
	tcase_add_test(tc, two_superblocks_of_one_generation_are_refused);
}

int main(void)
{
	Suite *s = suite_create("sides");

	test_case(s, "both are well", 60, setup, teardown, add_well);
	test_case(s, "one fails", 60, setup, teardown, add_failing);
	test_case(s, "one is older", 60, setup, teardown, add_older);
	test_case(s, "split brain", 60, setup, teardown, add_split);
	return test_main(s);
}
