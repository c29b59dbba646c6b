/*
 * private.h - what the files of src/fs share
 *
 * Inodes in memory hold no attributes: these are read from the tree and
 * changed in it. struct inode exists for an inode number while the kernel
 * refers to it, it is open, or an operation uses it: it has the lock that
 * orders changes of contents, and counts users, so that orphans live as long as
 * they must.
 *
 * How an operation that changes things is written:
 *
 *	err = op_write(&op, s, ALLOC_NORMAL, leaves);
 *	if (err)
 *		return err;
 *	do
 *		err = unlink_locked(fs, ...);
 *	while (op_again(&op, &err));
 *	return op_end(&op, err);
 *
 * and unlink_locked first looks up, checks and calls tree_prepare for every key
 * it is going to touch (all of which may return -EAGAIN), then changes. After
 * the first change nothing may fail but for lack of memory (txn.h X4).
 */
#ifndef COW_FS_PRIVATE_H
#define COW_FS_PRIVATE_H

#include "fs/fs.h"
#include "util/list.h"

#define FS_HASH 1024 /* buckets to begin with */

/*
 * Locks of this layer, outermost first (those below: txn.h):
 *
 *   V  fs->views_lock   opening views against deleting and restoring
 *   I  inode->lock      two of them by inode number, lower first
 *   (C, T: the store's)
 *   -  fs->table_lock   a leaf
 */
struct inode {
	struct inode *next; /* fs->table_lock: hash chain */
	struct list all;    /* fs->table_lock: of fs->inodes */
	struct list written; /* fs->table_lock: of fs->written, if writers */
	uint64_t ino;       /* - */
	uint64_t refs;      /* fs->table_lock: kernel references */
	unsigned opens;     /* fs->table_lock: handles */
	unsigned writers;   /* fs->table_lock: handles that may write */
	unsigned users;     /* fs->table_lock: operations now */
	int lost;           /* fs->table_lock: see fs_take_lost */
	bool orphan;        /* fs->table_lock: nlink is 0; reap with the last
			       user */
	bool fresh;         /* fs->table_lock: just made without a name; kept
			       until its maker has referred to it */
	bool opened;        /* fs->table_lock: a handle was closed since */
	struct mutex lock;  /* I: contents: write, truncate, fallocate, copy */
	uint64_t alloc_hint; /* I: where the next data block is best */
};

/* What is known of one who reads a file (ahead.c). No lock: hints. */
#define FS_READERS 256u
struct reader {
	_Atomic uint64_t key;    /* of file and view; 0: nobody */
	_Atomic uint64_t next;   /* where the next piece is expected */
	_Atomic uint64_t end;    /* so far it was asked for */
	_Atomic uint64_t misses; /* less hits, of short pieces */
};

struct view {
	struct view *next;  /* fs->table_lock */
	unsigned count;     /* fs->table_lock */
	struct tree tree;   /* T; the live view uses &store->fs instead */
	uint64_t snap_id;   /* 0: live */
	bool dead;          /* T: the snapshot was deleted */
};

struct fs {
	struct store *s;
	struct fs_options opt;
	_Atomic bool noatime;    /* as opt has it at first */
	uint8_t hash_seed[16];   /* -  super.hash_seed */
	struct view live;
	struct mutex views_lock; /* V */
	struct view *views;      /* table_lock: of snapshots */
	uint64_t undo_id;        /* V  snapshot that a restore replaces */
	uint64_t restores;       /* T  how often the live tree changed */
	struct mutex table_lock; /* leaf lock */
	struct inode **table;    /* table_lock: hash chains */
	size_t buckets;          /* table_lock: a power of two */
	size_t count;            /* table_lock: inodes in memory */
	struct list inodes;      /* table_lock: all of them */
	struct list written;     /* table_lock: open for writing */
	struct list reap;        /* table_lock: orphans to remove */
	bool rescan;             /* table_lock: the tree may know of more */
	bool reaping;            /* table_lock: orphan_work runs */
	bool closing;            /* table_lock: it must not begin again */
	pthread_cond_t reaped;   /* table_lock: reaping became false */
	struct reader reader[FS_READERS]; /* see there */
};

