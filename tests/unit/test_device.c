/*
 * test_device.c - the memory device, and files as devices
 *
 * file.c is compiled in here with system calls that can be made to do less
 * than they are asked for, to be interrupted, and to fail.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cowfs/bdev.h"
#include "support/test.h"
#include "util/util.h"

/* Awkward: at most this many bytes a call, and every second one is
 * interrupted; 0: as usual. */
static size_t awkward;
static unsigned calls;
static int flush_error; /* of the next fdatasync */
static atomic_bool slow_flush; /* it takes long to fail */
static int dsync_error; /* of the next durable write */
static bool no_dsync;   /* nobody knows what that is */
static unsigned flushes;

static bool interrupted(void)
{
	errno = EINTR;
	return awkward && calls++ % 2;
}

static ssize_t awkward_pread(int fd, void *buf, size_t len, off_t off)
{
	if (interrupted())
		return -1;
	return pread(fd, buf, awkward ? min_u64(len, awkward) : len, off);
}

static ssize_t awkward_pwritev2(int fd, const struct iovec *iov, int n,
				off_t off, int flags)
{
	if (interrupted())
		return -1;
	if (flags & RWF_DSYNC && dsync_error) {
		errno = dsync_error;
		dsync_error = 0;
		return -1;
	}
	if (flags & RWF_DSYNC && no_dsync) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (awkward)
		return pwritev2(fd, &(struct iovec){ .iov_base = iov->iov_base,
						     .iov_len = min_u64(iov->iov_len,
									awkward) },
				1, off, flags);
	return pwritev2(fd, iov, n, off, flags);
}

static int awkward_fdatasync(int fd)
{
	int err = flush_error;

	if (interrupted())
		return -1;
	flushes++;
	if (!err)
		return fdatasync(fd);
	flush_error = 0;
	if (atomic_exchange(&slow_flush, false))
		nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	errno = err;
	return -1;
}

static uint64_t begun; /* bytes that were sent on their way */

static int counted_sync_file_range(int fd, off_t off, off_t len,
				   unsigned flags)
{
	begun += (uint64_t)len;
	return sync_file_range(fd, off, len, flags);
}

#define sync_file_range counted_sync_file_range
#define pread awkward_pread
#define pwritev2 awkward_pwritev2
#define fdatasync awkward_fdatasync
#include "block/file.c"
#undef sync_file_range
#undef pread
#undef pwritev2
#undef fdatasync

#define BS COWFS_BLOCK_SIZE

static struct rng rng;

static void setup(void)
{
	rng_init(&rng, test_seed(), 21);
}

/* ---- memory device ---- */

START_TEST(a_memory_device_is_as_large_as_it_says)
{
	uint64_t size = COWFS_MAX_BLOCKS * BS; /* costs what is written */
	uint8_t in[BS], out[BS];
	struct bdev *mem;

	ck_ok(bdev_open_mem(size, &mem));
	ck_assert_uint_eq(mem->size, size);
	rng_fill(&rng, in, sizeof(in));
	ck_ok(bdev_write(mem, size - BS, in, BS));
	ck_ok(bdev_read(mem, size - BS, out, BS));
	ck_assert_mem_eq(in, out, BS);
	ck_err(bdev_read(mem, size - BS + 512, out, BS), -EIO);
	ck_err(bdev_write(mem, size - BS + 512, out, BS), -EIO);
	ck_err(bdev_read(mem, size, out, BS), -EIO);
	ck_err(bdev_read(mem, UINT64_MAX - 511, out, BS), -EIO);
	ck_ok(bdev_read(mem, 123 * BS, out, BS));
	memset(in, 0, sizeof(in));
	ck_assert_mem_eq(in, out, BS);
	ck_ok(bdev_flush(mem));
	mem->readonly = true;
	ck_err(bdev_write(mem, 0, in, BS), -EROFS);
	bdev_close(mem);
}
END_TEST

