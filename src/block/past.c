/*
 * past.c - long reads of a file, past the host's cache
 *
 * A file's data are cached above us, by the kernel for the mount. To have them
 * in the host's cache as well costs memory, a copy and, where that cache is
 * filled page by page (as it is for what is asked for ahead), as many pieces
 * as pages in each request to the device. So long reads of what is not there go
 * straight into the reader's buffer.
 *
 *   P1  What has been written is what is read: the kernel writes dirty pages of
 *       the range back before it reads past them. (Where it did not, or where a
 *       writeback has failed, the reader would find a wrong checksum, and read
 *       again through the cache.)
 *   P2  What is in the cache is read from there: it is nearer.
 *   P3  Writers do not wait: while such a read is under way, some filesystems
 *       hold up whoever writes to the file. So there is none for a while after
 *       somebody wrote.
 *
 * Which pages are in the cache mincore() says, but of files that one neither owns
 * nor may write it says that they are: these are not read so. (A read with
 * RWF_NOWAIT would begin to bring them there.)
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/past.h"

#define QUIET_NS UINT64_C(100000000)
#define PAGES_MAX (PAST_MAX / 4096)
/* So much of it may be in the cache: the beginning, of one who has just begun to
 * read on. */
#define CACHED_PART 4u

static bool may_ask(int fd)
{
	uid_t user = geteuid();
	struct stat st;

	return !user || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR ||
	       (!fstat(fd, &st) && st.st_uid == user);
}

void past_init(struct past *p, int fd)
{
	atomic_init(&p->fd, -1);
	atomic_init(&p->refused, !may_ask(fd));
	atomic_init(&p->quiet, 0);
}

void past_fini(struct past *p)
{
	int fd = atomic_load(&p->fd);

	if (fd >= 0)
		close(fd);
}

void past_writes(struct past *p)
{
	atomic_store_explicit(&p->quiet, now_ns() + QUIET_NS,
			      memory_order_relaxed);
}

bool past_likely(struct past *p)
{
	return !atomic_load_explicit(&p->refused, memory_order_relaxed) &&
	       now_ns() >= atomic_load_explicit(&p->quiet,
						memory_order_relaxed);
}

/* The same file (its name may be another's by now), opened anew: the flag would
 * hold for all who use fd. */
static int open_again(struct past *p, int fd)
{
	int old = -1, new;
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	new = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NOCTTY);
	if (new < 0) {
		atomic_store(&p->refused, true);
		return -1;
	}
	if (atomic_compare_exchange_strong(&p->fd, &old, new))
		return new;
	close(new); /* another thread was faster */
	return old;
}

/* P2. If nobody can tell: true. (No memory may be better the next time; that
 * the file can't be mapped stays so.) */
static bool is_cached(struct past *p, int fd, uint64_t off, size_t len,
		      size_t page)
{
	unsigned char in[PAGES_MAX];
	size_t i, n = len / page, found = n;
	void *at;

	at = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, (off_t)off);
	if (at == MAP_FAILED) {
		if (errno != ENOMEM && errno != EAGAIN)
			atomic_store(&p->refused, true);
		return true;
	}
	if (!mincore(at, len, in))
		for (i = found = 0; i < n; i++)
			found += in[i] & 1;
	munmap(at, len);
	return found > n / CACHED_PART;
}

static bool is_aligned(uint64_t off, const struct iovec *iov, int n,
		       size_t page)
{
	uint64_t all = off;

	for (int i = 0; i < n; i++)
		all |= iov[i].iov_len | (uintptr_t)iov[i].iov_base;
	return all % page == 0;
}

int past_readv(struct past *p, int fd, uint64_t off, const struct iovec *iov,
	       int n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = iov_bytes(iov, n);
	int direct = atomic_load(&p->fd);
	ssize_t got;

	if (!len || len > PAST_MAX || !is_aligned(off, iov, n, page) ||
	    !past_likely(p))
		return -EOPNOTSUPP;
	if (is_cached(p, fd, off, len, page))
		return -EAGAIN;
	if (direct < 0)
		direct = open_again(p, fd);
	if (direct < 0)
		return -EOPNOTSUPP;
	may_wait();
	got = preadv(direct, iov, n, (off_t)off);
	if (got < 0 && errno == EINVAL) /* said only now, as some do */
		atomic_store(&p->refused, true);
	if (got < 0)
		return -errno;
	return (size_t)got == len ? 0 : -EIO;
}
