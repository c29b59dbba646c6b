/*
 * super.c - the superblock: what may stand in it, writing it, making slots good
 *
 *   The slot of generation g is g % 4, at the start and at the end of the
 *   device, so the four newest generations have two copies each, and writing
 *   the next never touches the three before it.
 */
#include <inttypes.h>
#include <stdio.h>

#include "txn/private.h"

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

bool super_may_name(const struct cowfs_disk_super *d, const struct nptr *root)
{
	struct cowfs_disk_root r = { .ptr = nptr_to_disk(root) };

	return root_ok(&r, from_le64(d->total_blocks),
		       from_le32(d->node_size), from_le64(d->gen));
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

static const char *geometry_fault(const struct cowfs_disk_super *d)
{
	uint64_t total = from_le64(d->total_blocks);

	if (from_le32(d->block_size) != COWFS_BLOCK_SIZE)
		return "block size is not 4096";
	if (!node_size_ok(from_le32(d->node_size)))
		return "node size is impossible";
	if (total < COWFS_MIN_BLOCKS || total > COWFS_MAX_BLOCKS)
		return "size is impossible";
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

static const char *contents_fault(const struct cowfs_disk_super *d)
{
	const char *fault = geometry_fault(d);
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
	fault = contents_fault(d);
	if (fault) {
		snprintf(why, why_len, "superblock: %s", fault);
		return -ECOW_CORRUPT;
	}
	if (from_le64(d->total_blocks) > dev_blocks) {
		snprintf(why, why_len, "superblock: cut off after %" PRIu64
			 " of %" PRIu64 " bytes (truncate -s makes an image "
			 "as long again)", dev_blocks * COWFS_BLOCK_SIZE,
			 from_le64(d->total_blocks) * COWFS_BLOCK_SIZE);
		return -ECOW_CORRUPT;
	}
	if (from_le64(d->ro_compat) & ~COWFS_RO_COMPAT_SUPPORTED)
		*ro = true;
	return 0;
}

bool super_empty(const struct cowfs_disk_super *d)
{
	const uint8_t *p = (const uint8_t *)d;

	return p[0] == 0 && memcmp(p, p + 1, COWFS_SUPER_SECTOR - 1) == 0;
}

bool super_proven(const struct cowfs_disk_super *d)
{
	return !(d->state & COWFS_STATE_UNVERIFIED);
}

bool super_goes_on_from(const struct cowfs_disk_super *d, uint64_t gen)
{
	uint64_t back = from_le32(d->back);

	return back && from_le64(d->gen) == gen + back;
}

/* ---- writing ---- */

/* On each side its own. Where no side has room none is dropped for it: it can be
 * tried again (commit.c, C6). */
static int write_copies(struct blockio *io, bool far,
			const struct cowfs_disk_super *d)
{
	unsigned slot = (unsigned)(from_le64(d->gen) % COWFS_SUPER_SLOTS), i;
	struct cowfs_disk_super own[BDEV_SIDES];
	const void *buf[BDEV_SIDES] = { NULL };

	for (i = 0; i < bdev_sides(io->dev); i++) {
		super_for_side(d, i, &own[i]);
		buf[i] = &own[i];
	}
	return block_write_each(io, super_slot_block(io->blocks, slot, far), 1,
				buf);
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

/* Is it to be written? Then *want is what. */
static bool to_mend(const struct slot_copy *c, unsigned side,
		    const struct cowfs_disk_super *best,
		    struct cowfs_disk_super *want)
{
	/* What cannot be read now may be all there is. */
	if (!c->there || (!c->readable && !best))
		return false;
	wanted(c, side, best, want);
	return !c->readable || !good_enough(&c->d, want);
}

static int mend_slot(struct blockio *io, unsigned slot, const struct slot *s,
		     bool *wrote)
{
	struct cowfs_disk_super want[BDEV_SIDES];
	const void *buf[BDEV_SIDES];
	unsigned side, far;
	int err = 0;

	for (far = 0; !err && far < 2; far++) {
		for (side = 0; side < BDEV_SIDES; side++) {
			buf[side] = to_mend(&s->copy[side][far], side, s->best,
					    &want[side]) ? &want[side] : NULL;
			*wrote |= buf[side] != NULL;
		}
		err = block_write_each(io, super_slot_block(io->blocks, slot,
							    far), 1, buf);
	}
	return err;
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
