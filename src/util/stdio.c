/*
 * stdio.c - the three standard files
 *
 * A program that is started without one of them would get its number for the
 * next file that it opens: the image, and messages would be written into that.
 */
#include <fcntl.h>
#include <unistd.h>

#include "cowfs/cowfs.h"

bool cowfs_reserve_stdio(void)
{
	/* Used all the same they fail, as what is not open does. */
	static const int how[] = { [STDIN_FILENO] = O_WRONLY,
				   [STDOUT_FILENO] = O_RDONLY,
				   [STDERR_FILENO] = O_RDONLY };

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", how[fd]) != fd)
			return false;
	return true;
}
