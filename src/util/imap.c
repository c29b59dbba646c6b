/*
 * imap.c - intervals of numbers in an AVL tree
 *
 * Pieces are disjoint, so the start alone orders them. A piece's start and
 * length may be changed in place as long as it stays between its neighbours.
 *
 * imap_add first counts what new pieces it can need at most (one for each gap
 * it covers, one for each piece that an end of the range cuts in two) and
 * allocates them; from then on it cannot fail. Inside the range neighbours
 * stay different, because all change by the same amount: only at the two ends
 * can pieces have become equal, and only there they are merged.
 *
 * The tree is balanced whatever the keys are: a hostile image chooses them.
 */
#include <assert.h>
#include <stdlib.h>

#include "util/imap.h"

struct imap_node {
	struct imap_node *left, *right; /* right: also links spare nodes */
	uint64_t start, len;
	int64_t n;
	int height;
};

static uint64_t end_of(const struct imap_node *p)
{
	return p->start + p->len;
}

/* ---- the tree ---- */

static int height(const struct imap_node *p)
{
	return p ? p->height : 0;
}

static void set_height(struct imap_node *p)
{
	int l = height(p->left), r = height(p->right);

	p->height = (l > r ? l : r) + 1;
}

static struct imap_node *rotate_right(struct imap_node *p)
{
	struct imap_node *q = p->left;

	p->left = q->right;
	q->right = p;
	set_height(p);
	set_height(q);
	return q;
}

static struct imap_node *rotate_left(struct imap_node *p)
{
	struct imap_node *q = p->right;

	p->right = q->left;
	q->left = p;
	set_height(p);
	set_height(q);
	return q;
}

static struct imap_node *balance(struct imap_node *p)
{
	int diff = height(p->left) - height(p->right);

	if (diff > 1) {
		if (height(p->left->left) < height(p->left->right))
			p->left = rotate_left(p->left);
		return rotate_right(p);
	}
	if (diff < -1) {
		if (height(p->right->right) < height(p->right->left))
			p->right = rotate_right(p->right);
		return rotate_left(p);
	}
	set_height(p);
	return p;
}

static struct imap_node *insert(struct imap_node *p, struct imap_node *new)
{
	if (!p) {
		new->left = NULL;
		new->right = NULL;
		new->height = 1;
		return new;
	}
	if (new->start < p->start)
		p->left = insert(p->left, new);
	else
		p->right = insert(p->right, new);
	return balance(p);
}

static struct imap_node *take_first(struct imap_node *p,
				    struct imap_node **first)
{
	if (!p->left) {
		*first = p;
		return p->right;
	}
	p->left = take_first(p->left, first);
	return balance(p);
}

/* Take `old`, which is in the tree p, out of it. */
static struct imap_node *take_out(struct imap_node *p, struct imap_node *old)
{
	struct imap_node *next, *rest;

	if (old->start < p->start) {
		p->left = take_out(p->left, old);
		return balance(p);
	}
	if (old->start > p->start) {
		p->right = take_out(p->right, old);
		return balance(p);
	}
	if (!p->right)
		return p->left;
	rest = take_first(p->right, &next);
	next->left = p->left;
	next->right = rest;
	return balance(next);
}

/* Last piece with start <= at. */
static struct imap_node *find_floor(const struct imap *m, uint64_t at)
{
	struct imap_node *p = m->root, *best = NULL;

	while (p) {
		if (p->start <= at) {
			best = p;
			p = p->right;
		} else {
			p = p->left;
		}
	}
	return best;
}

/* First piece with start >= at. */
static struct imap_node *find_ceil(const struct imap *m, uint64_t at)
{
	struct imap_node *p = m->root, *best = NULL;

	while (p) {
		if (p->start >= at) {
			best = p;
			p = p->left;
		} else {
			p = p->right;
		}
	}
	return best;
}

/* The piece that `at` lies in, or the first one after it. */
static struct imap_node *find_next(const struct imap *m, uint64_t at)
{
	struct imap_node *p = find_floor(m, at);

	if (p && end_of(p) > at)
		return p;
	return find_ceil(m, at);
}

/* ---- spare nodes ---- */

static struct imap_node *spare_take(struct imap_node **spare)
{
	struct imap_node *p = *spare;

	assert(p);
	*spare = p->right;
	return p;
}

static void spare_put(struct imap_node **spare, struct imap_node *p)
{
	p->right = *spare;
	*spare = p;
}

static void spare_free(struct imap_node *spare)
{
	struct imap_node *next;

	for (; spare; spare = next) {
		next = spare->right;
		free(spare);
	}
}

