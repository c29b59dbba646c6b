/*
 * test_alloc.c - the allocator: placing, waiting, reserve, references, records
 */
#include <malloc.h>
#include <pthread.h>

#include "support/test.h"
#include "unit/fake_store.h"

#define CHUNK ((uint64_t)COWFS_CHUNK_BLOCKS)
#define RESERVED (COWFS_FIRST_BLOCK + COWFS_SUPER_SLOTS)
#define NODE FAKE_NODE

/* An allocator with the store and the generations around it. */
struct env {
	struct grace grace;
	struct alloc *a;
	struct fake f;
	uint64_t gen, blocks;
};

static void setup_with(struct env *e, uint64_t blocks, unsigned node_blocks)
{
	memset(e, 0, sizeof(*e));
	grace_init(&e->grace);
	fake_init(&e->f, blocks);
	e->gen = 1;
	e->blocks = blocks;
	ck_ok(alloc_new(blocks, node_blocks, 2, 1, &e->grace, &e->a));
}

static void setup(struct env *e, uint64_t blocks)
{
	setup_with(e, blocks, NODE);
}

static void teardown(struct env *e)
{
	alloc_free_all(e->a);
	fake_fini(&e->f);
	grace_fini(&e->grace);
}

static void commit(struct env *e)
{
	ck_ok(fake_flush(&e->f, e->a));
	alloc_close(e->a, e->gen);
	alloc_durable(e->a, e->gen);
	e->gen++;
}

static struct alloc_info info(struct env *e)
{
	struct alloc_info i;

	alloc_info(e->a, &i);
	ck_assert_uint_eq(i.blocks, e->blocks);
	ck_assert_uint_le(i.free + i.pending, 2 * i.blocks);
	return i;
}

/* Exactly these blocks, taken and owned in the running generation. */
static void own_at(struct env *e, uint64_t at, uint64_t len)
{
	uint64_t blk, got;

	while (len) {
		ck_ok(alloc_take(e->a, AREA_DATA, at, len, &blk, &got));
		ck_assert_uint_eq(blk, at);
		alloc_own(e->a, blk, got);
		at += got;
		len -= got;
	}
}

static bool can_take(struct env *e, uint64_t at)
{
	uint64_t blk = 0, got;

	if (alloc_take(e->a, AREA_DATA, at, 1, &blk, &got))
		return false;
	alloc_give_back(e->a, blk, 1);
	return blk == at;
}

/* Data until there is none: blocks taken and owned. */
static uint64_t fill(struct env *e, uint64_t want)
{
	uint64_t blk, got, sum = 0;
	int err;

	while (!(err = alloc_take(e->a, AREA_DATA, 0, want, &blk, &got))) {
		ck_assert(got >= 1 && got <= want);
		alloc_own(e->a, blk, got);
		sum += got;
	}
	ck_assert_int_eq(err, -ENOSPC);
	return sum;
}

static uint64_t nodes_left(struct env *e)
{
	uint64_t blk, n = 0;
	int err;

	while (!(err = alloc_node(e->a, n % 2 ? AREA_META2 : AREA_META, &blk)))
		n++;
	ck_assert_int_eq(err, -ENOSPC);
	return n;
}

/* ---- placing ---- */

START_TEST(all_but_the_superblocks_is_free_at_first)
{
	struct alloc_info i;
	struct env e;

	setup(&e, 3 * CHUNK + 777);
	i = info(&e);
	ck_assert_uint_eq(i.free, e.blocks - RESERVED);
	ck_assert_uint_eq(i.stored_free, i.free);
	ck_assert_uint_eq(i.pending, 0);
	ck_assert_uint_eq(i.avail, i.free - i.reserve);
	ck_assert(alloc_is_used(e.a, 0) && alloc_is_used(e.a, 19));
	ck_assert(!alloc_is_used(e.a, 20));
	ck_assert(!alloc_is_used(e.a, e.blocks - 5));
	ck_assert(alloc_is_used(e.a, e.blocks - 4));
	ck_assert(alloc_dirty(e.a));
	teardown(&e);
}
END_TEST

