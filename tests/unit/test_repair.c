/*
 * test_repair.c - what is wrong is put right, and nothing else is touched
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/repair.h"
#include "snapshot/snapshot.h"
#include "support/digest.h"
#include "support/image.h"

static struct repair_result res;
#define TOLD_MAX 1024u
static char told[TOLD_MAX][512];
static unsigned lines;

static void on_told(void *arg, const char *line)
{
	(void)arg;
	snprintf(told[lines % TOLD_MAX], sizeof(told[0]), "%s", line);
	lines++;
}

static bool was_told(const char *text)
{
	for (unsigned i = 0; i < lines && i < TOLD_MAX; i++)
		if (strstr(told[i], text))
			return true;
	return false;
}

static int run(const struct repair_options *how)
{
	struct repair_options opt = *how;

	opt.told = on_told;
	lines = 0;
	return repair_run(dev, &opt, &res);
}

static void repair_all(void)
{
	struct repair_options opt = { .all = true };

	ck_ok(run(&opt));
}

/* Unmounted; with damage; fully repaired, and good for further use. */
static void assert_repairs(void)
{
	repair_all();
	ck_assert_uint_gt(res.check.problems, 0);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
	mount_it();
	make_node(1, "afterwards", S_IFREG | 0644, NULL);
	unmount_it();
	assert_clean();
}

static void stop_dead(void)
{
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	fs = NULL;
	store = NULL;
}

static bool there(uint64_t dir, const char *name, struct attr *a)
{
	return fs_lookup(fs, fs_live(fs), dir, name, strlen(name), a) == 0;
}

/* ---- files and names ---- */

START_TEST(sound_image_is_left_alone)
{
	struct cowfs_disk_super d;

	unmount_it();
	d = get_super();
	repair_all();
	ck_assert_uint_eq(res.check.problems, 0);
	ck_assert(!res.committed && !res.mended);
	ck_assert_uint_eq(from_le64(get_super().gen), from_le64(d.gen));
}
END_TEST

START_TEST(wrong_counts_are_set_without_asking)
{
	struct repair_options safe = { .all = false };

	edit_inode(ino_link, nlink_more);
	edit_inode(ino_sub, nlink_more);
	unmount_it();
	ck_ok(run(&safe));
	ck_assert(res.committed && !res.needs_all);
	assert_clean();
}
END_TEST

START_TEST(entry_without_inode_goes)
{
	struct attr a;

	put_dirent(ino_dir, "ghost", slot_of("ghost"), 1 << 20, DT_REG);
	unmount_it();
	assert_repairs();
	ck_assert(was_told("'ghost' in '/dir'"));
	mount_it();
	ck_assert(!there(ino_dir, "ghost", &a));
}
END_TEST

START_TEST(inode_without_entry_goes_to_lost_and_found)
{
	char name[32];
	struct attr a, b;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_DIRENT, slot_of("dir")));
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "lost+found", &a));
	snprintf(name, sizeof(name), "#%" PRIu64, ino_dir);
	ck_assert(there(a.ino, name, &b));
	ck_assert_uint_eq(b.ino, ino_dir);
	ck_assert(there(ino_dir, "small", &a));
}
END_TEST

START_TEST(lost_inode_of_a_directory_is_made_anew)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_INODE, 0));
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(ino_dir, "sub", &a));
	ck_assert(S_ISDIR(a.mode));
	ck_assert(there(a.ino, "file-299", &a));
}
END_TEST

START_TEST(lost_root_directory_is_made_anew)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_INODE, 0));
	stop_dead();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "dir", &a));
}
END_TEST

START_TEST(loop_of_directories_is_opened)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(1, COWFS_KEY_DIRENT, slot_of("dir")));
	put_dirent(ino_sub, "dir", slot_of("dir"), ino_dir, DT_DIR);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(1, "lost+found", &a));
	ck_assert(there(ino_sub, "file-299", &a));
}
END_TEST

static void bad_everything(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->btime.nsec = to_le32(UINT32_MAX);
	d->gen = to_le64(UINT64_MAX - 1);
	d->nlink = to_le32(UINT32_MAX);
	d->blocks = to_le64(UINT64_MAX);
}

static void bad_mode(void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	(void)len;
	d->mode = to_le32(0170644);
}

