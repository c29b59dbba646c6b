/*
 * inode.c - inodes: the items in the tree, and who uses them in memory
 *
 *   N1  An inode item is verified field by field each time it is read.
 *   N2  A struct inode exists exactly while somebody refers to its number, has
 *       it open, or runs an operation on its contents; it holds no attributes.
 *   N3  Handles are counted under the tree lock, so that removing a name and
 *       opening cannot miss each other. Kernel references are not: whoever
 *       looks up a number while its last name goes gets -ESTALE on use.
 */
#include "fs/private.h"

#include <inttypes.h>
#include <sys/stat.h>

#define NSEC_MAX 999999999u
#define DAY 86400
#define GROUP 8u /* inode numbers with chains beside each other */

/* ---- the item ---- */

static bool times_ok(const struct cowfs_disk_inode *d)
{
	return from_le32(d->atime.nsec) <= NSEC_MAX &&
	       from_le32(d->mtime.nsec) <= NSEC_MAX &&
	       from_le32(d->ctime.nsec) <= NSEC_MAX &&
	       from_le32(d->btime.nsec) <= NSEC_MAX;
}

static bool kind_ok(const struct cowfs_disk_inode *d)
{
	uint32_t mode = from_le32(d->mode);
	uint64_t size = from_le64(d->size), parent = from_le64(d->parent);

	if (mode & ~(uint32_t)(S_IFMT | 07777))
		return false;
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return parent && parent <= COWFS_INO_MAX;
	case S_IFLNK:
		return size && size <= COWFS_SYMLINK_MAX;
	case S_IFREG:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	}
	return false;
}

/* NULL, or what is wrong with it. */
static const char *inode_wrong(const struct cowfs_disk_inode *d)
{
	if (!kind_ok(d))
		return "impossible kind of file";
	if (!times_ok(d))
		return "impossible time";
	if (from_le64(d->size) > COWFS_FILE_SIZE_MAX)
		return "impossible size";
	if (from_le64(d->blocks) > COWFS_FILE_BLOCKS_MAX)
		return "impossible block count";
	if (from_le32(d->nlink) > COWFS_LINK_MAX)
		return "impossible link count";
	if (from_le32(d->flags) & ~COWFS_INODE_KNOWN_FLAGS)
		return "unknown flags";
	return NULL;
}

int inode_read(struct tree *t, uint64_t ino, struct cowfs_disk_inode *out)
{
	struct key k = INODE_KEY(ino);
	const char *wrong;
	struct item it;
	int err;

	if (!ino || ino > COWFS_INO_MAX)
		return -ESTALE;
	err = tree_get(t, &k, &it);
	if (err == -ENOENT)
		return -ESTALE;
	if (err)
		return err;
	if (it.len != sizeof(*out))
		return report(-ECOW_CORRUPT,
			      "inode %" PRIu64 ": item of %" PRIu32 " bytes",
			      ino, it.len);
	wrong = inode_wrong(it.data);
	if (wrong)
		return report(-ECOW_CORRUPT, "inode %" PRIu64 ": %s", ino,
			      wrong);
	memcpy(out, it.data, sizeof(*out));
	return 0;
}

int inode_write(struct fs *fs, uint64_t ino, struct cowfs_disk_inode *d)
{
	struct key k = INODE_KEY(ino);

	d->change = to_le64(forest_gen(fs->s->forest));
	return tree_put(&fs->s->fs, &k, d, sizeof(*d));
}

/* 512-byte units. Contents in the leaf count as what they are: a file of 0
 * blocks is taken for one big hole by tar and others. */
static uint64_t st_blocks(const struct cowfs_disk_inode *d)
{
	if (from_le32(d->flags) & COWFS_INODE_INLINE)
		return (from_le64(d->size) + 511) / 512;
	return from_le64(d->blocks) * (COWFS_BLOCK_SIZE / 512);
}

void inode_to_attr(const struct cowfs_disk_inode *d, uint64_t ino,
		   struct attr *out)
{
	bool dir = S_ISDIR(from_le32(d->mode));

	*out = (struct attr){
		.ino = ino,
		.gen = from_le64(d->gen),
		.mode = from_le32(d->mode),
		.nlink = from_le32(d->nlink),
		.uid = from_le32(d->uid),
		.gid = from_le32(d->gid),
		.rdev = from_le32(d->rdev),
		.flags = from_le32(d->flags) & COWFS_INODE_USER_FLAGS,
		.size = from_le64(d->size),
		.blocks = st_blocks(d),
		.atime = time_from_disk(d->atime),
		.mtime = time_from_disk(d->mtime),
		.ctime = time_from_disk(d->ctime),
		.btime = time_from_disk(d->btime),
	};
	/* Entries are no bytes, but programs expect some in a directory. */
	if (dir)
		out->size = min_u64(out->size, COWFS_FILE_SIZE_MAX / 32) * 32;
}

