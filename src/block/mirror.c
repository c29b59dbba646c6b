/*
 * mirror.c - a device of two sides, each of which holds all of it
 *
 *   S1  A write or flush that returned 0 was done by at least one side that is
 *       GOOD, and by every side that still is.
 *   S2  A side that did not do what another GOOD side did is GONE from then on:
 *       nothing is read from it, nor written to it, until the device is opened
 *       again. The last GOOD side never goes: its errors are the caller's.
 *   S3  If no GOOD side did it, nothing has changed but what the range holds,
 *       and the caller gets the error (a host's filesystem that is full fails
 *       both: that drops neither).
 *
 * So a side may lack what the other acknowledged only if it is GONE, and who
 * promises durability (txn) writes down which are before he does.
 *
 * Reads: the sides take turns by address, STRIPE bytes each, so that a long
 * read keeps both busy, and what is read again comes from the same cache.
 *
 * Writes go to one side after the other: both are copies into the page cache.
 * What takes time is the flush: once started, a thread of its own flushes the
 * second side while the caller flushes the first.
 */
#include "cowfs/bdev.h"
#include "util/util.h"

#define STRIPE_SHIFT 20
#define IOV_PIECE 64

/* The thread that flushes side 1. */
struct flusher {
	pthread_t thread;
	bool started; /* -  after bdev_start */
	struct mutex lock;
	pthread_cond_t wake, done;
	bool quit;               /* lock */
	uint64_t asked, began, ended; /* lock  flushes, counted: all up to
					 `began` are in one or done */
	int err;                 /* lock  the first there was: it is not a
				    later success that another waiter sees */
};

struct mirror {
	struct bdev dev;
	struct bdev *side[BDEV_SIDES]; /* -  but for bdev_mirror_attach */
	_Atomic int state[BDEV_SIDES]; /* enum bdev_side; changed under lock */
	struct mutex lock;
	struct flusher flusher;
	char *name;
};

static const struct bdev_ops mirror_ops;

static struct mirror *to_mirror(struct bdev *dev)
{
	return container_of(dev, struct mirror, dev);
}

/* ---- states ---- */

static enum bdev_side state_of(struct mirror *m, unsigned side)
{
	return (enum bdev_side)atomic_load(&m->state[side]);
}

static bool usable(struct mirror *m, unsigned side)
{
	return state_of(m, side) != SIDE_GONE;
}

static enum bdev_side mirror_state(struct bdev *dev, unsigned side)
{
	return state_of(to_mirror(dev), side);
}

static void mirror_set_side(struct bdev *dev, unsigned side,
			    enum bdev_side state)
{
	struct mirror *m = to_mirror(dev);

	mutex_lock(&m->lock);
	if (usable(m, side))
		atomic_store(&m->state[side], state);
	mutex_unlock(&m->lock);
}

static struct bdev *mirror_side_dev(struct bdev *dev, unsigned side)
{
	return to_mirror(dev)->side[side];
}

/* S2: side failed at what another did. 0: it is GONE; err: it can't be spared,
 * which may have become true a moment ago. */
static int drop(struct mirror *m, unsigned side, int err, const char *what)
{
	unsigned i, others = 0;
	bool news;

	mutex_lock(&m->lock);
	for (i = 0; i < BDEV_SIDES; i++)
		others += i != side && state_of(m, i) == SIDE_GOOD;
	news = others && usable(m, side);
	if (others)
		atomic_store(&m->state[side], SIDE_GONE);
	mutex_unlock(&m->lock);
	if (news)
		log_msg(LOG_LVL_ERROR, "%s: %s failed (%s): dropped from the "
			"mirror, which goes on without it",
			m->side[side]->name, what, strerror(-err));
	return others ? 0 : err;
}

/* What each side made of the same thing. */
struct outcome {
	bool did[BDEV_SIDES];
	int err[BDEV_SIDES];
};

/* S1 to S3. */
static int settle(struct mirror *m, const struct outcome *o, const char *what)
{
	int first = -EIO, err = 0;
	bool good = false;
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++) {
		good |= o->did[i] && !o->err[i] &&
			state_of(m, i) == SIDE_GOOD;
		if (o->did[i] && o->err[i])
			first = o->err[i];
	}
	if (!good)
		return first;
	for (i = 0; i < BDEV_SIDES && !err; i++)
		if (o->did[i] && o->err[i])
			err = drop(m, i, o->err[i], what);
	return err;
}

