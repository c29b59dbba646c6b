/*
 * fetch.c - what will be read soon, fetched past the host's cache
 *
 * What is asked for ahead could be left to the host's cache, but that takes it
 * page by page, each a segment of its own in the request to the device (an SSD:
 * 480 MB/s, in one piece 1,900), and keeps it, though it is wanted once. So
 * long stretches are read by threads of our own, into *clusters* that lie
 * together in memory, and copied from there when they are wanted.
 *
 *   A1  A cluster is in one state: FREE, ASKED (in the queue), LOADING (a thread
 *       reads it, without the lock) or READY. All but FREE ones are found by
 *       their number.
 *   A2  What is taken from a READY cluster is what the device held at some
 *       moment since the last write to it ended: a write makes READY ones FREE
 *       and LOADING ones stale, which are never READY, when it has ended. (A
 *       reader who comes before that may get either; nobody may rely on it. And
 *       whoever reads through here verifies checksums, and goes to the device if
 *       they are wrong.)
 *   A3  Who copies from a cluster has marked it as used, and copies without the
 *       lock; meanwhile it stays as it is.
 *   A4  What has been taken, all of it, is FREE again: who reads on does not come
 *       back. What nobody came for is given up when others need the room, but
 *       not at once: with more readers than there is room for, the last ones
 *       go without, instead of all in vain.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "block/fetch.h"
#include "util/list.h"

#define CLUSTER ((size_t)128 << 10)
#define CLUSTERS 128u /* 16 MiB */
#define BATCH 8u      /* in one read */
#define ARENA (2 * BATCH) /* allocated at once: a huge page */
#define BUCKETS 256u
#define THREADS 2u
#define TAKE_MAX (PAST_MAX / CLUSTER + 1)
#define KEEP_NS UINT64_C(500000000)

enum state { FREE, ASKED, LOADING, READY };

struct cluster {
	struct list list;     /* of the free, asked or ready ones */
	struct cluster *next; /* in its bucket */
	uint64_t nr;          /* of the device, in clusters */
	uint64_t since;       /* now_ns() when it became READY */
	enum state state;
	unsigned users; /* A3 */
	uint32_t left;  /* bytes that nobody has taken yet */
	bool stale;     /* A2; of a used one, too: FREE after the last user */
	uint8_t *buf;
};

struct fetch {
	struct past *past;
	int fd;
	uint64_t clusters; /* of the device */
	_Atomic unsigned held; /* not FREE */
	struct mutex lock; /* all below, and the clusters */
	pthread_cond_t work, loaded;
	struct list free, asked, ready; /* ready: the oldest first */
	struct cluster *bucket[BUCKETS];
	struct cluster cluster[CLUSTERS];
	unsigned made; /* clusters that have a buffer */
	void *arena[CLUSTERS / ARENA];
	bool quit;
	unsigned threads;
	pthread_t thread[THREADS];
};

/* ---- clusters, by number ---- */

static struct cluster **bucket_of(struct fetch *f, uint64_t nr)
{
	return &f->bucket[hash_u64(nr) % BUCKETS];
}

static struct cluster *find(struct fetch *f, uint64_t nr)
{
	struct cluster *c = *bucket_of(f, nr);

	while (c && c->nr != nr)
		c = c->next;
	return c;
}

/* From no list to the free ones. */
static void let_go(struct fetch *f, struct cluster *c)
{
	struct cluster **p = bucket_of(f, c->nr);

	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	c->state = FREE;
	c->stale = false;
	list_push(&f->free, &c->list);
	atomic_fetch_sub(&f->held, 1);
}

static void give_up(struct fetch *f, struct cluster *c)
{
	if (c->users) {
		c->stale = true;
		return;
	}
	list_remove(&c->list);
	let_go(f, c);
}

static bool make_more(struct fetch *f)
{
	uint8_t *arena = f->made < CLUSTERS ?
			       aligned_alloc(ARENA * CLUSTER, ARENA * CLUSTER) :
			       NULL;

	if (!arena)
		return false;
	(void)madvise(arena, ARENA * CLUSTER, MADV_HUGEPAGE);
	f->arena[f->made / ARENA] = arena;
	for (unsigned i = 0; i < ARENA; i++) {
		struct cluster *c = &f->cluster[f->made++];

		c->buf = arena + i * CLUSTER;
		list_append(&f->free, &c->list);
	}
	return true;
}

