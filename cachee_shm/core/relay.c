/* relay.c - see relay.h. */
#include "relay.h"

#include "census.h"
#include "journal.h"

/* ---- packing ---- */

/* A batch has a key at most once: records of one key are merged before they are sent. If their kinds and
 * digests are equal, one of them is sent. Otherwise an unconditional eviction is sent. Example: a delete and
 * then a set of the old bytes. Sent as the set alone, a peer would keep an entry that was deleted in
 * between. */
enum { MERGE_SLOTS = 2 * PACK_RECORDS_MAX };

struct merged {
    uint64_t hash, digest; /* digest 0: unconditional */
    enum wire_kind kind;
};

struct batch {
    struct merged items[PACK_RECORDS_MAX];
    uint16_t slot[MERGE_SLOTS]; /* item number + 1 */
    uint32_t n;
};

/* May the record be sent with this entry's digest? Yes, if the entry is the record's own (its version). Also
 * if a later set, which is announced too, has stored a value whose digest has the same known bits: peers are
 * to hold that value now. Without this, several workers of a host that set one value at the same time would
 * evict it at the peers. A local value is never announced. */
static bool relay_may_send(const struct entry_ref *e, uint64_t digest, const struct record *r,
                           uint64_t sequence)
{
    uint64_t known = r->kind == RECORD_GUARDED ? GUARDED_DIGEST_BITS : META_DIGEST_BITS;
    if (e->version == sequence << 1)
        return true;
    return e->version > sequence << 1 && !(e->version & 1) && !entry_local(e) && r->digest &&
           !((digest_bits(digest) ^ r->digest) & known);
}

/* The full digest of the value that this record announced. If the segment no longer holds it, the bits of it
 * that the record has. 0: the record has none. */
static uint64_t relay_digest_of_record(const struct attachment *a, const struct record *r, uint64_t sequence)
{
    struct candidates c = index_candidates(a, r->hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        struct entry_ref e;
        uint64_t word = load_acquire(index_word(&c, i));
        if ((word & INDEX_PENDING) || !entry_open(a, word, &e) || e.hash != r->hash || entry_spans(&e) ||
            e.version < sequence << 1)
            continue;
        uint64_t digest = entry_digest(a, &e);
        if (entry_confirm(&e) && relay_may_send(&e, digest, r, sequence))
            return digest;
    }
    return r->digest || r->kind == RECORD_GUARDED ? WIRE_SOME_BITS | (r->digest & GUARDED_DIGEST_BITS) : 0;
}

static enum wire_kind relay_wire_kind_of(enum record_kind kind)
{
    switch (kind) {
    case RECORD_TAG:
        return WIRE_TAG;
    case RECORD_CLEAR:
        return WIRE_CLEAR;
    case RECORD_SET:
    case RECORD_ADD:
    case RECORD_GUARDED:
        return WIRE_KEY_SET;
    default:
        return WIRE_KEY;
    }
}

/* Does this digest of the wire have only the bits GUARDED_DIGEST_BITS? */
static bool relay_some_bits(uint64_t digest)
{
    return (digest & ~(uint64_t)GUARDED_DIGEST_BITS) == WIRE_SOME_BITS;
}

static void relay_merge(struct batch *b, const struct merged *m)
{
    for (uint32_t i = (uint32_t)(m->hash % MERGE_SLOTS);; i = (i + 1) % MERGE_SLOTS) { /* at most half full */
        if (!b->slot[i]) {
            b->items[b->n++] = *m;
            b->slot[i] = (uint16_t)b->n;
            return;
        }
        struct merged *there = &b->items[b->slot[i] - 1];
        bool both_key = there->kind <= WIRE_KEY_SET && m->kind <= WIRE_KEY_SET;
        if (there->hash != m->hash || (there->kind != m->kind && !both_key))
            continue;
        if (both_key && (there->kind != m->kind || there->digest != m->digest))
            there->kind = WIRE_KEY, there->digest = 0;
        return;
    }
}

static uint32_t relay_emit(const struct merged *m, unsigned char *out)
{
    enum wire_kind kind = m->kind == WIRE_KEY_SET && !m->digest ? WIRE_KEY : m->kind;
    uint32_t n = 1;
    out[0] = (unsigned char)kind;
    if (kind != WIRE_CLEAR)
        memcpy(out + n, &m->hash, 8), n += 8;
    if (kind == WIRE_KEY_SET)
        memcpy(out + n, &m->digest, 8), n += 8;
    return n;
}

