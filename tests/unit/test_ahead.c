/*
 * test_ahead.c - what readers will want next is asked for, and not much more
 *
 * Over a device that knows which of its blocks a host would have in its cache.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define BLOCK COWFS_BLOCK_SIZE
#define MIB (UINT64_C(1) << 20)
#define DEV_SIZE (64 * MIB)
#define PIECES 16u /* of 1 MiB, of the file */

/* ---- a device with a cache ---- */

static struct {
	struct bdev dev;
	struct bdev *below;
	bool cached[DEV_SIZE / BLOCK];
	bool in_vain;          /* what is asked for never arrives */
	uint64_t asked, asks;  /* blocks, calls */
	uint64_t missed;       /* blocks that were read and not there */
	uint64_t now;          /* blocks that were there and taken so */
} c;

static void mark(uint64_t off, uint64_t len, uint64_t *absent)
{
	for (uint64_t i = off / BLOCK; i < (off + len) / BLOCK; i++) {
		*absent += !c.cached[i];
		c.cached[i] = !c.in_vain;
	}
}

static int cache_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	(void)dev;
	mark(off, len, &c.missed);
	return bdev_read(c.below, off, buf, len);
}

static int cache_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			int n)
{
	(void)dev;
	return bdev_writev(c.below, off, iov, n);
}

static int cache_flush(struct bdev *dev)
{
	(void)dev;
	return 0;
}

static void cache_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	uint64_t absent = 0;

	(void)dev;
	ck_assert_uint_gt(len, 0);
	c.asks++;
	c.asked += len / BLOCK;
	mark(off, len, &absent);
}

static int cache_read_now(struct bdev *dev, unsigned side, uint64_t off,
			  void *buf, size_t len)
{
	(void)dev;
	(void)side;
	for (uint64_t i = off / BLOCK; i < (off + len) / BLOCK; i++)
		if (!c.cached[i])
			return -EAGAIN;
	c.now += len / BLOCK;
	return bdev_read(c.below, off, buf, len);
}

static const struct bdev_ops cache_ops = {
	.read = cache_read,
	.writev = cache_writev,
	.flush = cache_flush,
	.ahead = cache_ahead,
	.read_now = cache_read_now,
};

static void forget(void)
{
	memset(c.cached, 0, sizeof(c.cached));
	c.asked = c.asks = c.missed = c.now = 0;
}

/* ---- a file on it ---- */

static struct store *store;
static struct fs *fs;
static uint64_t ino;
static struct rng rng;
static const struct cred root_cred;
static uint8_t want[MIB], got[MIB];

static void contents(unsigned piece)
{
	struct rng r;

	rng_init(&r, 5, piece);
	rng_fill(&r, want, sizeof(want));
}

static void setup(void)
{
	struct fs_options opt = { .noatime = true };
	struct attr a;
	unsigned i;

	rng_init(&rng, test_seed(), 3);
	memset(&c, 0, sizeof(c));
	c.dev = (struct bdev){ .ops = &cache_ops, .size = DEV_SIZE,
			       .name = "device with a cache" };
	ck_ok(bdev_open_mem(DEV_SIZE, &c.below));
	store = test_format(&c.dev, 16384, 1, 1);
	ck_ok(fs_mount(store, &opt, &fs));
	ck_ok(fs_create(fs, COWFS_INO_ROOT, "file", 4, S_IFREG | 0644, 0, NULL,
			&root_cred, &a));
	ino = a.ino;
	/* 5 and 16 have no common factor: all pieces, in another order */
	for (i = 0; i < PIECES; i++) {
		contents(i * 5 % PIECES);
		ck_ok(fs_write(fs, ino, i * 5 % PIECES * MIB, want, MIB, 0));
	}
	ck_ok(store_commit(store, NULL, NULL));
	forget();
}

static void teardown(void)
{
	test_umount(store, fs);
	bdev_close(c.below);
}

static void read_at(uint64_t off, size_t len)
{
	size_t n;

	ck_ok(fs_read(fs, fs_live(fs), ino, off, got, len, &n));
	ck_assert_uint_eq(n, len);
}

static void read_piece(unsigned i)
{
	contents(i);
	read_at(i * MIB, MIB);
	ck_assert_mem_eq(want, got, MIB);
}

static void read_blocks(unsigned n)
{
	while (n--)
		read_at(rng_below(&rng, PIECES * MIB / BLOCK) * BLOCK, BLOCK);
}

/* ---- tests ---- */

START_TEST(who_reads_on_finds_everything_there)
{
	unsigned i;

	for (i = 0; i < PIECES; i++)
		read_piece(i);
	/* but for the first piece, which he reads while he asks */
	ck_assert_uint_eq(c.missed, MIB / BLOCK);
	/* each block was asked for once */
	ck_assert_uint_eq(c.asked, (PIECES - 1) * MIB / BLOCK);
}
END_TEST

