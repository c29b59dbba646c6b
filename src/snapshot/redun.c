/*
 * redun.c - extra copies for data that many refer to: the setting, the work
 *
 * The work is one of three things, a bounded piece at a time:
 *
 *   - giving copies back, last ones first: when less than 1/STORE_SHORT of the
 *     device is available (until there is twice that), when somebody found no
 *     space at all (until there is more, then all), or when the setting is 0;
 *   - a pass over what roots reach (redun_walk.c), which makes copies while
 *     more than 1/MAKE_PART is available;
 *   - at the end of a pass, noting what has been seen to.
 *
 * A pass that finds no space, or whose hold on freed blocks breaks, is given up,
 * as is one that may not begin yet; it is tried again a minute later, and finds
 * the copies made.
 * Half of the time of a pass is left to others.
 */
#include <inttypes.h>
#include <time.h>

#include "snapshot/private.h"
#include "snapshot/redun.h"

/* Copies take space while more than this part of the device is available. */
#define MAKE_PART 8u
/* Items that one operation gives back. */
#define GIVE_ITEMS 32u
/* Somebody found no space: for so long nothing is made. */
#define QUIET_NS UINT64_C(60000000000)
/* When to look again whether a pass may begin. */
#define AGAIN_MS 60000u
/* The longest rest after a piece of a pass. */
#define REST_MAX_NS UINT64_C(100000000)

#define SETTING_KEY KEY(0, COWFS_KEY_SETTING, COWFS_SETTING_REDUNDANCY)

struct redun {
	struct store *s;
	struct pass *pass;  /* of the worker alone */
	uint64_t goal;      /* give back until so many blocks are available */
	uint64_t quiet;     /* now_ns() until which nothing is made ... */
	uint32_t turn;      /* ... unless the setting's is another than this */
};

/* ---- the setting ---- */

int setting_get(struct store *s, struct setting *out)
{
	const struct cowfs_disk_redundancy *d;
	struct key k = SETTING_KEY;
	struct item it;
	int err = tree_get(&s->snap, &k, &it);

	if (err == -ENOENT) {
		*out = (struct setting){ 0 };
		return 0;
	}
	if (err)
		return err;
	d = it.data;
	if (it.len != sizeof(*d))
		return report(-ECOW_CORRUPT, "setting of redundancy: %" PRIu32
			      " bytes", it.len);
	*out = (struct setting){ .count = from_le32(d->count),
				 .turn = from_le32(d->turn),
				 .done = from_le64(d->done),
				 .seen = from_le64(d->seen) };
	return 0;
}

static int setting_put(struct store *s, const struct setting *set)
{
	struct cowfs_disk_redundancy d = { .count = to_le32(set->count),
					   .turn = to_le32(set->turn),
					   .done = to_le64(set->done),
					   .seen = to_le64(set->seen) };
	struct key k = SETTING_KEY;

	return tree_put(&s->snap, &k, &d, sizeof(d));
}

static int setting_prepare(struct store *s)
{
	struct key k = SETTING_KEY;

	return tree_prepare(&s->snap, &k);
}

int redun_prepare_forget(struct store *s)
{
	struct setting set;
	int err = setting_get(s, &set);

	return err || !set.count ? err : setting_prepare(s);
}

/* turn: passes under way are to begin anew, too. */
static int forget(struct store *s, bool turn)
{
	struct setting set;
	int err = setting_get(s, &set);

	if (err || !set.count || (!turn && !set.done))
		return err;
	set.turn += turn;
	set.done = 0;
	return setting_put(s, &set);
}

int redun_forget(struct store *s)
{
	return forget(s, true);
}

static int set_locked(struct store *s, uint32_t count)
{
	struct setting set;
	int err = setting_get(s, &set);

	if (!err)
		err = setting_prepare(s);
	if (err)
		return err;
	set.count = count;
	set.turn++;
	set.done = 0;
	return setting_put(s, &set);
}

int redun_set(struct store *s, uint32_t count)
{
	struct op op;
	int err;

	if (count == 1)
		return -EINVAL;
	err = op_write(&op, s, ALLOC_FREEING, 1);
	if (err)
		return err;
	do
		err = set_locked(s, count);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (!err)
		err = store_commit(s, NULL, NULL);
	if (!err)
		store_wake(s, WORK_COPIES);
	return err;
}

