/*
 * rescue.c - reading a tree of files around what is lost (cowfs/rescue.h)
 *
 * Items of an inode lie together: its own, xattrs and pieces of their values,
 * entries, contents. So one walk in key order has all of an inode before the
 * next one begins, and needs to look up nothing in a tree with holes.
 */
#include <sys/stat.h>

#include "check/rescue.h"

/* Of one inode, at a time: values, and what is known of those to come. */
#define XATTR_BYTES_MAX (UINT64_C(64) << 20)

static int put(struct cowfs_rescue *r, int err)
{
	if (err && !r->err)
		r->err = err;
	return r->err;
}

/* ---- what is lost of an inode's contents ---- */

static void tell_lost(struct cowfs_rescue *r, uint64_t off, uint64_t len)
{
	uint64_t size = from_le64(r->d.size);

	if (r->known && (off >= size || len > size - off))
		len = off < size ? size - off : 0;
	if (!len)
		return;
	r->told = true;
	put(r, r->sink->lost(r->sink->arg, off, len));
}

/* The part of lost keys that lies among the inode's extents, in blocks. */
static bool among(const struct lost_keys *l, uint64_t ino, uint64_t *from,
		  uint64_t *to)
{
	struct key lo = KEY(ino, COWFS_KEY_EXTENT, 0);
	struct key hi = KEY(ino, COWFS_KEY_EXTENT, COWFS_FILE_BLOCKS_MAX);

	if (key_cmp(&l->hi, &lo) <= 0 || key_cmp(&l->lo, &hi) >= 0)
		return false;
	*from = key_cmp(&l->lo, &lo) > 0 ? l->lo.off : 0;
	*to = key_cmp(&l->hi, &hi) < 0 ? l->hi.off : COWFS_FILE_BLOCKS_MAX;
	return *from < *to;
}

static void tell_gaps(struct cowfs_rescue *r)
{
	const struct lost_keys *l = r->lost.at;
	struct key first = KEY(r->ino, 0, 0);
	uint64_t from, to;

	while (r->lost_at < r->lost.n &&
	       key_cmp(&l[r->lost_at].hi, &first) <= 0)
		r->lost_at++;
	for (size_t i = r->lost_at; i < r->lost.n && l[i].lo.obj <= r->ino;
	     i++)
		if (among(&l[i], r->ino, &from, &to))
			tell_lost(r, from * COWFS_BLOCK_SIZE,
				  (to - from) * COWFS_BLOCK_SIZE);
}

static void tell_missing(struct cowfs_rescue *r)
{
	uint32_t mode = from_le32(r->d.mode);
	bool in_line = from_le32(r->d.flags) & COWFS_INODE_INLINE;

	if (!r->known || (!S_ISREG(mode) && !S_ISLNK(mode)))
		return;
	if (in_line ? r->inlined : r->blocks >= from_le64(r->d.blocks))
		return;
	if (!in_line)
		tell_gaps(r);
	if (!r->told)
		tell_lost(r, 0, from_le64(r->d.size));
}

/* ---- xattrs ---- */

static void drop_xattrs(struct cowfs_rescue *r, bool tell)
{
	struct pending_xattr *x = r->xattrs.at;

	for (size_t i = 0; i < r->xattrs.n; i++) {
		if (tell && !x[i].done)
			put(r, r->sink->lost_xattr(r->sink->arg, x[i].name));
		free(x[i].val);
	}
	r->xattrs.n = 0;
	r->xattrs_sorted = false;
	r->xattr_bytes = 0;
}

