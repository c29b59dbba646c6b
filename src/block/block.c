/*
 * block.c - reads that are checked, second copies, repair, scrub
 *
 * A read deals in *units*, the things that have a checksum of their own: a
 * node is one unit of several blocks, file data are units of one block each.
 * It takes all of the first copy at once; when that gives every checksum
 * there is nothing else to do. Otherwise each unit that does not match is
 * looked for alone.
 *
 *   R1  Only bytes that have just matched the checksum are written over a copy
 *       that did not.
 *   R2  Nothing is rewritten where superblocks lie, whatever address a damaged
 *       or hostile image gives.
 *   R3  A block that is being repaired is not written by anybody else: whoever
 *       reads it stands in a grace section, so it has not been handed out
 *       again; and repairs go one at a time, so that two readers who find the
 *       same bad copy do not write it both at once.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "block/block.h"

/* Blocks that scrub reads at once; bits of a mask. */
#define SCRUB_BLOCKS 64u

enum state { GOOD, WRONG, UNREADABLE };

/* What a read is about; only `at` and `csum` of a unit differ. */
struct unit {
	struct copies at;
	size_t blocks;
	uint32_t csum;
	uint8_t *buf;
};

void block_init(struct blockio *io, struct bdev *dev, uint64_t blocks,
		bool repair)
{
	memset(io, 0, sizeof(*io));
	io->dev = dev;
	io->blocks = blocks;
	io->repair = repair && !dev->readonly;
	mutex_init(&io->mend_lock);
}

static size_t bytes(size_t blocks)
{
	return blocks * COWFS_BLOCK_SIZE;
}

/* ---- messages ---- */

