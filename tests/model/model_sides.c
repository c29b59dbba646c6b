/*
 * model_sides.c - whatever is done with the sides of a mirror one by one, what is
 * older is never taken for what is newer
 *
 * A filesystem on two sides is mounted, both or one side alone, written to,
 * scrubbed, closed, and cut off from its power at some write. Copies of a side are
 * taken at any time, and put back later, so that sides go back in time, go on from
 * there alone, and meet again. Sides are also replaced, as `cowctl mirror` does it.
 *
 * Versions of the contents form a tree: each write makes a child of what was there.
 * The model knows which version each side has, and says what a mount must come to:
 *
 *   - one side alone shows what it has, or is refused if it never was complete;
 *   - of two, one of which has all the other has, that one's is shown;
 *   - two of which each has something of its own are refused;
 *   - a side that is not complete counts for nothing;
 *   - a side is GOOD only if it can show everything alone (after a scrub, and
 *     now and then: each side does).
 *
 * What was under way when the power failed may be there or not, on each side.
 *
 * SEED repeats a run; ROUNDS multiplies the number of steps.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_BYTES (UINT64_C(8) << 20)
#define VERSIONS 4096u
#define COPIES 4u
#define FILES 4u
#define BOTH 3u
#define NONE 0u /* a version that there is not */

enum whole { NO, YES, MAYBE };

/* What the model knows of a side. */
struct side {
	unsigned sure;    /* version */
	unsigned maybe;   /* it may have what lies between that and this one */
	enum whole whole; /* is it complete? */
	uint64_t pair;    /* of which mirror it is a side; 0: of none */
	unsigned weak;    /* version of its newest commit, if nothing proves yet
			     that it was acknowledged */
};

/* A device, and the power of both. */
struct tap {
	struct bdev dev;
	struct bdev *mem;
};

static struct {
	struct tap tap[2];
	struct side side[2];
	struct { struct bdev *mem; struct side side; } copy[2][COPIES];
	struct bdev *dev;
	struct store *s;
	struct fs *fs;
	struct rng rng;
	unsigned there;  /* mask of sides that are mounted; 0: it is closed */
	unsigned good;   /* of these, those that are */
	unsigned now;    /* version */
	unsigned parent[VERSIONS], shows[VERSIONS], versions;
	bool guessed[VERSIONS]; /* the parent may be an older one */
	bool lone[VERSIONS];    /* made while one side was not there, or not good */
	uint64_t pairs;
	bool cut;        /* the power fails after */
	unsigned left;   /* so many writes and flushes */
	char trail[4096];
} m;

static const struct cred cred;

static bool one_in(uint64_t n)
{
	return rng_one_in(&m.rng, n);
}

static void trail(const char *what, unsigned a, unsigned b)
{
	size_t n = strlen(m.trail);

	if (n > sizeof(m.trail) - 64) {
		memmove(m.trail, m.trail + 2048, n - 2048 + 1);
		n -= 2048;
	}
	snprintf(m.trail + n, sizeof(m.trail) - n, " %s(%u,%u)", what, a, b);
}

/* ---- power ---- */

static bool power(void)
{
	if (!m.cut)
		return true;
	if (!m.left)
		return false;
	m.left--;
	return true;
}

static int tap_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(((struct tap *)dev)->mem, off, buf, len);
}

static int tap_writev(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	return power() ? bdev_writev(((struct tap *)dev)->mem, off, iov, n) :
			 -EIO;
}

static int tap_flush(struct bdev *dev)
{
	return power() ? bdev_flush(((struct tap *)dev)->mem) : -EIO;
}

static void tap_close(struct bdev *dev)
{
	(void)dev;
}

static const struct bdev_ops tap_ops = {
	.read = tap_read, .writev = tap_writev, .flush = tap_flush,
	.close = tap_close,
};

