/*
 * unit.h - what checked reads and scrub share (private to src/block)
 *
 * Reads deal in *units*, the things that have a checksum of their own: a node
 * is one unit of several blocks, file data are units of one block each. A unit
 * lies in several *places*: each of its addresses, on each side of the device.
 */
#ifndef COW_UNIT_H
#define COW_UNIT_H

#include "block/block.h"

enum unit_state { GOOD, WRONG, UNREADABLE };

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
	bool single; /* data in one copy, as far as the caller knows */
};

static inline size_t unit_bytes(size_t blocks)
{
	return blocks * COWFS_BLOCK_SIZE;
}

static inline bool unit_inside(const struct blockio *io, uint64_t blk,
			       uint64_t n)
{
	return blk < io->blocks && n <= io->blocks - blk;
}

static inline uint64_t unit_block(const struct run *r, unsigned p, size_t i)
{
	return r->place[p].blk + i * r->blocks;
}

static inline uint8_t *unit_buf(const struct run *r, size_t i)
{
	return r->buf + i * unit_bytes(r->blocks);
}

/* Are these addresses possible: inside, and copies do not overlap? Else
 * -ECOW_CORRUPT, logged. n: blocks. */
MUST_CHECK int unit_check_range(struct blockio *io, uint64_t blk, uint64_t n);
MUST_CHECK int unit_check_copies(struct blockio *io, struct copies at,
				 uint64_t n);

/* Add the places of one address: what may be trusted first (stale: only sides
 * that are), the side to prefer in front of the other. */
void unit_add_places(struct blockio *io, struct run *r, uint64_t blk,
		     bool stale);
/* All of both addresses; stale: the sides that may lack it, too, after all
 * others. There is at least one. */
void unit_find_places(struct blockio *io, struct copies at, bool stale,
		      struct run *r);

/* Units [i, i+n) from place p, into their places in the buffer. */
MUST_CHECK int unit_dev_read(struct blockio *io, const struct run *r,
			     unsigned p, size_t i, size_t n);
/* What is bad there is no event: the side is known to lack things, or has gone
 * since it was chosen. */
bool unit_unheard(struct blockio *io, const struct place *p);
/* Unit i, just read from place p, is in the buffer. Counts. */
enum unit_state unit_verify(struct blockio *io, const struct run *r, unsigned p,
			    size_t i);
/* Read and verify unit i. Counts. */
enum unit_state unit_read(struct blockio *io, const struct run *r, unsigned p,
			  size_t i);
/* The same, after all of the run could not be read at once. */
enum unit_state unit_read_again(struct blockio *io, const struct run *r,
				unsigned p, size_t i);

/*
 * n units from i on are not good at place `bad`, for the same reason; the
 * buffer has just been verified, as it was read from place `good`. Rewrite
 * them (mend), if that is allowed. Logs and counts; returns how many were.
 */
size_t unit_mend(struct blockio *io, const struct run *r, unsigned bad,
		 unsigned good, size_t i, size_t n, enum unit_state why,
		 bool mend);
/* Unit i is good nowhere; state: of each place. Logs and counts; -ECOW_CSUM, or
 * -EIO if a copy could not be read. */
int unit_give_up(struct blockio *io, const struct run *r, size_t i,
		 const enum unit_state *state);

#endif
