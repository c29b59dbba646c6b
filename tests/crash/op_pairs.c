/*
 * op_pairs.c - power cuts around every operation and every pair of them
 *
 * A workload is one operation or two on a small filesystem that has one of
 * everything, each followed by some kind of sync or none. It runs over a
 * recording device, and the disk is rebuilt as a power cut may leave it (states
 * are enumerated as CrashMonkey does it, Mohan et al., OSDI 2018):
 *
 *   P1  at each write, with any subset of the unflushed ones before it, it
 *       included: all subsets while there are at most 2^4, else chosen ones
 *       (all, it alone, all but each, some at random). No state comes twice:
 *       a subset is tried at the cut after its last write;
 *   P2  the last one, or any other, torn: a prefix of its sectors, or any of
 *       them, since a disk may write them in any order;
 *   P3  at each flush, when what it covers is certain.
 *
 * Writes between two flushes don't overlap, so that their order cannot matter:
 * that is looked at, too.
 *
 * Each state must open by itself, be exactly what the filesystem was after one
 * of the operations, at least the last one synced (names, contents, attributes
 * of all files, live and in snapshots: so no byte is foreign or stale), check
 * clean (no space leaked, counts right), and take new writes that last. Cutting
 * the power while it recovers gives the same state again, or that of the commit
 * that was under way, if what it lacked has been written meanwhile (data that
 * the log has, too; a second copy).
 *
 * ROUNDS multiplies the number of states (one round: STATES, and as many again
 * for single operations); 170 try every pair, 400,000 states. SEED repeats a
 * run.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_SIZE (UINT64_C(9) << 20)
#define STATES 2500u
#define PER_WORKLOAD 16u
#define ROOT COWFS_INO_ROOT
#define MAX_OPS 2

/* What the base image holds; inode numbers stay what they are. */
struct base {
	struct bdev *dev;
	uint64_t a, b, foo, bar, baz;
};

struct job {
	struct base *base;
	struct bdev *work, *log;
	struct store *s;
	struct fs *fs;
	struct rng rng;
	/* Where the log stood when state n was reached, and from where on it
	 * is promised (SIZE_MAX: it isn't). */
	unsigned states;
	struct {
		uint64_t digest;
		size_t begin, promised;
	} state[2 * MAX_OPS + 3];
	char text[160]; /* what is done, for messages */
	uint64_t tried, wrong;
	bool forgetful; /* count what is wrong instead of failing */
};

static const struct cred cred = { .umask = 022 };

/* ---- the filesystem under test ---- */

static void open_fs(struct bdev *dev, bool readonly, struct store **s,
		    struct fs **fs)
{
	ck_ok(test_mount(dev, readonly ? STORE_READONLY : STORE_LAZY, 1 << 20,
			 s, fs));
}

static uint64_t make(struct fs *fs, uint64_t dir, const char *name,
		     uint32_t mode)
{
	struct attr a;

	ck_ok(fs_create(fs, dir, name, strlen(name), mode, 0,
			S_ISLNK(mode) ? "target" : NULL, &cred, &a));
	return a.ino;
}

static int put(struct fs *fs, uint64_t ino, uint64_t off, size_t len,
	       uint64_t what)
{
	static uint8_t buf[65536];
	struct rng r;

	rng_init(&r, what, 77);
	rng_fill(&r, buf, len);
	return fs_write(fs, ino, off, buf, len, 0);
}

/* logged: the newest changes lie in the log, not in a commit. */
static void base_make(struct base *b, uint32_t node_size, unsigned copies)
{
	struct store *s;
	struct fs *fs;

	ck_ok(bdev_open_mem(DEV_SIZE, &b->dev));
	ck_ok(store_close(test_format(b->dev, node_size, 1 + copies % 2,
				      1 + copies / 2 % 2)));
	open_fs(b->dev, false, &s, &fs);
	b->a = make(fs, ROOT, "A", S_IFDIR | 0755);
	b->b = make(fs, ROOT, "B", S_IFDIR | 0755);
	b->foo = make(fs, b->a, "foo", S_IFREG | 0644);
	b->bar = make(fs, b->a, "bar", S_IFREG | 0644);
	b->baz = make(fs, b->b, "baz", S_IFREG | 0644);
	make(fs, b->a, "sym", S_IFLNK | 0777);
	make(fs, b->b, "empty", S_IFDIR | 0755);
	ck_ok(put(fs, b->foo, 0, 30000, 1));
	ck_ok(put(fs, b->bar, 0, 300, 2));
	ck_ok(put(fs, b->baz, 0, 50000, 3));
	ck_ok(fs_setxattr(fs, b->foo, "user.old", "value", 5, 0, &cred));
	ck_ok(snap_create(s, "snap", NULL));
	ck_ok(put(fs, b->foo, 8192, 4096, 4));
	fs_umount(fs);
	ck_ok(store_close(s));
}

