/*
 * scrub_pace.c - how fast a scrub may go
 *
 * With a rate: reads are spread so that it is kept. Without one it gives way:
 * whenever somebody else has begun an operation since the last look (each
 * stands in a grace section), it rests three times as long as its own last
 * slice of reading took. So it has a quarter of the time at most while others
 * are at work, and all of it when nobody is.
 *
 * Its thread is not nice: one that waits for a CPU inside a grace section, or
 * with a leaf lock, makes those wait that it is nice to. (On a busy machine
 * writers found no space then: what had been freed waited for this reader.)
 */
#include "check/scrub.h"

#define SLICE_BYTES (UINT64_C(256) << 10)
#define BURST_NS UINT64_C(50000000) /* idle time that a rate may make up for */
#define REST_MAX_NS UINT64_C(100000000)

static void begin_slice(struct scrub *sc)
{
	sc->pace.slice = 0;
	sc->pace.mine = 0;
	sc->pace.since = now_ns();
	sc->pace.sections = grace_entered(&sc->s->grace);
}

void pace_init(struct scrub *sc)
{
	sc->pace = (struct pace){ .due = now_ns() };
	begin_slice(sc);
}

/* When may the next slice begin? lock held. */
static uint64_t due_at(struct scrub *sc, uint64_t now)
{
	struct pace *p = &sc->pace;
	uint64_t took = now - p->since, begun;

	if (sc->rate) {
		double ns = (double)p->slice / (double)sc->rate * 1e9;

		p->due = max_u64(p->due, now - min_u64(now, BURST_NS)) +
			 (uint64_t)ns;
		return p->due;
	}
	begun = grace_entered(&sc->s->grace) - p->sections;
	return begun > p->mine ? now + min_u64(3 * took, REST_MAX_NS) : now;
}

/* Until it is due, or somebody wants something else. lock held. */
static void rest(struct scrub *sc, uint64_t due, uint64_t now)
{
	uint64_t rate = sc->rate;

	for (; now < due && sc->want == WANT_GO; now = now_ns()) {
		(void)cond_wait_ms(&sc->wake, &sc->lock,
				   (due - now) / 1000000 + 1);
		if (sc->rate != rate) {
			sc->pace.due = now_ns();
			break;
		}
	}
}

bool pace_wait(struct scrub *sc, unsigned ms)
{
	bool stop;

	mutex_lock(&sc->lock);
	if (sc->want == WANT_GO)
		(void)cond_wait_ms(&sc->wake, &sc->lock, ms);
	stop = sc->want != WANT_GO;
	mutex_unlock(&sc->lock);
	return stop;
}

bool pace_read(struct scrub *sc, uint64_t n)
{
	struct pace *p = &sc->pace;
	uint64_t now;
	bool stop;

	p->mine++; /* each read is one section */
	p->slice += n;
	mutex_lock(&sc->lock);
	now = now_ns();
	if (p->slice >= SLICE_BYTES ||
	    (sc->rate && p->slice * 10 >= sc->rate)) {
		rest(sc, due_at(sc, now), now);
		begin_slice(sc);
	}
	stop = sc->want != WANT_GO;
	mutex_unlock(&sc->lock);
	return stop;
}
