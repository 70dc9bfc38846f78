/* lease.c - single flight. See lease.h, and struct lease_slot in layout.h.
 *
 * Other processes do the same at any time. These rules keep a slot right:
 *
 *   word     taken by one CAS, from 0 or from the word of a dead holder. Only its holder gives it back, also
 *            by a CAS, which fails if another process has taken the lease over
 *   began, token, waits  stored by the holder alone, after it has the word. `began` names its holder by a
 *            check, so what an earlier holder left there is not taken for the new one's
 *   late     one bit of `began`, set by any process, by CAS
 *
 * A death leaves a word whose roster slot has no living holder: the place counts as vacant at once, and
 * nothing has to be swept. No step waits, and a caller that loses a CAS looks again a bounded number of
 * times.
 */
#include "lease.h"

#include "hash.h"

enum { LEASE_WAYS = 8, LEASE_TRIES_MAX = 4 };

static const uint64_t KNOWN_MS_MAX = (1ull << 28) - 1;

static uint32_t lease_home_of(const struct attachment *a, uint64_t hash)
{
    return reduce32((uint32_t)hash, a->geo.lease_slots);
}

static uint32_t lease_way(const struct attachment *a, uint64_t hash, uint32_t i)
{
    return (lease_home_of(a, hash) + i) % a->geo.lease_slots;
}

/* ---- when a load began ---- */

/* A new holder takes the word first and stores when it began after that. In between, the old holder's
 * beginning is still there: the check tells which holder a beginning belongs to. */
static uint64_t lease_check_of(uint64_t word)
{
    return (word ^ word >> 12 ^ word >> 28 ^ word >> 40) & LEASE_CHECK_BITS;
}

static uint64_t lease_began_word(uint64_t word, uint64_t now_ms)
{
    return now_ms << LEASE_MS_SHIFT | lease_check_of(word) << LEASE_CHECK_SHIFT;
}

static bool lease_is_said(uint64_t word, uint64_t began)
{
    return began && ((began >> LEASE_CHECK_SHIFT) & LEASE_CHECK_BITS) == lease_check_of(word);
}

void lease_note(struct attachment *a, uint64_t hash, uint64_t took_ms)
{
    uint64_t ms = took_ms < 1 ? 1 : took_ms < KNOWN_MS_MAX ? took_ms : KNOWN_MS_MAX;
    store_relaxed(&a->leases[lease_home_of(a, hash)].known, holder_hash(hash) | ms);
}

uint64_t lease_late_ms(const struct attachment *a, uint64_t hash)
{
    uint64_t known = load_relaxed(&a->leases[lease_home_of(a, hash)].known);
    if (!known || holder_hash(known) != holder_hash(hash))
        return a->late_ms_unknown;
    uint64_t late = 2 * (known & KNOWN_MS_MAX);
    return late < a->late_ms_min ? a->late_ms_min : late > LEASE_LATE_MS_MAX ? LEASE_LATE_MS_MAX : late;
}

/* Is this load late? Only one caller succeeds in marking it, and counts it. The next load of the key may
 * then take as long as this one has taken so far. */
static bool lease_is_late(struct attachment *a, uint32_t at, uint64_t word, uint64_t began,
                          const struct lease_wish *wish)
{
    if (!lease_is_said(word, began))
        return false;
    if (began & LEASE_LATE)
        return true;
    uint64_t since_ms = began >> LEASE_MS_SHIFT;
    if (wish->now_ms < since_ms || wish->now_ms - since_ms <= lease_late_ms(a, wish->hash))
        return false;
    if (cas(&a->leases[at].began, &began, began | LEASE_LATE)) {
        count(a, STAT_LEASES_LATE, 1);
        lease_note(a, wish->hash, wish->now_ms - since_ms);
    }
    return true;
}

/* ---- what stands in a key's ways ---- */

struct ways {
    uint32_t running; /* loads of the key that are not late */
    bool served;      /* by one of them */
    uint32_t vacant;  /* nobody's, or a dead holder's; NO_LEASE: none is */
    uint64_t vacant_word;
};

static bool lease_serves(const struct attachment *a, uint32_t at, uint64_t word, uint64_t began,
                         const struct lease_wish *wish)
{
    if (!lease_is_said(word, began)) /* taken this instant */
        return true;
    uint64_t token = load_acquire(&a->leases[at].token);
    return token >= (word == roster_holder(a, wish->hash) ? wish->since : wish->fence);
}

static void lease_look_at(struct attachment *a, uint32_t at, const struct lease_wish *wish, struct ways *w)
{
    uint64_t word = load_acquire(&a->leases[at].word);
    bool vacant = !word;
    if (word && holder_hash(word) == holder_hash(wish->hash)) {
        uint64_t began = load_acquire(&a->leases[at].began); /* LEASE */
        vacant = !roster_holder_lives(a, word);
        if (!vacant && !lease_is_late(a, at, word, began, wish)) {
            w->running++;
            w->served = w->served || lease_serves(a, at, word, began, wish);
        }
    }
    if (vacant && w->vacant == NO_LEASE)
        w->vacant = at, w->vacant_word = word;
}

static struct ways lease_ways_of(struct attachment *a, const struct lease_wish *wish, uint32_t but)
{
    struct ways w = {.vacant = NO_LEASE};
    for (uint32_t i = 0; i < LEASE_WAYS; i++)
        if (lease_way(a, wish->hash, i) != but)
            lease_look_at(a, lease_way(a, wish->hash, i), wish, &w);
    /* other keys' leases, of the dead */
    for (uint32_t i = 0; i < LEASE_WAYS && w.vacant == NO_LEASE; i++) {
        uint64_t word = load_acquire(&a->leases[lease_way(a, wish->hash, i)].word);
        if (lease_way(a, wish->hash, i) != but && word && !roster_holder_lives(a, word))
            w.vacant = lease_way(a, wish->hash, i), w.vacant_word = word;
    }
    return w;
}

