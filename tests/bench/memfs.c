/*
 * memfs.c - a filesystem in memory: what FUSE costs when nothing else does
 *
 *	memfs [-1] [-t THREADS] [-n] DIR
 *
 * The limit that the benchmark compares with. It asks the kernel for the same
 * as cowfs does, lets it keep everything for ever, and does the least for each
 * request: no disk, no checksums, no snapshots, nothing survives the unmount.
 * It stays in the foreground. -n goes further than cowfs can: open is refused
 * with ENOSYS, which spares OPEN and RELEASE. On SIGUSR1 the kernel is made to
 * forget all but the root (it can't be remounted: nothing would be left); that
 * done, it says so on standard output.
 *
 * Locks: inode->lock guards the contents of a file; after it, big_lock guards
 * names, attributes and lookup counts. The size is changed under both, so that
 * either is enough to read it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <fuse_lowlevel.h>

#define FOREVER (10.0 * 365 * 86400)
#define MAX_WRITE (1u << 20)
#define MAX_BACKGROUND 64u
#define MMAP_FROM (1 << 20) /* growing such a buffer moves pages, not bytes */
#define FIRST_COOKIE 3      /* behind the dots */

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

static pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
static struct name **buckets;
static size_t bucket_count = 1024, total_names;
static uint64_t last_ino = FUSE_ROOT_ID;
static struct inode root;
static bool no_open;

static struct {
	uint64_t unique;
	bool killpriv;
	bool keep_opendir;
} init;

static struct inode *node(fuse_ino_t id)
{
	return id == FUSE_ROOT_ID ? &root : (struct inode *)id;
}

static fuse_ino_t node_id(struct inode *i)
{
	return i == &root ? FUSE_ROOT_ID : (fuse_ino_t)i;
}

/* ---- names; all under big_lock ---- */

static uint32_t hash_name(const struct inode *dir, const char *text)
{
	uint64_t h = (uintptr_t)dir * UINT64_C(0x9e3779b97f4a7c15);

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return (uint32_t)(h ^ h >> 32);
}

static struct name **name_find(const struct inode *dir, const char *text)
{
	uint32_t h = hash_name(dir, text);
	struct name **at = &buckets[h & (bucket_count - 1)];

	while (*at && ((*at)->hash != h || (*at)->dir != dir ||
		       strcmp((*at)->text, text)))
		at = &(*at)->next;
	return at;
}

/* Twice the buckets; without the memory for it they stay as they are. */
static void buckets_grow(void)
{
	size_t count = bucket_count * 2, i;
	struct name **to = calloc(count, sizeof(struct name *));
	struct name *n, *next;

	if (!to)
		return;
	for (i = 0; i < bucket_count; i++) {
		for (n = buckets[i]; n; n = next) {
			next = n->next;
			n->next = to[n->hash & (count - 1)];
			to[n->hash & (count - 1)] = n;
		}
	}
	free(buckets);
	buckets = to;
	bucket_count = count;
}

static int slot_reserve(struct inode *dir)
{
	size_t room = dir->name_room ? dir->name_room * 2 : 8;
	struct name **names;

	if (dir->name_count < dir->name_room)
		return 0;
	names = realloc(dir->names, room * sizeof(struct name *));
	if (!names)
		return -ENOMEM;
	dir->names = names;
	dir->name_room = room;
	return 0;
}

static int name_add(struct inode *dir, const char *text, struct inode *i)
{
	size_t len = strlen(text);
	struct name *n, **at;

	if (len > 255)
		return -ENAMETOOLONG;
	n = malloc(sizeof(*n) + len + 1);
	if (!n || slot_reserve(dir)) {
		free(n);
		return -ENOMEM;
	}
	if (++total_names > bucket_count)
		buckets_grow();
	*n = (struct name){ .dir = dir, .inode = i, .slot = dir->name_count,
			    .hash = hash_name(dir, text) };
	memcpy(n->text, text, len + 1);
	at = &buckets[n->hash & (bucket_count - 1)];
	n->next = *at;
	*at = n;
	dir->names[dir->name_count++] = n;
	dir->live++;
	return 0;
}

