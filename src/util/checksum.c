/*
 * checksum.c - the one checksum function
 *
 * CRC-32 as zlib defines it. ISA-L computes the same value with carry-less
 * multiplication, many times faster; zlib is the fallback and what the tests
 * compare with. A disk written by one build reads in any other.
 */
#include "util/util.h"

#ifdef COWFS_NOVERIFY

/*
 * Neither computed nor verified: all are 0, so that everything compares equal.
 * Superblocks included: no other build opens what this one makes, and this one
 * opens nothing that another made. Crashes and rot go unnoticed.
 */
uint32_t checksum(uint32_t crc, const void *buf, size_t len)
{
	(void)crc;
	(void)buf;
	(void)len;
	return 0;
}

#elif defined(HAVE_ISAL)

#include <isa-l/crc.h>

uint32_t checksum(uint32_t crc, const void *buf, size_t len)
{
	return crc32_gzip_refl(crc, buf, len);
}

#else

#include <zlib.h>

uint32_t checksum(uint32_t crc, const void *buf, size_t len)
{
	/* zlib takes a null pointer for a request of the initial value. */
	if (len == 0)
		return crc;
	return (uint32_t)crc32_z(crc, buf, len);
}

#endif

void checksum_blocks(const void *buf, size_t n, uint32_t *csum)
{
	const uint8_t *p = buf;
	size_t i;

	for (i = 0; i < n; i++)
		csum[i] = checksum(0, p + i * COWFS_BLOCK_SIZE,
				   COWFS_BLOCK_SIZE);
}
