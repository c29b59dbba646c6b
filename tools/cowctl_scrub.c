/*
 * cowctl_scrub.c - the verb scrub: verify every block in use
 *
 * On a mount the daemon scrubs in the background, and the foreground form
 * watches it; an image is scrubbed here.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "cowctl.h"

static volatile sig_atomic_t interrupted;

static void on_signal(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* ^C ends the scrub in order instead of the program. */
static void catch_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigemptyset(&sa.sa_mask);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGHUP, &sa, NULL);
}

/* Where damage lines go: stderr at once, or collected as a JSON list. */
struct lines {
	const char *path;
	FILE *json; /* NULL: stderr */
	uint64_t count;
};

static void line_out(struct lines *l, const char *text)
{
	if (!l->json) {
		tool_err(l->path, "%s", text);
	} else {
		fputs(l->count ? ",\n    " : "\n    ", l->json);
		tool_json_string(l->json, text);
	}
	l->count++;
}

/* ---- results ---- */

static void result_text(const struct cowfs_ioc_scrub *s)
{
	printf("Checked %" PRIu64 " blocks\n", s->blocks);
	printf("Verified %" PRIu64 " checksums\n", s->checksums);
	printf("%" PRIu64 " error%s found\n", s->problems,
	       s->problems == 1 ? "" : "s");
	if (s->repaired)
		printf("%" PRIu64 " bad cop%s repaired\n", s->repaired,
		       s->repaired == 1 ? "y" : "ies");
	if (s->lost)
		printf("%" PRIu64 " block%s lost: no good copy\n", s->lost,
		       s->lost == 1 ? "" : "s");
}

static const char *truth(bool b)
{
	return b ? "true" : "false";
}

static void result_json(const struct cowfs_ioc_scrub *s, const char *lines)
{
	printf("{\n  \"running\": %s,\n  \"finished\": %s,\n"
	       "  \"cancelled\": %s,\n  \"error\": ",
	       truth(s->running), truth(s->finished), truth(s->cancelled));
	if (s->error)
		tool_json_string(stdout, tool_strerror(s->error));
	else
		printf("null");
#define NUMBER(member) printf(",\n  \"" #member "\": %" PRIu64, s->member)
	NUMBER(done);
	NUMBER(total);
	NUMBER(ns);
	NUMBER(blocks);
	NUMBER(checksums);
	NUMBER(nodes);
	NUMBER(data_blocks);
	NUMBER(prealloc_blocks);
	NUMBER(problems);
	NUMBER(bad_copies);
	NUMBER(repaired);
	NUMBER(lost);
	NUMBER(snapshots);
#undef NUMBER
	printf(",\n  \"messages\": [%s%s]\n}\n", lines, *lines ? "\n  " : "");
}

/* ---- a mount ---- */

static int fetch_lines(int fd, struct lines *l)
{
	struct cowfs_ioc_lines *page = calloc(1, sizeof(*page));
	uint64_t from = 0;
	uint32_t i;
	int err = 0;

	if (!page)
		return -ENOMEM;
	do {
		page->from = from;
		page->count = 0;
		if (ioctl(fd, COWFS_IOC_SCRUB_LINES, page) < 0) {
			err = -errno;
			break;
		}
		for (i = 0; i < page->count && i < COWFS_IOC_LINES; i++) {
			page->line[i][sizeof(page->line[i]) - 1] = '\0';
			line_out(l, page->line[i]);
		}
		from += i;
	} while (i > 0);
	free(page);
	return err;
}

static int get_status(int fd, struct cowfs_ioc_scrub *s)
{
	memset(s, 0, sizeof(*s));
	return ioctl(fd, COWFS_IOC_SCRUB_STATUS, s) < 0 ? -errno : 0;
}

/* Follow the daemon's scrub to its end. The pauses grow: a small filesystem is
 * done in milliseconds, a large one isn't worth asking about all the time. */
static int watch(int fd, struct cowfs_ioc_scrub *s)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	bool cancelled = false;
	int err;

	for (;;) {
		err = get_status(fd, s);
		if (err == -EINTR)
			continue;
		if (err || !s->running)
			break;
		tool_progress("Scrubbing", s->done, s->total, s->ns);
		if (interrupted && !cancelled) {
			cancelled = true;
			(void)ioctl(fd, COWFS_IOC_SCRUB_CANCEL);
		}
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 200000000)
			pause.tv_nsec *= 2;
	}
	tool_progress_end();
	return err;
}

static int scrub_mount(struct target *t, struct lines *l,
		       struct cowfs_ioc_scrub *s)
{
	int err;

	if (ioctl(t->fd, COWFS_IOC_SCRUB_START) < 0)
		return -errno;
	err = watch(t->fd, s);
	if (!err)
		err = fetch_lines(t->fd, l);
	return err;
}

/* ---- an image ---- */

struct offline {
	struct lines *lines;
	struct timespec begun;
};

static uint64_t since(const struct timespec *begun)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)((now.tv_sec - begun->tv_sec) * 1000000000 +
			  now.tv_nsec - begun->tv_nsec);
}

static void offline_found(void *arg, const char *problem, const char *where)
{
	struct offline *o = arg;
	char text[512];

	snprintf(text, sizeof(text), "%s: %s", problem, where);
	line_out(o->lines, text);
}

