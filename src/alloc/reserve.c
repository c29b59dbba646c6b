/*
 * reserve.c - how much must be kept back, and what is left (A5)
 *
 * The reserve has two parts, both in slots. The *floor* is what lets files and
 * snapshots be deleted on a full device: trees must be copied before anything
 * can be freed. The *commit part* is what writing down the changes gathered so
 * far may take, in the reference tree and the space tree.
 *
 *	data		leaves floor + commit
 *	ALLOC_NORMAL	leaves floor + commit and room for what it changes
 *	ALLOC_FREEING	leaves half of the floor, + commit, and a part of
 *			that room, but never finds too little in what the
 *			others leave
 *	ALLOC_INTERNAL	leaves nothing
 *
 * What a snapshot has is not freed by removing it: each node on the way is
 * copied, and the old one stays. So where there are snapshots the floor is what
 * rm has to do with. It is not spent on room that hardly any operation takes
 * (most change nodes that those before them have copied), and of small devices
 * it is a larger part. The *bottom* of it is what was kept back of these before:
 * that is enough to begin with, as many a full image has no more.
 */
#include "alloc/private.h"

#define FLOOR_PART 64     /* of the device, at most ... */
#define FLOOR_MAX 65536u  /* ... so many blocks (256 MiB) ... */
#define FLOOR_MIN 64      /* ... and at least so many slots, if ... */
#define FLOOR_MIN_PART 8  /* ... that is no more than an eighth */
#define SMALL_FLOOR 2048u /* blocks (8 MiB), too, if that ... */
#define SMALL_PART 16     /* ... is no more than a sixteenth */
#define ROOM_PART 4 /* of the most that an operation may take: what is likely */
#define PATH_MAX_LEN 4
#define PATHS 4 /* of the trees that a commit changes in any case */
/* Children of a node at a quarter of its capacity, for each of its blocks. */
#define LEAST_FANOUT 20

void reserve_init(struct alloc *a)
{
	uint64_t fanout = LEAST_FANOUT * a->node_blocks;
	uint64_t total = a->slots, below, ops, least;

	a->path = 2;
	for (below = fanout; below < total && a->path < PATH_MAX_LEN;
	     below *= fanout)
		a->path++;
	least = min_u64(FLOOR_MIN, total / FLOOR_MIN_PART);
	/* Tiny devices: room for the paths of a dozen leaves. */
	ops = min_u64(12 * a->copies * a->path, total / 4);
	a->bottom = min_u64(total / FLOOR_PART, FLOOR_MAX / a->node_blocks);
	a->bottom = max_u64(a->bottom, max_u64(least, ops));
	a->floor = max_u64(a->bottom, min_u64(SMALL_FLOOR / a->node_blocks,
					      total / SMALL_PART));
}

static uint64_t commit_slots(const struct alloc *a)
{
	uint64_t iv = a->delta.count;
	uint64_t nodes;

	nodes = min_u64(iv, a->ref_nodes + iv / 32) + iv / 64;
	nodes += min_u64(a->dirty, a->space_nodes + a->dirty / 8);
	/* one change may take any number of copies along */
	nodes += a->copy_nodes + (a->copy_nodes ? iv / 64 : 0);
	return a->copies * (nodes + PATHS * a->path);
}

uint64_t reserve_slots(const struct alloc *a)
{
	return a->floor + commit_slots(a);
}

/* Of the floor, by an operation that takes this room. */
static uint64_t left_by_freeing(const struct alloc *a, uint64_t room)
{
	return min_u64(max_u64(a->floor / 2 + room / ROOM_PART, room),
		       a->bottom);
}

static uint64_t slots_needed(const struct alloc *a, enum alloc_class cls,
			     uint64_t nodes)
{
	/* Each node may be copied, and split. */
	uint64_t all = reserve_slots(a), room = nodes * a->copies * 2;

	switch (cls) {
	case ALLOC_NORMAL:
		return all + room;
	case ALLOC_FREEING:
		return all - a->floor + left_by_freeing(a, room);
	default:
		return nodes * a->copies;
	}
}

int alloc_check(struct alloc *a, enum alloc_class cls, unsigned nodes)
{
	uint64_t need;
	bool enough;

	mutex_lock(&a->lock);
	need = slots_needed(a, cls, nodes);
	if (a->slots < need)
		(void)pending_reclaim(a, false);
	if (a->slots < need)
		(void)pending_reclaim(a, true);
	enough = a->slots >= need;
	mutex_unlock(&a->lock);
	return enough ? 0 : -ENOSPC;
}

/* In the worst case each change is in a leaf of its own; of a small reference
 * tree all leaves can be copied, and what is new fills others. */
uint64_t alloc_ref_room(struct alloc *a)
{
	uint64_t need, left, room;

	mutex_lock(&a->lock);
	need = commit_slots(a);
	left = a->slots > need ? (a->slots - need) / 2 / a->copies : 0;
	room = left;
	if (left > a->ref_nodes)
		room = max_u64(room, (left - a->ref_nodes) * 16);
	mutex_unlock(&a->lock);
	return room;
}

bool alloc_pending(struct alloc *a)
{
	bool pending;

	mutex_lock(&a->lock);
	pending = a->pending || a->delta.count;
	mutex_unlock(&a->lock);
	return pending;
}

void alloc_info(struct alloc *a, struct alloc_info *out)
{
	mutex_lock(&a->lock);
	out->blocks = a->blocks;
	out->stored_free = a->free[OWNED];
	out->free = a->free[OWNED] - a->in_flight;
	out->pending = a->pending;
	out->gathered = a->delta.count;
	out->reserve = reserve_slots(a) * a->node_blocks;
	out->avail = out->free > out->reserve ? out->free - out->reserve : 0;
	out->ready = a->free[BUSY];
	out->in_slots = a->slots * a->node_blocks;
	out->in_chunks = min_u64(a->empty * CHUNK, out->in_slots);
	mutex_unlock(&a->lock);
}

void alloc_note_trees(struct alloc *a, uint64_t ref_nodes,
		      uint64_t space_nodes, uint64_t copy_nodes)
{
	/* It is a hint, from the device: an item of 29 bytes for each two
	 * blocks, in leaves half full, is less than this. */
	uint64_t max = a->blocks / a->node_blocks / 32;

	mutex_lock(&a->lock);
	a->ref_nodes = ref_nodes;
	a->space_nodes = space_nodes;
	a->copy_nodes = min_u64(copy_nodes, max);
	mutex_unlock(&a->lock);
}
