/* torture_pages.c - pages and eviction: a tiny segment whose pages turn all the time.
 *
 * Workers set, fill, touch, read and delete far more than fits, values of 16 bytes to several pages, and are killed at any
 * instruction. Every value that is read checks itself. At rest: no page is left with the dead, no slot either, no key
 * is reachable twice, no word names a page's earlier life, no entry lies outside its page's watermark, and sets go on
 * working.
 *
 * Its power (each break made in a copy of the core; seconds until caught, on two busy cores)
 *
 *   no confirmation after a copy  1.7       a live owner's page is taken    0.8
 *   generation not raised         1.7       pages of the dead not sealed    3.8
 *   dead bytes counted in a later life of their page, what is new among the dead judged before its time: at once
 *   a near hit compares 11 bits of the generation, or none: at once
 *
 * Not caught in 6 s: a drain that clears a word by a store (it may take a value that was just written: an eviction, and
 * legal), an entry moved by a store (torture_index), a span's page not looked at again after the copy (torture_steps).
 */
#include "torture.h"
#include "arming.h"

enum { SEGMENT_BYTES = 3 << 20, CROWDED_BYTES = 1 << 20, CROWD_MAX = 64, WORKERS = 4, KEYS = 3000, NEAR_KEYS = 40, SETS_AFTER = 3000 };
enum { GETS, HITS, SETS, STORED_SETS, NO_ROOM, FILLS, TOUCHES, DELETES };

static int file;

struct worker {
    struct attachment a;
    struct chance chance;
    struct near near[NEAR_KEYS];
    unsigned char value[VALUE_BYTES_LIMIT + 64];
};

static uint32_t some_size(struct worker *w)
{
    uint32_t dice = chance_below(&w->chance, 64);
    return 16 + chance_below(&w->chance, dice == 0 ? value_bytes_max(&w->a) - 16 : dice < 16 ? 12000 : 400);
}

static void get(struct worker *w, uint32_t key)
{
    struct named_key k = key_named(&w->a, key);
    uint32_t bytes;
    tally(GETS);
    if (!read_value(&w->a, &k, w->value, &bytes))
        return;
    value_number(w->value, bytes, key);
    tally(HITS);
}

/* What a near cache remembers is what the bytes still say. */
static void get_near(struct worker *w, uint32_t key)
{
    struct named_key k = key_named(&w->a, key);
    struct near *near = &w->near[key];
    uint64_t number;
    tally(GETS);
    if (!read_near(&w->a, &k, key, near, &number))
        return;
    bool whole = cache_read(&w->a, &near->e, w->value);
    if (entry_confirm(&near->e) && whole)
        REQUIRE(value_number(w->value, near->e.value_bytes, key) == number, "a near hit on an entry that is another now");
    tally(HITS);
}

static enum store set(struct worker *w, uint32_t key, bool fill)
{
    struct named_key k = key_named(&w->a, key);
    uint64_t token = ring_tail(&w->a);
    uint32_t bytes = value_make(w->value, key, chance_next(&w->chance), some_size(w));
    struct write write = write_of(&k, w->value, bytes);
    write.ttl_ms = chance_below(&w->chance, 8) ? 0 : 5;
    if (chance_below(&w->chance, 4) == 0)
        write.tags = 1, write.tag[0] = 1 + chance_below(&w->chance, 1000) * 0x9e3779b97f4a7c15ull;
    enum store r = fill ? cache_fill(&w->a, &write, token, 0) : cache_set(&w->a, &write);
    REQUIRE(r != STORE_TOO_LARGE && r != STORE_CORRUPT, "a write of %u bytes: %d", bytes, (int)r);
    tally(fill ? FILLS : SETS);
    if (r == STORED)
        tally(STORED_SETS);
    if (r == STORE_NO_ROOM)
        tally(NO_ROOM);
    return r;
}