START_TEST(impossible_sizes_are_refused)
{
	struct alloc *a = NULL;
	struct grace g;

	grace_init(&g);
	ck_assert_int_eq(alloc_new(COWFS_MIN_BLOCKS - 1, 4, 2, 1, &g, &a),
			 -EINVAL);
	ck_assert_int_eq(alloc_new(COWFS_MAX_BLOCKS + 1, 4, 2, 1, &g, &a),
			 -EINVAL);
	ck_assert_int_eq(alloc_new(4096, 3, 2, 1, &g, &a), -EINVAL);
	ck_assert_int_eq(alloc_new(4096, 32, 2, 1, &g, &a), -EINVAL);
	ck_assert_ptr_null(a);
	grace_fini(&g);
}
END_TEST

START_TEST(data_goes_on_at_the_hint)
{
	uint64_t blk, got, next;
	struct env e;

	setup(&e, 4 * CHUNK);
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 100, &blk, &got));
	ck_assert_uint_eq(got, 100);
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 100, &next, &got));
	ck_assert_uint_eq(next, blk + 100);
	/* the gap of 50 before 5000 is taken as far as it goes */
	own_at(&e, 5000, 10);
	ck_ok(alloc_take(e.a, AREA_DATA, 4950, 100, &blk, &got));
	ck_assert_uint_eq(blk, 4950);
	ck_assert_uint_eq(got, 50);
	/* a used hint, a reserved one, and one past the end are no reason
	 * to fail */
	ck_ok(alloc_take(e.a, AREA_DATA, 5000, 7, &blk, &got));
	ck_assert_uint_eq(got, 7);
	ck_ok(alloc_take(e.a, AREA_DATA, 16, 7, &blk, &got));
	ck_ok(alloc_take(e.a, AREA_DATA, UINT64_MAX, 7, &blk, &got));
	ck_ok(alloc_take(e.a, AREA_DATA, e.blocks, 7, &blk, &got));
	teardown(&e);
}
END_TEST

START_TEST(a_run_goes_on_over_chunk_borders)
{
	uint64_t blk, got;
	struct env e;

	setup(&e, 20 * CHUNK);
	ck_ok(alloc_take(e.a, AREA_DATA, 2 * CHUNK - 3, 3 * CHUNK, &blk,
			 &got));
	ck_assert_uint_eq(blk, 2 * CHUNK - 3);
	ck_assert_uint_eq(got, 3 * CHUNK);
	alloc_own(e.a, blk, got);
	ck_assert(!alloc_is_used(e.a, blk - 1));
	ck_assert(alloc_is_used(e.a, blk) && alloc_is_used(e.a, blk + got - 1));
	ck_assert(!alloc_is_used(e.a, blk + got));
	alloc_free(e.a, blk + 1, got - 2, 0);
	ck_assert(alloc_is_used(e.a, blk) && !alloc_is_used(e.a, blk + 1));
	ck_assert_uint_eq(info(&e).pending, got - 2);
	commit(&e);
	commit(&e);
	ck_assert_uint_eq(info(&e).pending, 0);
	ck_assert_uint_eq(info(&e).free, e.blocks - RESERVED - 2);
	teardown(&e);
}
END_TEST

START_TEST(the_longest_run_near_by_is_taken_where_none_is_long_enough)
{
	uint64_t blk, got, at;
	struct env e;

	setup(&e, 2048);
	/* free runs of 20 blocks, and one of 25 */
	for (at = 20; at < 1000; at += 21)
		own_at(&e, at, 1);
	for (at += 5; at < 2044; at += 21)
		own_at(&e, at, 1);
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 30, &blk, &got));
	ck_assert_uint_eq(got, 25);
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 30, &blk, &got));
	ck_assert_uint_eq(got, 20);
	teardown(&e);
}
END_TEST

START_TEST(nodes_are_aligned_and_copies_lie_in_different_halves)
{
	uint64_t blk, n;
	struct env e;

	setup(&e, 64 * CHUNK);
	for (n = 0; n < 10000; n++) {
		ck_ok(alloc_node(e.a, AREA_META, &blk));
		ck_assert_uint_eq(blk % NODE, 0);
		ck_assert_uint_lt(blk, e.blocks / 2);
		ck_ok(alloc_node(e.a, AREA_META2, &blk));
		ck_assert_uint_eq(blk % NODE, 0);
		ck_assert_uint_ge(blk, e.blocks / 2);
	}
	teardown(&e);
}
END_TEST

