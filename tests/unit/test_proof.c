/*
 * test_proof.c - a commit that has returned survives a rotten block; one that
 * was torn by a power cut still does not count (format.h, STATE_UNVERIFIED)
 */
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "check/repair.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "snapshot/snapshot.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/proof.h"
#include "support/test.h"
#include "support/testdev.h"

#define MIB (UINT64_C(1) << 20)
#define DEV_SIZE (12 * MIB)
#define DEV_BLOCKS (DEV_SIZE / COWFS_BLOCK_SIZE)
#define FILE_BYTES (40 * 1024u)

static struct bdev *mem;
static struct store *store;
static struct fs *fs;
static const struct cred root_cred = { .umask = 022 };

static int try_open(struct bdev *dev, unsigned flags)
{
	return test_mount(dev, flags, 1 << 20, &store, &fs);
}

static void open_it(struct bdev *dev)
{
	ck_ok(try_open(dev, 0));
}

static void close_it(void)
{
	test_umount(store, fs);
}

static void crash(void)
{
	fs_umount(fs);
	store_abandon(store);
}

static void setup(void)
{
	ck_ok(bdev_open_mem(DEV_SIZE, &mem));
	ck_ok(store_close(test_format(mem, 4096, 2, 1)));
	open_it(mem);
}

static void teardown(void)
{
	bdev_close(mem);
}

static void bytes_of(const char *name, uint8_t *buf)
{
	struct rng r;

	rng_init(&r, 17, (uint64_t)name[0]);
	rng_fill(&r, buf, FILE_BYTES);
}

static void make_file(const char *name)
{
	static uint8_t buf[FILE_BYTES];
	struct attr a;

	ck_ok(fs_create(fs, COWFS_INO_ROOT, name, strlen(name),
			S_IFREG | 0644, 0, NULL, &root_cred, &a));
	bytes_of(name, buf);
	ck_ok(fs_write(fs, a.ino, 0, buf, sizeof(buf), 0));
}

/* -ENOENT: there is no such file; -EIO, -ECOW_CSUM: it cannot be read. */
static int read_file(const char *name)
{
	static uint8_t want[FILE_BYTES], got[FILE_BYTES];
	struct attr a;
	size_t n;
	int err = fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, name,
			    strlen(name), &a);

	if (!err)
		err = fs_read(fs, fs_live(fs), a.ino, 0, got, sizeof(got), &n);
	if (err)
		return err;
	ck_assert_uint_eq(n, sizeof(got));
	bytes_of(name, want);
	ck_assert_mem_eq(got, want, sizeof(got));
	return 0;
}

static void commit(void)
{
	ck_ok(store_commit(store, NULL, NULL));
}

static uint64_t written(const struct log_entry *e, uint64_t i)
{
	return e->kind == LOG_WRITE ? e->off / COWFS_BLOCK_SIZE + i : 0;
}

/* Whatever rots of what a commit wrote, the superblock included. */
START_TEST(one_rotten_block_costs_that_block)
{
	unsigned rotten = 0, unreadable = 0;
	struct bdev *log, *over;
	uint64_t gen;
	int err;

	make_file("a");
	commit();
	crash();
	ck_ok(log_open(mem, &log));
	open_it(log);
	log_reset(log);
	make_file("b");
	commit();
	gen = store_durable_gen(store);
	crash();
	for (size_t i = 0; i < log_count(log); i++) {
		const struct log_entry *e = log_get(log, i);

		for (uint64_t j = 0; j < e->len / COWFS_BLOCK_SIZE; j++) {
			if (!written(e, j))
				continue;
			ck_ok(overlay_open(mem, &over));
			flip_bit(over, written(e, j) * COWFS_BLOCK_SIZE + 700,
				 2);
			test_log_hide();
			open_it(over);
			ck_assert_uint_eq(store_passed(store), 0);
			ck_assert_uint_gt(store_durable_gen(store), gen);
			ck_ok(read_file("a"));
			err = read_file("b");
			test_log_show();
			ck_assert(!err || err == -ECOW_CSUM);
			unreadable += err != 0;
			rotten++;
			crash();
			bdev_close(over);
		}
	}
	ck_assert_uint_eq(unreadable, FILE_BYTES / COWFS_BLOCK_SIZE);
	ck_assert_uint_gt(rotten, unreadable + 4);
	bdev_close(log);
}
END_TEST

