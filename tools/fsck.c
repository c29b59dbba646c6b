/*
 * fsck.c - fsck.cowfs: check a filesystem, and repair it
 *
 * Exit status as fsck(8) wants it: 0 clean, 1 errors corrected, 4 errors left,
 * 8 could not be done, 16 usage, 32 cancelled.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "tool.h"

enum {
	FSCK_OK = 0,
	FSCK_CORRECTED = 1,
	FSCK_UNCORRECTED = 4,
	FSCK_ERROR = 8,
	FSCK_USAGE = 16,
	FSCK_CANCELLED = 32,
};

/* How long to wait for a daemon that is about to exit. */
#define LOCK_WAIT_MS 3000

struct options {
	const char *image;
	char mode;    /* 'n', 'p' (-a, too), 'y' or 'i'; 0: none given */
	bool two;     /* modes that exclude each other were given */
	bool verbose;
	bool data, all_snapshots, punch, undo;
	uint64_t super; /* --backup-super, as it was given; 0: the newest */
	uint64_t gen;   /* the generation that this is */
	const char *mirror; /* the other side; NULL: look for it */
	bool degraded;
	bool progress;
	uint64_t began; /* ns */
};

static volatile sig_atomic_t cancelled;

static const char usage_text[] =
	"usage: fsck.cowfs [-n | -p | -a | -y | -i] [-fv] [--data] "
	"[--all-snapshots]\n"
	"                  [--punch] [--backup-super n]\n"
	"                  [--mirror image] [--degraded] image\n"
	"       fsck.cowfs --undo image\n"
	"       fsck.cowfs --help | --version\n";

static const char help_text[] =
	"\n"
	"Check a cowfs filesystem; repair it if asked to.\n"
	"\n"
	"  -n                change nothing (the default) and never ask; checks\n"
	"                    a mounted image, too, with a warning\n"
	"  -p, -a            mend what can be mended without giving anything\n"
	"                    up\n"
	"  -y                mend everything: what cannot be read is cut out\n"
	"  -i                say what was found, and ask before mending it\n"
	"  -f                check even if it seems clean (always so)\n"
	"  -v                print more\n"
	"      --data        read and verify the contents of files, too\n"
	"      --all-snapshots\n"
	"                    look at every snapshot as a whole, however many\n"
	"      --punch       with -y: blocks of files that cannot be read\n"
	"                    become holes (implies --data)\n"
	"      --backup-super n\n"
	"                    use the nth superblock before the newest (1 to 3),\n"
	"                    or that of generation n, if it is still there\n"
	"      --mirror image\n"
	"                    where the other side of a mirror is, if not\n"
	"                    beside the image\n"
	"      --degraded    repair one side of a mirror without the other\n"
	"      --undo        back to the state before the last repair, as\n"
	"                    long as nothing was written since\n"
	"  -C[fd]            show progress (done on a terminal anyway)\n"
	"  -M, -R, -T, -V, -t type\n"
	"                    taken from fsck(8) and ignored\n"
	"      --help, --version\n"
	"\n"
	"-n, -p (or -a), -y and -i exclude each other (16). An image that is\n"
	"mounted is refused (8) but with -n.\n"
	"\n"
	"Exit status: 0 clean, 1 errors corrected, 4 errors left, 8 could not\n"
	"be done, 16 usage, 32 cancelled.\n";

/* ---- options ---- */

enum {
	OPT_DATA = 256, OPT_ALL, OPT_PUNCH, OPT_UNDO, OPT_SUPER, OPT_MIRROR,
	OPT_DEGRADED, OPT_HELP, OPT_VERSION
};

