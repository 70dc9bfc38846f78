/* torture_race.c - what set, add, touch and incr answer when they race for a new key.
 *
 * Workers meet at the newest keys of an endless row, a few operations a key, and are killed at any instruction. The first
 * worker is never killed: it is the bridge, which heals behind the others and applies a peer's map, and the only one that sets.
 * No key is deleted or expires before its time is over, and hardly one is evicted. So of each key:
 *
 *   added by nobody                 a worker whose add lost finds a value, and can touch it
 *   added twice                     at most one add says stored
 *   said stored, was never visible  after an add or a set that said stored, its writer reads that value (an add's: until the set)
 *   stored, but said lost           no value that is read was stored by a verb that said lost
 *   a set withdrawn for an add      the only set of a key says stored
 *   counted wrong                   a counter that the first call makes holds one for each call that returned, and at most one
 *                                   for each that was killed
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the verdict is a store, not a CAS       1.8      the record of an add is an event       0.3
 *   healing evicts what is older than an    1.0
 *     add's record
 *
 * Not caught in 6 s: an add that gives up when it is withdrawn, a full bucket that gives up a word of the same key, a late
 * helper that removes what is newer, a peer's event that withdraws a local set (torture_steps shows each); a conflict found
 * where too many records were to be looked at (torture_ring).
 */
#include "arming.h"
#include "recovery.h"
#include "relay_buckets.h"
#include "torture.h"

enum {
    SEGMENT_BYTES = 64 << 20,
    WORKERS = 4,
    AHEAD = 2,         /* the newest keys are so many */
    OPS_PER_KEY = 12,
    LIFE = 2048,       /* keys until one is counted and deleted; what has room, so that none is evicted */
    LATE = 1024,       /* whoever was put to sleep for so many looks at nothing */
    KEPT = 1 << 16,    /* keys that the model remembers; no worker is late by so many */
    CLAIMS = 1 << 20,  /* the same, of values */
    HEALED_AT_ONCE = 64,
    DECOY = 7,
    MAP_LOG2 = 12,
    FIRST_KEY = 1000,
    CALLS_BITS = 20,
};
enum { ADDS, ADDED, SETS, TOUCHES, INCRS, COUNTERS_CHECKED, COUNTERS_MISSING, MAPS };
enum kind { ADDED_KEY, LOCAL_ADDED_KEY, COUNTER_KEY, SET_KEY, KINDS };
enum claim { RUNNING, SAID_STORED, SAID_LOST };

static struct model {
    a64 next, values;
    a64 claims[CLAIMS]; /* number of the value << 2 | enum claim */
    struct {
        a64 added;
        a64 begun, done; /* calls: counts, or sets; number of the key << CALLS_BITS | calls of it */
    } key[KEPT];
} *model;

static int file;

struct worker {
    struct attachment a;
    struct chance chance;
    unsigned char value[64];
    uint64_t healed;
    bool is_bridge;
};

static enum kind kind_of(uint64_t n) { return (enum kind)(n % KINDS); }
static bool is_late(uint64_t n) { return load_acquire(&model->next) >= n + LATE; }
static struct named_key named(struct worker *w, uint64_t n) { return key_named(&w->a, FIRST_KEY + (uint32_t)n); }

static void claim(uint64_t number, enum claim c) { store_release(&model->claims[number % CLAIMS], number << 2 | c); }

static bool said_lost(uint64_t number) { return load_acquire(&model->claims[number % CLAIMS]) == (number << 2 | SAID_LOST); }

/* The number of a key's value, 0: there is none. */
static uint64_t read_number(struct worker *w, const struct named_key *k, uint64_t n)
{
    unsigned char bytes[64];
    uint32_t size;
    return read_value(&w->a, k, bytes, &size) ? value_number(bytes, size, FIRST_KEY + (uint32_t)n) : 0;
}

static struct write numbered(struct worker *w, const struct named_key *k, uint64_t n, uint64_t *number)
{
    *number = atomic_fetch_add(&model->values, 1) + 1;
    claim(*number, RUNNING);
    struct write write = write_of(k, w->value, value_make(w->value, FIRST_KEY + (uint32_t)n, *number, 16 + chance_below(&w->chance, 40)));
    write.local = kind_of(n) == LOCAL_ADDED_KEY || (kind_of(n) == SET_KEY && n % (2 * KINDS) >= KINDS);
    return write;
}

static uint64_t calls(const a64 *of, uint64_t n)
{
    uint64_t seen = load_acquire(of);
    return seen >> CALLS_BITS == n ? seen & ((1u << CALLS_BITS) - 1) : 0;
}

