/* torture_index.c - index, fence and fill together: what every process may read after every verb that returned.
 *
 * Three kinds of keys, all shared by all workers, which are killed at any instruction and replaced.
 *
 * PLAIN keys (set, delete, add, touch). Values carry a number; the model knows when each write began and ended
 * on one logical clock. A value is stale if some write began after the value's own write had ended, and before the get
 * began had returned, or had been read by anybody. This is linearizability per key, as far as overlapping writes allow
 * to decide it, without misses: a cache may always miss.
 *
 * ORIGIN keys stand before an "origin" whose value is a number that only grows. Writers raise the origin, then
 * invalidate in every way there is: delete, ttl=0, a fenced set, tag, clear, a peer's key, digest, tag, clear,
 * flush and map of buckets. A get that begins after that must not return a lower number. Fillers take a token, read the origin, doze,
 * and fill. One worker is the bridge.
 *
 * JOB keys are only added: of all adds of one, at most one may succeed.
 *
 * COUNTERs are only added to: no sum is reached twice, and each is above all that had been reached before. (A sum swapped in
 * by a store: at once.)
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   superseded without its fence check      0.1      a set's loser does not kill                  0.1
 *   a new word visible at once, no pending  1.2      fence raised after the tail                  0.3
 *   no re-scan in finish (adds show it)     1.7      kill_lower without its second try            3.4
 *   a hit is a store, not a CAS             1.2      a fenced set looks once, before its record   0.4
 *   an entry moved by a store, not a CAS    1.2      of two adds neither yields                   0.2
 *   apply does not kill                     0.1      a near hit does not look at its word         0.1
 *   a near hit does not judge               0.1
 *
 * Not caught in 10 s: the entry's confirmation (torture_pages), a helper that raises no fence (torture_ring), debts not
 * paid, an overwrite that should be pending and the second look at a word that is found (torture_steps); and two checks of
 * fills that a later one repeats.
 */
#include "arming.h"
#include "recovery.h"
#include "relay_buckets.h"
#include "torture.h"

enum {
    SEGMENT_BYTES = 32 << 20, /* live jobs are a tenth of it: none is evicted */
    WORKERS = 4,
    PLAIN_KEYS = 6,
    ORIGIN_KEYS = 6,
    TAGS = 2,
    COUNTERS_HELD = 2,
    COUNTERS_BASE = 200,
    JOBS_BASE = 1000,
    JOBS_KEPT = 1 << 16,
    JOB_LIFE = 1 << 14, /* some seconds: no worker is late by so many */
    JOB_LATE = 16,      /* whoever was put to sleep for so many may find its job added and evicted again: pages turn */
    HISTORY = 1 << 17, /* some seconds of a key: no worker is late by so many */
    VALUE_BYTES = 300,
    MAP_LOG2 = 12, /* of the buckets in a peer's map */
};

enum { GETS, HITS, SETS, DELETES, TOUCHES, FILLS, FILLED, FENCED, WIDE, REMOTE, ADDS, ADDED, INCRS, ARMED };

struct known_write {
    a64 number, began, at; /* at 0: under way, or its writer was killed */
};

static struct model {
    a64 clock;
    struct {
        a64 numbers, latest_start; /* of the writes that have returned, or were read */
        struct known_write history[HISTORY];
    } plain[PLAIN_KEYS];
    struct {
        _Alignas(64) a64 origin;
        a64 floor;
    } origin[ORIGIN_KEYS];
    struct {
        a64 floor, reached[HISTORY];
    } counter[COUNTERS_HELD];
    a64 next_job, last_added[JOBS_KEPT]; /* + 1 */
    a64 clearing; /* this phase has clear() and flushes, and therefore no jobs and counters */
} *model;

static int file;

static uint64_t tick(void) { return atomic_fetch_add(&model->clock, 1) + 1; }

struct worker {
    struct attachment a;
    struct chance chance;
    struct named_key plain[PLAIN_KEYS], origin[ORIGIN_KEYS];
    struct near near_plain[PLAIN_KEYS], near_origin[ORIGIN_KEYS];
    unsigned char value[VALUE_BYTES + 64];
    bool is_bridge;
};

static struct write write_for(struct worker *w, const struct named_key *k, uint32_t key, uint64_t number)
{
    uint32_t bytes = value_make(w->value, key, number, 16 + chance_below(&w->chance, VALUE_BYTES - 16));
    return write_of(k, w->value, bytes);
}

/* Half of the gets are a near cache's. */
static bool read_number(struct worker *w, const struct named_key *key, uint32_t named, struct near *near, uint64_t *number)
{
    uint32_t bytes;
    tally(GETS);
    if (chance_below(&w->chance, 2)) {
        if (!read_near(&w->a, key, named, near, number))
            return false;
    } else {
        if (!read_value(&w->a, key, w->value, &bytes))
            return false;
        *number = value_number(w->value, bytes, named);
    }
    tally(HITS);
    return true;
}

