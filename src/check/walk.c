/*
 * walk.c - visit every node of a tree, each once, whoever shares it
 *
 * Recursion goes down one level at a time and no deeper than
 * COWFS_MAX_LEVEL; each level has its buffer. A loop is impossible (a node
 * holds its children's checksums), and would end at the second visit.
 */
#include "check/private.h"

struct range {
	struct key lo, hi;
	bool has_hi;
};

static uint64_t fingerprint(const struct nptr *p)
{
	return hash_u64(p->csum ^ hash_u64(p->gen) ^ hash_u64(p->blk2 + 7) ^
			(uint64_t)p->level << 40) >> 20;
}

static bool slot_ok(const struct check *c, uint64_t blk)
{
	return in_device(c, blk, c->node_blocks) &&
	       blk % c->node_blocks == 0;
}

/* Mark the blocks of a second copy, which has one owner: its first copy. */
static int mark_copy(struct walk *w, const struct nptr *p)
{
	struct cell cell;
	bool clash = false;
	int err;

	for (unsigned i = 0; p->blk2 && i < w->c->node_blocks; i++) {
		err = blockmap_cell(&w->c->map, p->blk2 + i, &cell);
		if (err)
			return err;
		if (cell_kind(&cell) == MARK_FREE)
			cell_set(&cell, MARK_COPY, 0);
		else
			clash = true;
	}
	if (clash) {
		problem(w->c, P_OVERLAP, "%s: second copy of node %" PRIu64
			" at %" PRIu64, w->name, p->blk, p->blk2);
		fix_node(w, FIX_MOVE, p);
	}
	return 0;
}

/* All blocks after the first: is each of them of this kind? */
static int body_is(struct check *c, uint64_t blk, enum mark kind, bool *yes)
{
	struct cell cell;
	int err;

	for (unsigned i = 1; i < c->node_blocks; i++) {
		err = blockmap_cell(&c->map, blk + i, &cell);
		if (err)
			return err;
		if (cell_kind(&cell) != kind) {
			*yes = false;
			return 0;
		}
	}
	*yes = true;
	return 0;
}

static int mark_first(struct walk *w, const struct nptr *p)
{
	struct check *c = w->c;
	bool young = w->is_live && p->gen > c->shared_gen;
	enum mark kind = w->kind != COWFS_ROOT_FS ? MARK_NODE_SOLE :
			 young ? MARK_NODE_YOUNG : MARK_NODE;
	struct cell cell;
	int err;

	if (c->opt->node)
		c->opt->node(c->opt->arg, p, c->node_blocks);
	for (unsigned i = 0; i < c->node_blocks; i++) {
		err = blockmap_cell(&c->map, p->blk + i, &cell);
		if (err)
			return err;
		if (i)
			cell_set(&cell, MARK_BODY, 0);
		else
			cell_set(&cell, kind, fingerprint(p));
	}
	return mark_copy(w, p);
}

static int count_again(struct walk *w, const struct nptr *p,
		       const struct cell *head)
{
	struct check *c = w->c;
	struct cell cell;
	int err;

	if (!cell_print_is(head, fingerprint(p))) {
		problem(c, P_NODE_CORRUPT, "%s: pointers to node %" PRIu64
			" disagree", w->name, p->blk);
		fix_node(w, FIX_CUT, p);
	}
	if (c->fix && cell_kind(head) == MARK_NODE_YOUNG)
		c->fix->shared_gen = true;
	if (cell_kind(head) == MARK_NODE_YOUNG)
		problem(c, P_SHARED_GEN, "%s: node %" PRIu64 " of generation %"
			PRIu64 ", shared up to %" PRIu64, w->name, p->blk,
			p->gen, c->shared_gen);
	for (unsigned i = 0; i < c->node_blocks; i++) {
		err = blockmap_cell(&c->map, p->blk + i, &cell);
		if (err)
			return err;
		cell_add(&cell);
	}
	return 0;
}

enum seen { SEEN_FIRST, SEEN_AGAIN, SEEN_BAD };

