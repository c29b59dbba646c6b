/*
 * ioctl.h - what cowctl and the daemon say to each other
 *
 * ioctls on any directory of a mount. Numbers are in host order (both ends run
 * on one machine). Strings are NUL-terminated; the receiver checks that. All
 * but those that only tell something (INFO, STATS, lists, status) need the
 * caller to be the user who mounted, or root with CAP_SYS_ADMIN, in the daemon's
 * user namespace; a user who names a file also in its mount namespace (-EPERM).
 * Errors are errno. FUSE carries at most 16,383 bytes each way, so lists come in
 * pages.
 */
#ifndef COWFS_IOCTL_H
#define COWFS_IOCTL_H

#include <linux/ioctl.h>
#include <stdint.h>

#include "cowfs/hist.h"

#define COWFS_IOC_VERSION 1u
#define COWFS_IOC_NAME 64

struct cowfs_ioc_info {
	uint32_t version; /* COWFS_IOC_VERSION */
	uint32_t node_size;
	uint64_t gen;     /* newest durable generation */
	uint64_t blocks, free, avail, reserve, pending; /* 4096 bytes */
	uint64_t snapshots, drops;
	uint64_t nodes[4]; /* of the trees fs, snap, space, refs */
	uint8_t uuid[16];
	char label[COWFS_IOC_NAME];
	uint8_t meta_copies, data_copies, readonly, stopped;
	uint8_t clean; /* unmounted in order, nothing to recover */
	uint8_t sides; /* 2: a mirror */
	uint8_t side_state[2]; /* enum bdev_side */
	uint64_t csum_errors, io_errors, repaired, unrepairable;
	uint64_t cache_hits, cache_misses, cache_bytes, dirty_bytes;
	uint64_t commits, commit_bytes, commit_ns, commit_ns_max;
	uint64_t read_bytes, write_bytes, flushes;
	uint64_t compat, ro_compat, incompat;
	uint64_t pid; /* of the daemon; 0 offline */
	uint64_t resynced; /* blocks rewritten on a stale side */
	uint64_t redundancy; /* the setting */
	uint64_t copied;     /* blocks that have an extra copy */
	uint64_t nodes_copies;
	uint64_t moved; /* what it was mounted from is no side of it any more */
	uint64_t gone;  /* the image was removed, or its disk unplugged: nothing
			   that is written will be found */
	uint64_t spare[10];
};

struct cowfs_ioc_snap {
	uint64_t id, gen, root_block;
	int64_t time_sec;
	uint32_t time_nsec;
	uint32_t zero;
	char name[COWFS_IOC_NAME];
};

#define COWFS_IOC_SNAPS 128
struct cowfs_ioc_snap_list {
	uint64_t from; /* in: first id wanted; out: where to go on, 0 = end */
	uint32_t count; /* out */
	uint32_t zero;
	struct cowfs_ioc_snap snap[COWFS_IOC_SNAPS];
};

struct cowfs_ioc_restore {
	char name[COWFS_IOC_NAME];
	char save[COWFS_IOC_NAME]; /* "": the old state is not kept */
};

/* What a scrub (or a check) is doing, or has found. */
struct cowfs_ioc_scrub {
	uint8_t running, finished, cancelled;
	uint8_t state; /* enum cowfs_scrub_state; RUNNING and not running: it
			  was interrupted, and can be resumed */
	int32_t error; /* negative errno, 0 */
	uint64_t done, total, ns; /* blocks, all copies; time spent */
	uint64_t blocks, checksums, nodes, data_blocks, prealloc_blocks;
	uint64_t problems, bad_copies, repaired, lost;
	uint64_t snapshots, inodes, dirs;
	uint64_t entries; /* of the report, as far as it is known yet */
	uint64_t untold;  /* entries that found no room in it */
	uint64_t damaged; /* stays damaged: problems less what was repaired */
	int64_t began, ended; /* seconds since 1970; ended: or last noted */
	uint64_t rate;        /* limit in bytes per second; 0: none */
	uint64_t run_done, run_ns; /* since it was started or resumed */
	uint64_t spare[8];
};

/* GET_SETTING, in: its name, or "" and which one (0, 1, ...); out: all. -ENOENT:
 * there is none. SET_SETTING: name and value. */
struct cowfs_ioc_setting {
	char name[COWFS_IOC_NAME];
	uint64_t value;
	uint32_t index;
	uint32_t zero;
	uint64_t spare[4];
};

enum cowfs_scrub_verb {
	COWFS_SCRUB_START = 1, /* -EBUSY: one is running */
	COWFS_SCRUB_RESUME,    /* -EBUSY; -ENOENT: nothing to go on with */
	COWFS_SCRUB_PAUSE,     /* -ESRCH: none is running */
	COWFS_SCRUB_CANCEL,    /* -ESRCH: neither running nor to be resumed */
	COWFS_SCRUB_RATE,      /* a new rate; -ESRCH */
};

#define COWFS_SCRUB_SAME_RATE UINT64_MAX /* RESUME: as it was */
struct cowfs_ioc_scrub_do {
	uint32_t verb; /* enum cowfs_scrub_verb */
	uint32_t zero;
	uint64_t rate; /* START, RESUME, RATE: bytes per second; 0: no limit,
			  but it gives way to others */
	uint64_t spare[2];
};