/* ---- the verbs ---- */

bool lease_is_held(struct attachment *a, const struct lease_wish *wish)
{
    struct ways w = lease_ways_of(a, wish, NO_LEASE);
    return w.served || w.running >= LEASE_LOADS_MAX;
}

static void lease_say_began(struct attachment *a, uint32_t at, const struct lease_wish *wish,
                            struct lease_hold *hold)
{
    *hold = (struct lease_hold){.index = at, .word = roster_holder(a, wish->hash)};
    hold->began = lease_began_word(hold->word, wish->now_ms);
    for (int i = 0; i < LEASE_WAITS; i++)
        store_relaxed(&a->leases[at].waits[i], 0);
    store_release(&a->leases[at].token, wish->token);
    store_release(&a->leases[at].began, hold->began); /* LEASE */
}

/* Two callers may take two vacant places at the same time. After a full fence, each looks again: at least
 * one sees the other's lease, gives its own back, and waits. If both do, both look again a moment later. */
enum lease lease_take(struct attachment *a, const struct lease_wish *wish, struct lease_hold *hold)
{
    hold->index = NO_LEASE;
    for (int tries = 0; tries < LEASE_TRIES_MAX; tries++) {
        struct ways w = lease_ways_of(a, wish, NO_LEASE);
        if (w.served || w.running >= LEASE_LOADS_MAX)
            return LEASE_HELD;
        if (w.vacant == NO_LEASE) {
            count(a, STAT_LEASES_NO_ROOM, 1);
            return LEASE_NO_ROOM;
        }
        if (!cas(&a->leases[w.vacant].word, &w.vacant_word, roster_holder(a, wish->hash)))
            continue;
        lease_say_began(a, w.vacant, wish, hold);
        fence_seq_cst();
        if (!lease_ways_of(a, wish, hold->index).served)
            return LEASE_TAKEN;
        lease_release(a, hold);
        return LEASE_HELD;
    }
    return LEASE_HELD;
}

/* The slot of a lease that is held by this process still, or NULL. */
static struct lease_slot *lease_slot_of(struct attachment *a, const struct lease_hold *hold)
{
    if (hold->index >= a->geo.lease_slots || hold->word != roster_holder(a, hold->word))
        return NULL;
    struct lease_slot *at = &a->leases[hold->index];
    bool same =
        load_acquire(&at->word) == hold->word && (load_acquire(&at->began) & ~LEASE_LATE) == hold->began;
    return same ? at : NULL;
}

void lease_release(struct attachment *a, struct lease_hold *hold)
{
    struct lease_slot *at = lease_slot_of(a, hold);
    uint64_t word = hold->word;
    if (at) {
        store_release(&at->began, 0);
        cas(&at->word, &word, 0);
    }
    hold->index = NO_LEASE;
}

/* ---- loaders that wait ---- */

enum { CHAIN_MAX = 16 }; /* keys that are followed; a longer chain is treated as a circle */

static uint64_t lease_waits_word(uint64_t hash) { return hash ? hash : 1; }

bool lease_waits(struct attachment *a, const struct lease_hold *hold, uint64_t hash)
{
    struct lease_slot *at = lease_slot_of(a, hold);
    for (int i = 0; at && i < LEASE_WAITS; i++) {
        uint64_t there = load_relaxed(&at->waits[i]);
        if (there && there != lease_waits_word(hash))
            continue;
        store_relaxed(&at->waits[i], lease_waits_word(hash));
        fence_seq_cst(); /* WAITS */
        return true;
    }
    return false;
}

void lease_waits_no_more(struct attachment *a, const struct lease_hold *hold, uint64_t hash)
{
    struct lease_slot *at = lease_slot_of(a, hold);
    for (int i = 0; at && i < LEASE_WAITS; i++)
        if (load_relaxed(&at->waits[i]) == lease_waits_word(hash))
            store_relaxed(&at->waits[i], 0);
}

struct chain {
    uint64_t hash[CHAIN_MAX];
    uint32_t count;
    bool leads; /* to the wanted key, or the chain is too long */
};

static void lease_chain_add(struct chain *c, uint64_t hash, uint64_t wanted)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->hash[i] == hash)
            return;
    c->leads = c->leads || hash == lease_waits_word(wanted) || c->count == CHAIN_MAX;
    if (c->count < CHAIN_MAX)
        c->hash[c->count++] = hash;
}

static void lease_chain_follow(struct attachment *a, uint32_t at, uint64_t hash, uint64_t wanted,
                               struct chain *c)
{
    uint64_t word = load_acquire(&a->leases[at].word);
    if (!word || holder_hash(word) != holder_hash(hash))
        return;
    uint64_t began = load_acquire(&a->leases[at].began); /* LEASE */
    if (!lease_is_said(word, began) || (began & LEASE_LATE) || !roster_holder_lives(a, word))
        return;
    for (int i = 0; i < LEASE_WAITS; i++) {
        uint64_t next = load_relaxed(&a->leases[at].waits[i]); /* WAITS */
        if (next)
            lease_chain_add(c, next, wanted);
    }
}

bool lease_leads_to(struct attachment *a, uint64_t hash, uint64_t wanted)
{
    struct chain c = {.hash = {lease_waits_word(hash)}, .count = 1};
    for (uint32_t at = 0; at < c.count && !c.leads; at++)
        for (uint32_t i = 0; i < LEASE_WAYS; i++)
            lease_chain_follow(a, lease_way(a, c.hash[at], i), c.hash[at], wanted, &c);
    return c.leads;
}
