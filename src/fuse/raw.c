/*
 * raw.c - the protocol where the library does not know it yet
 *
 * libfuse lets the program read and write the device itself. That is used
 *
 *   - to accept FUSE_HANDLE_KILLPRIV_V2 in the reply to INIT (libfuse 3.17 can,
 *     3.14 can't): without it every write(2) asks for security.capability
 *     first. The promise behind it: set-id bits and capabilities are cleared
 *     here, when a request says so (worker->kill_priv) or the owner changes;
 *   - to send FUSE_NOTIFY_INC_EPOCH and FUSE_NOTIFY_PRUNE (kernels 6.16, 6.18);
 *   - to refuse requests in another user's name where the mount is for root
 *     alone (session.c);
 *   - to have the kernel send a message, and to see when it comes (flight.c);
 *   - to see each request and each answer, and the time between (worker.c);
 *   - to take FUSE_COPY_FILE_RANGE_64 (kernel 6.18) for what the library knows:
 *     the answer that there is no such request makes the kernel ask in the old
 *     way, but if it comes twice, since two have copied at the same time, not in
 *     any way: from then on nothing on that mount is cloned any more.
 */
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define NOTIFY_INC_EPOCH 8
#define NOTIFY_PRUNE 9
#define COPY_FILE_RANGE_64 53
#define DIRECT_IO_ALLOW_MMAP (1u << 4) /* flags2, kernel 6.6 */
#define NO_PAGE_COPIES 44u /* protocol 7.44, kernel 6.16 */
#define PRUNE_MAX 512u /* nodes told at once */
#define SMALL_ANSWER 512u /* bytes */

static void look_at_init(struct daemon *d, const struct fuse_in_header *in,
			 size_t len)
{
	const struct fuse_init_in *init = (const void *)(in + 1);

	atomic_store(&d->init_unique, in->unique);
	d->copies_pages = init->minor < NO_PAGE_COPIES;
#ifdef COWFS_LOCK_CHECK
	d->copies_pages = true; /* so that it is tried on all kernels */
#endif
	if (len >= sizeof(*in) + offsetof(struct fuse_init_in, flags2))
		d->offered_killpriv = init->flags & FUSE_HANDLE_KILLPRIV_V2;
	/* it came together with that */
	d->keeps_past = len < sizeof(*in) + sizeof(*init) ||
			!(init->flags & FUSE_INIT_EXT) ||
			!(init->flags2 & DIRECT_IO_ALLOW_MMAP);
}

static bool asks_kill_priv(const struct fuse_in_header *in, size_t len)
{
	const void *arg = in + 1;

	len -= sizeof(*in);
	switch (in->opcode) {
	case FUSE_WRITE: {
		const struct fuse_write_in *w = arg;

		return len >= sizeof(*w) &&
		       w->write_flags & FUSE_WRITE_KILL_SUIDGID;
	}
	case FUSE_SETATTR: {
		const struct fuse_setattr_in *s = arg;

		return len >= sizeof(*s) && s->valid & FATTR_KILL_SUIDGID;
	}
	case FUSE_OPEN: {
		const struct fuse_open_in *o = arg;

		return len >= sizeof(*o) &&
		       o->open_flags & FUSE_OPEN_KILL_SUIDGID;
	}
	default:
		return false;
	}
}

/* What the kernel sends for one who uses, or closes, an open file. */
static bool is_of_handle(const struct fuse_setattr_in *s)
{
	return !(s->valid & ~(uint32_t)(FATTR_FH | FATTR_MTIME | FATTR_CTIME |
					FATTR_LOCKOWNER | FATTR_KILL_SUIDGID));
}

/* An open file may be used by another user, to whom it was handed over. */
static bool names_a_file(const struct fuse_in_header *in, size_t len)
{
	const void *arg = in + 1;

	switch (in->opcode) {
	case FUSE_SETATTR:
		return len < sizeof(*in) + sizeof(struct fuse_setattr_in) ||
		       !is_of_handle(arg);
	case FUSE_LOOKUP:
	case FUSE_READLINK:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_OPEN:
	case FUSE_OPENDIR:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
	case FUSE_SETXATTR:
	case FUSE_GETXATTR:
	case FUSE_LISTXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_ACCESS:
		return true;
	default:
		return false;
	}
}

/* They ask the same. The answer is a number of 64 bits, as long as the one of 32
 * and what is zero behind it, and the same where the low bytes come first. */
static void ask_as_known(struct fuse_in_header *in)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	if (in->opcode == COPY_FILE_RANGE_64)
		in->opcode = FUSE_COPY_FILE_RANGE;
#else
	(void)in;
#endif
}

/* Was it, and has it been answered so? */
static bool refused(struct daemon *d, const struct fuse_in_header *in,
		    size_t len)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = -EACCES,
				       .unique = in->unique };

	if (!d->root_only || !in->uid || !names_a_file(in, len))
		return false;
	if (write(d->fuse_fd, &out, sizeof(out)) < 0)
		log_msg(LOG_LVL_DEBUG, "a refusal was not taken: %s",
			strerror(errno));
	return true;
}

