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
	  "000029000000040000001b000089c9c909c9c9c9c9c9000eefffffff00ffffffb0b0"
	  "b097855190ff0f0000b0b0b0b0b0b0b0b0b000b0b0b0b0b0b0b0b0b0b0b000b00400"
	  "ff00000026000e00" },
	{ "a name of 255 letters that need escapes, in a message of fsck",
	  "03ffff0000000000edededededbcbcbc0a43bcc5bcbcbcbcacbcbcbc0cbcbceded0b"
	  "000000ededed0ded00000000100000f8000e000000000000c9000400000000000000"
	  "0000ededed0e23000000000000000000263f" },
	{ "the snapshot tree's root is the live tree's: repaired, it was still",
	  "05b5df480d599f9b6a5634e968308739" },
	{ "data that the first pass of a repair took for somebody else's",
	  "00c9341104e06112808f6ee4287b3d510d7fc79f795d2932596b70260ae75c3a12d7"
	  "68e35c704538" },
	{ "the same, with more steps",
	  "01a348df046b544dc5a15e4c4340873000e20232bd2e8a5efa38da370fa56f4c566d"
	  "36a58c7557e90096647695f7641ad906ef1e016717234305b610866555de02c35771"
	  "5daa64350c09082b0dfe3f94650993b909f2bfbe03273d80692fb57f5fb5822a" },
	{ "a root directory without links, made an orphan by a repair",
	  "00b65dfc00b65dfcfcf8fcfcfc00fcfc0fefefefefefefefefefefef0fefefefefef"
	  "efefeffc7c240cfc0000000000000000000000000000000000fc00fcfcfc0cfcfcfc"
	  "fc7c2400000000b65dfc00b65dfcfcef" },
	{ "blocks of a file that two extents map, rescued twice",
	  "dd86dfcd5e6e1ef131293e68dd9b4a48915a1eea637ae6051fbef3e1da3ac75d3b62"
	  "933045e3227463db31d5e25fa47f01eaf7e5971ea0e6ba9f397aeddc3e62" },
	{ "nodes that only the stale side of a mirror has, found by a repair",
	  "092d714effffffff57a93d390902761740e2ce0a25cc71bf06c80902761740e2ce0a"
	  "25cc71bf06c873a6afdafa1f5802badbb6c1ffffff0b0f921d4e73a6afdafa1f5802"
	  "badbb6c1ffffff0b0f921d4ee4" },
	{ "more copies in the superblock than in their tree, to be given back",
	  "43db0594b9ea12254e6886577f130f15" },
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
