/*
 * bdev.h - a block device behind a small vtable
 *
 * The only way cowfs reaches storage, and the only hook that tests have in the
 * product: devices stack (a fault-injecting one over a recording one over
 * memory). Offsets and lengths are in bytes, multiples of 512. Calls may come
 * from many threads at once; overlapping writes in flight together do not
 * happen.
 *
 * A device may have several *sides*, each of which holds (or is to hold) all
 * of it: a mirror. Its read gives whatever a side that can be trusted returns,
 * its writev and flush go to all sides and fail only if no such side did it.
 * Who has checksums, or writes what differs between sides, names the side.
 */
#ifndef COWFS_BDEV_H
#define COWFS_BDEV_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cowfs/error.h"

struct bdev;

/* What is to be thought of a side. A plain device has one that is GOOD. */
enum bdev_side {
	SIDE_GOOD,  /* read and written */
	SIDE_STALE, /* written; not all of what it should hold is there, so it
		       is read only if checksums vouch for the bytes */
	SIDE_GONE,  /* missing, or dropped after an error: neither, for as long
		       as the device is open */
};
#define BDEV_SIDES 2u /* at most */

struct bdev_ops {
	/* All of it or an error: 0 or -errno. Reading past the end: -EIO. */
	int (*read)(struct bdev *dev, uint64_t off, void *buf, size_t len);
	/* One contiguous range from several buffers (iov may be changed). After
	 * -ENOSPC, also for a quota, any part of the range may have been
	 * written, and it can be tried again. */
	int (*writev)(struct bdev *dev, uint64_t off, struct iovec *iov,
		      int n);
	/* All writes that returned before it are durable after it. */
	int (*flush)(struct bdev *dev);
	/* Hint: the range will be read soon. Waits for nothing; may begin to
	 * read it. NULL: ignored. */
	void (*ahead)(struct bdev *dev, uint64_t off, uint64_t len);
	/* The same of what will be read once, by read_now or read_past, which
	 * may be all that find it. NULL: as ahead. */
	void (*fetch)(struct bdev *dev, uint64_t off, uint64_t len);
	/* Hint: what the host has in memory of what is in storage as well had
	 * best be read from there the next time. NULL: ignored. */
	void (*forget)(struct bdev *dev);
	/* As read, if that needs no waiting for storage; side: 0 on a plain
	 * device. -EAGAIN if it does (some of it may be on its way after that),
	 * any other error if nobody can tell. NULL: nobody can. */
	int (*read_now)(struct bdev *dev, unsigned side, uint64_t off,
			void *buf, size_t len);
	/*
	 * As read, into a page-aligned buffer, past the cache that storage has
	 * in the host's memory: what was fetched so because of a hint, and long
	 * ranges, which are wanted once. side: 0 on a plain device. For readers
	 * who can tell whether the bytes are right. All of it or any error,
	 * which says only that it was no use to read it so: what is in that
	 * cache, say. NULL: it never is.
	 */
	int (*read_past)(struct bdev *dev, unsigned side, uint64_t off,
			 void *buf, size_t len);
	/* As writev, and durable when it returns, which says nothing about
	 * other writes. NULL: writev and flush. */
	int (*writev_durable)(struct bdev *dev, uint64_t off,
			      struct iovec *iov, int n);
	/* Hint: durable writes to the range are to come, again and again. What
	 * has contents keeps them; what never had may read as zeros after it.
	 * -ENOSPC: there is no room for them. NULL: nothing to do. */
	int (*prepare)(struct bdev *dev, uint64_t off, uint64_t len);
	/* Hint: the contents of the range are not needed. NULL: ignored. */
	int (*discard)(struct bdev *dev, uint64_t off, uint64_t len);
	/* Has what the device stands for gone, so that nobody will find what is
	 * written to it (a file that was removed, a disk that was unplugged)?
	 * -errno then. Of two sides the one that has is dropped, which is no
	 * error. NULL: that can't happen. */
	int (*lost)(struct bdev *dev);
	/* Frees dev. Flushes nothing. */
	void (*close)(struct bdev *dev);

	/* Threads may be started from now on (after a fork); NULL: needs
	 * none. */
	int (*start)(struct bdev *dev);