static void work(int number, uint64_t seed)
{
    struct worker *w = calloc(1, sizeof *w);
    struct segment_config config = plain_config(SEGMENT_BYTES);
    w->chance.state = seed;
    attach_to(&w->a, file, &config);
    while (!torture_over()) {
        /* Half of all verbs go to a few keys, so that something is worth keeping. */
        uint32_t key = chance_below(&w->chance, chance_below(&w->chance, 2) ? KEYS : NEAR_KEYS), dice = chance_below(&w->chance, 100);
        struct named_key k = key_named(&w->a, key);
        if (chance_below(&w->chance, 16) == 0)
            arming_arm(&w->a, k.hash, 5);
        if (dice < 40 && key < NEAR_KEYS)
            get_near(w, key);
        else if (dice < 50)
            get(w, key);
        else if (dice < 90)
            set(w, key, dice >= 80);
        else if (dice < 95)
            cache_delete(&w->a, k.hash), tally(DELETES);
        else
            cache_touch(&w->a, k.hash, k.text, k.bytes, 0), tally(TOUCHES);
    }
    segment_detach(&w->a);
    free(w);
}

/* ---- at rest ---- */

static void check_no_page_is_left_with_the_dead(struct attachment *a)
{
    for (uint32_t page = 0; page < a->geo.page_count; page++) {
        uint64_t word = load_acquire(&a->page_words[page]);
        REQUIRE(!page_held(word) || page_owner(word) == a->slot, "page %u is still held by slot %u, which is free", page, page_owner(word));
    }
    for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++)
        REQUIRE(slot == a->slot || (load_acquire(&a->roster[slot].word) & ROSTER_STATE_MASK) == SLOT_FREE, "slot %u is not free", slot);
}

static void check_words(struct attachment *a)
{
    uint64_t words = (uint64_t)a->geo.bucket_count * BUCKET_WORDS;
    for (uint64_t i = 0; i < words; i++) {
        struct entry_ref e;
        uint64_t word = load_acquire(&a->index[i]);
        if (!word)
            continue;
        REQUIRE(entry_open(a, word, &e), "a word was left behind by its page: %llx", (unsigned long long)word);
        REQUIRE(e.place.off + entry_size(a, &e) <= (uint32_t)load_acquire(&a->page_notes[e.place.page].watermark),
                "a word points behind the watermark of page %u", e.place.page);
        int reachable = 0;
        struct candidates c = index_candidates(a, e.hash);
        for (int j = 0; j < CANDIDATE_WORDS; j++) {
            struct entry_ref other;
            uint64_t there = load_acquire(index_word(&c, j));
            reachable += there && !(there & INDEX_PENDING) && entry_open(a, there, &other) && other.hash == e.hash;
        }
        REQUIRE(reachable + ((word & INDEX_PENDING) != 0) >= 1 && reachable <= 1, "a key is reachable %d times", reachable);
    }
}

static void check_at_rest(struct worker *w)
{
    struct segment_config config = plain_config(SEGMENT_BYTES);
    attach_to(&w->a, file, &config);
    recovery_sweep(&w->a);
    check_no_page_is_left_with_the_dead(&w->a);
    check_words(&w->a);
    for (uint32_t i = 0; i < (torture.threads ? SETS_AFTER / 10 : SETS_AFTER); i++) {
        enum store r = set(w, i, false);
        REQUIRE(r == STORED, "set %u after the torture: %d", i, (int)r);
    }
    check_words(&w->a);
    segment_detach(&w->a);
}

