/* relay_buckets.c - see relay_buckets.h. */
#include "relay_buckets.h"

#include "journal.h"

enum {
    MAP_HEADER_BYTES = 2,
    MAP_BITS_MIN = 3, /* a byte */
    MAP_BITS_MAX = 28,
    /* how many words ahead an entry is prefetched, so that little time is spent waiting for memory */
    AHEAD_WORDS = 64,
    LOOK_TRIES_MAX = 1 << 16, /* each failed try means that another process changed the word */
};

/* Positions in the tables have 32 bits: with a cursor further back than this, old and new cannot be told
 * apart. */
#define BACK_MAX (1ull << 31)

/* ---- what is owed ---- */

/* Is a bucket's last own record after the cursor? `tail` was read after `own`. A record's word is raised
 * before the tail moves, so a word is at most one ahead of the tail. A word that was not raised for 2^32
 * records may look newer than it is: then too much is evicted, never too little. If a peer reads a map so
 * slowly that its cursor is more than 2^32 records back, it is sent every bucket. */
static bool buckets_came_after(uint32_t own, uint64_t cursor, uint64_t tail)
{
    return tail - cursor > UINT32_MAX || own - (uint32_t)cursor - 1 <= (uint32_t)(tail - cursor);
}

/* One bit for each of eight buckets. */
static unsigned char buckets_eight_after(const struct attachment *a, const a32 *own, uint64_t cursor)
{
    uint32_t seen[8];
    unsigned int bits = 0;
    for (int i = 0; i < 8; i++)
        seen[i] = load32_acquire(&own[i]);
    uint64_t tail = ring_tail(a);
    for (int i = 0; i < 8; i++)
        bits |= (unsigned int)buckets_came_after(seen[i], cursor, tail) << i;
    return (unsigned char)bits;
}

static bool buckets_any_after(const struct attachment *a, const a32 *own, uint32_t count, uint64_t cursor)
{
    for (uint32_t i = 0; i < count; i += 8)
        if (buckets_eight_after(a, &own[i], cursor))
            return true;
    return false;
}

static uint32_t buckets_bucket_count(const struct attachment *a)
{
    return a->geo.ring_slots * FENCES_PER_RING_SLOT;
}

enum owed relay_owes(const struct attachment *a, uint64_t cursor)
{
    uint64_t tail = ring_tail(a);
    if (cursor > tail || tail - cursor > BACK_MAX)
        return OWED_ALL;
    if (load_acquire(&a->header->clear_own) > cursor)
        return OWED_CLEAR;
    bool any = buckets_any_after(a, a->own_tags, a->geo.tag_slots, cursor) ||
               buckets_any_after(a, a->own_writes, buckets_bucket_count(a), cursor);
    return any ? OWED_BUCKETS : OWED_NOTHING;
}

enum wire_kind relay_kind_owed(const struct attachment *a, enum owed owed)
{
    bool in_doubt = doubt_is_open(a); /* read after relay_owes has read the announced records */
    if (owed == OWED_BUCKETS)
        return in_doubt ? WIRE_BUCKETS : WIRE_BUCKETS_KNOWN;
    if (owed == OWED_CLEAR && !in_doubt)
        return WIRE_CLEAR;
    return in_doubt ? WIRE_ALL : WIRE_ALL_KNOWN;
}

/* ---- the map ---- */

static uint32_t buckets_log2_of(uint32_t power_of_two) { return (uint32_t)__builtin_ctz(power_of_two); }

uint32_t relay_map_bytes(const struct attachment *a)
{
    return MAP_HEADER_BYTES + (a->geo.tag_slots + buckets_bucket_count(a)) / 8;
}

static unsigned char buckets_map_byte(const struct attachment *a, uint64_t cursor, uint32_t at)
{
    if (at == 0)
        return (unsigned char)buckets_log2_of(a->geo.tag_slots);
    if (at == 1)
        return (unsigned char)buckets_log2_of(buckets_bucket_count(a));
    uint32_t n = (at - MAP_HEADER_BYTES) * 8;
    return n < a->geo.tag_slots ? buckets_eight_after(a, &a->own_tags[n], cursor)
                                : buckets_eight_after(a, &a->own_writes[n - a->geo.tag_slots], cursor);
}