static int spare_fill(struct imap_node **spare, size_t count)
{
	struct imap_node *p;

	while (count-- > 0) {
		p = malloc(sizeof(*p));
		if (!p) {
			spare_free(*spare);
			*spare = NULL;
			return -ENOMEM;
		}
		spare_put(spare, p);
	}
	return 0;
}

/* ---- changing it ---- */

static void add_piece(struct imap *m, struct imap_node **spare, uint64_t start,
		      uint64_t len, int64_t n)
{
	struct imap_node *p = spare_take(spare);

	p->start = start;
	p->len = len;
	p->n = n;
	m->root = insert(m->root, p);
	m->count++;
}

static void drop_piece(struct imap *m, struct imap_node **spare,
		       struct imap_node *p)
{
	m->root = take_out(m->root, p);
	m->count--;
	spare_put(spare, p);
}

/* The piece that `at` lies strictly inside of, if any. */
static struct imap_node *find_cut(const struct imap *m, uint64_t at)
{
	struct imap_node *p = find_floor(m, at);

	return p && p->start < at && end_of(p) > at ? p : NULL;
}

static void split(struct imap *m, struct imap_node **spare, uint64_t at)
{
	struct imap_node *p = find_cut(m, at);
	uint64_t end;

	if (!p)
		return;
	end = end_of(p);
	p->len = at - p->start;
	add_piece(m, spare, at, end - at, p->n);
}

/* Merge the pieces that meet at `at` if they are equal. */
static void merge(struct imap *m, struct imap_node **spare, uint64_t at)
{
	struct imap_node *l, *r = find_floor(m, at);

	if (at == 0 || !r || r->start != at)
		return;
	l = find_floor(m, at - 1);
	if (!l || end_of(l) != at || l->n != r->n)
		return;
	l->len += r->len;
	drop_piece(m, spare, r);
}

/* New pieces that adding to [start, end) can need. */
static size_t pieces_needed(const struct imap *m, uint64_t start, uint64_t end)
{
	size_t need = (find_cut(m, start) ? 1u : 0u) +
		      (find_cut(m, end) ? 1u : 0u);
	const struct imap_node *p;
	uint64_t at = start;

	while (at < end) {
		p = find_next(m, at);
		if (!p || p->start > at)
			need++;
		if (!p || p->start >= end)
			break;
		at = end_of(p);
	}
	return need;
}

/* Add n to [start, end), at whose ends no piece is cut. */
static void add_all(struct imap *m, struct imap_node **spare, uint64_t start,
		    uint64_t end, int64_t n)
{
	struct imap_node *p;
	uint64_t at = start, stop;

	while (at < end) {
		p = find_next(m, at);
		stop = p && p->start < end ? p->start : end;
		if (stop > at) {
			add_piece(m, spare, at, stop - at, n);
			at = stop;
			continue;
		}
		at = end_of(p);
		if (__builtin_add_overflow(p->n, n, &p->n))
			abort(); /* more references than there are bytes */
		if (p->n == 0)
			drop_piece(m, spare, p);
	}
}

void imap_init(struct imap *m)
{
	m->root = NULL;
	m->count = 0;
}

static void free_tree(struct imap_node *p)
{
	if (p) {
		free_tree(p->left); /* as deep as the tree is high */
		free_tree(p->right);
		free(p);
	}
}

void imap_clear(struct imap *m)
{
	free_tree(m->root);
	imap_init(m);
}

int imap_add(struct imap *m, uint64_t start, uint64_t len, int64_t n)
{
	struct imap_node *spare = NULL;
	uint64_t end = start + len;
	int err;

	assert(len <= UINT64_MAX - start);
	if (n == 0 || len == 0)
		return 0;
	err = spare_fill(&spare, pieces_needed(m, start, end));
	if (err)
		return err;
	split(m, &spare, start);
	split(m, &spare, end);
	add_all(m, &spare, start, end, n);
	merge(m, &spare, start);
	merge(m, &spare, end);
	spare_free(spare);
	return 0;
}

void imap_get(const struct imap *m, uint64_t at, struct ival *out)
{
	const struct imap_node *p = find_next(m, at);

	out->start = at;
	if (p && p->start <= at) {
		out->len = end_of(p) - at;
		out->n = p->n;
	} else {
		out->len = (p ? p->start : UINT64_MAX) - at;
		out->n = 0;
	}
}

bool imap_next(const struct imap *m, uint64_t at, struct ival *out)
{
	const struct imap_node *p = find_next(m, at);

	if (!p)
		return false;
	out->start = p->start;
	out->len = p->len;
	out->n = p->n;
	return true;
}

void imap_move(struct imap *to, struct imap *from)
{
	assert(!to->root);
	*to = *from;
	imap_init(from);
}
