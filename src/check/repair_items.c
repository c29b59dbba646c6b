/*
 * repair_items.c - carrying out notes on the trees
 *
 * A note may have been overtaken by one before it: what is not there any more
 * (-ENOENT) is fine. What can't be done because something on the way can't be
 * read is left to the next pass, which will cut that out.
 */
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

#include "check/mend.h"

#define BUF_SIZE (COWFS_MAX_NODE_SIZE / 4)
#define INODE_KEY(ino) KEY(ino, COWFS_KEY_INODE, 0)

typedef int apply_fn(struct repair *r, struct tree *t, const struct fix *f);

bool fix_loses(const struct fix *f)
{
	switch ((enum fix_kind)f->kind) {
	case FIX_CUT:
	case FIX_CUT_END:
	case FIX_DEL:
	case FIX_DEL_TYPE:
	case FIX_DEL_ALL:
	case FIX_DEL_VALUE:
	case FIX_INODE:
	case FIX_MAKE:
	case FIX_INLINE:
	case FIX_PUNCH:
		return true;
	default:
		return false;
	}
}

/* ---- removing ---- */

static int do_node(struct repair *r, struct tree *t, const struct fix *f)
{
	return mend_node(r, t, (enum fix_kind)f->kind, &f->key,
			 (unsigned)f->arg, f->arg2);
}

static int do_del(struct repair *r, struct tree *t, const struct fix *f)
{
	return mend_del(r, t, &f->key);
}

/* All items from *from on and below *to. */
static int del_range(struct repair *r, struct tree *t, struct key from,
		     const struct key *to)
{
	uint8_t buf[BUF_SIZE];
	struct key k = from;
	uint32_t len;
	int err;

	for (;;) {
		err = mend_next(r, t, &k, buf, &len);
		if (err || key_cmp(&k, to) >= 0)
			return err;
		err = mend_del(r, t, &k);
		if (err)
			return err;
	}
}

static int do_del_type(struct repair *r, struct tree *t, const struct fix *f)
{
	struct key end = KEY(f->key.obj, (uint8_t)(f->key.type + 1), 0);

	return del_range(r, t, KEY(f->key.obj, f->key.type, 0), &end);
}

static int do_del_all(struct repair *r, struct tree *t, const struct fix *f)
{
	struct key end = KEY(f->key.obj, UINT8_MAX, UINT64_MAX);

	return del_range(r, t, KEY(f->key.obj, 0, 0), &end);
}

static int do_del_value(struct repair *r, struct tree *t, const struct fix *f)
{
	struct key end = KEY(f->key.obj, COWFS_KEY_XATTR_DATA,
			     (f->arg + 1) << 16);
	int err = mend_del(r, t, &f->key);

	if (err && err != -ENOENT)
		return err;
	return del_range(r, t, KEY(f->key.obj, COWFS_KEY_XATTR_DATA,
				   f->arg << 16), &end);
}

/* ---- inodes ---- */

int mend_inode(struct repair *r, struct tree *t, uint64_t ino,
	       struct cowfs_disk_inode *d)
{
	struct key k = INODE_KEY(ino);
	uint8_t buf[BUF_SIZE];
	uint32_t len;
	int err = mend_get(r, t, &k, buf, &len);

	if (err)
		return err;
	if (len != sizeof(*d))
		return -ENOENT;
	memcpy(d, buf, sizeof(*d));
	return 0;
}

static int do_field(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_inode d;
	uint32_t flags;
	int err = mend_inode(r, t, f->key.obj, &d);

	if (err)
		return err;
	flags = from_le32(d.flags) & ~COWFS_INODE_INLINE;
	switch ((enum fix_kind)f->kind) {
	case FIX_NLINK:
		d.nlink = to_le32((uint32_t)min_u64(f->arg, COWFS_LINK_MAX));
		break;
	case FIX_SIZE:
		d.size = to_le64(f->arg);
		break;
	case FIX_BLOCKS:
		d.blocks = to_le64(f->arg);
		break;
	case FIX_PARENT:
		d.parent = to_le64(f->arg);
		break;
	case FIX_MODE:
		d.mode = to_le32((uint32_t)f->arg);
		break;
	case FIX_INLINE:
		d.flags = to_le32(f->arg ? flags | COWFS_INODE_INLINE : flags);
		break;
	default:
		return -EINVAL;
	}
	return mend_put(r, t, &f->key, &d, sizeof(d));
}

static void sane_time(struct cowfs_disk_time *t)
{
	if (from_le32(t->nsec) >= 1000000000u)
		t->nsec = to_le32(0);
}

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

/* Without a type or of a wrong length it is nothing; the next pass makes a new
 * one if there is something that it goes with. */
