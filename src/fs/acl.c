/*
 * acl.c - POSIX access control lists, in the kernel's xattr form
 *
 * The bytes are a header (version 2) and entries of tag, permission and id
 * (linux/posix_acl_xattr.h), little-endian. They are stored as they come; the
 * mode bits of an inode and its access ACL always say the same.
 */
#include "fs/private.h"

#include <sys/stat.h>

#define ACL_VERSION 2u

enum {
	TAG_USER_OBJ = 0x01, TAG_USER = 0x02, TAG_GROUP_OBJ = 0x04,
	TAG_GROUP = 0x08, TAG_MASK = 0x10, TAG_OTHER = 0x20,
};

struct acl_head {
	struct le32 version;
};

struct acl_entry {
	struct le16 tag;
	struct le16 perm;
	struct le32 id;
};

static size_t entries(size_t len)
{
	return (len - sizeof(struct acl_head)) / sizeof(struct acl_entry);
}

static struct acl_entry *entry_at(void *acl, size_t i)
{
	struct acl_head *h = acl;

	return (struct acl_entry *)(h + 1) + i;
}

static const struct acl_entry *entry_of(const void *acl, size_t i)
{
	const struct acl_head *h = acl;

	return (const struct acl_entry *)(h + 1) + i;
}

static struct acl_entry *find(void *acl, size_t len, unsigned tag)
{
	size_t i;

	for (i = 0; i < entries(len); i++)
		if (from_le16(entry_at(acl, i)->tag) == tag)
			return entry_at(acl, i);
	return NULL;
}

/* Tags come in this order; those of users and groups any number of times, the
 * mask if there is one of these. */
int acl_check(const void *acl, size_t len)
{
	const struct acl_head *h = acl;
	const struct acl_entry *e;
	unsigned tag, last = 0, seen = 0;
	size_t i;

	if (len < sizeof(*h) ||
	    (len - sizeof(*h)) % sizeof(struct acl_entry))
		return -EINVAL;
	if (from_le32(h->version) != ACL_VERSION)
		return -EOPNOTSUPP;
	for (i = 0; i < entries(len); i++) {
		e = entry_of(acl, i);
		tag = from_le16(e->tag);
		if (from_le16(e->perm) & ~7u)
			return -EINVAL;
		if (!tag || (tag & (tag - 1)) || tag > TAG_OTHER || tag < last)
			return -EINVAL;
		if (tag == last && tag != TAG_USER && tag != TAG_GROUP)
			return -EINVAL;
		last = tag;
		seen |= tag;
	}
	if ((seen & TAG_USER_OBJ) && (seen & TAG_GROUP_OBJ) &&
	    (seen & TAG_OTHER) &&
	    (!(seen & (TAG_USER | TAG_GROUP)) || (seen & TAG_MASK)))
		return 0;
	return -EINVAL;
}

static bool is_name(const void *name, size_t len, const char *of)
{
	return len == strlen(of) && memcmp(name, of, len) == 0;
}

bool fs_xattr_possible(const void *name, size_t name_len, const void *val,
		       size_t len)
{
	if (!is_name(name, name_len, ACL_ACCESS_NAME) &&
	    !is_name(name, name_len, ACL_DEFAULT_NAME))
		return true;
	return len <= ACL_BYTES_MAX && acl_check(val, len) == 0;
}

void acl_to_mode(const void *acl, size_t len, uint32_t *mode, bool *minimal)
{
	uint32_t bits = 0, group = 0, mask = 0, perm;
	bool have_mask = false;
	size_t i;

	*minimal = true;
	for (i = 0; i < entries(len); i++) {
		perm = from_le16(entry_of(acl, i)->perm) & 7u;
		switch (from_le16(entry_of(acl, i)->tag)) {
		case TAG_USER_OBJ:
			bits |= perm << 6;
			break;
		case TAG_GROUP_OBJ:
			group = perm;
			break;
		case TAG_MASK:
			mask = perm;
			have_mask = true;
			*minimal = false;
			break;
		case TAG_OTHER:
			bits |= perm;
			break;
		default:
			*minimal = false;
		}
	}
	bits |= (have_mask ? mask : group) << 3;
	*mode = (*mode & ~0777u) | bits;
}

static void set_perm(struct acl_entry *e, uint32_t perm)
{
	if (e)
		e->perm = to_le16((uint16_t)(perm & 7u));
}

/* The group bits of a mode are the mask's if there is one. */
static struct acl_entry *group_class(void *acl, size_t len)
{
	struct acl_entry *mask = find(acl, len, TAG_MASK);

	return mask ? mask : find(acl, len, TAG_GROUP_OBJ);
}

void acl_chmod(void *acl, size_t len, uint32_t mode)
{
	set_perm(find(acl, len, TAG_USER_OBJ), mode >> 6);
	set_perm(group_class(acl, len), mode >> 3);
	set_perm(find(acl, len, TAG_OTHER), mode);
}

/* What both the entry and the mode asked for allow. */
static uint32_t limit(struct acl_entry *e, uint32_t perm)
{
	perm &= e ? from_le16(e->perm) & 7u : 7u;
	set_perm(e, perm);
	return perm;
}

void acl_inherit(void *acl, size_t len, uint32_t *mode, bool *minimal)
{
	uint32_t m = *mode & 0777u, same = 0;
	uint32_t owner, group, other;

	owner = limit(find(acl, len, TAG_USER_OBJ), m >> 6 & 7u);
	group = limit(group_class(acl, len), m >> 3 & 7u);
	other = limit(find(acl, len, TAG_OTHER), m & 7u);
	acl_to_mode(acl, len, &same, minimal);
	*mode = (*mode & ~0777u) | owner << 6 | group << 3 | other;
}
