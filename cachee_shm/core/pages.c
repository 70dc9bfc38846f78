/* pages.c - page ownership. See pages.h. */
#include "pages.h"

static uint64_t open_word(const struct attachment *a) { return page_word(a->open_generation, a->slot, PAGE_OPEN); }

bool pages_fit(const struct attachment *a, uint32_t bytes, struct place *place)
{
    if (a->open_page == NO_PAGE || bytes > PAGE_BYTES - a->open_off)
        return false;
    if (load_relaxed(&a->page_table[a->open_page].word) != open_word(a))
        return false; /* garbage gave our page away: whoever has it now writes into it */
    place->page = a->open_page;
    place->off = a->open_off;
    place->generation = a->open_generation;
    return true;
}

void pages_commit(struct attachment *a, uint32_t bytes)
{
    a->open_off += bytes;
    store_release(&a->page_table[a->open_page].watermark, a->open_off); /* WATERMARK */
}

void pages_seal_open(struct attachment *a)
{
    uint64_t word = open_word(a);
    if (a->open_page != NO_PAGE)
        cas(&a->page_table[a->open_page].word, &word, page_word(a->open_generation, 0, PAGE_SEALED));
    a->open_page = NO_PAGE;
}

bool pages_take(struct attachment *a, uint32_t page, uint64_t word)
{
    struct page_slot *p = &a->page_table[page];
    if (!cas(&p->word, &word, page_word(page_generation(word), a->slot, PAGE_DRAIN)))
        return false;
    uint64_t watermark = load_acquire(&p->watermark); /* WATERMARK */
    a->next_page = page;
    a->drain_off = 0;
    a->drain_end = page_state(word) == PAGE_FREE ? 0 : watermark < PAGE_BYTES ? (uint32_t)watermark : PAGE_BYTES;
    a->survivors = 0;
    return true;
}

bool pages_open_next(struct attachment *a)
{
    struct page_slot *p = &a->page_table[a->next_page];
    uint64_t word = load_relaxed(&p->word), generation = page_generation(word) + 1;
    bool mine = page_state(word) == PAGE_DRAIN && page_owner(word) == a->slot;
    if (!mine || !cas(&p->word, &word, page_word(generation, a->slot, PAGE_OPEN))) {
        a->next_page = NO_PAGE; /* somebody thought us dead, or garbage: it is theirs now */
        return false;
    }
    fence_release(); /* PAGE: the new generation is seen before any new byte */
    store_relaxed(&p->watermark, 0);
    a->open_page = a->next_page;
    a->open_off = 0;
    a->open_generation = generation & PAGE_GEN_BITS;
    a->next_page = NO_PAGE;
    return true;
}

void pages_seal_slot(struct attachment *a, uint32_t slot)
{
    for (uint32_t page = 0; page < a->geo.page_count; page++) {
        a64 *at = &a->page_table[page].word;
        uint64_t word = load_acquire(at);
        bool held = page_state(word) == PAGE_OPEN || page_state(word) == PAGE_DRAIN;
        if (held && page_owner(word) == slot)
            cas(at, &word, page_word(page_generation(word), 0, PAGE_SEALED));
    }
}
