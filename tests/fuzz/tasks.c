/*
 * tasks.c - what runs in the background, on images that lie
 */
#include <string.h>

#include "check/check.h"
#include "cowfs/ioctl.h"
#include "fuzz/hostile.h"
#include "snapshot/snapshot.h"

static int ignored; /* errors that do not matter here */

#define TRY(call) (ignored |= (call))

static void read_entry(const struct cowfs_disk_scrub_entry *e, size_t left,
		       size_t *len)
{
	require(left >= sizeof(*e), "head of an entry of a report");
	*len = sizeof(*e) + e->name_len + from_le16(e->text_len);
	require(*len <= left, "length of an entry of a report");
}

static void read_report(struct scrub *sc)
{
	static struct cowfs_ioc_report page;
	uint64_t from = 0;
	size_t off, len;

	do {
		page.from = from;
		scrub_report(sc, &page);
		require(page.bytes <= sizeof(page.entries), "size of a page");
		for (off = 0; off < page.bytes; off += len)
			read_entry((const void *)(page.entries + off),
				   page.bytes - off, &len);
		require(!page.from || page.from > from, "pages ascend");
		from = page.from;
	} while (from);
}

void scrub_it(struct store *s, uint64_t seed)
{
	struct cowfs_ioc_scrub st;
	struct scrub *sc;

	if (scrub_new(s, &sc))
		return;
	scrub_status(sc, &st);
	read_report(sc);
	if (!store_readonly(s)) {
		if (seed & 1)
			scrub_set_window(sc, 4096, 0);
		/* no resting */
		TRY(scrub_here(sc, seed & 2, UINT64_C(1) << 40, NULL, NULL));
		scrub_status(sc, &st);
		read_report(sc);
	}
	scrub_free(sc);
}

void redundancy_it(struct store *s, uint64_t seed)
{
	static const uint32_t count[] = { 2, 3, 0, 2 };
	struct redun_status st;

	TRY(redun_get(s, &st));
	TRY(redun_set(s, count[seed % 4]));
	TRY(store_drain(s));
	TRY(redun_get(s, &st));
}
