/*
 * imap.h - a map from intervals of numbers to signed counts, in memory
 *
 * Disjoint intervals in order; a count of 0 is not stored; neighbours with
 * equal counts are merged. Numbers are below UINT64_MAX. All operations take
 * O(log n) for each piece they touch, balanced whatever the keys. Not locked:
 * the owner's lock guards it. Used for batched reference changes and for lists
 * of extents waiting to be freed.
 */
#ifndef COW_IMAP_H
#define COW_IMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cowfs/error.h"

struct imap_node;

struct imap {
	struct imap_node *root;
	size_t count; /* intervals stored */
};

struct ival {
	uint64_t start;
	uint64_t len; /* > 0 */
	int64_t n;
};

void imap_init(struct imap *m);
void imap_clear(struct imap *m);

/* Add n to every number in [start, start+len). -ENOMEM: nothing changed. */
MUST_CHECK int imap_add(struct imap *m, uint64_t start, uint64_t len,
			int64_t n);

/*
 * The piece at `at`: out->start == at, out->n its count (0 in a gap), out->len
 * how far that count holds (to UINT64_MAX in the last gap). Always succeeds.
 */
void imap_get(const struct imap *m, uint64_t at, struct ival *out);

/* First stored interval whose end is > at; false if there is none. */
bool imap_next(const struct imap *m, uint64_t at, struct ival *out);

/* Move everything to the empty map `to`. */
void imap_move(struct imap *to, struct imap *from);

#endif
