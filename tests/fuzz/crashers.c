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
	{ "SEEK_HOLE where data are, in a leaf reached by another's keys",
	  "0e0029000000040000001b000089c9c9c9c9c9c9c9c9000eefffffff00ffffffb0"
	  "b0b097855190ff7f0000b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b004"
	  "00ff00000026000e00" },
	{ "a name of 255 letters that need escapes, in a message of fsck",
	  "6cffff0000000000edededededbcbcbc3a43bcc5bcbcbcbcacbcbcbcbcbcbceded0b"
	  "000000ededededed00000000100000f8000e000000000000c9000400000000000000"
	  "0000ededed0e23000000000000000000263f" },
	{ "the snapshot tree's root is the live tree's: repaired, it was still",
	  "05b5df48dd599f9b6a5634e968308739" },
	{ "data that the first pass of a repair took for somebody else's",
	  "afc9341144e06112808f6ee4287b3d512d7fc79f795d2932596b7026eae75c3a12d7"
	  "68e35c704538" },
	{ "the same, with more steps",
	  "63a348dfd46b544dc5a15e4c43408730d0e20232bd2e8a5efa38da375fa56f4c566d"
	  "36a58c7557e9d096647695f7641ad906ef1e616717234305b610866555dee2c35771"
	  "5daa64350c09082bedfe3f94650993b909f2bfbe93273d80692fb57f5fb5822a" },
	{ "a root directory without links, made an orphan by a repair",
	  "00b65dfc00b65dfcfcf8fcfcfc00fcfcefefefefefefefefefefefefefefefefefef"
	  "efefeffc7c24fcfc0000000000000000000000000000000000fc00fcfcfc7cfcfcfc"
	  "fc7c2400000000b65dfc00b65dfcfcef" },
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