/* ---- plain keys ---- */

/* Whoever reads a value shows that its write has happened: from now on nobody may read one that ended before it began. */
static void was_read(uint32_t k, const struct known_write *e, uint64_t number)
{
    uint64_t began = load_acquire(&e->began);
    if (load_acquire(&e->number) == number)
        raise_max(&model->plain[k].latest_start, began);
}

static void get_plain(struct worker *w, uint32_t k)
{
    uint32_t bytes;
    uint64_t newest = load_acquire(&model->plain[k].latest_start);
    tally(GETS);
    if (!read_value(&w->a, &w->plain[k], w->value, &bytes))
        return;
    tally(HITS);
    uint64_t number = value_number(w->value, bytes, k);
    const struct known_write *e = &model->plain[k].history[number % HISTORY];
    uint64_t ended = load_acquire(&e->at);
    if (load_acquire(&e->number) != number)
        return;
    REQUIRE(!ended || ended > newest, "stale: key %u has value %llu, written by %llu, after a write that began at %llu had returned or been read",
            k, (unsigned long long)number, (unsigned long long)ended, (unsigned long long)newest);
    was_read(k, e, number);
}

static void begins(uint32_t k, uint64_t number, uint64_t began)
{
    struct known_write *e = &model->plain[k].history[number % HISTORY];
    store_release(&e->number, 0);
    store_release(&e->at, 0);
    store_release(&e->began, began);
    store_release(&e->number, number);
}

static void ended(uint32_t k, uint64_t number, uint64_t began)
{
    struct known_write *e = &model->plain[k].history[number % HISTORY];
    if (load_acquire(&e->number) == number)
        store_release(&e->at, tick());
    raise_max(&model->plain[k].latest_start, began);
}

static void set_plain(struct worker *w, uint32_t k, bool add)
{
    uint64_t number = atomic_fetch_add(&model->plain[k].numbers, 1) + 1, began = tick();
    struct write write = write_for(w, &w->plain[k], k, number);
    if (chance_below(&w->chance, 16) == 0)
        write.ttl_ms = 1 + chance_below(&w->chance, 20);
    write.local = chance_below(&w->chance, 4) == 0;
    begins(k, number, began);
    if (add && cache_add(&w->a, &write) != STORED)
        return;
    if (!add)
        cache_set(&w->a, &write);
    tally(SETS);
    ended(k, number, began);
}

static void delete_plain(struct worker *w, uint32_t k)
{
    uint64_t began = tick();
    cache_delete(&w->a, w->plain[k].hash);
    raise_max(&model->plain[k].latest_start, began);
    tally(DELETES);
}

static void plain_step(struct worker *w)
{
    uint32_t k = chance_below(&w->chance, PLAIN_KEYS), dice = chance_below(&w->chance, 100);
    if (dice < 5)
        arming_arm(&w->a, w->plain[k].hash, 5), tally(ARMED);
    else if (dice < 55)
        get_plain(w, k);
    else if (dice < 78)
        set_plain(w, k, false);
    else if (dice < 83)
        set_plain(w, k, true);
    else if (dice < 93)
        delete_plain(w, k);
    else if (cache_touch(&w->a, w->plain[k].hash, w->plain[k].text, w->plain[k].bytes, 0) > 0)
        tally(TOUCHES);
}

/* ---- origin keys ---- */

static uint64_t tag_of(uint32_t k) { return 0x7a67000000000000ull + ((uint64_t)(k % TAGS) << 40) + 1; }

static void get_origin(struct worker *w, uint32_t k)
{
    uint64_t number, floor = load_acquire(&model->origin[k].floor);
    if (!read_number(w, &w->origin[k], 100 + k, &w->near_origin[k], &number))
        return;
    REQUIRE(number >= floor, "stale: key %u serves %llu of the origin after %llu was invalidated", k, (unsigned long long)number,
            (unsigned long long)floor);
}

static struct write tagged_write(struct worker *w, uint32_t k, uint64_t number)
{
    struct write write = write_for(w, &w->origin[k], 100 + k, number);
    write.tags = 1;
    write.tag[0] = tag_of(k);
    return write;
}

static void doze(struct worker *w)
{
    uint32_t dice = chance_below(&w->chance, 64);
    if (dice == 0)
        nap_us(50);
    for (uint32_t i = 0; i < dice * 8; i++)
        fence_seq_cst();
}

static void fill_origin(struct worker *w, uint32_t k)
{
    uint64_t token = ring_tail(&w->a), began = clock_ms(&w->a);
    uint64_t number = load_acquire(&model->origin[k].origin);
    doze(w);
    struct write write = tagged_write(w, k, number);
    tally(FILLS);
    if (cache_fill(&w->a, &write, token, began) == STORED)
        tally(FILLED);
}

