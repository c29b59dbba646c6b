/*
 * redun.h - what the files that make extra copies share
 *
 *   N1  A copy is recorded only of blocks that are owned, and were owned all
 *       the time since their contents were read: the hold on freed blocks was
 *       taken before and is unbroken under the same tree lock.
 *   N2  Contents are copied that have just matched their checksums.
 *   N3  Work that takes space never takes the last of it (redun.c), and a pass
 *       that is given up leaves nothing but copies that are right.
 */
#ifndef COW_REDUN_H
#define COW_REDUN_H

#include "snapshot/snapshot.h"

/* Data is read and written this much at a time, ... */
#define BATCH_BLOCKS 256u
/* ... in so many pieces at most: each may change leaves of its own. */
#define BATCH_PIECES 16u

/* The setting as it is stored. */
struct setting {
	uint32_t count, turn;
	uint64_t done, seen;
};

/* T: all zero if there is none. -EAGAIN, -ECOW_CORRUPT. */
MUST_CHECK int setting_get(struct store *s, struct setting *out);

/* ---- redun_copy.c ---- */

/* Data to be copied: `len` blocks at blk, to `at`, which is taken. */
struct piece {
	struct copy_ival iv;
	unsigned csum; /* index of the first of its checksums */
	bool bad;      /* could not be read, or is not what it was */
};

struct batch {
	struct piece piece[BATCH_PIECES];
	unsigned pieces, blocks;
	unsigned sides; /* store_sides_added */
	uint32_t csum[BATCH_BLOCKS];
	uint8_t *buf; /* one piece */
};

static inline bool batch_full(const struct batch *b)
{
	return b->pieces == BATCH_PIECES || b->blocks == BATCH_BLOCKS;
}

/* Take room for a copy of as many blocks as there is, *len at most, which
 * becomes what it is. -ENOSPC, -ENOMEM. */
MUST_CHECK int batch_add(struct store *s, struct batch *b, uint64_t blk,
			 const struct le32 *csum, uint32_t *len);
/* Copy, and record what was copied. The hold is on. The batch is empty
 * afterwards, whatever is returned. -ESTALE: the hold is broken, or a side
 * came that lacks the copies. */
MUST_CHECK int batch_run(struct store *s, struct batch *b);
/* Let go of what was taken. */
void batch_drop(struct store *s, struct batch *b);

/* ---- redun_walk.c ---- */

/* A node, or a root, with the roots that reach it. */
struct seen_node {
	struct nptr ptr;
	uint32_t count;
	bool live; /* the live tree is among them */
};

struct seen_list {
	struct seen_node *at;
	size_t n, room, merged;
};

struct pass {
	struct store *s;
	struct setting set;  /* as it was at the beginning */
	uint64_t seen;       /* super.next_snap then */
	uint64_t low;        /* setting.done afterwards */
	struct seen_list roots, now, below;
	unsigned level;      /* of now */
	size_t next;         /* of now */
	void *node;
	bool leaf;           /* node is one that is being looked through */
	uint32_t leaf_count;
	unsigned slot;       /* there: next item, ... */
	uint32_t off;        /* ... and blocks of its extent that are done */
	struct batch batch;
};

/* Takes the hold, and commits. -ENODATA: there is nothing to be done. */
MUST_CHECK int pass_begin(struct store *s, const struct setting *set,
			  struct pass **out);
/* A bounded piece of it. 1: there is more; 0: it is through. -ESTALE: the hold
 * is broken. */
MUST_CHECK int pass_step(struct pass *p);
/* Lets go of the hold. NULL is fine. */
void pass_free(struct pass *p);

#endif
