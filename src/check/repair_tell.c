/*
 * repair_tell.c - what was lost, in terms of files
 *
 * A node that is gone says nothing of what it held; but the keys around it say
 * whose it may have been, a file's count of blocks how much of it is missing,
 * and an entry without an inode who is.
 */
#include <stdio.h>
#include <sys/stat.h>

#include "check/mend.h"
#include "cowfs/text.h"

#define LINE_MAX_LEN 4096u
#define DEPTH_MAX 256u
/* Entries and cuts looked at for the sake of messages; after that numbers must
 * do. */
#define PATHS_MAX 5000000u

void tell(struct repair *r, const char *fmt, ...)
{
	char line[LINE_MAX_LEN];
	va_list ap;

	if (!r->opt->told)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	r->opt->told(r->opt->arg, line);
}

/* ---- paths ---- */

/* The name of ino in dir: its entry's data goes to buf. */
static int name_in(struct repair *r, struct tree *t, uint64_t dir,
		   uint64_t ino, uint8_t *buf, uint32_t *len)
{
	struct key k = KEY(dir, COWFS_KEY_DIRENT, 0);
	struct cowfs_disk_dirent d;
	int err;

	for (;; k.off++) {
		err = mend_next(r, t, &k, buf, len);
		if (err)
			return err;
		if (k.obj != dir || k.type != COWFS_KEY_DIRENT ||
		    k.off == UINT64_MAX || r->paths++ >= PATHS_MAX)
			return -ENOENT;
		if (*len <= sizeof(d))
			continue;
		memcpy(&d, buf, sizeof(d));
		if (from_le64(d.ino) == ino)
			return 0;
	}
}

/* From the end of path backwards; *at moves on. -ENOENT: nobody knows. */
static int climb(struct repair *r, struct tree *t, uint64_t ino, char *path,
		 size_t *at)
{
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	struct cowfs_disk_inode d;
	uint32_t len;
	int err;

	for (unsigned i = 0; ino != COWFS_INO_ROOT; i++) {
		if (i == DEPTH_MAX)
			return -ENOENT;
		err = mend_inode(r, t, ino, &d);
		if (!err)
			err = name_in(r, t, from_le64(d.parent), ino, buf,
				      &len);
		if (err)
			return err;
		len -= (uint32_t)sizeof(struct cowfs_disk_dirent);
		if (len + 1 > *at)
			return -ENOENT;
		*at -= len;
		memcpy(path + *at, buf + sizeof(struct cowfs_disk_dirent),
		       len);
		path[--*at] = '/';
		ino = from_le64(d.parent);
	}
	return 0;
}

/* "'/a/b' (inode 300)", or only the latter. */
static const char *path_of(struct repair *r, struct tree *t, uint64_t ino,
			   char out[LINE_MAX_LEN])
{
	char path[LINE_MAX_LEN / 5];
	size_t at = sizeof(path) - 1, n = 0, shown;

	path[at] = '\0';
	if (ino == COWFS_INO_ROOT)
		path[--at] = '/';
	if (r->paths >= PATHS_MAX || climb(r, t, ino, path, &at)) {
		snprintf(out, LINE_MAX_LEN, "inode %" PRIu64, ino);
		return out;
	}
	out[n++] = '\'';
	for (; path[at]; at += shown) {
		shown = path[at] == '\\' ? 0 : cowfs_shown(path + at,
							    strlen(path + at));
		memcpy(out + n, path + at, shown);
		n += shown;
		if (!shown) {
			n += (size_t)snprintf(out + n, 5, "\\x%02x",
					      (uint8_t)path[at]);
			shown = 1;
		}
	}
	snprintf(out + n, 40, "' (inode %" PRIu64 ")", ino);
	return out;
}

/* ---- who was hit ---- */

static const char *tree_name(const struct fix *f, char out[40])
{
	if (f->tree == TREE_LIVE)
		return "";
	if (f->tree == TREE_SNAPS)
		return "snapshot tree: ";
	snprintf(out, 40, "snapshot %" PRIu64 ": ", f->tree);
	return out;
}

