/*
 * lab.h - a forest with a real allocator, for tests below the transaction layer
 *
 * A device in memory with a fault-injecting one over it, and three trees: the
 * file tree, and the reference and space trees that carry the allocator's maps.
 * lab_commit does in one thread what a commit does; "superblocks" are kept in
 * memory. lab_reopen forgets everything else and opens what was committed last.
 */
#ifndef LAB_H
#define LAB_H

#include "btree/btree.h"

/* This thread has the tree lock, or is the only one: eviction takes none. */
extern _Thread_local bool lab_locked;

struct lab_config {
	uint32_t node_size;
	unsigned copies;
	uint64_t blocks;
	size_t cache_bytes;
};

struct lab {
	struct lab_config cfg;
	struct bdev *mem, *dev; /* dev: faults over mem */
	struct blockio io;
	struct grace grace;
	struct alloc *alloc;
	struct forest *forest;
	struct alloc_store store;
	struct tree fs, refs, space;
	pthread_rwlock_t lock;
	/* what the last commit named */
	struct nptr fs_root, refs_root, space_root;
	uint64_t gen, shared_gen;
	uint64_t fs_nodes;
	unsigned loads; /* nodes loaded after -EAGAIN */
	unsigned flaky; /* of so many loads one fails at first; 0: none */
};

void lab_open(struct lab *l, const struct lab_config *cfg);
void lab_close(struct lab *l);
/* As after a crash: only the last commit is left. */
void lab_reopen(struct lab *l);
/* -EIO and the like are returned; the running state is unusable then. */
int lab_commit(struct lab *l);
/* After -EAGAIN. */
int lab_load(struct lab *l);

/* All of a tree and what hangs in it, as the device has it: each reference is
 * counted for its block, in count[] of cfg.blocks; nodes and extents that were
 * counted before are not entered again. Returns the nodes of this tree. */
uint64_t lab_count(struct lab *l, const struct nptr *root, uint8_t kind,
		   uint16_t *count);
/* Stored reference counts and free space are exactly those of the roots. */
void lab_check(struct lab *l, const struct nptr *snaps, size_t n);

/* Evaluate a call that may return -EAGAIN until it does not. */
#define LAB_RETRY(l, call)                                                  \
	({                                                                  \
		int lab_err_;                                               \
		do                                                          \
			lab_err_ = (call);                                  \
		while (lab_err_ == -EAGAIN && !(lab_err_ = lab_load(l)));   \
		lab_err_;                                                   \
	})

#endif
