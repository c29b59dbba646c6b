/*
 * tour.c - use all of a filesystem, whatever it answers
 *
 * Errors are no matter; what is looked for are crashes, and answers that no
 * image may bring about (names that are none, listings that run in circles).
 * Every loop here has a bound of its own: an image may claim anything.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "fuzz/hostile.h"
#include "util/util.h"

#define INODES_MAX 1200u
#define WRITES 24u
#define NAME_ROOM 256u

struct name {
	uint64_t dir, ino;
	uint8_t type;
	uint8_t len;
	char text[NAME_ROOM];
};

struct trip {
	struct store *s;
	struct fs *fs;
	struct view *v;
	struct rng rng;
	uint64_t last_cookie; /* of the listing under way */
	uint64_t dir;
	unsigned count; /* names of this view */
	unsigned live;  /* those at the front of the list that are live */
};

static struct name names[INODES_MAX];
static uint8_t buf[1 << 17];
static int ignored; /* errors that do not matter here */

static const struct cred cred;

#define TRY(call) (ignored |= (call))

/* ---- reading ---- */

static int take_name(void *arg, const struct fs_dirent *e)
{
	struct trip *t = arg;
	struct name *n;

	require(e->cookie > t->last_cookie, "cookies ascend");
	require(e->len > 0 && e->len < NAME_ROOM, "length of a name");
	require(!memchr(e->name, 0, e->len) && !memchr(e->name, '/', e->len),
		"letters of a name");
	t->last_cookie = e->cookie;
	if (t->count == INODES_MAX)
		return 1;
	if (e->cookie <= 2)
		return 0;
	n = &names[t->count++];
	*n = (struct name){ .dir = t->dir, .ino = e->ino, .type = e->type,
			    .len = (uint8_t)e->len };
	memcpy(n->text, e->name, e->len);
	return 0;
}

static void list(struct trip *t, uint64_t dir)
{
	t->dir = dir;
	t->last_cookie = 0;
	TRY(fs_readdir(t->fs, t->v, dir, 0, dir % 2, take_name, t));
}

static void read_xattrs(struct trip *t, uint64_t ino)
{
	char all[4096];
	size_t len = 0, vlen;
	const char *p;
	unsigned i;

	if (fs_listxattr(t->fs, t->v, ino, all, sizeof(all), &len))
		return;
	require(len <= sizeof(all), "length of a list");
	require(!len || !all[len - 1], "end of a list");
	for (p = all, i = 0; p < all + len && i < 20; p += strlen(p) + 1, i++) {
		if (fs_getxattr(t->fs, t->v, ino, p, buf, sizeof(buf), &vlen))
			continue;
		require(vlen <= COWFS_XATTR_SIZE_MAX, "length of a value");
	}
}

static void read_file(struct trip *t, const struct attr *a)
{
	uint64_t off = 0, next;
	struct fs_map m;
	unsigned i;
	size_t got;

	for (i = 0; i < 12 && off < a->size; i++) {
		if (fs_seek(t->fs, t->v, a->ino, off, SEEK_DATA, &next))
			break;
		require(next >= off && next < a->size, "where data begin");
		off = next;
		TRY(fs_map(t->fs, t->v, a->ino, off, &m));
		if (!fs_read(t->fs, t->v, a->ino, off, buf, sizeof(buf), &got))
			require(got <= sizeof(buf), "bytes read");
		if (fs_seek(t->fs, t->v, a->ino, off, SEEK_HOLE, &next))
			break;
		require(next > off && next <= a->size, "where data end");
		off = next;
	}
	if (a->size)
		TRY(fs_read(t->fs, t->v, a->ino, a->size - 1, buf, 4096, &got));
	TRY(fs_read(t->fs, t->v, a->ino, 4000, buf, 9000, &got));
}

static void read_inode(struct trip *t, uint64_t ino)
{
	size_t len = sizeof(buf);
	struct attr a;

	if (fs_getattr(t->fs, t->v, ino, &a))
		return;
	read_xattrs(t, ino);
	if (S_ISLNK(a.mode)) {
		if (!fs_readlink(t->fs, t->v, ino, (char *)buf, &len))
			require(len <= COWFS_SYMLINK_MAX, "length of a link");
	} else if (S_ISREG(a.mode)) {
		read_file(t, &a);
	}
}

static void read_view(struct trip *t, struct view *v)
{
	struct attr a;
	unsigned i;

	t->v = v;
	t->count = 0;
	read_inode(t, COWFS_INO_ROOT);
	list(t, COWFS_INO_ROOT);
	for (i = 0; i < t->count; i++) {
		const struct name *n = &names[i];

		TRY(fs_lookup(t->fs, v, n->dir, n->text, n->len, &a));
		read_inode(t, n->ino);
		if (n->type == S_IFDIR >> 12) {
			TRY(fs_lookup(t->fs, v, n->ino, "..", 2, &a));
			list(t, n->ino);
		}
	}
}

