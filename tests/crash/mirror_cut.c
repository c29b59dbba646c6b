/*
 * mirror_cut.c - power cuts of a mirror, each side losing what it likes
 *
 * A scenario runs once over two recording devices. For cuts in time, each side
 * is rebuilt as it may be then, independently of the other: all that was
 * flushed, and of the rest nothing, everything, or a part, with a write torn.
 * In some scenarios one side fails at some point, and is dropped; in some what both
 * lie on is full now and then, for which none is.
 *
 *   - Both together open by themselves, in a state that was: the newest that
 *     was acknowledged or the one under way; and check clean.
 *   - So does each side alone, if it had not failed: what was acknowledged
 *     does not need the other.
 *   - If none had failed, neither is stale; after opening, each side alone has
 *     all of it, without a resync.
 *   - After a scrub that is so in any case.
 *
 * In others a side is added to a plain image, filled, and one of the two is
 * removed, all while it is in use:
 *
 *   - Who names the side that has everything gets what was acknowledged, be it
 *     a plain image yet, a mirror, or a plain image again.
 *   - The other one is never taken for a filesystem of its own, and can't be
 *     opened for writing alone before it is complete.
 *
 * In the last kind the side is filled by a scrub in small pieces, which is paused,
 * killed and gone on with, each time by another mount, files changing between; after
 * a cut it is gone on with once more:
 *
 *   - Then each side alone has everything, whatever was copied before.
 *
 * SEED repeats a run; ROUNDS multiplies the number of scenarios.
 */
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "cowfs/ioctl.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"
#include "txn/private.h"

#define DEV_SIZE (UINT64_C(10) << 20)
#define MARKS 512
#define NEVER SIZE_MAX
#define TIMES 65536
#define BOTH 3u

/* A state that was acknowledged, or is about to be: when that began and when it
 * was done. Time is counted in requests to either side. */
struct mark {
	uint64_t digest;
	size_t begin, end;
};

/* A side: memory below a device that fails, below one that records, below one
 * that keeps the time. */
struct tap {
	struct bdev dev;
	struct bdev *mem, *fault, *log;
	bool full;     /* after so many writes: */
	unsigned room;
};

static struct scene {
	struct tap tap[2];
	struct bdev *base[2], *mirror;
	struct store *s;
	struct fs *fs;
	struct rng rng;
	struct mark mark[MARKS];
	unsigned marks;
	int failed;        /* side that fails; -1: none */
	size_t failed_at;  /* when it was gone */
	bool thin;         /* what they lie on is full now and then */
	unsigned refused;  /* commits that found it full */
	struct { size_t begin, end; } added, filled, removed;
	unsigned kept;     /* side that was not removed */
	size_t time[TIMES][2]; /* entries of each log */
	size_t now;
} sc;

static const struct cred cred = { .umask = 022 };

/* ---- time ---- */

/* The timer writes, too, where storage was full. */
static void tick(void)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	unsigned i;

	pthread_mutex_lock(&lock);
	ck_assert_uint_lt(sc.now + 1, TIMES);
	sc.now++;
	for (i = 0; i < 2; i++)
		sc.time[sc.now][i] = log_count(sc.tap[i].log);
	pthread_mutex_unlock(&lock);
}

static int tap_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(((struct tap *)dev)->log, off, buf, len);
}

/* A part of it finds room. */
static int write_part(struct tap *t, uint64_t off, const struct iovec *iov)
{
	int err = bdev_write(t->log, off, iov->iov_base,
			     iov->iov_len / 1024 * TEST_SECTOR);

	return err ? err : -ENOSPC;
}

static int tap_writev(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	struct tap *t = (struct tap *)dev;
	int err;

	if (t->full && !t->room) {
		err = write_part(t, off, iov);
	} else {
		t->room -= t->full;
		err = bdev_writev(t->log, off, iov, n);
	}
	tick();
	return err;
}

