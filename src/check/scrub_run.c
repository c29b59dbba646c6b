/*
 * scrub_run.c - one scrub, stretch by stretch, to its end (scrub.h)
 *
 *	1. hold what the newest durable state names, and look which that is
 *	2. walk its trees; the first walk verifies all metadata
 *	3. verify the data that the walk met, from pos on, as far as memory goes
 *	4. let go; if there is data beyond, or the hold was broken: again from 1
 *	5. if anything was damaged: whose is it? (one more state, held likewise)
 *	6. note the result
 */
#include <stdio.h>

#include "check/scrub.h"

/* Stretches in a row whose hold breaks before they come any further. */
#define TRIES_MAX 8u
#define ROOM_WAIT_MS 500u /* storage is full: until it is tried again */

uint64_t scrub_done_locked(const struct scrub *sc)
{
	return min_u64(sc->n.meta_done + sc->n.data_done, sc->total);
}

/* ---- what the walks and the window tell ---- */

static void on_bad(void *arg, const struct check_bad *b)
{
	struct scrub *sc = arg;
	struct damage d = {
		.blk = b->blk, .blk2 = b->blk2, .blocks = b->blocks,
		.gen = b->gen, .node = b->node, .root = b->root,
		.level = b->level, .lo = b->lo, .hi = b->hi,
		.has_hi = b->has_hi,
		.fate = b->lost ? COWFS_SCRUB_LOST :
			b->repaired == b->copies ? COWFS_SCRUB_REPAIRED :
						   COWFS_SCRUB_ONE_BAD,
	};

	mutex_lock(&sc->lock);
	if (damage_add(&sc->damages, &d)) {
		sc->n.damaged++;
		sc->n.bad_copies += b->copies;
		sc->n.repaired += b->repaired;
		sc->n.lost += b->lost ? b->blocks : 0;
		sc->n.mended += d.fate == COWFS_SCRUB_REPAIRED;
	}
	mutex_unlock(&sc->lock);
}

/* What is wrong beyond checksums: those have on_bad. */
static void on_found(void *arg, enum problem p, const char *where)
{
	struct cowfs_disk_scrub_entry e = { .what = COWFS_SCRUB_NOTE };
	struct scrub *sc = arg;
	char text[600];

	if (p == P_NODE_UNREADABLE || p == P_NODE_COPY)
		return;
	snprintf(text, sizeof(text), "%s: %s", problem_name(p), where);
	mutex_lock(&sc->lock);
	sc->n.notes++;
	report_add(&sc->notes, e, NULL, text);
	mutex_unlock(&sc->lock);
}

/* Worth a commit? Not on an image that is otherwise left alone, unless there is
 * something that would take long to do again. */
static void note_now_and_then(struct scrub *sc)
{
	if (now_ns() - sc->saved_at < sc->note_ms * UINT64_C(1000000) ||
	    (sc->saved_pos == sc->pos && sc->saved_damaged == sc->n.damaged))
		return;
	scrub_save(sc, sc->saved_damaged != sc->n.damaged);
}

static bool told_to_stop(struct scrub *sc)
{
	int want = sc->progress ? sc->progress(sc->progress_arg) : 0;
	bool stop;

	mutex_lock(&sc->lock);
	if (want && sc->want == WANT_GO)
		sc->want = WANT_CANCEL;
	stop = sc->want != WANT_GO;
	mutex_unlock(&sc->lock);
	return stop;
}

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct scrub *sc = arg;

	mutex_lock(&sc->lock);
	if (!sc->walked) {
		sc->n.meta_done = done;
		sc->total = total;
	}
	mutex_unlock(&sc->lock);
	return told_to_stop(sc);
}

static bool on_pace(void *arg, uint64_t bytes)
{
	return pace_read(arg, bytes);
}

/* Part of the window is verified. */
struct sweeping {
	struct scrub *sc;
	struct check *c;
	uint64_t ticked;
};

static void on_done(void *arg, const struct window_done *d)
{
	struct sweeping *w = arg;
	struct scrub *sc = w->sc;

	mutex_lock(&sc->lock);
	sc->pos = max_u64(sc->pos, d->pos);
	sc->n.data_blocks += d->blocks - d->prealloc;
	sc->n.data_checksums += d->checksums;
	sc->n.prealloc += d->prealloc;
	sc->n.data_done += d->copies;
	mutex_unlock(&sc->lock);
	note_now_and_then(sc);
	w->ticked += d->copies;
	if (w->ticked < DATA_BLOCKS)
		return;
	w->ticked = 0;
	if (told_to_stop(sc) && !w->c->stop)
		w->c->stop = -ECANCELED;
}

