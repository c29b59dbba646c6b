/*
 * refs.c - references beyond the first: gathered, cancelled out, written (A6)
 *
 * What alloc_ref is told goes into a map of intervals in memory. A commit
 * applies it to the stored map piece by piece. A *piece* is a run of blocks
 * with one change and one stored count. For each piece a *plan* is made first:
 * all is looked up and all that will change is prepared, so that -EAGAIN comes
 * only before the piece changed anything. A piece leaves the gathered map in
 * the same step that applies it; alloc_flush can be called again after -EAGAIN
 * at any time, and alloc_extra is right all the while.
 */
#include "alloc/private.h"

struct plan {
	struct extent at; /* the piece */
	int64_t count;    /* of extra references, afterwards; -1: free it */
	struct ref_ival del[3], put[3];
	unsigned dels, puts;
};

/* ---- gathering ---- */

/* Remember for each of the blocks where its second copy lies. */
static int mates_set(struct alloc *a, uint64_t blk, uint64_t len, int64_t dist)
{
	uint64_t end = blk + len;
	struct ival iv;
	int err;

	while (blk < end) {
		imap_get(&a->mates, blk, &iv);
		len = min_u64(iv.len, end - blk);
		if (iv.n != dist) {
			err = imap_add(&a->mates, blk, len, dist - iv.n);
			if (err)
				return err;
		}
		blk += len;
	}
	return 0;
}

int alloc_ref(struct alloc *a, uint64_t blk, uint64_t len, int n,
	      uint64_t blk2)
{
	int err = 0;

	if (!len || !n)
		return 0;
	if (!space_valid(a, blk, len) || (blk2 && !space_valid(a, blk2, len)))
		return report(-ECOW_CORRUPT, "reference to impossible blocks %"
			      PRIu64 "+%" PRIu64 ", second copy at %" PRIu64,
			      blk, len, blk2);
	if (a->rebuilding)
		return 0;
	mutex_lock(&a->lock);
	/* Mates left behind by a failure do no harm: they are looked at only
	 * when the block is freed, and set anew by the change that frees it. */
	if (blk2 && n < 0)
		err = mates_set(a, blk, len, (int64_t)blk2 - (int64_t)blk);
	if (!err)
		err = imap_add(&a->delta, blk, len, n);
	mutex_unlock(&a->lock);
	return err;
}

void alloc_spoil(struct alloc *a, int err)
{
	mutex_lock(&a->lock);
	a->err = err;
	mutex_unlock(&a->lock);
}

/* ---- the stored map, checked ---- */

static int check_ival(const struct alloc *a, const struct ref_ival *iv)
{
	if (space_valid(a, iv->start, iv->len) && iv->extra)
		return 0;
	return report(-ECOW_CORRUPT, "reference record %" PRIu64 "+%" PRIu64
		      " (%" PRIu32 ") is impossible", iv->start, iv->len,
		      iv->extra);
}

/* The interval at or before `at`; len 0: none. */
static int get_floor(struct alloc *a, const struct alloc_store *st,
		     uint64_t at, struct ref_ival *out)
{
	int err = st->ref_floor(st->arg, at, out);

	if (!err)
		return check_ival(a, out);
	*out = (struct ref_ival){ 0 };
	return err == -ENOENT ? 0 : err;
}

static int get_ceil(struct alloc *a, const struct alloc_store *st,
		    uint64_t at, struct ref_ival *out)
{
	int err = st->ref_ceil(st->arg, at, out);

	if (!err)
		return check_ival(a, out);
	*out = (struct ref_ival){ 0 };
	return err == -ENOENT ? 0 : err;
}

static uint64_t ival_end(const struct ref_ival *iv)
{
	return iv->start + iv->len;
}

/* The stored count at `at`, and where the run of that count ends; cur: the
 * interval that covers it (len 0: none). */