/*
 * Begin an operation that changes things: op_write, or -EROFS if this mount is
 * read-only though its store is not.
 */
MUST_CHECK int fs_op_write(struct fs *fs, struct op *op, enum alloc_class cls,
			   unsigned leaves);

/* ---- inode.c ---- */

/* Find or make the struct inode of a number; counts a user. NULL: no memory.
 * Says nothing about the inode's existence in the tree. */
struct inode *inode_get(struct fs *fs, uint64_t ino);
void inode_put(struct fs *fs, struct inode *in); /* NULL is fine */
/* What the kernel had kept could not be stored (fs_take_lost). */
void inode_note_lost(struct fs *fs, struct inode *in, int err);
/* Tree lock held: this inode's nlink became 0 (or was not 0 after all). */
void inode_set_orphan(struct fs *fs, uint64_t ino, bool orphan);
/* Does anyone outside hold it (kernel reference or handle)? opens_only: handles
 * alone. */
bool inode_in_use(struct fs *fs, uint64_t ino, bool opens_only);

/* T: the tree of a view; NULL if its snapshot was deleted (-ESTALE). */
struct tree *view_tree(struct fs *fs, struct view *v);

/* Verified inode item. T. -ESTALE if there is none, -EAGAIN, -ECOW_CORRUPT. */
MUST_CHECK int inode_read(struct tree *t, uint64_t ino,
			  struct cowfs_disk_inode *out);
/* T exclusive, after tree_prepare of its key: store the item, with `change` set
 * to the running generation. */
MUST_CHECK int inode_write(struct fs *fs, uint64_t ino,
			   struct cowfs_disk_inode *d);
/* The key of an inode item. */
#define INODE_KEY(ino) KEY(ino, COWFS_KEY_INODE, 0)
void inode_to_attr(const struct cowfs_disk_inode *d, uint64_t ino,
		   struct attr *out);
/* ctime (and mtime) of now. */
void inode_touch(struct cowfs_disk_inode *d, bool mtime);
/* Clear set-id bits as a write does; true if something changed. A member of
 * the group leaves a set-group-id bit that means nothing, as the group may not
 * execute the file. */
bool inode_kill_suid(struct cowfs_disk_inode *d, bool member);
/*
 * Somebody read contents of an inode of the live view, d is what it looked like
 * then: set atime if the mount's rule says so; true if it was set. No lock.
 * Failing is fine.
 */
bool inode_note_access(struct fs *fs, uint64_t ino,
		       const struct cowfs_disk_inode *d);
/* T: tell an orphan that is about to be removed from one still in use; the
 * latter is marked, so that its last user hands it over again. */
bool inode_orphan_idle(struct fs *fs, uint64_t ino);
/* T exclusive: made without a name; lives until its maker's reference goes. */
MUST_CHECK int inode_make_fresh(struct fs *fs, uint64_t ino);
/* T exclusive: nothing known of names, references and orphans holds any more. */
void inode_tree_replaced(struct fs *fs);

/* Is the caller in a group? Asking may take long, so it is not done under the
 * tree lock: an operation that must know gives up with -ERESTART, and is
 * repeated if member_retry says so. */
struct member {
	const struct cred *cred; /* NULL: everything is allowed */
	uint32_t gid;
	bool known, in;
};
/* T: -ERESTART */
MUST_CHECK int member_ask(struct member *m, uint32_t gid, bool *in);
/* No lock. */
bool member_retry(struct member *m, int err);

/* ---- dir.c: names in directories; all under T ---- */

struct name {
	const char *s;
	size_t len;
	uint64_t hash; /* of its key, shifted already */
};

/* -EINVAL (empty, ".", "..", '/', NUL), -ENAMETOOLONG. No lock. */
MUST_CHECK int name_init(struct fs *fs, struct name *n, const char *s,
			 size_t len);