/* Count one reference to a node. */
static int count_node(struct walk *w, const struct nptr *p, enum seen *seen)
{
	struct check *c = w->c;
	struct cell head;
	enum mark kind;
	bool same;
	int err;

	*seen = SEEN_BAD;
	if (!slot_ok(c, p->blk) || (p->blk2 && !slot_ok(c, p->blk2))) {
		problem(c, P_OUT_OF_DEVICE, "%s: node at %" PRIu64 ", %" PRIu64,
			w->name, p->blk, p->blk2);
		return 0;
	}
	err = blockmap_cell(&c->map, p->blk, &head);
	if (err)
		return err;
	kind = cell_kind(&head);
	err = body_is(c, p->blk, kind == MARK_FREE ? MARK_FREE : MARK_BODY,
		      &same);
	if (err)
		return err;
	if (same && kind == MARK_FREE) {
		*seen = SEEN_FIRST;
		return mark_first(w, p);
	}
	/* A node met again is not looked into: it must be of such a tree. */
	if (same && w->kind == COWFS_ROOT_FS &&
	    (kind == MARK_NODE || kind == MARK_NODE_YOUNG)) {
		*seen = SEEN_AGAIN;
		return count_again(w, p, &head);
	}
	problem(c, P_OVERLAP, "%s: node %" PRIu64, w->name, p->blk);
	return 0;
}

static void lose(struct walk *w, const struct nptr *p)
{
	w->lost = true;
	w->c->lost = true;
	if (w->gone)
		w->gone(w, p);
}

/* Later walks of a scrub: one copy, and the other if that is bad. */
static int read_node(struct check *c, const struct nptr *p, bool mend,
		     void *buf, struct copies_read *r)
{
	struct copies at = { .a = p->blk, .b = p->blk2 }, one = { .a = p->blk };
	int err = 0;

	*r = (struct copies_read){ .bad = 1 };
	if (c->quiet)
		err = read_copies(c, one, c->node_blocks, &p->csum, true,
				  false, buf, r);
	if (err || !r->bad || c->stop || (c->quiet && !p->blk2))
		return err;
	return read_copies(c, at, c->node_blocks, &p->csum, true, mend, buf,
			   r);
}

static void tell_bad(struct walk *w, const struct nptr *p,
		     const struct copies_read *r)
{
	struct check *c = w->c;
	struct check_bad b = {
		.node = true, .lost = r->lost[0] & 1, .copies = r->bad,
		.repaired = r->repaired, .blk = p->blk, .blk2 = p->blk2,
		.blocks = c->node_blocks, .gen = c->gen, .root = w->kind,
		.level = p->level, .lo = w->lo, .hi = w->hi,
		.has_hi = w->has_hi,
	};

	if (c->opt->bad && (b.lost || !awaits_recovery(c, p->gen)))
		c->opt->bad(c->opt->arg, &b);
}

/* Both copies against the checksum; *good: buf holds the right bytes. */
static int scrub_node(struct walk *w, const struct nptr *p, bool again,
		      void *buf, bool *good)
{
	struct check *c = w->c;
	bool mend = c->opt->mend && !again;
	struct copies_read r;
	int err;

	err = read_node(c, p, mend, buf, &r);
	if (err)
		return err;
	*good = !r.lost[0] && !c->stop;
	if (again || c->stop)
		return 0;
	if (r.bad)
		tell_bad(w, p, &r);
	if (c->quiet)
		return 0;
	c->res.nodes++;
	c->res.blocks += c->node_blocks;
	if (*good)
		c->res.checksums += c->node_blocks;
	c->res.bad_copies += r.bad;
	c->res.repaired += r.repaired;
	if (!*good) {
		c->res.lost += c->node_blocks;
		problem(c, P_NODE_UNREADABLE, "%s: node %" PRIu64, w->name,
			p->blk);
	} else if (r.bad && !awaits_recovery(c, p->gen)) {
		problem(c, P_NODE_COPY, "%s: node %" PRIu64 ", copies at %"
			PRIu64 " and %" PRIu64 "%s", w->name, p->blk, p->blk,
			p->blk2, r.repaired ? ": repaired" : "");
		/* mended before, and bad again: its place is another's */
		if (c->no_maps && r.repaired < r.bad)
			fix_node(w, FIX_MOVE, p);
	}
	tick(c, c->node_blocks * (p->blk2 ? 2u : 1u));
	return 0;
}

