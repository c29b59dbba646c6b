/*
 * txn_fixture.h - a store in memory, with numbers in its file tree
 */
#ifndef TXN_FIXTURE_H
#define TXN_FIXTURE_H

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "snapshot/snapshot.h"
#include "support/proof.h"
#include "support/test.h"
#include "support/testdev.h"
#include "txn/txn.h"

#define MIB (UINT64_C(1) << 20)

static struct bdev *mem;

static inline void format(uint64_t size, uint32_t node_size)
{
	struct store_format f = { .node_size = node_size,
				  .meta_copies = 2,
				  .data_copies = 1,
				  .label = "test" };

	ck_ok(bdev_open_mem(size, &mem));
	f.blocks = size / COWFS_BLOCK_SIZE;
	memset(f.uuid, 7, sizeof(f.uuid));
	ck_ok(store_format(mem, &f));
}

static inline void setup(void)
{
	format(64 * MIB, 4096);
}

static inline void teardown(void)
{
	bdev_close(mem);
}

static inline struct store *open_on(struct bdev *dev, unsigned flags)
{
	struct store_config cfg = { .dev = dev, .flags = flags,
				    .cache_bytes = 1 << 20 };
	struct store *s;

	ck_ok(store_open(&cfg, &s));
	ck_ok(snap_start(s));
	return s;
}

static inline int put_locked(struct store *s, const struct key *k, uint64_t val)
{
	uint8_t data[100] = { 0 };
	int err = tree_prepare(&s->fs, k);

	memcpy(data, &val, sizeof(val));
	return err ? err : tree_put(&s->fs, k, data, sizeof(data));
}

static inline int put(struct store *s, uint64_t obj, uint64_t val)
{
	struct key k = KEY(obj, COWFS_KEY_INODE, 0);
	struct op op;
	int err = op_write(&op, s, ALLOC_NORMAL, 1);

	if (err)
		return err;
	do
		err = put_locked(s, &k, val);
	while (op_again(&op, &err));
	return op_end(&op, err);
}

static inline int get_in(struct store *s, struct tree *t, uint64_t obj, uint64_t *val)
{
	struct key k = KEY(obj, COWFS_KEY_INODE, 0);
	struct item it;
	struct op op;
	int err;

	op_read(&op, s);
	do {
		err = tree_get(t, &k, &it);
		if (!err)
			memcpy(val, it.data, sizeof(*val));
	} while (op_again(&op, &err));
	return op_end(&op, err);
}

static inline uint64_t value(struct store *s, uint64_t obj)
{
	uint64_t val = 0;

	ck_ok(get_in(s, &s->fs, obj, &val));
	return val;
}

static inline void fill(struct store *s, uint64_t n, uint64_t salt)
{
	uint64_t i;

	for (i = 1; i <= n; i++)
		ck_ok(put(s, i, i * 1000 + salt));
}

static inline void expect(struct store *s, struct tree *t, uint64_t n, uint64_t salt)
{
	uint64_t i, val;

	for (i = 1; i <= n; i++) {
		ck_ok(get_in(s, t, i, &val));
		ck_assert_uint_eq(val, i * 1000 + salt);
	}
}

#endif
