/*
 * snapshot.h - layer 5: named roots of the file tree
 *
 *   S1  Creating, restoring and deleting are one commit each, O(1) in the size
 *       of the filesystem; when they return they are durable.
 *   S2  A restore replaces the live root only; all snapshots stay, and inode
 *       numbers go on counting where they were.
 *   S3  What a deleted snapshot alone referred to is freed in the background,
 *       in small transactions; records in the snapshot tree (DROP) say what is
 *       left, so a crash loses nothing and repeats nothing.
 *   S4  See redun_start.
 *
 * Names: 1 to 63 bytes, any but NUL and '/', not "." or "..", valid for users
 * only if they do not begin with '@' (reserved).
 */
#ifndef COW_SNAPSHOT_H
#define COW_SNAPSHOT_H

#include "txn/txn.h"

struct snap_info {
	uint64_t id;
	uint64_t gen;
	struct timespec64 time;
	struct nptr root;
	uint64_t nodes;
	char name[COWFS_SNAP_NAME_MAX + 1];
};

/* 0, -EINVAL or -ENAMETOOLONG. reserved: '@' names are fine. */
MUST_CHECK int snap_check_name(const char *name, bool reserved);

/* -EEXIST, -EINVAL, -ENAMETOOLONG, and errors of commit. *out may be NULL. */
MUST_CHECK int snap_create(struct store *s, const char *name,
			   struct snap_info *out);

/* Begins to delete; space follows in the background. -ENOENT. */
MUST_CHECK int snap_delete(struct store *s, const char *name);

/*
 * Make the file tree of `name` the live one. save: name for the state that is
 * replaced: COWFS_SNAP_UNDO (its old holder is dropped), a user's name
 * (-EEXIST if taken), or NULL to drop it. swapped is called inside the commit,
 * tree lock held exclusively, right after the live root changed (the fs layer
 * forgets what it knew about inodes); may be NULL. -ENOENT. An error of
 * reading: the tree of `name` could not be mounted; nothing has changed.
 * Restoring COWFS_SNAP_UNDO with save == COWFS_SNAP_UNDO swaps the two.
 */
MUST_CHECK int snap_restore(struct store *s, const char *name,
			    const char *save, void (*swapped)(void *arg),
			    void *arg);

/* By name or id. -ENOENT. */
MUST_CHECK int snap_find(struct store *s, const char *name,
			 struct snap_info *out);
MUST_CHECK int snap_get(struct store *s, uint64_t id, struct snap_info *out);
/* First snapshot with an id >= id. -ENOENT at the end. */
MUST_CHECK int snap_next(struct store *s, uint64_t id, struct snap_info *out);
MUST_CHECK int snap_count(struct store *s, uint64_t *count);

/* A read-only tree of a snapshot; check under the tree lock, with
 * snap_alive_locked, that it is still there. */
void snap_tree(struct store *s, const struct snap_info *info,
	       struct tree *out);
/* R: 0, -ESTALE if it was deleted, -EAGAIN. */
MUST_CHECK int snap_alive_locked(struct store *s, uint64_t id);

/* Text and parsing of records for tools: verified copy out of an item.
 * -ECOW_CORRUPT (reported). */
MUST_CHECK int snap_from_item(const struct key *k, const struct item *it,
			      struct snap_info *out);
MUST_CHECK int snap_drop_from_item(const struct key *k, const struct item *it,
				   struct nptr *ptr, uint32_t *next,
				   bool *started);

/* Register the background drop with the store (WORK_DROP); wakes it if there
 * is something left from before. After store_open, before store_start. */
MUST_CHECK int snap_start(struct store *s);

/* ---- redun.c: extra copies for data that many refer to ---- */

/*
 *   S4  Data that `count` roots reach, or more, has an extra copy, once the
 *       background has come to it, and as long as there is space (src/README.md
 *       has the numbers). Without the setting there are none.
 */
struct redun_status {
	uint32_t count;  /* the setting; 0: off */
	uint64_t copied; /* blocks that have an extra copy */
};

/* Register the background work (WORK_COPIES) and wake it. After store_open,
 * before store_start. Without this, copies are only freed with their blocks. */
MUST_CHECK int redun_start(struct store *s);
/* Durable when it returns; setting it (to the same, too) has everything looked
 * at anew. -EINVAL: 1 (mkfs writes everything twice if that is wanted). */
MUST_CHECK int redun_set(struct store *s, uint32_t count);
MUST_CHECK int redun_get(struct store *s, struct redun_status *out);
/* W: what passes have seen holds no more (restore, repair), the next one begins
 * anew. prepare (-EAGAIN) comes first; nothing changes if there is no
 * setting. */
MUST_CHECK int redun_prepare_forget(struct store *s);
MUST_CHECK int redun_forget(struct store *s);

/* How many DROP records are left. */
MUST_CHECK int snap_drops(struct store *s, uint64_t *count);

#endif
