/*
 * hostile.h - images that lie: made, damaged on purpose, and used
 *
 * A *recipe* is a short string of bytes: which image to begin with, how it is
 * then used, and what is changed in it. Every string is a recipe, so a fuzzer
 * may make them up, and one that once brought cowfs down is kept as a test in
 * crashers.c. Checksums are made right again from the change up to the
 * superblock, in both copies: the change passes them.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "btree/btree.h"
#include "check/check.h"
#include "cowfs/bdev.h"
#include "support/test.h"
#include "txn/txn.h"

/* ---- flatdev.c: a device in one piece of memory, quickly made good ---- */

MUST_CHECK int flat_open(uint64_t blocks, struct bdev **out);
/* The bytes of the device; for reading. */
const uint8_t *flat_bytes(const struct bdev *dev);
/* n blocks for changing behind the back of whoever uses the device. */
uint8_t *flat_edit(struct bdev *dev, uint64_t blk, uint64_t n);
/* Take back all that was written since the last time; from: the bytes of a
 * device of the same size. */
void flat_reset(struct bdev *dev, const uint8_t *from);

/* ---- base.c: images to begin with ---- */

#define BASE_KINDS 7u

/* Something that lies in one or two places. */
struct place {
	uint64_t blk, blk2; /* blk2 0: none */
	uint32_t blocks;
	bool data;
	uint8_t tree, level; /* of a node */
};

struct base {
	struct bdev *dev; /* flat; stays as it is */
	uint64_t blocks;
	uint32_t node_size;
	struct cowfs_disk_super super; /* the newest */
	struct place *place;           /* nodes, each once, then data */
	size_t nodes, places;
};

/* Made when first asked for, the same each time but for times. */
const struct base *base_get(unsigned kind);
/* Errors of making one end the program. */
void must(int err, const char *what);
/* List all that a superblock names (base.c calls it). */
void places_find(struct base *b);

/* ---- mutate.c, fixup.c ---- */

#define RECIPE_HEAD 4u
#define RECIPE_STEP 12u
#define RECIPE_STEPS 8u /* further ones are ignored */
#define RECIPE_MAX (RECIPE_HEAD + RECIPE_STEP * RECIPE_STEPS)

/* recipe[0]: the kind of image; [1]: these; [2], [3]: how it is used. */
enum recipe_flags {
	RECIPE_HEADS = 1,  /* nodes agree with the pointers to them */
	RECIPE_DATA = 2,   /* data match the checksums of their extents */
	RECIPE_ALONE = 4,  /* no other superblock is left */
	RECIPE_UNVERIFIED = 8, /* written in one flush, it says */
};

/* dev: a flat device with the bytes of b. */
void recipe_apply(const struct base *b, struct bdev *dev, const uint8_t *recipe,
		  size_t len);
/* Set all checksums below *super, and its own, and write it. */
void fixup(const struct base *b, struct bdev *dev,
	   struct cowfs_disk_super *super, unsigned flags);

/* ---- tour.c: use all of a filesystem, whatever it answers ---- */

void tour(struct bdev *dev, uint64_t seed);

/* ---- repairs.c: fsck; says what it saw if VERBOSE is set ---- */

/* What no image may bring about: ends the program if it does not hold. */
void require(bool holds, const char *what);
/* check_options.found */
void hostile_found(void *arg, enum problem p, const char *where);
/* Without file data, which nobody can mend, unless asked. */
bool is_clean(struct bdev *dev, bool data);
/* fsck -y, or what else its options (some bits of seed) make of it. What it has
 * committed checks clean, or the program ends; did it commit? */
bool repair_it(struct bdev *dev, uint64_t seed);
/* Take a repair back, and do it again. */
void undo_it(struct bdev *dev, uint64_t seed);

/* The whole of a recipe: what the fuzzer and the tests call. */
void recipe_run(const uint8_t *recipe, size_t len);

/* ---- crashers.c: recipes that once did harm ---- */

struct crasher { const char *what, *hex; };
extern const struct crasher crashers[];
extern const size_t crasher_count;
/* Bytes of a recipe from its text; their number. */
size_t crasher_bytes(const struct crasher *c, uint8_t out[RECIPE_MAX]);

#endif
