/*
 * unit.c - one place of a unit: reading it, finding it bad, rewriting it
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
#include <inttypes.h>
#include <stdio.h>

#include "block/unit.h"

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

static const char *what(enum unit_state s)
{
	return s == WRONG ? "checksum wrong" : "cannot be read";
}

/* ---- addresses ---- */

int unit_check_range(struct blockio *io, uint64_t blk, uint64_t n)
{
	if (blk != 0 && unit_inside(io, blk, n))
		return 0;
	say(io, "impossible address: %" PRIu64 " blocks at %" PRIu64 " of %"
	    PRIu64, n, blk, io->blocks);
	return -ECOW_CORRUPT;
}

/* Copies that overlap would be destroyed by repair. */
int unit_check_copies(struct blockio *io, struct copies at, uint64_t n)
{
	int err;

	err = unit_check_range(io, at.a, n);
	if (err || at.b == 0)
		return err;
	err = unit_check_range(io, at.b, n);
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

void unit_add_places(struct blockio *io, struct run *r, uint64_t blk,
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

/* A side may change its state between two looks at it. */
void unit_find_places(struct blockio *io, struct copies at, bool stale,
		      struct run *r)
{
	r->places = 0;
	unit_add_places(io, r, at.a, false);
	if (at.b)
		unit_add_places(io, r, at.b, false);
	if (stale && bdev_sides(io->dev) > 1 && r->places <= PLACES_MAX / 2) {
		unit_add_places(io, r, at.a, true);
		if (at.b)
			unit_add_places(io, r, at.b, true);
	}
	if (!r->places)
		r->place[r->places++] = (struct place){ .blk = at.a };
}

#define WHERE_MAX 128

/* "100", on a mirror "100 of NAME". */
static const char *where(struct blockio *io, const struct run *r, unsigned p,
			 size_t i, char out[WHERE_MAX])
{
	uint64_t blk = unit_block(r, p, i);

	if (bdev_sides(io->dev) > 1)
		snprintf(out, WHERE_MAX, "%" PRIu64 " of %s", blk,
			 bdev_side_name(io->dev, r->place[p].side));
	else
		snprintf(out, WHERE_MAX, "%" PRIu64, blk);
	return out;
}

/* ---- reading one place ---- */

int unit_dev_read(struct blockio *io, const struct run *r, unsigned p, size_t i,
		  size_t n)
{
	size_t len = n * unit_bytes(r->blocks);
	uint64_t blk = unit_block(r, p, i);
	const struct stage *staged = block_staged(io);
	int err;

	order_io();
	err = bdev_read_side(io->dev, r->place[p].side,
			     blk << COWFS_BLOCK_SHIFT, unit_buf(r, i), len);
	atomic_fetch_add(&io->stats.reads, 1);
	/* What was being written when the power went may be unreadable. */
	if (err && !block_all_staged(staged, blk, n * r->blocks))
		return err;
	atomic_fetch_add(&io->stats.read_bytes, len);
	block_staged_over(staged, blk, n * r->blocks, unit_buf(r, i));
	return 0;
}

bool unit_unheard(struct blockio *io, const struct place *p)
{
	return p->stale || bdev_side_state(io->dev, p->side) == SIDE_GONE;
}

enum unit_state unit_verify(struct blockio *io, const struct run *r, unsigned p,
			    size_t i)
{
	if (checksum(0, unit_buf(r, i), unit_bytes(r->blocks)) == r->csum[i])
		return GOOD;
	if (!r->place[p].stale)
		atomic_fetch_add(&io->stats.csum_errors, 1);
	return WRONG;
}

static enum unit_state unreadable(struct blockio *io, const struct run *r,
				  unsigned p)
{
	if (!unit_unheard(io, &r->place[p]))
		atomic_fetch_add(&io->stats.io_errors, 1);
	return UNREADABLE;
}

enum unit_state unit_read(struct blockio *io, const struct run *r, unsigned p,
			  size_t i)
{
	return unit_dev_read(io, r, p, i, 1) ? unreadable(io, r, p) :
					       unit_verify(io, r, p, i);
}

/* One of several units that could not be read all at once may be readable
 * alone; a single one has just been tried. */
enum unit_state unit_read_again(struct blockio *io, const struct run *r,
				unsigned p, size_t i)
{
	return r->count > 1 ? unit_read(io, r, p, i) : unreadable(io, r, p);
}

/* ---- rewriting bad copies ---- */

static int rewrite(struct blockio *io, const struct run *r, unsigned p,
		   size_t i, size_t n)
{
	uint64_t blk = unit_block(r, p, i);
	size_t len = n * unit_bytes(r->blocks);
	int err;

	if (!io->repair || !may_mend(io, blk, n * r->blocks))
		return -EROFS;
	err = block_settle(io);
	if (err)
		return err;
	mutex_lock(&io->mend_lock);
	err = bdev_write_side(io->dev, r->place[p].side,
			      blk << COWFS_BLOCK_SHIFT, unit_buf(r, i), len);
	mutex_unlock(&io->mend_lock);
	if (err)
		return err;
	atomic_fetch_add(&io->stats.writes, 1);
	atomic_fetch_add(&io->stats.write_bytes, len);
	return 0;
}

size_t unit_mend(struct blockio *io, const struct run *r, unsigned bad,
		 unsigned good, size_t i, size_t n, enum unit_state why,
		 bool mend)
{
	int err = mend ? rewrite(io, r, bad, i, n) : -EROFS;
	char a[WHERE_MAX], b[WHERE_MAX];

	if (r->place[bad].stale) {
		if (!err)
			atomic_fetch_add(&io->stats.resynced, n * r->blocks);
		return err ? 0 : n;
	}
	if (err && unit_unheard(io, &r->place[bad]))
		return 0;
	if (!err)
		atomic_fetch_add(&io->stats.repaired, n);
	say(io, "block %s%s: %s; good copy at %s; %s", where(io, r, bad, i, a),
	    n > 1 ? " and following" : "", what(why), where(io, r, good, i, b),
	    !err ? "rewritten" : err == -EROFS ? "not rewritten" :
						 strerror(-err));
	return err ? 0 : n;
}

/* ---- no copy is good ---- */

int unit_give_up(struct blockio *io, const struct run *r, size_t i,
		 const enum unit_state *state)
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
