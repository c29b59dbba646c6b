/*
 * cowctl_mirror.c - the verb mirror: how the sides are, one more, one less
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowctl.h"

/* How long to wait for a program that is about to let go of the new image. */
#define NEW_WAIT_MS 2000

static const char *side_text(uint8_t state)
{
	return state == SIDE_GOOD ? "complete" :
	       state == SIDE_STALE ? "stale" : "missing";
}

static const char *advice(const struct cowfs_ioc_info *info)
{
	const uint8_t *s = info->side_state;

	if (s[0] == SIDE_GONE || s[1] == SIDE_GONE)
		return " (degraded: bring it back and scrub, or replace it: "
		       "mirror add)";
	if (s[0] == SIDE_STALE || s[1] == SIDE_STALE)
		return " (degraded: a scrub completes it)";
	return "";
}

void mirror_text(const struct cowfs_ioc_info *info)
{
	printf("%-20s side 0 %s, side 1 %s%s\n", "Mirror",
	       side_text(info->side_state[0]), side_text(info->side_state[1]),
	       advice(info));
}

void mirror_json(const struct cowfs_ioc_info *info)
{
	if (info->sides < 2) {
		printf("null");
		return;
	}
	printf("{ \"sides\": [\"%s\", \"%s\"], \"degraded\": %s, "
	       "\"resynced\": %" PRIu64 " }",
	       side_text(info->side_state[0]), side_text(info->side_state[1]),
	       *advice(info) ? "true" : "false", info->resynced);
}

void mirror_after_scrub(struct target *t)
{
	struct cowfs_ioc_info info;

	if (target_info(t, &info) || info.sides < 2)
		return;
	if (info.resynced)
		printf("%" PRIu64 " blocks copied to a side of the mirror\n",
		       info.resynced);
	if (*advice(&info))
		mirror_text(&info);
}

/* ---- status ---- */

static int status(const char *path, bool json)
{
	struct cowfs_ioc_info info;
	struct target t;
	int err;

	if (target_open(&t, path, TARGET_READ))
		return STATUS_FAILED;
	err = target_info(&t, &info);
	if (err) {
		tool_err(path, "%s", target_strerror(err));
	} else if (json) {
		mirror_json(&info);
		putchar('\n');
	} else if (info.sides > 1) {
		mirror_text(&info);
	} else {
		puts("Not a mirror");
	}
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}

/* ---- add, remove ---- */

/* Only of an image: the device of a mount is as it was opened. */
static int open_alone(struct target *t, const char *path)
{
	if (target_open(t, path, TARGET_ALONE))
		return -1;
	if (target_is_image(t))
		return 0;
	tool_err(path, "is mounted: unmount it first");
	(void)!target_close(t); /* of a mount: nothing was written */
	return -1;
}

/* The new side: there is room, and nothing that is missed. */
static int open_new(const char *image, uint64_t bytes, bool force,
		    struct bdev **dev)
{
	struct stat st;
	bool there = stat(image, &st) == 0, file = !there || S_ISREG(st.st_mode);
	int err;

	err = bdev_open_file(image, BDEV_CREATE, NEW_WAIT_MS, dev);
	if (err) {
		tool_err(image, "%s", err == -EBUSY ? "in use" :
			 tool_strerror(err));
		return err;
	}
	if (there && !force && tool_refuse_used(image, *dev, file))
		err = -EEXIST;
	if (!err && file && (*dev)->size < bytes) {
		err = bdev_file_resize(*dev, bytes);
		if (err)
			tool_err(image, "%s", tool_strerror(err));
	}
	if (!err)
		return 0;
	bdev_close(*dev);
	if (!there)
		(void)unlink(image);
	return err;
}

static int add_side(struct target *t, const char *image, bool force)
{
	struct cowfs_ioc_info info;
	struct bdev *dev;
	int err = cowfs_info(t->image, &info);

	if (err) {
		tool_err(t->path, "%s", tool_strerror(err));
		return err;
	}
	err = open_new(image, info.blocks * COWFS_BLOCK_SIZE, force, &dev);
	if (err)
		return err;
	err = cowfs_mirror_add(t->image, dev);
	if (err)
		tool_err(image, "%s", err == -ENOSPC ? "is too small" :
			 tool_strerror(err));
	return err;
}

static int add(const char *path, const char *image, bool force)
{
	struct target t;
	char *other = NULL;
	int err = cowfs_device_other(path, &other);

	if (!err)
		tool_err(path, "is a mirror, its other side is %s: remove that "
			 "first (mirror remove)", other);
	free(other);
	if (err != -ENOENT || open_alone(&t, path))
		return STATUS_FAILED;
	err = add_side(&t, image, force);
	if (target_close(&t) || err)
		return STATUS_FAILED;
	printf("%s is the other side of %s now; a scrub fills it\n", image,
	       path);
	return STATUS_OK;
}

static int remove_side(const char *path)
{
	struct target t;
	int err;

	if (open_alone(&t, path))
		return STATUS_FAILED;
	err = cowfs_mirror_remove(t.image);
	if (err)
		tool_err(path, "%s", err == -EINVAL ? "is no side of a mirror" :
			 tool_strerror(err));
	if (target_close(&t) || err)
		return STATUS_FAILED;
	printf("%s is a filesystem of its own now\n", path);
	return STATUS_OK;
}

int verb_mirror(const char *path, int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "force", no_argument, NULL, 'f' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false, force = false;
	const char *verb;
	int c, n;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "f", options, NULL)) != -1) {
		if (c != 'j' && c != 'f')
			return usage_error(argv[0], "unknown option '%s'",
					   argv[optind - 1]);
		json |= c == 'j';
		force |= c == 'f';
	}
	verb = optind < argc ? argv[optind] : "";
	n = argc - optind;
	if (n == 0 && !force)
		return status(path, json);
	if (n == 2 && !json && strcmp(verb, "add") == 0)
		return add(path, argv[optind + 1], force);
	if (n == 1 && !json && !force && strcmp(verb, "remove") == 0)
		return remove_side(path);
	return usage_error(argv[0], "mirror [--json], mirror add [-f] IMAGE, "
			   "or mirror remove");
}
