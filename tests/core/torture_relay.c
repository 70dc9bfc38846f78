/* torture_relay.c - pack, apply and heal between two segments, without a network.
 *
 * Directed: what is set on A is evicted on B; equal digests are kept, and every kind of unequal ones is not; local values
 * are spared and never sent; tags, clear and flush; a batch that merges records of one key; a malformed payload is refused
 * whole; a lapped cursor says so; a map of buckets evicts what is listed and nothing else, between segments of any two sizes.
 *
 * Racing: writers on A raise an origin and announce in every way there is; a relay process carries A's announcements to
 * B as a bridge does (heal, pack, apply, then the cursor; or, when it was lapped and else too, a map of buckets), now and then
 * killed, in the middle of a map too, and begun again from its stored cursor; on B readers and fillers, and a writer of keys
 * that A only deletes. Once the relay has passed a write's announcement, B must not serve an older value. Writers are killed
 * too: the sweep announces what they owe. A and B have one size, then A fewer buckets, then B.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the digest of another version is sent  0.1      apply does not kill  0.1      a guard that renews itself  0.1
 *   a map without tags                     0.1      without a clear      0.1      without fences of tags      0.1
 *   without fences of keys                 0.1      no eviction          0.1      local values are not spared 0.1
 *   a coarse map raises one fence for each bit          0.1
 *   of a cursor out of reach, not every bucket is listed 0.1
 *   its records are taken for events of no key in the ring                        6
 *
 * Not caught: no healing (the sweep on A pays the same debts; healing is what makes it soon), debts not paid
 * (torture_steps), a set's loser that does not kill (torture_index); of a map, one record alone, eviction up to the first of
 * two, and a word that is not looked at again (all three torture_steps).
 */
#include "relay_buckets.h"
#include "torture.h"

enum { MIB = 1 << 20, SEGMENT_BYTES = 4 * MIB, KEYS = 8, SHARED = 4, WRITERS = 2, READERS = 2, BATCH = 300 };
enum { WRITES, PACKED, APPLIED, LAPPED, MAPS, GETS, HITS, FILLS };
/* Workers by number: the readers, the relay, B's writer, A's writers. The last SHARED keys are written on B, and on A only deleted. */
enum { RELAY = READERS, OTHER_WRITER = READERS + 1, FIRST_WRITER = READERS + 2, WORKERS = FIRST_WRITER + WRITERS };

static const struct part {
    uint32_t bytes_a, bytes_b;
    bool lapping; /* the relay naps, and nobody waits for it */
} parts[] = {{4 * MIB, 4 * MIB, false}, {2 * MIB, 8 * MIB, true}, {8 * MIB, 2 * MIB, true}, {2 * MIB, 2 * MIB, true}};
enum { PARTS = sizeof parts / sizeof parts[0] };

static const struct part *part = &parts[0];
static int file_a, file_b;
static const uint64_t TAG_HASH = 0x7461670000000001ull;

static struct model {
    struct {
        _Alignas(64) a64 origin, returned; /* newest value; newest whose announcement has returned on A */
        a64 floor;                         /* newest whose announcement has been applied on B */
    } key[KEYS];
    a64 cursor;
} *model;

static struct segment_config relayed(uint64_t bytes)
{
    struct segment_config config = plain_config(bytes);
    config.has_bridge = true;
    return config;
}

/* ---- directed ---- */

struct pair {
    struct attachment a, b;
    uint64_t cursor;
};

static struct pair *new_pair_of(uint64_t bytes_a, uint64_t bytes_b)
{
    struct pair *p = calloc(1, sizeof *p);
    struct segment_config config_a = relayed(bytes_a), config_b = relayed(bytes_b);
    int fd_a = memory_file(), fd_b = memory_file();
    attach_to(&p->a, fd_a, &config_a);
    attach_to(&p->b, fd_b, &config_b);
    p->a.frozen_ms = p->b.frozen_ms = 1000000;
    close(fd_a);
    close(fd_b);
    return p;
}