START_TEST(copies_start_far_apart_on_a_tiny_device)
{
	uint64_t one, two;
	struct env e;

	setup(&e, 2048);
	ck_ok(alloc_node(e.a, AREA_META, &one));
	ck_ok(alloc_node(e.a, AREA_META2, &two));
	ck_assert_uint_ge(two - one, 512);
	teardown(&e);
}
END_TEST

START_TEST(nodes_and_data_share_no_chunk_while_there_is_room)
{
	uint64_t blk, got, i, n, node = 0;
	uint8_t is[128] = { 0 };
	struct env e;

	setup(&e, 128 * CHUNK);
	for (n = 0; n < 20000; n++) {
		ck_ok(alloc_node(e.a, n % 2 ? AREA_META2 : AREA_META, &node));
		is[node / CHUNK] |= 1;
		ck_ok(alloc_take(e.a, n % 4 == 3 ? AREA_DATA2 : AREA_DATA, 0,
				 10, &blk, &got));
		for (i = 0; i < got; i++)
			is[(blk + i) / CHUNK] |= 2;
	}
	for (n = 0; n < 128; n++)
		ck_assert_uint_ne(is[n], 3);
	/* a file that grows up to a chunk of nodes goes round it */
	ck_assert_uint_ne((node + NODE) % CHUNK, 0);
	ck_ok(alloc_take(e.a, AREA_DATA, node + NODE, 1, &blk, &got));
	ck_assert_uint_ne(is[blk / CHUNK], 1);
	teardown(&e);
}
END_TEST

START_TEST(each_area_takes_the_others_chunks_when_nothing_else_is_left)
{
	uint64_t sum, nodes;
	struct env e;

	setup(&e, 8 * CHUNK);
	nodes = nodes_left(&e);
	/* blocks 0..19 are 5 slots; the far superblocks one more */
	ck_assert_uint_eq(nodes, 8 * CHUNK / NODE - 6);
	teardown(&e);
	setup(&e, 8 * CHUNK);
	sum = fill(&e, 256);
	ck_assert_uint_ge(sum, info(&e).blocks - RESERVED - info(&e).reserve);
	ck_assert_uint_eq(sum + info(&e).free, 8 * CHUNK - RESERVED);
	teardown(&e);
}
END_TEST

START_TEST(every_block_is_handed_out_once_whatever_the_size)
{
	static const int off[] = { -70, -5, -4, -3, -1, 0, 1, 3, 4, 5, 64, 99 };
	unsigned i, nb;

	for (i = 0; i < ARRAY_SIZE(off); i++) {
		for (nb = 1; nb <= 16; nb *= 4) {
			uint64_t blocks = 2 * CHUNK + (uint64_t)off[i];
			uint64_t blk, n = 0, slots = (blocks - 4) / nb;
			uint8_t *seen = calloc(blocks, 1);
			struct env e;

			ck_assert_ptr_nonnull(seen);
			setup_with(&e, blocks, nb);
			while (!alloc_node(e.a, AREA_META2, &blk)) {
				ck_assert(blk >= 20 && blk + nb <= blocks - 4);
				ck_assert_uint_eq(seen[blk]++, 0);
				n++;
			}
			slots -= (20 + nb - 1) / nb;
			ck_assert_uint_eq(n, slots);
			teardown(&e);
			free(seen);
		}
	}
}
END_TEST

/* ---- waiting ---- */

START_TEST(what_an_older_superblock_names_waits_for_two_commits)
{
	struct env e;

	setup(&e, 4096);
	own_at(&e, 1000, 8);
	commit(&e);
	alloc_free(e.a, 1000, 8, 1); /* in generation 2 */
	ck_assert(!alloc_is_used(e.a, 1000));
	ck_assert(!can_take(&e, 1000));
	ck_assert(alloc_pending(e.a));
	commit(&e); /* 2 is durable, 1 is its predecessor and names it */
	ck_assert(!can_take(&e, 1000));
	ck_assert_uint_eq(info(&e).pending, 8 + 1); /* and can_take's */
	commit(&e);
	ck_assert(can_take(&e, 1000));
	teardown(&e);
}
END_TEST

