/* torture_steps.c - verbs stepped instruction by instruction: every death, and every interleaving with another verb.
 *
 * A child runs one verb under ptrace. The memory of the segment is watched after every instruction.
 *
 * Crash images: wherever the segment changed, a copy of it is taken, and a fresh process attaches to the copy as if the
 * child (and everybody else) had died there. Every verb works at once, nothing torn, stale or flapping is read, the ring
 * has no hole, no fence is behind, the sweep gives slot, pages and debts back, and healing evicts what is older than a record.
 *
 * Readers: a reader is stopped while its page, or the page of a span of its value, begins another life. It goes on, and
 * finds the old value, or nothing. If a span was carried to another page before, the value is found whole, and an add
 * leaves it.
 *
 * Carried entries: a verb that evicts is stopped while the entry moves to another page, and its old page begins another
 * life. The verb goes on, and finds the entry in its new page.
 *
 * Answers: an add, or a first incr, is stopped while another process does the same, or heals. As many adds say "stored" as
 * there was no value, and both incrs are counted. A sweep is stopped, and another one announces what dead processes owe.
 *
 * Interleavings: the child is stopped at a point, another process runs a whole verb on the same key, and the child goes on
 * to its end. Then no entry may be visible that a later event of its key should have evicted. From the stop on, after every
 * store of the child, no entry may be visible that the other process's verb should have evicted, since that verb has returned.
 * (This finds what racing does not: races of three or four instructions.)
 *
 * Points: images where anything but value bytes and doubts changed (a map, and a flush, raise 512 doubts, each of which would
 * be a point; what they promise is the simulator's); interleavings just before and just after each such change: all
 * of them for some pairs of verbs, a random sample of the others within the seconds given. `torture_steps N all`: all.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   superseded without its fence check   0.3        a new word visible at once          1.2
 *   a set's loser does not kill          2.8        an overwrite that is never pending  3.3
 *   the write under way not announced    0.9        intents not announced               17
 *   a helper raises no fence             4.7        nobody helps (hangs)                20
 *   kill_lower without its second try    12         an entry moved by a store           19
 *   a word that is found is not looked   0.1        a span's page is not looked at      0.6
 *     at again                                        again after the copy
 *   healing heals nothing                37             a scan that kills passes over an    3
 *                                                         entry that is just carried on
 *   spans of a value looked at once      4          an add that finds a span on the move     4
 *                                                     evicts the value
 *   a joiner forgets what the dead one   71
 *     owed, announcing nothing
 *   of a map, one record alone           33             its records conflict with no key    25
 *     or eviction up to the first of two   34           its eviction passes over an entry   18
 *                                                         that is just carried on
 *
 *   an add that is withdrawn gives up    7              a full bucket gives up a word     10
 *   a late helper removes what is newer  13               of the same key
 *   a peer's event withdraws a local     5
 *     set
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

enum { POINTS_MAX = 1 << 16, STEPS_IN_CHECK = 20000 /* of a verb, from its first change on; `all` has no such bound */ };

static bool all_points;
static double began;

static const struct {
    const char *name;
    verb *run;
} intruders[] = {
    {"set", set_2},           {"local set", set_local},  {"ttl 0", set_nothing},       {"add", add_7},
    {"fill", fill_8},         {"late fill", fill_late},  {"delete", delete_target},    {"touch", touch_target},
    {"slide", slide},
    {"delete_tag", delete_tag}, {"clear", clear_all},    {"apply key", apply_key},     {"apply same digest", apply_same},
    {"apply other digest", apply_different}, {"apply flush", apply_all}, {"apply a bucket", apply_bucket}, {"fenced set", fenced_10},
    {"page turns", fill_pages}, {"heal", heal},
};
enum { INTRUDERS = sizeof intruders / sizeof intruders[0] };

/* ---- crash images ---- */

static void check_images(const struct scene *s, const unsigned char *bytes, uint64_t steps)
{
    static const char *const then[FIRSTS] = {[VERBS_FIRST] = "", [SWEEP_FIRST] = ", swept", [HEAL_FIRST] = ", healed"};
    for (int first = 0; first < FIRSTS; first++) {
        struct death death = {bytes, here.geo.total_bytes, (enum first)first, s->owes};
        REQUIRE(in_child(check_death, &death), "%s: a death after %llu instructions%s", s->name, (unsigned long long)steps, then[first]);
    }
    tally(IMAGES);
}

