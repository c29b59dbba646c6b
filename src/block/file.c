/*
 * file.c - a device that is an image file or a block device
 *
 *   F1  One writer or many readers: the lock belongs to the open file
 *       description, so it lives exactly as long as the device is open, and a
 *       second open in the same process is refused like any other.
 *   F2  A write that has been acknowledged and a flush that returned 0 are
 *       kept. After a flush has failed none succeeds any more: the kernel
 *       reports an error of writeback once and then takes the pages for clean
 *       (Rebello et al., "Can Applications Recover from fsync Failures?",
 *       2020), so a second fsync would say yes to data that are lost. For the
 *       same reason one is made at a time: of two the error goes to one.
 *   F3  A long write is on its way to the disk when it returns: the kernel's
 *       writeback of its own accord begins seconds later, and a flush would
 *       find it all still to be done. (32 MiB to new places of a sparse file,
 *       flush included: 57 ms; begun at once: 32 ms.) What goes wrong with it
 *       the next flush says.
 *
 * A block device is opened by writers with O_EXCL as well: the kernel then
 * refuses one that is mounted, and two names of one device.
 */
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "block/fetch.h"
#include "block/loop.h"
#include "block/past.h"
#include "cowfs/bdev.h"
#include "util/util.h"

struct file {
	struct bdev dev; /* size, readonly, name: - but for resize */
	int fd;
	bool blkdev;
	uint64_t real_size;      /* of a block device */
	struct past past;
	struct fetch *fetch;     /* NULL: not started */
	int backing;             /* file of a loop device, for its lock; -1 */
	struct mutex flushing;   /* F2 */
	atomic_bool flush_failed;
	atomic_bool no_discard; /* tried, not supported */
	atomic_bool no_dsync;   /* the same of RWF_DSYNC */
	atomic_bool no_nowait;  /* and of RWF_NOWAIT */
};

static struct file *to_file(struct bdev *dev)
{
	return container_of(dev, struct file, dev);
}

/* ---- reading and writing ---- */

static bool outside(const struct bdev *dev, uint64_t off, uint64_t len)
{
	return off > dev->size || len > dev->size - off;
}

static int file_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct file *f = to_file(dev);
	char *p = buf;
	ssize_t got;

	if (outside(dev, off, len))
		return -EIO;
	may_wait();
	while (len > 0) {
		got = pread(f->fd, p, len, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0) /* somebody made the file shorter */
			return -EIO;
		p += got;
		off += (uint64_t)got;
		len -= (size_t)got;
	}
	return 0;
}

