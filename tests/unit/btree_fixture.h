/*
 * btree_fixture.h - items in a tree of a lab (support/lab.h): item i has a key of
 * its own, and i as its first bytes
 */
#ifndef BTREE_FIXTURE_H
#define BTREE_FIXTURE_H

#include <string.h>

#include "btree/node.h"
#include "support/lab.h"
#include "support/test.h"
#include "support/testdev.h"

#define SIZE 4096u

static const struct lab_config small = {
	.node_size = SIZE, .copies = 1, .blocks = 8192,
};
static const struct lab_config twice = {
	.node_size = SIZE, .copies = 2, .blocks = 8192,
};

static inline struct key num(uint64_t i)
{
	return KEY(i, COWFS_KEY_INODE, 0);
}

static inline int add(struct lab *l, uint64_t i, uint32_t len)
{
	struct key k = num(i);
	void *out;
	int err;

	err = LAB_RETRY(l, tree_prepare(&l->fs, &k));
	if (!err)
		err = tree_insert(&l->fs, &k, NULL, len, &out);
	if (!err && len >= 8)
		memcpy(out, &i, 8);
	return err;
}

static inline int del(struct lab *l, uint64_t i)
{
	struct key k = num(i);
	int err = LAB_RETRY(l, tree_prepare(&l->fs, &k));

	return err ? err : tree_delete(&l->fs, &k);
}

static inline int look(struct lab *l, struct tree *t, uint64_t i, struct item *it)
{
	struct key k = num(i);

	return LAB_RETRY(l, tree_get(t, &k, it));
}

static inline void check_has(struct lab *l, struct tree *t, uint64_t i, uint32_t len)
{
	struct item it;

	ck_ok(look(l, t, i, &it));
	ck_assert_uint_eq(it.len, len);
	ck_assert(!memcmp(it.data, &i, 8));
}

static inline void add_range(struct lab *l, uint64_t from, uint64_t to, uint32_t len)
{
	for (; from < to; from++)
		ck_ok(add(l, from, len));
}

static inline void check_range(struct lab *l, struct tree *t, uint64_t from,
			       uint64_t to, uint32_t len)
{
	for (; from < to; from++)
		check_has(l, t, from, len);
}

#endif
