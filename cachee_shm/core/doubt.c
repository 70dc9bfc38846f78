/* doubt.c - see doubt.h. */
#include "doubt.h"

#include "clock.h"
#include "doorbell.h"

enum { DUE_PROBES_MAX = 64, DUE_MS_SHIFT = 16, DUE_KIND_MASK = 7 };

static void doubt_raise_until(struct attachment *a, uint64_t hash, uint64_t until_ms)
{
    if (a->doubts)
        raise_max(&a->doubts[hash >> (64 - INTENT_BUCKET_BITS)], until_ms); /* DOUBT */
}

/* Without an unknown_ttl there is no doubt. A doubt that ends now would still lie in the future of a
 * process that read the clock a moment ago, and the value that this process touches or fills would expire
 * at once. */
void doubt_raise(struct attachment *a, uint64_t hash)
{
    if (a->unknown_ttl_ms)
        doubt_raise_until(a, hash, clock_ms(a) + a->unknown_ttl_ms);
}

void doubt_raise_all(struct attachment *a)
{
    uint64_t until = clock_ms(a) + a->unknown_ttl_ms;
    for (uint64_t i = 0; a->unknown_ttl_ms && i < 1ull << INTENT_BUCKET_BITS; i++)
        doubt_raise_until(a, i << (64 - INTENT_BUCKET_BITS), until);
}

static void doubt_open_until(struct attachment *a, uint64_t until_ms)
{
    raise_max(&a->header->own_doubt_ms, until_ms); /* DOUBT */
}

void doubt_raise_own(struct attachment *a, uint64_t hash)
{
    doubt_open_until(a, clock_ms(a) + a->unknown_ttl_ms);
    doubt_raise(a, hash);
}

bool doubt_is_open(const struct attachment *a)
{
    uint64_t now_ms = clock_ms(a), own_ms = load_acquire(&a->header->own_doubt_ms); /* DOUBT */
    return now_ms < own_ms || now_ms < a->header->born_ms + a->unknown_ttl_ms;
}

void doubt_owe_all(struct attachment *a, uint64_t due_ms) { raise_max(&a->header->due_all_ms, due_ms); }

static uint32_t doubt_first_place(uint64_t hash) { return (uint32_t)(hash >> 32) & (DUE_SLOTS - 1); }

static uint64_t doubt_meta_of(enum record_kind kind, uint64_t due_ms)
{
    return due_ms << DUE_MS_SHIFT | kind;
}

uint32_t doubt_owe(struct attachment *a, enum record_kind kind, uint64_t hash, uint64_t due_ms)
{
    uint32_t at = doubt_first_place(hash);
    for (uint32_t tries = 0; tries < DUE_PROBES_MAX; tries++, at = (at + 1) & (DUE_SLOTS - 1))
        if (!load_acquire(&a->dues[at].meta) && cas128(&a->dues[at], 0, 0, doubt_meta_of(kind, due_ms), hash))
            return at;
    doubt_owe_all(a, due_ms);
    return NO_DUE;
}

void doubt_settle(struct attachment *a, uint32_t place, enum record_kind kind, uint64_t hash, uint64_t due_ms)
{
    if (place < DUE_SLOTS)
        cas128(&a->dues[place], doubt_meta_of(kind, due_ms), hash, 0, 0);
}

static bool doubt_has_due(const struct attachment *a, uint64_t hash)
{
    uint32_t at = doubt_first_place(hash);
    bool owed = false;
    for (uint32_t tries = 0; !owed && tries < DUE_PROBES_MAX; tries++, at = (at + 1) & (DUE_SLOTS - 1))
        owed = load_acquire(&a->dues[at].hash) == hash && load_acquire(&a->dues[at].meta);
    return owed;
}

bool doubt_is_owed(const struct attachment *a, uint64_t hash)
{
    return doubt_has_due(a, hash) || doubt_has_due(a, DUE_OF_ALL);
}

bool doubt_begin(struct attachment *a, enum record_kind kind, uint64_t hash)
{
    uint64_t until = clock_ms(a) + a->unknown_ttl_ms;
    if (!a->unknown_ttl_ms)
        return false;
    if (kind == RECORD_CLEAR)
        doubt_owe_all(a, until);
    else
        doubt_owe(a, kind, hash, until);
    if (kind == RECORD_KEY) {
        doubt_raise_own(a, hash);
    } else {
        doubt_open_until(a, until);
        doubt_raise_all(a);
    }
    return true;
}

uint64_t doubt_capped(const struct attachment *a, uint64_t hash, uint64_t now_ms, uint64_t ends_ms)
{
    uint64_t until = doubt_until(a, hash);
    return until > now_ms && (!ends_ms || ends_ms > until) ? until : ends_ms;
}

static void doubt_announce(struct attachment *a, enum record_kind kind, uint64_t hash)
{
    uint64_t s = ring_append(a, &(struct record){.hash = hash, .kind = kind, .own = true});
    if (s != RING_CORRUPT && kind == RECORD_KEY)
        index_kill_lower(a, hash, s << 1);
    doorbell_ring(a); /* housekeeping is not a verb, so no end of a verb rings */
}

/* Announce first, then free the place: if the process dies in between, the key is announced twice, never
 * not at all. */
static void doubt_pay_one(struct attachment *a, pair128 *due, uint64_t now_ms)
{
    uint64_t meta = load_acquire(&due->meta), hash = load_acquire(&due->hash);
    enum record_kind kind = (enum record_kind)(meta & DUE_KIND_MASK);
    if (!meta || meta >> DUE_MS_SHIFT > now_ms)
        return;
    if ((kind == RECORD_KEY && hash) || kind == RECORD_TAG) /* a due with hash 0 is garbage */
        doubt_announce(a, kind, hash);
    else if (kind == RECORD_CLEAR)
        doubt_announce(a, kind, 0);
    cas128(due, meta, hash, 0, 0);
}

bool doubt_pay(struct attachment *a, uint64_t now_ms)
{
    for (uint32_t i = 0; a->dues && i < DUE_SLOTS; i++)
        doubt_pay_one(a, &a->dues[i], now_ms);
    uint64_t all = a->dues ? load_acquire(&a->header->due_all_ms) : 0;
    if (all && all <= now_ms) {
        doubt_announce(a, RECORD_CLEAR, 0);
        cas(&a->header->due_all_ms, &all, 0);
    }
    return true;
}
