/*
 * log_read.c - reading the log: records and entries (txn.h, format.h)
 */
#include "txn/log.h"

/* So many blocks may be damaged in a row, and what follows is still found. */
#define LOG_LOOK_BEHIND (4 * LOG_RECORD_MAX / COWFS_BLOCK_SIZE)

bool log_counts(const struct cowfs_disk_super *super)
{
	return from_le32(super->log.blocks) &&
	       !(super->state & COWFS_STATE_CLEAN);
}

int log_reader_init(struct log_reader *l, struct bdev *dev,
		    const struct cowfs_disk_super *super)
{
	*l = (struct log_reader){ .dev = dev, .super = super };
	l->buf = aligned_alloc(COWFS_BLOCK_SIZE, LOG_RECORD_MAX);
	return l->buf ? 0 : -ENOMEM;
}

void log_reader_fini(struct log_reader *l)
{
	free(l->buf);
	l->buf = NULL;
}

static bool head_ok(const struct cowfs_disk_super *super,
		    const struct cowfs_disk_log *d, uint64_t seq, uint64_t room)
{
	uint32_t len = from_le32(d->len);

	return from_le32(d->magic) == COWFS_LOG_MAGIC &&
	       memcmp(d->uuid, super->uuid, sizeof(d->uuid)) == 0 &&
	       from_le64(d->base) == from_le64(super->gen) &&
	       from_le64(d->seq) == seq && len >= sizeof(*d) && len <= room &&
	       len <= LOG_RECORD_MAX;
}

int log_read_side(const struct log_reader *l, unsigned side, uint64_t at,
		  uint64_t seq, uint64_t *blocks)
{
	const struct cowfs_disk_log *d = (const void *)l->buf;
	uint64_t area = from_le32(l->super->log.blocks);
	uint64_t off = (from_le64(l->super->log.blk) + at) * COWFS_BLOCK_SIZE;
	uint32_t len;

	if (at >= area)
		return -ENOENT;
	if (bdev_read_side(l->dev, side, off, l->buf, COWFS_BLOCK_SIZE) ||
	    !head_ok(l->super, d, seq, (area - at) * COWFS_BLOCK_SIZE))
		return -ENOENT;
	len = from_le32(d->len);
	*blocks = blocks_of(len);
	if (bdev_read_side(l->dev, side, off, l->buf,
			   *blocks * COWFS_BLOCK_SIZE) ||
	    checksum(0, l->buf + 8, len - 8) != from_le32(d->csum))
		return -ENOENT;
	return 0;
}

int log_read(const struct log_reader *l, uint64_t at, uint64_t seq,
	     uint64_t *blocks)
{
	unsigned side;
	int err = -ENOENT;

	for (side = 0; err && side < bdev_sides(l->dev); side++)
		if (bdev_side_state(l->dev, side) == SIDE_GOOD)
			err = log_read_side(l, side, at, seq, blocks);
	return err;
}

uint64_t log_newest_base(const struct log_reader *l, bool stale)
{
	struct cowfs_disk_super super = *l->super;
	struct log_reader r = { l->dev, &super, l->buf };
	const struct cowfs_disk_log *d = (const void *)l->buf;
	uint64_t off = from_le64(super.log.blk) * COWFS_BLOCK_SIZE;
	uint64_t newest = 0, blocks;
	unsigned side;

	for (side = 0; side < bdev_sides(l->dev); side++) {
		enum bdev_side state = bdev_side_state(l->dev, side);

		if (!from_le32(super.log.blocks) || state == SIDE_GONE ||
		    (state == SIDE_STALE && !stale) ||
		    bdev_read_side(l->dev, side, off, l->buf,
				   COWFS_BLOCK_SIZE))
			continue;
		super.gen = d->base;
		if (from_le64(d->base) > newest &&
		    !log_read_side(&r, side, 0, 0, &blocks))
			newest = from_le64(super.gen);
	}
	return newest;
}

/* Does a record later than seq begin at block `at`? */
static bool later_record(const struct log_reader *l, uint64_t at, uint64_t seq)
{
	const struct cowfs_disk_log *d = (const void *)l->buf;
	uint64_t off = (from_le64(l->super->log.blk) + at) * COWFS_BLOCK_SIZE;
	uint64_t there, blocks;
	unsigned side;

	if (at >= from_le32(l->super->log.blocks))
		return false;
	for (side = 0; side < bdev_sides(l->dev); side++) {
		if (bdev_side_state(l->dev, side) != SIDE_GOOD ||
		    bdev_read_side(l->dev, side, off, l->buf,
				   COWFS_BLOCK_SIZE))
			continue;
		there = from_le64(d->seq);
		if (there > seq && !log_read_side(l, side, at, there, &blocks))
			return true;
	}
	return false;
}

bool log_goes_on(const struct log_reader *l, uint64_t at, uint64_t seq)
{
	if (at == 0 && log_newest_base(l, false) > from_le64(l->super->gen))
		return false; /* begun anew: what follows is what is left */
	bdev_ahead(l->dev, (from_le64(l->super->log.blk) + at) *
			   COWFS_BLOCK_SIZE, LOG_LOOK_BEHIND * COWFS_BLOCK_SIZE);
	for (uint64_t i = 1; i <= LOG_LOOK_BEHIND; i++)
		if (later_record(l, at + i, seq))
			return true;
	return false;
}

static bool entry_ok(const struct log_reader *l, const struct record_entry *e)
{
	switch (e->kind) {
	case COWFS_LOG_ITEM:
		return e->item.len <=
		       COWFS_ITEM_MAX(from_le32(l->super->node_size));
	case COWFS_LOG_GONE:
		return e->item.len == 0;
	case COWFS_LOG_BLOCK:
		return e->item.len == COWFS_BLOCK_SIZE;
	}
	return false;
}

bool log_next_entry(const struct log_reader *l, const uint8_t *rec, size_t *at,
		    struct record_entry *e)
{
	const struct cowfs_disk_log *d = (const void *)rec;
	size_t len = from_le32(d->len);
	struct cowfs_disk_log_entry de;

	if (len - *at < sizeof(de))
		return false;
	memcpy(&de, rec + *at, sizeof(de));
	*at += sizeof(de);
	e->key = key_from_disk(&de.key);
	e->kind = de.kind;
	e->item.len = from_le16(de.len);
	e->item.data = rec + *at;
	if (e->item.len > len - *at || !entry_ok(l, e))
		return false;
	*at += e->item.len;
	return true;
}
