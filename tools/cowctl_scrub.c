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

enum verb {
	VERB_RUN, /* in the foreground */
	VERB_START,
	VERB_RESUME,
	VERB_PAUSE,
	VERB_STATUS,
	VERB_CANCEL,
	VERB_RATE,
};

struct options {
	enum verb verb;
	bool json, verbose, background, foreground, has_rate;
	uint64_t rate;
};

/* ---- results ---- */

static const char *state_text(const struct cowfs_ioc_scrub *s)
{
	if (s->running)
		return "running";
	switch (s->state) {
	case COWFS_SCRUB_RUNNING:
		return "interrupted";
	case COWFS_SCRUB_PAUSED:
		return "paused";
	case COWFS_SCRUB_FINISHED:
		return "finished";
	case COWFS_SCRUB_CANCELLED:
		return "cancelled";
	case COWFS_SCRUB_FAILED:
		return "failed";
	default:
		return "never run";
	}
}

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

static void put_time(const char *what, int64_t sec)
{
	time_t t = (time_t)sec;
	char text[64];
	struct tm tm;

	if (localtime_r(&t, &tm) &&
	    strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm))
		printf("%s %s", what, text);
}

static void put_span(uint64_t s)
{
	printf("%" PRIu64 ":%02u:%02u", s / 3600, (unsigned)(s / 60 % 60),
	       (unsigned)(s % 60));
}

static void put_progress(const struct cowfs_ioc_scrub *s)
{
	uint64_t left = s->total - (s->done < s->total ? s->done : s->total);
	char rate[TOOL_HUMAN];
	double per_s = 0;

	printf("Done %" PRIu64 " of %" PRIu64 " blocks", s->done, s->total);
	if (s->total)
		printf(", %.0f%%", (double)s->done * 100 / (double)s->total);
	if (s->running && s->run_ns && s->run_done)
		per_s = (double)s->run_done / ((double)s->run_ns / 1e9);
	if (per_s > 0) {
		tool_human((uint64_t)(per_s * COWFS_BLOCK_SIZE), rate);
		printf(", %s/s, ", rate);
		put_span((uint64_t)((double)left / per_s));
		printf(" left");
	}
	putchar('\n');
}

static void status_text(const struct cowfs_ioc_scrub *s)
{
	char rate[TOOL_HUMAN];

	printf("Scrub: %s\n", state_text(s));
	if (s->state == COWFS_SCRUB_NEVER)
		return;
	put_time("Began", s->began);
	if (!s->running)
		put_time(s->state == COWFS_SCRUB_RUNNING ? ", last noted" :
							   ", ended",
			 s->ended);
	printf(", took ");
	put_span(s->ns / 1000000000u);
	putchar('\n');
	if (s->rate) {
		tool_human(s->rate, rate);
		printf("Limited to %s/s\n", rate);
	}
	if (s->state != COWFS_SCRUB_FINISHED)
		put_progress(s);
	if (s->state == COWFS_SCRUB_PAUSED ||
	    (s->state == COWFS_SCRUB_RUNNING && !s->running))
		puts("'scrub resume' goes on with it");
	result_text(s);
}

static const char *truth(bool b)
{
	return b ? "true" : "false";
}

static void result_json(const struct cowfs_ioc_scrub *s,
			const struct scrub_found *r)
{
	printf("{\n  \"state\": \"%s\",\n  \"running\": %s,\n"
	       "  \"finished\": %s,\n  \"cancelled\": %s,\n  \"error\": ",
	       state_text(s), truth(s->running), truth(s->finished),
	       truth(s->cancelled));
	if (s->error)
		tool_json_string(stdout, tool_strerror(s->error));
	else
		printf("null");
	printf(",\n  \"began\": %" PRId64 ",\n  \"ended\": %" PRId64, s->began,
	       s->running ? 0 : s->ended);
#define NUMBER(member) printf(",\n  \"" #member "\": %" PRIu64, s->member)
	NUMBER(done);
	NUMBER(total);
	NUMBER(ns);
	NUMBER(rate);
	NUMBER(blocks);
	NUMBER(checksums);
	NUMBER(nodes);
	NUMBER(data_blocks);
	NUMBER(prealloc_blocks);
	NUMBER(problems);
	NUMBER(damaged);
	NUMBER(bad_copies);
	NUMBER(repaired);
	NUMBER(lost);
	NUMBER(snapshots);
	NUMBER(untold);
#undef NUMBER
	printf(",\n");
	found_json(r);
	printf("\n}\n");
}

