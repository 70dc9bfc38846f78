/* torture_lock.c - locks by name: exclusive, fenced, freed by death and by time.
 *
 * Workers take and release locks of a few names, which share their places, and are killed at any instruction, also between
 * a claim and its confirmation. What must hold: two workers never hold the lock of one name; each acquisition has a higher
 * fencing number than all before it; a holder whose time is over can see that, and its release does not free the next
 * holder's lock. At rest each lock can be taken at once, whatever dead workers have left. Then, step by step: a full table, a
 * slot that another process gets, a segment's successor, garbage.
 */
#include "hash.h"
#include "lock.h"
#include "scenes.h"

#include <signal.h>
#include <sys/ptrace.h>

enum { SEGMENT_BYTES = 1 << 20, WORKERS = 4, NAMES = 6, SPOTS = 300, SHORT_MS = 2 };
enum { TAKEN, HELD_, LOST, DOUBLE, BACKWARD };

static int file;
static a64 *holder, *last_fence; /* per name */
static uint32_t crowd[NAMES];    /* the numbers of names that begin at the same place */

static enum lock take(struct attachment *a, uint64_t hash, uint64_t ttl_ms, struct lock_hold *hold)
{
    uint32_t by;
    return lock_take(a, &(struct lock_wish){.hash = hash, .ttl_ms = ttl_ms}, hold, &by);
}

static void gather_crowd(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    for (uint32_t found = 0, key = 0; found < NAMES; key++)
        if (reduce32((uint32_t)key_named(&a, key).hash, lock_slots(&a.geo)) < 4)
            crowd[found++] = key;
    segment_detach(&a);
}

/* Whoever finds itself the holder before and after a while was alone. */
static void hold_for_a_while(struct attachment *a, uint32_t name, const struct lock_hold *hold, uint64_t me, uint32_t spots)
{
    uint64_t before = load_acquire(&last_fence[name]);
    if (lock_is_held(a, hold) && before >= hold->fence)
        tally(BACKWARD);
    raise_max(&last_fence[name], hold->fence);
    store_release(&holder[name], me);
    for (; spots > 0; spots--)
        fence_seq_cst();
    uint64_t there = load_acquire(&holder[name]);
    if (lock_is_held(a, hold) && there != me)
        tally(DOUBLE);
}

static void work(int number, uint64_t seed)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct chance c = {seed};
    uint64_t me = chance_next(&c) | 1;
    attach_to(&a, file, &config);
    while (!torture_over()) {
        uint32_t name = chance_below(&c, NAMES);
        bool outstays = name == 0 && chance_below(&c, 50) == 0; /* the others have no end: their holders never meet */
        struct lock_hold hold, second;
        uint64_t hash = key_named(&a, crowd[name]).hash;
        if (take(&a, hash, name == 0 ? SHORT_MS : 0, &hold) != LOCK_TAKEN) {
            tally(HELD_);
            continue;
        }
        tally(TAKEN);
        if (name)
            REQUIRE(take(&a, hash, 0, &second) == LOCK_HELD, "a lock that is held here was taken again");
        if (name)
            hold_for_a_while(&a, name, &hold, me, chance_below(&c, SPOTS));
        if (outstays)
            nap_us(1000 * SHORT_MS * 8);
        bool released = lock_release(&a, &hold);
        REQUIRE(released || name == 0, "the lock of name %u was lost to nobody", name);
        REQUIRE(!outstays || !released, "a holder that outstayed its time was told that it held the lock");
        if (!released)
            tally(LOST);
    }
    segment_detach(&a);
}

static void check_at_rest(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&a, file, &config);
    nap_us(1000 * SHORT_MS * 8);
    for (uint32_t name = 0; name < NAMES; name++) {
        uint64_t hash = key_named(&a, crowd[name]).hash;
        struct lock_hold hold, second;
        REQUIRE(lock_holder(&a, hash) == NOBODY, "the lock of name %u is held by nobody alive", name);
        REQUIRE(take(&a, hash, 0, &hold) == LOCK_TAKEN, "the lock of name %u cannot be taken from the dead", name);
        REQUIRE(hold.fence > load_acquire(&last_fence[name]), "the fencing number of name %u went back", name);
        REQUIRE(take(&a, hash, 0, &second) == LOCK_HELD, "a lock was lost");
        REQUIRE(lock_holder(&a, hash) == a.slot, "the holder is not named");
        REQUIRE(lock_release(&a, &hold) && !lock_release(&a, &hold), "released once, and once only");
    }
    segment_detach(&a);
}

