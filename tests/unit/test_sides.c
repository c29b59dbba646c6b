/*
 * test_sides.c - a filesystem on a mirror: what happens to its sides, and which
 * of them are believed when it is opened
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/repair.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_BYTES (UINT64_C(16) << 20)
#define BOTH 3u

static struct {
	struct bdev *mem[2];
	struct bdev *side[2]; /* faults over mem, while open */
	struct bdev *dev;     /* the mirror, while open */
	struct store *s;
	struct fs *fs;
	struct rng rng;
	uint64_t digest; /* of what there should be */
} t;

static const struct cred cred;

/* ---- opening and closing ---- */

/* mask: sides that are there. */
static void assemble(unsigned mask, bool readonly)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		t.side[i] = NULL;
		if (!(mask & 1u << i))
			continue;
		ck_ok(fault_open(t.mem[i], &t.side[i]));
		t.side[i]->readonly = readonly;
	}
	ck_ok(bdev_open_mirror(t.side, &t.dev));
}

static int open_flags(unsigned mask, bool readonly)
{
	struct fs_options opt = { .readonly = readonly, .noatime = true };
	struct store_config cfg = { .flags = readonly ? STORE_READONLY : 0 };
	int err;

	assemble(mask, readonly);
	cfg.dev = t.dev;
	err = store_open(&cfg, &t.s);
	if (err) {
		bdev_close(t.dev);
		t.dev = NULL;
		t.s = NULL;
		return err;
	}
	ck_ok(snap_start(t.s));
	return fs_mount(t.s, &opt, &t.fs);
}

static int open_it(unsigned mask)
{
	return open_flags(mask, false);
}

static void close_it(void)
{
	fs_umount(t.fs);
	ck_ok(store_drain(t.s));
	ck_ok(store_close(t.s));
	bdev_close(t.dev);
	t.s = NULL;
	t.dev = NULL;
}

static void crash(void)
{
	fs_umount(t.fs);
	store_abandon(t.s);
	bdev_close(t.dev);
	t.s = NULL;
	t.dev = NULL;
}

/* ---- contents ---- */

static uint64_t look(void)
{
	uint64_t digest;

	ck_ok(fs_digest(t.fs, &digest));
	return digest;
}

static int write_file(const char *name, bool sync)
{
	static uint8_t buf[60000];
	struct attr a;
	int err;

	rng_fill(&t.rng, buf, sizeof(buf));
	err = fs_lookup(t.fs, fs_live(t.fs), COWFS_INO_ROOT, name,
			strlen(name), &a);
	if (err)
		err = fs_create(t.fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a);
	if (!err)
		err = fs_write(t.fs, a.ino, rng_below(&t.rng, 200000), buf,
			       1 + rng_below(&t.rng, sizeof(buf)), 0);
	return err || !sync ? err : fs_fsync(t.fs, a.ino, false);
}

static void write_some(unsigned n)
{
	char name[16];

	while (n-- > 0) {
		snprintf(name, sizeof(name), "f%u",
			 (unsigned)rng_below(&t.rng, 40));
		ck_ok(write_file(name, true));
		if (rng_one_in(&t.rng, 4))
			ck_ok(store_commit(t.s, NULL, NULL));
	}
	t.digest = look();
}

/* More than UNVERIFIED covers: two flushes. */
static void write_big(void)
{
	size_t len = 9u << 20;
	uint8_t *buf = malloc(len);
	struct attr a;

	rng_fill(&t.rng, buf, len);
	ck_ok(fs_create(t.fs, COWFS_INO_ROOT, "big", 3, S_IFREG | 0644, 0,
			NULL, &cred, &a));
	ck_ok(fs_write(t.fs, a.ino, 0, buf, len, 0));
	ck_ok(store_commit(t.s, NULL, NULL));
	free(buf);
}

static void check_contents(unsigned mask)
{
	ck_ok(open_flags(mask, true));
	ck_assert_uint_eq(look(), t.digest);
	close_it();
}

static void scrub(void)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(t.s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
}

static void check_fully(unsigned mask)
{
	struct check_options opt = { .data = true, .semantics = true };
	struct check_result res;

	assemble(mask, true);
	ck_ok(check_device(t.dev, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
	bdev_close(t.dev);
	t.dev = NULL;
}

/* Each side by itself has everything. */
static void check_each_side(void)
{
	check_fully(BOTH);
	check_contents(1);
	check_contents(2);
	check_fully(1);
	check_fully(2);
}

static void wipe(unsigned side)
{
	bdev_close(t.mem[side]);
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[side]));
}

static struct bdev *copy_of(unsigned side)
{
	struct bdev *copy;

	ck_ok(bdev_open_mem(DEV_BYTES, &copy));
	ck_ok(dev_copy(copy, t.mem[side]));
	return copy;
}

static void put_back(unsigned side, struct bdev *copy)
{
	bdev_close(t.mem[side]);
	t.mem[side] = copy;
}

/* The newest superblock on one side. */
static struct cowfs_disk_super super_of(unsigned side)
{
	struct bdev *one[2] = { NULL, NULL }, *dev, *fault;
	struct super_scan scan;

	ck_ok(fault_open(t.mem[side], &fault));
	fault->readonly = true;
	one[side] = fault;
	ck_ok(bdev_open_mirror(one, &dev));
	ck_ok(super_scan(dev, &scan));
	bdev_close(dev);
	return scan.found[0].d;
}

static uint64_t said_stale(unsigned by, unsigned of)
{
	struct cowfs_disk_super d = super_of(by);

	return from_le64(d.mirror.stale_gen[of]);
}

