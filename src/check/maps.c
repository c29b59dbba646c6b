/*
 * maps.c - the two maps against what the walk has found
 *
 * Both trees were walked before (their nodes are blocks in use like others);
 * now their records are held against the blockmap, in both directions. When
 * some tree could not be read as a whole, what seems to have no owner may have
 * one there: then only "in use, but recorded as free" is claimed.
 */
#include "check/private.h"

struct maps {
	struct check *c;
	uint64_t next_chunk; /* space: first one not yet compared */
	uint64_t free;       /* space: blocks recorded as free */
	uint64_t pos;        /* refs: first block not yet compared */
	uint64_t end;        /* refs: of the interval before */
	uint32_t extra;      /* refs: and its count */
};

/* ---- space ---- */

static void report_space(struct check *c, uint64_t from, uint64_t to,
			 bool used)
{
	if (used)
		problem(c, P_SPACE_USED, "blocks %" PRIu64 "-%" PRIu64, from,
			to - 1);
	else if (!c->lost)
		problem(c, P_SPACE_FREE, "blocks %" PRIu64 "-%" PRIu64, from,
			to - 1);
}

static bool bit_of(const uint8_t *bits, unsigned i)
{
	return !bits || bits[i / 8] >> i % 8 & 1;
}

/* bits: the record of chunk n; NULL: all are used. */
static void compare_chunk(struct check *c, uint64_t n, const uint8_t *bits)
{
	const struct blockmap_chunk *chunk = blockmap_chunk(&c->map, n);
	uint64_t base = n * COWFS_CHUNK_BLOCKS;
	unsigned from = 0;
	int state = 0; /* since `from`: 1 used but free, 2 the reverse */

	for (unsigned i = 0; i <= COWFS_CHUNK_BLOCKS; i++) {
		int now = 0;

		if (i < COWFS_CHUNK_BLOCKS) {
			bool used = chunk && chunk->mark[i];

			if (used != bit_of(bits, i))
				now = used ? 1 : 2;
		}
		if (now == state)
			continue;
		if (state)
			report_space(c, base + from, base + i, state == 1);
		state = now;
		from = i;
	}
}

/* A chunk without a record: all is free there but what nobody may have. */
static void compare_free(struct maps *m, uint64_t n)
{
	const struct blockmap_chunk *chunk = blockmap_chunk(&m->c->map, n);
	uint8_t bits[COWFS_CHUNK_BYTES] = { 0 };

	for (unsigned i = 0; chunk && i < COWFS_CHUNK_BLOCKS; i++) {
		if ((chunk->mark[i] & MARK_MASK) != MARK_RESERVED)
			continue;
		bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << i % 8);
		m->free--;
	}
	compare_chunk(m->c, n, bits);
}

static void compare_gap(struct maps *m, uint64_t to)
{
	uint64_t n = blockmap_next(&m->c->map, m->next_chunk);

	m->free += (to - m->next_chunk) * COWFS_CHUNK_BLOCKS;
	for (; n < to; n = blockmap_next(&m->c->map, n + 1))
		compare_free(m, n);
}

static const char *space_fields(const struct maps *m, const struct key *k,
				const struct item *it)
{
	const struct cowfs_disk_chunk *d = it->data;
	const uint8_t *bits = (const uint8_t *)(d + 1);
	unsigned free = 0, want;

	if (k->type != COWFS_KEY_SPACE || k->off != 0)
		return "unknown key";
	if (k->obj >= m->c->map.chunks)
		return "past the end of the device";
	if (it->len < sizeof(*d))
		return "too short";
	want = from_le16(d->free);
	if (it->len - sizeof(*d) != (want ? COWFS_CHUNK_BYTES : 0))
		return "wrong length";
	for (unsigned i = 0; want && i < COWFS_CHUNK_BLOCKS; i++)
		free += !bit_of(bits, i);
	if (free != want)
		return "wrong count of free blocks";
	if (d->flags & (uint8_t)~COWFS_CHUNK_META)
		return "unknown flags";
	return NULL;
}

static int space_leaf(struct walk *w, const void *node)
{
	struct maps *m = w->arg;
	struct check *c = w->c;
	unsigned n = node_count(node);

	for (unsigned i = 0; i < n && !c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, c->node_size);
		const struct cowfs_disk_chunk *d = it.data;
		const char *why = space_fields(m, &k, &it);

		if (why) {
			problem(c, P_SPACE_BAD, "chunk %" PRIu64 ": %s", k.obj,
				why);
			if (k.obj >= m->next_chunk && k.obj < c->map.chunks)
				m->next_chunk = k.obj + 1;
			w->lost = true;
			continue;
		}
		compare_gap(m, k.obj);
		m->free += from_le16(d->free);
		compare_chunk(c, k.obj, from_le16(d->free) ?
					(const uint8_t *)(d + 1) : NULL);
		m->next_chunk = k.obj + 1;
	}
	return 0;
}

