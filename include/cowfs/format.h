/*
 * format.h - every bit that cowfs writes to a device: the specification
 *
 * Units. A *block* is 4096 bytes; block numbers count from the start of the
 * device. A *node* is a block-aligned run of node_size bytes (4 to 64 KiB, a
 * power of two), aligned to its own size. All integers are little-endian.
 *
 * Layout of the device (total_blocks blocks; a tail shorter than a block is
 * not used):
 *
 *	0 .. 15			never written (boot blocks, partition tables)
 *	16 .. 19		superblock slots 0..3
 *	20 ..			nodes and data, as the space tree says, and the
 *				log, where the superblock says
 *	total-4 .. total-1	superblock slots 0..3 again ("far" copies)
 *
 * The superblock of generation g lies in slot g % 4, near and far. It is
 * written in place, and is the commit point; besides it only the log is (see
 * struct cowfs_disk_log). A slot of which the first 512 bytes are zero is empty.
 * What differs from one generation to the next lies in those 512 bytes (but for
 * what is said about stale sides of a mirror), so a write torn between sectors
 * leaves the old superblock or the new one, and emptying a slot touches nothing
 * else.
 *
 * Trees. Everything else hangs in COW B-trees, their roots in the superblock.
 * A pointer to a node carries the CRC-32 of the whole node, a pointer to file
 * data one CRC-32 per block, and the superblock its own: a Merkle tree.
 *
 * Reserved ("zero") bytes are written as zero and ignored when read, unless a
 * feature bit gives them a meaning.
 */
#ifndef COWFS_FORMAT_H
#define COWFS_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "cowfs/le.h"