/* Read and verify; *good: may be looked into. */
static int open_node(struct walk *w, const struct nptr *p,
		     const struct range *r, bool again, void *buf, bool *good)
{
	struct check *c = w->c;
	char why[128] = "";
	int err;

	err = scrub_node(w, p, again, buf, good);
	if (err)
		return err;
	if (*good && node_verify(buf, c->node_size, p, w->kind, c->super.uuid,
				 &r->lo, r->has_hi ? &r->hi : NULL, why,
				 sizeof(why))) {
		*good = false;
		if (!again)
			problem(c, P_NODE_CORRUPT, "%s: node %" PRIu64 ": %s",
				w->name, p->blk, why);
	}
	if (!*good)
		lose(w, p);
	if (again && ++c->rereads >= 64) {
		c->rereads = 0;
		tick(c, 0);
	}
	return 0;
}

/* A leaf that two trees share is to be mended in both. */
static void look_again(struct walk *w, const void *leaf)
{
	items_check(w, leaf);
	data_again(w, leaf);
}

static int visit(struct walk *w, const struct nptr *p, const struct range *r,
		 bool again, uint32_t from);

static int visit_children(struct walk *w, const struct nptr *p,
			  const struct range *r, bool again, uint32_t from,
			  const void *node)
{
	unsigned n = node_count(node);
	int err;

	for (unsigned i = from; i < n && !w->c->stop; i++) {
		struct nptr child = node_child(node, i);
		struct range cr = { .lo = node_key(node, i), .hi = r->hi,
				    .has_hi = r->has_hi };

		if (i + 1 < n) {
			cr.hi = node_key(node, i + 1);
			cr.has_hi = true;
		}
		if (child.level + 1u != p->level || child.gen > p->gen) {
			w->lo = cr.lo;
			w->hi = cr.hi;
			w->has_hi = cr.has_hi;
			lose(w, &child);
			if (!again)
				problem(w->c, P_NODE_CORRUPT, "%s: node %"
					PRIu64 ": child %u has level %u, "
					"generation %" PRIu64, w->name, p->blk,
					i, child.level, child.gen);
			continue;
		}
		err = visit(w, &child, &cr, again, 0);
		if (err)
			return err;
	}
	return 0;
}

/*
 * One reference to a node: count it (unless again), and the first time look
 * into it. A node met before is entered only for the sake of w->each, and then
 * with all below it as again. from: references before it do not count.
 */
static int visit(struct walk *w, const struct nptr *p, const struct range *r,
		 bool again, uint32_t from)
{
	struct check *c = w->c;
	void *buf = c->node[p->level];
	enum seen seen;
	bool good = false;
	int err;

	w->lo = r->lo;
	w->hi = r->hi;
	w->has_hi = r->has_hi;
	if (!again) {
		err = count_node(w, p, &seen);
		if (err)
			return err;
		if (seen == SEEN_BAD) {
			fix_node(w, FIX_CUT, p);
			lose(w, p);
		}
		if (seen == SEEN_BAD || (seen == SEEN_AGAIN && !w->each))
			return 0;
		again = seen == SEEN_AGAIN;
	} else if (!slot_ok(c, p->blk) || (p->blk2 && !slot_ok(c, p->blk2))) {
		fix_node(w, FIX_CUT, p);
		lose(w, p);
		return 0;
	}
	err = open_node(w, p, r, again, buf, &good);
	if (!err && !good)
		fix_node(w, FIX_CUT, p);
	if (err || !good || c->stop)
		return err;
	if (p->level)
		return visit_children(w, p, r, again, from, buf);
	w->first_slot = from;
	if (!again && w->first)
		err = w->first(w, buf);
	else if (c->fix && w->kind == COWFS_ROOT_FS)
		look_again(w, buf);
	if (!err && !c->stop && w->each)
		err = w->each(w, buf);
	return err;
}

int walk_tree(struct walk *w, const struct nptr *root)
{
	struct range all = { .lo = KEY_MIN, .has_hi = false };
	uint32_t from = w->first_slot;

	if (!root->blk)
		return 0;
	if (root->level > COWFS_MAX_LEVEL || root->gen > w->c->gen) {
		fix_node(w, FIX_CUT, root);
		w->lo = all.lo;
		w->has_hi = false;
		lose(w, root);
		if (!w->again)
			problem(w->c, P_NODE_CORRUPT, "%s: root %" PRIu64
				" of level %u, generation %" PRIu64, w->name,
				root->blk, root->level, root->gen);
		return 0;
	}
	return visit(w, root, &all, w->again, from);
}
