/*
 * model_file.c - random work on file contents against arrays of bytes
 *
 * Four files are written, truncated, punched, preallocated, copied (within the
 * live tree and out of snapshots), snapshotted, restored, and the filesystem is
 * unmounted and abandoned in between; what is read must be what the arrays say,
 * in the live tree and in every snapshot, and a full check must find nothing.
 * In the end all is deleted, and as many blocks must be free as before.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check/check.h"
#include "fs/fs.h"
#include "support/mount.h"
#include "support/test.h"

#define BLOCK COWFS_BLOCK_SIZE
#define MIB (UINT64_C(1) << 20)
#define FILES 4
#define SNAPS 5
#define SIZE_MAX_ (2 * MIB)

struct file {
	uint8_t *data; /* SIZE_MAX_ bytes; zeros behind size */
	uint64_t size;
};

struct state {
	bool used;
	struct file file[FILES];
};

struct world {
	struct rng rng;
	uint32_t node_size;
	bool small; /* the device: running out of space is fine */
	struct bdev *dev;
	struct store *store;
	struct fs *fs;
	uint64_t ino[FILES];
	struct state live, snap[SNAPS];
	uint64_t steps, full; /* operations; of these, failed with ENOSPC */
};

static const struct cred root_cred;

/* ---- the model ---- */

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

static void state_init(struct state *s)
{
	for (int i = 0; i < FILES; i++) {
		s->file[i].data = must(calloc(1, SIZE_MAX_));
		s->file[i].size = 0;
	}
}

static void state_copy(struct state *to, const struct state *from)
{
	for (int i = 0; i < FILES; i++) {
		memcpy(to->file[i].data, from->file[i].data, SIZE_MAX_);
		to->file[i].size = from->file[i].size;
	}
}

static void state_fini(struct state *s)
{
	for (int i = 0; i < FILES; i++)
		free(s->file[i].data);
}

static void grow(struct file *f, uint64_t size)
{
	if (f->size < size)
		f->size = size;
}

/* ---- the real thing ---- */

static void mount_it(struct world *w)
{
	ck_ok(test_mount(w->dev, 0, 1 << 20, &w->store, &w->fs));
}

/* Unmounted: nothing is wrong with what is on the device. */
static void check_it(struct world *w)
{
	test_check_device(w->dev);
}

static void remount(struct world *w)
{
	bool kill = rng_one_in(&w->rng, 2);

	if (kill)
		ck_ok(store_commit(w->store, NULL, NULL));
	fs_umount(w->fs);
	if (kill)
		store_abandon(w->store);
	else
		ck_ok(store_close(w->store));
	if (rng_one_in(&w->rng, 2))
		check_it(w);
	mount_it(w);
}

/* Free blocks, and those that the trees themselves lie in: these may be packed
 * more or less well. (That not a block is lost, check_it finds out.) */
static uint64_t free_blocks(struct world *w)
{
	const struct store *s = w->store;
	struct alloc_info info;
	uint64_t nodes;

	for (int i = 0; i < 4; i++) {
		ck_ok(store_drain(w->store));
		ck_ok(store_commit(w->store, NULL, NULL));
	}
	nodes = s->fs.nodes + s->snap.nodes + s->space.nodes + s->refs.nodes;
	alloc_info(s->alloc, &info);
	return info.free + nodes * 2 * w->node_size / BLOCK;
}

/* ---- comparing ---- */

static void compare(struct world *w, struct view *v, const struct state *s,
		    int n)
{
	const struct file *f = &s->file[n];
	uint8_t *buf = must(malloc(SIZE_MAX_ + 10));
	size_t got, i = 0;

	ck_ok(fs_read(w->fs, v, w->ino[n], 0, buf, SIZE_MAX_ + 10, &got));
	ck_assert_uint_eq(got, f->size);
	if (memcmp(buf, f->data, got)) {
		while (buf[i] == f->data[i])
			i++;
		ck_abort_msg("step %" PRIu64 ": file %d of snapshot %" PRIu64
			     ", byte %zu of %zu: %02x, not %02x",
			     w->steps, n, view_snap_id(v), i, got, buf[i],
			     f->data[i]);
	}
	free(buf);
}

