/*
 * snapshot.c - create, delete, restore, list
 *
 * Creating: the file tree is sealed inside a commit, so its root pointer with
 * its checksum is known; a record of it is added, the root gets one reference,
 * and from now on every node of this generation or older may be shared
 * (tree->shared_gen): the next change copies it and gives its children their
 * references. Nothing else is touched, whatever the size.
 *
 * Restoring: the live root's reference goes to the record of the saved state
 * (or to a DROP record), and the snapshot's root gets one more, for the live
 * tree. Inode and snapshot numbers go on counting.
 */
#include <inttypes.h>

#include "snapshot/private.h"

/* One more reference to the root node of a file tree. */
static int ref_root(struct store *s, const struct nptr *root)
{
	uint64_t blocks = forest_node_size(s->forest) / COWFS_BLOCK_SIZE;

	return root->blk ? alloc_ref(s->alloc, root->blk, blocks, 1, 0) : 0;
}

/* That was in vain; where it can't be taken back no commit is made. */
static void unref_root(struct store *s, const struct nptr *root)
{
	uint64_t blocks = forest_node_size(s->forest) / COWFS_BLOCK_SIZE;
	int err = 0;

	if (root->blk)
		err = alloc_ref(s->alloc, root->blk, blocks, -1, root->blk2);
	if (err)
		alloc_spoil(s->alloc, err);
}

/* ---- create ---- */

struct create {
	const char *name;
	struct snap_info info;
};

static int create_locked(struct store *s, void *arg)
{
	struct create *cr = arg;
	struct key name_at, id_at;
	struct snap_info old;
	int err;

	err = record_find(s, cr->name, &old, NULL);
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	record_of_live(s, cr->name, &cr->info);
	id_at = SNAP_KEY(cr->info.id);
	err = record_free_name(s, cr->name, &name_at);
	if (!err)
		err = tree_prepare(&s->snap, &id_at);
	if (!err)
		err = tree_prepare(&s->snap, &name_at);
	if (!err)
		err = alloc_check(s->alloc, ALLOC_NORMAL, 8);
	if (!err)
		err = record_put(s, &cr->info, &name_at);
	if (err)
		return err;
	s->super.next_snap = to_le64(cr->info.id + 1);
	s->fs.shared_gen = forest_gen(s->forest);
	return ref_root(s, &cr->info.root);
}

/* As op_write has it: what was deleted a moment ago may be room enough. */
static int create_with_room(struct store *s, struct create *cr)
{
	unsigned tries;
	int err;

	for (tries = 0;; tries++) {
		err = store_commit(s, create_locked, cr);
		if (err != -ENOSPC || store_stopped(s))
			return err;
		err = store_make_room(s, tries);
		if (err)
			return err;
	}
}

int snap_create(struct store *s, const char *name, struct snap_info *out)
{
	struct create cr = { .name = name };
	int err = snap_check_name(name, false);

	if (!err)
		err = create_with_room(s, &cr);
	if (!err)
		store_wake(s, WORK_COPIES);
	if (!err && out)
		*out = cr.info;
	return err;
}

/* ---- delete ---- */

static int delete_locked(struct store *s, void *arg)
{
	const char *name = arg;
	struct key name_at, id_at, drop_at;
	struct snap_info info;
	int err;

	err = record_find(s, name, &info, &name_at);
	if (err)
		return err;
	id_at = SNAP_KEY(info.id);
	drop_at = DROP_KEY(info.root.blk);
	err = tree_prepare(&s->snap, &id_at);
	if (!err)
		err = tree_prepare(&s->snap, &name_at);
	if (!err)
		err = tree_prepare(&s->snap, &drop_at);
	if (!err)
		err = alloc_check(s->alloc, ALLOC_INTERNAL, 8);
	if (!err)
		err = record_del(s, info.id, &name_at);
	return err ? err : drop_add(s, &info.root, false);
}

