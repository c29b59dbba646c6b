/*
 * super_loss.c - any of the superblock's eight places may be lost
 *
 * The four newest generations have a near and a far copy each. For every
 * combination of lost copies (bits flipped, zeroed, or unreadable) the newest
 * generation of which a copy is left must be what opens:
 *
 *   L1  of the two newest, exactly what it was (nothing that they name is
 *       written before a third one is durable);
 *   L2  of older ones, exactly what it was or an error where something has been
 *       reused since, never another state;
 *   L3  with none left, an error;
 *   L4  what opens can be written again, and all slots are good afterwards;
 *   L5  the log of the newest counts only together with it;
 *   L6  where a slot cannot be read at all nothing is opened for writing: once
 *       it can, the newest may be there.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/digest.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define BLOCKS COWFS_MIN_BLOCKS
#define COPIES (2 * COWFS_SUPER_SLOTS)
#define ROUNDS_DONE 9

static const struct cred cred = { .umask = 022 };

static struct bdev *base;
static uint64_t digests[64]; /* by generation */
static uint64_t newest, logged; /* logged: digest with the log, or 0 */

static int open_fs(struct bdev *dev, unsigned flags, struct store **s,
		   struct fs **fs)
{
	return test_mount(dev, flags, 1 << 20, s, fs);
}

static void put(struct fs *fs, const char *name, unsigned what, size_t len)
{
	static uint8_t buf[40000];
	struct attr a;
	int err = fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, name,
			    strlen(name), &a);

	if (err == -ENOENT)
		err = fs_create(fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a);
	ck_ok(err);
	memset(buf, (int)('a' + what % 26), len);
	ck_ok(fs_write(fs, a.ino, 0, buf, len, 0));
}

/* Generations that each change the same files: blocks are reused. */
static void make_base(bool with_log)
{
	struct store *s;
	struct fs *fs;
	unsigned i;

	ck_ok(bdev_open_mem(BLOCKS * COWFS_BLOCK_SIZE, &base));
	ck_ok(store_close(test_format(base, 4096, 1, 1)));
	ck_ok(open_fs(base, 0, &s, &fs));
	for (i = 0; i < ROUNDS_DONE; i++) {
		put(fs, "same", i, 30000);
		put(fs, i % 2 ? "odd" : "even", i, 300);
		ck_ok(store_commit(s, NULL, NULL));
		newest = store_durable_gen(s);
		ck_assert_uint_lt(newest, ARRAY_SIZE(digests));
		ck_ok(fs_digest(fs, &digests[newest]));
	}
	logged = 0;
	if (with_log) {
		put(fs, "logged", 3, 20000);
		ck_ok(fs_fsync(fs, COWFS_INO_ROOT, false));
		ck_ok(fs_digest(fs, &logged));
	}
	fs_umount(fs);
	store_abandon(s);
}

enum damage { FLIPPED, ZEROED, UNREADABLE, DAMAGES };

/* Bit i of lost: generation newest - i / 2, near or (odd i) far. */
static uint64_t place(unsigned i)
{
	return super_slot_block(BLOCKS, (unsigned)((newest - i / 2) %
						   COWFS_SUPER_SLOTS), i % 2) *
	       COWFS_BLOCK_SIZE;
}

static void lose(struct bdev *dev, struct bdev *faulty, unsigned lost,
		 enum damage how)
{
	static const uint8_t zero[COWFS_BLOCK_SIZE];
	unsigned i;

	for (i = 0; i < COPIES; i++) {
		if (!(lost >> i & 1))
			continue;
		if (how == FLIPPED)
			flip_bit(dev, place(i) + 0x80, 3);
		else if (how == ZEROED)
			ck_ok(bdev_write(dev, place(i), zero, sizeof(zero)));
		else
			fault_range(faulty, FAULT_READ, place(i),
				    COWFS_BLOCK_SIZE, -EIO);
	}
}

/* The newest generation of which a copy is left; 0: none. */
static uint64_t left(unsigned lost)
{
	unsigned i;

	for (i = 0; i < COWFS_SUPER_SLOTS; i++)
		if ((lost >> 2 * i & 3) != 3)
			return newest - i;
	return 0;
}

static uint64_t expected(uint64_t gen)
{
	return gen == newest && logged ? logged : digests[gen];
}

