/*
 * check.h - layer 7: walking all that a superblock names; fsck and scrub
 *
 * Every tree is walked from the root pointers of one superblock: each node and
 * each data block once, however many snapshots share it; references counted on
 * the way. Memory: 6 bytes per block in use (blockmap.c; less where many blocks
 * are alike, at the very worst ten times the bytes of the pointers to them), and
 * 24 to 32 bytes per inode and per entry while a file tree is checked as a
 * whole. An image with pointers to so many places far from each other that the
 * map of these takes more than a quarter of the machine's memory (1 GiB at
 * least) is refused: -ENOMEM.
 */
#ifndef COW_CHECK_H
#define COW_CHECK_H

#include "txn/txn.h"

/* Everything that check can find wrong: problem.c has a table with the text,
 * one line each, in this order. Values are stable: tests and scripts know them. */
enum problem {
	P_SUPER_BAD, P_SUPER_STALE,
	P_NODE_UNREADABLE, P_NODE_COPY, P_NODE_CORRUPT,
	P_DATA_UNREADABLE, P_DATA_COPY,
	P_OVERLAP, P_OUT_OF_DEVICE,
	P_REF_WRONG, P_REF_BAD, P_SPACE_USED, P_SPACE_FREE, P_SPACE_BAD,
	P_FREE_COUNT,
	P_SNAP_BAD, P_SNAP_NAME, P_DROP_BAD, P_SHARED_GEN,
	P_INODE_BAD, P_INODE_NUMBER, P_INODE_NLINK, P_INODE_SIZE,
	P_INODE_BLOCKS, P_INODE_UNLINKED, P_INODE_PARENT, P_INODE_MISSING,
	P_DIRENT_BAD, P_DIRENT_HASH, P_DIRENT_DANGLING, P_DIRENT_TYPE,
	P_DIR_LOOP, P_DIR_LINKED_TWICE, P_ROOT_MISSING,
	P_EXTENT_BAD, P_EXTENT_OVERLAP, P_EXTENT_BEYOND, P_INLINE_BAD,
	P_XATTR_BAD, P_ORPHAN_BAD, P_ITEM_UNKNOWN,
	P_COPY_BAD, P_COPY_STRAY, P_COPY_COUNT,
	P_LOG_DAMAGED, P_LOG_BAD, P_COMMIT_UNREAD,
	P_COUNT
};

const char *problem_name(enum problem p); /* "node-unreadable" */
const char *problem_text(enum problem p); /* "a node has no good copy" */

/* Something that has a checksum and a copy that does not match it. */
struct check_bad {
	bool node;          /* else one block of data */
	bool lost;          /* no copy is good */
	unsigned copies, repaired; /* bad ones, and of these, mended */
	uint64_t blk, blk2, blocks;
	uint64_t gen;       /* of the state that is checked */
	uint8_t root, level; /* node: kind of tree (enum cowfs_root) */
	struct key lo, hi;   /* node: the keys it may have */
	bool has_hi;
};

struct check_options {
	bool data;   /* read and verify file data, too (else metadata only) */
	bool mend;   /* rewrite bad copies from good ones (scrub) */
	bool semantics; /* inodes, entries, extents, counts (fsck); scrub: no */
	bool all_snapshots; /* look at each snapshot as a whole, however many
			       nodes that means to read again */
	uint64_t map_bytes; /* limit of its scattered part; 0: as said above */
	/* called for each problem found; where: human-readable, one line */
	void (*found)(void *arg, enum problem p, const char *where);
	/* called now and then: blocks done, blocks in use. Non-zero: cancel. */
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	/* called for each thing with a bad copy; NULL: not wanted */
	void (*bad)(void *arg, const struct check_bad *b);
	/* called after each read, no lock or grace section held; may wait. True:
	 * cancel */
	bool (*pace)(void *arg, uint64_t bytes);
	/* called for each node met for the first time; NULL: not wanted */
	void (*node)(void *arg, const struct nptr *p, unsigned blocks);
	void *arg;
};

struct check_result {
	uint64_t blocks;     /* distinct blocks in use that were checked; a
				second copy is part of its block */
	uint64_t checksums;  /* blocks whose checksum was verified */
	uint64_t nodes, data_blocks, prealloc_blocks;
	uint64_t problems;
	uint64_t bad_copies; /* copies that did not match */
	uint64_t repaired;   /* of these, rewritten */
	uint64_t lost;       /* blocks without any good copy */
	uint64_t extra_copies; /* blocks of which the copies tree has a copy;
				  it is part of its block, too */
	uint64_t snapshots, inodes, dirs; /* inodes, dirs: of the live tree */
	uint64_t light_snapshots; /* of these, only what they alone have was
				     looked at, item by item */
	bool cancelled;
	bool partial; /* what hangs on some node could not be looked at */
};

