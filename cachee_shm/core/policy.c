/* policy.c - eviction decisions. See policy.h.
 *
 * All processes read and write sketch, ghost and climb at the same time, by relaxed loads and stores, without
 * locks. Two that change one word at once may lose one of the changes; a process that dies in between leaves
 * an old word, or counters of which only some are halved. Either is a slightly worse estimate. The one size
 * that is read from shared memory (ghost_sets) is bounded by the geometry, so garbage cannot do more.
 */
#include "policy.h"

#include "hash.h"

/* ---- the sketch: blocks of 64 bytes, 128 counters of 4 bits; a key has four of them in one block ---- */

enum {
    COUNTER_MAX = 15,
    COUNTERS_PER_KEY = 4,
    COUNTER_BITS = 4,
    AGE_AFTER = 10 /* additions for each entry */
};

struct counter {
    a64 *word;
    uint32_t shift;
};

static uint64_t policy_scatter(uint64_t hash) { return fold_multiply(hash, 0xd6e8feb86659fd93ull); }

static a64 *policy_block_of(const struct attachment *a, uint64_t mixed)
{
    return a->sketch + (uint64_t)reduce32((uint32_t)mixed, a->geo.sketch_blocks) * SKETCH_BLOCK_WORDS;
}

/* Counter i of a key lies in word 2i or 2i + 1 of its block. */
static struct counter policy_counter_of(a64 *block, uint64_t mixed, uint32_t i)
{
    uint32_t bits = (uint32_t)(mixed >> (32 + 5 * i)) & 31;
    return (struct counter){.word = block + 2 * i + (bits >> 4), .shift = (bits & 15) * COUNTER_BITS};
}

static uint32_t policy_counter_value(struct counter c)
{
    return (uint32_t)(load_relaxed(c.word) >> c.shift) & COUNTER_MAX;
}

static uint32_t policy_sketch_read(const struct attachment *a, uint64_t hash)
{
    uint64_t mixed = policy_scatter(hash);
    a64 *block = policy_block_of(a, mixed);
    uint32_t lowest = COUNTER_MAX;
    for (uint32_t i = 0; i < COUNTERS_PER_KEY; i++) {
        uint32_t v = policy_counter_value(policy_counter_of(block, mixed, i));
        lowest = v < lowest ? v : lowest;
    }
    return lowest;
}

static void policy_halve(struct attachment *a)
{
    uint64_t words = (uint64_t)a->geo.sketch_blocks * SKETCH_BLOCK_WORDS;
    for (uint64_t i = 0; i < words; i++)
        store_relaxed(&a->sketch[i], load_relaxed(&a->sketch[i]) >> 1 & 0x7777777777777777ull);
}

/* Halve all counters from time to time, so that old uses count less. The process that wins the CAS halves;
 * additions of others in the meantime may be lost. */
static void policy_age(struct attachment *a, uint64_t additions)
{
    uint64_t entries = load_relaxed(&a->header->policy_entries),
             limit = AGE_AFTER * (entries < 64 ? 64 : entries);
    if (additions >= limit && cas(&a->header->sketch_additions, &additions, additions / 2))
        policy_halve(a);
}

/* Conservative update: only the counters that are too low are raised. */
static void policy_sketch_add(struct attachment *a, uint64_t hash, uint32_t n)
{
    uint64_t mixed = policy_scatter(hash);
    a64 *block = policy_block_of(a, mixed);
    uint32_t wanted = policy_sketch_read(a, hash) + n;
    wanted = wanted < COUNTER_MAX ? wanted : COUNTER_MAX;
    for (uint32_t i = 0; i < COUNTERS_PER_KEY && n > 0; i++) {
        struct counter c = policy_counter_of(block, mixed, i);
        uint64_t seen = load_relaxed(c.word);
        if (((seen >> c.shift) & COUNTER_MAX) < wanted)
            cas_hint(c.word, &seen,
                     (seen & ~((uint64_t)COUNTER_MAX << c.shift)) | (uint64_t)wanted << c.shift);
    }
    if (n > 0)
        policy_age(a, add_relaxed(&a->header->sketch_additions, n) + n);
}

/* ---- the ghost: sets of eight fingerprints of 16 bits; a new one pushes the oldest of its set out ---- */