START_TEST(impossible_inodes_are_made_possible)
{
	struct attr a;

	edit_inode(ino_big, bad_everything);
	edit_inode(ino_small, bad_mode);
	stop_dead();
	assert_repairs();
	mount_it();
	ck_ok(fs_getattr(fs, fs_live(fs), ino_big, &a));
	ck_assert_uint_eq(a.nlink, 1);
	ck_assert_uint_eq(a.size, BIG_BLOCKS * COWFS_BLOCK_SIZE);
	ck_assert(there(ino_dir, "small", &a));
	ck_assert_uint_eq(a.size, 100);
}
END_TEST

START_TEST(items_that_mean_nothing_go)
{
	put(COWFS_ROOT_FS, KEY(ino_big, 0x77, 0), "?", 1);
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, 77777), NULL, 0);
	put(COWFS_ROOT_FS, KEY(ino_small, COWFS_KEY_XATTR_DATA, 5 << 16), "x",
	    1);
	put(COWFS_ROOT_FS, KEY(3000, COWFS_KEY_XATTR, 5 << 8), "x", 1);
	put_dirent(ino_dir, "a/b", slot_of("a/b"), ino_small, DT_REG);
	put_dirent(ino_dir, "small", slot_of("small") + 3, ino_small, DT_REG);
	stop_dead();
	assert_repairs();
}
END_TEST

START_TEST(misplaced_entry_is_moved)
{
	struct attr a;

	del(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_DIRENT, slot_of("small")));
	put_dirent(ino_dir, "small", slot_of("other"), ino_small, DT_FIFO);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_assert(there(ino_dir, "small", &a));
	ck_assert_uint_eq(a.ino, ino_small);
}
END_TEST

static void extent_kind(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->kind = 7;
}

START_TEST(impossible_extent_becomes_a_hole)
{
	struct repair_options safe = { .all = false };
	uint64_t hole;
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	edit(COWFS_ROOT_FS, k, extent_kind);
	unmount_it();
	ck_ok(run(&safe));
	ck_assert(res.needs_all && !res.committed);
	ck_assert_uint_gt(res.left, 0);
	assert_repairs();
	ck_assert(was_told("'/dir/big'"));
	mount_it();
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, 0, SEEK_HOLE, &hole));
	ck_assert_uint_eq(hole, 0);
}
END_TEST

/* ---- nodes ---- */

/* The leaf that k belongs to: both copies. */
static struct nptr leaf_of(unsigned kind, struct key k)
{
	struct cowfs_disk_super d = get_super();
	struct nptr p = nptr_from_disk(&d.roots[kind].ptr);

	while (p.level) {
		unsigned slot = 0;

		ck_ok(bdev_read(dev, p.blk << 12, scratch, 4096));
		for (unsigned i = 0; i < node_count(scratch); i++) {
			struct key at = node_key(scratch, i);

			if (key_cmp(&at, &k) <= 0)
				slot = i;
		}
		p = node_child(scratch, slot);
	}
	return p;
}

static void lose_leaf(unsigned kind, struct key k)
{
	struct nptr p = leaf_of(kind, k);

	flip_block(p.blk);
	if (p.blk2)
		flip_block(p.blk2);
}

START_TEST(unreadable_leaf_is_cut_out)
{
	struct repair_options safe = { .all = false };
	uint64_t gen;
	struct attr a;

	unmount_it();
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 62));
	gen = from_le64(get_super().gen);
	ck_ok(run(&safe));
	ck_assert(res.needs_all && !res.committed);
	ck_assert_uint_eq(from_le64(get_super().gen), gen);
	assert_repairs();
	ck_assert(was_told("is cut out"));
	ck_assert(was_told("'/dir/sub'"));
	mount_it();
	ck_assert(there(1, "lost+found", &a));
	ck_assert(there(ino_dir, "big", &a));
}
END_TEST

static uint64_t victim; /* first copy of another node */

static void steal_place(uint8_t *node, unsigned slot)
{
	struct cowfs_disk_child *c =
		(void *)(node + sizeof(struct cowfs_disk_node));
	unsigned last = node_count(node) - 1;

	(void)slot;
	ck_assert_uint_gt(last, 0);
	/* the thief is met first */
	victim = from_le64(c[last].ptr.blk);
	c[0].ptr.blk2 = to_le64(victim);
}

