/* pages.c - the owner and the life of each page of value memory. See pages.h for the states.
 *
 * A page's word says its generation, its owner and its state, and every transition is one CAS of the whole
 * word. Rules:
 *
 *   1. Only the owner writes into a page. The generation rises when a page is opened for new entries, before
 *      the first new byte is written: fence(release) stands between the CAS and the stores (PAGE). So a
 *      reader that copied bytes and then finds the same generation has copied bytes of one life.
 *   2. The state does not matter to a reader: entries of a page that is being drained can be read.
 *   3. The page of a living owner is never taken from it, spare pages excepted, since nothing was written
 *      there. Otherwise a process that was stopped in the middle of a copy could go on writing into another
 *      key's entry. The price is one pinned page for each live process and queue.
 *   4. A takeover from a dead owner is a CAS of the whole word, as loaded before the test whether the owner
 *      lives: if the page has changed hands meanwhile, it fails. A process that takes the roster slot of a
 *      dead one seals the dead one's pages first.
 *   5. An index word has only 11 bits of the generation. A word that is left behind would name another
 *      entry 2,048 lives later. So draining removes the word of every entry that is not known to be dead.
 *   6. The watermark says how many bytes of the page are complete entries. It is stored after the entry
 *      (WATERMARK), so a drain never reads half an entry.
 */
#include "pages.h"

/* ---- a second copy of the owner ----
 *
 * Garbage in one page word must not do more than evict. So the note of a page names its writer too, and no
 * process takes a page while its note has a living writer. The next generation is above those in word and
 * note, so that no index word of an earlier life becomes valid again. A life word whose check is wrong is
 * ignored. */

static uint64_t pages_checked(uint32_t page, uint64_t what)
{
    return fold_multiply(what ^ 0x9e3779b97f4a7c15ull, page ^ 0xd6e8feb86659fd93ull) & 0xffff;
}

static uint64_t pages_life_word(uint32_t page, uint64_t generation, uint32_t writer)
{
    uint64_t what = generation << 32 | (uint64_t)writer << 16;
    return what | pages_checked(page, what);
}

/* 0: unknown, or garbage. */
static uint64_t pages_life_of(const struct attachment *a, uint32_t page)
{
    uint64_t life = load_acquire(&a->page_notes[page].life), what = life & ~0xffffull; /* LIFE */
    return (life & 0xffff) == pages_checked(page, what) ? what : 0;
}

static uint32_t pages_life_writer(uint64_t life) { return (life >> 16) & 0xffff; }

static bool pages_written_by_somebody(const struct attachment *a, uint32_t page)
{
    return pages_life_writer(pages_life_of(a, page)) != 0;
}

static void pages_note_writer(struct attachment *a, uint32_t page, uint64_t word)
{
    store_release(&a->page_notes[page].life,
                  pages_life_word(page, page_generation(word), a->slot + 1)); /* LIFE */
}

static void pages_note_no_writer(struct attachment *a, uint32_t page, uint32_t slot)
{
    uint64_t life = pages_life_of(a, page), seen = life | pages_checked(page, life);
    if (pages_life_writer(life) == slot + 1)
        cas(&a->page_notes[page].life, &seen, pages_life_word(page, life >> 32, 0));
}

static uint64_t pages_next_generation(const struct attachment *a, uint32_t page, uint64_t word)
{
    uint64_t life = pages_life_of(a, page), generation = page_generation(word);
    int32_t ahead = (int32_t)((uint32_t)(life >> 32) - (uint32_t)generation);
    return generation + (life && ahead > 0 ? (uint32_t)ahead : 0) + 1;
}

/* ---- entries ---- */

