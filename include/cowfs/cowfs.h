/*
 * cowfs.h - libcowfs for tools: whole-filesystem calls on an image
 *
 * A tool opens a device (bdev.h), then one of these. Errors are negative errno
 * (error.h); messages about damage go to the log sink (default: stderr).
 */
#ifndef COWFS_COWFS_H
#define COWFS_COWFS_H

#include <stdbool.h>
#include <stdint.h>

#include "cowfs/bdev.h"
#include "cowfs/format.h"
#include "cowfs/ioctl.h"

/* First thing in main: whichever of the three standard files is closed stays out
 * of the way of what is opened next. false: it does not, and nothing may be
 * opened. */
MUST_CHECK bool cowfs_reserve_stdio(void);

/* For who looks at an image for another reason than to hear of it: of the messages
 * only errors come to the log sink; false: all again. No other thread runs. */
void cowfs_errors_only(bool yes);

/*
 * The device of a filesystem by the path of its image: that file or block
 * device, or a mirror of it and its other side, which lies in the same folder or
 * where `mirror` says. Locks both.
 */
struct cowfs_device {
	unsigned flags;     /* enum bdev_flags, not CREATE */
	unsigned wait_ms;   /* as bdev_open_file */
	const char *mirror; /* NULL: look for it */
	bool degraded;      /* go on without it if it is not found */
	bool alone;         /* do not look for it; a mirror with one side missing
			       comes of any image (cowfs_mirror_*) */
};
/* As bdev_open_file; what is wrong with the other side is reported: -ENODEV (it is
 * missing), -EEXIST (several may be it), -EXDEV (what is named cannot be it). */
MUST_CHECK int cowfs_device_open(const char *path,
				 const struct cowfs_device *opt,
				 struct bdev **out);
/* The other side of the mirror that path is one of: *other is to be freed.
 * -ENOENT: it is none, or there is no other. */
MUST_CHECK int cowfs_device_other(const char *path, char **other);

struct cowfs_mkfs {
	uint32_t node_size;       /* 0: default */
	unsigned metadata_copies; /* 0: default (2) */
	unsigned data_copies;     /* 0: default (1) */
	uint32_t redundancy;      /* the setting; 1 is none */
	const char *label;        /* NULL: none */
	const uint8_t *uuid;      /* NULL: random */
	uint32_t uid, gid, mode;  /* of the root directory; mode 0: 0755 */
};

/* Make a filesystem on all of dev, a mirror if it has two sides, and flush it.
 * -ENOSPC (smaller than COWFS_MIN_BLOCKS), -EFBIG, -EINVAL. */
MUST_CHECK int cowfs_mkfs(struct bdev *dev, const struct cowfs_mkfs *opt);

/* What known filesystem or partition table seems to be on dev: a name ("ext4",
 * "cowfs", ...) or NULL. Only looks at well-known magics. */
const char *cowfs_probe(struct bdev *dev);

/* An image opened offline, by a tool. write: false writes nothing at all. */
struct cowfs;
MUST_CHECK int cowfs_open(struct bdev *dev, bool write, struct cowfs **out);
/* First error of what had to be written; c is gone all the same. */
MUST_CHECK int cowfs_close(struct cowfs *c);

/* The control verbs, the same that ioctls carry (ioctl.h), offline. */
MUST_CHECK int cowfs_info(struct cowfs *c, struct cowfs_ioc_info *out);
/* What it did since it was opened. */
MUST_CHECK int cowfs_stats(struct cowfs *c, struct cowfs_ioc_stats *out);
/* One histogram after the other: *at 0 to begin with. false: no more. */
bool cowfs_hist_next(struct cowfs *c, uint64_t *at,
		     struct cowfs_ioc_hist *out);
MUST_CHECK int cowfs_get_setting(struct cowfs *c, struct cowfs_ioc_setting *io);
MUST_CHECK int cowfs_set_setting(struct cowfs *c,
				 const struct cowfs_ioc_setting *io);
MUST_CHECK int cowfs_snap_create(struct cowfs *c, const char *name,
				 struct cowfs_ioc_snap *out);
MUST_CHECK int cowfs_snap_delete(struct cowfs *c, const char *name);
MUST_CHECK int cowfs_snap_restore(struct cowfs *c, const char *name,
				  const char *save);
