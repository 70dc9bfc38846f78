/* torture_prewarm.c - which invalidated key is worth a load: the predictor against an oracle, raced, killed, and fed garbage.
 *
 *   Step for step: random events of some keys go to the predictor, and to an oracle that is written anew from the policy's
 *   description (exact records, no set that overflows, no mailbox). After each, both have the same p, delay, tokens and
 *   horizon.
 *   Raced: workers write, read, evict, order and load the same keys, and are killed at any instruction. No key of an order is
 *   torn; tokens never exceed their bound; every order is taken at most once; all work goes on.
 *   Garbage: the regions are filled with any bytes. Every verb returns, p stays a probability, and no key is torn.
 */
#include "prewarm.h"
#include "torture.h"

#include "clock.h"

#include <math.h>

enum { SEGMENT_BYTES = 4 << 20, KEYS = 400, WORKERS = 4 };
enum { STEPS, ORDERS, LOADS, TAKEN, GARBAGE };

static const double WEIGHT = 3, BUDGET = .05;

static int file;

static struct segment_config config_of(void)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    config.prewarms = true;
    config.prewarm_weight = WEIGHT;
    config.prewarm_budget = BUDGET;
    return config;
}

/* ---- the oracle ---- */

enum { BINS = 20, CLASSES_OF_ALL = 12, SHAPES = 13 };
enum oracle_state { O_IDLE, O_WAIT, O_QUEUED, O_WARM };

struct oracle_record {
    bool known;
    enum oracle_state state;
    uint32_t feature[4], history, class;
    uint64_t written, made; /* made: its number, in the order in which records were made */
    bool in_main;
};

struct oracle_shape {
    float read[BINS + 1], written[BINS + 1], n;
};

static struct oracle {
    struct oracle_record record[KEYS];
    struct oracle_shape shape[SHAPES];
    float weight[4][32], gradient[4][32], bias;
    double tokens, horizon, entries;
    int pay; /* so many loads ahead pay for what they push out: 64 after the last entry fell out */
    double evicted;
} oracle;

static uint32_t bits_of(uint64_t t)
{
    uint32_t n = 0;
    for (; t; t >>= 1)
        n++;
    return n;
}

/* Times of writes are known in ticks. */
static uint64_t since(const struct oracle_record *r, uint64_t now) { return (now / 16 - r->written / 16) * 16; }

static double oracle_cap(void) { return fmax(32, BUDGET * oracle.entries); }

static float oracle_p(const struct oracle_record *r)
{
    float z = oracle.bias;
    for (int i = 0; i < 4; i++)
        z += oracle.weight[i][r->feature[i]];
    return 1 / (1 + expf(-z));
}

static void oracle_note(struct oracle_shape *s, bool read, bool never, uint32_t bin)
{
    s->n += 1;
    if (read)
        s->read[bin] += 1;
    else
        s->written[never ? BINS : bin] += 1;
    if (s->n > 1024) {
        s->n *= .5f;
        for (int i = 0; i <= BINS; i++)
            s->read[i] *= .5f, s->written[i] *= .5f;
    }
}

static void oracle_settle(struct oracle_record *r, bool read, bool never, uint64_t now)
{
    if (r->state == O_IDLE)
        return;
    uint32_t bin = bits_of(since(r, now));
    bin = bin < BINS - 1 ? bin : BINS - 1;
    oracle_note(&oracle.shape[r->class], read, never, bin);
    oracle_note(&oracle.shape[CLASSES_OF_ALL], read, never, bin);
    float error = oracle_p(r) - (read ? 1.f : 0.f);
    oracle.bias -= .01f * error;
    for (int i = 0; i < 4; i++) {
        float *g = &oracle.gradient[i][r->feature[i]], step;
        *g = (*g == 0 ? .01f : *g) + error * error;
        step = .15f / sqrtf(*g);
        oracle.weight[i][r->feature[i]] -= .5f * (step > .01f ? step : .01f) * error;
    }
    r->history = r->history * 2 + read;
    if (r->history >= 16)
        r->history = 8 + (r->history & 7);
    if (r->state == O_WARM && read)
        oracle.tokens = fmin(oracle_cap(), oracle.tokens + 1 + .9 * BUDGET);
    r->state = O_IDLE;
}

static double oracle_price(void)
{
    double least = 1 / (1 + WEIGHT);
    return fmin(1, fmax(least, least + (1 - least) * (1 - oracle.tokens / oracle_cap())));
}

