/*
 * recovery.c - mounting a state from before the newest superblock
 *
 * The predecessor of the newest state is whole (X3). What still older ones name
 * may have been overwritten since; nothing wrong is ever read, for checksums
 * lie in what points there, but parts may be missing. So all nodes are looked
 * at first, and what is gone is said.
 */
#include <inttypes.h>
#include <stdio.h>

#include "cowfs/cowfs.h"
#include "fuse/daemon.h"

static void list_generations(struct daemon *d)
{
	uint64_t gen[COWFS_SUPER_SLOTS];
	unsigned n = COWFS_SUPER_SLOTS;

	if (cowfs_generations(d->dev, gen, &n))
		return;
	fprintf(stderr, "Generations of which there is a superblock, newest "
		"first:");
	for (unsigned i = 0; i < n; i++)
		fprintf(stderr, " %" PRIu64, gen[i]);
	fprintf(stderr, "\n");
}

int recovery_pick(struct daemon *d, uint64_t *gen)
{
	const struct options *o = d->opt;
	int err;

	*gen = 0;
	if (!o->recovery)
		return 0;
	err = cowfs_generation_at(d->dev, o->recovery, gen);
	if (err)
		fprintf(stderr, "%s: %s: recovery=%" PRIu64 ": %s\n",
			o->program, o->image, o->recovery, err == -ENOENT ?
			"the superblock of that state has been overwritten, "
			"or never was" : strerror(-cowfs_errno_for_user(err)));
	if (err == -ENOENT)
		list_generations(d);
	return err;
}

int recovery_look(struct daemon *d, uint64_t gen)
{
	const struct options *o = d->opt;
	struct check_options opt = { .data = false };
	struct check_result res = { 0 };
	int err = check_run(d->store, &opt, &res);

	if (err)
		return err;
	fprintf(stderr, "%s: %s: the state of generation %" PRIu64 "%s\n",
		o->program, o->image, gen, res.problems ? "" :
		", nothing of its metadata is missing");
	if (res.problems)
		fprintf(stderr, "%s: %s: parts of that state have been "
			"overwritten since: %" PRIu64 " blocks of metadata "
			"are lost, what they held cannot be read\n",
			o->program, o->image, res.lost);
	return 0;
}
