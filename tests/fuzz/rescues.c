/*
 * rescues.c - rescue on images that lie: whatever it brings up can be used
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cowfs/cowfs.h"
#include "cowfs/rescue.h"
#include "fuzz/hostile.h"

/* An image may map the same blocks again and again. */
#define BYTES_MAX (UINT64_C(64) << 20)

struct rescued {
	uint64_t ino;  /* the last one */
	uint64_t next; /* behind the last data of the file */
	uint64_t bytes;
	bool open;
};

static int take_inode(void *arg, uint64_t ino, const struct cowfs_disk_inode *d)
{
	struct rescued *r = arg;

	require(ino > r->ino, "inodes are rescued in order");
	require(ino <= COWFS_INO_MAX, "number of an inode");
	require(from_le32(d->mode) & S_IFMT, "kind of an inode");
	require(from_le64(d->size) <= COWFS_FILE_SIZE_MAX, "size of a file");
	r->ino = ino;
	return 0;
}

static int take_name(void *arg, uint64_t dir, uint64_t ino, const char *name,
		     size_t len)
{
	(void)arg;
	(void)ino; /* of an inode that is not there, for all that is known */
	require(len > 0 && len <= COWFS_NAME_MAX, "length of a name");
	require(!memchr(name, 0, len) && !memchr(name, '/', len),
		"letters of a name");
	require(!(len == 1 && name[0] == '.') &&
		!(len == 2 && !memcmp(name, "..", 2)), "dots for a name");
	require(dir && dir <= COWFS_INO_MAX, "number of a directory");
	return 0;
}

static int begin(void *arg, uint64_t ino)
{
	struct rescued *r = arg;

	require(ino > r->ino && !r->open, "contents are rescued in order");
	r->ino = ino;
	r->next = 0;
	r->open = true;
	return 0;
}

static int take_xattr(void *arg, const char *name, const void *val, size_t len)
{
	struct rescued *r = arg;
	const volatile uint8_t *at = val;

	require(r->open && strlen(name) > 0 && strlen(name) < 256,
		"name of a xattr");
	require(len <= COWFS_XATTR_SIZE_MAX, "length of a xattr");
	for (size_t i = 0; i < len; i++)
		(void)at[i];
	return 0;
}

static int take_data(void *arg, uint64_t off, const void *buf, size_t len)
{
	struct rescued *r = arg;
	const volatile uint8_t *at = buf;

	require(r->open && len && off >= r->next, "data come in order");
	require(off <= COWFS_FILE_SIZE_MAX && len <= UINT64_MAX / 2 - off + 1,
		"place of data");
	for (size_t i = 0; i < len; i += 64)
		(void)at[i];
	r->next = off + len;
	r->bytes += len;
	return r->bytes > BYTES_MAX;
}

static int take_lost(void *arg, uint64_t off, uint64_t len)
{
	struct rescued *r = arg;

	require(r->open && len && off <= COWFS_FILE_SIZE_MAX &&
		len <= UINT64_MAX / 2 - off + 1, "place of what is lost");
	return 0;
}

static int lost_xattr(void *arg, const char *name)
{
	struct rescued *r = arg;

	require(r->open && strlen(name) > 0 && strlen(name) < 256,
		"name of a lost xattr");
	return 0;
}

static int end(void *arg)
{
	struct rescued *r = arg;

	require(r->open, "what ends has begun");
	r->open = false;
	return 0;
}

static void passes(struct cowfs_rescue *cr)
{
	struct rescued r = { .ino = 0 };
	struct cowfs_rescue_sink sink = {
		.inode = take_inode, .name = take_name, .begin = begin,
		.xattr = take_xattr, .data = take_data, .lost = take_lost,
		.lost_xattr = lost_xattr, .end = end, .arg = &r,
	};
	struct cowfs_rescue_info info;
	int err = cowfs_rescue_names(cr, &sink);

	cowfs_rescue_info(cr, &info);
	if (err)
		return;
	r.ino = 0;
	err = cowfs_rescue_contents(cr, &sink);
	require(err || !r.open, "what was begun is ended");
}

void rescue_it(struct bdev *dev, uint64_t seed)
{
	struct cowfs_rescue_options opt = { .scan = seed & 1 };
	uint64_t before = flat_written(), gen[COWFS_SUPER_SLOTS];
	unsigned n = COWFS_SUPER_SLOTS;
	struct cowfs_rescue *r;

	if (seed & 2)
		opt.snapshot = seed & 4 ? "one" : COWFS_SNAP_UNDO;
	if ((seed & 24) == 24 && !cowfs_generations(dev, gen, &n) && n)
		opt.gen = gen[(seed >> 5) % n];
	if (!cowfs_rescue_open(dev, &opt, &r)) {
		passes(r);
		cowfs_rescue_close(r);
	}
	require(flat_written() == before, "rescue writes nothing");
}
