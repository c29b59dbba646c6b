/*
 * test_scrub_report.c - scrub: what is reported, and whose it is
 */
#include "unit/scrub_fixture.h"

/* ---- whose it is ---- */

START_TEST(every_name_snapshot_and_clone_of_a_lost_block_is_named)
{
	uint64_t blk = big_block(), clone, copied;
	struct attr a;

	ck_ok(fs_link(fs, ino_big, 1, "hard", 4, &a));
	ck_ok(snap_create(store, "one", NULL));
	ck_ok(fs_rename(fs, ino_dir, "big", 3, ino_sub, "new\nname", 8, 0));
	clone = make_node(ino_sub, "clone", S_IFREG | 0644, NULL);
	ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, clone, 5 << 12,
			    8 << 12, &copied));
	ck_ok(snap_create(store, "two", NULL));
	fill(ino_big, 2 << 12, 1 << 12, 77); /* not damaged in the live tree */
	ck_ok(fs_unlink(fs, 1, "hard", 4, NULL));
	ck_ok(store_commit(store, NULL, NULL));
	for (unsigned i = 1; i < 4; i++)
		lose(blk + i);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 3);
	ck_assert_uint_eq(st.problems, 3);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
	ck_assert_uint_eq(from_le64(entry[0]->blocks), 3);
	ck_assert_uint_eq(entry[0]->fate, COWFS_SCRUB_LOST);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/new\nname",
				 1, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/new\nname",
				 3, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/clone", 6, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "one", "/dir/big", 1,
				 3), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "one", "/hard", 1, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two",
				 "/dir/sub/new\nname", 1, 3), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two", "/hard", 1, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two",
				 "/dir/sub/clone", 6, 3), 1);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), 8);
	free_scrub();
}
END_TEST

START_TEST(a_deeper_path_than_fits_loses_its_beginning)
{
	char name[201] = "";
	uint64_t dir = 1, ino, blk;
	const struct cowfs_disk_scrub_entry *e;
	uint16_t len;

	for (unsigned i = 0; i < 30; i++) {
		memset(name, 'a' + (int)i % 26, 200);
		dir = make_node(dir, name, S_IFDIR | 0755, NULL);
	}
	ino = make_node(dir, "the file", S_IFREG | 0644, NULL);
	fill(ino, 0, 100000, 3);
	ck_ok(store_commit(store, NULL, NULL));
	{
		struct cowfs_disk_extent d[40];
		struct key k;

		(void)get_first(COWFS_ROOT_FS, ino, COWFS_KEY_EXTENT, &k, d);
		blk = from_le64(d[0].blk);
	}
	lose(blk);
	for (unsigned i = 0; i < 2; i++) {
		new_scrub(0);
		if (!i)
			run_it(false, NULL);
		read_report();
		e = first_of(COWFS_SCRUB_FILE);
		len = from_le16(e->text_len);
		ck_assert(!memcmp(e + 1, "...", 3));
		ck_assert(!memcmp((const char *)(e + 1) + len - 9, "/the file",
				  9));
		/* what is kept on disk is shorter still */
		ck_assert_uint_eq(len > 4000, !i);
		free_scrub();
		unmount_it();
		mount_it();
	}
}
END_TEST

/* What is to be done when damage was seen is done once. */
static unsigned calls;

static int unlink_when_seen(void *arg)
{
	(void)arg;
	scrub_status(sc, &st);
	if (st.lost && !calls) {
		calls++;
		ck_ok(fs_unlink(fs, ino_dir, "big", 3, NULL));
		ck_ok(store_commit(store, NULL, NULL));
	}
	return 0;
}

static int overwrite_when_seen(void *arg)
{
	(void)arg;
	scrub_status(sc, &st);
	if (st.lost == 2 && !calls) {
		calls++;
		fill(ino_big, 0, 4096, 88);
		ck_ok(store_commit(store, NULL, NULL));
	}
	return 0;
}

START_TEST(what_is_freed_meanwhile_is_not_reported)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	lose(blk);
	lose(blk + 1);
	new_scrub(1000);
	calls = 0;
	run_it(false, overwrite_when_seen);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_eq(st.lost, 1);
	ck_assert_uint_eq(st.problems, 1);
	read_report();
	ck_assert_uint_eq(entries, 2);
	ck_assert_uint_eq(from_le64(entry[0]->blk), blk + 1);
	calls = 0;
	run_it(false, unlink_when_seen);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_eq(st.lost, 0);
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(st.damaged, 0);
	read_report();
	ck_assert_uint_eq(entries, 0);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

/* Both copies of the leaf that has the extents of "big", on the device. */
static struct nptr leaf_of_big(void)
{
	struct key k = KEY(ino_big, COWFS_KEY_EXTENT, 0);
	struct nptr p = store->fs.root;
	static uint8_t node[4096];

	while (p.level) {
		unsigned i, n;

		ck_ok(bdev_read(dev, p.blk * 4096, node, sizeof(node)));
		n = node_count(node);
		for (i = 0; i + 1 < n; i++) {
			struct key next = node_key(node, i + 1);

			if (key_cmp(&next, &k) > 0)
				break;
		}
		p = node_child(node, i);
	}
	return p;
}

