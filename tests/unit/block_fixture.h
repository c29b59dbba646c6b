/*
 * block_fixture.h - a device with known blocks on it, in two copies
 */
#ifndef BLOCK_FIXTURE_H
#define BLOCK_FIXTURE_H

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

/* ---- a device with N blocks of random data on it, twice ---- */

static struct {
	struct bdev *mem, *dev; /* dev: faults over mem */
	struct blockio io;
	uint8_t good[N * BS], buf[N * BS];
	uint32_t csum[N], whole;
	struct rng rng;
} t;

static const struct copies both = { A, B }, one = { A, 0 };

static inline void setup(void)
{
	test_log_hide();
	rng_init(&t.rng, test_seed(), 20);
	ck_ok(bdev_open_mem((uint64_t)BLOCKS * BS, &t.mem));
	ck_ok(fault_open(t.mem, &t.dev));
	block_init(&t.io, t.dev, BLOCKS, true);
	rng_fill(&t.rng, t.good, sizeof(t.good));
	checksum_blocks(t.good, N, t.csum);
	t.whole = checksum(0, t.good, sizeof(t.good));
	ck_ok(block_write(&t.io, A, N, t.good));
	ck_ok(block_write(&t.io, B, N, t.good));
}

static inline void teardown(void)
{
	bdev_close(t.dev);
	bdev_close(t.mem);
	test_log_show();
}

static inline void spoil(uint64_t blk)
{
	flip_bit(t.mem, blk * BS + rng_below(&t.rng, BS), 3);
}

static inline void check_disk(uint64_t blk)
{
	static uint8_t disk[N * BS];

	ck_ok(bdev_read(t.mem, blk * BS, disk, sizeof(disk)));
	ck_assert_mem_eq(disk, t.good, sizeof(disk));
}

static inline void check_stats(uint64_t csum, uint64_t io,
			       uint64_t repaired, uint64_t unrepairable)
{
	ck_assert_uint_eq(atomic_load(&t.io.stats.csum_errors), csum);
	ck_assert_uint_eq(atomic_load(&t.io.stats.io_errors), io);
	ck_assert_uint_eq(atomic_load(&t.io.stats.repaired), repaired);
	ck_assert_uint_eq(atomic_load(&t.io.stats.unrepairable), unrepairable);
}

static inline void clear_buf(void)
{
	memset(t.buf, 0x5a, sizeof(t.buf));
}

static inline void check_buf(void)
{
	ck_assert_mem_eq(t.buf, t.good, sizeof(t.buf));
}

#endif