enum {
    FINGERPRINT_BITS = 16,
    FINGERPRINTS_PER_WORD = 4,
    FINGERPRINTS_PER_SET = GHOST_SET_WORDS * FINGERPRINTS_PER_WORD
};
#define FINGERPRINT_MASK 0xffffull

static uint64_t policy_fingerprint(uint64_t hash)
{
    uint64_t f = hash >> 48;
    return f ? f : 1;
}

/* The ghost remembers nine tenths as many keys as there are entries: with more, a loop over many keys would
 * seem to hit. Its size changes only in steps of an eighth, because a change makes it forget. */
static void policy_ghost_resize(struct attachment *a, uint64_t entries)
{
    uint64_t now = load_relaxed(&a->header->ghost_sets), wanted = entries * 9 / 10 / FINGERPRINTS_PER_SET + 1;
    if (wanted > now + now / 8 || wanted < now - now / 8)
        store_relaxed(&a->header->ghost_sets, wanted);
}

static a64 *policy_ghost_set(const struct attachment *a, uint64_t hash)
{
    uint64_t wanted = load_relaxed(&a->header->ghost_sets);
    uint32_t sets = wanted > 0 && wanted < a->geo.ghost_sets ? (uint32_t)wanted : a->geo.ghost_sets;
    return a->ghost + (uint64_t)reduce32((uint32_t)policy_scatter(hash), sets) * GHOST_SET_WORDS;
}

static bool policy_ghost_take(struct attachment *a, uint64_t hash)
{
    a64 *set = policy_ghost_set(a, hash);
    for (uint32_t i = 0; i < FINGERPRINTS_PER_SET; i++) {
        uint32_t shift = i % FINGERPRINTS_PER_WORD * FINGERPRINT_BITS;
        uint64_t seen = load_relaxed(&set[i / FINGERPRINTS_PER_WORD]);
        if (((seen >> shift) & FINGERPRINT_MASK) == policy_fingerprint(hash))
            return cas_hint(&set[i / FINGERPRINTS_PER_WORD], &seen, seen & ~(FINGERPRINT_MASK << shift));
    }
    return false;
}

static void policy_ghost_put(struct attachment *a, uint64_t hash)
{
    a64 *set = policy_ghost_set(a, hash);
    uint64_t first = load_relaxed(&set[0]), second = load_relaxed(&set[1]);
    store_relaxed(&set[1], second << FINGERPRINT_BITS | first >> (64 - FINGERPRINT_BITS));
    store_relaxed(&set[0], first << FINGERPRINT_BITS | policy_fingerprint(hash));
}

/* ---- the climb ----
 *
 *   climb   | hit ratio 32 | step 16, signed | share 16 |      of 65536; a hit ratio of 0: none yet
 */

enum {
    ONE = 65536,
    SHARE_START = ONE * 10 / 100,
    SHARE_MIN = ONE / 100,
    SHARE_MAX = ONE * 8 / 10,
    STEP_START = ONE / 16,
    /* per cent of the step that remain after each step, so the climb comes to rest */
    STEP_KEPT = 98,
    /* a change of the hit ratio this large means that the traffic has changed: begin with full steps
     * again */
    RESTART_AT = ONE / 20,
    ALL_HITS = ONE - ONE / 256, /* nothing is left to gain */
    READS_PER_ENTRY = 9,
    /* if the small queue has at least this share, one hit is enough to move up, because entries stay in it
     * for long */
    SHARE_OF_THE_IMPATIENT = ONE / 10,
};

static uint32_t policy_climb_share(uint64_t climb)
{
    uint32_t share = climb & 0xffff;
    return share < SHARE_MIN ? SHARE_START : share > SHARE_MAX ? SHARE_MAX : share;
}

static uint64_t policy_climb_word(uint64_t ratio, int32_t step, int32_t share)
{
    share = share < SHARE_MIN ? SHARE_MIN : share > SHARE_MAX ? SHARE_MAX : share;
    return ratio << 32 | (uint64_t)(uint16_t)(int16_t)step << 16 | (uint32_t)share;
}