static int stored_at(struct alloc *a, const struct alloc_store *st,
		     uint64_t at, struct ref_ival *cur, uint64_t *end)
{
	struct ref_ival next;
	int err;

	err = get_floor(a, st, at, cur);
	if (err)
		return err;
	if (cur->len && ival_end(cur) > at) {
		*end = ival_end(cur);
		return 0;
	}
	*cur = (struct ref_ival){ 0 };
	err = get_ceil(a, st, at, &next);
	if (err)
		return err;
	*end = next.len ? next.start : UINT64_MAX;
	return 0;
}

int alloc_extra(struct alloc *a, const struct alloc_store *st, uint64_t blk,
		uint32_t *extra, uint64_t *run)
{
	struct ref_ival cur;
	struct ival change;
	uint64_t end;
	int64_t n;
	int err;

	if (!space_valid(a, blk, 1))
		return report(-ECOW_CORRUPT, "references of impossible block %"
			      PRIu64, blk);
	if (a->rebuilding) {
		*extra = 0;
		if (run)
			*run = a->blocks - blk;
		return 0;
	}
	err = stored_at(a, st, blk, &cur, &end);
	if (err)
		return err;
	mutex_lock(&a->lock);
	imap_get(&a->delta, blk, &change);
	mutex_unlock(&a->lock);
	n = (int64_t)cur.extra + change.n;
	if (n < 0 || n > UINT32_MAX)
		return report(-ECOW_CORRUPT, "block %" PRIu64 " cannot have %"
			      PRId64 " extra references", blk, n);
	*extra = (uint32_t)n;
	if (run)
		*run = min_u64(change.len, min_u64(end, a->blocks) - blk);
	return 0;
}

/* How far, at most to `max`, do the owners of the blocks agree with the
 * first's? */
static uint64_t same_owner(struct alloc *a, uint64_t blk, uint64_t max,
			  bool *owned)
{
	bool all;

	mutex_lock(&a->lock);
	*owned = space_all(a, OWNED, blk, 1, true);
	all = space_all(a, OWNED, blk, max, *owned);
	mutex_unlock(&a->lock);
	return all ? max : 1;
}

int alloc_refs(struct alloc *a, const struct alloc_store *st, uint64_t blk,
	       uint64_t max, uint64_t *refs, uint64_t *run)
{
	struct ref_ival cur;
	struct ival change;
	uint64_t end, len;
	bool owned;
	int64_t n;
	int err;

	if (!space_valid(a, blk, max))
		return report(-ECOW_CORRUPT, "references of impossible blocks %"
			      PRIu64 "+%" PRIu64, blk, max);
	err = stored_at(a, st, blk, &cur, &end);
	if (err)
		return err;
	mutex_lock(&a->lock);
	imap_get(&a->delta, blk, &change);
	mutex_unlock(&a->lock);
	len = min_u64(max, min_u64(change.len, end - blk));
	*run = same_owner(a, blk, len, &owned);
	n = (int64_t)cur.extra + change.n;
	*refs = owned && n >= 0 ? (uint64_t)n + 1 : 0;
	return 0;
}

/* ---- plans ---- */

static void plan_del(struct plan *p, const struct ref_ival *iv)
{
	p->del[p->dels++] = *iv;
}

static void plan_put(struct plan *p, uint64_t start, uint64_t end,
		     uint32_t extra)
{
	p->put[p->puts++] = (struct ref_ival){ start, end - start, extra };
}

/* Neighbours with the same count become one interval with it. */
static int plan_merge(struct alloc *a, const struct alloc_store *st,
		      struct plan *p, struct ref_ival *iv, bool left,
		      bool right)
{
	struct ref_ival n;
	int err;

	if (left) {
		err = get_floor(a, st, iv->start - 1, &n);
		if (err)
			return err;
		if (n.len && ival_end(&n) == iv->start &&
		    n.extra == iv->extra) {
			plan_del(p, &n);
			iv->start = n.start;
			iv->len += n.len;
		}
	}
	if (right) {
		err = get_ceil(a, st, ival_end(iv), &n);
		if (err)
			return err;
		if (n.len && ival_end(iv) == n.start && n.extra == iv->extra) {
			plan_del(p, &n);
			iv->len += n.len;
		}
	}
	return 0;
}

