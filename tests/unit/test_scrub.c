/*
 * test_scrub.c - scrub: stretches, going on, what damage belongs to
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cowfs/ioctl.h"
#include "support/image.h"

#define MIB (UINT64_C(1) << 20)

static struct scrub *sc;
static struct cowfs_ioc_scrub st;

static void new_scrub(uint64_t window)
{
	ck_ok(scrub_new(store, &sc));
	if (window)
		scrub_set_window(sc, window, 30000);
}

static void free_scrub(void)
{
	scrub_free(sc);
	sc = NULL;
}

static void run_it(bool resume, int (*progress)(void *arg))
{
	ck_ok(scrub_here(sc, resume, 0, progress, NULL));
	scrub_status(sc, &st);
	ck_assert_int_eq(st.error, 0);
	ck_assert(!st.running);
}

/* ---- reading the report ---- */

static const struct cowfs_disk_scrub_entry *entry[4000];
static unsigned entries;
static uint8_t report_bytes[1 << 20];

static void read_report(void)
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

static bool text_is(const struct cowfs_disk_scrub_entry *e, const char *name,
		    const char *text)
{
	const char *at = (const char *)(e + 1);

	return e->name_len == strlen(name) &&
	       from_le16(e->text_len) == strlen(text) &&
	       !memcmp(at, name, strlen(name)) &&
	       !memcmp(at + strlen(name), text, strlen(text));
}

/* How many owners are there of that kind? In blocks of the file. */
static unsigned owners(uint8_t tree, const char *snap, const char *path,
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

static unsigned of_kind(uint8_t what)
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

/* ---- counts ---- */

/* Snapshots that share most of their extents with others. */
static void make_history(void)
{
	char name[32];

	for (unsigned i = 0; i < 8; i++) {
		uint64_t ino, copied;

		snprintf(name, sizeof(name), "snap-%u", i);
		ck_ok(snap_create(store, name, NULL));
		fill(ino_big, i * 100000, 30000, i);
		ino = make_node(1, name, S_IFREG | 0644, NULL);
		ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, ino, 0,
				    BIG_BLOCKS << 12, &copied));
		fill(ino, i * 4096 * 3, 20000, i + 50);
	}
	ck_ok(store_commit(store, NULL, NULL));
}

static void assert_counted_once(void)
{
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(st.checksums, st.blocks - st.prealloc_blocks);
	ck_assert_uint_eq(st.prealloc_blocks, 50);
	ck_assert_uint_eq(st.done, st.total);
}

