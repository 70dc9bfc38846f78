/* recovery.c - joining, leaving, sweeping and keeping house. See recovery.h. */
#include "recovery.h"

#include <errno.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { SWEEP_EVERY_MS = 500 };

/* ---- who gives back what the dead held ---- */

static uint64_t recovery_swept_by(uint64_t word, uint32_t sweeper, uint32_t generation)
{
    return (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | (uint64_t)sweeper << ROSTER_SWEEPER_SHIFT |
           (generation & ROSTER_SWEEPER_GEN_BITS) << ROSTER_SWEEPER_GEN_SHIFT | SLOT_SWEPT;
}

/* Is the sweeper that the word names still at it? This process is not: it has returned from every sweep. One
 * that takes the slot for itself is named by that slot, and holds its lock byte. */
static bool recovery_sweeper_works(const struct attachment *a, uint32_t slot, uint64_t word)
{
    uint32_t sweeper = (word >> ROSTER_SWEEPER_SHIFT) & ROSTER_SWEEPER_BITS;
    if (sweeper == slot)
        return roster_alive(a, slot);
    if (sweeper >= a->geo.roster_slots || sweeper == a->slot)
        return false;
    uint64_t its = load_acquire(&a->roster[sweeper].word);
    uint64_t life = (word >> ROSTER_SWEEPER_GEN_SHIFT) & ROSTER_SWEEPER_GEN_BITS;
    return roster_word_live(its) && ((its >> ROSTER_GEN_SHIFT) & ROSTER_SWEEPER_GEN_BITS) == life &&
           roster_alive(a, sweeper);
}

/* Did the slot's holder die, or whoever was sweeping it? The word was read before: another life's is another
 * word. */
static bool recovery_is_left(const struct attachment *a, uint32_t slot, uint64_t word)
{
    return (roster_word_live(word) && !roster_alive(a, slot)) ||
           (roster_word_swept(word) && !recovery_sweeper_works(a, slot, word));
}

/* Become the one who gives back what a dead process held. *word: as the slot says then. */
static bool recovery_claim_slot(struct attachment *a, uint32_t slot, uint64_t *word)
{
    uint64_t seen = *word;
    *word = recovery_swept_by(seen, a->slot, a->slot_generation);
    return cas(&a->roster[slot].word, &seen, *word);
}

/* Announce what a dead process owes. Until its slot is claimed, anybody may be doing the same, and who is
 * stopped here delays nobody. What was SWEPT already has been announced. False: some is left for the next
 * verb of whomever. */
static bool recovery_announced(struct attachment *a, uint32_t slot, uint64_t word)
{
    enum announced result = roster_word_live(word) ? roster_announce(a, slot, word, false) : ANNOUNCED_ALL;
    if (result == ANNOUNCED_PART) {
        store_relaxed(&a->header->sweep_at_ms, 0);
        a->house_second = 0;
    }
    return result == ANNOUNCED_ALL;
}

/* The slot is this process's to give back. Safe to die in, at any point: the next one does it again. */
static void recovery_give_back(struct attachment *a, uint32_t slot, uint64_t word)
{
    pages_seal_slot(a, slot);
    roster_forget(a, slot, word);
}

/* ---- joining and leaving ---- */

static void recovery_settle_in(struct attachment *a, uint32_t slot, uint32_t generation, uint64_t now_ms)
{
    struct roster_slot *me = &a->roster[slot];
    char command[sizeof me->command] = {0};
    a->slot = slot;
    a->me = me;
    a->slot_generation = generation;
    prctl(PR_GET_NAME, command, 0, 0, 0);
    racing_write(me->command, command, sizeof command);
    racing_write(me->service, a->service, sizeof a->service);
    store_relaxed(&me->pid, (uint64_t)getpid());
    store_relaxed(&me->attached_ms, now_ms);
    raise_max(&a->header->roster_high, slot + 1);
}

/* Take a slot that is free, or whose holder is dead: its debts are announced before its lock byte is taken,
 * because then it looks alive to everybody else. Whoever holds the byte of a slot that is as it was seen has
 * the slot. */
static bool recovery_take_slot(struct attachment *a, uint32_t slot, uint64_t word, enum roster_kind kind,
                               uint64_t now_ms)
{
    a64 *at = &a->roster[slot].word;
    uint32_t generation = (uint32_t)(word >> ROSTER_GEN_SHIFT) + 1;
    if (roster_word_live(word) && roster_announce(a, slot, word, true) != ANNOUNCED_ALL) {
        errno = EAGAIN;
        return false;
    }
    void *held = roster_hold_byte(a, LOCK_SLOTS + slot);
    if (!held)
        return false;
    if (roster_word_live(word) || roster_word_swept(word)) {
        uint64_t mine = recovery_swept_by(word, slot, generation);
        if (!cas(at, &word, mine)) {
            roster_release_byte(held);
            errno = EAGAIN;
            return false;
        }
        recovery_give_back(a, slot, word = mine);
    }
    recovery_settle_in(a, slot, generation, now_ms);
    uint64_t live =
        (uint64_t)generation << ROSTER_GEN_SHIFT | (uint64_t)kind << ROSTER_KIND_SHIFT | SLOT_LIVE;
    if (!cas(at, &word, live)) {
        roster_release_byte(held);
        a->me = NULL;
        a->slot = UINT32_MAX;
        errno = EAGAIN;
        return false;
    }
    a->lock_page = held;
    return true;
}

enum recovery_join recovery_join(struct attachment *a, enum roster_kind kind, uint64_t now_ms)
{
    roster_mend_fd(a);
    a->me = NULL;
    /* first the slots that say free, then those whose holder may be dead */
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++) {
            uint64_t word = load_acquire(&a->roster[slot].word);
            bool taken = roster_word_live(word) || roster_word_swept(word);
            if (taken != (pass == 1) || (taken && !recovery_is_left(a, slot, word)))
                continue;
            if (recovery_take_slot(a, slot, word, kind, now_ms))
                return RECOVERY_JOINED;
            if (errno != EAGAIN)
                return RECOVERY_FAILED;
        }
    }
    return RECOVERY_FULL;
}

