/*
 * opts.c - the command line of the daemon
 *
 * Called by hand, by mount.fuse3 (IMAGE DIR -o ...), or as mount.cowfs by
 * mount(8), whose helpers have flags of their own: there -f is a rehearsal and
 * -s asks to pass over unknown options.
 */
#include "fuse/opts.h"

#include <getopt.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cowfs/version.h"
#include "util/util.h"

#define DEFAULT_CACHE ((size_t)128 << 20)
#define DEFAULT_COMMIT 5u
#define COMMIT_MAX 300u
#define DEFAULT_THREADS 8u
#define THREADS_MAX 256u
#define DEFAULT_POLL 50u /* microseconds */
#define POLL_MAX 1000u
#define CACHE_MIN ((size_t)16 << 20) /* a few hundred of the largest nodes */

/* What mount(8) and fstab carry for their own purposes. */
static const char *const ignored[] = {
	"defaults", "auto",    "noauto",     "user",       "nouser",
	"users",    "owner",   "group",      "nofail",     "_netdev",
	"_rnetdev", "silent",  "loud",       "mand",       "nomand",
	"atime",   "diratime",   "nodiratime", "lazytime",
	"nolazytime", "iversion", "noiversion", "norelatime", "nostrictatime",
};

/* ... and, when remounting, what the kernel shows of the mount. */
static const char *const ignored_prefix[] = {
	"x-", "X-", "comment=", "user=", "user_id=", "group_id=", "max_read=",
	"blksize=",
};

/* What libfuse or the kernel act on. */
static const char *const passed[] = {
	"dev", "nodev", "suid", "nosuid", "exec", "noexec", "async",
};

static const char *const passed_prefix[] = {
	"context=", "fscontext=", "defcontext=", "rootcontext=",
};

static void complain(const struct options *o, const char *what,
		     const char *why)
{
	fprintf(stderr, "%s: %s: %s\n", o->program, what, why);
}

static bool in_list(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i], s))
			return true;
	return false;
}

static bool has_prefix(const char *const *list, size_t n, const char *s)
{
	for (size_t i = 0; i < n; i++)
		if (!strncmp(list[i], s, strlen(list[i])))
			return true;
	return false;
}

/* Append to a comma-separated list of options, escaping what separates. */
static int add_pass(struct options *o, const char *opt)
{
	size_t old = o->pass ? strlen(o->pass) : 0;
	char *s = realloc(o->pass, old + 2 * strlen(opt) + 2);

	if (!s)
		return -ENOMEM;
	o->pass = s;
	s += old;
	if (old)
		*s++ = ',';
	for (; *opt; opt++) {
		if (*opt == ',' || *opt == '\\')
			*s++ = '\\';
		*s++ = *opt;
	}
	*s = '\0';
	return 0;
}

static int set_string(char **to, const char *from)
{
	char *s = strdup(from);

	if (!s)
		return -ENOMEM;
	free(*to);
	*to = s;
	return 0;
}

static int parse_number(const char *s, unsigned lo, unsigned hi, unsigned *out)
{
	char *end;
	unsigned long v;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	v = strtoul(s, &end, 10);
	if (errno || *end || v < lo || v > hi)
		return -EINVAL;
	*out = (unsigned)v;
	return 0;
}

static int parse_size(const char *s, size_t *out)
{
	static const char units[] = "KMGT";
	char *end;
	unsigned long long v;
	unsigned shift = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		const char *u = strchr(units, *end & ~0x20);

		if (!u || end[1])
			return -EINVAL;
		shift = 10 * (unsigned)(u - units + 1);
	}
	if (v > SIZE_MAX >> shift || v << shift < CACHE_MIN)
		return -EINVAL;
	*out = (size_t)(v << shift);
	return 0;
}

/* How many superblocks back, or a generation: of 63 bits. */
static int parse_recovery(const char *s, uint64_t *out)
{
	char *end;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return errno || *end || !*out || *out >> 63 ? -EINVAL : 0;
}

/* name=value options. -ENOENT: not one of them. */
static int valued_option(struct options *o, const char *opt)
{
	const char *v = strchr(opt, '=');
	size_t n;

	if (!v)
		return -ENOENT;
	n = (size_t)(v++ - opt);
	if (n == 6 && !strncmp(opt, "commit", n))
		return parse_number(v, 1, COMMIT_MAX, &o->commit_s);
	if (n == 5 && !strncmp(opt, "cache", n))
		return parse_size(v, &o->cache);
	if (n == 7 && !strncmp(opt, "threads", n))
		return parse_number(v, 1, THREADS_MAX, &o->threads);
	if (n == 4 && !strncmp(opt, "poll", n))
		return parse_number(v, 0, POLL_MAX, &o->poll_us);
	if (n == 8 && !strncmp(opt, "snapshot", n))
		return *v ? set_string(&o->snapshot, v) : -EINVAL;
	if (n == 6 && !strncmp(opt, "mirror", n))
		return *v ? set_string(&o->mirror, v) : -EINVAL;
	if (n == 8 && !strncmp(opt, "recovery", n))
		return parse_recovery(v, &o->recovery);
	if (n == 6 && !strncmp(opt, "errors", n)) {
		if (!strcmp(v, "continue"))
			o->errors = ERRORS_CONTINUE;
		else if (!strcmp(v, "remount-ro"))
			o->errors = ERRORS_REMOUNT_RO;
		else
			return -EINVAL;
		return 0;
	}
	return -ENOENT;
}