static void snap_name(int i, char name[16])
{
	snprintf(name, 16, "s%d", i);
}

static void compare_all(struct world *w)
{
	struct view *v;
	char name[16];

	for (int n = 0; n < FILES; n++)
		compare(w, fs_live(w->fs), &w->live, n);
	for (int i = 0; i < SNAPS; i++) {
		if (!w->snap[i].used)
			continue;
		snap_name(i, name);
		ck_ok(fs_view_open(w->fs, name, &v));
		for (int n = 0; n < FILES; n++)
			compare(w, v, &w->snap[i], n);
		fs_view_put(w->fs, v);
	}
}

/* No room: what is there now must be a step on the way; go on from it. */
static void resync(struct world *w, int n, const struct file *wanted)
{
	struct file *f = &w->live.file[n];
	uint8_t *buf = must(calloc(1, SIZE_MAX_));
	size_t got;

	ck_assert(w->small);
	w->full++;
	ck_ok(fs_read(w->fs, fs_live(w->fs), w->ino[n], 0, buf, SIZE_MAX_,
		      &got));
	for (size_t i = 0; i < got; i++)
		if (buf[i] != f->data[i] && buf[i] != wanted->data[i])
			ck_abort_msg("step %" PRIu64 ": byte %zu of file %d is "
				     "neither old nor new", w->steps, i, n);
	memcpy(f->data, buf, SIZE_MAX_);
	f->size = got;
	free(buf);
}

/* An operation on file n ended with err, and should have led to *wanted. */
static void settle(struct world *w, int n, int err, struct file *wanted)
{
	struct file *f = &w->live.file[n];
	struct file old = *f;

	if (err == -ENOSPC) {
		resync(w, n, wanted);
	} else {
		ck_ok(err);
		*f = *wanted;
		*wanted = old;
	}
	free(wanted->data);
}

static struct file wanted_of(struct world *w, int n)
{
	struct file f = w->live.file[n];

	f.data = must(malloc(SIZE_MAX_));
	memcpy(f.data, w->live.file[n].data, SIZE_MAX_);
	return f;
}

/* ---- operations ---- */

static uint64_t pick_size(struct world *w, uint64_t max)
{
	uint64_t inl = COWFS_INLINE_MAX(w->node_size), n;

	switch (rng_below(&w->rng, 6)) {
	case 0:
		n = rng_below(&w->rng, inl + 3);
		break;
	case 1:
		n = rng_below(&w->rng, 40) * BLOCK;
		break;
	case 2:
		n = rng_below(&w->rng, 40) * BLOCK + rng_below(&w->rng, 5) - 2;
		break;
	case 3:
		n = rng_below(&w->rng, 10 * BLOCK);
		break;
	case 4:
		n = rng_below(&w->rng, max / BLOCK + 1) * BLOCK;
		break;
	default:
		n = rng_below(&w->rng, max + 1);
	}
	return n > max ? max : n;
}

static void do_write(struct world *w, int n)
{
	struct file f = wanted_of(w, n);
	uint64_t off = pick_size(w, SIZE_MAX_ - 1);
	uint64_t len = pick_size(w, SIZE_MAX_ - off);
	uint8_t *buf = must(malloc(len + 1));

	if (rng_one_in(&w->rng, 3))
		off = f.size <= SIZE_MAX_ - len ? f.size : off; /* append */
	rng_fill(&w->rng, buf, len);
	memcpy(f.data + off, buf, len);
	if (len)
		grow(&f, off + len);
	settle(w, n, fs_write(w->fs, w->ino[n], off, buf, len, 0), &f);
	free(buf);
}

static void do_truncate(struct world *w, int n)
{
	struct file f = wanted_of(w, n);
	struct attr set = { .size = pick_size(w, SIZE_MAX_) }, out;

	if (set.size < f.size)
		memset(f.data + set.size, 0, f.size - set.size);
	f.size = set.size;
	settle(w, n, fs_setattr(w->fs, w->ino[n], FS_SET_SIZE, &set,
				&root_cred, &out), &f);
}

