/* scenes.c - see scenes.h. */
#include "scenes.h"

const uint64_t scene_tag = 0x7461670000000001ull;

int scene_file;
struct segment_config scene_config;
struct attachment here;
struct named_key target, other, counter;
uint64_t start_token;

static struct attachment here_before; /* how it was before each run */
static unsigned char buffer[VALUE_BYTES_LIMIT];
static unsigned char *start_image;

/* ---- verbs: each works on TARGET ---- */

struct write target_write(uint64_t number, uint32_t bytes)
{
    struct write w = write_of(&target, buffer, value_make(buffer, TARGET, number, bytes));
    w.tags = 1;
    w.tag[0] = scene_tag;
    return w;
}

void set_1(struct attachment *a) { cache_set(a, &(struct write[]){target_write(1, 64)}[0]); }
void set_2(struct attachment *a) { cache_set(a, &(struct write[]){target_write(2, 80)}[0]); }

void set_large(struct attachment *a)
{
    struct write w = target_write(3, a->span_bytes + 40);
    cache_set(a, &w);
}

void set_local(struct attachment *a)
{
    struct write w = target_write(4, 48);
    w.local = true;
    cache_set(a, &w);
}

void set_nothing(struct attachment *a)
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

static void add(struct attachment *a, uint64_t number)
{
    struct write w = target_write(number, 48);
    if (cache_add(a, &w) == STORED)
        tally(ADDED);
}

void add_7(struct attachment *a) { add(a, 7); }
void add_13(struct attachment *a) { add(a, 13); }

void fill_8(struct attachment *a)
{
    struct write w = target_write(8, 48);
    cache_fill(a, &w, ring_tail(a), FROZEN_MS);
}

/* A value that slides, in the last half of its period: finding it moves it. */
void slide(struct attachment *a)
{
    struct write w = target_write(8, 48);
    struct entry_ref e;
    w.sliding_ms = 1000;
    w.ttl_ms = 100000;
    cache_fill(a, &w, ring_tail(a), FROZEN_MS);
    a->frozen_ms += 600;
    cache_find(a, target.hash, target.text, target.bytes, &e);
}

void fill_late(struct attachment *a) /* loaded before the other process did anything */
{
    struct write w = target_write(9, 48);
    cache_fill(a, &w, start_token, FROZEN_MS);
}

void fenced_10(struct attachment *a)
{
    struct write w = target_write(10, 48);
    cache_set_fenced(a, &w, start_token, clock_ms(a));
}

void delete_target(struct attachment *a) { cache_delete(a, target.hash); }
void touch_target(struct attachment *a) { cache_touch(a, target.hash, target.text, target.bytes, 100000); }
void clear_all(struct attachment *a) { cache_clear(a); }
void delete_tag(struct attachment *a) { cache_delete_tag(a, scene_tag); }
void do_nothing(struct attachment *a) { (void)a; }

static void apply(struct attachment *a, enum wire_kind kind, uint64_t digest)
{
    static const uint32_t bytes_of[] = {0, 9, 17, 9, 1, 1};
    unsigned char in[WIRE_RECORD_BYTES_MAX] = {(unsigned char)kind};
    uint32_t applied;
    memcpy(in + 1, kind == WIRE_TAG ? &scene_tag : &target.hash, 8);
    memcpy(in + 9, &digest, 8);
    REQUIRE(relay_apply(a, 7, in, bytes_of[kind], &applied) == RELAY_OK, "apply");
}

void apply_key(struct attachment *a) { apply(a, WIRE_KEY, 0); }
/* What is known of TARGET says that it will be read. */
static void order_target_from(struct attachment *a, enum page_queue queue)
{
    struct prewarm_copy copy = {.in_main = queue == QUEUE_MAIN, .key_bytes = target.bytes};
    set_1(a);
    memcpy(copy.key, target.text, target.bytes);
    a->prewarm_weight = 1000;
    prewarm_written(a, target.hash, &copy, FROZEN_MS);
    a->prewarm_weight = 3;
    delete_target(a);
    prewarm_written(a, target.hash, &copy, FROZEN_MS);
}

static void order_target(struct attachment *a) { order_target_from(a, QUEUE_SMALL); }
static void order_target_in_main(struct attachment *a) { order_target_from(a, QUEUE_MAIN); }

