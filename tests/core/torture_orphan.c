/* torture_orphan.c - deaths in a segment that was left (orphan.h), and deaths of the processes that clear its successor.
 *
 * A process has died in the orphan, so a clear of the successor is owed. A child that moves to the successor makes it. The
 * child is killed after each change that it makes in either segment. Then another process that watches the orphan does the
 * same: the successor is cleared, whatever the child had done. If the child is not killed, nothing is owed at its end: a
 * value that is set then stays.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the dead are given back before the clear    0.1     a claim that outlives its claimant   0.1
 *   never given back                            0.1
 */
#include "orphan.h"
#include "scenes.h"

#include <signal.h>

static struct attachment left, next; /* of this process, which watches */
static int left_file, next_file;
static struct named_key key;
static unsigned char value[64];

static void set_key(void)
{
    struct write w = write_of(&key, value, value_make(value, 1, 1, 40));
    REQUIRE(cache_set(&next, &w) == STORED, "set");
}

static bool is_cleared(void)
{
    uint32_t bytes;
    return !read_value(&next, &key, value, &bytes);
}

/* ---- those who pay ---- */

struct payer {
    const char *name;
    bool is_leaving; /* it holds a slot in the orphan: its own death is seen there */
};

static void pay(void *with)
{
    const struct payer *p = with;
    struct segment_config config = plain_config(SCENE_BYTES);
    static struct attachment its, goes_on;
    attach_to(&its, left_file, &config);
    attach_to(&goes_on, next_file, &config);
    if (!p->is_leaving)
        segment_only_watch(&its);
    raise(SIGSTOP);
    bool owed = p->is_leaving && recovery_owes_clear(&its);
    orphan_clear(&its, &goes_on, owed);
    raise(SIGSTOP);
}

/* A slot that says live, and whose lock byte nobody holds; the segments as they were else. */
static pid_t begin(struct payer *p)
{
    struct segment_config config = plain_config(SCENE_BYTES);
    static const struct attachment none;
    left = next = none;
    left_file = memory_file(), next_file = memory_file();
    attach_to(&left, left_file, &config);
    attach_to(&next, next_file, &config);
    key = key_named(&next, 1);
    set_key();
    store_release(&left.roster[SLOT_OF_THE_DEAD].word, (uint64_t)LIFE_OF_THE_DEAD << ROSTER_GEN_SHIFT | SLOT_LIVE);
    raise_max(&left.header->roster_high, SLOT_OF_THE_DEAD + 1);
    pid_t pid = traced_child(pay, p); /* in another slot than this process's */
    segment_only_watch(&left);
    return pid;
}

static void end(void)
{
    segment_detach(&left);
    segment_detach(&next);
    close(left_file), close(next_file);
}

static bool has_changed(unsigned char *seen, const struct attachment *a)
{
    uint64_t tables = a->geo.pages_at;
    if (memcmp(seen, a->base, tables) == 0)
        return false;
    memcpy(seen, a->base, tables);
    return true;
}

/* Step to the change of this number. UINT32_MAX: there are not so many, it has come to its end. */
static uint32_t step_to_change(pid_t pid, uint32_t change, unsigned char *seen[2])
{
    has_changed(seen[0], &left), has_changed(seen[1], &next);
    for (uint32_t changes = 0, steps = 0; changes < change; steps++) {
        REQUIRE(steps < STEPS_MAX, "it does not end");
        if (!step(pid))
            return UINT32_MAX;
        changes += (uint32_t)has_changed(seen[0], &left) + (uint32_t)has_changed(seen[1], &next);
    }
    return change;
}

static void kill_at_each_change(struct payer *p)
{
    unsigned char *seen[2] = {malloc(SCENE_BYTES), malloc(SCENE_BYTES)};
    for (uint32_t change = 0;; change++) {
        pid_t pid = begin(p);
        bool over = step_to_change(pid, change, seen) == UINT32_MAX;
        if (over) {
            REQUIRE(is_cleared(), "%s: it has cleared nothing", p->name);
            set_key();
        }
        bool lives_on = over && p->is_leaving;
        if (!lives_on)
            end_child(pid);
        tally(KILLS);
        REQUIRE(orphan_clear(&left, &next, false), "the successor is retired");
        REQUIRE(over || is_cleared(), "%s: killed after change %u: the successor is not cleared", p->name, change);
        REQUIRE(!over || !is_cleared(), "%s: at its end, the clear is owed still", p->name);
        if (lives_on)
            end_child(pid);
        end();
        if (over)
            break;
    }
    free(seen[0]), free(seen[1]);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_orphan");
    static struct payer payers[] = {{"one who watches", false}, {"one who leaves", true}};
    if (!can_trace()) {
        printf("orphan: SKIPPED, ptrace is forbidden here\n");
        return 0;
    }
    for (size_t i = 0; i < sizeof payers / sizeof payers[0]; i++)
        kill_at_each_change(&payers[i]);
    printf("orphan: %llu deaths\n", (unsigned long long)tallied(KILLS));
    return 0;
}
