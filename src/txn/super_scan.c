/*
 * super_scan.c - which superblocks there are: all slots of all sides are read, the
 * newest of each slot kept; and whether copies were wiped
 *
 * Which of them is believed is decided elsewhere: of sides in sides.c, of
 * generations in choose.c.
 */
#include <stdio.h>

#include "txn/private.h"

#define AHEAD (UINT64_C(128) << 10) /* bytes */

/* ---- reading all slots ---- */

struct scan {
	struct super_scan *out;
	struct bdev *dev;
	unsigned side;
	uint64_t dev_blocks;
	int worst;     /* the most telling error of a bad slot */
	char why[128]; /* and its text */
	unsigned unread[2]; /* mask of slots: near copies, far copies */
};

/* Keep the newest generation per slot, of its copies one that is proven to be
 * complete, and all slots sorted. */
static void keep(struct super_scan *out, const struct cowfs_disk_super *d)
{
	struct super s = { .d = *d,
			   .gen = from_le64(d->gen),
			   .total_blocks = from_le64(d->total_blocks),
			   .node_size = from_le32(d->node_size) };
	unsigned i, at;

	for (i = 0; i < out->count; i++) {
		if (out->found[i].d.slot != d->slot)
			continue;
		if (out->found[i].gen > s.gen ||
		    (out->found[i].gen == s.gen &&
		     (super_proven(&out->found[i].d) || !super_proven(d))))
			return;
		memmove(&out->found[i], &out->found[i + 1],
			(out->count - i - 1) * sizeof(s));
		out->count--;
		break;
	}
	for (at = 0; at < out->count && out->found[at].gen > s.gen; at++)
		;
	memmove(&out->found[at + 1], &out->found[at],
		(out->count - at) * sizeof(s));
	out->found[at] = s;
	out->count++;
	out->max_gen = max_u64(out->max_gen, s.gen);
}

static int severity(int err)
{
	return err == -ENOTSUP ? 4 : err == -ECOW_CORRUPT ? 3 :
	       err == -ECOW_CSUM ? 2 : err == -EIO ? 1 : 0;
}

static void note_odd(struct super_scan *out, uint64_t gen, const char *why)
{
	if (gen <= out->odd_gen)
		return;
	out->odd_gen = gen;
	snprintf(out->odd_why, sizeof(out->odd_why), "%s", why);
}

static void look_at(struct scan *sc, uint64_t total, unsigned slot, bool far)
{
	uint64_t blk = super_slot_block(total, slot, far);
	struct cowfs_disk_super d;
	char why[128] = "superblock unreadable";
	int err;

	if (blk >= sc->dev_blocks)
		return;
	err = bdev_read_side(sc->dev, sc->side, blk * COWFS_BLOCK_SIZE, &d,
			     sizeof(d));
	if (err) {
		sc->unread[far] |= 1u << slot;
	} else {
		if (super_empty(&d))
			return;
		err = super_verify(&d, sc->dev_blocks, &sc->out->ro_only, why,
				   sizeof(why));
	}
	if (!err) {
		keep(sc->out, &d);
		return;
	}
	sc->out->bad++;
	if (err == -ECOW_CORRUPT)
		note_odd(sc->out, from_le64(d.gen), why);
	if (severity(err) > severity(sc->worst) || sc->worst == 0) {
		sc->worst = err;
		memcpy(sc->why, why, sizeof(why));
	}
}

/* Where they are, if the filesystem fills the device; behind the near ones the
 * log begins. */
static void tell_ahead(struct bdev *dev, uint64_t blocks)
{
	if (blocks < COWFS_MIN_BLOCKS)
		return;
	bdev_ahead(dev, super_slot_block(0, 0, false) * COWFS_BLOCK_SIZE,
		   AHEAD);
	bdev_ahead(dev, super_slot_block(blocks, 0, true) * COWFS_BLOCK_SIZE,
		   COWFS_SUPER_SLOTS * COWFS_BLOCK_SIZE);
}

/* All slots of one side. */
static void scan_side(struct scan *sc, struct bdev *dev, unsigned side,
		      struct super_scan *out)
{
	uint64_t total;
	unsigned i;

	*sc = (struct scan){ .out = out, .dev = dev, .side = side,
			     .dev_blocks = dev->size / COWFS_BLOCK_SIZE };
	memset(out, 0, sizeof(*out));
	if (bdev_side_state(dev, side) == SIDE_GONE)
		return;
	tell_ahead(dev, sc->dev_blocks);
	for (i = 0; i < COWFS_SUPER_SLOTS; i++)
		look_at(sc, 0, i, false);
	total = out->count ? out->found[0].total_blocks : sc->dev_blocks;
	for (i = 0; total >= COWFS_MIN_BLOCKS && i < COWFS_SUPER_SLOTS; i++)
		look_at(sc, total, i, true);
	out->unread = sc->unread[0] & sc->unread[1];
}