/* Its second copy "does not match", and must not be made to. */
START_TEST(stolen_place_is_not_mended)
{
	static uint8_t before[4096], after[4096];

	unmount_it();
	patch(COWFS_ROOT_FS, KEY(0, 0, 0), 1, steal_place);
	ck_ok(bdev_read(dev, victim << 12, before, sizeof(before)));
	assert_repairs();
	ck_ok(bdev_read(dev, victim << 12, after, sizeof(after)));
	ck_assert(memcmp(before, after, sizeof(before)) == 0);
}
END_TEST

static void root_in_one_place(void *data, uint32_t len)
{
	struct cowfs_disk_snap *d = data;

	(void)len;
	d->root.ptr.blk2 = d->root.ptr.blk;
}

/* A check that could not look there would leave the rest unchecked. */
START_TEST(snapshot_with_both_copies_in_one_place_is_kept)
{
	struct view *v;
	struct attr a;
	struct key k;

	share_something();
	get_first(COWFS_ROOT_SNAP, 1, COWFS_KEY_SNAP, &k, scratch);
	edit(COWFS_ROOT_SNAP, k, root_in_one_place);
	unmount_it();
	assert_found(P_OVERLAP);
	assert_repairs();
	mount_it();
	ck_ok(fs_view_open(fs, "s", &v));
	ck_ok(fs_lookup(fs, v, ino_dir, "big", 3, &a));
	fs_view_put(fs, v);
}
END_TEST

static void copies_overlap(void *data, uint32_t len)
{
	struct cowfs_disk_extent *d = data;

	(void)len;
	d->blk2 = to_le64(from_le64(d->blk) + 1);
}

START_TEST(data_whose_copies_overlap_is_mended)
{
	struct key k;

	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	edit(COWFS_ROOT_FS, k, copies_overlap);
	unmount_it();
	assert_found(P_OVERLAP);
	assert_repairs();
	ck_assert(was_told("'/dir/big'"));
}
END_TEST

START_TEST(lost_ranges_of_a_file_are_told)
{
	/* so many that some leaf has nothing else */
	for (uint64_t i = 0; i < 250; i++)
		fill(ino_big, (1000 + 2 * i) << 12, 4096, 1);
	unmount_it();
	lose_leaf(COWFS_ROOT_FS, KEY(ino_big, COWFS_KEY_EXTENT, 1250));
	assert_repairs();
	ck_assert(was_told("'/dir/big'"));
	ck_assert(was_told("blocks of its contents within bytes"));
}
END_TEST

START_TEST(unreadable_roots_leave_an_empty_tree)
{
	struct cowfs_disk_super d;
	struct attr a;

	unmount_it();
	d = get_super();
	for (unsigned i = 0; i < 4; i++) {
		struct nptr p = nptr_from_disk(&d.roots[i].ptr);

		if (!p.blk)
			continue;
		flip_block(p.blk);
		flip_block(p.blk2);
	}
	assert_repairs();
	mount_it();
	ck_ok(fs_getattr(fs, fs_live(fs), 1, &a));
	ck_assert(S_ISDIR(a.mode));
}
END_TEST

START_TEST(damaged_copies_take_no_commit)
{
	struct repair_options safe = { .all = false };
	struct nptr p;
	uint64_t gen;

	unmount_it();
	gen = from_le64(get_super().gen);
	p = leaf_of(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 0));
	flip_block(p.blk);
	flip_block(super_slot_block(DEV_BYTES / 4096, 1, true));
	ck_ok(run(&safe));
	ck_assert(!res.committed && res.mended);
	ck_assert_uint_eq(res.left, 0);
	ck_assert_uint_eq(from_le64(get_super().gen), gen);
	assert_clean();
}
END_TEST

/* ---- snapshots ---- */

START_TEST(leaf_shared_with_snapshots_is_cut_out_of_all)
{
	struct key k;

	ck_ok(snap_create(store, "a", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "b", NULL));
	make_node(1, "y", S_IFREG | 0644, NULL);
	get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, scratch);
	unmount_it();
	lose_leaf(COWFS_ROOT_FS, k);
	assert_repairs();
	ck_assert_uint_eq(result.snapshots, 2);
	ck_assert(was_told("snapshot 1: "));
	ck_assert(was_told("snapshot 2: "));
}
END_TEST

