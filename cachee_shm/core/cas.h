/* cas.h - change a local value only if nobody has changed it since it was read: memcached's gets and cas.
 *
 * An entry is immutable and stands in one place, and every change of a key makes another entry or removes its
 * word. So the token is the entry's place: page, offset, and the page's life. It names no second entry before
 * 2^31 lives of that page. The new entry takes the old one's place in the index by one CAS of the word, as a
 * count's does (cache.c, "changing"). */
#ifndef CACHEE_CAS_H
#define CACHEE_CAS_H

#include "cache.h"

enum cas {
    CAS_DONE,
    CAS_LOST,      /* the value was changed, deleted or evicted, or its entry was moved to another place */
    CAS_OTHER,     /* the value was not set for this host alone */
    CAS_TOO_LARGE, /* nothing happened, as in all cases but the first */
    CAS_NO_ROOM,
    CAS_GONE, /* the segment is retired */
};

static inline uint64_t cas_token(const struct entry_ref *e) { return span_word(&e->place); }

/* w->store_nothing: the value is removed. Its tags stay. */
enum cas cache_cas(struct attachment *a, struct write *w, uint64_t token);

#endif
