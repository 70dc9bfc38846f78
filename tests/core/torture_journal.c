/* torture_journal.c - the journal: rows written, read and armed by processes that are killed at any instruction.
 *
 * Each worker writes rows whose every field follows from one number and its own, and reads all rows.
 *
 *   A row that is shown is whole: it has the fields of its number, and the name of the process that wrote it, or none.
 *   A row of this worker is there when its verb has returned, unless half a ring has been claimed since.
 *   A key that this worker has armed has the bit of its class, for as long as its place is not another key's.
 *   Rows of keys that nobody watches are not written where nothing is sampled.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   a row's check is not looked at        0.3     a name's number is not compared       3.2
 *   a block is claimed by a load and a    0.2     names of the living are given away    at its end
 *     store
 *   a block is kept however old it is     2.6
 *
 * Not caught: interest changes without its count (three instructions of another process, at the right moment); a name
 * that was given away is not taken anew (for that, more processes must live than there are names).
 */
#include "torture.h"

#include "journal.h"

enum { SEGMENT_BYTES = 2 << 20, WORKERS = 4, HASHES = 64, ONE_CLASS = 5, ARMED_MS = 8 };
enum { WRITTEN, READ, NAMED, UNNAMED, FOUND_OWN, LAPPED, ARMED, REPLACED, UNWANTED };

static int file;

static uint64_t mixed(uint64_t number) { return fold_multiply(number + 1, 0x9e3779b97f4a7c15ull); }

static uint64_t hash_numbered(uint32_t n) { return mixed(n) | 1; }

/* Every field follows from `number` and `worker`. */
static struct journal_event event_of(uint64_t hash, uint64_t number, uint32_t worker)
{
    return (struct journal_event){
        .hash = hash,
        .kind = (enum journal_kind)(JOURNAL_WRITTEN + number % (JOURNAL_KINDS - 1)),
        .why = (enum journal_why)(number % WHYS),
        .sequence = number,
        .since_ms = mixed(number ^ hash),
        .source = (uint16_t)worker,
        .digest = (uint16_t)mixed(number),
        .layer = number & 1 ? LAYER_NEAR : LAYER_SEGMENT,
    };
}

static void check_row(const struct attachment *a, const struct journal_read *r)
{
    struct journal_event e = event_of(r->event.hash, r->event.sequence, r->event.source);
    REQUIRE(memcmp(&e, &r->event, sizeof e) == 0, "a row of number %llu is torn", (unsigned long long)e.sequence);
    REQUIRE(r->incarnation == load_relaxed(&a->header->incarnation) || e.source, "a row of another life");
    if (!r->name.pid) {
        tally(UNNAMED);
        return;
    }
    char service[SERVICE_BYTES] = {0};
    snprintf(service, sizeof service, "worker %u", (unsigned)e.source);
    REQUIRE(memcmp(service, r->name.service, sizeof service) == 0, "a row of worker %u has the name of %.24s", e.source, r->name.service);
    tally(NAMED);
}

static bool read_all(const struct attachment *a, uint64_t hash, uint64_t wanted)
{
    struct journal_read r;
    bool found = false;
    for (uint32_t i = 0; i < journal_rows(a); i++) {
        memset(&r, 0, sizeof r);
        if (!journal_look(a, i, hash, &r))
            continue;
        check_row(a, &r);
        tally(READ);
        if (r.event.sequence == wanted)
            REQUIRE(r.name.pid == (uint64_t)getpid() || torture.threads, "a living process has lost its name");
        found |= r.event.sequence == wanted;
    }
    return found;
}

static uint64_t claimed(const struct attachment *a)
{
    return load_acquire(&a->journal->blocks_claimed) + load_acquire(&a->journal->armed_claimed);
}

/* Of the smaller ring: so many blocks may be claimed before a row of this process goes. */
static uint64_t blocks_kept(const struct attachment *a)
{
    return a->geo.journal_rows / JOURNAL_BLOCK_ROWS / JOURNAL_BLOCKS_PER_ARMED / 2 - 1;
}