/* Hash of a name as keys of entries and xattrs have it: shifted left by 8. */
uint64_t name_hash(struct fs *fs, const char *s, size_t len);

/* An entry as the tree has it. name points into the node. */
struct entry {
	struct key key;
	uint64_t ino;
	uint8_t type; /* DT_* */
	const char *name;
	size_t len;
};

/* Verify and unpack. -ECOW_CORRUPT. */
MUST_CHECK int entry_from_item(const struct key *k, const struct item *it,
			       struct entry *out);
/* Find a name. -ENOENT: out->key is where it would go (off 0: no room among
 * names of the same hash). */
MUST_CHECK int dir_find(struct tree *t, uint64_t dir, const struct name *n,
			struct entry *out);
/* -ENOTEMPTY, -EAGAIN. */
MUST_CHECK int dir_empty(struct tree *t, uint64_t dir);
/* inode_read, and -ENOTDIR. */
MUST_CHECK int dir_read(struct tree *t, uint64_t dir,
			struct cowfs_disk_inode *out);
/* T exclusive, key prepared: add a name. */
MUST_CHECK int dir_add(struct fs *fs, const struct key *k,
		       const struct name *n, uint64_t ino, uint32_t mode);
/* T exclusive, key prepared: let an existing name mean another inode. */
MUST_CHECK int dir_set(struct fs *fs, const struct key *k, uint64_t ino,
		       uint32_t mode);
/* Change the count of entries, mark times. */
void dir_count(struct cowfs_disk_inode *dir, int entries, int subdirs);

/* ---- extent.c: the map of a file; all under T ---- */

/* One stretch of a file as the tree has it. */
struct extent {
	uint64_t lblk; /* first block in the file */
	uint64_t blk, blk2; /* 0: hole */
	uint64_t gen;
	uint32_t len;  /* blocks */
	uint8_t kind, flags;
	const struct le32 *csum; /* in the node; good as long as an item is */
};

/* Verify and unpack an item. -ECOW_CORRUPT. */
MUST_CHECK int extent_from_item(struct fs *fs, const struct key *k,
				const struct item *it, struct extent *out);
/* What is at block lblk of the file: an extent cut to begin there, or a hole up
 * to the next extent (or COWFS_FILE_BLOCKS_MAX). len of a hole is capped at
 * UINT32_MAX. -EAGAIN, -ECOW_CORRUPT. */
MUST_CHECK int extent_at(struct fs *fs, struct tree *t, uint64_t ino,
			 uint64_t lblk, struct extent *out);
/*
 * T exclusive: let go of blocks [lblk, lblk+len) of the file. extent_prepare_cut
 * changes nothing, and all -EAGAIN comes from it: a caller can prepare more before
 * extent_do_cut. That cuts, shortens and removes extent items, frees or
 * dereferences blocks, and takes what was mapped off d->blocks. At most `max` items
 * are touched: `done` is how many blocks of the range (from its END backwards when
 * from_end, for truncate) are finished.
 */
#define EXTENT_CUT_MAX 256u
struct extent_cut {
	uint64_t ino, lblk, len;
	unsigned max; /* 0, or too many: EXTENT_CUT_MAX */
	bool from_end;
	uint64_t done; /* out: already by extent_prepare_cut */
	/* extent_prepare_cut to extent_do_cut: the items to be touched */
	unsigned items;
	uint64_t item[EXTENT_CUT_MAX];
};
MUST_CHECK int extent_prepare_cut(struct fs *fs, struct extent_cut *cut);
MUST_CHECK int extent_do_cut(struct fs *fs, struct extent_cut *cut,
			     struct cowfs_disk_inode *d);
/* T: nobody else can refer to its blocks: they are free once it lets go. */
bool extent_is_ours(struct fs *fs, const struct extent *e);
/* T exclusive, after extent_prepare_cut of the same range and its cut: map
 * blocks that the caller has written (owns them in the allocator). csum in host
 * order; NULL for PREALLOC. Joins with the extent before it if it continues it
 * on the device and has the same age class. Adds to d->blocks. */
