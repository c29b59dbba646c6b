/*
 * dir.c - names in directories: keys, entries, looking up
 *
 * An entry's key is made of the hash of its name and a counter among equal
 * hashes. The counter of an entry never changes, so keys serve as readdir
 * cookies; a new name takes the first counter that is free.
 */
#include "fs/private.h"

#include <dirent.h>
#include <inttypes.h>
#include <sys/stat.h>

#define HASH_MASK ((UINT64_C(1) << 55) - 1)

uint64_t name_hash(struct fs *fs, const char *s, size_t len)
{
	uint64_t h = siphash(fs->hash_seed, s, len) & HASH_MASK;

	/* Cookies 0, 1 and 2 have a meaning of their own. */
	return (h ? h : 1) << 8;
}

static bool name_ok(const char *s, size_t len)
{
	if (!len || memchr(s, '/', len) || memchr(s, 0, len))
		return false;
	return !(s[0] == '.' && (len == 1 || (len == 2 && s[1] == '.')));
}

int name_init(struct fs *fs, struct name *n, const char *s, size_t len)
{
	if (len > COWFS_NAME_MAX)
		return -ENAMETOOLONG;
	if (!name_ok(s, len))
		return -EINVAL;
	n->s = s;
	n->len = len;
	n->hash = name_hash(fs, s, len);
	return 0;
}

static bool type_ok(uint8_t type)
{
	switch (type) {
	case DT_FIFO:
	case DT_CHR:
	case DT_DIR:
	case DT_BLK:
	case DT_REG:
	case DT_LNK:
	case DT_SOCK:
		return true;
	}
	return false;
}

int entry_from_item(const struct key *k, const struct item *it,
		    struct entry *out)
{
	const struct cowfs_disk_dirent *e = it->data;
	const char *name;
	uint64_t ino;
	size_t len;

	if (it->len <= sizeof(*e) || it->len > sizeof(*e) + COWFS_NAME_MAX)
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": entry of %" PRIu32 " bytes", k->obj, it->len);
	name = (const char *)(e + 1);
	len = it->len - sizeof(*e);
	ino = from_le64(e->ino);
	if (!ino || ino > COWFS_INO_MAX || !type_ok(e->type) ||
	    !name_ok(name, len) || k->off < 1 << 8 || k->off > INT64_MAX)
		return report(-ECOW_CORRUPT, "directory %" PRIu64
			      ": impossible entry %" PRIx64, k->obj, k->off);
	*out = (struct entry){ .key = *k, .ino = ino, .type = e->type,
			       .name = name, .len = len };
	return 0;
}

int dir_find(struct tree *t, uint64_t dir, const struct name *n,
	     struct entry *out)
{
	struct key k = KEY(dir, COWFS_KEY_DIRENT, n->hash);
	uint64_t place = n->hash; /* first counter not seen so far */
	struct cursor c;
	struct entry e;
	int err;

	for (err = cursor_ceil(&c, t, &k); !err; err = cursor_next(&c)) {
		if (c.key.obj != dir || c.key.type != COWFS_KEY_DIRENT ||
		    c.key.off >> 8 != n->hash >> 8)
			break;
		err = entry_from_item(&c.key, &c.item, &e);
		if (err)
			return err;
		if (e.len == n->len && !memcmp(e.name, n->s, n->len)) {
			*out = e;
			return 0;
		}
		if (c.key.off == place)
			place++;
	}
	if (err && err != -ENOENT)
		return err;
	if (place >> 8 != n->hash >> 8)
		place = 0;
	*out = (struct entry){ .key = KEY(dir, COWFS_KEY_DIRENT, place) };
	return -ENOENT;
}

int dir_read(struct tree *t, uint64_t dir, struct cowfs_disk_inode *out)
{
	struct cowfs_disk_inode d;
	int err;

	err = inode_read(t, dir, &d);
	if (err)
		return err;
	if (!S_ISDIR(from_le32(d.mode)))
		return -ENOTDIR;
	*out = d;
	return 0;
}

