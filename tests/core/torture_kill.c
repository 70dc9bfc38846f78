/* torture_kill.c - real deaths and real stops, at any instruction of any verb.
 *
 * Deaths: a child is brought to its Nth instruction and killed. Then a new process checks what torture_steps checks of an
 * image: every verb works at once, nothing is torn, stale or flapping, the ring has no hole, no fence is behind, every debt
 * is announced, and slot, pages, lease and the bridge's place become free. An image cannot show what the kernel frees at a
 * death; this does.
 *
 * Stops: a child is stopped (SIGSTOP) at its Nth instruction while a survivor goes through every verb of the same
 * key. The survivor needs as many instructions as without the stopped child (counted on x86-64 alone), and at most SLACK more,
 * to finish what it finds half done. It takes nothing away from the stopped child, which then goes on and succeeds.
 *
 *   torture_kill [seconds]            deaths at random points, as many as fit, of each verb one at least; stops of one verb
 *   torture_kill 0 all [scene]        deaths after every instruction of a verb that has at most EVERY_MAX; of a longer one
 *                                     around each change of the tables, and SPREAD others. Stops after STOPS_EACH changes. Says
 *                                     after each verb how far it is, and how fast
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   the write under way not announced  0.1      pages of the dead not sealed             0.1
 *   intents not announced              11       a lease of the dead is never taken over  13
 *   nobody helps in the ring           1.4      the living are swept                     4.8
 *
 * Not caught by random points: a pending word that nobody finishes (`all` stops after each change).
 */
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { EVERY_MAX = 1 << 15, SPREAD = 256, STOPS_EACH = 16, POINTS_MAX = 1 << 15, STOPS_IN_CHECK = 3, SLACK = 4000, LATEST_LOG2 = 12 };

struct points {
    uint32_t instructions, n, at[POINTS_MAX];
};

/* How long is the verb, and after which instructions has it changed a table? */
static void measure(const struct scene *s, struct points *p)
{
    uint64_t watched = here.geo.pages_at;
    unsigned char *last = malloc(watched);
    p->instructions = p->n = 0;
    begin_run();
    pid_t pid = child_at_verb(s);
    memcpy(last, here.base, watched);
    while (step(pid)) {
        REQUIRE(++p->instructions < STEPS_MAX, "%s: does not end", s->name);
        if (memcmp(last, here.base, watched) == 0)
            continue;
        memcpy(last, here.base, watched);
        if (p->n < POINTS_MAX)
            p->at[p->n++] = p->instructions;
    }
    end_child(pid);
    free(last);
}

/* ---- deaths ---- */

static void kill_after(const struct scene *s, uint32_t instructions)
{
    begin_run();
    pid_t pid = child_at_verb(s);
    step_to(pid, instructions);
    end_child(pid);
    struct death death = {NULL, here.geo.total_bytes, (enum first)(instructions % FIRSTS), s->owes};
    REQUIRE(in_child(check_death, &death), "%s: killed after %u instructions", s->name, instructions);
    tally(KILLS);
}

/* ---- stops ---- */

static uint32_t corpses(const struct attachment *a)
{
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++)
        n += (load_acquire(&a->roster[slot].word) & ROSTER_STATE_MASK) != SLOT_FREE && !roster_alive(a, slot);
    return n;
}

static void sweep_the_dead_alone(struct attachment *a)
{
    uint64_t before = load_relaxed(&a->me->stats[STAT_SWEPT]);
    uint32_t dead = corpses(a);
    sweep(a);
    REQUIRE(load_relaxed(&a->me->stats[STAT_SWEPT]) <= before + dead, "a stopped process was swept away");
}

static verb *const survivor_verbs[] = {get_target, set_2,       get_target,      delete_target, fill_8,     touch_target, add_7,
                                       set_1,      fenced_10,   take_lease, take_lock,     apply_key,     apply_same, delete_tag,   set_local,
                                       fill_late,  incr_counter, clear_all,  apply_different, apply_all,     set_2,      sweep_the_dead_alone, get_target};
enum { SURVIVOR_VERBS = sizeof survivor_verbs / sizeof survivor_verbs[0], CORPSES_COUNTED = 4 };
static uint32_t *survivor_took; /* shared: the instructions of each */

static void survive(void *unused)
{
    static struct attachment a;
    (void)unused;
    REQUIRE(segment_attach(&a, reopened(scene_file), &scene_config) == ATTACHED, "the survivor cannot attach");
    a.frozen_ms = here.frozen_ms;
    uint64_t hash = target.hash;
    target = other; /* it has a page before anybody is stopped */
    set_1(&a);
    target.hash = hash, target = key_named(&a, TARGET);
    raise(SIGSTOP);
    for (int i = 0; i < SURVIVOR_VERBS; i++)
        if (survivor_verbs[i] == sweep_the_dead_alone && corpses(&a) > CORPSES_COUNTED)
            survivor_took[i] = 0, survivor_verbs[i](&a); /* a full roster of the dead: millions of instructions */
        else
            survivor_took[i] = instructions_of(survivor_verbs[i], &a);
    raise(SIGSTOP);
}

