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
	char name[256];
	uint32_t id, len, got;
	uint8_t *val; /* NULL: no piece yet */
};

struct cowfs_rescue {
	struct bdev *dev;
	struct blockio io;
	struct check_options opt;
	struct check c;
	bool begun; /* c is to be let go of */
	struct nptr root;
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
	struct array xattrs;  /* struct pending_xattr */
	size_t xattr_bytes;
};

/* ---- rescue.c ---- */

/* Can the root be read, and looked into? buf: of c->node. */
bool rescue_readable(struct cowfs_rescue *r, const struct nptr *p);

/* ---- rescue_scan.c ---- */

/* Search all of the device for a root; sets r->c and r->root. */
MUST_CHECK int rescue_scan(struct cowfs_rescue *r,
			   const struct cowfs_rescue_options *opt);

#endif
