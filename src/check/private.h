/*
 * private.h - what the files of src/check share
 *
 * One struct check is one pass over everything a superblock names. Walks go
 * tree by tree: the live files, the snapshot tree, each snapshot's files, what
 * is still to be dropped, then the two maps. On the way every block gets its
 * mark and its count (blockmap); at the end these are held against the maps.
 *
 *   K1  A node or data block is read and verified the first time a reference to
 *       it is met, and counted each time. Below a node met before nothing is
 *       counted again: its children's references were counted with it.
 *   K2  Nothing that was read is believed before it is bounds-checked; a part
 *       that can't be read is left out, and what depends on having seen all
 *       (nobody owns this block; nobody names this inode) is not claimed then.
 *   K3  On a running store a mismatch counts, and is mended, only if the hold on
 *       freed blocks (alloc_hold) was unbroken within the grace section that
 *       the bytes were read in (read.c).
 */
#ifndef COW_CHECK_PRIVATE_H
#define COW_CHECK_PRIVATE_H

#include <inttypes.h>

#include "check/check.h"
#include "check/repair.h"
#include "util/util.h"

/* ---- blockmap.c: what each block is, and how many refer to it ---- */

enum mark {
	MARK_FREE,
	MARK_RESERVED,   /* superblocks, boot blocks, past the end */
	MARK_NODE,       /* first block of a node */
	MARK_NODE_YOUNG, /* the same; may have one reference only */
	MARK_NODE_SOLE,  /* of a tree that shares no nodes: not of files */
	MARK_BODY,       /* other blocks of a node */
	MARK_DATA,
	MARK_DATA_YOUNG, /* may have one reference only */
	MARK_PREALLOC,
	MARK_PREALLOC_YOUNG,
	MARK_COPY, /* second copy of a node or of data */
	MARK_LOG,  /* super.log */
};

/* A mark has 4 bits; the other 12 are a fingerprint of what its first
 * reference said (checksum, place of the second copy): others must agree. */
#define MARK_BITS 4u
#define MARK_MASK 0x0fu

struct blockmap_chunk {
	uint32_t count[COWFS_CHUNK_BLOCKS]; /* references */
	uint16_t mark[COWFS_CHUNK_BLOCKS];
};

struct blockmap {
	uint64_t blocks, chunks;
	struct blockmap_dir *dir;
};

/* A block as it was when it was asked for. */
struct cell {
	struct blockmap_dir *dir;
	struct blockmap_part *part;
	unsigned off;
	uint32_t count;
	uint16_t mark;
};

MUST_CHECK int blockmap_init(struct blockmap *m, uint64_t blocks);
void blockmap_fini(struct blockmap *m);
/* Bytes that chunks with few blocks in use may take; by default a quarter of
 * the machine's memory, 1 GiB at least. Beyond that -ENOMEM, which is logged. */
void blockmap_limit(struct blockmap *m, uint64_t bytes);
/* All of them. */
uint64_t blockmap_bytes(const struct blockmap *m);
/* The cell of a block. Of the last two that were asked for each may be changed
 * once: that does not fail. -ENOMEM. */
MUST_CHECK int blockmap_cell(struct blockmap *m, uint64_t blk,
			     struct cell *out);
/* Chunk n, NULL if nothing in it was ever asked for. Good until another one is
 * asked for, or a cell. */
const struct blockmap_chunk *blockmap_chunk(const struct blockmap *m,
					    uint64_t n);
/* First chunk >= n that is there; m->chunks if there is none. */
uint64_t blockmap_next(const struct blockmap *m, uint64_t n);
/* Mark a run that no tree may name. */
MUST_CHECK int blockmap_reserve(struct blockmap *m, uint64_t blk, uint64_t len,
				enum mark kind);

static inline enum mark cell_kind(const struct cell *c)
{
	return (enum mark)(c->mark & MARK_MASK);
}

static inline bool cell_print_is(const struct cell *c, uint64_t print)
{
	return c->mark >> MARK_BITS == (uint16_t)(print & 0xfff);
}

/* Its first reference. */
void cell_set(struct cell *c, enum mark kind, uint64_t print);
/* One more. */
void cell_add(struct cell *c);

/* ---- run.c ---- */

/* A snapshot record, and its name as the name item has it. */
struct snap_rec {
	uint64_t id;
	struct nptr root;
	char name[COWFS_SNAP_NAME_MAX + 1];
};

struct snap_name {
	uint64_t id;
	struct key key;
	char name[COWFS_SNAP_NAME_MAX + 1];
};

struct drop_rec {
	struct nptr ptr;
	uint32_t next;
	bool started;
};

/* An array that grows: n items of `size` bytes. */
struct array {
	void *at;
	size_t n, room;
};

/* Room for one more, zeroed, at the end; NULL: no memory. */
void *array_add(struct array *a, size_t size);
void array_free(struct array *a);

struct walk;
typedef int leaf_fn(struct walk *w, const void *node);