static void tell_cut(struct repair *r, const struct fix *f)
{
	const struct cut *cut = r->cuts.at;
	struct key lo = f->key, hi;
	char name[40];

	cut += r->cuts.n - 1;
	hi = cut->hi;
	if (f->tree == TREE_SNAPS)
		tell(r, "snapshot tree: node %" PRIu64 " is cut out; the "
		     "snapshots that it held are lost", f->arg2);
	else if (lo.obj == hi.obj && lo.type == COWFS_KEY_EXTENT &&
		 hi.type == COWFS_KEY_EXTENT)
		tell(r, "%snode %" PRIu64 " is cut out; it held the extents "
		     "of inode %" PRIu64 ", bytes %" PRIu64 " to %" PRIu64,
		     tree_name(f, name), f->arg2, lo.obj,
		     lo.off * COWFS_BLOCK_SIZE, hi.off * COWFS_BLOCK_SIZE - 1);
	else if (hi.obj == UINT64_MAX)
		tell(r, "%snode %" PRIu64 " is cut out; it held items of "
		     "inodes from %" PRIu64 " on", tree_name(f, name), f->arg2,
		     lo.obj);
	else
		tell(r, "%snode %" PRIu64 " is cut out; it held items of "
		     "inodes %" PRIu64 " to %" PRIu64, tree_name(f, name),
		     f->arg2, lo.obj, hi.obj);
}

/* The part of a file's contents that a cut took. false: none. */
static bool cut_of_file(const struct cut *cut, uint64_t tree, uint64_t ino,
			uint64_t size, uint64_t *from, uint64_t *to)
{
	struct key lo = KEY(ino, COWFS_KEY_EXTENT, 0);
	struct key hi = KEY(ino, COWFS_KEY_EXTENT, UINT64_MAX);

	if (cut->tree != tree || key_cmp(&cut->hi, &lo) <= 0 ||
	    key_cmp(&cut->lo, &hi) > 0)
		return false;
	*from = 0;
	*to = size;
	if (key_cmp(&cut->lo, &lo) > 0)
		*from = cut->lo.off * COWFS_BLOCK_SIZE;
	if (key_cmp(&cut->hi, &hi) <= 0)
		*to = min_u64(size, cut->hi.off * COWFS_BLOCK_SIZE);
	return *from < *to;
}

static void tell_blocks(struct repair *r, struct tree *t, const struct fix *f)
{
	char path[LINE_MAX_LEN], name[40], ranges[600] = "";
	const struct cut *cut = r->cuts.at;
	struct cowfs_disk_inode d;
	uint64_t from, to;
	size_t n = 0;

	if (mend_inode(r, t, f->key.obj, &d) ||
	    from_le64(d.blocks) <= f->arg)
		return;
	for (size_t i = 0; i < r->cuts.n && n + 60 < sizeof(ranges) &&
			   r->paths++ < PATHS_MAX; i++)
		if (cut_of_file(&cut[i], f->tree, f->key.obj,
				from_le64(d.size), &from, &to))
			n += (size_t)snprintf(ranges + n, sizeof(ranges) - n,
					      "%s%" PRIu64 "-%" PRIu64,
					      n ? ", " : " within bytes ",
					      from, to - 1);
	tell(r, "%s%s lost %" PRIu64 " blocks of its contents%s",
	     tree_name(f, name), path_of(r, t, f->key.obj, path),
	     from_le64(d.blocks) - f->arg, ranges);
}

static void tell_size(struct repair *r, struct tree *t, const struct fix *f)
{
	char path[LINE_MAX_LEN], name[40];
	struct cowfs_disk_inode d;

	if (mend_inode(r, t, f->key.obj, &d) ||
	    !S_ISDIR(from_le32(d.mode)) || from_le64(d.size) <= f->arg)
		return;
	tell(r, "%s%s lost %" PRIu64 " entries", tree_name(f, name),
	     path_of(r, t, f->key.obj, path), from_le64(d.size) - f->arg);
}

static void tell_name(struct repair *r, struct tree *t, const struct fix *f)
{
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	char path[LINE_MAX_LEN], text[QUOTED_MAX], name[40];
	uint32_t len, head = sizeof(struct cowfs_disk_dirent);

	_Static_assert(sizeof(struct cowfs_disk_snap_name) == 8, "head");
	if (f->key.type == COWFS_KEY_SNAP_NAME)
		head = sizeof(struct cowfs_disk_snap_name);
	else if (f->key.type != COWFS_KEY_DIRENT)
		return;
	if (mend_get(r, t, &f->key, buf, &len) || len <= head)
		return;
	quoted(text, buf + head, len - head);
	if (f->key.type == COWFS_KEY_SNAP_NAME)
		tell(r, "the name %s of a snapshot is removed", text);
	else if (f->arg)
		tell(r, "%s%s in %s is lost (inode %" PRIu64 ")",
		     tree_name(f, name), text,
		     path_of(r, t, f->key.obj, path), f->arg);
	else
		tell(r, "%sentry %s in %s is removed", tree_name(f, name),
		     text, path_of(r, t, f->key.obj, path));
}

