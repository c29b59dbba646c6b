/*
 * test_faults.c - the n-th write, flush, read, allocation fails, for each n
 *
 * One workload that uses every operation, fsync, commits, snapshots, deletion
 * in the background and a scrub runs again and again, with one thing failing
 * (once, or from then on; memory also twice, so that what takes a change back fails,
 * too) until a run passes without the fault. Each time:
 *
 *   F1  a failed operation has changed nothing, unless the store has stopped;
 *   F2  a write or flush that failed is told to somebody;
 *   F3  a store that has stopped goes on reading (what an operation left half
 *       done for want of memory may give EIO until the next mount), and
 *       refuses to write;
 *   F4  everything can be closed (no lock is left held), nothing is leaked
 *       (the same under ASan);
 *   F5  opened again, the image is in one of the states that were, none older
 *       than what was promised, and checks clean.
 *
 * For memory and reads, which are many, every n would take long: a sample of
 * them, by SEED; ROUNDS=25 tries all.
 */
#include <dirent.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_SIZE (UINT64_C(12) << 20)
#define ROOT COWFS_INO_ROOT
#define BASE_FILES 60

/* ---- what fails ---- */

enum kind { FAIL_READ, FAIL_WRITE, FAIL_FLUSH, FAIL_MEMORY, FAIL_SPACE, KINDS };

static struct {
	bool armed;
	enum kind kind;
	uint64_t n, times, seen, fired;
	bool batches; /* it is armed while nodes are written, and only then */
} fault;

static bool fails(enum kind kind)
{
	if (!fault.armed || kind != fault.kind)
		return false;
	fault.seen++;
	if (fault.seen < fault.n || fault.seen - fault.n >= fault.times)
		return false;
	fault.fired++;
	return true;
}

/* The linker puts these in front of the real ones (Makefile). */
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
	return fails(FAIL_MEMORY) ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	return fails(FAIL_MEMORY) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails(FAIL_MEMORY) ? NULL : __real_realloc(p, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	return fails(FAIL_MEMORY) ? NULL : __real_aligned_alloc(align, size);
}

int __real_alloc_take(struct alloc *a, enum alloc_area area, uint64_t hint,
		      uint64_t want, uint64_t *blk, uint64_t *got);
int __real_alloc_check(struct alloc *a, enum alloc_class cls, unsigned nodes);
int __wrap_alloc_take(struct alloc *a, enum alloc_area area, uint64_t hint,
		      uint64_t want, uint64_t *blk, uint64_t *got);
int __wrap_alloc_check(struct alloc *a, enum alloc_class cls, unsigned nodes);

int __wrap_alloc_take(struct alloc *a, enum alloc_area area, uint64_t hint,
		      uint64_t want, uint64_t *blk, uint64_t *got)
{
	if (fails(FAIL_SPACE))
		return -ENOSPC;
	return __real_alloc_take(a, area, hint, want, blk, got);
}

int __wrap_alloc_check(struct alloc *a, enum alloc_class cls, unsigned nodes)
{
	if (fails(FAIL_SPACE))
		return -ENOSPC;
	return __real_alloc_check(a, cls, nodes);
}

int __real_node_batch_write(struct node_batch *b, uint64_t *bytes);
int __wrap_node_batch_write(struct node_batch *b, uint64_t *bytes);

int __wrap_node_batch_write(struct node_batch *b, uint64_t *bytes)
{
	bool armed = fault.armed;
	int err;

	fault.armed |= fault.batches;
	err = __real_node_batch_write(b, bytes);
	fault.armed = armed;
	return err;
}

/* A device that fails by the same counter; what is below it never does. */
struct faulty {
	struct bdev dev;
	struct bdev *below;
};

static int faulty_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	bool armed = fault.armed;
	int err = fails(FAIL_READ) ? -EIO : 0;

	fault.armed = false;
	if (!err)
		err = bdev_read(((struct faulty *)dev)->below, off, buf, len);
	fault.armed = armed;
	return err;
}

static int faulty_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			 int n)
{
	bool armed = fault.armed;
	int err = fails(FAIL_WRITE) ? -EIO : 0;

	fault.armed = false;
	if (!err)
		err = bdev_writev(((struct faulty *)dev)->below, off, iov, n);
	fault.armed = armed;
	return err;
}

static int faulty_flush(struct bdev *dev)
{
	(void)dev;
	return fails(FAIL_FLUSH) ? -EIO : 0;
}

