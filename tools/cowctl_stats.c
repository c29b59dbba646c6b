/*
 * cowctl_stats.c - the verb stats: counters and times, once or again and again
 *
 * The daemon only counts. Whoever looks takes two samples and subtracts: so
 * any number of people can watch at once, each at a pace of his own.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cowctl.h"

enum kind {
	KIND_COUNT,  /* counts up */
	KIND_BYTES,
	KIND_NS,
	KIND_BLOCKS_NOW, /* may fall as well; blocks of 4096 bytes */
	KIND_BYTES_NOW,
	KIND_NOW,
	KIND_NS_MAX, /* since the mount: means nothing for an interval */
};

/* A field of struct cowfs_ioc_stats: how people and how programs call it. */
static const struct field {
	const char *text, *json;
	size_t at;
	enum kind kind;
} fields[] = {
#define AT(member) offsetof(struct cowfs_ioc_stats, member)
	{ "Checksum errors", "csum_errors", AT(csum_errors), KIND_COUNT },
	{ "I/O errors", "io_errors", AT(io_errors), KIND_COUNT },
	{ "Copies repaired", "repaired", AT(repaired), KIND_COUNT },
	{ "Not repairable", "unrepairable", AT(unrepairable), KIND_COUNT },
	{ "Cache hits", "cache_hits", AT(cache_hits), KIND_COUNT },
	{ "Cache misses", "cache_misses", AT(cache_misses), KIND_COUNT },
	{ "Cache, evicted", "cache_evicted", AT(cache_evicted), KIND_COUNT },
	{ "Cache", "cache_bytes", AT(cache_bytes), KIND_BYTES_NOW },
	{ "Cache, clean limit", "cache_limit", AT(cache_limit),
	  KIND_BYTES_NOW },
	{ "Cache, nodes", "cache_nodes", AT(cache_nodes), KIND_NOW },
	{ "Dirty", "dirty_bytes", AT(dirty_bytes), KIND_BYTES_NOW },
	{ "Nodes copied", "cow_copies", AT(cow_copies), KIND_COUNT },
	{ "Nodes split", "splits", AT(splits), KIND_COUNT },
	{ "Nodes merged", "merges", AT(merges), KIND_COUNT },
	{ "Commits", "commits", AT(commits), KIND_COUNT },
	{ "Written by commits", "commit_bytes", AT(commit_bytes), KIND_BYTES },
	{ "Commits, time", "commit_ns", AT(commit_ns), KIND_NS },
	{ "Longest commit", "commit_ns_max", AT(commit_ns_max), KIND_NS_MAX },
	{ "Commits, closed", "closed_ns", AT(closed_ns), KIND_NS },
	{ "Longest closed", "closed_ns_max", AT(closed_ns_max), KIND_NS_MAX },
	{ "fsync", "fsyncs", AT(fsyncs), KIND_COUNT },
	{ "fsync, log appends", "fsync_appends", AT(fsync_appends),
	  KIND_COUNT },
	{ "fsync, log", "fsync_bytes", AT(fsync_bytes), KIND_BYTES },
	{ "fsync by a commit", "fsync_commits", AT(fsync_commits),
	  KIND_COUNT },
	{ "fsync of nothing", "fsync_idle", AT(fsync_idle), KIND_COUNT },
	{ "Reads", "reads", AT(reads), KIND_COUNT },
	{ "Read", "read_bytes", AT(read_bytes), KIND_BYTES },
	{ "Writes", "writes", AT(writes), KIND_COUNT },
	{ "Written", "write_bytes", AT(write_bytes), KIND_BYTES },
	{ "Flushes", "flushes", AT(flushes), KIND_COUNT },
	{ "Free", "free", AT(free), KIND_BLOCKS_NOW },
	{ "Available", "available", AT(avail), KIND_BLOCKS_NOW },
	{ "Reserve", "reserve", AT(reserve), KIND_BLOCKS_NOW },
	{ "Free after commit", "pending", AT(pending), KIND_BLOCKS_NOW },
	{ "Free now", "ready", AT(ready), KIND_BLOCKS_NOW },
	{ "  in whole nodes", "free_in_nodes", AT(in_slots), KIND_BLOCKS_NOW },
	{ "  in 16 MiB pieces", "free_in_chunks", AT(in_chunks),
	  KIND_BLOCKS_NOW },
	{ "Deletions going on", "drops", AT(drops), KIND_NOW },
	{ "Dropping snapshots", "dropping", AT(dropping), KIND_NOW },
	{ "Removing files", "reaping", AT(reaping), KIND_NOW },
	{ "Scrub running", "scrubbing", AT(scrubbing), KIND_NOW },
	{ "Scrub, done", "scrub_done", AT(scrub_done), KIND_BLOCKS_NOW },
	{ "Scrub, of", "scrub_total", AT(scrub_total), KIND_BLOCKS_NOW },
#undef AT
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* All that is known at one moment. */
struct sample {
	struct cowfs_ioc_stats stats;
	struct cowfs_ioc_hist *hist;
	size_t n, room;
	bool no_memory;
};

static uint64_t value(const struct sample *s, const struct field *f)
{
	uint64_t v;

	memcpy(&v, (const char *)&s->stats + f->at, sizeof(v));
	return v;
}

static void keep_hist(void *arg, const struct cowfs_ioc_hist *h)
{
	struct sample *s = arg;
	struct cowfs_ioc_hist *more;
	size_t room = s->room ? 2 * s->room : 32;

	if (s->n == s->room) {
		more = realloc(s->hist, room * sizeof(*more));
		if (!more) {
			s->no_memory = true;
			return;
		}
		s->hist = more;
		s->room = room;
	}
	s->hist[s->n++] = *h;
}

static int take_sample(struct target *t, struct sample *s)
{
	int err;

	*s = (struct sample){ .n = 0 };
	err = target_hist_each(t, keep_hist, s);
	if (!err && s->no_memory)
		err = -ENOMEM;
	if (!err)
		err = target_stats(t, &s->stats);
	if (err) {
		free(s->hist);
		s->hist = NULL;
	}
	return err;
}

/* ---- words ---- */

#define WORD 32

static void duration(uint64_t ns, char out[WORD])
{
	static const struct {
		double unit;
		const char *name;
	} units[] = { { 1e9, "s" }, { 1e6, "ms" }, { 1e3, "us" } };
	double v = (double)ns;

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		double u = v / units[i].unit;

		if (u >= 1) {
			snprintf(out, WORD, "%.*f %s", u < 10 ? 2 : u < 100,
				 u, units[i].name);
			return;
		}
	}
	snprintf(out, WORD, "%.0f ns", v);
}

