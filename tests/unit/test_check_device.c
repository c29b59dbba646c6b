/*
 * test_check_device.c - check finds damaged bytes, superblocks, maps, snapshots
 */

#include "cowfs/cowfs.h"
#include "support/image.h"

/* ---- damaged bytes ---- */

START_TEST(damaged_copy_of_node_is_found_and_mended)
{
	struct check_options opt = { .mend = true, .found = note };
	struct cowfs_disk_super d;
	struct nptr root;

	unmount_it();
	d = get_super();
	root = nptr_from_disk(&d.roots[COWFS_ROOT_FS].ptr);
	flip_block(root.blk2);
	assert_found_only(P_NODE_COPY);
	ck_assert_uint_eq(result.bad_copies, 1);
	ck_assert_uint_eq(result.repaired, 0);
	ck_assert_uint_eq(result.lost, 0);
	mount_it();
	ck_ok(check_run(store, &opt, &result));
	ck_assert_uint_eq(result.repaired, 1);
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(node_without_good_copy_is_found)
{
	struct cowfs_disk_super d;
	struct nptr root;

	unmount_it();
	d = get_super();
	root = nptr_from_disk(&d.roots[COWFS_ROOT_FS].ptr);
	flip_block(root.blk);
	flip_block(root.blk2);
	assert_found_only(P_NODE_UNREADABLE);
	ck_assert_uint_eq(result.lost, 1);
	ck_assert_uint_eq(result.bad_copies, 2);
}
END_TEST

START_TEST(store_that_cannot_be_opened_is_checked)
{
	struct cowfs_check opt = { .semantics = true };
	struct cowfs_ioc_scrub out;
	struct cowfs_disk_super d;
	struct nptr root;

	unmount_it();
	d = get_super();
	root = nptr_from_disk(&d.roots[COWFS_ROOT_SPACE].ptr);
	flip_block(root.blk);
	flip_block(root.blk2);
	assert_found_only(P_NODE_UNREADABLE);
	ck_ok(cowfs_check_device(dev, &opt, &out));
	ck_assert_uint_eq(out.problems, 1);
	ck_assert_uint_eq(out.inodes, 309);
}
END_TEST

static void bad_header(uint8_t *node, unsigned slot)
{
	(void)slot;
	node[0x18] ^= 1; /* uuid */
}

START_TEST(impossible_node_is_found)
{
	unmount_it();
	patch(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 0), 0, bad_header);
	assert_found_only(P_NODE_CORRUPT);
}
END_TEST

static void bad_level(uint8_t *node, unsigned slot)
{
	struct cowfs_disk_child *c =
		(void *)(node + sizeof(struct cowfs_disk_node));

	c[slot].ptr.level = 9;
}

START_TEST(child_of_wrong_level_is_found)
{
	unmount_it();
	patch(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 0), 1, bad_level);
	assert_found_only(P_NODE_CORRUPT);
}
END_TEST

static void same_child(uint8_t *node, unsigned slot)
{
	struct cowfs_disk_child *c =
		(void *)(node + sizeof(struct cowfs_disk_node));

	ck_assert_uint_gt(node_count(node), 1);
	c[slot].ptr = c[slot ? 0 : 1].ptr;
}

START_TEST(node_with_two_parents_is_found)
{
	unmount_it();
	patch(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 0), 1, same_child);
	assert_found(P_SHARED_GEN);
}
END_TEST

static void node_outside(uint8_t *node, unsigned slot)
{
	struct cowfs_disk_child *c =
		(void *)(node + sizeof(struct cowfs_disk_node));

	c[slot].ptr.blk = to_le64(DEV_BYTES / 4096 - 2);
}

START_TEST(node_outside_is_found)
{
	unmount_it();
	patch(COWFS_ROOT_FS, KEY(ino_sub, COWFS_KEY_DIRENT, 0), 1,
	      node_outside);
	check_fully();
	ck_assert(seen.n[P_OUT_OF_DEVICE] || seen.n[P_NODE_CORRUPT]);
}
END_TEST

