/*
 * model_alloc.c - the allocator against a plain array of blocks
 *
 * Random takes, owns, frees and reference changes in generations that close,
 * become durable later, and sometimes die in a crash; readers and holds come
 * and go. For every block the model knows who has it. At each step it checks:
 *
 *   - a block that is handed out is in nobody's hands (A1), is named by neither
 *     of the two newest superblocks nor by a held one (A2), and nobody who
 *     reads since before it was let go of is still there (A2, A3);
 *   - at a close the records are exactly what is owned (A4), nodes of the
 *     pretended space tree included, and the stored references exactly what
 *     was asked for (A6), in canonical form;
 *   - after a crash the records of the durable generation give its state back;
 *   - free + used = total, all the time.
 */
#include "support/test.h"
#include "unit/fake_store.h"

#define READERS 4

enum state { FREE, FLIGHT, OWNED, LEAF };

struct block {
	uint8_t state; /* enum state */
	bool second;   /* a second copy: goes with the first */
	int32_t extra; /* references beyond the first; -1: dies at the close */
	uint64_t born;
	uint64_t mate;  /* 0: none */
	uint64_t freed; /* when it was let go of, as a count of steps */
};

/* What a closed generation looks like on disk. */
struct image {
	uint64_t gen;
	struct block *block;
	struct ref_ival *iv;
	size_t ivs;
};

struct model {
	struct rng rng;
	uint64_t blocks, gen, step;
	unsigned nb;
	struct grace grace;
	struct alloc *a;
	struct fake f;
	struct block *b;
	struct image closed, newest, older; /* closed: not durable yet */
	struct image held;
	struct fake disk, disk_closed; /* records only; as f was */
	bool reading[READERS];
	unsigned ticket[READERS];
	uint64_t since[READERS];
	unsigned holds;
	uint64_t taken, refused; /* how much happened at all */
	uint64_t flights, freed, closes, crashes, died;
};

/* ---- images ---- */

static void image_drop(struct image *i)
{
	free(i->block);
	free(i->iv);
	memset(i, 0, sizeof(*i));
}

static void image_make(struct model *m, struct image *i)
{
	size_t n = m->f.ivs * sizeof(*i->iv);

	image_drop(i);
	i->gen = m->gen;
	i->block = malloc(m->blocks * sizeof(*m->b));
	i->iv = malloc(n + 1);
	ck_assert(i->block && i->iv);
	memcpy(i->block, m->b, m->blocks * sizeof(*m->b));
	if (n)
		memcpy(i->iv, m->f.iv, n);
	i->ivs = m->f.ivs;
}

static void image_copy(const struct model *m, struct image *to,
		       const struct image *from)
{
	image_drop(to);
	*to = *from;
	to->block = malloc(m->blocks * sizeof(*m->b));
	to->iv = malloc(from->ivs * sizeof(*to->iv) + 1);
	ck_assert(to->block && to->iv);
	memcpy(to->block, from->block, m->blocks * sizeof(*m->b));
	if (from->ivs)
		memcpy(to->iv, from->iv, from->ivs * sizeof(*to->iv));
}

static bool names(const struct image *i, uint64_t blk)
{
	return i->block && i->block[blk].state >= OWNED;
}

static void records_copy(struct fake *to, const struct fake *from)
{
	uint64_t n;

	for (n = 0; n < from->chunks; n++) {
		if (from->len[n] && !to->rec[n])
			to->rec[n] = malloc(FAKE_RECORD);
		if (from->len[n])
			memcpy(to->rec[n], from->rec[n], from->len[n]);
		to->len[n] = from->len[n];
	}
	memcpy(to->leaf, from->leaf,
	       (from->chunks / FAKE_LEAF + 1) * sizeof(*to->leaf));
}

/* ---- what may be handed out ---- */

static void hand_out(struct model *m, uint64_t blk, uint64_t len,
		     enum state state)
{
	uint64_t at;
	unsigned r;

