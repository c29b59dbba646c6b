/*
 * test_alloc_maps.c - the allocator: references, records, size, threads
 */
#include <malloc.h>
#include <pthread.h>

#include "unit/alloc_fixture.h"

/* ---- references ---- */

START_TEST(changes_that_cancel_out_never_reach_the_store)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 100);
	commit(&e);
	ck_assert(!alloc_dirty(e.a));
	ck_ok(alloc_ref(e.a, 1000, 100, 2, 0));
	ck_ok(alloc_ref(e.a, 1000, 50, -2, 0));
	ck_ok(alloc_ref(e.a, 1050, 50, -2, 0));
	ck_assert(!alloc_dirty(e.a));
	commit(&e);
	ck_assert_uint_eq(e.f.puts, 0);
	teardown(&e);
}
END_TEST

START_TEST(extra_counts_what_is_stored_and_what_is_gathered)
{
	uint32_t extra;
	uint64_t run;
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 100);
	ck_ok(alloc_ref(e.a, 1010, 10, 3, 0));
	commit(&e);
	ck_ok(alloc_ref(e.a, 1015, 50, 1, 0));
	ck_ok(alloc_extra(e.a, &e.f.ops, 1000, &extra, &run));
	ck_assert(extra == 0 && run == 10);
	ck_ok(alloc_extra(e.a, &e.f.ops, 1012, &extra, &run));
	ck_assert(extra == 3 && run == 3);
	ck_ok(alloc_extra(e.a, &e.f.ops, 1015, &extra, &run));
	ck_assert(extra == 4 && run == 5);
	ck_ok(alloc_extra(e.a, &e.f.ops, 1020, &extra, NULL));
	ck_assert(extra == 1);
	ck_ok(alloc_extra(e.a, &e.f.ops, 2000, &extra, &run));
	ck_assert(extra == 0 && run == e.blocks - 2000);
	test_log_hide();
	ck_assert_int_eq(alloc_extra(e.a, &e.f.ops, 3, &extra, NULL),
			 -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_extra(e.a, &e.f.ops, e.blocks, &extra, NULL),
			 -ECOW_CORRUPT);
	test_log_show();
	teardown(&e);
}
END_TEST

START_TEST(the_last_reference_frees_both_copies)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 100);
	own_at(&e, 3000, 100);
	ck_ok(alloc_ref(e.a, 1000, 100, 1, 0));
	commit(&e);
	ck_ok(alloc_ref(e.a, 1000, 100, -1, 3000));
	ck_ok(alloc_ref(e.a, 1020, 10, -1, 3020));
	commit(&e); /* 2 */
	ck_assert_uint_eq(e.f.ivs, 0);
	ck_assert(alloc_is_used(e.a, 1019) && alloc_is_used(e.a, 3019));
	ck_assert(!alloc_is_used(e.a, 1020) && !alloc_is_used(e.a, 3029));
	ck_assert(fake_used(&e.f, 3019) && !fake_used(&e.f, 3020));
	ck_assert(alloc_is_used(e.a, 1030) && alloc_is_used(e.a, 3030));
	ck_assert(!can_take(&e, 1020) && !can_take(&e, 3020));
	commit(&e);
	ck_assert(can_take(&e, 1020) && can_take(&e, 3020));
	teardown(&e);
}
END_TEST

START_TEST(the_last_one_to_let_go_knows_where_the_second_copy_is)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 10);
	own_at(&e, 3000, 10);
	own_at(&e, 4000, 10);
	ck_ok(alloc_ref(e.a, 1000, 10, -1, 4000));
	ck_ok(alloc_ref(e.a, 1000, 10, 1, 0));
	ck_ok(alloc_ref(e.a, 1005, 5, -1, 3005));
	commit(&e);
	ck_assert(alloc_is_used(e.a, 4005) && alloc_is_used(e.a, 3004));
	ck_assert(!alloc_is_used(e.a, 3005) && !alloc_is_used(e.a, 1005));
	ck_assert(alloc_is_used(e.a, 1004));
	teardown(&e);
}
END_TEST

