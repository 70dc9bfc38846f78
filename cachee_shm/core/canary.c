/* canary.c - see canary.h. */
#include "canary.h"

enum { LOOK_TRIES_MAX = 16 };

static bool canary_is_served(const struct attachment *a, const struct entry_ref *e)
{
    return !(e->word & INDEX_PENDING) && entry_valid(a, e) &&
           (!entry_expires_ms(e) || clock_ms(a) < entry_expires_ms(e) + entry_grace_ms(e));
}

static void canary_describe(const struct attachment *a, const struct entry_ref *e, struct holding *h)
{
    h->local = entry_local(e);
    h->version = e->version;
    h->age_ms = clock_age_ms(entry_stored_at(e), clock_ms(a));
    h->digest = entry_spans(e) ? 0 : entry_digest(a, e);
    h->value_bytes = 0;
    if (hash_reserved(e->hash) && !entry_spans(e) && e->value_bytes <= sizeof h->value) {
        racing_read(h->value, entry_value(e), e->value_bytes);
        h->value_bytes = e->value_bytes;
    }
}

/* False: something has changed meanwhile. */
static bool canary_try(const struct attachment *a, uint64_t hash, struct holding *h)
{
    struct candidates c = index_candidates(a, hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        struct entry_ref e;
        if (!index_look(a, index_word(&c, i), c.tag_bits, hash, &e) || !canary_is_served(a, &e))
            continue;
        canary_describe(a, &e, h);
        h->held = entry_confirm(&e);
        return h->held;
    }
    return true;
}

void canary_look(const struct attachment *a, uint64_t hash, struct holding *h)
{
    *h = (struct holding){0};
    for (int tries = 0; !canary_try(a, hash, h) && tries < LOOK_TRIES_MAX; tries++)
        *h = (struct holding){0};
    h->fence = fence_of(a, hash);
}

static struct write canary_write(uint64_t hash, const void *value, uint32_t bytes)
{
    static const char key[] = "canary"; /* not a user's key: a canary is found by its hash alone */
    return (struct write){.hash = hash,
                          .key = key,
                          .key_bytes = sizeof key - 1,
                          .value = value,
                          .value_bytes = bytes,
                          .ttl_ms = CANARY_MS,
                          .type = TYPE_BYTES};
}

enum store canary_set(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes)
{
    struct write w = canary_write(hash, value, bytes);
    return cache_set(a, &w);
}

enum store canary_fill(struct attachment *a, uint64_t hash, const void *value, uint32_t bytes, uint64_t token)
{
    struct write w = canary_write(hash, value, bytes);
    return cache_fill(a, &w, token, clock_ms(a));
}