START_TEST(a_lost_node_is_named_with_what_lies_below_it)
{
	const struct cowfs_disk_scrub_entry *e;
	struct nptr p;

	ck_ok(snap_create(store, "one", NULL));
	make_node(1, "later", S_IFREG | 0644, NULL);
	ck_ok(store_commit(store, NULL, NULL));
	p = leaf_of_big();
	flip_block(p.blk);
	flip_block(p.blk2);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 1);
	ck_assert_uint_eq(st.problems, 1);
	ck_assert_uint_eq(st.damaged, 1);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_NODE), 1);
	e = first_of(COWFS_SCRUB_NODE);
	ck_assert_uint_eq(from_le64(e->blk), p.blk);
	ck_assert_uint_eq(e->root, COWFS_ROOT_FS);
	ck_assert_uint_eq(e->level, 0);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_PART), 2);
	for (unsigned i = 0; i < entries; i++) {
		if (entry[i]->what != COWFS_SCRUB_PART)
			continue;
		ck_assert_uint_le(from_le64(entry[i]->ino), ino_big);
		ck_assert_uint_ge(from_le64(entry[i]->ino_last), ino_big);
		ck_assert_uint_lt(from_le64(entry[i]->ino_last), UINT64_MAX);
	}
	free_scrub();
}
END_TEST

START_TEST(many_ranges_of_damage_fill_pages)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	for (unsigned i = 0; i < BIG_BLOCKS - 4; i += 2)
		lose(blk + i);
	new_scrub(0);
	run_it(false, NULL);
	read_report();
	/* a hole of four blocks in the file: two ranges there are none */
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), st.lost);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), st.lost);
	ck_assert_uint_gt(st.lost, 140);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), st.lost);
	/* a page from anywhere is no harm */
	for (uint64_t from = 0; from < 40000; from += 3) {
		static struct cowfs_ioc_report page;

		page.from = from;
		scrub_report(sc, &page);
		ck_assert_uint_le(page.bytes, COWFS_IOC_REPORT_BYTES);
	}
	free_scrub();
}
END_TEST

/* ---- where there are other copies ---- */

START_TEST(bad_copies_are_repaired_and_named)
{
	struct cowfs_disk_extent d[40];
	uint64_t blk = big_block();
	struct key k;

	ck_ok(store_commit(store, NULL, NULL));
	(void)get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, d);
	flip_block(blk);
	flip_block(from_le64(d[0].blk2) + 2);
	flip_block(store->space.root.blk2);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.problems, 3);
	ck_assert_uint_eq(st.repaired, 3);
	ck_assert_uint_eq(st.damaged, 0);
	read_report();
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 2, 1), 1);
	ck_assert_uint_eq(first_of(COWFS_SCRUB_NODE)->root,
			  COWFS_ROOT_SPACE);
	for (unsigned i = 0; i < entries; i++)
		if (entry[i]->what <= COWFS_SCRUB_NODE)
			ck_assert_uint_eq(entry[i]->fate,
					  COWFS_SCRUB_REPAIRED);
	run_it(false, NULL);
	ck_assert_uint_eq(st.problems, 0);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(a_read_only_store_is_reported_and_left_alone)
{
	struct store_config cfg = { .flags = STORE_READONLY };
	uint64_t blk = big_block();
	struct bdev *log;

	unmount_it();
	flip_block(blk + 7);
	ck_ok(log_open(dev, &log));
	cfg.dev = log;
	ck_ok(store_open(&cfg, &store));
	new_scrub(1000);
	run_it(false, NULL);
	ck_assert(st.finished);
	ck_assert_uint_eq(st.problems, 1);
	ck_assert_uint_eq(st.repaired, 0);
	ck_assert_uint_eq(st.damaged, 1);
	read_report();
	ck_assert_uint_eq(first_of(COWFS_SCRUB_DATA)->fate,
			  COWFS_SCRUB_ONE_BAD);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 7, 1), 1);
	for (size_t i = 0; i < log_count(log); i++)
		ck_assert(log_get(log, i)->kind != LOG_WRITE);
	free_scrub();
	store_abandon(store);
	store = NULL;
	bdev_close(log);
}
END_TEST

static void add_one_copy(TCase *tc)
{
	tcase_add_test(tc,
		       every_name_snapshot_and_clone_of_a_lost_block_is_named);
	tcase_add_test(tc, a_deeper_path_than_fits_loses_its_beginning);
	tcase_add_test(tc, what_is_freed_meanwhile_is_not_reported);
	tcase_add_test(tc, a_lost_node_is_named_with_what_lies_below_it);
	tcase_add_test(tc, many_ranges_of_damage_fill_pages);
}

static void add_two_copies(TCase *tc)
{
	tcase_add_test(tc, bad_copies_are_repaired_and_named);
	tcase_add_test(tc, a_read_only_store_is_reported_and_left_alone);
}

int main(void)
{
	Suite *s = suite_create("scrub, report");

	test_case(s, "one copy of data", 300, setup, teardown, add_one_copy);
	test_case(s, "two copies", 300, setup_two, teardown, add_two_copies);
	return test_main(s);
}