/* A free cluster, on no list; NULL: there is none (A4). */
static struct cluster *find_room(struct fetch *f)
{
	struct cluster *c;

	if (list_empty(&f->free) && !make_more(f)) {
		if (list_empty(&f->ready))
			return NULL;
		c = list_entry(f->ready.next, struct cluster, list);
		if (c->users || now_ns() - c->since < KEEP_NS)
			return NULL;
		give_up(f, c);
	}
	c = list_entry(f->free.next, struct cluster, list);
	list_remove(&c->list);
	return c;
}

/* ---- asking ---- */

bool fetch_ask(struct fetch *f, uint64_t off, uint64_t len)
{
	uint64_t nr = off / CLUSTER, end = (off + len + CLUSTER - 1) / CLUSTER;
	struct cluster *c = NULL;

	if (!past_likely(f->past))
		return false;
	mutex_lock(&f->lock);
	for (end = min_u64(end, f->clusters); nr < end; nr++) {
		if (find(f, nr))
			continue;
		c = find_room(f);
		if (!c)
			break;
		c->nr = nr;
		c->state = ASKED;
		c->left = CLUSTER;
		c->next = *bucket_of(f, nr);
		*bucket_of(f, nr) = c;
		list_append(&f->asked, &c->list);
		atomic_fetch_add(&f->held, 1);
	}
	if (!list_empty(&f->asked))
		pthread_cond_signal(&f->work);
	mutex_unlock(&f->lock);
	return true;
}

/* ---- the threads ---- */

/* The first ones of the queue, as far as they lie together. */
static unsigned next_batch(struct fetch *f, struct cluster *batch[BATCH])
{
	struct cluster *c;
	unsigned n = 0;

	while (n < BATCH && !list_empty(&f->asked)) {
		c = list_entry(f->asked.next, struct cluster, list);
		if (n && c->nr != batch[n - 1]->nr + 1)
			break;
		list_remove(&c->list);
		c->state = LOADING;
		batch[n++] = c;
	}
	return n;
}

static int load(struct fetch *f, struct cluster *const batch[BATCH],
		unsigned n)
{
	uint64_t off = batch[0]->nr * CLUSTER;
	struct iovec iov[BATCH];
	int err;

	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec){ batch[i]->buf, CLUSTER };
	err = past_readv(f->past, f->fd, off, iov, (int)n);
	if (err == -EAGAIN) /* the rest of it had best be there, too */
		(void)posix_fadvise(f->fd, (off_t)off, (off_t)(n * CLUSTER),
				    POSIX_FADV_WILLNEED);
	return err;
}

static void settle(struct fetch *f, struct cluster *const batch[BATCH],
		   unsigned n, int err)
{
	for (unsigned i = 0; i < n; i++) {
		struct cluster *c = batch[i];

		if (err || c->stale) {
			let_go(f, c);
			continue;
		}
		c->state = READY;
		c->since = now_ns();
		list_append(&f->ready, &c->list);
	}
	pthread_cond_broadcast(&f->loaded);
}

static void *fetch_main(void *arg)
{
	struct cluster *batch[BATCH];
	struct fetch *f = arg;
	unsigned n;
	int err;

	mutex_lock(&f->lock);
	while (!f->quit) {
		n = next_batch(f, batch);
		if (!n) {
			(void)cond_wait_ms(&f->work, &f->lock, UINT64_MAX);
			continue;
		}
		if (!list_empty(&f->asked))
			pthread_cond_signal(&f->work);
		mutex_unlock(&f->lock);
		err = load(f, batch, n);
		mutex_lock(&f->lock);
		settle(f, batch, n, err);
	}
	mutex_unlock(&f->lock);
	return NULL;
}

/* ---- taking ---- */

/* Of the clusters [nr, end): LOADING if one is, READY if all are; else FREE, and
 * none is left in the queue: whoever wants them reads them himself. */
static enum state look(struct fetch *f, uint64_t nr, uint64_t end)
{
	enum state all = READY;
	struct cluster *c;
	uint64_t i;

	for (i = nr; i < end && all != FREE; i++) {
		c = find(f, i);
		if (!c || c->stale || c->state == ASKED)
			all = FREE;
		else if (c->state == LOADING)
			all = LOADING;
	}
	for (i = nr; i < end && all == FREE; i++) {
		c = find(f, i);
		if (c && c->state == ASKED)
			give_up(f, c);
	}
	return all;
}

