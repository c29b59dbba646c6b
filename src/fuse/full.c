/*
 * full.c - write(2) on a full filesystem fails, and not only fsync(2)
 *
 * With the writeback cache write(2) is done when the kernel has the page. That
 * it can't be stored shows later, and the kernel tells it to fsync and close
 * only: "dd if=/dev/zero" would go on for ever. But before each write the kernel
 * asks for the attributes if they are not valid, through the handle, and what
 * that returns is what write returns. So when a page could not be stored, the
 * attributes are made invalid, and such questions are answered with ENOSPC
 * until there is more space than there was then. Where there is much of it the
 * storage below was full (a sparse image, a quota), and nobody will tell when it
 * has room again: then the answer is ENOSPC for a second.
 *
 * The same question comes before reading at the end of a file and for
 * lseek(SEEK_END); of those only ones by a handle for writing can't be told
 * apart, and share the answer. stat(2) and fstat(2) ask without a handle.
 */
#include "fuse/daemon.h"

#define ENOUGH 16 /* blocks more than at the last failure */
#define MUCH_PART 32 /* of all blocks; or, where that is more than what requests */
#define MUCH_MAX 16384u /* under way may have taken, so many (64 MiB) */
#define STORAGE_NS UINT64_C(1000000000)

static uint64_t space_left(struct daemon *d, bool *much)
{
	struct alloc_info info;

	alloc_info(d->store->alloc, &info);
	*much = info.avail > min_u64(info.blocks / MUCH_PART, MUCH_MAX);
	return info.avail;
}

void full_note(struct daemon *d, fuse_ino_t ino)
{
	struct job job = { .kind = JOB_FULL, .ino = ino };
	bool much;

	atomic_store(&d->full_left, space_left(d, &much));
	atomic_store(&d->full_until, much ? now_ns() + STORAGE_NS : UINT64_MAX);
	atomic_store(&d->full, true);
	if (control_add(d, &job))
		log_msg(LOG_LVL_WARN, "%s: full; a writer will hear of it at "
			"its next fsync only", d->opt->image);
}

bool full_refuses(struct daemon *d, const struct fuse_file_info *fi)
{
	bool much;

	if (!fi || !(fi->fh & HANDLE_WRITES) || !atomic_load(&d->full))
		return false;
	if (space_left(d, &much) <= atomic_load(&d->full_left) + ENOUGH &&
	    now_ns() < atomic_load(&d->full_until))
		return true;
	atomic_store(&d->full, false);
	return false;
}