static int tap_writev_durable(struct bdev *dev, uint64_t off, struct iovec *iov,
			      int n)
{
	struct tap *t = (struct tap *)dev;
	struct iovec again[8];
	int err;

	ck_assert_int_le(n, 8);
	memcpy(again, iov, (size_t)n * sizeof(*iov));
	err = bdev_writev(t->log, off, iov, n);
	tick(); /* it may be torn */
	if (!err)
		err = bdev_flush(t->fault); /* fails if it is told to */
	if (!err)
		err = bdev_writev_durable(t->log, off, again, n);
	tick();
	return err;
}

static int tap_flush(struct bdev *dev)
{
	int err = bdev_flush(((struct tap *)dev)->log);

	tick();
	return err;
}

static void tap_close(struct bdev *dev)
{
	(void)dev;
}

static const struct bdev_ops tap_ops = {
	.read = tap_read, .writev = tap_writev, .flush = tap_flush,
	.writev_durable = tap_writev_durable,
	.close = tap_close,
};

/* ---- the scenario ---- */

static int try_open(struct bdev *dev, bool readonly, struct store **s,
		    struct fs **fs)
{
	return test_mount(dev, readonly ? STORE_READONLY : STORE_LAZY, 1 << 20,
			  s, fs);
}

static void open_fs(struct bdev *dev, bool readonly, struct store **s,
		    struct fs **fs)
{
	ck_ok(try_open(dev, readonly, s, fs));
}

/* plain: side 0 is a plain image, side 1 another one. */
static void make_scene(uint64_t stream, uint32_t node_size, bool plain)
{
	struct store_config cfg = { 0 };
	struct bdev *side[2];
	struct store_format f = { .blocks = DEV_SIZE / COWFS_BLOCK_SIZE,
				  .node_size = node_size,
				  .meta_copies = 1 + stream % 2,
				  .data_copies = 1 };
	unsigned i;

	memset(&sc, 0, sizeof(sc));
	sc.failed = -1;
	rng_init(&sc.rng, test_seed(), 1000 + stream);
	for (i = 0; i < 2; i++) {
		struct tap *t = &sc.tap[i];

		ck_ok(bdev_open_mem(DEV_SIZE, &t->mem));
		ck_ok(fault_open(t->mem, &t->fault));
		ck_ok(log_open(t->fault, &t->log));
		t->dev = (struct bdev){ .ops = &tap_ops, .size = DEV_SIZE,
					.name = i ? "side 1" : "side 0" };
		side[i] = &t->dev;
	}
	rng_fill(&sc.rng, f.uuid, sizeof(f.uuid));
	if (plain) {
		ck_ok(store_format(side[1], &f));
		rng_fill(&sc.rng, f.uuid, sizeof(f.uuid));
		ck_ok(bdev_open_extensible(side[0], &sc.mirror));
	} else {
		ck_ok(bdev_open_mirror(side, &sc.mirror));
	}
	ck_ok(store_format(sc.mirror, &f));
	cfg.dev = sc.mirror;
	ck_ok(store_open(&cfg, &sc.s));
	ck_ok(fs_format(sc.s, 0, 0, 0755));
	ck_ok(store_close(sc.s));
	for (i = 0; i < 2; i++) {
		ck_ok(bdev_open_mem(DEV_SIZE, &sc.base[i]));
		ck_ok(dev_copy(sc.base[i], sc.tap[i].mem));
		log_reset(sc.tap[i].log);
	}
	sc.now = 0;
}

static void mark_at(size_t begin, size_t end)
{
	struct mark *m = &sc.mark[sc.marks++];

	ck_assert_uint_lt(sc.marks, MARKS);
	*m = (struct mark){ .begin = begin, .end = end };
	ck_ok(fs_digest(sc.fs, &m->digest));
}

static void mark(size_t begin)
{
	mark_at(begin, sc.now);
}

static int write_one(const char *name, size_t len)
{
	static uint8_t buf[70000];
	struct attr a;

	if (fs_lookup(sc.fs, fs_live(sc.fs), COWFS_INO_ROOT, name, len, &a))
		return 0;
	rng_fill(&sc.rng, buf, sizeof(buf));
	return fs_write(sc.fs, a.ino, rng_below(&sc.rng, 100000), buf,
			1 + rng_below(&sc.rng, rng_one_in(&sc.rng, 3) ?
				      sizeof(buf) : 900), 0);
}

