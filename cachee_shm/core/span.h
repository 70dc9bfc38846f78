/* span.h - values too large for one entry.
 *
 * A large value is cut into spans, an eighth of a page each: entries of their own that no index word names;
 * the value's own entry holds a word for each. Spans are written before it, so they fall out of their queue
 * before it, and are dropped or carried forward by the value's frequency (evict.c), which then changes its
 * word. A reader that finds a span's page in another life looks at the word again; if that is as it was, the
 * value has been evicted. A writer that dies between two spans leaves dead bytes, which the queue takes back.
 */
#ifndef CACHEE_SPAN_H
#define CACHEE_SPAN_H

#include "evict.h"

/* Write the spans of a key's value, of no use after `ends_ms` (0: never ends); their words are then in
 * a->span_words. False: no room. */
bool span_write(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes, uint64_t ends_ms);

/* Copy the e->value_bytes bytes of an entry of spans out. False: one of them is gone, or is moved again and
 * again. */
bool span_read(const struct attachment *a, const struct entry_ref *e, void *to);

#endif
