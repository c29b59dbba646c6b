/*
 * test_redun.c - extra copies of data that many refer to
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "snapshot/snapshot.h"
#include "support/testdev.h"
#include "unit/fs_fixture.h"

#define BLOCK COWFS_BLOCK_SIZE
#define MANY 64u

static uint8_t buf[1 << 20], back[1 << 20];

static void set_count(uint32_t n)
{
	ck_ok(redun_set(store, n));
}

static void start(void)
{
	ck_ok(redun_start(store));
}

static void remount_started(void)
{
	remount();
	start();
}

static void fill(uint64_t ino, uint64_t off, size_t len, unsigned seed)
{
	struct rng rng;

	rng_init(&rng, seed, 1);
	rng_fill(&rng, buf, len);
	ck_ok(fs_write(fs, ino, off, buf, len, 0));
}

static void snap(const char *name)
{
	ck_ok(snap_create(store, name, NULL));
}

static void settle(void)
{
	ck_ok(store_drain(store));
	ck_ok(store_commit(store, NULL, NULL));
}

static uint64_t copied(void)
{
	return store_copied(store);
}

/* All items of the tree, in order; returns how many. */
static unsigned items(struct copy_ival *iv, unsigned room)
{
	uint64_t at = 0;
	unsigned n = 0;
	struct op op;
	int err;

	op_read(&op, store);
	do {
		at = n = 0;
		while ((err = copies_next(store, at, &iv[n])) == 0) {
			at = iv[n].start + iv[n].len;
			ck_assert_uint_lt(++n, room);
		}
	} while (op_again(&op, &err));
	ck_err(op_end(&op, err), -ENOENT);
	return n;
}

static void rot(uint64_t blk)
{
	flip_bit(dev, blk * BLOCK + 77, 3);
}

static int read_all(uint64_t ino, size_t len)
{
	size_t got = 0;
	int err = fs_read(fs, fs_live(fs), ino, 0, back, len, &got);

	ck_assert(err || got == len);
	return err;
}

static void assert_reads(uint64_t ino, size_t len, unsigned seed)
{
	struct rng rng;

	ck_ok(read_all(ino, len));
	rng_init(&rng, seed, 1);
	rng_fill(&rng, buf, len);
	ck_assert(memcmp(buf, back, len) == 0);
}

/* A file of MANY blocks, each of which a snapshot has, too: that is enough for a
 * copy of them. */
static void get_copied(uint64_t ino)
{
	start();
	set_count(2);
	fill(ino, 0, MANY * BLOCK, 1);
	snap("one");
	settle();
}

START_TEST(data_with_enough_references_gets_a_copy)
{
	uint64_t ino = make_file(ROOT, "a");

	start();
	set_count(3);
	fill(ino, 0, MANY * BLOCK, 1);
	snap("one");
	settle();
	ck_assert_uint_eq(copied(), 0);
	snap("two");
	settle();
	ck_assert_uint_eq(copied(), MANY);
}
END_TEST

/* They have no checksum by which an opening could tell whether they arrived. */
START_TEST(copies_are_flushed_before_the_superblock_that_names_them)
{
	uint64_t ino = make_file(ROOT, "a"), flushes;

	start();
	set_count(2);
	fill(ino, 0, MANY * BLOCK, 1);
	snap("one");
	ck_ok(store_drain(store));
	ck_assert_uint_eq(copied(), MANY);
	flushes = atomic_load(&store->io.stats.flushes);
	ck_ok(store_commit(store, NULL, NULL));
	ck_assert_uint_eq(atomic_load(&store->io.stats.flushes) - flushes, 2);
	make_file(ROOT, "b");
	ck_ok(store_commit(store, NULL, NULL));
	ck_assert_uint_eq(atomic_load(&store->io.stats.flushes) - flushes, 3);
}
END_TEST

START_TEST(a_rotten_block_is_read_from_its_copy_and_mended)
{
	uint64_t ino = make_file(ROOT, "a");
	struct copy_ival iv[8];

	get_copied(ino);
	ck_assert_uint_eq(items(iv, 8), 1);
	ck_assert_uint_eq(iv[0].len, MANY);
	rot(iv[0].start + 5);
	rot(iv[0].start + 6);
	test_log_hide();
	assert_reads(ino, MANY * BLOCK, 1);
	test_log_show();
	ck_assert_uint_eq(atomic_load(&store->io.stats.repaired), 2);
	ck_assert_uint_eq(atomic_load(&store->io.stats.unrepairable), 0);
	assert_reads(ino, MANY * BLOCK, 1);
	ck_assert_uint_eq(atomic_load(&store->io.stats.repaired), 2);
}
END_TEST

START_TEST(without_a_copy_rot_is_an_error)
{
	uint64_t ino = make_file(ROOT, "a");
	struct copy_ival iv[8];

	get_copied(ino);
	ck_assert_uint_eq(items(iv, 8), 1);
	set_count(0);
	settle();
	ck_assert_uint_eq(copied(), 0);
	rot(iv[0].start + 5);
	test_log_hide();
	ck_err(read_all(ino, MANY * BLOCK), -ECOW_CSUM);
	test_log_show();
	flip_bit(dev, (iv[0].start + 5) * BLOCK + 77, 3);
}
END_TEST

