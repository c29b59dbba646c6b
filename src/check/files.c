/*
 * files.c - a file tree item by item: what an inode's items say of each other
 *
 * Items pass by in key order, so all of one inode come together: inode,
 * xattrs, their large values, entries, contents. What is needed beyond one
 * inode goes into arrays for links.c.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "check/private.h"

/* A large value that an xattr names, and how much of it has passed. */
struct value {
	uint64_t id;   /* in order once the first piece comes: pieces are */
	uint64_t slot; /* key offset of the xattr */
	uint32_t len, got;
};

/* More xattrs than one with the same value are damage; of so many one is looked
 * for that it fits. */
#define SHARED_VALUES_MAX 16u

/* The inode whose items pass by. */
struct group {
	uint64_t ino;
	struct cowfs_disk_inode d;
	bool have;    /* d is there and sane */
	bool missing; /* items without an inode: reported */
	bool bad;     /* there is an inode, but not sane: reported */
	struct array values;
	bool sorted; /* they are */
	uint64_t entries;
	uint64_t mapped;    /* blocks */
	uint64_t next_lblk; /* end of the extents so far */
	uint64_t data_end;  /* of those that are data */
	uint64_t inline_len;
	uint64_t inline_items;
	bool inline_odd; /* a piece that can't be */
	bool inline_short; /* a piece that can only be the last has passed */
	/* names with the same hash, each after a byte of length */
	uint64_t hash;
	uint8_t hash_type;
	struct array names;
};

struct files {
	struct walk *w;
	struct array inodes, links, orphans;
	struct group g;
	bool open; /* g is in use */
};

int files_new(struct walk *w, struct files **out)
{
	struct files *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->w = w;
	*out = f;
	return 0;
}

void files_free(struct files *f)
{
	if (!f)
		return;
	array_free(&f->inodes);
	array_free(&f->links);
	array_free(&f->orphans);
	array_free(&f->g.values);
	array_free(&f->g.names);
	free(f);
}

/* ---- the end of an inode's items ---- */

/* The first of those with the id of v[i], from there on, that is complete. */
static const struct value *owner_of(const struct group *g, size_t i)
{
	const struct value *v = g->values.at;
	uint64_t id = v[i].id;

	for (; i < g->values.n && v[i].id == id; i++)
		if (v[i].got == v[i].len)
			return &v[i];
	return NULL;
}

/* Of several xattrs with one value it is the first one's for which it fits. */
static void end_values(struct files *f)
{
	const struct value *v = f->g.values.at, *owner = NULL;

	for (size_t i = 0; i < f->g.values.n; i++) {
		if (!i || v[i].id != v[i - 1].id)
			owner = owner_of(&f->g, i);
		if (owner == &v[i])
			continue;
		if (owner) {
			problem(f->w->c, P_XATTR_BAD, "%s: inode %" PRIu64
				", value %" PRIu64 " has two names",
				f->w->name, f->g.ino, v[i].id);
			fix_note(f->w, FIX_DEL,
				 KEY(f->g.ino, COWFS_KEY_XATTR, v[i].slot), 0);
			continue;
		}
		problem(f->w->c, P_XATTR_BAD, "%s: inode %" PRIu64
			", value %" PRIu64 " has %u bytes of %u", f->w->name,
			f->g.ino, v[i].id, v[i].got, v[i].len);
		fix_note(f->w, FIX_DEL_VALUE,
			 KEY(f->g.ino, COWFS_KEY_XATTR, v[i].slot), v[i].id);
	}
}

/* ---- what would put an inode right ---- */

static void note_inode(struct files *f, enum fix_kind kind, uint64_t arg)
{
	fix_note(f->w, kind, KEY(f->g.ino, COWFS_KEY_INODE, 0), arg);
}

static void drop_type(struct files *f, uint8_t type)
{
	fix_note(f->w, FIX_DEL_TYPE, KEY(f->g.ino, type, 0), 0);
}