struct check {
	struct blockio *io;
	struct store *live; /* running store, held; NULL: nobody writes */
	const struct check_options *opt;
	struct check_result res;

	struct cowfs_disk_super super;
	uint64_t gen, blocks, shared_gen, next_ino, next_snap;
	uint32_t node_size, node_blocks;

	struct blockmap map;
	void *node[COWFS_MAX_LEVEL + 1]; /* buffers, one for each level */
	void *data;                      /* DATA_BLOCKS blocks */
	uint64_t done, total, next_tick; /* progress, copies included */
	unsigned rereads;                /* since progress was last called */
	int stop;    /* 0, -ECANCELED, or -EAGAIN: hold broken (K3) */
	bool no_maps; /* they are not made yet */
	bool lost;   /* part of some tree could not be read (K2) */

	struct imap extra;   /* extra copies: how far behind their block */
	struct imap places;  /* of extra copies: 1 */
	uint64_t copies_end; /* of the interval before, while they are read */
	struct array bad;    /* struct bad_copy */

	struct array snaps, names, drops;
	leaf_fn *leaf;  /* instead of data_leaf: leaves of file trees, met for
			   the first time (scrub); with leaf_arg */
	void *leaf_arg;
	bool quiet;     /* an earlier walk has verified metadata: read one
			   copy, count and report nothing but what is bad */
	struct fixes *fix; /* notes of what would put things right; or NULL */
};

/* The machine went down right after (or in) the commit of this generation, and
 * no mount has looked at it since: a copy that did not make it is mended then,
 * and no damage. */
static inline bool awaits_recovery(const struct check *c, uint64_t gen)
{
	return !c->live && c->super.state & COWFS_STATE_UNVERIFIED &&
	       gen == c->gen;
}

/* Blocks of file data read at once. */
#define DATA_BLOCKS 256u

/* Report, unless the check has been stopped. */
void problem(struct check *c, enum problem p, const char *fmt, ...)
	PRINTF_LIKE(3, 4);
/* n more blocks are done. Sets c->stop when the caller cancels. */
void tick(struct check *c, uint64_t n);
/* Are these blocks between the superblocks? */
bool in_device(const struct check *c, uint64_t blk, uint64_t len);
/* Copy of a name for a message: quoted, nothing unprintable. */
#define QUOTED_MAX 160
const char *quoted(char out[QUOTED_MAX], const void *name, size_t len);

/* Check what `super` names on the device behind io; live: see check_run. */
MUST_CHECK int check_super_on(struct blockio *io, struct store *live,
			      const struct cowfs_disk_super *super,
			      const struct check_options *opt,
			      struct check_result *out);

/* In steps: c's io, live, opt, leaf and quiet are set. check_fini in any case. */
MUST_CHECK int check_ready(struct check *c,
			   const struct cowfs_disk_super *super);
/* Walk all trees and, with semantics, look at the maps. */
MUST_CHECK int check_trees(struct check *c);

/* ---- read.c ---- */

struct copies_read {
	unsigned bad, repaired;        /* copies */
	uint8_t lost[DATA_BLOCKS / 8]; /* a bit for each block */
};

/* block_scrub of up to DATA_BLOCKS blocks; on a running store only what K3
 * allows: c->stop is set when a mismatch means nothing. */
MUST_CHECK int read_copies(struct check *c, struct copies at, size_t n,
			   const uint32_t *csum, bool whole, bool mend,
			   void *buf, struct copies_read *out);

/* Is that in a place of the device, without any ado about it? */
bool block_matches(struct check *c, uint64_t blk, uint32_t csum, void *buf);

/* The same in steps: leaves the map to the caller, who calls check_fini in any
 * case. fix: notes of what is wrong go there. maps: look at the maps, too. */
MUST_CHECK int check_pass(struct check *c, struct blockio *io,
			  const struct cowfs_disk_super *super,
			  const struct check_options *opt, struct fixes *fix,
			  bool maps);
void check_fini(struct check *c);
/* All but looking: for walks with `again` set. check_fini in any case. */
MUST_CHECK int check_begin(struct check *c, struct blockio *io,
			   const struct cowfs_disk_super *super,
			   const struct check_options *opt);

/* ---- walk.c ---- */

struct walk {
	struct check *c;
	const char *name;    /* of the tree, for messages */
	uint8_t kind;        /* enum cowfs_root */
	uint64_t tree;       /* for notes (repair.h) */
	bool is_live;        /* the live file tree: shared_gen applies */
	bool makes;          /* notes will bring inodes: who seems to be not
				there may be then */
	bool again;          /* met before as a whole: count nothing */
	bool lost;           /* part of it could not be read */
	uint32_t first_slot; /* of the root: where its references begin */
	/* a node that could not be looked into; its keys: lo, hi; may be NULL */
	void (*gone)(struct walk *w, const struct nptr *p);
	leaf_fn *first;      /* leaves met for the first time; may be NULL */
	leaf_fn *each;       /* every leaf, in key order; if NULL, subtrees met
				before are left out */
	void *arg;
	struct key lo, hi;   /* of the node being looked at */
	bool has_hi;
};

