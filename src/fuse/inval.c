/*
 * inval.c - what the kernel is to write back, and to forget
 *
 * A notification waits for requests under way (that of an entry for the
 * directory's lock, that of an inode for its dirty pages), so only the control
 * thread sends any, and holds no lock while it does (D1).
 */
#include <fcntl.h>
#include <unistd.h>

#include "fuse/daemon.h"

#define PROBE (256u << 10)

struct ids {
	uint64_t *id;
	size_t count, room;
	int err;
};

struct inval_list {
	struct ids open;  /* nodes as the kernel knew them */
	struct ids rest;
	char *names;      /* of the root, each with its NUL */
	size_t len, room;
	bool again;       /* every name is looked up again */
};

static void ids_add(struct ids *l, uint64_t ino)
{
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 256;
		uint64_t *id = realloc(l->id, room * sizeof(*id));

		if (!id) {
			l->err = -ENOMEM;
			return;
		}
		l->id = id;
		l->room = room;
	}
	l->id[l->count++] = ino;
}

/* -ENOENT, the usual failure, says that the kernel has nothing of it. */
static void forget_contents(struct daemon *d, fuse_ino_t id)
{
	(void)fuse_lowlevel_notify_inval_inode(d->se, id, 0, 0);
}

/*
 * To make pages invalid the kernel writes dirty ones one by one, each with a
 * request of 4 KiB that it waits for (16 MiB: 250 to 700 ms); what it writes of
 * its own accord comes in requests of 1 MiB. So it is made to do that before:
 * only to save time, as not all kernels wait for it here (nor do they when pages
 * are made invalid that it has sent: flight.c).
 */
