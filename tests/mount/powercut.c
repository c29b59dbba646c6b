/*
 * powercut.c - the files of a recorder's log as a power cut could leave them
 *
 * usage: powercut LOG                       prints how many entries there are,
 *                                           and from where on all files exist
 *        powercut LOG CUT SEED IMAGE DIR    makes them below DIR (empty), and
 *                                           prints how many writes to IMAGE
 *                                           had not been flushed
 *
 * The power goes after CUT entries. Of IMAGE all is there that had been flushed;
 * of what was written to it since then, as SEED draws: nothing, all, any of the
 * writes, or any of their 512-byte sectors, the later one of two to one place
 * with or without the earlier. All other files (journals, which lie on another
 * machine, as it were) are there as they were then.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mount/powerlog.h"
#include "support/test.h"

#define SECTOR 512u

struct log {
	const uint8_t *at;
	size_t size, pos;
};

struct item {
	struct power_entry e;
	char name[4096];
	const uint8_t *data;
};

struct state {
	int dir, image; /* -1: not made yet */
	const char *image_name;
	struct item *pending; /* writes to the image since its last flush */
	size_t count, room;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct log log_open_file(const char *path)
{
	struct stat st;
	struct log l = { .pos = 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st))
		die(path);
	l.size = (size_t)st.st_size;
	l.at = mmap(NULL, l.size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (l.at == MAP_FAILED)
		die(path);
	close(fd);
	return l;
}

/* False at its end (the last entry may have been cut off with the recorder). */
static bool next(struct log *l, struct item *it)
{
	size_t left = l->size - l->pos;
	uint64_t len;

	if (left < sizeof(it->e))
		return false;
	memcpy(&it->e, l->at + l->pos, sizeof(it->e));
	left -= sizeof(it->e);
	len = it->e.kind == POWER_WRITE ? it->e.len : 0;
	if (it->e.name_len >= sizeof(it->name) || left < it->e.name_len ||
	    left - it->e.name_len < len)
		return false;
	memcpy(it->name, l->at + l->pos + sizeof(it->e), it->e.name_len);
	it->name[it->e.name_len] = 0;
	it->data = l->at + l->pos + sizeof(it->e) + it->e.name_len;
	l->pos += sizeof(it->e) + it->e.name_len + len;
	return true;
}

static void put(int fd, const uint8_t *data, uint64_t off, uint64_t len)
{
	while (len) {
		ssize_t n = pwrite(fd, data, len, (off_t)off);

		if (n <= 0)
			die("writing");
		data += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
}

/* Bytes [from, to) of a write, counted from its beginning. */
static void apply_part(int fd, const struct item *it, uint64_t from,
		       uint64_t to)
{
	static const uint8_t zeros[1 << 16];

	if (it->e.kind == POWER_WRITE) {
		put(fd, it->data + from, it->e.off + from, to - from);
		return;
	}
	while (from < to) {
		uint64_t n = to - from < sizeof(zeros) ? to - from :
							 sizeof(zeros);

		put(fd, zeros, it->e.off + from, n);
		from += n;
	}
}

static void apply(int fd, const struct item *it)
{
	apply_part(fd, it, 0, it->e.len);
}

/* A file other than the image, or what does not wait for a flush. */
static void do_at_once(struct state *s, const struct item *it)
{
	bool image = !strcmp(it->name, s->image_name);
	int fd = -1;

	if (it->e.kind == POWER_MKDIR) {
		if (mkdirat(s->dir, it->name, 0755))
			die(it->name);
		return;
	}
	if (it->e.kind == POWER_FLUSH)
		return;
	fd = openat(s->dir, it->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		die(it->name);
	if (it->e.kind == POWER_SIZE) {
		if (ftruncate(fd, (off_t)it->e.len))
			die(it->name);
	} else if (it->e.kind != POWER_CREATE) {
		apply(fd, it);
	}
	if (image && s->image < 0)
		s->image = fd;
	else
		close(fd);
}

static void remember(struct state *s, const struct item *it)
{
	if (s->count == s->room) {
		s->room = s->room ? 2 * s->room : 64;
		s->pending = realloc(s->pending, s->room * sizeof(*it));
		if (!s->pending)
			die("memory");
	}
	s->pending[s->count++] = *it;
}

static void flushed(struct state *s)
{
	for (size_t i = 0; i < s->count; i++)
		apply(s->image, &s->pending[i]);
	s->count = 0;
}

static void run_to(struct state *s, struct log *l, uint64_t cut)
{
	static struct item it;

	for (uint64_t i = 0; i < cut && next(l, &it); i++) {
		bool image = !strcmp(it.name, s->image_name);

		if (image && it.e.kind == POWER_FLUSH)
			flushed(s);
		else if (image && (it.e.kind == POWER_WRITE ||
				   it.e.kind == POWER_ZERO))
			remember(s, &it);
		else
			do_at_once(s, &it);
	}
}

static void some_sectors(struct state *s, const struct item *it,
			 struct rng *r, uint64_t percent)
{
	uint64_t end;

	for (uint64_t at = 0; at < it->e.len; at = end) {
		end = at + SECTOR - (it->e.off + at) % SECTOR;
		if (end > it->e.len)
			end = it->e.len;
		if (rng_below(r, 100) < percent)
			apply_part(s->image, it, at, end);
	}
}

static void lose(struct state *s, uint64_t seed)
{
	uint64_t how, percent;
	struct rng r;

	rng_init(&r, seed, 0);
	how = rng_below(&r, 4);
	percent = 1 + rng_below(&r, 99);
	for (size_t i = 0; i < s->count && how; i++) {
		if (how == 1 || (how == 2 && rng_below(&r, 100) < percent))
			apply(s->image, &s->pending[i]);
		else if (how == 3)
			some_sectors(s, &s->pending[i], &r, percent);
	}
}

static int tell(struct log *l)
{
	static struct item it;
	uint64_t n = 0, from = 0;

	while (next(l, &it)) {
		n++;
		if (it.e.kind == POWER_CREATE)
			from = n;
	}
	printf("%lu %lu\n", (unsigned long)n, (unsigned long)from);
	return 0;
}

int main(int argc, char **argv)
{
	struct state s = { .image = -1 };
	struct log l;

	if (argc != 2 && argc != 6) {
		fprintf(stderr, "usage: powercut LOG [CUT SEED IMAGE DIR]\n");
		return 2;
	}
	l = log_open_file(argv[1]);
	if (argc == 2)
		return tell(&l);
	s.image_name = argv[4];
	s.dir = open(argv[5], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s.dir < 0)
		die(argv[5]);
	run_to(&s, &l, strtoull(argv[2], NULL, 10));
	if (s.image < 0) {
		errno = ENOENT;
		die(s.image_name);
	}
	lose(&s, strtoull(argv[3], NULL, 10));
	printf("%lu\n", (unsigned long)s.count);
	free(s.pending);
	return 0;
}
