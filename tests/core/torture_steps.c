/* torture_steps.c - verbs stepped instruction by instruction: every death, and every interleaving with another verb.
 *
 * A child runs one verb under ptrace. The memory of the segment is watched after every instruction.
 *
 * Crash images: wherever the segment changed, a copy of it is taken, and a fresh process attaches to the copy as if the
 * child (and everybody else) had died there. Every verb works at once, nothing torn, stale or flapping is read, the ring
 * has no hole, no fence is behind, and the sweep gives slot, pages and debts back.
 *
 * Interleavings: the child is stopped at a point, another process runs a whole verb on the same key, the child goes on
 * to its end. Then no entry may be visible that some later event of its key should have evicted; at the stop it may not
 * be one that the other process's verb, which has returned, should have evicted, nor at any instruction after it. (This finds what racing does not: races
 * of three or four instructions.)
 *
 * Points: images where anything but value bytes changed; interleavings just before and just after each such change: all
 * of them for some pairs of verbs, a random sample of the others within the seconds given. `torture_steps N all`: all,
 * but of verbs of more than LONG_STEPS instructions.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   superseded without its fence check   0.3        a new word visible at once          1.2
 *   a set's loser does not kill          2.8        an overwrite that is never pending  3.3
 *   the write under way not announced    0.9        intents not announced               17
 *   a helper raises no fence             4.7        nobody helps (hangs)                20
 *   kill_lower without its second try    12         an entry moved by a store           19
 *
 * Not caught: no re-scan in finish (of two processes both choose the same empty word; torture_index shows it by adds), a
 * fenced set that looks once (torture_index).
 */
#include "torture.h"
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { POINTS_MAX = 1 << 16, LONG_STEPS = 4000, STEPS_IN_CHECK = 20000 /* of a verb; `all` has no such bound */ };

static bool all_points;
static double began;

static const struct {
    const char *name;
    verb *run;
} intruders[] = {
    {"set", set_2},           {"local set", set_local},  {"ttl 0", set_nothing},       {"add", add_7},
    {"fill", fill_8},         {"late fill", fill_late},  {"delete", delete_target},    {"touch", touch_target},
    {"delete_tag", delete_tag}, {"clear", clear_all},    {"apply key", apply_key},     {"apply same digest", apply_same},
    {"apply other digest", apply_different}, {"apply flush", apply_all}, {"page turns", fill_pages},
};
enum { INTRUDERS = sizeof intruders / sizeof intruders[0] };

/* ---- crash images ---- */

static void check_images(const char *scene, const unsigned char *bytes, uint64_t steps)
{
    for (int sweep_first = 0; sweep_first < 2; sweep_first++) {
        struct death death = {bytes, here.geo.total_bytes, sweep_first};
        REQUIRE(in_child(check_death, &death), "%s: a death after %llu instructions%s", scene, (unsigned long long)steps,
                sweep_first ? ", swept" : "");
    }
    tally(IMAGES);
}

/* Run the verb once; at every change check its death, and note the points. Returns their number. */
static uint32_t step_through(const struct scene *s, uint32_t *points, bool check)
{
    uint64_t watched = here.geo.pages_at; /* the value bytes behind it count once a word names them */
    unsigned char *last = malloc(here.geo.total_bytes);
    uint32_t n = 0, steps = 0;
    begin_run();
    pid_t pid = child_at_verb(s);
    memcpy(last, here.base, here.geo.total_bytes);
    while (step(pid)) {
        REQUIRE(++steps < STEPS_MAX, "%s: does not end", s->name);
        if (!all_points && steps > STEPS_IN_CHECK)
            break;
        if (memcmp(last, here.base, watched) == 0)
            continue;
        memcpy(last, here.base, here.geo.total_bytes);
        if (check)
            check_images(s->name, last, steps);
        if (n + 2 < POINTS_MAX)
            points[n++] = steps - 1, points[n++] = steps;
    }
    end_child(pid);
    free(last);
    return n;
}

/* ---- interleavings ---- */

static bool may_spare(verb *run) { return run == apply_same || run == apply_key || all_points; }

