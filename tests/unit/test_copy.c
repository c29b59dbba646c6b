/*
 * test_copy.c - files that share blocks: copies, and what comes back from snapshots
 */
#include "unit/file_fixture.h"

static uint64_t copy(struct view *v, uint64_t from, uint64_t off, uint64_t to,
		     uint64_t to_off, uint64_t len)
{
	uint64_t copied = 0;

	ck_ok(fs_copy_range(fs, v, from, off, to, to_off, len, &copied));
	return copied;
}

START_TEST(a_copy_shares_blocks_until_one_is_written)
{
	size_t len = 3 * MIB + 123;
	uint8_t *data = pattern(len, 11), *model = malloc(len);
	uint64_t a, b, before, used;
	struct fs_map m;

	setup();
	before = free_blocks();
	a = create("a");
	b = create("b");
	ck_ok(fs_write(fs, a, 0, data, len, 0));
	used = free_blocks();
	ck_assert_uint_eq(copy(fs_live(fs), a, 0, b, 0, len + MIB), len);
	ck_assert_uint_ge(free_blocks() + 20, used);
	expect(b, data, len);
	ck_assert_uint_eq(blk_at(a, MIB), blk_at(b, MIB));
	ck_assert_uint_eq(blk_at(a, len - 1), blk_at(b, len - 1));
	ck_ok(fs_map(fs, fs_live(fs), a, 0, &m));
	ck_assert(m.shared);
	memcpy(model, data, len);
	memcpy(model + MIB + 7, data, 100000);
	ck_ok(fs_write(fs, b, MIB + 7, data, 100000, 0));
	expect(b, model, len);
	expect(a, data, len);
	unlink_name("a");
	settle();
	umount_it();
	mount_it();
	expect(b, model, len);
	unlink_name("b");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(model);
}
END_TEST

/* Joined, the shared ones would pass for the file's own: cut off, they would be
 * free though another file has them. */
START_TEST(shared_blocks_do_not_join_what_is_not_shared)
{
	uint8_t *data = pattern(8 * BLOCK, 15);
	uint64_t a, b;

	setup();
	a = create("a");
	b = create("b");
	ck_ok(fs_write(fs, a, 0, data, 4 * BLOCK, 0));
	ck_ok(fs_write(fs, b, 0, data + 4 * BLOCK, 4 * BLOCK, 0));
	ck_assert_uint_eq(blk_at(b, 0), blk_at(a, 0) + 4);
	ck_assert_uint_eq(copy(fs_live(fs), b, 0, a, 4 * BLOCK, 4 * BLOCK),
			  4 * BLOCK);
	ck_assert_uint_eq(blk_at(a, 4 * BLOCK), blk_at(b, 0));
	unlink_name("a");
	settle();
	for (unsigned i = 0; i < 4; i++)
		ck_assert(alloc_is_used(store->alloc, blk_at(b, i * BLOCK)));
	expect(b, data + 4 * BLOCK, 4 * BLOCK);
	unmake();
	free(data);
}
END_TEST

/* Of a long extent a step shares no more than it has cut out of the target. */
START_TEST(a_long_extent_takes_the_place_of_many_short_ones)
{
	uint8_t *data = pattern(600 * BLOCK, 16);
	uint64_t from, to, other;

	setup();
	from = create("f");
	to = create("t");
	other = create("o");
	ck_ok(fs_write(fs, from, 0, data, 600 * BLOCK, 0));
	for (unsigned i = 0; i < 600; i++) {
		ck_ok(fs_write(fs, to, i * BLOCK, data, BLOCK, 0));
		ck_ok(fs_write(fs, other, i * BLOCK, data, BLOCK, 0));
	}
	ck_assert_uint_eq(copy(fs_live(fs), from, 0, to, 0, 600 * BLOCK),
			  600 * BLOCK);
	expect(to, data, 600 * BLOCK);
	ck_assert_uint_eq(attr_of(to).blocks, 600 * 8);
	settle();
	unlink_name("f");
	settle();
	expect(to, data, 600 * BLOCK);
	unmake();
	free(data);
}
END_TEST

START_TEST(what_may_not_change_takes_no_blocks_of_others)
{
	static const uint32_t flags[] = { COWFS_INODE_IMMUTABLE,
					  COWFS_INODE_APPEND };
	uint8_t *data = pattern(4 * BLOCK, 17);
	struct attr set = { .flags = flags[_i] }, out;
	uint64_t a, b, copied;

	setup();
	a = create("a");
	b = create("b");
	ck_ok(fs_write(fs, a, 0, data, 4 * BLOCK, 0));
	ck_ok(fs_write(fs, b, 0, data + BLOCK, 3 * BLOCK, 0));
	ck_ok(fs_setattr(fs, b, FS_SET_FLAGS, &set, &root_cred, &out));
	ck_err(fs_copy_range(fs, fs_live(fs), a, 0, b, 0, 4 * BLOCK, &copied),
	       -EPERM);
	expect(b, data + BLOCK, 3 * BLOCK);
	unmake();
	free(data);
}
END_TEST

