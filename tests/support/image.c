/* image.c - a filesystem with a bit of everything, and ways to damage it */
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cowfs/cowfs.h"
#include "support/image.h"
#include "support/mount.h"

struct bdev *dev;
struct store *store;
struct fs *fs;
struct seen seen;
struct check_result result;

/* ---- making an image ---- */

const struct cred root_cred;
uint64_t ino_dir, ino_sub, ino_small, ino_big, ino_link, ino_xattr;

uint64_t make_node(uint64_t dir, const char *name, uint32_t mode,
			  const char *target)
{
	struct attr a;

	ck_ok(fs_create(fs, dir, name, strlen(name), mode, 0, target,
			&root_cred, &a));
	return a.ino;
}

void fill(uint64_t ino, uint64_t off, size_t len, unsigned seed)
{
	uint8_t *buf = malloc(len);
	struct rng r;

	ck_assert_ptr_nonnull(buf);
	rng_init(&r, 1, seed);
	rng_fill(&r, buf, len);
	ck_ok(fs_write(fs, ino, off, buf, len, 0));
	free(buf);
}

static void populate(void)
{
	char name[32], target[1500], value[20000];
	struct attr a;

	ino_dir = make_node(1, "dir", S_IFDIR | 0755, NULL);
	ino_sub = make_node(ino_dir, "sub", S_IFDIR | 0755, NULL);
	ino_small = make_node(ino_dir, "small", S_IFREG | 0644, NULL);
	fill(ino_small, 0, 100, 1);
	ino_big = make_node(ino_dir, "big", S_IFREG | 0644, NULL);
	fill(ino_big, 0, BIG_BLOCKS * COWFS_BLOCK_SIZE, 2);
	ck_ok(fs_fallocate(fs, ino_big, FALLOC_FL_KEEP_SIZE, 400 << 12,
			   50 << 12, &root_cred));
	ck_ok(fs_fallocate(fs, ino_big,
			   FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, 8 << 12,
			   4 << 12, &root_cred));
	ino_link = make_node(1, "link", S_IFREG | 0644, NULL);
	ck_ok(fs_link(fs, ino_link, ino_sub, "other", 5, &a));
	ino_xattr = make_node(1, "xattr", S_IFREG | 0600, NULL);
	ck_ok(fs_setxattr(fs, ino_xattr, "user.a", "b", 1, 0, &root_cred));
	memset(value, 'v', sizeof(value));
	ck_ok(fs_setxattr(fs, ino_xattr, "user.large", value, sizeof(value), 0,
			  &root_cred));
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = 0;
	make_node(ino_sub, "symlink", S_IFLNK | 0777, target);
	make_node(ino_sub, "fifo", S_IFIFO | 0600, NULL);
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		fill(make_node(ino_sub, name, S_IFREG | 0644, NULL), 0,
		     i * 40, i + 3);
	}
}

void mount_it(void)
{
	struct store_config cfg = { .dev = dev };
	struct fs_options opt = { 0 };

	ck_ok(test_mount_with(&cfg, &opt, &store, &fs));
}

void unmount_it(void)
{
	if (!store)
		return;
	ck_ok(store_drain(store));
	fs_umount(fs);
	fs = NULL;
	ck_ok(store_close(store));
	store = NULL;
}

static void make_image(unsigned data_copies)
{
	struct cowfs_mkfs opt = { .node_size = 4096,
				  .data_copies = data_copies };

	ck_ok(bdev_open_mem(DEV_BYTES, &dev));
	ck_ok(cowfs_mkfs(dev, &opt));
	mount_it();
	populate();
}

void setup(void)
{
	test_log_hide();
	make_image(1);
}

void setup_two(void)
{
	test_log_hide();
	make_image(2);
}

void teardown(void)
{
	if (store) {
		fs_umount(fs);
		store_abandon(store);
	}
	bdev_close(dev);
	test_log_show();
}

/* ---- checking it ---- */

void note(void *arg, enum problem p, const char *where)
{
	(void)arg;
	seen.n[p]++;
	seen.total++;
	snprintf(seen.last, sizeof(seen.last), "%s: %s", problem_name(p),
		 where);
	if (getenv("VERBOSE"))
		printf("%s\n", seen.last);
}

int check_options(const struct check_options *opt)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_READONLY };
	struct store *s;
	int err = store_open(&cfg, &s);

	memset(&seen, 0, sizeof(seen));
	memset(&result, 0, sizeof(result));
	if (err) /* too damaged for a store */
		return check_device(dev, opt, &result);
	err = check_run(s, opt, &result);
	ck_ok(store_close(s));
	return err;
}

void check_fully(void)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = note };

	ck_ok(check_options(&opt));
	ck_assert_uint_eq(result.problems, seen.total);
}

void assert_clean(void)
{
	check_fully();
	ck_assert_msg(seen.total == 0, "%u problems, the last: %s", seen.total,
		      seen.last);
}

/* ---- changing items behind the back of the fs layer ---- */

static struct tree *tree_of(unsigned kind)
{
	return kind == COWFS_ROOT_FS ? &store->fs :
	       kind == COWFS_ROOT_COPIES ? &store->copies : &store->snap;
}

static int edit_locked(unsigned kind, const struct key *k, item_fn *fn)
{
	uint32_t len;
	void *data;
	int err = tree_prepare(tree_of(kind), k);

	if (!err)
		err = tree_edit(tree_of(kind), k, &data, &len);
	if (!err)
		fn(data, len);
	return err;
}

