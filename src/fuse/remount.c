/*
 * remount.c - "mount -o remount,ro": the kernel's flags of a mount that is there
 *
 * The kernel writes back what it has before it makes a mount read-only, and asks
 * for no changes afterwards. But access times are the daemon's: it is told.
 */
#include <fcntl.h>
#include <mntent.h>
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
	};
	unsigned long f = MS_REMOUNT | (o->readonly ? MS_RDONLY : 0);
	struct statvfs now = { .f_flag = 0 };

	if (o->noatime) /* none of them: the kernel leaves that as it is */
		f |= MS_NOATIME;
	else if (o->relatime || o->strictatime)
		f |= MS_RELATIME;
	if (statvfs(o->dir, &now))
		now.f_flag = 0;
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (has_option(o->pass, flags[i].opt) ||
		    (now.f_flag & flags[i].now &&
		     !has_option(o->pass, flags[i].opposite)))
			f |= flags[i].flag;
	return f;
}

/* mount(2) would change whatever is mounted there. */
static int check_ours(const char *dir)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	struct mntent *m;
	bool ours = false;

	if (!f)
		return -errno;
	while ((m = getmntent(f)))
		if (!strcmp(m->mnt_dir, dir)) /* the last one is on top */
			ours = !strcmp(m->mnt_type, "fuse.cowfs");
	endmntent(f);
	return ours ? 0 : -ENOTTY;
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

/* Who makes a mount read-only wants to copy the image, or to cut the power: the
 * kernel has given us all it had, but does not say that it is to be durable. */
static int make_durable(const struct options *o)
{
	int fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return 0; /* another user's, whose daemon does it soon */
	if (ioctl(fd, COWFS_IOC_SYNC))
		err = -errno;
	close(fd);
	return err;
}

/* (A daemon older than this does not know of it.) */
static void tell_daemon(const struct options *o)
{
	int fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct statvfs now;
	uint32_t no;

	if (fd < 0)
		return;
	/* what holds, be it of the first mount */
	no = !fstatvfs(fd, &now) && now.f_flag & (ST_RDONLY | ST_NOATIME);
	if (ioctl(fd, COWFS_IOC_NOATIME, &no))
		fprintf(stderr, "%s: %s: access times are kept as before: %s\n",
			o->program, o->dir, strerror(errno));
	close(fd);
}

int remount(const struct options *o)
{
	int err = check_ours(o->dir);

	if (!err && !o->readonly)
		err = may_write(o->dir);
	if (!err && mount(o->image, o->dir, NULL, mount_flags(o), NULL))
		err = -errno;
	if (!err) {
		tell_daemon(o);
		err = o->readonly ? make_durable(o) : 0;
	}
	if (err == -EROFS)
		fprintf(stderr, "%s: %s: mounted read-only from the start: "
			"unmount it and mount it again\n", o->program, o->dir);
	else if (err == -ENOTTY)
		fprintf(stderr, "%s: %s: no cowfs is mounted there\n",
			o->program, o->dir);
	else if (err)
		fprintf(stderr, "%s: %s: cannot remount: %s\n", o->program,
			o->dir, strerror(-err));
	return err;
}