	/* Of devices with sides; NULL on all others. */

	/* -EIO if the side is GONE. */
	int (*read_side)(struct bdev *dev, unsigned side, uint64_t off,
			 void *buf, size_t len);
	/* After an error of its device the side is GONE, unless it was the
	 * last GOOD one. */
	int (*writev_side)(struct bdev *dev, unsigned side, uint64_t off,
			   struct iovec *iov, int n);
	/* What differs between sides, as a writev: side i gets len bytes of
	 * buf[i], if it is not NULL. */
	int (*write_each)(struct bdev *dev, uint64_t off,
			  const void *const buf[BDEV_SIDES], size_t len);
	enum bdev_side (*side_state)(struct bdev *dev, unsigned side);
	/* GOOD to STALE or back; a side that is GONE stays so. */
	void (*set_side)(struct bdev *dev, unsigned side,
			 enum bdev_side state);
	/* The GOOD side that had best be read at off, so that all are busy. */
	unsigned (*prefer)(struct bdev *dev, uint64_t off);
	/* For messages, good until the device is closed; NULL: missing. */
	const char *(*side_name)(struct bdev *dev, unsigned side);
};

struct bdev {
	const struct bdev_ops *ops;
	uint64_t size; /* bytes */
	_Atomic unsigned sides; /* 0, 1: a plain device; more may come */
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

static inline MUST_CHECK int bdev_read_now(struct bdev *dev, unsigned side,
					   uint64_t off, void *buf, size_t len)
{
	return dev->ops->read_now ?
		       dev->ops->read_now(dev, side, off, buf, len) :
		       -EOPNOTSUPP;
}

static inline void bdev_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	if (dev->ops->ahead)
		dev->ops->ahead(dev, off, len);
}

static inline void bdev_forget(struct bdev *dev)
{
	if (dev->ops->forget)
		dev->ops->forget(dev);
}

static inline void bdev_fetch(struct bdev *dev, uint64_t off, uint64_t len)
{
	if (dev->ops->fetch)
		dev->ops->fetch(dev, off, len);
	else
		bdev_ahead(dev, off, len);
}

static inline MUST_CHECK int bdev_read_past(struct bdev *dev, unsigned side,
					    uint64_t off, void *buf,
					    size_t len)
{
	return dev->ops->read_past ?
		       dev->ops->read_past(dev, side, off, buf, len) :
		       -EOPNOTSUPP;
}

static inline MUST_CHECK int bdev_writev_durable(struct bdev *dev,
						 uint64_t off,
						 struct iovec *iov, int n)
{
	int err;

	if (dev->ops->writev_durable)
		return dev->ops->writev_durable(dev, off, iov, n);
	err = dev->ops->writev(dev, off, iov, n);
	return err ? err : dev->ops->flush(dev);
}

static inline MUST_CHECK int bdev_write_durable(struct bdev *dev, uint64_t off,
						const void *buf, size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf,
			     .iov_len = len };

	return bdev_writev_durable(dev, off, &iov, 1);
}

static inline MUST_CHECK int bdev_prepare(struct bdev *dev, uint64_t off,
					  uint64_t len)
{
	return dev->ops->prepare ? dev->ops->prepare(dev, off, len) : 0;
}

static inline void bdev_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	if (dev->ops->discard)
		(void)dev->ops->discard(dev, off, len);
}

static inline MUST_CHECK int bdev_lost(struct bdev *dev)
{
	return dev->ops->lost ? dev->ops->lost(dev) : 0;
}

static inline void bdev_close(struct bdev *dev)
{
	if (dev)
		dev->ops->close(dev);
}

static inline MUST_CHECK int bdev_start(struct bdev *dev)
{
	return dev->ops->start ? dev->ops->start(dev) : 0;
}

/* ---- sides ---- */

static inline unsigned bdev_sides(const struct bdev *dev)
{
	unsigned n = dev->sides;

	return n > 1 ? n : 1;
}

static inline enum bdev_side bdev_side_state(struct bdev *dev, unsigned side)
{
	return dev->sides > 1 ? dev->ops->side_state(dev, side) : SIDE_GOOD;
}