/* Skip `done` bytes at the front. */
static void iov_advance(struct iovec **iov, int *n, size_t done)
{
	while (*n > 0 && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	if (*n > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

/* Shorter writes are better gathered by the kernel. */
#define BEGIN_BYTES (UINT64_C(128) << 10)

/* F3 */
static void begin_writeback(struct file *f, uint64_t off, uint64_t len)
{
	if (len >= BEGIN_BYTES)
		(void)sync_file_range(f->fd, (off_t)off, (off_t)len,
				      SYNC_FILE_RANGE_WRITE);
}

/* A block device that was made read-only says EPERM, which is no word about who
 * may do what; and whose quota it is that has no room left is not the concern of
 * who writes to a file here. */
static int write_error(int err)
{
	return err == EPERM ? -EROFS : err == EDQUOT ? -ENOSPC : -err;
}

static int write_iov(struct file *f, uint64_t off, struct iovec *iov, int n,
		     int flags)
{
	ssize_t put;

	iov_advance(&iov, &n, 0);
	while (n > 0) {
		put = pwritev2(f->fd, iov, n < IOV_MAX ? n : IOV_MAX,
			       (off_t)off, flags);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return write_error(errno);
		if (put == 0)
			return -EIO;
		off += (uint64_t)put;
		iov_advance(&iov, &n, (size_t)put);
	}
	return 0;
}

/* What the kernel reports here it does not report again (F2). */
static int write_iov_durable(struct file *f, uint64_t off, struct iovec *iov,
			     int n)
{
	int err;

	mutex_lock(&f->flushing);
	err = atomic_load(&f->flush_failed) ?
		      -EIO : write_iov(f, off, iov, n, RWF_DSYNC);
	if (err && err != -EOPNOTSUPP)
		atomic_store(&f->flush_failed, true);
	mutex_unlock(&f->flushing);
	return err;
}

static int write_all(struct bdev *dev, uint64_t off, struct iovec *iov, int n,
		     bool durable)
{
	struct file *f = to_file(dev);
	uint64_t len = iov_bytes(iov, n);
	int err;

	if (dev->readonly)
		return -EROFS;
	if (outside(dev, off, len))
		return -EIO;
	may_wait();
	past_writes(&f->past);
	err = durable ? write_iov_durable(f, off, iov, n)
		      : write_iov(f, off, iov, n, 0);
	if (f->fetch)
		fetch_written(f->fetch, off, len);
	return err;
}

static int file_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
		       int n)
{
	uint64_t len = iov_bytes(iov, n);
	int err = write_all(dev, off, iov, n, false);

	if (!err)
		begin_writeback(to_file(dev), off, len);
	return err;
}

static int file_flush(struct bdev *dev)
{
	struct file *f = to_file(dev);
	int err;

	if (dev->readonly)
		return 0;
	may_wait();
	mutex_lock(&f->flushing);
	do {
		err = atomic_load(&f->flush_failed) ? -EIO :
		      fdatasync(f->fd) ? -errno : 0;
	} while (err == -EINTR);
	if (err)
		atomic_store(&f->flush_failed, true);
	mutex_unlock(&f->flushing);
	return err;
}

static int file_read_now(struct bdev *dev, unsigned side, uint64_t off,
			 void *buf, size_t len)
{
	struct file *f = to_file(dev);
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	ssize_t got;

	(void)side;
	if (outside(dev, off, len))
		return -EIO;
	if (f->fetch) {
		int err = fetch_take(f->fetch, off, buf, len, false);

		if (err != -ENOENT)
			return err;
	}
	if (atomic_load_explicit(&f->no_nowait, memory_order_relaxed))
		return -EOPNOTSUPP;
	got = preadv2(f->fd, &iov, 1, (off_t)off, RWF_NOWAIT);
	if (got >= 0)
		return (size_t)got == len ? 0 : -EAGAIN;
	if (errno == EOPNOTSUPP || errno == EINVAL)
		atomic_store(&f->no_nowait, true);
	return -errno;
}

static void file_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	if (outside(dev, off, len))
		return;
	may_wait(); /* for the map of the file, or the device's queue */
	(void)posix_fadvise(to_file(dev)->fd, (off_t)off, (off_t)len,
			    POSIX_FADV_WILLNEED);
}

static void file_forget(struct bdev *dev)
{
	may_wait();
	(void)posix_fadvise(to_file(dev)->fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* So much at least is read past the host's cache: asked for, and wanted. */
#define FETCH_BYTES (UINT64_C(64) << 10)
#define PAST_BYTES (UINT64_C(512) << 10)

static void file_fetch(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct file *f = to_file(dev);

	if (len < FETCH_BYTES || outside(dev, off, len) || !f->fetch ||
	    !fetch_ask(f->fetch, off, len))
		file_ahead(dev, off, len);
}

static int file_read_past(struct bdev *dev, unsigned side, uint64_t off,
			  void *buf, size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct file *f = to_file(dev);

	(void)side;
	if (outside(dev, off, len))
		return -EIO;
	if (f->fetch && !fetch_take(f->fetch, off, buf, len, true))
		return 0;
	return len < PAST_BYTES ? -EOPNOTSUPP :
	       past_readv(&f->past, f->fd, off, &iov, 1);
}

/* No threads to fetch with: hints go to the host, as before. */
static int file_start(struct bdev *dev)
{
	struct file *f = to_file(dev);

	if (!f->fetch && fetch_open(&f->past, f->fd, dev->size, &f->fetch))
		f->fetch = NULL;
	return 0;
}

/* Of all that is dirty only these bytes are waited for (F2 holds here, too).
 * Who does not know RWF_DSYNC (a sandbox, a filter of system calls) says so
 * before anything is written. */
static int file_writev_durable(struct bdev *dev, uint64_t off,
			       struct iovec *iov, int n)
{
	struct file *f = to_file(dev);
	int err = -EOPNOTSUPP;

	if (atomic_load(&f->flush_failed))
		return -EIO;
	if (!atomic_load(&f->no_dsync))
		err = write_all(dev, off, iov, n, true);
	if (err == -EOPNOTSUPP) {
		atomic_store(&f->no_dsync, true);
		err = write_all(dev, off, iov, n, false);
		if (!err)
			err = file_flush(dev);
	}
	if (err && err != -EROFS)
		atomic_store(&f->flush_failed, true);
	return err;
}

/* Zeros for the hole that begins at `off`; its end or -1. Page by page: the
 * kernel would keep larger pieces as such, and count all of one as written
 * whenever a part of it is. */
static off_t fill_hole(int fd, off_t off, off_t end)
{
	static const uint8_t zeros[COWFS_BLOCK_SIZE];
	off_t next = lseek(fd, off, SEEK_DATA);
	ssize_t put;

	if (next < 0 && errno != ENXIO)
		return -1;
	if (next < 0 || next > end)
		next = end;
	while (off < next) {
		put = pwrite(fd, zeros, min_u64(sizeof(zeros),
						(uint64_t)(next - off)), off);
		if (put <= 0)
			return -1;
		off += put;
	}
	return off;
}

/* A durable write to a place that the file does not have yet takes the host's
 * filesystem a commit of its own: 410 us instead of 175. */
static int file_prepare(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct file *f = to_file(dev);
	off_t at = (off_t)off, end = (off_t)(off + len);

	if (dev->readonly || f->blkdev || outside(dev, off, len))
		return 0;
	may_wait();
	errno = 0;
	while (at >= 0 && at < end) {
		at = lseek(f->fd, at, SEEK_HOLE);
		if (at >= 0 && at < end)
			at = fill_hole(f->fd, at, end);
	}
	if (at < 0 && (errno == ENOSPC || errno == EDQUOT))
		return -ENOSPC;
	/* Has places found for them; waiting would take note of errors that a
	 * flush is to report. */
	(void)sync_file_range(f->fd, (off_t)off, (off_t)len,
			      SYNC_FILE_RANGE_WRITE);
	return 0;
}

static int file_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct file *f = to_file(dev);
	uint64_t range[2] = { off, len };
	int err;

	if (dev->readonly)
		return -EROFS;
	if (outside(dev, off, len))
		return -EINVAL;
	if (atomic_load(&f->no_discard))
		return -EOPNOTSUPP;
	if (len == 0)
		return 0;
	may_wait();
	do {
		if (f->blkdev)
			err = ioctl(f->fd, BLKDISCARD, range);
		else
			err = fallocate(f->fd, FALLOC_FL_PUNCH_HOLE |
					FALLOC_FL_KEEP_SIZE, (off_t)off,
					(off_t)len);
		err = err ? -errno : 0;
	} while (err == -EINTR);
	if (f->fetch)
		fetch_written(f->fetch, off, len);
	if (err == -EOPNOTSUPP || err == -ENOSYS || err == -ENOTTY)
		atomic_store(&f->no_discard, true);
	return err;
}

static int file_lost(struct bdev *dev)
{
	struct file *f = to_file(dev);
	struct stat st;
	uint64_t size;

	if (fstat(f->fd, &st))
		return -errno;
	if (!f->blkdev)
		return st.st_nlink ? 0 : -ENOENT;
	return ioctl(f->fd, BLKGETSIZE64, &size) || size < dev->size ? -ENODEV :
								     0;
}

static void file_close(struct bdev *dev)
{
	struct file *f = to_file(dev);

	/* The lock goes with the last descriptor: in a daemon's parent this
	 * leaves it to the child. No F_UNLCK, which would take it away. */
	fetch_close(f->fetch);
	past_fini(&f->past);
	mutex_fini(&f->flushing);
	close(f->fd);
	if (f->backing >= 0)
		close(f->backing);
	free((char *)(uintptr_t)dev->name);
	free(f);
}

static const struct bdev_ops file_ops = {
	.read = file_read,
	.writev = file_writev,
	.flush = file_flush,
	.ahead = file_ahead,
	.fetch = file_fetch,
	.forget = file_forget,
	.read_now = file_read_now,
	.read_past = file_read_past,
	.writev_durable = file_writev_durable,
	.prepare = file_prepare,
	.discard = file_discard,
	.lost = file_lost,
	.close = file_close,
	.start = file_start,
};

/* ---- opening ---- */

/* Not a directory, not a pipe to hang on. */
static int check_kind(const struct stat *st)
{
	if (S_ISREG(st->st_mode) || S_ISBLK(st->st_mode))
		return 0;
	return -EINVAL;
}

/* Found to be of a kind that may be opened, and no other is put in its place
 * before it is. */
static int open_found(const char *path, int at, unsigned flags, int mode)
{
	struct stat st;
	int fd, err;

	err = fstat(at, &st) ? -errno : check_kind(&st);
	if (err)
		return err;
	if (S_ISBLK(st.st_mode) && !(flags & (BDEV_READONLY | BDEV_NOLOCK)))
		mode |= O_EXCL;
	fd = open_path_fd(at, mode);
	if (fd == -ENOENT) { /* there is no /proc */
		fd = open(path, mode);
		fd = fd < 0 ? -errno : fd;
	}
	return fd;
}

static int try_open(const char *path, unsigned flags, int *fd)
{
	int mode = O_CLOEXEC | O_NOCTTY, at = open(path, O_PATH | O_CLOEXEC);

	mode |= flags & BDEV_READONLY ? O_RDONLY : O_RDWR;
	if (at >= 0) {
		*fd = open_found(path, at, flags, mode);
		close(at);
		return *fd < 0 ? *fd : 0;
	}
	if (errno != ENOENT || !(flags & BDEV_CREATE))
		return -errno;
	/* The image holds files whatever their permissions: only for its
	 * owner, unless he says otherwise. */
	*fd = open(path, mode | O_CREAT, 0600);
	return *fd < 0 ? -errno : 0;
}

/* -EBUSY: somebody else has it. */
static int try_lock(int fd, bool shared)
{
	struct flock lk = { .l_type = shared ? F_RDLCK : F_WRLCK,
			    .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lk) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return -EBUSY;
	/* some filesystems and devices know only the other kind */
	if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK ? -EBUSY : -errno;
}

/* Lock the image under its other name, too (loop.h). */
static int lock_other_name(int fd, unsigned flags, int *backing)
{
	bool shared = flags & BDEV_READONLY;
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return -errno;
	err = shared ? 0 : loop_check_unused(&st);
	if (err)
		return err;
	loop_open_backing(fd, &st, shared ? O_RDONLY : O_RDWR, backing);
	err = *backing < 0 ? 0 : try_lock(*backing, shared);
	if (err) {
		close(*backing);
		*backing = -1;
	}
	return err;
}

static int open_locked(const char *path, unsigned flags, int *out,
		       int *backing)
{
	int fd = -1, err;

	*backing = -1;
	err = try_open(path, flags, &fd);
	if (err)
		return err;
	if (!(flags & BDEV_NOLOCK)) {
		err = try_lock(fd, flags & BDEV_READONLY);
		if (!err)
			err = lock_other_name(fd, flags, backing);
		if (err) {
			close(fd);
			return err;
		}
	}
	*out = fd;
	return 0;
}

/* How long to sleep between two tries. */
#define WAIT_STEP_MS 20u

static int open_waiting(const char *path, unsigned flags, unsigned wait_ms,
			int *fd, int *backing)
{
	struct timespec step = { .tv_nsec = WAIT_STEP_MS * 1000000L };
	uint64_t begin = now_ns();
	int err;

	for (;;) {
		err = open_locked(path, flags, fd, backing);
		if (err != -EBUSY ||
		    now_ns() - begin >= wait_ms * UINT64_C(1000000))
			return err;
		nanosleep(&step, NULL);
	}
}

/* The kernel opens a write-protected device for writing all the same: nothing
 * would be heard of it before the first write fails. */
static bool write_protected(int fd)
{
	int ro = 0;

	return ioctl(fd, BLKROGET, &ro) == 0 && ro;
}

/* After the lock: its last holder may have changed the size. */
static int find_size(struct file *f)
{
	struct stat st;
	int err;

	if (fstat(f->fd, &st))
		return -errno;
	err = check_kind(&st);
	if (err)
		return err;
	f->blkdev = S_ISBLK(st.st_mode);
	if (!f->blkdev)
		f->dev.size = (uint64_t)st.st_size;
	else if (!f->dev.readonly && write_protected(f->fd))
		return -EROFS;
	else if (ioctl(f->fd, BLKGETSIZE64, &f->dev.size))
		return -errno;
	f->real_size = f->dev.size;
	return 0;
}

int bdev_open_file(const char *path, unsigned flags, unsigned wait_ms,
		   struct bdev **out)
{
	struct file *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	f->dev.ops = &file_ops;
	f->dev.readonly = flags & BDEV_READONLY;
	f->dev.name = strdup(path);
	if (!f->dev.name) {
		err = -ENOMEM;
		goto fail;
	}
	err = open_waiting(path, flags, wait_ms, &f->fd, &f->backing);
	if (err)
		goto fail;
	past_init(&f->past, f->fd);
	err = find_size(f);
	if (err) {
		if (f->backing >= 0)
			close(f->backing);
		close(f->fd);
		goto fail;
	}
	mutex_init(&f->flushing, LOCK_DEVICE_BELOW);
	*out = &f->dev;
	return 0;
fail:
	free((char *)(uintptr_t)f->dev.name);
	free(f);
	return err;
}

bool bdev_file_is(struct bdev *dev, const char *path)
{
	struct stat a, b;

	if (dev->ops != &file_ops || fstat(to_file(dev)->fd, &a) ||
	    stat(path, &b) || (a.st_mode & S_IFMT) != (b.st_mode & S_IFMT))
		return false;
	return to_file(dev)->blkdev ? a.st_rdev == b.st_rdev :
				      a.st_dev == b.st_dev &&
				      a.st_ino == b.st_ino;
}

void bdev_file_id(struct bdev *dev, struct bdev_id *out)
{
	struct stat st;

	*out = (struct bdev_id){ 0 };
	if (dev->ops != &file_ops || fstat(to_file(dev)->fd, &st))
		return;
	if (to_file(dev)->blkdev)
		out->dev = st.st_rdev;
	else
		*out = (struct bdev_id){ st.st_dev, st.st_ino };
}

int bdev_file_resize(struct bdev *dev, uint64_t size)
{
	struct file *f;
	int err;

	if (dev->ops != &file_ops)
		return -ENOTSUP;
	f = to_file(dev);
	if (dev->readonly)
		return -EROFS;
	if (size > INT64_MAX)
		return -EFBIG;
	if (f->blkdev) {
		if (size > f->real_size)
			return -ENOTSUP;
	} else {
		do {
			err = ftruncate(f->fd, (off_t)size) ? -errno : 0;
		} while (err == -EINTR);
		if (err)
			return err;
	}
	dev->size = size;
	return 0;
}
