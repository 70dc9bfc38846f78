/* policy.h - what is worth keeping. Decisions only; evict.c carries them out.
 *
 * FIFO with frequency-guided reinsertion (the "lazy promotion" of Yang, Qiu, Zhang, Yue, Vigfusson,
 * "FIFO queues are all you need for cache eviction", SOSP 2023): a hit raises a saturating 2-bit counter,
 * nothing else; when a page falls out of the FIFO, an entry that was hit since is copied forward with its
 * counter lowered, one that was not is dropped.
 */
#ifndef CACHEE_POLICY_H
#define CACHEE_POLICY_H

#include "pages.h"

enum {
    POLICY_FREQUENCY_MAX = 3,
    /* Survivors may fill at most half of the page that their eviction makes: progress never depends on them. */
    POLICY_SURVIVOR_BYTES_MAX = PAGE_BYTES / 2,
};

static inline uint32_t policy_frequency(uint64_t word) { return (word & INDEX_FREQ_MASK) >> INDEX_FREQ_SHIFT; }

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

/* An entry whose page is being drained: is it copied forward? */
bool policy_keeps(uint64_t word, uint32_t bytes, uint32_t survivors_so_far);

/* The frequency that a copied-forward entry carries on. */
uint64_t policy_after_keep(uint64_t word);

/* Which of `count` index words makes room for a new key; -1: none may (all are pending). */
int policy_victim(const uint64_t *words, int words_count);

#endif
