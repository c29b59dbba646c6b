/*
 * orphan.c - inodes without a name: kept while used, then removed
 *
 *   O1  An inode with nlink 0 has an ORPHAN item of the same transaction.
 *   O2  Its last user, or the next mount, or a restore that brings it back,
 *       hands it to the background, which removes it in bounded transactions;
 *       a crash between two of them leaves a smaller orphan.
 *   O3  What nobody has open and one transaction can hold is removed with its
 *       last name and never becomes an orphan (destroy_plan, link.c). Of what
 *       is opened without our being told (directories, pipes, devices), what
 *       the kernel does not refer to.
 */
#include "fs/private.h"

#include <inttypes.h>

/* ---- removing an inode, wholly or a bounded part ---- */

static int plan_keys(struct tree *t, struct destroy *p)
{
	struct key k = INODE_KEY(p->ino);
	struct cursor c;
	int err;

	for (err = cursor_ceil(&c, t, &k); !err && c.key.obj == p->ino;
	     err = cursor_next(&c)) {
		if (c.key.type == COWFS_KEY_EXTENT) {
			if (p->extents == DESTROY_EXTENTS) {
				p->whole = false;
				return 0;
			}
			p->extents++;
		} else {
			if (p->n == DESTROY_ITEMS) {
				p->whole = false;
				return 0;
			}
			p->keys[p->n++] = c.key;
		}
	}
	return err == -ENOENT ? 0 : err;
}

int destroy_plan(struct fs *fs, uint64_t ino, struct destroy *p)
{
	struct tree *t = &fs->s->fs;
	unsigned i;
	int err;

	p->ino = ino;
	p->whole = true;
	p->n = 0;
	p->extents = 0;
	p->cut = (struct extent_cut){
		.ino = ino,
		.len = COWFS_FILE_BLOCKS_MAX,
		.max = DESTROY_EXTENTS,
		.from_end = true,
	};
	err = plan_keys(t, p);
	for (i = 0; !err && i < p->n; i++)
		err = tree_prepare(t, &p->keys[i]);
	if (!err && p->extents)
		err = extent_prepare_cut(fs, &p->cut);
	return err;
}

int destroy_apply(struct fs *fs, struct destroy *p, struct cowfs_disk_inode *d)
{
	unsigned i;
	int err;

	if (p->extents) {
		err = extent_do_cut(fs, &p->cut, d);
		if (err)
			return err;
		if (p->whole && p->cut.done != p->cut.len)
			return report(-ECOW_CORRUPT, "inode %" PRIu64
				      ": its extents do not end", p->ino);
	}
	for (i = 0; i < p->n; i++) {
		/* The inode itself goes last of all. */
		if (!p->whole && p->keys[i].type == COWFS_KEY_INODE)
			continue;
		err = tree_delete(&fs->s->fs, &p->keys[i]);
		if (err)
			return err;
	}
	return 0;
}

/* ---- the list of those to remove ---- */

struct orphan {
	struct list link;
	uint64_t ino;
};

void orphan_queue(struct fs *fs, uint64_t ino)
{
	struct orphan *o = malloc(sizeof(*o));

	if (!o) {
		/* The tree knows them all. */
		fs->rescan = true;
		return;
	}
	o->ino = ino;
	list_append(&fs->reap, &o->link);
}

void orphan_unqueue(struct fs *fs)
{
	struct list *l;

	while (!list_empty(&fs->reap)) {
		l = fs->reap.next;
		list_remove(l);
		free(list_entry(l, struct orphan, link));
	}
	fs->rescan = false;
}

int orphan_add(struct fs *fs, uint64_t ino)
{
	struct key k = ORPHAN_KEY(ino);
	int err;

	err = tree_insert(&fs->s->fs, &k, NULL, 0, NULL);
	if (!err)
		inode_set_orphan(fs, ino, true);
	return err;
}

/* From *from on; on -EAGAIN it is moved on past those that were seen. */
static int scan_locked(struct fs *fs, uint64_t *from)
{
	struct key k = ORPHAN_KEY(*from);
	struct cursor c;
	int err;

	for (err = cursor_ceil(&c, &fs->s->fs, &k); !err;
	     err = cursor_next(&c)) {
		if (c.key.obj != 0 || c.key.type != COWFS_KEY_ORPHAN)
			return 0;
		*from = c.key.off + 1;
		if (!c.key.off || c.key.off > COWFS_INO_MAX || c.item.len) {
			err = report(-ECOW_CORRUPT, "orphan %" PRIu64
				     ": impossible item", c.key.off);
			(void)err; /* fsck's business; the others go on */
			if (c.key.off == UINT64_MAX)
				return 0; /* it is the last */
			continue;
		}
		inode_set_orphan(fs, c.key.off, true);
	}
	return err == -ENOENT ? 0 : err;
}

