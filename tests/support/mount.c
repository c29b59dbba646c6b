/*
 * mount.c - making, opening, closing and checking a filesystem on a device
 */
#include "check/check.h"
#include "support/mount.h"
#include "support/test.h"

struct store *test_format(struct bdev *dev, uint32_t node_size,
			  unsigned meta_copies, unsigned data_copies)
{
	struct store_format f = { .blocks = dev->size / COWFS_BLOCK_SIZE,
				  .node_size = node_size,
				  .meta_copies = meta_copies,
				  .data_copies = data_copies };
	struct store_config cfg = { .dev = dev };
	struct store *s;

	ck_ok(store_format(dev, &f));
	ck_ok(store_open(&cfg, &s));
	ck_ok(fs_format(s, 0, 0, 0755));
	return s;
}

int test_mount_with(const struct store_config *cfg,
		    const struct fs_options *opt, struct store **s,
		    struct fs **fs)
{
	int err = store_open(cfg, s);

	if (err)
		return err;
	ck_ok(snap_start(*s));
	err = fs_mount(*s, opt, fs);
	if (err)
		store_abandon(*s);
	return err;
}

int test_mount(struct bdev *dev, unsigned flags, size_t cache,
	       struct store **s, struct fs **fs)
{
	struct store_config cfg = { .dev = dev, .flags = flags,
				    .cache_bytes = cache };
	struct fs_options opt = { .readonly = flags & STORE_READONLY,
				  .noatime = true };

	return test_mount_with(&cfg, &opt, s, fs);
}

void test_umount(struct store *s, struct fs *fs)
{
	fs_umount(fs);
	ck_ok(store_close(s));
}

static void found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	fprintf(stderr, "%s: %s\n", problem_name(p), where);
}

void test_check(struct store *s)
{
	struct check_options opt = { .data = true, .semantics = true,
				     .found = found };
	struct check_result res;

	ck_ok(check_run(s, &opt, &res));
	ck_assert_uint_eq(res.problems, 0);
}

void test_check_device(struct bdev *dev)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_READONLY };
	struct store *s;

	ck_ok(store_open(&cfg, &s));
	test_check(s);
	ck_ok(store_close(s));
}
