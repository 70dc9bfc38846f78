/* cache.h - the verbs. Each orders the parts below it; none allocates, blocks, or waits for another process.
 *
 * The order inside a write: room and bytes first, then the record in the ring, then the fence, then the entry.
 * A death between any two steps may cost an eviction, never an invalidation: until the write is over, the
 * roster slot holds its hash, and the sweep evicts and announces it.
 */
#ifndef CACHEE_CACHE_H
#define CACHEE_CACHE_H

#include "doorbell.h"
#include "doubt.h"
#include "evict.h"
#include "lease.h"
#include "span.h"

struct write {
    uint64_t hash;
    const void *key;
    const void *value;
    uint32_t key_bytes, value_bytes;
    const void *body; /* what is put in the value's place: set by reserve() in cache.c */
    uint32_t body_bytes;
    uint64_t ttl_ms; /* 0 = never expires */
    uint64_t last_ms; /* it ends then at the latest, whatever its ttl_ms: see doubt.h; 0 = no such end */
    uint64_t grace_ms;
    uint64_t sliding_ms; /* what a use adds, until ttl_ms; 0: nothing */
    uint32_t load_ms;    /* what its load took; 0: unknown */
    uint8_t type, tags;
    bool local, store_nothing;
    uint64_t tag[TAGS_MAX];
};

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

/* An eighth of the value memory, and no more than the words of spans that fit into one entry can name. */
static inline uint32_t value_bytes_max(const struct attachment *a)
{
    uint64_t share = (uint64_t)a->geo.page_count * a->geo.page_bytes / 8;
    uint32_t words = (a->geo.page_bytes - entry_bytes(KEY_BYTES_MAX, TAGS_MAX + LIFETIME_WORDS_MAX, 0)) / 8;
    uint32_t named = (words < SPANS_MAX ? words : SPANS_MAX) * a->span_bytes;
    return share < named ? (uint32_t)share : named;
}

/* Find what may be served now. An entry that slides, and is in the last half of its time, is given more of it: a copy takes
 * its place, and *e is still right to read. FOUND: copy the value, then cache_confirm; if that fails, find again. */
enum finding cache_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, struct entry_ref *e);
/* The same of an entry that was found before. Not *still: the key has another value or none, so find it anew. */
enum finding cache_find_again(struct attachment *a, struct entry_ref *e, bool *still);
bool cache_confirm(struct attachment *a, const struct entry_ref *e);
/* After cache_read said that a span is gone, and the entry was confirmed: evict the entry if that is so. */
void cache_drop_broken(struct attachment *a, const struct entry_ref *e);

/* Copy e->value_bytes bytes out. False: a span of it is gone, and the entry with it. Confirm in either case. */
static inline bool cache_read(const struct attachment *a, const struct entry_ref *e, void *to)
{
    if (entry_spans(e))
        return span_read(a, e, to);
    racing_read(to, entry_value(e), e->value_bytes);
    return true;
}

enum store cache_set(struct attachment *a, struct write *w);
/* STORED, if no value was here; STORE_LOST, if one was seen: of concurrent adds on a host exactly one stores. What was seen
 * in a segment that is retired does not count: STORE_CORRUPT. */
enum store cache_add(struct attachment *a, struct write *w);
/* A set whose origin write began under `token`, at `started_ms`: stores nothing if the key's fence moved since. Where the host
 * is cut off, the value is as old as its block: another host may have written the origin since. */
enum store cache_set_fenced(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms);
/* Store what was loaded from the origin under `token`, begun at `started_ms`. Announces nothing. */
enum store cache_fill(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms);

/* At the end of a write: has the segment a successor, or may it have one? Then it is retired, and what was done in it counts
 * for nothing. */
bool cache_orphaned(struct attachment *a);

/* Whoever leaves a retired segment: may its successor hold what is older than a write that was done here? Then it has to be
 * cleared. False only where this can be told: nobody died in here with a debt, nothing is damaged, and this process has not
 * written, or swept, since some time before it was retired. Those who died are claimed: see orphan.h. */
bool cache_owes_clear(struct attachment *a);

/* Returns 1 if a value was here, 0 if not, -1 if the segment is retired: then nothing of it counts. */
int cache_delete(struct attachment *a, uint64_t hash);
int cache_delete_unknown(struct attachment *a, uint64_t hash); /* after doubt_begin */
int cache_delete_local(struct attachment *a, uint64_t hash); /* other hosts are not told */
int cache_delete_tag(struct attachment *a, uint64_t tag);
int cache_clear(struct attachment *a);

/* Give an entry a new lifetime. Returns 1, or 0 if it is not here (any more), or -1 if the segment is retired: then nothing
 * of it counts. */
int cache_touch(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, uint64_t ttl_ms);

enum incr {
    INCR_DONE,
    INCR_MISSED,   /* no value of this key is here */
    INCR_OTHER,    /* the value is no 64-bit integer, or not a local one and not to be adopted */
    INCR_OVERFLOW, /* the sum is not a 64-bit integer */
    INCR_GONE,     /* the segment is retired: nothing of it counts */
    INCR_NO_ROOM,  /* every page is held by a live process, or others changed the key at each of many tries */
};

/* Add to a local integer; *sum is what it is then. Of concurrent calls none is lost. Its lifetime stays. But for
 * INCR_DONE nothing happened. `adopts`: an integer that was set for all hosts becomes one of this host by it; what other
 * hosts hold stays as it is. */
enum incr cache_incr(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, int64_t by, bool adopts, int64_t *sum);

/* Housekeeping: sweep what the dead left, if nobody has for half a second; retire a segment that is damaged or whose name
 * leads elsewhere. Whoever begins a verb of any kind calls cache_look_after first, before it looks whether the segment is
 * retired: so that what a dead process owed is paid within two seconds before the answer is given, at any rate of use. */
void cache_keep_house(struct attachment *a, uint64_t second);

static inline bool cache_look_due(const struct attachment *a) { return clock_second() != a->house_second; }

static inline void cache_look_after(struct attachment *a)
{
    if (cache_look_due(a))
        cache_keep_house(a, clock_second());
}

/* About how many entries can be read: exact while there are at most 4,096 of them and 16,384 buckets, else estimated from a
 * sample of that size. It never takes longer than the sample does. */
uint64_t cache_count(const struct attachment *a);

/* The digest of an entry: its bytes, type, lifetime class and tags. */
uint64_t entry_digest(const struct attachment *a, const struct entry_ref *e);

/* What of a digest fits into a ring record. Never 0: 0 is "none". */
static inline uint16_t digest_bits(uint64_t digest) { return (uint16_t)digest ? (uint16_t)digest : 1; }

#endif