/* -p goes back on what it began when it comes upon something like that. */
START_TEST(nothing_is_given_up_without_being_asked)
{
	struct repair_options safe = { .all = false };
	uint64_t gen;

	edit_inode(ino_link, nlink_more);
	ck_ok(store_commit(store, NULL, NULL));
	fill(ino_small, 0, 50, 5);
	ck_ok(fs_fsync(fs, ino_small, false));
	fs_umount(fs);
	store_abandon(store);
	fs = NULL;
	store = NULL;
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 62));
	gen = from_le64(get_super().gen);
	ck_ok(run(&safe));
	ck_assert(res.needs_all && !res.committed);
	ck_assert_uint_gt(res.left, 0);
	ck_assert_uint_eq(from_le64(get_super().gen), gen);
}
END_TEST

START_TEST(snapshot_without_a_root_goes)
{
	struct snap_info info;

	ck_ok(snap_create(store, "gone", &info));
	ck_ok(snap_create(store, "stays", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "too", NULL));
	ck_ok(snap_delete(store, "stays"));
	unmount_it();
	flip_block(info.root.blk);
	flip_block(info.root.blk2);
	assert_repairs();
	mount_it();
	ck_err(snap_find(store, "gone", &info), -ENOENT);
	ck_ok(snap_find(store, "too", &info));
}
END_TEST

START_TEST(deletes_under_way_are_finished)
{
	struct snap_info info;
	uint64_t n;

	share_something();
	ck_ok(snap_find(store, "s", &info));
	ck_ok(snap_delete(store, "s"));
	edit_inode(ino_link, nlink_more);
	stop_dead();
	repair_all();
	assert_clean();
	mount_it();
	ck_ok(snap_drops(store, &n));
	ck_assert_uint_eq(n, 0);
}
END_TEST

/* ---- data ---- */

START_TEST(data_without_a_good_copy_stays_unless_punched)
{
	struct repair_options opt = { .all = true, .data = true };
	uint64_t blk = big_block(), hole;

	unmount_it();
	flip_block(blk + 1);
	ck_ok(run(&opt));
	ck_assert(!res.committed);
	ck_assert_uint_eq(res.left, 1);
	ck_assert(was_told("'/dir/big' (inode"));
	ck_assert(was_told("bytes 4096 to 8191"));
	assert_found_only(P_DATA_UNREADABLE);
	opt.punch = true;
	ck_ok(run(&opt));
	ck_assert(res.committed);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
	mount_it();
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, 0, SEEK_HOLE, &hole));
	ck_assert_uint_eq(hole, 4096);
	ck_ok(fs_seek(fs, fs_live(fs), ino_big, hole, SEEK_DATA, &hole));
	ck_assert_uint_eq(hole, 8192);
}
END_TEST

START_TEST(punched_in_snapshots_too)
{
	struct repair_options opt = { .all = true, .punch = true };
	uint64_t blk = big_block();

	ck_ok(snap_create(store, "a", NULL));
	make_node(1, "x", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "b", NULL));
	fill(ino_big, 20 << 12, 4096, 99);
	unmount_it();
	flip_block(blk + 3);
	ck_ok(run(&opt));
	assert_clean();
}
END_TEST

/* ---- going back ---- */

static uint64_t digest_of(void)
{
	uint64_t sum;

	mount_it();
	ck_ok(fs_digest(fs, &sum));
	unmount_it();
	return sum;
}

START_TEST(undo_brings_the_damage_back)
{
	uint64_t gen;

	edit_inode(ino_link, nlink_more);
	unmount_it();
	gen = from_le64(get_super().gen);
	ck_err(repair_undo(dev), -ENOENT);
	repair_all();
	assert_clean();
	ck_ok(repair_undo(dev));
	ck_assert_uint_eq(from_le64(get_super().gen), gen);
	assert_found_only(P_INODE_NLINK);
	ck_err(repair_undo(dev), -ENOENT);
}
END_TEST

START_TEST(undo_is_refused_after_a_write)
{
	edit_inode(ino_link, nlink_more);
	unmount_it();
	repair_all();
	mount_it();
	unmount_it();
	ck_err(repair_undo(dev), -ENOENT);
}
END_TEST