/* ---- operations ---- */

struct step {
	const char *name;
	int (*run)(struct job *j);
	bool durable; /* it is promised when it returns */
};

#define OP(name, call)                                \
	static int do_##name(struct job *j)           \
	{                                             \
		struct fs *fs = j->fs;                \
		const struct base *b = j->base;       \
		struct attr out = { 0 };              \
		uint64_t n;                           \
                                                      \
		(void)fs, (void)b, (void)out, (void)n; \
		return call;                          \
	}

static int set_size(struct fs *fs, uint64_t ino, uint64_t size)
{
	struct attr a = { .size = size };

	return fs_setattr(fs, ino, FS_SET_SIZE, &a, &cred, &a);
}

static int set_large(struct fs *fs, uint64_t ino)
{
	static uint8_t value[6000];

	memset(value, 'v', sizeof(value));
	return fs_setxattr(fs, ino, "user.large", value, sizeof(value), 0,
			   &cred);
}

static int set_mode(struct fs *fs, uint64_t ino)
{
	struct attr a = { .mode = 0600 };

	return fs_setattr(fs, ino, FS_SET_MODE, &a, &cred, &a);
}

#define ALLOCATE(mode, off, len) \
	fs_fallocate(fs, b->foo, mode, off, len, &cred)

OP(create, fs_create(fs, b->a, "new", 3, S_IFREG | 0644, 0, NULL, &cred, &out))
OP(write, put(fs, b->foo, 50000, 9000, 10)) /* beyond the end */
OP(append, put(fs, b->foo, 30000, 2500, 11))
OP(overwrite, put(fs, b->foo, 4096, 8192, 12))
OP(patch, put(fs, b->foo, 5000, 100, 13))
OP(inline_write, put(fs, b->bar, 100, 50, 14))
OP(inline_grow, put(fs, b->bar, 200, 6000, 15))
OP(truncate, set_size(fs, b->foo, 9001))
OP(truncate_zero, set_size(fs, b->foo, 0))
OP(extend, set_size(fs, b->foo, 40000))
OP(punch, ALLOCATE(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5000, 12000))
OP(zero, ALLOCATE(FALLOC_FL_ZERO_RANGE, 4096, 8192))
OP(allocate, ALLOCATE(FALLOC_FL_KEEP_SIZE, 28000, 30000))
OP(link, fs_link(fs, b->foo, b->b, "link", 4, &out))
OP(unlink, fs_unlink(fs, b->a, "foo", 3, NULL))
OP(unlink_inline, fs_unlink(fs, b->a, "bar", 3, NULL))
OP(rename, fs_rename(fs, b->a, "bar", 3, b->b, "moved", 5, 0))
OP(rename_over, fs_rename(fs, b->a, "foo", 3, b->b, "baz", 3, 0))
OP(exchange, fs_rename(fs, b->a, "foo", 3, b->b, "baz", 3, RENAME_EXCHANGE))
OP(rename_dir, fs_rename(fs, ROOT, "A", 1, b->b, "C", 1, 0))
OP(symlink, fs_create(fs, b->a, "s", 1, S_IFLNK | 0777, 0, "there", &cred,
		      &out))
OP(set_xattr, fs_setxattr(fs, b->foo, "user.x", "12345", 5, 0, &cred))
OP(large_xattr, set_large(fs, b->foo))
OP(remove_xattr, fs_removexattr(fs, b->foo, "user.old"))
OP(chmod, set_mode(fs, b->foo))
OP(mkdir, fs_create(fs, b->a, "dir", 3, S_IFDIR | 0755, 0, NULL, &cred, &out))
OP(rmdir, fs_rmdir(fs, b->b, "empty", 5, NULL))
OP(copy, fs_copy_range(fs, fs_live(fs), b->foo, 4096, b->baz, 8192, 20000, &n))
OP(copy_odd, fs_copy_range(fs, fs_live(fs), b->foo, 10, b->bar, 77, 9000, &n))
OP(snap_create, snap_create(j->s, "other", NULL))
OP(snap_restore, fs_restore(fs, "snap", COWFS_SNAP_UNDO, NULL))
OP(snap_replace, fs_restore(fs, "snap", NULL, NULL))
OP(snap_delete, fs_snap_delete(fs, "snap"))
OP(nothing, 0)

