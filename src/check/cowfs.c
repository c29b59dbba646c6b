/*
 * cowfs.c - libcowfs for tools: an image opened offline
 *
 * The verbs are those of a mounted filesystem; what runs in the background
 * there (freeing what a deleted snapshot held) is finished before close.
 */
#include "check/private.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "snapshot/snapshot.h"

struct cowfs {
	struct store *s;
	struct scrub *scrub; /* NULL: not asked for yet */
	bool write;
};

/* ---- mkfs ---- */

static int format_options(struct bdev *dev, const struct cowfs_mkfs *opt,
			  struct store_format *f)
{
	*f = (struct store_format){
		.blocks = dev->size / COWFS_BLOCK_SIZE,
		.node_size = opt->node_size ? opt->node_size :
					      COWFS_DEFAULT_NODE_SIZE,
		.meta_copies = opt->metadata_copies ? opt->metadata_copies : 2,
		.data_copies = opt->data_copies ? opt->data_copies : 1,
	};
	if (f->blocks < COWFS_MIN_BLOCKS)
		return -ENOSPC;
	if (f->blocks > COWFS_MAX_BLOCKS)
		return -EFBIG;
	if (f->node_size < COWFS_MIN_NODE_SIZE ||
	    f->node_size > COWFS_MAX_NODE_SIZE ||
	    (f->node_size & (f->node_size - 1)) != 0 || f->meta_copies > 2 ||
	    f->data_copies > 2)
		return -EINVAL;
	if (opt->label) {
		if (strlen(opt->label) > COWFS_LABEL_MAX)
			return -EINVAL;
		memcpy(f->label, opt->label, strlen(opt->label));
	}
	if (opt->uuid)
		memcpy(f->uuid, opt->uuid, sizeof(f->uuid));
	else
		random_bytes(f->uuid, sizeof(f->uuid));
	if (!opt->uuid) { /* RFC 4122: version 4, random */
		f->uuid[6] = (uint8_t)((f->uuid[6] & 0x0f) | 0x40);
		f->uuid[8] = (uint8_t)((f->uuid[8] & 0x3f) | 0x80);
	}
	return 0;
}

/* cowfs leaves the first 64 KiB alone: signatures of what was there before
 * would stay, and who probes the device would see two filesystems. */
static int wipe_signatures(struct bdev *dev)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	int err = 0;

	if (bdev_sides(dev) == 1 && !cowfs_probe(dev))
		return 0;
	for (uint64_t b = 0; b < COWFS_SUPER_NEAR && !err; b++)
		err = bdev_write(dev, b * COWFS_BLOCK_SIZE, zero,
				 sizeof(zero));
	return err;
}

int cowfs_mkfs(struct bdev *dev, const struct cowfs_mkfs *opt)
{
	struct store_config cfg = { .dev = dev };
	struct store_format f;
	struct store *s;
	int err, err2;

	err = format_options(dev, opt, &f);
	if (!err)
		err = wipe_signatures(dev);
	if (!err)
		err = store_format(dev, &f);
	if (!err)
		err = store_open(&cfg, &s);
	if (err)
		return err;
	err = fs_format(s, opt->uid, opt->gid, opt->mode ? opt->mode : 0755);
	if (!err && opt->redundancy)
		err = redun_set(s, opt->redundancy);
	err2 = store_close(s);
	return err ? err : err2;
}

/* ---- open, close ---- */

static int open_store(const struct store_config *cfg, struct cowfs **out)
{
	bool write = !(cfg->flags & STORE_READONLY);
	struct cowfs *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	err = store_open(cfg, &c->s);
	if (err) {
		free(c);
		return err;
	}
	c->write = write && !store_readonly(c->s);
	if (c->write)
		err = snap_start(c->s);
	else if (write)
		err = -EROFS; /* a feature that allows reading only */
	if (err) {
		store_abandon(c->s);
		free(c);
		return err;
	}
	*out = c;
	return 0;
}

int cowfs_open(struct bdev *dev, bool write, struct cowfs **out)
{
	struct store_config cfg = { .dev = dev,
				    .flags = write ? 0 : STORE_READONLY };

	return open_store(&cfg, out);
}