START_TEST(every_window_gives_the_same_counts)
{
	static const uint64_t windows[] = { 0, 100000, 20000, 3000, 500, 64 };
	struct check_options opt = { .data = true };
	struct check_result res;

	make_history();
	ck_ok(check_run(store, &opt, &res));
	ck_assert_uint_gt(res.data_blocks, BIG_BLOCKS);
	for (unsigned i = 0; i < 6; i++) {
		new_scrub(windows[i]);
		run_it(false, NULL);
		assert_counted_once();
		ck_assert_uint_eq(st.data_blocks, res.data_blocks);
		ck_assert_uint_eq(st.snapshots, 8);
		/* its own record may have cost a node */
		ck_assert_uint_le(st.nodes, res.nodes + 2);
		ck_assert_uint_ge(st.nodes, res.nodes);
		free_scrub();
	}
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- going on ---- */

static void lose(uint64_t blk)
{
	flip_block(blk);
}

static unsigned calls, stop_at;

static int pause_there(void *arg)
{
	(void)arg;
	if (++calls == stop_at)
		ck_ok(scrub_pause(sc));
	return 0;
}

/* The ways in which a scrub comes to be gone on with. */
static void interrupt(unsigned how)
{
	if (how == 0) /* paused only */
		return;
	if (how == 1) {
		free_scrub();
		unmount_it();
	} else {
		ck_ok(store_commit(store, NULL, NULL));
		free_scrub();
		fs_umount(fs);
		store_abandon(store); /* as in a crash */
		store = NULL;
	}
	mount_it();
	new_scrub(2000);
	scrub_status(sc, &st);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert(!st.running);
}

START_TEST(paused_anywhere_and_resumed_counts_each_block_once)
{
	uint64_t data;
	bool ended;

	make_history();
	new_scrub(2000);
	run_it(false, NULL);
	data = st.data_blocks;
	free_scrub();
	for (stop_at = 1, ended = false; !ended; stop_at++) {
		uint64_t before;

		new_scrub(2000);
		calls = 0;
		run_it(false, pause_there);
		ended = st.state == COWFS_SCRUB_FINISHED;
		before = st.data_blocks;
		if (!ended) {
			interrupt(stop_at % 3);
			ck_assert_uint_eq(st.data_blocks, before);
			run_it(true, NULL);
		}
		assert_counted_once();
		ck_assert_uint_eq(st.data_blocks, data);
		free_scrub();
	}
	ck_assert_uint_gt(stop_at, 10);
	unmount_it();
	assert_clean();
}
END_TEST

static struct bdev *copy;

/* The device as a crash would leave it now. */
static int copy_there(void *arg)
{
	(void)arg;
	if (++calls == stop_at) {
		ck_ok(store_commit(store, NULL, NULL));
		ck_ok(dev_copy(copy, dev));
	}
	return 0;
}

START_TEST(after_a_crash_it_goes_on_from_where_it_was_noted)
{
	struct bdev *keep = dev;
	unsigned under_way = 0;
	int64_t early;
	uint64_t data;

	make_history();
	lose(big_block() + 20);
	new_scrub(2000);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 1);
	data = st.data_blocks;
	early = st.began;
	for (stop_at = 3; stop_at < 13; stop_at++) {
		ck_ok(bdev_open_mem(DEV_BYTES, &copy));
		scrub_set_window(sc, 2000, 0);
		calls = 0;
		run_it(false, copy_there);
		free_scrub();
		unmount_it();
		dev = copy;
		mount_it();
		new_scrub(2000);
		scrub_status(sc, &st);
		ck_assert_int_eq(st.state, COWFS_SCRUB_RUNNING);
		ck_assert(!st.running);
		ck_assert_int_ge(st.began, early);
		ck_assert_uint_lt(st.data_blocks, data);
		under_way += st.data_blocks > 0;
		run_it(true, NULL);
		ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
		ck_assert_uint_eq(st.data_blocks, data);
		ck_assert_uint_eq(st.lost, 1);
		ck_assert_uint_eq(st.problems, 1);
		read_report();
		ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
		free_scrub();
		unmount_it();
		bdev_close(copy);
		dev = keep;
		mount_it();
		new_scrub(2000);
	}
	ck_assert_uint_gt(under_way, 4);
	free_scrub();
}
END_TEST

START_TEST(what_was_verified_is_not_read_again)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	new_scrub(1000);
	calls = 0;
	stop_at = 4; /* some windows are done then */
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert_uint_gt(st.data_blocks, 1);
	ck_assert_uint_lt(st.data_blocks, BIG_BLOCKS - 10);
	lose(blk);                  /* done */
	lose(blk + BIG_BLOCKS - 5); /* not yet */
	run_it(true, NULL);
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.lost, 1);
	read_report();
	ck_assert_uint_eq(from_le64(first_of(COWFS_SCRUB_DATA)->blk),
			  blk + BIG_BLOCKS - 5);
	run_it(false, NULL); /* anew */
	ck_assert_uint_eq(st.lost, 2);
	free_scrub();
}
END_TEST

START_TEST(damage_found_before_a_pause_stays_in_the_report)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	lose(blk);
	new_scrub(1000);
	calls = 0;
	stop_at = 5;
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_assert_uint_eq(st.lost, 1);
	interrupt(1);
	ck_assert_uint_eq(st.lost, 1);
	run_it(true, NULL);
	ck_assert_uint_eq(st.lost, 1);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	/* and after it has ended, too */
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_int_eq(st.state, COWFS_SCRUB_FINISHED);
	ck_assert_uint_eq(st.damaged, 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	/* a new one forgets it */
	fill(ino_big, 0, 4096, 2);
	run_it(false, NULL);
	read_report();
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(entries, 0);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_uint_eq(entries, 0);
	free_scrub();
}
END_TEST

START_TEST(the_verbs_refuse_what_makes_no_sense)
{
	new_scrub(1000);
	ck_err(scrub_pause(sc), -ESRCH);
	ck_err(scrub_cancel(sc), -ESRCH);
	ck_err(scrub_set_rate(sc, 1), -ESRCH);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	calls = 0;
	stop_at = 3;
	run_it(false, pause_there);
	ck_assert_int_eq(st.state, COWFS_SCRUB_PAUSED);
	ck_ok(scrub_cancel(sc));
	scrub_status(sc, &st);
	ck_assert(st.cancelled);
	ck_err(scrub_cancel(sc), -ESRCH);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	ck_err(scrub_start(sc, true, 0), -ENOENT);
	run_it(false, NULL);
	ck_assert(st.finished);
	free_scrub();
}
END_TEST

