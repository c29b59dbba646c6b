/*
 * info.c - what the daemon knows about itself, for cowctl
 */
#include <unistd.h>

#include "fuse/daemon.h"

static void fill_super(struct daemon *d, struct cowfs_ioc_info *out)
{
	struct cowfs_disk_super s;

	store_durable_super(d->store, &s);
	out->node_size = from_le32(s.node_size);
	out->gen = from_le64(s.gen);
	out->blocks = from_le64(s.total_blocks);
	out->meta_copies = s.meta_copies;
	out->data_copies = s.data_copies;
	out->compat = from_le64(s.compat);
	out->ro_compat = from_le64(s.ro_compat);
	out->incompat = from_le64(s.incompat);
	for (unsigned i = 0; i < ARRAY_SIZE(out->nodes); i++)
		out->nodes[i] = from_le64(s.roots[i].nodes);
	memcpy(out->uuid, s.uuid, sizeof(out->uuid));
	memcpy(out->label, s.label, sizeof(s.label));
	out->label[sizeof(out->label) - 1] = '\0';
}

static void fill_block(struct daemon *d, struct cowfs_ioc_info *out)
{
	const struct block_stats *b = &d->store->io.stats;

	out->csum_errors = atomic_load(&b->csum_errors);
	out->io_errors = atomic_load(&b->io_errors);
	out->repaired = atomic_load(&b->repaired);
	out->unrepairable = atomic_load(&b->unrepairable);
	out->read_bytes = atomic_load(&b->read_bytes);
	out->write_bytes = atomic_load(&b->write_bytes);
	out->flushes = atomic_load(&b->flushes);
}

static void fill_counts(struct daemon *d, struct cowfs_ioc_info *out)
{
	struct commit_stats c;
	struct forest_stats f;
	struct alloc_info a;

	alloc_info(d->store->alloc, &a);
	out->free = a.free;
	out->avail = a.avail;
	out->reserve = a.reserve;
	out->pending = a.pending;
	forest_stats(d->store->forest, &f);
	out->cache_hits = f.hits;
	out->cache_misses = f.misses;
	out->cache_bytes = f.bytes;
	out->dirty_bytes = f.dirty_bytes;
	store_commit_stats(d->store, &c);
	out->commits = c.commits;
	out->commit_bytes = c.bytes;
	out->commit_ns = c.ns_total;
	out->commit_ns_max = c.ns_max;
}

int info_fill(struct daemon *d, struct cowfs_ioc_info *out)
{
	int err;

	memset(out, 0, sizeof(*out));
	out->version = COWFS_IOC_VERSION;
	out->pid = (uint64_t)getpid();
	out->readonly = store_readonly(d->store);
	out->stopped = store_stopped(d->store);
	fill_super(d, out);
	fill_block(d, out);
	fill_counts(d, out);
	err = snap_count(d->store, &out->snapshots);
	if (!err)
		err = snap_drops(d->store, &out->drops);
	return err;
}

void info_snap(const struct snap_info *in, struct cowfs_ioc_snap *out)
{
	memset(out, 0, sizeof(*out));
	out->id = in->id;
	out->gen = in->gen;
	out->root_block = in->root.blk;
	out->time_sec = in->time.sec;
	out->time_nsec = in->time.nsec;
	memcpy(out->name, in->name, sizeof(in->name));
}

void info_scrub(struct daemon *d, struct cowfs_ioc_scrub *out)
{
	struct scrub_status s;
	size_t lines;

	scrub_status(d->scrub, &s);
	(void)scrub_messages(d->scrub, 0, NULL, 0, &lines);
	*out = (struct cowfs_ioc_scrub){
		.running = s.running,
		.finished = s.finished,
		.cancelled = s.cancelled,
		.error = cowfs_errno_for_user(s.error),
		.done = s.done,
		.total = s.total,
		.ns = s.ns,
		.blocks = s.result.blocks,
		.checksums = s.result.checksums,
		.nodes = s.result.nodes,
		.data_blocks = s.result.data_blocks,
		.prealloc_blocks = s.result.prealloc_blocks,
		.problems = s.result.problems,
		.bad_copies = s.result.bad_copies,
		.repaired = s.result.repaired,
		.lost = s.result.lost,
		.snapshots = s.result.snapshots,
		.inodes = s.result.inodes,
		.dirs = s.result.dirs,
		.messages = lines,
	};
}
