/* prewarm.c - see prewarm.h.
 *
 * The features of a write, all in the record:
 *
 *   frequency   the evicted entry's counter, + 4 if it was in the main queue; 8: no entry, but a QUEUED key
 *   age         bits(ms since it was loaded): bits(0) = 0, bits(t) = floor(log2 t) + 1
 *   history     the last three outcomes (1: it was read) after a leading 1; the value 1: none is known
 *   estimate    the policy's sketch
 *
 * The class of a record selects a shape: the distribution of the time until the next read or write. It is 0
 * at the first known write of a key, later 1 + half the bits of the time since the last write. The shape says
 * when a read comes, and p whether one comes.
 */
#include "prewarm.h"

#include "hash.h"

#include <math.h>

enum {
    WAYS = 8,
    TICK_BITS = 4, /* 16 ms */
    LAST_BITS = 25,
    HISTORY_NONE = 1,
    FREQUENCY_IN_MAIN = 4,
    FREQUENCY_QUEUED = 8,         /* 9: and its entry before that was in the main queue */
    CLASSES = PREWARM_SHAPES - 1, /* the last shape is that of all classes together */
    AGE_MAX = 31,
    WARM_UP = 32,     /* outcomes, before a delay other than 0 is chosen */
    SHAPE_MAX = 1024, /* outcomes; beyond, all older ones count half */
    TRIES_MAX = 16,   /* of a CAS: each failed try means that another process succeeded */
    PUSHES_FOR = 64,  /* loads ahead that count as evicting after an eviction, which frees a whole page */
    SEEN_BITS = 56,
};
#define LAST_MASK ((1ull << LAST_BITS) - 1)

static const float BIAS_STEP = .01f, STEP = .5f, STEP_MIN = .01f, STEP_SCALE = .15f, GRADIENT_START = .01f;
static const double HORIZON_MEANS = 2;   /* the mean is of all evicted entries; read ones stay longer */
static const double HORIZON_OVER = 4096; /* evictions in the mean: the entries of one page are of like age */
static const double HORIZON_START = 64;
static const double PUSHED_OUT = .06; /* tokens: what the entry evicted for the loaded one would have saved */
static const double SAFETY = .9;      /* share of the budget that is used: some costs are not counted */
static const double TOKENS_MIN = 32, SHAPE_OF_ALL = 64, BETTER = 1.02;

/* ---- numbers in shared memory ---- */

static float prewarm_bounded(float x, float low, float high, float otherwise)
{
    return x >= low && x <= high ? x : otherwise; /* false of NaN */
}

static float prewarm_float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t prewarm_bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float prewarm_read(const a32 *at, float low, float high)
{
    return prewarm_bounded(prewarm_float_of(load32_relaxed(at)), low, high, 0);
}

static double prewarm_double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint64_t prewarm_double_bits(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* ---- the budget ---- */

static double prewarm_entries(const struct attachment *a)
{
    uint64_t held = load_relaxed(&a->header->policy_entries), room = a->geo.prewarm_entries;
    return (double)(held > 0 && held < room ? held : room);
}

static double prewarm_tokens_max(const struct attachment *a)
{
    double share = a->prewarm_budget * prewarm_entries(a);
    return share > TOKENS_MIN ? share : TOKENS_MIN;
}

/* Garbage counts as no tokens; both tokens and debts are bounded. */
static double prewarm_tokens_of(const struct attachment *a, uint64_t bits)
{
    double tokens = prewarm_double_of(bits), most = prewarm_tokens_max(a);
    return tokens <= most ? (tokens >= -most ? tokens : -most) : tokens > most ? most : 0;
}

static void prewarm_pay(struct attachment *a, double tokens)
{
    uint64_t seen = load_relaxed(&a->prewarm->tokens);
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        double now = prewarm_tokens_of(a, seen) + tokens, most = prewarm_tokens_max(a);
        if (cas(&a->prewarm->tokens, &seen, prewarm_double_bits(now < most ? now : most)))
            return;
    }
}

void prewarm_demanded(struct attachment *a) { prewarm_pay(a, SAFETY * a->prewarm_budget); }

