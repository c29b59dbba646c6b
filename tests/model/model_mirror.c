/*
 * model_mirror.c - whatever befalls one side of a mirror, nothing is lost
 *
 * Files are written, replaced and removed, each change followed by an fsync, and
 * held against a copy in memory. Meanwhile one side after the other is the
 * victim: blocks of it rot, it fails, is away for a while, is zeroed, or is
 * replaced; the daemon is killed or closed in between. The next victim may be
 * the other side as soon as a scrub has gone through: then each side must hold
 * everything by itself.
 *
 * SEED repeats a run; ROUNDS multiplies the number of steps.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_BYTES (UINT64_C(16) << 20)
#define BLOCKS (DEV_BYTES / COWFS_BLOCK_SIZE)
#define FILES 20u
#define FILE_MAX 60000u
#define BOTH 3u

static struct {
	struct bdev *mem[2], *side[2], *dev;
	struct store *s;
	struct fs *fs;
	struct rng rng;
	unsigned there; /* sides that are attached */
	int victim;     /* side that may be damaged; -1: none is */
	size_t len[FILES]; /* 0: there is no such file */
	uint8_t data[FILES][FILE_MAX];
	unsigned count[16];
} m;

static const struct cred cred;

static bool one_in(uint64_t n)
{
	return rng_one_in(&m.rng, n);
}

/* ---- opening and closing ---- */

static int try_open(unsigned mask, bool readonly)
{
	unsigned i;
	int err;

	for (i = 0; i < 2; i++) {
		m.side[i] = NULL;
		if (!(mask & 1u << i))
			continue;
		ck_ok(fault_open(m.mem[i], &m.side[i]));
		m.side[i]->readonly = readonly;
	}
	ck_ok(bdev_open_mirror(m.side, &m.dev));
	err = test_mount(m.dev, readonly ? STORE_READONLY : 0, 1 << 20, &m.s,
			 &m.fs);
	if (err)
		bdev_close(m.dev);
	else
		m.there = mask;
	return err;
}

static void open_it(unsigned mask)
{
	ck_ok(try_open(mask, false));
}

/* kill: nothing is written any more. */
static void close_it(bool kill)
{
	fs_umount(m.fs);
	if (kill) {
		store_abandon(m.s);
	} else {
		ck_ok(store_drain(m.s));
		ck_ok(store_close(m.s));
	}
	bdev_close(m.dev);
}

/* ---- files ---- */

static size_t name_of(unsigned f, char name[16])
{
	return (size_t)snprintf(name, 16, "file%u", f);
}

static void change_file(void)
{
	unsigned f = (unsigned)rng_below(&m.rng, FILES);
	struct attr a = { .size = 0 };
	char name[16];
	size_t n = name_of(f, name);

	if (m.len[f] && one_in(4)) {
		ck_ok(fs_unlink(m.fs, COWFS_INO_ROOT, name, n, NULL));
		m.len[f] = 0;
	} else {
		if (!m.len[f])
			ck_ok(fs_create(m.fs, COWFS_INO_ROOT, name, n,
					S_IFREG | 0644, 0, NULL, &cred, &a));
		else
			ck_ok(fs_lookup(m.fs, fs_live(m.fs), COWFS_INO_ROOT,
					name, n, &a));
		m.len[f] = 1 + rng_below(&m.rng, FILE_MAX);
		rng_fill(&m.rng, m.data[f], m.len[f]);
		a.size = 0;
		ck_ok(fs_setattr(m.fs, a.ino, FS_SET_SIZE, &a, &cred, &a));
		ck_ok(fs_write(m.fs, a.ino, 0, m.data[f], m.len[f], 0));
	}
	if (one_in(3))
		ck_ok(store_commit(m.s, NULL, NULL));
	else
		ck_ok(fs_fsync(m.fs, COWFS_INO_ROOT, false));
}

static void check_files(void)
{
	static uint8_t buf[FILE_MAX + 1];
	struct attr a;
	char name[16];
	unsigned f;
	size_t n, got;
	int err;

	for (f = 0; f < FILES; f++) {
		n = name_of(f, name);
		err = fs_lookup(m.fs, fs_live(m.fs), COWFS_INO_ROOT, name, n,
				&a);
		ck_assert_int_eq(err, m.len[f] ? 0 : -ENOENT);
		if (err)
			continue;
		ck_ok(fs_read(m.fs, fs_live(m.fs), a.ino, 0, buf, sizeof(buf),
			      &got));
		ck_assert_uint_eq(got, m.len[f]);
		ck_assert_msg(!memcmp(buf, m.data[f], got), "%s differs", name);
	}
}