/* Inline contents as they should be, the inode's size aside? */
static bool inline_good(const struct files *f)
{
	const struct group *g = &f->g;

	return g->inline_items == 1 && !g->inline_odd && g->inline_len &&
	       g->inline_len <= COWFS_INLINE_MAX(f->w->c->node_size) &&
	       !g->next_lblk;
}

/* Of a regular file. */
static void fix_inline(struct files *f)
{
	if (inline_good(f)) {
		note_inode(f, FIX_INLINE, 1);
		note_inode(f, FIX_SIZE, f->g.inline_len);
		return;
	}
	if (from_le32(f->g.d.flags) & COWFS_INODE_INLINE)
		note_inode(f, FIX_INLINE, 0);
	if (f->g.inline_items)
		drop_type(f, COWFS_KEY_INLINE);
}

/* Items that no inode goes with: what might it have been? */
static void fix_missing(struct files *f)
{
	struct group *g = &f->g;
	uint64_t end = min_u64(g->data_end, COWFS_FILE_BLOCKS_MAX - 1);

	if (g->ino != COWFS_INO_ROOT &&
	    (g->ino < COWFS_INO_FIRST || g->ino >= COWFS_INO_MAX))
		note_inode(f, FIX_DEL_ALL, 0);
	else if (g->entries)
		fix_make(f->w, g->ino, S_IFDIR | 0700, g->entries, false);
	else if (inline_good(f))
		fix_make(f->w, g->ino, S_IFREG | 0600, g->inline_len, true);
	else if (g->mapped)
		fix_make(f->w, g->ino, S_IFREG | 0600,
			 end * COWFS_BLOCK_SIZE, false);
	else
		note_inode(f, FIX_DEL_ALL, 0);
}

static void end_inline(struct files *f, uint64_t size, uint64_t max)
{
	struct group *g = &f->g;
	struct check *c = f->w->c;

	if (g->inline_len != size || size > max)
		problem(c, P_INLINE_BAD, "%s: inode %" PRIu64 ": %" PRIu64
			" bytes inline, size %" PRIu64, f->w->name, g->ino,
			g->inline_len, size);
	if (g->next_lblk)
		problem(c, P_INLINE_BAD, "%s: inode %" PRIu64
			": inline contents and extents", f->w->name, g->ino);
}

static void end_file(struct files *f, uint64_t size)
{
	struct group *g = &f->g;
	struct check *c = f->w->c;
	bool in_line = from_le32(g->d.flags) & COWFS_INODE_INLINE;

	if (in_line ? !inline_good(f) || g->inline_len != size :
		      g->inline_items > 0)
		fix_inline(f);
	if (in_line) {
		end_inline(f, size, COWFS_INLINE_MAX(c->node_size));
		if (g->inline_items != 1)
			problem(c, P_INLINE_BAD, "%s: inode %" PRIu64
				": %" PRIu64 " inline items", f->w->name,
				g->ino, g->inline_items);
	} else if (g->inline_items) {
		problem(c, P_INLINE_BAD, "%s: inode %" PRIu64
			": not marked as inline", f->w->name, g->ino);
	}
	if (g->data_end <= blocks_of(size))
		return;
	problem(c, P_EXTENT_BEYOND, "%s: inode %" PRIu64 ": data up to block %"
		PRIu64 ", size %" PRIu64, f->w->name, g->ino, g->data_end,
		size);
	note_inode(f, FIX_SIZE,
		   min_u64(g->data_end, COWFS_FILE_BLOCKS_MAX - 1) *
			   COWFS_BLOCK_SIZE);
}