/* ---- a stretch ---- */

static void forget_walk(struct scrub *sc)
{
	mutex_lock(&sc->lock);
	sc->n.notes = 0;
	sc->n.meta_done = 0;
	report_free(&sc->notes);
	mutex_unlock(&sc->lock);
}

/* All metadata has been verified. */
static void keep_walk(struct scrub *sc, const struct check *c)
{
	mutex_lock(&sc->lock);
	sc->n.nodes = c->res.nodes;
	sc->n.node_blocks = c->res.nodes * c->node_blocks;
	sc->n.node_checksums = c->res.checksums;
	sc->n.snapshots = c->res.snapshots;
	sc->n.meta_done = c->done;
	sc->walked = true;
	mutex_unlock(&sc->lock);
}

static int walk_and_sweep(struct scrub *sc, struct check *c,
			  struct window *win)
{
	struct sweeping w = { .sc = sc, .c = c };
	int err;

	c->leaf = window_leaf;
	c->leaf_arg = win;
	c->quiet = sc->walked;
	if (!c->quiet)
		forget_walk(sc);
	if (!c->quiet && !c->live) /* nobody writes them meanwhile */
		supers_check(c);
	err = check_trees(c);
	sc->partial |= c->lost;
	if (err || c->stop)
		return err;
	if (!c->quiet)
		keep_walk(sc, c);
	c->quiet = false;
	err = window_verify(win, c, on_done, &w);
	c->quiet = true;
	return err;
}

static int stretch(struct scrub *sc, struct check *c, bool *more)
{
	struct window *win;
	int err;

	err = window_new(sc->pos, sc->window_bytes, &win);
	if (err)
		return err;
	err = walk_and_sweep(sc, c, win);
	*more = window_end(win) != UINT64_MAX;
	window_free(win);
	return err ? err : c->stop;
}

/* What was freed meanwhile is no damage any more (SC3). */
static void forget_freed(struct scrub *sc)
{
	struct damage *v = sc->damages.list.at;

	for (size_t i = 0; i < sc->damages.list.n; i++) {
		uint64_t gone = v[i].blocks - v[i].owned;

		if (!gone || v[i].fate == COWFS_SCRUB_REPAIRED)
			continue;
		sc->n.damaged -= min_u64(sc->n.damaged, v[i].node ? 1 : gone);
		if (v[i].fate == COWFS_SCRUB_LOST)
			sc->n.lost -= min_u64(sc->n.lost, gone);
	}
}

static int find_owners(struct scrub *sc, struct check *c, bool *more)
{
	struct look l = { .c = c };
	struct report r = { 0 };
	bool complete = false;
	int err = owners_find(&l, &sc->damages, &r, &complete);

	*more = false;
	if (err) {
		report_free(&r);
		return err;
	}
	mutex_lock(&sc->lock);
	if (complete)
		forget_freed(sc);
	report_append(&r, &sc->notes);
	r.untold += sc->damages.untold;
	report_free(&sc->report);
	sc->report = r;
	sc->reported = true;
	mutex_unlock(&sc->lock);
	return 0;
}

/* ---- on a state of the store ---- */

typedef int state_fn(struct scrub *sc, struct check *c, bool *more);

static int on_super(struct scrub *sc, struct store *live,
		    const struct cowfs_disk_super *super, state_fn *fn,
		    bool *more)
{
	/* data are the window's, not the walk's */
	struct check_options opt = { .data = false,
				     .mend = !store_readonly(sc->s),
				     .found = on_found,
				     .progress = on_progress,
				     .bad = on_bad,
				     .pace = on_pace,
				     .arg = sc };
	struct check c = { .io = &sc->s->io, .live = live, .opt = &opt };
	int err = check_ready(&c, super);

	if (!err)
		err = fn(sc, &c, more);
	check_fini(&c);
	return err;
}

/* Where storage is full a commit is tried again and again (commit.c, C6), and so
 * long it is waited: hours of reading are not to be in vain for a moment without
 * room. */
static int commit_with_room(struct scrub *sc)
{
	int err;

	while (!store_stopped(sc->s)) {
		err = store_commit(sc->s, NULL, NULL);
		if (err != -ENOSPC)
			return store_stopped(sc->s) ? 0 : err;
		if (told_to_stop(sc) || pace_wait(sc, ROOM_WAIT_MS))
			return -ECANCELED;
	}
	return 0; /* what is durable can be checked all the same */
}