START_TEST(a_memory_device_holds_what_an_array_holds)
{
	enum { SECTORS = 2000 };
	static uint8_t want[SECTORS * 512], got[SECTORS * 512];
	unsigned i, rounds = test_rounds(2000);
	uint64_t at, n;
	struct bdev *mem;

	ck_ok(bdev_open_mem(sizeof(want), &mem));
	for (i = 0; i < rounds; i++) {
		at = rng_below(&rng, SECTORS) * 512;
		n = min_u64(rng_below(&rng, 200) * 512, sizeof(want) - at);
		if (rng_one_in(&rng, 4)) {
			memset(want + at, 0, n);
			bdev_discard(mem, at, n);
		} else {
			struct iovec iov[2];
			size_t half = n / 1024 * 512;

			rng_fill(&rng, want + at, n);
			iov[0].iov_base = want + at;
			iov[0].iov_len = half;
			iov[1].iov_base = want + at + half;
			iov[1].iov_len = n - half;
			ck_ok(bdev_writev(mem, at, iov, 2));
		}
		at = rng_below(&rng, SECTORS) * 512;
		n = min_u64(rng_below(&rng, 100) * 512, sizeof(want) - at);
		ck_ok(bdev_read(mem, at, got, n));
		ck_assert(!memcmp(got, want + at, n));
	}
	ck_ok(bdev_read(mem, 0, got, sizeof(got)));
	ck_assert_mem_eq(got, want, sizeof(got));
	bdev_close(mem);
}
END_TEST

/* ---- file device ---- */

static char dir[64], path[96];

static void file_setup(void)
{
	const char *tmp = getenv("TMPDIR");

	setup();
	snprintf(dir, sizeof(dir), "%.40s/cowfs-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/image", dir);
}

static void file_teardown(void)
{
	unlink(path);
	rmdir(dir);
}

static struct bdev *create(uint64_t size)
{
	struct bdev *dev;

	ck_ok(bdev_open_file(path, BDEV_CREATE, 0, &dev));
	ck_ok(bdev_file_resize(dev, size));
	ck_assert_uint_eq(dev->size, size);
	return dev;
}

START_TEST(a_file_keeps_what_was_written)
{
	struct bdev *dev = create(1 << 20);
	static uint8_t in[1 << 16], out[1 << 16];

	ck_assert_str_eq(dev->name, path);
	rng_fill(&rng, in, sizeof(in));
	ck_ok(bdev_write(dev, 512, in, sizeof(in)));
	ck_ok(bdev_flush(dev));
	bdev_close(dev);
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &dev));
	ck_assert_uint_eq(dev->size, 1 << 20);
	ck_assert(dev->readonly);
	ck_ok(bdev_read(dev, 512, out, sizeof(out)));
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_ok(bdev_flush(dev));
	ck_err(bdev_write(dev, 0, in, 512), -EROFS);
	ck_err(bdev_file_resize(dev, 0), -EROFS);
	bdev_close(dev);
}
END_TEST

START_TEST(a_file_has_an_end)
{
	struct bdev *dev = create(1 << 16);
	uint8_t buf[1024] = { 0 };
	struct stat st;

	ck_err(bdev_read(dev, (1 << 16) - 512, buf, 1024), -EIO);
	ck_err(bdev_read(dev, UINT64_MAX - 511, buf, 1024), -EIO);
	ck_err(bdev_read(dev, 1024, buf, SIZE_MAX - 511), -EIO);
	ck_err(bdev_write(dev, (1 << 16) - 512, buf, 1024), -EIO);
	ck_ok(bdev_read(dev, (1 << 16) - 1024, buf, 1024));
	ck_assert(!stat(path, &st));
	ck_assert_int_eq(st.st_size, 1 << 16);
	/* made shorter behind our back */
	ck_assert(!truncate(path, 4096));
	ck_err(bdev_read(dev, 8192, buf, 1024), -EIO);
	bdev_close(dev);
}
END_TEST

START_TEST(a_file_takes_more_buffers_than_the_kernel_does)
{
	enum { PIECES = 3000 };
	static uint8_t in[PIECES * 512], out[PIECES * 512];
	static struct iovec iov[PIECES + 2];
	struct bdev *dev = create(2 * sizeof(in));
	unsigned i;

	rng_fill(&rng, in, sizeof(in));
	for (i = 0; i < PIECES; i++) {
		iov[i + 1].iov_base = in + i * 512;
		iov[i + 1].iov_len = 512;
	}
	iov[0] = iov[PIECES + 1] = (struct iovec){ .iov_base = in };
	ck_ok(bdev_writev(dev, 1024, iov, PIECES + 2));
	ck_ok(bdev_read(dev, 1024, out, sizeof(out)));
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_ok(bdev_writev(dev, 0, iov, 0));
	bdev_close(dev);
}
END_TEST