/* ---- running it ---- */

static int get_status(struct target *t, struct cowfs_ioc_scrub *s)
{
	int got;

	memset(s, 0, sizeof(*s));
	if (target_is_image(t))
		return cowfs_scrub_status(t->image, s);
	do
		got = ioctl(t->fd, COWFS_IOC_SCRUB_STATUS, s);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : 0;
}

static int tell_daemon(struct target *t, enum cowfs_scrub_verb verb,
		       const struct options *o)
{
	struct cowfs_ioc_scrub_do v = { .verb = verb, .rate = o->rate };

	if (verb == COWFS_SCRUB_RESUME && !o->has_rate)
		v.rate = COWFS_SCRUB_SAME_RATE;
	return ioctl(t->fd, COWFS_IOC_SCRUB_DO, &v) < 0 ? -errno : 0;
}

static void draw(const struct cowfs_ioc_scrub *s)
{
	tool_progress_run("Scrubbing", s->done, s->total, s->run_done,
			  s->run_ns);
}

/* Follow the daemon's scrub to its end. The pauses grow: a small filesystem is
 * done in milliseconds, a large one isn't worth asking about all the time. */
static int watch(struct target *t, const struct options *o,
		 struct cowfs_ioc_scrub *s)
{
	struct timespec pause = { .tv_nsec = 2000000 };
	bool cancelled = false;
	int err;

	for (;;) {
		err = get_status(t, s);
		if (err || !s->running)
			break;
		draw(s);
		if (interrupted && !cancelled) {
			cancelled = true;
			(void)tell_daemon(t, COWFS_SCRUB_CANCEL, o);
			pause.tv_nsec = 2000000;
		}
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < 200000000)
			pause.tv_nsec *= 2;
	}
	tool_progress_end();
	return err;
}

static int offline_progress(void *arg, const struct cowfs_ioc_scrub *now)
{
	(void)arg;
	draw(now);
	return interrupted;
}

static int scrub_image(struct target *t, const struct options *o,
		       struct cowfs_ioc_scrub *s)
{
	struct cowfs_scrub opt = { .resume = o->verb == VERB_RESUME,
				   .rate = o->rate,
				   .progress = offline_progress };
	int err;

	if (opt.resume && !o->has_rate)
		opt.rate = COWFS_SCRUB_SAME_RATE;
	err = cowfs_scrub(t->image, &opt, s);
	tool_progress_end();
	return err;
}

static int run_it(struct target *t, const struct options *o,
		  struct cowfs_ioc_scrub *s)
{
	int err;

	if (target_is_image(t))
		return scrub_image(t, o, s);
	err = tell_daemon(t, o->verb == VERB_RESUME ? COWFS_SCRUB_RESUME :
						      COWFS_SCRUB_START,
			  o);
	return err ? err : watch(t, o, s);
}

/* ---- the verb ---- */

/* Metadata that a scrub itself needs may be lost. */
static const char *scrub_strerror(int err)
{
	if (err == -EIO || err == -ECOW_CSUM)
		return "Input/output error; more is told by fsck.cowfs -n, "
		       "after unmounting, and by the system log";
	return target_strerror(err);
}

static int outcome(const char *path, const struct cowfs_ioc_scrub *s)
{
	if (s->state == COWFS_SCRUB_FAILED) {
		tool_err(path, "scrub failed: %s", scrub_strerror(s->error));
		return STATUS_FAILED;
	}
	return s->damaged ? STATUS_DAMAGE : STATUS_OK;
}