static void name_remove(struct name **at)
{
	struct name *n = *at;
	struct inode *dir = n->dir;

	*at = n->next;
	dir->names[n->slot] = NULL;
	total_names--;
	if (!--dir->live)
		dir->name_count = 0;
	free(n);
}

/* ---- inodes; all under big_lock ---- */

static void touch(struct inode *i)
{
	clock_gettime(CLOCK_REALTIME, &i->st.st_mtim);
	i->st.st_ctim = i->st.st_mtim;
}

static struct inode *inode_new(fuse_req_t req, struct inode *dir, mode_t mode)
{
	const struct fuse_ctx *c = fuse_req_ctx(req);
	struct inode *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	pthread_rwlock_init(&i->lock, NULL);
	i->st.st_ino = ++last_ino;
	i->st.st_mode = mode;
	i->st.st_uid = c->uid;
	i->st.st_gid = c->gid;
	i->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
	i->st.st_blksize = 4096;
	if (dir->st.st_mode & S_ISGID) {
		i->st.st_gid = dir->st.st_gid;
		if (S_ISDIR(mode))
			i->st.st_mode |= S_ISGID;
	}
	touch(i);
	i->st.st_atim = i->st.st_mtim;
	i->parent = dir;
	return i;
}

static void inode_free_unused(struct inode *i)
{
	if (i == &root || i->lookups || i->st.st_nlink)
		return;
	pthread_rwlock_destroy(&i->lock);
	free(i->names);
	free(i->data);
	free(i);
}

static void unref_link(struct inode *dir, struct inode *i)
{
	if (S_ISDIR(i->st.st_mode)) {
		i->st.st_nlink = 0;
		dir->st.st_nlink--;
	} else {
		i->st.st_nlink--;
	}
	touch(dir);
	i->st.st_ctim = dir->st.st_mtim;
	inode_free_unused(i);
}

static struct stat stat_of(const struct inode *i)
{
	struct stat st = i->st;

	st.st_blocks = (st.st_size + 4095) / 4096 * 8;
	return st;
}

/* Counts one lookup: what is made of it must reach the kernel. */
static void entry_of(struct inode *i, struct fuse_entry_param *e)
{
	i->lookups++;
	*e = (struct fuse_entry_param){
		.ino = node_id(i),
		.generation = 1,
		.attr = stat_of(i),
		.attr_timeout = FOREVER,
		.entry_timeout = FOREVER,
	};
}

static void forget(struct inode *i, uint64_t count)
{
	pthread_mutex_lock(&big_lock);
	i->lookups -= count;
	inode_free_unused(i);
	pthread_mutex_unlock(&big_lock);
}

/* ---- callbacks: names ---- */

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	struct fuse_entry_param e = { .entry_timeout = FOREVER };
	struct inode *dir = node(parent), *i;

	if (strlen(text) > 255) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	pthread_mutex_lock(&big_lock);
	if (!strcmp(text, ".")) {
		i = dir;
	} else if (!strcmp(text, "..")) {
		i = dir->parent;
	} else {
		struct name *n = *name_find(dir, text);

		i = n ? n->inode : NULL;
	}
	if (i)
		entry_of(i, &e);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_entry(req, &e); /* ino 0: there is none, for ever */
}

static void on_forget(fuse_req_t req, fuse_ino_t id, uint64_t count)
{
	forget(node(id), count);
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *list)
{
	size_t k;

	for (k = 0; k < count; k++)
		forget(node(list[k].ino), list[k].nlookup);
	fuse_reply_none(req);
}

/* big_lock */
static int make_locked(fuse_req_t req, struct inode *dir, const char *text,
		       mode_t mode, struct inode **out)
{
	struct inode *i;
	int err;

	if (*name_find(dir, text))
		return -EEXIST;
	i = inode_new(req, dir, mode);
	if (!i)
		return -ENOMEM;
	err = name_add(dir, text, i);
	if (err) {
		i->st.st_nlink = 0;
		inode_free_unused(i);
		return err;
	}
	if (S_ISDIR(mode))
		dir->st.st_nlink++;
	touch(dir);
	*out = i;
	return 0;
}