static struct pair *new_pair(void) { return new_pair_of(SEGMENT_BYTES, SEGMENT_BYTES); }

static void end_pair(struct pair *p)
{
    segment_detach(&p->a);
    segment_detach(&p->b);
    free(p);
}

static uint32_t carry(struct pair *p)
{
    unsigned char out[PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX];
    uint32_t used, applied, sum = 0;
    for (uint64_t before = p->cursor + 1; before != p->cursor; sum += applied) {
        before = p->cursor;
        REQUIRE(relay_pack(&p->a, &p->cursor, 1000, out, sizeof out, &used) == RELAY_OK, "pack");
        REQUIRE(relay_apply(&p->b, 1, out, used, &applied) == RELAY_OK, "apply");
    }
    return sum;
}

static void put(struct attachment *a, uint32_t key, uint64_t number, uint64_t ttl_ms, bool local, uint64_t tag)
{
    unsigned char value[64];
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, value, value_make(value, key, number, 40));
    w.ttl_ms = ttl_ms;
    w.local = local;
    w.tags = tag != 0;
    w.tag[0] = tag;
    enum store r = cache_fill(a, &w, ring_tail(a), a->frozen_ms);
    REQUIRE(r == STORED, "fill: %d", (int)r);
}

static void announce(struct attachment *a, uint32_t key, uint64_t number, uint64_t ttl_ms, bool local, uint64_t tag)
{
    unsigned char value[64];
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, value, value_make(value, key, number, 40));
    w.ttl_ms = ttl_ms;
    w.local = local;
    w.tags = tag != 0;
    w.tag[0] = tag;
    REQUIRE(cache_set(a, &w) == STORED, "set");
}

static uint64_t get(struct attachment *a, uint32_t key)
{
    unsigned char value[256];
    uint32_t bytes;
    struct named_key k = key_named(a, key);
    return read_value(a, &k, value, &bytes) ? value_number(value, bytes, key) : 0;
}

static void check_digests(void)
{
    struct pair *p = new_pair();
    for (uint32_t key = 1; key <= 9; key++)
        put(&p->b, key, 1, key == 3 ? 5000 : 0, key == 7, key == 8 ? TAG_HASH : 0);
    announce(&p->a, 1, 1, 0, false, 0);                                       /* the same: stays */
    announce(&p->a, 2, 2, 0, false, 0);                                       /* other bytes */
    announce(&p->a, 3, 1, 0, false, 0);                                       /* another lifetime */
    announce(&p->a, 4, 1, 0, false, 0), announce(&p->a, 4, 2, 0, false, 0);   /* merged, unequal */
    announce(&p->a, 5, 1, 0, false, 0), cache_delete(&p->a, key_named(&p->a, 5).hash);
    announce(&p->a, 6, 2, 0, true, 0);                                        /* local here: not sent */
    announce(&p->a, 7, 2, 0, false, 0);                                       /* local there: spared */
    announce(&p->a, 8, 1, 0, false, 0);                                       /* other tags */
    carry(p);
    static const uint64_t want[] = {0, 1, 0, 0, 0, 0, 1, 1, 0, 1};
    for (uint32_t key = 1; key <= 9; key++)
        REQUIRE(get(&p->b, key) == want[key], "key %u: %llu", key, (unsigned long long)get(&p->b, key));
    uint64_t token = ring_tail(&p->b);
    announce(&p->a, 1, 1, 0, false, 0);
    carry(p);
    unsigned char value[64];
    struct named_key k = key_named(&p->b, 1);
    struct write late = write_of(&k, value, value_make(value, 1, 9, 40));
    REQUIRE(get(&p->b, 1) == 1 && cache_fill(&p->b, &late, token, 0) == STORE_LOST, "the fence of a kept value did not move");
    end_pair(p);
}

