/*
 * block.c - reads that are checked, second copies, repair, scrub
 *
 * A read deals in *units*, the things that have a checksum of their own: a
 * node is one unit of several blocks, file data are units of one block each.
 * A unit lies in several *places*: each of its addresses, on each side of the
 * device. A read takes all of the first place at once; when that gives every
 * checksum there is nothing else to do. Otherwise each unit that does not match
 * is looked for alone, place by place.
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

/* Where the first unit of a run lies, once. */
struct place {
	uint64_t blk;
	unsigned side;
	bool stale; /* on a side that may lack it */
};
#define PLACES_MAX (2 * BDEV_SIDES)

/* Units that lie one after the other, in each place. */
struct run {
	struct place place[PLACES_MAX]; /* in the order they are tried */
	unsigned places;
	size_t blocks, count; /* of a unit; units */
	const uint32_t *csum; /* of each unit */
	uint8_t *buf;
	bool data;
	bool single; /* data in one copy, as far as the caller knows */
};

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
	io->stage = of->stage;
}

void block_set_finder(struct blockio *io,
		      uint64_t (*find)(void *arg, uint64_t blk), void *arg)
{
	io->find_arg = arg;
	io->find = find;
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

	if (io->quiet || !log_allowed(&io->limit, &dropped))
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

/* ---- places ---- */

/* Those of one address: what may be trusted first, the side to prefer in front
 * of the other. */
static void add_places(struct blockio *io, struct run *r, uint64_t blk,
		       bool stale)
{
	unsigned n = bdev_sides(io->dev), i;
	unsigned first = bdev_prefer(io->dev, blk << COWFS_BLOCK_SHIFT);

	for (i = 0; i < n; i++) {
		unsigned side = (first + i) % n;

		if (bdev_side_state(io->dev, side) ==
		    (stale ? SIDE_STALE : SIDE_GOOD))
			r->place[r->places++] = (struct place){
				.blk = blk, .side = side, .stale = stale
			};
	}
}

/* stale: the sides that may lack it, too, after all others. There is at least
 * one place; a side may change its state between two looks at it. */
static void find_places(struct blockio *io, struct copies at, bool stale,
			struct run *r)
{
	r->places = 0;
	add_places(io, r, at.a, false);
	if (at.b)
		add_places(io, r, at.b, false);
	if (stale && bdev_sides(io->dev) > 1 && r->places <= PLACES_MAX / 2) {
		add_places(io, r, at.a, true);
		if (at.b)
			add_places(io, r, at.b, true);
	}
	if (!r->places)
		r->place[r->places++] = (struct place){ .blk = at.a };
}

static uint64_t block_at(const struct run *r, unsigned p, size_t i)
{
	return r->place[p].blk + i * r->blocks;
}

static uint8_t *buf_of(const struct run *r, size_t i)
{
	return r->buf + i * bytes(r->blocks);
}

#define WHERE_MAX 128

/* "100", on a mirror "100 of NAME". */
static const char *where(struct blockio *io, const struct run *r, unsigned p,
			 size_t i, char out[WHERE_MAX])
{
	uint64_t blk = block_at(r, p, i);

	if (bdev_sides(io->dev) > 1)
		snprintf(out, WHERE_MAX, "%" PRIu64 " of %s", blk,
			 bdev_side_name(io->dev, r->place[p].side));
	else
		snprintf(out, WHERE_MAX, "%" PRIu64, blk);
	return out;
}

/* ---- reading one place ---- */

/* Units [i, i+n) from place p. */
static int dev_read(struct blockio *io, const struct run *r, unsigned p,
		    size_t i, size_t n)
{
	size_t len = n * bytes(r->blocks);
	uint64_t blk = block_at(r, p, i);
	int err;

	order_io();
	err = bdev_read_side(io->dev, r->place[p].side,
			     blk << COWFS_BLOCK_SHIFT, buf_of(r, i), len);
	atomic_fetch_add(&io->stats.reads, 1);
	/* What was being written when the power went may be unreadable. */
	if (err && !block_all_staged(io, blk, n * r->blocks))
		return err;
	atomic_fetch_add(&io->stats.read_bytes, len);
	if (io->stage)
		block_staged_over(io, blk, n * r->blocks, buf_of(r, i));
	return 0;
}

/* What is bad there is no event: the side is known to lack things, or has gone
 * since it was chosen. */
static bool unheard(struct blockio *io, const struct place *p)
{
	return p->stale || bdev_side_state(io->dev, p->side) == SIDE_GONE;
}

static enum state verify(struct blockio *io, const struct run *r, unsigned p,
			 size_t i)
{
	if (checksum(0, buf_of(r, i), bytes(r->blocks)) == r->csum[i])
		return GOOD;
	if (!r->place[p].stale)
		atomic_fetch_add(&io->stats.csum_errors, 1);
	return WRONG;
}

static enum state unreadable(struct blockio *io, const struct run *r,
			     unsigned p)
{
	if (!unheard(io, &r->place[p]))
		atomic_fetch_add(&io->stats.io_errors, 1);
	return UNREADABLE;
}

static enum state read_unit(struct blockio *io, const struct run *r,
			    unsigned p, size_t i)
{
	return dev_read(io, r, p, i, 1) ? unreadable(io, r, p) :
					  verify(io, r, p, i);
}

/* One of several units that could not be read all at once may be readable
 * alone; a single one has just been tried. */
static enum state read_again(struct blockio *io, const struct run *r,
			     unsigned p, size_t i)
{
	return r->count > 1 ? read_unit(io, r, p, i) : unreadable(io, r, p);
}

/* ---- rewriting bad copies ---- */

static int rewrite(struct blockio *io, const struct run *r, unsigned p,
		   size_t i, size_t n)
{
	uint64_t blk = block_at(r, p, i);
	size_t len = n * bytes(r->blocks);
	int err;

	if (!io->repair || !may_mend(io, blk, n * r->blocks))
		return -EROFS;
	mutex_lock(&io->mend_lock);
	err = bdev_write_side(io->dev, r->place[p].side,
			      blk << COWFS_BLOCK_SHIFT, buf_of(r, i), len);
	mutex_unlock(&io->mend_lock);
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, len);
	return 0;
}

