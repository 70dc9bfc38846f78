/* lock.h - locks by name between the processes of a host: taken by one, freed by its release, its death or
 * its time.
 *
 * A lock names its holder's roster slot and that slot's generation, so a dead holder's lock is free at once.
 * It has a time at which it ends although its holder lives. Locks stand in a table of their own: no key
 * collides with one, and none is evicted.
 *
 * Each acquisition has a fencing number. It is drawn from header.lock_fence, which is never lower than the
 * wall clock in nanoseconds, and is raised to that of each earlier segment by whoever comes from there: it
 * also grows across segments (as incarnations do), though the clock was set back. A store that keeps the
 * highest number it has seen refuses what a late holder sends.
 *
 * A name may stand in any of LOCK_WAYS places. Taking a lock is three steps, each one CAS:
 *
 *   vacant ── claim: the name, the holder ──▶ claimed ── say when it ends ──▶ claimed
 *   claimed ── confirm: the fencing number ──▶ held
 *
 * Between the claim and the confirmation, the claimer looks at all other places, behind a barrier (LOCK). It
 * gives way to a held lock of its name and to an earlier claim, and removes a later claim, whose confirmation
 * then fails. Of two claims in two places at least one is seen by the other, so at most one is confirmed. The
 * fencing number is drawn after that look: what was confirmed earlier, in any place, has a lower one.
 *
 * A claim says nothing to those who find it: a claimer that dies, or is stopped, is removed by the next one
 * who wants the lock. So nobody waits for a process that holds nothing.
 *
 * A name is known by 36 bits of its hash and by its places: two names that share them exclude each other,
 * which is safe.
 */
#ifndef CACHEE_LOCK_H
#define CACHEE_LOCK_H

#include "roster.h"

enum lock {
    LOCK_TAKEN,
    LOCK_HELD,
    LOCK_NO_ROOM, /* all places of the name are held by the living, for other names */
    LOCK_CORRUPT, /* the fencing numbers are garbage: the segment is retired */
};

enum { LOCK_WAYS = 16 };

#define NOBODY UINT32_MAX
#define LOCK_FENCE_MAX                                                                                       \
    (1ull << 62) /* from here on it is damaged bytes: no clock gets there before the year 2116 */
#define LOCK_FENCE_KEPT_MAX                                                                                  \
    (LOCK_FENCE_MAX -                                                                                        \
     (1ull << 60)) /* what is above is not taken into the next segment, to be damaged again */
#define LOCK_TTL_MS_MAX (1ull << 42) /* a century */

struct lock_wish {
    uint64_t hash;
    uint64_t ttl_ms; /* 0: no end */
    /* the highest fencing number that this process has had, of whatever segment of this name */
    uint64_t fence_seen;
};

struct lock_hold { /* what a holder keeps */
    uint32_t index;
    uint64_t word, fence, until_ms;
};

/* *holder: the roster slot of whoever holds it, where it is HELD and that is known; else NOBODY. */
enum lock lock_take(struct attachment *a, const struct lock_wish *wish, struct lock_hold *hold,
                    uint32_t *holder);

/* The roster slot of whoever holds the lock of this name now, or NOBODY. Changes nothing. */
uint32_t lock_holder(const struct attachment *a, uint64_t hash);

/* Is it this process's still? Not after a fork, nor in another attachment, nor once its time is over. */
bool lock_is_held(const struct attachment *a, const struct lock_hold *hold);

/* Give the lock back. False: this hold had ended before. Another holder, if there is one, keeps the lock. */
bool lock_release(struct attachment *a, struct lock_hold *hold);

/* An earlier segment of this name had drawn the fencing number `seen`: each that is drawn here is above
 * it. */
void lock_see_fence(struct attachment *a, uint64_t seen);

#endif
