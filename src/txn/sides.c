/*
 * sides.c - the sides of a mirror: which can be trusted, and writing it down
 *
 * Correctness of what is read does not depend on it: everything hangs on
 * checksums below a superblock, and of these the newest counts, whichever side
 * it lies on. What must not happen is that a promise is kept by a side that is
 * lost, or that two sides go on without each other and are taken for one.
 *
 *   D1  Nothing is acknowledged as durable while a side lacks it, unless each
 *       other side durably says that it is stale.
 *   D2  A side that is stale stays so until all that the newest superblock
 *       names was found or written there and flushed (store_resynced), however
 *       often the filesystem is mounted before that.
 *   D3  If each side says that the other is stale, or they have a different
 *       superblock of the same generation, both were used alone: nothing is
 *       opened, since whichever were taken, the other's changes would be lost.
 *       Since when one is stale is kept, however often the other is mounted
 *       alone: what the one has of its own is younger than that. (A crash can
 *       leave on the one a generation that the other never had; that counts if
 *       it is proven, for then the other had it, and was put back.)
 *   D4  A crash between the writes to the two sides makes neither stale. What
 *       one of them has and the other lacks then was not acknowledged, and is
 *       either named by the newest superblock or log record, of which opening
 *       reads every place and mends what differs (recover.c, replay.c), or by
 *       nothing.
 *   D5  A side that is behind by more than such a crash accounts for (an older
 *       copy of it was put back) is stale though nobody says so. The two must
 *       have a superblock in common (a crash while opening can leave on each a
 *       newer one that the other never had), and its newest must be
 *         - as young as the other's newest says that it was when that one was
 *           written (both_gen): only that one may be missing, or several of
 *           which none was ever acknowledged (crashes while opening);
 *         - the newest itself if that was marked clean, or has log records:
 *           that is done when both sides have it.
 *       Of the log it may lack the last record. Within these bounds nobody can
 *       tell what was put back from what a crash left; so all that the newest
 *       superblock's own generation wrote is read in every place, whether it
 *       says UNVERIFIED or not, and what is missing is mended, as is what the
 *       last record names (replay.c).
 *   D7  A stale side that is there is written to like the other, so what a scrub
 *       copied to it stays copied, across mounts and crashes, until it misses
 *       something. since_gen says since when it has not; a scrub that goes on
 *       later compares (scrub.c). It begins anew when the side is not there in
 *       a mount, or goes (D1 holds for that word, too), or has a newest
 *       superblock or an end of the log that is not the other side's.
 *   D8  Which word is the later one is told by generations (format.h). But a
 *       side that was put back to an older state and went on alone has not heard
 *       that the other one was complete since: what it says holds, and so both
 *       have changes of their own. It is known by what it drew when it went on
 *       (`alone`), which the other one does not have, however many generations
 *       either has. That it is stale itself a side says as late as its newest
 *       superblock is, since when it lacks something or not; and that it was
 *       complete once says nothing of an older state of it that calls itself
 *       stale.
 */
#include "txn/private.h"

void super_for_side(const struct cowfs_disk_super *d, unsigned side,
		    struct cowfs_disk_super *out)
{
	if (out != d)
		*out = *d;
	if (super_is_mirror(out)) {
		out->dev_index = to_le16((uint16_t)side);
		memcpy(out->dev_uuid, out->mirror.dev_uuid[side],
		       sizeof(out->dev_uuid));
	}
	super_seal(out);
}

/* ---- which can be trusted ---- */

struct judging {
	struct bdev *dev;
	const struct super_scan *scan;          /* of each side */
	const struct super *newest[BDEV_SIDES]; /* NULL: it has none */
};

static const char *name_of(const struct judging *j, unsigned side)
{
	return bdev_side_name(j->dev, side);
}

/* Is the superblock in the place that it says it belongs to? */
static int check_index(const struct judging *j, unsigned side)
{
	const struct super *sb = j->newest[side];

	if (!sb || !super_is_mirror(&sb->d) || from_le16(sb->d.dev_index) == side)
		return 0;
	return report(-EINVAL, "%s: is side %u of a mirror, not side %u",
		      name_of(j, side), from_le16(sb->d.dev_index), side);
}

static uint64_t synced_gen(const struct super *s, unsigned side)
{
	return from_le64(s->d.mirror.synced_gen[side]);
}

/* Is `now` one that a side must have of which `then` is the newest? (D5) */
static bool missed(const struct super *now, const struct super *then)
{
	return now->gen > then->gen &&
	       (now->d.state & COWFS_STATE_CLEAN ||
		then->gen < from_le64(now->d.both_gen));
}

/* Had a side, of which `self` is the newest, gone on without side `of` when that
 * was complete, as `other` says? Then it was put back to an older state before. */
