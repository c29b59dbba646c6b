/*
 * mem.c - a device in memory
 *
 * Pages come into being when they are written first; what was never written
 * reads as zeros. A hash table finds them, so that a device of any size costs
 * what is on it. One lock: readers share it, a writer has it alone.
 */
#include <stdint.h>

#include "cowfs/bdev.h"
#include "util/util.h"

#define PAGE_SIZE 16384u
#define FIRST_SLOTS 256u /* a power of two */

struct page {
	struct page *next;
	uint64_t index;
	uint8_t data[PAGE_SIZE];
};

struct mem {
	struct bdev dev;
	struct rwlock lock;
	struct page **slots;  /* lock */
	size_t slot_count;    /* lock; a power of two */
	size_t pages;         /* lock */
};

static struct mem *to_mem(struct bdev *dev)
{
	return container_of(dev, struct mem, dev);
}

static struct page **slot_of(struct page **slots, size_t count, uint64_t index)
{
	return &slots[hash_u64(index) & (count - 1)];
}

/* Where the page is linked, or would be. */
static struct page **find(struct mem *m, uint64_t index)
{
	struct page **p = slot_of(m->slots, m->slot_count, index);

	while (*p && (*p)->index != index)
		p = &(*p)->next;
	return p;
}

/* Long chains are slow but right: no memory for more slots is no error. */
static void grow(struct mem *m)
{
	size_t i, count = m->slot_count * 2;
	struct page **slots = calloc(count, sizeof(struct page *));
	struct page *p, **to;

	if (!slots)
		return;
	for (i = 0; i < m->slot_count; i++) {
		while ((p = m->slots[i])) {
			m->slots[i] = p->next;
			to = slot_of(slots, count, p->index);
			p->next = *to;
			*to = p;
		}
	}
	free(m->slots);
	m->slots = slots;
	m->slot_count = count;
}

static struct page *find_or_add(struct mem *m, uint64_t index)
{
	struct page **at = find(m, index), *p = *at;

	if (p)
		return p;
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->index = index;
	*at = p;
	if (++m->pages > m->slot_count)
		grow(m);
	return p;
}

/* Bytes of [off, off+len) in its first page; where in the page they begin. */
static size_t piece(uint64_t off, uint64_t len, size_t *in)
{
	*in = off % PAGE_SIZE;
	return (size_t)min_u64(len, PAGE_SIZE - *in);
}

static bool outside(const struct bdev *dev, uint64_t off, uint64_t len)
{
	return off > dev->size || len > dev->size - off;
}

static int mem_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct mem *m = to_mem(dev);
	uint8_t *p = buf;
	const struct page *page;
	size_t n, in;

	if (outside(dev, off, len))
		return -EIO;
	rwlock_rdlock(&m->lock);
	for (; len > 0; len -= n, off += n, p += n) {
		n = piece(off, len, &in);
		page = *find(m, off / PAGE_SIZE);
		if (page)
			memcpy(p, page->data + in, n);
		else
			memset(p, 0, n);
	}
	rwlock_unlock(&m->lock);
	return 0;
}

static int write_one(struct mem *m, uint64_t off, const uint8_t *p, size_t len)
{
	struct page *page;
	size_t n, in;

	for (; len > 0; len -= n, off += n, p += n) {
		n = piece(off, len, &in);
		page = find_or_add(m, off / PAGE_SIZE);
		if (!page)
			return -ENOMEM;
		memcpy(page->data + in, p, n);
	}
	return 0;
}

static int mem_writev(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	struct mem *m = to_mem(dev);
	int i, err = 0;

	if (dev->readonly)
		return -EROFS;
	if (outside(dev, off, iov_bytes(iov, n)))
		return -EIO;
	rwlock_wrlock(&m->lock);
	for (i = 0; i < n && !err; i++) {
		err = write_one(m, off, iov[i].iov_base, iov[i].iov_len);
		off += iov[i].iov_len;
	}
	rwlock_unlock(&m->lock);
	return err;
}

static int mem_flush(struct bdev *dev)
{
	(void)dev;
	return 0;
}

static void drop_page(struct mem *m, struct page **at)
{
	struct page *p = *at;

	*at = p->next;
	free(p);
	m->pages--;
}

static int mem_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct mem *m = to_mem(dev);
	struct page **at;
	size_t in;
	uint64_t n;

	if (dev->readonly)
		return -EROFS;
	if (outside(dev, off, len))
		return -EINVAL;
	rwlock_wrlock(&m->lock);
	for (; len > 0; len -= n, off += n) {
		n = piece(off, len, &in);
		at = find(m, off / PAGE_SIZE);
		if (!*at)
			continue;
		if (n == PAGE_SIZE)
			drop_page(m, at);
		else
			memset((*at)->data + in, 0, n);
	}
	rwlock_unlock(&m->lock);
	return 0;
}

static void mem_close(struct bdev *dev)
{
	struct mem *m = to_mem(dev);
	size_t i;

	for (i = 0; i < m->slot_count; i++)
		while (m->slots[i])
			drop_page(m, &m->slots[i]);
	free(m->slots);
	rwlock_fini(&m->lock);
	free(m);
}

static const struct bdev_ops mem_ops = {
	.read = mem_read,
	.writev = mem_writev,
	.flush = mem_flush,
	.discard = mem_discard,
	.close = mem_close,
};

int bdev_open_mem(uint64_t size, struct bdev **out)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->slots = calloc(FIRST_SLOTS, sizeof(struct page *));
	if (!m->slots) {
		free(m);
		return -ENOMEM;
	}
	m->slot_count = FIRST_SLOTS;
	rwlock_init(&m->lock, LOCK_DEVICE_BELOW);
	m->dev.ops = &mem_ops;
	m->dev.size = size;
	m->dev.name = "memory";
	*out = &m->dev;
	return 0;
}