static bool relay_gather(struct attachment *a, struct batch *b, uint64_t sequence)
{
    struct record r;
    if (!ring_read(a, sequence, &r))
        return false;
    if (!r.own)
        return true;
    if (record_is_range(&r))
        return false; /* the wire has no such record. The caller sends a map of buckets instead */
    struct merged m = {.hash = r.kind == RECORD_CLEAR ? 0 : r.hash, .kind = relay_wire_kind_of(r.kind)};
    if (r.kind == RECORD_KEY && r.digest == RECORD_UNKNOWN)
        m.kind = WIRE_KEY_UNKNOWN; /* never merged with a KEY, which would not shorten the life of fills */
    if (m.kind == WIRE_KEY_SET)
        m.digest = relay_digest_of_record(a, &r, sequence);
    relay_merge(b, &m);
    journal_key(a, m.hash, JOURNAL_SENT, WHY_NONE, sequence);
    return true;
}

enum relay relay_pack(struct attachment *a, uint64_t *cursor, uint32_t records_max, unsigned char *out,
                      uint32_t out_bytes, uint32_t *used)
{
    struct batch b;
    memset(b.slot, 0, sizeof b.slot);
    b.n = 0;
    *used = 0;
    uint64_t tail = ring_tail(a), to = *cursor;
    uint32_t fit = out_bytes / WIRE_RECORD_BYTES_MAX,
             keys_max = fit < PACK_RECORDS_MAX ? fit : PACK_RECORDS_MAX;
    if (to > tail || tail - to > a->geo.ring_slots)
        return RELAY_LAPPED;
    uint64_t end = tail - to < records_max ? tail : to + records_max;
    for (; to < end && b.n < keys_max; to++)
        if (!relay_gather(a, &b, to + 1))
            return RELAY_LAPPED;
    for (uint32_t i = 0; i < b.n; i++)
        *used += relay_emit(&b.items[i], out + *used);
    *cursor = to;
    return RELAY_OK;
}

/* ---- healing ---- */

void relay_heal(struct attachment *a, uint64_t *cursor, uint32_t records_max)
{
    uint64_t tail = ring_tail(a);
    if (*cursor > tail || tail - *cursor > a->geo.ring_slots)
        *cursor = tail; /* lapped. What dead writers owed is in their roster slots; the sweep announces it */
    for (uint32_t n = 0; *cursor < tail && n < records_max; n++, ++*cursor) {
        struct record r;
        if (ring_read(a, *cursor + 1, &r) && r.source == 0 && record_is_key_event(&r))
            index_kill_lower(a, r.hash, (*cursor + 1) << 1);
    }
    store_release(&a->header->pump_cursor, *cursor);
}

/* ---- applying ---- */

struct wire_record {
    enum wire_kind kind;
    uint64_t hash, digest;
};

/* Parse one record. Returns its length, 0 if it is malformed. */
static uint32_t relay_parse(const unsigned char *in, uint32_t left, struct wire_record *r)
{
    static const uint8_t length_of[] = {0, 9, 17, 9, 1, 1, 0, 9, 1};
    if (in[0] >= sizeof length_of || length_of[in[0]] == 0 || length_of[in[0]] > left)
        return 0;
    r->kind = (enum wire_kind)in[0];
    uint32_t n = length_of[in[0]];
    if (n > 1)
        memcpy(&r->hash, in + 1, 8);
    if (n > 9)
        memcpy(&r->digest, in + 9, 8);
    return n;
}

static bool relay_well_formed(const unsigned char *in, uint32_t bytes)
{
    struct wire_record r;
    for (uint32_t at = 0, n; at < bytes; at += n)
        if ((n = relay_parse(in + at, bytes - at, &r)) == 0)
            return false;
    return true;
}

/* A peer's set spares local entries, and a visible entry that already holds the announced bytes (its fence
 * has moved all the same). */
static bool relay_spared_by_set(struct attachment *a, const struct entry_ref *e, const void *what)
{
    const struct wire_record *announced = what;
    if (entry_local(e))
        return true;
    bool same = !(e->word & INDEX_PENDING) && !entry_spans(e) && entry_digest(a, e) == announced->digest &&
                entry_confirm(e);
    if (same && !hash_reserved(e->hash))
        count(a, STAT_APPLIED_KEPT, 1);
    return same;
}

/* Copy what pre-warming learns from the visible entry of a hash, before an event evicts it. False: there is
 * no entry, or it is local, invalid or expired. */
static bool relay_copy(const struct attachment *a, uint64_t hash, uint64_t now_ms, struct prewarm_copy *copy)
{
    struct candidates c = index_candidates(a, hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        struct entry_ref e;
        if (!index_look(a, index_word(&c, i), c.tag_bits, hash, &e) || (e.word & INDEX_PENDING) ||
            entry_local(&e) || !entry_valid(a, &e) || entry_expired(&e, now_ms))
            continue;
        racing_read(copy->key, entry_key(&e), e.key_bytes);
        copy->key_bytes = e.key_bytes;
        copy->frequency = policy_frequency(e.word);
        copy->in_main = page_queue(e.page_word) == QUEUE_MAIN;
        copy->has_tags = e.tags > 0;
        copy->age_ms = entry_age_ms(&e, now_ms);
        return entry_confirm(&e);
    }
    return false;
}