static int check_space(struct check *c, struct maps *m)
{
	struct walk w = { .c = c, .name = "space tree", .again = true,
			  .kind = COWFS_ROOT_SPACE, .each = space_leaf,
			  .arg = m };
	struct nptr root =
		nptr_from_disk(&c->super.roots[COWFS_ROOT_SPACE].ptr);
	uint64_t stored = from_le64(c->super.free_blocks);
	int err = walk_tree(&w, &root);

	if (err || c->stop || w.lost)
		return err;
	compare_gap(m, c->map.chunks);
	if (m->free != stored)
		problem(c, P_FREE_COUNT, "superblock: %" PRIu64
			", free-space records: %" PRIu64, stored, m->free);
	return 0;
}

/* ---- references ---- */

static uint32_t extra_of(const struct blockmap_chunk *chunk, unsigned i)
{
	if (!chunk || chunk->count[i] == 0)
		return 0;
	return chunk->count[i] - 1;
}

static void report_refs(struct check *c, uint64_t from, uint64_t to,
			uint32_t stored, uint32_t found)
{
	problem(c, P_REF_WRONG, "blocks %" PRIu64 "-%" PRIu64 ": %u extra "
		"references recorded, %u found", from, to - 1, stored, found);
}

/* Blocks [from, to) of one chunk should have `extra`. */
static void compare_refs(struct check *c, uint64_t from, uint64_t to,
			 uint32_t extra)
{
	const struct blockmap_chunk *chunk =
		blockmap_chunk(&c->map, from / COWFS_CHUNK_BLOCKS);
	uint32_t run = extra;
	uint64_t begin = from;

	for (uint64_t b = from; b < to; b++) {
		uint32_t found =
			extra_of(chunk, (unsigned)(b % COWFS_CHUNK_BLOCKS));

		if (found == run)
			continue;
		if (run != extra)
			report_refs(c, begin, b, extra, run);
		run = found;
		begin = b;
	}
	if (run != extra)
		report_refs(c, begin, to, extra, run);
}

static void expect_refs(struct check *c, uint64_t from, uint64_t to,
			uint32_t extra)
{
	while (from < to && !c->stop) {
		uint64_t n = from / COWFS_CHUNK_BLOCKS;
		uint64_t next = blockmap_next(&c->map, n), end;

		if (next > n) { /* nothing there, however long */
			end = min_u64(to, next * COWFS_CHUNK_BLOCKS);
			if (extra)
				report_refs(c, from, end, extra, 0);
			from = end;
			continue;
		}
		end = min_u64(to, (n + 1) * COWFS_CHUNK_BLOCKS);
		compare_refs(c, from, end, extra);
		from = end;
	}
}

static const char *ref_fields(const struct maps *m, const struct key *k,
			      const struct item *it, uint32_t extra)
{
	if (k->type != COWFS_KEY_REF)
		return "unknown key";
	if (it->len != sizeof(struct cowfs_disk_ref))
		return "wrong length";
	if (!in_device(m->c, k->obj, k->off))
		return "outside the device";
	if (extra == 0)
		return "count is 0";
	if (k->obj < m->end)
		return "overlaps the one before";
	if (k->obj == m->end && extra == m->extra)
		return "continues the one before";
	return NULL;
}

static int refs_leaf(struct walk *w, const void *node)
{
	struct maps *m = w->arg;
	struct check *c = w->c;
	unsigned n = node_count(node);

	for (unsigned i = 0; i < n && !c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, c->node_size);
		const struct cowfs_disk_ref *d = it.data;
		uint32_t extra = it.len == sizeof(*d) ? from_le32(d->extra) : 0;
		const char *why = ref_fields(m, &k, &it, extra);

		if (why)
			problem(c, P_REF_BAD, "interval %" PRIu64 ", length %"
				PRIu64 ": %s", k.obj, k.off, why);
		if (!in_device(c, k.obj, k.off) || k.obj < m->end || !extra)
			continue;
		m->end = k.obj + k.off;
		m->extra = extra;
		if (c->lost)
			continue;
		expect_refs(c, m->pos, k.obj, 0);
		expect_refs(c, k.obj, m->end, extra);
		m->pos = m->end;
	}
	return 0;
}

static int check_refs(struct check *c, struct maps *m)
{
	struct walk w = { .c = c, .name = "reference tree", .again = true,
			  .kind = COWFS_ROOT_REFS, .each = refs_leaf,
			  .arg = m };
	struct nptr root =
		nptr_from_disk(&c->super.roots[COWFS_ROOT_REFS].ptr);
	int err = walk_tree(&w, &root);

	if (!err && !c->lost)
		expect_refs(c, m->pos, c->blocks, 0);
	return err;
}

int maps_check(struct check *c)
{
	struct maps m = { .c = c };
	int err;

	err = check_space(c, &m);
	if (!err && !c->stop)
		err = check_refs(c, &m);
	return err;
}