static bool went_on(const struct super *self, const struct super *other,
		    unsigned of)
{
	const struct le64 *alone = self->d.mirror.alone;
	unsigned i;

	for (i = 0; from_le64(*alone) && i < COWFS_ALONE_MAX; i++)
		if (from_le64(other->d.mirror.alone[i]) == from_le64(*alone))
			return false;
	return from_le64(*alone) || self->gen >= synced_gen(other, of);
}

uint64_t sides_said_stale(const struct super_scan *one, unsigned by,
			  unsigned of)
{
	const struct super *self = &one[by].found[0];
	const struct super *other = one[!by].count ? &one[!by].found[0] : NULL;
	uint64_t stale = from_le64(self->d.mirror.stale_gen[of]);
	bool holds;

	if (!stale || !other || synced_gen(other, of) <= stale)
		return stale;
	if (by == of)
		holds = self->gen >= synced_gen(other, of) ||
			missed(other, self);
	else
		holds = went_on(self, other, of);
	return holds ? stale : 0;
}

static uint64_t said_stale(const struct judging *j, unsigned by, unsigned of)
{
	return sides_said_stale(j->scan, by, of);
}

static int split(const struct judging *j, const char *how)
{
	return report(-ENOTUNIQ, "%s and %s: %s. Decide which to keep, make it "
		      "a filesystem of its own (cowctl KEEP mirror remove), "
		      "and the other its new side (cowctl KEEP mirror add -f "
		      "OTHER)", name_of(j, 0), name_of(j, 1), how);
}

/* But for what differs between sides, and that it was marked clean or proven
 * afterwards, which one of them may not have heard of. */
bool sides_same(const struct super *a, const struct super *b)
{
	struct cowfs_disk_super x = a->d, y = b->d;

	x.state |= COWFS_STATE_CLEAN;
	y.state |= COWFS_STATE_CLEAN;
	x.state &= (uint8_t)~COWFS_STATE_UNVERIFIED;
	y.state &= (uint8_t)~COWFS_STATE_UNVERIFIED;
	super_for_side(&x, 0, &x);
	super_for_side(&y, 0, &y);
	return memcmp(&x, &y, sizeof(x)) == 0;
}

static const struct super *with_gen(const struct super_scan *scan, uint64_t gen)
{
	unsigned i;

	for (i = 0; i < scan->count; i++)
		if (scan->found[i].gen == gen)
			return &scan->found[i];
	return NULL;
}

/* Neither is said to be stale; the one that is behind is if it missed more than
 * a crash accounts for (D5). *stale: mask. */
static int compare(const struct judging *j, unsigned *stale)
{
	unsigned behind = j->newest[1]->gen < j->newest[0]->gen, i;
	const struct super_scan *scan = &j->scan[behind];
	const struct super *other = NULL;

	for (i = 0; !other && i < scan->count; i++)
		other = with_gen(&j->scan[!behind], scan->found[i].gen);
	if (other && !sides_same(other, &scan->found[i - 1]))
		return split(j, "they have gone different ways");
	if (!other || missed(j->newest[!behind], j->newest[behind]))
		*stale |= 1u << behind;
	return 0;
}

/* Has side i, that the other gave up after generation `last`, changes of its own
 * since? Not one that a crash left there alone, of which nothing tells that it was
 * acknowledged (D4): of that it can be the next one, or what says that the side is
 * complete. */
static bool has_own(const struct judging *j, unsigned i, uint64_t last)
{
	const struct super *sb = j->newest[i];

	return sb->gen > max_u64(last + 1, synced_gen(sb, i)) ||
	       (sb->gen > last && super_proven(&sb->d));
}

/* What the marks say. */
static int judge_marks(const struct judging *j, unsigned *stale)
{
	uint64_t self, other;
	unsigned i, said = 0;

	for (i = 0; i < BDEV_SIDES; i++) {
		self = said_stale(j, i, i);
		other = said_stale(j, !i, i);
		if (self || other)
			*stale |= 1u << i;
		if (other)
			said |= 1u << i;
		if (other && !self && has_own(j, i, other))
			said = 3;
	}
	if (said == 3)
		return split(j, "each was changed without the other");
	return *stale == 3 ? split(j, "neither is complete") : 0;
}

static int judge_both(const struct judging *j, unsigned *stale)
{
	const struct cowfs_disk_super *a = &j->newest[0]->d;
	const struct cowfs_disk_super *b = &j->newest[1]->d;
	int err;

	if (!super_is_mirror(a) || !super_is_mirror(b) ||
	    memcmp(a->uuid, b->uuid, sizeof(a->uuid)) != 0 ||
	    memcmp(a->mirror.dev_uuid, b->mirror.dev_uuid,
		   sizeof(a->mirror.dev_uuid)) != 0)
		return report(-EINVAL, "%s and %s are not the sides of one "
			      "mirror", name_of(j, 0), name_of(j, 1));
	err = judge_marks(j, stale);
	return err || *stale ? err : compare(j, stale);
}

