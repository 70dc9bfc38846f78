/* relay_buckets.h - what a peer is told of announcements that the ring has lost, and how it applies that.
 *
 * The tables of own writes and own tags say which buckets this host announced in after a position, however
 * long ago the records themselves were overwritten. A map of them:
 *
 *   tag_bits u8 | key_bits u8 | a bit for each of 2^tag_bits tag slots | a bit for each of 2^key_bits buckets
 *
 * Bit n is bit n % 8 of byte n / 8. Slot and bucket are the leading bits of a hash on every host, so the map
 * of a segment of another size is read as it is: one bit of a coarser one raises several fences here, several
 * of a finer one raise the same; and which entries go is told by the map's own bits.
 *
 * Applying: a record, every listed fence to its sequence; a second record, every listed fence to its; then
 * all words of the index are looked at once, and what is listed and older than the second record goes. Local
 * entries stay. All three passes go in steps of a bounded size, between which the bridge does other work, and
 * others append records. The records are key events of hash EVERY_KEY: whoever looks for conflicts in the
 * ring takes them for his key's own.
 *
 * One record is not enough. It is below the tail before its fences are up, so a write whose token is older
 * may look, find nothing moved, and take a later sequence: nothing would ever evict what it stores. With two,
 * such a write looked before all fences stood at the first record, hence began before the second: either its
 * sequence is below the second's, and it is refused or evicted; or above, and the second lies between its two
 * looks (moved_meanwhile in cache.c).
 */
#ifndef CACHEE_RELAY_BUCKETS_H
#define CACHEE_RELAY_BUCKETS_H

#include "relay.h"

enum owed {
    OWED_NOTHING = 0,
    OWED_BUCKETS, /* a map of what came after the cursor stands for it */
    OWED_CLEAR,   /* a clear was among it: a record CLEAR stands for all */
    OWED_ALL,     /* too long ago for the tables, or a cursor of another ring: a record ALL */
};

/* What this host announced after `cursor`, up to the ring's tail. It may be more than that, never less. */
enum owed relay_owes(const struct attachment *a, uint64_t cursor);

/* Bytes of this host's map. */
uint32_t relay_map_bytes(const struct attachment *a);

/* The bytes of the map from `at` on, as many as fit: a bit for whatever was announced after `cursor`. Pieces
 * that are read at different times make a good map of all that was announced before the first was read.
 * Returns how many. */
uint32_t relay_map_pack(const struct attachment *a, uint64_t cursor, uint32_t at, unsigned char *out,
                        uint32_t room);

struct bitmap {
    const unsigned char *bytes;
    uint32_t log2; /* of the number of bits */
};

struct bucket_map {
    struct bitmap tags, keys;
};

/* False: these are not the bytes of a map. */
bool relay_map_read(const unsigned char *in, uint64_t bytes, struct bucket_map *map);

/* How far the two records and their fences are. All zeros at the beginning. */
struct map_fencing {
    /* of the record whose fences are being raised; at the end the version for relay_map_evict */
    uint64_t sequence;
    uint64_t at; /* the cell to go on with, of both passes over the tables; 0: done */
};

/* Raise some of the fences, looking at `steps_max` bits or fences at most (0 counts as 1). Call it again
 * until f->at is 0. False: the ring is corrupt. */
bool relay_map_fence(struct attachment *a, uint16_t source, const struct bucket_map *map, uint32_t steps_max,
                     struct map_fencing *f);

/* Evict what is listed and older than `version` among the `words_max` words of the index from `from` on; adds
 * to *evicted. Returns the word to go on with, 0 at the end: then a last record has told those who follow the
 * ring that all of it is gone. */
uint64_t relay_map_evict(struct attachment *a, uint16_t source, const struct bucket_map *map,
                         uint64_t version, uint64_t from, uint32_t words_max, uint32_t *evicted);

#endif