static void one_op(void)
{
	size_t begin = sc.now;
	char a[16], b[16];
	size_t la, lb;
	struct attr attr;
	int err;

	la = (size_t)snprintf(a, sizeof(a), "f%u",
			      (unsigned)rng_below(&sc.rng, 16));
	lb = (size_t)snprintf(b, sizeof(b), "f%u",
			      (unsigned)rng_below(&sc.rng, 16));
	switch (rng_below(&sc.rng, 6)) {
	case 0:
	case 1:
		err = fs_create(sc.fs, COWFS_INO_ROOT, a, la, S_IFREG | 0644, 0,
				NULL, &cred, &attr);
		break;
	case 2:
		err = fs_rename(sc.fs, COWFS_INO_ROOT, a, la, COWFS_INO_ROOT,
				b, lb, 0);
		break;
	case 3:
		err = rng_one_in(&sc.rng, 3) ?
			      fs_unlink(sc.fs, COWFS_INO_ROOT, a, la, NULL) : 0;
		break;
	default:
		err = write_one(a, la);
	}
	ck_assert(!err || err == -ENOENT || err == -EEXIST ||
		  (err == -ENOSPC && sc.thin));
	if (sc.thin) /* it may be committed at any time */
		mark_at(begin, NEVER);
}

static void one_commit(unsigned n)
{
	size_t begin = sc.now;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "s%u", n % 3);
	switch (rng_below(&sc.rng, 8)) {
	case 0:
		err = snap_create(sc.s, name, NULL);
		break;
	case 1:
		err = fs_snap_delete(sc.fs, name);
		break;
	case 2:
		err = store_commit(sc.s, NULL, NULL);
		break;
	default:
		err = fs_fsync(sc.fs, COWFS_INO_ROOT, false);
	}
	if (sc.thin && (err == -ENOSPC || err == -EINPROGRESS)) {
		sc.refused++;
		mark_at(begin, NEVER);
		return;
	}
	ck_assert(!err || err == -ENOENT || err == -EEXIST);
	if (!err)
		mark(begin);
	if (sc.failed >= 0 && !sc.failed_at &&
	    bdev_side_state(sc.mirror, (unsigned)sc.failed) == SIDE_GONE)
		sc.failed_at = begin;
}

/* fail: one side fails from some write or flush on. */
static void run_scene(bool fail)
{
	unsigned i, j;

	open_fs(sc.mirror, false, &sc.s, &sc.fs);
	mark(0);
	/* Twenty, and more if none has come to what fails. */
	for (i = 0; i < 20 || (fail && !sc.failed_at && i < 80); i++) {
		if (fail && i == 6) {
			sc.failed = (int)rng_below(&sc.rng, 2);
			fault_from(sc.tap[sc.failed].fault,
				   rng_one_in(&sc.rng, 2) ? FAULT_WRITE :
							    FAULT_FLUSH,
				   1 + (unsigned)rng_below(&sc.rng, 9), -EIO);
		}
		for (j = 0; j < 4; j++)
			one_op();
		one_commit(i);
		ck_ok(store_drain(sc.s));
	}
	ck_assert(!fail || sc.failed_at);
	fs_umount(sc.fs);
	store_abandon(sc.s);
}

static void fill_both(bool full)
{
	unsigned i, room = (unsigned)rng_below(&sc.rng, 24);

	/* one side before the other, to a commit of the background that is half
	 * done, would be a side that fails */
	mutex_lock(&sc.s->p->commit_lock);
	for (i = 0; i < 2; i++) {
		sc.tap[i].room = room;
		sc.tap[i].full = full;
	}
	mutex_unlock(&sc.s->p->commit_lock);
}

/* For a while at a time. */
static void run_full(void)
{
	unsigned i, j;

	sc.thin = true;
	open_fs(sc.mirror, false, &sc.s, &sc.fs);
	ck_ok(store_start(sc.s));
	mark(0);
	for (i = 0; i < 20; i++) {
		if (i % 3 != 2)
			fill_both(i % 3 == 1);
		for (j = 0; j < 4; j++)
			one_op();
		one_commit(i);
		ck_assert(!store_stopped(sc.s));
		ck_assert_uint_eq(bdev_bad_sides(sc.mirror), 0);
	}
	fs_umount(sc.fs);
	store_abandon(sc.s);
}