START_TEST(lost_data_is_found)
{
	uint64_t blk = big_block();

	unmount_it();
	flip_block(blk + 1);
	assert_found_only(P_DATA_UNREADABLE);
	ck_assert_uint_eq(seen.total, 1);
	ck_assert_uint_eq(result.lost, 1);
	ck_assert_uint_eq(result.checksums + 1 + result.prealloc_blocks,
			  result.blocks);
}
END_TEST

START_TEST(metadata_check_reads_no_data)
{
	struct check_options opt = { .semantics = true, .found = note };
	uint64_t blk = big_block();

	unmount_it();
	flip_block(blk + 1);
	ck_ok(check_options(&opt));
	ck_assert_uint_eq(seen.total, 0);
	ck_assert_uint_eq(result.checksums, result.nodes);
}
END_TEST

START_TEST(damaged_copy_of_data_is_found_and_mended)
{
	struct check_options opt = { .data = true, .mend = true,
				     .found = note };
	uint64_t blk = big_block();

	unmount_it();
	flip_block(blk + 2);
	flip_block(blk + 5);
	assert_found_only(P_DATA_COPY);
	ck_assert_uint_eq(result.bad_copies, 2);
	ck_assert_uint_eq(result.lost, 0);
	mount_it();
	ck_ok(check_run(store, &opt, &result));
	ck_assert_uint_eq(result.repaired, 2);
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- superblocks ---- */

START_TEST(damaged_superblock_is_found)
{
	for (unsigned i = 0; i < 2 * COWFS_SUPER_SLOTS; i++) {
		uint64_t blk = super_slot_block(DEV_BYTES / 4096,
						i % COWFS_SUPER_SLOTS,
						i >= COWFS_SUPER_SLOTS);

		if (i == 0)
			unmount_it();
		flip_block(blk);
		assert_found_only(P_SUPER_BAD);
		flip_block(blk);
	}
	assert_clean();
}
END_TEST

START_TEST(stale_superblock_is_found)
{
	struct cowfs_disk_super old[COWFS_SUPER_SLOTS];
	unsigned slot;
	uint64_t far = super_slot_block(DEV_BYTES / 4096, 0, true);

	for (unsigned i = 0; i < COWFS_SUPER_SLOTS; i++)
		ck_ok(store_commit(store, NULL, NULL));
	ck_ok(bdev_read(dev, far << 12, old, sizeof(old)));
	unmount_it();
	slot = get_super().slot;
	ck_ok(bdev_write(dev, (far + slot) << 12, &old[slot],
			 sizeof(old[slot])));
	assert_found_only(P_SUPER_STALE);
}
END_TEST

START_TEST(torn_superblock_after_a_crash_is_no_damage)
{
	struct cowfs_disk_super d;
	uint64_t blk;

	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	d = get_super();
	blk = super_slot_block(DEV_BYTES / 4096,
			       (d.slot + 1u) % COWFS_SUPER_SLOTS, false);
	flip_block(blk);
	assert_clean();
	flip_block(super_slot_block(DEV_BYTES / 4096, d.slot, true));
	assert_clean();
	/* torn by the crash before, and not yet made good */
	flip_block(super_slot_block(DEV_BYTES / 4096,
				    (d.slot + 3u) % COWFS_SUPER_SLOTS, true));
	assert_clean();
	/* two generations back is another matter */
	flip_block(super_slot_block(DEV_BYTES / 4096,
				    (d.slot + 2u) % COWFS_SUPER_SLOTS, true));
	assert_found_only(P_SUPER_BAD);
	/* but for one that was passed over */
	d.back = to_le32(2);
	put_super(&d);
	assert_clean();
}
END_TEST

/* ---- the maps ---- */

static unsigned chunk_bit;

static void toggle_bit(uint8_t *node, unsigned slot)
{
	struct item it = node_item(node, slot, 4096);
	uint8_t *bits = (uint8_t *)(uintptr_t)it.data +
			sizeof(struct cowfs_disk_chunk);
	struct cowfs_disk_chunk *d = (void *)(uintptr_t)it.data;
	bool was = bits[chunk_bit / 8] >> chunk_bit % 8 & 1;

	ck_assert_uint_gt(it.len, sizeof(*d));
	bits[chunk_bit / 8] ^= (uint8_t)(1u << chunk_bit % 8);
	d->free = to_le16((uint16_t)(from_le16(d->free) + (was ? 1 : -1)));
}

/* The bit of `chunk` whose state is `used`, of blocks in the middle. */
static void pick_bit(uint64_t blk)
{
	chunk_bit = (unsigned)(blk % COWFS_CHUNK_BLOCKS);
}

START_TEST(used_block_recorded_free_is_found)
{
	uint64_t blk = big_block();
	struct cowfs_disk_super d;

	unmount_it();
	pick_bit(blk);
	patch(COWFS_ROOT_SPACE, KEY(blk / COWFS_CHUNK_BLOCKS, COWFS_KEY_SPACE,
				    0), 0, toggle_bit);
	assert_found(P_SPACE_USED);
	ck_assert_uint_eq(seen.n[P_FREE_COUNT], 1);
	d = get_super();
	d.free_blocks = to_le64(from_le64(d.free_blocks) + 1);
	put_super(&d);
	assert_found_only(P_SPACE_USED);
	ck_assert_uint_eq(seen.total, 1);
}
END_TEST

START_TEST(unowned_block_is_found)
{
	unmount_it();
	/* a second copy's neighbourhood: near the end nothing is used */
	pick_bit(COWFS_CHUNK_BLOCKS - 1);
	patch(COWFS_ROOT_SPACE, KEY(0, COWFS_KEY_SPACE, 0), 0, toggle_bit);
	assert_found(P_SPACE_FREE);
}
END_TEST

START_TEST(wrong_free_count_is_found)
{
	struct cowfs_disk_super d;

	unmount_it();
	d = get_super();
	d.free_blocks = to_le64(from_le64(d.free_blocks) - 1);
	put_super(&d);
	assert_found_only(P_FREE_COUNT);
}
END_TEST

static void bad_chunk(uint8_t *node, unsigned slot)
{
	struct item it = node_item(node, slot, 4096);
	struct cowfs_disk_chunk *d = (void *)(uintptr_t)it.data;

	d->free = to_le16((uint16_t)(from_le16(d->free) + 5));
}

START_TEST(malformed_space_record_is_found)
{
	unmount_it();
	patch(COWFS_ROOT_SPACE, KEY(0, COWFS_KEY_SPACE, 0), 0, bad_chunk);
	assert_found_only(P_SPACE_BAD);
}
END_TEST

static void bad_extra(uint8_t *node, unsigned slot)
{
	struct item it = node_item(node, slot, 4096);
	struct cowfs_disk_ref *d = (void *)(uintptr_t)it.data;

	d->extra = to_le32(0);
}

static void more_extra(uint8_t *node, unsigned slot)
{
	struct item it = node_item(node, slot, 4096);
	struct cowfs_disk_ref *d = (void *)(uintptr_t)it.data;

	d->extra = to_le32(from_le32(d->extra) + 1);
}

START_TEST(malformed_reference_is_found)
{
	share_something();
	unmount_it();
	patch(COWFS_ROOT_REFS, KEY_MIN, 0, bad_extra);
	assert_found(P_REF_BAD);
}
END_TEST

START_TEST(wrong_reference_count_is_found)
{
	share_something();
	unmount_it();
	assert_clean();
	patch(COWFS_ROOT_REFS, KEY_MIN, 0, more_extra);
	check_fully();
	ck_assert_uint_ge(seen.n[P_REF_WRONG], 1);
	ck_assert_uint_eq(seen.total,
			  seen.n[P_REF_WRONG] + seen.n[P_REF_BAD]);
}
END_TEST

/* ---- snapshots ---- */

static void bad_snap(void *data, uint32_t len)
{
	struct cowfs_disk_snap *d = data;

	(void)len;
	d->gen = to_le64(UINT64_MAX);
}

START_TEST(malformed_snapshot_is_found)
{
	struct snap_info info;

	ck_ok(snap_create(store, "s", &info));
	edit(COWFS_ROOT_SNAP, KEY(info.id, COWFS_KEY_SNAP, 0), bad_snap);
	unmount_it();
	assert_found(P_SNAP_BAD);
}
END_TEST

START_TEST(snapshot_without_name_is_found)
{
	struct snap_info info;
	struct key k;

	ck_ok(snap_create(store, "s", &info));
	get_first(COWFS_ROOT_SNAP, UINT64_C(1) << 63, COWFS_KEY_SNAP_NAME, &k,
		  scratch);
	del(COWFS_ROOT_SNAP, k);
	unmount_it();
	assert_found_only(P_SNAP_NAME);
}
END_TEST

START_TEST(name_without_snapshot_is_found)
{
	struct {
		struct cowfs_disk_snap_name d;
		char name[4];
	} n = { .d = { to_le64(4711) }, .name = "gone" };
	uint64_t h = siphash(store->super.hash_seed, n.name, 4);

	put(COWFS_ROOT_SNAP, KEY(h | UINT64_C(1) << 63, COWFS_KEY_SNAP_NAME, 0),
	    &n, sizeof(n));
	unmount_it();
	assert_found_only(P_SNAP_NAME);
}
END_TEST

START_TEST(drop_of_a_node_in_use_is_found)
{
	struct cowfs_disk_drop d = { .started = 1 };

	ck_ok(store_commit(store, NULL, NULL));
	d.ptr = nptr_to_disk(&store->fs.root);
	put(COWFS_ROOT_SNAP,
	    KEY(0, COWFS_KEY_DROP, store->fs.root.blk), &d, sizeof(d));
	ck_ok(store_commit(store, NULL, NULL));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	assert_found(P_DROP_BAD);
}
END_TEST

START_TEST(damage_of_a_snapshot_alone_is_found)
{
	edit_inode(ino_small, nlink_more);
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_unlink(fs, ino_dir, "small", 5, NULL));
	/* the live tree: remove it for good */
	edit(COWFS_ROOT_FS, KEY(ino_dir, COWFS_KEY_INODE, 0), nlink_more);
	unmount_it();
	check_fully();
	ck_assert_uint_ge(seen.n[P_INODE_NLINK], 2);
}
END_TEST

