/*
 * test_util.c - checksum, hash, lists, log, locks, clock, grace
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>

#include "cowfs/text.h"
#include "support/test.h"
#include "util/grace.h"
#include "util/list.h"
#include "util/util.h"

/* ---- checksum ---- */

START_TEST(checksum_of_the_standard_text_is_the_standard_value)
{
	ck_assert_uint_eq(checksum(0, "123456789", 9), 0xcbf43926);
	ck_assert_uint_eq(checksum(0, "", 0), 0);
	ck_assert_uint_eq(checksum(0x12345678, "", 0), 0x12345678);
}
END_TEST

START_TEST(checksum_equals_zlibs_for_any_length_alignment_and_start)
{
	static uint8_t buf[70000];
	unsigned i, rounds = test_rounds(3000);
	struct rng r;

	rng_init(&r, test_seed(), 1);
	rng_fill(&r, buf, sizeof(buf));
	for (i = 0; i < rounds; i++) {
		size_t max = i % 8 ? 600 : sizeof(buf) - 64;
		size_t off = rng_below(&r, 64), len = rng_below(&r, max + 1);
		uint32_t start = i % 3 ? (uint32_t)rng_next(&r) : 0;

		ck_assert_uint_eq(checksum(start, buf + off, len),
				  crc32_z(start, buf + off, len));
	}
}
END_TEST

START_TEST(checksum_of_parts_chains_to_that_of_the_whole)
{
	uint8_t buf[1000];
	struct rng r;
	size_t cut;

	rng_init(&r, test_seed(), 2);
	rng_fill(&r, buf, sizeof(buf));
	for (cut = 0; cut <= sizeof(buf); cut += 37)
		ck_assert_uint_eq(checksum(checksum(0, buf, cut), buf + cut,
					   sizeof(buf) - cut),
				  checksum(0, buf, sizeof(buf)));
}
END_TEST

START_TEST(checksum_blocks_gives_one_value_per_block)
{
	static uint8_t buf[5 * COWFS_BLOCK_SIZE];
	uint32_t csum[6] = { [5] = 0xabcd };
	struct rng r;
	unsigned i;

	rng_init(&r, test_seed(), 3);
	rng_fill(&r, buf, sizeof(buf));
	checksum_blocks(buf, 5, csum);
	for (i = 0; i < 5; i++)
		ck_assert_uint_eq(csum[i],
				  crc32_z(0, buf + i * COWFS_BLOCK_SIZE,
					  COWFS_BLOCK_SIZE));
	ck_assert_uint_eq(csum[5], 0xabcd);
}
END_TEST

/* ---- hash ---- */

/* vectors.h of the authors: key 00..0f, input 00, 01, ... of length i */
START_TEST(siphash_gives_the_vectors_of_its_authors)
{
	static const struct { size_t len; uint64_t hash; } vec[] = {
		{ 0, UINT64_C(0x726fdb47dd0e0e31) },
		{ 1, UINT64_C(0x74f839c593dc67fd) },
		{ 2, UINT64_C(0x0d6c8009d9a94f5a) },
		{ 7, UINT64_C(0xab0200f58b01d137) },
		{ 8, UINT64_C(0x93f5f5799a932462) },
		{ 15, UINT64_C(0xa129ca6149be45e5) },
		{ 63, UINT64_C(0x958a324ceb064572) },
	};
	uint8_t key[16], in[64];
	unsigned i;

	for (i = 0; i < sizeof(in); i++)
		in[i] = (uint8_t)i;
	memcpy(key, in, sizeof(key));
	for (i = 0; i < ARRAY_SIZE(vec); i++)
		ck_assert_msg(siphash(key, in, vec[i].len) == vec[i].hash,
			      "length %zu: %016" PRIx64, vec[i].len,
			      siphash(key, in, vec[i].len));
}
END_TEST