static void write_back(struct daemon *d)
{
	struct stat st;
	dev_t dev;
	int fd;

	/* What else is mounted there by now may wait for us when it is opened. */
	if (session_device(d, &dev) || dev != atomic_load(&d->device))
		return;
	fd = open(d->opt->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	if (!fstat(fd, &st) && st.st_dev == atomic_load(&d->device) &&
	    syncfs(fd))
		log_msg(LOG_LVL_DEBUG, "%s: %s", d->opt->dir, strerror(errno));
	close(fd);
}

/* A length of 0 is all that follows; no file is longer than an off_t. */
static void forget_range(struct daemon *d, fuse_ino_t id, uint64_t from,
			 uint64_t to)
{
	uint64_t len = to > INT64_MAX ? 0 : to - from;

	(void)fuse_lowlevel_notify_inval_inode(d->se, id, (off_t)from,
					       (off_t)len);
}

void inval_range(struct daemon *d, fuse_ino_t id, uint64_t from, uint64_t to)
{
	uint64_t probe = from + min_u64(to - from, PROBE);

	atomic_store(&d->stored, false);
	forget_range(d, id, from, probe);
	if (probe != to) {
		if (atomic_load(&d->stored))
			write_back(d);
		forget_range(d, id, probe, to);
	}
	(void)flight_wait(d, id);
}

void inval_attr(struct daemon *d, fuse_ino_t id)
{
	(void)fuse_lowlevel_notify_inval_inode(d->se, id, -1, 0);
}

static void forget_name(struct daemon *d, fuse_ino_t dir, const char *name)
{
	(void)fuse_lowlevel_notify_inval_entry(d->se, dir, name, strlen(name));
}

static void add_id(void *arg, uint64_t ino, bool open)
{
	(void)open;
	ids_add(arg, ino);
}

/*
 * A file can have dirty pages only while a handle for writing is open: the
 * kernel writes them before it tells of the last close. The epoch is read
 * without the gate: only this thread changes it.
 */
int inval_drain(struct daemon *d)
{
	struct ids l = { 0 };

	fs_each_writer(d->fs, add_id, &l);
	atomic_store(&d->draining, true);
	if (l.count)
		write_back(d);
	for (size_t i = 0; i < l.count; i++)
		forget_contents(d, nid_live(d, l.id[i]));
	for (size_t i = 0; i < l.count; i++)
		if (flight_wait(d, nid_live(d, l.id[i])))
			break;
	atomic_store(&d->draining, false);
	free(l.id);
	return l.err;
}

/* (If memory is short, of some.) */
void inval_written(struct daemon *d)
{
	struct ids l = { 0 };

	fs_each_writer(d->fs, add_id, &l);
	for (size_t i = 0; i < l.count; i++)
		inval_attr(d, nid_live(d, l.id[i]));
	free(l.id);
}

static int add_name(void *arg, const struct fs_dirent *e)
{
	struct inval_list *l = arg;

	if (e->cookie <= 2)
		return 0;
	if (l->room - l->len <= e->len) {
		size_t room = 2 * l->room + e->len + 1;
		char *names = realloc(l->names, room);

		if (!names) {
			l->rest.err = -ENOMEM;
			return 1;
		}
		l->names = names;
		l->room = room;
	}
	memcpy(l->names + l->len, e->name, e->len);
	l->len += e->len;
	l->names[l->len++] = '\0';
	return 0;
}

int inval_add_root(struct daemon *d, struct inval_list *l)
{
	int err;

	err = fs_readdir(d->fs, fs_live(d->fs), COWFS_INO_ROOT, 0, false,
			 add_name, l);
	return err ? err : l->rest.err;
}

static void add_node(void *arg, uint64_t ino, bool open)
{
	struct inval_list *l = arg;

	ids_add(open ? &l->open : &l->rest, ino);
}

/* Node ids instead of inode numbers: those of the epoch that ends. */
static void name_nodes(struct daemon *d, struct ids *l)
{
	for (size_t i = 0; i < l->count; i++)
		l->id[i] = nid_live(d, l->id[i]);
}

int inval_collect(struct daemon *d, struct inval_list **out)
{
	struct inval_list *l = calloc(1, sizeof(*l));
	int err;

	if (!l)
		return -ENOMEM;
	fs_each_ref(d->fs, add_node, l);
	name_nodes(d, &l->open);
	name_nodes(d, &l->rest);
	err = l->open.err ? l->open.err : inval_add_root(d, l);
	if (err) {
		inval_free(l);
		return err;
	}
	*out = l;
	return 0;
}

/* What is below them goes with them. */
static void forget_root_names(struct daemon *d, const struct inval_list *l)
{
	for (size_t at = 0; at < l->len; at += strlen(l->names + at) + 1)
		forget_name(d, COWFS_INO_ROOT, l->names + at);
}

static void forget_nodes(struct daemon *d, const struct ids *l)
{
	for (size_t i = 0; i < l->count; i++)
		forget_contents(d, l->id[i]);
}

void inval_all(struct daemon *d)
{
	struct ids l = { 0 };

	fs_each_ref(d->fs, add_id, &l);
	write_back(d);
	name_nodes(d, &l);
	forget_nodes(d, &l);
	if (l.err)
		log_msg(LOG_LVL_WARN, "no memory: what was zeroed in part may "
			"be seen as it was for a while");
	free(l.id);
}

void inval_begin(struct daemon *d, struct inval_list *l)
{
	l->again = raw_inc_epoch(d);
}

/*
 * Waits for lookups and listings of the root: the kernel takes the directory's
 * lock before it looks for the name to drop. No file can have this one, so it
 * drops nothing. (Of .snapshots all below would go with it, file by file, and who
 * works there would not know where he is.)
 */
static void await_root(struct daemon *d)
{
	char name[COWFS_NAME_MAX + 2];

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	forget_name(d, COWFS_INO_ROOT, name);
}

/*
 * 1. Where the kernel does not know epochs (inval_begin), the names in the root
 *    are dropped, so that every name is looked up again. Nothing else tells
 *    somebody's working directory from the one that is in its place now, so all
 *    nodes are told in step 3.
 * 2. Lookups and listings of the root that are under way are waited for, as they
 *    may have been answered from the old tree. The names that such a listing
 *    brings with it belong to the epoch in which the kernel puts them down, not
 *    to that in which it asked: another one begins.
 * 3. Pages and attributes of open files: what is read through an old handle must
 *    not be the old contents.
 * 4. The root itself, whose id stays.
 */
void inval_send(struct daemon *d, const struct inval_list *l)
{
	if (!l->again)
		forget_root_names(d, l);
	await_root(d);
	if (l->again)
		(void)raw_inc_epoch(d);
	forget_nodes(d, &l->open);
	if (!l->again)
		forget_nodes(d, &l->rest);
	forget_contents(d, COWFS_INO_ROOT);
}

/* What is in a directory became known after it. */
static void reverse(struct ids *l)
{
	for (size_t i = 0, k = l->count; i + 1 < k; i++) {
		uint64_t id = l->id[i];

		l->id[i] = l->id[--k];
		l->id[k] = id;
	}
}

/*
 * Memory, and the attributes of what somebody has open otherwise. Names in the
 * root are not dropped: the kernel would do that with all that is below them
 * (100,000 files: half a second), and let nobody into the root meanwhile. Whom
 * it meets with one of them first waits for that; so files go one by one here.
 */
void inval_send_rest(struct daemon *d, struct inval_list *l)
{
	if (!l->again)
		return; /* there is none */
	reverse(&l->rest);
	raw_prune(d, l->rest.id, l->rest.count);
	forget_nodes(d, &l->rest);
}

void inval_free(struct inval_list *l)
{
	if (!l)
		return;
	free(l->open.id);
	free(l->rest.id);
	free(l->names);
	free(l);
}

void inval_snapdir(struct daemon *d, const char *name)
{
	atomic_store(&d->snapdir_sec, now_real().sec);
	if (name && fuse_lowlevel_notify_expire_entry(
			    d->se, NID_SNAPDIR, name, strlen(name),
			    FUSE_LL_EXPIRE_ONLY) == -ENOSYS)
		forget_name(d, NID_SNAPDIR, name);
	forget_contents(d, NID_SNAPDIR);
}

void inval_snapdir_rest(struct daemon *d, const char *name)
{
	if (name)
		forget_name(d, NID_SNAPDIR, name);
}