static int make(fuse_req_t req, fuse_ino_t parent, const char *text,
		mode_t mode, dev_t rdev, const char *target,
		struct fuse_entry_param *e)
{
	char *copy = target ? strdup(target) : NULL;
	struct inode *i = NULL;
	int err;

	if (target && !copy)
		return -ENOMEM;
	pthread_mutex_lock(&big_lock);
	err = make_locked(req, node(parent), text, mode, &i);
	if (!err) {
		i->st.st_rdev = rdev;
		i->data = copy;
		i->st.st_size = target ? (off_t)strlen(target) : 0;
		entry_of(i, e);
	}
	pthread_mutex_unlock(&big_lock);
	if (err)
		free(copy);
	return err;
}

static void make_and_reply(fuse_req_t req, fuse_ino_t parent, const char *text,
			   mode_t mode, dev_t rdev, const char *target)
{
	struct fuse_entry_param e;
	int err;

	err = make(req, parent, text, mode, rdev, target, &e);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_entry(req, &e);
}

/* The kernel passes the umask on (DONT_MASK); without ACLs it counts. */
static mode_t masked(fuse_req_t req, mode_t mode)
{
	return mode & ~fuse_req_ctx(req)->umask;
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *text,
		     mode_t mode, dev_t rdev)
{
	make_and_reply(req, parent, text, masked(req, mode), rdev, NULL);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *text,
		     mode_t mode)
{
	make_and_reply(req, parent, text, masked(req, mode) | S_IFDIR, 0,
		       NULL);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		       const char *text)
{
	make_and_reply(req, parent, text, S_IFLNK | 0777, 0, target);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *text,
		      mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	int err;

	err = make(req, parent, text, masked(req, mode) | S_IFREG, 0, NULL,
		   &e);
	fi->keep_cache = 1;
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_create(req, &e, fi);
}

static void on_readlink(fuse_req_t req, fuse_ino_t id)
{
	fuse_reply_readlink(req, node(id)->data);
}

static int unlink_locked(struct inode *dir, const char *text, bool want_dir)
{
	struct name **at = name_find(dir, text);
	struct inode *i;

	if (!*at)
		return ENOENT;
	i = (*at)->inode;
	if (S_ISDIR(i->st.st_mode) != want_dir)
		return want_dir ? ENOTDIR : EISDIR;
	if (want_dir && i->live)
		return ENOTEMPTY;
	name_remove(at);
	unref_link(dir, i);
	return 0;
}

static void do_unlink(fuse_req_t req, fuse_ino_t parent, const char *text,
		      bool want_dir)
{
	int err;

	pthread_mutex_lock(&big_lock);
	err = unlink_locked(node(parent), text, want_dir);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_err(req, err);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	do_unlink(req, parent, text, false);
}

static void on_rmdir(fuse_req_t req, fuse_ino_t parent, const char *text)
{
	do_unlink(req, parent, text, true);
}

static int rename_locked(struct inode *from, const char *old,
			 struct inode *to, const char *new, unsigned flags)
{
	struct name **at = name_find(from, old), **over;
	struct inode *i;
	bool is_dir;
	int err;

	if (!*at)
		return ENOENT;
	if (flags & ~(unsigned)RENAME_NOREPLACE)
		return EINVAL;
	i = (*at)->inode;
	is_dir = S_ISDIR(i->st.st_mode);
	over = name_find(to, new);
	if (*over && flags & RENAME_NOREPLACE)
		return EEXIST;
	if (*over && (*over)->inode == i)
		return 0;
	err = *over ? unlink_locked(to, new, is_dir) : 0;
	if (!err)
		err = -name_add(to, new, i);
	if (err)
		return err;
	name_remove(name_find(from, old));
	if (is_dir) {
		i->parent = to;
		from->st.st_nlink--;
		to->st.st_nlink++;
	}
	touch(from);
	touch(to);
	i->st.st_ctim = to->st.st_mtim;
	return 0;
}

static void on_rename(fuse_req_t req, fuse_ino_t from, const char *old,
		      fuse_ino_t to, const char *new, unsigned flags)
{
	int err;

	pthread_mutex_lock(&big_lock);
	err = rename_locked(node(from), old, node(to), new, flags);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_err(req, err);
}

