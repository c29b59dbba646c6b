/*
 * cowctl_target.c - a mounted filesystem or an image, behind one set of calls
 *
 * A file that holds the magic number of cowfs is an image, wherever it lies.
 * Anything else stands for the filesystem it lies on: the nearest directory
 * that can be opened takes the ioctls.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowctl.h"

/* How long to wait for an image that is locked though it isn't mounted: a
 * daemon that is being unmounted has it until its last commit is done. */
#define LOCK_WAIT_MS 10000

#define MAGIC_LEN 8

/* ---- mounts ---- */

static int call(int fd, unsigned long request, void *arg)
{
	int got;

	do
		got = ioctl(fd, request, arg);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : 0;
}

int mount_info(int fd, struct cowfs_ioc_info *out)
{
	struct cowfs_ioc_info info;
	int err;

	memset(&info, 0, sizeof(info));
	err = call(fd, COWFS_IOC_INFO, &info);
	/* Other filesystems say one of these to an ioctl they don't know. */
	if (err == -EINVAL || err == -ENOSYS || err == -EOPNOTSUPP)
		err = -ENOTTY;
	if (err)
		return err;
	if (info.version != COWFS_IOC_VERSION)
		return -EPROTO;
	info.label[sizeof(info.label) - 1] = '\0';
	*out = info;
	return 0;
}

/* Cut the last component off; false if nothing is left above. */
static bool go_up(char *path)
{
	char *slash = strrchr(path, '/');

	if (!slash || path[1] == '\0')
		return false;
	slash[slash == path] = '\0'; /* the root keeps its slash */
	return true;
}

/* Upwards from path to the first directory that may be opened, but not off the
 * filesystem that path lies on. */
static int open_near(char *path, int *fd)
{
	struct stat st;
	dev_t dev;

	if (lstat(path, &st) < 0)
		return -errno;
	dev = st.st_dev;
	do {
		if (lstat(path, &st) < 0)
			return -errno;
		if (st.st_dev != dev)
			return -EACCES;
		if (!S_ISDIR(st.st_mode))
			continue;
		*fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (*fd >= 0)
			return 0;
		if (errno != EACCES)
			return -errno;
	} while (go_up(path));
	return -EACCES;
}

int mount_open(const char *path, int *fd)
{
	struct cowfs_ioc_info info;
	char *real = realpath(path, NULL);
	int err, dir = -1;

	if (!real)
		return -errno;
	err = open_near(real, &dir);
	free(real);
	if (err)
		return err;
	err = mount_info(dir, &info);
	if (err) {
		close(dir);
		return err;
	}
	*fd = dir;
	return 0;
}

/* ---- images ---- */

static bool magic_at(int fd, off_t blk)
{
	off_t at = blk * (off_t)COWFS_BLOCK_SIZE +
		   (off_t)offsetof(struct cowfs_disk_super, magic);
	char magic[MAGIC_LEN];

	return pread(fd, magic, sizeof(magic), at) == MAGIC_LEN &&
	       memcmp(magic, COWFS_MAGIC, MAGIC_LEN) == 0;
}

/* In any superblock, near or far (format.h): the first may be damaged, or be
 * the one that undoing a repair has wiped. */
static bool holds_magic(const char *path)
{
	const off_t slots = COWFS_SUPER_SLOTS;
	off_t far;
	bool found = false;
	int fd;

	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return false;
	far = lseek(fd, 0, SEEK_END) / (off_t)COWFS_BLOCK_SIZE - slots;
	for (off_t i = 0; !found && i < slots; i++)
		found = magic_at(fd, (off_t)COWFS_SUPER_NEAR + i) ||
			(far > 0 && magic_at(fd, far + i));
	close(fd);
	return found;
}

static bool can_be_image(const struct stat *st)
{
	return S_ISREG(st->st_mode) || S_ISBLK(st->st_mode);
}

bool target_names_image(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && can_be_image(&st) && holds_magic(path);
}

/* It may be an image, but not for this user. */
static bool unreadable(const char *path, const struct stat *st)
{
	return S_ISREG(st->st_mode) && access(path, R_OK) != 0;
}

static int report_busy(const char *path)
{
	struct mount_entry m;

	if (mount_by_source(path, &m) == 0) {
		tool_err(path, "in use: mounted on %s (name that instead)",
			 m.point);
		mount_entry_free(&m);
	} else {
		tool_err(path, "in use by another program");
	}
	return -EBUSY;
}

/* What was said of mirrors in front of PATH. */
static struct cowfs_device how;

void target_set_mirror(const char *mirror)
{
	how.mirror = mirror;
}

const char *target_mirror_given(void)
{
	return how.mirror;
}

void target_set_degraded(void)
{
	how.degraded = true;
}