int dir_empty(struct tree *t, uint64_t dir)
{
	struct key k = KEY(dir, COWFS_KEY_DIRENT, 0);
	struct cursor c;
	int err;

	err = cursor_ceil(&c, t, &k);
	if (err)
		return err == -ENOENT ? 0 : err;
	return c.key.obj == dir && c.key.type == COWFS_KEY_DIRENT ? -ENOTEMPTY
								  : 0;
}

int dir_add(struct fs *fs, const struct key *k, const struct name *n,
	    uint64_t ino, uint32_t mode)
{
	struct cowfs_disk_dirent *e;
	void *data;
	int err;

	err = tree_insert(&fs->s->fs, k, NULL,
			  (uint32_t)(sizeof(*e) + n->len), &data);
	if (err)
		return err;
	e = data;
	e->ino = to_le64(ino);
	e->type = (uint8_t)IFTODT(mode);
	memcpy(e + 1, n->s, n->len);
	return 0;
}

int dir_set(struct fs *fs, const struct key *k, uint64_t ino, uint32_t mode)
{
	struct cowfs_disk_dirent *e;
	uint32_t len;
	void *data;
	int err;

	err = tree_edit(&fs->s->fs, k, &data, &len);
	if (err)
		return err;
	e = data;
	e->ino = to_le64(ino);
	e->type = (uint8_t)IFTODT(mode);
	return 0;
}

void dir_count(struct cowfs_disk_inode *dir, int entries, int subdirs)
{
	dir->size = to_le64(from_le64(dir->size) + (uint64_t)(int64_t)entries);
	dir->nlink = to_le32(from_le32(dir->nlink) + (uint32_t)subdirs);
	inode_touch(dir, true);
}

/* ---- lookup ---- */

struct lookup {
	struct fs *fs;
	struct view *v;
	uint64_t dir;
	struct name name;
	bool dot, dotdot;
	struct attr *out;
};

static int lookup_locked(const struct lookup *l)
{
	struct tree *t = view_tree(l->fs, l->v);
	struct cowfs_disk_inode d;
	uint64_t ino = l->dir;
	struct entry e;
	int err;

	if (!t)
		return -ESTALE;
	/* By its number any kind of file can be asked for ".". */
	err = l->dot ? inode_read(t, ino, &d) : dir_read(t, ino, &d);
	/* Who still has a removed one has no need to ask for it. */
	if (!err && l->dot && !from_le32(d.nlink))
		err = -ESTALE;
	if (err)
		return err;
	if (l->dotdot) {
		ino = from_le64(d.parent);
		err = dir_read(t, ino, &d);
	} else if (!l->dot) {
		err = dir_find(t, l->dir, &l->name, &e);
		if (err)
			return err;
		ino = e.ino;
		err = inode_read(t, ino, &d);
		if (err == -ESTALE || (!err && e.type !=
				       IFTODT(from_le32(d.mode))))
			return report(-ECOW_CORRUPT, "directory %" PRIu64
				      ": entry %" PRIx64 " does not fit inode "
				      "%" PRIu64, l->dir, e.key.off, ino);
	}
	if (!err)
		inode_to_attr(&d, ino, l->out);
	return err;
}

int fs_lookup(struct fs *fs, struct view *v, uint64_t dir, const char *name,
	      size_t len, struct attr *out)
{
	struct lookup l = { .fs = fs, .v = v, .dir = dir, .out = out };
	struct op op;
	int err;

	l.dot = len == 1 && name[0] == '.';
	l.dotdot = len == 2 && name[0] == '.' && name[1] == '.';
	if (!l.dot && !l.dotdot) {
		err = name_init(fs, &l.name, name, len);
		if (err)
			return err;
	}
	op_read(&op, fs->s);
	do
		err = lookup_locked(&l);
	while (op_again(&op, &err));
	return op_end(&op, err);
}
