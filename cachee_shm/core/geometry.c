/* geometry.c - see geometry.h. The order of the regions is that of the table in layout.h.
 *
 * The tables whose size depends on the number of entries are sized for a typical entry: the index, the
 * policy's sketch and ghost, and the ring with its fences. If entries are smaller, the index is fuller and
 * they push each other out of it; if they are larger, it stays half empty. Either costs memory or hits,
 * never a wrong answer. The tables that depend on the machine (processes, hosts, loads at once) follow from
 * the segment's size alone.
 */
#include "geometry.h"

enum {
    BYTES_PER_RING_SLOT = 8192,        /* each brings 204 bytes of fences with it */
    LARGE_BYTES_PER_RING_SLOT = 16384, /* fewer entries, so fewer writes to remember */
    RING_SLOTS_MIN = 512,
    RING_SLOTS_MAX = 1 << 20,
    BYTES_PER_ROSTER_SLOT = 65536,
    ROSTER_SLOTS_MIN = 128,
    BYTES_PER_SOURCE = 32768,
    SOURCES_MIN = 64,
    BYTES_PER_LEASE = 16384,
    LEASES_MIN = 512, /* even in a small segment, hundreds of keys may be loaded at once */
    LEASES_MAX = 1 << 16,
    /* a journal of a fifth of a percent: about two thousand rows in 64 MiB */
    BYTES_PER_JOURNAL_BLOCK = 1 << 18,
    JOURNAL_BLOCKS_MIN = 16,
    JOURNAL_BLOCKS_MAX = 4096,
    BYTES_PER_JOURNAL_NAME = 1 << 18,
    JOURNAL_NAMES_MIN = 32,
    JOURNAL_NAMES_MAX = 1024,
    LARGE_ENTRY_BYTES = 512,
    /* below this size, many small pages give better hit ratios than few large ones */
    LARGE_PAGES_FROM = 128 << 20,
    LARGE_ENTRIES_PAGES_FROM = 32 << 20, /* but large entries would leave the end of a small page unused */
    ENTRY_WORDS_BYTES = (ENTRY_HEADER_WORDS + 1) * 8, /* beside key and value, padding included */
    INDEX_WORDS_PER_SKETCH_BLOCK = 32,                /* four counters of 4 bits for each */
    INDEX_WORDS_PER_GHOST_SET = 16,                   /* half a fingerprint of 16 bits for each */
    ENTRIES_PER_PREWARM_SET = 16,                     /* eight records of a word: 4 bytes an entry */
    PREWARM_RECORDS_PER_SET = 8,
    ENTRIES_PER_MAIL_WORD = 4, /* 2 bytes an entry: emptied every few milliseconds */
    MAIL_WORDS_MIN = 1 << 11,
    MAIL_WORDS_MAX = 1 << 17,
};

static uint64_t geometry_clamp(uint64_t v, uint64_t low, uint64_t high)
{
    return v < low ? low : v > high ? high : v;
}

static uint32_t geometry_power_of_two_below(uint64_t v)
{
    uint32_t p = 1;
    while ((uint64_t)p * 2 <= v)
        p *= 2;
    return p;
}

static uint64_t geometry_place_region(uint64_t *at, uint64_t count, uint64_t each, uint64_t alignment)
{
    uint64_t start = (*at + alignment - 1) / alignment * alignment;
    *at = start + count * each;
    return start;
}

static uint64_t geometry_journal_bytes(const struct geometry *g)
{
    return sizeof(struct journal_head) + g->journal_names * sizeof(struct journal_name_slot) +
           g->journal_rows * sizeof(struct journal_row);
}

/* Offsets follow from the counts. Returns the bytes needed. */
static uint64_t geometry_plan_offsets(struct geometry *g)
{
    uint64_t at = HEADER_BYTES;
    g->roster_at = geometry_place_region(&at, g->roster_slots, sizeof(struct roster_slot), 64);
    g->intents_at = geometry_place_region(&at, g->intent_slots, sizeof(struct intent), 64);
    g->range_fences_at = geometry_place_region(&at, 1 << INTENT_BUCKET_BITS, 8, 64);
    g->doubts_at = geometry_place_region(&at, 1 << INTENT_BUCKET_BITS, 8, 64);
    g->journal_at = geometry_place_region(&at, 1, geometry_journal_bytes(g), 64);
    g->dues_at = geometry_place_region(&at, DUE_SLOTS, sizeof(pair128), 64);
    g->sources_at = geometry_place_region(&at, g->source_slots, sizeof(struct source_slot), 64);
    g->leases_at = geometry_place_region(&at, g->lease_slots, sizeof(struct lease_slot), 64);
    g->locks_at = geometry_place_region(&at, lock_slots(g), sizeof(struct lock_slot), 64);
    g->tallies_at = geometry_place_region(&at, TALLY_WORDS, 8, 64);
    g->ring_at = geometry_place_region(&at, g->ring_slots, sizeof(pair128), 64);
    g->fences_at = geometry_place_region(&at, (uint64_t)g->ring_slots * FENCES_PER_RING_SLOT, 8, 64);
    g->own_writes_at = geometry_place_region(&at, (uint64_t)g->ring_slots * FENCES_PER_RING_SLOT, 4, 64);
    g->tag_fences_at = geometry_place_region(&at, g->tag_slots, 8, 64);
    g->own_tags_at = geometry_place_region(&at, g->tag_slots, 4, 64);
    g->index_at = geometry_place_region(&at, g->bucket_count, BUCKET_WORDS * 8, 64);
    g->page_words_at = geometry_place_region(&at, g->page_count, 8, 64);
    g->page_notes_at = geometry_place_region(&at, g->page_count, sizeof(struct page_note), 64);
    g->sketch_at = geometry_place_region(&at, g->sketch_blocks, SKETCH_BLOCK_WORDS * 8, 64);
    g->ghost_at = geometry_place_region(&at, g->ghost_sets, GHOST_SET_WORDS * 8, 64);
    g->prewarm_at = geometry_place_region(&at, g->prewarm_sets > 0, sizeof(struct prewarm), 64);
    g->prewarm_records_at = geometry_place_region(&at, g->prewarm_sets, PREWARM_RECORDS_PER_SET * 8, 64);
    g->prewarm_mail_at = geometry_place_region(&at, g->prewarm_mail_words, 8, 64);
    g->pages_at = geometry_place_region(&at, g->page_count, g->page_bytes, HEADER_BYTES);
    return at;
}