/* Page words whose holder is nobody: a slot that the roster has not, a free one, or a process that knows nothing of it. */
static void check_strays(void)
{
    static struct worker w;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    static const enum page_state states[] = {PAGE_OPEN, PAGE_DRAIN, PAGE_SPARE};
    int fd = memory_file();
    uint32_t strays = 0;
    w.chance.state = 1;
    attach_to(&w.a, fd, &config);
    for (uint32_t i = 0; i < SETS_AFTER; i++)
        set(&w, i, false);
    const uint32_t holders[] = {w.a.geo.roster_slots, PAGE_OWNER_BITS, 7, w.a.slot};
    for (uint32_t page = 0; page < w.a.geo.page_count; page++) {
        uint64_t word = load_relaxed(&w.a.page_words[page]);
        if (page_state(word) == PAGE_SEALED && page % 3)
            store_relaxed(&w.a.page_words[page],
                          page_word(page_generation(word), holders[strays % 4], page_queue(word), states[strays / 4 % 3])), strays++;
    }
    REQUIRE(strays > 20, "only %u pages", strays);
    recovery_sweep(&w.a);
    for (uint32_t page = 0; page < w.a.geo.page_count; page++) {
        uint64_t word = load_relaxed(&w.a.page_words[page]);
        REQUIRE(!page_held(word) || (page_owner(word) == w.a.slot && pages_has(&w.a, page)), "page %u is left with slot %u, state %u", page,
                page_owner(word), (unsigned)page_state(word));
    }
    REQUIRE((load_relaxed(&w.a.roster[7].word) & ROSTER_STATE_MASK) == SLOT_FREE, "the free slot was not given back");
    check_words(&w.a);
    for (uint32_t i = 0; i < SETS_AFTER; i++)
        REQUIRE(set(&w, i, false) == STORED, "set %u", i);
    segment_detach(&w.a);
    close(fd);
}

/* What the climb says after so many of 1,000 reads were hits: the small queue's share, of 65536. */
static int32_t share_after(struct attachment *a, uint64_t hits)
{
    count(a, STAT_HITS, hits);
    count(a, STAT_MISSES, 1000 - hits);
    policy_adapt(a, 10);
    return (int32_t)policy_small_pages(a, 1 << 16);
}

/* The small queue's share goes on as long as the hit ratio rises, turns where it falls, and comes to rest where nothing
 * changes. Other traffic makes its steps as long as the first one again. */
static void check_the_climb(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int fd = memory_file();
    attach_to(&a, fd, &config);
    int32_t share = (int32_t)policy_small_pages(&a, 1 << 16), before = share;
    int32_t step = share_after(&a, 500) - share, first = step;
    REQUIRE(step > 0, "the first step is %d", step);
    for (uint64_t round = 1, hits = 500; round < 8; round++) {
        bool falls = round % 3 == 0;
        hits = falls ? hits - 20 : hits + 10;
        before = share + step, share = before;
        int32_t next = share_after(&a, hits) - before;
        REQUIRE(next && (next < 0) == ((step < 0) != falls), "round %u: a step of %d, %s, then one of %d", (unsigned)round, step,
                falls ? "worse" : "better", next);
        REQUIRE(abs(next) <= abs(step), "round %u: a step of %d, then one of %d", (unsigned)round, step, next);
        step = next;
    }
    for (int round = 0; round < 500; round++)
        share_after(&a, 520);
    share = share_after(&a, 520);
    REQUIRE(share_after(&a, 519) == share, "it does not come to rest");
    share = share_after(&a, 700); /* other traffic: the next step is the long one, and it is worse, so it turns */
    REQUIRE(share - share_after(&a, 690) == first, "other traffic is climbed in small steps");
    share = share_after(&a, 1000);
    REQUIRE(share_after(&a, 1000) == share, "where nothing can be gained, a step was made");
    for (uint64_t hits = 0; hits < 900; hits += 8)
        share = share_after(&a, hits);
    REQUIRE(share >= (1 << 16) / 100 && share <= (1 << 16) * 8 / 10, "the share is %d of 65536", share);
    segment_detach(&a);
    close(fd);
}

static void require_held(const struct attachment *a, uint32_t page, const char *as, uint32_t *seen)
{
    if (page == NO_PAGE)
        return;
    uint64_t word = load_relaxed(&a->page_words[page]);
    REQUIRE(page_held(word) && page_owner(word) == a->slot, "a sweep took page %u from the process that has it %s", page, as);
    ++*seen;
}

