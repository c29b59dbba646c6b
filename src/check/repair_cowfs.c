/*
 * repair_cowfs.c - libcowfs for tools: repair
 */
#include "check/private.h"
#include "cowfs/cowfs.h"

static void pass_found(void *arg, enum problem p, const char *where)
{
	const struct cowfs_repair *opt = arg;

	if (opt->found)
		opt->found(opt->arg, problem_name(p), where);
}

static void pass_told(void *arg, const char *line)
{
	const struct cowfs_repair *opt = arg;

	if (opt->told)
		opt->told(opt->arg, line);
}

static bool pass_ask(void *arg, uint64_t problems, bool loses)
{
	const struct cowfs_repair *opt = arg;

	return opt->ask(opt->arg, problems, loses);
}

static int pass_progress(void *arg, uint64_t done, uint64_t total)
{
	const struct cowfs_repair *opt = arg;

	return opt->progress ? opt->progress(opt->arg, done, total) : 0;
}

int cowfs_repair(struct bdev *dev, const struct cowfs_repair *opt,
		 struct cowfs_repaired *out)
{
	struct repair_options ro = {
		.all = opt->all,
		.data = opt->data,
		.punch = opt->punch,
		.gen = opt->gen,
		.found = pass_found,
		.told = pass_told,
		.ask = opt->ask ? pass_ask : NULL,
		.progress = pass_progress,
		.arg = (void *)(uintptr_t)opt,
	};
	struct repair_result res = { 0 };
	uint64_t began = now_ns();
	int err = repair_run(dev, &ro, &res);

	if (err)
		return err;
	*out = (struct cowfs_repaired){
		.changed = res.committed || res.mended,
		.needs_all = res.needs_all,
		.left = res.left,
	};
	check_to_ioc(&res.check, &out->check);
	out->check.finished = true;
	out->check.ns = now_ns() - began;
	return 0;
}

int cowfs_repair_undo(struct bdev *dev)
{
	return repair_undo(dev);
}

int cowfs_generations(struct bdev *dev, uint64_t *gen, unsigned *n)
{
	struct super_scan *scan = malloc(sizeof(*scan));
	int err = scan ? super_scan(dev, scan) : -ENOMEM;

	for (unsigned i = 0; !err && i < scan->count && i < *n; i++)
		gen[i] = scan->found[i].gen;
	if (!err)
		*n = scan->count;
	free(scan);
	return err;
}

int cowfs_generation_at(struct bdev *dev, uint64_t n, uint64_t *gen)
{
	uint64_t all[COWFS_SUPER_SLOTS];
	unsigned have = COWFS_SUPER_SLOTS;
	int err = cowfs_generations(dev, all, &have);

	for (unsigned i = 0; !err && i < have; i++) {
		if (n < COWFS_SUPER_SLOTS ? n != i : n != all[i])
			continue;
		*gen = all[i];
		return 0;
	}
	return err ? err : -ENOENT;
}