START_TEST(siphash_depends_on_the_key_and_not_on_alignment)
{
	uint8_t key[16] = { 0 }, other[16] = { [15] = 1 }, buf[100];
	uint64_t want;
	unsigned i;

	want = siphash(key, "some name", 9);
	ck_assert(siphash(other, "some name", 9) != want);
	for (i = 0; i < 16; i++) {
		memcpy(buf + i, "some name", 9);
		ck_assert(siphash(key, buf + i, 9) == want);
	}
}
END_TEST

START_TEST(hash_u64_spreads_neighbours_and_strides)
{
	static unsigned used[4096];
	unsigned shift, worst = 0;
	uint64_t i;

	for (shift = 0; shift <= 12; shift += 4) {
		memset(used, 0, sizeof(used));
		for (i = 0; i < 4096; i++) {
			uint64_t slot = hash_u64(i << shift) % 4096;

			if (++used[slot] > worst)
				worst = used[slot];
		}
	}
	/* of 4096 balls in as many boxes chance puts 6 or 7 into the fullest */
	ck_assert_uint_le(worst, 16);
}
END_TEST

/* ---- little helpers ---- */

START_TEST(blocks_of_rounds_up_without_wrapping)
{
	ck_assert_uint_eq(blocks_of(0), 0);
	ck_assert_uint_eq(blocks_of(1), 1);
	ck_assert_uint_eq(blocks_of(4096), 1);
	ck_assert_uint_eq(blocks_of(4097), 2);
	ck_assert_uint_eq(blocks_of(UINT64_MAX), UINT64_C(1) << 52);
	ck_assert_uint_eq(min_u64(1, UINT64_MAX), 1);
	ck_assert_uint_eq(max_u64(1, UINT64_MAX), UINT64_MAX);
}
END_TEST

struct item { int n; struct list link; };

static int list_digits(struct list *head)
{
	struct list *p;
	int n = 0;

	list_for_each(p, head)
		n = n * 10 + list_entry(p, struct item, link)->n;
	return n;
}

START_TEST(list_keeps_its_order_through_all_operations)
{
	struct item it[5];
	struct list a, b, *p, *tmp;
	int i;

	list_init(&a);
	list_init(&b);
	ck_assert(list_empty(&a));
	for (i = 0; i < 5; i++)
		it[i].n = i + 1;
	list_append(&a, &it[1].link);
	list_append(&a, &it[2].link);
	list_push(&a, &it[0].link);
	ck_assert_int_eq(list_digits(&a), 123);
	list_insert(&it[0].link, &it[4].link);
	ck_assert_int_eq(list_digits(&a), 1523);
	list_remove(&it[4].link);
	ck_assert(list_empty(&it[4].link));
	list_append(&b, &it[3].link);
	list_append(&b, &it[4].link);
	list_splice(&a, &b);
	ck_assert(list_empty(&b));
	list_splice(&a, &b); /* of nothing */
	ck_assert_int_eq(list_digits(&a), 12345);
	list_for_each_safe(p, tmp, &a)
		if (list_entry(p, struct item, link)->n % 2)
			list_remove(p);
	ck_assert_int_eq(list_digits(&a), 24);
}
END_TEST

/* ---- log ---- */

struct caught {
	unsigned count;
	enum log_level level;
	char line[2000];
};

static void catch(void *arg, enum log_level level, const char *line)
{
	struct caught *c = arg;

	c->count++;
	c->level = level;
	snprintf(c->line, sizeof(c->line), "%s", line);
}

START_TEST(log_goes_to_the_sink_up_to_the_level)
{
	struct caught c = { 0 };

	log_set_sink(catch, &c);
	log_msg(LOG_LVL_WARN, "block %d", 17);
	ck_assert_uint_eq(c.count, 1);
	ck_assert_str_eq(c.line, "block 17");
	ck_assert_int_eq(c.level, LOG_LVL_WARN);
	log_msg(LOG_LVL_DEBUG, "not shown by default");
	ck_assert_uint_eq(c.count, 1);
	log_set_level(LOG_LVL_DEBUG);
	log_msg(LOG_LVL_DEBUG, "shown");
	ck_assert_uint_eq(c.count, 2);
	log_set_level(LOG_LVL_ERROR);
	log_msg(LOG_LVL_WARN, "not shown");
	ck_assert_uint_eq(c.count, 2);
}
END_TEST

