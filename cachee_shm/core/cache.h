/* cache.h - the verbs. Each orders the parts below it; none allocates, blocks, or waits for another process.
 *
 * The order inside a write: room and bytes first, then the record in the ring, then the fence, then the
 * entry. A death between any two steps may cost an eviction, never an invalidation: until the write is over,
 * the roster slot holds its hash, and the sweep evicts and announces it.
 */
#ifndef CACHEE_CACHE_H
#define CACHEE_CACHE_H

#include "doorbell.h"
#include "doubt.h"
#include "evict.h"
#include "lease.h"
#include "write.h"

enum store {
    STORED,
    STORE_LOST,      /* something newer is there, or came meanwhile: this value was never visible */
    STORE_GUARDED,   /* another host wrote the key within the last second: announced, not stored */
    STORE_NOTHING,   /* ttl=0: announced, as asked */
    STORE_NO_ROOM,   /* announced; every page is held by a live process */
    STORE_TOO_LARGE, /* nothing happened */
    STORE_CORRUPT,   /* the segment is retired, or its name is another's: nothing of it counts */
};

enum finding { FOUND_NOTHING, FOUND, FOUND_STALE /* expired, within its grace */ };

/* Find what may be served now. A sliding entry in the last half of its period is replaced by a copy that ends
 * later; *e, the older copy, may still be read. FOUND: copy the value, then call cache_confirm; if that
 * fails, find again. */
enum finding cache_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                        struct entry_ref *e);
/* Look again at an entry that was found before. If *still is false, the key has another value or none: call
 * cache_find. */
enum finding cache_find_again(struct attachment *a, struct entry_ref *e, bool *still);
bool cache_confirm(struct attachment *a, const struct entry_ref *e);
/* Call it when cache_read has found a span missing and the entry was confirmed: evicts the entry if the span
 * is gone indeed. */
void cache_drop_broken(struct attachment *a, const struct entry_ref *e);

/* Copy e->value_bytes bytes out. False: a span of it is gone, and the entry with it. Confirm in either
 * case. */
static inline bool cache_read(const struct attachment *a, const struct entry_ref *e, void *to)
{
    if (entry_spans(e))
        return span_read(a, e, to);
    racing_read(to, entry_value(e), e->value_bytes);
    return true;
}

enum store cache_set(struct attachment *a, struct write *w);
/* STORED, if no value was here; STORE_LOST, if one was seen: of concurrent adds on a host exactly one stores.
 * What was seen in a segment that is retired does not count: STORE_CORRUPT. */
enum store cache_add(struct attachment *a, struct write *w);
/* A set whose origin write began under `token`, at `started_ms`: stores nothing if the key's fence moved
 * since. Where the host is cut off, the value is as old as its block: another host may have written the
 * origin since. */
enum store cache_set_fenced(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms);
/* Store what was loaded from the origin under `token`, begun at `started_ms`. Announces nothing. */
enum store cache_fill(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms);

/* Called at the end of a write. True: the segment has, or may have, a successor. This segment is retired now,
 * and the caller must repeat the write in the successor. */
bool cache_orphaned(struct attachment *a);

/* Returns 1 if a value was here, 0 if not, -1 if the segment is retired: then nothing of it counts. */
int cache_delete(struct attachment *a, uint64_t hash);
int cache_delete_unknown(struct attachment *a, uint64_t hash); /* after doubt_begin */
int cache_delete_local(struct attachment *a, uint64_t hash);   /* other hosts are not told */
int cache_delete_tag(struct attachment *a, uint64_t tag);
int cache_clear(struct attachment *a);

/* A lifetime that is over at once. One of a millisecond ends with the next tick of the coarse clock. */
#define TOUCH_ENDS_NOW UINT64_MAX

/* Give an entry a new lifetime: milliseconds, 0 for ever, or TOUCH_ENDS_NOW. Returns 1, or 0 if it is not
 * here (any more), or -1 if the segment is retired: then nothing of it counts. */
int cache_touch(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, uint64_t ttl_ms);

enum incr {
    INCR_DONE,
    INCR_MISSED,   /* no value of this key is here */
    INCR_OTHER,    /* the value is no 64-bit integer, or not a local one and not to be adopted */
    INCR_OVERFLOW, /* the sum is not a 64-bit integer */
    INCR_GONE,     /* the segment is retired: nothing of it counts */
    INCR_NO_ROOM,  /* every page is held by a live process, or others changed the key at each of many tries */
};

/* Add to a local integer; *sum is what it is then. Of concurrent calls none is lost. Its lifetime stays. But
 * for INCR_DONE nothing happened. `adopts`: an integer that was set for all hosts becomes one of this host by
 * it; what other hosts hold stays as it is. */
enum incr cache_incr(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, int64_t by,
                     bool adopts, int64_t *sum);

#endif
