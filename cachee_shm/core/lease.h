/* lease.h - the right to be the one loader of a key on this host (single flight).
 *
 * A lease names its holder's roster slot and that slot's generation, so a dead holder's lease is free at
 * once. It also says when the load began, by the clock and in the ring. A load serves a caller if no event of
 * the key lies between the load's beginning and the caller's: a load that is too old for a caller does not
 * keep that caller from loading. So there is one load at a time per key and fence, and never more than
 * LEASE_LOADS_MAX of a key in all.
 *
 * A load that takes more than twice as long as the last one of its key is late. Whoever finds that marks the
 * lease; a marked lease keeps nobody from taking another. So one waiter relieves a late holder, and nobody
 * waits for it again.
 *
 * A loader may ask for another key, and wait for its load, which may wait for the first. So a lease says what
 * its loader waits for, in whatever process that is loaded. Whoever is about to wait says so first and looks
 * then whether the chain of waiting leads back; of two that look at once at least one sees it, and loads by
 * itself.
 *
 * A lease is advice: losing one, or finding no room for one, costs a second load, never a stale value (fills
 * are fenced).
 */
#ifndef CACHEE_LEASE_H
#define CACHEE_LEASE_H

#include "roster.h"

enum lease { LEASE_TAKEN = 0, LEASE_HELD = 1, LEASE_NO_ROOM = 2 };

enum {
    /* of one key at a time, late ones apart: one that serves, one that is too old */
    LEASE_LOADS_MAX = 2,
    /* a short load that hangs for a moment must not bring a second one at once */
    LEASE_LATE_MS_MIN = 5000,
    LEASE_LATE_MS_UNKNOWN = 10000, /* of a key that nobody has loaded yet, as far as is known */
    LEASE_LATE_MS_MAX = 60000,
};

#define NO_LEASE UINT32_MAX

struct lease_wish { /* what a caller wants to load */
    uint64_t hash;
    uint64_t since;  /* a load of this process serves the caller if it began at this ring position or later */
    uint64_t fence;  /* a load of another process: its value is found only if it could be stored */
    uint64_t token;  /* where the caller's own load would begin */
    uint64_t now_ms; /* by clock_real_ms */
};

struct lease_hold { /* what a holder keeps to give its lease back; index NO_LEASE: it has none */
    uint32_t index;
    uint64_t word, began;
};

enum lease lease_take(struct attachment *a, const struct lease_wish *wish, struct lease_hold *hold);

/* Would lease_take say HELD? Takes nothing, but marks late leases. */
bool lease_is_held(struct attachment *a, const struct lease_wish *wish);

/* Give a lease back. One that was taken before a fork or another attachment is not ours to give. */
void lease_release(struct attachment *a, struct lease_hold *hold);

/* Say that the loader of `hold` is about to wait for a load of the key; and no longer. */
/* false: no room to say it */
bool lease_waits(struct attachment *a, const struct lease_hold *hold, uint64_t hash);
void lease_waits_no_more(struct attachment *a, const struct lease_hold *hold, uint64_t hash);

/* Does a load of the key wait for the load of `wanted`, directly or through other loads? To be asked after
 * the caller has announced its own wait (lease_waits): of two callers, at least one then sees the circle. */
bool lease_leads_to(struct attachment *a, uint64_t hash, uint64_t wanted);

/* Remember how long a load of the key took; and when the next one will be late. */
void lease_note(struct attachment *a, uint64_t hash, uint64_t took_ms);
uint64_t lease_late_ms(const struct attachment *a, uint64_t hash);

#endif
