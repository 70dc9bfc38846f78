/* ring.c - the invalidation ring: the host's one order of everything that moved a fence.
 *
 * Appending is three steps, and another process can do the last two:
 *
 *   1. One 16-byte compare-and-swap puts the whole record into the slot at the tail (RING). It succeeds only
 *      over the record of the lap before, so of two producers that race one wins.
 *   2. The record's fence is raised to its sequence (fence.c).
 *   3. The tail is advanced over it (TAIL).
 *
 * Whoever meets a slot that is published while the tail has not moved does steps 2 and 3 for its producer
 * (ring_help). Both do nothing when they were done before. So a producer that is killed at any instruction
 * leaves no hole, and nobody waits for it. The fence comes before the tail: a consumer that reads below the
 * tail never sees a record whose fence is not raised, and a fill token (the tail) never covers an event whose
 * fence could still be missed. The model's mutations FENCE_AFTER_TAIL and RESERVE_FIRST break these two
 * rules, and are caught.
 *
 * A sequence exists for every record as soon as it is in. The slot's index supplies its low bits, the lap in
 * the slot the high ones. A slot's lap also tells a reader whether the record is the one that it wants, or
 * was overwritten: a cursor that is more than one ring behind is lapped, and its reader evicts more in the
 * place of what it missed.
 *
 * Why one ring for all processes, and not one for each: replay, the peers' cursors, events() and the repair
 * of a lapped peer are one position each. Two processes that append as fast as they can share one cache line
 * and reach about 11 million records a second together, some twenty times what a bridge relays.
 *
 * A record carries 16 bits of its value's digest. The full digest is not here: the bridge reads it from the
 * entry of that record's version when it sends (relay.c). It must not take the digest of whatever the key
 * holds by then.
 *
 * Garbage. Laps and the tail may be damaged bytes. Appending gives up after a bounded number of tries, and
 * the caller retires the segment (RING_CORRUPT): nobody loops for ever.
 */
#include "ring.h"

enum {
    /* each failed try means that another producer got further: only garbage loops */
    APPEND_TRIES_MAX = 1 << 20,
    /* 7 years of ten million records a second; an entry's version has one bit more */
    POSITION_BITS = 51,
    CONFLICT_SCAN_MAX = 1 << 16, /* some 200 us, of a writer who stood still for so many records */
    GUARD_MS = 1000,
    MARK_EVERY_MS = 125, /* GUARD_MARKS of them cover 2 s, twice what the guard looks back */
};

static uint64_t ring_meta_of(const struct record *r, uint32_t lap)
{
    return (uint64_t)lap << META_LAP_SHIFT | (uint64_t)r->kind << META_KIND_SHIFT | (r->own ? META_OWN : 0) |
           (uint64_t)(r->source & META_SOURCE_BITS) << META_SOURCE_SHIFT | r->digest;
}

static uint32_t ring_lap_of(const struct attachment *a, uint64_t position)
{
    return (uint32_t)(position >> a->ring_bits) + 1;
}

/* Finish what the publisher of `position` may not live to finish: fence first, then tail. */
static void ring_help(struct attachment *a, uint64_t position, uint64_t meta, uint64_t hash)
{
    fence_raise(a, meta, hash, position + 1);
    uint64_t seen = position;
    cas(&a->header->ring_tail, &seen, position + 1); /* TAIL */
}

uint64_t ring_append(struct attachment *a, const struct record *r)
{
    for (uint32_t tries = 0; tries < APPEND_TRIES_MAX; tries++) {
        uint64_t position = ring_tail(a);
        if (position >> POSITION_BITS)
            return RING_CORRUPT; /* its lap may look right: 32 bits of it are compared */
        pair128 *slot = &a->ring[position & a->ring_mask];
        uint32_t lap = ring_lap_of(a, position);
        uint64_t meta = load_acquire(&slot->meta), hash = load_acquire(&slot->hash);
        uint32_t slot_lap = (uint32_t)(meta >> META_LAP_SHIFT);

        if (slot_lap == lap) {
            ring_help(a, position, meta, hash);
        } else if (slot_lap == lap - 1) {
            uint64_t mine = ring_meta_of(r, lap);
            if (cas128(slot, meta, hash, mine, r->hash)) { /* RING */
                ring_help(a, position, mine, r->hash);
                if (r->own)
                    a->written = position + 1;
                fence_seq_cst_after_rmw(); /* DEKKER, DOORBELL */
                return position + 1;
            }
        } else if (ring_tail(a) == position) {
            return RING_CORRUPT; /* a lap that no producer could have written */
        }
    }
    return RING_CORRUPT;
}

