/*
 * log.h - what fsync made durable since the last commit
 *
 * A commit writes whole paths of several trees, twice; to make one small change
 * durable that is a lot. So fsync appends to the log instead: the items of the
 * file tree that changed since the last append or commit, as they are now, in
 * one write and one flush together with the file data; or, where these are few,
 * with the data inside and nothing else made durable: the device then has one
 * run of bytes to write, in a place that it has written before, and the data get
 * to their own places with whatever is written next. (The idea of an intent
 * log: ZFS's ZIL, btrfs's tree log; but items, not operations: replaying needs
 * no knowledge of what files are.)
 *
 *   L1  The log's records, applied in order to the file tree that the newest
 *       durable superblock names, give a state that the filesystem was in: all
 *       operations up to the last append, and none after it.
 *   L2  Only the newest superblock's records count (base); closing a generation
 *       forgets what was noted, a durable commit begins the log anew.
 *   L3  Blocks that a record names stay as they are until the next commit is
 *       durable: from the first append on, nothing that is freed in the
 *       generation is reused in it (alloc_logged).
 *   L4  A record is believed if its checksum is right; of the last one those of
 *       the data blocks that nobody owned before must be right, too (the others
 *       were durable before the next was written), unless it carries them. The
 *       first that is not believed ends the log.
 *   L5  The first record is written when the superblock that it is based on is
 *       durable: it proves that.
 *   L6  A block that the record names, written in the running generation, is
 *       carried by it or by one before it, or is durable when the append ends.
 *       (Blocks of earlier generations were durable with these.) What a record
 *       names and no flush has covered may be lost in its place: replaying
 *       puts it there, and only then is a superblock written.
 *
 * What does not fit (more items than NOTES_MAX, a record longer than the space
 * left, snapshots) takes a commit, which is always right.
 */
#ifndef COW_TXN_LOG_H
#define COW_TXN_LOG_H

#include "txn/txn.h"

struct log;

/* For a store that may be written; knows its area from s->super. The log can do
 * without memory: it takes commits then. */
MUST_CHECK int log_new(struct store *s, struct log **out);
void log_free(struct log *log); /* NULL is fine */

/* T exclusive: an item of the file tree changed (forest_set_note). */
void log_note(void *arg, const struct key *k);
/* T exclusive, when a generation is closed. */
void log_forget(struct log *log);
/* C: the commit is durable, the log begins anew. */
void log_restart(struct log *log);

/* C: write what was noted. *ops: value of the operation counter that it covers.
 * -EFBIG: it takes a commit. Errors of the device: nobody knows what is in the
 * log now, the store must stop. */
MUST_CHECK int log_append(struct log *log, uint64_t *ops);

struct log_stats { uint64_t appends, bytes; };
void log_stats(const struct log *log, struct log_stats *out);

/* replay.c, while opening, no threads: apply the records to s->fs. Reads only;
 * what it changed is in memory. *records: how many. */
MUST_CHECK int log_replay(struct store *s, uint64_t *records);

/* Is there a record that is based on s->super (L5)? -ENOMEM. */
MUST_CHECK int log_begun(struct store *s, bool *begun);

/* Of a mirror: how many records at the end of the log each side lacks that is
 * GOOD, or in `also`; *records: how many there are. -ENOMEM. */
MUST_CHECK int log_missing(struct store *s, unsigned also,
			   uint64_t missing[BDEV_SIDES], uint64_t *records);

/* Repair, before that: nothing is allocated where the records' data lies. */
MUST_CHECK int log_spare(struct store *s);

/* Blocks for the log of a filesystem of that size, and where. */
uint64_t log_size_for(uint64_t blocks);
#define LOG_FIRST_BLOCK 32u

/* No record is longer. */
#define LOG_RECORD_MAX (UINT32_C(256) << 10)
/* More data than that are better written once, and flushed. */
#define LOG_CARRY_MAX 16u /* blocks */
/* The area is made ready in pieces of so many blocks, when they are reached. */
#define LOG_READY_STEP 256u

#endif
