/*
 * links.c - a file tree as a whole: who names whom, and is all below the root?
 *
 * Works on three arrays in memory, collected while the tree passed by: inodes
 * in order of their numbers, links (entries), orphans.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "check/private.h"

enum state { ST_NEW, ST_ON_THE_WAY, ST_BELOW_ROOT };

struct links {
	struct walk *w;
	struct ino_rec *ino;
	struct link_rec *link;
	size_t inodes, links;
};

static int by_target(const void *a, const void *b)
{
	const struct link_rec *x = a, *y = b;

	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->dir < y->dir ? -1 : x->dir > y->dir;
}

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static int by_ino(const void *key, const void *rec)
{
	const uint64_t *x = key;
	const struct ino_rec *y = rec;

	return *x < y->ino ? -1 : *x > y->ino;
}

static struct ino_rec *find(const struct links *l, uint64_t ino)
{
	if (!l->inodes)
		return NULL;
	return bsearch(&ino, l->ino, l->inodes, sizeof(*l->ino), by_ino);
}

static void fix_entry(const struct links *l, enum fix_kind kind,
		      const struct link_rec *link, uint64_t arg)
{
	fix_note(l->w, kind, KEY(link->dir, COWFS_KEY_DIRENT, link->slot), arg);
}

static void fix_number(const struct links *l, enum fix_kind kind, uint64_t ino,
		       uint64_t arg)
{
	fix_note(l->w, kind, KEY(ino, COWFS_KEY_INODE, 0), arg);
}

/* One name of a directory stays: where it says that it is, if there. */
static void fix_twice(const struct links *l, const struct ino_rec *dir,
		      const struct link_rec *link, size_t n)
{
	size_t stays = dir->ino == COWFS_INO_ROOT ? n : 0;

	for (size_t i = 0; i < n && stays < n; i++)
		if (link[i].dir == dir->parent)
			stays = i;
	for (size_t i = 0; i < n; i++)
		if (i != stays)
			fix_entry(l, FIX_DEL_NAME, &link[i], 0);
}

/* Without a parent that can be a mount refuses it. */
static void root_parent(const struct links *l, const struct ino_rec *root)
{
	if (root->parent == COWFS_INO_ROOT)
		return;
	problem(l->w->c, P_INODE_PARENT, "%s: the root directory says %" PRIu64,
		l->w->name, root->parent);
	fix_number(l, FIX_PARENT, root->ino, COWFS_INO_ROOT);
}

/* The entries that name a directory: one, and none the root. */
static void dir_links(const struct links *l, struct ino_rec *dir,
		      const struct link_rec *link, size_t n)
{
	struct check *c = l->w->c;
	size_t want = dir->ino == COWFS_INO_ROOT ? 0 : 1;
	struct ino_rec *up;

	for (size_t i = 0; i < n; i++) {
		up = find(l, link[i].dir);
		if (up)
			up->subdirs++;
	}
	if (n > want) {
		problem(c, P_DIR_LINKED_TWICE, "%s: directory %" PRIu64
			" has %zu entries", l->w->name, dir->ino, n);
		fix_twice(l, dir, link, n);
	}
	if (dir->ino == COWFS_INO_ROOT)
		root_parent(l, dir);
	if (n == 0 || dir->ino == COWFS_INO_ROOT)
		return;
	dir->linked = true;
	if (dir->parent != link[0].dir) {
		problem(c, P_INODE_PARENT, "%s: directory %" PRIu64
			" says %" PRIu64 ", its entry is in %" PRIu64,
			l->w->name, dir->ino, dir->parent, link[0].dir);
		if (n == 1)
			fix_number(l, FIX_PARENT, dir->ino, link[0].dir);
	}
	dir->parent = link[0].dir;
}

