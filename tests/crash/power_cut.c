/*
 * power_cut.c - every state that a power cut can leave is one that was
 *
 * A scenario runs once over a recording device. For cuts after every write, the
 * device is rebuilt as it may be then: all that was flushed, and of the rest
 * nothing, everything, each write alone, all but each, random subsets, with one
 * write torn. Each state must open by itself, look exactly like the state of
 * the newest commit that had been acknowledged (or of the one that was under
 * way), check clean, and take new writes.
 *
 * SEED repeats a run; ROUNDS multiplies the number of scenarios.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define MIB (UINT64_C(1) << 20)
#define DEV_SIZE (12 * MIB)
#define MARKS 1024
#define NEVER SIZE_MAX

/* A commit: what the filesystem looked like, and where in the log it began and
 * had been acknowledged. On a device that is nearly full any operation may make
 * a commit to get space, and where storage below was full the timer makes one
 * when there is room: each operation is a mark that is NEVER acknowledged. */
struct mark {
	uint64_t digest;
	size_t begin, end;
};

struct scene {
	struct bdev *mem, *log, *dev; /* dev: log, or over it */
	bool full, kills;
	bool thin; /* what the device lies on is full now and then */
	unsigned kept; /* commits that found it full */
	struct store *s;
	struct fs *fs;
	struct rng rng;
	struct mark mark[MARKS];
	unsigned marks;
	unsigned files;
	uint64_t copied; /* most extra copies at any time */
};

static const struct cred root_cred = { .umask = 022 };

static void open_fs(struct bdev *dev, bool readonly, struct store **s,
		    struct fs **fs)
{
	struct store_config cfg = { .dev = dev,
				    .flags = readonly ? STORE_READONLY :
						       STORE_LAZY,
				    .cache_bytes = 1 << 20 };
	struct fs_options opt = { .readonly = readonly, .noatime = true };

	ck_ok(store_open(&cfg, s));
	ck_ok(snap_start(*s));
	ck_ok(redun_start(*s));
	ck_ok(fs_mount(*s, &opt, fs));
}

static void scene_open(struct scene *sc, uint64_t stream, uint32_t node_size)
{
	struct store *s;

	memset(sc, 0, sizeof(*sc));
	rng_init(&sc->rng, test_seed(), stream);
	ck_ok(bdev_open_mem(DEV_SIZE, &sc->mem));
	s = test_format(sc->mem, node_size, 1 + stream % 2,
			stream / 2 == 1 ? 2 : 1);
	/* extra copies, but for the first */
	if (stream)
		ck_ok(redun_set(s, stream % 4 < 2 ? 2 : 3));
	ck_ok(store_close(s));
}

static void mark_at(struct scene *sc, size_t begin, size_t end)
{
	struct mark *m = &sc->mark[sc->marks++];

	ck_assert_uint_lt(sc->marks, MARKS);
	m->begin = begin;
	m->end = end;
	ck_ok(fs_digest(sc->fs, &m->digest));
}

static void mark(struct scene *sc, size_t begin)
{
	mark_at(sc, begin, log_count(sc->log));
}

/* Which marks may be seen after a cut there. */
static bool allowed(const struct scene *sc, size_t cut, uint64_t digest)
{
	unsigned i, newest = 0;

	for (i = 0; i < sc->marks; i++)
		if (sc->mark[i].end <= cut)
			newest = i;
	if (sc->mark[newest].digest == digest)
		return true;
	for (i = newest + 1; i < sc->marks && sc->mark[i].begin < cut; i++) {
		if (sc->mark[i].digest == digest)
			return true;
		if (sc->mark[i].end != NEVER)
			break;
	}
	return false;
}

/* ---- one random operation ---- */

static int any_file(void *arg, const struct fs_dirent *e)
{
	uint64_t *pick = arg;

	if (e->name[0] == '.' || e->type != DT_REG)
		return 0;
	if (pick[0]-- == 0) {
		pick[1] = e->ino;
		return 1;
	}
	return 0;
}

static uint64_t some_file(struct scene *sc)
{
	uint64_t pick[2] = { rng_below(&sc->rng, sc->files + 1), 0 };

	ck_ok(fs_readdir(sc->fs, fs_live(sc->fs), COWFS_INO_ROOT, 0, false,
			 any_file, pick));
	return pick[1];
}