START_TEST(taking_away_more_than_there_is_stops_the_commit)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 100);
	commit(&e);
	ck_ok(alloc_ref(e.a, 1000, 100, -2, 0));
	test_log_hide();
	ck_assert_int_eq(alloc_flush(e.a, &e.f.ops), -ECOW_CORRUPT);
	ck_assert_uint_ge(test_log_count(), 1);
	test_log_show();
	teardown(&e);
}
END_TEST

START_TEST(impossible_references_are_refused)
{
	struct env e;

	setup(&e, 8192);
	test_log_hide();
	ck_assert_int_eq(alloc_ref(e.a, 16, 4, 1, 0), -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_ref(e.a, 8180, 10, 1, 0), -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_ref(e.a, 1000, UINT64_MAX, 1, 0),
			 -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_ref(e.a, UINT64_MAX, 2, 1, 0), -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_ref(e.a, 1000, 10, -1, 8190), -ECOW_CORRUPT);
	test_log_show();
	ck_assert(!alloc_pending(e.a));
	teardown(&e);
}
END_TEST

START_TEST(impossible_stored_references_are_refused)
{
	static const struct ref_ival bad[] = {
		{ 1000, 0, 1 }, { 1000, 5, 0 }, { 1000, UINT64_MAX, 1 },
		{ 10, 2000, 1 }, { 900, 7300, 1 },
	};
	uint32_t extra;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct env e;

		setup(&e, 8192);
		ck_ok(fake_put(&e.f, &bad[i]));
		test_log_hide();
		ck_assert_int_eq(alloc_extra(e.a, &e.f.ops, 1000, &extra,
					     NULL), -ECOW_CORRUPT);
		test_log_show();
		teardown(&e);
	}
}
END_TEST

/* What nobody owns, or not all of. */
static void free_badly(uint64_t blk, uint64_t len)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 100);
	commit(&e);
	test_log_hide();
	alloc_free(e.a, blk, len, 1);
	ck_assert_uint_eq(test_log_count(), 1);
	test_log_show();
	ck_assert(alloc_is_used(e.a, 1000) && alloc_is_used(e.a, 16));
	ck_assert_uint_eq(info(&e).pending, 0);
	ck_assert_int_eq(alloc_flush(e.a, &e.f.ops), -ECOW_CORRUPT);
	ck_assert_int_eq(alloc_preload(e.a, &e.f.ops), -ECOW_CORRUPT);
	teardown(&e);
}

START_TEST(freeing_what_nobody_owns_stops_all_commits)
{
	free_badly(999, 2);
	free_badly(1099, 2);
	free_badly(5000, 1);
	free_badly(16, 4);
	free_badly(0, 1);
	free_badly(8188, 4);
	free_badly(8192, 1);
	free_badly(1000, UINT64_MAX);
	free_badly(UINT64_MAX, 1);
}
END_TEST

/* One block, in and out of a table of single cases: the counts of ten blocks
 * before, a change of some of them, compared with a plain array. */
START_TEST(every_way_to_cut_and_join_intervals_is_right)
{
	unsigned s, x, y, i;

	for (s = 0; s < 3 * 3 * 3 * 3 * 3; s++) {
		for (x = 0; x < 5; x++) {
			for (y = x + 1; y <= 5; y++) {
				int want[5], div = 1;
				struct env e;

				setup(&e, 2048);
				own_at(&e, 100, 5);
				for (i = 0; i < 5; i++, div *= 3) {
					want[i] = (int)s / div % 3;
					ck_ok(alloc_ref(e.a, 100 + i, 1,
							want[i], 0));
				}
				commit(&e);
				ck_ok(alloc_ref(e.a, 100 + x, y - x, -1, 0));
				commit(&e);
				fake_check_refs(&e.f);
				for (i = 0; i < 5; i++) {
					uint32_t n = 9;

					want[i] -= i >= x && i < y;
					ck_assert(alloc_is_used(e.a, 100 + i)
						  == (want[i] >= 0));
					ck_ok(alloc_extra(e.a, &e.f.ops,
							  100 + i, &n, NULL));
					ck_assert_int_eq((int)n, want[i] < 0 ?
							 0 : want[i]);
				}
				teardown(&e);
			}
		}
	}
}
END_TEST

