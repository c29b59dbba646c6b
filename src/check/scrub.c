/*
 * scrub.c - the scrub of a filesystem: starting, pausing, ending, asking
 *
 * One at a time, in a thread of its own or in that of a tool. What it needs to
 * go on later is on disk (scrub_save.c), so it makes no difference whether it
 * was paused, or its filesystem unmounted, or its machine lost.
 */
#include <stdio.h>

#include "check/scrub.h"
#include "cowfs/ioctl.h"

int scrub_new(struct store *s, struct scrub **out)
{
	struct scrub *sc = calloc(1, sizeof(*sc));
	int err;

	if (!sc)
		return -ENOMEM;
	sc->s = s;
	sc->window_bytes = WINDOW_BYTES;
	sc->note_ms = NOTE_MS;
	mutex_init(&sc->lock, LOCK_LEAF);
	cond_init(&sc->wake);
	err = scrub_load(sc);
	if (err) {
		scrub_free(sc);
		return err;
	}
	*out = sc;
	return 0;
}

void scrub_set_window(struct scrub *sc, uint64_t bytes, unsigned note_ms)
{
	sc->window_bytes = bytes;
	sc->note_ms = note_ms;
}

/* ---- starting ---- */

static bool resumable(const struct scrub *sc)
{
	return sc->state == COWFS_SCRUB_RUNNING ||
	       sc->state == COWFS_SCRUB_PAUSED;
}

static void forget(struct scrub *sc)
{
	sc->pos = 0;
	sc->ns_before = 0;
	sc->n = (struct scrub_counts){ 0 };
	array_free(&sc->damages.list);
	sc->damages.untold = 0;
	report_free(&sc->report);
	report_free(&sc->notes);
	sc->reported = false;
	sc->saved_old = true;
	sc->began = now_real();
}

/* SC6: is each side that lacks blocks one that this scrub has been filling, and
 * that missed nothing since? */
static bool still_filling(const struct scrub *sc, const uint64_t *since)
{
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (sc->stale & 1u << i &&
		    (!since[i] || since[i] != sc->since[i]))
			return false;
	return true;
}

/* What was verified before may be missing on a side. */
static void start_over(struct scrub *sc)
{
	sc->pos = 0;
	sc->n.data_blocks = sc->n.data_checksums = sc->n.prealloc = 0;
	sc->n.data_done = 0;
}

/* The thread before this one has ended or is about to. */
static void join(struct scrub *sc)
{
	if (sc->joinable)
		pthread_join(sc->thread, NULL);
	sc->joinable = false;
}

/* As they are when a run begins. */
struct stale_sides {
	unsigned mask;
	uint64_t since[BDEV_SIDES];
};

static struct stale_sides look_at_sides(struct scrub *sc)
{
	struct stale_sides out = { .mask = store_stale_sides(sc->s) };
	unsigned i;

	for (i = 0; i < BDEV_SIDES; i++)
		if (out.mask & 1u << i)
			out.since[i] = store_side_since(sc->s, i);
	return out;
}

/* lock held; running is set if 0 is returned. used: blocks, as a first
 * guess. */
static int begin_locked(struct scrub *sc, bool resume, uint64_t rate,
			uint64_t used, const struct stale_sides *sides)
{
	if (sc->running)
		return -EBUSY;
	if (resume && !resumable(sc))
		return -ENOENT;
	sc->stale = sides->mask;
	if (!resume)
		forget(sc);
	else if (!still_filling(sc, sides->since))
		start_over(sc);
	memcpy(sc->since, sides->since, sizeof(sc->since));
	sc->total = used;
	if (rate != COWFS_SCRUB_SAME_RATE)
		sc->rate = rate;
	sc->partial = false;
	sc->want = WANT_GO;
	sc->state = COWFS_SCRUB_RUNNING;
	sc->error = 0;
	sc->reported = false;
	report_free(&sc->notes);
	sc->n.meta_done = 0;
	sc->run_began = now_ns();
	sc->run_base = sc->n.data_done;
	sc->running = true;
	return 0;
}

static uint64_t blocks_used(struct store *s)
{
	struct cowfs_disk_super super;
	uint64_t total;

	store_durable_super(s, &super);
	total = from_le64(super.total_blocks);
	return total - min_u64(from_le64(super.free_blocks), total);
}

static void *thread_main(void *arg)
{
	scrub_work(arg);
	return NULL;
}

int scrub_start(struct scrub *sc, bool resume, uint64_t rate)
{
	struct stale_sides sides = look_at_sides(sc);
	uint64_t used = blocks_used(sc->s);
	uint8_t state;
	int err;

	mutex_lock(&sc->lock);
	state = sc->state;
	err = begin_locked(sc, resume, rate, used, &sides);
	if (!err) {
		join(sc); /* it does not take the lock any more */
		sc->progress = NULL;
		err = -pthread_create(&sc->thread, NULL, thread_main, sc);
		sc->joinable = sc->running = !err;
		if (err)
			sc->state = resume ? state : COWFS_SCRUB_NEVER;
	}
	mutex_unlock(&sc->lock);
	return err;
}

