/*
 * run.c - one whole check: the trees in turn, then the maps
 *
 * The live files come first and are looked at as a whole, in key order, while
 * they are walked. A snapshot shares most of its nodes with what was walked
 * before; looking at it as a whole means reading those again. That is done for
 * as many snapshots, newest first, as REREAD_NODES allow (or for all, if
 * asked); of the others the nodes that nobody had are checked item by item.
 */
#include <stdarg.h>
#include <stdio.h>

#include "check/private.h"
#include "cowfs/text.h"

/* Nodes read a second time for the sake of snapshots: 4 GiB of 16 KiB. */
#define REREAD_NODES (UINT64_C(1) << 18)
/* Passes over a running store whose hold breaks each time. */
#define LIVE_TRIES 8
/* Blocks between two calls of progress: 8 MiB. */
#define TICK_BLOCKS 2048u

/* ---- what all files of this layer use ---- */

void *array_add(struct array *a, size_t size)
{
	size_t room = a->room ? a->room * 2 : 64;
	void *at;

	if (a->n == a->room) {
		if (room > SIZE_MAX / size)
			return NULL;
		at = realloc(a->at, room * size);
		if (!at)
			return NULL;
		a->at = at;
		a->room = room;
	}
	at = (char *)a->at + a->n++ * size;
	return memset(at, 0, size);
}

void array_free(struct array *a)
{
	free(a->at);
	*a = (struct array){ 0 };
}

const char *quoted(char out[QUOTED_MAX], const void *name, size_t len)
{
	const char *s = name;
	size_t n = 0, shown;

	out[n++] = '\'';
	for (; len; s += shown, len -= shown) {
		if (n + 9 > QUOTED_MAX) { /* an escape, "...'", NUL */
			memcpy(out + n, "...", 3);
			n += 3;
			break;
		}
		shown = *s == '\\' ? 0 : cowfs_shown(s, len);
		memcpy(out + n, s, shown);
		n += shown;
		if (!shown) {
			n += (size_t)snprintf(out + n, 5, "\\x%02x",
					      (uint8_t)*s);
			shown = 1;
		}
	}
	out[n++] = '\'';
	out[n] = '\0';
	return out;
}

void problem(struct check *c, enum problem p, const char *fmt, ...)
{
	char where[512];
	va_list ap;

	if (c->stop || c->quiet)
		return;
	c->res.problems++;
	if (!c->opt->found)
		return;
	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
	c->opt->found(c->opt->arg, p, where);
}

void tick(struct check *c, uint64_t n)
{
	c->done += n;
	if (!c->opt->progress || c->stop || (n && c->done < c->next_tick))
		return;
	c->next_tick = c->done + TICK_BLOCKS;
	if (c->opt->progress(c->opt->arg, c->done, max_u64(c->done, c->total)))
		c->stop = -ECANCELED;
}

bool in_device(const struct check *c, uint64_t blk, uint64_t len)
{
	uint64_t end = c->blocks - COWFS_SUPER_SLOTS;

	return len > 0 && blk >= COWFS_FIRST_BLOCK && blk < end &&
	       len <= end - blk;
}

/* ---- the trees ---- */

/* Leaves of file trees when they are met for the first time. */
static int first_leaf(struct walk *w, const void *node)
{
	if (w->c->opt->semantics)
		items_check(w, node);
	return w->c->leaf ? w->c->leaf(w, node) : data_leaf(w, node);
}

/* A file tree; whole: as a filesystem of its own, too. */
static int check_files(struct walk *w, const struct nptr *root, bool whole)
{
	struct files *f = NULL;
	int err;

	w->kind = COWFS_ROOT_FS;
	w->first = first_leaf;
	if (!whole)
		return walk_tree(w, root);
	err = files_new(w, &f);
	if (err)
		return err;
	w->each = files_leaf;
	w->arg = f;
	err = walk_tree(w, root);
	if (!err)
		err = files_finish(f);
	files_free(f);
	return err;
}

static int check_live(struct check *c)
{
	struct walk w = { .c = c, .name = "live tree", .is_live = true,
			  .tree = TREE_LIVE };
	struct nptr root = nptr_from_disk(&c->super.roots[COWFS_ROOT_FS].ptr);

	return check_files(&w, &root, c->opt->semantics);
}

