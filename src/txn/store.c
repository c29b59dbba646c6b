/*
 * store.c - opening, closing and making a store
 *
 * Opening picks the newest superblock that can be trusted:
 *
 *   1. All slots are read; those that are damaged are counted, not believed.
 *   2. The newest one that was complete is taken (choose.c).
 *   3. The free-space record is loaded, and the log of that superblock applied
 *      (in memory only if read-only).
 *   4. Unless read-only, all that was found is flushed (with what the log
 *      carried, commit.c C5, if it carried something), and a superblock of a
 *      new generation is written that names the same roots: from then on, the
 *      state found is named by the two newest superblocks. Generation numbers
 *      go on above all ever seen (by the log, too), so that no leftover node or
 *      record can be taken for a new one. What a CLEAN superblock names was
 *      flushed before that was written.
 *   5. Slots that were passed over in step 2, or are damaged, are made good.
 *      Where no copy of a slot can be read (now: a cable, a network), the newest
 *      superblock may be there, and what is written would take its place: so
 *      it is not opened for writing then, but for a repair. The same of what may
 *      be the next record of the log, or its data (replay.c), and of what step 2
 *      would have to read (choose.c).
 *
 * A mount leaves these two for later (STORE_LAZY), unless a slot was passed over
 * or is damaged, the newest is not proven (may_wait_for_commit) or is that of a
 * repair (which could be undone as long as it says so), or it is a mirror: who
 * has just mounted wants to read. The flush then comes before the
 * first write (block.h, B4), the superblock with the first commit, which is made
 * within SETTLE_MS. Until then fsync is a commit: records of the log would be
 * based on nothing; and C1 (commit.c) holds for the superblock found, not for
 * its predecessor. If the program is killed before, the next one finds the same:
 * what was written since lies where the state found has nothing, and what
 * records name is not reused in the generation (alloc_logged).
 */
#include <assert.h>
#include <inttypes.h>

#include "txn/private.h"

#define CACHE_DEFAULT (UINT64_C(64) << 20)
#define COMMIT_MS_DEFAULT 5000u

static void evict_lock(void *arg)
{
	struct store *s = arg;

	if (!loads_under_lock(s))
		tree_lock(s);
}

static void evict_unlock(void *arg)
{
	struct store *s = arg;

	if (!loads_under_lock(s))
		tree_unlock(s);
}

static void lock_init(struct store_private *p)
{
	mutex_init(&p->commit_lock, LOCK_COMMIT);
	mutex_init(&p->wait_lock, LOCK_WAIT);
	rwlock_init(&p->tree_lock, LOCK_TREE);
}

static int store_new(const struct store_config *cfg, struct store **out)
{
	struct store *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->p = calloc(1, sizeof(*s->p));
	if (!s->p) {
		free(s);
		return -ENOMEM;
	}
	s->dev = cfg->dev;
	s->p->readonly = cfg->flags & STORE_READONLY || cfg->dev->readonly;
	s->p->repair = cfg->flags & STORE_REPAIR;
	s->p->quiet = cfg->flags & STORE_QUIET;
	s->p->commit_ms = cfg->commit_ms ? cfg->commit_ms : COMMIT_MS_DEFAULT;
	lock_init(s->p);
	grace_init(&s->grace);
	work_init(s);
	*out = s;
	return 0;
}

void store_own(struct store *s, void *mem, void (*fini)(void *mem))
{
	size_t i;

	for (i = 0; s->p->owned[i].mem; i++)
		assert(i + 1 < ARRAY_SIZE(s->p->owned));
	s->p->owned[i].mem = mem;
	s->p->owned[i].fini = fini;
}

static void store_free(struct store *s)
{
	size_t i;

	if (!s)
		return;
	for (i = 0; i < ARRAY_SIZE(s->p->owned); i++)
		if (s->p->owned[i].mem)
			s->p->owned[i].fini(s->p->owned[i].mem);
	commit_forget(s);
	log_free(s->p->log);
	block_fini(&s->io);
	forest_free(s->forest);
	alloc_free_all(s->alloc);
	work_fini(s);
	grace_fini(&s->grace);
	rwlock_fini(&s->p->tree_lock);
	mutex_fini(&s->p->commit_lock);
	mutex_fini(&s->p->wait_lock);
	free(s->p);
	free(s);
}

static void tree_init(struct store *s, struct tree *t, uint8_t kind)
{
	const struct cowfs_disk_root *r = &s->super.roots[kind];

	*t = (struct tree){ .forest = s->forest,
			    .root = nptr_from_disk(&r->ptr),
			    .nodes = from_le64(r->nodes),
			    .kind = kind,
			    .readonly = s->p->readonly };
}