/* First snapshot with id >= id. -ENOENT at the end. */
MUST_CHECK int cowfs_snap_next(struct cowfs *c, uint64_t id,
			       struct cowfs_ioc_snap *out);

/* Of an image opened `alone`: make dev (which is taken over in any case) its
 * other side, to be brought up to date by a scrub; or forget the other side.
 * -ENOSPC: dev is too small; -EINVAL: it is no mirror. */
MUST_CHECK int cowfs_mirror_add(struct cowfs *c, struct bdev *dev);
MUST_CHECK int cowfs_mirror_remove(struct cowfs *c);

/*
 * Scrub an open image in this thread (c opened for writing, or it mends
 * nothing). resume: go on with one that was paused or interrupted (-ENOENT:
 * there is none). rate: bytes per second, 0: no limit. progress is called now
 * and then; non-zero: cancel, which is no error (out->cancelled). 0 even if
 * there is damage. What is found is also kept in the image.
 */
struct cowfs_scrub {
	bool resume;
	uint64_t rate;
	int (*progress)(void *arg, const struct cowfs_ioc_scrub *now);
	void *arg;
};
MUST_CHECK int cowfs_scrub(struct cowfs *c, const struct cowfs_scrub *opt,
			   struct cowfs_ioc_scrub *out);
/* The last one; a page of its report (ioctl.h). -ENOMEM. */
MUST_CHECK int cowfs_scrub_status(struct cowfs *c, struct cowfs_ioc_scrub *out);
MUST_CHECK int cowfs_scrub_report(struct cowfs *c,
				  struct cowfs_ioc_report *page);
/* Give up one that could be resumed. -ESRCH. */
MUST_CHECK int cowfs_scrub_cancel(struct cowfs *c);

/* Full check (fsck) of an open image; see check.h for callbacks. */
struct cowfs_check {
	bool data, mend, semantics, all_snapshots;
	uint64_t gen; /* cowfs_check_device: superblock to use; 0: the newest */
	void (*found)(void *arg, const char *problem, const char *where);
	/* cowfs_check_device: what a mount will do first, a line each; what it
	 * loses by that is a problem */
	void (*told)(void *arg, const char *line);
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};
MUST_CHECK int cowfs_check(struct cowfs *c, const struct cowfs_check *opt,
			   struct cowfs_ioc_scrub *out);

/* The same of a device, writing nothing, even if damage keeps it from being
 * opened (fsck): then what its newest superblock names is checked. */
MUST_CHECK int cowfs_check_device(struct bdev *dev,
				  const struct cowfs_check *opt,
				  struct cowfs_ioc_scrub *out);

/*
 * Repair a device that nobody uses (fsck): one new superblock at the end, or
 * nothing but bad copies rewritten from good ones. A repaired state checks
 * clean.
 */
struct cowfs_repair {
	bool all;   /* mend what loses something, too: else nothing is changed
		       if that is needed */
	bool data;  /* read and verify file data, too */
	bool punch; /* data blocks without a good copy become holes */
	uint64_t gen; /* start from the superblock of this generation; 0: the
			 newest */
	void (*found)(void *arg, const char *problem, const char *where);
	/* what was mended or lost, a line each */
	void (*told)(void *arg, const char *line);
	/* before anything is changed; loses: something will be given up. NULL:
	 * yes */
	bool (*ask)(void *arg, uint64_t problems, bool loses);
	int (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};

struct cowfs_repaired {
	struct cowfs_ioc_scrub check; /* as it was found */
	bool changed;   /* something was written */
	bool needs_all; /* nothing was changed for want of cowfs_repair.all */
	uint64_t left;  /* problems that remain */
};
MUST_CHECK int cowfs_repair(struct bdev *dev, const struct cowfs_repair *opt,
			    struct cowfs_repaired *out);

/* Back to the state before a repair, which must have been the last thing
 * written. -ENOENT: it was not; -EBUSY: blocks of that state are gone. */
MUST_CHECK int cowfs_repair_undo(struct bdev *dev);

/* Generations of which a superblock is there, newest first: *n of them at
 * most, *n how many there are. */
MUST_CHECK int cowfs_generations(struct bdev *dev, uint64_t *gen,
				 unsigned *n);

/* The generation that a user means by n: up to 3 that many before the newest,
 * else n itself. -ENOENT: there is no superblock of it. */
MUST_CHECK int cowfs_generation_at(struct bdev *dev, uint64_t n,
				   uint64_t *gen);

#endif
