/* span.c - see span.h. */
#include "span.h"

enum { SPAN_PAGE_SHIFT = 44, SPAN_OFF_SHIFT = 32, SPAN_OFF_BITS = 0xfff };

static uint64_t span_word(const struct place *p)
{
    return (uint64_t)p->page << SPAN_PAGE_SHIFT | (uint64_t)(p->off / ENTRY_UNIT) << SPAN_OFF_SHIFT | (uint32_t)p->generation;
}

static bool write_one(struct attachment *a, const unsigned char *from, uint32_t bytes, uint64_t *word)
{
    struct place at;
    if (!evict_make_room(a, entry_bytes(0, 0, bytes), &at))
        return false;
    a64 *e = page_at(a, at.page, at.off);
    store_relaxed(&e[ENTRY_HASH], 0);
    store_relaxed(&e[ENTRY_VERSION], 0);
    store_relaxed(&e[ENTRY_EXPIRES_FLAGS], 0);
    store_relaxed(&e[ENTRY_STORED_LENGTH], bytes);
    store_relaxed(&e[ENTRY_SIZES], 0);
    racing_write(e + ENTRY_HEADER_WORDS, from, bytes);
    pages_commit(a, entry_bytes(0, 0, bytes));
    *word = span_word(&at);
    return true;
}

bool span_write(struct attachment *a, const void *value, uint32_t bytes)
{
    const unsigned char *from = value;
    for (uint32_t i = 0; bytes > 0 && i < SPANS_MAX; i++) {
        uint32_t n = bytes < SPAN_BYTES ? bytes : SPAN_BYTES;
        if (!write_one(a, from, n, &a->span_words[i]))
            return false;
        from += n;
        bytes -= n;
    }
    return bytes == 0;
}

static bool span_is_there(const struct attachment *a, uint64_t word)
{
    uint32_t page = (uint32_t)(word >> SPAN_PAGE_SHIFT);
    return page < a->geo.page_count && (uint32_t)page_generation(load_acquire(&a->page_table[page].word)) == (uint32_t)word;
}

bool span_whole(const struct attachment *a, const struct entry_ref *e)
{
    for (uint32_t i = 0; i < span_count(e->value_bytes); i++)
        if (!span_is_there(a, load_relaxed(&entry_value(e)[i])))
            return false;
    return true;
}

static bool read_one(const struct attachment *a, uint64_t word, unsigned char *to, uint32_t bytes)
{
    uint32_t page = (uint32_t)(word >> SPAN_PAGE_SHIFT), off = ((word >> SPAN_OFF_SHIFT) & SPAN_OFF_BITS) * ENTRY_UNIT;
    if (page >= a->geo.page_count || off + entry_bytes(0, 0, bytes) > PAGE_BYTES)
        return false;
    const a64 *page_word_at = &a->page_table[page].word;
    uint64_t before = load_acquire(page_word_at); /* PAGE */
    if ((uint32_t)page_generation(before) != (uint32_t)word)
        return false;
    racing_read(to, page_at(a, page, off) + ENTRY_HEADER_WORDS, bytes);
    fence_acquire(); /* PAGE */
    return page_generation(load_relaxed(page_word_at)) == page_generation(before);
}

bool span_read(const struct attachment *a, const struct entry_ref *e, void *to)
{
    unsigned char *at = to;
    uint32_t left = e->value_bytes;
    for (uint32_t i = 0; left > 0; i++) {
        uint32_t n = left < SPAN_BYTES ? left : SPAN_BYTES;
        if (!read_one(a, load_relaxed(&entry_value(e)[i]), at, n))
            return false;
        at += n;
        left -= n;
    }
    return true;
}