static struct bdev *tap(unsigned side, bool readonly)
{
	m.tap[side].dev = (struct bdev){ .ops = &tap_ops, .size = DEV_BYTES,
					 .readonly = readonly,
					 .name = side ? "side 1" : "side 0" };
	return &m.tap[side].dev;
}

/* ---- opening and closing ---- */

static void assemble(unsigned mask, bool readonly)
{
	struct bdev *side[2] = { NULL, NULL };
	unsigned i;

	for (i = 0; i < 2; i++)
		if (mask & 1u << i)
			side[i] = tap(i, readonly);
	ck_ok(bdev_open_mirror(side, &m.dev));
}

static int try_open(unsigned mask, bool readonly)
{
	int err;

	assemble(mask, readonly);
	err = test_mount(m.dev, readonly ? STORE_READONLY : 0, 1 << 20, &m.s,
			 &m.fs);
	if (err)
		bdev_close(m.dev);
	return err;
}

static unsigned state_mask(enum bdev_side state)
{
	unsigned i, mask = 0;

	for (i = 0; i < 2; i++)
		if (bdev_side_state(m.dev, i) == state)
			mask |= 1u << i;
	return mask;
}

static void let_go(void)
{
	fs_umount(m.fs);
	store_abandon(m.s);
	bdev_close(m.dev);
	m.there = 0;
}

/* ---- versions ---- */

/* Does it show that each version between the two had the one before it? */
static bool certain(unsigned version, unsigned older)
{
	for (; version != older; version = m.parent[version])
		if (m.guessed[version])
			return false;
	return true;
}

static bool has(unsigned version, unsigned older)
{
	while (version != older && version)
		version = m.parent[version];
	return version == older;
}

static unsigned new_version(unsigned of, bool written)
{
	unsigned v = ++m.versions;

	ck_assert_uint_lt(v, VERSIONS);
	m.parent[v] = of;
	m.shows[v] = written ? v : m.shows[of];
	m.lone[v] = m.good != BOTH;
	return v;
}

/* ---- contents: version v was written to file v % FILES, and noted in all ---- */

struct body { uint32_t version; uint8_t fill[6000]; };

static void fill(struct body *b, unsigned version)
{
	struct rng r;

	rng_init(&r, 7, version);
	b->version = version;
	rng_fill(&r, b->fill, sizeof(b->fill));
}

static int put_file(const char *name, const void *buf, size_t len, bool sync)
{
	struct attr a;
	int err = fs_lookup(m.fs, fs_live(m.fs), COWFS_INO_ROOT, name,
			    strlen(name), &a);

	if (err == -ENOENT)
		err = fs_create(m.fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a);
	if (!err)
		err = fs_write(m.fs, a.ino, 0, buf, len, 0);
	return err || !sync ? err : fs_fsync(m.fs, a.ino, false);
}

static int get_file(const char *name, void *buf, size_t len)
{
	struct attr a;
	size_t got;
	int err = fs_lookup(m.fs, fs_live(m.fs), COWFS_INO_ROOT, name,
			    strlen(name), &a);

	if (!err)
		err = fs_read(m.fs, fs_live(m.fs), a.ino, 0, buf, len, &got);
	if (!err)
		ck_assert_uint_eq(got, len);
	return err;
}

static int write_version(unsigned v)
{
	static uint8_t big[1 << 20];
	uint32_t note = v;
	struct body b;
	char name[8];
	int err = 0;

	snprintf(name, sizeof(name), "f%u", v % FILES);
	fill(&b, v);
	if (one_in(20)) {
		rng_fill(&m.rng, big, sizeof(big));
		err = put_file("big", big, sizeof(big), false);
	}
	if (!err)
		err = put_file(name, &b, sizeof(b), false);
	if (!err)
		err = put_file("note", &note, sizeof(note), one_in(2));
	return err ? err : one_in(2) ? store_commit(m.s, NULL, NULL) :
				       fs_fsync(m.fs, COWFS_INO_ROOT, false);
}

