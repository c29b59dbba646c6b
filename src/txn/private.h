/* private.h - what the files of src/txn share */
#ifndef COW_TXN_PRIVATE_H
#define COW_TXN_PRIVATE_H

#include <stdatomic.h>

#include "txn/log.h"
#include "util/hist.h"
#include "txn/txn.h"

/* Up to this many bytes written, a commit is one flush, and the next mount
 * after a crash reads them again (COWFS_STATE_UNVERIFIED). */
#define ONE_FLUSH_MAX (UINT64_C(8) << 20)

/* How soon after opening the first commit comes (store.c). */
#define SETTLE_MS 500u

/* Storage that is full (C6): how often a commit is tried again, and how often
 * before that for who makes a snapshot. */
#define ROOM_RETRY_MS 1000u
#define ROOM_WAIT_MS 100u
#define ROOM_WAITS 20u

/* A generation that is closed, and not yet on the device. */
struct closed {
	struct node_batch *batch;
	struct cowfs_disk_super super;
	bool two_flushes;
	uint64_t began, closed_ns; /* for the statistics */
};

struct work {
	store_work_fn *fn;
	void *arg;
	bool wanted; /* W */
	uint64_t later; /* W  now_ns() when it will be; 0: never */
};

struct store_private {
	struct rwlock tree_lock;       /* T */
	struct mutex commit_lock;     /* C */
	struct mutex wait_lock;       /* W */

	/* Whoever closes a generation holds T and may have to read a node; so
	 * that evicting does not take T again. Which thread that is: others, who
	 * read meanwhile, have to wait for T. Written under T only. */
	const void *_Atomic loader;

	uint64_t running_gen;         /* W */
	uint64_t durable_gen;         /* W */
	struct cowfs_disk_super durable; /* W  newest durable superblock */
	struct commit_stats stats;    /* W */
	struct hist hist[STORE_HISTS];
	_Atomic uint64_t group;       /* C to change: served by the last sync */
	_Atomic uint64_t sync_writes; /* C to change: appends and commits */
	_Atomic uint64_t syncs, sync_commits, sync_idle;
	struct log *log;              /* -  NULL if read-only */
	uint64_t synced;              /* C  ops that are durable */
	_Atomic uint64_t ops;         /* T  operations that changed something */
	uint64_t written_before;      /* C  io.stats.write_bytes at last commit */
	uint64_t mend_from;           /* C  super_mend's `passed`; 0: done */
	bool final_commit;            /* C  mark the superblock clean */
	struct closed kept;           /* C  if unwritten: waits for room */
	_Atomic bool unwritten;       /* C to change: there is one (C6) */
	uint64_t stale_gen[BDEV_SIDES];  /* C  as the next superblock says; */
	uint64_t synced_gen[BDEV_SIDES]; /* C  see sides.c */
	struct le64 alone[COWFS_ALONE_MAX]; /* C  likewise */
	unsigned alone_sides;         /* C  mask: not good, and in it */
	unsigned synced_sides;        /* C  mask: complete as of the next one */
	uint64_t both_gen;            /* C  see format.h */
	_Atomic uint64_t since_gen[BDEV_SIDES]; /* C to change: as the newest
						   superblock says */
	_Atomic unsigned noted_sides; /* mask: said to be bad by the newest */

	_Atomic unsigned sides_added; /* T to change; store_sides_added */
	_Atomic bool lost;            /* store_look has said so (store_gone) */
	_Atomic bool mirror;          /* C to change: s->super says so */

	_Atomic bool stopped;
	_Atomic bool changed_hint;    /* s->changed, to be read without T */
	_Atomic size_t dirty_hint;    /* forest_dirty, likewise */
	bool readonly;                /* - */
	uint64_t passed_gen;          /* -  store_passed */
	bool passed_unread;           /* -  store_passed_unread */
	bool quiet;                   /* -  STORE_QUIET */
	struct log_found log_found;   /* -  */
	bool verified;                /* -  recover_verify found all of s->super */
	bool repair;                  /* -  STORE_REPAIR */
	size_t dirty_max;             /* -  bytes of nodes that ask for a commit */
	unsigned commit_ms;           /* - */

	/* background threads; W */
	pthread_cond_t timer_cond, work_cond, idle_cond;
	pthread_t timer_thread, work_thread;
	uint64_t deadline;            /* W  now_ns() of a wanted commit, 0: none */
	bool threads, quit, working;  /* W */
	unsigned running; /* W: kind of the step, while working */
	struct work work[WORK_KINDS];
	struct {
		void *mem;
		void (*fini)(void *mem);
	} owned[WORK_KINDS];          /* store_own */

