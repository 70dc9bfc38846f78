/* roster_debts.c - intents, and paying the debts of the dead. See roster_debts.h. */
#include "roster_debts.h"

#include "doorbell.h"
#include "doubt.h"

enum { INTENT_PROBES_MAX = 128 };

/* ---- intents ---- */

/* An intent names the life of the slot in which it was made. So an attachment that was copied by a fork, or
 * moved to another segment, does not own it. */
enum { INTENT_LIFE_SHIFT = 32 };
#define INTENT_SHARED (1ull << 31)
#define INTENT_PLACE_BITS (INTENT_SHARED - 1)

static uint64_t debts_owner_word(uint32_t slot, uint64_t generation)
{
    return generation << ROSTER_GEN_SHIFT | (slot + 1);
}

static uint64_t debts_my_owner_word(const struct attachment *a)
{
    return debts_owner_word(a->slot, a->slot_generation);
}

/* Is the life that an owner's word names over? A slot is freed only after its debts were announced, so then
 * these debts are paid. */
static bool debts_is_over(const struct attachment *a, uint64_t owner)
{
    uint32_t slot = (uint32_t)(owner & 0xffff) - 1;
    if (slot >= a->geo.roster_slots)
        return true; /* garbage */
    uint64_t word = load_acquire(&a->roster[slot].word), state = word & ROSTER_STATE_MASK;
    return word >> ROSTER_GEN_SHIFT != owner >> ROSTER_GEN_SHIFT ||
           (state != SLOT_LIVE && state != SLOT_SWEPT);
}

static bool debts_take_intent(struct attachment *a, uint64_t hash, uint32_t *place)
{
    uint32_t n = a->geo.intent_slots, at = reduce32((uint32_t)(hash >> 32) ^ a->slot * 0x9e3779b9u, n);
    for (uint32_t tries = 0; tries < INTENT_PROBES_MAX && tries < n; tries++, at = at + 1 < n ? at + 1 : 0) {
        struct intent *i = &a->intents[at];
        uint64_t owner = load_acquire(&i->owner);
        if ((owner && !debts_is_over(a, owner)) || !cas(&i->owner, &owner, debts_my_owner_word(a)))
            continue;
        store_release(&i->hash, hash); /* INTENT */
        *place = at;
        return true;
    }
    return false;
}

static uint32_t debts_bucket_of(uint64_t hash) { return (uint32_t)(hash >> (64 - INTENT_BUCKET_BITS)); }

uint64_t roster_intend(struct attachment *a, uint64_t hash)
{
    uint64_t life = (uint64_t)a->life << INTENT_LIFE_SHIFT;
    uint32_t place, bucket = debts_bucket_of(hash);
    if (a->intents_open++ < a->geo.intent_slots / 2 && debts_take_intent(a, hash, &place))
        return life | place;
    a64 *bits = &a->me->shared[bucket / 64];
    /* a counter at its maximum stays there until this process leaves */
    if (a->intents_shared[bucket] < UINT16_MAX)
        a->intents_shared[bucket]++;
    store_release(bits, load_relaxed(bits) | 1ull << bucket % 64); /* INTENT */
    return life | INTENT_SHARED | bucket;
}

static void debts_settle_shared(struct attachment *a, uint32_t bucket)
{
    a64 *bits = &a->me->shared[bucket / 64];
    uint16_t *open = &a->intents_shared[bucket];
    if (*open > 0 && *open < UINT16_MAX)
        --*open;
    if (*open == 0)
        store_release(bits, load_relaxed(bits) & ~(1ull << bucket % 64));
}

/* False: the intent is not this process's. */
static bool debts_settle_exact(struct attachment *a, uint32_t place)
{
    struct intent *i = &a->intents[place];
    if (load_relaxed(&i->owner) != debts_my_owner_word(a))
        return false;
    store_relaxed(&i->hash, 0); /* first, so that the next owner does not find our hash there */
    store_release(&i->owner, 0);
    return true;
}

void roster_settle(struct attachment *a, uint64_t intent)
{
    uint32_t place = (uint32_t)(intent & INTENT_PLACE_BITS);
    if (intent >> INTENT_LIFE_SHIFT != a->life || a->intents_open == 0)
        return;
    if (intent & INTENT_SHARED && place < 1u << INTENT_BUCKET_BITS)
        debts_settle_shared(a, place);
    else if (place >= a->geo.intent_slots || !debts_settle_exact(a, place))
        return;
    a->intents_open--;
}

/* ---- announcing ---- */

/* A process that is just joining has no counters yet. */
static void debts_counted(struct attachment *a)
{
    if (a->me)
        count(a, STAT_INTENTS_SWEPT, 1);
}