static ssize_t raw_read(int fd, void *buf, size_t len, void *userdata)
{
	struct fuse_in_header *in = buf;
	struct daemon *d = userdata;
	struct worker *w;
	ssize_t got;

	worker_end(d); /* what has no answer */
	do
		got = turn_read(d, fd, buf, len);
	while (got >= (ssize_t)sizeof(*in) &&
	       (in->opcode == FUSE_NOTIFY_REPLY || refused(d, in, (size_t)got)));
	if (got < (ssize_t)sizeof(*in))
		return got;
	ask_as_known(in);
	w = worker_self(d);
	if (w) {
		w->kill_priv = asks_kill_priv(in, (size_t)got);
		worker_begin(w, in->opcode, in->unique);
	}
	if (in->opcode == FUSE_INIT)
		look_at_init(d, in, (size_t)got);
	return got;
}

static void amend_init(struct daemon *d, struct iovec *iov, int count)
{
	struct fuse_init_out *out;

	if (!d->offered_killpriv || count < 2 ||
	    iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	out = iov[1].iov_base;
	out->flags |= FUSE_HANDLE_KILLPRIV_V2;
}

/* The kernel looks up the page of each segment by itself, which takes longer
 * than to put the few bytes of most answers together. */
static ssize_t put(int fd, const struct iovec *iov, int count)
{
	char all[SMALL_ANSWER];
	size_t len = 0;

	for (int i = 0; i < count; i++) {
		if (iov[i].iov_len > sizeof(all) - len)
			return writev(fd, iov, count);
		memcpy(all + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return write(fd, all, len);
}

static ssize_t answer(struct daemon *d, const struct iovec *iov, int count)
{
	struct worker *w = worker_self(d);
	ssize_t n = put(d->fuse_fd, iov, count);
	int err = errno;

	if (w)
		flight_end(d, w);
	errno = err;
	return n;
}

static ssize_t raw_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	const struct fuse_out_header *out = iov[0].iov_base;
	struct daemon *d = userdata;
	uint64_t unique = atomic_load(&d->init_unique);
	bool init = unique && out->unique == unique && !out->error;
	ssize_t n;
	int err;

	(void)fd;
	worker_answer(d, out->unique);
	if (!init)
		return answer(d, iov, count);
	amend_init(d, iov, count);
	n = writev(d->fuse_fd, iov, count);
	err = errno;
	atomic_store(&d->init_unique, 0); /* the kernel may use the number again */
	errno = err;
	return n;
}

int raw_install(struct daemon *d)
{
	static const struct fuse_custom_io io = {
		.read = raw_read,
		.writev = raw_writev,
	};

	int fd = fuse_session_fd(d->se);

	d->fuse_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (d->fuse_fd < 0)
		return -errno;
	return fuse_session_custom_io(d->se, &io, fd);
}

void raw_remove(struct daemon *d)
{
	if (d->fuse_fd >= 0)
		close(d->fuse_fd);
	d->fuse_fd = -1;
}

bool raw_inc_epoch(struct daemon *d)
{
	struct fuse_out_header out = { .len = sizeof(out),
				       .error = NOTIFY_INC_EPOCH };

	if (write(d->fuse_fd, &out, sizeof(out)) >= 0)
		return true;
	log_msg(LOG_LVL_DEBUG, "the kernel has no epochs: %s",
		strerror(errno));
	return false;
}

bool raw_ask_message(struct daemon *d, uint64_t id)
{
	struct {
		struct fuse_out_header head;
		struct fuse_notify_retrieve_out what;
	} out = {
		.head = { .len = sizeof(out), .error = FUSE_NOTIFY_RETRIEVE },
		.what = { .nodeid = id },
	};

	return write(d->fuse_fd, &out, sizeof(out)) >= 0;
}

static int prune(struct daemon *d, uint64_t *id, uint32_t n)
{
	struct { uint32_t count, pad; uint64_t spare; } arg = { .count = n };
	struct fuse_out_header out = {
		.len = (uint32_t)(sizeof(out) + sizeof(arg) + n * sizeof(*id)),
		.error = NOTIFY_PRUNE
	};
	struct iovec iov[] = { { &out, sizeof(out) }, { &arg, sizeof(arg) },
			       { id, n * sizeof(*id) } };

	return writev(d->fuse_fd, iov, 3) < 0 ? -errno : 0;
}

void raw_prune(struct daemon *d, uint64_t *id, size_t n)
{
	size_t done = 0;
	uint32_t some;

	for (; done < n; done += some) {
		some = (uint32_t)min_u64(n - done, PRUNE_MAX);
		if (prune(d, id + done, some))
			return;
	}
}
