/*
 * logdev.c - a device that records what is written, and power cuts
 */
#include <stdlib.h>
#include <string.h>

#include "support/test.h"
#include "support/testdev.h"
#include "util/util.h"

struct logdev {
	struct bdev dev;
	struct bdev *below;
	struct mutex lock;
	struct log_entry **entries; /* lock; the entries never move */
	size_t count, room;         /* lock */
};

static const struct bdev_ops log_ops;

static struct logdev *to_log(struct bdev *dev)
{
	if (dev->ops != &log_ops)
		abort(); /* the test took another device for this one */
	return container_of(dev, struct logdev, dev);
}

/* A test that runs out of memory here has no result: no error to return. */
static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void entry_free(struct log_entry *e)
{
	free(e->data);
	free(e);
}

static struct log_entry *entry_new(enum log_kind kind, uint64_t off,
				   uint64_t len)
{
	struct log_entry *e = must(calloc(1, sizeof(*e)));

	e->kind = kind;
	e->off = off;
	e->len = len;
	return e;
}

static void record(struct logdev *l, struct log_entry *e)
{
	mutex_lock(&l->lock);
	if (l->count == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->entries = must(realloc(l->entries,
					  l->room * sizeof(*l->entries)));
	}
	l->entries[l->count++] = e;
	mutex_unlock(&l->lock);
}

static void unrecord(struct logdev *l, struct log_entry *e)
{
	size_t i = 0;

	mutex_lock(&l->lock);
	while (l->entries[i] != e)
		i++;
	l->count--;
	memmove(l->entries + i, l->entries + i + 1,
		(l->count - i) * sizeof(*l->entries));
	mutex_unlock(&l->lock);
	entry_free(e);
}

static int log_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	return bdev_read(to_log(dev)->below, off, buf, len);
}

static int log_writev(struct bdev *dev, uint64_t off, struct iovec *iov, int n)
{
	struct logdev *l = to_log(dev);
	struct log_entry *e = entry_new(LOG_WRITE, off, 0);
	int i, err;

	for (i = 0; i < n; i++) {
		if (iov[i].iov_len == 0)
			continue;
		e->data = must(realloc(e->data, e->len + iov[i].iov_len));
		memcpy(e->data + e->len, iov[i].iov_base, iov[i].iov_len);
		e->len += iov[i].iov_len;
	}
	err = bdev_writev(l->below, off, iov, n);
	if (err)
		entry_free(e);
	else
		record(l, e);
	return err;
}

/* Recorded where it begins: a write that returns while it runs may not be
 * covered by it. One that fails is taken out of the count of flushes. */
static int log_flush(struct bdev *dev)
{
	struct logdev *l = to_log(dev);
	struct log_entry *e = entry_new(LOG_FLUSH, 0, 0);
	int err;

	record(l, e);
	err = bdev_flush(l->below);
	if (err)
		unrecord(l, e);
	return err;
}

/* At worst the device does no more than is asked for. */
static int log_writev_durable(struct bdev *dev, uint64_t off,
			      struct iovec *iov, int n)
{
	uint64_t len = iov_bytes(iov, n);
	int err = log_writev(dev, off, iov, n);

	if (!err)
		record(to_log(dev), entry_new(LOG_FLUSH, off, len));
	return err;
}

static int log_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct logdev *l = to_log(dev);

	bdev_discard(l->below, off, len);
	record(l, entry_new(LOG_DISCARD, off, len));
	return 0;
}

void log_reset(struct bdev *log)
{
	struct logdev *l = to_log(log);
	size_t i;

	mutex_lock(&l->lock);
	for (i = 0; i < l->count; i++)
		entry_free(l->entries[i]);
	l->count = 0;
	mutex_unlock(&l->lock);
}

static void log_close(struct bdev *dev)
{
	struct logdev *l = to_log(dev);

	log_reset(dev);
	mutex_fini(&l->lock);
	free(l->entries);
	free(l);
}

static const struct bdev_ops log_ops = {
	.read = log_read,
	.writev = log_writev,
	.flush = log_flush,
	.writev_durable = log_writev_durable,
	.discard = log_discard,
	.close = log_close,
};

int log_open(struct bdev *below, struct bdev **out)
{
	struct logdev *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->dev.ops = &log_ops;
	l->dev.size = below->size;
	l->dev.readonly = below->readonly;
	l->dev.name = "recording device";
	l->below = below;
	mutex_init(&l->lock, LOCK_DEVICE);
	*out = &l->dev;
	return 0;
}

