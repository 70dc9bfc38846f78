/* fence.c - raising fences for a ring record.
 *
 * A fence answers one question: has an event of this bucket come after position p? It is asked before a fill
 * is stored (p is the fill's token), and before a set or add becomes visible (p is its version). Fences are
 * words that only rise, so it is harmless to raise one twice, or late, or for a neighbour in the same bucket:
 * that costs a refusal, never a stale value. A set does not rely on its fence alone, since another key of the
 * bucket may have moved it: where the fence is above its version, it looks into the ring for a record of its
 * own key (ring_conflict).
 *
 * What a record raises:
 *
 *   a key's record       its bucket's fence; if it is this host's own, also its word of the own-writes table
 *   a range's record     the same for all buckets of the range, then the range's fence, then ranges_moved
 *   a tag's record       the tag's fence, then tags_moved, and its word of the own-tags table
 *   a clear, or ALL      clear_own or clear_remote, and cleared_stamp: pages sealed so far are drained first
 *   a line               nothing: it takes a sequence, and is about no key
 *
 * The words *_moved let a reader skip the tables while nothing has moved there. They are raised last (FENCE):
 * who sees one of them sees the fences that it stands for.
 *
 * The fences are raised by own and applied records alike. The own-writes table is raised by own records only:
 * it says what a lapped peer is sent. If it held applied records too, two hosts would evict each other's
 * echoes for ever.
 */
#include "fence.h"

/* Positions of 32 bits cannot be compared: what stands there may be 2^31 records old. They need not be.
 * Whoever moved the tail past a record had raised this word first: so where the tail, read after the word, is
 * still before the record, the word is an older one's, and where the swap fails another helper of this record
 * has done it. One that comes late, after the tail has moved, does nothing. */
static void fence_raise_own(struct attachment *a, uint64_t meta, a32 *at, uint64_t sequence)
{
    if (!(meta & META_OWN))
        return;
    uint32_t seen = load32_acquire(at);
    if (load_acquire(&a->header->ring_tail) < sequence)
        cas32(at, &seen, (uint32_t)sequence);
}

/* A record that is about all keys whose hash has the leading INTENT_BUCKET_BITS of its own: see
 * roster_debts.h. */
static bool fence_is_range(uint64_t meta)
{
    uint64_t kind = (meta >> META_KIND_SHIFT) & 7;
    return (meta & META_OWN) && kind == RECORD_KEY && (meta & META_DIGEST_BITS) == RECORD_RANGE;
}

/* What is stored of a range is invalid from here on, so nobody has to look for it. In a segment of another
 * layout, where these fences are is not known: whoever appends to its ring makes everything in it invalid
 * (older.c). */
static void fence_raise_range(struct attachment *a, uint64_t hash, uint64_t sequence)
{
    if (!a->range_fences)
        return;
    fence_raise_one(a, &a->range_fences[hash >> (64 - INTENT_BUCKET_BITS)], sequence);
    fence_raise_one(a, &a->header->ranges_moved,
                    sequence); /* FENCE: who sees it sees the range's fence raised */
}

/* Fence and own write of a key's bucket, or of all buckets of a range: these lie side by side, since both go
 * by leading bits. */
static void fence_raise_key(struct attachment *a, uint64_t meta, uint64_t hash, uint64_t sequence)
{
    uint64_t count =
        fence_is_range(meta) ? (uint64_t)a->geo.ring_slots * FENCES_PER_RING_SLOT >> INTENT_BUCKET_BITS : 1;
    uint64_t first = (hash >> a->fence_shift) & ~(count - 1);
    for (uint64_t i = first; i < first + count; i++) {
        fence_raise_one(a, &a->fences[i], sequence);
        fence_raise_own(a, meta, &a->own_writes[i], sequence);
    }
}

/* The pages sealed so far hold nothing that counts (local entries apart, after a remote clear): they are
 * drained first. */
static void fence_raise_clear(struct attachment *a, a64 *clear, uint64_t sequence)
{
    if (load_relaxed(clear) < sequence)
        fence_raise_one(a, &a->header->cleared_stamp, load_relaxed(&a->header->page_stamp));
    fence_raise_one(a, clear, sequence);
}

/* Pages sealed since may hold what counts: cleared_stamp stays where it is. */
void fence_clear_before(struct attachment *a, uint64_t sequence)
{
    fence_raise_one(a, &a->header->clear_remote, sequence);
}

void fence_raise(struct attachment *a, uint64_t meta, uint64_t hash, uint64_t sequence)
{
    uint64_t kind = (meta >> META_KIND_SHIFT) & 7;
    if (kind == RECORD_LOCAL && hash == EVERY_KEY)
        return; /* a line */
    switch (kind) {
    case RECORD_ADD:
    case RECORD_KEY:
    case RECORD_SET:
    case RECORD_LOCAL:
    case RECORD_GUARDED:
        fence_raise_key(a, meta, hash, sequence);
        if (fence_is_range(meta))
            fence_raise_range(a, hash, sequence);
        return;
    case RECORD_TAG:
        fence_raise_one(a, tag_bucket(a, hash), sequence);
        fence_raise_one(a, &a->header->tags_moved,
                        sequence); /* FENCE: who sees it sees the tag's fence raised */
        fence_raise_own(a, meta, &a->own_tags[tag_slot(a, hash)], sequence);
        return;
    case RECORD_CLEAR:
        fence_raise_clear(a, meta & META_OWN ? &a->header->clear_own : &a->header->clear_remote, sequence);
        return;
    case RECORD_ALL:
        fence_raise_clear(a, &a->header->clear_remote, sequence);
        return;
    default:
        return;
    }
}