START_TEST(short_and_interrupted_calls_are_carried_on)
{
	static uint8_t in[20000 / 512 * 512], out[sizeof(in)];
	struct bdev *dev = create(65536);
	struct iovec iov[3] = {
		{ .iov_base = in, .iov_len = 1000 },
		{ .iov_base = in + 1000, .iov_len = 24 },
		{ .iov_base = in + 1024, .iov_len = sizeof(in) - 1024 },
	};

	rng_fill(&rng, in, sizeof(in));
	awkward = 999;
	ck_ok(bdev_writev(dev, 512, iov, 3));
	ck_ok(bdev_flush(dev));
	ck_ok(bdev_read(dev, 512, out, sizeof(out)));
	ck_assert_uint_gt(calls, 60);
	awkward = 0;
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_ok(bdev_read(dev, 512, out, sizeof(out)));
	ck_assert_mem_eq(in, out, sizeof(in));
	bdev_close(dev);
}
END_TEST

START_TEST(after_a_failed_flush_none_succeeds)
{
	struct bdev *dev = create(4096);

	ck_ok(bdev_flush(dev));
	flush_error = ENOSPC;
	ck_err(bdev_flush(dev), -ENOSPC);
	/* the kernel would say yes now, to data that are lost */
	ck_err(bdev_flush(dev), -EIO);
	ck_err(bdev_flush(dev), -EIO);
	bdev_close(dev);
}
END_TEST

static void *flush_slowly(void *dev)
{
	ck_err(bdev_flush(dev), -EIO);
	return NULL;
}

/* The kernel tells one of them: what it says to the other means nothing. */
START_TEST(of_two_flushes_at_once_both_fail)
{
	struct bdev *dev = create(1 << 20);
	uint8_t in[BS] = { 0 };
	pthread_t thread;

	flush_error = EIO;
	atomic_store(&slow_flush, true);
	ck_ok(pthread_create(&thread, NULL, flush_slowly, dev));
	while (atomic_load(&slow_flush))
		sched_yield();
	ck_err(_i ? bdev_write_durable(dev, 0, in, sizeof(in)) :
		    bdev_flush(dev), -EIO);
	ck_ok(pthread_join(thread, NULL));
	bdev_close(dev);
}
END_TEST

START_TEST(a_long_write_is_begun_at_once_and_a_short_one_is_not)
{
	static uint8_t buf[256 << 10];
	struct bdev *dev = create(1 << 20);

	begun = 0;
	ck_ok(bdev_write(dev, 0, buf, sizeof(buf) / 4));
	ck_assert_uint_eq(begun, 0);
	ck_ok(bdev_write(dev, sizeof(buf), buf, sizeof(buf)));
	ck_assert_uint_eq(begun, sizeof(buf));
	awkward = 100000; /* in pieces: all of it */
	ck_ok(bdev_write(dev, 0, buf, sizeof(buf)));
	awkward = 0;
	ck_assert_uint_eq(begun, 2 * sizeof(buf));
	bdev_close(dev);
}
END_TEST

START_TEST(a_durable_write_fails_like_a_flush)
{
	struct bdev *dev = create(1 << 20);
	uint8_t in[2 * BS], out[sizeof(in)];

	rng_fill(&rng, in, sizeof(in));
	awkward = 1000;
	ck_ok(bdev_write_durable(dev, BS, in, sizeof(in)));
	ck_ok(bdev_read(dev, BS, out, sizeof(out)));
	awkward = 0;
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_err(bdev_write_durable(dev, (1 << 20) - BS, in, sizeof(in)), -EIO);
	bdev_close(dev);
	dev = create(1 << 20);
	dsync_error = EIO;
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EIO);
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EIO);
	ck_err(bdev_flush(dev), -EIO); /* what was lost stays lost */
	bdev_close(dev);
	dev = create(1 << 20);
	flush_error = EIO;
	ck_err(bdev_flush(dev), -EIO);
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EIO);
	bdev_close(dev);
}
END_TEST

