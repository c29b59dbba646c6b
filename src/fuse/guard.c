/*
 * guard.c - a small process that ends the connection if the daemon is killed
 *
 * The control thread may be asleep in the kernel, where not even SIGKILL wakes
 * it, until a page has been written back - by this daemon. If it is killed
 * then, the thread waits for a dead process, keeps the connection's device open
 * and the image locked, for ever. The guard learns of the main thread's death
 * (PR_SET_PDEATHSIG) and aborts the connection through fusectl, which ends all
 * requests. In any other case it has nothing to do.
 *
 * Without fusectl, or as a user who may not open its file, there is no guard;
 * `echo 1 > /sys/fs/fuse/connections/N/abort` does the same by hand.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define GUARD_NAME "fuse-guard"
#define FUSECTL "/sys/fs/fuse/connections"

/* fusectl where it belongs, else (root) a mount of it that has no place. */
static int open_fusectl(void)
{
	int fs, mnt = -1;

	fs = fsopen("fusectl", FSOPEN_CLOEXEC);
	if (fs < 0)
		return open(FUSECTL, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (!fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	close(fs);
	return mnt;
}

static int open_abort(unsigned connection)
{
	int dir = open_fusectl(), fd = -1;
	char path[32];

	if (dir < 0)
		return -1;
	snprintf(path, sizeof(path), "%u/abort", connection);
	fd = openat(dir, path, O_WRONLY | O_CLOEXEC);
	close(dir);
	return fd;
}

/* Nothing of the daemon may stay open here: neither the image, whose lock it
 * would keep, nor the connection. */
static void close_others(int keep)
{
	if (keep != 3) {
		dup2(keep, 3);
		keep = 3;
	}
	if (close_range(4, ~0u, 0))
		for (long fd = sysconf(_SC_OPEN_MAX); fd > keep; fd--)
			close((int)fd);
}

static void watch(int from_daemon, int death)
{
	struct pollfd p[2] = { { .fd = death, .events = POLLIN },
			       { .fd = from_daemon, .events = POLLIN } };
	unsigned connection;
	int fd = -1;

	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		/* First: it may have been killed as soon as it had told. */
		if (p[1].revents && read(from_daemon, &connection,
					 sizeof(connection)) ==
					    sizeof(connection)) {
			fd = open_abort(connection);
			continue;
		}
		if (p[0].revents && fd >= 0 && write(fd, "1", 1) < 0)
			_exit(1);
		/* Or closed: the daemon ends in order, or is gone altogether,
		 * and the connection with it. */
		return;
	}
}

/* So that who kills the daemon by its name does not mean this process. */
static void rename_self(const struct options *o)
{
	prctl(PR_SET_NAME, GUARD_NAME);
	if (o->args_len >= sizeof(GUARD_NAME)) {
		memset(o->args, 0, o->args_len);
		memcpy(o->args, GUARD_NAME, sizeof(GUARD_NAME));
	}
}

static void guard_main(const struct options *o, int from_daemon, pid_t daemon)
{
	sigset_t set;
	int death;

	rename_self(o);
	close_others(from_daemon);
	null_stdio();
	if (chdir("/"))
		_exit(1);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_SETMASK, &set, NULL);
	death = signalfd(-1, &set, SFD_CLOEXEC);
	/* Signals meant for the daemon's group (Ctrl-C) end it, then us. */
	setsid();
	if (death < 0 || prctl(PR_SET_PDEATHSIG, SIGUSR1))
		_exit(0);
	/* Gone already, it may have told us before. */
	if (getppid() != daemon)
		raise(SIGUSR1);
	watch(3, death);
	_exit(0);
}

void guard_start(struct daemon *d)
{
	pid_t self = getpid();
	int fd[2];

	d->guard_fd = -1;
	if (pipe2(fd, O_CLOEXEC))
		return;
	d->guard = fork();
	if (!d->guard)
		guard_main(d->opt, fd[0], self);
	close(fd[0]);
	if (d->guard < 0)
		close(fd[1]);
	else
		d->guard_fd = fd[1];
}

void guard_arm(struct daemon *d)
{
	unsigned connection = minor(atomic_load(&d->device));

	if (d->guard_fd >= 0 &&
	    write(d->guard_fd, &connection, sizeof(connection)) < 0)
		log_msg(LOG_LVL_WARN, "no guard: %s", strerror(errno));
}

void guard_stop(struct daemon *d)
{
	if (d->guard_fd < 0)
		return;
	close(d->guard_fd);
	d->guard_fd = -1;
	waitpid(d->guard, NULL, 0);
}
