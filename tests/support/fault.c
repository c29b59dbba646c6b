/*
 * fault.c - a device that fails as it is told to
 */
#include <stdlib.h>
#include <string.h>

#include "support/testdev.h"
#include "util/util.h"

struct armed {
	struct fault_rule rule;
	uint64_t seen, hits;
	bool active;
};

struct fault {
	struct bdev dev;
	struct bdev *below;
	struct mutex lock;
	struct armed *rules; /* lock */
	unsigned count;      /* lock */
	uint64_t ops[FAULT_OPS]; /* lock */
	uint64_t ahead;      /* lock */
};

static const struct bdev_ops fault_ops;

static struct fault *to_fault(struct bdev *dev)
{
	if (dev->ops != &fault_ops)
		abort(); /* the test took another device for this one */
	return container_of(dev, struct fault, dev);
}

static bool matches(const struct fault_rule *r, enum fault_op op, uint64_t off,
		    uint64_t len)
{
	uint64_t rlen = r->kind == FAULT_FLIP ? 1 : r->len;

	if (r->op != op)
		return false;
	if (op == FAULT_FLUSH || rlen == 0)
		return true;
	return off < r->off + rlen && r->off < off + len;
}

static bool acts(struct armed *a, enum fault_op op, uint64_t off, uint64_t len)
{
	const struct fault_rule *r = &a->rule;

	if (!a->active || !matches(r, op, off, len))
		return false;
	a->seen++;
	if (a->seen <= r->skip ||
	    (r->times && a->seen - r->skip > r->times))
		return false;
	a->hits++;
	return true;
}

/*
 * Count the operation and find what is to become of it: flips are made in
 * data (NULL: only see the others), of the rest the first rule is copied to
 * *out and true returned.
 */
static bool decide(struct fault *f, enum fault_op op, uint64_t off,
		   uint64_t len, uint8_t *data, struct fault_rule *out)
{
	bool found = false;
	unsigned i;

	mutex_lock(&f->lock);
	f->ops[op]++;
	for (i = 0; i < f->count; i++) {
		const struct fault_rule *r = &f->rules[i].rule;

		if (r->kind != FAULT_FLIP && found)
			continue;
		if (!acts(&f->rules[i], op, off, len))
			continue;
		if (r->kind == FAULT_FLIP) {
			data[r->off - off] ^= (uint8_t)(1u << r->bit);
		} else {
			*out = *r;
			found = true;
		}
	}
	mutex_unlock(&f->lock);
	return found;
}

static int fault_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct fault *f = to_fault(dev);
	struct fault_rule r;
	int err = bdev_read(f->below, off, buf, len);

	if (decide(f, FAULT_READ, off, len, buf, &r))
		return r.err;
	return err;
}

static uint8_t *flatten(const struct iovec *iov, int n, size_t *len)
{
	uint8_t *data;
	size_t at = 0;
	int i;

	*len = iov_bytes(iov, n);
	data = malloc(*len ? *len : 1);
	for (i = 0; data && i < n; i++) {
		memcpy(data + at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	return data;
}

static int fault_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			int n)
{
	struct fault *f = to_fault(dev);
	struct fault_rule r;
	uint8_t *data;
	size_t len;
	int err;

	data = flatten(iov, n, &len);
	if (!data)
		return -ENOMEM;
	if (!decide(f, FAULT_WRITE, off, len, data, &r)) {
		err = bdev_write(f->below, off, data, len);
	} else if (r.kind == FAULT_TORN) {
		len = min_u64(len, (uint64_t)r.sectors * TEST_SECTOR);
		err = bdev_write(f->below, off, data, len);
		err = err ? err : r.err;
	} else {
		err = r.err;
	}
	free(data);
	return err;
}

static int fault_flush(struct bdev *dev)
{
	struct fault *f = to_fault(dev);
	struct fault_rule r;

	if (decide(f, FAULT_FLUSH, 0, 0, NULL, &r))
		return r.err;
	return bdev_flush(f->below);
}

static void fault_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct fault *f = to_fault(dev);

	mutex_lock(&f->lock);
	f->ahead += len;
	mutex_unlock(&f->lock);
	bdev_ahead(f->below, off, len);
}

