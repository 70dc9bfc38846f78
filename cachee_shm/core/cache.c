/* cache.c - get, set, delete, add, fill, touch: the steps of each verb, in their order. See cache.h.
 *
 *   verb       steps
 *   ---------  ---------------------------------------------------------------------------------------------
 *   set        intent, room and bytes, record + fence, entry. If the entry is refused, older ones are removed
 *   add        as set, but without an intent, and its record is no event. Repeated until the add has stored
 *              its value or has seen another's
 *   set, fenced (`writing`)  as set; the entry is refused if the key, a tag or a clear moved since the token
 *   fill       room and bytes, entry under the token. No record and no intent: no other host is told
 *   delete     intent, record + fence, remove what is older
 *   tag, clear record + fence. Entries are refused by the fence when they are read
 *   touch, incr, slide   room, a copy under the same version, one CAS. No record: no other host has a copy
 *              of this entry, and a lifetime is each host's own
 *
 * Why in this order. Once the record is in the ring, every host will hear of the write, whatever happens to
 * this process. The fence is raised before the ring's tail passes the record (ring.c). So a fill whose token
 * was taken before the record is refused, and a fill whose token was taken after it is not. The entry comes
 * last, because its version is the record's sequence.
 *
 * What a death leaves:
 *
 *   before the record       nothing but the intent. The sweep evicts and announces the key: one eviction too
 *                           many, since the write may not have happened
 *   between record and entry  the record is announced. Older values are refused by the fence, or the bridge
 *                           removes them (relay_heal), or the next sweep does, because of the intent
 *   after the entry         the write has happened; the intent costs one eviction
 *
 * Two hosts that store the same value must not evict each other's copy for ever. A set's record carries a
 * digest of the value, and a host that holds the same bytes keeps them (relay.c). A set of a key that another
 * host has written within the last second is announced and not stored (STORE_GUARDED), because its value may
 * have been read from the origin before that write (ring.c, "The guard").
 *
 * A read trusts nothing that it has not compared. index_find gives an entry whose key is the caller's;
 * cache_serves asks whether it may be served (fences, lifetime, isolation); the caller copies the value;
 * cache_confirm compares the page word and the index word once more. Only then does the copy count.
 *
 * Garbage in a fence could refuse a key for ever, and garbage in the ring's words cannot be repaired in
 * place. Both retire the segment: each process attaches to a new one, which begins empty.
 */
#include "cache.h"

#include "arming.h"
#include "lag.h"

enum {
    ADD_TRIES_MAX = 64, /* each failed try means that another verb of this key succeeded */
};

#define NOW UINT64_MAX

/* A damaged ring or fence cannot be repaired in place: every process re-attaches to a new segment. */
static enum store cache_retire(struct attachment *a)
{
    count(a, STAT_CORRUPT, 1);
    store_release(&a->header->state, SEGMENT_RETIRED);
    return STORE_CORRUPT;
}

static void cache_slide(struct attachment *a, const struct entry_ref *e);

/* ---- reading ---- */

/* Must this entry not be served, because the host is isolated (serve_until_ms has passed)? SERVE_NOTHING: the
 * bridge serves a segment of another layout, and nothing of this one may be served. Otherwise by policy. Cap:
 * entries that are older than isolation_ttl are withheld. Flush: entries from before the isolation too, also
 * if the bridge is dead and evicts nothing. Serve: entries that are too old are counted and served. */
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
    if (a->on_isolation != ON_ISOLATION_SERVE)
        return true;
    journal_key(a, e->hash, JOURNAL_STALE_SERVED, WHY_ISOLATED, e->version >> 1);
    return false;
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

/* A fence of a range or a clear that is ahead of the tail is garbage, and would hide whatever is stored. If
 * there is one, retire the segment. */
static void cache_check_fences(struct attachment *a, const struct entry_ref *e)
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
    cache_check_fences(a, e);
    return FOUND_NOTHING;
}

static NEVER_INLINE void cache_look_at_use(struct attachment *a, struct entry_ref *e)
{
    if (e->word & INDEX_ARMED)
        arming_read(a, e);
    if (entry_slides(e))
        cache_slide(a, e);
}

/* An entry was found and is about to be used: report an armed key, prolong a sliding lifetime. */
static enum finding cache_used(struct attachment *a, struct entry_ref *e, enum finding f)
{
    if (UNLIKELY(entry_looked_at(e)) && f == FOUND)
        cache_look_at_use(a, e);
    return f;
}

