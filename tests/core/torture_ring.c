/* torture_ring.c - the ring: many producers, killed at any instruction; consumers that miss nothing.
 *
 * First part, consumers keep up (producers wait for them): every record of every producer is read exactly once, in
 * its producer's order, without a hole except the last record of one that was killed; below the tail no record is
 * missing and no record's fence is behind it. Second part, nobody waits and the ring is small: readers are lapped all
 * the time, and whatever ring_read does return is whole and is the record of that sequence.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   fence raised after the tail  0.1        a helper raises no fence  0.4        a slot written in two stores  0.1
 *   a late helper lowers own_writes, other keys' records are a conflict once they are many, the record of an add is one: at once;
 *   nobody helps: hangs, with the first producer that dies at that instruction
 */
#include "torture.h"

enum { PRODUCERS = 4, CONSUMERS = 2, LIVES = 1 << 16, KEEP_BYTES = 64 << 20, LAPPED_BYTES = 1 << 20 };
enum { APPENDED, CONSUMED, LAPPED, READ_BACK };

static struct model {
    a64 lives;                 /* producers begun so far: each has a number of its own */
    a64 appended[LIVES];       /* records that a life has seen completed */
    a64 cursor[CONSUMERS];
    a64 seen[CONSUMERS][LIVES]; /* records of a life that a consumer has read */
} *model;

static int file;
static uint64_t segment_bytes;

/* A record's hash says who wrote it; its digest and source follow from the hash, so that a torn pair shows. */
static struct record record_of(uint64_t life, uint64_t n)
{
    uint64_t hash = (n << 44 | life << 28 | n >> 20) * 0x9e3779b97f4a7c15ull; /* odd: one to one */
    return (struct record){.hash = hash, .kind = (enum record_kind)(hash >> 8 & 1 ? RECORD_KEY : RECORD_SET), .own = hash >> 9 & 1,
                           .source = (uint16_t)(hash >> 10 & META_SOURCE_BITS), .digest = (uint16_t)(hash >> 40)};
}

static void unpack(const struct record *r, uint64_t *life, uint64_t *n)
{
    static const uint64_t inverse = 0xf1de83e19937733dull; /* of 0x9e37...15 modulo 2^64 */
    uint64_t plain = r->hash * inverse;
    *life = plain >> 28 & 0xffff;
    *n = plain >> 44 | (plain & 0xfffffff) << 20;
    struct record want = record_of(*life, *n);
    REQUIRE(want.hash == r->hash && want.kind == r->kind && want.own == r->own && want.source == r->source && want.digest == r->digest,
            "torn: hash %llx, kind %d, digest %x", (unsigned long long)r->hash, (int)r->kind, r->digest);
}

static uint64_t slowest_consumer(void)
{
    uint64_t low = UINT64_MAX;
    for (int i = 0; i < CONSUMERS; i++) {
        uint64_t at = load_acquire(&model->cursor[i]);
        low = at < low ? at : low;
    }
    return low;
}

static void check_back(struct attachment *a, uint64_t s, const struct record *r)
{
    struct record back;
    REQUIRE(ring_tail(a) >= s && fence_of(a, r->hash) >= s, "sequence %llu returned; tail %llu, fence %llu", (unsigned long long)s,
            (unsigned long long)ring_tail(a), (unsigned long long)fence_of(a, r->hash));
    if (ring_read(a, s, &back)) {
        REQUIRE(back.hash == r->hash, "sequence %llu is another's record", (unsigned long long)s);
        tally(READ_BACK);
    } else {
        REQUIRE(ring_tail(a) - s + 1 >= a->geo.ring_slots, "sequence %llu cannot be read, tail %llu", (unsigned long long)s,
                (unsigned long long)ring_tail(a));
    }
}

