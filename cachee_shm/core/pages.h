/* pages.h - value memory: pages that are filled by one process, sealed, drained and filled again.
 *
 *   FREE, or SPARE of another ── take ──▶ SPARE(me) ── open ──▶ OPEN(me), generation + 1 ── full ──▶ SEALED
 *   SEALED ── take ──▶ DRAIN(me) ── every entry moved or dropped ──▶ SPARE(me)
 *   SEALED, half empty ── reopen ──▶ OPEN(me), same generation
 *   SEALED of the small queue ── adopt ──▶ SEALED of the main queue
 *   a dead process's page ── the sweeper of its roster slot ──▶ SEALED; a spare page ──▶ FREE
 *
 * Only the owner writes into a page. A page is never taken from a live owner, unless it is a spare one: an
 * owner that was stopped in the middle of a copy would go on writing into another key's entry. A reader
 * that copied from a page looks at the page word again: the generation moves before the first byte of a new
 * life is written (PAGE pairing).
 */
#ifndef CACHEE_PAGES_H
#define CACHEE_PAGES_H

#include "attachment.h"
#include "hash.h"

struct place { /* where an entry is, or will be */
    uint32_t page, off;
    uint64_t generation;
};

/* A copy of an entry's four words. It may be torn or stale until entry_confirm succeeds. */
struct entry_ref {
    const a64 *at;
    const a64 *page_word_at;
    uint64_t page_word;
    struct place place;
    uint64_t hash, version, flags_word, stored_word;
    uint64_t lifetime; /* the first word of its lifetime; 0: it has none */
    const a64 *key_at;
    uint32_t value_bytes, key_bytes, tags;
    /* Set by index.c. */
    a64 *word_at;
    uint64_t word;
};

static inline uint32_t words_of(uint32_t bytes) { return (bytes + 7) / 8; }

/* An entry's second word, decided. */
static inline uint64_t version_word(uint64_t version, uint32_t key_bytes)
{
    return version << ENTRY_VERSION_SHIFT | key_bytes;
}

/* Bytes of a page that an entry takes; its extra words are its lifetime's and its tags. Arguments are at most
 * KEY_BYTES_MAX, TAGS_MAX + LIFETIME_WORDS_MAX, PAGE_BYTES_MAX: no overflow. */
static inline uint32_t entry_bytes(uint32_t key_bytes, uint32_t extra_words, uint32_t body_bytes)
{
    uint32_t words = ENTRY_HEADER_WORDS + extra_words + words_of(key_bytes) + words_of(body_bytes);
    return words * 8;
}

static inline uint32_t span_count(const struct attachment *a, uint32_t value_bytes)
{
    return (value_bytes + a->span_bytes - 1) / a->span_bytes;
}