/* What mkfs left to the first mount: the log's blocks are used. */
static int claim_log(struct store *s)
{
	const struct cowfs_disk_area *log = &s->super.log;

	if (from_le64(s->super.gen) != 1 || !from_le32(log->blocks))
		return 0;
	return alloc_claim(s->alloc, from_le64(log->blk),
			   from_le32(log->blocks));
}

/* Allocator, forest and trees of the state that s->super names. */
static int set_up(struct store *s, const struct store_config *cfg, uint64_t gen)
{
	size_t cache = cfg->cache_bytes ? cfg->cache_bytes : CACHE_DEFAULT;
	struct forest_config fc = { .io = &s->io,
				    .store = &s->refs_space,
				    .copies = s->super.meta_copies,
				    .cache_bytes = cache,
				    .gen = gen };
	uint32_t node_size = from_le32(s->super.node_size);
	int err;

	s->p->dirty_max = (size_t)min_u64(cache / 4, UINT64_C(32) << 20);
	err = alloc_new(s->io.blocks, node_size / COWFS_BLOCK_SIZE,
			s->super.meta_copies, gen, &s->grace, &s->alloc);
	if (err)
		return err;
	maps_init(s);
	fc.alloc = s->alloc;
	fc.node_size = node_size;
	memcpy(fc.uuid, s->super.uuid, sizeof(fc.uuid));
	err = forest_new(&fc, &s->forest);
	if (err)
		return err;
	forest_set_lock(s->forest, evict_lock, evict_unlock, s);
	tree_init(s, &s->fs, COWFS_ROOT_FS);
	tree_init(s, &s->snap, COWFS_ROOT_SNAP);
	tree_init(s, &s->space, COWFS_ROOT_SPACE);
	tree_init(s, &s->refs, COWFS_ROOT_REFS);
	tree_init(s, &s->copies, COWFS_ROOT_COPIES);
	copies_init(s);
	s->fs.shared_gen = from_le64(s->super.shared_gen);
	return 0;
}

uint64_t store_passed(const struct store *s)
{
	return s->p->passed_gen;
}

bool store_passed_unread(const struct store *s)
{
	return s->p->passed_unread;
}

void store_log_found(const struct store *s, struct log_found *out)
{
	*out = s->p->log_found;
}

static void check_free_count(struct store *s)
{
	struct alloc_info info;

	alloc_info(s->alloc, &info);
	if (info.stored_free != from_le64(s->super.free_blocks) && !s->p->quiet)
		log_msg(LOG_LVL_WARN,
			"%s: superblock says %" PRIu64 " free blocks, the "
			"records %" PRIu64 ": run fsck.cowfs",
			s->dev->name, from_le64(s->super.free_blocks),
			info.stored_free);
}

/* The newest generation that there ever was, as far as anything tells: also one
 * of which there is a log, but no superblock any more. */
static int newest_gen(struct store *s, const struct super_scan *scan,
		      uint64_t *gen)
{
	struct log_reader log;
	int err = log_reader_init(&log, s->dev, &s->super);
	uint64_t base = err ? 0 : log_newest_base(&log, true);

	log_reader_fini(&log);
	*gen = scan->max_gen;
	if (base > *gen && base - *gen <= UINT32_MAX) /* else it is a lie */
		*gen = base;
	return err;
}

/* Step 4: not in the slot of the one that was chosen, which is all there is
 * until the new one is durable (many crashes in a row can bring it there). */
static int next_gen(struct store *s, const struct super_scan *scan,
		    unsigned index)
{
	uint64_t chosen = scan->found[index].gen, gen;
	int err = newest_gen(s, scan, &gen);

	gen++;
	s->p->running_gen = (gen - chosen) % COWFS_SUPER_SLOTS ? gen : gen + 1;
	return err;
}

/* Whether it is a mirror, and of which devices, is as the newest superblock
 * says, whichever is chosen: it is no part of the contents. */
static void use_mirror(struct store *s, const struct super_scan *scan)
{
	const struct cowfs_disk_super *d = &scan->found[0].d;
	struct cowfs_disk_super *to = &s->super;
	uint64_t bit = COWFS_INCOMPAT_MIRROR;
	unsigned i;

	to->incompat = to_le64((from_le64(to->incompat) & ~bit) |
			       (from_le64(d->incompat) & bit));
	memcpy(to->dev_uuid, d->dev_uuid, sizeof(to->dev_uuid));
	to->dev_index = d->dev_index;
	to->dev_count = d->dev_count;
	to->mirror = d->mirror;
	atomic_store(&s->p->mirror, super_is_mirror(d));
	for (i = 0; i < BDEV_SIDES; i++) {
		s->p->synced_gen[i] = from_le64(d->mirror.synced_gen[i]);
		s->p->stale_gen[i] = scan->stale_gen[i];
	}
	memcpy(s->p->alone, d->mirror.alone, sizeof(s->p->alone));
}