/* What was announced is v2, what is there now is local: its digest would say that v1 is current. */
static void check_digest_is_the_records_own(void)
{
    struct pair *p = new_pair();
    put(&p->b, 1, 1, 0, false, 0);
    announce(&p->a, 1, 2, 0, false, 0);
    announce(&p->a, 1, 1, 0, true, 0);
    carry(p);
    REQUIRE(get(&p->b, 1) == 0, "kept by the digest of another value");
    end_pair(p);
}

static void check_wide(void)
{
    struct pair *p = new_pair();
    put(&p->b, 1, 1, 0, false, TAG_HASH);
    put(&p->b, 2, 1, 0, false, 0);
    put(&p->b, 3, 1, 0, true, 0);
    cache_delete_tag(&p->a, TAG_HASH);
    carry(p);
    REQUIRE(!get(&p->b, 1) && get(&p->b, 2) && get(&p->b, 3), "tag");
    cache_clear(&p->a);
    carry(p);
    REQUIRE(!get(&p->b, 2) && get(&p->b, 3), "clear, or it did not spare what is local");
    put(&p->b, 2, 2, 0, false, 0);
    unsigned char all = WIRE_ALL;
    uint32_t applied;
    REQUIRE(relay_apply(&p->b, 1, &all, 1, &applied) == RELAY_OK && applied == 1, "flush");
    REQUIRE(!get(&p->b, 2) && get(&p->b, 3), "flush, or it did not spare what is local");
    REQUIRE(carry(p) == 0 && ring_tail(&p->b) > 0, "echo");
    uint64_t cursor = 0;
    unsigned char out[4096];
    uint32_t used;
    REQUIRE(relay_pack(&p->b, &cursor, 1000, out, sizeof out, &used) == RELAY_OK && used == 0, "B announces what was A's");
    end_pair(p);
}

/* A good record before the bad one: nothing of the payload is applied. */
static void check_malformed(struct chance *c)
{
    struct pair *p = new_pair();
    unsigned char in[64];
    uint32_t applied;
    uint64_t hash = key_named(&p->b, 1).hash;
    for (int i = 0; i < 2000; i++) {
        uint32_t n = 9 + 1 + chance_below(c, 40);
        for (uint32_t at = 0; at < n; at++)
            in[at] = (unsigned char)chance_next(c);
        in[0] = WIRE_KEY;
        memcpy(in + 1, &hash, 8);
        static const unsigned char bad[] = {0, 6, 9, 255};
        if (chance_below(c, 2))
            in[9] = bad[chance_below(c, 4)];
        else
            in[9] = WIRE_KEY_SET, n = 9 + 1 + chance_below(c, 16); /* cut short */
        uint64_t tail = ring_tail(&p->b);
        put(&p->b, 1, 5, 0, false, 0);
        REQUIRE(relay_apply(&p->b, 1, in, n, &applied) == RELAY_MALFORMED, "a malformed payload was taken");
        REQUIRE(applied == 0 && ring_tail(&p->b) == tail && get(&p->b, 1) == 5, "a part of a malformed payload was applied");
    }
    REQUIRE(relay_apply(&p->b, 1, in, 0, &applied) == RELAY_OK && applied == 0, "nothing at all");
    end_pair(p);
}

static void check_lapped(void)
{
    struct pair *p = new_pair();
    unsigned char out[4096];
    uint32_t used;
    uint64_t cursor = 0, n = p->a.geo.ring_slots;
    for (uint64_t i = 0; i < n; i++)
        cache_delete(&p->a, i + 1);
    REQUIRE(relay_pack(&p->a, &cursor, 10, out, sizeof out, &used) == RELAY_OK && cursor == 10 && used == 90, "a whole ring is readable");
    cursor = 0;
    cache_delete(&p->a, 1);
    REQUIRE(relay_pack(&p->a, &cursor, 10, out, sizeof out, &used) == RELAY_LAPPED, "a lapped cursor was not told");
    cursor = n + 2;
    REQUIRE(relay_pack(&p->a, &cursor, 10, out, sizeof out, &used) == RELAY_LAPPED, "a cursor above the tail was not told");
    cursor = n + 1;
    REQUIRE(relay_pack(&p->a, &cursor, 10, out, sizeof out, &used) == RELAY_OK && used == 0, "nothing new");
    end_pair(p);
}

