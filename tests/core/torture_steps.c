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
 * of them for some pairs of verbs, a random sample of the others within the seconds given. `torture_steps N all`: all.
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

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

enum { SEGMENT_BYTES = 512 << 10, POINTS_MAX = 1 << 16, STEPS_MAX = 3 << 20, FROZEN_MS = 5000000 };
enum { TARGET = 1, OTHER = 2, SLOT_OF_THE_DEAD = 9 };
enum { IMAGES, STEPS, PAIRS, RUNS };

static const uint64_t TAG = 0x7461670000000001ull;

static int file;
static struct segment_config config;
static struct attachment here, here_before; /* this process's attachment, and how it was before each run */
static struct named_key target, other;
static unsigned char buffer[VALUE_BYTES_LIMIT];
static unsigned char *start_image;
static uint64_t start_token;
static bool all_points;

/* ---- verbs: each works on TARGET ---- */

typedef void verb(struct attachment *a);

static struct write target_write(uint64_t number, uint32_t bytes)
{
    struct write w = write_of(&target, buffer, value_make(buffer, TARGET, number, bytes));
    w.tags = 1;
    w.tag[0] = TAG;
    return w;
}

static void set_1(struct attachment *a) { cache_set(a, &(struct write[]){target_write(1, 64)}[0]); }
static void set_2(struct attachment *a) { cache_set(a, &(struct write[]){target_write(2, 80)}[0]); }

static void set_large(struct attachment *a)
{
    struct write w = target_write(3, SPAN_BYTES + 40);
    cache_set(a, &w);
}

static void set_local(struct attachment *a)
{
    struct write w = target_write(4, 48);
    w.local = true;
    cache_set(a, &w);
}

static void set_nothing(struct attachment *a)
{
    struct write w = target_write(5, 48);
    w.store_nothing = true;
    cache_set(a, &w);
}

static void set_expiring(struct attachment *a)
{
    struct write w = target_write(6, 48);
    w.ttl_ms = 1;
    w.grace_ms = 1000;
    cache_set(a, &w);
    a->frozen_ms += 10;
}

static void add_7(struct attachment *a)
{
    struct write w = target_write(7, 48);
    cache_add(a, &w);
}

static void fill_8(struct attachment *a)
{
    struct write w = target_write(8, 48);
    cache_fill(a, &w, ring_tail(a), FROZEN_MS);
}

static void fill_late(struct attachment *a) /* loaded before the other process did anything */
{
    struct write w = target_write(9, 48);
    cache_fill(a, &w, start_token, FROZEN_MS);
}

static void fenced_10(struct attachment *a)
{
    struct write w = target_write(10, 48);
    cache_set_fenced(a, &w, start_token);
}

static void delete_target(struct attachment *a) { cache_delete(a, target.hash); }
static void touch_target(struct attachment *a) { cache_touch(a, target.hash, target.text, target.bytes, 100000); }
static void clear_all(struct attachment *a) { cache_clear(a); }
static void delete_tag(struct attachment *a) { cache_delete_tag(a, TAG); }
static void do_nothing(struct attachment *a) { (void)a; }

static void apply(struct attachment *a, enum wire_kind kind, uint64_t digest)
{
    static const uint32_t bytes_of[] = {0, 9, 17, 9, 1, 1};
    unsigned char in[WIRE_RECORD_BYTES_MAX] = {(unsigned char)kind};
    uint32_t applied;
    memcpy(in + 1, kind == WIRE_TAG ? &TAG : &target.hash, 8);
    memcpy(in + 9, &digest, 8);
    REQUIRE(relay_apply(a, 7, in, bytes_of[kind], &applied) == RELAY_OK, "apply");
}

static void apply_key(struct attachment *a) { apply(a, WIRE_KEY, 0); }
static void apply_tag(struct attachment *a) { apply(a, WIRE_TAG, 0); }
static void apply_all(struct attachment *a) { apply(a, WIRE_ALL, 0); }

static uint64_t digest_of_set_1; /* what a peer that set the same value announces */
static void apply_same(struct attachment *a) { apply(a, WIRE_KEY_SET, digest_of_set_1); }
static void apply_different(struct attachment *a) { apply(a, WIRE_KEY_SET, digest_of_set_1 + 2); }

