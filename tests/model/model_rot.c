/*
 * model_rot.c - whatever rots, an answer is right or it is an error
 *
 * An image is asked everything that can be asked about it while it is whole:
 * names, attributes, contents, xattrs, of the live tree and of each snapshot.
 * Then blocks of it rot (bits flip; blocks are zeroed, swapped, torn, or what
 * they were before the last writes), and the same questions are asked again.
 *
 * All superblock slots name the same contents, so that going back a generation
 * answers the same. At least one slot's copy is left whole: an image without
 * any is none.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "fs/fs.h"
#include "fuzz/hostile.h"
#include "util/util.h"

#define VIEWS 4u
#define CHUNK 16384u

enum ask { ASK_ATTR, ASK_NAME, ASK_LIST, ASK_READ, ASK_XLIST, ASK_XGET,
	   ASK_LINK };

struct question {
	enum ask ask;
	unsigned view;
	uint64_t ino, off;
	char name[256];
	uint64_t answer;
};

/* An image as it was (`before`), and as it is. */
struct image {
	struct base b; /* b.dev: the whole image */
	uint8_t *before;
	struct bdev *dev; /* what rots */
	struct question *q;
	size_t questions, room;
	char snap[VIEWS][COWFS_SNAP_NAME_MAX + 1]; /* [0]: live */
	unsigned views;
};

static struct image image[2]; /* data in one copy, in two */
static struct store *store;
static struct fs *fs;
static struct view *view[VIEWS];
static uint8_t buf[COWFS_XATTR_SIZE_MAX];
static struct rng rng;

static const struct cred cred;

/* ---- asking ---- */

static uint64_t mix(uint64_t sum, const void *p, size_t len)
{
	static const uint8_t key[16] = "model of rot";
	uint64_t v[2] = { sum, siphash(key, p, len) };

	return siphash(key, v, sizeof(v));
}

static uint64_t mix_attr(const struct attr *a)
{
	uint64_t v[] = { a->ino, a->gen, a->mode, a->nlink, a->uid, a->gid,
			 a->size, a->blocks, (uint64_t)a->mtime.sec,
			 a->mtime.nsec, (uint64_t)a->ctime.sec, a->ctime.nsec };

	return mix(1, v, sizeof(v));
}

static int mix_entry(void *arg, const struct fs_dirent *e)
{
	uint64_t *sum = arg;

	*sum = mix(mix(*sum, e->name, e->len), &e->ino, sizeof(e->ino));
	return 0;
}

static int ask(const struct question *q, uint64_t *answer)
{
	struct view *v = view[q->view];
	size_t len = sizeof(buf);
	struct attr a;
	int err;

	*answer = 0;
	switch (q->ask) {
	case ASK_ATTR:
		err = fs_getattr(fs, v, q->ino, &a);
		*answer = err ? 0 : mix_attr(&a);
		return err;
	case ASK_NAME:
		err = fs_lookup(fs, v, q->ino, q->name, strlen(q->name), &a);
		*answer = err ? 0 : mix_attr(&a);
		return err;
	case ASK_LIST:
		return fs_readdir(fs, v, q->ino, 0, true, mix_entry, answer);
	case ASK_READ:
		err = fs_read(fs, v, q->ino, q->off, buf, CHUNK, &len);
		break;
	case ASK_XLIST:
		err = fs_listxattr(fs, v, q->ino, (char *)buf, len, &len);
		break;
	case ASK_XGET:
		err = fs_getxattr(fs, v, q->ino, q->name, buf, len, &len);
		break;
	default:
		err = fs_readlink(fs, v, q->ino, (char *)buf, &len);
	}
	*answer = err ? 0 : mix(1, buf, len);
	return err;
}

/* ---- what there is to ask ---- */

static void add(struct image *im, enum ask kind, unsigned v, uint64_t ino,
		uint64_t off, const char *name)
{
	struct question *q;

	if (im->questions == im->room) {
		im->room = im->room ? im->room * 2 : 256;
		im->q = realloc(im->q, im->room * sizeof(*im->q));
		ck_assert_ptr_nonnull(im->q);
	}
	q = &im->q[im->questions++];
	*q = (struct question){ .ask = kind, .view = v, .ino = ino,
				.off = off };
	snprintf(q->name, sizeof(q->name), "%s", name ? name : "");
	ck_ok(ask(q, &q->answer));
}

static void add_contents(struct image *im, unsigned v, uint64_t ino)
{
	uint64_t off, end = 0;

	while (!fs_seek(fs, view[v], ino, end, SEEK_DATA, &off)) {
		ck_ok(fs_seek(fs, view[v], ino, off, SEEK_HOLE, &end));
		for (; off < end; off += CHUNK)
			add(im, ASK_READ, v, ino, off, NULL);
	}
}