/* [off, end) of the device, as far as it lies in c. Returns how much that is. */
static size_t copy(const struct cluster *c, uint64_t off, uint64_t end,
		   uint8_t *buf)
{
	uint64_t from = max_u64(off, c->nr * CLUSTER);
	uint64_t to = min_u64(end, (c->nr + 1) * CLUSTER);

	memcpy(buf + (from - off), c->buf + from % CLUSTER, to - from);
	return to - from;
}

/* All of the range, of clusters that are READY. */
static void take_ready(struct fetch *f, uint64_t off, uint64_t end,
		       uint8_t *buf)
{
	struct cluster *c[TAKE_MAX];
	size_t took[TAKE_MAX];
	uint64_t nr = off / CLUSTER;
	unsigned n = 0, i;

	for (; nr * CLUSTER < end; nr++) {
		c[n] = find(f, nr);
		c[n++]->users++;
	}
	mutex_unlock(&f->lock);
	for (i = 0; i < n; i++)
		took[i] = copy(c[i], off, end, buf);
	mutex_lock(&f->lock);
	for (i = 0; i < n; i++) {
		c[i]->users--;
		c[i]->left -= (uint32_t)min_u64(c[i]->left, took[i]);
		if (c[i]->stale || !c[i]->left)
			give_up(f, c[i]);
	}
}

int fetch_take(struct fetch *f, uint64_t off, void *buf, size_t len, bool wait)
{
	uint64_t nr = off / CLUSTER, end = off + len;
	uint64_t nr_end = (end + CLUSTER - 1) / CLUSTER;
	enum state s;

	if (!atomic_load_explicit(&f->held, memory_order_relaxed) || !len ||
	    nr_end - nr > TAKE_MAX)
		return -ENOENT;
	if (wait)
		may_wait();
	mutex_lock(&f->lock);
	while ((s = look(f, nr, nr_end)) == LOADING && wait)
		(void)cond_wait_ms(&f->loaded, &f->lock, UINT64_MAX);
	if (s == READY)
		take_ready(f, off, end, buf);
	mutex_unlock(&f->lock);
	return s == READY ? 0 : s == LOADING ? -EAGAIN : -ENOENT;
}

/* ---- writers ---- */

void fetch_written(struct fetch *f, uint64_t off, uint64_t len)
{
	uint64_t nr = off / CLUSTER;
	struct cluster *c;

	if (!len || !atomic_load(&f->held))
		return;
	mutex_lock(&f->lock);
	for (; nr <= (off + len - 1) / CLUSTER; nr++) {
		c = find(f, nr);
		if (c && c->state == LOADING)
			c->stale = true;
		else if (c && c->state == READY)
			give_up(f, c);
	}
	mutex_unlock(&f->lock);
}

/* ---- opening ---- */

static int start_threads(struct fetch *f)
{
	int err = 0;

	while (!err && f->threads < THREADS) {
		err = pthread_create(&f->thread[f->threads], NULL, fetch_main,
				     f);
		f->threads += !err;
	}
	return f->threads ? 0 : -err;
}

int fetch_open(struct past *past, int fd, uint64_t size, struct fetch **out)
{
	struct fetch *f = calloc(1, sizeof(*f));
	int err;

	if (!f)
		return -ENOMEM;
	f->past = past;
	f->fd = fd;
	f->clusters = size / CLUSTER;
	mutex_init(&f->lock, LOCK_DEVICE_BELOW);
	cond_init(&f->work);
	cond_init(&f->loaded);
	list_init(&f->free);
	list_init(&f->asked);
	list_init(&f->ready);
	err = start_threads(f);
	if (err)
		fetch_close(f);
	else
		*out = f;
	return err;
}

void fetch_close(struct fetch *f)
{
	unsigned i;

	if (!f)
		return;
	mutex_lock(&f->lock);
	f->quit = true;
	pthread_cond_broadcast(&f->work);
	mutex_unlock(&f->lock);
	for (i = 0; i < f->threads; i++)
		pthread_join(f->thread[i], NULL);
	for (i = 0; i < CLUSTERS / ARENA; i++)
		free(f->arena[i]);
	pthread_cond_destroy(&f->work);
	pthread_cond_destroy(&f->loaded);
	mutex_fini(&f->lock);
	free(f);
}