static size_t some_name(struct scene *sc, char *name, size_t room)
{
	return (size_t)snprintf(name, room, "f%u",
				(unsigned)rng_below(&sc->rng, 24));
}

static int create_some(struct scene *sc)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR,
					  S_IFLNK, S_IFIFO };
	uint32_t type = types[rng_below(&sc->rng, ARRAY_SIZE(types))];
	struct attr a;
	char name[16];
	size_t len = some_name(sc, name, sizeof(name));

	return fs_create(sc->fs, COWFS_INO_ROOT, name, len, type | 0644, 0,
			 type == S_IFLNK ? "target" : NULL, &root_cred, &a);
}

static int write_some(struct scene *sc)
{
	static uint8_t buf[100000];
	uint64_t ino = some_file(sc);
	size_t len = 1 + rng_below(&sc->rng, rng_one_in(&sc->rng, 3)
						     ? sizeof(buf) : 900);

	if (!ino)
		return 0;
	rng_fill(&sc->rng, buf, len);
	return fs_write(sc->fs, ino, rng_below(&sc->rng, 150000), buf, len, 0);
}

static int reshape_some(struct scene *sc)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
	};
	struct attr a = { .size = rng_below(&sc->rng, 120000) };
	uint64_t ino = some_file(sc), other = some_file(sc), copied;

	if (!ino)
		return 0;
	switch (rng_below(&sc->rng, 3)) {
	case 0:
		return fs_setattr(sc->fs, ino, FS_SET_SIZE, &a, &root_cred,
				  &a);
	case 1:
		return fs_fallocate(sc->fs, ino,
				    modes[rng_below(&sc->rng, 4)],
				    rng_below(&sc->rng, 100000),
				    1 + rng_below(&sc->rng, 50000),
				    &root_cred);
	default:
		if (other == ino || !other)
			return 0;
		return fs_copy_range(sc->fs, fs_live(sc->fs), ino, 0, other,
				     4096 * rng_below(&sc->rng, 8),
				     rng_below(&sc->rng, 80000), &copied);
	}
}

static int rename_some(struct scene *sc)
{
	char a[16], b[16];
	size_t la = some_name(sc, a, sizeof(a)), lb = some_name(sc, b, sizeof(b));
	struct attr attr;
	uint64_t ino;

	switch (rng_below(&sc->rng, 4)) {
	case 0:
		ino = some_file(sc);
		return ino ? fs_link(sc->fs, ino, COWFS_INO_ROOT, b, lb, &attr)
			   : 0;
	case 1:
		return fs_unlink(sc->fs, COWFS_INO_ROOT, a, la, NULL);
	case 2:
		return fs_rmdir(sc->fs, COWFS_INO_ROOT, a, la, NULL);
	default:
		return fs_rename(sc->fs, COWFS_INO_ROOT, a, la, COWFS_INO_ROOT,
				 b, lb, 0);
	}
}

static int xattr_some(struct scene *sc)
{
	static uint8_t val[6000];
	uint64_t ino = some_file(sc);

	if (!ino)
		return 0;
	rng_fill(&sc->rng, val, sizeof(val));
	if (rng_one_in(&sc->rng, 3))
		return fs_removexattr(sc->fs, ino, "user.x");
	return fs_setxattr(sc->fs, ino, "user.x", val,
			   rng_below(&sc->rng, sizeof(val)), 0, &root_cred);
}

static void one_op(struct scene *sc)
{
	static int (*const ops[])(struct scene *) = {
		create_some, create_some, write_some, write_some, write_some,
		reshape_some, rename_some, rename_some, xattr_some,
	};
	size_t begin = log_count(sc->log), op;
	int err;

	/* what takes several steps has states in between */
	do
		op = rng_below(&sc->rng, ARRAY_SIZE(ops));
	while ((sc->full || sc->thin) && ops[op] == reshape_some);
	err = ops[op](sc);
	sc->files++;
	ck_assert_msg(err == 0 || err == -ENOENT || err == -EEXIST ||
			      err == -EISDIR || err == -ENOTDIR ||
			      err == -ENOTEMPTY || err == -ENODATA ||
			      err == -EPERM || err == -EINVAL ||
			      err == -ENXIO ||
			      (err == -ENOSPC && (sc->full || sc->thin)),
		      "unexpected %s", test_errname(err));
	ck_assert(!store_stopped(sc->s));
	if (sc->full || sc->thin)
		mark_at(sc, begin, NEVER);
}