MUST_CHECK int walk_tree(struct walk *w, const struct nptr *root);

/* ---- repair_fix.c; all do nothing unless notes are taken ---- */

void fix_note(struct walk *w, enum fix_kind kind, struct key key, uint64_t arg);
void fix_make(struct walk *w, uint64_t ino, uint32_t mode, uint64_t size,
	      bool in_line);
/* The node on the way to w->lo. */
void fix_node(struct walk *w, enum fix_kind kind, const struct nptr *p);
/* An extent that can be: does it have blocks that are lost? */
struct extent_rec;
void fix_extent(struct walk *w, const struct extent_rec *e);

/* ---- data.c ---- */

/* One extent item, verified against the device; csum still in the node. */
struct extent_rec {
	uint64_t ino, lblk, blk, blk2, gen;
	uint32_t len;
	uint8_t kind, flags;
	const struct le32 *csum;
};

/* NULL, or what is wrong with it. */
const char *extent_parse(const struct check *c, const struct key *k,
			 const struct item *it, struct extent_rec *out);
/* Notes for the extents of a leaf met before, which counts nothing. */
void data_again(struct walk *w, const void *node);
/* leaf_fn: count the blocks of the extents in a leaf, verify their contents
 * if asked; report extents that can't be. */
MUST_CHECK int data_leaf(struct walk *w, const void *node);
/* Can this extent be? If not that is reported. */
bool extent_ok(struct walk *w, const struct key *k, const struct item *it,
	       struct extent_rec *e);

/* ---- item.c: one item of a file tree by itself ---- */

/* Report what is wrong with the items in a leaf, extents excepted. */
void items_check(struct walk *w, const void *node);
/* Is this inode item sane? NULL, or what is wrong. */
const char *inode_sane(const struct check *c, const struct key *k,
		       const struct item *it);
/* The same of an entry, an xattr. */
const char *dirent_sane(const struct check *c, const struct key *k,
			const struct item *it);
const char *xattr_sane(const struct check *c, const struct key *k,
		       const struct item *it);
/* Key offset of a name without its counter. */
uint64_t name_slot(const struct check *c, const void *name, size_t len);

/* ---- files.c, links.c: a file tree as a whole ---- */

struct ino_rec {
	uint64_t ino;
	uint64_t parent;  /* as the inode says; of a linked directory, where
			     its entry is */
	uint32_t nlink;
	uint32_t subdirs;
	uint8_t type;     /* DT_* */
	uint8_t state;    /* links.c: on the way up to the root */
	bool linked;      /* a directory that an entry names */
};

struct link_rec {
	uint64_t ino, dir;
	uint64_t slot;    /* key offset of the entry */
	uint8_t type;
};

struct files;
MUST_CHECK int files_new(struct walk *w, struct files **out);
void files_free(struct files *f);
/* leaf_fn for walk.each, walk.arg being the files. */
MUST_CHECK int files_leaf(struct walk *w, const void *node);
/* All leaves have passed: check what goes across inodes. */
MUST_CHECK int files_finish(struct files *f);

/* links.c; inodes sorted by number, links and orphans in any order. */
void links_check(struct walk *w, struct array *inodes, struct array *links,
		 struct array *orphans);

/* ---- copies.c ---- */

/* Before all else: collect the items of the copies tree. Its nodes are counted
 * later, as those of the maps. */
MUST_CHECK int copies_read(struct check *c);
/* Where an extra copy of block blk lies, 0: there is none that could be; and of
 * how many blocks from there on, *n at most, that can be said. */
uint64_t extra_copy(const struct check *c, uint64_t blk, uint32_t *n);
/* After all files: report copies that cannot be and take them out of c->extra;
 * mark the others, and rewrite bad ones. */
MUST_CHECK int copies_check(struct check *c);

/* An extra copy that is to be rewritten once nobody else turns out to have its
 * place. */
struct bad_copy {
	uint64_t blk, at;
	uint32_t csum;
};
/* Copies of n <= DATA_BLOCKS blocks have been read, at.b being extra ones; good:
 * all matched. Mend what can be mended now, and bring stale sides up to date. */
MUST_CHECK int extra_mend(struct check *c, struct copies at, uint32_t n,
			  const uint32_t *csum, bool good);

/* ---- snaps.c ---- */

/* leaf_fn: collect the records of the snapshot tree. */
MUST_CHECK int snaps_leaf(struct walk *w, const void *node);
/* After all its leaves: names against records. */
void snaps_check_names(struct check *c);

/* ---- maps.c ---- */

MUST_CHECK int maps_check(struct check *c);

/* ---- supers.c ---- */

void supers_check(struct check *c);

#endif
