/*
 * test_edges.c - images made by hand: the last number there is, and a great many
 * of what there are few of
 *
 * What a fuzzer hardly comes upon: a key after which counting on begins anew,
 * and work that grows with the square of what an image holds. A test that uses
 * up its time has failed: what it looks at took minutes, or went round for good.
 * It is CPU time that counts, or a busy machine would fail it.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "check/private.h"
#include "check/repair.h"
#include "cowfs/rescue.h"
#include "snapshot/snapshot.h"
#include "support/image.h"

#define LAST UINT64_MAX

static struct repair_result res;

/* What follows is given so much time and up to a second more, else SIGXCPU. */
static void soon(unsigned seconds)
{
	struct rusage used;
	struct rlimit lim;

	ck_assert_int_eq(getrusage(RUSAGE_SELF, &used), 0);
	ck_assert_int_eq(getrlimit(RLIMIT_CPU, &lim), 0);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	seconds *= 5;
#endif
	lim.rlim_cur = (rlim_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec +
				1) + seconds;
	ck_assert_int_eq(setrlimit(RLIMIT_CPU, &lim), 0);
}

static void on_told(void *arg, const char *line)
{
	(void)arg;
	(void)line;
}

/* Unmounted. */
static void assert_repairs(void)
{
	struct repair_options opt = { .all = true, .told = on_told };

	soon(10);
	ck_ok(repair_run(dev, &opt, &res));
	ck_assert_uint_gt(res.check.problems, 0);
	ck_assert_uint_eq(res.left, 0);
	assert_clean();
}

/* ---- the last number ---- */

START_TEST(the_last_piece_of_a_value_that_was_no_ones)
{
	del(COWFS_ROOT_FS, KEY(ino_big, COWFS_KEY_INODE, 0));
	put(COWFS_ROOT_FS, KEY(ino_big, COWFS_KEY_XATTR_DATA, LAST), "x", 1);
	unmount_it();
	assert_repairs();
}
END_TEST

/* The name of an inode is looked for in a directory that does not have it. */
static void lose_name_in(uint64_t dir, void *data, uint32_t len)
{
	struct cowfs_disk_inode *d = data;

	ck_assert_uint_eq(len, sizeof(*d));
	d->parent = to_le64(dir);
}

static uint64_t late;

static void move_to_late(void *data, uint32_t len)
{
	lose_name_in(late, data, len);
}

START_TEST(the_last_name_of_a_directory)
{
	struct cowfs_disk_dirent d = { .ino = to_le64(ino_small),
				       .type = DT_REG };
	uint8_t buf[sizeof(d) + 1];

	memcpy(buf, &d, sizeof(d));
	buf[sizeof(d)] = 'n';
	late = make_node(1, "late", S_IFDIR | 0755, NULL);
	edit_inode(ino_big, move_to_late);
	/* something to be told about, before the entry is put right */
	put(COWFS_ROOT_FS, KEY(ino_big, 0x15, 0), "x", 1);
	put(COWFS_ROOT_FS, KEY(late, COWFS_KEY_DIRENT, LAST), buf, sizeof(buf));
	unmount_it();
	assert_repairs();
}
END_TEST

START_TEST(the_last_record_of_what_is_to_be_let_go)
{
	struct cowfs_disk_drop d = { .ptr = { .blk = to_le64(LAST),
					      .gen = to_le64(1) } };

	put(COWFS_ROOT_SNAP, KEY(0, COWFS_KEY_DROP, LAST), &d, sizeof(d));
	ck_ok(store_commit(store, NULL, NULL));
	ck_ok(snap_start(store));
	soon(10);
	ck_assert(store_drain(store) != 0); /* ends, and says so */
	unmount_it();
	assert_repairs();
}
END_TEST

START_TEST(the_last_orphan)
{
	put(COWFS_ROOT_FS, KEY(0, COWFS_KEY_ORPHAN, LAST), NULL, 0);
	unmount_it();
	soon(10);
	mount_it();
	ck_ok(store_drain(store));
	unmount_it();
	assert_repairs();
}
END_TEST

START_TEST(the_last_name_of_snapshots)
{
	struct snap_info info;
	struct {
		struct cowfs_disk_snap_name d;
		char name;
	} rec = { .name = 's' };
	uint64_t hash = siphash(store->super.hash_seed, "s", 1) |
			UINT64_C(1) << 63;

	ck_ok(snap_create(store, "s", &info));
	rec.d.id = to_le64(info.id);
	del(COWFS_ROOT_SNAP, KEY(hash, COWFS_KEY_SNAP_NAME, 0));
	put(COWFS_ROOT_SNAP, KEY(hash, COWFS_KEY_SNAP_NAME, LAST), &rec,
	    sizeof(rec.d) + 1);
	unmount_it();
	assert_repairs();
	mount_it();
	ck_ok(snap_find(store, "s", &info));
}
END_TEST

/* ---- a great many ---- */

#define MANY 40000u

/* MANY xattrs, the values of which lie elsewhere, or would; and so many pieces
 * that are no one's. */
static void put_xattrs(uint64_t ino)
{
	struct {
		struct cowfs_disk_xattr d;
		char name[24];
	} rec;
	unsigned i, len;

	for (i = 0; i < MANY; i++) {
		len = (unsigned)snprintf(rec.name, sizeof(rec.name), "user.%u",
					 i);
		rec.d = (struct cowfs_disk_xattr){
			.name_len = (uint8_t)len, .external = 1,
			.value_len = to_le32(COWFS_XATTR_SIZE_MAX),
			.value_id = to_le32(MANY - i),
		};
		put(COWFS_ROOT_FS, KEY(ino, COWFS_KEY_XATTR,
				       slot_of(rec.name) + i % 251), &rec,
		    sizeof(rec.d) + len);
	}
	for (i = 0; i < 3 * MANY; i++)
		put(COWFS_ROOT_FS, KEY(ino, COWFS_KEY_XATTR_DATA,
				       ((uint64_t)(MANY + 1) << 16) + i), "x", 1);
}

