/* ring.c - the invalidation ring: the host's one order of everything that moved a fence.
 *
 * Appending is three steps, and another process can do the last two:
 *
 *   1. One 16-byte compare-and-swap puts the whole record into the slot at the tail (RING). It succeeds only
 *      over the record of the lap before, so of two producers that race one wins.
 *   2. The record's fence is raised to its sequence (fence.c).
 *   3. The tail is advanced over it (TAIL).
 *
 * A process that finds a published slot at the tail does steps 2 and 3 for its producer (ring_help). If they
 * were done before, they change nothing. So a producer that is killed at any instruction
 * leaves no hole, and nobody waits for it. The fence comes before the tail: a consumer that reads below the
 * tail never sees a record whose fence is not raised, and a fill token (the tail) never covers an event whose
 * fence could still be missed. The model's mutations FENCE_AFTER_TAIL and RESERVE_FIRST break these two
 * rules, and are caught.
 *
 * A record has its sequence as soon as it is in its slot: the index of the slot gives the low bits, the lap
 * in the slot the high bits. By the lap a reader also sees whether a slot still holds the record that it
 * wants. A reader whose cursor is more than one ring behind is lapped, and evicts more instead of what it
 * missed.
 *
 * Why one ring for all processes, and not one for each: replay, the peers' cursors, events() and the repair
 * of a lapped peer are one position each. Two processes that append as fast as they can share one cache line
 * and reach about 11 million records a second together, some twenty times what a bridge relays.
 *
 * A record carries 16 bits of its value's digest. When the bridge sends the record, it reads the full digest
 * from the entry with that record's version (relay.c), and not from any other value that the key has by then.
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
    CONFLICT_SCAN_MAX = 1 << 16, /* records; some 200 us, for a writer that was stopped meanwhile */
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

/* Do what the producer of the record at `position` may have died before doing: fence first, then tail. */
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

/* ---- The guard ----
 *
 * If another host has written a key within the last second, a plain set of that key gives way: it is
 * announced and not stored (RECORD_GUARDED), because its value may have been read from the origin before that
 * write. A set of the same bytes as the remote write's is stored.
 *
 * The guard must end, also if many hosts set one value again and again. So a guarded write does not renew
 * the guard for equal values, neither here nor at a peer (which applies its announcement as a RECORD_GUARDED
 * too). A set of other bytes gives way to a guarded write as to any remote write. A set of the same bytes (as
 * far as GUARDED_DIGEST_BITS show) looks past it, to the event that the guarded write gave way to, and is
 * stored if that event is no longer recent. It must look: two hosts may have read the same old value before
 * that event.
 *
 * How old a remote record is, is known by guard marks, so that slots need no time. A mark is a pair
 * (sequence, time). The bridge writes one before it appends, at most every MARK_EVERY_MS. So a record between
 * mark m and the next is at most MARK_EVERY_MS younger than m. Above the bits of its digest, a RECORD_GUARDED
 * has the number (from 1) of the newest mark before the event that it gave way to. 0: that event was not
 * recent, or was this host's own. */
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

/* Is the mark recent, and was it made before the record at this sequence? */
static bool ring_mark_covers(uint64_t mark, uint64_t sequence, uint64_t now_ms)
{
    return (uint32_t)now_ms - (uint32_t)mark < GUARD_MS + MARK_EVERY_MS &&
           (int32_t)((uint32_t)sequence - (uint32_t)(mark >> 32)) > 0;
}

/* The number of the newest mark that shows that a record is recent; 0: it is not. */
static uint32_t ring_recent_mark(const struct attachment *a, uint64_t sequence, uint64_t now_ms)
{
    uint64_t next = load_acquire(&a->header->guard_next);
    for (uint64_t back = 1; back <= GUARD_MARKS && back <= next; back++) { /* the newest first */
        uint32_t slot = (uint32_t)((next - back) % GUARD_MARKS);
        uint64_t mark = load_acquire(&a->header->guard_marks[slot]);
        if (ring_mark_covers(mark, sequence, now_ms))
            return slot + 1;
        if ((uint32_t)now_ms - (uint32_t)mark >= GUARD_MS + MARK_EVERY_MS)
            return 0;
    }
    return 0;
}

/* The number of the mark of the event to which this guarded write gave way; 0: that event is no longer
 * recent. If the mark was overwritten, the newer one was made after the record, and does not cover it. */
static uint32_t ring_gave_way_to(const struct attachment *a, uint64_t sequence, const struct record *r,
                                 uint64_t now_ms)
{
    uint32_t number = r->digest >> GUARDED_MARK_SHIFT;
    if (number == 0 || number > GUARD_MARKS)
        return 0;
    uint64_t mark = load_acquire(&a->header->guard_marks[number - 1]);
    return ring_mark_covers(mark, sequence, now_ms) ? number : 0;
}

/* The number of the mark of the event to which a set with this digest gives way; 0: there is none. `known`:
 * the bits of the digest to compare. */
static uint32_t ring_guarding_mark(const struct attachment *a, uint64_t hash, uint16_t digest, uint16_t known,
                                   uint64_t now_ms)
{
    uint64_t fence = fence_of(a, hash);
    uint32_t recent = fence ? ring_recent_mark(a, fence, now_ms) : 0;
    struct record r;
    if (!recent || !ring_read(a, fence, &r))
        return 0; /* no recent event. Most sets end here, without a look at the ring */
    uint16_t unlike = (uint16_t)((r.digest ^ digest) & known);
    if (r.kind == RECORD_GUARDED) {
        bool looks_past = r.source == 0 || (r.hash == hash && !(unlike & GUARDED_DIGEST_BITS));
        return looks_past ? ring_gave_way_to(a, fence, &r, now_ms) : recent;
    }
    bool gives_way = !r.own && r.source != 0 && (r.hash != hash || !r.digest || unlike);
    return gives_way ? recent : 0;
}

uint16_t ring_guarded_bits(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms)
{
    uint32_t number = ring_guarding_mark(a, hash, digest, GUARDED_DIGEST_BITS, now_ms);
    return (uint16_t)(number << GUARDED_MARK_SHIFT | (digest & GUARDED_DIGEST_BITS));
}

bool ring_guards(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms)
{
    return ring_guarding_mark(a, hash, digest, UINT16_MAX, now_ms) != 0;
}