int cowfs_close(struct cowfs *c)
{
	int err = 0, err2;

	if (!c)
		return 0;
	if (c->write && !store_stopped(c->s))
		err = store_drain(c->s);
	scrub_free(c->scrub);
	err2 = store_close(c->s);
	free(c);
	return err ? err : err2;
}

/* ---- the verbs ---- */

int cowfs_info(struct cowfs *c, struct cowfs_ioc_info *out)
{
	return check_info(c->s, out);
}

int cowfs_stats(struct cowfs *c, struct cowfs_ioc_stats *out)
{
	return check_stats(c->s, out);
}

bool cowfs_hist_next(struct cowfs *c, uint64_t *at, struct cowfs_ioc_hist *out)
{
	return check_hist_next(c->s, at, out);
}

int cowfs_mirror_add(struct cowfs *c, struct bdev *dev)
{
	return store_mirror_add(c->s, dev);
}

int cowfs_mirror_remove(struct cowfs *c)
{
	struct bdev *dev = c->s->dev;

	if (bdev_sides(dev) < 2)
		return -EINVAL;
	return store_mirror_remove(c->s, bdev_side_state(dev, 0) == SIDE_GONE ?
						 0 : 1);
}

static void snap_to_ioc(const struct snap_info *info,
			struct cowfs_ioc_snap *out)
{
	*out = (struct cowfs_ioc_snap){ .id = info->id,
					.gen = info->gen,
					.root_block = info->root.blk,
					.time_sec = info->time.sec,
					.time_nsec = info->time.nsec };
	memcpy(out->name, info->name, strlen(info->name));
}

int cowfs_snap_create(struct cowfs *c, const char *name,
		      struct cowfs_ioc_snap *out)
{
	struct snap_info info;
	int err = snap_check_name(name, false);

	if (!err)
		err = snap_create(c->s, name, &info);
	if (!err && out)
		snap_to_ioc(&info, out);
	return err;
}

int cowfs_get_setting(struct cowfs *c, struct cowfs_ioc_setting *io)
{
	return check_get_setting(c->s, io);
}

int cowfs_set_setting(struct cowfs *c, const struct cowfs_ioc_setting *io)
{
	return check_set_setting(c->s, io);
}

int cowfs_snap_delete(struct cowfs *c, const char *name)
{
	return snap_delete(c->s, name);
}

int cowfs_snap_restore(struct cowfs *c, const char *name, const char *save)
{
	if (save && !*save)
		save = NULL;
	return snap_restore(c->s, name, save, NULL, NULL);
}

int cowfs_snap_next(struct cowfs *c, uint64_t id, struct cowfs_ioc_snap *out)
{
	struct snap_info info;
	int err = snap_next(c->s, id, &info);

	if (!err)
		snap_to_ioc(&info, out);
	return err;
}

/* ---- scrub ---- */

static int get_scrub(struct cowfs *c)
{
	return c->scrub ? 0 : scrub_new(c->s, &c->scrub);
}

struct scrubbing {
	struct cowfs *c;
	const struct cowfs_scrub *opt;
};

static int scrub_progress(void *arg)
{
	const struct scrubbing *s = arg;
	struct cowfs_ioc_scrub now;

	if (!s->opt->progress)
		return 0;
	scrub_status(s->c->scrub, &now);
	return s->opt->progress(s->opt->arg, &now);
}

int cowfs_scrub(struct cowfs *c, const struct cowfs_scrub *opt,
		struct cowfs_ioc_scrub *out)
{
	struct scrubbing s = { .c = c, .opt = opt };
	int err = get_scrub(c);

	if (err)
		return err;
	/* All that is bad is in the report. */
	c->s->io.quiet = true;
	err = scrub_here(c->scrub, opt->resume, opt->rate, scrub_progress, &s);
	c->s->io.quiet = false;
	if (!err)
		scrub_status(c->scrub, out);
	return err;
}

