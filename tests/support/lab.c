/*
 * lab.c - a forest with a real allocator, for tests below the transaction layer
 */
#include "support/lab.h"

#include "support/test.h"
#include "support/testdev.h"

_Thread_local bool lab_locked;

/* ---- the allocator's maps in trees ---- */

static int ref_at(const struct cursor *c, struct ref_ival *out)
{
	const struct cowfs_disk_ref *d = c->item.data;

	out->start = c->key.obj;
	out->len = c->key.off;
	out->extra = from_le32(d->extra);
	return 0;
}

static int ref_floor(void *arg, uint64_t at, struct ref_ival *out)
{
	struct lab *l = arg;
	struct key k = KEY(at, UINT8_MAX, UINT64_MAX);
	struct cursor c;
	int err = cursor_floor(&c, &l->refs, &k);

	return err ? err : ref_at(&c, out);
}

static int ref_ceil(void *arg, uint64_t at, struct ref_ival *out)
{
	struct lab *l = arg;
	struct key k = KEY(at, 0, 0);
	struct cursor c;
	int err = cursor_ceil(&c, &l->refs, &k);

	return err ? err : ref_at(&c, out);
}

static int ref_put(void *arg, const struct ref_ival *iv)
{
	struct lab *l = arg;
	struct key k = KEY(iv->start, COWFS_KEY_REF, iv->len);
	struct cowfs_disk_ref d = { .extra = to_le32(iv->extra) };

	return tree_put(&l->refs, &k, &d, sizeof(d));
}

static int ref_del(void *arg, const struct ref_ival *iv)
{
	struct lab *l = arg;
	struct key k = KEY(iv->start, COWFS_KEY_REF, iv->len);

	return tree_delete(&l->refs, &k);
}

static int ref_prepare(void *arg, uint64_t at)
{
	struct lab *l = arg;
	struct key lo = KEY(at, COWFS_KEY_REF, 0);
	struct key hi = KEY(at, COWFS_KEY_REF, UINT64_MAX);

	return tree_prepare_range(&l->refs, &lo, &hi);
}

static int space_put(void *arg, uint64_t chunk, const void *rec, size_t len)
{
	struct lab *l = arg;
	struct key k = KEY(chunk, COWFS_KEY_SPACE, 0);
	int err;

	if (len)
		return tree_put(&l->space, &k, rec, (uint32_t)len);
	err = tree_delete(&l->space, &k);
	return err == -ENOENT ? 0 : err;
}

static int space_prepare(void *arg, uint64_t chunk)
{
	struct lab *l = arg;
	struct key k = KEY(chunk, COWFS_KEY_SPACE, 0);

	return tree_prepare(&l->space, &k);
}

/* ---- open and close ---- */

static void lock(void *arg)
{
	struct lab *l = arg;

	if (!lab_locked)
		pthread_rwlock_wrlock(&l->lock);
}

static void unlock(void *arg)
{
	struct lab *l = arg;

	if (!lab_locked)
		pthread_rwlock_unlock(&l->lock);
}

static void load_space(struct lab *l)
{
	struct key k = KEY_MIN;
	struct cursor c;
	int err;

	while (!(err = LAB_RETRY(l, cursor_ceil(&c, &l->space, &k)))) {
		ck_ok(alloc_load(l->alloc, c.key.obj, c.item.data,
				 c.item.len));
		k = c.key;
		k.off++;
	}
	ck_assert_int_eq(err, -ENOENT);
}

static void start(struct lab *l)
{
	uint64_t gen = l->gen + 1;
	unsigned blocks = l->cfg.node_size / COWFS_BLOCK_SIZE;
	struct forest_config fc = { .io = &l->io, .store = &l->store,
				    .node_size = l->cfg.node_size,
				    .copies = l->cfg.copies,
				    .uuid = "a lab",
				    .cache_bytes = l->cfg.cache_bytes,
				    .gen = gen };

	grace_init(&l->grace);
	ck_ok(alloc_new(l->cfg.blocks, blocks, l->cfg.copies, gen, &l->grace,
			&l->alloc));
	fc.alloc = l->alloc;
	ck_ok(forest_new(&fc, &l->forest));
	forest_set_lock(l->forest, lock, unlock, l);
	l->fs = (struct tree){ .forest = l->forest, .root = l->fs_root,
			       .kind = COWFS_ROOT_FS, .nodes = l->fs_nodes,
			       .shared_gen = l->shared_gen };
	l->refs = (struct tree){ .forest = l->forest, .root = l->refs_root,
				 .kind = COWFS_ROOT_REFS };
	l->space = (struct tree){ .forest = l->forest, .root = l->space_root,
				  .kind = COWFS_ROOT_SPACE };
	load_space(l);
}

void lab_open(struct lab *l, const struct lab_config *cfg)
{
	*l = (struct lab){ .cfg = *cfg, .gen = 1 };
	l->store = (struct alloc_store){
		.ref_floor = ref_floor, .ref_ceil = ref_ceil,
		.ref_put = ref_put, .ref_del = ref_del,
		.ref_prepare = ref_prepare, .space_put = space_put,
		.space_prepare = space_prepare, .arg = l,
	};
	pthread_rwlock_init(&l->lock, NULL);
	ck_ok(bdev_open_mem(cfg->blocks * COWFS_BLOCK_SIZE, &l->mem));
	ck_ok(fault_open(l->mem, &l->dev));
	block_init(&l->io, l->dev, cfg->blocks, true);
	start(l);
}

