/*
 * image.h - a filesystem with a bit of everything, and ways to damage it
 *
 * For tests of check: the image lies in memory; items are changed through the
 * trees, behind the back of the fs layer, or bytes on the device, with the
 * checksums above them made right again. There is one image at a time.
 */
#ifndef TEST_IMAGE_H
#define TEST_IMAGE_H

#include "check/check.h"
#include "fs/fs.h"
#include "support/test.h"
#include "support/testdev.h"

#define DEV_BYTES (UINT64_C(48) << 20)
#define BIG_BLOCKS 300u

extern struct bdev *dev;
extern struct store *store; /* NULL: not mounted */
extern struct fs *fs;

/* What the last check found. */
struct seen {
	unsigned n[P_COUNT];
	unsigned total;
	char last[512];
};
extern struct seen seen;
extern struct check_result result;

extern const struct cred root_cred;
/* 1/dir, 1/dir/sub, 1/dir/small (inline), 1/dir/big (BIG_BLOCKS, a hole, 50
 * preallocated ones), 1/link = 1/dir/sub/other, 1/xattr */
extern uint64_t ino_dir, ino_sub, ino_small, ino_big, ino_link, ino_xattr;
extern uint8_t scratch[65536];

typedef void item_fn(void *data, uint32_t len);
typedef void node_fn(uint8_t *node, unsigned slot);

uint64_t make_node(uint64_t dir, const char *name, uint32_t mode,
		   const char *target);
void fill(uint64_t ino, uint64_t off, size_t len, unsigned seed);
void mount_it(void);
void unmount_it(void);
/* Fixtures: data in one copy, in two. Mounted. */
void setup(void);
void setup_two(void);
void teardown(void);
/* Check the device, opened for reading if it can be; the rest of them check
 * fully: data, too. */
int check_options(const struct check_options *opt);
void check_fully(void);
void assert_clean(void);
/* Change an item, add one (or replace it), remove one. */
void edit(unsigned kind, struct key k, item_fn *fn);
void edit_inode(uint64_t ino, item_fn *fn);
void put(unsigned kind, struct key k, const void *data, uint32_t len);
void del(unsigned kind, struct key k);
/* First item of a type of an inode: its key, and a copy of its data. */
uint32_t get_first(unsigned kind, uint64_t obj, uint8_t type,
		   struct key *k, void *data);
/* Key offset of a name. */
uint64_t slot_of(const char *name);
void put_dirent(uint64_t dir, const char *name, uint64_t at, uint64_t ino,
		uint8_t type);
/* The newest superblock. */
struct cowfs_disk_super get_super(void);
void put_super(struct cowfs_disk_super *d);
/* Change the node at `level` on the way to k in a tree. */
void patch(unsigned kind, struct key k, unsigned level, node_fn *fn);
/* check_options.found */
void note(void *arg, enum problem p, const char *where);
uint64_t big_block(void);
void flip_block(uint64_t blk);
void share_something(void);
void nlink_more(void *data, uint32_t len);

#define assert_found(p)                                                      \
	do {                                                                 \
		check_fully();                                               \
		ck_assert_msg(seen.n[p] > 0, "no %s, but %u problems: %s",   \
			      problem_name(p), seen.total, seen.last);       \
	} while (0)

#define assert_found_only(p)                                                 \
	do {                                                                 \
		assert_found(p);                                             \
		ck_assert_msg(seen.n[p] == seen.total,                       \
			      "other problems than %s: %s", problem_name(p), \
			      seen.last);                                    \
	} while (0)

#endif
