/*
 * commit.c - make the running transaction the state of the disk
 *
 *   C1  Nothing is written where a block lies that either of the two newest
 *       superblocks names (the allocator sees to it, alloc.h A2). Until the first
 *       commit of a store that is the one it found (store.c).
 *   C2  A superblock counts only if all it names is durable: either that was
 *       flushed before it was written, or it says UNVERIFIED and the next mount
 *       after a crash reads all of its generation before it believes it. Once
 *       the flush has returned that word is taken back, in the near copy, so
 *       that what rots later takes nothing back that somebody was promised.
 *   C3  A failure before the superblock is written leaves no trace on disk.
 *       After it, nobody can tell which of the two states the disk has, and the
 *       store stops.
 *   C4  Whoever waits gets an answer about a commit that was closed after he
 *       began to wait: all that he did before is in it.
 *   C5  Contents that a replayed log carried are in their places, and durable,
 *       before a superblock makes the log void. Their generation may be older
 *       than that superblock's, so UNVERIFIED does not speak for them.
 *   C6  A write that finds storage full (a sparse image on a host without space,
 *       a quota) has done nothing that could not be done again, the superblock's
 *       included, for its slot is nobody's. So the closed generation is kept,
 *       and written before anything else once there is room; until then nothing
 *       is acknowledged, and whoever waits is told -ENOSPC. A flush that failed
 *       so fails for good (file.c, F2), and what it was for is lost: the store
 *       stops.
 *
 * On a mirror, "durable" means on every side that the superblock does not call
 * stale (sides.c, D1).
 */
#include <inttypes.h>
#include <time.h>

#include "txn/private.h"

/* Read the node that was missing though the tree lock is held exclusively and
 * must not be dropped: the state between two steps of closing is nobody's. It
 * happens only when the maps need a node that preloading could not foresee. */
static int load_closed(struct store *s)
{
	int err;

	if (loads_under_lock(s)) /* a repair does all the time */
		return forest_load(s->forest);
	load_under_lock(s, true);
	err = forest_load(s->forest);
	load_under_lock(s, false);
	return err;
}

/* Apply reference changes and free space to their trees. */
int flush_maps(struct store *s)
{
	int err;

	for (;;) {
		err = alloc_flush(s->alloc, &s->refs_space);
		if (err != -EAGAIN)
			return err;
		err = load_closed(s);
		if (err)
			return err;
	}
}

static void fill_root(struct cowfs_disk_root *d, const struct tree *t)
{
	memset(d, 0, sizeof(*d));
	d->ptr = nptr_to_disk(&t->root);
	d->nodes = to_le64(t->nodes);
}

/* The superblock of the generation that is being closed. */
void fill_super(struct store *s)
{
	struct cowfs_disk_super *d = &s->super;
	struct alloc_info info;

	alloc_info(s->alloc, &info);
	d->gen = to_le64(forest_gen(s->forest));
	d->free_blocks = to_le64(info.stored_free);
	d->shared_gen = to_le64(s->fs.shared_gen);
	d->wrote = time_to_disk(now_real());
	d->state &= COWFS_STATE_ERROR;
	if (s->p->repair)
		d->state |= COWFS_STATE_REPAIRED;
	fill_root(&d->roots[COWFS_ROOT_FS], &s->fs);
	fill_root(&d->roots[COWFS_ROOT_SNAP], &s->snap);
	fill_root(&d->roots[COWFS_ROOT_SPACE], &s->space);
	fill_root(&d->roots[COWFS_ROOT_REFS], &s->refs);
	copies_fill_super(s);
}

/* So often is tried to get all that is needed into memory beforehand. A cache
 * too small for it would never hold it all at once; then the lock is kept while
 * the rest is read. */
#define PRELOAD_TRIES 4u

/* What a closing will need is in memory, if it can be: T held exclusively after
 * 0. */
