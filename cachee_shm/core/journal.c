/* journal.c - see journal.h.
 *
 * Many processes write rows at the same time, each into a block that only it has claimed. Readers take no
 * lock: they copy a row, and believe it only if its stamp holds the check of the copied words (JOURNAL). So a
 * row that is half written, overwritten meanwhile, or left by a dead process is skipped.
 *
 * What a death leaves:
 *
 *   between claim and stamp        rows of a block with wrong checks, until the ring comes round again
 *   between a name's CAS and stamp a place that has no valid check: a later newcomer takes it
 *   after `hash`, before `until`   an armed place whose time is over: it counts as free
 */
#include "journal.h"

#include <unistd.h>

#include "clock.h"
#include "roster.h"

enum {
    SAMPLE_ONE_IN = 256, /* of all keys: at some 100 ns a row, half a percent of a set */
    NAME_TRIES_MAX = 16, /* each means that another process took the same place */
    INTEREST_TRIES_MAX = 1 << 10,
    MODE_SHIFT = JOURNAL_CLASSES,
    CHANGES_SHIFT = 34,
    ROW_WORDS = sizeof(struct journal_row) / 8,
    NAME_WORDS = sizeof(struct journal_name_slot) / 8,
    WHAT_KIND_SHIFT = 4,
    WHAT_SEQUENCE_SHIFT = 12,
    BY_WHY_SHIFT = 16,
    BY_SOURCE_SHIFT = 24,
    BY_NAME_SHIFT = 36,
    BY_NUMBER_SHIFT = 48,
};

_Static_assert(SAMPLE_ONE_IN % JOURNAL_CLASSES == 0, "sampled keys are of one class");
_Static_assert(JOURNAL_ALL < 4 && CHANGES_SHIFT == MODE_SHIFT + 2, "a mode has two bits");

uint64_t journal_wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The upper half of a stamp is a number, the lower half follows from it and from the words behind it. */
static uint64_t journal_stamp(uint32_t number, const uint64_t *words, uint32_t n)
{
    uint64_t sum = number + 1;
    for (uint32_t i = 0; i < n; i++)
        sum = fold_multiply(sum ^ words[i], 0x9e3779b97f4a7c15ull);
    return (uint64_t)number << 32 | (uint32_t)(sum ^ sum >> 32);
}

static void journal_put(a64 *at, uint32_t number, const uint64_t *words, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        store_relaxed(&at[i + 1], words[i]);
    store_release(at, journal_stamp(number, words, n)); /* JOURNAL */
}

/* False: it is empty, or was being written, or was never finished. */
static bool journal_get(const a64 *at, uint64_t *words, uint32_t n, uint32_t *number)
{
    uint64_t stamp = load_acquire(at); /* JOURNAL */
    for (uint32_t i = 0; i < n; i++)
        words[i] = load_relaxed(&at[i + 1]);
    *number = (uint32_t)(stamp >> 32);
    return stamp == journal_stamp(*number, words, n);
}

/* ---- interest ---- */

static enum journal_mode journal_mode_of(uint64_t interest)
{
    return (enum journal_mode)((interest >> MODE_SHIFT) & 3);
}

/* If two processes arm a key at the same time, it may stand in the table twice, which does no harm. */
static struct armed_key *journal_armed_set(const struct attachment *a, uint64_t hash)
{
    return a->journal->armed[(hash / JOURNAL_CLASSES) % ARMED_SETS];
}

bool journal_watches(const struct attachment *a, uint64_t hash)
{
    const struct armed_key *set = a->journal ? journal_armed_set(a, hash) : NULL;
    for (int i = 0; set && i < ARMED_WAYS; i++)
        if (load_relaxed(&set[i].hash) == hash)
            return clock_ms(a) < load_relaxed(&set[i].until_ms);
    return false;
}

