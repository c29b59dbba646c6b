/*
 * cowctl_report.c - what a scrub found, for people and for programs
 *
 * The report is a list of damaged ranges, each followed by its owners: a file
 * in the live tree, the same in a snapshot, and so on. For people owners that
 * differ by their tree only come on one line.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cowctl.h"

/* Without --verbose. */
#define RANGES_SHOWN 20
#define OWNERS_SHOWN 4
#define TREES_SHOWN 6

/* No daemon of ours has so much; one that somebody made up may never end. */
#define FOUND_MAX ((size_t)64 << 20)

/* ---- fetching ---- */

static int get_page(struct target *t, struct cowfs_ioc_report *page)
{
	int got;

	if (target_is_image(t))
		return cowfs_scrub_report(t->image, page);
	do
		got = ioctl(t->fd, COWFS_IOC_SCRUB_REPORT, page);
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : 0;
}

/* Length of the entry at off; 0: there is none, or none that can be. */
static size_t entry_at(const struct scrub_found *r, size_t off,
		       const struct cowfs_disk_scrub_entry **out)
{
	const struct cowfs_disk_scrub_entry *e;
	size_t len;

	if (off >= r->len || r->len - off < sizeof(*e))
		return 0;
	e = (const void *)(r->at + off);
	len = sizeof(*e) + e->name_len + from_le16(e->text_len);
	*out = e;
	return len <= r->len - off ? len : 0;
}

static int append(struct scrub_found *r, const struct cowfs_ioc_report *page)
{
	uint8_t *at;

	if (page->bytes > sizeof(page->entries) || r->len > FOUND_MAX)
		return -EPROTO;
	at = realloc(r->at, r->len + page->bytes + 1);
	if (!at)
		return -ENOMEM;
	memcpy(at + r->len, page->entries, page->bytes);
	r->at = at;
	r->len += page->bytes;
	return 0;
}

int found_fetch(struct target *t, struct scrub_found *out)
{
	struct cowfs_ioc_report *page = calloc(1, sizeof(*page));
	uint64_t from;
	int err;

	*out = (struct scrub_found){ 0 };
	if (!page)
		return -ENOMEM;
	do {
		from = page->from;
		err = get_page(t, page);
		if (!err && page->from && page->from <= from)
			err = -EPROTO;
		if (!err)
			err = append(out, page);
	} while (!err && page->from);
	free(page);
	if (err)
		found_free(out);
	return err;
}

void found_free(struct scrub_found *r)
{
	free(r->at);
	*r = (struct scrub_found){ 0 };
}

/* ---- parts of an entry ---- */

/* Copies for the caller to free; NULL: no memory. */
static char *name_of(const struct cowfs_disk_scrub_entry *e)
{
	return strndup((const char *)(e + 1), e->name_len);
}

static char *text_of(const struct cowfs_disk_scrub_entry *e)
{
	return strndup((const char *)(e + 1) + e->name_len,
		       from_le16(e->text_len));
}

static bool is_damage(const struct cowfs_disk_scrub_entry *e)
{
	return e->what == COWFS_SCRUB_DATA || e->what == COWFS_SCRUB_NODE;
}

static const char *fate_of(const struct cowfs_disk_scrub_entry *e)
{
	static const char *const text[] = { "lost", "repaired", "one-bad" };

	return e->fate < 3 ? text[e->fate] : "unknown";
}

static const char *root_of(const struct cowfs_disk_scrub_entry *e)
{
	static const char *const text[] = { "file", "snapshot", "space",
					    "reference", "copies" };

	return e->root < 5 ? text[e->root] : "other";
}

/* ---- for people ---- */

static void put_what(FILE *to, const struct cowfs_disk_scrub_entry *e)
{
	static const char *const text[] = { "lost", "repaired",
					    "one copy bad, not repaired" };
	uint64_t n = from_le64(e->blocks), blk = from_le64(e->blk);

	fprintf(to, "%s: ", e->fate < 3 ? text[e->fate] : "damaged");
	if (e->what == COWFS_SCRUB_NODE)
		fprintf(to, "node of the %s tree, level %u, block %" PRIu64,
			root_of(e), e->level, blk);
	else if (n == 1)
		fprintf(to, "file data, block %" PRIu64, blk);
	else
		fprintf(to, "file data, blocks %" PRIu64 "-%" PRIu64, blk,
			blk + n - 1);
	if (from_le64(e->blk2))
		fprintf(to, " (second copy at %" PRIu64 ")",
			from_le64(e->blk2));
	fputc('\n', to);
}