static void run_well(void)
{
	run_scene(false);
}

static void run_failing(void)
{
	run_scene(true);
}

/* ---- judging ---- */

static bool allowed(size_t cut, uint64_t digest)
{
	unsigned i, newest = 0;

	for (i = 0; i < sc.marks; i++)
		if (sc.mark[i].end <= cut)
			newest = i;
	for (i = newest; i < sc.marks; i++)
		if ((i == newest || sc.mark[i].begin < cut) &&
		    sc.mark[i].digest == digest)
			return true;
	return false;
}

static void found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", problem_name(p), where);
}

static void no_close(struct bdev *dev)
{
	(void)dev;
}

static int pass_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(((struct tap *)dev)->log, off, buf, len);
}

static int pass_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
		       int n)
{
	return bdev_writev(((struct tap *)dev)->log, off, iov, n);
}

static int pass_flush(struct bdev *dev)
{
	return bdev_flush(((struct tap *)dev)->log);
}

/* Leaves what is below open when the mirror is closed. */
static const struct bdev_ops pass_ops = {
	.read = pass_read, .writev = pass_writev, .flush = pass_flush,
	.close = no_close,
};

struct state {
	struct tap pass[2];
	size_t cut;
	const char *how;
};

static struct bdev *assemble(struct state *st, unsigned mask, bool readonly)
{
	struct bdev *side[2] = { NULL, NULL }, *dev;
	unsigned i;

	for (i = 0; i < 2; i++) {
		st->pass[i].dev.readonly = readonly;
		if (mask & 1u << i)
			side[i] = &st->pass[i].dev;
	}
	ck_ok(bdev_open_mirror(side, &dev));
	return dev;
}

/* What these sides hold; it checks clean. */
static uint64_t look(struct state *st, unsigned mask)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = found };
	struct bdev *dev = assemble(st, mask, true);
	struct check_result res;
	uint64_t digest;
	struct store *s;
	struct fs *fs;

	ck_assert_msg(!try_open(dev, true, &s, &fs),
		      "cut at %zu (%s): sides %u do not open", st->cut,
		      st->how, mask);
	ck_ok(fs_digest(fs, &digest));
	ck_ok(check_run(s, &opt, &res));
	ck_assert_msg(!res.problems, "cut at %zu (%s): sides %u: problems",
		      st->cut, st->how, mask);
	fs_umount(fs);
	ck_ok(store_close(s));
	bdev_close(dev);
	return digest;
}

static void look_allowed(struct state *st, unsigned mask)
{
	ck_assert_msg(allowed(st->cut, look(st, mask)),
		      "cut at %zu (%s): sides %u are in a state that never was",
		      st->cut, st->how, mask);
}

static void scrub(struct store *s)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
}

static void judge(struct state *st)
{
	bool whole = sc.failed < 0 || st->cut <= sc.failed_at;
	struct bdev *dev;
	struct store *s;
	uint64_t digest;
	struct fs *fs;
	unsigned i;

	look_allowed(st, BOTH);
	for (i = 0; i < 2; i++)
		if (whole || (int)i != sc.failed)
			look_allowed(st, 1u << i);
	dev = assemble(st, BOTH, false);
	open_fs(dev, false, &s, &fs);
	ck_assert_msg(!whole || !bdev_bad_sides(dev),
		      "cut at %zu (%s): a side is stale", st->cut, st->how);
	ck_ok(store_drain(s));
	if (!whole)
		scrub(s);
	ck_ok(fs_digest(fs, &digest));
	fs_umount(fs);
	ck_ok(store_close(s));
	bdev_close(dev);
	for (i = 0; i < 2; i++)
		ck_assert_msg(look(st, 1u << i) == digest,
			      "cut at %zu (%s): side %u lacks something",
			      st->cut, st->how, i);
}

static struct pick some_pick(size_t sure, size_t cut)
{
	static const enum pick_how hows[] = { PICK_NONE, PICK_ALL, PICK_SEED,
					      PICK_ONLY, PICK_BUT };
	struct pick p = PICK(hows[rng_below(&sc.rng, 5)]);

