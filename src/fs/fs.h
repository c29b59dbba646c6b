/*
 * fs.h - layer 6: inodes, directories, files, xattrs; knows nothing of FUSE
 *
 *   F1  Every function is atomic with respect to crashes and to each other,
 *       except where its comment says that it works in steps.
 *   F2  An inode with nlink 0 has an ORPHAN item in the same transaction, and
 *       goes away when its last kernel reference (fs_ref) and open handle are
 *       gone, or at the next mount.
 *   F3  Inode numbers are never used twice, not even after a restore.
 *   F4  The daemon checks what the kernel does not: name length, link count,
 *       immutable and append-only flags, sticky and set-id rules on what it
 *       creates; access permission as such is the kernel's (default_permissions).
 *
 * Errors are negative errno; ECOW_* may come from any function (damage), as may
 * -EIO, -EROFS (stopped or read-only), -ENOMEM, and -ENOSPC from those that
 * write; they are not repeated below. -ESTALE: the inode does not exist (any
 * more).
 */
#ifndef COW_FS_H
#define COW_FS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "snapshot/snapshot.h"
#include "txn/txn.h"

struct fs;

struct fs_options {
	bool readonly;
	bool noatime;       /* else relatime, */
	bool strictatime;   /* unless strictatime */
	const char *snapshot; /* NULL: the live tree; else show this one */
};

/* Make the root directory in a new, empty store and commit. */
MUST_CHECK int fs_format(struct store *s, uint32_t uid, uint32_t gid,
			 uint32_t mode);

/* On an opened store; orphans of an earlier crash are handed to the background
 * (WORK_ORPHAN), started or not. fs_umount does not close the store. */
MUST_CHECK int fs_mount(struct store *s, const struct fs_options *opt,
			struct fs **out);
void fs_umount(struct fs *fs); /* NULL is fine */
struct store *fs_store(struct fs *fs);
/* Reading leaves no access times from now on, or does again. Any thread. */
void fs_set_noatime(struct fs *fs, bool noatime);

/* ---- views: the live tree, or a snapshot ---- */

/* A view is one tree as a file system to look at. Views are counted. */
struct view;

struct view *fs_live(struct fs *fs); /* not counted, never goes away */
/* View of a snapshot by name; -ENOENT. The same snapshot gives the same view. */
MUST_CHECK int fs_view_open(struct fs *fs, const char *name,
			    struct view **out);
void fs_view_put(struct fs *fs, struct view *v);
uint64_t view_snap_id(const struct view *v); /* 0: live */

/* ---- attributes ---- */

struct attr {
	uint64_t ino;
	uint64_t gen; /* of the inode: creation transaction */
	uint32_t mode, nlink, uid, gid, rdev /* major << 20 | minor */;
	uint32_t flags; /* COWFS_INODE_USER_FLAGS */
	uint64_t size;
	uint64_t blocks; /* 512 bytes each */
	struct timespec64 atime, mtime, ctime, btime;
};

struct cred {
	uint32_t uid, gid;
	uint32_t umask;
	/* is gid among the caller's supplementary groups? may be NULL: no */
	bool (*in_group)(void *arg, uint32_t gid);
	void *arg;
};

MUST_CHECK int fs_getattr(struct fs *fs, struct view *v, uint64_t ino,
			  struct attr *out);

enum {
	FS_SET_MODE = 1, FS_SET_UID = 2, FS_SET_GID = 4, FS_SET_SIZE = 8,
	FS_SET_ATIME = 16, FS_SET_MTIME = 32, FS_SET_CTIME = 64,
	FS_SET_ATIME_NOW = 128, FS_SET_MTIME_NOW = 256,
	FS_SET_FLAGS = 512,
	FS_SET_KILL_PRIV = 1024, /* clear set-id bits and capabilities as after
				    a write */
};

/*
 * set: values for the FS_SET_* bits in `what`. mode: permission bits only are
 * taken; changes the ACL's mask or group entry with it. Changing the owner
 * clears set-id bits (of non-directories; set-gid only with group execute) and
 * security.capability. Size: truncates or extends, in steps when large (a crash
 * may leave a file longer than asked, never with foreign bytes); marks mtime
 * and ctime if it is another. -EPERM (immutable, append-only), -EFBIG,
 * -EISDIR, -EINVAL.
 */
MUST_CHECK int fs_setattr(struct fs *fs, uint64_t ino, unsigned what,
			  const struct attr *set, const struct cred *cred,
			  struct attr *out);

struct fs_statfs {
	uint64_t blocks, free, avail; /* 4096 bytes */
	uint64_t files, files_free;   /* estimates: space bounds them */
};
MUST_CHECK int fs_statfs(struct fs *fs, struct fs_statfs *out);

/* ---- names ---- */

/* "." and ".." are understood (export support). -ENOENT, -ENOTDIR,
 * -ENAMETOOLONG. Names are not terminated: len bytes. */
