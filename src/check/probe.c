/*
 * probe.c - does a known filesystem or partition table seem to be there?
 */
#include "check/private.h"
#include "cowfs/cowfs.h"

struct magic {
	const char *name;
	uint32_t at, len;
	const char *bytes;
};

/* clang-format off */
static const struct magic table[] = {
	{ "ext2, ext3 or ext4", 0x438, 2, "\x53\xef" },
	{ "xfs", 0, 4, "XFSB" },
	{ "btrfs", 0x10040, 8, "_BHRfS_M" },
	{ "f2fs", 0x400, 4, "\x10\x20\xf5\xf2" },
	{ "bcache", 0x1018, 16,
	  "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81" },
	{ "bcachefs", 0x1018, 16,
	  "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef" },
	{ "ntfs", 3, 8, "NTFS    " },
	{ "exfat", 3, 8, "EXFAT   " },
	{ "fat", 0x36, 3, "FAT" },
	{ "fat", 0x52, 5, "FAT32" },
	{ "iso9660", 0x8001, 5, "CD001" },
	{ "squashfs", 0, 4, "hsqs" },
	{ "erofs", 0x400, 4, "\xe2\xe1\xf5\xe0" },
	{ "jfs", 0x8000, 4, "JFS1" },
	{ "nilfs2", 0x406, 2, "\x34\x34" },
	{ "reiserfs", 0x10034, 8, "ReIsErFs" },
	{ "reiserfs", 0x10034, 8, "ReIsEr2F" },
	{ "swap", 0xff6, 10, "SWAPSPACE2" },
	{ "LUKS", 0, 6, "LUKS\xba\xbe" },
	{ "LVM", 0x218, 8, "LVM2 001" },
	{ "Linux RAID", 0x1000, 4, "\xfc\x4e\x2b\xa9" },
	{ "Linux RAID", 0, 4, "\xfc\x4e\x2b\xa9" },
	{ "QCOW image", 0, 4, "QFI\xfb" },
	{ "GUID partition table", 0x200, 8, "EFI PART" },
	{ "GUID partition table", 0x1000, 8, "EFI PART" },
	{ "partition table", 0x1fe, 2, "\x55\xaa" },
};
/* clang-format on */

/* zfs: its uberblocks, in either byte order, in the ring at 128 KiB. */
static bool is_zfs(struct bdev *dev)
{
	static const uint64_t magic = 0x00bab10c;
	uint8_t buf[COWFS_BLOCK_SIZE];

	for (uint64_t off = 128 << 10; off < 256 << 10; off += sizeof(buf)) {
		if (off + sizeof(buf) > dev->size ||
		    bdev_read(dev, off, buf, sizeof(buf)))
			return false;
		for (unsigned i = 0; i < sizeof(buf); i += 1024) {
			uint64_t v;

			memcpy(&v, buf + i, sizeof(v));
			if (v == magic || v == __builtin_bswap64(magic))
				return true;
		}
	}
	return false;
}

static bool is_super(struct bdev *dev, uint64_t blk)
{
	struct cowfs_disk_super d;

	return !bdev_read(dev, blk * COWFS_BLOCK_SIZE, &d, sizeof(d)) &&
	       memcmp(d.magic, COWFS_MAGIC, sizeof(d.magic)) == 0;
}

/* Any superblock will do to mount it: the first may be damaged, or be the one
 * that undoing a repair has wiped. */
static bool is_cowfs(struct bdev *dev)
{
	uint64_t blocks = dev->size / COWFS_BLOCK_SIZE;

	for (unsigned i = 0; i < 2 * COWFS_SUPER_SLOTS; i++)
		if (blocks >= COWFS_MIN_BLOCKS &&
		    is_super(dev, super_slot_block(blocks, i / 2, i % 2)))
			return true;
	return false;
}

static bool matches(struct bdev *dev, const struct magic *m)
{
	uint64_t from = m->at / 512 * 512;
	uint8_t buf[1024];

	if (dev->size < from + sizeof(buf) ||
	    bdev_read(dev, from, buf, sizeof(buf)))
		return false;
	return memcmp(buf + (m->at - from), m->bytes, m->len) == 0;
}

const char *cowfs_probe(struct bdev *dev)
{
	uint8_t last[512];

	if (is_cowfs(dev))
		return "cowfs";
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (matches(dev, &table[i]))
			return table[i].name;
	if (is_zfs(dev))
		return "zfs";
	/* The backup, in the last sector. */
	if (dev->size >= 1024 && dev->size % 512 == 0 &&
	    !bdev_read(dev, dev->size - 512, last, sizeof(last)) &&
	    memcmp(last, "EFI PART", 8) == 0)
		return "GUID partition table";
	return NULL;
}
