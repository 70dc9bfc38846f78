/* geometry.h - how the bytes of a segment are divided among its tables and pages.
 *
 * The geometry follows from three numbers in the header: the segment's size, the size of an entry that the
 * tables are made for, and whether it has room for what pre-warming learns. A process computes it once at
 * attach, compares it with the counts in the header, and bounds every offset by its own copy.
 */
#ifndef CACHEE_GEOMETRY_H
#define CACHEE_GEOMETRY_H

#include "layout.h"

struct geometry {
    uint64_t total_bytes;
    uint32_t entry_bytes; /* of a typical entry: its key and value */
    uint32_t roster_slots, source_slots, lease_slots, ring_slots, tag_slots, bucket_count, page_count,
        page_bytes, intent_slots, sketch_blocks, ghost_sets, journal_names, journal_rows;
    uint32_t prewarm_entries, prewarm_sets, prewarm_mail_words; /* 0: there is no pre-warming */
    uint64_t roster_at, intents_at, range_fences_at, doubts_at, journal_at, dues_at, sources_at, leases_at,
        locks_at, tallies_at, ring_at, fences_at, own_writes_at, tag_fences_at, own_tags_at, index_at,
        page_words_at, page_notes_at, sketch_at, ghost_at, prewarm_at, prewarm_records_at, prewarm_mail_at,
        pages_at;
};

/* ENTRY_BYTES_TYPICAL: what a segment is made for if the configuration has no entry_size */
enum { ENTRY_BYTES_MIN = 32, ENTRY_BYTES_TYPICAL = 128, ENTRY_BYTES_MAX = 64 << 10 };

/* False: the numbers make no segment. total_bytes is too small, or entry_bytes is out of its bounds. */
bool geometry_plan(struct geometry *g, uint64_t total_bytes, uint64_t entry_bytes, bool prewarms);

static inline uint32_t lock_slots(const struct geometry *g) { return g->lease_slots / LEASES_PER_LOCK; }

/* Does the header have the counts of this geometry? */
static inline bool geometry_is(const struct header *h, const struct geometry *g)
{
    return h->total_bytes == g->total_bytes && h->entry_bytes == g->entry_bytes &&
           h->roster_slots == g->roster_slots && h->source_slots == g->source_slots &&
           h->lease_slots == g->lease_slots && h->ring_slots == g->ring_slots &&
           h->tag_slots == g->tag_slots && h->bucket_count == g->bucket_count &&
           h->page_count == g->page_count && h->page_bytes == g->page_bytes &&
           h->prewarms == (g->prewarm_sets > 0);
}

#endif
