/* fence.c - raising fences for a ring record.
 *
 * A fence answers one question: has an event of this bucket come after position p? It is asked before a fill
 * is stored (p is the fill's token), and before a set or add becomes visible (p is its version). A fence
 * only rises. It is harmless to raise one twice, or late, or for another key of the same bucket: that may
 * cost a refusal, never a stale value. For a set the fence alone does not decide, because another key of
 * the bucket may have moved it: if the fence is above the set's version, the set looks into the ring for a
 * record of its own key (ring_conflict).
 *
 * What a record raises:
 *
 *   a key's record       its bucket's fence; if it is this host's own, also its word of the own-writes table
 *   a range's record     the same for all buckets of the range, then the range's fence, then ranges_moved
 *   a tag's record       the tag's fence, then tags_moved, and its word of the own-tags table
 *   a clear, or ALL      clear_own or clear_remote, and cleared_stamp: pages sealed so far are drained first
 *   a line               nothing: it takes a sequence, and is about no key
 *
 * The words *_moved let a reader skip the tables while nothing has moved there. They are raised last
 * (FENCE): a process that sees one of them raised also sees the fences raised that it stands for.
 *
 * Own and applied records alike raise the fences. Only own records raise the own-writes table, from which
 * the map for a lapped peer is made. If it held applied records too, two hosts would send each other's
 * records back and forth, and evict for ever.
 */
#include "fence.h"

/* Positions of 32 bits cannot be compared, because the word may be 2^31 records old. A comparison is not
 * needed either: a process raises this word before it moves the tail past the record. So if the tail, read
 * after the word, is still before the record, the word belongs to an older record and is replaced; if the
 * CAS fails, another helper of this record has replaced it. A helper that comes late, after the tail has
 * moved, does nothing. */
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

/* Entries of the range are invalid from here on, so no process has to search for them. In a segment of
 * another layout the place of these fences is not known. There the appender invalidates everything
 * (older.c). */
static void fence_raise_range(struct attachment *a, uint64_t hash, uint64_t sequence)
{
    if (!a->range_fences)
        return;
    fence_raise_one(a, &a->range_fences[hash >> (64 - INTENT_BUCKET_BITS)], sequence);
    fence_raise_one(a, &a->header->ranges_moved,
                    sequence); /* FENCE: a process that sees this also sees the range's fence */
}

/* Raise the fence and own write of a key's bucket, or of all buckets of a range. These are adjacent,
 * because range and bucket are both leading bits of the hash. */
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

/* All entries of the pages sealed so far are dead (except local ones, after a remote clear): these pages
 * are drained first. */
static void fence_raise_clear(struct attachment *a, a64 *clear, uint64_t sequence)
{
    if (load_relaxed(clear) < sequence)
        fence_raise_one(a, &a->header->cleared_stamp, load_relaxed(&a->header->page_stamp));
    fence_raise_one(a, clear, sequence);
}

/* For statistics only: no entry is refused by it. The header of another layout may not have this word. */
static void fence_note_flush(struct attachment *a, uint64_t sequence)
{
    if (a->tallies)
        fence_raise_one(a, &a->header->flushed, sequence);
}

/* Pages sealed since then may hold valid entries, so cleared_stamp is not raised. */
void fence_clear_before(struct attachment *a, uint64_t sequence)
{
    fence_raise_one(a, &a->header->clear_remote, sequence);
    fence_note_flush(a, sequence);
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
                        sequence); /* FENCE: a process that sees this also sees the tag's fence */
        fence_raise_own(a, meta, &a->own_tags[tag_slot(a, hash)], sequence);
        return;
    case RECORD_CLEAR:
        fence_raise_clear(a, meta & META_OWN ? &a->header->clear_own : &a->header->clear_remote, sequence);
        return;
    case RECORD_ALL:
        fence_raise_clear(a, &a->header->clear_remote, sequence);
        fence_note_flush(a, sequence);
        return;
    default:
        return;
    }
}
