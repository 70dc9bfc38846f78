/* pages.h - value memory: pages that are filled by one process, sealed, drained and filled again.
 *
 *   FREE ── claim ──▶ DRAIN(me) ── every entry moved or dropped ──▶ OPEN(me), generation + 1
 *   OPEN(me) ── full ──▶ SEALED ── claim, by anybody ──▶ DRAIN(them)
 *   OPEN or DRAIN of a dead process ── claim ──▶ DRAIN(me)
 *
 * Only the owner writes into a page. A live owner's page is never taken from it: stopped in mid-copy, it
 * would resume into somebody else's entry. A reader that copied from a page looks at the page word again:
 * the generation moves before the first byte of a new life is written (PAGE pairing).
 */
#ifndef CACHEE_PAGES_H
#define CACHEE_PAGES_H

#include "attachment.h"

struct place { /* where an entry is, or will be */
    uint32_t page, off;
    uint64_t generation;
};

/* What an entry's five words said when they were read. Nothing here is proven until entry_confirm. */
struct entry_ref {
    const a64 *at;
    const a64 *page_word_at;
    uint64_t page_word;
    struct place place;
    uint64_t hash, version, flags_word, stored_word, sizes_word;
    uint32_t value_bytes, key_bytes, tags;
    /* Set by index.c. */
    a64 *word_at;
    uint64_t word;
};

static inline uint32_t words_of(uint32_t bytes) { return (bytes + 7) / 8; }

/* Bytes of a page that an entry takes. Arguments are at most KEY_BYTES_MAX, TAGS_MAX, PAGE_BYTES: no overflow. */
static inline uint32_t entry_bytes(uint32_t key_bytes, uint32_t tags, uint32_t body_bytes)
{
    uint32_t words = ENTRY_HEADER_WORDS + tags + words_of(key_bytes) + words_of(body_bytes);
    return (words * 8 + ENTRY_UNIT - 1) & ~(uint32_t)(ENTRY_UNIT - 1);
}

static inline uint32_t span_count(uint32_t value_bytes) { return (value_bytes + SPAN_BYTES - 1) / SPAN_BYTES; }

/* What the words say. */
static inline uint8_t entry_type(const struct entry_ref *e) { return (uint8_t)(e->flags_word & ENTRY_TYPE_BITS); }
static inline bool entry_local(const struct entry_ref *e) { return (e->flags_word & ENTRY_LOCAL) != 0; }
static inline bool entry_add(const struct entry_ref *e) { return (e->flags_word & ENTRY_ADD) != 0; }
static inline uint8_t entry_ttl_class(const struct entry_ref *e) { return (e->flags_word >> ENTRY_TTL_CLASS_SHIFT) & 63; }
static inline uint64_t entry_expires_ms(const struct entry_ref *e) { return e->flags_word >> ENTRY_EXPIRES_SHIFT; }
static inline uint32_t entry_stored_at(const struct entry_ref *e) { return (uint32_t)(e->stored_word >> 32); }
static inline uint32_t entry_grace_ms(const struct entry_ref *e) { return (uint32_t)(e->sizes_word >> 32); }
static inline bool entry_spans(const struct entry_ref *e) { return (e->sizes_word & ENTRY_SPANS) != 0; }

/* Bytes of what stands in the value's place: the value itself, or its span words. */
static inline uint32_t entry_body_bytes(const struct entry_ref *e)
{
    return entry_spans(e) ? span_count(e->value_bytes) * 8 : e->value_bytes;
}

static inline uint32_t entry_size(const struct entry_ref *e) { return entry_bytes(e->key_bytes, e->tags, entry_body_bytes(e)); }

static inline const a64 *entry_tags(const struct entry_ref *e) { return e->at + ENTRY_HEADER_WORDS; }
static inline const a64 *entry_key(const struct entry_ref *e) { return entry_tags(e) + e->tags; }
static inline const a64 *entry_value(const struct entry_ref *e) { return entry_key(e) + words_of(e->key_bytes); }

