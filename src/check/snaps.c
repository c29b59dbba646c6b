/*
 * snaps.c - the snapshot tree: snapshots, their names, running deletes
 */
#include "check/private.h"

static bool name_ok(const char *name, size_t len)
{
	if (len == 0 || len > COWFS_SNAP_NAME_MAX)
		return false;
	if (memchr(name, 0, len) || memchr(name, '/', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* What leaves no snapshot. */
static const char *snap_fields(const struct key *k, const struct item *it)
{
	const struct cowfs_disk_snap *d = it->data;

	if (it->len < sizeof(*d) || it->len - sizeof(*d) != d->name_len)
		return "wrong length";
	if (!name_ok((const char *)(d + 1), d->name_len))
		return "impossible name";
	if (k->off != 0 || k->obj == 0 || k->obj >= TREE_OTHER >> 1)
		return "impossible number";
	return NULL;
}

/* What can be put right. */
static void look_closer(struct walk *w, const struct key *k,
			const struct cowfs_disk_snap *d)
{
	struct check *c = w->c;
	const char *why = NULL;

	if (from_le64(d->gen) > c->gen ||
	    from_le64(d->root.ptr.gen) > from_le64(d->gen))
		why = "from the future";
	else if (from_le32(d->time.nsec) >= 1000000000u)
		why = "impossible time";
	if (why)
		fix_note(w, FIX_SNAP, *k, c->gen);
	if (!why && k->obj >= c->next_snap)
		why = "not below the next number";
	if (c->fix && k->obj >= c->next_snap)
		c->fix->next_snap = max_u64(c->fix->next_snap, k->obj + 1);
	if (why)
		problem(c, P_SNAP_BAD, "snapshot %" PRIu64 ": %s", k->obj,
			why);
}

static int take_snap(struct walk *w, const struct key *k,
		     const struct item *it)
{
	struct check *c = w->c;
	const struct cowfs_disk_snap *d = it->data;
	const char *why = snap_fields(k, it);
	struct snap_rec *rec;

	if (why) {
		problem(c, P_SNAP_BAD, "snapshot %" PRIu64 ": %s", k->obj,
			why);
		c->lost = true;
		fix_note(w, FIX_DEL, *k, 0);
		return 0;
	}
	look_closer(w, k, d);
	rec = array_add(&c->snaps, sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->id = k->obj;
	rec->root = nptr_from_disk(&d->root.ptr);
	memcpy(rec->name, d + 1, d->name_len);
	c->res.snapshots++;
	return 0;
}

static int take_name(struct walk *w, const struct key *k,
		     const struct item *it)
{
	const struct cowfs_disk_snap_name *d = it->data;
	struct check *c = w->c;
	struct snap_name *rec;
	size_t len;

	/* They are counted from 0: what ends there has no room for others. */
	if (it->len <= sizeof(*d) || k->off >> 32 ||
	    it->len - sizeof(*d) > COWFS_SNAP_NAME_MAX) {
		problem(c, P_SNAP_NAME, "name %" PRIu64 " of %u bytes",
			k->off, it->len);
		fix_note(w, FIX_DEL_NAME, *k, 0);
		return 0;
	}
	len = it->len - sizeof(*d);
	/* The top bit keeps names apart from numbers. */
	if ((siphash(c->super.hash_seed, d + 1, len) | UINT64_C(1) << 63) !=
	    k->obj) {
		problem(c, P_SNAP_NAME, "the hash of the name of snapshot %"
			PRIu64 " is wrong", from_le64(d->id));
		fix_note(w, FIX_DEL_NAME, *k, 0);
	}
	rec = array_add(&c->names, sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->id = from_le64(d->id);
	rec->key = *k;
	memcpy(rec->name, d + 1, len);
	return 0;
}

static int take_drop(struct walk *w, const struct key *k,
		     const struct item *it)
{
	struct check *c = w->c;
	const struct cowfs_disk_drop *d = it->data;
	struct drop_rec *rec;

	fix_note(w, FIX_DROP, *k, 0);
	if (it->len != sizeof(*d) || k->obj != 0 || d->started > 1 ||
	    from_le64(d->ptr.blk) != k->off) {
		problem(c, P_DROP_BAD, "record of node %" PRIu64, k->off);
		c->lost = true;
		return 0;
	}
	rec = array_add(&c->drops, sizeof(*rec));
	if (!rec)
		return -ENOMEM;
	rec->ptr = nptr_from_disk(&d->ptr);
	rec->started = d->started;
	rec->next = d->started ? from_le32(d->next) : 0;
	return 0;
}

/* What a later version sets is no damage. */
static void check_setting(struct walk *w, const struct key *k,
			  const struct item *it)
{
	if (k->obj || k->off != COWFS_SETTING_REDUNDANCY ||
	    it->len == sizeof(struct cowfs_disk_redundancy))
		return;
	problem(w->c, P_ITEM_UNKNOWN, "setting of redundancy: %u bytes",
		it->len);
	fix_note(w, FIX_DEL, *k, 0);
}

int snaps_leaf(struct walk *w, const void *node)
{
	unsigned n = node_count(node);
	int err = 0;

	for (unsigned i = 0; i < n && !err && !w->c->stop; i++) {
		struct key k = node_key(node, i);
		struct item it = node_item(node, i, w->c->node_size);

		switch (k.type) {
		case COWFS_KEY_SNAP:
			err = take_snap(w, &k, &it);
			break;
		case COWFS_KEY_SNAP_NAME:
			err = take_name(w, &k, &it);
			break;
		case COWFS_KEY_DROP:
			err = take_drop(w, &k, &it);
			break;
		case COWFS_KEY_SETTING:
			check_setting(w, &k, &it);
			break;
		default:
			problem(w->c, P_ITEM_UNKNOWN, "%s: key %" PRIu64
				"/0x%02x/%" PRIu64, w->name, k.obj, k.type,
				k.off);
			fix_note(w, FIX_DEL, k, 0);
		}
	}
	return err;
}

/* snap_rec and snap_name both begin with the id. */
static int by_id(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void spare_name(struct walk *w, const struct snap_name *name)
{
	problem(w->c, P_SNAP_NAME, "a name for %" PRIu64
		", which is not there", name->id);
	fix_note(w, FIX_DEL_NAME, name->key, 0);
}

static void match_name(struct walk *w, const struct snap_rec *snap,
		       const struct snap_name *name)
{
	if (!name) {
		problem(w->c, P_SNAP_NAME, "snapshot %" PRIu64
			" cannot be found by name", snap->id);
		fix_note(w, FIX_SNAP_NAME, KEY(snap->id, COWFS_KEY_SNAP, 0),
			 0);
	} else if (strcmp(name->name, snap->name) != 0) {
		problem(w->c, P_SNAP_NAME, "snapshot %" PRIu64
			" has two names", snap->id);
		fix_note(w, FIX_DEL_NAME, name->key, 0);
	}
}

/* One name for each record, the same in both. */
void snaps_check_names(struct check *c)
{
	struct walk w = { .c = c, .tree = TREE_SNAPS };
	const struct snap_rec *snap = c->snaps.at;
	const struct snap_name *name = c->names.at;
	size_t at = 0;

	if (c->snaps.n)
		qsort(c->snaps.at, c->snaps.n, sizeof(*snap), by_id);
	if (c->names.n)
		qsort(c->names.at, c->names.n, sizeof(*name), by_id);
	for (size_t i = 0; i < c->snaps.n; i++) {
		bool have;

		for (; at < c->names.n && name[at].id < snap[i].id; at++)
			spare_name(&w, &name[at]);
		have = at < c->names.n && name[at].id == snap[i].id;
		match_name(&w, &snap[i], have ? &name[at] : NULL);
		at += have;
	}
	for (; at < c->names.n; at++)
		spare_name(&w, &name[at]);
}
