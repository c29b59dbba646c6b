/*
 * ahead.c - leaves that will probably be wanted next
 *
 * Who walks a tree that is not in memory waits for the device at each leaf. So
 * the device is told beforehand of the leaves that follow the missing one under
 * the same parent: of a few, then of more and more the further the walk has
 * come, which shows in the leaves before this one being in memory. Nobody waits
 * for them, and they are read and verified only when they are wanted.
 *
 * The nodes are found under the tree lock (cache_want), the device is told
 * without it (forest_load).
 */
#include "btree/tree.h"

#define FIRST 4u /* leaves that are hinted at after a jump */

static bool resident(const struct forest *f, const void *node, unsigned slot)
{
	struct nptr p = node_child(node, slot);

	return cache_find(f, p.blk, p.gen) != NULL;
}

/* Leaves in memory just before this one, as far as it matters. */
static unsigned behind(const struct forest *f, const void *parent,
		       unsigned slot)
{
	unsigned n = 0;

	while (n < slot && n < AHEAD_MAX / 2 &&
	       resident(f, parent, slot - 1 - n))
		n++;
	return n;
}

/*
 * Which leaves are to be told of, counted from the missing one: after a jump
 * FIRST of them, then with each doubling of the way twice as many, less those
 * of before; in the end half of the greatest number at a time.
 */
static void window(unsigned before, unsigned slot, unsigned *from,
		   unsigned *to)
{
	*from = *to = 0;
	if (before == AHEAD_MAX / 2) {
		if (slot % (AHEAD_MAX / 2))
			return;
		*from = AHEAD_MAX / 2;
		*to = AHEAD_MAX;
	} else if (!(before & (before + 1))) {
		*from = before ? (FIRST - 1) * (before + 1) / 2 : 0;
		*to = (unsigned)min_u64(FIRST * (before + 1), AHEAD_MAX);
	}
}

unsigned ahead_find(const struct forest *f, const void *parent, unsigned slot,
		    uint64_t blk[AHEAD_MAX])
{
	unsigned n = nr(parent), found = 0, from, to;

	window(behind(f, parent, slot), slot, &from, &to);
	for (unsigned i = from; i < to && slot + 1 + i < n; i++)
		if (!resident(f, parent, slot + 1 + i))
			blk[found++] = node_child(parent, slot + 1 + i).blk;
	return found;
}

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

void ahead_tell(struct forest *f, uint64_t *blk, unsigned n)
{
	unsigned run;

	qsort(blk, n, sizeof(*blk), by_number);
	for (; n; blk += run, n -= run) {
		run = 1;
		while (run < n && blk[run] == blk[run - 1] + f->node_blocks)
			run++;
		block_ahead(f->cfg.io, *blk, (uint64_t)run * f->node_blocks);
	}
}
