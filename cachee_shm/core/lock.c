/* lock.c - locks by name between the processes of a host. See lock.h, and struct lock_slot in layout.h. */
#include "lock.h"

#include "clock.h"
#include "hash.h"

enum {
    LOOKS_MAX = 4,        /* at one place: each means that it has changed meanwhile */
    TAKE_TRIES_MAX = 128, /* each means that another process got further */
    PATIENCE = 16,        /* if this number of tries finds the same claim, it is removed */
};

static const uint64_t HELD = 1; /* of the mark */

static uint32_t lock_way(const struct attachment *a, uint64_t hash, uint32_t i)
{
    uint32_t n = lock_slots(&a->geo);
    return (reduce32((uint32_t)hash, n) + i) % n;
}

/* ---- one place ---- */

struct place_seen {
    uint32_t at;
    uint64_t word, mark, until_ms;
    bool whole; /* false: it changed during each look */
};

/* Each transition changes the mark, except the removal of a claim: that changes only the word, to 0. */
static struct place_seen lock_look(const struct attachment *a, uint32_t at)
{
    const struct lock_slot *slot = &a->locks[at];
    struct place_seen s = {.at = at};
    for (int looks = 0; !s.whole && looks < LOOKS_MAX; looks++) {
        s.mark = load_acquire(&slot->held.hash);
        s.word = load_acquire(&slot->held.meta); /* LOCK */
        s.until_ms = load_acquire(&slot->until) >> LOCK_UNTIL_SHIFT;
        s.whole = load_acquire(&slot->held.hash) == s.mark;
    }
    return s;
}

static bool lock_is_of(const struct place_seen *s, uint64_t hash)
{
    return s->word && holder_hash(s->word) == holder_hash(hash);
}
static bool lock_is_claim(const struct place_seen *s) { return s->word && !(s->mark & HELD); }
static bool lock_is_over(uint64_t until_ms, uint64_t now_ms) { return until_ms && until_ms <= now_ms; }

static bool lock_stands(const struct attachment *a, const struct place_seen *s, uint64_t now_ms)
{
    return s->word && (s->mark & HELD) && !lock_is_over(s->until_ms, now_ms) &&
           roster_holder_lives(a, s->word);
}

static bool lock_vacate(struct attachment *a, uint32_t at, uint64_t word, uint64_t mark)
{
    return cas128(&a->locks[at].held, word, mark, 0, mark & ~HELD);
}

/* ---- all places of a name ---- */

struct claim_seen { /* the same at each of how many tries */
    uint32_t at;
    uint64_t mark;
    int tries;
};

struct places {
    bool held, claimed; /* by another */
    uint32_t holder;
    struct place_seen vacant; /* at NOBODY: none is */
};

/* What does this place hold of the name? A claim is removed if it is later than ours, or if its claimer has
 * stopped half-way. */
static void lock_look_for_name(struct attachment *a, struct place_seen *s, uint64_t ours, uint64_t now_ms,
                               struct claim_seen *old, struct places *p)
{
    if (!s->whole || lock_stands(a, s, now_ms)) {
        p->held = true;
        p->holder = s->whole ? s->word & HOLDER_SLOT_BITS : NOBODY;
        return;
    }
    if (lock_is_claim(s) && (!ours || s->mark < ours)) {
        bool same = old->at == s->at && old->mark == s->mark;
        *old = (struct claim_seen){s->at, s->mark, same ? old->tries + 1 : 0};
        p->claimed = old->tries < PATIENCE;
    }
    if (!p->claimed && lock_vacate(a, s->at, s->word, s->mark))
        s->word = 0, s->mark &= ~HELD;
    else
        p->claimed = true;
}

/* `ours`: the mark of our claim, at `but`; 0: we have none. */
static struct places lock_look_through(struct attachment *a, uint64_t hash, uint32_t but, uint64_t ours,
                                       uint64_t now_ms, struct claim_seen *old)
{
    struct places p = {.holder = NOBODY, .vacant.at = NOBODY};
    for (uint32_t i = 0; i < LOCK_WAYS && !p.held && !p.claimed; i++) {
        struct place_seen s = lock_look(a, lock_way(a, hash, i));
        if (s.at == but)
            continue;
        if (lock_is_of(&s, hash))
            lock_look_for_name(a, &s, ours, now_ms, old, &p);
        if (s.whole && !s.word && p.vacant.at == NOBODY)
            p.vacant = s;
    }
    for (uint32_t i = 0; i < LOCK_WAYS && !ours && !p.held && !p.claimed && p.vacant.at == NOBODY; i++) {
        struct place_seen s = lock_look(a, lock_way(a, hash, i)); /* other names' */
        if (s.whole && (lock_is_claim(&s) ? !roster_holder_lives(a, s.word) : !lock_stands(a, &s, now_ms)))
            p.vacant = s;
    }
    return p;
}

/* ---- fencing numbers ---- */

