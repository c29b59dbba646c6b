/*
 * repair_tree.c - items of the trees under repair, whatever has to be read
 */
#include "check/mend.h"

/* err is -EAGAIN: read what was missing; true: try again. */
static bool again(struct repair *r, int *err)
{
	if (*err != -EAGAIN)
		return false;
	*err = forest_load(r->s->forest);
	return *err == 0;
}

static int get(struct tree *t, const struct key *k, void *buf, uint32_t *len)
{
	struct item it;
	int err = tree_get(t, k, &it);

	if (err)
		return err;
	memcpy(buf, it.data, it.len);
	*len = it.len;
	return 0;
}

int mend_get(struct repair *r, struct tree *t, const struct key *k, void *buf,
	     uint32_t *len)
{
	int err;

	do
		err = get(t, k, buf, len);
	while (again(r, &err));
	return err;
}

int mend_put(struct repair *r, struct tree *t, const struct key *k,
	     const void *data, uint32_t len)
{
	int err;

	do {
		err = tree_prepare(t, k);
		if (!err)
			err = tree_put(t, k, data, len);
	} while (again(r, &err));
	return err;
}

int mend_del(struct repair *r, struct tree *t, const struct key *k)
{
	int err;

	do {
		err = tree_prepare(t, k);
		if (!err)
			err = tree_delete(t, k);
	} while (again(r, &err));
	return err;
}

int mend_node(struct repair *r, struct tree *t, enum fix_kind kind,
	      const struct key *k, unsigned level, uint64_t blk)
{
	int err;

	do
		err = kind == FIX_CUT ? tree_cut(t, k, level, blk) :
					tree_move(t, k, level, blk);
	while (again(r, &err));
	return err;
}

static int next(struct tree *t, struct key *k, void *buf, uint32_t *len)
{
	struct cursor c;
	int err = cursor_ceil(&c, t, k);

	if (err)
		return err;
	*k = c.key;
	memcpy(buf, c.item.data, c.item.len);
	*len = c.item.len;
	return 0;
}

int mend_next(struct repair *r, struct tree *t, struct key *k, void *buf,
	      uint32_t *len)
{
	int err;

	do
		err = next(t, k, buf, len);
	while (again(r, &err));
	return err;
}

static int floor_of(struct tree *t, struct key *k)
{
	struct cursor c;
	int err = cursor_floor(&c, t, k);

	if (!err)
		*k = c.key;
	return err;
}

int mend_floor(struct repair *r, struct tree *t, struct key *k)
{
	int err;

	do
		err = floor_of(t, k);
	while (again(r, &err));
	return err;
}

/* ---- entries ---- */

static struct key entry_key(const struct repair *r, uint64_t dir,
			    const void *name, size_t len)
{
	uint64_t hash = siphash(r->s->super.hash_seed, name, len) &
			((UINT64_C(1) << 55) - 1);

	return KEY(dir, COWFS_KEY_DIRENT, (hash ? hash : 1) << 8);
}

int mend_find(struct repair *r, struct tree *t, uint64_t dir, const void *name,
	      size_t len, uint64_t *ino)
{
	struct key k = entry_key(r, dir, name, len);
	const struct key end = KEY(dir, COWFS_KEY_DIRENT, k.off + 256);
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	struct cowfs_disk_dirent d;
	uint32_t got;
	int err;

	for (;; k.off++) {
		err = mend_next(r, t, &k, buf, &got);
		if (err)
			return err;
		if (key_cmp(&k, &end) >= 0)
			return -ENOENT;
		if (got == sizeof(d) + len &&
		    memcmp(buf + sizeof(d), name, len) == 0)
			break;
	}
	memcpy(&d, buf, sizeof(d));
	*ino = from_le64(d.ino);
	return 0;
}

int mend_enter(struct repair *r, struct tree *t, uint64_t dir,
	       const void *name, size_t len, uint64_t ino, uint8_t type)
{
	struct cowfs_disk_dirent d = { .ino = to_le64(ino), .type = type };
	struct key k = entry_key(r, dir, name, len);
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	uint32_t got;
	int err = 0;

	for (unsigned n = 0; n < 256; n++, k.off++) {
		err = mend_get(r, t, &k, buf, &got);
		if (err)
			break;
	}
	if (err != -ENOENT)
		return err ? err : -EEXIST;
	memcpy(buf, &d, sizeof(d));
	memcpy(buf + sizeof(d), name, len);
	return mend_put(r, t, &k, buf, (uint32_t)(sizeof(d) + len));
}

/* ---- the trees of snapshots ---- */

static int open_snap(struct repair *r, uint64_t id, struct snap_tree **out)
{
	struct key k = KEY(id, COWFS_KEY_SNAP, 0);
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	struct cowfs_disk_snap d;
	struct snap_tree *st;
	uint32_t len;
	int err = mend_get(r, &r->s->snap, &k, buf, &len);

	if (err)
		return err;
	if (len < sizeof(d))
		return -ENOENT;
	memcpy(&d, buf, sizeof(d));
	/* What this repair wrote is open already: such a root is a lie, and to
	 * be cut off. To change it would be to write in its place. */
	if (from_le64(d.root.ptr.gen) >= forest_gen(r->s->forest))
		d.root.ptr.blk = to_le64(0);
	st = array_add(&r->snaps, sizeof(*st));
	if (!st)
		return -ENOMEM;
	st->id = id;
	st->t = (struct tree){ .forest = r->s->forest,
			       .root = nptr_from_disk(&d.root.ptr),
			       .nodes = from_le64(d.root.nodes),
			       .kind = COWFS_ROOT_FS };
	*out = st;
	return 0;
}

int mend_tree(struct repair *r, uint64_t id, struct tree **t)
{
	struct snap_tree *st = r->snaps.at;
	int err;

	if (id == TREE_LIVE || id == TREE_SNAPS) {
		*t = id == TREE_LIVE ? &r->s->fs : &r->s->snap;
		return 0;
	}
	for (size_t i = 0; i < r->snaps.n; i++) {
		if (st[i].id != id)
			continue;
		*t = &st[i].t;
		return 0;
	}
	err = open_snap(r, id, &st);
	if (!err)
		*t = &st->t;
	return err;
}

static int write_snap(struct repair *r, struct snap_tree *st)
{
	struct key k = KEY(st->id, COWFS_KEY_SNAP, 0);
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	struct cowfs_disk_snap d;
	uint32_t len;
	int err;

	if (!st->t.root.blk) {
		err = mend_del(r, &r->s->snap, &k);
		return err == -ENOENT ? 0 : err;
	}
	tree_seal(&st->t);
	err = mend_get(r, &r->s->snap, &k, buf, &len);
	if (err || len < sizeof(d))
		return err == -ENOENT ? 0 : err;
	memcpy(&d, buf, sizeof(d));
	d.root.ptr = nptr_to_disk(&st->t.root);
	d.root.nodes = to_le64(st->t.nodes);
	if (from_le64(d.gen) < st->t.root.gen)
		d.gen = to_le64(st->t.root.gen);
	memcpy(buf, &d, sizeof(d));
	return mend_put(r, &r->s->snap, &k, buf, len);
}

int mend_snaps(struct repair *r)
{
	struct snap_tree *st = r->snaps.at;
	uint64_t gen = forest_gen(r->s->forest);
	int err = 0;

	for (size_t i = 0; !err && i < r->snaps.n; i++)
		if (!st[i].t.root.blk || st[i].t.root.gen == gen)
			err = write_snap(r, &st[i]);
	return err;
}
