/*
 * test.h - what all test programs share: a seed, random numbers, a main
 *
 *	int main(void)
 *	{
 *		return test_main(imap_suite());
 *	}
 *
 * Environment: SEED repeats a run that failed (it is printed at the start),
 * ROUNDS multiplies the work of randomized tests.
 */
#ifndef TEST_H
#define TEST_H

#include <check.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Run the suite; the program's exit status: 0 if nothing failed. */
int test_main(Suite *s);

/* A case of which each test, at most `seconds` long (0: as long as it takes),
 * stands between `before` and `after` (NULL: nothing); add: adds the tests. */
void test_case(Suite *s, const char *name, double seconds, SFun before,
	       SFun after, void (*add)(TCase *));

/* The seed of this run: $SEED, or a new one. Printed on the first call, which
 * test_main makes. */
uint64_t test_seed(void);

/* n, times $ROUNDS if that is set (a decimal fraction is fine; at least 1). */
unsigned test_rounds(unsigned n);

/* xorshift64* (Marsaglia 2003, Vigna 2016): the same everywhere. */
struct rng { uint64_t state; };

/* Streams of different numbers are unrelated. */
void rng_init(struct rng *r, uint64_t seed, uint64_t stream);
uint64_t rng_next(struct rng *r);
/* 0 .. n-1; n > 0 */
uint64_t rng_below(struct rng *r, uint64_t n);
/* lo .. hi */
uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi);
/* true once in n times */
bool rng_one_in(struct rng *r, uint64_t n);
void rng_fill(struct rng *r, void *buf, size_t len);

/*
 * Messages of the library are expected in many tests. This keeps them off the
 * terminal and counts them until test_log_show; test_log_last is the newest
 * one. For tests with one thread.
 */
void test_log_hide(void);
void test_log_show(void);
unsigned test_log_count(void);
const char *test_log_last(void);

/* ck_assert for a call that returns 0 or a negative errno */
#define ck_ok(call)                                                       \
	do {                                                              \
		int ck_err_ = (call);                                     \
		ck_assert_msg(ck_err_ == 0, "%s: %d (%s)", #call, ck_err_, \
			      test_errname(ck_err_));                     \
	} while (0)
#define ck_err(call, want)                                                \
	do {                                                              \
		int ck_err_ = (call);                                     \
		ck_assert_msg(ck_err_ == (want), "%s: %d (%s), not %s",   \
			      #call, ck_err_, test_errname(ck_err_),      \
			      #want);                                     \
	} while (0)
const char *test_errname(int err);

/* ck_assert for inner loops: Check takes a note of each ck_assert that holds,
 * with a system call. */
#define ck_fast(cond)                                                     \
	do {                                                              \
		if (!(cond))                                              \
			ck_abort_msg("%s", #cond);                        \
	} while (0)

#endif
