/*
 * mount.c - a filesystem on an opened store: making it, mounting, free space
 */
#include "fs/data.h"

#include <inttypes.h>
#include <sys/stat.h>

int fs_op_write(struct fs *fs, struct op *op, enum alloc_class cls,
		unsigned leaves)
{
	if (fs->opt.readonly)
		return -EROFS;
	return op_write(op, fs->s, cls, leaves);
}

void fs_set_noatime(struct fs *fs, bool noatime)
{
	atomic_store(&fs->noatime, noatime);
}

struct store *fs_store(struct fs *fs)
{
	return fs->s;
}

/* ---- making ---- */

static int format_locked(struct store *s, const struct cowfs_disk_inode *root)
{
	struct key k = INODE_KEY(COWFS_INO_ROOT);
	int err;

	err = tree_prepare(&s->fs, &k);
	return err ? err : tree_insert(&s->fs, &k, root, sizeof(*root), NULL);
}

int fs_format(struct store *s, uint32_t uid, uint32_t gid, uint32_t mode)
{
	struct cowfs_disk_inode d;
	struct op op;
	int err;

	memset(&d, 0, sizeof(d));
	d.mode = to_le32(S_IFDIR | (mode & 07777));
	d.uid = to_le32(uid);
	d.gid = to_le32(gid);
	d.nlink = to_le32(2);
	d.parent = to_le64(COWFS_INO_ROOT);
	inode_touch(&d, true);
	d.atime = d.btime = d.ctime;
	err = op_write(&op, s, ALLOC_NORMAL, 1);
	if (err)
		return err;
	d.gen = d.change = to_le64(forest_gen(s->forest));
	do
		err = format_locked(s, &d);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	return err ? err : store_commit(s, NULL, NULL);
}

/* ---- mounting ---- */

static struct fs *fs_new(struct store *s, const struct fs_options *opt)
{
	struct fs *fs = calloc(1, sizeof(*fs));

	if (!fs)
		return NULL;
	fs->table = calloc(FS_HASH, sizeof(struct inode *));
	if (!fs->table) {
		free(fs);
		return NULL;
	}
	fs->buckets = FS_HASH;
	fs->s = s;
	fs->opt.readonly = opt->readonly || opt->snapshot || store_readonly(s);
	atomic_init(&fs->noatime, opt->noatime);
	fs->opt.strictatime = opt->strictatime;
	memcpy(fs->hash_seed, s->super.hash_seed, sizeof(fs->hash_seed));
	mutex_init(&fs->table_lock, LOCK_LEAF);
	mutex_init(&fs->views_lock, LOCK_VIEWS);
	cond_init(&fs->reaped);
	list_init(&fs->inodes);
	list_init(&fs->written);
	list_init(&fs->reap);
	return fs;
}

static void fs_free(struct fs *fs)
{
	struct view *v;
	struct inode *in;
	struct list *l;

	orphan_unqueue(fs);
	while (!list_empty(&fs->inodes)) {
		l = fs->inodes.next;
		in = list_entry(l, struct inode, all);
		list_remove(l);
		mutex_fini(&in->lock);
		free(in);
	}
	while (fs->views) {
		v = fs->views;
		fs->views = v->next;
		free(v);
	}
	pthread_cond_destroy(&fs->reaped);
	mutex_fini(&fs->views_lock);
	mutex_fini(&fs->table_lock);
	free(fs->table);
	free(fs);
}

static int check_root(struct fs *fs)
{
	struct cowfs_disk_inode d;
	struct tree *t;
	struct op op;
	int err;

	op_read(&op, fs->s);
	do {
		t = view_tree(fs, &fs->live);
		err = t ? dir_read(t, COWFS_INO_ROOT, &d) : -ESTALE;
	} while (op_again(&op, &err));
	err = op_end(&op, err);
	if (err == -ESTALE || err == -ENOTDIR)
		err = report(-ECOW_CORRUPT, "there is no root directory");
	return err;
}

static int show_snapshot(struct fs *fs, const char *name)
{
	struct snap_info info;
	int err;

	err = snap_find(fs->s, name, &info);
	if (err)
		return err;
	fs->live.snap_id = info.id;
	snap_tree(fs->s, &info, &fs->live.tree);
	return 0;
}

int fs_mount(struct store *s, const struct fs_options *opt, struct fs **out)
{
	struct fs *fs = fs_new(s, opt);
	int err = 0;

	if (!fs)
		return -ENOMEM;
	if (opt->snapshot)
		err = show_snapshot(fs, opt->snapshot);
	if (!err)
		err = check_root(fs);
	if (!err && !fs->opt.readonly) {
		store_set_work(s, WORK_ORPHAN, orphan_work, fs);
		err = orphan_scan(fs);
		if (err)
			store_set_work(s, WORK_ORPHAN, NULL, NULL);
	}
	if (err) {
		fs_free(fs);
		return err;
	}
	*out = fs;
	return 0;
}

void fs_umount(struct fs *fs)
{
	if (!fs)
		return;
	if (!fs->opt.readonly) {
		store_set_work(fs->s, WORK_ORPHAN, NULL, NULL);
		orphan_stop(fs);
	}
	fs_free(fs);
}

/* ---- free space ---- */

/* Of the space left, what extents and checksums of file data will take: 4 bytes
 * for each block, twice, and their nodes. */
#define DATA_PER_META 256

/* Inode, entry and a share of the nodes above: about this many to a block. */
#define INODES_PER_BLOCK 8

/* Of what the reserve leaves: the nodes of what is written, and of the last
 * operation that finds room. */
static uint64_t for_data(struct fs *fs, unsigned level, uint64_t avail)
{
	uint64_t nodes = (uint64_t)data_leaves(fs, 1, 0) *
			 (level + 2u);
	uint64_t last = nodes * fs->s->super.meta_copies * 2 *
			(forest_node_size(fs->s->forest) / COWFS_BLOCK_SIZE);

	avail -= avail / DATA_PER_META;
	return avail > last ? avail - last : 0;
}

int fs_statfs(struct fs *fs, struct fs_statfs *out)
{
	struct store *s = fs->s;
	struct alloc_info info;
	uint64_t made, room, nodes, copied;
	unsigned level;
	struct op op;
	int err;

	op_read(&op, s);
	made = from_le64(s->super.next_ino) - COWFS_INO_FIRST + 1;
	nodes = s->fs.nodes;
	level = s->fs.root.level;
	copied = s->copied;
	err = op_end(&op, 0);
	if (err)
		return err;
	alloc_info(s->alloc, &info);
	/* Extra copies go when somebody wants their space. */
	info.free = min_u64(info.free + copied, info.blocks);
	info.avail = info.free > info.reserve ? info.free - info.reserve : 0;
	room = info.avail * INODES_PER_BLOCK / s->super.meta_copies;
	*out = (struct fs_statfs){
		.blocks = info.blocks,
		.free = info.free,
		.avail = for_data(fs, level, info.avail),
	};
	/* Inodes are not counted: no more than were ever made, and no more
	 * than the tree has room for. */
	out->files = min_u64(made, nodes * (forest_node_size(s->forest) /
					    COWFS_BLOCK_SIZE) * 16);
	out->files_free = min_u64(room, COWFS_INO_MAX - made);
	out->files += out->files_free;
	return 0;
}
