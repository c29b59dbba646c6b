/*
 * rescue.h - libcowfs for tools: what can still be read of a damaged image
 *
 * Nothing is written, and nothing but checksums is believed: a tree is walked
 * from whichever superblock leads to one, what cannot be read is left out, and
 * said. Neither the free-space records nor the references are needed. What only
 * the log holds (the last fsyncs before a crash) goes with the superblock that it
 * is based on, and can be read whatever is damaged below that; not so if a root
 * was searched for (log_unused).
 *
 * Two passes over the tree, each calling a sink: names, then contents, inode by
 * inode in order of their numbers. A sink's non-zero return ends the pass and
 * is returned.
 */
#ifndef COWFS_RESCUE_H
#define COWFS_RESCUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cowfs/bdev.h"
#include "cowfs/format.h"

struct cowfs_rescue;

struct cowfs_rescue_options {
	const char *snapshot; /* NULL: the live tree */
	uint64_t gen; /* of the superblock; 0: the newest that leads to a tree */
	/* superblocks are not asked: all of the device is searched for the
	 * root of a tree of files. gen: the newest one of at most that */
	bool scan;
	/* called while searching: non-zero cancels */
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct cowfs_rescue_sink {
	/* Names. An inode whose item is lost, but not all of its contents, is
	 * made up: a file or a directory for its owner alone. */
	int (*inode)(void *arg, uint64_t ino, const struct cowfs_disk_inode *d);
	/* An entry: its name is one (no '/', no NUL, not "." or ".."). */
	int (*name)(void *arg, uint64_t dir, uint64_t ino, const char *name,
		    size_t len);

	/* Contents: begin, the others in any number, end. data: in order, of
	 * files and symlinks; what is not told is a hole. lost: bytes that
	 * cannot be read. */
	int (*begin)(void *arg, uint64_t ino);
	int (*xattr)(void *arg, const char *name, const void *val, size_t len);
	int (*data)(void *arg, uint64_t off, const void *buf, size_t len);
	int (*lost)(void *arg, uint64_t off, uint64_t len);
	int (*lost_xattr)(void *arg, const char *name);
	int (*end)(void *arg);
	void *arg;
};

struct cowfs_rescue_info {
	uint64_t gen;        /* of what is being rescued */
	uint64_t lost_nodes; /* of the tree, by the names pass */
	uint64_t log_records; /* of fsyncs after it, which are in it, too */
	bool log_unused; /* the log has some, but of another (newer) state */
	bool log_damaged; /* it has, or may have, more behind one that is unreadable */
	bool in_doubt; /* superblocks were wiped; perhaps what was newer, too, a
			  log or a superblock */
	uint64_t newer; /* generation of a state that a mount passes over, as
			   something is missing of what it wrote; 0: none */
};

/* -ENOENT: no such snapshot, or superblock; -ECOW_CSUM: what there is leads to
 * no readable tree; errors of super_scan; -ENODATA: the search found no tree. */
MUST_CHECK int cowfs_rescue_open(struct bdev *dev,
				 const struct cowfs_rescue_options *opt,
				 struct cowfs_rescue **out);
MUST_CHECK int cowfs_rescue_names(struct cowfs_rescue *r,
				  const struct cowfs_rescue_sink *sink);
/* After names. */
MUST_CHECK int cowfs_rescue_contents(struct cowfs_rescue *r,
				     const struct cowfs_rescue_sink *sink);
void cowfs_rescue_info(const struct cowfs_rescue *r,
		       struct cowfs_rescue_info *out);
void cowfs_rescue_close(struct cowfs_rescue *r); /* NULL is fine */

#endif
