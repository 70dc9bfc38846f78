/* cache.c - get, set, delete, add, fill, touch. See cache.h. */
#include "cache.h"

enum {
    ADD_TRIES_MAX = 64, /* each means that another verb of this key got further */
};

#define NOW UINT64_MAX

/* Ring corruption cannot be repaired in place: everybody re-attaches to a new segment. */
static enum store cache_retire(struct attachment *a)
{
    count(a, STAT_CORRUPT, 1);
    store_release(&a->header->state, SEGMENT_RETIRED);
    return STORE_CORRUPT;
}

static void cache_slide(struct attachment *a, const struct entry_ref *e);

/* ---- reading ---- */

/* Served by the bridge of another layout? Then nothing is. Cut off from a source, and too old for that by the
 * policy? Flush: all from before it counts as evicted, also where the bridge is dead and evicts nothing.
 * Serve: it is only counted. */
static NEVER_INLINE bool cache_withheld(struct attachment *a, const struct entry_ref *e, uint64_t now_ms,
                                        uint64_t until_ms)
{
    if (until_ms == SERVE_NOTHING)
        return true;
    if (entry_local(e))
        return false;
    uint64_t age_ms = clock_age_ms(entry_stored_at(e), now_ms);
    bool before = a->on_isolation == ON_ISOLATION_FLUSH && age_ms >= now_ms - until_ms;
    if (age_ms <= a->isolation_ttl_ms && !before)
        return false;
    count(a, STAT_ISOLATED, 1);
    return a->on_isolation != ON_ISOLATION_SERVE;
}

static ALWAYS_INLINE enum finding cache_serves_by_age(struct attachment *a, const struct entry_ref *e)
{
    if (!entry_expires_ms(e) && !a->has_bridge)
        return FOUND;
    uint64_t now_ms = clock_ms(a);
    if (roster_gone(a, now_ms))
        return FOUND_NOTHING;
    if (a->has_bridge) {
        uint64_t until_ms = load_acquire(&a->header->serve_until_ms);
        if (UNLIKELY(now_ms > until_ms) && cache_withheld(a, e, now_ms, until_ms))
            return FOUND_NOTHING;
    }
    if (!entry_expired(e, now_ms))
        return FOUND;
    if (now_ms < entry_expires_ms(e) + entry_grace_ms(e))
        return FOUND_STALE;
    count(a, STAT_EXPIRED, 1);
    return FOUND_NOTHING;
}

/* A fence of a range or a clear that is ahead of the tail is garbage, and would hide whatever is stored. */
static void cache_doubt_fences(struct attachment *a, const struct entry_ref *e)
{
    uint64_t clear = clear_of(a, entry_local(e)), range = range_fence_of(a, e->hash),
             newest = clear > range ? clear : range;
    if (newest > ring_tail(a) + 1) /* read last: it has moved at most one less than any of them */
        cache_retire(a);
}

static ALWAYS_INLINE enum finding cache_serves(struct attachment *a, const struct entry_ref *e)
{
    if (LIKELY(entry_valid(a, e)))
        return cache_serves_by_age(a, e);
    cache_doubt_fences(a, e);
    return FOUND_NOTHING;
}

/* A use of what was found. */
static enum finding cache_used(struct attachment *a, const struct entry_ref *e, enum finding f)
{
    if (UNLIKELY(entry_slides(e)) && f == FOUND)
        cache_slide(a, e);
    return f;
}

enum finding cache_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                        struct entry_ref *e)
{
    return index_find(a, hash, key, key_bytes, e) ? cache_used(a, e, cache_serves(a, e)) : FOUND_NOTHING;
}

enum finding cache_find_again(struct attachment *a, struct entry_ref *e, bool *still)
{
    *still = index_still(e) && (!entry_spans(e) || pages_hold_spans(a, e));
    return *still ? cache_used(a, e, cache_serves(a, e)) : FOUND_NOTHING;
}

bool cache_confirm(struct attachment *a, const struct entry_ref *e)
{
    if (!entry_confirm(e)) {
        count(a, STAT_RETRIES, 1);
        return false;
    }
    policy_hit(e->word_at, e->word);
    return true;
}

