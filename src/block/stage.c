/*
 * stage.c - blocks whose contents are known before the device has them
 *
 * A map from block numbers to buffers. Between two numbers that are next to each
 * other the map makes no difference unless their values are the same, which
 * indices into one array never are.
 */
#include <sys/mman.h>

#include "block/block.h"
#include "util/imap.h"

#define CHUNK_MIN ((size_t)64 << 10)
#define CHUNK_MAX ((size_t)1 << 20)

struct chunk {
	struct chunk *next;
	size_t used, size; /* this head included */
};

struct stage {
	struct imap at; /* block to index into buf, plus one */
	const void **buf;
	size_t count, room;
	struct chunk *chunks; /* the first has what is free */
};

static struct stage *stage_get(struct blockio *io)
{
	struct stage *s = atomic_load(&io->stage);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (s)
		imap_init(&s->at);
	atomic_store(&io->stage, s);
	return s;
}

/* Room alone is nothing that is staged. */
const struct stage *block_staged(const struct blockio *io)
{
	const struct stage *s =
		atomic_load_explicit(&io->stage, memory_order_acquire);

	return s && s->count ? s : NULL;
}

/* All its pages at once: one by one, when each is written first, costs more than
 * what is done with them. */
static struct chunk *chunk_new(struct chunk *before, size_t size)
{
	size_t room = before ? min_u64(before->size * 2, CHUNK_MAX) : CHUNK_MIN;
	struct chunk *c;

	room = max_u64(room, sizeof(*c) + size);
	c = mmap(NULL, room, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (c == MAP_FAILED)
		return NULL;
	*c = (struct chunk){ .next = before, .used = sizeof(*c), .size = room };
	return c;
}

void *block_stage_room(struct blockio *io, size_t size)
{
	struct stage *s = stage_get(io);
	struct chunk *c = s ? s->chunks : NULL;
	void *p;

	if (!s)
		return NULL;
	if (!c || size > c->size - c->used) {
		c = chunk_new(c, size);
		if (!c)
			return NULL;
		s->chunks = c;
	}
	p = (uint8_t *)c + c->used;
	c->used = min_u64((c->used + size + 7) / 8 * 8, c->size);
	return p;
}

/* A place for a block that has none yet. */
static int stage_add(struct stage *s, uint64_t blk, const void *buf)
{
	size_t room = s->room ? s->room * 2 : 16;
	void *v;
	int err;

	if (s->count == s->room) {
		v = realloc(s->buf, room * sizeof(*s->buf));
		if (!v)
			return -ENOMEM;
		s->buf = v;
		s->room = room;
	}
	err = imap_add(&s->at, blk, 1, (int64_t)s->count + 1);
	if (!err)
		s->buf[s->count++] = buf;
	return err;
}

int block_stage(struct blockio *io, uint64_t blk, const void *buf)
{
	struct stage *s = stage_get(io);
	struct ival iv;

	if (!s)
		return -ENOMEM;
	imap_get(&s->at, blk, &iv);
	if (!iv.n)
		return stage_add(s, blk, buf);
	s->buf[iv.n - 1] = buf;
	return 0;
}

void block_staged_over(const struct stage *s, uint64_t blk, size_t n,
		       void *buf)
{
	uint64_t end = blk + n, at = blk;
	struct ival iv;

	while (s && imap_next(&s->at, at, &iv) && iv.start < end) {
		memcpy((uint8_t *)buf + (iv.start - blk) * COWFS_BLOCK_SIZE,
		       s->buf[iv.n - 1], COWFS_BLOCK_SIZE);
		at = iv.start + 1;
	}
}

bool block_all_staged(const struct stage *s, uint64_t blk, size_t n)
{
	struct ival iv;

	for (; s && n; blk++, n--) {
		imap_get(&s->at, blk, &iv);
		if (!iv.n)
			return false;
	}
	return s;
}

int block_unstage(struct blockio *io, uint64_t *blocks)
{
	struct stage *s = atomic_load(&io->stage);
	uint64_t at = 0;
	struct ival iv;
	int err = 0;

	*blocks = 0;
	while (!err && s && imap_next(&s->at, at, &iv)) {
		err = block_write(io, iv.start, 1, s->buf[iv.n - 1]);
		at = iv.start + 1;
	}
	if (err || !s)
		return err;
	*blocks = s->count;
	io->unstaged = s;
	atomic_store(&io->stage, NULL);
	return 0;
}

static void stage_free(struct stage *s)
{
	struct chunk *c, *next;

	if (!s)
		return;
	for (c = s->chunks; c; c = next) {
		next = c->next;
		(void)munmap(c, c->size);
	}
	free(s->buf);
	imap_clear(&s->at);
	free(s);
}

void block_fini(struct blockio *io)
{
	stage_free(atomic_load(&io->stage));
	stage_free(io->unstaged);
	atomic_store(&io->stage, NULL);
	io->unstaged = NULL;
}