/* Evict a key that another host has written, and let pre-warming learn from that (prewarm.h). */
static uint32_t relay_evict(struct attachment *a, const struct wire_record *w, uint64_t s,
                            index_spares *spares)
{
    struct prewarm_copy copy;
    uint64_t now_ms = clock_ms(a);
    bool learns = a->prewarm && !hash_reserved(w->hash),
         copied = learns && relay_copy(a, w->hash, now_ms, &copy);
    uint32_t killed = index_kill_unless(a, w->hash, s << 1, spares, w);
    if (learns && (killed || !copied))
        prewarm_written(a, w->hash, copied ? &copy : NULL, now_ms);
    return killed;
}

/* Enter into the journal what a peer's record did here. */
static NEVER_INLINE void relay_journal(struct attachment *a, const struct record *r, uint64_t sequence,
                                       uint32_t killed, bool kept)
{
    enum journal_why why = killed ? WHY_HAD_EVICTED : kept ? WHY_SAME_VALUE : WHY_NOT_HELD;
    if (r->kind == RECORD_TAG)
        why = WHY_TAG;
    else if (r->kind == RECORD_CLEAR || r->kind == RECORD_ALL)
        why = WHY_CLEAR;
    journal_note(a, &(struct journal_event){.hash = r->hash,
                                            .kind = JOURNAL_RECEIVED,
                                            .why = why,
                                            .sequence = sequence,
                                            .source = r->source,
                                            .digest = r->kind == RECORD_SET ? r->digest : 0});
}

static bool relay_apply_one(struct attachment *a, uint16_t source, const struct wire_record *w)
{
    static const enum record_kind kind_of[] = {
        [WIRE_KEY] = RECORD_KEY,       [WIRE_KEY_SET] = RECORD_SET, [WIRE_TAG] = RECORD_TAG,
        [WIRE_CLEAR] = RECORD_CLEAR,   [WIRE_ALL] = RECORD_ALL,     [WIRE_KEY_UNKNOWN] = RECORD_KEY,
        [WIRE_ALL_KNOWN] = RECORD_ALL,
    };
    struct record r = {.hash = w->hash, .kind = kind_of[w->kind], .source = source};
    if (w->kind == WIRE_KEY_SET && relay_some_bits(w->digest)) {
        r.kind = RECORD_GUARDED;
        r.digest = ring_guarded_bits(a, w->hash, (uint16_t)w->digest, clock_ms(a));
    } else if (w->kind == WIRE_KEY_SET) {
        r.digest = digest_bits(w->digest);
    }
    if (w->kind == WIRE_KEY_UNKNOWN) {
        r.digest = RECORD_UNKNOWN;
        doubt_raise(a, w->hash);
    } else if (w->kind == WIRE_ALL) {
        doubt_raise_all(a); /* among the missed records may be writes of unknown outcome, of any key */
    }
    if (w->kind == WIRE_ALL)
        count(a, STAT_OVEREVICTED, census_count(a));
    uint64_t s = ring_append(a, &r), kept = load_relaxed(&a->me->stats[STAT_APPLIED_KEPT]);
    if (s == RING_CORRUPT)
        return false;
    uint32_t killed = 0;
    if (r.kind == RECORD_KEY)
        killed = relay_evict(a, w, s, index_spares_local);
    else if (w->kind == WIRE_KEY_SET)
        killed = relay_evict(a, w, s, relay_spared_by_set);
    if (killed && !hash_reserved(w->hash))
        count(a, STAT_INVALIDATED, killed);
    if (journal_may_want(a, w->hash))
        relay_journal(a, &r, s, killed, kept != load_relaxed(&a->me->stats[STAT_APPLIED_KEPT]));
    return true;
}

enum relay relay_apply(struct attachment *a, uint16_t source, const unsigned char *in, uint32_t bytes,
                       uint32_t *applied)
{
    *applied = 0;
    if (!relay_well_formed(in, bytes))
        return RELAY_MALFORMED;
    ring_mark(a, clock_ms(a));
    for (uint32_t at = 0; at < bytes;) {
        struct wire_record r = {0};
        at += relay_parse(in + at, bytes - at, &r);
        if (!relay_apply_one(a, source, &r))
            return RELAY_CORRUPT;
        ++*applied;
    }
    count(a, STAT_APPLIED, *applied);
    return RELAY_OK;
}