static bool changed_since(const unsigned char *last)
{
    uint64_t doubts = here.geo.doubts_at, after = doubts + (sizeof(a64) << INTENT_BUCKET_BITS);
    /* The value bytes behind pages_at count once a word names them. */
    return memcmp(last, here.base, doubts) != 0 || memcmp(last + after, here.base + after, here.geo.pages_at - after) != 0;
}

/* Run the verb once; at every change check its death, and note the points. Returns their number. */
static uint32_t step_through(const struct scene *s, uint32_t *points, bool check)
{
    unsigned char *last = malloc(here.geo.total_bytes);
    uint32_t n = 0, steps = 0, first = 0;
    begin_run();
    pid_t pid = child_at_verb(s);
    memcpy(last, here.base, here.geo.total_bytes);
    while (step(pid)) {
        REQUIRE(++steps < STEPS_MAX, "%s: does not end", s->name);
        if (!all_points && n > 0 && steps - first > STEPS_IN_CHECK)
            break;
        if (!changed_since(last))
            continue;
        memcpy(last, here.base, here.geo.total_bytes);
        first = n == 0 ? steps : first;
        if (check)
            check_images(s, last, steps);
        if (n + 2 < POINTS_MAX)
            points[n++] = steps - 1, points[n++] = steps;
    }
    end_child(pid);
    free(last);
    REQUIRE(n > 0 || !s->owes, "%s: nothing changes", s->name);
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
    bool running = step_to(pid, point);
    uint64_t before = ring_tail(&here);
    intruders[intruder].run(&here);
    /* While we ran nobody else did: the last record is ours if there is one (one of the child's may be below it). */
    uint64_t after = ring_tail(&here);
    struct record last = {.kind = RECORD_ADD};
    bool returned_event = after > before && intruders[intruder].run != fill_pages && ring_read(&here, after, &last) && last.kind != RECORD_ADD;
    if (returned_event)
        check_nothing_outlived(&here, after - 1, after, true, when);
    /* Of what an event may spare, what follows each store is looked at; of the rest, the end. */
    for (bool first = true; running && returned_event && may_spare(intruders[intruder].run); first = false) {
        running = step_to_store(pid, first);
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

/* ---- readers whom a page leaves under way ---- */

static uint64_t *seen_by_reader; /* shared; 0: a miss */
static bool may_miss;            /* what happened to the value may have evicted it */
enum { READ_POINTS = 64, LOOK_POINTS = 128, CARRY_POINTS = 128 };

struct reader {
    bool (*look)(struct attachment *a); /* is TARGET's value found? */
    unsigned char bytes[VALUE_BYTES_LIMIT];
    uint32_t n; /* bytes that read_once has read */
};
static struct reader reader;

static bool read_once(struct attachment *a) { return read_value(a, &target, reader.bytes, &reader.n); }

static bool look_for_spans(struct attachment *a)
{
    struct entry_ref e;
    return index_find(a, target.hash, target.text, target.bytes, &e) && pages_hold_spans(a, &e);
}

static bool add_once(struct attachment *a)
{
    struct write w = target_write(7, 48);
    return cache_add(a, &w) == STORE_LOST;
}

static void run_reader(void *number)
{
    static struct attachment a;
    REQUIRE(segment_attach(&a, reopened(scene_file), &scene_config) == ATTACHED, "the reader cannot attach");
    a.frozen_ms = here.frozen_ms;
    raise(SIGSTOP);
    bool found = reader.look(&a);
    raise(SIGSTOP);
    *seen_by_reader = found ? *(const uint64_t *)number : 0;
    if (found && reader.look == read_once)
        *seen_by_reader = value_number(reader.bytes, reader.n, TARGET);
    raise(SIGSTOP);
}

static void find_target(struct entry_ref *e)
{
    REQUIRE(index_find(&here, target.hash, target.text, target.bytes, e), "no value");
}

/* What 2,048 turns of TARGET's page may have made of it, by chance: its word is gone, and where it pointed, in a life of
 * the page whose 11 bits are the same, lies a value of the key that was deleted long ago. */
static void turn_2048_times(void)
{
    static unsigned char dead[64];
    struct entry_ref e;
    find_target(&e);
    a64 *page = &here.page_words[e.place.page];
    store_release(page, load_relaxed(page) + ((INDEX_GEN_BITS + 1) << PAGE_GEN_SHIFT));
    racing_write((a64 *)entry_value(&e), dead, value_make(dead, TARGET, 99, e.value_bytes));
    store_release(e.word_at, 0);
}

/* The page of the first span begins a new life; the entry's own page does not. */
static void turn_the_page_of_a_span(void)
{
    static const unsigned char other_bytes[PAGE_BYTES_MAX / SPANS_PER_PAGE];
    struct entry_ref e;
    find_target(&e);
    uint64_t span = load_relaxed(entry_value(&e));
    uint32_t page = span_page(span), off = span_off(span);
    REQUIRE(page != e.place.page, "the span is in its entry's page");
    a64 *word = &here.page_words[page];
    store_release(word, load_relaxed(word) + (1ull << PAGE_GEN_SHIFT));
    racing_write(page_at(&here, page, off) + ENTRY_HEADER_WORDS, other_bytes, here.span_bytes);
}

/* A reader is stopped on its way, `turn` happens, it goes on: it reads what was there, or nothing. */
static void check_reader(bool (*look)(struct attachment *), verb *before, void (*turn)(void), uint64_t number)
{
    struct scene s = {"a reader", before, do_nothing, NULL};
    uint32_t length = 0;
    reader.look = look;
    set_up(&s);
    pid_t pid = traced_child(run_reader, &number);
    while (step(pid))
        length++;
    resume(pid, PTRACE_CONT);
    end_child(pid);
    REQUIRE(*seen_by_reader == number, "the reader finds %llu", (unsigned long long)*seen_by_reader);
    /* Most of a read is the copy; who only looks at spans does so last. */
    uint32_t each = all_points || look != read_once || length < READ_POINTS ? 1 : length / READ_POINTS;
    uint32_t begin = all_points || look == read_once || length < LOOK_POINTS ? 0 : length - LOOK_POINTS;
    for (uint32_t point = begin; point < length; point += each) {
        begin_run();
        pid = traced_child(run_reader, &number);
        step_to(pid, point);
        may_miss = true;
        turn();
        for (int stops = 0; stops < 2; stops++) /* it has read; it has looked at what it read */
            resume(pid, PTRACE_CONT);
        uint64_t seen = *seen_by_reader;
        REQUIRE((seen == 0 && may_miss) || seen == number, "stopped after %u of %u instructions while its page turned, a reader finds %llu", point,
                length, (unsigned long long)seen);
        REQUIRE(may_miss || number_read(&here) == number, "stopped after %u of %u instructions, a reader has evicted the value", point, length);
        end_child(pid);
        tally(RUNS);
    }
    tear_down();
}

static void set_large_at_the_end_of_a_page(struct attachment *a)
{
    const struct open_page *open = &a->open[QUEUE_SMALL];
    while (open->page == NO_PAGE || a->geo.page_bytes - open->off >= a->geo.page_bytes / SPANS_PER_PAGE + 64)
        fill_a_little(a);
    set_large(a);
}

/* The first span is carried to another page, and the one that it leaves begins a new life: as eviction does it. */
static void carry_a_span_on(void)
{
    static const unsigned char other_bytes[PAGE_BYTES_MAX / SPANS_PER_PAGE];
    struct entry_ref e;
    struct place to;
    find_target(&e);
    a64 *at = (a64 *)entry_value(&e);
    uint64_t span = load_relaxed(at);
    uint32_t page = span_page(span), bytes = entry_bytes(0, 0, here.span_bytes);
    REQUIRE(evict_make_room(&here, bytes, &to) && to.page != page, "no room elsewhere");
    for (uint32_t i = 0; i < bytes / 8; i++)
        store_relaxed(&page_at(&here, to.page, to.off)[i], load_relaxed(&page_at(&here, page, span_off(span))[i]));
    pages_commit(&here, &to, bytes, 0, 0);
    store_release(at, span_word(&to));
    a64 *word = &here.page_words[page];
    store_release(word, load_relaxed(word) + (1ull << PAGE_GEN_SHIFT));
    racing_write(page_at(&here, page, span_off(span)) + ENTRY_HEADER_WORDS, other_bytes, here.span_bytes);
    may_miss = false;
}

/* Its spans and its entry in a page that is closed: what is carried on goes elsewhere. */
static void set_large_and_seal(struct attachment *a)
{
    set_large_at_the_end_of_a_page(a);
    pages_seal_open(a, QUEUE_SMALL);
}

static void check_readers(void)
{
    seen_by_reader = shared_zeroes(sizeof *seen_by_reader);
    check_reader(read_once, set_1, turn_2048_times, 1);
    check_reader(read_once, set_large_at_the_end_of_a_page, turn_the_page_of_a_span, 3);
    check_reader(read_once, set_large_and_seal, carry_a_span_on, 3);
    check_reader(look_for_spans, set_large_and_seal, carry_a_span_on, 3);
    check_reader(add_once, set_large_and_seal, carry_a_span_on, 3);
}

/* ---- verbs under whose eyes an entry is carried on ---- */

static bool target_is_at(struct entry_ref *e)
{
    return index_find(&here, target.hash, target.text, target.bytes, e);
}

/* Something that goes into the main queue, so that what is there must go round. */
static void fill_proven(struct attachment *a, uint32_t key)
{
    static unsigned char bytes[VALUE_BYTES_LIMIT];
    struct named_key k = key_named(a, key);
    uint32_t n;
    fill_other(a, key, a->span_bytes);
    for (int i = 0; i < 3; i++)
        read_value(a, &k, bytes, &n);
}

/* TARGET's entry moves to another page as it is, and the page it was in begins another life: the last spare one does so
 * when there is no other. */
static void carry_target_on(void)
{
    struct entry_ref at, now;
    if (!target_is_at(&at))
        return;
    const a64 *page = &here.page_words[at.place.page];
    for (uint32_t i = 0; target_is_at(&now) && (now.place.page == at.place.page || page_state(load_relaxed(page)) == PAGE_DRAIN); i++) {
        REQUIRE(i < 8 * here.geo.page_count * SPANS_PER_PAGE, "TARGET's page does not turn");
        fill_proven(&here, 5000 + i);
        number_read(&here);
    }
    do
        pages_seal_open(&here, QUEUE_SMALL);
    while (pages_open_spare(&here, QUEUE_SMALL) && page_generation(load_relaxed(page)) == at.place.generation);
    if (!target_is_at(&now) || page_generation(load_relaxed(page)) == at.place.generation)
        return;
    tally(CARRIED);
    if (watermark_bytes(&here, load_relaxed(&here.page_notes[at.place.page].watermark)) <= at.place.off) /* as whoever writes there next */
        store_relaxed(page_at(&here, at.place.page, at.place.off), ~target.hash), store_relaxed((a64 *)entry_key(&at), ~target.hash);
}

/* Pages full, TARGET's being drained, and worth keeping. */
static void age_target(struct attachment *a)
{
    struct entry_ref at;
    set_1(a);
    REQUIRE(target_is_at(&at), "no value");
    for (uint32_t i = 0; page_state(load_relaxed(&a->page_words[at.place.page])) != PAGE_DRAIN; i++) {
        fill_proven(a, 100 + i);
        number_read(a);
    }
}

/* Stopped after any instruction between its record, if it appends one, and the old value's end, it goes on when the entry that it came for is
 * elsewhere, and finds it there. (The places where it matters are two or three instructions wide.) */
static void check_carried(const char *name, verb *warm_up, verb *run)
{
    struct scene s = {name, age_target, warm_up, run};
    struct entry_ref e;
    char when[160];
    uint32_t first = 0, last = 0, steps = 0;
    set_up(&s);
    pid_t pid = child_at_verb(&s);
    uint64_t tail = ring_tail(&here);
    while (step(pid) && target_is_at(&e) && e.version >> 1 <= start_token) {
        last = ++steps;
        first = ring_tail(&here) == tail ? last : first;
    }
    end_child(pid);
    first = first == last ? 0 : first; /* it appends none */
    uint32_t each = all_points || last - first < CARRY_POINTS ? 1 : (last - first) / CARRY_POINTS;
    for (uint32_t point = first; point <= last; point += each) {
        begin_run();
        pid = child_at_verb(&s);
        step_to(pid, point);
        carry_target_on();
        REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP, "%s: the stepped child got a signal", name);
        snprintf(when, sizeof when, "%s, stopped after %u instructions while the entry was carried on", name, point);
        check_nothing_outlived(&here, 0, ring_tail(&here), true, when);
        end_child(pid);
        tally(RUNS);
    }
    REQUIRE(tallied(CARRIED), "%s: nothing was carried on", name);
    tear_down();
}

/* ---- a page that is drained while somebody finishes what a dead process left pending in it ---- */

enum { FILLS_MAX = 100000, HELP_WINDOW = 80 };

/* It stops after each fill. */
static void fill_on(struct attachment *a)
{
    for (uint32_t i = 0;; i++) {
        fill_proven(a, 7000 + i);
        raise(SIGSTOP);
    }
}

static const struct scene draining = {"a page that is drained", do_nothing, age_target, fill_on};

struct drained { /* TARGET's entry, pending, in a page that the child drains */
    a64 *at;
    const a64 *page;
    uint64_t pending, life;
};

static pid_t child_that_drains(struct drained *d)
{
    struct entry_ref e;
    begin_run();
    pid_t pid = child_at_verb(&draining);
    find_target(&e);
    *d = (struct drained){e.word_at, e.page_word_at, e.word | INDEX_PENDING, e.place.generation};
    store_release(e.word_at, d->pending);
    return pid;
}

/* How many fills come before the one that takes the pending word away, and after how many instructions of that it is gone. */
static uint32_t find_the_moment(uint32_t *fills)
{
    struct drained d;
    pid_t pid = child_that_drains(&d);
    for (*fills = 0; load_acquire(d.at) == d.pending; ++*fills) {
        REQUIRE(*fills < FILLS_MAX, "TARGET's page is not drained");
        resume(pid, PTRACE_CONT);
    }
    end_child(pid);
    pid = child_that_drains(&d);
    for (uint32_t n = 1; n < *fills; n++)
        resume(pid, PTRACE_CONT);
    uint32_t steps = 0;
    for (; load_acquire(d.at) == d.pending; steps++)
        REQUIRE(step(pid), "the word was not taken away");
    end_child(pid);
    return steps;
}

/* The word is made visible after so many instructions of that fill; then the page begins another life. */
static void help_after(uint32_t fills, uint32_t instructions)
{
    struct drained d;
    pid_t pid = child_that_drains(&d);
    for (uint32_t n = 1; n < fills; n++)
        resume(pid, PTRACE_CONT);
    step_to(pid, instructions);
    uint64_t seen = d.pending, visible = d.pending & ~INDEX_PENDING;
    bool helped = cas(d.at, &seen, visible);
    for (uint32_t n = 0; page_generation(load_acquire(d.page)) == d.life; n++) {
        REQUIRE(n < FILLS_MAX, "TARGET's page begins no other life");
        resume(pid, PTRACE_CONT);
    }
    REQUIRE(!helped || (load_acquire(d.at) & INDEX_IDENTITY) != (visible & INDEX_IDENTITY),
            "a word made visible after %u instructions names a page in another life", instructions);
    end_child(pid);
    tally(RUNS);
}

static void check_helped(void)
{
    uint32_t fills, gone;
    set_up(&draining);
    gone = find_the_moment(&fills);
    for (uint32_t back = 1; back <= HELP_WINDOW && back <= gone; back += all_points ? 1 : 3)
        help_after(fills, gone - back);
    tear_down();
}

/* ---- what add and incr answer ---- */

/* After so many instructions of the verb, another process runs a whole one. */
static void stop_for(const struct scene *s, uint32_t point, verb *run)
{
    begin_run();
    pid_t pid = child_at_verb(s);
    bool running = step_to(pid, point);
    run(&here);
    if (running)
        REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP, "%s: the stepped child got a signal", s->name);
    end_child(pid);
    tally(RUNS);
}

