/*
 * repair_fix.c - notes of what would put right what check finds wrong
 */
#include "check/private.h"

static struct fix *add(struct fixes *f)
{
	size_t room = f->room ? f->room * 2 : 256;
	struct fix *at;

	if (f->n == FIXES_MAX) {
		f->overflow = true;
		return NULL;
	}
	if (f->n == f->room) {
		at = realloc(f->at, room * sizeof(*at));
		if (!at) {
			f->nomem = true;
			return NULL;
		}
		f->at = at;
		f->room = room;
	}
	return &f->at[f->n++];
}

void fix_note(struct walk *w, enum fix_kind kind, struct key key, uint64_t arg)
{
	struct fix *fix;

	if (!w->c->fix || w->tree == TREE_OTHER)
		return;
	w->makes |= kind == FIX_INODE;
	fix = add(w->c->fix);
	if (fix)
		*fix = (struct fix){ .tree = w->tree, .key = key, .arg = arg,
				     .kind = (uint8_t)kind };
}

void fix_make(struct walk *w, uint64_t ino, uint32_t mode, uint64_t size,
	      bool in_line)
{
	struct fix *fix;

	if (!w->c->fix || w->tree == TREE_OTHER)
		return;
	w->makes = true;
	fix = add(w->c->fix);
	if (fix)
		*fix = (struct fix){ .tree = w->tree,
				     .key = KEY(ino, COWFS_KEY_INODE, 0),
				     .arg = mode, .arg2 = size,
				     .arg3 = in_line, .kind = FIX_MAKE };
}

/* The note after a CUT says where its keys end. */
void fix_node(struct walk *w, enum fix_kind kind, const struct nptr *p)
{
	struct fixes *f = w->c->fix;
	size_t n = f ? f->n : 0;

	fix_note(w, kind, w->lo, p->level);
	if (!f || f->n == n)
		return;
	f->at[n].arg2 = p->blk;
	if (kind == FIX_CUT)
		fix_note(w, FIX_CUT_END, w->has_hi ? w->hi : KEY_MAX, 0);
}

static bool is_lost(const struct fixes *f, uint64_t blk, uint32_t len)
{
	size_t lo = 0, hi = f->lost_n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (f->lost[mid] < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < f->lost_n && f->lost[lo] - blk < len;
}

void fix_extent(struct walk *w, const struct extent_rec *e)
{
	const struct fixes *f = w->c->fix;

	if (f && f->lost_n && e->csum && is_lost(f, e->blk, e->len))
		fix_note(w, FIX_PUNCH, KEY(e->ino, COWFS_KEY_EXTENT, e->lblk),
			 0);
}