enum cowfs_mirror_verb {
	/* The file or device at path becomes the other side, and a scrub begins
	 * that fills it. Whatever is on it is lost; it must be large enough.
	 * -EBUSY: it is in use; -EEXIST: there are two sides; -EALREADY: a scrub
	 * is running; -ELOOP: it lies on the filesystem itself; -ENOSPC: it is
	 * too small, or storage is full; -ESTALE: it is not the one that was
	 * looked at; -EROFS. */
	COWFS_MIRROR_ADD = 1,
	/* The side at path is no side any more, and no filesystem. "": the one
	 * that is missing or stale. -EINVAL: not a mirror; -ENOENT: path is no
	 * side of it, or both are complete; -EBUSY: the other one is not;
	 * -EINPROGRESS: it is none any more, but its superblocks are not
	 * emptied, as storage is full. */
	COWFS_MIRROR_REMOVE,
};

#define COWFS_IOC_PATH 4096
struct cowfs_ioc_mirror {
	uint32_t verb; /* enum cowfs_mirror_verb */
	uint32_t zero;
	/* ADD: what is to lie at path (struct bdev_id), which others may have put
	 * something else at since; zeros: whatever it is. */
	uint64_t dev, ino;
	uint64_t spare[1];
	char path[COWFS_IOC_PATH]; /* absolute */
};

/* A page of the report: whole entries as format.h has them (little-endian), one
 * after the other, each with its name and text. For root and the owner only:
 * it has the names of files. */
#define COWFS_IOC_REPORT_BYTES 16000
struct cowfs_ioc_report {
	uint64_t from; /* in: 0, or where the last page says to go on; out: the
			  latter, 0 = end */
	uint32_t bytes; /* out */
	uint32_t zero;
	uint8_t entries[COWFS_IOC_REPORT_BYTES];
};

/* Counters since the mount, and gauges. */
struct cowfs_ioc_stats {
	uint32_t version; /* COWFS_IOC_VERSION */
	uint32_t zero;
	uint64_t now_ns, since_ns; /* the daemon's clock; when it began */
	uint64_t csum_errors, io_errors, repaired, unrepairable;
	uint64_t reads, read_bytes, writes, write_bytes, flushes;
	uint64_t cache_hits, cache_misses, cache_evicted;
	uint64_t cache_nodes, cache_bytes, cache_limit, dirty_bytes;
	uint64_t cow_copies, splits, merges;
	uint64_t commits, commit_bytes, commit_ns, commit_ns_max;
	uint64_t closed_ns, closed_ns_max; /* with operations kept out */
	uint64_t fsyncs, fsync_appends, fsync_bytes, fsync_commits, fsync_idle;
	uint64_t blocks, free, avail, reserve, pending; /* 4096 bytes */
	uint64_t ready, in_slots, in_chunks; /* blocks; alloc.h */
	uint64_t drops;              /* trees of snapshots to be let go of */
	uint64_t dropping, reaping;  /* is it being done? removing files? */
	uint64_t scrubbing, scrub_done, scrub_total;
	uint64_t spare[32];
};

enum cowfs_hist_kind {
	COWFS_HIST_REQUEST = 1, /* by FUSE opcode */
	COWFS_HIST_STORE,
};
enum cowfs_hist_unit { COWFS_HIST_NS = 1, COWFS_HIST_COUNT };

struct cowfs_ioc_hist {
	char name[32];
	uint8_t kind, unit; /* enum cowfs_hist_* */
	uint8_t zero[6];
	struct cowfs_hist h;
};

/* Those with something in them, in a fixed order. */
#define COWFS_IOC_HISTS 4
struct cowfs_ioc_hist_list {
	uint64_t from;  /* in: 0, then what came out; out: 0 at the end */
	uint32_t count; /* out */
	uint32_t zero;
	struct cowfs_ioc_hist hist[COWFS_IOC_HISTS];
};

#define COWFS_IOC_INFO _IOR('c', 0x60, struct cowfs_ioc_info)
#define COWFS_IOC_SYNC _IO('c', 0x61)
/* name in; the rest out */
#define COWFS_IOC_SNAP_CREATE _IOWR('c', 0x62, struct cowfs_ioc_snap)
#define COWFS_IOC_SNAP_DELETE _IOW('c', 0x63, struct cowfs_ioc_snap)
#define COWFS_IOC_SNAP_RESTORE _IOW('c', 0x64, struct cowfs_ioc_restore)
#define COWFS_IOC_SNAP_LIST _IOWR('c', 0x65, struct cowfs_ioc_snap_list)
#define COWFS_IOC_SCRUB_DO _IOW('c', 0x66, struct cowfs_ioc_scrub_do)
#define COWFS_IOC_SCRUB_STATUS _IOR('c', 0x67, struct cowfs_ioc_scrub)
#define COWFS_IOC_SCRUB_REPORT _IOWR('c', 0x69, struct cowfs_ioc_report)
#define COWFS_IOC_GET_SETTING _IOWR('c', 0x70, struct cowfs_ioc_setting)
#define COWFS_IOC_SET_SETTING _IOW('c', 0x71, struct cowfs_ioc_setting)
#define COWFS_IOC_STATS _IOR('c', 0x6a, struct cowfs_ioc_stats)
/* After a remount: it is read-only, or noatime: 1; neither of them: 0. */
#define COWFS_IOC_NOATIME _IOW('c', 0x6d, uint32_t)
#define COWFS_IOC_MIRROR _IOW('c', 0x6c, struct cowfs_ioc_mirror)
#define COWFS_IOC_HIST_LIST _IOWR('c', 0x6b, struct cowfs_ioc_hist_list)

#endif