static void load_ahead(struct attachment *a)
{
    struct prewarm_order o;
    if (!prewarm_take(a, &o) || !prewarm_claim(a, o.hash, o.p))
        return;
    struct write w = target_write(8, 48);
    w.ahead = true;
    cache_fill(a, &w, ring_tail(a), FROZEN_MS);
}

static void have_loaded_ahead(struct attachment *a)
{
    order_target(a);
    load_ahead(a);
}

static void apply_tag(struct attachment *a) { apply(a, WIRE_TAG, 0); }
void apply_all(struct attachment *a) { apply(a, WIRE_ALL, 0); }

enum { TAG_BITS = 7, KEY_BITS = 11 }; /* four fences under each bit of a scene's segment: each is a point to stop at */

static unsigned char map_bytes[2 + (1 << TAG_BITS) / 8 + (1 << KEY_BITS) / 8] = {TAG_BITS, KEY_BITS};
static struct bucket_map map;
static uint64_t map_version;

static void list(unsigned char *bits, uint32_t log2, uint64_t hash)
{
    bits[hash >> (64 - log2) >> 3] |= (unsigned char)(1 << (hash >> (64 - log2) & 7));
}

/* A map of one bit. */
static void raise_one_bit(struct attachment *a, uint64_t key, uint64_t tag)
{
    memset(map_bytes + 2, 0, sizeof map_bytes - 2);
    if (tag)
        list(map_bytes + 2, TAG_BITS, tag);
    if (key)
        list(map_bytes + 2 + (1 << TAG_BITS) / 8, KEY_BITS, key);
    REQUIRE(relay_map_read(map_bytes, sizeof map_bytes, &map), "a map");
    map_version = fence_whole_map(a, 7, &map, UINT32_MAX);
}

void raise_bucket(struct attachment *a) { raise_one_bit(a, target.hash, 0); }

/* Of the index only the words where TARGET can be are looked at: all others name nothing that is listed. */
void evict_bucket(struct attachment *a)
{
    struct candidates c = index_candidates(a, target.hash);
    uint32_t evicted = 0;
    for (int i = 0; i < 2; i++)
        relay_map_evict(a, 7, &map, map_version, (uint64_t)(c.bucket[i] - a->index), BUCKET_WORDS, &evicted);
}

void apply_bucket(struct attachment *a) { raise_bucket(a), evict_bucket(a); }
static void apply_tag_slot(struct attachment *a) { raise_one_bit(a, 0, scene_tag), evict_bucket(a); }

uint64_t digest_of_set_1;
void apply_same(struct attachment *a) { apply(a, WIRE_KEY_SET, digest_of_set_1); }
void apply_different(struct attachment *a) { apply(a, WIRE_KEY_SET, digest_of_set_1 + 2); }

void sweep(struct attachment *a) { recovery_sweep(a); }

static void open_writing(struct attachment *a) { roster_settle(a, roster_intend(a, target.hash)); }

static void leave(struct attachment *a) { segment_detach(a); }

void take_lease(struct attachment *a)
{
    struct lease_hold hold;
    if (lease_wanted(a, target.hash, &hold) == LEASE_TAKEN)
        lease_release(a, &hold);
}

void take_lock(struct attachment *a)
{
    struct lock_hold hold;
    uint32_t by;
    if (lock_take(a, &(struct lock_wish){.hash = target.hash, .ttl_ms = 1000}, &hold, &by) == LOCK_TAKEN)
        REQUIRE(lock_release(a, &hold), "a lock was lost");
}

static void set_other(struct attachment *a, uint32_t key, uint32_t bytes)
{
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, buffer, value_make(buffer, key, 1, bytes));
    cache_set(a, &w);
}

/* Every page full of a few entries, the target among them and read: the next writer turns pages and carries it on. */
void fill_pages(struct attachment *a)
{
    uint32_t bytes;
    set_1(a);
    for (uint32_t i = 0; i < 7 * a->geo.page_count; i++) {
        set_other(a, 100 + i, a->span_bytes);
        read_value(a, &target, buffer, &bytes);
    }
}

void fill_other(struct attachment *a, uint32_t key, uint32_t bytes)
{
    struct named_key k = key_named(a, key);
    struct write w = write_of(&k, buffer, value_make(buffer, key, 1, bytes));
    cache_fill(a, &w, ring_tail(a), FROZEN_MS);
}