/* One that is late by all the keys that are kept counts for nobody. */
static void one_more(a64 *of, uint64_t n)
{
    uint64_t seen = load_acquire(of);
    while (seen >> CALLS_BITS <= n && !cas(of, &seen, (seen >> CALLS_BITS == n ? seen : n << CALLS_BITS) + 1)) {
    }
}

/* A set that replaces an add in another word removes that first: for an instant there is neither. */
static uint64_t sets_over(uint64_t n) { return calls(&model->key[n % KEPT].done, n); }

static bool may_miss(uint64_t n, uint64_t sets)
{
    return is_late(n) || (kind_of(n) == SET_KEY && calls(&model->key[n % KEPT].begun, n) != sets);
}

/* A value is there now, and the verb that stored it did not say otherwise. */
static uint64_t check_is_there(struct worker *w, const struct named_key *k, uint64_t n, const char *after)
{
    uint64_t sets = sets_over(n), number = read_number(w, k, n);
    REQUIRE(number || may_miss(n, sets), "key %llu: no value is there after %s", (unsigned long long)n, after);
    REQUIRE(!number || !said_lost(number), "key %llu: value %llu is there, and its writer was told that it is not", (unsigned long long)n,
            (unsigned long long)number);
    return number;
}

static void add_key(struct worker *w, uint64_t n)
{
    struct named_key k = named(w, n);
    uint64_t number;
    struct write write = numbered(w, &k, n, &number);
    enum store result = cache_add(&w->a, &write);
    REQUIRE(result == STORED || result == STORE_LOST, "add: %d", (int)result);
    claim(number, result == STORED ? SAID_STORED : SAID_LOST);
    tally(ADDS);
    if (result == STORED) {
        uint64_t last = atomic_exchange(&model->key[n % KEPT].added, n + 1);
        REQUIRE(last != n + 1 || is_late(n), "key %llu was added twice", (unsigned long long)n);
        tally(ADDED);
        uint64_t read = check_is_there(w, &k, n, "an add that said stored");
        REQUIRE(read == number || kind_of(n) == SET_KEY || is_late(n), "key %llu: value %llu was added, %llu is there", (unsigned long long)n,
                (unsigned long long)number, (unsigned long long)read);
    } else {
        check_is_there(w, &k, n, "an add that said lost");
    }
    if (chance_below(&w->chance, 2)) {
        uint64_t sets = sets_over(n);
        bool touched;
        touched = cache_touch(&w->a, k.hash, k.text, k.bytes, 0) > 0;
        REQUIRE(touched || may_miss(n, sets), "key %llu: a touch finds nothing", (unsigned long long)n);
        tally(TOUCHES);
    }
}

static void set_key(struct worker *w, uint64_t n)
{
    struct named_key k = named(w, n);
    uint64_t number;
    struct write write = numbered(w, &k, n, &number);
    one_more(&model->key[n % KEPT].begun, n);
    enum store result = cache_set(&w->a, &write);
    one_more(&model->key[n % KEPT].done, n);
    claim(number, result == STORED ? SAID_STORED : SAID_LOST);
    REQUIRE(result == STORED || is_late(n), "key %llu: its only set says %d", (unsigned long long)n, (int)result);
    uint64_t read = check_is_there(w, &k, n, "a set");
    REQUIRE(read == number || is_late(n), "key %llu: value %llu was set, %llu is there", (unsigned long long)n, (unsigned long long)number,
            (unsigned long long)read);
    tally(SETS);
}

/* As host.py does it. */
static void count_key(struct worker *w, uint64_t n)
{
    struct named_key k = named(w, n);
    int64_t one = 1, sum;
    struct write first = write_of(&k, &one, sizeof one);
    first.type = TYPE_INT64;
    first.local = true;
    one_more(&model->key[n % KEPT].begun, n);
    for (int tries = 0;; tries++) {
        enum incr result = cache_incr(&w->a, k.hash, k.text, k.bytes, 1, false, &sum);
        REQUIRE(result == INCR_DONE || result == INCR_MISSED, "incr: %d", (int)result);
        if (result == INCR_DONE || cache_add(&w->a, &first) == STORED)
            break;
        REQUIRE(tries < 1 || is_late(n), "counter %llu is missed, and cannot be added", (unsigned long long)n);
    }
    one_more(&model->key[n % KEPT].done, n);
    tally(INCRS);
}

/* A counter may be evicted like any value, where the pages that many dead workers held are not given back yet: no more of them
 * are missing than were evicted. */
static bool may_be_evicted(const struct attachment *a)
{
    uint64_t evicted = 0;
    for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++)
        evicted += load_relaxed(&a->roster[slot].stats[STAT_EVICTED]);
    tally(COUNTERS_MISSING);
    return tallied(COUNTERS_MISSING) <= evicted;
}