	p.seed = rng_next(&sc.rng);
	if (cut == sure)
		return p;
	p.which = sure + rng_below(&sc.rng, cut - sure);
	if (rng_one_in(&sc.rng, 3)) {
		p.torn = sure + rng_below(&sc.rng, cut - sure);
		p.torn_seed = rng_next(&sc.rng) | 1;
	}
	return p;
}

/* n states of a cut; the first two: one side has all, the other nothing. */
static void try_cut(struct replay r[2], size_t cut, unsigned n,
		    void (*ok)(struct state *st))
{
	size_t at[2], sure[2];
	struct state st;
	struct pick p;
	unsigned k, i;

	for (i = 0; i < 2; i++) {
		at[i] = sc.time[cut][i];
		ck_ok(replay_cut(&r[i], at[i], &sure[i]));
	}
	for (k = 0; k < n; k++) {
		memset(&st, 0, sizeof(st));
		st.cut = cut;
		st.how = k < 2 ? "one has all, one nothing" : "random";
		for (i = 0; i < 2; i++) {
			p = k < 2 ? PICK(k == i ? PICK_ALL : PICK_NONE) :
				    some_pick(sure[i], at[i]);
			ck_ok(replay_state(&r[i], at[i], &p, &st.pass[i].log));
			st.pass[i].dev = (struct bdev){
				.ops = &pass_ops, .size = DEV_SIZE,
				.name = i ? "side 1" : "side 0"
			};
		}
		ok(&st);
		for (i = 0; i < 2; i++)
			bdev_close(st.pass[i].log);
	}
}

/* ---- a side comes and goes ---- */

static void work(unsigned n)
{
	unsigned i, j;

	for (i = 0; i < n; i++) {
		for (j = 0; j < 4; j++)
			one_op();
		one_commit(i);
		ck_ok(store_drain(sc.s));
	}
}

static void run_change(void)
{
	unsigned side = (unsigned)rng_below(&sc.rng, 2);

	open_fs(sc.mirror, false, &sc.s, &sc.fs);
	mark(0);
	work(3);
	one_op();
	sc.added.begin = sc.now;
	ck_ok(store_mirror_add(sc.s, &sc.tap[1].dev));
	mark(sc.added.begin);
	sc.added.end = sc.now;
	work(3);
	sc.filled.begin = sc.now;
	scrub(sc.s);
	mark(sc.filled.begin); /* it commits what was left to do */
	sc.filled.end = sc.now;
	ck_assert_uint_eq(bdev_bad_sides(sc.mirror), 0);
	work(2);
	one_op();
	sc.kept = !side;
	sc.removed.begin = sc.now;
	ck_ok(store_mirror_remove(sc.s, side));
	mark(sc.removed.begin);
	sc.removed.end = sc.now;
	work(2);
	fs_umount(sc.fs);
	store_abandon(sc.s);
}

static bool is_mirror(const struct super *sb)
{
	return from_le64(sb->d.incompat) & COWFS_INCOMPAT_MIRROR;
}

/* As who looks for the other side finds it (assemble.c). */
static bool belongs(const struct super *a, const struct super *b, unsigned other)
{
	return is_mirror(a) && is_mirror(b) &&
	       from_le16(b->d.dev_index) == other &&
	       !memcmp(a->d.uuid, b->d.uuid, 16) &&
	       !memcmp(a->d.mirror.dev_uuid[other], b->d.dev_uuid, 16);
}

/* ---- a side is filled in several goes ---- */

struct going {
	struct scrub *scrub;
	unsigned left; /* calls until it is paused; 0: never */
};

static int on_progress(void *arg)
{
	struct going *g = arg;

	if (g->left && !--g->left)
		ck_ok(scrub_pause(g->scrub));
	return 0;
}

