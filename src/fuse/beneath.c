/*
 * beneath.c - does a device lie on a filesystem, through whatever layers?
 *
 * A block device may be a loop device over a file, a partition of one, made of
 * others (dm, md), or over a file of a filesystem that is on such a device. Writing
 * to one that ends at our own mount would be a request to ourselves, in the middle
 * of serving one. sysfs tells what lies below; attributes are asked for as they are
 * cached, since asking may be such a request, too.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define DEPTH_MAX 16u /* layers */

static bool device_on(dev_t dev, dev_t fs, unsigned depth);

static int cached_stat(const char *path, struct statx *st)
{
	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, st) ?
		       -errno : 0;
}

/* What a loop device is over. One that was unlinked: where it was. */
static bool file_on(char *path, dev_t fs, unsigned depth)
{
	struct statx st;

	if (cached_stat(path, &st) && cached_stat(dirname(path), &st))
		return false;
	if (S_ISBLK(st.stx_mode) &&
	    device_on(makedev(st.stx_rdev_major, st.stx_rdev_minor), fs,
		      depth))
		return true;
	return device_on(makedev(st.stx_dev_major, st.stx_dev_minor), fs,
			 depth);
}

static bool slaves_on(const char *dir, dev_t fs, unsigned depth)
{
	char path[PATH_MAX], line[64];
	unsigned major, minor;
	struct dirent *e;
	bool on = false;
	DIR *d;

	snprintf(path, sizeof(path), "%s/slaves", dir);
	d = opendir(path);
	while (d && !on && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/slaves/%s/dev", dir,
			 e->d_name);
		on = first_line(path, line, sizeof(line)) &&
		     sscanf(line, "%u:%u", &major, &minor) == 2 &&
		     device_on(makedev(major, minor), fs, depth);
	}
	if (d)
		closedir(d);
	return on;
}

static bool device_on(dev_t dev, dev_t fs, unsigned depth)
{
	char dir[64], path[96], below[PATH_MAX];

	if (dev == fs)
		return true;
	if (depth == DEPTH_MAX)
		return false;
	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(dev),
		 minor(dev));
	snprintf(path, sizeof(path), "%s/loop/backing_file", dir);
	if (first_line(path, below, sizeof(below)))
		return file_on(below, fs, depth + 1);
	snprintf(path, sizeof(path), "%s/../loop/backing_file", dir);
	if (first_line(path, below, sizeof(below))) /* a partition */
		return file_on(below, fs, depth + 1);
	return slaves_on(dir, fs, depth + 1);
}

bool beneath_lies_on(const char *path, dev_t fs)
{
	char copy[PATH_MAX];

	if (strlen(path) >= sizeof(copy))
		return false;
	memcpy(copy, path, strlen(path) + 1);
	return file_on(copy, fs, 0);
}