/* ---- hostile images ---- */

static struct rng chaos;
static unsigned chaos_level;

static void scribble(uint8_t *node, unsigned slot)
{
	unsigned n = (unsigned)rng_range(&chaos, 1, 4);

	(void)slot;
	while (n--) {
		/* the header and keys are where most of the meaning is */
		size_t at = rng_one_in(&chaos, 2) ? rng_below(&chaos, 4096) :
						    rng_below(&chaos, 400);

		if (rng_one_in(&chaos, 2))
			node[at] = (uint8_t)rng_next(&chaos);
		else
			node[at] ^= (uint8_t)(1u << rng_below(&chaos, 8));
	}
}

static struct key random_key(unsigned kind)
{
	if (kind == COWFS_ROOT_FS)
		return KEY(rng_below(&chaos, 600), 0, 0);
	return KEY(rng_below(&chaos, 12288), 0, 0);
}

START_TEST(scribbled_nodes_never_crash_it)
{
	struct bdev *base = dev;
	unsigned rounds = test_rounds(300), found = 0;

	share_something();
	unmount_it();
	rng_init(&chaos, test_seed(), 1);
	for (unsigned i = 0; i < rounds; i++) {
		unsigned kind = (unsigned)rng_below(&chaos, 4);
		struct cowfs_disk_super d;
		struct bdev *over;
		struct check_options opt = { .data = rng_one_in(&chaos, 8),
					     .semantics = true,
					     .found = note };
		int err;

		ck_ok(overlay_open(base, &over));
		dev = over;
		d = get_super();
		if (d.roots[kind].ptr.blk.b[0] || d.roots[kind].ptr.blk.b[1]) {
			chaos_level = (unsigned)rng_below(
				&chaos, d.roots[kind].ptr.level + 1u);
			patch(kind, random_key(kind), chaos_level, scribble);
		}
		err = check_options(&opt);
		ck_assert(err == 0 || err == -ECOW_CORRUPT ||
			  err == -ECOW_CSUM);
		found += seen.total != 0 || err != 0;
		bdev_close(over);
		dev = base;
	}
	ck_assert_uint_gt(found, rounds / 4);
}
END_TEST