enum finding cache_find(struct attachment *a, uint64_t hash, const void *key, uint32_t key_bytes,
                        struct entry_ref *e)
{
    enum finding f =
        index_find(a, hash, key, key_bytes, e) ? cache_used(a, e, cache_serves(a, e)) : FOUND_NOTHING;
    if (UNLIKELY(f == FOUND_NOTHING) && a->prewarm && !a->looks_ahead)
        prewarm_missed(a, hash, clock_ms(a));
    return f;
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
    if (UNLIKELY(policy_hit(e->word_at, e->word)) && a->prewarm)
        prewarm_hit(a, e->hash, clock_ms(a));
    return true;
}

void cache_drop_broken(struct attachment *a, const struct entry_ref *e)
{
    bool whole = pages_hold_spans(a, e);
    if (whole || !entry_confirm(e) || !index_kill(e->word_at, e->word))
        return;
    pages_note_dead(a, e);
    journal_key(a, e->hash, JOURNAL_EVICTED, WHY_CAPACITY, 0);
}

/* ---- writing ---- */

/* Give the entry its version and publish it. Readers may see it as soon as an index word points to it. */
static enum publish cache_publish(struct attachment *a, const struct write *w, const struct place *at,
                                  uint64_t version, uint64_t now_ms)
{
    store_relaxed(&page_at(a, at->page, at->off)[ENTRY_VERSION], version_word(version, w->key_bytes));
    pages_commit(a, at, write_bytes(w), 1, write_ends(w, now_ms));
    return index_publish(a, at, w->hash, now_ms, w->ahead);
}

/* Can a producer have written the fences that this write depends on? A fence is at most one record ahead of
 * the tail. A fence further ahead is garbage, and would refuse its keys for ever. Checked when a value was
 * refused. */
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

/* Prefetch what the write will touch, so that it arrives while the write makes room and copies. */
static void cache_prefetch(const struct attachment *a, uint64_t hash)
{
    index_prefetch(a, hash);
    prefetch_to_write(fence_bucket(a, hash));
    prefetch_to_write(own_bucket(a, hash));
}

/* `started_ms`: when the value was loaded, or when its `writing` block began; NOW for a plain set. */
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

