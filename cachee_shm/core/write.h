/* write.h - the entry that a write stores: what it is made of, room for it, its bytes, its digest.
 *
 * An entry is copied before its record has a place in the ring, so its version comes last: cache.c and cas.c
 * give it, and publish it.
 */
#ifndef CACHEE_WRITE_H
#define CACHEE_WRITE_H

#include "span.h"

struct write {
    uint64_t hash;
    const void *key;
    const void *value;
    uint32_t key_bytes, value_bytes;
    const void *body; /* what is put in the value's place: set by write_reserve */
    uint32_t body_bytes;
    uint64_t ttl_ms;  /* 0 = never expires */
    uint64_t last_ms; /* it ends then at the latest, whatever its ttl_ms: see doubt.h; 0 = no such end */
    uint64_t grace_ms;
    uint64_t sliding_ms; /* what a use adds, until ttl_ms; 0: nothing */
    uint32_t load_ms;    /* what its load took; 0: unknown */
    uint8_t type, tags;
    bool local, store_nothing;
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

/* Room for the entry; a large value's spans are written first. False: there is none. */
bool write_reserve(struct attachment *a, struct write *w, struct place *at, uint64_t now_ms);

/* Copy the entry into reserved bytes. `loaded_ms`: since when its value may be old. */
void write_put(struct attachment *a, const struct write *w, const struct place *at, uint64_t flags,
               uint64_t loaded_ms, uint64_t now_ms);

/* What it takes of a page, and when nothing of it can be served any more (0: never). */
uint32_t write_bytes(const struct write *w);
uint64_t write_ends(const struct write *w, uint64_t now_ms);

/* Lifetimes are compared by their power of two: the same value with a much longer life is another value. */
uint8_t write_ttl_class(uint64_t ttl_ms);

/* What a ring record says of the value that was put at `at`: bits of its entry_digest, or 0: nothing. */
uint16_t write_digest(const struct attachment *a, const struct write *w, const struct place *at);

/* The digest of an entry: its bytes, type, lifetime class and tags. */
uint64_t entry_digest(const struct attachment *a, const struct entry_ref *e);

/* What of a digest fits into a ring record. Never 0: 0 is "none". */
static inline uint16_t digest_bits(uint64_t digest) { return (uint16_t)digest ? (uint16_t)digest : 1; }

#endif
