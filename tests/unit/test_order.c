/*
 * test_order.c - the check of the order of locks: what it ends, and what not
 *
 * In a build without it there is nothing to test but that such builds have
 * none of it.
 */
#include <signal.h>

#include "support/test.h"
#include "util/util.h"

static struct mutex outer, inner, one, two;
static struct rwlock tree;

static void setup(void)
{
	mutex_init(&outer, LOCK_COMMIT);
	mutex_init(&inner, LOCK_WAIT);
	mutex_init_numbered(&one, LOCK_INODE, 1001);
	mutex_init_numbered(&two, LOCK_INODE, 1002);
	rwlock_init(&tree, LOCK_TREE);
}

static void teardown(void)
{
	rwlock_fini(&tree);
	mutex_fini(&two);
	mutex_fini(&one);
	mutex_fini(&inner);
	mutex_fini(&outer);
}

START_TEST(the_order_of_the_table_is_fine)
{
	for (int i = 0; i < 3; i++) {
		mutex_lock(&one);
		mutex_lock(&two);
		mutex_lock(&outer);
		rwlock_rdlock(&tree);
		mutex_lock(&inner);
		/* and back in any order */
		mutex_unlock(&one);
		mutex_unlock(&inner);
		mutex_unlock(&outer);
		rwlock_unlock(&tree);
		mutex_unlock(&two);
	}
	rwlock_wrlock(&tree);
	rwlock_unlock(&tree);
	mutex_lock(&outer);
	mutex_unlock(&outer);
}
END_TEST

#ifdef COWFS_LOCK_CHECK

START_TEST(a_try_may_come_out_of_order_as_it_cannot_wait)
{
	mutex_lock(&inner);
	ck_assert(mutex_trylock(&outer));
	mutex_unlock(&outer);
	mutex_unlock(&inner);
}
END_TEST

START_TEST(io_under_the_tree_lock_is_fine_where_it_was_announced)
{
	rwlock_wrlock(&tree);
	order_tree_io(true);
	order_io();
	order_tree_io(false);
	rwlock_unlock(&tree);
	order_io();
}
END_TEST

/* The rest ends by SIGABRT; the message on stderr is expected. */
static void quiet(void)
{
	ck_assert(freopen("/dev/null", "w", stderr));
}

START_TEST(an_outer_lock_after_an_inner_one_aborts)
{
	mutex_lock(&inner);
	quiet();
	mutex_lock(&outer);
}
END_TEST

START_TEST(it_aborts_though_nobody_else_has_ever_held_them)
{
	rwlock_rdlock(&tree);
	quiet();
	mutex_lock(&one);
}
END_TEST

START_TEST(the_greater_number_first_aborts)
{
	mutex_lock(&two);
	quiet();
	mutex_lock(&one);
}
END_TEST

START_TEST(two_of_a_rank_without_numbers_abort)
{
	struct mutex a, b;

	mutex_init(&a, LOCK_LEAF);
	mutex_init(&b, LOCK_LEAF);
	mutex_lock(&a);
	quiet();
	mutex_lock(&b);
}
END_TEST

START_TEST(reading_twice_aborts)
{
	rwlock_rdlock(&tree);
	quiet();
	rwlock_rdlock(&tree);
}
END_TEST

START_TEST(what_a_try_got_counts)
{
	ck_assert(mutex_trylock(&inner));
	quiet();
	mutex_lock(&outer);
}
END_TEST

START_TEST(unlocking_what_is_not_held_aborts)
{
	rwlock_rdlock(&tree);
	rwlock_unlock(&tree);
	quiet();
	rwlock_unlock(&tree);
}
END_TEST

START_TEST(io_under_the_tree_lock_aborts)
{
	rwlock_rdlock(&tree);
	quiet();
	order_io();
}
END_TEST

START_TEST(waiting_under_the_tree_lock_aborts)
{
	pthread_cond_t c;

	cond_init(&c);
	rwlock_rdlock(&tree);
	mutex_lock(&inner);
	quiet();
	(void)cond_wait_ms(&c, &inner, 1);
}
END_TEST

START_TEST(coming_back_from_a_wait_keeps_the_order)
{
	pthread_cond_t c;

	cond_init(&c);
	mutex_lock(&outer);
	mutex_lock(&inner);
	quiet();
	/* outer would have to be taken again under inner */
	(void)cond_wait_ms(&c, &outer, 1);
}
END_TEST

#else

START_TEST(a_build_without_the_check_has_none_of_it)
{
	mutex_lock(&inner);
	mutex_lock(&outer);
	mutex_unlock(&outer);
	mutex_unlock(&inner);
}
END_TEST

#endif

static Suite *order_suite(void)
{
	Suite *su = suite_create("order");
	TCase *tc = tcase_create("order");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_order_of_the_table_is_fine);
#ifdef COWFS_LOCK_CHECK
#define ABORTS(test) tcase_add_test_raise_signal(tc, test, SIGABRT)
	tcase_add_test(tc, a_try_may_come_out_of_order_as_it_cannot_wait);
	tcase_add_test(tc,
		       io_under_the_tree_lock_is_fine_where_it_was_announced);
	ABORTS(an_outer_lock_after_an_inner_one_aborts);
	ABORTS(it_aborts_though_nobody_else_has_ever_held_them);
	ABORTS(the_greater_number_first_aborts);
	ABORTS(two_of_a_rank_without_numbers_abort);
	ABORTS(reading_twice_aborts);
	ABORTS(what_a_try_got_counts);
	ABORTS(unlocking_what_is_not_held_aborts);
	ABORTS(io_under_the_tree_lock_aborts);
	ABORTS(waiting_under_the_tree_lock_aborts);
	ABORTS(coming_back_from_a_wait_keeps_the_order);
#else
	tcase_add_test(tc, a_build_without_the_check_has_none_of_it);
#endif
	suite_add_tcase(su, tc);
	return su;
}

int main(void)
{
	return test_main(order_suite());
}