static void quantity(const struct cowfs_ioc_hist *h, uint64_t v,
		     char out[WORD])
{
	if (h->unit == COWFS_HIST_NS)
		duration(v, out);
	else
		snprintf(out, WORD, "%" PRIu64, v);
}

static void print_field(const struct sample *s, const struct field *f)
{
	uint64_t v = value(s, f);
	char human[TOOL_HUMAN], word[WORD];

	printf("%-20s ", f->text);
	switch (f->kind) {
	case KIND_BLOCKS_NOW:
		tool_human(v * COWFS_BLOCK_SIZE, human);
		printf("%s (%" PRIu64 " blocks)\n", human, v);
		break;
	case KIND_BYTES:
	case KIND_BYTES_NOW:
		tool_human(v, human);
		printf("%s\n", human);
		break;
	case KIND_NS:
	case KIND_NS_MAX:
		duration(v, word);
		printf("%s\n", word);
		break;
	case KIND_COUNT:
	case KIND_NOW:
		printf("%" PRIu64 "\n", v);
		break;
	}
}

/* ---- tables ---- */

static void table_head(const char *what, const char *count)
{
	printf("\n%-24s %12s %9s %9s %9s %9s\n", what, count, "p50", "p90",
	       "p99", "max");
}

static void table_row(const struct cowfs_ioc_hist *h, const char *count)
{
	static const unsigned permille[] = { 500, 900, 990, 1000 };
	char word[WORD];

	printf("%-24s %12s", h->name, count);
	for (size_t i = 0; i < sizeof(permille) / sizeof(permille[0]); i++) {
		quantity(h, permille[i] == 1000 ? h->h.max :
			 cowfs_hist_percentile(&h->h, permille[i]), word);
		printf(" %9s", word);
	}
	putchar('\n');
}

