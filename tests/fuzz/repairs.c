/*
 * repairs.c - fsck on images that lie: what it says it did, it did
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check/repair.h"
#include "fuzz/hostile.h"

void require(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "broken promise: %s\n", what);
	abort();
}

void hostile_found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	if (getenv("VERBOSE"))
		fprintf(stderr, "  %s: %s\n", problem_name(p), where);
	require(p < P_COUNT && strlen(where) < 512, "problem");
}

static void told(void *arg, const char *line)
{
	(void)arg;
	if (getenv("VERBOSE"))
		fprintf(stderr, "  told: %s\n", line);
	require(strlen(line) < 4096, "what a repair tells");
}

bool is_clean(struct bdev *dev, bool data)
{
	struct check_options opt = { .data = data, .semantics = true,
				     .all_snapshots = true,
				     .found = hostile_found };
	struct check_result res;

	return !check_device(dev, &opt, &res) && !res.problems;
}

bool repair_it(struct bdev *dev, uint64_t seed)
{
	struct repair_options opt = { .all = seed % 8 != 0,
				      .data = seed & 8,
				      .punch = seed & 16,
				      .found = hostile_found, .told = told };
	struct repair_result res;
	int err = repair_run(dev, &opt, &res);

	require(!err || !res.committed, "a repair that failed is none");
	if (err || !res.committed)
		return false;
	require(is_clean(dev, false), "what was repaired checks clean");
	if (!res.left && (opt.data || opt.punch))
		require(is_clean(dev, true), "repaired data check clean");
	return true;
}

void undo_it(struct bdev *dev, uint64_t seed)
{
	int err = repair_undo(dev);

	if (err == -ENODEV && bdev_bad_sides(dev))
		return; /* it takes both sides of a mirror */
	require(!err || err == -EBUSY || err == -ENOMEM, "a repair is undone");
	if (!err)
		repair_it(dev, seed);
}