/* First block of a file. */
static uint64_t block_of(const char *name)
{
	struct cowfs_disk_extent d = { .len = to_le32(0) };
	struct attr a;
	struct item it;
	struct key k;
	struct op op;
	int err;

	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, name, strlen(name),
			&a));
	k = KEY(a.ino, COWFS_KEY_EXTENT, 0);
	op_read(&op, store);
	do {
		err = tree_get(&store->fs, &k, &it);
		if (!err)
			memcpy(&d, it.data, sizeof(d));
	} while (op_again(&op, &err));
	ck_ok(op_end(&op, err));
	return from_le64(d.blk);
}

static void rot(uint64_t blk)
{
	flip_bit(mem, blk * COWFS_BLOCK_SIZE + 9, 5);
}

static char lines[2048];

static void take_line(void *arg, const char *line)
{
	size_t n = strlen(lines);

	(void)arg;
	snprintf(lines + n, sizeof(lines) - n, "%s\n", line);
}

static void take_problem(void *arg, const char *problem, const char *where)
{
	(void)where;
	take_line(arg, problem);
}

/* fsck -n: how many problems, and all that it says. */
static uint64_t check_device_says(void)
{
	struct cowfs_check opt = { .semantics = true, .told = take_line,
				   .found = take_problem };
	struct cowfs_ioc_scrub out = { 0 };

	lines[0] = '\0';
	ck_ok(cowfs_check_device(mem, &opt, &out));
	return out.problems;
}

/* Without the proof it is what it always was. */
START_TEST(what_may_have_been_torn_gives_the_commit_before)
{
	uint64_t gen;

	make_file("a");
	commit();
	make_file("b");
	commit();
	gen = store_durable_gen(store);
	rot(block_of("b"));
	crash();
	proof_lost(mem);
	test_log_hide();
	ck_assert_uint_eq(check_device_says(), 0);
	ck_assert_ptr_nonnull(strstr(lines, "a mount gives it up"));
	ck_ok(try_open(mem, STORE_READONLY));
	ck_assert_uint_eq(store_passed(store), gen);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "left out"));
	close_it();
	open_it(mem);
	ck_assert_uint_eq(store_passed(store), gen);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "given up"));
	test_log_show();
	ck_ok(read_file("a"));
	ck_err(read_file("b"), -ENOENT);
	close_it();
}
END_TEST

/* What cannot be read for a moment is not torn: nobody goes back for writing. */
START_TEST(what_cannot_be_read_is_not_given_up)
{
	struct repair_options opt = { .all = false };
	struct repair_result res;
	struct bdev *dev;
	uint64_t blk;

	make_file("a");
	commit();
	make_file("b");
	commit();
	blk = block_of("b");
	crash();
	proof_lost(mem);
	ck_ok(fault_open(mem, &dev));
	(void)fault_range(dev, FAULT_READ, blk * COWFS_BLOCK_SIZE,
			  COWFS_BLOCK_SIZE, -EIO);
	test_log_hide();
	ck_err(try_open(dev, 0), -EIO);
	ck_assert_ptr_nonnull(strstr(test_log_last(), "not opened"));
	ck_ok(repair_run(dev, &opt, &res));
	ck_assert_uint_eq(res.check.problems, 1);
	ck_assert(res.needs_all && !res.committed);
	ck_ok(try_open(dev, STORE_READONLY));
	ck_assert_uint_ne(store_passed(store), 0);
	close_it();
	fault_clear(dev);
	open_it(dev);
	test_log_show();
	ck_assert_uint_eq(store_passed(store), 0);
	ck_ok(read_file("b"));
	close_it();
	bdev_close(dev);
}
END_TEST

/* But if told to. */
START_TEST(what_cannot_be_read_is_given_up_if_told_to)
{
	struct repair_options opt = { .all = true };
	struct repair_result res;
	struct bdev *dev;
	struct nptr root;

	make_file("a");
	commit();
	make_file("b");
	commit();
	root = store->fs.root;
	crash();
	proof_lost(mem);
	ck_ok(fault_open(mem, &dev));
	(void)fault_range(dev, FAULT_READ, root.blk * COWFS_BLOCK_SIZE, 1,
			  -EIO);
	rot(root.blk2);
	test_log_hide();
	ck_err(try_open(dev, 0), -EIO);
	ck_ok(repair_run(dev, &opt, &res));
	ck_assert(res.committed && !res.left);
	open_it(dev);
	test_log_show();
	ck_ok(read_file("a"));
	ck_err(read_file("b"), -ENOENT);
	close_it();
	bdev_close(dev);
}
END_TEST