static void apply(struct worker *w, enum wire_kind kind, uint64_t hash, uint64_t digest)
{
    static const uint32_t bytes_of[] = {0, 9, 17, 9, 1, 1};
    unsigned char in[WIRE_RECORD_BYTES_MAX];
    uint32_t applied;
    in[0] = (unsigned char)kind;
    memcpy(in + 1, &hash, 8);
    memcpy(in + 9, &digest, 8);
    enum relay r = relay_apply(&w->a, 7, in, bytes_of[kind], &applied);
    REQUIRE(r == RELAY_OK, "apply: %d", (int)r);
    tally(REMOTE);
}

/* A map of one bucket. Of the index only words that may be the key's are looked at: it must not evict jobs. */
static void apply_map(struct worker *w, uint64_t hash)
{
    static unsigned char bytes[2 + 1 + (1 << MAP_LOG2) / 8] = {3, MAP_LOG2};
    uint32_t n = (uint32_t)(hash >> (64 - MAP_LOG2)), evicted = 0;
    struct candidates c = index_candidates(&w->a, hash);
    struct bucket_map map;
    bytes[3 + n / 8] = (unsigned char)(1 << n % 8);
    REQUIRE(relay_map_read(bytes, sizeof bytes, &map), "a map");
    uint64_t version = fence_whole_map(&w->a, 7, &map, UINT32_MAX);
    for (int i = 0; i < CANDIDATE_WORDS; i++)
        if ((load_relaxed(index_word(&c, i)) & INDEX_TAG_MASK) == c.tag_bits)
            relay_map_evict(&w->a, 7, &map, version, (uint64_t)(index_word(&c, i) - w->a.index), 1, &evicted);
    bytes[3 + n / 8] = 0;
    tally(REMOTE);
}

static void invalidate_by_peer(struct worker *w, uint32_t k)
{
    switch (chance_below(&w->chance, load_relaxed(&model->clearing) ? 9 : 7)) {
    case 7:
        return apply(w, WIRE_CLEAR, 0, 0);
    case 8:
        return apply(w, WIRE_ALL, 0, 0);
    case 6:
        return apply_map(w, w->origin[k].hash);
    case 0:
        return apply(w, WIRE_TAG, tag_of(k), 0);
    case 1:
    case 2:
        return apply(w, WIRE_KEY_SET, w->origin[k].hash, chance_next(&w->chance) | 1);
    default:
        return apply(w, WIRE_KEY, w->origin[k].hash, 0);
    }
}

static void fenced_set(struct worker *w, uint32_t k)
{
    uint64_t token = ring_tail(&w->a);
    uint64_t number = atomic_fetch_add(&model->origin[k].origin, 1) + 1;
    doze(w);
    struct write write = tagged_write(w, k, number);
    cache_set_fenced(&w->a, &write, token, clock_ms(&w->a));
    raise_max(&model->origin[k].floor, number);
    tally(FENCED);
}

static void write_origin(struct worker *w, uint32_t k)
{
    uint32_t dice = chance_below(&w->chance, 16);
    if (dice < 6)
        return fenced_set(w, k);
    uint64_t number = atomic_fetch_add(&model->origin[k].origin, 1) + 1;
    if (w->is_bridge) {
        invalidate_by_peer(w, k);
    } else if (dice < 12) {
        cache_delete(&w->a, w->origin[k].hash);
    } else if (dice < 14) {
        struct write nothing = tagged_write(w, k, number);
        nothing.store_nothing = true;
        cache_set(&w->a, &nothing);
    } else {
        dice == 14 || !load_relaxed(&model->clearing) ? cache_delete_tag(&w->a, tag_of(k)) : cache_clear(&w->a);
        tally(WIDE);
    }
    raise_max(&model->origin[k].floor, number);
    tally(DELETES);
}

static void origin_step(struct worker *w)
{
    uint32_t k = chance_below(&w->chance, ORIGIN_KEYS), dice = chance_below(&w->chance, 100);
    if (dice < 60)
        get_origin(w, k);
    else if (dice < 85)
        fill_origin(w, k);
    else
        write_origin(w, k);
}

/* ---- jobs ---- */

/* A job is added by whoever comes by while it is among the newest; the winner deletes an old one, so that no
 * live job is ever evicted. */