static void check_alone(unsigned side)
{
	struct check_options opt = { .data = true, .semantics = true };
	struct check_result res;

	ck_ok(try_open(1u << side, true));
	check_files();
	ck_ok(check_run(m.s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
	close_it(false);
}

/* ---- what may happen to a side ---- */

static unsigned victim(void)
{
	if (m.victim < 0)
		m.victim = (int)rng_below(&m.rng, 2);
	return (unsigned)m.victim;
}

static void rot(void)
{
	struct bdev *dev = m.mem[victim()];
	uint8_t block[COWFS_BLOCK_SIZE];
	unsigned n = 1 + (unsigned)rng_below(&m.rng, 300);
	uint64_t blk;

	while (n-- > 0) {
		blk = rng_below(&m.rng, one_in(2) ? 400 : BLOCKS);
		if (one_in(20)) /* superblocks */
			blk = one_in(2) ? BLOCKS - 1 - rng_below(&m.rng, 4) :
					  16 + rng_below(&m.rng, 4);
		if (one_in(2)) {
			flip_bit(dev, blk * sizeof(block) +
				      rng_below(&m.rng, sizeof(block)),
				 (unsigned)rng_below(&m.rng, 8));
			continue;
		}
		memset(block, 0, sizeof(block));
		if (one_in(2))
			rng_fill(&m.rng, block, sizeof(block));
		ck_ok(bdev_write(dev, blk * sizeof(block), block,
				 sizeof(block)));
	}
}

static void break_down(void)
{
	unsigned v = victim();

	if (m.there & 1u << v)
		fault_from(m.side[v], one_in(2) ? FAULT_WRITE : FAULT_FLUSH,
			   1 + (unsigned)rng_below(&m.rng, 30), -EIO);
}

static void fail_to_read(void)
{
	unsigned v = victim();

	if (m.there & 1u << v)
		fault_range(m.side[v], FAULT_READ,
			    rng_below(&m.rng, BLOCKS) * COWFS_BLOCK_SIZE,
			    one_in(2) ? 1 << 20 : 4096, -EIO);
}

static void reopen(void)
{
	close_it(one_in(2));
	open_it(m.there);
}

static void away(void)
{
	close_it(one_in(2));
	open_it(1u << !victim());
}

static void back(void)
{
	close_it(one_in(2));
	open_it(BOTH);
}

static void zero(void)
{
	unsigned v = victim();

	close_it(one_in(2));
	bdev_close(m.mem[v]);
	ck_ok(bdev_open_mem(DEV_BYTES, &m.mem[v]));
	open_it(BOTH);
}

static void replace(void)
{
	struct bdev *new;

	if (m.there == BOTH)
		away();
	bdev_close(m.mem[victim()]);
	ck_ok(bdev_open_mem(DEV_BYTES, &m.mem[victim()]));
	ck_ok(fault_open(m.mem[victim()], &new));
	ck_ok(store_mirror_add(m.s, new));
	m.side[victim()] = new;
	m.there = BOTH;
}

static void scrub(void)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(m.s, &opt, &res));
	ck_assert_uint_eq(res.lost, 0);
	if (m.there != BOTH || bdev_bad_sides(m.dev))
		return;
	/* a second one finds all well; else it is failing still */
	ck_ok(check_run(m.s, &opt, &res));
	if (res.problems || bdev_bad_sides(m.dev))
		return;
	close_it(one_in(2));
	open_it(BOTH); /* mends superblocks */
	if (!bdev_bad_sides(m.dev)) {
		close_it(false);
		check_alone(0);
		check_alone(1);
		m.victim = -1;
		m.count[15]++;
		open_it(BOTH);
	}
}

static void step(void)
{
	static void (*const events[])(void) = {
		rot, rot, break_down, fail_to_read, reopen, away, back, back, zero,
		replace, scrub, scrub, scrub,
	};
	size_t e;

	change_file();
	if (one_in(3)) {
		e = rng_below(&m.rng, ARRAY_SIZE(events));
		m.count[e]++;
		events[e]();
	}
	if (one_in(4))
		check_files();
}

START_TEST(one_side_is_enough_and_a_scrub_makes_two_of_it)
{
	struct cowfs_mkfs opt = { .node_size = _i ? 16384 : 4096 };
	unsigned i, n = test_rounds(400);

	test_log_hide();
	memset(&m, 0, sizeof(m));
	m.victim = -1;
	rng_init(&m.rng, test_seed(), 60 + (uint64_t)_i);
	for (i = 0; i < 2; i++)
		ck_ok(bdev_open_mem(DEV_BYTES, &m.mem[i]));
	for (i = 0; i < 2; i++)
		ck_ok(fault_open(m.mem[i], &m.side[i]));
	ck_ok(bdev_open_mirror(m.side, &m.dev));
	ck_ok(cowfs_mkfs(m.dev, &opt));
	bdev_close(m.dev);
	open_it(BOTH);
	for (i = 0; i < n; i++)
		step();
	check_files();
	close_it(false);
	test_log_show();
	printf("%u steps; each side whole by itself %u times\n", n,
	       m.count[15]);
	ck_assert_uint_gt(m.count[15], 0);
	for (i = 0; i < 2; i++)
		bdev_close(m.mem[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mirror model");
	TCase *tc = tcase_create("mirror model");

	tcase_set_timeout(tc, 3600);
	tcase_add_loop_test(tc, one_side_is_enough_and_a_scrub_makes_two_of_it,
			    0, 2);
	suite_add_tcase(s, tc);
	return test_main(s);
}
