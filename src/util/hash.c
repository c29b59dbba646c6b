/*
 * hash.c - SipHash-2-4
 *
 * After "SipHash: a fast short-input PRF" (Aumasson, Bernstein 2012). Keyed,
 * so that nobody who does not know the key can make names collide.
 */
#include "util/util.h"

struct sip { uint64_t a, b, c, d; };

static uint64_t rotl(uint64_t x, unsigned n)
{
	return x << n | x >> (64 - n);
}

static uint64_t load(const uint8_t *p)
{
	struct le64 v;

	memcpy(&v, p, sizeof(v));
	return from_le64(v);
}

static void rounds(struct sip *s, unsigned n)
{
	while (n-- > 0) {
		s->a += s->b;
		s->c += s->d;
		s->b = rotl(s->b, 13) ^ s->a;
		s->d = rotl(s->d, 16) ^ s->c;
		s->a = rotl(s->a, 32);
		s->c += s->b;
		s->a += s->d;
		s->b = rotl(s->b, 17) ^ s->c;
		s->d = rotl(s->d, 21) ^ s->a;
		s->c = rotl(s->c, 32);
	}
}

static void absorb(struct sip *s, uint64_t word)
{
	s->d ^= word;
	rounds(s, 2);
	s->a ^= word;
}

uint64_t siphash(const uint8_t key[16], const void *buf, size_t len)
{
	const uint8_t *p = buf;
	uint64_t k0 = load(key), k1 = load(key + 8);
	struct sip s = {
		.a = k0 ^ UINT64_C(0x736f6d6570736575),
		.b = k1 ^ UINT64_C(0x646f72616e646f6d),
		.c = k0 ^ UINT64_C(0x6c7967656e657261),
		.d = k1 ^ UINT64_C(0x7465646279746573),
	};
	uint64_t last = (uint64_t)(len & 0xff) << 56;
	size_t i;

	for (; len >= 8; p += 8, len -= 8)
		absorb(&s, load(p));
	for (i = 0; i < len; i++)
		last |= (uint64_t)p[i] << 8 * i;
	absorb(&s, last);

	s.c ^= 0xff;
	rounds(&s, 4);
	return s.a ^ s.b ^ s.c ^ s.d;
}