START_TEST(the_copy_lies_far_away)
{
	uint64_t ino = make_file(ROOT, "a"), d;
	struct copy_ival iv[8];

	get_copied(ino);
	ck_assert_uint_eq(items(iv, 8), 1);
	d = iv[0].at > iv[0].start ? iv[0].at - iv[0].start :
				     iv[0].start - iv[0].at;
	ck_assert_uint_ge(d, store->io.blocks / 3);
}
END_TEST

START_TEST(copies_go_with_their_blocks)
{
	uint64_t ino = make_file(ROOT, "a");
	uint64_t before = free_blocks();
	struct copy_ival iv[8];

	get_copied(ino);
	ck_assert_uint_eq(copied(), MANY);
	/* the middle goes from both */
	ck_ok(fs_fallocate(fs, ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			   10 * BLOCK, 20 * BLOCK, &root_cred));
	settle();
	ck_assert_uint_eq(copied(), MANY);
	ck_ok(snap_delete(store, "one"));
	settle();
	ck_assert_uint_eq(copied(), MANY - 20);
	ck_assert_uint_eq(items(iv, 8), 2);
	ck_ok(unlink_it(ROOT, "a"));
	settle();
	ck_assert_uint_eq(copied(), 0);
	ck_assert_uint_eq(items(iv, 8), 0);
	make_file(ROOT, "a");
	ck_assert_uint_ge(free_blocks() + 8, before);
	ck_assert(!(from_le64(store->super.ro_compat) &
		    COWFS_RO_COMPAT_COPIES));
}
END_TEST

START_TEST(a_copy_outlives_deleted_snapshots)
{
	uint64_t ino = make_file(ROOT, "a");

	start();
	set_count(3);
	fill(ino, 0, MANY * BLOCK, 1);
	snap("one");
	snap("two");
	settle();
	ck_ok(snap_delete(store, "one"));
	ck_ok(snap_delete(store, "two"));
	settle();
	ck_assert_uint_eq(copied(), MANY);
}
END_TEST

START_TEST(reflinks_count)
{
	uint64_t a = make_file(ROOT, "a"), b = make_file(ROOT, "b"), n;

	fill(a, 0, MANY * BLOCK, 1);
	ck_ok(fs_copy_range(fs, fs_live(fs), a, 0, b, 0, MANY * BLOCK, &n));
	ck_assert_uint_eq(n, MANY * BLOCK);
	start();
	set_count(2);
	settle();
	ck_assert_uint_eq(copied(), MANY);
}
END_TEST

START_TEST(blocks_of_changed_leaves_are_counted_together)
{
	uint64_t a = make_file(ROOT, "a"), b = make_file(ROOT, "b");

	fill(a, 0, MANY * BLOCK, 1);
	snap("one");
	fill(b, 0, BLOCK, 2); /* the leaf is another's now, too */
	snap("two");
	fill(b, BLOCK, BLOCK, 3);
	start();
	set_count(3);
	settle();
	ck_assert_uint_eq(copied(), MANY);
}
END_TEST

START_TEST(what_has_a_second_copy_gets_no_third)
{
	uint64_t ino;

	umount_it();
	mount_it();
	store->super.data_copies = 2;
	ino = make_file(ROOT, "a");
	fill(ino, 0, MANY * BLOCK, 1);
	start();
	set_count(2);
	snap("one");
	settle();
	ck_assert_uint_eq(copied(), 0);
	store->super.data_copies = 1;
}
END_TEST

START_TEST(a_later_pass_reads_only_what_is_new)
{
	uint64_t misses, a[60];
	struct forest_stats st;
	char name[16];
	unsigned i;

	for (i = 0; i < 60; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		a[i] = make_file(ROOT, name);
		fill(a[i], 0, 40 * BLOCK, i);
	}
	set_count(2);
	snap("one");
	remount_started();
	forest_stats(store->forest, &st);
	misses = st.hits + st.misses;
	settle();
	forest_stats(store->forest, &st);
	misses = st.hits + st.misses - misses;
	ck_assert_uint_eq(copied(), 60 * 40);
	fill(a[0], 0, BLOCK, 99);
	snap("two");
	i = (unsigned)(atomic_load(&store->io.stats.write_bytes) / BLOCK);
	settle();
	ck_assert_uint_eq(copied(), 60 * 40 + 1);
	/* one block, and a commit or three */
	i = (unsigned)(atomic_load(&store->io.stats.write_bytes) / BLOCK) - i;
	ck_assert_uint_lt(i, 400);
	remount_started();
	settle(); /* nothing is due */
	ck_assert_uint_eq(copied(), 60 * 40 + 1);
}
END_TEST

