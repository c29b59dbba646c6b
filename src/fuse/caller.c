/*
 * caller.c - is it root, or the owner, who asks, or only somebody with the number?
 *
 * Root of a container may be user 0 of the whole system, and yet have no rights
 * outside: in a user namespace of its own, or without capabilities. Root of a
 * container that a user made for himself has that user's number here. All that
 * either needs to ask for anything is one file of the mount, in a directory that
 * was put into the container; and the daemon does it with rights of its own: what
 * is to become a side of a mirror it overwrites, wherever that lies. So who asks
 * must be of our user namespace; and if he is not the owner, or that is root of the
 * system, he must be able to administer the system.
 */
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/daemon.h"

/* The same thing of both tasks. *err: why that can't be told. */
static bool same(pid_t pid, const char *what, int *err)
{
	struct stat its, ours;
	char path[64];

	*err = 0;
	snprintf(path, sizeof(path), "/proc/%ld/%s", (long)pid, what);
	if (stat(path, &its)) {
		*err = -errno;
		return false;
	}
	snprintf(path, sizeof(path), "/proc/self/%s", what);
	return !stat(path, &ours) && its.st_ino == ours.st_ino &&
	       its.st_dev == ours.st_dev;
}

/* To those who may not look at its namespace (another user's task) its map tells
 * the same; whoever can make one like ours can become any user as well. */
static bool same_map(pid_t pid)
{
	char path[64], its[256], ours[256];

	snprintf(path, sizeof(path), "/proc/%ld/uid_map", (long)pid);
	return first_line(path, its, sizeof(its)) &&
	       first_line("/proc/self/uid_map", ours, sizeof(ours)) &&
	       !strcmp(its, ours);
}

/* A task in another user namespace has its capabilities there, not here. */
static bool in_our_user_namespace(pid_t pid)
{
	int err;

	if (access("/proc/self/ns/user", F_OK))
		return true; /* a kernel without any, or no /proc to ask */
	return same(pid, "ns/user", &err) ||
	       ((err == -EACCES || err == -EPERM) && same_map(pid));
}

static uint64_t capabilities(pid_t pid)
{
	char path[64], line[256];
	uint64_t caps = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%ld/status", (long)pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "CapEff: %" SCNx64, &caps) == 1)
			break;
	fclose(f);
	return caps;
}

static bool has_rights(pid_t pid)
{
	return capabilities(pid) & UINT64_C(1) << CAP_SYS_ADMIN;
}

/* The owner has no other rights than the daemon. */
static bool is_owner(const struct daemon *d, const struct fuse_ctx *ctx)
{
	return ctx->uid == d->owner && !d->system_root;
}

bool caller_may_control(struct daemon *d, fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);

	if (ctx->uid && ctx->uid != d->owner)
		return false;
	/* (It waits for our answer, so its number is not another task's yet. 0: it
	 * is none of our namespace.) */
	return ctx->pid && in_our_user_namespace(ctx->pid) &&
	       (is_owner(d, ctx) || has_rights(ctx->pid));
}

bool caller_sees_our_files(struct daemon *d, fuse_req_t req)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	int err;

	if (!is_owner(d, ctx) || access("/proc/self/ns/mnt", F_OK))
		return true;
	return same(ctx->pid, "ns/mnt", &err) && same(ctx->pid, "root", &err);
}