static void produce(int number, uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(segment_bytes);
    attach_to(&a, file, &config);
    uint64_t life = atomic_fetch_add(&model->lives, 1), last = 0;
    REQUIRE(life < LIVES, "too many lives");
    bool polite = segment_bytes == KEEP_BYTES;
    for (uint64_t n = 0; !torture_over(); n++) {
        while (polite && !torture_over() && ring_tail(&a) - slowest_consumer() > a.geo.ring_slots / 2)
            nap_us(20);
        struct record r = record_of(life, n);
        uint64_t s = ring_append(&a, &r);
        REQUIRE(s > last, "sequence %llu after %llu", (unsigned long long)s, (unsigned long long)last);
        check_back(&a, s, &r);
        store_release(&model->appended[life], n + 1);
        tally(APPENDED);
        last = s;
    }
    segment_detach(&a);
}

/* Records (cursor, tail]: none missing, none before its fence, each life's in order and without a hole. */
static uint64_t consume_some(struct attachment *a, int consumer, uint64_t cursor)
{
    for (uint64_t tail = ring_tail(a); cursor < tail; cursor++) {
        struct record r;
        uint64_t life, n;
        REQUIRE(ring_read(a, cursor + 1, &r), "hole: %llu below the tail %llu cannot be read", (unsigned long long)cursor + 1,
                (unsigned long long)tail);
        REQUIRE(fence_of(a, r.hash) >= cursor + 1, "record %llu is below the tail, its fence is %llu", (unsigned long long)cursor + 1,
                (unsigned long long)fence_of(a, r.hash));
        unpack(&r, &life, &n);
        REQUIRE(life < LIVES, "no such life");
        uint64_t seen = load_relaxed(&model->seen[consumer][life]);
        REQUIRE(n == seen, "record %llu of life %llu comes where %llu is due", (unsigned long long)n, (unsigned long long)life,
                (unsigned long long)seen);
        store_relaxed(&model->seen[consumer][life], n + 1);
        tally(CONSUMED);
    }
    return cursor;
}

static void consume(int consumer)
{
    struct attachment a;
    struct segment_config config = plain_config(segment_bytes);
    attach_to(&a, file, &config);
    for (uint64_t cursor = load_relaxed(&model->cursor[consumer]); !torture_over();) {
        cursor = consume_some(&a, consumer, cursor);
        store_release(&model->cursor[consumer], cursor);
    }
    segment_detach(&a);
}

/* Nobody waits: a reader anywhere in the ring gets that sequence's record, whole, or nothing. */
static void consume_lapped(uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(segment_bytes);
    struct chance c = {seed};
    attach_to(&a, file, &config);
    while (!torture_over()) {
        struct record r;
        uint64_t life, n, tail = ring_tail(&a), back = chance_below(&c, a.geo.ring_slots + 8);
        if (back >= tail)
            continue;
        if (!ring_read(&a, tail - back, &r)) {
            REQUIRE(back + 1 >= a.geo.ring_slots || ring_tail(&a) - (tail - back) + 1 >= a.geo.ring_slots, "hole at %llu, tail %llu",
                    (unsigned long long)(tail - back), (unsigned long long)tail);
            tally(LAPPED);
            continue;
        }
        unpack(&r, &life, &n);
        tally(CONSUMED);
    }
    segment_detach(&a);
}

static void work(int number, uint64_t seed)
{
    if (number >= CONSUMERS)
        produce(number, seed);
    else if (segment_bytes == KEEP_BYTES)
        consume(number);
    else
        consume_lapped(seed);
}

static void run(uint64_t bytes, double kills_per_second, uint64_t *kills)
{
    struct attachment a;
    struct segment_config config = plain_config(bytes);
    segment_bytes = bytes;
    memset(model, 0, sizeof *model);
    file = memory_file();
    attach_to(&a, file, &config);
    *kills += torture_run(work, CONSUMERS + PRODUCERS, CONSUMERS, kills_per_second, torture.seconds / 2);
    /* At rest: the rest is read, and every record whose append returned is there. */
    for (int i = 0; bytes == KEEP_BYTES && i < CONSUMERS; i++) {
        consume_some(&a, i, load_relaxed(&model->cursor[i]));
        for (uint64_t life = 0; life < load_relaxed(&model->lives); life++) {
            uint64_t seen = load_relaxed(&model->seen[i][life]), done = load_relaxed(&model->appended[life]);
            REQUIRE(seen == done || seen == done + 1, "life %llu: %llu of %llu records were read", (unsigned long long)life,
                    (unsigned long long)seen, (unsigned long long)done);
        }
    }
    struct record last = record_of(LIVES - 1, 0);
    REQUIRE(ring_append(&a, &last) != RING_CORRUPT, "the ring does not go on");
    segment_detach(&a);
    close(file);
}

