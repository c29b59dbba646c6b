/*
 * log.c - what the next mount will do before anything else (check.h)
 *
 * The log is tried by replaying it, as a mount does, in a store that writes
 * nothing: so what is said is what will happen. The trees that are checked are
 * those of the superblock, without the log.
 */
#include <stdio.h>

#include "check/private.h"

static void tell(struct check_first *f, const char *fmt, ...)
	PRINTF_LIKE(2, 3);

static void tell(struct check_first *f, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!f->told)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	f->told(f->arg, line);
}

static void found(struct check_first *f, enum problem p, const char *fmt, ...)
	PRINTF_LIKE(3, 4);

static void found(struct check_first *f, enum problem p, const char *fmt, ...)
{
	char where[512];
	va_list ap;

	f->problems++;
	if (!f->found)
		return;
	va_start(ap, fmt);
	vsnprintf(where, sizeof(where), fmt, ap);
	va_end(ap);
	f->found(f->arg, p, where);
}

static void tell_passed(struct check_first *f, const struct store *s,
			uint64_t gen)
{
	uint64_t passed = store_passed(s);

	if (passed && store_passed_unread(s))
		found(f, P_COMMIT_UNREAD, "generation %" PRIu64 ": cannot be "
		      "read, and may be there; the one before it is %" PRIu64,
		      passed, gen);
	else if (passed)
		tell(f, "this is generation %" PRIu64 ": generation %" PRIu64
		     " was not finished, or has rotted since, and a mount gives "
		     "it up (--backup-super %" PRIu64 " shows what there is "
		     "of it)", gen, passed, passed);
}

static void tell_log(struct check_first *f, const struct log_found *log)
{
	if (!log->tried)
		return;
	if (log->records)
		tell(f, "the log has %" PRIu64 " %s, which a mount replays",
		     log->records, log->records == 1 ? "fsync" : "fsyncs");
	if (log->unfinished)
		tell(f, "one more was not finished, or its data have rotted "
		     "since: it does not count");
	if (log->damaged)
		found(f, P_LOG_DAMAGED, "record %" PRIu64 ": what was fsynced "
		      "after it and before the last commit is lost",
		      log->records);
	else if (log->unread)
		found(f, P_LOG_DAMAGED, "record %" PRIu64 ": cannot be read, "
		      "and may be there", log->records);
}

static void tell_doubt(struct check_first *f, struct store *s)
{
	struct cowfs_disk_super d;

	store_durable_super(s, &d);
	if (super_in_doubt(s->dev, &d))
		tell(f, "superblocks were wiped: a mount goes on with "
		     "generation %" PRIu64 "; what was newer may be lost",
		     from_le64(d.gen));
}

int check_first(struct bdev *dev, struct store *of, struct check_first *f)
{
	uint64_t gen = store_durable_gen(of);
	struct store_config cfg = { .dev = dev, .use_gen = gen,
				    .flags = STORE_READONLY | STORE_QUIET };
	struct log_found log;
	struct store *s;
	int err;

	f->problems = 0;
	tell_passed(f, of, gen);
	err = store_open(&cfg, &s);
	if (err == -ENOMEM)
		return err;
	if (err) {
		found(f, P_LOG_BAD, "%s", strerror(-err));
		return 0;
	}
	store_log_found(s, &log);
	if (!log.records && !log.damaged)
		tell_doubt(f, s);
	store_abandon(s);
	tell_log(f, &log);
	return 0;
}