static void sweep(struct attachment *a) { roster_sweep(a); }

static void open_writing(struct attachment *a) { roster_settle(a, roster_intend(a, target.hash)); }

static void leave(struct attachment *a) { segment_detach(a); }

static void take_lease(struct attachment *a)
{
    if (lease_take(a, target.hash) == LEASE_TAKEN)
        lease_release(a, target.hash);
}

static void set_other(struct attachment *a, uint32_t key, uint32_t bytes)
{
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, buffer, value_make(buffer, key, 1, bytes));
    cache_set(a, &w);
}

/* Every page full of a few entries, the target among them and read: the next writer turns pages and carries it on. */
static void fill_pages(struct attachment *a)
{
    uint32_t bytes;
    set_1(a);
    for (uint32_t i = 0; i < 7 * a->geo.page_count; i++) {
        set_other(a, 100 + i, SPAN_BYTES);
        read_value(a, &target, buffer, &bytes);
    }
}

static void nearly_full(struct attachment *a)
{
    do
        set_other(a, 50, 4000);
    while (a->open_page == NO_PAGE || a->open_off + 4200 < PAGE_BYTES);
}

static void set_that_turns(struct attachment *a) { set_other(a, 60, 4300), set_2(a); }

/* Somebody died holding a slot, an intent, a write under way and a page. */
static void leave_a_corpse(struct attachment *a)
{
    struct roster_slot *dead = &a->roster[SLOT_OF_THE_DEAD];
    set_1(a);
    store_release(&dead->word, (uint64_t)3 << ROSTER_GEN_SHIFT | SLOT_LIVE);
    store_release(&dead->intents[2], target.hash);
    store_release(&dead->verb_hash, other.hash);
    store_release(&dead->overflow, 1);
    raise_max(&a->header->roster_high, SLOT_OF_THE_DEAD + 1);
    store_release(&a->page_table[a->geo.page_count - 1].word, page_word(1, SLOT_OF_THE_DEAD, PAGE_OPEN));
}

static void set_1_expiring_now(struct attachment *a) { set_expiring(a); }
static void set_1_local(struct attachment *a) { set_local(a); }

/* ---- the child ---- */

static void begin_run(void)
{
    memcpy(here.base, start_image, here.geo.total_bytes);
    here = here_before;
}

static pid_t child_at_verb(verb *warm_up, verb *run, bool joins)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        struct attachment a;
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        int fd = reopened(file);
        if (!joins) {
            REQUIRE(segment_attach(&a, fd, &config) == ATTACHED, "the stepped child cannot attach");
            a.frozen_ms = here.frozen_ms;
            warm_up(&a);
        }
        raise(SIGSTOP);
        if (joins)
            segment_attach(&a, fd, &config);
        else
            run(&a);
        raise(SIGSTOP);
        _exit(0);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "the child did not stop: %x",
            (unsigned)status);
    return pid;
}

static int resume(pid_t pid, int how)
{
    int status;
    REQUIRE(ptrace(how, pid, 0, 0) == 0 && waitpid(pid, &status, 0) == pid, "ptrace: %s", strerror(errno));
    REQUIRE(WIFSTOPPED(status), "the stepped child ended: %x", (unsigned)status);
    return WSTOPSIG(status);
}

/* One instruction. False: the verb has returned. */
static bool step(pid_t pid)
{
    int signal = resume(pid, PTRACE_SINGLESTEP);
    REQUIRE(signal == SIGTRAP || signal == SIGSTOP, "the stepped child got signal %d", signal);
    tally(STEPS);
    return signal == SIGTRAP;
}