/* A helper that was stopped before it raised what a record raises, goes on when later records of the bucket are done:
 * of two helpers, the other was faster. Nothing is lowered. */
static void check_late_helpers(void)
{
    struct attachment a;
    struct segment_config config = plain_config(LAPPED_BYTES);
    file = memory_file();
    attach_to(&a, file, &config);
    for (uint32_t kind = 0; kind <= RECORD_GUARDED; kind++) {
        struct record r = {.hash = 0x123456789abcdefull * (kind + 1), .kind = (enum record_kind)kind, .own = true};
        uint64_t first = ring_append(&a, &r), last = ring_append(&a, &r);
        uint64_t meta = (uint64_t)kind << META_KIND_SHIFT | META_OWN;
        for (uint64_t late = first; late <= last; late++)
            fence_raise(&a, meta, r.hash, late);
        bool tag = kind == RECORD_TAG, wide = kind == RECORD_CLEAR || kind == RECORD_ALL;
        uint64_t fence = tag ? tag_fence_of(&a, r.hash) : wide ? clear_of(&a, false) : fence_of(&a, r.hash);
        uint32_t own = tag ? load32_acquire(&a.own_tags[tag_slot(&a, r.hash)]) : load32_acquire(own_bucket(&a, r.hash));
        fence_raise(&a, meta, r.hash, first);
        uint32_t after = tag ? load32_acquire(&a.own_tags[tag_slot(&a, r.hash)]) : load32_acquire(own_bucket(&a, r.hash));
        REQUIRE(fence == last, "kind %u: the fence of record %llu is %llu", kind, (unsigned long long)last, (unsigned long long)fence);
        REQUIRE(wide || (own == last && after == last), "kind %u: the last own write was %llu; a late helper made it %u, then %u", kind,
                (unsigned long long)last, own, after);
    }
    segment_detach(&a);
    close(file);
}

/* Records of other keys are no conflict, however many a writer slept for; nor is the record of an add. */
static void check_conflicts(void)
{
    struct attachment a;
    struct segment_config config = plain_config(KEEP_BYTES);
    file = memory_file();
    attach_to(&a, file, &config);
    struct record mine = {.hash = 0x123456789abcdefull, .kind = RECORD_SET, .own = true}, others = mine, added = mine;
    others.hash++, added.kind = RECORD_ADD;
    uint64_t first = ring_append(&a, &mine), last = ring_append(&a, &added);
    REQUIRE(!ring_conflict(&a, mine.hash, first, last, false), "the record of an add is an event");
    for (uint32_t n = 0; n < a.geo.ring_slots / 2; n++)
        last = ring_append(&a, &others);
    REQUIRE(last > 1000 && !ring_conflict(&a, mine.hash, first, last, false), "%llu records of another key are a conflict",
            (unsigned long long)(last - first));
    last = ring_append(&a, &mine);
    REQUIRE(ring_conflict(&a, mine.hash, first, last, false), "the last record is no conflict");
    segment_detach(&a);
    close(file);
}

int main(int argc, char **argv)
{
    uint64_t kills = 0;
    torture_begin(argc, argv, "torture_ring");
    check_late_helpers();
    check_conflicts();
    model = shared_zeroes(sizeof *model);
    run(KEEP_BYTES, 100, &kills);
    run(LAPPED_BYTES, 100, &kills);
    printf("ring: %llu records appended, %llu read, %llu found lapped, %llu read back, %llu kills\n",
           (unsigned long long)tallied(APPENDED), (unsigned long long)tallied(CONSUMED), (unsigned long long)tallied(LAPPED),
           (unsigned long long)tallied(READ_BACK), (unsigned long long)kills);
    return 0;
}