/* A block has four thousand million references at most; where many of them are
 * taken it is copied. */
START_TEST(what_has_too_many_references_is_copied)
{
	size_t len = 2 * MIB;
	uint8_t *data = pattern(len, 14);
	uint64_t a, b, blk;

	setup();
	a = create("a");
	b = create("b");
	ck_ok(fs_write(fs, a, 0, data, len, 0));
	blk = blk_at(a, MIB);
	ck_ok(alloc_ref(store->alloc, blk, 1, INT32_MAX, 0));
	ck_assert_uint_eq(copy(fs_live(fs), a, 0, b, 0, len), len);
	expect(b, data, len);
	ck_assert_uint_ne(blk_at(b, MIB), blk);
	ck_ok(alloc_ref(store->alloc, blk, 1, -INT32_MAX, 0));
	unlink_name("a");
	expect(b, data, len);
	unmake();
	free(data);
}
END_TEST

START_TEST(any_ranges_can_be_copied)
{
	static const uint64_t at[] = { 0, 1, 4096, 4097, 12288, 30000 };
	size_t n = ARRAY_SIZE(at), size = 50000, max = 100000;
	uint8_t *src = pattern(size, 12), *dst = pattern(size, 13);
	uint8_t *model = malloc(max);
	uint64_t a, b, before, len, end, done;

	setup();
	create("g");
	before = free_blocks();
	for (size_t i = 0; i < n * n * n * 2; i++) {
		uint64_t from = at[i % n], to = at[i / n % n];
		uint64_t want = at[i / n / n % n] + 1;
		size_t old = i < n * n * n ? 20000 : 100;

		a = create("a");
		b = create("b");
		ck_ok(fs_write(fs, a, 0, src, size, 0));
		ck_ok(fs_write(fs, b, 0, dst, old, 0));
		done = copy(fs_live(fs), a, from, b, to, want);
		len = min_u64(want, size - from);
		ck_assert_uint_eq(done, len);
		memset(model, 0, max);
		memcpy(model, dst, old);
		memcpy(model + to, src + from, len);
		end = max_u64(old, to + len);
		expect(b, model, end);
		expect(a, src, size);
		unlink_name("a");
		unlink_name("b");
	}
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(src);
	free(dst);
	free(model);
}
END_TEST

START_TEST(a_last_block_is_shared_only_as_a_last_block)
{
	uint8_t *src = pattern(BLOCK + 100, 24), *dst = pattern(3 * BLOCK, 25);
	uint64_t a, b, c;

	setup();
	a = create("a");
	b = create("b");
	c = create("c");
	ck_ok(fs_write(fs, a, 0, src, BLOCK + 100, 0));
	ck_ok(fs_write(fs, b, 0, dst, 3 * BLOCK, 0));
	ck_ok(fs_write(fs, c, 0, dst, BLOCK + 50, 0));
	copy(fs_live(fs), a, 0, b, 0, BLOCK + 100);
	copy(fs_live(fs), a, 0, c, 0, BLOCK + 100);
	expect(c, src, BLOCK + 100);
	memcpy(dst, src, BLOCK + 100);
	expect(b, dst, 3 * BLOCK);
	ck_assert_uint_eq(blk_at(a, BLOCK), blk_at(c, BLOCK));
	ck_assert_uint_ne(blk_at(a, BLOCK), blk_at(b, BLOCK));
	unmake();
	free(src);
	free(dst);
}
END_TEST

/* Bytes that can't be shared are written step by step, too. */
START_TEST(what_is_told_to_be_copied_is_what_was_copied)
{
	uint8_t *data = pattern(2 * MIB, 30), *want = pattern(2 * MIB, 31);
	uint64_t from, to, copied = 0;
	int err;

	setup();
	from = create("f");
	to = create("t");
	ck_ok(fs_write(fs, from, 0, data, 2 * MIB, 0));
	ck_ok(fs_write(fs, to, 0, want, 2 * MIB, 0));
	fault_from(dev, FAULT_WRITE, 2, -EIO);
	err = fs_copy_range(fs, fs_live(fs), from, 1, to, 2, MIB + 10, &copied);
	fault_clear(dev);
	ck_assert(!err && copied && copied < MIB + 10);
	memcpy(want + 2, data + 1, copied);
	expect(to, want, 2 * MIB);
	unmake();
	free(data);
	free(want);
}
END_TEST

