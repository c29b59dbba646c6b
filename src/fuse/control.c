/*
 * control.c - the control thread: what takes long or waits for the kernel
 *
 * One job at a time, in order. Making a snapshot or restoring one first fetches
 * what the kernel has not written yet, so that "written before it was asked
 * for" means the same for those who write as for those who ask.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define READAHEAD_KB "1024"

static void answer(fuse_req_t req, int err, const void *out, size_t len)
{
	if (err)
		reply_err(req, err);
	else
		fuse_reply_ioctl(req, 0, out, len);
}

/* Buffered reads come in pieces of the read-ahead, by default 128 KiB. Only
 * root may raise it; without it reading is slower, nothing else. */
static void raise_readahead(uint64_t dev)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(dev), minor(dev));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (write(fd, READAHEAD_KB, sizeof(READAHEAD_KB) - 1) < 0)
		log_msg(LOG_LVL_DEBUG, "%s: %s", path, strerror(errno));
	close(fd);
}

bool control_tell(struct daemon *d, char what)
{
	ssize_t n;

	if (d->ready_fd < 0)
		return true;
	do
		n = write(d->ready_fd, &what, 1);
	while (n < 0 && errno == EINTR);
	if (what == DAEMON_READY) {
		close(d->ready_fd);
		d->ready_fd = -1;
	}
	return n == 1;
}

/*
 * The kernel lets nobody look at the mount point before INIT is answered, and
 * then asks us: having seen it is proof that requests are served. The parent
 * waits for that; else an unmount right after the mount might find it in use -
 * by ourselves.
 */
static void meet_mount(struct daemon *d)
{
	struct stat st;
	dev_t dev;

	/* First what needs no answer from us: killed while we wait for one, we
	 * need the guard. */
	if (!session_device(d, &dev)) {
		atomic_store(&d->device, dev);
		guard_arm(d);
	}
	if (stat(d->opt->dir, &st))
		log_msg(LOG_LVL_DEBUG, "%s: %s", d->opt->dir, strerror(errno));
	else /* after INIT, of which the answer lowers it to what it was */
		raise_readahead(st.st_dev);
	(void)control_tell(d, DAEMON_READY);
}

static void do_sync(struct daemon *d, struct job *job)
{
	int lost = 0;
	int err = 0;

	if (!store_readonly(d->store)) {
		err = inval_drain(d);
		lost = fs_take_lost(d->fs);
		if (!err)
			err = store_commit(d->store, NULL, NULL);
	}
	answer(job->req, err ? err : lost, NULL, 0);
}

static void do_create(struct daemon *d, struct job *job)
{
	struct cowfs_ioc_snap out;
	struct snap_info s;
	int err = inval_drain(d);

	if (!err) /* nor may it lack what was written */
		err = fs_take_lost(d->fs);
	if (!err)
		err = snap_create(d->store, job->snap.name, &s);
	if (!err) {
		info_snap(&s, &out);
		inval_snapdir(d, NULL);
	} else if (err == -EINPROGRESS) { /* it is there (store_commit) */
		inval_snapdir(d, NULL);
	}
	answer(job->req, err, &out, sizeof(out));
}

static void do_delete(struct daemon *d, struct job *job)
{
	int err = fs_snap_delete(d->fs, job->snap.name);
	bool gone = !err || err == -EINPROGRESS; /* as store_commit has it */

	if (gone)
		inval_snapdir(d, job->snap.name);
	answer(job->req, err, NULL, 0);
	if (gone)
		inval_snapdir_rest(d, job->snap.name);
}

/*
 * The swap, with every other request kept out: what the kernel knew is listed
 * before it, and nothing it asks meanwhile mixes the two trees. After the swap
 * nothing may stop us from telling the kernel, so its new names are only an
 * addition to a list that is complete for what it had.
 */
static int swap(struct daemon *d, const struct cowfs_ioc_restore *r,
		struct inval_list **out)
{
	const char *save = *r->save ? r->save : NULL;
	struct inval_list *l;
	bool replaced;
	int err;

