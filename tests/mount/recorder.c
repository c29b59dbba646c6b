/*
 * recorder.c - a folder on FUSE that writes down what is done to its files
 *
 * usage: recorder BACK LOG MOUNTPOINT [options of libfuse]
 *
 * What is written to the files at MOUNTPOINT goes to those in BACK, and to LOG
 * (powerlog.h). Nothing is held back by the kernel: a write has been logged when
 * it returns, and fsync, O_DSYNC and the like arrive as a flush. To be run with
 * -s: one thing after the other. Single files and folders; no renaming, no
 * removing, which images and journals don't need.
 */
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "mount/powerlog.h"

static int back;
static FILE *out;

static int result(long got)
{
	return got < 0 ? -errno : (int)got;
}

/* Below `back`; the top itself is ".". */
static const char *below(const char *path)
{
	return path[1] ? path + 1 : ".";
}

static int note(enum power_kind kind, const char *path, uint64_t off,
		uint64_t len, const void *data)
{
	struct power_entry e = { .kind = kind, .off = off, .len = len,
				 .name_len = (uint32_t)strlen(path + 1) };

	fwrite(&e, sizeof(e), 1, out);
	fwrite(path + 1, e.name_len, 1, out);
	if (data)
		fwrite(data, len, 1, out);
	return fflush(out) ? -EIO : 0;
}

static int rec_getattr(const char *path, struct stat *st,
		       struct fuse_file_info *fi)
{
	return result(fi ? fstat((int)fi->fh, st) :
			   fstatat(back, below(path), st,
				   AT_SYMLINK_NOFOLLOW));
}

static int rec_mkdir(const char *path, mode_t mode)
{
	int err = result(mkdirat(back, below(path), mode));

	return err ? err : note(POWER_MKDIR, path, 0, 0, NULL);
}

static int rec_create(const char *path, mode_t mode, struct fuse_file_info *fi)
{
	int fd = openat(back, below(path), O_RDWR | O_CREAT | O_EXCL, mode);

	if (fd < 0)
		return -errno;
	fi->fh = (uint64_t)fd;
	return note(POWER_CREATE, path, 0, 0, NULL);
}

/* Appending is done by the kernel above; this end needs to read and write. */
static int rec_open(const char *path, struct fuse_file_info *fi)
{
	int fd = openat(back, below(path), O_RDWR);

	fi->fh = (uint64_t)fd;
	return fd < 0 ? -errno : 0;
}

static int rec_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	return result(close((int)fi->fh));
}

static int rec_read(const char *path, char *buf, size_t n, off_t off,
		    struct fuse_file_info *fi)
{
	(void)path;
	return result(pread((int)fi->fh, buf, n, off));
}

static int rec_write(const char *path, const char *buf, size_t n, off_t off,
		     struct fuse_file_info *fi)
{
	int put = result(pwrite((int)fi->fh, buf, n, off));
	int err = put <= 0 ? 0 :
		  note(POWER_WRITE, path, (uint64_t)off, (uint64_t)put, buf);

	return err ? err : put;
}

static int rec_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
	int fd = fi ? (int)fi->fh : openat(back, below(path), O_RDWR);
	int err = fd < 0 ? -errno : result(ftruncate(fd, size));

	if (!fi && fd >= 0)
		close(fd);
	return err ? err : note(POWER_SIZE, path, 0, (uint64_t)size, NULL);
}

static int rec_fallocate(const char *path, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	int err;

	if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	err = result(fallocate((int)fi->fh, mode, off, len));
	return err ? err :
		     note(POWER_ZERO, path, (uint64_t)off, (uint64_t)len, NULL);
}

static int rec_fsync(const char *path, int datasync, struct fuse_file_info *fi)
{
	(void)datasync;
	(void)fi;
	return note(POWER_FLUSH, path, 0, 0, NULL);
}

static int rec_statfs(const char *path, struct statvfs *st)
{
	(void)path;
	return result(fstatvfs(back, st));
}

static const struct fuse_operations ops = {
	.getattr = rec_getattr,
	.mkdir = rec_mkdir,
	.create = rec_create,
	.open = rec_open,
	.release = rec_release,
	.read = rec_read,
	.write = rec_write,
	.truncate = rec_truncate,
	.fallocate = rec_fallocate,
	.fsync = rec_fsync,
	.statfs = rec_statfs,
};

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: recorder BACK LOG MOUNTPOINT "
				"[options of libfuse]\n");
		return 2;
	}
	back = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	out = fopen(argv[2], "wxe");
	if (back < 0 || !out) {
		perror(back < 0 ? argv[1] : argv[2]);
		return 1;
	}
	argv[2] = argv[0];
	return fuse_main(argc - 2, argv + 2, &ops, NULL);
}