static void do_falloc(struct world *w, int n)
{
	static const int modes[] = {
		0, FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
	};
	int mode = modes[rng_below(&w->rng, ARRAY_SIZE(modes))];
	struct file f = wanted_of(w, n);
	uint64_t off = pick_size(w, SIZE_MAX_ - 1);
	uint64_t len = pick_size(w, SIZE_MAX_ - off - 1) + 1;

	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(f.data + off, 0, len);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		grow(&f, off + len);
	settle(w, n, fs_fallocate(w->fs, w->ino[n], mode, off, len,
				  &root_cred), &f);
}

/* Out of a view whose contents are src. */
static void copy_from(struct world *w, struct view *v, const struct state *src,
		      int from, int to)
{
	struct file f = wanted_of(w, to);
	uint64_t size = src->file[from].size;
	uint64_t off = pick_size(w, SIZE_MAX_ - 1);
	uint64_t at = rng_one_in(&w->rng, 2)
			      ? pick_size(w, SIZE_MAX_ - 1)
			      : off;
	uint64_t len = pick_size(w, SIZE_MAX_ - max_u64(off, at)), copied = 0;
	uint64_t real = off < size ? min_u64(len, size - off) : 0;
	bool self = v == fs_live(w->fs) && from == to;
	int err;

	err = fs_copy_range(w->fs, v, w->ino[from], off, w->ino[to], at, len,
			    &copied);
	if (self && off < at + len && at < off + len) {
		ck_assert_int_eq(err, -EINVAL);
		free(f.data);
		return;
	}
	memmove(f.data + at, src->file[from].data + off, real);
	if (real)
		grow(&f, at + real);
	if (!err && copied < real)
		err = -ENOSPC;
	if (!err)
		ck_assert_uint_eq(copied, real);
	settle(w, to, err, &f);
}

static void do_copy(struct world *w, int n)
{
	int from = (int)rng_below(&w->rng, FILES);
	int i = (int)rng_below(&w->rng, SNAPS);
	struct view *v;
	char name[16];

	if (!w->snap[i].used || rng_one_in(&w->rng, 2)) {
		copy_from(w, fs_live(w->fs), &w->live, from, n);
		return;
	}
	snap_name(i, name);
	ck_ok(fs_view_open(w->fs, name, &v));
	copy_from(w, v, &w->snap[i], from, n);
	fs_view_put(w->fs, v);
}

static void do_read(struct world *w, int n)
{
	const struct file *f = &w->live.file[n];
	uint64_t off = pick_size(w, SIZE_MAX_);
	uint64_t len = pick_size(w, SIZE_MAX_ - off);
	uint8_t *buf = must(malloc(len + 1));
	size_t got, want;

	want = off < f->size ? min_u64(len, f->size - off) : 0;
	ck_ok(fs_read(w->fs, fs_live(w->fs), w->ino[n], off, buf, len, &got));
	ck_assert_uint_eq(got, want);
	if (memcmp(buf, f->data + off, got))
		ck_abort_msg("step %" PRIu64 ": read of file %d at %" PRIu64,
			     w->steps, n, off);
	free(buf);
}

/* What seek calls a hole must be zeros; the stretches take turns. */
static void do_seek(struct world *w, int n)
{
	const struct file *f = &w->live.file[n];
	uint64_t ino = w->ino[n], pos = 0, next;
	struct view *v = fs_live(w->fs);
	int err;

	while (pos < f->size) {
		err = fs_seek(w->fs, v, ino, pos, SEEK_DATA, &next);
		if (err == -ENXIO)
			next = f->size;
		else
			ck_ok(err);
		ck_assert(next >= pos && next <= f->size);
		for (; pos < next; pos++)
			if (f->data[pos])
				ck_abort_msg("data in a hole");
		if (pos == f->size)
			break;
		ck_ok(fs_seek(w->fs, v, ino, pos, SEEK_HOLE, &next));
		ck_assert(next > pos && next <= f->size);
		pos = next;
	}
	ck_err(fs_seek(w->fs, v, ino, f->size, SEEK_HOLE, &next), -ENXIO);
}

