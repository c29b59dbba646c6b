/*
 * super.c - the superblock and its slots
 *
 *   The slot of generation g is g % 4, at the start and at the end of the
 *   device, so the four newest generations have two copies each, and writing
 *   the next never touches the three before it.
 */
#include <inttypes.h>
#include <stdio.h>

#include "txn/private.h"

#define AHEAD (UINT64_C(128) << 10) /* bytes */
#define CSUM_FROM offsetof(struct cowfs_disk_super, version)

static uint32_t super_csum(const struct cowfs_disk_super *d)
{
	return checksum(0, (const uint8_t *)d + CSUM_FROM,
			sizeof(*d) - CSUM_FROM);
}

void super_seal(struct cowfs_disk_super *d)
{
	d->slot = (uint8_t)(from_le64(d->gen) % COWFS_SUPER_SLOTS);
	d->csum = to_le32(super_csum(d));
}

uint64_t super_slot_block(uint64_t total_blocks, unsigned slot, bool far)
{
	return far ? total_blocks - COWFS_SUPER_SLOTS + slot
		   : COWFS_SUPER_NEAR + slot;
}

static bool node_size_ok(uint32_t n)
{
	return n >= COWFS_MIN_NODE_SIZE && n <= COWFS_MAX_NODE_SIZE &&
	       (n & (n - 1)) == 0;
}

/* Is [blk, blk + n) a place where a node may lie? */
static bool place_ok(uint64_t blk, uint64_t n, uint64_t total)
{
	return blk >= COWFS_FIRST_BLOCK && blk <= total - COWFS_SUPER_SLOTS &&
	       n <= total - COWFS_SUPER_SLOTS - blk;
}

static bool root_ok(const struct cowfs_disk_root *r, uint64_t total,
		    uint32_t node_size, uint64_t gen)
{
	struct nptr p = nptr_from_disk(&r->ptr);
	uint64_t n = node_size / COWFS_BLOCK_SIZE;

	if (p.blk == 0)
		return p.blk2 == 0;
	return place_ok(p.blk, n, total) && p.blk % n == 0 &&
	       (p.blk2 == 0 || (place_ok(p.blk2, n, total) &&
				p.blk2 % n == 0 && p.blk2 != p.blk)) &&
	       p.gen <= gen && p.level <= COWFS_MAX_LEVEL;
}

static bool log_ok(const struct cowfs_disk_area *log, uint64_t total)
{
	uint64_t blk = from_le64(log->blk), n = from_le32(log->blocks);

	return n == 0 ||
	       (n <= COWFS_LOG_BLOCKS_MAX && place_ok(blk, n, total));
}

static const char *mirror_fault(const struct cowfs_disk_super *d)
{
	const struct cowfs_disk_mirror *m = &d->mirror;
	unsigned i = from_le16(d->dev_index);

	if (!(from_le64(d->incompat) & COWFS_INCOMPAT_MIRROR))
		return NULL;
	if (i >= BDEV_SIDES || from_le16(d->dev_count) != BDEV_SIDES ||
	    memcmp(d->dev_uuid, m->dev_uuid[i], sizeof(d->dev_uuid)) != 0 ||
	    memcmp(m->dev_uuid[0], m->dev_uuid[1], sizeof(d->dev_uuid)) == 0)
		return "the sides of the mirror are impossible";
	for (i = 0; i < BDEV_SIDES; i++)
		if (from_le64(d->both_gen) >= from_le64(d->gen) ||
		    from_le64(m->stale_gen[i]) > from_le64(d->gen) ||
		    from_le64(m->since_gen[i]) > from_le64(d->gen) ||
		    from_le64(m->synced_gen[i]) > from_le64(d->gen))
			return "the state of the mirror is impossible";
	return NULL;
}