/* Of two adds as many say stored as the key had no value before, and that value stays. */
static void check_adds(const char *name, verb *before, uint64_t wins, uint64_t left)
{
    struct scene s = {name, before, have_a_page, add_7};
    uint32_t *points = malloc(POINTS_MAX * sizeof *points);
    set_up(&s);
    uint32_t n = step_through(&s, points, false);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t won = tallied(ADDED);
        stop_for(&s, points[i], add_13);
        won = tallied(ADDED) - won;
        uint64_t number = number_read(&here);
        REQUIRE(won == wins, "add, %s, stopped after %u instructions for an add: %llu say stored", name, points[i], (unsigned long long)won);
        REQUIRE(left ? number == left : number == 7 || number == 13, "add, %s, stopped after %u instructions for an add: value %llu is there", name,
                points[i], (unsigned long long)number);
    }
    tear_down();
    free(points);
}

static void delete_and_add(struct attachment *a) { delete_target(a), add_7(a); }

enum { HELPED_EACH = 7 };

/* What another process's whole verb leaves of one that it interrupts: the value, and how many adds say stored. */
static void check_survives(const char *name, verb *before, verb *interrupted, verb *run, uint64_t left, uint64_t wins)
{
    struct scene s = {name, before, have_a_page, interrupted};
    uint32_t *points = malloc(POINTS_MAX * sizeof *points);
    set_up(&s);
    uint32_t n = step_through(&s, points, false);
    if (run == delete_and_add) /* what a helper rests on lies between its changes */
        for (uint32_t last = points[n - 1], first = points[0], i = n = 0; first + i * HELPED_EACH < last && n < POINTS_MAX; i++)
            points[n++] = first + i * HELPED_EACH;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t won = tallied(ADDED);
        stop_for(&s, points[i], run);
        won = tallied(ADDED) - won;
        uint64_t number = number_read(&here);
        REQUIRE(won == wins && (number == left || (run == delete_target && !number)), "%s, stopped after %u instructions: value %llu is there, %llu adds say stored",
                name, points[i], (unsigned long long)number, (unsigned long long)won);
    }
    tear_down();
    free(points);
}

