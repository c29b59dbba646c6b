/*
 * scale.c - what things cost as a filesystem grows, without FUSE
 *
 * usage: scale IMAGE BYTES INODES CACHE [FILL]
 *
 * Makes a filesystem of BYTES in IMAGE (sparse, made anew), INODES empty files
 * in directories of 10,000, and tells the median duration of each kind of
 * operation and its CPU time (commits and waiting for the disk's answers
 * included), those of mounting, fsck and scrub, and how much memory each phase
 * needs at most, less what the program had before. CACHE: bytes, as
 * cowfs -o cache=. FILL: percent of the free space to be allocated, so that the
 * free-space records are those of a device in use; negative: with a hole after
 * each block of it, in the first 1 % (bitmaps instead of counts).
 *
 * One "name value" per line; scripts/bench --scale makes a table of it.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "check/check.h"
#include "cowfs/cowfs.h"
#include "fs/fs.h"
#include "util/hist.h"

#define PER_DIR 10000u
#define SAMPLES 100000u

static const struct cred cred;

static struct {
	const char *image;
	uint64_t bytes, inodes;
	size_t cache;
	long fill;
} opt;

static struct bdev *dev;
static struct store *store;
static struct fs *fs;
static uint64_t *dirs;

static void need(int err, const char *what)
{
	if (err) {
		fprintf(stderr, "scale: %s: %s\n", what, strerror(-err));
		exit(1);
	}
}

static void tell(const char *name, double value)
{
	printf("%s %.3f\n", name, value);
	fflush(stdout);
}

/* CPU time of all threads: what else runs on the machine does not count. */
static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- memory ---- */

static double status_kib(const char *field)
{
	char line[256];
	double kib = 0;
	FILE *f = fopen("/proc/self/status", "r");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, field, strlen(field)))
			kib = strtod(line + strlen(field) + 1, NULL);
	if (f)
		fclose(f);
	return kib;
}

static double before_kib;

/* The peak is that of what comes from now on. */
static void memory_begin(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);

	malloc_trim(0); /* what was freed does not help the next phase */
	if (fd < 0 || write(fd, "5", 1) != 1)
		need(-errno, "/proc/self/clear_refs");
	close(fd);
	before_kib = status_kib("VmRSS");
}

static void memory_end(const char *name)
{
	tell(name, (status_kib("VmHWM") - before_kib) / 1024);
}

/* ---- the work ---- */

static void name_of(uint64_t i, char out[32])
{
	snprintf(out, 32, "file-%" PRIu64, i);
}

static void op_create(uint64_t i)
{
	uint64_t *dir = &dirs[i / PER_DIR];
	struct attr a;
	char name[32];

	if (i % PER_DIR == 0) {
		snprintf(name, sizeof(name), "dir-%" PRIu64, i / PER_DIR);
		need(fs_create(fs, COWFS_INO_ROOT, name, strlen(name),
			       S_IFDIR | 0755, 0, NULL, &cred, &a), "mkdir");
		*dir = a.ino;
	}
	name_of(i, name);
	need(fs_create(fs, *dir, name, strlen(name), S_IFREG | 0644, 0, NULL,
		       &cred, &a), "create");
}

static void op_lookup(uint64_t i)
{
	struct attr a;
	char name[32];

	name_of(i, name);
	need(fs_lookup(fs, fs_live(fs), dirs[i / PER_DIR], name, strlen(name),
		       &a), "lookup");
}

static uint64_t first_ino;

static void op_stat(uint64_t i)
{
	struct attr a;

	/* numbers are given out in order: one for a directory in between */
	need(fs_getattr(fs, fs_live(fs), first_ino + i + i / PER_DIR + 1, &a),
	     "stat");
}

static void op_unlink(uint64_t i)
{
	char name[32];

	name_of(i, name);
	need(fs_unlink(fs, dirs[i / PER_DIR], name, strlen(name), NULL),
	     "unlink");
}

static uint64_t spread(uint64_t i, uint64_t n)
{
	/* each of 0 .. n-1 once, if n is no multiple of this prime */
	return i * UINT64_C(2147483647) % n;
}

/* n operations, in order or all over the place. */
static void measure(const char *what, void (*op)(uint64_t), uint64_t n,
		    bool in_order)
{
	static struct hist h;
	struct cowfs_hist sum = { 0 };
	uint64_t i, t, began = cpu_ns();
	char name[64];

	memset(&h, 0, sizeof(h));
	memory_begin();
	for (i = 0; i < n; i++) {
		t = now_ns();
		op(in_order ? i : spread(i, opt.inodes));
		hist_add(&h, now_ns() - t);
	}
	hist_read(&h, &sum);
	snprintf(name, sizeof(name), "%s_ns", what);
	tell(name, (double)cowfs_hist_percentile(&sum, 500));
	snprintf(name, sizeof(name), "%s_cpu_ns", what);
	tell(name, (double)(cpu_ns() - began) / (double)n);
	snprintf(name, sizeof(name), "%s_mib", what);
	memory_end(name);
}

static int count_entry(void *arg, const struct fs_dirent *e)
{
	(void)e;
	++*(uint64_t *)arg;
	return 0;
}