static inline uint64_t page_word(uint64_t generation, uint32_t owner, enum page_state state)
{
    return generation << PAGE_GEN_SHIFT | (uint64_t)owner << PAGE_OWNER_SHIFT | state;
}
static inline enum page_state page_state(uint64_t word) { return (enum page_state)(word & PAGE_STATE_MASK); }
static inline uint32_t page_owner(uint64_t word) { return (word >> PAGE_OWNER_SHIFT) & PAGE_OWNER_BITS; }
static inline uint64_t page_generation(uint64_t word) { return word >> PAGE_GEN_SHIFT; }

static inline a64 *page_at(const struct attachment *a, uint32_t page, uint32_t off)
{
    return (a64 *)(void *)(a->pages + (uint64_t)page * PAGE_BYTES + off);
}

static inline uint64_t word_of_place(const struct place *p, uint64_t tag_bits)
{
    return (uint64_t)(p->off / ENTRY_UNIT) << INDEX_OFF_SHIFT | (uint64_t)p->page << INDEX_PAGE_SHIFT |
           (p->generation & INDEX_GEN_BITS) << INDEX_GEN_SHIFT | tag_bits;
}

/* Read the entry at a place whose page word was just loaded. False: lengths that cannot be. */
static inline bool entry_read(const struct attachment *a, uint32_t page, uint32_t off, struct entry_ref *e)
{
    if (off > PAGE_BYTES - ENTRY_HEADER_WORDS * 8)
        return false;
    const a64 *at = page_at(a, page, off);
    e->at = at;
    e->place.page = page;
    e->place.off = off;
    e->hash = load_relaxed(&at[ENTRY_HASH]);
    e->version = load_relaxed(&at[ENTRY_VERSION]);
    e->flags_word = load_relaxed(&at[ENTRY_EXPIRES_FLAGS]);
    e->stored_word = load_relaxed(&at[ENTRY_STORED_LENGTH]);
    e->sizes_word = load_relaxed(&at[ENTRY_SIZES]);
    e->value_bytes = (uint32_t)e->stored_word;
    e->tags = (uint8_t)(e->sizes_word >> 16);
    e->key_bytes = (uint16_t)e->sizes_word;
    return e->key_bytes <= KEY_BYTES_MAX && e->tags <= TAGS_MAX && e->value_bytes <= SPANS_MAX * SPAN_BYTES &&
           entry_body_bytes(e) <= PAGE_BYTES && off + entry_size(e) <= PAGE_BYTES;
}

/* Follow an index word. False: it dangles (its page has moved on) or is garbage. */
static inline bool entry_open(const struct attachment *a, uint64_t word, struct entry_ref *e)
{
    uint32_t page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS;
    uint32_t off = (uint32_t)(word >> INDEX_OFF_SHIFT) * ENTRY_UNIT;
    if (page >= a->geo.page_count)
        return false;
    e->page_word_at = &a->page_table[page].word;
    e->page_word = load_acquire(e->page_word_at); /* PAGE, PUBLISH */
    e->place.generation = page_generation(e->page_word);
    if ((e->place.generation & INDEX_GEN_BITS) != ((word >> INDEX_GEN_SHIFT) & INDEX_GEN_BITS))
        return false;
    return entry_read(a, page, off, e);
}

/* After the bytes were copied: has the page kept its generation all the while? A page being drained is readable. */
static inline bool entry_confirm(const struct entry_ref *e)
{
    fence_acquire(); /* PAGE */
    return page_generation(load_relaxed(e->page_word_at)) == page_generation(e->page_word);
}

/* Bytes for one entry in this process's open page; it stays reserved until pages_commit. False: does not fit. */
bool pages_fit(const struct attachment *a, uint32_t bytes, struct place *place);

/* The reserved bytes hold a whole entry now: move the watermark over them. */
void pages_commit(struct attachment *a, uint32_t bytes);

/* Give the open page up to the FIFO; and make the drained next page the open one. */
void pages_seal_open(struct attachment *a);
bool pages_open_next(struct attachment *a);

/* Try to take the page of this word for draining. Its entries are those below a->drain_end. */
bool pages_take(struct attachment *a, uint32_t page, uint64_t word);

/* Seal every page that a roster slot holds: its process is dead, or it is this one and leaves. */
void pages_seal_slot(struct attachment *a, uint32_t slot);

#endif