/* The p above which a load is worth its price. It rises as the tokens run out. */
static double prewarm_price(const struct attachment *a)
{
    double least = 1 / (1 + a->prewarm_weight);
    if (a->prewarm_budget <= 0)
        return least;
    double tokens = prewarm_tokens_of(a, load_relaxed(&a->prewarm->tokens)),
           price = least + (1 - least) * (1 - tokens / prewarm_tokens_max(a));
    return price < least ? least : price > 1 ? 1 : price;
}

/* ---- the horizon: how long an entry stays that no process reads ---- */

/* Twice the mean age at which entries are evicted. With a shorter horizon, reads that would have been hits
 * count as NEVER, and p becomes too low. A mean over few evictions would vary with the pages that they come
 * from. */
static double prewarm_horizon(const struct attachment *a)
{
    double ms = prewarm_double_of(load_relaxed(&a->prewarm->horizon_ms));
    return ms > 0 && ms < 1e15 ? ms : 4 * prewarm_entries(a);
}

static void prewarm_note_age(struct attachment *a, uint64_t age_ms)
{
    double now = prewarm_horizon(a), evicted = (double)load_relaxed(&a->prewarm->evicted),
           over = HORIZON_START + (evicted < HORIZON_OVER ? evicted : HORIZON_OVER);
    store_relaxed(&a->prewarm->horizon_ms,
                  prewarm_double_bits(now + (HORIZON_MEANS * (double)age_ms - now) / over));
}

/* ---- records ---- */

struct prewarm_record {
    enum prewarm_state state;
    uint32_t history, frequency, age, estimate, class, last; /* last: in ticks */
    uint32_t tag;
};

static struct prewarm_record prewarm_unpack(uint64_t word)
{
    return (struct prewarm_record){.state = (enum prewarm_state)(word & 3),
                                   .history = word >> 2 & 15,
                                   .frequency = word >> 6 & 15,
                                   .age = word >> 10 & 31,
                                   .estimate = word >> 15 & 15,
                                   .class = word >> 19 & 15,
                                   .last = (uint32_t)(word >> 23 & LAST_MASK),
                                   .tag = (uint32_t)(word >> 48)};
}

static uint64_t prewarm_pack(const struct prewarm_record *r)
{
    return (uint64_t)r->state | (uint64_t)r->history << 2 | (uint64_t)r->frequency << 6 |
           (uint64_t)r->age << 10 | (uint64_t)r->estimate << 15 | (uint64_t)r->class << 19 |
           (uint64_t)r->last << 23 | (uint64_t)r->tag << 48;
}

static uint32_t prewarm_tick(uint64_t ms) { return (uint32_t)(ms >> TICK_BITS & LAST_MASK); }

/* Time since the last write. */
static uint64_t prewarm_since_ms(const struct prewarm_record *r, uint64_t now_ms)
{
    return (((uint64_t)prewarm_tick(now_ms) - r->last) & LAST_MASK) << TICK_BITS;
}

static uint32_t prewarm_tag(uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 48);
    return tag ? tag : 1;
}

static a64 *prewarm_set_of(const struct attachment *a, uint64_t hash)
{
    uint64_t mixed = fold_multiply(hash, 0xa0761d6478bd642full);
    return a->prewarm_records + (uint64_t)reduce32((uint32_t)mixed, a->geo.prewarm_sets) * WAYS;
}

/* The key's record; NULL: it has none. */
static a64 *prewarm_find(const struct attachment *a, uint64_t hash, uint64_t *word)
{
    a64 *set = prewarm_set_of(a, hash);
    for (uint32_t i = 0; i < WAYS; i++)
        if ((*word = load_relaxed(&set[i])) >> 48 == prewarm_tag(hash))
            return &set[i];
    return NULL;
}

/* ---- the model ---- */

enum { FREQUENCY_AT = 0, AGE_AT = 9, HISTORY_AT = AGE_AT + 32, ESTIMATE_AT = HISTORY_AT + 16 };
_Static_assert(ESTIMATE_AT + 16 == PREWARM_WEIGHTS, "a weight for each bucket of each feature");

static void prewarm_features(const struct prewarm_record *r, uint32_t at[PREWARM_FEATURES])
{
    at[0] = FREQUENCY_AT + (r->frequency < FREQUENCY_QUEUED ? r->frequency : FREQUENCY_QUEUED);
    at[1] = AGE_AT + r->age;
    at[2] = HISTORY_AT + r->history;
    at[3] = ESTIMATE_AT + r->estimate;
}

static const float WEIGHT_MAX = 64, GRADIENT_MAX = 1e9f;

