/*
 * memfs.h - what the two parts of memfs share: its inodes and names
 *
 * Locks: inode->lock guards the contents of a file; after it, big_lock guards
 * names, attributes and lookup counts. The size is changed under both, so that
 * either is enough to read it.
 */
#ifndef COW_MEMFS_H
#define COW_MEMFS_H

#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define FOREVER (10.0 * 365 * 86400)

struct inode {
	struct stat st;      /* size: see above; the rest: big_lock */
	uint64_t lookups;
	pthread_rwlock_t lock;
	char *data;          /* contents, or target of a symbolic link */
	size_t room;         /* bytes allocated at data */
	struct name **names; /* a directory's, by cookie; NULL: was removed */
	size_t name_count, name_room, live;
	struct inode *parent; /* of a directory */
};

struct name {
	struct inode *dir, *inode;
	struct name *next; /* in the bucket */
	size_t slot;       /* in dir->names */
	uint32_t hash;
	char text[];
};

extern pthread_mutex_t big_lock;
extern struct inode root;

static inline struct inode *node(fuse_ino_t id)
{
	return id == FUSE_ROOT_ID ? &root : (struct inode *)id;
}

static inline fuse_ino_t node_id(struct inode *i)
{
	return i == &root ? FUSE_ROOT_ID : (fuse_ino_t)i;
}

/* 0 or -ENOMEM; before all others. */
int names_init(void);

/* big_lock, for these: */
void touch(struct inode *i); /* mtime and ctime are now */
struct stat stat_of(const struct inode *i);
/* Counts one lookup: what is made of it must reach the kernel. */
void entry_of(struct inode *i, struct fuse_entry_param *e);

/* Callbacks that look up, make and remove names. */
void ops_names(struct fuse_lowlevel_ops *ops);

#endif
