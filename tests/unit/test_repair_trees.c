/*
 * test_repair_trees.c - repairs where trees cannot be read, of the log, and of
 * space; what they leave when they are undone or cut off
 */
#include "support/digest.h"
#include "support/mount.h"
#include "unit/repair_fixture.h"

/* ---- nodes ---- */

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

/* All trees are sound: none of them is cut. */
START_TEST(log_in_the_place_of_nodes_goes)
{
	struct repair_options safe = { .all = false };
	struct cowfs_disk_super d;
	struct attr a;

	share_something();
	unmount_it();
	d = get_super();
	d.log.blk = to_le64(from_le64(d.roots[COWFS_ROOT_FS].ptr.blk) - 1);
	put_super(&d);
	assert_found(P_OVERLAP);
	ck_ok(run(&safe));
	ck_assert(res.committed && !res.left);
	ck_assert(was_told("no log"));
	assert_clean();
	mount_it();
	ck_ok(fs_lookup(fs, fs_live(fs), ino_dir, "big", 3, &a));
	fill(ino_big, 0, 100, 5);
	ck_ok(fs_fsync(fs, ino_big, false));
	crash();
	assert_clean();
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

/* ---- the log ---- */

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
	crash();
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

/* What is missing in the last commit the log has; the notes of the first pass,
 * that the name goes, are of before. */
START_TEST(what_the_log_mends_is_not_mended_once_more)
{
	uint64_t ino = make_node(1, "only", S_IFREG | 0644, NULL);
	static uint8_t inode[256];
	struct attr a;
	struct key k;
	uint32_t len;

	len = get_first(COWFS_ROOT_FS, ino, COWFS_KEY_INODE, &k, inode);
	del(COWFS_ROOT_FS, k);
	ck_ok(store_commit(store, NULL, NULL));
	put(COWFS_ROOT_FS, k, inode, len);
	ck_ok(fs_fsync(fs, ino, false));
	crash();
	repair_all();
	ck_assert(was_told("records of the log are applied"));
	assert_clean();
	mount_it();
	ck_assert(there(1, "only", &a));
	ck_assert_uint_eq(a.ino, ino);
	ck_assert(!there(1, "lost+found", &a));
}
END_TEST

/* -p goes back on what it began when it comes upon a leaf that is lost. */
START_TEST(nothing_is_given_up_without_being_asked)
{
	struct repair_options safe = { .all = false };
	uint64_t gen;

	edit_inode(ino_link, nlink_more);
	ck_ok(store_commit(store, NULL, NULL));
	fill(ino_small, 0, 50, 5);
	ck_ok(fs_fsync(fs, ino_small, false));
	crash();
	lose_leaf(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 1ull << 62));
	gen = from_le64(get_super().gen);
	ck_ok(run(&safe));
	ck_assert(res.needs_all && !res.committed);
	ck_assert_uint_gt(res.left, 0);
	ck_assert_uint_eq(from_le64(get_super().gen), gen);
}
END_TEST

/* ---- space ---- */

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

/* What was written before the first commit lies where the state before the
 * repair may have had something. */
START_TEST(undo_is_refused_after_a_mount_that_was_killed)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_LAZY };
	static uint8_t buf[1 << 20];
	struct fs_options opt = { 0 };
	uint64_t ino, off = 0;

	edit_inode(ino_link, nlink_more);
	unmount_it();
	repair_all();
	ck_ok(test_mount_with(&cfg, &opt, &store, &fs));
	ino = make_node(1, "much", S_IFREG | 0644, NULL);
	while (off < DEV_BYTES * 3 / 4 &&
	       !fs_write(fs, ino, off, buf, sizeof(buf), 0))
		off += sizeof(buf);
	crash();
	ck_err(repair_undo(dev), -ENOENT);
}
END_TEST

/* Both copies of a generation's slot are emptied. */
static void wipe_super(uint64_t gen)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];

	for (unsigned far = 0; far < 2; far++)
		ck_ok(bdev_write(dev, super_slot_block(DEV_BYTES >> 12,
						       gen % COWFS_SUPER_SLOTS,
						       far) << 12,
				 zero, sizeof(zero)));
}

/* It says that nothing was written but by a repair; but nodes of it lie where
 * the one before it has something. */