static int check_plain(struct check *c, uint8_t kind, const char *name,
		       leaf_fn *first)
{
	struct walk w = { .c = c, .name = name, .kind = kind, .first = first,
			  .tree = kind == COWFS_ROOT_SNAP ? TREE_SNAPS :
							    TREE_OTHER };
	struct nptr root = nptr_from_disk(&c->super.roots[kind].ptr);

	return walk_tree(&w, &root);
}

/* What a root says, in one number that is not 0. */
static int64_t root_print(const struct nptr *p)
{
	return (int64_t)(hash_u64(p->csum ^ hash_u64(p->blk ^
						     hash_u64(p->gen))) >> 1 |
			 1);
}

static bool known_good(const struct check *c, const struct snap_rec *snap)
{
	struct ival iv;

	if (!c->fix || !c->fix->good)
		return false;
	imap_get(c->fix->good, snap->id, &iv);
	return iv.n == root_print(&snap->root);
}

static int note_good(struct check *c, const struct snap_rec *snap)
{
	struct ival iv;

	if (!c->fix || !c->fix->good || c->fix->overflow || c->fix->nomem ||
	    snap->id >= TREE_OTHER)
		return 0;
	imap_get(c->fix->good, snap->id, &iv);
	return imap_add(c->fix->good, snap->id, 1,
			root_print(&snap->root) - iv.n);
}

static int check_snapshot(struct check *c, const struct snap_rec *snap,
			  uint64_t *budget, uint64_t live_nodes)
{
	char name[COWFS_SNAP_NAME_MAX * 4 + 16], text[QUOTED_MAX];
	struct walk w = { .c = c, .name = name, .tree = snap->id };
	bool good = known_good(c, snap);
	bool whole = c->opt->semantics && !good &&
		     (c->opt->all_snapshots || *budget >= live_nodes);
	uint64_t problems = c->res.problems;
	size_t notes = c->fix ? c->fix->n : 0;
	int err;

	snprintf(name, sizeof(name), "snapshot %s",
		 quoted(text, snap->name, strlen(snap->name)));
	if (whole)
		*budget -= min_u64(*budget, live_nodes);
	else if (c->opt->semantics && !good)
		c->res.light_snapshots++;
	err = check_files(&w, &snap->root, whole);
	if (err || !whole || c->stop || w.lost || c->res.problems > problems ||
	    (c->fix && c->fix->n > notes))
		return err;
	return note_good(c, snap);
}

static int check_snapshots(struct check *c, uint64_t live_nodes)
{
	const struct snap_rec *snap = c->snaps.at;
	uint64_t budget = REREAD_NODES;
	int err = 0;

	if (c->opt->semantics)
		snaps_check_names(c);
	for (size_t i = c->snaps.n; i-- && !err && !c->stop;)
		err = check_snapshot(c, &snap[i], &budget, live_nodes);
	return err;
}

/* A node that a delete has begun with has no other reference. */
static int check_drop(struct check *c, const struct drop_rec *drop)
{
	struct walk w = { .c = c, .name = "deleted tree",
			  .tree = TREE_OTHER, .first_slot = drop->next };
	struct cell cell;
	int err;

	if (drop->started && in_device(c, drop->ptr.blk, 1)) {
		err = blockmap_cell(&c->map, drop->ptr.blk, &cell);
		if (err)
			return err;
		if (cell_kind(&cell) != MARK_FREE)
			problem(c, P_DROP_BAD, "node %" PRIu64
				" is half let go of, but in use",
				drop->ptr.blk);
	}
	return check_files(&w, &drop->ptr, false);
}

static int check_drops(struct check *c)
{
	const struct drop_rec *drop = c->drops.at;
	int err = 0;

	for (size_t i = 0; i < c->drops.n && !err && !c->stop; i++)
		err = check_drop(c, &drop[i]);
	return err;
}

/*
 * The log belongs to the superblock; what it holds is between a crash and the
 * next mount only, and verified there. So where it and a tree claim the same
 * block it is the log that is wrong: it is looked at after them.
 */