uint32_t relay_map_pack(const struct attachment *a, uint64_t cursor, uint32_t at, unsigned char *out,
                        uint32_t room)
{
    uint32_t n = 0, bytes = relay_map_bytes(a);
    for (; n < room && at < bytes && n < bytes - at; n++)
        out[n] = buckets_map_byte(a, cursor, at + n);
    return n;
}

static bool buckets_may_be_log2(uint32_t bits) { return bits >= MAP_BITS_MIN && bits <= MAP_BITS_MAX; }

bool relay_map_read(const unsigned char *in, uint64_t bytes, struct bucket_map *map)
{
    if (bytes < MAP_HEADER_BYTES || !buckets_may_be_log2(in[0]) || !buckets_may_be_log2(in[1]))
        return false;
    uint64_t tag_bytes = 1ull << in[0] >> 3, key_bytes = 1ull << in[1] >> 3;
    map->known = false;
    map->tags = (struct bitmap){in + MAP_HEADER_BYTES, in[0]};
    map->keys = (struct bitmap){in + MAP_HEADER_BYTES + tag_bytes, in[1]};
    return bytes == MAP_HEADER_BYTES + tag_bytes + key_bytes;
}

static bool buckets_listed(const struct bitmap *b, uint64_t hash)
{
    uint64_t n = hash >> (64 - b->log2);
    return (b->bytes[n / 8] >> n % 8) & 1;
}

/* ---- fences ---- */

/* Map and table divide the hashes into powers of two. A cell is a part of the finer one of the two, so it has
 * one bit and one fence. */
static uint32_t buckets_cell_bits(uint32_t log2, const struct bitmap *b)
{
    return b->log2 > log2 ? b->log2 : log2;
}

/* Raise the fences of cells from `at` on whose bit is set. Returns the cell to go on with: all of them are
 * done, or no step is left. Cells that need no look are skipped: the other zeros of a byte, the other cells
 * of a fence. */
static uint64_t buckets_raise_some(struct attachment *a, a64 *fences, uint32_t log2, const struct bitmap *b,
                                   uint64_t sequence, uint64_t at, uint32_t *steps)
{
    uint32_t cells = buckets_cell_bits(log2, b), bit_shift = cells - b->log2, fence_shift = cells - log2;
    for (; at < 1ull << cells && *steps > 0; --*steps) {
        uint64_t n = at >> bit_shift;
        unsigned int byte = b->bytes[n / 8];
        if (!byte) {
            at = (n / 8 + 1) * 8 << bit_shift;
        } else if (!(byte >> n % 8 & 1)) {
            at = (n + 1) << bit_shift;
        } else {
            fence_raise_one(a, &fences[at >> fence_shift], sequence);
            at = ((at >> fence_shift) + 1) << fence_shift;
        }
    }
    return at < 1ull << cells ? at : 1ull << cells;
}

/* One pass: the tags' cells, then the keys'. */
static uint64_t buckets_raise_listed(struct attachment *a, const struct bucket_map *map, uint64_t sequence,
                                     uint64_t at, uint32_t *steps)
{
    uint32_t tag_log2 = buckets_log2_of(a->geo.tag_slots),
             key_log2 = buckets_log2_of(buckets_bucket_count(a));
    uint64_t tag_cells = 1ull << buckets_cell_bits(tag_log2, &map->tags);
    if (at < tag_cells) {
        at = buckets_raise_some(a, a->tag_fences, tag_log2, &map->tags, sequence, at, steps);
        if (at == tag_cells)
            fence_raise_one(a, &a->header->tags_moved,
                            sequence); /* FENCE: a process that sees this also sees the tags' fences */
    }
    return at < tag_cells ? at
                          : tag_cells + buckets_raise_some(a, a->fences, key_log2, &map->keys, sequence,
                                                           at - tag_cells, steps);
}