START_TEST(a_log_that_cannot_be_replayed_is_a_problem)
{
	struct nptr root;
	struct attr a;

	make_file("a");
	commit();
	root = store->fs.root;
	make_file("b");
	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, "b", 1, &a));
	ck_ok(fs_fsync(fs, a.ino, false));
	crash();
	ck_assert_uint_eq(check_device_says(), 0);
	ck_assert_ptr_nonnull(strstr(lines, "1 fsync, which a mount"));
	rot(root.blk);
	rot(root.blk2);
	test_log_hide();
	ck_assert_uint_eq(check_device_says(), 2);
	test_log_show();
	ck_assert_ptr_nonnull(strstr(lines, "log-bad\n"));
	ck_assert_ptr_nonnull(strstr(lines, "node-unreadable\n"));
}
END_TEST

/* fsck --backup-super: what was fsynced after it is in the commits since. */
START_TEST(the_log_of_an_older_state_is_not_damaged_but_gone)
{
	static const char *const names[] = { "b", "c", "d", "e" };
	struct cowfs_check opt = { .semantics = true, .told = take_line,
				   .found = take_problem };
	struct cowfs_ioc_scrub out = { 0 };
	struct attr a;
	unsigned i;

	make_file("a");
	commit();
	opt.gen = store_durable_gen(store);
	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (i == 3)
			commit();
		make_file(names[i]);
		ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, names[i], 1,
				&a));
		ck_ok(fs_fsync(fs, a.ino, false));
	}
	crash();
	lines[0] = '\0';
	ck_ok(cowfs_check_device(mem, &opt, &out));
	ck_assert_uint_eq(out.problems, 0);
	ck_assert_str_eq(lines, "");
	ck_assert_uint_eq(check_device_says(), 0);
	ck_assert_ptr_nonnull(strstr(lines, "1 fsync, which a mount"));
}
END_TEST

/* The newest superblock is lost, both copies. What its log has is of a generation
 * of which nobody knows; the next one is not taken for that. */
START_TEST(the_log_of_a_lost_superblock_is_nobodys)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	uint64_t gen, want, now;
	struct attr a;

	make_file("a");
	commit();
	make_file("b");
	commit();
	gen = store_durable_gen(store);
	make_file("c");
	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, "c", 1, &a));
	ck_ok(fs_fsync(fs, a.ino, false));
	crash();
	for (unsigned far = 0; far < 2; far++)
		ck_ok(bdev_write(mem, super_slot_block(DEV_BLOCKS,
				 gen % COWFS_SUPER_SLOTS, far) *
				 COWFS_BLOCK_SIZE, zero, sizeof(zero)));
	test_log_hide();
	open_it(mem);
	test_log_show();
	ck_ok(fs_digest(fs, &want));
	crash();
	open_it(mem);
	ck_ok(fs_digest(fs, &now));
	ck_assert_uint_eq(now, want);
	ck_err(read_file("c"), -ENOENT);
	close_it();
	ck_assert_uint_eq(check_device_says(), 0);
}
END_TEST

/* The near copies of two slots: `bytes` of them are zeros. */
static void clear_near(uint64_t gen, size_t bytes)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];

	for (unsigned i = 1; i <= 2; i++)
		ck_ok(bdev_write(mem, super_slot_block(DEV_BLOCKS,
				 (gen - i) % COWFS_SUPER_SLOTS, false) *
				 COWFS_BLOCK_SIZE, zero, bytes));
}

/* Two generations were passed over, one after the other, and the power went once
 * more while their superblocks were emptied. */
