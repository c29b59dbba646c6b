/*
 * model_names.c - random changes of names against a model in memory
 *
 * The model is a table of inodes and a table of entries, small enough to be
 * copied: a snapshot is a copy, and so is the state of the last commit, to
 * which a crash goes back. Each operation must give the error that the model
 * expects, and now and then everything is compared: live tree and snapshots.
 */
#include <dirent.h>
#include <stdio.h> /* RENAME_* */

#include "unit/fs_fixture.h"

#define INODES 96
#define ENTRIES 192
#define NAMES 14
#define SNAPS 4
#define HANDLES 12

struct m_inode {
	uint64_t ino; /* 0: not in use */
	uint32_t kind;
	uint32_t nlink;
	uint32_t tag; /* first bytes of a file's contents; 0: empty */
	unsigned parent; /* of a directory: index */
};

struct m_entry {
	bool used;
	unsigned dir, name, in; /* in: index of an inode */
};

struct state {
	struct m_inode in[INODES]; /* [0]: root */
	struct m_entry e[ENTRIES];
};

static struct state now, durable, snap[SNAPS];
static bool snap_used[SNAPS];
static uint64_t handle[HANDLES];
static struct rng rng;
static uint64_t deleted; /* one that was there */

static const char *name_of(unsigned i)
{
	static char buf[4][256];
	static unsigned turn;
	char *b = buf[turn++ % 4];

	if (i % 2) {
		memset(b, 'a' + (int)i, 240);
		b[240] = 0;
	} else {
		snprintf(b, 256, "n%u", i);
	}
	return b;
}

/* ---- the model ---- */

static struct m_entry *find(struct state *s, unsigned dir, unsigned name)
{
	unsigned i;

	for (i = 0; i < ENTRIES; i++)
		if (s->e[i].used && s->e[i].dir == dir &&
		    s->e[i].name == name)
			return &s->e[i];
	return NULL;
}

static struct m_entry *free_entry(void)
{
	unsigned i;

	for (i = 0; i < ENTRIES; i++)
		if (!now.e[i].used)
			return &now.e[i];
	return NULL;
}

static unsigned free_inode(void)
{
	unsigned i;

	for (i = 1; i < INODES; i++)
		if (!now.in[i].ino)
			return i;
	return 0;
}

static bool is_dir(unsigned i)
{
	return S_ISDIR(now.in[i].kind);
}

static bool empty(unsigned dir)
{
	unsigned i;

	for (i = 0; i < ENTRIES; i++)
		if (now.e[i].used && now.e[i].dir == dir)
			return false;
	return true;
}

static bool below(unsigned dir, unsigned top)
{
	for (; dir != top; dir = now.in[dir].parent)
		if (!dir)
			return false;
	return true;
}

static bool is_open(uint64_t ino)
{
	unsigned i;

	for (i = 0; i < HANDLES; i++)
		if (handle[i] == ino)
			return true;
	return false;
}

/* Orphans that nobody has open are gone, or soon will be. */
static void reap(struct state *s)
{
	unsigned i;

	for (i = 0; i < INODES; i++)
		if (s->in[i].ino && !s->in[i].nlink && !is_open(s->in[i].ino))
			s->in[i].ino = 0;
}

static void lose_name(unsigned i)
{
	now.in[i].nlink = is_dir(i) ? 0 : now.in[i].nlink - 1;
	if (!now.in[i].nlink)
		deleted = now.in[i].ino;
	reap(&now);
}

/* ---- choosing ---- */

static unsigned pick(bool dir)
{
	unsigned i, n = 0, got = 0;

	for (i = 0; i < INODES; i++)
		if (now.in[i].ino && now.in[i].nlink && (!dir || is_dir(i)) &&
		    rng_below(&rng, ++n) == 0)
			got = i;
	return got;
}

static unsigned pick_name(void)
{
	return (unsigned)rng_below(&rng, NAMES);
}

/* ---- operations ---- */

