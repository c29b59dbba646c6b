/*
 * cowctl_mirror.c - the verb mirror: how the sides are, one more, one less
 */
#include <fcntl.h>
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
		return " (degraded: bring it back, mount anew and scrub, or "
		       "replace it: mirror add)";
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

/* The new side: there is room, and nothing that is missed. */
static int open_new(const char *image, uint64_t bytes, bool force,
		    struct bdev **dev)
{
	struct stat st;
	bool there = stat(image, &st) == 0, file = !there || S_ISREG(st.st_mode);
	int err;

	err = bdev_open_file(image, BDEV_CREATE, NEW_WAIT_MS, dev);
	if (err) {
		tool_err(image, "%s", tool_make_strerror(err));
		return err;
	}
	/* Even if there was none: others may have been quicker. */
	if (!force && tool_refuse_used(image, *dev, file))
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

/* Files have been made large enough. */
static const char no_room[] =
	"is too small, or what the filesystem or it lies on has no room";

/* The daemon opens what is checked and large enough here, and no other thing
 * that somebody has put there meanwhile. */
static int hand_over(struct target *t, const char *image, struct bdev *dev)
{
	char *real = realpath(image, NULL);
	struct bdev_id id;
	int err, hold;

	bdev_file_id(dev, &id);
	/* Some filesystems number a file anew when nobody has it open. */
	hold = open(image, O_PATH | O_CLOEXEC);
	bdev_close(dev);
	err = real ? target_mirror(t, COWFS_MIRROR_ADD, real, &id) : -ENOENT;
	if (hold >= 0)
		close(hold);
	free(real);
	return err;
}

static int add_mounted(struct target *t, const char *image, struct bdev *dev)
{
	int err = hand_over(t, image, dev);

	switch (err) {
	case 0:
		break;
	case -EEXIST:
		tool_err(t->path, "is a mirror of two sides: remove one first "
			 "(mirror remove)");
		break;
	case -EALREADY:
		tool_err(t->path, "a scrub is running: wait for its end, or "
			 "cancel it");
		break;
	case -ELOOP:
		tool_err(image, "lies on the filesystem itself");
		break;
	case -EBUSY:
		tool_err(image, "in use");
		break;
	case -ENOSPC:
		tool_err(image, "%s", no_room);
		break;
	case -ESTALE:
		tool_err(image, "was replaced by something else meanwhile");
		break;
	default:
		tool_err(t->path, "%s", target_strerror(err));
	}
	return err;
}

static int add_offline(struct target *t, const char *image, struct bdev *dev)
{
	int err = cowfs_mirror_add(t->image, dev);

	if (err)
		tool_err(image, "%s", err == -ENOSPC ? no_room :
			 tool_strerror(err));
	return err;
}

static int add_side(struct target *t, const char *image, bool force)
{
	bool created = access(image, F_OK) != 0;
	struct cowfs_ioc_info info;
	struct bdev *dev;
	int err = target_info(t, &info);

	if (err) {
		tool_err(t->path, "%s", target_strerror(err));
		return err;
	}
	err = open_new(image, info.blocks * COWFS_BLOCK_SIZE, force, &dev);
	if (err)
		return err;
	err = target_is_image(t) ? add_offline(t, image, dev) :
				   add_mounted(t, image, dev);
	if (err && created) /* by us, and it is of no use */
		(void)unlink(image);
	return err;
}

static int add(const char *path, const char *image, bool force)
{
	struct target t;
	char *other = NULL;
	bool mounted;
	int err = cowfs_device_other(path, &other);

	if (!err)
		tool_err(path, "is a mirror, its other side is %s: remove that "
			 "first (mirror remove)", other);
	free(other);
	if (err != -ENOENT || target_open(&t, path, TARGET_ALONE))
		return STATUS_FAILED;
	mounted = !target_is_image(&t);
	err = add_side(&t, image, force);
	if (target_close(&t) || err)
		return STATUS_FAILED;
	printf("%s is the other side of %s now; %s\n", image, path,
	       mounted ? "it is being filled (scrub status)" :
			 "a scrub fills it");
	return STATUS_OK;
}

static void say_remove(const struct target *t, const char *image, int err)
{
	if (err == -EINVAL)
		tool_err(t->path, "is no mirror");
	else if (err == -ENOENT && *image)
		tool_err(image, "is no side of %s", t->path);
	else if (err == -ENOENT)
		tool_err(t->path, "both sides are complete: name the one to "
			 "remove");
	else if (err == -EBUSY)
		tool_err(t->path, "what would be left is not complete");
	else
		tool_err(t->path, "%s", target_strerror(err));
}

static int remove_mounted(struct target *t, const char *image)
{
	char *real = *image ? realpath(image, NULL) : NULL;
	int err = target_mirror(t, COWFS_MIRROR_REMOVE, real ? real : image,
				NULL);

	free(real);
	if (err) {
		say_remove(t, image, err);
		return err;
	}
	printf("%s is a filesystem without a mirror now\n", t->path);
	return 0;
}

static int remove_offline(struct target *t)
{
	int err = cowfs_mirror_remove(t->image);

	if (err)
		tool_err(t->path, "%s", err == -EINVAL ?
			 "is no side of a mirror" : tool_strerror(err));
	return err;
}

/* image: "" if none is named. */
static int remove_side(const char *path, const char *image)
{
	struct target t;
	bool mounted;
	int err;

	if (target_open(&t, path, TARGET_ALONE))
		return STATUS_FAILED;
	mounted = !target_is_image(&t);
	if (!mounted && *image) {
		tool_err(path, "is not mounted: name the side that is to stay, "
			 "and no other");
		(void)!target_close(&t);
		return STATUS_FAILED;
	}
	err = mounted ? remove_mounted(&t, image) : remove_offline(&t);
	if (target_close(&t) || err)
		return STATUS_FAILED;
	if (!mounted)
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
	while ((c = getopt_long(argc, argv, ":f", options, NULL)) != -1) {
		if (c != 'j' && c != 'f')
			return option_error(argv[0], c, argv);
		json |= c == 'j';
		force |= c == 'f';
	}
	verb = optind < argc ? argv[optind] : "";
	n = argc - optind;
	if (n == 0 && !force)
		return status(path, json);
	if (n == 2 && !json && strcmp(verb, "add") == 0)
		return add(path, argv[optind + 1], force);
	if ((n == 1 || n == 2) && !json && !force &&
	    strcmp(verb, "remove") == 0)
		return remove_side(path, n == 2 ? argv[optind + 1] : "");
	return usage_error(argv[0], "mirror [--json], mirror add [-f] IMAGE, "
			   "or mirror remove [IMAGE]");
}
