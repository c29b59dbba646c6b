/*
 * mkfs.c - mkfs.cowfs: make a filesystem in an image file or block device
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "tool.h"

/* How long to wait for a daemon that is about to exit. */
#define LOCK_WAIT_MS 2000

struct options {
	struct cowfs_mkfs fs;
	const char *image[BDEV_SIDES];
	unsigned images; /* 2: a mirror */
	uint64_t size; /* 0: as it is */
	bool force, quiet, nodiscard, mirror;
	uint8_t uuid[16];
};

static const char usage_text[] =
	"usage: mkfs.cowfs [-fKq] [-s size] [-n nodesize] [-L label] [-U uuid]\n"
	"                  [--metadata-copies n] [--data-copies n]\n"
	"                  [--redundancy n] image\n"
	"       mkfs.cowfs --mirror [options] image image\n"
	"       mkfs.cowfs --help | --version\n";

static const char help_text[] =
	"\n"
	"Make a cowfs filesystem in an image file or on a block device.\n"
	"\n"
	"  -s, --size SIZE          size of the image (4K, 1M, 1G, 1T); the file\n"
	"                           is created if it is not there\n"
	"  -n, --node-size SIZE     size of tree nodes: 4K to 64K, default 16K\n"
	"  -L, --label LABEL        name of the filesystem, up to 63 bytes\n"
	"  -U, --uuid UUID          its UUID; default: a random one\n"
	"      --metadata-copies N  1 or 2, default 2\n"
	"      --data-copies N      1 or 2, default 1\n"
	"      --mirror             in two files or on two devices, each of\n"
	"                           which holds everything\n"
	"      --redundancy N       data that N or more snapshots share (the live\n"
	"                           files count as one) gets a second copy later;\n"
	"                           default 0: none\n"
	"  -f, --force              overwrite what is there\n"
	"  -K, --nodiscard          do not discard the old contents first\n"
	"  -q, --quiet              print nothing but errors\n"
	"      --help, --version\n";

static int wrong(const char *what, const char *value)
{
	tool_err(value, "%s", what);
	return 2;
}

/* ---- options ---- */

static int hex_digit(char c)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	const char *at = c ? strchr(digits, c) : NULL;
	long n = at ? at - digits : -1;

	return (int)(n > 15 ? n - 6 : n);
}

/* xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx */
static int parse_uuid(const char *s, uint8_t uuid[16])
{
	size_t n = 0;

	if (strlen(s) != 36)
		return -1;
	for (size_t i = 0; i < 36;) {
		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (s[i++] != '-')
				return -1;
			continue;
		}
		if (hex_digit(s[i]) < 0 || hex_digit(s[i + 1]) < 0)
			return -1;
		uuid[n++] = (uint8_t)(hex_digit(s[i]) << 4 |
				      hex_digit(s[i + 1]));
		i += 2;
	}
	return 0;
}

static int parse_copies(const char *s, unsigned *copies)
{
	if ((s[0] != '1' && s[0] != '2') || s[1])
		return -1;
	*copies = (unsigned)(s[0] - '0');
	return 0;
}

static int set_size(struct options *o, const char *arg)
{
	if (tool_parse_size(arg, &o->size) || o->size > INT64_MAX)
		return wrong("not a size", arg);
	if (o->size / COWFS_BLOCK_SIZE < COWFS_MIN_BLOCKS)
		return wrong("too small: a filesystem takes 8 MiB", arg);
	return 0;
}

static int set_node_size(struct options *o, const char *arg)
{
	uint64_t n;

	if (tool_parse_size(arg, &n) || n < COWFS_MIN_NODE_SIZE ||
	    n > COWFS_MAX_NODE_SIZE || (n & (n - 1)) != 0)
		return wrong("not a node size (4K, 8K, 16K, 32K or 64K)", arg);
	o->fs.node_size = (uint32_t)n;
	return 0;
}

static int set_label(struct options *o, const char *arg)
{
	if (strlen(arg) > COWFS_LABEL_MAX)
		return wrong("label is longer than 63 bytes", arg);
	o->fs.label = arg;
	return 0;
}

static int parse_redundancy(const char *s, uint32_t *n)
{
	char *end;
	unsigned long v;

	errno = 0;
	v = strtoul(s, &end, 10);
	if (*s < '0' || *s > '9' || *end || errno || v > UINT32_MAX || v == 1)
		return -1;
	*n = (uint32_t)v;
	return 0;
}

