/* lease.h - the right to be the one loader of a key on this host (single flight).
 *
 * A lease names its holder's roster slot and that slot's generation, so a dead holder's lease is free at
 * once. It also says when the load began, by the clock and in the ring. A caller waits for a running load
 * if no event of the key lies between the beginning of that load and the caller's request. If the load is
 * too old for the caller, the caller loads itself. So there is one load at a time per key and fence, and
 * never more than LEASE_LOADS_MAX of a key in all.
 *
 * A load that takes more than twice as long as the last one of its key is late. The first process that
 * notices marks the lease, and a marked lease does not prevent another. So one waiter loads in place of a
 * late holder, and no process waits for the late holder again.
 *
 * A loader may ask for a second key and wait for its load, in any process, and that load may wait for the
 * first. To avoid a deadlock, a lease holds the keys that its loader waits for. A loader that is about to
 * wait stores this first, and then checks whether the chain of waiting leads back to its own key. Of two
 * loaders that check at the same time at least one sees the circle, and loads by itself.
 *
 * Leases only save loads: if one is lost, or finds no room, that costs a second load, never a stale value
 * (fills are fenced).
 */
#ifndef CACHEE_LEASE_H
#define CACHEE_LEASE_H

#include "roster.h"

enum lease { LEASE_TAKEN = 0, LEASE_HELD = 1, LEASE_NO_ROOM = 2 };

enum {
    /* of one key at a time, late ones not counted: one that new callers may wait for, one that is too old
     * for them */
    LEASE_LOADS_MAX = 2,
    /* a short load that hangs for a moment must not bring a second one at once */
    LEASE_LATE_MS_MIN = 5000,
    LEASE_LATE_MS_UNKNOWN = 10000, /* for a key whose last load time is not known */
    LEASE_LATE_MS_MAX = 60000,
};

#define NO_LEASE UINT32_MAX

struct lease_wish { /* what a caller wants to load */
    uint64_t hash;
    /* the caller may wait for a load of its own process that began at this ring position or later */
    uint64_t since;
    /* the same for a load of another process, whose value the caller can only get if it is stored */
    uint64_t fence;
    uint64_t token;  /* where the caller's own load would begin */
    uint64_t now_ms; /* by clock_real_ms */
};

/* the holder's proof, by which it gives its lease back; index NO_LEASE: it has no lease */
struct lease_hold {
    uint32_t index;
    uint64_t word, began;
};

enum lease lease_take(struct attachment *a, const struct lease_wish *wish, struct lease_hold *hold);

/* Would lease_take say HELD? Takes nothing, but marks late leases. */
bool lease_is_held(struct attachment *a, const struct lease_wish *wish);

/* Give a lease back. A lease from before a fork, or of another attachment, is not ours and is left
 * alone. */
void lease_release(struct attachment *a, struct lease_hold *hold);

/* Store that the loader of `hold` is about to wait for a load of the key; lease_waits_no_more: that it no
 * longer waits. */
/* false: there is no room to store it */
bool lease_waits(struct attachment *a, const struct lease_hold *hold, uint64_t hash);
void lease_waits_no_more(struct attachment *a, const struct lease_hold *hold, uint64_t hash);

/* Does a load of the key wait for the load of `wanted`, directly or through other loads? Call this after
 * lease_waits: then of two callers at least one sees the circle. */
bool lease_leads_to(struct attachment *a, uint64_t hash, uint64_t wanted);

/* Remember how long a load of the key took. lease_late_ms: after which time the next one is late. */
void lease_note(struct attachment *a, uint64_t hash, uint64_t took_ms);
uint64_t lease_late_ms(const struct attachment *a, uint64_t hash);

#endif