START_TEST(log_shows_long_lines_whole_and_lets_none_be_forged)
{
	struct caught c = { 0 };
	char text[1500];

	log_set_sink(catch, &c);
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	log_msg(LOG_LVL_ERROR, "%s!", text);
	ck_assert_uint_eq(strlen(c.line), sizeof(text));
	ck_assert_int_eq(c.line[sizeof(text) - 1], '!');
	log_msg(LOG_LVL_ERROR, "name '%s'", "a\nb\x1b[2J\x7f\xc3\xa4");
	ck_assert_str_eq(c.line, "name 'a?b?[2J?\xc3\xa4'");
	log_msg(LOG_LVL_ERROR, "name '%s'", "\xc2\x9b" "2J\xe4");
	ck_assert_str_eq(c.line, "name '??2J?'");
}
END_TEST

/* Each byte that cowfs_shown refuses as a dot. */
static void show(const char *s, char *out)
{
	size_t n, len = strlen(s);

	for (; len; s += n, len -= n) {
		n = cowfs_shown(s, len);
		memcpy(out, s, n);
		out += n;
		if (!n) {
			*out++ = '.';
			n = 1;
		}
	}
	*out = '\0';
}

START_TEST(shown_is_what_drives_no_terminal)
{
	static const char *const text[][2] = {
		{ "a b~", "a b~" },
		{ "\033[31m\n\177", ".[31m.." },
		{ "\303\244\342\202\254\360\237\220\204",
		  "\303\244\342\202\254\360\237\220\204" },
		/* CSI as one character, and as a byte of other terminals */
		{ "\302\23331m", "..31m" },
		{ "\23331m", ".31m" },
		{ "\302\240", "\302\240" },
		{ "\302", "." },
		{ "\303x", ".x" },
		{ "\300\200 \340\200\200", ".. ..." },
		{ "\355\240\200 \364\220\200\200", "... ...." },
	};
	char out[64];

	for (size_t i = 0; i < ARRAY_SIZE(text); i++) {
		show(text[i][0], out);
		ck_assert_str_eq(out, text[i][1]);
	}
	ck_assert_uint_eq(cowfs_shown("\303\244", 1), 0);
	ck_assert_uint_eq(cowfs_shown("a", 0), 0);
}
END_TEST

START_TEST(report_logs_and_returns_its_code)
{
	struct caught c = { 0 };

	log_set_sink(catch, &c);
	ck_assert_int_eq(report(-ECOW_CORRUPT, "node %u", 5), -ECOW_CORRUPT);
	ck_assert_str_eq(c.line, "node 5");
	ck_assert_int_eq(c.level, LOG_LVL_ERROR);
}
END_TEST

START_TEST(log_limit_lets_a_burst_through_then_counts)
{
	struct log_limit l = { 0 };
	uint64_t dropped;
	unsigned i, shown = 0;

	for (i = 0; i < 100; i++)
		shown += log_allowed(&l, &dropped);
	ck_assert_uint_gt(shown, 0);
	ck_assert_uint_lt(shown, 20);
	atomic_store(&l.since, now_ns() - UINT64_C(3600000000000));
	ck_assert(log_allowed(&l, &dropped));
	ck_assert_uint_eq(dropped, 100 - shown);
}
END_TEST

/* ---- locks ---- */

struct shared {
	struct mutex lock;
	pthread_cond_t cond;
	uint64_t n;
	bool go;
};

static void *count_up(void *arg)
{
	struct shared *s = arg;
	int i;

	for (i = 0; i < 20000; i++) {
		mutex_lock(&s->lock);
		mutex_assert_held(&s->lock);
		s->n++;
		mutex_unlock(&s->lock);
	}
	return NULL;
}

