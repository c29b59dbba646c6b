/*
 * scrub_report.c - the report of a scrub, as it is kept, saved and sent
 *
 * Entries as they are on disk (format.h), one after the other: whoever shows
 * them reads the same bytes from an image, from an ioctl, and after years.
 */
#include "check/scrub.h"

static bool make_room(struct report *r, size_t n)
{
	size_t room = r->room ? r->room : 4096;
	uint8_t *at;

	if (n > REPORT_MAX - r->len)
		return false;
	while (room - r->len < n)
		room *= 2;
	if (room == r->room)
		return true;
	at = realloc(r->at, room);
	if (!at)
		return false;
	r->at = at;
	r->room = room;
	return true;
}

void report_add(struct report *r, struct cowfs_disk_scrub_entry e,
		const char *name, const char *text)
{
	size_t name_len = name ? strnlen(name, COWFS_SNAP_NAME_MAX) : 0;
	size_t text_len = text ? strnlen(text, TEXT_MAX) : 0;
	uint8_t *at;

	if (!make_room(r, sizeof(e) + name_len + text_len)) {
		r->untold++;
		return;
	}
	e.name_len = (uint8_t)name_len;
	e.text_len = to_le16((uint16_t)text_len);
	at = r->at + r->len;
	memcpy(at, &e, sizeof(e));
	if (name_len)
		memcpy(at + sizeof(e), name, name_len);
	if (text_len)
		memcpy(at + sizeof(e) + name_len, text, text_len);
	r->len += sizeof(e) + name_len + text_len;
	r->n++;
}

void report_damage(struct report *r, const struct damage *d)
{
	struct cowfs_disk_scrub_entry e = {
		.what = d->node ? COWFS_SCRUB_NODE : COWFS_SCRUB_DATA,
		.fate = d->fate,
		.root = d->root,
		.level = d->level,
		.blk = to_le64(d->blk),
		.blk2 = to_le64(d->blk2),
		.blocks = to_le64(d->blocks),
		.gen = to_le64(d->gen),
		.lo = key_to_disk(&d->lo),
		.hi = key_to_disk(&d->hi),
		.has_hi = d->has_hi,
	};

	report_add(r, e, NULL, NULL);
}

bool report_sane(const struct cowfs_disk_scrub_entry *e, size_t len)
{
	return len >= sizeof(*e) && e->what >= COWFS_SCRUB_DATA &&
	       e->what <= COWFS_SCRUB_NOTE && e->fate <= COWFS_SCRUB_ONE_BAD &&
	       e->tree <= COWFS_SCRUB_OTHER && e->root < COWFS_ROOTS &&
	       e->has_hi <= 1 && e->name_len <= COWFS_SNAP_NAME_MAX &&
	       from_le16(e->text_len) <= TEXT_MAX &&
	       len == sizeof(*e) + e->name_len + from_le16(e->text_len);
}

size_t report_entry(const struct report *r, size_t off,
		    const struct cowfs_disk_scrub_entry **out)
{
	const struct cowfs_disk_scrub_entry *e;
	size_t len;

	if (off >= r->len || r->len - off < sizeof(*e))
		return 0;
	e = (const void *)(r->at + off);
	len = sizeof(*e) + e->name_len + from_le16(e->text_len);
	if (len > r->len - off)
		return 0; /* off is not where one begins */
	*out = e;
	return len;
}

void report_append(struct report *r, const struct report *more)
{
	if (!make_room(r, more->len)) {
		r->untold += more->n;
		return;
	}
	if (more->len)
		memcpy(r->at + r->len, more->at, more->len);
	r->len += more->len;
	r->n += more->n;
	r->untold += more->untold;
}

void report_so_far(struct report *r, const struct damages *d)
{
	const struct damage *v = d->list.at;

	report_free(r);
	for (size_t i = 0; i < d->list.n; i++)
		report_damage(r, &v[i]);
	r->untold += d->untold;
}

void report_free(struct report *r)
{
	free(r->at);
	*r = (struct report){ 0 };
}