int orphan_scan(struct fs *fs)
{
	uint64_t from = 1;
	struct op op;
	int err;

	op_read(&op, fs->s);
	do
		err = scan_locked(fs, &from);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

void orphan_scan_later(struct fs *fs)
{
	mutex_lock(&fs->table_lock);
	fs->rescan = true;
	mutex_unlock(&fs->table_lock);
	store_wake(fs->s, WORK_ORPHAN);
}

/* ---- reaping ---- */

/* Is the item there? Prepared then. */
static int prepare_item(struct fs *fs, uint64_t ino, bool *there)
{
	struct key k = ORPHAN_KEY(ino);
	struct item it;
	int err;

	err = tree_get(&fs->s->fs, &k, &it);
	*there = !err;
	if (err)
		return err == -ENOENT ? 0 : err;
	return tree_prepare(&fs->s->fs, &k);
}

static int reap_locked(struct fs *fs, uint64_t ino, bool *more)
{
	struct key k = ORPHAN_KEY(ino);
	struct cowfs_disk_inode d;
	struct destroy plan;
	bool item = false;
	int err;

	*more = false;
	err = inode_read(&fs->s->fs, ino, &d);
	if (err)
		return err == -ESTALE ? 0 : err; /* gone already */
	if (from_le32(d.nlink) || !inode_orphan_idle(fs, ino))
		return 0;
	err = destroy_plan(fs, ino, &plan);
	if (!err && plan.whole)
		err = prepare_item(fs, ino, &item);
	if (err)
		return err;
	err = destroy_apply(fs, &plan, &d);
	if (!err && item)
		err = tree_delete(&fs->s->fs, &k);
	if (!err && !plan.whole) {
		*more = true;
		err = inode_write(fs, ino, &d);
	}
	return err;
}

static int reap_step(struct fs *fs, uint64_t ino, bool *more)
{
	struct op op;
	int err;

	err = fs_op_write(fs, &op, ALLOC_FREEING, 8);
	if (err)
		return err;
	do
		err = reap_locked(fs, ino, more);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

int orphan_reap(struct fs *fs, uint64_t ino)
{
	bool more = true;
	int err = 0;

	while (!err && more)
		err = reap_step(fs, ino, &more);
	return err;
}

/* *begun: reaping is set, work may go on. */
static struct orphan *take(struct fs *fs, bool *begun, bool *rescan)
{
	struct orphan *o = NULL;

	mutex_lock(&fs->table_lock);
	*begun = fs->reaping = !fs->closing;
	*rescan = fs->rescan;
	fs->rescan = false;
	if (*begun && !list_empty(&fs->reap)) {
		o = list_entry(fs->reap.next, struct orphan, link);
		list_remove(&o->link);
	}
	mutex_unlock(&fs->table_lock);
	return o;
}

/* again: there is more to do with this one. */
static void finish(struct fs *fs, struct orphan *o, bool again)
{
	mutex_lock(&fs->table_lock);
	if (again)
		list_push(&fs->reap, &o->link);
	fs->reaping = false;
	pthread_cond_broadcast(&fs->reaped);
	mutex_unlock(&fs->table_lock);
	if (!again)
		free(o);
}

static void warn_left(const char *what, uint64_t ino, int err)
{
	log_msg(LOG_LVL_WARN, "%s %" PRIu64 ": %s; left to the next mount",
		what, ino, strerror(-err));
}

int orphan_work(void *arg)
{
	struct fs *fs = arg;
	struct orphan *o;
	bool begun, rescan, more = false, later;
	int err;

	o = take(fs, &begun, &rescan);
	if (!begun)
		return 0;
	if (rescan) {
		err = orphan_scan(fs);
		if (err)
			warn_left("orphans from", 1, err);
	}
	if (!o) {
		finish(fs, NULL, false);
		return rescan;
	}
	err = reap_step(fs, o->ino, &more);
	/* When somebody calls again there may be room. */
	later = err == -ENOSPC || err == -ENOMEM;
	if (err && !later)
		warn_left("orphan", o->ino, err);
	finish(fs, o, later || (!err && more));
	return !later;
}

void orphan_stop(struct fs *fs)
{
	mutex_lock(&fs->table_lock);
	fs->closing = true;
	while (fs->reaping)
		(void)cond_wait_ms(&fs->reaped, &fs->table_lock, UINT64_MAX);
	mutex_unlock(&fs->table_lock);
}
