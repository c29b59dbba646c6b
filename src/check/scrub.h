/*
 * scrub.h - what the files of scrub share (private to src/check)
 *
 * A scrub goes in *stretches*. Each takes the newest durable state, with a hold
 * on what it names (alloc_hold), walks all its trees, and verifies the file
 * data that it met, in the order of their addresses, as far as memory goes
 * (scrub_window.c). The next stretch takes the state of its time and begins with the
 * block where that one ended. So does whoever goes on after a pause, a crash,
 * or a hold that broke.
 *
 *   SC1  Blocks of data before `pos` were verified by this scrub, or written
 *        after it had begun; when pos has passed the last one, all that was
 *        there when it began and still is has been verified. It does not
 *        matter what moved between trees meanwhile: a block of data keeps its
 *        address.
 *   SC2  Metadata is verified, all copies, by the first walk of each run;
 *        later walks of the same run read one copy and count nothing.
 *   SC3  A mismatch counts under the rule K3 only (private.h), once for each
 *        block, and is reported only if the block is still in use at the end.
 *   SC4  Memory: WINDOW_BYTES for checksums and places of data (half as much
 *        again while it is tidied), the map of the blocks that nodes have, where
 *        there are extra copies of all
 *        (blockmap.c), DAMAGE_MAX ranges, REPORT_MAX bytes of report.
 *   SC5  It writes nothing but mended copies and its own record, that one at
 *        its end, and under way every NOTE_MS at most; also when it begins, if
 *        it is to fill a side of a mirror (so that it is gone on with).
 *   SC6  Sides that it fills have all that lies before pos: it was copied there
 *        (and flushed, before a pos is noted), or written after that. Where that
 *        may not be so it begins at 0 (D7).
 *
 * All of the stretch belongs to the thread that runs it; what others may see or
 * say is in struct scrub, under its lock, a leaf.
 */
#ifndef COW_SCRUB_H
#define COW_SCRUB_H

#include "check/private.h"

#define WINDOW_BYTES (UINT64_C(64) << 20)
#define DAMAGE_MAX 20000u
#define REPORT_MAX (UINT64_C(16) << 20)
/* Entries of the report that are kept on disk. */
#define SAVED_MAX 1000u
/* How often progress is noted on disk. */
#define NOTE_MS 30000u
/* Text in an entry: a path that is longer loses its beginning. */
#define TEXT_MAX 4096u

/* ---- what is damaged (scrub_damage.c) ---- */

/* A run of damaged data blocks, or a node. */
struct damage {
	uint64_t blk, blk2, blocks;
	uint64_t gen; /* of the state in which it was seen */
	uint64_t owned; /* blocks of it that somebody was found to own */
	bool node;
	uint8_t fate; /* enum cowfs_scrub_fate */
	uint8_t root, level; /* node */
	struct key lo, hi;   /* node */
	bool has_hi;
};

struct damages {
	struct array list; /* struct damage, sorted by blk, disjoint */
	uint64_t untold;   /* found no room */
};

/* Add what was found. false: it was known already. */
bool damage_add(struct damages *d, const struct damage *new);
/* First range that ends behind blk; list.n if there is none. */
size_t damage_at(const struct damages *d, uint64_t blk);

/* ---- the report (scrub_report.c) ---- */

struct report {
	uint8_t *at; /* entries as on disk, one after the other */
	size_t len, room;
	uint64_t n, untold;
};

/* Append; entry's name_len and text_len are set from name and text (NULL: ""). */
void report_add(struct report *r, struct cowfs_disk_scrub_entry e,
		const char *name, const char *text);
void report_damage(struct report *r, const struct damage *d);
void report_append(struct report *r, const struct report *more);
/* Begin r anew: what is damaged, and nothing about owners. */
void report_so_far(struct report *r, const struct damages *d);
/* The entry at `off`, which may come from anybody; its length, or 0 if there is
 * none. */
size_t report_entry(const struct report *r, size_t off,
		    const struct cowfs_disk_scrub_entry **out);
void report_free(struct report *r);
/* Can this entry of len bytes be? */
bool report_sane(const struct cowfs_disk_scrub_entry *e, size_t len);

/* ---- counts ---- */

struct scrub_counts {
	/* metadata, by the last walk that verified it */
	uint64_t nodes, node_blocks, node_checksums, snapshots, notes;
	uint64_t meta_done; /* progress */
	/* data before pos */
	uint64_t data_blocks, data_checksums, prealloc, data_done;
	/* of both, once each */
	uint64_t damaged, bad_copies, repaired, lost;
	uint64_t mended; /* of damaged: all bad copies were rewritten */
};

/* ---- scrub.c, scrub_run.c ---- */

enum scrub_want { WANT_GO, WANT_PAUSE, WANT_CANCEL, WANT_STOP };

struct scrub {
	struct store *s;
	struct mutex lock;
	pthread_cond_t wake;   /* want or rate changed */
	pthread_t thread;      /* - */
	bool joinable;         /* thread is there, perhaps ended */
	bool running; /* lock; whoever sets it may write what is below */
	enum scrub_want want; /* lock */
	uint64_t window_bytes; /* - */
	unsigned note_ms;      /* - */
	int (*progress)(void *arg); /* -  of a foreground run */
	void *progress_arg;         /* - */
	unsigned stale; /* sides of a mirror that were so when the run began */
	uint64_t since[BDEV_SIDES]; /* store_side_since of these, when what lies
				       before pos was begun */
	bool partial;   /* some part of a tree could not be read */

