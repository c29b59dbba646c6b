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
 * of a huge page is (MiBs, two at a time: 1050 MB/s; into pages 480). Halves
 * that no thread has wait on a list, in themselves, until the end.
 */
static void *half_get(struct daemon *d)
{
	struct half_list *h = &d->halves;
	struct list *l;
	char *whole;

	mutex_lock(&h->lock);
	if (list_empty(&h->unused)) {
		whole = aligned_alloc(2 * HALF, 2 * HALF);
		if (!whole) {
			mutex_unlock(&h->lock);
			return NULL;
		}
		(void)madvise(whole, 2 * HALF, MADV_HUGEPAGE);
		list_append(&h->unused, (void *)whole);
		list_append(&h->unused, (void *)(whole + HALF));
	}
	l = h->unused.next;
	list_remove(l);
	mutex_unlock(&h->lock);
	return l;
}

static void half_put(struct daemon *d, void *half)
{
	mutex_lock(&d->halves.lock);
	list_push(&d->halves.unused, half);
	mutex_unlock(&d->halves.lock);
}

static bool is_first(const struct list *l)
{
	return (uintptr_t)l % (2 * HALF) == 0;
}

static void halves_free(struct half_list *h)
{
	struct list *l, *tmp;

	list_for_each_safe(l, tmp, &h->unused)
		if (!is_first(l))
			list_remove(l);
	list_for_each_safe(l, tmp, &h->unused)
		free(l);
	mutex_fini(&h->lock);
}

static void buf_free(struct worker *w)
{
	if (w->size == HALF)
		half_put(w->daemon, w->buf);
	else
		free(w->buf);
	w->buf = NULL;
	w->size = 0;
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
		w->buf = room == HALF ? half_get(d) :
					aligned_alloc(PAGE, room);
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
	mutex_init(&d->halves.lock, LOCK_LEAF);
	list_init(&d->halves.unused);
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
	if (w)
		w->daemon = d;
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