static const struct option long_options[] = {
	{ "data", no_argument, NULL, OPT_DATA },
	{ "all-snapshots", no_argument, NULL, OPT_ALL },
	{ "punch", no_argument, NULL, OPT_PUNCH },
	{ "undo", no_argument, NULL, OPT_UNDO },
	{ "backup-super", required_argument, NULL, OPT_SUPER },
	{ "mirror", required_argument, NULL, OPT_MIRROR },
	{ "degraded", no_argument, NULL, OPT_DEGRADED },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

/* A decimal number greater than 0. */
static int parse_gen(const char *text, uint64_t *gen)
{
	char *end;

	errno = 0;
	*gen = strtoull(text, &end, 10);
	if (text[0] >= '0' && text[0] <= '9' && !*end && !errno && *gen)
		return 0;
	tool_err(NULL, "'%s' is no generation of a superblock", text);
	return FSCK_USAGE;
}

static int set_option(struct options *o, int opt)
{
	switch (opt) {
	case 'n':
	case 'y':
	case 'p':
	case 'a':
	case 'i':
		if (opt == 'a')
			opt = 'p';
		o->two |= o->mode && o->mode != (char)opt;
		o->mode = (char)opt;
		return 0;
	case OPT_PUNCH:
		o->punch = true;
		return 0;
	case OPT_UNDO:
		o->undo = true;
		return 0;
	case OPT_SUPER:
		return parse_gen(optarg, &o->super);
	case OPT_MIRROR:
		o->mirror = optarg;
		return 0;
	case OPT_DEGRADED:
		o->degraded = true;
		return 0;
	case 'v':
		o->verbose = true;
		return 0;
	case OPT_DATA:
		o->data = true;
		return 0;
	case OPT_ALL:
		o->all_snapshots = true;
		return 0;
	case 'f':
	case 'C':
	case 'M':
	case 'R':
	case 'T':
	case 'V':
	case 't':
		return 0;
	default:
		fputs(usage_text, stderr);
		return FSCK_USAGE;
	}
}

/* Options that do not go together. */
static int refuse(const struct options *o)
{
	const char *why = NULL;

	if (o->two)
		why = "-n, -p (or -a), -y and -i exclude each other";
	else if (o->undo && (o->mode || o->super || o->punch))
		why = "--undo goes with none of -n, -p, -a, -y, -i, --punch "
		      "and --backup-super";
	else if (o->punch && o->mode != 'y' && o->mode != 'i')
		why = "--punch needs -y or -i";
	else if (o->mode == 'i' && !tool_is_tty(STDIN_FILENO))
		why = "-i needs a terminal to ask on";
	if (!why)
		return 0;
	tool_err(NULL, "%s", why);
	return FSCK_USAGE;
}

/* -1: go on; else the exit status. */
static int parse(struct options *o, int argc, char **argv)
{
	int opt, err;

	while ((opt = getopt_long(argc, argv, "nypafivC::MRTVt:", long_options,
				  NULL)) != -1) {
		if (opt == OPT_HELP) {
			fputs(usage_text, stdout);
			fputs(help_text, stdout);
			return FSCK_OK;
		}
		if (opt == OPT_VERSION) {
			tool_version();
			return FSCK_OK;
		}
		err = set_option(o, opt);
		if (err)
			return err;
	}
	if (argc - optind != 1) {
		fputs(usage_text, stderr);
		return FSCK_USAGE;
	}
	o->image = argv[optind];
	err = refuse(o);
	return err ? err : -1;
}

/* ---- check ---- */

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_signal(int sig)
{
	(void)sig;
	cancelled = 1;
}

static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static void found(void *arg, const char *problem, const char *where)
{
	const struct options *o = arg;

	if (o->progress)
		tool_progress_end();
	printf("%s: %s\n", problem, where);
}

static void told(void *arg, const char *line)
{
	const struct options *o = arg;

	if (o->progress)
		tool_progress_end();
	puts(line);
}

static int progress(void *arg, uint64_t done, uint64_t total)
{
	const struct options *o = arg;

	if (o->progress)
		tool_progress("Checking", done, total, clock_ns() - o->began);
	return cancelled;
}

static void print_result(const struct options *o,
			 const struct cowfs_ioc_scrub *r)
{
	if (o->verbose) {
		printf("Nodes:      %" PRIu64 "\n", r->nodes);
		printf("Data:       %" PRIu64 " blocks, %" PRIu64
		       " of them preallocated\n",
		       r->data_blocks + r->prealloc_blocks,
		       r->prealloc_blocks);
		printf("Inodes:     %" PRIu64 ", %" PRIu64 " of them "
		       "directories\n", r->inodes, r->dirs);
		printf("Snapshots:  %" PRIu64 "\n", r->snapshots);
		printf("Bad copies: %" PRIu64 ", %" PRIu64
		       " blocks without a good one\n", r->bad_copies, r->lost);
	}
	printf("%s: %s: %" PRIu64 " blocks, %" PRIu64 " checksums, %" PRIu64
	       " inodes, %" PRIu64 " snapshots: ", o->image,
	       r->cancelled ? "cancelled" : "checked", r->blocks,
	       r->checksums, r->inodes, r->snapshots);
	if (r->problems)
		printf("%" PRIu64 " %s\n", r->problems,
		       r->problems == 1 ? "problem" : "problems");
	else
		printf("%s\n", r->cancelled ? "nothing found yet" : "clean");
}

/* What went wrong, as an exit status. */
static int failed(const struct options *o, struct bdev *dev, int err)
{
	uint64_t gen[COWFS_SUPER_SLOTS];
	unsigned n = COWFS_SUPER_SLOTS;

	if (o->progress)
		tool_progress_end();
	if (err == -ECANCELED)
		return FSCK_CANCELLED;
	tool_err(o->image, "%s", o->super && err == -ENOENT ?
		 "no superblock of that generation is left" :
		 tool_open_strerror(err));
	if (o->super && !cowfs_generations(dev, gen, &n)) {
		fprintf(stderr, "Generations of which there is a superblock:");
		for (unsigned i = 0; i < n; i++)
			fprintf(stderr, " %" PRIu64, gen[i]);
		fprintf(stderr, "\n");
		return FSCK_ERROR;
	}
	return err == -ECOW_CSUM || err == -ECOW_CORRUPT ? FSCK_UNCORRECTED :
							   FSCK_ERROR;
}

static int check(struct options *o, struct bdev *dev)
{
	struct cowfs_check opt = { .data = o->data,
				   .semantics = true,
				   .all_snapshots = o->all_snapshots,
				   .gen = o->gen,
				   .found = found,
				   .told = told,
				   .progress = progress,
				   .arg = o };
	struct cowfs_ioc_scrub r = { 0 };
	int err = cowfs_check_device(dev, &opt, &r);

	if (err && err != -ECANCELED)
		return failed(o, dev, err);
	if (o->progress)
		tool_progress_end();
	print_result(o, &r);
	return (err ? FSCK_CANCELLED : 0) |
	       (r.problems ? FSCK_UNCORRECTED : 0);
}

/* ---- repair ---- */

static bool ask(void *arg, uint64_t problems, bool loses)
{
	const struct options *o = arg;
	char answer[16];

	if (o->progress)
		tool_progress_end();
	printf("%s: %" PRIu64 " %s%s. Repair? [y/N] ", o->image, problems,
	       problems == 1 ? "problem" : "problems",
	       loses ? "; what cannot be read will be cut out" : "");
	fflush(stdout);
	return fgets(answer, sizeof(answer), stdin) &&
	       (answer[0] == 'y' || answer[0] == 'Y');
}

static int repair_status(const struct options *o,
			 const struct cowfs_repaired *r)
{
	print_result(o, &r->check);
	if (r->needs_all)
		tool_err(o->image, "some of it cannot be mended without giving "
			 "something up: run fsck.cowfs -y");
	if (r->changed)
		printf("%s: repaired\n", o->image);
	if (r->left)
		printf("%s: %" PRIu64 " %s left\n", o->image, r->left,
		       r->left == 1 ? "problem is" : "problems are");
	return (r->changed ? FSCK_CORRECTED : 0) |
	       (r->left ? FSCK_UNCORRECTED : 0) |
	       (cancelled && !r->changed ? FSCK_CANCELLED : 0);
}

static int repair(struct options *o, struct bdev *dev)
{
	struct cowfs_repair opt = { .all = o->mode != 'p',
				    .data = o->data,
				    .punch = o->punch,
				    .gen = o->gen,
				    .found = found,
				    .told = told,
				    .ask = o->mode == 'i' ? ask : NULL,
				    .progress = progress,
				    .arg = o };
	struct cowfs_repaired r;
	int err = cowfs_repair(dev, &opt, &r);

	if (err)
		return failed(o, dev, err);
	if (o->progress)
		tool_progress_end();
	return repair_status(o, &r);
}

static int undo(const struct options *o, struct bdev *dev)
{
	int err = cowfs_repair_undo(dev);

	if (!err) {
		printf("%s: as it was before the repair\n", o->image);
		return FSCK_OK;
	}
	tool_err(o->image, "%s", err == -ENOENT ?
		 "the last thing written was no repair" : err == -EBUSY ?
		 "blocks of the state before the repair were overwritten" :
		 tool_strerror(err));
	return FSCK_ERROR;
}

/* ---- the image ---- */

static bool writes(const struct options *o)
{
	return o->undo || (o->mode && o->mode != 'n');
}

/* -n looks at an image in use, too, and says what that is worth. */
static int open_image(const struct options *o, struct bdev **dev)
{
	struct cowfs_device d = { .flags = writes(o) ? 0 : BDEV_READONLY,
				  .wait_ms = o->mode == 'n' ? 0 : LOCK_WAIT_MS,
				  .mirror = o->mirror,
				  /* a look at one side does no harm */
				  .degraded = o->degraded || !writes(o) };
	int err = cowfs_device_open(o->image, &d, dev);

	if (err == -EBUSY && o->mode == 'n') {
		tool_err(o->image, "in use; what is found may be wrong");
		d.flags = BDEV_READONLY | BDEV_NOLOCK;
		err = cowfs_device_open(o->image, &d, dev);
	}
	if (err)
		tool_err(o->image, "%s", tool_open_strerror(err));
	else if (bdev_bad_sides(*dev))
		tool_err(o->image, "one side of a mirror, alone");
	return err;
}

static int run(struct options *o)
{
	struct bdev *dev;
	int status, err = 0;

	if (open_image(o, &dev))
		return FSCK_ERROR;
	catch_signals();
	o->progress = tool_is_tty(STDERR_FILENO);
	o->began = clock_ns();
	if (o->super)
		err = cowfs_generation_at(dev, o->super, &o->gen);
	if (err)
		status = failed(o, dev, err);
	else if (o->undo)
		status = undo(o, dev);
	else if (writes(o))
		status = repair(o, dev);
	else
		status = check(o, dev);
	bdev_close(dev);
	return status;
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	int status;

	tool_init("fsck.cowfs");
	status = parse(&o, argc, argv);
	if (status < 0)
		status = run(&o);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		tool_err(NULL, "standard output: %s", strerror(errno));
		status |= FSCK_ERROR;
	}
	return status;
}
