/*
 * scrub_damage.c - what a scrub found damaged: ranges in order of address
 *
 * Data come in that order but for what several stretches see, so most are added
 * at the end; blocks next to each other that met the same fate are one range.
 */
#include "check/scrub.h"

size_t damage_at(const struct damages *d, uint64_t blk)
{
	const struct damage *v = d->list.at;
	size_t lo = 0, hi = d->list.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid].blk + v[mid].blocks > blk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

/* Does b go on where a ends, in every respect? */
static bool follows(const struct damage *a, const struct damage *b)
{
	return !a->node && !b->node && a->blk + a->blocks == b->blk &&
	       a->fate == b->fate && a->gen == b->gen &&
	       (a->blk2 ? b->blk2 == a->blk2 + a->blocks : !b->blk2);
}

bool damage_add(struct damages *d, const struct damage *new)
{
	size_t i = damage_at(d, new->blk);
	struct damage *v = d->list.at;

	if (i < d->list.n && v[i].blk <= new->blk && v[i].node == new->node)
		return false;
	if (i && follows(&v[i - 1], new)) {
		v[i - 1].blocks += new->blocks;
		return true;
	}
	if (d->list.n >= DAMAGE_MAX || !array_add(&d->list, sizeof(*v))) {
		d->untold++;
		return true;
	}
	v = d->list.at;
	memmove(v + i + 1, v + i, (d->list.n - 1 - i) * sizeof(*v));
	v[i] = *new;
	return true;
}