static void do_snapshot(struct world *w)
{
	int i = (int)rng_below(&w->rng, SNAPS), err;
	char name[16];

	snap_name(i, name);
	if (!w->snap[i].used) {
		err = snap_create(w->store, name, NULL);
		if (err == -ENOSPC && w->small)
			return;
		ck_ok(err);
		state_copy(&w->snap[i], &w->live);
		w->snap[i].used = true;
	} else if (rng_one_in(&w->rng, 2)) {
		ck_ok(fs_snap_delete(w->fs, name));
		w->snap[i].used = false;
	} else {
		ck_ok(fs_restore(w->fs, name,
				 rng_one_in(&w->rng, 2) ? COWFS_SNAP_UNDO
							: NULL, NULL));
		state_copy(&w->live, &w->snap[i]);
	}
}

static void step(struct world *w)
{
	int n = (int)rng_below(&w->rng, FILES);
	uint64_t what = rng_below(&w->rng, 100);

	if (what < 35)
		do_write(w, n);
	else if (what < 45)
		do_truncate(w, n);
	else if (what < 57)
		do_falloc(w, n);
	else if (what < 75)
		do_copy(w, n);
	else if (what < 85)
		do_read(w, n);
	else if (what < 89)
		do_seek(w, n);
	else if (what < 93)
		do_snapshot(w);
	else if (what < 96)
		ck_ok(store_commit(w->store, NULL, NULL));
	else if (what < 98)
		ck_ok(store_drain(w->store));
	else if (rng_one_in(&w->rng, 4))
		remount(w);
	else
		compare_all(w);
	w->steps++;
}

/* ---- a run ---- */

static void begin(struct world *w, unsigned data_copies)
{
	ck_ok(bdev_open_mem((w->small ? 16 : 128) * MIB, &w->dev));
	ck_ok(store_close(test_format(w->dev, w->node_size, 2, data_copies)));
	mount_it(w);
}

static void make_files(struct world *w)
{
	char name[] = "a";
	struct attr a;

	for (int n = 0; n < FILES; n++, name[0]++) {
		ck_ok(fs_create(w->fs, COWFS_INO_ROOT, name, 1,
				S_IFREG | 0644, 0, NULL, &root_cred, &a));
		w->ino[n] = a.ino;
	}
}

static void delete_all(struct world *w)
{
	struct snap_info info;
	char name[] = "a";

	while (!snap_next(w->store, 0, &info))
		ck_ok(fs_snap_delete(w->fs, info.name));
	for (int n = 0; n < FILES; n++, name[0]++)
		ck_ok(fs_unlink(w->fs, COWFS_INO_ROOT, name, 1, NULL));
}

static void run(uint32_t node_size, unsigned data_copies, bool small,
		uint64_t stream, unsigned steps)
{
	struct world w = { .node_size = node_size, .small = small };
	uint64_t before;

	rng_init(&w.rng, test_seed(), stream);
	begin(&w, data_copies);
	before = free_blocks(&w);
	make_files(&w);
	state_init(&w.live);
	for (int i = 0; i < SNAPS; i++)
		state_init(&w.snap[i]);
	for (unsigned i = 0; i < steps; i++)
		step(&w);
	compare_all(&w);
	delete_all(&w);
	ck_assert_uint_eq(free_blocks(&w), before);
	fs_umount(w.fs);
	ck_ok(store_close(w.store));
	check_it(&w);
	bdev_close(w.dev);
	state_fini(&w.live);
	for (int i = 0; i < SNAPS; i++)
		state_fini(&w.snap[i]);
	if (small)
		printf("%" PRIu64 " of %" PRIu64 " steps found no room\n",
		       w.full, w.steps);
}

START_TEST(files_hold_what_was_written)
{
	static const uint32_t node_size[] = { 16384, 4096, 65536, 16384 };

	run(node_size[_i], _i == 3 ? 2 : 1, false, (uint64_t)_i,
	    test_rounds(1500));
}
END_TEST

START_TEST(files_hold_what_was_written_on_a_full_disk)
{
	run(_i ? 4096 : 16384, 1, true, (uint64_t)_i + 10, test_rounds(1500));
}
END_TEST

static Suite *file_model_suite(void)
{
	Suite *s = suite_create("model_file");
	TCase *t = tcase_create("model");

	tcase_set_timeout(t, 3600);
	tcase_add_loop_test(t, files_hold_what_was_written, 0, 4);
	tcase_add_loop_test(t, files_hold_what_was_written_on_a_full_disk, 0,
			    2);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(file_model_suite());
}
