/* torture_corrupt.c - wrong bytes under live processes: a reader, a writer, a bridge, and one that attaches and leaves.
 *
 * A segment lives for a moment. While its processes work, another one, the corruptor, writes into it: single bits, bytes,
 * words, zeros, words from elsewhere, and words that look right (an index word of an existing page, a page word of another
 * owner, a ring slot of the lap before). In each life it writes into one region, or into all of them.
 *
 *   No process crashes. Every attachment's mapping lies between two gibibytes that must not be touched.
 *   No verb hangs: at the end of a life, the corruptor waits until every process has returned from its verb.
 *   A value that is read is whole, unless bytes of the pages themselves were hit: values are not checksummed.
 *   A process that attaches gets a working segment or a clear result, and the file keeps its size.
 *   After a sweep, the segment either serves every new key or is retired: it does not miss for ever.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   an index word's page unbounded      0.4      the hand over the page table unbounded   0.1
 *   an entry's length unbounded         6.5      the slots ever used unbounded            0.1
 *   a span word's page unbounded        1.8      a lease's slot unbounded                 1.2
 *   the same where it is only looked at 0.4      a file in use is cut to begin anew       0.8
 *   a span's offset unbounded           13       a fence ahead of the ring is believed    1.1
 *   a page given away is written on     17+      a damaged header is not noticed          1.8
 *   a sweep put off for ever            0.7      a sealed page's watermark is believed    10
 *   a tail whose upper bits are garbage is appended to                                60
 *
 * Not caught, since a second bound holds: lengths of key and tags (the entry's), the watermark (the entry's), a slot
 * whose lock byte is looked at (it is a name), the ring's laps (its tries), a header's counts (they follow from its size).
 *
 *   torture_corrupt [seconds]                     as many corruptions as fit
 *   torture_corrupt 0 until [corruptions]         so many
 */
#include "census.h"
#include "relay_buckets.h"
#include "torture.h"

#include "peers.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SEGMENT_BYTES = 1 << 20, KEYS = 120, ROLES = 4, LOG = 16, HANG_S = 20, BURSTS_MAX = 60, BURST_MAX = 32, LATER_KEYS = 64 };
enum { CORRUPTIONS, LIVES, VERBS, HITS, FOREIGN, RETIRED, REFUSED, ATTACHES };
static const size_t GUARD_BYTES = (size_t)1 << 30;
static const double LOOK_S_MAX = .01;

static struct model {
    a64 over;                /* this life ends */
    a64 value_bytes_hit;     /* some byte of the pages was written by the corruptor in this life */
    a64 verbs[ROLES], verb[ROLES], ready;
} *model;

static int file;
static struct attachment target; /* the corruptor's own view: where what lies */
static unsigned char value[VALUE_BYTES_LIMIT], out[SPANS_MAX * (PAGE_BYTES_MAX / SPANS_PER_PAGE)];

static struct segment_config with_prewarm(void)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    config.prewarms = true;
    config.prewarm_weight = 3;
    return config;
}

/* ---- what to write where ---- */

enum region {
    HEADER, ROSTER, INTENTS, RANGE_FENCES, DOUBTS, JOURNAL, DUES, SOURCES, LEASES, LOCKS, TALLIES, RING, FENCES, OWN_WRITES, TAG_FENCES, OWN_TAGS,
    INDEX, PAGE_WORDS, PAGE_NOTES, SKETCH, GHOST, PREWARM, RECORDS, MAILBOX, PAGES, REGIONS
};
static const char *const region_names[] = {"header", "roster", "intents", "range fences", "doubts", "journal", "dues", "sources", "leases", "locks", "tallies", "ring", "fences",
                                           "own writes", "tag fences", "own tags", "index", "page words", "page notes", "sketch", "ghost", "prewarm", "records", "mailbox", "pages", "all regions"};

static struct {
    enum region region;
    uint64_t at, before, after;
} last[LOG];
static uint64_t written;

static uint64_t region_at(enum region r)
{
    const struct geometry *g = &target.geo;
    const uint64_t at[] = {0,                g->roster_at,   g->intents_at, g->range_fences_at, g->doubts_at, g->journal_at, g->dues_at, g->sources_at, g->leases_at, g->locks_at, g->tallies_at,
                           g->ring_at,       g->fences_at,   g->own_writes_at,
                           g->tag_fences_at, g->own_tags_at, g->index_at, g->page_words_at, g->page_notes_at, g->sketch_at, g->ghost_at,
                           g->prewarm_at, g->prewarm_records_at, g->prewarm_mail_at, g->pages_at,      g->total_bytes};
    _Static_assert(sizeof at / sizeof at[0] == REGIONS + 1, "every region of layout.h, and the end");
    return at[r];
}

