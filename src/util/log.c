/*
 * log.c - messages: one line each, to a sink
 *
 * The sink and the level are the only state that the library keeps for the
 * whole process: a message may be due where no filesystem is open yet. Both
 * are set before threads start and only read afterwards.
 */
#include <stdio.h>

#include "cowfs/cowfs.h"
#include "cowfs/text.h"
#include "util/util.h"

static void to_stderr(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	fprintf(stderr, "cowfs: %s\n", line);
}

static log_sink_fn *sink = to_stderr;
static void *sink_arg;
static enum log_level max_level = LOG_LVL_INFO;

void log_set_sink(log_sink_fn *fn, void *arg)
{
	sink = fn ? fn : to_stderr;
	sink_arg = arg;
}

void log_set_level(enum log_level max)
{
	max_level = max;
}

void cowfs_errors_only(bool yes)
{
	log_set_level(yes ? LOG_LVL_ERROR : LOG_LVL_INFO);
}

/* A name from a hostile image must not forge lines or drive a terminal. */
static void make_printable(char *s)
{
	size_t len = strlen(s), n;

	for (; len; s += n, len -= n) {
		n = cowfs_shown(s, len);
		if (!n) {
			*s = '?';
			n = 1;
		}
	}
}

static void log_va(enum log_level level, const char *fmt, va_list ap)
	PRINTF_LIKE(2, 0);

static void log_va(enum log_level level, const char *fmt, va_list ap)
{
	char small[512], *line = small;
	va_list again;
	int len;

	if (level > max_level)
		return;
	va_copy(again, ap);
	len = vsnprintf(small, sizeof(small), fmt, ap);
	if (len >= (int)sizeof(small)) {
		line = malloc((size_t)len + 1);
		if (line)
			vsnprintf(line, (size_t)len + 1, fmt, again);
		else
			line = small; /* its beginning is better than nothing */
	}
	va_end(again);
	if (len >= 0) {
		make_printable(line);
		may_wait();
		sink(sink_arg, level, line);
	}
	if (line != small)
		free(line);
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_va(level, fmt, ap);
	va_end(ap);
}

int report(int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_va(LOG_LVL_ERROR, fmt, ap);
	va_end(ap);
	return err;
}

/* Messages per window, and its length. */
#define LIMIT_BURST 10u
#define LIMIT_WINDOW_NS UINT64_C(5000000000)

/*
 * Threads that find the window over at the same moment may let a message too
 * many through, or have a few counted in the wrong window: no harm.
 */
bool log_allowed(struct log_limit *l, uint64_t *dropped)
{
	uint64_t now = now_ns(), since = atomic_load(&l->since);

	*dropped = 0;
	if (since == 0 || now - since > LIMIT_WINDOW_NS) {
		if (atomic_compare_exchange_strong(&l->since, &since, now)) {
			uint64_t n = atomic_exchange(&l->count, 1);

			*dropped = n > LIMIT_BURST ? n - LIMIT_BURST : 0;
			return true;
		}
	}
	return atomic_fetch_add(&l->count, 1) < LIMIT_BURST;
}
