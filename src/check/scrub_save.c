/*
 * scrub_save.c - the record of a scrub in the snapshot tree
 *
 * Ordinary operations, made durable by whatever commit comes next. A crash
 * between them may leave a report that is older than its head or the other way
 * round: each entry is verified when it is read, and nothing else depends on
 * them.
 */
#include "check/scrub.h"

#define HEAD_KEY KEY(0, COWFS_KEY_SETTING, COWFS_SETTING(COWFS_SETTING_SCRUB, 0))

static struct key entry_key(uint64_t n)
{
	return KEY(0, COWFS_KEY_SETTING,
		   COWFS_SETTING(COWFS_SETTING_SCRUB, n + 1));
}

/* ---- writing ---- */

/* len 0: remove it. -ENOENT then: it was not there. */
static int put_item(struct store *s, const struct key *k, const void *data,
		    uint32_t len)
{
	struct op op;
	int err;

	err = op_write(&op, s, ALLOC_FREEING, 1);
	if (err)
		return err;
	do {
		err = tree_prepare(&s->snap, k);
		if (!err)
			err = len ? tree_put(&s->snap, k, data, len) :
				    tree_delete(&s->snap, k);
	} while (op_again(&op, &err));
	return op_end(&op, err);
}

static int put_entry(struct store *s, uint64_t n,
		     const struct cowfs_disk_scrub_entry *e, size_t len)
{
	size_t max = COWFS_ITEM_MAX(forest_node_size(s->forest));
	struct key k = entry_key(n);
	struct cowfs_disk_scrub_entry *copy;
	size_t text = from_le16(e->text_len), less;
	char *at;
	int err;

	if (len <= max)
		return put_item(s, &k, e, (uint32_t)len);
	/* What is too long loses its beginning, as paths do. */
	copy = malloc(len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, e, len);
	less = len - max;
	at = (char *)(copy + 1) + e->name_len;
	memmove(at, at + less, text - less);
	memcpy(at, "...", 3);
	copy->text_len = to_le16((uint16_t)(text - less));
	err = put_item(s, &k, copy, (uint32_t)max);
	free(copy);
	return err;
}

/* A copy of the report: others may have it made anew while it is written. */
static void copy_report(struct scrub *sc, struct report *out)
{
	mutex_lock(&sc->lock);
	if (!sc->reported)
		report_so_far(&sc->report, &sc->damages);
	report_append(out, &sc->report);
	mutex_unlock(&sc->lock);
}

static int write_entries(struct scrub *sc, const struct report *r)
{
	const struct cowfs_disk_scrub_entry *e;
	uint64_t n = 0;
	size_t off = 0, len;
	int err = 0;

	while (!err && n < SAVED_MAX &&
	       (len = report_entry(r, off, &e)) != 0) {
		err = put_entry(sc->s, n++, e, len);
		off += len;
	}
	for (uint64_t i = n; !err && i < sc->saved_n; i++) {
		struct key k = entry_key(i);

		err = put_item(sc->s, &k, NULL, 0);
		if (err == -ENOENT)
			err = 0;
	}
	if (!err)
		sc->saved_n = n;
	return err;
}

static int save_entries(struct scrub *sc)
{
	struct report r = { 0 };
	int err;

	copy_report(sc, &r);
	err = write_entries(sc, &r);
	report_free(&r);
	return err;
}

static void fill_counts(const struct scrub_counts *n,
			struct cowfs_disk_scrub *d)
{
	d->nodes = to_le64(n->nodes);
	d->node_blocks = to_le64(n->node_blocks);
	d->node_checksums = to_le64(n->node_checksums);
	d->snapshots = to_le64(n->snapshots);
	d->notes = to_le64(n->notes);
	d->data_blocks = to_le64(n->data_blocks);
	d->data_checksums = to_le64(n->data_checksums);
	d->prealloc = to_le64(n->prealloc);
	d->data_done = to_le64(n->data_done);
	d->damaged = to_le64(n->damaged);
	d->bad_copies = to_le64(n->bad_copies);
	d->repaired = to_le64(n->repaired);
	d->lost = to_le64(n->lost);
	d->mended = to_le64(n->mended);
}

static void fill_head(struct scrub *sc, struct cowfs_disk_scrub *d)
{
	memset(d, 0, sizeof(*d));
	mutex_lock(&sc->lock);
	sc->noted = now_real();
	d->state = sc->state;
	d->error = to_le32((uint32_t)-cowfs_errno_for_user(sc->error));
	d->began = time_to_disk(sc->began);
	d->noted = time_to_disk(sc->noted);
	d->ns = to_le64(sc->ns_before +
			(sc->running ? now_ns() - sc->run_began : 0));
	d->pos = to_le64(sc->pos);
	d->done = to_le64(scrub_done_locked(sc));
	d->total = to_le64(sc->total);
	d->rate = to_le64(sc->rate);
	fill_counts(&sc->n, d);
	d->entries = to_le64(min_u64(sc->report.n, SAVED_MAX));
	d->untold = to_le64(sc->report.untold + sc->report.n -
			    min_u64(sc->report.n, SAVED_MAX));
	for (unsigned i = 0; i < BDEV_SIDES; i++)
		d->since[i] = to_le64(sc->since[i]);
	sc->saved_pos = sc->pos;
	sc->saved_damaged = sc->n.damaged;
	mutex_unlock(&sc->lock);
}

