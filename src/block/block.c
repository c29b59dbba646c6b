/*
 * block.c - reads that are checked, and writes
 *
 * A read takes all units of the first place at once (unit.h); when that gives
 * every checksum there is nothing else to do. Otherwise each unit that does not
 * match is looked for alone, place by place. (Of a mirror, data are read in
 * parts, each from the side that is best read there.)
 */
#include <assert.h>

#include "block/unit.h"

void block_init(struct blockio *io, struct bdev *dev, uint64_t blocks,
		bool repair)
{
	memset(io, 0, sizeof(*io));
	io->dev = dev;
	io->blocks = blocks;
	io->repair = repair && !dev->readonly;
	mutex_init(&io->mend_lock, LOCK_MEND);
}

void block_init_unheard(struct blockio *io, const struct blockio *of)
{
	block_init(io, of->dev, of->blocks, false);
	io->quiet = true;
	atomic_store(&io->stage, atomic_load(&of->stage));
}

void block_set_finder(struct blockio *io,
		      uint64_t (*find)(void *arg, uint64_t blk), void *arg)
{
	io->find_arg = arg;
	io->find = find;
}

/* ---- reading ---- */

/* Unit i was not good at the first places, but in these states. */
static int try_places(struct blockio *io, const struct run *r, size_t i,
		      unsigned from, enum unit_state *state)
{
	unsigned p, bad;

	for (p = from; p < r->places; p++) {
		state[p] = unit_read(io, r, p, i);
		if (state[p] != GOOD)
			continue;
		for (bad = 0; bad < p; bad++)
			(void)unit_mend(io, r, bad, p, i, 1, state[bad],
					!r->place[bad].stale);
		return 0;
	}
	return -ENOENT;
}

/* Is there a copy that the caller does not know of? Then unit i, where it was
 * found not to be good and there, is a run of its own. */
static bool find_more(struct blockio *io, const struct run *r, size_t i,
		      struct run *out)
{
	uint64_t blk = unit_block(r, 0, i), extra = io->find(io->find_arg, blk);
	unsigned p;

	if (!extra || unit_check_copies(io, (struct copies){ blk, extra },
					r->blocks))
		return false;
	*out = *r;
	out->count = 1;
	out->csum = &r->csum[i];
	out->buf = unit_buf(r, i);
	for (p = 0; p < r->places; p++)
		out->place[p].blk = unit_block(r, p, i);
	assert(out->places <= PLACES_MAX / 2); /* they are of one address */
	unit_add_places(io, out, extra, false);
	return true;
}

/* Unit i was not good at the first place, but in this state. */
static int read_other(struct blockio *io, const struct run *r, size_t i,
		      enum unit_state first)
{
	enum unit_state state[PLACES_MAX] = { first };
	struct run more;

	if (!try_places(io, r, i, 1, state))
		return 0;
	if (!r->single || !io->find || !find_more(io, r, i, &more))
		return unit_give_up(io, r, i, state);
	if (!try_places(io, &more, 0, r->places, state))
		return 0;
	return unit_give_up(io, &more, 0, state);
}

/* All units of the first place, read in this way if it can be. Whatever is
 * wrong is no event: it is read as usual then. */
static int try_read(struct blockio *io, const struct run *r,
		    int (*how)(struct bdev *dev, unsigned side, uint64_t off,
			       void *buf, size_t len))
{
	size_t len = r->count * unit_bytes(r->blocks), i;
	int err;

	if (block_staged(io))
		return -EOPNOTSUPP;
	order_io();
	err = how(io->dev, r->place[0].side,
		  r->place[0].blk << COWFS_BLOCK_SHIFT, r->buf, len);
	if (err)
		return err;
	atomic_fetch_add(&io->stats.reads, 1);
	atomic_fetch_add(&io->stats.read_bytes, len);
	for (i = 0; i < r->count; i++)
		if (checksum(0, unit_buf(r, i), unit_bytes(r->blocks)) !=
		    r->csum[i])
			return -ECOW_CSUM;
	return 0;
}

/* Read `count` units that lie one after the other. */
static int read_units(struct blockio *io, struct copies at, size_t blocks,
		      size_t count, const uint32_t *csum, bool data, void *buf)
{
	struct run r = { .blocks = blocks, .count = count, .csum = csum,
			 .buf = buf, .single = data && !at.b };
	enum unit_state state;
	size_t i;
	int err, failed;

	err = unit_check_copies(io, at, blocks * count);
	if (err)
		return err;
	unit_find_places(io, at, true, &r);
	if (!try_read(io, &r, bdev_read_past))
		return 0;
	failed = unit_dev_read(io, &r, 0, 0, count);
	for (i = 0; i < count; i++) {
		state = failed ? unit_read_again(io, &r, 0, i)
			       : unit_verify(io, &r, 0, i);
		err = state == GOOD ? 0 : read_other(io, &r, i, state);
		if (err)
			return err;
	}
	return 0;
}

int block_read_node(struct blockio *io, struct copies at, size_t n,
		    uint32_t csum, void *buf)
{
	if (io->salvage && at.a == at.b)
		at.b = 0;
	return read_units(io, at, n, 1, &csum, false, buf);
}