START_TEST(a_close_alone_gives_nothing_back)
{
	struct env e;

	setup(&e, 4096);
	own_at(&e, 1000, 8);
	commit(&e);
	alloc_free(e.a, 1000, 8, 1);
	ck_ok(fake_flush(&e.f, e.a));
	alloc_close(e.a, 2);
	ck_ok(fake_flush(&e.f, e.a));
	alloc_durable(e.a, 2);
	alloc_close(e.a, 3);
	ck_assert(!can_take(&e, 1000));
	alloc_durable(e.a, 3);
	ck_assert(can_take(&e, 1000));
	teardown(&e);
}
END_TEST

START_TEST(what_no_superblock_named_waits_for_readers_only)
{
	unsigned ticket;
	uint64_t n;
	struct env e;

	setup(&e, 2048);
	n = fill(&e, 64);
	ticket = grace_enter(&e.grace);
	alloc_free(e.a, 1000, 8, 1);
	ck_assert_uint_eq(fill(&e, 1), 0);
	grace_leave(&e.grace, ticket);
	ck_assert_uint_gt(n, 0);
	ck_assert_uint_eq(fill(&e, 8), 8);
	ck_assert_uint_eq(info(&e).pending, 0);
	teardown(&e);
}
END_TEST

START_TEST(readers_hold_back_what_a_commit_would_give_back)
{
	unsigned ticket;
	struct env e;

	setup(&e, 4096);
	own_at(&e, 1000, 8);
	commit(&e);
	ticket = grace_enter(&e.grace);
	alloc_free(e.a, 1000, 8, 1);
	commit(&e);
	commit(&e);
	commit(&e);
	ck_assert(!can_take(&e, 1000));
	grace_leave(&e.grace, ticket);
	commit(&e);
	ck_assert(can_take(&e, 1000));
	teardown(&e);
}
END_TEST

START_TEST(blocks_given_back_are_free_again)
{
	uint64_t blk, got, before;
	struct env e;

	setup(&e, 4096);
	before = info(&e).free;
	ck_ok(alloc_take(e.a, AREA_DATA, 0, 100, &blk, &got));
	ck_assert_uint_eq(info(&e).free, before - 100);
	ck_assert_uint_eq(info(&e).stored_free, before);
	alloc_give_back(e.a, blk, 40);
	alloc_own(e.a, blk + 40, 60);
	ck_assert_uint_eq(info(&e).free, before - 60);
	ck_assert_uint_eq(info(&e).stored_free, before - 60);
	commit(&e);
	ck_assert(can_take(&e, blk));
	teardown(&e);
}
END_TEST

START_TEST(a_hold_keeps_what_the_durable_state_names)
{
	struct env e;

	setup(&e, 8192);
	own_at(&e, 1000, 8);
	own_at(&e, 2000, 8);
	commit(&e);
	alloc_free(e.a, 1000, 8, 1); /* before the hold, but 1 names it */
	alloc_hold(e.a);
	alloc_hold(e.a);
	alloc_free(e.a, 2000, 8, 1);
	commit(&e);
	commit(&e);
	commit(&e);
	commit(&e);
	ck_assert(!can_take(&e, 1000));
	ck_assert(!can_take(&e, 2000));
	alloc_unhold(e.a);
	commit(&e);
	ck_assert(!can_take(&e, 2000));
	ck_assert(!alloc_hold_broken(e.a));
	alloc_unhold(e.a);
	commit(&e);
	ck_assert(can_take(&e, 1000));
	ck_assert(can_take(&e, 2000));
	teardown(&e);
}
END_TEST

