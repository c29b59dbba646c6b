/*
 * cowctl_mounts.c - the mount table: which cowfs is mounted where
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cowctl.h"

/* One line of /proc/self/mountinfo, cut at its blanks:
 * id parent major:minor root POINT options [tags...] - TYPE SOURCE options */
struct row {
	char *id, *parent, *device, *point, *type, *source;
};

/* The kernel writes blanks and backslashes as \ooo. */
static void unescape(char *s)
{
	char *to = s;

	while (*s) {
		if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' &&
		    s[2] >= '0' && s[2] <= '7' && s[3] >= '0' && s[3] <= '7') {
			*to++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 |
				       (s[3] - '0'));
			s += 4;
		} else {
			*to++ = *s++;
		}
	}
	*to = '\0';
}

static bool parse_row(char *line, struct row *r)
{
	char *save = NULL, *word;
	unsigned i;

	memset(r, 0, sizeof(*r));
	word = strtok_r(line, " \n", &save);
	r->id = word;
	for (i = 0; word && i < 4; i++) {
		word = strtok_r(NULL, " \n", &save);
		if (i == 0)
			r->parent = word;
		if (i == 1)
			r->device = word;
	}
	r->point = word;
	while (word && strcmp(word, "-") != 0)
		word = strtok_r(NULL, " \n", &save);
	if (!word)
		return false;
	r->type = strtok_r(NULL, " \n", &save);
	r->source = strtok_r(NULL, " \n", &save);
	if (!r->point || !r->type || !r->source)
		return false;
	unescape(r->point);
	unescape(r->source);
	return true;
}

static bool is_cowfs(const struct row *r)
{
	return strcmp(r->type, "fuse.cowfs") == 0 ||
	       strcmp(r->type, "fuseblk.cowfs") == 0;
}

void mount_entry_free(struct mount_entry *e)
{
	free(e->point);
	free(e->source);
	free(e->device);
	*e = (struct mount_entry){ 0 };
}

static int entry_set(struct mount_entry *e, const struct row *r)
{
	struct mount_entry fresh = { strdup(r->point), strdup(r->source),
				     strdup(r->device) };

	if (!fresh.point || !fresh.source || !fresh.device) {
		mount_entry_free(&fresh);
		return -ENOMEM;
	}
	mount_entry_free(e);
	*e = fresh;
	return 0;
}

/* realpath(), also of a mount point whose daemon is gone: its parent's real
 * path and its own name. The result is to be freed. */