static void write_and_look(struct attachment *a, struct chance *c, uint32_t worker)
{
    uint64_t hash = hash_numbered(chance_below(c, HASHES)), number = chance_next(c) >> 16, before = claimed(a);
    struct journal_event e = event_of(hash, number, worker);
    journal_note(a, &e);
    tally(WRITTEN);
    bool found = read_all(a, hash, number);
    bool lapped = claimed(a) - before > blocks_kept(a);
    REQUIRE(found || lapped, "a row that was written is not there");
    tally(found ? FOUND_OWN : LAPPED);
}

static void arm_and_look(struct attachment *a, struct chance *c, uint32_t worker)
{
    /* a hash of this worker's alone; all of one class, which has its bit for some milliseconds and loses it again */
    uint64_t hash = (chance_next(c) * WORKERS + worker) * JOURNAL_CLASSES + ONE_CLASS;
    journal_watch(a, hash, ARMED_MS);
    for (int looks = 0; looks < 20; looks++) {
        bool wanted = journal_may_want(a, hash);
        if (!journal_watches(a, hash)) {
            tally(REPLACED);
            return;
        }
        REQUIRE(wanted, "a key that is armed has lost the bit of its class");
    }
    tally(ARMED);
}

/* Others arm for an instant, so that classes lose their bits. */
static void arm_for_an_instant(struct attachment *a, struct chance *c)
{
    uint64_t hash = chance_next(c) * JOURNAL_CLASSES + ONE_CLASS;
    journal_watch(a, hash, 0);
    journal_key(a, hash, JOURNAL_DELETED, WHY_NONE, 0);
}

static void attach_as(struct attachment *a, uint32_t worker)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    char service[SERVICE_BYTES] = {0};
    attach_to(a, file, &config);
    snprintf(service, sizeof service, "worker %u", worker);
    roster_call(a, service, sizeof service);
}

static void work(int number, uint64_t seed)
{
    struct attachment a;
    struct chance c = {seed};
    attach_as(&a, (uint32_t)number + 1);
    while (!torture_over()) {
        recovery_look_after(&a); /* the dead are swept, as before every verb of a real process */
        write_and_look(&a, &c, (uint32_t)number + 1);
        arm_and_look(&a, &c, (uint32_t)number);
        arm_for_an_instant(&a, &c);
    }
    segment_detach(&a);
}

/* Where nothing is sampled, a row of what nobody watches is none. */
static void check_unwanted(struct attachment *a)
{
    uint64_t before = claimed(a);
    journal_set_mode(a, JOURNAL_OFF);
    for (uint32_t n = 0; n < 1 << 16; n++) {
        struct journal_event e = event_of(mixed(n) & ~255ull, n, 0);
        bool watched = journal_watches(a, e.hash);
        journal_note(a, &e);
        REQUIRE(watched || claimed(a) == before, "a row of a key that nobody watches");
        tally(UNWANTED);
    }
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_journal");
    struct attachment a;
    file = memory_file();
    attach_as(&a, 0);
    journal_set_mode(&a, JOURNAL_ALL);
    write_and_look(&a, &(struct chance){1}, 0);
    uint64_t named = a.journal_name_number;
    uint64_t kills = torture_run(work, WORKERS, 0, 40, torture.seconds);
    write_and_look(&a, &(struct chance){2}, 0);
    REQUIRE(a.journal_name_number == named, "the name of a living process was given away for one of %llu dead", (unsigned long long)kills);
    check_unwanted(&a);
    segment_detach(&a);
    REQUIRE(tallied(READ) > 1000 && tallied(NAMED) > 1000 && tallied(FOUND_OWN) > 100 && tallied(ARMED) > 100, "little was done");
    printf("journal: %llu rows written, %llu found by who wrote them, %llu read, %llu of them named; %llu keys armed, %llu replaced; %llu kills\n",
           (unsigned long long)tallied(WRITTEN), (unsigned long long)tallied(FOUND_OWN), (unsigned long long)tallied(READ),
           (unsigned long long)tallied(NAMED), (unsigned long long)tallied(ARMED), (unsigned long long)tallied(REPLACED), (unsigned long long)kills);
    return 0;
}
