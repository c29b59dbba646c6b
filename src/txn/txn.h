/*
 * txn.h - layer 4: operations, the running transaction, commit
 *
 * struct store is a whole filesystem below its files: device, allocator, trees
 * and the superblock. There is one running transaction at any time, and at most
 * one more that is being written.
 *
 *   X1  The superblock write is the only commit point (format.h: slots). What
 *       fsync promises before the next one lies in the log (log.h).
 *   X2  No superblock slot of the two newest generations is ever overwritten by
 *       the next commit.
 *   X3  Nothing named by the two newest superblocks is written (alloc.h A2).
 *   X4  An operation that fails has changed nothing. If an error strikes when
 *       it has (no memory, a corrupt node), the transaction can't be kept: the
 *       store *stops*: no commit ever again, writes give -EROFS, reads go on.
 *   X5  Committing keeps operations out only while trees are closed in memory
 *       (no I/O); reading, and the next transaction, go on while it is written.
 *
 * Lock order, outermost first:
 *
 *   I  fs inode locks (fs layer), by inode number
 *   C  store->commit_lock   one commit at a time
 *   T  the tree lock        shared: read trees; exclusive: change them
 *   W  store->wait_lock     generations, for those who wait for a commit
 *   -  allocator, cache and grace locks (leaves)
 *
 * A thread that holds T does no I/O and waits for nothing.
 */
#ifndef COW_TXN_H
#define COW_TXN_H

#include <stdbool.h>
#include <stdint.h>

#include "alloc/alloc.h"
#include "block/block.h"
#include "btree/btree.h"
#include "cowfs/hist.h"

/* ---- super.c, super_scan.c: the superblock and its slots ---- */

/* A superblock in memory: verified, bounds known good. */
struct super {
	struct cowfs_disk_super d;
	uint64_t gen, total_blocks;
	uint32_t node_size;
};

/* Bytes that change nothing on the device until written. */
void super_seal(struct cowfs_disk_super *d); /* fill in slot and csum */
/* Field by field; why: at least 128 bytes. dev_blocks: blocks of the device.
 * -EINVAL not a superblock, -ECOW_CSUM, -ECOW_CORRUPT, -ENOTSUP (feature or
 * version nobody here knows; *ro is set where read-only would do). */
MUST_CHECK int super_verify(const struct cowfs_disk_super *d,
			    uint64_t dev_blocks, bool *ro, char *why,
			    size_t why_len);
/* Could the root of one of its trees be this one? */
bool super_may_name(const struct cowfs_disk_super *d, const struct nptr *root);
/* Nothing was ever written there, or it was emptied (format.h). */
bool super_empty(const struct cowfs_disk_super *d);
/* Near slot or far slot of a generation, as a block number. */
uint64_t super_slot_block(uint64_t total_blocks, unsigned slot, bool far);

/*
 * Copies of superblocks on one side that are gone, and by no crash: they are
 * empty while the other copy of their slot is not. A mask, bit 2 * slot + far.
 * newest: by which all was opened. Of what was not closed in order the slots of
 * the newest and of the next one may be half written, and so may one that was
 * passed over, so that one alone says nothing there. (What opening empties is not
 * taken for lost: super_mend leaves the rest of the block.)
 */
unsigned super_lost_copies(struct bdev *dev, unsigned side,
			   const struct cowfs_disk_super *newest);
/* Was it closed in order when `newest` was written, and nobody has begun to write
 * another since? Then no copy has an excuse. */
bool super_at_rest(struct bdev *dev, const struct cowfs_disk_super *newest);
/* On any side that is GOOD, so that what was newer may have been wiped as well: a
 * log, if newest was not closed in order, or a superblock. */
bool super_in_doubt(struct bdev *dev, const struct cowfs_disk_super *newest);