void edit(unsigned kind, struct key k, item_fn *fn)
{
	struct op op;
	int err;

	ck_ok(op_write(&op, store, ALLOC_NORMAL, 4));
	do
		err = edit_locked(kind, &k, fn);
	while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
}

void edit_inode(uint64_t ino, item_fn *fn)
{
	edit(COWFS_ROOT_FS, KEY(ino, COWFS_KEY_INODE, 0), fn);
}

static int put_locked(unsigned kind, const struct key *k, const void *data,
		      uint32_t len)
{
	int err = tree_prepare(tree_of(kind), k);

	return err ? err : tree_put(tree_of(kind), k, data, len);
}

void put(unsigned kind, struct key k, const void *data, uint32_t len)
{
	struct op op;
	int err;

	ck_ok(op_write(&op, store, ALLOC_NORMAL, 4));
	do
		err = put_locked(kind, &k, data, len);
	while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
}

static int del_locked(unsigned kind, const struct key *k)
{
	int err = tree_prepare(tree_of(kind), k);

	return err ? err : tree_delete(tree_of(kind), k);
}

void del(unsigned kind, struct key k)
{
	struct op op;
	int err;

	ck_ok(op_write(&op, store, ALLOC_NORMAL, 4));
	do
		err = del_locked(kind, &k);
	while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
}

/* First item of a type of an inode: its key, and a copy of its data. */
uint32_t get_first(unsigned kind, uint64_t obj, uint8_t type,
			  struct key *k, void *data)
{
	struct key from = KEY(obj, type, 0);
	uint32_t len = 0;
	struct cursor c;
	struct op op;
	int err;

	op_read(&op, store);
	do
		err = cursor_ceil(&c, tree_of(kind), &from);
	while (op_again(&op, &err));
	ck_ok(err);
	ck_assert(c.key.type == type);
	*k = c.key;
	len = c.item.len;
	memcpy(data, c.item.data, len);
	ck_ok(op_end(&op, err));
	return len;
}

uint64_t slot_of(const char *name)
{
	uint64_t h = siphash(store->super.hash_seed, name, strlen(name)) &
		     ((UINT64_C(1) << 55) - 1);

	return (h ? h : 1) << 8;
}

void put_dirent(uint64_t dir, const char *name, uint64_t at,
		       uint64_t ino, uint8_t type)
{
	struct {
		struct cowfs_disk_dirent d;
		char name[256];
	} e = { .d = { .ino = to_le64(ino), .type = type } };

	memcpy(e.name, name, strlen(name));
	put(COWFS_ROOT_FS, KEY(dir, COWFS_KEY_DIRENT, at), &e,
	    (uint32_t)(sizeof(e.d) + strlen(name)));
}

uint8_t scratch[65536];

/* ---- changing bytes on the device ---- */

/* Change the node at `level` on the way to k, and set the checksums above. */
static void patch_below(struct nptr *p, const struct key *k, unsigned level,
			node_fn *fn)
{
	size_t size = 4096; /* node size of these images */
	uint8_t *node = malloc(size);
	unsigned slot = 0, n;

	ck_assert_ptr_nonnull(node);
	ck_ok(bdev_read(dev, p->blk << 12, node, size));
	n = node_count(node);
	for (unsigned i = 0; i < n; i++) {
		struct key at = node_key(node, i);

		if (key_cmp(&at, k) <= 0)
			slot = i;
	}
	if (p->level == level) {
		fn(node, slot);
	} else {
		struct nptr child = node_child(node, slot);
		struct cowfs_disk_child *c =
			(void *)(node + sizeof(struct cowfs_disk_node));

		patch_below(&child, k, level, fn);
		c[slot].ptr.csum = to_le32(child.csum);
	}
	p->csum = checksum(0, node, size);
	ck_ok(bdev_write(dev, p->blk << 12, node, size));
	if (p->blk2)
		ck_ok(bdev_write(dev, p->blk2 << 12, node, size));
	free(node);
}

struct cowfs_disk_super get_super(void)
{
	struct super_scan scan;

	ck_ok(super_scan(dev, &scan));
	return scan.found[0].d;
}

void put_super(struct cowfs_disk_super *d)
{
	struct blockio io;

	super_seal(d);
	block_init(&io, dev, from_le64(d->total_blocks), false);
	ck_ok(super_write(&io, d));
}

void patch(unsigned kind, struct key k, unsigned level, node_fn *fn)
{
	struct cowfs_disk_super d = get_super();
	struct nptr root = nptr_from_disk(&d.roots[kind].ptr);

	ck_assert(root.level >= level);
	patch_below(&root, &k, level, fn);
	d.roots[kind].ptr = nptr_to_disk(&root);
	put_super(&d);
}


uint64_t big_block(void)
{
	struct cowfs_disk_extent d;
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	memcpy(&d, scratch, sizeof(d));
	return from_le64(d.blk);
}

void flip_block(uint64_t blk)
{
	flip_bit(dev, (blk << 12) + 77, 3);
}

void share_something(void)
{
	ck_ok(snap_create(store, "s", NULL));
	fill(ino_big, 0, 5000, 77);
	make_node(1, "more", S_IFREG | 0644, NULL);
}

void nlink_more(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->nlink = to_le32(from_le32(d->nlink) + 1);
}
