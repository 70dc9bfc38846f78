/* torture_lease.c - leases: the right to be the one loader, taken over from the dead, relieved when late.
 *
 * Workers take and release leases of a few keys and are killed at any instruction, also while they hold one. What must
 * hold: two workers never hold the lease of one key and fence; a later worker never takes the lease of a live holder; the
 * next worker takes over the lease of a dead holder; and the table does not fill up: at rest every lease can be taken at
 * once. Then, step by step: an older load does not keep a newer caller from loading, but no third caller loads beside the
 * two; one waiter takes the place of a late holder, and no caller waits for the late one again.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   a live holder's lease is taken     0.8      nobody marks a late lease                1.3
 *   a dead holder's is not             1.3      the mark is not looked at                1.8
 *   an empty place is taken by a store 1.2      no load is ever late                     1.5
 *   a lease is not given back          1.9      a load serves whatever was written since 1.7
 *   a slot's heir holds its leases     1.9      another process's load serves as one's   0.7
 *   anybody gives a lease back         1.0      a third load of a key                    1.0
 *   a table full of the dead stays full 0.1     nobody looks again after taking one      20
 */
#include "torture.h"

enum { SEGMENT_BYTES = 1 << 20, WORKERS = 4, KEYS = 8, SPOTS = 200 };
enum { TAKEN, HELD, NO_ROOM, DOUBLE };

static int file;
static a64 *holder; /* per key: 1 + the number of the life that believes to hold it, 0 = none */
static uint32_t crowd[KEYS]; /* the numbers of keys that look for a lease in the same places */

static void gather_crowd(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    for (uint32_t found = 0, key = 0; found < KEYS; key++)
        if (reduce32((uint32_t)key_named(&a, key).hash, a.geo.lease_slots) == 0)
            crowd[found++] = key;
    segment_detach(&a);
}

static void work(int number, uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct chance c = {seed};
    uint64_t me = chance_next(&c) | 1;
    attach_to(&a, file, &config);
    while (!torture_over()) {
        uint32_t key = chance_below(&c, KEYS);
        struct named_key k = key_named(&a, crowd[key]);
        struct lease_hold hold, other;
        enum lease r = lease_wanted(&a, k.hash, &hold);
        tally(r == LEASE_TAKEN ? TAKEN : r == LEASE_HELD ? HELD : NO_ROOM);
        if (r != LEASE_TAKEN)
            continue;
        REQUIRE(lease_wanted(&a, k.hash, &other) == LEASE_HELD, "a lease that is held here was taken again");
        store_release(&holder[key], me);
        for (uint32_t i = chance_below(&c, SPOTS); i > 0; i--)
            fence_seq_cst();
        if (load_acquire(&holder[key]) != me)
            tally(DOUBLE);
        lease_release(&a, &hold);
    }
    segment_detach(&a);
}

static void check_at_rest(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    for (uint32_t key = 0; key < KEYS; key++) {
        struct named_key k = key_named(&a, crowd[key]);
        struct lease_hold hold, other;
        REQUIRE(lease_wanted(&a, k.hash, &hold) == LEASE_TAKEN, "the lease of key %u cannot be taken from the dead", key);
        REQUIRE(lease_wanted(&a, k.hash, &other) == LEASE_HELD, "a lease was lost");
        lease_release(&a, &hold);
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < a.geo.lease_slots; i++)
        left += load_relaxed(&a.leases[i].word) != 0;
    REQUIRE(left <= KEYS * WORKERS, "%u leases are left of %d keys", left, KEYS);
    segment_detach(&a);
}

