/*
 * worker.c - what a thread that serves requests has for itself
 *
 * A request is read and answered by one thread, so what the reader saw in its
 * head can wait here for the callback. It is also where a request's clock is:
 * one look at it when the request has been read, one before it is answered.
 */
#include "fuse/daemon.h"

#define PAGE 4096u

static void worker_free(void *arg)
{
	struct worker *w = arg;

	turn_pass(w);
	free(w->buf);
	free(w);
}

int worker_init(struct daemon *d)
{
	return -pthread_key_create(&d->worker_key, worker_free);
}

void worker_fini(struct daemon *d)
{
	struct worker *w = pthread_getspecific(d->worker_key);

	if (w)
		worker_free(w); /* a key's end calls no destructor */
	pthread_key_delete(d->worker_key);
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

void *worker_buf(struct daemon *d, size_t size)
{
	struct worker *w = worker_self(d);

	if (!w)
		return NULL;
	if (size > w->size || !w->buf) {
		size_t room = (size + PAGE - 1) / PAGE * PAGE;

		free(w->buf);
		w->size = 0;
		w->buf = aligned_alloc(PAGE, room ? room : PAGE);
		if (w->buf)
			w->size = room;
	}
	return w->buf;
}

bool worker_kill_priv(struct daemon *d)
{
	const struct worker *w = worker_self(d);

	/* Clearing them once too often is the safe way to fail. */
	return !w || w->kill_priv;
}