/*
 * Check the state that the store's newest durable superblock names. Offline
 * (read-only store) it has all the time; on a live store with semantics off
 * (scrub) it holds back reuse of freed blocks (alloc_hold) and starts again if
 * that is broken. With data and mend, stale sides of a mirror are complete
 * after it (store_resynced). 0 even if there are problems; negative if it could
 * not be done: -ENOMEM, -EAGAIN (space was so short that what was being checked was
 * overwritten, again and again), -ECANCELED (*out is what there was by then).
 */
MUST_CHECK int check_run(struct store *s, const struct check_options *opt,
			 struct check_result *out);

/* The same of a device that nobody uses, by its newest superblock, without
 * opening a store (which damage may prevent); mends nothing. Errors of
 * super_scan, too. */
MUST_CHECK int check_device(struct bdev *dev, const struct check_options *opt,
			    struct check_result *out);

/* ---- log.c: what a mount will do first, tried without writing ---- */

/*
 * What opening the device by the superblock that `of` has will give up and replay.
 * told: a line each, of what is no problem. -ENOMEM.
 */
struct check_first {
	void (*found)(void *arg, enum problem p, const char *where);
	void (*told)(void *arg, const char *line);
	void *arg;
	uint64_t problems; /* out */
};
MUST_CHECK int check_first(struct bdev *dev, struct store *of,
			   struct check_first *f);

/* ---- info.c, cowfs.c: what the control verbs tell, for tools and daemon ---- */

struct cowfs_ioc_hist;
struct cowfs_ioc_info;
struct cowfs_ioc_scrub;
struct cowfs_ioc_stats;
/* All but pid. */
MUST_CHECK int check_info(struct store *s, struct cowfs_ioc_info *out);
/* All but scrub_* and since_ns. */
MUST_CHECK int check_stats(struct store *s, struct cowfs_ioc_stats *out);
/* The first histogram from *at on that is not empty, and *at moves past it;
 * false: there is none. */
bool check_hist_next(struct store *s, uint64_t *at,
		     struct cowfs_ioc_hist *out);
/* The fields that check_result has. */
void check_to_ioc(const struct check_result *res, struct cowfs_ioc_scrub *out);

/* ---- settings.c ---- */

struct cowfs_ioc_setting;
/* As ioctl.h has them; what is there of a name is terminated. -ENOENT, -EINVAL,
 * -ERANGE. */
MUST_CHECK int check_get_setting(struct store *s, struct cowfs_ioc_setting *io);
MUST_CHECK int check_set_setting(struct store *s,
				 const struct cowfs_ioc_setting *io);

/* ---- scrub.c: verify all that is in use, and mend it (scrub.h) ---- */

struct scrub;
struct cowfs_ioc_report;

/* Reads what the disk says of the last one. -ECOW_CORRUPT and the like are
 * reported there, and taken as "never": only -ENOMEM. */
MUST_CHECK int scrub_new(struct store *s, struct scrub **out);
/* Stops one that runs, so that it can be resumed, and waits for that: no longer
 * than one read. NULL is fine. */
void scrub_free(struct scrub *sc);

/* In the background: anew, or (resume) from where it was. rate: bytes per second
 * at most; 0: no limit, but it gives way to others. -EBUSY: one is running;
 * -ENOENT: nothing to resume; -ENOMEM, -EAGAIN. */
MUST_CHECK int scrub_start(struct scrub *sc, bool resume, uint64_t rate);
/* The same, in this thread, to its end: progress is called now and then and may
 * call the functions below; non-zero: cancel. */
MUST_CHECK int scrub_here(struct scrub *sc, bool resume, uint64_t rate,
			  int (*progress)(void *arg), void *arg);
/* Any thread; they don't wait for it to happen. -ESRCH: none is running (none
 * that could be resumed, either). */
MUST_CHECK int scrub_pause(struct scrub *sc);
MUST_CHECK int scrub_cancel(struct scrub *sc);
/* The side is no more: a scrub that was to fill it is cancelled. */
void scrub_unfill(struct scrub *sc, unsigned side);
MUST_CHECK int scrub_set_rate(struct scrub *sc, uint64_t rate);

void scrub_status(struct scrub *sc, struct cowfs_ioc_scrub *out);
/* A page of the report from page->from on. */
void scrub_report(struct scrub *sc, struct cowfs_ioc_report *page);
/* For tests: memory for data at a time, to have many stretches, and how often
 * progress is noted at most. No thread runs. */
void scrub_set_window(struct scrub *sc, uint64_t bytes, unsigned note_ms);

#endif