static int fault_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	bdev_discard(to_fault(dev)->below, off, len);
	return 0;
}

static void fault_close(struct bdev *dev)
{
	struct fault *f = to_fault(dev);

	mutex_fini(&f->lock);
	free(f->rules);
	free(f);
}

static const struct bdev_ops fault_ops = {
	.read = fault_read,
	.writev = fault_writev,
	.flush = fault_flush,
	.ahead = fault_ahead,
	.discard = fault_discard,
	.close = fault_close,
};

int fault_open(struct bdev *below, struct bdev **out)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->dev.ops = &fault_ops;
	f->dev.size = below->size;
	f->dev.readonly = below->readonly;
	f->dev.name = "faulty device";
	f->below = below;
	mutex_init(&f->lock, LOCK_DEVICE);
	*out = &f->dev;
	return 0;
}

/* A rule that can't be meant is a mistake in the test. */
static void check_rule(const struct fault_rule *r)
{
	bool ok = r->op < FAULT_OPS && r->bit < 8;

	if (r->kind == FAULT_ERROR)
		ok = ok && r->err < 0;
	else if (r->kind == FAULT_FLIP)
		ok = ok && r->op != FAULT_FLUSH;
	else
		ok = ok && r->op == FAULT_WRITE && r->err <= 0;
	if (!ok)
		abort();
}

unsigned fault_add(struct bdev *dev, const struct fault_rule *rule)
{
	struct fault *f = to_fault(dev);
	struct armed *rules;
	unsigned number;

	check_rule(rule);
	mutex_lock(&f->lock);
	rules = realloc(f->rules, (f->count + 1) * sizeof(*rules));
	if (!rules)
		abort();
	f->rules = rules;
	number = f->count++;
	rules[number] = (struct armed){ .rule = *rule, .active = true };
	mutex_unlock(&f->lock);
	return number;
}

uint64_t fault_hits(struct bdev *dev, unsigned rule)
{
	struct fault *f = to_fault(dev);
	uint64_t hits;

	mutex_lock(&f->lock);
	hits = rule < f->count ? f->rules[rule].hits : 0;
	mutex_unlock(&f->lock);
	return hits;
}

void fault_clear(struct bdev *dev)
{
	struct fault *f = to_fault(dev);
	unsigned i;

	mutex_lock(&f->lock);
	for (i = 0; i < f->count; i++) /* their hits can still be asked for */
		f->rules[i].active = false;
	mutex_unlock(&f->lock);
}

unsigned fault_nth(struct bdev *dev, enum fault_op op, unsigned n, int err)
{
	return fault_add(dev, &(struct fault_rule){ .op = op,
			 .kind = FAULT_ERROR, .skip = n - 1, .times = 1,
			 .err = err });
}

unsigned fault_from(struct bdev *dev, enum fault_op op, unsigned n, int err)
{
	return fault_add(dev, &(struct fault_rule){ .op = op,
			 .kind = FAULT_ERROR, .skip = n - 1, .err = err });
}

unsigned fault_range(struct bdev *dev, enum fault_op op, uint64_t off,
		     uint64_t len, int err)
{
	return fault_add(dev, &(struct fault_rule){ .op = op,
			 .kind = FAULT_ERROR, .off = off, .len = len,
			 .err = err });
}

uint64_t fault_count(struct bdev *dev, enum fault_op op)
{
	struct fault *f = to_fault(dev);
	uint64_t n;

	mutex_lock(&f->lock);
	n = f->ops[op];
	mutex_unlock(&f->lock);
	return n;
}

void flip_bit(struct bdev *dev, uint64_t off, unsigned bit)
{
	uint8_t sector[TEST_SECTOR];
	uint64_t at = off - off % TEST_SECTOR;

	if (bdev_read(dev, at, sector, sizeof(sector)))
		abort();
	sector[off % TEST_SECTOR] ^= (uint8_t)(1u << bit % 8);
	if (bdev_write(dev, at, sector, sizeof(sector)))
		abort();
}

uint64_t fault_ahead_bytes(struct bdev *dev)
{
	struct fault *f = to_fault(dev);
	uint64_t n;

	mutex_lock(&f->lock);
	n = f->ahead;
	mutex_unlock(&f->lock);
	return n;
}