#define LAYOUT_SIZE(type, size) \
	_Static_assert(sizeof(type) == (size), #type " size")
#define LAYOUT_AT(type, field, at) \
	_Static_assert(offsetof(type, field) == (at), #type "." #field)

#define COWFS_BLOCK_SIZE 4096u
#define COWFS_BLOCK_SHIFT 12
#define COWFS_MIN_NODE_SIZE 4096u
#define COWFS_MAX_NODE_SIZE 65536u
#define COWFS_DEFAULT_NODE_SIZE 16384u
#define COWFS_MAX_LEVEL 11 /* levels 0..11: more than 2^64 items need */
#define COWFS_MIN_BLOCKS 2048u /* 8 MiB */
#define COWFS_MAX_BLOCKS (UINT64_C(1) << 48)

/* ---- superblock ------------------------------------------------------- */

#define COWFS_MAGIC "_COWFS1_" /* 8 bytes at byte 65544 of the device */
#define COWFS_FORMAT_VERSION 1u

#define COWFS_SUPER_SLOTS 4u
#define COWFS_SUPER_SECTOR 512u /* bytes; all zero: the slot is empty */
#define COWFS_SUPER_NEAR 16u /* first block of the near slots */
#define COWFS_FIRST_BLOCK (COWFS_SUPER_NEAR + COWFS_SUPER_SLOTS)
#define COWFS_LABEL_MAX 63u
#define COWFS_ROOTS 16u

/*
 * Feature bits: unknown compat ones are ignored, unknown ro_compat ones allow
 * only a read-only mount, unknown incompat ones none. What comes with a new kind of
 * item, a new flag of an inode or extent, or a new root needs ro_compat at least:
 * who does not know it takes it for damage, which a repair removes, or leaves it as
 * it was while the rest changes. A new way to store what is there needs incompat.
 */
#define COWFS_RO_COMPAT_COPIES UINT64_C(0x01) /* the copies tree has items */

#define COWFS_COMPAT_SUPPORTED UINT64_C(0)
#define COWFS_RO_COMPAT_SUPPORTED COWFS_RO_COMPAT_COPIES
#define COWFS_INCOMPAT_SUPPORTED \
	(COWFS_INCOMPAT_MIRROR | COWFS_INCOMPAT_LOG_DATA)

/* super.mirror counts: this device is one of two that hold the same. Who does
 * not know that would change one and not the other. */
#define COWFS_INCOMPAT_MIRROR UINT64_C(1)
/* Log records may carry blocks (COWFS_LOG_BLOCK). Set by mkfs. */
#define COWFS_INCOMPAT_LOG_DATA UINT64_C(2)

/* super.state */
#define COWFS_STATE_CLEAN 0x01u /* unmounted in order; nothing to recover */
/*
 * Written in one flush together with what it names, so by itself it does not
 * prove that these are there. Proof that its generation was complete, durable on
 * each side, is
 *
 *   - a copy of it without this mark: when the flush has ended the near copy is
 *     written once more so, and gets durable with whatever is flushed next (the
 *     far one keeps the mark: one copy is whole at any time); or
 *   - a superblock that goes on from it (super.back); or
 *   - a log record that goes on from it (struct cowfs_disk_log).
 *
 * What is damaged in a generation that was complete has rotted since, and is no
 * reason to go back to an older one. Without proof it counts after a crash only
 * once every node and data block of its own generation has been read and matches
 * its checksum; otherwise its predecessor does. */
#define COWFS_STATE_UNVERIFIED 0x02u
#define COWFS_STATE_ERROR 0x04u /* damage was seen; fsck is advised */
/* Written by a repair: what the superblocks before it name is as it was. */
#define COWFS_STATE_REPAIRED 0x08u

enum cowfs_csum_kind { COWFS_CSUM_CRC32 = 0 };

/* super.roots[] */
enum cowfs_root {
	COWFS_ROOT_FS = 0,    /* the live file tree */
	COWFS_ROOT_SNAP = 1,  /* snapshots, and background work to resume */
	COWFS_ROOT_SPACE = 2, /* which blocks are used */
	COWFS_ROOT_REFS = 3,  /* references beyond the first */
	COWFS_ROOT_COPIES = 4, /* extra copies of data */
	/* 5..15: zero. Meant for: attribute indices, queries. */
};

/* Pointer to a node. */
struct cowfs_disk_ptr {
	struct le64 blk;  /* 0x00  first block; 0 = no node (an empty tree) */
	struct le64 blk2; /* 0x08  second copy; 0 = none */
	struct le64 gen;  /* 0x10  transaction that wrote it */
	struct le32 csum; /* 0x18  checksum of the whole node */
	uint8_t level;    /* 0x1c  level of the node; 0 = leaf */
	uint8_t zero[3];  /* 0x1d */
};
LAYOUT_AT(struct cowfs_disk_ptr, csum, 0x18);
LAYOUT_SIZE(struct cowfs_disk_ptr, 0x20);

struct cowfs_disk_root {
	struct cowfs_disk_ptr ptr; /* 0x00 */
	struct le64 nodes;         /* 0x20  nodes in the tree; a hint */
	struct le64 copies;        /* 0x28  of ROOT_COPIES: blocks that have one;
				      else zero */
	uint8_t zero[16];          /* 0x30 */
};
LAYOUT_SIZE(struct cowfs_disk_root, 0x40);

struct cowfs_disk_time {
	struct le64 sec;  /* 0x00  signed seconds since 1970 */
	struct le32 nsec; /* 0x08 */
};
LAYOUT_SIZE(struct cowfs_disk_time, 12);

/* A run of blocks that belongs to the superblock; blocks 0: there is none. */
struct cowfs_disk_area {
	struct le64 blk;    /* 0x00 */
	struct le32 blocks; /* 0x08 */
	uint8_t zero[4];    /* 0x0c */
};
LAYOUT_SIZE(struct cowfs_disk_area, 0x10);

/*
 * The two sides of a mirror. All blocks are the same on both but for
 * super.csum, dev_uuid and dev_index. A side that missed something is stale: the
 * other says so from the next superblock on. Generations tell which word is the
 * later one: that side i is stale as of stale_gen[i] does not count if the other
 * side says that it was complete in a later generation, synced_gen[i] (but for sides
 * that were put back to an older state: src/txn/sides.c, D8).
 *
 * super.both_gen: when this superblock was written, each side that was not stale
 * had one of that generation or a later one (0: not known). A side that has none
 * so young was put back to an older state, and is stale though nobody says so.
 *
 * Whoever goes on while a side is missing, or not complete, draws a random number
 * (one in each mount), and puts it in front of `alone` (what does not fit is
 * forgotten; 0: none). So a side whose first one the other does not have went on
 * without it. In images that were made before there was such a list it is empty.
 */
#define COWFS_ALONE_MAX 64u

struct cowfs_disk_mirror {
	uint8_t dev_uuid[2][16];    /* 0x00  of both, by index */
	struct le64 stale_gen[2];   /* 0x20  0: it is not; else the newest
				       superblock that it may have without
				       being used alone */
	struct le64 synced_gen[2];  /* 0x30  first superblock after everything
				       had been copied to it; 0: never needed */
	struct le64 since_gen[2];   /* 0x40  of a stale side: what was written
				       from this generation on went to it,
				       too; 0: it is not there, or not stale */
	struct le64 alone[COWFS_ALONE_MAX]; /* 0x50  see there */
};
LAYOUT_SIZE(struct cowfs_disk_mirror, 0x250);

struct cowfs_disk_super {
	struct le32 csum;           /* 0x000  of bytes 4..4095 */
	struct le32 version;        /* 0x004  COWFS_FORMAT_VERSION */
	uint8_t magic[8];           /* 0x008 */
	uint8_t uuid[16];           /* 0x010 */
	char label[64];             /* 0x020  NUL-terminated */
	struct le64 compat;         /* 0x060 */
	struct le64 ro_compat;      /* 0x068 */
	struct le64 incompat;       /* 0x070 */
	struct le64 gen;            /* 0x078  generation of this commit */
	struct le64 total_blocks;   /* 0x080 */
	struct le64 free_blocks;    /* 0x088 */
	struct le64 next_ino;       /* 0x090  inode numbers are never reused */
	struct le64 next_snap;      /* 0x098  nor are snapshot ids */
	struct le32 block_size;     /* 0x0a0  4096 */
	struct le32 node_size;      /* 0x0a4 */
	uint8_t meta_copies;        /* 0x0a8  1 or 2 */
	uint8_t data_copies;        /* 0x0a9  1 or 2; for new data */
	uint8_t csum_kind;          /* 0x0aa  enum cowfs_csum_kind */
	uint8_t state;              /* 0x0ab  COWFS_STATE_* */
	uint8_t slot;               /* 0x0ac  gen % 4 */
	uint8_t zero0[3];           /* 0x0ad */
	uint8_t hash_seed[16];      /* 0x0b0  SipHash key of names */
	struct le64 shared_gen;     /* 0x0c0  live nodes born after this
				       generation have one parent */
	struct cowfs_disk_time made;  /* 0x0c8  by mkfs */
	struct cowfs_disk_time wrote; /* 0x0d4  this commit */
	uint8_t dev_uuid[16];       /* 0x0e0  this device of the filesystem */
	struct le16 dev_index;      /* 0x0f0  0; of a mirror 0 or 1 */
	struct le16 dev_count;      /* 0x0f2  1; of a mirror 2 */
	struct le32 back;           /* 0x0f4  gen - back is the generation that it
				       goes on from, which was durable before
				       it was written; 0: not known */
	struct le64 both_gen;       /* 0x0f8  of a mirror; see there */
	struct cowfs_disk_root roots[COWFS_ROOTS]; /* 0x100 */
	struct cowfs_disk_area log;                /* 0x500 */
	struct cowfs_disk_mirror mirror;           /* 0x510 */
	uint8_t zero2[0x8a0];
};
LAYOUT_AT(struct cowfs_disk_super, gen, 0x78);
LAYOUT_AT(struct cowfs_disk_super, hash_seed, 0xb0);
LAYOUT_AT(struct cowfs_disk_super, wrote, 0xd4);
LAYOUT_AT(struct cowfs_disk_super, back, 0xf4);
LAYOUT_AT(struct cowfs_disk_super, both_gen, 0xf8);
LAYOUT_AT(struct cowfs_disk_super, roots, 0x100); /* the first four: to 0x200 */
LAYOUT_AT(struct cowfs_disk_super, log, 0x500);
LAYOUT_AT(struct cowfs_disk_super, mirror, 0x510);
LAYOUT_SIZE(struct cowfs_disk_super, COWFS_BLOCK_SIZE);

/* ---- nodes ------------------------------------------------------------ */

#define COWFS_NODE_MAGIC 0x444f4e43u /* "CNOD" */

struct cowfs_disk_node {
	struct le32 magic; /* 0x00 */
	uint8_t level;     /* 0x04 */
	uint8_t tree;      /* 0x05  enum cowfs_root of the kind of tree */
	struct le16 count; /* 0x06  items or children */
	struct le64 blk;   /* 0x08  where the first copy lies */
	struct le64 gen;   /* 0x10 */
	uint8_t uuid[16];  /* 0x18 */
	uint8_t zero[24];  /* 0x28 */
	/* 0x40: body */
};
LAYOUT_AT(struct cowfs_disk_node, uuid, 0x18);
LAYOUT_SIZE(struct cowfs_disk_node, 0x40);

/* Keys order by (obj, type, off). */
struct cowfs_disk_key {
	struct le64 obj;
	uint8_t type;
	struct le64 off;
};
LAYOUT_SIZE(struct cowfs_disk_key, 17);

/*
 * Body of an inner node (level > 0): count children in key order. A child's
 * key is no greater than the first key below it and greater than every key
 * below the child before it.
 */
struct cowfs_disk_child {
	struct cowfs_disk_key key;
	struct cowfs_disk_ptr ptr;
};
LAYOUT_SIZE(struct cowfs_disk_child, 49);

/*
 * Body of a leaf: count of these in key order, then a gap, then the data of
 * the items packed against the end of the node, in reverse order of items (the
 * first item's data ends at the end of the node). off counts from the body's
 * start (0x40). The gap is zero.
 */
struct cowfs_disk_item {
	struct cowfs_disk_key key;
	struct le16 off;
	struct le16 len;
};
LAYOUT_SIZE(struct cowfs_disk_item, 21);

/* An item's data is at most a quarter of the body less its header, so that a
 * leaf holds at least four. */
#define COWFS_NODE_BODY(node_size) ((node_size) - 0x40u)
#define COWFS_ITEM_MAX(node_size) \
	(COWFS_NODE_BODY(node_size) / 4u - (uint32_t)sizeof(struct cowfs_disk_item))

/* ---- log -------------------------------------------------------------- */

/*
 * What fsync made durable since the last commit. Records lie one after the
 * other from the start of super.log, each beginning on a block. A record counts
 * if it belongs to the superblock in use (base is its generation), all before
 * it count, its checksum is right, and so are, if it is the last one, those of
 * the data blocks that it names for the first time and does not carry. One that
 * counts shows that
 * its superblock was durable, UNVERIFIED or not. It holds items of the file tree
 * as they were then: applied to the file tree in order, the records give the
 * state of the last fsync. A newer superblock makes the log void.
 *
 * A record may carry the contents of data blocks that its extents name for the
 * first time (COWFS_INCOMPAT_LOG_DATA): in their places they need not be durable
 * before the next superblock is. Whoever applies the record puts them there, in
 * both copies. One counts if it is free in the superblock and in the records
 * before, and matches the checksum in the extent; else it is ignored.
 */
#define COWFS_LOG_MAGIC 0x474f4c43u /* "CLOG" */
#define COWFS_LOG_BLOCKS_MAX 65536u /* a longer one is refused */

struct cowfs_disk_log {
	struct le32 magic;    /* 0x00 */
	struct le32 csum;     /* 0x04  of bytes 8 .. len-1 */
	struct le32 len;      /* 0x08  bytes, this head included */
	struct le32 count;    /* 0x0c  entries */
	struct le64 base;     /* 0x10  generation of the superblock */
	struct le64 seq;      /* 0x18  0, 1, 2, ... */
	struct le64 next_ino; /* 0x20 */
	uint8_t uuid[16];     /* 0x28 */
	uint8_t zero[8];      /* 0x38 */
	/* 0x40: entries */
};
LAYOUT_SIZE(struct cowfs_disk_log, 0x40);

enum cowfs_log_kind {
	COWFS_LOG_ITEM = 0,
	COWFS_LOG_GONE = 1,  /* there is no such item; len is 0 */
	COWFS_LOG_BLOCK = 2, /* contents of a block; len is its size */
};

struct cowfs_disk_log_entry {
	struct cowfs_disk_key key; /* of a BLOCK: its number, 0, 0 */
	struct le16 len; /* bytes that follow */
	uint8_t kind;    /* enum cowfs_log_kind */
};
LAYOUT_SIZE(struct cowfs_disk_log_entry, 20);

/* ---- space tree: (chunk, SPACE, 0) ------------------------------------- */

/* A chunk is 4096 blocks (16 MiB). No item: every block is free but the
 * reserved ones: block 0..19, the far superblocks, those past the end of the
 * device. An item of only the head: none is free. Otherwise one bit per block
 * follows, 1 = used or reserved. Second copies and the log are used, too. */
#define COWFS_CHUNK_BLOCKS 4096u
#define COWFS_CHUNK_BYTES (COWFS_CHUNK_BLOCKS / 8u)

#define COWFS_CHUNK_META 0x01u /* hint: nodes are to be allocated here */

struct cowfs_disk_chunk {
	struct le16 free; /* 0x00  free blocks in the chunk */
	uint8_t flags;    /* 0x02  COWFS_CHUNK_* */
	uint8_t zero;     /* 0x03 */
	/* COWFS_CHUNK_BYTES of bitmap if free is not 0 */
};
LAYOUT_SIZE(struct cowfs_disk_chunk, 4);

/* ---- reference tree: (first block, REF, length) ------------------------- */

/* Each used block has one reference more than these intervals say. Disjoint;
 * neighbours with the same count are merged. All blocks of a node's first copy
 * have the node's count, and each block of data its own; a second copy lives
 * and dies with the first and is not counted. */
struct cowfs_disk_ref {
	struct le32 extra; /* > 0 */
};
LAYOUT_SIZE(struct cowfs_disk_ref, 4);

/* ---- copies tree: (first block, COPY, length) --------------------------- */

/* The second copies of data that were made later, when many came to share it:
 * pointers in shared nodes can't change. Disjoint; each covers data blocks in
 * use that have no second copy of their own, and that may have more than one
 * reference (see super.shared_gen, COWFS_EXTENT_SHARED). The blocks of a copy
 * are used, belong to the item, and go with the block they are a copy of.
 * Neighbours of which the copies are neighbours, too, are merged. While the
 * tree is not empty COWFS_RO_COMPAT_COPIES is set: who does not know it would
 * free blocks and leave their copies. */
struct cowfs_disk_copy {
	struct le64 blk; /* where the copy of the first block lies */
};
LAYOUT_SIZE(struct cowfs_disk_copy, 8);

/* ---- snapshot tree ------------------------------------------------------ */

#define COWFS_SNAP_NAME_MAX 63u
#define COWFS_SNAP_UNDO "@undo" /* what the last restore replaced */

/* (id, SNAP, 0) */
struct cowfs_disk_snap {
	struct cowfs_disk_root root;  /* 0x00  of its file tree */
	struct le64 gen;              /* 0x40  transaction that made it */
	struct cowfs_disk_time time;  /* 0x48 */
	struct le32 flags;            /* 0x54  zero */
	struct le64 parent;           /* 0x58  zero; meant for clones */
	uint8_t zero[31];             /* 0x60 */
	uint8_t name_len;             /* 0x7f */
	/* name_len bytes: name */
};
LAYOUT_AT(struct cowfs_disk_snap, name_len, 0x7f);
LAYOUT_SIZE(struct cowfs_disk_snap, 0x80);

/* (SipHash of the name | 1 << 63, SNAP_NAME, n): a snapshot's id by its name; n
 * counts up from 0 among equal hashes. */
struct cowfs_disk_snap_name {
	struct le64 id;
	/* rest: name */
};
LAYOUT_SIZE(struct cowfs_disk_snap_name, 8);

/* (0, DROP, first block): a reference to a file tree's node that is still to
 * be let go of. Children before `next` have been let go already (the node had
 * no other reference then and cannot gain one). Letting go of a node that has
 * such a record needs no second one: it only loses a reference. */
struct cowfs_disk_drop {
	struct cowfs_disk_ptr ptr; /* 0x00 */
	struct le32 next;          /* 0x20  child or item to go on with */
	uint8_t started;           /* 0x24  1: `next` counts, and the node
				      itself is known to have no other
				      reference */
	uint8_t zero[3];           /* 0x25 */
};
LAYOUT_SIZE(struct cowfs_disk_drop, 0x28);

/* (0, SETTING, n): settings and the progress of background work. */
enum cowfs_setting {
	COWFS_SETTING_REDUNDANCY = 1,
};

/* No such item: all zero. */
struct cowfs_disk_redundancy {
	struct le32 count; /* 0x00  references from which on data is to have an
			      extra copy; 0: none is made */
	struct le32 turn;  /* 0x04  counts up when done is taken back */
	struct le64 done;  /* 0x08  all below nodes of the live tree of this
			      generation or older has been seen to */
	struct le64 seen;  /* 0x10  super.next_snap then */
};
LAYOUT_SIZE(struct cowfs_disk_redundancy, 0x18);

/* (0, SETTING, kind << 32 | n): what takes several items. */
#define COWFS_SETTING_SCRUB 1u
#define COWFS_SETTING(kind, n) ((uint64_t)(kind) << 32 | (n))

enum cowfs_scrub_state {
	COWFS_SCRUB_NEVER = 0,
	COWFS_SCRUB_RUNNING = 1, /* found at mount: it was interrupted */
	COWFS_SCRUB_PAUSED = 2,
	COWFS_SCRUB_FINISHED = 3,
	COWFS_SCRUB_CANCELLED = 4,
	COWFS_SCRUB_FAILED = 5,
};

/*
 * (0, SETTING, SCRUB << 32): the scrub under way, or the last one. File data
 * are verified in the order of their addresses: those before `pos` are done,
 * unless they were written since. Going on means to read all metadata again
 * and the data from pos on.
 */
struct cowfs_disk_scrub {
	uint8_t state;    /* 0x00  enum cowfs_scrub_state */
	uint8_t zero0[3]; /* 0x01 */
	struct le32 error; /* 0x04  FAILED: errno */
	struct cowfs_disk_time began; /* 0x08 */
	struct cowfs_disk_time noted; /* 0x14  when this was written */
	struct le64 ns;   /* 0x20  time spent, pauses left out */
	struct le64 pos;  /* 0x28 */
	struct le64 done, total; /* 0x30  blocks, all copies: progress */
	struct le64 rate; /* 0x40  bytes per second; 0: no limit given */
	/* metadata, by the last walk */
	struct le64 nodes, node_blocks, node_checksums; /* 0x48 */
	struct le64 snapshots, notes; /* 0x60  notes: entries of that kind */
	/* data before pos */
	struct le64 data_blocks, data_checksums, prealloc, data_done; /* 0x70 */
	/* damaged: nodes, and blocks of data */
	struct le64 damaged, bad_copies, repaired, lost; /* 0x90 */
	struct le64 entries; /* 0xb0  items that follow */
	struct le64 untold;  /* 0xb8  entries that found no room */
	struct le64 mended;  /* 0xc0  of damaged: all bad copies rewritten */
	struct le64 since[2]; /* 0xc8  since_gen of the sides of a mirror that
				 it fills: those were written to all the time,
				 and have what lies before pos */
	uint8_t zero1[40];   /* 0xd8 */
};
LAYOUT_AT(struct cowfs_disk_scrub, noted, 0x14);
LAYOUT_AT(struct cowfs_disk_scrub, pos, 0x28);
LAYOUT_AT(struct cowfs_disk_scrub, nodes, 0x48);
LAYOUT_AT(struct cowfs_disk_scrub, data_blocks, 0x70);
LAYOUT_AT(struct cowfs_disk_scrub, damaged, 0x90);
LAYOUT_SIZE(struct cowfs_disk_scrub, 0x100);

enum cowfs_scrub_what {
	COWFS_SCRUB_DATA = 1, /* blocks of file data are damaged */
	COWFS_SCRUB_NODE = 2, /* a node is */
	COWFS_SCRUB_FILE = 3, /* whose the DATA before it are: a file */
	COWFS_SCRUB_PART = 4, /* whose the NODE before it is: a tree */
	COWFS_SCRUB_NOTE = 5, /* something else is wrong: text */
};

enum cowfs_scrub_fate {
	COWFS_SCRUB_LOST = 0,     /* no copy is good */
	COWFS_SCRUB_REPAIRED = 1, /* rewritten from a good one */
	COWFS_SCRUB_ONE_BAD = 2,  /* a copy is bad, another good; not mended */
};

/* trees of FILE and PART */
enum cowfs_scrub_tree {
	COWFS_SCRUB_LIVE = 0,
	COWFS_SCRUB_SNAPSHOT = 1,
	COWFS_SCRUB_DROPPED = 2, /* of a deleted snapshot */
	COWFS_SCRUB_OTHER = 3,   /* no file tree; `root` says which */
};

/* (0, SETTING, SCRUB << 32 | 1, 2, ...): the report, one entry each. */
struct cowfs_disk_scrub_entry {
	uint8_t what;         /* 0x00  enum cowfs_scrub_what */
	uint8_t fate;         /* 0x01  DATA, NODE: enum cowfs_scrub_fate */
	uint8_t tree;         /* 0x02  FILE, PART: enum cowfs_scrub_tree */
	uint8_t root;         /* 0x03  NODE: enum cowfs_root of its kind */
	uint8_t level;        /* 0x04  NODE */
	uint8_t name_len;     /* 0x05  FILE, PART: the snapshot's name */
	struct le16 text_len; /* 0x06  path (its end, after "...", if it is too
				 long), or text of a NOTE */
	struct le64 blk;      /* 0x08  DATA, NODE: first damaged block */
	struct le64 blk2;     /* 0x10  of the second copy; 0 = none */
	struct le64 blocks;   /* 0x18 */
	struct le64 gen;      /* 0x20  of the state in which it was seen */
	struct le64 ino;      /* 0x28  FILE; PART: first inode below it */
	struct le64 ino_last; /* 0x30  PART */
	struct le64 off;      /* 0x38  FILE: byte in the file */
	struct le64 len;      /* 0x40  FILE: bytes */
	struct cowfs_disk_key lo; /* 0x48  NODE: the keys it may have are >= lo */
	struct cowfs_disk_key hi; /* 0x59  and < hi, if has_hi is 1 */
	uint8_t has_hi;           /* 0x6a */
	uint8_t zero[5];          /* 0x6b */
	/* name, then text; neither is terminated */
};
LAYOUT_AT(struct cowfs_disk_scrub_entry, blk, 0x08);
LAYOUT_AT(struct cowfs_disk_scrub_entry, lo, 0x48);
LAYOUT_SIZE(struct cowfs_disk_scrub_entry, 0x70);

/* ---- file tree ---------------------------------------------------------- */

enum cowfs_key_type {
	/* file tree; obj is the inode number (0: of the tree as a whole) */
	COWFS_KEY_INODE = 0x01,      /* (ino, , 0) */
	COWFS_KEY_XATTR = 0x08,      /* (ino, , name hash << 8 | n) */
	COWFS_KEY_XATTR_DATA = 0x0a, /* (ino, , value id << 16 | piece) */
	/* 0x10..0x1f: typed attributes, later */
	COWFS_KEY_DIRENT = 0x20,     /* (dir, , name hash << 8 | n) */
	COWFS_KEY_INLINE = 0x30,     /* (ino, , 0); pieces of a target: 0, 1, ... */
	COWFS_KEY_EXTENT = 0x31,     /* (ino, , first block of the file) */
	COWFS_KEY_ORPHAN = 0x40,     /* (0, , ino), no data */
	/* other trees */
	COWFS_KEY_SPACE = 0x80,
	COWFS_KEY_REF = 0x81,
	COWFS_KEY_SNAP = 0x82,
	COWFS_KEY_SNAP_NAME = 0x83,
	COWFS_KEY_DROP = 0x84,
	COWFS_KEY_SETTING = 0x85,
	COWFS_KEY_COPY = 0x86,
};

#define COWFS_INO_ROOT 1u
#define COWFS_INO_FIRST 256u                 /* first one for users */
#define COWFS_INO_MAX ((UINT64_C(1) << 48) - 1)
#define COWFS_NAME_MAX 255u
#define COWFS_SYMLINK_MAX 4095u
#define COWFS_XATTR_SIZE_MAX 65536u
#define COWFS_LINK_MAX UINT32_C(0x7fffffff)
#define COWFS_FILE_BLOCKS_MAX (UINT64_C(1) << 51) /* 2^63 bytes, st_size */
#define COWFS_FILE_SIZE_MAX INT64_MAX

/* inode.flags: user-visible ones as chattr(1) has them */
#define COWFS_INODE_IMMUTABLE 0x00000010u
#define COWFS_INODE_APPEND 0x00000020u
#define COWFS_INODE_NODUMP 0x00000040u
#define COWFS_INODE_NOATIME 0x00000080u
#define COWFS_INODE_SYNC 0x00000008u
#define COWFS_INODE_DIRSYNC 0x00010000u
#define COWFS_INODE_USER_FLAGS 0x000100f8u
/* and cowfs's own */
#define COWFS_INODE_INLINE 0x01000000u /* contents in the INLINE item */
#define COWFS_INODE_ACL 0x02000000u    /* has a POSIX ACL */
#define COWFS_INODE_TMPFILE 0x04000000u /* nlink 0 since it was made: the only
					   kind of orphan that gets a name */
#define COWFS_INODE_KNOWN_FLAGS \
	(COWFS_INODE_USER_FLAGS | COWFS_INODE_INLINE | COWFS_INODE_ACL | \
	 COWFS_INODE_TMPFILE) /* any other is damage */

struct cowfs_disk_inode {
	struct le32 mode;   /* 0x00  as st_mode */
	struct le32 uid;    /* 0x04 */
	struct le32 gid;    /* 0x08 */
	struct le32 nlink;  /* 0x0c  0: an orphan. A directory has 2 and one
			       per subdirectory */
	struct le64 size;   /* 0x10  bytes; of a directory: its entries */
	struct le64 blocks; /* 0x18  data blocks mapped, first copies */
	struct le64 gen;    /* 0x20  transaction of its creation */
	struct le64 change; /* 0x28  transaction of its last change */
	struct le64 parent; /* 0x30  a directory's parent; of others, the
			       directory of the newest link (a hint) */
	struct le32 flags;  /* 0x38 */
	struct le32 rdev;   /* 0x3c  major << 20 | minor */
	struct cowfs_disk_time atime; /* 0x40 */
	struct cowfs_disk_time mtime; /* 0x4c */
	struct cowfs_disk_time ctime; /* 0x58 */
	struct cowfs_disk_time btime; /* 0x64 */
	struct le32 xattr_id; /* 0x70  next id of a large xattr value */
	struct le32 project;  /* 0x74  zero */
	uint8_t zero[24];     /* 0x78 */
};
LAYOUT_AT(struct cowfs_disk_inode, atime, 0x40);
LAYOUT_AT(struct cowfs_disk_inode, xattr_id, 0x70);
LAYOUT_SIZE(struct cowfs_disk_inode, 0x90);

/* Key offset: SipHash-2-4 of the name with super.hash_seed, its low 55 bits
 * shifted left by 8, plus a counter among names whose hashes are equal. Fits a
 * positive off_t: it is the readdir cookie. 0, 1 and 2 are left to "." and
 * "..": a hash of 0 counts as 1. */
struct cowfs_disk_dirent {
	struct le64 ino; /* 0x00 */
	uint8_t type;    /* 0x08  DT_* as in <dirent.h> */
	/* rest: name, not terminated */
};
LAYOUT_SIZE(struct cowfs_disk_dirent, 9);

/* A value longer than COWFS_XATTR_INLINE(node) lies in XATTR_DATA items, in
 * pieces of that size but for the last. */
struct cowfs_disk_xattr {
	uint8_t name_len;      /* 0x00 */
	uint8_t external;      /* 0x01  1: the value lies in XATTR_DATA */
	struct le32 value_len; /* 0x02 */
	struct le32 value_id;  /* 0x06  0 if not external */
	/* name, then the value unless external */
};
LAYOUT_SIZE(struct cowfs_disk_xattr, 10);
#define COWFS_XATTR_INLINE(node_size) \
	(COWFS_ITEM_MAX(node_size) - (uint32_t)sizeof(struct cowfs_disk_xattr) - 255u)

/* File contents of at most this many bytes are stored in the leaf. */
#define COWFS_INLINE_MAX(node_size) (COWFS_ITEM_MAX(node_size) / 2u)

enum cowfs_extent_kind {
	COWFS_EXTENT_DATA = 0,
	COWFS_EXTENT_PREALLOC = 1, /* allocated, reads as zeros; no checksums */
};
enum cowfs_compression { COWFS_COMPRESS_NONE = 0 };

/* Blocks key.off .. key.off+len-1 of the file are blocks blk .. of the device.
 * What no extent covers is a hole. */
struct cowfs_disk_extent {
	struct le64 blk;      /* 0x00 */
	struct le64 blk2;     /* 0x08  second copy; 0 = none */
	struct le64 gen;      /* 0x10  transaction that wrote it */
	struct le32 len;      /* 0x18  blocks of the file */
	struct le32 disk_len; /* 0x1c  blocks on the device; = len */
	struct le32 disk_off; /* 0x20  0; meant for part of a compressed one */
	uint8_t kind;         /* 0x24  enum cowfs_extent_kind */
	uint8_t compression;  /* 0x25  enum cowfs_compression */
	uint8_t flags;        /* 0x26  COWFS_EXTENT_* */
	uint8_t zero;         /* 0x27 */
	/* struct le32 csum[len] follow, unless kind is PREALLOC */
};
LAYOUT_SIZE(struct cowfs_disk_extent, 0x28);

/* The blocks may have references from other extents, whatever their age. */
#define COWFS_EXTENT_SHARED 0x01u

/* Longest extent: its item must fit a leaf. */
#define COWFS_EXTENT_MAX(node_size) \
	((COWFS_ITEM_MAX(node_size) - \
	  (uint32_t)sizeof(struct cowfs_disk_extent)) / 4u)

#endif