static void do_create(void)
{
	static const uint32_t kinds[] = { S_IFREG, S_IFREG, S_IFDIR, S_IFDIR,
					  S_IFLNK, S_IFIFO };
	uint32_t kind = kinds[rng_below(&rng, ARRAY_SIZE(kinds))];
	unsigned dir = pick(true), name = pick_name(), i = free_inode();
	struct m_entry *e = free_entry();
	const char *n = name_of(name);
	struct attr a;
	int err;

	if (!i || !e)
		return;
	err = fs_create(fs, now.in[dir].ino, n, strlen(n), kind | 0644, 0,
			S_ISLNK(kind) ? "target" : NULL, &root_cred, &a);
	if (find(&now, dir, name)) {
		ck_err(err, -EEXIST);
		return;
	}
	ck_ok(err);
	now.in[i] = (struct m_inode){ .ino = a.ino, .kind = kind,
				      .nlink = S_ISDIR(kind) ? 2 : 1,
				      .parent = dir };
	*e = (struct m_entry){ true, dir, name, i };
	if (S_ISDIR(kind))
		now.in[dir].nlink++;
}

static void do_remove(void)
{
	bool rmdir = rng_one_in(&rng, 3);
	unsigned dir = pick(true), name = pick_name(), i;
	struct m_entry *e = find(&now, dir, name);
	uint64_t d = now.in[dir].ino;
	int err;

	err = rmdir ? rmdir_it(d, name_of(name)) : unlink_it(d, name_of(name));
	if (!e) {
		ck_err(err, -ENOENT);
		return;
	}
	i = e->in;
	if (!rmdir && is_dir(i)) {
		ck_err(err, -EISDIR);
	} else if (rmdir && !is_dir(i)) {
		ck_err(err, -ENOTDIR);
	} else if (rmdir && !empty(i)) {
		ck_err(err, -ENOTEMPTY);
	} else {
		ck_ok(err);
		e->used = false;
		if (rmdir)
			now.in[dir].nlink--;
		lose_name(i);
	}
}

static void do_link(void)
{
	unsigned i = pick(false), dir = pick(true), name = pick_name();
	struct m_entry *e = free_entry();
	int err;

	if (!e)
		return;
	err = link_it(now.in[i].ino, now.in[dir].ino, name_of(name));
	if (is_dir(i)) {
		ck_err(err, -EPERM);
	} else if (find(&now, dir, name)) {
		ck_err(err, -EEXIST);
	} else {
		ck_ok(err);
		*e = (struct m_entry){ true, dir, name, i };
		now.in[i].nlink++;
	}
}