int scrub_here(struct scrub *sc, bool resume, uint64_t rate,
	       int (*progress)(void *arg), void *arg)
{
	struct stale_sides sides = look_at_sides(sc);
	uint64_t used = blocks_used(sc->s);
	int err;

	mutex_lock(&sc->lock);
	err = begin_locked(sc, resume, rate, used, &sides);
	if (!err) {
		sc->progress = progress;
		sc->progress_arg = arg;
	}
	mutex_unlock(&sc->lock);
	if (!err)
		scrub_work(sc);
	return err;
}

/* ---- ending ---- */

static void want(struct scrub *sc, enum scrub_want what)
{
	/* Who ends it for good is not overruled by who would pause it. */
	if (sc->want != WANT_CANCEL)
		sc->want = what;
	pthread_cond_broadcast(&sc->wake);
}

int scrub_pause(struct scrub *sc)
{
	int err = -ESRCH;

	mutex_lock(&sc->lock);
	if (sc->running) {
		want(sc, WANT_PAUSE);
		err = 0;
	}
	mutex_unlock(&sc->lock);
	return err;
}

int scrub_cancel(struct scrub *sc)
{
	bool save = false;
	int err = 0;

	mutex_lock(&sc->lock);
	if (sc->running) {
		want(sc, WANT_CANCEL);
	} else if (resumable(sc)) {
		sc->state = COWFS_SCRUB_CANCELLED;
		save = sc->running = true; /* so that nobody starts one */
	} else {
		err = -ESRCH;
	}
	mutex_unlock(&sc->lock);
	if (!save)
		return err;
	scrub_save(sc, false);
	mutex_lock(&sc->lock);
	sc->running = false;
	mutex_unlock(&sc->lock);
	return 0;
}

void scrub_unfill(struct scrub *sc, unsigned side)
{
	mutex_lock(&sc->lock);
	if (sc->running && sc->stale & 1u << side)
		want(sc, WANT_CANCEL);
	mutex_unlock(&sc->lock);
}

int scrub_set_rate(struct scrub *sc, uint64_t rate)
{
	int err = -ESRCH;

	mutex_lock(&sc->lock);
	if (sc->running) {
		sc->rate = rate;
		pthread_cond_broadcast(&sc->wake);
		err = 0;
	}
	mutex_unlock(&sc->lock);
	return err;
}

void scrub_free(struct scrub *sc)
{
	if (!sc)
		return;
	mutex_lock(&sc->lock);
	if (sc->want == WANT_GO)
		want(sc, WANT_STOP);
	mutex_unlock(&sc->lock);
	join(sc);
	array_free(&sc->damages.list);
	report_free(&sc->report);
	report_free(&sc->notes);
	pthread_cond_destroy(&sc->wake);
	mutex_fini(&sc->lock);
	free(sc);
}

/* ---- asking ---- */

static void status_locked(struct scrub *sc, struct cowfs_ioc_scrub *out)
{
	const struct scrub_counts *n = &sc->n;

	*out = (struct cowfs_ioc_scrub){
		.running = sc->running,
		.finished = sc->state == COWFS_SCRUB_FINISHED,
		.cancelled = sc->state == COWFS_SCRUB_CANCELLED,
		.state = sc->state,
		.error = cowfs_errno_for_user(sc->error),
		.done = scrub_done_locked(sc),
		.total = sc->total,
		.ns = sc->ns_before,
		.blocks = n->node_blocks + n->data_blocks + n->prealloc,
		.checksums = n->node_checksums + n->data_checksums,
		.nodes = n->nodes,
		.data_blocks = n->data_blocks,
		.prealloc_blocks = n->prealloc,
		.problems = n->damaged + n->notes,
		.bad_copies = n->bad_copies,
		.repaired = n->repaired,
		.lost = n->lost,
		.snapshots = n->snapshots,
		.entries = sc->report.n,
		.untold = sc->report.untold,
		.damaged = n->damaged + n->notes - min_u64(n->mended,
							   n->damaged),
		.began = sc->began.sec,
		.ended = sc->noted.sec,
		.rate = sc->rate,
	};
	if (!sc->running)
		return;
	out->run_ns = now_ns() - sc->run_began;
	out->ns += out->run_ns;
	out->run_done = out->done - min_u64(out->done, sc->run_base);
}

void scrub_status(struct scrub *sc, struct cowfs_ioc_scrub *out)
{
	mutex_lock(&sc->lock);
	status_locked(sc, out);
	mutex_unlock(&sc->lock);
}

void scrub_report(struct scrub *sc, struct cowfs_ioc_report *page)
{
	const struct cowfs_disk_scrub_entry *e;
	size_t len, off = page->from;

	page->bytes = 0;
	page->from = 0;
	mutex_lock(&sc->lock);
	if (!sc->reported && !off)
		report_so_far(&sc->report, &sc->damages);
	while ((len = report_entry(&sc->report, off, &e)) != 0) {
		if (len > sizeof(page->entries) - page->bytes) {
			page->from = off;
			break;
		}
		memcpy(page->entries + page->bytes, e, len);
		page->bytes += (uint32_t)len;
		off += len;
	}
	mutex_unlock(&sc->lock);
}