/* ---- in the background ---- */

static void wait_end(void)
{
	for (unsigned i = 0; i < 30000; i++) {
		scrub_status(sc, &st);
		if (!st.running)
			return;
		usleep(1000);
	}
	ck_abort_msg("scrub does not end");
}

static uint64_t now_ms(void)
{
	return now_ns() / 1000000;
}

START_TEST(a_rate_is_kept_and_can_be_changed)
{
	uint64_t began = now_ms();

	new_scrub(0);
	ck_ok(scrub_start(sc, false, 4 * MIB));
	ck_err(scrub_start(sc, false, 0), -EBUSY);
	wait_end();
	ck_assert(st.finished);
	ck_assert_uint_eq(st.rate, 4 * MIB);
	/* 1.2 MB of data, and nodes */
	ck_assert_uint_gt(now_ms() - began, 200);
	began = now_ms();
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	scrub_status(sc, &st);
	ck_assert(st.running);
	ck_ok(scrub_set_rate(sc, 0));
	wait_end();
	ck_assert(st.finished);
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	ck_ok(scrub_cancel(sc));
	wait_end();
	ck_assert(st.cancelled);
	ck_ok(scrub_start(sc, false, 1));
	usleep(30000);
	free_scrub(); /* an unmount waits for nothing */
	ck_assert_uint_lt(now_ms() - began, 20000);
	new_scrub(0);
	scrub_status(sc, &st);
	ck_assert_int_eq(st.state, COWFS_SCRUB_RUNNING);
	ck_assert(!st.running);
	ck_ok(scrub_start(sc, true, 0));
	wait_end();
	ck_assert(st.finished);
	free_scrub();
}
END_TEST

struct upset {
	_Atomic bool end;
	unsigned rounds;
};

/* What may happen to trees while they are walked. */
static void *upset_trees(void *arg)
{
	struct upset *u = arg;

	for (unsigned i = 0; !atomic_load(&u->end); i++, u->rounds++) {
		char name[32];

		snprintf(name, sizeof(name), "up-%u", i);
		ck_ok(snap_create(store, name, NULL));
		fill(ino_big, i % 50 * 20000, 90000, i);
		if (i % 3 == 2) {
			snprintf(name, sizeof(name), "up-%u", i - 1);
			ck_ok(fs_restore(fs, name,
					 i % 2 ? NULL : COWFS_SNAP_UNDO));
		}
		if (i >= 4) {
			snprintf(name, sizeof(name), "up-%u", i - 4);
			ck_ok(fs_snap_delete(fs, name));
		}
		if (i % 4 == 0)
			ck_ok(store_commit(store, NULL, NULL));
	}
	return NULL;
}

