/*
 * block.h - layer 1: checked reads and writes of blocks on a device
 *
 *   B1  A read returns bytes that match the checksum its caller brought, or an
 *       error; never other bytes.
 *   B2  When a copy does not match (or cannot be read) and another does, the
 *       good one is returned, the bad one rewritten (unless read-only), both
 *       counted, and the event logged (rate-limited). On a mirror each address
 *       has a copy on each side. Those of a STALE side are the last to be
 *       tried, and that they are bad is no event.
 *   B3  Nothing here decides where blocks lie; addresses come from above and
 *       are checked against the size of the device before use.
 *   B4  While it is `unsettled`, what was read may be in the memory of the
 *       system below only: the first write is preceded by a flush. So whatever
 *       is written, the state that was found stays.
 *
 * Everything may be called from many threads; no locks are held during I/O,
 * but for the rare rewriting of a bad copy, of which there is one at a time.
 */
#ifndef COW_BLOCK_H
#define COW_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cowfs/bdev.h"
#include "util/util.h"

struct block_stats {
	_Atomic uint64_t reads, read_bytes;
	_Atomic uint64_t writes, write_bytes;
	_Atomic uint64_t flushes;
	_Atomic uint64_t csum_errors; /* copies that did not match */
	_Atomic uint64_t io_errors;   /* copies the device could not read */
	_Atomic uint64_t repaired;    /* copies rewritten from a good one */
	_Atomic uint64_t resynced;    /* blocks rewritten on a stale side */
	_Atomic uint64_t unrepairable; /* reads without any good copy */
};

struct blockio {
	struct bdev *dev;     /* owned by whoever opened it */
	uint64_t blocks;      /* blocks of the filesystem */
	bool repair;          /* bad copies may be rewritten */
	bool quiet;           /* log nothing: the caller tells all; - */
	bool salvage;         /* a node whose copies are said to lie in one
				 place is read there: it is to be moved; - */
	struct mutex mend_lock; /* a leaf; needs no fini */
	uint64_t (*find)(void *arg, uint64_t blk); /* block_set_finder */
	void *find_arg;
	struct log_limit limit;
	struct block_stats stats;
	_Atomic(struct stage *) stage; /* NULL: nothing is staged */
	struct stage *unstaged; /* was; readers may still look at it */
	_Atomic bool unsettled; /* B4: flush before the first write */
};

void block_init(struct blockio *io, struct bdev *dev, uint64_t blocks,
		bool repair);
/* What `of` reads, what it has staged included, but repaired, logged and counted
 * by nobody. It owns nothing: it is for as long as nothing happens to what is
 * staged, and there is no block_fini of it. */
void block_init_unheard(struct blockio *io, const struct blockio *of);

/*
 * Where else may data lie of which the only copy given is bad? find: asked by
 * block_read_data, holding nothing, for one block; returns the place of another
 * copy, or 0. What it returns is checked as any other copy. To be set before
 * other threads read.
 */
void block_set_finder(struct blockio *io,
		      uint64_t (*find)(void *arg, uint64_t blk), void *arg);

/* Two addresses of the same bytes; b = 0: there is only a. Block numbers. Each
 * is one place on each side of the device. */
struct copies { uint64_t a, b; };

/*
 * Read n blocks whose one checksum over all of them is csum (a node).
 * buf: n * 4096 bytes, page-aligned if possible.
 * -ECOW_CSUM (wrong on every copy), -EIO (a copy could not be read and none is
 * right), -ECOW_CORRUPT (address 0, outside the device, or copies overlap).
 */
MUST_CHECK int block_read_node(struct blockio *io, struct copies at, size_t n,
			       uint32_t csum, void *buf);

/*
 * Read n blocks of file data, one checksum each. Tries one large read first;
 * only the blocks that fail are read from the other copy. Errors as above; buf
 * is then undefined.
 */
MUST_CHECK int block_read_data(struct blockio *io, struct copies at, size_t n,
			       const uint32_t *csum, void *buf);

