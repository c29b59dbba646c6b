/*
 * memfs_names.c - memfs: names, inodes, and the callbacks for them
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "memfs.h"

pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
struct inode root;

static struct name **buckets;
static size_t bucket_count = 1024, total_names;
static uint64_t last_ino = FUSE_ROOT_ID;

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

void touch(struct inode *i)
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

struct stat stat_of(const struct inode *i)
{
	struct stat st = i->st;

	st.st_blocks = (st.st_size + 4095) / 4096 * 8;
	return st;
}

void entry_of(struct inode *i, struct fuse_entry_param *e)
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

int names_init(void)
{
	buckets = calloc(bucket_count, sizeof(struct name *));
	if (!buckets)
		return -ENOMEM;
	root.st = (struct stat){
		.st_ino = FUSE_ROOT_ID, .st_mode = S_IFDIR | 0755,
		.st_nlink = 2, .st_uid = getuid(), .st_gid = getgid(),
		.st_blksize = 4096,
	};
	root.parent = &root;
	touch(&root);
	return 0;
}

void ops_names(struct fuse_lowlevel_ops *ops)
{
	ops->lookup = on_lookup;
	ops->forget = on_forget;
	ops->forget_multi = on_forget_multi;
	ops->readlink = on_readlink;
	ops->mknod = on_mknod;
	ops->mkdir = on_mkdir;
	ops->symlink = on_symlink;
	ops->unlink = on_unlink;
	ops->rmdir = on_rmdir;
	ops->rename = on_rename;
	ops->link = on_link;
	ops->create = on_create;
}