static const char *geometry_fault(const struct cowfs_disk_super *d,
				  uint64_t dev_blocks)
{
	uint64_t total = from_le64(d->total_blocks);

	if (from_le32(d->block_size) != COWFS_BLOCK_SIZE)
		return "block size is not 4096";
	if (!node_size_ok(from_le32(d->node_size)))
		return "node size is impossible";
	if (total < COWFS_MIN_BLOCKS || total > COWFS_MAX_BLOCKS)
		return "size is impossible";
	if (total > dev_blocks)
		return "the device is smaller than the filesystem";
	if (from_le64(d->free_blocks) > total)
		return "more blocks free than there are";
	if (d->meta_copies < 1 || d->meta_copies > 2 || d->data_copies < 1 ||
	    d->data_copies > 2)
		return "number of copies is impossible";
	if (!log_ok(&d->log, total))
		return "the log's place is impossible";
	if (d->label[COWFS_LABEL_MAX] != '\0')
		return "label is not terminated";
	return NULL;
}

static const char *contents_fault(const struct cowfs_disk_super *d,
				  uint64_t dev_blocks)
{
	const char *fault = geometry_fault(d, dev_blocks);
	uint64_t gen = from_le64(d->gen);
	uint64_t ino = from_le64(d->next_ino);
	unsigned i;

	if (!fault)
		fault = mirror_fault(d);
	if (fault)
		return fault;
	if (gen == 0 || gen >> 63 || /* it has to count on */
	    d->slot != gen % COWFS_SUPER_SLOTS)
		return "generation does not fit its slot";
	if (ino < COWFS_INO_FIRST || ino > COWFS_INO_MAX)
		return "next inode number is impossible";
	/* the upper half of the numbers is for the names of snapshots */
	if (from_le64(d->next_snap) == 0 || from_le64(d->next_snap) >> 63 ||
	    from_le64(d->shared_gen) > gen)
		return "snapshot numbers are impossible";
	for (i = 0; i < COWFS_ROOTS; i++)
		if (!root_ok(&d->roots[i], from_le64(d->total_blocks),
			     from_le32(d->node_size), gen))
			return "a root pointer is impossible";
	return NULL;
}

int super_verify(const struct cowfs_disk_super *d, uint64_t dev_blocks,
		 bool *ro, char *why, size_t why_len)
{
	const char *fault;

	if (memcmp(d->magic, COWFS_MAGIC, sizeof(d->magic)) != 0) {
		snprintf(why, why_len, "no cowfs superblock");
		return -EINVAL;
	}
	if (from_le32(d->csum) != super_csum(d)) {
		snprintf(why, why_len, "superblock checksum wrong");
		return -ECOW_CSUM;
	}
	if (from_le32(d->version) != COWFS_FORMAT_VERSION ||
	    (from_le64(d->incompat) & ~COWFS_INCOMPAT_SUPPORTED) ||
	    d->csum_kind != COWFS_CSUM_CRC32) {
		snprintf(why, why_len,
			 "format version %" PRIu32 ", features %#" PRIx64
			 ": made by a newer cowfs",
			 from_le32(d->version), from_le64(d->incompat));
		return -ENOTSUP;
	}
	fault = contents_fault(d, dev_blocks);
	if (fault) {
		snprintf(why, why_len, "superblock: %s", fault);
		return -ECOW_CORRUPT;
	}
	if (from_le64(d->ro_compat) & ~COWFS_RO_COMPAT_SUPPORTED)
		*ro = true;
	return 0;
}

/* ---- reading all slots ---- */

bool super_empty(const struct cowfs_disk_super *d)
{
	const uint8_t *p = (const uint8_t *)d;

	return p[0] == 0 && memcmp(p, p + 1, COWFS_SUPER_SECTOR - 1) == 0;
}

struct scan {
	struct super_scan *out;
	struct bdev *dev;
	unsigned side;
	uint64_t dev_blocks;
	int worst;     /* the most telling error of a bad slot */
	char why[128]; /* and its text */
};

bool super_proven(const struct cowfs_disk_super *d)
{
	return !(d->state & COWFS_STATE_UNVERIFIED);
}

bool super_goes_on_from(const struct cowfs_disk_super *d, uint64_t gen)
{
	uint64_t back = from_le32(d->back);

	return back && from_le64(d->gen) == gen + back;
}

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

