/*
 * test_fetch.c - what was fetched is what the file holds, whoever writes
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "block/fetch.h"
#include "support/test.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define SIZE (32 * MIB) /* twice what is held */
#define PAGE (4 * KIB)
#define WAIT_MS 10000u

static char dir[64], path[80];
static int fd;
static struct past past;
static struct fetch *f;
static struct rng rng;
static uint8_t contents[SIZE], buf[2 * MIB] __attribute__((aligned(PAGE)));

static void open_it(void)
{
	past_init(&past, fd);
	ck_assert_int_eq(fetch_open(&past, fd, SIZE, &f), 0);
}

static void close_it(void)
{
	fetch_close(f);
	past_fini(&past);
}

/* Nothing of it in the host's cache: what is there is not fetched. */
static void uncache(void)
{
	ck_assert(!fdatasync(fd));
	ck_assert(!posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
}

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, sizeof(dir), "%.40s/cowfs-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/file", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	rng_init(&rng, test_seed(), 41);
	rng_fill(&rng, contents, sizeof(contents));
	ck_assert_int_eq(pwrite(fd, contents, SIZE, 0), SIZE);
	uncache();
	open_it();
}

static void teardown(void)
{
	close_it();
	close(fd);
	unlink(path);
	rmdir(dir);
}

static void write_at(uint64_t off, size_t len)
{
	rng_fill(&rng, contents + off, len);
	ck_assert_int_eq(pwrite(fd, contents + off, len, (off_t)off),
			 (ssize_t)len);
	fetch_written(f, off, len);
}

/* Ask and take until it is there. False: this place has no such reads. */
static bool take_soon(uint64_t off, size_t len)
{
	const struct timespec step = { .tv_nsec = 1000000 };
	unsigned ms;
	int err;

	for (ms = 0; ms < WAIT_MS; ms++) {
		ck_assert(fetch_ask(f, off, len) || !past_likely(&past));
		if (!past_likely(&past))
			break;
		nanosleep(&step, NULL); /* a take would end the asking */
		memset(buf, 0xa5, len);
		err = fetch_take(f, off, buf, len, true);
		ck_assert(!err || err == -ENOENT);
		if (!err) {
			ck_assert_mem_eq(buf, contents + off, len);
			return true;
		}
	}
	fprintf(stderr, "skipped: nothing can be fetched in %s\n", dir);
	return false;
}

START_TEST(what_was_asked_for_can_be_taken_once)
{
	ck_assert_int_eq(fetch_take(f, 0, buf, PAGE, true), -ENOENT);
	if (!take_soon(3 * MIB + PAGE, MIB))
		return;
	/* it has been taken, but for the ends of the first and last cluster */
	ck_assert_int_eq(fetch_take(f, 3 * MIB + 256 * KIB, buf, PAGE, true),
			 -ENOENT);
	ck_assert_int_eq(fetch_take(f, 3 * MIB, buf, PAGE, true), 0);
	ck_assert_mem_eq(buf, contents + 3 * MIB, PAGE);
	ck_assert_int_eq(fetch_take(f, 3 * MIB, buf, PAGE, true), -ENOENT);
}
END_TEST

START_TEST(what_is_written_is_not_taken_from_before)
{
	if (!take_soon(MIB, PAGE))
		return;
	write_at(MIB + 64 * KIB, PAGE);
	ck_assert_int_eq(fetch_take(f, MIB, buf, PAGE, true), -ENOENT);
	/* what lies beside it is not touched by that */
	uncache();
	if (!take_soon(2 * MIB, PAGE))
		return;
	write_at(2 * MIB - PAGE, PAGE);
	ck_assert_int_eq(fetch_take(f, 2 * MIB + PAGE, buf, PAGE, true), 0);
	ck_assert_mem_eq(buf, contents + 2 * MIB + PAGE, PAGE);
}
END_TEST

START_TEST(ranges_of_any_kind_are_answered)
{
	ck_assert_int_eq(fetch_take(f, 0, buf, 0, true), -ENOENT);
	ck_assert(fetch_ask(f, 0, 0) || !past_likely(&past));
	ck_assert(fetch_ask(f, SIZE, MIB) || !past_likely(&past));
	/* more than is held, and more than is taken at once */
	ck_assert(fetch_ask(f, 0, SIZE) || !past_likely(&past));
	ck_assert_int_eq(fetch_take(f, 0, contents, SIZE, true), -ENOENT);
	ck_assert_int_eq(fetch_take(f, SIZE - PAGE, buf, PAGE, true), -ENOENT);
}
END_TEST

static size_t cached_pages(uint64_t off, size_t len)
{
	size_t n = len / PAGE, found = 0;
	unsigned char in[MIB / PAGE];
	void *at = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)off);

	ck_assert_ptr_ne(at, MAP_FAILED);
	ck_assert_uint_le(n, sizeof(in));
	ck_assert(!mincore(at, len, in));
	ck_assert(!munmap(at, len));
	for (size_t i = 0; i < n; i++)
		found += in[i] & 1;
	return found;
}

/* Every other page of one MiB; how many are there then. */
static size_t cache_half(uint64_t off)
{
	ck_assert(!posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM));
	for (uint64_t end = off + MIB, at = off; at < end; at += 2 * PAGE)
		ck_assert_int_eq(pread(fd, buf, PAGE, (off_t)at), PAGE);
	ck_assert(!posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL));
	return cached_pages(off, MIB);
}

