/* relay.c - see relay.h. */
#include "relay.h"

/* ---- packing ---- */

/* A key at most once per batch. Records of one key merge before they are sent: equal kind and digest stay,
 * anything else becomes an unconditional eviction: a delete and a set of the old bytes, merged into "set,
 * digest", would leave the old entry at a peer although it was deleted in between. */
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

/* The full digest of exactly the value that this record announced; 0 when that value is not there (any
 * more). */
static uint64_t relay_digest_of_record(const struct attachment *a, uint64_t hash, uint64_t sequence)
{
    struct candidates c = index_candidates(a, hash);
    for (int i = index_next(&c, 0); i < CANDIDATE_WORDS; i = index_next(&c, i + 1)) {
        struct entry_ref e;
        uint64_t word = load_acquire(index_word(&c, i));
        if ((word & INDEX_PENDING) || !entry_open(a, word, &e) || e.hash != hash ||
            e.version != sequence << 1)
            continue;
        if (entry_spans(&e))
            return 0;
        uint64_t digest = entry_digest(a, &e);
        return entry_confirm(&e) ? digest : 0;
    }
    return 0;
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
        return WIRE_KEY_SET;
    default:
        return WIRE_KEY;
    }
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

static bool relay_gather(const struct attachment *a, struct batch *b, uint64_t sequence)
{
    struct record r;
    if (!ring_read(a, sequence, &r))
        return false;
    if (!r.own)
        return true;
    if (record_is_range(&r))
        return false; /* it has no form on the wire: a map of buckets stands for it */
    struct merged m = {.hash = r.kind == RECORD_CLEAR ? 0 : r.hash, .kind = relay_wire_kind_of(r.kind)};
    if (r.kind == RECORD_KEY && r.digest == RECORD_UNKNOWN)
        m.kind = WIRE_KEY_UNKNOWN; /* beside a KEY of the same key: merged with it, it would not cap fills */
    if (m.kind == WIRE_KEY_SET)
        m.digest = relay_digest_of_record(a, r.hash, sequence);
    relay_merge(b, &m);
    return true;
}

enum relay relay_pack(const struct attachment *a, uint64_t *cursor, uint32_t records_max, unsigned char *out,
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
        *cursor = tail; /* lapped: what a dead writer owed stands in its roster slot, and the sweep pays it */
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
    static const uint8_t length_of[] = {0, 9, 17, 9, 1, 1, 0, 9};
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
    if (same)
        count(a, STAT_APPLIED_KEPT, 1);
    return same;
}

static bool relay_apply_one(struct attachment *a, uint16_t source, const struct wire_record *w)
{
    static const enum record_kind kind_of[] = {
        [WIRE_KEY] = RECORD_KEY,     [WIRE_KEY_SET] = RECORD_SET, [WIRE_TAG] = RECORD_TAG,
        [WIRE_CLEAR] = RECORD_CLEAR, [WIRE_ALL] = RECORD_ALL,     [WIRE_KEY_UNKNOWN] = RECORD_KEY,
    };
    struct record r = {.hash = w->hash, .kind = kind_of[w->kind], .source = source};
    if (w->kind == WIRE_KEY_SET)
        r.digest = digest_bits(w->digest);
    if (w->kind == WIRE_KEY_UNKNOWN) {
        r.digest = RECORD_UNKNOWN;
        doubt_raise(a, w->hash);
    } else if (w->kind == WIRE_ALL) {
        doubt_raise_all(a); /* it stands for whatever was missed */
    }
    uint64_t s = ring_append(a, &r);
    if (s == RING_CORRUPT)
        return false;
    if (r.kind == RECORD_KEY)
        count(a, STAT_INVALIDATED, index_kill_unless(a, w->hash, s << 1, index_spares_local, NULL));
    else if (w->kind == WIRE_KEY_SET)
        count(a, STAT_INVALIDATED, index_kill_unless(a, w->hash, s << 1, relay_spared_by_set, w));
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