static int lock_prepared(struct store *s)
{
	unsigned tries = 0;
	int err;

	tree_lock_shared(s);
	for (;;) {
		err = alloc_preload(s->alloc, &s->refs_space);
		tree_unlock(s);
		if (!err) {
			tree_lock(s);
			err = alloc_preload(s->alloc, &s->refs_space);
			if (err == -EAGAIN && ++tries == PRELOAD_TRIES)
				err = 0;
			if (!err)
				return 0;
			tree_unlock(s);
		}
		if (err == -EAGAIN)
			err = forest_load(s->forest);
		if (err)
			return err;
		tree_lock_shared(s);
	}
}

/* Memory may be there the next time. But what the maps have lost, on disk or in
 * memory, stays lost: nothing that is done from now on would ever be durable. */
static int not_prepared(struct store *s, int err)
{
	if (err != -ENOMEM || alloc_failed(s->alloc))
		store_stop(s, err, "a commit cannot be prepared");
	return err;
}

/* keep: read what is missing with the lock held. */
static int apply(struct store *s, commit_fn *fn, void *arg, bool keep)
{
	uint64_t changes = forest_changes(s->forest);
	int err;

	for (;;) {
		err = fn(s, arg);
		if (err && forest_changes(s->forest) != changes)
			store_stop(s, err, "a commit failed half-way");
		if (err != -EAGAIN || !keep || store_stopped(s))
			return err;
		err = load_closed(s);
		if (err)
			return err;
	}
}

/*
 * Seal the file tree and let fn do its work on top of it. On return 0 T is held
 * exclusively, and fn has been carried out; else T is not held, and nothing has
 * changed (or the store was stopped).
 */
static int lock_and_apply(struct store *s, commit_fn *fn, void *arg)
{
	unsigned tries = 0;
	int err;

	for (;;) {
		err = forest_spare(s->forest, 64);
		if (err)
			return err;
		err = lock_prepared(s);
		if (err)
			return not_prepared(s, err);
		tree_seal(&s->fs);
		if (!fn)
			return 0;
		err = apply(s, fn, arg, ++tries > PRELOAD_TRIES);
		if (!err) {
			s->changed = true;
			return 0;
		}
		tree_unlock(s);
		if (err != -EAGAIN || store_stopped(s))
			return err;
		err = forest_load(s->forest);
		if (err)
			return err;
	}
}

/* Close the running generation; T is held exclusively. */
static int close_gen(struct store *s, struct node_batch **batch,
		     bool *two_flushes)
{
	uint64_t gen = forest_gen(s->forest);
	int err;

	err = flush_maps(s);
	if (err)
		return err;
	tree_seal(&s->snap);
	tree_seal(&s->refs);
	tree_seal(&s->space);
	tree_seal(&s->copies);
	alloc_note_trees(s->alloc, s->refs.nodes, s->space.nodes,
			 s->copies.nodes);
	fill_super(s);
	*batch = forest_close_gen(s->forest);
	*two_flushes = s->p->unsummed;
	s->p->unsummed = false;
	alloc_close(s->alloc, gen);
	log_forget(s->p->log);
	s->p->synced = atomic_load(&s->p->ops);
	s->changed = false;
	atomic_store(&s->p->changed_hint, false);
	atomic_store(&s->p->dirty_hint, 0);
	mutex_lock(&s->p->wait_lock);
	s->p->running_gen = gen + 1;
	mutex_unlock(&s->p->wait_lock);
	return 0;
}

/* C6 */
static int flush(struct store *s)
{
	int err = block_flush(&s->io);

	if (err == -ENOSPC)
		store_stop(s, err, "a flush found no room below");
	return err;
}

/* C5 */
static int write_staged(struct store *s)
{
	uint64_t blocks;
	int err = block_unstage(&s->io, &blocks);

	return err || !blocks ? err : flush(s);
}

/* From which generation this one goes on; what a repair found may have holes. */
static struct le32 back_of(const struct store *s,
			   const struct cowfs_disk_super *super)
{
	uint64_t back = from_le64(super->gen) - s->p->durable_gen;

	return to_le32(s->p->repair || back > UINT32_MAX ? 0 : (uint32_t)back);
}

/* One that nobody would believe (numbers of a hostile image that can't count on)
 * had better not take the place of one that is believed. */
