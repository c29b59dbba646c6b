/*
 * bdev.h - a block device behind a small vtable
 *
 * The only way cowfs reaches storage, and the only hook that tests have in the
 * product: devices stack (a fault-injecting one over a recording one over
 * memory). Offsets and lengths are in bytes, multiples of 512. Calls may come
 * from many threads at once; overlapping writes in flight together do not
 * happen.
 */
#ifndef COWFS_BDEV_H
#define COWFS_BDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cowfs/error.h"

struct bdev;

struct bdev_ops {
	/* All of it or an error: 0 or -errno. Reading past the end: -EIO. */
	int (*read)(struct bdev *dev, uint64_t off, void *buf, size_t len);
	/* One contiguous range from several buffers (iov may be changed). */
	int (*writev)(struct bdev *dev, uint64_t off, struct iovec *iov,
		      int n);
	/* All writes that returned before it are durable after it. */
	int (*flush)(struct bdev *dev);
	/* Hint: the contents of the range are not needed. NULL: ignored. */
	int (*discard)(struct bdev *dev, uint64_t off, uint64_t len);
	/* Frees dev. Flushes nothing. */
	void (*close)(struct bdev *dev);
};

struct bdev {
	const struct bdev_ops *ops;
	uint64_t size; /* bytes */
	bool readonly;
	const char *name; /* for messages; owned by the device */
};

static inline MUST_CHECK int bdev_read(struct bdev *dev, uint64_t off,
				       void *buf, size_t len)
{
	return dev->ops->read(dev, off, buf, len);
}

static inline MUST_CHECK int bdev_writev(struct bdev *dev, uint64_t off,
					 struct iovec *iov, int n)
{
	return dev->ops->writev(dev, off, iov, n);
}

static inline MUST_CHECK int bdev_write(struct bdev *dev, uint64_t off,
					const void *buf, size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf,
			     .iov_len = len };

	return dev->ops->writev(dev, off, &iov, 1);
}

static inline MUST_CHECK int bdev_flush(struct bdev *dev)
{
	return dev->ops->flush(dev);
}

static inline void bdev_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	if (dev->ops->discard)
		(void)dev->ops->discard(dev, off, len);
}

static inline void bdev_close(struct bdev *dev)
{
	if (dev)
		dev->ops->close(dev);
}

enum bdev_flags {
	BDEV_READONLY = 1, /* shared lock; writes give -EROFS */
	BDEV_CREATE = 2,   /* create the file if there is none */
	BDEV_NOLOCK = 4,   /* take no lock (a look at a mounted image) */
};

/*
 * Open an image file or block device and lock it (flock-like, of the open file
 * description: an exclusive lock, shared if BDEV_READONLY).
 * wait_ms: how long to wait for another holder before -EBUSY.
 * -ENOENT, -EACCES, -EBUSY, -EINVAL (neither file nor block device), ...
 */
MUST_CHECK int bdev_open_file(const char *path, unsigned flags,
			      unsigned wait_ms, struct bdev **out);

/* Make the file behind dev exactly size bytes (sparse). -ENOTSUP on a block
 * device that is smaller. Updates dev->size. */
MUST_CHECK int bdev_file_resize(struct bdev *dev, uint64_t size);

/* A device in memory, size bytes of zeros (allocated page by page). */
MUST_CHECK int bdev_open_mem(uint64_t size, struct bdev **out);

#endif