/* All directories, or some of many; per entry. */
static void measure_readdir(void)
{
	uint64_t n = (opt.inodes - 1) / PER_DIR + 1, some = min_u64(n, 20);
	uint64_t entries = 0, began = cpu_ns();

	for (uint64_t i = 0; i < some; i++)
		need(fs_readdir(fs, fs_live(fs), dirs[i * (n / some)], 0, true,
				count_entry, &entries), "readdir");
	tell("readdir_ns", (double)(cpu_ns() - began) / (double)entries);
}

static uint64_t free_bytes(void)
{
	struct fs_statfs s;

	need(fs_statfs(fs, &s), "statfs");
	return s.avail * COWFS_BLOCK_SIZE;
}

/* Allocate without writing; leaves room for the trees. */
static void fill(void)
{
	const uint64_t most = UINT64_C(1) << 40;
	struct attr a;
	uint64_t left;

	if (!opt.fill)
		return;
	left = free_bytes() / 100 * (uint64_t)labs(opt.fill);
	for (unsigned i = 0; left >> 20; i++) {
		char name[32];
		uint64_t len = min_u64(left, most) >> 20 << 20;

		snprintf(name, sizeof(name), "fill-%u", i);
		need(fs_create(fs, COWFS_INO_ROOT, name, strlen(name),
			       S_IFREG | 0644, 0, NULL, &cred, &a), "create");
		need(fs_fallocate(fs, a.ino, 0, 0, len, &cred), "fallocate");
		for (uint64_t off = 0; opt.fill < 0 && off < len / 100;
		     off += 8192)
			need(fs_fallocate(fs, a.ino, FALLOC_FL_PUNCH_HOLE |
					  FALLOC_FL_KEEP_SIZE, off, 4096,
					  &cred), "punch");
		left -= len;
	}
}

/* ---- opening and closing ---- */

static void make_image(void)
{
	struct cowfs_mkfs m = { .label = "scale" };
	uint64_t began = now_ns();

	need(bdev_open_file(opt.image, BDEV_CREATE, 0, &dev), opt.image);
	need(bdev_file_resize(dev, opt.bytes), "resize");
	need(cowfs_mkfs(dev, &m), "mkfs");
	tell("mkfs_ms", (double)(now_ns() - began) / 1e6);
}

static void mount_image(void)
{
	struct store_config cfg = { .dev = dev, .cache_bytes = opt.cache };
	struct fs_options fo = { .noatime = true };

	need(store_open(&cfg, &store), "open");
	need(snap_start(store), "snap_start");
	need(fs_mount(store, &fo, &fs), "mount");
	need(store_start(store), "start");
}

static void unmount_image(void)
{
	fs_umount(fs);
	need(store_close(store), "close");
}

static void check(const char *time, const char *mib, bool semantics)
{
	struct store_config cfg = { .dev = dev, .flags = STORE_READONLY,
				    .cache_bytes = opt.cache };
	struct check_options co = { .semantics = semantics,
				    .data = !semantics };
	struct check_result res;
	uint64_t began = cpu_ns();

	memory_begin();
	need(store_open(&cfg, &store), "open");
	need(check_run(store, &co, &res), "check");
	if (res.problems)
		need(-EUCLEAN, "check");
	need(store_close(store), "close");
	tell(time, (double)(cpu_ns() - began) / 1e9);
	memory_end(mib);
}

static void run(void)
{
	uint64_t few = min_u64(opt.inodes, SAMPLES), began, cpu;

	make_image();
	mount_image();
	fill();
	first_ino = COWFS_INO_FIRST;
	if (opt.fill) {
		struct attr a;

		/* whatever is next */
		need(fs_create(fs, COWFS_INO_ROOT, "mark", 4, S_IFREG | 0644,
			       0, NULL, &cred, &a), "create");
		first_ino = a.ino + 1;
	}
	measure("create", op_create, opt.inodes, true);
	unmount_image();

	memory_begin();
	began = now_ns();
	cpu = cpu_ns();
	mount_image();
	tell("mount_ms", (double)(now_ns() - began) / 1e6);
	tell("mount_cpu_ms", (double)(cpu_ns() - cpu) / 1e6);
	memory_end("mount_mib");
	measure("lookup", op_lookup, few, false);
	measure("stat", op_stat, few, false);
	measure_readdir();
	unmount_image();
	check("fsck_s", "fsck_mib", true);
	check("scrub_s", "scrub_mib", false);
	mount_image();
	measure("unlink", op_unlink, few, false);
	unmount_image();
	bdev_close(dev);
}

int main(int argc, char **argv)
{
	if (argc != 5 && argc != 6) {
		fprintf(stderr,
			"usage: scale IMAGE BYTES INODES CACHE [FILL]\n");
		return 2;
	}
	opt.image = argv[1];
	opt.bytes = strtoull(argv[2], NULL, 10);
	opt.inodes = strtoull(argv[3], NULL, 10);
	opt.cache = strtoull(argv[4], NULL, 10);
	opt.fill = argc == 6 ? strtol(argv[5], NULL, 10) : 0;
	if (!opt.inodes || labs(opt.fill) > 99)
		return 2;
	dirs = calloc(opt.inodes / PER_DIR + 1, sizeof(*dirs));
	if (!dirs)
		need(-ENOMEM, "directories");
	run();
	free(dirs);
	return 0;
}
