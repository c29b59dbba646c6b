/*
 * helper.c - a thread that does one thing while its caller does another
 */
#include "block/helper.h"

int task_run(const struct task *t)
{
	return t->iov ? bdev_writev_durable(t->dev, t->off, t->iov, t->n) :
			bdev_flush(t->dev);
}

static void *helper_main(void *arg)
{
	struct helper *h = arg;
	struct task *t;
	int err;

	mutex_lock(&h->lock);
	while (!h->quit) {
		if (list_empty(&h->tasks)) {
			(void)cond_wait_ms(&h->wake, &h->lock, UINT64_MAX);
			continue;
		}
		t = list_entry(h->tasks.next, struct task, list);
		list_remove(&t->list);
		mutex_unlock(&h->lock);
		err = task_run(t);
		mutex_lock(&h->lock);
		t->err = err;
		t->ended = true;
		pthread_cond_broadcast(&h->done);
	}
	mutex_unlock(&h->lock);
	return NULL;
}

void helper_init(struct helper *h)
{
	mutex_init(&h->lock, LOCK_DEVICE);
	cond_init(&h->wake);
	cond_init(&h->done);
	list_init(&h->tasks);
}

int helper_start(struct helper *h)
{
	int err;

	if (atomic_load(&h->started))
		return 0;
	err = pthread_create(&h->thread, NULL, helper_main, h);
	if (!err)
		atomic_store(&h->started, true);
	return -err;
}

void helper_fini(struct helper *h)
{
	if (atomic_load(&h->started)) {
		mutex_lock(&h->lock);
		h->quit = true;
		pthread_cond_signal(&h->wake);
		mutex_unlock(&h->lock);
		pthread_join(h->thread, NULL);
	}
	pthread_cond_destroy(&h->wake);
	pthread_cond_destroy(&h->done);
	mutex_fini(&h->lock);
}

void helper_begin(struct helper *h, struct task *t)
{
	t->ended = false;
	mutex_lock(&h->lock);
	list_append(&h->tasks, &t->list);
	pthread_cond_signal(&h->wake);
	mutex_unlock(&h->lock);
}

int helper_end(struct helper *h, struct task *t)
{
	int err;

	mutex_lock(&h->lock);
	while (!t->ended)
		(void)cond_wait_ms(&h->done, &h->lock, UINT64_MAX);
	err = t->err;
	mutex_unlock(&h->lock);
	return err;
}