int snap_delete(struct store *s, const char *name)
{
	char copy[COWFS_SNAP_NAME_MAX + 1];
	int err = snap_check_name(name, true);

	if (err)
		return err == -EINVAL ? -ENOENT : err;
	memcpy(copy, name, strlen(name) + 1);
	err = store_commit(s, delete_locked, copy);
	if (!err)
		store_wake(s, WORK_DROP);
	return err;
}

/* ---- restore ---- */

struct restore {
	const char *name, *save;
	void (*swapped)(void *arg);
	void *arg;
};

/* Everything that restoring is going to change in the snapshot tree. */
struct plan {
	struct snap_info target;
	struct snap_info saved;  /* new record of the state replaced */
	struct key saved_name;
	struct snap_info old;    /* holder of the name @undo until now */
	struct key old_name;
	bool have_old;
};

static int plan_save(struct store *s, const struct restore *r, struct plan *p)
{
	struct key saved_at, old_at, drop_at;
	int err;

	record_of_live(s, r->save, &p->saved);
	saved_at = SNAP_KEY(p->saved.id);
	err = record_find(s, r->save, &p->old, &p->old_name);
	if (err && err != -ENOENT)
		return err;
	p->have_old = !err;
	if (p->have_old && strcmp(r->save, COWFS_SNAP_UNDO) != 0)
		return -EEXIST;
	p->saved_name = p->old_name;
	err = p->have_old ? 0 : record_free_name(s, r->save, &p->saved_name);
	if (!err)
		err = tree_prepare(&s->snap, &saved_at);
	if (!err)
		err = tree_prepare(&s->snap, &p->saved_name);
	if (err || !p->have_old)
		return err;
	old_at = SNAP_KEY(p->old.id);
	drop_at = DROP_KEY(p->old.root.blk);
	err = tree_prepare(&s->snap, &old_at);
	return err ? err : tree_prepare(&s->snap, &drop_at);
}

/* Hand the live root's reference to whom it will belong. */
static int keep_live(struct store *s, const struct restore *r, struct plan *p)
{
	int err = 0;

	if (!r->save)
		return drop_add(s, &s->fs.root, false);
	if (p->have_old)
		err = record_del(s, p->old.id, &p->old_name);
	if (!err && p->have_old)
		err = drop_add(s, &p->old.root, false);
	if (err)
		return err;
	s->super.next_snap = to_le64(p->saved.id + 1);
	return record_put(s, &p->saved, &p->saved_name);
}

/* It becomes a root in the next superblock, which nobody would believe that
 * names an impossible one. (s->super is the one before.) */
static int check_target(struct store *s, const struct snap_info *target)
{
	return super_may_name(&s->super, &target->root) ?
		       0 : report(-ECOW_CORRUPT, "snapshot '%s': impossible "
				  "root", target->name);
}

static int restore_locked(struct store *s, void *arg)
{
	struct restore *r = arg;
	struct plan p = { .have_old = false };
	struct key drop_at = DROP_KEY(s->fs.root.blk);
	int err;

	err = record_find(s, r->name, &p.target, NULL);
	if (!err)
		err = check_target(s, &p.target);
	if (!err)
		err = r->save ? plan_save(s, r, &p)
			      : tree_prepare(&s->snap, &drop_at);
	if (!err)
		err = redun_prepare_forget(s);
	if (!err)
		err = alloc_check(s->alloc, ALLOC_INTERNAL, 8);
	if (!err)
		err = redun_forget(s);
	/* First what is gained: what is lost, and not gained by anybody, would
	 * be freed though it is in use. */
	if (!err)
		err = ref_root(s, &p.target.root);
	if (err)
		return err;
	err = keep_live(s, r, &p);
	if (err) {
		unref_root(s, &p.target.root);
		return err;
	}
	s->fs.root = p.target.root;
	s->fs.nodes = p.target.nodes;
	s->fs.shared_gen = forest_gen(s->forest);
	if (r->swapped)
		r->swapped(r->arg);
	return 0;
}

