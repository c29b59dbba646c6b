/*
 * session.c - the connection to the kernel: mount, serve, unmount
 *
 * Who may do what is checked by the kernel (default_permissions), which asks
 * for the attributes of a directory again after each change in it: one more
 * request for every create, rename, unlink. A mount by root that others are not
 * let into needs no check: all that get as far are root by all their ids. So
 * such a mount is *root only*: no default_permissions, and no POSIX_ACL, which
 * would bring it back (ACLs are attributes then, see ops_xattr.c). What the
 * kernel does not do there is done here:
 *
 *   - access(2) is asked of us (ops_node.c);
 *   - a request in another user's name, of a process that is root and changed
 *     its filesystem ids alone (a file server), is refused (raw.c).
 *
 * Capabilities are not looked at: a root without CAP_DAC_OVERRIDE is to be
 * given allow_other or default_permissions (cowfs.8).
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define MAX_WRITE (1u << 20)
/* Half of what the kernel reads ahead: so two threads serve that at once. 256 MiB
 * cold in 4 KiB calls, mapped: 786, 970 MB/s, with it 1004, 1192 (7 rounds). */
#define MAX_READ (512u << 10)
#define MAX_BACKGROUND 64u

/* What is wanted of the kernel, if it can. Not ASYNC_DIO: after an asynchronous
 * direct write the kernel leaves stale pages in its cache (generic/451 of
 * xfstests shows it). */
#define WANT (FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | \
	      FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | \
	      FUSE_CAP_IOCTL_DIR | FUSE_CAP_EXPLICIT_INVAL_DATA | \
	      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | \
	      FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_PARALLEL_DIROPS | \
	      FUSE_CAP_POSIX_ACL | FUSE_CAP_CACHE_SYMLINKS)

/* Elsewhere the kernel keeps ACLs from those who do not ask for POSIX_ACL. */
static bool in_first_user_namespace(void)
{
	unsigned long inside, outside, count;
	FILE *f = fopen("/proc/self/uid_map", "re");
	bool first;

	if (!f)
		return false;
	first = fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3 &&
		!inside && !outside && count == UINT32_MAX;
	fclose(f);
	return first;
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	struct job job = { .kind = JOB_MEET };
	struct daemon *d = userdata;

	conn->want = conn->capable & WANT;
	if (d->root_only)
		conn->want &= ~(unsigned)FUSE_CAP_POSIX_ACL;
	conn->max_write = MAX_WRITE;
	conn->max_read = MAX_READ; /* as in mount_options */
	conn->max_background = d->copies_pages ? FLIGHT_ROOM : MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
	d->keep_opendir = !(conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT);
	if (control_add(d, &job)) {
		log_msg(LOG_LVL_WARN, "read-ahead stays as it is: no memory");
		(void)control_tell(d, DAEMON_READY);
	}
}

/* Without threads or memory libfuse says the same for each request. */
static bool said_just_now(const char *fmt)
{
	static _Atomic(const char *) last;
	static _Atomic uint64_t when;
	uint64_t now = now_ns();

	if (atomic_load(&last) == fmt &&
	    now - atomic_load(&when) < UINT64_C(1000000000))
		return true;
	atomic_store(&last, fmt);
	atomic_store(&when, now);
	return false;
}

/* libfuse's messages; its own handler would lose them in a daemon. */
static void fuse_message(enum fuse_log_level level, const char *fmt,
			 va_list ap)
{
	char line[512];
	const char *s = line;
	size_t len;

	if (level <= FUSE_LOG_WARNING && said_just_now(fmt))
		return;
	vsnprintf(line, sizeof(line), fmt, ap);
	len = strlen(line);
	while (len && line[len - 1] == '\n')
		line[--len] = '\0';
	if (!strncmp(s, "fuse: ", 6))
		s += 6;
	if (*s)
		log_msg(level <= FUSE_LOG_ERR ? LOG_LVL_ERROR :
			level <= FUSE_LOG_WARNING ? LOG_LVL_WARN :
			level <= FUSE_LOG_INFO ? LOG_LVL_INFO :
			LOG_LVL_DEBUG, "%s", s);
}

static char *escape(char *to, const char *from)
{
	for (; *from; from++) {
		if (*from == ',' || *from == '\\')
			*to++ = '\\';
		*to++ = *from;
	}
	*to = '\0';
	return to;
}

/* All options as libfuse takes them; the source shown in /proc/mounts is the
 * image. What mount(8) does for root allows devices and set-id programs unless
 * it is told otherwise; libfuse has it the other way round. */
