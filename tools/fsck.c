/*
 * fsck.c - fsck.cowfs: check a filesystem
 *
 * Exit status as fsck(8) wants it: 0 clean, 4 errors left, 8 could not be done,
 * 16 usage, 32 cancelled.
 */
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
	FSCK_UNCORRECTED = 4,
	FSCK_ERROR = 8,
	FSCK_USAGE = 16,
	FSCK_CANCELLED = 32,
};

/* How long to wait for a daemon that is about to exit. */
#define LOCK_WAIT_MS 3000

struct options {
	const char *image;
	bool no;      /* -n */
	bool repair;  /* -y, -p, -a: wanted, but not there yet */
	bool verbose;
	bool data, all_snapshots;
	bool progress;
	uint64_t began; /* ns */
};

static volatile sig_atomic_t cancelled;

static const char usage_text[] =
	"usage: fsck.cowfs [-n | -y | -p | -a] [-fiv] [--data] "
	"[--all-snapshots] image\n"
	"       fsck.cowfs --help | --version\n";

static const char help_text[] =
	"\n"
	"Check a cowfs filesystem. Nothing is changed.\n"
	"\n"
	"  -n                change nothing; looks at a mounted image, too\n"
	"  -y, -p, -a        repair; this version checks only, and exits with 4\n"
	"                    if it finds errors\n"
	"  -f                check even if it seems clean (always so)\n"
	"  -i                ask before repairing (nothing to ask yet)\n"
	"  -v                print more\n"
	"      --data        read and verify the contents of files, too\n"
	"      --all-snapshots\n"
	"                    look at every snapshot as a whole, however many\n"
	"  -C[fd]            show progress (done on a terminal anyway)\n"
	"  -M, -R, -T, -V, -t type\n"
	"                    taken from fsck(8) and ignored\n"
	"      --help, --version\n"
	"\n"
	"Exit status: 0 clean, 4 errors found, 8 could not be done, 16 usage,\n"
	"32 cancelled.\n";

/* ---- options ---- */

enum { OPT_DATA = 256, OPT_ALL, OPT_HELP, OPT_VERSION };

static const struct option long_options[] = {
	{ "data", no_argument, NULL, OPT_DATA },
	{ "all-snapshots", no_argument, NULL, OPT_ALL },
	{ "verbose", no_argument, NULL, 'v' },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int set_option(struct options *o, int opt)
{
	switch (opt) {
	case 'n':
		o->no = true;
		return 0;
	case 'y':
	case 'p':
	case 'a':
		o->repair = true;
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
	case 'i':
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
	if (o->no && o->repair) {
		tool_err(NULL, "-n does not go with -y, -p and -a");
		return FSCK_USAGE;
	}
	o->image = argv[optind];
	return -1;
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

static int check(struct options *o, struct bdev *dev)
{
	struct cowfs_check opt = { .data = o->data,
				   .semantics = true,
				   .all_snapshots = o->all_snapshots,
				   .found = found,
				   .progress = progress,
				   .arg = o };
	struct cowfs_ioc_scrub r = { 0 };
	int err;

	o->progress = tool_is_tty(STDERR_FILENO);
	o->began = clock_ns();
	err = cowfs_check_device(dev, &opt, &r);
	if (o->progress)
		tool_progress_end();
	if (err && err != -ECANCELED) {
		tool_err(o->image, "%s", tool_strerror(err));
		return err == -ECOW_CSUM || err == -ECOW_CORRUPT ?
			       FSCK_UNCORRECTED : FSCK_ERROR;
	}
	print_result(o, &r);
	if (r.problems && o->repair)
		tool_err(o->image, "this version cannot repair; nothing was "
			 "changed");
	return (err ? FSCK_CANCELLED : 0) |
	       (r.problems ? FSCK_UNCORRECTED : 0);
}

/* -n looks at an image in use, too, and says what that is worth. */
static int open_image(const struct options *o, struct bdev **dev)
{
	int err = bdev_open_file(o->image, BDEV_READONLY,
				 o->no ? 0 : LOCK_WAIT_MS, dev);

	if (err == -EBUSY && o->no) {
		tool_err(o->image, "in use; what is found may be wrong");
		err = bdev_open_file(o->image, BDEV_READONLY | BDEV_NOLOCK, 0,
				     dev);
	}
	if (err)
		tool_err(o->image, "%s", err == -EBUSY ?
			 "in use (mounted, or another program has it open)" :
			 tool_strerror(err));
	return err;
}

static int run(struct options *o)
{
	struct bdev *dev;
	int status;

	if (open_image(o, &dev))
		return FSCK_ERROR;
	catch_signals();
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
