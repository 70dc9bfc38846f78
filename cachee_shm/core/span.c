/* span.c - see span.h. */
#include "span.h"

static uint64_t span_piece_word(uint32_t number, uint32_t bytes)
{
    return (uint64_t)number << ENTRY_STORED_SHIFT | ENTRY_PIECE | bytes;
}

static bool span_write_one(struct attachment *a, uint64_t hash, uint32_t number, const unsigned char *from,
                           uint32_t bytes, uint64_t ends_ms)
{
    struct place at;
    if (!evict_make_room(a, entry_bytes(0, 0, bytes), &at))
        return false;
    a64 *e = page_at(a, at.page, at.off);
    store_relaxed(&e[ENTRY_HASH], hash);
    store_relaxed(&e[ENTRY_VERSION], 0);
    store_relaxed(&e[ENTRY_EXPIRES_FLAGS], 0);
    store_relaxed(&e[ENTRY_STORED], span_piece_word(number, bytes));
    racing_write(e + ENTRY_HEADER_WORDS, from, bytes);
    pages_commit(a, &at, entry_bytes(0, 0, bytes), 0, ends_ms);
    a->span_words[number] = span_word(&at);
    return true;
}

bool span_write(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes, uint64_t ends_ms)
{
    const unsigned char *from = value;
    a->span_hash = hash;
    memset(a->span_words, 0, span_count(a, bytes) * sizeof a->span_words[0]);
    for (uint32_t i = 0; bytes > 0 && i < SPANS_MAX; i++) {
        uint32_t n = bytes < a->span_bytes ? bytes : a->span_bytes;
        if (!span_write_one(a, hash, i, from, n, ends_ms))
            return false;
        from += n;
        bytes -= n;
    }
    return bytes == 0;
}

/* Is this the span that the head means? The generation in the span word is not enough: garbage could have
 * set a page word back. */
static bool span_is_piece(const a64 *span, const struct entry_ref *e, uint32_t number, uint32_t bytes)
{
    return load_relaxed(&span[ENTRY_HASH]) == e->hash &&
           load_relaxed(&span[ENTRY_STORED]) == span_piece_word(number, bytes);
}

static bool span_read_at(const struct attachment *a, const struct entry_ref *e, uint64_t word,
                         uint32_t number, unsigned char *to, uint32_t bytes)
{
    uint32_t page = span_page(word), off = span_off(word);
    if (page >= a->geo.page_count || off + entry_bytes(0, 0, bytes) > a->geo.page_bytes)
        return false;
    const a64 *page_word_at = &a->page_words[page], *span = page_at(a, page, off);
    uint64_t before = load_acquire(page_word_at); /* PAGE */
    if (!span_same_life(before, word) || !span_is_piece(span, e, number, bytes))
        return false;
    racing_read(to, span + ENTRY_HEADER_WORDS, bytes);
    fence_acquire(); /* PAGE */
    return page_generation(load_relaxed(page_word_at)) == page_generation(before);
}

/* Between the read of its word and the copy, a span may be moved to another page, and its old page may
 * begin another life. The word is swapped before that, so it has changed by now: look again. */
static bool span_read_one(const struct attachment *a, const struct entry_ref *e, uint32_t number,
                          unsigned char *to, uint32_t bytes)
{
    const a64 *at = &entry_value(e)[number];
    uint64_t word = load_acquire(at); /* PUBLISH */
    for (int tries = 0; tries < SPAN_TRIES_MAX; tries++) {
        uint64_t tried = word;
        if (span_read_at(a, e, word, number, to, bytes))
            return true;
        word = load_acquire(at); /* PUBLISH */
        if (word == tried)
            return false;
    }
    return false;
}

bool span_read(const struct attachment *a, const struct entry_ref *e, void *to)
{
    unsigned char *at = to;
    uint32_t left = e->value_bytes;
    for (uint32_t i = 0; left > 0; i++) {
        uint32_t n = left < a->span_bytes ? left : a->span_bytes;
        if (!span_read_one(a, e, i, at, n))
            return false;
        at += n;
        left -= n;
    }
    return true;
}