static const struct step ops[] = {
	{ "nothing", do_nothing, false },
	{ "create", do_create, false },
	{ "write", do_write, false },
	{ "append", do_append, false },
	{ "overwrite", do_overwrite, false },
	{ "patch", do_patch, false },
	{ "write inline", do_inline_write, false },
	{ "grow inline", do_inline_grow, false },
	{ "truncate", do_truncate, false },
	{ "truncate to 0", do_truncate_zero, false },
	{ "extend", do_extend, false },
	{ "punch", do_punch, false },
	{ "zero range", do_zero, false },
	{ "allocate", do_allocate, false },
	{ "link", do_link, false },
	{ "unlink", do_unlink, false },
	{ "unlink inline", do_unlink_inline, false },
	{ "rename", do_rename, false },
	{ "rename over", do_rename_over, false },
	{ "exchange", do_exchange, false },
	{ "rename directory", do_rename_dir, false },
	{ "symlink", do_symlink, false },
	{ "set xattr", do_set_xattr, false },
	{ "large xattr", do_large_xattr, false },
	{ "remove xattr", do_remove_xattr, false },
	{ "chmod", do_chmod, false },
	{ "mkdir", do_mkdir, false },
	{ "rmdir", do_rmdir, false },
	{ "copy range", do_copy, false },
	{ "copy range, odd", do_copy_odd, false },
	{ "snapshot create", do_snap_create, true },
	{ "snapshot restore", do_snap_restore, true },
	{ "snapshot restore, nothing saved", do_snap_replace, true },
	{ "snapshot delete", do_snap_delete, true },
};
#define OPS ((unsigned)ARRAY_SIZE(ops))

static int sync_none(struct job *j)
{
	(void)j;
	return 0;
}

static int sync_file(struct job *j)
{
	return fs_fsync(j->fs, j->base->foo, false);
}

static int sync_dir(struct job *j)
{
	return fs_fsync(j->fs, j->base->a, false);
}

static int sync_other(struct job *j)
{
	return fs_fsync(j->fs, j->base->baz, true);
}

static int sync_all(struct job *j)
{
	return store_commit(j->s, NULL, NULL);
}

static const struct step syncs[] = {
	{ "nothing", sync_none, false },
	{ "fsync", sync_file, true },
	{ "fsync of the directory", sync_dir, true },
	{ "fdatasync of another", sync_other, true },
	{ "commit", sync_all, true },
};
#define SYNCS ((unsigned)ARRAY_SIZE(syncs))
#define STEPS (OPS * SYNCS)

/* ---- running a workload ---- */

static void reached(struct job *j, size_t begin, bool durable)
{
	size_t i = j->states++, k, now = log_count(j->log);

	ck_ok(fs_digest(j->fs, &j->state[i].digest));
	j->state[i].begin = begin;
	j->state[i].promised = SIZE_MAX;
	for (k = 0; durable && k <= i; k++)
		if (j->state[k].promised == SIZE_MAX)
			j->state[k].promised = now;
}

static void do_one(struct job *j, const struct step *op)
{
	size_t begin = log_count(j->log), len = strlen(j->text);
	int err = op->run(j);

	snprintf(j->text + len, sizeof(j->text) - len, "%s%s",
		 len ? ", " : "", op->name);
	ck_assert_msg(err == 0 || err == -ENOENT || err == -EEXIST ||
			      err == -ESTALE || err == -ENODATA ||
			      err == -ENOTEMPTY,
		      "%s: %s", j->text, test_errname(err));
	ck_assert(!store_stopped(j->s));
	reached(j, begin, op->durable && !err);
}

/* steps: of each, the number of an operation and of a sync. */
static void run_workload(struct job *j, const unsigned *step, unsigned steps,
			 bool close)
{
	unsigned i;

	ck_ok(overlay_open(j->base->dev, &j->work));
	ck_ok(log_open(j->work, &j->log));
	open_fs(j->log, false, &j->s, &j->fs);
	reached(j, 0, true);
	for (i = 0; i < steps; i++) {
		do_one(j, &ops[step[i] / SYNCS]);
		do_one(j, &syncs[step[i] % SYNCS]);
		if (rng_one_in(&j->rng, 3))
			ck_ok(store_drain(j->s));
	}
	fs_umount(j->fs);
	if (close) {
		ck_ok(store_close(j->s));
		for (i = 0; i < j->states; i++)
			if (j->state[i].promised == SIZE_MAX)
				j->state[i].promised = log_count(j->log);
	} else {
		store_abandon(j->s);
	}
}

