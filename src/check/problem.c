/*
 * problem.c - the list of everything that check can find wrong
 */
#include "check/check.h"
#include "util/util.h"

struct text {
	const char *name, *text;
};

/* clang-format off */
static const struct text table[P_COUNT] = {
	[P_SUPER_BAD] = { "super-bad", "a superblock copy is damaged" },
	[P_SUPER_STALE] = { "super-stale", "a superblock copy was not written" },
	[P_NODE_UNREADABLE] = { "node-unreadable", "a node has no good copy" },
	[P_NODE_COPY] = { "node-copy", "one copy of a node is damaged" },
	[P_NODE_CORRUPT] = { "node-corrupt", "a node's contents are impossible" },
	[P_DATA_UNREADABLE] = { "data-unreadable", "file data has no good copy" },
	[P_DATA_COPY] = { "data-copy", "one copy of file data is damaged" },
	[P_OVERLAP] = { "overlap", "blocks have two owners" },
	[P_OUT_OF_DEVICE] = { "out-of-device", "an address is outside" },
	[P_REF_WRONG] = { "ref-wrong", "a reference count is wrong" },
	[P_REF_BAD] = { "ref-bad", "a reference record is malformed" },
	[P_SPACE_USED] = { "space-used", "blocks in use are recorded as free" },
	[P_SPACE_FREE] = { "space-free", "blocks recorded as used have no owner" },
	[P_SPACE_BAD] = { "space-bad", "a free-space record is malformed" },
	[P_FREE_COUNT] = { "free-count", "the count of free blocks is wrong" },
	[P_SNAP_BAD] = { "snap-bad", "a snapshot record is malformed" },
	[P_SNAP_NAME] = { "snap-name", "snapshot names and records disagree" },
	[P_DROP_BAD] = { "drop-bad", "a record of a running delete is wrong" },
	[P_SHARED_GEN] = { "shared-gen", "something young is shared" },
	[P_INODE_BAD] = { "inode-bad", "an inode is malformed" },
	[P_INODE_NUMBER] = { "inode-number", "an inode number is out of range" },
	[P_INODE_NLINK] = { "inode-nlink", "a link count is wrong" },
	[P_INODE_SIZE] = { "inode-size", "an inode's size is wrong" },
	[P_INODE_BLOCKS] = { "inode-blocks", "an inode's block count is wrong" },
	[P_INODE_UNLINKED] = { "inode-unlinked", "no entry names an inode" },
	[P_INODE_PARENT] = { "inode-parent", "a directory's parent is wrong" },
	[P_INODE_MISSING] = { "inode-missing", "items belong to no inode" },
	[P_DIRENT_BAD] = { "dirent-bad", "a directory entry is malformed" },
	[P_DIRENT_HASH] = { "dirent-hash", "an entry's hash is wrong" },
	[P_DIRENT_DANGLING] = { "dirent-dangling", "an entry names no inode" },
	[P_DIRENT_TYPE] = { "dirent-type", "an entry's file type is wrong" },
	[P_DIR_LOOP] = { "dir-loop", "directories are not below the root" },
	[P_DIR_LINKED_TWICE] = { "dir-linked-twice", "a directory has two names" },
	[P_ROOT_MISSING] = { "root-missing", "there is no root directory" },
	[P_EXTENT_BAD] = { "extent-bad", "an extent is malformed" },
	[P_EXTENT_OVERLAP] = { "extent-overlap", "extents of a file overlap" },
	[P_EXTENT_BEYOND] = { "extent-beyond", "data beyond the end of a file" },
	[P_INLINE_BAD] = { "inline-bad", "inline contents are malformed" },
	[P_XATTR_BAD] = { "xattr-bad", "an extended attribute is malformed" },
	[P_ORPHAN_BAD] = { "orphan-bad", "the list of orphans is wrong" },
	[P_ITEM_UNKNOWN] = { "item-unknown", "an item of an unknown type" },
	[P_COPY_BAD] = { "copy-bad", "a record of an extra copy is malformed" },
	[P_COPY_STRAY] = { "copy-stray", "an extra copy of no shared data" },
	[P_COPY_COUNT] = { "copy-count", "the count of extra copies is wrong" },
	[P_LOG_DAMAGED] = { "log-damaged", "what was fsynced last is lost" },
	[P_LOG_BAD] = { "log-bad", "what was fsynced last can't be replayed" },
	[P_COMMIT_UNREAD] = { "commit-unread", "the last commit can't be read" },
};
/* clang-format on */

const char *problem_name(enum problem p)
{
	return (unsigned)p < P_COUNT ? table[p].name : "unknown";
}

const char *problem_text(enum problem p)
{
	return (unsigned)p < P_COUNT ? table[p].text : "unknown problem";
}