/* A host owes a lapped peer what it announced itself, and nothing for what it has only heard, or what is local. */
static void check_owed(void)
{
    struct pair *p = new_pair();
    unsigned char in[9] = {WIRE_KEY};
    uint32_t applied;
    uint64_t n = p->b.geo.ring_slots;
    cache_delete(&p->b, 1);
    cache_delete_tag(&p->b, TAG_HASH);
    cache_clear(&p->b);
    REQUIRE(relay_owes(&p->b, 0) && relay_owes(&p->b, 1) && relay_owes(&p->b, 2), "an own record is not owed");
    for (uint64_t i = 0; i < 3 * n; i++) {
        memcpy(in + 1, &(uint64_t){i << 40 | i}, 8);
        in[0] = i % 9 ? WIRE_KEY : WIRE_TAG;
        REQUIRE(relay_apply(&p->b, 1, in, sizeof in, &applied) == RELAY_OK, "apply");
    }
    announce(&p->b, 1, 1, 0, true, 0);
    REQUIRE(relay_owes(&p->b, 2) == OWED_CLEAR, "a clear that the ring has lost is not owed");
    REQUIRE(!relay_owes(&p->b, 3), "what was only heard, or is local, is owed");
    cache_delete_tag(&p->b, TAG_HASH);
    REQUIRE(relay_owes(&p->b, 3 * n + 4) == OWED_BUCKETS && !relay_owes(&p->b, 3 * n + 5), "a tag");
    announce(&p->b, 2, 1, 0, false, 0);
    REQUIRE(relay_owes(&p->b, 3 * n + 5) && !relay_owes(&p->b, 3 * n + 6), "a key");
    REQUIRE(relay_owes(&p->b, 3 * n + 7) == OWED_ALL, "a cursor above the tail is not told to evict all");
    end_pair(p);
}

/* More than 2^31 records after a bucket's last own one, its next is still owed. */
static void check_owed_after_long(void)
{
    struct pair *p = new_pair();
    uint64_t hash = key_named(&p->a, 1).hash, laps = (5ull << 29) / p->a.geo.ring_slots;
    cache_delete(&p->a, hash);
    uint64_t tail = laps * p->a.geo.ring_slots + 1; /* as if so many laps had passed */
    for (uint32_t i = 0; i < p->a.geo.ring_slots; i++)
        store_relaxed(&p->a.ring[i].meta, load_relaxed(&p->a.ring[i].meta) + (laps << META_LAP_SHIFT));
    store_relaxed(&p->a.header->ring_tail, tail);
    cache_delete(&p->a, ~hash);
    REQUIRE(!relay_owes(&p->a, tail + 1) && relay_owes(&p->a, tail), "another key");
    cache_delete(&p->a, hash);
    REQUIRE(relay_owes(&p->a, tail + 1), "the next own record of a bucket is not owed");
    unsigned char far[64], near[64];
    uint32_t at = relay_map_bytes(&p->a) - (uint32_t)sizeof far;
    relay_map_pack(&p->a, 0, at, near, sizeof near);
    store_relaxed(&p->a.header->ring_tail, 1ull << 32); /* while a map is under way */
    relay_map_pack(&p->a, 0, at, far, sizeof far);
    for (uint32_t i = 0; i < sizeof far; i++)
        REQUIRE(near[i] != 0xff && far[i] == 0xff, "a cursor out of reach: not every bucket is listed");
    end_pair(p);
}

/* ---- maps of buckets ---- */

