/*
 * order.c - what locks a thread holds, and what it may take next
 *
 * Nothing is shared between threads, so the check changes no timing that
 * matters and needs no locks. Its room is that of a debug build: a thread that
 * holds more locks than HELD_MAX at once is wrong in any case.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "util/order.h"

#ifdef COWFS_LOCK_CHECK

#define HELD_MAX 16u

struct held {
	const void *lock;
	struct lock_place place;
};

static _Thread_local struct {
	struct held v[HELD_MAX];
	unsigned n;
	unsigned tree_io; /* order_tree_io, nested */
} my;

static const char *const names[LOCK_RANKS] = {
	[LOCK_GATE] = "gate (G)",       [LOCK_VIEWS] = "views (V)",
	[LOCK_INODE] = "inode (I)",     [LOCK_COMMIT] = "commit (C)",
	[LOCK_TREE] = "tree (T)",       [LOCK_WAIT] = "wait (W)",
	[LOCK_LEAF] = "leaf",           [LOCK_GRACE] = "grace",
	[LOCK_MEND] = "mend",           [LOCK_DEVICE] = "device",
	[LOCK_DEVICE_BELOW] = "device below",
};

static void say(const char *what, const struct lock_place *p)
{
	fprintf(stderr, "%s %s", what, names[p->rank]);
	if (p->number)
		fprintf(stderr, " %" PRIu64, p->number);
}

static bool may_follow(const struct lock_place *inner,
		       const struct lock_place *outer)
{
	if (inner->rank != outer->rank)
		return inner->rank > outer->rank;
	return outer->number && inner->number > outer->number;
}

void order_want(const void *lock, struct lock_place place)
{
	(void)lock;
	for (unsigned i = 0; i < my.n; i++) {
		if (may_follow(&place, &my.v[i].place))
			continue;
		say("cowfs: lock order: wants", &place);
		say(", has", &my.v[i].place);
		fputc('\n', stderr);
		abort();
	}
}

void order_have(const void *lock, struct lock_place place)
{
	if (my.n == HELD_MAX) {
		fprintf(stderr, "cowfs: lock order: too many are held\n");
		abort();
	}
	my.v[my.n++] = (struct held){ .lock = lock, .place = place };
}

void order_left(const void *lock)
{
	unsigned i = my.n;

	while (i && my.v[i - 1].lock != lock)
		i--;
	if (!i) {
		fprintf(stderr, "cowfs: lock order: one that is not held is "
			"unlocked\n");
		abort();
	}
	for (my.n--; i <= my.n; i++)
		my.v[i - 1] = my.v[i];
}

void order_io(void)
{
	for (unsigned i = 0; i < my.n && !my.tree_io; i++) {
		if (my.v[i].place.rank != LOCK_TREE)
			continue;
		fprintf(stderr, "cowfs: lock order: I/O or waiting under the "
			"tree lock\n");
		abort();
	}
}

void order_tree_io(bool allowed)
{
	if (allowed)
		my.tree_io++;
	else
		my.tree_io--;
}

#endif
