/*
 * requests.c - how many requests of each kind, and how long they take
 *
 * A histogram for each opcode, in stripes: threads count on different ones, so
 * that no two CPUs pass a cache line to and fro. A stripe gets a histogram
 * (4 KiB) when it sees an opcode for the first time; without memory for it the
 * request is not counted.
 */
#include <stdio.h>

#include "fuse/daemon.h"
#include "util/hist.h"

#define STRIPES 16u

struct stripe {
	_Alignas(64) struct hist *_Atomic kind[REQUEST_KINDS];
};

struct requests {
	struct stripe stripe[STRIPES];
};

/* By number: the headers that a build finds may not have the newest names. */
static const char *const name[REQUEST_KINDS] = {
	[0] = "OTHER",          [1] = "LOOKUP",       [2] = "FORGET",
	[3] = "GETATTR",        [4] = "SETATTR",      [5] = "READLINK",
	[6] = "SYMLINK",        [8] = "MKNOD",        [9] = "MKDIR",
	[10] = "UNLINK",        [11] = "RMDIR",       [12] = "RENAME",
	[13] = "LINK",          [14] = "OPEN",        [15] = "READ",
	[16] = "WRITE",         [17] = "STATFS",      [18] = "RELEASE",
	[20] = "FSYNC",         [21] = "SETXATTR",    [22] = "GETXATTR",
	[23] = "LISTXATTR",     [24] = "REMOVEXATTR", [25] = "FLUSH",
	[26] = "INIT",          [27] = "OPENDIR",     [28] = "READDIR",
	[29] = "RELEASEDIR",    [30] = "FSYNCDIR",    [31] = "GETLK",
	[32] = "SETLK",         [33] = "SETLKW",      [34] = "ACCESS",
	[35] = "CREATE",        [36] = "INTERRUPT",   [37] = "BMAP",
	[38] = "DESTROY",       [39] = "IOCTL",       [40] = "POLL",
	[41] = "NOTIFY_REPLY",  [42] = "BATCH_FORGET", [43] = "FALLOCATE",
	[44] = "READDIRPLUS",   [45] = "RENAME2",     [46] = "LSEEK",
	[47] = "COPY_FILE_RANGE", [48] = "SETUPMAPPING",
	[49] = "REMOVEMAPPING", [50] = "SYNCFS",      [51] = "TMPFILE",
	[52] = "STATX",
};

int requests_new(struct requests **out)
{
	struct requests *r = aligned_alloc(64, sizeof(*r));

	if (!r)
		return -ENOMEM;
	memset(r, 0, sizeof(*r));
	*out = r;
	return 0;
}

void requests_free(struct requests *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < STRIPES; i++)
		for (unsigned k = 0; k < REQUEST_KINDS; k++)
			free(atomic_load(&r->stripe[i].kind[k]));
	free(r);
}

/* The stripe of this thread. */
static struct stripe *mine(struct requests *r)
{
	static _Atomic unsigned threads;
	static _Thread_local unsigned number; /* from 1 on */

	if (!number)
		number = 1 + atomic_fetch_add(&threads, 1) % STRIPES;
	return &r->stripe[number - 1];
}

/* Another thread of the stripe may do the same: one of the two wins. */
static struct hist *first_use(struct hist *_Atomic *at)
{
	struct hist *h = calloc(1, sizeof(*h)), *other = NULL;

	if (h && !atomic_compare_exchange_strong(at, &other, h)) {
		free(h);
		h = other;
	}
	return h;
}

void requests_add(struct requests *r, uint32_t opcode, uint64_t ns)
{
	unsigned k = opcode < REQUEST_KINDS ? opcode : 0;
	struct hist *_Atomic *at = &mine(r)->kind[k];
	struct hist *h = atomic_load_explicit(at, memory_order_acquire);

	if (!h)
		h = first_use(at);
	if (h)
		hist_add(h, ns);
}

static void label(struct cowfs_ioc_hist *out, unsigned k)
{
	if (name[k])
		snprintf(out->name, sizeof(out->name), "%s", name[k]);
	else
		snprintf(out->name, sizeof(out->name), "OPCODE_%u", k);
	out->kind = COWFS_HIST_REQUEST;
	out->unit = COWFS_HIST_NS;
}

bool requests_next(const struct requests *r, uint64_t *at,
		   struct cowfs_ioc_hist *out)
{
	for (; *at < REQUEST_KINDS; ++*at) {
		memset(out, 0, sizeof(*out));
		for (unsigned i = 0; i < STRIPES; i++) {
			const struct hist *h =
				atomic_load(&r->stripe[i].kind[*at]);

			if (h)
				hist_read(h, &out->h);
		}
		if (!out->h.count)
			continue;
		label(out, (unsigned)*at);
		++*at;
		return true;
	}
	return false;
}