/* L4. */
static void write_again(struct bdev *dev, uint64_t digest)
{
	struct check_options opt = { .data = true, .semantics = true };
	struct check_result res;
	uint64_t now;
	struct store *s;
	struct fs *fs;

	ck_ok(open_fs(dev, 0, &s, &fs));
	ck_ok(fs_digest(fs, &now));
	ck_assert_uint_eq(now, digest);
	put(fs, "again", 7, 9000);
	ck_ok(fs_digest(fs, &digest));
	fs_umount(fs);
	ck_ok(store_close(s));
	ck_ok(open_fs(dev, STORE_READONLY, &s, &fs));
	ck_ok(fs_digest(fs, &now));
	ck_assert_uint_eq(now, digest);
	ck_ok(check_run(s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
	fs_umount(fs);
	ck_ok(store_close(s));
}

/* L6 */
static void try_writing(struct bdev *faulty, unsigned lost)
{
	bool unread = lost & lost >> 1 & 0x55;
	struct store *s;
	struct fs *fs;
	int err = open_fs(faulty, 0, &s, &fs);

	ck_assert_msg(!err == !unread, "lost %#x: %s", lost, test_errname(err));
	if (err)
		return;
	fs_umount(fs);
	store_abandon(s);
}

/* Does it open, and as what? Opened older states are counted. */
static void try_loss(unsigned lost, enum damage how, unsigned *older)
{
	uint64_t gen = left(lost), digest = 0;
	struct bdev *dev, *faulty;
	struct store *s;
	struct fs *fs;
	int err;

	ck_ok(overlay_open(base, &dev));
	ck_ok(fault_open(dev, &faulty));
	lose(dev, faulty, lost, how);
	err = open_fs(faulty, STORE_READONLY, &s, &fs);
	if (!err) {
		ck_assert_uint_ne(gen, 0); /* L3 */
		err = fs_digest(fs, &digest);
		fs_umount(fs);
		ck_ok(store_close(s));
	}
	if (gen && gen + 1 >= newest)
		ck_assert_msg(!err, "lost %#x: %s", lost, test_errname(err));
	if (!err) {
		ck_assert_msg(digest == expected(gen),
			      "lost %#x: not the state of generation %" PRIu64,
			      lost, gen);
		*older += gen + 1 < newest;
		if (how != UNREADABLE && gen + 1 >= newest)
			write_again(dev, digest);
	}
	if (how == UNREADABLE)
		try_writing(faulty, lost);
	bdev_close(faulty);
	bdev_close(dev);
}

START_TEST(any_superblocks_may_be_lost)
{
	unsigned lost, how, older = 0;

	make_base(_i);
	test_log_hide();
	for (how = 0; how < DAMAGES; how++)
		for (lost = 0; lost < 1u << COPIES; lost++)
			try_loss(lost, how, &older);
	test_log_show();
	printf("%u combinations; an older state opened in %u\n",
	       DAMAGES << COPIES, older);
	bdev_close(base);
}
END_TEST

/* Nothing was reused yet: then three generations may go. */
START_TEST(of_a_quiet_filesystem_any_copy_will_do)
{
	struct store *s;
	struct fs *fs;
	uint64_t digest;
	struct bdev *dev;
	unsigned i;

	make_base(false);
	for (i = 0; i < 4; i++) { /* mounts: generations that change nothing */
		ck_ok(open_fs(base, 0, &s, &fs));
		ck_ok(fs_digest(fs, &digest));
		newest = store_durable_gen(s);
		fs_umount(fs);
		store_abandon(s);
	}
	test_log_hide();
	for (i = 0; i < COPIES; i++) {
		ck_ok(overlay_open(base, &dev));
		lose(dev, NULL, 0xffu & ~(1u << i), FLIPPED);
		write_again(dev, digest);
		bdev_close(dev);
	}
	test_log_show();
	bdev_close(base);
}
END_TEST

static Suite *loss_suite(void)
{
	Suite *su = suite_create("superblocks lost");
	TCase *tc = tcase_create("all combinations");

	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, any_superblocks_may_be_lost, 0, 2);
	tcase_add_test(tc, of_a_quiet_filesystem_any_copy_will_do);
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(loss_suite());
}
