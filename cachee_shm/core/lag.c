/* lag.c - see lag.h. */
#include "lag.h"

#include "clock.h"
#include "fence.h"
#include "ring.h"

enum {
    NOTES_PER_LAG = 4,
    /* clock_ms advances in steps of a few milliseconds, so it may be behind by as much */
    CLOCK_STEP_MS = 8,
};

/* The position is read before the time: the note must not cover records that came after its time. */
static void lag_note(struct attachment *a)
{
    struct lag *l = &a->lag;
    uint64_t position = ring_tail(a), now_ms = clock_ms(a), before_ms = l->note[l->newest].at_ms;
    if (now_ms >= before_ms && now_ms - before_ms < l->ms / NOTES_PER_LAG)
        return;
    l->newest = (l->newest + 1) % LAG_NOTES;
    l->note[l->newest] = (struct lag_note){.position = position, .at_ms = now_ms};
}

/* A position at which the tail stood at least `age_ms` before `then_ms`; 0: none is known. */
static uint64_t lag_position(const struct attachment *a, uint64_t then_ms, uint64_t age_ms)
{
    uint64_t known = 0;
    for (int i = 0; i < LAG_NOTES; i++) {
        const struct lag_note *n = &a->lag.note[i];
        if (n->at_ms && n->at_ms + age_ms + CLOCK_STEP_MS <= then_ms && n->position > known)
            known = n->position;
    }
    return known;
}

static uint64_t lag_newest_of_key(const struct attachment *a, uint64_t hash)
{
    uint64_t newest = fence_of(a, hash), range = range_fence_of(a, hash), clear = clear_of(a, false);
    newest = range > newest ? range : newest;
    return clear > newest ? clear : newest;
}

uint64_t lag_end(struct attachment *a, const struct write *w, uint64_t started_ms, uint64_t now_ms)
{
    if (!a->lag.ms || w->local)
        return 0;
    lag_note(a);
    uint64_t newest = lag_newest_of_key(a, w->hash), known = lag_position(a, started_ms, a->lag.ms);
    for (uint32_t i = 0; i < w->tags; i++) {
        uint64_t tag = tag_fence_of(a, w->tag[i]);
        newest = tag > newest ? tag : newest;
    }
    return newest > known ? now_ms + a->lag.ms : 0;
}

uint64_t lag_touched(const struct entry_ref *e, uint64_t ends_ms)
{
    uint64_t expires = entry_expires_ms(e);
    return entry_lags(e) && expires && (!ends_ms || ends_ms > expires) ? expires : ends_ms;
}
