/*
 * xattr.c - extended attributes as items of the tree
 *
 * An item's key is made like a directory entry's: hash of the name, and a
 * counter. A value that does not fit an item lies in pieces under an id of its
 * own, which it keeps while it is replaced by other large ones.
 *
 * Items are looked for downwards from the last key a name may have: the search
 * ends at the inode item at the latest, so it stays within nodes that
 * xattr_prepare has seen, even after other changes to the inode.
 */
#include "fs/private.h"

#include <inttypes.h>

struct xattr {
	struct key key;
	bool exists;
	bool full;     /* no counter is left for a new one */
	bool external;
	uint32_t len;  /* of the value */
	uint32_t id;
	const char *name;
	size_t name_len;
	const void *value; /* in the node; NULL if external */
};

static uint32_t piece_max(struct fs *fs)
{
	return COWFS_XATTR_INLINE(forest_node_size(fs->s->forest));
}

static uint32_t pieces(struct fs *fs, size_t len)
{
	return ((uint32_t)len + piece_max(fs) - 1) / piece_max(fs);
}

static struct key piece_key(uint64_t ino, uint32_t id, uint32_t piece)
{
	return KEY(ino, COWFS_KEY_XATTR_DATA, (uint64_t)id << 16 | piece);
}

static uint32_t piece_len(struct fs *fs, size_t len, uint32_t piece)
{
	return (uint32_t)min_u64(piece_max(fs),
				 len - (size_t)piece * piece_max(fs));
}

static int from_item(const struct key *k, const struct item *it,
		     struct xattr *out)
{
	const struct cowfs_disk_xattr *d = it->data;
	uint32_t rest = it->len - (uint32_t)sizeof(*d), len, id;

	if (it->len < sizeof(*d) || !d->name_len || d->name_len > rest)
		goto bad;
	rest -= d->name_len;
	len = from_le32(d->value_len);
	id = from_le32(d->value_id);
	if (d->external > 1 || len > COWFS_XATTR_SIZE_MAX ||
	    rest != (d->external ? 0 : len) || (d->external && (!id || !len)) ||
	    memchr(d + 1, 0, d->name_len))
		goto bad;
	*out = (struct xattr){
		.key = *k,
		.exists = true,
		.external = d->external,
		.len = len,
		.id = id,
		.name = (const char *)(d + 1),
		.name_len = d->name_len,
		.value = d->external ? NULL
				     : (const char *)(d + 1) + d->name_len,
	};
	return 0;
bad:
	return report(-ECOW_CORRUPT, "inode %" PRIu64
		      ": impossible xattr %" PRIx64, k->obj, k->off);
}

/* First counter that is not in use, as a key offset; 0 if there is none. */
static uint64_t free_place(uint64_t hash, const uint64_t used[4])
{
	unsigned i;

	for (i = 0; i < 256; i++)
		if (!(used[i / 64] >> (i % 64) & 1))
			return hash | i;
	return 0;
}

/* 0 whether it exists or not. */
static int find(struct fs *fs, struct tree *t, uint64_t ino, const char *name,
		struct xattr *out)
{
	size_t len = strlen(name);
	uint64_t hash = name_hash(fs, name, len), used[4] = { 0 };
	struct key k = KEY(ino, COWFS_KEY_XATTR, hash | 0xff);
	struct cursor c;
	struct xattr x;
	int err;

	for (err = cursor_floor(&c, t, &k); !err; err = cursor_prev(&c)) {
		if (c.key.obj != ino || c.key.type != COWFS_KEY_XATTR ||
		    c.key.off >> 8 != hash >> 8)
			break;
		err = from_item(&c.key, &c.item, &x);
		if (err)
			return err;
		if (x.name_len == len && !memcmp(x.name, name, len)) {
			*out = x;
			return 0;
		}
		used[(c.key.off & 0xff) / 64] |= UINT64_C(1)
						 << (c.key.off % 64);
	}
	if (err && err != -ENOENT)
		return err;
	k.off = free_place(hash, used);
	*out = (struct xattr){ .key = k, .full = !k.off };
	return 0;
}

