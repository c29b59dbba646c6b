/* digest.c - the visible state of a filesystem as one number */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digest.h"

static const uint8_t key[16] = "digest of a tree";

struct names {
	char *text;
	size_t len, room, count;
};

static int add_name(void *arg, const struct fs_dirent *e)
{
	struct names *n = arg;
	size_t need = n->len + sizeof(e->ino) + e->len + 1;

	if ((e->len == 1 && e->name[0] == '.') ||
	    (e->len == 2 && memcmp(e->name, "..", 2) == 0))
		return 0;
	if (need > n->room) {
		n->room = need * 2;
		n->text = realloc(n->text, n->room);
		if (!n->text)
			abort();
	}
	memcpy(n->text + n->len, &e->ino, sizeof(e->ino));
	memcpy(n->text + n->len + sizeof(e->ino), e->name, e->len);
	n->text[need - 1] = '\0';
	n->len = need;
	n->count++;
	return 0;
}

static uint64_t mix(uint64_t sum, const void *buf, size_t len)
{
	uint64_t h[2] = { sum, siphash(key, buf, len) };

	return siphash(key, h, sizeof(h));
}

static uint64_t mix_attr(uint64_t sum, const struct attr *a)
{
	uint64_t v[] = { a->ino, a->gen, a->mode, a->nlink, a->uid, a->gid,
			 a->rdev, a->flags, a->size, a->blocks,
			 (uint64_t)a->mtime.sec, a->mtime.nsec,
			 (uint64_t)a->ctime.sec, a->ctime.nsec,
			 (uint64_t)a->btime.sec, a->btime.nsec };

	return mix(sum, v, sizeof(v));
}

static int file_digest(struct fs *fs, struct view *v, const struct attr *a,
		       uint64_t *sum)
{
	static uint8_t buf[1 << 16];
	uint64_t off = 0, data, end;
	size_t got;
	int err;

	/* Holes are skipped: a sparse file of 8 TiB is no work. */
	while (off < a->size) {
		err = fs_seek(fs, v, a->ino, off, SEEK_DATA, &data);
		if (err == -ENXIO)
			return 0;
		if (err)
			return err;
		*sum = mix(*sum, &data, sizeof(data));
		err = fs_seek(fs, v, a->ino, data, SEEK_HOLE, &end);
		if (err)
			return err;
		for (off = data; off < end; off += got) {
			size_t n = (size_t)min_u64(sizeof(buf), end - off);

			err = fs_read(fs, v, a->ino, off, buf, n, &got);
			if (err || got == 0)
				return err ? err : -EIO;
			*sum = mix(*sum, buf, got);
		}
	}
	return 0;
}

static int xattr_digest(struct fs *fs, struct view *v, uint64_t ino,
			uint64_t *sum)
{
	static char list[1 << 16];
	static uint8_t val[COWFS_XATTR_SIZE_MAX];
	size_t len, vlen;
	const char *p;
	int err;

	err = fs_listxattr(fs, v, ino, list, sizeof(list), &len);
	for (p = list; !err && p < list + len; p += strlen(p) + 1) {
		err = fs_getxattr(fs, v, ino, p, val, sizeof(val), &vlen);
		if (!err)
			*sum = mix(mix(*sum, p, strlen(p)), val, vlen);
	}
	return err;
}

static int inode_digest(struct fs *fs, struct view *v, uint64_t ino,
			uint64_t *sum);

static int dir_digest(struct fs *fs, struct view *v, uint64_t ino,
		      uint64_t *sum)
{
	struct names n = { .text = NULL };
	const char *p;
	uint64_t child;
	int err;

	err = fs_readdir(fs, v, ino, 0, false, add_name, &n);
	for (p = n.text; !err && p < n.text + n.len;) {
		memcpy(&child, p, sizeof(child));
		p += sizeof(child);
		*sum = mix(*sum, p, strlen(p));
		p += strlen(p) + 1;
		err = inode_digest(fs, v, child, sum);
	}
	free(n.text);
	return err;
}

static int inode_digest(struct fs *fs, struct view *v, uint64_t ino,
			uint64_t *sum)
{
	char target[COWFS_SYMLINK_MAX + 1];
	size_t len = sizeof(target);
	struct attr a;
	int err;

	err = fs_getattr(fs, v, ino, &a);
	if (err)
		return err;
	*sum = mix_attr(*sum, &a);
	err = xattr_digest(fs, v, ino, sum);
	if (err)
		return err;
	if (S_ISDIR(a.mode))
		return dir_digest(fs, v, ino, sum);
	if (S_ISREG(a.mode))
		return file_digest(fs, v, &a, sum);
	if (!S_ISLNK(a.mode))
		return 0;
	err = fs_readlink(fs, v, ino, target, &len);
	if (!err)
		*sum = mix(*sum, target, len);
	return err;
}

int view_digest(struct fs *fs, struct view *v, uint64_t *out)
{
	*out = 0;
	return inode_digest(fs, v, COWFS_INO_ROOT, out);
}

int fs_digest(struct fs *fs, uint64_t *out)
{
	struct snap_info info;
	struct view *v;
	uint64_t sum, one, id = 0;
	int err;

	err = view_digest(fs, fs_live(fs), &sum);
	while (!err) {
		err = snap_next(fs_store(fs), id, &info);
		if (err == -ENOENT)
			break;
		if (!err)
			err = fs_view_open(fs, info.name, &v);
		if (err)
			return err;
		err = view_digest(fs, v, &one);
		fs_view_put(fs, v);
		sum = mix(mix(sum, info.name, strlen(info.name)), &one,
			  sizeof(one));
		id = info.id + 1;
	}
	if (err && err != -ENOENT)
		return err;
	*out = sum;
	return 0;
}
