/*
 * flight.c - waiting for what the kernel has sent
 *
 * Kernels before 6.16 write back copies of their pages: for them a page is clean
 * as soon as its copy waits to be sent. So neither syncfs(2) nor invalidating
 * waits for what is still on its way to us: a snapshot would lack it, and what it
 * fills would be told to be a hole. Here all that waits is let arrive first.
 *
 * The kernel is asked to send a message (FUSE_NOTIFY_RETRIEVE, of nothing). That
 * comes after all requests that wait to be read, and as one thread at a time reads
 * them (turn.c), all before it have been counted when it is read. They are waited
 * for. There may be more:
 *
 *   - of requests of some kinds only so many (max_background) are let into that
 *     queue at a time, the others wait for their answers. If fewer were on their
 *     way when the message was asked for, no other one waited. So that this is
 *     soon so, many are let in (FLIGHT_ROOM);
 *   - a page written anew while its first copy is under way is sent after the
 *     answer to that. So that is done twice.
 *
 * (What the kernel keeps back because an fsync, a truncation or a close of the
 * same file waits for what was sent before is waited for in the second round if it
 * goes on by then; nothing shows whether it has.)
 *
 * Somebody else may write all the time. Then it is enough that more has come than
 * the kernel can have had.
 */
#include <linux/fuse.h>
#include <stdio.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define USERS_ROOM "/sys/module/fuse/parameters/max_user_bgreq"
#define LEAST_ROOM 12u /* what a kernel lets in if nobody asks for less */
#define PAGE 4096u
#define LEAST_PAGES ((64u << 20) / PAGE)
#define LOOK_MS 100u /* has the loop ended? */

/* How many are let in: not all that we ask for, if we are not privileged. */
static unsigned room(void)
{
	FILE *f = fopen(USERS_ROOM, "re");
	unsigned n = LEAST_ROOM;

	if (!f)
		return n;
	if (fscanf(f, "%u", &n) != 1)
		n = LEAST_ROOM;
	fclose(f);
	return n < FLIGHT_ROOM ? n : FLIGHT_ROOM;
}

void flight_init(struct daemon *d)
{
	d->flight.room = room();
	mutex_init(&d->flight.lock, LOCK_LEAF);
	cond_init(&d->flight.changed);
}

void flight_fini(struct daemon *d)
{
	pthread_cond_destroy(&d->flight.changed);
	mutex_fini(&d->flight.lock);
}

static void tell(struct flight *f)
{
	mutex_lock(&f->lock);
	pthread_cond_signal(&f->changed);
	mutex_unlock(&f->lock);
}

void flight_note(struct daemon *d, struct worker *w,
		 const struct fuse_in_header *in)
{
	struct flight *f = &d->flight;

	if (!d->copies_pages)
		return;
	switch (in->opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_RELEASE:
		w->phase = atomic_load(&f->marks) & 1;
		w->counted = true;
		atomic_fetch_add(&f->seen, 1);
		atomic_fetch_add(&f->pages, 1 + in->len / PAGE);
		atomic_fetch_add(&f->busy[w->phase], 1);
		break;
	case FUSE_NOTIFY_REPLY:
		f->seen_then = atomic_load(&f->seen);
		atomic_fetch_add(&f->marks, 1);
		tell(f);
		break;
	default:
		break;
	}
}

void flight_end(struct daemon *d, struct worker *w)
{
	struct flight *f = &d->flight;

	if (!w->counted)
		return;
	w->counted = false;
	if (atomic_fetch_sub(&f->busy[w->phase], 1) == 1 &&
	    atomic_load(&f->waited_for))
		tell(f);
}

/* The message has come, and all that came before it is answered. */
static bool arrived(struct flight *f, unsigned mark)
{
	return atomic_load(&f->marks) != mark && !atomic_load(&f->busy[mark & 1]);
}

/* How many may have been under way; false: nobody serves any more, or see
 * raw_ask_message. */
static bool one_round(struct daemon *d, uint64_t id, uint64_t *under_way)
{
	struct flight *f = &d->flight;
	unsigned mark = atomic_load(&f->marks);
	uint64_t seen = atomic_load(&f->seen); /* first: rather one twice */
	uint64_t busy = atomic_load(&f->busy[mark & 1]);
	bool done;

	if (!raw_ask_message(d, id))
		return false;
	mutex_lock(&f->lock);
	while (!(done = arrived(f, mark)) && !atomic_load(&d->loop_ended))
		(void)cond_wait_ms(&f->changed, &f->lock, LOOK_MS);
	mutex_unlock(&f->lock);
	if (done)
		*under_way = busy + f->seen_then - seen;
	return done;
}

/* Dirty pages of a FUSE filesystem are some thousandths of the memory. */
static uint64_t most_pages(void)
{
	long all = sysconf(_SC_PHYS_PAGES);

	return max_u64(all > 0 ? (uint64_t)all / 64 : 0, LEAST_PAGES);
}

bool flight_wait(struct daemon *d, uint64_t id)
{
	uint64_t begin = atomic_load(&d->flight.pages), under_way = 1;
	unsigned few = 0;
	bool known = true;

	if (!d->copies_pages)
		return true;
	atomic_store(&d->flight.waited_for, true);
	while (known && under_way && few < 2 &&
	       atomic_load(&d->flight.pages) - begin < most_pages()) {
		known = one_round(d, id, &under_way);
		few = under_way < d->flight.room ? few + 1 : 0;
	}
	atomic_store(&d->flight.waited_for, false);
	return known;
}