START_TEST(older_superblock_can_be_used)
{
	struct repair_options opt = { .all = true };
	struct cowfs_disk_super d;
	struct nptr p;
	uint64_t sum;

	unmount_it();
	sum = digest_of();
	d = get_super();
	mount_it();
	make_node(1, "new", S_IFREG | 0644, NULL);
	unmount_it();
	p = leaf_of(COWFS_ROOT_FS, KEY_MIN);
	flip_block(p.blk);
	flip_block(p.blk2);
	opt.gen = from_le64(d.gen);
	ck_ok(run(&opt));
	/* It is sound: nothing to commit. But it can be had. */
	ck_assert_uint_eq(res.left, 0);
	opt.gen = 1 << 20;
	ck_err(run(&opt), -ENOENT);
	(void)sum;
}
END_TEST

/* Files made durable by fsync alone, then a crash, then rot. */
START_TEST(log_is_applied_before_mending)
{
	static uint8_t want[100000], got[100000];
	uint64_t ino[30];
	char name[16];
	struct rng r;
	size_t n;

	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof(name), "log-%u", i);
		ino[i] = make_node(1, name, S_IFREG | 0644, NULL);
	}
	unmount_it();
	mount_it();
	for (unsigned i = 0; i < 30; i++) {
		fill(ino[i], 0, sizeof(want), 1000 + i);
		ck_ok(fs_fsync(fs, ino[i], false));
	}
	fs_umount(fs);
	store_abandon(store);
	fs = NULL;
	store = NULL;
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 62));
	repair_all();
	ck_assert(res.committed);
	ck_assert(was_told("records of the log are applied"));
	assert_clean();
	mount_it();
	for (unsigned i = 0; i < 30; i++) {
		rng_init(&r, 1, 1000 + i);
		rng_fill(&r, want, sizeof(want));
		ck_ok(fs_read(fs, fs_live(fs), ino[i], 0, got, sizeof(got),
			      &n));
		ck_assert_uint_eq(n, sizeof(got));
		ck_assert_msg(memcmp(want, got, n) == 0, "file %u", i);
	}
}
END_TEST

START_TEST(full_filesystem_is_repaired)
{
	static uint8_t buf[1 << 16];
	uint64_t ino = make_node(1, "fill", S_IFREG | 0644, NULL), off = 0;
	int err;

	ck_ok(snap_create(store, "a", NULL));
	memset(buf, 'f', sizeof(buf));
	while (!(err = fs_write(fs, ino, off, buf, sizeof(buf), 0)))
		off += sizeof(buf);
	ck_assert_int_eq(err, -ENOSPC);
	unmount_it();
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 62));
	repair_all();
	ck_assert(res.committed);
	assert_clean();
}
END_TEST

static void all_used(uint8_t *node, unsigned slot)
{
	struct item it = node_item(node, slot, 4096);
	struct cowfs_disk_chunk *d = (void *)(uintptr_t)it.data;
	uint8_t *bits = (uint8_t *)(d + 1);

	/* one bit must stay for the record to be possible */
	memset(bits, 0xff, COWFS_CHUNK_BYTES);
	bits[300] = 0xfe;
	d->free = to_le16(1);
}

/* What is recorded as used is spared if possible, and here it is not. */
START_TEST(space_that_is_only_recorded_as_used_is_found_again)
{
	unsigned chunks = DEV_BYTES / 4096 / COWFS_CHUNK_BLOCKS;
	uint64_t ino = make_node(1, "wide", S_IFREG | 0644, NULL);

	/* a record for each chunk */
	ck_ok(fs_fallocate(fs, ino, 0, 0, DEV_BYTES - (10 << 20),
			   &root_cred));
	unmount_it();
	mount_it();
	ck_ok(fs_unlink(fs, 1, "wide", 4, NULL));
	ck_ok(store_commit(store, NULL, NULL));
	unmount_it();
	for (unsigned i = 0; i < chunks - 1; i++)
		patch(COWFS_ROOT_SPACE, KEY(i, COWFS_KEY_SPACE, 0), 0,
		      all_used);
	check_fully();
	ck_assert_uint_gt(seen.n[P_SPACE_FREE], 0);
	repair_all();
	ck_assert(res.committed);
	assert_clean();
}
END_TEST

/* ---- cut off ---- */

/* Whatever of the writes arrives: the old state with its damage, or the new
 * one; and it can be repaired. */
