/*
 * model_repair.c - damage at random, repaired: clean, and the rest as it was
 *
 * An image with files, names, xattrs and snapshots; blocks are flipped, zeroed,
 * swapped, in one copy or in both. After a repair the image checks clean, can
 * be mounted and written, every file that is still there under its name has the
 * bytes that it had, or zeros where its blocks were lost; undone, it is what it
 * was.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/repair.h"
#include "snapshot/snapshot.h"
#include "support/digest.h"
#include "support/image.h"

#define FILES 400u
#define MAX_BYTES 200000u

static struct rng rng;

/* ---- an image, and what its files hold ---- */

static size_t file_size(unsigned i)
{
	return i % 3 ? i * 7 % 900 + 1 : i * 4099 % MAX_BYTES + 1;
}

static void file_bytes(unsigned i, uint8_t *buf, size_t len)
{
	struct rng r;

	rng_init(&r, 4711, i);
	rng_fill(&r, buf, len);
	for (size_t at = 0; at < len; at += 512)
		buf[at] |= 1; /* no block is zeros */
}

static const char *file_name(unsigned i)
{
	static char name[64];

	snprintf(name, sizeof(name), "file-%u-%s", i,
		 i % 5 ? "short" : "with-a-name-that-is-somewhat-longer");
	return name;
}

static uint64_t make_dirs(unsigned i)
{
	char name[16];
	struct attr a;

	snprintf(name, sizeof(name), "d%u", i % 17);
	if (!fs_lookup(fs, fs_live(fs), 1, name, strlen(name), &a))
		return a.ino;
	return make_node(1, name, S_IFDIR | 0755, NULL);
}

static void populate(void)
{
	static uint8_t buf[MAX_BYTES];
	uint64_t ino;

	for (unsigned i = 0; i < FILES; i++) {
		ino = make_node(make_dirs(i), file_name(i), S_IFREG | 0644,
				NULL);
		file_bytes(i, buf, file_size(i));
		ck_ok(fs_write(fs, ino, 0, buf, file_size(i), 0));
		if (i == FILES / 3 || i == FILES / 2)
			ck_ok(snap_create(store, i == FILES / 3 ? "one" :
					  "two", NULL));
	}
}

/* ---- looking at it afterwards ---- */

static bool zeros(const uint8_t *b, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (b[i])
			return false;
	return true;
}

/* Files of which everything is there, of those whose name is. */
static unsigned compare_view(struct view *v, unsigned *holes)
{
	static uint8_t want[MAX_BYTES], got[MAX_BYTES];
	unsigned whole = 0;
	struct attr d, a;
	char dir[16];
	size_t n;

	for (unsigned i = 0; i < FILES; i++) {
		size_t len = file_size(i), bad = 0;

		snprintf(dir, sizeof(dir), "d%u", i % 17);
		if (fs_lookup(fs, v, 1, dir, strlen(dir), &d) ||
		    fs_lookup(fs, v, d.ino, file_name(i),
			      strlen(file_name(i)), &a))
			continue;
		memset(got, 0, len);
		ck_ok(fs_read(fs, v, a.ino, 0, got, len, &n));
		file_bytes(i, want, len);
		for (size_t at = 0; at < n; at += 4096) {
			size_t l = n - at < 4096 ? n - at : 4096;

			if (memcmp(got + at, want + at, l) == 0)
				continue;
			ck_assert_msg(zeros(got + at, l), "foreign bytes in "
				      "%s at %zu", file_name(i), at);
			bad++;
		}
		if (n < len || bad)
			++*holes;
		else
			whole++;
	}
	return whole;
}

/* ---- damage ---- */

static uint64_t any_used(const uint8_t *used, uint64_t blocks)
{
	uint64_t b;

	do
		b = rng_below(&rng, blocks);
	while (!used[b]);
	return b;
}

static void hurt_block(const uint8_t *used, uint64_t blocks)
{
	uint64_t a = any_used(used, blocks), b = any_used(used, blocks);
	uint8_t x[4096], y[4096];

	switch (rng_below(&rng, 3)) {
	case 0:
		flip_bit(dev, a * 4096 + rng_below(&rng, 4096), 3);
		break;
	case 1:
		memset(x, 0, sizeof(x));
		ck_ok(bdev_write(dev, a * 4096, x, sizeof(x)));
		break;
	default:
		ck_ok(bdev_read(dev, a * 4096, x, sizeof(x)));
		ck_ok(bdev_read(dev, b * 4096, y, sizeof(y)));
		ck_ok(bdev_write(dev, a * 4096, y, sizeof(y)));
		ck_ok(bdev_write(dev, b * 4096, x, sizeof(x)));
	}
}

struct node_list {
	struct nptr p[20000];
	size_t n;
};

static struct node_list nodes;

