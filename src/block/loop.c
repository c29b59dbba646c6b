/*
 * loop.c - one image under two names: as a file, and as a loop device over it
 *
 * Locks belong to an inode, and a loop device has one of its own. sysfs tells
 * what is behind it.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "block/loop.h"
#include "util/util.h"

/* Is what has that name now what the loop device is over? */
static bool is_behind(int loop, int file)
{
	struct loop_info64 info;
	struct stat st;

	return !ioctl(loop, LOOP_GET_STATUS64, &info) && !fstat(file, &st) &&
	       st.st_dev == info.lo_device && st.st_ino == info.lo_inode;
}

/* Whoever may write to the directory may have put anything there meanwhile: a
 * pipe, on which open(2) waits, or a symlink to a device, to which it does
 * something. So it is looked at first. */
static int open_behind(int loop, const char *path, int flags)
{
	int at = open(path, O_PATH | O_CLOEXEC), fd = -1;

	if (at < 0)
		return -1;
	if (is_behind(loop, at))
		fd = open_path_fd(at, flags);
	close(at);
	return fd;
}

void loop_open_backing(int dev, const struct stat *st, int flags, int *fd)
{
	char sysfs[64], path[4096];

	*fd = -1;
	if (!S_ISBLK(st->st_mode))
		return;
	snprintf(sysfs, sizeof(sysfs), "/sys/dev/block/%u:%u/loop/backing_file",
		 major(st->st_rdev), minor(st->st_rdev));
	if (first_line(sysfs, path, sizeof(path)))
		*fd = open_behind(dev, path, flags);
}

/* Is the loop device of that name over the file, and in use? */
static bool uses(const char *loop, const struct stat *file)
{
	char sysfs[320], path[4096];
	struct stat st;
	int fd;

	snprintf(sysfs, sizeof(sysfs), "/sys/block/%s/loop/backing_file", loop);
	if (!first_line(sysfs, path, sizeof(path)) || stat(path, &st) ||
	    st.st_dev != file->st_dev || st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/dev/%s", loop);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return errno == EBUSY;
	close(fd);
	return false;
}

int loop_check_unused(const struct stat *file)
{
	DIR *dir;
	struct dirent *e;
	bool used = false;

	if (!S_ISREG(file->st_mode))
		return 0;
	dir = opendir("/sys/block");
	if (!dir)
		return 0;
	while (!used && (e = readdir(dir)))
		used = !strncmp(e->d_name, "loop", 4) && uses(e->d_name, file);
	closedir(dir);
	return used ? -EBUSY : 0;
}
