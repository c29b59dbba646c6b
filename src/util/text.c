/*
 * text.c - which bytes a terminal only shows
 */
#include "cowfs/text.h"
#include "util/util.h"

/* Bytes of a sequence that begins so (RFC 3629). 0: none does. */
static size_t sequence(uint8_t first)
{
	if (first < 0x80)
		return 1;
	if (first < 0xc2 || first > 0xf4)
		return 0;
	return first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

/* Overlong, a surrogate, or beyond U+10FFFF. */
static bool impossible(uint8_t first, uint8_t second)
{
	return (first == 0xe0 && second < 0xa0) ||
	       (first == 0xed && second > 0x9f) ||
	       (first == 0xf0 && second < 0x90) ||
	       (first == 0xf4 && second > 0x8f);
}

static bool is_control(const uint8_t *p)
{
	return p[0] < 0x20 || p[0] == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0);
}

size_t cowfs_shown(const char *s, size_t len)
{
	const uint8_t *p = (const uint8_t *)s;
	size_t n = len ? sequence(p[0]) : 0;

	if (!n || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return is_control(p) || (n > 1 && impossible(p[0], p[1])) ? 0 : n;
}