/* A map of the source, read in pieces, to be freed. */
static unsigned char *map_of(const struct attachment *a, uint64_t cursor, struct chance *c, struct bucket_map *map)
{
    uint32_t n = relay_map_bytes(a);
    unsigned char *bytes = malloc(n);
    for (uint32_t at = 0; at < n;)
        at += relay_map_pack(a, cursor, at, bytes + at, 1 + chance_below(c, n));
    REQUIRE(relay_map_read(bytes, n, map), "a segment's own map cannot be read");
    return bytes;
}

static uint32_t apply_map(struct attachment *b, const struct bucket_map *map, struct chance *c)
{
    uint32_t evicted = 0;
    uint64_t version = fence_whole_map(b, 1, map, 1 + chance_below(c, 4000)), at = 0;
    REQUIRE(version != RING_CORRUPT, "fencing");
    do
        at = relay_map_evict(b, 1, map, version, at, 1 + chance_below(c, 4000), &evicted);
    while (at);
    return evicted;
}

static bool lists(const struct bitmap *bits, uint64_t hash)
{
    uint64_t n = hash >> (64 - bits->log2);
    return bits->bytes[n / 8] & 1 << n % 8;
}

/* Exactly what the map lists is evicted, and fills of old tokens are refused; as often as it is applied. */
static void check_map(uint64_t bytes_a, uint64_t bytes_b, struct chance *c)
{
    struct pair *p = new_pair_of(bytes_a, bytes_b);
    struct bucket_map map;
    enum { HELD = 3000, WRITTEN = 400, LOCAL = 70 };
    uint64_t token = ring_tail(&p->b);
    cache_delete(&p->a, key_named(&p->a, 5).hash);
    uint64_t cursor = ring_tail(&p->a);
    for (uint32_t key = 0; key < HELD; key++)
        put(&p->b, key, 1, 0, key == LOCAL, 0);
    for (uint32_t i = 0; i < WRITTEN; i++)
        cache_delete(&p->a, key_named(&p->a, i * 10).hash);
    unsigned char *bytes = map_of(&p->a, cursor, c, &map);
    uint32_t evicted = apply_map(&p->b, &map, c), gone = 0;
    for (uint32_t key = 0; key < HELD; key++) {
        struct named_key k = key_named(&p->b, key);
        bool held = get(&p->b, key) == 1, listed = lists(&map.keys, k.hash);
        gone += !held;
        REQUIRE(key % 10 || key >= 10 * WRITTEN || listed, "key %u was written and is not listed", key);
        REQUIRE(held == (!listed || key == LOCAL), "key %u is %slisted and %s", key, listed ? "" : "not ", held ? "held" : "gone");
        struct write late = write_of(&k, "late", 4);
        REQUIRE(!listed || key == LOCAL || cache_fill(&p->b, &late, token, 0) == STORE_LOST, "a late fill of key %u", key);
    }
    REQUIRE(gone == evicted && evicted < HELD / 2, "%u gone, %u counted", gone, evicted);
    REQUIRE(apply_map(&p->b, &map, c) == 0 && get(&p->b, LOCAL) == 1, "the same again");
    put(&p->b, 10, 2, 0, false, 0);
    REQUIRE(get(&p->b, 10) == 2, "a new fill is refused");
    REQUIRE(relay_owes(&p->b, 0) == OWED_NOTHING, "what was applied is owed by the reader");
    free(bytes);
    end_pair(p);
}

/* Tags are fenced; entries of other tags stay. */
static void check_map_of_tags(uint64_t bytes_a, uint64_t bytes_b, struct chance *c)
{
    struct pair *p = new_pair_of(bytes_a, bytes_b);
    struct bucket_map map;
    put(&p->b, 1, 1, 0, false, TAG_HASH);
    put(&p->b, 2, 1, 0, false, ~TAG_HASH);
    uint64_t token = ring_tail(&p->b);
    cache_delete_tag(&p->a, TAG_HASH);
    unsigned char *bytes = map_of(&p->a, 0, c, &map);
    REQUIRE(apply_map(&p->b, &map, c) == 0 && !get(&p->b, 1) && get(&p->b, 2), "tags");
    struct named_key k = key_named(&p->b, 3);
    struct write late = write_of(&k, "late", 4);
    late.tags = 1;
    late.tag[0] = TAG_HASH;
    REQUIRE(cache_fill(&p->b, &late, token, 0) == STORE_LOST, "a late fill under a tag");
    REQUIRE(load_acquire(&p->b.header->tags_moved) == ring_tail(&p->b) - 1, "nobody looks for what is invalid");
    free(bytes);
    end_pair(p);
}