START_TEST(what_opening_half_emptied_was_not_wiped)
{
	uint64_t gen;

	for (unsigned i = 0; i < COWFS_SUPER_SLOTS; i++) {
		make_file((char[]){ (char)('a' + i), 0 });
		commit();
	}
	gen = store_durable_gen(store);
	crash();
	clear_near(gen, COWFS_SUPER_SECTOR);
	ck_assert_uint_eq(check_device_says(), 0);
	ck_assert_str_eq(lines, "");
	clear_near(gen, COWFS_BLOCK_SIZE);
	ck_assert_uint_eq(check_device_says(), 2);
	ck_assert_ptr_nonnull(strstr(lines, "were wiped"));
}
END_TEST

/* The near copy is being written when the power goes. */
START_TEST(a_torn_proof_harms_nothing)
{
	uint8_t junk[100];
	unsigned slot;

	make_file("a");
	commit();
	slot = (unsigned)(store_durable_gen(store) % COWFS_SUPER_SLOTS);
	crash();
	memset(junk, 0x5a, sizeof(junk));
	ck_ok(bdev_write(mem, super_slot_block(0, slot, false) *
			 COWFS_BLOCK_SIZE + 100, junk, sizeof(junk)));
	open_it(mem);
	ck_assert_uint_eq(store_passed(store), 0);
	ck_ok(read_file("a"));
	close_it();
}
END_TEST

/* Writes [from, to) of a log reach mem, but for that of block `lost`. */
static void arrive(struct bdev *log, size_t from, size_t to, uint64_t lost)
{
	for (size_t i = from; i < to; i++) {
		const struct log_entry *e = log_get(log, i);
		struct log_entry part = *e;

		if (e->kind != LOG_WRITE)
			continue;
		for (uint64_t j = 0; j < e->len / COWFS_BLOCK_SIZE; j++) {
			part.off = e->off + j * COWFS_BLOCK_SIZE;
			part.len = COWFS_BLOCK_SIZE;
			part.data = e->data + j * COWFS_BLOCK_SIZE;
			if (part.off / COWFS_BLOCK_SIZE != lost)
				ck_ok(log_apply(&part, i, NULL, mem));
		}
	}
}

static uint64_t near_slot(uint64_t gen)
{
	return super_slot_block(0, (unsigned)(gen % COWFS_SUPER_SLOTS), false);
}

/*
 * "a" is committed, then "d"; the power goes in the commit of "e", which arrives
 * but for one block, while the proof that the one before was complete does not.
 * Returns the generation of the commit of "d".
 */
static uint64_t cut_off(void)
{
	size_t done, n;
	struct bdev *over, *log;
	uint64_t gen, lost, d;

	make_file("a");
	commit();
	close_it();
	ck_ok(overlay_open(mem, &over));
	ck_ok(log_open(over, &log));
	open_it(log);
	make_file("d");
	commit();
	gen = store_durable_gen(store);
	done = log_count(log) - 1;
	ck_assert_uint_eq(log_get(log, done)->off / COWFS_BLOCK_SIZE,
			  near_slot(gen));
	d = block_of("d");
	make_file("e");
	commit();
	ck_assert_uint_eq(store_durable_gen(store), gen + 1);
	lost = block_of("e");
	n = log_count(log) - 1;
	crash();
	arrive(log, 0, done, 0);
	arrive(log, done + 1, n, lost);
	rot(d);
	bdev_close(log);
	bdev_close(over);
	return gen;
}

static void expect_rot_in_d(uint64_t passed)
{
	test_log_hide();
	open_it(mem);
	ck_assert_uint_eq(store_passed(store), passed);
	ck_ok(read_file("a"));
	ck_err(read_file("d"), -ECOW_CSUM);
	ck_err(read_file("e"), -ENOENT);
	test_log_show();
}

START_TEST(a_commit_cut_off_proves_the_one_before)
{
	expect_rot_in_d(cut_off() + 1);
	close_it();
}
END_TEST

/* The superblock of a generation whose newest root did not arrive. */
static void lose_root(uint64_t gen)
{
	uint64_t at = near_slot(gen) * COWFS_BLOCK_SIZE;
	struct cowfs_disk_super d;
	struct cowfs_disk_ptr *p = &d.roots[COWFS_ROOT_FS].ptr;

	ck_ok(bdev_read(mem, at, &d, sizeof(d)));
	ck_assert_uint_eq(from_le64(d.gen), gen);
	ck_assert(!super_proven(&d));
	p->gen = d.gen;
	p->csum = to_le32(from_le32(p->csum) ^ 1);
	super_seal(&d);
	ck_ok(bdev_write(mem, at, &d, sizeof(d)));
}