	if (blk < 20 || blk + len > m->blocks - 4)
		ck_abort_msg("%" PRIu64 "+%" PRIu64 " is reserved", blk, len);
	for (at = blk; at < blk + len; at++) {
		struct block *b = &m->b[at];

		if (b->state != FREE)
			ck_abort_msg("%" PRIu64 " is in use", at);
		if (names(&m->newest, at) || names(&m->older, at) ||
		    names(&m->closed, at))
			ck_abort_msg("a superblock names %" PRIu64, at);
		if (m->holds && !alloc_hold_broken(m->a) &&
		    names(&m->held, at))
			ck_abort_msg("%" PRIu64 " is held", at);
		for (r = 0; r < READERS; r++)
			if (m->reading[r] && m->since[r] < b->freed)
				ck_abort_msg("%" PRIu64 " may be read", at);
		*b = (struct block){ .state = (uint8_t)state, .born = m->gen };
	}
}

static void let_go(struct model *m, uint64_t blk, uint64_t len)
{
	m->freed += len;
	for (; len; len--, blk++) {
		m->b[blk].state = FREE;
		m->b[blk].freed = m->step;
	}
}

static void check_sums(struct model *m)
{
	uint64_t at, free = 0, owned = 0;
	struct alloc_info i;

	alloc_info(m->a, &i);
	for (at = 0; at < m->blocks; at++) {
		free += m->b[at].state == FREE;
		owned += m->b[at].state >= OWNED;
	}
	ck_assert_uint_eq(i.free, free);
	ck_assert_uint_eq(i.stored_free, m->blocks - owned);
	ck_assert_uint_le(i.pending, i.free);
	ck_assert_uint_le(i.avail, i.free);
}

/* ---- steps ---- */

/* A random run of owned first copies that belong together. */
static uint64_t pick(struct model *m, uint64_t *len, uint64_t max)
{
	uint64_t at = rng_below(&m->rng, m->blocks), n;
	const struct block *b = &m->b[at];

	*len = 0;
	if (b->state != OWNED || b->second || b->extra < 0)
		return 0;
	for (n = 1; n < max && at + n < m->blocks; n++) {
		const struct block *c = &m->b[at + n];

		if (c->state != OWNED || c->second || c->extra < 0 ||
		    c->born != b->born || !c->mate != !b->mate ||
		    (c->mate && c->mate != b->mate + n))
			break;
	}
	*len = n;
	return at;
}

static void join(struct model *m, uint64_t one, uint64_t two, uint64_t len)
{
	uint64_t i;

	for (i = 0; i < len; i++) {
		m->b[one + i].state = OWNED;
		m->b[one + i].born = m->gen;
		if (!two)
			continue;
		m->b[two + i].state = OWNED;
		m->b[two + i].born = m->gen;
		m->b[two + i].second = true;
		m->b[one + i].mate = two + i;
	}
}

static bool take(struct model *m, enum alloc_area area, uint64_t want,
		 uint64_t *blk, uint64_t *got)
{
	uint64_t hint = rng_one_in(&m->rng, 2) ?
			rng_below(&m->rng, m->blocks + 10) : 0;
	int err = alloc_take(m->a, area, hint, want, blk, got);

	if (err) {
		ck_assert_int_eq(err, -ENOSPC);
		m->refused++;
		return false;
	}
	ck_assert(*got >= 1 && *got <= want);
	hand_out(m, *blk, *got, FLIGHT);
	m->taken += *got;
	return true;
}

/* Take, perhaps both copies, and own all or a part of it. */
static void step_data(struct model *m)
{
	uint64_t want = 1 + rng_below(&m->rng, rng_one_in(&m->rng, 8) ? 400 :
							                30);
	uint64_t one, two = 0, got, got2, keep;

	if (!take(m, AREA_DATA, want, &one, &got))
		return;
	if (rng_one_in(&m->rng, 2) && take(m, AREA_DATA2, got, &two, &got2)) {
		if (got2 < got) {
			alloc_give_back(m->a, one + got2, got - got2);
			let_go(m, one + got2, got - got2);
			got = got2;
		}
	}
	if (rng_one_in(&m->rng, 20)) {
		m->flights++; /* until a crash */
		return;
	}
	keep = rng_one_in(&m->rng, 5) ? rng_below(&m->rng, got + 1) : got;
	alloc_own(m->a, one, keep);
	alloc_give_back(m->a, one + keep, got - keep);
	if (two) {
		alloc_own(m->a, two, keep);
		alloc_give_back(m->a, two + keep, got - keep);
	}
	join(m, one, two, keep);
	let_go(m, one + keep, got - keep);
	if (two)
		let_go(m, two + keep, got - keep);
}