static void add_xattrs(struct image *im, unsigned v, uint64_t ino)
{
	char list[4096];
	size_t len;

	add(im, ASK_XLIST, v, ino, 0, NULL);
	ck_ok(fs_listxattr(fs, view[v], ino, list, sizeof(list), &len));
	for (char *p = list; p < list + len; p += strlen(p) + 1)
		add(im, ASK_XGET, v, ino, 0, p);
}

struct listing {
	struct image *im;
	unsigned view;
	struct { uint64_t dir, ino; char name[256]; } e[600];
	unsigned n;
};

static int note_entry(void *arg, const struct fs_dirent *e)
{
	struct listing *l = arg;

	if (e->cookie <= 2)
		return 0;
	ck_assert_uint_lt(l->n, ARRAY_SIZE(l->e));
	l->e[l->n].ino = e->ino;
	memcpy(l->e[l->n].name, e->name, e->len);
	l->e[l->n++].name[e->len] = '\0';
	return 0;
}

static void add_inode(struct image *im, struct listing *l, uint64_t ino)
{
	unsigned i, first = l->n;
	struct attr a;

	add(im, ASK_ATTR, l->view, ino, 0, NULL);
	add_xattrs(im, l->view, ino);
	ck_ok(fs_getattr(fs, view[l->view], ino, &a));
	if (S_ISREG(a.mode))
		add_contents(im, l->view, ino);
	if (S_ISLNK(a.mode))
		add(im, ASK_LINK, l->view, ino, 0, NULL);
	if (!S_ISDIR(a.mode))
		return;
	add(im, ASK_LIST, l->view, ino, 0, NULL);
	ck_ok(fs_readdir(fs, view[l->view], ino, 0, false, note_entry, l));
	for (i = first; i < l->n; i++)
		l->e[i].dir = ino;
}

/* A snapshot keeps files that had been removed but were in use. */
static void add_orphans(struct image *im, struct listing *l)
{
	uint64_t ino, end = from_le64(im->b.super[0].next_ino);
	struct attr a;

	for (ino = COWFS_INO_FIRST; ino < end; ino++)
		if (!fs_getattr(fs, view[l->view], ino, &a) && a.nlink == 0)
			add_inode(im, l, ino);
}

static void add_view(struct image *im, unsigned v)
{
	static struct listing l;
	unsigned i;

	l = (struct listing){ .im = im, .view = v };
	add_inode(im, &l, COWFS_INO_ROOT);
	for (i = 0; i < l.n; i++) {
		add(im, ASK_NAME, v, l.e[i].dir, 0, l.e[i].name);
		add_inode(im, &l, l.e[i].ino);
	}
	add_orphans(im, &l);
}

/* ---- mounting ---- */

static int open_views(const struct image *im)
{
	unsigned i;
	int err = 0;

	view[0] = fs_live(fs);
	for (i = 1; i < VIEWS; i++)
		view[i] = NULL;
	for (i = 1; !err && i < im->views; i++)
		err = fs_view_open(fs, im->snap[i], &view[i]);
	return err;
}

static int mount_it(struct bdev *dev, unsigned flags)
{
	struct fs_options opt = { .noatime = true,
				  .readonly = flags & STORE_READONLY };
	struct store_config cfg = { .dev = dev, .flags = flags,
				    .cache_bytes = 4 << 20 };
	int err = store_open(&cfg, &store);

	fs = NULL;
	if (err) {
		store = NULL;
		return err;
	}
	ck_ok(snap_start(store));
	return fs_mount(store, &opt, &fs);
}

static int unmount_it(void)
{
	int err;

	for (unsigned i = 1; fs && i < VIEWS; i++)
		if (view[i])
			fs_view_put(fs, view[i]);
	memset(view, 0, sizeof(view));
	fs_umount(fs);
	err = store ? store_close(store) : 0;
	fs = NULL;
	store = NULL;
	return err;
}

/* ---- making an image ---- */

static void change_something(void)
{
	struct attr a, dir;
	char name[16];

	ck_ok(fs_lookup(fs, fs_live(fs), COWFS_INO_ROOT, "dir", 3, &dir));
	ck_ok(fs_lookup(fs, fs_live(fs), dir.ino, "big", 3, &a));
	memset(buf, 'n', sizeof(buf));
	ck_ok(fs_write(fs, a.ino, 50000, buf, 40000, 0));
	for (unsigned i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "new-%u", i);
		ck_ok(fs_create(fs, dir.ino, name, strlen(name),
				S_IFREG | 0644, 0, NULL, &cred, &a));
		ck_ok(fs_write(fs, a.ino, 0, buf, i * 100, 0));
	}
}

static void note_snapshots(struct image *im)
{
	struct snap_info info;
	uint64_t id = 0;

	im->views = 1;
	for (; !snap_next(store, id, &info); id = info.id + 1) {
		ck_assert_uint_lt(im->views, VIEWS);
		memcpy(im->snap[im->views++], info.name, sizeof(info.name));
	}
}

