/*
 * testdev.h - devices for tests, stacked over another device
 *
 * None of them closes the device below it: that is usually looked at again
 * once the one above is gone. All may be used from many threads.
 *
 *	bdev_open_mem(size, &mem);
 *	ck_ok(fault_open(mem, &dev));
 *	fault_nth(dev, FAULT_WRITE, 3, -EIO);	(the third write from now)
 *	... use dev ...
 *	bdev_close(dev);
 *	bdev_close(mem);
 *
 * A file in support/ is linked into every test program.
 */
#ifndef TESTDEV_H
#define TESTDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cowfs/bdev.h"

#define TEST_SECTOR 512u

/* ---- a device that fails as it is told to ---- */

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_FLUSH, FAULT_OPS };

enum fault_kind {
	FAULT_ERROR, /* nothing is done; err is returned */
	/* writes only: */
	FAULT_TORN,  /* the first `sectors` of 512 bytes reach the device */
	FAULT_LOST,  /* nothing reaches it */
	/* reads, and writes (what is stored is wrong then): */
	FAULT_FLIP,  /* bit `bit` of the byte at `off` is the other way round */
};

struct fault_rule {
	enum fault_op op;
	enum fault_kind kind;
	/* Only operations that touch this range of bytes; len 0: all. A FLIP
	 * has its byte at off, whatever len says. Flushes ignore it. */
	uint64_t off, len;
	unsigned skip;  /* let this many matching operations through first */
	unsigned times; /* then act on this many; 0: on all from there on */
	int err; /* what the operation returns: 0 (TORN and LOST lie then) or
		    a negative errno; must not be 0 for ERROR */
	unsigned sectors; /* TORN */
	unsigned bit;     /* FLIP: 0..7 */
};

/* The device that `dev` was opened over stays the caller's. */
MUST_CHECK int fault_open(struct bdev *below, struct bdev **out);

/* Rules are tried in the order of their coming; the first that acts decides,
 * but for FLIP, which lets the others act as well. Returns a number for
 * fault_hits. */
unsigned fault_add(struct bdev *dev, const struct fault_rule *rule);
/* How often rule number `rule` has acted. */
uint64_t fault_hits(struct bdev *dev, unsigned rule);
/* Forget all rules; the counters stay. */
void fault_clear(struct bdev *dev);

/* Short forms. The n-th operation from now on (1: the next) fails, once: */
unsigned fault_nth(struct bdev *dev, enum fault_op op, unsigned n, int err);
/* ... the n-th and all that come after it: */
unsigned fault_from(struct bdev *dev, enum fault_op op, unsigned n, int err);
/* ... everything that touches a range (a bad spot): */
unsigned fault_range(struct bdev *dev, enum fault_op op, uint64_t off,
		     uint64_t len, int err);

/* Operations so far, those that failed included. */
uint64_t fault_count(struct bdev *dev, enum fault_op op);

/* Bytes that bdev_ahead was called for. */
uint64_t fault_ahead_bytes(struct bdev *dev);

/* Damage for good: flip one bit of what lies on any device. */
void flip_bit(struct bdev *dev, uint64_t off, unsigned bit);

/* ---- a device over another that stays as it is ---- */

/* Reads come from `below` except where something was written since. Cheap:
 * holds only what was written. */
MUST_CHECK int overlay_open(struct bdev *below, struct bdev **out);

/* Copy all of one device to another of at least its size; zeros are skipped
 * (`to` must read as zeros there). */
MUST_CHECK int dev_copy(struct bdev *to, struct bdev *from);

/* ---- a device that records what is written, and power cuts ---- */

/* A durable write is a LOG_WRITE and then a LOG_FLUSH of only its range. */
enum log_kind { LOG_WRITE, LOG_FLUSH, LOG_DISCARD };

struct log_entry {
	enum log_kind kind;
	uint64_t off, len; /* bytes; LOG_FLUSH of everything: 0 */
	uint8_t *data;     /* LOG_WRITE */
};

/*
 * A write is recorded when the device below has done it, before it returns; a
 * flush where it begins. So the writes in front of a flush in the log are
 * those that it makes durable. Failed operations are not recorded (a failed
 * flush promises nothing, a failed write may have done anything: put the fault
 * device below if that is wanted, or above to see only what gets through).
 */
MUST_CHECK int log_open(struct bdev *below, struct bdev **out);
size_t log_count(struct bdev *log);
/* Valid until log is closed, unless it is reset. */
const struct log_entry *log_get(struct bdev *log, size_t i);
/* Forget what was recorded. */
void log_reset(struct bdev *log);

/* Which of the entries that no flush covers reach the disk. */
enum pick_how {
	PICK_NONE,
	PICK_ALL,
	PICK_ONLY, /* the one at `which` alone */
	PICK_BUT,  /* all but the one at `which` */
	PICK_MASK, /* the i-th after the last flush if bit i % 64 of mask */
	PICK_SEED, /* each with probability 1/2, by `seed` */
};

struct pick {
	enum pick_how how;
	size_t which; /* index into the log */
	uint64_t mask, seed;
	/* This write, if it is picked, is torn: of its sectors of 512 bytes
	 * only the first `sectors` arrive; SIZE_MAX: none is torn. */
	size_t torn;
	uint64_t sectors;
	/* Not 0: each sector of the torn write arrives with probability 1/2
	 * instead, by this seed (a disk may write them in any order). */
	uint64_t torn_seed;
};
#define PICK(how_) ((struct pick){ .how = (how_), .torn = SIZE_MAX })

/*
 * States after a power cut. `base` is the device as it was when the log began
 * (a copy of it: replay writes to it). Cuts must be asked for in ascending
 * order: what was flushed before a cut is written to base for good.
 */
struct replay {
	struct bdev *log, *base;
	size_t done; /* entries before this one are in base */
};

void replay_init(struct replay *r, struct bdev *log, struct bdev *base);

/* The cut comes when entries [0, cut) have happened. Moves base on to the last
 * flush of everything among them; *sure: the first entry that is not certain to
 * be there, so that [*sure, cut) are for the pick, but for durable writes: these
 * are there whole, whatever the pick says. */
MUST_CHECK int replay_cut(struct replay *r, size_t cut, size_t *sure);

/* A device in the state after the cut that replay_cut was called for last; it
 * may be written (over `base`, which stays). The caller closes it before the
 * next replay_cut. */
MUST_CHECK int replay_state(struct replay *r, size_t cut,
			    const struct pick *pick, struct bdev **out);

/* Apply one entry, or the sectors of it that `pick` leaves (NULL: all). */
MUST_CHECK int log_apply(const struct log_entry *e, size_t index,
			 const struct pick *pick, struct bdev *to);

#endif