/* All entries that name one inode. */
static void inode_links(const struct links *l, struct ino_rec *in,
			const struct link_rec *link, size_t n)
{
	struct check *c = l->w->c;

	for (size_t i = 0; i < n; i++) {
		if (link[i].type == in->type)
			continue;
		problem(c, P_DIRENT_TYPE, "%s: entry of inode %" PRIu64
			" in %" PRIu64 " says type %u, not %u", l->w->name,
			in->ino, link[i].dir, link[i].type, in->type);
		fix_entry(l, FIX_TYPE, &link[i], in->type);
	}
	if (in->type == DT_DIR)
		dir_links(l, in, link, n);
	if (n == 0 && in->nlink && in->ino != COWFS_INO_ROOT) {
		problem(c, P_INODE_UNLINKED, "%s: inode %" PRIu64,
			l->w->name, in->ino);
		fix_number(l, FIX_ADOPT, in->ino, in->type);
	} else if (in->type != DT_DIR && in->nlink != n) {
		problem(c, P_INODE_NLINK, "%s: inode %" PRIu64 " has %u, %zu "
			"entries name it", l->w->name, in->ino, in->nlink, n);
		fix_number(l, FIX_NLINK, in->ino, n);
	}
}

static void dangling(const struct links *l, const struct link_rec *link)
{
	problem(l->w->c, P_DIRENT_DANGLING, "%s: entry in %" PRIu64
		" names inode %" PRIu64, l->w->name, link->dir, link->ino);
	if (!l->w->makes)
		fix_entry(l, FIX_DEL_NAME, link, link->ino);
}

/* Merge: both arrays are in order of inode numbers. */
static void match_links(const struct links *l)
{
	size_t at = 0;

	for (size_t i = 0; i < l->inodes && !l->w->c->stop; i++) {
		uint64_t ino = l->ino[i].ino;
		size_t from;

		for (; at < l->links && l->link[at].ino < ino; at++)
			dangling(l, &l->link[at]);
		from = at;
		while (at < l->links && l->link[at].ino == ino)
			at++;
		inode_links(l, &l->ino[i], l->links ? &l->link[from] : NULL,
			    at - from);
	}
	for (; at < l->links && !l->w->c->stop; at++)
		dangling(l, &l->link[at]);
}

/*
 * A directory that was removed is empty, and the root never is removed: letting
 * go of such an orphan would take names of what is still there.
 */
static void lively_orphans(const struct links *l)
{
	struct ino_rec *dir;
	bool any = false;

	for (size_t i = 0; i < l->inodes && !any; i++)
		any = l->ino[i].type == DT_DIR && l->ino[i].nlink == 0;
	for (size_t i = 0; i < l->links && any; i++) {
		dir = find(l, l->link[i].dir);
		if (!dir || dir->type != DT_DIR || dir->nlink)
			continue;
		problem(l->w->c, P_ORPHAN_BAD, "%s: directory %" PRIu64
			" has no links, but entries", l->w->name, dir->ino);
		dir->nlink = 2 + dir->subdirs; /* said once */
		fix_number(l, FIX_NLINK, dir->ino, dir->nlink);
	}
	dir = find(l, COWFS_INO_ROOT);
	if (dir && dir->type == DT_DIR && dir->nlink == 0) {
		problem(l->w->c, P_ORPHAN_BAD, "%s: the root directory has no "
			"links", l->w->name);
		dir->nlink = 2 + dir->subdirs;
		fix_number(l, FIX_NLINK, dir->ino, dir->nlink);
	}
}

/* A directory's count is 2 and one per subdirectory; 0 once removed. */
static void dir_counts(const struct links *l)
{
	for (size_t i = 0; i < l->inodes && !l->w->c->stop; i++) {
		const struct ino_rec *in = &l->ino[i];

		if (in->type != DT_DIR || (in->nlink == 0 && !in->linked))
			continue;
		if (in->nlink == UINT64_C(2) + in->subdirs)
			continue;
		problem(l->w->c, P_INODE_NLINK, "%s: directory %" PRIu64
			" has %u, and %u subdirectories", l->w->name, in->ino,
			in->nlink, in->subdirs);
		fix_number(l, FIX_NLINK, in->ino, UINT64_C(2) + in->subdirs);
	}
}

