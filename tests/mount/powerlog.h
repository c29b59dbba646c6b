/*
 * powerlog.h - what the recorder writes down, and powercut reads
 *
 * One entry for each thing done to the files below the recorder, in the order
 * in which it was answered: whoever waits for the answer to one thing before he
 * does the next finds them in the log in this order, whichever files they are
 * about. So a journal that lies beside the image says at each point of the log
 * what had been promised by then.
 */
#ifndef COW_TEST_POWERLOG_H
#define COW_TEST_POWERLOG_H

#include <stdint.h>

enum power_kind {
	POWER_MKDIR = 1,
	POWER_CREATE,
	POWER_SIZE,  /* len: the new one */
	POWER_WRITE, /* at off, len bytes, which follow the name */
	POWER_ZERO,  /* at off, len bytes (a hole was punched) */
	POWER_FLUSH, /* all before it is durable */
};

struct power_entry {
	uint32_t kind;
	uint32_t name_len; /* of the path that follows, no slash before it */
	uint64_t off, len;
};

#endif