/*
 * Opening after that counts on from the generation it passed over, and is cut
 * off, too: only its superblock arrives. That of the one passed over is still
 * there, and is proved by nothing.
 */
START_TEST(a_higher_number_proves_nothing)
{
	uint64_t gen = cut_off(), at;
	struct bdev *over, *log;

	ck_ok(overlay_open(mem, &over));
	ck_ok(log_open(over, &log));
	test_log_hide();
	open_it(log);
	test_log_show();
	ck_assert_uint_eq(store_durable_gen(store), gen + 2);
	crash();
	for (size_t i = 0; i < log_count(log); i++) {
		at = log_get(log, i)->off / COWFS_BLOCK_SIZE;
		if (log_get(log, i)->kind == LOG_WRITE &&
		    at == near_slot(gen + 2)) {
			arrive(log, i, i + 1, 0);
			break;
		}
	}
	bdev_close(log);
	bdev_close(over);
	lose_root(gen + 2);
	expect_rot_in_d(gen + 2);
	close_it();
}
END_TEST

START_TEST(it_takes_one_write_and_no_flush)
{
	struct bdev *log;
	unsigned flushes = 0, slots = 0;
	uint64_t blk;

	crash();
	ck_ok(log_open(mem, &log));
	open_it(log);
	log_reset(log);
	make_file("a");
	commit();
	for (size_t i = 0; i < log_count(log); i++) {
		const struct log_entry *e = log_get(log, i);

		blk = e->off / COWFS_BLOCK_SIZE;
		flushes += e->kind == LOG_FLUSH;
		slots += e->kind == LOG_WRITE && blk >= COWFS_SUPER_NEAR &&
			 blk < COWFS_FIRST_BLOCK;
		/* the last thing, and of the near copy alone */
		if (flushes)
			ck_assert(e->kind == LOG_FLUSH ||
				  blk == near_slot(store_durable_gen(store)));
	}
	ck_assert_uint_eq(flushes, 1);
	ck_assert_uint_eq(slots, 2);
	crash();
	bdev_close(log);
}
END_TEST

static void assert_no_doubt(void)
{
	struct super_scan scan;
	struct cowfs_disk_super d;

	ck_ok(super_scan(mem, &scan));
	for (unsigned far = 0; far < 2; far++) {
		ck_ok(bdev_read(mem, super_slot_block(DEV_BLOCKS,
			scan.found[0].d.slot, far) * COWFS_BLOCK_SIZE, &d,
			sizeof(d)));
		ck_assert_uint_eq(from_le64(d.gen), scan.found[0].gen);
		ck_assert(super_proven(&d));
	}
}

/* Rot right after that costs the block, too. */
START_TEST(what_was_closed_in_order_needs_no_proof)
{
	uint64_t a;

	close_it(); /* of mkfs, nearly */
	assert_no_doubt();
	open_it(mem);
	make_file("a");
	a = block_of("a");
	close_it();
	assert_no_doubt();
	rot(a);
	test_log_hide();
	open_it(mem);
	ck_err(read_file("a"), -ECOW_CSUM);
	test_log_show();
	ck_assert_uint_eq(store_passed(store), 0);
	close_it();
}
END_TEST

/* Once all copies of a node are gone that is damage, and nothing is given up
 * by opening. */
START_TEST(a_lost_node_takes_nothing_back)
{
	struct nptr root;
	struct super sb;
	uint64_t gen;

	make_file("a");
	commit();
	gen = store_durable_gen(store);
	root = store->fs.root;
	crash();
	rot(root.blk);
	rot(root.blk2);
	test_log_hide();
	ck_err(try_open(mem, 0), -ECOW_CSUM);
	test_log_show();
	ck_ok(super_newest(mem, &sb));
	ck_assert_uint_ge(sb.gen, gen);
}
END_TEST

/* ---- all that a commit names ---- */