bool entry_read_more(const struct attachment *a, struct entry_ref *e)
{
    bool has_lifetime =
        e->stored_word & ENTRY_LIFETIME && e->place.off <= a->geo.page_bytes - (ENTRY_HEADER_WORDS + 1) * 8;
    e->lifetime = has_lifetime ? load_relaxed(&e->at[ENTRY_HEADER_WORDS]) : 0;
    e->tags = (e->stored_word >> ENTRY_TAGS_SHIFT) & ENTRY_TAGS_BITS;
    e->key_at = e->at + ENTRY_HEADER_WORDS + entry_lifetime_words(e) + e->tags;
    return e->key_bytes <= KEY_BYTES_MAX && e->tags <= TAGS_MAX &&
           e->value_bytes <= SPANS_MAX * a->span_bytes && entry_body_bytes(a, e) <= a->geo.page_bytes &&
           e->place.off + entry_size(a, e) <= a->geo.page_bytes;
}

bool entry_open_armed(const struct attachment *a, uint64_t word, struct entry_ref *e)
{
    uint32_t page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS;
    if (!(word & INDEX_ARMED) || !entry_read(a, page, index_word_off(word), e))
        return false;
    e->lifetime |= LIFETIME_LOOKED_AT;
    return true;
}

/* ---- dead bytes ----
 *
 * The count must never be too high: if all bytes of a page count as dead, draining does not search for
 * words that name its entries. A word that is left behind would name another entry 2,048 lives later,
 * perhaps an older value of its own key. So the count names its life: a process that comes late (stopped
 * between the removal of a word and this) finds the page in another life, and counts nothing. */

/* each failed try means that another process counted; giving up is safe: draining then looks at dead
 * entries as well */
enum { NOTE_TRIES_MAX = 64 };

static uint64_t pages_dead_word(uint64_t generation, uint32_t bytes) { return generation << 32 | bytes; }

uint32_t pages_dead_bytes(const struct attachment *a, uint32_t page, uint64_t page_word)
{
    uint64_t dead = load_relaxed(&a->page_notes[page].dead);
    return dead >> 32 == (uint32_t)page_generation(page_word) ? (uint32_t)dead : 0;
}

static void pages_note(struct attachment *a, uint32_t page, uint64_t generation, uint32_t bytes)
{
    a64 *at = &a->page_notes[page].dead;
    uint64_t seen = load_relaxed(at);
    for (int tries = 0; tries < NOTE_TRIES_MAX && ((seen >> 32 ^ generation) & SPAN_GEN_BITS) == 0; tries++)
        if (cas(at, &seen, seen + bytes))
            return;
}

/* Read the word of a span, and confirm that its entry is still there. */
static bool pages_span_of(const struct entry_ref *e, uint32_t number, uint64_t *word)
{
    *word = load_relaxed(&entry_value(e)[number]);
    fence_acquire(); /* PAGE */
    return page_generation(load_relaxed(e->page_word_at)) == e->place.generation;
}

void pages_note_copied(struct attachment *a, const struct entry_ref *e)
{
    pages_note(a, e->place.page, e->place.generation, entry_size(a, e));
}

void pages_note_dead(struct attachment *a, const struct entry_ref *e)
{
    pages_note_copied(a, e);
    uint32_t left = entry_spans(e) ? e->value_bytes : 0;
    uint64_t word;
    for (uint32_t i = 0; left > 0 && pages_span_of(e, i, &word); i++) {
        uint32_t page = span_page(word), bytes = left < a->span_bytes ? left : a->span_bytes;
        if (page < a->geo.page_count)
            pages_note(a, page, word, entry_bytes(0, 0, bytes));
        left -= bytes;
    }
}

/* ---- this process's pages ---- */

static bool pages_fits(const struct attachment *a, enum open_slot slot, uint32_t bytes, struct place *place)
{
    const struct open_page *o = &a->open[slot];
    if (o->page == NO_PAGE || bytes > a->geo.page_bytes - o->off)
        return false;
    if (load_relaxed(&a->page_words[o->page]) != o->word)
        return false; /* garbage in its word gave our page away, and its new owner writes into it */
    place->page = o->page;
    place->off = o->off;
    place->generation = page_generation(o->word);
    return true;
}

/* A reopened page is filled after its watermark. If damaged bytes made the watermark too low, values would
 * be overwritten, so it carries a check. */