START_TEST(snapshots_may_come_and_go_and_be_restored)
{
	unsigned rounds = test_rounds(12);
	struct upset u = { .rounds = 0 };
	pthread_t thread;

	ck_ok(store_start(store));
	new_scrub(3000);
	ck_assert_int_eq(pthread_create(&thread, NULL, upset_trees, &u), 0);
	for (unsigned i = 0; i < rounds; i++) {
		ck_ok(scrub_start(sc, false, 0));
		/* not for ever: each time all metadata is walked again, which
		 * takes longer than the pause where programs are slow */
		for (unsigned k = 0; k < 5 && i % 3 == 2 &&
				     scrub_pause(sc) == 0; k++) {
			wait_end();
			if (st.state == COWFS_SCRUB_PAUSED)
				ck_ok(scrub_start(sc, true, 0));
			usleep(3000);
		}
		do {
			static struct cowfs_ioc_report page;

			page.from = i * 7;
			scrub_report(sc, &page);
			scrub_status(sc, &st);
			usleep(500);
		} while (st.running);
		ck_assert_int_eq(st.error, 0);
		ck_assert_uint_eq(st.problems, 0);
		ck_assert(st.finished);
	}
	atomic_store(&u.end, true);
	pthread_join(thread, NULL);
	ck_assert_uint_gt(u.rounds, 3);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- whose it is ---- */

START_TEST(every_name_snapshot_and_clone_of_a_lost_block_is_named)
{
	uint64_t blk = big_block(), clone, copied;
	struct attr a;

	ck_ok(fs_link(fs, ino_big, 1, "hard", 4, &a));
	ck_ok(snap_create(store, "one", NULL));
	ck_ok(fs_rename(fs, ino_dir, "big", 3, ino_sub, "new\nname", 8, 0));
	clone = make_node(ino_sub, "clone", S_IFREG | 0644, NULL);
	ck_ok(fs_copy_range(fs, fs_live(fs), ino_big, 0, clone, 5 << 12,
			    8 << 12, &copied));
	ck_ok(snap_create(store, "two", NULL));
	fill(ino_big, 2 << 12, 1 << 12, 77); /* not damaged in the live tree */
	ck_ok(fs_unlink(fs, 1, "hard", 4, NULL));
	ck_ok(store_commit(store, NULL, NULL));
	for (unsigned i = 1; i < 4; i++)
		lose(blk + i);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 3);
	ck_assert_uint_eq(st.problems, 3);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), 1);
	ck_assert_uint_eq(from_le64(entry[0]->blocks), 3);
	ck_assert_uint_eq(entry[0]->fate, COWFS_SCRUB_LOST);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/new\nname",
				 1, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/new\nname",
				 3, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/sub/clone", 6, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "one", "/dir/big", 1,
				 3), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "one", "/hard", 1, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two",
				 "/dir/sub/new\nname", 1, 3), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two", "/hard", 1, 3),
			  1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_SNAPSHOT, "two",
				 "/dir/sub/clone", 6, 3), 1);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), 8);
	free_scrub();
}
END_TEST

START_TEST(a_deeper_path_than_fits_loses_its_beginning)
{
	char name[201] = "";
	uint64_t dir = 1, ino, blk;
	const struct cowfs_disk_scrub_entry *e;
	uint16_t len;

	for (unsigned i = 0; i < 30; i++) {
		memset(name, 'a' + (int)i % 26, 200);
		dir = make_node(dir, name, S_IFDIR | 0755, NULL);
	}
	ino = make_node(dir, "the file", S_IFREG | 0644, NULL);
	fill(ino, 0, 100000, 3);
	ck_ok(store_commit(store, NULL, NULL));
	{
		struct cowfs_disk_extent d[40];
		struct key k;

		(void)get_first(COWFS_ROOT_FS, ino, COWFS_KEY_EXTENT, &k, d);
		blk = from_le64(d[0].blk);
	}
	lose(blk);
	for (unsigned i = 0; i < 2; i++) {
		new_scrub(0);
		if (!i)
			run_it(false, NULL);
		read_report();
		e = first_of(COWFS_SCRUB_FILE);
		len = from_le16(e->text_len);
		ck_assert(!memcmp(e + 1, "...", 3));
		ck_assert(!memcmp((const char *)(e + 1) + len - 9, "/the file",
				  9));
		/* what is kept on disk is shorter still */
		ck_assert_uint_eq(len > 4000, !i);
		free_scrub();
		unmount_it();
		mount_it();
	}
}
END_TEST

static int unlink_when_seen(void *arg)
{
	(void)arg;
	scrub_status(sc, &st);
	if (st.lost && !calls) {
		calls++;
		ck_ok(fs_unlink(fs, ino_dir, "big", 3, NULL));
		ck_ok(store_commit(store, NULL, NULL));
	}
	return 0;
}

static int overwrite_when_seen(void *arg)
{
	(void)arg;
	scrub_status(sc, &st);
	if (st.lost == 2 && !calls) {
		calls++;
		fill(ino_big, 0, 4096, 88);
		ck_ok(store_commit(store, NULL, NULL));
	}
	return 0;
}

START_TEST(what_is_freed_meanwhile_is_not_reported)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	lose(blk);
	lose(blk + 1);
	new_scrub(1000);
	calls = 0;
	run_it(false, overwrite_when_seen);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_eq(st.lost, 1);
	ck_assert_uint_eq(st.problems, 1);
	read_report();
	ck_assert_uint_eq(entries, 2);
	ck_assert_uint_eq(from_le64(entry[0]->blk), blk + 1);
	calls = 0;
	run_it(false, unlink_when_seen);
	ck_assert_uint_eq(calls, 1);
	ck_assert_uint_eq(st.lost, 0);
	ck_assert_uint_eq(st.problems, 0);
	ck_assert_uint_eq(st.damaged, 0);
	read_report();
	ck_assert_uint_eq(entries, 0);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