static float prewarm_weight_of(uint64_t pair)
{
    return prewarm_bounded(prewarm_float_of((uint32_t)pair), -WEIGHT_MAX, WEIGHT_MAX, 0);
}

static float prewarm_p(const struct attachment *a, const struct prewarm_record *r)
{
    uint32_t at[PREWARM_FEATURES];
    float z = prewarm_read(&a->prewarm->bias, -WEIGHT_MAX, WEIGHT_MAX);
    prewarm_features(r, at);
    for (int i = 0; i < PREWARM_FEATURES; i++)
        z += prewarm_weight_of(load_relaxed(&a->prewarm->weights[at[i]]));
    return 1 / (1 + expf(-z));
}

/* AdaGrad (Duchi, Hazan, Singer, "Adaptive subgradient methods", JMLR 2011), but the step stays at least
 * STEP_MIN, because traffic changes. */
static void prewarm_learn(struct attachment *a, const struct prewarm_record *r, bool was_read)
{
    uint32_t at[PREWARM_FEATURES];
    float error = prewarm_p(a, r) - (was_read ? 1.f : 0.f),
          bias = prewarm_read(&a->prewarm->bias, -WEIGHT_MAX, WEIGHT_MAX);
    store32_relaxed(&a->prewarm->bias, prewarm_bits_of(bias - BIAS_STEP * error));
    prewarm_features(r, at);
    for (int i = 0; i < PREWARM_FEATURES; i++) {
        uint64_t pair = load_relaxed(&a->prewarm->weights[at[i]]);
        float weight = prewarm_weight_of(pair),
              gradient = prewarm_bounded(prewarm_float_of((uint32_t)(pair >> 32)), GRADIENT_START,
                                         GRADIENT_MAX, GRADIENT_START) +
                         error * error,
              step = STEP_SCALE / sqrtf(gradient);
        weight -= STEP * (step > STEP_MIN ? step : STEP_MIN) * error;
        store_relaxed(&a->prewarm->weights[at[i]],
                      (uint64_t)prewarm_bits_of(gradient) << 32 | prewarm_bits_of(weight));
    }
}

/* ---- when the next read or write comes ---- */

static uint32_t prewarm_bits(uint64_t t) { return t ? 64 - (uint32_t)__builtin_clzll(t) : 0; }

enum prewarm_outcome { BY_READ, BY_WRITE, NEVER };

static void prewarm_note_shape(struct prewarm_shape *s, enum prewarm_outcome what, uint32_t bin)
{
    a32 *at = what == BY_READ ? &s->read[bin] : &s->written[what == BY_WRITE ? bin : PREWARM_BINS];
    float n = prewarm_read(&s->outcomes, 0, 2 * SHAPE_MAX) + 1;
    store32_relaxed(at, prewarm_bits_of(prewarm_read(at, 0, 2 * SHAPE_MAX) + 1));
    store32_relaxed(&s->outcomes, prewarm_bits_of(n));
    if (n <= SHAPE_MAX)
        return;
    store32_relaxed(&s->outcomes, prewarm_bits_of(n * .5f));
    for (uint32_t i = 0; i <= PREWARM_BINS; i++) {
        store32_relaxed(&s->read[i], prewarm_bits_of(prewarm_read(&s->read[i], 0, 2 * SHAPE_MAX) * .5f));
        store32_relaxed(&s->written[i],
                        prewarm_bits_of(prewarm_read(&s->written[i], 0, 2 * SHAPE_MAX) * .5f));
    }
}

struct prewarm_choice {
    int delay; /* a bin, see prewarm_delay_ms; -1: a load is not worth its price at any time */
    float p;   /* of a read after the delay, if the key is neither read nor written before */
};

static uint64_t prewarm_delay_ms(int bin) { return bin ? 1ull << (bin - 1) : 0; }

/* A class alone has too few outcomes, so the shape of all classes is mixed in. */
static float prewarm_mixed(const a32 *own, const a32 *all, float share)
{
    return prewarm_read(own, 0, 2 * SHAPE_MAX) + share * prewarm_read(all, 0, 2 * SHAPE_MAX);
}

/* Choose the delay with the highest expected worth of a load. A longer delay loses reads that come before it,
 * and saves loads that a write would have wasted. */