/* Bytes of any kind are refused, or applied within bounds. */
static void check_map_bytes(struct chance *c)
{
    struct pair *p = new_pair();
    for (int i = 0; i < 3000; i++) {
        uint32_t n = chance_below(c, 70);
        unsigned char *in = malloc(n ? n : 1); /* its bounds are the sanitizer's */
        for (uint32_t at = 0; at < n; at++)
            in[at] = (unsigned char)chance_next(c);
        if (n > 2 && chance_below(c, 2))
            in[0] = (unsigned char)chance_below(c, 10), in[1] = (unsigned char)chance_below(c, 10);
        struct bucket_map map;
        if (relay_map_read(in, n, &map))
            apply_map(&p->b, &map, c), tally(APPLIED);
        free(in);
    }
    REQUIRE(tallied(APPLIED), "nothing was a map");
    end_pair(p);
}

static void check_maps(struct chance *c)
{
    for (int i = 0; i < PARTS; i++) {
        check_map(parts[i].bytes_a, parts[i].bytes_b, c);
        check_map_of_tags(parts[i].bytes_a, parts[i].bytes_b, c);
    }
    check_map_bytes(c);
}

/* A plain set is guarded for a second after a peer's write of the key, not for as long as peers write anything. */
static void check_guard_ends(void)
{
    struct pair *p = new_pair();
    unsigned char value[64];
    uint32_t guarded = 0, stored = 0;
    announce(&p->a, 1, 1, 0, false, 0);
    carry(p);
    for (int i = 0; i < 40; i++) {
        struct named_key k = key_named(&p->b, 1);
        struct write w = write_of(&k, value, value_make(value, 1, 2, 40));
        p->a.frozen_ms = p->b.frozen_ms += 100;
        announce(&p->a, 2, 1, 0, false, 0);
        carry(p);
        enum store r = cache_set(&p->b, &w);
        REQUIRE(r == STORED || r == STORE_GUARDED, "set: %d", (int)r);
        r == STORED ? stored++ : guarded++;
        REQUIRE(r == STORED || p->b.frozen_ms <= 1000000 + 1250, "still guarded %d ms after the peer's write", (int)p->b.frozen_ms - 1000000);
    }
    REQUIRE(guarded >= 9 && stored > 20, "%u guarded, %u stored", guarded, stored);
    end_pair(p);
}

/* ---- racing ---- */

static struct write tagged(const struct named_key *key, unsigned char *value, uint32_t k, uint64_t number)
{
    struct write w = write_of(key, value, value_make(value, k, number, 64));
    w.tags = 1;
    w.tag[0] = TAG_HASH * (k + 1);
    return w;
}

static void write_once(struct attachment *a, struct chance *c, uint32_t k)
{
    unsigned char value[128];
    struct named_key key = key_named(a, k);
    uint64_t token = ring_tail(a);
    uint64_t intent = roster_intend(a, key.hash);
    uint64_t number = atomic_fetch_add(&model->key[k].origin, 1) + 1;
    struct write w = tagged(&key, value, k, number);
    switch (k >= KEYS - SHARED ? 2 : chance_below(c, 8)) {
    case 0:
        if (part->lapping && chance_below(c, 2000)) /* else every lapped range has one, and nothing is left for maps */
            cache_delete_tag(a, w.tag[0]);
        else
            cache_clear(a);
        break;
    case 1:
        w.store_nothing = true;
        cache_set(a, &w);
        break;
    case 2:
    case 3:
        cache_delete(a, key.hash);
        break;
    default:
        cache_set_fenced(a, &w, token, clock_ms(a));
    }
    roster_settle(a, intent);
    raise_max(&model->key[k].returned, number);
    tally(WRITES);
}