/* Both copies of the leaf that has the extents of "big", on the device. */
static struct nptr leaf_of_big(void)
{
	struct key k = KEY(ino_big, COWFS_KEY_EXTENT, 0);
	struct nptr p = store->fs.root;
	static uint8_t node[4096];

	while (p.level) {
		unsigned i, n;

		ck_ok(bdev_read(dev, p.blk * 4096, node, sizeof(node)));
		n = node_count(node);
		for (i = 0; i + 1 < n; i++) {
			struct key next = node_key(node, i + 1);

			if (key_cmp(&next, &k) > 0)
				break;
		}
		p = node_child(node, i);
	}
	return p;
}

START_TEST(a_lost_node_is_named_with_what_lies_below_it)
{
	const struct cowfs_disk_scrub_entry *e;
	struct nptr p;

	ck_ok(snap_create(store, "one", NULL));
	make_node(1, "later", S_IFREG | 0644, NULL);
	ck_ok(store_commit(store, NULL, NULL));
	p = leaf_of_big();
	flip_block(p.blk);
	flip_block(p.blk2);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.lost, 1);
	ck_assert_uint_eq(st.problems, 1);
	ck_assert_uint_eq(st.damaged, 1);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_NODE), 1);
	e = first_of(COWFS_SCRUB_NODE);
	ck_assert_uint_eq(from_le64(e->blk), p.blk);
	ck_assert_uint_eq(e->root, COWFS_ROOT_FS);
	ck_assert_uint_eq(e->level, 0);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_PART), 2);
	for (unsigned i = 0; i < entries; i++) {
		if (entry[i]->what != COWFS_SCRUB_PART)
			continue;
		ck_assert_uint_le(from_le64(entry[i]->ino), ino_big);
		ck_assert_uint_ge(from_le64(entry[i]->ino_last), ino_big);
		ck_assert_uint_lt(from_le64(entry[i]->ino_last), UINT64_MAX);
	}
	free_scrub();
}
END_TEST

START_TEST(bad_copies_are_repaired_and_named)
{
	struct cowfs_disk_extent d[40];
	uint64_t blk = big_block();
	struct key k;

	ck_ok(store_commit(store, NULL, NULL));
	(void)get_first(COWFS_ROOT_FS, ino_big, COWFS_KEY_EXTENT, &k, d);
	flip_block(blk);
	flip_block(from_le64(d[0].blk2) + 2);
	flip_block(store->space.root.blk2);
	new_scrub(0);
	run_it(false, NULL);
	ck_assert_uint_eq(st.problems, 3);
	ck_assert_uint_eq(st.repaired, 3);
	ck_assert_uint_eq(st.damaged, 0);
	read_report();
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 0, 1), 1);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 2, 1), 1);
	ck_assert_uint_eq(first_of(COWFS_SCRUB_NODE)->root,
			  COWFS_ROOT_SPACE);
	for (unsigned i = 0; i < entries; i++)
		if (entry[i]->what <= COWFS_SCRUB_NODE)
			ck_assert_uint_eq(entry[i]->fate,
					  COWFS_SCRUB_REPAIRED);
	run_it(false, NULL);
	ck_assert_uint_eq(st.problems, 0);
	free_scrub();
	unmount_it();
	assert_clean();
}
END_TEST

START_TEST(a_read_only_store_is_reported_and_left_alone)
{
	struct store_config cfg = { .flags = STORE_READONLY };
	uint64_t blk = big_block();
	struct bdev *log;

	unmount_it();
	flip_block(blk + 7);
	ck_ok(log_open(dev, &log));
	cfg.dev = log;
	ck_ok(store_open(&cfg, &store));
	new_scrub(1000);
	run_it(false, NULL);
	ck_assert(st.finished);
	ck_assert_uint_eq(st.problems, 1);
	ck_assert_uint_eq(st.repaired, 0);
	ck_assert_uint_eq(st.damaged, 1);
	read_report();
	ck_assert_uint_eq(first_of(COWFS_SCRUB_DATA)->fate,
			  COWFS_SCRUB_ONE_BAD);
	ck_assert_uint_eq(owners(COWFS_SCRUB_LIVE, "", "/dir/big", 7, 1), 1);
	for (size_t i = 0; i < log_count(log); i++)
		ck_assert(log_get(log, i)->kind != LOG_WRITE);
	free_scrub();
	store_abandon(store);
	store = NULL;
	bdev_close(log);
}
END_TEST

