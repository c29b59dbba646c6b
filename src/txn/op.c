/*
 * op.c - operations: the tree lock, room to work, missing nodes
 */
#include <time.h>

#include "txn/private.h"

/* Before there is no space: how often to look whether readers have left, how
 * long between, and for how many blocks that is done. */
#define READERS_NAPS 20u
#define READERS_NAP_NS 1000000
#define READERS_BLOCKS 256u

void tree_lock_shared(struct store *s)
{
	rwlock_rdlock(&s->p->tree_lock);
}

void tree_lock(struct store *s)
{
	rwlock_wrlock(&s->p->tree_lock);
}

void tree_unlock(struct store *s)
{
	rwlock_unlock(&s->p->tree_lock);
}

/* Its address tells threads apart. */
static _Thread_local char self;

void load_under_lock(struct store *s, bool may)
{
	atomic_store(&s->p->loader, may ? &self : NULL);
	order_tree_io(may);
}

bool loads_under_lock(const struct store *s)
{
	return atomic_load(&s->p->loader) == &self;
}

bool store_readonly(const struct store *s)
{
	return s->p->readonly;
}

bool store_stopped(const struct store *s)
{
	return atomic_load(&s->p->stopped);
}

void store_stop(struct store *s, int err, const char *why)
{
	if (atomic_exchange(&s->p->stopped, true))
		return;
	log_msg(LOG_LVL_ERROR,
		"%s: %s (%s): nothing is written any more until it is mounted "
		"anew; what was committed is safe",
		s->dev->name, why, strerror(-err));
}

unsigned store_enter(struct store *s)
{
	return grace_enter(&s->grace);
}

void store_leave(struct store *s, unsigned ticket)
{
	grace_leave(&s->grace, ticket);
}

void op_read(struct op *op, struct store *s)
{
	*op = (struct op){ .s = s, .ticket = grace_enter(&s->grace) };
	tree_lock_shared(s);
}

/* T: is there room for the operation? Each leaf is a path of nodes. */
static int check_room(const struct op *op)
{
	const struct store *s = op->s;

	if (s->p->readonly || store_stopped(s))
		return -EROFS;
	return alloc_check(s->alloc, op->cls,
			   op->leaves * (s->fs.root.level + 2u));
}

/* Buffers for paths of a usual length; longer ones find theirs when needed. */
static int get_spare(const struct op *op)
{
	return forest_spare(op->s->forest, op->leaves * 8 + 8);
}

/* Too much is dirty: the background thread should have committed; help it. */
static int throttle(struct store *s)
{
	return atomic_load(&s->p->dirty_hint) > 2 * s->p->dirty_max
		       ? store_commit(s, NULL, NULL)
		       : 0;
}

static int begin_write(struct op *op)
{
	struct store *s = op->s;
	int err;

	err = get_spare(op);
	if (err)
		return err;
	op->ticket = grace_enter(&s->grace);
	tree_lock(s);
	err = check_room(op);
	if (err) {
		tree_unlock(s);
		grace_leave(&s->grace, op->ticket);
		return err;
	}
	op->changes = forest_changes(s->forest);
	return 0;
}

/* What was freed may be waiting for nothing but readers to leave (alloc A2);
 * they do so within a read. A hold that broke lets go of a lot at once. */
static int wait_for_readers(struct store *s, unsigned tries)
{
	const struct timespec nap = { .tv_nsec = READERS_NAP_NS };
	struct alloc_info info;

	alloc_info(s->alloc, &info);
	if (tries >= READERS_NAPS || info.pending < READERS_BLOCKS)
		return -ENOSPC;
	may_wait();
	nanosleep(&nap, NULL);
	return 0;
}

int store_make_room(struct store *s, unsigned tries)
{
	int err;

	if (tries > 2 || (tries == 2 && !store_copied(s)))
		return wait_for_readers(s, tries - 2);
	/* Files and snapshots that were deleted, but are not gone yet; extra
	 * copies, some first. The background takes no inode locks: the
	 * caller's are no hindrance. */
	if (tries && work_may_wait(s)) {
		atomic_store(&s->p->give_back,
			     tries == 1 ? GIVE_SOME : GIVE_ALL);
		/* Work that found no room itself gave up, but there may be
		 * some since. */
		store_wake(s, WORK_DROP);
		store_wake(s, WORK_ORPHAN);
		store_wake(s, WORK_COPIES);
		if (store_drain(s))
			return -ENOSPC;
	}
	if (!alloc_pending(s->alloc))
		return tries && !store_copied(s) ? -ENOSPC : 0;
	/* What was freed can be had when two more generations are durable. */
	err = store_commit(s, NULL, NULL);
	return err ? err : store_commit(s, NULL, NULL);
}

int op_write(struct op *op, struct store *s, enum alloc_class cls,
	     unsigned leaves)
{
	unsigned tries;
	int err;

	*op = (struct op){
		.s = s, .write = true, .cls = cls, .leaves = leaves
	};
	if (s->p->readonly || store_stopped(s))
		return -EROFS;
	err = throttle(s);
	if (err)
		return err;
	for (tries = 0;; tries++) {
		err = begin_write(op);
		if (err != -ENOSPC)
			return err;
		err = store_make_room(s, tries);
		if (err)
			return err;
	}
}

/* Locked again after a pause in which anything may have happened. */
static int resume(struct op *op)
{
	struct store *s = op->s;

	if (!op->write) {
		tree_lock_shared(s);
		return 0;
	}
	tree_lock(s);
	op->changes = forest_changes(s->forest);
	return check_room(op);
}

bool op_again(struct op *op, int *err)
{
	struct store *s = op->s;
	int load, again;

	if (*err != -EAGAIN)
		return false;
	if (op->write && forest_changes(s->forest) != op->changes) {
		*err = -EIO; /* op_end stops the store */
		return false;
	}
	tree_unlock(s);
	load = forest_load(s->forest);
	if (!load && op->write)
		load = get_spare(op);
	again = resume(op);
	*err = load ? load : again;
	return *err == 0;
}

int op_end(struct op *op, int err)
{
	struct store *s = op->s;
	size_t dirty = 0;

	if (op->write && forest_changes(s->forest) != op->changes) {
		s->changed = true;
		atomic_store(&s->p->changed_hint, true);
		atomic_fetch_add(&s->p->ops, 1);
		dirty = forest_dirty(s->forest);
		atomic_store(&s->p->dirty_hint, dirty);
		if (err)
			store_stop(s, err, "an operation failed half-way");
	}
	tree_unlock(s);
	grace_leave(&s->grace, op->ticket);
	if (dirty > s->p->dirty_max)
		store_kick(s, 0);
	return err;
}
