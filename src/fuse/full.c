/*
 * full.c - write(2) on a full filesystem fails, and not only fsync(2)
 *
 * With the writeback cache write(2) is done when the kernel has the page. That
 * it can't be stored shows later, and the kernel tells it to fsync and close
 * only: "dd if=/dev/zero" would go on for ever. But before each write the kernel
 * asks for the attributes if they are not valid, through the handle, and what
 * that returns is what write returns. So when a page could not be stored, the
 * attributes are made invalid, and such questions are answered with ENOSPC
 * until there is more space than there was then.
 *
 * The same question comes before reading at the end of a file and for
 * lseek(SEEK_END); of those only ones by a handle for writing can't be told
 * apart, and share the answer. stat(2) and fstat(2) ask without a handle.
 */
#include "fuse/daemon.h"

#define ENOUGH 16 /* blocks more than at the last failure */

static uint64_t space_left(struct daemon *d)
{
	struct alloc_info info;

	alloc_info(d->store->alloc, &info);
	return info.avail;
}

void full_note(struct daemon *d, fuse_ino_t ino)
{
	struct job job = { .kind = JOB_FULL, .ino = ino };

	atomic_store(&d->full_left, space_left(d));
	atomic_store(&d->full, true);
	if (control_add(d, &job))
		log_msg(LOG_LVL_WARN, "%s: full; a writer will hear of it at "
			"its next fsync only", d->opt->image);
}

bool full_refuses(struct daemon *d, const struct fuse_file_info *fi)
{
	if (!fi || !(fi->fh & HANDLE_WRITES) || !atomic_load(&d->full))
		return false;
	if (space_left(d) <= atomic_load(&d->full_left) + ENOUGH)
		return true;
	atomic_store(&d->full, false);
	return false;
}
