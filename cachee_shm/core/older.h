/* older.h - this host's segment of another layout, as the bridge of this one sees it.
 *
 * While a host is upgraded, workers of two builds run, each build in a segment of its own layout. One bridge
 * serves both:
 *
 *   what is written there   its ring is read on from pump_cursor; each own record becomes an own eviction
 *                           here, and so goes to the peers as well. What the ring has lost becomes a clear.
 *   what is written here,   nothing there may be older. Later layouts know SERVE_NOTHING. Layout 2 has no
 *   or comes from peers     such mark: a record ALL and clear_own evict all there, whenever this ring moves.
 *   its roster is empty     it is retired; then what its dead owed becomes a clear, and its name goes.
 *
 * It has no slot in the roster there, so whoever lives there is a worker. Only what every layout keeps is
 * touched (layout.h). All of it is input: places are checked at older_open, and bounded by what was mapped
 * then. */
#ifndef CACHEE_OLDER_H
#define CACHEE_OLDER_H

#include "segment.h"

struct older {
    struct attachment a; /* header, ring and fences of the other segment; no roster slot, index or pages */
    uint64_t mapped_bytes, roster_at;
    uint32_t layout, roster_slot_bytes;
    a64 *doorbell;
    struct kept *kept;
    bool same_keys; /* both hash keys alike: else a record there becomes a clear here */
};

enum older_state {
    OLDER_OPEN,
    OLDER_NOT_READY,  /* being made */
    OLDER_UNREADABLE, /* not a segment of another layout, or its places contradict its size */
    OLDER_FAILED,     /* errno says why */
};

/* fd is the other segment's file, which `o` then owns; `mine` is this bridge's own segment of the same
 * namespace. */
enum older_state older_open(struct older *o, int fd, const struct attachment *mine);
void older_close(struct older *o);

/* Become the bridge of it, too; false: one lives. At the first time, or where another bridge has served it
 * since, what is in `mine` may be older than what was written there: `mine` is cleared, for peers too, and
 * then reading begins at its tail. */
enum older_taken {
    OLDER_TAKEN,
    OLDER_HAS_BRIDGE,
    OLDER_CORRUPT
} older_take(struct older *o, struct attachment *mine);

/* Announce in `mine` what was written there, at most records_max records; false: the ring of `mine` is
 * corrupt. */
bool older_relay(struct older *o, struct attachment *mine, uint32_t records_max);

/* Nothing that is there now is served any more. */
void older_silence(struct older *o);

/* Until when its workers count as not isolated, and the peers as told (layout 2; later ones serve nothing
 * anyway). */
void older_serve_until(struct older *o, const struct attachment *mine, uint64_t ms);
void older_vouch(struct older *o, const struct attachment *mine, uint64_t until_ms);

/* Arm the doorbell there: false if a record came meanwhile; or disarm it. */
bool older_arm(struct older *o);
void older_disarm(struct older *o);

/* Does any process hold a slot there? */
bool older_in_use(const struct older *o);

/* Nobody may attach any more. Whoever just did leaves at its next verb. */
void older_retire(struct older *o);

/* Retired and not in use: announce the rest in `mine`, with a clear for what the dead owed. False: corrupt,
 * as above. */
bool older_finish(struct older *o, struct attachment *mine);

#endif