static enum bdev_side state(unsigned side)
{
	return bdev_side_state(t.dev, side);
}

static void setup(void)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };

	test_log_hide();
	rng_init(&t.rng, test_seed(), 41);
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[0]));
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[1]));
	assemble(BOTH, false);
	ck_ok(cowfs_mkfs(t.dev, &opt));
	bdev_close(t.dev);
	ck_ok(open_it(BOTH));
	write_some(10);
}

static void teardown(void)
{
	if (t.s)
		crash();
	bdev_close(t.mem[0]);
	bdev_close(t.mem[1]);
	test_log_show();
}

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

START_TEST(after_a_crash_neither_side_is_stale)
{
	crash();
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_each_side();
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
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_each_side();
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
	ck_ok(open_it(BOTH));
	ck_assert_uint_eq(bdev_bad_sides(t.dev), 0);
	ck_assert_uint_eq(look(), t.digest);
	close_it();
	check_each_side();
}
END_TEST

/* Always as long. */
static void scribble(uint8_t with, bool sync)
{
	uint8_t buf[100];
	struct attr a;

	memset(buf, with, sizeof(buf));
	if (fs_lookup(t.fs, fs_live(t.fs), COWFS_INO_ROOT, "note", 4, &a))
		ck_ok(fs_create(t.fs, COWFS_INO_ROOT, "note", 4,
				S_IFREG | 0644, 0, NULL, &cred, &a));
	ck_ok(fs_write(t.fs, a.ino, 0, buf, sizeof(buf), 0));
	ck_ok(sync ? fs_fsync(t.fs, a.ino, false) :
		     store_commit(t.s, NULL, NULL));
}

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

/* What fails is the n-th write or flush from now on, and all after it. */
static void fail_side(unsigned s, enum fault_op op, unsigned n)
{
	fault_from(t.side[s], op, n, -EIO);
}

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

/* Superblocks of one generation that differ, and no word of stale sides. */
START_TEST(two_superblocks_of_one_generation_are_refused)
{
	struct cowfs_disk_super d;
	struct blockio io;

	close_it();
	assemble(BOTH, false);
	d = super_of(1);
	memcpy(d.label, "other", 6);
	block_init(&io, t.dev, from_le64(d.total_blocks), false);
	super_for_side(&d, 1, &d);
	ck_ok(block_write_side(&io, 1, super_slot_block(io.blocks, d.slot, 0),
			       1, &d));
	ck_ok(block_write_side(&io, 1, super_slot_block(io.blocks, d.slot, 1),
			       1, &d));
	bdev_close(t.dev);
	ck_err(open_it(BOTH), -ENOTUNIQ);
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

static void add_fail_tests(TCase *tc)
{
	tcase_add_loop_test(tc, what_fsync_promised_while_a_side_fails_is_kept,
			    0, 40);
	tcase_add_loop_test(tc, a_side_that_fails_in_a_commit_is_named_in_it,
			    0, 24);
	tcase_add_loop_test(tc, what_one_side_did_not_flush_is_not_proven,
			    0, 6);
	tcase_add_test(tc, the_timer_writes_down_what_a_reader_noticed);
	tcase_add_test(tc, an_error_of_the_last_side_stops_writing);
}

static void add_stale_tests(TCase *tc)
{
	tcase_add_test(tc, a_side_that_was_away_is_stale_until_scrub_is_done);
	tcase_add_loop_test(tc,
		filling_a_side_goes_on_where_it_was_unless_it_missed_something,
		0, 7);
	tcase_add_test(tc, a_side_that_was_zeroed_is_stale);
	tcase_add_loop_test(tc, the_log_of_a_new_side_is_not_believed, 0, 2);
	tcase_add_loop_test(tc, a_repair_does_not_make_a_side_complete, 0, 2);
	tcase_add_test(tc, a_side_much_older_is_stale_though_nobody_says_so);
	tcase_add_loop_test(tc, a_side_that_is_put_back_is_never_trusted_too_far,
			    0, 64);
	tcase_add_test(tc, a_scrub_that_was_cancelled_leaves_it_stale);
	tcase_add_test(tc, a_side_that_fails_during_resync_stays_stale);
	tcase_add_test(tc, an_incomplete_side_alone_may_be_read_but_not_written);
	tcase_add_loop_test(tc, a_crash_at_the_end_of_a_resync_is_safe, 0, 4);
	tcase_add_test(tc, the_later_word_counts);
}

static Suite *sides_suite(void)
{
	Suite *s = suite_create("sides");
	TCase *tc = tcase_create("sides");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, each_side_has_everything);
	tcase_add_test(tc, a_side_alone_is_refused_unless_asked_for);
	tcase_add_test(tc,
		sides_in_the_wrong_order_or_of_two_filesystems_are_refused);
	tcase_add_test(tc, after_a_crash_neither_side_is_stale);
	tcase_add_test(tc, a_side_one_commit_behind_is_brought_along);
	tcase_add_test(tc, a_log_record_on_one_side_is_enough);
	tcase_add_loop_test(tc, superblocks_are_mended_on_either_side, 0, 2);
	add_fail_tests(tc);
	add_stale_tests(tc);
	tcase_add_loop_test(tc, sides_that_were_used_alone_are_refused, 0, 3);
	tcase_add_test(tc, sides_that_went_different_ways_are_refused);
	tcase_add_test(tc, two_superblocks_of_one_generation_are_refused);
	tcase_add_test(tc, a_side_lost_for_good_is_replaced);
	tcase_add_test(tc,
		       a_single_image_becomes_a_mirror_and_a_single_one_again);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(sides_suite());
}