size_t log_count(struct bdev *log)
{
	struct logdev *l = to_log(log);
	size_t n;

	mutex_lock(&l->lock);
	n = l->count;
	mutex_unlock(&l->lock);
	return n;
}

const struct log_entry *log_get(struct bdev *log, size_t i)
{
	struct logdev *l = to_log(log);
	const struct log_entry *e;

	mutex_lock(&l->lock);
	if (i >= l->count)
		abort();
	e = l->entries[i];
	mutex_unlock(&l->lock);
	return e;
}

/* ---- power cuts ---- */

static bool picked(const struct pick *p, size_t index, size_t sure)
{
	struct rng r;

	switch (p->how) {
	case PICK_NONE:
		return false;
	case PICK_ALL:
		return true;
	case PICK_ONLY:
		return index == p->which;
	case PICK_BUT:
		return index != p->which;
	case PICK_MASK:
		return p->mask >> (index - sure) % 64 & 1;
	case PICK_SEED:
		rng_init(&r, p->seed, index);
		return rng_next(&r) >> 63;
	}
	abort();
}

static int apply_sectors(const struct log_entry *e, const struct pick *pick,
			 struct bdev *to)
{
	uint64_t i, n = e->len / TEST_SECTOR;
	struct rng r;
	int err = 0;

	rng_init(&r, pick->torn_seed, 0);
	for (i = 0; i < n && !err; i++) {
		if (pick->torn_seed ? rng_next(&r) >> 63 : i >= pick->sectors)
			continue;
		err = bdev_write(to, e->off + i * TEST_SECTOR,
				 e->data + i * TEST_SECTOR, TEST_SECTOR);
	}
	return err;
}

static int apply_discard(const struct log_entry *e, struct bdev *to)
{
	static const uint8_t zero[65536];
	uint64_t done, n;
	int err = 0;

	for (done = 0; done < e->len && !err; done += n) {
		n = min_u64(sizeof(zero), e->len - done);
		err = bdev_write(to, e->off + done, zero, n);
	}
	return err;
}

int log_apply(const struct log_entry *e, size_t index, const struct pick *pick,
	      struct bdev *to)
{
	switch (e->kind) {
	case LOG_FLUSH:
		return 0;
	case LOG_DISCARD:
		return apply_discard(e, to);
	case LOG_WRITE:
		if (pick && pick->torn == index)
			return apply_sectors(e, pick, to);
		return bdev_write(to, e->off, e->data, e->len);
	}
	abort();
}

void replay_init(struct replay *r, struct bdev *log, struct bdev *base)
{
	r->log = log;
	r->base = base;
	r->done = 0;
}

static bool flushes_all(const struct log_entry *e)
{
	return e->kind == LOG_FLUSH && !e->len;
}

/* Has a flush of its own range made write i durable before the cut? */
static bool is_durable(const struct replay *r, size_t i, size_t cut)
{
	const struct log_entry *e = log_get(r->log, i), *f;

	if (e->kind != LOG_WRITE)
		return false;
	for (i++; i < cut; i++) {
		f = log_get(r->log, i);
		if (f->kind == LOG_FLUSH && f->off <= e->off &&
		    e->off + e->len <= f->off + f->len)
			return true;
	}
	return false;
}

int replay_cut(struct replay *r, size_t cut, size_t *sure)
{
	size_t i, flush = cut;
	int err;

	while (flush > r->done && !flushes_all(log_get(r->log, flush - 1)))
		flush--;
	for (i = r->done; i < flush; i++) {
		err = log_apply(log_get(r->log, i), i, NULL, r->base);
		if (err)
			return err;
		r->done = i + 1;
	}
	*sure = r->done;
	return 0;
}

int replay_state(struct replay *r, size_t cut, const struct pick *pick,
		 struct bdev **out)
{
	struct bdev *dev;
	size_t i;
	int err;

	err = overlay_open(r->base, &dev);
	if (err)
		return err;
	for (i = r->done; i < cut; i++) {
		bool sure = is_durable(r, i, cut);

		if (!sure && !picked(pick, i, r->done))
			continue;
		err = log_apply(log_get(r->log, i), i, sure ? NULL : pick, dev);
		if (err) {
			bdev_close(dev);
			return err;
		}
	}
	*out = dev;
	return 0;
}