/* ---- records ---- */

static void reload(struct env *e, struct alloc **out)
{
	uint64_t n;

	ck_ok(alloc_new(e->blocks, NODE, 2, e->gen, &e->grace, out));
	for (n = 0; n < e->f.chunks; n++)
		if (e->f.len[n])
			ck_ok(alloc_load(*out, n, e->f.rec[n], e->f.len[n]));
}

START_TEST(records_hold_what_is_owned_and_not_what_is_in_flight)
{
	uint64_t blk, got, node, at;
	struct alloc_info one, two;
	struct alloc *b;
	struct env e;

	setup(&e, 6 * CHUNK + 100);
	own_at(&e, 3 * CHUNK, CHUNK);
	own_at(&e, 5 * CHUNK + 3, 100);
	ck_ok(alloc_node(e.a, AREA_META, &node));
	ck_ok(alloc_take(e.a, AREA_DATA, 5 * CHUNK + 200, 50, &blk, &got));
	commit(&e);
	ck_assert_uint_eq(e.f.len[0], FAKE_RECORD);
	ck_assert_uint_eq(e.f.len[2], 0);
	ck_assert_uint_eq(e.f.len[3], sizeof(struct cowfs_disk_chunk));
	ck_assert_uint_eq(e.f.len[6], FAKE_RECORD);
	ck_assert(!alloc_dirty(e.a));
	for (at = 0; at < e.blocks; at++)
		ck_assert(fake_used(&e.f, at) == alloc_is_used(e.a, at));
	reload(&e, &b);
	for (at = 0; at < e.blocks; at++)
		ck_assert(alloc_is_used(b, at) == alloc_is_used(e.a, at));
	alloc_info(e.a, &one);
	alloc_info(b, &two);
	ck_assert_uint_eq(one.stored_free, two.free);
	ck_assert_uint_eq(one.stored_free, one.free + 50);
	ck_assert(!alloc_dirty(b));
	alloc_free_all(b);
	/* a chunk that becomes free loses its record */
	alloc_free(e.a, 3 * CHUNK, CHUNK, 1);
	commit(&e);
	ck_assert_uint_eq(e.f.len[3], 0);
	teardown(&e);
}
END_TEST

START_TEST(a_chunk_for_nodes_is_one_after_loading_too)
{
	uint64_t node, blk, got;
	struct alloc *b;
	struct env e;

	setup(&e, 32 * CHUNK);
	own_at(&e, 20, CHUNK - 20); /* nodes can't begin in chunk 0 */
	ck_ok(alloc_node(e.a, AREA_META, &node));
	ck_assert_uint_ne(node / CHUNK, 0);
	commit(&e);
	reload(&e, &b);
	ck_ok(alloc_take(b, AREA_DATA, node + 100, 1, &blk, &got));
	ck_assert_uint_ne(blk / CHUNK, node / CHUNK);
	ck_ok(alloc_node(b, AREA_META, &blk));
	ck_assert_uint_eq(blk / CHUNK, node / CHUNK);
	alloc_free_all(b);
	/* and is for everybody again when the last node is gone */
	alloc_free(e.a, node, NODE, 1);
	commit(&e);
	commit(&e);
	own_at(&e, node, 1);
	teardown(&e);
}
END_TEST

/* A record of `used` used blocks from the start of chunk n that says `free`. */
static int load(struct env *e, uint64_t n, unsigned used, unsigned free_blocks,
		size_t len)
{
	uint8_t rec[FAKE_RECORD + 8] = { 0 };
	struct cowfs_disk_chunk d = { .free = to_le16((uint16_t)free_blocks) };
	unsigned i;

	memcpy(rec, &d, sizeof(d));
	for (i = 0; i < used; i++)
		rec[sizeof(d) + i / 8] |= (uint8_t)(1 << i % 8);
	return alloc_load(e->a, n, rec, len);
}

