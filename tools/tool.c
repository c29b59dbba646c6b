/*
 * tool.c - what mkfs, fsck and cowctl share: messages, sizes, progress, JSON
 */
#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "cowfs/format.h"
#include "cowfs/text.h"
#include "cowfs/version.h"
#include "tool.h"

#define BAR_WIDTH 24

/* A program has one name and one terminal line. */
static struct {
	const char *name;
	bool line;      /* a progress line stands on the terminal */
	uint64_t drawn; /* when, CLOCK_MONOTONIC ns */
} self = { .name = "cowfs" };

void tool_init(const char *name)
{
	self.name = name;
	/* An error is enough where files may not be that large (ulimit -f). */
	signal(SIGXFSZ, SIG_IGN);
	if (!cowfs_reserve_stdio())
		_exit(EXIT_FAILURE);
}

/* also: a character to be escaped like those a terminal acts on; 0: none. */
static void put(FILE *f, const char *s, char also)
{
	size_t len = strlen(s), n;

	for (; len; s += n, len -= n) {
		n = *s == also ? 0 : cowfs_shown(s, len);
		fwrite(s, 1, n, f);
		if (!n) {
			fprintf(f, "\\x%02x", (unsigned char)*s);
			n = 1;
		}
	}
}

void tool_put(FILE *f, const char *s)
{
	put(f, s, '\\');
}

void tool_err(const char *object, const char *fmt, ...)
{
	char *line = NULL;
	va_list ap;

	tool_progress_end();
	fflush(stdout); /* in the order it happened, where both are one file */
	fprintf(stderr, "%s: ", self.name);
	if (object) {
		put(stderr, object, 0);
		fputs(": ", stderr);
	}
	va_start(ap, fmt);
	if (vasprintf(&line, fmt, ap) < 0)
		line = NULL;
	va_end(ap);
	put(stderr, line ? line : "no memory", 0);
	free(line);
	fputc('\n', stderr);
}

const char *tool_strerror(int err)
{
	switch (err) {
	case -ECOW_CSUM:
		return "checksum wrong on every copy";
	case -ECOW_CORRUPT:
		return "damaged structure";
	case -ENODEV:
		return "the other side of the mirror is missing";
	case -ENOTUNIQ:
		return "the sides of the mirror went on without each other";
	case -EINPROGRESS:
		return "done, but not durable before there is room on what "
		       "the image lies on";
	default:
		return strerror(-err);
	}
}

const char *tool_open_strerror(int err)
{
	switch (err) {
	case -EINVAL:
		return "not a cowfs image";
	case -EBUSY:
		return "in use (mounted, or another program has it open)";
	case -ENODEV:
		return "the other side of the mirror is missing (see --mirror "
		       "and --degraded)";
	case -EXDEV:
		return "not opened without the other side of the mirror";
	case -EEXIST:
		return "more than one file may be the other side of the mirror "
		       "(--mirror says which)";
	default:
		return tool_strerror(err);
	}
}

const char *tool_make_strerror(int err)
{
	switch (err) {
	case -EINVAL:
		return "neither a file nor a block device";
	case -EBUSY:
		return "in use (mounted, or another program has it open)";
	default:
		return tool_strerror(err);
	}
}

void tool_version(void)
{
	printf("%s (cowfs) %s\n", self.name, COWFS_VERSION);
}

/* Bits to shift for a unit's letter; -1: no such unit. */
static int unit_shift(char c)
{
	static const char letters[] = "KMGTPE";
	const char *at;

	if (c == '\0')
		return -1;
	at = strchr(letters, toupper((unsigned char)c));
	return at ? (int)(at - letters + 1) * 10 : -1;
}