static const struct bdev_ops faulty_ops = {
	.read = faulty_read, .writev = faulty_writev, .flush = faulty_flush,
};

/* ---- the workload ---- */

struct run {
	struct faulty dev;
	struct store *s;
	struct fs *fs;
	uint64_t state[80];
	unsigned states, promised;
	bool told; /* an error came back */
	bool torn; /* not all can be read until the next mount */
	const char *step;
};

static const struct cred cred = { .umask = 022 };

static int find(struct run *r, const char *name, uint64_t *ino)
{
	struct attr a = { 0 };
	int err = fs_lookup(r->fs, fs_live(r->fs), ROOT, name, strlen(name),
			    &a);

	*ino = a.ino;
	return err;
}

static int make(struct run *r, const char *name, uint32_t mode)
{
	struct attr a;

	return fs_create(r->fs, ROOT, name, strlen(name), mode, 0,
			 S_ISLNK(mode) ? "target" : NULL, &cred, &a);
}

static int put(struct run *r, const char *name, uint64_t off, size_t len)
{
	static uint8_t buf[65536];
	uint64_t ino;
	int err = find(r, name, &ino);

	memset(buf, (int)('a' + r->states % 26), len);
	return err ? err : fs_write(r->fs, ino, off, buf, len, 0);
}

static int resize(struct run *r, const char *name, uint64_t size)
{
	struct attr a = { .size = size };
	uint64_t ino;
	int err = find(r, name, &ino);

	return err ? err : fs_setattr(r->fs, ino, FS_SET_SIZE, &a, &cred, &a);
}

static int reserve(struct run *r, const char *name, int mode, uint64_t off,
		   uint64_t len)
{
	uint64_t ino;
	int err = find(r, name, &ino);

	return err ? err : fs_fallocate(r->fs, ino, mode, off, len, &cred);
}

static int xattr(struct run *r, const char *name, const char *key, size_t len)
{
	static uint8_t value[9000];
	uint64_t ino;
	int err = find(r, name, &ino);

	if (err)
		return err;
	return len ? fs_setxattr(r->fs, ino, key, value, len, 0, &cred)
		   : fs_removexattr(r->fs, ino, key);
}

static int copy(struct run *r, const char *from, const char *to)
{
	uint64_t a, b, done;
	int err = find(r, from, &a);

	if (!err)
		err = find(r, to, &b);
	return err ? err : fs_copy_range(r->fs, fs_live(r->fs), a, 4096, b,
					 8192, 16384, &done);
}

static int relink(struct run *r, const char *old, const char *new)
{
	struct attr a;
	uint64_t ino;
	int err = find(r, old, &ino);

	return err ? err : fs_link(r->fs, ino, ROOT, new, strlen(new), &a);
}

static int move(struct run *r, const char *old, const char *new,
		unsigned flags)
{
	return fs_rename(r->fs, ROOT, old, strlen(old), ROOT, new, strlen(new),
			 flags);
}

static int scrub(struct run *r)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;
	int err = check_run(r->s, &opt, &res);

	return err ? err : res.problems ? -EIO : 0;
}

static int read_all(struct run *r)
{
	static uint8_t buf[65536];
	char name[16];
	uint64_t ino;
	size_t got;
	int i, err = 0;

	for (i = 0; !err && i < BASE_FILES; i += 7) {
		snprintf(name, sizeof(name), "base%d", i);
		err = find(r, name, &ino);
		if (!err)
			err = fs_read(r->fs, fs_live(r->fs), ino, 0, buf,
				      sizeof(buf), &got);
	}
	return err;
}

#define UNLINK(name) fs_unlink(r->fs, ROOT, name, strlen(name), NULL)
#define FSYNC fs_fsync(r->fs, ROOT, false)
#define COMMIT store_commit(r->s, NULL, NULL)

/* STEPWISE: a part may have been done (fs.h). */
enum { CHANGES = 1, SYNCS = 2, BACKGROUND = 4, STEPWISE = 8 };