void cache_drop_broken(struct attachment *a, const struct entry_ref *e)
{
    bool whole = pages_hold_spans(a, e);
    if (!whole && entry_confirm(e) && index_kill(e->word_at, e->word))
        pages_note_dead(a, e);
}

/* ---- counting ---- */

enum {
    COUNT_BUCKETS_MAX = 1 << 14, /* 1 MiB of words */
    COUNT_LOOKS_MAX = 1 << 12,   /* each may be a cache miss */
};

static bool cache_is_shown(uint64_t word) { return word && !(word & INDEX_PENDING); }

static bool cache_is_readable(const struct attachment *a, uint64_t word, uint64_t now_ms)
{
    struct entry_ref e;
    return entry_open(a, word, &e) && entry_valid(a, &e) &&
           (!entry_expires_ms(&e) || now_ms < entry_expires_ms(&e) + entry_grace_ms(&e));
}

/* Of the words of every `stride`-th bucket, look at every `step`-th that is shown. */
struct sample {
    uint64_t shown, looks, readable;
};

static struct sample cache_sample(const struct attachment *a, uint64_t stride, uint64_t step, uint64_t now_ms)
{
    struct sample s = {0};
    for (uint64_t bucket = 0; bucket < a->geo.bucket_count; bucket += stride) {
        for (uint32_t i = 0; i < BUCKET_WORDS; i++) {
            uint64_t word = load_relaxed(&a->index[bucket * BUCKET_WORDS + i]);
            if (!cache_is_shown(word) || s.shown++ % step)
                continue;
            s.looks++;
            s.readable += cache_is_readable(a, word, now_ms);
        }
    }
    return s;
}

uint64_t cache_count(const struct attachment *a)
{
    uint64_t buckets = a->geo.bucket_count, stride = buckets / COUNT_BUCKETS_MAX + 1,
             sampled = (buckets + stride - 1) / stride;
    uint64_t shown = cache_sample(a, stride, UINT64_MAX, 0).shown;
    struct sample s = cache_sample(a, stride, shown / COUNT_LOOKS_MAX + 1, clock_ms(a));
    return s.looks ? s.shown * s.readable / s.looks * buckets / sampled : 0;
}

/* ---- writing ---- */

/* The entry gets its version, and counts from here on: readers may see it once a word points to it. */
static enum publish cache_publish(struct attachment *a, const struct write *w, const struct place *at,
                                  uint64_t version, uint64_t now_ms)
{
    store_relaxed(&page_at(a, at->page, at->off)[ENTRY_VERSION], version_word(version, w->key_bytes));
    pages_commit(a, at, write_bytes(w), 1, write_ends(w, now_ms));
    return index_publish(a, at, w->hash, now_ms);
}

/* A record's fence is raised before the tail passes it, and never further: one that is ahead of the tail is
 * garbage, and would refuse its keys for ever. Asked when something was refused. */
static bool cache_fences_believable(const struct attachment *a, const struct write *w)
{
    uint64_t newest = fence_of(a, w->hash), clear = clear_of(a, w->local);
    newest = clear > newest ? clear : newest;
    uint64_t range = range_fence_of(a, w->hash);
    newest = range > newest ? range : newest;
    for (uint32_t i = 0; i < w->tags; i++) {
        uint64_t tag = tag_fence_of(a, w->tag[i]);
        newest = tag > newest ? tag : newest;
    }
    return newest <= ring_tail(a) + 1; /* read last: it has moved at most one less than any of them */
}

struct announcement { /* a write on its way */
    struct write *w;
    struct place place;
    uint64_t now_ms;
    /* fenced: a tag or clear after the token, or a key event after `since`, refuses the value */
    uint64_t token, since;
    uint16_t digest;
    bool has_room, fenced;
};

static bool cache_too_large(const struct attachment *a, const struct write *w)
{
    return w->value_bytes > value_bytes_max(a);
}

/* What a write will touch is asked for while it makes room and copies. */
static void cache_prefetch(const struct attachment *a, uint64_t hash)
{
    index_prefetch(a, hash);
    prefetch_to_write(fence_bucket(a, hash));
    prefetch_to_write(own_bucket(a, hash));
}