static void read_snapshots(struct trip *t)
{
	struct snap_info info;
	struct view *v;
	uint64_t id = 0, n;
	unsigned i;

	TRY(snap_count(t->s, &n));
	TRY(snap_drops(t->s, &n));
	for (i = 0; i < 6 && !snap_next(t->s, id, &info); i++) {
		require(info.id >= id, "snapshots ascend");
		id = info.id + 1;
		if (fs_view_open(t->fs, info.name, &v))
			continue;
		read_view(t, v);
		fs_view_put(t->fs, v);
	}
}

/* ---- writing ---- */

static const struct name *any_name(struct trip *t)
{
	return &names[rng_below(&t->rng, t->live)];
}

static uint64_t any_offset(struct trip *t)
{
	return rng_one_in(&t->rng, 6) ? rng_next(&t->rng) >> 20 :
					rng_below(&t->rng, 300000);
}

static void do_write(struct trip *t, const struct name *n)
{
	TRY(fs_write(t->fs, n->ino, any_offset(t), buf,
		     rng_below(&t->rng, 40000), 0));
}

static void do_truncate(struct trip *t, const struct name *n)
{
	struct attr a = { .size = any_offset(t) }, out;

	TRY(fs_setattr(t->fs, n->ino, FS_SET_SIZE, &a, &cred, &out));
}

static void do_chmod(struct trip *t, const struct name *n)
{
	struct attr a = { .mode = 0700, .uid = 5 }, out;

	TRY(fs_setattr(t->fs, n->ino, FS_SET_MODE | FS_SET_UID, &a, &cred,
		       &out));
}

static void do_remove(struct trip *t, const struct name *n)
{
	if (n->type == S_IFDIR >> 12)
		TRY(fs_rmdir(t->fs, n->dir, n->text, n->len, NULL));
	else
		TRY(fs_unlink(t->fs, n->dir, n->text, n->len, NULL));
}

static void do_rename(struct trip *t, const struct name *n)
{
	const struct name *to = any_name(t);

	TRY(fs_rename(t->fs, n->dir, n->text, n->len, to->dir, to->text,
		      to->len, (unsigned)rng_below(&t->rng, 3)));
}

static void do_create(struct trip *t, const struct name *n)
{
	static const uint32_t mode[] = { S_IFREG, S_IFDIR, S_IFLNK };
	uint32_t m = mode[rng_below(&t->rng, 3)];
	uint64_t dir = n->type == S_IFDIR >> 12 ? n->ino : n->dir;
	struct attr a;

	TRY(fs_create(t->fs, dir, "new", 3, m | 0600, 0,
		      m == S_IFLNK ? "target" : NULL, &cred, &a));
	TRY(fs_link(t->fs, n->ino, n->dir, "newlink", 7, &a));
}

static void do_xattr(struct trip *t, const struct name *n)
{
	TRY(fs_setxattr(t->fs, n->ino, "user.v", buf,
			rng_below(&t->rng, 6000), 0, &cred));
	TRY(fs_removexattr(t->fs, n->ino, "user.large"));
	TRY(fs_setxattr(t->fs, n->ino, "user.a", buf, 2000, 0, &cred));
}

static void do_falloc(struct trip *t, const struct name *n)
{
	static const int mode[] = {
		0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
	};
	unsigned i = (unsigned)rng_below(&t->rng, ARRAY_SIZE(mode));
	uint64_t off = any_offset(t), len = rng_range(&t->rng, 1, 200000);

	if (i >= 4) {
		off &= ~UINT64_C(4095);
		len = 8192;
	}
	TRY(fs_fallocate(t->fs, n->ino, mode[i], off, len, &cred));
}

static void do_copy(struct trip *t, const struct name *n)
{
	const struct name *to = any_name(t);
	uint64_t copied, mask = rng_one_in(&t->rng, 2) ? 4095 : 0;

	TRY(fs_copy_range(t->fs, fs_live(t->fs), n->ino,
			  any_offset(t) & ~mask, to->ino,
			  any_offset(t) & ~mask, 100000, &copied));
}

static void do_snapshot(struct trip *t, const struct name *n)
{
	(void)n;
	switch (rng_below(&t->rng, 5)) {
	case 0:
		TRY(snap_create(t->s, "fresh", NULL));
		break;
	case 1:
		TRY(fs_restore(t->fs, "one", COWFS_SNAP_UNDO, NULL));
		break;
	case 2:
		TRY(fs_restore(t->fs, COWFS_SNAP_UNDO, NULL, NULL));
		break;
	case 3:
		TRY(fs_snap_delete(t->fs, "two"));
		break;
	default:
		TRY(fs_snap_delete(t->fs, "one"));
	}
}

