/*
 * info.c - what a store tells about itself: state, counters, histograms
 *
 * One source for tools that have an image open and for the daemon. Everything
 * here is read without keeping anybody out for long: counters one by one, so
 * that two of them may be of slightly different moments.
 */
#include "check/private.h"
#include "cowfs/cowfs.h"
#include "snapshot/snapshot.h"

static int read_trees(struct store *s, struct cowfs_ioc_info *out)
{
	struct op op;

	op_read(&op, s);
	out->nodes[COWFS_ROOT_FS] = s->fs.nodes;
	out->nodes[COWFS_ROOT_SNAP] = s->snap.nodes;
	out->nodes[COWFS_ROOT_SPACE] = s->space.nodes;
	out->nodes[COWFS_ROOT_REFS] = s->refs.nodes;
	out->nodes_copies = s->copies.nodes;
	return op_end(&op, 0);
}

static void read_space(struct store *s, struct cowfs_ioc_info *out)
{
	struct alloc_info info;

	alloc_info(s->alloc, &info);
	out->blocks = info.blocks;
	out->free = info.free;
	out->avail = info.avail;
	out->reserve = info.reserve;
	out->pending = info.pending;
}

static void read_counters(struct store *s, struct cowfs_ioc_info *out)
{
	const struct block_stats *b = &s->io.stats;
	struct forest_stats f;
	struct commit_stats c;

	forest_stats(s->forest, &f);
	store_commit_stats(s, &c);
	out->csum_errors = atomic_load(&b->csum_errors);
	out->io_errors = atomic_load(&b->io_errors);
	out->repaired = atomic_load(&b->repaired);
	out->unrepairable = atomic_load(&b->unrepairable);
	out->read_bytes = atomic_load(&b->read_bytes);
	out->write_bytes = atomic_load(&b->write_bytes);
	out->flushes = atomic_load(&b->flushes);
	out->cache_hits = f.hits;
	out->cache_misses = f.misses;
	out->cache_bytes = f.bytes;
	out->dirty_bytes = f.dirty_bytes;
	out->commits = c.commits;
	out->commit_bytes = c.bytes;
	out->commit_ns = c.ns_total;
	out->commit_ns_max = c.ns_max;
}

int check_info(struct store *s, struct cowfs_ioc_info *out)
{
	struct cowfs_ioc_info info = { .version = COWFS_IOC_VERSION };
	struct redun_status redun = { .count = 0 };
	struct cowfs_disk_super d;
	int err;

	_Static_assert(sizeof(info.label) == sizeof(d.label), "label");
	store_look(s);
	store_durable_super(s, &d);
	info.node_size = from_le32(d.node_size);
	info.gen = from_le64(d.gen);
	memcpy(info.uuid, d.uuid, sizeof(info.uuid));
	memcpy(info.label, d.label, sizeof(info.label));
	info.meta_copies = d.meta_copies;
	info.data_copies = d.data_copies;
	info.compat = from_le64(d.compat);
	info.ro_compat = from_le64(d.ro_compat);
	info.incompat = from_le64(d.incompat);
	info.readonly = store_readonly(s);
	info.stopped = store_stopped(s);
	info.gone = store_gone(s);
	info.clean = (d.state & COWFS_STATE_CLEAN) != 0;
	info.sides = info.incompat & COWFS_INCOMPAT_MIRROR ?
			     (uint8_t)bdev_sides(s->dev) : 1;
	for (unsigned i = 0; i < info.sides; i++)
		info.side_state[i] = (uint8_t)bdev_side_state(s->dev, i);
	info.resynced = atomic_load(&s->io.stats.resynced);
	read_space(s, &info);
	read_counters(s, &info);
	err = read_trees(s, &info);
	if (!err)
		err = snap_count(s, &info.snapshots);
	if (!err)
		err = snap_drops(s, &info.drops);
	if (!err)
		err = redun_get(s, &redun);
	info.redundancy = redun.count;
	info.copied = redun.copied;
	if (!err)
		*out = info;
	return err;
}

