/*
 * rescue.h - what the files of "cowctl rescue" share
 *
 * Inodes and names as they come from the image (rescue_names.c), where each of
 * them goes (rescue_place.c), and writing it there (rescue_write.c).
 *
 * Nothing outside of the directory is ever touched: every step on the way to a
 * file is opened by itself, and never through a symlink; nothing that exists is
 * opened for writing or replaced.
 */
#ifndef COW_TOOL_RESCUE_H
#define COW_TOOL_RESCUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cowfs/rescue.h"

#define NOWHERE SIZE_MAX

struct rescue_inode {
	uint64_t ino, size;
	uint32_t mode, uid, gid, nlink, rdev;
	struct cowfs_disk_time atime, mtime;
	size_t via;   /* name that it gets first; NOWHERE: lost+found */
	uint64_t host; /* of a directory made: its number where it is now */
	unsigned slot; /* of a directory: 1 + place in rescue.open; or 0 */
	bool placed;  /* somewhere below the directory */
	bool named;   /* some entry names it */
	bool made;    /* by us */
};

struct rescue_name {
	uint64_t dir, ino;
	size_t text; /* in rescue.text, NUL-terminated */
	bool used;   /* the entry stands for a place in the tree */
};

/* An xattr of a directory waits till all that it may be inherited by is there. */
struct rescue_xattr {
	char *name;
	void *val;
	size_t len, inode; /* index */
};

/* A directory that is open. */
struct rescue_dir {
	size_t inode; /* index; NOWHERE: free */
	int fd;
	bool used; /* since the hand passed */
};
#define RESCUE_DIRS 256u

struct rescue {
	int dir; /* where to; -1: a dry run */
	bool json, first_line, root;
	bool dry;
	struct cowfs_rescue *image;
	struct cowfs_rescue_info info;

	struct rescue_inode *inode; /* in order of numbers */
	struct rescue_name *name;   /* in order of directories */
	char *text;
	size_t inodes, names, text_len;
	size_t inode_room, name_room, text_room;
	size_t *order; /* directories as they were made; parents first */
	size_t dirs;

	/* the inode being written */
	size_t cur;     /* index; NOWHERE: it is passed over */
	int fd;
	bool cut_off;   /* what it is written to takes no more of it */
	char *link;     /* target of a symlink so far */
	size_t link_len;
	struct rescue_xattr *xattr;
	size_t xattrs, xattr_room;
	size_t own_xattrs; /* from here on: of the inode being written */

	struct rescue_dir *open; /* RESCUE_DIRS */
	unsigned hand;           /* of the clock that goes round in it */
	int lost_fd;             /* lost+found; -1 */
	dev_t host_dev;          /* of what was made */

	uint64_t files, bytes, done, missing, began;
};

/* ---- rescue_names.c ---- */

/* Room for one more of `size` bytes in *at. */
int rescue_grow(void **at, size_t n, size_t *room, size_t size);
int rescue_collect(struct rescue *r);
struct rescue_inode *rescue_find(const struct rescue *r, uint64_t ino);
/* The entries of a directory: index of the first; *n. */
size_t rescue_entries(const struct rescue *r, uint64_t dir, size_t *n);

/* ---- rescue_place.c ---- */

/* Where everything goes; what has no name goes to lost+found. */
int rescue_place(struct rescue *r);
/* Path of an inode below the directory, for messages; to be freed. */
char *rescue_path(const struct rescue *r, const struct rescue_inode *in);
/* Name that the inode has in its directory, *dir (NULL: lost+found, or the
 * directory itself for the root). buf: 32 bytes. */
const char *rescue_name_of(const struct rescue *r,
			   const struct rescue_inode *in, char *buf,
			   struct rescue_inode **dir);

/* ---- cowctl_rescue.c ---- */

/* A line of what is missing. inode may be NULL, entry, too; len 0: all. */
void rescue_missing(struct rescue *r, const struct rescue_inode *in,
		    const struct rescue_name *entry, uint64_t off,
		    uint64_t len, const char *why);

/* ---- rescue_dirs.c ---- */

int rescue_dirs_init(struct rescue *r);
void rescue_dirs_fini(struct rescue *r);
/* A directory, below where we write; NULL: lost+found. *fd is r's, and good
 * until the next call. An errno. */
int rescue_dir(struct rescue *r, const struct rescue_inode *in, int *fd);
/* The one that `in` is in is asked for next: if `in` is one that was made, it is
 * found from there. */
void rescue_dir_up(struct rescue *r, const struct rescue_inode *in);

/* ---- rescue_write.c ---- */

/* All of it; 0, or an error that ends it. What goes wrong with a single file is
 * said, and counted in r->missing. */
int rescue_write(struct rescue *r);

#endif
