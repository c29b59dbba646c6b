/*
 * dirahead.c - what a listing will be asked for next, made while the client is
 * still busy with the answer before
 *
 * Who lists a large directory takes as long to look at an answer as the daemon
 * to make it, one after the other. So when an answer with names has been sent,
 * the thread that made it makes the one that will be asked for next.
 *
 *   R1  A piece is handed out only as long as no tree was changed since before
 *       it was begun: then it is what would be read now. (Of a snapshot nothing
 *       is made ahead; what one lists is the live tree as a rule, and its ids
 *       are taken again for others.)
 *   R2  Whoever asks for a piece that is being made waits for it. Both have
 *       entered the gate, and the maker waits for no request.
 *
 * A place for a directory, some directories to a place: whoever loses a place to
 * another is read for when he asks. While others change trees, pieces would be
 * made in vain: after each of these some are left out.
 */
#include "fuse/daemon.h"

#define LONGEST ((size_t)128 << 10)
#define LEFT_OUT 32u

void dirahead_init(struct daemon *d)
{
	mutex_init(&d->dirahead.lock, LOCK_LEAF);
	cond_init(&d->dirahead.made);
}

void dirahead_fini(struct daemon *d)
{
	for (unsigned i = 0; i < DIRAHEAD_PIECES; i++)
		free(d->dirahead.piece[i].a.buf);
	pthread_cond_destroy(&d->dirahead.made);
	mutex_fini(&d->dirahead.lock);
}

static struct dir_piece *piece_of(struct daemon *d, const struct dir_place *at)
{
	return &d->dirahead.piece[hash_u64(at->id) % DIRAHEAD_PIECES];
}

static bool is_for(const struct dir_piece *p, const struct dir_place *at)
{
	return p->at.id == at->id && p->at.after == at->after &&
	       p->at.size == at->size;
}

static void drop(struct dir_piece *p)
{
	free(p->a.buf);
	p->a.buf = NULL;
}

bool dirahead_take(struct daemon *d, const struct dir_place *at,
		   struct dir_answer *out)
{
	struct dir_piece *p = piece_of(d, at);
	uint64_t changes = fs_changes(d->fs);
	bool good = false;

	mutex_lock(&d->dirahead.lock);
	while (p->making && is_for(p, at))
		(void)cond_wait_ms(&d->dirahead.made, &d->dirahead.lock,
				   UINT64_MAX);
	if (!p->making && p->a.buf && is_for(p, at)) {
		good = p->changes == changes;
		if (good) {
			memcpy(out->buf, p->a.buf, p->a.used);
			out->used = p->a.used;
			out->last = p->a.last;
			out->full = p->a.full;
		} else {
			d->dirahead.left_out = LEFT_OUT;
		}
		drop(p);
	}
	mutex_unlock(&d->dirahead.lock);
	return good;
}

struct dir_piece *dirahead_begin(struct daemon *d, const struct dir_place *at)
{
	struct dir_piece *p = piece_of(d, at);
	uint64_t changes = fs_changes(d->fs);
	bool wanted = false;

	mutex_lock(&d->dirahead.lock);
	if (d->dirahead.left_out) {
		d->dirahead.left_out--;
	} else if (!p->making && at->size <= LONGEST) {
		drop(p);
		p->a = (struct dir_answer){ .buf = malloc(at->size) };
		p->at = *at;
		p->changes = changes;
		p->making = wanted = p->a.buf;
	}
	mutex_unlock(&d->dirahead.lock);
	return wanted ? p : NULL;
}

void dirahead_end(struct daemon *d, struct dir_piece *p, bool good)
{
	mutex_lock(&d->dirahead.lock);
	p->making = false;
	if (!good)
		drop(p);
	pthread_cond_broadcast(&d->dirahead.made);
	mutex_unlock(&d->dirahead.lock);
}