START_TEST(a_device_made_read_only_in_use_says_so)
{
	struct bdev *dev = create(1 << 20);
	uint8_t in[BS] = { 0 };

	dsync_error = EPERM;
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EROFS);
	ck_err(bdev_flush(dev), -EIO);
	bdev_close(dev);
}
END_TEST

START_TEST(where_durable_writes_are_unknown_there_are_flushes)
{
	struct bdev *dev = create(1 << 20);
	uint8_t in[2 * BS], out[sizeof(in)];
	unsigned before;

	no_dsync = true;
	rng_fill(&rng, in, sizeof(in));
	before = flushes;
	for (unsigned i = 1; i <= 2; i++) {
		ck_ok(bdev_write_durable(dev, i * BS, in, sizeof(in)));
		ck_assert_uint_eq(flushes, before + i);
		ck_ok(bdev_read(dev, i * BS, out, sizeof(out)));
		ck_assert_mem_eq(in, out, sizeof(in));
	}
	flush_error = EIO;
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EIO);
	ck_err(bdev_write_durable(dev, 0, in, sizeof(in)), -EIO);
	no_dsync = false;
	bdev_close(dev);
}
END_TEST

static uint64_t allocated(void)
{
	struct stat st;

	ck_assert(!stat(path, &st));
	return (uint64_t)st.st_blocks * 512;
}

START_TEST(preparing_fills_holes_and_nothing_else)
{
	struct bdev *dev = create(4 << 20);
	uint8_t in[BS], out[BS], zero[BS] = { 0 };
	uint64_t before;

	rng_fill(&rng, in, BS);
	ck_ok(bdev_write(dev, 100 * BS, in, BS));
	ck_ok(bdev_write(dev, 255 * BS, in, BS));
	ck_ok(bdev_flush(dev));
	before = allocated();
	ck_ok(bdev_prepare(dev, 10 * BS, 300 * BS));
	ck_ok(bdev_flush(dev));
	ck_assert_uint_ge(allocated() - before, 298 * BS);
	ck_assert_uint_lt(allocated() - before, 400 * BS);
	ck_ok(bdev_read(dev, 100 * BS, out, BS));
	ck_assert_mem_eq(in, out, BS);
	ck_ok(bdev_read(dev, 255 * BS, out, BS));
	ck_assert_mem_eq(in, out, BS);
	ck_ok(bdev_read(dev, 101 * BS, out, BS));
	ck_assert_mem_eq(zero, out, BS);
	before = allocated();
	ck_ok(bdev_prepare(dev, 10 * BS, 300 * BS)); /* again: there is nothing to do */
	ck_ok(bdev_prepare(dev, 1023 * BS, 2 * BS)); /* not all inside */
	ck_ok(bdev_flush(dev));
	ck_assert_uint_eq(allocated(), before);
	bdev_close(dev);
}
END_TEST

/* Out of the host's cache, if it lets go of it. */
static void uncache(struct bdev *dev, uint64_t off, uint64_t len)
{
	ck_ok(bdev_flush(dev));
	ck_assert(!posix_fadvise(to_file(dev)->fd, (off_t)off, (off_t)len,
				 POSIX_FADV_DONTNEED));
}

static void wait_for_quiet(void)
{
	const struct timespec t = { .tv_nsec = 110000000 };

	nanosleep(&t, NULL);
}

START_TEST(a_long_read_goes_past_the_cache_if_nothing_is_there)
{
	static uint8_t in[1 << 20];
	static uint8_t out[1 << 20] __attribute__((aligned(1 << 16)));
	struct bdev *dev = create(4 << 20);
	int err;

	rng_fill(&rng, in, sizeof(in));
	ck_ok(bdev_write(dev, 1 << 20, in, sizeof(in)));
	uncache(dev, 0, 4 << 20);
	/* writers are not to wait */
	ck_err(bdev_read_past(dev, 0, 1 << 20, out, sizeof(out)), -EOPNOTSUPP);
	wait_for_quiet();
	err = bdev_read_past(dev, 0, 1 << 20, out, sizeof(out));
	if (err == -EAGAIN || err == -EOPNOTSUPP) {
		fprintf(stderr, "skipped: no reads past the cache in %s\n", dir);
		bdev_close(dev);
		return;
	}
	ck_ok(err);
	ck_assert_mem_eq(in, out, sizeof(in));
	/* it brought nothing there */
	ck_ok(bdev_read_past(dev, 0, 1 << 20, out, sizeof(out)));
	/* and what is there is taken from there */
	ck_ok(bdev_read(dev, 1 << 20, out, sizeof(out)));
	ck_err(bdev_read_past(dev, 0, 1 << 20, out, sizeof(out)), -EAGAIN);
	bdev_close(dev);
}
END_TEST

