/* policy.h - what is worth keeping. Decisions only; evict.c carries them out.
 *
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023) on
 * pages: what is new goes into the small queue; what falls out of it goes on into the main queue if it was
 * hit, else into the ghost, which remembers that it was here. In the main queue an entry that was hit since
 * is carried forward with its frequency lowered. A hit writes two bits, at most three times in a row, and
 * nothing else.
 *
 * Plain S3-FIFO fails on loops and where only recency counts. Two additions repair that:
 *
 *   contest  an entry that falls out of the small queue unproven enters a full main queue only if it was
 *            asked for more often than what falls out there (TinyLFU: Einziger, Friedman, Manes, ToS 2017).
 *            How often is estimated by a count-min sketch of 4-bit counters, touched by misses and evictions,
 *            never by hits. Incumbents win ties: a loop larger than the cache keeps a part of itself.
 *   climb    the small queue's share goes up or down as long as the hit ratio rises, and turns round when it
 *            falls. A step comes after nine times as many reads as there are entries (Einziger, Eytan,
 *            Friedman, Manes, "Adaptive software cache management", Middleware 2018).
 *
 * Sketch, ghost and climb are advice: processes update them without locks, and a lost update or a garbled
 * counter costs a little hit ratio, nothing else.
 */
#ifndef CACHEE_POLICY_H
#define CACHEE_POLICY_H

#include "pages.h"

enum {
    POLICY_FREQUENCY_MAX = 3,
    POLICY_CONTESTS_MAX = 64, /* what one candidate may push out or wear down */
};

static inline uint32_t policy_frequency(uint64_t word)
{
    return (word & INDEX_FREQ_MASK) >> INDEX_FREQ_SHIFT;
}

static inline uint64_t policy_with_frequency(uint64_t word, uint32_t frequency)
{
    return (word & ~INDEX_FREQ_MASK) | (uint64_t)frequency << INDEX_FREQ_SHIFT;
}

/* A hit: at most one relaxed CAS, none once the counter is full. A store could bring a deleted word back. */
static inline void policy_hit(a64 *at, uint64_t word)
{
    if (policy_frequency(word) < POLICY_FREQUENCY_MAX)
        cas_hint(at, &word, policy_with_frequency(word, policy_frequency(word) + 1));
}

/* As if it had been hit until nothing more could be proven. */
static inline void policy_prove(a64 *at, uint64_t word)
{
    cas_hint(at, &word, policy_with_frequency(word, POLICY_FREQUENCY_MAX));
}

/* A new key: count it, and say with which frequency it begins. What the ghost remembers has been here
 * before. */
uint32_t policy_admit(struct attachment *a, uint64_t hash);

/* The frequency with which a value goes on whose older copy had this word: it was used, and keeps what it had
 * proven. */
uint32_t policy_overwrite(const struct attachment *a, uint64_t word);

/* Does an entry with this frequency go from the small queue into the main one without a contest? */
bool policy_promotes(const struct attachment *a, uint32_t frequency);

/* How often a key was asked for lately; `frequency` is what its word says beyond that. */
uint32_t policy_estimate(const struct attachment *a, uint64_t hash, uint32_t frequency);

/* A word's frequency was taken away: keep it in the sketch. */
void policy_remember(struct attachment *a, uint64_t hash, uint32_t frequency);

/* An entry fell out of the small queue. */
void policy_forget(struct attachment *a, uint64_t hash, uint32_t frequency);

/* The small queue's share of so many pages. */
uint32_t policy_small_pages(const struct attachment *a, uint32_t pages);

/* So many entries are in the pages now; climb if it is time. */
void policy_adapt(struct attachment *a, uint64_t entries);

/* Which of `count` index words makes room for a new key; -1: none may (all are pending). */
int policy_victim(const uint64_t *words, int words_count);

#endif