/* ---- reading ---- */

static unsigned mirror_prefer(struct bdev *dev, uint64_t off)
{
	struct mirror *m = to_mirror(dev);
	unsigned side = off >> STRIPE_SHIFT & 1;

	return state_of(m, side) == SIDE_GOOD ? side : !side;
}

static int mirror_read_side(struct bdev *dev, unsigned side, uint64_t off,
			    void *buf, size_t len)
{
	struct mirror *m = to_mirror(dev);

	return usable(m, side) ? bdev_read(m->side[side], off, buf, len) : -EIO;
}

static int mirror_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned side = mirror_prefer(dev, off);
	int err = mirror_read_side(dev, side, off, buf, len);

	if (err && state_of(m, !side) == SIDE_GOOD)
		err = mirror_read_side(dev, !side, off, buf, len);
	return err;
}

/* ---- writing ---- */

static int write_piece(struct mirror *m, uint64_t off, const struct iovec *iov,
		       int n)
{
	struct iovec copy[IOV_PIECE];
	struct outcome o = { 0 };
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++) {
		if (!usable(m, i))
			continue;
		memcpy(copy, iov, (size_t)n * sizeof(*iov));
		o.did[i] = true;
		o.err[i] = bdev_writev(m->side[i], off, copy, n);
	}
	return settle(m, &o, "writing");
}

static int mirror_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			 int n)
{
	struct mirror *m = to_mirror(dev);
	int err = dev->readonly ? -EROFS : 0, k;

	for (; !err && n > 0; n -= k, iov += k) {
		k = n < IOV_PIECE ? n : IOV_PIECE;
		err = write_piece(m, off, iov, k);
		off += iov_bytes(iov, k);
	}
	return err;
}

static int mirror_writev_side(struct bdev *dev, unsigned side, uint64_t off,
			      struct iovec *iov, int n)
{
	struct mirror *m = to_mirror(dev);
	int err;

	if (dev->readonly)
		return -EROFS;
	if (!usable(m, side))
		return -EIO;
	err = bdev_writev(m->side[side], off, iov, n);
	if (err)
		(void)drop(m, side, err, "writing");
	return err;
}

static bool mirror_absent(struct bdev *dev, uint64_t off)
{
	struct mirror *m = to_mirror(dev);
	unsigned side = mirror_prefer(dev, off);

	return usable(m, side) && bdev_absent(m->side[side], off);
}

/* To the sides that will be asked. */
static void mirror_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	const uint64_t stripe = UINT64_C(1) << STRIPE_SHIFT;
	struct mirror *m = to_mirror(dev);
	uint64_t n;

	for (; len > 0; len -= n, off += n) {
		n = min_u64(len, stripe - off % stripe);
		bdev_ahead(m->side[mirror_prefer(dev, off)], off, n);
	}
}

static int mirror_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (usable(m, i))
			bdev_discard(m->side[i], off, len);
	return 0;
}

/* ---- flushing ---- */

static void *flusher_main(void *arg)
{
	struct mirror *m = arg;
	struct flusher *f = &m->flusher;
	int err;

	mutex_lock(&f->lock);
	while (!f->quit) {
		if (f->asked == f->began) {
			(void)cond_wait_ms(&f->wake, &f->lock, UINT64_MAX);
			continue;
		}
		f->began = f->asked;
		mutex_unlock(&f->lock);
		err = bdev_flush(m->side[1]);
		mutex_lock(&f->lock);
		f->ended = f->began;
		f->err = f->err ? f->err : err;
		pthread_cond_broadcast(&f->done);
	}
	mutex_unlock(&f->lock);
	return NULL;
}

/* Have side 1 flushed; what to wait for. */
static uint64_t flusher_ask(struct flusher *f)
{
	uint64_t n;

	mutex_lock(&f->lock);
	n = ++f->asked;
	pthread_cond_signal(&f->wake);
	mutex_unlock(&f->lock);
	return n;
}

/* A flush that began after the n-th was asked for has ended. */
static int flusher_wait(struct flusher *f, uint64_t n)
{
	int err;

	mutex_lock(&f->lock);
	while (f->ended < n)
		(void)cond_wait_ms(&f->done, &f->lock, UINT64_MAX);
	err = f->err;
	mutex_unlock(&f->lock);
	return err;
}

