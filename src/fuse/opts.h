/*
 * opts.h - the command line of the daemon
 */
#ifndef COW_FUSE_OPTS_H
#define COW_FUSE_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cowfs/error.h"

enum on_error { ERRORS_REMOUNT_RO, ERRORS_CONTINUE };

struct options {
	const char *program; /* as messages name it */
	char *args;          /* the command line as ps(1) sees it */
	size_t args_len;
	bool helper;         /* called as mount.*: flags as mount(8) has them */
	bool help, version;
	bool foreground, debug, single;
	bool fake, sloppy;   /* mount -f, -s */
	bool rw;             /* asked for in so many words */
	bool readonly, noatime, strictatime, snapdir;
	bool relatime; /* in so many words: ends noatime of a mount */
	bool dirsync; /* or sync */
	bool sync;
	bool degraded; /* mount one side of a mirror without the other */
	bool remount; /* change a mount that is there */
	bool checked; /* the kernel checks permissions, whoever mounts */
	enum on_error errors;
	unsigned commit_s;
	unsigned threads;
	unsigned poll_us; /* look for requests before sleeping */
	size_t cache;
	char *image, *dir;   /* absolute; owned */
	char *mirror;        /* owned; NULL: the other side is looked for */
	char *snapshot;      /* owned; NULL: the live tree */
	uint64_t recovery;   /* superblock to use (recovery.c); 0: newest */
	char *pass;          /* owned: options for libfuse, comma-separated */
};

enum opts_result { OPTS_OK, OPTS_USAGE, OPTS_FAIL };

/* Errors are printed. OPTS_USAGE: the command line is wrong; OPTS_FAIL: an
 * operand does not exist, or no memory. */
enum opts_result opts_parse(struct options *o, int argc, char **argv);
void opts_free(struct options *o);
void opts_help(const struct options *o);

#endif