START_TEST(every_flipped_bit_is_found_or_means_nothing)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = note };
	struct cowfs_disk_super d;
	struct bdev *base = dev;

	unmount_it();
	rng_init(&chaos, test_seed(), 2);
	d = get_super();
	/* the newest superblock: whatever is in it, with a right checksum */
	for (unsigned i = 0; i < test_rounds(400); i++) {
		struct cowfs_disk_super bad = d;
		struct bdev *over;
		size_t at = rng_range(&chaos, 4, 0x500);
		int err;

		ck_ok(overlay_open(base, &over));
		dev = over;
		((uint8_t *)&bad)[at] ^= (uint8_t)(1u << rng_below(&chaos, 8));
		bad.csum = to_le32(checksum(0, (uint8_t *)&bad + 4,
					    sizeof(bad) - 4));
		for (int far = 0; far < 2; far++)
			ck_ok(bdev_write(over, super_slot_block(
						 DEV_BYTES / 4096, d.slot,
						 far) << 12,
					 &bad, sizeof(bad)));
		err = check_options(&opt);
		(void)err; /* anything but a crash */
		bdev_close(over);
		dev = base;
	}
}
END_TEST

/* ---- */

static Suite *check_device_suite(void)
{
	Suite *s = suite_create("check_device");
	TCase *t = tcase_create("all");
	TCase *two = tcase_create("copies");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, damaged_copy_of_node_is_found_and_mended);
	tcase_add_test(t, node_without_good_copy_is_found);
	tcase_add_test(t, store_that_cannot_be_opened_is_checked);
	tcase_add_test(t, impossible_node_is_found);
	tcase_add_test(t, child_of_wrong_level_is_found);
	tcase_add_test(t, node_with_two_parents_is_found);
	tcase_add_test(t, node_outside_is_found);
	tcase_add_test(t, lost_data_is_found);
	tcase_add_test(t, metadata_check_reads_no_data);
	tcase_add_test(t, damaged_superblock_is_found);
	tcase_add_test(t, stale_superblock_is_found);
	tcase_add_test(t, torn_superblock_after_a_crash_is_no_damage);
	tcase_add_test(t, used_block_recorded_free_is_found);
	tcase_add_test(t, unowned_block_is_found);
	tcase_add_test(t, wrong_free_count_is_found);
	tcase_add_test(t, malformed_space_record_is_found);
	tcase_add_test(t, malformed_reference_is_found);
	tcase_add_test(t, wrong_reference_count_is_found);
	tcase_add_test(t, malformed_snapshot_is_found);
	tcase_add_test(t, snapshot_without_name_is_found);
	tcase_add_test(t, name_without_snapshot_is_found);
	tcase_add_test(t, drop_of_a_node_in_use_is_found);
	tcase_add_test(t, damage_of_a_snapshot_alone_is_found);
	tcase_add_test(t, scribbled_nodes_never_crash_it);
	tcase_add_test(t, every_flipped_bit_is_found_or_means_nothing);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_set_timeout(two, 300);
	tcase_add_test(two, damaged_copy_of_data_is_found_and_mended);
	suite_add_tcase(s, two);
	return s;
}

int main(void)
{
	return test_main(check_device_suite());
}