static int plan_prepare(const struct alloc_store *st, const struct plan *p)
{
	unsigned i;
	int err;

	for (i = 0; i < p->dels; i++) {
		err = st->ref_prepare(st->arg, p->del[i].start);
		if (err)
			return err;
	}
	for (i = 0; i < p->puts; i++) {
		err = st->ref_prepare(st->arg, p->put[i].start);
		if (err)
			return err;
	}
	return 0;
}

static int plan_count(const struct plan *p, uint32_t stored, int64_t change)
{
	if (p->count < -1)
		return report(-ECOW_CORRUPT, "blocks %" PRIu64 "+%" PRIu64
			      " have %" PRIu32 " extra references, but %"
			      PRId64 " more are to be taken away",
			      p->at.start, p->at.len, stored, -change);
	if (p->count > UINT32_MAX)
		return report(-EOVERFLOW, "blocks %" PRIu64 "+%" PRIu64
			      " have too many references", p->at.start,
			      p->at.len);
	return 0;
}

/* How to change the piece that begins with iv. Changes nothing yet. */
static int plan_make(struct alloc *a, const struct alloc_store *st,
		     const struct ival *iv, struct plan *p)
{
	uint64_t start = iv->start, end;
	struct ref_ival cur, now;
	bool left, right;
	int err;

	memset(p, 0, sizeof(*p));
	err = stored_at(a, st, start, &cur, &end);
	if (err)
		return err;
	end = min_u64(end, start + iv->len);
	p->at = (struct extent){ start, end - start };
	p->count = (int64_t)cur.extra + iv->n;
	err = plan_count(p, cur.extra, iv->n);
	if (!err && p->count == -1 && st->copy_prepare)
		err = st->copy_prepare(st->arg, start, &p->at.len);
	if (err)
		return err;
	end = start + p->at.len;
	left = !cur.len || cur.start == start;
	right = !cur.len || ival_end(&cur) == end;
	if (cur.len)
		plan_del(p, &cur);
	if (!left)
		plan_put(p, cur.start, start, cur.extra);
	if (p->count > 0) {
		now = (struct ref_ival){ start, end - start,
					 (uint32_t)p->count };
		err = plan_merge(a, st, p, &now, left, right);
		if (err)
			return err;
		plan_put(p, now.start, ival_end(&now), now.extra);
	}
	if (!right)
		plan_put(p, end, ival_end(&cur), cur.extra);
	return plan_prepare(st, p);
}

/* Does one with another count take its place? */
static bool plan_replaces(const struct plan *p, const struct ref_ival *iv)
{
	for (unsigned i = 0; i < p->puts; i++)
		if (p->put[i].start == iv->start && p->put[i].len == iv->len)
			return true;
	return false;
}

static int plan_run(const struct alloc_store *st, const struct plan *p)
{
	unsigned i;
	int err;

	for (i = 0; i < p->dels; i++) {
		if (plan_replaces(p, &p->del[i]))
			continue;
		err = st->ref_del(st->arg, &p->del[i]);
		if (err)
			return err;
	}
	for (i = 0; i < p->puts; i++) {
		err = st->ref_put(st->arg, &p->put[i]);
		if (err)
			return err;
	}
	return 0;
}

/* ---- second copies ---- */

/* The first piece of the second copies of [*blk, end), which moves on past it.
 * Under a->lock. */
static bool mates_next(const struct alloc *a, uint64_t *blk, uint64_t end,
		       struct extent *out)
{
	struct ival iv;

	while (*blk < end) {
		imap_get(&a->mates, *blk, &iv);
		out->start = *blk + (uint64_t)iv.n;
		out->len = min_u64(iv.len, end - *blk);
		*blk += out->len;
		if (iv.n)
			return true;
	}
	return false;
}

