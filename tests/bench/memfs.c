/*
 * memfs.c - a filesystem in memory: what FUSE costs when nothing else does
 *
 *	memfs [-1] [-t THREADS] [-n] DIR
 *
 * The limit that the benchmark compares with. It asks the kernel for the same
 * as cowfs does, lets it keep everything for ever, and does the least for each
 * request: no disk, no checksums, no snapshots, nothing survives the unmount.
 * It stays in the foreground. -n goes further than cowfs can: open is refused
 * with ENOSYS, which spares OPEN and RELEASE. On SIGUSR1 the kernel is made to
 * forget all but the root (it can't be remounted: nothing would be left); that
 * done, it says so on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "memfs.h"

#define MAX_WRITE (1u << 20)
#define MAX_BACKGROUND 64u
#define MMAP_FROM (1 << 20) /* growing such a buffer moves pages, not bytes */
#define FIRST_COOKIE 3      /* behind the dots */

static bool no_open;

static struct {
	uint64_t unique;
	bool killpriv;
	bool keep_opendir;
} init;

/* ---- callbacks: contents ---- */

/* inode->lock, exclusive: room for size bytes, zeroes behind the old end. */
static int set_room(struct inode *i, size_t size)
{
	size_t room = i->room ? i->room : 4096;
	char *p;

	if (size <= i->room)
		return 0;
	while (room < size)
		room *= 2;
	if (size < 8192)
		room = size;
	p = realloc(i->data, room);
	if (!p)
		return -ENOSPC;
	i->data = p;
	i->room = room;
	return 0;
}

/* inode->lock, exclusive. */
static int set_size(struct inode *i, size_t size)
{
	size_t old = (size_t)i->st.st_size;
	int err;

	err = set_room(i, size);
	if (err)
		return err;
	if (size > old)
		memset(i->data + old, 0, size - old);
	if (!size) {
		free(i->data);
		i->data = NULL;
		i->room = 0;
	}
	pthread_mutex_lock(&big_lock);
	i->st.st_size = (off_t)size;
	touch(i);
	pthread_mutex_unlock(&big_lock);
	return 0;
}

/* inode->lock, exclusive. */
static int put_bytes(struct inode *i, const char *buf, size_t size, size_t off)
{
	size_t old = (size_t)i->st.st_size;
	int err;

	err = set_room(i, off + size);
	if (err)
		return err;
	if (off > old)
		memset(i->data + old, 0, off - old);
	memcpy(i->data + off, buf, size);
	pthread_mutex_lock(&big_lock);
	if (off + size > old)
		i->st.st_size = (off_t)(off + size);
	/* HANDLE_KILLPRIV_V2: ours to do */
	i->st.st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
	touch(i);
	pthread_mutex_unlock(&big_lock);
	return 0;
}

static void on_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct inode *i = node(id);

	if (no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (fi->flags & O_TRUNC) {
		pthread_rwlock_wrlock(&i->lock);
		(void)set_size(i, 0); /* shrinking can't fail */
		pthread_rwlock_unlock(&i->lock);
	}
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	size_t end;

	(void)fi;
	pthread_rwlock_rdlock(&i->lock);
	end = (size_t)i->st.st_size;
	if ((size_t)off >= end)
		size = 0;
	else if (size > end - (size_t)off)
		size = end - (size_t)off;
	if (size)
		fuse_reply_buf(req, i->data + off, size);
	else
		fuse_reply_buf(req, NULL, 0);
	pthread_rwlock_unlock(&i->lock);
}

static void on_write(fuse_req_t req, fuse_ino_t id, const char *buf,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	int err;

	(void)fi;
	pthread_rwlock_wrlock(&i->lock);
	err = put_bytes(i, buf, size, (size_t)off);
	pthread_rwlock_unlock(&i->lock);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_write(req, size);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t off,
			 off_t len, struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	int err = 0;

	(void)fi;
	if (mode) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	pthread_rwlock_wrlock(&i->lock);
	if (off + len > i->st.st_size)
		err = set_size(i, (size_t)(off + len));
	pthread_rwlock_unlock(&i->lock);
	fuse_reply_err(req, -err);
}

/* Through a buffer: so no two inodes are ever locked at once. */
static void on_copy(fuse_req_t req, fuse_ino_t from, off_t off_from,
		    struct fuse_file_info *fi_from, fuse_ino_t to, off_t off_to,
		    struct fuse_file_info *fi_to, size_t len, int flags)
{
	struct inode *src = node(from), *dst = node(to);
	char *buf = NULL;
	size_t end;
	int err = 0;