void set_counter(struct attachment *a, int64_t number)
{
    struct write w = write_of(&counter, &number, sizeof number);
    w.type = TYPE_INT64;
    w.local = true;
    cache_set(a, &w);
}

int64_t counted(struct attachment *a)
{
    struct entry_ref e;
    int64_t number = 0;
    while (cache_find(a, counter.hash, counter.text, counter.bytes, &e) == FOUND) {
        cache_read(a, &e, &number);
        if (cache_confirm(a, &e))
            return number;
    }
    return 0;
}

void incr_counter(struct attachment *a)
{
    int64_t sum;
    cache_incr(a, counter.hash, counter.text, counter.bytes, 1, false, &sum);
}

/* As host.py does it: the first call begins the count. */
void count_up(struct attachment *a)
{
    int64_t first = COUNT_BEFORE, sum;
    struct write w = write_of(&counter, &first, sizeof first);
    w.type = TYPE_INT64;
    w.local = true;
    for (int tries = 0; tries < 4; tries++)
        if (cache_incr(a, counter.hash, counter.text, counter.bytes, 1, false, &sum) == INCR_DONE || cache_add(a, &w) == STORED)
            return;
    REQUIRE(false, "a counter is missed, and cannot be added");
}

static void have_a_count(struct attachment *a) { set_counter(a, COUNT_BEFORE); }

/* The count in a page that is full, and read: who adds to it turns the page, and may move it meanwhile. */
static void count_in_full_pages(struct attachment *a)
{
    fill_pages(a);
    have_a_count(a);
    for (uint32_t i = 0; i < 3 * a->geo.page_count; i++)
        set_other(a, 3000 + i, a->span_bytes), counted(a);
}

static void incr_turning(struct attachment *a) { set_other(a, 60, 1700), incr_counter(a); }

/* What taking one takes is stepped through in the first scene. */
void have_a_page(struct attachment *a) { fill_other(a, 70, 16); }

void fill_a_little(struct attachment *a) { set_other(a, 51, 16); }

void nearly_full(struct attachment *a)
{
    do
        set_other(a, 50, 1500);
    while (a->open[QUEUE_SMALL].page == NO_PAGE || a->open[QUEUE_SMALL].off + 1600 < a->geo.page_bytes);
}

static void set_that_turns(struct attachment *a) { set_other(a, 60, 1700), set_2(a); }

/* Somebody died holding a slot and a page. Each corpse owes one thing: another debt would hide that it was forgotten. */
static struct roster_slot *leave_a_corpse(struct attachment *a, uint32_t slot)
{
    struct roster_slot *dead = &a->roster[slot];
    set_1(a);
    store_release(&dead->word, (uint64_t)LIFE_OF_THE_DEAD << ROSTER_GEN_SHIFT | SLOT_LIVE);
    raise_max(&a->header->roster_high, slot + 1);
    store_release(&a->page_words[a->geo.page_count - 1], page_word(1, slot, QUEUE_SMALL, PAGE_OPEN));
    return dead;
}

static void owe_an_intent(struct attachment *a, uint32_t slot)
{
    leave_a_corpse(a, slot);
    store_release(&a->intents[5].hash, target.hash);
    store_release(&a->intents[5].owner, (uint64_t)LIFE_OF_THE_DEAD << ROSTER_GEN_SHIFT | (slot + 1));
}

static void owe_a_shared_intent(struct attachment *a, uint32_t slot)
{
    uint32_t bucket = (uint32_t)(target.hash >> (64 - INTENT_BUCKET_BITS));
    store_release(&leave_a_corpse(a, slot)->shared[bucket / 64], 1ull << bucket % 64);
}

static void owe_a_write(struct attachment *a, uint32_t slot) { store_release(&leave_a_corpse(a, slot)->verb_hash, target.hash); }

static void corpse_with_intent(struct attachment *a) { owe_an_intent(a, SLOT_OF_THE_DEAD); }
static void corpse_with_shared_intent(struct attachment *a) { owe_a_shared_intent(a, SLOT_OF_THE_DEAD); }
static void corpse_with_write(struct attachment *a) { owe_a_write(a, SLOT_OF_THE_DEAD); }

