/*
 * scrub_fixture.h - a scrub of the image in memory (support/image.h), and what it
 * reports
 */
#ifndef SCRUB_FIXTURE_H
#define SCRUB_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cowfs/ioctl.h"
#include "support/image.h"

static struct scrub *sc;
static struct cowfs_ioc_scrub st;

static inline void new_scrub(uint64_t window)
{
	ck_ok(scrub_new(store, &sc));
	if (window)
		scrub_set_window(sc, window, 30000);
}

static inline void free_scrub(void)
{
	scrub_free(sc);
	sc = NULL;
}

static inline void run_it(bool resume, int (*progress)(void *arg))
{
	ck_ok(scrub_here(sc, resume, 0, progress, NULL));
	scrub_status(sc, &st);
	ck_assert_int_eq(st.error, 0);
	ck_assert(!st.running);
}

static inline void lose(uint64_t blk)
{
	flip_block(blk);
}

/* ---- reading the report ---- */

static const struct cowfs_disk_scrub_entry *entry[4000];
static unsigned entries;
static uint8_t report_bytes[1 << 20];

static inline void read_report(void)
{
	static struct cowfs_ioc_report page;
	size_t len = 0, off = 0;

	entries = 0;
	page.from = 0;
	do {
		scrub_report(sc, &page);
		ck_assert_uint_le(len + page.bytes, sizeof(report_bytes));
		memcpy(report_bytes + len, page.entries, page.bytes);
		len += page.bytes;
	} while (page.from);
	while (off < len) {
		const struct cowfs_disk_scrub_entry *e =
			(const void *)(report_bytes + off);

		ck_assert_uint_lt(entries, 4000);
		entry[entries++] = e;
		off += sizeof(*e) + e->name_len + from_le16(e->text_len);
	}
	ck_assert_uint_eq(off, len);
	scrub_status(sc, &st);
	ck_assert_uint_eq(st.entries, entries);
}

static inline bool text_is(const struct cowfs_disk_scrub_entry *e, const char *name,
			   const char *text)
{
	const char *at = (const char *)(e + 1);

	return e->name_len == strlen(name) &&
	       from_le16(e->text_len) == strlen(text) &&
	       !memcmp(at, name, strlen(name)) &&
	       !memcmp(at + strlen(name), text, strlen(text));
}

/* How many owners are there of that kind? In blocks of the file. */
static inline unsigned owners(uint8_t tree, const char *snap, const char *path,
			      uint64_t lblk, uint64_t len)
{
	unsigned n = 0;

	for (unsigned i = 0; i < entries; i++) {
		const struct cowfs_disk_scrub_entry *e = entry[i];

		n += e->what == COWFS_SCRUB_FILE && e->tree == tree &&
		     text_is(e, snap, path) &&
		     from_le64(e->off) == lblk * COWFS_BLOCK_SIZE &&
		     from_le64(e->len) == len * COWFS_BLOCK_SIZE;
	}
	return n;
}

static inline unsigned of_kind(uint8_t what)
{
	unsigned n = 0;

	for (unsigned i = 0; i < entries; i++)
		n += entry[i]->what == what;
	return n;
}

static const struct cowfs_disk_scrub_entry *first_of(uint8_t what)
{
	for (unsigned i = 0; i < entries; i++)
		if (entry[i]->what == what)
			return entry[i];
	ck_abort_msg("no entry of kind %u among %u", what, entries);
	return NULL;
}

#endif
