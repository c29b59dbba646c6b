/*
 * posix.h - a table of claims about a mounted filesystem, and how to run it
 *
 * Each case runs in an empty directory of its own, as current directory, and
 * returns at the first thing that is wrong. "ok - claim" or "not ok - claim"
 * is printed per case, "skip - claim" where something is missing.
 */
#ifndef COW_TEST_POSIX_H
#define COW_TEST_POSIX_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

struct posix_case {
	const char *name;
	void (*run)(void);
};

#define CASE(name) { #name, name }

static char posix_why[512]; /* empty: the case holds */
static bool posix_skipped;

#define FAIL(...) \
	do { \
		snprintf(posix_why, sizeof(posix_why), __VA_ARGS__); \
		return; \
	} while (0)

#define CHECK(x) \
	do { \
		if (!(x)) \
			FAIL("%s:%d: %s (%s)", __FILE__, __LINE__, #x, \
			     strerror(errno)); \
	} while (0)

/* The call must fail with just that errno. */
#define FAILS(x, e) \
	do { \
		errno = 0; \
		if ((x) != -1 || errno != (e)) \
			FAIL("%s:%d: %s: not %s but %s", __FILE__, __LINE__, \
			     #x, #e, strerror(errno)); \
	} while (0)

/* A check inside a helper that returns bool failed: leave the case. */
#define HELD(x) \
	do { \
		if (!(x)) { \
			if (!posix_why[0]) \
				FAIL("%s:%d: %s", __FILE__, __LINE__, #x); \
			return; \
		} \
	} while (0)

#define SKIP(...) \
	do { \
		posix_skipped = true; \
		FAIL(__VA_ARGS__); \
	} while (0)

/* Bytes that tell where they belong. */
static inline void fill(void *buf, size_t len, uint64_t off, unsigned salt)
{
	unsigned char *p = buf;
	size_t i;

	for (i = 0; i < len; i++) {
		uint64_t x = (off + i) * UINT64_C(0x9e3779b97f4a7c15) + salt;

		p[i] = (unsigned char)(x >> 56 ^ x >> 17);
	}
}

static inline bool filled(const void *buf, size_t len, uint64_t off,
			  unsigned salt)
{
	const unsigned char *p = buf;
	unsigned char want;
	size_t i;

	for (i = 0; i < len; i++) {
		fill(&want, 1, off + i, salt);
		if (p[i] != want)
			return false;
	}
	return true;
}

static inline bool all_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len > 0 && *p == 0) {
		p++;
		len--;
	}
	return len == 0;
}

/* A file with len filled bytes; its descriptor, or -1. */
static inline int make_file(const char *name, size_t len, unsigned salt)
{
	char *buf = malloc(len ? len : 1);
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	fill(buf, len, 0, salt);
	if (fd >= 0 && pwrite(fd, buf, len, 0) != (ssize_t)len) {
		close(fd);
		fd = -1;
	}
	free(buf);
	return fd;
}

/* Does the file hold len filled bytes, and nothing more? */
static inline bool file_is(const char *name, size_t len, unsigned salt)
{
	char *buf = malloc(len + 1);
	int fd = open(name, O_RDONLY);
	bool good;

	good = fd >= 0 && pread(fd, buf, len + 1, 0) == (ssize_t)len &&
	       filled(buf, len, 0, salt);
	if (fd >= 0)
		close(fd);
	free(buf);
	return good;
}

static inline int posix_run(const char *dir, const struct posix_case *cases,
			    size_t n)
{
	int failed = 0;
	size_t i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (i = 0; i < n; i++) {
		char path[4096];

		posix_why[0] = '\0';
		posix_skipped = false;
		snprintf(path, sizeof(path), "%s/%s", dir, cases[i].name);
		if (mkdir(path, 0755) < 0 || chdir(path) < 0) {
			printf("not ok - %s: %s: %s\n", cases[i].name, path,
			       strerror(errno));
			failed++;
			continue;
		}
		umask(022);
		cases[i].run();
		if (posix_skipped)
			printf("skip - %s: %s\n", cases[i].name, posix_why);
		else if (posix_why[0])
			printf("not ok - %s: %s\n", cases[i].name, posix_why);
		else
			printf("ok - %s\n", cases[i].name);
		if (posix_why[0] && !posix_skipped)
			failed++;
		if (chdir("/") < 0)
			return 1;
	}
	return failed ? 1 : 0;
}

#define POSIX_MAIN(cases) \
	int main(int argc, char **argv) \
	{ \
		if (argc != 2) { \
			fprintf(stderr, "usage: %s DIR\n", argv[0]); \
			return 2; \
		} \
		return posix_run(argv[1], cases, \
				 sizeof(cases) / sizeof(cases[0])); \
	}

#endif