START_TEST(mutex_excludes)
{
	struct shared s = { 0 };
	pthread_t t[4];
	int i;

	mutex_init(&s.lock, LOCK_LEAF);
	for (i = 0; i < 4; i++)
		ck_assert(!pthread_create(&t[i], NULL, count_up, &s));
	for (i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(s.n, 80000);
	mutex_fini(&s.lock);
}
END_TEST

static void *try_it(void *arg)
{
	struct shared *s = arg;

	s->go = mutex_trylock(&s->lock);
	if (s->go)
		mutex_unlock(&s->lock);
	return NULL;
}

START_TEST(mutex_trylock_says_whether_it_is_free)
{
	struct shared s = { .go = true };
	pthread_t t;

	mutex_init(&s.lock, LOCK_LEAF);
	mutex_lock(&s.lock);
	ck_assert(!pthread_create(&t, NULL, try_it, &s));
	pthread_join(t, NULL);
	ck_assert(!s.go);
	mutex_unlock(&s.lock);
	ck_assert(!pthread_create(&t, NULL, try_it, &s));
	pthread_join(t, NULL);
	ck_assert(s.go);
	mutex_fini(&s.lock);
}
END_TEST

static void *hold_it(void *arg)
{
	mutex_lock(arg);
	return NULL;
}

#ifndef NDEBUG
/* These end by SIGABRT; their message on stderr is expected. */
START_TEST(mutex_assert_held_aborts_if_it_is_free)
{
	struct mutex m;

	mutex_init(&m, LOCK_LEAF);
	mutex_lock(&m);
	mutex_unlock(&m);
	ck_assert(freopen("/dev/null", "w", stderr));
	mutex_assert_held(&m);
}
END_TEST

START_TEST(mutex_assert_held_aborts_if_another_has_it)
{
	struct mutex m;
	pthread_t t;

	mutex_init(&m, LOCK_LEAF);
	ck_assert(!pthread_create(&t, NULL, hold_it, &m));
	pthread_join(t, NULL);
	ck_assert(freopen("/dev/null", "w", stderr));
	mutex_assert_held(&m);
}
END_TEST

START_TEST(mutex_locked_twice_aborts_instead_of_hanging)
{
	struct mutex m;

	mutex_init(&m, LOCK_LEAF);
	mutex_lock(&m);
	ck_assert(freopen("/dev/null", "w", stderr));
	mutex_lock(&m);
}
END_TEST

START_TEST(mutex_unlocked_by_a_stranger_aborts)
{
	struct mutex m;
	pthread_t t;

	mutex_init(&m, LOCK_LEAF);
	ck_assert(!pthread_create(&t, NULL, hold_it, &m));
	pthread_join(t, NULL);
	ck_assert(freopen("/dev/null", "w", stderr));
	mutex_unlock(&m);
}
END_TEST
#endif

START_TEST(cond_wait_ms_runs_out_of_time)
{
	struct shared s;
	uint64_t begin = now_ns(), took;

	mutex_init(&s.lock, LOCK_LEAF);
	cond_init(&s.cond);
	mutex_lock(&s.lock);
	while (cond_wait_ms(&s.cond, &s.lock, 30))
		; /* woken for nothing: allowed, if rare */
	took = now_ns() - begin;
	ck_assert_uint_ge(took, 30000000);
	mutex_assert_held(&s.lock);
	mutex_unlock(&s.lock);
	pthread_cond_destroy(&s.cond);
	mutex_fini(&s.lock);
}
END_TEST

static void *wake(void *arg)
{
	struct shared *s = arg;

	mutex_lock(&s->lock);
	s->go = true;
	pthread_cond_signal(&s->cond);
	mutex_unlock(&s->lock);
	return NULL;
}

START_TEST(cond_wait_ms_is_woken)
{
	static const uint64_t ms[] = { UINT64_MAX, UINT64_MAX - 1, 60000 };
	struct shared s = { .go = false };
	pthread_t t;
	unsigned i;

	mutex_init(&s.lock, LOCK_LEAF);
	cond_init(&s.cond);
	for (i = 0; i < ARRAY_SIZE(ms); i++) {
		mutex_lock(&s.lock);
		s.go = false;
		ck_assert(!pthread_create(&t, NULL, wake, &s));
		while (!s.go)
			ck_assert(cond_wait_ms(&s.cond, &s.lock, ms[i]));
		mutex_unlock(&s.lock);
		pthread_join(t, NULL);
	}
	pthread_cond_destroy(&s.cond);
	mutex_fini(&s.lock);
}
END_TEST

/* ---- clock ---- */

START_TEST(time_survives_the_way_to_disk_and_back)
{
	static const struct timespec64 t[] = {
		{ 0, 0 }, { 1, 999999999 }, { -1, 1 },
		{ INT64_MAX, 5 }, { INT64_MIN, 6 },
	};
	struct timespec64 got;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(t); i++) {
		got = time_from_disk(time_to_disk(t[i]));
		ck_assert_int_eq(got.sec, t[i].sec);
		ck_assert_uint_eq(got.nsec, t[i].nsec);
	}
}
END_TEST