/* What the words say. */
static inline uint8_t entry_type(const struct entry_ref *e)
{
    return (uint8_t)(e->flags_word & ENTRY_TYPE_BITS);
}
static inline bool entry_local(const struct entry_ref *e) { return (e->flags_word & ENTRY_LOCAL) != 0; }
static inline bool entry_add(const struct entry_ref *e) { return (e->flags_word & ENTRY_ADD) != 0; }
/* Was it loaded from the origin, and not set here? */
static inline bool entry_is_fill(const struct entry_ref *e) { return e->version & 1; }
static inline uint8_t entry_ttl_class(const struct entry_ref *e)
{
    return (e->flags_word >> ENTRY_TTL_CLASS_SHIFT) & 63;
}
static inline uint64_t entry_expires_ms(const struct entry_ref *e)
{
    return e->flags_word >> ENTRY_EXPIRES_SHIFT;
}
static inline uint32_t entry_stored_at(const struct entry_ref *e)
{
    return (uint32_t)(e->stored_word >> ENTRY_STORED_SHIFT);
}
static inline uint64_t entry_age_ms(const struct entry_ref *e, uint64_t now_ms)
{
    return (uint64_t)((uint32_t)(now_ms * 16 / 1000) - entry_stored_at(e)) * 1000 / 16;
}
static inline uint64_t entry_grace_ms(const struct entry_ref *e) { return e->lifetime & LIFETIME_GRACE_BITS; }
static inline uint32_t entry_load_ms(const struct entry_ref *e)
{
    return (e->lifetime >> LIFETIME_LOAD_SHIFT) & LIFETIME_LOAD_BITS;
}
static inline bool entry_slides(const struct entry_ref *e) { return (e->lifetime & LIFETIME_SLIDES) != 0; }
static inline bool entry_lags(const struct entry_ref *e) { return (e->lifetime & LIFETIME_LAGS) != 0; }
static inline bool entry_looked_at(const struct entry_ref *e)
{
    return (e->lifetime & LIFETIME_LOOKED_AT) != 0;
}
static inline uint64_t entry_ends_ms(const struct entry_ref *e)
{
    return load_relaxed(&e->at[ENTRY_HEADER_WORDS + 1]);
}
static inline uint64_t entry_period_ms(const struct entry_ref *e)
{
    return load_relaxed(&e->at[ENTRY_HEADER_WORDS + 2]);
}
static inline uint32_t entry_lifetime_words(const struct entry_ref *e)
{
    return !(e->stored_word & ENTRY_LIFETIME) ? 0 : entry_slides(e) ? LIFETIME_WORDS_MAX : 1;
}
static inline bool entry_spans(const struct entry_ref *e) { return (e->stored_word & ENTRY_SPANS) != 0; }
static inline bool entry_piece(const struct entry_ref *e) { return (e->stored_word & ENTRY_PIECE) != 0; }
static inline uint32_t entry_piece_number(const struct entry_ref *e)
{
    return (uint32_t)(e->stored_word >> ENTRY_STORED_SHIFT);
}

/* Bytes of what stands in the value's place: the value itself, or its span words. */
static inline uint32_t entry_body_bytes(const struct attachment *a, const struct entry_ref *e)
{
    return entry_spans(e) ? span_count(a, e->value_bytes) * 8 : e->value_bytes;
}

static inline uint32_t entry_size(const struct attachment *a, const struct entry_ref *e)
{
    return entry_bytes(e->key_bytes, entry_lifetime_words(e) + e->tags, entry_body_bytes(a, e));
}

static inline const a64 *entry_tags(const struct entry_ref *e) { return e->key_at - e->tags; }
static inline const a64 *entry_key(const struct entry_ref *e) { return e->key_at; }
static inline const a64 *entry_value(const struct entry_ref *e)
{
    return entry_key(e) + words_of(e->key_bytes);
}

static inline uint64_t page_word(uint64_t generation, uint32_t owner, enum page_queue queue,
                                 enum page_state state)
{
    return generation << PAGE_GEN_SHIFT | (uint64_t)owner << PAGE_OWNER_SHIFT |
           (queue == QUEUE_MAIN ? PAGE_MAIN : 0) | state;
}
static inline enum page_state page_state(uint64_t word) { return (enum page_state)(word & PAGE_STATE_MASK); }
static inline enum page_queue page_queue(uint64_t word)
{
    return word & PAGE_MAIN ? QUEUE_MAIN : QUEUE_SMALL;
}
static inline uint32_t page_owner(uint64_t word) { return (word >> PAGE_OWNER_SHIFT) & PAGE_OWNER_BITS; }
static inline uint64_t page_generation(uint64_t word) { return word >> PAGE_GEN_SHIFT; }
static inline bool page_held(uint64_t word)
{
    return page_state(word) == PAGE_OPEN || page_state(word) == PAGE_DRAIN || page_state(word) == PAGE_SPARE;
}

static inline a64 *page_at(const struct attachment *a, uint32_t page, uint32_t off)
{
    return (a64 *)(void *)(a->pages + (uint64_t)page * a->geo.page_bytes + off);
}

static inline uint64_t word_of_place(const struct place *p, uint64_t tag_bits)
{
    return (uint64_t)(p->off / ENTRY_UNIT) << INDEX_OFF_SHIFT | (uint64_t)p->page << INDEX_PAGE_SHIFT |
           (p->generation & INDEX_GEN_BITS) << INDEX_GEN_SHIFT | tag_bits;
}