/* The host may take its time, and bring less than it was asked for. */
START_TEST(what_is_in_part_in_the_hosts_cache_is_asked_of_it)
{
	const struct timespec step = { .tv_nsec = 10000000 };
	size_t before, now;
	unsigned i;

	before = now = cache_half(MIB);
	if (before == MIB / PAGE || !past_likely(&past)) {
		fprintf(stderr, "skipped: all is cached in %s\n", dir);
		return;
	}
	for (i = 0; i < WAIT_MS / 10 && now <= before; i++) {
		if (now < before) /* somebody emptied the cache */
			before = cache_half(MIB);
		(void)fetch_ask(f, MIB, MIB);
		nanosleep(&step, NULL);
		now = cached_pages(MIB, MIB);
	}
	ck_assert_uint_gt(now, before);
}
END_TEST

START_TEST(of_a_file_that_cannot_be_mapped_nothing_is_fetched)
{
	struct iovec iov = { buf, PAGE };
	struct past p;
	int proc = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	ck_assert_int_ge(proc, 0);
	past_init(&p, proc);
	if (past_likely(&p)) {
		ck_assert_int_eq(past_readv(&p, proc, 0, &iov, 1), -EAGAIN);
		ck_assert(!past_likely(&p));
	}
	past_fini(&p);
	close(proc);
}
END_TEST

START_TEST(it_can_be_closed_at_any_moment)
{
	unsigned i;

	for (i = 0; i < test_rounds(50); i++) {
		const struct timespec t = { .tv_nsec = (long)rng_below(&rng,
							      2000000) };

		uncache();
		(void)fetch_ask(f, rng_below(&rng, SIZE), 8 * MIB);
		nanosleep(&t, NULL);
		close_it();
		open_it();
	}
}
END_TEST

/* ---- writers and readers at once ---- */

#define PAGES (4 * MIB / PAGE)
#define READERS 3u

/* Each page is full of the number of its last write; known[]: the last one that
 * has ended. One writer. */
static struct {
	_Atomic uint32_t known[PAGES];
	atomic_bool done;
	_Atomic uint64_t taken;
} race;

static void fill(uint32_t *page, uint32_t number)
{
	for (size_t i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = number;
}

/* The oldest number in it. */
static uint32_t oldest(const uint32_t *page)
{
	uint32_t min = page[0];

	for (size_t i = 1; i < PAGE / sizeof(*page); i++)
		if (page[i] < min)
			min = page[i];
	return min;
}

static void *race_reader(void *arg)
{
	size_t max = MIB / PAGE, n, i;
	uint32_t *in = aligned_alloc(PAGE, MIB);
	uint32_t *before = calloc(max, sizeof(*before));
	uint64_t first;
	struct rng r;

	rng_init(&r, test_seed(), 50 + (uint64_t)(uintptr_t)arg);
	while (in && before && !atomic_load(&race.done)) {
		n = rng_range(&r, 1, rng_one_in(&r, 2) ? 8 : max);
		first = rng_below(&r, PAGES - n + 1);
		(void)fetch_ask(f, first * PAGE, n * PAGE);
		for (i = 0; i < n; i++)
			before[i] = atomic_load(&race.known[first + i]);
		if (fetch_take(f, first * PAGE, in, n * PAGE,
			       rng_one_in(&r, 2)))
			continue;
		atomic_fetch_add(&race.taken, 1);
		for (i = 0; i < n; i++)
			if (oldest(in + i * (PAGE / 4)) < before[i])
				abort(); /* older than what had been written */
	}
	free(in);
	free(before);
	return NULL;
}

static void race_write(uint64_t nr, uint32_t number)
{
	static uint32_t page[PAGE / 4];

	fill(page, number);
	ck_assert_int_eq(pwrite(fd, page, PAGE, (off_t)(nr * PAGE)), PAGE);
	fetch_written(f, nr * PAGE, PAGE);
	atomic_store(&race.known[nr], number);
}

START_TEST(readers_never_see_what_was_before_a_write)
{
	unsigned i, n = test_rounds(3000);
	pthread_t reader[READERS];

	for (i = 0; i < PAGES; i++)
		race_write(i, 1);
	for (i = 0; i < READERS; i++)
		ck_assert(!pthread_create(&reader[i], NULL, race_reader,
					  (void *)(uintptr_t)i));
	for (i = 2; i < n; i++) {
		race_write(rng_below(&rng, PAGES), i);
		if (i % 16 == 0)
			uncache();
	}
	atomic_store(&race.done, true);
	for (i = 0; i < READERS; i++)
		pthread_join(reader[i], NULL);
	if (!atomic_load(&race.taken))
		fprintf(stderr, "skipped: nothing was fetched in %s\n", dir);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, what_was_asked_for_can_be_taken_once);
	tcase_add_test(tc, what_is_written_is_not_taken_from_before);
	tcase_add_test(tc, ranges_of_any_kind_are_answered);
	tcase_add_test(tc, what_is_in_part_in_the_hosts_cache_is_asked_of_it);
	tcase_add_test(tc, of_a_file_that_cannot_be_mapped_nothing_is_fetched);
	tcase_add_test(tc, it_can_be_closed_at_any_moment);
	tcase_add_test(tc, readers_never_see_what_was_before_a_write);
}

static Suite *fetch_suite(void)
{
	Suite *s = suite_create("fetch");

	test_case(s, "fetch", 120, setup, teardown, add_tests);
	return s;
}

int main(void)
{
	return test_main(fetch_suite());
}