	rwlock_wrlock(&d->gate);
	err = inval_collect(d, &l);
	if (err)
		goto out;
	/* What the kernel finds in its cache from now on it looks up again, and
	 * waits for us; what it had found before arrives while we commit, and is
	 * told -ESTALE (nid_enter_live). */
	inval_begin(d, l);
	err = fs_restore(d->fs, r->name, save, &replaced);
	if (!replaced) {
		inval_free(l);
		goto out;
	}
	atomic_store(&d->epoch, (atomic_load(&d->epoch) + 1) & NID_INDEX_MAX);
	if (inval_add_root(d, l))
		log_msg(LOG_LVL_WARN, "restore: the root directory can't be "
			"listed; names in it may be hidden for a while");
	*out = l;
out:
	rwlock_unlock(&d->gate);
	return err;
}

static void do_restore(struct daemon *d, struct job *job)
{
	const char *save = *job->restore.save ? job->restore.save : NULL;
	struct inval_list *l = NULL;
	int err = inval_drain(d);

	/* Nobody is told of what was lost: a full disk may need this. */
	if (!err)
		err = swap(d, &job->restore, &l);
	if (l) {
		inval_send(d, l);
		inval_snapdir(d, save);
	}
	answer(job->req, err, NULL, 0);
	if (l) {
		inval_send_rest(d, l);
		inval_snapdir_rest(d, save);
	}
	inval_free(l);
}

static void fetch_last(struct daemon *d)
{
	int err = inval_drain(d), lost = fs_take_lost(d->fs);

	if (err)
		log_msg(LOG_LVL_WARN, "no memory: what was written to open "
			"files last may be lost");
	else if (lost)
		log_msg(LOG_LVL_WARN, "some of what was written to open files "
			"last is lost: %s", strerror(-lost));
}

/*
 * In order if the mount is not in use; else what was written is fetched, and
 * the mount taken away from its users. A kernel that copies pages (flight.c) may
 * have some on their way of which the file is not in use any more, since nobody
 * waits for what was stored through a mapping; unmounting drops them.
 */
static void do_quit(struct daemon *d)
{
	int err;

	if (d->copies_pages)
		fetch_last(d);
	err = session_umount(d);
	if (!err)
		return;
	log_msg(LOG_LVL_WARN, "%s: %s: detaching it from its users",
		d->opt->dir, strerror(-err));
	fetch_last(d);
	session_stop(d);
}

/*
 * The kernel tells of the last close before it lets go of the name, and does not
 * say whether it has forgotten anything: who closes may have been interrupted in
 * between, for as long as others run on that processor.
 */
static void prune_again(struct daemon *d, const struct job *job)
{
	static const uint64_t wait_ms[] = { 10, 100, 1000 };
	struct job again = { .kind = JOB_PRUNE, .ino = job->ino,
			     .tries = job->tries + 1 };

	if (job->tries >= ARRAY_SIZE(wait_ms))
		return;
	again.due = now_ns() + wait_ms[job->tries] * 1000000;
	if (control_add(d, &again))
		log_msg(LOG_LVL_DEBUG, "a file is told to be forgotten %u times",
			again.tries);
}

static void run_job(struct daemon *d, struct job *job)
{
	switch (job->kind) {
	case JOB_MEET:
		meet_mount(d);
		break;
	case JOB_SYNC:
		do_sync(d, job);
		break;
	case JOB_SNAP_CREATE:
		do_create(d, job);
		break;
	case JOB_SNAP_DELETE:
		do_delete(d, job);
		break;
	case JOB_SNAP_RESTORE:
		do_restore(d, job);
		break;
	case JOB_SETTING:
		answer(job->req, check_set_setting(d->store, &job->setting),
		       NULL, 0);
		break;
	case JOB_MIRROR:
		answer(job->req, sides_change(d, &job->mirror), NULL, 0);
		break;
	case JOB_FULL:
		inval_attr(d, job->ino);
		break;
	case JOB_BLOCKS:
		atomic_store(&d->growing, false); /* what comes is the next's */
		inval_written(d);
		break;
	case JOB_SEEK:
		seek_run(d, job->req, &job->seek);
		break;
	case JOB_RANGE:
		if (job->range.ino)
			inval_range(d, job->range.ino, job->range.from,
				    job->range.to);
		else
			inval_all(d);
		break;
	case JOB_PRUNE:
		raw_prune(d, &job->ino, 1);
		prune_again(d, job);
		break;
	case JOB_QUIT:
		do_quit(d);
		break;
	}
}

/* ---- the queue ---- */

/* So many jobs may wait that nobody waits for: who makes them goes on at once, and
 * may make the next one sooner than this one is done. */
#define NOTES_MAX 256u