START_TEST(impossible_records_are_refused)
{
	const unsigned all = COWFS_CHUNK_BLOCKS;
	const size_t full = FAKE_RECORD, head = sizeof(struct cowfs_disk_chunk);
	const int bad = -ECOW_CORRUPT;
	struct env e;

	setup(&e, 4 * CHUNK);
	test_log_hide();
	ck_assert_int_eq(load(&e, 4, 20, all - 20, full), bad);
	ck_assert_int_eq(load(&e, UINT64_MAX, 20, all - 20, full), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 20, full - 1), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 20, full + 1), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 20, head), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 20, head - 1), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 20, 0), bad);
	ck_assert_int_eq(load(&e, 1, 20, all - 21, full), bad);
	ck_assert_int_eq(load(&e, 1, 20, 0, full), bad);
	ck_assert_int_eq(load(&e, 1, all, 0, full), bad);
	ck_assert_int_eq(load(&e, 0, 19, all - 19, full), bad);
	ck_assert_int_eq(load(&e, 3, 100, all - 100, full), bad);
	ck_assert_uint_eq(test_log_count(), 12);
	test_log_show();
	ck_assert_uint_eq(info(&e).free, e.blocks - RESERVED);
	ck_ok(load(&e, 0, 20, all - 20, full));
	ck_ok(load(&e, 1, 20, all - 20, full));
	ck_ok(load(&e, 1, 20, all - 20, full)); /* again: the same */
	ck_ok(load(&e, 2, 0, 0, head));
	ck_assert_uint_eq(info(&e).free, e.blocks - RESERVED - 20 - all);
	teardown(&e);
}
END_TEST

START_TEST(a_store_that_allocates_while_records_are_written_settles)
{
	uint64_t at, n;
	struct env e;

	setup(&e, 40 * CHUNK);
	e.f.alloc = e.a;
	for (n = 0; n < 12; n++) {
		e.f.gen = e.gen;
		own_at(&e, (3 + n) * CHUNK + 5, 100 * n + 1);
		commit(&e);
		ck_assert(!alloc_dirty(e.a));
		for (at = 0; at < e.blocks; at++)
			ck_assert(fake_used(&e.f, at) ==
				  alloc_is_used(e.a, at));
	}
	teardown(&e);
}
END_TEST

/* ---- size ---- */

static size_t in_use(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

START_TEST(ten_tebibytes_cost_next_to_nothing_until_used)
{
	uint64_t blocks = UINT64_C(10) << 28, blk, got;
	size_t before = in_use();
	struct env e = { .blocks = blocks, .gen = 1 };

	grace_init(&e.grace);
	ck_ok(alloc_new(blocks, NODE, 2, 1, &e.grace, &e.a));
	/* ASan's malloc says nothing here */
	ck_assert_uint_le(in_use() - before, 64 << 10);
	/* 10 GiB in one piece */
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 2621440, &blk, &got));
	ck_assert_uint_eq(got, 2621440);
	alloc_own(e.a, blk, got);
	alloc_free(e.a, blk, got, 0);
	ck_assert_uint_eq(info(&e).pending, 2621440);
	alloc_close(e.a, 1);
	alloc_durable(e.a, 1);
	alloc_close(e.a, 2);
	alloc_durable(e.a, 2);
	ck_assert_uint_eq(info(&e).free, blocks - RESERVED);
	ck_assert_uint_le(in_use() - before, 1 << 20);
	alloc_free_all(e.a);
	grace_fini(&e.grace);
}
END_TEST

START_TEST(the_largest_device_works)
{
	uint64_t blk, got;
	struct env e = { .blocks = COWFS_MAX_BLOCKS, .gen = 1 };

	grace_init(&e.grace);
	ck_ok(alloc_new(e.blocks, NODE, 2, 1, &e.grace, &e.a));
	ck_ok(alloc_node(e.a, AREA_META2, &blk));
	ck_assert_uint_ge(blk, e.blocks / 2);
	own_at(&e, e.blocks - 14, 10);
	ck_ok(alloc_take(e.a, AREA_DATA, e.blocks - 14, 20, &blk, &got));
	ck_assert_uint_eq(info(&e).free, e.blocks - RESERVED - NODE - 10 - got);
	alloc_free_all(e.a);
	grace_fini(&e.grace);
}
END_TEST