/* A piece of an external value, verified. */
static int get_piece(struct fs *fs, struct tree *t, const struct xattr *x,
		     uint32_t i, struct item *out)
{
	struct key k = piece_key(x->key.obj, x->id, i);
	int err = tree_get(t, &k, out);

	if (err && err != -ENOENT)
		return err;
	if (err || out->len != piece_len(fs, x->len, i))
		return report(-ECOW_CORRUPT, "inode %" PRIu64
			      ": value of xattr %" PRIx64 " is not whole",
			      x->key.obj, x->key.off);
	return 0;
}

static int copy_value(struct fs *fs, struct tree *t, const struct xattr *x,
		      char *buf)
{
	struct item it;
	uint32_t i;
	int err;

	if (!x->external) {
		memcpy(buf, x->value, x->len);
		return 0;
	}
	for (i = 0; i < pieces(fs, x->len); i++) {
		err = get_piece(fs, t, x, i, &it);
		if (err)
			return err;
		memcpy(buf + (size_t)i * piece_max(fs), it.data, it.len);
	}
	return 0;
}

int xattr_get_locked(struct fs *fs, struct tree *t, uint64_t ino,
		     const char *name, void *buf, size_t size, size_t *len)
{
	struct xattr x;
	int err;

	err = find(fs, t, ino, name, &x);
	if (err)
		return err;
	if (!x.exists)
		return -ENODATA;
	if (size) {
		if (x.len > size)
			return -ERANGE;
		err = copy_value(fs, t, &x, buf);
		if (err)
			return err;
	}
	*len = x.len;
	return 0;
}

/* ---- changing ---- */

/* An id no value has, from `id` on. */
static int free_id(struct fs *fs, uint64_t ino, uint32_t id, uint32_t *out)
{
	struct item it;
	struct key k;
	int err;

	for (;; id++) {
		if (!id)
			continue;
		k = piece_key(ino, id, 0);
		err = tree_get(&fs->s->fs, &k, &it);
		if (err)
			break;
	}
	if (err == -ENOENT)
		*out = id;
	return err == -ENOENT ? 0 : err;
}

static bool goes_outside(struct fs *fs, size_t len)
{
	return len > piece_max(fs);
}

static int prepare_old(struct fs *fs, const struct xattr *x)
{
	struct item it;
	uint32_t i, n = x->external ? pieces(fs, x->len) : 0;
	int err = 0;

	for (i = 0; !err && i < n; i++) {
		struct key k = piece_key(x->key.obj, x->id, i);

		err = get_piece(fs, &fs->s->fs, x, i, &it);
		if (!err)
			err = tree_prepare(&fs->s->fs, &k);
	}
	return err;
}

static int prepare_new(struct fs *fs, const struct xattr *x, size_t len)
{
	struct cowfs_disk_inode d;
	uint32_t i, id = x->id;
	int err = 0;

	if (!x->external) {
		err = inode_read(&fs->s->fs, x->key.obj, &d);
		if (err && err != -ESTALE)
			return err;
		/* None yet: it is just being made. */
		err = free_id(fs, x->key.obj, err ? 1 : from_le32(d.xattr_id),
			      &id);
	}
	for (i = 0; !err && i < pieces(fs, len); i++) {
		struct key k = piece_key(x->key.obj, id, i);

		err = tree_prepare(&fs->s->fs, &k);
	}
	return err;
}

int xattr_prepare(struct fs *fs, uint64_t ino, const char *name, size_t len)
{
	struct xattr x;
	int err;

	err = find(fs, &fs->s->fs, ino, name, &x);
	if (!err && x.full)
		err = -ENOSPC;
	if (!err)
		err = tree_prepare(&fs->s->fs, &x.key);
	if (!err)
		err = prepare_old(fs, &x);
	if (!err && goes_outside(fs, len))
		err = prepare_new(fs, &x, len);
	return err;
}

