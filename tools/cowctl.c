/*
 * cowctl.c - control a cowfs filesystem, mounted or not: main and usage
 */
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include "cowctl.h"

static const char usage_text[] =
	"usage: cowctl PATH snapshot create NAME\n"
	"       cowctl PATH snapshot list [--json]\n"
	"       cowctl PATH snapshot restore NAME [--save NAME | --no-save]\n"
	"       cowctl PATH snapshot undo\n"
	"       cowctl PATH snapshot delete NAME...\n"
	"       cowctl PATH scrub [start | resume] [-BFv] [--rate=BYTES] [--json]\n"
	"       cowctl PATH scrub status [-v] [--json]\n"
	"       cowctl PATH scrub pause | cancel | rate BYTES\n"
	"       cowctl PATH info [--json]\n"
	"       cowctl PATH stats [--json] [--watch [SECONDS]]\n"
	"       cowctl PATH set NAME=VALUE\n"
	"       cowctl PATH get [NAME] [--json]\n"
	"       cowctl PATH sync\n"
	"       cowctl PATH mirror [--json]\n"
	"       cowctl PATH mirror add [-f] IMAGE\n"
	"       cowctl PATH mirror remove [IMAGE]\n"
	"       cowctl PATH unmount [--wait]\n"
	"       cowctl IMAGE rescue DIR | --dry-run [--snapshot NAME | --scan]\n"
	"                  [--backup-super N] [--mirror IMAGE] [--json]\n"
	"       cowctl --help | --version\n"
	"\n"
	"PATH is a mount point of cowfs, anything on a mounted cowfs, or an\n"
	"image (file or block device) that is not mounted. In front of an image\n"
	"that is one side of a mirror, --mirror IMAGE says where the other is,\n"
	"--degraded goes on without it.\n"
	"\n"
	"  snapshot create   keep the present state under a name\n"
	"  snapshot list     names, times and root blocks\n"
	"  snapshot restore  make a snapshot the present state; what was\n"
	"                    there is kept as @undo, or as --save says\n"
	"  snapshot undo     take back the last restore (again: redo it)\n"
	"  snapshot delete   forget snapshots; their space comes back\n"
	"  scrub             verify every block in use and mend bad copies, at\n"
	"                    most --rate bytes per second; -v: tell of all damage\n"
	"  scrub start       the same in the background (-F: in the foreground)\n"
	"  scrub resume      go on with one that was paused or interrupted\n"
	"  scrub status      how far it is; what the last one found\n"
	"  info              the filesystem: sizes, space, features\n"
	"  stats             requests, times and counters since it was mounted;\n"
	"                    --watch: rates, every second or SECONDS\n"
	"  set, get          settings: redundancy=N gives data that N or more\n"
	"                    snapshots, the live files among them, share a\n"
	"                    second copy; 0: no data\n"
	"  sync              make everything written so far durable\n"
	"  mirror            how its sides are; add: another image or device\n"
	"                    becomes the other side, filled by a scrub (of a\n"
	"                    mount that begins at once); remove: a mount goes on\n"
	"                    without IMAGE (or the side that is not complete),\n"
	"                    an image PATH becomes a filesystem of its own\n"
	"  rescue            copy what can still be read out of a damaged image\n"
	"                    to DIR; says what is missing. --scan: search for\n"
	"                    the tree where no superblock leads to one.\n"
	"                    Exit status: 0 all, 1 something is missing, 8 failed\n"
	"  unmount           unmount; --wait: until the image is free again\n"
	"\n"
	"Exit status: 0 done, 1 failed, 2 wrong usage, 3 something is damaged.\n";

int usage_error(const char *object, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	tool_err(object, "%s", text);
	fputs("Try 'cowctl --help'.\n", stderr);
	return STATUS_USAGE;
}

int option_error(const char *object, int c, char **argv)
{
	const char *at = argv[optind - 1];

	if (c == ':')
		return usage_error(object, "'%s' needs a value", at);
	/* Of several letters in one argument this is not yet the last. */
	if (optopt && strncmp(at, "--", 2) != 0)
		return usage_error(object, "unknown option '-%c'", optopt);
	return usage_error(object, "unknown option '%s'", at);
}

int parse_json_only(int argc, char **argv, int max_operands, bool *json)
{
	static const struct option with_json[] = {
		{ "json", no_argument, NULL, 'j' },
		{ NULL, 0, NULL, 0 },
	};
	static const struct option none[] = { { NULL, 0, NULL, 0 } };
	int c;

	optind = 0; /* start afresh, in glibc's words */
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", json ? with_json : none,
				NULL)) != -1) {
		if (c != 'j' || !json)
			return option_error(argv[0], c, argv);
		*json = true;
	}
	if (argc - optind > max_operands)
		return usage_error(argv[0], "'%s' is too much",
				   argv[optind + max_operands]);
	return STATUS_OK;
}

static const struct verb {
	const char *name;
	int (*run)(const char *path, int argc, char **argv);
} verbs[] = {
	{ "snapshot", verb_snapshot }, { "scrub", verb_scrub },
	{ "info", verb_info },         { "stats", verb_stats },
	{ "set", verb_set },           { "get", verb_get },
	{ "sync", verb_sync },         { "unmount", verb_unmount },
	{ "umount", verb_unmount },    { "rescue", verb_rescue },
	{ "mirror", verb_mirror },
};

/* Options before PATH. Returns an exit status when there is nothing more to
 * do, or -1 to go on with argv[optind]. */
static int parse_global(int argc, char **argv)
{
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ "mirror", required_argument, NULL, 'm' },
		{ "degraded", no_argument, NULL, 'd' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+:hV", options, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(usage_text, stdout);
			return STATUS_OK;
		case 'V':
			tool_version();
			return STATUS_OK;
		case 'm':
			target_set_mirror(optarg);
			break;
		case 'd':
			target_set_degraded();
			break;
		default:
			return option_error(NULL, c, argv);
		}
	}
	return -1;
}

/* Behind any verb; what follows "--" are names. */
static bool wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help"))
			return true;
	return false;
}

static int run(int argc, char **argv)
{
	const char *path, *name;
	size_t i;
	int status;

	status = parse_global(argc, argv);
	if (status >= 0)
		return status;
	if (wants_help(argc - optind, argv + optind)) {
		fputs(usage_text, stdout);
		return STATUS_OK;
	}
	if (argc - optind < 2) {
		fputs(usage_text, stderr);
		return STATUS_USAGE;
	}
	path = argv[optind];
	name = argv[optind + 1];
	for (i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(name, verbs[i].name) == 0)
			return verbs[i].run(path, argc - optind - 1,
					    argv + optind + 1);
	return usage_error(name, "no such verb");
}

int main(int argc, char **argv)
{
	int status;

	if (argc && !strcmp(basename(argv[0]), UMOUNT_HELPER))
		return umount_helper(argc, argv);
	tool_init("cowctl");
	status = run(argc, argv);
	/* An answer that could not be written is not an answer. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		tool_err("standard output", "%s", tool_strerror(-errno));
		if (status == STATUS_OK)
			status = STATUS_FAILED;
	}
	return status;
}