static int lock_image(const char *path, enum target_mode mode, bool write,
		      struct bdev **dev)
{
	struct cowfs_device d = how;
	struct mount_entry m;

	d.flags = write ? 0 : BDEV_READONLY;
	d.wait_ms = LOCK_WAIT_MS;
	d.degraded |= !write; /* a look does no harm */
	d.alone = mode == TARGET_ALONE;
	if (mount_by_source(path, &m) == 0) {
		mount_entry_free(&m);
		d.wait_ms = 0;
	}
	return cowfs_device_open(path, &d, dev);
}

static int open_image(struct target *t, enum target_mode mode)
{
	bool write = mode != TARGET_READ;
	int err;

	err = lock_image(t->path, mode, write, &t->dev);
	if ((err == -EACCES || err == -EROFS) && mode == TARGET_MEND) {
		write = false;
		err = lock_image(t->path, mode, write, &t->dev);
	}
	if (err == -EBUSY)
		return report_busy(t->path);
	if (err)
		goto told;
	err = cowfs_open(t->dev, write, &t->image);
	if (err) {
		bdev_close(t->dev);
		goto told;
	}
	return 0;
told:
	tool_err(t->path, "%s", tool_open_strerror(err));
	return err;
}

/* ---- either ---- */

static int report_open(const char *path, int err)
{
	if (err == -ENOTTY)
		tool_err(path, "not a cowfs: neither mounted nor an image");
	else if (err == -EPROTO)
		tool_err(path, "the daemon that serves it is of another "
			       "version");
	else if (err == -ENOTCONN)
		tool_err(path, "the daemon that served it is gone; "
			       "unmount it and mount again");
	else
		tool_err(path, "%s", tool_strerror(err));
	return err;
}

int target_open(struct target *t, const char *path, enum target_mode mode)
{
	struct stat st;
	int err;

	*t = (struct target){ .path = path, .fd = -1 };
	if (stat(path, &st) < 0)
		return report_open(path, -errno);
	if (target_names_image(path))
		return open_image(t, mode);
	err = mount_open(path, &t->fd);
	/* Whatever is wrong with a device or file that may be an image, the
	 * library names it better than "not a cowfs". */
	if (err && (S_ISBLK(st.st_mode) || unreadable(path, &st)))
		return open_image(t, mode);
	return err ? report_open(path, err) : 0;
}

int target_close(struct target *t)
{
	int err;

	if (!target_is_image(t)) {
		close(t->fd);
		return 0;
	}
	err = cowfs_close(t->image);
	bdev_close(t->dev);
	if (err)
		tool_err(t->path, "%s", tool_strerror(err));
	return err;
}

const char *target_strerror(int err)
{
	switch (err) {
	case -EPERM:
		return "only root and the user who mounted it may do that";
	case -ENOTCONN:
		return "the daemon that served it is gone";
	default:
		return tool_strerror(err);
	}
}

int target_info(struct target *t, struct cowfs_ioc_info *out)
{
	if (target_is_image(t))
		return cowfs_info(t->image, out);
	return mount_info(t->fd, out);
}

int target_stats(struct target *t, struct cowfs_ioc_stats *out)
{
	struct cowfs_ioc_stats stats;
	int err;

	if (target_is_image(t))
		return cowfs_stats(t->image, out);
	memset(&stats, 0, sizeof(stats));
	err = call(t->fd, COWFS_IOC_STATS, &stats);
	if (!err && stats.version != COWFS_IOC_VERSION)
		err = -EPROTO;
	if (!err)
		*out = stats;
	return err;
}

/* Of a mount that anybody may have made up: only what ours have. */
static void make_word(char name[], size_t size)
{
	name[size - 1] = '\0';
	for (; *name; name++)
		if (*name < 0x20 || *name > 0x7e)
			*name = '?';
}

static void hists_of_image(struct cowfs *c,
			   void (*fn)(void *arg,
				      const struct cowfs_ioc_hist *h),
			   void *arg)
{
	struct cowfs_ioc_hist h;
	uint64_t at = 0;

	while (cowfs_hist_next(c, &at, &h))
		fn(arg, &h);
}

