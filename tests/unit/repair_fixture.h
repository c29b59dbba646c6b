/*
 * repair_fixture.h - damage in an image in memory (support/image.h), and repairs
 * of it
 */
#ifndef REPAIR_FIXTURE_H
#define REPAIR_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/repair.h"
#include "support/image.h"

static struct repair_result res;
#define TOLD_MAX 1024u
static char told[TOLD_MAX][512];
static unsigned lines;

static inline void on_told(void *arg, const char *line)
{
	(void)arg;
	snprintf(told[lines % TOLD_MAX], sizeof(told[0]), "%s", line);
	lines++;
}

static inline bool was_told(const char *text)
{
	for (unsigned i = 0; i < lines && i < TOLD_MAX; i++)
		if (strstr(told[i], text))
			return true;
	return false;
}

static inline int run(const struct repair_options *how)
{
	struct repair_options opt = *how;

	opt.told = on_told;
	lines = 0;
	return repair_run(dev, &opt, &res);
}

static inline void repair_all(void)
{
	struct repair_options opt = { .all = true };

	ck_ok(run(&opt));
}

/* Unmounted; with damage; fully repaired, and good for further use. */
static inline void assert_repairs(void)
{
	repair_all();
	ck_assert_uint_gt(res.check.problems, 0);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
	mount_it();
	make_node(1, "afterwards", S_IFREG | 0644, NULL);
	unmount_it();
	assert_clean();
}

static inline void crash(void)
{
	fs_umount(fs);
	store_abandon(store);
	fs = NULL;
	store = NULL;
}

static inline void stop_dead(void)
{
	ck_ok(store_commit(store, NULL, NULL));
	crash();
}

static inline bool there(uint64_t dir, const char *name, struct attr *a)
{
	return fs_lookup(fs, fs_live(fs), dir, name, strlen(name), a) == 0;
}

/* The leaf that k belongs to: both copies. */
static inline struct nptr leaf_of(unsigned kind, struct key k)
{
	struct cowfs_disk_super d = get_super();
	struct nptr p = nptr_from_disk(&d.roots[kind].ptr);

	while (p.level) {
		unsigned slot = 0;

		ck_ok(bdev_read(dev, p.blk << 12, scratch, 4096));
		for (unsigned i = 0; i < node_count(scratch); i++) {
			struct key at = node_key(scratch, i);

			if (key_cmp(&at, &k) <= 0)
				slot = i;
		}
		p = node_child(scratch, slot);
	}
	return p;
}

static inline void lose_leaf(unsigned kind, struct key k)
{
	struct nptr p = leaf_of(kind, k);

	flip_block(p.blk);
	if (p.blk2)
		flip_block(p.blk2);
}

#endif