static char *mount_options(const struct daemon *d)
{
	const char *fixed = d->root_only ? "subtype=cowfs" :
					   "default_permissions,subtype=cowfs";
	const struct options *o = d->opt;
	const char *allow = o->helper && d->system_root ? ",dev,suid" : "";
	size_t room = 2 * strlen(o->image) + strlen(fixed) + 96;
	char *s, *p;

	if (o->pass)
		room += strlen(o->pass);
	s = malloc(room);
	if (!s)
		return NULL;
	p = s + sprintf(s, "%s,max_read=%u%s%s%s%s%s,fsname=", fixed, MAX_READ,
			allow, o->readonly ? ",ro" : "", o->debug ? ",debug" : "",
			o->pass ? "," : "", o->pass ? o->pass : "");
	escape(p, o->image);
	return s;
}

static struct fuse_session *new_session(struct daemon *d)
{
	struct fuse_lowlevel_ops ops = { .init = on_init };
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *se = NULL;
	char *opts;

	d->system_root = !geteuid() && in_first_user_namespace();
	d->root_only = !d->opt->checked && d->system_root;
	opts = mount_options(d);
	ops_node(&ops);
	ops_name(&ops);
	ops_file(&ops);
	ops_seek(&ops);
	ops_dir(&ops);
	ops_xattr(&ops);
	ops_ioctl(&ops);
	if (opts && !fuse_opt_add_arg(&args, d->opt->program) &&
	    !fuse_opt_add_arg(&args, "-o") && !fuse_opt_add_arg(&args, opts))
		se = fuse_session_new(&args, &ops, sizeof(ops), d);
	fuse_opt_free_args(&args);
	free(opts);
	return se;
}

int session_open(struct daemon *d)
{
	const char *dir = d->opt->dir;
	int err;

	fuse_set_log_func(fuse_message);
	d->se = new_session(d);
	if (!d->se)
		return report(-EINVAL, "%s: no session", dir);
	if (fuse_session_mount(d->se, dir)) {
		fuse_session_destroy(d->se);
		d->se = NULL;
		return report(-EIO, "%s: mounting failed", dir);
	}
	err = raw_install(d);
	if (err) {
		session_close(d);
		return report(err, "%s: no device", dir);
	}
	return 0;
}

static void no_op(int sig)
{
	(void)sig;
}

/* The library's loop sleeps in the main thread, and looks whether it is to end
 * when a signal wakes it. */
static void catch_wakeup(void)
{
	struct sigaction sa = { .sa_handler = no_op };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGUSR2, &sa, NULL);
	sa.sa_handler = SIG_IGN;
	sigaction(SIGPIPE, &sa, NULL);
}

int session_run(struct daemon *d)
{
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	int err;

	if (!cfg)
		return -ENOMEM;
	catch_wakeup();
	limits_try_cancel();
	fuse_loop_cfg_set_clone_fd(cfg, 0);
	fuse_loop_cfg_set_max_threads(cfg, d->opt->threads);
	turn_init(d);
	awake_start(d);
	err = fuse_session_loop_mt(d->se, cfg);
	awake_stop(d);
	turn_fini(d);
	atomic_store(&d->loop_ended, true);
	fuse_loop_cfg_destroy(cfg);
	/* -1: not one thread could be started */
	return err > 0 ? 0 : err == -1 ? -EAGAIN : err;
}

void session_stop(struct daemon *d)
{
	const struct timespec pause = { .tv_nsec = 10000000 };

	fuse_session_exit(d->se);
	/* Again until it is seen: one signal may come just before the sleep. */
	while (!atomic_load(&d->loop_ended)) {
		pthread_kill(d->main_thread, SIGUSR2);
		nanosleep(&pause, NULL);
	}
}

void session_close(struct daemon *d)
{
	if (!d->se)
		return;
	fuse_session_unmount(d->se);
}

static int spawn_fusermount(const char *dir)
{
	char *argv[] = { (char *)"fusermount3", (char *)"-u", (char *)"-q",
			 (char *)"--", (char *)(uintptr_t)dir, NULL };
	int status;
	pid_t pid;
	int err;

	err = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (err)
		return -err;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EBUSY;
}

int session_device(struct daemon *d, dev_t *dev)
{
	struct statx st;

	if (statx(AT_FDCWD, d->opt->dir, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
		  STATX_INO, &st))
		return -errno;
	if (st.stx_ino != COWFS_INO_ROOT)
		return -EINVAL;
	*dev = makedev(st.stx_dev_major, st.stx_dev_minor);
	return 0;
}

int session_umount(struct daemon *d)
{
	const char *dir = d->opt->dir;
	dev_t dev;

	/* Something else may be mounted there by now. */
	if (session_device(d, &dev) || dev != atomic_load(&d->device))
		return -EINVAL;
	if (!umount2(dir, UMOUNT_NOFOLLOW))
		return 0;
	return errno == EPERM ? spawn_fusermount(dir) : -errno;
}