int target_hist_each(struct target *t,
		     void (*fn)(void *arg, const struct cowfs_ioc_hist *h),
		     void *arg)
{
	struct cowfs_ioc_hist_list *list;
	unsigned pages = 0;
	uint64_t from;
	int err;

	if (target_is_image(t)) {
		hists_of_image(t->image, fn, arg);
		return 0;
	}
	list = calloc(1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	do {
		from = list->from;
		err = call(t->fd, COWFS_IOC_HIST_LIST, list);
		if (!err && (list->count > COWFS_IOC_HISTS || ++pages > 1000 ||
			     (list->from && list->from <= from)))
			err = -EPROTO;
		for (uint32_t i = 0; !err && i < list->count; i++) {
			make_word(list->hist[i].name,
				  sizeof(list->hist[i].name));
			fn(arg, &list->hist[i]);
		}
	} while (!err && list->from);
	free(list);
	return err;
}

int target_sync(struct target *t)
{
	/* An image that nobody has open is as durable as its last user left
	 * it: opening it for writing and closing it flushes. */
	return target_is_image(t) ? 0 : call(t->fd, COWFS_IOC_SYNC, NULL);
}

int target_get(struct target *t, struct cowfs_ioc_setting *io)
{
	int err = target_is_image(t) ? cowfs_get_setting(t->image, io) :
				       call(t->fd, COWFS_IOC_GET_SETTING, io);

	io->name[sizeof(io->name) - 1] = '\0';
	return err;
}

int target_set(struct target *t, const struct cowfs_ioc_setting *set)
{
	struct cowfs_ioc_setting io = *set;

	return target_is_image(t) ? cowfs_set_setting(t->image, set) :
				    call(t->fd, COWFS_IOC_SET_SETTING, &io);
}

int target_mirror(struct target *t, uint32_t verb, const char *path,
		  const struct bdev_id *id)
{
	struct cowfs_ioc_mirror *m = calloc(1, sizeof(*m));
	int err = m ? 0 : -ENOMEM;

	if (!err && strlen(path) >= sizeof(m->path))
		err = -ENAMETOOLONG;
	if (!err) {
		m->verb = verb;
		m->dev = id ? id->dev : 0;
		m->ino = id ? id->ino : 0;
		strcpy(m->path, path);
		err = call(t->fd, COWFS_IOC_MIRROR, m);
	}
	free(m);
	return err;
}

/* Names were checked by the verb; a copy always fits then. */
static int copy_name(char to[COWFS_IOC_NAME], const char *name)
{
	size_t len = strlen(name);

	if (len >= COWFS_IOC_NAME)
		return -ENAMETOOLONG;
	memcpy(to, name, len + 1);
	return 0;
}

int target_snap_create(struct target *t, const char *name,
		       struct cowfs_ioc_snap *out)
{
	struct cowfs_ioc_snap snap = { 0 };
	int err;

	if (target_is_image(t))
		return cowfs_snap_create(t->image, name, out);
	err = copy_name(snap.name, name);
	if (!err)
		err = call(t->fd, COWFS_IOC_SNAP_CREATE, &snap);
	if (!err)
		*out = snap;
	return err;
}

int target_snap_delete(struct target *t, const char *name)
{
	struct cowfs_ioc_snap snap = { 0 };
	int err;

	if (target_is_image(t))
		return cowfs_snap_delete(t->image, name);
	err = copy_name(snap.name, name);
	return err ? err : call(t->fd, COWFS_IOC_SNAP_DELETE, &snap);
}

int target_snap_restore(struct target *t, const char *name, const char *save)
{
	struct cowfs_ioc_restore req = { 0 };
	int err;

	if (target_is_image(t))
		return cowfs_snap_restore(t->image, name, save);
	err = copy_name(req.name, name);
	if (!err && save)
		err = copy_name(req.save, save);
	return err ? err : call(t->fd, COWFS_IOC_SNAP_RESTORE, &req);
}

static int each_of_image(struct cowfs *c,
			 void (*fn)(void *arg,
				    const struct cowfs_ioc_snap *snap),
			 void *arg)
{
	struct cowfs_ioc_snap snap;
	uint64_t id = 0;
	int err;

	while ((err = cowfs_snap_next(c, id, &snap)) == 0) {
		fn(arg, &snap);
		id = snap.id + 1;
	}
	return err == -ENOENT ? 0 : err;
}

static int each_of_mount(int fd,
			 void (*fn)(void *arg,
				    const struct cowfs_ioc_snap *snap),
			 void *arg)
{
	struct cowfs_ioc_snap_list *list = calloc(1, sizeof(*list));
	uint64_t from;
	uint32_t i;
	int err;

	if (!list)
		return -ENOMEM;
	do {
		from = list->from;
		err = call(fd, COWFS_IOC_SNAP_LIST, list);
		if (!err && (list->count > COWFS_IOC_SNAPS ||
			     (list->from && list->from <= from)))
			err = -EPROTO;
		for (i = 0; !err && i < list->count; i++) {
			list->snap[i].name[COWFS_IOC_NAME - 1] = '\0';
			fn(arg, &list->snap[i]);
		}
	} while (!err && list->from);
	free(list);
	return err;
}

int target_snap_each(struct target *t,
		     void (*fn)(void *arg, const struct cowfs_ioc_snap *snap),
		     void *arg)
{
	return target_is_image(t) ? each_of_image(t->image, fn, arg) :
				    each_of_mount(t->fd, fn, arg);
}