static a64 *word_at(uint64_t at) { return (a64 *)(void *)(target.base + (at & ~7ull)); }

static a64 *anywhere_in(enum region r, struct chance *c)
{
    uint64_t low = region_at(r), high = region_at(r + 1);
    return word_at(low + chance_next(c) % (high - low));
}

static bool at_span_word; /* what in_an_entry found last */

/* A word of an entry that an index word names: a span word if there is an entry of spans, else one of its header words,
 * tags, key, the first of its value. */
static a64 *in_an_entry(struct chance *c)
{
    uint64_t first = chance_next(c), words = (uint64_t)target.geo.bucket_count * BUCKET_WORDS;
    bool spans = at_span_word = chance_below(c, 3) == 0;
    for (uint64_t i = 0; i < words; i++) {
        struct entry_ref e;
        uint64_t word = load_relaxed(&target.index[(first + i) % words]);
        if (!word || !entry_open(&target, word, &e) || (spans && !(entry_spans(&e) && e.value_bytes)))
            continue;
        return spans ? (a64 *)entry_value(&e) + chance_below(c, span_count(&target, e.value_bytes))
                     : page_at(&target, e.place.page, e.place.off + chance_below(c, 12) * 8 % (target.geo.page_bytes - e.place.off));
    }
    at_span_word = false;
    return anywhere_in(PAGES, c);
}

/* Where it hurts: words in use rather than any. */
static a64 *somewhere_in(enum region r, struct chance *c)
{
    static const size_t words[] = {
        offsetof(struct header, magic), offsetof(struct header, fingerprint), offsetof(struct header, total_bytes),
        offsetof(struct header, hash_key), offsetof(struct header, roster_slots), offsetof(struct header, lease_slots),
        offsetof(struct header, tag_slots), offsetof(struct header, page_count), offsetof(struct header, state),
        offsetof(struct header, incarnation), offsetof(struct header, ring_tail), offsetof(struct header, clear_own),
        offsetof(struct header, clear_remote), offsetof(struct header, ranges_moved), offsetof(struct header, page_stamp), offsetof(struct header, serve_until_ms),
        offsetof(struct header, pump_cursor), offsetof(struct header, guard_next), offsetof(struct header, sweep_at_ms),
        offsetof(struct header, roster_high), offsetof(struct header, doorbell),
    };
    if (chance_below(c, 4) == 0)
        return anywhere_in(r, c);
    switch (r) {
    case HEADER:
        return word_at(words[chance_below(c, sizeof words / sizeof words[0])]);
    case ROSTER:
        return (a64 *)&target.roster[chance_below(c, ROLES + 4)] + chance_below(c, sizeof(struct roster_slot) / 8);
    case RING:
        return &target.ring[(ring_tail(&target) + chance_below(c, 8) - 4) & target.ring_mask].meta + chance_below(c, 2);
    case PAGES:
        return in_an_entry(c);
    default:
        return anywhere_in(r, c);
    }
}

/* A word that could be one of this region. */
static uint64_t likely_word(enum region r, uint64_t word, struct chance *c)
{
    uint32_t page = chance_below(c, target.geo.page_count);
    uint64_t generation = page_generation(load_relaxed(&target.page_words[page]));
    switch (r) {
    case INDEX:
        return (word & INDEX_TAG_MASK) | word_of_place(&(struct place){page, chance_below(c, target.geo.page_bytes / ENTRY_UNIT) * ENTRY_UNIT, generation}, 0) |
               chance_below(c, 8);
    case PAGE_WORDS:
        return page_word(page_generation(word) + chance_below(c, 3) - 1, chance_below(c, ROLES + 2), chance_below(c, QUEUES),
                         chance_below(c, 8));
    case RING:
        return word + ((uint64_t)(chance_below(c, 3) - 1) << META_LAP_SHIFT);
    case LEASES:
        return (chance_next(c) & ~(uint64_t)0xfffffff) | 1u << 12 | chance_below(c, ROLES + 2);
    case ROSTER:
        return (word & ~ROSTER_STATE_MASK) | chance_below(c, 4);
    case INTENTS:
        return (uint64_t)chance_below(c, 3) << ROSTER_GEN_SHIFT | chance_below(c, ROLES + 2);
    case PAGES: /* lengths at their limits, or a span word */
        if (!at_span_word)
            return (word & ~0xffffffffull) | (chance_below(c, 2) ? target.geo.page_bytes - chance_below(c, 64) : SPANS_MAX * target.span_bytes);
        if (chance_below(c, 2))
            page = target.geo.page_count - chance_below(c, 2);
        generation = page_generation(load_relaxed(&target.page_words[page % target.geo.page_count]));
        return span_word(&(struct place){page, target.geo.page_bytes - 8 * chance_below(c, 600), generation});
    default:
        return word + chance_below(c, 3) - 1;
    }
}

