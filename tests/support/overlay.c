/*
 * overlay.c - a device over another that stays as it is
 *
 * What is written goes to a memory device of the same size; one bit per
 * sector tells which of the two has it. Sectors are found in pages of 64, in a
 * hash table, so that an overlay costs what was written to it.
 */
#include <stdlib.h>
#include <string.h>

#include "support/testdev.h"
#include "util/util.h"

#define SLOTS 1024u
#define PAGE_SECTORS 64u

struct mark {
	struct mark *next;
	uint64_t page;
	uint64_t mask; /* sectors that lie above */
};

struct overlay {
	struct bdev dev;
	struct bdev *below, *above;
	pthread_rwlock_t lock;
	struct mark *slots[SLOTS]; /* lock */
};

static struct overlay *to_overlay(struct bdev *dev)
{
	return container_of(dev, struct overlay, dev);
}

static struct mark **find(struct overlay *o, uint64_t page)
{
	struct mark **m = &o->slots[hash_u64(page) % SLOTS];

	while (*m && (*m)->page != page)
		m = &(*m)->next;
	return m;
}

/* The sectors of [first, first + n) that lie in its first page. */
static uint64_t page_mask(uint64_t first, uint64_t n, uint64_t *count)
{
	uint64_t in = first % PAGE_SECTORS;

	*count = min_u64(n, PAGE_SECTORS - in);
	return (*count == 64 ? UINT64_MAX : (UINT64_C(1) << *count) - 1) << in;
}

static int mark_written(struct overlay *o, uint64_t first, uint64_t n)
{
	struct mark **at, *m;
	uint64_t count, mask;

	for (; n > 0; first += count, n -= count) {
		mask = page_mask(first, n, &count);
		at = find(o, first / PAGE_SECTORS);
		if (!*at) {
			m = calloc(1, sizeof(*m));
			if (!m)
				return -ENOMEM;
			m->page = first / PAGE_SECTORS;
			*at = m;
		}
		(*at)->mask |= mask;
	}
	return 0;
}

/* Copy what lies above of one page's part of a read over what lies below. */
static int patch(struct overlay *o, uint64_t first, uint64_t count,
		 uint64_t mask, uint8_t *buf)
{
	struct mark *m = *find(o, first / PAGE_SECTORS);
	uint64_t i;
	int err = 0;

	if (!m || !(m->mask & mask))
		return 0;
	for (i = 0; i < count && !err; i++)
		if (m->mask >> (first + i) % PAGE_SECTORS & 1)
			err = bdev_read(o->above, (first + i) * TEST_SECTOR,
					buf + i * TEST_SECTOR, TEST_SECTOR);
	return err;
}

static int overlay_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct overlay *o = to_overlay(dev);
	uint64_t first = off / TEST_SECTOR, n = len / TEST_SECTOR, count, mask;
	uint8_t *p = buf;
	int err;

	if (off % TEST_SECTOR || len % TEST_SECTOR)
		return -EINVAL;
	err = bdev_read(o->below, off, buf, len);
	if (err)
		return err;
	pthread_rwlock_rdlock(&o->lock);
	for (; n > 0 && !err; first += count, n -= count) {
		mask = page_mask(first, n, &count);
		err = patch(o, first, count, mask, p);
		p += count * TEST_SECTOR;
	}
	pthread_rwlock_unlock(&o->lock);
	return err;
}

static int overlay_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			  int n)
{
	struct overlay *o = to_overlay(dev);
	uint64_t len = iov_bytes(iov, n);
	int err;

	if (off % TEST_SECTOR || len % TEST_SECTOR)
		return -EINVAL;
	pthread_rwlock_wrlock(&o->lock);
	err = bdev_writev(o->above, off, iov, n);
	if (!err)
		err = mark_written(o, off / TEST_SECTOR, len / TEST_SECTOR);
	pthread_rwlock_unlock(&o->lock);
	return err;
}

static int overlay_flush(struct bdev *dev)
{
	(void)dev;
	return 0;
}

static void overlay_close(struct bdev *dev)
{
	struct overlay *o = to_overlay(dev);
	struct mark *m, *next;
	size_t i;

	for (i = 0; i < SLOTS; i++) {
		for (m = o->slots[i]; m; m = next) {
			next = m->next;
			free(m);
		}
	}
	bdev_close(o->above);
	pthread_rwlock_destroy(&o->lock);
	free(o);
}

static const struct bdev_ops overlay_ops = {
	.read = overlay_read,
	.writev = overlay_writev,
	.flush = overlay_flush,
	.close = overlay_close,
};

int overlay_open(struct bdev *below, struct bdev **out)
{
	struct overlay *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	err = bdev_open_mem(below->size, &o->above);
	if (err) {
		free(o);
		return err;
	}
	pthread_rwlock_init(&o->lock, NULL);
	o->dev.ops = &overlay_ops;
	o->dev.size = below->size;
	o->dev.name = "overlay";
	o->below = below;
	*out = &o->dev;
	return 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
	return len == 0 || (p[0] == 0 && !memcmp(p, p + 1, len - 1));
}

int dev_copy(struct bdev *to, struct bdev *from)
{
	static const size_t step = 65536;
	uint8_t *buf = malloc(step);
	uint64_t off, len;
	int err = 0;

	if (!buf)
		return -ENOMEM;
	for (off = 0; off < from->size && !err; off += len) {
		len = min_u64(step, from->size - off);
		err = bdev_read(from, off, buf, len);
		if (!err && !all_zero(buf, len))
			err = bdev_write(to, off, buf, len);
	}
	free(buf);
	return err;
}