/*
 * If only the program was killed, what it wrote last may have been read from the
 * system's memory: recovery does not look at it again. (On a mirror it may be
 * one side that is well.)
 */
static bool is_settled(const struct store *s, unsigned index)
{
	bool newest_clean = !index && s->super.state & COWFS_STATE_CLEAN;

	return newest_clean && bdev_sides(s->dev) == 1;
}

static int commit_now(struct store *s)
{
	int err = 0;

	/* What a log carried is flushed when it is written (commit.c, C5), and
	 * all that was found with it. */
	if (block_staged(&s->io))
		atomic_store(&s->io.unsettled, false);
	else
		err = block_settle(&s->io);
	if (err)
		return err;
	mutex_lock(&s->p->commit_lock);
	err = commit_locked(s, NULL, NULL, true);
	mutex_unlock(&s->p->commit_lock);
	return err;
}

/* What nothing proves yet (choose.c) might be passed over after the next crash,
 * and a repair be undone, for a predecessor of which blocks have been reused. */
static bool may_wait_for_commit(const struct store *s)
{
	return !s->p->verified && bdev_sides(s->dev) == 1 &&
	       !(s->p->durable.state & COWFS_STATE_REPAIRED);
}

/* Step 4: it is as if an operation had been done that changed nothing, so that
 * whoever asks for durability gets a commit. */
static void commit_later(struct store *s, uint64_t records)
{
	if (records)
		alloc_logged(s->alloc);
	s->changed = true;
	atomic_store(&s->p->changed_hint, true);
	atomic_store(&s->p->ops, 1);
}

/* Step 5. */
static int check_read(const struct store *s, const struct store_config *cfg,
		      const struct super_scan *scan)
{
	static const char text[] = "superblocks cannot be read, and the newest "
				   "may be among them";

	if (!scan->unread || cfg->use_gen)
		return 0;
	if (!s->p->readonly && !s->p->repair)
		return report(-EIO, "%s: %s: not opened for writing",
			      s->dev->name, text);
	if (!s->p->quiet)
		log_msg(LOG_LVL_WARN, "%s: %s", s->dev->name, text);
	return 0;
}

/* Step 1: one that is not believed may have been the newest. */
static void tell_odd(const struct store *s, const struct store_config *cfg,
		     const struct super_scan *scan)
{
	if (scan->odd_gen > scan->found[0].gen && !cfg->use_gen && !s->p->quiet)
		log_msg(LOG_LVL_WARN, "%s: generation %" PRIu64 " is left out "
			"(%s): going on with generation %" PRIu64,
			s->dev->name, scan->odd_gen, scan->odd_why,
			scan->found[0].gen);
}

/* *doubt: there may have been something newer. */
static int apply_log(struct store *s, uint64_t *records, bool *doubt)
{
	int err = log_replay(s, records);

	if (*records && !s->p->quiet)
		log_msg(LOG_LVL_INFO, "%s: log records applied: %" PRIu64,
			s->dev->name, *records);
	*doubt = !err && !*records && super_in_doubt(s->dev, &s->p->durable);
	if (*doubt && !s->p->quiet)
		log_msg(LOG_LVL_WARN, "%s: superblocks were wiped: going on "
			"with generation %" PRIu64 "; what was newer may be "
			"lost", s->dev->name, s->p->durable_gen);
	return err;
}

static int open_scanned(struct store *s, const struct store_config *cfg,
			const struct super_scan *scan)
{
	unsigned index = 0;
	uint64_t records;
	bool doubt;
	int err;

	if (scan->ro_only)
		s->p->readonly = true;
	tell_odd(s, cfg, scan);
	err = check_read(s, cfg, scan);
	if (!err)
		err = super_choose(s, cfg, scan, &index);
	if (err)
		return err;
	use_mirror(s, scan);
	err = sides_match(s, scan);
	if (err)
		return err;
	if (!s->p->quiet)
		sides_tell(s);
	s->p->mend_from = scan->found[index].gen + 1;
	err = next_gen(s, scan, index);
	if (!err)
		err = set_up(s, cfg, s->p->running_gen);
	if (err)
		return err;
	if (s->p->repair) {
		alloc_rebuild(s->alloc);
		return log_new(s, &s->p->log);
	}
	if (cfg->flags & STORE_BARE && s->p->readonly)
		return 0;
	err = maps_load(s);
	if (!err)
		err = claim_log(s);
	if (err && s->p->readonly) {
		if (!s->p->quiet)
			log_msg(LOG_LVL_WARN, "%s: free space unknown: %s",
				s->dev->name, strerror(-err));
		return 0;
	}
	if (err)
		return err;
	check_free_count(s);
	alloc_note_trees(s->alloc, s->refs.nodes, s->space.nodes,
			 s->copies.nodes);
	err = apply_log(s, &records, &doubt);
	if (err || s->p->readonly)
		return err;
	err = log_new(s, &s->p->log);
	if (err)
		return err;
	forest_set_note(s->forest, log_note, s->p->log);
	atomic_store(&s->io.unsettled, !is_settled(s, index));
	if (cfg->flags & STORE_LAZY && !scan->bad && !doubt && !index &&
	    may_wait_for_commit(s)) {
		commit_later(s, records);
		return 0;
	}
	return commit_now(s);
}

