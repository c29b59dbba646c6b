/*
 * item.c - one item of a file tree by itself: are its bytes possible?
 */
#include <dirent.h>
#include <sys/stat.h>

#include "check/private.h"
#include "fs/fs.h"

uint64_t name_slot(const struct check *c, const void *name, size_t len)
{
	uint64_t hash = siphash(c->super.hash_seed, name, len) &
			((UINT64_C(1) << 55) - 1);

	return (hash ? hash : 1) << 8;
}

static const char *inode_mode(const struct cowfs_disk_inode *d)
{
	uint32_t mode = from_le32(d->mode);

	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return "unknown file type";
	}
	if (mode & ~(uint32_t)(S_IFMT | 07777))
		return "impossible mode";
	return NULL;
}

static bool time_ok(const struct cowfs_disk_time *t)
{
	return from_le32(t->nsec) < 1000000000u;
}

const char *inode_sane(const struct check *c, const struct key *k,
		       const struct item *it)
{
	const struct cowfs_disk_inode *d = it->data;
	const char *why;

	if (k->off != 0)
		return "key offset is not 0";
	if (it->len != sizeof(*d))
		return "wrong length";
	why = inode_mode(d);
	if (why)
		return why;
	if (!time_ok(&d->atime) || !time_ok(&d->mtime) ||
	    !time_ok(&d->ctime) || !time_ok(&d->btime))
		return "impossible time";
	if (from_le32(d->nlink) > COWFS_LINK_MAX)
		return "impossible link count";
	if (from_le64(d->size) > (uint64_t)COWFS_FILE_SIZE_MAX)
		return "impossible size";
	if (from_le64(d->gen) > c->gen || from_le64(d->change) > c->gen)
		return "from the future";
	return NULL;
}

const char *dirent_sane(const struct check *c, const struct key *k,
			const struct item *it)
{
	const struct cowfs_disk_dirent *d = it->data;
	const char *name = (const char *)(d + 1);
	size_t len;

	(void)c;
	(void)k;
	if (it->len <= sizeof(*d) || it->len > sizeof(*d) + COWFS_NAME_MAX)
		return "impossible name length";
	len = it->len - sizeof(*d);
	if (memchr(name, 0, len) || memchr(name, '/', len))
		return "impossible name";
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return "impossible name";
	switch (d->type) {
	case DT_REG:
	case DT_DIR:
	case DT_LNK:
	case DT_CHR:
	case DT_BLK:
	case DT_FIFO:
	case DT_SOCK:
		return NULL;
	default:
		return "unknown file type";
	}
}

const char *xattr_sane(const struct check *c, const struct key *k,
		       const struct item *it)
{
	const struct cowfs_disk_xattr *d = it->data;
	uint32_t value, inside;

	if (it->len < sizeof(*d))
		return "too short";
	value = from_le32(d->value_len);
	if (d->name_len == 0 || d->external > 1 ||
	    value > COWFS_XATTR_SIZE_MAX)
		return "impossible lengths";
	if (d->external && !from_le32(d->value_id))
		return "a value without a number";
	inside = d->external ? 0 : value;
	if (it->len - sizeof(*d) != d->name_len + inside)
		return "lengths disagree";
	if (memchr(d + 1, 0, d->name_len))
		return "impossible name";
	if (name_slot(c, d + 1, d->name_len) != (k->off & ~UINT64_C(0xff)))
		return "hash does not match the name";
	if (!d->external && !fs_xattr_possible(d + 1, d->name_len,
					       (const uint8_t *)(d + 1) +
						       d->name_len, value))
		return "impossible ACL";
	return NULL;
}

static void check_dirent(struct walk *w, const struct key *k,
			 const struct item *it)
{
	const struct cowfs_disk_dirent *d = it->data;
	const char *why = dirent_sane(w->c, k, it);
	char name[QUOTED_MAX];

	if (why) {
		problem(w->c, P_DIRENT_BAD, "%s: inode %" PRIu64 ", entry %"
			PRIx64 ": %s", w->name, k->obj, k->off, why);
		fix_note(w, FIX_DEL, *k, 0);
		return;
	}
	if (name_slot(w->c, d + 1, it->len - sizeof(*d)) ==
	    (k->off & ~UINT64_C(0xff)))
		return;
	fix_note(w, FIX_REHASH, *k, 0);
	problem(w->c, P_DIRENT_HASH, "%s: inode %" PRIu64 ", entry %s at %"
		PRIx64, w->name, k->obj,
		quoted(name, d + 1, it->len - sizeof(*d)), k->off);
}

static void check_inode(struct walk *w, const struct key *k,
			const struct item *it)
{
	const struct cowfs_disk_inode *d = it->data;
	const char *why = inode_sane(w->c, k, it);

	/* No reason to rescue less of it; but a mount lets nobody see it. */
	if (!why && from_le32(d->flags) & ~COWFS_INODE_KNOWN_FLAGS)
		why = "unknown flags";
	if (why) {
		problem(w->c, P_INODE_BAD, "%s: inode %" PRIu64 ": %s",
			w->name, k->obj, why);
		fix_note(w, k->off ? FIX_DEL : FIX_INODE, *k, 0);
	}
	if (k->obj == COWFS_INO_ROOT ||
	    (k->obj >= COWFS_INO_FIRST && k->obj < w->c->next_ino))
		return;
	problem(w->c, P_INODE_NUMBER, "%s: inode %" PRIu64 ", next new one %"
		PRIu64, w->name, k->obj, w->c->next_ino);
	if (k->obj < COWFS_INO_FIRST || k->obj >= COWFS_INO_MAX)
		fix_note(w, FIX_DEL_ALL, *k, 0);
	else if (w->c->fix)
		w->c->fix->next_ino = max_u64(w->c->fix->next_ino,
					      k->obj + 1);
}

static void check_item(struct walk *w, const struct key *k,
		       const struct item *it)
{
	const char *why = NULL;

	switch (k->type) {
	case COWFS_KEY_INODE:
		check_inode(w, k, it);
		break;
	case COWFS_KEY_DIRENT:
		check_dirent(w, k, it);
		break;
	case COWFS_KEY_XATTR:
		why = xattr_sane(w->c, k, it);
		break;
	case COWFS_KEY_XATTR_DATA:
		if (it->len == 0)
			why = "empty piece of a value";
		break;
	case COWFS_KEY_ORPHAN:
		if (k->obj == 0 && it->len == 0)
			break;
		problem(w->c, P_ORPHAN_BAD, "%s: record %" PRIu64 "/%"
			PRIu64 " of %u bytes", w->name, k->obj, k->off,
			it->len);
		fix_note(w, FIX_DEL_NAME, *k, 0);
		break;
	case COWFS_KEY_INLINE:
	case COWFS_KEY_EXTENT: /* data_leaf */
		break;
	default:
		problem(w->c, P_ITEM_UNKNOWN, "%s: key %" PRIu64 "/0x%02x/%"
			PRIu64, w->name, k->obj, k->type, k->off);
		fix_note(w, FIX_DEL, *k, 0);
	}
	if (!why)
		return;
	problem(w->c, P_XATTR_BAD, "%s: inode %" PRIu64 ", xattr %" PRIx64
		": %s", w->name, k->obj, k->off, why);
	fix_note(w, FIX_DEL, *k, 0);
}

void items_check(struct walk *w, const void *node)
{
	unsigned n = node_count(node);

	for (unsigned i = w->first_slot; i < n && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, w->c->node_size);

		check_item(w, &k, &it);
	}
}