void inode_touch(struct cowfs_disk_inode *d, bool mtime)
{
	d->ctime = time_to_disk(now_real());
	if (mtime)
		d->mtime = d->ctime;
}

bool inode_kill_suid(struct cowfs_disk_inode *d, bool member)
{
	uint32_t mode = from_le32(d->mode), kill = 0;

	if (!S_ISREG(mode))
		return false;
	if (mode & S_ISUID)
		kill |= S_ISUID;
	if ((mode & S_ISGID) && (!member || (mode & S_IXGRP)))
		kill |= S_ISGID;
	d->mode = to_le32(mode & ~kill);
	return kill != 0;
}

/* ---- access times ---- */

static bool time_before(struct cowfs_disk_time a, struct cowfs_disk_time b)
{
	struct timespec64 x = time_from_disk(a), y = time_from_disk(b);

	return x.sec < y.sec || (x.sec == y.sec && x.nsec < y.nsec);
}

/* relatime: once after each change, else once a day. */
static bool access_due(const struct fs *fs, const struct cowfs_disk_inode *d)
{
	struct timespec64 at = time_from_disk(d->atime);

	if (fs->opt.strictatime)
		return true;
	if (!time_before(d->mtime, d->atime) ||
	    !time_before(d->ctime, d->atime))
		return true;
	return at.sec <= now_real().sec - DAY;
}

static int note_access(struct fs *fs, uint64_t ino)
{
	struct cowfs_disk_inode d;
	struct key k = INODE_KEY(ino);
	int err;

	err = inode_read(&fs->s->fs, ino, &d);
	if (err || !access_due(fs, &d))
		return err;
	err = tree_prepare(&fs->s->fs, &k);
	if (err)
		return err;
	d.atime = time_to_disk(now_real());
	return inode_write(fs, ino, &d);
}

bool inode_note_access(struct fs *fs, uint64_t ino,
		       const struct cowfs_disk_inode *d)
{
	struct op op;
	int err;

	if (atomic_load(&fs->noatime) || fs->opt.readonly || store_stopped(fs->s) ||
	    (from_le32(d->flags) & COWFS_INODE_NOATIME) || !access_due(fs, d))
		return false;
	/* A time is not worth a commit on a full disk, nor the reserve. */
	if (alloc_check(fs->s->alloc, ALLOC_NORMAL, 2) ||
	    fs_op_write(fs, &op, ALLOC_NORMAL, 1))
		return false;
	do
		err = note_access(fs, ino);
	while (op_again(&op, &err));
	/* The reader has what it asked for; damage shows when it matters. */
	return op_end(&op, err) == 0;
}

/* ---- inodes in memory; table_lock ---- */

/*
 * Numbers that follow each other, as those of a directory's files mostly do, have
 * their chains beside each other: one line of the processor's cache has eight.
 * Which of a group's chains is the first depends on the group, so that numbers
 * at regular distances do not meet.
 */
static struct inode **chain(struct fs *fs, uint64_t ino)
{
	uint64_t group = hash_u64(ino / GROUP);

	return &fs->table[(group * GROUP + (ino + (group >> 32)) % GROUP) &
			  (fs->buckets - 1)];
}

static struct inode *find(struct fs *fs, uint64_t ino)
{
	struct inode *in = *chain(fs, ino);

	while (in && in->ino != ino)
		in = in->next;
	return in;
}

/* Twice the chains. Without memory for them the old ones do, if slower. */
static void grow(struct fs *fs)
{
	struct inode **table, **old = fs->table;
	struct inode *in, **at;
	struct list *l;

	table = calloc(fs->buckets * 2, sizeof(*table));
	if (!table)
		return;
	fs->table = table;
	fs->buckets *= 2;
	list_for_each(l, &fs->inodes) {
		in = list_entry(l, struct inode, all);
		at = chain(fs, in->ino);
		in->next = *at;
		*at = in;
	}
	free(old);
}

static struct inode *find_or_make(struct fs *fs, uint64_t ino)
{
	struct inode *in = find(fs, ino), **at;