static void stop(struct lab *l)
{
	forest_free(l->forest);
	alloc_free_all(l->alloc);
	grace_fini(&l->grace);
}

void lab_close(struct lab *l)
{
	stop(l);
	bdev_close(l->dev);
	bdev_close(l->mem);
	pthread_rwlock_destroy(&l->lock);
}

void lab_reopen(struct lab *l)
{
	stop(l);
	start(l);
}

int lab_load(struct lab *l)
{
	int err;

	l->loads++;
	if (!l->flaky || l->loads % l->flaky)
		return forest_load(l->forest);
	fault_nth(l->dev, FAULT_READ, 1, -EIO);
	err = forest_load(l->forest);
	fault_clear(l->dev);
	ck_assert(err == 0 || (err == -EIO && l->cfg.copies == 1));
	return 0; /* the caller tries again and finds it missing again */
}

/* ---- commit ---- */

static int flush_maps(struct lab *l)
{
	int err;

	err = LAB_RETRY(l, alloc_preload(l->alloc, &l->store));
	return err ? err : LAB_RETRY(l, alloc_flush(l->alloc, &l->store));
}

int lab_commit(struct lab *l)
{
	uint64_t gen = forest_gen(l->forest);
	struct node_batch *b;
	uint64_t bytes;
	int err;

	tree_seal(&l->fs);
	err = flush_maps(l);
	if (err)
		return err;
	tree_seal(&l->refs);
	tree_seal(&l->space);
	alloc_note_trees(l->alloc, l->refs.nodes, l->space.nodes, 0);
	b = forest_close_gen(l->forest);
	alloc_close(l->alloc, gen);
	err = node_batch_write(b, &bytes);
	node_batch_done(b, !err);
	if (err)
		return err;
	l->fs_root = l->fs.root;
	l->fs_nodes = l->fs.nodes;
	l->refs_root = l->refs.root;
	l->space_root = l->space.root;
	l->shared_gen = l->fs.shared_gen;
	l->gen = gen;
	alloc_durable(l->alloc, gen);
	return 0;
}

/* ---- checking ---- */

struct count {
	struct lab *l;
	uint16_t *count;
};

static int count_data(void *arg, const struct node_ref *ref)
{
	struct count *c = arg;

	for (uint64_t i = 0; i < ref->len; i++)
		c->count[ref->blk + i]++;
	return 0;
}

static uint64_t count_node(struct count *c, const struct nptr *p, uint8_t kind,
			   const struct key *lo, const struct key *hi)
{
	uint32_t size = c->l->cfg.node_size;
	uint64_t blocks = size / COWFS_BLOCK_SIZE;
	bool seen = c->count[p->blk]++ > 0;
	uint64_t nodes = 1;
	uint8_t *buf;

	for (uint64_t i = 1; i < blocks; i++)
		c->count[p->blk + i]++;
	if (p->blk2)
		for (uint64_t i = 0; i < blocks && !seen; i++)
			c->count[p->blk2 + i]++;
	if (seen)
		return 1;
	buf = aligned_alloc(COWFS_BLOCK_SIZE, size);
	ck_assert_ptr_nonnull(buf);
	ck_ok(node_read(c->l->forest, p, kind, lo, hi, false, buf));
	if (!p->level)
		ck_ok(node_for_each_ref(buf, size, count_data, c));
	for (unsigned i = 0; p->level && i < node_count(buf); i++) {
		struct nptr child = node_child(buf, i);
		struct key first = node_key(buf, i);
		struct key next = hi ? *hi : KEY_MAX;

		if (i + 1 < node_count(buf))
			next = node_key(buf, i + 1);
		nodes += count_node(c, &child, kind, &first, &next);
	}
	free(buf);
	return nodes;
}

uint64_t lab_count(struct lab *l, const struct nptr *root, uint8_t kind,
		   uint16_t *count)
{
	struct count c = { .l = l, .count = count };
	struct key lo = KEY_MIN;

	return root->blk ? count_node(&c, root, kind, &lo, NULL) : 0;
}

static void check_refs(struct lab *l, const uint16_t *count)
{
	uint64_t len = l->cfg.blocks;

	for (uint64_t b = 20; b + 4 < len; b++) {
		uint32_t extra;
		uint32_t want = count[b] ? count[b] - 1u : 0;

		ck_ok(LAB_RETRY(l, alloc_extra(l->alloc, &l->store, b, &extra,
					       NULL)));
		ck_assert_msg(extra == want, "block %" PRIu64 ": %u extra "
			      "references stored, %u counted", b, extra, want);
		ck_assert_msg(alloc_is_used(l->alloc, b) == (count[b] > 0),
			      "block %" PRIu64 ": used %d, references %u", b,
			      alloc_is_used(l->alloc, b), count[b]);
	}
}

void lab_check(struct lab *l, const struct nptr *snaps, size_t n)
{
	uint16_t *count = calloc(l->cfg.blocks, sizeof(*count));

	ck_assert_ptr_nonnull(count);
	lab_count(l, &l->refs_root, COWFS_ROOT_REFS, count);
	lab_count(l, &l->space_root, COWFS_ROOT_SPACE, count);
	lab_count(l, &l->fs_root, COWFS_ROOT_FS, count);
	for (size_t i = 0; i < n; i++)
		lab_count(l, &snaps[i], COWFS_ROOT_FS, count);
	check_refs(l, count);
	free(count);
}