static struct prewarm_choice prewarm_choose(const struct attachment *a, const struct prewarm_record *r)
{
    const struct prewarm_shape *all = &a->prewarm->shapes[CLASSES],
                               *own = &a->prewarm->shapes[r->class < CLASSES ? r->class : CLASSES - 1];
    double p = prewarm_p(a, r);
    float known = prewarm_read(&all->outcomes, 0, 2 * SHAPE_MAX),
          share = (float)(SHAPE_OF_ALL / (known > SHAPE_OF_ALL ? known : SHAPE_OF_ALL));
    double price = prewarm_price(a), cost = price / (1 - price + 1e-9), reads = 0, writes = 0;
    for (int i = 0; i <= PREWARM_BINS; i++) {
        reads += prewarm_mixed(&own->read[i], &all->read[i], share);
        writes += prewarm_mixed(&own->written[i], &all->written[i], share);
    }
    struct prewarm_choice choice = {.delay = -1, .p = (float)p};
    double best = 0, reads_lost = 0, writes_out = 0;
    for (int d = 0; d < PREWARM_BINS - 1 && (d == 0 || known >= WARM_UP); d++) {
        double read = p * (reads > 0 ? 1 - reads_lost / reads : 1),
               wasted = (1 - p) * (writes > 0 ? 1 - writes_out / writes : 1), worth = read - cost * wasted;
        if (worth > best * BETTER + 1e-6) {
            best = worth;
            choice = (struct prewarm_choice){.delay = d, .p = (float)(read / (read + wasted))};
        }
        reads_lost += prewarm_mixed(&own->read[d], &all->read[d], share);
        writes_out += prewarm_mixed(&own->written[d], &all->written[d], share);
    }
    return choice;
}

/* ---- outcomes ---- */

/* Change a record that was read as `word`. False: another process has changed it meanwhile. */
static bool prewarm_change(a64 *at, uint64_t *word, const struct prewarm_record *r)
{
    uint64_t next = prewarm_pack(r);
    bool changed = cas(at, word, next);
    if (changed)
        *word = next;
    return changed;
}

/* The outcome of the record's last write is known now: learn from it. */
static void prewarm_settle(struct attachment *a, a64 *at, uint64_t *word, enum prewarm_outcome what,
                           uint64_t now_ms)
{
    struct prewarm_record r = prewarm_unpack(*word), was = r;
    if (r.state == PREWARM_IDLE)
        return;
    bool was_read = what == BY_READ;
    uint32_t h = r.history * 2 + was_read, bin = prewarm_bits(prewarm_since_ms(&r, now_ms));
    r.history = r.history < 8 ? h : 8 + (h & 7);
    r.state = PREWARM_IDLE;
    if (!prewarm_change(at, word, &r))
        return;
    bin = bin < PREWARM_BINS - 1 ? bin : PREWARM_BINS - 1;
    prewarm_note_shape(&a->prewarm->shapes[was.class < CLASSES ? was.class : CLASSES - 1], what, bin);
    prewarm_note_shape(&a->prewarm->shapes[CLASSES], what, bin);
    prewarm_learn(a, &was, was_read);
    if (was.state != PREWARM_WARM)
        return;
    add_relaxed(was_read ? &a->prewarm->useful : &a->prewarm->wasted, 1);
    if (was_read)
        prewarm_pay(a, 1 + SAFETY * a->prewarm_budget);
}

static enum prewarm_outcome prewarm_in_time(const struct attachment *a, const struct prewarm_record *r,
                                            uint64_t now_ms)
{
    return (double)prewarm_since_ms(r, now_ms) <= prewarm_horizon(a) ? BY_READ : NEVER;
}

void prewarm_missed(struct attachment *a, uint64_t hash, uint64_t now_ms)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    if (!at)
        return;
    struct prewarm_record r = prewarm_unpack(word);
    /* a WARM entry that is missed has expired, or its eviction was not noted */
    prewarm_settle(a, at, &word, r.state == PREWARM_WARM ? NEVER : prewarm_in_time(a, &r, now_ms), now_ms);
}

void prewarm_hit(struct attachment *a, uint64_t hash, uint64_t now_ms)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    if (at && prewarm_unpack(word).state == PREWARM_WARM)
        prewarm_settle(a, at, &word, BY_READ, now_ms);
}