	/* lock; written by the running thread only */
	uint8_t state; /* enum cowfs_scrub_state */
	int error;
	uint64_t pos, total;
	uint64_t ns_before; /* time spent in earlier runs */
	uint64_t run_began; /* now_ns */
	uint64_t run_base;  /* blocks done when the run began */
	uint64_t rate;
	struct timespec64 began, noted;
	struct scrub_counts n;
	struct damages damages;
	struct report notes;  /* NOTE entries of this run */
	struct report report;
	bool reported;        /* it is complete: nobody changes it until the
				 next start */

	/* the running thread's */
	bool walked;          /* metadata was verified in this run (SC2) */
	uint64_t saved_n;     /* entries on disk */
	bool saved_old;       /* they are of the scrub before this one */
	uint64_t saved_at;    /* now_ns when progress was noted last */
	uint64_t saved_pos, saved_damaged;
	struct pace {
		uint64_t due;   /* rate: not before then */
		uint64_t slice; /* bytes since the last look */
		uint64_t since; /* when that was */
		uint64_t mine;  /* reads since then */
		uint64_t sections; /* of all, begun by then */
	} pace;
};

/* Run from pos on to the end, in the calling thread; running is set. The state
 * it comes to is noted in sc. */
void scrub_work(struct scrub *sc);
/* blocks done, of all copies; lock held. */
uint64_t scrub_done_locked(const struct scrub *sc);

/* ---- scrub_pace.c ---- */

void pace_init(struct scrub *sc);
/* n bytes were read. Waits as long as is due; true: stop (want). No lock. */
bool pace_read(struct scrub *sc, uint64_t n);
/* So long, or until somebody wants something else (true). No lock. */
bool pace_wait(struct scrub *sc, unsigned ms);

/* ---- scrub_window.c: data in the order of addresses ---- */

struct window;
/* Data blocks from `from` on, in at most `bytes` of memory. */
MUST_CHECK int window_new(uint64_t from, uint64_t bytes, struct window **out);
void window_free(struct window *w);
/* leaf_fn with check.leaf_arg the window: take the extents of a leaf. */
MUST_CHECK int window_leaf(struct walk *w, const void *node);
/*
 * All leaves have been seen: verify what was taken. done is called now and then:
 * all before `pos` is verified since the last call, with what was counted.
 */
struct window_done {
	uint64_t pos;
	uint64_t blocks, checksums, prealloc, copies;
};
MUST_CHECK int window_verify(struct window *win, struct check *c,
			     void (*done)(void *arg,
					  const struct window_done *d),
			     void *arg);
/* Where the next window begins; UINT64_MAX: there is no more. */
uint64_t window_end(const struct window *w);

/* ---- scrub_look.c: reading single paths of a file tree ---- */

/* Nodes are read into c->node under the rule K3; c->stop as usual. Callbacks must
 * not look for something else: that would take their node away. */
struct look {
	struct check *c;
	bool damaged; /* something could not be read since it was cleared */
	uint64_t at[COWFS_MAX_LEVEL + 1]; /* which nodes the buffers hold */
};

/* fn for each item of the tree at root with lo <= key <= hi; its non-zero
 * return ends it and is returned. */
typedef int look_fn(void *arg, const struct key *k, const struct item *it);
MUST_CHECK int look_range(struct look *l, const struct nptr *root,
			  struct key lo, struct key hi, look_fn *fn,
			  void *arg);
/* The pointer to the node of `level` on the way to k. false: there is none, or
 * a node above it can't be read. */
bool look_node(struct look *l, const struct nptr *root, struct key k,
	       unsigned level, struct nptr *out);
/* Where an inode is: its type, and the directory it says to be in. */
struct look_inode {
	bool found;
	uint32_t mode;
	uint64_t parent;
};
MUST_CHECK int look_inode(struct look *l, const struct nptr *root,
			  uint64_t ino, struct look_inode *out);
/* Path of a directory, without a slash at its end ("" for the root). buf:
 * TEXT_MAX + 1 bytes. false: not known. */
bool look_dir_path(struct look *l, const struct nptr *root, uint64_t dir,
		   char *buf);
/* fn for each name of ino in directory dir. */
typedef int look_name_fn(void *arg, const char *name, size_t len);
MUST_CHECK int look_names(struct look *l, const struct nptr *root,
			  uint64_t dir, uint64_t ino, look_name_fn *fn,
			  void *arg);
/* path = dir/name; what is too long loses its beginning. */
void look_join(char *path, const char *dir, const char *name, size_t len);

/* ---- scrub_owner.c, scrub_hits.c: whose the damaged blocks are ---- */

/* Walk the state of l->c (begun, no leaf set) and append damage and owners to
 * r; damage.owned is set. *complete: every part could be read, so what has no
 * owner is not in use. */
MUST_CHECK int owners_find(struct look *l, struct damages *d,
			   struct report *r, bool *complete);

/* ---- scrub_save.c: the record on disk ---- */

/* What the disk says of the last scrub: sets sc's fields. No thread runs. */
MUST_CHECK int scrub_load(struct scrub *sc);
/* Note it there; entries: the report, too. Errors are logged; nothing depends
 * on it. No lock. */
void scrub_save(struct scrub *sc, bool entries);

#endif