/* A sweep takes back what nobody has. What the sweeping process itself has is its own, whatever it has it for. */
static void check_a_sweep_takes_nothing_from_itself(void)
{
    static struct worker w;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    uint32_t open[OPENS] = {0}, drained[QUEUES] = {0}, spare = 0;
    int fd = memory_file();
    w.chance.state = 1;
    attach_to(&w.a, fd, &config);
    for (uint32_t i = 0; i < SETS_AFTER; i++) {
        set(&w, i, false);
        get(&w, i / 2); /* read ones move to the main queue */
        recovery_sweep(&w.a);
        for (int o = 0; o < OPENS; o++)
            require_held(&w.a, w.a.open[o].page, "open", &open[o]);
        for (int q = 0; q < QUEUES; q++)
            require_held(&w.a, w.a.drain[q].page, "to drain", &drained[q]);
        for (uint32_t n = 0; n < w.a.spares; n++)
            require_held(&w.a, w.a.spare[n], "to spare", &spare);
    }
    for (int o = 0; o < OPENS; o++)
        REQUIRE(open[o], "no page of kind %d was ever open", o);
    for (int q = 0; q < QUEUES; q++)
        REQUIRE(drained[q], "no page of queue %d was ever drained", q);
    REQUIRE(spare, "no page was ever spare");
    segment_detach(&w.a);
    close(fd);
}

/* Every page is some live process's open one: each goes round in its own, and can still store. */
static void check_crowded(void)
{
    static struct attachment all[CROWD_MAX];
    struct segment_config config = plain_config(CROWDED_BYTES);
    int crowded = memory_file();
    unsigned char value[1024];
    attach_to(&all[0], crowded, &config);
    uint32_t pages = all[0].geo.page_count;
    REQUIRE(pages <= CROWD_MAX && pages <= all[0].geo.roster_slots, "%u pages", pages);
    for (uint32_t round = 0; round < 300; round++) {
        for (uint32_t i = 0; i < pages; i++) {
            if (round == 0 && i > 0)
                attach_to(&all[i], crowded, &config);
            struct named_key k = key_named(&all[i], i);
            struct write w = write_of(&k, value, value_make(value, i, round, 1000));
            enum store r = cache_set(&all[i], &w);
            REQUIRE(r == STORED, "write %u of process %u of %u with %u pages: %d", round, i, pages, pages, (int)r);
        }
    }
    for (uint32_t i = 0; i < pages; i++)
        segment_detach(&all[i]);
    close(crowded);
}

static void set_value(struct attachment *a, uint32_t key, uint64_t number, uint32_t bytes)
{
    static unsigned char value[VALUE_BYTES_LIMIT];
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, value, value_make(value, key, number, bytes));
    REQUIRE(cache_set(a, &w) == STORED, "set of %u bytes", bytes);
}

static bool is_there(struct attachment *a, uint32_t key)
{
    static unsigned char value[VALUE_BYTES_LIMIT];
    struct named_key k = key_named(a, key);
    uint32_t bytes;
    bool found = read_value(a, &k, value, &bytes);
    if (found)
        value_number(value, bytes, key);
    return found;
}