/* Its sweeper died too: the debts are announced, and not forgotten. */
static void corpse_of_a_sweeper(struct attachment *a)
{
    owe_an_intent(a, SLOT_OF_THE_DEAD);
    cache_delete(a, target.hash);
    uint64_t sweeper = (uint64_t)(SLOT_OF_THE_DEAD + 1) << ROSTER_SWEEPER_SHIFT | 1ull << ROSTER_SWEEPER_GEN_SHIFT;
    store_release(&a->roster[SLOT_OF_THE_DEAD].word, (uint64_t)LIFE_OF_THE_DEAD << ROSTER_GEN_SHIFT | sweeper | SLOT_SWEPT);
}

/* No slot is free: whoever joins takes that of a dead process, which owes. */
static void fill_roster(struct attachment *a)
{
    for (uint32_t slot = 2; slot < a->geo.roster_slots; slot++)
        store_release(&a->roster[slot].word, (uint64_t)1 << ROSTER_GEN_SHIFT | SLOT_LIVE);
    raise_max(&a->header->roster_high, a->geo.roster_slots);
}

static void full_with_intent(struct attachment *a) { owe_an_intent(a, 1), fill_roster(a); }
static void full_with_shared_intent(struct attachment *a) { owe_a_shared_intent(a, 1), fill_roster(a); }
static void full_with_write(struct attachment *a) { owe_a_write(a, 1), fill_roster(a); }

static void enter_block(struct attachment *a) { roster_intend(a, target.hash); }

/* As if all intents were taken. */
static void enter_shared_block(struct attachment *a)
{
    uint32_t slots = a->geo.intent_slots;
    a->geo.intent_slots = 0;
    roster_intend(a, target.hash);
    a->geo.intent_slots = slots;
}

void set_1_expiring_now(struct attachment *a) { set_expiring(a); }
void set_1_local(struct attachment *a) { set_local(a); }

/* As if its writer had died before the verdict; other keys that stood before it have gone. */
static void leave_pending(struct attachment *a)
{
    struct entry_ref e;
    REQUIRE(index_find(a, target.hash, target.text, target.bytes, &e), "no value");
    store_release((a64 *)&e.at[ENTRY_VERSION], version_word(e.version, e.key_bytes) | ENTRY_UNDECIDED);
    struct candidates c = index_candidates(a, target.hash);
    store_release(e.word_at, 0);
    store_release(index_word(&c, CANDIDATE_WORDS - 1), e.word | INDEX_PENDING);
}

void set_1_pending(struct attachment *a) { set_1(a), leave_pending(a); }
void add_7_pending(struct attachment *a) { add_7(a), leave_pending(a); }

/* A value of two pages: the writer turns its page while it writes one value. */
static void set_pages(struct attachment *a)
{
    struct write w = target_write(11, a->geo.page_bytes + 100);
    enum store r = cache_set(a, &w);
    REQUIRE(r == STORED || r == STORE_LOST || r == STORE_GUARDED, "a value of two pages: %d", (int)r);
}

static bool buckets_full(const struct attachment *a)
{
    struct candidates c = index_candidates(a, target.hash);
    for (int i = 0; i < CANDIDATE_WORDS; i++)
        if (!load_relaxed(index_word(&c, i)))
            return false;
    return true;
}

/* Both buckets of TARGET full of other keys: the next must evict one. By fills: their records would lap the ring. */
static void fill_buckets(struct attachment *a)
{
    for (uint32_t key = 1000; !buckets_full(a); key++) {
        fill_other(a, key, 16);
        REQUIRE(key < 200000, "the buckets do not fill");
    }
}

/* Both buckets of COUNTER full of what is worth more than a new count. */
void fill_counters_buckets(struct attachment *a)
{
    struct candidates c = index_candidates(a, counter.hash);
    fill_other(a, OTHER, 16);
    uint64_t elsewhere = 0;
    for (uint32_t i = 0; !elsewhere; i++)
        elsewhere = load_relaxed(&a->index[i]);
    for (int i = 0; i < CANDIDATE_WORDS; i++) /* an entry of another key, under as many tags */
        store_release(index_word(&c, i), ((elsewhere & ~INDEX_TAG_MASK) | (uint64_t)(i + 1) << INDEX_TAG_SHIFT) | INDEX_FREQ_MASK);
}

static void write_in_block(struct attachment *a)
{
    struct write w = target_write(12, 48);
    uint64_t intent = roster_intend(a, target.hash);
    cache_set_fenced(a, &w, ring_tail(a), clock_ms(a));
    roster_settle(a, intent);
}