/* `started_ms`: since when the value may be old, or NOW. */
static void cache_begin(struct attachment *a, struct announcement *n, struct write *w, uint64_t flags,
                        uint64_t started_ms)
{
    cache_prefetch(a, w->hash);
    *n = (struct announcement){.w = w, .now_ms = clock_ms(a)};
    if (!(flags & ENTRY_ADD))                      /* a dead add owes no eviction */
        store_release(&a->me->verb_hash, w->hash); /* INTENT */
    n->has_room = !w->store_nothing && write_reserve(a, w, &n->place, n->now_ms);
    if (n->has_room) {
        write_put(a, w, &n->place, flags, started_ms < n->now_ms ? started_ms : n->now_ms, n->now_ms);
        n->digest = write_digest(a, w, &n->place);
    }
}

static bool cache_is_orphaned(struct attachment *a, uint64_t now_ms)
{
    return roster_gone(a, now_ms) || load_acquire(&a->header->state) == SEGMENT_RETIRED;
}

bool cache_orphaned(struct attachment *a)
{
    a->wrote_ms = clock_ms(a);
    return cache_is_orphaned(a, a->wrote_ms);
}

/* If the segment has a successor, the caller repeats the write there. This is asked last: a writer that was
 * stopped in the middle of its verb must not be told that it has written. */
static enum store cache_end(struct attachment *a, enum store result)
{
    store_release(&a->me->verb_hash, 0);
    doorbell_ring(a);
    return cache_orphaned(a) ? STORE_CORRUPT : result;
}

/* Has a clear or one of the write's tags moved since the token? */
static bool cache_wide_moved_since(const struct attachment *a, const struct write *w, uint64_t token)
{
    bool moved = clear_of(a, w->local) > token;
    for (uint32_t i = 0; !moved && i < w->tags; i++)
        moved = tag_fence_of(a, w->tag[i]) > token;
    return moved;
}

/* What came between the look at the fences and our record would be older than the entry's version, so nothing
 * after this would refuse it. */
static bool cache_moved_meanwhile(const struct attachment *a, const struct announcement *n, uint64_t s)
{
    return ring_conflict(a, n->w->hash, n->since, s - 1, false) || cache_wide_moved_since(a, n->w, n->token);
}

/* The record is in the ring; now the entry, unless something refuses it. */
static enum store cache_store_entry(struct attachment *a, const struct announcement *n, uint64_t s)
{
    if (n->w->store_nothing)
        return STORE_NOTHING;
    if (!n->has_room)
        return STORE_NO_ROOM;
    if (n->fenced && cache_moved_meanwhile(a, n, s))
        return STORE_GUARDED;
    return cache_publish(a, n->w, &n->place, s << 1, n->now_ms) == PUBLISH_OK ? STORED : STORE_LOST;
}

/* Record, then fence, then entry. Whatever is not stored still evicts what is older. */
static enum store cache_announce(struct attachment *a, struct announcement *n, enum record_kind kind)
{
    bool is_event = kind != RECORD_ADD;
    struct record r = {.hash = n->w->hash, .kind = kind, .own = !n->w->local, .digest = n->digest};
    if (n->w->local && is_event)
        r.kind = RECORD_LOCAL;
    if (r.kind == RECORD_GUARDED)
        r.digest = ring_guard_bits(a, r.hash);
    uint64_t s = ring_append(a, &r);
    if (s == RING_CORRUPT)
        return cache_end(a, cache_retire(a));
    enum store result = kind == RECORD_GUARDED ? STORE_GUARDED : cache_store_entry(a, n, s);
    if ((result == STORE_LOST || result == STORE_GUARDED) && !cache_fences_believable(a, n->w))
        return cache_end(a, cache_retire(a));
    if (result != STORED && is_event)
        index_kill_lower(a, n->w->hash, s << 1);
    return cache_end(a, result);
}