static void count_and_heal(struct attachment *a) { count_up(a), heal(a); }
static void heal_and_count(struct attachment *a) { heal(a), count_up(a); }

/* Of two calls that begin a counter both are counted, though a bridge heals meanwhile. */
static void check_counts(verb *before, verb *run)
{
    struct scene s = {"incr, begun", before, have_a_page, count_up, .bytes = SCENE_BYTES_LARGE};
    uint32_t *points = malloc(POINTS_MAX * sizeof *points);
    set_up(&s);
    uint32_t n = step_through(&s, points, false);
    for (uint32_t i = 0; i < n; i++) {
        stop_for(&s, points[i], run);
        heal(&here);
        REQUIRE(counted(&here) == COUNT_BEFORE + 1, "incr, stopped after %u instructions for another: a count of %lld", points[i],
                (long long)counted(&here));
    }
    tear_down();
    free(points);
}

static void check_answers(void)
{
    check_adds("nothing there", do_nothing, 1, 0);
    check_adds("a value that expired", set_1_expiring_now, 1, 0);
    check_adds("a set pending", set_1_pending, 0, 1);
    check_adds("an add pending", add_7_pending, 0, 7);
    check_survives("add, for a delete", do_nothing, add_7, delete_target, 7, 1);
    check_survives("add, helping, for a delete and an add", set_1_pending, add_13, delete_and_add, 7, 1);
    check_survives("a local set, for a peer's event", do_nothing, set_local, apply_key, 4, 0);
    check_counts(do_nothing, count_and_heal);
    check_counts(do_nothing, heal_and_count);
    check_counts(fill_counters_buckets, count_up);
}