bool ring_read(const struct attachment *a, uint64_t sequence, struct record *out)
{
    if (sequence == 0)
        return false;
    const pair128 *slot = &a->ring[(sequence - 1) & a->ring_mask];
    uint64_t meta = load_acquire(&slot->meta); /* RING */
    uint64_t hash = load_acquire(&slot->hash);
    if (load_relaxed(&slot->meta) != meta ||
        (uint32_t)(meta >> META_LAP_SHIFT) != ring_lap_of(a, sequence - 1))
        return false;
    *out = (struct record){
        .hash = hash,
        .kind = (enum record_kind)((meta >> META_KIND_SHIFT) & 7),
        .own = (meta & META_OWN) != 0,
        .source = (uint16_t)((meta >> META_SOURCE_SHIFT) & META_SOURCE_BITS),
        .digest = (uint16_t)(meta & META_DIGEST_BITS),
    };
    return true;
}

static bool ring_concerns(const struct record *r, uint64_t hash)
{
    if (record_is_range(r))
        return (r->hash ^ hash) >> (64 - INTENT_BUCKET_BITS) == 0;
    if (r->hash == EVERY_KEY)
        return r->kind == RECORD_KEY;
    return r->hash == hash && record_is_key_event(r);
}

bool ring_conflict(const struct attachment *a, uint64_t hash, uint64_t after, uint64_t upto, bool spare_local)
{
    if (upto <= after)
        return false;
    if (upto - after > CONFLICT_SCAN_MAX)
        return true;
    for (uint64_t s = after + 1; s <= upto; s++) {
        struct record r;
        if (!ring_read(a, s, &r) || (ring_concerns(&r, hash) && !(spare_local && r.source != 0)))
            return true;
    }
    return false;
}

/* Guard marks are (sequence, time) pairs that the bridge writes at most every MARK_EVERY_MS, before it
 * appends: a record after mark m and before the next is at most MARK_EVERY_MS younger than m. They say how
 * old a remote record is without a time in every slot. */
void ring_mark(struct attachment *a, uint64_t now_ms)
{
    uint64_t next = load_relaxed(&a->header->guard_next);
    uint64_t last = load_relaxed(&a->header->guard_marks[(next - 1) % GUARD_MARKS]);
    if (next && (uint32_t)now_ms - (uint32_t)last < MARK_EVERY_MS)
        return;
    store_release(&a->header->guard_marks[next % GUARD_MARKS],
                  (uint64_t)(uint32_t)ring_tail(a) << 32 | (uint32_t)now_ms);
    store_release(&a->header->guard_next, next + 1);
}

static bool ring_applied_lately(const struct attachment *a, uint64_t sequence, uint64_t now_ms)
{
    uint64_t next = load_acquire(&a->header->guard_next);
    for (uint64_t back = 1; back <= GUARD_MARKS && back <= next; back++) { /* the newest first */
        uint64_t mark = load_acquire(&a->header->guard_marks[(next - back) % GUARD_MARKS]);
        if ((uint32_t)now_ms - (uint32_t)mark >= GUARD_MS + MARK_EVERY_MS)
            return false;
        /* A recent mark before the record: the record is recent too. */
        if ((int32_t)((uint32_t)sequence - (uint32_t)(mark >> 32)) > 0)
            return true;
    }
    return false;
}

/* A guarded write's record says, in its digest bits, which event it gave way to: the guard lasts a second
 * from that one, and is not renewed by the writes that it refuses. (If more than 2^16 records lie between, it
 * lasts longer.) */
static uint64_t ring_guarding_event(uint64_t fence, const struct record *r)
{
    return r->kind == RECORD_GUARDED ? fence - (uint16_t)((uint16_t)fence - r->digest) : fence;
}

uint16_t ring_guard_bits(const struct attachment *a, uint64_t hash)
{
    uint64_t fence = fence_of(a, hash);
    struct record r;
    return (uint16_t)(ring_read(a, fence, &r) ? ring_guarding_event(fence, &r) : fence);
}

bool ring_guards(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms)
{
    uint64_t fence = fence_of(a, hash);
    struct record r;
    if (fence == 0 || !ring_applied_lately(a, fence, now_ms) || !ring_read(a, fence, &r))
        return false; /* long ago: most sets end here, and have not touched the ring */
    if (r.kind == RECORD_GUARDED)
        return ring_applied_lately(a, ring_guarding_event(fence, &r), now_ms);
    if (r.own || r.source == 0)
        return false;
    return r.hash != hash || !r.digest || r.digest != digest;
}
