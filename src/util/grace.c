/*
 * grace.c - epochs of readers
 *
 *   G1  Only readers of the running epoch e and of e - 1 exist. e moves on to
 *       e + 1 only when none of e - 1 is left; so their two counters, told
 *       apart by parity, are enough.
 *   G2  A section that begins is counted in the running epoch. What began
 *       before a stamp e was taken therefore belongs to e or e - 1.
 *   G3  When the epoch is e + 2, the step to it found no reader of e, and the
 *       step before it none of e - 1: all that began before the stamp ended.
 *
 * Readers that come after the stamp may delay it by being counted in e as
 * well, but not for ever: once the epoch has moved on they are counted
 * elsewhere.
 */
#include <assert.h>

#include "util/grace.h"

void grace_init(struct grace *g)
{
	mutex_init(&g->lock, LOCK_GRACE);
	g->epoch = 2; /* a stamp of 0 has passed */
	g->readers[0] = 0;
	g->readers[1] = 0;
	g->entered = 0;
}

void grace_fini(struct grace *g)
{
	assert(g->readers[0] == 0 && g->readers[1] == 0);
	mutex_fini(&g->lock);
}

unsigned grace_enter(struct grace *g)
{
	unsigned ticket;

	mutex_lock(&g->lock);
	ticket = g->epoch & 1;
	g->readers[ticket]++;
	g->entered++;
	mutex_unlock(&g->lock);
	return ticket;
}

void grace_leave(struct grace *g, unsigned ticket)
{
	mutex_lock(&g->lock);
	assert(ticket < 2 && g->readers[ticket] > 0);
	g->readers[ticket]--;
	mutex_unlock(&g->lock);
}

uint64_t grace_entered(struct grace *g)
{
	uint64_t n;

	mutex_lock(&g->lock);
	n = g->entered;
	mutex_unlock(&g->lock);
	return n;
}

uint64_t grace_stamp(struct grace *g)
{
	uint64_t stamp;

	mutex_lock(&g->lock);
	stamp = g->epoch;
	mutex_unlock(&g->lock);
	return stamp;
}

bool grace_passed(struct grace *g, uint64_t stamp)
{
	bool passed;

	mutex_lock(&g->lock);
	/* epoch - 1 and epoch + 1 share a counter */
	while (g->epoch < stamp + 2 && g->readers[(g->epoch + 1) & 1] == 0)
		g->epoch++;
	passed = g->epoch >= stamp + 2;
	mutex_unlock(&g->lock);
	return passed;
}
