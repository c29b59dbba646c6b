/*
 * cowctl_unmount.c - the verb unmount, and waiting for the daemon's last commit
 *
 * umount(2) of a FUSE mount returns while the daemon still writes its last
 * commit. Who copies the image or cuts the power next needs to know when it is
 * done: when the daemon has exited, which lets go of the lock on the image.
 *
 * umount(8) leaves a mount of type fuse.cowfs to /sbin/umount.fuse.cowfs, if
 * there is one: this program by another name, so that it, and whoever uses it,
 * waits as well.
 */
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cowctl.h"

/* Times 50 ms. */
#define BUSY_TRIES 20

/* Who waits that long wants to know what for. */
#define WORD_MS 5000

extern char **environ;

/* A descriptor that becomes readable when the process ends; -1: none. */
static int watch_process(uint64_t pid)
{
	if (pid == 0 || pid > INT32_MAX)
		return -1;
	return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

/* The daemon of a mount, to be waited for: *watch, -1 if that is unknown. -EACCES:
 * it serves, but not us, as root on what another user has mounted for himself.
 * -ENOTCONN: it has ended already. */
static int watch_daemon(const char *point, int *watch)
{
	struct cowfs_ioc_info info;
	int fd, err = mount_open(point, &fd);

	*watch = -1;
	if (err)
		return err;
	if (mount_info(fd, &info) == 0)
		*watch = watch_process(info.pid);
	close(fd); /* else it would keep the mount busy */
	return 0;
}

static int run_fusermount(char *point, bool quiet)
{
	char how[] = "-uq";
	char *argv[] = { (char[]){ "fusermount3" }, how, (char[]){ "--" },
			 point, NULL };
	int err, status;
	pid_t pid;

	if (!quiet)
		how[2] = '\0';
	err = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (err)
		return -err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	/* It has said why. */
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECANCELED;
}

/* Somebody who only looks by, as df(1) and indexers do, is gone in a moment:
 * who waits anyhow waits for that, too. */
static int unmount_patiently(const char *point, bool wait)
{
	struct timespec pause = { .tv_nsec = 50000000 };
	int tries = wait ? BUSY_TRIES : 1;

	while (umount2(point, UMOUNT_NOFOLLOW) < 0) {
		if (errno != EBUSY || --tries == 0)
			return -errno;
		nanosleep(&pause, NULL);
	}
	return 0;
}

/* The same for who is not root; it does not tell why it failed. */
static int fusermount_patiently(char *point, bool wait)
{
	struct timespec pause = { .tv_nsec = 50000000 };
	int err, tries = wait ? BUSY_TRIES : 1;

	while ((err = run_fusermount(point, tries > 1)) == -ECANCELED) {
		if (--tries == 0)
			break;
		nanosleep(&pause, NULL);
	}
	if (err == -ECANCELED)
		tool_err(point, "not unmounted: only root and the user who "
			 "mounted it may do that, while nobody uses it");
	return err;
}

static int unmount(char *point, bool wait)
{
	int err;

	err = unmount_patiently(point, wait);
	if (err == -EPERM)
		err = fusermount_patiently(point, wait);
	if (err == -EBUSY)
		tool_err(point, "busy: somebody uses files on it");
	else if (err && err != -ECANCELED)
		tool_err(point, "%s", tool_strerror(err));
	return err;
}

/* The image is mounted again: its lock is another daemon's. */
static bool has_successor(const char *image)
{
	struct mount_entry m = { NULL, NULL, NULL };
	bool yes = mount_by_source(image, &m) == 0;

	mount_entry_free(&m);
	return yes;
}

/* The lock tells of daemons that cannot be watched as a process. 1: free. */
static int wait_lock(const char *image, unsigned ms)
{
	struct bdev *dev;
	int err = bdev_open_file(image, BDEV_READONLY, ms, &dev);

	if (err == -EBUSY)
		return has_successor(image);
	if (err)
		return err;
	bdev_close(dev);
	return 1;
}

/* Waits for at most that long. 1: it has ended; 0: not yet. */
static int wait_ended(const char *image, int watch, int ms)
{
	struct pollfd p = { .fd = watch, .events = POLLIN };
	int got;

	if (watch < 0)
		return wait_lock(image, (unsigned)ms);
	got = poll(&p, 1, ms);
	return got < 0 && errno != EINTR ? -errno : got > 0;
}

/*
 * A container that was started meanwhile has a copy of all mounts, and with it
 * keeps the daemon. 0: that is so, and who unmounted is not so patient.
 * Who is not root may not see all namespaces.
 */
static int wait_daemon(const struct mount_entry *m, int watch, bool patient)
{
	int got = wait_ended(m->source, watch, WORD_MS);
	char table[MOUNT_TABLE_ROOM];

	if (got == 0 && mount_in_namespace(m->device, table) == 0) {
		tool_err(m->source, "unmounted%s the daemon serves another "
			 "mount namespace (a container) that has it mounted, "
			 "too: see %s", patient ? "; waiting:" : ", but", table);
		if (!patient)
			return 0;
	} else if (got == 0) {
		tool_err(m->source, "unmounted; waiting for the daemon, which "
			 "has much to write, or serves another mount namespace");
	}
	while (got == 0)
		got = wait_ended(m->source, watch, WORD_MS);
	if (got < 0)
		tool_err(m->source, "unmounted, but can't tell when it is "
			 "free: %s", tool_strerror(got));
	return got;
}

/* Had all that was written found its way before the unmount? If nothing ever
 * did since the mount, the image looks afterwards as if there had been nothing.
 * Who may not ask does not learn it. */
static bool sync_fails(int fd)
{
	int got;

	do
		got = ioctl(fd, COWFS_IOC_SYNC);
	while (got < 0 && errno == EINTR);
	return got < 0 && errno != EPERM;
}

/* Is there a daemon that will have something to write at the end, to what the
 * mount table names? *lost: it could not even before that. */
static bool writes(const char *point, struct cowfs_ioc_info *info, bool *lost)
{
	int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool yes = false;

	if (fd < 0)
		return false;
	if (ioctl(fd, COWFS_IOC_INFO, info) == 0)
		yes = !info->readonly && !info->moved;
	*lost = yes && sync_fails(fd);
	close(fd);
	return yes;
}

/* Of a mirror whose sides do not lie beside each other, only the one by whose
 * name it was mounted is seen here: was that one complete to the end? */
static bool tells_all(const struct cowfs_ioc_info *before,
		      const struct cowfs_ioc_info *now)
{
	for (unsigned i = 0; now->sides > 1 && i < 2; i++)
		if (now->side_state[i] == SIDE_GONE &&
		    before->side_state[i] != SIDE_GONE)
			return before->side_state[1 - i] == SIDE_GOOD;
	return true;
}

static bool sees_other(const char *image, const struct cowfs_ioc_info *before)
{
	char *other = NULL;

	if (before->sides > 1 && cowfs_device_other(image, &other))
		return false;
	free(other);
	return true;
}

static int say_lost(const char *image)
{
	tool_err(image, "unmounted, but the last changes could not be "
		 "written; the system log says why");
	return -ECANCELED;
}

static int say_dead(const char *image)
{
	tool_err(image, "unmounted, but the daemon that served it was gone: "
		 "what it had not written by then is lost");
	return -ECANCELED;
}

static int say_gone(const char *image)
{
	tool_err(image, "unmounted, but the image was removed while it was "
		 "mounted: all that was written is lost");
	return -ECANCELED;
}

/* What the superblocks of an image tell. */
static int look_at(const char *image, struct cowfs_ioc_info *info)
{
	const struct cowfs_device how = { .flags = BDEV_READONLY,
					  .wait_ms = 5000, .degraded = true };
	struct bdev *dev;
	struct cowfs *c;
	int err;

	err = cowfs_device_open(image, &how, &dev);
	if (err)
		return err;
	err = cowfs_open(dev, false, &c);
	if (!err) {
		err = cowfs_info(c, info);
		if (cowfs_close(c) && !err)
			err = -EIO;
	}
	bdev_close(dev);
	return err;
}

/* The daemon is gone; has it written all it had? The image says so. That a side
 * is missing, where only one is seen here, is no news. */
static int check_closed(const char *image, const struct cowfs_ioc_info *before)
{
	struct cowfs_ioc_info info = { .clean = 0 };
	bool one_side = !sees_other(image, before);
	int err;

	cowfs_errors_only(one_side);
	err = look_at(image, &info);
	cowfs_errors_only(false);
	if (err == -EBUSY)
		return 0; /* mounted again already */
	if (one_side && (err || !tells_all(before, &info)))
		return 0;
	return err || info.clean ? err : say_lost(image);
}

/* A bind mount keeps the daemon: that is not waited for. other: where it is. */
static bool bound_too(const struct mount_entry *m, struct mount_entry *other)
{
	return mount_by_device(m->device, other) == 0 &&
	       !strcmp(other->source, m->source);
}

static int check_unused(const struct mount_entry *m)
{
	struct mount_entry other = { NULL, NULL, NULL };
	int err = 0;

	if (bound_too(m, &other)) {
		tool_err(m->point, "unmounted, but the filesystem is mounted "
			 "on %s, too: unmount that as well", other.point);
		err = -ECANCELED;
	}
	mount_entry_free(&other);
	return err;
}

/* What has to be known of a mount before it is unmounted. */
struct parting {
	struct cowfs_ioc_info info;
	int watched; /* what watch_daemon() said */
	int watch;
	bool writes; /* there will be something to write */
	bool lost;   /* that failed already */
};

static void parting_begin(struct parting *p, const char *point)
{
	*p = (struct parting){ 0 };
	p->watched = watch_daemon(point, &p->watch);
	p->writes = writes(point, &p->info, &p->lost);
}

static void parting_end(struct parting *p)
{
	if (p->watch >= 0)
		close(p->watch);
}

/* The daemon is gone: did it write all? Errors are printed. */
static int check_written(const struct mount_entry *m, const struct parting *p)
{
	int err;

	if (!p->writes)
		return 0;
	if (p->info.gone)
		return say_gone(m->source);
	if (p->lost)
		return say_lost(m->source);
	err = check_closed(m->source, &p->info);
	if (err && err != -ECANCELED)
		tool_err(m->source, "unmounted, and the daemon has ended, but "
			 "can't tell whether all was written: %s",
			 tool_strerror(err));
	return err;
}

static int unmount_and_wait(struct mount_entry *m)
{
	struct parting p;
	int err, got;

	parting_begin(&p, m->point);
	err = unmount(m->point, true);
	if (!err)
		err = check_unused(m);
	if (!err && p.watched == -ENOTCONN) {
		err = say_dead(m->source);
	} else if (!err) {
		got = wait_daemon(m, p.watch, true);
		err = got < 0 ? got : check_written(m, &p);
	}
	parting_end(&p);
	return err;
}

/* What is found by its image must be what unmounting that place takes away. */
static int check_uncovered(struct mount_entry *m)
{
	struct mount_entry top = { NULL, NULL, NULL };
	int err = mount_by_path(m->point, &top);

	if (!err && strcmp(top.source, m->source) != 0)
		err = -ENOENT;
	mount_entry_free(&top);
	if (err != -ENOENT)
		return err;
	tool_err(m->source, "mounted on %s, but something else is mounted over "
		 "it: unmount that first", m->point);
	return -ECANCELED;
}

/* An image is one wherever it lies, be it on a cowfs. */
static int find(const char *path, struct mount_entry *m)
{
	int err = mount_by_source(path, m);

	if (!err)
		err = check_uncovered(m);
	else if (target_names_image(path))
		err = -ENOENT;
	else
		err = mount_by_path(path, m);
	if (err == -ENOENT && access(MOUNT_TABLE, R_OK) != 0)
		tool_err(MOUNT_TABLE, "%s", tool_strerror(-errno));
	else if (err == -ENOENT && access(path, F_OK) == 0)
		tool_err(path, "no cowfs is mounted there");
	else if (err && err != -ECANCELED)
		tool_err(path, "%s", tool_strerror(err));
	return err;
}

int verb_unmount(const char *path, int argc, char **argv)
{
	static const struct option options[] = {
		{ "wait", no_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	struct mount_entry m;
	bool wait = false;
	int c, err;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c != 'w')
			return option_error(argv[0], c, argv);
		wait = true;
	}
	if (optind < argc)
		return usage_error(argv[0], "'%s' is too much", argv[optind]);
	if (find(path, &m))
		return STATUS_FAILED;
	err = wait ? unmount_and_wait(&m) : unmount(m.point, false);
	mount_entry_free(&m);
	return err ? STATUS_FAILED : STATUS_OK;
}

/* ---- as umount(8) calls it: TARGET [-flnrv] [-N NAMESPACE] [-t TYPE] ---- */

/* Its exit statuses. */
enum { UMOUNT_USAGE = 1, UMOUNT_FAILED = 32 };

/* Whoever asks for one of these does not want to wait, or not here. */
static int leave_to_umount(int argc, char **argv)
{
	char **args = calloc((size_t)argc + 2, sizeof(*args));

	if (args) {
		args[0] = (char[]){ "umount" };
		args[1] = (char[]){ "--internal-only" };
		memcpy(args + 2, argv + 1, (size_t)(argc - 1) * sizeof(*args));
		execvp(args[0], args);
	}
	tool_err("umount", "%s", tool_strerror(-errno));
	free(args);
	return UMOUNT_FAILED;
}

/*
 * What is still mounted elsewhere, and a daemon that is gone, leave nothing to
 * wait for: unmounted is all that umount(8) was asked for.
 */
static int unmount_as_umount(struct mount_entry *m)
{
	struct mount_entry other = { NULL, NULL, NULL };
	struct parting p;
	int err, got;

	parting_begin(&p, m->point);
	err = unmount(m->point, false);
	if (!err && p.watched == -ENOTCONN) {
		(void)say_dead(m->source);
	} else if (!err && (p.watch >= 0 || p.watched == -EACCES) &&
		   !bound_too(m, &other)) {
		got = wait_daemon(m, p.watch, false);
		err = got <= 0 ? got : check_written(m, &p);
	}
	mount_entry_free(&other);
	parting_end(&p);
	return err;
}

int umount_helper(int argc, char **argv)
{
	struct mount_entry m;
	int c, err;

	tool_init(UMOUNT_HELPER);
	while ((c = getopt(argc, argv, "flnrvN:t:")) != -1) {
		if (c == '?')
			return UMOUNT_USAGE;
		if (strchr("flrN", c))
			return leave_to_umount(argc, argv);
	}
	if (optind != argc - 1) {
		fprintf(stderr, "Usage: " UMOUNT_HELPER " DIR [-flnrv]; "
			"umount(8) calls it\n");
		return UMOUNT_USAGE;
	}
	if (find(argv[optind], &m))
		return UMOUNT_FAILED;
	err = unmount_as_umount(&m);
	mount_entry_free(&m);
	return err ? UMOUNT_FAILED : 0;
}
