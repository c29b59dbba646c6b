/*
 * assemble.c - the device of a filesystem by the path of its image
 *
 * One side of a mirror names the other by its uuid. Where that lies nobody
 * writes down, for paths change; it is looked for beside the side that is known,
 * among files of its kind (regular ones, or block devices).
 *
 * Both sides are locked. Who can't have the second gives back the first before
 * he tries again, so that two who name different sides don't wait for each
 * other.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "check/private.h"
#include "cowfs/cowfs.h"

/* How long to sleep between two tries, the random part included. */
#define WAIT_MIN_MS 10u
#define WAIT_MAX_MS 40u

static bool is_mirror(const struct super *sb)
{
	return from_le64(sb->d.incompat) & COWFS_INCOMPAT_MIRROR;
}

static unsigned index_of(const struct super *sb)
{
	return is_mirror(sb) ? from_le16(sb->d.dev_index) : 0;
}

/* Are these the two sides of one mirror, as `a` says? */
static bool belongs(const struct super *a, const struct super *b)
{
	return is_mirror(b) && index_of(b) == !index_of(a) &&
	       memcmp(a->d.uuid, b->d.uuid, sizeof(a->d.uuid)) == 0 &&
	       memcmp(a->d.mirror.dev_uuid[!index_of(a)], b->d.dev_uuid,
		      sizeof(b->d.dev_uuid)) == 0;
}

/* ---- looking for the other side ---- */

/* The newest superblock of the file or device at path, which may be in use. */
static int peek(const char *path, struct super *out)
{
	struct bdev *dev;
	int err = bdev_open_file(path, BDEV_READONLY | BDEV_NOLOCK, 0, &dev);

	if (err)
		return err;
	err = super_newest(dev, out);
	bdev_close(dev);
	return err;
}

struct search {
	const struct super *of; /* whose other side */
	struct stat self;
	char *found; /* to be freed */
	int err;     /* of the search */
};

static bool same_file(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode))
		return a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Worth a look? */
static bool candidate(const struct search *se, const struct stat *st)
{
	if ((st->st_mode & S_IFMT) != (se->self.st_mode & S_IFMT) ||
	    same_file(st, &se->self))
		return false;
	return !S_ISREG(st->st_mode) ||
	       (uint64_t)st->st_size / COWFS_BLOCK_SIZE >=
		       se->of->total_blocks;
}

static void try_file(struct search *se, const char *dir, const char *name)
{
	size_t len = strlen(dir) + strlen(name) + 2;
	char *path = malloc(len);
	struct super sb;
	struct stat st;

	if (!path) {
		se->err = -ENOMEM;
		return;
	}
	snprintf(path, len, "%s/%s", strcmp(dir, "/") ? dir : "", name);
	if (lstat(path, &st) || !candidate(se, &st) || peek(path, &sb) ||
	    !belongs(se->of, &sb)) {
		free(path);
		return;
	}
	if (!se->found) {
		se->found = path;
		return;
	}
	se->err = report(-EEXIST, "%s and %s: either may be the other side of "
			 "the mirror: name the one that is meant", se->found,
			 path);
	free(path);
}

/* Beside path. -ENOENT. */
static int search(const char *path, const struct super *of, char **found)
{
	struct search se = { .of = of };
	char *dir = realpath(path, NULL), *slash;
	struct dirent *e;
	DIR *d;

	if (!dir)
		return -errno;
	if (stat(dir, &se.self)) {
		free(dir);
		return -ENOENT;
	}
	slash = strrchr(dir, '/');
	slash[slash == dir] = '\0';
	d = opendir(dir);
	while (d && !se.err && (e = readdir(d)))
		try_file(&se, dir, e->d_name);
	if (d)
		closedir(d);
	free(dir);
	if (!se.err && !se.found)
		se.err = -ENOENT;
	if (se.err)
		free(se.found);
	else
		*found = se.found;
	return se.err;
}

int cowfs_device_other(const char *path, char **other)
{
	struct super sb, theirs;
	int err;

	if (peek(path, &sb) || !is_mirror(&sb))
		return -ENOENT;
	err = search(path, &sb, other);
	/* Who says so alone may be anybody. */
	if (!err && (peek(*other, &theirs) || !belongs(&theirs, &sb))) {
		free(*other);
		err = -ENOENT;
	}
	return err;
}

/* ---- putting it together ---- */

static int missing(const char *path, const struct super *sb,
		   const struct cowfs_device *opt)
{
	unsigned i = index_of(sb);

	if (opt->degraded || opt->alone)
		return 0;
	return report(-ENODEV, "%s: is side %u of a mirror, and side %u is not "
		      "beside it: say where it is, or go on without it "
		      "(degraded)", path, i, !i);
}

/* What was said is the word about it, but for what other flags may help against. */
static int unfit(int err)
{
	return !err || err == -EBUSY || err == -EACCES || err == -EROFS ?
		       err : -EXDEV;
}

/* The other side: *dev NULL if there is none and that will do. */
static int open_other(const char *path, const struct super *sb,
		      const struct cowfs_device *opt, struct bdev **dev)
{
	char *found = NULL;
	struct super other;
	int err = 0;

	*dev = NULL;
	if (opt->alone)
		return 0;
	if (!opt->mirror) {
		err = search(path, sb, &found);
		if (err)
			return err == -ENOENT ? missing(path, sb, opt) : err;
	}
	err = bdev_open_file(found ? found : opt->mirror, opt->flags, 0, dev);
	if (err && err != -EBUSY)
		(void)report(err, "%s: %s", found ? found : opt->mirror,
			     strerror(-err));
	if (!err && (super_newest(*dev, &other) || !belongs(sb, &other))) {
		err = report(-EINVAL, "%s: is not the other side of %s",
			     (*dev)->name, path);
		bdev_close(*dev);
		*dev = NULL;
	}
	free(found);
	return unfit(err);
}

/* dev is taken over. */
static int assemble(struct bdev *dev, const char *path,
		    const struct cowfs_device *opt, struct bdev **out)
{
	struct bdev *side[BDEV_SIDES] = { NULL, NULL };
	struct super sb;
	unsigned i = 0;
	int err = super_newest(dev, &sb);

	if (err == -ENOENT || (!err && !is_mirror(&sb) && !opt->alone)) {
		if (opt->mirror) {
			bdev_close(dev);
			return report(-EXDEV, "%s: is no side of a mirror",
				      path);
		}
		*out = dev; /* whatever it is */
		return 0;
	}
	if (!err) {
		i = index_of(&sb);
		err = open_other(path, &sb, opt, &side[!i]);
	}
	side[i] = dev;
	if (!err)
		err = bdev_open_mirror(side, out);
	if (err) {
		bdev_close(side[0]);
		bdev_close(side[1]);
	}
	return err;
}

static void pause_some(void)
{
	struct timespec t = { .tv_nsec = 0 };
	uint32_t r;

	random_bytes(&r, sizeof(r));
	t.tv_nsec = (WAIT_MIN_MS + r % (WAIT_MAX_MS - WAIT_MIN_MS)) * 1000000L;
	nanosleep(&t, NULL);
}

int cowfs_device_open(const char *path, const struct cowfs_device *opt,
		      struct bdev **out)
{
	uint64_t end = now_ns() + opt->wait_ms * UINT64_C(1000000);
	struct bdev *dev;
	int err;

	for (;;) {
		err = bdev_open_file(path, opt->flags, 0, &dev);
		if (!err)
			err = assemble(dev, path, opt, out);
		if (err != -EBUSY || now_ns() >= end)
			return err;
		pause_some();
	}
}
