/* torture_roster.c - joining, leaving, forking, dying, sweeping.
 *
 * Processes attach and leave all the time, hold `writing` blocks and pages, fork, and are killed at any instruction. A
 * slot has one holder at a time (each living holder checks that no other process has it), its generation only grows, and a
 * forked child does not keep its parent's lock and gets a slot of its own. If a process dies and owes an invalidation, the
 * sweep announces it: the older value is gone. At rest every slot is free.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   intents not announced                          0.1      the lock's mapping without MADV_DONTFORK  30
 *   a child that detaches frees its parent's slot  within 3      no verb begins with a look          0.1
 *   each sweep announces all of a debt, or begins  0.1
 *     anew, or a debt is given back in part
 *
 * Not caught: the write under way not announced (torture_steps), pages of the dead not sealed (torture_pages).
 */
#include "torture.h"

#include <signal.h>
#include <sys/wait.h>

enum { SEGMENT_BYTES = 1 << 20, WORKERS = 6, SLOTS = 128, KEYS = 64, MANY = 1200, PART = 7 };
enum { JOINS, FORKS, DEBTS, PAID, SWEPT };

static int file;
static struct model {
    a64 lives;
    a64 holder[SLOTS], generation[SLOTS];
} *model;

static void check_mine(struct attachment *a, uint64_t life)
{
    REQUIRE(load_acquire(&model->holder[a->slot]) == life, "slot %u has two holders", a->slot);
    uint64_t word = load_acquire(&a->roster[a->slot].word);
    REQUIRE((word & ROSTER_STATE_MASK) == SLOT_LIVE && word >> ROSTER_GEN_SHIFT == a->slot_generation,
            "slot %u of a live process says %llx, generation %u", a->slot, (unsigned long long)word, a->slot_generation);
}

static uint64_t move_in(struct attachment *a)
{
    uint64_t life = atomic_fetch_add(&model->lives, 1) + 1;
    store_release(&model->holder[a->slot], life);
    uint64_t before = load_acquire(&model->generation[a->slot]);
    REQUIRE(a->slot_generation > before, "slot %u: generation %u after %llu", a->slot, a->slot_generation, (unsigned long long)before);
    raise_max(&model->generation[a->slot], a->slot_generation);
    tally(JOINS);
    return life;
}

static void live_a_while(struct attachment *a, uint64_t life, struct chance *c)
{
    unsigned char value[64];
    for (uint32_t n = chance_below(c, 60); n > 0 && !torture_over(); n--) {
        uint32_t key = chance_below(c, KEYS);
        struct named_key k = key_named(a, key);
        struct write w = write_of(&k, value, value_make(value, key, 1, 40));
        uint64_t intent = roster_intend(a, k.hash);
        cache_set(a, &w);
        roster_settle(a, intent);
        if (chance_below(c, 50) == 0)
            recovery_sweep(a);
        check_mine(a, life);
    }
}

/* The child of a fork works on with a slot of its own; the parent's stays the parent's. */
static void fork_once(struct attachment *a, uint64_t life, struct chance *c)
{
    pid_t pid = fork();
    if (pid == 0) {
        REQUIRE(!segment_is_ours(a), "a forked child believes that the slot is its own");
        if (chance_below(c, 2) || !segment_after_fork(a)) {
            segment_detach(a); /* leaves nothing: the slot is the parent's */
            _exit(0);
        }
        live_a_while(a, move_in(a), c);
        segment_detach(a);
        _exit(0);
    }
    tally(FORKS);
    live_a_while(a, life, c);
    int status;
    waitpid(pid, &status, 0);
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a forked child failed");
    check_mine(a, life);
}

static void work(int number, uint64_t seed)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct chance c = {seed};
    while (!torture_over()) {
        struct attachment a;
        attach_to(&a, file, &config);
        uint64_t life = move_in(&a);
        live_a_while(&a, life, &c);
        if (chance_below(&c, 4) == 0 && !torture.threads)
            fork_once(&a, life, &c);
        check_mine(&a, life);
        segment_detach(&a);
    }
}

static void check_at_rest(struct attachment *a)
{
    recovery_sweep(a);
    for (uint32_t i = 0; i < a->geo.roster_slots; i++) {
        struct roster_slot *slot = &a->roster[i];
        bool mine = i == a->slot;
        REQUIRE(mine || (load_acquire(&slot->word) & ROSTER_STATE_MASK) == SLOT_FREE, "slot %u is not free", i);
        REQUIRE(mine || !load_acquire(&slot->verb_hash), "slot %u owes", i);
        for (int n = 0; n < INTENT_BUCKET_WORDS; n++)
            REQUIRE(!load_acquire(&slot->shared[n]), "slot %u has a shared intent", i);
    }
    for (uint32_t i = 0; i < a->geo.intent_slots; i++)
        REQUIRE(!load_acquire(&a->intents[i].owner), "intent %u is taken", i);
    REQUIRE(roster_count(a, ROSTER_WORKER) == 1, "%u live where one is", roster_count(a, ROSTER_WORKER));
}