/* ---- judging a state ---- */

static bool allowed(const struct job *j, size_t cut, uint64_t digest)
{
	unsigned i, oldest = 0;

	for (i = 0; i < j->states; i++)
		if (j->state[i].promised <= cut)
			oldest = i;
	for (i = oldest; i < j->states && j->state[i].begin <= cut; i++)
		if (j->state[i].digest == digest)
			return true;
	return false;
}

static void found(void *arg, enum problem p, const char *where)
{
	const struct job *j = arg;

	fprintf(stderr, "%s: %s: %s\n", j->text, problem_name(p), where);
}

static uint64_t look(struct job *j, struct bdev *dev)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = found, .arg = j };
	struct check_result res;
	struct store *s;
	struct fs *fs;
	uint64_t digest;

	open_fs(dev, true, &s, &fs);
	ck_ok(fs_digest(fs, &digest));
	ck_ok(check_run(s, &opt, &res));
	ck_assert_msg(res.problems == 0, "%s: %" PRIu64 " problems", j->text,
		      res.problems);
	fs_umount(fs);
	ck_ok(store_close(s));
	return digest;
}

/* It is opened for writing, and that is cut, too. */
static void cut_recovery(struct job *j, size_t from, struct bdev *dev,
			 uint64_t digest)
{
	struct bdev *base, *log, *state, *work;
	struct pick p = PICK(PICK_SEED);
	struct replay r;
	struct store *s;
	struct fs *fs;
	uint64_t again;
	size_t cut, sure;

	ck_ok(overlay_open(dev, &base));
	ck_ok(overlay_open(dev, &work));
	ck_ok(log_open(work, &log));
	open_fs(log, false, &s, &fs);
	fs_umount(fs);
	store_abandon(s);
	replay_init(&r, log, base);
	for (cut = 1; cut <= log_count(log); cut++) {
		p.seed = rng_next(&j->rng);
		p.torn = rng_below(&j->rng, cut);
		p.torn_seed = rng_next(&j->rng);
		ck_ok(replay_cut(&r, cut, &sure));
		ck_ok(replay_state(&r, cut, &p, &state));
		again = look(j, state);
		ck_assert_msg(again == digest || allowed(j, from, again),
			      "%s: cut at %zu, recovery at %zu of %zu: a state "
			      "that never was", j->text, from, cut,
			      log_count(log));
		bdev_close(state);
	}
	bdev_close(log);
	bdev_close(work);
	bdev_close(base);
}

/* New writes last, and leave nothing that is wrong. */
static void write_after(struct job *j, struct bdev *dev, uint64_t before)
{
	struct store *s;
	struct fs *fs;
	uint64_t digest;

	open_fs(dev, false, &s, &fs);
	ck_ok(fs_digest(fs, &digest));
	ck_fast(digest == before);
	ck_ok(store_drain(s));
	ck_ok(put(fs, make(fs, ROOT, "after", S_IFREG | 0600), 0, 5000, 99));
	if (rng_one_in(&j->rng, 2)) {
		ck_ok(fs_fsync(fs, ROOT, false));
		ck_ok(fs_digest(fs, &digest));
		fs_umount(fs);
		store_abandon(s);
	} else {
		ck_ok(fs_digest(fs, &digest));
		fs_umount(fs);
		ck_ok(store_close(s));
	}
	ck_fast(look(j, dev) == digest);
}

/* The same without a failure. */
static bool holds(struct job *j, struct bdev *dev, size_t cut)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_READONLY };
	struct fs_options opt = { .readonly = true };
	struct store *s;
	struct fs *fs;
	uint64_t digest;
	int err;

	if (store_open(&cfg, &s))
		return false;
	err = fs_mount(s, &opt, &fs);
	if (!err) {
		err = fs_digest(fs, &digest);
		fs_umount(fs);
	}
	ck_ok(store_close(s));
	return !err && allowed(j, cut, digest);
}