static int do_inode(struct repair *r, struct tree *t, const struct fix *f)
{
	uint64_t gen = forest_gen(r->s->forest);
	struct cowfs_disk_inode d;
	uint32_t flags, mode;
	int err = mend_inode(r, t, f->key.obj, &d);

	if (err && err != -ENOENT)
		return err;
	if (err || !type_known(from_le32(d.mode)))
		return mend_del(r, t, &f->key);
	mode = from_le32(d.mode) & (uint32_t)(S_IFMT | 07777);
	flags = from_le32(d.flags) & COWFS_INODE_KNOWN_FLAGS;
	d.mode = to_le32(mode);
	d.flags = to_le32(flags);
	sane_time(&d.atime);
	sane_time(&d.mtime);
	sane_time(&d.ctime);
	sane_time(&d.btime);
	if (from_le32(d.nlink) > COWFS_LINK_MAX)
		d.nlink = to_le32(1);
	if (from_le64(d.size) > (uint64_t)COWFS_FILE_SIZE_MAX)
		d.size = to_le64(0);
	if (from_le64(d.gen) > gen)
		d.gen = to_le64(gen);
	if (from_le64(d.change) > gen)
		d.change = to_le64(gen);
	return mend_put(r, t, &f->key, &d, sizeof(d));
}

/* One more than the highest id of a large xattr value that is there. */
static int next_value_id(struct repair *r, struct tree *t, uint64_t ino,
			 uint32_t *id)
{
	struct key k = KEY(ino, COWFS_KEY_XATTR_DATA, 0);
	uint8_t buf[BUF_SIZE];
	uint32_t len;
	int err;

	for (*id = 0;; k.off++) {
		err = mend_next(r, t, &k, buf, &len);
		if (err || k.obj != ino || k.type != COWFS_KEY_XATTR_DATA)
			return err == -ENOENT ? 0 : err;
		/* higher ones are nobody's */
		if (k.off >> 16 >= UINT32_MAX)
			return 0;
		*id = (uint32_t)(k.off >> 16) + 1;
	}
}

static int do_make(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_time now = time_to_disk(now_real());
	struct le64 gen = to_le64(forest_gen(r->s->forest));
	struct cowfs_disk_inode d;
	uint32_t id = 0;
	int err = mend_inode(r, t, f->key.obj, &d);

	if (err != -ENOENT)
		return err;
	err = next_value_id(r, t, f->key.obj, &id);
	if (err)
		return err;
	d = (struct cowfs_disk_inode){
		.mode = to_le32((uint32_t)f->arg),
		.nlink = to_le32(S_ISDIR(f->arg) ? 2 : 1),
		.size = to_le64(f->arg2),
		.gen = gen,
		.change = gen,
		.parent = to_le64(COWFS_INO_ROOT),
		.flags = to_le32(f->arg3 ? COWFS_INODE_INLINE : 0),
		.atime = now, .mtime = now, .ctime = now, .btime = now,
		.xattr_id = to_le32(id),
	};
	return mend_put(r, t, &f->key, &d, sizeof(d));
}

static int do_orphan(struct repair *r, struct tree *t, const struct fix *f)
{
	struct key k = KEY(0, COWFS_KEY_ORPHAN, f->key.obj);

	return mend_put(r, t, &k, NULL, 0);
}

/* ---- entries ---- */

static int do_type(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_dirent *d;
	uint8_t buf[BUF_SIZE];
	uint32_t len;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len < sizeof(*d))
		return err;
	d = (void *)buf;
	d->type = (uint8_t)f->arg;
	return mend_put(r, t, &f->key, buf, len);
}

static int do_rehash(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_dirent d;
	uint8_t buf[BUF_SIZE];
	uint64_t ino;
	uint32_t len;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len <= sizeof(d))
		return err;
	memcpy(&d, buf, sizeof(d));
	err = mend_del(r, t, &f->key);
	if (err)
		return err;
	err = mend_find(r, t, f->key.obj, buf + sizeof(d), len - sizeof(d),
			&ino);
	if (err != -ENOENT)
		return err; /* the name is there already */
	return mend_enter(r, t, f->key.obj, buf + sizeof(d), len - sizeof(d),
			  from_le64(d.ino), d.type);
}

static int new_ino(struct repair *r, uint64_t *ino)
{
	*ino = from_le64(r->s->super.next_ino);
	if (*ino >= COWFS_INO_MAX)
		return -ENOSPC;
	r->s->super.next_ino = to_le64(*ino + 1);
	return 0;
}