static void note_node(void *arg, const struct nptr *p, unsigned blocks)
{
	(void)arg;
	(void)blocks;
	if (nodes.n < 20000)
		nodes.p[nodes.n++] = *p;
}

static void find_nodes(void)
{
	struct check_options opt = { .node = note_node };

	nodes.n = 0;
	ck_ok(check_options(&opt));
}

/* Both copies of a node; leaves are hit more often than what is above them. */
static void hurt_node(void)
{
	struct nptr *p = &nodes.p[rng_below(&rng, nodes.n)];

	flip_bit(dev, p->blk * 4096 + rng_below(&rng, 4096), 1);
	if (p->blk2)
		flip_bit(dev, p->blk2 * 4096 + rng_below(&rng, 4096), 5);
}

/* ---- the property ---- */

static char told[512];
static unsigned lines;

static void on_told(void *arg, const char *line)
{
	(void)arg;
	lines++;
	snprintf(told, sizeof(told), "%s", line);
	if (getenv("VERBOSE"))
		printf("    %s\n", line);
}

static void on_found(void *arg, enum problem p, const char *where)
{
	(void)arg;
	if (getenv("VERBOSE"))
		printf("  %s: %s\n", problem_name(p), where);
}

static void repair(bool punch, struct repair_result *out)
{
	struct repair_options opt = { .all = true, .punch = punch,
				      .told = on_told, .found = on_found };

	lines = 0;
	ck_ok(repair_run(dev, &opt, out));
}

static void assert_meta_clean(unsigned round)
{
	struct check_options opt = { .semantics = true, .found = note,
				     .all_snapshots = true };

	ck_ok(check_options(&opt));
	ck_assert_msg(seen.total == 0, "round %u: %u problems left, the last: "
		      "%s (told: %s)", round, seen.total, seen.last, told);
}

static void write_something(void)
{
	struct attr a;

	mount_it();
	ck_ok(fs_getattr(fs, fs_live(fs), COWFS_INO_ROOT, &a));
	if (!(a.flags & COWFS_INODE_IMMUTABLE)) /* it may have become so */
		make_node(1, "new", S_IFREG | 0644, NULL);
	ck_ok(snap_create(store, "after", NULL));
	unmount_it();
}

static struct bdev *copy_of(struct bdev *from)
{
	struct bdev *to;

	ck_ok(bdev_open_mem(from->size, &to));
	ck_ok(dev_copy(to, from));
	return to;
}

static bool same(struct bdev *a, struct bdev *b, uint64_t blk, uint64_t n)
{
	static uint8_t x[4096], y[4096];

	for (uint64_t i = blk; i < blk + n; i++) {
		ck_ok(bdev_read(a, i * 4096, x, sizeof(x)));
		ck_ok(bdev_read(b, i * 4096, y, sizeof(y)));
		if (memcmp(x, y, sizeof(x)) != 0)
			return false;
	}
	return true;
}

/* What was in use has its bytes again (copies may be better). */
static void assert_undone(struct bdev *before)
{
	struct cowfs_disk_super a, b;
	struct bdev *now = dev;

	ck_ok(repair_undo(dev));
	a = get_super();
	dev = before;
	b = get_super();
	dev = now;
	ck_assert_uint_eq(from_le64(a.gen), from_le64(b.gen));
	for (size_t i = 0; i < nodes.n; i++)
		if (!same(dev, before, nodes.p[i].blk, 1))
			ck_assert_msg(nodes.p[i].blk2, "node %" PRIu64
				      " changed", nodes.p[i].blk);
}

static void one_round(struct bdev *clean, unsigned round)
{
	struct repair_result res;
	struct bdev *hurt;
	unsigned n = 1 + (unsigned)rng_below(&rng, 6), whole, holes = 0;
	uint8_t *used = calloc(DEV_BYTES / 4096, 1);

	dev = copy_of(clean);
	find_nodes();
	for (size_t i = 0; i < nodes.n; i++)
		used[nodes.p[i].blk] = used[nodes.p[i].blk2] = 1;
	used[0] = 0;
	for (unsigned i = 0; i < n; i++) {
		if (rng_one_in(&rng, 2))
			hurt_node();
		else
			hurt_block(used, DEV_BYTES / 4096);
	}
	hurt = copy_of(dev);
	repair(rng_one_in(&rng, 2), &res);
	ck_assert_msg(res.left == 0, "round %u: %" PRIu64 " left", round,
		      res.left);
	assert_meta_clean(round);
	mount_it();
	whole = compare_view(fs_live(fs), &holes);
	unmount_it();
	if (getenv("VERBOSE"))
		printf("round %u: %u hurt, %u passes, %" PRIu64 " fixes, "
		       "%u lines, %u whole, %u with holes\n", round, n,
		       res.passes, res.fixes, lines, whole, holes);
	write_something();
	assert_meta_clean(round);
	bdev_close(dev);
	/* the same again, undone */
	dev = copy_of(hurt);
	repair(false, &res);
	if (res.committed)
		assert_undone(hurt);
	bdev_close(dev);
	bdev_close(hurt);
	free(used);
}

