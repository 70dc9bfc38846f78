/* write.h - the entry that a write stores: what it is made of, room for it, its bytes, its digest.
 *
 * An entry is copied into its page before its record has a place in the ring, so its version is not known
 * yet: cache.c and cas.c set the version, and publish the entry. Until then no other process can reach
 * these bytes. If the writer dies here, they are dead bytes below or behind the watermark, and draining
 * takes them back.
 */
#ifndef CACHEE_WRITE_H
#define CACHEE_WRITE_H

#include "span.h"

struct write {
    uint64_t hash;
    const void *key;
    const void *value;
    uint32_t key_bytes, value_bytes;
    /* the bytes in the value's place (the value, or its span words): set by write_reserve */
    const void *body;
    uint32_t body_bytes;
    uint64_t ttl_ms;  /* 0 = never expires */
    uint64_t last_ms; /* the latest end, whatever ttl_ms is: see doubt.h; 0 = no such end */
    bool lags;        /* the value may be the row of a replica that lags: see lag.h */
    uint64_t grace_ms;
    uint64_t sliding_ms; /* the lifetime that each use adds, until ttl_ms; 0: none */
    uint32_t load_ms;    /* how long the load took; 0: unknown */
    uint8_t type, tags;
    bool local, store_nothing;
    bool ahead;   /* of a fill: it was loaded before anybody asked for it, see prewarm.h */
    bool in_main; /* the entry replaces one of the main queue, so it goes there */
    uint64_t tag[TAGS_MAX];
};

/* An eighth of the value memory, and no more than the words of spans that fit into one entry can name. */
static inline uint32_t value_bytes_max(const struct attachment *a)
{
    uint64_t share = (uint64_t)a->geo.page_count * a->geo.page_bytes / 8;
    uint32_t words = (a->geo.page_bytes - entry_bytes(KEY_BYTES_MAX, TAGS_MAX + LIFETIME_WORDS_MAX, 0)) / 8;
    uint32_t named = (words < SPANS_MAX ? words : SPANS_MAX) * a->span_bytes;
    return share < named ? (uint32_t)share : named;
}

/* Reserve room for the entry; a large value's spans are written first. False: there is no room. */
bool write_reserve(struct attachment *a, struct write *w, struct place *at, uint64_t now_ms);

/* Copy the entry into reserved bytes. `loaded_ms`: since when its value may be old. */
void write_put(struct attachment *a, const struct write *w, const struct place *at, uint64_t flags,
               uint64_t loaded_ms, uint64_t now_ms);

/* The bytes that the entry takes of a page. write_ends: the time after which it cannot be served any more
 * (0: never). */
uint32_t write_bytes(const struct write *w);
uint64_t write_ends(const struct write *w, uint64_t now_ms);

/* A lifetime's class is its power of two: the same value with a much longer lifetime counts as another
 * value. */
uint8_t write_ttl_class(uint64_t ttl_ms);

/* The digest bits in the ring record of the value at `at`: a part of its entry_digest, or 0: none. */
uint16_t write_digest(const struct attachment *a, const struct write *w, const struct place *at);

/* The digest of an entry: its bytes, type, lifetime class and tags. */
uint64_t entry_digest(const struct attachment *a, const struct entry_ref *e);

/* The part of a digest that fits into a ring record. Never 0: 0 is "none". */
static inline uint16_t digest_bits(uint64_t digest) { return (uint16_t)digest ? (uint16_t)digest : 1; }

#endif