static void step_node(struct model *m)
{
	uint64_t one, two = 0;
	int err = alloc_check(m->a, ALLOC_NORMAL, 1);

	if (!err)
		err = alloc_node(m->a, AREA_META, &one);
	if (err) {
		ck_assert_int_eq(err, -ENOSPC);
		return;
	}
	hand_out(m, one, m->nb, OWNED);
	if (!alloc_node(m->a, AREA_META2, &two))
		hand_out(m, two, m->nb, OWNED);
	ck_assert_uint_eq(one % m->nb, 0);
	ck_assert_uint_eq(two % m->nb, 0);
	join(m, one, two, m->nb);
}

/* Blocks with one reference, freed by someone who knows that. */
static void step_free(struct model *m)
{
	uint64_t len, n, at = pick(m, &len, 1 + rng_below(&m->rng, 300));

	for (n = 0; n < len && !m->b[at + n].extra; n++)
		;
	if (!n)
		return;
	alloc_free(m->a, at, n, m->b[at].born);
	if (m->b[at].mate) {
		alloc_free(m->a, m->b[at].mate, n, m->b[at].born);
		let_go(m, m->b[at].mate, n);
	}
	let_go(m, at, n);
}

static void step_ref(struct model *m)
{
	uint64_t len, i, at = pick(m, &len, 1 + rng_below(&m->rng, 100));
	int n = 1 + (int)rng_below(&m->rng, 2);

	if (!len)
		return;
	/* More often down than up, else nothing would ever die. */
	if (!rng_one_in(&m->rng, 3)) {
		n = -1;
		for (i = 0; i < len; i++)
			m->died += m->b[at + i].extra == 0;
	}
	ck_ok(alloc_ref(m->a, at, len, n, n < 0 ? m->b[at].mate : 0));
	for (i = 0; i < len; i++)
		m->b[at + i].extra += n;
}

static int extra_of(struct model *m, uint64_t at, uint32_t *n, uint64_t *run)
{
	int err;

	while ((err = alloc_extra(m->a, &m->f.ops, at, n, run)) == -EAGAIN)
		fake_load(&m->f);
	return err;
}

static void step_look(struct model *m)
{
	uint64_t len, run, i, at = pick(m, &len, 1);
	uint32_t n;

	if (!len)
		return;
	ck_ok(extra_of(m, at, &n, &run));
	ck_assert_int_eq((int)n, m->b[at].extra);
	ck_assert_uint_ge(run, 1);
	for (i = 1; i < run && at + i < m->blocks; i++)
		if (m->b[at + i].state == OWNED && !m->b[at + i].second &&
		    m->b[at + i].extra != (int)n)
			ck_abort_msg("the run of %" PRIu64 " is shorter", at);
}

static void step_reader(struct model *m)
{
	uint64_t r = rng_below(&m->rng, READERS);

	if (m->reading[r]) {
		grace_leave(&m->grace, m->ticket[r]);
	} else {
		m->ticket[r] = grace_enter(&m->grace);
		m->since[r] = m->step;
	}
	m->reading[r] = !m->reading[r];
}

static void step_hold(struct model *m)
{
	if (m->holds) {
		alloc_unhold(m->a);
		if (!--m->holds)
			image_drop(&m->held);
	} else if (m->newest.block) {
		alloc_hold(m->a);
		image_copy(m, &m->held, &m->newest);
		m->holds++;
	}
}

/* ---- generations ---- */

/* Blocks that lose their last reference in this close. */
static void bury(struct model *m)
{
	uint64_t at;

	for (at = 0; at < m->blocks; at++) {
		struct block *b = &m->b[at];

		if (b->state != OWNED || b->extra >= 0)
			continue;
		if (b->mate)
			let_go(m, b->mate, 1);
		let_go(m, at, 1);
	}
}

static void see_leaf(struct model *m, uint64_t was, uint64_t blk)
{
	if (blk == was)
		return;
	if (was)
		let_go(m, was, m->nb);
	if (blk)
		hand_out(m, blk, m->nb, LEAF);
}