	(void)fi_from;
	(void)fi_to;
	(void)flags;
	pthread_rwlock_rdlock(&src->lock);
	end = (size_t)src->st.st_size;
	end = end > (size_t)off_from ? end - (size_t)off_from : 0;
	len = len < end ? len : end;
	if (len)
		buf = malloc(len);
	if (buf)
		memcpy(buf, src->data + off_from, len);
	pthread_rwlock_unlock(&src->lock);
	if (len && !buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_rwlock_wrlock(&dst->lock);
	if (len)
		err = put_bytes(dst, buf, len, (size_t)off_to);
	pthread_rwlock_unlock(&dst->lock);
	free(buf);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_write(req, len);
}

static void on_fsync(fuse_req_t req, fuse_ino_t id, int datasync,
		     struct fuse_file_info *fi)
{
	(void)id;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* ---- callbacks: attributes ---- */

static void on_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&big_lock);
	st = stat_of(node(id));
	pthread_mutex_unlock(&big_lock);
	fuse_reply_attr(req, &st, FOREVER);
}

/* big_lock */
static void set_attr(struct inode *i, const struct stat *a, int what)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE)
	    && S_ISREG(i->st.st_mode))
		i->st.st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
	if (what & FUSE_SET_ATTR_MODE)
		i->st.st_mode = (i->st.st_mode & S_IFMT) |
				(a->st_mode & 07777);
	if (what & FUSE_SET_ATTR_UID)
		i->st.st_uid = a->st_uid;
	if (what & FUSE_SET_ATTR_GID)
		i->st.st_gid = a->st_gid;
	if (what & FUSE_SET_ATTR_ATIME)
		i->st.st_atim = what & FUSE_SET_ATTR_ATIME_NOW ? now :
				a->st_atim;
	if (what & FUSE_SET_ATTR_MTIME)
		i->st.st_mtim = what & FUSE_SET_ATTR_MTIME_NOW ? now :
				a->st_mtim;
	i->st.st_ctim = what & FUSE_SET_ATTR_CTIME ? a->st_ctim : now;
}

static void on_setattr(fuse_req_t req, fuse_ino_t id, struct stat *a, int what,
		       struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	struct stat st;
	int err = 0;

	(void)fi;
	if (what & FUSE_SET_ATTR_SIZE) {
		pthread_rwlock_wrlock(&i->lock);
		err = set_size(i, (size_t)a->st_size);
		pthread_rwlock_unlock(&i->lock);
	}
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	pthread_mutex_lock(&big_lock);
	set_attr(i, a, what);
	st = stat_of(i);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_attr(req, &st, FOREVER);
}

static void on_statfs(fuse_req_t req, fuse_ino_t id)
{
	const struct statvfs st = {
		.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1u << 26,
		.f_bfree = 1u << 25, .f_bavail = 1u << 25, .f_files = 1u << 30,
		.f_ffree = 1u << 29, .f_favail = 1u << 29, .f_namemax = 255,
	};

	(void)id;
	fuse_reply_statfs(req, &st);
}

/* ---- callbacks: directories ---- */

static void on_opendir(fuse_req_t req, fuse_ino_t id,
		       struct fuse_file_info *fi)
{
	(void)id;
	if (!init.keep_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

struct listing {
	fuse_req_t req;
	bool plus;
	char *buf;
	size_t room, used;
};

/* big_lock. False: no more fits. */
static bool put_entry(struct listing *l, const char *text, struct inode *i,
		      off_t cookie, bool dot)
{
	char *at = l->buf + l->used;
	size_t room = l->room - l->used, len;
	struct fuse_entry_param e = { .attr = stat_of(i) };

	if (l->plus && !dot)
		entry_of(i, &e);
	len = l->plus ?
	      fuse_add_direntry_plus(l->req, at, room, text, &e, cookie) :
	      fuse_add_direntry(l->req, at, room, text, &i->st, cookie);
	if (len > room) {
		if (l->plus && !dot)
			i->lookups--;
		return false;
	}
	l->used += len;
	return true;
}

static void list(struct listing *l, struct inode *dir, off_t off)
{
	size_t slot = off < FIRST_COOKIE ? 0 : (size_t)(off - FIRST_COOKIE + 1);
	struct name *n;

	if (off < 1 && !put_entry(l, ".", dir, 1, true))
		return;
	if (off < 2 && !put_entry(l, "..", dir->parent, 2, true))
		return;
	for (; slot < dir->name_count; slot++) {
		n = dir->names[slot];
		if (n && !put_entry(l, n->text, n->inode,
				    (off_t)slot + FIRST_COOKIE, false))
			return;
	}
}

static void do_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		       bool plus)
{
	struct listing l = { .req = req, .plus = plus, .room = size };

	l.buf = malloc(size);
	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&big_lock);
	list(&l, node(id), off);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

static void on_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, id, size, off, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, id, size, off, true);
}

/* ---- the connection ---- */

#define WANT (FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | \
	      FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | \
	      FUSE_CAP_IOCTL_DIR | FUSE_CAP_EXPLICIT_INVAL_DATA | \
	      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | \
	      FUSE_CAP_ASYNC_DIO | FUSE_CAP_WRITEBACK_CACHE | \
	      FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | \
	      FUSE_CAP_CACHE_SYMLINKS)

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want = conn->capable & WANT;
	if (no_open)
		conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
	conn->max_write = MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
	init.keep_opendir = !(conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT);
}