static int mark_log(struct check *c)
{
	uint64_t blk = from_le64(c->super.log.blk);
	uint64_t len = from_le32(c->super.log.blocks);
	bool clash = false;
	struct cell cell;
	int err;

	if (len && !in_device(c, blk, len)) {
		problem(c, P_OUT_OF_DEVICE, "log: blocks %" PRIu64 ", length %"
			PRIu64, blk, len);
		return 0;
	}
	for (uint64_t i = 0; i < len; i++) {
		err = blockmap_cell(&c->map, blk + i, &cell);
		if (err)
			return err;
		if (cell_kind(&cell) == MARK_FREE)
			cell_set(&cell, MARK_LOG, 0);
		else
			clash = true;
	}
	c->done += len;
	if (!clash)
		return 0;
	problem(c, P_OVERLAP, "log: blocks %" PRIu64 ", length %" PRIu64, blk,
		len);
	if (c->fix)
		c->fix->no_log = true;
	return 0;
}

int check_trees(struct check *c)
{
	uint64_t live_nodes;
	int err;

	tick(c, 0);
	err = copies_read(c);
	if (!err && !c->stop)
		err = check_live(c);
	live_nodes = c->res.nodes;
	if (!err && !c->stop)
		err = check_plain(c, COWFS_ROOT_SNAP, "snapshot tree",
				  snaps_leaf);
	if (!err && !c->stop)
		err = check_snapshots(c, live_nodes);
	if (!err && !c->stop)
		err = check_drops(c);
	if (!err && !c->stop)
		err = check_plain(c, COWFS_ROOT_SPACE, "space tree", NULL);
	if (!err && !c->stop)
		err = check_plain(c, COWFS_ROOT_REFS, "reference tree", NULL);
	if (!err && !c->stop)
		err = check_plain(c, COWFS_ROOT_COPIES, "copies tree", NULL);
	if (!err && !c->stop)
		err = mark_log(c);
	if (!err && !c->stop)
		err = copies_check(c);
	if (!err && !c->stop && c->opt->semantics && !c->no_maps)
		err = maps_check(c);
	if (!err && !c->stop)
		tick(c, 0);
	return err;
}

/* ---- one pass ---- */

static int check_init(struct check *c)
{
	uint64_t tail = c->map.chunks * COWFS_CHUNK_BLOCKS - c->blocks;
	int err;

	if (c->opt->map_bytes)
		blockmap_limit(&c->map, c->opt->map_bytes);
	for (unsigned i = 0; i <= COWFS_MAX_LEVEL; i++) {
		c->node[i] = aligned_alloc(COWFS_BLOCK_SIZE, c->node_size);
		if (!c->node[i])
			return -ENOMEM;
	}
	c->data = aligned_alloc(COWFS_BLOCK_SIZE,
				(size_t)DATA_BLOCKS * COWFS_BLOCK_SIZE);
	if (!c->data)
		return -ENOMEM;
	err = blockmap_reserve(&c->map, 0, COWFS_FIRST_BLOCK, MARK_RESERVED);
	if (!err)
		err = blockmap_reserve(&c->map, c->blocks - COWFS_SUPER_SLOTS,
				       COWFS_SUPER_SLOTS + tail,
				       MARK_RESERVED);
	return err;
}

void check_fini(struct check *c)
{
	for (unsigned i = 0; i <= COWFS_MAX_LEVEL; i++)
		free(c->node[i]);
	free(c->data);
	blockmap_fini(&c->map);
	array_free(&c->snaps);
	array_free(&c->names);
	array_free(&c->drops);
	imap_clear(&c->extra);
	imap_clear(&c->places);
	array_free(&c->bad);
}

static void check_set(struct check *c, const struct cowfs_disk_super *super)
{
	uint64_t free_blocks = from_le64(super->free_blocks);

	c->super = *super;
	c->gen = from_le64(super->gen);
	c->blocks = from_le64(super->total_blocks);
	c->shared_gen = from_le64(super->shared_gen);
	c->next_ino = from_le64(super->next_ino);
	c->next_snap = from_le64(super->next_snap);
	c->node_size = from_le32(super->node_size);
	c->node_blocks = c->node_size / COWFS_BLOCK_SIZE;
	c->done = COWFS_FIRST_BLOCK + COWFS_SUPER_SLOTS;
	c->total = c->blocks - min_u64(c->blocks, free_blocks);
}

