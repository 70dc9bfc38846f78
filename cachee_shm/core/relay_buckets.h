/* relay_buckets.h - maps of buckets: what a peer is sent instead of records that the ring no longer has,
 * and how the peer applies it.
 *
 * The tables of own writes and own tags say which buckets this host announced in after a position, however
 * long ago the records themselves were overwritten. A map of them:
 *
 *   tag_bits u8 | key_bits u8 | a bit for each of 2^tag_bits tag slots | a bit for each of 2^key_bits buckets
 *
 * Bit n is bit n % 8 of byte n / 8. Slot and bucket are the leading bits of a hash on every host, so a map
 * from a segment of another size needs no conversion: one bit of a coarser map raises several fences here,
 * several bits of a finer map raise the same fence. The map's own bits decide which entries are evicted.
 *
 * Applying takes three passes. A record is appended, and every listed fence is raised to its sequence. A
 * second record is appended, and every listed fence is raised to its sequence. Then each word of the index
 * is looked at once, and listed entries that are older than the second record are evicted, except local
 * ones. Each pass goes in steps of a bounded size; between steps the bridge does other work, and other
 * processes append records. Both records are key events with the hash EVERY_KEY: a process that looks for
 * conflicts in the ring treats them as events of its own key.
 *
 * Why one record is not enough: the tail passes it before its fences are raised. So a write with an older
 * token may check the fences, find none moved, and take a later sequence: then nothing would ever evict its
 * value. With two records, such a write made its check before all fences stood at the first record, and so
 * before the second record. If its sequence is below the second's, it is refused or evicted. If it is
 * above, the second record lies between the write's two checks (cache_moved_meanwhile in cache.c).
 */
#ifndef CACHEE_RELAY_BUCKETS_H
#define CACHEE_RELAY_BUCKETS_H

#include "relay.h"

enum owed {
    OWED_NOTHING = 0,
    OWED_BUCKETS, /* a map of the buckets that were written in after the cursor */
    OWED_CLEAR,   /* one of the records was a clear: one record CLEAR */
    OWED_ALL,     /* the cursor is too far back for the tables, or of another ring: one record ALL */
};

/* The record, or the kind of map, that is sent for what a peer is owed (not for OWED_NOTHING). A CLEAR
 * cannot say that it stands for writes of unknown outcome too; then an ALL is sent, which evicts the
 * same. */
enum wire_kind relay_kind_owed(const struct attachment *a, enum owed owed);

/* What this host announced after `cursor`, up to the ring's tail: at least that, possibly more. */
enum owed relay_owes(const struct attachment *a, uint64_t cursor);

/* Bytes of this host's map. */
uint32_t relay_map_bytes(const struct attachment *a);

/* Write the bytes of the map from `at` on, as many as fit: a bit for everything that was announced after
 * `cursor`. Returns how many. Pieces that are read at different times form a complete map of everything
 * that was announced before the first piece was read. */
uint32_t relay_map_pack(const struct attachment *a, uint64_t cursor, uint32_t at, unsigned char *out,
                        uint32_t room);

struct bitmap {
    const unsigned char *bytes;
    uint32_t log2; /* of the number of bits */
};

struct bucket_map {
    struct bitmap tags, keys;
    bool known; /* the map stands for no write of unknown outcome; relay_map_read does not set it */
};

/* False: these are not the bytes of a map. */
bool relay_map_read(const unsigned char *in, uint64_t bytes, struct bucket_map *map);

/* The progress of the two records and their fences. All zeros at the beginning. */
struct map_fencing {
    /* of the record whose fences are being raised; at the end the version for relay_map_evict */
    uint64_t sequence;
    uint64_t at; /* the cell to go on with, of both passes over the tables; 0: done */
};

/* Raise some of the fences, looking at `steps_max` bits or fences at most (0 counts as 1). Call it again
 * until f->at is 0. False: the ring is corrupt. */
bool relay_map_fence(struct attachment *a, uint16_t source, const struct bucket_map *map, uint32_t steps_max,
                     struct map_fencing *f);

/* Evict the listed entries that are older than `version` among the `words_max` words of the index from
 * `from` on; adds to *evicted. Returns the word to go on with. 0 is the end: then a last record has told
 * the readers of the ring that everything is evicted. */
uint64_t relay_map_evict(struct attachment *a, uint16_t source, const struct bucket_map *map,
                         uint64_t version, uint64_t from, uint32_t words_max, uint32_t *evicted);

#endif