/* 10 TiB, all used but for one chunk in a thousand and the last. (Each ck_
 * macro that passes costs a system call; hence few of them in long loops.) */
START_TEST(free_space_is_found_among_thousands_of_full_chunks)
{
	uint64_t blocks = UINT64_C(10) << 28, n, blk, got, began = now_ns();
	size_t before = in_use();
	struct cowfs_disk_chunk d = { 0 };
	struct env e = { .blocks = blocks, .gen = 1 };

	grace_init(&e.grace);
	ck_ok(alloc_new(blocks, NODE, 2, 1, &e.grace, &e.a));
	for (n = 0; n < blocks / CHUNK - 1; n++)
		if (n % 1000 && alloc_load(e.a, n, &d, sizeof(d)))
			ck_abort_msg("chunk %" PRIu64, n);
	ck_assert_uint_le(in_use() - before, 16 << 20);
	for (n = 0; n < 10000; n++) {
		ck_ok(alloc_node(e.a, n % 2 ? AREA_META2 : AREA_META, &blk));
		ck_ok(alloc_take(e.a, AREA_DATA, 0, 100, &blk, &got));
		ck_assert_uint_eq(got, 100);
	}
	printf("10 TiB: loaded, 20000 allocations: %" PRIu64 " ms, %zu KiB\n",
	       (now_ns() - began) / 1000000, (in_use() - before) / 1024);
	alloc_free_all(e.a);
	grace_fini(&e.grace);
}
END_TEST

START_TEST(the_one_extent_freed_on_a_full_device_is_found)
{
	uint64_t blocks = UINT64_C(1) << 30, n, blk, got, at = blocks / 3;
	struct cowfs_disk_chunk d = { 0 };
	struct env e = { .blocks = blocks, .gen = 1 };

	grace_init(&e.grace);
	ck_ok(alloc_new(blocks, NODE, 2, 1, &e.grace, &e.a));
	for (n = 0; n < blocks / CHUNK; n++)
		if (alloc_load(e.a, n, &d, sizeof(d)))
			ck_abort_msg("chunk %" PRIu64, n);
	ck_assert_uint_eq(info(&e).free, 0);
	fake_init(&e.f, blocks);
	alloc_free(e.a, at, 200000, 0);
	ck_ok(fake_flush(&e.f, e.a));
	ck_assert(!alloc_dirty(e.a));
	ck_assert_uint_eq(e.f.len[at / CHUNK], FAKE_RECORD);
	alloc_close(e.a, 1);
	alloc_durable(e.a, 1);
	ck_assert_int_eq(alloc_take(e.a, AREA_DATA, 0, 10, &blk, &got),
			 -ENOSPC);
	alloc_close(e.a, 2);
	alloc_durable(e.a, 2);
	ck_assert_uint_eq(info(&e).free, 200000);
	ck_ok(alloc_node(e.a, AREA_META2, &blk));
	ck_assert(blk >= at && blk < at + 200000);
	fake_fini(&e.f);
	alloc_free_all(e.a);
	grace_fini(&e.grace);
}
END_TEST

START_TEST(a_million_scattered_blocks_are_freed_in_one_go)
{
	uint64_t at, began = now_ns();
	struct env e;

	setup(&e, 300 * CHUNK);
	own_at(&e, CHUNK, 256 * CHUNK);
	commit(&e);
	for (at = CHUNK; at < 257 * CHUNK; at += 2)
		alloc_free(e.a, at, 1, 1);
	ck_assert_uint_eq(info(&e).pending, 128 * CHUNK);
	commit(&e);
	commit(&e);
	ck_assert_uint_eq(info(&e).pending, 0);
	printf("a million frees and their release in %" PRIu64 " ms\n",
	       (now_ns() - began) / 1000000);
	teardown(&e);
}
END_TEST

/* ---- threads ---- */

#define THREADS 4
#define BOARD 20000

struct board {
	struct env e;
	_Atomic uint8_t owner[BOARD];
};

struct player {
	struct board *b;
	struct rng rng;
	uint64_t blk[64], len[64];
	unsigned n;
};

