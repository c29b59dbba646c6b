/*
 * mirror_fixture.h - a mirror over two devices in memory that fail as they are told
 * to, with N blocks on it in two copies
 */
#ifndef MIRROR_FIXTURE_H
#define MIRROR_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "block/block.h"
#include "support/test.h"
#include "support/testdev.h"

#define BS COWFS_BLOCK_SIZE
#define BLOCKS 4096u
#define A 100u  /* where the first copies lie, */
#define B 2000u /* and the second ones */
#define N 150u  /* more than scrub takes at once, and no multiple of it */
#define MIB (UINT64_C(1) << 20)

static struct {
	struct bdev *mem[2], *side[2], *dev; /* side: faults over mem */
	struct blockio io;
	uint8_t good[N * BS], buf[N * BS];
	uint32_t csum[N], whole;
	struct rng rng;
} t;

static const struct copies both = { A, B }, one = { A, 0 };

static inline void make_mirror(void)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		ck_ok(fault_open(t.mem[i], &t.side[i]));
	ck_ok(bdev_open_mirror(t.side, &t.dev));
	block_init(&t.io, t.dev, BLOCKS, true);
}

static inline void setup(void)
{
	test_log_hide();
	rng_init(&t.rng, test_seed(), 40);
	ck_ok(bdev_open_mem((uint64_t)BLOCKS * BS, &t.mem[0]));
	ck_ok(bdev_open_mem((uint64_t)BLOCKS * BS + 5 * MIB, &t.mem[1]));
	make_mirror();
	rng_fill(&t.rng, t.good, sizeof(t.good));
	checksum_blocks(t.good, N, t.csum);
	t.whole = checksum(0, t.good, sizeof(t.good));
	ck_ok(block_write(&t.io, A, N, t.good));
	ck_ok(block_write(&t.io, B, N, t.good));
}

static inline void teardown(void)
{
	bdev_close(t.dev); /* and its sides */
	bdev_close(t.mem[0]);
	bdev_close(t.mem[1]);
	test_log_show();
}

static inline void spoil(unsigned side, uint64_t blk)
{
	flip_bit(t.mem[side], blk * BS + rng_below(&t.rng, BS), 3);
}

static inline void check_disk(unsigned side, uint64_t blk)
{
	static uint8_t disk[N * BS];

	ck_ok(bdev_read(t.mem[side], blk * BS, disk, sizeof(disk)));
	ck_assert_mem_eq(disk, t.good, sizeof(disk));
}

static inline void check_all_disks(void)
{
	for (unsigned i = 0; i < 2; i++) {
		check_disk(i, A);
		check_disk(i, B);
	}
}

static inline void read_and_check(struct copies at)
{
	memset(t.buf, 0x5a, sizeof(t.buf));
	ck_ok(block_read_data(&t.io, at, N, t.csum, t.buf));
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
	memset(t.buf, 0x5a, sizeof(t.buf));
	ck_ok(block_read_node(&t.io, at, N, t.whole, t.buf));
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
}

static inline enum bdev_side state(unsigned side)
{
	return bdev_side_state(t.dev, side);
}

#endif