static uint64_t pages_watermark_word(uint32_t page, uint64_t generation, uint32_t entries, uint32_t bytes)
{
    uint64_t what = (uint64_t)entries << 48 | bytes;
    return what | (pages_checked(page, what ^ generation << 32)) << 32;
}

static enum open_slot pages_gap_of(enum page_queue queue)
{
    return queue == QUEUE_SMALL ? OPEN_SMALL_GAP : OPEN_MAIN_GAP;
}
static enum open_slot pages_open_of(enum page_queue queue)
{
    return queue == QUEUE_SMALL ? OPEN_SMALL : OPEN_MAIN;
}

bool pages_fit(const struct attachment *a, enum page_queue queue, uint32_t bytes, struct place *place)
{
    return pages_fits(a, pages_gap_of(queue), bytes, place) ||
           pages_fits(a, pages_open_of(queue), bytes, place);
}

static struct open_page *pages_open_page_of(struct attachment *a, const struct place *place)
{
    int slot = 0;
    while (slot < OPENS - 1 && a->open[slot].page != place->page)
        slot++;
    return &a->open[slot];
}

void pages_commit(struct attachment *a, const struct place *place, uint32_t bytes, uint32_t entries,
                  uint64_t ends_ms)
{
    struct open_page *o = pages_open_page_of(a, place);
    struct page_note *note = &a->page_notes[o->page];
    uint64_t expires = ends_ms ? ends_ms : UINT64_MAX;
    if (load_relaxed(&page_at(a, place->page, place->off)[ENTRY_STORED]) >> ENTRY_TAGS_SHIFT &
        ENTRY_TAGS_BITS)
        store_relaxed(&note->tags_seen, 0);
    o->off += bytes;
    o->entries += entries;
    if (expires > o->expires_ms)
        store_relaxed(&note->expires_ms, o->expires_ms = expires);
    store_release(&note->watermark, pages_watermark_word(o->page, page_generation(o->word), o->entries,
                                                         o->off)); /* WATERMARK */
}

static void pages_seal(struct attachment *a, uint32_t page, uint64_t word)
{
    store_relaxed(&a->page_notes[page].stamp, add_relaxed(&a->header->page_stamp, 1) + 1);
    cas(&a->page_words[page], &word, page_word(page_generation(word), 0, page_queue(word), PAGE_SEALED));
}

static void pages_give_up(struct attachment *a, enum open_slot slot)
{
    struct open_page *o = &a->open[slot];
    if (o->page != NO_PAGE)
        pages_note_no_writer(a, o->page, a->slot), pages_seal(a, o->page, o->word);
    o->page = NO_PAGE;
}

void pages_seal_open(struct attachment *a, enum page_queue queue)
{
    pages_give_up(a, pages_open_of(queue));
    pages_give_up(a, pages_gap_of(queue));
}

/* A gap page that nothing fits into must go to its queue at last, because the policy does not see its
 * entries before that. */
enum { GAP_TURNS_MAX = 8 };

void pages_turn(struct attachment *a, enum page_queue queue)
{
    struct open_page *open = &a->open[pages_open_of(queue)], *gap = &a->open[pages_gap_of(queue)];
    bool more_room = gap->page == NO_PAGE || open->off <= gap->off || ++gap->turns > GAP_TURNS_MAX;
    if (open->page != NO_PAGE && more_room) {
        pages_give_up(a, pages_gap_of(queue));
        *gap = *open;
        open->page = NO_PAGE;
    }
    pages_give_up(a, pages_open_of(queue));
}

/* Is this held page still ours? */
static bool pages_ours(const struct attachment *a, uint64_t word, enum page_state state)
{
    return page_state(word) == state && page_owner(word) == a->slot;
}