/* Of two large values the one that is read stays, span by span; the other goes, whole, and its key can be added. */
static void check_large_values(void)
{
    enum { READ = 1, UNREAD = 2, FILLER = 10 };
    static unsigned char value[64];
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int large = memory_file();
    attach_to(&a, large, &config);
    set_value(&a, READ, 1, 20 * a.span_bytes);
    set_value(&a, UNREAD, 1, 20 * a.span_bytes);
    for (uint32_t i = 0; i < 3 * a.geo.page_count * (a.geo.page_bytes / 1024); i++) {
        REQUIRE(is_there(&a, READ), "a large value that is read fell out after %u writes", i);
        set_value(&a, FILLER + i, 1, 1000);
    }
    REQUIRE(!is_there(&a, UNREAD), "a large value that nobody reads outlived three turns");
    struct named_key k = key_named(&a, UNREAD);
    struct write w = write_of(&k, value, value_make(value, UNREAD, 2, 50));
    REQUIRE(cache_add(&a, &w) == STORED, "the key of a large value that is gone cannot be added");
    for (uint32_t i = 0; i < 40; i++) { /* however large: what was just stored can be read */
        set_value(&a, 5 + i % 3, i, value_bytes_max(&a) - 100);
        REQUIRE(is_there(&a, 5 + i % 3), "a value of %u bytes is gone at once, write %u", value_bytes_max(&a) - 100, i);
    }
    for (uint32_t spans = 1; spans <= 3; spans++)
        for (int32_t more = -1; more <= 1; more++) {
            set_value(&a, FILLER, spans, spans * a.span_bytes + (uint32_t)more);
            REQUIRE(is_there(&a, FILLER), "a value of %u spans and %d bytes is gone at once", spans, more);
        }
    segment_detach(&a);
    close(large);
}

/* Without a hit. */
static bool stands(struct attachment *a, uint32_t key)
{
    struct named_key k = key_named(a, key);
    struct entry_ref e;
    return cache_find(a, k.hash, k.text, k.bytes, &e) == FOUND;
}

static uint64_t dead_in_sealed(const struct attachment *a)
{
    uint64_t dead = 0;
    for (uint32_t page = 0; page < a->geo.page_count; page++) {
        uint64_t word = load_acquire(&a->page_words[page]);
        dead += page_state(word) == PAGE_SEALED ? pages_dead_bytes(a, page, word) : 0;
    }
    return dead;
}

/* A value one span of which has fallen out is dead in all its pages, and known to be: they need not wait for their turn. */
static void check_spans_fall_together(void)
{
    enum { LARGE = 1, FILLER = 10, SPANS = 20 };
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int fallen = memory_file();
    attach_to(&a, fallen, &config);
    set_value(&a, LARGE, 1, SPANS * a.span_bytes);
    for (uint32_t i = 0; stands(&a, LARGE); i++) {
        REQUIRE(dead_in_sealed(&a) == 0, "something is dead before anything was evicted");
        set_value(&a, FILLER + i, 1, 1000);
    }
    REQUIRE(dead_in_sealed(&a) >= (uint64_t)a.span_bytes, "of a value that fell out only %llu bytes are known to be dead",
            (unsigned long long)dead_in_sealed(&a));
    segment_detach(&a);
    close(fallen);
}

/* What a count was before it was added to is dead, and known to be. */
static void check_old_counts_are_dead(void)
{
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int counts = memory_file();
    int64_t sum = 0;
    attach_to(&a, counts, &config);
    struct named_key k = key_named(&a, 1);
    struct write w = write_of(&k, &sum, sizeof sum);
    w.type = TYPE_INT64;
    w.local = true;
    REQUIRE(cache_set(&a, &w) == STORED, "set");
    for (uint32_t i = 0; i < 2 * a.geo.page_bytes / sizeof sum; i++)
        REQUIRE(cache_incr(&a, k.hash, k.text, k.bytes, 1, false, &sum) == INCR_DONE, "incr %u", i);
    REQUIRE(dead_in_sealed(&a) >= a.geo.page_bytes / 2, "of two pages of old counts %llu bytes are known to be dead",
            (unsigned long long)dead_in_sealed(&a));
    segment_detach(&a);
    close(counts);
}