MUST_CHECK int fs_lookup(struct fs *fs, struct view *v, uint64_t dir,
			 const char *name, size_t len, struct attr *out);

/*
 * Create any kind of file (mode's S_IFMT says which), or a symlink with
 * target. Owner from cred; group from cred or a set-group-id directory (which a
 * subdirectory inherits); mode from the directory's default ACL, else from the
 * umask. -EEXIST, -ENOENT (dir was removed), -ENOTDIR, -ENAMETOOLONG, -EPERM
 * (immutable), -EMLINK, -EINVAL.
 */
MUST_CHECK int fs_create(struct fs *fs, uint64_t dir, const char *name,
			 size_t len, uint32_t mode, uint32_t rdev,
			 const char *target, const struct cred *cred,
			 struct attr *out);
/* A file without a name (O_TMPFILE): an orphan until linked. It is kept until
 * the caller has referred to it (fs_ref, fs_open) and that reference is gone. */
MUST_CHECK int fs_tmpfile(struct fs *fs, uint64_t dir, uint32_t mode,
			  const struct cred *cred, struct attr *out);
MUST_CHECK int fs_link(struct fs *fs, uint64_t ino, uint64_t dir,
		       const char *name, size_t len, struct attr *out);
/* -EISDIR / -ENOTDIR, -ENOTEMPTY, -EBUSY (root), -EPERM. *ino (may be NULL):
 * whose name it was. */
MUST_CHECK int fs_unlink(struct fs *fs, uint64_t dir, const char *name,
			 size_t len, uint64_t *ino);
MUST_CHECK int fs_rmdir(struct fs *fs, uint64_t dir, const char *name,
			size_t len, uint64_t *ino);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE. -EINVAL (into itself; flags), and
 * all that create, unlink and rmdir have. */
MUST_CHECK int fs_rename(struct fs *fs, uint64_t dir, const char *name,
			 size_t len, uint64_t newdir, const char *newname,
			 size_t newlen, unsigned flags);
/* *len: room in, bytes out (not terminated). -EINVAL: not a symlink. */
MUST_CHECK int fs_readlink(struct fs *fs, struct view *v, uint64_t ino,
			   char *buf, size_t *len);

/*
 * Entries with a cookie > after, in cookie order, "." (cookie 1) and ".."
 * (cookie 2) first; start with 0. fn's non-zero return ends the listing (0 is
 * returned then; that entry was not taken). attr is NULL unless want_attr, and
 * perhaps then, too, at the beginning of a large directory.
 * fn is called without locks held.
 */
struct fs_dirent {
	const char *name;
	size_t len;
	uint64_t ino, cookie;
	uint8_t type;
	const struct attr *attr;
};
typedef int fs_readdir_fn(void *arg, const struct fs_dirent *e);
MUST_CHECK int fs_readdir(struct fs *fs, struct view *v, uint64_t dir,
			  uint64_t after, bool want_attr, fs_readdir_fn *fn,
			  void *arg);

/* How often trees were changed since the mount: what was listed is still true
 * if it is what it was before. */
uint64_t fs_changes(struct fs *fs);

/* ---- kernel references and handles (live view) ---- */

/* Somebody outside knows this inode number: n more / n fewer references. */
MUST_CHECK int fs_ref(struct fs *fs, uint64_t ino);
void fs_unref(struct fs *fs, uint64_t ino, uint64_t n);
/* A handle: keeps the inode alive. -ESTALE, -EPERM (append-only: write without
 * append; immutable: write). write: the handle may write. */
MUST_CHECK int fs_open(struct fs *fs, uint64_t ino, bool write, bool append);
/*
 * The same for who is going to read what the kernel may have in its cache, and
 * will not ask for then: where the file is, or was, open otherwise since somebody
 * refers to it, that counts as reading it. *noted: atime was set.
 */
MUST_CHECK int fs_open_cached(struct fs *fs, uint64_t ino, bool write,
			      bool append, bool *noted);
/* *last_writer (may be NULL): no handle for writing is left. */
void fs_release(struct fs *fs, uint64_t ino, bool write, bool *last_writer);
/* Is there a handle for writing? */
bool fs_is_written(struct fs *fs, uint64_t ino);
/* open: there is a handle. */
typedef void fs_each_fn(void *arg, uint64_t ino, bool open);
/* Inodes that have a handle for writing: fn for each, which must not call fs_*. */
void fs_each_writer(struct fs *fs, fs_each_fn *fn, void *arg);
/* Why something that write(2) had left in the kernel's cache could not be stored
 * (FS_WRITE_CACHED) since this was asked before: 0, -ENOSPC, ... Only of files that
 * are still open for writing: who closes one hears of it. Not of those that have
 * no name any more. */
MUST_CHECK int fs_take_lost(struct fs *fs);
/* Every inode that has a reference; without locks. */
void fs_each_ref(struct fs *fs, fs_each_fn *fn, void *arg);