/* ---- directed: debts, and the lock under fork ---- */

struct blocks { /* of one who dies: so many are open, after so many others were opened and ended */
    uint32_t open, ended;
};

static void die_owing(void *with)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    const struct blocks *b = with;
    uint64_t intents[MANY];
    attach_to(&a, file, &config);
    for (uint32_t key = 0; key < b->ended + b->open; key++)
        intents[key] = roster_intend(&a, key_named(&a, key).hash);
    for (uint32_t key = 0; key < b->ended; key++)
        roster_settle(&a, intents[key]);
    if (b->open) /* a second block of the same key ends; the first one is open still */
        roster_settle(&a, roster_intend(&a, key_named(&a, b->ended + b->open - 1).hash));
    kill(getpid(), SIGKILL);
}

static uint32_t bucket_of(uint64_t hash) { return (uint32_t)(hash >> (64 - INTENT_BUCKET_BITS)); }

/* Returns the ring's tail after it. */
static uint64_t set_many(struct attachment *a)
{
    unsigned char value[64];
    for (uint32_t key = 0; key < MANY; key++) {
        struct named_key k = key_named(a, key);
        struct write w = write_of(&k, value, value_make(value, key, 1, 40));
        REQUIRE(cache_set(a, &w) == STORED, "set");
    }
    return ring_tail(a);
}

static bool is_there(struct attachment *a, uint32_t key)
{
    unsigned char value[64];
    uint32_t bytes;
    struct named_key k = key_named(a, key);
    return read_value(a, &k, value, &bytes);
}

/* The keys of open blocks go. Others stay, but for those that share a bucket with one that found no intent free. */
static void check_debts(struct attachment *a, struct blocks b)
{
    bool shared[1 << INTENT_BUCKET_BITS] = {false};
    uint32_t gone = 0, all = b.ended + b.open, exact = a->geo.intent_slots / 2;
    REQUIRE(all <= MANY && 2 * exact < MANY, "%u blocks, %u intents for one process", all, exact);
    set_many(a);
    for (uint32_t key = 0; key < MANY; key++) {
        struct named_key k = key_named(a, key);
        if (key >= b.ended && key >= exact && key < all)
            shared[bucket_of(k.hash)] = true;
    }
    REQUIRE(!in_child(die_owing, &b), "it did not die");
    REQUIRE(recovery_sweep(a) == 1, "the dead one was not swept");
    for (uint32_t key = 0; key < MANY; key++) {
        struct named_key k = key_named(a, key);
        bool there = is_there(a, key), owed = key >= b.ended && key < all, neighbour = shared[bucket_of(k.hash)];
        REQUIRE(there != owed || (neighbour && !there), "key %u is %s after the death of one who held %u blocks, and had ended %u", key,
                there ? "there" : "gone", b.open, b.ended);
        gone += !there;
        tally(owed ? PAID : DEBTS);
    }
    REQUIRE(gone < b.open + MANY / 4, "%u keys of %u are gone after the death of one who held %u blocks", gone, MANY, b.open);
}

static void die_in_part(void *unused)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    a.buckets_per_call = PART;
    recovery_sweep(&a);
    kill(getpid(), SIGKILL);
}

static bool is_dead(struct attachment *a, uint32_t slot)
{
    return (load_acquire(&a->roster[slot].word) & ROSTER_STATE_MASK) == SLOT_LIVE && !roster_alive(a, slot);
}

/* Many shared intents are announced in parts: each sweep goes on where the last one ended, also that of a process that died
 * since. Nothing is looked for in the index: its words stay as they are. */