static unsigned lost_xattrs;

static int on_number(void *arg, uint64_t ino)
{
	(void)arg;
	(void)ino;
	return 0;
}

static int on_inode(void *arg, uint64_t ino, const struct cowfs_disk_inode *d)
{
	(void)d;
	return on_number(arg, ino);
}

static int on_name(void *arg, uint64_t dir, uint64_t ino, const char *name,
		   size_t len)
{
	(void)dir;
	(void)name;
	(void)len;
	return on_number(arg, ino);
}

static int on_bytes(void *arg, uint64_t off, const void *buf, size_t len)
{
	(void)buf;
	(void)len;
	return on_number(arg, off);
}

static int on_lost(void *arg, uint64_t off, uint64_t len)
{
	(void)len;
	return on_number(arg, off);
}

static int on_xattr(void *arg, const char *name, const void *val, size_t len)
{
	(void)arg;
	(void)name;
	(void)val;
	(void)len;
	return 0;
}

static int on_lost_xattr(void *arg, const char *name)
{
	(void)arg;
	(void)name;
	lost_xattrs++;
	return 0;
}

static int on_end(void *arg)
{
	(void)arg;
	return 0;
}

static void rescue_all(void)
{
	struct cowfs_rescue_sink sink = {
		.inode = on_inode, .name = on_name, .begin = on_number,
		.xattr = on_xattr, .data = on_bytes, .lost = on_lost,
		.lost_xattr = on_lost_xattr, .end = on_end,
	};
	struct cowfs_rescue_options opt = { .scan = false };
	struct cowfs_rescue *r;

	ck_ok(cowfs_rescue_open(dev, &opt, &r));
	ck_ok(cowfs_rescue_names(r, &sink));
	ck_ok(cowfs_rescue_contents(r, &sink));
	cowfs_rescue_close(r);
}

START_TEST(values_of_one_inode)
{
	put_xattrs(ino_small);
	unmount_it();
	soon(3);
	check_fully();
	ck_assert_uint_ge(seen.n[P_XATTR_BAD], 4 * MANY);
	soon(3);
	rescue_all();
	ck_assert_uint_eq(lost_xattrs, MANY);
}
END_TEST

/* Pairs of directories, each in the other: what check makes of the lists. */
START_TEST(loops_of_directories)
{
	const unsigned n = 200000;
	struct check_options opt = { .found = note };
	struct check c = { .opt = &opt };
	struct walk w = { .c = &c, .name = "live tree" };
	struct array inodes = { 0 }, links = { 0 }, orphans = { 0 };
	struct ino_rec *in;
	struct link_rec *l;

	memset(&seen, 0, sizeof(seen));
	for (unsigned i = 0; i < n; i++) {
		uint64_t ino = COWFS_INO_FIRST + i, other = ino ^ 1;

		in = array_add(&inodes, sizeof(*in));
		l = array_add(&links, sizeof(*l));
		ck_assert(in && l);
		*in = (struct ino_rec){ .ino = ino, .parent = other,
					.nlink = 3, .type = DT_DIR };
		*l = (struct link_rec){ .ino = ino, .dir = other,
					.slot = 1 << 8, .type = DT_DIR };
	}
	soon(10);
	links_check(&w, &inodes, &links, &orphans);
	ck_assert_uint_eq(seen.n[P_DIR_LOOP], n / 2);
	array_free(&inodes);
	array_free(&links);
	array_free(&orphans);
}
END_TEST

/* Snapshots that all have the same name, and none is found by it. */
START_TEST(snapshots_of_one_name)
{
	const unsigned n = 8000;
	struct {
		struct cowfs_disk_snap d;
		char name;
	} rec = { .d = { .name_len = 1 }, .name = 's' };
	struct snap_info info;

	ck_ok(snap_create(store, "t", &info));
	rec.d.root.ptr = nptr_to_disk(&info.root);
	rec.d.gen = to_le64(info.gen);
	for (unsigned i = 0; i < n; i++)
		put(COWFS_ROOT_SNAP, KEY(info.id + 1 + i, COWFS_KEY_SNAP, 0),
		    &rec, sizeof(rec.d) + 1);
	store->super.next_snap = to_le64(info.id + n + 1);
	unmount_it();
	assert_repairs();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("edges");
	TCase *last = tcase_create("the last number");
	TCase *many = tcase_create("a great many");

	tcase_add_checked_fixture(last, setup, teardown);
	tcase_set_timeout(last, 120);
	tcase_add_test(last, the_last_piece_of_a_value_that_was_no_ones);
	tcase_add_test(last, the_last_name_of_a_directory);
	tcase_add_test(last, the_last_record_of_what_is_to_be_let_go);
	tcase_add_test(last, the_last_orphan);
	tcase_add_test(last, the_last_name_of_snapshots);
	suite_add_tcase(s, last);
	tcase_add_checked_fixture(many, setup, teardown);
	tcase_set_timeout(many, 240);
	tcase_add_test(many, values_of_one_inode);
	tcase_add_test(many, loops_of_directories);
	tcase_add_test(many, snapshots_of_one_name);
	suite_add_tcase(s, many);
	return test_main(s);
}