static int scan_error(const struct scan *sc)
{
	return report(sc->worst ? sc->worst : -EINVAL, "%s: %s",
		      bdev_side_name(sc->dev, sc->side),
		      sc->worst ? sc->why : "no cowfs filesystem found");
}

static int scan_plain(struct bdev *dev, struct super_scan *out)
{
	struct scan sc;

	scan_side(&sc, dev, 0, out);
	/* A newer cowfs may have left old slots behind: its word counts. */
	if (sc.worst == -ENOTSUP || out->count == 0)
		return scan_error(&sc);
	if (from_le64(out->found[0].d.incompat) & COWFS_INCOMPAT_MIRROR)
		return report(-ENODEV, "%s: is one side of a mirror; the other "
			      "is missing", dev->name);
	return 0;
}

int super_newest(struct bdev *dev, struct super *out)
{
	struct super_scan *scan = malloc(sizeof(*scan));
	struct scan sc;
	int err = -ENOENT;

	if (!scan)
		return -ENOMEM;
	scan_side(&sc, dev, 0, scan);
	if (sc.worst != -ENOTSUP && scan->count) {
		*out = scan->found[0];
		err = 0;
	}
	free(scan);
	return err;
}

/* Of a side that was not given up the one after the newest may be there, whatever
 * the other, which may have been given up just then, has in that slot. */
static unsigned newer_unread(struct bdev *dev, const struct super_scan *one,
			     const struct super_scan *out)
{
	const struct super *newest = &out->found[0];
	unsigned next = 1u << (newest->gen + 1) % COWFS_SUPER_SLOTS, side;

	for (side = 0; out->count && side < bdev_sides(dev); side++)
		if (one[side].unread & next &&
		    !from_le64(newest->d.mirror.stale_gen[side]))
			return next;
	return 0;
}

/* What the sides that are GOOD have. */
static void merge(struct bdev *dev, const struct super_scan *one,
		  struct super_scan *out)
{
	unsigned side, i;

	memset(out, 0, sizeof(*out));
	out->unread = (1u << COWFS_SUPER_SLOTS) - 1;
	for (side = 0; side < bdev_sides(dev); side++) {
		out->max_gen = max_u64(out->max_gen, one[side].max_gen);
		if (bdev_side_state(dev, side) != SIDE_GOOD)
			continue;
		out->newest[side] = one[side].max_gen;
		out->bad += one[side].bad;
		out->unread &= one[side].unread;
		out->ro_only |= one[side].ro_only;
		note_odd(out, one[side].odd_gen, one[side].odd_why);
		for (i = 0; i < one[side].count; i++)
			keep(out, &one[side].found[i].d);
	}
	out->unread |= newer_unread(dev, one, out);
}

/* Since when the other side, which is good, calls this one stale: if it did not
 * until now, this one may have what the other has. */
static uint64_t stale_since(const struct super_scan *one, unsigned side)
{
	uint64_t gen = sides_said_stale(one, !side, side);

	return gen ? gen : one[!side].max_gen;
}

static int scan_mirror(struct bdev *dev, struct super_scan *one,
		       struct super_scan *out)
{
	struct scan sc[BDEV_SIDES];
	unsigned i, worst = 0;
	int err;

	for (i = 0; i < BDEV_SIDES; i++) {
		scan_side(&sc[i], dev, i, &one[i]);
		if (severity(sc[i].worst) > severity(sc[worst].worst))
			worst = i;
	}
	if (sc[worst].worst == -ENOTSUP || !(one[0].count + one[1].count))
		return scan_error(&sc[worst]);
	err = sides_judge(dev, one);
	if (err)
		return err;
	merge(dev, one, out);
	for (i = 0; i < BDEV_SIDES; i++)
		if (out->count && bdev_side_state(dev, i) != SIDE_GOOD)
			out->stale_gen[i] = stale_since(one, i);
	for (i = 0; i < BDEV_SIDES; i++)
		if (bdev_side_state(dev, i) == SIDE_STALE && one[i].count &&
		    one[!i].count && sides_same(&one[i].found[0],
						&one[!i].found[0]))
			out->kept |= 1u << i;
	return 0;
}

int super_scan(struct bdev *dev, struct super_scan *out)
{
	struct super_scan *one;
	int err;

	if (bdev_sides(dev) == 1)
		return scan_plain(dev, out);
	one = calloc(BDEV_SIDES, sizeof(*one));
	err = one ? scan_mirror(dev, one, out) : -ENOMEM;
	free(one);
	return err;
}