static void check_full(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lock_hold hold;
    int full = memory_file();
    attach_to(&a, full, &config);
    attach_to(&b, full, &config);
    uint32_t taken = 0;
    for (uint32_t key = 0; key < 20000; key++)
        taken += take(&a, key_named(&a, key).hash, 0, &hold) == LOCK_TAKEN;
    REQUIRE(taken == lock_slots(&a.geo), "%u of %u locks could be taken", taken, lock_slots(&a.geo));
    REQUIRE(take(&b, key_named(&b, 200001).hash, 0, &hold) == LOCK_NO_ROOM, "room in a full table");
    segment_detach(&a);
    for (uint32_t key = 0; key < 1000; key++) {
        REQUIRE(take(&b, key_named(&b, key).hash, 0, &hold) == LOCK_TAKEN, "a lock cannot be taken from one who left");
        REQUIRE(lock_release(&b, &hold), "released");
    }
    segment_detach(&b);
    close(full);
}

/* Whoever gets a dead holder's slot does not hold its locks; nobody gives back what another holds; time ends a lock. */
static void check_holders(void)
{
    struct attachment a, b, heir;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lock_hold hold, second;
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    uint64_t hash = key_named(&b, 1).hash;
    REQUIRE(take(&a, hash, 0, &hold) == LOCK_TAKEN && lock_is_held(&a, &hold), "a lock that nobody holds");
    REQUIRE(!lock_is_held(&b, &hold) && !lock_release(&b, &hold), "a lock was given back by somebody else");
    uint32_t slot = a.slot;
    segment_detach(&a);
    attach_to(&heir, fd, &config);
    REQUIRE(heir.slot == slot, "the heir got slot %u, not %u", heir.slot, slot);
    REQUIRE(!lock_is_held(&heir, &hold), "the heir of a slot holds the lock of whoever had it before");
    REQUIRE(take(&b, hash, 0, &second) == LOCK_TAKEN && second.fence > hold.fence, "the dead holder's lock cannot be taken");
    REQUIRE(!lock_release(&heir, &hold) && lock_is_held(&b, &second), "an old hold gave the present holder's lock back");
    REQUIRE(lock_release(&b, &second), "released");

    b.frozen_ms = heir.frozen_ms = 1000;
    REQUIRE(take(&b, hash, 500, &hold) == LOCK_TAKEN, "a lock that nobody holds");
    b.frozen_ms = heir.frozen_ms = 1499;
    REQUIRE(take(&heir, hash, 500, &second) == LOCK_HELD && lock_is_held(&b, &hold), "a lock ended before its time");
    b.frozen_ms = heir.frozen_ms = 1500;
    REQUIRE(!lock_is_held(&b, &hold), "a holder whose time is over believes that it holds the lock");
    REQUIRE(take(&heir, hash, 500, &second) == LOCK_TAKEN && second.fence > hold.fence, "a lock outlived its time");
    REQUIRE(!lock_release(&b, &hold) && lock_is_held(&heir, &second), "a late holder gave the next one's lock back");
    segment_detach(&heir);
    segment_detach(&b);
    close(fd);
}

enum { CLAIM_STEPS_MAX = 100000 };

static void take_when_told(void *with)
{
    struct attachment *a = with;
    struct lock_hold hold;
    raise(SIGSTOP);
    take(a, key_named(a, 1).hash, 0, &hold);
    raise(SIGSTOP);
}