static int mirror_flush(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	struct outcome o = { 0 };
	uint64_t asked = 0;
	bool both;
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		o.did[i] = usable(m, i);
	both = m->flusher.started && o.did[0] && o.did[1];
	if (both)
		asked = flusher_ask(&m->flusher);
	for (i = 0; i < BDEV_SIDES; i++)
		if (o.did[i] && !(both && i == 1))
			o.err[i] = bdev_flush(m->side[i]);
	if (both)
		o.err[1] = flusher_wait(&m->flusher, asked);
	return settle(m, &o, "flushing");
}

static int mirror_start(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	struct flusher *f = &m->flusher;
	int err;

	if (f->started || dev->readonly || !usable(m, 0) || !usable(m, 1))
		return 0;
	err = pthread_create(&f->thread, NULL, flusher_main, m);
	f->started = !err;
	return -err;
}

static void flusher_stop(struct flusher *f)
{
	if (!f->started)
		return;
	mutex_lock(&f->lock);
	f->quit = true;
	pthread_cond_signal(&f->wake);
	mutex_unlock(&f->lock);
	pthread_join(f->thread, NULL);
}

/* ---- opening ---- */

static void mirror_free(struct mirror *m)
{
	pthread_cond_destroy(&m->flusher.wake);
	pthread_cond_destroy(&m->flusher.done);
	mutex_fini(&m->flusher.lock);
	mutex_fini(&m->lock);
	free(m->name);
	free(m);
}

static void mirror_close(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	unsigned i;

	flusher_stop(&m->flusher);
	for (i = 0; i < BDEV_SIDES; i++)
		bdev_close(m->side[i]);
	mirror_free(m);
}

static const struct bdev_ops mirror_ops = {
	.read = mirror_read,
	.writev = mirror_writev,
	.flush = mirror_flush,
	.ahead = mirror_ahead,
	.absent = mirror_absent,
	.discard = mirror_discard,
	.close = mirror_close,
	.read_side = mirror_read_side,
	.writev_side = mirror_writev_side,
	.side_state = mirror_state,
	.set_side = mirror_set_side,
	.prefer = mirror_prefer,
	.side_dev = mirror_side_dev,
	.start = mirror_start,
};

/* "a.img+b.img"; of one side its name. */
static char *join_names(struct bdev *const side[BDEV_SIDES])
{
	const char *a = side[0] ? side[0]->name : "";
	const char *b = side[1] ? side[1]->name : "";
	size_t len = strlen(a) + strlen(b) + 2;
	char *name = malloc(len);

	if (name) {
		strcpy(name, a);
		strcat(name, *a && *b ? "+" : "");
		strcat(name, b);
	}
	return name;
}

int bdev_open_mirror(struct bdev *const side[BDEV_SIDES], struct bdev **out)
{
	struct mirror *m;
	unsigned i;

	if (!side[0] && !side[1])
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->name = join_names(side);
	if (!m->name) {
		free(m);
		return -ENOMEM;
	}
	m->dev = (struct bdev){ .ops = &mirror_ops, .sides = BDEV_SIDES,
				.size = UINT64_MAX, .name = m->name };
	for (i = 0; i < BDEV_SIDES; i++) {
		m->side[i] = side[i];
		atomic_store(&m->state[i], side[i] ? SIDE_GOOD : SIDE_GONE);
		if (!side[i])
			continue;
		m->dev.size = min_u64(m->dev.size, side[i]->size);
		m->dev.readonly |= side[i]->readonly;
	}
	mutex_init(&m->lock, LOCK_DEVICE);
	mutex_init(&m->flusher.lock, LOCK_DEVICE);
	cond_init(&m->flusher.wake);
	cond_init(&m->flusher.done);
	*out = &m->dev;
	return 0;
}

int bdev_mirror_attach(struct bdev *mirror, struct bdev *dev)
{
	struct mirror *m;
	unsigned i;

	if (mirror->ops != &mirror_ops)
		return -EINVAL;
	m = to_mirror(mirror);
	i = m->side[0] ? 1 : 0;
	if (m->side[i])
		return -EINVAL;
	m->side[i] = dev;
	m->dev.readonly |= dev->readonly;
	m->dev.size = min_u64(m->dev.size, dev->size);
	atomic_store(&m->state[i], SIDE_STALE);
	return 0;
}