static void look_at(struct scan *sc, uint64_t blk)
{
	struct cowfs_disk_super d;
	char why[128] = "superblock unreadable";
	int err;

	if (blk >= sc->dev_blocks)
		return;
	err = bdev_read_side(sc->dev, sc->side, blk * COWFS_BLOCK_SIZE, &d,
			     sizeof(d));
	if (!err) {
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
		look_at(sc, super_slot_block(0, i, false));
	total = out->count ? out->found[0].total_blocks : sc->dev_blocks;
	for (i = 0; total >= COWFS_MIN_BLOCKS && i < COWFS_SUPER_SLOTS; i++)
		look_at(sc, super_slot_block(total, i, true));
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

/* What the sides that are GOOD have. */
static void merge(struct bdev *dev, const struct super_scan *one,
		  struct super_scan *out)
{
	unsigned side, i;

	memset(out, 0, sizeof(*out));
	for (side = 0; side < bdev_sides(dev); side++) {
		out->max_gen = max_u64(out->max_gen, one[side].max_gen);
		if (bdev_side_state(dev, side) != SIDE_GOOD)
			continue;
		out->newest[side] = one[side].max_gen;
		out->bad += one[side].bad;
		out->ro_only |= one[side].ro_only;
		for (i = 0; i < one[side].count; i++)
			keep(out, &one[side].found[i].d);
	}
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

enum copy_state { COPY_EMPTY, COPY_GOOD, COPY_OTHER };

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
	return super_verify(&d, dev->size / COWFS_BLOCK_SIZE, &ro, why,
			    sizeof(why)) ||
			       memcmp(d.uuid, newest->uuid, sizeof(d.uuid)) ||
			       from_le64(d.total_blocks) !=
				       from_le64(newest->total_blocks) ?
		       COPY_OTHER : COPY_GOOD;
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

unsigned super_lost_copies(struct bdev *dev, unsigned side,
			   const struct cowfs_disk_super *newest)
{
	unsigned next = (newest->slot + 1u) % COWFS_SUPER_SLOTS, lost = 0, i;
	bool clean = newest->state & COWFS_STATE_CLEAN;
	enum copy_state st[COWFS_SUPER_SLOTS][2];

	copy_states(dev, side, newest, st);
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
		if (st[i][0] != COPY_GOOD && st[i][1] != COPY_GOOD)
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

/* ---- writing ---- */

static int write_side(struct blockio *io, unsigned side, bool far,
		      const struct cowfs_disk_super *d)
{
	unsigned slot = (unsigned)(from_le64(d->gen) % COWFS_SUPER_SLOTS);
	struct cowfs_disk_super own;

	super_for_side(d, side, &own);
	return block_write_side(io, side,
				super_slot_block(io->blocks, slot, far), 1,
				&own);
}

static int write_copies(struct blockio *io, bool far,
			const struct cowfs_disk_super *d)
{
	unsigned side;
	int err;

	for (side = 0; side < bdev_sides(io->dev); side++) {
		if (bdev_side_state(io->dev, side) == SIDE_GONE)
			continue;
		err = write_side(io, side, far, d);
		/* one that was dropped for it is not missed */
		if (err && bdev_side_state(io->dev, side) != SIDE_GONE)
			return err;
	}
	return 0;
}

int super_write(struct blockio *io, const struct cowfs_disk_super *d)
{
	int err = write_copies(io, false, d);

	return err ? err : write_copies(io, true, d);
}

int super_mark_proven(struct blockio *io, struct cowfs_disk_super *d)
{
	if (super_proven(d))
		return 0;
	d->state &= (uint8_t)~COWFS_STATE_UNVERIFIED;
	super_seal(d);
	return write_copies(io, false, d);
}

int super_mark_clean(struct blockio *io, struct cowfs_disk_super *d)
{
	unsigned far;
	int err = 0;

	d->state |= COWFS_STATE_CLEAN;
	super_seal(d);
	for (far = 0; !err && far < 2; far++) {
		err = write_copies(io, far, d);
		if (!err)
			err = block_flush(io);
	}
	return err;
}

/* ---- making slots good ---- */

/* One slot: its copies near and far, on each side. */
struct slot_copy {
	struct cowfs_disk_super d;
	bool there; /* its side is */
	bool readable;
};

struct slot {
	struct slot_copy copy[BDEV_SIDES][2];
	const struct cowfs_disk_super *best; /* NULL: none is to be believed */
};

static void read_slot(struct blockio *io, unsigned slot, uint64_t keep,
		      uint64_t passed, struct slot *s)
{
	unsigned side, far, sides = bdev_sides(io->dev);
	uint64_t best = 0, gen;
	char why[128];
	bool ro;

	memset(s, 0, sizeof(*s));
	for (side = 0; side < sides; side++)
		for (far = 0; far < 2; far++) {
			struct slot_copy *c = &s->copy[side][far];
			uint64_t blk = super_slot_block(io->blocks, slot, far);
			enum bdev_side st = bdev_side_state(io->dev, side);

			c->there = st != SIDE_GONE;
			c->readable = c->there &&
				!bdev_read_side(io->dev, side,
						blk * COWFS_BLOCK_SIZE, &c->d,
						sizeof(c->d));
			if (!c->readable || st != SIDE_GOOD ||
			    super_verify(&c->d, io->blocks, &ro, why,
					 sizeof(why)))
				continue;
			gen = from_le64(c->d.gen);
			if ((gen >= passed && gen != keep) || gen < best)
				continue;
			if (gen == best && !super_proven(&c->d))
				continue;
			best = gen;
			s->best = &c->d;
		}
}

/* But for what tells that it was complete, which one copy has that is written
 * later than the other. */
static bool good_enough(const struct cowfs_disk_super *d,
			const struct cowfs_disk_super *want)
{
	struct cowfs_disk_super x = *d;

	if (!super_proven(d) && super_proven(want) &&
	    from_le32(d->csum) == super_csum(d)) {
		x.state &= (uint8_t)~COWFS_STATE_UNVERIFIED;
		super_seal(&x);
	}
	return memcmp(&x, want, sizeof(x)) == 0;
}

/* What a copy is to become; best NULL: empty. */
static void wanted(const struct slot_copy *c, unsigned side,
		   const struct cowfs_disk_super *best,
		   struct cowfs_disk_super *out)
{
	memset(out, 0, sizeof(*out));
	if (best) {
		super_for_side(best, side, out);
	} else {
		*out = c->d; /* what is torn then is whole or empty */
		memset(out, 0, COWFS_SUPER_SECTOR);
	}
}

static int mend_slot(struct blockio *io, unsigned slot, const struct slot *s,
		     bool *wrote)
{
	struct cowfs_disk_super want;
	unsigned side, far;
	int err;

	for (side = 0; side < BDEV_SIDES; side++) {
		for (far = 0; far < 2; far++) {
			const struct slot_copy *c = &s->copy[side][far];

			/* What cannot be read now may be all there is. */
			if (!c->there || (!c->readable && !s->best))
				continue;
			wanted(c, side, s->best, &want);
			if (c->readable && good_enough(&c->d, &want))
				continue;
			*wrote = true;
			err = block_write_side(io, side,
					       super_slot_block(io->blocks,
								slot, far),
					       1, &want);
			if (err && bdev_side_state(io->dev, side) != SIDE_GONE)
				return err;
		}
	}
	return 0;
}

int super_mend(struct blockio *io, const struct cowfs_disk_super *newest,
	       uint64_t passed)
{
	struct slot *s = malloc(sizeof(*s));
	bool wrote = false;
	unsigned slot;
	int err = 0;

	if (!s)
		return -ENOMEM;
	for (slot = 0; !err && slot < COWFS_SUPER_SLOTS; slot++) {
		read_slot(io, slot, from_le64(newest->gen), passed, s);
		err = mend_slot(io, slot, s, &wrote);
	}
	free(s);
	return err || !wrote ? err : block_flush(io);
}
