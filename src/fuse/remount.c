/*
 * remount.c - "mount -o remount,ro": the kernel's flags of a mount that is there
 *
 * The daemon need not know: the kernel writes back what it has before it makes
 * a mount read-only, and asks for no changes afterwards.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fuse/daemon.h"

static bool has_option(const char *list, const char *opt)
{
	size_t n = strlen(opt);
	const char *p;

	for (p = list; p && *p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
		if (!strncmp(p, opt, n) && (p[n] == ',' || !p[n]))
			return true;
	return false;
}

/* A flag that is not given goes, so what protects stays unless its opposite is
 * asked for: mount(8) gives all that hold, who calls us himself need not. */
static unsigned long mount_flags(const struct options *o)
{
	static const struct {
		const char *opt;
		unsigned long flag;
		const char *opposite; /* NULL: it does not stay */
		unsigned long now;    /* as statvfs has it */
	} flags[] = {
		{ "nodev", MS_NODEV, "dev", ST_NODEV },
		{ "nosuid", MS_NOSUID, "suid", ST_NOSUID },
		{ "noexec", MS_NOEXEC, "exec", ST_NOEXEC },
		{ "sync", MS_SYNCHRONOUS, "async", ST_SYNCHRONOUS },
		{ "dirsync", MS_DIRSYNC, NULL, 0 },
		{ "noatime", MS_NOATIME, NULL, 0 },
	};
	unsigned long f = MS_REMOUNT | (o->readonly ? MS_RDONLY : 0);
	struct statvfs now = { .f_flag = 0 };

	if (statvfs(o->dir, &now))
		now.f_flag = 0;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (has_option(o->pass, flags[i].opt) ||
		    (now.f_flag & flags[i].now &&
		     !has_option(o->pass, flags[i].opposite)))
			f |= flags[i].flag;
	return f;
}

/* A daemon that opened the image read-only can't be made to write. */
static int may_write(const char *dir)
{
	struct cowfs_ioc_info info;
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, COWFS_IOC_INFO, &info))
		err = -errno;
	else if (info.readonly)
		err = -EROFS;
	close(fd);
	return err;
}

int remount(const struct options *o)
{
	int err = o->readonly ? 0 : may_write(o->dir);

	if (!err && mount(o->image, o->dir, NULL, mount_flags(o), NULL))
		err = -errno;
	if (err == -EROFS)
		fprintf(stderr, "%s: %s: mounted read-only from the start: "
			"unmount it and mount it again\n", o->program, o->dir);
	else if (err)
		fprintf(stderr, "%s: %s: cannot remount: %s\n", o->program,
			o->dir, strerror(-err));
	return err;
}