/* Go on with what there is to go on with, or begin; which state it ends in. */
static uint8_t fill_some(struct store *s, unsigned calls)
{
	struct going g = { .left = calls };
	struct cowfs_ioc_scrub now;
	int err;

	ck_ok(scrub_new(s, &g.scrub));
	scrub_set_window(g.scrub, 2000, 0);
	err = scrub_here(g.scrub, true, 0, on_progress, &g);
	if (err == -ENOENT)
		err = scrub_here(g.scrub, false, 0, on_progress, &g);
	ck_ok(err);
	scrub_status(g.scrub, &now);
	ck_assert_uint_eq(now.lost, 0);
	scrub_free(g.scrub);
	return now.state;
}

static unsigned resumed; /* scrubs that were gone on with */

static void kill_and_mount(void)
{
	size_t begin = sc.now;

	fs_umount(sc.fs);
	store_abandon(sc.s);
	open_fs(sc.mirror, false, &sc.s, &sc.fs);
	mark(begin);
}

/* Contents beyond what is written all the time. */
static void write_bulk(void)
{
	static uint8_t buf[200000];
	struct attr a;
	char name[16];
	unsigned i;

	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "bulk%u", i);
		ck_ok(fs_create(sc.fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a));
		rng_fill(&sc.rng, buf, sizeof(buf));
		ck_ok(fs_write(sc.fs, a.ino, 0, buf, sizeof(buf), 0));
	}
	ck_ok(store_commit(sc.s, NULL, NULL));
}

static void commit_all(void)
{
	size_t begin = sc.now;

	ck_ok(store_commit(sc.s, NULL, NULL));
	mark(begin);
}

static void run_refill(void)
{
	uint8_t state = COWFS_SCRUB_PAUSED;
	unsigned goes;

	open_fs(sc.mirror, false, &sc.s, &sc.fs);
	write_bulk();
	mark(0);
	sc.added.begin = sc.now;
	ck_ok(store_mirror_add(sc.s, &sc.tap[1].dev));
	mark(sc.added.begin);
	sc.added.end = sc.now;
	for (goes = 0; state == COWFS_SCRUB_PAUSED; goes++) {
		if (goes) {
			work(1);
			kill_and_mount();
		}
		work(1);
		commit_all(); /* what the scrub notes is a commit, too */
		sc.filled.begin = sc.now;
		state = fill_some(sc.s, goes < 4 ? 1 + (unsigned)
				  rng_below(&sc.rng, 2) : 0);
	}
	ck_assert_int_eq(state, COWFS_SCRUB_FINISHED);
	resumed += goes - 1;
	mark(sc.filled.begin);
	sc.filled.end = sc.now;
	ck_assert_uint_eq(bdev_bad_sides(sc.mirror), 0);
	work(1);
	sc.removed.begin = SIZE_MAX;
	fs_umount(sc.fs);
	store_abandon(sc.s);
}

/* Opened again after a cut. */
static void complete(struct store *s)
{
	if (sc.removed.begin != SIZE_MAX) {
		scrub(s);
	} else if (bdev_bad_sides(s->dev) && bdev_sides(s->dev) > 1) {
		ck_assert_int_eq(fill_some(s, 0), COWFS_SCRUB_FINISHED);
		ck_assert_uint_eq(bdev_bad_sides(s->dev) &
				  store_stale_sides(s), 0);
	}
}

/* The cut is where only one side has everything: that one is named. */
static void judge_change(struct state *st)
{
	unsigned keep = st->cut > sc.removed.begin ? sc.kept : 0;
	struct super sb[2];
	bool there[2], both;
	struct store *s;
	struct bdev *dev;
	struct fs *fs;
	unsigned i;

	for (i = 0; i < 2; i++)
		there[i] = !super_newest(&st->pass[i].dev, &sb[i]);
	ck_assert_msg(there[keep], "cut at %zu (%s): no superblock", st->cut,
		      st->how);
	if (there[!keep] && memcmp(sb[0].d.uuid, sb[1].d.uuid, 16))
		there[!keep] = false; /* what was there before */
	ck_assert_msg(!there[!keep] || is_mirror(&sb[!keep]),
		      "cut at %zu (%s): side %u is taken for a filesystem",
		      st->cut, st->how, !keep);
	both = there[!keep] && belongs(&sb[keep], &sb[!keep], !keep);
	ck_assert_msg(both == is_mirror(&sb[keep]),
		      "cut at %zu (%s): the sides do not know each other",
		      st->cut, st->how);
	look_allowed(st, both ? BOTH : 1u << keep);
	for (i = 0; i < 2; i++)
		if (st->cut >= sc.filled.end && st->cut <= sc.removed.begin)
			look_allowed(st, 1u << i);
	if (there[1] && st->cut < sc.filled.begin) {
		dev = assemble(st, 2, false);
		ck_assert_msg(try_open(dev, false, &s, &fs) == -ENODEV,
			      "cut at %zu (%s): what is not complete opens",
			      st->cut, st->how);
		bdev_close(dev);
	}
	dev = assemble(st, both ? BOTH : 1u << keep, false);
	open_fs(dev, false, &s, &fs);
	ck_ok(store_drain(s));
	complete(s);
	fs_umount(fs);
	ck_ok(store_close(s));
	bdev_close(dev);
	for (i = 0; i < 2; i++)
		if (both || i == keep)
			look_allowed(st, 1u << i);
}