static void table(const struct sample *s, enum cowfs_hist_kind kind,
		  const char *what, double seconds)
{
	char count[WORD];
	bool head = false;

	for (size_t i = 0; i < s->n; i++) {
		const struct cowfs_ioc_hist *h = &s->hist[i];

		if (h->kind != kind || !h->h.count)
			continue;
		if (!head)
			table_head(what, seconds > 0 ? "per second" : "count");
		head = true;
		if (seconds > 0)
			snprintf(count, WORD, "%.1f",
				 (double)h->h.count / seconds);
		else
			snprintf(count, WORD, "%" PRIu64, h->h.count);
		table_row(h, count);
	}
}

static void tables(const struct sample *s, double seconds)
{
	table(s, COWFS_HIST_REQUEST, "Request", seconds);
	table(s, COWFS_HIST_STORE, "Store", seconds);
}

static void hit_rate(const struct sample *s)
{
	uint64_t hits = s->stats.cache_hits;
	uint64_t all = hits + s->stats.cache_misses;

	if (all)
		printf("%-20s %.2f %%\n", "Cache hit rate",
		       100.0 * (double)hits / (double)all);
}

static void text_once(const struct sample *s)
{
	char word[WORD];

	duration(s->stats.now_ns - s->stats.since_ns, word);
	printf("%-20s %s\n", "Since", word);
	for (size_t i = 0; i < FIELDS; i++)
		print_field(s, &fields[i]);
	hit_rate(s);
	tables(s, 0);
}

static void text_rates(const struct sample *s, double seconds)
{
	char human[TOOL_HUMAN];

	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *f = &fields[i];
		double rate = (double)value(s, f) / seconds;

		if (f->kind == KIND_COUNT && value(s, f)) {
			printf("%-20s %.1f/s\n", f->text, rate);
		} else if (f->kind == KIND_BYTES && value(s, f)) {
			tool_human((uint64_t)rate, human);
			printf("%-20s %s/s\n", f->text, human);
		} else if (f->kind == KIND_NS && value(s, f)) {
			printf("%-20s %.1f %%\n", f->text, rate / 1e7);
		} else if (f->kind == KIND_BYTES_NOW || f->kind == KIND_NOW ||
			   f->kind == KIND_BLOCKS_NOW) {
			if (value(s, f))
				print_field(s, f);
		}
	}
	hit_rate(s);
	tables(s, seconds);
}

/* ---- JSON ---- */

static void json_hists(const struct sample *s, enum cowfs_hist_kind kind,
		       const char *what, const char *nl)
{
	const char *sep = "";

	printf(",%s \"%s\": {", nl, what);
	for (size_t i = 0; i < s->n; i++) {
		const struct cowfs_ioc_hist *h = &s->hist[i];
		const char *u = h->unit == COWFS_HIST_NS ? "_ns" : "";

		if (h->kind != kind || !h->h.count)
			continue;
		printf("%s%s  ", sep, nl);
		tool_json_string(stdout, h->name);
		printf(": { \"count\": %" PRIu64 ", \"sum%s\": %" PRIu64
		       ", \"p50%s\": %" PRIu64 ", \"p90%s\": %" PRIu64
		       ", \"p99%s\": %" PRIu64 ", \"max%s\": %" PRIu64 " }",
		       h->h.count, u, h->h.sum,
		       u, cowfs_hist_percentile(&h->h, 500),
		       u, cowfs_hist_percentile(&h->h, 900),
		       u, cowfs_hist_percentile(&h->h, 990), u, h->h.max);
		sep = ",";
	}
	printf("%s }", nl);
}

/* nl: what stands between the lines; "" makes one line of it all. */
static void json(const struct target *t, const struct sample *s,
		 const char *nl)
{
	printf("{%s \"path\": ", nl);
	tool_json_string(stdout, t->path);
	printf(",%s \"interval_ns\": %" PRIu64, nl,
	       s->stats.now_ns - s->stats.since_ns);
	for (size_t i = 0; i < FIELDS; i++)
		printf(",%s \"%s\": %" PRIu64, nl, fields[i].json,
		       value(s, &fields[i]));
	json_hists(s, COWFS_HIST_REQUEST, "requests", nl);
	json_hists(s, COWFS_HIST_STORE, "store", nl);
	printf("%s}\n", nl);
}

/* ---- what came between two samples ---- */

static const struct cowfs_hist *find(const struct sample *s,
				     const struct cowfs_ioc_hist *h)
{
	static const struct cowfs_hist none;

	for (size_t i = 0; i < s->n; i++)
		if (s->hist[i].kind == h->kind &&
		    strcmp(s->hist[i].name, h->name) == 0)
			return &s->hist[i].h;
	return &none;
}

