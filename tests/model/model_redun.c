/*
 * model_redun.c - data that has an extra copy survives the rot of its first
 *
 * Files are written, punched, shared, and kept by snapshots that come and go,
 * with extra copies for what two or three refer to. Again and again the first
 * copies of all blocks that have an extra one rot, or the extra copies do, or
 * one of each pair; every read, of the live files and of all snapshots, must
 * then give what the model has, and all must have been mended after it.
 *
 * SEED repeats a run; ROUNDS multiplies its length.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "fs/fs.h"
#include "snapshot/snapshot.h"
#include "support/mount.h"
#include "support/test.h"
#include "support/testdev.h"

#define BLOCK COWFS_BLOCK_SIZE
#define FILES 5u
#define BLOCKS 48u
#define SNAPS 6u
#define DEV_SIZE (UINT64_C(24) << 20)

/* What each block was filled from; 0: it is a hole. */
struct state {
	uint32_t block[FILES][BLOCKS];
};

struct world {
	struct bdev *dev;
	struct store *s;
	struct fs *fs;
	struct rng rng;
	uint64_t ino[FILES];
	uint32_t next; /* a fresh content */
	struct state live, snap[SNAPS];
	bool there[SNAPS];
	uint64_t rotten, copied; /* so far; most at any time */
};

static uint8_t buf[BLOCKS * BLOCK], got[BLOCKS * BLOCK];
static const struct cred root_cred = { .umask = 022 };

static void contents(uint8_t *to, uint32_t seed)
{
	struct rng rng;

	memset(to, 0, BLOCK);
	if (!seed)
		return;
	rng_init(&rng, seed, 5);
	rng_fill(&rng, to, BLOCK);
}

static void open_world(struct world *w)
{
	struct store_config cfg = { .dev = w->dev, .cache_bytes = 1 << 20 };
	struct fs_options opt = { .noatime = true };

	ck_ok(store_open(&cfg, &w->s));
	ck_ok(snap_start(w->s));
	ck_ok(redun_start(w->s));
	ck_ok(fs_mount(w->s, &opt, &w->fs));
}

static void close_world(struct world *w)
{
	fs_umount(w->fs);
	ck_ok(store_close(w->s));
}

static void make_world(struct world *w, unsigned n, uint32_t node_size)
{
	struct attr a;
	char name[8];

	memset(w, 0, sizeof(*w));
	rng_init(&w->rng, test_seed(), n);
	ck_ok(bdev_open_mem(DEV_SIZE, &w->dev));
	w->s = test_format(w->dev, node_size, 1, 1);
	ck_ok(redun_set(w->s, 2 + n % 2));
	ck_ok(store_close(w->s));
	open_world(w);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		ck_ok(fs_create(w->fs, COWFS_INO_ROOT, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &root_cred, &a));
		w->ino[i] = a.ino;
		a.size = sizeof(buf);
		ck_ok(fs_setattr(w->fs, w->ino[i], FS_SET_SIZE, &a, &root_cred,
				 &a));
	}
}

/* ---- changing ---- */

static void pick_range(struct world *w, unsigned *at, unsigned *n)
{
	*at = (unsigned)rng_below(&w->rng, BLOCKS);
	*n = 1 + (unsigned)rng_below(&w->rng, BLOCKS - *at);
	if (rng_one_in(&w->rng, 2) && *n > 4)
		*n = 4;
}

static void write_some(struct world *w)
{
	unsigned f = (unsigned)rng_below(&w->rng, FILES), at, n;

	pick_range(w, &at, &n);
	for (unsigned i = 0; i < n; i++) {
		w->live.block[f][at + i] = ++w->next;
		contents(buf + i * BLOCK, w->next);
	}
	ck_ok(fs_write(w->fs, w->ino[f], (uint64_t)at * BLOCK, buf, n * BLOCK,
		       0));
}

static void punch_some(struct world *w)
{
	unsigned f = (unsigned)rng_below(&w->rng, FILES), at, n;

	pick_range(w, &at, &n);
	memset(&w->live.block[f][at], 0, n * sizeof(uint32_t));
	ck_ok(fs_fallocate(w->fs, w->ino[f],
			   FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			   (uint64_t)at * BLOCK, (uint64_t)n * BLOCK,
			   &root_cred));
}

static void share_some(struct world *w)
{
	unsigned f = (unsigned)rng_below(&w->rng, FILES), at, n;
	unsigned to = (f + 1) % FILES;
	uint64_t copied;

	pick_range(w, &at, &n);
	ck_ok(fs_copy_range(w->fs, fs_live(w->fs), w->ino[f],
			    (uint64_t)at * BLOCK, w->ino[to],
			    (uint64_t)at * BLOCK, (uint64_t)n * BLOCK,
			    &copied));
	memcpy(&w->live.block[to][at], &w->live.block[f][at],
	       copied / BLOCK * sizeof(uint32_t));
}

static void snapshot_some(struct world *w)
{
	unsigned n = (unsigned)rng_below(&w->rng, SNAPS);
	char name[8];

	snprintf(name, sizeof(name), "s%u", n);
	if (!w->there[n]) {
		ck_ok(snap_create(w->s, name, NULL));
		w->snap[n] = w->live;
		w->there[n] = true;
	} else if (rng_one_in(&w->rng, 3)) {
		ck_ok(fs_restore(w->fs, name, NULL, NULL));
		w->live = w->snap[n];
	} else {
		ck_ok(fs_snap_delete(w->fs, name));
		w->there[n] = false;
	}
}

