/*
 * stage.c - blocks whose contents are known before the device has them
 *
 * A map from block numbers to buffers. Between two numbers that are next to each
 * other the map makes no difference unless their values are the same, which
 * indices into one array never are.
 */
#include "block/block.h"
#include "util/imap.h"

struct stage {
	struct imap at; /* block to index into buf, plus one */
	void **buf;
	size_t count, room;
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

const struct stage *block_staged(const struct blockio *io)
{
	return atomic_load_explicit(&io->stage, memory_order_acquire);
}

/* A buffer for a block that has none yet. */
static void *stage_new(struct stage *s, uint64_t blk)
{
	size_t room = s->room ? s->room * 2 : 16;
	void *buf, *v;

	if (s->count == s->room) {
		v = realloc(s->buf, room * sizeof(*s->buf));
		if (!v)
			return NULL;
		s->buf = v;
		s->room = room;
	}
	buf = aligned_alloc(COWFS_BLOCK_SIZE, COWFS_BLOCK_SIZE);
	if (!buf || imap_add(&s->at, blk, 1, (int64_t)s->count + 1)) {
		free(buf);
		return NULL;
	}
	s->buf[s->count++] = buf;
	return buf;
}

int block_stage(struct blockio *io, uint64_t blk, const void *buf)
{
	struct stage *s = stage_get(io);
	struct ival iv;
	void *to;

	if (!s)
		return -ENOMEM;
	imap_get(&s->at, blk, &iv);
	to = iv.n ? s->buf[iv.n - 1] : stage_new(s, blk);
	if (!to)
		return -ENOMEM;
	memcpy(to, buf, COWFS_BLOCK_SIZE);
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
	size_t i;

	if (!s)
		return;
	for (i = 0; i < s->count; i++)
		free(s->buf[i]);
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