static void do_sync(struct trip *t, const struct name *n)
{
	struct fs_statfs st;

	TRY(fs_statfs(t->fs, &st));
	if (rng_one_in(&t->rng, 2))
		TRY(fs_fsync(t->fs, n->ino, false));
	else
		TRY(store_commit(t->s, NULL, NULL));
}

static void do_orphan(struct trip *t, const struct name *n)
{
	if (fs_ref(t->fs, n->ino))
		return;
	do_remove(t, n);
	do_write(t, n);
	fs_unref(t->fs, n->ino, 1);
}

static void write_it(struct trip *t)
{
	static void (*const ops[])(struct trip *t, const struct name *n) = {
		do_write, do_write, do_truncate, do_chmod, do_remove,
		do_remove, do_rename, do_create, do_xattr, do_falloc, do_copy,
		do_snapshot, do_sync, do_orphan,
	};
	unsigned i;

	for (i = 0; t->live && i < WRITES; i++)
		ops[rng_below(&t->rng, ARRAY_SIZE(ops))](t, any_name(t));
	TRY(store_drain(t->s));
}

/* ---- checking ---- */

/* s NULL: it cannot be opened. */
static void check_it(struct store *s, struct bdev *dev)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = hostile_found };
	struct cowfs_ioc_info info;
	struct check_result res;

	if (!s) {
		TRY(check_device(dev, &opt, &res));
		return;
	}
	TRY(check_info(s, &info));
	TRY(check_run(s, &opt, &res));
}

static void mend_it(struct store *s)
{
	struct check_options opt = { .data = true, .mend = true,
				     .found = hostile_found };
	struct check_result res;

	TRY(check_run(s, &opt, &res));
}

/* ---- the whole ---- */

static void use_fs(struct trip *t, uint64_t seed, bool readonly)
{
	struct fs_options opt = { .readonly = readonly };

	if (fs_mount(t->s, &opt, &t->fs))
		return;
	if (seed % 4 < 2)
		read_snapshots(t);
	read_view(t, fs_live(t->fs));
	t->live = t->count;
	if (!readonly)
		write_it(t);
	fs_umount(t->fs);
}

/* gen: of the superblock, 0: the newest. */
static void one_mount(struct bdev *dev, uint64_t seed, bool readonly,
		      uint64_t gen)
{
	struct store_config cfg = { .dev = dev,
				    .flags = readonly ? STORE_READONLY : 0,
				    .use_gen = gen,
				    .cache_bytes = 1 << 20 };
	struct trip t = { .fs = NULL };
	int err;

	rng_init(&t.rng, seed, 5);
	err = store_open(&cfg, &t.s);
	if (err) {
		check_it(NULL, dev);
		return;
	}
	TRY(snap_start(t.s));
	TRY(redun_start(t.s));
	if (readonly)
		check_it(t.s, dev);
	else if (seed % 8 < 4)
		mend_it(t.s);
	if (seed & 0x2000)
		scrub_it(t.s, seed >> 14);
	if (!readonly && seed & 0x1000)
		redundancy_it(t.s, seed >> 14);
	use_fs(&t, seed, readonly);
	if (!readonly && (seed & 0x6000) == 0x6000) /* -EINVAL: it is none */
		TRY(store_mirror_remove(t.s, seed & 1));
	TRY(store_close(t.s));
}

/* As one_mount, and nothing is written. */
static void one_look(struct bdev *dev, uint64_t seed, uint64_t gen)
{
	uint64_t before = flat_written();

	one_mount(dev, seed, true, gen);
	require(flat_written() == before, "who only reads writes nothing");
}

static void older_mount(struct bdev *dev, uint64_t seed)
{
	struct super_scan scan;

	if (super_scan(dev, &scan))
		return;
	one_look(dev, seed,
		 scan.found[(seed >> 2) % scan.count].gen);
}

void tour(struct bdev *dev, uint64_t seed)
{
	bool clean = false;

	one_look(dev, seed, 0);
	if (seed & 0x800)
		rescue_it(dev, seed >> 12 | (seed & 0xff) << 4);
	if (seed & 0x100)
		older_mount(dev, seed >> 9);
	if (seed & 0x10)
		clean = repair_it(dev, seed >> 5);
	if (clean && seed & 0x200) {
		undo_it(dev, seed >> 6);
		clean = false;
	}
	one_mount(dev, seed, false, 0);
	if (clean)
		require(is_clean(dev, false), "what is clean stays clean");
	if (seed % 2) /* what is left of it once it was written */
		one_look(dev, seed, 0);
	if (seed & 0x400)
		repair_it(dev, seed >> 11);
}