/* Tell pre-warming that this host has written the key. Its outcome is known, and nothing is loaded ahead. */
static void cache_note_written(struct attachment *a, uint64_t hash)
{
    if (UNLIKELY(a->prewarm != NULL))
        prewarm_overwritten(a, hash, clock_ms(a));
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

/* Has anything moved between the look at the fences and our record at `s`? Such an event is older than the
 * entry's version, so this is the last check that can refuse the value. */
static bool cache_moved_meanwhile(const struct attachment *a, const struct announcement *n, uint64_t s)
{
    return ring_conflict(a, n->w->hash, n->since, s - 1, false) || cache_wide_moved_since(a, n->w, n->token);
}

/* The record is in the ring. Publish the entry, unless something refuses it. */
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

/* What became of a write, for the journal. */
static NEVER_INLINE void cache_journal_write(struct attachment *a, const struct announcement *n,
                                             enum store result, uint64_t s)
{
    static const enum journal_why of[] = {
        [STORED] = WHY_NONE,         [STORE_LOST] = WHY_LOST,       [STORE_GUARDED] = WHY_GUARDED,
        [STORE_NOTHING] = WHY_TTL_0, [STORE_NO_ROOM] = WHY_NO_ROOM, [STORE_CORRUPT] = WHY_LOST,
    };
    enum journal_why why = of[result];
    if (result == STORED && n->w->local)
        why = WHY_LOCAL;
    journal_note(
        a, &(struct journal_event){
               .hash = n->w->hash, .kind = JOURNAL_WRITTEN, .why = why, .sequence = s, .digest = n->digest});
    arming_stored(a, n->w->hash);
}

/* Record, then fence, then entry. A write that does not store its value still evicts older values. */
static enum store cache_announce(struct attachment *a, struct announcement *n, enum record_kind kind)
{
    bool is_event = kind != RECORD_ADD;
    cache_note_written(a, n->w->hash);
    struct record r = {.hash = n->w->hash, .kind = kind, .own = !n->w->local, .digest = n->digest};
    if (n->w->local && is_event)
        r.kind = RECORD_LOCAL;
    if (r.kind == RECORD_GUARDED)
        r.digest = ring_guarded_bits(a, r.hash, n->digest, n->now_ms);
    uint64_t s = ring_append(a, &r);
    if (s == RING_CORRUPT)
        return cache_end(a, cache_retire(a));
    enum store result = kind == RECORD_GUARDED ? STORE_GUARDED : cache_store_entry(a, n, s);
    if ((result == STORE_LOST || result == STORE_GUARDED) && !cache_fences_believable(a, n->w))
        return cache_end(a, cache_retire(a));
    if (result != STORED && is_event)
        index_kill_lower(a, n->w->hash, s << 1);
    if (journal_may_want(a, n->w->hash))
        cache_journal_write(a, n, result, s);
    return cache_end(a, result);
}

/* Canaries are not counted. */
static void cache_count_value(struct attachment *a, const struct write *w, enum statistic which)
{
    if (LIKELY(!hash_reserved(w->hash)))
        count(a, which, 1);
}

static enum store cache_counted(struct attachment *a, const struct write *w, enum store result)
{
    static const enum statistic of[] = {
        [STORED] = STAT_SETS,        [STORE_LOST] = STAT_SETS_LOST,  [STORE_GUARDED] = STAT_SETS_GUARDED,
        [STORE_NOTHING] = STAT_SETS, [STORE_NO_ROOM] = STAT_NO_ROOM, [STORE_CORRUPT] = STAT_CORRUPT,
    };
    cache_count_value(a, w, of[result]);
    return result;
}

enum store cache_set(struct attachment *a, struct write *w)
{
    struct announcement n;
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    cache_begin(a, &n, w, 0, NOW);
    bool guarded = a->has_bridge && !w->local && n.has_room && !hash_reserved(w->hash) &&
                   ring_guards(a, w->hash, n.digest, n.now_ms);
    return cache_counted(a, w, cache_announce(a, &n, guarded ? RECORD_GUARDED : RECORD_SET));
}

/* Would a get hit? An entry that a get would not serve (it has expired, the host is cut off, or some of its
 * spans were evicted) is removed, because it could make index_publish refuse the add. */
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

/* If an add is withdrawn, no other value need be there: the set, fill or event that withdrew it may itself
 * store nothing. So the add is repeated, each time with a record of its own, until it has stored its value or
 * has seen another's. */
enum store cache_add(struct attachment *a, struct write *w)
{
    struct announcement n;
    enum store result = STORE_LOST;
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    for (int tries = 0; result == STORE_LOST && tries < ADD_TRIES_MAX && !cache_occupied(a, w); tries++) {
        cache_begin(a, &n, w, ENTRY_ADD, NOW);
        result = cache_counted(a, w, cache_announce(a, &n, RECORD_ADD));
    }
    return result == STORE_LOST && cache_is_orphaned(a, clock_ms(a)) ? STORE_CORRUPT : result;
}

/* Has the key, one of the tags, or a clear moved since the token? */
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
    n.since = ring_tail(a); /* read before the fences: later events are found by cache_moved_meanwhile */
    bool moved = token > n.since || cache_moved_since(a, w, token);
    return cache_counted(a, w, cache_announce(a, &n, moved ? RECORD_GUARDED : RECORD_SET));
}

static enum store cache_refuse_fill(struct attachment *a, const struct write *w, uint64_t token,
                                    enum journal_why why)
{
    if (w->ahead && a->prewarm)
        prewarm_fail_fill(a, w->hash);
    cache_count_value(a, w, STAT_FILLS_REFUSED);
    journal_key(a, w->hash, JOURNAL_REFUSED, why, token);
    return cache_fences_believable(a, w) ? STORE_LOST : cache_retire(a);
}

enum store cache_fill(struct attachment *a, struct write *w, uint64_t token, uint64_t started_ms)
{
    struct place at;
    uint64_t now_ms = clock_ms(a);
    if (a->prewarm && !w->ahead)
        prewarm_demanded(a);
    if (cache_too_large(a, w))
        return STORE_TOO_LARGE;
    if (token > ring_tail(a) || fence_of(a, w->hash) > token)
        return cache_refuse_fill(a, w, token, WHY_FENCE);
    uint64_t doubt_ms = doubt_until(a, w->hash);
    if (started_ms < doubt_ms && doubt_ms <= now_ms)
        /* loaded while a write's outcome was unknown, and stored after that: nothing would end the value */
        return cache_refuse_fill(a, w, token, WHY_UNKNOWN_OUTCOME);
    /* While a write of the key may still happen, the value lives until that write is announced again */
    uint64_t lag_ms = lag_end(a, w, started_ms, now_ms);
    w->last_ms = doubt_ms > now_ms ? doubt_ms : 0;
    w->last_ms = lag_ms && (!w->last_ms || lag_ms < w->last_ms) ? lag_ms : w->last_ms;
    w->lags = lag_ms != 0;
    w->grace_ms = w->last_ms ? 0 : w->grace_ms < LIFETIME_GRACE_BITS ? w->grace_ms : LIFETIME_GRACE_BITS;
    w->in_main = w->ahead && a->prewarm && prewarm_was_in_main(a, w->hash);
    if (!write_reserve(a, w, &at, now_ms)) {
        cache_count_value(a, w, STAT_NO_ROOM);
        return STORE_NO_ROOM;
    }
    write_put(a, w, &at, 0, started_ms, now_ms);
    if (w->ahead && a->prewarm)
        prewarm_begin_fill(a, w->hash);
    bool stored = cache_publish(a, w, &at, token << 1 | 1, now_ms) == PUBLISH_OK;
    if (!stored)
        return cache_refuse_fill(a, w, token, WHY_FENCE);
    cache_count_value(a, w, STAT_FILLS);
    if (journal_may_want(a, w->hash)) {
        journal_key(a, w->hash, JOURNAL_FILLED, WHY_NONE, token);
        arming_stored(a, w->hash);
    }
    return STORED;
}

