/* relay.h - the bridge's verbs: this host's announcements out of the ring, a peer's announcements into it.
 *
 * Wire record, little-endian, one after another:
 *
 *   kind u8 = 1 KEY      hash u64               evict unconditionally
 *             2 KEY_SET  hash u64, digest u64   a host that holds these bytes keeps them
 *                                               digest from 2^11 to 2^12: evict. The lower 11 bits are those
 *                                               of the digest of a value that its source does not hold
 *             3 TAG      hash u64
 *             4 CLEAR
 *             5 ALL      evict everything older. The missed writes may include some of unknown outcome
 *             7 KEY_UNKNOWN  hash u64           evict unconditionally; outcome unknown (wire 3)
 *             8 ALL_KNOWN         evict everything older. No missed write is of unknown outcome (wire 3)
 *
 * 6 and 9 are not records but maps of buckets, for a lapped peer (relay_buckets.h): 6 like ALL, 9 like
 * ALL_KNOWN. A host of wire 2 is sent KEY instead of KEY_UNKNOWN, and ALL instead of ALL_KNOWN
 * (bridge/cachee_bridge/links/versions.py).
 */
#ifndef CACHEE_RELAY_H
#define CACHEE_RELAY_H

#include "cache.h"

enum wire_kind {
    WIRE_KEY = 1,
    WIRE_KEY_SET = 2,
    WIRE_TAG = 3,
    WIRE_CLEAR = 4,
    WIRE_ALL = 5,
    WIRE_BUCKETS = 6, /* no record */
    WIRE_KEY_UNKNOWN = 7,
    WIRE_ALL_KNOWN = 8,
    WIRE_BUCKETS_KNOWN = 9 /* no record */
};

enum { PACK_RECORDS_MAX = 2048, WIRE_RECORD_BYTES_MAX = 17 };
#define WIRE_SOME_BITS                                                                                       \
    ((uint64_t)GUARDED_DIGEST_BITS + 1) /* set in a digest of which only these bits are known */

enum relay { RELAY_OK, RELAY_LAPPED, RELAY_MALFORMED, RELAY_CORRUPT };

/* Look at up to records_max records after *cursor, and pack this host's own announcements among them into
 * out, a key at most once. *cursor moves to the last record looked at. out has room for at least
 * WIRE_RECORD_BYTES_MAX bytes. */
enum relay relay_pack(struct attachment *a, uint64_t *cursor, uint32_t records_max, unsigned char *out,
                      uint32_t out_bytes, uint32_t *used);

/* Apply a whole payload. If it is malformed, apply nothing of it. */
enum relay relay_apply(struct attachment *a, uint16_t source, const unsigned char *in, uint32_t bytes,
                       uint32_t *applied);

/* Evict on this host what its own records after *cursor should have evicted: their writers may have died
 * between the record and the eviction. */
void relay_heal(struct attachment *a, uint64_t *cursor, uint32_t records_max);

#endif