START_TEST(time_from_disk_never_has_a_second_of_nanoseconds)
{
	struct cowfs_disk_time d = { .nsec = to_le32(UINT32_MAX) };

	ck_assert_uint_eq(time_from_disk(d).nsec, 999999999);
	d.nsec = to_le32(1000000000);
	ck_assert_uint_eq(time_from_disk(d).nsec, 999999999);
}
END_TEST

START_TEST(clocks_run)
{
	struct timespec nap = { .tv_nsec = 2000000 };
	struct timespec64 real = now_real();
	uint64_t begin = now_ns();

	nanosleep(&nap, NULL);
	ck_assert_uint_ge(now_ns() - begin, 2000000);
	ck_assert_int_le(llabs(real.sec - (int64_t)time(NULL)), 2);
	ck_assert_uint_lt(real.nsec, 1000000000);
}
END_TEST

static int64_t in_ns(struct timespec64 t)
{
	return t.sec * 1000000000 + t.nsec;
}

static struct timespec64 later_by(struct timespec64 t, int64_t ns)
{
	int64_t sum = in_ns(t) + ns;

	return (struct timespec64){ .sec = sum / 1000000000,
				    .nsec = (uint32_t)(sum % 1000000000) };
}

START_TEST(clock_is_not_behind_the_kernels_stamps)
{
	struct timespec64 t = later_by(now_real(), 15000000);

	now_real_after(t);
	now_real_after(later_by(t, -1000000)); /* an older one comes later */
	ck_assert_int_ge(in_ns(now_real()), in_ns(t));
}
END_TEST

START_TEST(stamps_far_ahead_are_not_followed)
{
	struct timespec64 t = later_by(now_real(), 3600000000000);

	now_real_after(t);
	now_real_after((struct timespec64){ .sec = INT64_MAX });
	now_real_after((struct timespec64){ .sec = INT64_MIN });
	ck_assert_int_lt(in_ns(now_real()), in_ns(t) - 1800000000000);
}
END_TEST

START_TEST(random_bytes_fills_all_and_differs)
{
	uint8_t a[1000], b[1000];
	unsigned i, zero = 0;

	memset(a, 0, sizeof(a));
	random_bytes(a, sizeof(a));
	random_bytes(b, sizeof(b));
	ck_assert(memcmp(a, b, sizeof(a)) != 0);
	for (i = 900; i < sizeof(a); i++)
		zero += a[i] == 0;
	ck_assert_uint_lt(zero, 20);
	random_bytes(a, 0);
}
END_TEST

/* ---- grace ---- */