static enum store cache_counted(struct attachment *a, enum store result)
{
    static const enum statistic of[] = {
        [STORED] = STAT_SETS,        [STORE_LOST] = STAT_SETS_LOST,  [STORE_GUARDED] = STAT_SETS_GUARDED,
        [STORE_NOTHING] = STAT_SETS, [STORE_NO_ROOM] = STAT_NO_ROOM, [STORE_CORRUPT] = STAT_CORRUPT,
    };
    count(a, of[result], 1);
    return result;
}

enum store cache_set(struct attachment *a, struct write *w)
{
    struct announcement n;
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    cache_begin(a, &n, w, 0, NOW);
    bool guarded = a->has_bridge && !w->local && n.has_room && ring_guards(a, w->hash, n.digest, n.now_ms);
    return cache_counted(a, cache_announce(a, &n, guarded ? RECORD_GUARDED : RECORD_SET));
}

/* Would a get hit? What it would not serve (it expired, or the host is cut off, or spans of it have fallen
 * out) is removed: else it could stand against the add. */
static bool cache_occupied(struct attachment *a, const struct write *w)
{
    struct entry_ref e;
    if (!index_find(a, w->hash, w->key, w->key_bytes, &e))
        return false;
    if (cache_serves(a, &e) != FOUND)
        index_kill(e.word_at, e.word);
    else if (!entry_spans(&e) || pages_hold_spans(a, &e))
        return true;
    else
        cache_drop_broken(a, &e);
    return false;
}

/* An add that is withdrawn has lost to nobody yet: the set, fill or event that withdrew it may itself leave
 * nothing. It tries again, with a record of its own each time, until it has stored its value or has seen
 * another's. */
enum store cache_add(struct attachment *a, struct write *w)
{
    struct announcement n;
    enum store result = STORE_LOST;
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    for (int tries = 0; result == STORE_LOST && tries < ADD_TRIES_MAX && !cache_occupied(a, w); tries++) {
        cache_begin(a, &n, w, ENTRY_ADD, NOW);
        result = cache_counted(a, cache_announce(a, &n, RECORD_ADD));
    }
    return result == STORE_LOST && cache_is_orphaned(a, clock_ms(a)) ? STORE_CORRUPT : result;
}

/* Has anything that counts for this write moved since the token? */
static bool cache_moved_since(const struct attachment *a, const struct write *w, uint64_t token)
{
    uint64_t fence = fence_of(a, w->hash);
    return (fence > token && ring_conflict(a, w->hash, token, fence, false)) ||
           cache_wide_moved_since(a, w, token);
}

enum store cache_set_fenced(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms)
{
    struct announcement n;
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    cache_begin(a, &n, w, 0, started_ms);
    n.fenced = true;
    n.token = token;
    n.since = ring_tail(a); /* before the look: whatever comes after it is found in the ring */
    bool moved = token > n.since || cache_moved_since(a, w, token);
    return cache_counted(a, cache_announce(a, &n, moved ? RECORD_GUARDED : RECORD_SET));
}

static enum store cache_refuse_fill(struct attachment *a, const struct write *w)
{
    count(a, STAT_FILLS_REFUSED, 1);
    return cache_fences_believable(a, w) ? STORE_LOST : cache_retire(a);
}

enum store cache_fill(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms)
{
    struct place at;
    uint64_t now_ms = clock_ms(a);
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    if (token > ring_tail(a) || fence_of(a, w->hash) > token)
        return cache_refuse_fill(a, w);
    uint64_t doubt_ms = doubt_until(a, w->hash);
    if (started_ms < doubt_ms && doubt_ms <= now_ms)
        return cache_refuse_fill(a, w); /* read in the doubt, stored behind it: nothing would end it */
    /* its last write may still happen: until it is announced again */
    w->last_ms = doubt_ms > now_ms ? doubt_ms : 0;
    w->grace_ms = w->last_ms ? 0 : w->grace_ms;
    if (!write_reserve(a, w, &at, now_ms)) {
        count(a, STAT_NO_ROOM, 1);
        return STORE_NO_ROOM;
    }
    write_put(a, w, &at, 0, started_ms, now_ms);
    bool stored = cache_publish(a, w, &at, token << 1 | 1, now_ms) == PUBLISH_OK;
    if (!stored)
        return cache_refuse_fill(a, w);
    count(a, STAT_FILLS, 1);
    return STORED;
}

