/*
 * crashers.c - recipes that once did harm
 *
 * They mean something for the images that base.c makes today. Where those
 * change, keep what is here all the same: a recipe is as good as any other.
 */
#include <string.h>

#include "fuzz/hostile.h"
#include "util/util.h"

const struct crasher crashers[] = {
	{ "nothing is changed", "00000000" },
};
const size_t crasher_count = ARRAY_SIZE(crashers);

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

size_t crasher_bytes(const struct crasher *c, uint8_t out[RECIPE_MAX])
{
	size_t i, n = min_u64(strlen(c->hex) / 2, RECIPE_MAX);

	for (i = 0; i < n; i++)
		out[i] = (uint8_t)(digit(c->hex[2 * i]) << 4 |
				   digit(c->hex[2 * i + 1]));
	return n;
}