START_TEST(a_full_device_breaks_a_hold)
{
	struct env e;

	setup(&e, 4096);
	own_at(&e, 1000, 800);
	commit(&e);
	alloc_hold(e.a);
	alloc_free(e.a, 1000, 800, 1);
	commit(&e);
	ck_assert(!alloc_hold_broken(e.a));
	(void)fill(&e, 64); /* 1's successor is not durable: can't help */
	ck_assert(!alloc_hold_broken(e.a));
	commit(&e);
	ck_assert(!alloc_hold_broken(e.a));
	ck_assert_uint_eq(fill(&e, 64), 800);
	ck_assert(alloc_hold_broken(e.a));
	alloc_unhold(e.a);
	ck_assert(!alloc_hold_broken(e.a));
	teardown(&e);
}
END_TEST

/* ---- reserve ---- */

START_TEST(data_leaves_the_reserve_to_nodes)
{
	static const uint64_t size[] = { 2048, 4096, 3 * CHUNK + 5,
					 20 * CHUNK };
	unsigned i, nb;

	for (i = 0; i < ARRAY_SIZE(size); i++) {
		for (nb = 1; nb <= 16; nb *= 2) {
			struct alloc_info before, after;
			struct env e;

			setup_with(&e, size[i], nb);
			before = info(&e);
			ck_assert_uint_gt(before.avail, before.blocks / 3);
			(void)fill(&e, 100);
			after = info(&e);
			ck_assert_uint_eq(after.avail, 0);
			/* df told the truth, but for the records of chunks
			 * that data made dirty */
			ck_assert_uint_ge(after.free + 2 * nb, before.reserve);
			ck_assert_uint_ge(nodes_left(&e) * nb,
					  before.reserve);
			teardown(&e);
		}
	}
}
END_TEST

START_TEST(classes_reach_into_the_reserve_in_their_order)
{
	uint64_t blk, left;
	struct env e;
	bool normal = true, freeing = true;

	setup(&e, 16 * CHUNK);
	ck_ok(alloc_check(e.a, ALLOC_NORMAL, 8));
	(void)fill(&e, 1000);
	ck_assert_int_eq(alloc_check(e.a, ALLOC_NORMAL, 8), -ENOSPC);
	ck_ok(alloc_check(e.a, ALLOC_FREEING, 8));
	/* however much it wants to change, deleting begins on a full device */
	ck_ok(alloc_check(e.a, ALLOC_FREEING, 1000));
	for (left = 0; !alloc_node(e.a, AREA_META, &blk); left++) {
		bool f = !alloc_check(e.a, ALLOC_FREEING, 8);

		normal = !alloc_check(e.a, ALLOC_NORMAL, 8);
		ck_assert(!normal);
		ck_assert(!f || freeing); /* once refused, always */
		freeing = f;
	}
	ck_assert(!freeing);
	ck_assert_uint_gt(left, 100);
	ck_ok(alloc_check(e.a, ALLOC_INTERNAL, 0));
	ck_assert_int_eq(alloc_check(e.a, ALLOC_INTERNAL, 1), -ENOSPC);
	teardown(&e);
}
END_TEST

START_TEST(gathered_references_raise_the_reserve)
{
	uint64_t before, at;
	struct env e;

	setup(&e, 16 * CHUNK);
	own_at(&e, 10000, 10000);
	commit(&e);
	alloc_note_trees(e.a, 1000, 10);
	before = info(&e).reserve;
	for (at = 10000; at < 20000; at += 2)
		ck_ok(alloc_ref(e.a, at, 1, 1, 0));
	ck_assert_uint_ge(info(&e).reserve, before + 1000 * 2 * NODE);
	teardown(&e);
}
END_TEST

START_TEST(single_free_blocks_go_to_data_and_starve_no_nodes)
{
	uint64_t at, freed = 0, slots, n = 0, blk, got;
	struct env e;

	setup(&e, 4 * CHUNK);
	(void)fill(&e, 256);
	commit(&e);
	/* every second block of what data has */
	for (at = 21; at < e.blocks - 8; at += 2) {
		if (!alloc_is_used(e.a, at) || !alloc_is_used(e.a, at - 1))
			continue;
		alloc_free(e.a, at, 1, 1);
		freed++;
	}
	commit(&e);
	commit(&e);
	while (!alloc_take(e.a, AREA_DATA, 0, 64, &blk, &got)) {
		alloc_own(e.a, blk, got);
		ck_assert_uint_le(got, 1);
		n += got;
	}
	ck_assert_uint_eq(n, freed);
	commit(&e);
	slots = nodes_left(&e);
	ck_assert_uint_ge(slots * NODE + 8 * NODE, info(&e).reserve);
	teardown(&e);
}
END_TEST

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
	printf("10 TiB: loaded and 20000 allocations in %" PRIu64 " ms, %zu KiB\n",
	       (now_ns() - began) / 1000000, (in_use() - before) / 1024);
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