START_TEST(pieces_may_come_out_of_order)
{
	unsigned i;

	read_piece(0);
	for (i = 1; i + 1 < PIECES; i += 2) {
		read_piece(i + 1);
		read_piece(i);
	}
	ck_assert_uint_eq(c.missed, MIB / BLOCK);
	ck_assert_uint_le(c.asked, PIECES * MIB / BLOCK);
}
END_TEST

START_TEST(who_jumps_is_not_read_ahead_for)
{
	read_piece(15);
	read_piece(8);
	read_piece(2);
	read_piece(12);
	ck_assert_uint_eq(c.asks, 0);
}
END_TEST

START_TEST(chance_finds_a_file_of_moderate_size_in_the_cache_soon)
{
	read_blocks(2000);
	/* 128 clusters; without it some 1,580 of these reads would miss */
	ck_assert_uint_le(c.missed, 200);
	ck_assert_uint_le(c.asked, PIECES * MIB / BLOCK);
}
END_TEST

static void overwrite_in_another_order(void)
{
	uint64_t i, n = PIECES * MIB / BLOCK;

	/* 2,731 and a power of two have no common factor */
	for (i = 0; i < n; i++)
		ck_ok(fs_write(fs, ino, i * 2731 % n * BLOCK, want, BLOCK, 0));
	ck_ok(store_commit(store, NULL, NULL));
	forget();
}

START_TEST(so_it_does_when_the_file_is_in_small_pieces)
{
	overwrite_in_another_order();
	read_blocks(2000);
	ck_assert_uint_le(c.missed, 300);
}
END_TEST

#define SMALL 640u /* files of a block */

static uint64_t small[SMALL];

static void make_small_files(void)
{
	struct attr a;
	char name[16];
	unsigned i;

	for (i = 0; i < SMALL; i++) {
		size_t len = (size_t)snprintf(name, sizeof(name), "%u", i);

		ck_ok(fs_create(fs, COWFS_INO_ROOT, name, len, S_IFREG | 0644,
				0, NULL, &root_cred, &a));
		small[i] = a.ino;
		ck_ok(fs_write(fs, a.ino, 0, want, BLOCK, 0));
	}
	ck_ok(store_commit(store, NULL, NULL));
	forget();
}

static void read_small(unsigned from, unsigned to)
{
	size_t n;

	for (; from < to; from++)
		ck_ok(fs_read(fs, fs_live(fs), small[from], 0, got, BLOCK,
			      &n));
}

START_TEST(a_small_file_brings_its_neighbours)
{
	make_small_files();
	read_small(0, SMALL);
	ck_assert_uint_le(c.missed, SMALL / 16);
}
END_TEST

START_TEST(neighbours_in_vain_are_tried_seldom)
{
	uint64_t asks;
	unsigned i;

	make_small_files();
	c.in_vain = true;
	for (i = 0; i < 4; i++) /* more than AROUND_MAX */
		read_small(0, SMALL);
	asks = c.asks;
	read_small(0, SMALL);
	ck_assert_uint_ge(c.asks - asks, SMALL / 32 - 1);
	ck_assert_uint_le(c.asks - asks, SMALL / 32 + 1);
	/* and when they come after all, from the next trial on */
	c.in_vain = false;
	c.missed = 0;
	read_small(0, SMALL);
	ck_assert_uint_le(c.missed, 32 + SMALL / 16);
}
END_TEST

START_TEST(reading_around_in_vain_ends)
{
	uint64_t asks;

	c.in_vain = true;
	read_blocks(500);
	asks = c.asks;
	ck_assert_uint_gt(asks, 40);
	ck_assert_uint_lt(asks, 80);
	read_blocks(500);
	ck_assert_uint_eq(c.asks, asks);
	/* and begins again where what is there shows that it pays */
	c.in_vain = false;
	read_blocks(3000);
	ck_assert_uint_gt(c.asks, asks);
}
END_TEST

START_TEST(what_is_there_is_not_asked_for)
{
	memset(c.cached, 1, sizeof(c.cached));
	read_blocks(1000);
	ck_assert_uint_eq(c.asks, 0);
	/* and taken without waiting, which is tried with nothing long */
	ck_assert_uint_eq(c.now, 1000);
	read_at(0, MIB / 8);
	ck_assert_uint_eq(c.now, 1032);
	read_at(MIB, MIB / 4);
	ck_assert_uint_eq(c.now, 1032);
}
END_TEST

static Suite *ahead_suite(void)
{
	Suite *su = suite_create("ahead");
	TCase *tc = tcase_create("ahead");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, who_reads_on_finds_everything_there);
	tcase_add_test(tc, pieces_may_come_out_of_order);
	tcase_add_test(tc, who_jumps_is_not_read_ahead_for);
	tcase_add_test(tc,
		       chance_finds_a_file_of_moderate_size_in_the_cache_soon);
	tcase_add_test(tc, so_it_does_when_the_file_is_in_small_pieces);
	tcase_add_test(tc, a_small_file_brings_its_neighbours);
	tcase_add_test(tc, neighbours_in_vain_are_tried_seldom);
	tcase_add_test(tc, reading_around_in_vain_ends);
	tcase_add_test(tc, what_is_there_is_not_asked_for);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(ahead_suite());
}