/* Only side `i` has a superblock. */
static int judge_one(const struct judging *j, unsigned i, unsigned *stale)
{
	const struct super *sb = j->newest[i];
	bool there = bdev_side_state(j->dev, !i) != SIDE_GONE;

	if (!super_is_mirror(&sb->d))
		return there ? report(-EINVAL, "%s: is no side of a mirror",
				      name_of(j, i)) : 0;
	if (there)
		*stale = 1u << !i;
	if (!said_stale(j, i, i))
		return 0;
	if (!j->dev->readonly)
		return report(-ENODEV, "%s: is not complete: it was never "
			      "brought up to date; the other side is needed "
			      "(read-only it can be opened alone)",
			      name_of(j, i));
	log_msg(LOG_LVL_WARN, "%s: is not complete: what it lacks cannot be "
		"read", name_of(j, i));
	return 0;
}

int sides_judge(struct bdev *dev, const struct super_scan *scan)
{
	struct judging j = { .dev = dev, .scan = scan };
	unsigned i, found = 0, stale = 0;
	int err = 0;

	for (i = 0; i < BDEV_SIDES; i++) {
		if (bdev_side_state(dev, i) == SIDE_GONE || !scan[i].count)
			continue;
		j.newest[i] = &scan[i].found[0];
		found |= 1u << i;
		err = err ? err : check_index(&j, i);
	}
	if (err || !found)
		return err;
	err = found == 3 ? judge_both(&j, &stale) :
			   judge_one(&j, found == 2, &stale);
	/* One that is stale already may be so for what lies elsewhere (D5). */
	for (i = 0; !err && i < BDEV_SIDES; i++)
		if (stale & 1u << i)
			bdev_set_side(dev, i, SIDE_STALE);
	return err;
}

/* The newest superblock was believed; a side has not heard of it. Whatever
 * cannot be mended there makes it stale. */
static int bring_along(struct store *s, unsigned side)
{
	int err;

	if (s->p->readonly || s->p->verified)
		return 0; /* nothing may be written; it was done */
	err = recover_verify(s, &s->super, true);
	if (err && err != -ENOMEM) {
		bdev_set_side(s->dev, side, SIDE_STALE);
		err = 0;
	}
	return err;
}

/* A side that was stale already: did it miss anything since it was seen last? */
static int keep_since(struct store *s, const struct super_scan *scan)
{
	uint64_t lacks[BDEV_SIDES], records;
	unsigned i;
	int err;

	if (!scan->kept)
		return 0;
	err = log_missing(s, scan->kept, lacks, &records);
	for (i = 0; !err && i < BDEV_SIDES; i++)
		if (scan->kept & 1u << i && !lacks[i])
			s->p->since_gen[i] = from_le64(
				scan->found[0].d.mirror.since_gen[i]);
	return err;
}

int sides_match(struct store *s, const struct super_scan *scan)
{
	uint64_t gen = from_le64(s->super.gen), lacks[BDEV_SIDES], records;
	bool behind;
	unsigned i;
	int err;

	if (bdev_sides(s->dev) == 1)
		return 0;
	if (bdev_bad_sides(s->dev)) {
		err = keep_since(s, scan);
		goto note;
	}
	err = log_missing(s, 0, lacks, &records);
	for (i = 0; !err && i < BDEV_SIDES; i++) {
		behind = scan->newest[i] < gen;
		if (lacks[i] > !behind)
			bdev_set_side(s->dev, i, SIDE_STALE);
		else if (behind)
			err = bring_along(s, i);
	}
note:
	if (err)
		return err;
	for (i = 0; i < bdev_sides(s->dev); i++)
		if (bdev_side_state(s->dev, i) == SIDE_GOOD &&
		    (!s->p->both_gen || scan->newest[i] < s->p->both_gen))
			s->p->both_gen = scan->newest[i];
	return 0;
}

void sides_tell(struct store *s)
{
	unsigned i;

	if (!super_is_mirror(&s->super))
		return;
	for (i = 0; i < bdev_sides(s->dev); i++) {
		if (bdev_side_state(s->dev, i) == SIDE_STALE)
			log_msg(LOG_LVL_WARN, "%s: missed changes: stale until "
				"a scrub has brought it up to date (cowctl "
				"scrub)", bdev_side_name(s->dev, i));
		if (bdev_side_state(s->dev, i) == SIDE_GONE)
			log_msg(LOG_LVL_WARN, "%s: degraded: side %u of the "
				"mirror is missing", s->dev->name, i);
	}
}

/* ---- writing it down ---- */