static int rename_expects(const struct m_entry *a, const struct m_entry *b,
			  unsigned newdir, unsigned flags)
{
	bool exchange = flags & RENAME_EXCHANGE;

	if (!a || (exchange && !b))
		return -ENOENT;
	if (a->dir != newdir && is_dir(a->in) && below(newdir, a->in))
		return -EINVAL;
	if (a->dir != newdir && exchange && is_dir(b->in) &&
	    below(a->dir, b->in))
		return -EINVAL;
	if (!b)
		return 0;
	if (flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (exchange || a->in == b->in)
		return 0;
	if (is_dir(a->in) != is_dir(b->in))
		return is_dir(a->in) ? -ENOTDIR : -EISDIR;
	return is_dir(b->in) && !empty(b->in) ? -ENOTEMPTY : 0;
}

static void move_parent(unsigned i, unsigned from, unsigned to)
{
	if (!is_dir(i))
		return;
	now.in[from].nlink--;
	now.in[to].nlink++;
	now.in[i].parent = to;
}

static void do_rename(void)
{
	static const unsigned all[] = { 0, 0, RENAME_NOREPLACE,
					RENAME_EXCHANGE };
	unsigned flags = all[rng_below(&rng, 4)], i, j;
	unsigned dir = pick(true), name = pick_name();
	unsigned newdir = rng_one_in(&rng, 2) ? dir : pick(true);
	unsigned newname = pick_name();
	struct m_entry *a = find(&now, dir, name);
	struct m_entry *b = find(&now, newdir, newname);
	int err, want = rename_expects(a, b, newdir, flags);

	err = rename_it(now.in[dir].ino, name_of(name), now.in[newdir].ino,
			name_of(newname), flags);
	ck_err(err, want);
	if (err || (b && a->in == b->in))
		return;
	i = a->in;
	if (flags & RENAME_EXCHANGE) {
		j = b->in;
		a->in = j;
		b->in = i;
		move_parent(i, dir, newdir);
		move_parent(j, newdir, dir);
		return;
	}
	if (b) {
		j = b->in;
		b->used = false;
		if (is_dir(j))
			now.in[newdir].nlink--;
		lose_name(j);
	}
	a->dir = newdir;
	a->name = newname;
	move_parent(i, dir, newdir);
}

static void do_write(void)
{
	unsigned i = pick(false), n, k;
	uint32_t tag = (uint32_t)rng_next(&rng) | 1;

	if (!S_ISREG(now.in[i].kind))
		return;
	/* many extents make removing it take steps */
	n = rng_one_in(&rng, 4) ? 25 : 0;
	for (k = n; k > 0; k--)
		ck_ok(fs_write(fs, now.in[i].ino, k * 8192, &tag, 4, 0));
	ck_ok(fs_write(fs, now.in[i].ino, 0, &tag, sizeof(tag), 0));
	now.in[i].tag = tag;
}

static void do_handle(void)
{
	unsigned h = (unsigned)rng_below(&rng, HANDLES), i;

	if (handle[h]) {
		fs_release(fs, handle[h], false, NULL);
		handle[h] = 0;
		reap(&now);
		return;
	}
	i = pick(false);
	ck_ok(fs_open(fs, now.in[i].ino, false, false));
	handle[h] = now.in[i].ino;
}

/* ---- states of the whole ---- */

static void snap_name(char *buf, unsigned i)
{
	snprintf(buf, 16, "snap%u", i);
}

static void do_commit(void)
{
	ck_ok(store_commit(store, NULL, NULL));
	durable = now;
}

static void do_snapshot(void)
{
	unsigned i = (unsigned)rng_below(&rng, SNAPS);
	char name[16];

	snap_name(name, i);
	if (!snap_used[i]) {
		ck_ok(snap_create(store, name, NULL));
		snap[i] = now;
		snap_used[i] = true;
		durable = now;
	} else if (rng_one_in(&rng, 2)) {
		ck_ok(fs_restore(fs, name, NULL, NULL));
		now = snap[i];
		reap(&now);
		durable = now;
	} else {
		ck_ok(fs_snap_delete(fs, name));
		snap_used[i] = false;
		durable = now;
	}
}

static void mount_small(void)
{
	struct fs_options opt = { .noatime = true };

	/* next to no cache: each operation waits for nodes */
	mount_with(&opt, 1);
	reap(&now);
	durable = now;
}

static void do_remount(void)
{
	bool crash = rng_one_in(&rng, 2);

	memset(handle, 0, sizeof(handle));
	fs_umount(fs);
	if (crash) {
		store_abandon(store);
		now = durable;
	} else {
		ck_ok(store_close(store));
	}
	mount_small();
}

/* ---- comparing ---- */

struct compare {
	struct state *s;
	struct view *v;
	unsigned dir, n;
};

static int compare_entry(void *arg, const struct fs_dirent *e)
{
	struct compare *c = arg;
	unsigned i;

	for (i = 0; i < NAMES; i++)
		if (e->len == strlen(name_of(i)) &&
		    !memcmp(e->name, name_of(i), e->len)) {
			struct m_entry *m = find(c->s, c->dir, i);

			ck_assert_msg(m != NULL, "%s is too many", name_of(i));
			ck_assert_uint_eq(e->ino, c->s->in[m->in].ino);
			ck_assert_uint_eq(e->type,
					  IFTODT(c->s->in[m->in].kind));
			c->n++;
		}
	return 0;
}

static void compare_dir(struct compare *c)
{
	struct m_inode *d = &c->s->in[c->dir];
	unsigned i, want = 0;
	struct attr a;

	for (i = 0; i < ENTRIES; i++)
		want += c->s->e[i].used && c->s->e[i].dir == c->dir;
	c->n = 0;
	ck_ok(fs_readdir(fs, c->v, d->ino, 0, true, compare_entry, c));
	ck_assert_uint_eq(c->n, want);
	if (d->nlink) {
		ck_ok(fs_lookup(fs, c->v, d->ino, "..", 2, &a));
		ck_assert_uint_eq(a.ino, c->s->in[d->parent].ino);
	}
}

static void compare_file(struct compare *c, const struct m_inode *m)
{
	uint32_t tag = 0;
	size_t got;

	ck_ok(fs_read(fs, c->v, m->ino, 0, &tag, sizeof(tag), &got));
	ck_assert_uint_eq(got, m->tag ? 4 : 0);
	ck_assert_uint_eq(tag, m->tag);
}

static void compare(struct state *s, struct view *v, bool live)
{
	struct compare c = { .s = s, .v = v };
	struct attr a;
	unsigned i;

	for (i = 0; i < INODES; i++) {
		struct m_inode *m = &s->in[i];

		if (!m->ino || (!live && !m->nlink))
			continue;
		ck_ok(fs_getattr(fs, v, m->ino, &a));
		ck_assert_uint_eq(a.nlink, m->nlink);
		ck_assert_uint_eq(a.mode & S_IFMT, m->kind);
		c.dir = i;
		if (S_ISDIR(m->kind))
			compare_dir(&c);
		else if (S_ISREG(m->kind))
			compare_file(&c, m);
	}
}

static void compare_all(void)
{
	struct view *v;
	struct attr a;
	char name[16];
	unsigned i;

	compare(&now, fs_live(fs), true);
	for (i = 0; i < SNAPS; i++) {
		if (!snap_used[i])
			continue;
		snap_name(name, i);
		ck_ok(fs_view_open(fs, name, &v));
		compare(&snap[i], v, false);
		fs_view_put(fs, v);
	}
	ck_ok(store_drain(store));
	for (i = 0; i < INODES; i++)
		if (now.in[i].ino == deleted)
			return;
	if (deleted && !is_open(deleted))
		ck_err(fs_getattr(fs, fs_live(fs), deleted, &a), -ESTALE);
}

/* Everything goes; space must come back. */
static void remove_all(void)
{
	unsigned i, left = 1;
	char name[16];

	for (i = 0; i < HANDLES; i++)
		if (handle[i])
			fs_release(fs, handle[i], false, NULL);
	memset(handle, 0, sizeof(handle));
	while (left)
		for (i = left = 0; i < ENTRIES; i++) {
			struct m_entry *e = &now.e[i];
			uint64_t d = now.in[e->dir].ino;

			if (!e->used)
				continue;
			left = 1;
			if (is_dir(e->in) && !empty(e->in))
				continue;
			ck_ok(is_dir(e->in) ? rmdir_it(d, name_of(e->name))
					    : unlink_it(d, name_of(e->name)));
			e->used = false;
		}
	for (i = 0; i < SNAPS; i++)
		if (snap_used[i]) {
			snap_name(name, i);
			ck_ok(fs_snap_delete(fs, name));
			snap_used[i] = false;
		}
}

static void change_names(unsigned n)
{
	static struct state before;
	uint64_t gen = store_durable_gen(store);

	before = now;
	if (n < 250)
		do_create();
	else if (n < 450)
		do_remove();
	else if (n < 540)
		do_link();
	else if (n < 800)
		do_rename();
	else
		do_handle();
	/* With so small a cache, beginning an operation may commit. */
	if (store_durable_gen(store) != gen)
		durable = before;
}

static void step(void)
{
	unsigned n = (unsigned)rng_below(&rng, 1000);
	uint64_t gen = store_durable_gen(store);

	if (n < 880) {
		change_names(n);
	} else if (n < 940) {
		do_write();
		if (store_durable_gen(store) != gen)
			do_commit();
	} else if (n < 960) {
		do_commit();
	} else if (n < 985) {
		do_snapshot();
	} else if (n < 992) {
		do_remount();
	} else {
		compare_all();
		/* Removing orphans may commit, too. */
		if (store_durable_gen(store) != gen)
			durable = now;
	}
}

static void run(uint32_t node_size, uint64_t stream)
{
	unsigned i, n = test_rounds(6000);
	uint64_t before;

	rng_init(&rng, test_seed(), stream);
	make(64 * MIB, node_size);
	before = free_blocks();
	umount_it();
	memset(&now, 0, sizeof(now));
	memset(snap_used, 0, sizeof(snap_used));
	now.in[0] = (struct m_inode){ .ino = ROOT, .kind = S_IFDIR,
				      .nlink = 2 };
	mount_small();
	for (i = 0; i < n; i++)
		step();
	compare_all();
	umount_it();
	test_check_device(dev);
	memset(handle, 0, sizeof(handle));
	mount_small();
	compare_all();
	remove_all();
	ck_assert_uint_eq(free_blocks(), before);
	teardown();
}

START_TEST(names_match_the_model)
{
	run(16384, 1);
}
END_TEST

START_TEST(names_match_the_model_in_small_nodes)
{
	run(4096, 2);
}
END_TEST

START_TEST(names_match_the_model_in_large_nodes)
{
	run(65536, 3);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("names model");
	TCase *tc = tcase_create("model");

	tcase_set_timeout(tc, 600);
	tcase_add_test(tc, names_match_the_model);
	tcase_add_test(tc, names_match_the_model_in_small_nodes);
	tcase_add_test(tc, names_match_the_model_in_large_nodes);
	suite_add_tcase(s, tc);
	return test_main(s);
}