static void end_other(struct files *f, uint32_t type, uint64_t size)
{
	struct group *g = &f->g;
	struct check *c = f->w->c;

	if (type == S_IFLNK) {
		end_inline(f, size, COWFS_SYMLINK_MAX);
		if (size == 0)
			problem(c, P_INODE_SIZE, "%s: symlink %" PRIu64
				" is empty", f->w->name, g->ino);
		/* Half a target leads somewhere else. */
		if (size == 0 || size > COWFS_SYMLINK_MAX || g->inline_odd ||
		    g->inline_len != size || g->next_lblk)
			note_inode(f, FIX_DEL_ALL, 0);
		return;
	}
	if (g->inline_items || g->next_lblk) {
		problem(c, P_INODE_BAD, "%s: inode %" PRIu64 ": contents, but "
			"no regular file", f->w->name, g->ino);
		drop_type(f, COWFS_KEY_INLINE);
		drop_type(f, COWFS_KEY_EXTENT);
	}
	if (size == g->entries)
		return;
	problem(c, P_INODE_SIZE, "%s: inode %" PRIu64 " has %" PRIu64 ", %"
		PRIu64 " entries", f->w->name, g->ino, size, g->entries);
	note_inode(f, FIX_SIZE, type == S_IFDIR ? g->entries : 0);
}

/* Entries as many as its size says, and nothing else: it is the mode that is
 * wrong. */
static bool was_directory(const struct group *g)
{
	return (from_le32(g->d.mode) & S_IFMT) != S_IFDIR && g->entries &&
	       from_le64(g->d.size) == g->entries && !g->inline_items &&
	       !g->next_lblk && !(from_le32(g->d.flags) & COWFS_INODE_INLINE);
}

static void make_directory(struct files *f)
{
	uint32_t mode = from_le32(f->g.d.mode);
	struct ino_rec *rec = f->inodes.at;

	problem(f->w->c, P_INODE_BAD, "%s: inode %" PRIu64 " has the entries "
		"of a directory, but mode %o", f->w->name, f->g.ino, mode);
	mode = S_IFDIR | (mode & 07777);
	note_inode(f, FIX_MODE, mode);
	f->g.d.mode = to_le32(mode);
	rec[f->inodes.n - 1].type = DT_DIR;
}

static void end_group(struct files *f)
{
	struct group *g = &f->g;
	uint64_t size = from_le64(g->d.size);
	uint32_t type;

	if (!f->open || f->w->lost)
		return;
	if (!g->have) {
		if (!g->bad)
			fix_missing(f);
		return;
	}
	end_values(f);
	if (was_directory(g))
		make_directory(f);
	type = from_le32(g->d.mode) & S_IFMT;
	if (type == S_IFREG)
		end_file(f, size);
	else
		end_other(f, type, size);
	if (type != S_IFDIR && g->entries) {
		problem(f->w->c, P_DIRENT_BAD, "%s: inode %" PRIu64
			" has entries, but is no directory", f->w->name,
			g->ino);
		drop_type(f, COWFS_KEY_DIRENT);
	}
	if (from_le64(g->d.blocks) == g->mapped)
		return;
	problem(f->w->c, P_INODE_BLOCKS, "%s: inode %" PRIu64 " has %" PRIu64
		", %" PRIu64 " are mapped", f->w->name, g->ino,
		from_le64(g->d.blocks), g->mapped);
	note_inode(f, FIX_BLOCKS, g->mapped);
}

/* ---- items ---- */

static void begin_group(struct files *f, uint64_t ino)
{
	struct array values = f->g.values, names = f->g.names;

	if (f->open && f->g.ino == ino)
		return;
	end_group(f);
	values.n = 0;
	names.n = 0;
	f->g = (struct group){ .ino = ino, .values = values, .names = names };
	f->open = true;
}

