/*
 * test_drop.c - snapshots are let go of: while the live tree changes, cold, and
 * with a power cut at any commit
 *
 * That no reference is lost, and none left over, is what the check after each
 * test finds (fs_fixture.h).
 */
#include "snapshot/snapshot.h"
#include "support/testdev.h"
#include "unit/fs_fixture.h"

#define FILES 600u
#define MANY 24000u
#define LEAF 40u /* files; a leaf has fewer */

static void name_of(unsigned i, char name[16])
{
	snprintf(name, 16, "f%u", i);
}

/* Each `every`-th one has data; 0: none. */
static void make_files(unsigned n, unsigned every)
{
	static uint8_t data[2 * COWFS_BLOCK_SIZE];
	char name[16];
	uint64_t ino;

	for (unsigned i = 0; i < n; i++) {
		name_of(i, name);
		ino = make_file(ROOT, name);
		memset(data, (int)i, sizeof(data));
		if (every && i % every == 0)
			ck_ok(fs_write(fs, ino, 0, data, sizeof(data), 0));
	}
}

/* Each other LEAF of the files is changed, and its leaves with it. */
static void touch_half(unsigned n, unsigned odd)
{
	struct attr a = { .mode = 0600 }, out;
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		if (i / LEAF % 2 != odd)
			continue;
		name_of(i, name);
		ck_ok(fs_setattr(fs, ino_of(ROOT, name), FS_SET_MODE, &a,
				 &root_cred, &out));
	}
}

static void drop_it(const char *name)
{
	uint64_t n;

	ck_ok(snap_delete(store, name));
	ck_ok(store_drain(store));
	ck_ok(snap_drops(store, &n));
	ck_assert_uint_eq(n, 0);
	ck_ok(store_commit(store, NULL, NULL));
	test_check(store);
}

/* Three levels, and more references than a leaf of their tree tells: looking at a
 * node's children is interrupted half-way, to read the next one. */
START_TEST(who_else_refers_to_children_may_have_to_be_read)
{
	make_files(MANY, LEAF);
	ck_ok(snap_create(store, "one", NULL));
	touch_half(MANY, 1);
	ck_ok(store_commit(store, NULL, NULL));
	ck_assert_uint_ge(store->fs.root.level, 2);
	ck_assert_uint_ge(store->refs.root.level, 1);
	remount();
	drop_it("one");
}
END_TEST

/* ---- the live tree changes meanwhile ---- */

static struct bdev_ops racing_ops; /* of `dev`, but for read */
static int (*usual_read)(struct bdev *d, uint64_t off, void *buf, size_t len);
static unsigned raced;

/* Its children have been looked at when a leaf of the snapshot is read. */
static int racing_read(struct bdev *d, uint64_t off, void *buf, size_t len)
{
	int err = usual_read(d, off, buf, len);

	if (!err && len == 4096 && node_level(buf) == 0 &&
	    node_head(buf)->tree == COWFS_ROOT_FS && !raced++)
		touch_half(FILES, 0);
	return err;
}

START_TEST(what_is_shared_no_more_goes_with_what_it_refers_to)
{
	make_files(FILES, 1);
	ck_ok(snap_create(store, "one", NULL));
	touch_half(FILES, 1);
	remount();
	racing_ops = *dev->ops;
	usual_read = racing_ops.read;
	racing_ops.read = racing_read;
	raced = 0;
	dev->ops = &racing_ops;
	drop_it("one");
	ck_assert_uint_gt(raced, 1);
}
END_TEST

/* ---- power cuts ---- */

/* As it is found after a power cut now, with nothing that was not flushed. */
static void assert_goes_on(struct bdev *found)
{
	struct store *s;
	struct fs *f;
	uint64_t n;

	ck_ok(test_mount(found, 0, 0, &s, &f));
	test_check(s);
	ck_ok(store_drain(s));
	ck_ok(snap_drops(s, &n));
	ck_assert_uint_eq(n, 0);
	test_umount(s, f);
	test_check_device(found);
}