int tool_parse_size(const char *text, uint64_t *bytes)
{
	const char *p = text;
	uint64_t n = 0;
	int shift = 0;

	if (!isdigit((unsigned char)*p))
		return -EINVAL;
	for (; isdigit((unsigned char)*p); p++) {
		unsigned digit = (unsigned)(*p - '0');

		if (n > (UINT64_MAX - digit) / 10)
			return -ERANGE;
		n = n * 10 + digit;
	}
	if (*p) {
		shift = unit_shift(*p++);
		if (shift < 0)
			return -EINVAL;
		if (*p == 'i' && (p[1] == 'B' || p[1] == 'b'))
			p++;
		if (*p == 'B' || *p == 'b')
			p++;
		if (*p)
			return -EINVAL;
	}
	if (n > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes = n << shift;
	return 0;
}

void tool_human(uint64_t bytes, char out[TOOL_HUMAN])
{
	static const char *const unit[] = { "B",   "KiB", "MiB", "GiB",
					    "TiB", "PiB", "EiB" };
	double v = (double)bytes;
	unsigned i = 0;

	/* 1023.95 and more would be printed as 1024.0 */
	while (v >= 1023.95 && i < sizeof(unit) / sizeof(unit[0]) - 1) {
		v /= 1024;
		i++;
	}
	if (i == 0)
		snprintf(out, TOOL_HUMAN, "%" PRIu64 " B", bytes);
	else
		snprintf(out, TOOL_HUMAN, "%.1f %s", v, unit[i]);
}

bool tool_is_tty(int fd)
{
	return isatty(fd) == 1;
}

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* "[=====>    ]" */
static void put_bar(double part)
{
	int n = (int)(part * BAR_WIDTH);

	fputc('[', stderr);
	for (int i = 0; i < BAR_WIDTH; i++)
		fputc(i < n ? '=' : i == n ? '>' : ' ', stderr);
	fputc(']', stderr);
}

static void put_left(double seconds)
{
	uint64_t s = (uint64_t)seconds;

	fprintf(stderr, ", %" PRIu64 ":%02u:%02u left", s / 3600,
		(unsigned)(s / 60 % 60), (unsigned)(s % 60));
}

void tool_progress_run(const char *what, uint64_t done, uint64_t total,
		       uint64_t run_done, uint64_t ns)
{
	char rate[TOOL_HUMAN];
	double part, per_s;
	uint64_t now;

	if (!tool_is_tty(STDERR_FILENO))
		return;
	now = monotonic_ns();
	if (self.line && now - self.drawn < 100000000u)
		return;
	self.line = true;
	self.drawn = now;
	part = total == 0 ? 0 : (double)done / (double)total;
	if (part > 1)
		part = 1; /* the total is an estimate while it changes */
	fprintf(stderr, "\r\033[K%s: %3.0f%% ", what, part * 100);
	put_bar(part);
	/* The first second says little about the rest. */
	if (run_done && ns > 1000000000u) {
		per_s = (double)run_done / ((double)ns / 1e9);
		tool_human((uint64_t)(per_s * COWFS_BLOCK_SIZE), rate);
		fprintf(stderr, " %s/s", rate);
		if (done < total)
			put_left((double)(total - done) / per_s);
	}
	fflush(stderr);
}

void tool_progress(const char *what, uint64_t done, uint64_t total,
		   uint64_t ns)
{
	tool_progress_run(what, done, total, done, ns);
}

void tool_progress_end(void)
{
	if (!self.line)
		return;
	self.line = false;
	fputs("\r\033[K", stderr);
	fflush(stderr);
}

void tool_json_string(FILE *f, const char *s)
{
	size_t len = strlen(s), n;

	fputc('"', f);
	for (; len; s += n, len -= n) {
		n = cowfs_shown(s, len);
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		if (n) {
			fwrite(s, 1, n, f);
		} else if ((unsigned char)*s < 0x80) {
			fprintf(f, "\\u%04x", (unsigned char)*s);
			n = 1;
		} else if ((unsigned char)*s == 0xc2 && len > 1 &&
			   ((unsigned char)s[1] & 0xe0) == 0x80) {
			fprintf(f, "\\u%04x", (unsigned char)s[1]); /* C1 */
			n = 2;
		} else {
			fputs("\\ufffd", f);
			n = 1;
		}
	}
	fputc('"', f);
}

/* ---- is something there? ---- */

/* Of a regular file: what is looked at, at each end, for being empty. */
#define LOOK_BYTES (1u << 20)

static int any_byte(struct bdev *dev, uint64_t off, uint64_t len, bool *any)
{
	static uint8_t buf[65536];

	while (len && !*any) {
		size_t n = len < sizeof(buf) ? len : sizeof(buf);
		int err = bdev_read(dev, off, buf, n);

		if (err)
			return err;
		*any = buf[0] || memcmp(buf, buf + 1, n - 1) != 0;
		off += n;
		len -= n;
	}
	return 0;
}

/* Does a regular file hold something? Zeros are nothing. */
static int file_in_use(struct bdev *dev, bool *any)
{
	uint64_t size = dev->size / 512 * 512;
	uint64_t head = size < LOOK_BYTES ? size : LOOK_BYTES;
	int err;

	*any = dev->size % 512 != 0; /* no image has such a size */
	err = any_byte(dev, 0, head, any);
	return err ? err : any_byte(dev, size - head, head, any);
}

int tool_refuse_used(const char *image, struct bdev *dev, bool file)
{
	const char *what = cowfs_probe(dev);
	bool any = false;
	int err = 0;

	if (what) {
		tool_err(image, "contains a%s %s%s; use -f to overwrite it",
			 strchr("aeiox", *what) ? "n" : "", what,
			 strstr(what, "table") || strstr(what, "image") ||
				 strstr(what, "swap") ? "" : " filesystem");
		return 1;
	}
	if (file)
		err = file_in_use(dev, &any);
	if (err)
		tool_err(image, "%s", tool_strerror(err));
	else if (any)
		tool_err(image, "is not empty; use -f to overwrite it");
	return err || any;
}