static uint64_t policy_climbed(uint64_t climb, uint64_t ratio)
{
    int64_t before = (int64_t)(climb >> 32), gain = before ? (int64_t)ratio - before : 0;
    int32_t step = (int16_t)(climb >> 16), share = (int32_t)policy_climb_share(climb);
    /* there is nothing to gain, and a step could only take room from proven entries */
    if (before && ratio >= ALL_HITS)
        return ratio << 32 | (climb & 0xffffffff);
    if (!before)
        step = STEP_START;
    else if (gain < 0)
        step = -step;
    uint64_t next = policy_climb_word(ratio, step, share + step);
    if (gain >= RESTART_AT || gain <= -RESTART_AT)
        step = step < 0 ? -STEP_START : STEP_START;
    else
        step = step * STEP_KEPT / 100;
    return (next & ~0xffff0000ull) | (uint64_t)(uint16_t)(int16_t)step << 16;
}

static void policy_sum_reads(const struct attachment *a, uint64_t *hits, uint64_t *reads)
{
    uint64_t slots = load_relaxed(&a->header->roster_high);
    *hits = *reads = 0;
    for (uint64_t i = 0; i < slots && i < a->geo.roster_slots; i++) {
        uint64_t h = load_relaxed(&a->roster[i].stats[STAT_HITS]);
        *hits += h;
        *reads += h + load_relaxed(&a->roster[i].stats[STAT_MISSES]);
    }
}

void policy_adapt(struct attachment *a, uint64_t entries)
{
    struct header *h = a->header;
    uint64_t hits, reads, climb = load_relaxed(&h->climb);
    store_relaxed(&h->policy_entries, entries);
    policy_ghost_resize(a, entries);
    policy_sum_reads(a, &hits, &reads);
    uint64_t reads_before = load_relaxed(&h->climb_reads), hits_before = load_relaxed(&h->climb_hits);
    if (reads < reads_before || hits < hits_before) /* garbage, or another process's update in between */
        reads_before = reads, hits_before = hits;
    uint64_t n = reads - reads_before, hit = hits - hits_before;
    if (n < READS_PER_ENTRY * (entries + 1) || hit > n || n >> 48)
        return;
    if (cas(&h->climb, &climb, policy_climbed(climb, hit * (ONE - 1) / n + 1))) {
        store_relaxed(&h->climb_reads, reads);
        store_relaxed(&h->climb_hits, hits);
    }
}

uint32_t policy_small_pages(const struct attachment *a, uint32_t pages)
{
    return (uint32_t)((uint64_t)pages * policy_climb_share(load_relaxed(&a->header->climb)) / ONE);
}

/* ---- decisions ---- */

static uint32_t policy_promote_at(const struct attachment *a)
{
    return policy_climb_share(load_relaxed(&a->header->climb)) < SHARE_OF_THE_IMPATIENT ? 2 : 1;
}

bool policy_promotes(const struct attachment *a, uint32_t frequency)
{
    return frequency >= policy_promote_at(a);
}

uint32_t policy_admit(struct attachment *a, uint64_t hash)
{
    if (hash_reserved(hash))
        return 0;
    policy_sketch_add(a, hash, 1);
    /* as if hit once. Moving it up at once would let loops displace their own incumbents */
    return policy_ghost_take(a, hash) ? 1 : 0;
}

uint32_t policy_overwrite(const struct attachment *a, uint64_t word)
{
    uint32_t f = policy_frequency(word), page = (word >> INDEX_PAGE_SHIFT) & INDEX_PAGE_BITS;
    f = f < POLICY_FREQUENCY_MAX ? f + 1 : f;
    bool proven = page < a->geo.page_count && page_queue(load_relaxed(&a->page_words[page])) == QUEUE_MAIN;
    return proven && f < policy_promote_at(a) ? policy_promote_at(a) : f;
}

uint32_t policy_estimate(const struct attachment *a, uint64_t hash, uint32_t frequency)
{
    return policy_sketch_read(a, hash) + frequency;
}

void policy_remember(struct attachment *a, uint64_t hash, uint32_t frequency)
{
    if (!hash_reserved(hash))
        policy_sketch_add(a, hash, frequency);
}

void policy_forget(struct attachment *a, uint64_t hash, uint32_t frequency)
{
    if (hash_reserved(hash))
        return;
    policy_sketch_add(a, hash, frequency);
    policy_ghost_put(a, hash);
}

int policy_victim(const uint64_t *words, int words_count)
{
    int victim = -1;
    uint32_t lowest = POLICY_FREQUENCY_MAX + 1;
    for (int i = 0; i < words_count; i++) {
        uint32_t f = policy_frequency(words[i]);
        if (!(words[i] & INDEX_PENDING) && f < lowest)
            victim = i, lowest = f;
    }
    return victim;
}