static void play(struct player *p, uint64_t i)
{
	struct alloc *a = p->b->e.a;
	uint64_t at;

	if (p->n < ARRAY_SIZE(p->blk) && rng_one_in(&p->rng, 2)) {
		uint64_t blk, got;

		if (alloc_take(a, AREA_DATA, 0, 1 + i % 30, &blk, &got))
			return;
		for (at = blk; at < blk + got; at++)
			ck_assert_uint_eq(p->b->owner[at]++, 0);
		alloc_own(a, blk, got);
		p->blk[p->n] = blk;
		p->len[p->n++] = got;
	} else if (p->n) {
		p->n--;
		for (at = 0; at < p->len[p->n]; at++)
			p->b->owner[p->blk[p->n] + at]--;
		alloc_free(a, p->blk[p->n], p->len[p->n],
			   rng_below(&p->rng, 3) + 1);
	}
}

static void *player(void *arg)
{
	struct player *p = arg;
	uint64_t i;

	for (i = 0; i < 20000; i++) {
		unsigned ticket = grace_enter(&p->b->e.grace);

		play(p, i);
		grace_leave(&p->b->e.grace, ticket);
	}
	return NULL;
}

START_TEST(no_block_is_in_two_hands_whoever_asks_at_once)
{
	static struct board b;
	static struct player p[THREADS];
	pthread_t t[THREADS];
	uint64_t gen, sum = 0;
	unsigned i, k;

	setup(&b.e, BOARD);
	for (i = 0; i < THREADS; i++) {
		p[i].b = &b;
		rng_init(&p[i].rng, test_seed(), i);
		ck_assert(!pthread_create(&t[i], NULL, player, &p[i]));
	}
	for (gen = 1; gen < 500; gen++) {
		alloc_close(b.e.a, gen);
		alloc_durable(b.e.a, gen);
	}
	for (i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	for (i = 0; i < THREADS; i++)
		for (k = 0; k < p[i].n; k++)
			sum += p[i].len[k];
	ck_assert_uint_eq(info(&b.e).free, BOARD - RESERVED - sum);
	alloc_durable(b.e.a, gen + 1);
	teardown(&b.e);
}
END_TEST

static void add_maps(Suite *s)
{
	TCase *tc = add_case(s, "references");

	tcase_add_test(tc, changes_that_cancel_out_never_reach_the_store);
	tcase_add_test(tc, extra_counts_what_is_stored_and_what_is_gathered);
	tcase_add_test(tc, the_last_reference_frees_both_copies);
	tcase_add_test(tc,
		the_last_one_to_let_go_knows_where_the_second_copy_is);
	tcase_add_test(tc, taking_away_more_than_there_is_stops_the_commit);
	tcase_add_test(tc, impossible_references_are_refused);
	tcase_add_test(tc, impossible_stored_references_are_refused);
	tcase_add_test(tc, freeing_what_nobody_owns_stops_all_commits);
	tcase_add_test(tc, every_way_to_cut_and_join_intervals_is_right);
	tc = add_case(s, "records");
	tcase_add_test(tc,
		records_hold_what_is_owned_and_not_what_is_in_flight);
	tcase_add_test(tc, a_chunk_for_nodes_is_one_after_loading_too);
	tcase_add_test(tc, impossible_records_are_refused);
	tcase_add_test(tc,
		a_store_that_allocates_while_records_are_written_settles);
	tc = add_case(s, "size");
	tcase_add_test(tc, ten_tebibytes_cost_next_to_nothing_until_used);
	tcase_add_test(tc, the_largest_device_works);
	tcase_add_test(tc, free_space_is_found_among_thousands_of_full_chunks);
	tcase_add_test(tc, the_one_extent_freed_on_a_full_device_is_found);
	tcase_add_test(tc, a_million_scattered_blocks_are_freed_in_one_go);
	tcase_add_test(tc, no_block_is_in_two_hands_whoever_asks_at_once);
}

int main(void)
{
	Suite *s = suite_create("alloc maps");

	add_maps(s);
	return test_main(s);
}