static void tell_extent(struct repair *r, struct tree *t, const struct fix *f)
{
	uint8_t buf[COWFS_MAX_NODE_SIZE / 4];
	char path[LINE_MAX_LEN], name[40];
	struct cowfs_disk_extent d;
	uint64_t from = f->key.off * COWFS_BLOCK_SIZE;
	uint32_t len;

	if (mend_get(r, t, &f->key, buf, &len))
		return;
	if (len < sizeof(d)) {
		tell(r, "%s%s: extent at byte %" PRIu64 " is removed",
		     tree_name(f, name), path_of(r, t, f->key.obj, path),
		     from);
		return;
	}
	memcpy(&d, buf, sizeof(d));
	tell(r, "%s%s lost bytes %" PRIu64 " to %" PRIu64,
	     tree_name(f, name), path_of(r, t, f->key.obj, path), from,
	     from + (uint64_t)from_le32(d.len) * COWFS_BLOCK_SIZE - 1);
}

static void tell_del(struct repair *r, struct tree *t, const struct fix *f)
{
	char path[LINE_MAX_LEN], name[40];

	if (f->key.type == COWFS_KEY_EXTENT)
		tell_extent(r, t, f);
	else if (f->tree == TREE_SNAPS)
		tell(r, "record 0x%02x of snapshot %" PRIu64 " is removed",
		     f->key.type, f->key.obj);
	else
		tell(r, "%s%s: item 0x%02x/%" PRIu64 " is removed",
		     tree_name(f, name), path_of(r, t, f->key.obj, path),
		     f->key.type, f->key.off);
}

/* One line of the form "TREE: PATH: what". */
static void tell_inode(struct repair *r, struct tree *t, const struct fix *f,
		       const char *what)
{
	char path[LINE_MAX_LEN], name[40];

	tell(r, "%s%s %s", tree_name(f, name),
	     path_of(r, t, f->key.obj, path), what);
}

static void tell_lost(struct repair *r, struct tree *t, const struct fix *f)
{
	char path[LINE_MAX_LEN], name[40];
	uint64_t from = f->key.off * COWFS_BLOCK_SIZE;

	tell(r, "%s%s: bytes %" PRIu64 " to %" PRIu64 " have no good copy "
	     "(block %" PRIu64 ")", tree_name(f, name),
	     path_of(r, t, f->key.obj, path), from,
	     from + COWFS_BLOCK_SIZE - 1, f->arg);
}

void tell_fix(struct repair *r, struct tree *t, const struct fix *f)
{
	if (!r->opt->told)
		return;
	switch ((enum fix_kind)f->kind) {
	case FIX_CUT:
		tell_cut(r, f);
		break;
	case FIX_BLOCKS:
		tell_blocks(r, t, f);
		break;
	case FIX_SIZE:
		tell_size(r, t, f);
		break;
	case FIX_DEL_NAME:
		tell_name(r, t, f);
		break;
	case FIX_DEL:
		tell_del(r, t, f);
		break;
	case FIX_LOST:
		tell_lost(r, t, f);
		break;
	case FIX_DEL_TYPE:
	case FIX_DEL_VALUE:
		tell_inode(r, t, f, "loses items that mean nothing");
		break;
	case FIX_DEL_ALL:
		tell_inode(r, t, f, "is removed, as what is left of it means "
			   "nothing");
		break;
	case FIX_MAKE:
		tell_inode(r, t, f, "gets a new inode; owner, mode and times "
			   "are lost");
		break;
	case FIX_MODE:
		tell_inode(r, t, f, "is made a directory, as it has entries");
		break;
	case FIX_INLINE:
		if (!f->arg)
			tell_inode(r, t, f, "lost all its contents");
		break;
	case FIX_PUNCH:
		tell_inode(r, t, f, "gets holes where data has no good copy");
		break;
	case FIX_ADOPT:
		tell_inode(r, t, f, "has no name: moved to lost+found");
		break;
	default:
		break;
	}
}