/* Do two owners differ by their tree only? */
static bool same_place(const struct cowfs_disk_scrub_entry *a,
		       const struct cowfs_disk_scrub_entry *b)
{
	size_t n = from_le16(a->text_len);

	return a->what == b->what && from_le64(a->ino) == from_le64(b->ino) &&
	       from_le64(a->ino_last) == from_le64(b->ino_last) &&
	       from_le64(a->off) == from_le64(b->off) &&
	       from_le64(a->len) == from_le64(b->len) &&
	       n == from_le16(b->text_len) &&
	       memcmp((const char *)(a + 1) + a->name_len,
		      (const char *)(b + 1) + b->name_len, n) == 0;
}

static void put_inodes(FILE *to, const struct cowfs_disk_scrub_entry *e)
{
	uint64_t first = from_le64(e->ino), last = from_le64(e->ino_last);

	if (e->tree == COWFS_SCRUB_OTHER)
		fputs("the filesystem's own bookkeeping", to);
	else if (last == UINT64_MAX)
		fprintf(to, "what belongs to inodes from %" PRIu64 " on",
			first);
	else if (first == last)
		fprintf(to, "what belongs to inode %" PRIu64, first);
	else
		fprintf(to, "what belongs to inodes %" PRIu64 "-%" PRIu64,
			first, last);
}

static void put_place(FILE *to, const struct cowfs_disk_scrub_entry *e)
{
	char *text = text_of(e);

	fputs("    ", to);
	if (e->what == COWFS_SCRUB_PART && !from_le16(e->text_len)) {
		put_inodes(to, e);
	} else if (e->what == COWFS_SCRUB_PART) {
		fputs("part of ", to);
		tool_put(to, text ? text : "?");
	} else {
		if (from_le16(e->text_len))
			tool_put(to, text ? text : "?");
		else
			fprintf(to, "inode %" PRIu64 " (no name)",
				from_le64(e->ino));
		fprintf(to, ": bytes %" PRIu64 "-%" PRIu64, from_le64(e->off),
			from_le64(e->off) + from_le64(e->len) - 1);
	}
	free(text);
}

static void put_tree(FILE *to, const struct cowfs_disk_scrub_entry *e,
		     bool more_snapshots)
{
	char *name = name_of(e);

	if (e->tree == COWFS_SCRUB_SNAPSHOT) {
		fputs(more_snapshots ? "'" : "snapshot '", to);
		tool_put(to, name ? name : "?");
		fputc('\'', to);
	} else {
		fputs(e->tree == COWFS_SCRUB_DROPPED ? "a deleted snapshot" :
						       "live",
		      to);
	}
	free(name);
}

/* One line for the owners from off up to end that have the same place as the
 * one at off. */
static void put_owner(FILE *to, const struct scrub_found *r, size_t off,
		      size_t end, bool verbose)
{
	const struct cowfs_disk_scrub_entry *first, *e;
	uint8_t last = COWFS_SCRUB_OTHER;
	unsigned trees = 0;
	size_t len;

	(void)entry_at(r, off, &first);
	put_place(to, first);
	for (; off < end && (len = entry_at(r, off, &e)) != 0; off += len) {
		if (!same_place(first, e) || e->tree == COWFS_SCRUB_OTHER)
			continue;
		if (trees++ >= TREES_SHOWN && !verbose)
			continue;
		fputs(trees == 1 ? " (" : ", ", to);
		put_tree(to, e, last == COWFS_SCRUB_SNAPSHOT);
		last = e->tree;
	}
	if (trees > TREES_SHOWN && !verbose)
		fprintf(to, " and %u more", trees - TREES_SHOWN);
	fputs(trees ? ")\n" : "\n", to);
}

/* Was this place told by an earlier owner of the same range? */
static bool told(const struct scrub_found *r, size_t begin, size_t off)
{
	const struct cowfs_disk_scrub_entry *e, *this;
	size_t len;

	(void)entry_at(r, off, &this);
	for (; begin < off && (len = entry_at(r, begin, &e)) != 0; begin += len)
		if (same_place(e, this))
			return true;
	return false;
}