struct super_scan {
	struct super found[COWFS_SUPER_SLOTS]; /* newest first, one per slot, of
						  its copies a proven one */
	unsigned count;
	unsigned bad; /* slots (near and far) that were unreadable or wrong
			 though written once */
	uint64_t max_gen; /* highest generation seen, for numbering on */
	uint64_t newest[BDEV_SIDES]; /* of a mirror: generation of each side's
					newest; 0: it is missing or stale */
	unsigned kept; /* mask of stale sides that have the newest one */
	uint64_t stale_gen[BDEV_SIDES]; /* of sides that are not good: as the
					   other one says, if that holds; else
					   the newest that this side may have */
	unsigned unread; /* mask of slots of which no copy can be read now (or
			    none on a side that may have gone on alone): what
			    they hold may be newer than all that was found */
	bool ro_only;
	/* the newest that has the right checksum, and says what cannot be: its
	 * generation, as far as that can be believed, 0: there is none */
	uint64_t odd_gen;
	char odd_why[128];
};
/* Read all slots. 0 with count >= 1, or -EINVAL (no cowfs here), -ENOTSUP,
 * -ECOW_CSUM (only damaged ones), -EIO; reported. Of a mirror: decides which
 * sides are GOOD, and reads from these (sides.c). -ENODEV: this is one side of
 * a mirror, alone; -ENOTUNIQ: both sides were changed without each other. */
MUST_CHECK int super_scan(struct bdev *dev, struct super_scan *out);
/* The newest superblock on a plain device, part of a mirror or not; says
 * nothing. -ENOENT: there is none that can be used. */
MUST_CHECK int super_newest(struct bdev *dev, struct super *out);
/*
 * Make all slots good once `newest` is durable: where one copy of a slot is
 * damaged or older the other replaces it; slots that are damaged in both, or
 * hold a generation from `passed` on other than newest's (they were not
 * believed), are emptied; a copy that cannot be read is replaced, but never
 * emptied. Flushes if it wrote.
 */
MUST_CHECK int super_mend(struct blockio *io,
			  const struct cowfs_disk_super *newest,
			  uint64_t passed);
/* Write to both slots of its generation, on each side (no flush). */
MUST_CHECK int super_write(struct blockio *io, const struct cowfs_disk_super *d);
/*
 * Both copies of a superblock are durable: write them once more, marked CLEAN.
 * So CLEAN says that no copy of this one was under way when the power went, and
 * fsck takes one that is older for damage. One copy after the other is flushed:
 * one of them is whole at any time.
 */
MUST_CHECK int super_mark_clean(struct blockio *io, struct cowfs_disk_super *d);

/*
 * Both copies of a superblock, and all that it names, are durable: if it is
 * UNVERIFIED write the near one once more without that; no flush: what does not
 * arrive is not missed. A side that fails at it is dropped.
 */
MUST_CHECK int super_mark_proven(struct blockio *io, struct cowfs_disk_super *d);
/* Does it say itself that all of its generation is there? */
bool super_proven(const struct cowfs_disk_super *d);
/* Does it show that all of that generation was there? */
bool super_goes_on_from(const struct cowfs_disk_super *d, uint64_t gen);

/* As it is to be written to a side, sealed. */
void super_for_side(const struct cowfs_disk_super *d, unsigned side,
		    struct cowfs_disk_super *out);

/* ---- store ---- */

enum store_flags {
	STORE_READONLY = 1,   /* writes nothing at all */
	STORE_NO_DROP = 2,    /* do not resume background drops */
	STORE_REPAIR = 4,     /* see store_repair_* */
	STORE_BARE = 8,       /* read-only: neither the space records nor the
				 log are looked at; for who needs just trees */
	STORE_LAZY = 32,      /* opening writes nothing; the first commit comes
				 soon after store_start, or with the first
				 that is asked for (store.c, 4) */
	STORE_QUIET = 16,     /* the caller tells what was found; errors are
				 reported all the same */
};