/* Turn `now` into what came since `before`. */
static void subtract(struct sample *now, const struct sample *before)
{
	for (size_t i = 0; i < now->n; i++) {
		struct cowfs_hist *h = &now->hist[i].h;

		cowfs_hist_since(h, find(before, &now->hist[i]), h);
	}
	for (size_t i = 0; i < FIELDS; i++) {
		const struct field *f = &fields[i];
		uint64_t v = value(now, f) - value(before, f);

		if (f->kind == KIND_COUNT || f->kind == KIND_BYTES ||
		    f->kind == KIND_NS)
			memcpy((char *)&now->stats + f->at, &v, sizeof(v));
	}
	now->stats.since_ns = before->stats.now_ns;
}

static int copy_sample(struct sample *to, const struct sample *from)
{
	*to = *from;
	to->room = to->n;
	to->hist = malloc((to->n ? to->n : 1) * sizeof(*to->hist));
	if (!to->hist)
		return -ENOMEM;
	memcpy(to->hist, from->hist, to->n * sizeof(*to->hist));
	return 0;
}

static void pause_for(double seconds)
{
	struct timespec ts = { .tv_sec = (time_t)seconds };

	ts.tv_nsec = (long)((seconds - (double)ts.tv_sec) * 1e9);
	nanosleep(&ts, NULL);
}

static int show_interval(const struct target *t, const struct sample *now,
			 const struct sample *before, bool as_json)
{
	struct sample d;
	double seconds;
	int err = copy_sample(&d, now);

	if (err)
		return err;
	subtract(&d, before);
	seconds = (double)(d.stats.now_ns - d.stats.since_ns) / 1e9;
	if (as_json) {
		json(t, &d, "");
	} else {
		printf("---- %.1f s\n", seconds);
		text_rates(&d, seconds > 0 ? seconds : 1);
		putchar('\n');
	}
	free(d.hist);
	return fflush(stdout) ? -errno : 0;
}

/* Until interrupted, or the daemon goes. */
static int watch(struct target *t, double seconds, bool as_json)
{
	struct sample before, now;
	int err;

	err = take_sample(t, &before);
	while (!err) {
		pause_for(seconds);
		err = take_sample(t, &now);
		if (err)
			break;
		err = show_interval(t, &now, &before, as_json);
		free(before.hist);
		before = now;
	}
	free(before.hist);
	return err;
}

static int once(struct target *t, bool as_json)
{
	struct sample s;
	int err = take_sample(t, &s);

	if (err)
		return err;
	if (as_json)
		json(t, &s, "\n");
	else
		text_once(&s);
	free(s.hist);
	return 0;
}

/* ---- options ---- */

struct stats_options {
	bool json;
	double watch; /* seconds; 0: once */
};

static int parse_seconds(const char *text, double *out)
{
	char *end;
	double v = strtod(text, &end);

	/* also refuses what is not a number */
	if (end == text || *end || !(v >= 0.01 && v <= 86400))
		return usage_error("stats", "'%s': seconds from 0.01 to 86400",
				   text);
	*out = v;
	return STATUS_OK;
}

static int parse(int argc, char **argv, struct stats_options *o)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "watch", optional_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	int c, status = STATUS_OK;

	optind = 0;
	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == 'j') {
			o->json = true;
		} else if (c == 'w') {
			o->watch = 1;
			if (optarg)
				status = parse_seconds(optarg, &o->watch);
			if (status)
				return status;
		} else {
			return option_error(argv[0], c, argv);
		}
	}
	/* "--watch 2" is as good as "--watch=2" */
	if (o->watch > 0 && argc - optind == 1)
		return parse_seconds(argv[optind], &o->watch);
	if (argc - optind > 0)
		return usage_error(argv[0], "'%s' is too much", argv[optind]);
	return STATUS_OK;
}

int verb_stats(const char *path, int argc, char **argv)
{
	struct stats_options o = { .json = false };
	struct target t;
	int err, status;

	status = parse(argc, argv, &o);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_READ))
		return STATUS_FAILED;
	if (o.watch > 0 && target_is_image(&t)) {
		tool_err(path, "not mounted: there is nothing to watch");
		err = -EINVAL;
	} else {
		err = o.watch > 0 ? watch(&t, o.watch, o.json) :
				    once(&t, o.json);
		if (err)
			tool_err(path, "%s", target_strerror(err));
	}
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}
