/* census.c - see census.h. */
#include "census.h"

#include "clock.h"

static bool census_is_shown(uint64_t word) { return word && !(word & INDEX_PENDING); }

static bool census_is_readable(const struct attachment *a, const struct entry_ref *e, uint64_t now_ms)
{
    return !hash_reserved(e->hash) && entry_valid(a, e) &&
           (!entry_expires_ms(e) || now_ms < entry_expires_ms(e) + entry_grace_ms(e));
}

/* ---- each entry of the pages ---- */

/* How many entries the pages hold, dead ones too. Stops counting beyond CENSUS_LOOKS_MAX. */
static uint64_t census_written(const struct attachment *a)
{
    uint64_t entries = 0;
    for (uint32_t page = 0; page < a->geo.page_count && entries <= CENSUS_LOOKS_MAX; page++)
        entries += watermark_entries(load_relaxed(&a->page_notes[page].watermark));
    return entries;
}

static uint64_t census_of_page(const struct attachment *a, uint32_t page, uint64_t now_ms)
{
    uint64_t count = 0, word, page_word = load_acquire(&a->page_words[page]); /* PAGE */
    struct entry_ref e = {.page_word_at = &a->page_words[page], .page_word = page_word};
    e.place.generation = page_generation(page_word);
    uint32_t end = watermark_bytes(a, load_acquire(&a->page_notes[page].watermark)); /* WATERMARK */
    a64 *at;
    for (uint32_t off = 0; off < end && entry_read(a, page, off, &e); off += entry_size(a, &e))
        count += index_names(a, &e, &at, &word) && census_is_shown(word) && census_is_readable(a, &e, now_ms);
    return count;
}

static uint64_t census_of_pages(const struct attachment *a, uint64_t now_ms)
{
    uint64_t count = 0;
    for (uint32_t page = 0; page < a->geo.page_count; page++)
        if (watermark_entries(load_relaxed(&a->page_notes[page].watermark)))
            count += census_of_page(a, page, now_ms);
    return count;
}

/* ---- a sample of the index ---- */

struct sample {
    uint64_t shown, looks, readable;
};

/* Of the words of every `stride`-th bucket, look at every `step`-th that is shown. */
static struct sample census_sample(const struct attachment *a, uint64_t stride, uint64_t step,
                                   uint64_t now_ms)
{
    struct sample s = {0};
    struct entry_ref e;
    for (uint64_t bucket = 0; bucket < a->geo.bucket_count; bucket += stride) {
        for (uint32_t i = 0; i < BUCKET_WORDS; i++) {
            uint64_t word = load_relaxed(&a->index[bucket * BUCKET_WORDS + i]);
            if (!census_is_shown(word) || s.shown++ % step)
                continue;
            s.looks++;
            s.readable += entry_open(a, word, &e) && census_is_readable(a, &e, now_ms);
        }
    }
    return s;
}

uint64_t census_count(const struct attachment *a)
{
    uint64_t now_ms = clock_ms(a), buckets = a->geo.bucket_count, stride = buckets / CENSUS_BUCKETS_MAX + 1,
             sampled = (buckets + stride - 1) / stride;
    if (census_written(a) <= CENSUS_LOOKS_MAX)
        return census_of_pages(a, now_ms);
    uint64_t shown = census_sample(a, stride, UINT64_MAX, 0).shown;
    struct sample s = census_sample(a, stride, shown / CENSUS_LOOKS_MAX + 1, now_ms);
    return s.looks ? s.shown * s.readable / s.looks * buckets / sampled : 0;
}
