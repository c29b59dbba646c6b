/*
 * log_fixture.h - a small filesystem in memory that is opened and crashes often
 *
 * It lies on `mem`. A lab is one opening of it, or of a device over it: one that
 * records, for power cuts (struct recorded), or that fails.
 */
#ifndef LOG_FIXTURE_H
#define LOG_FIXTURE_H

#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"
#include "txn/log.h"

#define MIB (UINT64_C(1) << 20)
#define DEV_SIZE (12 * MIB)
#define PIECE 65536u

struct lab {
	struct store *s;
	struct fs *fs;
};

static struct bdev *mem;
static const struct cred root_cred = { .umask = 022 };

static inline struct lab open_on(struct bdev *dev, unsigned flags)
{
	struct lab l;

	ck_ok(test_mount(dev, flags, 1 << 20, &l.s, &l.fs));
	return l;
}

static inline void close_it(struct lab *l)
{
	test_umount(l->s, l->fs);
}

static inline void crash(struct lab *l)
{
	fs_umount(l->fs);
	store_abandon(l->s);
}

static inline void make(unsigned meta_copies, unsigned data_copies)
{
	ck_ok(bdev_open_mem(DEV_SIZE, &mem));
	ck_ok(store_close(test_format(mem, 4096, meta_copies, data_copies)));
}

static inline void setup(void)
{
	make(1, 1);
}

static inline void setup_two(void)
{
	make(2, 2);
}

static inline void teardown(void)
{
	bdev_close(mem);
}

static inline uint64_t make_file(struct lab *l, const char *name)
{
	struct attr a;

	ck_ok(fs_create(l->fs, COWFS_INO_ROOT, name, strlen(name),
			S_IFREG | 0644, 0, NULL, &root_cred, &a));
	return a.ino;
}

static inline void write_piece(struct lab *l, uint64_t ino, uint64_t off,
			       unsigned salt)
{
	static uint8_t buf[PIECE];
	struct rng r;

	rng_init(&r, 1, salt);
	rng_fill(&r, buf, sizeof(buf));
	ck_ok(fs_write(l->fs, ino, off, buf, sizeof(buf), 0));
}

static inline void write_bytes(struct lab *l, uint64_t ino, uint64_t off, size_t n,
			       uint8_t salt)
{
	static uint8_t buf[PIECE];

	memset(buf, salt, n);
	ck_ok(fs_write(l->fs, ino, off, buf, n, 0));
}

static inline uint64_t digest(struct lab *l)
{
	uint64_t d;

	ck_ok(fs_digest(l->fs, &d));
	return d;
}

/* As it would be found now by whoever opens it, in one of two states; the
 * device stays as it is. */
static inline void expect_either(struct bdev *dev, uint64_t a, uint64_t b)
{
	struct bdev *over;
	uint64_t seen;
	struct lab l;

	ck_ok(overlay_open(dev, &over));
	test_log_hide();
	l = open_on(over, STORE_READONLY);
	seen = digest(&l);
	ck_assert(seen == a || seen == b);
	close_it(&l);
	l = open_on(over, 0);
	ck_assert_uint_eq(digest(&l), seen);
	write_piece(&l, make_file(&l, "after"), 0, 1);
	close_it(&l);
	l = open_on(over, STORE_READONLY);
	test_check(l.s);
	close_it(&l);
	test_log_show();
	bdev_close(over);
}

static inline void expect_after_crash(struct bdev *dev, uint64_t want)
{
	expect_either(dev, want, want);
}

/* Blocks of a file whose first one is blk. */
static inline uint64_t first_block(struct lab *l, uint64_t ino)
{
	struct key k = KEY(ino, COWFS_KEY_EXTENT, 0);
	struct cowfs_disk_extent d = { .len = to_le32(0) };
	struct item it;
	struct op op;
	int err;

	op_read(&op, l->s);
	do {
		err = tree_get(&l->s->fs, &k, &it);
		if (!err)
			memcpy(&d, it.data, sizeof(d));
	} while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
	return from_le64(d.blk);
}