/* Not before: opening reads with the tree lock held. */
static void look_for_copies(struct store *s)
{
	if (!s->p->repair)
		block_set_finder(&s->io, copies_finder, s);
}

int store_open(const struct store_config *cfg, struct store **out)
{
	struct super_scan *scan;
	struct store *s = NULL;
	int err;

	scan = calloc(1, sizeof(*scan));
	if (!scan)
		return -ENOMEM;
	err = super_scan(cfg->dev, scan);
	if (!err)
		err = store_new(cfg, &s);
	if (!err)
		err = open_scanned(s, cfg, scan);
	free(scan);
	if (err) {
		store_free(s);
		return err;
	}
	look_for_copies(s);
	*out = s;
	return 0;
}

int store_close(struct store *s)
{
	int err = 0;

	work_stop(s);
	if (!s->p->readonly) {
		mutex_lock(&s->p->commit_lock);
		s->p->final_commit = true;
		err = commit_locked(s, NULL, NULL, true);
		mutex_unlock(&s->p->commit_lock);
	}
	store_free(s);
	return err;
}

void store_abandon(struct store *s)
{
	work_stop(s);
	store_free(s);
}

/* ---- mkfs ---- */

static void first_super(const struct store_format *f, bool mirror,
			struct cowfs_disk_super *d)
{
	uint64_t log = log_size_for(f->blocks);

	memset(d, 0, sizeof(*d));
	d->version = to_le32(COWFS_FORMAT_VERSION);
	d->incompat = to_le64(COWFS_INCOMPAT_LOG_DATA);
	memcpy(d->magic, COWFS_MAGIC, sizeof(d->magic));
	memcpy(d->uuid, f->uuid, sizeof(d->uuid));
	memcpy(d->label, f->label, COWFS_LABEL_MAX);
	d->gen = to_le64(1);
	d->total_blocks = to_le64(f->blocks);
	d->free_blocks = to_le64(f->blocks - COWFS_FIRST_BLOCK -
				 COWFS_SUPER_SLOTS - log);
	d->log.blk = to_le64(LOG_FIRST_BLOCK);
	d->log.blocks = to_le32((uint32_t)log);
	d->next_ino = to_le64(COWFS_INO_FIRST);
	d->next_snap = to_le64(1);
	d->block_size = to_le32(COWFS_BLOCK_SIZE);
	d->node_size = to_le32(f->node_size);
	d->meta_copies = (uint8_t)f->meta_copies;
	d->data_copies = (uint8_t)f->data_copies;
	d->csum_kind = COWFS_CSUM_CRC32;
	d->state = COWFS_STATE_CLEAN;
	random_bytes(d->hash_seed, sizeof(d->hash_seed));
	random_bytes(d->dev_uuid, sizeof(d->dev_uuid));
	d->dev_count = to_le16(1);
	if (mirror) {
		d->incompat = to_le64(COWFS_INCOMPAT_MIRROR |
				      COWFS_INCOMPAT_LOG_DATA);
		d->dev_count = to_le16(BDEV_SIDES);
		random_bytes(d->mirror.dev_uuid, sizeof(d->mirror.dev_uuid));
	}
	d->made = time_to_disk(now_real());
	d->wrote = d->made;
	super_seal(d);
}

int store_format(struct bdev *dev, const struct store_format *f)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	struct cowfs_disk_super d;
	struct blockio io;
	unsigned i;
	int err = 0;

	first_super(f, bdev_sides(dev) > 1, &d);
	block_init(&io, dev, f->blocks, false);
	for (i = 0; !err && i < 2 * COWFS_SUPER_SLOTS; i++)
		err = block_write(&io,
				  super_slot_block(f->blocks,
						   i % COWFS_SUPER_SLOTS,
						   i >= COWFS_SUPER_SLOTS),
				  1, zero);
	if (!err)
		err = block_flush(&io);
	if (!err)
		err = super_write(&io, &d);
	return err ? err : block_flush(&io);
}