static int check_super(const struct store *s, const struct cowfs_disk_super *d)
{
	struct cowfs_disk_super own;
	char why[128];
	bool ro;
	int err;

	super_for_side(d, 0, &own);
	err = super_verify(&own, s->dev->size / COWFS_BLOCK_SIZE, &ro, why,
			   sizeof(why));
	return err ? report(err, "%s: %s: not written", s->dev->name, why) : 0;
}

/* One flush or two (C2); the superblock last either way. */
static int write_out(struct store *s, struct node_batch *batch,
		     struct cowfs_disk_super *super, bool two_flushes,
		     uint64_t *bytes)
{
	uint64_t written;
	int err;

	err = write_staged(s);
	if (!err)
		err = node_batch_write(batch, bytes);
	if (err)
		return err;
	written = atomic_load(&s->io.stats.write_bytes) - s->p->written_before;
	if (written <= ONE_FLUSH_MAX && !s->p->final_commit && !two_flushes) {
		super->state |= COWFS_STATE_UNVERIFIED;
	} else {
		err = flush(s);
		if (err)
			return err;
	}
	super->back = back_of(s, super);
	/* Once more if a side failed since: the slot is still nobody's. */
	do {
		sides_note(s, super);
		super_seal(super);
		err = check_super(s, super);
		if (!err)
			err = super_write(&s->io, super);
		if (!err)
			err = flush(s);
		/* D4: a side that has not flushed it has to be mended, should
		 * that it was dropped not be known when it is back. */
		if (!err && !sides_unnoted(s))
			err = super_mark_proven(&s->io, super);
	} while (!err && sides_unnoted(s));
	if (err || !s->p->final_commit || store_stopped(s))
		return err;
	do {
		sides_note(s, super);
		err = super_mark_clean(&s->io, super);
	} while (!err && sides_unnoted(s));
	return err;
}

static void note_durable(struct store *s, const struct cowfs_disk_super *super,
			 uint64_t bytes, uint64_t ns, uint64_t closed_ns)
{
	struct store_private *p = s->p;
	struct commit_stats *st = &p->stats;

	mutex_lock(&p->wait_lock);
	p->durable_gen = from_le64(super->gen);
	p->durable = *super;
	st->commits++;
	st->bytes += bytes + 2 * sizeof(*super);
	st->nodes += bytes / forest_node_size(s->forest);
	st->ns_total += ns;
	st->ns_max = max_u64(st->ns_max, ns);
	st->closed_ns_total += closed_ns;
	st->closed_ns_max = max_u64(st->closed_ns_max, closed_ns);
	mutex_unlock(&p->wait_lock);
	hist_add(&p->hist[HIST_COMMIT], ns);
	hist_add(&p->hist[HIST_CLOSED], closed_ns);
	alloc_durable(s->alloc, from_le64(super->gen));
	log_restart(p->log);
	p->written_before = atomic_load(&s->io.stats.write_bytes);
}

/* After the first commit (store.c, 5). That one is durable, whatever comes of
 * this; what stays as it was is tried again by the next mount. */
static void mend_slots(struct store *s)
{
	uint64_t from = s->p->mend_from;
	int err;

	s->p->mend_from = 0;
	err = from ? super_mend(&s->io, &s->p->durable, from) : 0;
	if (err)
		log_msg(LOG_LVL_WARN, "%s: superblocks that are damaged could "
			"not be made good: %s", s->dev->name, strerror(-err));
}

static int write_closed(struct store *s, struct closed *c)
{
	struct cowfs_disk_super super = c->super;
	uint64_t bytes = 0;
	int err = write_out(s, c->batch, &super, c->two_flushes, &bytes);

	if (err)
		return err;
	node_batch_done(c->batch, true);
	note_durable(s, &super, bytes, now_ns() - c->began, c->closed_ns);
	s->p->both_gen = from_le64(super.gen);
	return 0;
}

/* Is there a timer that will try again, what it may write, and no end that waits
 * for it? */