/* ---- deleting ---- */

static int cache_delete_by(struct attachment *a, const struct record *r)
{
    store_release(&a->me->verb_hash, r->hash); /* INTENT */
    uint64_t s = ring_append(a, r);
    if (s == RING_CORRUPT) {
        cache_end(a, cache_retire(a));
        return -1;
    }
    uint32_t killed = index_kill_lower(a, r->hash, s << 1);
    count(a, STAT_DELETES, 1);
    return cache_end(a, STORED) == STORED ? killed > 0 : -1;
}

int cache_delete(struct attachment *a, uint64_t hash)
{
    return cache_delete_by(a, &(struct record){.hash = hash, .kind = RECORD_KEY, .own = true});
}

int cache_delete_unknown(struct attachment *a, uint64_t hash)
{
    return cache_delete_by(
        a, &(struct record){.hash = hash, .kind = RECORD_KEY, .own = true, .digest = RECORD_UNKNOWN});
}

int cache_delete_local(struct attachment *a, uint64_t hash)
{
    return cache_delete_by(a, &(struct record){.hash = hash, .kind = RECORD_LOCAL});
}

static int cache_announce_wide(struct attachment *a, enum record_kind kind, uint64_t hash)
{
    uint64_t s = ring_append(a, &(struct record){.hash = hash, .kind = kind, .own = true});
    if (s == RING_CORRUPT)
        cache_retire(a);
    doorbell_ring(a);
    return s == RING_CORRUPT || cache_orphaned(a) ? -1 : 0;
}

int cache_delete_tag(struct attachment *a, uint64_t tag) { return cache_announce_wide(a, RECORD_TAG, tag); }
int cache_clear(struct attachment *a) { return cache_announce_wide(a, RECORD_CLEAR, 0); }

/* ---- changing ----
 *
 * Entries are immutable: another lifetime or number is a copy under the same version, so that whatever would
 * have removed the original removes the copy. One CAS swaps them; it fails if anything has happened to the
 * key since it was found. */

enum { CHANGE_TRIES_MAX = 1 << 12 /* each means that another's change succeeded */ };

/* False: the page is another's by now. */
static bool cache_copy_to(struct attachment *a, const struct entry_ref *e, const struct place *at)
{
    entry_copy(a, e, at);
    return entry_confirm(e);
}

static bool cache_swap_in(struct attachment *a, const struct entry_ref *e, const struct place *at,
                          uint64_t ends_ms)
{
    pages_commit(a, at, entry_size(a, e), 1, ends_ms);
    bool swapped = index_move(e->word_at, e->word, at, policy_overwrite(a, e->word));
    if (swapped)
        pages_note_copied(a, e);
    return swapped;
}

static bool cache_touch_copy(struct attachment *a, const struct entry_ref *e, const struct place *at,
                             uint64_t ttl_ms)
{
    if (!cache_copy_to(a, e, at))
        return false;
    a64 *flags_at = &page_at(a, at->page, at->off)[ENTRY_EXPIRES_FLAGS];
    uint64_t now_ms = clock_ms(a), ends = doubt_capped(a, e->hash, now_ms, ttl_ms ? now_ms + ttl_ms : 0),
             expires = ends;
    if (entry_slides(e)) {
        expires = !ends || now_ms + entry_period_ms(e) < ends ? now_ms + entry_period_ms(e) : ends;
        store_relaxed(&page_at(a, at->page, at->off)[ENTRY_HEADER_WORDS + 1], ends);
    }
    uint64_t kept = load_relaxed(flags_at) & (ENTRY_TYPE_BITS | ENTRY_LOCAL | ENTRY_ADD);
    store_relaxed(flags_at, kept | expires << ENTRY_EXPIRES_SHIFT |
                                (uint64_t)write_ttl_class(ttl_ms) << ENTRY_TTL_CLASS_SHIFT);
    return cache_swap_in(a, e, at, expires ? expires + entry_grace_ms(e) : 0);
}

/* Whoever uses an entry in the last half of its period writes a copy that ends later; the first one's takes
 * its place. No other host is told: each counts its own uses. The time of the load and the end of the whole
 * lifetime stay as they are. */
