/*
 * info.c - what the daemon knows about itself, for cowctl
 */
#include <unistd.h>

#include "fuse/daemon.h"

int info_fill(struct daemon *d, struct cowfs_ioc_info *out)
{
	int err = check_info(d->store, out);

	if (err)
		return err;
	out->pid = (uint64_t)getpid();
	out->moved = atomic_load(&d->moved);
	return 0;
}

int info_stats(struct daemon *d, struct cowfs_ioc_stats *out)
{
	struct cowfs_ioc_scrub scrub;
	int err = check_stats(d->store, out);

	if (err)
		return err;
	scrub_status(d->scrub, &scrub);
	out->since_ns = d->began;
	out->scrubbing = scrub.running;
	out->scrub_done = scrub.done;
	out->scrub_total = scrub.total;
	return 0;
}

/* Requests first, then what the store has. */
void info_hists(struct daemon *d, struct cowfs_ioc_hist_list *l)
{
	uint64_t at = l->from, own;

	l->from = l->count = 0;
	while (l->count < COWFS_IOC_HISTS &&
	       requests_next(d->requests, &at, &l->hist[l->count]))
		l->count++;
	if (at < REQUEST_KINDS) {
		l->from = at;
		return;
	}
	own = at - REQUEST_KINDS;
	while (l->count < COWFS_IOC_HISTS &&
	       check_hist_next(d->store, &own, &l->hist[l->count]))
		l->count++;
	if (l->count == COWFS_IOC_HISTS)
		l->from = REQUEST_KINDS + own;
}

void info_snap(const struct snap_info *in, struct cowfs_ioc_snap *out)
{
	memset(out, 0, sizeof(*out));
	out->id = in->id;
	out->gen = in->gen;
	out->root_block = in->root.blk;
	out->time_sec = in->time.sec;
	out->time_nsec = in->time.nsec;
	memcpy(out->name, in->name, sizeof(in->name));
}
