/* loop.h - one image under two names: as a file, and as a loop device over it */
#ifndef COW_BLOCK_LOOP_H
#define COW_BLOCK_LOOP_H

#include <sys/stat.h>

#include "cowfs/error.h"

/* The file behind a loop device that is open as dev, opened with these flags;
 * *fd = -1: it is none, or its file can't be reached by its name. */
void loop_open_backing(int dev, const struct stat *st, int flags, int *fd);

/* -EBUSY: the file is behind a loop device that somebody uses exclusively (a
 * mount, another writer). */
MUST_CHECK int loop_check_unused(const struct stat *file);

#endif