START_TEST(many_ranges_of_damage_fill_pages)
{
	uint64_t blk = big_block();

	ck_ok(store_commit(store, NULL, NULL));
	for (unsigned i = 0; i < BIG_BLOCKS - 4; i += 2)
		lose(blk + i);
	new_scrub(0);
	run_it(false, NULL);
	read_report();
	/* a hole of four blocks in the file: two ranges there are none */
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_DATA), st.lost);
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), st.lost);
	ck_assert_uint_gt(st.lost, 140);
	free_scrub();
	unmount_it();
	mount_it();
	new_scrub(0);
	read_report();
	ck_assert_uint_eq(of_kind(COWFS_SCRUB_FILE), st.lost);
	/* a page from anywhere is no harm */
	for (uint64_t from = 0; from < 40000; from += 3) {
		static struct cowfs_ioc_report page;

		page.from = from;
		scrub_report(sc, &page);
		ck_assert_uint_le(page.bytes, COWFS_IOC_REPORT_BYTES);
	}
	free_scrub();
}
END_TEST

/* ---- a record that cannot be ---- */

START_TEST(a_record_that_cannot_be_is_no_record)
{
	struct rng r;
	uint8_t junk[300];

	rng_init(&r, test_seed(), 9);
	for (unsigned i = 0; i < test_rounds(300); i++) {
		uint32_t len = (uint32_t)rng_range(&r, 1, sizeof(junk));
		uint64_t n = rng_below(&r, 4);

		rng_fill(&r, junk, sizeof(junk));
		if (rng_one_in(&r, 2) && !n)
			len = sizeof(struct cowfs_disk_scrub);
		if (rng_one_in(&r, 2)) { /* nearly right */
			junk[0] = (uint8_t)rng_below(&r, 6);
			memset(junk + 1, 0, 7);
			memset(junk + 0x2a, 0, 6);
		}
		put(COWFS_ROOT_SNAP,
		    KEY(0, COWFS_KEY_SETTING,
			COWFS_SETTING(COWFS_SETTING_SCRUB, n)), junk, len);
		new_scrub(3000);
		read_report();
		if (i % 16 == 0) {
			ck_assert_int_eq(scrub_here(sc, true, 0, NULL, NULL) %
						 ENOENT, 0);
			run_it(false, NULL);
			ck_assert_uint_eq(st.problems, 0);
		}
		free_scrub();
	}
	unmount_it();
	assert_clean();
}
END_TEST

/* ---- */

static Suite *scrub_suite(void)
{
	Suite *s = suite_create("scrub");
	TCase *t = tcase_create("one copy of data");
	TCase *two = tcase_create("two copies");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 300);
	tcase_add_test(t, every_window_gives_the_same_counts);
	tcase_add_test(t, paused_anywhere_and_resumed_counts_each_block_once);
	tcase_add_test(t, after_a_crash_it_goes_on_from_where_it_was_noted);
	tcase_add_test(t, what_was_verified_is_not_read_again);
	tcase_add_test(t, damage_found_before_a_pause_stays_in_the_report);
	tcase_add_test(t, the_verbs_refuse_what_makes_no_sense);
	tcase_add_test(t, a_rate_is_kept_and_can_be_changed);
	tcase_add_test(t, snapshots_may_come_and_go_and_be_restored);
	tcase_add_test(t, every_name_snapshot_and_clone_of_a_lost_block_is_named);
	tcase_add_test(t, a_deeper_path_than_fits_loses_its_beginning);
	tcase_add_test(t, what_is_freed_meanwhile_is_not_reported);
	tcase_add_test(t, a_lost_node_is_named_with_what_lies_below_it);
	tcase_add_test(t, many_ranges_of_damage_fill_pages);
	tcase_add_test(t, a_record_that_cannot_be_is_no_record);
	suite_add_tcase(s, t);
	tcase_add_checked_fixture(two, setup_two, teardown);
	tcase_set_timeout(two, 300);
	tcase_add_test(two, bad_copies_are_repaired_and_named);
	tcase_add_test(two, a_read_only_store_is_reported_and_left_alone);
	suite_add_tcase(s, two);
	return s;
}

int main(void)
{
	return test_main(scrub_suite());
}
