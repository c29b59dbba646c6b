/*
 * test.c - seed, random numbers, and the main of test programs
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "support/test.h"
#include "util/util.h"

static struct {
	bool set;
	uint64_t value;
} seed;

uint64_t test_seed(void)
{
	const char *env = getenv("SEED");

	if (seed.set)
		return seed.value;
	if (env)
		seed.value = strtoull(env, NULL, 0);
	else
		random_bytes(&seed.value, sizeof(seed.value));
	seed.set = true;
	printf("SEED=0x%" PRIx64 "\n", seed.value);
	fflush(stdout); /* before Check forks, or it is printed twice */
	return seed.value;
}

unsigned test_rounds(unsigned n)
{
	const char *env = getenv("ROUNDS");
	double r = env ? strtod(env, NULL) * n : n;

	if (!(r >= 1))
		return 1;
	return r < 4e9 ? (unsigned)r : 4000000000u;
}

void test_case(Suite *s, const char *name, double seconds, SFun before,
	       SFun after, void (*add)(TCase *))
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, before, after);
	tcase_set_timeout(tc, seconds);
	add(tc);
	suite_add_tcase(s, tc);
}

int test_main(Suite *s)
{
	SRunner *sr = srunner_create(s);
	int failed;

	(void)test_seed();
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

void rng_init(struct rng *r, uint64_t s, uint64_t stream)
{
	r->state = hash_u64(s ^ UINT64_C(0x9e3779b97f4a7c15) * (stream + 1));
	if (r->state == 0)
		r->state = 1; /* the one state that never changes */
	rng_next(r);
	rng_next(r);
}

uint64_t rng_next(struct rng *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * UINT64_C(0x2545f4914f6cdd1d);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	/* a bias of n / 2^64 does tests no harm */
	return rng_next(r) % n;
}

uint64_t rng_range(struct rng *r, uint64_t lo, uint64_t hi)
{
	return lo + rng_below(r, hi - lo + 1);
}

bool rng_one_in(struct rng *r, uint64_t n)
{
	return rng_below(r, n) == 0;
}

void rng_fill(struct rng *r, void *buf, size_t len)
{
	uint8_t *p = buf;
	uint64_t x;
	size_t n;

	for (; len > 0; p += n, len -= n) {
		x = rng_next(r);
		n = len < sizeof(x) ? len : sizeof(x);
		memcpy(p, &x, n);
	}
}

static struct {
	unsigned count;
	char last[1024];
} hidden;

static void hide(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	hidden.count++;
	snprintf(hidden.last, sizeof(hidden.last), "%s", line);
}

void test_log_hide(void)
{
	hidden.count = 0;
	hidden.last[0] = '\0';
	log_set_sink(hide, NULL);
}

void test_log_show(void)
{
	log_set_sink(NULL, NULL);
}

unsigned test_log_count(void)
{
	return hidden.count;
}

const char *test_log_last(void)
{
	return hidden.last;
}

const char *test_errname(int err)
{
	const char *name = strerrorname_np(err < 0 ? -err : err);

	return name ? name : "no error code";
}