/*
 * n units from i on are not good at place `bad`, for the same reason; the
 * buffer has just been verified, as it was read from place `good`. Rewrite
 * them (mend), if that is allowed. Returns how many were.
 */
static size_t mend_units(struct blockio *io, const struct run *r, unsigned bad,
		   unsigned good, size_t i, size_t n, enum state why,
		   bool mend)
{
	int err = mend ? rewrite(io, r, bad, i, n) : -EROFS;
	char a[WHERE_MAX], b[WHERE_MAX];

	if (r->place[bad].stale) {
		if (!err)
			atomic_fetch_add(&io->stats.resynced, n * r->blocks);
		return err ? 0 : n;
	}
	if (err && unheard(io, &r->place[bad]))
		return 0;
	if (!err)
		atomic_fetch_add(&io->stats.repaired, n);
	say(io, "block %s%s: %s; good copy at %s; %s", where(io, r, bad, i, a),
	    n > 1 ? " and following" : "", what(why), where(io, r, good, i, b),
	    !err ? "rewritten" : err == -EROFS ? "not rewritten" :
						 strerror(-err));
	return err ? 0 : n;
}

/* ---- reading ---- */

/* state: of each place. */
static int give_up(struct blockio *io, const struct run *r, size_t i,
		   const enum state *state)
{
	char text[PLACES_MAX * (WHERE_MAX + 32)], one[WHERE_MAX];
	bool unsure = false;
	unsigned p;
	int n = 0;

	atomic_fetch_add(&io->stats.unrepairable, 1);
	for (p = 0; p < r->places; p++) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, "%s%s: %s",
			      p ? "; other copy at " : "",
			      where(io, r, p, i, one), what(state[p]));
		unsure |= state[p] == UNREADABLE;
	}
	say(io, "block %s%s", text,
	    r->places > 1 ? "" : "; there is no other copy");
	/* "wrong on every copy"; a copy that could not be read may be right */
	return unsure ? -EIO : -ECOW_CSUM;
}