	if (in)
		return in;
	in = calloc(1, sizeof(*in));
	if (!in)
		return NULL;
	if (fs->count >= fs->buckets / 2)
		grow(fs);
	in->ino = ino;
	mutex_init_numbered(&in->lock, LOCK_INODE, ino);
	at = chain(fs, ino);
	in->next = *at;
	*at = in;
	list_append(&fs->inodes, &in->all);
	fs->count++;
	return in;
}

static void forget(struct fs *fs, struct inode *in)
{
	struct inode **at = chain(fs, in->ino);

	while (*at != in)
		at = &(*at)->next;
	*at = in->next;
	list_remove(&in->all);
	if (in->writers)
		list_remove(&in->written);
	fs->count--;
	mutex_fini(&in->lock);
	free(in);
}

/* Forget an inode that nobody uses any more. True: it was an orphan and is the
 * background's business now. */
static bool let_go(struct fs *fs, struct inode *in)
{
	bool orphan = in->orphan;

	if (in->refs || in->opens || in->users || in->fresh)
		return false;
	if (orphan)
		orphan_queue(fs, in->ino);
	forget(fs, in);
	return orphan;
}

struct inode *inode_get(struct fs *fs, uint64_t ino)
{
	struct inode *in;

	mutex_lock(&fs->table_lock);
	in = find_or_make(fs, ino);
	if (in)
		in->users++;
	mutex_unlock(&fs->table_lock);
	return in;
}

void inode_put(struct fs *fs, struct inode *in)
{
	bool wake;

	if (!in)
		return;
	mutex_lock(&fs->table_lock);
	in->users--;
	wake = let_go(fs, in);
	mutex_unlock(&fs->table_lock);
	if (wake)
		store_wake(fs->s, WORK_ORPHAN);
}

void inode_set_orphan(struct fs *fs, uint64_t ino, bool orphan)
{
	struct inode *in;
	bool wake = false;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	if (in) {
		in->orphan = orphan;
		if (!orphan)
			in->fresh = false;
		wake = let_go(fs, in);
	} else if (orphan) {
		orphan_queue(fs, ino);
		wake = true;
	}
	mutex_unlock(&fs->table_lock);
	if (wake)
		store_wake(fs->s, WORK_ORPHAN);
}

bool inode_in_use(struct fs *fs, uint64_t ino, bool opens_only)
{
	struct inode *in;
	bool used;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	used = in && (in->opens || (!opens_only && (in->refs || in->fresh)));
	mutex_unlock(&fs->table_lock);
	return used;
}

bool inode_orphan_idle(struct fs *fs, uint64_t ino)
{
	struct inode *in;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	if (in)
		in->orphan = true;
	mutex_unlock(&fs->table_lock);
	return !in;
}

int inode_make_fresh(struct fs *fs, uint64_t ino)
{
	struct inode *in;

	mutex_lock(&fs->table_lock);
	in = find_or_make(fs, ino);
	if (in) {
		in->fresh = true;
		in->orphan = true;
	}
	mutex_unlock(&fs->table_lock);
	return in ? 0 : -ENOMEM;
}

void inode_tree_replaced(struct fs *fs)
{
	struct list *l, *tmp;
	struct inode *in;

	mutex_lock(&fs->table_lock);
	orphan_unqueue(fs);
	list_for_each_safe(l, tmp, &fs->inodes) {
		in = list_entry(l, struct inode, all);
		in->refs = 0;
		in->orphan = false;
		in->fresh = false;
		in->lost = 0; /* with all else that the old tree had */
		let_go(fs, in);
	}
	mutex_unlock(&fs->table_lock);
}

/* ---- references and handles ---- */

int fs_ref(struct fs *fs, uint64_t ino)
{
	struct inode *in;

	mutex_lock(&fs->table_lock);
	in = find_or_make(fs, ino);
	if (in) {
		in->refs++;
		in->fresh = false;
	}
	mutex_unlock(&fs->table_lock);
	return in ? 0 : -ENOMEM;
}

void fs_unref(struct fs *fs, uint64_t ino, uint64_t n)
{
	struct inode *in;
	bool wake = false;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	if (in) {
		in->refs -= min_u64(n, in->refs);
		wake = let_go(fs, in);
	}
	mutex_unlock(&fs->table_lock);
	if (wake)
		store_wake(fs->s, WORK_ORPHAN);
}

