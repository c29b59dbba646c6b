/*
 * test_xattr.c - extended attributes and POSIX ACLs
 */
#include <sys/xattr.h>

#include "fs/private.h"
#include "unit/fs_fixture.h"

static int set(uint64_t ino, const char *name, const void *val, size_t len,
	       int flags)
{
	return fs_setxattr(fs, ino, name, val, len, flags, &root_cred);
}

static int get(uint64_t ino, const char *name, void *buf, size_t size,
	       size_t *len)
{
	return fs_getxattr(fs, fs_live(fs), ino, name, buf, size, len);
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
	struct rng r;

	rng_init(&r, seed, 1);
	rng_fill(&r, buf, len);
}

static void expect(uint64_t ino, const char *name, size_t want, unsigned seed)
{
	uint8_t *buf = malloc(65537), *ref = malloc(65537);
	size_t len = 0;

	fill(ref, 65537, seed);
	ck_ok(get(ino, name, NULL, 0, &len));
	ck_assert_uint_eq(len, want);
	ck_ok(get(ino, name, buf, 65537, &len));
	ck_assert_uint_eq(len, want);
	ck_assert(!memcmp(buf, ref, want));
	if (want > 1)
		ck_err(get(ino, name, buf, want - 1, &len), -ERANGE);
	free(buf);
	free(ref);
}

/* ---- plain ones ---- */

START_TEST(values_of_all_lengths_replace_each_other)
{
	static const size_t lens[] = { 0, 1, 700, 722, 723, 1444, 1445, 3000,
				       3809, 3810, 20000, 65536, 65535, 5, 0,
				       65536, 40000, 3810, 3809, 723 };
	uint64_t f = make_file(ROOT, "f"), before = free_blocks();
	uint8_t *val = malloc(65537);
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		fill(val, 65537, i);
		ck_ok(set(f, "user.value", val, lens[i], 0));
		expect(f, "user.value", lens[i], i);
		if (i % 4 == 0) {
			remount();
			expect(f, "user.value", lens[i], i);
		}
	}
	ck_err(set(f, "user.value", val, 65537, 0), -E2BIG);
	ck_ok(fs_removexattr(fs, f, "user.value"));
	free(val);
	ck_assert_uint_eq(free_blocks(), before);
}
END_TEST