static bool is_note(const struct job *job)
{
	return job->kind == JOB_FULL || job->kind == JOB_RANGE ||
	       job->kind == JOB_PRUNE;
}

/* One that waits already does for both. */
static bool joined(struct control *c, const struct job *job)
{
	struct list *l;

	for (l = c->jobs.next; l != &c->jobs; l = l->next) {
		struct job *old = list_entry(l, struct job, list);

		if (old->kind != job->kind)
			continue;
		if (job->kind != JOB_RANGE) {
			if (old->ino == job->ino) {
				old->due = min_u64(old->due, job->due);
				old->tries = old->tries < job->tries ?
					     old->tries : job->tries;
				return true;
			}
		} else if (old->range.ino == job->range.ino) {
			old->range.from = min_u64(old->range.from,
						  job->range.from);
			old->range.to = max_u64(old->range.to, job->range.to);
			return true;
		}
	}
	return false;
}

/* Q: *copy is NULL if it was taken over. */
static int enqueue(struct control *c, struct job **copy)
{
	struct job *job = *copy;
	bool note = is_note(job), all = job->kind == JOB_RANGE &&
					!job->range.ino;
	/* what is only tried once more leaves room for what is new */
	unsigned max = job->tries ? NOTES_MAX / 2 : NOTES_MAX;

	if (c->ending)
		return -ESHUTDOWN;
	if (note && joined(c, job))
		return 0;
	if (note && c->notes >= max && !all)
		return -ENOBUFS;
	c->notes += note;
	list_append(&c->jobs, &job->list);
	pthread_cond_signal(&c->wake);
	*copy = NULL;
	return 0;
}

/* Q: the first that is due, taken out of the queue; else when to look again. */
static struct job *due_job(struct control *c, uint64_t *wait_ms)
{
	uint64_t now = now_ns();
	struct list *l;

	*wait_ms = UINT64_MAX;
	for (l = c->jobs.next; l != &c->jobs; l = l->next) {
		struct job *job = list_entry(l, struct job, list);

		if (job->due <= now) {
			list_remove(&job->list);
			c->notes -= is_note(job);
			return job;
		}
		*wait_ms = min_u64(*wait_ms, (job->due - now) / 1000000 + 1);
	}
	return NULL;
}

static struct job *next_job(struct control *c)
{
	struct job *job = NULL;
	uint64_t ms;

	mutex_lock(&c->lock);
	while (!c->ending && !(job = due_job(c, &ms)))
		(void)cond_wait_ms(&c->wake, &c->lock, ms);
	mutex_unlock(&c->lock);
	return job;
}

static void *control_main(void *arg)
{
	struct daemon *d = arg;
	struct job *job;

	while ((job = next_job(&d->control))) {
		worker_take_over(d, &job->request);
		run_job(d, job);
		free(job);
	}
	return NULL;
}

int control_start(struct daemon *d)
{
	struct control *c = &d->control;
	int err;

	mutex_init(&c->lock, LOCK_LEAF);
	cond_init(&c->wake);
	list_init(&c->jobs);
	err = pthread_create(&c->thread, NULL, control_main, d);
	c->started = !err;
	return -err;
}

void control_stop(struct daemon *d)
{
	struct control *c = &d->control;
	struct list *l, *tmp;

	if (!c->started)
		return;
	mutex_lock(&c->lock);
	c->ending = true;
	pthread_cond_broadcast(&c->wake);
	mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->started = false;
	list_for_each_safe(l, tmp, &c->jobs) {
		struct job *job = list_entry(l, struct job, list);

		if (job->req) /* nobody hears it, but the library frees it */
			fuse_reply_err(job->req, ESHUTDOWN);
		free(job);
	}
	pthread_cond_destroy(&c->wake);
	mutex_fini(&c->lock);
}

int control_add(struct daemon *d, const struct job *job)
{
	struct control *c = &d->control;
	struct job *copy = malloc(sizeof(*copy));
	int err;

	if (!copy)
		return -ENOMEM;
	*copy = *job;
	mutex_lock(&c->lock);
	err = enqueue(c, &copy);
	mutex_unlock(&c->lock);
	free(copy);
	return err;
}

void control_hand_over(struct daemon *d, struct job *job)
{
	int err;

	job->request = worker_hand_over(d);
	err = control_add(d, job);
	if (err) {
		worker_take_over(d, &job->request);
		reply_err(job->req, err);
	}
}