static uint64_t mangled(enum region r, uint64_t word, struct chance *c)
{
    switch (chance_below(c, 8)) {
    case 0:
        return 0;
    case 1:
        return ~0ull;
    case 2:
        return chance_next(c);
    case 3:
        return word ^ (uint64_t)(chance_below(c, 255) + 1) << chance_below(c, 8) * 8;
    case 4:
        return load_relaxed(anywhere_in(r, c));
    case 5:
    case 6:
        return likely_word(r, word, c);
    default:
        return word ^ 1ull << chance_below(c, 64);
    }
}

static void corrupt_once(enum region diet, struct chance *c)
{
    enum region r = diet == REGIONS ? (enum region)chance_below(c, REGIONS) : diet;
    a64 *at = somewhere_in(r, c);
    uint64_t before = load_relaxed(at), after = mangled(r, before, c);
    uint64_t offset = (uint64_t)((unsigned char *)at - target.base);
    last[written % LOG].region = r, last[written % LOG].at = offset;
    last[written % LOG].before = before, last[written % LOG].after = after;
    written++;
    if (offset >= target.geo.pages_at)
        store_release(&model->value_bytes_hit, 1);
    store_relaxed(at, after);
    tally(CORRUPTIONS);
}

static void say_last(void)
{
    for (uint64_t n = written < LOG ? 0 : written - LOG; n < written; n++)
        fprintf(stderr, "  %s + %llu: %016llx became %016llx\n", region_names[last[n % LOG].region],
                (unsigned long long)(last[n % LOG].at - region_at(last[n % LOG].region)), (unsigned long long)last[n % LOG].before,
                (unsigned long long)last[n % LOG].after);
}

/* ---- attachments between guards ---- */

static void rebase(void *pointer, ptrdiff_t by)
{
    unsigned char **p = pointer;
    *p += by;
}