/* The rest of entry_read, for an entry with lifetime words, tags or spans. */
bool entry_read_more(const struct attachment *a, struct entry_ref *e);
/* The rest of entry_open, for a word whose offset is too large: it is armed, or garbage. */
bool entry_open_armed(const struct attachment *a, uint64_t word, struct entry_ref *e);

static inline uint32_t index_word_off(uint64_t word)
{
    return (uint32_t)((word & ~INDEX_ARMED) >> INDEX_OFF_SHIFT) * ENTRY_UNIT;
}

static inline bool entry_fits_at(const struct attachment *a, uint32_t off)
{
    return off <= a->geo.page_bytes - ENTRY_HEADER_WORDS * 8;
}

/* The same as entry_read, at an offset that was already checked. */
static inline bool entry_read_at(const struct attachment *a, uint32_t page, uint32_t off, struct entry_ref *e)
{
    const a64 *at = page_at(a, page, off);
    e->at = at;
    e->place.page = page;
    e->place.off = off;
    e->hash = load_relaxed(&at[ENTRY_HASH]);
    uint64_t version_word = load_relaxed(&at[ENTRY_VERSION]);
    e->flags_word = load_relaxed(&at[ENTRY_EXPIRES_FLAGS]);
    e->stored_word = load_relaxed(&at[ENTRY_STORED]);
    e->version = version_word >> ENTRY_VERSION_SHIFT;
    e->key_bytes = version_word & ENTRY_KEY_BITS;
    e->value_bytes = e->stored_word & ENTRY_LENGTH_BITS;
    if (UNLIKELY((e->stored_word & ENTRY_MORE_BITS) != 0))
        return entry_read_more(a, e);
    e->lifetime = 0;
    e->tags = 0;
    e->key_at = at + ENTRY_HEADER_WORDS;
    return e->key_bytes <= KEY_BYTES_MAX &&
           off + entry_bytes(e->key_bytes, 0, e->value_bytes) <= a->geo.page_bytes;
}

/* Read the entry at a place whose page word was just loaded. False: impossible lengths. */
static inline bool entry_read(const struct attachment *a, uint32_t page, uint32_t off, struct entry_ref *e)
{
    return LIKELY(entry_fits_at(a, off)) && entry_read_at(a, page, off, e);
}

/* Follow an index word. False: it dangles (its page has moved on) or is garbage. */
static inline bool entry_open(const struct attachment *a, uint64_t word, struct entry_ref *e)
{
    uint32_t page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS;
    uint32_t off = (uint32_t)(word >> INDEX_OFF_SHIFT) * ENTRY_UNIT;
    if (page >= a->geo.page_count)
        return false;
    e->page_word_at = &a->page_words[page];
    e->page_word = load_acquire(e->page_word_at); /* PAGE, PUBLISH */
    e->place.generation = page_generation(e->page_word);
    if ((e->place.generation & INDEX_GEN_BITS) != ((word >> INDEX_GEN_SHIFT) & INDEX_GEN_BITS))
        return false;
    return LIKELY(entry_fits_at(a, off)) ? entry_read_at(a, page, off, e) : entry_open_armed(a, word, e);
}

/* After the bytes were copied: has the page kept its generation all the while? A page being drained is
 * readable. */
static inline bool entry_confirm(const struct entry_ref *e)
{
    fence_acquire(); /* PAGE */
    return page_generation(load_relaxed(e->page_word_at)) == page_generation(e->page_word);
}

/* ---- spans: see span.h ---- */

enum { SPAN_PAGE_SHIFT = 44, SPAN_OFF_SHIFT = 31, SPAN_OFF_BITS = 0x1fff, SPAN_TRIES_MAX = 64 };
#define SPAN_GEN_BITS 0x7fffffffull

static inline uint64_t span_word(const struct place *p)
{
    return (uint64_t)p->page << SPAN_PAGE_SHIFT | (uint64_t)(p->off / ENTRY_UNIT) << SPAN_OFF_SHIFT |
           (p->generation & SPAN_GEN_BITS);
}
static inline uint32_t span_page(uint64_t word) { return (uint32_t)(word >> SPAN_PAGE_SHIFT); }
static inline uint32_t span_off(uint64_t word)
{
    return ((word >> SPAN_OFF_SHIFT) & SPAN_OFF_BITS) * ENTRY_UNIT;
}