/* ---- rot ---- */

enum rot { ROT_FIRST, ROT_EXTRA, ROT_ONE };

static void rot_block(struct world *w, uint64_t blk)
{
	flip_bit(w->dev, blk * BLOCK + rng_below(&w->rng, BLOCK), 2);
	w->rotten++;
}

static void rot_interval(struct world *w, const struct copy_ival *iv,
			 enum rot how)
{
	for (uint64_t i = 0; i < iv->len; i++) {
		bool extra = how == ROT_EXTRA ||
			     (how == ROT_ONE && rng_one_in(&w->rng, 2));

		rot_block(w, (extra ? iv->at : iv->start) + i);
	}
}

static int next_copy(struct world *w, uint64_t blk, struct copy_ival *iv)
{
	struct op op;
	int err;

	op_read(&op, w->s);
	do
		err = copies_next(w->s, blk, iv);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

/* One of the two of everything that has two. */
static void rot_all(struct world *w, enum rot how)
{
	struct copy_ival iv;
	uint64_t at = 0;
	int err;

	while ((err = next_copy(w, at, &iv)) == 0) {
		rot_interval(w, &iv, how);
		at = iv.start + iv.len;
	}
	ck_assert_int_eq(err, -ENOENT);
}

/* ---- judging ---- */

static void compare(struct world *w, struct view *v, const struct state *st)
{
	size_t len;

	for (unsigned f = 0; f < FILES; f++) {
		ck_ok(fs_read(w->fs, v, w->ino[f], 0, got, sizeof(got), &len));
		ck_assert_uint_eq(len, sizeof(got));
		for (unsigned i = 0; i < BLOCKS; i++) {
			contents(buf, st->block[f][i]);
			ck_fast(!memcmp(buf, got + i * BLOCK, BLOCK));
		}
	}
}

static void compare_all(struct world *w)
{
	struct view *v;
	char name[8];

	compare(w, fs_live(w->fs), &w->live);
	for (unsigned n = 0; n < SNAPS; n++) {
		if (!w->there[n])
			continue;
		snprintf(name, sizeof(name), "s%u", n);
		ck_ok(fs_view_open(w->fs, name, &v));
		compare(w, v, &w->snap[n]);
		fs_view_put(w->fs, v);
	}
}

static void scrub(struct world *w)
{
	struct check_options opt = { .data = true, .mend = true };
	struct check_result res;

	ck_ok(check_run(w->s, &opt, &res));
	ck_assert_uint_eq(res.lost, 0);
	ck_assert_uint_eq(res.bad_copies, res.repaired);
}

/* Reads mend first copies; extra ones are scrub's to mend. */
static void judge(struct world *w)
{
	enum rot how = (enum rot)rng_below(&w->rng, 3);
	bool reads = rng_one_in(&w->rng, 2);

	ck_ok(store_drain(w->s));
	ck_ok(store_commit(w->s, NULL, NULL));
	if (store_copied(w->s) > w->copied)
		w->copied = store_copied(w->s);
	test_log_hide();
	rot_all(w, how);
	if (reads)
		compare_all(w);
	if (!reads || how != ROT_FIRST || rng_one_in(&w->rng, 2))
		scrub(w);
	test_log_show();
	compare_all(w);
	close_world(w);
	test_check_device(w->dev);
	open_world(w);
}

static void step(struct world *w)
{
	switch (rng_below(&w->rng, 10)) {
	case 0:
	case 1:
	case 2:
		write_some(w);
		break;
	case 3:
		punch_some(w);
		break;
	case 4:
		share_some(w);
		break;
	case 5:
	case 6:
	case 7:
		snapshot_some(w);
		break;
	case 8:
		ck_ok(fs_fsync(w->fs, w->ino[0], false));
		break;
	default:
		ck_ok(store_drain(w->s));
	}
}

static void run_world(unsigned n, uint32_t node_size)
{
	struct world *w = calloc(1, sizeof(*w));

	ck_assert_ptr_nonnull(w);
	make_world(w, n, node_size);
	for (unsigned i = 0; i < 12; i++) {
		for (unsigned j = 0; j < 25; j++)
			step(w);
		judge(w);
	}
	ck_assert_uint_gt(w->rotten, 0);
	printf("redundancy %u: up to %" PRIu64 " extra copies, %" PRIu64
	       " blocks rotted\n", 2 + n % 2, w->copied, w->rotten);
	close_world(w);
	bdev_close(w->dev);
	free(w);
}

START_TEST(rot_of_one_copy_is_never_seen)
{
	static const uint32_t sizes[] = { 4096, 16384 };
	unsigned n = test_rounds(4);

	for (unsigned i = 0; i < n; i++)
		run_world(i, sizes[i / 2 % 2]);
}
END_TEST

int main(void)
{
	Suite *su = suite_create("extra copies and rot");
	TCase *tc = tcase_create("extra copies and rot");

	tcase_set_timeout(tc, 3600);
	tcase_add_test(tc, rot_of_one_copy_is_never_seen);
	suite_add_tcase(su, tc);
	return test_main(su);
}