int cowfs_scrub_status(struct cowfs *c, struct cowfs_ioc_scrub *out)
{
	int err = get_scrub(c);

	if (!err)
		scrub_status(c->scrub, out);
	return err;
}

int cowfs_scrub_report(struct cowfs *c, struct cowfs_ioc_report *page)
{
	int err = get_scrub(c);

	if (!err)
		scrub_report(c->scrub, page);
	return err;
}

int cowfs_scrub_cancel(struct cowfs *c)
{
	int err = get_scrub(c);

	return err ? err : scrub_cancel(c->scrub);
}

/* ---- check ---- */

static void pass_found(void *arg, enum problem p, const char *where)
{
	const struct cowfs_check *opt = arg;

	if (opt->found)
		opt->found(opt->arg, problem_name(p), where);
}

static int pass_progress(void *arg, uint64_t done, uint64_t total)
{
	const struct cowfs_check *opt = arg;

	return opt->progress ? opt->progress(opt->arg, done, total) : 0;
}

void check_to_ioc(const struct check_result *res, struct cowfs_ioc_scrub *out)
{
	out->blocks = res->blocks;
	out->checksums = res->checksums;
	out->nodes = res->nodes;
	out->data_blocks = res->data_blocks;
	out->prealloc_blocks = res->prealloc_blocks;
	out->problems = res->problems;
	out->bad_copies = res->bad_copies;
	out->repaired = res->repaired;
	out->lost = res->lost;
	out->snapshots = res->snapshots;
	out->inodes = res->inodes;
	out->dirs = res->dirs;
}

/* s: of a store; NULL: of a device that no store opens. */
static int run_check(struct store *s, struct bdev *dev,
		     const struct cowfs_check *opt,
		     struct cowfs_ioc_scrub *out)
{
	struct check_options co = {
		.data = opt->data,
		.mend = opt->mend,
		.semantics = opt->semantics,
		.all_snapshots = opt->all_snapshots,
		.found = pass_found,
		.progress = pass_progress,
		.arg = (void *)(uintptr_t)opt,
	};
	struct cowfs_ioc_scrub ioc = { 0 };
	struct check_result res = { 0 };
	uint64_t began = now_ns();
	int err;

	err = s ? check_run(s, &co, &res) : check_device(dev, &co, &res);
	if (err && err != -ECANCELED)
		return err;
	check_to_ioc(&res, &ioc);
	ioc.finished = !err;
	ioc.cancelled = err != 0;
	ioc.done = ioc.total = res.blocks;
	ioc.ns = now_ns() - began;
	*out = ioc;
	return err;
}

int cowfs_check(struct cowfs *c, const struct cowfs_check *opt,
		struct cowfs_ioc_scrub *out)
{
	return run_check(c->s, NULL, opt, out);
}

static void pass_told(void *arg, const char *line)
{
	const struct cowfs_check *opt = arg;

	if (opt->told)
		opt->told(opt->arg, line);
}

static int run_first(struct store *s, struct bdev *dev,
		     const struct cowfs_check *opt, uint64_t *problems)
{
	struct check_first f = { .found = pass_found, .told = pass_told,
				 .arg = (void *)(uintptr_t)opt };
	int err = check_first(dev, s, &f);

	*problems = f.problems;
	return err;
}

int cowfs_check_device(struct bdev *dev, const struct cowfs_check *opt,
		       struct cowfs_ioc_scrub *out)
{
	struct store_config cfg = { .dev = dev, .use_gen = opt->gen,
				    .flags = STORE_READONLY | STORE_BARE };
	uint64_t problems = 0;
	struct cowfs *c;
	int err = open_store(&cfg, &c);

	if (opt->gen && err)
		return err;
	if (err == -ECOW_CSUM || err == -ECOW_CORRUPT || err == -EIO)
		return run_check(NULL, dev, opt, out);
	if (err)
		return err;
	err = run_first(c->s, dev, opt, &problems);
	if (!err)
		err = run_check(c->s, NULL, opt, out);
	if (!err || err == -ECANCELED)
		out->problems += problems;
	if (cowfs_close(c) && !err)
		err = -EIO;
	return err;
}
