/*
 * rescue_scan.c - the root of a tree of files, without any superblock
 *
 * A node says where it lies, of which tree it is, its level and generation. A
 * commit that changes a tree writes its root anew, so among the nodes of the
 * highest generation the one of the highest level is the newest root, or as much
 * of it as is left. Nothing holds a root's checksum then: it is believed if its
 * contents are possible; below it checksums decide, as always. Candidates are
 * tried in that order until one leads to the inode of the root directory.
 */
#include "check/rescue.h"

#define CANDIDATES 256u
#define STEP_BLOCKS 256u /* read at once; of any node size a multiple */

struct candidate {
	uint64_t blk, gen;
	uint32_t node_size;
	uint8_t level;
	uint8_t uuid[16];
};

struct search {
	struct cowfs_rescue *r;
	const struct cowfs_rescue_options *opt;
	struct candidate best[CANDIDATES]; /* best first */
	unsigned n;
	struct cowfs_disk_log log; /* first record of the newest */
};

static bool better(const struct candidate *a, const struct candidate *b)
{
	return a->gen != b->gen ? a->gen > b->gen : a->level > b->level;
}

static void keep(struct search *s, const struct candidate *c)
{
	unsigned i = s->n;

	if (s->n == CANDIDATES && !better(c, &s->best[s->n - 1]))
		return;
	if (s->n < CANDIDATES)
		s->n++;
	else
		i--;
	for (; i && better(c, &s->best[i - 1]); i--)
		s->best[i] = s->best[i - 1];
	s->best[i] = *c;
}

/* A node of a file tree at its own place, of whatever size; left: bytes. */
static void look_at(struct search *s, uint64_t blk, const uint8_t *buf,
		    size_t left)
{
	const struct cowfs_disk_node *h = (const void *)buf;
	struct nptr p = { .blk = blk, .gen = from_le64(h->gen),
			  .level = h->level };
	struct candidate c = { .blk = blk, .gen = p.gen, .level = h->level };
	char why[128];

	if (from_le32(h->magic) != COWFS_NODE_MAGIC ||
	    h->tree != COWFS_ROOT_FS || from_le64(h->blk) != blk ||
	    h->level > COWFS_MAX_LEVEL || p.gen >> 63 ||
	    (s->opt->gen && p.gen > s->opt->gen))
		return;
	memcpy(c.uuid, h->uuid, sizeof(c.uuid));
	for (uint32_t size = COWFS_MIN_NODE_SIZE; size <= COWFS_MAX_NODE_SIZE;
	     size *= 2) {
		if (size > left || blk % (size / COWFS_BLOCK_SIZE) ||
		    node_verify(buf, size, &p, COWFS_ROOT_FS, h->uuid, NULL,
				NULL, why, sizeof(why)))
			continue;
		c.node_size = size;
		keep(s, &c);
	}
}

static void look_for_log(struct search *s, const void *buf)
{
	const struct cowfs_disk_log *d = buf;

	if (from_le32(d->magic) == COWFS_LOG_MAGIC && !from_le64(d->seq) &&
	    from_le64(d->base) >= from_le64(s->log.base))
		s->log = *d;
}