START_TEST(create_and_replace_mean_what_they_say)
{
	uint64_t f = make_file(ROOT, "f");
	size_t len;
	char buf[8];

	ck_err(set(f, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
	ck_ok(set(f, "user.a", "1", 1, XATTR_CREATE));
	ck_err(set(f, "user.a", "2", 1, XATTR_CREATE), -EEXIST);
	ck_ok(set(f, "user.a", "22", 2, XATTR_REPLACE));
	ck_ok(get(f, "user.a", buf, sizeof(buf), &len));
	ck_assert_uint_eq(len, 2);
	ck_assert_mem_eq(buf, "22", 2);
	ck_err(set(f, "user.a", "1", 1, 3), -EINVAL);
	ck_err(set(f, "user.a", "1", 1, 8), -EINVAL);
	ck_err(fs_removexattr(fs, f, "user.b"), -ENODATA);
	ck_ok(fs_removexattr(fs, f, "user.a"));
	ck_err(get(f, "user.a", buf, sizeof(buf), &len), -ENODATA);
	ck_err(set(9999, "user.a", "1", 1, 0), -ESTALE);
}
END_TEST

START_TEST(names_outside_the_known_spaces_are_refused)
{
	uint64_t f = make_file(ROOT, "f");
	char name[300] = "user.";
	size_t len;

	ck_err(set(f, "other.a", "1", 1, 0), -EOPNOTSUPP);
	ck_err(set(f, "system.other", "1", 1, 0), -EOPNOTSUPP);
	ck_err(set(f, "user.", "1", 1, 0), -EINVAL);
	ck_err(set(f, "", "1", 1, 0), -ERANGE);
	memset(name + 5, 'n', 251);
	ck_err(set(f, name, "1", 1, 0), -ERANGE);
	ck_err(get(f, name, NULL, 0, &len), -ERANGE);
	name[255] = 0;
	ck_ok(set(f, name, "1", 1, 0));
	ck_ok(set(f, "trusted.x", "1", 1, 0));
	ck_ok(set(f, "security.selinux", "1", 1, 0));
	ck_ok(get(f, name, NULL, 0, &len));
}
END_TEST

START_TEST(long_names_with_long_values_fit_the_smallest_nodes)
{
	uint64_t f = make_file(ROOT, "f");
	uint8_t val[4000];
	char name[256] = "user.";
	size_t len;

	memset(name + 5, 'n', 250);
	for (len = 690; len < 740; len++) {
		fill(val, sizeof(val), (unsigned)len);
		ck_ok(set(f, name, val, len, 0));
		expect(f, name, len, (unsigned)len);
	}
	for (len = 3780; len < 3830; len++) {
		fill(val, sizeof(val), (unsigned)len);
		ck_ok(set(f, name, val, len, 0));
		expect(f, name, len, (unsigned)len);
	}
}
END_TEST

static unsigned count_names(const char *buf, size_t len)
{
	unsigned n = 0;
	size_t i;

	for (i = 0; i < len; i++)
		n += !buf[i];
	return n;
}

START_TEST(any_number_of_attributes_is_listed)
{
	uint64_t f = make_file(ROOT, "f");
	size_t len, whole;
	char name[64], *buf = malloc(1 << 20);
	uint8_t val[900];
	unsigned i;

	ck_ok(fs_listxattr(fs, fs_live(fs), f, NULL, 0, &len));
	ck_assert_uint_eq(len, 0);
	for (i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "user.number %u", i);
		fill(val, sizeof(val), i);
		ck_ok(set(f, name, val, i % sizeof(val), 0));
	}
	remount();
	ck_ok(fs_listxattr(fs, fs_live(fs), f, NULL, 0, &whole));
	ck_ok(fs_listxattr(fs, fs_live(fs), f, buf, 1 << 20, &len));
	ck_assert_uint_eq(len, whole);
	ck_assert_uint_eq(count_names(buf, len), 2000);
	ck_ok(fs_listxattr(fs, fs_live(fs), f, buf, whole, &len));
	ck_err(fs_listxattr(fs, fs_live(fs), f, buf, whole - 1, &len),
	       -ERANGE);
	for (i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "user.number %u", i);
		expect(f, name, i % sizeof(val), i);
		if (i % 2)
			ck_ok(fs_removexattr(fs, f, name));
	}
	ck_ok(fs_listxattr(fs, fs_live(fs), f, buf, 1 << 20, &len));
	ck_assert_uint_eq(count_names(buf, len), 1000);
	free(buf);
	/* too many for one step: an orphan, then nothing */
	ck_ok(unlink_it(ROOT, "f"));
	ck_assert_uint_eq(attr_of(f).nlink, 0);
	ck_ok(store_drain(store));
	ck_err(fs_listxattr(fs, fs_live(fs), f, NULL, 0, &len), -ESTALE);
}
END_TEST

START_TEST(attributes_are_those_of_the_view)
{
	uint64_t f = make_file(ROOT, "f");
	struct view *v;
	size_t len;
	char buf[8];

	ck_ok(set(f, "user.a", "old", 3, 0));
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(set(f, "user.a", "newer", 5, 0));
	ck_ok(fs_view_open(fs, "s", &v));
	ck_ok(fs_getxattr(fs, v, f, "user.a", buf, sizeof(buf), &len));
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(buf, "old", 3);
	fs_view_put(fs, v);
	ck_ok(fs_restore(fs, "s", NULL, NULL));
	ck_ok(get(f, "user.a", buf, sizeof(buf), &len));
	ck_assert_uint_eq(len, 3);
}
END_TEST

