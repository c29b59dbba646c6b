/*
 * tool.h - what mkfs, fsck and cowctl share: messages, sizes, progress, JSON
 */
#ifndef COW_TOOL_H
#define COW_TOOL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "cowfs/bdev.h"

#define TOOL_HUMAN 32 /* bytes that tool_human() may need */

/* Name of the program, for its messages; kept by reference. First call. */
void tool_init(const char *name);

/* "name: object: message" and a newline on stderr; object NULL: left out. A
 * progress line that stands there is ended first. */
void tool_err(const char *object, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Text of a negative error. The house codes have their own words. */
const char *tool_strerror(int err);

/* The same of what cowfs_device_open and reading superblocks return. */
const char *tool_open_strerror(int err);

/* The same of opening what is to become an image. */
const char *tool_make_strerror(int err);

/* "name (cowfs) X.Y.Z" on stdout. */
void tool_version(void);

/* "10", "4K", "1M", "1G", "1T", "1P" (powers of 1024; either case; "4KiB" and
 * "4KB" too). -EINVAL: no such number. -ERANGE: too large for 64 bits. */
MUST_CHECK int tool_parse_size(const char *text, uint64_t *bytes);

/* "512 B", "4.0 KiB", "1.5 GiB", ... */
void tool_human(uint64_t bytes, char out[TOOL_HUMAN]);

bool tool_is_tty(int fd);

/* Draw the progress line on stderr, if that is a terminal, ten times a second
 * at most: a bar, the rate, the time left. In blocks; ns: time spent so far. */
void tool_progress(const char *what, uint64_t done, uint64_t total,
		   uint64_t ns);
/* The same of something that was resumed: run_done and ns are of this run. */
void tool_progress_run(const char *what, uint64_t done, uint64_t total,
		       uint64_t run_done, uint64_t ns);
/* Wipe it. Harmless when there is none. */
void tool_progress_end(void);

/* s as a JSON string with its quotes. Bytes that are not UTF-8 come out as
 * U+FFFD: JSON has no way to carry them. */
void tool_json_string(FILE *f, const char *s);

/* What somebody else named, for people: no byte of it that a terminal would act
 * on; those come out as \xNN, and so does a backslash. */
void tool_put(FILE *f, const char *s);

/* Does the device hold anything, by what is known of signatures, or, if it is a
 * regular file, by a look at both ends? Says so, and that -f overwrites it.
 * 0: it does not. */
int tool_refuse_used(const char *image, struct bdev *dev, bool file);

#endif
