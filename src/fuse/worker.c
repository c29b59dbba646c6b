/*
 * worker.c - what a thread that serves requests has for itself
 *
 * A request is read and answered by one thread, so what the reader saw in its
 * head can wait here for the callback. It is also where a request's clock is:
 * one look at it when the request has been read, one before it is answered.
 */
#include <sys/mman.h>

#include "fuse/daemon.h"

#define PAGE 4096u
#define LONG ((size_t)128 << 10)
#define HALF ((size_t)1 << 20) /* the longest requests */

/* ---- buffers ---- */

/*
 * What is read past the host's cache (block/past.c) goes into the buffer as it
 * comes from the device: in one piece, if the buffer is one in memory as a half
 * of a huge page is (MiBs, two at a time: 1050 MB/s; into pages 480). All that
 * were ever made stay in one list until the end, and are taken and given back
 * by a flag, without a lock: a thread that is cancelled does it, too.
 */
struct half {
	struct half *next;
	void *buf;
	void *whole; /* of the first of two: to be freed */
	atomic_bool taken;
};

static void half_add(struct half_list *l, struct half *h)
{
	h->next = atomic_load(&l->first);
	while (!atomic_compare_exchange_weak(&l->first, &h->next, h))
		;
}

/* Two more, of which the first is taken. */
static struct half *halves_make(struct half_list *l)
{
	struct half *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	char *whole = a && b ? aligned_alloc(2 * HALF, 2 * HALF) : NULL;

	if (!whole) {
		free(a);
		free(b);
		return NULL;
	}
	(void)madvise(whole, 2 * HALF, MADV_HUGEPAGE);
	a->buf = a->whole = whole;
	b->buf = whole + HALF;
	atomic_init(&a->taken, true);
	atomic_init(&b->taken, false);
	half_add(l, a);
	half_add(l, b);
	return a;
}

static struct half *half_get(struct half_list *l)
{
	struct half *h = atomic_load(&l->first);

	for (; h; h = h->next)
		if (!atomic_exchange(&h->taken, true))
			return h;
	return halves_make(l);
}

static void halves_free(struct half_list *l)
{
	struct half *h = atomic_load(&l->first), *next;

	for (; h; h = next) {
		next = h->next;
		free(h->whole);
		free(h);
	}
}

static void buf_free(struct worker *w)
{
	if (w->half)
		atomic_store(&w->half->taken, false);
	else
		free(w->buf);
	w->half = NULL;
	w->buf = NULL;
	w->size = 0;
}

static void *buf_make(struct daemon *d, struct worker *w, size_t room)
{
	if (room != HALF)
		return aligned_alloc(PAGE, room);
	w->half = half_get(&d->halves);
	return w->half ? w->half->buf : NULL;
}

void *worker_buf(struct daemon *d, size_t size)
{
	struct worker *w = worker_self(d);

	if (!w)
		return NULL;
	if (size > w->size || !w->buf) {
		size_t room = (max_u64(size, 1) + PAGE - 1) / PAGE * PAGE;

		if (room > LONG && room < HALF)
			room = HALF;
		buf_free(w);
		w->buf = buf_make(d, w, room);
		if (w->buf)
			w->size = room;
	}
	return w->buf;
}

/* ---- threads ---- */

static void worker_free(void *arg)
{
	struct worker *w = arg;

	turn_pass(w);
	buf_free(w);
	free(w);
}

int worker_init(struct daemon *d)
{
	int err = pthread_key_create(&d->worker_key, worker_free);

	if (err)
		return -err;
	atomic_init(&d->halves.first, NULL);
	return 0;
}

void worker_fini(struct daemon *d)
{
	struct worker *w = pthread_getspecific(d->worker_key);

	if (w)
		worker_free(w); /* a key's end calls no destructor */
	pthread_key_delete(d->worker_key);
	halves_free(&d->halves);
}

struct worker *worker_self(struct daemon *d)
{
	struct worker *w = pthread_getspecific(d->worker_key);

	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (w && pthread_setspecific(d->worker_key, w)) {
		free(w);
		w = NULL;
	}
	return w;
}

void worker_begin(struct worker *w, uint32_t opcode, uint64_t unique)
{
	w->request = (struct request){ .open = true, .opcode = opcode,
				       .unique = unique, .began = now_ns() };
}

static void finish(struct daemon *d, struct worker *w)
{
	w->request.open = false;
	requests_add(d->requests, w->request.opcode,
		     now_ns() - w->request.began);
}

void worker_answer(struct daemon *d, uint64_t unique)
{
	struct worker *w = worker_self(d);

	if (w && w->request.open && w->request.unique == unique)
		finish(d, w);
}

void worker_end(struct daemon *d)
{
	struct worker *w = worker_self(d);

	if (w)
		flight_end(d, w);
	if (w && w->request.open)
		finish(d, w);
}

struct request worker_hand_over(struct daemon *d)
{
	struct worker *w = worker_self(d);
	struct request r = { .open = false };

	if (w) {
		r = w->request;
		w->request.open = false;
	}
	return r;
}

void worker_take_over(struct daemon *d, const struct request *r)
{
	struct worker *w = worker_self(d);

	if (w)
		w->request = *r;
}

bool worker_kill_priv(struct daemon *d)
{
	const struct worker *w = worker_self(d);

	/* Clearing them once too often is the safe way to fail. */
	return !w || w->kill_priv;
}