static inline void bdev_set_side(struct bdev *dev, unsigned side,
				 enum bdev_side state)
{
	if (dev->sides > 1)
		dev->ops->set_side(dev, side, state);
}

static inline unsigned bdev_prefer(struct bdev *dev, uint64_t off)
{
	return dev->sides > 1 ? dev->ops->prefer(dev, off) : 0;
}

/* Of a side, for messages. */
static inline const char *bdev_side_name(struct bdev *dev, unsigned side)
{
	const char *name = dev->sides > 1 ? dev->ops->side_name(dev, side) :
					    dev->name;

	return name ? name : "(missing)";
}

static inline MUST_CHECK int bdev_read_side(struct bdev *dev, unsigned side,
					    uint64_t off, void *buf,
					    size_t len)
{
	return dev->sides > 1 ? dev->ops->read_side(dev, side, off, buf, len)
			      : dev->ops->read(dev, off, buf, len);
}

static inline MUST_CHECK int bdev_write_side(struct bdev *dev, unsigned side,
					     uint64_t off, const void *buf,
					     size_t len)
{
	struct iovec iov = { .iov_base = (void *)(uintptr_t)buf,
			     .iov_len = len };

	return dev->sides > 1 ? dev->ops->writev_side(dev, side, off, &iov, 1)
			      : dev->ops->writev(dev, off, &iov, 1);
}

static inline MUST_CHECK int bdev_write_each(struct bdev *dev, uint64_t off,
					     const void *const buf[BDEV_SIDES],
					     size_t len)
{
	return dev->sides > 1 ? dev->ops->write_each(dev, off, buf, len) :
	       buf[0] ? bdev_write(dev, off, buf[0], len) : 0;
}

/* Sides that are not GOOD, bit by bit. */
static inline unsigned bdev_bad_sides(struct bdev *dev)
{
	unsigned i, mask = 0;

	for (i = 0; i < bdev_sides(dev); i++)
		if (bdev_side_state(dev, i) != SIDE_GOOD)
			mask |= 1u << i;
	return mask;
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

/* Is dev what lies at path now? */
bool bdev_file_is(struct bdev *dev, const char *path);

/* Which file or block device dev is, as others on this machine see it, too; zeros:
 * it is none. */
struct bdev_id {
	uint64_t dev, ino; /* of a block device: its number, and 0 */
};
void bdev_file_id(struct bdev *dev, struct bdev_id *out);

/* Make the file behind dev exactly size bytes (sparse). -ENOTSUP on a block
 * device that is smaller. Updates dev->size. */
MUST_CHECK int bdev_file_resize(struct bdev *dev, uint64_t size);

/*
 * A mirror of two devices, which it owns from then on; one of them may be NULL:
 * that side is missing. Both are GOOD to begin with. -EINVAL, -ENOMEM: the
 * devices stay the caller's.
 */
MUST_CHECK int bdev_open_mirror(struct bdev *const side[BDEV_SIDES],
				struct bdev **out);
/* dev, which it owns, so that it can become a mirror later: a plain device until
 * something is attached. */
MUST_CHECK int bdev_open_extensible(struct bdev *dev, struct bdev **out);
/*
 * Put a device (owned after 0) on the side that is missing; it becomes STALE, and
 * the mirror no larger than it. All writes that end after this returned went to
 * it, too. Others may use the mirror meanwhile, but not attach or detach.
 * -EINVAL: no side is missing; -EROFS; -ENOMEM, -EAGAIN (threads).
 */
MUST_CHECK int bdev_mirror_attach(struct bdev *mirror, struct bdev *dev);
/* Take a side away, which is the caller's after 0 (NULL: it was missing). Others
 * may use the mirror, as above. -EBUSY: the other one is not GOOD. */
MUST_CHECK int bdev_mirror_detach(struct bdev *mirror, unsigned side,
				  struct bdev **out);

/* The side that is what lies at path, or was opened by that name. -ENOENT. */
MUST_CHECK int bdev_mirror_find(struct bdev *mirror, const char *path,
				unsigned *side);

/* A device in memory, size bytes of zeros (allocated page by page). */
MUST_CHECK int bdev_open_mem(uint64_t size, struct bdev **out);

#endif
