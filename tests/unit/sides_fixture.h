/*
 * sides_fixture.h - a filesystem on a mirror of two sides in memory
 *
 * A side can be made to fail, be left out when the mirror is opened, be lost
 * (wipe), or go back to what it was earlier (copy_of, put_back). t.digest is what
 * the filesystem should contain.
 */
#ifndef SIDES_FIXTURE_H
#define SIDES_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "cowfs/cowfs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_BYTES (UINT64_C(16) << 20)
#define BOTH 3u

static struct {
	struct bdev *mem[2];
	struct bdev *side[2]; /* faults over mem, while open */
	struct bdev *dev;     /* the mirror, while open */
	struct store *s;
	struct fs *fs;
	struct rng rng;
	uint64_t digest; /* of what there should be */
} t;

static const struct cred cred;

/* ---- opening and closing ---- */

/* mask: sides that are there. */
static inline void assemble(unsigned mask, bool readonly)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		t.side[i] = NULL;
		if (!(mask & 1u << i))
			continue;
		ck_ok(fault_open(t.mem[i], &t.side[i]));
		t.side[i]->readonly = readonly;
	}
	ck_ok(bdev_open_mirror(t.side, &t.dev));
}

static inline int open_flags(unsigned mask, bool readonly)
{
	int err;

	assemble(mask, readonly);
	err = test_mount(t.dev, readonly ? STORE_READONLY : 0, 0, &t.s, &t.fs);
	if (err) {
		bdev_close(t.dev);
		t.dev = NULL;
		t.s = NULL;
	}
	return err;
}

static inline int open_it(unsigned mask)
{
	return open_flags(mask, false);
}

static inline void close_it(void)
{
	fs_umount(t.fs);
	ck_ok(store_drain(t.s));
	ck_ok(store_close(t.s));
	bdev_close(t.dev);
	t.s = NULL;
	t.dev = NULL;
}

static inline void crash(void)
{
	fs_umount(t.fs);
	store_abandon(t.s);
	bdev_close(t.dev);
	t.s = NULL;
	t.dev = NULL;
}

/* ---- contents ---- */

static inline uint64_t look(void)
{
	uint64_t digest;

	ck_ok(fs_digest(t.fs, &digest));
	return digest;
}

static inline int write_file(const char *name, bool sync)
{
	static uint8_t buf[60000];
	struct attr a;
	int err;

	rng_fill(&t.rng, buf, sizeof(buf));
	err = fs_lookup(t.fs, fs_live(t.fs), COWFS_INO_ROOT, name,
			strlen(name), &a);
	if (err)
		err = fs_create(t.fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a);
	if (!err)
		err = fs_write(t.fs, a.ino, rng_below(&t.rng, 200000), buf,
			       1 + rng_below(&t.rng, sizeof(buf)), 0);
	return err || !sync ? err : fs_fsync(t.fs, a.ino, false);
}

static inline void write_some(unsigned n)
{
	char name[16];

	while (n-- > 0) {
		snprintf(name, sizeof(name), "f%u",
			 (unsigned)rng_below(&t.rng, 40));
		ck_ok(write_file(name, true));
		if (rng_one_in(&t.rng, 4))
			ck_ok(store_commit(t.s, NULL, NULL));
	}
	t.digest = look();
}

/* More than UNVERIFIED covers: two flushes. */
static inline void write_big(void)
{
	size_t len = 9u << 20;
	uint8_t *buf = malloc(len);
	struct attr a;

	rng_fill(&t.rng, buf, len);
	ck_ok(fs_create(t.fs, COWFS_INO_ROOT, "big", 3, S_IFREG | 0644, 0,
			NULL, &cred, &a));
	ck_ok(fs_write(t.fs, a.ino, 0, buf, len, 0));
	ck_ok(store_commit(t.s, NULL, NULL));
	free(buf);
}

/* Always as long. */
static inline void scribble(uint8_t with, bool sync)
{
	uint8_t buf[100];
	struct attr a;

	memset(buf, with, sizeof(buf));
	if (fs_lookup(t.fs, fs_live(t.fs), COWFS_INO_ROOT, "note", 4, &a))
		ck_ok(fs_create(t.fs, COWFS_INO_ROOT, "note", 4,
				S_IFREG | 0644, 0, NULL, &cred, &a));
	ck_ok(fs_write(t.fs, a.ino, 0, buf, sizeof(buf), 0));
	ck_ok(sync ? fs_fsync(t.fs, a.ino, false) :
		     store_commit(t.s, NULL, NULL));
}

static inline void check_contents(unsigned mask)
{
	ck_ok(open_flags(mask, true));
	ck_assert_uint_eq(look(), t.digest);
	close_it();
}

static inline void scrub(void)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(t.s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
}

static inline void check_fully(unsigned mask)
{
	struct check_options opt = { .data = true, .semantics = true };
	struct check_result res;

	assemble(mask, true);
	ck_ok(check_device(t.dev, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
	bdev_close(t.dev);
	t.dev = NULL;
}

/* Each side by itself has everything. */
static inline void check_each_side(void)
{
	check_fully(BOTH);
	check_contents(1);
	check_contents(2);
	check_fully(1);
	check_fully(2);
}

static inline void wipe(unsigned side)
{
	bdev_close(t.mem[side]);
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[side]));
}

static inline struct bdev *copy_of(unsigned side)
{
	struct bdev *copy;

	ck_ok(bdev_open_mem(DEV_BYTES, &copy));
	ck_ok(dev_copy(copy, t.mem[side]));
	return copy;
}

static inline void put_back(unsigned side, struct bdev *copy)
{
	bdev_close(t.mem[side]);
	t.mem[side] = copy;
}

/* The newest superblock on one side. */
static inline struct cowfs_disk_super super_of(unsigned side)
{
	struct bdev *one[2] = { NULL, NULL }, *dev, *fault;
	struct super_scan scan;

	ck_ok(fault_open(t.mem[side], &fault));
	fault->readonly = true;
	one[side] = fault;
	ck_ok(bdev_open_mirror(one, &dev));
	ck_ok(super_scan(dev, &scan));
	bdev_close(dev);
	return scan.found[0].d;
}

static inline uint64_t said_stale(unsigned by, unsigned of)
{
	struct cowfs_disk_super d = super_of(by);

	return from_le64(d.mirror.stale_gen[of]);
}

static inline enum bdev_side state(unsigned side)
{
	return bdev_side_state(t.dev, side);
}

/* What fails is the n-th write or flush from now on, and all after it. */
static inline void fail_side(unsigned s, enum fault_op op, unsigned n)
{
	fault_from(t.side[s], op, n, -EIO);
}

static inline void setup(void)
{
	struct cowfs_mkfs opt = { .node_size = 4096 };

	test_log_hide();
	rng_init(&t.rng, test_seed(), 41);
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[0]));
	ck_ok(bdev_open_mem(DEV_BYTES, &t.mem[1]));
	assemble(BOTH, false);
	ck_ok(cowfs_mkfs(t.dev, &opt));
	bdev_close(t.dev);
	ck_ok(open_it(BOTH));
	write_some(10);
}

static inline void teardown(void)
{
	if (t.s)
		crash();
	bdev_close(t.mem[0]);
	bdev_close(t.mem[1]);
	test_log_show();
}

#endif