void prewarm_evicted(struct attachment *a, uint64_t hash, uint32_t frequency, uint64_t age_ms,
                     uint64_t now_ms)
{
    uint64_t word;
    prewarm_note_age(a, age_ms);
    add_relaxed(&a->prewarm->evicted, 1);
    a64 *at = frequency == 0 ? prewarm_find(a, hash, &word) : NULL;
    if (at && prewarm_unpack(word).state == PREWARM_WARM)
        prewarm_settle(a, at, &word, NEVER, now_ms);
}

void prewarm_overwritten(struct attachment *a, uint64_t hash, uint64_t now_ms)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    if (at)
        prewarm_settle(a, at, &word, BY_WRITE, now_ms);
}

/* A key that is never read or written again causes no event. So each write looks at one set, and settles
 * records whose horizon is over as NEVER. A QUEUED record waits longer: its order may be with a process that
 * died. */
static void prewarm_sweep(struct attachment *a, uint64_t now_ms)
{
    uint64_t set = add_relaxed(&a->prewarm->hand, 1) % a->geo.prewarm_sets;
    for (uint32_t i = 0; i < WAYS; i++) {
        a64 *at = &a->prewarm_records[set * WAYS + i];
        uint64_t word = load_relaxed(at);
        struct prewarm_record r = prewarm_unpack(word);
        double age_ms = (double)prewarm_since_ms(&r, now_ms), horizon = prewarm_horizon(a);
        bool late = r.state == PREWARM_WAIT
                        ? age_ms > horizon
                        : r.state == PREWARM_QUEUED && age_ms > horizon + 2. * (1 << (PREWARM_BINS - 2));
        if (late)
            prewarm_settle(a, at, &word, NEVER, now_ms);
    }
}

/* ---- the mailbox ----
 *
 *   order   | key bytes 32 | p 32 |, hash, due_ms, then the key
 *
 * The bridge puts orders in, and any process that loads takes them out. Two bridges may do so at the same
 * time, if one does not know yet that the other has taken its place. Orders that they garble are dropped: the
 * hash of the key is checked.
 */

enum { ORDER_WORDS = 3 };

static uint32_t prewarm_order_words(uint32_t key_bytes) { return ORDER_WORDS + words_of(key_bytes); }

static a64 *prewarm_mail(const struct attachment *a, uint64_t at)
{
    return &a->prewarm_mail[at % a->geo.prewarm_mail_words];
}

/* False: the mailbox is full, and this order, the newest, is dropped. */
static bool prewarm_put(struct attachment *a, const struct prewarm_order *o)
{
    uint64_t tail = load_relaxed(&a->prewarm->mail_tail), head = load_acquire(&a->prewarm->mail_head);
    uint32_t words = prewarm_order_words(o->key_bytes);
    if (tail - head > a->geo.prewarm_mail_words - words) /* also where one of the two is garbage */
        return false;
    store_relaxed(prewarm_mail(a, tail), (uint64_t)o->key_bytes << 32 | prewarm_bits_of(o->p));
    store_relaxed(prewarm_mail(a, tail + 1), o->hash);
    store_relaxed(prewarm_mail(a, tail + 2), o->due_ms);
    for (uint32_t i = 0; i < words - ORDER_WORDS; i++) {
        uint64_t word = 0;
        uint32_t left = o->key_bytes - i * 8;
        memcpy(&word, o->key + i * 8, left < 8 ? left : 8);
        store_relaxed(prewarm_mail(a, tail + ORDER_WORDS + i), word);
    }
    store_release(&a->prewarm->mail_tail, tail + words); /* MAIL */
    return true;
}

static bool prewarm_read_order(const struct attachment *a, uint64_t head, uint64_t held,
                               struct prewarm_order *o)
{
    uint64_t first = load_relaxed(prewarm_mail(a, head));
    o->key_bytes = (uint32_t)(first >> 32);
    if (held < ORDER_WORDS || o->key_bytes > KEY_BYTES_MAX || prewarm_order_words(o->key_bytes) > held)
        return false;
    o->p = prewarm_float_of((uint32_t)first);
    o->hash = load_relaxed(prewarm_mail(a, head + 1));
    o->due_ms = load_relaxed(prewarm_mail(a, head + 2));
    for (uint32_t i = 0; i < words_of(o->key_bytes); i++) {
        uint64_t word = load_relaxed(prewarm_mail(a, head + ORDER_WORDS + i));
        uint32_t left = o->key_bytes - i * 8;
        memcpy(o->key + i * 8, &word, left < 8 ? left : 8);
    }
    return true;
}

