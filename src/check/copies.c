/*
 * copies.c - extra copies of data: the copies tree against the file trees
 *
 * The tree is read first, so that data can be verified together with its
 * copies where it is met. Its nodes and the copies get their marks last: where
 * they and anything else claim the same block it is they that are wrong.
 */
#include "check/private.h"

static const char *copy_fields(const struct check *c, const struct key *k,
			       const struct item *it, uint64_t *at)
{
	const struct cowfs_disk_copy *d = it->data;
	struct ival taken;
	uint64_t apart;

	if (k->type != COWFS_KEY_COPY)
		return "unknown key";
	if (it->len != sizeof(*d))
		return "wrong length";
	*at = from_le64(d->blk);
	if (!in_device(c, k->obj, k->off) || !in_device(c, *at, k->off))
		return "outside the device";
	apart = *at > k->obj ? *at - k->obj : k->obj - *at;
	if (apart < k->off)
		return "a copy of itself";
	if (k->obj < c->copies_end)
		return "overlaps the one before";
	if (imap_next(&c->places, *at, &taken) && taken.start < *at + k->off)
		return "the copy overlaps another";
	return NULL;
}

static int copies_leaf(struct walk *w, const void *node)
{
	struct check *c = w->c;
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err && !c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, c->node_size);
		uint64_t at;
		const char *why = copy_fields(c, &k, &it, &at);

		if (why) {
			problem(c, P_COPY_BAD, "blocks %" PRIu64 ", length %"
				PRIu64 ": %s", k.obj, k.off, why);
			continue;
		}
		c->copies_end = k.obj + k.off;
		c->res.extra_copies += k.off;
		err = imap_add(&c->extra, k.obj, k.off, (int64_t)(at - k.obj));
		if (!err)
			err = imap_add(&c->places, at, k.off, 1);
	}
	return err;
}

int copies_read(struct check *c)
{
	struct walk w = { .c = c, .name = "copies tree", .again = true,
			  .kind = COWFS_ROOT_COPIES, .tree = TREE_OTHER,
			  .each = copies_leaf };
	struct nptr root =
		nptr_from_disk(&c->super.roots[COWFS_ROOT_COPIES].ptr);

	return walk_tree(&w, &root);
}

/* It gets its marks after the trees. */
static bool in_log(const struct check *c, uint64_t blk, uint32_t n)
{
	uint64_t log = from_le64(c->super.log.blk);

	return blk < log + from_le32(c->super.log.blocks) && log < blk + n;
}

/* Nobody seen so far has any of these blocks. */
static bool is_free(const struct check *c, uint64_t blk, uint32_t n)
{
	if (in_log(c, blk, n))
		return false;
	for (uint32_t i = 0; i < n; i++) {
		const struct blockmap_chunk *chunk = blockmap_chunk(
			&c->map, (blk + i) / COWFS_CHUNK_BLOCKS);

		if (chunk && chunk->mark[(blk + i) % COWFS_CHUNK_BLOCKS])
			return false;
	}
	return true;
}

uint64_t extra_copy(const struct check *c, uint64_t blk, uint32_t *n)
{
	struct ival iv;
	uint64_t at;

	imap_get(&c->extra, blk, &iv);
	*n = (uint32_t)min_u64(*n, iv.len);
	at = blk + (uint64_t)iv.n;
	return iv.n && is_free(c, at, *n) ? at : 0;
}

/* ---- mending ---- */

/*
 * The place of an extra copy may be another's if the tree is damaged, and that
 * is known only when all has been seen: until then only data is rewritten.
 */
static int mend_one(struct check *c, struct copies at, uint32_t csum, void *buf)
{
	bool good = block_matches(c, at.a, csum, buf);
	struct copies_read r;
	struct bad_copy *bad;
	int err;

	if (!good || block_matches(c, at.b, csum, buf)) {
		err = read_copies(c, at, 1, &csum, false, true, buf, &r);
		c->res.repaired += err ? 0 : r.repaired;
		return err;
	}
	bad = array_add(&c->bad, sizeof(*bad));
	if (!bad)
		return -ENOMEM;
	*bad = (struct bad_copy){ .blk = at.a, .at = at.b, .csum = csum };
	/* it may be stale on a side */
	at.b = 0;
	return read_copies(c, at, 1, &csum, false, true, buf, &r);
}