static int make_lost_found(struct repair *r, struct tree *t, const char *name,
			   uint64_t *ino)
{
	struct fix f = { .kind = FIX_MAKE, .arg = S_IFDIR | 0700 };
	int err = new_ino(r, ino);

	if (err)
		return err;
	f.key = INODE_KEY(*ino);
	err = do_make(r, t, &f);
	return err ? err : mend_enter(r, t, COWFS_INO_ROOT, name, strlen(name),
				      *ino, DT_DIR);
}

/* Counts and links are put right by the next pass. */
static int lost_found(struct repair *r, struct tree *t, uint64_t *ino)
{
	char name[32] = "lost+found";
	struct cowfs_disk_inode d;
	int err;

	for (unsigned i = 1; i < 100; i++) {
		err = mend_find(r, t, COWFS_INO_ROOT, name, strlen(name), ino);
		if (err == -ENOENT)
			return make_lost_found(r, t, name, ino);
		if (!err)
			err = mend_inode(r, t, *ino, &d);
		if (err && err != -ENOENT)
			return err;
		if (!err && S_ISDIR(from_le32(d.mode)))
			return 0;
		snprintf(name, sizeof(name), "lost+found.%u", i);
	}
	return -EEXIST;
}

static int do_adopt(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_inode d;
	uint64_t dir, there;
	char name[64];
	int n, err;

	err = lost_found(r, t, &dir);
	if (err)
		return err;
	n = snprintf(name, sizeof(name), "#%" PRIu64, f->key.obj);
	for (unsigned i = 1; i < 100; i++) {
		err = mend_find(r, t, dir, name, (size_t)n, &there);
		if (err)
			break;
		n = snprintf(name, sizeof(name), "#%" PRIu64 ".%u", f->key.obj,
			     i);
	}
	if (err == -ENOENT)
		err = mend_enter(r, t, dir, name, (size_t)n, f->key.obj,
				 (uint8_t)f->arg);
	if (!err)
		err = mend_inode(r, t, f->key.obj, &d);
	if (err)
		return err;
	d.parent = to_le64(dir);
	return mend_put(r, t, &f->key, &d, sizeof(d));
}

/* ---- data ---- */

static bool is_lost(const struct repair *r, uint64_t blk)
{
	const uint64_t *at = r->lost.at;
	size_t lo = 0, hi = r->lost.n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (at[mid] < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < r->lost.n && at[lo] == blk;
}

/* Blocks [from, to) of an extent as one of their own. */
static int put_part(struct repair *r, struct tree *t, const struct fix *f,
		    const uint8_t *whole, uint32_t from, uint32_t to)
{
	struct key k = KEY(f->key.obj, COWFS_KEY_EXTENT, f->key.off + from);
	struct cowfs_disk_extent d;
	uint8_t buf[BUF_SIZE];
	uint32_t n = to - from;

	memcpy(&d, whole, sizeof(d));
	d.blk = to_le64(from_le64(d.blk) + from);
	if (from_le64(d.blk2))
		d.blk2 = to_le64(from_le64(d.blk2) + from);
	d.len = to_le32(n);
	d.disk_len = d.len;
	memcpy(buf, &d, sizeof(d));
	memcpy(buf + sizeof(d), whole + sizeof(d) + from * 4, n * 4);
	return mend_put(r, t, &k, buf, (uint32_t)sizeof(d) + n * 4);
}

static int do_punch(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_extent d;
	uint8_t buf[BUF_SIZE];
	uint32_t len, n, from = 0;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len < sizeof(d))
		return err;
	memcpy(&d, buf, sizeof(d));
	n = from_le32(d.len);
	if ((len - sizeof(d)) / 4 < n)
		return 0;
	err = mend_del(r, t, &f->key);
	for (uint32_t i = 0; !err && i <= n; i++) {
		if (i < n && !is_lost(r, from_le64(d.blk) + i))
			continue;
		if (i > from)
			err = put_part(r, t, f, buf, from, i);
		from = i + 1;
	}
	return err;
}

static int do_age(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_extent d;
	uint8_t buf[BUF_SIZE];
	uint32_t len;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len < sizeof(d))
		return err;
	memcpy(&d, buf, sizeof(d));
	d.gen = to_le64(min_u64(from_le64(d.gen), f->arg));
	memcpy(buf, &d, sizeof(d));
	return mend_put(r, t, &f->key, buf, len);
}

static int do_lost(struct repair *r, struct tree *t, const struct fix *f)
{
	uint64_t *blk = array_add(&r->lost, sizeof(*blk));

	(void)t;
	if (!blk)
		return -ENOMEM;
	*blk = f->arg;
	return 0;
}

/* ---- snapshots ---- */