/* The classes of keys that are armed now. */
static uint32_t journal_armed_classes(const struct attachment *a)
{
    uint64_t now_ms = clock_ms(a);
    uint32_t classes = 0;
    const struct armed_key *key = &a->journal->armed[0][0];
    for (int i = 0; i < ARMED_SETS * ARMED_WAYS; i++) {
        uint64_t hash = load_acquire(&key[i].hash); /* ARMED */
        if (hash && now_ms < load_relaxed(&key[i].until_ms))
            classes |= 1u << (hash % JOURNAL_CLASSES);
    }
    return classes;
}

static uint32_t journal_classes_of(enum journal_mode mode)
{
    return mode == JOURNAL_ALL ? UINT32_MAX : mode == JOURNAL_SAMPLED;
}

/* Each change of the word also raises its change count. Otherwise a key that is armed while another process
 * scans the table could lose its bit (ABA). */
static void journal_settle(struct attachment *a, enum journal_mode mode, uint64_t *seen)
{
    for (int tries = 0; tries < INTEREST_TRIES_MAX; tries++) {
        uint64_t changes = (*seen >> CHANGES_SHIFT) + 1;
        uint64_t settled = changes << CHANGES_SHIFT | (uint64_t)mode << MODE_SHIFT |
                           journal_classes_of(mode) | journal_armed_classes(a);
        if (cas(&a->header->journal_interest, seen, settled)) /* ARMED */
            return;
    }
}

void journal_set_mode(struct attachment *a, enum journal_mode mode)
{
    uint64_t seen = load_acquire(&a->header->journal_interest);
    if (journal_mode_of(seen) != mode ||
        ((uint32_t)seen & journal_classes_of(mode)) != journal_classes_of(mode))
        journal_settle(a, mode, &seen);
}

/* The key's own place, or a free one, or that of the key whose time ends first. */
static struct armed_key *journal_place_to_arm(struct attachment *a, uint64_t hash)
{
    struct armed_key *set = journal_armed_set(a, hash), *place = set;
    for (int i = 0; i < ARMED_WAYS; i++) {
        if (load_relaxed(&set[i].hash) == hash)
            return &set[i];
        if (load_relaxed(&set[i].until_ms) < load_relaxed(&place->until_ms))
            place = &set[i];
    }
    return place;
}

void journal_watch(struct attachment *a, uint64_t hash, uint64_t for_ms)
{
    if (!a->journal)
        return;
    struct armed_key *place = journal_place_to_arm(a, hash);
    uint64_t until_ms = clock_ms(a) + for_ms, there = load_relaxed(&place->hash);
    if (there == hash && load_relaxed(&place->until_ms) > until_ms)
        until_ms = load_relaxed(&place->until_ms);
    if (there != hash)
        cas(&place->hash, &there, hash); /* if another process was faster, its key gets this time too */
    store_relaxed(&place->until_ms, until_ms);
    uint64_t seen = load_acquire(&a->header->journal_interest);
    journal_settle(a, journal_mode_of(seen), &seen);
}

/* The ring for a row of this key; JOURNAL_RINGS: none. If no key of its class is armed any more, the class
 * loses its bit. */
static uint32_t journal_ring_for(struct attachment *a, uint64_t hash)
{
    uint64_t interest = load_acquire(&a->header->journal_interest);
    enum journal_mode mode = journal_mode_of(interest);
    if (!a->journal)
        return JOURNAL_RINGS;
    /* the checker arms each canary that a broken peer has lost: their rows must not displace those of keys
     * that people watch */
    if (journal_watches(a, hash))
        return hash_reserved(hash) ? JOURNAL_SAMPLES : JOURNAL_ARMED;
    bool sampled = mode == JOURNAL_ALL || (mode == JOURNAL_SAMPLED && hash % SAMPLE_ONE_IN == 0);
    if (sampled && !hash_reserved(hash))
        return JOURNAL_SAMPLES;
    uint32_t wanted = journal_classes_of(mode) | journal_armed_classes(a);
    if ((uint32_t)interest & ~wanted)
        journal_settle(a, mode, &interest);
    return JOURNAL_RINGS;
}

/* ---- names ---- */

static struct journal_name_slot *journal_names(const struct attachment *a)
{
    return (struct journal_name_slot *)(void *)(a->journal + 1);
}