/* What is new outlives its dead neighbours, whose page goes before its turn. */
static void check_the_new_among_the_dead(void)
{
    enum { HOT = 12, NEW = 1000, EVERY = 100, YOUNG = 4, ROUNDS = 1000, FULL = 3 * SEGMENT_BYTES / 300 };
    struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    int dead = memory_file();
    attach_to(&a, dead, &config);
    for (uint32_t i = 0; i < FULL; i++)
        set_value(&a, NEW + ROUNDS + i, i, 300);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        set_value(&a, NEW + round, round, 300);
        for (uint32_t i = 0; i < EVERY; i++)
            set_value(&a, i % HOT, round, 300);
        for (uint32_t i = 0; i < YOUNG && i <= round; i++)
            REQUIRE(stands(&a, NEW + round - i), "a value was evicted %u writes after it was set, of which %u were new", i * EVERY, i);
    }
    segment_detach(&a);
    close(dead);
}

/* The 11 bits of a generation that an index word has come again after 2,048 turns of a page: a near hit compares all 48. */
static void check_generations_are_whole(void)
{
    static struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    unsigned char value[1024];
    struct entry_ref e;
    int again = memory_file();
    bool still;
    attach_to(&a, again, &config);
    struct named_key k = key_named(&a, 1);
    struct write w = write_of(&k, value, value_make(value, 1, 1, 1000));
    REQUIRE(cache_set(&a, &w) == STORED, "set");
    REQUIRE(cache_find(&a, k.hash, k.text, k.bytes, &e) == FOUND, "what was set is not found");
    REQUIRE(cache_find_again(&a, &e, &still) == FOUND && still, "what was found is not found again");
    struct entry_ref before = e;
    a64 *page = &a.page_words[a.open[OPEN_SMALL].page];
    uint64_t word = load_relaxed(page);
    store_relaxed(page, page_word(page_generation(word) + INDEX_GEN_BITS + 1, page_owner(word), page_queue(word), page_state(word)));
    REQUIRE(cache_find_again(&a, &before, &still) == FOUND_NOTHING && !still, "an entry is taken for one that is 2,048 turns younger");
    store_relaxed(page, word);
    e.place.generation -= INDEX_GEN_BITS + 1;
    REQUIRE(cache_find_again(&a, &e, &still) == FOUND_NOTHING && !still, "an entry of 2,048 turns ago is taken for the present one");
    segment_detach(&a);
    close(again);
}

/* Who fills on a page that was sealed before it was full begins behind its watermark: never where that is garbage. */
static void check_a_sealed_pages_watermark(void)
{
    static struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    unsigned char value[1024];
    int sealed = memory_file();
    attach_to(&a, sealed, &config);
    struct named_key k = key_named(&a, 1);
    struct write w = write_of(&k, value, value_make(value, 1, 1, 300));
    REQUIRE(cache_set(&a, &w) == STORED, "set");
    uint32_t page = a.open[OPEN_SMALL].page;
    pages_seal_open(&a, QUEUE_SMALL);
    a64 *watermark = &a.page_notes[page].watermark;
    uint64_t whole = load_relaxed(watermark);
    const uint64_t wrong[] = {0, whole - 8, whole + 8, whole - 304, whole ^ 1ull << 32, whole ^ 1ull << 48, ~0ull};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        store_release(watermark, wrong[i]);
        REQUIRE(!pages_reopen(&a, page), "a page is filled on behind a watermark of %llx, that was %llx", (unsigned long long)wrong[i],
                (unsigned long long)whole);
        REQUIRE(page_state(load_relaxed(&a.page_words[page])) == PAGE_SEALED, "a page that is not filled on is not sealed again");
    }
    store_release(watermark, whole);
    REQUIRE(pages_reopen(&a, page), "a page whose watermark is right is not filled on");
    REQUIRE(a.open[OPEN_SMALL].off == watermark_bytes(&a, whole), "a page is filled on elsewhere than behind its watermark");
    segment_detach(&a);
    close(sealed);
}

static void require_entry(struct attachment *a, const struct entry_ref *e, uint64_t version, uint64_t stored, bool fits, const char *what)
{
    struct entry_ref again;
    a64 *at = page_at(a, e->place.page, e->place.off);
    store_relaxed(&at[ENTRY_VERSION], version);
    store_relaxed(&at[ENTRY_STORED], stored);
    REQUIRE(entry_open(a, e->word, &again) == fits, "an entry with %s is%s taken", what, fits ? " not" : "");
    store_relaxed(&at[ENTRY_VERSION], version_word(e->version, e->key_bytes));
    store_relaxed(&at[ENTRY_STORED], e->stored_word);
}

