/*
 * data.c - file data: count the blocks of extents, verify their contents
 *
 * Blocks are read where they are first met, in runs as long as the extent
 * allows; blocks that an extent shares with one met before are only counted.
 */
#include "check/private.h"

static const char *extent_fields(const struct check *c, const struct key *k,
				 const struct cowfs_disk_extent *d,
				 uint32_t item_len)
{
	uint32_t len = from_le32(d->len);
	uint64_t csums = d->kind == COWFS_EXTENT_DATA ? 4 * (uint64_t)len : 0;

	if (d->kind > COWFS_EXTENT_PREALLOC)
		return "unknown kind";
	if (d->compression != COWFS_COMPRESS_NONE ||
	    d->flags & (uint8_t)~COWFS_EXTENT_SHARED)
		return "unknown compression or flags";
	if (len == 0 || len > COWFS_EXTENT_MAX(c->node_size) ||
	    from_le32(d->disk_len) != len ||
	    from_le32(d->disk_off) != 0)
		return "impossible length";
	if (item_len - sizeof(*d) != csums)
		return "length and number of checksums disagree";
	if (k->off >= COWFS_FILE_BLOCKS_MAX ||
	    len > COWFS_FILE_BLOCKS_MAX - k->off)
		return "outside of any file";
	if (from_le64(d->gen) == 0 || from_le64(d->gen) > c->gen)
		return "impossible generation";
	return NULL;
}

const char *extent_parse(const struct check *c, const struct key *k,
			 const struct item *it, struct extent_rec *out)
{
	const struct cowfs_disk_extent *d = it->data;
	const char *why;

	if (it->len < sizeof(*d))
		return "too short";
	why = extent_fields(c, k, d, it->len);
	if (why)
		return why;
	*out = (struct extent_rec){
		.ino = k->obj,
		.lblk = k->off,
		.blk = from_le64(d->blk),
		.blk2 = from_le64(d->blk2),
		.gen = from_le64(d->gen),
		.len = from_le32(d->len),
		.kind = d->kind,
		.flags = d->flags,
		.csum = d->kind == COWFS_EXTENT_DATA ? (const void *)(d + 1) :
						       NULL,
	};
	return NULL;
}

/* One reference to each block of one extent. */
struct counting {
	struct walk *w;
	struct extent_rec e;
	enum mark kind;
	bool young;    /* its blocks may have one reference only */
	bool overlap, disagree, shared; /* what was found wrong */
};

static uint64_t data_print(const struct extent_rec *e, uint32_t i)
{
	uint32_t csum = e->csum ? from_le32(e->csum[i]) : 0;
	uint64_t apart = e->blk2 ? e->blk2 - e->blk : 0;

	return hash_u64(csum ^ hash_u64(apart)) >> 20;
}

static int mark_block(struct counting *n, uint32_t i, struct cell *cell)
{
	struct check *c = n->w->c;
	struct cell copy;
	int err;

	if (n->e.blk2) {
		err = blockmap_cell(&c->map, n->e.blk2 + i, &copy);
		if (err)
			return err;
		if (cell_kind(&copy) == MARK_FREE)
			cell_set(&copy, MARK_COPY, 0);
		else
			n->overlap = true;
	}
	cell_set(cell, n->kind, data_print(&n->e, i));
	c->res.blocks++;
	if (n->e.kind == COWFS_EXTENT_PREALLOC)
		c->res.prealloc_blocks++;
	else
		c->res.data_blocks++;
	return 0;
}

/* Its mark, whatever its age. */
static enum mark of_any_age(enum mark kind)
{
	return kind == MARK_DATA_YOUNG	   ? MARK_DATA :
	       kind == MARK_PREALLOC_YOUNG ? MARK_PREALLOC :
					     kind;
}

/* Count block i; *first: nobody named it before. */
static int count_block(struct counting *n, uint32_t i, bool *first)
{
	struct cell cell;
	enum mark kind;
	int err;

	*first = false;
	err = blockmap_cell(&n->w->c->map, n->e.blk + i, &cell);
	if (err)
		return err;
	kind = cell_kind(&cell);
	if (kind == MARK_FREE) {
		*first = true;
		return mark_block(n, i, &cell);
	}
	if (of_any_age(kind) != of_any_age(n->kind)) {
		n->overlap = true;
		return 0;
	}
	if (!cell_print_is(&cell, data_print(&n->e, i)))
		n->disagree = true;
	if (kind != of_any_age(kind) || n->young)
		n->shared = true;
	cell_add(&cell);
	return 0;
}