static void delete_in_block(struct attachment *a)
{
    uint64_t intent = roster_intend(a, target.hash);
    cache_delete(a, target.hash);
    roster_settle(a, intent);
}

static uint32_t put_record(unsigned char *out, enum wire_kind kind, uint64_t hash)
{
    out[0] = (unsigned char)kind;
    memcpy(out + 1, &hash, 8);
    return kind == WIRE_ALL ? 1 : 9;
}

static void apply_batch(struct attachment *a)
{
    unsigned char in[5 * WIRE_RECORD_BYTES_MAX];
    uint32_t n = 0, applied;
    n += put_record(in + n, WIRE_KEY, other.hash);
    n += put_record(in + n, WIRE_TAG, scene_tag);
    n += put_record(in + n, WIRE_KEY, target.hash);
    n += put_record(in + n, WIRE_ALL, 0);
    n += put_record(in + n, WIRE_KEY, target.hash);
    REQUIRE(relay_apply(a, 7, in, n, &applied) == RELAY_OK && applied == 5, "apply a batch");
}

void heal(struct attachment *a)
{
    uint64_t cursor = 0;
    relay_heal(a, &cursor, 100);
}

static void become_bridge(struct attachment *a) { REQUIRE(segment_become_bridge(a), "there is a bridge already"); }

void get_target(struct attachment *a) { number_read(a); }

void find_target_there(struct attachment *a)
{
    struct entry_ref e;
    REQUIRE(index_find(a, target.hash, target.text, target.bytes, &e), "a look-up misses a value that is there");
}

static void leave_a_lease(struct attachment *a)
{
    struct lease_hold hold;
    lease_wanted(a, target.hash, &hold);
    a64 *word = &a->leases[hold.index].word;
    store_release(word, (load_relaxed(word) & ~0xfffull) | SLOT_OF_THE_DEAD);
    corpse_with_intent(a);
}

/* The dead held it, and another claims it, in two places. */
static void leave_locks(struct attachment *a)
{
    uint32_t first = reduce32((uint32_t)target.hash, lock_slots(&a->geo)), n = lock_slots(&a->geo);
    uint64_t dead = holder_hash(target.hash) | LIFE_OF_THE_DEAD << HOLDER_GEN_SHIFT | SLOT_OF_THE_DEAD;
    REQUIRE(cas128(&a->locks[(first + 3) % n].held, 0, 0, dead, 5), "a claim");
    REQUIRE(cas128(&a->locks[(first + 1) % n].held, 0, 0, dead, 6), "a claim");
    corpse_with_intent(a);
}

/* ---- scenes ---- */