/* ---- what was wiped ---- */

/* NEWER: of a commit that was begun after the newest that is believed. */
enum copy_state { COPY_EMPTY, COPY_GOOD, COPY_NEWER, COPY_OTHER };

static enum copy_state copy_state(struct bdev *dev, unsigned side, uint64_t blk,
				  const struct cowfs_disk_super *newest)
{
	struct cowfs_disk_super d;
	char why[128];
	bool ro;

	if (bdev_read_side(dev, side, blk * COWFS_BLOCK_SIZE, &d, sizeof(d)))
		return COPY_OTHER;
	/* super_mend empties the first sector, and leaves the rest */
	if (super_empty(&d))
		return memcmp(&d, (const uint8_t *)&d + 1, sizeof(d) - 1) ?
			       COPY_OTHER : COPY_EMPTY;
	if (super_verify(&d, dev->size / COWFS_BLOCK_SIZE, &ro, why,
			 sizeof(why)) ||
	    memcmp(d.uuid, newest->uuid, sizeof(d.uuid)) ||
	    from_le64(d.total_blocks) != from_le64(newest->total_blocks))
		return COPY_OTHER;
	return from_le64(d.gen) > from_le64(newest->gen) ? COPY_NEWER :
							   COPY_GOOD;
}

static void copy_states(struct bdev *dev, unsigned side,
			const struct cowfs_disk_super *newest,
			enum copy_state st[COWFS_SUPER_SLOTS][2])
{
	uint64_t total = from_le64(newest->total_blocks);
	unsigned i;

	for (i = 0; i < 2 * COWFS_SUPER_SLOTS; i++)
		st[i / 2][i % 2] = copy_state(dev, side,
			super_slot_block(total, i / 2, i % 2), newest);
}

/* Was it closed in order, and not gone on with since? */
static bool at_rest(const struct cowfs_disk_super *newest,
		    enum copy_state st[COWFS_SUPER_SLOTS][2])
{
	unsigned i;

	for (i = 0; i < 2 * COWFS_SUPER_SLOTS; i++)
		if (st[i / 2][i % 2] == COPY_NEWER)
			return false;
	return newest->state & COWFS_STATE_CLEAN;
}

bool super_at_rest(struct bdev *dev, const struct cowfs_disk_super *newest)
{
	enum copy_state st[COWFS_SUPER_SLOTS][2];
	unsigned side;

	for (side = 0; side < bdev_sides(dev); side++) {
		if (bdev_side_state(dev, side) != SIDE_GOOD)
			continue;
		copy_states(dev, side, newest, st);
		if (!at_rest(newest, st))
			return false;
	}
	return true;
}

unsigned super_lost_copies(struct bdev *dev, unsigned side,
			   const struct cowfs_disk_super *newest)
{
	unsigned next = (newest->slot + 1u) % COWFS_SUPER_SLOTS, lost = 0, i;
	enum copy_state st[COWFS_SUPER_SLOTS][2];
	bool clean;

	copy_states(dev, side, newest, st);
	clean = at_rest(newest, st);
	for (i = 0; i < 2 * COWFS_SUPER_SLOTS; i++)
		if ((clean || (i / 2 != newest->slot && i / 2 != next)) &&
		    st[i / 2][i % 2] == COPY_EMPTY &&
		    st[i / 2][!(i % 2)] == COPY_GOOD)
			lost |= 1u << i;
	return clean || lost & (lost - 1) ? lost : 0;
}

/* Of one side, of which copies are lost: may there have been a newer one? */
static bool newer_in_doubt(struct bdev *dev, unsigned side,
			   const struct cowfs_disk_super *newest)
{
	enum copy_state st[COWFS_SUPER_SLOTS][2];
	unsigned i;

	if (!(newest->state & COWFS_STATE_CLEAN))
		return true; /* fsyncs at least */
	copy_states(dev, side, newest, st);
	for (i = 0; i < COWFS_SUPER_SLOTS; i++)
		if ((st[i][0] == COPY_EMPTY || st[i][0] == COPY_OTHER) &&
		    (st[i][1] == COPY_EMPTY || st[i][1] == COPY_OTHER))
			return true;
	return false;
}

bool super_in_doubt(struct bdev *dev, const struct cowfs_disk_super *newest)
{
	unsigned side;

	for (side = 0; side < bdev_sides(dev); side++)
		if (bdev_side_state(dev, side) == SIDE_GOOD &&
		    super_lost_copies(dev, side, newest) &&
		    newer_in_doubt(dev, side, newest))
			return true;
	return false;
}