static void make_image(struct image *im, unsigned kind)
{
	const struct base *from = base_get(kind);
	struct super_scan scan;
	unsigned i;

	im->b = (struct base){ .blocks = from->blocks,
			       .node_size = from->node_size };
	ck_ok(flat_open(from->blocks, &im->b.dev));
	memcpy(flat_edit(im->b.dev, 0, from->blocks), flat_bytes(from->dev),
	       from->dev->size);
	im->before = malloc(from->dev->size);
	ck_assert_ptr_nonnull(im->before);
	memcpy(im->before, flat_bytes(from->dev), from->dev->size);
	for (i = 0; i < 5; i++) { /* the last four rounds fill the slots */
		ck_ok(mount_it(im->b.dev, 0));
		if (i == 0)
			change_something();
		ck_ok(store_drain(store));
		ck_ok(unmount_it());
	}
	ck_ok(super_scan(im->b.dev, &scan));
	im->b.super[0] = scan.found[0].d;
	places_find(&im->b);
	ck_ok(mount_it(im->b.dev, STORE_READONLY));
	note_snapshots(im);
	ck_ok(open_views(im));
	for (i = 0; i < im->views; i++)
		add_view(im, i);
	ck_ok(unmount_it());
	ck_ok(flat_open(from->blocks, &im->dev));
	memcpy(flat_edit(im->dev, 0, from->blocks), flat_bytes(im->b.dev),
	       from->dev->size);
}

static void make_images(void)
{
	test_log_hide();
	make_image(&image[0], 2);
	make_image(&image[1], 1);
}

/* ---- rot ---- */

/* What happens to n blocks; other: where as many other ones lie. */
static void rot(struct image *im, uint64_t blk, uint64_t n, uint64_t other)
{
	uint8_t *p = flat_edit(im->dev, blk, n), *o;
	size_t len = n * COWFS_BLOCK_SIZE, at = rng_below(&rng, len);
	const uint8_t *old = im->before + blk * COWFS_BLOCK_SIZE;

	switch (rng_below(&rng, 6)) {
	case 0:
		p[at] ^= (uint8_t)(1u << rng_below(&rng, 8));
		break;
	case 1:
		memset(p, 0, len);
		break;
	case 2: /* was never written */
		memcpy(p, old, len);
		break;
	case 3: /* torn */
		at &= ~(size_t)511;
		memcpy(p + at, old + at, len - at);
		break;
	case 4: /* each went where the other belongs */
		o = flat_edit(im->dev, other, n);
		for (at = 0; at < len; at++) {
			uint8_t t = p[at];

			p[at] = o[at];
			o[at] = t;
		}
		break;
	default:
		rng_fill(&rng, p, len);
	}
}

static uint64_t side_of(const struct place *p, bool second)
{
	return second && p->blk2 ? p->blk2 : p->blk;
}

/* Another place of the same size, or the same. */
static const struct place *mate_of(const struct image *im,
				   const struct place *p)
{
	const struct place *o = &im->b.place[rng_below(&rng, im->b.places)];

	return o->blocks == p->blocks ? o : p;
}

static void rot_anywhere(struct image *im)
{
	uint64_t i, n = rng_range(&rng, 1, 12), keep = rng_below(&rng, 8);
	uint64_t room = im->b.blocks - COWFS_FIRST_BLOCK - COWFS_SUPER_SLOTS;

	for (i = 0; i < n; i++) {
		const struct place *p =
			&im->b.place[rng_below(&rng, im->b.places)];
		const struct place *o = mate_of(im, p);

		rot(im, side_of(p, rng_one_in(&rng, 2)), p->blocks,
		    side_of(o, rng_one_in(&rng, 2)));
	}
	for (i = 0; rng_one_in(&rng, 3) && i < 30; i++)
		rot(im, COWFS_FIRST_BLOCK + rng_below(&rng, room), 1,
		    COWFS_FIRST_BLOCK + rng_below(&rng, room));
	for (i = 0; i < 8; i++) {
		uint64_t at = super_slot_block(im->b.blocks, (unsigned)i % 4,
					       i >= 4);

		if (i != keep && rng_one_in(&rng, 3))
			rot(im, at, 1, at);
	}
}

