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

	return n == 0 || place_ok(blk, n, total);
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

static bool all_zero(const void *buf, size_t len)
{
	const uint8_t *p = buf;

	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

struct scan {
	struct super_scan *out;
	uint64_t dev_blocks;
	int worst;     /* the most telling error of a bad slot */
	char why[128]; /* and its text */
};

/* Keep the newest generation per slot, and all slots sorted. */
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
		if (out->found[i].gen >= s.gen)
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

static void look_at(struct scan *sc, struct bdev *dev, uint64_t blk)
{
	struct cowfs_disk_super d;
	char why[128] = "superblock unreadable";
	int err;

	if (blk >= sc->dev_blocks)
		return;
	err = bdev_read(dev, blk * COWFS_BLOCK_SIZE, &d, sizeof(d));
	if (!err) {
		if (all_zero(&d, sizeof(d)))
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

int super_scan(struct bdev *dev, struct super_scan *out)
{
	struct scan sc = { .out = out,
			   .dev_blocks = dev->size / COWFS_BLOCK_SIZE };
	uint64_t total;
	unsigned i;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < COWFS_SUPER_SLOTS; i++)
		look_at(&sc, dev, super_slot_block(0, i, false));
	total = out->count ? out->found[0].total_blocks : sc.dev_blocks;
	for (i = 0; total >= COWFS_MIN_BLOCKS && i < COWFS_SUPER_SLOTS; i++)
		look_at(&sc, dev, super_slot_block(total, i, true));
	/* A newer cowfs may have left old slots behind: its word counts. */
	if (sc.worst == -ENOTSUP || out->count == 0)
		return report(sc.worst ? sc.worst : -EINVAL, "%s: %s",
			      dev->name,
			      sc.worst ? sc.why : "no cowfs filesystem found");
	return 0;
}

int super_write(struct blockio *io, const struct cowfs_disk_super *d)
{
	unsigned slot = (unsigned)(from_le64(d->gen) % COWFS_SUPER_SLOTS);
	int err;

	err = block_write(io, super_slot_block(io->blocks, slot, false), 1, d);
	if (err)
		return err;
	return block_write(io, super_slot_block(io->blocks, slot, true), 1, d);
}

/* ---- making slots good ---- */

struct pair {
	struct cowfs_disk_super copy[2]; /* near, far */
	uint64_t gen[2];                 /* 0: not to be believed */
	bool used[2];                    /* holds something */
};

static void read_pair(struct blockio *io, unsigned slot, uint64_t keep,
		      uint64_t passed, struct pair *p)
{
	char why[128];
	bool ro;
	unsigned i;

	for (i = 0; i < 2; i++) {
		struct cowfs_disk_super *d = &p->copy[i];
		uint64_t blk = super_slot_block(io->blocks, slot, i);
		int err = bdev_read(io->dev, blk * COWFS_BLOCK_SIZE, d,
				    sizeof(*d));

		p->gen[i] = 0;
		p->used[i] = err || !all_zero(d, sizeof(*d));
		if (err || super_verify(d, io->blocks, &ro, why, sizeof(why)))
			continue;
		if (from_le64(d->gen) < passed || from_le64(d->gen) == keep)
			p->gen[i] = from_le64(d->gen);
	}
}

static int mend_slot(struct blockio *io, unsigned slot, const struct pair *p,
		     bool *wrote)
{
	static const struct cowfs_disk_super none;
	uint64_t best = max_u64(p->gen[0], p->gen[1]);
	const struct cowfs_disk_super *d = &none;
	unsigned i;
	int err = 0;

	if (best)
		d = &p->copy[p->gen[1] == best];
	for (i = 0; !err && i < 2; i++) {
		if (best ? p->gen[i] == best : !p->used[i])
			continue;
		*wrote = true;
		err = block_write(io, super_slot_block(io->blocks, slot, i), 1,
				  d);
	}
	return err;
}

int super_mend(struct blockio *io, const struct cowfs_disk_super *newest,
	       uint64_t passed)
{
	struct pair *p = malloc(sizeof(*p));
	bool wrote = false;
	unsigned slot;
	int err = 0;

	if (!p)
		return -ENOMEM;
	for (slot = 0; !err && slot < COWFS_SUPER_SLOTS; slot++) {
		read_pair(io, slot, from_le64(newest->gen), passed, p);
		err = mend_slot(io, slot, p, &wrote);
	}
	free(p);
	return err || !wrote ? err : block_flush(io);
}
