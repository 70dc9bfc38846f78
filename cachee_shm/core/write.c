/* write.c - the entry that a write stores: room for it, its bytes, its digest. See write.h. */
#include "write.h"

#include "clock.h"
#include "span.h"

/* ---- digests ---- */

uint8_t write_ttl_class(uint64_t ttl_ms) { return ttl_ms ? (uint8_t)(64 - __builtin_clzll(ttl_ms)) & 63 : 0; }

static uint64_t write_digest_of(const struct attachment *a, uint8_t type, uint8_t lifetime, const a64 *tags,
                                uint32_t tag_count, const a64 *value, uint32_t value_bytes)
{
    uint64_t seed = (uint64_t)type << 8 | lifetime;
    for (uint32_t i = 0; i < tag_count; i++)
        seed = fold_multiply(seed ^ load_relaxed(&tags[i]), 0x9e3779b97f4a7c15ull);
    return digest_words(a->hash_key, seed, value, value_bytes);
}

uint64_t entry_digest(const struct attachment *a, const struct entry_ref *e)
{
    return write_digest_of(a, entry_type(e), entry_ttl_class(e), entry_tags(e), e->tags, entry_value(e),
                           e->value_bytes);
}

/* ---- lifetimes ---- */

static uint64_t write_end_in(const struct write *w, uint64_t now_ms, uint64_t ms)
{
    uint64_t end = ms ? now_ms + ms : 0;
    return w->last_ms && (!end || end > w->last_ms) ? w->last_ms : end;
}

/* When the entry expires if it is not used. 0: never. */
static uint64_t write_expires_of(const struct write *w, uint64_t now_ms)
{
    bool slides = w->sliding_ms && (!w->ttl_ms || w->sliding_ms < w->ttl_ms);
    return write_end_in(w, now_ms, slides ? w->sliding_ms : w->ttl_ms);
}

uint64_t write_ends(const struct write *w, uint64_t now_ms)
{
    uint64_t expires = write_expires_of(w, now_ms);
    return expires ? expires + w->grace_ms : 0;
}

static uint32_t write_lifetime_words(const struct write *w)
{
    return w->sliding_ms ? LIFETIME_WORDS_MAX : w->grace_ms || w->load_ms || w->lags;
}

/* ---- bytes ---- */

uint32_t write_bytes(const struct write *w)
{
    return entry_bytes(w->key_bytes, w->tags + write_lifetime_words(w), w->body_bytes);
}

/* Where the tags begin. */
static a64 *write_put_lifetime(const struct write *w, a64 *at, uint64_t now_ms)
{
    uint32_t words = write_lifetime_words(w),
             load_ms = w->load_ms < LIFETIME_LOAD_BITS ? w->load_ms : LIFETIME_LOAD_BITS;
    if (words)
        store_relaxed(&at[0], w->grace_ms | (uint64_t)load_ms << LIFETIME_LOAD_SHIFT |
                                  (w->lags ? LIFETIME_LAGS : 0) |
                                  (w->sliding_ms ? LIFETIME_SLIDES | LIFETIME_LOOKED_AT : 0));
    if (words > 1) {
        store_relaxed(&at[1], write_end_in(w, now_ms, w->ttl_ms));
        store_relaxed(&at[2], w->sliding_ms);
    }
    return at + words;
}

void write_put(struct attachment *a, const struct write *w, const struct place *at, uint64_t flags,
               uint64_t loaded_ms, uint64_t now_ms)
{
    a64 *e = page_at(a, at->page, at->off);
    uint64_t expires = write_expires_of(w, now_ms);
    flags |= expires << ENTRY_EXPIRES_SHIFT | (uint64_t)write_ttl_class(w->ttl_ms) << ENTRY_TTL_CLASS_SHIFT |
             w->type;
    store_relaxed(&e[ENTRY_HASH], w->hash);
    store_relaxed(&e[ENTRY_EXPIRES_FLAGS], flags | (w->local ? ENTRY_LOCAL : 0));
    uint64_t shape = (w->body == w->value ? 0 : ENTRY_SPANS) |
                     (write_lifetime_words(w) ? ENTRY_LIFETIME : 0) | (uint64_t)w->tags << ENTRY_TAGS_SHIFT;
    store_relaxed(&e[ENTRY_STORED],
                  (uint64_t)clock_stamp(loaded_ms) << ENTRY_STORED_SHIFT | shape | w->value_bytes);
    a64 *at_tags = write_put_lifetime(w, e + ENTRY_HEADER_WORDS, now_ms);
    racing_write(at_tags, w->tag, (size_t)w->tags * 8);
    racing_write(at_tags + w->tags, w->key, w->key_bytes);
    racing_write(at_tags + w->tags + words_of(w->key_bytes), w->body, w->body_bytes);
}

uint16_t write_digest(const struct attachment *a, const struct write *w, const struct place *at)
{
    if (!a->has_bridge || w->body != w->value)
        return 0;
    const a64 *tags = page_at(a, at->page, at->off) + ENTRY_HEADER_WORDS + write_lifetime_words(w);
    const a64 *value = tags + w->tags + words_of(w->key_bytes);
    return digest_bits(
        write_digest_of(a, w->type, write_ttl_class(w->ttl_ms), tags, w->tags, value, w->value_bytes));
}

bool write_reserve(struct attachment *a, struct write *w, struct place *at, uint64_t now_ms)
{
    bool written = true;
    w->body = w->value;
    w->body_bytes = w->value_bytes;
    if (w->value_bytes > a->span_bytes) {
        written = span_write(a, w->hash, w->value, w->value_bytes, write_ends(w, now_ms));
        w->body = a->span_words;
        w->body_bytes = span_count(a, w->value_bytes) * 8;
    }
    bool has_room = written && (w->in_main ? evict_make_room_in_main(a, write_bytes(w), at)
                                           : evict_make_room(a, write_bytes(w), at));
    a->span_hash = 0; /* the words of the spans are final: they are copied next */
    return has_room;
}
