/*
 * view.c - the trees one can look at: the live one and those of snapshots;
 * restoring and deleting snapshots under them
 *
 *   V1  A snapshot's view is marked dead, under the exclusive tree lock, before
 *       the first of its blocks can be freed: nobody reads on in a tree that
 *       is being dropped.
 *   V2  Restoring swaps the live root inside a commit. What fs knows about
 *       orphans is forgotten in the same moment and read anew from the new
 *       tree; kernel references and handles stay, and give -ESTALE if their
 *       inode is not there any more. An operation that works in steps finds its
 *       inode anew in each; fs->restores tells it if it carries more than that
 *       from one to the next.
 */
#include "fs/private.h"

struct view *fs_live(struct fs *fs)
{
	return &fs->live;
}

uint64_t view_snap_id(const struct view *v)
{
	return v->snap_id;
}

struct tree *view_tree(struct fs *fs, struct view *v)
{
	if (!v->snap_id)
		return &fs->s->fs;
	return v->dead ? NULL : &v->tree;
}

static struct view *find(struct fs *fs, uint64_t id)
{
	struct view *v;

	for (v = fs->views; v; v = v->next)
		if (v->snap_id == id && !v->dead)
			return v;
	return NULL;
}

/* V is held: the snapshot stays while its view is put into the list. */
static int open_locked(struct fs *fs, const char *name, struct view **out)
{
	struct snap_info info;
	struct view *v;
	int err;

	err = snap_find(fs->s, name, &info);
	if (err)
		return err;
	mutex_lock(&fs->table_lock);
	v = find(fs, info.id);
	if (!v) {
		v = calloc(1, sizeof(*v));
		if (!v) {
			mutex_unlock(&fs->table_lock);
			return -ENOMEM;
		}
		v->snap_id = info.id;
		snap_tree(fs->s, &info, &v->tree);
		v->next = fs->views;
		fs->views = v;
	}
	v->count++;
	mutex_unlock(&fs->table_lock);
	*out = v;
	return 0;
}

int fs_view_open(struct fs *fs, const char *name, struct view **out)
{
	int err;

	mutex_lock(&fs->views_lock);
	err = open_locked(fs, name, out);
	mutex_unlock(&fs->views_lock);
	return err;
}

void fs_view_put(struct fs *fs, struct view *v)
{
	struct view **at;

	if (!v || v == &fs->live)
		return;
	mutex_lock(&fs->table_lock);
	if (--v->count) {
		mutex_unlock(&fs->table_lock);
		return;
	}
	for (at = &fs->views; *at != v; at = &(*at)->next)
		;
	*at = v->next;
	mutex_unlock(&fs->table_lock);
	free(v);
}

/* T exclusive. */
static void set_dead(struct fs *fs, uint64_t id, bool dead)
{
	struct view *v;

	mutex_lock(&fs->table_lock);
	for (v = fs->views; v; v = v->next)
		if (v->snap_id == id)
			v->dead = dead;
	mutex_unlock(&fs->table_lock);
}

/* Like set_dead, but takes T. */
static int mark(struct fs *fs, uint64_t id, bool dead)
{
	struct op op;
	int err;

	err = op_write(&op, fs->s, ALLOC_INTERNAL, 0);
	if (err)
		return err;
	set_dead(fs, id, dead);
	return op_end(&op, 0);
}

static int delete_locked(struct fs *fs, const char *name)
{
	struct snap_info info;
	int err;

	err = snap_find(fs->s, name, &info);
	if (err)
		return err;
	if (info.id == fs->live.snap_id)
		return -EBUSY; /* it is what is mounted */
	err = mark(fs, info.id, true);
	if (err)
		return err;
	err = snap_delete(fs->s, name);
	/* Still there? If the store has stopped, nothing is freed any more and
	 * the view stays dead. */
	if (err && err != -EINPROGRESS && mark(fs, info.id, false))
		log_msg(LOG_LVL_WARN, "snapshot %s: cannot be browsed until "
			"the next mount", name);
	return err;
}

int fs_snap_delete(struct fs *fs, const char *name)
{
	int err;

	if (fs->opt.readonly)
		return -EROFS;
	mutex_lock(&fs->views_lock);
	err = delete_locked(fs, name);
	mutex_unlock(&fs->views_lock);
	return err;
}

struct swap {
	struct fs *fs;
	bool done;
};

/* T exclusive, inside the commit; V is held by the caller of fs_restore. */
static void swapped(void *arg)
{
	struct swap *s = arg;

	s->fs->restores++;
	if (s->fs->undo_id)
		set_dead(s->fs, s->fs->undo_id, true);
	inode_tree_replaced(s->fs);
	s->done = true;
}

/* Whose record goes when `save` is "@undo": its snapshot until now. */
static int find_replaced(struct fs *fs, const char *save)
{
	struct snap_info info;
	int err;

	fs->undo_id = 0;
	if (!save || strcmp(save, COWFS_SNAP_UNDO) != 0)
		return 0;
	err = snap_find(fs->s, save, &info);
	if (err)
		return err == -ENOENT ? 0 : err;
	fs->undo_id = info.id;
	return 0;
}

int fs_restore(struct fs *fs, const char *name, const char *save, bool *replaced)
{
	struct swap s = { .fs = fs };
	int err;

	if (replaced)
		*replaced = false;
	if (fs->opt.readonly)
		return -EROFS;
	mutex_lock(&fs->views_lock);
	err = find_replaced(fs, save);
	if (!err)
		err = snap_restore(fs->s, name, save, swapped, &s);
	mutex_unlock(&fs->views_lock);
	if (replaced)
		*replaced = s.done;
	if (s.done && orphan_scan(fs))
		orphan_scan_later(fs);
	return err;
}