static int read_setting(struct store *s, struct setting *out)
{
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = setting_get(s, out);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

int redun_get(struct store *s, struct redun_status *out)
{
	struct setting set;
	int err = read_setting(s, &set);

	if (!err)
		*out = (struct redun_status){ .count = set.count,
					      .copied = store_copied(s) };
	return err;
}

/* ---- giving back ---- */

/* The last items; all is prepared before anything is changed. */
static int give_back_locked(struct store *s)
{
	struct copy_ival iv[GIVE_ITEMS];
	uint64_t before = UINT64_MAX;
	unsigned n = 0;
	int err = redun_prepare_forget(s);

	while (!err && n < GIVE_ITEMS) {
		err = copies_before(s, before, &iv[n]);
		if (!err)
			err = copies_prepare(s, &iv[n]);
		if (!err)
			before = iv[n++].start;
	}
	if (err == -ENOENT)
		err = 0;
	if (!err)
		err = forget(s, false);
	if (!err && !n)
		copies_none(s); /* or this would never come to an end */
	for (unsigned i = 0; !err && i < n; i++)
		err = copies_take(s, &iv[i]);
	return err;
}

static int give_back(struct store *s)
{
	struct op op;
	int err = op_write(&op, s, ALLOC_INTERNAL, 4);

	if (err)
		return err;
	do
		err = give_back_locked(s);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

static uint64_t available(struct store *s, unsigned part, uint64_t *limit)
{
	struct alloc_info info;

	alloc_info(s->alloc, &info);
	*limit = info.blocks / part;
	return info.avail;
}

static void end_pass(struct redun *r)
{
	pass_free(r->pass);
	r->pass = NULL;
}

/* Is anything to be given back? The goal is set, or met. */
static bool must_give(struct redun *r, uint32_t count)
{
	uint64_t limit, avail = available(r->s, STORE_SHORT, &limit);
	enum give_back asked = store_give_back(r->s);
	uint64_t goal = r->goal;

	if (asked != GIVE_NONE) {
		end_pass(r); /* he waits */
		r->quiet = now_ns() + QUIET_NS;
	}
	if (asked == GIVE_SOME)
		goal = max_u64(goal, max_u64(2 * limit, avail + limit));
	if (asked == GIVE_ALL || !count)
		goal = UINT64_MAX;
	else if (avail < limit)
		goal = max_u64(goal, 2 * limit);
	r->goal = store_copied(r->s) && avail < goal ? goal : 0;
	return r->goal;
}

/* ---- passes ---- */

static int note_locked(struct store *s, const struct pass *p)
{
	struct setting set;
	int err = setting_get(s, &set);

	if (!err)
		err = setting_prepare(s);
	if (err || set.turn != p->set.turn || set.count != p->set.count)
		return err;
	set.done = p->low;
	set.seen = p->seen;
	return setting_put(s, &set);
}

/* All has been seen to. */
static int note_done(struct redun *r)
{
	struct store *s = r->s;
	struct op op;
	int err = op_write(&op, s, ALLOC_NORMAL, 1);

	if (err)
		return err;
	do
		err = note_locked(s, r->pass);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

static bool may_make(struct store *s)
{
	uint64_t limit, avail = available(s, MAKE_PART, &limit);

	return avail > limit;
}

/* Has something happened since the last pass? */
static bool is_due(struct store *s, const struct setting *set)
{
	struct cowfs_disk_super super;

	store_durable_super(s, &super);
	return set->count && (!set->done ||
			      set->seen != from_le64(super.next_snap));
}

static void rest(uint64_t ns)
{
	struct timespec ts = { .tv_nsec = (long)min_u64(ns, REST_MAX_NS) };

	nanosleep(&ts, NULL);
}

/* 1: go on; else as a work function. */
static int pass_some(struct redun *r, const struct setting *set)
{
	uint64_t began = now_ns();
	int err = 0;

	if (r->turn != set->turn)
		r->quiet = 0; /* that is wanted now, or was restored */
	r->turn = set->turn;
	if (r->pass && (r->pass->set.turn != set->turn ||
			r->pass->set.count != set->count))
		end_pass(r); /* begin anew */
	if (!r->pass && !is_due(r->s, set))
		return 0;
	if (!r->pass && (now_ns() < r->quiet || !may_make(r->s))) {
		store_wake_later(r->s, WORK_COPIES, AGAIN_MS);
		return 0;
	}
	if (!r->pass)
		err = pass_begin(r->s, set, &r->pass);
	if (err)
		return err == -ENODATA ? 0 : err;
	err = may_make(r->s) ? pass_step(r->pass) : -ENOSPC;
	if (err > 0) {
		rest(now_ns() - began);
		return 1;
	}
	if (!err)
		err = note_done(r);
	else if (err == -ENOSPC || err == -ESTALE)
		store_wake_later(r->s, WORK_COPIES, AGAIN_MS);
	end_pass(r);
	return err;
}

/* WORK_COPIES */
static int redun_work(void *arg)
{
	struct redun *r = arg;
	struct setting set;
	int err;

	if (store_stopped(r->s)) {
		end_pass(r);
		return 0;
	}
	err = read_setting(r->s, &set);
	if (err)
		return 0; /* reported; nothing is made */
	if (must_give(r, set.count)) {
		end_pass(r);
		err = give_back(r->s);
		return err ? err : 1;
	}
	err = pass_some(r, &set);
	/* no space, or it was needed by somebody else: another time */
	return err == -ENOSPC || err == -ESTALE ? 0 : err;
}

static void redun_free(void *arg)
{
	struct redun *r = arg;

	end_pass(r);
	free(r);
}

int redun_start(struct store *s)
{
	struct redun *r;

	if (store_readonly(s))
		return 0;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->s = s;
	store_own(s, r, redun_free);
	store_set_work(s, WORK_COPIES, redun_work, r);
	store_wake(s, WORK_COPIES);
	return 0;
}
