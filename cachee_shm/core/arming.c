/* arming.c - see arming.h. */
#include "arming.h"

#include "clock.h"
#include "write.h"

/* When its value was stored, by the wall clock: to 1/16 s, as entries keep it. */
static uint64_t arming_since_ms(const struct attachment *a, const struct entry_ref *e)
{
    uint32_t age = clock_stamp(clock_ms(a)) - entry_stored_at(e);
    return journal_wall_ns() / 1000000 - (uint64_t)age * 1000 / 16;
}

static struct journal_event arming_about(const struct attachment *a, const struct entry_ref *e,
                                         enum journal_kind kind)
{
    return (struct journal_event){
        .hash = e->hash,
        .kind = kind,
        .why = entry_local(e) ? WHY_LOCAL : WHY_NONE,
        .sequence = e->version >> 1,
        .since_ms = arming_since_ms(a, e),
        .digest = entry_spans(e) ? 0 : digest_bits(entry_digest(a, e)),
    };
}

bool arming_arm(struct attachment *a, uint64_t hash, uint64_t for_ms)
{
    struct entry_ref e;
    journal_watch(a, hash, for_ms);
    bool here = index_arm(a, hash, &e);
    struct journal_event event = {.hash = hash, .kind = JOURNAL_HELD, .why = WHY_NOT_HELD};
    if (here)
        event = arming_about(a, &e, JOURNAL_HELD);
    if (here && !entry_confirm(&e))
        return false; /* the entry has just gone: the row for that is already written */
    journal_note(a, &event);
    return here;
}

void arming_stored(struct attachment *a, uint64_t hash)
{
    struct entry_ref e;
    if (journal_watches(a, hash))
        index_arm(a, hash, &e);
}

void arming_read(struct attachment *a, struct entry_ref *e)
{
    struct journal_event event = arming_about(a, e, JOURNAL_FIRST_READ);
    if (!entry_confirm(e) || !index_disarm(e))
        return;
    if (!entry_slides(e))
        e->lifetime &= ~LIFETIME_LOOKED_AT;
    if (a->near_hash == e->hash && a->near_version == e->version)
        event.layer = LAYER_NEAR;
    journal_note(a, &event);
}
