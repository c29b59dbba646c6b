/*
 * main.c - the daemon: open the image, mount it, serve, close it
 *
 * The fork comes first. All that can go wrong before the first request is done
 * while the terminal is still there for messages; threads start after that. The
 * parent waits until the kernel's first requests have been answered.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "cowfs/version.h"
#include "fuse/daemon.h"

#define WAIT_FOR_IMAGE_MS 10000 /* an unmount just before may still finish */

static void to_syslog(void *arg, enum log_level level, const char *line)
{
	static const int priority[] = {
		[LOG_LVL_ERROR] = LOG_ERR,
		[LOG_LVL_WARN] = LOG_WARNING,
		[LOG_LVL_INFO] = LOG_INFO,
		[LOG_LVL_DEBUG] = LOG_DEBUG,
	};

	(void)arg;
	syslog(priority[level], "%s", line);
}

/* Of what is as it should be (a log was replayed) mount(8) says nothing. */
static void to_terminal(void *arg, enum log_level level, const char *line)
{
	if (level > LOG_LVL_WARN)
		to_syslog(arg, level, line);
	else
		fprintf(stderr, "cowfs: %s\n", line);
}

/* An image that is not a mirror may become one while it is mounted. */
static int extensible(struct daemon *d)
{
	struct bdev *dev;
	int err;

	if (d->dev->readonly || bdev_sides(d->dev) > 1)
		return 0;
	err = bdev_open_extensible(d->dev, &dev);
	if (!err)
		d->dev = dev;
	return err;
}

static int open_image(struct daemon *d)
{
	const struct options *o = d->opt;
	const struct cowfs_device how = {
		.flags = o->readonly ? BDEV_READONLY : 0,
		.wait_ms = WAIT_FOR_IMAGE_MS,
		.mirror = o->mirror,
		.degraded = o->degraded,
	};
	int err = cowfs_device_open(o->image, &how, &d->dev);

	if (!err)
		err = extensible(d);
	if (err == -ENODEV)
		fprintf(stderr, "%s: %s: one side of a mirror; the other is "
			"missing (-o mirror=PATH says where it is, -o degraded "
			"goes on without it)\n", o->program, o->image);
	else if (err)
		fprintf(stderr, "%s: %s: %s%s\n", o->program, o->image,
			err == -EBUSY ? "in use by another program" :
			err == -EINVAL ? "not a cowfs image" :
			err == -EXDEV ? "not mounted: -o mirror=PATH is to be "
			"its other side" :
			err == -EEXIST ? "more than one file may be the other "
			"side of the mirror (-o mirror=PATH says which)" :
			strerror(-err),
			err == -EACCES || err == -EROFS ?
			" (-o ro mounts it read-only)" : "");
	return err ? err : limits_allow(o, d->dev);
}

static const char *store_error(struct bdev *dev, int err)
{
	switch (err) {
	case -EINVAL:
		return bdev_sides(dev) > 1 ? "its sides do not belong together"
					   : "not a cowfs image";
	case -ENODEV:
		return "the other side of the mirror is needed";
	case -ENOTUNIQ:
		return "the sides of the mirror went on without each other";
	default:
		return strerror(-cowfs_errno_for_user(err));
	}
}

static int open_store(struct daemon *d)
{
	const struct options *o = d->opt;
	struct store_config cfg = {
		.dev = d->dev,
		.flags = o->readonly ? STORE_READONLY : STORE_LAZY,
		.cache_bytes = o->cache,
		.commit_ms = o->commit_s * 1000,
	};
	int err;

	err = recovery_pick(d, &cfg.use_gen);
	if (err)
		return err;
	err = store_open(&cfg, &d->store);
	if (!err && o->recovery)
		err = recovery_look(d, cfg.use_gen);
	if (err)
		fprintf(stderr, "%s: %s: can't be mounted: %s\n", o->program,
			o->image, store_error(d->dev, err));
	return err;
}

static int open_fs(struct daemon *d)
{
	const struct options *o = d->opt;
	struct fs_options fo = { .readonly = o->readonly,
				 .noatime = o->noatime,
				 .strictatime = o->strictatime,
				 .snapshot = o->snapshot };
	int err;

	err = snap_start(d->store);
	if (!err)
		err = redun_start(d->store);
	if (!err)
		err = fs_mount(d->store, &fo, &d->fs);
	if (err)
		fprintf(stderr, "%s: %s: %s\n", o->program,
			err == -ENOENT && o->snapshot ? o->snapshot : o->image,
			err == -ENOENT && o->snapshot ? "no such snapshot" :
			strerror(-cowfs_errno_for_user(err)));
	return err;
}

static int open_all(struct daemon *d)
{
	int err;

	err = open_image(d);
	if (!err)
		err = open_store(d);
	if (!err)
		err = open_fs(d);
	if (err)
		return err;
	err = scrub_new(d->store, &d->scrub);
	if (err)
		return err;
	/* Ended from now on, it would leave a mount that nobody serves. */
	signals_block();
	return session_open(d);
}

/* First error of what had to be written. */
static int close_all(struct daemon *d)
{
	int err = 0;

	if (d->se) {
		session_close(d);
		control_stop(d);
		raw_remove(d);
		fuse_session_destroy(d->se);
		d->se = NULL;
	}
	scrub_free(d->scrub);
	dirahead_fini(d);
	flight_fini(d);
	nid_fini(d);
	fs_umount(d->fs);
	if (d->store)
		err = store_close(d->store);
	if (err)
		log_msg(LOG_LVL_ERROR, "%s: closing: %s", d->opt->image,
			strerror(-err));
	guard_stop(d);
	/* The lock on the image goes last: whoever waits for it finds all
	 * done. */
	bdev_close(d->dev);
	return err;
}