static TCase *add_case(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return tc;
}

static void add_space(Suite *s)
{
	TCase *tc = add_case(s, "placing");

	tcase_add_test(tc, all_but_the_superblocks_is_free_at_first);
	tcase_add_test(tc, impossible_sizes_are_refused);
	tcase_add_test(tc, data_goes_on_at_the_hint);
	tcase_add_test(tc, a_run_goes_on_over_chunk_borders);
	tcase_add_test(tc,
		the_longest_run_near_by_is_taken_where_none_is_long_enough);
	tcase_add_test(tc, nodes_are_aligned_and_copies_lie_in_different_halves);
	tcase_add_test(tc, copies_start_far_apart_on_a_tiny_device);
	tcase_add_test(tc, nodes_and_data_share_no_chunk_while_there_is_room);
	tcase_add_test(tc,
		each_area_takes_the_others_chunks_when_nothing_else_is_left);
	tcase_add_test(tc, every_block_is_handed_out_once_whatever_the_size);
	tc = add_case(s, "waiting");
	tcase_add_test(tc, what_an_older_superblock_names_waits_for_two_commits);
	tcase_add_test(tc, a_close_alone_gives_nothing_back);
	tcase_add_test(tc, what_no_superblock_named_waits_for_readers_only);
	tcase_add_test(tc, readers_hold_back_what_a_commit_would_give_back);
	tcase_add_test(tc, blocks_given_back_are_free_again);
	tcase_add_test(tc, a_hold_keeps_what_the_durable_state_names);
	tcase_add_test(tc, a_full_device_breaks_a_hold);
	tc = add_case(s, "reserve");
	tcase_add_test(tc, data_leaves_the_reserve_to_nodes);
	tcase_add_test(tc, classes_reach_into_the_reserve_in_their_order);
	tcase_add_test(tc, gathered_references_raise_the_reserve);
	tcase_add_test(tc, single_free_blocks_go_to_data_and_starve_no_nodes);
}

static void add_maps(Suite *s)
{
	TCase *tc = add_case(s, "references");

	tcase_add_test(tc, changes_that_cancel_out_never_reach_the_store);
	tcase_add_test(tc, extra_counts_what_is_stored_and_what_is_gathered);
	tcase_add_test(tc, the_last_reference_frees_both_copies);
	tcase_add_test(tc, taking_away_more_than_there_is_stops_the_commit);
	tcase_add_test(tc, impossible_references_are_refused);
	tcase_add_test(tc, impossible_stored_references_are_refused);
	tcase_add_test(tc, freeing_what_nobody_owns_stops_all_commits);
	tcase_add_test(tc, every_way_to_cut_and_join_intervals_is_right);
	tc = add_case(s, "records");
	tcase_add_test(tc, records_hold_what_is_owned_and_not_what_is_in_flight);
	tcase_add_test(tc, a_chunk_for_nodes_is_one_after_loading_too);
	tcase_add_test(tc, impossible_records_are_refused);
	tcase_add_test(tc,
		a_store_that_allocates_while_records_are_written_settles);
	tc = add_case(s, "size");
	tcase_add_test(tc, ten_tebibytes_cost_next_to_nothing_until_used);
	tcase_add_test(tc, the_largest_device_works);
	tcase_add_test(tc, free_space_is_found_among_thousands_of_full_chunks);
	tcase_add_test(tc, a_million_scattered_blocks_are_freed_in_one_go);
	tcase_add_test(tc, no_block_is_in_two_hands_whoever_asks_at_once);
}

int main(void)
{
	Suite *s = suite_create("alloc");

	add_space(s);
	add_maps(s);
	return test_main(s);
}