/* The version that is seen, in all its parts. */
static unsigned look(void)
{
	unsigned seen = 0, left = (1u << FILES) - 1, v, k;
	struct body got, want;
	uint32_t note = 0;
	char name[8];

	ck_ok(get_file("note", &note, sizeof(note)));
	seen = note;
	ck_assert_uint_le(seen, m.versions);
	for (v = seen; v && left; v = m.parent[v]) {
		k = v % FILES;
		if (m.shows[v] != v || !(left & 1u << k))
			continue;
		left &= ~(1u << k);
		snprintf(name, sizeof(name), "f%u", k);
		ck_ok(get_file(name, &got, sizeof(got)));
		fill(&want, v);
		ck_assert_msg(!memcmp(&got, &want, sizeof(got)),
			      "%s is of %u, not %u:%s", name, got.version, v,
			      m.trail);
	}
	return seen;
}

/* ---- what a mount must come to ---- */

/* Of two that each are complete; 2: refused. */
static unsigned better(unsigned a, unsigned b)
{
	return has(a, b) ? 0 : has(b, a) ? 1 : 2;
}

struct wanted {
	bool refused;          /* it may be */
	unsigned version[256], n; /* it may be shown */
};

static void may_show(struct wanted *w, unsigned v)
{
	unsigned i;

	for (i = 0; i < w->n; i++)
		if (w->version[i] == v)
			return;
	ck_assert_uint_lt(w->n, 256);
	w->version[w->n++] = v;
}

/* The versions that a complete side may have, the newest first. */
static unsigned may_have(unsigned side, unsigned v[256])
{
	const struct side *s = &m.side[side];
	unsigned n = 0, at = s->maybe ? s->maybe : s->sure;

	for (; at != s->sure && at; at = m.parent[at]) {
		ck_assert_uint_lt(n, 250);
		v[n++] = at;
	}
	v[n++] = s->sure;
	return n;
}

/* Is there something in `other` that v does not have, and that was made without
 * the other side? */
static bool differs_alone(unsigned other, unsigned v)
{
	for (; !has(v, other); other = m.parent[other])
		if (m.lone[other])
			return true;
	return false;
}

/*
 * Closing and mounting make versions, too, with which nothing is lost. A last
 * commit that the other side does not have, and that nothing proves, looks like one
 * that a crash left there (D4): that is let go of if the other went on alone. And
 * of what both sides had before one was put back nothing tells, once the other was
 * filled from that one, that it is not what led there.
 */
static void no_loss(struct wanted *w, unsigned v, unsigned other, unsigned weak)
{
	if (has(v, m.shows[other]) || !differs_alone(other, v) ||
	    (other == weak && has(v, m.shows[m.parent[other]])))
		may_show(w, v);
}

static void want_both(struct wanted *w)
{
	unsigned a[256], b[256], na, nb, i, j;
	enum whole x = m.side[0].whole, y = m.side[1].whole;

	if (m.side[0].pair && m.side[1].pair &&
	    m.side[0].pair != m.side[1].pair) {
		w->refused = true;
		return;
	}
	na = may_have(0, a);
	nb = may_have(1, b);
	if (x != YES && y != YES)
		w->refused = true;
	for (i = 0; y != YES && x != NO && i < na; i++)
		may_show(w, a[i]);
	for (i = 0; x != YES && y != NO && i < nb; i++)
		may_show(w, b[i]);
	for (i = 0; x != NO && y != NO && i < na; i++)
		for (j = 0; j < nb; j++)
			switch (better(a[i], b[j])) {
			case 0:
				may_show(w, a[i]);
				w->refused |= !certain(a[i], b[j]);
				break;
			case 1:
				may_show(w, b[j]);
				w->refused |= !certain(b[j], a[i]);
				break;
			default:
				w->refused = true;
				no_loss(w, a[i], b[j], m.side[1].weak);
				no_loss(w, b[j], a[i], m.side[0].weak);
			}
}

