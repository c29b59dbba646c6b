/*
 * cowctl_rescue.c - the verb rescue: copy what can be read out of an image that
 * is too damaged to be mounted
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowctl.h"
#include "rescue.h"

enum { RESCUE_ALL = 0, RESCUE_SOME = 1, RESCUE_FAILED = 8 };

struct options {
	const char *image, *dir;
	const char *mirror;
	struct cowfs_rescue_options how;
	uint64_t super;
	bool dry, json;
};

/* ---- what is missing ---- */

static char *full_path(const struct rescue *r, const struct rescue_inode *in,
		       const struct rescue_name *entry)
{
	char *dir = in ? rescue_path(r, in) : strdup("?"), *path;
	const char *name = entry ? r->text + entry->text : "";
	size_t len;

	if (!dir || !entry)
		return dir;
	len = strlen(dir) + strlen(name) + 2;
	path = malloc(len);
	if (path)
		snprintf(path, len, "%s/%s", strcmp(dir, "/") ? dir : "", name);
	free(dir);
	return path;
}

void rescue_missing(struct rescue *r, const struct rescue_inode *in,
		    const struct rescue_name *entry, uint64_t off,
		    uint64_t len, const char *why)
{
	uint64_t ino = entry ? entry->ino : in ? in->ino : 0;
	char *path = full_path(r, in, entry);

	r->missing++;
	tool_progress_end();
	if (r->json) {
		printf("%s\n    {\"path\": ", r->first_line ? "" : ",");
		r->first_line = false;
		tool_json_string(stdout, path ? path : "?");
		printf(", \"inode\": %" PRIu64, ino);
		if (len)
			printf(", \"from\": %" PRIu64 ", \"to\": %" PRIu64,
			       off, off + len);
		printf(", \"reason\": ");
		tool_json_string(stdout, why);
		printf("}");
	} else {
		tool_put(stdout, path ? path : "?");
		if (len)
			printf(": bytes %" PRIu64 " to %" PRIu64, off,
			       off + len - 1);
		printf(": ");
		tool_put(stdout, why); /* it may have the name of an xattr */
		printf(" (inode %" PRIu64 ")\n", ino);
	}
	free(path);
}

/* ---- options ---- */

static int parse(struct options *o, int argc, char **argv)
{
	static const struct option options[] = {
		{ "snapshot", required_argument, NULL, 's' },
		{ "backup-super", required_argument, NULL, 'b' },
		{ "mirror", required_argument, NULL, 'm' },
		{ "scan", no_argument, NULL, 'S' },
		{ "dry-run", no_argument, NULL, 'n' },
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	char *end;
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 's':
			o->how.snapshot = optarg;
			break;
		case 'b':
			errno = 0;
			o->super = strtoull(optarg, &end, 10);
			if (*optarg < '0' || *optarg > '9' || *end || errno ||
			    !o->super)
				return usage_error(argv[0], "'%s' is no "
					"superblock", optarg);
			break;
		case 'm':
			o->mirror = optarg;
			break;
		case 'S':
			o->how.scan = true;
			break;
		case 'n':
			o->dry = true;
			break;
		case 'j':
			o->json = true;
			break;
		default:
			return option_error(argv[0], c, argv);
		}
	}
	if (argc - optind > 1)
		return usage_error(argv[0], "'%s' is too much",
				   argv[optind + 1]);
	if (argc == optind && !o->dry)
		return usage_error(argv[0], "a directory is needed");
	if (o->how.scan && o->how.snapshot)
		return usage_error(argv[0],
				   "--scan and --snapshot exclude each other");
	o->dir = argv[optind];
	return STATUS_OK;
}

/* ---- all of it ---- */

static int progress(void *arg, uint64_t done, uint64_t total)
{
	(void)arg;
	tool_progress("Searching", done, total, 0);
	return 0;
}

static int open_target(const struct options *o, int *fd)
{
	if (o->dry) {
		*fd = -1;
		return 0;
	}
	if (mkdir(o->dir, 0700) && errno != EEXIST) {
		tool_err(o->dir, "%s", strerror(errno));
		return -errno;
	}
	*fd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (*fd >= 0)
		return 0;
	tool_err(o->dir, "%s", strerror(errno));
	return -errno;
}

static int open_tree(struct options *o, struct bdev *dev,
		     struct cowfs_rescue **image)
{
	int err = 0;

	if (o->super && !o->how.scan)
		err = cowfs_generation_at(dev, o->super, &o->how.gen);
	else
		o->how.gen = o->super;
	o->how.progress = progress;
	if (!err)
		err = cowfs_rescue_open(dev, &o->how, image);
	tool_progress_end();
	if (!err)
		return 0;
	if (err == -ENODATA)
		tool_err(o->image, "no tree of files was found");
	else if (err == -ENOENT)
		tool_err(o->image, "no such %s", o->how.snapshot ? "snapshot" :
			 "superblock");
	else
		tool_err(o->image, "%s%s", tool_open_strerror(err),
			 o->how.scan ? "" :
			 " (try --scan, --snapshot or --backup-super)");
	return err;
}

