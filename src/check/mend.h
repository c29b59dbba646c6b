/*
 * mend.h - what the files of a repair share: one repair under way
 *
 * All of it runs between store_repair_begin and store_repair_end, but for what
 * repair.c does before.
 */
#ifndef COW_CHECK_MEND_H
#define COW_CHECK_MEND_H

#include "check/private.h"
#include "snapshot/snapshot.h"

/* A snapshot's tree that was looked for; written back before each pass. */
struct snap_tree {
	uint64_t id;
	struct tree t;
};

/* Keys lo <= k < hi of a tree were lost. */
struct cut {
	uint64_t tree;
	struct key lo, hi;
};

struct repair {
	struct store *s;
	struct bdev *dev;
	const struct repair_options *opt;
	struct repair_result *res;
	struct check_options first; /* of the first pass */
	struct fixes fix;
	struct array snaps; /* struct snap_tree */
	struct array cuts;  /* struct cut */
	struct array lost;  /* uint64_t: data blocks without a good copy */
	uint64_t data_left; /* problems of data that the last pass met */
	bool replayed;      /* the log brought something */
	struct imap good;   /* fix.good */
	struct imap extra;  /* extra copies, as check has them */
	unsigned paths;     /* entries and cuts looked at for messages */
	uint64_t count[P_COUNT]; /* problems of the first pass */
};

/* ---- repair_tree.c: items; reads what is missing; -ENOENT and errors ---- */

/* *t: good until the next call. -ENOENT: no such snapshot. */
MUST_CHECK int mend_tree(struct repair *r, uint64_t id, struct tree **t);
/* A copy of an item's data: buf has room for COWFS_ITEM_MAX. */
MUST_CHECK int mend_get(struct repair *r, struct tree *t, const struct key *k,
			void *buf, uint32_t *len);
MUST_CHECK int mend_put(struct repair *r, struct tree *t, const struct key *k,
			const void *data, uint32_t len);
MUST_CHECK int mend_del(struct repair *r, struct tree *t, const struct key *k);
MUST_CHECK int mend_node(struct repair *r, struct tree *t, enum fix_kind kind,
			 const struct key *k, unsigned level, uint64_t blk);
/* First item >= *k: its key goes there, its data to buf. */
MUST_CHECK int mend_next(struct repair *r, struct tree *t, struct key *k,
			 void *buf, uint32_t *len);
/* The last item <= *k: its key goes there. */
MUST_CHECK int mend_floor(struct repair *r, struct tree *t, struct key *k);
/* An entry by its name. */
MUST_CHECK int mend_find(struct repair *r, struct tree *t, uint64_t dir,
			 const void *name, size_t len, uint64_t *ino);
MUST_CHECK int mend_enter(struct repair *r, struct tree *t, uint64_t dir,
			  const void *name, size_t len, uint64_t ino,
			  uint8_t type);
/* Roots of snapshots that changed go into their records. */
MUST_CHECK int mend_snaps(struct repair *r);

/* ---- repair_items.c ---- */

/* Carry out all notes. What cannot be done now is left to the next pass. */
MUST_CHECK int mend_all(struct repair *r);
/* Does a note of this kind give something up? */
bool fix_loses(const struct fix *f);
/* Is an inode's item of that length and with that contents an inode? */
MUST_CHECK int mend_inode(struct repair *r, struct tree *t, uint64_t ino,
			  struct cowfs_disk_inode *d);

/* ---- repair_tell.c ---- */

void tell(struct repair *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What carrying out a note means to the user, before it is. */
void tell_fix(struct repair *r, struct tree *t, const struct fix *f);

/* ---- repair_maps.c ---- */

/* What must not be overwritten: what the walk marked; what the records say is
 * used. */
MUST_CHECK int keep_map(struct repair *r, const struct blockmap *m);
MUST_CHECK int keep_records(struct repair *r, struct check *c);
/* Without extra copies; passes that make them begin anew. */
MUST_CHECK int forget_copies(struct repair *r);
/* Both trees of maps as the walk counted, and the copies tree of those in
 * r->extra that fit what it has found. */
MUST_CHECK int make_maps(struct repair *r, struct blockmap *m);

#endif