struct store_config {
	struct bdev *dev;   /* not owned */
	unsigned flags;
	size_t cache_bytes; /* 0: 64 MiB */
	unsigned commit_ms; /* period of the commit timer; 0: 5000 */
	uint64_t use_gen;   /* 0: the newest; else that superblock generation */
};

struct commit_stats {
	uint64_t commits, bytes, nodes;
	uint64_t ns_total, ns_max;         /* whole commits */
	uint64_t closed_ns_total, closed_ns_max; /* with operations kept out */
	uint64_t log_appends, log_bytes;   /* fsyncs that took no commit */
	uint64_t syncs;        /* calls of store_sync; of these ... */
	uint64_t sync_commits; /* ... some took a commit, ... */
	uint64_t sync_idle;    /* ... and some found nothing to do */
};

/* What store_hist tells. */
enum store_hist {
	HIST_COMMIT, /* ns: whole commits */
	HIST_CLOSED, /* ns: ... with operations kept out */
	HIST_SYNC,   /* ns: an append to the log, or the commit in its place */
	HIST_GROUP,  /* how many waited for one such */
	STORE_HISTS
};

struct store {
	struct bdev *dev;
	struct blockio io;
	struct grace grace;
	struct alloc *alloc;
	struct forest *forest;
	struct alloc_store refs_space; /* the maps as trees, for alloc */

	/* T; */
	struct tree fs, snap, space, refs, copies;
	uint64_t copied;               /* T  blocks that have an extra copy */
	struct cowfs_disk_super super; /* T  as it will be written next */
	bool changed;                  /* T  something to commit */

	/* the rest is private to src/txn */
	struct store_private *p;
};

/*
 * Open: pick the newest superblock that can be trusted (see
 * COWFS_STATE_UNVERIFIED), load the free-space record, and unless read-only
 * write a new superblock so that the state found is the predecessor, too.
 * Starts no thread.  -EINVAL, -ENOTSUP, -ECOW_*, -EIO, -EROFS; reported.
 */
MUST_CHECK int store_open(const struct store_config *cfg, struct store **out);
/* Start commit timer and background thread (after fork). */
MUST_CHECK int store_start(struct store *s);
/* Commit, mark clean (unless stopped or read-only), stop threads, free. The
 * first error of the last commit is returned; s is gone all the same. */
MUST_CHECK int store_close(struct store *s);
/* Free without writing anything (tests: as if killed). */
void store_abandon(struct store *s);

/* The newest generation of which opening found a superblock, if it went back to
 * an older one because something of it is missing; else 0. */
uint64_t store_passed(const struct store *s);
/* It may be there all the same: something of it cannot be read now. */
bool store_passed_unread(const struct store *s);
bool store_readonly(const struct store *s);
/* Stop writing for good (X4); err and why are logged. Any lock. */
void store_stop(struct store *s, int err, const char *why);
bool store_stopped(const struct store *s);

/*
 * Repair. A store opened with STORE_REPAIR believes nothing but a superblock:
 * no map is loaded, the log is not applied, nothing is written, and the
 * allocator counts no references (alloc_rebuild). The caller keeps what must
 * not be overwritten (alloc_keep), may have the log applied, changes trees,
 * looks at them through provisional superblocks, makes the maps anew (empty
 * trees, alloc_set_owned, store_repair_maps) and closes the store, which
 * commits all of it at once (X1), or abandons it. One thread.
 */
/* Hold the tree lock exclusively for as long as it takes; reading a node under
 * it (forest_load) is fine. To be let go of before store_close. */
void store_repair_begin(struct store *s);
void store_repair_end(struct store *s);
/* Apply the log of the superblock in use; *records as far as it went. Not
 * between begin and end. */
MUST_CHECK int store_repair_replay(struct store *s, uint64_t *records);
/* Write all nodes to free places; *out names them, and nothing does on the
 * device. */
MUST_CHECK int store_repair_write(struct store *s,
				  struct cowfs_disk_super *out);
/* The records of chunks whose owners changed go to the space tree. */
MUST_CHECK int store_repair_maps(struct store *s);