static int serve(struct daemon *d)
{
	int err;

	d->main_thread = pthread_self();
	err = store_start(d->store);
	if (!err)
		err = control_start(d);
	if (!err)
		sides_resume(d);
	if (!err)
		err = signals_start(d);
	if (!err)
		err = session_run(d);
	signals_stop(d);
	if (err)
		log_msg(LOG_LVL_ERROR, "%s: serving: %s", d->opt->dir,
			strerror(-err));
	return err;
}

void null_stdio(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	dup2(null, STDIN_FILENO);
	dup2(null, STDOUT_FILENO);
	dup2(null, STDERR_FILENO);
	if (null > STDERR_FILENO)
		close(null);
}

/* From the terminal: Ctrl-C does not mean this process any more. -EPIPE: whoever
 * was to be told that it serves is gone. */
static int detach(struct daemon *d)
{
	setsid();
	null_stdio();
	log_set_sink(to_syslog, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (control_tell(d, DAEMON_OPENED))
		return 0;
	return report(-EPIPE, "%s: the mount was given up", d->opt->dir);
}

/* mount(8): 1 is wrong usage, 32 a failed mount. */
static int exit_failure(const struct options *o)
{
	return o->helper ? 32 : EXIT_FAILURE;
}

/* In the parent, until the child serves or has ended: its exit status. */
static int wait_ready(const struct options *o, int fd, pid_t child)
{
	char c = 0;
	bool opened = false;
	int status;
	ssize_t n;

	do {
		n = read(fd, &c, 1);
		if (n == 1 && c == DAEMON_READY)
			return EXIT_SUCCESS;
		opened = opened || n == 1;
	} while (n == 1 || (n < 0 && errno == EINTR));
	if (opened)
		fprintf(stderr, "%s: %s: the daemon failed; see the system "
			"log\n", o->program, o->dir);
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
		fprintf(stderr, "%s: %s: the daemon was killed\n", o->program,
			o->image);
		return exit_failure(o);
	}
	/* It may have been unmounted in order before it served. */
	return WEXITSTATUS(status) ? WEXITSTATUS(status) : exit_failure(o);
}

/*
 * Go on in a child, which tells this process when it serves; then this one
 * ends. It comes first of all: of what is in memory when a process forks, each
 * page is copied when it is written next.
 */
static int daemonize(struct daemon *d)
{
	int fd[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		return report(-errno, "no pipe");
	signal(SIGCHLD, SIG_DFL); /* ignored, no child's status can be had */
	pid = fork();
	if (pid > 0) {
		close(fd[1]);
		_exit(wait_ready(d->opt, fd[0], pid));
	}
	if (pid < 0) {
		int err = report(-errno, "no process for the background");

		close(fd[0]);
		close(fd[1]);
		return err;
	}
	close(fd[0]);
	d->ready_fd = fd[1];
	return 0;
}

static int prepare(struct daemon *d)
{
	int err;

	if (!d->opt->foreground) {
		err = daemonize(d);
		if (err)
			return err;
		openlog("cowfs", LOG_PID, LOG_DAEMON);
		log_set_sink(to_terminal, NULL);
	}
	guard_start(d);
	err = open_all(d);
	if (!err && chdir("/"))
		err = -errno;
	if (!err && !d->opt->foreground)
		err = detach(d);
	return err;
}

static int run(const struct options *o)
{
	struct daemon d = { .opt = o, .ready_fd = -1, .guard_fd = -1,
			    .fuse_fd = -1, .owner = getuid(),
			    .began = now_ns(),
			    .snapdir_sec = now_real().sec };
	int err, err2;

	limits_raise();
	if (o->debug)
		log_set_level(LOG_LVL_DEBUG);
	err = worker_init(&d);
	if (err)
		return err;
	err = requests_new(&d.requests);
	if (err) {
		worker_fini(&d);
		return err;
	}
	nid_init(&d);
	dirahead_init(&d);
	flight_init(&d);
	err = prepare(&d);
	if (!err)
		err = serve(&d);
	err2 = close_all(&d);
	worker_fini(&d);
	requests_free(d.requests);
	return err ? err : err2;
}

int main(int argc, char **argv)
{
	struct options o;
	int err = 0;

	if (!cowfs_reserve_stdio())
		return EXIT_FAILURE;
	switch (opts_parse(&o, argc, argv)) {
	case OPTS_USAGE:
		fprintf(stderr, "%s --help tells how it is called\n",
			o.program);
		return o.helper ? 1 : 2;
	case OPTS_FAIL:
		return exit_failure(&o);
	default:
		break;
	}
	if (o.help)
		opts_help(&o);
	else if (o.version)
		printf("cowfs (cowfs) %s\n", COWFS_VERSION);
	else if (o.remount && !o.fake)
		err = remount(&o);
	else if (!o.fake)
		err = run(&o);
	if ((o.help || o.version) && (fflush(stdout) || ferror(stdout))) {
		fprintf(stderr, "%s: standard output: %s\n", o.program,
			strerror(errno));
		err = -EIO;
	}
	opts_free(&o);
	return err ? exit_failure(&o) : EXIT_SUCCESS;
}
