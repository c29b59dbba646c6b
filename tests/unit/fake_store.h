/*
 * fake_store.h - the allocator's maps without trees, for its tests
 *
 * Intervals in an array and records in a table. Residency is played: keys fall
 * into buckets, and what touches a bucket that is not resident gets -EAGAIN
 * until fake_load has been called, which evicts some of the others. With
 * `alloc` set, records live in pretended leaves of FAKE_LEAF chunks each, whose
 * nodes are copied once a generation: the first put takes new nodes and frees
 * the old ones.
 */
#ifndef TEST_FAKE_STORE_H
#define TEST_FAKE_STORE_H

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "alloc/alloc.h"
#include "support/test.h"

#define FAKE_BUCKETS 64
#define FAKE_BUCKET 256 /* blocks */
#define FAKE_LEAF 4     /* chunks */
#define FAKE_RECORD (sizeof(struct cowfs_disk_chunk) + COWFS_CHUNK_BYTES)

struct fake_leaf {
	uint64_t blk, blk2, gen;
};

struct fake {
	struct alloc_store ops;
	struct ref_ival *iv;
	size_t ivs, room;
	uint64_t chunks;
	uint8_t **rec; /* by chunk; NULL: none */
	size_t *len;

	struct rng *rng; /* NULL: everything is resident */
	bool in[2][FAKE_BUCKETS];
	bool *missing;
	unsigned again; /* how often -EAGAIN was returned */

	struct alloc *alloc;
	uint64_t gen;
	struct fake_leaf *leaf;
	unsigned puts;
};

static inline int fake_touch(struct fake *f, unsigned map, uint64_t key)
{
	bool *in = &f->in[map][key % FAKE_BUCKETS];

	if (!f->rng || *in)
		return 0;
	f->missing = in;
	f->again++;
	return -EAGAIN;
}

static inline void fake_load(struct fake *f)
{
	unsigned i, m;

	for (m = 0; m < 2; m++)
		for (i = 0; i < FAKE_BUCKETS; i++)
			f->in[m][i] &= !rng_one_in(f->rng, 10);
	assert(f->missing);
	*f->missing = true;
	f->missing = NULL;
}

