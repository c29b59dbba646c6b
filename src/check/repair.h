/*
 * repair.h - fsck that repairs
 *
 * A repair is a few passes of check over states that lie on the device but that
 * no superblock names. Where check finds something wrong it notes, beside the
 * problem, what would put it right (fix); after the pass the notes are carried
 * out on the trees, and the next pass sees what that has led to: a leaf cut out
 * leaves entries without inodes, these go, their directory's size is wrong ...
 * When a pass notes nothing more, both maps are made anew from what it counted,
 * and all is checked once more. Only then a superblock is written.
 *
 *   M1  Nothing is written where the superblock repaired, its predecessor, or
 *       the space records say that something lies; but for bad copies, which
 *       are rewritten from good ones.
 *   M2  A state that does not check clean is not committed (data without any
 *       good copy excepted: reads of it give EIO).
 *   M3  Removed is what cannot be read or is impossible, and what means nothing
 *       without that. What was removed is said.
 *
 * Memory: two checks' (check.h) of blocks, notes (56 bytes each, FIXES_MAX at a
 * time), and the nodes that change.
 */
#ifndef COW_CHECK_REPAIR_H
#define COW_CHECK_REPAIR_H

#include "check/check.h"

struct repair_options {
	bool all;      /* mend what loses something, too (fsck -y) */
	bool data;     /* read and verify file data */
	bool punch;    /* data blocks without a good copy become holes */
	uint64_t gen;  /* of the superblock to start from; 0: the newest */
	/* problems, as check_options has it */
	void (*found)(void *arg, enum problem p, const char *where);
	/* something was mended or lost: one line */
	void (*told)(void *arg, const char *line);
	/* after the first pass, before anything is changed: go on? NULL: yes */
	bool (*ask)(void *arg, uint64_t problems, bool loses);
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct repair_result {
	struct check_result check; /* as it was found */
	bool committed;      /* a repaired state was written */
	bool mended;         /* copies or superblock slots were rewritten */
	bool needs_all;      /* not done: it takes options.all */
	uint64_t left;       /* problems that remain */
	unsigned passes;
	uint64_t fixes;
};

/* Of a device that nobody uses. 0: done as far as *out says. -ECANCELED,
 * -ENOSPC, -EROFS, -ENOMEM, errors of super_scan: nothing was committed. */
MUST_CHECK int repair_run(struct bdev *dev, const struct repair_options *opt,
			  struct repair_result *out);

/* Back to the state before the repair. -ENOENT: the newest superblock is not
 * that of a repair; -EBUSY: blocks of that state were overwritten. */
MUST_CHECK int repair_undo(struct bdev *dev);

/* ---- notes ---- */

enum fix_kind {
	FIX_CUT,      /* the node at level arg on the way to key, block arg2 */
	FIX_CUT_END,  /* follows each CUT: keys below this one were its */
	FIX_MOVE,     /* the node: have it elsewhere */
	FIX_DEL,      /* the item */
	FIX_DEL_NAME, /* the same; it names what does not exist */
	FIX_DEL_TYPE, /* all items of the inode of that type */
	FIX_DEL_ALL,  /* all items of the inode */
	FIX_DEL_VALUE, /* an xattr and the pieces of value arg */
	FIX_NLINK, FIX_SIZE, FIX_BLOCKS, FIX_PARENT, /* inode: set to arg */
	FIX_MODE,     /* the same */
	FIX_INLINE,   /* inode: set (arg 1) or clear the flag */
	FIX_INODE,    /* make an impossible inode possible */
	FIX_MAKE,     /* an inode: mode arg, size arg2; arg3: inline */
	FIX_TYPE,     /* of an entry: arg */
	FIX_REHASH,   /* an entry that lies at the wrong place */
	FIX_ORPHAN,   /* list inode arg as one */
	FIX_ADOPT,    /* inode without a name: into lost+found; arg: type */
	FIX_LOST,     /* a block of data has no good copy; key.off: which, arg:
			 where it lies */
	FIX_PUNCH,    /* an extent that has such blocks */
	FIX_AGE,      /* an extent: no younger than generation arg */
	FIX_SNAP_NAME, /* a name for snapshot key.obj */
	FIX_SNAP,     /* its record: no younger than generation arg, and made
			 at a possible time */
	FIX_DROP,     /* a record of a tree to be let go of: the walk counted
			 what it has, it can be forgotten */
	FIX_KINDS
};

/* Trees by number: 0 the live files, or a snapshot's id. */
#define TREE_LIVE UINT64_C(0)
#define TREE_SNAPS UINT64_MAX
#define TREE_OTHER (UINT64_MAX - 1) /* not mended but made anew, or dropped */

struct fix {
	uint64_t tree;
	struct key key;
	uint64_t arg, arg2;
	uint8_t kind, arg3;
};

#define FIXES_MAX (1u << 20)

struct imap;

struct fixes {
	struct fix *at;
	size_t n, room;
	bool overflow;   /* there were more */
	bool nomem;
	bool shared_gen; /* everything may be shared */
	bool no_log;     /* where it lies something else does */
	uint64_t next_ino, next_snap;
	/* snapshots that a pass found good as a whole, by id: what their
	 * roots say. Until that changes so is what they hold, and later passes
	 * need not read them again as a whole. May be NULL. */
	struct imap *good;
	const uint64_t *lost; /* blocks without a good copy, sorted */
	size_t lost_n;
};

#endif
