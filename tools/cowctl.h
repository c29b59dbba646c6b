/*
 * cowctl.h - what the parts of cowctl share: the target, and one function per
 *            verb
 */
#ifndef COW_COWCTL_H
#define COW_COWCTL_H

#include <stdbool.h>
#include <stdint.h>

#include "cowfs/cowfs.h"
#include "tool.h"

/* Exit statuses. */
enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_DAMAGE = 3 };

/* ---- cowctl_target.c: a mounted filesystem, or an image ---- */

/* What PATH turned out to be. Verbs don't ask: the calls below go through
 * ioctls or through libcowfs as fits. */
struct target {
	const char *path;   /* as the user wrote it */
	int fd;             /* a directory of the mount; -1: an image */
	struct bdev *dev;   /* of the image */
	struct cowfs *image;
};

enum target_mode {
	TARGET_READ,   /* changes nothing */
	TARGET_WRITE,
	TARGET_MEND,   /* write if that is permitted, else read */
	TARGET_ALONE,  /* write; an image without the other side of its
			  mirror, whether there is one or not */
};

/* Where the other side of an image is; go on without it. Before target_open. */
void target_set_mirror(const char *mirror);
void target_set_degraded(void);
/* The first as it was given; NULL: it was not. */
const char *target_mirror_given(void);

/* Does path hold the magic number of an image? */
bool target_names_image(const char *path);

/* Find out what path is and open it. Errors are printed. */
MUST_CHECK int target_open(struct target *t, const char *path,
			   enum target_mode mode);
/* Close. Prints and returns the first error of what had to be written. */
MUST_CHECK int target_close(struct target *t);

static inline bool target_is_image(const struct target *t)
{
	return t->fd < 0;
}

/* The verbs of ioctl.h and cowfs.h, on either kind of target; silent. */
MUST_CHECK int target_info(struct target *t, struct cowfs_ioc_info *out);
MUST_CHECK int target_stats(struct target *t, struct cowfs_ioc_stats *out);
/* Histograms: fn for each that has something in it. */
MUST_CHECK int target_hist_each(struct target *t,
				void (*fn)(void *arg,
					   const struct cowfs_ioc_hist *h),
				void *arg);
MUST_CHECK int target_sync(struct target *t);
MUST_CHECK int target_get(struct target *t, struct cowfs_ioc_setting *io);
MUST_CHECK int target_set(struct target *t,
			  const struct cowfs_ioc_setting *set);
MUST_CHECK int target_snap_create(struct target *t, const char *name,
				  struct cowfs_ioc_snap *out);
MUST_CHECK int target_snap_delete(struct target *t, const char *name);
MUST_CHECK int target_snap_restore(struct target *t, const char *name,
				   const char *save);
/* fn for each snapshot in order of age. */
MUST_CHECK int target_snap_each(struct target *t,
				void (*fn)(void *arg,
					   const struct cowfs_ioc_snap *snap),
				void *arg);

/* Of a mount only: ioctl.h. path: absolute, or "". id: what must lie there, or
 * NULL. */
MUST_CHECK int target_mirror(struct target *t, uint32_t verb, const char *path,
			     const struct bdev_id *id);

/* Words for an error of a verb: what it means here, not what errno(3) says. */
const char *target_strerror(int err);

/* INFO of the mount that the open directory fd belongs to. -ENOTTY: none. */
MUST_CHECK int mount_info(int fd, struct cowfs_ioc_info *out);
/* A directory of the mount that path lies in; -ENOTTY: not in a cowfs mount. */
MUST_CHECK int mount_open(const char *path, int *fd);

/* ---- cowctl_mounts.c: the mount table ---- */

#define MOUNT_TABLE "/proc/self/mountinfo"
#define MOUNT_TABLE_ROOM 48

struct mount_entry {
	char *point;  /* where it is mounted */
	char *source; /* the image */
	char *device; /* "major:minor": several places may show it */
};

/* The cowfs mount that path lies in. A dead one (its daemon is gone) is found
 * by its mount point. -ENOENT: none. */
MUST_CHECK int mount_by_path(const char *path, struct mount_entry *out);
/* The cowfs mount of an image, or of the other side of its mirror. -ENOENT: none. */
MUST_CHECK int mount_by_source(const char *image, struct mount_entry *out);
/* The place where a device is mounted. -ENOENT: none. */
MUST_CHECK int mount_by_device(const char *device, struct mount_entry *out);
/* What is mounted on a directory of a device. -ENOENT: nothing. */
MUST_CHECK int mount_on_device(const char *device, struct mount_entry *out);
/* Is a device mounted in the mount namespace of any process? table: the mount
 * table of the first such process. -ENOENT: no, as far as one may look. */
MUST_CHECK int mount_in_namespace(const char *device,
				  char table[MOUNT_TABLE_ROOM]);
void mount_entry_free(struct mount_entry *e);

/* ---- cowctl_report.c: what a scrub found ---- */

/* Entries one after the other, as format.h has them, each verified. */
struct scrub_found {
	uint8_t *at;
	size_t len;
};

MUST_CHECK int found_fetch(struct target *t, struct scrub_found *out);
void found_free(struct scrub_found *r);
/* For people: the first ones, or (verbose) all. to: stderr or stdout. */
void found_text(const struct scrub_found *r, uint64_t untold, bool verbose,
		 FILE *to);
/* Members "damage" and "notes" of a JSON object. */
void found_json(const struct scrub_found *r);

/* ---- verbs; argv[0] is the verb's name. They return an exit status ---- */

int verb_snapshot(const char *path, int argc, char **argv);
int verb_scrub(const char *path, int argc, char **argv);
int verb_info(const char *path, int argc, char **argv);
int verb_stats(const char *path, int argc, char **argv);
int verb_set(const char *path, int argc, char **argv);
int verb_get(const char *path, int argc, char **argv);
int verb_sync(const char *path, int argc, char **argv);
int verb_rescue(const char *path, int argc, char **argv);
int verb_unmount(const char *path, int argc, char **argv);
int verb_mirror(const char *path, int argc, char **argv);

/* cowctl_unmount.c: the program by the name that umount(8) calls it by, as main() */
#define UMOUNT_HELPER "umount.fuse.cowfs"
int umount_helper(int argc, char **argv);

/* cowctl_mirror.c: "complete, stale": the sides in words; and as JSON. */
void mirror_text(const struct cowfs_ioc_info *info);
void mirror_json(const struct cowfs_ioc_info *info);
/* What a scrub left to do, if the target is a mirror that had to be filled. */
void mirror_after_scrub(struct target *t);

/* ---- cowctl.c ---- */

/* Print why on stderr and where to read more. Returns STATUS_USAGE. */
int usage_error(const char *object, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* The same after getopt_long(3) returned c, '?' or ':', for an argument. */
int option_error(const char *object, int c, char **argv);

/* Parse a verb's argv that may hold --json and nothing else besides operands.
 * *json NULL: it may not. STATUS_OK, or STATUS_USAGE when told. Operands are
 * argv[optind..]. */
MUST_CHECK int parse_json_only(int argc, char **argv, int max_operands,
			       bool *json);

#endif