/* A process stands right behind its claim: it has not looked yet what else there is. */
static void check_a_claim_and_what_comes_after_it(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lock_hold hold;
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    uint64_t hash = key_named(&a, 1).hash;
    uint32_t first = reduce32((uint32_t)hash, lock_slots(&a.geo));
    pair128 *claimed = &a.locks[first].held, *later = &a.locks[(first + 1) % lock_slots(&a.geo)].held;
    pid_t pid = traced_child(take_when_told, &a);
    int steps = 0;
    for (; !load_acquire(&claimed->meta) && steps < CLAIM_STEPS_MAX; steps++)
        resume(pid, PTRACE_SINGLESTEP);
    REQUIRE(steps < CLAIM_STEPS_MAX && !(load_acquire(&claimed->hash) & 1), "no claim was seen");
    REQUIRE(cas128(later, 0, 0, roster_holder(&b, hash), load_acquire(&claimed->hash) + 2), "a later claim");
    REQUIRE(take(&b, key_named(&b, 2).hash, 0, &hold) == LOCK_TAKEN, "another name's lock is held by nobody");
    REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP && lock_holder(&a, hash) == a.slot, "the earlier claim gave way to the later one");
    REQUIRE(load_acquire(&later->meta) == 0, "a later claim was left, and may be confirmed too");
    REQUIRE(load_acquire(&claimed->hash) >> 1 > hold.fence, "a number that was drawn before the look is the fencing number");
    end_child(pid);
    segment_detach(&a);
    segment_detach(&b);
    close(fd);
}

/* A claimer that was stopped in the middle keeps nobody from the lock, and a damaged fencing number retires the segment. */
static void check_left_overs(void)
{
    struct attachment a, b;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    struct lock_hold hold;
    int fd = memory_file();
    attach_to(&a, fd, &config);
    attach_to(&b, fd, &config);
    uint64_t hash = key_named(&a, 1).hash, fence = load_relaxed(&a.header->lock_fence);
    for (uint32_t i = 0, first = reduce32((uint32_t)hash, lock_slots(&a.geo)); i < LOCK_WAYS; i++)
        REQUIRE(cas128(&a.locks[(first + i) % lock_slots(&a.geo)].held, 0, 0, roster_holder(&a, hash), (fence + i + 1) << 1), "a claim");
    REQUIRE(take(&b, hash, 0, &hold) != LOCK_NO_ROOM, "claims fill the table");
    for (int tries = 0; tries < 1000 && !lock_is_held(&b, &hold); tries++)
        take(&b, hash, 0, &hold);
    REQUIRE(lock_is_held(&b, &hold), "a stopped claimer keeps the lock from others");
    store_relaxed(&a.header->lock_fence, UINT64_MAX);
    REQUIRE(take(&b, key_named(&b, 3).hash, 0, &hold) == LOCK_CORRUPT && segment_retired(&b), "a damaged fencing number was used");
    segment_detach(&a);
    segment_detach(&b);
    close(fd);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_lock");
    uint64_t kills = 0;
    holder = shared_zeroes(NAMES * sizeof *holder);
    last_fence = shared_zeroes(NAMES * sizeof *last_fence);
    check_full();
    check_holders();
    check_left_overs();
    if (can_trace())
        check_a_claim_and_what_comes_after_it();
    else
        printf("lock: a claim and what comes after it: SKIPPED, ptrace is forbidden here\n");
    file = memory_file();
    gather_crowd();
    for (int part = 0; part < 2; part++) {
        kills += torture_run(work, WORKERS, 0, part ? 200 : 0, torture.seconds / 2);
        check_at_rest();
    }
    printf("lock: %lu taken, %lu held by another, %lu outlived, %lu kills\n", (unsigned long)tallied(TAKEN), (unsigned long)tallied(HELD_),
           (unsigned long)tallied(LOST), (unsigned long)kills);
    REQUIRE(tallied(DOUBLE) == 0, "%lu times two held one lock", (unsigned long)tallied(DOUBLE));
    REQUIRE(tallied(BACKWARD) == 0, "%lu times a fencing number went back", (unsigned long)tallied(BACKWARD));
    REQUIRE(tallied(TAKEN) > 0 && tallied(HELD_) > 0 && tallied(LOST) > 0, "nothing happened");
    return 0;
}