/* ---- one commit of some kind ---- */

static void one_commit(struct scene *sc, unsigned n)
{
	size_t begin = log_count(sc->log);
	char name[16];
	int err;

	snprintf(name, sizeof(name), "s%u", n % 5);
	switch (rng_below(&sc->rng, 8)) {
	case 0:
	case 1:
	case 2:
		err = snap_create(sc->s, name, NULL);
		break;
	case 3:
		err = fs_snap_delete(sc->fs, name);
		break;
	case 4:
		err = fs_restore(sc->fs, name, COWFS_SNAP_UNDO, NULL);
		break;
	case 5:
		err = store_commit(sc->s, NULL, NULL);
		break;
	default:
		err = fs_fsync(sc->fs, COWFS_INO_ROOT, false);
	}
	ck_assert(!err || !store_stopped(sc->s));
	if (sc->thin && (err == -EINPROGRESS || err == -ENOSPC)) {
		sc->kept++;
		mark_at(sc, begin, NEVER);
	} else if (err) { /* no such snapshot: nothing was committed */
		ck_assert(err == -ENOENT || err == -EEXIST ||
			  (err == -ENOSPC && sc->full));
	} else {
		mark(sc, begin);
	}
}

/* Files that leave little. */
static void fill_up(struct scene *sc)
{
	static uint8_t buf[65536];
	struct attr a;
	char name[16];
	uint64_t off;
	unsigned i;
	int err = 0;

	for (i = 0; !err; i++) {
		snprintf(name, sizeof(name), "fill%u", i);
		err = fs_create(sc->fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &root_cred, &a);
		for (off = 0; !err && off < 4 * MIB; off += sizeof(buf)) {
			rng_fill(&sc->rng, buf, sizeof(buf));
			err = fs_write(sc->fs, a.ino, off, buf, sizeof(buf), 0);
		}
	}
	ck_assert_int_eq(err, -ENOSPC);
	a.size = 0;
	ck_ok(fs_setattr(sc->fs, a.ino, FS_SET_SIZE, &a, &root_cred, &a));
}

/* Files that snapshots have in common. */
static void share_some(struct scene *sc)
{
	static uint8_t buf[40000];
	struct attr a;
	char name[16];
	unsigned i;

	for (i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_ok(fs_create(sc->fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &root_cred, &a));
		rng_fill(&sc->rng, buf, sizeof(buf));
		ck_ok(fs_write(sc->fs, a.ino, 0, buf, sizeof(buf), 0));
	}
	sc->files = i;
	ck_ok(snap_create(sc->s, "s0", NULL));
	ck_ok(snap_create(sc->s, "s1", NULL));
	ck_ok(store_drain(sc->s));
}

static void start(struct scene *sc)
{
	ck_ok(log_open(sc->mem, &sc->log));
	sc->dev = sc->log;
	if (sc->thin)
		ck_ok(fault_open(sc->log, &sc->dev));
	open_fs(sc->dev, false, &sc->s, &sc->fs);
	if (sc->thin)
		ck_ok(store_start(sc->s));
	if (sc->full)
		fill_up(sc);
	else
		share_some(sc);
	ck_ok(store_commit(sc->s, NULL, NULL));
	mark(sc, 0);
}

/* What was not committed is gone, what was written is not. */
static void kill_and_restart(struct scene *sc)
{
	uint64_t digest;
	size_t begin;

	fs_umount(sc->fs);
	store_abandon(sc->s);
	begin = log_count(sc->log);
	if (sc->thin)
		fault_clear(sc->dev);
	test_log_hide();
	open_fs(sc->dev, false, &sc->s, &sc->fs);
	if (sc->thin)
		ck_ok(store_start(sc->s));
	test_log_show();
	ck_ok(fs_digest(sc->fs, &digest));
	ck_assert(allowed(sc, begin, digest));
	mark(sc, begin);
}

/* From one of the next writes on there is no room, of which a part may find some;
 * for good, or for a while. */