static bool buckets_record_begins(struct attachment *a, uint16_t source, bool known, uint64_t *sequence)
{
    ring_mark(a, clock_ms(a));
    if (!known)
        doubt_raise_all(a); /* a map does not say which of its keys have an unknown outcome */
    *sequence = ring_append(a, &(struct record){.hash = EVERY_KEY, .kind = RECORD_KEY, .source = source});
    return *sequence != RING_CORRUPT;
}

bool relay_map_fence(struct attachment *a, uint16_t source, const struct bucket_map *map, uint32_t steps_max,
                     struct map_fencing *f)
{
    uint32_t steps = steps_max ? steps_max : 1;
    uint64_t pass = (1ull << buckets_cell_bits(buckets_log2_of(a->geo.tag_slots), &map->tags)) +
                    (1ull << buckets_cell_bits(buckets_log2_of(buckets_bucket_count(a)), &map->keys));
    uint64_t at = f->at < 2 * pass ? f->at : 0, first = at < pass ? 0 : pass;
    if (at == first && !buckets_record_begins(a, source, map->known, &f->sequence))
        return false;
    f->at = first + buckets_raise_listed(a, map, f->sequence, at - first, &steps);
    if (f->at == 2 * pass) {
        fence_seq_cst(); /* DEKKER: a later publisher sees the fences */
        *f = (struct map_fencing){.sequence = f->sequence << 1};
    }
    return true;
}

/* ---- evicting ---- */

/* Where the entry of a word begins; NULL: the word names none. */
static const a64 *buckets_entry_named(const struct attachment *a, uint64_t word)
{
    uint32_t page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS, off = index_word_off(word);
    return word && page < a->geo.page_count && entry_fits_at(a, off) ? page_at(a, page, off) : NULL;
}

/* Does a word name an entry that is listed? Only the entry's hash is read, because most entries are not
 * listed. The entry may be moved meanwhile: see index_look. */
static bool buckets_names_listed(const struct attachment *a, const a64 *at, const struct bitmap *keys,
                                 uint64_t *hash)
{
    for (int tries = 0; tries < LOOK_TRIES_MAX; tries++) {
        uint64_t word = load_acquire(at); /* PUBLISH */
        const a64 *entry = buckets_entry_named(a, word);
        if (!entry)
            return false;
        *hash = load_relaxed(&entry[ENTRY_HASH]);
        fence_acquire(); /* PAGE */
        if (((load_relaxed(at) ^ word) & ~INDEX_MARKS) == 0)
            break;
    }
    return buckets_listed(keys, *hash);
}

static uint32_t buckets_evict(struct attachment *a, uint16_t source, a64 *word, uint64_t hash,
                              uint64_t version)
{
    bool killed = index_kill_word_unless(a, word, hash, version, index_spares_local, NULL);
    if (killed && journal_may_want(a, hash))
        journal_note(a, &(struct journal_event){.hash = hash,
                                                .kind = JOURNAL_EVICTED,
                                                .why = WHY_REPAIR,
                                                .sequence = version >> 1,
                                                .source = source});
    return killed;
}

uint64_t relay_map_evict(struct attachment *a, uint16_t source, const struct bucket_map *map,
                         uint64_t version, uint64_t from, uint32_t words_max, uint32_t *evicted)
{
    uint64_t words = (uint64_t)a->geo.bucket_count * BUCKET_WORDS, hash;
    uint64_t end = from < words && words - from > words_max ? from + words_max : words;
    uint32_t killed = 0;
    for (uint64_t i = from; i < end; i++) {
        if (end - i > AHEAD_WORDS)
            __builtin_prefetch(buckets_entry_named(a, load_relaxed(&a->index[i + AHEAD_WORDS])));
        if (buckets_names_listed(a, &a->index[i], &map->keys, &hash))
            killed += buckets_evict(a, source, &a->index[i], hash, version);
    }
    count(a, STAT_INVALIDATED, killed);
    count(a, STAT_OVEREVICTED, killed);
    *evicted += killed;
    if (end < words)
        return end;
    count(a, STAT_APPLIED, 1);
    ring_append(a, &(struct record){
                       .hash = EVERY_KEY, .kind = RECORD_KEY, .source = source, .digest = EVERY_KEY_DONE});
    return 0;
}