/* Another process may have taken a spare page of ours. */
static bool pages_claim_spare(struct attachment *a, enum page_queue queue, struct open_page *o)
{
    while (a->spares > 0) {
        uint64_t word = load_relaxed(&a->page_words[o->page = a->spare[--a->spares]]);
        o->word = page_word(pages_next_generation(a, o->page, word), a->slot, queue, PAGE_OPEN);
        if (!pages_ours(a, word, PAGE_SPARE))
            continue;
        /* first, so that the note names the writer before the first byte is written */
        pages_note_writer(a, o->page, o->word);
        if (cas(&a->page_words[o->page], &word, o->word))
            return true;
        pages_note_no_writer(a, o->page, a->slot);
    }
    return false;
}

bool pages_open_spare(struct attachment *a, enum page_queue queue)
{
    struct open_page o = {.off = 0};
    if (!pages_claim_spare(a, queue, &o))
        return false;
    fence_release(); /* PAGE: the new generation is seen before any new byte */
    store_relaxed(&a->page_notes[o.page].watermark,
                  pages_watermark_word(o.page, page_generation(o.word), 0, 0));
    store_relaxed(&a->page_notes[o.page].dead, pages_dead_word(page_generation(o.word), 0));
    store_relaxed(&a->page_notes[o.page].expires_ms, 0);
    store_relaxed(&a->page_notes[o.page].tags_seen, UINT64_MAX);
    a->open[pages_open_of(queue)] = o;
    a->view.pages[queue]++;
    return true;
}

bool pages_reopen(struct attachment *a, uint32_t page)
{
    uint64_t word = load_acquire(&a->page_words[page]);
    if (page_state(word) != PAGE_SEALED || page_queue(word) != QUEUE_SMALL ||
        pages_written_by_somebody(a, page))
        return false;
    uint64_t open = page_word(page_generation(word), a->slot, QUEUE_SMALL, PAGE_OPEN);
    if (!cas(&a->page_words[page], &word, open))
        return false;
    uint64_t watermark = load_acquire(&a->page_notes[page].watermark); /* WATERMARK */
    uint32_t entries = watermark_entries(watermark), bytes = watermark_bytes(a, watermark);
    if (watermark != pages_watermark_word(page, page_generation(word), entries, bytes)) {
        pages_seal(a, page, open);
        return false;
    }
    pages_note_writer(a, page, open);
    a->open[OPEN_SMALL] = (struct open_page){
        .page = page,
        .word = open,
        .off = (bytes + ENTRY_UNIT - 1) / ENTRY_UNIT * ENTRY_UNIT,
        .entries = entries,
        .expires_ms = load_relaxed(&a->page_notes[page].expires_ms),
    };
    return true;
}

/* ---- taking pages ---- */

bool pages_take_spare(struct attachment *a, uint32_t page)
{
    uint64_t word = load_acquire(&a->page_words[page]);
    bool holds_something =
        page_state(word) == PAGE_OPEN || page_state(word) == PAGE_SEALED || page_state(word) == PAGE_DRAIN;
    bool mine = page_state(word) == PAGE_SPARE && page_owner(word) == a->slot;
    if (a->spares == SPARES_MAX || holds_something || mine || pages_written_by_somebody(a, page) ||
        !cas(&a->page_words[page], &word, page_word(page_generation(word), a->slot, QUEUE_SMALL, PAGE_SPARE)))
        return false;
    a->spare[a->spares++] = page;
    return true;
}

/* Has the page stayed as it was seen? If another process has used it since, it is the newest of its queue
 * now, not the oldest. */
static bool pages_unchanged(const struct attachment *a, const struct sealed *seen, enum page_queue queue,
                            uint64_t word)
{
    return page_state(word) == PAGE_SEALED && page_queue(word) == queue &&
           load_relaxed(&a->page_notes[seen->page].stamp) == seen->stamp &&
           !pages_written_by_somebody(a, seen->page);
}