/* Is a page still in the life in which a span was written into it? */
static inline bool span_same_life(uint64_t page_word, uint64_t span)
{
    return ((page_generation(page_word) ^ span) & SPAN_GEN_BITS) == 0;
}

/* Are all spans of this entry still there? A span that is just being moved is. False also if the entry
 * itself is gone. */
bool pages_hold_spans(const struct attachment *a, const struct entry_ref *e);

/* ---- this process's pages ---- */

/* Bytes for one entry in an open page of a queue; it stays reserved until pages_commit. False: does not
 * fit. */
bool pages_fit(const struct attachment *a, enum page_queue queue, uint32_t bytes, struct place *place);

/* The reserved bytes hold a complete entry now (or a span, with `entries` 0): move the watermark past them.
 * `ends_ms`: the entry is of no use from then on; 0 = never. */
void pages_commit(struct attachment *a, const struct place *place, uint32_t bytes, uint32_t entries,
                  uint64_t ends_ms);

/* The next entry does not fit into the open page. Of the open page and the gap page, the one with more room
 * becomes the gap page, and the other is sealed. */
void pages_turn(struct attachment *a, enum page_queue queue);

/* Give both up to their queue. */
void pages_seal_open(struct attachment *a, enum page_queue queue);

/* Make a spare page the open one of a queue that has none. */
bool pages_open_spare(struct attachment *a, enum page_queue queue);

/* Open a page again that was sealed before it was full. It is filled after its watermark. */
bool pages_reopen(struct attachment *a, uint32_t page);

/* ---- taking pages ---- */

/* Try to take a free page for this process, or another's spare one. */
bool pages_take_spare(struct attachment *a, uint32_t page);

/* Is so much of a page dead that its living entries should be moved together instead of being contested? In
 * the main queue copying up to three bytes for each byte gained is worth it; in the small queue, whose
 * entries are decided on soon anyway, up to a seventh. */
static inline bool pages_compacts(enum page_queue queue, uint64_t bytes, uint64_t dead)
{
    return dead > (queue == QUEUE_MAIN ? bytes / 4 : bytes - bytes / 8);
}

/* Try to take a sealed page for draining, if it is still as it was seen. Its entries are those below
 * a->drain[].end. */
bool pages_take(struct attachment *a, const struct sealed *seen, enum page_queue queue);

/* A drained page becomes a spare page of this process, or a free page if the process has enough. */
void pages_drained(struct attachment *a, enum page_queue queue);

/* Move a sealed page from the small queue's tail to the main queue's head as it is. */
bool pages_adopt(struct attachment *a, const struct sealed *seen);

/* Seal every page that a roster slot holds. Its process is dead and this process has claimed the slot, or
 * it is this process, which leaves. */
void pages_seal_slot(struct attachment *a, uint32_t slot);

/* The owner in the page's word, and the writer in its note: at most two roster slots, or garbage
 * numbers. */
uint32_t pages_holders(const struct attachment *a, uint32_t page, uint32_t holder[2]);

/* Is it a page that this process knows to be its own? */
bool pages_has(const struct attachment *a, uint32_t page);

/* The same as pages_seal_slot, of one page. */
void pages_take_from(struct attachment *a, uint32_t page, uint32_t slot);

/* Bytes of entries of a page's present life that no index word names any more: the real number or fewer. */
uint32_t pages_dead_bytes(const struct attachment *a, uint32_t page, uint64_t page_word);

/* Count an entry that no word names any more, and its spans, as dead bytes of their pages. */
void pages_note_dead(struct attachment *a, const struct entry_ref *e);

/* The same for an entry whose word names a copy of it now: its spans belong to the copy, so they are not
 * dead. */
void pages_note_copied(struct attachment *a, const struct entry_ref *e);

static inline uint32_t watermark_bytes(const struct attachment *a, uint64_t watermark)
{
    uint32_t bytes = (uint32_t)watermark;
    return bytes < a->geo.page_bytes ? bytes : a->geo.page_bytes;
}
static inline uint32_t watermark_entries(uint64_t watermark) { return (uint32_t)(watermark >> 48); }

#endif
