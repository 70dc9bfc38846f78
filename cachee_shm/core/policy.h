/* policy.h - which entries are worth keeping. Decisions only; evict.c carries them out.
 *
 * S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023) on
 * pages. New entries go into the small queue. An entry that falls out of it moves into the main queue if it
 * was hit; otherwise it is dropped, and the ghost remembers its key. In the main queue, an entry that was
 * hit since is carried forward with its frequency lowered. A hit writes two bits, at most three times in a
 * row, and nothing else.
 *
 * Plain S3-FIFO fails on loops and where only recency counts. Two additions repair that:
 *
 *   contest  an entry that falls out of the small queue without enough hits enters a full main queue only
 *            if its key was requested more often than that of the entry that falls out there (TinyLFU:
 *            Einziger, Friedman, Manes, ToS 2017). How often is estimated by a count-min sketch of 4-bit
 *            counters, touched by misses and evictions, never by hits. Incumbents win ties: a loop larger
 *            than the cache keeps a part of itself.
 *   climb    the small queue's share goes up or down as long as the hit ratio rises, and turns round when it
 *            falls. A step comes after nine times as many reads as there are entries (Einziger, Eytan,
 *            Friedman, Manes, "Adaptive software cache management", Middleware 2018).
 *
 * Sketch, ghost and climb need not be exact: processes update them without locks, and a lost update or a
 * garbled counter only costs a little hit ratio.
 */
#ifndef CACHEE_POLICY_H
#define CACHEE_POLICY_H

#include "pages.h"

enum {
    POLICY_FREQUENCY_MAX = 3,
    POLICY_CONTESTS_MAX = 64, /* incumbents that one candidate may push out or wear down */
};

static inline uint32_t policy_frequency(uint64_t word)
{
    return (word & INDEX_FREQ_MASK) >> INDEX_FREQ_SHIFT;
}

static inline uint64_t policy_with_frequency(uint64_t word, uint32_t frequency)
{
    return (word & ~INDEX_FREQ_MASK) | (uint64_t)frequency << INDEX_FREQ_SHIFT;
}

/* A hit: at most one relaxed CAS, none once the counter is full. A plain store could bring a deleted word
 * back. True: the counter was 0, as after a load ahead. */
static ALWAYS_INLINE bool policy_hit(a64 *at, uint64_t word)
{
    uint32_t frequency = policy_frequency(word);
    if (frequency < POLICY_FREQUENCY_MAX)
        cas_hint(at, &word, policy_with_frequency(word, frequency + 1));
    return frequency == 0;
}

/* Set the counter to its maximum. */
static inline void policy_prove(a64 *at, uint64_t word)
{
    cas_hint(at, &word, policy_with_frequency(word, POLICY_FREQUENCY_MAX));
}

/* A new key: count it, and return the frequency with which it begins: higher if the ghost remembers it. */
uint32_t policy_admit(struct attachment *a, uint64_t hash);

/* The frequency of a new value that replaces the entry of this word: it keeps the old frequency, and the
 * write counts as a use. */
uint32_t policy_overwrite(const struct attachment *a, uint64_t word);

/* Does an entry with this frequency go from the small queue into the main one without a contest? */
bool policy_promotes(const struct attachment *a, uint32_t frequency);

/* How often a key was requested lately; `frequency` is what its word counts in addition. */
uint32_t policy_estimate(const struct attachment *a, uint64_t hash, uint32_t frequency);

/* A word's frequency was taken away: keep it in the sketch. */
void policy_remember(struct attachment *a, uint64_t hash, uint32_t frequency);

/* An entry fell out of the small queue. */
void policy_forget(struct attachment *a, uint64_t hash, uint32_t frequency);

/* How many of `pages` belong to the small queue. */
uint32_t policy_small_pages(const struct attachment *a, uint32_t pages);

/* Adapt the policy's size to the number of entries now in the pages; climb if it is time. */
void policy_adapt(struct attachment *a, uint64_t entries);

/* Which of `count` index words makes room for a new key; -1: none may (all are pending). */
int policy_victim(const uint64_t *words, int words_count);

#endif