enum {
	OPT_META = 256, OPT_DATA, OPT_REDUNDANCY, OPT_MIRROR, OPT_HELP,
	OPT_VERSION
};

static int set_option(struct options *o, int opt, const char *arg)
{
	switch (opt) {
	case 's':
		return set_size(o, arg);
	case 'n':
		return set_node_size(o, arg);
	case 'L':
		return set_label(o, arg);
	case 'U':
		if (parse_uuid(arg, o->uuid))
			return wrong("not a UUID", arg);
		o->fs.uuid = o->uuid;
		return 0;
	case OPT_META:
		if (parse_copies(arg, &o->fs.metadata_copies))
			return wrong("metadata copies are 1 or 2", arg);
		return 0;
	case OPT_DATA:
		if (parse_copies(arg, &o->fs.data_copies))
			return wrong("data copies are 1 or 2", arg);
		return 0;
	case OPT_MIRROR:
		o->mirror = true;
		return 0;
	case OPT_REDUNDANCY:
		if (parse_redundancy(arg, &o->fs.redundancy))
			return wrong("redundancy is 0, 2 or more", arg);
		return 0;
	case 'f':
		o->force = true;
		return 0;
	case 'K':
		o->nodiscard = true;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	default:
		fputs(usage_text, stderr);
		return 2;
	}
}