/* Each: what it is, and what it does. */
#define STEPS(X)                                                      \
	X(0, read_all(r))                                             \
	X(CHANGES, make(r, "a", S_IFREG | 0644))                      \
	X(CHANGES, put(r, "a", 0, 30000))                             \
	X(CHANGES, make(r, "b", S_IFREG | 0644))                      \
	X(CHANGES, put(r, "b", 0, 400))                               \
	X(CHANGES | SYNCS, FSYNC)                                     \
	X(CHANGES, put(r, "a", 5000, 9000))                           \
	X(CHANGES | STEPWISE, put(r, "b", 300, 9000))                 \
	X(CHANGES, make(r, "sym", S_IFLNK | 0777))                    \
	X(CHANGES, make(r, "dir", S_IFDIR | 0755))                    \
	X(CHANGES, relink(r, "a", "a2"))                              \
	X(CHANGES | SYNCS, FSYNC)                                     \
	X(CHANGES, move(r, "b", "base3", 0))                          \
	X(CHANGES, move(r, "base4", "base5", RENAME_EXCHANGE))        \
	X(CHANGES, xattr(r, "a", "user.small", 20))                   \
	X(CHANGES, xattr(r, "a", "user.large", 9000))                 \
	X(CHANGES | SYNCS, COMMIT)                                    \
	X(CHANGES, copy(r, "a", "base6"))                             \
	X(CHANGES | STEPWISE, reserve(r, "a", FALLOC_FL_PUNCH_HOLE |  \
			   FALLOC_FL_KEEP_SIZE, 4096, 9000))          \
	X(CHANGES | STEPWISE, reserve(r, "a", FALLOC_FL_KEEP_SIZE,    \
			   40000, 20000))                             \
	X(CHANGES | STEPWISE, resize(r, "base6", 9001))               \
	X(CHANGES | SYNCS, snap_create(r->s, "one", NULL))            \
	X(CHANGES, copy(r, "a", "base9"))                             \
	X(CHANGES, put(r, "a", 8192, 8192))                           \
	X(CHANGES, UNLINK("base7"))                                   \
	X(CHANGES, xattr(r, "a", "user.large", 0))                    \
	X(CHANGES | SYNCS, FSYNC)                                     \
	X(CHANGES | SYNCS, snap_create(r->s, "two", NULL))            \
	X(CHANGES, put(r, "a2", 0, 20000))                            \
	X(CHANGES | SYNCS, snap_create(r->s, "three", NULL))          \
	X(CHANGES | SYNCS, fs_snap_delete(r->fs, "three"))            \
	X(CHANGES | SYNCS, fs_restore(r->fs, "two", NULL, NULL))      \
	X(CHANGES | SYNCS, fs_restore(r->fs, "one", COWFS_SNAP_UNDO, NULL)) \
	X(CHANGES, put(r, "a", 100, 100))                             \
	X(CHANGES | SYNCS, fs_snap_delete(r->fs, "two"))              \
	X(BACKGROUND, store_drain(r->s))                              \
	X(CHANGES, UNLINK("base8"))                                   \
	X(CHANGES, UNLINK("a"))                                       \
	X(CHANGES, UNLINK("a2"))                                      \
	X(BACKGROUND, store_drain(r->s))                              \
	X(CHANGES | SYNCS, COMMIT)                                    \
	X(0, scrub(r))                                                \
	X(CHANGES | SYNCS, fs_snap_delete(r->fs, "one"))              \
	X(BACKGROUND, store_drain(r->s))                              \
	X(CHANGES, fs_rmdir(r->fs, ROOT, "dir", 3, NULL))             \
	X(CHANGES, make(r, "last", S_IFREG | 0600))                   \
	X(CHANGES | SYNCS, FSYNC)                                     \
	X(0, read_all(r))

/* One step of the workload by number; false: there is none. */
static bool do_step(struct run *r, unsigned n, unsigned *what, int *err)
{
	unsigned i = 0;

#define X(what_, call)                    \
	if (i++ == n) {                   \
		*what = (what_);          \
		r->step = #call;          \
		fault.armed = true;       \
		*err = (call);            \
		fault.armed = false;      \
		return true;              \
	}
	STEPS(X)
#undef X
	return false;
}

/* ---- one run ---- */

static struct bdev *base;

static void open_base(struct bdev *dev, unsigned flags, struct store **s,
		      struct fs **fs)
{
	ck_ok(test_mount(dev, flags, 0, s, fs));
}

static void make_base(void)
{
	struct run r = { 0 };
	char name[16];
	unsigned i;

	ck_ok(bdev_open_mem(DEV_SIZE, &base));
	ck_ok(store_close(test_format(base, 4096, 2, 1)));
	open_base(base, 0, &r.s, &r.fs);
	for (i = 0; i < BASE_FILES; i++) {
		snprintf(name, sizeof(name), "base%u", i);
		ck_ok(make(&r, name, S_IFREG | 0644));
		ck_ok(put(&r, name, 0, i % 5 ? 500 : 20000));
	}
	fs_umount(r.fs);
	ck_ok(store_close(r.s));
}