/* ---- operations ---- */

struct op {
	struct store *s;
	uint64_t changes; /* forest_changes at its beginning */
	unsigned ticket;  /* grace */
	bool write;
	enum alloc_class cls;
	unsigned leaves;
};

/*
 * Reading: takes the tree lock shared and a grace section.
 *
 *	op_read(&op, s);
 *	do
 *		err = lookup_locked(...);     returns -EAGAIN for a missing node
 *	while (op_again(&op, &err));
 *	return op_end(&op, err);
 */
void op_read(struct op *op, struct store *s);

/*
 * Writing: takes the tree lock exclusively, after making sure there is room to
 * change `nodes` leaves (each a path) for this class; commits and tries again
 * when that may help. On error no lock is held. -EROFS, -ENOSPC, -EIO (stopped
 * by an earlier error), -ENOMEM.
 */
MUST_CHECK int op_write(struct op *op, struct store *s, enum alloc_class cls,
			unsigned leaves);

/*
 * There is no space: do what may give some, more each time (tries: 0, 1, ...),
 * commits first, then waiting for background work. 0: try again. -ENOSPC: there
 * is none, -EIO. No lock but I. op_write does it by itself.
 */
MUST_CHECK int store_make_room(struct store *s, unsigned tries);

/* err == -EAGAIN: drop the lock, read the node, take the lock: true. Reading
 * failed, or the operation had already changed something (which stops the
 * store): *err is the error, false. Else false. */
bool op_again(struct op *op, int *err);

/* Drop the locks; err is handed through. An error though something was changed
 * stops the store (X4). */
int op_end(struct op *op, int err);

/* Grace section alone (data I/O between two operations). */
unsigned store_enter(struct store *s);
void store_leave(struct store *s, unsigned ticket);

/* ---- commit ---- */

/*
 * Work done inside a commit, with the exclusive tree lock held, after the file
 * tree has been sealed: its root pointer is final. May change other trees and
 * replace s->fs; must not fail after changing anything; -EAGAIN before that.
 */
typedef int commit_fn(struct store *s, void *arg);

/* Make everything done so far durable; waits. Commits already under way that
 * cover it are waited for, one commit serves all who wait (group commit).
 * Call with no lock. fn may be NULL. -EIO, -EROFS, -ENOSPC: fn's, which has done
 * nothing, or storage is full: it is made later (commit.c, C6). -EINPROGRESS: the
 * same, and fn has done its work, which will be durable then. */
MUST_CHECK int store_commit(struct store *s, commit_fn *fn, void *arg);
/* Make everything done so far durable, in whatever way is cheapest: through the
 * log (log.h), or by a commit. What fsync does. Waits; group commit as above.
 * Call with no lock (T, C). -EIO; -ENOSPC: storage is full. */
MUST_CHECK int store_sync(struct store *s);
/* Ask the background thread for a commit within ms milliseconds. Any lock. */
void store_kick(struct store *s, unsigned ms);
/* Generation of the running transaction; of the newest durable one. */
uint64_t store_running_gen(struct store *s);
uint64_t store_durable_gen(struct store *s);

void store_commit_stats(struct store *s, struct commit_stats *out);
void store_hist(struct store *s, enum store_hist which,
		struct cowfs_hist *out);

/* The newest durable superblock (for check and scrub). */
void store_durable_super(struct store *s, struct cowfs_disk_super *out);

/*
 * Background work: fn is called by the background thread, with no lock, again
 * and again while it returns > 0 (more to do), after store_wake. One fn for
 * each kind; set before store_start.
 */
enum store_work { WORK_DROP, WORK_ORPHAN, WORK_COPIES, WORK_KINDS };
typedef int store_work_fn(void *arg);
void store_set_work(struct store *s, enum store_work kind, store_work_fn *fn,
		    void *arg);
void store_wake(struct store *s, enum store_work kind);
/* The same in ms milliseconds, once; the last call counts. Nobody waits for
 * that: until then it is not work that is left. */