static const struct option long_options[] = {
	{ "size", required_argument, NULL, 's' },
	{ "node-size", required_argument, NULL, 'n' },
	{ "nodesize", required_argument, NULL, 'n' },
	{ "label", required_argument, NULL, 'L' },
	{ "uuid", required_argument, NULL, 'U' },
	{ "metadata-copies", required_argument, NULL, OPT_META },
	{ "data-copies", required_argument, NULL, OPT_DATA },
	{ "mirror", no_argument, NULL, OPT_MIRROR },
	{ "redundancy", required_argument, NULL, OPT_REDUNDANCY },
	{ "force", no_argument, NULL, 'f' },
	{ "nodiscard", no_argument, NULL, 'K' },
	{ "quiet", no_argument, NULL, 'q' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
	int opt, err;

	while ((opt = getopt_long(argc, argv, "s:n:L:U:fKq", long_options,
				  NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			fputs(help_text, stdout);
			return 0;
		}
		if (opt == OPT_VERSION) {
			tool_version();
			return 0;
		}
		err = set_option(o, opt, optarg);
		if (err)
			return err;
	}
	o->images = o->mirror ? 2 : 1;
	if (argc - optind != (int)o->images) {
		fputs(usage_text, stderr);
		return 2;
	}
	for (unsigned i = 0; i < o->images; i++)
		o->image[i] = argv[optind + (int)i];
	return -1;
}

/* ---- making it ---- */

static int too_large(const char *image, int err)
{
	tool_err(image, "cannot be made that large: %s", tool_strerror(err));
	return 1;
}

static int refuse_size(const struct options *o, const char *image,
		       const struct bdev *dev, bool file)
{
	if (o->size > dev->size && !file)
		return too_large(image, -ENOSPC);
	if (o->size || dev->size / COWFS_BLOCK_SIZE >= COWFS_MIN_BLOCKS)
		return 0; /* -s is large enough */
	tool_err(image, "too small: a filesystem takes 8 MiB%s",
		 file ? "; give its size with -s" : "");
	return 1;
}

/* Sized and emptied; here begins what cannot be taken back. */
static int prepare(const struct options *o, const char *image,
		   struct bdev *dev, bool file)
{
	int err = 0;

	if (o->size && file)
		err = bdev_file_resize(dev, o->size);
	else if (o->size)
		dev->size = o->size; /* only so much of the device */
	if (err)
		return too_large(image, err);
	if (!o->nodiscard)
		bdev_discard(dev, 0, dev->size / 512 * 512);
	return 0;
}

static void print_uuid(const uint8_t u[16])
{
	for (int i = 0; i < 16; i++)
		printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" :
									 "",
		       u[i]);
	putchar('\n');
}

static int summary(const struct options *o, struct bdev *dev)
{
	struct cowfs_ioc_info info;
	char size[TOOL_HUMAN];
	struct cowfs *c;
	int err;

	if (o->quiet)
		return 0;
	err = cowfs_open(dev, false, &c);
	if (err)
		return err;
	err = cowfs_info(c, &info);
	if (cowfs_close(c) && !err)
		err = -EIO;
	if (err)
		return err;
	tool_human(info.blocks * COWFS_BLOCK_SIZE, size);
	printf("Label:            ");
	tool_put(stdout, *info.label ? info.label : "(none)");
	printf("\nUUID:             ");
	print_uuid(info.uuid);
	printf("Size:             %s (%" PRIu64 " blocks of %u bytes)\n", size,
	       info.blocks, COWFS_BLOCK_SIZE);
	printf("Node size:        %u bytes\n", info.node_size);
	printf("Metadata copies:  %u\n", info.meta_copies);
	printf("Data copies:      %u\n", info.data_copies);
	if (info.sides > 1)
		printf("Mirror:           %s and %s\n", o->image[0],
		       o->image[1]);
	return 0;
}

static int make(const struct options *o, struct bdev *dev)
{
	int err = cowfs_mkfs(dev, &o->fs);

	if (!err)
		err = summary(o, dev);
	if (err)
		tool_err(dev->name, "%s", tool_strerror(err));
	return err != 0;
}

/* Changes nothing in it. *made: there was no such file before. */
static int open_image(const struct options *o, const char *image,
		      struct bdev **dev, bool *made, bool *file)
{
	struct stat st;
	bool there = stat(image, &st) == 0;
	int err;

	if (!there && errno == ENOENT && !o->size) {
		tool_err(image, "no such file; give a size with -s to create "
			 "it");
		return 1;
	}
	err = bdev_open_file(image, o->size ? BDEV_CREATE : 0, LOCK_WAIT_MS,
			     dev);
	if (err) {
		tool_err(image, "%s", tool_make_strerror(err));
		return 1;
	}
	*made = !there;
	*file = !there || S_ISREG(st.st_mode);
	if (!o->force && tool_refuse_used(image, *dev, *file))
		return 1;
	return refuse_size(o, image, *dev, *file);
}

/* The lock would take the first for another program's. */
static int refuse_twice(const struct options *o)
{
	struct stat a, b;
	bool same;

	if (o->images < 2)
		return 0;
	if (stat(o->image[0], &a) || stat(o->image[1], &b))
		same = !strcmp(o->image[0], o->image[1]);
	else
		same = (a.st_dev == b.st_dev && a.st_ino == b.st_ino) ||
		       (S_ISBLK(a.st_mode) && S_ISBLK(b.st_mode) &&
			a.st_rdev == b.st_rdev);
	if (same)
		tool_err(o->image[1], "a mirror needs two: this is %s",
			 o->image[0]);
	return same;
}

static int run(const struct options *o)
{
	struct bdev *side[BDEV_SIDES] = { NULL, NULL }, *dev = NULL;
	bool made[BDEV_SIDES] = { false, false };
	bool file[BDEV_SIDES] = { false, false };
	int status = 0, err = 0;
	unsigned i;

	status = refuse_twice(o);
	for (i = 0; i < o->images && !status; i++)
		status = open_image(o, o->image[i], &side[i], &made[i],
				    &file[i]);
	for (i = 0; i < o->images && !status; i++)
		status = prepare(o, o->image[i], side[i], file[i]);
	dev = side[0];
	if (!status && o->mirror) {
		err = bdev_open_mirror(side, &dev);
		if (err)
			tool_err(NULL, "%s", tool_strerror(err));
		else /* it owns them now */
			side[0] = side[1] = NULL;
		status = err != 0;
	}
	if (!status)
		status = make(o, dev);
	if (dev != side[0])
		bdev_close(dev);
	for (i = 0; i < o->images; i++) {
		bdev_close(side[i]);
		if (status && made[i])
			(void)unlink(o->image[i]);
	}
	return status;
}

int main(int argc, char **argv)
{
	struct options o = { .fs = { .uid = getuid(), .gid = getgid() } };
	int status;

	tool_init("mkfs.cowfs");
	status = parse(&o, argc, argv);
	if (status < 0)
		status = run(&o);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		tool_err(NULL, "standard output: %s", strerror(errno));
		status = status ? status : 1;
	}
	return status;
}
