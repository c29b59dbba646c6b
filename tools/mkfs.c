/*
 * mkfs.c - mkfs.cowfs: make a filesystem in an image file or block device
 */
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
/* Of a regular file: what is looked at, at each end, for being empty. */
#define LOOK_BYTES (1u << 20)

struct options {
	struct cowfs_mkfs fs;
	const char *image;
	uint64_t size; /* 0: as it is */
	bool force, quiet, nodiscard;
	uint8_t uuid[16];
};

static const char usage_text[] =
	"usage: mkfs.cowfs [-fKq] [-s size] [-n nodesize] [-L label] [-U uuid]\n"
	"                  [--metadata-copies n] [--data-copies n] image\n"
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

enum { OPT_META = 256, OPT_DATA, OPT_HELP, OPT_VERSION };

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
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return 2;
	}
	o->image = argv[optind];
	return -1;
}

/* ---- what is there ---- */

static int any_byte(struct bdev *dev, uint64_t off, uint64_t len, bool *any)
{
	static uint8_t buf[65536];

	while (len && !*any) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);
		int err = bdev_read(dev, off, buf, n);

		if (err)
			return err;
		*any = buf[0] || memcmp(buf, buf + 1, n - 1) != 0;
		off += n;
		len -= n;
	}
	return 0;
}

/* Does a regular file hold something? Zeros are nothing. */
static int file_in_use(struct bdev *dev, bool *any)
{
	uint64_t size = dev->size / 512 * 512;
	uint64_t head = size < LOOK_BYTES ? size : LOOK_BYTES;
	int err;

	*any = dev->size % 512 != 0; /* no image has such a size */
	err = any_byte(dev, 0, head, any);
	return err ? err : any_byte(dev, size - head, head, any);
}

/* 0: may be overwritten. */
static int refuse_used(const struct options *o, struct bdev *dev, bool file)
{
	const char *what = cowfs_probe(dev);
	bool any = false;
	int err = 0;

	if (what) {
		tool_err(o->image, "contains a %s%s; use -f to overwrite it",
			 what, strstr(what, "table") || strstr(what, "image") ||
			 strstr(what, "swap") ? "" : " filesystem");
		return 1;
	}
	if (file)
		err = file_in_use(dev, &any);
	if (err)
		tool_err(o->image, "%s", tool_strerror(err));
	else if (any)
		tool_err(o->image, "is not empty; use -f to overwrite it");
	return err || any;
}

/* ---- making it ---- */

static int prepare(const struct options *o, struct bdev *dev, bool file)
{
	int err = 0;

	if (!o->force && refuse_used(o, dev, file))
		return 1;
	if (o->size && file)
		err = bdev_file_resize(dev, o->size);
	else if (o->size > dev->size)
		err = -ENOSPC;
	else if (o->size)
		dev->size = o->size; /* only so much of the device */
	if (err) {
		tool_err(o->image, "cannot be made that large: %s",
			 tool_strerror(err));
		return 1;
	}
	if (dev->size / COWFS_BLOCK_SIZE < COWFS_MIN_BLOCKS) {
		tool_err(o->image, "too small: a filesystem takes 8 MiB%s",
			 file && !o->size ? "; give its size with -s" : "");
		return 1;
	}
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
	printf("Label:            %s\n", *info.label ? info.label : "(none)");
	printf("UUID:             ");
	print_uuid(info.uuid);
	printf("Size:             %s (%" PRIu64 " blocks of %u bytes)\n", size,
	       info.blocks, COWFS_BLOCK_SIZE);
	printf("Node size:        %u bytes\n", info.node_size);
	printf("Metadata copies:  %u\n", info.meta_copies);
	printf("Data copies:      %u\n", info.data_copies);
	return 0;
}

static int make(const struct options *o, struct bdev *dev, bool file)
{
	int err;

	if (prepare(o, dev, file))
		return 1;
	err = cowfs_mkfs(dev, &o->fs);
	if (!err)
		err = summary(o, dev);
	if (err)
		tool_err(o->image, "%s", tool_strerror(err));
	return err != 0;
}

static int run(const struct options *o)
{
	struct stat st;
	bool there = stat(o->image, &st) == 0;
	struct bdev *dev;
	int err, status;

	if (!there && errno == ENOENT && !o->size) {
		tool_err(o->image,
			 "no such file; give a size with -s to create it");
		return 1;
	}
	err = bdev_open_file(o->image, o->size ? BDEV_CREATE : 0, LOCK_WAIT_MS,
			     &dev);
	if (err) {
		tool_err(o->image, "%s", err == -EBUSY ?
			 "in use (mounted, or another program has it open)" :
			 tool_strerror(err));
		return 1;
	}
	status = make(o, dev, !there || S_ISREG(st.st_mode));
	bdev_close(dev);
	if (status && !there)
		(void)unlink(o->image);
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