void scrub_save(struct scrub *sc, bool entries)
{
	struct cowfs_disk_scrub d;
	struct key k = HEAD_KEY;
	int err = 0;

	sc->saved_at = now_ns();
	if (store_readonly(sc->s) || store_stopped(sc->s))
		return;
	/* What was copied to a side is durable before pos says so (SC6). */
	if (sc->stale && block_flush(&sc->s->io))
		return;
	if (entries || sc->saved_old)
		err = save_entries(sc);
	if (!err)
		sc->saved_old = false;
	fill_head(sc, &d);
	if (!err)
		err = put_item(sc->s, &k, &d, sizeof(d));
	if (err)
		log_msg(LOG_LVL_WARN, "scrub: its progress could not be noted: "
			"%s", strerror(-err));
}

/* ---- reading ---- */

static void take_counts(const struct cowfs_disk_scrub *d,
			struct scrub_counts *n)
{
	*n = (struct scrub_counts){
		.nodes = from_le64(d->nodes),
		.node_blocks = from_le64(d->node_blocks),
		.node_checksums = from_le64(d->node_checksums),
		.snapshots = from_le64(d->snapshots),
		.notes = from_le64(d->notes),
		.data_blocks = from_le64(d->data_blocks),
		.data_checksums = from_le64(d->data_checksums),
		.prealloc = from_le64(d->prealloc),
		.data_done = from_le64(d->data_done),
		.damaged = from_le64(d->damaged),
		.bad_copies = from_le64(d->bad_copies),
		.repaired = from_le64(d->repaired),
		.lost = from_le64(d->lost),
		.mended = from_le64(d->mended),
	};
	if (from_le64(d->done) > n->data_done)
		n->meta_done = from_le64(d->done) - n->data_done;
}

/* 0 or -ENOENT: there is none that makes sense. */
static int take_head(struct scrub *sc, const struct item *it)
{
	const struct cowfs_disk_scrub *d = it->data;
	uint32_t error;

	if (it->len != sizeof(*d) || d->state > COWFS_SCRUB_FAILED ||
	    from_le64(d->pos) > sc->s->io.blocks)
		return -ENOENT;
	error = from_le32(d->error);
	sc->state = d->state;
	sc->error = error && error < 4096 ? -(int)error : 0;
	sc->began = time_from_disk(d->began);
	sc->noted = time_from_disk(d->noted);
	sc->ns_before = from_le64(d->ns);
	sc->pos = from_le64(d->pos);
	sc->total = from_le64(d->total);
	sc->rate = from_le64(d->rate);
	sc->report.untold = from_le64(d->untold);
	for (unsigned i = 0; i < BDEV_SIDES; i++)
		sc->since[i] = from_le64(d->since[i]);
	take_counts(d, &sc->n);
	return 0;
}

static void take_damage(struct scrub *sc,
			const struct cowfs_disk_scrub_entry *e)
{
	struct damage d = {
		.blk = from_le64(e->blk), .blk2 = from_le64(e->blk2),
		.blocks = from_le64(e->blocks), .gen = from_le64(e->gen),
		.node = e->what == COWFS_SCRUB_NODE, .fate = e->fate,
		.root = e->root, .level = e->level,
		.lo = key_from_disk(&e->lo), .hi = key_from_disk(&e->hi),
		.has_hi = e->has_hi,
	};
	uint64_t end = sc->s->io.blocks;

	if (e->what > COWFS_SCRUB_NODE || d.blk >= end ||
	    d.blocks > end - d.blk || !d.blocks || d.level > COWFS_MAX_LEVEL)
		return;
	(void)damage_add(&sc->damages, &d);
}

/* All under one lock; after -EAGAIN from the beginning. */
static int load_locked(struct scrub *sc)
{
	struct key k = HEAD_KEY, end = entry_key(SAVED_MAX);
	struct tree *t = &sc->s->snap;
	struct cursor c;
	int err = cursor_ceil(&c, t, &k);

	sc->state = COWFS_SCRUB_NEVER;
	sc->saved_n = 0;
	array_free(&sc->damages.list);
	report_free(&sc->report);
	sc->reported = true;
	if (err || key_cmp(&c.key, &k) != 0)
		return err ? err : -ENOENT;
	err = take_head(sc, &c.item);
	if (err)
		return err;
	while (!(err = cursor_next(&c)) && key_cmp(&c.key, &end) < 0) {
		const struct cowfs_disk_scrub_entry *e = c.item.data;
		const char *name = (const char *)(e + 1);
		char text[TEXT_MAX + 1];
		size_t len;

		sc->saved_n++;
		if (!report_sane(e, c.item.len))
			continue;
		len = from_le16(e->text_len);
		memcpy(text, name + e->name_len, len);
		text[len] = '\0';
		if (e->name_len) {
			char snap[COWFS_SNAP_NAME_MAX + 1] = "";

			memcpy(snap, name, e->name_len);
			report_add(&sc->report, *e, snap, text);
		} else {
			report_add(&sc->report, *e, NULL, text);
		}
		take_damage(sc, e);
	}
	return err;
}

int scrub_load(struct scrub *sc)
{
	struct op op;
	int err;

	op_read(&op, sc->s);
	do
		err = load_locked(sc);
	while (op_again(&op, &err));
	err = op_end(&op, err);
	if (err == -ENOMEM)
		return err;
	if (err && err != -ENOENT) {
		log_msg(LOG_LVL_WARN, "scrub: what the last one found can't be "
			"read: %s", strerror(-cowfs_errno_for_user(err)));
		sc->state = COWFS_SCRUB_NEVER;
	}
	return 0;
}