static void job_step(struct worker *w)
{
    uint64_t newest = load_acquire(&model->next_job);
    uint64_t job = newest + chance_below(&w->chance, 3);
    struct named_key k = key_named(&w->a, JOBS_BASE + (uint32_t)job);
    struct write write = write_for(w, &k, JOBS_BASE, job);
    tally(ADDS);
    if (cache_add(&w->a, &write) == STORED) {
        uint64_t last = atomic_exchange(&model->last_added[job % JOBS_KEPT], job + 1);
        bool in_time = load_acquire(&model->next_job) < job + JOB_LATE;
        REQUIRE(last != job + 1 || !in_time, "job %llu was added twice", (unsigned long long)job);
        tally(ADDED);
        if (job >= JOB_LIFE) {
            k = key_named(&w->a, JOBS_BASE + (uint32_t)(job - JOB_LIFE));
            cache_delete(&w->a, k.hash);
        }
    }
    if (chance_below(&w->chance, 64) == 0)
        cas(&model->next_job, &newest, newest + 1);
}

/* ---- counters ---- */

static void counter_step(struct worker *w)
{
    uint32_t c = chance_below(&w->chance, COUNTERS_HELD);
    struct named_key k = key_named(&w->a, COUNTERS_BASE + c);
    uint64_t floor = load_acquire(&model->counter[c].floor);
    int64_t sum;
    enum incr result = cache_incr(&w->a, k.hash, k.text, k.bytes, 1, false, &sum);
    REQUIRE(result == INCR_DONE, "incr: %d", (int)result);
    REQUIRE((uint64_t)sum > floor, "counter %u was %llu, and is %lld after one was added", c, (unsigned long long)floor, (long long)sum);
    uint64_t last = atomic_exchange(&model->counter[c].reached[sum % HISTORY], (uint64_t)sum);
    REQUIRE(last != (uint64_t)sum, "counter %u was %lld twice", c, (long long)sum);
    raise_max(&model->counter[c].floor, (uint64_t)sum);
    tally(INCRS);
}

static void begin_counters(struct attachment *a)
{
    int64_t zero = 0;
    for (uint32_t c = 0; c < COUNTERS_HELD; c++) {
        struct named_key k = key_named(a, COUNTERS_BASE + c);
        struct write w = write_of(&k, &zero, sizeof zero);
        w.type = TYPE_INT64;
        w.local = true;
        REQUIRE(cache_add(a, &w) == STORED, "add");
    }
}

static void work(int number, uint64_t seed)
{
    struct worker *w = calloc(1, sizeof *w);
    struct segment_config config = plain_config(SEGMENT_BYTES);
    w->chance.state = seed;
    w->is_bridge = number == 0;
    config.has_bridge = load_relaxed(&model->clearing) && number % 2; /* such ones overwrite by way of pending words */
    attach_to(&w->a, file, &config);
    for (uint32_t k = 0; k < PLAIN_KEYS; k++)
        w->plain[k] = key_named(&w->a, k);
    for (uint32_t k = 0; k < ORIGIN_KEYS; k++)
        w->origin[k] = key_named(&w->a, 100 + k);
    while (!torture_over()) {
        recovery_look_after(&w->a); /* as every verb of a real process does */
        uint32_t dice = chance_below(&w->chance, 16);
        if (dice >= 14 && !load_relaxed(&model->clearing))
            dice == 14 ? job_step(w) : counter_step(w);
        else
            dice % 2 ? plain_step(w) : origin_step(w);
    }
    segment_detach(&w->a);
    free(w);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_index");
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct attachment a;
    file = memory_file();
    attach_to(&a, file, &config);
    model = shared_zeroes(sizeof *model);
    begin_counters(&a);
    double part = torture.seconds / 3;
    torture_run(work, WORKERS, WORKERS, 0, part); /* races, undisturbed */
    uint64_t kills = torture_run(work, WORKERS, 0, 100, part);
    store_release(&model->clearing, 1);
    kills += torture_run(work, WORKERS, 0, 100, part);
    printf("index: %llu operations checked: %llu gets (%llu hits), %llu sets, %llu deletes (%llu wide, %llu by peers), %llu touches, %llu fills "
           "(%llu stored), %llu fenced sets, %llu adds (%llu won), %llu incrs, %llu armed, %llu kills\n",
           (unsigned long long)(tallied(GETS) + tallied(SETS) + tallied(DELETES) + tallied(TOUCHES) + tallied(FILLS) + tallied(FENCED) +
                                tallied(ADDS) + tallied(INCRS)),
           (unsigned long long)tallied(GETS), (unsigned long long)tallied(HITS), (unsigned long long)tallied(SETS),
           (unsigned long long)tallied(DELETES), (unsigned long long)tallied(WIDE), (unsigned long long)tallied(REMOTE),
           (unsigned long long)tallied(TOUCHES), (unsigned long long)tallied(FILLS), (unsigned long long)tallied(FILLED),
           (unsigned long long)tallied(FENCED), (unsigned long long)tallied(ADDS), (unsigned long long)tallied(ADDED), (unsigned long long)tallied(INCRS), (unsigned long long)tallied(ARMED),
           (unsigned long long)kills);
    segment_detach(&a);
    return 0;
}