static void want(unsigned mask, struct wanted *w)
{
	unsigned v[256], n, i, side = mask == 2;

	memset(w, 0, sizeof(*w));
	if (mask == BOTH) {
		want_both(w);
		return;
	}
	n = may_have(side, v);
	for (i = 0; m.side[side].whole != NO && i < n; i++)
		may_show(w, v[i]);
	w->refused = m.side[side].whole != YES;
}

/* The newest version that may be shown and looks like this; NONE. */
static unsigned which(const struct wanted *w, unsigned shown)
{
	unsigned i, found = NONE;

	for (i = 0; i < w->n; i++)
		if (m.shows[w->version[i]] == shown && w->version[i] > found)
			found = w->version[i];
	return found;
}

static void complete(unsigned mask, unsigned version)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		if (mask & 1u << i)
			m.side[i] = (struct side){ .sure = version,
						   .whole = YES,
						   .pair = m.side[i].pair };
}

/* Who mounts makes a version. One side that is there, and not GOOD, is not
 * complete as soon as that is written. */
static void note_mounted(unsigned mask, unsigned version, bool guessed)
{
	unsigned i;

	m.there = mask;
	m.good = state_mask(SIDE_GOOD);
	m.now = new_version(version, false);
	m.guessed[m.now] = guessed;
	complete(m.good, m.now);
	for (i = 0; i < 2; i++)
		if (state_mask(SIDE_STALE) & 1u << i)
			m.side[i] = (struct side){ .sure = m.side[i].sure,
						   .whole = NO,
						   .pair = m.side[!i].pair };
}

static void dump(const char *what)
{
	unsigned i;

	for (i = 0; i < 2; i++)
		fprintf(stderr, "side %u: sure %u maybe %u whole %d pair %u\n",
			i, m.side[i].sure, m.side[i].maybe, m.side[i].whole,
			(unsigned)m.side[i].pair);
	fprintf(stderr, "%s;%s\n", what, m.trail);
	fprintf(stderr, "last: %s\n", test_log_last());
}

static void bad(const char *what, int err, unsigned v)
{
	dump(what);
	ck_abort_msg("%s: err %d version %u", what, err, v);
}

static bool mount_it(unsigned mask)
{
	struct wanted w;
	unsigned found;
	int err;

	want(mask, &w);
	err = try_open(mask, false);
	trail("mount", mask, (unsigned)-err);
	if (err) {
		if (!w.refused)
			bad("refused", err, 0);
		return false;
	}
	found = which(&w, look());
	if (!found)
		bad("shown", 0, look());
	note_mounted(mask, found, w.n > 1);
	trail("shows", m.now, m.good);
	return true;
}

static void check_alone(unsigned side)
{
	struct check_options opt = { .data = true, .semantics = true };
	struct check_result res;

	ck_ok(try_open(1u << side, true));
	if (look() != m.shows[m.side[side].sure])
		bad("alone", 0, look());
	ck_ok(check_run(m.s, &opt, &res));
	if (res.problems)
		bad("problems", 0, 0);
	let_go();
}

/* It makes a version, too, with the last superblock. */
static void close_it(void)
{
	unsigned i, good = m.good;

	trail("close", m.there, m.good);
	fs_umount(m.fs);
	ck_ok(store_drain(m.s));
	ck_ok(store_close(m.s));
	bdev_close(m.dev);
	m.there = 0;
	complete(good, new_version(m.now, false));
	for (i = 0; i < 2; i++)
		if (good & 1u << i && one_in(3))
			check_alone(i);
}

/* ---- steps ---- */

static void written(unsigned version)
{
	unsigned i;

	complete(m.good, version);
	for (i = 0; i < 2; i++)
		if (m.good & 1u << i)
			m.side[i].weak = version;
}

