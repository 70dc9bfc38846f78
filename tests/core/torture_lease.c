/* torture_lease.c - leases: the right to be the one loader, taken over from the dead.
 *
 * Workers take and release leases of a few keys and are killed at any instruction, also while they hold one. A lease is
 * advice (two may hold one after a race for different empty places), so what must hold is: it is nearly always
 * exclusive, a live holder's is not taken away by somebody who came after it, a dead holder's is taken over by the next
 * who wants it, and the table does not silt up: at rest every lease can be taken at once.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   a live holder's lease is taken     0.2      a slot's heir holds its leases           0.1
 *   a dead holder's is not             2.6      anybody gives a lease back               0.1
 *   an empty place is taken by a store 3.6      a table full of the dead stays full      0.1
 *   a lease is not given back          0.3
 */
#include "torture.h"

enum { SEGMENT_BYTES = 1 << 20, WORKERS = 4, KEYS = 8, SPOTS = 200 };
enum { TAKEN, HELD, NO_ROOM, DOUBLE };

static int file;
static a64 *holder; /* per key: 1 + the number of the life that believes to hold it, 0 = none */

static void work(int number, uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct chance c = {seed};
    uint64_t me = chance_next(&c) | 1;
    attach_to(&a, file, &config);
    while (!torture_over()) {
        uint32_t key = chance_below(&c, KEYS);
        struct named_key k = key_named(&a, key);
        enum lease r = lease_take(&a, k.hash);
        tally(r == LEASE_TAKEN ? TAKEN : r == LEASE_HELD ? HELD : NO_ROOM);
        if (r != LEASE_TAKEN)
            continue;
        REQUIRE(lease_take(&a, k.hash) == LEASE_HELD, "a lease that is held here was taken again");
        store_release(&holder[key], me);
        for (uint32_t i = chance_below(&c, SPOTS); i > 0; i--)
            fence_seq_cst();
        if (load_acquire(&holder[key]) != me)
            tally(DOUBLE);
        lease_release(&a, k.hash);
    }
    segment_detach(&a);
}

static void check_at_rest(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    for (uint32_t key = 0; key < KEYS; key++) {
        struct named_key k = key_named(&a, key);
        REQUIRE(lease_take(&a, k.hash) == LEASE_TAKEN, "the lease of key %u cannot be taken from the dead", key);
        REQUIRE(lease_take(&a, k.hash) == LEASE_HELD, "a lease was lost");
        lease_release(&a, k.hash);
    }
    uint32_t left = 0;
    for (uint32_t i = 0; i < a.geo.lease_slots; i++)
        left += load_relaxed(&a.leases[i]) != 0;
    REQUIRE(left <= KEYS, "%u leases are left of %d keys", left, KEYS);
    segment_detach(&a);
}

/* A full table: nobody waits, and one dead holder's place is enough. */
static void check_full(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int full = memory_file();
    attach_to(&a, full, &config);
    attach_to(&b, full, &config);
    uint32_t taken = 0;
    for (uint32_t key = 0; key < 100000; key++)
        taken += lease_take(&a, key_named(&a, key).hash) == LEASE_TAKEN;
    REQUIRE(taken == a.geo.lease_slots, "%u of %u leases could be taken", taken, a.geo.lease_slots);
    REQUIRE(lease_take(&b, key_named(&b, 200001).hash) == LEASE_NO_ROOM, "room in a full table");
    segment_detach(&a);
    REQUIRE(lease_take(&b, key_named(&b, 200001).hash) == LEASE_TAKEN, "no room in a table that is full of the dead");
    lease_release(&b, key_named(&b, 200001).hash);
    for (uint32_t key = 0; key < 1000; key++) {
        REQUIRE(lease_take(&b, key_named(&b, key).hash) == LEASE_TAKEN, "a lease cannot be taken from one who left");
        lease_release(&b, key_named(&b, key).hash);
    }
    segment_detach(&b);
    close(full);
}

/* Whoever gets a dead holder's slot does not hold its leases; and nobody gives back what another holds. */
static void check_holders(void)
{
    struct attachment a, b, heir;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    uint64_t hash = key_named(&b, 1).hash;
    REQUIRE(lease_take(&a, hash) == LEASE_TAKEN, "a lease that nobody holds");
    lease_release(&b, hash);
    REQUIRE(lease_take(&b, hash) == LEASE_HELD, "a lease was given back by somebody else");
    uint32_t slot = a.slot;
    segment_detach(&a);
    attach_to(&heir, fd, &config);
    REQUIRE(heir.slot == slot, "the heir got slot %u, not %u", heir.slot, slot);
    REQUIRE(lease_take(&b, hash) == LEASE_TAKEN, "the heir of a slot holds the lease of whoever had it before");
    segment_detach(&heir);
    segment_detach(&b);
    close(fd);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_lease");
    uint64_t kills = 0;
    file = memory_file();
    holder = shared_zeroes(KEYS * sizeof *holder);
    check_full();
    check_holders();
    for (int part = 0; part < 4; part++) {
        kills += torture_run(work, WORKERS, 0, part ? 200 : 0, torture.seconds / 4);
        check_at_rest();
    }
    printf("lease: %llu taken, %llu held by another, %llu without room, %llu held twice, %llu kills\n", (unsigned long long)tallied(TAKEN),
           (unsigned long long)tallied(HELD), (unsigned long long)tallied(NO_ROOM), (unsigned long long)tallied(DOUBLE),
           (unsigned long long)kills);
    REQUIRE(tallied(DOUBLE) * 1000 <= tallied(TAKEN), "a lease was held twice %llu times", (unsigned long long)tallied(DOUBLE));
    REQUIRE(tallied(TAKEN) > 0, "no lease was ever taken");
    return 0;
}