/* What happens in it, how it is judged. */
static void scenario(uint64_t stream, void (*run)(void), bool plain,
		     void (*ok)(struct state *st), unsigned states)
{
	static const uint32_t sizes[] = { 4096, 16384, 8192 };
	struct replay r[2];
	size_t cut, step;
	unsigned i, n = 0;

	make_scene(stream, sizes[stream % 3], plain);
	test_log_hide();
	run();
	for (i = 0; i < 2; i++)
		replay_init(&r[i], sc.tap[i].log, sc.base[i]);
	step = sc.now * 4 / states + 1;
	for (cut = sc.mark[0].end; cut <= sc.now; cut += step, n += 4)
		try_cut(r, cut, 4, ok);
	test_log_show();
	printf("%u states of %zu requests%s\n", n, sc.now,
	       plain ? ", a side comes and goes" :
	       sc.failed >= 0 ? ", a side fails" : "");
	bdev_close(sc.mirror);
	for (i = 0; i < 2; i++) {
		bdev_close(sc.base[i]);
		bdev_close(sc.tap[i].log);
		bdev_close(sc.tap[i].fault);
		bdev_close(sc.tap[i].mem);
	}
}

START_TEST(each_side_may_lose_what_it_likes)
{
	unsigned i, n = test_rounds(3);

	for (i = 0; i < n; i++)
		scenario(i, run_well, false, judge, 120);
}
END_TEST

START_TEST(no_promise_is_lost_with_a_side_that_fails)
{
	unsigned i, n = test_rounds(4);

	for (i = 0; i < n; i++)
		scenario(500 + i, run_failing, false, judge, 80);
}
END_TEST

START_TEST(both_may_be_full_now_and_then)
{
	unsigned i, n = test_rounds(2), refused = 0;

	/* not every one meets with it */
	for (i = 0; i < n || (!refused && i < 10 * n); i++) {
		scenario(700 + i, run_full, false, judge, 120);
		refused += sc.refused;
	}
	ck_assert_uint_gt(refused, 0);
}
END_TEST

START_TEST(a_side_comes_and_goes_at_any_write)
{
	unsigned i, n = test_rounds(3);

	for (i = 0; i < n; i++)
		scenario(900 + i, run_change, true, judge_change, 250);
}
END_TEST

START_TEST(a_side_is_filled_in_several_goes)
{
	unsigned i, n = test_rounds(2);

	resumed = 0;
	for (i = 0; i < n; i++)
		scenario(1300 + i, run_refill, true, judge_change, 250);
	ck_assert_uint_gt(resumed, 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("mirror cut");
	TCase *tc = tcase_create("mirror cut");

	tcase_set_timeout(tc, 3600);
	tcase_add_test(tc, each_side_may_lose_what_it_likes);
	tcase_add_test(tc, no_promise_is_lost_with_a_side_that_fails);
	tcase_add_test(tc, both_may_be_full_now_and_then);
	tcase_add_test(tc, a_side_comes_and_goes_at_any_write);
	tcase_add_test(tc, a_side_is_filled_in_several_goes);
	suite_add_tcase(s, tc);
	return test_main(s);
}