MUST_CHECK int extent_map(struct fs *fs, uint64_t ino, uint64_t lblk,
			  struct copies at, uint32_t len, uint8_t kind,
			  uint8_t flags, const uint32_t *csum,
			  struct cowfs_disk_inode *d);
/* The same for blocks of a given generation: a share of an extent that was
 * written before. (extent_map: the running generation.) */
MUST_CHECK int extent_map_gen(struct fs *fs, uint64_t ino,
			      const struct extent *e, const uint32_t *csum,
			      struct cowfs_disk_inode *d);
/* T: extent_map at lblk cannot return -EAGAIN any more. */
MUST_CHECK int extent_prepare_map(struct fs *fs, uint64_t ino, uint64_t lblk);

/* Extents of a file in order; dies with the lock or a change. first: the first
 * one that ends beyond lblk. -ENOENT: there are no more; -EAGAIN. */
struct extent_iter {
	struct fs *fs;
	struct cursor c;
	uint64_t ino;
	uint64_t end; /* of the extents so far: none may begin before it */
};
MUST_CHECK int extent_first(struct extent_iter *it, struct fs *fs,
			    struct tree *t, uint64_t ino, uint64_t lblk,
			    struct extent *out);
MUST_CHECK int extent_next(struct extent_iter *it, struct extent *out);
/* Cut off what lies before lblk or from end on; something must be left. */
void extent_crop(struct extent *e, uint64_t lblk, uint64_t end);

/* ---- orphan.c ---- */

#define ORPHAN_KEY(ino) KEY(0, COWFS_KEY_ORPHAN, ino)

/* T exclusive, prepared (ORPHAN key): nlink just became 0. */
MUST_CHECK int orphan_add(struct fs *fs, uint64_t ino);
/* table_lock: hand an inode to the background (then store_wake). */
void orphan_queue(struct fs *fs, uint64_t ino);
/* table_lock: forget what was handed over. */
void orphan_unqueue(struct fs *fs);
/* Background (WORK_ORPHAN): remove what nobody uses, in steps. */
int orphan_work(void *arg);
/* No step runs after this. No lock. */
void orphan_stop(struct fs *fs);
/* Read the ORPHAN items of the live tree into fs->reap (mount, restore). */
MUST_CHECK int orphan_scan(struct fs *fs);
/* That failed: the background tries again. No lock. */
void orphan_scan_later(struct fs *fs);
/* Remove an inode with nlink 0 that nobody uses: contents in steps, then
 * xattrs, item and ORPHAN item. No lock. */
MUST_CHECK int orphan_reap(struct fs *fs, uint64_t ino);

#define DESTROY_ITEMS 48   /* removed in one transaction, at most, and */
#define DESTROY_EXTENTS 16

/* What an inode consists of, as far as one transaction removes it. */
struct destroy {
	uint64_t ino;
	bool whole;   /* that is all of it */
	unsigned n;
	unsigned extents;
	struct key keys[DESTROY_ITEMS]; /* the inode item and all but extents */
	struct extent_cut cut;
};
/* T exclusive: look and prepare. -EAGAIN. */
MUST_CHECK int destroy_plan(struct fs *fs, uint64_t ino, struct destroy *p);
/* T exclusive, whole or not: remove what the plan names; the inode item only if
 * it is whole, else d has its new block count (not yet stored). */
MUST_CHECK int destroy_apply(struct fs *fs, struct destroy *p,
			     struct cowfs_disk_inode *d);

/* ---- link.c: an inode loses a name ---- */

struct victim {
	uint64_t ino;
	struct cowfs_disk_inode d;
	enum { VICTIM_KEEPS, VICTIM_ORPHAN, VICTIM_GOES } fate;
	struct destroy plan;
};
/* T exclusive: read the inode an entry names, check that it may lose the name
 * (-EPERM) and fits the entry. */