static struct journal_row *journal_row_at(const struct attachment *a, uint32_t i)
{
    return (struct journal_row *)(void *)(journal_names(a) + a->geo.journal_names) + i;
}

/* Does the name's process still hold its roster slot? If it died, the slot has another holder, or is swept,
 * or soon will be. */
static bool journal_name_is_used(const struct attachment *a, const struct journal_name_slot *name)
{
    uint64_t holder = load_relaxed(&name->holder);
    uint32_t slot = (uint32_t)holder;
    uint64_t word = slot < a->geo.roster_slots ? load_acquire(&a->roster[slot].word) : 0;
    return roster_word_live(word) && word >> ROSTER_GEN_SHIFT == holder >> 32;
}

/* A free place; else the oldest whose process is gone; else the oldest. */
static uint32_t journal_name_to_take(const struct attachment *a)
{
    const struct journal_name_slot *names = journal_names(a);
    uint32_t now = (uint32_t)load_relaxed(&a->journal->names_given), place = 0, oldest = 0;
    bool place_used = true;
    for (uint32_t i = 0; i < a->geo.journal_names; i++) {
        uint64_t stamp = load_relaxed(&names[i].stamp);
        if (!stamp)
            return i;
        uint32_t age = now - (uint32_t)(stamp >> 32);
        bool used = journal_name_is_used(a, &names[i]);
        if ((place_used && !used) || (place_used == used && age >= oldest))
            place = i, oldest = age, place_used = used;
    }
    return place;
}

static void journal_name_words(const struct attachment *a, uint64_t words[NAME_WORDS - 1])
{
    memset(words, 0, (NAME_WORDS - 1) * 8);
    words[0] = (uint64_t)a->slot_generation << 32 | a->slot;
    words[1] = load_relaxed(&a->me->pid);
    racing_read(words + 2, a->me->command, JOURNAL_COMMAND_BYTES);
    racing_read(words + 2 + JOURNAL_COMMAND_BYTES / 8, a->me->service, SERVICE_BYTES);
}

static void journal_take_name(struct attachment *a)
{
    uint64_t words[NAME_WORDS - 1];
    journal_name_words(a, words);
    for (int tries = 0; tries < NAME_TRIES_MAX; tries++) {
        uint32_t number = (uint32_t)add_relaxed(&a->journal->names_given, 1) + 1;
        uint32_t i = journal_name_to_take(a);
        struct journal_name_slot *name = &journal_names(a)[i];
        uint64_t seen = load_relaxed(&name->stamp), mine = (uint64_t)number << 32;
        if (!cas(&name->stamp, &seen, mine))
            continue;
        journal_put(&name->stamp, number, words, NAME_WORDS - 1);
        a->journal_name = i;
        a->journal_name_number = number;
        return;
    }
}

/* The table is bounded: another process may have taken this name's place. Then a new place is taken. */
static void journal_have_name(struct attachment *a)
{
    uint64_t stamp = load_relaxed(&journal_names(a)[a->journal_name].stamp);
    if (!a->journal_name_number || (uint32_t)(stamp >> 32) != a->journal_name_number)
        journal_take_name(a);
}

static bool journal_name_of(const struct attachment *a, uint64_t by, struct journal_name *out)
{
    uint64_t words[NAME_WORDS - 1];
    uint32_t number, i = (by >> BY_NAME_SHIFT) & 0xfff;
    if (i >= a->geo.journal_names ||
        !journal_get(&journal_names(a)[i].stamp, words, NAME_WORDS - 1, &number) ||
        (uint16_t)number != (uint16_t)(by >> BY_NUMBER_SHIFT))
        return false;
    out->pid = words[1];
    memcpy(out->command, words + 2, sizeof out->command);
    memcpy(out->service, words + 2 + JOURNAL_COMMAND_BYTES / 8, sizeof out->service);
    return true;
}

/* ---- rows ---- */

static uint32_t journal_blocks_of(const struct attachment *a, uint32_t ring)
{
    uint32_t blocks = a->geo.journal_rows / JOURNAL_BLOCK_ROWS, armed = blocks / JOURNAL_BLOCKS_PER_ARMED;
    return ring == JOURNAL_ARMED ? armed : blocks - armed;
}