static void fill_host(struct scene *sc)
{
	struct fault_rule r = {
		.op = FAULT_WRITE, .err = -ENOSPC,
		.kind = rng_one_in(&sc->rng, 2) ? FAULT_TORN : FAULT_ERROR,
		.sectors = (unsigned)rng_below(&sc->rng, 40),
		.skip = (unsigned)rng_below(&sc->rng, 24),
		.times = rng_one_in(&sc->rng, 3) ? 3 : 0,
	};

	(void)fault_add(sc->dev, &r);
}

/* A commit that finds no room, what goes on meanwhile, and perhaps the end. */
static void one_full_host(struct scene *sc, unsigned n)
{
	unsigned i, more = (unsigned)rng_below(&sc->rng, 3);
	size_t begin;

	fill_host(sc);
	one_commit(sc, n);
	for (i = 0; i < 3 * more; i++) {
		one_op(sc);
		if (i % 3 == 2)
			one_commit(sc, n + i);
	}
	if (rng_one_in(&sc->rng, 4))
		return; /* killed, perhaps, as it is */
	fault_clear(sc->dev);
	begin = log_count(sc->log);
	ck_ok(rng_one_in(&sc->rng, 2) ? store_commit(sc->s, NULL, NULL)
				      : fs_fsync(sc->fs, COWFS_INO_ROOT, false));
	mark(sc, begin);
}

static void run_scene(struct scene *sc)
{
	unsigned i, j;
	size_t begin;

	start(sc);
	for (i = 0; i < 24; i++) {
		for (j = 0; j < 6; j++)
			one_op(sc);
		if (sc->thin && i % 2)
			one_full_host(sc, i);
		else
			one_commit(sc, i);
		if (sc->kills && i % 4 == 3)
			kill_and_restart(sc);
		if (sc->thin)
			fault_clear(sc->dev);
		begin = log_count(sc->log);
		ck_ok(store_drain(sc->s));
		if (log_count(sc->log) > begin) /* it may have committed */
			mark_at(sc, begin, NEVER);
		if (store_copied(sc->s) > sc->copied)
			sc->copied = store_copied(sc->s);
	}
	fs_umount(sc->fs);
	store_abandon(sc->s);
}

/* ---- judging a state ---- */

static uint64_t look(struct bdev *dev)
{
	struct store *s;
	struct fs *fs;
	uint64_t digest;

	open_fs(dev, true, &s, &fs);
	ck_ok(fs_digest(fs, &digest));
	test_check(s);
	fs_umount(fs);
	ck_ok(store_close(s));
	return digest;
}

/* 0: the file is there, empty. */
static int make_after(struct fs *fs, uint64_t *ino)
{
	struct attr a;
	int err = fs_create(fs, COWFS_INO_ROOT, "after", 5, S_IFREG | 0600, 0,
			    NULL, &root_cred, &a);

	ck_assert(!err || err == -ENOSPC || err == -EEXIST);
	*ino = err ? 0 : a.ino;
	return err;
}

static void fill_after(struct fs *fs, uint64_t ino, const char *text)
{
	int err = fs_write(fs, ino, 0, text, strlen(text), 0);

	ck_assert(!err || err == -ENOSPC);
}

static void write_after(struct fs *fs, const char *text)
{
	uint64_t ino;

	if (!make_after(fs, &ino))
		fill_after(fs, ino, text);
}

/* What was allowed at an earlier cut. */
struct was {
	const struct scene *before;
	size_t cut;
};

static void judge(const struct scene *sc, size_t cut, const struct was *was,
		  struct bdev *dev, const char *how)
{
	uint64_t digest = look(dev);
	struct store *s;
	struct fs *fs;

	ck_assert_msg(allowed(sc, cut, digest) ||
		      (was && allowed(was->before, was->cut, digest)),
		      "cut at %zu (%s): a state that never was", cut, how);
	open_fs(dev, false, &s, &fs);
	write_after(fs, how);
	ck_ok(store_drain(s));
	fs_umount(fs);
	ck_ok(store_close(s));
	(void)look(dev);
}

/*
 * The state is opened and written, and that is cut, too. Recovery may complete
 * the commit that was under way when the power went first, by writing what it
 * lacked (data that the log has as well, a second copy): until opening has
 * returned, what was allowed then still is.
 */