START_TEST(a_file_can_be_copied_within_itself)
{
	uint8_t *data = pattern(20 * BLOCK, 14);
	uint64_t ino, copied, before;

	setup();
	before = free_blocks();
	ino = create("f");
	ck_ok(fs_write(fs, ino, 0, data, 20 * BLOCK, 0));
	ck_err(fs_copy_range(fs, fs_live(fs), ino, 0, ino, BLOCK, 2 * BLOCK,
			     &copied), -EINVAL);
	copy(fs_live(fs), ino, 0, ino, 10 * BLOCK, 5 * BLOCK);
	memcpy(data + 10 * BLOCK, data, 5 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	copy(fs_live(fs), ino, 12 * BLOCK, ino, 2 * BLOCK, 3 * BLOCK);
	expect(ino, data, 20 * BLOCK); /* the same blocks again */
	copy(fs_live(fs), ino, 9 * BLOCK, ino, 0, 4 * BLOCK);
	memmove(data, data + 9 * BLOCK, 4 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	/* next to each other, in both directions */
	copy(fs_live(fs), ino, 4 * BLOCK, ino, 0, 4 * BLOCK);
	memcpy(data, data + 4 * BLOCK, 4 * BLOCK);
	copy(fs_live(fs), ino, 4 * BLOCK, ino, 8 * BLOCK, 4 * BLOCK);
	memcpy(data + 8 * BLOCK, data + 4 * BLOCK, 4 * BLOCK);
	expect(ino, data, 20 * BLOCK);
	ck_assert_uint_eq(attr_of(ino).blocks, 20 * 8);
	unlink_name("f");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
}
END_TEST

START_TEST(holes_are_copied_as_holes)
{
	uint8_t *model = calloc(1, 40 * BLOCK), *data = pattern(BLOCK, 15);
	uint64_t a, b;

	setup();
	a = create("a");
	b = create("b");
	memset(model, 'x', 40 * BLOCK);
	ck_ok(fs_write(fs, b, 0, model, 40 * BLOCK, 0));
	ck_ok(fs_write(fs, a, 10 * BLOCK, data, BLOCK, 0));
	ck_ok(fs_fallocate(fs, a, 0, 20 * BLOCK, 5 * BLOCK, NULL));
	ck_ok(truncate_to(a, 30 * BLOCK));
	copy(fs_live(fs), a, 0, b, BLOCK, 30 * BLOCK);
	memset(model + BLOCK, 0, 30 * BLOCK);
	memcpy(model + 11 * BLOCK, data, BLOCK);
	expect(b, model, 40 * BLOCK);
	ck_assert_uint_eq(attr_of(b).blocks, 11 * 8);
	unmake();
	free(model);
	free(data);
}
END_TEST

START_TEST(files_come_back_from_a_snapshot)
{
	size_t len = 2 * MIB + 5;
	uint8_t *data = pattern(len, 16), *other = pattern(len, 17);
	uint64_t big, small, to, before;
	struct view *v;

	setup();
	before = free_blocks();
	big = create("big");
	small = create("small");
	ck_ok(fs_write(fs, big, 0, data, len, 0));
	ck_ok(fs_write(fs, small, 0, data, 500, 0));
	ck_ok(snap_create(store, "s", NULL));
	ck_ok(fs_write(fs, big, 1000, other, MIB, 0));
	ck_ok(fs_write(fs, small, 0, other, 5000, 0));
	ck_ok(fs_view_open(fs, "s", &v));
	expect_in(v, big, data, len);
	expect_in(v, small, data, 500);
	to = create("to");
	ck_assert_uint_eq(copy(v, big, 0, to, 0, len), len);
	expect(to, data, len);
	ck_ok(truncate_to(small, 0));
	ck_assert_uint_eq(copy(v, small, 0, small, 0, 10000), 500);
	expect(small, data, 500);
	ck_assert_uint_eq(copy(v, big, 0, big, 0, len), len);
	expect(big, data, len);
	fs_view_put(fs, v);
	ck_ok(fs_snap_delete(fs, "s"));
	settle();
	umount_it();
	mount_it();
	expect(to, data, len);
	expect(big, data, len);
	unlink_name("big");
	unlink_name("small");
	unlink_name("to");
	ck_assert_uint_eq(free_blocks(), before);
	unmake();
	free(data);
	free(other);
}
END_TEST

static Suite *copy_suite(void)
{
	Suite *s = suite_create("copy");
	TCase *t = tcase_create("copy");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_copy_shares_blocks_until_one_is_written);
	tcase_add_test(t, shared_blocks_do_not_join_what_is_not_shared);
	tcase_add_test(t, a_long_extent_takes_the_place_of_many_short_ones);
	tcase_add_loop_test(t, what_may_not_change_takes_no_blocks_of_others, 0,
			    2);
	tcase_add_test(t, what_has_too_many_references_is_copied);
	tcase_add_test(t, any_ranges_can_be_copied);
	tcase_add_test(t, a_last_block_is_shared_only_as_a_last_block);
	tcase_add_test(t, what_is_told_to_be_copied_is_what_was_copied);
	tcase_add_test(t, a_file_can_be_copied_within_itself);
	tcase_add_test(t, holes_are_copied_as_holes);
	tcase_add_test(t, files_come_back_from_a_snapshot);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return test_main(copy_suite());
}