/* Pieces from `from` on of the value that x had. */
static int drop_pieces(struct fs *fs, const struct xattr *x, uint32_t from)
{
	uint32_t i, n = x->external ? pieces(fs, x->len) : 0;
	int err = 0;

	for (i = from; !err && i < n; i++) {
		struct key k = piece_key(x->key.obj, x->id, i);

		err = tree_delete(&fs->s->fs, &k);
	}
	return err;
}

static int put_pieces(struct fs *fs, uint64_t ino, uint32_t id,
		      const char *val, size_t len)
{
	uint32_t i;
	int err = 0;

	for (i = 0; !err && i < pieces(fs, len); i++) {
		struct key k = piece_key(ino, id, i);

		err = tree_put(&fs->s->fs, &k,
			       val + (size_t)i * piece_max(fs),
			       piece_len(fs, len, i));
	}
	return err;
}

/* id 0: the value goes into the item. */
static int put_item(struct fs *fs, const struct xattr *x, const char *name,
		    const void *val, size_t len, uint32_t id)
{
	size_t name_len = strlen(name), inside = id ? 0 : len;
	struct cowfs_disk_xattr *d;
	void *data;
	int err = 0;

	if (x->exists)
		err = tree_delete(&fs->s->fs, &x->key);
	if (!err)
		err = tree_insert(&fs->s->fs, &x->key, NULL,
				  (uint32_t)(sizeof(*d) + name_len + inside),
				  &data);
	if (err)
		return err;
	d = data;
	d->name_len = (uint8_t)name_len;
	d->external = id != 0;
	d->value_len = to_le32((uint32_t)len);
	d->value_id = to_le32(id);
	memcpy(d + 1, name, name_len);
	if (inside)
		memcpy((char *)(d + 1) + name_len, val, inside);
	return 0;
}

int xattr_set_locked(struct fs *fs, uint64_t ino, const char *name,
		     const void *val, size_t len, struct cowfs_disk_inode *d)
{
	bool outside = goes_outside(fs, len);
	struct xattr x;
	uint32_t id = 0;
	int err;

	err = find(fs, &fs->s->fs, ino, name, &x);
	if (!err && outside && x.external)
		id = x.id;
	else if (!err && outside)
		err = free_id(fs, ino, from_le32(d->xattr_id), &id);
	if (err)
		return err;
	if (outside && id != x.id)
		d->xattr_id = to_le32(id + 1);
	err = drop_pieces(fs, &x, outside ? pieces(fs, len) : 0);
	if (!err && outside)
		err = put_pieces(fs, ino, id, val, len);
	return err ? err : put_item(fs, &x, name, val, len, id);
}

int xattr_remove_locked(struct fs *fs, uint64_t ino, const char *name,
			struct cowfs_disk_inode *d)
{
	struct xattr x;
	int err;

	(void)d; /* counts nothing of them so far */
	err = find(fs, &fs->s->fs, ino, name, &x);
	if (err)
		return err;
	if (!x.exists)
		return -ENODATA;
	err = drop_pieces(fs, &x, 0);
	return err ? err : tree_delete(&fs->s->fs, &x.key);
}

/* ---- listing ---- */

int xattr_list_locked(struct tree *t, uint64_t ino, char *buf, size_t size,
		      size_t *len)
{
	struct key k = KEY(ino, COWFS_KEY_XATTR, 0);
	struct cursor c;
	struct xattr x;
	size_t n = 0;
	int err;

	for (err = cursor_ceil(&c, t, &k); !err; err = cursor_next(&c)) {
		if (c.key.obj != ino || c.key.type != COWFS_KEY_XATTR)
			break;
		err = from_item(&c.key, &c.item, &x);
		if (err)
			return err;
		if (size) {
			if (x.name_len + 1 > size - n)
				return -ERANGE;
			memcpy(buf + n, x.name, x.name_len);
			buf[n + x.name_len] = 0;
		}
		n += x.name_len + 1;
	}
	if (err && err != -ENOENT)
		return err;
	*len = n;
	return 0;
}