static int search_all(struct search *s)
{
	struct bdev *dev = s->r->dev;
	uint64_t blocks = dev->size / COWFS_BLOCK_SIZE, n;
	uint8_t *buf = aligned_alloc(COWFS_BLOCK_SIZE,
				     STEP_BLOCKS * COWFS_BLOCK_SIZE);
	int err = 0;

	if (!buf)
		return -ENOMEM;
	for (uint64_t at = 0; at < blocks && !err; at += n) {
		n = min_u64(blocks - at, STEP_BLOCKS);
		if (s->opt->progress &&
		    s->opt->progress(s->opt->arg, at, blocks))
			err = -ECANCELED;
		if (bdev_read(dev, at * COWFS_BLOCK_SIZE, buf,
			      n * COWFS_BLOCK_SIZE)) {
			/* block by block around what cannot be read */
			memset(buf, 0, n * COWFS_BLOCK_SIZE);
			for (uint64_t i = 0; i < n; i++)
				if (bdev_read(dev, (at + i) * COWFS_BLOCK_SIZE,
					      buf + i * COWFS_BLOCK_SIZE,
					      COWFS_BLOCK_SIZE))
					memset(buf + i * COWFS_BLOCK_SIZE, 0,
					       COWFS_BLOCK_SIZE);
		}
		for (uint64_t i = 0; i < n; i++) {
			look_at(s, at + i, buf + i * COWFS_BLOCK_SIZE,
				(n - i) * COWFS_BLOCK_SIZE);
			look_for_log(s, buf + i * COWFS_BLOCK_SIZE);
		}
	}
	free(buf);
	return err;
}

/* A superblock that says what is known. */
static int begin(struct search *s, const struct candidate *cand)
{
	struct cowfs_rescue *r = s->r;
	uint64_t blocks = r->dev->size / COWFS_BLOCK_SIZE;
	struct cowfs_disk_super d = {
		.gen = to_le64(cand->gen),
		.total_blocks = to_le64(min_u64(blocks, COWFS_MAX_BLOCKS)),
		.node_size = to_le32(cand->node_size),
		.next_ino = to_le64(COWFS_INO_MAX),
	};

	memcpy(d.uuid, cand->uuid, sizeof(d.uuid));
	if (r->begun)
		check_fini(&r->c);
	block_init(&r->io, r->dev, from_le64(d.total_blocks), false);
	r->begun = true;
	return check_begin(&r->c, &r->io, &d, &r->opt);
}

/* Down to where the root directory's inode would be. */
static bool has_root(struct cowfs_rescue *r)
{
	const struct key want = KEY(COWFS_INO_ROOT, COWFS_KEY_INODE, 0);
	struct nptr p = r->root;

	for (;;) {
		const void *node = r->c.node[0];
		unsigned slot = 0;
		struct key k;

		if (!rescue_readable(r, &p))
			return false;
		for (unsigned i = 0; i < node_count(node); i++) {
			k = node_key(node, i);
			if (key_cmp(&k, &want) <= 0)
				slot = i;
		}
		if (!p.level) {
			k = node_count(node) ? node_key(node, slot) : KEY_MAX;
			return key_cmp(&k, &want) == 0;
		}
		if (node_child(node, slot).level + 1u != p.level)
			return false;
		p = node_child(node, slot);
	}
}

static int try_candidate(struct search *s, const struct candidate *cand,
			 bool *good)
{
	struct cowfs_rescue *r = s->r;
	int err = begin(s, cand);

	*good = false;
	if (err)
		return err;
	r->gen = cand->gen;
	r->root = (struct nptr){ .blk = cand->blk, .gen = cand->gen,
				 .level = cand->level };
	if (bdev_read(r->dev, cand->blk * COWFS_BLOCK_SIZE, r->c.node[0],
		      cand->node_size))
		return 0;
	r->root.csum = checksum(0, r->c.node[0], cand->node_size);
	*good = has_root(r);
	return 0;
}

int rescue_scan(struct cowfs_rescue *r, const struct cowfs_rescue_options *opt)
{
	struct search *s = calloc(1, sizeof(*s));
	bool good = false;
	int err;

	if (!s)
		return -ENOMEM;
	s->r = r;
	s->opt = opt;
	err = search_all(s);
	for (unsigned i = 0; i < s->n && !err && !good; i++)
		err = try_candidate(s, &s->best[i], &good);
	/* Which superblock it goes on from, and whether that has this root, is
	 * not known: items of other states do not go together. */
	s->r->log_unused = !memcmp(s->log.uuid, s->r->c.super.uuid, 16) &&
			   from_le64(s->log.base) >= s->r->gen;
	free(s);
	return err || good ? err : -ENODATA;
}