/* *again: it is, or was, open otherwise. */
static int count_handle(struct fs *fs, uint64_t ino, bool write, bool orphan,
			bool *again)
{
	struct inode *in;

	mutex_lock(&fs->table_lock);
	/* An orphan that nobody held may be half removed. */
	in = orphan ? find(fs, ino) : find_or_make(fs, ino);
	if (in) {
		*again = in->opens || in->opened;
		in->opens++;
		if (write && !in->writers++)
			list_append(&fs->written, &in->written);
		in->fresh = false;
	}
	mutex_unlock(&fs->table_lock);
	return in ? 0 : orphan ? -ESTALE : -ENOMEM;
}

static int open_locked(struct fs *fs, uint64_t ino, bool write, bool append,
		       struct cowfs_disk_inode *d, bool *again)
{
	struct tree *t = view_tree(fs, &fs->live);
	uint32_t flags;
	int err;

	if (!t)
		return -ESTALE;
	err = inode_read(t, ino, d);
	if (err)
		return err;
	flags = from_le32(d->flags);
	if (write && ((flags & COWFS_INODE_IMMUTABLE) ||
		      ((flags & COWFS_INODE_APPEND) && !append)))
		return -EPERM;
	return count_handle(fs, ino, write, !from_le32(d->nlink), again);
}

int fs_open(struct fs *fs, uint64_t ino, bool write, bool append)
{
	return fs_open_cached(fs, ino, write, append, NULL);
}

int fs_open_cached(struct fs *fs, uint64_t ino, bool write, bool append,
		   bool *noted)
{
	struct cowfs_disk_inode d;
	bool again = false;
	struct op op;
	int err;

	if (write && fs->opt.readonly)
		return -EROFS;
	op_read(&op, fs->s);
	do
		err = open_locked(fs, ino, write, append, &d, &again);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (noted)
		*noted = !err && again && inode_note_access(fs, ino, &d);
	return err;
}

void fs_release(struct fs *fs, uint64_t ino, bool write, bool *last_writer)
{
	struct inode *in;
	bool wake = false, last = false;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	if (in && in->opens) {
		in->opens--;
		in->opened = true;
		if (write && in->writers) {
			last = !--in->writers;
			if (last) {
				list_remove(&in->written);
				in->lost = 0;
			}
		}
		wake = let_go(fs, in);
	}
	mutex_unlock(&fs->table_lock);
	if (wake)
		store_wake(fs->s, WORK_ORPHAN);
	if (last_writer)
		*last_writer = last;
}

bool fs_is_written(struct fs *fs, uint64_t ino)
{
	struct inode *in;
	bool written;

	mutex_lock(&fs->table_lock);
	in = find(fs, ino);
	written = in && in->writers;
	mutex_unlock(&fs->table_lock);
	return written;
}

void fs_each_writer(struct fs *fs, fs_each_fn *fn, void *arg)
{
	struct list *l;

	mutex_lock(&fs->table_lock);
	list_for_each(l, &fs->written)
		fn(arg, list_entry(l, struct inode, written)->ino, true);
	mutex_unlock(&fs->table_lock);
}

/* The one whose turn it is is kept by a user count meanwhile, and with it the
 * place in the list. */
void fs_each_ref(struct fs *fs, fs_each_fn *fn, void *arg)
{
	struct inode *in;
	struct list *l;
	bool wake = false, open;

	mutex_lock(&fs->table_lock);
	for (l = fs->inodes.next; l != &fs->inodes;) {
		in = list_entry(l, struct inode, all);
		if (in->refs) {
			in->users++;
			open = in->opens;
			mutex_unlock(&fs->table_lock);
			fn(arg, in->ino, open);
			mutex_lock(&fs->table_lock);
			in->users--;
		}
		l = l->next;
		wake |= let_go(fs, in);
	}
	mutex_unlock(&fs->table_lock);
	if (wake)
		store_wake(fs->s, WORK_ORPHAN);
}

void inode_note_lost(struct fs *fs, struct inode *in, int err)
{
	mutex_lock(&fs->table_lock);
	if (in->writers)
		in->lost = err;
	mutex_unlock(&fs->table_lock);
}

int fs_take_lost(struct fs *fs)
{
	struct list *l;
	int err = 0;

	mutex_lock(&fs->table_lock);
	list_for_each(l, &fs->written) {
		struct inode *in = list_entry(l, struct inode, written);

		if (in->orphan) /* no snapshot shows it, unless it gets a name */
			continue;
		if (in->lost)
			err = in->lost;
		in->lost = 0;
	}
	mutex_unlock(&fs->table_lock);
	return err;
}
