/* recovery.c - joining, leaving, sweeping and keeping house. See recovery.h. */
#include "recovery.h"

#include <errno.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { SWEEP_EVERY_MS = 500 };

/* ---- the sweeper of a dead process's slot ---- */

static uint64_t recovery_swept_by(uint64_t word, uint32_t sweeper, uint32_t generation)
{
    return (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | (uint64_t)sweeper << ROSTER_SWEEPER_SHIFT |
           (generation & ROSTER_SWEEPER_GEN_BITS) << ROSTER_SWEEPER_GEN_SHIFT | SLOT_SWEPT;
}

/* Is the sweeper that the word names still alive? If it is this process, it is no longer sweeping: it has
 * returned from every sweep. A process that takes the slot for itself is named by that same slot, and holds
 * its lock byte. */
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

/* Is the slot's holder dead, or the process that was sweeping it? The word was read before the test, and a
 * later CAS of it fails if the slot has a new life. */
static bool recovery_is_left(const struct attachment *a, uint32_t slot, uint64_t word)
{
    return (roster_word_live(word) && !roster_alive(a, slot)) ||
           (roster_word_swept(word) && !recovery_sweeper_works(a, slot, word));
}

/* Become the sweeper that gives back what a dead process held. *word: the slot's new word. */
static bool recovery_claim_slot(struct attachment *a, uint32_t slot, uint64_t *word)
{
    uint64_t seen = *word;
    *word = recovery_swept_by(seen, a->slot, a->slot_generation);
    return cas(&a->roster[slot].word, &seen, *word);
}

/* Announce what a dead process owes. Until the slot is claimed, several processes may do this at the same
 * time, so one that is stopped here delays no other. The debts of a SWEPT slot have been announced. False:
 * some are left, for the next verb of any process. */
static bool recovery_announced(struct attachment *a, uint32_t slot, uint64_t word)
{
    enum announced result = roster_word_live(word) ? roster_announce(a, slot, word, false) : ANNOUNCED_ALL;
    if (result == ANNOUNCED_PART) {
        store_relaxed(&a->header->sweep_at_ms, 0);
        a->house_second = 0;
    }
    return result == ANNOUNCED_ALL;
}

/* Free a slot that this process has claimed. It may die at any point: the next sweeper does it again. */
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

/* Take a slot that is free, or whose holder is dead. The dead holder's debts are announced before its lock
 * byte is taken, because with the byte taken the slot looks alive to all others. A process that holds the
 * byte of a slot whose word is unchanged owns the slot. */
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
    /* first the slots that are marked free, then those whose holder may be dead */
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
    /* otherwise the slot looks like that of a dead process, and processes that leave this segment clear
     * its successor */
    if (paid)
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

/* Take back a page whose recorded holder does not hold it: a slot number beyond the roster, a free slot
 * whose lock is free, or this process if it does not know the page. Only damaged bytes cause that, and no
 * other code would ever take such a page. While it is taken from a free slot, no process can join in that
 * slot. */
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

/* Damaged fixed words in the header keep newcomers out, and these do not make a new segment by themselves.
 * So the processes inside retire the segment. */
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

/* Is a sweep due? If another process swept less than half a second ago, this process's next check, a second
 * from now, is early enough. */
static bool recovery_sweep_is_due(struct attachment *a)
{
    uint64_t now_ms = clock_ms(a), due = load_relaxed(&a->header->sweep_at_ms);
    /* further in the future than it is ever set: garbage */
    bool later = now_ms < due && due - now_ms <= 2 * SWEEP_EVERY_MS;
    return !later && cas(&a->header->sweep_at_ms, &due, now_ms + SWEEP_EVERY_MS);
}

void recovery_keep_house(struct attachment *a, uint64_t second)
{
    a->house_second = second;
    if (a->frozen_ms >= 0)
        return;
    /* first, before the clock's word is read: the file may have been truncated */
    bool gone = roster_look(a, 0) || !roster_named(a);
    bool clock_intact = clock_look(a);
    if (gone || !clock_intact || !recovery_header_intact(a))
        store_release(&a->header->state, SEGMENT_RETIRED);
    else if (recovery_sweep_is_due(a) && doubt_pay(a, clock_ms(a)) && recovery_sweep(a) > 0)
        cache_orphaned(a); /* debts that were announced in an orphan are still owed to its successor */
}

/* A writer checks the file system once a tick. On a virtual machine that is short of CPU time, a tick may
 * last longer. */
bool recovery_owes_clear(struct attachment *a)
{
    bool wrote = a->wrote_ms && clock_ms(a) - a->wrote_ms <= 2 * SWEEP_EVERY_MS;
    return recovery_claim(a) > 0 || wrote || !recovery_geometry_intact(a) || roster_checked_fd(a) < 0;
}