/* The delay's bin, or -1; *p: of a read then. */
static int oracle_decide(const struct oracle_record *r, double *p)
{
    const struct oracle_shape *all = &oracle.shape[CLASSES_OF_ALL], *own = &oracle.shape[r->class];
    double price = oracle_price(), cost = price / (1 - price + 1e-9), now = oracle_p(r), best = 0;
    double reads = 0, writes = 0, reads_gone = 0, writes_gone = 0;
    float share = (float)(64 / fmax(64, all->n)), read[BINS + 1], written[BINS + 1];
    int delay = -1;
    for (int i = 0; i <= BINS; i++) {
        reads += read[i] = own->read[i] + share * all->read[i];
        writes += written[i] = own->written[i] + share * all->written[i];
    }
    *p = now;
    for (int d = 0; d < BINS - 1; d++) {
        double gain = now * (reads > 0 ? 1 - reads_gone / reads : 1), loss = (1 - now) * (writes > 0 ? 1 - writes_gone / writes : 1);
        if (gain - cost * loss > best * 1.02 + 1e-6) {
            best = gain - cost * loss;
            delay = d;
            *p = gain / (gain + loss);
        }
        if (all->n < 32)
            break;
        reads_gone += read[d];
        writes_gone += written[d];
    }
    return delay;
}

/* The regions' own order decides which set is swept: the oracle is told which keys were in it. */
static uint64_t records_made;

static void oracle_sweep(struct oracle_record *r, uint64_t now)
{
    double age = (double)since(r, now);
    if ((r->state == O_WAIT && age > oracle.horizon) || (r->state == O_QUEUED && age > oracle.horizon + (1 << 19)))
        oracle_settle(r, false, true, now);
}

/* ---- step for step ---- */

static _Thread_local struct attachment a;
static _Thread_local struct named_key keys[KEYS];