static void on_link(fuse_req_t req, fuse_ino_t id, fuse_ino_t parent,
		    const char *text)
{
	struct inode *i = node(id), *dir = node(parent);
	struct fuse_entry_param e;
	int err;

	pthread_mutex_lock(&big_lock);
	err = *name_find(dir, text) ? -EEXIST : name_add(dir, text, i);
	if (!err) {
		i->st.st_nlink++;
		touch(dir);
		i->st.st_ctim = dir->st.st_mtim;
		entry_of(i, &e);
	}
	pthread_mutex_unlock(&big_lock);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_entry(req, &e);
}

/* ---- callbacks: contents ---- */

/* inode->lock, exclusive: room for size bytes, zeroes behind the old end. */
static int set_room(struct inode *i, size_t size)
{
	size_t room = i->room ? i->room : 4096;
	char *p;

	if (size <= i->room)
		return 0;
	while (room < size)
		room *= 2;
	if (size < 8192)
		room = size;
	p = realloc(i->data, room);
	if (!p)
		return -ENOSPC;
	i->data = p;
	i->room = room;
	return 0;
}

/* inode->lock, exclusive. */
static int set_size(struct inode *i, size_t size)
{
	size_t old = (size_t)i->st.st_size;
	int err;

	err = set_room(i, size);
	if (err)
		return err;
	if (size > old)
		memset(i->data + old, 0, size - old);
	if (!size) {
		free(i->data);
		i->data = NULL;
		i->room = 0;
	}
	pthread_mutex_lock(&big_lock);
	i->st.st_size = (off_t)size;
	touch(i);
	pthread_mutex_unlock(&big_lock);
	return 0;
}

/* inode->lock, exclusive. */
static int put_bytes(struct inode *i, const char *buf, size_t size, size_t off)
{
	size_t old = (size_t)i->st.st_size;
	int err;

	err = set_room(i, off + size);
	if (err)
		return err;
	if (off > old)
		memset(i->data + old, 0, off - old);
	memcpy(i->data + off, buf, size);
	pthread_mutex_lock(&big_lock);
	if (off + size > old)
		i->st.st_size = (off_t)(off + size);
	/* HANDLE_KILLPRIV_V2: ours to do */
	i->st.st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
	touch(i);
	pthread_mutex_unlock(&big_lock);
	return 0;
}

static void on_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct inode *i = node(id);

	if (no_open) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	if (fi->flags & O_TRUNC) {
		pthread_rwlock_wrlock(&i->lock);
		(void)set_size(i, 0); /* shrinking can't fail */
		pthread_rwlock_unlock(&i->lock);
	}
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	size_t end;

	(void)fi;
	pthread_rwlock_rdlock(&i->lock);
	end = (size_t)i->st.st_size;
	if ((size_t)off >= end)
		size = 0;
	else if (size > end - (size_t)off)
		size = end - (size_t)off;
	if (size)
		fuse_reply_buf(req, i->data + off, size);
	else
		fuse_reply_buf(req, NULL, 0);
	pthread_rwlock_unlock(&i->lock);
}

static void on_write(fuse_req_t req, fuse_ino_t id, const char *buf,
		     size_t size, off_t off, struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	int err;

	(void)fi;
	pthread_rwlock_wrlock(&i->lock);
	err = put_bytes(i, buf, size, (size_t)off);
	pthread_rwlock_unlock(&i->lock);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_write(req, size);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t off,
			 off_t len, struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	int err = 0;

	(void)fi;
	if (mode) {
		fuse_reply_err(req, EOPNOTSUPP);
		return;
	}
	pthread_rwlock_wrlock(&i->lock);
	if (off + len > i->st.st_size)
		err = set_size(i, (size_t)(off + len));
	pthread_rwlock_unlock(&i->lock);
	fuse_reply_err(req, -err);
}