/* The pretended tree's nodes: which came, which went. */
static void see_leaves(struct model *m, const struct fake_leaf *before)
{
	uint64_t i;

	for (i = 0; i <= m->f.chunks / FAKE_LEAF; i++) {
		see_leaf(m, before[i].blk, m->f.leaf[i].blk);
		see_leaf(m, before[i].blk2, m->f.leaf[i].blk2);
	}
}

static void check_closed(struct model *m)
{
	uint64_t at;
	size_t i = 0;

	for (at = 0; at < m->blocks; at++) {
		const struct block *b = &m->b[at];
		int32_t stored = 0;

		if (fake_used(&m->f, at) != (b->state >= OWNED))
			ck_abort_msg("the record of %" PRIu64 " is wrong", at);
		while (i < m->f.ivs && m->f.iv[i].start + m->f.iv[i].len <= at)
			i++;
		if (i < m->f.ivs && m->f.iv[i].start <= at)
			stored = (int32_t)m->f.iv[i].extra;
		if (stored != (b->state == OWNED ? b->extra : 0))
			ck_abort_msg("%" PRIu64 ": %d references stored", at,
				     stored);
	}
	fake_check_refs(&m->f);
}

static void become_durable(struct model *m)
{
	if (!m->closed.block)
		return;
	image_drop(&m->older);
	m->older = m->newest;
	m->newest = m->closed;
	memset(&m->closed, 0, sizeof(m->closed));
	records_copy(&m->disk, &m->disk_closed);
	alloc_durable(m->a, m->newest.gen);
}

static void step_close(struct model *m)
{
	size_t n = (m->f.chunks / FAKE_LEAF + 1) * sizeof(struct fake_leaf);
	struct fake_leaf *before = malloc(n);

	ck_assert_ptr_nonnull(before);
	become_durable(m); /* one commit at a time */
	memcpy(before, m->f.leaf, n);
	ck_ok(fake_flush(&m->f, m->a));
	ck_assert(!alloc_dirty(m->a));
	/* Old before new: what was let go of in this flush can't have come
	 * back in it, but what bury() frees must not look like it did. */
	see_leaves(m, before);
	bury(m);
	check_closed(m);
	alloc_note_trees(m->a, m->f.ivs / 100 + 1, m->f.chunks / FAKE_LEAF + 1, 0);
	image_make(m, &m->closed);
	records_copy(&m->disk_closed, &m->f);
	alloc_close(m->a, m->gen);
	m->gen++;
	m->f.gen = m->gen;
	m->closes++;
	free(before);
}

static void readers_end(struct model *m)
{
	while (m->holds)
		step_hold(m);
	for (unsigned r = 0; r < READERS; r++) {
		if (m->reading[r])
			grace_leave(&m->grace, m->ticket[r]);
		m->reading[r] = false;
	}
}

/* The newest durable generation is all there is; it becomes both superblocks
 * (store_open writes it again). */
static void step_crash(struct model *m)
{
	uint64_t n;

	if (!m->newest.block)
		return;
	readers_end(m);
	alloc_free_all(m->a);
	image_drop(&m->closed);
	image_copy(m, &m->older, &m->newest);
	memcpy(m->b, m->newest.block, m->blocks * sizeof(*m->b));
	m->f.ivs = m->newest.ivs;
	for (n = 0; n < m->f.ivs; n++)
		m->f.iv[n] = m->newest.iv[n];
	records_copy(&m->f, &m->disk);
	for (n = 0; n < m->blocks; n++)
		if (m->b[n].state == FLIGHT)
			m->b[n].state = FREE;
	m->gen = m->newest.gen + 2;
	m->f.gen = m->gen;
	ck_ok(alloc_new(m->blocks, m->nb, 2, m->gen, &m->grace, &m->a));
	m->f.alloc = m->a;
	for (n = 0; n < m->f.chunks; n++)
		if (m->f.len[n])
			ck_ok(alloc_load(m->a, n, m->f.rec[n], m->f.len[n]));
	m->crashes++;
}