/* Out of the loop: whatever names it does so no more. */
static void fix_loop(const struct links *l, const struct ino_rec *dir)
{
	size_t lo = 0, hi = l->links;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (l->link[mid].ino < dir->ino)
			lo = mid + 1;
		else
			hi = mid;
	}
	for (; lo < l->links && l->link[lo].ino == dir->ino; lo++)
		fix_entry(l, FIX_DEL_NAME, &l->link[lo], 0);
}

/* Go up from dir until something known is met; what was passed is known
 * then. A directory without a name ends it, too: that was reported. */
static void climb(const struct links *l, struct ino_rec *dir)
{
	struct ino_rec *at = dir;

	while (at && at->state == ST_NEW && at->ino != COWFS_INO_ROOT) {
		at->state = ST_ON_THE_WAY;
		at = at->linked ? find(l, at->parent) : NULL;
	}
	if (at && at->state == ST_ON_THE_WAY) {
		problem(l->w->c, P_DIR_LOOP, "%s: directory %" PRIu64,
			l->w->name, at->ino);
		fix_loop(l, at);
	}
	for (at = dir; at && at->state == ST_ON_THE_WAY;) {
		at->state = ST_BELOW_ROOT;
		at = find(l, at->parent);
	}
}

static void find_loops(const struct links *l)
{
	for (size_t i = 0; i < l->inodes && !l->w->c->stop; i++)
		if (l->ino[i].type == DT_DIR && l->ino[i].linked)
			climb(l, &l->ino[i]);
}

#define NOT_THERE "listed, but not there"

static void orphan_bad(const struct links *l, uint64_t ino, bool listed,
		       const char *why)
{
	if (listed)
		fix_note(l->w, FIX_DEL_NAME, KEY(0, COWFS_KEY_ORPHAN, ino), 0);
	else
		fix_number(l, FIX_ORPHAN, ino, 0);
	problem(l->w->c, P_ORPHAN_BAD, "%s: inode %" PRIu64 ": %s",
		l->w->name, ino, why);
}

/* ORPHAN records are there for exactly the inodes with no link. */
static void match_orphans(const struct links *l, const uint64_t *orphan,
			  size_t n)
{
	size_t at = 0;

	for (size_t i = 0; i < l->inodes && !l->w->c->stop; i++) {
		const struct ino_rec *in = &l->ino[i];
		bool listed;

		for (; at < n && orphan[at] < in->ino; at++)
			orphan_bad(l, orphan[at], true, NOT_THERE);
		listed = at < n && orphan[at] == in->ino;
		if (listed)
			at++;
		if (listed && in->nlink)
			orphan_bad(l, in->ino, true, "listed, has links");
		if (!listed && in->nlink == 0)
			orphan_bad(l, in->ino, false, "no links, not listed");
	}
	for (; at < n && !l->w->c->stop; at++)
		orphan_bad(l, orphan[at], true, NOT_THERE);
}

void links_check(struct walk *w, struct array *inodes, struct array *links,
		 struct array *orphans)
{
	struct links l = { .w = w, .ino = inodes->at, .link = links->at,
			   .inodes = inodes->n, .links = links->n };
	const struct ino_rec *root = find(&l, COWFS_INO_ROOT);

	if (!root || root->type != DT_DIR) {
		problem(w->c, P_ROOT_MISSING, "%s: %s", w->name,
			root ? "inode 1 is no directory" : "no inode 1");
		if (root)
			fix_number(&l, FIX_DEL_ALL, COWFS_INO_ROOT, 0);
		fix_make(w, COWFS_INO_ROOT, S_IFDIR | 0755, 0, false);
	}
	if (l.links)
		qsort(l.link, l.links, sizeof(*l.link), by_target);
	if (orphans->n)
		qsort(orphans->at, orphans->n, sizeof(uint64_t), by_number);
	match_links(&l);
	lively_orphans(&l);
	dir_counts(&l);
	find_loops(&l);
	match_orphans(&l, orphans->at, orphans->n);
}