static int one_option(struct options *o, const char *opt)
{
	if (!strcmp(opt, "ro")) {
		o->readonly = true;
		o->rw = false;
	} else if (!strcmp(opt, "rw")) {
		o->readonly = false;
		o->rw = true;
	} else if (!strcmp(opt, "noatime")) {
		o->noatime = true;
		return add_pass(o, opt);
	} else if (!strcmp(opt, "strictatime")) {
		o->strictatime = true;
	} else if (!strcmp(opt, "relatime")) {
		o->relatime = true;
	} else if (!strcmp(opt, "sync") || !strcmp(opt, "dirsync")) {
		o->dirsync = true;
		o->sync = o->sync || !strcmp(opt, "sync");
		return add_pass(o, opt);
	} else if (!strcmp(opt, "degraded")) {
		o->degraded = true;
	} else if (!strcmp(opt, "remount")) {
		o->remount = true;
	} else if (!strcmp(opt, "snapdir")) {
		o->snapdir = true;
	} else if (!strcmp(opt, "debug")) {
		o->debug = o->foreground = true;
	} else if (!strcmp(opt, "default_permissions")) {
		o->checked = true;
	} else if (!strcmp(opt, "allow_other") || !strcmp(opt, "allow_root")) {
		o->checked = true;
		return add_pass(o, opt);
	} else if (in_list(passed, ARRAY_SIZE(passed), opt) ||
		   has_prefix(passed_prefix, ARRAY_SIZE(passed_prefix), opt)) {
		return add_pass(o, opt);
	} else if (!in_list(ignored, ARRAY_SIZE(ignored), opt) &&
		   !has_prefix(ignored_prefix, ARRAY_SIZE(ignored_prefix),
			       opt)) {
		return valued_option(o, opt);
	}
	return 0;
}

static enum opts_result bad_option(const struct options *o, const char *opt,
				   int err)
{
	complain(o, opt, err == -ENOENT ? "unknown option" :
		 err == -EINVAL ? "bad value" : strerror(-err));
	return err == -ENOMEM ? OPTS_FAIL : OPTS_USAGE;
}

/* Options separated by commas; a backslash takes the next character as is. */
static enum opts_result option_list(struct options *o, const char *list)
{
	char *one = malloc(strlen(list) + 1);
	enum opts_result ret = OPTS_OK;

	if (!one) {
		complain(o, "-o", strerror(ENOMEM));
		return OPTS_FAIL;
	}
	while (*list && ret == OPTS_OK) {
		char *p = one;
		int err;

		for (; *list && *list != ','; list++) {
			if (*list == '\\' && list[1])
				list++;
			*p++ = *list;
		}
		*p = '\0';
		if (*list)
			list++;
		err = *one ? one_option(o, one) : 0;
		if (err == -ENOENT && o->sloppy)
			err = 0;
		if (err)
			ret = bad_option(o, one, err);
	}
	free(one);
	return ret;
}

static enum opts_result one_flag(struct options *o, int c)
{
	switch (c) {
	case 'h':
		o->help = true;
		break;
	case 'V':
		o->version = true;
		break;
	case 'f':
		*(o->helper ? &o->fake : &o->foreground) = true;
		break;
	case 's':
		*(o->helper ? &o->sloppy : &o->single) = true;
		break;
	case 'd':
		o->debug = o->foreground = true;
		break;
	case 'r':
		return option_list(o, "ro");
	case 'w':
		return option_list(o, "rw");
	case 'n': /* no mtab: there is none */
	case 'v':
	case 't': /* the type, which the name says */
		break;
	case 'o':
		return option_list(o, optarg);
	default:
		return OPTS_USAGE;
	}
	return OPTS_OK;
}

/* What can't be mounted on: an error. */
static int check_dir(const char *dir)
{
	struct statvfs vfs;
	struct stat st;

	if (stat(dir, &st))
		return errno;
	if (!S_ISDIR(st.st_mode))
		return ENOTDIR;
	/* Attributes of a dead mount may still be cached, this is not. */
	return statvfs(dir, &vfs) && errno == ENOTCONN ? ENOTCONN : 0;
}

static enum opts_result operand(struct options *o, const char *arg, bool dir,
				char **out)
{
	int err;

	*out = realpath(arg, NULL);
	err = !*out ? errno : dir ? check_dir(*out) : 0;
	if (!err)
		return OPTS_OK;
	complain(o, arg, err == ENOTCONN ? "what was mounted there is dead: "
		 "unmount it first (umount or fusermount3 -u)" : strerror(err));
	return OPTS_FAIL;
}