/* ---- contents ---- */

/* *got < len only at the end of the file. -EISDIR. Updates atime by the mount's
 * rule (live, read-write). */
MUST_CHECK int fs_read(struct fs *fs, struct view *v, uint64_t ino,
		       uint64_t off, void *buf, size_t len, size_t *got);
/* The same, without the access time (O_NOATIME). */
MUST_CHECK int fs_read_quietly(struct fs *fs, struct view *v, uint64_t ino,
			       uint64_t off, void *buf, size_t len,
			       size_t *got);

enum {
	FS_WRITE_CACHED = 1, /* from the kernel's writeback: the kernel keeps
				the times, set-id bits are gone already */
	FS_WRITE_KILL_PRIV = 2, /* clear set-id bits and capabilities */
	FS_WRITE_TOUCH = 4, /* set the times though the kernel keeps them */
};
/* All of it, or an error (what was written before it stays, in whole requests
 * of up to 1 MiB: -ENOSPC). -EFBIG, -EPERM. */
MUST_CHECK int fs_write(struct fs *fs, uint64_t ino, uint64_t off,
			const void *buf, size_t len, unsigned flags);

/* mode: FALLOC_FL_* : 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE];
 * -EOPNOTSUPP for others. In steps. */
MUST_CHECK int fs_fallocate(struct fs *fs, uint64_t ino, int mode,
			    uint64_t off, uint64_t len,
			    const struct cred *cred);
/* whence: SEEK_DATA or SEEK_HOLE. -ENXIO. */
MUST_CHECK int fs_seek(struct fs *fs, struct view *v, uint64_t ino,
		       uint64_t off, int whence, uint64_t *out);
/* Shares whole blocks where both offsets allow it, copies the rest. From any
 * view into the live one. Overlapping ranges of one file: -EINVAL. *copied may
 * be less than len at the end of the source or after an error. In steps. */
MUST_CHECK int fs_copy_range(struct fs *fs, struct view *from, uint64_t ino,
			     uint64_t off, uint64_t to, uint64_t to_off,
			     uint64_t len, uint64_t *copied);
/* The same, on whose behalf: set-id bits and capabilities of the target stay if
 * that is root, as with fs_write (fs_copy_range: they go). */
MUST_CHECK int fs_copy_range_by(struct fs *fs, const struct cred *cred,
				struct view *from, uint64_t ino, uint64_t off,
				uint64_t to, uint64_t to_off, uint64_t len,
				uint64_t *copied);
/* Like SEEK_DATA/SEEK_HOLE in one: mapping at off for tools and tests. */
struct fs_map {
	uint64_t off, len; /* bytes */
	uint64_t blk;      /* 0: hole or inline */
	bool prealloc, shared, is_inline;
};
MUST_CHECK int fs_map(struct fs *fs, struct view *v, uint64_t ino,
		      uint64_t off, struct fs_map *out);

/* Everything done to the inode so far survives a crash from now on. */
MUST_CHECK int fs_fsync(struct fs *fs, uint64_t ino, bool datasync);

/* ---- extended attributes ---- */

/* size 0: only *len. -ENODATA, -ERANGE. */
MUST_CHECK int fs_getxattr(struct fs *fs, struct view *v, uint64_t ino,
			   const char *name, void *buf, size_t size,
			   size_t *len);
/* flags: XATTR_CREATE, XATTR_REPLACE. -EEXIST, -ENODATA, -E2BIG, -ERANGE (name
 * length), -EOPNOTSUPP (namespace), -EPERM. system.posix_acl_access and _default
 * are checked, and set mode bits as setfacl(1) expects. */
MUST_CHECK int fs_setxattr(struct fs *fs, uint64_t ino, const char *name,
			   const void *val, size_t len, int flags,
			   const struct cred *cred);
MUST_CHECK int fs_removexattr(struct fs *fs, uint64_t ino, const char *name);
/* Can it have this value? Of ACLs not every one is possible. Name: its bytes. */
bool fs_xattr_possible(const void *name, size_t name_len, const void *val,
		       size_t len);
/* Names, each with its NUL. size 0: only *len. -ERANGE. */
MUST_CHECK int fs_listxattr(struct fs *fs, struct view *v, uint64_t ino,
			    char *buf, size_t size, size_t *len);

/* ---- snapshots, as the mounted filesystem does them ---- */

/* snap_restore with the inode table told: references are to what is gone, and
 * end; handles stay. Orphans of the restored tree that nobody has open are
 * removed in the background. *replaced (may be NULL): the live tree is another
 * now, also where the commit failed after that (the store has stopped then). */
MUST_CHECK int fs_restore(struct fs *fs, const char *name, const char *save,
			  bool *replaced);
/* snap_delete; views of it get -ESTALE from then on. */
MUST_CHECK int fs_snap_delete(struct fs *fs, const char *name);

#endif