static bool may_keep(struct store *s)
{
	bool may;

	mutex_lock(&s->p->wait_lock);
	may = s->p->threads && !s->p->quit && !s->p->final_commit &&
	      !store_stopped(s);
	mutex_unlock(&s->p->wait_lock);
	return may;
}

/* C6 */
static void keep(struct store *s, const struct closed *c)
{
	s->p->kept = *c;
	atomic_store(&s->p->unwritten, true);
	log_msg(LOG_LVL_ERROR, "%s: what it lies on has no room for a commit "
		"(space, or a quota): tried again until there is",
		s->dev->name);
	store_kick(s, ROOM_RETRY_MS);
}

static int given_up(struct store *s, struct closed *c, int err)
{
	node_batch_done(c->batch, false);
	store_stop(s, err, "commit failed");
	return err;
}

/* What fn did is done, and its caller would like to know that it lasts. */
static int write_waiting(struct store *s, struct closed *c)
{
	const struct timespec nap = { .tv_nsec = ROOM_WAIT_MS * 1000000L };
	unsigned tries;
	int err;

	for (tries = 0;; tries++) {
		err = write_closed(s, c);
		if (err != -ENOSPC || tries == ROOM_WAITS || !may_keep(s))
			return err;
		may_wait();
		nanosleep(&nap, NULL);
	}
}

/* *c is closed: write it, or keep it. */
static int finish(struct store *s, struct closed *c, bool fn)
{
	int err = fn ? write_waiting(s, c) : write_closed(s, c);

	if (!err)
		return 0;
	if (err != -ENOSPC || !may_keep(s))
		return given_up(s, c, err);
	keep(s, c);
	return fn ? -EINPROGRESS : err;
}

int commit_kept(struct store *s)
{
	struct store_private *p = s->p;
	unsigned kind;
	int err;

	if (!atomic_load(&p->unwritten))
		return 0;
	if (store_stopped(s))
		return -EIO;
	err = write_closed(s, &p->kept);
	if (err == -ENOSPC && may_keep(s)) {
		store_kick(s, ROOM_RETRY_MS);
		return err;
	}
	atomic_store(&p->unwritten, false);
	if (err)
		return given_up(s, &p->kept, err);
	log_msg(LOG_LVL_INFO, "%s: there is room again: committed",
		s->dev->name);
	/* It gave up when a commit failed. */
	for (kind = 0; kind < WORK_KINDS; kind++)
		store_wake(s, (enum store_work)kind);
	return 0;
}

void commit_forget(struct store *s)
{
	if (atomic_exchange(&s->p->unwritten, false))
		node_batch_done(s->p->kept.batch, false);
}

int commit_locked(struct store *s, commit_fn *fn, void *arg, bool force)
{
	struct closed c = { .began = now_ns() };
	uint64_t closing;
	unsigned ticket;
	int err;

	if (store_stopped(s))
		return -EIO;
	err = commit_kept(s);
	if (err)
		return err;
	ticket = grace_enter(&s->grace);
	err = lock_and_apply(s, fn, arg);
	grace_leave(&s->grace, ticket);
	if (err)
		return err;
	if (!force && !s->changed && !alloc_dirty(s->alloc) &&
	    !alloc_pending(s->alloc) && !sides_unnoted(s)) {
		tree_unlock(s);
		return block_settle(&s->io);
	}
	closing = now_ns();
	err = close_gen(s, &c.batch, &c.two_flushes);
	c.super = s->super;
	tree_unlock(s);
	c.closed_ns = now_ns() - closing;
	err = err ? given_up(s, &c, err) : finish(s, &c, fn != NULL);
	if (err)
		return err;
	copies_watch(s);
	mend_slots(s);
	return 0;
}

int commit_nothing(struct store *s, void *arg)
{
	(void)s;
	(void)arg;
	return 0;
}

int store_commit(struct store *s, commit_fn *fn, void *arg)
{
	struct store_private *p = s->p;
	uint64_t want;
	bool done;
	int err;

	if (p->readonly)
		return fn ? -EROFS : 0;
	want = store_running_gen(s);
	mutex_lock(&p->commit_lock);
	mutex_lock(&p->wait_lock);
	done = p->durable_gen >= want;
	mutex_unlock(&p->wait_lock);
	err = done && !fn ? 0 : commit_locked(s, fn, arg, fn != NULL);
	mutex_unlock(&p->commit_lock);
	return err;
}