/* As cowfs: libfuse before 3.17 does not know HANDLE_KILLPRIV_V2. */
static ssize_t raw_read(int fd, void *buf, size_t len, void *userdata)
{
	ssize_t got = read(fd, buf, len);
	const struct fuse_in_header *in = buf;
	const struct fuse_init_in *arg = (const void *)(in + 1);

	(void)userdata;
	if (got >= (ssize_t)(sizeof(*in) +
			     offsetof(struct fuse_init_in, flags2)) &&
	    in->opcode == FUSE_INIT) {
		init.unique = in->unique;
		init.killpriv = arg->flags & FUSE_HANDLE_KILLPRIV_V2;
	}
	return got;
}

static ssize_t raw_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out *arg;

	(void)userdata;
	if (init.unique && out->unique == init.unique) {
		init.unique = 0;
		if (!out->error && init.killpriv && count >= 2) {
			arg = iov[1].iov_base;
			arg->flags |= FUSE_HANDLE_KILLPRIV_V2;
		}
	}
	return writev(fd, iov, count);
}

/* ---- dropping what the kernel has ---- */

/* The k-th name of the root, a copy; NULL: there are not that many. */
static bool root_name(size_t k, char **copy)
{
	bool more;

	*copy = NULL;
	pthread_mutex_lock(&big_lock);
	more = k < root.name_count;
	if (more && root.names[k])
		*copy = strdup(root.names[k]->text);
	pthread_mutex_unlock(&big_lock);
	return more;
}

/* With a name all below it goes, pages included. No lock is held meanwhile:
 * the kernel may ask for something first. */
static void *drop_on_signal(void *arg)
{
	struct fuse_session *se = arg;
	char *name;
	size_t k;
	int sig;

	for (;;) {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		if (sigwait(&set, &sig))
			return NULL;
		for (k = 0; root_name(k, &name); k++) {
			if (name)
				fuse_lowlevel_notify_inval_entry(
					se, FUSE_ROOT_ID, name, strlen(name));
			free(name);
		}
		puts("dropped");
		fflush(stdout);
	}
}

static int start_dropper(struct fuse_session *se)
{
	pthread_t thread;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (pthread_create(&thread, NULL, drop_on_signal, se))
		return -1;
	return pthread_detach(thread);
}

static struct fuse_session *new_session(struct fuse_args *args)
{
	struct fuse_lowlevel_ops ops = {
		.init = on_init,
		.getattr = on_getattr,
		.setattr = on_setattr,
		.open = on_open,
		.read = on_read,
		.write = on_write,
		.fsync = on_fsync,
		.fsyncdir = on_fsync,
		.fallocate = on_fallocate,
		.copy_file_range = on_copy,
		.opendir = on_opendir,
		.readdir = on_readdir,
		.readdirplus = on_readdirplus,
		.statfs = on_statfs,
	};

	ops_names(&ops);
	return fuse_session_new(args, &ops, sizeof(ops), NULL);
}

/* Processors do not fall asleep as long as this is open (cowfs asks for that
 * while it has much to do: src/fuse/awake.c). */
static void stay_awake(void)
{
	static const int32_t none = 0;
	int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, &none, sizeof(none)) != (ssize_t)sizeof(none))
		fprintf(stderr, "memfs: processors may fall asleep: %s\n",
			strerror(errno));
}

static int serve(const char *dir, struct fuse_args *args, unsigned threads)
{
	static const struct fuse_custom_io io = {
		.read = raw_read,
		.writev = raw_writev,
	};
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	struct fuse_session *se;
	int err = 1;

	se = new_session(args);
	if (!cfg || !se || fuse_session_mount(se, dir))
		goto out;
	if (!fuse_set_signal_handlers(se) && !start_dropper(se) &&
	    !fuse_session_custom_io(se, &io, fuse_session_fd(se))) {
		fuse_loop_cfg_set_max_threads(cfg, threads);
		stay_awake();
		err = threads == 1 ? fuse_session_loop(se) :
				     fuse_session_loop_mt(se, cfg);
		err = err < 0;
	}
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
out:
	if (se)
		fuse_session_destroy(se);
	if (cfg)
		fuse_loop_cfg_destroy(cfg);
	return err;
}

int main(int argc, char **argv)
{
	static char opts[] = "fsname=memfs,subtype=memfs";
	char *fuse_argv[] = { argv[0], (char *)"-o", opts, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	unsigned threads = 8;
	int c;

	while ((c = getopt(argc, argv, "1nt:")) != -1) {
		if (c == '1')
			threads = 1;
		else if (c == 'n')
			no_open = true;
		else if (c == 't')
			threads = (unsigned)strtoul(optarg, NULL, 10);
		else
			break;
	}
	if (c != -1 || optind != argc - 1 || !threads) {
		fprintf(stderr, "usage: memfs [-1n] [-t THREADS] DIR\n");
		return 2;
	}
	mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
	if (names_init())
		return 1;
	return serve(argv[optind], &args, threads);
}
