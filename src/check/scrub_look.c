/*
 * scrub_look.c - single paths of a file tree, for the report of a scrub
 *
 * The tree may be damaged: what can't be read is left out, and said so.
 */
#include <sys/stat.h>

#include "check/scrub.h"

/* Deeper directories than this are a loop. */
#define DEPTH_MAX 4096u

static bool read_copy(struct look *l, const struct nptr *p, uint64_t blk,
		      void *buf)
{
	struct check *c = l->c;
	struct copies at = { .a = blk };
	struct copies_read r;

	return !read_copies(c, at, c->node_blocks, &p->csum, true, false, buf,
			    &r) &&
	       !r.bad && !c->stop;
}

/* The node into the buffer of its level, where it may be still. */
static bool read_one(struct look *l, const struct nptr *p)
{
	struct check *c = l->c;
	void *buf = c->node[p->level];
	char why[128];
	bool good;

	if (l->at[p->level] == p->blk)
		return true;
	l->at[p->level] = 0;
	if (p->gen > c->gen ||
	    !in_device(c, p->blk, c->node_blocks) ||
	    (p->blk2 && !in_device(c, p->blk2, c->node_blocks)))
		return false;
	good = read_copy(l, p, p->blk, buf) ||
	       (!c->stop && p->blk2 && read_copy(l, p, p->blk2, buf));
	if (!good || node_verify(buf, c->node_size, p, COWFS_ROOT_FS,
				 c->super.uuid, NULL, NULL, why, sizeof(why)))
		return false;
	l->at[p->level] = p->blk;
	return true;
}

struct range {
	struct key lo, hi;
	look_fn *fn;
	void *arg;
};

static int leaf_range(struct look *l, const void *node, const struct range *r)
{
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err; i++) {
		struct key k = node_key(node, i);
		struct item it;

		if (key_cmp(&k, &r->lo) < 0)
			continue;
		if (key_cmp(&k, &r->hi) > 0)
			break;
		it = node_item(node, i, l->c->node_size);
		err = r->fn(r->arg, &k, &it);
	}
	return err;
}

static int subtree_range(struct look *l, const struct nptr *p,
			 const struct range *r)
{
	void *node = l->c->node[p->level];
	unsigned n;
	int err = 0;

	if (!read_one(l, p)) {
		l->damaged = true;
		return 0;
	}
	if (!p->level)
		return leaf_range(l, node, r);
	n = node_count(node);
	for (unsigned i = 0; i < n && !err && !l->c->stop; i++) {
		struct nptr child = node_child(node, i);
		struct key k = node_key(node, i), next;

		if (key_cmp(&k, &r->hi) > 0)
			break;
		if (i + 1 < n) {
			next = node_key(node, i + 1);
			if (key_cmp(&next, &r->lo) <= 0)
				continue;
		}
		if (child.level + 1u != p->level || child.gen > p->gen) {
			l->damaged = true;
			continue;
		}
		err = subtree_range(l, &child, r);
	}
	return err;
}

int look_range(struct look *l, const struct nptr *root, struct key lo,
	       struct key hi, look_fn *fn, void *arg)
{
	struct range r = { .lo = lo, .hi = hi, .fn = fn, .arg = arg };

	if (!root->blk)
		return 0;
	if (root->level > COWFS_MAX_LEVEL) {
		l->damaged = true;
		return 0;
	}
	return subtree_range(l, root, &r);
}

/* The last child that does not begin behind k. */
static unsigned child_for(const void *node, const struct key *k)
{
	unsigned lo = 0, hi = node_count(node);

	while (hi - lo > 1) {
		unsigned mid = lo + (hi - lo) / 2;
		struct key m = node_key(node, mid);

		if (key_cmp(&m, k) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

bool look_node(struct look *l, const struct nptr *root, struct key k,
	       unsigned level, struct nptr *out)
{
	struct nptr p = *root;

	if (!p.blk || p.level > COWFS_MAX_LEVEL || p.level < level)
		return false;
	while (p.level > level) {
		void *node = l->c->node[p.level];
		struct nptr child;

		if (!read_one(l, &p) || !node_count(node)) {
			l->damaged = true;
			return false;
		}
		child = node_child(node, child_for(node, &k));
		if (child.level + 1u != p.level || child.gen > p.gen)
			return false;
		p = child;
	}
	*out = p;
	return true;
}

/* ---- inodes and names ---- */

static int take_inode(void *arg, const struct key *k, const struct item *it)
{
	const struct cowfs_disk_inode *d = it->data;
	struct look_inode *out = arg;

	(void)k;
	if (it->len != sizeof(*d))
		return 0;
	out->found = true;
	out->mode = from_le32(d->mode);
	out->parent = from_le64(d->parent);
	return 0;
}

int look_inode(struct look *l, const struct nptr *root, uint64_t ino,
	       struct look_inode *out)
{
	struct key k = KEY(ino, COWFS_KEY_INODE, 0);

	*out = (struct look_inode){ 0 };
	return look_range(l, root, k, k, take_inode, out);
}

struct names {
	uint64_t ino;
	look_name_fn *fn;
	void *arg;
};

static int take_name(void *arg, const struct key *k, const struct item *it)
{
	const struct cowfs_disk_dirent *d = it->data;
	struct names *n = arg;

	(void)k;
	if (it->len <= sizeof(*d) || it->len - sizeof(*d) > COWFS_NAME_MAX ||
	    from_le64(d->ino) != n->ino)
		return 0;
	return n->fn(n->arg, (const char *)(d + 1), it->len - sizeof(*d));
}

int look_names(struct look *l, const struct nptr *root, uint64_t dir,
	       uint64_t ino, look_name_fn *fn, void *arg)
{
	struct names n = { .ino = ino, .fn = fn, .arg = arg };

	return look_range(l, root, KEY(dir, COWFS_KEY_DIRENT, 0),
			  KEY(dir, COWFS_KEY_DIRENT, UINT64_MAX), take_name,
			  &n);
}

static void prepend(char *path, const char *s, size_t n, bool cut)
{
	size_t len = strlen(path), room = TEXT_MAX - len;

	if (n > room) {
		s += n - room;
		n = room;
		cut = true;
	}
	memmove(path + n, path, len + 1);
	memcpy(path, s, n);
	if (cut && len + n >= 3)
		memcpy(path, "...", 3);
}

void look_join(char *path, const char *dir, const char *name, size_t len)
{
	path[0] = '\0';
	prepend(path, name, len, false);
	prepend(path, "/", 1, false);
	prepend(path, dir, strlen(dir), false);
}

/* Puts "/name" before the path so far, and ends the search. */
static int put_name(void *arg, const char *name, size_t len)
{
	char *path = arg;

	prepend(path, name, len, false);
	prepend(path, "/", 1, false);
	return 1;
}

bool look_dir_path(struct look *l, const struct nptr *root, uint64_t dir,
		   char *buf)
{
	struct look_inode in;

	buf[0] = '\0';
	for (unsigned i = 0; i < DEPTH_MAX; i++) {
		if (dir == COWFS_INO_ROOT)
			return true;
		if (strlen(buf) == TEXT_MAX)
			return true; /* its beginning is lost anyway */
		if (look_inode(l, root, dir, &in) || !in.found ||
		    !S_ISDIR(in.mode))
			return false;
		if (look_names(l, root, in.parent, dir, put_name, buf) != 1)
			return false;
		dir = in.parent;
	}
	return false;
}
