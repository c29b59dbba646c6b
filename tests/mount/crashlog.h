/*
 * crashlog.h - the journal of the crash test: what was done, what was promised
 *
 * It lies outside the filesystem under test. Each worker is one process with
 * its own journal, and does one thing after the other in its own directory, so
 * the journal is the whole truth about that directory:
 *
 *   - a record is written before its operation begins, so that an operation
 *     that reached the filesystem is known;
 *   - an acknowledgement is written after fsync has returned, so that a promise
 *     is known only if it was made.
 *
 * Numbers (seq) are drawn from one counter that all processes share: they say
 * what was done before a snapshot was asked for.
 */
#ifndef COW_TEST_CRASHLOG_H
#define COW_TEST_CRASHLOG_H

#include <stdint.h>

enum {
	CELL = 512,     /* bytes; all sizes and offsets are multiples */
	SLOTS = 24,     /* names a worker uses, in two directories */
	FILE_MAX = 2048 /* cells */
};

enum record_kind {
	REC_CREATE = 1, /* slot, file */
	REC_WRITE,      /* file, version, cell a, count b */
	REC_PUNCH,      /* file, cell a, count b */
	REC_TRUNCATE,   /* file, to a cells */
	REC_RENAME,     /* slot to slot a, which may exist */
	REC_UNLINK,     /* slot */
	REC_SYNCED,     /* file: its fsync has returned */
	REC_DIR_SYNCED, /* directory a: its fsync has returned */
	REC_SNAP,       /* snapshot a was asked for */
	REC_SNAPPED,    /* snapshot a is there */
};

struct record {
	uint64_t seq;
	uint32_t kind;
	uint32_t slot;
	uint32_t file;
	uint32_t version;
	uint32_t a, b;
};

/* What files are made of: each piece tells where it belongs, and who wrote it
 * when. All zero: a hole. */
struct piece {
	uint32_t round;   /* of the crash test: no bytes of an earlier one */
	uint32_t file;    /* worker << 24 | its number of the file, from 1 */
	uint32_t version; /* counts the writes of the file, from 1 */
	uint32_t at;      /* offset / sizeof(struct piece) */
};

#define PIECES (CELL / sizeof(struct piece))

/* Slot n is "DIR/nameN" with DIR by its lowest bit. */
#define SLOT_DIR(slot) ((slot) & 1u)

#endif