static void do_write(void)
{
	m.now = new_version(m.now, true);
	ck_ok(write_version(m.now));
	written(m.now);
	trail("w", m.now, m.good);
}

static void do_scrub(void)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(m.s, &opt, &res));
	ck_assert_uint_eq(res.lost, 0);
	trail("scrub", m.there, m.good);
	if (m.there == m.good)
		return;
	m.good = state_mask(SIDE_GOOD);
	ck_assert_uint_eq(m.good, m.there);
	m.now = new_version(m.now, false);
	complete(m.good, m.now);
}

/* As it is now, while mounted, too (then it is as after a crash). */
static void do_copy(void)
{
	unsigned i = (unsigned)rng_below(&m.rng, 2);
	unsigned c = (unsigned)rng_below(&m.rng, COPIES);

	bdev_close(m.copy[i][c].mem);
	ck_ok(bdev_open_mem(DEV_BYTES, &m.copy[i][c].mem));
	ck_ok(dev_copy(m.copy[i][c].mem, m.tap[i].mem));
	m.copy[i][c].side = m.side[i];
	trail("copy", i, c);
}

static void do_put_back(void)
{
	unsigned i = (unsigned)rng_below(&m.rng, 2);
	unsigned c = (unsigned)rng_below(&m.rng, COPIES);

	if (!m.copy[i][c].mem)
		return;
	bdev_close(m.tap[i].mem);
	ck_ok(bdev_open_mem(DEV_BYTES, &m.tap[i].mem));
	ck_ok(dev_copy(m.tap[i].mem, m.copy[i][c].mem));
	m.side[i] = m.copy[i][c].side;
	trail("back", i, c);
}

static void cut_scrub(void)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;
	unsigned i, v = new_version(m.now, false);

	m.left = (unsigned)rng_below(&m.rng, one_in(2) ? 60 : 400);
	if (check_run(m.s, &opt, &res))
		trail("cutscrub", m.left, 0);
	for (i = 0; i < 2; i++) {
		if (!(m.there & 1u << i))
			continue;
		if (!(m.good & 1u << i))
			m.side[i] = (struct side){ .sure = m.now,
						   .whole = MAYBE,
						   .pair = m.side[i].pair };
		m.side[i].maybe = v;
	}
}

static void cut_write(void)
{
	unsigned v = new_version(m.now, true), i;

	m.left = (unsigned)rng_below(&m.rng, one_in(4) ? 80 : 24);
	if (write_version(v) == 0) {
		written(v);
		return;
	}
	for (i = 0; i < 2; i++)
		if (m.good & 1u << i)
			m.side[i].maybe = v;
}

static void do_power_cut(void)
{
	m.cut = true;
	if (m.good != m.there && one_in(2))
		cut_scrub();
	else
		cut_write();
	trail("cut", m.left, m.versions);
	m.cut = false;
	let_go();
}

/* Whoever has a side that the power left half filled replaces it. */
static void lose(unsigned side)
{
	bdev_close(m.tap[side].mem);
	ck_ok(bdev_open_mem(DEV_BYTES, &m.tap[side].mem));
	m.side[side] = (struct side){ .whole = NO };
}

/* A mount that the power cuts: what it makes may be on each side that counts, and
 * on one that was found to be stale there may be some of it. */
static void do_cut_mount(unsigned mask)
{
	struct side was[2] = { m.side[0], m.side[1] };
	struct wanted w;
	unsigned i, found = 0, v;
	int err;

	want(mask, &w);
	m.cut = true;
	m.left = (unsigned)rng_below(&m.rng, 20);
	err = try_open(mask, false);
	trail("cutmount", mask, (unsigned)-err);
	m.cut = false;
	if (!err) {
		found = which(&w, look());
		if (!found)
			bad("cut mount shows", 0, look());
		let_go();
	} else if (!w.n || err == -ENOTUNIQ || err == -ENODEV) {
		return; /* nothing was written */
	}
	/* the newest that it may have shown */
	for (i = 0; i < w.n; i++)
		found = w.version[i] > found ? w.version[i] : found;
	v = new_version(found, false);
	m.guessed[v] = w.n > 1;
	for (i = 0; i < 2; i++) {
		if (!(mask & 1u << i) || was[i].whole == NO)
			continue;
		if (has(v, m.side[i].sure))
			m.side[i].maybe = v;
		if (mask == BOTH &&
		    !has(was[i].sure, was[!i].maybe ? was[!i].maybe :
						      was[!i].sure))
			lose(i);
	}
}