MUST_CHECK int victim_read(struct fs *fs, const struct entry *e,
			   struct victim *v);
/* T exclusive: decide and prepare. -EAGAIN. */
MUST_CHECK int victim_plan(struct fs *fs, struct victim *v);
/* T exclusive: take one link away, or remove the inode. */
MUST_CHECK int victim_apply(struct fs *fs, struct victim *v);
/* May names in a directory be removed (-EPERM)? */
MUST_CHECK int dir_may_remove(const struct cowfs_disk_inode *dir);
/* May names be added (-EPERM, -ENOENT: it was removed itself)? */
MUST_CHECK int dir_may_add(const struct cowfs_disk_inode *dir);

/* ---- file.c, truncate.c ---- */

/* The part of fs_setattr that changes the size; I is held by the caller. */
MUST_CHECK int file_truncate(struct fs *fs, struct inode *in, uint64_t size);

/* ---- ahead.c ---- */

/* Bytes [off, off+len) of a file of that size are about to be read (whole: they
 * lie in one piece): tell the device what is likely to be wanted next. No
 * lock. */
void ahead_read_on(struct fs *fs, struct view *v, uint64_t ino, uint64_t off,
		   uint64_t len, uint64_t size, bool whole);
/* A piece of len bytes that begins in block blk was in the host's cache, or
 * (absent) is to be waited for: tell the device what lies beside it, if that
 * seems worth while. No lock. */
void ahead_read_around(struct fs *fs, struct view *v, uint64_t ino,
		       uint64_t len, uint64_t size, uint64_t blk, bool absent);

/* ---- xattr.c, acl.c ---- */

/*
 * Raw access to xattrs, without checks of names and flags. Before the first
 * change: xattr_prepare for each that is to be set (len of the new value) or
 * removed (0), and tree_prepare of the inode's key. Items of the inode with
 * smaller keys than its xattrs have must not be deleted in between.
 */

/* T. -ENODATA, -ERANGE (size != 0 and too small), -EAGAIN. */
MUST_CHECK int xattr_get_locked(struct fs *fs, struct tree *t, uint64_t ino,
				const char *name, void *buf, size_t size,
				size_t *len);
MUST_CHECK int xattr_prepare(struct fs *fs, uint64_t ino, const char *name,
			     size_t len);
/* T exclusive. d: may get a new xattr_id; the caller stores it. */
MUST_CHECK int xattr_set_locked(struct fs *fs, uint64_t ino, const char *name,
				const void *val, size_t len,
				struct cowfs_disk_inode *d);
/* -ENODATA: there is none (nothing was changed). */
MUST_CHECK int xattr_remove_locked(struct fs *fs, uint64_t ino,
				   const char *name,
				   struct cowfs_disk_inode *d);
/* Names, each with its NUL; size 0: only *len. -ERANGE, -EAGAIN. */
MUST_CHECK int xattr_list_locked(struct tree *t, uint64_t ino, char *buf,
				 size_t size, size_t *len);

#define ACL_ACCESS_NAME "system.posix_acl_access"
#define ACL_DEFAULT_NAME "system.posix_acl_default"
#define CAPABILITY_NAME "security.capability"
#define ACL_BYTES_MAX 8192u

/* Check an ACL as it comes from the kernel (linux/posix_acl_xattr.h, version
 * 2). -EINVAL, -EOPNOTSUPP (version). */
MUST_CHECK int acl_check(const void *acl, size_t len);
/* Mode bits that an access ACL gives; *minimal: it says no more than mode. */
void acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *minimal);
/* Change an access ACL in place for chmod. */
void acl_chmod(void *acl, size_t len, uint32_t mode);
/* Turn a default ACL into the access ACL of a new file of the given mode, in
 * place; *mode becomes the file's mode; *minimal as above. */
void acl_inherit(void *acl, size_t len, uint32_t *mode, bool *minimal);

#endif