/* One copy of many places; side[]: which one. */
static void rot_one_side(struct image *im, uint8_t *side)
{
	bool one = rng_one_in(&rng, 2), second = rng_one_in(&rng, 2);
	uint64_t rare = rng_range(&rng, 1, 20);
	size_t i, n = im->b.places;

	for (i = 0; i < n; i++)
		side[i] = one ? second : rng_one_in(&rng, 2);
	for (i = 0; i < n; i++) {
		const struct place *p = &im->b.place[i];
		const struct place *o = mate_of(im, p);

		if (!p->blk2 || !o->blk2 || !rng_one_in(&rng, rare))
			continue;
		rot(im, side_of(p, side[i]), p->blocks,
		    side_of(o, side[o - im->b.place]));
	}
	for (i = 0; i < COWFS_SUPER_SLOTS; i++) {
		uint64_t at = super_slot_block(im->b.blocks, (unsigned)i,
					       rng_one_in(&rng, 2));

		if (rng_one_in(&rng, 2))
			rot(im, at, 1, at);
	}
}

/* ---- tests ---- */

static bool honest(int err)
{
	return err == -ECOW_CSUM || err == -ECOW_CORRUPT || err == -EIO;
}

/* Ask everything; the number of errors, which are to be honest ones. */
static unsigned ask_all(const struct image *im, unsigned round)
{
	unsigned errors = 0;
	uint64_t answer;
	size_t i;

	for (i = 0; i < im->questions; i++) {
		const struct question *q = &im->q[i];
		int err = ask(q, &answer);

		errors += err != 0;
		if (err ? !honest(err) : answer != q->answer)
			ck_abort_msg("round %u: question %d of %" PRIu64
				     " at %" PRIu64 " '%s' in view %u: %s",
				     round, q->ask, q->ino, q->off, q->name,
				     q->view, err ? test_errname(err) :
				     "another answer");
	}
	return errors;
}

START_TEST(an_answer_is_right_or_an_error)
{
	unsigned i, n = test_rounds(200), errors = 0, unopened = 0;

	rng_init(&rng, test_seed(), 31);
	for (i = 0; i < n; i++) {
		struct image *im = &image[i % 2];
		unsigned flags = rng_one_in(&rng, 2) ? STORE_READONLY : 0;
		int err;

		flat_reset(im->dev, flat_bytes(im->b.dev));
		rot_anywhere(im);
		err = mount_it(im->dev, flags);
		if (!err)
			err = open_views(im);
		ck_assert_msg(!err || honest(err), "round %u: %s", i,
			      test_errname(err));
		if (err)
			unopened++;
		else
			errors += ask_all(im, i) != 0;
		err = unmount_it();
		ck_assert_msg(!err || honest(err), "round %u: closing: %s", i,
			      test_errname(err));
	}
	printf("%u images rotted: %u with errors, %u not to be opened\n", n,
	       errors, unopened);
}
END_TEST

/* Is what was read first as it was in the beginning? */
static void assert_mended(const struct image *im, unsigned round)
{
	const uint8_t *was = flat_bytes(im->b.dev), *is = flat_bytes(im->dev);
	size_t i;

	for (i = 0; i < im->b.places; i++) {
		const struct place *p = &im->b.place[i];
		size_t at = p->blk * COWFS_BLOCK_SIZE;

		if (!p->blk2 || (!p->data && p->tree != COWFS_ROOT_FS))
			continue;
		ck_assert_msg(memcmp(was + at, is + at,
				     p->blocks * COWFS_BLOCK_SIZE) == 0,
			      "round %u: block %" PRIu64 " (%s of level %u) "
			      "was not mended", round, p->blk,
			      p->data ? "data" : "node", p->level);
	}
}

static void scrub(struct check_result *res)
{
	struct check_options opt = { .data = true, .mend = true };

	ck_ok(check_run(store, &opt, res));
}

START_TEST(rot_in_one_copy_is_mended_unseen)
{
	unsigned i, n = test_rounds(200);
	uint64_t mended = 0;
	struct check_result res;

	rng_init(&rng, test_seed(), 32);
	for (i = 0; i < n; i++) {
		struct image *im = &image[i % 2];
		uint8_t *side = calloc(im->b.places, 1);

		ck_assert_ptr_nonnull(side);
		flat_reset(im->dev, flat_bytes(im->b.dev));
		rot_one_side(im, side);
		free(side);
		ck_ok(mount_it(im->dev, 0));
		ck_ok(open_views(im));
		ck_assert_uint_eq(ask_all(im, i), 0);
		assert_mended(im, i);
		scrub(&res);
		ck_assert_uint_eq(res.lost, 0);
		ck_assert_uint_eq(res.repaired, res.bad_copies);
		scrub(&res);
		ck_assert_uint_eq(res.problems, 0);
		mended += atomic_load(&store->io.stats.repaired);
		ck_ok(unmount_it());
	}
	printf("%u images with rot in one copy: %" PRIu64 " copies mended\n",
	       n, mended);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("rot");
	TCase *tc = tcase_create("rot");

	tcase_add_unchecked_fixture(tc, make_images, NULL);
	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, an_answer_is_right_or_an_error);
	tcase_add_test(tc, rot_in_one_copy_is_mended_unseen);
	suite_add_tcase(s, tc);
	return test_main(s);
}