void store_wake_later(struct store *s, enum store_work kind, uint64_t ms);
/* Is work of this kind waiting or under way? */
bool store_works(struct store *s, enum store_work kind);
/* Wait until no background work is left (tests, tools; starts it if no thread
 * runs). */
MUST_CHECK int store_drain(struct store *s);

/* ---- mirrors (sides.c) ---- */

/* Is the storage still there (bdev_lost)? What is not is said, once, and a side of
 * a mirror dropped. The timer asks, too. Any lock but T. */
void store_look(struct store *s);
/* Has store_look found that it is not? */
bool store_gone(const struct store *s);
/* Sides that are stale and written, as a mask. */
unsigned store_stale_sides(struct store *s);
/* Since which generation has a stale side been written to, without anything
 * that it missed? 0: it is not stale, or not there. */
uint64_t store_side_since(struct store *s, unsigned side);
/* These sides, stale when a scrub began, have everything by now: it read all
 * that a superblock of this mount names, and mended what was bad there. They
 * count as complete when this returns 0, but for those that failed meanwhile and
 * were dropped. (Where storage is full the superblock will say so later.) -EIO,
 * -EROFS: nothing is written any more.
 * Call with no lock. */
MUST_CHECK int store_resynced(struct store *s, unsigned mask);
/*
 * The store's device can have sides, and one is missing (bdev.h): put dev there,
 * stale as it is, and emptied of what was found on it; the filesystem becomes a
 * mirror if it is none. Others may use the store. dev is the store's device's
 * in any case, or closed. -EINVAL: no place; -ENOSPC: dev is too small, or storage
 * is full; its own errors. Call with no lock (sides_change.c).
 */
MUST_CHECK int store_mirror_add(struct store *s, struct bdev *dev);
/* Take a side away, missing or not, and its superblocks with it: what is left is
 * a filesystem of its own. -EINVAL: it is; -EBUSY: what is left is not complete;
 * -EINPROGRESS: it is gone, but its superblocks are not, as storage is full.
 * Otherwise as above. */
MUST_CHECK int store_mirror_remove(struct store *s, unsigned side);
/*
 * How often a side has come. What was written before it came is not there, and a
 * scrub brings what is named by then: who writes data first and names them in an
 * operation asks before he writes, and again in the operation (T: it does not
 * change); if the answer is another one he has to write them again.
 */
unsigned store_sides_added(struct store *s);
/* Does the newest superblock say that it is a mirror? */
bool store_is_mirror(struct store *s);

/* Memory that lives as long as the store, and what frees it then. One for each
 * kind of work. */
void store_own(struct store *s, void *mem, void (*fini)(void *mem));

/* ---- copies.c: extra copies of data ---- */

/* [start, start + len) have copies from `at` on. */
struct copy_ival {
	uint64_t start, len, at;
};

/* R: the first such interval that ends behind blk; the last one that begins
 * before it. -ENOENT, -EAGAIN, -ECOW_CORRUPT. */
MUST_CHECK int copies_next(struct store *s, uint64_t blk,
			   struct copy_ival *out);
MUST_CHECK int copies_before(struct store *s, uint64_t blk,
			     struct copy_ival *out);
/* R: prepare for copies_add or copies_take of this. -EAGAIN. */
MUST_CHECK int copies_prepare(struct store *s, const struct copy_ival *iv);
/* W: blocks that have none have copies now (the caller owns the blocks of
 * these), or no copies any more (they are freed). Cannot give -EAGAIN once they
 * are prepared. take: of an interval as it was found. */
MUST_CHECK int copies_add(struct store *s, const struct copy_ival *iv);
MUST_CHECK int copies_take(struct store *s, const struct copy_ival *iv);

/* W: the tree has turned out to have no items: there are no copies, whatever
 * the superblock said. */
void copies_none(struct store *s);

/* Space is short when less than this part of the device is available. */
#define STORE_SHORT 32u