/* Blocks [from, from+n) of an extent against their checksums; extra: where
 * their extra copies lie. */
static int verify_piece(struct walk *w, const struct extent_rec *e,
			uint32_t from, uint32_t n, uint64_t extra)
{
	struct check *c = w->c;
	struct copies at = { .a = e->blk + from,
			     .b = e->blk2 ? e->blk2 + from : extra };
	bool mend = c->opt->mend && !extra;
	uint64_t gone = 0, mended = c->res.repaired;
	struct copies_read r;
	uint32_t csum[DATA_BLOCKS];
	int err;

	for (uint32_t i = 0; i < n; i++)
		csum[i] = from_le32(e->csum[from + i]);
	err = read_copies(c, at, n, csum, false, mend, c->data, &r);
	if (!err && extra && c->opt->mend && !c->stop)
		err = extra_mend(c, at, n, csum, !r.bad);
	r.repaired += (unsigned)(c->res.repaired - mended);
	c->res.repaired = mended; /* added below */
	if (err || c->stop)
		return err;
	for (uint32_t i = 0; i < n; i++) {
		if (!(r.lost[i / 8] >> i % 8 & 1))
			continue;
		gone++;
		fix_note(w, FIX_LOST, KEY(e->ino, COWFS_KEY_EXTENT,
					  e->lblk + from + i), at.a + i);
		problem(c, P_DATA_UNREADABLE, "%s: inode %" PRIu64
			", offset %" PRIu64 ", block %" PRIu64, w->name,
			e->ino, (e->lblk + from + i) * COWFS_BLOCK_SIZE,
			at.a + i);
	}
	c->res.checksums += n - gone;
	c->res.lost += gone;
	c->res.bad_copies += r.bad;
	c->res.repaired += r.repaired;
	if (r.bad > gone * (at.b ? 2 : 1) && !awaits_recovery(c, e->gen))
		problem(c, P_DATA_COPY, "%s: inode %" PRIu64 ", offset %"
			PRIu64 ", %u of the copies of blocks %" PRIu64 "-%"
			PRIu64 "%s", w->name, e->ino,
			(e->lblk + from) * COWFS_BLOCK_SIZE, r.bad, at.a,
			at.a + n - 1, !c->opt->mend ? "" :
			r.repaired == r.bad ? ", repaired" : ", not all repaired");
	return 0;
}

static int verify_run(struct walk *w, const struct extent_rec *e,
		      uint32_t from, uint32_t n)
{
	int err = 0;

	while (n && !err && !w->c->stop) {
		uint32_t len = n < DATA_BLOCKS ? n : DATA_BLOCKS;
		uint64_t extra = e->blk2 ? 0 :
				 extra_copy(w->c, e->blk + from, &len);

		if (w->c->opt->data && e->csum)
			err = verify_piece(w, e, from, len, extra);
		if (!w->c->leaf)
			tick(w->c, len * (e->blk2 || extra ? 2u : 1u));
		from += len;
		n -= len;
	}
	return err;
}

static void count_problems(const struct counting *n)
{
	struct check *c = n->w->c;
	const struct extent_rec *e = &n->e;

	if (n->overlap || n->disagree)
		fix_note(n->w, FIX_DEL,
			 KEY(e->ino, COWFS_KEY_EXTENT, e->lblk), 0);
	else
		fix_extent(n->w, e);
	if (n->shared && c->fix)
		c->fix->shared_gen = true;
	if (n->overlap)
		problem(c, P_OVERLAP, "%s: inode %" PRIu64 ", extent at block %"
			PRIu64 ", blocks %" PRIu64 "-%" PRIu64, n->w->name,
			e->ino, e->lblk, e->blk, e->blk + e->len - 1);
	if (n->disagree)
		problem(c, P_EXTENT_BAD, "%s: inode %" PRIu64 ", extent at "
			"block %" PRIu64 ": another extent says otherwise of "
			"blocks %" PRIu64 "-%" PRIu64, n->w->name, e->ino,
			e->lblk, e->blk, e->blk + e->len - 1);
	if (n->shared)
		problem(c, P_SHARED_GEN, "%s: inode %" PRIu64 ", extent at "
			"block %" PRIu64 " of generation %" PRIu64
			", shared up to %" PRIu64 " or marked", n->w->name,
			e->ino, e->lblk, e->gen, c->shared_gen);
}

