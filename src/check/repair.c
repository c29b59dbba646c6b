/*
 * repair.c - one repair from the first look to the new superblock (repair.h)
 *
 *   1. The state that the superblock names is checked; bad copies are rewritten
 *      from good ones on the way. If that and the superblock's slots were all,
 *      there is nothing to commit.
 *   2. What anybody may own is kept from being overwritten: all that this walk
 *      met, what the space records say, what the superblock before this one
 *      names, and any newer one.
 *   3. The log is applied, as a mount would.
 *   4. Notes are carried out, the trees written to free places, checked again,
 *      until there is nothing to note.
 *   5. Both maps are made anew; all is checked once more, the maps too.
 *   6. The commit.
 *
 * If space is so short that 4 and 5 do not find any, the space records are
 * disregarded in a second try: they may be what is wrong.
 */
#include "check/mend.h"

#define PASSES_MAX 24u /* and one for each snapshot */

/* ---- the first pass ---- */

static void count_found(void *arg, enum problem p, const char *where)
{
	struct repair *r = arg;

	r->count[p]++;
	if (r->opt->found)
		r->opt->found(r->opt->arg, p, where);
}

static int pass_progress(void *arg, uint64_t done, uint64_t total)
{
	struct repair *r = arg;

	return r->opt->progress ?
		       r->opt->progress(r->opt->arg, done, total) : 0;
}

/* What is left of data is counted by itself: M2 does not mind. */
static void settle_found(void *arg, enum problem p, const char *where)
{
	struct repair *r = arg;

	(void)where;
	if (p == P_DATA_UNREADABLE || p == P_DATA_COPY)
		r->data_left++;
}

static void verify_found(void *arg, enum problem p, const char *where)
{
	struct repair *r = arg;

	settle_found(arg, p, where);
	if (r->opt->found)
		r->opt->found(r->opt->arg, p, where);
}

static struct check_options options(struct repair *r, bool data, bool mend)
{
	return (struct check_options){ .data = data, .mend = mend,
				       .semantics = true,
				       .all_snapshots = true,
				       .progress = pass_progress, .arg = r };
}

static bool wants_data(const struct repair *r)
{
	return r->opt->data || r->opt->punch;
}

/*
 * Blocks that the first pass took for somebody else's, that only the log names,
 * or that a node names which could not be read then, it did not read as data: a
 * later pass has to.
 */
static bool data_unseen(const struct repair *r)
{
	return wants_data(r) && (r->replayed || r->count[P_OVERLAP] ||
				 r->count[P_EXTENT_BAD] ||
				 r->count[P_NODE_UNREADABLE]);
}

/* Problems that no change of a tree mends: of copies, slots, data. */
static bool is_local(unsigned p)
{
	return p == P_SUPER_BAD || p == P_SUPER_STALE || p == P_NODE_COPY ||
	       p == P_DATA_COPY || p == P_DATA_UNREADABLE;
}

static bool needs_commit(const struct repair *r)
{
	for (unsigned p = 0; p < P_COUNT; p++)
		if (r->count[p] && !is_local(p))
			return true;
	return r->opt->punch && r->count[P_DATA_UNREADABLE];
}

/* What the log cannot give is given up with the commit, as a mount would do. */
static bool log_loses(const struct repair *r)
{
	return r->count[P_LOG_DAMAGED] || r->count[P_LOG_BAD] ||
	       r->count[P_COMMIT_UNREAD];
}

static bool loses(const struct repair *r)
{
	if (log_loses(r))
		return true;
	for (size_t i = 0; i < r->fix.n; i++)
		if (fix_loses(&r->fix.at[i]))
			return true;
	return r->opt->punch && r->count[P_DATA_UNREADABLE];
}

static int first_pass(struct repair *r, struct check *c)
{
	int err;

	/* Nothing is rewritten before all is known: a pointer that lies may
	 * give somebody else's place as that of its second copy. */
	r->first = options(r, wants_data(r), false);
	r->first.found = count_found;
	/* enough to know whether all is well; what is not seen now is later */
	r->first.all_snapshots = false;
	err = check_pass(c, &r->s->io, &r->s->super, &r->first, &r->fix, true);
	if (!err)
		supers_check(c);
	r->res->check = c->res;
	r->res->passes++;
	return err;
}

static void pass_told(void *arg, const char *line)
{
	tell(arg, "%s", line);
}

/* What a mount would do first. */
static int look_first(struct repair *r)
{
	struct check_first f = { .found = count_found, .told = pass_told,
				 .arg = r };
	int err = check_first(r->dev, r->s, &f);

	r->res->check.problems += f.problems;
	return err;
}

/* What the first pass did not: each place has one owner. */
static int mend_copies(struct repair *r)
{
	struct check_options opt = options(r, wants_data(r), true);
	struct check c;
	int err = check_pass(&c, &r->s->io, &r->s->super, &opt, NULL, false);

	r->res->check.repaired += c.res.repaired;
	check_fini(&c);
	return err;
}

/* ---- what must not be overwritten ---- */