bool pages_take(struct attachment *a, const struct sealed *seen, enum page_queue queue)
{
    uint32_t page = seen->page;
    uint64_t word = load_acquire(&a->page_words[page]);
    if (!pages_unchanged(a, seen, queue, word) ||
        !cas(&a->page_words[page], &word, page_word(page_generation(word), a->slot, queue, PAGE_DRAIN)))
        return false;
    uint32_t bytes = watermark_bytes(a, load_acquire(&a->page_notes[page].watermark)); /* WATERMARK */
    uint32_t dead = pages_dead_bytes(a, page, word);
    bool compact = pages_compacts(queue, bytes, dead);
    /* If all bytes are dead, no entry need be looked at. */
    a->drain[queue] =
        (struct drain){.page = page, .off = dead >= bytes ? bytes : 0, .end = bytes, .compact = compact};
    return true;
}

void pages_drained(struct attachment *a, enum page_queue queue)
{
    uint32_t page = a->drain[queue].page;
    uint64_t word = load_relaxed(&a->page_words[page]);
    bool keep = a->spares < SPARES_MAX;
    a->drain[queue].page = NO_PAGE;
    a->view.pages[queue] -= a->view.pages[queue] > 0;
    uint64_t next =
        page_word(page_generation(word), keep ? a->slot : 0, QUEUE_SMALL, keep ? PAGE_SPARE : PAGE_FREE);
    if (pages_ours(a, word, PAGE_DRAIN) && cas(&a->page_words[page], &word, next) && keep)
        a->spare[a->spares++] = page;
}

bool pages_adopt(struct attachment *a, const struct sealed *seen)
{
    uint32_t page = seen->page;
    uint64_t word = load_acquire(&a->page_words[page]);
    if (!pages_unchanged(a, seen, QUEUE_SMALL, word))
        return false;
    store_relaxed(&a->page_notes[page].stamp, add_relaxed(&a->header->page_stamp, 1) + 1);
    return cas(&a->page_words[page], &word, page_word(page_generation(word), 0, QUEUE_MAIN, PAGE_SEALED));
}

void pages_take_from(struct attachment *a, uint32_t page, uint32_t slot)
{
    uint64_t word = load_acquire(&a->page_words[page]);
    pages_note_no_writer(a, page, slot);
    if (!page_held(word) || page_owner(word) != slot)
        return;
    if (page_state(word) == PAGE_SPARE)
        cas(&a->page_words[page], &word, page_word(page_generation(word), 0, QUEUE_SMALL, PAGE_FREE));
    else
        pages_seal(a, page, word);
}

void pages_seal_slot(struct attachment *a, uint32_t slot)
{
    for (uint32_t page = 0; page < a->geo.page_count; page++)
        pages_take_from(a, page, slot);
}

uint32_t pages_holders(const struct attachment *a, uint32_t page, uint32_t holder[2])
{
    uint64_t word = load_acquire(&a->page_words[page]);
    uint32_t n = 0, writer = pages_life_writer(pages_life_of(a, page));
    if (page_held(word))
        holder[n++] = page_owner(word);
    if (writer)
        holder[n++] = writer - 1;
    return n;
}

bool pages_has(const struct attachment *a, uint32_t page)
{
    bool has = false;
    for (int i = 0; i < OPENS; i++)
        has |= a->open[i].page == page;
    for (int q = 0; q < QUEUES; q++)
        has |= a->drain[q].page == page;
    for (uint32_t i = 0; i < a->spares; i++)
        has |= a->spare[i] == page;
    return has;
}

/* ---- spans ---- */

static bool pages_holds_span(const struct attachment *a, uint64_t word)
{
    uint32_t page = span_page(word);
    return page < a->geo.page_count && span_same_life(load_acquire(&a->page_words[page]), word); /* PAGE */
}

bool pages_hold_spans(const struct attachment *a, const struct entry_ref *e)
{
    for (uint32_t i = 0; i < span_count(a, e->value_bytes); i++) {
        uint64_t word = load_relaxed(&entry_value(e)[i]), seen = 0;
        for (int tries = 0; tries < SPAN_TRIES_MAX && !pages_holds_span(a, word); tries++) {
            seen = word;
            /* the word is swapped before the span's old page begins another life */
            word = load_relaxed(&entry_value(e)[i]);
            if (word == seen)
                return false;
        }
    }
    return true;
}
