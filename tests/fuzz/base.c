/*
 * base.c - small images with a bit of everything, to be damaged
 *
 * Everything that changes how a tree looks is fixed (uuid, hash seed, order of
 * events), so that a recipe means the same each time it runs.
 */
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/fs.h"
#include "fuzz/hostile.h"

enum base_end {
	END_CLEAN, /* unmounted */
	END_LOG,   /* killed after an fsync that went to the log */
	END_KILL,  /* killed after a commit in one flush */
};

enum base_with {
	WITH_COPIES = 1, /* extra copies of data, and a scrub's report */
	WITH_SIDES = 2,  /* a mirror */
	WITH_STALE = 4,  /* of which side 1 missed the last mount */
};

static const struct base_kind {
	uint64_t blocks;
	uint32_t node_size;
	unsigned meta_copies, data_copies, files;
	enum base_end end;
	unsigned with; /* enum base_with */
} kinds[BASE_KINDS] = {
	{ 2048, 4096, 1, 1, 40, END_CLEAN, 0 },
	{ 2048, 4096, 2, 2, 40, END_CLEAN, 0 },
	{ 2048, 16384, 2, 1, 60, END_CLEAN, 0 },
	{ 2048, 4096, 2, 1, 40, END_LOG, 0 },
	{ 2048, 4096, 1, 2, 40, END_KILL, 0 },
	{ 4096, 65536, 1, 1, 60, END_CLEAN, 0 },
	{ 4096, 4096, 1, 1, 240, END_CLEAN, 0 }, /* three levels */
	{ 2048, 4096, 1, 1, 40, END_CLEAN, WITH_COPIES },
	{ 2048, 4096, 1, 1, 40, END_LOG, WITH_SIDES },
	{ 2048, 4096, 2, 1, 20, END_LOG,
	  WITH_SIDES | WITH_STALE | WITH_COPIES },
};

static const struct cred cred;

void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "making an image: %s: %s\n", what, strerror(-err));
	abort();
}

/* ---- contents ---- */

static uint64_t make(struct fs *fs, uint64_t dir, const char *name,
		     uint32_t mode, const char *target)
{
	struct attr a;

	must(fs_create(fs, dir, name, strlen(name), mode, 0, target, &cred, &a),
	     name);
	return a.ino;
}

static void fill(struct fs *fs, uint64_t ino, uint64_t off, size_t len)
{
	uint8_t *buf = malloc(len);
	struct rng r;

	if (!buf)
		abort();
	rng_init(&r, 1, ino + off);
	rng_fill(&r, buf, len);
	must(fs_write(fs, ino, off, buf, len, 0), "write");
	free(buf);
}

static void make_files(struct fs *fs, uint64_t dir, unsigned n)
{
	uint8_t value[900];
	char name[256];
	uint64_t ino;

	memset(value, 'v', sizeof(value));
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "file-%u", i);
		if (i % 2) { /* long ones fill leaves */
			memset(name + strlen(name), 'x', 190);
			name[190] = '\0';
		}
		ino = make(fs, dir, name, S_IFREG | 0644, NULL);
		if (i % 3 == 0)
			fill(fs, ino, 0, i % 100 + 1);
		if (i % 5 == 0 || n > 100)
			must(fs_setxattr(fs, ino, "user.v", value,
					 600 + i % 100, 0, &cred), "setxattr");
		if (i % 20 == 0)
			fill(fs, ino, 8192, 5000);
	}
}

static void make_big(struct fs *fs, uint64_t dir)
{
	uint64_t big = make(fs, dir, "big", S_IFREG | 0644, NULL);
	uint64_t clone = make(fs, dir, "clone", S_IFREG | 0644, NULL);
	uint64_t copied;

	fill(fs, big, 0, 60 << 12);
	must(fs_fallocate(fs, big, FALLOC_FL_KEEP_SIZE, 70 << 12, 9 << 12,
			  &cred), "fallocate");
	must(fs_fallocate(fs, big, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
			  8 << 12, 4 << 12, &cred), "punch");
	fill(fs, big, 30 << 12, 4096);
	must(fs_copy_range(fs, fs_live(fs), big, 0, clone, 0, 40 << 12,
			   &copied), "copy");
	fill(fs, make(fs, dir, "sparse", S_IFREG | 0644, NULL),
	     UINT64_C(1) << 40, 10000);
}