/* Move the mapping to where a gibibyte before it and one behind it fault, and what is left over behind its last page. */
static void put_between_guards(struct attachment *a)
{
    size_t bytes = a->geo.total_bytes;
    unsigned char *room = mmap(NULL, bytes + 2 * GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    REQUIRE(room != MAP_FAILED, "no room for guards: %s", strerror(errno));
    unsigned char *to = mremap(a->base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, room + GUARD_BYTES);
    REQUIRE(to == room + GUARD_BYTES, "mremap: %s", strerror(errno));
    size_t used = a->geo.pages_at + (size_t)a->geo.page_count * a->geo.page_bytes;
    REQUIRE(mprotect(to + used, bytes - used, PROT_NONE) == 0, "mprotect: %s", strerror(errno));
    ptrdiff_t by = to - a->base;
    void *pointers[] = {&a->base, &a->header, &a->roster, &a->intents, &a->range_fences, &a->doubts, &a->journal, &a->dues, &a->sources, &a->leases, &a->locks, &a->tallies, &a->ring,
                        &a->fences, &a->own_writes,
                        &a->tag_fences, &a->own_tags, &a->index, &a->page_words, &a->page_notes, &a->sketch,
                        &a->ghost, &a->prewarm, &a->prewarm_records, &a->prewarm_mail, &a->pages, &a->me};
    for (size_t i = 0; i < sizeof pointers / sizeof pointers[0]; i++)
        rebase(pointers[i], by);
}

static void detach(struct attachment *a)
{
    unsigned char *base = a->base;
    size_t bytes = a->geo.total_bytes;
    segment_detach(a);
    munmap(base - GUARD_BYTES, bytes + 2 * GUARD_BYTES);
}

/* ---- live processes ---- */

struct worker {
    struct attachment a;
    struct chance chance;
    int role;
    uint64_t cursor;
};

static void check_value(const unsigned char *bytes, uint32_t n, uint32_t key)
{
    static unsigned char expected[VALUE_BYTES_LIMIT];
    uint64_t head[2] = {0, 0};
    memcpy(head, bytes, n < sizeof head ? n : sizeof head);
    bool whole = n >= sizeof head && n <= sizeof expected && head[0] == key;
    if (whole)
        whole = value_make(expected, key, head[1], n) == n && memcmp(expected, bytes, n) == 0;
    tally(whole ? HITS : FOREIGN);
    REQUIRE(whole || load_acquire(&model->value_bytes_hit), "key %u read %u bytes that nobody wrote, of key %llu, number %llu", key, n,
            (unsigned long long)head[0], (unsigned long long)head[1]);
}

static void get(struct worker *w, uint32_t key)
{
    struct named_key k = key_named(&w->a, key);
    uint32_t bytes;
    if (read_value(&w->a, &k, out, &bytes))
        check_value(out, bytes, key);
}

static struct write some_write(struct worker *w, const struct named_key *k, uint32_t key)
{
    uint32_t dice = chance_below(&w->chance, 64), most = dice == 0 ? value_bytes_max(&w->a) : dice < 16 ? 6000 : 200;
    struct write write = write_of(k, value, value_make(value, key, chance_next(&w->chance), 16 + chance_below(&w->chance, most - 15)));
    write.ttl_ms = chance_below(&w->chance, 4) ? 0 : 1000;
    write.local = chance_below(&w->chance, 8) == 0;
    if (chance_below(&w->chance, 4) == 0)
        write.tags = 1, write.tag[0] = 1 + chance_below(&w->chance, 3) * 0x9e3779b97f4a7c15ull;
    return write;
}

/* As the process does that loads ahead. */
static void load_ahead(struct worker *w)
{
    struct prewarm_order o;
    for (int i = 0; i < 4 && prewarm_take(&w->a, &o); i++) {
        uint32_t key = chance_below(&w->chance, KEYS);
        struct named_key k = key_named(&w->a, key);
        struct write write = some_write(w, &k, key);
        REQUIRE(!o.key_bytes || hash_key(w->a.hash_key, o.key, o.key_bytes) == o.hash, "an order of a key that nobody wrote");
        if (!prewarm_claim(&w->a, o.hash, o.p))
            continue;
        write.ahead = true;
        cache_fill(&w->a, &write, ring_tail(&w->a), clock_ms(&w->a));
    }
}

static void write_something(struct worker *w, uint32_t key)
{
    struct attachment *a = &w->a;
    struct named_key k = key_named(a, key);
    struct write write = some_write(w, &k, key);
    uint64_t intent;
    struct lease_hold hold;
    switch (chance_below(&w->chance, 16)) {
    case 0:
        cache_add(a, &write);
        return;
    case 1:
        cache_delete(a, k.hash);
        return;
    case 2:
        cache_touch(a, k.hash, k.text, k.bytes, 1000);
        return;
    case 3:
        intent = roster_intend(a, k.hash);
        cache_set_fenced(a, &write, ring_tail(a), clock_ms(a));
        roster_settle(a, intent);
        return;
    case 4:
        if (lease_wanted(a, k.hash, &hold) == LEASE_TAKEN)
            lease_release(a, &hold);
        return;
    case 5:
        chance_below(&w->chance, 8) ? cache_delete_tag(a, write.tag[0]) : cache_clear(a);
        return;
    case 6:
    case 7:
    case 8:
        cache_fill(a, &write, ring_tail(a), clock_ms(a));
        return;
    case 9:
        load_ahead(w);
        return;
    default:
        cache_set(a, &write);
    }
}

/* The map that it owes, as if a peer had sent it. */
static void relay_map(struct attachment *a, uint64_t cursor)
{
    unsigned char bytes[4096];
    struct bucket_map map;
    uint32_t evicted = 0, n = relay_map_pack(a, cursor, 0, bytes, sizeof bytes);
    if (relay_owes(a, cursor) && relay_map_read(bytes, n, &map))
        relay_map_evict(a, 3, &map, fence_whole_map(a, 3, &map, UINT32_MAX), 0, UINT32_MAX, &evicted);
}

static void relay_something(struct worker *w, uint32_t key)
{
    struct attachment *a = &w->a;
    unsigned char packed[4096], in[WIRE_RECORD_BYTES_MAX] = {(unsigned char)(WIRE_KEY + chance_below(&w->chance, 3))};
    static const uint32_t bytes_of[] = {0, 9, 17, 9, 1, 1};
    struct named_key k = key_named(a, key);
    uint32_t n;
    memcpy(in + 1, &k.hash, 8);
    switch (chance_below(&w->chance, 32) ? chance_below(&w->chance, 4) : 4) {
    case 4:
        relay_map(a, w->cursor);
        return;
    case 0:
        if (relay_pack(a, &w->cursor, 200, packed, sizeof packed, &n) == RELAY_LAPPED)
            w->cursor = ring_tail(a);
        return;
    case 1:
        relay_heal(a, &w->cursor, 200);
        return;
    case 2:
        store_release(&a->header->serve_until_ms, clock_ms(a) + 1000); /* what its beat does */
        peers_acked(a, &a->sources[1], w->cursor);
        peers_tell(&a->sources[1], true, clock_ms(a));
        peers_vouch(a, clock_ms(a) + 1000);
        peers_asked(a);
        return;
    default:
        relay_apply(a, 3, in, bytes_of[in[0]], &n);
    }
}

static void come_and_go(struct worker *w, uint32_t key)
{
    struct attachment b;
    struct segment_config config = with_prewarm();
    config.has_bridge = true;
    struct worker other = {.chance = w->chance};
    recovery_sweep(&w->a);
    census_count(&w->a);
    if (!peers_synced(&w->a, w->a.written))
        peers_ask(&w->a, w->a.written);
    enum attach_result r = segment_attach(&b, reopened(file), &config);
    REQUIRE(r != ATTACH_CREATED && r != ATTACH_BUSY && r != ATTACH_FAILED && r != ATTACH_TOO_SMALL, "attaching to garbage: %d, %s",
            (int)r, strerror(errno));
    tally(r == ATTACHED ? ATTACHES : REFUSED);
    if (r != ATTACHED)
        return;
    put_between_guards(&b);
    other.a = b;
    write_something(&other, key);
    get(&other, key);
    detach(&other.a);
}

static void work(struct worker *w)
{
    while (!load_acquire(&model->over)) {
        uint32_t key = chance_below(&w->chance, KEYS);
        switch (w->role) {
        case 0:
            get(w, key);
            break;
        case 1:
            write_something(w, key);
            break;
        case 2:
            relay_something(w, key);
            break;
        default:
            come_and_go(w, key);
        }
        bump_own(&model->verbs[w->role], 1);
    }
}

static pid_t start(int role, uint64_t seed)
{
    pid_t pid = fork();
    REQUIRE(pid >= 0, "fork: %s", strerror(errno));
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    static struct worker w;
    struct segment_config config = with_prewarm();
    config.has_bridge = true;
    w.role = role;
    w.chance.state = seed;
    attach_to(&w.a, file, &config);
    put_between_guards(&w.a);
    if (role == 2)
        segment_become_bridge(&w.a);
    for (uint32_t i = 0; role == 1 && i < 2 * KEYS; i++)
        write_something(&w, i % KEYS);
    add_relaxed(&model->ready, 1);
    work(&w);
    detach(&w.a);
    _exit(0);
}

/* ---- a life ---- */

/* On a busy machine there are long pauses between two looks of this process. Each counts as LOOK_S_MAX at most,
 * because the watched process got as little processor time meanwhile. */
static void check_end(pid_t pid, int role, enum region diet)
{
    int status;
    double now = seconds_now(), before = now, waited_s = 0;
    for (; waitpid(pid, &status, WNOHANG) == 0; before = now) {
        nap_us(100);
        now = seconds_now();
        waited_s += now - before < LOOK_S_MAX ? now - before : LOOK_S_MAX;
        if (waited_s > HANG_S)
            say_last(), kill(pid, SIGABRT);
        REQUIRE(waited_s < HANG_S + 1, "role %d hangs", role);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    say_last();
    FAIL("role %d, with garbage in %s: %s %d", role, region_names[diet], WIFSIGNALED(status) ? "killed by signal" : "ended with",
         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void corrupt_for_a_while(enum region diet, struct chance *c)
{
    while (load_acquire(&model->ready) < ROLES)
        nap_us(50);
    bool few = chance_below(c, 4) == 0;
    for (uint32_t bursts = few ? 1 : 1 + chance_below(c, BURSTS_MAX); bursts > 0; bursts--) {
        for (uint32_t n = few || chance_below(c, 4) == 0 ? 1 : 1 + chance_below(c, BURST_MAX); n > 0; n--)
            corrupt_once(diet, c);
        nap_us(chance_below(c, 300));
    }
}

/* Whoever comes after a sweep finds a segment that serves, or one that is retired. */
static void come_later(void *unused)
{
    (void)unused;
    struct segment_config config = with_prewarm();
    static struct worker w;
    uint32_t served = 0, bytes;
    enum attach_result r = segment_attach(&w.a, reopened(file), &config);
    REQUIRE(r == ATTACHED || r == ATTACH_RETIRED, "attaching after a sweep: %d", (int)r);
    if (r != ATTACHED)
        return;
    put_between_guards(&w.a);
    for (uint32_t i = 0; i < LATER_KEYS; i++) {
        struct named_key k = key_named(&w.a, KEYS + i);
        struct write write = write_of(&k, value, value_make(value, KEYS + i, i, 100));
        cache_set(&w.a, &write);
        if (read_value(&w.a, &k, out, &bytes)) {
            check_value(out, bytes, KEYS + i);
            served++;
        }
    }
    REQUIRE(served == LATER_KEYS || segment_retired(&w.a), "neither serves (%u of %d keys) nor is retired", served, (int)LATER_KEYS);
    detach(&w.a);
}

/* One who lived through it does what is due later. */
static void sweep_after(void)
{
    uint64_t now_ms = clock_ms(&target);
    recovery_keep_house(&target, 0);
    bool due = load_relaxed(&target.header->sweep_at_ms) <= now_ms + 2000;
    REQUIRE(due || segment_retired(&target), "no sweep is due for %llu ms",
            (unsigned long long)(load_relaxed(&target.header->sweep_at_ms) - now_ms));
}

static void live(enum region diet, struct chance *c)
{
    pid_t pid[ROLES];
    struct stat before, after;
    struct segment_config config = with_prewarm();
    file = memory_file();
    memset(model, 0, sizeof *model);
    attach_to(&target, file, &config);
    REQUIRE(fstat(file, &before) == 0, "fstat");
    for (int role = 0; role < ROLES; role++)
        pid[role] = start(role, chance_next(c));
    corrupt_for_a_while(diet, c);
    store_release(&model->over, 1);
    for (int role = 0; role < ROLES; role++)
        check_end(pid[role], role, diet);
    for (int role = 0; role < ROLES; role++)
        add_relaxed(&torture.counters[VERBS], load_relaxed(&model->verbs[role]));
    sweep_after();
    if (!in_child(come_later, NULL)) {
        say_last();
        FAIL("after garbage in %s", region_names[diet]);
    }
    REQUIRE(fstat(file, &after) == 0 && before.st_size == after.st_size, "the file was cut under its processes");
    if (segment_retired(&target))
        tally(RETIRED);
    segment_detach(&target);
    close(file);
    tally(LIVES);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_corrupt");
    uint64_t wanted = argc > 3 && strcmp(argv[2], "until") == 0 ? strtoull(argv[3], NULL, 10) : 0;
    if (wanted)
        alarm(0);
    model = shared_zeroes(sizeof *model);
    struct chance c = {(uint64_t)(seconds_now() * 1e9)};
    double until = seconds_now() + torture.seconds;
    for (uint32_t n = 0; wanted ? tallied(CORRUPTIONS) < wanted : seconds_now() < until || n <= REGIONS; n++)
        live((enum region)(n % (REGIONS + 1)), &c);
    printf("corrupt: %llu corruptions in %llu segments (%llu retired) under %llu verbs, %llu of them hits; %llu attached, %llu refused; "
           "%llu values of other bytes, all after value bytes were hit\n",
           (unsigned long long)tallied(CORRUPTIONS), (unsigned long long)tallied(LIVES), (unsigned long long)tallied(RETIRED),
           (unsigned long long)tallied(VERBS), (unsigned long long)tallied(HITS), (unsigned long long)tallied(ATTACHES),
           (unsigned long long)tallied(REFUSED), (unsigned long long)tallied(FOREIGN));
    return 0;
}