/* False: the ring is corrupt. A hash of 0 owes nothing. */
static bool debts_announce(struct attachment *a, uint64_t hash)
{
    if (!hash)
        return true;
    struct record r = {.hash = hash, .kind = RECORD_KEY, .own = true};
    if (a->dues && doubt_is_owed(a, hash)) { /* the dead process may have sent a commit */
        r.digest = RECORD_UNKNOWN;
        doubt_raise_own(a, hash);
    }
    uint64_t s = ring_append(a, &r);
    if (s == RING_CORRUPT)
        return false;
    index_kill_lower(a, hash, s << 1);
    doorbell_ring(a); /* the verb that pays the debt may be a get, which does not ring by itself */
    debts_counted(a);
    return true;
}

static bool debts_announce_intents(struct attachment *a, uint64_t owner)
{
    bool good = true;
    for (uint32_t i = 0; i < a->geo.intent_slots && good; i++)
        if (load_relaxed(&a->intents[i].owner) == owner)
            good = debts_announce(a, load_acquire(&a->intents[i].hash)); /* INTENT */
    return good;
}

/* Every key of the bucket. */
static bool debts_announce_bucket(struct attachment *a, uint32_t bucket)
{
    uint64_t hash = (uint64_t)bucket << (64 - INTENT_BUCKET_BITS) | 1; /* never EVERY_KEY */
    struct record r = {.hash = hash, .kind = RECORD_KEY, .own = true, .digest = RECORD_RANGE};
    debts_counted(a);
    bool good = ring_append(a, &r) != RING_CORRUPT;
    doorbell_ring(a);
    return good;
}

enum {
    STEP_EXACT,
    STEP_BUCKETS, /* the first of them */
    STEPS_END = STEP_BUCKETS + (1 << INTENT_BUCKET_BITS),
    STEPS_SHIFT = 32,
};

/* How many steps are done of announcing this life's debts. */
static uint32_t debts_steps_done(const struct roster_slot *dead, uint64_t word)
{
    uint64_t done = load_acquire(&dead->announced); /* INTENT */
    return done >> STEPS_SHIFT == word >> ROSTER_GEN_SHIFT ? (uint32_t)done : STEP_EXACT;
}

/* A late process may overwrite a higher number with a lower one: then those steps are done again, which is
 * harmless. */
static void debts_note_steps(struct roster_slot *dead, uint64_t word, uint32_t steps)
{
    uint64_t seen = load_relaxed(&dead->announced), done = word >> ROSTER_GEN_SHIFT << STEPS_SHIFT | steps;
    cas(&dead->announced, &seen, done); /* INTENT */
}

/* Announce the exact debts, then a bounded number of buckets. Returns the next step. STEPS_END: all is
 * done. 0: the ring is corrupt. */
static uint32_t debts_announce_from(struct attachment *a, uint32_t slot, uint64_t word, uint32_t step,
                                    uint32_t buckets)
{
    struct roster_slot *dead = &a->roster[slot];
    if (step == STEP_EXACT) {
        bool intents = debts_announce_intents(a, debts_owner_word(slot, word >> ROSTER_GEN_SHIFT));
        if (!debts_announce(a, load_acquire(&dead->verb_hash)) || !intents) /* INTENT */
            return 0;
    }
    for (step = step > STEP_BUCKETS ? step : STEP_BUCKETS; step < STEPS_END && buckets > 0; step++) {
        uint32_t bucket = step - STEP_BUCKETS;
        if (!(load_acquire(&dead->shared[bucket / 64]) >> bucket % 64 & 1)) /* INTENT */
            continue;
        if (!debts_announce_bucket(a, bucket))
            return 0;
        buckets--;
    }
    return step;
}

enum announced roster_announce(struct attachment *a, uint32_t slot, uint64_t word, bool all)
{
    uint32_t buckets = all ? 1 << INTENT_BUCKET_BITS : a->buckets_per_call;
    uint32_t step = debts_announce_from(a, slot, word, debts_steps_done(&a->roster[slot], word), buckets);
    if (step == 0) {
        store_release(&a->header->state, SEGMENT_RETIRED);
        return ANNOUNCED_NEVER;
    }
    debts_note_steps(&a->roster[slot], word, step);
    return step < STEPS_END ? ANNOUNCED_PART : ANNOUNCED_ALL;
}

void roster_forget(struct attachment *a, uint32_t slot, uint64_t word)
{
    struct roster_slot *dead = &a->roster[slot];
    uint64_t owner = debts_owner_word(slot, word >> ROSTER_GEN_SHIFT);
    for (uint32_t i = 0; i < a->geo.intent_slots; i++) {
        uint64_t seen = owner;
        if (load_relaxed(&a->intents[i].owner) == owner)
            cas(&a->intents[i].owner, &seen, 0);
    }
    for (uint32_t i = 0; i < INTENT_BUCKET_WORDS; i++)
        store_release(&dead->shared[i], 0);
    store_release(&dead->verb_hash, 0);
}