/* A full table: nobody waits, and one dead holder's place is enough. */
static void check_full(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lease_hold hold;
    int full = memory_file();
    attach_to(&a, full, &config);
    attach_to(&b, full, &config);
    uint32_t taken = 0;
    for (uint32_t key = 0; key < 100000; key++)
        taken += lease_wanted(&a, key_named(&a, key).hash, &hold) == LEASE_TAKEN;
    REQUIRE(taken == a.geo.lease_slots, "%u of %u leases could be taken", taken, a.geo.lease_slots);
    REQUIRE(lease_wanted(&b, key_named(&b, 200001).hash, &hold) == LEASE_NO_ROOM, "room in a full table");
    REQUIRE(load_relaxed(&b.me->stats[STAT_LEASES_NO_ROOM]) == 1, "a lease that found no room was not counted");
    segment_detach(&a);
    REQUIRE(lease_wanted(&b, key_named(&b, 200001).hash, &hold) == LEASE_TAKEN, "no room in a table that is full of the dead");
    lease_release(&b, &hold);
    for (uint32_t key = 0; key < 1000; key++) {
        REQUIRE(lease_wanted(&b, key_named(&b, key).hash, &hold) == LEASE_TAKEN, "a lease cannot be taken from one who left");
        lease_release(&b, &hold);
    }
    segment_detach(&b);
    close(full);
}

/* Whoever gets a dead holder's slot does not hold its leases; and nobody gives back what another holds. */
static void check_holders(void)
{
    struct attachment a, b, heir;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lease_hold hold, other;
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    uint64_t hash = key_named(&b, 1).hash;
    REQUIRE(lease_wanted(&a, hash, &hold) == LEASE_TAKEN, "a lease that nobody holds");
    other = hold;
    lease_release(&b, &other);
    REQUIRE(lease_wanted(&b, hash, &other) == LEASE_HELD, "a lease was given back by somebody else");
    uint32_t slot = a.slot;
    segment_detach(&a);
    attach_to(&heir, fd, &config);
    REQUIRE(heir.slot == slot, "the heir got slot %u, not %u", heir.slot, slot);
    REQUIRE(lease_wanted(&b, hash, &other) == LEASE_TAKEN, "the heir of a slot holds the lease of whoever had it before");
    lease_release(&heir, &hold);
    REQUIRE(lease_wanted(&heir, hash, &hold) == LEASE_HELD, "an old hold gave the present holder's lease back");
    segment_detach(&heir);
    segment_detach(&b);
    close(fd);
}

/* Each step of what lease.h promises of fences and of late holders, with two processes' attachments. */
static void check_serving(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lease_hold first, second, none;
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    struct lease_wish wish = {.hash = key_named(&a, 1).hash, .token = 10, .now_ms = 1000000};
    REQUIRE(lease_take(&a, &wish, &first) == LEASE_TAKEN, "a lease that nobody holds");
    wish.since = 10, wish.fence = 12, wish.token = 12; /* the key was written at 12, after the caller began */
    REQUIRE(lease_take(&a, &wish, &none) == LEASE_HELD, "a load of this process serves a caller that began before the write");
    REQUIRE(!lease_is_held(&b, &wish), "another process waits for a value that can not be stored any more");
    REQUIRE(lease_take(&b, &wish, &second) == LEASE_TAKEN, "an old load keeps another process from loading");
    wish.since = 12;
    REQUIRE(lease_is_held(&a, &wish), "the newer load serves");
    wish.since = wish.fence = wish.token = 13;
    REQUIRE(lease_take(&a, &wish, &none) == LEASE_HELD, "a third load at a time");
    lease_release(&a, &first);
    REQUIRE(lease_take(&a, &wish, &first) == LEASE_TAKEN, "no load though one of the two has ended");
    lease_release(&a, &first);
    lease_release(&b, &second);

    REQUIRE(lease_take(&a, &wish, &first) == LEASE_TAKEN, "a lease that was given back");
    wish.now_ms += LEASE_LATE_MS_UNKNOWN;
    REQUIRE(lease_is_held(&b, &wish), "a load is late too early");
    wish.now_ms++;
    REQUIRE(lease_take(&b, &wish, &second) == LEASE_TAKEN, "a late holder is not relieved");
    REQUIRE(lease_take(&a, &wish, &none) == LEASE_HELD && lease_take(&b, &wish, &none) == LEASE_HELD, "relieved by two");
    REQUIRE(load_relaxed(&b.me->stats[STAT_LEASES_LATE]) == 1, "a relief was not counted once");
    REQUIRE(lease_late_ms(&a, wish.hash) == 2 * (LEASE_LATE_MS_UNKNOWN + 1), "the next load has no more time than a late one had");
    lease_release(&b, &second);
    REQUIRE(lease_take(&b, &wish, &second) == LEASE_TAKEN, "somebody waits for a late one again");
    lease_release(&b, &second);
    lease_release(&a, &first);
    lease_note(&a, wish.hash, 1);
    REQUIRE(lease_late_ms(&b, wish.hash) == LEASE_LATE_MS_MIN, "a short load is late too soon");
    REQUIRE(load_relaxed(&a.leases[first.index < a.geo.lease_slots ? first.index : 0].word) == 0, "a late lease was not given back");
    segment_detach(&a);
    segment_detach(&b);
    close(fd);
}

