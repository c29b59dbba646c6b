/*
 * test_alloc.c - the allocator: where it allocates, what waits, the reserve
 */
#include "unit/alloc_fixture.h"

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

/* A generation of n nodes that replace those of the one before. */
static void replace_nodes(struct env *e, uint64_t *old, unsigned *n_old,
			  unsigned n, uint64_t *highest)
{
	uint64_t blk[256];

	for (unsigned i = 0; i < n; i++) {
		ck_ok(alloc_node(e->a, AREA_META, &blk[i]));
		if (blk[i] > *highest)
			*highest = blk[i];
	}
	for (unsigned i = 0; i < *n_old; i++)
		alloc_free(e->a, old[i], NODE, e->gen - 1);
	memcpy(old, blk, n * sizeof(*blk));
	*n_old = n;
	commit(e);
}

START_TEST(small_generations_write_where_something_was_before)
{
	uint64_t old[256], highest = 0, before;
	unsigned n = 0;
	struct env e;

	setup(&e, 8 * CHUNK);
	for (unsigned i = 0; i < 5; i++)
		replace_nodes(&e, old, &n, 4, &highest);
	before = highest;
	for (unsigned i = 0; i < 50; i++)
		replace_nodes(&e, old, &n, 4, &highest);
	ck_assert_uint_eq(highest, before);
	/* a large one goes on in a row, but for its beginning */
	replace_nodes(&e, old, &n, 100, &highest);
	for (unsigned i = 16; i + 1 < 100; i++)
		ck_assert_uint_eq(old[i + 1], old[i] + NODE);
	ck_assert_uint_gt(old[99], before);
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

START_TEST(a_run_of_data_ends_where_a_chunk_for_nodes_begins)
{
	uint64_t node, blk, got;
	struct env e;

	setup(&e, 32 * CHUNK);
	own_at(&e, 20, 3 * CHUNK); /* the first node comes after it */
	ck_ok(alloc_node(e.a, AREA_META, &node));
	ck_ok(alloc_node(e.a, AREA_META, &node));
	ck_assert_uint_eq(node, 4 * CHUNK + NODE);
	alloc_free(e.a, 4 * CHUNK, NODE, 1);
	commit(&e); /* the chunk for nodes begins with free blocks again */
	ck_ok(alloc_take(e.a, AREA_DATA, 4 * CHUNK - 50, 200, &blk, &got));
	ck_assert_uint_eq(blk, 4 * CHUNK - 50);
	ck_assert_uint_eq(got, 50);
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

START_TEST(what_the_log_may_name_waits_like_what_a_superblock_names)
{
	struct env e;

	setup(&e, 4096);
	own_at(&e, 1000, 8);
	alloc_logged(e.a);
	alloc_free(e.a, 1000, 8, 1);
	commit(&e);
	ck_assert(!can_take(&e, 1000));
	commit(&e);
	ck_assert(can_take(&e, 1000));
	/* in a generation without a log they do not */
	own_at(&e, 2000, 8);
	alloc_free(e.a, 2000, 8, e.gen);
	commit(&e);
	ck_assert(can_take(&e, 2000));
	teardown(&e);
}
END_TEST

START_TEST(blocks_can_be_claimed_by_address_if_all_are_free)
{
	uint64_t blk, got;
	struct env e;

	setup(&e, 4096);
	ck_ok(alloc_claim(e.a, 1000, 8));
	ck_assert(alloc_owned(e.a, 1000, 8));
	ck_assert(!alloc_owned(e.a, 999, 8) && !alloc_owned(e.a, 1001, 8));
	ck_assert(!alloc_owned(e.a, 16, 4));
	ck_assert(!alloc_owned(e.a, 1000, UINT64_MAX));
	ck_assert_int_eq(alloc_claim(e.a, 1007, 8), -EBUSY);
	ck_ok(alloc_take(e.a, AREA_DATA, 2000, 1, &blk, &got));
	ck_assert_int_eq(alloc_claim(e.a, 1990, 20), -EBUSY);
	ck_assert_int_eq(alloc_claim(e.a, 16, 1), -EINVAL);
	ck_assert_int_eq(alloc_claim(e.a, 4090, 3), -EINVAL);
	ck_assert_int_eq(alloc_claim(e.a, UINT64_MAX, 3), -EINVAL);
	ck_assert_uint_eq(info(&e).free, 4096 - RESERVED - 9);
	commit(&e);
	ck_assert(fake_used(&e.f, 1007) && !fake_used(&e.f, 1008));
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
	alloc_note_trees(e.a, 1000, 10, 0);
	before = info(&e).reserve;
	for (at = 10000; at < 20000; at += 2)
		ck_ok(alloc_ref(e.a, at, 1, 1, 0));
	ck_assert_uint_ge(info(&e).reserve, before + 1000 * 2 * NODE);
	teardown(&e);
}
END_TEST

START_TEST(changed_chunks_raise_the_reserve)
{
	uint64_t before, n;
	struct env e;

	setup(&e, 200 * CHUNK);
	commit(&e);
	alloc_note_trees(e.a, 1, 50, 0);
	before = info(&e).reserve;
	for (n = 1; n < 190; n++)
		own_at(&e, n * CHUNK + 30, 1);
	ck_assert_uint_ge(info(&e).reserve, before + 50 * 2 * NODE);
	commit(&e);
	ck_assert_uint_eq(info(&e).reserve, before);
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

static void add_space(Suite *s)
{
	TCase *tc = add_case(s, "placing");

	tcase_add_test(tc, all_but_the_superblocks_is_free_at_first);
	tcase_add_test(tc, impossible_sizes_are_refused);
	tcase_add_test(tc, data_goes_on_at_the_hint);
	tcase_add_test(tc, a_run_goes_on_over_chunk_borders);
	tcase_add_test(tc,
		the_longest_run_near_by_is_taken_where_none_is_long_enough);
	tcase_add_test(tc,
		nodes_are_aligned_and_copies_lie_in_different_halves);
	tcase_add_test(tc, copies_start_far_apart_on_a_tiny_device);
	tcase_add_test(tc,
		       small_generations_write_where_something_was_before);
	tcase_add_test(tc, nodes_and_data_share_no_chunk_while_there_is_room);
	tcase_add_test(tc, a_run_of_data_ends_where_a_chunk_for_nodes_begins);
	tcase_add_test(tc,
		each_area_takes_the_others_chunks_when_nothing_else_is_left);
	tcase_add_test(tc, every_block_is_handed_out_once_whatever_the_size);
	tc = add_case(s, "waiting");
	tcase_add_test(tc,
		what_an_older_superblock_names_waits_for_two_commits);
	tcase_add_test(tc, a_close_alone_gives_nothing_back);
	tcase_add_test(tc, what_no_superblock_named_waits_for_readers_only);
	tcase_add_test(tc, readers_hold_back_what_a_commit_would_give_back);
	tcase_add_test(tc, blocks_given_back_are_free_again);
	tcase_add_test(tc,
		what_the_log_may_name_waits_like_what_a_superblock_names);
	tcase_add_test(tc, blocks_can_be_claimed_by_address_if_all_are_free);
	tcase_add_test(tc, a_hold_keeps_what_the_durable_state_names);
	tcase_add_test(tc, a_full_device_breaks_a_hold);
	tc = add_case(s, "reserve");
	tcase_add_test(tc, data_leaves_the_reserve_to_nodes);
	tcase_add_test(tc, classes_reach_into_the_reserve_in_their_order);
	tcase_add_test(tc, gathered_references_raise_the_reserve);
	tcase_add_test(tc, changed_chunks_raise_the_reserve);
	tcase_add_test(tc, single_free_blocks_go_to_data_and_starve_no_nodes);
}

int main(void)
{
	Suite *s = suite_create("alloc");

	add_space(s);
	return test_main(s);
}
