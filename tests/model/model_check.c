/*
 * model_check.c - whatever is done to a filesystem, a full check finds nothing
 *
 * Random operations through the fs layer, snapshots made, restored and deleted
 * all the time, with remounts, crashes (of the process) and background work cut
 * off anywhere; after each of these the whole image is checked.
 */
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "snapshot/snapshot.h"
#include "support/image.h"

#define FILES 60u
#define SNAPS 8u

static struct rng rng;

/* Errors that a random operation may well meet. */
static void fine(int err, const char *what)
{
	ck_assert_msg(err == 0 || err == -ENOENT || err == -EEXIST ||
			      err == -ENOTEMPTY || err == -ENOSPC ||
			      err == -EINVAL || err == -ENODATA ||
			      err == -EISDIR || err == -ENOTDIR ||
			      err == -EBUSY || err == -ESTALE,
		      "%s: %s", what, test_errname(err));
}

static const char *name_of(unsigned i)
{
	static char name[2][280];
	static unsigned turn;
	char *n = name[turn++ % 2];

	snprintf(n, 280, "n%u", i);
	if (i % 7 == 0) { /* some are long */
		memset(n + strlen(n), 'x', 200);
		n[200] = 0;
	}
	return n;
}

static uint64_t any_dir(void)
{
	return rng_one_in(&rng, 2) ? ino_sub : rng_one_in(&rng, 2) ? ino_dir : 1;
}

static bool find(uint64_t dir, const char *name, struct attr *a)
{
	int err = fs_lookup(fs, fs_live(fs), dir, name, strlen(name), a);

	fine(err, "lookup");
	return !err;
}

static void op_create(void)
{
	static const uint32_t types[] = { S_IFREG, S_IFREG, S_IFREG, S_IFDIR,
					  S_IFLNK, S_IFSOCK };
	uint32_t type = types[rng_below(&rng, 6)];
	const char *name = name_of((unsigned)rng_below(&rng, FILES));
	char target[3000];
	size_t len = rng_range(&rng, 1, sizeof(target) - 1);
	struct attr a;

	memset(target, 'q', len);
	target[len] = 0;
	fine(fs_create(fs, any_dir(), name, strlen(name), type | 0640, 0,
		       type == S_IFLNK ? target : NULL, &root_cred, &a),
	     "create");
}

static void op_remove(void)
{
	const char *name = name_of((unsigned)rng_below(&rng, FILES));
	uint64_t dir = any_dir();
	struct attr a;

	if (!find(dir, name, &a))
		return;
	if (S_ISDIR(a.mode))
		fine(fs_rmdir(fs, dir, name, strlen(name), NULL), "rmdir");
	else
		fine(fs_unlink(fs, dir, name, strlen(name), NULL), "unlink");
}

static void op_rename(void)
{
	const char *a = name_of((unsigned)rng_below(&rng, FILES));
	const char *b = name_of((unsigned)rng_below(&rng, FILES));
	unsigned flags = (unsigned)rng_below(&rng, 3); /* 2: EXCHANGE */

	fine(fs_rename(fs, any_dir(), a, strlen(a), any_dir(), b, strlen(b),
		       flags), "rename");
}

static void op_link(void)
{
	const char *a = name_of((unsigned)rng_below(&rng, FILES));
	const char *b = name_of((unsigned)rng_below(&rng, FILES));
	struct attr attr;

	if (find(any_dir(), a, &attr) && !S_ISDIR(attr.mode))
		fine(fs_link(fs, attr.ino, any_dir(), b, strlen(b), &attr),
		     "link");
}

static bool any_file(struct attr *a)
{
	const char *name = name_of((unsigned)rng_below(&rng, FILES));

	return find(any_dir(), name, a) && S_ISREG(a->mode);
}

static void op_write_file(void)
{
	static uint8_t buf[300000];
	struct attr a;
	size_t len = rng_one_in(&rng, 3) ? rng_range(&rng, 1, sizeof(buf)) :
					   rng_range(&rng, 1, 6000);

	if (!any_file(&a))
		return;
	rng_fill(&rng, buf, len < 64 ? len : 64);
	fine(fs_write(fs, a.ino, rng_below(&rng, a.size + 5000), buf, len, 0),
	     "write");
}