static void writer(uint64_t seed)
{
    struct attachment a;
    struct chance c = {seed};
    struct segment_config config = relayed(part->bytes_a);
    attach_to(&a, file_a, &config);
    while (!torture_over()) {
        write_once(&a, &c, chance_below(&c, KEYS));
        if (!part->lapping && ring_tail(&a) - load_acquire(&model->cursor) > a.geo.ring_slots / 2)
            nap_us(100);
    }
    segment_detach(&a);
}

/* On B: token, origin, announcement, as `writing` does it. */
static void write_on_b(struct attachment *b, uint32_t k)
{
    unsigned char value[128];
    struct named_key key = key_named(b, k);
    uint64_t token = ring_tail(b), intent = roster_intend(b, key.hash);
    uint64_t number = atomic_fetch_add(&model->key[k].origin, 1) + 1;
    struct write w = tagged(&key, value, k, number);
    cache_set_fenced(b, &w, token, clock_ms(b));
    roster_settle(b, intent);
    raise_max(&model->key[k].floor, number);
    tally(WRITES);
}

static void other_writer(uint64_t seed)
{
    struct attachment b;
    struct chance c = {seed};
    struct segment_config config = relayed(part->bytes_b);
    attach_to(&b, file_b, &config);
    while (!torture_over())
        write_on_b(&b, KEYS - SHARED + chance_below(&c, SHARED));
    segment_detach(&b);
}

/* What stands for what the ring has lost; or has not, it is as good. */
static void carry_lost(struct attachment *a, struct attachment *b, uint64_t cursor, struct chance *c)
{
    static const unsigned char wide[] = {[OWED_CLEAR] = WIRE_CLEAR, [OWED_ALL] = WIRE_ALL};
    enum owed owed = relay_owes(a, cursor);
    struct bucket_map map;
    uint32_t applied;
    tally(LAPPED);
    if (owed == OWED_CLEAR || owed == OWED_ALL) {
        REQUIRE(relay_apply(b, 1, &wide[owed], 1, &applied) == RELAY_OK, "apply");
    } else if (owed == OWED_BUCKETS) {
        unsigned char *bytes = map_of(a, cursor, c, &map);
        apply_map(b, &map, c);
        free(bytes);
        tally(MAPS);
    }
}

/* One batch, as the bridge does it. What had returned before the tail was read is covered by it. */
static void carry_batch(struct attachment *a, struct attachment *b, struct chance *c)
{
    static unsigned char out[PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX];
    uint64_t cursor = load_acquire(&model->cursor), healed = cursor, returned[KEYS];
    uint32_t used, applied;
    for (uint32_t k = 0; k < KEYS; k++)
        returned[k] = load_acquire(&model->key[k].returned);
    uint64_t tail = ring_tail(a);
    relay_heal(a, &healed, BATCH);
    bool maps = part->lapping && cursor < tail && chance_below(c, 8);
    enum relay r = maps ? RELAY_LAPPED : relay_pack(a, &cursor, BATCH, out, sizeof out, &used);
    if (r == RELAY_LAPPED) {
        carry_lost(a, b, cursor, c);
        cursor = tail;
    } else {
        REQUIRE(relay_apply(b, 1, out, used, &applied) == RELAY_OK, "apply");
    }
    store_release(&model->cursor, cursor);
    tally(PACKED);
    for (uint32_t k = 0; k < KEYS && cursor >= tail; k++)
        raise_max(&model->key[k].floor, returned[k]);
}

static void attach_both(struct attachment *a, struct attachment *b)
{
    struct segment_config config_a = relayed(part->bytes_a), config_b = relayed(part->bytes_b);
    attach_to(a, file_a, &config_a);
    attach_to(b, file_b, &config_b);
}