/* Unit i was not good at the first places, but in these states. */
static int try_places(struct blockio *io, const struct run *r, size_t i,
		      unsigned from, enum state *state)
{
	unsigned p, bad;

	for (p = from; p < r->places; p++) {
		state[p] = read_unit(io, r, p, i);
		if (state[p] != GOOD)
			continue;
		for (bad = 0; bad < p; bad++)
			(void)mend_units(io, r, bad, p, i, 1, state[bad],
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
	uint64_t blk = block_at(r, 0, i), extra = io->find(io->find_arg, blk);
	unsigned p;

	if (!extra || check_copies(io, (struct copies){ blk, extra },
				   r->blocks))
		return false;
	*out = *r;
	out->count = 1;
	out->csum = &r->csum[i];
	out->buf = buf_of(r, i);
	for (p = 0; p < r->places; p++)
		out->place[p].blk = block_at(r, p, i);
	assert(out->places <= PLACES_MAX / 2); /* they are of one address */
	add_places(io, out, extra, false);
	return true;
}

/* Unit i was not good at the first place, but in this state. */
static int read_other(struct blockio *io, const struct run *r, size_t i,
		      enum state first)
{
	enum state state[PLACES_MAX] = { first };
	struct run more;

	if (!try_places(io, r, i, 1, state))
		return 0;
	if (!r->single || !io->find || !find_more(io, r, i, &more))
		return give_up(io, r, i, state);
	if (!try_places(io, &more, 0, r->places, state))
		return 0;
	return give_up(io, &more, 0, state);
}

/* All units of the first place, read in this way if it can be. Whatever is
 * wrong is no event: it is read as usual then. */
static int try_read(struct blockio *io, const struct run *r,
		    int (*how)(struct bdev *dev, unsigned side, uint64_t off,
			       void *buf, size_t len))
{
	size_t len = r->count * bytes(r->blocks), i;
	int err;

	if (io->stage)
		return -EOPNOTSUPP;
	order_io();
	err = how(io->dev, r->place[0].side,
		  r->place[0].blk << COWFS_BLOCK_SHIFT, r->buf, len);
	if (err)
		return err;
	atomic_fetch_add(&io->stats.reads, 1);
	atomic_fetch_add(&io->stats.read_bytes, len);
	for (i = 0; i < r->count; i++)
		if (checksum(0, buf_of(r, i), bytes(r->blocks)) != r->csum[i])
			return -ECOW_CSUM;
	return 0;
}

/* Read `count` units that lie one after the other. */
static int read_units(struct blockio *io, struct copies at, size_t blocks,
		      size_t count, const uint32_t *csum, bool data, void *buf)
{
	struct run r = { .blocks = blocks, .count = count, .csum = csum,
			 .buf = buf, .data = data, .single = data && !at.b };
	enum state state;
	size_t i;
	int err, failed;

	err = check_copies(io, at, blocks * count);
	if (err)
		return err;
	find_places(io, at, true, &r);
	if (data && count >= BLOCK_PAST && !try_read(io, &r, bdev_read_past))
		return 0;
	failed = dev_read(io, &r, 0, 0, count);
	for (i = 0; i < count; i++) {
		state = failed ? read_again(io, &r, 0, i)
			       : verify(io, &r, 0, i);
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

int block_read_data(struct blockio *io, struct copies at, size_t n,
		    const uint32_t *csum, void *buf)
{
	return read_units(io, at, 1, n, csum, true, buf);
}

int block_read_now(struct blockio *io, struct copies at, size_t n,
		   const uint32_t *csum, void *buf)
{
	struct run r = { .blocks = 1, .count = n, .csum = csum, .buf = buf };
	int err = check_copies(io, at, n);

	if (err)
		return err;
	find_places(io, at, false, &r);
	return try_read(io, &r, bdev_read_now);
}

bool block_reads_past(struct blockio *io, uint64_t blk, uint64_t n)
{
	return n >= BLOCK_PAST && !io->stage && inside(io, blk, n) &&
	       bdev_reads_past(io->dev, blk << COWFS_BLOCK_SHIFT);
}

void block_ahead(struct blockio *io, uint64_t blk, uint64_t n)
{
	if (inside(io, blk, n))
		bdev_ahead(io->dev, blk << COWFS_BLOCK_SHIFT,
			   n << COWFS_BLOCK_SHIFT);
}

/* ---- scrub ---- */

/* A run of units that is checked at once, and what was found. */
struct sweep {
	struct run run; /* count <= SCRUB_BLOCKS */
	unsigned last;  /* places behind those of run: stale ones, for what is
			   good nowhere else */
	enum state state[PLACES_MAX][SCRUB_BLOCKS];
	uint8_t from[SCRUB_BLOCKS]; /* place that the buffer was read from */
	bool good[SCRUB_BLOCKS];    /* the buffer is */
};

struct scrub_sum {
	unsigned bad, repaired;
};

/* Read one place of all the units. */
static void sweep_place(struct blockio *io, struct sweep *s, unsigned p)
{
	const struct run *r = &s->run;
	bool failed = dev_read(io, r, p, 0, r->count);
	size_t i;

	for (i = 0; i < r->count; i++)
		s->state[p][i] = failed ? read_again(io, r, p, i)
					: verify(io, r, p, i);
}

/*
 * Unit i, of which the first place is in the buffer: have something good there
 * if there is anything.
 */
static void settle(struct blockio *io, struct sweep *s, size_t i,
		   struct scrub_sum *sum)
{
	const struct run *r = &s->run;
	enum state state[PLACES_MAX];
	unsigned p;

	for (p = 0; p < r->places; p++)
		sum->bad += s->state[p][i] != GOOD &&
			    !unheard(io, &r->place[p]);
	for (p = 0; p < r->places; p++) {
		if (s->state[p][i] != GOOD)
			continue;
		/* those of the others are no longer in the buffer */
		if (p > 0)
			s->state[p][i] = read_unit(io, r, p, i);
		if (s->state[p][i] == GOOD)
			break;
	}
	while (p >= r->places && p < s->last &&
	       read_unit(io, r, p, i) != GOOD)
		p++;
	s->good[i] = p < s->last;
	s->from[i] = (uint8_t)p;
	if (s->good[i])
		return;
	for (p = 0; p < r->places; p++)
		state[p] = s->state[p][i];
	(void)give_up(io, r, i, state);
}

/* Units from i on that are bad at place p alike, and good in the buffer. */
static size_t alike(const struct sweep *s, unsigned p, size_t i)
{
	size_t n = 0;

	while (i + n < s->run.count && s->good[i + n] &&
	       s->state[p][i + n] == s->state[p][i] &&
	       s->from[i + n] == s->from[i])
		n++;
	return n;
}

/* What is bad at place p, in as few writes as can be; one by one where a write
 * failed. */
static void sweep_mend(struct blockio *io, const struct sweep *s, unsigned p,
		       bool mend, struct scrub_sum *sum)
{
	const struct run *r = &s->run;
	size_t i, k, n, done;

	for (i = 0; i < r->count; i += n) {
		n = 1;
		if (!s->good[i] || s->state[p][i] == GOOD)
			continue;
		n = alike(s, p, i);
		done = mend_units(io, r, p, s->from[i], i, n, s->state[p][i],
			    mend);
		for (k = i; n > 1 && mend && !done && k < i + n; k++)
			done += mend_units(io, r, p, s->from[i], k, 1,
				     s->state[p][k], mend);
		if (!r->place[p].stale)
			sum->repaired += (unsigned)done;
	}
}

static void sweep(struct blockio *io, struct sweep *s, bool mend,
		  struct scrub_sum *sum)
{
	unsigned p;
	size_t i;

	for (p = s->run.places; p-- > 0;)
		sweep_place(io, s, p);
	for (i = 0; i < s->run.count; i++)
		settle(io, s, i, sum);
	for (p = 0; p < s->run.places; p++)
		sweep_mend(io, s, p, mend, sum);
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
	struct sweep s = { .run.blocks = unit };
	int err;

	err = check_copies(io, at, n);
	if (err)
		return err;
	while (done < n) {
		find_places(io, (struct copies){ at.a + done,
						 at.b ? at.b + done : 0 },
			    true, &s.run);
		s.last = s.run.places;
		while (!(mend && io->repair) && s.run.places > 1 &&
		       s.run.place[s.run.places - 1].stale)
			s.run.places--;
		s.run.buf = (uint8_t *)buf + bytes(done);
		s.run.csum = whole ? csum : csum + done;
		s.run.count = whole ? 1 : min_u64(n - done, SCRUB_BLOCKS);
		sweep(io, &s, mend, &sum);
		for (i = 0; i < s.run.count; i++)
			if (!s.good[i])
				mark_lost(lost, done + i * unit, unit);
		done += s.run.count * unit;
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
			     .iov_len = bytes(n) };

	return block_writev(io, blk, &iov, 1);
}

int block_write_side(struct blockio *io, unsigned side, uint64_t blk, size_t n,
		     const void *buf)
{
	int err = check_range(io, blk, n);

	order_io();
	if (!err)
		err = bdev_write_side(io->dev, side, blk << COWFS_BLOCK_SHIFT,
				      buf, bytes(n));
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, bytes(n));
	return 0;
}

int block_flush(struct blockio *io)
{
	atomic_fetch_add(&io->stats.flushes, 1);
	order_io();
	return bdev_flush(io->dev);
}

int block_write_durable(struct blockio *io, uint64_t blk, size_t n,
			const void *buf)
{
	int err = check_range(io, blk, n);

	if (err)
		return err;
	order_io();
	err = bdev_write_durable(io->dev, blk << COWFS_BLOCK_SHIFT, buf,
				 bytes(n));
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, bytes(n));
	atomic_fetch_add(&io->stats.flushes, 1);
	return 0;
}

void block_prepare(struct blockio *io, uint64_t blk, size_t n)
{
	order_io();
	if (inside(io, blk, n))
		bdev_prepare(io->dev, blk << COWFS_BLOCK_SHIFT, bytes(n));
}