static void op_shape(void)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
		FALLOC_FL_ZERO_RANGE,
	};
	struct attr a, set = { 0 };

	if (!any_file(&a))
		return;
	if (rng_one_in(&rng, 3)) {
		set.size = rng_below(&rng, a.size + 9000);
		fine(fs_setattr(fs, a.ino, FS_SET_SIZE, &set, &root_cred, &a),
		     "truncate");
		return;
	}
	fine(fs_fallocate(fs, a.ino, modes[rng_below(&rng, 4)],
			  rng_below(&rng, a.size + 9000),
			  rng_range(&rng, 1, 100000), &root_cred),
	     "fallocate");
}

static void op_clone(void)
{
	struct attr a, b;
	uint64_t got;

	if (any_file(&a) && any_file(&b))
		fine(fs_copy_range(fs, fs_live(fs), a.ino,
				   rng_below(&rng, 20) << 12, b.ino,
				   rng_below(&rng, 20) << 12,
				   rng_range(&rng, 1, 50) << 12, &got),
		     "copy_range");
}

static void op_xattr(void)
{
	static char value[30000];
	char name[32];
	struct attr a;

	snprintf(name, sizeof(name), "user.x%u",
		 (unsigned)rng_below(&rng, 4));
	if (!any_file(&a))
		return;
	if (rng_one_in(&rng, 3))
		fine(fs_removexattr(fs, a.ino, name), "removexattr");
	else
		fine(fs_setxattr(fs, a.ino, name, value,
				 rng_below(&rng, rng_one_in(&rng, 3) ?
						 sizeof(value) : 500),
				 0, &root_cred), "setxattr");
}

static void op_snapshot(void)
{
	char name[32];
	int err;

	snprintf(name, sizeof(name), "s%u", (unsigned)rng_below(&rng, SNAPS));
	switch (rng_below(&rng, 4)) {
	case 0:
		err = fs_snap_delete(fs, name);
		break;
	case 1:
		err = fs_restore(fs, name, rng_one_in(&rng, 2) ?
				 COWFS_SNAP_UNDO : NULL, NULL);
		break;
	default:
		err = snap_create(store, name, NULL);
	}
	fine(err, "snapshot");
}

static void (*const ops[])(void) = {
	op_create, op_create, op_create, op_remove, op_remove, op_rename,
	op_link, op_write_file, op_write_file, op_write_file, op_shape,
	op_shape, op_clone, op_clone, op_xattr,
};

static void check_it(const char *when, unsigned round)
{
	check_fully();
	ck_assert_msg(seen.total == 0, "round %u, %s: %u problems, last: %s",
		      round, when, seen.total, seen.last);
}

/* Something that ends with an image at rest. */
static void settle(unsigned round)
{
	unsigned how = (unsigned)rng_below(&rng, 3);

	if (how == 0) {
		unmount_it();
		check_it("unmounted", round);
		mount_it();
		return;
	}
	ck_ok(store_commit(store, NULL, NULL));
	if (how == 1)
		ck_ok(store_drain(store));
	fs_umount(fs);
	store_abandon(store);
	store = NULL;
	check_it("killed", round);
	mount_it();
}

START_TEST(nothing_done_through_the_front_door_is_damage)
{
	unsigned rounds = test_rounds(150);

	rng_init(&rng, test_seed(), (uint64_t)_i + 40);
	for (unsigned round = 0; round < rounds; round++) {
		unsigned n = (unsigned)rng_range(&rng, 1, 60);

		while (n--)
			ops[rng_below(&rng, sizeof(ops) / sizeof(*ops))]();
		if (rng_one_in(&rng, 2))
			op_snapshot();
		if (rng_one_in(&rng, 3))
			settle(round);
	}
	unmount_it();
	check_it("at the end", rounds);
}
END_TEST

static Suite *model_suite(void)
{
	Suite *s = suite_create("model_check");
	TCase *t = tcase_create("all");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, nothing_done_through_the_front_door_is_damage,
			    0, 4);
	tcase_set_timeout(t, 600);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(model_suite());
}
