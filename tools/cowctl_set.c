/*
 * cowctl_set.c - the verbs set and get
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cowctl.h"

/* NAME=VALUE */
static int parse_setting(char *text, struct cowfs_ioc_setting *out)
{
	char *value = strchr(text, '='), *end;

	if (!value || value == text || (size_t)(value - text) >=
					       sizeof(out->name))
		return usage_error(text, "not of the form NAME=VALUE");
	memcpy(out->name, text, (size_t)(value - text));
	value++;
	errno = 0;
	out->value = strtoull(value, &end, 10);
	if (*value < '0' || *value > '9' || *end || errno)
		return usage_error(text, "the value is not a number");
	return STATUS_OK;
}

static const char *why(int err)
{
	return err == -ENOENT ? "no such setting" :
	       err == -EINVAL || err == -ERANGE ?
				"the setting cannot have that value" :
				target_strerror(err);
}

/* One reference alone is no sharing: there would be a copy of everything. */
static const char *why_not(const struct cowfs_ioc_setting *set, int err)
{
	if (err == -EINVAL && set->value == 1 &&
	    !strcmp(set->name, "redundancy"))
		return "1 would be every file: it is 2 or more, the number of "
		       "snapshots that share the data, or 0, none";
	return why(err);
}

int verb_set(const char *path, int argc, char **argv)
{
	struct cowfs_ioc_setting set = { .index = 0 };
	struct target t;
	int err, status;

	status = parse_json_only(argc, argv, 1, NULL);
	if (status)
		return status;
	if (optind == argc)
		return usage_error(argv[0], "set what? NAME=VALUE");
	status = parse_setting(argv[optind], &set);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_WRITE))
		return STATUS_FAILED;
	err = target_set(&t, &set);
	if (err)
		tool_err(set.name, "%s", why_not(&set, err));
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}

static void print_json(const struct cowfs_ioc_setting *s, bool first)
{
	printf("%s  ", first ? "" : ",\n");
	tool_json_string(stdout, s->name);
	printf(": %" PRIu64, s->value);
}

static void print_text(const struct cowfs_ioc_setting *s)
{
	tool_put(stdout, s->name);
	printf("=%" PRIu64 "\n", s->value);
}

/* All settings, or the one called name. */
static int get(struct target *t, const char *name, bool json)
{
	struct cowfs_ioc_setting s = { .index = 0 };
	uint32_t n = 0;
	int err;

	if (name && strlen(name) >= sizeof(s.name))
		return -ENOENT;
	if (name)
		strcpy(s.name, name);
	if (json)
		printf("{\n");
	while ((err = target_get(t, &s)) == 0) {
		if (json)
			print_json(&s, !n);
		else if (name)
			printf("%" PRIu64 "\n", s.value);
		else
			print_text(&s);
		n++;
		if (name)
			break;
		s = (struct cowfs_ioc_setting){ .index = n };
	}
	if (json)
		printf("%s}\n", n ? "\n" : "");
	return err == -ENOENT && !name ? 0 : err;
}

int verb_get(const char *path, int argc, char **argv)
{
	bool json = false;
	const char *name;
	struct target t;
	int err, status;

	status = parse_json_only(argc, argv, 1, &json);
	if (status)
		return status;
	name = optind < argc ? argv[optind] : NULL;
	if (target_open(&t, path, TARGET_READ))
		return STATUS_FAILED;
	err = get(&t, name, json);
	if (err)
		tool_err(name ? name : path, "%s", why(err));
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}
