/*
 * nodeid.c - node ids: which inode of which tree
 *
 *	live tree	0 | epoch (15 bits) | inode number (48 bits)
 *	snapshot	1 | inode number (48) | view index (15 bits)
 *	.snapshots	1 | 0                 | 2
 *
 * The kernel's table of inodes does not look at the highest bits: what tells
 * thousands of snapshots apart must lie in the lowest.
 *
 * The root of the live tree is 1 in every epoch: the kernel wants it so.
 *
 * Why an epoch: with the writeback cache the kernel trusts its own size and
 * times of a regular file more than ours, and a directory it saw removed stays
 * dead for it. After a restore neither may survive under the same id, so all
 * get new ones, and what still uses an old one is told -ESTALE. It wraps around
 * after 32768 restores in one mount; an id kept in use for that long would name
 * the inode of the same number again.
 *
 * A view index is taken while the kernel knows a node of the snapshot, and free
 * again when it has forgotten all of them.
 */
#include "fuse/daemon.h"

#define EPOCH_MASK 0x7fffu

void nid_init(struct daemon *d)
{
	/* Writers first: a restore must not wait for a moment without any
	 * request. */
	rwlock_init(&d->gate, LOCK_GATE);
	mutex_init(&d->views.lock, LOCK_LEAF);
}

void nid_fini(struct daemon *d)
{
	for (unsigned i = 0; i < d->views.room; i++)
		if (d->views.slot[i].view)
			fs_view_put(d->fs, d->views.slot[i].view);
	free(d->views.slot);
	d->views.slot = NULL;
	d->views.room = 0;
	mutex_fini(&d->views.lock);
	rwlock_fini(&d->gate);
}

void gate_enter(struct daemon *d)
{
	rwlock_rdlock(&d->gate);
}

void gate_leave(struct daemon *d)
{
	rwlock_unlock(&d->gate);
}

static unsigned epoch_of(fuse_ino_t id)
{
	return (unsigned)(id >> NID_INO_BITS) & NID_INDEX_MAX;
}

static unsigned index_of(fuse_ino_t id)
{
	return (unsigned)id & NID_INDEX_MAX;
}

/* One more reference to a view that has some; NULL if it has none. */
static struct view *slot_hold(struct daemon *d, unsigned index)
{
	struct view *v = NULL;

	mutex_lock(&d->views.lock);
	if (index && index <= d->views.room) {
		v = d->views.slot[index - 1].view;
		if (v)
			d->views.slot[index - 1].refs++;
	}
	mutex_unlock(&d->views.lock);
	return v;
}

static void slot_drop(struct daemon *d, unsigned index, uint64_t count)
{
	struct view *gone = NULL;

	mutex_lock(&d->views.lock);
	if (index && index <= d->views.room) {
		struct view_slot *s = &d->views.slot[index - 1];

		s->refs -= min_u64(count, s->refs);
		if (!s->refs) {
			gone = s->view;
			s->view = NULL;
		}
	}
	mutex_unlock(&d->views.lock);
	if (gone)
		fs_view_put(d->fs, gone);
}

/* V: index of the slot that has v, else of a free one. 0: there is none. */
static unsigned slot_find(struct daemon *d, const struct view *v)
{
	struct view_table *t = &d->views;
	unsigned spare = 0, room;
	struct view_slot *s;

	for (unsigned i = 0; i < t->room; i++) {
		if (t->slot[i].view == v)
			return i + 1;
		if (!spare && !t->slot[i].view)
			spare = i + 1;
	}
	if (spare || t->room == NID_INDEX_MAX)
		return spare;
	room = t->room ? t->room * 2 : 16;
	if (room > NID_INDEX_MAX)
		room = NID_INDEX_MAX;
	s = realloc(t->slot, room * sizeof(*s));
	if (!s)
		return 0;
	memset(s + t->room, 0, (room - t->room) * sizeof(*s));
	spare = t->room + 1;
	t->slot = s;
	t->room = room;
	return spare;
}

int nid_of_view(struct daemon *d, struct view *v, struct nid *n)
{
	struct view_slot *s;
	bool known = false;
	unsigned index;

	mutex_lock(&d->views.lock);
	index = slot_find(d, v);
	if (index) {
		s = &d->views.slot[index - 1];
		known = s->view == v;
		s->view = v;
		s->refs++;
	}
	mutex_unlock(&d->views.lock);
	if (known || !index)
		fs_view_put(d->fs, v); /* the slot has one of its own */
	if (!index)
		return -ENFILE;
	*n = (struct nid){ .kind = NID_SNAPSHOT, .view = v,
			   .ino = COWFS_INO_ROOT, .index = index };
	return 0;
}

