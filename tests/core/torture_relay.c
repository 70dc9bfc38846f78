/* torture_relay.c - pack, apply and heal between two segments, without a network.
 *
 * Directed: what is set on A is evicted on B; equal digests are kept, and every kind of unequal ones is not; local values
 * are spared and never sent; tags, clear and flush; a batch that merges records of one key; a malformed payload is refused
 * whole; a lapped cursor says so.
 *
 * Racing: writers on A raise an origin and announce in every way there is; a relay process carries A's announcements to
 * B as a bridge does (heal, pack, apply, then the cursor), now and then killed and begun again from its stored cursor;
 * readers and fillers on B. Once the relay has passed a write's announcement, B must not serve an older value. Writers
 * are killed too: the sweep on A announces what they owe.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the digest of another version is sent  0.1      apply does not kill  0.1      a guard that renews itself  0.1
 *
 * Not caught: no healing (the sweep on A pays the same debts; healing is what makes it soon), debts not paid
 * (torture_steps), a set's loser that does not kill (torture_index).
 */
#include "relay_buckets.h"
#include "torture.h"

enum { SEGMENT_BYTES = 4 << 20, KEYS = 8, WRITERS = 2, READERS = 2, BATCH = 300 };
enum { WRITES, PACKED, APPLIED, LAPPED, GETS, HITS, FILLS };

static int file_a, file_b;
static const uint64_t TAG_HASH = 0x7461670000000001ull;

static struct model {
    struct {
        _Alignas(64) a64 origin, returned; /* newest value; newest whose announcement has returned on A */
        a64 floor;                         /* newest whose announcement has been applied on B */
    } key[KEYS];
    a64 cursor;
} *model;

static struct segment_config relayed(void)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    config.has_bridge = true;
    return config;
}

/* ---- directed ---- */

struct pair {
    struct attachment a, b;
    uint64_t cursor;
};

static struct pair *new_pair(void)
{
    struct pair *p = calloc(1, sizeof *p);
    struct segment_config config = relayed();
    int fd_a = memory_file(), fd_b = memory_file();
    attach_to(&p->a, fd_a, &config);
    attach_to(&p->b, fd_b, &config);
    p->a.frozen_ms = p->b.frozen_ms = 1000000;
    close(fd_a);
    close(fd_b);
    return p;
}

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
        static const unsigned char bad[] = {0, 6, 7, 255};
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
    REQUIRE(relay_owes(&p->b, 2), "a clear that the ring has lost is not owed");
    REQUIRE(!relay_owes(&p->b, 3), "what was only heard, or is local, is owed");
    cache_delete_tag(&p->b, TAG_HASH);
    REQUIRE(relay_owes(&p->b, 3 * n + 4) && !relay_owes(&p->b, 3 * n + 5), "a tag");
    announce(&p->b, 2, 1, 0, false, 0);
    REQUIRE(relay_owes(&p->b, 3 * n + 5) && !relay_owes(&p->b, 3 * n + 6), "a key");
    REQUIRE(relay_owes(&p->b, 3 * n + 7), "a cursor above the tail is not told to evict all");
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
    end_pair(p);
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

static void write_once(struct attachment *a, struct chance *c, uint32_t k)
{
    unsigned char value[128];
    struct named_key key = key_named(a, k);
    uint64_t token = ring_tail(a);
    uint64_t intent = roster_intend(a, key.hash);
    uint64_t number = atomic_fetch_add(&model->key[k].origin, 1) + 1;
    struct write w = write_of(&key, value, value_make(value, k, number, 64));
    switch (chance_below(c, 8)) {
    case 0:
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
        cache_set_fenced(a, &w, token);
    }
    roster_settle(a, intent);
    raise_max(&model->key[k].returned, number);
    tally(WRITES);
}

static void writer(uint64_t seed)
{
    struct attachment a;
    struct chance c = {seed};
    struct segment_config config = relayed();
    attach_to(&a, file_a, &config);
    while (!torture_over()) {
        write_once(&a, &c, chance_below(&c, KEYS));
        if (ring_tail(&a) - load_acquire(&model->cursor) > a.geo.ring_slots / 2)
            nap_us(100);
    }
    segment_detach(&a);
}

/* One batch, as the bridge does it. What had returned before the tail was read is covered by it. */
static void carry_batch(struct attachment *a, struct attachment *b)
{
    static unsigned char out[PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX], all = WIRE_ALL;
    uint64_t cursor = load_acquire(&model->cursor), healed = cursor, returned[KEYS];
    uint32_t used = 1, applied;
    for (uint32_t k = 0; k < KEYS; k++)
        returned[k] = load_acquire(&model->key[k].returned);
    uint64_t tail = ring_tail(a);
    relay_heal(a, &healed, BATCH);
    enum relay r = relay_pack(a, &cursor, BATCH, out, sizeof out, &used);
    if (r == RELAY_LAPPED) {
        cursor = tail, used = 1;
        tally(LAPPED);
    }
    REQUIRE(relay_apply(b, 1, r == RELAY_LAPPED ? &all : out, used, &applied) == RELAY_OK, "apply");
    store_release(&model->cursor, cursor);
    tally(PACKED);
    for (uint32_t k = 0; k < KEYS && cursor >= tail; k++)
        raise_max(&model->key[k].floor, returned[k]);
}

static void relay(uint64_t seed)
{
    struct attachment a, b;
    struct chance c = {seed};
    struct segment_config config = relayed();
    attach_to(&a, file_a, &config);
    attach_to(&b, file_b, &config);
    while (!torture_over()) {
        carry_batch(&a, &b);
        if (chance_below(&c, 100) == 0)
            roster_sweep(&a);
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
    struct write w = write_of(&key, value, value_make(value, k, number, 64));
    cache_fill(b, &w, token, 0);
    tally(FILLS);
}

static void reader(uint64_t seed)
{
    struct attachment b;
    struct chance c = {seed};
    struct segment_config config = relayed();
    attach_to(&b, file_b, &config);
    while (!torture_over())
        read_once(&b, &c, chance_below(&c, KEYS));
    segment_detach(&b);
}

static void work(int number, uint64_t seed)
{
    if (number < READERS)
        reader(seed);
    else if (number == READERS)
        relay(seed);
    else
        writer(seed);
}

/* At rest nothing is owed: what B holds is what the origin has. */
static void check_at_rest(void)
{
    struct attachment a, b;
    struct segment_config config = relayed();
    attach_to(&a, file_a, &config);
    attach_to(&b, file_b, &config);
    roster_sweep(&a);
    while (load_acquire(&model->cursor) < ring_tail(&a))
        carry_batch(&a, &b);
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
    model = shared_zeroes(sizeof *model);
    file_a = memory_file();
    file_b = memory_file();
    uint64_t kills = 0;
    for (int part = 0; part < 4; part++) {
        kills += torture_run(work, READERS + 1 + WRITERS, READERS, part ? 50 : 0, torture.seconds / 4);
        check_at_rest();
    }
    printf("relay: %llu writes, %llu batches, %llu lapped; %llu gets (%llu hits), %llu fills, %llu kills\n", (unsigned long long)tallied(WRITES),
           (unsigned long long)tallied(PACKED), (unsigned long long)tallied(LAPPED), (unsigned long long)tallied(GETS),
           (unsigned long long)tallied(HITS), (unsigned long long)tallied(FILLS), (unsigned long long)kills);
    return 0;
}