/* What is to be done about two that cannot be mounted. */
static void settle(void)
{
	unsigned keep = (unsigned)rng_below(&m.rng, 2);

	if (m.side[keep].whole != YES)
		keep = !keep;
	if (m.side[keep].whole != YES)
		return;
	if (!mount_it(1u << keep))
		bad("keep", 0, 0);
	trail("keep", keep, 0);
	m.side[!keep] = (struct side){ .whole = NO,
				       .pair = m.side[keep].pair };
	if (one_in(2)) {
		close_it();
		bdev_close(m.tap[!keep].mem);
		ck_ok(bdev_open_mem(DEV_BYTES, &m.tap[!keep].mem));
		if (!mount_it(BOTH))
			bad("new side", 0, 0);
	} else {
		ck_ok(store_mirror_add(m.s, tap(!keep, false)));
		m.side[0].pair = m.side[1].pair = ++m.pairs;
		m.there = BOTH;
	}
	do_scrub();
}

static void step(void)
{
	unsigned mask = one_in(2) ? BOTH : 1 + (unsigned)rng_below(&m.rng, 2);

	switch (rng_below(&m.rng, m.there ? 12 : 9)) {
	case 0:
		do_copy();
		break;
	case 1:
		if (!m.there)
			do_put_back();
		break;
	case 2:
		if (!m.there && one_in(3))
			do_cut_mount(mask);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		if (m.there)
			close_it();
		else if (!mount_it(mask) && mask == BOTH && one_in(2))
			settle();
		break;
	case 7:
		if (m.there)
			do_power_cut();
		break;
	case 8:
		if (m.there && one_in(2))
			do_scrub();
		break;
	default:
		break;
	}
	if (m.there && one_in(2)) {
		unsigned n = one_in(4) ? 20 : 1 + (unsigned)rng_below(&m.rng, 4);

		while (n--)
			do_write();
	}
}

START_TEST(older_is_never_taken_for_newer)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };
	unsigned i, j, n = 60;

	test_log_hide();
	memset(&m, 0, sizeof(m));
	rng_init(&m.rng, test_seed(), 9000 + (uint64_t)_i);
	for (i = 0; i < 2; i++)
		ck_ok(bdev_open_mem(DEV_BYTES, &m.tap[i].mem));
	assemble(BOTH, false);
	ck_ok(cowfs_mkfs(m.dev, &opt));
	bdev_close(m.dev);
	m.pairs = 1;
	ck_ok(try_open(BOTH, false));
	m.there = m.good = BOTH;
	m.side[0].pair = m.side[1].pair = 1;
	for (i = 0; i < FILES; i++)
		do_write();
	for (i = 0; i < n && m.versions < VERSIONS - 100; i++)
		step();
	if (m.there)
		close_it();
	test_log_show();
	for (i = 0; i < 2; i++)
		bdev_close(m.tap[i].mem);
	for (i = 0; i < 2; i++)
		for (j = 0; j < COPIES; j++)
			bdev_close(m.copy[i][j].mem);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sides model");
	TCase *tc = tcase_create("sides model");

	tcase_set_timeout(tc, 3600);
	tcase_add_loop_test(tc, older_is_never_taken_for_newer, 0,
			    (int)test_rounds(40));
	suite_add_tcase(s, tc);
	return test_main(s);
}
