/* evict.c - see evict.h. */
#include "evict.h"

enum {
    START_DRAINING_AT = PAGE_BYTES / 4, /* of the open page; the rest of it is time and room for survivors */
    DRAIN_PER_BYTE = 4,                 /* so 64 KiB are drained within 16 KiB of writes */
    DRAIN_PER_WRITE = 512,
    TURNS_MAX = 4,
};

void entry_copy(struct attachment *a, const struct entry_ref *e, const struct place *place)
{
    a64 *to = page_at(a, place->page, place->off);
    uint32_t words = entry_size(e) / 8;
    for (uint32_t i = 0; i < words; i++)
        store_relaxed(&to[i], load_relaxed(&e->at[i]));
}

static bool copy_forward(struct attachment *a, const struct entry_ref *e, a64 *at, uint64_t word, uint32_t bytes)
{
    struct place place;
    if (!pages_fit(a, bytes, &place))
        return false;
    entry_copy(a, e, &place);
    pages_commit(a, bytes);
    a->survivors += bytes;
    count(a, STAT_REINSERTED, 1);
    index_move(at, word, &place); /* if it fails, the word is another entry's now: the copy is dead bytes */
    return true;
}

static void drain_entry(struct attachment *a, const struct entry_ref *e, uint32_t bytes, uint64_t now_ms)
{
    a64 *at;
    uint64_t word;
    if (!index_names(a, e, &at, &word))
        return;
    bool current = entry_valid(a, e) && !entry_expired(e, now_ms);
    /* The spans of a large value fell out before it: there is nothing to keep. */
    bool keep = current && !entry_spans(e) && !(word & INDEX_PENDING) && policy_keeps(word, bytes, a->survivors);
    if (keep && copy_forward(a, e, at, word, bytes))
        return;
    /* A pending word here belongs to a dead process: its event is in the ring, its value may be dropped. */
    if (index_kill(at, word) && current)
        count(a, STAT_EVICTED, 1);
}

/* Is the page that we drain still ours? Whoever found its former owner dead, and was slow to say so, may have taken it:
 * a holder of the same slot leaves the same word. Then it is theirs, with what they write into it. */
static bool still_draining(struct attachment *a, uint64_t word)
{
    if (page_state(word) == PAGE_DRAIN && page_owner(word) == a->slot)
        return true;
    a->next_page = NO_PAGE;
    a->drain_off = a->drain_end;
    return false;
}

static void drain(struct attachment *a, uint32_t budget)
{
    uint64_t now_ms = clock_ms(a);
    uint64_t word = load_acquire(&a->page_table[a->next_page].word), generation = page_generation(word);
    if (!still_draining(a, word))
        return;
    while (a->drain_off < a->drain_end) {
        struct entry_ref e;
        e.place.generation = generation;
        if (!entry_read(a, a->next_page, a->drain_off, &e)) {
            a->drain_off = a->drain_end; /* garbage: words that point behind it dangle from the next generation on */
            return;
        }
        uint32_t bytes = entry_size(&e);
        drain_entry(a, &e, bytes, now_ms);
        a->drain_off += bytes;
        if (bytes >= budget)
            return;
        budget -= bytes;
    }
}

static bool may_take(const struct attachment *a, uint64_t word)
{
    switch (page_state(word)) {
    case PAGE_FREE:
    case PAGE_SEALED:
        return true;
    case PAGE_OPEN:
    case PAGE_DRAIN:
        return page_owner(word) != a->slot && !roster_alive(a, page_owner(word));
    default:
        return true; /* garbage in the state: the page belongs to nobody */
    }
}

static bool claim_next(struct attachment *a)
{
    for (uint32_t tries = 0; tries < 2 * a->geo.page_count; tries++) {
        uint32_t page = (uint32_t)(add_relaxed(&a->header->page_hand, 1) % a->geo.page_count);
        uint64_t word = load_acquire(&a->page_table[page].word);
        if (may_take(a, word) && pages_take(a, page, word))
            return true;
    }
    return false;
}

/* The open page is full (or there is none yet): the drained next page takes its place. */
static bool turn(struct attachment *a)
{
    if (a->next_page == NO_PAGE && !claim_next(a)) {
        pages_seal_open(a); /* all others are held by the living: go round in the one that we have */
        if (!claim_next(a))
            return false;
    }
    drain(a, UINT32_MAX);
    pages_seal_open(a);
    return a->next_page != NO_PAGE && pages_open_next(a);
}

static void drain_a_little(struct attachment *a, uint32_t bytes)
{
    if (a->next_page == NO_PAGE && a->open_page != NO_PAGE && a->open_off >= START_DRAINING_AT)
        claim_next(a);
    if (a->next_page != NO_PAGE && a->drain_off < a->drain_end)
        drain(a, bytes * DRAIN_PER_BYTE + DRAIN_PER_WRITE);
}

bool evict_make_room(struct attachment *a, uint32_t bytes, struct place *place)
{
    drain_a_little(a, bytes);
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        if (pages_fit(a, bytes, place))
            return true;
        if (!turn(a) && a->next_page == NO_PAGE && a->open_page == NO_PAGE && turns + 1 == TURNS_MAX)
            return false;
    }
    return pages_fit(a, bytes, place);
}