static int free_with_mates(struct alloc *a, struct extent e)
{
	uint64_t blk = e.start, end = e.start + e.len;
	struct extent mate;
	int err;

	mutex_lock(&a->lock);
	/* Born 0: in some older generation; if that is wrong, it only takes
	 * longer. */
	err = space_free(a, e.start, e.len, 0);
	while (!err && mates_next(a, &blk, end, &mate))
		err = space_free(a, mate.start, mate.len, 0);
	mutex_unlock(&a->lock);
	if (err)
		return report(err, "cannot free blocks %" PRIu64 "+%" PRIu64
			      " that lost their last reference%s", e.start,
			      e.len, err == -ECOW_CORRUPT ?
			      ": nobody owns them" : "");
	return 0;
}

/* ---- commit ---- */

/* The first gathered change at or after blk. */
static bool delta_next(struct alloc *a, uint64_t blk, struct ival *out)
{
	bool found;

	mutex_lock(&a->lock);
	found = imap_next(&a->delta, blk, out);
	mutex_unlock(&a->lock);
	if (found && out->start < blk) {
		out->len -= blk - out->start;
		out->start = blk;
	}
	return found;
}

static int flush_piece(struct alloc *a, const struct alloc_store *st,
		       const struct ival *iv)
{
	struct plan p;
	int err;

	err = plan_make(a, st, iv, &p);
	if (err)
		return err;
	mutex_lock(&a->lock);
	err = imap_add(&a->delta, p.at.start, p.at.len, -iv->n);
	mutex_unlock(&a->lock);
	if (err)
		return err;
	/* From here on an error leaves a state that can't be kept. */
	err = plan_run(st, &p);
	if (!err && p.count == -1 && st->copy_drop)
		err = st->copy_drop(st->arg, p.at.start, p.at.len);
	if (!err && p.count == -1)
		return free_with_mates(a, p.at);
	if (err) {
		mutex_lock(&a->lock);
		a->err = err == -EAGAIN ? -EIO : err;
		err = a->err;
		mutex_unlock(&a->lock);
		return report(err, "references of blocks %" PRIu64 "+%" PRIu64
			      " could not be changed", p.at.start, p.at.len);
	}
	return 0;
}

int refs_flush(struct alloc *a, const struct alloc_store *st)
{
	struct ival iv;
	int err;

	while (delta_next(a, 0, &iv)) {
		err = flush_piece(a, st, &iv);
		if (err)
			return err;
	}
	mutex_lock(&a->lock);
	imap_clear(&a->mates);
	a->preload_ref = 0;
	mutex_unlock(&a->lock);
	return 0;
}

static int prepare_chunks(const struct alloc_store *st, struct extent e)
{
	uint64_t n = e.start / CHUNK;
	int err;

	for (; n <= (e.start + e.len - 1) / CHUNK; n++) {
		err = st->space_prepare(st->arg, n);
		if (err)
			return err;
	}
	return 0;
}

/* Records that will change because the last reference goes. */
static int preload_free(struct alloc *a, const struct alloc_store *st,
			struct extent e)
{
	uint64_t blk = e.start, end = e.start + e.len;
	struct extent mate;
	bool found;
	int err;

	err = prepare_chunks(st, e);
	while (!err) {
		mutex_lock(&a->lock);
		found = mates_next(a, &blk, end, &mate);
		mutex_unlock(&a->lock);
		if (!found)
			break;
		err = prepare_chunks(st, mate);
	}
	return err;
}

int refs_preload(struct alloc *a, const struct alloc_store *st)
{
	struct plan p;
	struct ival iv;
	uint64_t at;
	int err = 0;

	mutex_lock(&a->lock);
	at = a->preload_ref;
	mutex_unlock(&a->lock);
	while (delta_next(a, at, &iv)) {
		err = plan_make(a, st, &iv, &p);
		if (!err && p.count == -1)
			err = preload_free(a, st, p.at);
		if (err)
			break;
		at = p.at.start + p.at.len;
	}
	mutex_lock(&a->lock);
	a->preload_ref = err ? at : 0;
	mutex_unlock(&a->lock);
	return err;
}