START_TEST(who_will_not_wait_reads_what_is_in_the_cache)
{
	static uint8_t in[1 << 20], out[1 << 20];
	struct bdev *dev = create(4 << 20);
	int err;

	rng_fill(&rng, in, sizeof(in));
	ck_ok(bdev_write(dev, 1 << 20, in, sizeof(in)));
	err = bdev_read_now(dev, 0, 1 << 20, out, sizeof(out));
	if (err == -EOPNOTSUPP) {
		fprintf(stderr, "skipped: no reads without waiting in %s\n",
			dir);
		bdev_close(dev);
		return;
	}
	ck_ok(err);
	ck_assert_mem_eq(in, out, sizeof(in));
	ck_err(bdev_read_now(dev, 0, 4 << 20, out, BS), -EIO);
	uncache(dev, 0, 4 << 20);
	/* what the device brings meanwhile is right as well */
	memset(out, 0, sizeof(out));
	err = bdev_read_now(dev, 0, 1 << 20, out, sizeof(out));
	ck_assert(!err || err == -EAGAIN);
	ck_assert(err || !memcmp(in, out, sizeof(in)));
	bdev_close(dev);
}
END_TEST

START_TEST(what_is_cached_of_the_files_of_others_nobody_tells)
{
	static uint8_t out[1 << 20] __attribute__((aligned(1 << 16)));
	struct bdev *dev = create(4 << 20);
	int err;

	bdev_close(dev);
	if (geteuid()) {
		puts("skipped: only root can become somebody else");
		return;
	}
	ck_assert(!chmod(dir, 0755) && !chmod(path, 0644));
	ck_assert(!seteuid(65534));
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &dev));
	ck_err(bdev_read_past(dev, 0, 0, out, sizeof(out)), -EOPNOTSUPP);
	bdev_close(dev);
	ck_assert(!seteuid(0));
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &dev));
	err = bdev_read_past(dev, 0, 0, out, sizeof(out));
	if (err == -EOPNOTSUPP)
		fprintf(stderr, "skipped: no reads past the cache in %s\n",
			dir);
	else
		ck_assert(!err || err == -EAGAIN);
	bdev_close(dev);
}
END_TEST

START_TEST(a_read_past_the_cache_has_its_limits)
{
	static uint8_t out[4 << 20] __attribute__((aligned(1 << 16)));
	struct bdev *dev = create(8 << 20);

	uncache(dev, 0, 8 << 20);
	wait_for_quiet();
	ck_err(bdev_read_past(dev, 0, 0, out + 512, 1 << 20), -EOPNOTSUPP);
	ck_err(bdev_read_past(dev, 0, 512, out, 1 << 20), -EOPNOTSUPP);
	ck_err(bdev_read_past(dev, 0, 0, out, (1 << 20) - 512), -EOPNOTSUPP);
	ck_err(bdev_read_past(dev, 0, 0, out, sizeof(out)), -EOPNOTSUPP);
	ck_err(bdev_read_past(dev, 0, 8 << 20, out, 1 << 20), -EIO);
	bdev_close(dev);
}
END_TEST

START_TEST(a_new_image_is_private_and_sparse)
{
	struct bdev *dev = create(UINT64_C(1) << 34);
	struct stat st;

	ck_assert(!stat(path, &st));
	ck_assert_uint_eq(st.st_mode & 077, 0);
	ck_assert_int_lt(st.st_blocks, 1000);
	ck_err(bdev_file_resize(dev, UINT64_MAX), -EFBIG);
	ck_assert_uint_eq(dev->size, UINT64_C(1) << 34);
	ck_ok(bdev_file_resize(dev, 4096));
	ck_assert(!stat(path, &st));
	ck_assert_int_eq(st.st_size, 4096);
	bdev_close(dev);
}
END_TEST