static int keep_super(struct repair *r, const struct super *sb)
{
	struct check_options opt = { .progress = pass_progress, .arg = r };
	struct check c;
	int err = 0;

	if (memcmp(sb->d.uuid, r->s->super.uuid, sizeof(sb->d.uuid)) != 0 ||
	    sb->total_blocks != r->s->io.blocks ||
	    sb->node_size != from_le32(r->s->super.node_size))
		return 0; /* left over from another filesystem */
	err = check_pass(&c, &r->s->io, &sb->d, &opt, NULL, false);
	if (!err)
		err = keep_map(r, &c.map);
	check_fini(&c);
	return err;
}

/* The predecessor, and what is newer than the superblock in use. */
static int keep_others(struct repair *r)
{
	uint64_t gen = from_le64(r->s->super.gen);
	struct super_scan *scan = malloc(sizeof(*scan));
	bool below = false;
	int err;

	if (!scan)
		return -ENOMEM;
	err = super_scan(r->dev, scan);
	for (unsigned i = 0; !err && i < scan->count; i++) {
		if (scan->found[i].gen == gen || below)
			continue;
		below = scan->found[i].gen < gen;
		err = keep_super(r, &scan->found[i]);
	}
	free(scan);
	return err;
}

static int keep_all(struct repair *r, struct check *c, bool records)
{
	int err = keep_map(r, &c->map);

	if (!err && records)
		err = keep_records(r, c);
	return err ? err : keep_others(r);
}

/* ---- passes ---- */

