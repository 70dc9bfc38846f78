/* torture_geometry.c - how segments of any size are divided, for entries of any size.
 *
 * A plan is a function of three numbers, so it is judged by itself, without a segment:
 *
 *   Regions follow each other in the order of layout.h. Each begins at the first aligned byte after the one before it.
 *   One page more, with its tables, would not fit.
 *   Every count is within what the words of the segment can name, and every table has room for something.
 *   Numbers that make no segment are refused.
 *
 *   torture_geometry [seconds]
 */
#include "geometry.h"
#include "torture.h"

enum { PLANS, REFUSED };
enum { MIB = 1 << 20 };

struct region {
    const char *name;
    uint64_t at, bytes, alignment;
};

static void check_regions(const struct geometry *g)
{
    uint64_t buckets = (uint64_t)g->ring_slots * FENCES_PER_RING_SLOT, end = HEADER_BYTES;
    const struct region regions[] = {
        {"roster", g->roster_at, g->roster_slots * sizeof(struct roster_slot), 64},
        {"intents", g->intents_at, g->intent_slots * sizeof(struct intent), 64},
        {"range fences", g->range_fences_at, 8 << INTENT_BUCKET_BITS, 64},
        {"doubts", g->doubts_at, 8 << INTENT_BUCKET_BITS, 64},
        {"journal", g->journal_at,
         sizeof(struct journal_head) + g->journal_names * sizeof(struct journal_name_slot) + g->journal_rows * sizeof(struct journal_row), 64},
        {"dues", g->dues_at, DUE_SLOTS * sizeof(pair128), 64},
        {"sources", g->sources_at, g->source_slots * sizeof(struct source_slot), 64},
        {"leases", g->leases_at, g->lease_slots * sizeof(struct lease_slot), 64},
        {"locks", g->locks_at, lock_slots(g) * sizeof(struct lock_slot), 64},
        {"tallies", g->tallies_at, TALLY_WORDS * 8ull, 64},
        {"ring", g->ring_at, g->ring_slots * sizeof(pair128), 64},
        {"fences", g->fences_at, buckets * 8, 64},
        {"own writes", g->own_writes_at, buckets * 4, 64},
        {"tag fences", g->tag_fences_at, g->tag_slots * 8ull, 64},
        {"own tags", g->own_tags_at, g->tag_slots * 4ull, 64},
        {"index", g->index_at, (uint64_t)g->bucket_count * BUCKET_WORDS * 8, 64},
        {"page words", g->page_words_at, g->page_count * 8ull, 64},
        {"page notes", g->page_notes_at, g->page_count * sizeof(struct page_note), 64},
        {"sketch", g->sketch_at, (uint64_t)g->sketch_blocks * SKETCH_BLOCK_WORDS * 8, 64},
        {"ghost", g->ghost_at, (uint64_t)g->ghost_sets * GHOST_SET_WORDS * 8, 64},
        {"prewarm", g->prewarm_at, (g->prewarm_sets > 0) * sizeof(struct prewarm), 64},
        {"records", g->prewarm_records_at, g->prewarm_sets * 64ull, 64},
        {"mailbox", g->prewarm_mail_at, g->prewarm_mail_words * 8ull, 64},
        {"pages", g->pages_at, (uint64_t)g->page_count * g->page_bytes, HEADER_BYTES},
    };
    for (size_t n = 0; n < sizeof regions / sizeof *regions; n++) {
        const struct region *r = &regions[n];
        REQUIRE(r->bytes > 0 || g->prewarm_sets == 0, "%s: an empty table", r->name);
        REQUIRE(r->at % r->alignment == 0 && r->at >= end && r->at - end < r->alignment, "%s at %llu, after %llu", r->name,
                (unsigned long long)r->at, (unsigned long long)end);
        end = r->at + r->bytes;
    }
    REQUIRE(end <= g->total_bytes, "%llu bytes of %llu", (unsigned long long)end, (unsigned long long)g->total_bytes);
    /* Of a page and its tables: words of the index, a few bytes for each, and the gaps that they may move. */
    uint64_t of_a_page = g->page_bytes + g->page_bytes / ENTRY_BYTES_MIN * 3 / 2 * (16 + 6) + 2 * HEADER_BYTES;
    REQUIRE(g->page_count == PAGES_MAX - 1 || g->total_bytes - end < of_a_page, "%llu bytes are left over",
            (unsigned long long)(g->total_bytes - end));
}