/* Through a buffer: so no two inodes are ever locked at once. */
static void on_copy(fuse_req_t req, fuse_ino_t from, off_t off_from,
		    struct fuse_file_info *fi_from, fuse_ino_t to, off_t off_to,
		    struct fuse_file_info *fi_to, size_t len, int flags)
{
	struct inode *src = node(from), *dst = node(to);
	char *buf = NULL;
	size_t end;
	int err = 0;

	(void)fi_from;
	(void)fi_to;
	(void)flags;
	pthread_rwlock_rdlock(&src->lock);
	end = (size_t)src->st.st_size;
	end = end > (size_t)off_from ? end - (size_t)off_from : 0;
	len = len < end ? len : end;
	if (len)
		buf = malloc(len);
	if (buf)
		memcpy(buf, src->data + off_from, len);
	pthread_rwlock_unlock(&src->lock);
	if (len && !buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_rwlock_wrlock(&dst->lock);
	if (len)
		err = put_bytes(dst, buf, len, (size_t)off_to);
	pthread_rwlock_unlock(&dst->lock);
	free(buf);
	if (err)
		fuse_reply_err(req, -err);
	else
		fuse_reply_write(req, len);
}

static void on_fsync(fuse_req_t req, fuse_ino_t id, int datasync,
		     struct fuse_file_info *fi)
{
	(void)id;
	(void)datasync;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* ---- callbacks: attributes ---- */

static void on_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	pthread_mutex_lock(&big_lock);
	st = stat_of(node(id));
	pthread_mutex_unlock(&big_lock);
	fuse_reply_attr(req, &st, FOREVER);
}

/* big_lock */
static void set_attr(struct inode *i, const struct stat *a, int what)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID | FUSE_SET_ATTR_SIZE)
	    && S_ISREG(i->st.st_mode))
		i->st.st_mode &= ~(mode_t)(S_ISUID | S_ISGID);
	if (what & FUSE_SET_ATTR_MODE)
		i->st.st_mode = (i->st.st_mode & S_IFMT) |
				(a->st_mode & 07777);
	if (what & FUSE_SET_ATTR_UID)
		i->st.st_uid = a->st_uid;
	if (what & FUSE_SET_ATTR_GID)
		i->st.st_gid = a->st_gid;
	if (what & FUSE_SET_ATTR_ATIME)
		i->st.st_atim = what & FUSE_SET_ATTR_ATIME_NOW ? now :
				a->st_atim;
	if (what & FUSE_SET_ATTR_MTIME)
		i->st.st_mtim = what & FUSE_SET_ATTR_MTIME_NOW ? now :
				a->st_mtim;
	i->st.st_ctim = what & FUSE_SET_ATTR_CTIME ? a->st_ctim : now;
}

static void on_setattr(fuse_req_t req, fuse_ino_t id, struct stat *a, int what,
		       struct fuse_file_info *fi)
{
	struct inode *i = node(id);
	struct stat st;
	int err = 0;

	(void)fi;
	if (what & FUSE_SET_ATTR_SIZE) {
		pthread_rwlock_wrlock(&i->lock);
		err = set_size(i, (size_t)a->st_size);
		pthread_rwlock_unlock(&i->lock);
	}
	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	pthread_mutex_lock(&big_lock);
	set_attr(i, a, what);
	st = stat_of(i);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_attr(req, &st, FOREVER);
}

static void on_statfs(fuse_req_t req, fuse_ino_t id)
{
	const struct statvfs st = {
		.f_bsize = 4096, .f_frsize = 4096, .f_blocks = 1u << 26,
		.f_bfree = 1u << 25, .f_bavail = 1u << 25, .f_files = 1u << 30,
		.f_ffree = 1u << 29, .f_favail = 1u << 29, .f_namemax = 255,
	};

	(void)id;
	fuse_reply_statfs(req, &st);
}

/* ---- callbacks: directories ---- */

static void on_opendir(fuse_req_t req, fuse_ino_t id,
		       struct fuse_file_info *fi)
{
	(void)id;
	if (!init.keep_opendir) {
		fuse_reply_err(req, ENOSYS);
		return;
	}
	fi->cache_readdir = 1;
	fi->keep_cache = 1;
	fuse_reply_open(req, fi);
}