static char *real_path(const char *path)
{
	char *copy, *slash, *parent, *real = realpath(path, NULL);
	size_t len;

	if (real || errno != ENOTCONN)
		return real;
	copy = strdup(path);
	if (!copy)
		return NULL;
	for (len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
		copy[len - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (parent && asprintf(&real, "%s/%s",
			       strcmp(parent, "/") == 0 ? "" : parent,
			       slash ? slash + 1 : copy) < 0)
		real = NULL;
	free(parent);
	free(copy);
	return real;
}

static bool lies_in(const char *path, const char *point)
{
	size_t len = strlen(point);

	if (strcmp(point, "/") == 0)
		return true;
	return strncmp(path, point, len) == 0 &&
	       (path[len] == '/' || path[len] == '\0');
}

/*
 * Of all mounts that hold path the innermost, and of several at one place the
 * last, is the one that path lies in; it may or may not be a cowfs.
 */
static int scan_by_path(FILE *f, const char *real, struct mount_entry *out)
{
	char *line = NULL;
	size_t room = 0, best = 0;
	bool cowfs = false;
	struct row r;
	int err = 0;

	while (!err && getline(&line, &room, f) > 0) {
		if (!parse_row(line, &r) || !lies_in(real, r.point) ||
		    strlen(r.point) < best)
			continue;
		best = strlen(r.point);
		cowfs = is_cowfs(&r);
		if (cowfs)
			err = entry_set(out, &r);
	}
	free(line);
	if (!err && !cowfs)
		err = -ENOENT;
	if (err)
		mount_entry_free(out);
	return err;
}

static bool has_source(const struct row *r, const char *real)
{
	return is_cowfs(r) && !strcmp(r->source, real);
}

static bool has_device(const struct row *r, const char *device)
{
	return !strcmp(r->device, device);
}

/* The first of which that is true. */
static int scan_rows(FILE *f, bool (*is)(const struct row *r, const char *what),
		     const char *what, struct mount_entry *out)
{
	char *line = NULL;
	size_t room = 0;
	struct row r;
	int err = -ENOENT;

	while (err == -ENOENT && getline(&line, &room, f) > 0)
		if (parse_row(line, &r) && is(&r, what))
			err = entry_set(out, &r);
	free(line);
	return err;
}

static bool has_parent(const struct row *r, const char *id)
{
	return !strcmp(r->parent, id);
}

static int scan_by_parent(FILE *f, const char *id, struct mount_entry *out)
{
	return scan_rows(f, has_parent, id, out);
}

static int scan_by_source(FILE *f, const char *real, struct mount_entry *out)
{
	return scan_rows(f, has_source, real, out);
}

static int scan_by_device(FILE *f, const char *device, struct mount_entry *out)
{
	return scan_rows(f, has_device, device, out);
}

typedef int (*scan_fn)(FILE *f, const char *what, struct mount_entry *out);

static int scan_file(const char *table, const char *what, scan_fn fn,
		     struct mount_entry *out)
{
	FILE *f = fopen(table, "re");
	struct mount_entry found = { 0 };
	int err;

	if (!f)
		return -errno;
	err = fn(f, what, &found);
	fclose(f);
	if (!err)
		*out = found;
	return err;
}

static int scan_table(const char *what, scan_fn fn, struct mount_entry *out)
{
	return scan_file(MOUNT_TABLE, what, fn, out);
}

static int scan(const char *path, scan_fn fn, struct mount_entry *out)
{
	char *real = real_path(path);
	int err;

	if (!real)
		return -errno;
	err = scan_table(real, fn, out);
	free(real);
	return err;
}

int mount_by_path(const char *path, struct mount_entry *out)
{
	return scan(path, scan_by_path, out);
}

int mount_by_source(const char *image, struct mount_entry *out)
{
	int err = scan(image, scan_by_source, out);
	char *other;

	if (err != -ENOENT || cowfs_device_other(image, &other))
		return err;
	err = scan(other, scan_by_source, out);
	free(other);
	return err;
}

int mount_by_device(const char *device, struct mount_entry *out)
{
	return scan_table(device, scan_by_device, out);
}

/* One device may be mounted at several places. */
static int scan_on_device(FILE *f, const char *device, struct mount_entry *out)
{
	char *line = NULL;
	size_t room = 0;
	struct row r;
	int err = -ENOENT;

	while (err == -ENOENT && getline(&line, &room, f) > 0)
		if (parse_row(line, &r) && has_device(&r, device))
			err = scan_table(r.id, scan_by_parent, out);
	free(line);
	return err;
}

int mount_on_device(const char *device, struct mount_entry *out)
{
	return scan_table(device, scan_on_device, out);
}

/* A process ends while it is looked at, or may not be looked at: passed over. */
int mount_in_namespace(const char *device, char table[MOUNT_TABLE_ROOM])
{
	struct mount_entry e = { 0 };
	DIR *proc = opendir("/proc");
	struct dirent *d;
	int err = -ENOENT;

	if (!proc)
		return -errno;
	while (err && (d = readdir(proc))) {
		if (d->d_name[0] < '1' || d->d_name[0] > '9')
			continue;
		snprintf(table, MOUNT_TABLE_ROOM, "/proc/%.20s/mountinfo",
			 d->d_name);
		err = scan_file(table, device, scan_by_device, &e);
	}
	closedir(proc);
	mount_entry_free(&e);
	return err ? -ENOENT : 0;
}
