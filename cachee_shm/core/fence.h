/* fence.h - hash bucket -> ring position of the last event in that bucket.
 *
 * A fence refuses fills that were loaded before an event, and orders racing writes to a key. Two keys that
 * share a bucket cost a needless refusal, never a missed one. Fences only rise, so a late helper is harmless.
 */
#ifndef CACHEE_FENCE_H
#define CACHEE_FENCE_H

#include "attachment.h"
#include "hash.h"

/* The hash of a RECORD_KEY that may be about any key, because a peer's map of buckets is being applied
 * (relay_buckets.h). In its last record the digest bits are EVERY_KEY_DONE. No key has this hash. A
 * RECORD_LOCAL of this hash is a line: it takes a sequence, and is about no key at all. */
enum { EVERY_KEY = 0, EVERY_KEY_DONE = 1 };

static inline a64 *fence_bucket(const struct attachment *a, uint64_t hash)
{
    return &a->fences[hash >> a->fence_shift];
}

static inline a32 *own_bucket(const struct attachment *a, uint64_t hash)
{
    return &a->own_writes[hash >> a->fence_shift];
}

static inline uint32_t tag_slot(const struct attachment *a, uint64_t tag)
{
    return reduce32((uint32_t)(tag >> 32), a->geo.tag_slots);
}
static inline a64 *tag_bucket(const struct attachment *a, uint64_t tag)
{
    return &a->tag_fences[tag_slot(a, tag)];
}

static inline uint64_t fence_of(const struct attachment *a, uint64_t hash)
{
    return load_acquire(fence_bucket(a, hash)); /* FENCE */
}
static inline uint64_t tag_fence_of(const struct attachment *a, uint64_t tag)
{
    return load_acquire(tag_bucket(a, tag)); /* FENCE */
}

/* The last event of a range: of all keys whose hash has the same leading bits (roster_debts.h). It spares
 * local entries. */
static inline uint64_t range_fence_of(const struct attachment *a, uint64_t hash)
{
    return load_acquire(&a->range_fences[hash >> (64 - INTENT_BUCKET_BITS)]); /* FENCE */
}

/* The newest clear that counts for an entry: remote ones spare local entries. */
static inline uint64_t clear_of(const struct attachment *a, bool local)
{
    uint64_t own = load_acquire(&a->header->clear_own);
    uint64_t remote = local ? 0 : load_acquire(&a->header->clear_remote);
    return own > remote ? own : remote;
}

/* Invalidate everything that was stored, or whose load began, before this sequence, except local entries.
 * The sequence must exist already: then a token that is read later is not lower, and no later load is
 * refused. */
void fence_clear_before(struct attachment *a, uint64_t sequence);

/* Raise one word of the tables or the header. If that fails, something keeps writing garbage into the word.
 * Then the segment is retired, because a fence that is too low could let an older value be read. */
static inline void fence_raise_one(struct attachment *a, a64 *at, uint64_t sequence)
{
    if (!raise_max(at, sequence))
        store_release(&a->header->state, SEGMENT_RETIRED);
}

/* Raise whatever the record of this meta and hash must raise, to its sequence. Idempotent. */
void fence_raise(struct attachment *a, uint64_t meta, uint64_t hash, uint64_t sequence);

#endif