START_TEST(cut_off_at_any_write_nothing_is_worse)
{
	struct bdev *base, *log, *state, *whole = NULL;
	struct replay rp;
	unsigned old;
	size_t sure;

	share_something();
	unmount_it();
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 61));
	check_fully();
	old = seen.total;
	ck_assert_uint_gt(old, 0);
	ck_ok(bdev_open_mem(dev->size, &base));
	ck_ok(dev_copy(base, dev));
	ck_ok(log_open(dev, &log));
	whole = dev;
	dev = log;
	repair_all();
	ck_assert(res.committed);
	replay_init(&rp, log, base);
	for (size_t cut = 0; cut <= log_count(log); cut++) {
		ck_ok(replay_cut(&rp, cut, &sure));
		for (uint64_t i = 0; i < 4; i++) {
			struct pick pick = PICK(i ? PICK_SEED : PICK_ALL);

			pick.seed = cut * 4 + i;
			ck_ok(replay_state(&rp, cut, &pick, &state));
			dev = state;
			check_fully();
			ck_assert_msg(seen.total == old || seen.total == 0,
				      "cut %zu/%" PRIu64 ": %u problems, %u "
				      "before: %s", cut, i, seen.total, old,
				      seen.last);
			bdev_close(state);
		}
	}
	bdev_close(log);
	bdev_close(base);
	dev = whole;
	assert_clean();
}
END_TEST

START_TEST(failing_writes_leave_the_old_state)
{
	struct bdev *below = dev, *faulty, *copy;
	struct repair_options opt = { .all = true };
	unsigned n = 0;
	int err;

	edit_inode(ino_link, nlink_more);
	unmount_it();
	do {
		ck_ok(overlay_open(below, &copy));
		ck_ok(fault_open(copy, &faulty));
		fault_from(faulty, FAULT_WRITE, ++n, -EIO);
		dev = faulty;
		err = run(&opt);
		fault_clear(faulty);
		check_fully();
		ck_assert_msg(err || seen.total == 0, "write %u: %s", n,
			      seen.last);
		ck_assert_msg(seen.total == seen.n[P_INODE_NLINK] +
						    seen.n[P_SUPER_STALE],
			      "write %u: %s", n, seen.last);
		bdev_close(faulty);
		bdev_close(copy);
		ck_assert_uint_lt(n, 10000);
	} while (err);
	dev = below;
}
END_TEST

/* ---- */

static Suite *repair_suite(void)
{
	Suite *s = suite_create("repair");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, sound_image_is_left_alone);
	tcase_add_test(t, wrong_counts_are_set_without_asking);
	tcase_add_test(t, entry_without_inode_goes);
	tcase_add_test(t, inode_without_entry_goes_to_lost_and_found);
	tcase_add_test(t, lost_inode_of_a_directory_is_made_anew);
	tcase_add_test(t, lost_root_directory_is_made_anew);
	tcase_add_test(t, loop_of_directories_is_opened);
	tcase_add_test(t, impossible_inodes_are_made_possible);
	tcase_add_test(t, items_that_mean_nothing_go);
	tcase_add_test(t, misplaced_entry_is_moved);
	tcase_add_test(t, impossible_extent_becomes_a_hole);
	tcase_add_test(t, unreadable_leaf_is_cut_out);
	tcase_add_test(t, snapshot_with_both_copies_in_one_place_is_kept);
	tcase_add_test(t, data_whose_copies_overlap_is_mended);
	tcase_add_test(t, lost_ranges_of_a_file_are_told);
	tcase_add_test(t, stolen_place_is_not_mended);
	tcase_add_test(t, unreadable_roots_leave_an_empty_tree);
	tcase_add_test(t, damaged_copies_take_no_commit);
	tcase_add_test(t, leaf_shared_with_snapshots_is_cut_out_of_all);
	tcase_add_test(t, nothing_is_given_up_without_being_asked);
	tcase_add_test(t, snapshot_without_a_root_goes);
	tcase_add_test(t, deletes_under_way_are_finished);
	tcase_add_test(t, data_without_a_good_copy_stays_unless_punched);
	tcase_add_test(t, punched_in_snapshots_too);
	tcase_add_test(t, undo_brings_the_damage_back);
	tcase_add_test(t, undo_is_refused_after_a_write);
	tcase_add_test(t, older_superblock_can_be_used);
	tcase_add_test(t, log_is_applied_before_mending);
	tcase_add_test(t, full_filesystem_is_repaired);
	tcase_add_test(t, space_that_is_only_recorded_as_used_is_found_again);
	tcase_add_test(t, cut_off_at_any_write_nothing_is_worse);
	tcase_add_test(t, failing_writes_leave_the_old_state);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(repair_suite());
}