static double tokens_now(void)
{
    uint64_t bits = load_relaxed(&a.prewarm->tokens);
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t set_of(uint32_t key)
{
    return reduce32((uint32_t)fold_multiply(keys[key].hash, 0xa0761d6478bd642full), a.geo.prewarm_sets);
}

/* In the order in which the records were made, as they stand in their set. */
static void sweep_set(uint32_t set, uint64_t now)
{
    for (uint64_t last = 0, next; last != UINT64_MAX; last = next) {
        uint32_t which = 0;
        next = UINT64_MAX;
        for (uint32_t key = 0; key < KEYS; key++) {
            uint64_t made = oracle.record[key].made;
            if (made > last && made < next && set_of(key) == set)
                next = made, which = key;
        }
        if (next != UINT64_MAX)
            oracle_sweep(&oracle.record[which], now);
    }
}

static void step_write(uint32_t key, struct chance *c, uint64_t now)
{
    struct oracle_record *r = &oracle.record[key];
    struct prewarm_copy copy = {.age_ms = chance_below(c, 1 << chance_below(c, 24)), .frequency = chance_below(c, 4),
                                .in_main = chance_below(c, 2), .key_bytes = keys[key].bytes};
    memcpy(copy.key, keys[key].text, keys[key].bytes);
    bool cached = chance_below(c, 4) > 0, was_queued = r->state == O_QUEUED, decides = cached || was_queued;
    uint64_t hand = load_relaxed(&a.prewarm->hand) % a.geo.prewarm_sets;
    prewarm_written(&a, keys[key].hash, cached ? &copy : NULL, now);

    double p = 0;
    int delay = -1;
    oracle_settle(r, false, false, now);
    if (r->known || cached) {
        uint32_t class = r->known ? 1 + bits_of(since(r, now)) / 2 : 0;
        r->class = class < 11 ? class : 11;
        r->history = r->known ? r->history : 1;
        r->made = r->known ? r->made : ++records_made;
        r->known = true;
        r->written = now;
        if (decides) {
            uint32_t age = bits_of(copy.age_ms);
            r->feature[0] = cached ? copy.frequency + 4 * copy.in_main : 8;
            r->feature[1] = cached ? age < 31 ? age : 31 : 0;
            r->feature[2] = r->history;
            r->feature[3] = policy_estimate(&a, keys[key].hash, 0) & 15;
            r->in_main = cached ? copy.in_main : r->in_main;
            delay = oracle_decide(r, &p);
            r->state = delay < 0 ? O_WAIT : O_QUEUED;
        }
    }
    struct prewarm_order o;
    bool ordered = prewarm_take(&a, &o);
    REQUIRE(ordered == (delay >= 0), "key %u: %s, the oracle: delay %d", key, ordered ? "an order" : "no order", delay);
    if (ordered) {
        uint64_t due = now + (delay ? 1ull << (delay - 1) : 0);
        REQUIRE(o.hash == keys[key].hash && o.due_ms == due && fabs(o.p - p) < 1e-5, "key %u: due in %llu at p %f, the oracle: %llu, %f", key,
                (unsigned long long)(o.due_ms - now), (double)o.p, (unsigned long long)(due - now), p);
        REQUIRE(o.key_bytes == (cached ? keys[key].bytes : 0) && memcmp(o.key, keys[key].text, o.key_bytes) == 0, "another key's order");
        REQUIRE(prewarm_was_in_main(&a, o.hash) == r->in_main, "it goes back into the other queue");
        tally(ORDERS);
    }
    sweep_set((uint32_t)hand, now);
    struct prewarm_view view = {0};
    bool known = prewarm_look(&a, keys[key].hash, now, &view);
    REQUIRE(known == r->known, "key %u is %s", key, known ? "known" : "unknown");
    if (decides)
        REQUIRE(fabs(view.price - oracle_price()) < 1e-6 && fabsf(view.p - oracle_p(r)) < 1e-5f, "key %u: p %f price %f, the oracle: %f, %f", key,
                (double)view.p, view.price, (double)oracle_p(r), oracle_price());
}

static void step_load(uint32_t key, struct chance *c)
{
    struct oracle_record *r = &oracle.record[key];
    float p = (float)chance_below(c, 1000) / 1000;
    bool worth = r->state == O_QUEUED && p > oracle_price();
    if (r->state == O_QUEUED && !worth)
        r->state = O_WAIT;
    REQUIRE(prewarm_claim(&a, keys[key].hash, p) == worth, "key %u: p %f, price %f", key, (double)p, oracle_price());
    if (!worth)
        return;
    oracle.tokens -= oracle.pay > 0 ? 1.06 : 1;
    oracle.pay -= oracle.pay > 0;
    prewarm_begin_fill(&a, keys[key].hash);
    r->state = O_WARM;
    if (chance_below(c, 8) == 0) {
        prewarm_fail_fill(&a, keys[key].hash);
        r->state = O_WAIT;
    }
    tally(LOADS);
}

static void step_evict(uint32_t key, struct chance *c, uint64_t now)
{
    struct oracle_record *r = &oracle.record[key];
    uint64_t age = chance_below(c, 1 << chance_below(c, 20));
    uint32_t frequency = chance_below(c, 2);
    prewarm_evicted(&a, keys[key].hash, frequency, age, now);
    oracle.horizon += (2. * (double)age - oracle.horizon) / (64 + fmin(oracle.evicted, 4096));
    oracle.evicted++;
    oracle.pay = 64;
    if (frequency == 0 && r->state == O_WARM)
        oracle_settle(r, false, true, now);
}

/* `full`: entries fall out. */
static void one_step(struct chance *c, uint64_t now, bool full)
{
    uint32_t key = chance_below(c, KEYS), hot = chance_below(c, 2) ? key : key % 20;
    struct oracle_record *r = &oracle.record[hot];
    switch (chance_below(c, 8)) {
    case 0:
        for (int i = 0; i < 10; i++) {
            prewarm_demanded(&a);
            oracle.tokens = fmin(oracle_cap(), oracle.tokens + .9 * BUDGET);
        }
        break;
    case 1:
    case 2: {
        bool in_time = (double)since(r, now) <= oracle.horizon && r->state != O_WARM;
        prewarm_missed(&a, keys[hot].hash, now);
        oracle_settle(r, in_time, !in_time, now);
        break;
    }
    case 3:
        prewarm_hit(&a, keys[hot].hash, now);
        if (r->state == O_WARM)
            oracle_settle(r, true, false, now);
        break;
    case 4:
        step_load(hot, c);
        break;
    case 5:
        if (chance_below(c, 4) && full)
            step_evict(hot, c, now);
        else {
            prewarm_overwritten(&a, keys[hot].hash, now);
            oracle_settle(r, false, false, now);
        }
        break;
    default:
        step_write(hot, c, now);
    }
    REQUIRE(fabs(tokens_now() - oracle.tokens) < 1e-6, "%f tokens, the oracle: %f", tokens_now(), oracle.tokens);
    tally(STEPS);
}

static void attach_here(int fd)
{
    struct segment_config config = config_of();
    attach_to(&a, fd, &config);
    for (uint32_t key = 0; key < KEYS; key++)
        keys[key] = key_named(&a, key);
}

static void check_steps(uint64_t seed, double seconds)
{
    struct chance c = {seed};
    uint64_t now = 1000000;
    double until = seconds_now() + seconds;
    int fd = memory_file();
    attach_here(fd);
    memset(&oracle, 0, sizeof oracle);
    oracle.entries = a.geo.prewarm_entries;
    oracle.horizon = 4 * oracle.entries;
    /* It learns before it loads; and after the last entry fell out, many loads pay for that. */
    for (uint32_t batch = 0; seconds_now() < until || !tallied(ORDERS) || !tallied(LOADS); batch++)
        for (int i = 0; i < 1000; i++) {
            now += chance_below(&c, 64) ? chance_below(&c, 20) : chance_below(&c, 1 << chance_below(&c, 18));
            one_step(&c, now, batch / 16 % 2 == 0);
        }
    segment_detach(&a);
    close(fd);
}

/* ---- raced and killed ---- */

static void check_order(const struct prewarm_order *o)
{
    REQUIRE(o->key_bytes == 0 || hash_key(a.hash_key, o->key, o->key_bytes) == o->hash, "an order's key is torn");
}

static void use(uint32_t key, struct chance *c, uint64_t now)
{
    struct prewarm_copy copy = {.age_ms = chance_next(c) >> 40, .frequency = chance_below(c, 8), .in_main = chance_below(c, 2),
                                .key_bytes = keys[key].bytes};
    struct prewarm_order o;
    struct prewarm_view view;
    uint64_t hash = keys[key].hash;
    memcpy(copy.key, keys[key].text, keys[key].bytes);
    prewarm_written(&a, hash, chance_below(c, 4) ? &copy : NULL, now);
    for (int i = 0; i < 4 && prewarm_take(&a, &o); i++) {
        tally(TAKEN);
        check_order(&o);
        if (!prewarm_claim(&a, o.hash, o.p))
            continue;
        prewarm_begin_fill(&a, o.hash);
        if (chance_below(c, 2))
            prewarm_hit(&a, o.hash, now);
    }
    prewarm_demanded(&a);
    if (chance_below(c, 2))
        prewarm_missed(&a, hash, now);
    prewarm_evicted(&a, hash, chance_below(c, 2), copy.age_ms, now);
    if (prewarm_look(&a, hash, now, &view))
        REQUIRE(view.p >= 0 && view.p <= 1 && view.price >= 0 && view.price <= 1, "p %f, price %f", (double)view.p, view.price);
}

static void work(int number, uint64_t seed)
{
    struct chance c = {seed};
    (void)number;
    attach_here(file);
    while (!torture_over()) {
        use(chance_below(&c, KEYS), &c, clock_ms(&a));
        REQUIRE(!(tokens_now() > fmax(32, BUDGET * a.geo.prewarm_entries) + 1e-6), "%f tokens", tokens_now());
    }
    segment_detach(&a);
}

/* ---- garbage ---- */

static void spoil(struct chance *c)
{
    uint64_t from = a.geo.prewarm_at, words = (a.geo.pages_at - from) / 8;
    for (uint64_t i = 0; i < words; i++) {
        uint64_t w = chance_next(c);
        uint32_t kind = chance_below(c, 4);
        store_relaxed((a64 *)(void *)(a.base + from) + i, kind == 0 ? 0x7fc000007fc00000ull /* not a number, twice */
                                                          : kind == 1 ? UINT64_MAX
                                                          : kind == 2 ? chance_below(c, 2000)
                                                                      : w);
    }
}

static void check_garbage(uint64_t seed, double seconds)
{
    struct chance c = {seed};
    double until = seconds_now() + seconds;
    int fd = memory_file();
    attach_here(fd);
    while (seconds_now() < until || !tallied(GARBAGE)) {
        spoil(&c);
        for (int i = 0; i < 200; i++)
            use(chance_below(&c, KEYS), &c, chance_next(&c) >> (16 + chance_below(&c, 32)));
        tally(GARBAGE);
    }
    segment_detach(&a);
    close(fd);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_prewarm");
    uint64_t kills = 0, seed = (uint64_t)(seconds_now() * 1e9);
    check_steps(seed, torture.seconds / 4);
    check_garbage(seed + 1, torture.seconds / 4);
    file = memory_file();
    for (int part = 0; part < 2; part++)
        kills += torture_run(work, WORKERS, 0, part && !torture.threads ? 200 : 0, torture.seconds / 4);
    printf("prewarm: %llu steps as the oracle's, %llu orders, %llu loads; %llu orders taken in races, %llu kills; %llu segments of garbage\n",
           (unsigned long long)tallied(STEPS), (unsigned long long)tallied(ORDERS), (unsigned long long)tallied(LOADS),
           (unsigned long long)tallied(TAKEN), (unsigned long long)kills, (unsigned long long)tallied(GARBAGE));
    return tallied(ORDERS) > 0 && tallied(LOADS) > 0 && tallied(TAKEN) > 0 && tallied(GARBAGE) > 0 ? 0 : 1;
}