START_TEST(undo_is_refused_where_nodes_took_the_place_of_others)
{
	static struct super_scan scan;
	struct cowfs_disk_super d;
	char name[16];

	for (unsigned i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "new%u", i);
		make_node(1, name, S_IFREG | 0644, NULL);
		ck_ok(store_commit(store, NULL, NULL));
	}
	crash();
	ck_ok(super_scan(dev, &scan));
	ck_assert_uint_eq(scan.count, 4);
	wipe_super(scan.found[1].gen);
	wipe_super(scan.found[2].gen);
	d = get_super();
	d.state |= COWFS_STATE_REPAIRED;
	put_super(&d);
	ck_err(repair_undo(dev), -EBUSY);
	ck_assert_uint_eq(from_le64(get_super().gen), scan.found[0].gen);
}
END_TEST

/* It may be there again tomorrow. */
START_TEST(a_superblock_that_cannot_be_read_is_not_emptied)
{
	struct repair_options opt = { .all = true };
	static struct super_scan scan, after;
	struct bdev *below = dev, *faulty;
	unsigned slot;

	edit_inode(ino_link, nlink_more);
	unmount_it();
	ck_ok(super_scan(dev, &scan));
	ck_assert_uint_ge(scan.count, 2);
	slot = scan.found[1].d.slot;
	ck_ok(fault_open(below, &faulty));
	for (unsigned far = 0; far < 2; far++)
		fault_range(faulty, FAULT_READ,
			    super_slot_block(DEV_BYTES >> 12, slot, far) << 12,
			    COWFS_BLOCK_SIZE, -EIO);
	dev = faulty;
	test_log_hide();
	ck_ok(run(&opt));
	test_log_show();
	ck_assert(res.committed);
	dev = below;
	bdev_close(faulty);
	ck_ok(super_scan(dev, &after));
	for (slot = 0; slot < after.count; slot++)
		if (after.found[slot].gen == scan.found[1].gen)
			break;
	ck_assert_uint_lt(slot, after.count);
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

static void add_nodes(TCase *tc)
{
	tcase_add_test(tc, unreadable_leaf_is_cut_out);
	tcase_add_test(tc, stolen_place_is_not_mended);
	tcase_add_test(tc, snapshot_with_both_copies_in_one_place_is_kept);
	tcase_add_test(tc, data_whose_copies_overlap_is_mended);
	tcase_add_test(tc, lost_ranges_of_a_file_are_told);
	tcase_add_test(tc, log_in_the_place_of_nodes_goes);
	tcase_add_test(tc, unreadable_roots_leave_an_empty_tree);
	tcase_add_test(tc, damaged_copies_take_no_commit);
}

static void add_log_and_space(TCase *tc)
{
	tcase_add_test(tc, log_is_applied_before_mending);
	tcase_add_test(tc, what_the_log_mends_is_not_mended_once_more);
	tcase_add_test(tc, nothing_is_given_up_without_being_asked);
	tcase_add_test(tc, full_filesystem_is_repaired);
	tcase_add_test(tc, space_that_is_only_recorded_as_used_is_found_again);
}

static void add_back(TCase *tc)
{
	tcase_add_test(tc, undo_brings_the_damage_back);
	tcase_add_test(tc, undo_is_refused_after_a_write);
	tcase_add_test(tc, undo_is_refused_after_a_mount_that_was_killed);
	tcase_add_test(tc, undo_is_refused_where_nodes_took_the_place_of_others);
	tcase_add_test(tc, a_superblock_that_cannot_be_read_is_not_emptied);
	tcase_add_test(tc, older_superblock_can_be_used);
}

static void add_cut_off(TCase *tc)
{
	tcase_add_test(tc, cut_off_at_any_write_nothing_is_worse);
	tcase_add_test(tc, failing_writes_leave_the_old_state);
}

int main(void)
{
	Suite *s = suite_create("repair, trees");

	test_case(s, "nodes", 300, setup, teardown, add_nodes);
	test_case(s, "log and space", 300, setup, teardown, add_log_and_space);
	test_case(s, "going back", 300, setup, teardown, add_back);
	test_case(s, "cut off", 300, setup, teardown, add_cut_off);
	return test_main(s);
}