/* Index of the first interval with start >= at. */
static inline size_t fake_find(const struct fake *f, uint64_t at)
{
	size_t lo = 0, hi = f->ivs;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (f->iv[mid].start < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline int fake_get(struct fake *f, uint64_t at, size_t i,
			   struct ref_ival *out)
{
	int err = fake_touch(f, 0, at / FAKE_BUCKET);

	if (err)
		return err;
	if (i >= f->ivs)
		return -ENOENT;
	err = fake_touch(f, 0, f->iv[i].start / FAKE_BUCKET);
	if (!err)
		*out = f->iv[i];
	return err;
}

static inline int fake_floor(void *arg, uint64_t at, struct ref_ival *out)
{
	struct fake *f = arg;

	/* Below 0 wraps round to "none". */
	return fake_get(f, at, fake_find(f, at + 1) - 1, out);
}

static inline int fake_ceil(void *arg, uint64_t at, struct ref_ival *out)
{
	return fake_get(arg, at, fake_find(arg, at), out);
}

static inline int fake_prepare(void *arg, uint64_t at)
{
	return fake_touch(arg, 0, at / FAKE_BUCKET);
}

static inline int fake_put(void *arg, const struct ref_ival *iv)
{
	struct fake *f = arg;
	size_t i = fake_find(f, iv->start);
	int err = fake_touch(f, 0, iv->start / FAKE_BUCKET);

	if (err)
		return err;
	f->puts++;
	if (i < f->ivs && f->iv[i].start == iv->start) {
		ck_assert_uint_eq(f->iv[i].len, iv->len);
		f->iv[i] = *iv;
		return 0;
	}
	if (f->ivs == f->room) {
		f->room = f->room ? f->room * 2 : 64;
		f->iv = realloc(f->iv, f->room * sizeof(*f->iv));
		ck_assert_ptr_nonnull(f->iv);
	}
	memmove(&f->iv[i + 1], &f->iv[i], (f->ivs - i) * sizeof(*f->iv));
	f->iv[i] = *iv;
	f->ivs++;
	return 0;
}

static inline int fake_del(void *arg, const struct ref_ival *iv)
{
	struct fake *f = arg;
	size_t i = fake_find(f, iv->start);
	int err = fake_touch(f, 0, iv->start / FAKE_BUCKET);

	if (err)
		return err;
	ck_assert(i < f->ivs && f->iv[i].start == iv->start &&
		  f->iv[i].len == iv->len);
	f->ivs--;
	memmove(&f->iv[i], &f->iv[i + 1], (f->ivs - i) * sizeof(*f->iv));
	return 0;
}

static inline int fake_space_prepare(void *arg, uint64_t chunk)
{
	return fake_touch(arg, 1, chunk / FAKE_LEAF);
}

static inline int fake_cow(struct fake *f, struct fake_leaf *leaf,
			   unsigned node_blocks)
{
	struct fake_leaf old = *leaf;
	int err;

	if (leaf->gen == f->gen)
		return 0;
	err = alloc_node(f->alloc, AREA_META, &leaf->blk);
	if (!err)
		err = alloc_node(f->alloc, AREA_META2, &leaf->blk2);
	if (err)
		return err;
	leaf->gen = f->gen;
	if (old.blk) {
		alloc_free(f->alloc, old.blk, node_blocks, old.gen);
		alloc_free(f->alloc, old.blk2, node_blocks, old.gen);
	}
	return 0;
}

#define FAKE_NODE 4 /* blocks */

static inline int fake_space_put(void *arg, uint64_t chunk, const void *rec,
				 size_t len)
{
	struct fake *f = arg;
	int err = fake_touch(f, 1, chunk / FAKE_LEAF);

	ck_assert(chunk < f->chunks && len <= FAKE_RECORD);
	if (!err && f->alloc)
		err = fake_cow(f, &f->leaf[chunk / FAKE_LEAF], FAKE_NODE);
	if (err)
		return err;
	if (len && !f->rec[chunk])
		f->rec[chunk] = malloc(FAKE_RECORD);
	if (len)
		memcpy(f->rec[chunk], rec, len);
	f->len[chunk] = len;
	return 0;
}

static inline void fake_init(struct fake *f, uint64_t blocks)
{
	memset(f, 0, sizeof(*f));
	f->chunks = (blocks - 1) / COWFS_CHUNK_BLOCKS + 1;
	f->rec = calloc(f->chunks, sizeof(*f->rec));
	f->len = calloc(f->chunks, sizeof(*f->len));
	f->leaf = calloc(f->chunks / FAKE_LEAF + 1, sizeof(*f->leaf));
	ck_assert(f->rec && f->len && f->leaf);
	f->ops = (struct alloc_store){
		.ref_floor = fake_floor,
		.ref_ceil = fake_ceil,
		.ref_put = fake_put,
		.ref_del = fake_del,
		.ref_prepare = fake_prepare,
		.space_put = fake_space_put,
		.space_prepare = fake_space_prepare,
		.arg = f,
	};
}

static inline void fake_fini(struct fake *f)
{
	uint64_t n;

	for (n = 0; n < f->chunks; n++)
		free(f->rec[n]);
	free(f->rec);
	free(f->len);
	free(f->leaf);
	free(f->iv);
}

/* Is a block used according to the records? */
static inline bool fake_used(const struct fake *f, uint64_t blk)
{
	uint64_t n = blk / COWFS_CHUNK_BLOCKS, i = blk % COWFS_CHUNK_BLOCKS;
	const uint8_t *bits;

	if (!f->len[n])
		return false;
	if (f->len[n] == sizeof(struct cowfs_disk_chunk))
		return true;
	bits = f->rec[n] + sizeof(struct cowfs_disk_chunk);
	return bits[i / 8] >> i % 8 & 1;
}

/* Intervals in order, disjoint, merged, none of them 0. */
static inline void fake_check_refs(const struct fake *f)
{
	size_t i;

	for (i = 0; i < f->ivs; i++) {
		const struct ref_ival *iv = &f->iv[i], *next = iv + 1;

		ck_assert(iv->len && iv->extra);
		if (i + 1 == f->ivs)
			break;
		ck_assert_uint_le(iv->start + iv->len, next->start);
		ck_assert(iv->start + iv->len < next->start ||
			  iv->extra != next->extra);
	}
}

/* A whole flush, with loading as a commit would. */
static inline int fake_flush(struct fake *f, struct alloc *a)
{
	int err;

	while ((err = alloc_preload(a, &f->ops)) == -EAGAIN)
		fake_load(f);
	if (err)
		return err;
	while ((err = alloc_flush(a, &f->ops)) == -EAGAIN)
		fake_load(f);
	return err;
}

#endif
