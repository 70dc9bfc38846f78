/* clock.h - CLOCK_MONOTONIC_COARSE in milliseconds: 5 ns a reading, one tick (1 to 10 ms) of resolution.
 * A test may freeze it for one attachment. Attaching across time namespaces is refused (segment.c), so every
 * process of a segment reads the same clock. */
#ifndef CACHEE_CLOCK_H
#define CACHEE_CLOCK_H

#include <time.h>

#include "attachment.h"

static inline uint64_t clock_ms(const struct attachment *a)
{
    if (a->frozen_ms >= 0)
        return (uint64_t)a->frozen_ms;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A number that is another one at least once a second, and that is cheaper to read than the time: every verb looks at it to
 * see whether housekeeping may be due. It says nothing about the time, because people set the wall clock. */
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

/* Entries keep the time their value was loaded in 1/16 s: 32 bits of it last 8 years. */
static inline uint32_t clock_stamp(uint64_t ms) { return (uint32_t)(ms * 16 / 1000); }

/* Both stamps are rounded down, so this is rounded up, by at most 2/16 s: isolation refuses early rather than late. */
static inline uint64_t clock_age_ms(uint32_t stamp, uint64_t now_ms)
{
    return (uint64_t)(clock_stamp(now_ms) - stamp) * 1000 / 16 + 63;
}

#endif
