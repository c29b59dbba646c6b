/*
 * text.h - names that somebody else made, where people read them
 *
 * Names on an image, and what a daemon of another user's answers, may hold
 * anything. None is to drive a terminal, or to forge a line.
 */
#ifndef COWFS_TEXT_H
#define COWFS_TEXT_H

#include <stddef.h>

/* Bytes of the UTF-8 character at s, of which there are len at most, if it is
 * well-formed and no control character, of either kind (U+0000 to U+001F, U+007F
 * to U+009F: U+009B does what ESC [ does). 0: it is not to be shown as it is. */
size_t cowfs_shown(const char *s, size_t len);

#endif