static void make_special(struct fs *fs, uint64_t dir)
{
	uint8_t value[5000];
	char target[900];
	uint64_t ino;
	struct attr a;

	memset(value, 'w', sizeof(value));
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = '\0';
	make(fs, dir, "symlink", S_IFLNK | 0777, target);
	make(fs, dir, "short", S_IFLNK | 0777, "file-1");
	make(fs, dir, "fifo", S_IFIFO | 0600, NULL);
	ino = make(fs, dir, "xattr", S_IFREG | 0600, NULL);
	must(fs_setxattr(fs, ino, "user.a", "b", 1, 0, &cred), "setxattr");
	must(fs_setxattr(fs, ino, "user.large", value, sizeof(value), 0,
			 &cred), "setxattr");
	must(fs_link(fs, ino, COWFS_INO_ROOT, "link", 4, &a), "link");
	must(fs_tmpfile(fs, dir, 0600, &cred, &a), "tmpfile");
	fill(fs, a.ino, 0, 20000);
}

/* Each block by itself, in such an order that their copies are, too: a tree of
 * two levels. */
static void make_scattered(struct fs *fs, uint64_t dir)
{
	uint64_t ino = make(fs, dir, "scattered", S_IFREG | 0644, NULL);

	for (uint64_t i = 160; i-- > 0;)
		fill(fs, ino, i << 13, 4096);
}

/* Data that nobody can mend; then a scrub has a look. */
static void make_damage(struct base *b, struct store *s, struct fs *fs)
{
	uint64_t ino = make(fs, COWFS_INO_ROOT, "lone", S_IFREG | 0644, NULL);
	struct scrub *sc;
	struct fs_map m;

	fill(fs, ino, 0, 30000);
	must(store_commit(s, NULL, NULL), "commit");
	must(fs_map(fs, fs_live(fs), ino, 8192, &m), "map");
	flat_edit(b->dev, m.blk, 1)[100] ^= 1;
	if (b->other)
		flat_edit(b->other, m.blk, 1)[100] ^= 1;
	must(scrub_new(s, &sc), "scrub");
	must(scrub_here(sc, false, 0, NULL, NULL), "scrub");
	scrub_free(sc);
}

static void make_copies(struct store *s)
{
	must(redun_start(s), "redundancy");
	must(redun_set(s, 2), "redundancy");
	must(store_drain(s), "copies");
	if (store_copied(s) < 160)
		must(-ENODATA, "copies");
}

/* Snapshots, one of them half let go of, and one that was restored. */
static void populate(struct store *s, struct fs *fs, unsigned files,
		     unsigned with)
{
	uint64_t dir = make(fs, COWFS_INO_ROOT, "dir", S_IFDIR | 0755, NULL);
	uint64_t sub = make(fs, dir, "sub", S_IFDIR | 0755, NULL);

	make_files(fs, sub, files);
	make_big(fs, dir);
	make_special(fs, dir);
	if (with & WITH_COPIES)
		make_scattered(fs, dir);
	must(snap_create(s, "one", NULL), "snapshot");
	fill(fs, make(fs, dir, "after-one", S_IFREG | 0644, NULL), 0, 9000);
	must(snap_create(s, "two", NULL), "snapshot");
	must(fs_unlink(fs, dir, "clone", 5, NULL), "unlink");
	make_files(fs, dir, 6);
	must(snap_create(s, "three", NULL), "snapshot");
	must(fs_unlink(fs, dir, "after-one", 9, NULL), "unlink");
	must(fs_restore(fs, "two", COWFS_SNAP_UNDO, NULL), "restore");
	must(fs_unlink(fs, dir, "symlink", 7, NULL), "unlink");
	must(fs_snap_delete(fs, "three"), "delete");
	make(fs, COWFS_INO_ROOT, "last", S_IFREG | 0644, NULL);
}

/* ---- making one ---- */