static void judge(struct job *j, struct replay *r, size_t cut,
		  const struct pick *p)
{
	struct bdev *dev;
	uint64_t digest;

	ck_ok(replay_state(r, cut, p, &dev));
	j->tried++;
	if (j->forgetful) {
		j->wrong += !holds(j, dev, cut);
		bdev_close(dev);
		return;
	}
	digest = look(j, dev);
	ck_assert_msg(allowed(j, cut, digest),
		      "%s: cut at %zu of %zu (mask %#" PRIx64 ", torn %zu): a "
		      "state that never was, or a promise broken", j->text, cut,
		      log_count(j->log), p->mask, p->torn);
	if (rng_one_in(&j->rng, 12))
		cut_recovery(j, cut, dev, digest);
	write_after(j, dev, digest);
	bdev_close(dev);
}

/* ---- enumerating states ---- */

/* Called for each state; the first time only to count them. */
struct visit {
	struct job *j;
	struct replay *r; /* NULL: count */
	uint64_t of;      /* states there are */
};

static void visit(struct visit *v, size_t cut, const struct pick *p)
{
	if (!v->r)
		v->of++;
	else if (rng_below(&v->j->rng, v->of) < PER_WORKLOAD)
		judge(v->j, v->r, cut, p);
}

/* P2: torn, of all or of the last alone. */
static void visit_torn(struct visit *v, size_t sure, size_t cut)
{
	struct pick p = PICK(PICK_MASK);
	size_t i;

	for (i = sure; i < cut; i++) {
		const struct log_entry *e = log_get(v->j->log, i);

		if (e->kind != LOG_WRITE || e->len <= TEST_SECTOR)
			continue;
		p.mask = UINT64_MAX;
		p.torn = i;
		p.torn_seed = rng_next(&v->j->rng) | 1;
		visit(v, cut, &p);
		p.torn_seed = 0;
		p.sectors = 1 + rng_below(&v->j->rng, e->len / TEST_SECTOR - 1);
		if (i == cut - 1)
			p.mask = rng_next(&v->j->rng) |
				 UINT64_C(1) << (cut - 1 - sure) % 64;
		visit(v, cut, &p);
	}
}

/* P1. */
static void visit_subsets(struct visit *v, size_t sure, size_t cut)
{
	uint64_t n = cut - sure - 1, last = UINT64_C(1) << n % 64, i;
	struct pick p = PICK(PICK_MASK);

	if (n <= 4) {
		for (i = 0; i < UINT64_C(1) << n; i++) {
			p.mask = i | last;
			visit(v, cut, &p);
		}
		return;
	}
	p.mask = UINT64_MAX;
	visit(v, cut, &p);
	p.mask = last;
	visit(v, cut, &p);
	for (i = 0; i < n && i < 63; i++) {
		p.mask = ~(UINT64_C(1) << i) | last;
		visit(v, cut, &p);
	}
	for (i = 0; i < 4; i++) {
		p.mask = rng_next(&v->j->rng) | last;
		visit(v, cut, &p);
	}
}

static bool overlap(const struct log_entry *a, const struct log_entry *b)
{
	return a->kind == LOG_WRITE && b->kind == LOG_WRITE &&
	       a->off < b->off + b->len && b->off < a->off + a->len;
}

static void visit_cut(struct visit *v, size_t sure, size_t cut)
{
	struct pick p = PICK(PICK_NONE);
	const struct log_entry *e = log_get(v->j->log, cut - 1);
	size_t i;

	if (cut == sure) {
		visit(v, cut, &p); /* P3 */
		return;
	}
	for (i = sure; i < cut - 1 && !v->j->forgetful; i++)
		ck_assert_msg(!overlap(log_get(v->j->log, i), e),
			      "%s: writes %zu and %zu overlap, no flush between",
			      v->j->text, i, cut - 1);
	visit_subsets(v, sure, cut);
	visit_torn(v, sure, cut);
}

static void visit_all(struct visit *v)
{
	struct bdev *log = v->j->log;
	size_t cut, sure = 0;

	/* the first state is reached by a finished mount */
	for (cut = 1; cut <= log_count(log); cut++) {
		/* That of a durable write covers nothing but it. */
		if (log_get(log, cut - 1)->kind == LOG_FLUSH &&
		    !log_get(log, cut - 1)->len)
			sure = cut;
		if (cut < v->j->state[0].promised)
			continue;
		if (v->r) {
			size_t at;

			ck_ok(replay_cut(v->r, cut, &at));
			ck_fast(at == sure);
		}
		visit_cut(v, sure, cut);
	}
}