static bool prewarm_is_whole(const struct attachment *a, const struct prewarm_order *o)
{
    return o->key_bytes == 0 || hash_key(a->hash_key, o->key, o->key_bytes) == o->hash;
}

bool prewarm_take(struct attachment *a, struct prewarm_order *o)
{
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        uint64_t head = load_relaxed(&a->prewarm->mail_head),
                 tail = load_acquire(&a->prewarm->mail_tail); /* MAIL */
        if (head == tail)
            return false;
        bool readable =
            tail - head <= a->geo.prewarm_mail_words && prewarm_read_order(a, head, tail - head, o);
        uint64_t next = readable ? head + prewarm_order_words(o->key_bytes) : tail; /* garbage: drop all */
        bool ours = cas(&a->prewarm->mail_head, &head, next);
        if (ours && readable && prewarm_is_whole(a, o))
            return true;
    }
    return false;
}

/* ---- a write ---- */

static bool prewarm_frequency_in_main(uint32_t frequency)
{
    return frequency >= FREQUENCY_IN_MAIN && frequency != FREQUENCY_QUEUED;
}

/* A place for a new record in its set: a free one, or that of the oldest write. */
static a64 *prewarm_make(struct attachment *a, uint64_t hash, uint64_t now_ms, uint64_t *word)
{
    a64 *set = prewarm_set_of(a, hash), *at = NULL;
    uint64_t oldest = 0;
    for (uint32_t i = 0; i < WAYS && oldest < UINT64_MAX; i++) {
        uint64_t there = load_relaxed(&set[i]);
        struct prewarm_record r = prewarm_unpack(there);
        uint64_t age = r.tag ? prewarm_since_ms(&r, now_ms) + 1 : UINT64_MAX;
        if (age > oldest)
            oldest = age, at = &set[i], *word = there;
    }
    prewarm_settle(a, at, word, NEVER, now_ms);
    struct prewarm_record r = {.history = HISTORY_NONE, .tag = prewarm_tag(hash)};
    return prewarm_change(at, word, &r) ? at : NULL;
}

static uint32_t prewarm_class(uint64_t since_ms)
{
    uint32_t class = 1 + prewarm_bits(since_ms) / 2;
    return class < CLASSES - 1 ? class : CLASSES - 1;
}

static void prewarm_describe(struct attachment *a, uint64_t hash, const struct prewarm_copy *copy,
                             struct prewarm_record *r)
{
    uint32_t age = copy ? prewarm_bits(copy->age_ms) : 0, estimate = policy_estimate(a, hash, 0);
    r->frequency = copy ? (copy->frequency & 3) + (copy->in_main ? FREQUENCY_IN_MAIN : 0)
                        : FREQUENCY_QUEUED + (prewarm_frequency_in_main(r->frequency) ? 1 : 0);
    r->age = age < AGE_MAX ? age : AGE_MAX;
    r->estimate = estimate < 15 ? estimate : 15;
}

static bool prewarm_order_it(struct attachment *a, uint64_t hash, const struct prewarm_copy *copy,
                             const struct prewarm_choice *choice, uint64_t now_ms)
{
    struct prewarm_order o = {
        .hash = hash, .due_ms = now_ms + prewarm_delay_ms(choice->delay), .p = choice->p};
    if (copy && copy->key_bytes <= KEY_BYTES_MAX) {
        o.key_bytes = copy->key_bytes;
        memcpy(o.key, copy->key, copy->key_bytes);
    }
    return prewarm_put(a, &o);
}

void prewarm_written(struct attachment *a, uint64_t hash, const struct prewarm_copy *copy, uint64_t now_ms)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    bool is_new = !at, was_queued = at && prewarm_unpack(word).state == PREWARM_QUEUED;
    if (at)
        prewarm_settle(a, at, &word, BY_WRITE, now_ms);
    else if (copy)
        at = prewarm_make(a, hash, now_ms, &word);
    struct prewarm_record r = prewarm_unpack(at ? word : 0);
    if (at && r.state == PREWARM_IDLE) {
        r.class = is_new ? 0 : prewarm_class(prewarm_since_ms(&r, now_ms));
        r.last = prewarm_tick(now_ms);
        if (copy || was_queued) {
            prewarm_describe(a, hash, copy, &r);
            struct prewarm_choice choice = prewarm_choose(a, &r);
            bool ordered = choice.delay >= 0 && !(copy && copy->has_tags);
            r.state = ordered ? PREWARM_QUEUED : PREWARM_WAIT;
            bool changed = prewarm_change(at, &word, &r);
            if (changed && ordered && !prewarm_order_it(a, hash, copy, &choice, now_ms)) {
                r.state = PREWARM_WAIT;
                prewarm_change(at, &word, &r);
            }
        } else
            prewarm_change(at, &word, &r);
    }
    prewarm_sweep(a, now_ms);
}