/* ---- recording what is written ---- */

/* Flushes of everything among the entries from `from` on. */
static inline unsigned flushes(struct bdev *log, size_t from)
{
	unsigned n = 0;

	for (; from < log_count(log); from++)
		n += log_get(log, from)->kind == LOG_FLUSH &&
		     !log_get(log, from)->len;
	return n;
}

/* A lab over a recording device; base is what it began with. */
struct recorded {
	struct bdev *base, *log;
	struct lab l;
};

/* Without a lab. */
static inline void record_device(struct recorded *r)
{
	ck_ok(bdev_open_mem(DEV_SIZE, &r->base));
	ck_ok(dev_copy(r->base, mem));
	ck_ok(log_open(mem, &r->log));
}

static inline void record(struct recorded *r)
{
	record_device(r);
	r->l = open_on(r->log, 0);
}

/* The device of a power cut now, where of what was not flushed nothing arrived
 * (but what durable writes wrote). */
static inline struct bdev *after_cut(struct recorded *r)
{
	struct pick p = PICK(PICK_NONE);
	struct bdev *dev;
	struct replay rep;
	size_t sure;

	replay_init(&rep, r->log, r->base);
	ck_ok(replay_cut(&rep, log_count(r->log), &sure));
	ck_ok(replay_state(&rep, log_count(r->log), &p, &dev));
	return dev;
}

static inline void end_recording(struct recorded *r)
{
	bdev_close(r->log);
	bdev_close(r->base);
}

/* ---- programs that are killed ---- */

/* A file is changed by a program that is killed, and opened again. */
struct killed {
	struct recorded r;
	struct bdev *faulty;  /* over r.log, while the program runs */
	uint64_t old, change; /* digests */
	size_t from;          /* where the next opening begins in r.log */
};

/* The program is left open. Of its flushes the n-th fails, and all after it. */
static inline void killed_init(struct killed *k, unsigned n)
{
	struct lab *l = &k->r.l;
	uint64_t ino;

	*l = open_on(mem, 0);
	ino = make_file(l, "a");
	write_piece(l, ino, 0, 1);
	k->old = digest(l);
	close_it(l);
	record_device(&k->r);
	ck_ok(fault_open(k->r.log, &k->faulty));
	*l = open_on(k->faulty, 0);
	write_piece(l, ino, 0, 2);
	k->change = digest(l);
	fault_from(k->faulty, FAULT_FLUSH, n, -EIO);
	test_log_hide();
}

/* Whoever opens it next finds all of it. */
static inline void killed_reopen(struct killed *k, unsigned flags)
{
	k->from = log_count(k->r.log);
	k->r.l = open_on(k->r.log, flags);
	test_log_show();
	ck_assert_uint_eq(digest(&k->r.l), k->change);
}

static inline void killed_fini(struct killed *k)
{
	bdev_close(k->faulty);
	end_recording(&k->r);
}

/* Some states of a power cut at any time since it was opened again. */
static inline void cut_everywhere(const struct killed *k, uint64_t old, uint64_t want)
{
	struct pick p = PICK(PICK_SEED);
	struct bdev *dev;
	struct replay r;
	struct rng rng;
	size_t cut, sure;
	unsigned i;

	rng_init(&rng, test_seed(), 7);
	replay_init(&r, k->r.log, k->r.base);
	for (cut = k->from; cut <= log_count(k->r.log); cut++) {
		ck_ok(replay_cut(&r, cut, &sure));
		for (i = 0; i < 32; i++) {
			p.seed = rng_next(&rng);
			ck_ok(replay_state(&r, cut, &p, &dev));
			expect_either(dev, old, want);
			bdev_close(dev);
			if (cut == sure)
				break;
		}
	}
}

#endif