const struct scene scenes[SCENES] = {
    {"set, new", do_nothing, do_nothing, set_1},
    {"set, overwrite", set_1, have_a_page, set_2},
    {"set over a local value", set_1_local, have_a_page, set_2},
    {"set, local, overwrite", set_1, have_a_page, set_local},
    {"set, ttl 0", set_1, do_nothing, set_nothing},
    {"set, turning a page", fill_pages, nearly_full, set_that_turns, true},
    {"set, large", set_1, do_nothing, set_large},
    {"set, of two pages", set_1, do_nothing, set_pages, true, SCENE_BYTES_LARGE},
    {"set, both buckets full", fill_buckets, have_a_page, set_1, true, SCENE_BYTES_LARGE},
    {"fill, new", do_nothing, have_a_page, fill_8},
    {"fill, of an old token", do_nothing, have_a_page, fill_late},
    {"fill over an expired value", set_1_expiring_now, have_a_page, fill_8},
    {"late fill over an expired value", set_1_expiring_now, have_a_page, fill_late},
    {"late fill over a value", set_1, have_a_page, fill_late},
    {"add, new", do_nothing, have_a_page, add_7},
    {"add over an expired value", set_1_expiring_now, have_a_page, add_7},
    {"add over a value", set_1, have_a_page, add_13},
    {"add, a set pending", set_1_pending, have_a_page, add_13},
    {"add, an add pending", add_7_pending, have_a_page, add_13},
    {"set, an add pending", add_7_pending, have_a_page, set_1},
    {"delete, an add pending", add_7_pending, do_nothing, delete_target},
    {"fenced set, new", do_nothing, have_a_page, fenced_10},
    {"fenced set, overwrite", set_1, have_a_page, fenced_10},
    {"delete", set_1, do_nothing, delete_target},
    {"touch", set_1, have_a_page, touch_target},
    {"get, sliding", do_nothing, have_a_page, slide},
    {"incr", have_a_count, have_a_page, incr_counter, true},
    {"incr, begun", do_nothing, have_a_page, count_up, true},
    {"incr, turning a page", count_in_full_pages, nearly_full, incr_turning, true},
    {"delete_tag", set_1, do_nothing, delete_tag},
    {"clear", set_1, do_nothing, clear_all},
    {"apply, key", set_1, do_nothing, apply_key},
    {"apply, same digest", set_1, do_nothing, apply_same},
    {"apply, other digest", set_1, do_nothing, apply_different},
    {"apply, tag", set_1, do_nothing, apply_tag},
    {"apply, flush", set_1, do_nothing, apply_all},
    {"apply, a bucket", set_1, do_nothing, apply_bucket},
    {"apply, a tag's slot", set_1, do_nothing, apply_tag_slot},
    {"apply, a batch", set_1, do_nothing, apply_batch, true},
    {"heal", set_1, do_nothing, heal},
    {"apply, an order", set_1, do_nothing, apply_key, .prewarms = true},
    {"load ahead", order_target, have_a_page, load_ahead, .prewarms = true},
    {"load ahead, in the main queue", order_target_in_main, have_a_page, load_ahead, true, .prewarms = true},
    {"get, loaded ahead", have_loaded_ahead, do_nothing, get_target, true, .prewarms = true},
    {"set, loaded ahead", have_loaded_ahead, have_a_page, set_2, .prewarms = true},
    {"get", set_1, do_nothing, get_target},
    {"writing, nothing", set_1, do_nothing, open_writing, true},
    {"writing, a value", set_1, have_a_page, write_in_block},
    {"writing, a delete", set_1, do_nothing, delete_in_block},
    {"lease", set_1, do_nothing, take_lease, true},
    {"lease of the dead", leave_a_lease, do_nothing, take_lease, true},
    {"lock", set_1, do_nothing, take_lock, true},
    {"locks of the dead", leave_locks, do_nothing, take_lock, true},
    {"become the bridge", set_1, do_nothing, become_bridge, true},
    {"sweep, an intent", corpse_with_intent, do_nothing, sweep, true, 0, true},
    {"sweep, a shared intent", corpse_with_shared_intent, do_nothing, sweep, true, 0, true},
    {"sweep, a write under way", corpse_with_write, do_nothing, sweep, true, 0, true},
    {"sweep after a sweeper", corpse_of_a_sweeper, do_nothing, sweep, true},
    {"leave", set_1, nearly_full, leave, true},
    {"leave a block", set_1, enter_block, leave, true, 0, true},
    {"leave a shared block", set_1, enter_shared_block, leave, true, 0, true},
    {"join", set_1, NULL, NULL, true},
    {"join, an intent", full_with_intent, NULL, NULL, true, 0, true},
    {"join, a shared intent", full_with_shared_intent, NULL, NULL, true, 0, true},
    {"join, a write under way", full_with_write, NULL, NULL, true, 0, true},
};

void begin_run(void)
{
    memcpy(here.base, start_image, here.geo.total_bytes);
    here = here_before;
}

void set_up(const struct scene *s)
{
    scene_file = memory_file();
    scene_config = plain_config(s->bytes ? s->bytes : SCENE_BYTES);
    scene_config.has_bridge = true;
    scene_config.prewarms = s->prewarms;
    scene_config.prewarm_weight = 3;
    attach_to(&here, scene_file, &scene_config);
    here.frozen_ms = FROZEN_MS;
    target = key_named(&here, TARGET);
    other = key_named(&here, OTHER);
    counter = key_named(&here, COUNTER);
    set_other(&here, OTHER, 100);
    s->before(&here);
    start_token = ring_tail(&here);
    here_before = here;
    start_image = malloc(here.geo.total_bytes);
    memcpy(start_image, here.base, here.geo.total_bytes);
    forget_the_way();
}

void tear_down(void)
{
    begin_run();
    segment_detach(&here);
    close(scene_file);
    free(start_image);
}

void note_digest(void)
{
    struct entry_ref e;
    set_up(&scenes[1]);
    REQUIRE(index_find(&here, target.hash, target.text, target.bytes, &e), "no value");
    digest_of_set_1 = entry_digest(&here, &e);
    tear_down();
}