/* The commit that has `lost` in it was not finished, as far as anything tells. */
static void expect_passed(const struct nptr *lost, uint64_t gen)
{
	ck_assert_uint_eq(lost->gen, gen);
	crash();
	proof_lost(mem);
	rot(lost->blk);
	rot(lost->blk2);
	test_log_hide();
	open_it(mem);
	test_log_show();
	ck_assert_uint_eq(store_passed(store), gen);
}

START_TEST(a_lost_root_of_any_tree_gives_the_commit_before)
{
	struct nptr root;
	uint64_t gen;

	make_file("a");
	ck_ok(snap_create(store, "one", NULL));
	make_file("b");
	commit();
	make_file("c");
	ck_ok(snap_create(store, "two", NULL));
	make_file("d");
	ck_ok(snap_create(store, "three", NULL));
	gen = store_durable_gen(store);
	root = _i == 0 ? store->snap.root :
	       _i == 1 ? store->space.root : store->refs.root;
	expect_passed(&root, gen);
	ck_ok(read_file("c"));
	ck_err(read_file("d"), -ENOENT);
	close_it();
}
END_TEST

/* A restore lets go of a tree of which nodes are as new as its own commit. */
START_TEST(what_only_a_snapshot_names_is_looked_at)
{
	struct snap_info saved;

	ck_ok(snap_create(store, "one", NULL));
	make_file("a");
	ck_ok(fs_restore(fs, "one", "saved", NULL));
	ck_ok(snap_find(store, "saved", &saved));
	expect_passed(&saved.root, store_durable_gen(store));
	ck_err(snap_find(store, "saved", &saved), -ENOENT);
	close_it();
}
END_TEST

/* They have no checksums, and no contents that could be missing. */
START_TEST(preallocated_blocks_are_no_part_of_the_proof)
{
	struct attr a;

	make_file("a");
	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, "a", 1, &a));
	ck_ok(fs_fallocate(fs, a.ino, 0, FILE_BYTES, MIB, NULL));
	commit();
	crash();
	proof_lost(mem);
	open_it(mem);
	ck_assert_uint_eq(store_passed(store), 0);
	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, "a", 1, &a));
	ck_assert_uint_eq(a.size, FILE_BYTES + MIB);
	close_it();
}
END_TEST

/* It is written on a durable base only: what rots of that takes nothing back. */
START_TEST(a_log_record_proves_its_commit)
{
	uint64_t a;

	make_file("a");
	commit();
	a = block_of("a");
	make_file("b");
	ck_ok(fs_fsync(fs, COWFS_INO_ROOT, false));
	crash();
	proof_lost(mem);
	rot(a);
	test_log_hide();
	open_it(mem);
	ck_assert_uint_eq(store_passed(store), 0);
	ck_err(read_file("a"), -ECOW_CSUM);
	test_log_show();
	ck_ok(read_file("b"));
	close_it();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("proof");
	TCase *tc = tcase_create("proof");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, one_rotten_block_costs_that_block);
	tcase_add_test(tc, what_may_have_been_torn_gives_the_commit_before);
	tcase_add_test(tc, what_cannot_be_read_is_not_given_up);
	tcase_add_test(tc, what_cannot_be_read_is_given_up_if_told_to);
	tcase_add_test(tc, a_log_that_cannot_be_replayed_is_a_problem);
	tcase_add_test(tc, the_log_of_an_older_state_is_not_damaged_but_gone);
	tcase_add_test(tc, the_log_of_a_lost_superblock_is_nobodys);
	tcase_add_test(tc, what_opening_half_emptied_was_not_wiped);
	tcase_add_test(tc, a_torn_proof_harms_nothing);
	tcase_add_test(tc, a_commit_cut_off_proves_the_one_before);
	tcase_add_test(tc, a_higher_number_proves_nothing);
	tcase_add_test(tc, it_takes_one_write_and_no_flush);
	tcase_add_test(tc, what_was_closed_in_order_needs_no_proof);
	tcase_add_test(tc, a_lost_node_takes_nothing_back);
	tcase_add_loop_test(tc, a_lost_root_of_any_tree_gives_the_commit_before,
			    0, 3);
	tcase_add_test(tc, what_only_a_snapshot_names_is_looked_at);
	tcase_add_test(tc, preallocated_blocks_are_no_part_of_the_proof);
	tcase_add_test(tc, a_log_record_proves_its_commit);
	suite_add_tcase(s, tc);
	return test_main(s);
}
