/*
 * cowctl_snap.c - the verbs of snapshots
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "cowctl.h"

/* What is wrong with a name, or NULL. reserved: names with '@' will do, which
 * only cowfs itself gives. */
static const char *bad_name(const char *name, bool reserved)
{
	if (*name == '\0')
		return "a snapshot's name can't be empty";
	if (strlen(name) > COWFS_SNAP_NAME_MAX)
		return "longer than the 63 bytes of a snapshot's name";
	if (strchr(name, '/'))
		return "a snapshot's name can't contain '/'";
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return "not a snapshot's name";
	if (*name == '@' && !reserved)
		return "names that begin with '@' are cowfs's own";
	return NULL;
}

/* Print why something about a snapshot failed. saved: the other name that a
 * restore had, or NULL. */
static void snap_err(const struct target *t, const char *name,
		     const char *saved, int err)
{
	if (err == -ENOENT)
		tool_err(name, "no such snapshot");
	else if (err == -EEXIST)
		tool_err(saved ? saved : name,
			 "there is a snapshot of that name");
	else
		tool_err(t->path, "%s", target_strerror(err));
}

/* The one NAME that a verb takes. */
static int one_name(int argc, char **argv, bool reserved, const char **name)
{
	const char *bad;

	if (argc - optind != 1)
		return usage_error(argv[0], argc == optind ?
						    "a name is missing" :
						    "one name, please");
	*name = argv[optind];
	bad = bad_name(*name, reserved);
	return bad ? usage_error(*name, "%s", bad) : STATUS_OK;
}

static int create(const char *path, int argc, char **argv)
{
	struct cowfs_ioc_snap snap;
	struct target t;
	const char *name;
	int err, status;

	status = parse_json_only(argc, argv, 1, NULL);
	if (!status)
		status = one_name(argc, argv, false, &name);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_WRITE))
		return STATUS_FAILED;
	err = target_snap_create(&t, name, &snap);
	if (err)
		snap_err(&t, name, NULL, err);
	if (target_close(&t) || err)
		return STATUS_FAILED;
	printf("Snapshot '");
	tool_put(stdout, name);
	printf("' created (root block: %" PRIu64 ")\n", snap.root_block);
	return STATUS_OK;
}

struct listing {
	bool json;
	uint64_t count;
};

static void print_time(const struct cowfs_ioc_snap *s, const char *format,
		       bool local)
{
	time_t at = (time_t)s->time_sec;
	struct tm tm;
	char text[64];

	if (!(local ? localtime_r(&at, &tm) : gmtime_r(&at, &tm)) ||
	    !strftime(text, sizeof(text), format, &tm))
		snprintf(text, sizeof(text), "%" PRId64, s->time_sec);
	fputs(text, stdout);
}

static void print_json(const struct cowfs_ioc_snap *s, bool first)
{
	printf("%s\n    {\"name\": ", first ? "" : ",");
	tool_json_string(stdout, s->name);
	printf(", \"id\": %" PRIu64 ", \"generation\": %" PRIu64
	       ", \"root_block\": %" PRIu64 ", \"created\": \"",
	       s->id, s->gen, s->root_block);
	print_time(s, "%Y-%m-%dT%H:%M:%SZ", false);
	printf("\", \"created_sec\": %" PRId64 ", \"created_nsec\": %" PRIu32
	       "}",
	       s->time_sec, s->time_nsec);
}

static void list_one(void *arg, const struct cowfs_ioc_snap *s)
{
	struct listing *l = arg;

	if (l->json) {
		print_json(s, l->count == 0);
	} else {
		if (l->count == 0)
			printf("%-19s  %12s  %12s  %s\n", "CREATED",
			       "GENERATION", "ROOT BLOCK", "NAME");
		print_time(s, "%Y-%m-%d %H:%M:%S", true);
		printf("  %12" PRIu64 "  %12" PRIu64 "  ", s->gen,
		       s->root_block);
		tool_put(stdout, s->name);
		putchar('\n');
	}
	l->count++;
}

static int list(const char *path, int argc, char **argv)
{
	struct listing l = { 0 };
	struct target t;
	int err, status;

	status = parse_json_only(argc, argv, 0, &l.json);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_READ))
		return STATUS_FAILED;
	if (l.json)
		printf("{\"snapshots\": [");
	err = target_snap_each(&t, list_one, &l);
	if (l.json)
		printf("%s]}\n", l.count ? "\n  " : "");
	if (err)
		tool_err(path, "%s", target_strerror(err));
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}