/*
 * The same, if nobody has to wait for storage, and the first copy is right.
 * -EAGAIN: somebody would have to wait (what is wanted may be on its way then);
 * any other error: block_read_data knows more.
 */
MUST_CHECK int block_read_now(struct blockio *io, struct copies at, size_t n,
			      const uint32_t *csum, void *buf);

/* Hint: n blocks from blk on will be read soon (as first copies). */
void block_ahead(struct blockio *io, uint64_t blk, uint64_t n);
/* The same; once, and then not again. */
void block_fetch(struct blockio *io, uint64_t blk, uint64_t n);

/*
 * Check all copies of each block against its checksum (scrub). mend: rewrite
 * a bad copy from a good one. Adds the copies found bad to *bad, those repaired
 * to *repaired, and sets bit i of lost[] (if not NULL; (n+7)/8 bytes) for each
 * block without a good copy. buf: n blocks of scratch, holds the good data
 * afterwards. whole: csum[0] is the one checksum over all n blocks (a node).
 * A STALE side is looked at for what is good nowhere else, and with mend always:
 * then it is brought up to date; what was bad there is counted in stats.resynced
 * only.
 * Returns 0 even if copies were bad; negative only for an impossible address.
 */
MUST_CHECK int block_scrub(struct blockio *io, struct copies at, size_t n,
			   const uint32_t *csum, bool whole, bool mend,
			   void *buf, unsigned *bad, unsigned *repaired,
			   uint8_t *lost);

/* Write n blocks to one place. Errors are the device's. */
MUST_CHECK int block_write(struct blockio *io, uint64_t blk, size_t n,
			   const void *buf);
MUST_CHECK int block_writev(struct blockio *io, uint64_t blk,
			    struct iovec *iov, int cnt);
/* What differs between sides, n blocks to one place on each (bdev.h). */
MUST_CHECK int block_write_each(struct blockio *io, uint64_t blk, size_t n,
				const void *const buf[BDEV_SIDES]);
MUST_CHECK int block_flush(struct blockio *io);
/* Durable when it returns; says nothing about writes before it. */
MUST_CHECK int block_write_durable(struct blockio *io, uint64_t blk, size_t n,
				   const void *buf);
/* Hint: such writes are to come there. -ENOSPC: there is no room. */
MUST_CHECK int block_prepare(struct blockio *io, uint64_t blk, size_t n);

/* B4: flush if that has not happened. */
MUST_CHECK int block_settle(struct blockio *io);

/* ---- stage.c ---- */

/*
 * What a block is to contain, though the device does not have it yet: reads
 * return the 4096 bytes of buf until block_unstage has written it. buf stays as
 * it is until block_fini: in memory of block_stage_room, say. For recovery, which
 * must not write before it knows all. One thread, before there are others; reads
 * may come from many afterwards, and while it is written. Until block_unstage
 * nobody else writes there. -ENOMEM.
 */
MUST_CHECK int block_stage(struct blockio *io, uint64_t blk, const void *buf);
/* Memory that goes with what is staged; NULL: there is none. */
void *block_stage_room(struct blockio *io, size_t size);
/* Write all that is staged, and return it no more; *blocks: how many. After an
 * error all is staged as before. One thread; others may read meanwhile. */
MUST_CHECK int block_unstage(struct blockio *io, uint64_t *blocks);
/* What is staged now; NULL: nothing. Whoever reads asks before he does: what is
 * not staged then is on the device. Good until block_fini. */
const struct stage *block_staged(const struct blockio *io);
/* Put what is staged over n blocks read from blk on. */
void block_staged_over(const struct stage *s, uint64_t blk, size_t n,
		       void *buf);
/* Is there nothing among n blocks for which the device is needed? */
bool block_all_staged(const struct stage *s, uint64_t blk, size_t n);
/* Forget what is staged; nobody reads. */
void block_fini(struct blockio *io);

#endif
