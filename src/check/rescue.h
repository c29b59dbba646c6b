/*
 * rescue.h - what the files of a rescue share
 */
#ifndef COW_CHECK_RESCUE_H
#define COW_CHECK_RESCUE_H

#include "check/private.h"
#include "cowfs/rescue.h"

/* Keys lo <= k < hi were lost. */
struct lost_keys {
	struct key lo, hi;
};

struct pending_xattr {
	uint32_t id, len, got;
	bool done;    /* the sink has it */
	uint8_t *val; /* NULL: no piece yet, or done */
	char name[256];
};

/* What only the log has; empty for a snapshot, or without a superblock. */
struct rescue_log {
	struct array records; /* uint8_t *: bytes as on the device */
	struct array items;   /* struct log_item, in key order */
	struct array blocks;  /* struct log_block, carried, in order */
	size_t at;            /* of items: the next one in this pass */
};

struct cowfs_rescue {
	struct bdev *dev;
	struct blockio io;
	struct check_options opt;
	struct check c;
	bool begun; /* c is to be let go of */
	struct nptr root;
	uint64_t gen;     /* of the superblock, or of the root found */
	struct rescue_log log;
	bool log_unused;  /* there is one, of another state */
	bool log_damaged; /* more records follow, or may, one that is unreadable */
	bool in_doubt;    /* superblocks were wiped, perhaps newer ones, too */
	uint64_t newer;   /* generation that was passed over, or 0 */
	struct array lost; /* struct lost_keys, in order */
	uint64_t lost_nodes;

	/* a pass */
	const struct cowfs_rescue_sink *sink;
	struct walk *w;
	bool contents;
	int err; /* of the sink */
	size_t lost_at; /* lost ranges that end before the inode */

	/* the inode whose items are passing by */
	uint64_t ino; /* 0: none */
	bool known;   /* its own item is there */
	bool inlined; /* inline contents were */
	struct cowfs_disk_inode d;
	uint64_t blocks, end; /* data mapped; end of it in bytes, so far */
	bool entries, told;   /* has entries; a loss was told */
	struct array xattrs;  /* struct pending_xattr; by id once the first
				 piece comes */
	bool xattrs_sorted;
	size_t xattr_bytes;   /* of values */
};

/* ---- rescue.c ---- */

/* Can the root be read, and looked into? buf: of c->node. */
bool rescue_readable(struct cowfs_rescue *r, const struct nptr *p);

/* An item of the tree, or of the log, passes by; in key order. */
MUST_CHECK int rescue_item(struct cowfs_rescue *r, const struct key *k,
			   const struct item *it);

/* ---- rescue_log.c ---- */

/* Read the log of r->c.super. -ENOMEM. */
MUST_CHECK int rescue_log_load(struct cowfs_rescue *r);
void rescue_log_fini(struct cowfs_rescue *r);
/* Contents of a block that a record carries; NULL. */
const uint8_t *rescue_log_block(const struct cowfs_rescue *r, uint64_t blk,
				uint32_t csum);
/* Hand the log's items before k, and that of k, to rescue_item; k NULL: all that
 * are left. *taken: the log speaks of k, the tree's item is not to be. */
MUST_CHECK int rescue_log_until(struct cowfs_rescue *r, const struct key *k,
				bool *taken);

/* ---- rescue_scan.c ---- */

/* Search all of the device for a root; sets r->c and r->root. */
MUST_CHECK int rescue_scan(struct cowfs_rescue *r,
			   const struct cowfs_rescue_options *opt);

#endif