static void interleave(const struct scene *s, int intruder, uint32_t point)
{
    char when[160];
    snprintf(when, sizeof when, "%s, stopped after %u instructions for: %s", s->name, point, intruders[intruder].name);
    begin_run();
    pid_t pid = child_at_verb(s);
    bool running = true;
    for (uint32_t i = 0; i < point && running; i++)
        running = step(pid);
    uint64_t before = ring_tail(&here);
    intruders[intruder].run(&here);
    /* While we ran nobody else did: the last record is ours if there is one (one of the child's may be below it). */
    uint64_t after = ring_tail(&here);
    bool returned_event = after > before && intruders[intruder].run != fill_pages;
    if (returned_event)
        check_nothing_outlived(&here, after - 1, after, true, when);
    /* Of what an event may spare, every instant is looked at; of the rest, the end. */
    while (running && returned_event && may_spare(intruders[intruder].run)) {
        running = step(pid);
        check_nothing_outlived(&here, after - 1, after, true, when);
    }
    if (running)
        REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP, "%s: the stepped child got a signal", when);
    check_ring(&here);
    check_nothing_outlived(&here, 0, ring_tail(&here), true, when);
    end_child(pid);
    here.frozen_ms = FROZEN_MS;
    number_read(&here);
    cache_delete(&here, target.hash);
    REQUIRE(number_read(&here) == 0, "%s: delete does not work", when);
    tally(RUNS);
}

/* Pairs that take different ways through index.c and relay.c; each of their points is tried in every run. */
static const struct {
    verb *run, *before, *intruder;
} musts[] = {
    {set_1, do_nothing, delete_target},      {set_1, do_nothing, apply_key},          {set_2, set_1, apply_same},
    {set_2, set_1_local, apply_key},         {fill_late, set_1_expiring_now, apply_same}, {fill_8, do_nothing, delete_target},
    {fenced_10, set_1, delete_tag},          {touch_target, set_1, delete_target},    {add_7, do_nothing, add_7},
    {apply_same, set_1, set_2},
};
enum { MUSTS = sizeof musts / sizeof musts[0] };

static void interleave_musts(const struct scene *s, const uint32_t *points, uint32_t n)
{
    for (int m = 0; m < MUSTS; m++)
        for (int intruder = 0; intruder < INTRUDERS; intruder++)
            if (musts[m].run == s->run && musts[m].before == s->before && musts[m].intruder == intruders[intruder].run)
                for (uint32_t i = 0; i < n; i += 2) /* just before each change: all that it rests on has been read */
                    interleave(s, intruder, points[i]);
}

static void interleave_scene(const struct scene *s, uint32_t *points, uint32_t n, double until, struct chance *c)
{
    /* Of a long verb fewer points, so that it takes no longer than a few short ones. */
    uint32_t stride = all_points && n ? 1 + points[n - 1] / LONG_STEPS : 1;
    for (int intruder = 0; intruder < INTRUDERS; intruder++) {
        tally(PAIRS);
        for (uint32_t i = (uint32_t)intruder % stride; i < n && (all_points || seconds_now() < until); i += stride) {
            uint32_t pick = all_points ? i : chance_below(c, n);
            int who = all_points ? intruder : (int)chance_below(c, INTRUDERS);
            interleave(s, who, points[pick]);
        }
    }
}

/* How far `all` is, and how fast. */
static void say_progress(int scene, uint32_t points)
{
    printf("steps: %2d of %d verbs after %.0f s: %s, %u points; %llu instructions, %llu images, %llu interleavings so far\n", scene + 1,
           SCENES, seconds_now() - began, scenes[scene].name, points, (unsigned long long)tallied(STEPS),
           (unsigned long long)tallied(IMAGES), (unsigned long long)tallied(RUNS));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_steps");
    all_points = argc > 2 && strcmp(argv[2], "all") == 0;
    alarm(all_points ? 0 : (unsigned)torture.seconds * 4 + 120);
    if (!can_trace()) {
        printf("steps: SKIPPED, ptrace is forbidden here\n");
        return 0;
    }
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    uint32_t *points = malloc(POINTS_MAX * sizeof *points);
    double each = torture.seconds / SCENES;
    began = seconds_now();
    note_digest();
    for (int i = 0; i < SCENES; i++) {
        set_up(&scenes[i]);
        uint32_t n = step_through(&scenes[i], points, true);
        if (!all_points)
            interleave_musts(&scenes[i], points, n);
        if (!scenes[i].alone)
            interleave_scene(&scenes[i], points, n, seconds_now() + each, &c);
        tear_down();
        if (all_points)
            say_progress(i, n);
    }
    free(points);
    printf("steps: %d verbs, %llu instructions stepped, %llu crash images, each swept and unswept; %llu interleavings\n", SCENES,
           (unsigned long long)tallied(STEPS), (unsigned long long)tallied(IMAGES), (unsigned long long)tallied(RUNS));
    return 0;
}
