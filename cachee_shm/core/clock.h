/* clock.h - the time since boot in milliseconds: CLOCK_BOOTTIME, as 5 ns a reading can tell it, in ticks of 1
 * to 10 ms.
 *
 * A suspended machine serves nothing and hears nothing, but meanwhile its entries, and its knowledge of
 * every peer, grow old. CLOCK_BOOTTIME counts that time, but has no coarse form and costs 25 ns. So each
 * reading is CLOCK_MONOTONIC_COARSE, which stands still in suspend, plus header.suspended_ms, by which
 * CLOCK_BOOTTIME is ahead. Once a second, a process that begins a verb checks whether this has grown. After
 * a suspend the wall clock has moved to another second, so the first verb checks. A test may freeze it for
 * one attachment. Attaching across time namespaces is refused (segment.c), so every process of a segment
 * reads the same clock. */
#ifndef CACHEE_CLOCK_H
#define CACHEE_CLOCK_H

#include <time.h>

#include "attachment.h"

/* The clock for waiting: no test can freeze it, and time in suspend does not count as waiting. */
static inline uint64_t clock_real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static inline int64_t clock_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

enum { SUSPENDED_STEP_MS = 10, SUSPENDED_LOOK_US = 1000, SUSPENDED_LOOKS = 3 };

/* By how much CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC. False: in each try, this process was interrupted
 * between the two readings. */
static inline bool clock_suspended(uint64_t *ms)
{
    for (int look = 0; look < SUSPENDED_LOOKS; look++) {
        int64_t before = clock_us(CLOCK_MONOTONIC), boot = clock_us(CLOCK_BOOTTIME),
                after = clock_us(CLOCK_MONOTONIC);
        *ms = boot > before ? (uint64_t)(boot - before) / 1000 : 0;
        if (after - before < SUSPENDED_LOOK_US)
            return true;
    }
    return false;
}

/* Store how long the machine was suspended. The kernel gives the same answer to every process of a segment,
 * so any of them may store it. False: the stored time is longer than the kernel's, so the bytes are
 * damaged. */
static inline bool clock_look(struct attachment *a)
{
    uint64_t now, known = load_relaxed(&a->header->suspended_ms);
    if (!clock_suspended(&now))
        return true;
    if (now >= known + SUSPENDED_STEP_MS)
        store_relaxed(&a->header->suspended_ms, now);
    return known <= now + SUSPENDED_STEP_MS;
}

/* A number that changes at least once a second, and that is cheaper to read than the time: every verb reads
 * it to see whether housekeeping may be due. It is not used as a time, because people set the wall
 * clock. */
static inline uint64_t clock_second(void)
{
#ifdef __GLIBC__
    return (uint64_t)time(NULL); /* one load from the kernel's page */
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec;
#endif
}

static inline uint64_t clock_ms(const struct attachment *a)
{
    return a->frozen_ms >= 0 ? (uint64_t)a->frozen_ms
                             : clock_real_ms() + load_relaxed(&a->header->suspended_ms);
}

/* Entries keep the time their value was loaded in 1/16 s: 32 bits of it last 8 years. */
static inline uint32_t clock_stamp(uint64_t ms) { return (uint32_t)(ms * 16 / 1000); }

/* Both stamps are rounded down, so this is rounded up, by at most 2/16 s: isolation refuses early rather than
 * late. */
static inline uint64_t clock_age_ms(uint32_t stamp, uint64_t now_ms)
{
    return (uint64_t)(clock_stamp(now_ms) - stamp) * 1000 / 16 + 63;
}

#endif
