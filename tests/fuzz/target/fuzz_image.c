/*
 * fuzz_image.c - libFuzzer over all that reads an image: recipes (hostile.h)
 *
 *	make fuzz FUZZ_TIME=600
 */
#include <stdio.h>

#include "fuzz/hostile.h"
#include "util/util.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void swallow(void *arg, enum log_level level, const char *line)
{
	(void)arg;
	(void)level;
	(void)line;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_set_sink(swallow, NULL);
	for (unsigned i = 0; i < BASE_KINDS; i++) {
		const struct base *b = base_get(i);

		fprintf(stderr,
			"image %u: %zu nodes, %u levels, %zu data blocks\n", i,
			b->nodes, b->super[0].roots[0].ptr.level + 1u,
			b->places - b->nodes);
	}
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	recipe_run(data, size);
	return 0;
}