static uint64_t lock_wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* 0: the word holds garbage, or something keeps writing garbage into it. */
static uint64_t lock_draw(struct attachment *a, uint64_t above)
{
    a64 *last = &a->header->lock_fence;
    uint64_t seen = load_acquire(last), now = lock_wall_ns();
    above = above > now ? above : now;
    for (uint32_t tries = 0; tries < RAISE_TRIES_MAX; tries++) {
        uint64_t next = (seen > above ? seen : above) + 1;
        if (seen >= LOCK_FENCE_MAX || next >= LOCK_FENCE_MAX)
            return 0;
        if (cas(last, &seen, next))
            return next;
    }
    return 0;
}

void lock_see_fence(struct attachment *a, uint64_t seen) { raise_max(&a->header->lock_fence, seen); }

/* ---- the verbs ---- */

/* Store when the claim's lock will end. A claimer whose claim was removed, and that runs on late, does no
 * harm: either its CAS fails, because a later claimer has written here since, or the later claimer's CAS
 * fails, and that one begins again. */
static bool lock_say_until(struct attachment *a, uint32_t at, uint64_t claim, uint64_t until_ms)
{
    a64 *until = &a->locks[at].until;
    uint64_t seen = load_acquire(until);
    return load_acquire(&a->locks[at].held.hash) == claim << 1 &&
           cas(until, &seen, until_ms << LOCK_UNTIL_SHIFT | (claim & LOCK_CHECK_BITS));
}

/* Returns TAKEN, or HELD if this try failed. */
static enum lock lock_try_at(struct attachment *a, const struct place_seen *vacant,
                             const struct lock_wish *wish, uint64_t now_ms, struct claim_seen *old,
                             struct lock_hold *hold)
{
    uint64_t word = roster_holder(a, wish->hash), claim = lock_draw(a, wish->fence_seen),
             until_ms = wish->ttl_ms ? now_ms + wish->ttl_ms : 0;
    if (!claim)
        return LOCK_CORRUPT;
    if (!cas128(&a->locks[vacant->at].held, vacant->word, vacant->mark, word, claim << 1))
        return LOCK_HELD;
    fence_seq_cst(); /* LOCK */
    bool ours = lock_say_until(a, vacant->at, claim, until_ms);
    struct places p = lock_look_through(a, wish->hash, vacant->at, claim << 1, now_ms, old);
    uint64_t fence = ours && !p.held && !p.claimed ? lock_draw(a, wish->fence_seen) : 0;
    if (fence && cas128(&a->locks[vacant->at].held, word, claim << 1, word, fence << 1 | HELD)) {
        *hold = (struct lock_hold){.index = vacant->at, .word = word, .fence = fence, .until_ms = until_ms};
        return LOCK_TAKEN;
    }
    lock_vacate(a, vacant->at, word, claim << 1);
    return LOCK_HELD;
}

enum lock lock_take(struct attachment *a, const struct lock_wish *wish, struct lock_hold *hold,
                    uint32_t *holder)
{
    struct claim_seen old = {.at = NOBODY};
    uint64_t now_ms = clock_ms(a);
    *holder = NOBODY;
    for (int tries = 0; tries < TAKE_TRIES_MAX; tries++) {
        struct places p = lock_look_through(a, wish->hash, NOBODY, 0, now_ms, &old);
        *holder = p.holder;
        if (p.held)
            return LOCK_HELD;
        if (p.claimed)
            continue;
        if (p.vacant.at == NOBODY)
            return LOCK_NO_ROOM;
        enum lock result = lock_try_at(a, &p.vacant, wish, now_ms, &old, hold);
        if (result == LOCK_CORRUPT) {
            count(a, STAT_CORRUPT, 1);
            store_release(&a->header->state, SEGMENT_RETIRED);
        }
        if (result != LOCK_HELD)
            return result;
    }
    return LOCK_HELD;
}

uint32_t lock_holder(const struct attachment *a, uint64_t hash)
{
    uint64_t now_ms = clock_ms(a);
    for (uint32_t i = 0; i < LOCK_WAYS; i++) {
        struct place_seen s = lock_look(a, lock_way(a, hash, i));
        if (lock_is_of(&s, hash) && lock_stands(a, &s, now_ms))
            return s.word & HOLDER_SLOT_BITS;
    }
    return NOBODY;
}

static bool lock_is_ours(const struct attachment *a, const struct lock_hold *hold)
{
    return hold->index < lock_slots(&a->geo) && hold->word == roster_holder(a, hold->word);
}

bool lock_is_held(const struct attachment *a, const struct lock_hold *hold)
{
    if (!lock_is_ours(a, hold) || lock_is_over(hold->until_ms, clock_ms(a)))
        return false;
    const pair128 *held = &a->locks[hold->index].held;
    return load_acquire(&held->hash) == (hold->fence << 1 | HELD) && load_acquire(&held->meta) == hold->word;
}

bool lock_release(struct attachment *a, struct lock_hold *hold)
{
    bool in_time = !lock_is_over(hold->until_ms, clock_ms(a));
    return lock_is_ours(a, hold) && lock_vacate(a, hold->index, hold->word, hold->fence << 1 | HELD) &&
           in_time;
}
