/* span.h - values too large for one entry.
 *
 * A large value is cut into spans of an eighth of a page each. Spans are entries that no index word names;
 * the value's own entry (the head) holds a word for each. Spans are written before the head, so they come
 * up for eviction before it. They are dropped or moved according to the value's frequency (evict.c), and a
 * move swaps the span's word in the head. A reader that finds a span's page in another life reads the word
 * again: if it has not changed, the value has been evicted. A writer that dies between two spans leaves
 * dead bytes, which draining takes back.
 */
#ifndef CACHEE_SPAN_H
#define CACHEE_SPAN_H

#include "evict.h"

/* Write the spans of a key's value and put their words into a->span_words. After `ends_ms` they are of no
 * use (0: never ends). False: no room. */
bool span_write(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes, uint64_t ends_ms);

/* Copy the e->value_bytes bytes of a value in spans out. False: a span is gone, or was moved during each
 * try. */
bool span_read(const struct attachment *a, const struct entry_ref *e, void *to);

#endif