static int count_extent(struct walk *w, const struct extent_rec *e)
{
	struct check *c = w->c;
	struct counting n = { .w = w, .e = *e };
	uint32_t run = 0; /* blocks before i that are to be verified */
	int err = 0;

	n.young = w->is_live && e->gen > c->shared_gen &&
		  !(e->flags & COWFS_EXTENT_SHARED);
	if (e->kind == COWFS_EXTENT_PREALLOC)
		n.kind = n.young ? MARK_PREALLOC_YOUNG : MARK_PREALLOC;
	else
		n.kind = n.young ? MARK_DATA_YOUNG : MARK_DATA;
	for (uint32_t i = 0; i < e->len && !err; i++) {
		bool first;

		err = count_block(&n, i, &first);
		if (!err && first) {
			run++;
			continue;
		}
		if (!err && run)
			err = verify_run(w, e, i - run, run);
		run = 0;
	}
	if (!err && run)
		err = verify_run(w, e, e->len - run, run);
	if (!err)
		count_problems(&n);
	return err;
}

bool extent_ok(struct walk *w, const struct key *k, const struct item *it,
	       struct extent_rec *e)
{
	struct check *c = w->c;
	const char *why = extent_parse(c, k, it, e);

	if (!why && in_device(c, e->blk, e->len) &&
	    (!e->blk2 || in_device(c, e->blk2, e->len)))
		return true;
	if (why)
		problem(c, P_EXTENT_BAD, "%s: inode %" PRIu64 ", extent at "
			"block %" PRIu64 ": %s", w->name, k->obj, k->off, why);
	else
		problem(c, P_OUT_OF_DEVICE, "%s: inode %" PRIu64 ", extent at "
			"block %" PRIu64 ": blocks %" PRIu64 ", %" PRIu64
			", length %u", w->name, k->obj, k->off, e->blk,
			e->blk2, e->len);
	c->lost = true;
	fix_note(w, FIX_DEL, *k, 0);
	return false;
}

/*
 * Who lets go of an extent decides by its age whether others may share it: one
 * that claims to be younger than the node it lies in would be freed under the
 * eyes of snapshots that have this node, too.
 */
static void look_at_age(struct walk *w, const struct extent_rec *e,
			const void *node, bool again)
{
	const struct cowfs_disk_node *d = node;
	uint64_t gen = from_le64(d->gen);

	if (e->gen <= gen)
		return;
	fix_note(w, FIX_AGE, KEY(e->ino, COWFS_KEY_EXTENT, e->lblk), gen);
	if (!again)
		problem(w->c, P_EXTENT_BAD, "%s: inode %" PRIu64 ", extent at "
			"block %" PRIu64 ": of generation %" PRIu64
			", in a node of %" PRIu64, w->name, e->ino, e->lblk,
			e->gen, gen);
}

void data_again(struct walk *w, const void *node)
{
	unsigned n = node_count(node);

	for (unsigned i = w->first_slot; i < n && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct extent_rec e;
		struct item it;

		if (k.type != COWFS_KEY_EXTENT)
			continue;
		it = node_item(node, i, w->c->node_size);
		if (!extent_ok(w, &k, &it, &e))
			continue;
		look_at_age(w, &e, node, true);
		fix_extent(w, &e);
	}
}

int data_leaf(struct walk *w, const void *node)
{
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = w->first_slot; i < n && !err && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct extent_rec e;
		struct item it;

		if (k.type != COWFS_KEY_EXTENT)
			continue;
		it = node_item(node, i, w->c->node_size);
		if (!extent_ok(w, &k, &it, &e))
			continue;
		look_at_age(w, &e, node, false);
		err = count_extent(w, &e);
	}
	return err;
}