int check_ready(struct check *c, const struct cowfs_disk_super *super)
{
	int err;

	check_set(c, super);
	err = blockmap_init(&c->map, c->blocks);
	return err ? err : check_init(c);
}

int check_begin(struct check *c, struct blockio *io,
		const struct cowfs_disk_super *super,
		const struct check_options *opt)
{
	*c = (struct check){ .io = io, .opt = opt, .no_maps = true };
	return check_ready(c, super);
}

int check_pass(struct check *c, struct blockio *io,
	       const struct cowfs_disk_super *super,
	       const struct check_options *opt, struct fixes *fix, bool maps)
{
	int err;

	*c = (struct check){ .io = io, .opt = opt, .fix = fix,
			     .no_maps = !maps };
	err = check_ready(c, super);
	if (!err)
		err = check_trees(c);
	return err ? err : c->stop;
}

int check_super_on(struct blockio *io, struct store *live,
		   const struct cowfs_disk_super *super,
		   const struct check_options *opt, struct check_result *out)
{
	struct check c = { .io = io, .live = live, .opt = opt };
	int err;

	err = check_ready(&c, super);
	if (!err && !live)
		supers_check(&c);
	if (!err)
		err = check_trees(&c);
	if (!err)
		err = c.stop;
	check_fini(&c);
	c.res.cancelled = err == -ECANCELED;
	c.res.partial = c.lost;
	*out = c.res;
	return err;
}

/* ---- of a store ---- */

/* One pass over a running store. The hold comes first: what was freed before it
 * is not named by the state that the commit makes durable. */
static int run_live(struct store *s, const struct check_options *opt,
		    struct check_result *out)
{
	struct cowfs_disk_super super;
	int err = 0;

	alloc_hold(s->alloc);
	if (!store_stopped(s))
		err = store_commit(s, NULL, NULL);
	if (err && store_stopped(s))
		err = 0; /* what is durable can be checked all the same */
	store_durable_super(s, &super);
	if (!err)
		err = check_super_on(&s->io, s, &super, opt, out);
	alloc_unhold(s->alloc);
	return err;
}

/* A scrub that has read and mended all there is has brought stale sides up to
 * date, unless it could not look below some node. */
static int resynced(struct store *s, const struct check_options *opt,
		    const struct check_result *res, unsigned stale)
{
	stale &= store_stale_sides(s); /* what failed meanwhile was dropped */
	if (!stale || !opt->data || !opt->mend)
		return 0;
	if (!res->partial)
		return store_resynced(s, stale);
	log_msg(LOG_LVL_WARN, "%s: a side stays stale: part of the trees "
		"cannot be read (run fsck.cowfs)", s->dev->name);
	return 0;
}

int check_run(struct store *s, const struct check_options *opt,
	      struct check_result *out)
{
	struct check_result res = { 0 }, sum = { 0 };
	unsigned stale = store_stale_sides(s);
	struct cowfs_disk_super super;
	int err = -EAGAIN;

	if (store_readonly(s)) {
		store_durable_super(s, &super);
		err = check_super_on(&s->io, NULL, &super, opt, &res);
	}
	for (int i = 0; err == -EAGAIN && i < LIVE_TRIES; i++) {
		memset(&res, 0, sizeof(res));
		err = run_live(s, opt, &res);
		/* What broken passes found and mended was so. */
		sum.problems += res.problems;
		sum.bad_copies += res.bad_copies;
		sum.repaired += res.repaired;
	}
	if (!store_readonly(s)) {
		res.problems = sum.problems;
		res.bad_copies = sum.bad_copies;
		res.repaired = sum.repaired;
		if (!err)
			err = resynced(s, opt, &res, stale);
	}
	if (!err || err == -ECANCELED)
		*out = res;
	return err;
}

int check_device(struct bdev *dev, const struct check_options *opt,
		 struct check_result *out)
{
	struct super_scan scan;
	struct check_result res = { 0 };
	struct blockio io;
	int err = super_scan(dev, &scan);

	if (err)
		return err;
	block_init(&io, dev, scan.found[0].total_blocks, false);
	err = check_super_on(&io, NULL, &scan.found[0].d, opt, &res);
	if (!err || err == -ECANCELED)
		*out = res;
	return err;
}
