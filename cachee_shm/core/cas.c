/* cas.c - gets and cas. See cas.h. */
#include "cas.h"

/* Replace the entry by the new value, under the version and flags of the old one. False: the old entry was
 * changed or evicted meanwhile, and nothing was replaced. */
static bool cas_take_its_place(struct attachment *a, struct write *w, const struct entry_ref *e,
                               const struct place *at, uint64_t now_ms)
{
    write_put(a, w, at, e->flags_word & ENTRY_ADD, now_ms, now_ms);
    store_relaxed(&page_at(a, at->page, at->off)[ENTRY_VERSION], version_word(e->version, w->key_bytes));
    if (!entry_confirm(e))
        return false;
    pages_commit(a, at, write_bytes(w), 1, write_ends(w, now_ms));
    return index_move(e->word_at, e->word, at, policy_overwrite(a, e->word));
}

static enum cas cas_change(struct attachment *a, struct write *w, uint64_t token)
{
    struct entry_ref e;
    struct place at;
    uint64_t now_ms = clock_ms(a);
    if (cache_find(a, w->hash, w->key, w->key_bytes, &e) != FOUND || cas_token(&e) != token)
        return CAS_LOST;
    bool local = entry_local(&e);
    w->tags = (uint8_t)e.tags;
    racing_read(w->tag, entry_tags(&e), (size_t)e.tags * 8);
    if (!entry_confirm(&e))
        return CAS_LOST;
    if (!local)
        return CAS_OTHER;
    if (!w->store_nothing && !write_reserve(a, w, &at, now_ms))
        return CAS_NO_ROOM;
    if (w->store_nothing ? !index_kill(e.word_at, e.word) : !cas_take_its_place(a, w, &e, &at, now_ms))
        return CAS_LOST;
    pages_note_dead(a, &e);
    return CAS_DONE;
}

enum cas cache_cas(struct attachment *a, struct write *w, uint64_t token)
{
    enum cas result = w->value_bytes > value_bytes_max(a) ? CAS_TOO_LARGE : cas_change(a, w, token);
    return cache_orphaned(a) ? CAS_GONE : result;
}
