/*
 * grace.h - when is everyone who may still look at something gone?
 *
 * A reader who found an address under a lock, dropped the lock, and now does
 * I/O there stands in a grace section; blocks freed meanwhile are reused only
 * after all sections that had begun have ended. Two counters, as in sleepable
 * RCU (McKenney 2006), but nobody waits: whoever has something to release asks
 * at convenient moments whether its time has come.
 */
#ifndef COW_GRACE_H
#define COW_GRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/util.h"

struct grace {
	struct mutex lock;
	uint64_t epoch;       /* lock; counts up */
	unsigned readers[2];  /* lock; of epoch, of epoch - 1 (by parity) */
	uint64_t entered;     /* lock; sections that have begun, ever */
};

void grace_init(struct grace *g);
void grace_fini(struct grace *g);

/* Begin a section; the ticket goes to grace_leave. Never blocks for long. */
unsigned grace_enter(struct grace *g);
void grace_leave(struct grace *g, unsigned ticket);

/* How many have begun so far: is anybody else at work? */
uint64_t grace_entered(struct grace *g);

/* A stamp for something made unreachable just now ... */
uint64_t grace_stamp(struct grace *g);
/* ... and whether every section that began before the stamp has ended. Moves
 * the epoch on when it can. */
bool grace_passed(struct grace *g, uint64_t stamp);

#endif
