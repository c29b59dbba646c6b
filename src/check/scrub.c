/*
 * scrub.c - scrub as a background job of a mounted filesystem
 *
 * One thread at a time walks everything that the newest durable state names and
 * mends what it can; others ask how far it is, or cancel it.
 *
 * One lock guards all fields; the thread holds it only to note its progress.
 */
#include <stdio.h>

#include "check/private.h"

#define LINES_MAX 10000u /* damage lines kept; more are counted only */

struct scrub {
	struct store *s;
	struct mutex lock;
	pthread_t thread;
	bool joinable; /* thread is there, perhaps ended */
	bool cancel;
	uint64_t began;
	struct scrub_status st;
	struct array lines; /* of 256 bytes */
	size_t found;
};

int scrub_new(struct store *s, struct scrub **out)
{
	struct scrub *sc = calloc(1, sizeof(*sc));

	if (!sc)
		return -ENOMEM;
	sc->s = s;
	mutex_init(&sc->lock, LOCK_LEAF);
	*out = sc;
	return 0;
}

static void note_found(void *arg, enum problem p, const char *where)
{
	struct scrub *sc = arg;
	char *line = NULL;

	mutex_lock(&sc->lock);
	sc->found++;
	if (sc->lines.n < LINES_MAX)
		line = array_add(&sc->lines, 256);
	if (line)
		snprintf(line, 256, "%s: %s", problem_name(p), where);
	mutex_unlock(&sc->lock);
	log_msg(LOG_LVL_WARN, "scrub: %s: %s", problem_name(p), where);
}

static int note_progress(void *arg, uint64_t done, uint64_t total)
{
	struct scrub *sc = arg;
	bool cancel;

	mutex_lock(&sc->lock);
	sc->st.done = done;
	sc->st.total = total;
	sc->st.ns = now_ns() - sc->began;
	cancel = sc->cancel;
	mutex_unlock(&sc->lock);
	return cancel;
}

static void *run(void *arg)
{
	struct scrub *sc = arg;
	struct check_options opt = { .data = true, .mend = true,
				     .found = note_found,
				     .progress = note_progress, .arg = sc };
	struct check_result res = { 0 };
	int err = check_run(sc->s, &opt, &res);

	mutex_lock(&sc->lock);
	sc->st.running = false;
	sc->st.finished = !err;
	sc->st.cancelled = err == -ECANCELED;
	sc->st.error = err == -ECANCELED ? 0 : err;
	sc->st.ns = now_ns() - sc->began;
	sc->st.result = res;
	if (!err)
		sc->st.done = sc->st.total;
	mutex_unlock(&sc->lock);
	return NULL;
}

/* The thread before this one has ended or is about to. */
static void join(struct scrub *sc)
{
	if (sc->joinable)
		pthread_join(sc->thread, NULL);
	sc->joinable = false;
}

int scrub_start(struct scrub *sc)
{
	int err = 0;

	mutex_lock(&sc->lock);
	if (sc->st.running) {
		mutex_unlock(&sc->lock);
		return -EBUSY;
	}
	join(sc); /* it does not take the lock any more */
	sc->st = (struct scrub_status){ .running = true };
	sc->cancel = false;
	sc->found = 0;
	sc->lines.n = 0;
	sc->began = now_ns();
	err = -pthread_create(&sc->thread, NULL, run, sc);
	sc->joinable = !err;
	sc->st.running = !err;
	mutex_unlock(&sc->lock);
	return err;
}

void scrub_cancel(struct scrub *sc)
{
	mutex_lock(&sc->lock);
	sc->cancel = true;
	mutex_unlock(&sc->lock);
}

void scrub_free(struct scrub *sc)
{
	if (!sc)
		return;
	scrub_cancel(sc);
	join(sc);
	array_free(&sc->lines);
	mutex_fini(&sc->lock);
	free(sc);
}

void scrub_status(struct scrub *sc, struct scrub_status *out)
{
	mutex_lock(&sc->lock);
	*out = sc->st;
	if (sc->st.running)
		out->ns = now_ns() - sc->began;
	mutex_unlock(&sc->lock);
}

size_t scrub_messages(struct scrub *sc, size_t from, char (*line)[256],
		      size_t n, size_t *total)
{
	size_t got = 0;

	mutex_lock(&sc->lock);
	for (; got < n && from < sc->lines.n; got++, from++)
		memcpy(line[got], (char *)sc->lines.at + from * 256, 256);
	*total = sc->lines.n;
	mutex_unlock(&sc->lock);
	return got;
}
