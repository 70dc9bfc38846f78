/* canary.h - test values (canaries) by which bridges check that their peers evict, and what a segment holds
 * of a hash.
 *
 * A canary is written like every value: room, record, fence, entry, and over the wire to the peers. But no
 * user's key has its hash (hash.h, hash_reserved), and statistics ignore it: the number of entries, hits,
 * sets and fills, evictions by peers, events, and what the policy learns.
 */
#ifndef CACHEE_CANARY_H
#define CACHEE_CANARY_H

#include "cache.h"

enum {
    CANARY_BYTES_MAX = 96,
    /* lifetime; a canary is written or filled again before that, so only those of hosts that have gone
     * expire */
    CANARY_MS = 3600 * 1000,
};

/* What this segment would serve for a hash. */
struct holding {
    bool held, local;
    uint64_t version; /* of the entry */
    uint64_t fence;   /* the last event in the bucket of the hash */
    uint64_t age_ms;  /* time since it was set, or since its load began; at most 2/16 s too high */
    uint64_t digest;  /* 0: the value is in spans */
    uint32_t value_bytes;
    unsigned char value[CANARY_BYTES_MAX]; /* of a canary; of others none, and value_bytes is 0 */
};

void canary_look(const struct attachment *a, uint64_t hash, struct holding *h);

/* Write a canary of this host, and announce it like every write. */
enum store canary_set(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes);

/* Store the value of another host's canary, as a value that was loaded under `token`. */
enum store canary_fill(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes,
                       uint64_t token);

#endif