/* C is held, and what the log is based on is durable. */
static int sync_locked(struct store *s)
{
	int err;

	if (store_stopped(s))
		return -EIO;
	/* A record would be based on what is not there. */
	err = atomic_load(&s->p->unwritten) ?
		      -EFBIG : log_append(s->p->log, &s->p->synced);
	if (err == -EFBIG) {
		atomic_fetch_add(&s->p->sync_commits, 1);
		return commit_locked(s, NULL, NULL, false);
	}
	if (err)
		store_stop(s, err, "writing the log failed");
	else if (sides_unnoted(s)) /* D1: one side does not have it */
		err = commit_locked(s, NULL, NULL, false);
	return err;
}

/* C is held: sync_locked, with a look at the clock; a group begins. */
static int sync_timed(struct store *s)
{
	struct store_private *p = s->p;
	uint64_t began = now_ns(), last = atomic_load(&p->group);
	int err = sync_locked(s);

	if (last)
		hist_add(&p->hist[HIST_GROUP], last);
	hist_add(&p->hist[HIST_SYNC], now_ns() - began);
	atomic_store(&p->group, 1);
	atomic_fetch_add(&p->sync_writes, 1);
	return err;
}

int store_sync(struct store *s)
{
	struct store_private *p = s->p;
	uint64_t want = atomic_load(&p->ops);
	uint64_t writes = atomic_load(&p->sync_writes);
	int err = 0;

	if (p->readonly)
		return 0;
	atomic_fetch_add(&p->syncs, 1);
	mutex_lock(&p->commit_lock);
	if (p->synced < want || store_stopped(s) ||
	    atomic_load(&p->unwritten) || sides_unnoted(s))
		err = sync_timed(s);
	else if (writes != atomic_load(&p->sync_writes))
		atomic_fetch_add(&p->group, 1); /* another one's served us */
	else
		atomic_fetch_add(&p->sync_idle, 1);
	mutex_unlock(&p->commit_lock);
	return err;
}

uint64_t store_running_gen(struct store *s)
{
	uint64_t gen;

	mutex_lock(&s->p->wait_lock);
	gen = s->p->running_gen;
	mutex_unlock(&s->p->wait_lock);
	return gen;
}

uint64_t store_durable_gen(struct store *s)
{
	uint64_t gen;

	mutex_lock(&s->p->wait_lock);
	gen = s->p->durable_gen;
	mutex_unlock(&s->p->wait_lock);
	return gen;
}

void store_durable_super(struct store *s, struct cowfs_disk_super *out)
{
	mutex_lock(&s->p->wait_lock);
	*out = s->p->durable;
	mutex_unlock(&s->p->wait_lock);
}

void store_commit_stats(struct store *s, struct commit_stats *out)
{
	struct log_stats log = { 0 };

	mutex_lock(&s->p->wait_lock);
	*out = s->p->stats;
	mutex_unlock(&s->p->wait_lock);
	if (s->p->log)
		log_stats(s->p->log, &log);
	out->log_appends = log.appends;
	out->log_bytes = log.bytes;
	out->syncs = atomic_load(&s->p->syncs);
	out->sync_commits = atomic_load(&s->p->sync_commits);
	out->sync_idle = atomic_load(&s->p->sync_idle);
}

void store_hist(struct store *s, enum store_hist which,
		struct cowfs_hist *out)
{
	static const struct cowfs_hist none;
	uint64_t group = atomic_load(&s->p->group);

	*out = none;
	hist_read(&s->p->hist[which], out);
	if (which != HIST_GROUP || !group)
		return;
	/* The last one may still grow; it counts as far as it is known. */
	out->bucket[cowfs_hist_bucket(group)]++;
	out->count++;
	out->sum += group;
	out->max = max_u64(out->max, group);
}
