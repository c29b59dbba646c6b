/*
 * hostile.h - images that lie: made, damaged on purpose, and used
 *
 * A *recipe* is a short string of bytes: which image to begin with, how it is
 * then used, and what is changed in it. Every string is a recipe, so a fuzzer
 * may make them up, and one that once brought cowfs down is kept as a test in
 * crashers.c. Checksums are made right again from the change up to the
 * superblock, in both copies: the change passes them.
 *
 * Of a mirror both sides are made, the same or each its own way, and then it is
 * used whole, with one side missing, or with its sides swapped.
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
/* Blocks that were changed since, but for superblocks, to a device of the same
 * size. */
void flat_copy(struct bdev *to, struct bdev *from);
/* A device that is another in disguise, and may be closed without it. */
MUST_CHECK int flat_share(struct bdev *flat, struct bdev **out);
/* Writes to flat devices so far, all together. */
uint64_t flat_written(void);

/* ---- base.c: images to begin with ---- */

#define BASE_KINDS 10u

/* Something that lies in one or two places. */
struct place {
	uint64_t blk, blk2; /* blk2 0: none */
	uint32_t blocks;
	bool data;
	uint8_t tree, level; /* of a node */
};

struct base {
	struct bdev *dev;   /* flat; stays as it is */
	struct bdev *other; /* side 1 of a mirror; NULL: it is none */
	uint64_t blocks;
	uint32_t node_size;
	struct cowfs_disk_super super[BDEV_SIDES]; /* the newest of each */
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

/* recipe[0]: the kind of image; [1]: these, and in its upper half which side of
 * a mirror is what (mutate.c); [2], [3]: how it is used. */
enum recipe_flags {
	RECIPE_HEADS = 1,  /* nodes agree with the pointers to them */
	RECIPE_DATA = 2,   /* data match the checksums of their extents */
	RECIPE_ALONE = 4,  /* no other superblock is left */
	RECIPE_UNVERIFIED = 8, /* written in one flush, it says */
};

/* dev: a flat device with the bytes of each side of b. */
void recipe_apply(const struct base *b, struct bdev *const dev[BDEV_SIDES],
		  const uint8_t *recipe, size_t len);
/* Set all checksums below *super, and its own, and write it. */
void fixup(const struct base *b, struct bdev *dev,
	   struct cowfs_disk_super *super, unsigned flags);
/* Just write it. */
void fixup_super(const struct base *b, struct bdev *dev,
		 struct cowfs_disk_super *super, unsigned flags);

/* A step of a recipe: what to do, where (node, entry, field), and with which
 * value. Numbers that are too large count modulo what there is. */
struct step {
	uint8_t op;
	uint16_t node, entry;
	uint8_t field, value, width;
	uint32_t arg;
};

struct work {
	const struct base *b;
	struct bdev *dev;
	struct cowfs_disk_super super[BDEV_SIDES];
	struct step st;
};

/* What the step makes of an old value; at p, of `width` bytes; of 1, 2, 4 or 8
 * bytes, aligned to that, of `len`. */
uint64_t step_value(const struct work *w, uint64_t old);
void step_field(const struct work *w, uint8_t *p, unsigned width);
void step_change(const struct work *w, uint8_t *p, uint32_t len, unsigned at);
/* A node to be changed; sane: it is one that others would look into. */
uint8_t *step_node(const struct work *w, size_t i, bool *sane);

/* ---- mutate_more.c: what is rare in an image, and is aimed at ---- */

void mutate_copies(struct work *w);  /* the copies tree */
void mutate_rare(struct work *w);    /* items of which there are few */
void mutate_record(struct work *w);  /* entries of the log */
void mutate_mirror(struct work *w);  /* what superblocks say about sides */

/* ---- tour.c: use all of a filesystem, whatever it answers ---- */

void tour(struct bdev *dev, uint64_t seed);

/* ---- tasks.c: what runs in the background, here in the foreground ---- */

/* What the last scrub said; then another, or on with it, if s may be written. */
void scrub_it(struct store *s, uint64_t seed);
/* Another setting for extra copies, and what has to be done for it. */
void redundancy_it(struct store *s, uint64_t seed);

/* ---- rescues.c: rescue, with and without search ---- */

void rescue_it(struct bdev *dev, uint64_t seed);

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