static enum opts_result operands(struct options *o, int argc, char **argv)
{
	enum opts_result ret;

	if (argc != 2) {
		fprintf(stderr, "%s: an image and a directory are needed\n",
			o->program);
		return OPTS_USAGE;
	}
	ret = operand(o, argv[0], false, &o->image);
	if (ret == OPTS_OK)
		ret = operand(o, argv[1], true, &o->dir);
	return ret;
}

/* The arguments lie one behind the other. */
static size_t args_len(int argc, char **argv)
{
	char *end = argv[0];

	for (int i = 0; i < argc && argv[i] == end; i++)
		end += strlen(end) + 1;
	return (size_t)(end - argv[0]);
}

/* Sets what is asked for by the name the program was called by. */
static void defaults(struct options *o, int argc, char **argv)
{
	const char *slash;

	memset(o, 0, sizeof(*o));
	o->program = "cowfs";
	if (argc > 0) {
		slash = strrchr(argv[0], '/');
		o->program = slash ? slash + 1 : argv[0];
		o->args = argv[0];
		o->args_len = args_len(argc, argv);
	}
	o->helper = !strncmp(o->program, "mount.", 6);
	o->commit_s = DEFAULT_COMMIT;
	o->threads = DEFAULT_THREADS;
	o->poll_us = DEFAULT_POLL;
	o->cache = DEFAULT_CACHE;
}

enum opts_result opts_parse(struct options *o, int argc, char **argv)
{
	static const struct option lopts[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ NULL, 0, NULL, 0 },
	};
	enum opts_result ret = OPTS_OK;
	int c;

	defaults(o, argc, argv);
	while (ret == OPTS_OK) {
		c = getopt_long(argc, argv, "hVfsdrwnvt:o:", lopts, NULL);
		if (c == -1)
			break;
		ret = one_flag(o, c);
	}
	if (ret == OPTS_OK && !o->help && !o->version)
		ret = operands(o, argc - optind, argv + optind);
	/* mount(8) says rw of its own accord: no error */
	if (ret == OPTS_OK && o->rw && (o->snapshot || o->recovery))
		fprintf(stderr, "%s: %s is read-only: rw is ignored\n",
			o->program, o->snapshot ? "a snapshot" : "recovery");
	if (o->snapshot || o->recovery)
		o->readonly = true;
	if (o->single)
		o->threads = 1;
	if (ret != OPTS_OK)
		opts_free(o);
	return ret;
}

void opts_free(struct options *o)
{
	free(o->image);
	free(o->dir);
	free(o->snapshot);
	free(o->mirror);
	free(o->pass);
	o->image = o->dir = o->snapshot = o->mirror = o->pass = NULL;
}

void opts_help(const struct options *o)
{
	printf("usage: %s [-dfsrw] [-o option,...] image directory\n"
	       "       %s -h | -V\n", o->program, o->program);
	fputs("Mount the cowfs filesystem in a file or on a block device.\n"
	      "\n"
	      "  -f              stay in the foreground\n"
	      "  -d              the same, and log what is done\n"
	      "  -s              serve with one thread\n"
	      "  -r, -w          -o ro, -o rw\n"
	      "  -h, --help      this text\n"
	      "  -V, --version   the version\n"
	      "  -o ro           read-only: nothing is written to the image\n"
	      "  -o snapshot=NAME  show a snapshot instead (read-only)\n"
	      "  -o recovery=N   show the state that the Nth superblock before "
	      "the newest\n"
	      "                  names (1-3), or that of generation N "
	      "(read-only)\n"
	      "  -o snapdir      list .snapshots in the root directory\n"
	      "  -o noatime      never update access times "
	      "(default: relatime)\n"
	      "  -o strictatime  always update them\n"
	      "  -o remount,ro   make a mount read-only; remount,rw: writable again\n"
	      "  -o commit=SECONDS  write changes at least so often "
	      "(1-300, default 5)\n"
	      "  -o cache=SIZE   memory for metadata (at least 16M, default 128M)\n"
	      "  -o mirror=PATH  where the other side of a mirror is\n"
	      "                  (default: looked for beside the image)\n"
	      "  -o degraded     mount a mirror of which one side is missing\n"
	      "  -o errors=remount-ro|continue\n"
	      "                  when metadata is damaged "
	      "(default remount-ro)\n"
	      "  -o threads=N    requests served at once (1-256, default 8)\n"
	      "  -o poll=MICROSECONDS\n"
	      "                  look for the next request before sleeping\n"
	      "                  (0-1000, default 50); 0 also lets idle\n"
	      "                  processors sleep between requests\n"
	      "  -o allow_other  let other users in\n"
	      "  -o allow_root   let root in\n"
	      "  -o default_permissions  check permissions where only root is "
	      "let in, too\n"
	      "  -o dev, suid, exec, sync, dirsync, and their opposites\n"
	      "Options for mount(8) and fstab(5) alone are accepted and "
	      "ignored.\n", stdout);
}
