/*
 * scrub_owner.h - what is looked for to find owners of damaged blocks (private
 * to scrub_owner.c and scrub_hits.c)
 */
#ifndef COW_SCRUB_OWNER_H
#define COW_SCRUB_OWNER_H

#include "check/scrub.h"

/* Blocks of a file that an extent has on damaged ones, of one range. */
struct hit {
	uint64_t ino;
	uint64_t range; /* damage.blk */
	uint64_t lblk, len, blk;
};

/* Directory `dir` has a name for `ino`. */
struct named {
	uint64_t ino, dir;
};

struct owners {
	struct look *l;
	struct damages *d;
	struct report *r;
	struct array hits;   /* struct hit */
	struct array inodes; /* uint64_t: of the hits, sorted, each once */
	struct array names;  /* struct named, sorted */
	struct array here;   /* struct hit: of the tree being asked */
	uint64_t untold;
};

/* Sort, and join what belongs together. */
void hits_join(struct array *hits);
/* Append the damaged ones among blocks [from, to) of an extent to out (OW1);
 * what finds no room counts as untold. -ENOMEM. */
MUST_CHECK int hits_of_extent(struct owners *o, const struct extent_rec *e,
			      uint64_t from, uint64_t to, struct array *out);
/* The inodes that a damaged node may have items of. */
void damage_inodes(const struct damage *d, uint64_t *first, uint64_t *last);
/* Walk all leaves, twice: hits, inodes and names. It may end early
 * (check.stop). */
MUST_CHECK int owners_collect(struct owners *o);

#endif