/* What mkfs chooses at random is always the same here. */
static void settle_super(struct bdev *dev, uint64_t blocks)
{
	struct super_scan scan;
	struct cowfs_disk_super *d;
	struct blockio io;

	must(super_scan(dev, &scan), "scan");
	d = &scan.found[0].d;
	memset(d->hash_seed, 7, sizeof(d->hash_seed));
	for (unsigned i = 0; bdev_sides(dev) > 1 && i < BDEV_SIDES; i++)
		memset(d->mirror.dev_uuid[i], 8 + (int)i,
		       sizeof(d->mirror.dev_uuid[i]));
	super_seal(d);
	block_init(&io, dev, blocks, false);
	must(super_write(&io, d), "superblock");
}

static void format(struct bdev *dev, const struct base_kind *k)
{
	struct store_format f = { .blocks = k->blocks,
				  .node_size = k->node_size,
				  .meta_copies = k->meta_copies,
				  .data_copies = k->data_copies,
				  .uuid = "hostile",
				  .label = "hostile" };
	struct store_config cfg = { .dev = dev };
	struct store *s;

	must(store_format(dev, &f), "format");
	settle_super(dev, k->blocks);
	must(store_open(&cfg, &s), "open");
	must(fs_format(s, 0, 0, 0755), "root directory");
	must(store_close(s), "close");
}

static void finish(struct store *s, struct fs *fs, enum base_end end)
{
	uint64_t ino;

	if (end != END_CLEAN) {
		must(store_commit(s, NULL, NULL), "commit");
		ino = make(fs, COWFS_INO_ROOT, "synced", S_IFREG | 0644, NULL);
		fill(fs, ino, 0, 30000);
		must(end == END_LOG ? fs_fsync(fs, ino, false) :
				      store_commit(s, NULL, NULL), "sync");
		fill(fs, ino, 8192, 9000);
		if (end == END_LOG)
			must(fs_fsync(fs, ino, false), "fsync");
	}
	fs_umount(fs);
	if (end == END_CLEAN)
		must(store_close(s), "close");
	else
		store_abandon(s);
}

/* Of the base, with or without its second side. */
static struct bdev *device(const struct base *b, bool alone)
{
	struct bdev *side[BDEV_SIDES] = { NULL, NULL }, *dev;

	must(flat_share(b->dev, &side[0]), "device");
	if (!b->other)
		return side[0];
	if (!alone)
		must(flat_share(b->other, &side[1]), "device");
	must(bdev_open_mirror(side, &dev), "mirror");
	return dev;
}

static void use(struct base *b, const struct base_kind *k, bool first,
		enum base_end end)
{
	struct bdev *dev = device(b, !first);
	struct store_config cfg = { .dev = dev };
	struct fs_options opt = { .noatime = true };
	struct store *s;
	struct fs *fs;

	if (first)
		format(dev, k);
	/* No snap_start: what was deleted stays half let go of. */
	must(store_open(&cfg, &s), "open");
	must(fs_mount(s, &opt, &fs), "mount");
	if (first)
		populate(s, fs, k->files, k->with);
	if (first && k->with & WITH_COPIES) {
		make_copies(s);
		make_damage(b, s, fs);
	}
	finish(s, fs, end);
	bdev_close(dev);
}

static void newest(struct bdev *flat, struct cowfs_disk_super *out)
{
	struct super sb;

	must(super_newest(flat, &sb), "superblock");
	*out = sb.d;
}

static void build(struct base *b, const struct base_kind *k)
{
	must(flat_open(k->blocks, &b->dev), "device");
	if (k->with & WITH_SIDES)
		must(flat_open(k->blocks, &b->other), "device");
	use(b, k, true, k->with & WITH_STALE ? END_CLEAN : k->end);
	if (k->with & WITH_STALE)
		use(b, k, false, k->end);
	newest(b->dev, &b->super[0]);
	if (b->other)
		newest(b->other, &b->super[1]);
	b->blocks = k->blocks;
	b->node_size = k->node_size;
	places_find(b);
}

const struct base *base_get(unsigned kind)
{
	static struct base bases[BASE_KINDS];
	struct base *b = &bases[kind % BASE_KINDS];

	if (!b->dev)
		build(b, &kinds[kind % BASE_KINDS]);
	return b;
}