START_TEST(space_comes_back_before_anybody_finds_none)
{
	uint64_t ino = make_file(ROOT, "a"), off, written = 0;
	struct fs_statfs st;
	int err;

	start();
	set_count(2);
	for (off = 0; off < 16 * MIB; off += MIB)
		fill(ino, off, MIB, (unsigned)off);
	snap("one");
	settle();
	ck_assert_uint_eq(copied(), 16 * MIB / BLOCK);
	ck_ok(fs_statfs(fs, &st));
	ino = make_file(ROOT, "b");
	do {
		err = fs_write(fs, ino, written, buf, 65536, 0);
		written += err ? 0 : 65536;
	} while (!err);
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_eq(copied(), 0);
	/* as statfs had said */
	ck_assert_uint_ge(written / BLOCK + st.avail / 50, st.avail);
	ck_assert_uint_le(written / BLOCK, st.avail + st.avail / 50);
}
END_TEST

/* A pass looks at what is new since the last one; not so if copies went. */
START_TEST(what_was_given_back_is_made_again)
{
	uint64_t ino = make_file(ROOT, "a"), off;
	struct alloc_info info;

	start();
	set_count(2);
	for (off = 0; off < 16 * MIB; off += MIB)
		fill(ino, off, MIB, (unsigned)off);
	snap("one");
	settle();
	ck_assert_uint_eq(copied(), 16 * MIB / BLOCK);
	ino = make_file(ROOT, "b");
	for (off = 0; copied() == 16 * MIB / BLOCK; off += MIB) {
		ck_assert_uint_lt(off, 32 * MIB);
		fill(ino, off, MIB, 1);
		settle();
	}
	alloc_info(store->alloc, &info);
	ck_assert_uint_ge(info.avail, info.blocks / STORE_SHORT);
	ck_ok(unlink_it(ROOT, "b"));
	settle();
	remount_started(); /* or it would wait a minute */
	settle();
	ck_assert_uint_eq(copied(), 16 * MIB / BLOCK);
}
END_TEST

START_TEST(nothing_is_made_of_the_last_eighth)
{
	uint64_t ino = make_file(ROOT, "a"), off;
	struct alloc_info info;

	start();
	set_count(2);
	for (off = 0; off < 40 * MIB; off += MIB)
		fill(ino, off, MIB, (unsigned)off);
	snap("one");
	settle();
	alloc_info(store->alloc, &info);
	ck_assert_uint_gt(copied(), 2000);
	ck_assert_uint_ge(info.avail + 300, info.blocks / 8);
	ck_assert_uint_le(info.avail, info.blocks / 8 + 300);
}
END_TEST

START_TEST(a_restore_is_looked_at_as_a_whole)
{
	uint64_t a = make_file(ROOT, "a");

	start();
	set_count(3);
	fill(a, 0, MANY * BLOCK, 1);
	snap("one");
	ck_ok(unlink_it(ROOT, "a"));
	snap("two");
	settle();
	ck_assert_uint_eq(copied(), 0);
	ck_ok(fs_restore(fs, "one", COWFS_SNAP_UNDO, NULL));
	settle();
	ck_assert_uint_eq(copied(), 0);
	snap("three");
	settle();
	ck_assert_uint_eq(copied(), MANY);
}
END_TEST

START_TEST(one_is_no_number)
{
	struct redun_status st;

	ck_err(redun_set(store, 1), -EINVAL);
	set_count(7);
	remount();
	ck_ok(redun_get(store, &st));
	ck_assert_uint_eq(st.count, 7);
}
END_TEST

static void all(TCase *tc)
{
	tcase_add_test(tc, data_with_enough_references_gets_a_copy);
	tcase_add_test(tc,
		       copies_are_flushed_before_the_superblock_that_names_them);
	tcase_add_test(tc, a_rotten_block_is_read_from_its_copy_and_mended);
	tcase_add_test(tc, without_a_copy_rot_is_an_error);
	tcase_add_test(tc, the_copy_lies_far_away);
	tcase_add_test(tc, copies_go_with_their_blocks);
	tcase_add_test(tc, a_copy_outlives_deleted_snapshots);
	tcase_add_test(tc, reflinks_count);
	tcase_add_test(tc, blocks_of_changed_leaves_are_counted_together);
	tcase_add_test(tc, what_has_a_second_copy_gets_no_third);
	tcase_add_test(tc, a_later_pass_reads_only_what_is_new);
	tcase_add_test(tc, space_comes_back_before_anybody_finds_none);
	tcase_add_test(tc, what_was_given_back_is_made_again);
	tcase_add_test(tc, nothing_is_made_of_the_last_eighth);
	tcase_add_test(tc, a_restore_is_looked_at_as_a_whole);
	tcase_add_test(tc, one_is_no_number);
}

int main(void)
{
	Suite *s = suite_create("extra copies");

	add_case(s, "16 KiB nodes", setup, all);
	add_case(s, "4 KiB nodes", setup_small_nodes, all);
	return test_main(s);
}