/* Until it stops itself. */
static void go_on(const char *name, pid_t pid)
{
    int status;
    do
        REQUIRE(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status), "%s ended badly: %x", name, (unsigned)status);
    while (WSTOPSIG(status) != SIGSTOP);
}

/* What the survivor's verbs take while the child stands after so many instructions. */
static void stop_after(const struct scene *s, uint32_t instructions, uint32_t *took)
{
    begin_run();
    pid_t survivor = traced_child(survive, NULL), pid = child_at_verb(s);
    bool running = step_to(pid, instructions);
    if (running)
        REQUIRE(ptrace(PTRACE_DETACH, pid, 0, SIGSTOP) == 0, "ptrace: %s", strerror(errno));
    REQUIRE(ptrace(PTRACE_DETACH, survivor, 0, 0) == 0, "ptrace: %s", strerror(errno));
    go_on("the survivor", survivor);
    memcpy(took, survivor_took, sizeof *took * SURVIVOR_VERBS);
    if (running) {
        REQUIRE(kill(pid, SIGCONT) == 0, "SIGCONT: %s", strerror(errno));
        go_on(s->name, pid);
    }
    check_ring(&here);
    check_nothing_outlived(&here, 0, ring_tail(&here), true, s->name);
    end_child(pid);
    end_child(survivor);
    tally(STOPS);
}

/* What the survivor's verbs take when the child has not begun, and when it is done: a get of the larger value takes longer. */
static void undisturbed(const struct scene *s, uint32_t *most)
{
    uint32_t after[SURVIVOR_VERBS];
    stop_after(s, 0, most);
    stop_after(s, UINT32_MAX, after);
    for (int v = 0; v < SURVIVOR_VERBS; v++)
        most[v] = after[v] > most[v] ? after[v] : most[v];
}

/* At so many of the places where the child has just changed a table: between two of them all is as it was. */
static void check_stops(const struct scene *s, const struct points *p, uint32_t stops, uint32_t *most)
{
    uint32_t alone[SURVIVOR_VERBS], took[SURVIVOR_VERBS], n = p->n < stops ? p->n : stops;
    forget_the_way(); /* beside the survivor it is another one */
    undisturbed(s, alone);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t point = p->at[(uint64_t)p->n * i / n];
        stop_after(s, point, took);
        for (int v = 0; v < SURVIVOR_VERBS; v++) {
            uint32_t more = took[v] > alone[v] ? took[v] - alone[v] : 0;
            *most = more > *most ? more : *most;
            REQUIRE(more <= SLACK, "%s, stopped after %u instructions: a survivor's verb %d takes %u, not %u", s->name, point, v, took[v],
                    alone[v]);
        }
    }
}

/* ---- how much of it ---- */

/* A point at random, early ones rather than late ones; behind the end of a short verb it is a death after it. */
static uint32_t some_point(struct chance *c) { return chance_below(c, 1u << chance_below(c, LATEST_LOG2 + 1)); }

static void some(const struct scene *s, double until, struct chance *c)
{
    do
        kill_after(s, some_point(c));
    while (seconds_now() < until);
}

static void all(const struct scene *s, uint32_t *most)
{
    static struct points p;
    double began = seconds_now();
    measure(s, &p);
    uint32_t length = p.instructions, every = length <= EVERY_MAX ? 1 : length / SPREAD;
    for (uint32_t i = 0; i < p.n && every > 1; i++)
        kill_after(s, p.at[i] - 1), kill_after(s, p.at[i]);
    for (uint32_t i = 0; i < length; i += every)
        kill_after(s, i);
    double killed = seconds_now();
    check_stops(s, &p, STOPS_EACH, most);
    printf("kill: %-32s %6u instructions, %3u of them change a table: %5u deaths in %.0f s, stops in %.0f s\n", s->name, length, p.n,
           (every > 1 ? 2 * p.n : 0) + (length + every - 1) / every, killed - began, seconds_now() - killed);
    fflush(stdout);
}

static void check_some_stops(const struct scene *s, uint32_t *most)
{
    static struct points p;
    measure(s, &p);
    check_stops(s, &p, STOPS_IN_CHECK, most);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_kill");
    bool everything = argc > 2 && strcmp(argv[2], "all") == 0;
    const char *only = everything && argc > 3 ? argv[3] : NULL;
    alarm(everything ? 0 : (unsigned)torture.seconds * 4 + 180);
    if (!can_trace()) {
        printf("kill: SKIPPED, ptrace is forbidden here\n");
        return 0;
    }
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    uint32_t most = 0;
    survivor_took = shared_zeroes(SURVIVOR_VERBS * sizeof *survivor_took);
    int stopped = everything ? SCENES : (int)chance_below(&c, SCENES);
    note_digest();
    for (int i = 0; i < SCENES; i++) {
        if (only && strcmp(only, scenes[i].name) != 0)
            continue;
        set_up(&scenes[i]);
        if (i == stopped)
            check_some_stops(&scenes[i], &most);
        if (everything)
            all(&scenes[i], &most);
        else
            some(&scenes[i], seconds_now() + torture.seconds / SCENES, &c);
        tear_down();
    }
    printf("kill: %llu deaths, %llu stops; a survivor's verb took at most %u instructions more\n", (unsigned long long)tallied(KILLS),
           (unsigned long long)tallied(STOPS), most);
    return 0;
}