static int offline_progress(void *arg, uint64_t done, uint64_t total)
{
	struct offline *o = arg;

	tool_progress("Scrubbing", done, total, since(&o->begun));
	return interrupted;
}

static int scrub_image(struct target *t, struct lines *l,
		       struct cowfs_ioc_scrub *s)
{
	struct offline o = { .lines = l };
	struct cowfs_check opt = {
		.data = true,
		.mend = !t->dev->readonly,
		.found = offline_found,
		.progress = offline_progress,
		.arg = &o,
	};
	int err;

	memset(s, 0, sizeof(*s));
	clock_gettime(CLOCK_MONOTONIC, &o.begun);
	err = cowfs_check(t->image, &opt, s);
	tool_progress_end();
	s->ns = since(&o.begun);
	if (err == -ECANCELED) {
		s->cancelled = 1;
		err = 0;
	}
	return err;
}

/* ---- the verb ---- */

static int outcome(const char *path, const struct cowfs_ioc_scrub *s)
{
	if (s->error && s->error != -ECANCELED) {
		tool_err(path, "scrub failed: %s", tool_strerror(s->error));
		return STATUS_FAILED;
	}
	if (s->problems)
		return STATUS_DAMAGE;
	return s->cancelled ? STATUS_FAILED : STATUS_OK;
}

static int scrub_err(const char *path, int err)
{
	if (err == -EBUSY)
		tool_err(path, "a scrub is running; see scrub status");
	else
		tool_err(path, "%s", target_strerror(err));
	return STATUS_FAILED;
}

/* Run it, or only show how the daemon's is getting on. */
static int report_scrub(struct target *t, bool status_only, bool json)
{
	struct lines l = { .path = t->path };
	struct cowfs_ioc_scrub s;
	char *list = NULL;
	size_t len = 0;
	int err;

	if (json) {
		l.json = open_memstream(&list, &len);
		if (!l.json)
			return scrub_err(t->path, -ENOMEM);
	}
	if (status_only) {
		err = get_status(t->fd, &s);
		if (!err)
			err = fetch_lines(t->fd, &l);
	} else {
		err = target_is_image(t) ? scrub_image(t, &l, &s) :
					   scrub_mount(t, &l, &s);
	}
	if (l.json && fclose(l.json) != 0 && !err)
		err = -ENOMEM;
	if (!err && json)
		result_json(&s, list);
	if (!err && !json) {
		if (status_only)
			printf("Scrub: %s\n", s.running	  ? "running" :
					      s.cancelled ? "cancelled" :
					      s.finished  ? "finished" :
							    "never run");
		if (status_only && s.running)
			printf("Done %" PRIu64 " of %" PRIu64 " blocks\n",
			       s.done, s.total);
		if (!status_only && s.cancelled)
			puts("Cancelled");
		result_text(&s);
		if (!status_only)
			mirror_after_scrub(t);
	}
	free(list);
	return err ? scrub_err(t->path, err) : outcome(t->path, &s);
}

static int control(struct target *t, unsigned long request, const char *done)
{
	if (ioctl(t->fd, request) < 0)
		return scrub_err(t->path, -errno);
	puts(done);
	return STATUS_OK;
}

struct options {
	bool json, background;
	const char *verb; /* start, status, cancel; NULL: in the foreground */
};

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "background", no_argument, NULL, 'B' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "B", options, NULL)) != -1) {
		if (c == 'j')
			o->json = true;
		else if (c == 'B')
			o->background = true;
		else
			return usage_error(argv[0], "unknown option '%s'",
					   argv[optind - 1]);
	}
	if (optind < argc)
		o->verb = argv[optind++];
	if (optind < argc)
		return usage_error(argv[0], "'%s' is too much", argv[optind]);
	if (o->verb && strcmp(o->verb, "start") != 0 &&
	    strcmp(o->verb, "status") != 0 && strcmp(o->verb, "cancel") != 0)
		return usage_error(o->verb, "no such verb of scrub");
	if (o->background && o->verb && strcmp(o->verb, "start") != 0)
		return usage_error("-B", "goes with start only");
	if (o->background)
		o->verb = "start";
	return STATUS_OK;
}

static int dispatch(struct target *t, const struct options *o)
{
	if (!o->verb) {
		if (!o->json)
			puts("Scrubbing filesystem...");
		fflush(stdout);
		catch_signals();
		return report_scrub(t, false, o->json);
	}
	if (target_is_image(t)) {
		tool_err(t->path, "not mounted: an image is scrubbed in the "
				  "foreground only");
		return STATUS_FAILED;
	}
	if (strcmp(o->verb, "start") == 0)
		return control(t, COWFS_IOC_SCRUB_START, "Scrub started");
	if (strcmp(o->verb, "cancel") == 0)
		return control(t, COWFS_IOC_SCRUB_CANCEL, "Scrub cancelled");
	return report_scrub(t, true, o->json);
}

int verb_scrub(const char *path, int argc, char **argv)
{
	struct options o = { 0 };
	struct target t;
	int status;

	status = parse(argc, argv, &o);
	if (status)
		return status;
	if (target_open(&t, path, o.verb ? TARGET_READ : TARGET_MEND))
		return STATUS_FAILED;
	status = dispatch(&t, &o);
	if (target_close(&t) && status == STATUS_OK)
		status = STATUS_FAILED;
	return status;
}