static void check_counts(const struct geometry *g)
{
    uint64_t words = (uint64_t)g->bucket_count * BUCKET_WORDS;
    REQUIRE(g->roster_slots >= 1 && g->roster_slots <= ROSTER_SLOTS_MAX, "%u roster slots", g->roster_slots);
    REQUIRE(g->source_slots >= 1 && g->source_slots <= SOURCE_SLOTS_MAX, "%u source slots", g->source_slots);
    REQUIRE(g->intent_slots == g->roster_slots * INTENTS_PER_ROSTER_SLOT, "%u intents", g->intent_slots);
    REQUIRE(g->page_count >= 4 && g->page_count < PAGES_MAX, "%u pages", g->page_count);
    REQUIRE(g->ring_slots >= 512 && g->ring_slots <= 1 << 20, "%u ring slots", g->ring_slots);
    REQUIRE(g->lease_slots >= 512 && g->lease_slots <= 1 << 16, "%u leases", g->lease_slots);
    REQUIRE((g->ring_slots & (g->ring_slots - 1)) == 0 && g->tag_slots == g->ring_slots, "%u ring slots", g->ring_slots);
    REQUIRE(g->lease_slots - lock_slots(g) * LEASES_PER_LOCK < LEASES_PER_LOCK, "%u leases, %u locks", g->lease_slots, lock_slots(g));
    uint64_t journal = g->dues_at - g->journal_at;
    REQUIRE(g->journal_rows >= 128 && g->journal_rows <= 1 << 15 && g->journal_rows % JOURNAL_BLOCK_ROWS == 0, "%u rows", g->journal_rows);
    REQUIRE(g->journal_names >= 32 && g->journal_names <= 1024, "%u names", g->journal_names);
    REQUIRE(g->total_bytes < 8 * MIB || journal * 1000 < g->total_bytes * 3, "a journal of %llu bytes", (unsigned long long)journal);
    REQUIRE(words >= g->page_count, "%u pages, %llu words", g->page_count, (unsigned long long)words);
    REQUIRE(g->sketch_blocks == 1 || (uint64_t)(g->sketch_blocks - 1) * 32 <= words, "%u sketch blocks", g->sketch_blocks);
    REQUIRE((uint64_t)(g->sketch_blocks + 1) * 32 > words, "%u sketch blocks", g->sketch_blocks);
    REQUIRE((uint64_t)(g->ghost_sets + 1) * 16 > words, "%u ghost sets", g->ghost_sets);
}

static void check_plan_of(uint64_t total_bytes, uint64_t entry_bytes, bool prewarms)
{
    struct geometry g = {0};
    REQUIRE(geometry_plan(&g, total_bytes, entry_bytes, prewarms), "no segment of %llu bytes for entries of %llu",
            (unsigned long long)total_bytes, (unsigned long long)entry_bytes);
    REQUIRE(g.total_bytes == total_bytes && g.entry_bytes == entry_bytes, "another segment than asked for");
    check_regions(&g);
    check_counts(&g);
    REQUIRE((g.prewarm_sets > 0) == prewarms && (g.prewarm_mail_words > 0) == prewarms, "%u sets for pre-warming", g.prewarm_sets);
    REQUIRE((uint64_t)g.prewarm_sets * 8 <= g.prewarm_entries / 2 + 8, "%u sets for %u entries", g.prewarm_sets, g.prewarm_entries);
    tally(PLANS);
}

static void check_plan(uint64_t total_bytes, uint64_t entry_bytes)
{
    check_plan_of(total_bytes, entry_bytes, false);
    if (total_bytes >= SEGMENT_BYTES_MIN)
        check_plan_of(total_bytes, entry_bytes, true);
}

static void check_refused(uint64_t total_bytes, uint64_t entry_bytes)
{
    struct geometry g = {0};
    REQUIRE(!geometry_plan(&g, total_bytes, entry_bytes, false), "a segment of %llu bytes for entries of %llu",
            (unsigned long long)total_bytes, (unsigned long long)entry_bytes);
    tally(REFUSED);
}

/* The least segment has four pages. What is smaller is refused, what is larger is not. */
static void check_least(void)
{
    struct geometry g = {0};
    uint64_t bytes = 0;
    for (; !geometry_plan(&g, bytes, ENTRY_BYTES_TYPICAL, false); bytes += PAGE_BYTES_SMALL / 2)
        check_refused(bytes, ENTRY_BYTES_TYPICAL);
    REQUIRE(g.page_count == 4, "the least segment has %u pages", g.page_count);
    for (; bytes < 2 * MIB; bytes += 4093)
        check_plan(bytes, ENTRY_BYTES_TYPICAL);
}

/* From a size on, pages are large: at that size, and not a byte below it. */
static void check_pages_are_large_from(uint64_t total_bytes, uint64_t entry_bytes)
{
    struct geometry g = {0};
    geometry_plan(&g, total_bytes - 1, entry_bytes, false);
    REQUIRE(g.page_bytes == PAGE_BYTES_SMALL, "pages of %u bytes", g.page_bytes);
    geometry_plan(&g, total_bytes, entry_bytes, false);
    REQUIRE(g.page_bytes == PAGE_BYTES_MAX, "pages of %u bytes", g.page_bytes);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_geometry");
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    static const uint64_t wrong[] = {0, ENTRY_BYTES_MIN - 1, ENTRY_BYTES_MAX + 1, UINT32_MAX, 1ull << 32, UINT64_MAX};
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++)
        check_refused(64 * MIB, wrong[n]);
    check_least();
    check_pages_are_large_from(128 * MIB, ENTRY_BYTES_MIN);
    check_pages_are_large_from(128 * MIB, 511);
    check_pages_are_large_from(32 * MIB, 512);
    check_pages_are_large_from(32 * MIB, ENTRY_BYTES_MAX);
    for (uint64_t bytes = 1 * MIB; bytes <= 1ull << 40; bytes *= 2)
        for (uint64_t entry = ENTRY_BYTES_MIN; entry <= ENTRY_BYTES_MAX; entry *= 2)
            check_plan(bytes, entry);
    for (double until = seconds_now() + torture.seconds / 8; seconds_now() < until;)
        check_plan((MIB + chance_next(&c) % MIB) << chance_below(&c, 16),
                   ENTRY_BYTES_MIN + chance_next(&c) % ((ENTRY_BYTES_MAX + 1 - ENTRY_BYTES_MIN) >> chance_below(&c, 12)));
    printf("geometry: %llu plans, %llu refused\n", (unsigned long long)tallied(PLANS), (unsigned long long)tallied(REFUSED));
    return 0;
}