/* ---- deleting ---- */

static int cache_delete_by(struct attachment *a, const struct record *r)
{
    store_release(&a->me->verb_hash, r->hash); /* INTENT */
    cache_note_written(a, r->hash);
    uint64_t s = ring_append(a, r);
    if (s == RING_CORRUPT) {
        cache_end(a, cache_retire(a));
        return -1;
    }
    uint32_t killed = index_kill_lower(a, r->hash, s << 1);
    count(a, STAT_DELETES, 1);
    journal_key(a, r->hash, JOURNAL_DELETED,
                r->kind == RECORD_LOCAL       ? WHY_LOCAL
                : r->digest == RECORD_UNKNOWN ? WHY_UNKNOWN_OUTCOME
                                              : WHY_NONE,
                s);
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
    else
        journal_key(a, hash, JOURNAL_DELETED, kind == RECORD_TAG ? WHY_TAG : WHY_CLEAR, s);
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

enum { CHANGE_TRIES_MAX = 1 << 12 /* each failed try means that another change succeeded */ };

/* False: the page was reused while it was copied, so the copy is garbage. */
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

/* When an entry ends that gets this lifetime now. While a write with an unknown outcome may still happen, a
 * loaded value may be the row from before that write, so its lifetime ends when that write is announced
 * again (doubt.h). A value that a worker of this host set, local or not, is no copy of that row, and is not
 * shortened. */
static uint64_t cache_touched_ends(const struct attachment *a, const struct entry_ref *e, uint64_t ttl_ms,
                                   uint64_t now_ms)
{
    uint64_t ends = ttl_ms == TOUCH_ENDS_NOW ? now_ms : ttl_ms ? now_ms + ttl_ms : 0;
    return entry_is_fill(e) ? lag_touched(e, doubt_capped(a, e->hash, now_ms, ends)) : ends;
}

static bool cache_touch_copy(struct attachment *a, const struct entry_ref *e, const struct place *at,
                             uint64_t ttl_ms)
{
    if (!cache_copy_to(a, e, at))
        return false;
    a64 *flags_at = &page_at(a, at->page, at->off)[ENTRY_EXPIRES_FLAGS];
    uint64_t now_ms = clock_ms(a), ends = cache_touched_ends(a, e, ttl_ms, now_ms), expires = ends;
    if (entry_slides(e)) {
        expires = !ends || now_ms + entry_period_ms(e) < ends ? now_ms + entry_period_ms(e) : ends;
        store_relaxed(&page_at(a, at->page, at->off)[ENTRY_HEADER_WORDS + 1], ends);
    }
    uint64_t kept = load_relaxed(flags_at) & (ENTRY_TYPE_BITS | ENTRY_LOCAL | ENTRY_ADD);
    store_relaxed(flags_at, kept | expires << ENTRY_EXPIRES_SHIFT |
                                (uint64_t)write_ttl_class(ttl_ms == TOUCH_ENDS_NOW ? 1 : ttl_ms)
                                    << ENTRY_TTL_CLASS_SHIFT);
    return cache_swap_in(a, e, at, expires ? expires + entry_grace_ms(e) : 0);
}

/* A use in the last half of the period replaces the entry by a copy that ends later. Of several processes
 * that do so at once, the first succeeds. No other host is told, because each host counts its own uses. The
 * time of the load and the end of the whole lifetime stay as they are. */
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

/* Add to the entry's number. The caller confirms the entry before it uses the result. */
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
