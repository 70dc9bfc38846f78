/* span.h - values too large for one entry.
 *
 * A large value is cut into spans of SPAN_BYTES, each an entry of its own that no index word names; the value's
 * own entry holds a word for each. Spans are written before it, so they fall out of the FIFO before it: a
 * reader that finds a span's page in another life takes the value for evicted. A writer that dies between
 * two spans leaves dead bytes, which the FIFO takes back. What this costs: a large value lives one turn of
 * the FIFO, hit or not.
 */
#ifndef CACHEE_SPAN_H
#define CACHEE_SPAN_H

#include "evict.h"

/* Write the spans of a value; their words are then in a->span_words. False: no room. */
bool span_write(struct attachment *a, const void *value, uint32_t bytes);

/* Are all spans of this entry still there? */
bool span_whole(const struct attachment *a, const struct entry_ref *e);

/* Copy the e->value_bytes bytes of an entry of spans out. False: one of them is gone. */
bool span_read(const struct attachment *a, const struct entry_ref *e, void *to);

#endif
