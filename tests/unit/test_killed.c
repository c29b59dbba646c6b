/*
 * test_killed.c - programs that are killed one after the other, then a power cut
 *
 * Each opens as a mount does (STORE_LAZY) what the one before it left in the
 * host's memory, and goes on; some are killed in the middle of a commit. Whatever
 * the power cut takes from that memory, and whenever: the state found is one that
 * was there after the last thing that anybody was told to be durable.
 */
#include "snapshot/snapshot.h"
#include "unit/log_fixture.h"

#define STATES_MAX 512u
#define PROGRAMS_MAX 5u
#define STEPS_MAX 14u
#define CUTS 60u

/* The states that there were, in order. */
struct history {
	struct recorded rec;
	struct rng rng;
	struct bdev *faulty; /* over rec.log, for the program that runs */
	struct lab l;
	unsigned count, sure; /* states; the newest of which it was promised */
	struct {
		uint64_t digest;
		size_t at; /* entries of the log */
		unsigned sure;
	} state[STATES_MAX];
};

static unsigned any(struct history *h, unsigned n)
{
	return (unsigned)rng_below(&h->rng, n);
}

static void note_as(struct history *h, uint64_t digest)
{
	ck_assert_uint_lt(h->count, STATES_MAX);
	h->state[h->count].digest = digest;
	h->state[h->count].at = log_count(h->rec.log);
	h->state[h->count++].sure = h->sure;
}

static void note(struct history *h)
{
	note_as(h, digest(&h->l));
}

/* Was there such a state, not older than this one? */
static bool was(const struct history *h, unsigned from, uint64_t digest)
{
	for (; from < h->count; from++)
		if (h->state[from].digest == digest)
			return true;
	return false;
}

/* ---- what programs do ---- */

static uint64_t some_file(struct history *h, char name[2])
{
	struct attr a;

	name[0] = (char)('a' + any(h, 4));
	name[1] = '\0';
	if (!fs_lookup(h->l.fs, fs_live(h->l.fs), COWFS_INO_ROOT, name, 1, &a))
		return a.ino;
	a.ino = make_file(&h->l, name);
	note(h);
	return a.ino;
}

static int change(struct history *h, uint64_t ino, unsigned places, size_t len)
{
	static uint8_t buf[PIECE];

	rng_fill(&h->rng, buf, len);
	return fs_write(h->l.fs, ino, any(h, places) * len, buf, len, 0);
}

/* Whoever is told that it is done was promised that it stays. */
static int make_durable(struct history *h, uint64_t ino, unsigned how)
{
	char name[16];
	int err;

	snprintf(name, sizeof(name), "s%u", h->count);
	err = how == 0 ? store_commit(h->l.s, NULL, NULL) :
	      how == 1 ? snap_create(h->l.s, name, NULL) :
			 fs_fsync(h->l.fs, ino, false);
	if (!err)
		h->sure = h->count; /* which is noted now */
	return err;
}

static int step(struct history *h)
{
	unsigned what = any(h, 16);
	char name[2];
	uint64_t ino = some_file(h, name);
	int err;

	if (what < 5)
		err = make_durable(h, ino, what);
	else if (what < 8)
		err = change(h, ino, 8, PIECE);
	else if (what < 15)
		err = change(h, ino, 64, 4096);
	else
		err = fs_unlink(h->l.fs, COWFS_INO_ROOT, name, 1, NULL);
	if (!err && what == 15 && any(h, 2))
		err = store_drain(h->l.s);
	note(h);
	return err;
}

static void run_program(struct history *h)
{
	unsigned steps = any(h, STEPS_MAX), op = any(h, 3);
	int err = 0;

	ck_ok(fault_open(h->rec.log, &h->faulty));
	h->l = open_on(h->faulty, STORE_LAZY);
	ck_assert(!h->count || was(h, h->sure, digest(&h->l)));
	note(h);
	if (op)
		fault_from(h->faulty, op == 1 ? FAULT_FLUSH : FAULT_WRITE,
			   1 + any(h, 12), -EIO);
	while (!err && steps--)
		err = step(h);
	if (err || any(h, 6) || store_stopped(h->l.s)) {
		crash(&h->l);
	} else {
		fault_clear(h->faulty);
		close_it(&h->l);
		h->sure = h->count;
		note_as(h, h->state[h->count - 1].digest);
	}
	bdev_close(h->faulty);
}

/* ---- power cuts ---- */

/* The newest promise before this entry of the log. */
static unsigned sure_at(const struct history *h, size_t cut)
{
	unsigned i, sure = 0;

	for (i = 0; i < h->count && h->state[i].at <= cut; i++)
		sure = h->state[i].sure;
	return sure;
}

static void cut_power(struct history *h, struct replay *r, size_t cut)
{
	struct pick p = PICK(any(h, 5) ? PICK_SEED : PICK_NONE);
	struct bdev *dev;
	struct lab l;
	size_t sure;

	p.seed = rng_next(&h->rng);
	ck_ok(replay_cut(r, cut, &sure));
	ck_ok(replay_state(r, cut, &p, &dev));
	l = open_on(dev, any(h, 2) ? STORE_LAZY : 0);
	ck_assert(was(h, sure_at(h, cut), digest(&l)));
	write_piece(&l, make_file(&l, "after"), 0, 1);
	close_it(&l);
	l = open_on(dev, STORE_READONLY);
	test_check(l.s);
	close_it(&l);
	bdev_close(dev);
}

static void many_are_killed(struct history *h)
{
	unsigned programs = 2 + any(h, PROGRAMS_MAX - 1), i;
	struct replay r;
	size_t end;

	h->count = h->sure = 0;
	record_device(&h->rec);
	for (i = 0; i < programs; i++)
		run_program(h);
	replay_init(&r, h->rec.log, h->rec.base);
	end = log_count(h->rec.log);
	for (i = 0; i < CUTS; i++)
		cut_power(h, &r, i < 3 ? end : rng_below(&h->rng, end + 1));
	end_recording(&h->rec);
}

START_TEST(what_was_promised_survives_kills_and_then_a_power_cut)
{
	unsigned rounds = test_rounds(40), i;
	static struct history h;

	rng_init(&h.rng, test_seed(), 66);
	test_log_hide();
	for (i = 0; i < rounds; i++) {
		teardown();
		if (any(&h, 2))
			setup();
		else
			setup_two();
		many_are_killed(&h);
	}
	test_log_show();
}
END_TEST

static void add_all(TCase *tc)
{
	tcase_add_test(tc, what_was_promised_survives_kills_and_then_a_power_cut);
}

int main(void)
{
	Suite *s = suite_create("killed");

	test_case(s, "any", 300, setup, teardown, add_all);
	return test_main(s);
}