/* The hold comes first: what was freed before it is not named by the state that
 * the commit makes durable. */
static int on_state(struct scrub *sc, state_fn *fn, bool *more)
{
	struct cowfs_disk_super super;
	struct store *s = sc->s;
	int err = 0;

	if (store_readonly(s)) {
		store_durable_super(s, &super);
		return on_super(sc, NULL, &super, fn, more);
	}
	alloc_hold(s->alloc);
	err = commit_with_room(sc);
	store_durable_super(s, &super);
	if (!err)
		err = on_super(sc, s, &super, fn, more);
	alloc_unhold(s->alloc);
	return err;
}

/* fn on one state after the other, while it wants more. */
static int on_states(struct scrub *sc, state_fn *fn)
{
	unsigned tries = 0;
	bool more = true;
	int err = 0;

	while (more) {
		uint64_t pos = sc->pos;

		err = on_state(sc, fn, &more);
		if (err == -EAGAIN)
			more = true;
		else if (err)
			return err;
		tries = sc->pos > pos ? 0 : tries + (err == -EAGAIN);
		if (tries >= TRIES_MAX)
			return -EAGAIN;
	}
	return 0;
}

/* ---- the whole ---- */

static uint8_t outcome(struct scrub *sc, int err)
{
	if (!err)
		return COWFS_SCRUB_FINISHED;
	if (err != -ECANCELED)
		return COWFS_SCRUB_FAILED;
	return sc->want == WANT_PAUSE  ? COWFS_SCRUB_PAUSED :
	       sc->want == WANT_CANCEL ? COWFS_SCRUB_CANCELLED :
					 COWFS_SCRUB_RUNNING;
}

/* All there is has been read and mended: stale sides are up to date, unless it
 * could not look below some node. */
static int resynced(struct scrub *sc)
{
	/* what failed meanwhile was dropped */
	unsigned stale = sc->stale & store_stale_sides(sc->s);

	if (!stale || store_readonly(sc->s))
		return 0;
	if (!sc->partial)
		return store_resynced(sc->s, stale);
	log_msg(LOG_LVL_WARN, "%s: a side stays stale: part of the trees "
		"cannot be read (run fsck.cowfs)", sc->s->dev->name);
	return 0;
}

/* What was found stands, whether owners are found or not. */
static int ask_owners(struct scrub *sc)
{
	int err = on_states(sc, find_owners);

	if (err && err != -ECANCELED) {
		log_msg(LOG_LVL_WARN, "scrub: whose the damaged blocks are "
			"could not be found out: %s", strerror(-err));
		err = 0;
	}
	return err;
}

static void log_result(const struct scrub *sc)
{
	if (sc->n.damaged + sc->n.notes && !sc->s->io.quiet)
		log_msg(LOG_LVL_WARN, "scrub: %" PRIu64 " errors, %" PRIu64
			" copies repaired, %" PRIu64 " blocks lost; 'cowctl "
			"scrub status' tells of what", sc->n.damaged +
			sc->n.notes, sc->n.repaired, sc->n.lost);
}

void scrub_work(struct scrub *sc)
{
	int err;

	sc->walked = false;
	sc->saved_at = now_ns();
	sc->saved_pos = sc->pos;
	sc->saved_damaged = sc->n.damaged;
	pace_init(sc);
	if (sc->stale)
		scrub_save(sc, false);
	/* what lies there in memory says nothing about storage */
	bdev_forget(sc->s->dev);
	err = on_states(sc, stretch);
	if (!err)
		err = resynced(sc);
	if (!err && sc->damages.list.n)
		err = ask_owners(sc);
	mutex_lock(&sc->lock);
	if (!sc->reported) {
		report_so_far(&sc->report, &sc->damages);
		report_append(&sc->report, &sc->notes);
		sc->reported = true;
	}
	sc->state = outcome(sc, err);
	sc->error = err == -ECANCELED ? 0 : err;
	if (!err)
		sc->total = sc->n.meta_done + sc->n.data_done;
	mutex_unlock(&sc->lock);
	log_result(sc);
	scrub_save(sc, true);
	mutex_lock(&sc->lock);
	sc->ns_before += now_ns() - sc->run_began;
	sc->noted = now_real();
	sc->running = false;
	mutex_unlock(&sc->lock);
}