/* The next row for this process, and its number. */
static struct journal_row *journal_claim_row(struct attachment *a, uint32_t ring, uint32_t *number)
{
    a64 *claimed = ring == JOURNAL_ARMED ? &a->journal->armed_claimed : &a->journal->blocks_claimed;
    struct journal_hand *hand = &a->journal_hand[ring];
    uint32_t blocks = journal_blocks_of(a, ring);
    if (!hand->left || load_relaxed(claimed) - hand->block > blocks / 2)
        *hand = (struct journal_hand){add_relaxed(claimed, 1), JOURNAL_BLOCK_ROWS};
    uint32_t in_block = JOURNAL_BLOCK_ROWS - hand->left--,
             first = ring == JOURNAL_ARMED ? journal_blocks_of(a, JOURNAL_SAMPLES) : 0;
    *number = (uint32_t)(hand->block * JOURNAL_BLOCK_ROWS + in_block);
    return journal_row_at(a, (first + (uint32_t)(hand->block % blocks)) * JOURNAL_BLOCK_ROWS + in_block);
}

static uint64_t journal_incarnation_of(const struct attachment *a, uint32_t source)
{
    if (source == 0 || source >= a->geo.source_slots)
        return load_relaxed(&a->header->incarnation);
    return load_relaxed(&a->sources[source].incarnation);
}

static uint64_t journal_by(const struct attachment *a, const struct journal_event *e)
{
    return (uint64_t)a->journal_name_number << BY_NUMBER_SHIFT | (uint64_t)a->journal_name << BY_NAME_SHIFT |
           (uint64_t)(e->source & META_SOURCE_BITS) << BY_SOURCE_SHIFT | (uint64_t)e->why << BY_WHY_SHIFT |
           e->digest;
}

NEVER_INLINE void journal_note(struct attachment *a, const struct journal_event *e)
{
    uint32_t ring = journal_ring_for(a, e->hash), number;
    if (ring == JOURNAL_RINGS)
        return;
    journal_have_name(a);
    uint64_t words[ROW_WORDS - 1] = {
        e->hash,
        journal_wall_ns(),
        e->sequence << WHAT_SEQUENCE_SHIFT | (uint64_t)e->kind << WHAT_KIND_SHIFT | e->layer,
        journal_by(a, e),
        journal_incarnation_of(a, e->source),
        e->since_ms,
    };
    struct journal_row *row = journal_claim_row(a, ring, &number);
    journal_put(&row->stamp, number, words, ROW_WORDS - 1);
}

bool journal_look(const struct attachment *a, uint32_t row, uint64_t hash, struct journal_read *out)
{
    uint64_t words[ROW_WORDS - 1];
    uint32_t number;
    if (!a->journal || row >= a->geo.journal_rows ||
        !journal_get(&journal_row_at(a, row)->stamp, words, ROW_WORDS - 1, &number) || words[0] != hash)
        return false;
    uint64_t what = words[2], by = words[3];
    *out = (struct journal_read){
        .event = {.hash = hash,
                  .kind = (enum journal_kind)((what >> WHAT_KIND_SHIFT) & 0xff),
                  .why = (enum journal_why)((by >> BY_WHY_SHIFT) & 0xff),
                  .sequence = what >> WHAT_SEQUENCE_SHIFT,
                  .since_ms = words[5],
                  .source = (by >> BY_SOURCE_SHIFT) & META_SOURCE_BITS,
                  .digest = by & META_DIGEST_BITS,
                  .layer = what & LAYER_NEAR ? LAYER_NEAR : LAYER_SEGMENT},
        .number = number,
        .at_ns = words[1],
        .incarnation = words[4],
    };
    journal_name_of(a, by, &out->name);
    return out->event.kind > JOURNAL_NOTHING && out->event.kind < JOURNAL_KINDS && out->event.why < WHYS;
}

void journal_begin(struct attachment *a)
{
    memset(a->journal_hand, 0, sizeof a->journal_hand);
    a->journal_name = a->journal_name_number = 0;
}
