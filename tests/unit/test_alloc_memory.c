/*
 * test_alloc_memory.c - the allocator when memory runs out
 *
 * The n-th allocation of a scenario fails, for n = 1, 2, ... until it passes;
 * once alone, once with all that follow. What reports -ENOMEM must have changed
 * nothing; freeing, which can't report, must have stopped the next commit.
 */
#include <stdlib.h>

static unsigned long allow = (unsigned long)-1; /* calls that still succeed */
static int for_good;
static unsigned long failures;

static int fails(void)
{
	if (allow > 1) {
		allow--;
		return 0;
	}
	failures++;
	allow = for_good ? 0 : (unsigned long)-1;
	return 1;
}

static void *limited_malloc(size_t n)
{
	return fails() ? NULL : malloc(n);
}

static void *limited_calloc(size_t n, size_t size)
{
	return fails() ? NULL : calloc(n, size);
}

static void *limited_realloc(void *p, size_t n)
{
	return fails() ? NULL : realloc(p, n);
}

#define malloc limited_malloc
#define calloc limited_calloc
#define realloc limited_realloc
#define usable usable_of_chunk
#include "../../src/alloc/alloc.c"
#include "../../src/alloc/chunk.c"
#include "../../src/alloc/flush.c"
#include "../../src/alloc/map.c"
#include "../../src/alloc/pending.c"
#undef usable
#include "../../src/alloc/policy.c"
#include "../../src/alloc/refs.c"
#include "../../src/alloc/reserve.c"
#include "../../src/alloc/space.c"
#undef malloc
#undef calloc
#undef realloc
#undef CHUNK

#include "unit/alloc_fixture.h"

static void limit(unsigned long n, bool good)
{
	allow = n;
	for_good = good;
}

static void no_limit(void)
{
	allow = (unsigned long)-1;
}

/* A call that may fail for want of memory and then has changed nothing. */
#define TRY(call)                                                        \
	do {                                                             \
		struct alloc_info was_ = info(e), is_;                   \
		int err_ = (call);                                       \
		if (err_) {                                              \
			ck_assert_int_eq(err_, -ENOMEM);                 \
			is_ = info(e);                                   \
			ck_assert_uint_eq(is_.free, was_.free);          \
			ck_assert_uint_eq(is_.pending, was_.pending);    \
			ck_assert_uint_eq(is_.stored_free,               \
					  was_.stored_free);             \
			no_limit();                                      \
			ck_ok(call); /* as if nothing had been */        \
		}                                                        \
	} while (0)

/* Returns whether commits have ended. */
static bool scenario(struct env *e)
{
	uint64_t blk, got, node, i;
	int err;

	TRY(alloc_take(e->a, AREA_DATA, 5 * CHUNK - 30, 60, &blk, &got));
	alloc_own(e->a, blk, got - 10);
	alloc_give_back(e->a, blk + got - 10, 10);
	TRY(alloc_node(e->a, AREA_META, &node));
	TRY(alloc_claim(e->a, 8 * CHUNK, CHUNK));
	for (i = 0; i < 40; i++) /* a full chunk gets bits; batches grow */
		alloc_free(e->a, 8 * CHUNK + 2 * i, 1, i % 2);
	alloc_free(e->a, node, NODE, 1);
	err = fake_flush(&e->f, e->a);
	ck_assert(!err || err == -ENOMEM);
	if (err)
		return true;
	alloc_close(e->a, e->gen);
	alloc_durable(e->a, e->gen);
	alloc_close(e->a, e->gen + 1);
	alloc_durable(e->a, e->gen + 1);
	no_limit();
	/* what could not be given back before is now */
	alloc_close(e->a, e->gen + 2);
	alloc_durable(e->a, e->gen + 2);
	alloc_close(e->a, e->gen + 3);
	alloc_durable(e->a, e->gen + 3);
	ck_assert_uint_eq(info(e).pending, 0);
	return false;
}

static void until_it_passes(bool good)
{
	unsigned long n;
	unsigned stops = 0;
	struct env e;

	test_log_hide();
	failures = 1;
	for (n = 1; failures; n++) {
		setup(&e, 10 * CHUNK);
		limit(n, good);
		failures = 0;
		stops += scenario(&e);
		no_limit();
		teardown(&e);
	}
	test_log_show();
	ck_assert_uint_gt(n, 10);
	ck_assert_uint_gt(stops, 0);
}

START_TEST(one_failed_allocation_does_no_harm)
{
	until_it_passes(false);
}
END_TEST

START_TEST(no_memory_for_good_does_no_harm)
{
	until_it_passes(true);
}
END_TEST

START_TEST(an_allocator_that_cannot_be_made_leaves_nothing)
{
	struct alloc *a = NULL;
	struct grace g;
	unsigned long n;
	int err = -ENOMEM;

	grace_init(&g);
	for (n = 1; err; n++) {
		limit(n, true);
		err = alloc_new(UINT64_C(1) << 30, NODE, 2, 1, &g, &a);
		no_limit();
		ck_assert(!err || (err == -ENOMEM && !a));
	}
	ck_assert_uint_gt(n, 5);
	alloc_free_all(a);
	grace_fini(&g);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("alloc memory");
	TCase *tc = add_case(s, "memory");

	tcase_add_test(tc, one_failed_allocation_does_no_harm);
	tcase_add_test(tc, no_memory_for_good_does_no_harm);
	tcase_add_test(tc, an_allocator_that_cannot_be_made_leaves_nothing);
	return test_main(s);
}
