/* lease.c - single flight. See lease.h. */
#include "lease.h"

enum { LEASE_PROBES = 4, LEASE_TRIES_MAX = 16 };

static const uint64_t HOLDER_MASK = (1ull << 28) - 1;

static a64 *probe(const struct attachment *a, uint64_t hash, uint32_t i)
{
    return &a->leases[(reduce32((uint32_t)hash, a->geo.lease_slots) + i) % a->geo.lease_slots];
}

static uint64_t hash_part(uint64_t hash) { return hash & ~HOLDER_MASK; }

static uint64_t my_word(const struct attachment *a, uint64_t hash)
{
    return hash_part(hash) | (uint64_t)(a->slot_generation & 0xffff) << 12 | a->slot;
}

static bool holder_lives(const struct attachment *a, uint64_t lease)
{
    uint32_t slot = lease & 0xfff, generation = (lease >> 12) & 0xffff;
    if (slot >= a->geo.roster_slots)
        return false;
    uint64_t word = load_acquire(&a->roster[slot].word);
    bool same = (word & ROSTER_STATE_MASK) == SLOT_LIVE && ((word >> ROSTER_GEN_SHIFT) & 0xffff) == generation;
    return same && roster_alive(a, slot);
}

static a64 *find_lease(const struct attachment *a, uint64_t hash, uint64_t *word, a64 **empty)
{
    *empty = NULL;
    for (uint32_t i = 0; i < LEASE_PROBES; i++) {
        a64 *at = probe(a, hash, i);
        *word = load_acquire(at);
        if (*word && hash_part(*word) == hash_part(hash))
            return at;
        if (!*word && !*empty)
            *empty = at;
    }
    return NULL;
}

static bool take_from_dead(struct attachment *a, uint64_t hash)
{
    for (uint32_t i = 0; i < LEASE_PROBES; i++) {
        a64 *at = probe(a, hash, i);
        uint64_t word = load_acquire(at);
        if (word && !holder_lives(a, word) && cas(at, &word, my_word(a, hash)))
            return true;
    }
    return false;
}

enum lease lease_take(struct attachment *a, uint64_t hash)
{
    for (int tries = 0; tries < LEASE_TRIES_MAX; tries++) {
        uint64_t word, none = 0;
        a64 *empty, *at = find_lease(a, hash, &word, &empty);
        if (at && holder_lives(a, word))
            return LEASE_HELD;
        if (at && cas(at, &word, my_word(a, hash)))
            return LEASE_TAKEN;
        if (!at && !empty)
            return take_from_dead(a, hash) ? LEASE_TAKEN : LEASE_NO_ROOM;
        if (!at && cas(empty, &none, my_word(a, hash)))
            return LEASE_TAKEN;
    }
    return LEASE_NO_ROOM;
}

void lease_release(struct attachment *a, uint64_t hash)
{
    for (uint32_t i = 0; i < LEASE_PROBES; i++) {
        uint64_t mine = my_word(a, hash);
        if (cas(probe(a, hash, i), &mine, 0))
            return;
    }
}
