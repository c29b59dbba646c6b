/*
 * settings.c - settings of a filesystem by name
 */
#include "check/check.h"
#include "cowfs/ioctl.h"
#include "snapshot/snapshot.h"

static int get_redundancy(struct store *s, uint64_t *value)
{
	struct redun_status st;
	int err = redun_get(s, &st);

	if (!err)
		*value = st.count;
	return err;
}

static int set_redundancy(struct store *s, uint64_t value)
{
	return value > UINT32_MAX ? -ERANGE : redun_set(s, (uint32_t)value);
}

static const struct {
	const char *name;
	int (*get)(struct store *s, uint64_t *value);
	int (*set)(struct store *s, uint64_t value);
} settings[] = {
	{ "redundancy", get_redundancy, set_redundancy },
};

/* By name, if there is one, else by index. */
static int find(const struct cowfs_ioc_setting *want, size_t *at)
{
	if (!want->name[0]) {
		*at = want->index;
		return *at < ARRAY_SIZE(settings) ? 0 : -ENOENT;
	}
	for (*at = 0; *at < ARRAY_SIZE(settings); ++*at)
		if (strcmp(settings[*at].name, want->name) == 0)
			return 0;
	return -ENOENT;
}

int check_get_setting(struct store *s, struct cowfs_ioc_setting *io)
{
	struct cowfs_ioc_setting out = { .index = 0 };
	size_t at;
	int err = find(io, &at);

	if (!err)
		err = settings[at].get(s, &out.value);
	if (err)
		return err;
	strcpy(out.name, settings[at].name);
	out.index = (uint32_t)at;
	*io = out;
	return 0;
}

int check_set_setting(struct store *s, const struct cowfs_ioc_setting *io)
{
	size_t at;
	int err = io->name[0] ? find(io, &at) : -ENOENT;

	if (!err && store_readonly(s))
		err = -EROFS;
	return err ? err : settings[at].set(s, io->value);
}