/* ---- sweepers that are stopped ---- */

/* Who sweeps, or joins in the place of a dead one, is stopped on its way: another sweep pays the debt all the same, and what the
 * stopped one does when it goes on takes nothing from the living. */
static void check_stopped(const struct scene *s, const uint32_t *points, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 2) { /* just before each change */
        begin_run();
        pid_t pid = child_at_verb(s);
        bool running = step_to(pid, points[i]);
        recovery_sweep(&here);
        REQUIRE(number_read(&here) == 0, "%s, stopped after %u instructions: what is owed is not paid", s->name, points[i]);
        nearly_full(&here);
        if (running)
            REQUIRE(resume(pid, PTRACE_CONT) == SIGSTOP, "%s: the stepped child got a signal", s->name);
        for (int q = 0; q < OPENS; q++)
            REQUIRE(here.open[q].page == NO_PAGE || load_relaxed(&here.page_words[here.open[q].page]) == here.open[q].word,
                    "%s, stopped after %u instructions, has taken a page of a living process", s->name, points[i]);
        check_ring(&here);
        end_child(pid);
        check_swept(&here);
        tally(RUNS);
    }
}

/* Pairs that take different ways through index.c and relay.c; each of their points is tried in every run. */
static const struct {
    verb *run, *before, *intruder;
} musts[] = {
    {set_1, do_nothing, delete_target},      {set_1, do_nothing, apply_key},          {set_2, set_1, apply_same},
    {set_2, set_1_local, apply_key},         {fill_late, set_1_expiring_now, apply_same}, {fill_8, do_nothing, delete_target},
    {fenced_10, set_1, delete_tag},          {touch_target, set_1, delete_target},    {add_7, do_nothing, add_7},
    {apply_same, set_1, set_2},              {apply_bucket, set_1, fenced_10},        {fenced_10, set_1, apply_bucket},
    {slide, do_nothing, set_2},              {slide, do_nothing, delete_target},      {slide, do_nothing, apply_key},
    {apply_bucket, set_1, fill_late},        {apply_bucket, set_1, touch_target},     {fill_late, set_1_expiring_now, apply_bucket},
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

/* How far `all` is, and how fast. */
static void say_progress(int scene, uint32_t points)
{
    printf("steps: %2d of %d verbs after %.0f s: %s, %u points; %llu instructions, %llu stores, %llu images, %llu interleavings so far\n", scene + 1,
           SCENES, seconds_now() - began, scenes[scene].name, points, (unsigned long long)tallied(STEPS),
           (unsigned long long)tallied(STORES), (unsigned long long)tallied(IMAGES), (unsigned long long)tallied(RUNS));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_steps");
    all_points = argc > 2 && strcmp(argv[2], "all") == 0;
    alarm(all_points ? 0 : (unsigned)torture.seconds * 4 + 900);
    if (!can_trace()) {
        printf("steps: SKIPPED, ptrace is forbidden here\n");
        return 0;
    }
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    uint32_t *points = malloc(POINTS_MAX * sizeof *points);
    double each = torture.seconds / SCENES;
    began = seconds_now();
    note_digest();
    check_readers();
    check_helped();
    check_answers();
    check_carried("a look-up", do_nothing, find_target_there);
    check_carried("delete", have_a_page, delete_target);
    check_carried("apply, key", have_a_page, apply_key);
    check_carried("apply, other digest", have_a_page, apply_different);
    check_carried("set", have_a_page, set_2);
    check_carried("apply, a bucket", raise_bucket, evict_bucket);
    for (int i = 0; i < SCENES; i++) {
        set_up(&scenes[i]);
        uint32_t n = step_through(&scenes[i], points, true);
        if (!all_points)
            interleave_musts(&scenes[i], points, n);
        if (scenes[i].owes && (scenes[i].run == sweep || !scenes[i].run))
            check_stopped(&scenes[i], points, n);
        if (!scenes[i].alone)
            interleave_scene(&scenes[i], points, n, seconds_now() + each, &c);
        tear_down();
        if (all_points)
            say_progress(i, n);
    }
    free(points);
    printf("steps: %d verbs, %llu instructions and %llu stores stepped, %llu crash images, each also swept and healed; %llu interleavings\n",
           SCENES, (unsigned long long)tallied(STEPS), (unsigned long long)tallied(STORES), (unsigned long long)tallied(IMAGES), (unsigned long long)tallied(RUNS));
    return 0;
}