START_TEST(capability_goes_with_the_owner)
{
	uint64_t f = make_file(ROOT, "f");
	size_t len;

	ck_ok(set(f, CAPABILITY_NAME, "cap", 3, 0));
	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 0700 },
		       &root_cred));
	ck_ok(get(f, CAPABILITY_NAME, NULL, 0, &len));
	ck_ok(set_attr(f, FS_SET_UID, (struct attr){ .uid = 5 }, &root_cred));
	ck_err(get(f, CAPABILITY_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(set(f, CAPABILITY_NAME, "cap", 3, 0));
	ck_ok(fs_write(fs, f, 0, "x", 1, FS_WRITE_KILL_PRIV));
	ck_err(get(f, CAPABILITY_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(set(f, CAPABILITY_NAME, "cap", 3, 0));
	ck_ok(set_attr(f, FS_SET_SIZE | FS_SET_KILL_PRIV,
		       (struct attr){ .size = 0 }, &user_cred));
	ck_err(get(f, CAPABILITY_NAME, NULL, 0, &len), -ENODATA);
}
END_TEST

START_TEST(setting_marks_ctime_only)
{
	uint64_t f = make_file(ROOT, "f");
	struct attr a = attr_of(f), b;

	while (!later(now_real(), a.ctime))
		;
	ck_ok(set(f, "user.a", "1", 1, 0));
	b = attr_of(f);
	ck_assert(later(b.ctime, a.ctime));
	ck_assert(!later(b.mtime, a.mtime));
}
END_TEST

/* ---- ACLs ---- */

struct acl {
	size_t len;
	uint8_t b[256];
};

enum { U_OBJ = 1, USER = 2, G_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

static void acl_begin(struct acl *a)
{
	memset(a, 0, sizeof(*a));
	a->b[0] = 2;
	a->len = 4;
}

static void acl_add(struct acl *a, unsigned tag, unsigned perm, uint32_t id)
{
	uint8_t *p = a->b + a->len;

	p[0] = (uint8_t)tag;
	p[2] = (uint8_t)perm;
	p[4] = (uint8_t)id;
	p[5] = (uint8_t)(id >> 8);
	p[6] = (uint8_t)(id >> 16);
	p[7] = (uint8_t)(id >> 24);
	a->len += 8;
}

/* user::u, user:7:n, group::g, mask::m, other::o */
static struct acl acl_of(unsigned u, unsigned n, unsigned g, unsigned m,
			 unsigned o)
{
	struct acl a;

	acl_begin(&a);
	acl_add(&a, U_OBJ, u, ~0u);
	acl_add(&a, USER, n, 7);
	acl_add(&a, G_OBJ, g, ~0u);
	acl_add(&a, MASK, m, ~0u);
	acl_add(&a, OTHER, o, ~0u);
	return a;
}

static struct acl minimal(unsigned u, unsigned g, unsigned o)
{
	struct acl a;

	acl_begin(&a);
	acl_add(&a, U_OBJ, u, ~0u);
	acl_add(&a, G_OBJ, g, ~0u);
	acl_add(&a, OTHER, o, ~0u);
	return a;
}

static void expect_acl(uint64_t ino, const char *name, struct acl want)
{
	uint8_t buf[300];
	size_t len;

	ck_ok(get(ino, name, buf, sizeof(buf), &len));
	ck_assert_uint_eq(len, want.len);
	ck_assert_mem_eq(buf, want.b, len);
}

START_TEST(acl_check_knows_the_rules)
{
	struct acl a = acl_of(7, 6, 5, 4, 0), b;

	ck_ok(acl_check(a.b, a.len));
	ck_err(acl_check(a.b, a.len - 1), -EINVAL);
	ck_err(acl_check(a.b, a.len - 8), -EINVAL);
	ck_err(acl_check(a.b, 3), -EINVAL);
	b = a;
	b.b[0] = 1;
	ck_err(acl_check(b.b, b.len), -EOPNOTSUPP);
	b = a;
	b.b[6] = 8; /* a permission that is none */
	ck_err(acl_check(b.b, b.len), -EINVAL);
	b = a;
	b.b[4] = 3; /* two tags at once */
	ck_err(acl_check(b.b, b.len), -EINVAL);
	acl_begin(&b); /* named user without mask */
	acl_add(&b, U_OBJ, 7, ~0u);
	acl_add(&b, USER, 7, 5);
	acl_add(&b, G_OBJ, 7, ~0u);
	acl_add(&b, OTHER, 7, ~0u);
	ck_err(acl_check(b.b, b.len), -EINVAL);
	acl_begin(&b); /* wrong order */
	acl_add(&b, G_OBJ, 7, ~0u);
	acl_add(&b, U_OBJ, 7, ~0u);
	acl_add(&b, OTHER, 7, ~0u);
	ck_err(acl_check(b.b, b.len), -EINVAL);
	acl_begin(&b); /* owner twice */
	acl_add(&b, U_OBJ, 7, ~0u);
	acl_add(&b, U_OBJ, 7, ~0u);
	acl_add(&b, G_OBJ, 7, ~0u);
	acl_add(&b, OTHER, 7, ~0u);
	ck_err(acl_check(b.b, b.len), -EINVAL);
	a = minimal(7, 5, 1);
	ck_ok(acl_check(a.b, a.len));
}
END_TEST

START_TEST(access_acl_and_mode_say_the_same)
{
	uint64_t f = make_file(ROOT, "f");
	struct acl a = acl_of(7, 6, 5, 4, 1);
	size_t len;

	ck_ok(set(f, ACL_ACCESS_NAME, a.b, a.len, 0));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0741);
	expect_acl(f, ACL_ACCESS_NAME, a);
	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 0624 },
		       &root_cred));
	expect_acl(f, ACL_ACCESS_NAME, acl_of(6, 6, 5, 2, 4));
	/* one that says no more than the mode is not kept */
	a = minimal(7, 5, 0);
	ck_ok(set(f, ACL_ACCESS_NAME, a.b, a.len, 0));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0750);
	ck_err(get(f, ACL_ACCESS_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(fs_listxattr(fs, fs_live(fs), f, NULL, 0, &len));
	ck_assert_uint_eq(len, 0);
	ck_err(set(f, ACL_ACCESS_NAME, a.b, 20, 0), -EINVAL);
	/* nothing: removed */
	a = acl_of(7, 6, 5, 4, 1);
	ck_ok(set(f, ACL_ACCESS_NAME, a.b, a.len, 0));
	ck_ok(set(f, ACL_ACCESS_NAME, NULL, 0, 0));
	ck_err(get(f, ACL_ACCESS_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(set(f, ACL_ACCESS_NAME, NULL, 0, 0));
	ck_err(fs_removexattr(fs, f, ACL_ACCESS_NAME), -ENODATA);
}
END_TEST

START_TEST(acl_by_a_stranger_clears_set_group_id)
{
	uint64_t f = make_file(ROOT, "f");
	struct acl a = acl_of(7, 7, 7, 7, 5);

	ck_ok(set_attr(f, FS_SET_MODE | FS_SET_UID,
		       (struct attr){ .mode = 02755, .uid = 1000 },
		       &root_cred));
	ck_ok(fs_setxattr(fs, f, ACL_ACCESS_NAME, a.b, a.len, 0, &user_cred));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 0775);
	ck_ok(set_attr(f, FS_SET_MODE, (struct attr){ .mode = 02755 },
		       &root_cred));
	ck_ok(set(f, ACL_ACCESS_NAME, a.b, a.len, 0));
	ck_assert_uint_eq(attr_of(f).mode, S_IFREG | 02775);
}
END_TEST

START_TEST(default_acl_belongs_to_directories)
{
	uint64_t f = make_file(ROOT, "f"), d = make_dir(ROOT, "d");
	struct acl a = acl_of(7, 6, 5, 4, 1);
	struct attr at;
	size_t len;

	ck_err(set(f, ACL_DEFAULT_NAME, a.b, a.len, 0), -EACCES);
	ck_ok(set(d, ACL_DEFAULT_NAME, a.b, a.len, 0));
	ck_assert_uint_eq(attr_of(d).mode, S_IFDIR | 0755);
	expect_acl(d, ACL_DEFAULT_NAME, a);
	ck_ok(fs_create(fs, ROOT, "l", 1, S_IFLNK, 0, "t", &root_cred, &at));
	ck_err(set(at.ino, ACL_ACCESS_NAME, a.b, a.len, 0), -EOPNOTSUPP);
	/* the other one still counts when one is removed */
	ck_ok(set(d, ACL_ACCESS_NAME, a.b, a.len, 0));
	ck_ok(fs_removexattr(fs, d, ACL_DEFAULT_NAME));
	expect_acl(d, ACL_ACCESS_NAME, a);
	ck_ok(fs_removexattr(fs, d, ACL_ACCESS_NAME));
	ck_err(get(d, ACL_ACCESS_NAME, NULL, 0, &len), -ENODATA);
}
END_TEST

START_TEST(new_files_inherit_the_default_acl)
{
	uint64_t d = make_dir(ROOT, "d");
	struct acl a = acl_of(7, 7, 5, 7, 5), m = minimal(7, 5, 0);
	struct attr at;
	size_t len;

	ck_ok(set(d, ACL_DEFAULT_NAME, a.b, a.len, 0));
	/* the umask does not count, the mode asked for does */
	ck_ok(make_as(d, "f", S_IFREG | 0660, &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFREG | 0660);
	expect_acl(at.ino, ACL_ACCESS_NAME, acl_of(6, 7, 5, 6, 0));
	ck_err(get(at.ino, ACL_DEFAULT_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(make_as(d, "sub", S_IFDIR | 0777, &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFDIR | 0775);
	expect_acl(at.ino, ACL_ACCESS_NAME, acl_of(7, 7, 5, 7, 5));
	expect_acl(at.ino, ACL_DEFAULT_NAME, a);
	ck_ok(fs_create(fs, d, "l", 1, S_IFLNK, 0, "t", &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFLNK | 0777);
	ck_err(get(at.ino, ACL_ACCESS_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(fs_tmpfile(fs, d, 0666, &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFREG | 0664 | 0);
	expect_acl(at.ino, ACL_ACCESS_NAME, acl_of(6, 7, 5, 6, 4));
	ck_ok(fs_ref(fs, at.ino));
	fs_unref(fs, at.ino, 1);
	/* a minimal one acts like a umask */
	ck_ok(set(d, ACL_DEFAULT_NAME, m.b, m.len, 0));
	ck_ok(make_as(d, "g", S_IFREG | 0666, &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFREG | 0640);
	ck_err(get(at.ino, ACL_ACCESS_NAME, NULL, 0, &len), -ENODATA);
	ck_ok(make_as(d, "sub2", S_IFDIR | 0777, &user_cred, &at));
	ck_assert_uint_eq(at.mode, S_IFDIR | 0750);
	expect_acl(at.ino, ACL_DEFAULT_NAME, m);
}
END_TEST

START_TEST(acl_of_a_thousand_users_is_inherited)
{
	uint64_t d = make_dir(ROOT, "d");
	uint8_t *big = calloc(1, ACL_BYTES_MAX), *got;
	size_t len, n = (ACL_BYTES_MAX - 4) / 8;
	struct acl a;
	struct attr at;
	size_t i;

	acl_begin(&a);
	acl_add(&a, U_OBJ, 7, ~0u);
	memcpy(big, a.b, a.len);
	for (i = 1; i < n - 3; i++) {
		acl_begin(&a);
		acl_add(&a, USER, 6, (uint32_t)i);
		memcpy(big + 4 + 8 * i, a.b + 4, 8);
	}
	acl_begin(&a);
	acl_add(&a, G_OBJ, 5, ~0u);
	acl_add(&a, MASK, 7, ~0u);
	acl_add(&a, OTHER, 5, ~0u);
	memcpy(big + 4 + 8 * i, a.b + 4, 24);
	len = 4 + 8 * n;
	ck_ok(set(d, ACL_DEFAULT_NAME, big, len, 0));
	ck_err(set(d, ACL_DEFAULT_NAME, big, len + 8, 0), -E2BIG);
	remount();
	ck_ok(make_as(d, "sub", S_IFDIR | 0777, &user_cred, &at));
	got = malloc(ACL_BYTES_MAX);
	ck_ok(get(at.ino, ACL_DEFAULT_NAME, got, ACL_BYTES_MAX, &len));
	ck_assert_uint_eq(len, 4 + 8 * n);
	ck_assert(!memcmp(got, big, len));
	ck_ok(get(at.ino, ACL_ACCESS_NAME, got, ACL_BYTES_MAX, &len));
	ck_assert_uint_eq(len, 4 + 8 * n);
	ck_ok(set_attr(at.ino, FS_SET_MODE, (struct attr){ .mode = 0700 },
		       &root_cred));
	ck_ok(rmdir_it(d, "sub"));
	free(got);
	free(big);
}
END_TEST

/* ---- random changes against a model ---- */

#define NAMES 40

struct model {
	size_t len;
	unsigned seed;
	bool set;
};

START_TEST(random_changes_match_a_model)
{
	uint64_t f = make_file(ROOT, "f");
	struct model m[NAMES] = { { 0 } };
	uint8_t *val = malloc(65537);
	unsigned i, step, n = test_rounds(1500);
	struct fs_options opt = { .noatime = true };
	struct rng r;
	size_t len;
	char name[64];

	rng_init(&r, test_seed(), 7);
	umount_it();
	mount_with(&opt, 1); /* next to no cache */
	for (step = 0; step < n; step++) {
		i = (unsigned)rng_below(&r, NAMES);
		snprintf(name, sizeof(name), "user.%u", i);
		if (rng_one_in(&r, 3)) {
			ck_err(fs_removexattr(fs, f, name),
			       m[i].set ? 0 : -ENODATA);
			m[i].set = false;
		} else {
			m[i].set = true;
			m[i].seed = step;
			m[i].len = rng_one_in(&r, 3) ? rng_below(&r, 65537)
						     : rng_below(&r, 2000);
			fill(val, 65537, step);
			ck_ok(set(f, name, val, m[i].len, 0));
		}
		if (rng_one_in(&r, 40))
			ck_ok(store_commit(store, NULL, NULL));
		if (rng_one_in(&r, 200)) {
			umount_it();
			mount_with(&opt, 1);
		}
		if (step % 50)
			continue;
		for (i = 0; i < NAMES; i++) {
			snprintf(name, sizeof(name), "user.%u", i);
			if (m[i].set)
				expect(f, name, m[i].len, m[i].seed);
			else
				ck_err(get(f, name, NULL, 0, &len), -ENODATA);
		}
	}
	free(val);
}
END_TEST

/* ---- */

static void add_plain(TCase *tc)
{
	tcase_add_test(tc, values_of_all_lengths_replace_each_other);
	tcase_add_test(tc, create_and_replace_mean_what_they_say);
	tcase_add_test(tc, names_outside_the_known_spaces_are_refused);
	tcase_add_test(tc, long_names_with_long_values_fit_the_smallest_nodes);
	tcase_add_test(tc, any_number_of_attributes_is_listed);
	tcase_add_test(tc, attributes_are_those_of_the_view);
	tcase_add_test(tc, capability_goes_with_the_owner);
	tcase_add_test(tc, setting_marks_ctime_only);
	tcase_add_test(tc, random_changes_match_a_model);
}

static void add_acls(TCase *tc)
{
	tcase_add_test(tc, acl_check_knows_the_rules);
	tcase_add_test(tc, access_acl_and_mode_say_the_same);
	tcase_add_test(tc, acl_by_a_stranger_clears_set_group_id);
	tcase_add_test(tc, default_acl_belongs_to_directories);
	tcase_add_test(tc, new_files_inherit_the_default_acl);
	tcase_add_test(tc, acl_of_a_thousand_users_is_inherited);
}

int main(void)
{
	Suite *s = suite_create("xattr");

	add_case(s, "xattrs", setup, add_plain);
	add_case(s, "xattrs in small nodes", setup_small_nodes, add_plain);
	add_case(s, "ACLs", setup, add_acls);
	add_case(s, "ACLs in small nodes", setup_small_nodes, add_acls);
	return test_main(s);
}