void recovery_leave(struct attachment *a)
{
    uint64_t word = load_acquire(&a->me->word);
    pages_seal_slot(a, a->slot);
    bool paid = !a->intents_open || roster_announce(a, a->slot, word, true) == ANNOUNCED_ALL;
    if (a->intents_open && paid)
        roster_forget(a, a->slot, word);
    if (paid) /* else it looks dead, and whoever leaves this segment clears its successor */
        store_release(&a->me->word, (uint64_t)a->slot_generation << ROSTER_GEN_SHIFT | SLOT_FREE);
    roster_abandon(a);
}

/* ---- sweeping ---- */

static bool recovery_sweep_slot(struct attachment *a, uint32_t slot)
{
    uint64_t word = load_acquire(&a->roster[slot].word);
    if (slot == a->slot || !recovery_is_left(a, slot, word) || !recovery_announced(a, slot, word) ||
        !recovery_claim_slot(a, slot, &word))
        return false;
    recovery_give_back(a, slot, word);
    store_release(&a->roster[slot].word, (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE);
    count(a, STAT_SWEPT, 1);
    return true;
}

/* Pages whose holder is nobody: a slot that the roster has not, one that is free and whose lock nobody holds,
 * or this process where it knows nothing of it. Only damaged bytes say so, and nobody else would ever take
 * such a page. While it is taken from a free slot, nobody joins in that slot. */
static void recovery_take_back(struct attachment *a, uint32_t page, uint32_t holder)
{
    if (holder == a->slot ? !pages_has(a, page) : holder >= a->geo.roster_slots) {
        pages_take_from(a, page, holder);
        return;
    }
    if (holder == a->slot)
        return;
    a64 *at = &a->roster[holder].word;
    uint64_t word = load_acquire(at), free_word = (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE;
    if (roster_word_live(word) || roster_word_swept(word) || roster_alive(a, holder) ||
        !cas(at, &word, recovery_swept_by(word, a->slot, a->slot_generation)))
        return;
    pages_take_from(a, page, holder);
    store_release(at, free_word);
}

enum { LOOK_PAGES_MAX = 1 << 14 /* of a sweep: some microseconds */ };

static void recovery_look_for_strays(struct attachment *a)
{
    uint32_t n = a->geo.page_count, left = n < LOOK_PAGES_MAX ? n : LOOK_PAGES_MAX, holder[2];
    for (; left > 0; left--) {
        a->house_page = a->house_page + 1 < n ? a->house_page + 1 : 0;
        for (uint32_t i = pages_holders(a, a->house_page, holder); i > 0; i--)
            recovery_take_back(a, a->house_page, holder[i - 1]);
    }
}

uint32_t recovery_sweep(struct attachment *a)
{
    uint32_t swept = 0;
    roster_mend_fd(a);
    for (uint32_t slot = 0, n = roster_slots_used(a); slot < n; slot++)
        swept += recovery_sweep_slot(a, slot);
    recovery_look_for_strays(a);
    return swept;
}

uint32_t recovery_claim(struct attachment *a)
{
    uint32_t claimed = 0;
    for (uint32_t slot = 0, n = roster_slots_used(a); slot < n; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word);
        claimed += slot != a->slot && recovery_is_left(a, slot, word) && recovery_claim_slot(a, slot, &word);
    }
    return claimed;
}

void recovery_bury(struct attachment *a)
{
    for (uint32_t slot = 0, n = roster_slots_used(a); slot < n; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word),
                 free_word = (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE;
        if (word == recovery_swept_by(word, a->slot, a->slot_generation))
            cas(&a->roster[slot].word, &word, free_word);
    }
}

/* ---- keeping house ---- */

/* Wrong bytes in the header's fixed words keep newcomers out, who would make no new segment for themselves:
 * whoever is in leaves with them. */
static bool recovery_geometry_intact(const struct attachment *a)
{
    const struct header *h = a->header;
    return h->magic == LAYOUT_MAGIC && h->fingerprint == LAYOUT_FINGERPRINT && geometry_is(h, &a->geo) &&
           h->time_namespace == a->time_namespace &&
           memcmp(h->hash_key, a->hash_key, sizeof a->hash_key) == 0;
}

static bool recovery_header_intact(const struct attachment *a)
{
    return recovery_geometry_intact(a) && load_acquire(&a->header->state) == SEGMENT_READY;
}

/* Somebody's sweep was less than half a second ago? Then this process's next look, a second from now, is
 * early enough. */
static bool recovery_sweep_is_due(struct attachment *a)
{
    uint64_t now_ms = clock_ms(a), due = load_relaxed(&a->header->sweep_at_ms);
    /* further off than anybody set it: garbage */
    bool later = now_ms < due && due - now_ms <= 2 * SWEEP_EVERY_MS;
    return !later && cas(&a->header->sweep_at_ms, &due, now_ms + SWEEP_EVERY_MS);
}

void recovery_keep_house(struct attachment *a, uint64_t second)
{
    a->house_second = second;
    if (a->frozen_ms >= 0)
        return;
    /* first, and before the clock's word is read: the file may have been cut */
    bool gone = roster_look(a, 0) || !roster_named(a);
    bool clock_intact = clock_look(a);
    if (gone || !clock_intact || !recovery_header_intact(a))
        store_release(&a->header->state, SEGMENT_RETIRED);
    else if (recovery_sweep_is_due(a) && doubt_pay(a, clock_ms(a)) && recovery_sweep(a) > 0)
        cache_orphaned(a); /* whose debts were announced in an orphan owes them to its successor */
}

/* A writer asks the file system once a tick; a tick may last longer on a virtual machine that is not given
 * its time. */
bool recovery_owes_clear(struct attachment *a)
{
    bool wrote = a->wrote_ms && clock_ms(a) - a->wrote_ms <= 2 * SWEEP_EVERY_MS;
    return recovery_claim(a) > 0 || wrote || !recovery_geometry_intact(a) || roster_checked_fd(a) < 0;
}