/* Garbage in an entry's lengths, each of which alone makes it impossible: it would be read beyond its page, or its segment. */
static void check_lengths_of_garbage(void)
{
    static struct attachment a;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    unsigned char value[1024];
    struct entry_ref e;
    int garbage = memory_file();
    attach_to(&a, garbage, &config);
    struct named_key k = key_named(&a, 1);
    struct write w = write_of(&k, value, value_make(value, 1, 1, 300));
    w.tags = 1, w.tag[0] = 7;
    REQUIRE(cache_set(&a, &w) == STORED, "set");
    REQUIRE(cache_find(&a, k.hash, k.text, k.bytes, &e) == FOUND, "what was set is not found");
    uint32_t left = a.geo.page_bytes - e.place.off, rest = entry_size(&a, &e) - words_of(e.value_bytes) * 8;
    uint64_t version = version_word(e.version, e.key_bytes), stored = e.stored_word & ~ENTRY_LENGTH_BITS;
    uint64_t one_tag = 1ull << ENTRY_TAGS_SHIFT;
    require_entry(&a, &e, version, e.stored_word, true, "its own lengths");
    require_entry(&a, &e, version, stored | (left - rest), true, "a value up to its page's end");
    require_entry(&a, &e, version, stored | (left - rest + 1), false, "a value beyond its page's end");
    require_entry(&a, &e, version, stored | a.geo.page_bytes, false, "a value of a page");
    require_entry(&a, &e, version, stored | ENTRY_LENGTH_BITS, false, "the longest value");
    require_entry(&a, &e, version, stored | ENTRY_SPANS | ENTRY_LENGTH_BITS, false, "spans without end");
    require_entry(&a, &e, version_word(e.version, KEY_BYTES_MAX), e.stored_word, true, "the longest key");
    require_entry(&a, &e, version_word(e.version, KEY_BYTES_MAX + 1), e.stored_word, false, "a key that is too long");
    require_entry(&a, &e, version, e.stored_word + (TAGS_MAX - 1) * one_tag, true, "all tags");
    require_entry(&a, &e, version, e.stored_word + TAGS_MAX * one_tag, false, "too many tags");
    segment_detach(&a);
    close(garbage);
}

/* What one process sees. */
static void check_alone(void)
{
    check_crowded();
    check_large_values();
    check_spans_fall_together();
    check_old_counts_are_dead();
    check_the_new_among_the_dead();
    check_generations_are_whole();
    check_strays();
    check_the_climb();
    check_a_sweep_takes_nothing_from_itself();
    check_a_sealed_pages_watermark();
    check_lengths_of_garbage();
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_pages");
    struct worker *w = calloc(1, sizeof *w);
    uint64_t kills = 0;
    if (!torture.threads) /* a race detector finds nothing in them, and takes minutes */
        check_alone();
    file = memory_file();
    for (int part = 0; part < 4; part++) {
        kills += torture_run(work, WORKERS, 0, part ? 200 : 0, torture.seconds / 4);
        check_at_rest(w);
    }
    printf("pages: %llu gets (%llu hits), %llu sets, %llu fills (%llu stored in all, %llu without room), %llu touches, %llu deletes, "
           "%llu kills\n",
           (unsigned long long)tallied(GETS), (unsigned long long)tallied(HITS), (unsigned long long)tallied(SETS),
           (unsigned long long)tallied(FILLS), (unsigned long long)tallied(STORED_SETS), (unsigned long long)tallied(NO_ROOM),
           (unsigned long long)tallied(TOUCHES), (unsigned long long)tallied(DELETES), (unsigned long long)kills);
    free(w);
    return 0;
}