static void drop_base(void)
{
	bdev_close(base);
}

static void found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", problem_name(p), where);
}

static const char *const kinds[KINDS] = { "read", "write", "flush",
					  "allocation of memory",
					  "allocation of space" };

#define FAULT_FMT "%s %" PRIu64 "%s: %s: "
#define FAULT_ARGS(r) kinds[fault.kind], fault.n, \
		      fault.times > 1 ? " and on" : "", (r)->step

/* F5 */
static void look_again(struct run *r)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = found };
	struct check_result res;
	struct store *s;
	struct fs *fs;
	uint64_t digest;
	unsigned i;

	open_base(r->dev.below, STORE_READONLY, &s, &fs);
	ck_ok(fs_digest(fs, &digest));
	for (i = r->promised; i < r->states; i++)
		if (r->state[i] == digest)
			break;
	ck_assert_msg(i < r->states, FAULT_FMT "not one of the states %u to %u",
		      FAULT_ARGS(r), r->promised, r->states);
	ck_ok(check_run(s, &opt, &res));
	ck_assert_msg(res.problems == 0, FAULT_FMT "%" PRIu64 " problems",
		      FAULT_ARGS(r), res.problems);
	fs_umount(fs);
	ck_ok(store_close(s));
}

static void reached(struct run *r, bool promised)
{
	int err = fs_digest(r->fs, &r->state[r->states]);

	if (err && store_stopped(r->s) && fault.kind == FAIL_MEMORY &&
	    cowfs_errno_for_user(err) == -EIO) {
		r->torn = true;
		err = 0;
		r->state[r->states] = 0;
	}
	ck_assert_msg(err == 0, FAULT_FMT "cannot be read: %s", FAULT_ARGS(r),
		      test_errname(err)); /* F3 */
	if (promised)
		r->promised = r->states;
	r->states++;
}

static void one_step(struct run *r, unsigned what, int err, bool stopped)
{
	unsigned last = r->states - 1;

	r->told = r->told || err;
	ck_assert_msg(!stopped || !(what & SYNCS) || err,
		      FAULT_FMT "promises though it has stopped",
		      FAULT_ARGS(r));
	reached(r, what & SYNCS && !err);
	if (!r->torn && (stopped || (err && !store_stopped(r->s) &&
			!(what & (BACKGROUND | STEPWISE)))))
		ck_assert_msg(r->state[last] == r->state[last + 1],
			      FAULT_FMT "%s, but something has changed",
			      FAULT_ARGS(r), test_errname(err));
}

static int open_faulty(struct run *r)
{
	struct store_config cfg = { .dev = &r->dev.dev,
				    .cache_bytes = 128 << 10 };
	struct fs_options opt = { .noatime = true };
	int err;

	r->step = "opening";
	fault.armed = true;
	err = store_open(&cfg, &r->s);
	if (!err) {
		err = snap_start(r->s);
		if (!err)
			err = fs_mount(r->s, &opt, &r->fs);
		if (err)
			store_abandon(r->s);
	}
	fault.armed = false;
	return err;
}

static void first_state(struct run *r)
{
	struct store *s;
	struct fs *fs;

	open_base(base, STORE_READONLY, &s, &fs);
	ck_ok(fs_digest(fs, &r->state[0]));
	fs_umount(fs);
	ck_ok(store_close(s));
	r->states = 1;
}

static void work(struct run *r)
{
	unsigned n, what;
	bool stopped = false;
	int err;

	for (n = 0; do_step(r, n, &what, &err); n++) {
		one_step(r, what, err, stopped);
		stopped = store_stopped(r->s);
	}
	r->step = "closing";
	fs_umount(r->fs);
	fault.armed = true;
	err = store_close(r->s);
	fault.armed = false;
	r->told = r->told || err;
	if (!err)
		r->promised = r->states - 1;
	ck_assert_msg(!stopped || err, FAULT_FMT "as if all was well",
		      FAULT_ARGS(r));
}

static void faulty_open(struct run *r)
{
	ck_ok(overlay_open(base, &r->dev.below));
	r->dev.dev.ops = &faulty_ops;
	r->dev.dev.size = DEV_SIZE;
	r->dev.dev.name = "faulty";
}