static void say(struct blockio *io, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void say(struct blockio *io, const char *fmt, ...)
{
	char text[256];
	uint64_t dropped;
	va_list ap;

	if (!log_allowed(&io->limit, &dropped))
		return;
	if (dropped)
		log_msg(LOG_LVL_ERROR, "%s: %" PRIu64 " more messages were not "
			"shown", io->dev->name, dropped);
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_msg(LOG_LVL_ERROR, "%s: %s", io->dev->name, text);
}

static const char *what(enum state s)
{
	return s == WRONG ? "checksum wrong" : "cannot be read";
}

/* ---- addresses ---- */

static bool inside(const struct blockio *io, uint64_t blk, uint64_t n)
{
	return blk < io->blocks && n <= io->blocks - blk;
}

static int check_range(struct blockio *io, uint64_t blk, uint64_t n)
{
	if (blk != 0 && inside(io, blk, n))
		return 0;
	say(io, "impossible address: %" PRIu64 " blocks at %" PRIu64 " of %"
	    PRIu64, n, blk, io->blocks);
	return -ECOW_CORRUPT;
}

/* Copies that overlap would be destroyed by repair. */
static int check_copies(struct blockio *io, struct copies at, uint64_t n)
{
	int err;

	err = check_range(io, at.a, n);
	if (err || at.b == 0)
		return err;
	err = check_range(io, at.b, n);
	if (err)
		return err;
	if ((at.a > at.b ? at.a - at.b : at.b - at.a) >= n)
		return 0;
	say(io, "impossible address: copies at %" PRIu64 " and %" PRIu64
	    " overlap", at.a, at.b);
	return -ECOW_CORRUPT;
}

/* R2. The caller has checked that the range is inside. */
static bool may_mend(const struct blockio *io, uint64_t blk, uint64_t n)
{
	return blk >= COWFS_FIRST_BLOCK &&
	       io->blocks - blk - n >= COWFS_SUPER_SLOTS;
}

/* ---- one copy ---- */

static int dev_read(struct blockio *io, uint64_t blk, size_t n, void *buf)
{
	int err = bdev_read(io->dev, blk << COWFS_BLOCK_SHIFT, buf, bytes(n));

	atomic_fetch_add(&io->stats.reads, 1);
	if (!err)
		atomic_fetch_add(&io->stats.read_bytes, bytes(n));
	return err;
}

static enum state verify(struct blockio *io, const struct unit *u)
{
	if (checksum(0, u->buf, bytes(u->blocks)) == u->csum)
		return GOOD;
	atomic_fetch_add(&io->stats.csum_errors, 1);
	return WRONG;
}

static enum state read_copy(struct blockio *io, uint64_t blk,
			    const struct unit *u)
{
	if (dev_read(io, blk, u->blocks, u->buf)) {
		atomic_fetch_add(&io->stats.io_errors, 1);
		return UNREADABLE;
	}
	return verify(io, u);
}

/* One of several units that could not be read all at once (count > 1) may be
 * readable alone; a single one has just been tried. */
static enum state read_again(struct blockio *io, size_t count, uint64_t blk,
			     const struct unit *u)
{
	if (count > 1)
		return read_copy(io, blk, u);
	atomic_fetch_add(&io->stats.io_errors, 1);
	return UNREADABLE;
}

/*
 * The copy at `bad` is not good, u->buf has just been verified: rewrite the
 * one by the other, if that is wanted and allowed. Returns whether it was.
 */
static bool mend_copy(struct blockio *io, const struct unit *u, uint64_t bad,
		      enum state why, bool mend)
{
	uint64_t good = bad == u->at.a ? u->at.b : u->at.a;
	const char *done = "not rewritten";
	int err = -EROFS;

	if (mend && io->repair && may_mend(io, bad, u->blocks)) {
		mutex_lock(&io->mend_lock);
		err = block_write(io, bad, u->blocks, u->buf);
		mutex_unlock(&io->mend_lock);
		done = err ? strerror(-err) : "rewritten";
	}
	if (!err)
		atomic_fetch_add(&io->stats.repaired, 1);
	say(io, "block %" PRIu64 ": %s; good copy at %" PRIu64 "; %s", bad,
	    what(why), good, done);
	return !err;
}

/* ---- reading ---- */

static int give_up(struct blockio *io, const struct unit *u, enum state a,
		   enum state b)
{
	atomic_fetch_add(&io->stats.unrepairable, 1);
	if (u->at.b)
		say(io, "block %" PRIu64 ": %s; second copy at %" PRIu64
		    ": %s", u->at.a, what(a), u->at.b, what(b));
	else
		say(io, "block %" PRIu64 ": %s; there is no other copy",
		    u->at.a, what(a));
	/* "wrong on every copy"; a copy that could not be read may be right */
	return a == UNREADABLE || b == UNREADABLE ? -EIO : -ECOW_CSUM;
}

/* The first copy is in state a, not good. */
static int read_second(struct blockio *io, const struct unit *u, enum state a)
{
	enum state b = WRONG;

	if (u->at.b) {
		b = read_copy(io, u->at.b, u);
		if (b == GOOD) {
			(void)mend_copy(io, u, u->at.a, a, true);
			return 0;
		}
	}
	return give_up(io, u, a, b);
}

/* Read `count` units that lie one after the other. */
static int read_units(struct blockio *io, struct copies at, size_t blocks,
		      size_t count, const uint32_t *csum, void *buf)
{
	struct unit u = { .at = at, .blocks = blocks, .buf = buf };
	enum state a;
	size_t i;
	int err, failed;

	err = check_copies(io, at, blocks * count);
	if (err)
		return err;
	failed = dev_read(io, at.a, blocks * count, buf);
	for (i = 0; i < count; i++) {
		u.csum = csum[i];
		a = failed ? read_again(io, count, u.at.a, &u)
			   : verify(io, &u);
		if (a != GOOD) {
			err = read_second(io, &u, a);
			if (err)
				return err;
		}
		u.at.a += blocks;
		u.at.b += at.b ? blocks : 0;
		u.buf += bytes(blocks);
	}
	return 0;
}

int block_read_node(struct blockio *io, struct copies at, size_t n,
		    uint32_t csum, void *buf)
{
	return read_units(io, at, n, 1, &csum, buf);
}

int block_read_data(struct blockio *io, struct copies at, size_t n,
		    const uint32_t *csum, void *buf)
{
	return read_units(io, at, 1, n, csum, buf);
}

/* ---- scrub ---- */

/* A run of units that is checked at once, and what was found. */
struct sweep {
	struct unit first;
	const uint32_t *csum;
	size_t count; /* <= SCRUB_BLOCKS */
	enum state a[SCRUB_BLOCKS], b[SCRUB_BLOCKS];
};

static struct unit unit_at(const struct sweep *s, size_t i)
{
	struct unit u = s->first;

	u.csum = s->csum[i];
	u.at.a += i * u.blocks;
	u.at.b += u.at.b ? i * u.blocks : 0;
	u.buf += i * bytes(u.blocks);
	return u;
}

/* Read one copy of all the units, the second if `second`. */
static void sweep_copy(struct blockio *io, struct sweep *s, bool second)
{
	enum state *state = second ? s->b : s->a;
	uint64_t blk = second ? s->first.at.b : s->first.at.a;
	bool failed;
	size_t i;

	failed = dev_read(io, blk, s->count * s->first.blocks, s->first.buf);
	for (i = 0; i < s->count; i++) {
		struct unit u = unit_at(s, i);

		blk = second ? u.at.b : u.at.a;
		state[i] = failed ? read_again(io, s->count, blk, &u)
				  : verify(io, &u);
	}
}

struct scrub_sum {
	unsigned bad, repaired;
};

/*
 * Unit i of which the first copy is in the buffer. Returns false if there is no
 * good copy; else the buffer holds it.
 */
static bool settle(struct blockio *io, struct sweep *s, size_t i, bool mend,
		   struct scrub_sum *sum)
{
	struct unit u = unit_at(s, i);
	bool two = u.at.b != 0;

	sum->bad += (s->a[i] != GOOD ? 1u : 0u) +
		    (two && s->b[i] != GOOD ? 1u : 0u);
	if (s->a[i] == GOOD) {
		if (two && s->b[i] != GOOD)
			sum->repaired += mend_copy(io, &u, u.at.b, s->b[i],
						   mend);
		return true;
	}
	/* its good bytes are no longer in the buffer: read them again */
	if (two && s->b[i] == GOOD)
		s->b[i] = read_copy(io, u.at.b, &u);
	if (!two || s->b[i] != GOOD) {
		(void)give_up(io, &u, s->a[i], two ? s->b[i] : WRONG);
		return false;
	}
	sum->repaired += mend_copy(io, &u, u.at.a, s->a[i], mend);
	return true;
}

static void mark_lost(uint8_t *lost, size_t first, size_t n)
{
	size_t i;

	for (i = first; lost && i < first + n; i++)
		lost[i / 8] = (uint8_t)(lost[i / 8] | 1u << i % 8);
}

int block_scrub(struct blockio *io, struct copies at, size_t n,
		const uint32_t *csum, bool whole, bool mend, void *buf,
		unsigned *bad, unsigned *repaired, uint8_t *lost)
{
	size_t i, done = 0, unit = whole ? n : 1;
	struct scrub_sum sum = { 0 };
	struct sweep s;
	int err;

	err = check_copies(io, at, n);
	if (err)
		return err;
	while (done < n) {
		s.first.at.a = at.a + done;
		s.first.at.b = at.b ? at.b + done : 0;
		s.first.blocks = unit;
		s.first.buf = (uint8_t *)buf + bytes(done);
		s.csum = whole ? csum : csum + done;
		s.count = whole ? 1 : min_u64(n - done, SCRUB_BLOCKS);
		if (at.b)
			sweep_copy(io, &s, true);
		sweep_copy(io, &s, false);
		for (i = 0; i < s.count; i++)
			if (!settle(io, &s, i, mend, &sum))
				mark_lost(lost, done + i * unit, unit);
		done += s.count * unit;
	}
	*bad += sum.bad;
	*repaired += sum.repaired;
	return 0;
}

/* ---- writing ---- */

int block_writev(struct blockio *io, uint64_t blk, struct iovec *iov, int cnt)
{
	uint64_t len = iov_bytes(iov, cnt);
	int err;

	assert(len % COWFS_BLOCK_SIZE == 0);
	err = check_range(io, blk, len >> COWFS_BLOCK_SHIFT);
	if (err)
		return err;
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
			     .iov_len = bytes(n) };

	return block_writev(io, blk, &iov, 1);
}

int block_flush(struct blockio *io)
{
	atomic_fetch_add(&io->stats.flushes, 1);
	return bdev_flush(io->dev);
}
