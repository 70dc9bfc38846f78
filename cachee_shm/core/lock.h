/* lock.h - locks by name between the processes of a host. A lock is held by one process, and ends by its
 * release, by the holder's death, or by its time.
 *
 * A lock names its holder's roster slot and that slot's generation, so a dead holder's lock is free at once.
 * It may have a time at which it ends although its holder lives. Locks are in a table of their own: no key
 * collides with a lock, and no lock is evicted.
 *
 * Each acquisition has a fencing number. It is drawn from header.lock_fence, which is never lower than the
 * wall clock in nanoseconds. A process that comes from an earlier segment raises it to that segment's
 * number, so the numbers also grow from segment to segment (as incarnations do), even if the clock was set
 * back. A store that keeps the highest number it has seen can refuse the writes of a late holder.
 *
 * A name may stand in any of LOCK_WAYS places. Taking a lock is three steps, each one CAS:
 *
 *   vacant ── claim: the name, the holder ──▶ claimed ── say when it ends ──▶ claimed
 *   claimed ── confirm: the fencing number ──▶ held
 *
 * Between the claim and the confirmation, the claimer looks at all other places, behind a barrier (LOCK). It
 * gives way to a held lock of its name and to an earlier claim, and removes a later claim, whose confirmation
 * then fails. Of two claimers in two places at least one sees the other, so at most one claim is confirmed.
 * The fencing number is drawn after that look, so every lock that was confirmed earlier, in any place, has
 * a lower number.
 *
 * A claim does not stop others for long: if a claimer dies, or is stopped, the next process that wants the
 * lock removes the claim. So no process waits for one that holds nothing.
 *
 * A name is identified by 36 bits of its hash and by its places. Two names that share both exclude each
 * other, which is safe.
 */
#ifndef CACHEE_LOCK_H
#define CACHEE_LOCK_H

#include "roster.h"

enum lock {
    LOCK_TAKEN,
    LOCK_HELD,
    LOCK_NO_ROOM, /* living processes hold all places of the name, for other names */
    LOCK_CORRUPT, /* the fencing numbers are garbage: the segment is retired */
};

enum { LOCK_WAYS = 16 };

#define NOBODY UINT32_MAX
#define LOCK_FENCE_MAX                                                                                       \
    (1ull << 62) /* a number from here on is damaged bytes: no clock reaches it before the year 2116 */
#define LOCK_FENCE_KEPT_MAX                                                                                  \
    (LOCK_FENCE_MAX - (1ull << 60))  /* a higher number is not carried into the next segment */
#define LOCK_TTL_MS_MAX (1ull << 42) /* a century */

struct lock_wish {
    uint64_t hash;
    uint64_t ttl_ms; /* 0: no end */
    /* the highest fencing number that this process has had, in any segment of this name */
    uint64_t fence_seen;
};

struct lock_hold { /* what a holder keeps */
    uint32_t index;
    uint64_t word, fence, until_ms;
};

/* *holder: the roster slot of the holder, if the result is HELD and the holder is known; else NOBODY. */
enum lock lock_take(struct attachment *a, const struct lock_wish *wish, struct lock_hold *hold,
                    uint32_t *holder);

/* The roster slot of the process that holds the lock of this name now, or NOBODY. Changes nothing. */
uint32_t lock_holder(const struct attachment *a, uint64_t hash);

/* Does this process still hold the lock? Not after a fork, nor in another attachment, nor once its time is
 * over. */
bool lock_is_held(const struct attachment *a, const struct lock_hold *hold);

/* Give the lock back. False: this hold had already ended, and another holder, if there is one, keeps the
 * lock. */
bool lock_release(struct attachment *a, struct lock_hold *hold);

/* An earlier segment of this name has given out the fencing number `seen`: every number given out here is
 * higher. */
void lock_see_fence(struct attachment *a, uint64_t seen);

#endif