START_TEST(a_drop_goes_on_from_any_commit)
{
	struct pick none = PICK(PICK_NONE);
	struct bdev *base, *log, *below = dev, *found;
	struct replay rep;
	unsigned cuts = 0;
	size_t sure;

	make_files(MANY, LEAF);
	ck_ok(snap_create(store, "one", NULL));
	touch_half(MANY, 1);
	umount_it();
	ck_ok(bdev_open_mem(dev->size, &base));
	ck_ok(dev_copy(base, dev));
	ck_ok(log_open(below, &log));
	dev = log;
	mount_it();
	drop_it("one");
	umount_it();
	dev = below;
	mount_it();
	replay_init(&rep, log, base);
	test_log_hide();
	for (size_t i = 0; i < log_count(log); i++) {
		if (log_get(log, i)->kind != LOG_FLUSH || log_get(log, i)->len)
			continue;
		ck_ok(replay_cut(&rep, i + 1, &sure));
		ck_ok(replay_state(&rep, i + 1, &none, &found));
		assert_goes_on(found);
		bdev_close(found);
		cuts++;
	}
	test_log_show();
	ck_assert_uint_ge(cuts, 6);
	bdev_close(log);
	bdev_close(base);
}
END_TEST

/* ---- several records ---- */

static void count(uint64_t want)
{
	uint64_t n;

	ck_ok(snap_drops(store, &n));
	ck_assert_uint_eq(n, want);
}

/* Snapshots with one root have one record, which loses a reference for each. */
START_TEST(one_root_has_one_record)
{
	make_files(FILES, 0);
	ck_ok(snap_create(store, "one", NULL));
	ck_ok(snap_create(store, "two", NULL));
	ck_ok(snap_create(store, "three", NULL));
	touch_half(FILES, 1);
	ck_ok(snap_delete(store, "one"));
	ck_ok(snap_delete(store, "two"));
	count(1);
	ck_ok(store_drain(store));
	count(0);
	ck_ok(store_commit(store, NULL, NULL));
	test_check(store);
	drop_it("three");
}
END_TEST

/* One that cannot be read is passed over, the others are not. */
START_TEST(a_damaged_record_keeps_no_other_from_its_turn)
{
	struct snap_info one, two;

	make_files(FILES, 0);
	ck_ok(snap_create(store, "one", NULL));
	touch_half(FILES, 0);
	ck_ok(snap_create(store, "two", NULL));
	touch_half(FILES, 1);
	ck_ok(store_commit(store, NULL, NULL));
	ck_ok(snap_find(store, "one", &one));
	ck_ok(snap_find(store, "two", &two));
	ck_ok(snap_delete(store, "one"));
	ck_ok(snap_delete(store, "two"));
	if (two.root.blk < one.root.blk)
		one = two;
	remount();
	flip_bit(dev, one.root.blk * COWFS_BLOCK_SIZE + 2000, 1);
	test_log_hide();
	ck_ok(store_drain(store));
	test_log_show();
	count(1);
	flip_bit(dev, one.root.blk * COWFS_BLOCK_SIZE + 2000, 1);
	remount();
	ck_ok(store_drain(store));
	count(0);
}
END_TEST

static void add_all(TCase *t)
{
	tcase_add_test(t, who_else_refers_to_children_may_have_to_be_read);
	tcase_add_test(t, what_is_shared_no_more_goes_with_what_it_refers_to);
	tcase_add_test(t, a_drop_goes_on_from_any_commit);
	tcase_add_test(t, one_root_has_one_record);
	tcase_add_test(t, a_damaged_record_keeps_no_other_from_its_turn);
}

int main(void)
{
	Suite *s = suite_create("drop");

	add_case(s, "drop", setup_small_nodes, add_all);
	return test_main(s);
}
