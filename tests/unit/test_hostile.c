/*
 * test_hostile.c - images that were made to do harm do none
 *
 * What the fuzzer found once, and some random recipes each time. The bytes of
 * the recipe that a test died of are printed: they belong into crashers.c.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fuzz/hostile.h"

static uint8_t recipe[RECIPE_MAX];
static size_t recipe_len;

/* Only what a signal handler may do. */
static void dying(int sig)
{
	static const char hex[] = "0123456789abcdef";
	char text[2 * RECIPE_MAX + 9] = "recipe: ";
	size_t i, n = 8;
	ssize_t written;

	for (i = 0; i < recipe_len; i++) {
		text[n++] = hex[recipe[i] >> 4];
		text[n++] = hex[recipe[i] & 15];
	}
	text[n++] = '\n';
	written = write(STDOUT_FILENO, text, n);
	(void)written;
	signal(sig, SIG_DFL);
	raise(sig);
}

static void watch(void)
{
	signal(SIGABRT, dying);
	signal(SIGSEGV, dying);
	signal(SIGFPE, dying);
	signal(SIGALRM, dying);
	test_log_hide();
}

/* A run that takes longer than this hangs. */
static void run(void)
{
	alarm(30);
	recipe_run(recipe, recipe_len);
	alarm(0);
}

START_TEST(what_once_did_harm_does_none)
{
	recipe_len = crasher_bytes(&crashers[_i], recipe);
	run();
}
END_TEST

START_TEST(random_recipes_do_no_harm)
{
	unsigned i, n = test_rounds(350);
	struct rng r;

	rng_init(&r, test_seed(), 21);
	for (i = 0; i < n; i++) {
		/* few steps mostly: many hide each other */
		recipe_len = RECIPE_HEAD +
			     RECIPE_STEP * rng_range(&r, 1,
				rng_range(&r, 1, RECIPE_STEPS));
		rng_fill(&r, recipe, recipe_len);
		run();
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("hostile");
	TCase *tc = tcase_create("recipes");

	tcase_add_unchecked_fixture(tc, watch, NULL);
	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, what_once_did_harm_does_none, 0,
			    (int)crasher_count);
	tcase_add_test(tc, random_recipes_do_no_harm);
	suite_add_tcase(s, tc);
	return test_main(s);
}