static int take_inode(struct files *f, const struct key *k,
		      const struct item *it)
{
	struct check *c = f->w->c;
	struct ino_rec *rec;

	if (inode_sane(c, k, it)) {
		f->g.missing = true; /* not reported again */
		f->g.bad = k->off == 0;
		return 0;
	}
	memcpy(&f->g.d, it->data, sizeof(f->g.d));
	f->g.have = true;
	rec = array_add(&f->inodes, sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->ino = k->obj;
	rec->parent = from_le64(f->g.d.parent);
	rec->nlink = from_le32(f->g.d.nlink);
	rec->type = (uint8_t)((from_le32(f->g.d.mode) & S_IFMT) >> 12);
	if (f->w->is_live) {
		c->res.inodes++;
		c->res.dirs += rec->type == DT_DIR;
	}
	return 0;
}

/* Is the name among those of the same hash? If not, add it to them. */
static int note_name(struct files *f, const struct key *k, const void *name,
		     size_t len, bool *twice)
{
	struct group *g = &f->g;
	const uint8_t *at = g->names.at;
	size_t i = 0;
	uint8_t *to;

	*twice = false;
	if (g->hash != k->off >> 8 || g->hash_type != k->type)
		g->names.n = 0;
	g->hash = k->off >> 8;
	g->hash_type = k->type;
	while (i < g->names.n) {
		if (at[i] == len && memcmp(at + i + 1, name, len) == 0)
			*twice = true;
		i += at[i] + (size_t)1;
	}
	for (size_t j = 0; j <= len; j++) {
		to = array_add(&g->names, 1);
		if (!to)
			return -ENOMEM;
		*to = j ? ((const uint8_t *)name)[j - 1] : (uint8_t)len;
	}
	return 0;
}

static int take_dirent(struct files *f, const struct key *k,
		       const struct item *it)
{
	const struct cowfs_disk_dirent *d = it->data;
	size_t len = it->len - sizeof(*d);
	char name[QUOTED_MAX];
	struct link_rec *rec;
	bool twice;
	int err;

	f->g.entries++;
	if (dirent_sane(f->w->c, k, it))
		return 0;
	err = note_name(f, k, d + 1, len, &twice);
	if (err)
		return err;
	if (twice) {
		problem(f->w->c, P_DIRENT_BAD, "%s: inode %" PRIu64
			", entry %s is there twice", f->w->name, k->obj,
			quoted(name, d + 1, len));
		fix_note(f->w, FIX_DEL_NAME, *k, 0);
	}
	rec = array_add(&f->links, sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->ino = from_le64(d->ino);
	rec->dir = k->obj;
	rec->slot = k->off;
	rec->type = d->type;
	return 0;
}

static int take_xattr(struct files *f, const struct key *k,
		      const struct item *it)
{
	const struct cowfs_disk_xattr *d = it->data;
	uint32_t max = COWFS_XATTR_INLINE(f->w->c->node_size);
	struct value *v;
	bool twice;
	int err;

	if (xattr_sane(f->w->c, k, it))
		return 0;
	err = note_name(f, k, d + 1, d->name_len, &twice);
	if (err)
		return err;
	if (twice || (from_le32(d->value_len) > max) != d->external) {
		problem(f->w->c, P_XATTR_BAD, "%s: inode %" PRIu64 ", xattr %"
			PRIx64 ": %s", f->w->name, k->obj, k->off,
			twice ? "its name is there twice" :
				"value is not where it should be");
		fix_note(f->w, FIX_DEL, *k, 0);
	}
	if (!d->external)
		return 0;
	v = array_add(&f->g.values, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->id = from_le32(d->value_id);
	v->len = from_le32(d->value_len);
	v->slot = k->off;
	return 0;
}

static int by_id(const void *a, const void *b)
{
	const struct value *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* The first value with that id; the number of values: there is none. An inode
 * may have any number of both. */
static size_t find_value(struct group *g, uint64_t id)
{
	const struct value *v = g->values.at;
	size_t lo = 0, hi = g->values.n;

	if (!g->sorted && hi)
		qsort(g->values.at, hi, sizeof(*v), by_id);
	g->sorted = true;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid].id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < g->values.n && v[lo].id == id ? lo : g->values.n;
}

/* The next piece of a large value: all but the last are of full length. */
static void take_value(struct files *f, const struct key *k,
		       const struct item *it)
{
	uint32_t max = COWFS_XATTR_INLINE(f->w->c->node_size);
	struct value *v = f->g.values.at;
	uint64_t id = k->off >> 16, piece = k->off & 0xffff;
	size_t i = find_value(&f->g, id);
	bool fits = false;

	for (size_t j = i; j < f->g.values.n && v[j].id == id &&
			   j < i + SHARED_VALUES_MAX; j++) {
		if (v[j].got != piece * max ||
		    it->len != min_u64(max, v[j].len - v[j].got))
			continue;
		v[j].got += it->len;
		fits = true;
	}
	if (fits)
		return;
	problem(f->w->c, P_XATTR_BAD, "%s: inode %" PRIu64 ": piece %" PRIu64
		" of value %" PRIu64 " of %u bytes %s", f->w->name, k->obj,
		piece, id, it->len,
		i < f->g.values.n ? "does not fit" : "belongs to no xattr");
	if (f->g.have && !f->w->lost)
		fix_note(f->w, FIX_DEL, *k, 0);
}

static void take_inline(struct files *f, const struct key *k,
			const struct item *it)
{
	struct group *g = &f->g;

	if (k->off != g->inline_items || g->inline_short || it->len == 0) {
		problem(f->w->c, P_INLINE_BAD, "%s: inode %" PRIu64
			": inline piece %" PRIu64 " of %u bytes", f->w->name,
			k->obj, k->off, it->len);
		g->inline_odd = true;
	}
	g->inline_items++;
	g->inline_len += it->len;
	g->inline_short = it->len != COWFS_ITEM_MAX(f->w->c->node_size);
}

static void take_extent(struct files *f, const struct key *k,
			const struct item *it)
{
	struct group *g = &f->g;
	struct extent_rec e;

	if (extent_parse(f->w->c, k, it, &e))
		return;
	if (e.lblk < g->next_lblk) {
		problem(f->w->c, P_EXTENT_OVERLAP, "%s: inode %" PRIu64
			": extent at block %" PRIu64 ", the one before ends at "
			"%" PRIu64, f->w->name, k->obj, e.lblk, g->next_lblk);
		fix_note(f->w, FIX_DEL, *k, 0);
	}
	g->mapped += e.len;
	g->next_lblk = max_u64(g->next_lblk, e.lblk + e.len);
	if (e.kind == COWFS_EXTENT_DATA)
		g->data_end = max_u64(g->data_end, e.lblk + e.len);
}

static int take_orphan(struct files *f, const struct key *k)
{
	uint64_t *ino;

	if (k->obj != 0)
		return 0;
	ino = array_add(&f->orphans, sizeof(*ino));
	if (!ino)
		return -ENOMEM;
	*ino = k->off;
	return 0;
}

static int take(struct files *f, const struct key *k, const struct item *it)
{
	if (k->type == COWFS_KEY_ORPHAN)
		return take_orphan(f, k);
	begin_group(f, k->obj);
	if (k->type == COWFS_KEY_INODE)
		return take_inode(f, k, it);
	if (!f->g.have && !f->g.missing && !f->w->lost) {
		f->g.missing = true;
		problem(f->w->c, P_INODE_MISSING, "%s: inode %" PRIu64
			", key type 0x%02x", f->w->name, k->obj, k->type);
	}
	switch (k->type) {
	case COWFS_KEY_XATTR:
		return take_xattr(f, k, it);
	case COWFS_KEY_DIRENT:
		return take_dirent(f, k, it);
	case COWFS_KEY_XATTR_DATA:
		take_value(f, k, it);
		break;
	case COWFS_KEY_INLINE:
		take_inline(f, k, it);
		break;
	case COWFS_KEY_EXTENT:
		take_extent(f, k, it);
		break;
	default: /* reported by items_check */
		break;
	}
	return 0;
}

int files_leaf(struct walk *w, const void *node)
{
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, w->c->node_size);

		err = take(w->arg, &k, &it);
	}
	return err;
}

int files_finish(struct files *f)
{
	if (f->w->c->stop)
		return 0;
	end_group(f);
	f->open = false;
	if (!f->w->lost)
		links_check(f->w, &f->inodes, &f->links, &f->orphans);
	return 0;
}
