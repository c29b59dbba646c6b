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
 * What takes time is waiting for storage, in a flush or a durable write: once
 * started, a thread of its own does that on the second side while the caller
 * does it on the first.
 *
 * A side may come (bdev_mirror_attach) and go (bdev_mirror_detach) while the
 * mirror is in use:
 *
 *   S4  Whoever uses sides is counted before he looks at their states
 *       (enter, leave). After the state has changed, those who were counted
 *       before are waited for; so all writes that end after a side has come go
 *       to it as well, and nobody uses one that is handed back.
 *
 * There are two counters, and newcomers are sent to the other one, or the wait
 * would never end.
 */
#include <time.h>

#include "block/helper.h"

#define STRIPE_SHIFT 20
#define IOV_PIECE 64

struct mirror {
	struct bdev dev;
	/* changed while its state is GONE and nobody looks at it (S4) */
	struct bdev *side[BDEV_SIDES];
	_Atomic int state[BDEV_SIDES]; /* enum bdev_side; changed under lock */
	char *_Atomic side_name[BDEV_SIDES]; /* NULL: there is none */
	struct mutex lock;
	_Atomic unsigned users[2];
	_Atomic unsigned turn; /* where users are counted now: its last bit */
	struct helper helper;  /* for side 1 */
	bool started;          /* -  bdev_start */
	char *name;
	char **names; /* -  those of sides that are gone: somebody may be
			 logging one */
	size_t name_count;
};

static const struct bdev_ops mirror_ops;

static struct mirror *to_mirror(struct bdev *dev)
{
	return container_of(dev, struct mirror, dev);
}

/* ---- who uses the sides (S4) ---- */

/* Whoever was held up between looking and being counted, while the turn went on,
 * counts anew: the next wait may be for the other ones. */
static unsigned enter(struct mirror *m)
{
	unsigned turn;

	for (;;) {
		turn = atomic_load(&m->turn);
		atomic_fetch_add(&m->users[turn & 1], 1);
		if (atomic_load(&m->turn) == turn)
			return turn & 1;
		atomic_fetch_sub(&m->users[turn & 1], 1);
	}
}

static void leave(struct mirror *m, unsigned turn)
{
	atomic_fetch_sub(&m->users[turn], 1);
}

/* Those who entered before now have left. One at a time. */
static void wait_for_users(struct mirror *m)
{
	const struct timespec step = { .tv_nsec = 200000 };
	unsigned turn = atomic_fetch_add(&m->turn, 1) & 1;

	while (atomic_load(&m->users[turn]))
		nanosleep(&step, NULL);
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

static const char *mirror_side_name(struct bdev *dev, unsigned side)
{
	return atomic_load(&to_mirror(dev)->side_name[side]);
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
			bdev_side_name(&m->dev, side), what, strerror(-err));
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

static int read_side(struct mirror *m, unsigned side, uint64_t off, void *buf,
		     size_t len)
{
	return usable(m, side) ? bdev_read(m->side[side], off, buf, len) : -EIO;
}

static int mirror_read_side(struct bdev *dev, unsigned side, uint64_t off,
			    void *buf, size_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m);
	int err = read_side(m, side, off, buf, len);

	leave(m, turn);
	return err;
}

static int mirror_read(struct bdev *dev, uint64_t off, void *buf, size_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m), side = mirror_prefer(dev, off);
	int err = read_side(m, side, off, buf, len);

	if (err && state_of(m, !side) == SIDE_GOOD)
		err = read_side(m, !side, off, buf, len);
	leave(m, turn);
	return err;
}

typedef int read_fn(struct bdev *dev, unsigned side, uint64_t off, void *buf,
		    size_t len);

/* What comes of it is no word about the side. */
static int try_read(struct bdev *dev, unsigned side, uint64_t off, void *buf,
		    size_t len, read_fn *how)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m);
	int err;

	if (dev->sides <= 1)
		side = mirror_prefer(dev, off);
	err = usable(m, side) ? how(m->side[side], 0, off, buf, len) : -EIO;
	leave(m, turn);
	return err;
}

static int mirror_read_now(struct bdev *dev, unsigned side, uint64_t off,
			   void *buf, size_t len)
{
	return try_read(dev, side, off, buf, len, bdev_read_now);
}