/*
 * The kernel takes away, without a word, what is mounted on a directory that a
 * restore replaces: who goes on writing there writes to the directory below. Of
 * mounts in other mount namespaces nothing is known here.
 */
static bool has_mounts(const char *path)
{
	struct mount_entry m = { NULL, NULL, NULL }, on = { NULL, NULL, NULL };
	bool yes = false;

	if (mount_by_path(path, &m) == 0)
		yes = mount_on_device(m.device, &on) == 0;
	if (yes)
		tool_err(path, "busy: something is mounted on %s: unmount that "
			 "first", on.point);
	mount_entry_free(&on);
	mount_entry_free(&m);
	return yes;
}

static int open_for_restore(struct target *t, const char *path)
{
	int err = target_open(t, path, TARGET_WRITE);

	if (err || t->fd < 0 || !has_mounts(path))
		return err;
	err = target_close(t);
	return err ? err : -EBUSY;
}

static int restore_to(const char *path, const char *name, const char *save)
{
	struct target t;
	int err;

	if (open_for_restore(&t, path))
		return STATUS_FAILED;
	err = target_snap_restore(&t, name, save);
	if (err)
		snap_err(&t, name, save, err);
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}

static int restore(const char *path, int argc, char **argv)
{
	static const struct option options[] = {
		{ "save", required_argument, NULL, 's' },
		{ "no-save", no_argument, NULL, 'n' },
		{ NULL, 0, NULL, 0 },
	};
	const char *name, *bad, *save = COWFS_SNAP_UNDO;
	bool save_given = false;
	int c, status;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == ':')
			return usage_error("--save", "a name is missing");
		if (c != 's' && c != 'n')
			return option_error(argv[0], c, argv);
		if (save_given)
			return usage_error(argv[0], "--save or --no-save, "
						    "once");
		save_given = true;
		save = c == 's' ? optarg : NULL;
		bad = save ? bad_name(save, false) : NULL;
		if (bad)
			return usage_error(save, "%s", bad);
	}
	status = one_name(argc, argv, true, &name);
	if (status)
		return status;
	status = restore_to(path, name, save);
	if (status)
		return status;
	printf("Restored to snapshot '");
	tool_put(stdout, name);
	puts("'");
	return STATUS_OK;
}

static int undo(const char *path, int argc, char **argv)
{
	struct target t;
	int err, status;

	status = parse_json_only(argc, argv, 0, NULL);
	if (status)
		return status;
	if (open_for_restore(&t, path))
		return STATUS_FAILED;
	err = target_snap_restore(&t, COWFS_SNAP_UNDO, COWFS_SNAP_UNDO);
	if (err == -ENOENT)
		tool_err(path, "there is no restore to undo");
	else if (err)
		tool_err(path, "%s", target_strerror(err));
	if (target_close(&t) || err)
		return STATUS_FAILED;
	puts("Restore undone");
	return STATUS_OK;
}

static int delete_each(struct target *t, char **names)
{
	int err, status = STATUS_OK;

	for (; *names; names++) {
		err = target_snap_delete(t, *names);
		if (err) {
			snap_err(t, *names, NULL, err);
			status = STATUS_FAILED;
			continue;
		}
		printf("Snapshot '");
		tool_put(stdout, *names);
		puts("' deleted");
	}
	return status;
}

static int delete(const char *path, int argc, char **argv)
{
	struct target t;
	const char *bad;
	int i, status;

	status = parse_json_only(argc, argv, argc, NULL);
	if (status)
		return status;
	if (optind == argc)
		return usage_error(argv[0], "a name is missing");
	for (i = optind; i < argc; i++) {
		bad = bad_name(argv[i], true);
		if (bad)
			return usage_error(argv[i], "%s", bad);
	}
	if (target_open(&t, path, TARGET_WRITE))
		return STATUS_FAILED;
	status = delete_each(&t, argv + optind);
	return target_close(&t) ? STATUS_FAILED : status;
}

int verb_snapshot(const char *path, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const char *path, int argc, char **argv);
	} table[] = {
		{ "create", create }, { "list", list },	    { "ls", list },
		{ "undo", undo },     { "restore", restore },
		{ "delete", delete }, { "rm", delete },
	};
	size_t i;

	if (argc < 2)
		return usage_error("snapshot", "create, list, restore, undo "
					       "or delete?");
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (strcmp(argv[1], table[i].name) == 0)
			return table[i].run(path, argc - 1, argv + 1);
	return usage_error(argv[1], "no such verb of snapshot");
}
