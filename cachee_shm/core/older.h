/* older.h - this host's segment of another layout, as the bridge of this one sees it.
 *
 * While a host is upgraded, workers of two builds run, each build in a segment of its own layout. One bridge
 * serves both:
 *
 *   what is written there   its ring is read on from pump_cursor; each own record becomes an own eviction
 *                           here, and so goes to the peers as well. What the ring has lost becomes a clear.
 *   what is written here,   no value there may be older. Later layouts know SERVE_NOTHING. Layout 2 does
 *   or comes from peers     not: a record ALL and clear_own evict everything there, when this ring moves.
 *   its roster is empty     it is retired; then what its dead owed becomes a clear, and its name goes.
 *
 * The bridge has no slot in the roster there, so every live slot is a worker's. Only the parts that stay
 * the same in every layout are touched (layout.h). All of it is input: older_open checks the places, and
 * bounds them by what was mapped then. */
#ifndef CACHEE_OLDER_H
#define CACHEE_OLDER_H

#include "segment.h"

struct older {
    struct attachment a; /* header, ring and fences of the other segment; no roster slot, index or pages */
    uint64_t mapped_bytes, roster_at;
    uint32_t layout, roster_slot_bytes;
    a64 *doorbell;
    struct kept *kept;
    /* both segments have the same hash key; otherwise a record there becomes a clear here */
    bool same_keys;
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

/* Become the bridge of the other segment too, unless it has a living bridge. The first time, or if another
 * bridge has served it since, `mine` may hold values that are older than writes there. Then `mine` is
 * cleared, for peers too, and reading begins at the tail of the other ring. */
enum older_taken {
    OLDER_TAKEN,
    OLDER_HAS_BRIDGE,
    OLDER_CORRUPT
} older_take(struct older *o, struct attachment *mine);

/* Announce in `mine` what was written there, at most records_max records; false: the ring of `mine` is
 * corrupt. */
bool older_relay(struct older *o, struct attachment *mine, uint32_t records_max);

/* Invalidate everything that is in the other segment now. */
void older_silence(struct older *o);

/* Until when its workers may serve as usual; older_vouch: until when its peers' state counts (layout 2;
 * workers of later layouts serve nothing anyway). */
void older_serve_until(struct older *o, const struct attachment *mine, uint64_t ms);
void older_vouch(struct older *o, const struct attachment *mine, uint64_t until_ms);

/* Arm the doorbell there: false if a record came meanwhile; or disarm it. */
bool older_arm(struct older *o);
void older_disarm(struct older *o);

/* Does any process hold a slot there? */
bool older_in_use(const struct older *o);

/* No process may attach any more. A process that has just attached leaves at its next verb. */
void older_retire(struct older *o);

/* For a segment that is retired and not in use: announce the rest in `mine`, and a clear if dead processes
 * owed announcements. False: the ring of `mine` is corrupt. */
bool older_finish(struct older *o, struct attachment *mine);

#endif
