/*
 * read.c - blocks off the device, all copies, mended where asked
 *
 * On a running store blocks are reused while they are checked, should the hold
 * on them break. Then a mismatch means nothing, and mending would write old
 * bytes over somebody's new ones. So every read stands in a grace section, and
 * asks after the hold once it is in there: whatever a hold that breaks later
 * lets go of is not handed out before the section ends (alloc.h A2). What is
 * read after that is neither logged nor counted as an error of the device.
 */
#include "check/private.h"

bool block_matches(struct check *c, uint64_t blk, uint32_t csum, void *buf)
{
	unsigned ticket = c->live ? store_enter(c->live) : 0;
	int err = bdev_read(c->io->dev, blk << COWFS_BLOCK_SHIFT, buf,
			    COWFS_BLOCK_SIZE);

	if (c->live)
		store_leave(c->live, ticket);
	return !err && checksum(0, buf, COWFS_BLOCK_SIZE) == csum;
}

/* Without a hold: whatever does not match may be somebody else's by now. */
static int read_unsure(struct check *c, struct copies at, size_t n,
		       const uint32_t *csum, bool whole, void *buf,
		       struct copies_read *r)
{
	struct blockio io;

	block_init_unheard(&io, c->io);
	return block_scrub(&io, at, n, csum, whole, false, buf, &r->bad,
			   &r->repaired, r->lost);
}

int read_copies(struct check *c, struct copies at, size_t n,
		const uint32_t *csum, bool whole, bool mend, void *buf,
		struct copies_read *out)
{
	struct copies_read r = { 0 };
	unsigned ticket = 0;
	bool sure = true;
	int err;

	/* Of copies that overlap, which the walk tells, the first counts. */
	if (at.b && (at.a > at.b ? at.a - at.b : at.b - at.a) < n)
		at.b = 0;
	if (c->live) {
		ticket = store_enter(c->live);
		sure = !alloc_hold_broken(c->live->alloc);
	}
	err = sure ? block_scrub(c->io, at, n, csum, whole, mend, buf, &r.bad,
				 &r.repaired, r.lost) :
		     read_unsure(c, at, n, csum, whole, buf, &r);
	if (c->live)
		store_leave(c->live, ticket);
	if (err)
		return err;
	if (c->opt->pace && !c->stop &&
	    c->opt->pace(c->opt->arg, n * COWFS_BLOCK_SIZE * (at.b ? 2u : 1u)))
		c->stop = -ECANCELED;
	if (r.bad && !sure)
		c->stop = -EAGAIN;
	*out = r;
	return 0;
}