static void judge_again(struct scene *sc, size_t cut, struct bdev *dev)
{
	struct bdev *base, *work, *log, *state;
	struct pick p = PICK(PICK_SEED);
	struct scene *sc2 = calloc(1, sizeof(*sc2));
	struct replay r;
	const struct was was = { sc, cut };
	size_t at, sure, opened;
	uint64_t ino;

	ck_assert_ptr_nonnull(sc2);
	ck_ok(overlay_open(dev, &base));
	ck_ok(overlay_open(dev, &work));
	ck_ok(log_open(work, &log));
	sc2->log = log;
	open_fs(log, false, &sc2->s, &sc2->fs);
	opened = log_count(log);
	mark(sc2, 0);
	sc2->mark[0].end = 0; /* it is what was found */
	at = log_count(log);
	if (!make_after(sc2->fs, &ino)) {
		/* the background may commit just that */
		mark_at(sc2, at, NEVER);
		fill_after(sc2->fs, ino, "again");
	}
	ck_ok(fs_fsync(sc2->fs, COWFS_INO_ROOT, false));
	mark(sc2, at);
	fs_umount(sc2->fs);
	store_abandon(sc2->s);
	ck_assert(allowed(sc, cut, sc2->mark[0].digest));
	replay_init(&r, log, base);
	for (at = 1; at <= log_count(log); at++) {
		p.seed = rng_next(&sc->rng);
		ck_ok(replay_cut(&r, at, &sure));
		ck_ok(replay_state(&r, at, &p, &state));
		judge(sc2, at, at <= opened ? &was : NULL, state,
		      "a second time");
		bdev_close(state);
	}
	bdev_close(log);
	bdev_close(work);
	bdev_close(base);
	free(sc2);
}

static void try_pick(struct scene *sc, struct replay *r, size_t cut,
		     const struct pick *p, const char *how)
{
	struct bdev *dev;

	ck_ok(replay_state(r, cut, p, &dev));
	if ((p->how == PICK_SEED || p->torn != SIZE_MAX) &&
	    rng_one_in(&sc->rng, 4))
		judge_again(sc, cut, dev);
	judge(sc, cut, NULL, dev, how);
	bdev_close(dev);
}

static unsigned try_cut(struct scene *sc, struct replay *r, size_t cut)
{
	struct pick p = PICK(PICK_NONE);
	size_t sure, n;

	ck_ok(replay_cut(r, cut, &sure));
	try_pick(sc, r, cut, &p, "none of the unflushed");
	if (cut == sure)
		return 1;
	p = PICK(PICK_ALL);
	try_pick(sc, r, cut, &p, "all");
	n = sure + rng_below(&sc->rng, cut - sure);
	p.torn = n;
	p.torn_seed = rng_next(&sc->rng) | 1;
	try_pick(sc, r, cut, &p, "all, one torn");
	p = PICK(PICK_BUT);
	p.which = n;
	try_pick(sc, r, cut, &p, "all but one");
	p = PICK(PICK_ONLY);
	p.which = cut - 1;
	try_pick(sc, r, cut, &p, "only the last");
	p = PICK(PICK_SEED);
	p.seed = rng_next(&sc->rng);
	try_pick(sc, r, cut, &p, "a random half");
	return 6;
}

/* How long a test may take is bounded by the number of states. */
static void scenario(uint64_t stream, uint32_t node_size, unsigned states,
		     bool thin)
{
	struct replay r;
	struct scene sc;
	struct bdev *base;
	size_t cut, step;
	unsigned n = 0;

	scene_open(&sc, stream, node_size);
	sc.thin = thin;
	sc.full = !thin && stream % 3 == 1;
	sc.kills = stream % 4;
	ck_ok(bdev_open_mem(DEV_SIZE, &base));
	ck_ok(dev_copy(base, sc.mem));
	test_log_hide();
	run_scene(&sc);
	replay_init(&r, sc.log, base);
	step = log_count(sc.log) * 6 / states + 1;
	/* the first mark needs a finished mount */
	for (cut = sc.mark[0].end; cut <= log_count(sc.log); cut += step)
		n += try_cut(&sc, &r, cut);
	test_log_show();
	printf("%u states of %zu writes%s%s, up to %" PRIu64 " extra copies, "
	       "%u commits without room\n",
	       n, log_count(sc.log), sc.full ? ", nearly full" : "",
	       sc.kills ? ", killed" : "", sc.copied, sc.kept);
	bdev_close(base);
	if (thin)
		bdev_close(sc.dev);
	bdev_close(sc.log);
	bdev_close(sc.mem);
}

