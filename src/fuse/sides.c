/*
 * sides.c - a side more or less of a filesystem that is mounted
 *
 * Who asks is root or the user who mounted (ops_ioctl.c), so the daemon can open
 * nothing that he could not.
 */
#include "fuse/daemon.h"

/* How long to wait for a program that is about to let go of the new image. */
#define NEW_WAIT_MS 2000

/* Our own files would be written while they are being written. */
static int check_place(struct daemon *d, const char *path)
{
	struct stat st;

	if (*path != '/')
		return -EINVAL;
	if (stat(path, &st))
		return -errno;
	return beneath_lies_on(path, (dev_t)atomic_load(&d->device)) ? -ELOOP :
								       0;
}

static bool scrubbing(struct daemon *d)
{
	struct cowfs_ioc_scrub now;

	scrub_status(d->scrub, &now);
	return now.running;
}

/* One that is as good as done (the side was complete, and then removed) ends
 * soon; one that somebody has begun does not. */
static bool scrub_stays(struct daemon *d)
{
	const struct timespec nap = { .tv_nsec = 10000000 };
	unsigned ms;

	for (ms = 0; ms < NEW_WAIT_MS && scrubbing(d); ms += 10)
		nanosleep(&nap, NULL);
	return scrubbing(d);
}

/* Whoever may write to its directory can put a symlink to any file in the place
 * of one that was found to be empty. */
static int open_new(const struct cowfs_ioc_mirror *m, struct bdev **dev)
{
	struct bdev_id id;
	int err = bdev_open_file(m->path, 0, NEW_WAIT_MS, dev);

	if (err || (!m->dev && !m->ino))
		return err;
	bdev_file_id(*dev, &id);
	if (id.dev == m->dev && id.ino == m->ino)
		return 0;
	bdev_close(*dev);
	return -ESTALE;
}

static int add(struct daemon *d, const struct cowfs_ioc_mirror *m)
{
	const char *path = m->path;
	bool two = bdev_sides(d->dev) > 1 &&
		   bdev_side_state(d->dev, 0) != SIDE_GONE &&
		   bdev_side_state(d->dev, 1) != SIDE_GONE;
	struct bdev *dev;
	int err = two ? -EEXIST : check_place(d, path);

	if (!err && scrub_stays(d))
		err = -EALREADY; /* it has no eye for the new side */
	if (!err && store_readonly(d->store))
		err = -EROFS;
	if (!err)
		err = open_new(m, &dev);
	if (!err)
		err = store_mirror_add(d->store, dev);
	if (err)
		return err;
	log_msg(LOG_LVL_INFO, "%s: is a side of the mirror now", path);
	err = scrub_start(d->scrub, false, 0);
	if (err)
		log_msg(LOG_LVL_WARN, "%s: the scrub that fills it cannot be "
			"started: %s", path, strerror(-err));
	return 0;
}

/* "": the one that is not complete. */
static int find(struct daemon *d, const char *path, unsigned *side)
{
	unsigned bad = bdev_bad_sides(d->dev);

	if (*path)
		return bdev_mirror_find(d->dev, path, side);
	if (!bad)
		return -ENOENT;
	*side = bad == 1 ? 0 : 1;
	return 0;
}

/* Is what it was mounted from a side? */
static void note_moved(struct daemon *d)
{
	unsigned side;

	atomic_store(&d->moved,
		     bdev_mirror_find(d->dev, d->opt->image, &side) != 0);
}

static int remove_side(struct daemon *d, const char *path)
{
	unsigned side = 0;
	int err = store_is_mirror(d->store) ? find(d, path, &side) : -EINVAL;
	bool stale = !err && bdev_side_state(d->dev, side) == SIDE_STALE;

	if (!err)
		err = store_mirror_remove(d->store, side);
	if ((!err || err == -EINPROGRESS) && stale)
		scrub_unfill(d->scrub, side);
	if (!err || err == -EINPROGRESS)
		log_msg(LOG_LVL_INFO, "%s: is no side of the mirror any more",
			*path ? path : "the side that was not complete");
	return err;
}

int sides_change(struct daemon *d, const struct cowfs_ioc_mirror *m)
{
	int err = m->verb == COWFS_MIRROR_ADD ? add(d, m) :
		  m->verb == COWFS_MIRROR_REMOVE ? remove_side(d, m->path) :
						   -EINVAL;

	if (!err || err == -EINPROGRESS)
		note_moved(d);
	return err;
}

void sides_resume(struct daemon *d)
{
	struct cowfs_ioc_scrub last;
	int err;

	scrub_status(d->scrub, &last);
	if (store_readonly(d->store) || !store_stale_sides(d->store) ||
	    last.running || last.state != COWFS_SCRUB_RUNNING)
		return;
	err = scrub_start(d->scrub, true, COWFS_SCRUB_SAME_RATE);
	log_msg(err ? LOG_LVL_WARN : LOG_LVL_INFO,
		"%s: filling a side of the mirror was interrupted: %s",
		d->store->dev->name, err ? strerror(-err) : "going on");
}
