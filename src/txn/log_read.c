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
	unsigned side;

	*l = (struct log_reader){ .dev = dev, .super = super };
	for (side = 0; side < bdev_sides(dev); side++) {
		l->window[side].buf = aligned_alloc(COWFS_BLOCK_SIZE,
						    LOG_RECORD_MAX);
		if (!l->window[side].buf)
			return -ENOMEM;
	}
	return 0;
}

void log_reader_fini(struct log_reader *l)
{
	unsigned side;

	for (side = 0; side < BDEV_SIDES; side++) {
		free(l->window[side].buf);
		l->window[side].buf = NULL;
	}
}

static int window_fill(struct log_reader *l, unsigned side, uint64_t at,
		       uint64_t n)
{
	struct log_window *w = &l->window[side];
	uint64_t off = (from_le64(l->super->log.blk) + at) * COWFS_BLOCK_SIZE;
	int err = bdev_read_side(l->dev, side, off, w->buf,
				 n * COWFS_BLOCK_SIZE);

	w->at = at;
	w->n = err ? 0 : n;
	return err;
}

/* Blocks of the area, at most a record's; NULL: not readable. The longer the log
 * proves to be the more of it is read at once. */
static const uint8_t *log_blocks(struct log_reader *l, unsigned side,
				 uint64_t at, uint64_t n)
{
	struct log_window *w = &l->window[side];
	uint64_t more = min_u64(4 * w->n, LOG_RECORD_MAX / COWFS_BLOCK_SIZE);
	bool there = at >= w->at && at + n <= w->at + w->n;

	more = min_u64(more, from_le32(l->super->log.blocks) - at);
	if (!there && more > n)
		there = window_fill(l, side, at, more) == 0;
	if (!there && window_fill(l, side, at, n))
		return NULL;
	return w->buf + (at - w->at) * COWFS_BLOCK_SIZE;
}

static bool head_ok(const struct cowfs_disk_super *super, struct le64 base,
		    const struct cowfs_disk_log *d, uint64_t seq, uint64_t room)
{
	uint32_t len = from_le32(d->len);

	return from_le32(d->magic) == COWFS_LOG_MAGIC &&
	       memcmp(d->uuid, super->uuid, sizeof(d->uuid)) == 0 &&
	       from_le64(d->base) == from_le64(base) &&
	       from_le64(d->seq) == seq && len >= sizeof(*d) && len <= room &&
	       len <= LOG_RECORD_MAX;
}

static int read_based(struct log_reader *l, struct le64 base, unsigned side,
		      uint64_t at, uint64_t seq, uint64_t *blocks)
{
	uint64_t area = from_le32(l->super->log.blocks);
	const struct cowfs_disk_log *d = NULL;
	uint32_t len;

	if (at < area)
		d = (const void *)log_blocks(l, side, at, 1);
	l->unread = at < area && !d;
	if (!d ||
	    !head_ok(l->super, base, d, seq, (area - at) * COWFS_BLOCK_SIZE))
		return -ENOENT;
	len = from_le32(d->len);
	*blocks = blocks_of(len);
	d = (const void *)log_blocks(l, side, at, *blocks);
	l->unread = !d;
	if (!d || checksum(0, (const uint8_t *)d + 8, len - 8) !=
		  from_le32(d->csum))
		return -ENOENT;
	l->rec = (const uint8_t *)d;
	return 0;
}

int log_read_side(struct log_reader *l, unsigned side, uint64_t at,
		  uint64_t seq, uint64_t *blocks)
{
	return read_based(l, l->super->gen, side, at, seq, blocks);
}

int log_read(struct log_reader *l, uint64_t at, uint64_t seq,
	     uint64_t *blocks)
{
	bool unread = true;
	unsigned side;
	int err = -ENOENT;

	for (side = 0; err && side < bdev_sides(l->dev); side++) {
		if (bdev_side_state(l->dev, side) != SIDE_GOOD)
			continue;
		err = log_read_side(l, side, at, seq, blocks);
		unread &= l->unread;
	}
	l->unread = err && unread;
	return err;
}

uint64_t log_newest_base(struct log_reader *l, bool stale)
{
	const struct cowfs_disk_log *d;
	uint64_t newest = 0, base, blocks;
	unsigned side;

	for (side = 0; side < bdev_sides(l->dev); side++) {
		enum bdev_side state = bdev_side_state(l->dev, side);

		if (!from_le32(l->super->log.blocks) || state == SIDE_GONE ||
		    (state == SIDE_STALE && !stale))
			continue;
		d = (const void *)log_blocks(l, side, 0, 1);
		if (!d)
			continue;
		base = from_le64(d->base);
		if (base > newest &&
		    !read_based(l, to_le64(base), side, 0, 0, &blocks))
			newest = base;
	}
	return newest;
}

/* Does a record later than seq begin at block `at`? */
static bool later_record(struct log_reader *l, uint64_t at, uint64_t seq)
{
	const struct cowfs_disk_log *d;
	uint64_t there, blocks;
	unsigned side;

	if (at >= from_le32(l->super->log.blocks))
		return false;
	for (side = 0; side < bdev_sides(l->dev); side++) {
		if (bdev_side_state(l->dev, side) != SIDE_GOOD)
			continue;
		d = (const void *)log_blocks(l, side, at, 1);
		if (!d)
			continue;
		there = from_le64(d->seq);
		if (there > seq && !log_read_side(l, side, at, there, &blocks))
			return true;
	}
	return false;
}

bool log_goes_on(struct log_reader *l, uint64_t at, uint64_t seq)
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