static void check_count(struct worker *w, uint64_t n)
{
    bool found = false;
    struct named_key k = named(w, n);
    struct entry_ref e;
    int64_t count = 0;
    uint64_t done = calls(&model->key[n % KEPT].done, n);
    while (!found && cache_find(&w->a, k.hash, k.text, k.bytes, &e) == FOUND) {
        cache_read(&w->a, &e, &count);
        found = cache_confirm(&w->a, &e);
    }
    if (!found && done && may_be_evicted(&w->a))
        return;
    uint64_t begun = calls(&model->key[n % KEPT].begun, n);
    REQUIRE((uint64_t)count >= done && (uint64_t)count <= begun, "counter %llu says %lld: %llu calls returned, of %llu", (unsigned long long)n,
            (long long)count, (unsigned long long)done, (unsigned long long)begun);
    tally(COUNTERS_CHECKED);
}

/* One more key; the oldest goes. */
static void advance(struct worker *w, uint64_t newest)
{
    if (!cas(&model->next, &newest, newest + 1) || newest < LIFE)
        return;
    uint64_t oldest = newest - LIFE;
    if (kind_of(oldest) == COUNTER_KEY)
        check_count(w, oldest);
    struct named_key k = named(w, oldest);
    cache_delete(&w->a, k.hash);
}

/* A peer's map of one bucket: while it is applied, its records stand for every key. Nothing but the decoy is evicted. */
static void apply_map(struct worker *w)
{
    static unsigned char bytes[2 + 1 + (1 << MAP_LOG2) / 8] = {3, MAP_LOG2};
    struct named_key decoy = key_named(&w->a, DECOY);
    uint32_t n = (uint32_t)(decoy.hash >> (64 - MAP_LOG2)), evicted = 0;
    struct bucket_map map;
    memset(bytes + 3, 0, sizeof bytes - 3);
    bytes[3 + n / 8] = (unsigned char)(1 << n % 8);
    REQUIRE(relay_map_read(bytes, sizeof bytes, &map), "a map");
    uint64_t version = fence_whole_map(&w->a, 7, &map, UINT32_MAX);
    relay_map_evict(&w->a, 7, &map, version, (uint64_t)w->a.geo.bucket_count * BUCKET_WORDS, 1, &evicted);
    tally(MAPS);
}

static void be_the_bridge(struct worker *w)
{
    relay_heal(&w->a, &w->healed, HEALED_AT_ONCE);
    if (chance_below(&w->chance, 64) == 0)
        apply_map(w);
}

static void race(struct worker *w)
{
    uint64_t newest = load_acquire(&model->next), n = newest + chance_below(&w->chance, AHEAD);
    if (chance_below(&w->chance, 4) == 0)
        arming_arm(&w->a, key_named(&w->a, FIRST_KEY + (uint32_t)n).hash, 5);
    if (kind_of(n) == COUNTER_KEY)
        count_key(w, n);
    else if (w->is_bridge && kind_of(n) == SET_KEY)
        set_key(w, n);
    else
        add_key(w, n);
    if (chance_below(&w->chance, OPS_PER_KEY) == 0)
        advance(w, newest);
}

static void work(int number, uint64_t seed)
{
    struct worker *w = calloc(1, sizeof *w);
    struct segment_config config = plain_config(SEGMENT_BYTES);
    w->chance.state = seed;
    w->is_bridge = number == 0;
    config.has_bridge = number % 2; /* such ones overwrite by way of pending words */
    attach_to(&w->a, file, &config);
    w->healed = ring_tail(&w->a);
    while (!torture_over()) {
        recovery_look_after(&w->a); /* as every verb of a real process does */
        race(w);
        if (w->is_bridge)
            be_the_bridge(w);
    }
    segment_detach(&w->a);
    free(w);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_race");
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct attachment a;
    file = memory_file();
    attach_to(&a, file, &config);
    model = shared_zeroes(sizeof *model);
    torture_run(work, 2, 2, 0, torture.seconds / 3); /* as many as there are processors, mostly */
    torture_run(work, WORKERS, WORKERS, 0, torture.seconds / 3);
    uint64_t kills = torture_run(work, WORKERS, 1, 100, torture.seconds / 3);
    printf("race: %llu keys: %llu adds (%llu won), %llu sets, %llu touches, %llu incrs (%llu counters checked), %llu maps, %llu kills\n",
           (unsigned long long)load_relaxed(&model->next), (unsigned long long)tallied(ADDS), (unsigned long long)tallied(ADDED),
           (unsigned long long)tallied(SETS), (unsigned long long)tallied(TOUCHES), (unsigned long long)tallied(INCRS),
           (unsigned long long)tallied(COUNTERS_CHECKED), (unsigned long long)tallied(MAPS), (unsigned long long)kills);
    segment_detach(&a);
    return 0;
}