/* W: repair: a new, empty tree; nothing is freed. */
void copies_clear(struct store *s);

enum give_back { GIVE_NONE, GIVE_SOME, GIVE_ALL };
/* Is somebody out of space, and how much is to be given back for him
 * (WORK_COPIES, which is woken then)? It is taken note of. */
enum give_back store_give_back(struct store *s);
/* Blocks that have an extra copy; any lock. */
uint64_t store_copied(struct store *s);

/* ---- the log, as opening found it ---- */

struct log_found {
	bool tried;       /* it was looked at and applied, in memory at least */
	bool damaged;     /* there are more records behind one that is not
			     readable: what they held is lost */
	bool unread;      /* after the last one the device could not be read, or
			     data of one more, so there may be more */
	bool unfinished;  /* of the last one's data something is not there:
			     torn, or rotten; it does not count */
	uint64_t records; /* that were applied */
};
void store_log_found(const struct store *s, struct log_found *out);

/* ---- log_read.c: records of the log, as they lie on the device ---- */

struct record_entry {
	struct key key;
	struct item item; /* or the contents of a block; in the record */
	uint8_t kind;     /* enum cowfs_log_kind */
};

/* A part of the area as one side has it, read at once. */
struct log_window {
	uint8_t *buf;   /* LOG_RECORD_MAX */
	uint64_t at, n; /* blocks of the area */
};

struct log_reader {
	struct bdev *dev;
	const struct cowfs_disk_super *super;
	const uint8_t *rec; /* read last: struct cowfs_disk_log, entries */
	bool unread; /* none was read last, as the device could not be read */
	struct log_window window[BDEV_SIDES];
};

/* May there be records? */
bool log_counts(const struct cowfs_disk_super *super);
/* -ENOMEM; log_reader_fini is to be called all the same. */
MUST_CHECK int log_reader_init(struct log_reader *l, struct bdev *dev,
			       const struct cowfs_disk_super *super);
void log_reader_fini(struct log_reader *l);
/* The record number seq, at block `at` of the area, as l->rec; *blocks: its
 * length. -ENOENT: the log ends here. Its checksum is right, its entries may be
 * impossible. Of a mirror any GOOD side's will do: it vouches for itself. */
MUST_CHECK int log_read(struct log_reader *l, uint64_t at, uint64_t seq,
			uint64_t *blocks);
/* On which generation is the first record based, whatever it is; 0: there is none
 * that is readable. No generation since has a record. stale: of such sides, too.
 * Overwrites l->rec. */
uint64_t log_newest_base(struct log_reader *l, bool stale);
/* log_read said that the log ends at record seq, block `at`. Does a later record
 * of it follow, within 1 MiB? It was written when the ones before it were durable
 * (L4), so these are damaged, and what was fsynced from there on is lost. (Not so
 * if an older super is asked for, and the records of a newer one are written over
 * its own: they are in that.) Overwrites l->rec. */
bool log_goes_on(struct log_reader *l, uint64_t at, uint64_t seq);
/* The same of one side, whatever its state. */
MUST_CHECK int log_read_side(struct log_reader *l, unsigned side,
			     uint64_t at, uint64_t seq, uint64_t *blocks);
/* Entry at byte *at of a record that was read (the first: behind its head), which
 * moves on to the next. false: impossible. */
bool log_next_entry(const struct log_reader *l, const uint8_t *rec, size_t *at,
		    struct record_entry *e);

/* ---- mkfs ---- */

struct store_format {
	uint64_t blocks;
	uint32_t node_size;
	unsigned meta_copies, data_copies;
	uint8_t uuid[16];
	char label[COWFS_LABEL_MAX + 1];
};
/* Write empty trees and all superblock slots; nothing is read. A device of two
 * sides becomes a mirror. The file tree is empty: the fs layer makes the root
 * directory (fs_format). */
MUST_CHECK int store_format(struct bdev *dev, const struct store_format *f);

#endif