START_TEST(grace_passes_at_once_without_readers)
{
	struct grace g;
	int i;

	grace_init(&g);
	for (i = 0; i < 5; i++)
		ck_assert(grace_passed(&g, grace_stamp(&g)));
	ck_assert(grace_passed(&g, 0));
	grace_fini(&g);
}
END_TEST

START_TEST(grace_waits_for_a_section_that_began_before)
{
	struct grace g;
	unsigned ticket;
	uint64_t stamp;
	int i;

	grace_init(&g);
	for (i = 0; i < 3; i++) { /* from both parities of the epoch */
		ticket = grace_enter(&g);
		stamp = grace_stamp(&g);
		ck_assert(!grace_passed(&g, stamp));
		ck_assert(!grace_passed(&g, stamp));
		grace_leave(&g, ticket);
		ck_assert(grace_passed(&g, stamp));
		ck_assert(grace_passed(&g, stamp));
		ticket = grace_enter(&g);
		stamp = grace_stamp(&g);
		(void)grace_passed(&g, stamp); /* moves the epoch by one */
		grace_leave(&g, ticket);
	}
	grace_fini(&g);
}
END_TEST

START_TEST(grace_does_not_starve_while_readers_keep_coming)
{
	struct grace g;
	unsigned old, new;
	uint64_t stamp;
	int i;

	grace_init(&g);
	old = grace_enter(&g);
	stamp = grace_stamp(&g);
	/* never a moment without a reader */
	for (i = 0; i < 4 && !grace_passed(&g, stamp); i++) {
		new = grace_enter(&g);
		grace_leave(&g, old);
		old = new;
	}
	ck_assert(grace_passed(&g, stamp));
	grace_leave(&g, old);
	grace_fini(&g);
}
END_TEST

/* Any interleaving: a stamp passes exactly never too early. */
START_TEST(grace_never_passes_while_an_older_section_lives)
{
	struct { unsigned ticket; unsigned began; bool live; } s[8] = { 0 };
	struct { uint64_t stamp; unsigned at; } st[8] = { 0 };
	unsigned i, k, step, rounds = test_rounds(200000), passes = 0;
	struct grace g;
	struct rng r;

	rng_init(&r, test_seed(), 4);
	grace_init(&g);
	for (step = 1; step <= rounds; step++) {
		i = (unsigned)rng_below(&r, 8);
		switch (rng_below(&r, 4)) {
		case 0:
			if (s[i].live)
				break;
			s[i].ticket = grace_enter(&g);
			s[i].began = step;
			s[i].live = true;
			break;
		case 1:
			if (s[i].live)
				grace_leave(&g, s[i].ticket);
			s[i].live = false;
			break;
		case 2:
			st[i].stamp = grace_stamp(&g);
			st[i].at = step;
			break;
		default:
			if (!st[i].at || !grace_passed(&g, st[i].stamp))
				break;
			passes++;
			for (k = 0; k < 8; k++)
				ck_fast(!s[k].live || s[k].began > st[i].at);
		}
	}
	ck_assert_uint_gt(passes, rounds / 100);
	for (i = 0; i < 8; i++)
		if (s[i].live)
			grace_leave(&g, s[i].ticket);
	grace_fini(&g);
}
END_TEST

struct grace_race {
	struct grace g;
	_Atomic unsigned slot; /* what readers look at */
	_Atomic bool freed[2000];
	_Atomic bool stop;
	_Atomic unsigned bad;
};

static void *grace_reader(void *arg)
{
	struct grace_race *x = arg;
	unsigned ticket, slot;

	while (!atomic_load(&x->stop)) {
		ticket = grace_enter(&x->g);
		slot = atomic_load(&x->slot);
		sched_yield();
		if (atomic_load(&x->freed[slot]))
			atomic_fetch_add(&x->bad, 1);
		grace_leave(&x->g, ticket);
	}
	return NULL;
}