static void stats_device(struct store *s, struct cowfs_ioc_stats *out)
{
	const struct block_stats *b = &s->io.stats;

	out->csum_errors = atomic_load(&b->csum_errors);
	out->io_errors = atomic_load(&b->io_errors);
	out->repaired = atomic_load(&b->repaired);
	out->unrepairable = atomic_load(&b->unrepairable);
	out->reads = atomic_load(&b->reads);
	out->read_bytes = atomic_load(&b->read_bytes);
	out->writes = atomic_load(&b->writes);
	out->write_bytes = atomic_load(&b->write_bytes);
	out->flushes = atomic_load(&b->flushes);
}

static void stats_cache(struct store *s, struct cowfs_ioc_stats *out)
{
	struct forest_stats f;

	forest_stats(s->forest, &f);
	out->cache_hits = f.hits;
	out->cache_misses = f.misses;
	out->cache_evicted = f.evicted;
	out->cache_nodes = f.nodes;
	out->cache_bytes = f.bytes;
	out->cache_limit = f.limit;
	out->dirty_bytes = f.dirty_bytes;
	out->cow_copies = f.cow_copies;
	out->splits = f.splits;
	out->merges = f.merges;
}

static void stats_commit(struct store *s, struct cowfs_ioc_stats *out)
{
	struct commit_stats c;

	store_commit_stats(s, &c);
	out->commits = c.commits;
	out->commit_bytes = c.bytes;
	out->commit_ns = c.ns_total;
	out->commit_ns_max = c.ns_max;
	out->closed_ns = c.closed_ns_total;
	out->closed_ns_max = c.closed_ns_max;
	out->fsyncs = c.syncs;
	out->fsync_appends = c.log_appends;
	out->fsync_bytes = c.log_bytes;
	out->fsync_commits = c.sync_commits;
	out->fsync_idle = c.sync_idle;
}

static void stats_space(struct store *s, struct cowfs_ioc_stats *out)
{
	struct alloc_info a;

	alloc_info(s->alloc, &a);
	out->blocks = a.blocks;
	out->free = a.free;
	out->avail = a.avail;
	out->reserve = a.reserve;
	out->pending = a.pending;
	out->ready = a.ready;
	out->in_slots = a.in_slots;
	out->in_chunks = a.in_chunks;
}

int check_stats(struct store *s, struct cowfs_ioc_stats *out)
{
	struct cowfs_ioc_stats st = { .version = COWFS_IOC_VERSION,
				      .now_ns = now_ns() };
	int err;

	stats_device(s, &st);
	stats_cache(s, &st);
	stats_commit(s, &st);
	stats_space(s, &st);
	st.since_ns = st.now_ns;
	st.dropping = store_works(s, WORK_DROP);
	st.reaping = store_works(s, WORK_ORPHAN);
	err = snap_drops(s, &st.drops);
	if (!err)
		*out = st;
	return err;
}

static const struct {
	const char *name;
	uint8_t unit;
} hists[STORE_HISTS] = {
	[HIST_COMMIT] = { "commit", COWFS_HIST_NS },
	[HIST_CLOSED] = { "commit, closed", COWFS_HIST_NS },
	[HIST_SYNC] = { "fsync", COWFS_HIST_NS },
	[HIST_GROUP] = { "fsyncs served at once", COWFS_HIST_COUNT },
};

bool check_hist_next(struct store *s, uint64_t *at, struct cowfs_ioc_hist *out)
{
	for (; *at < STORE_HISTS; ++*at) {
		memset(out, 0, sizeof(*out));
		store_hist(s, (enum store_hist)*at, &out->h);
		if (!out->h.count)
			continue;
		strcpy(out->name, hists[*at].name);
		out->kind = COWFS_HIST_STORE;
		out->unit = hists[*at].unit;
		++*at;
		return true;
	}
	return false;
}
