/*
 * flatdev.c - a device in one piece of memory, quickly made good
 *
 * A fuzzer runs on the same few images thousands of times: only the blocks
 * that were written since are copied back. For one thread.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz/hostile.h"

struct flat {
	struct bdev dev;
	uint8_t *bytes;
	uint8_t *dirty; /* a byte per block */
};

static uint64_t written;

static struct flat *to_flat(const struct bdev *dev)
{
	return (struct flat *)(uintptr_t)dev;
}

static int in_range(const struct flat *f, uint64_t off, uint64_t len)
{
	return off <= f->dev.size && len <= f->dev.size - off ? 0 : -EIO;
}

static int flat_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct flat *f = to_flat(dev);
	int err = in_range(f, off, len);

	if (!err)
		memcpy(buf, f->bytes + off, len);
	return err;
}

static void soil(struct flat *f, uint64_t off, uint64_t len)
{
	uint64_t first = off / COWFS_BLOCK_SIZE;

	if (len)
		memset(f->dirty + first, 1,
		       (off + len - 1) / COWFS_BLOCK_SIZE - first + 1);
}

static int flat_writev(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	struct flat *f = to_flat(dev);
	uint64_t len = 0;
	int i, err;

	for (i = 0; i < n; i++)
		len += iov[i].iov_len;
	err = in_range(f, off, len);
	if (err)
		return err;
	soil(f, off, len);
	written++;
	for (i = 0; i < n; i++) {
		memcpy(f->bytes + off, iov[i].iov_base, iov[i].iov_len);
		off += iov[i].iov_len;
	}
	return 0;
}

static int flat_flush(struct bdev *dev)
{
	(void)dev;
	return 0;
}

static void flat_close(struct bdev *dev)
{
	struct flat *f = to_flat(dev);

	free(f->bytes);
	free(f->dirty);
	free(f);
}

int flat_open(uint64_t blocks, struct bdev **out)
{
	static const struct bdev_ops ops = {
		.read = flat_read,
		.writev = flat_writev,
		.flush = flat_flush,
		.close = flat_close,
	};
	struct flat *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->dev = (struct bdev){ .ops = &ops,
				.size = blocks * COWFS_BLOCK_SIZE,
				.name = "flat" };
	f->bytes = calloc(blocks, COWFS_BLOCK_SIZE);
	f->dirty = calloc(blocks, 1);
	if (!f->bytes || !f->dirty) {
		flat_close(&f->dev);
		return -ENOMEM;
	}
	*out = &f->dev;
	return 0;
}

/* ---- the same in disguise ---- */

struct shared {
	struct bdev dev;
	struct bdev *flat;
};

static struct bdev *to_shared(struct bdev *dev)
{
	return ((struct shared *)dev)->flat;
}

static int shared_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(to_shared(dev), off, buf, len);
}

static int shared_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			 int n)
{
	return bdev_writev(to_shared(dev), off, iov, n);
}

static void shared_close(struct bdev *dev)
{
	free(dev);
}

int flat_share(struct bdev *flat, struct bdev **out)
{
	static const struct bdev_ops ops = {
		.read = shared_read,
		.writev = shared_writev,
		.flush = flat_flush,
		.close = shared_close,
	};
	struct shared *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->dev = (struct bdev){ .ops = &ops, .size = flat->size,
				.name = "shared" };
	s->flat = flat;
	*out = &s->dev;
	return 0;
}

uint64_t flat_written(void)
{
	return written;
}

/* ---- behind its back ---- */

const uint8_t *flat_bytes(const struct bdev *dev)
{
	return to_flat(dev)->bytes;
}

uint8_t *flat_edit(struct bdev *dev, uint64_t blk, uint64_t n)
{
	struct flat *f = to_flat(dev);

	soil(f, blk * COWFS_BLOCK_SIZE, n * COWFS_BLOCK_SIZE);
	return f->bytes + blk * COWFS_BLOCK_SIZE;
}

void flat_reset(struct bdev *dev, const uint8_t *from)
{
	struct flat *f = to_flat(dev);
	uint64_t i, n = dev->size / COWFS_BLOCK_SIZE;

	for (i = 0; i < n; i++) {
		if (!f->dirty[i])
			continue;
		f->dirty[i] = 0;
		memcpy(f->bytes + i * COWFS_BLOCK_SIZE,
		       from + i * COWFS_BLOCK_SIZE, COWFS_BLOCK_SIZE);
	}
}

static bool is_super(uint64_t blk, uint64_t blocks)
{
	return blk < COWFS_FIRST_BLOCK || blk >= blocks - COWFS_SUPER_SLOTS;
}

void flat_copy(struct bdev *to, struct bdev *from)
{
	struct flat *f = to_flat(from);
	uint64_t i, n = from->size / COWFS_BLOCK_SIZE;

	for (i = 0; i < n; i++)
		if (f->dirty[i] && !is_super(i, n))
			memcpy(flat_edit(to, i, 1),
			       f->bytes + i * COWFS_BLOCK_SIZE,
			       COWFS_BLOCK_SIZE);
}