START_TEST(what_is_repaired_checks_clean)
{
	struct bdev *clean;
	unsigned rounds = test_rounds(30);

	rng_init(&rng, test_seed(), 1);
	populate();
	unmount_it();
	clean = dev;
	for (unsigned i = 0; i < rounds; i++)
		one_round(clean, i);
	dev = clean;
}
END_TEST

/* ---- contents that can't be, under checksums that are right ---- */

static unsigned patch_bytes;

static void scribble(uint8_t *node, unsigned slot)
{
	size_t item = sizeof(struct cowfs_disk_node) +
		      slot * (node_level(node) ?
				      sizeof(struct cowfs_disk_child) :
				      sizeof(struct cowfs_disk_item));
	unsigned n = 1 + (unsigned)rng_below(&rng, patch_bytes);

	for (unsigned i = 0; i < n; i++) {
		size_t at = rng_below(&rng, 4096);

		if (rng_one_in(&rng, 3)) /* near a head, where it hurts */
			at = (item + rng_below(&rng, 48)) % 4096;
		else if (!node_level(node) && rng_one_in(&rng, 2) &&
			 slot < node_count(node))
			at = (size_t)((const uint8_t *)node_item(node, slot,
					4096).data - node) +
			     rng_below(&rng, 40);
		at %= 4096;
		if (rng_one_in(&rng, 2))
			node[at] = (uint8_t)rng_next(&rng);
		else
			node[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
	}
}

static void hostile_patch(void)
{
	static const unsigned kinds[] = { COWFS_ROOT_FS, COWFS_ROOT_FS,
					  COWFS_ROOT_FS, COWFS_ROOT_SNAP,
					  COWFS_ROOT_SPACE, COWFS_ROOT_REFS };
	unsigned kind = kinds[rng_below(&rng, 6)];
	struct cowfs_disk_super d = get_super();
	struct nptr root = nptr_from_disk(&d.roots[kind].ptr);
	static const uint8_t types[] = { COWFS_KEY_INODE, COWFS_KEY_DIRENT,
					 COWFS_KEY_EXTENT, COWFS_KEY_INLINE,
					 COWFS_KEY_XATTR };
	struct key k = KEY(rng_below(&rng, 1100), types[rng_below(&rng, 5)],
			   rng_one_in(&rng, 2) ? 0 : rng_next(&rng) >> 2);

	patch_bytes = rng_one_in(&rng, 4) ? 40 : 2;
	if (root.blk)
		patch(kind, k, rng_one_in(&rng, 5) ?
		      (unsigned)rng_below(&rng, root.level + 1u) : 0,
		      scribble);
}

/* Whatever is said there, a check goes through. */
static unsigned problems_of(void)
{
	struct check_options opt = { .semantics = true, .found = note,
				     .all_snapshots = true };

	ck_ok(check_options(&opt));
	return seen.total;
}

static void hostile_round(struct bdev *clean, unsigned round)
{
	unsigned n = 1 + (unsigned)rng_below(&rng, 4), before = 0;
	struct repair_result res;
	bool done = true;

	dev = copy_of(clean);
	while (n--) {
		hostile_patch();
		/* patch goes on from a readable tree only */
		before = problems_of();
		if (before)
			break;
	}
	repair(false, &res);
	if (res.left) {
		done = false;
		ck_assert_msg(!res.committed, "round %u: committed with "
			      "problems", round);
		ck_assert_msg(problems_of() <= before, "round %u: worse",
			      round);
	} else {
		assert_meta_clean(round);
		write_something();
		assert_meta_clean(round);
	}
	if (getenv("VERBOSE") || !done)
		printf("hostile %u: %u problems, %u passes, %" PRIu64
		       " fixes%s\n", round, before, res.passes, res.fixes,
		       done ? "" : ", not mended");
	bdev_close(dev);
}

START_TEST(hostile_contents_are_mended)
{
	struct bdev *clean;
	unsigned rounds = test_rounds(150);

	rng_init(&rng, test_seed(), 2);
	populate();
	unmount_it();
	clean = dev;
	for (unsigned i = 0; i < rounds; i++)
		hostile_round(clean, i);
	dev = clean;
}
END_TEST

int main(void)
{
	Suite *s = suite_create("model_repair");
	TCase *tc = tcase_create("repair");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, what_is_repaired_checks_clean);
	tcase_add_test(tc, hostile_contents_are_mended);
	suite_add_tcase(s, tc);
	tc = tcase_create("repair, data twice");
	tcase_add_checked_fixture(tc, setup_two, teardown);
	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, what_is_repaired_checks_clean);
	suite_add_tcase(s, tc);
	return test_main(s);
}