static int mirror_read_past(struct bdev *dev, unsigned side, uint64_t off,
			    void *buf, size_t len)
{
	return try_read(dev, side, off, buf, len, bdev_read_past);
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

static int mirror_write_each(struct bdev *dev, uint64_t off,
			     const void *const buf[BDEV_SIDES], size_t len)
{
	struct mirror *m = to_mirror(dev);
	struct outcome o = { 0 };
	bool failed = false;
	unsigned turn, i;
	int err;

	if (dev->readonly)
		return -EROFS;
	turn = enter(m);
	for (i = 0; i < BDEV_SIDES; i++) {
		o.did[i] = buf[i] && usable(m, i);
		if (o.did[i])
			o.err[i] = bdev_write(m->side[i], off, buf[i], len);
		failed |= o.err[i] != 0;
	}
	/* it may be for a STALE one only */
	err = failed ? settle(m, &o, "writing") : 0;
	leave(m, turn);
	return err;
}

/* A flush, or a durable write of at most IOV_PIECE buffers, on each side; on
 * both at once if there is a thread for it. */
static int make_durable(struct mirror *m, uint64_t off, const struct iovec *iov,
			int n)
{
	struct iovec copy[BDEV_SIDES][IOV_PIECE];
	struct task t[BDEV_SIDES];
	struct outcome o = { 0 };
	bool both;
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++) {
		o.did[i] = usable(m, i);
		if (iov)
			memcpy(copy[i], iov, (size_t)n * sizeof(*iov));
		t[i] = (struct task){ .dev = o.did[i] ? m->side[i] : NULL,
				      .iov = iov ? copy[i] : NULL, .n = n,
				      .off = off };
	}
	both = o.did[0] && o.did[1] && atomic_load(&m->helper.started);
	if (both)
		helper_begin(&m->helper, &t[1]);
	for (i = 0; i < BDEV_SIDES; i++)
		if (o.did[i] && !(both && i == 1))
			o.err[i] = task_run(&t[i]);
	if (both)
		o.err[1] = helper_end(&m->helper, &t[1]);
	return settle(m, &o, iov ? "writing" : "flushing");
}

static int write_pieces(struct bdev *dev, uint64_t off, struct iovec *iov,
			int n,
			int (*piece)(struct mirror *m, uint64_t off,
				     const struct iovec *iov, int n))
{
	struct mirror *m = to_mirror(dev);
	int err = dev->readonly ? -EROFS : 0, k;
	unsigned turn = enter(m);

	for (; !err && n > 0; n -= k, iov += k) {
		k = n < IOV_PIECE ? n : IOV_PIECE;
		err = piece(m, off, iov, k);
		off += iov_bytes(iov, k);
	}
	leave(m, turn);
	return err;
}

static int mirror_writev(struct bdev *dev, uint64_t off, struct iovec *iov,
			 int n)
{
	return write_pieces(dev, off, iov, n, write_piece);
}

static int mirror_writev_durable(struct bdev *dev, uint64_t off,
				 struct iovec *iov, int n)
{
	return write_pieces(dev, off, iov, n, make_durable);
}

static int mirror_flush(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m);
	int err = make_durable(m, 0, NULL, 0);

	leave(m, turn);
	return err;
}

static int mirror_writev_side(struct bdev *dev, unsigned side, uint64_t off,
			      struct iovec *iov, int n)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn;
	int err = -EIO;

	if (dev->readonly)
		return -EROFS;
	turn = enter(m);
	if (usable(m, side)) {
		err = bdev_writev(m->side[side], off, iov, n);
		if (err)
			(void)drop(m, side, err, "writing");
	}
	leave(m, turn);
	return err;
}

/* If all sides are lost none is dropped. */
static int mirror_lost(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	int err[BDEV_SIDES] = { 0 };
	unsigned turn = enter(m), i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (usable(m, i))
			err[i] = bdev_lost(m->side[i]);
	for (i = 0; i < BDEV_SIDES; i++)
		if (err[i] && !err[!i])
			err[i] = drop(m, i, err[i], "looking for it");
	leave(m, turn);
	return err[0] ? err[0] : err[1];
}

/* ---- hints ---- */

/* To the sides that will be asked. */
static void tell(struct bdev *dev, uint64_t off, uint64_t len,
		 void (*how)(struct bdev *dev, uint64_t off, uint64_t len))
{
	const uint64_t stripe = UINT64_C(1) << STRIPE_SHIFT;
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m), side;
	uint64_t n;

	for (; len > 0; len -= n, off += n) {
		n = min_u64(len, stripe - off % stripe);
		side = mirror_prefer(dev, off);
		if (usable(m, side))
			how(m->side[side], off, n);
	}
	leave(m, turn);
}

static void mirror_ahead(struct bdev *dev, uint64_t off, uint64_t len)
{
	tell(dev, off, len, bdev_ahead);
}

static void mirror_fetch(struct bdev *dev, uint64_t off, uint64_t len)
{
	tell(dev, off, len, bdev_fetch);
}

static void mirror_forget(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m), i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (usable(m, i))
			bdev_forget(m->side[i]);
	leave(m, turn);
}

/* Room on one side that is GOOD is enough, as S3 has it. */
static int mirror_prepare(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m), i;
	bool room = false;
	int err, first = 0;

	for (i = 0; i < BDEV_SIDES; i++) {
		if (!usable(m, i))
			continue;
		err = bdev_prepare(m->side[i], off, len);
		room |= !err && state_of(m, i) == SIDE_GOOD;
		first = first ? first : err;
	}
	leave(m, turn);
	return room ? 0 : first;
}

static int mirror_discard(struct bdev *dev, uint64_t off, uint64_t len)
{
	struct mirror *m = to_mirror(dev);
	unsigned turn = enter(m), i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (usable(m, i))
			bdev_discard(m->side[i], off, len);
	leave(m, turn);
	return 0;
}

/* ---- opening ---- */

