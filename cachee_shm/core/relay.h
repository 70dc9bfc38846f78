/* relay.h - the bridge's verbs: this host's announcements out of the ring, a peer's announcements into it.
 *
 * Wire record, little-endian, one after another:
 *
 *   kind u8 = 1 KEY      hash u64               evict unconditionally
 *             2 KEY_SET  hash u64, digest u64   a host that holds these bytes keeps them
 *             3 TAG      hash u64
 *             4 CLEAR
 *             5 ALL      everything older
 *             7 KEY_UNKNOWN  hash u64           evict unconditionally: its outcome is unknown (wire 3)
 *
 * 6 is no record: a lapped peer is sent a map instead, see relay_buckets.h. A host of wire 2 is sent KEY in
 * the place of KEY_UNKNOWN: bridge/cachee_bridge/links/versions.py.
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
    WIRE_KEY_UNKNOWN = 7
};

enum { PACK_RECORDS_MAX = 2048, WIRE_RECORD_BYTES_MAX = 17 };

enum relay { RELAY_OK, RELAY_LAPPED, RELAY_MALFORMED, RELAY_CORRUPT };

/* Pack own announcements of the at most records_max records after *cursor into out, a key at most once;
 * *cursor moves to the last record looked at. out holds at least WIRE_RECORD_BYTES_MAX bytes. */
enum relay relay_pack(const struct attachment *a, uint64_t *cursor, uint32_t records_max, unsigned char *out,
                      uint32_t out_bytes, uint32_t *used);

/* Apply a whole payload, or nothing of it when it is malformed. */
enum relay relay_apply(struct attachment *a, uint16_t source, const unsigned char *in, uint32_t bytes,
                       uint32_t *applied);

/* Evict at home what own records after *cursor should have evicted (their writers may have died half-way). */
void relay_heal(struct attachment *a, uint64_t *cursor, uint32_t records_max);

#endif
