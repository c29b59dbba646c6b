/*
 * cowctl_info.c - the verbs info and sync
 */
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "cowctl.h"

enum kind {
	KIND_COUNT,  /* a number */
	KIND_BLOCKS, /* of 4096 bytes */
	KIND_BITS,
};

/* A field of struct cowfs_ioc_info: how people and how programs call it. */
struct field {
	const char *text, *json;
	size_t at;
	enum kind kind;
};

#define AT(member) offsetof(struct cowfs_ioc_info, member)

static const struct field info_fields[] = {
	{ "Size", "blocks", AT(blocks), KIND_BLOCKS },
	{ "Free", "free", AT(free), KIND_BLOCKS },
	{ "Available", "available", AT(avail), KIND_BLOCKS },
	{ "Reserve", "reserve", AT(reserve), KIND_BLOCKS },
	{ "Free after commit", "pending", AT(pending), KIND_BLOCKS },
	{ "Generation", "generation", AT(gen), KIND_COUNT },
	{ "Snapshots", "snapshots", AT(snapshots), KIND_COUNT },
	{ "Deletions going on", "drops", AT(drops), KIND_COUNT },
	{ "Nodes, files", "nodes_fs", AT(nodes[0]), KIND_COUNT },
	{ "Nodes, snapshots", "nodes_snap", AT(nodes[1]), KIND_COUNT },
	{ "Nodes, free space", "nodes_space", AT(nodes[2]), KIND_COUNT },
	{ "Nodes, references", "nodes_refs", AT(nodes[3]), KIND_COUNT },
	{ "Nodes, extra copies", "nodes_copies", AT(nodes_copies), KIND_COUNT },
	{ "Redundancy", "redundancy", AT(redundancy), KIND_COUNT },
	{ "Extra copies", "extra_copies", AT(copied), KIND_BLOCKS },
	{ "Features, compat", "compat", AT(compat), KIND_BITS },
	{ "Features, ro_compat", "ro_compat", AT(ro_compat), KIND_BITS },
	{ "Features, incompat", "incompat", AT(incompat), KIND_BITS },
};

static uint64_t value(const struct cowfs_ioc_info *info, const struct field *f)
{
	uint64_t v;

	memcpy(&v, (const char *)info + f->at, sizeof(v));
	return v;
}

static void print_field(const struct cowfs_ioc_info *info,
			const struct field *f)
{
	uint64_t v = value(info, f);
	char human[TOOL_HUMAN];

	printf("%-20s ", f->text);
	switch (f->kind) {
	case KIND_BLOCKS:
		tool_human(v * COWFS_BLOCK_SIZE, human);
		printf("%s (%" PRIu64 " blocks)\n", human, v);
		break;
	case KIND_BITS:
		printf("0x%" PRIx64 "\n", v);
		break;
	case KIND_COUNT:
		printf("%" PRIu64 "\n", v);
		break;
	}
}

static void uuid_text(const uint8_t uuid[16], char out[37])
{
	char *p = out;
	int i;

	for (i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += snprintf(p, 3, "%02x", uuid[i]);
	}
}

static const char *state(const struct cowfs_ioc_info *info)
{
	if (info->stopped)
		return "stopped";
	return info->readonly ? "read-only" : "read-write";
}

static void info_text(const struct target *t,
		      const struct cowfs_ioc_info *info)
{
	char uuid[37];
	size_t i;

	uuid_text(info->uuid, uuid);
	printf("%-20s %s\n", "Path", t->path);
	if (target_is_image(t))
		printf("%-20s %s\n", "State", "not mounted");
	else
		printf("%-20s mounted, %s (pid %" PRIu64 ")\n", "State",
		       info->stopped ? "writing stopped after an error" :
				       state(info),
		       info->pid);
	if (info->gone)
		printf("%-20s %s\n", "Image", "gone: all that is written is lost "
		       "with the mount");
	printf("%-20s ", "Label");
	tool_put(stdout, info->label);
	putchar('\n');
	printf("%-20s %s\n", "UUID", uuid);
	printf("%-20s %" PRIu32 "\n", "Node size", info->node_size);
	printf("%-20s metadata %u, data %u\n", "Copies", info->meta_copies,
	       info->data_copies);
	if (info->sides > 1)
		mirror_text(info);
	for (i = 0; i < sizeof(info_fields) / sizeof(info_fields[0]); i++)
		print_field(info, &info_fields[i]);
}

static void info_json(const struct target *t,
		      const struct cowfs_ioc_info *info)
{
	const struct field *f = info_fields;
	char uuid[37];
	size_t i;

	uuid_text(info->uuid, uuid);
	printf("{\n  \"path\": ");
	tool_json_string(stdout, t->path);
	printf(",\n  \"mounted\": %s,\n  \"state\": \"%s\",\n"
	       "  \"image_gone\": %s,\n  \"pid\": %" PRIu64
	       ",\n  \"label\": ",
	       target_is_image(t) ? "false" : "true", state(info),
	       info->gone ? "true" : "false", info->pid);
	tool_json_string(stdout, info->label);
	printf(",\n  \"uuid\": \"%s\",\n  \"block_size\": %u,\n"
	       "  \"node_size\": %" PRIu32 ",\n  \"metadata_copies\": %u,\n"
	       "  \"data_copies\": %u",
	       uuid, COWFS_BLOCK_SIZE, info->node_size, info->meta_copies,
	       info->data_copies);
	for (i = 0; i < sizeof(info_fields) / sizeof(info_fields[0]); i++)
		printf(",\n  \"%s\": %" PRIu64, f[i].json, value(info, &f[i]));
	printf(",\n  \"mirror\": ");
	mirror_json(info);
	printf("\n}\n");
}

int verb_info(const char *path, int argc, char **argv)
{
	struct cowfs_ioc_info info;
	struct target t;
	bool json = false;
	int err, status;

	status = parse_json_only(argc, argv, 0, &json);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_READ))
		return STATUS_FAILED;
	err = target_info(&t, &info);
	if (err)
		tool_err(path, "%s", target_strerror(err));
	else if (json)
		info_json(&t, &info);
	else
		info_text(&t, &info);
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}

int verb_sync(const char *path, int argc, char **argv)
{
	struct target t;
	int err, status;

	status = parse_json_only(argc, argv, 0, NULL);
	if (status)
		return status;
	if (target_open(&t, path, TARGET_WRITE))
		return STATUS_FAILED;
	err = target_sync(&t);
	if (err)
		tool_err(path, "%s", target_strerror(err));
	return target_close(&t) || err ? STATUS_FAILED : STATUS_OK;
}