START_TEST(only_a_file_can_be_resized)
{
	struct bdev *mem;

	ck_ok(bdev_open_mem(8192, &mem));
	ck_err(bdev_file_resize(mem, 4096), -ENOTSUP);
	ck_assert_uint_eq(mem->size, 8192);
	bdev_close(mem);
}
END_TEST

START_TEST(a_discarded_range_gives_its_space_back)
{
	static uint8_t in[1 << 20], out[1 << 20];
	struct bdev *dev = create(sizeof(in));
	struct stat before, after;
	bool works;

	memset(in, 1, sizeof(in));
	ck_ok(bdev_write(dev, 0, in, sizeof(in)));
	ck_ok(bdev_flush(dev));
	ck_assert(!stat(path, &before));
	works = dev->ops->discard(dev, 4096, sizeof(in) - 8192) == 0;
	ck_assert(!stat(path, &after));
	ck_assert_int_eq(after.st_size, before.st_size);
	ck_ok(bdev_read(dev, 0, out, sizeof(out)));
	ck_assert(!memcmp(out, in, 4096));
	if (works) {
		ck_assert_int_lt(after.st_blocks, before.st_blocks);
		ck_assert_uint_eq(out[4096], 0);
	} else {
		puts("skipped: no holes in files here");
	}
	ck_err(dev->ops->discard(dev, 4096, sizeof(in)), -EINVAL);
	bdev_close(dev);
}
END_TEST

START_TEST(a_second_writer_is_refused)
{
	struct bdev *dev = create(4096), *again = NULL;

	ck_err(bdev_open_file(path, 0, 0, &again), -EBUSY);
	ck_err(bdev_open_file(path, BDEV_READONLY, 0, &again), -EBUSY);
	ck_assert_ptr_null(again);
	ck_ok(bdev_open_file(path, BDEV_READONLY | BDEV_NOLOCK, 0, &again));
	bdev_close(again);
	/* that close has not let go of the lock */
	ck_err(bdev_open_file(path, 0, 0, &again), -EBUSY);
	bdev_close(dev);
	ck_ok(bdev_open_file(path, 0, 0, &again));
	bdev_close(again);
}
END_TEST

START_TEST(readers_share_and_keep_writers_out)
{
	struct bdev *a, *b, *c;

	bdev_close(create(4096));
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &a));
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &b));
	ck_err(bdev_open_file(path, 0, 0, &c), -EBUSY);
	bdev_close(a);
	ck_err(bdev_open_file(path, 0, 0, &c), -EBUSY);
	bdev_close(b);
	ck_ok(bdev_open_file(path, 0, 0, &c));
	bdev_close(c);
}
END_TEST