/* What the side needs to be used, and a mirror of both sides. */
static int start_side(struct mirror *m, struct bdev *dev, bool both)
{
	int err = m->started ? bdev_start(dev) : 0;

	if (err || !m->started || !both || m->dev.readonly)
		return err;
	return helper_start(&m->helper);
}

static int mirror_start(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	unsigned i;
	int err = 0;

	m->started = true;
	for (i = 0; i < BDEV_SIDES && !err; i++)
		if (usable(m, i))
			err = start_side(m, m->side[i], usable(m, !i));
	return err;
}

static void mirror_free(struct mirror *m)
{
	size_t i;

	helper_fini(&m->helper);
	mutex_fini(&m->lock);
	for (i = 0; i < BDEV_SIDES; i++)
		free(atomic_load(&m->side_name[i]));
	for (i = 0; i < m->name_count; i++)
		free(m->names[i]);
	free(m->names);
	free(m->name);
	free(m);
}

static void mirror_close(struct bdev *dev)
{
	struct mirror *m = to_mirror(dev);
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		bdev_close(m->side[i]);
	mirror_free(m);
}

static const struct bdev_ops mirror_ops = {
	.read = mirror_read,
	.writev = mirror_writev,
	.flush = mirror_flush,
	.ahead = mirror_ahead,
	.fetch = mirror_fetch,
	.forget = mirror_forget,
	.read_now = mirror_read_now,
	.read_past = mirror_read_past,
	.writev_durable = mirror_writev_durable,
	.prepare = mirror_prepare,
	.discard = mirror_discard,
	.lost = mirror_lost,
	.close = mirror_close,
	.read_side = mirror_read_side,
	.writev_side = mirror_writev_side,
	.write_each = mirror_write_each,
	.side_state = mirror_state,
	.set_side = mirror_set_side,
	.prefer = mirror_prefer,
	.side_name = mirror_side_name,
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

static int take_names(struct mirror *m, struct bdev *const side[BDEV_SIDES])
{
	unsigned i;

	m->name = join_names(side);
	if (!m->name)
		return -ENOMEM;
	for (i = 0; i < BDEV_SIDES; i++) {
		if (side[i])
			m->side_name[i] = strdup(side[i]->name);
		if (side[i] && !m->side_name[i])
			return -ENOMEM;
	}
	return 0;
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
	mutex_init(&m->lock, LOCK_DEVICE);
	helper_init(&m->helper);
	if (take_names(m, side)) {
		mirror_free(m);
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
	*out = &m->dev;
	return 0;
}

int bdev_open_extensible(struct bdev *dev, struct bdev **out)
{
	struct bdev *const side[BDEV_SIDES] = { dev, NULL };
	int err = bdev_open_mirror(side, out);

	if (!err)
		(*out)->sides = 1;
	return err;
}

/* ---- sides that come and go ---- */

int bdev_mirror_attach(struct bdev *mirror, struct bdev *dev)
{
	struct mirror *m;
	char *name;
	unsigned i;
	int err;

	if (mirror->ops != &mirror_ops)
		return -EINVAL;
	m = to_mirror(mirror);
	i = m->side[0] ? 1 : 0;
	if (m->side[i])
		return -EINVAL;
	if (dev->readonly != mirror->readonly)
		return -EROFS;
	err = start_side(m, dev, true);
	if (err)
		return err;
	name = strdup(dev->name);
	if (!name)
		return -ENOMEM;
	m->side[i] = dev;
	atomic_store(&m->side_name[i], name);
	if (m->dev.size > dev->size)
		m->dev.size = dev->size;
	m->dev.sides = BDEV_SIDES;
	mutex_lock(&m->lock);
	atomic_store(&m->state[i], SIDE_STALE);
	mutex_unlock(&m->lock);
	wait_for_users(m);
	return 0;
}

int bdev_mirror_detach(struct bdev *mirror, unsigned side, struct bdev **out)
{
	struct mirror *m;
	char **names;
	int err;

	if (mirror->ops != &mirror_ops || side >= BDEV_SIDES)
		return -EINVAL;
	m = to_mirror(mirror);
	names = realloc(m->names, (m->name_count + 1) * sizeof(*names));
	if (!names)
		return -ENOMEM;
	m->names = names;
	mutex_lock(&m->lock);
	err = state_of(m, !side) == SIDE_GOOD ? 0 : -EBUSY;
	if (!err)
		atomic_store(&m->state[side], SIDE_GONE);
	mutex_unlock(&m->lock);
	if (err)
		return err;
	wait_for_users(m);
	*out = m->side[side];
	m->side[side] = NULL;
	m->names[m->name_count] = atomic_exchange(&m->side_name[side], NULL);
	m->name_count += m->names[m->name_count] != NULL;
	return 0;
}

int bdev_mirror_find(struct bdev *mirror, const char *path, unsigned *side)
{
	struct mirror *m;
	unsigned i;

	if (mirror->ops != &mirror_ops)
		return -ENOENT;
	m = to_mirror(mirror);
	for (i = 0; i < BDEV_SIDES; i++)
		if (m->side[i] && (bdev_file_is(m->side[i], path) ||
				   !strcmp(m->side[i]->name, path))) {
			*side = i;
			return 0;
		}
	return -ENOENT;
}
