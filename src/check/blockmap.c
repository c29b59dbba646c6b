/*
 * blockmap.c - what each block of the device is, and how many refer to it
 *
 * Chunks of cells in groups, both made when first touched: memory follows the
 * blocks in use, not the size of the device.
 */
#include "check/private.h"

int blockmap_init(struct blockmap *m, uint64_t blocks)
{
	memset(m, 0, sizeof(*m));
	m->blocks = blocks;
	m->chunks = blocks / COWFS_CHUNK_BLOCKS +
		    (blocks % COWFS_CHUNK_BLOCKS != 0);
	m->groups = m->chunks / BLOCKMAP_GROUP + 1;
	m->group = calloc(m->groups, sizeof(*m->group));
	return m->group ? 0 : -ENOMEM;
}

void blockmap_fini(struct blockmap *m)
{
	if (!m->group)
		return;
	for (uint64_t g = 0; g < m->groups; g++) {
		if (!m->group[g])
			continue;
		for (unsigned i = 0; i < BLOCKMAP_GROUP; i++)
			free(m->group[g][i]);
		free(m->group[g]);
	}
	free(m->group);
	m->group = NULL;
}

struct blockmap_chunk *blockmap_chunk(const struct blockmap *m, uint64_t n)
{
	struct blockmap_chunk **group;

	if (n >= m->chunks)
		return NULL;
	group = m->group[n / BLOCKMAP_GROUP];
	return group ? group[n % BLOCKMAP_GROUP] : NULL;
}

static struct blockmap_chunk *make_chunk(struct blockmap *m, uint64_t n)
{
	struct blockmap_chunk ***group = &m->group[n / BLOCKMAP_GROUP];
	struct blockmap_chunk **chunk;

	if (!*group)
		*group = calloc(BLOCKMAP_GROUP, sizeof(**group));
	if (!*group)
		return NULL;
	chunk = &(*group)[n % BLOCKMAP_GROUP];
	if (!*chunk)
		*chunk = calloc(1, sizeof(**chunk));
	return *chunk;
}

int blockmap_cell(struct blockmap *m, uint64_t blk, struct cell *out)
{
	uint64_t n = blk / COWFS_CHUNK_BLOCKS;
	unsigned i = (unsigned)(blk % COWFS_CHUNK_BLOCKS);
	struct blockmap_chunk *chunk = blockmap_chunk(m, n);

	if (!chunk)
		chunk = make_chunk(m, n);
	if (!chunk)
		return -ENOMEM;
	out->count = &chunk->count[i];
	out->mark = &chunk->mark[i];
	return 0;
}

uint64_t blockmap_next(const struct blockmap *m, uint64_t n)
{
	while (n < m->chunks) {
		struct blockmap_chunk **group = m->group[n / BLOCKMAP_GROUP];

		if (!group)
			n = (n / BLOCKMAP_GROUP + 1) * BLOCKMAP_GROUP;
		else if (group[n % BLOCKMAP_GROUP])
			return n;
		else
			n++;
	}
	return m->chunks;
}

int blockmap_reserve(struct blockmap *m, uint64_t blk, uint64_t len,
		     enum mark kind)
{
	struct cell cell;
	int err;

	for (uint64_t i = 0; i < len; i++) {
		err = blockmap_cell(m, blk + i, &cell);
		if (err)
			return err;
		cell_set(&cell, kind, 0);
	}
	return 0;
}
