/*
 * scrub.c - all places of each unit, verified and mended
 */
#include "block/unit.h"

/* Blocks that scrub reads at once; bits of a mask. */
#define SCRUB_BLOCKS 64u

/* A run of units that is checked at once, and what was found. */
struct sweep {
	struct run run; /* count <= SCRUB_BLOCKS */
	unsigned last;  /* places behind those of run: stale ones, for what is
			   good nowhere else */
	enum unit_state state[PLACES_MAX][SCRUB_BLOCKS];
	uint8_t from[SCRUB_BLOCKS]; /* place that the buffer was read from */
	bool good[SCRUB_BLOCKS];    /* the buffer is */
};

struct scrub_sum {
	unsigned bad, repaired;
};

/* Read one place of all the units. */
static void sweep_place(struct blockio *io, struct sweep *s, unsigned p)
{
	const struct run *r = &s->run;
	bool failed = unit_dev_read(io, r, p, 0, r->count);
	size_t i;

	for (i = 0; i < r->count; i++)
		s->state[p][i] = failed ? unit_read_again(io, r, p, i)
					: unit_verify(io, r, p, i);
}

/*
 * Unit i, of which the first place is in the buffer: have something good there
 * if there is anything.
 */
static void settle(struct blockio *io, struct sweep *s, size_t i,
		   struct scrub_sum *sum)
{
	const struct run *r = &s->run;
	enum unit_state state[PLACES_MAX];
	unsigned p;

	for (p = 0; p < r->places; p++)
		sum->bad += s->state[p][i] != GOOD &&
			    !unit_unheard(io, &r->place[p]);
	for (p = 0; p < r->places; p++) {
		if (s->state[p][i] != GOOD)
			continue;
		/* those of the others are no longer in the buffer */
		if (p > 0)
			s->state[p][i] = unit_read(io, r, p, i);
		if (s->state[p][i] == GOOD)
			break;
	}
	while (p >= r->places && p < s->last &&
	       unit_read(io, r, p, i) != GOOD)
		p++;
	s->good[i] = p < s->last;
	s->from[i] = (uint8_t)p;
	if (s->good[i])
		return;
	for (p = 0; p < r->places; p++)
		state[p] = s->state[p][i];
	(void)unit_give_up(io, r, i, state);
}

/* Units from i on that are bad at place p alike, and good in the buffer. */
static size_t alike(const struct sweep *s, unsigned p, size_t i)
{
	size_t n = 0;

	while (i + n < s->run.count && s->good[i + n] &&
	       s->state[p][i + n] == s->state[p][i] &&
	       s->from[i + n] == s->from[i])
		n++;
	return n;
}

/* What is bad at place p, in as few writes as can be; one by one where a write
 * failed. */
static void sweep_mend(struct blockio *io, const struct sweep *s, unsigned p,
		       bool mend, struct scrub_sum *sum)
{
	const struct run *r = &s->run;
	size_t i, k, n, done;

	for (i = 0; i < r->count; i += n) {
		n = 1;
		if (!s->good[i] || s->state[p][i] == GOOD)
			continue;
		n = alike(s, p, i);
		done = unit_mend(io, r, p, s->from[i], i, n, s->state[p][i],
				 mend);
		for (k = i; n > 1 && mend && !done && k < i + n; k++)
			done += unit_mend(io, r, p, s->from[i], k, 1,
					  s->state[p][k], mend);
		if (!r->place[p].stale)
			sum->repaired += (unsigned)done;
	}
}

static void sweep(struct blockio *io, struct sweep *s, bool mend,
		  struct scrub_sum *sum)
{
	unsigned p;
	size_t i;

	for (p = s->run.places; p-- > 0;)
		sweep_place(io, s, p);
	for (i = 0; i < s->run.count; i++)
		settle(io, s, i, sum);
	for (p = 0; p < s->run.places; p++)
		sweep_mend(io, s, p, mend, sum);
}

static void mark_lost(uint8_t *lost, size_t first, size_t n)
{
	size_t i;

	for (i = first; lost && i < first + n; i++)
		lost[i / 8] = (uint8_t)(lost[i / 8] | 1u << i % 8);
}

int block_scrub(struct blockio *io, struct copies at, size_t n,
		const uint32_t *csum, bool whole, bool mend, void *buf,
		unsigned *bad, unsigned *repaired, uint8_t *lost)
{
	size_t i, done = 0, unit = whole ? n : 1;
	struct scrub_sum sum = { 0 };
	struct sweep s = { .run.blocks = unit };
	int err;

	err = unit_check_copies(io, at, n);
	if (err)
		return err;
	while (done < n) {
		unit_find_places(io,
				 (struct copies){ at.a + done,
						  at.b ? at.b + done : 0 },
				 true, &s.run);
		s.last = s.run.places;
		while (!(mend && io->repair) && s.run.places > 1 &&
		       s.run.place[s.run.places - 1].stale)
			s.run.places--;
		s.run.buf = (uint8_t *)buf + unit_bytes(done);
		s.run.csum = whole ? csum : csum + done;
		s.run.count = whole ? 1 : min_u64(n - done, SCRUB_BLOCKS);
		sweep(io, &s, mend, &sum);
		for (i = 0; i < s.run.count; i++)
			if (!s.good[i])
				mark_lost(lost, done + i * unit, unit);
		done += s.run.count * unit;
	}
	*bad += sum.bad;
	*repaired += sum.repaired;
	return 0;
}