/* Both are good; stale sides of a mirror shall be so, too. */
static int resync(struct check *c, struct copies at, uint32_t n,
		  const uint32_t *csum)
{
	struct copies one = { .a = at.a }, other = { .a = at.b };
	struct copies_read r;
	int err;

	if (!c->live || !store_stale_sides(c->live))
		return 0;
	err = read_copies(c, one, n, csum, false, true, c->data, &r);
	return err || c->stop ? err :
	       read_copies(c, other, n, csum, false, true, c->data, &r);
}

int extra_mend(struct check *c, struct copies at, uint32_t n,
	       const uint32_t *csum, bool good)
{
	void *buf = c->data;
	int err = 0;

	if (good)
		return resync(c, at, n, csum);
	for (uint32_t i = 0; !err && !c->stop && i < n; i++) {
		err = mend_one(c, at, csum[i], buf);
		at.a++;
		at.b++;
	}
	return err;
}

static int mend_bad(struct check *c)
{
	const struct bad_copy *bad = c->bad.at;
	struct copies_read r;
	struct ival iv;
	int err = 0;

	for (size_t i = 0; !err && !c->stop && i < c->bad.n; i++) {
		struct copies at = { .a = bad[i].blk, .b = bad[i].at };

		imap_get(&c->extra, at.a, &iv);
		if ((uint64_t)iv.n != at.b - at.a)
			continue;
		err = read_copies(c, at, 1, &bad[i].csum, false, true, c->data,
				  &r);
		c->res.repaired += err ? 0 : r.repaired;
	}
	return err;
}

/* ---- afterwards ---- */

enum fault { FINE, STRAY, CLASH };

/* Block blk, the copy of which lies at `at`. */
static int judge(struct check *c, uint64_t blk, uint64_t at, enum fault *out)
{
	struct cell cell;
	int err = blockmap_cell(&c->map, blk, &cell);

	if (err)
		return err;
	*out = FINE;
	if (!c->lost && cell_kind(&cell) != MARK_DATA)
		*out = STRAY;
	err = blockmap_cell(&c->map, at, &cell);
	if (err)
		return err;
	if (cell_kind(&cell) != MARK_FREE)
		*out = CLASH;
	else if (*out == FINE)
		cell_set(&cell, MARK_COPY, 0);
	return 0;
}

static int report_run(struct check *c, uint64_t blk, uint64_t n, int64_t apart,
		      enum fault fault)
{
	if (fault == FINE || !n)
		return 0;
	problem(c, fault == CLASH ? P_OVERLAP : P_COPY_STRAY,
		"extra copies at %" PRIu64 "-%" PRIu64 " of blocks %" PRIu64
		"-%" PRIu64, blk + (uint64_t)apart,
		blk + (uint64_t)apart + n - 1, blk, blk + n - 1);
	return imap_add(&c->extra, blk, n, -apart);
}

static int check_ival(struct check *c, const struct ival *iv)
{
	enum fault fault = FINE, now;
	uint64_t from = 0;
	int err = 0;

	for (uint64_t i = 0; !err && i < iv->len; i++) {
		err = judge(c, iv->start + i,
			    iv->start + i + (uint64_t)iv->n, &now);
		if (err || now == fault)
			continue;
		err = report_run(c, iv->start + from, i - from, iv->n, fault);
		from = i;
		fault = now;
	}
	return err ? err : report_run(c, iv->start + from, iv->len - from,
				      iv->n, fault);
}

int copies_check(struct check *c)
{
	const struct cowfs_disk_root *root =
		&c->super.roots[COWFS_ROOT_COPIES];
	struct ival iv;
	uint64_t at = 0;
	int err = 0;

	for (; !err && !c->stop && imap_next(&c->extra, at, &iv);
	     at = iv.start + iv.len)
		err = check_ival(c, &iv);
	if (!err)
		err = mend_bad(c);
	if (err || c->stop)
		return err;
	if (from_le64(root->ptr.blk) && !(from_le64(c->super.ro_compat) &
					  COWFS_RO_COMPAT_COPIES))
		problem(c, P_COPY_BAD, "superblock: the feature is not set");
	if (!c->lost && from_le64(root->copies) != c->res.extra_copies)
		problem(c, P_COPY_COUNT, "superblock: %" PRIu64 ", found: %"
			PRIu64, from_le64(root->copies), c->res.extra_copies);
	return 0;
}