	bool unsummed;                /* T  the running generation names blocks
					 for which it has no checksums */
	_Atomic uint64_t copies_hint; /* s->copied, to be read without T */
	_Atomic unsigned give_back;   /* see store_give_back */
};

/* op.c: the tree lock by name */
void tree_lock_shared(struct store *s);
void tree_lock(struct store *s);
void tree_unlock(struct store *s);
/* T exclusive: from here on (until false) this thread may read nodes, and evict
 * others, though it holds the lock. */
void load_under_lock(struct store *s, bool may);
/* Is this thread the one that may? */
bool loads_under_lock(const struct store *s);

/* maps.c: reference and space map as trees, for the allocator */
void maps_init(struct store *s);
/* Feed the allocator with the space tree at mount. */
MUST_CHECK int maps_load(struct store *s);

/* copies.c */
void copies_init(struct store *s);
/* T is held exclusively. */
void copies_fill_super(struct store *s);
/* After a commit: if space is getting short those who can give some back are
 * woken. */
void copies_watch(struct store *s);
/* block.h: a finder */
uint64_t copies_finder(void *arg, uint64_t blk);
/* As alloc_store has them. */
int copies_prepare_drop(void *arg, uint64_t blk, uint64_t *run);
int copies_drop(void *arg, uint64_t blk, uint64_t len);
/* maps.c: changes to items of a map that begin at `at` need no I/O, whatever
 * their length (alloc_store.ref_prepare). */
MUST_CHECK int map_prepare(struct tree *t, uint8_t type, uint64_t at);
/* and for a chunk's record */
MUST_CHECK int map_prepare_space(struct store *s, uint64_t blk, uint64_t len);

/* choose.c: s->super becomes one of those found, *index says which; what it goes
 * back over is told, and left in store_passed. Errors are reported. */
MUST_CHECK int super_choose(struct store *s, const struct store_config *cfg,
			    const struct super_scan *scan, unsigned *index);

/* recover.c: 0 if all that superblock d's own generation wrote is there. Errors
 * of reading mean that it is not; mend: rewrite a bad second copy. */
MUST_CHECK int recover_verify(struct store *s, const struct cowfs_disk_super *d,
			      bool mend);

/* commit.c: T is held exclusively */
void fill_super(struct store *s);
MUST_CHECK int flush_maps(struct store *s);

/* commit.c: C is held */
MUST_CHECK int commit_locked(struct store *s, commit_fn *fn, void *arg,
			     bool force);
/* Write what is kept (C6), if anything is. */
MUST_CHECK int commit_kept(struct store *s);
/* The store ends: forget it. */
void commit_forget(struct store *s);

/* A commit_fn that writes a superblock whatever else there is to write. */
int commit_nothing(struct store *s, void *arg);

static inline bool super_is_mirror(const struct cowfs_disk_super *d)
{
	return from_le64(d->incompat) & COWFS_INCOMPAT_MIRROR;
}

/* sides.c */

/* Given the scans of both sides, find those that are stale; none becomes GOOD
 * by it. -EINVAL, -ENODEV, -ENOTUNIQ; reported. */
MUST_CHECK int sides_judge(struct bdev *dev, const struct super_scan *scan);
/* The generation in which side `by`, which has a superblock, found that `of` is
 * stale, if that still holds; else 0. */
uint64_t sides_said_stale(const struct super_scan *one, unsigned by,
			  unsigned of);
/* Once s->super is chosen: a side that lacks what it should have by the log
 * becomes STALE, one that is behind is given what the newest commit wrote. -ENOMEM.
 */
MUST_CHECK int sides_match(struct store *s, const struct super_scan *scan);
/* Do two sides have the same superblock? */
bool sides_same(const struct super *a, const struct super *b);
/* Log what is wrong with the sides. */
void sides_tell(struct store *s);
/* C: d, about to be sealed and written, says how the sides are. */
void sides_note(struct store *s, struct cowfs_disk_super *d);
/* Is a side bad of which the newest superblock does not say so? Then nothing
 * may be acknowledged. */
bool sides_unnoted(struct store *s);

/* work.c */
void work_init(struct store *s);
void work_stop(struct store *s);
void work_fini(struct store *s);
/* May the caller wait for the work, or is it part of it? */
bool work_may_wait(struct store *s);

#endif