/* Whether the fault came at all. */
static bool run_with(enum kind kind, uint64_t n, uint64_t times)
{
	struct run *r = calloc(1, sizeof(*r));
	bool disk = kind == FAIL_WRITE || kind == FAIL_FLUSH;
	int err;

	ck_assert_ptr_nonnull(r);
	memset(&fault, 0, sizeof(fault));
	fault.kind = kind;
	fault.n = n;
	fault.times = times;
	faulty_open(r);
	first_state(r);
	err = open_faulty(r);
	r->told = err;
	if (!err)
		work(r);
	ck_assert_msg(fault.fired || !r->told, FAULT_FMT "an error without one",
		      FAULT_ARGS(r));
	ck_assert_msg(!fault.fired || !disk || r->told,
		      FAULT_FMT "nobody was told", FAULT_ARGS(r)); /* F2 */
	look_again(r);
	bdev_close(r->dev.below);
	free(r);
	return fault.fired;
}

enum { ONCE, FROM_THEN_ON, TWICE };

/* Every n, or one of about `step`. */
static void every(enum kind kind, int how, unsigned step)
{
	static const uint64_t times[] = { 1, UINT64_MAX, 2 };
	static const char *const name[] = { "", ", all from then on",
					    ", twice" };
	struct rng rng;
	uint64_t n, tried = 0;

	rng_init(&rng, test_seed(), kind * 2 + (unsigned)how);
	test_log_hide();
	for (n = 1; run_with(kind, n, times[how]); tried++)
		n += step > 1 ? rng_range(&rng, 1, 2 * step - 1) : 1;
	test_log_show();
	printf("%s%s: %" PRIu64 " of %" PRIu64 " tried\n", kinds[kind],
	       name[how], tried, n);
	ck_assert_uint_gt(tried, 5);
}

static unsigned sampled(unsigned step)
{
	unsigned rounds = test_rounds(1);

	return step / rounds ? step / rounds : 1;
}

START_TEST(a_write_fails)
{
	every(FAIL_WRITE, _i, sampled(4));
}
END_TEST

START_TEST(a_flush_fails)
{
	every(FAIL_FLUSH, _i, 1);
}
END_TEST

START_TEST(a_read_fails)
{
	every(FAIL_READ, _i, sampled(8));
}
END_TEST

START_TEST(there_is_no_space)
{
	every(FAIL_SPACE, _i, sampled(4));
}
END_TEST

START_TEST(there_is_no_memory)
{
	every(FAIL_MEMORY, _i, sampled(25));
}
END_TEST

/* What was closed is written however little memory there is. */
START_TEST(a_commit_is_written_without_memory)
{
	struct run r = { .states = 0 };
	uint64_t before, after;

	memset(&fault, 0, sizeof(fault));
	fault.kind = FAIL_MEMORY;
	fault.n = 1;
	fault.times = UINT64_MAX;
	faulty_open(&r);
	open_base(&r.dev.dev, 0, &r.s, &r.fs);
	ck_ok(make(&r, "one", S_IFDIR | 0755));
	fault.batches = true;
	ck_ok(store_commit(r.s, NULL, NULL));
	fault.batches = false;
	ck_assert_uint_gt(fault.fired, 0);
	ck_ok(fs_digest(r.fs, &before));
	fs_umount(r.fs);
	store_abandon(r.s);
	open_base(r.dev.below, STORE_READONLY, &r.s, &r.fs);
	ck_ok(fs_digest(r.fs, &after));
	ck_assert_uint_eq(before, after);
	fs_umount(r.fs);
	ck_ok(store_close(r.s));
	bdev_close(r.dev.below);
}
END_TEST

static Suite *faults_suite(void)
{
	Suite *s = suite_create("faults");
	TCase *t = tcase_create("each in turn");

	tcase_set_timeout(t, 3600);
	tcase_add_checked_fixture(t, make_base, drop_base);
	tcase_add_loop_test(t, a_write_fails, ONCE, TWICE);
	tcase_add_loop_test(t, a_flush_fails, ONCE, TWICE);
	tcase_add_loop_test(t, a_read_fails, ONCE, TWICE);
	tcase_add_loop_test(t, there_is_no_space, ONCE, TWICE);
	tcase_add_loop_test(t, there_is_no_memory, ONCE, TWICE + 1);
	suite_add_tcase(s, t);
	t = tcase_create("a commit");
	tcase_add_checked_fixture(t, make_base, drop_base);
	tcase_add_test(t, a_commit_is_written_without_memory);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(faults_suite());
}