/* a loads 1, b loads 2 and c loads 3; each is about to wait for the next. */
static void check_circles(void)
{
    struct attachment at[3];
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lease_hold hold[3];
    uint64_t hash[4];
    int fd = memory_file();
    for (int i = 0; i < 3; i++) {
        attach_to(&at[i], fd, &config);
        hash[i] = key_named(&at[i], crowd[i]).hash;
        REQUIRE(lease_wanted(&at[i], hash[i], &hold[i]) == LEASE_TAKEN, "a lease that nobody holds");
    }
    hash[3] = key_named(&at[0], crowd[3]).hash;
    REQUIRE(lease_waits(&at[0], &hold[0], hash[1]) && !lease_leads_to(&at[0], hash[1], hash[0]), "a circle of nothing");
    REQUIRE(lease_waits(&at[1], &hold[1], hash[2]) && !lease_leads_to(&at[1], hash[2], hash[1]), "a circle of two");
    REQUIRE(lease_waits(&at[2], &hold[2], hash[0]) && lease_leads_to(&at[2], hash[0], hash[2]), "a circle is not seen");
    lease_waits_no_more(&at[1], &hold[1], hash[2]);
    REQUIRE(!lease_leads_to(&at[2], hash[0], hash[2]), "a wait that is over is followed");
    REQUIRE(lease_waits(&at[1], &hold[1], hash[3]) && lease_waits(&at[1], &hold[1], hash[2]), "no room for two waits");
    REQUIRE(lease_leads_to(&at[2], hash[0], hash[2]), "the second of two waits is not followed");
    REQUIRE(!lease_waits(&at[1], &hold[1], hash[0]), "room for a third wait");
    lease_release(&at[1], &hold[1]);
    REQUIRE(!lease_leads_to(&at[2], hash[0], hash[2]), "a load that has ended waits");
    REQUIRE(lease_wanted(&at[1], hash[1], &hold[1]) == LEASE_TAKEN, "a lease that was given back");
    REQUIRE(!lease_leads_to(&at[2], hash[0], hash[2]), "a load waits for what the last one waited for");
    for (int i = 0; i < 3; i++) {
        lease_release(&at[i], &hold[i]);
        segment_detach(&at[i]);
    }
    close(fd);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_lease");
    uint64_t kills = 0;
    file = memory_file();
    holder = shared_zeroes(KEYS * sizeof *holder);
    gather_crowd();
    check_full();
    check_holders();
    check_serving();
    check_circles();
    for (int part = 0; part < 4; part++) {
        kills += torture_run(work, WORKERS, 0, part ? 200 : 0, torture.seconds / 4);
        check_at_rest();
    }
    printf("lease: %llu taken, %llu held by another, %llu without room, %llu held twice, %llu kills\n", (unsigned long long)tallied(TAKEN),
           (unsigned long long)tallied(HELD), (unsigned long long)tallied(NO_ROOM), (unsigned long long)tallied(DOUBLE),
           (unsigned long long)kills);
    REQUIRE(tallied(DOUBLE) == 0, "a lease was held twice %llu times", (unsigned long long)tallied(DOUBLE));
    REQUIRE(tallied(TAKEN) > 0, "no lease was ever taken");
    return 0;
}
