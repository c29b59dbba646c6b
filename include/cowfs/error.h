/*
 * error.h - the error codes of cowfs beyond errno's own meaning
 *
 * Functions return 0 or a negative errno. Two house names travel the same way
 * and become EIO only in a reply to FUSE or to an ioctl (cowfs_errno_for_user).
 */
#ifndef COWFS_ERROR_H
#define COWFS_ERROR_H

#include <errno.h>

#define ECOW_CSUM EBADMSG    /* checksum wrong on every copy */
#define ECOW_CORRUPT EUCLEAN /* checksum right, contents impossible */

#define MUST_CHECK __attribute__((warn_unused_result))

/* A negative errno as a user may see it: house codes become -EIO. */
static inline int cowfs_errno_for_user(int err)
{
	return err == -ECOW_CSUM || err == -ECOW_CORRUPT ? -EIO : err;
}

#endif