START_TEST(grace_protects_readers_in_other_threads)
{
	static struct grace_race x;
	pthread_t t[3];
	uint64_t stamp;
	unsigned i;

	grace_init(&x.g);
	for (i = 0; i < 3; i++)
		ck_assert(!pthread_create(&t[i], NULL, grace_reader, &x));
	for (i = 1; i < 2000; i++) {
		atomic_store(&x.slot, i); /* i - 1 is unreachable now */
		stamp = grace_stamp(&x.g);
		while (!grace_passed(&x.g, stamp))
			sched_yield();
		atomic_store(&x.freed[i - 1], true);
	}
	atomic_store(&x.stop, true);
	for (i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(atomic_load(&x.bad), 0);
	grace_fini(&x.g);
}
END_TEST

static void add_lock_tests(Suite *s)
{
	TCase *tc = tcase_create("locks");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, mutex_excludes);
	tcase_add_test(tc, mutex_trylock_says_whether_it_is_free);
#ifndef NDEBUG
	tcase_add_test_raise_signal(tc, mutex_assert_held_aborts_if_it_is_free,
				    SIGABRT);
	tcase_add_test_raise_signal(
		tc, mutex_assert_held_aborts_if_another_has_it, SIGABRT);
	tcase_add_test_raise_signal(
		tc, mutex_locked_twice_aborts_instead_of_hanging, SIGABRT);
	tcase_add_test_raise_signal(tc, mutex_unlocked_by_a_stranger_aborts,
				    SIGABRT);
#endif
	tcase_add_test(tc, cond_wait_ms_runs_out_of_time);
	tcase_add_test(tc, cond_wait_ms_is_woken);
	suite_add_tcase(s, tc);

	tc = tcase_create("grace");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, grace_passes_at_once_without_readers);
	tcase_add_test(tc, grace_waits_for_a_section_that_began_before);
	tcase_add_test(tc, grace_does_not_starve_while_readers_keep_coming);
	tcase_add_test(tc, grace_never_passes_while_an_older_section_lives);
	tcase_add_test(tc, grace_protects_readers_in_other_threads);
	suite_add_tcase(s, tc);
}

static Suite *util_suite(void)
{
	Suite *s = suite_create("util");
	TCase *tc = tcase_create("values");

	tcase_add_test(tc, checksum_of_the_standard_text_is_the_standard_value);
	tcase_add_test(
		tc, checksum_equals_zlibs_for_any_length_alignment_and_start);
	tcase_add_test(tc, checksum_of_parts_chains_to_that_of_the_whole);
	tcase_add_test(tc, checksum_blocks_gives_one_value_per_block);
	tcase_add_test(tc, siphash_gives_the_vectors_of_its_authors);
	tcase_add_test(tc, siphash_depends_on_the_key_and_not_on_alignment);
	tcase_add_test(tc, hash_u64_spreads_neighbours_and_strides);
	tcase_add_test(tc, blocks_of_rounds_up_without_wrapping);
	tcase_add_test(tc, list_keeps_its_order_through_all_operations);
	tcase_add_test(tc, time_survives_the_way_to_disk_and_back);
	tcase_add_test(tc, time_from_disk_never_has_a_second_of_nanoseconds);
	tcase_add_test(tc, clocks_run);
	tcase_add_test(tc, clock_is_not_behind_the_kernels_stamps);
	tcase_add_test(tc, stamps_far_ahead_are_not_followed);
	tcase_add_test(tc, random_bytes_fills_all_and_differs);
	suite_add_tcase(s, tc);

	tc = tcase_create("log");
	tcase_add_test(tc, log_goes_to_the_sink_up_to_the_level);
	tcase_add_test(tc, log_shows_long_lines_whole_and_lets_none_be_forged);
	tcase_add_test(tc, shown_is_what_drives_no_terminal);
	tcase_add_test(tc, report_logs_and_returns_its_code);
	tcase_add_test(tc, log_limit_lets_a_burst_through_then_counts);
	suite_add_tcase(s, tc);

	add_lock_tests(s);
	return s;
}

int main(void)
{
	return test_main(util_suite());
}