/* Owners of one range: entries from off to *end. */
static void put_owners(FILE *to, const struct scrub_found *r, size_t off,
		       size_t *end, bool verbose)
{
	const struct cowfs_disk_scrub_entry *e;
	size_t begin = off, stop = off, len;
	unsigned n = 0;

	while ((len = entry_at(r, stop, &e)) != 0 && !is_damage(e) &&
	       e->what != COWFS_SCRUB_NOTE)
		stop += len;
	for (; off < stop && (len = entry_at(r, off, &e)) != 0; off += len) {
		if (n > OWNERS_SHOWN && !verbose)
			break; /* nobody wants to know how many exactly */
		if (told(r, begin, off))
			continue;
		if (n++ < OWNERS_SHOWN || verbose)
			put_owner(to, r, off, stop, verbose);
		else
			fputs("    and others\n", to);
	}
	*end = stop;
}

void found_text(const struct scrub_found *r, uint64_t untold, bool verbose,
		 FILE *to)
{
	const struct cowfs_disk_scrub_entry *e;
	uint64_t shown = 0, hidden = 0;
	size_t off = 0, len;

	while ((len = entry_at(r, off, &e)) != 0) {
		bool show = verbose || shown < RANGES_SHOWN;
		char *text;

		off += len;
		if (!is_damage(e) && e->what != COWFS_SCRUB_NOTE)
			continue;
		*(show ? &shown : &hidden) += 1;
		if (!show)
			continue;
		if (is_damage(e)) {
			put_what(to, e);
			put_owners(to, r, off, &off, verbose);
			continue;
		}
		text = text_of(e);
		tool_put(to, text ? text : "?");
		fputc('\n', to);
		free(text);
	}
	if (hidden)
		fprintf(to, "and %" PRIu64 " more (--verbose tells of all)\n",
			hidden);
	if (untold)
		fprintf(to, "and %" PRIu64 " more that the report had no room "
			"for\n", untold);
}

/* ---- for programs ---- */

static void json_text(char *s)
{
	if (s && *s)
		tool_json_string(stdout, s);
	else
		printf("null");
	free(s);
}

static void json_owner(const struct cowfs_disk_scrub_entry *e)
{
	static const char *const tree[] = { "live", "snapshot", "deleted",
					    "other" };

	printf("{ \"tree\": \"%s\", \"snapshot\": ",
	       e->tree < 4 ? tree[e->tree] : "unknown");
	json_text(name_of(e));
	printf(", \"path\": ");
	json_text(text_of(e));
	printf(", \"inode\": %" PRIu64, from_le64(e->ino));
	if (e->what == COWFS_SCRUB_PART)
		printf(", \"last_inode\": %" PRIu64 " }",
		       from_le64(e->ino_last));
	else
		printf(", \"offset\": %" PRIu64 ", \"length\": %" PRIu64 " }",
		       from_le64(e->off), from_le64(e->len));
}

static void json_damage(const struct cowfs_disk_scrub_entry *e)
{
	printf("{ \"kind\": \"%s\", \"fate\": \"%s\", \"block\": %" PRIu64
	       ", \"blocks\": %" PRIu64 ", \"second_copy\": %" PRIu64,
	       e->what == COWFS_SCRUB_NODE ? "node" : "data", fate_of(e),
	       from_le64(e->blk), from_le64(e->blocks), from_le64(e->blk2));
	if (e->what == COWFS_SCRUB_NODE)
		printf(", \"tree\": \"%s\", \"level\": %u", root_of(e),
		       e->level);
	printf(",\n      \"owners\": [");
}

void found_json(const struct scrub_found *r)
{
	const struct cowfs_disk_scrub_entry *e;
	unsigned ranges = 0, owners = 0, notes = 0;
	size_t off, len;

	printf("  \"damage\": [");
	for (off = 0; (len = entry_at(r, off, &e)) != 0; off += len) {
		if (is_damage(e)) {
			if (ranges)
				printf("%s] }", owners ? "\n      " : "");
			printf("%s\n    ", ranges++ ? "," : "");
			owners = 0;
			json_damage(e);
		} else if (e->what != COWFS_SCRUB_NOTE && ranges) {
			printf("%s\n        ", owners++ ? "," : "");
			json_owner(e);
		}
	}
	if (ranges)
		printf("%s] }\n  ", owners ? "\n      " : "");
	printf("],\n  \"notes\": [");
	for (off = 0; (len = entry_at(r, off, &e)) != 0; off += len) {
		if (e->what != COWFS_SCRUB_NOTE)
			continue;
		printf("%s\n    ", notes++ ? "," : "");
		json_text(text_of(e));
	}
	printf("%s]", notes ? "\n  " : "");
}