static int scrub_err(const char *path, int err)
{
	if (err == -EBUSY)
		tool_err(path, "a scrub is running; see scrub status");
	else if (err == -ESRCH)
		tool_err(path, "no scrub is running");
	else if (err == -ENOENT)
		tool_err(path, "there is no scrub to resume");
	else
		tool_err(path, "%s", scrub_strerror(err));
	return STATUS_FAILED;
}

/* Show what there is, to: where damage is told. */
static int show(struct target *t, const struct options *o,
		const struct cowfs_ioc_scrub *s, FILE *to)
{
	struct scrub_found r = { 0 };
	int err = found_fetch(t, &r);

	/* Everybody may know that there is damage, not which files have it. */
	if (err && err != -EPERM)
		return scrub_err(t->path, err);
	if (o->json) {
		result_json(s, &r);
	} else if (o->verb == VERB_STATUS) {
		status_text(s);
	} else {
		if (s->state != COWFS_SCRUB_FINISHED)
			printf("Scrub %s\n", state_text(s));
		result_text(s);
		mirror_after_scrub(t);
	}
	if (!o->json) {
		fflush(stdout);
		found_text(&r, s->untold, o->verbose, to);
	}
	found_free(&r);
	return STATUS_OK;
}

static int foreground(struct target *t, const struct options *o)
{
	struct cowfs_ioc_scrub s = { 0 };
	int err, status;

	if (!o->json)
		puts("Scrubbing filesystem...");
	fflush(stdout);
	catch_signals();
	err = run_it(t, o, &s);
	if (err)
		return scrub_err(t->path, err);
	status = show(t, o, &s, stderr);
	if (!status)
		status = outcome(t->path, &s);
	if (!status && s.state != COWFS_SCRUB_FINISHED)
		status = STATUS_FAILED;
	return status;
}

static int status(struct target *t, const struct options *o)
{
	struct cowfs_ioc_scrub s;
	int err = get_status(t, &s), st;

	if (err)
		return scrub_err(t->path, err);
	st = show(t, o, &s, stdout);
	return st ? st : outcome(t->path, &s);
}

/* There is none that runs; why? */
static int idle_err(struct target *t, enum verb verb)
{
	struct cowfs_ioc_scrub s;

	if (verb != VERB_RATE || get_status(t, &s) ||
	    s.state != COWFS_SCRUB_PAUSED)
		return scrub_err(t->path, -ESRCH);
	tool_err(t->path, "the scrub is paused: give the rate to scrub resume "
		 "(--rate=BYTES)");
	return STATUS_FAILED;
}

static int control(struct target *t, const struct options *o)
{
	static const struct {
		enum cowfs_scrub_verb verb;
		const char *done;
	} verbs[] = {
		[VERB_START] = { COWFS_SCRUB_START, "Scrub started" },
		[VERB_RESUME] = { COWFS_SCRUB_RESUME, "Scrub resumed" },
		[VERB_PAUSE] = { COWFS_SCRUB_PAUSE, "Scrub paused" },
		[VERB_CANCEL] = { COWFS_SCRUB_CANCEL, "Scrub cancelled" },
		[VERB_RATE] = { COWFS_SCRUB_RATE, "Rate changed" },
	};
	struct options quiet = *o;
	struct cowfs_ioc_scrub s;
	int err;

	err = target_is_image(t) ? cowfs_scrub_cancel(t->image) :
				   tell_daemon(t, verbs[o->verb].verb, o);
	/* Those that stop it take effect with the read that is under way. */
	if (!err && !target_is_image(t) &&
	    (o->verb == VERB_PAUSE || o->verb == VERB_CANCEL))
		err = watch(t, &quiet, &s);
	if (err == -ESRCH)
		return idle_err(t, o->verb);
	if (err)
		return scrub_err(t->path, err);
	if (o->json)
		return (err = get_status(t, &s)) ? scrub_err(t->path, err) :
						   show(t, o, &s, stdout);
	puts(verbs[o->verb].done);
	return STATUS_OK;
}

/* ---- the command line ---- */