/* D7. A side that comes back in this mount does so through STALE and a commit. */
static void note_since(struct store *s, unsigned side, uint64_t gen)
{
	_Atomic uint64_t *since = &s->p->since_gen[side];

	if (bdev_side_state(s->dev, side) != SIDE_STALE)
		atomic_store(since, 0);
	else if (!atomic_load(since))
		atomic_store(since, gen);
}

uint64_t store_side_since(struct store *s, unsigned side)
{
	return atomic_load(&s->p->since_gen[side]);
}

/* Is one gone of which the newest superblock says that it is written to? */
static bool since_is_wrong(struct store *s)
{
	unsigned i;

	for (i = 0; i < bdev_sides(s->dev); i++)
		if (atomic_load(&s->p->since_gen[i]) &&
		    bdev_side_state(s->dev, i) == SIDE_GONE)
			return true;
	return false;
}

/* One more time that a side is missing or not complete (format.h). */
static void note_alone(struct store_private *p)
{
	uint64_t id;

	do
		random_bytes(&id, sizeof(id));
	while (!id);
	memmove(&p->alone[1], &p->alone[0],
		(COWFS_ALONE_MAX - 1) * sizeof(p->alone[0]));
	p->alone[0] = to_le64(id);
}

/* What a superblock about to be written says of the sides as they are now. */
void sides_note(struct store *s, struct cowfs_disk_super *d)
{
	struct store_private *p = s->p;
	unsigned bad = bdev_bad_sides(s->dev), i;

	if (!super_is_mirror(d))
		return;
	for (i = 0; i < BDEV_SIDES; i++) {
		if (!(bad & 1u << i)) {
			p->stale_gen[i] = 0;
			if (p->synced_sides & 1u << i)
				p->synced_gen[i] = from_le64(d->gen);
		} else if (!p->stale_gen[i]) {
			p->stale_gen[i] = from_le64(d->gen);
		}
		if (bdev_side_state(s->dev, i) == SIDE_GOOD) {
			p->alone_sides &= ~(1u << i);
		} else if (!(p->alone_sides & 1u << i)) {
			p->alone_sides |= 1u << i;
			note_alone(p);
		}
		note_since(s, i, from_le64(d->gen));
		d->mirror.since_gen[i] = to_le64(p->since_gen[i]);
		d->mirror.stale_gen[i] = to_le64(p->stale_gen[i]);
		d->mirror.synced_gen[i] = to_le64(p->synced_gen[i]);
	}
	memcpy(d->mirror.alone, p->alone, sizeof(p->alone));
	p->synced_sides = 0;
	d->both_gen = to_le64(p->both_gen);
	atomic_store(&p->noted_sides, bad);
}

bool sides_unnoted(struct store *s)
{
	return atomic_load(&s->p->mirror) &&
	       (bdev_bad_sides(s->dev) & ~atomic_load(&s->p->noted_sides) ||
		since_is_wrong(s));
}

void store_look(struct store *s)
{
	int err = s->p->readonly ? 0 : bdev_lost(s->dev);

	if (atomic_exchange(&s->p->lost, err != 0) != (err != 0) && err)
		log_msg(LOG_LVL_ERROR, "%s: is there no more (%s): what is "
			"written will be lost when it is unmounted: copy it "
			"elsewhere, or add a mirror", s->dev->name,
			strerror(-err));
}

bool store_gone(const struct store *s)
{
	return atomic_load(&s->p->lost);
}

unsigned store_stale_sides(struct store *s)
{
	unsigned i, mask = 0;

	for (i = 0; i < bdev_sides(s->dev); i++)
		if (bdev_side_state(s->dev, i) == SIDE_STALE)
			mask |= 1u << i;
	return mask;
}

static int synced_locked(struct store *s, unsigned mask)
{
	unsigned i;
	int err = block_flush(&s->io); /* before any superblock says so */

	if (err)
		return err;
	mask &= store_stale_sides(s); /* it may have failed meanwhile */
	if (!mask)
		return 0;
	for (i = 0; i < BDEV_SIDES; i++)
		if (mask & 1u << i)
			bdev_set_side(s->dev, i, SIDE_GOOD);
	s->p->synced_sides = mask;
	err = commit_locked(s, commit_nothing, NULL, true);
	if (err == -EINPROGRESS || err == -ENOSPC)
		err = 0; /* commit.c, C6: what is made then says so */
	for (i = 0; !err && i < BDEV_SIDES; i++)
		if (mask & 1u << i)
			log_msg(LOG_LVL_INFO, "%s: complete again",
				bdev_side_name(s->dev, i));
	return err;
}

int store_resynced(struct store *s, unsigned mask)
{
	int err;

	if (!mask)
		return 0;
	if (s->p->readonly || store_stopped(s))
		return -EROFS;
	mutex_lock(&s->p->commit_lock);
	err = synced_locked(s, mask);
	mutex_unlock(&s->p->commit_lock);
	return err;
}