static bool incomplete(const struct rescue *r)
{
	return r->missing || r->info.lost_nodes || r->info.log_unused ||
	       r->info.log_damaged || r->info.in_doubt || r->info.newer;
}

static void tell_log(const struct rescue *r, const struct options *o)
{
	if (r->info.log_unused)
		printf("%s: the last fsyncs are only in the log, which goes on "
		       "from another state than this one: not rescued\n",
		       o->image);
	else if (r->info.log_records)
		printf("%s: the log has %" PRIu64 " fsyncs after it, which are "
		       "rescued, too\n", o->image, r->info.log_records);
	if (r->info.in_doubt)
		printf("%s: superblocks were wiped: this is generation %" PRIu64
		       "; what was newer may be lost\n", o->image,
		       r->info.gen);
	if (r->info.log_damaged)
		printf("%s: the log is damaged behind these: later fsyncs are "
		       "lost\n", o->image);
}

static void tell_all_json(const struct rescue *r, bool complete)
{
	printf("%s],\n  \"generation\": %" PRIu64 ",\n  \"dry_run\": %s,\n"
	       "  \"complete\": %s,\n  \"files\": %" PRIu64
	       ",\n  \"directories\": %zu,\n  \"bytes\": %" PRIu64
	       ",\n  \"lost_nodes\": %" PRIu64 ",\n  \"log_records\": %" PRIu64
	       ",\n  \"log_unused\": %s,\n  \"log_damaged\": %s"
	       ",\n  \"in_doubt\": %s"
	       ",\n  \"newer_generation\": %" PRIu64
	       "\n}\n",
	       r->missing ? "\n  " : "", r->info.gen,
	       r->dry ? "true" : "false", complete ? "true" : "false",
	       r->files, r->dirs, r->bytes, r->info.lost_nodes,
	       r->info.log_records, r->info.log_unused ? "true" : "false",
	       r->info.log_damaged ? "true" : "false",
	       r->info.in_doubt ? "true" : "false",
	       r->info.newer);
}

static void tell_all(const struct rescue *r, const struct options *o)
{
	char size[TOOL_HUMAN];

	tool_human(r->bytes, size);
	tell_log(r, o);
	if (r->info.newer)
		printf("%s: generation %" PRIu64 " is newer, but was not "
		       "finished, or is damaged: --backup-super %" PRIu64
		       " rescues what there is of it\n", o->image,
		       r->info.newer, r->info.newer);
	printf("%s: generation %" PRIu64 ": %" PRIu64 " files, %zu "
	       "directories, %s%s; %" PRIu64 " missing, %" PRIu64
	       " nodes lost\n", o->image, r->info.gen, r->files, r->dirs,
	       size, r->dry ? " can be rescued" : " rescued", r->missing,
	       r->info.lost_nodes);
}

static int copy_out(struct rescue *r, const struct options *o)
{
	int err;

	if (r->json)
		printf("{\n  \"missing\": [");
	err = rescue_collect(r);
	if (!err)
		err = rescue_place(r);
	if (!err)
		err = rescue_write(r);
	tool_progress_end();
	if (r->json)
		tell_all_json(r, !err && !incomplete(r));
	else
		tell_all(r, o);
	if (err)
		tool_err(o->image, "%s", tool_strerror(err));
	return err ? RESCUE_FAILED : incomplete(r) ? RESCUE_SOME : RESCUE_ALL;
}

static int rescue(struct options *o, struct bdev *dev)
{
	struct rescue r = { .json = o->json, .dry = o->dry,
			    .first_line = true };
	int status = RESCUE_FAILED;

	if (open_tree(o, dev, &r.image))
		return RESCUE_FAILED;
	if (!open_target(o, &r.dir)) {
		status = copy_out(&r, o);
		if (r.dir >= 0)
			close(r.dir);
	}
	free(r.inode);
	free(r.name);
	free(r.text);
	free(r.order);
	cowfs_rescue_close(r.image);
	return status;
}

int verb_rescue(const char *path, int argc, char **argv)
{
	struct options o = { .image = path };
	struct cowfs_device d = { .flags = BDEV_READONLY };
	struct bdev *dev;
	int status = parse(&o, argc, argv), err;

	if (status)
		return status;
	d.mirror = o.mirror ? o.mirror : target_mirror_given();
	d.degraded = true;
	err = cowfs_device_open(path, &d, &dev);
	if (err && o.how.scan && err != -EBUSY) /* no superblock to ask */
		err = bdev_open_file(path, BDEV_READONLY, 0, &dev);
	if (err) {
		tool_err(path, "%s", tool_open_strerror(err));
		return RESCUE_FAILED;
	}
	status = rescue(&o, dev);
	bdev_close(dev);
	return status;
}