static void geometry_plan_prewarm(struct geometry *g, uint64_t entries)
{
    g->prewarm_entries = (uint32_t)geometry_clamp(entries, 1, UINT32_MAX);
    g->prewarm_sets = (uint32_t)geometry_clamp(entries / ENTRIES_PER_PREWARM_SET, 1, UINT32_MAX);
    g->prewarm_mail_words =
        (uint32_t)geometry_clamp(entries / ENTRIES_PER_MAIL_WORD, MAIL_WORDS_MIN, MAIL_WORDS_MAX);
}

/* Plan this number of pages, and the tables for their entries: one and a half index words for each typical
 * entry. */
static uint64_t geometry_plan_pages(struct geometry *g, uint32_t page_count)
{
    uint64_t entries = g->page_bytes / (g->entry_bytes + ENTRY_WORDS_BYTES);
    uint64_t words = page_count * geometry_clamp(entries * 3 / 2, BUCKET_WORDS, UINT32_MAX);
    g->page_count = page_count;
    g->bucket_count = (uint32_t)(words / BUCKET_WORDS);
    g->sketch_blocks = (uint32_t)geometry_clamp(words / INDEX_WORDS_PER_SKETCH_BLOCK, 1, UINT32_MAX);
    g->ghost_sets = (uint32_t)geometry_clamp(words / INDEX_WORDS_PER_GHOST_SET, 1, UINT32_MAX);
    if (g->prewarm_sets > 0)
        geometry_plan_prewarm(g, page_count * entries);
    return geometry_plan_offsets(g);
}

/* As many pages as fit. */
static void geometry_plan_most_pages(struct geometry *g)
{
    uint32_t fit = 0, too_many = PAGES_MAX;
    while (too_many - fit > 1) {
        uint32_t middle = fit + (too_many - fit) / 2;
        if (geometry_plan_pages(g, middle) <= g->total_bytes)
            fit = middle;
        else
            too_many = middle;
    }
    geometry_plan_pages(g, fit);
}

bool geometry_plan(struct geometry *g, uint64_t total_bytes, uint64_t entry_bytes, bool prewarms)
{
    if (entry_bytes < ENTRY_BYTES_MIN || entry_bytes > ENTRY_BYTES_MAX)
        return false;
    bool large = entry_bytes >= LARGE_ENTRY_BYTES;
    uint64_t ring_slots = total_bytes / (large ? LARGE_BYTES_PER_RING_SLOT : BYTES_PER_RING_SLOT);
    g->total_bytes = total_bytes;
    g->prewarm_sets = prewarms;
    g->prewarm_entries = g->prewarm_mail_words = 0;
    g->entry_bytes = (uint32_t)entry_bytes;
    g->roster_slots =
        (uint32_t)geometry_clamp(total_bytes / BYTES_PER_ROSTER_SLOT, ROSTER_SLOTS_MIN, ROSTER_SLOTS_MAX);
    g->source_slots = (uint32_t)geometry_clamp(total_bytes / BYTES_PER_SOURCE, SOURCES_MIN, SOURCE_SLOTS_MAX);
    g->intent_slots = g->roster_slots * INTENTS_PER_ROSTER_SLOT;
    g->lease_slots = (uint32_t)geometry_clamp(total_bytes / BYTES_PER_LEASE, LEASES_MIN, LEASES_MAX);
    g->ring_slots = geometry_power_of_two_below(geometry_clamp(ring_slots, RING_SLOTS_MIN, RING_SLOTS_MAX));
    g->tag_slots = g->ring_slots;
    g->journal_names =
        (uint32_t)geometry_clamp(total_bytes / BYTES_PER_JOURNAL_NAME, JOURNAL_NAMES_MIN, JOURNAL_NAMES_MAX);
    g->journal_rows = JOURNAL_BLOCK_ROWS * (uint32_t)geometry_clamp(total_bytes / BYTES_PER_JOURNAL_BLOCK,
                                                                    JOURNAL_BLOCKS_MIN, JOURNAL_BLOCKS_MAX);
    g->page_bytes = total_bytes < (large ? LARGE_ENTRIES_PAGES_FROM : LARGE_PAGES_FROM) ? PAGE_BYTES_SMALL
                                                                                        : PAGE_BYTES_MAX;
    geometry_plan_most_pages(g);
    return g->page_count >= 4;
}