static int do_snap_name(struct repair *r, struct tree *t, const struct fix *f)
{
	uint8_t buf[BUF_SIZE], name[sizeof(struct cowfs_disk_snap_name) +
				    COWFS_SNAP_NAME_MAX];
	struct cowfs_disk_snap_name d = { .id = to_le64(f->key.obj) };
	struct cowfs_disk_snap snap;
	struct key k, last;
	uint32_t len;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len < sizeof(snap))
		return err;
	memcpy(&snap, buf, sizeof(snap));
	if (snap.name_len > COWFS_SNAP_NAME_MAX ||
	    len - sizeof(snap) != snap.name_len)
		return 0;
	memcpy(name, &d, sizeof(d));
	memcpy(name + sizeof(d), buf + sizeof(snap), snap.name_len);
	k = KEY(siphash(r->s->super.hash_seed, buf + sizeof(snap),
			snap.name_len) | UINT64_C(1) << 63,
		COWFS_KEY_SNAP_NAME, 0);
	last = KEY(k.obj, k.type, UINT64_MAX);
	err = mend_floor(r, t, &last);
	if (err && err != -ENOENT)
		return err;
	if (!err && last.obj == k.obj && last.type == k.type)
		k.off = last.off + 1; /* not the last one: snaps.c */
	return mend_put(r, t, &k, name,
			(uint32_t)(sizeof(d) + snap.name_len));
}

static int do_snap(struct repair *r, struct tree *t, const struct fix *f)
{
	struct cowfs_disk_snap d;
	uint8_t buf[BUF_SIZE];
	uint32_t len;
	int err = mend_get(r, t, &f->key, buf, &len);

	if (err || len < sizeof(d))
		return err;
	memcpy(&d, buf, sizeof(d));
	/* That its root is not younger than arg the walk has seen to. */
	d.gen = to_le64(max_u64(min_u64(from_le64(d.gen), f->arg),
				from_le64(d.root.ptr.gen)));
	sane_time(&d.time);
	memcpy(buf, &d, sizeof(d));
	return mend_put(r, t, &f->key, buf, len);
}

/* ---- all of them ---- */

static apply_fn *const apply[FIX_KINDS] = {
	[FIX_CUT] = do_node,
	[FIX_MOVE] = do_node,
	[FIX_DEL] = do_del,
	[FIX_DEL_NAME] = do_del,
	[FIX_DEL_TYPE] = do_del_type,
	[FIX_DEL_ALL] = do_del_all,
	[FIX_DEL_VALUE] = do_del_value,
	[FIX_NLINK] = do_field,
	[FIX_SIZE] = do_field,
	[FIX_BLOCKS] = do_field,
	[FIX_PARENT] = do_field,
	[FIX_MODE] = do_field,
	[FIX_INLINE] = do_field,
	[FIX_INODE] = do_inode,
	[FIX_MAKE] = do_make,
	[FIX_TYPE] = do_type,
	[FIX_REHASH] = do_rehash,
	[FIX_ORPHAN] = do_orphan,
	[FIX_ADOPT] = do_adopt,
	[FIX_LOST] = do_lost,
	[FIX_PUNCH] = do_punch,
	[FIX_AGE] = do_age,
	[FIX_SNAP_NAME] = do_snap_name,
	[FIX_SNAP] = do_snap,
	[FIX_DROP] = do_del,
};

static int mend_one(struct repair *r, const struct fix *f)
{
	struct tree *t;
	int err = mend_tree(r, f->tree, &t);

	if (!err) {
		tell_fix(r, t, f);
		err = apply[f->kind](r, t, f);
	}
	switch (err) {
	case 0:
		r->res->fixes++;
		return 0;
	case -ENOMEM:
	case -ENOSPC:
	case -EROFS:
		return err;
	default: /* see the head of this file */
		return 0;
	}
}

/* What was cut is remembered, with the note after it. */
static int note_cut(struct repair *r, size_t i)
{
	const struct fix *f = &r->fix.at[i];
	struct cut *cut = array_add(&r->cuts, sizeof(*cut));

	if (!cut)
		return -ENOMEM;
	cut->tree = f->tree;
	cut->lo = f->key;
	cut->hi = KEY_MAX;
	if (i + 1 < r->fix.n && f[1].kind == FIX_CUT_END)
		cut->hi = f[1].key;
	return 0;
}

/* Nodes first: what cannot be read is out of the way then. */
int mend_all(struct repair *r)
{
	int err = 0;

	for (size_t i = 0; !err && i < r->fix.n; i++) {
		if (r->fix.at[i].kind != FIX_CUT)
			continue;
		err = note_cut(r, i);
		if (!err)
			err = mend_one(r, &r->fix.at[i]);
	}
	for (size_t i = 0; !err && i < r->fix.n; i++)
		if (apply[r->fix.at[i].kind] && r->fix.at[i].kind != FIX_CUT)
			err = mend_one(r, &r->fix.at[i]);
	return err;
}