struct listing {
	fuse_req_t req;
	bool plus;
	char *buf;
	size_t room, used;
};

/* big_lock. False: no more fits. */
static bool put_entry(struct listing *l, const char *text, struct inode *i,
		      off_t cookie, bool dot)
{
	char *at = l->buf + l->used;
	size_t room = l->room - l->used, len;
	struct fuse_entry_param e = { .attr = stat_of(i) };

	if (l->plus && !dot)
		entry_of(i, &e);
	len = l->plus ?
	      fuse_add_direntry_plus(l->req, at, room, text, &e, cookie) :
	      fuse_add_direntry(l->req, at, room, text, &i->st, cookie);
	if (len > room) {
		if (l->plus && !dot)
			i->lookups--;
		return false;
	}
	l->used += len;
	return true;
}

static void list(struct listing *l, struct inode *dir, off_t off)
{
	size_t slot = off < FIRST_COOKIE ? 0 : (size_t)(off - FIRST_COOKIE + 1);
	struct name *n;

	if (off < 1 && !put_entry(l, ".", dir, 1, true))
		return;
	if (off < 2 && !put_entry(l, "..", dir->parent, 2, true))
		return;
	for (; slot < dir->name_count; slot++) {
		n = dir->names[slot];
		if (n && !put_entry(l, n->text, n->inode,
				    (off_t)slot + FIRST_COOKIE, false))
			return;
	}
}

static void do_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		       bool plus)
{
	struct listing l = { .req = req, .plus = plus, .room = size };

	l.buf = malloc(size);
	if (!l.buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&big_lock);
	list(&l, node(id), off);
	pthread_mutex_unlock(&big_lock);
	fuse_reply_buf(req, l.buf, l.used);
	free(l.buf);
}

static void on_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, id, size, off, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size,
			   off_t off, struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, id, size, off, true);
}

/* ---- the connection ---- */

#define WANT (FUSE_CAP_ASYNC_READ | FUSE_CAP_ATOMIC_O_TRUNC | \
	      FUSE_CAP_EXPORT_SUPPORT | FUSE_CAP_DONT_MASK | \
	      FUSE_CAP_IOCTL_DIR | FUSE_CAP_EXPLICIT_INVAL_DATA | \
	      FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | \
	      FUSE_CAP_ASYNC_DIO | FUSE_CAP_WRITEBACK_CACHE | \
	      FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_POSIX_ACL | \
	      FUSE_CAP_CACHE_SYMLINKS)

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want = conn->capable & WANT;
	if (no_open)
		conn->want &= ~(unsigned)FUSE_CAP_ATOMIC_O_TRUNC;
	conn->max_write = MAX_WRITE;
	conn->max_background = MAX_BACKGROUND;
	conn->congestion_threshold = MAX_BACKGROUND * 3 / 4;
	conn->time_gran = 1;
	init.keep_opendir = !(conn->capable & FUSE_CAP_NO_OPENDIR_SUPPORT);
}

static const struct fuse_lowlevel_ops ops = {
	.init = on_init,
	.lookup = on_lookup,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.getattr = on_getattr,
	.setattr = on_setattr,
	.readlink = on_readlink,
	.mknod = on_mknod,
	.mkdir = on_mkdir,
	.symlink = on_symlink,
	.unlink = on_unlink,
	.rmdir = on_rmdir,
	.rename = on_rename,
	.link = on_link,
	.create = on_create,
	.open = on_open,
	.read = on_read,
	.write = on_write,
	.fsync = on_fsync,
	.fsyncdir = on_fsync,
	.fallocate = on_fallocate,
	.copy_file_range = on_copy,
	.opendir = on_opendir,
	.readdir = on_readdir,
	.readdirplus = on_readdirplus,
	.statfs = on_statfs,
};

/* As cowfs: libfuse before 3.17 does not know HANDLE_KILLPRIV_V2. */
static ssize_t raw_read(int fd, void *buf, size_t len, void *userdata)
{
	ssize_t got = read(fd, buf, len);
	const struct fuse_in_header *in = buf;
	const struct fuse_init_in *arg = (const void *)(in + 1);

	(void)userdata;
	if (got >= (ssize_t)(sizeof(*in) +
			     offsetof(struct fuse_init_in, flags2)) &&
	    in->opcode == FUSE_INIT) {
		init.unique = in->unique;
		init.killpriv = arg->flags & FUSE_HANDLE_KILLPRIV_V2;
	}
	return got;
}