static void step(struct model *m)
{
	static void (*const often[])(struct model *) = {
		step_data, step_data, step_data, step_node, step_free,
		step_free, step_free, step_ref,	 step_ref,  step_ref,
		step_look, step_reader,
	};

	m->step++;
	if (rng_one_in(&m->rng, 60))
		step_close(m);
	else if (rng_one_in(&m->rng, 60))
		become_durable(m);
	else if (rng_one_in(&m->rng, 200))
		step_hold(m);
	else if (rng_one_in(&m->rng, 2000))
		step_crash(m);
	else
		often[rng_below(&m->rng, ARRAY_SIZE(often))](m);
}

/* ---- runs ---- */

static void model_init(struct model *m, uint64_t stream, uint64_t blocks)
{
	uint64_t at;

	memset(m, 0, sizeof(*m));
	rng_init(&m->rng, test_seed(), stream);
	m->blocks = blocks;
	m->nb = FAKE_NODE;
	m->gen = 1;
	grace_init(&m->grace);
	fake_init(&m->f, blocks);
	fake_init(&m->disk, blocks);
	fake_init(&m->disk_closed, blocks);
	ck_ok(alloc_new(blocks, m->nb, 2, 1, &m->grace, &m->a));
	m->f.alloc = m->a;
	m->f.gen = 1;
	m->f.rng = &m->rng;
	m->f.room = blocks; /* a crash may restore more than there are */
	m->f.iv = calloc(blocks, sizeof(*m->f.iv));
	m->b = calloc(blocks, sizeof(*m->b));
	ck_assert(m->b && m->f.iv);
	for (at = 0; at < blocks; at++)
		if (at < 20 || at >= blocks - 4)
			m->b[at] = (struct block){ .state = LEAF };
}

static void model_fini(struct model *m)
{
	readers_end(m);
	alloc_free_all(m->a);
	fake_fini(&m->f);
	fake_fini(&m->disk);
	fake_fini(&m->disk_closed);
	grace_fini(&m->grace);
	image_drop(&m->closed);
	image_drop(&m->newest);
	image_drop(&m->older);
	free(m->b);
}

/* Everything let go of: only the pretended tree is left. */
static void empty(struct model *m)
{
	uint64_t at;
	unsigned i;

	readers_end(m);
	step_crash(m); /* nothing in flight any more */
	for (at = 0; at < m->blocks; at++) {
		struct block *b = &m->b[at];

		if (b->state != OWNED || b->second || b->extra < 0)
			continue;
		ck_ok(alloc_ref(m->a, at, 1, -1 - b->extra, b->mate));
		b->extra = -1;
	}
	for (i = 0; i < 4; i++)
		step_close(m);
	become_durable(m);
	check_sums(m);
	ck_assert_uint_eq(m->f.ivs, 0);
	for (at = 0; at < m->blocks; at++)
		ck_assert(m->b[at].state == FREE || m->b[at].state == LEAF);
}

static void run(uint64_t stream, uint64_t blocks, unsigned steps)
{
	struct model m;
	unsigned i;

	model_init(&m, stream, blocks);
	for (i = 0; i < steps; i++) {
		step(&m);
		if (i % 64 == 0)
			check_sums(&m);
	}
	empty(&m);
	printf("%" PRIu64 " blocks: %" PRIu64 " taken, %" PRIu64 " refused, %"
	       PRIu64 " freed, %" PRIu64 " died, %" PRIu64 " closes, %" PRIu64
	       " crashes, %u times -EAGAIN\n", blocks, m.taken, m.refused,
	       m.freed, m.died, m.closes, m.crashes, m.f.again);
	model_fini(&m);
}

static const uint64_t sizes[] = {
	COWFS_MIN_BLOCKS,
	COWFS_CHUNK_BLOCKS + 2,
	3 * COWFS_CHUNK_BLOCKS,
	9 * COWFS_CHUNK_BLOCKS + 77,
};

START_TEST(the_allocator_does_what_an_array_of_blocks_does)
{
	run((uint64_t)_i, sizes[_i], test_rounds(8000));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("alloc model");
	TCase *tc = tcase_create("model");

	tcase_set_timeout(tc, 3600);
	tcase_add_loop_test(tc, the_allocator_does_what_an_array_of_blocks_does,
			    0, (int)ARRAY_SIZE(sizes));
	suite_add_tcase(s, tc);
	return test_main(s);
}
