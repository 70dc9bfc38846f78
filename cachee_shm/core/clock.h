/* clock.h - the time since boot in milliseconds: CLOCK_BOOTTIME, as 5 ns a reading can tell it, in ticks of 1
 * to 10 ms.
 *
 * A machine that is suspended serves nothing and hears nothing, but entries grow old meanwhile, and so does
 * the word of every peer. CLOCK_BOOTTIME counts that time, but has no coarse form and costs 25 ns. So each
 * reading is CLOCK_MONOTONIC_COARSE, which stands still in suspend, plus header.suspended_ms, by which
 * CLOCK_BOOTTIME is ahead. Every process that begins a verb looks once a second whether that has grown; the
 * wall clock has, after any suspend, so the first verb looks. A test may freeze it for one attachment.
 * Attaching across time namespaces is refused (segment.c), so every process of a segment reads the same
 * clock. */
#ifndef CACHEE_CLOCK_H
#define CACHEE_CLOCK_H

#include <time.h>

#include "attachment.h"

/* Waiting goes by this one: no test can freeze it, and who was suspended has not waited. */
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

/* By how much CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC. False: this process was interrupted between the two
 * each time. */
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

/* Take in how long the machine was suspended. It is the kernel's answer, the same for every process of a
 * segment, so it does not matter who stores it. False: what is stored is more than that, which nobody did:
 * damaged bytes. */
static inline bool clock_look(struct attachment *a)
{
    uint64_t now, known = load_relaxed(&a->header->suspended_ms);
    if (!clock_suspended(&now))
        return true;
    if (now >= known + SUSPENDED_STEP_MS)
        store_relaxed(&a->header->suspended_ms, now);
    return known <= now + SUSPENDED_STEP_MS;
}

/* A number that is another one at least once a second, and that is cheaper to read than the time: every verb
 * looks at it to see whether housekeeping may be due. It says nothing about the time, because people set the
 * wall clock. */
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