START_TEST(another_process_is_refused_until_this_one_closes)
{
	struct bdev *dev = create(4096), *again;
	int status, go[2];
	char c = 0;
	pid_t pid;

	ck_assert(!pipe(go));
	pid = fork();
	if (pid == 0) {
		/* inherited; must not let go of the lock for the parent */
		bdev_close(dev);
		if (bdev_open_file(path, 0, 0, &again) != -EBUSY)
			_exit(1);
		if (write(go[1], &c, 1) != 1)
			_exit(2);
		if (bdev_open_file(path, 0, 20000, &again))
			_exit(3);
		_exit(0);
	}
	ck_assert_int_eq(read(go[0], &c, 1), 1);
	close(go[0]);
	close(go[1]);
	bdev_close(dev);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

static void *close_soon(void *arg)
{
	struct timespec nap = { .tv_nsec = 60000000 };

	nanosleep(&nap, NULL);
	bdev_close(arg);
	return NULL;
}

START_TEST(an_open_waits_for_the_holder_as_long_as_asked)
{
	struct bdev *dev = create(4096), *again;
	uint64_t begin = now_ns();
	pthread_t th;

	ck_err(bdev_open_file(path, 0, 50, &again), -EBUSY);
	ck_assert_uint_ge(now_ns() - begin, 50000000);
	ck_assert(!pthread_create(&th, NULL, close_soon, dev));
	ck_ok(bdev_open_file(path, 0, 30000, &again));
	pthread_join(th, NULL);
	bdev_close(again);
}
END_TEST

START_TEST(what_is_no_image_is_refused)
{
	struct bdev *dev = NULL;
	char fifo[96];

	ck_err(bdev_open_file(path, 0, 0, &dev), -ENOENT);
	ck_err(bdev_open_file(path, BDEV_READONLY, 0, &dev), -ENOENT);
	ck_err(bdev_open_file(dir, 0, 0, &dev), -EINVAL);
	ck_err(bdev_open_file("/dev/null", 0, 0, &dev), -EINVAL);
	snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
	ck_assert(!mkfifo(fifo, 0600));
	/* would hang if it were opened */
	ck_err(bdev_open_file(fifo, BDEV_READONLY, 0, &dev), -EINVAL);
	unlink(fifo);
	ck_assert_ptr_null(dev);
}
END_TEST

START_TEST(a_file_without_write_permission_is_read_only)
{
	struct bdev *dev = create(4096);

	bdev_close(dev);
	ck_assert(!chmod(path, 0400));
	if (geteuid() == 0) {
		puts("skipped: root may write anything");
		return;
	}
	ck_err(bdev_open_file(path, 0, 0, &dev), -EACCES);
	ck_ok(bdev_open_file(path, BDEV_READONLY, 0, &dev));
	bdev_close(dev);
}
END_TEST

START_TEST(an_image_is_not_inherited_by_programs)
{
	struct bdev *dev = create(4096);
	struct stat want, st;
	int fd, left = 0;

	ck_assert(!stat(path, &want));
	for (fd = 3; fd < 256; fd++) {
		if (fstat(fd, &st) || st.st_ino != want.st_ino ||
		    st.st_dev != want.st_dev)
			continue;
		left++;
		ck_assert_int_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	}
	ck_assert_int_eq(left, 1);
	bdev_close(dev);
	bdev_close(NULL);
}
END_TEST

static void add_file_tests(TCase *tc)
{
	tcase_add_test(tc, a_file_keeps_what_was_written);
	tcase_add_test(tc, a_file_has_an_end);
	tcase_add_test(tc, a_file_takes_more_buffers_than_the_kernel_does);
	tcase_add_test(tc, short_and_interrupted_calls_are_carried_on);
	tcase_add_test(tc, after_a_failed_flush_none_succeeds);
	tcase_add_loop_test(tc, of_two_flushes_at_once_both_fail, 0, 2);
	tcase_add_test(tc,
		       a_long_write_is_begun_at_once_and_a_short_one_is_not);
	tcase_add_test(tc, a_durable_write_fails_like_a_flush);
	tcase_add_test(tc, a_device_made_read_only_in_use_says_so);
	tcase_add_test(tc,
		       where_durable_writes_are_unknown_there_are_flushes);
	tcase_add_test(tc, preparing_fills_holes_and_nothing_else);
	tcase_add_test(tc, a_new_image_is_private_and_sparse);
	tcase_add_test(tc, only_a_file_can_be_resized);
	tcase_add_test(tc, a_discarded_range_gives_its_space_back);
	tcase_add_test(tc, a_second_writer_is_refused);
	tcase_add_test(tc, readers_share_and_keep_writers_out);
	tcase_add_test(tc, another_process_is_refused_until_this_one_closes);
	tcase_add_test(tc, an_open_waits_for_the_holder_as_long_as_asked);
	tcase_add_test(tc, what_is_no_image_is_refused);
	tcase_add_test(tc, who_will_not_wait_reads_what_is_in_the_cache);
	tcase_add_test(tc,
		       a_long_read_goes_past_the_cache_if_nothing_is_there);
	tcase_add_test(tc, a_read_past_the_cache_has_its_limits);
	tcase_add_test(tc,
		       what_is_cached_of_the_files_of_others_nobody_tells);
	tcase_add_test(tc, a_file_without_write_permission_is_read_only);
	tcase_add_test(tc, an_image_is_not_inherited_by_programs);
}

static Suite *device_suite(void)
{
	Suite *s = suite_create("device");
	TCase *tc;

	tc = tcase_create("memory");
	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, a_memory_device_is_as_large_as_it_says);
	tcase_add_test(tc, a_memory_device_holds_what_an_array_holds);
	suite_add_tcase(s, tc);

	tc = tcase_create("file");
	tcase_add_checked_fixture(tc, file_setup, file_teardown);
	tcase_set_timeout(tc, 60);
	add_file_tests(tc);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return test_main(device_suite());
}