static void check_parts(struct attachment *a)
{
    struct blocks b = {656, 0};
    uint64_t bytes = (uint64_t)a->geo.bucket_count * BUCKET_WORDS * 8, before = set_many(a), parts = 0;
    REQUIRE(!in_child(die_owing, &b), "it did not die");
    uint32_t slot = a->slot + 1, per_call = a->buckets_per_call, exact = a->geo.intent_slots / 2;
    REQUIRE(is_dead(a, slot), "the dead one is not in slot %u", slot);
    a->buckets_per_call = PART;
    recovery_sweep(a);
    unsigned char *index = malloc(bytes);
    memcpy(index, a->index, bytes);
    for (; is_dead(a, slot); parts++) {
        REQUIRE(ring_tail(a) - before <= exact + 2 * PART * parts + PART, "%llu records after %llu parts",
                (unsigned long long)(ring_tail(a) - before), (unsigned long long)parts);
        REQUIRE(parts < 1 << INTENT_BUCKET_BITS, "the sweeps come to no end");
        REQUIRE(!in_child(die_in_part, NULL), "it did not die");
        recovery_sweep(a);
    }
    REQUIRE(parts > 5, "%llu parts", (unsigned long long)parts);
    REQUIRE(memcmp(index, a->index, bytes) == 0, "the index was changed");
    for (uint32_t key = 0; key < b.open; key++)
        REQUIRE(!is_there(a, key), "key %u is there after a death in its block", key);
    a->buckets_per_call = per_call;
    free(index);
}

/* The look that begins a verb, in another second than the last: it pays, whoever died. */
static void check_a_look_pays(struct attachment *a)
{
    struct blocks b = {1, 0};
    set_many(a);
    REQUIRE(!in_child(die_owing, &b), "it did not die");
    REQUIRE(is_dead(a, a->slot + 1), "the dead one is not in slot %u", a->slot + 1);
    a->house_second = 0;
    store_relaxed(&a->header->sweep_at_ms, 0);
    recovery_look_after(a);
    REQUIRE(!is_dead(a, a->slot + 1) && !is_there(a, 0), "a look at the beginning of a verb has not paid");
    REQUIRE(a->house_second != 0, "each verb looks");
}

struct family {
    a64 parent_slot, ready;
};

/* A parent that dies while its child, which never touched the cache, lives on: the slot must be free. */
static void parent_of_a_survivor(void *with)
{
    struct family *family = with;
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    if (fork() == 0) {
        store_release(&family->ready, (uint64_t)getpid());
        alarm(30);
        for (;;)
            pause();
    }
    while (!load_acquire(&family->ready))
        nap_us(100);
    store_release(&family->parent_slot, a.slot + 1);
    kill(getpid(), SIGKILL);
}

static void check_a_child_does_not_keep_the_lock(struct attachment *a)
{
    struct family *family = shared_zeroes(sizeof *family);
    REQUIRE(!in_child(parent_of_a_survivor, family), "it did not die");
    uint32_t slot = (uint32_t)load_acquire(&family->parent_slot) - 1;
    REQUIRE(!roster_alive(a, slot), "slot %u of a dead process counts as live: its child keeps the lock", slot);
    REQUIRE(recovery_sweep(a) == 1, "the dead parent was not swept");
    kill((pid_t)load_acquire(&family->ready), SIGKILL);
}

/* Every slot taken: a clear answer, and room again as soon as one leaves. */
static void check_full(void)
{
    static struct attachment all[SLOTS + 1];
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int full = memory_file();
    uint32_t n = 0;
    while (segment_attach(&all[n], reopened(full), &config) <= ATTACH_CREATED && n < SLOTS)
        n++;
    REQUIRE(n == all[0].geo.roster_slots, "%u of %u slots", n, all[0].geo.roster_slots);
    int fd = reopened(full);
    REQUIRE(segment_attach(&all[n], fd, &config) == ATTACH_ROSTER_FULL, "one more than the roster holds");
    segment_detach(&all[3]);
    attach_to(&all[3], full, &config);
    REQUIRE(all[3].slot == 3, "slot %u", all[3].slot);
    for (uint32_t i = 0; i < n; i++)
        segment_detach(&all[i]);
    close(full);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_roster");
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct attachment a;
    model = shared_zeroes(sizeof *model);
    file = memory_file();
    check_full();
    attach_to(&a, file, &config);
    static const struct blocks blocks[] = {{1, 0}, {9, 0}, {0, 9}, {511, 0}, {512, 0}, {513, 0}, {600, 0}, {0, 600}, {80, 520}, {512, 88}, {1000, 0}, {0, 1000}};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        check_debts(&a, blocks[i]);
    check_parts(&a);
    check_a_look_pays(&a);
    check_a_child_does_not_keep_the_lock(&a);
    uint64_t kills = 0;
    for (int part = 0; part < 4; part++) {
        kills += torture_run(work, WORKERS, 0, part ? 100 : 0, torture.seconds / 4);
        while (roster_count(&a, ROSTER_WORKER) > 1) /* children whose parents were killed */
            nap_us(1000);
        check_at_rest(&a);
    }
    segment_detach(&a);
    printf("roster: %llu joins, %llu forks, %llu debts paid, %llu kills\n", (unsigned long long)tallied(JOINS),
           (unsigned long long)tallied(FORKS), (unsigned long long)tallied(PAID), (unsigned long long)kills);
    return 0;
}