static int parse_verb(const char *name, struct options *o)
{
	static const char *const verbs[] = {
		[VERB_RUN] = NULL,	  [VERB_START] = "start",
		[VERB_RESUME] = "resume", [VERB_PAUSE] = "pause",
		[VERB_STATUS] = "status", [VERB_CANCEL] = "cancel",
		[VERB_RATE] = "rate",
	};

	for (unsigned i = VERB_START; i <= VERB_RATE; i++)
		if (strcmp(name, verbs[i]) == 0) {
			o->verb = (enum verb)i;
			return STATUS_OK;
		}
	return usage_error(name, "no such verb of scrub");
}

static int parse_rate(const char *text, struct options *o)
{
	if (tool_parse_size(text, &o->rate) ||
	    o->rate == COWFS_SCRUB_SAME_RATE)
		return usage_error(text, "no rate (bytes per second; 0: no "
					 "limit)");
	o->has_rate = true;
	return STATUS_OK;
}

static int check_options(int argc, char **argv, struct options *o)
{
	bool starts = o->verb == VERB_RUN || o->verb == VERB_START ||
		      o->verb == VERB_RESUME;

	if (optind < argc)
		return usage_error(argv[0], "'%s' is too much", argv[optind]);
	if ((o->background || o->foreground) && !starts)
		return usage_error(argv[0], "-B and -F go with start and "
					    "resume only");
	if (o->background && o->foreground)
		return usage_error(argv[0], "-B and -F exclude each other");
	if (o->has_rate && !starts && o->verb != VERB_RATE)
		return usage_error("--rate", "goes with starting only");
	if (o->verb == VERB_RATE && !o->has_rate)
		return usage_error("rate", "how much?");
	if (o->verb == VERB_START && o->foreground)
		o->verb = VERB_RUN;
	if (o->verb == VERB_RUN && o->background)
		o->verb = VERB_START;
	return STATUS_OK;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "background", no_argument, NULL, 'B' },
		{ "foreground", no_argument, NULL, 'F' },
		{ "rate", required_argument, NULL, 'r' },
		{ "verbose", no_argument, NULL, 'v' },
		{ NULL, 0, NULL, 0 },
	};
	int c, status = STATUS_OK;

	optind = 0;
	opterr = 0;
	while (!status &&
	       (c = getopt_long(argc, argv, ":BFv", options, NULL)) != -1) {
		if (c == 'r')
			status = parse_rate(optarg, o);
		else if (c == '?' || c == ':')
			return option_error(argv[0], c, argv);
		o->json |= c == 'j';
		o->background |= c == 'B';
		o->foreground |= c == 'F';
		o->verbose |= c == 'v';
	}
	if (!status && optind < argc)
		status = parse_verb(argv[optind++], o);
	if (!status && o->verb == VERB_RATE && optind < argc)
		status = parse_rate(argv[optind++], o);
	return status ? status : check_options(argc, argv, o);
}

static int dispatch(struct target *t, const struct options *o)
{
	if (o->verb == VERB_STATUS)
		return status(t, o);
	if (o->verb == VERB_RUN || o->foreground ||
	    (o->verb == VERB_RESUME && target_is_image(t)))
		return foreground(t, o);
	if (target_is_image(t) && o->verb != VERB_CANCEL) {
		tool_err(t->path, "not mounted: an image is scrubbed in the "
				  "foreground only");
		return STATUS_FAILED;
	}
	return control(t, o);
}

int verb_scrub(const char *path, int argc, char **argv)
{
	struct options o = { 0 };
	struct target t;
	int st;

	st = parse(argc, argv, &o);
	if (st)
		return st;
	if (target_open(&t, path, o.verb == VERB_RUN ||
					  o.verb == VERB_RESUME ||
					  o.verb == VERB_CANCEL ?
				  TARGET_MEND : TARGET_READ))
		return STATUS_FAILED;
	st = dispatch(&t, &o);
	if (target_close(&t) && st == STATUS_OK)
		st = STATUS_FAILED;
	return st;
}