static void cache_slide(struct attachment *a, const struct entry_ref *e)
{
    struct place at;
    uint64_t now_ms = clock_ms(a), period = entry_period_ms(e), ends = entry_ends_ms(e),
             expires = entry_expires_ms(e);
    uint64_t longer = ends && ends < now_ms + period ? ends : now_ms + period;
    if (!entry_confirm(e) || expires - now_ms > period / 2 || longer <= expires ||
        longer >> (64 - ENTRY_EXPIRES_SHIFT))
        return;
    if (!evict_make_room(a, entry_size(a, e), &at) || !cache_copy_to(a, e, &at))
        return;
    a64 *flags_at = &page_at(a, at.page, at.off)[ENTRY_EXPIRES_FLAGS];
    store_relaxed(flags_at, (load_relaxed(flags_at) & ((1ull << ENTRY_EXPIRES_SHIFT) - 1)) |
                                longer << ENTRY_EXPIRES_SHIFT);
    cache_swap_in(a, e, &at, longer + entry_grace_ms(e));
}

static bool cache_touch_by_copy(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                                uint64_t ttl_ms)
{
    for (int tries = 0; tries < CHANGE_TRIES_MAX; tries++) {
        struct entry_ref e;
        struct place at;
        if (cache_find(a, hash, key, key_bytes, &e) != FOUND)
            return false;
        if (!evict_make_room(a, entry_size(a, &e), &at))
            return false;
        if (cache_touch_copy(a, &e, &at, ttl_ms))
            return true;
    }
    return false;
}

int cache_touch(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, uint64_t ttl_ms)
{
    bool touched = cache_touch_by_copy(a, hash, key, key_bytes, ttl_ms);
    return cache_is_orphaned(a, clock_ms(a)) ? -1 : touched;
}

/* The page is not looked at again here: what was read counts once the copy's was confirmed. */
static enum incr cache_add_up(const struct entry_ref *e, int64_t by, bool adopts, int64_t *sum)
{
    if (entry_type(e) != TYPE_INT64 || e->value_bytes != sizeof *sum || !(adopts || entry_local(e)))
        return INCR_OTHER;
    return __builtin_add_overflow((int64_t)load_relaxed(entry_value(e)), by, sum) ? INCR_OVERFLOW : INCR_DONE;
}

static bool cache_incr_copy(struct attachment *a, const struct entry_ref *e, const struct place *at,
                            int64_t sum)
{
    uint64_t expires = entry_expires_ms(e);
    if (!cache_copy_to(a, e, at))
        return false;
    a64 *copy = page_at(a, at->page, at->off);
    store_relaxed(copy + (entry_value(e) - e->at), (uint64_t)sum);
    store_relaxed(&copy[ENTRY_EXPIRES_FLAGS], load_relaxed(&copy[ENTRY_EXPIRES_FLAGS]) | ENTRY_LOCAL);
    return cache_swap_in(a, e, at, expires ? expires + entry_grace_ms(e) : 0);
}

static enum incr cache_incr_by_copy(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                                    int64_t by, bool adopts, int64_t *sum)
{
    for (int tries = 0; tries < CHANGE_TRIES_MAX; tries++) {
        struct entry_ref e;
        struct place at;
        if (cache_find(a, hash, key, key_bytes, &e) != FOUND)
            return INCR_MISSED;
        enum incr result = cache_add_up(&e, by, adopts, sum);
        if (!entry_confirm(&e))
            continue;
        if (result != INCR_DONE)
            return result;
        if (!evict_make_room(a, entry_size(a, &e), &at))
            return INCR_NO_ROOM;
        if (cache_incr_copy(a, &e, &at, *sum))
            return INCR_DONE;
    }
    return INCR_NO_ROOM;
}

enum incr cache_incr(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes, int64_t by,
                     bool adopts, int64_t *sum)
{
    enum incr result = cache_incr_by_copy(a, hash, key, key_bytes, by, adopts, sum);
    /* a count is local: no value in the successor is older */
    return cache_is_orphaned(a, clock_ms(a)) ? INCR_GONE : result;
}
