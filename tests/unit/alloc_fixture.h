/*
 * alloc_fixture.h - an allocator with a store and generations around it
 */
#ifndef TEST_ALLOC_FIXTURE_H
#define TEST_ALLOC_FIXTURE_H

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

static inline void setup_with(struct env *e, uint64_t blocks,
			      unsigned node_blocks)
{
	memset(e, 0, sizeof(*e));
	grace_init(&e->grace);
	fake_init(&e->f, blocks);
	e->gen = 1;
	e->blocks = blocks;
	ck_ok(alloc_new(blocks, node_blocks, 2, 1, &e->grace, &e->a));
}

static inline void setup(struct env *e, uint64_t blocks)
{
	setup_with(e, blocks, NODE);
}

static inline void teardown(struct env *e)
{
	alloc_free_all(e->a);
	fake_fini(&e->f);
	grace_fini(&e->grace);
}

static inline void commit(struct env *e)
{
	ck_ok(fake_flush(&e->f, e->a));
	alloc_close(e->a, e->gen);
	alloc_durable(e->a, e->gen);
	e->gen++;
}

static inline struct alloc_info info(struct env *e)
{
	struct alloc_info i;

	alloc_info(e->a, &i);
	ck_assert_uint_eq(i.blocks, e->blocks);
	ck_assert_uint_le(i.free + i.pending, 2 * i.blocks);
	return i;
}

/* Exactly these blocks, taken and owned in the running generation. */
static inline void own_at(struct env *e, uint64_t at, uint64_t len)
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

static inline bool can_take(struct env *e, uint64_t at)
{
	uint64_t blk = 0, got;

	if (alloc_take(e->a, AREA_DATA, at, 1, &blk, &got))
		return false;
	alloc_give_back(e->a, blk, 1);
	return blk == at;
}

/* Data until there is none: blocks taken and owned. */
static inline uint64_t fill(struct env *e, uint64_t want)
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

static inline uint64_t nodes_left(struct env *e)
{
	uint64_t blk, n = 0;
	int err;

	while (!(err = alloc_node(e->a, n % 2 ? AREA_META2 : AREA_META, &blk)))
		n++;
	ck_assert_int_eq(err, -ENOSPC);
	return n;
}

static inline TCase *add_case(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	tcase_set_timeout(tc, 120);
	suite_add_tcase(s, tc);
	return tc;
}

#endif