int nid_get(struct daemon *d, fuse_ino_t id, struct nid *n)
{
	uint64_t ino = id & NID_INO_MASK;
	struct view *v;

	if (id == NID_SNAPDIR) {
		*n = (struct nid){ .kind = NID_LISTING, .ino = SNAPDIR_INO };
		return 0;
	}
	if (!(id & NID_VIEW)) {
		if (id != COWFS_INO_ROOT && epoch_of(id) != atomic_load(&d->epoch))
			return -ESTALE;
		*n = (struct nid){ .kind = NID_LIVE, .view = fs_live(d->fs),
				   .ino = ino };
		return 0;
	}
	ino = (id & ~NID_VIEW) >> NID_INDEX_BITS;
	v = slot_hold(d, index_of(id));
	if (!v)
		return -ESTALE;
	*n = (struct nid){ .kind = NID_SNAPSHOT, .view = v, .ino = ino,
			   .index = index_of(id) };
	return 0;
}

void nid_put(struct daemon *d, const struct nid *n)
{
	if (n->kind == NID_SNAPSHOT)
		slot_drop(d, n->index, 1);
}

int nid_enter(struct daemon *d, fuse_ino_t id, struct nid *n)
{
	int err;

	gate_enter(d);
	err = nid_get(d, id, n);
	if (err)
		gate_leave(d);
	return err;
}

void nid_leave(struct daemon *d, const struct nid *n)
{
	nid_put(d, n);
	gate_leave(d);
}

int nid_get_live(struct daemon *d, fuse_ino_t id, struct nid *n)
{
	return id & NID_VIEW ? -EROFS : nid_get(d, id, n);
}

/*
 * The root's id stays, so what is to change it, and waited at the gate while the
 * tree was replaced, has to be told apart by hand: the kernel allowed it for the
 * old root and the old file of that name. (Told -ESTALE, it looks again.)
 */
int nid_enter_live(struct daemon *d, fuse_ino_t id, struct nid *n)
{
	unsigned asked = atomic_load(&d->epoch);
	int err = id & NID_VIEW ? -EROFS : nid_enter(d, id, n);

	if (!err && asked != atomic_load(&d->epoch)) {
		nid_leave(d, n);
		err = -ESTALE;
	}
	return err;
}

fuse_ino_t nid_live(struct daemon *d, uint64_t ino)
{
	if (ino == COWFS_INO_ROOT)
		return ino;
	return (fuse_ino_t)atomic_load(&d->epoch) << NID_INO_BITS | ino;
}

fuse_ino_t nid_make(struct daemon *d, const struct nid *n, uint64_t ino)
{
	switch (n->kind) {
	case NID_LISTING:
		return NID_SNAPDIR;
	case NID_SNAPSHOT:
		return NID_VIEW | ino << NID_INDEX_BITS | n->index;
	default:
		return nid_live(d, ino);
	}
}

/*
 * One st_dev serves the live tree and all snapshots: a file must not look like
 * a hard link to itself. Two snapshots get the same numbers only if their ids
 * are 65535 apart.
 */
uint64_t nid_st_ino(const struct nid *n, uint64_t ino)
{
	if (n->kind != NID_SNAPSHOT)
		return ino;
	return (1 + view_snap_id(n->view) % 65535) << NID_INO_BITS | ino;
}

int nid_ref(struct daemon *d, const struct nid *n, uint64_t ino)
{
	if (n->kind == NID_LIVE)
		return fs_ref(d->fs, ino);
	if (n->kind == NID_SNAPSHOT && !slot_hold(d, n->index))
		return -ESTALE;
	return 0;
}

void nid_unref(struct daemon *d, const struct nid *n, uint64_t ino,
	       uint64_t count)
{
	if (n->kind == NID_LIVE)
		fs_unref(d->fs, ino, count);
	else if (n->kind == NID_SNAPSHOT)
		slot_drop(d, n->index, count);
}

void nid_forget(struct daemon *d, fuse_ino_t id, uint64_t count)
{
	if (id == NID_SNAPDIR || id == COWFS_INO_ROOT)
		return;
	if (id & NID_VIEW)
		slot_drop(d, index_of(id), count);
	/* (A restore ends all references to what it replaces.) */
	else if (epoch_of(id) == atomic_load(&d->epoch))
		fs_unref(d->fs, id & NID_INO_MASK, count);
}