/* From *from on, up to the root directory; where -EAGAIN interrupts it goes on. */
static int read_beginning(struct store *s, const char *name, struct key *from)
{
	struct key root = KEY(COWFS_INO_ROOT, COWFS_KEY_INODE, 0);
	struct snap_info info;
	struct cursor c;
	struct tree t;
	int err = record_find(s, name, &info, NULL);

	if (err)
		return err;
	snap_tree(s, &info, &t);
	for (err = cursor_ceil(&c, &t, from);
	     !err && key_cmp(&c.key, &root) < 0; err = cursor_next(&c))
		*from = c.key;
	if (err == -ENOENT || (!err && key_cmp(&c.key, &root) != 0))
		err = -ECOW_CORRUPT;
	return err;
}

/* A mount begins with the list of orphans and the root directory. Where these
 * cannot be read, or are not there, there would be none after the restore, which
 * could not even be taken back. */
static int check_readable(struct store *s, const char *name)
{
	struct key from = KEY_MIN;
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = read_beginning(s, name, &from);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

int snap_restore(struct store *s, const char *name, const char *save,
		 void (*swapped)(void *arg), void *arg)
{
	struct restore r = {
		.name = name, .save = save, .swapped = swapped, .arg = arg
	};
	int err = snap_check_name(name, true);

	if (err)
		return err == -EINVAL ? -ENOENT : err;
	if (save) {
		err = snap_check_name(save, strcmp(save, COWFS_SNAP_UNDO) == 0);
		if (err)
			return err;
	}
	err = check_readable(s, name);
	if (!err)
		err = store_commit(s, restore_locked, &r);
	if (!err) {
		store_wake(s, WORK_DROP);
		store_wake(s, WORK_COPIES);
	}
	return err;
}

/* ---- list ---- */

int snap_find(struct store *s, const char *name, struct snap_info *out)
{
	struct op op;
	int err = snap_check_name(name, true);

	if (err)
		return err == -EINVAL ? -ENOENT : err;
	op_read(&op, s);
	do
		err = record_find(s, name, out, NULL);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

int snap_get(struct store *s, uint64_t id, struct snap_info *out)
{
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = record_get(s, id, out);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

static int next_locked(struct store *s, uint64_t id, struct snap_info *out)
{
	uint64_t end = from_le64(s->super.next_snap);
	struct key k = SNAP_KEY(id ? id : 1);
	struct cursor c;
	int err;

	for (err = cursor_ceil(&c, &s->snap, &k); !err; err = cursor_next(&c)) {
		if (c.key.obj >= end)
			return -ENOENT;
		if (c.key.type == COWFS_KEY_SNAP)
			return snap_from_item(&c.key, &c.item, out);
	}
	return err;
}

int snap_next(struct store *s, uint64_t id, struct snap_info *out)
{
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = next_locked(s, id, out);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

struct counting { uint64_t id, n; }; /* n before id */

/* Goes on where -EAGAIN interrupted it. */
static int count_locked(struct store *s, struct counting *c)
{
	uint64_t end = from_le64(s->super.next_snap);
	struct key k = SNAP_KEY(c->id);
	struct snap_info info;
	struct cursor at;
	int err;

	for (err = cursor_ceil(&at, &s->snap, &k); !err && at.key.obj < end;
	     err = cursor_next(&at)) {
		if (at.key.type != COWFS_KEY_SNAP)
			continue;
		err = snap_from_item(&at.key, &at.item, &info);
		if (err)
			return err;
		c->id = info.id + 1;
		c->n++;
	}
	return err == -ENOENT ? 0 : err;
}

int snap_count(struct store *s, uint64_t *count)
{
	struct counting c = { .id = 1 };
	struct op op;
	int err;

	op_read(&op, s);
	do
		err = count_locked(s, &c);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	*count = c.n;
	return err;
}

void snap_tree(struct store *s, const struct snap_info *info, struct tree *out)
{
	*out = (struct tree){ .forest = s->forest,
			      .root = info->root,
			      .nodes = info->nodes,
			      .kind = COWFS_ROOT_FS,
			      .readonly = true };
}

int snap_alive_locked(struct store *s, uint64_t id)
{
	struct key k = SNAP_KEY(id);
	struct item it;
	int err = tree_get(&s->snap, &k, &it);

	return err == -ENOENT ? -ESTALE : err;
}
