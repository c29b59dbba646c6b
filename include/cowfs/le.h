/*
 * le.h - little-endian integers as they lie on disk
 *
 * Structs of bytes: no alignment, no padding, and forgetting to convert does
 * not compile. Compilers turn the shifts into one load or store.
 */
#ifndef COWFS_LE_H
#define COWFS_LE_H

#include <stdint.h>

struct le16 { uint8_t b[2]; };
struct le32 { uint8_t b[4]; };
struct le64 { uint8_t b[8]; };

static inline uint16_t from_le16(struct le16 v)
{
	return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t from_le32(struct le32 v)
{
	return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 |
	       (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
}

static inline uint64_t from_le64(struct le64 v)
{
	return (uint64_t)v.b[0] | (uint64_t)v.b[1] << 8 |
	       (uint64_t)v.b[2] << 16 | (uint64_t)v.b[3] << 24 |
	       (uint64_t)v.b[4] << 32 | (uint64_t)v.b[5] << 40 |
	       (uint64_t)v.b[6] << 48 | (uint64_t)v.b[7] << 56;
}

static inline struct le16 to_le16(uint16_t x)
{
	return (struct le16){ { (uint8_t)x, (uint8_t)(x >> 8) } };
}

static inline struct le32 to_le32(uint32_t x)
{
	return (struct le32){ { (uint8_t)x, (uint8_t)(x >> 8),
				(uint8_t)(x >> 16), (uint8_t)(x >> 24) } };
}

static inline struct le64 to_le64(uint64_t x)
{
	return (struct le64){ { (uint8_t)x, (uint8_t)(x >> 8),
				(uint8_t)(x >> 16), (uint8_t)(x >> 24),
				(uint8_t)(x >> 32), (uint8_t)(x >> 40),
				(uint8_t)(x >> 48), (uint8_t)(x >> 56) } };
}

#endif