/* So many of n blocks are best read from one side of the device: what was fetched
 * ahead was fetched from there, too. */
static size_t same_side(struct blockio *io, uint64_t blk, size_t n)
{
	unsigned side = bdev_prefer(io->dev, blk << COWFS_BLOCK_SHIFT);
	size_t k = 1;

	if (bdev_sides(io->dev) <= 1)
		return n;
	while (k < n && bdev_prefer(io->dev, (blk + k) << COWFS_BLOCK_SHIFT) ==
				side)
		k++;
	return k;
}

static int read_data(struct blockio *io, struct copies at, size_t n,
		     const uint32_t *csum, void *buf)
{
	return read_units(io, at, 1, n, csum, true, buf);
}

static int read_data_now(struct blockio *io, struct copies at, size_t n,
			 const uint32_t *csum, void *buf)
{
	struct run r = { .blocks = 1, .count = n, .csum = csum, .buf = buf };

	unit_find_places(io, at, false, &r);
	return try_read(io, &r, bdev_read_now);
}

/* Part by part, each from one side. */
static int read_parts(struct blockio *io, struct copies at, size_t n,
		      const uint32_t *csum, uint8_t *buf,
		      int (*read)(struct blockio *io, struct copies at,
				  size_t n, const uint32_t *csum, void *buf))
{
	int err = unit_check_copies(io, at, n);
	size_t k;

	for (; !err && n > 0; n -= k) {
		k = same_side(io, at.a, n);
		err = read(io, at, k, csum, buf);
		at.a += k;
		at.b += at.b ? k : 0;
		csum += k;
		buf += unit_bytes(k);
	}
	return err;
}

int block_read_data(struct blockio *io, struct copies at, size_t n,
		    const uint32_t *csum, void *buf)
{
	return read_parts(io, at, n, csum, buf, read_data);
}

int block_read_now(struct blockio *io, struct copies at, size_t n,
		   const uint32_t *csum, void *buf)
{
	return read_parts(io, at, n, csum, buf, read_data_now);
}

void block_ahead(struct blockio *io, uint64_t blk, uint64_t n)
{
	if (unit_inside(io, blk, n))
		bdev_ahead(io->dev, blk << COWFS_BLOCK_SHIFT,
			   n << COWFS_BLOCK_SHIFT);
}

void block_fetch(struct blockio *io, uint64_t blk, uint64_t n)
{
	if (block_staged(io)) /* try_read() will not come for it */
		block_ahead(io, blk, n);
	else if (unit_inside(io, blk, n))
		bdev_fetch(io->dev, blk << COWFS_BLOCK_SHIFT,
			   n << COWFS_BLOCK_SHIFT);
}

/* ---- writing ---- */

int block_settle(struct blockio *io)
{
	/* Two that come at once may both do it. */
	return atomic_load(&io->unsettled) ? block_flush(io) : 0;
}

int block_writev(struct blockio *io, uint64_t blk, struct iovec *iov, int cnt)
{
	uint64_t len = iov_bytes(iov, cnt);
	int err;

	assert(len % COWFS_BLOCK_SIZE == 0);
	err = unit_check_range(io, blk, len >> COWFS_BLOCK_SHIFT);
	if (!err)
		err = block_settle(io);
	if (err)
		return err;
	order_io();
	err = bdev_writev(io->dev, blk << COWFS_BLOCK_SHIFT, iov, cnt);
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, len);
	return 0;
}

int block_write(struct blockio *io, uint64_t blk, size_t n, const void *buf)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf,
			     .iov_len = unit_bytes(n) };

	return block_writev(io, blk, &iov, 1);
}

int block_write_each(struct blockio *io, uint64_t blk, size_t n,
		     const void *const buf[BDEV_SIDES])
{
	int err = unit_check_range(io, blk, n);

	if (!err)
		err = block_settle(io);
	order_io();
	if (!err)
		err = bdev_write_each(io->dev, blk << COWFS_BLOCK_SHIFT, buf,
				      unit_bytes(n));
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, unit_bytes(n));
	return 0;
}

int block_flush(struct blockio *io)
{
	int err;

	atomic_fetch_add(&io->stats.flushes, 1);
	order_io();
	err = bdev_flush(io->dev);
	if (!err)
		atomic_store(&io->unsettled, false);
	return err;
}

int block_write_durable(struct blockio *io, uint64_t blk, size_t n,
			const void *buf)
{
	int err = unit_check_range(io, blk, n);

	if (!err)
		err = block_settle(io);
	if (err)
		return err;
	order_io();
	err = bdev_write_durable(io->dev, blk << COWFS_BLOCK_SHIFT, buf,
				 unit_bytes(n));
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, unit_bytes(n));
	atomic_fetch_add(&io->stats.flushes, 1);
	return 0;
}

int block_prepare(struct blockio *io, uint64_t blk, size_t n)
{
	order_io();
	return unit_inside(io, blk, n) ?
		       bdev_prepare(io->dev, blk << COWFS_BLOCK_SHIFT,
				    unit_bytes(n)) : 0;
}