/* As if the device had done nothing when it was told to flush. */
static void forget_flushes(struct job *j)
{
	size_t i;

	for (i = j->state[0].promised; i < log_count(j->log); i++) {
		struct log_entry *e = (void *)(uintptr_t)log_get(j->log, i);

		if (e->kind != LOG_FLUSH)
			continue;
		e->kind = LOG_DISCARD; /* of nothing */
		e->len = 0;
	}
}

/* One workload; how many of its states were tried, or are wrong. */
static uint64_t try_workload(struct base *base, uint64_t seed,
			     const unsigned *step, unsigned steps,
			     bool forgetful)
{
	struct job *j = calloc(1, sizeof(*j));
	struct visit v = { .j = j };
	struct bdev *under;
	struct replay r;
	uint64_t tried;

	ck_assert_ptr_nonnull(j);
	j->base = base;
	j->forgetful = forgetful;
	rng_init(&j->rng, test_seed(), seed);
	test_log_hide();
	run_workload(j, step, steps, rng_one_in(&j->rng, 4));
	if (forgetful)
		forget_flushes(j);
	visit_all(&v);
	ck_ok(overlay_open(base->dev, &under));
	replay_init(&r, j->log, under);
	v.r = &r;
	visit_all(&v);
	test_log_show();
	bdev_close(under);
	bdev_close(j->log);
	bdev_close(j->work);
	tried = forgetful ? j->wrong : j->tried;
	free(j);
	return tried;
}

/* ---- the tests ---- */

static struct base bases[4];

static void make_bases(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bases); i++)
		base_make(&bases[i], i == 3 ? 16384 : 4096, i);
}

static void drop_bases(void)
{
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bases); i++)
		bdev_close(bases[i].dev);
}

START_TEST(every_operation_next_to_every_sync_survives_power_cuts)
{
	uint64_t tried = 0;
	unsigned step;

	for (step = 0; step < STEPS; step++) {
		/* the others are left to pairs */
		if (test_rounds(1) == 1 && step % SYNCS >= 2 &&
		    step % SYNCS <= 3)
			continue;
		tried += try_workload(&bases[step % ARRAY_SIZE(bases)], step,
				      &step, 1, false);
	}
	printf("%" PRIu64 " states of %u workloads\n", tried, STEPS);
	ck_assert_uint_gt(tried, STEPS);
}
END_TEST

/* All pairs once, in an order that has no pattern, then again. */
START_TEST(pairs_of_operations_survive_power_cuts)
{
	const uint64_t pairs = (uint64_t)STEPS * STEPS;
	uint64_t goal = test_rounds(STATES), tried = 0, n, at;
	unsigned step[2];

	at = test_seed() % pairs;
	for (n = 0; tried < goal; n++) {
		at = (at + 10007) % pairs; /* a prime, none of theirs */
		step[0] = (unsigned)(at / STEPS);
		step[1] = (unsigned)(at % STEPS);
		tried += try_workload(&bases[(at + n / pairs) %
					     ARRAY_SIZE(bases)],
				      STEPS + n, step, 2, false);
		if (n % 2000 == 1999)
			printf("%" PRIu64 " states of %" PRIu64 " pairs\n",
			       tried, n + 1);
	}
	printf("%" PRIu64 " states of %" PRIu64 " pairs of %" PRIu64 "\n",
	       tried, n, pairs);
}
END_TEST

/* What the tests above rely on: a device that does not flush is found out. */
START_TEST(without_flushes_states_are_wrong)
{
	uint64_t wrong = 0;
	unsigned i;

	for (i = 0; i < 40; i++) {
		/* an operation with fsync, then one with a commit */
		unsigned step[2] = { (2 + i % 8) * SYNCS + 1,
				     (3 + i % 7) * SYNCS + 4 };

		wrong += try_workload(&bases[i % ARRAY_SIZE(bases)], 1000 + i,
				      step, 2, true);
	}
	printf("%" PRIu64 " wrong states without flushes\n", wrong);
	ck_assert_uint_gt(wrong, 10);
}
END_TEST

static Suite *pairs_suite(void)
{
	Suite *su = suite_create("pairs of operations");
	TCase *tc = tcase_create("power cuts");

	tcase_set_timeout(tc, 0);
	tcase_add_checked_fixture(tc, make_bases, drop_bases);
	tcase_add_test(tc,
		       every_operation_next_to_every_sync_survives_power_cuts);
	tcase_add_test(tc, pairs_of_operations_survive_power_cuts);
	tcase_add_test(tc, without_flushes_states_are_wrong);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(pairs_suite());
}
