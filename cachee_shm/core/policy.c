/* policy.c - eviction decisions. See policy.h. */
#include "policy.h"

bool policy_keeps(uint64_t word, uint32_t bytes, uint32_t survivors_so_far)
{
    return policy_frequency(word) > 0 && survivors_so_far + bytes <= POLICY_SURVIVOR_BYTES_MAX;
}

uint64_t policy_after_keep(uint64_t word)
{
    uint32_t f = policy_frequency(word);
    return policy_with_frequency(word, f ? f - 1 : 0);
}

int policy_victim(const uint64_t *words, int words_count)
{
    int victim = -1;
    uint32_t lowest = POLICY_FREQUENCY_MAX + 1;
    for (int i = 0; i < words_count; i++) {
        uint32_t f = policy_frequency(words[i]);
        if (!(words[i] & INDEX_PENDING) && f < lowest)
            victim = i, lowest = f;
    }
    return victim;
}