static int take_xattr(struct cowfs_rescue *r, const struct item *it)
{
	const struct cowfs_disk_xattr *d = it->data;
	struct pending_xattr x = { .got = 0 }, *to;
	uint32_t inside;

	if (it->len < sizeof(*d))
		return 0;
	x.len = from_le32(d->value_len);
	inside = d->external ? 0 : x.len;
	if (!d->name_len || x.len > COWFS_XATTR_SIZE_MAX ||
	    it->len - sizeof(*d) != d->name_len + inside ||
	    memchr(d + 1, 0, d->name_len))
		return 0;
	memcpy(x.name, d + 1, d->name_len);
	x.id = from_le32(d->value_id);
	if (!d->external)
		return put(r, r->sink->xattr(r->sink->arg, x.name,
					     (const char *)(d + 1) +
						     d->name_len, x.len));
	if (r->xattrs.n >= XATTR_BYTES_MAX / sizeof(x))
		return put(r, r->sink->lost_xattr(r->sink->arg, x.name));
	to = array_add(&r->xattrs, sizeof(*to));
	if (!to)
		return -ENOMEM;
	*to = x;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct pending_xattr *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* One that waits for pieces of that value; NULL. There may be any number. */
static struct pending_xattr *pending(struct cowfs_rescue *r, uint64_t id)
{
	struct pending_xattr *x = r->xattrs.at;
	size_t lo = 0, hi = r->xattrs.n;

	if (!r->xattrs_sorted && hi)
		qsort(x, hi, sizeof(*x), by_id);
	r->xattrs_sorted = true;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (x[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < r->xattrs.n && x[lo].id == id && !x[lo].done ? &x[lo] :
								   NULL;
}

/* Pieces come in order; one that does not fit ends it. */
static int take_piece(struct cowfs_rescue *r, const struct key *k,
		      const struct item *it)
{
	uint64_t at = (k->off & 0xffff) * COWFS_XATTR_INLINE(r->c.node_size);
	struct pending_xattr *x = pending(r, k->off >> 16);

	if (!x || at != x->got || it->len > x->len - x->got)
		return 0;
	if (!x->val) {
		if (r->xattr_bytes + x->len > XATTR_BYTES_MAX)
			return 0;
		x->val = malloc(x->len ? x->len : 1);
		if (!x->val)
			return -ENOMEM;
		r->xattr_bytes += x->len;
	}
	memcpy(x->val + x->got, it->data, it->len);
	x->got += it->len;
	if (x->got < x->len)
		return 0;
	put(r, r->sink->xattr(r->sink->arg, x->name, x->val, x->len));
	free(x->val);
	r->xattr_bytes -= x->len;
	x->val = NULL;
	x->done = true;
	return r->err;
}

/* ---- contents ---- */

/* What the device has no good copy of, but the log has. */
static void put_carried(struct cowfs_rescue *r, uint64_t blk, uint32_t n,
			const uint32_t *csum, struct copies_read *got)
{
	const uint8_t *data;

	for (uint32_t i = 0; i < n; i++) {
		if (!(got->lost[i / 8] >> i % 8 & 1))
			continue;
		data = rescue_log_block(r, blk + i, csum[i]);
		if (!data)
			continue;
		memcpy((char *)r->c.data + (size_t)i * COWFS_BLOCK_SIZE, data,
		       COWFS_BLOCK_SIZE);
		got->lost[i / 8] &= (uint8_t)~(1u << i % 8);
	}
}

/* What no place that the extent names has, but an extra copy. */
static void put_extra(struct cowfs_rescue *r, uint64_t blk, uint32_t n,
		      const uint32_t *csum, struct copies_read *got)
{
	struct copies_read extra;
	struct copies at = { 0 };
	uint32_t one;
	char *buf;

	for (uint32_t i = 0; i < n; i++) {
		if (!(got->lost[i / 8] >> i % 8 & 1))
			continue;
		one = 1;
		at.a = extra_copy(&r->c, blk + i, &one);
		buf = (char *)r->c.data + (size_t)i * COWFS_BLOCK_SIZE;
		if (!at.a || read_copies(&r->c, at, 1, &csum[i], false, false,
					 buf, &extra) || extra.lost[0] & 1)
			continue;
		got->lost[i / 8] &= (uint8_t)~(1u << i % 8);
	}
}

/* n blocks of an extent from block `from` on; c.data holds them. */
static int read_piece(struct cowfs_rescue *r, const struct extent_rec *e,
		      uint32_t from, uint32_t n)
{
	struct copies at = { .a = e->blk + from,
			     .b = e->blk2 ? e->blk2 + from : 0 };
	uint64_t off = (e->lblk + from) * COWFS_BLOCK_SIZE;
	uint32_t csum[DATA_BLOCKS] = { 0 }, i, to;
	struct copies_read got;
	int err = 0;

	for (i = 0; i < n; i++)
		csum[i] = from_le32(e->csum[from + i]);
	if (read_copies(&r->c, at, n, csum, false, false, r->c.data, &got)) {
		tell_lost(r, off, (uint64_t)n * COWFS_BLOCK_SIZE);
		return r->err;
	}
	put_carried(r, at.a, n, csum, &got);
	put_extra(r, at.a, n, csum, &got);
	for (i = 0; i < n && !err; i = to) {
		bool lost = got.lost[i / 8] >> i % 8 & 1;
		uint64_t at_off = off + (uint64_t)i * COWFS_BLOCK_SIZE;

		for (to = i + 1; to < n; to++)
			if ((got.lost[to / 8] >> to % 8 & 1) != lost)
				break;
		if (lost)
			tell_lost(r, at_off,
				  (uint64_t)(to - i) * COWFS_BLOCK_SIZE);
		else
			put(r, r->sink->data(r->sink->arg, at_off,
				(char *)r->c.data + i * COWFS_BLOCK_SIZE,
				(size_t)(to - i) * COWFS_BLOCK_SIZE));
		err = r->err;
	}
	return err;
}

static int take_extent(struct cowfs_rescue *r, const struct key *k,
		       const struct item *it)
{
	uint64_t had = blocks_of(r->end);
	struct extent_rec e;
	uint32_t i;
	int err = 0;

	if (extent_parse(&r->c, k, it, &e) || !in_device(&r->c, e.blk, e.len) ||
	    (e.blk2 && !in_device(&r->c, e.blk2, e.len)))
		return 0; /* fewer blocks than there should be: tell_missing */
	/* What two map, against the rules, is the first one's. */
	i = had > e.lblk ? (uint32_t)min_u64(had - e.lblk, e.len) : 0;
	if (i == e.len)
		return 0;
	r->blocks += e.len - i;
	r->end = (e.lblk + e.len) * COWFS_BLOCK_SIZE;
	for (; r->contents && e.csum && i < e.len && !err; i += DATA_BLOCKS)
		err = read_piece(r, &e, i, (uint32_t)min_u64(e.len - i,
							     DATA_BLOCKS));
	return err;
}

/* Of a file one item; the target of a symlink may take several. */
static int take_inline(struct cowfs_rescue *r, const struct key *k,
		       const struct item *it)
{
	uint64_t off = min_u64(k->off, COWFS_SYMLINK_MAX) *
		       COWFS_ITEM_MAX(r->c.node_size);

	r->inlined = true;
	r->end = max_u64(r->end, off + it->len);
	if (!r->contents || !it->len)
		return 0;
	return put(r, r->sink->data(r->sink->arg, off, it->data, it->len));
}

static int take_name(struct cowfs_rescue *r, const struct key *k,
		     const struct item *it)
{
	const struct cowfs_disk_dirent *d = it->data;

	if (dirent_sane(&r->c, k, it))
		return 0;
	r->entries = true;
	if (r->contents)
		return 0;
	return put(r, r->sink->name(r->sink->arg, k->obj, from_le64(d->ino),
				    (const char *)(d + 1),
				    it->len - sizeof(*d)));
}

/* ---- inodes ---- */

/* All items of the inode have passed by. */
static int end_inode(struct cowfs_rescue *r)
{
	int err = 0;

	if (!r->ino)
		return 0;
	if (r->contents) {
		tell_missing(r);
		drop_xattrs(r, true);
		err = put(r, r->sink->end(r->sink->arg));
	} else if (!r->known && (r->blocks || r->inlined || r->entries)) {
		r->d = (struct cowfs_disk_inode){
			.mode = to_le32(r->entries ? S_IFDIR | 0700 :
						     S_IFREG | 0600),
			.nlink = to_le32(1), .size = to_le64(r->end),
		};
		err = put(r, r->sink->inode(r->sink->arg, r->ino, &r->d));
	}
	r->ino = 0;
	return err;
}

static int begin_inode(struct cowfs_rescue *r, uint64_t ino)
{
	int err = end_inode(r);

	if (err || !ino)
		return err;
	r->ino = ino;
	r->known = r->inlined = r->entries = r->told = false;
	r->blocks = r->end = 0;
	memset(&r->d, 0, sizeof(r->d));
	return r->contents ? put(r, r->sink->begin(r->sink->arg, ino)) : 0;
}

static int take_inode(struct cowfs_rescue *r, const struct key *k,
		      const struct item *it)
{
	if (inode_sane(&r->c, k, it))
		return 0;
	memcpy(&r->d, it->data, sizeof(r->d));
	r->known = true;
	return r->contents ? 0 :
	       put(r, r->sink->inode(r->sink->arg, k->obj, &r->d));
}

int rescue_item(struct cowfs_rescue *r, const struct key *k,
		const struct item *it)
{
	int err = k->obj == r->ino ? 0 : begin_inode(r, k->obj);

	if (err || !k->obj || k->obj > COWFS_INO_MAX)
		return err;
	switch (k->type) {
	case COWFS_KEY_INODE:
		return take_inode(r, k, it);
	case COWFS_KEY_DIRENT:
		return take_name(r, k, it);
	case COWFS_KEY_INLINE:
		return take_inline(r, k, it);
	case COWFS_KEY_EXTENT:
		return take_extent(r, k, it);
	case COWFS_KEY_XATTR:
		return r->contents ? take_xattr(r, it) : 0;
	case COWFS_KEY_XATTR_DATA:
		return r->contents ? take_piece(r, k, it) : 0;
	default:
		return 0;
	}
}

/* ---- passes ---- */

static int leaf(struct walk *w, const void *node)
{
	struct cowfs_rescue *r = w->arg;
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, r->c.node_size);

		bool taken;

		err = rescue_log_until(r, &k, &taken);
		if (!err && !taken)
			err = rescue_item(r, &k, &it);
	}
	return err;
}

static void gone(struct walk *w, const struct nptr *p)
{
	struct cowfs_rescue *r = w->arg;
	struct lost_keys *l;

	(void)p;
	if (r->contents)
		return;
	r->lost_nodes++;
	l = array_add(&r->lost, sizeof(*l));
	if (l)
		*l = (struct lost_keys){ w->lo, w->has_hi ? w->hi : KEY_MAX };
	else
		put(r, -ENOMEM);
}

static int pass(struct cowfs_rescue *r, const struct cowfs_rescue_sink *sink,
		bool contents)
{
	struct walk w = { .c = &r->c, .name = "file tree", .again = true,
			  .kind = COWFS_ROOT_FS, .tree = TREE_OTHER,
			  .each = leaf, .gone = gone, .arg = r };
	bool taken;
	int err;

	r->sink = sink;
	r->contents = contents;
	r->err = 0;
	r->ino = 0;
	r->lost_at = 0;
	r->log.at = 0;
	err = walk_tree(&w, &r->root);
	if (!err)
		err = rescue_log_until(r, NULL, &taken);
	if (!err)
		err = end_inode(r);
	drop_xattrs(r, false);
	return err ? err : r->err;
}

int cowfs_rescue_names(struct cowfs_rescue *r,
		       const struct cowfs_rescue_sink *sink)
{
	r->lost.n = 0;
	r->lost_nodes = 0;
	return pass(r, sink, false);
}

int cowfs_rescue_contents(struct cowfs_rescue *r,
			  const struct cowfs_rescue_sink *sink)
{
	return pass(r, sink, true);
}

/* ---- which tree ---- */

bool rescue_readable(struct cowfs_rescue *r, const struct nptr *p)
{
	struct check *c = &r->c;
	struct copies at = { .a = p->blk, .b = p->blk2 };
	struct copies_read got;
	char why[128];

	return p->level <= COWFS_MAX_LEVEL &&
	       in_device(c, p->blk, c->node_blocks) &&
	       (!p->blk2 || in_device(c, p->blk2, c->node_blocks)) &&
	       !read_copies(c, at, c->node_blocks, &p->csum, true, false,
			    c->node[0], &got) &&
	       !got.lost[0] &&
	       !node_verify(c->node[0], c->node_size, p, COWFS_ROOT_FS,
			    c->super.uuid, NULL, NULL, why, sizeof(why));
}

static int find_snapshot(struct cowfs_rescue *r, const char *name)
{
	struct walk w = { .c = &r->c, .name = "snapshot tree", .again = true,
			  .kind = COWFS_ROOT_SNAP, .tree = TREE_OTHER,
			  .each = snaps_leaf };
	struct nptr root =
		nptr_from_disk(&r->c.super.roots[COWFS_ROOT_SNAP].ptr);
	const struct snap_rec *snap;
	int err = walk_tree(&w, &root);

	snap = r->c.snaps.at;
	for (size_t i = 0; !err && i < r->c.snaps.n; i++) {
		if (strcmp(snap[i].name, name) != 0)
			continue;
		r->root = snap[i].root;
		return 0;
	}
	return err ? err : -ENOENT;
}

static int try_super(struct cowfs_rescue *r, const struct super *sb,
		     const struct cowfs_rescue_options *opt)
{
	int err;

	if (r->begun)
		check_fini(&r->c);
	block_init(&r->io, r->dev, sb->total_blocks, false);
	r->begun = true;
	err = check_begin(&r->c, &r->io, &sb->d, &r->opt);
	if (err)
		return err;
	r->gen = sb->gen;
	r->root = nptr_from_disk(&sb->d.roots[COWFS_ROOT_FS].ptr);
	if (opt->snapshot)
		err = find_snapshot(r, opt->snapshot);
	if (!err && !rescue_readable(r, &r->root))
		err = -ECOW_CSUM;
	return err;
}

/* The generation that a mount would use, 0 if there is none. */
static uint64_t trusted_gen(struct bdev *dev)
{
	struct store_config cfg = { .dev = dev,
				    .flags = STORE_READONLY | STORE_BARE };
	struct cowfs_disk_super d;
	struct store *s;

	if (store_open(&cfg, &s))
		return 0;
	store_durable_super(s, &d);
	store_abandon(s);
	return from_le64(d.gen);
}

/* That first, then the others, newest first. */
static int choose(struct cowfs_rescue *r, const struct super_scan *scan,
		  const struct cowfs_rescue_options *opt)
{
	uint64_t first = opt->gen ? opt->gen : trusted_gen(r->dev);
	int err = -ENOENT, err2;

	for (unsigned i = 0; i < scan->count; i++)
		if (scan->found[i].gen == first) {
			err = try_super(r, &scan->found[i], opt);
			if (!err || err == -ENOMEM || opt->gen)
				return err;
		}
	for (unsigned i = 0; i < scan->count && !opt->gen; i++) {
		if (scan->found[i].gen == first)
			continue;
		err2 = try_super(r, &scan->found[i], opt);
		if (!err2 || err2 == -ENOMEM)
			return err2;
		if (err2 != -ENOENT || err == 0)
			err = err2;
	}
	return err;
}

/* Is there a log that goes on from a newer state than this one? */
static bool newer_log(struct cowfs_rescue *r, const struct super_scan *scan)
{
	struct log_reader log;
	uint64_t blocks;
	bool yes = false;

	for (unsigned i = 0; i < scan->count && !yes; i++) {
		const struct super *sb = &scan->found[i];

		if (sb->gen <= r->gen || !log_counts(&sb->d))
			continue;
		yes = !log_reader_init(&log, r->dev, &sb->d) &&
		      !log_read(&log, 0, 0, &blocks);
		log_reader_fini(&log);
	}
	return yes;
}

static int open_by_super(struct cowfs_rescue *r,
			 const struct cowfs_rescue_options *opt)
{
	struct super_scan *scan = malloc(sizeof(*scan));
	int err = scan ? super_scan(r->dev, scan) : -ENOMEM;

	if (!err)
		err = choose(r, scan, opt);
	if (!err) /* of its tree what can be read */
		err = copies_read(&r->c);
	if (!err && !opt->snapshot)
		err = rescue_log_load(r);
	if (!err && !opt->snapshot && !r->log.records.n)
		r->log_unused = newer_log(r, scan);
	if (!err && !opt->snapshot && !r->log.records.n && !r->log_damaged)
		r->in_doubt = super_in_doubt(r->dev, &r->c.super);
	for (unsigned i = 0; !err && !opt->gen && i < scan->count; i++)
		if (scan->found[i].gen > max_u64(r->gen, r->newer))
			r->newer = scan->found[i].gen;
	free(scan);
	return err;
}

int cowfs_rescue_open(struct bdev *dev, const struct cowfs_rescue_options *opt,
		      struct cowfs_rescue **out)
{
	struct cowfs_rescue *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	r->dev = dev;
	err = opt->scan ? rescue_scan(r, opt) : open_by_super(r, opt);
	if (err) {
		cowfs_rescue_close(r);
		return err;
	}
	*out = r;
	return 0;
}

void cowfs_rescue_info(const struct cowfs_rescue *r,
		       struct cowfs_rescue_info *out)
{
	*out = (struct cowfs_rescue_info){ .gen = r->gen,
					   .lost_nodes = r->lost_nodes,
					   .log_records = r->log.records.n,
					   .log_unused = r->log_unused,
					   .log_damaged = r->log_damaged,
					   .in_doubt = r->in_doubt,
					   .newer = r->newer };
}

void cowfs_rescue_close(struct cowfs_rescue *r)
{
	if (!r)
		return;
	if (r->begun)
		check_fini(&r->c);
	rescue_log_fini(r);
	array_free(&r->lost);
	array_free(&r->xattrs);
	free(r);
}