/* ---- the process that loads ---- */

static bool prewarm_move(struct attachment *a, uint64_t hash, enum prewarm_state from, enum prewarm_state to)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    struct prewarm_record r = prewarm_unpack(at ? word : 0);
    if (!at || r.state != from)
        return false;
    r.state = to;
    return prewarm_change(at, &word, &r);
}

/* Was anything evicted for room lately? If not, a load ahead evicts nothing. */
static bool prewarm_pushes(struct attachment *a)
{
    const uint64_t mask = (1ull << SEEN_BITS) - 1;
    uint64_t evicted = load_relaxed(&a->prewarm->evicted) & mask,
             seen = load_relaxed(&a->prewarm->evicted_seen),
             left = (seen & mask) != evicted ? PUSHES_FOR : seen >> SEEN_BITS;
    if (left > 0)
        store_relaxed(&a->prewarm->evicted_seen, (left - 1) << SEEN_BITS | evicted);
    return left > 0;
}

bool prewarm_claim(struct attachment *a, uint64_t hash, float p)
{
    uint64_t word;
    a64 *at = prewarm_find(a, hash, &word);
    if (!at || prewarm_unpack(word).state != PREWARM_QUEUED)
        return false;
    if (!(p > prewarm_price(a))) {
        prewarm_move(a, hash, PREWARM_QUEUED, PREWARM_WAIT);
        return false;
    }
    prewarm_pay(a, prewarm_pushes(a) ? -1 - PUSHED_OUT : -1);
    add_relaxed(&a->prewarm->loads, 1);
    return true;
}

/* Before the entry can be read: its first hit has to find the record WARM. */
void prewarm_begin_fill(struct attachment *a, uint64_t hash)
{
    prewarm_move(a, hash, PREWARM_QUEUED, PREWARM_WARM);
}

bool prewarm_was_in_main(const struct attachment *a, uint64_t hash)
{
    uint64_t word;
    uint32_t frequency = prewarm_find(a, hash, &word) ? prewarm_unpack(word).frequency : 0;
    return prewarm_frequency_in_main(frequency);
}

void prewarm_fail_fill(struct attachment *a, uint64_t hash)
{
    prewarm_move(a, hash, PREWARM_WARM, PREWARM_WAIT);
}

uint32_t prewarm_orders_max(const struct attachment *a)
{
    double most = prewarm_entries(a) / 8;
    return most > TOKENS_MIN ? (uint32_t)most : (uint32_t)TOKENS_MIN;
}

/* ---- for people ---- */

bool prewarm_look(const struct attachment *a, uint64_t hash, uint64_t now_ms, struct prewarm_view *view)
{
    uint64_t word;
    uint32_t at[PREWARM_FEATURES];
    if (!prewarm_find(a, hash, &word))
        return false;
    struct prewarm_record r = prewarm_unpack(word);
    struct prewarm_choice choice = prewarm_choose(a, &r);
    prewarm_features(&r, at);
    *view = (struct prewarm_view){.state = r.state,
                                  .bucket = {r.frequency, r.age, r.history, r.estimate},
                                  .bias = prewarm_read(&a->prewarm->bias, -WEIGHT_MAX, WEIGHT_MAX),
                                  .p = prewarm_p(a, &r),
                                  .price = prewarm_price(a),
                                  .delay_ms = choice.delay < 0 ? -1 : (int64_t)prewarm_delay_ms(choice.delay),
                                  .since_ms = prewarm_since_ms(&r, now_ms)};
    for (int i = 0; i < PREWARM_FEATURES; i++)
        view->weight[i] = prewarm_weight_of(load_relaxed(&a->prewarm->weights[at[i]]));
    return true;
}