static void relay(uint64_t seed)
{
    struct attachment a, b;
    struct chance c = {seed};
    attach_both(&a, &b);
    while (!torture_over()) {
        carry_batch(&a, &b, &c);
        if (chance_below(&c, 100) == 0)
            recovery_sweep(&a), recovery_sweep(&b);
        if (part->lapping) /* a relay that waits is woken when there is much; one that spins finds little, and often */
            nap_us(chance_below(&c, 100) ? 20 : 5000);
    }
    segment_detach(&a);
    segment_detach(&b);
}

static void read_once(struct attachment *b, struct chance *c, uint32_t k)
{
    unsigned char value[128];
    uint32_t bytes;
    struct named_key key = key_named(b, k);
    uint64_t floor = load_acquire(&model->key[k].floor);
    tally(GETS);
    if (read_value(b, &key, value, &bytes)) {
        uint64_t number = value_number(value, bytes, k);
        REQUIRE(number >= floor, "B serves %llu of key %u, %llu was applied", (unsigned long long)number, k, (unsigned long long)floor);
        tally(HITS);
        return;
    }
    uint64_t token = ring_tail(b), number = load_acquire(&model->key[k].origin);
    for (uint32_t i = chance_below(c, 300); i > 0; i--)
        fence_seq_cst();
    struct write w = tagged(&key, value, k, number);
    cache_fill(b, &w, token, 0);
    tally(FILLS);
}

static void reader(uint64_t seed)
{
    struct attachment b;
    struct chance c = {seed};
    struct segment_config config = relayed(part->bytes_b);
    attach_to(&b, file_b, &config);
    while (!torture_over())
        read_once(&b, &c, chance_below(&c, KEYS));
    segment_detach(&b);
}

static void work(int number, uint64_t seed)
{
    if (number < READERS)
        reader(seed);
    else if (number == RELAY)
        relay(seed);
    else if (number == OTHER_WRITER)
        other_writer(seed);
    else
        writer(seed);
}

/* At rest nothing is owed: what B holds is what the origin has. */
static void check_at_rest(struct chance *c)
{
    struct attachment a, b;
    attach_both(&a, &b);
    recovery_sweep(&a);
    recovery_sweep(&b);
    while (load_acquire(&model->cursor) < ring_tail(&a))
        carry_batch(&a, &b, c);
    for (uint32_t k = 0; k < KEYS; k++) {
        uint64_t origin = load_acquire(&model->key[k].origin), on_a = get(&a, k), on_b = get(&b, k);
        REQUIRE((!on_a || on_a == origin) && (!on_b || on_b == origin), "at rest: origin %llu, A %llu, B %llu",
                (unsigned long long)origin, (unsigned long long)on_a, (unsigned long long)on_b);
    }
    segment_detach(&a);
    segment_detach(&b);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_relay");
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    check_digests();
    check_digest_is_the_records_own();
    check_wide();
    check_malformed(&c);
    check_lapped();
    check_owed();
    check_owed_after_long();
    check_guard_ends();
    check_maps(&c);
    model = shared_zeroes(sizeof *model);
    uint64_t kills = 0;
    for (int i = 0; i < PARTS; i++) {
        part = &parts[i];
        file_a = memory_file();
        file_b = memory_file();
        store_release(&model->cursor, 0);
        kills += torture_run(work, WORKERS, READERS, i ? 50 : 0, torture.seconds / PARTS);
        check_at_rest(&c);
        close(file_a);
        close(file_b);
    }
    printf("relay: %llu writes, %llu batches, %llu lapped (%llu maps); %llu gets (%llu hits), %llu fills, %llu kills\n",
           (unsigned long long)tallied(WRITES), (unsigned long long)tallied(PACKED), (unsigned long long)tallied(LAPPED),
           (unsigned long long)tallied(MAPS), (unsigned long long)tallied(GETS), (unsigned long long)tallied(HITS),
           (unsigned long long)tallied(FILLS), (unsigned long long)kills);
    return 0;
}