START_TEST(every_state_after_a_power_cut_is_one_that_was)
{
	static const uint32_t sizes[] = { 4096, 16384, 8192, 4096 };
	unsigned i, n = test_rounds(7);

	for (i = 0; i < n; i++)
		scenario(i, sizes[i % ARRAY_SIZE(sizes)],
			 i % 3 == 1 ? 100 : 300, false);
}
END_TEST

/* Commits that are kept, and made when there is room (commit.c, C6). */
START_TEST(nor_is_one_left_where_storage_below_was_full)
{
	static const uint32_t sizes[] = { 16384, 4096, 4096 };
	unsigned i, n = test_rounds(3);

	for (i = 0; i < n; i++)
		scenario(i + 200, sizes[i % ARRAY_SIZE(sizes)], 300, true);
}
END_TEST

/* The checker is worth something: without flushes it finds states that never
 * were. A device that forgets them, over another: */
struct lazy {
	struct bdev dev;
	struct bdev *below;
};

static int lazy_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(((struct lazy *)dev)->below, off, buf, len);
}

static int lazy_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
		       int n)
{
	return bdev_writev(((struct lazy *)dev)->below, off, iov, n);
}

static int lazy_flush(struct bdev *dev)
{
	(void)dev;
	return 0;
}

static const struct bdev_ops lazy_ops = {
	.read = lazy_read, .writev = lazy_writev, .flush = lazy_flush,
};

START_TEST(a_device_that_does_not_flush_is_found_out)
{
	struct lazy lazy = { .dev = { .ops = &lazy_ops, .size = DEV_SIZE,
				      .name = "lazy" } };
	struct scene sc;
	struct bdev *base, *dev;
	struct pick p = PICK(PICK_SEED);
	struct replay r;
	size_t cut, sure;
	unsigned wrong = 0, i;

	scene_open(&sc, 99, 4096);
	ck_ok(bdev_open_mem(DEV_SIZE, &base));
	ck_ok(dev_copy(base, sc.mem));
	ck_ok(log_open(sc.mem, &sc.log));
	lazy.below = sc.log;
	open_fs(&lazy.dev, false, &sc.s, &sc.fs);
	mark(&sc, 0);
	for (i = 0; i < 40; i++) {
		one_op(&sc);
		ck_ok(store_commit(sc.s, NULL, NULL));
		sc.marks = 0;
		mark(&sc, 0);
	}
	fs_umount(sc.fs);
	store_abandon(sc.s);
	replay_init(&r, sc.log, base);
	cut = log_count(sc.log);
	ck_ok(replay_cut(&r, cut, &sure));
	test_log_hide();
	for (i = 0; i < 20 && !wrong; i++) {
		struct store_config cfg = { .flags = STORE_READONLY };
		struct fs_options opt = { .readonly = true };
		struct store *s;
		struct fs *fs;
		uint64_t digest = 0;

		p.seed = rng_next(&sc.rng);
		ck_ok(replay_state(&r, cut, &p, &dev));
		cfg.dev = dev;
		if (store_open(&cfg, &s)) {
			wrong++;
		} else {
			if (fs_mount(s, &opt, &fs)) {
				wrong++;
			} else {
				if (fs_digest(fs, &digest) ||
				    digest != sc.mark[0].digest)
					wrong++;
				fs_umount(fs);
			}
			ck_ok(store_close(s));
		}
		bdev_close(dev);
	}
	test_log_show();
	ck_assert_uint_gt(wrong, 0);
	bdev_close(base);
	bdev_close(sc.log);
	bdev_close(sc.mem);
}
END_TEST

static Suite *power_suite(void)
{
	Suite *su = suite_create("power cut");
	TCase *tc = tcase_create("power cut");
	TCase *room = tcase_create("no room");

	tcase_set_timeout(tc, 3600);
	tcase_set_timeout(room, 3600);
	tcase_add_test(tc, every_state_after_a_power_cut_is_one_that_was);
	tcase_add_test(room, nor_is_one_left_where_storage_below_was_full);
	tcase_add_test(tc, a_device_that_does_not_flush_is_found_out);
	suite_add_tcase(su, tc);
	suite_add_tcase(su, room);
	return su;
}

int main(void)
{
	return test_main(power_suite());
}