static ssize_t raw_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct fuse_init_out *arg;

	(void)userdata;
	if (init.unique && out->unique == init.unique) {
		init.unique = 0;
		if (!out->error && init.killpriv && count >= 2) {
			arg = iov[1].iov_base;
			arg->flags |= FUSE_HANDLE_KILLPRIV_V2;
		}
	}
	return writev(fd, iov, count);
}

/* ---- dropping what the kernel has ---- */

/* The k-th name of the root, a copy; NULL: there are not that many. */
static bool root_name(size_t k, char **copy)
{
	bool more;

	*copy = NULL;
	pthread_mutex_lock(&big_lock);
	more = k < root.name_count;
	if (more && root.names[k])
		*copy = strdup(root.names[k]->text);
	pthread_mutex_unlock(&big_lock);
	return more;
}

/* With a name all below it goes, pages included. No lock is held meanwhile:
 * the kernel may ask for something first. */
static void *drop_on_signal(void *arg)
{
	struct fuse_session *se = arg;
	char *name;
	size_t k;
	int sig;

	for (;;) {
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		if (sigwait(&set, &sig))
			return NULL;
		for (k = 0; root_name(k, &name); k++) {
			if (name)
				fuse_lowlevel_notify_inval_entry(
					se, FUSE_ROOT_ID, name, strlen(name));
			free(name);
		}
		puts("dropped");
		fflush(stdout);
	}
}

static int start_dropper(struct fuse_session *se)
{
	pthread_t thread;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (pthread_create(&thread, NULL, drop_on_signal, se))
		return -1;
	return pthread_detach(thread);
}

static int serve(const char *dir, struct fuse_args *args, unsigned threads)
{
	static const struct fuse_custom_io io = {
		.read = raw_read,
		.writev = raw_writev,
	};
	struct fuse_loop_config *cfg = fuse_loop_cfg_create();
	struct fuse_session *se;
	int err = 1;

	se = fuse_session_new(args, &ops, sizeof(ops), NULL);
	if (!cfg || !se || fuse_session_mount(se, dir))
		goto out;
	if (!fuse_set_signal_handlers(se) && !start_dropper(se) &&
	    !fuse_session_custom_io(se, &io, fuse_session_fd(se))) {
		fuse_loop_cfg_set_max_threads(cfg, threads);
		err = threads == 1 ? fuse_session_loop(se) :
				     fuse_session_loop_mt(se, cfg);
		err = err < 0;
	}
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
out:
	if (se)
		fuse_session_destroy(se);
	if (cfg)
		fuse_loop_cfg_destroy(cfg);
	return err;
}

static int set_up(void)
{
	mallopt(M_MMAP_THRESHOLD, MMAP_FROM);
	buckets = calloc(bucket_count, sizeof(struct name *));
	root.st = (struct stat){
		.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0755,
		.st_nlink = 2, .st_uid = getuid(), .st_gid = getgid(),
		.st_blksize = 4096,
	};
	root.parent = &root;
	touch(&root);
	return buckets ? 0 : -1;
}

int main(int argc, char **argv)
{
	static char opts[] = "default_permissions,fsname=memfs,subtype=memfs";
	char *fuse_argv[] = { argv[0], (char *)"-o", opts, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);
	unsigned threads = 8;
	int c;

	while ((c = getopt(argc, argv, "1nt:")) != -1) {
		if (c == '1')
			threads = 1;
		else if (c == 'n')
			no_open = true;
		else if (c == 't')
			threads = (unsigned)strtoul(optarg, NULL, 10);
		else
			break;
	}
	if (c != -1 || optind != argc - 1 || !threads) {
		fprintf(stderr, "usage: memfs [-1n] [-t THREADS] DIR\n");
		return 2;
	}
	if (set_up())
		return 1;
	return serve(argv[optind], &args, threads);
}
