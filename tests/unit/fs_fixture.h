/*
 * fs_fixture.h - a filesystem in memory for tests of names and attributes
 *
 * After each test the image is closed and checked in full; what the test did
 * must leave nothing that fsck would complain about.
 */
#ifndef FS_FIXTURE_H
#define FS_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "support/mount.h"
#include "support/test.h"

#define ROOT COWFS_INO_ROOT
#define MIB (UINT64_C(1) << 20)

static struct bdev *dev;
static struct store *store;
static struct fs *fs;
static struct cred root_cred;
/* for tests of what root may and others may not */
static __attribute__((unused)) struct cred user_cred = { .uid = 1000,
							  .gid = 1000,
							  .umask = 022 };

static inline void mount_with(const struct fs_options *opt, size_t cache)
{
	struct store_config cfg = { .dev = dev, .cache_bytes = cache };

	ck_ok(test_mount_with(&cfg, opt, &store, &fs));
}

static void mount_it(void)
{
	ck_ok(test_mount(dev, 0, 0, &store, &fs));
}

static void umount_it(void)
{
	test_umount(store, fs);
	fs = NULL;
	store = NULL;
}

static inline void remount(void)
{
	umount_it();
	mount_it();
}

/* On dev, which is open. */
static void make_on(uint32_t node_size, uint8_t meta_copies)
{
	ck_ok(store_close(test_format(dev, node_size, meta_copies, 1)));
	mount_it();
}

static inline void make(uint64_t size, uint32_t node_size)
{
	ck_ok(bdev_open_mem(size, &dev));
	make_on(node_size, 1);
}

static inline void setup(void)
{
	make(64 * MIB, 16384);
}

static inline void setup_small_nodes(void)
{
	make(64 * MIB, 4096);
}

static inline void teardown(void)
{
	umount_it();
	test_check_device(dev);
	bdev_close(dev);
}

/* A case in which each test has a filesystem of its own. */
static inline void add_case(Suite *s, const char *name, SFun before,
			    void (*add)(TCase *))
{
	test_case(s, name, 120, before, teardown, add);
}

/* ---- one-line calls ---- */

static inline int make_as(uint64_t dir, const char *name, uint32_t mode,
			  const struct cred *cred, struct attr *out)
{
	return fs_create(fs, dir, name, strlen(name), mode, 0, NULL, cred,
			 out);
}

static inline uint64_t make_file(uint64_t dir, const char *name)
{
	struct attr a;

	ck_ok(make_as(dir, name, S_IFREG | 0644, &root_cred, &a));
	return a.ino;
}

static inline uint64_t make_dir(uint64_t dir, const char *name)
{
	struct attr a;

	ck_ok(make_as(dir, name, S_IFDIR | 0755, &root_cred, &a));
	return a.ino;
}

static inline int look(uint64_t dir, const char *name, struct attr *out)
{
	return fs_lookup(fs, fs_live(fs), dir, name, strlen(name), out);
}

static inline uint64_t ino_of(uint64_t dir, const char *name)
{
	struct attr a;

	ck_ok(look(dir, name, &a));
	return a.ino;
}

static inline struct attr attr_of(uint64_t ino)
{
	struct attr a;

	ck_ok(fs_getattr(fs, fs_live(fs), ino, &a));
	return a;
}

static inline int unlink_it(uint64_t dir, const char *name)
{
	return fs_unlink(fs, dir, name, strlen(name), NULL);
}

static inline int rmdir_it(uint64_t dir, const char *name)
{
	return fs_rmdir(fs, dir, name, strlen(name), NULL);
}

static inline int link_it(uint64_t ino, uint64_t dir, const char *name)
{
	struct attr a;

	return fs_link(fs, ino, dir, name, strlen(name), &a);
}

static inline int rename_it(uint64_t dir, const char *name, uint64_t newdir,
			    const char *newname, unsigned flags)
{
	return fs_rename(fs, dir, name, strlen(name), newdir, newname,
			 strlen(newname), flags);
}

static inline int set_attr(uint64_t ino, unsigned what, struct attr a,
			   const struct cred *cred)
{
	struct attr out;

	return fs_setattr(fs, ino, what, &a, cred, &out);
}

static inline bool later(struct timespec64 a, struct timespec64 b)
{
	return a.sec > b.sec || (a.sec == b.sec && a.nsec > b.nsec);
}

/* For listings of which only the result counts. */
static inline int take_entry(void *arg, const struct fs_dirent *e)
{
	unsigned *n = arg;

	(void)e;
	if (n)
		(*n)++;
	return 0;
}

static inline uint64_t free_blocks(void)
{
	struct fs_statfs s;
	int i;

	/* Freed blocks come back when a later commit is durable. */
	ck_ok(store_drain(store));
	for (i = 0; i < 3; i++)
		ck_ok(store_commit(store, NULL, NULL));
	ck_ok(fs_statfs(fs, &s));
	return s.free;
}

#endif
