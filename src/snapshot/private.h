/* private.h - what the files of src/snapshot share; all under the tree lock */
#ifndef COW_SNAPSHOT_PRIVATE_H
#define COW_SNAPSHOT_PRIVATE_H

#include "snapshot/snapshot.h"

#define SNAP_KEY(id) KEY(id, COWFS_KEY_SNAP, 0)
#define DROP_KEY(blk) KEY(0, COWFS_KEY_DROP, blk)

/* record.c */

/* Find by name: the record and the key of its name item. -ENOENT, -EAGAIN. */
MUST_CHECK int record_find(struct store *s, const char *name,
			   struct snap_info *out, struct key *name_key);
MUST_CHECK int record_get(struct store *s, uint64_t id, struct snap_info *out);
/* First free key for a name that record_find did not find. */
MUST_CHECK int record_free_name(struct store *s, const char *name,
				struct key *out);
/* Write both items of a snapshot; both keys are prepared. */
MUST_CHECK int record_put(struct store *s, const struct snap_info *info,
			  const struct key *name_key);
/* Remove both items; both keys are prepared. */
MUST_CHECK int record_del(struct store *s, uint64_t id,
			  const struct key *name_key);
/* The live file tree, sealed, as a snapshot of this moment. */
void record_of_live(struct store *s, const char *name, struct snap_info *out);

/* drop.c */

/* A reference to this node is not needed any more: leave a record for the
 * background. The key is prepared. */
MUST_CHECK int drop_add(struct store *s, const struct nptr *root, bool started);

#endif
