/* survey.c - see survey.h. */
#include "survey.h"

#include "index.h"
#include "journal.h"

enum {
    NOTES_PER_TURN = 64,
    PAGES_PER_TURN = 4, /* a few microseconds; large pages have four times as many entries */
    LARGE_PAGES_PER_TURN = 2,
};

/* The page may be taken and refilled meanwhile: then the entry is not confirmed, or the word names another
 * entry. */
static void survey_remove_invalid(struct attachment *a, const struct entry_ref *e)
{
    a64 *at;
    uint64_t word;
    if (!entry_confirm(e) || !index_names(a, e, &at, &word) || !index_kill(at, word))
        return;
    pages_note_dead(a, e);
    journal_key(a, e->hash, JOURNAL_EVICTED, WHY_INVALID, 0);
    count(a, STAT_DROPPED_TAG, 1);
}

static void survey_look_through(struct attachment *a, uint32_t page, uint64_t word)
{
    struct entry_ref e = {.page_word_at = &a->page_words[page], .page_word = word};
    e.place.generation = page_generation(word);
    uint32_t end = watermark_bytes(a, load_acquire(&a->page_notes[page].watermark)); /* WATERMARK */
    for (uint32_t off = 0; off < end && entry_read(a, page, off, &e); off += entry_size(a, &e))
        if (e.tags > 0 && !entry_valid(a, &e))
            survey_remove_invalid(a, &e);
}

/* False: no entry of the page can have become invalid since it was last looked through. */
static bool survey_look_again(struct attachment *a, uint32_t page, uint64_t moved)
{
    struct page_note *note = &a->page_notes[page];
    uint64_t word = load_acquire(&a->page_words[page]); /* PAGE */
    if (page_state(word) != PAGE_SEALED || load_relaxed(&note->tags_seen) >= moved)
        return false;
    store_relaxed(&note->tags_seen, moved);
    survey_look_through(a, page, word);
    return true;
}

void survey_some(struct attachment *a)
{
    struct survey *s = &a->survey;
    uint64_t moved = load_acquire(&a->header->tags_moved); /* FENCE */
    uint32_t pages = a->geo.page_bytes == PAGE_BYTES_SMALL ? PAGES_PER_TURN : LARGE_PAGES_PER_TURN;
    if (moved != s->moved)
        *s = (struct survey){.moved = moved, .page = s->page, .left = a->geo.page_count};
    for (uint32_t notes = NOTES_PER_TURN; s->left > 0 && notes > 0 && pages > 0; notes--) {
        pages -= survey_look_again(a, s->page, moved);
        s->page = s->page + 1 < a->geo.page_count ? s->page + 1 : 0;
        s->left--;
    }
}