static void end_child(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- what must hold ---- */

/* Should an event that is newer than this entry have evicted it? */
static bool evicts(const struct attachment *a, const struct record *r, const struct entry_ref *e, uint64_t sequence)
{
    bool remote = r->source != 0;
    if (sequence <= e->version >> 1 || r->hash != target.hash)
        return false;
    if (remote && entry_local(e))
        return false;
    if (remote && r->kind == RECORD_SET) /* set_1's bytes may stay, touched or not */
        return load_relaxed(&entry_value(e)[1]) != 1 || r->digest != digest_bits(digest_of_set_1);
    return r->kind == RECORD_KEY || r->kind == RECORD_SET || r->kind == RECORD_LOCAL || r->kind == RECORD_GUARDED;
}

/* No visible entry of TARGET is older than the events in (after, upto]; none is there twice. */
static void check_nothing_outlived(const struct attachment *a, uint64_t after, uint64_t upto, bool remote_too, const char *when)
{
    struct candidates c = index_candidates(a, target.hash);
    int visible = 0;
    for (int i = 0; i < CANDIDATE_WORDS; i++) {
        struct entry_ref e;
        uint64_t word = load_acquire(index_word(&c, i));
        if (!word || (word & INDEX_PENDING) || !entry_open(a, word, &e) || e.hash != target.hash)
            continue;
        visible++;
        for (uint64_t s = after + 1; s <= upto; s++) {
            struct record r;
            REQUIRE(ring_read(a, s, &r), "hole at %llu", (unsigned long long)s);
            if (r.source && !remote_too)
                continue;
            REQUIRE(!evicts(a, &r, &e, s) || !entry_valid(a, &e), "%s: an entry of version %llu (%s) is visible after event %llu, kind %d of source %u",
                    when, (unsigned long long)e.version >> 1, e.version & 1 ? "fill" : "set", (unsigned long long)s, (int)r.kind, r.source);
        }
    }
    REQUIRE(visible <= 1, "%s: the key is visible %d times", when, visible);
}

static void check_ring(struct attachment *a)
{
    for (uint64_t s = 1; s <= ring_tail(a); s++) {
        struct record r;
        REQUIRE(ring_read(a, s, &r), "hole at %llu of %llu", (unsigned long long)s, (unsigned long long)ring_tail(a));
        uint64_t fence = r.kind == RECORD_TAG ? tag_fence_of(a, r.hash) : r.kind == RECORD_CLEAR || r.kind == RECORD_ALL ? clear_of(a, false)
                                                                                                                  : fence_of(a, r.hash);
        REQUIRE(fence >= s, "the fence of record %llu is %llu", (unsigned long long)s, (unsigned long long)fence);
    }
}

static uint64_t number_read(struct attachment *a)
{
    uint32_t bytes;
    return read_value(a, &target, buffer, &bytes) ? value_number(buffer, bytes, TARGET) : 0;
}

/* Nobody here lives but us: nothing may be left of the others. */
static void check_swept(struct attachment *a)
{
    roster_sweep(a);
    for (uint32_t i = 0; i < a->geo.roster_slots; i++) {
        struct roster_slot *slot = &a->roster[i];
        if (i == a->slot)
            continue;
        REQUIRE((load_acquire(&slot->word) & ROSTER_STATE_MASK) == SLOT_FREE, "slot %u is still taken", i);
        REQUIRE(!load_acquire(&slot->verb_hash) && !load_acquire(&slot->overflow), "slot %u still owes", i);
        for (int n = 0; n < INTENTS_PER_SLOT; n++)
            REQUIRE(!load_acquire(&slot->intents[n]), "slot %u still has an intent", i);
    }
    for (uint32_t page = 0; page < a->geo.page_count; page++) {
        uint64_t word = load_acquire(&a->page_table[page].word);
        bool held = page_state(word) == PAGE_OPEN || page_state(word) == PAGE_DRAIN;
        REQUIRE(!held || page_owner(word) == a->slot, "page %u is held by slot %u", page, page_owner(word));
    }
}

static void check_verbs_work(struct attachment *a)
{
    struct write w = target_write(20, 100);
    REQUIRE(cache_set(a, &w) == STORED && number_read(a) == 20, "set does not work");
    cache_delete(a, target.hash);
    REQUIRE(number_read(a) == 0, "delete does not work");
    w = target_write(21, 100);
    REQUIRE(cache_fill(a, &w, ring_tail(a), FROZEN_MS) == STORED && number_read(a) == 21, "fill does not work");
    REQUIRE(cache_touch(a, target.hash, target.text, target.bytes, 9000) && number_read(a) == 21, "touch does not work");
    w = target_write(22, 100);
    REQUIRE(cache_add(a, &w) == STORE_LOST && number_read(a) == 21, "add overwrote: found %llu", (unsigned long long)number_read(a));
    cache_delete_tag(a, TAG);
    REQUIRE(number_read(a) == 0, "delete_tag does not work");
    w = target_write(23, 100);
    REQUIRE(cache_add(a, &w) == STORED && number_read(a) == 23, "add does not work");
    apply_key(a);
    REQUIRE(number_read(a) == 0, "apply does not work");
    REQUIRE(lease_take(a, target.hash) == LEASE_TAKEN, "the lease of a dead process cannot be taken");
    cache_clear(a);
}

/* Does somebody who is dead owe an invalidation of TARGET? */
static bool is_owed(const struct attachment *a)
{
    bool owed = false;
    for (uint32_t i = 0; i < a->geo.roster_slots; i++) {
        struct roster_slot *slot = &a->roster[i];
        if (i == a->slot || (load_acquire(&slot->word) & ROSTER_STATE_MASK) != SLOT_LIVE)
            continue;
        owed |= load_acquire(&slot->verb_hash) == target.hash || load_acquire(&slot->overflow);
        for (int n = 0; n < INTENTS_PER_SLOT; n++)
            owed |= load_acquire(&slot->intents[n]) == target.hash;
    }
    return owed;
}

struct image {
    const unsigned char *bytes;
    uint64_t total;
    bool sweep_first;
};

static void check_image(void *with)
{
    const struct image *image = with;
    struct attachment a;
    int fd = memory_file();
    REQUIRE(write(fd, image->bytes, image->total) == (ssize_t)image->total, "no memory for an image");
    struct segment_config unguarded = config;
    unguarded.has_bridge = false;
    enum attach_result r = segment_attach(&a, fd, &unguarded);
    REQUIRE(r == ATTACHED, "attaching: %d", (int)r);
    a.frozen_ms = FROZEN_MS + 20;
    uint64_t first = number_read(&a), second = number_read(&a);
    REQUIRE(first == second, "flapping: %llu, then %llu", (unsigned long long)first, (unsigned long long)second);
    struct write late = target_write(30, 48); /* loaded before all this: the sweep's announcements must evict it */
    cache_fill(&a, &late, start_token, FROZEN_MS);
    if (image->sweep_first) {
        bool owed = is_owed(&a);
        check_swept(&a);
        REQUIRE(!owed || number_read(&a) == 0, "an owed invalidation was lost");
        check_ring(&a);
        /* A peer's event that its dead bridge did not finish is sent again: that bridge's cursor has not moved. */
        check_nothing_outlived(&a, 0, ring_tail(&a), false, "after the sweep");
    }
    check_verbs_work(&a);
    check_ring(&a);
    check_swept(&a);
    check_nothing_outlived(&a, 0, ring_tail(&a), true, "at the end");
    segment_detach(&a);
}

/* ---- scenes ---- */

struct scene {
    const char *name;
    verb *before, *warm_up, *run;
};

static const struct scene scenes[] = {
    {"set, new", do_nothing, do_nothing, set_1},
    {"set, overwrite", set_1, do_nothing, set_2},
    {"set over a local value", set_1_local, do_nothing, set_2},
    {"set, local, overwrite", set_1, do_nothing, set_local},
    {"set, ttl 0", set_1, do_nothing, set_nothing},
    {"set, turning a page", fill_pages, nearly_full, set_that_turns},
    {"set, large", set_1, do_nothing, set_large},
    {"fill, new", do_nothing, do_nothing, fill_8},
    {"fill, of an old token", do_nothing, do_nothing, fill_late},
    {"fill over an expired value", set_1_expiring_now, do_nothing, fill_8},
    {"late fill over an expired value", set_1_expiring_now, do_nothing, fill_late},
    {"late fill over a value", set_1, do_nothing, fill_late},
    {"add, new", do_nothing, do_nothing, add_7},
    {"add over an expired value", set_1_expiring_now, do_nothing, add_7},
    {"fenced set, new", do_nothing, do_nothing, fenced_10},
    {"fenced set, overwrite", set_1, do_nothing, fenced_10},
    {"delete", set_1, do_nothing, delete_target},
    {"touch", set_1, do_nothing, touch_target},
    {"delete_tag", set_1, do_nothing, delete_tag},
    {"clear", set_1, do_nothing, clear_all},
    {"apply, key", set_1, do_nothing, apply_key},
    {"apply, same digest", set_1, do_nothing, apply_same},
    {"apply, other digest", set_1, do_nothing, apply_different},
    {"apply, tag", set_1, do_nothing, apply_tag},
    {"apply, flush", set_1, do_nothing, apply_all},
    {"writing, opened and settled", set_1, do_nothing, open_writing},
    {"lease", set_1, do_nothing, take_lease},
    {"sweep", leave_a_corpse, do_nothing, sweep},
    {"leave", set_1, nearly_full, leave},
    {"join", set_1, NULL, NULL},
};
enum { SCENES = sizeof scenes / sizeof scenes[0] };

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

static void set_up(const struct scene *s)
{
    file = memory_file();
    config = plain_config(SEGMENT_BYTES);
    config.has_bridge = true;
    attach_to(&here, file, &config);
    here.frozen_ms = FROZEN_MS;
    target = key_named(&here, TARGET);
    other = key_named(&here, OTHER);
    set_other(&here, OTHER, 100);
    s->before(&here);
    start_token = ring_tail(&here);
    here_before = here;
    start_image = malloc(here.geo.total_bytes);
    memcpy(start_image, here.base, here.geo.total_bytes);
}

static void tear_down(void)
{
    begin_run();
    segment_detach(&here);
    close(file);
    free(start_image);
}

/* ---- crash images ---- */

static void check_death(const char *scene, const unsigned char *bytes, uint64_t steps)
{
    for (int sweep_first = 0; sweep_first < 2; sweep_first++) {
        struct image image = {bytes, here.geo.total_bytes, sweep_first};
        REQUIRE(in_child(check_image, &image), "%s: a death after %llu instructions%s", scene, (unsigned long long)steps,
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
    pid_t pid = child_at_verb(s->warm_up, s->run, !s->run);
    memcpy(last, here.base, here.geo.total_bytes);
    while (step(pid)) {
        REQUIRE(++steps < STEPS_MAX, "%s: does not end", s->name);
        if (memcmp(last, here.base, watched) == 0)
            continue;
        memcpy(last, here.base, here.geo.total_bytes);
        if (check)
            check_death(s->name, last, steps);
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
    pid_t pid = child_at_verb(s->warm_up, s->run, false);
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

static bool can_be_interleaved(const struct scene *s)
{
    return s->run && s->run != leave && s->run != sweep && s->run != set_that_turns && s->run != take_lease && s->run != open_writing;
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
    for (int intruder = 0; intruder < INTRUDERS; intruder++) {
        tally(PAIRS);
        for (uint32_t i = 0; i < n && (all_points || seconds_now() < until); i++) {
            uint32_t pick = all_points ? i : chance_below(c, n);
            int who = all_points ? intruder : (int)chance_below(c, INTRUDERS);
            interleave(s, who, points[pick]);
        }
    }
}

static bool can_trace(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 ? 0 : 1);
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void note_digest(void)
{
    struct entry_ref e;
    set_up(&scenes[1]);
    REQUIRE(index_find(&here, target.hash, target.text, target.bytes, &e), "no value");
    digest_of_set_1 = entry_digest(&here, &e);
    tear_down();
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
    note_digest();
    for (int i = 0; i < SCENES; i++) {
        set_up(&scenes[i]);
        uint32_t n = step_through(&scenes[i], points, true);
        if (!all_points)
            interleave_musts(&scenes[i], points, n);
        if (can_be_interleaved(&scenes[i]))
            interleave_scene(&scenes[i], points, n, seconds_now() + each, &c);
        tear_down();
    }
    free(points);
    printf("steps: %d verbs, %llu instructions stepped, %llu crash images, each swept and unswept; %llu interleavings\n", SCENES,
           (unsigned long long)tallied(STEPS), (unsigned long long)tallied(IMAGES), (unsigned long long)tallied(RUNS));
    return 0;
}
