/*
 * record.c - snapshots as items of the snapshot tree
 */
#include <inttypes.h>

#include "snapshot/private.h"

int snap_check_name(const char *name, bool reserved)
{
	size_t len = strnlen(name, COWFS_SNAP_NAME_MAX + 1);

	if (len > COWFS_SNAP_NAME_MAX)
		return -ENAMETOOLONG;
	if (len == 0 || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0 || (name[0] == '@' && !reserved))
		return -EINVAL;
	return 0;
}

int snap_from_item(const struct key *k, const struct item *it,
		   struct snap_info *out)
{
	const struct cowfs_disk_snap *d = it->data;
	struct snap_info info = { .id = k->obj };

	if (it->len < sizeof(*d) || d->name_len == 0 ||
	    d->name_len > COWFS_SNAP_NAME_MAX ||
	    it->len != sizeof(*d) + d->name_len || k->off != 0 || k->obj == 0)
		return report(-ECOW_CORRUPT,
			      "snapshot %" PRIu64 ": impossible record", k->obj);
	memcpy(info.name, d + 1, d->name_len);
	info.root = nptr_from_disk(&d->root.ptr);
	info.nodes = from_le64(d->root.nodes);
	info.gen = from_le64(d->gen);
	info.time = time_from_disk(d->time);
	if (snap_check_name(info.name, true) != 0 ||
	    strlen(info.name) != d->name_len || info.root.gen > info.gen ||
	    info.root.level > COWFS_MAX_LEVEL)
		return report(-ECOW_CORRUPT,
			      "snapshot %" PRIu64 ": impossible name or root",
			      k->obj);
	*out = info;
	return 0;
}

int record_get(struct store *s, uint64_t id, struct snap_info *out)
{
	struct key k = SNAP_KEY(id);
	struct item it;
	int err = tree_get(&s->snap, &k, &it);

	return err ? err : snap_from_item(&k, &it, out);
}

static struct key name_key(struct store *s, const char *name)
{
	uint64_t h = siphash(s->super.hash_seed, name, strlen(name));

	return KEY(h | UINT64_C(1) << 63, COWFS_KEY_SNAP_NAME, 0);
}

static bool name_is(const struct item *it, const char *name)
{
	size_t len = strlen(name);

	return it->len == sizeof(struct cowfs_disk_snap_name) + len &&
	       memcmp((const struct cowfs_disk_snap_name *)it->data + 1, name,
		      len) == 0;
}

int record_find(struct store *s, const char *name, struct snap_info *out,
		struct key *name_at)
{
	const struct cowfs_disk_snap_name *d;
	struct key k = name_key(s, name);
	struct cursor c;
	uint64_t id;
	int err;

	for (err = cursor_ceil(&c, &s->snap, &k); !err; err = cursor_next(&c)) {
		if (c.key.obj != k.obj || c.key.type != k.type)
			return -ENOENT;
		if (!name_is(&c.item, name))
			continue;
		d = c.item.data;
		id = from_le64(d->id);
		if (name_at)
			*name_at = c.key;
		err = record_get(s, id, out);
		return err == -ENOENT
			       ? report(-ECOW_CORRUPT,
					"snapshot '%s': id %" PRIu64
					" has no record",
					name, id)
			       : err;
	}
	return err;
}

int record_free_name(struct store *s, const char *name, struct key *out)
{
	struct key k = name_key(s, name);
	struct item it;
	int err;

	while ((err = tree_get(&s->snap, &k, &it)) == 0)
		k.off++;
	if (err != -ENOENT)
		return err;
	*out = k;
	return 0;
}

void record_of_live(struct store *s, const char *name, struct snap_info *out)
{
	*out = (struct snap_info){ .id = from_le64(s->super.next_snap),
				   .gen = forest_gen(s->forest),
				   .time = now_real(),
				   .root = s->fs.root,
				   .nodes = s->fs.nodes };
	memcpy(out->name, name, strlen(name));
}

int record_put(struct store *s, const struct snap_info *info,
	       const struct key *name_at)
{
	size_t len = strlen(info->name);
	struct {
		struct cowfs_disk_snap d;
		char name[COWFS_SNAP_NAME_MAX + 1];
	} rec;
	struct {
		struct cowfs_disk_snap_name d;
		char name[COWFS_SNAP_NAME_MAX + 1];
	} idx;
	struct key k = SNAP_KEY(info->id);
	int err;

	memset(&rec, 0, sizeof(rec));
	rec.d.root.ptr = nptr_to_disk(&info->root);
	rec.d.root.nodes = to_le64(info->nodes);
	rec.d.gen = to_le64(info->gen);
	rec.d.time = time_to_disk(info->time);
	rec.d.name_len = (uint8_t)len;
	memcpy(rec.name, info->name, len);
	err = tree_insert(&s->snap, &k, &rec, (uint32_t)(sizeof(rec.d) + len),
			  NULL);
	if (err)
		return err;
	idx.d.id = to_le64(info->id);
	memcpy(idx.name, info->name, len);
	return tree_insert(&s->snap, name_at, &idx,
			   (uint32_t)(sizeof(idx.d) + len), NULL);
}

int record_del(struct store *s, uint64_t id, const struct key *name_at)
{
	struct key k = SNAP_KEY(id);
	int err = tree_delete(&s->snap, &k);

	return err ? err : tree_delete(&s->snap, name_at);
}