static int by_block(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Carry out what the last pass noted. */
static int apply_notes(struct repair *r)
{
	struct store *s = r->s;
	int err = r->fix.nomem ? -ENOMEM : mend_all(r);

	if (err)
		return err;
	if (r->fix.shared_gen)
		s->fs.shared_gen = forest_gen(s->forest);
	if (r->fix.next_ino > from_le64(s->super.next_ino))
		s->super.next_ino = to_le64(r->fix.next_ino);
	if (r->fix.next_snap > from_le64(s->super.next_snap))
		s->super.next_snap = to_le64(r->fix.next_snap);
	if (r->fix.no_log) {
		tell(r, "there is no log any more: fsync takes a commit");
		memset(&s->super.log, 0, sizeof(s->super.log));
	}
	r->fix.n = 0;
	r->fix.overflow = r->fix.shared_gen = r->fix.no_log = false;
	r->fix.next_ino = r->fix.next_snap = 0;
	if (r->lost.n)
		qsort(r->lost.at, r->lost.n, sizeof(uint64_t), by_block);
	if (r->opt->punch) {
		r->fix.lost = r->lost.at;
		r->fix.lost_n = r->lost.n;
	}
	return mend_snaps(r);
}

static bool noted(const struct fixes *f)
{
	return f->n || f->overflow || f->shared_gen || f->no_log ||
	       f->next_ino || f->next_snap;
}

/* One look at the trees as they are now; *c is to be let go of. */
static int next_pass(struct repair *r, struct check *c)
{
	struct check_options opt = options(r, r->opt->punch && data_unseen(r),
					   false);
	struct cowfs_disk_super super;
	int err;

	memset(c, 0, sizeof(*c));
	opt.found = settle_found;
	r->data_left = 0;
	r->res->passes++;
	err = store_repair_write(r->s, &super);
	return err ? err :
	       check_pass(c, &r->s->io, &super, &opt, &r->fix, false);
}

/* Until a pass finds nothing; its map is left in *c. */
static int settle(struct repair *r, struct check *c)
{
	uint64_t left = PASSES_MAX + r->res->check.snapshots, problems;
	int err = apply_notes(r);

	for (; !err; left--) {
		err = next_pass(r, c);
		problems = c->res.problems - r->data_left;
		if (err || (!noted(&r->fix) && !problems))
			return err;
		r->res->needs_all = !r->opt->all && loses(r);
		if (!noted(&r->fix) || !left || r->res->needs_all) {
			r->res->left = problems;
			return -ECOW_CORRUPT;
		}
		check_fini(c);
		err = apply_notes(r);
	}
	memset(c, 0, sizeof(*c));
	return err;
}

/* M2 */
static int verify(struct repair *r)
{
	struct check_options opt = options(r, data_unseen(r), false);
	struct cowfs_disk_super super;
	struct check c;
	int err = store_repair_write(r->s, &super);

	if (err)
		return err;
	r->data_left = opt.data || r->opt->punch ?
			       0 : r->count[P_DATA_UNREADABLE];
	opt.found = verify_found;
	err = check_pass(&c, &r->s->io, &super, &opt, NULL, true);
	r->res->passes++;
	r->res->left = c.res.problems - (opt.data ? r->data_left : 0);
	check_fini(&c);
	return !err && r->res->left ? -ECOW_CORRUPT : err;
}

static int rebuild(struct repair *r)
{
	struct store *s = r->s;
	struct nptr none = { .blk = 0 };
	struct check c;
	int err;

	s->space.root = s->refs.root = none;
	s->space.nodes = s->refs.nodes = 0;
	memset(&c, 0, sizeof(c));
	err = forget_copies(r);
	if (!err)
		err = settle(r, &c);
	if (!err)
		err = make_maps(r, &c.map);
	check_fini(&c);
	return err ? err : verify(r);
}

/* They are of a state before; but what is lost stays so. */
static void forget_notes(struct fixes *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		if (f->at[i].kind == FIX_LOST)
			f->at[n++] = f->at[i];
	f->n = n;
}

/* Steps 2 to 5; the store is held after it. */
static int mend(struct repair *r, struct check *c, bool records)
{
	uint64_t replayed = 0;
	int err = keep_all(r, c, records);

	imap_move(&r->extra, &c->extra);
	if (err)
		return err;
	err = store_repair_replay(r->s, &replayed);
	if (err == -ENOMEM || err == -ENOSPC)
		return err;
	r->replayed = replayed != 0;
	if (replayed || err) {
		tell(r, "%" PRIu64 " records of the log are applied%s",
		     replayed, err ? ", the rest cannot be" : "");
		forget_notes(&r->fix);
	}
	if (log_loses(r))
		tell(r, "what was made durable after that is given up");
	store_repair_begin(r->s);
	err = rebuild(r);
	store_repair_end(r->s);
	return err;
}

/* ---- all of it ---- */

static bool allowed(struct repair *r)
{
	bool gives_up = loses(r);

	r->res->needs_all = gives_up && !r->opt->all;
	if (r->res->needs_all)
		return false;
	return !r->opt->ask ||
	       r->opt->ask(r->opt->arg, r->res->check.problems, gives_up);
}

static int super_slots(struct repair *r)
{
	struct super_scan *scan = malloc(sizeof(*scan));
	struct blockio io;
	int err;

	if (!scan)
		return -ENOMEM;
	err = super_scan(r->dev, scan);
	if (!err) {
		block_init(&io, r->dev, scan->found[0].total_blocks, false);
		/* what is older stays, for an undo */
		err = super_mend(&io, &scan->found[0].d, UINT64_MAX);
	}
	free(scan);
	return err;
}

/* After the first pass. *commit: the store has something to commit. */
static int decide(struct repair *r, struct check *c, bool records,
		  bool *commit)
{
	struct repair_result *res = r->res;
	uint64_t supers = r->count[P_SUPER_BAD] + r->count[P_SUPER_STALE];
	int err = 0;

	*commit = false;
	res->left = res->check.problems;
	if (!res->check.problems || !allowed(r))
		return 0;
	if (res->check.bad_copies && !r->count[P_OVERLAP])
		err = mend_copies(r);
	if (!err && needs_commit(r)) {
		err = mend(r, c, records);
		*commit = !err;
		if (err == -ECOW_CORRUPT && !res->needs_all)
			tell(r, "what is left cannot be mended: nothing is "
			     "changed");
	} else if (!err) {
		struct tree *t;

		for (size_t i = 0; i < r->fix.n; i++)
			if (r->fix.at[i].kind == FIX_LOST &&
			    !mend_tree(r, r->fix.at[i].tree, &t))
				tell_fix(r, t, &r->fix.at[i]);
		res->left = 0;
	}
	res->mended = res->check.repaired || supers;
	if (!err)
		res->left += *commit ? r->data_left :
				       r->count[P_DATA_UNREADABLE];
	if (!err && !res->check.repaired)
		res->left += (*commit ? 0 : r->count[P_NODE_COPY]) +
			     r->count[P_DATA_COPY];
	return err;
}

static void repair_fini(struct repair *r)
{
	free(r->fix.at);
	array_free(&r->snaps);
	array_free(&r->cuts);
	array_free(&r->lost);
	imap_clear(&r->extra);
	imap_clear(&r->good);
}

static int attempt(struct bdev *dev, const struct repair_options *opt,
		   bool records, struct repair_result *out)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_REPAIR,
				    .use_gen = opt->gen };
	struct repair r = { .dev = dev, .opt = opt, .res = out };
	struct check c;
	bool commit = false;
	int err;

	memset(out, 0, sizeof(*out));
	imap_init(&r.good);
	if (!opt->punch) /* that has to see all who share what is lost */
		r.fix.good = &r.good;
	err = store_open(&cfg, &r.s);
	if (err)
		return err;
	err = store_readonly(r.s) ? -EROFS : first_pass(&r, &c);
	if (!err)
		err = look_first(&r);
	if (!err)
		err = decide(&r, &c, records, &commit);
	if (!store_readonly(r.s))
		check_fini(&c);
	repair_fini(&r);
	if (commit) {
		r.s->super.state &= (uint8_t)~COWFS_STATE_ERROR;
		err = store_close(r.s);
		out->committed = !err;
	} else {
		store_abandon(r.s);
	}
	if (!err && (commit || out->mended))
		err = super_slots(&r);
	return err;
}

int repair_run(struct bdev *dev, const struct repair_options *opt,
	       struct repair_result *out)
{
	int err = attempt(dev, opt, true, out);

	if (err == -ENOSPC)
		err = attempt(dev, opt, false, out);
	return err == -ECOW_CORRUPT && out->left ? 0 : err;
}
