/* torture_wire.c - whatever a peer may send, into a segment: payloads, and positions that no ring has.
 *
 * An input is a script of a few verbs: payloads raw, or made of records that look right (keys and tags that are there,
 * a bit beside them, digests that fit) and then cut or spoiled; own writes between them; pack, heal and owes from any
 * position, into a buffer of any size.
 *
 *   A payload is applied whole, or refused and nothing has changed.
 *   What it names is gone, but for a value whose digest it gives, and what is local; what it does not name is still there.
 *   What is packed keeps within its bounds, moves the cursor forward, and would be accepted by a peer.
 *   A frame of what was healed lies within its buffer, and says what is packed of the same records.
 *
 * Every buffer is exactly as large as is said, so that AddressSanitizer sees one byte beyond it.
 *
 * Its power (each break made in a copy of the core; guided inputs until caught, from none; random ones took a second or two)
 *
 *   a cursor above the tail is packed from    11      a key's eviction left out            3,401
 *   a payload is applied up to its bad byte   25      a digest taken to fit                5,427
 *   a record's kind unbounded                 29      local values not spared              5,431
 *   a record's length unbounded              501      the buffer's size not looked at      8,698
 *
 * Not caught, since a second bound holds: a digest compared with that of a value in spans (there is none).
 *
 *   torture_wire [seconds]            random inputs
 *   torture_wire 0 input N            the one of that number again
 *   fuzz_wire -runs=N CORPUS          the same, guided by what the core's branches see (`make fuzz`, with clang)
 */
#include "relay_buckets.h"
#include "stream_out.h"
#include "torture.h"

enum { SEGMENT_BYTES = 1 << 20, KEYS = 8, TAGS = 2, LOCAL_KEY = 5, TAGGED_KEY = 6, WIDE_KEY = 7, INPUT_BYTES_MAX = 512 };
enum { VERBS_MAX = 64, RECORDS_MAX = 24, PACK_BYTES_MAX = 4096, NARROW = 40, WIDE = 20000 };
enum { INPUTS, VERBS, APPLIED, REFUSED, PACKED, FRAMED };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static struct scene {
    struct attachment a;
    uint64_t digest[KEYS]; /* 0: no digest fits, as of values in spans and of local ones */
    bool here[KEYS];
    bool open;
} scene;

static uint64_t tag_hash(uint32_t tag) { return 0x7461670000000001ull + tag; }

/* ---- the input ---- */

struct script {
    const uint8_t *at, *end;
};

static uint64_t word(struct script *s, uint32_t bytes)
{
    uint64_t w = 0;
    for (; bytes > 0 && s->at < s->end; bytes--)
        w = w << 8 | *s->at++;
    return w;
}

static uint32_t below(struct script *s, uint32_t n) { return (uint32_t)word(s, 1) % n; }

/* A position near one that means something, or any. */
static uint64_t position(struct script *s)
{
    uint64_t tail = ring_tail(&scene.a), near[] = {tail, 0, tail - scene.a.geo.ring_slots, 1ull << 31, 1ull << 63, UINT64_MAX};
    uint32_t which = below(s, 8);
    return which < 6 ? near[which] + below(s, 16) - 8 : word(s, 8);
}

/* ---- the segment ---- */

static struct write some_value(uint32_t key, struct named_key *k)
{
    static unsigned char value[WIDE];
    *k = key_named(&scene.a, key);
    value_make(value, key, 1, NARROW);
    struct write w = write_of(k, value, key == WIDE_KEY ? WIDE : NARROW);
    w.local = key == LOCAL_KEY;
    w.tags = key == TAGGED_KEY;
    w.tag[0] = tag_hash(0);
    return w;
}

static void put(uint32_t key)
{
    struct named_key k;
    struct write w = some_value(key, &k);
    REQUIRE(cache_fill(&scene.a, &w, ring_tail(&scene.a), scene.a.frozen_ms) == STORED, "fill of key %u", key);
    scene.here[key] = true;
}

static bool is_here(uint32_t key)
{
    static unsigned char value[WIDE];
    uint32_t bytes;
    struct named_key k = key_named(&scene.a, key);
    return read_value(&scene.a, &k, value, &bytes) && value_number(value, bytes < NARROW ? bytes : NARROW, key) == 1;
}

static void check_all(const char *after)
{
    for (uint32_t key = 0; key < KEYS; key++)
        REQUIRE(is_here(key) == scene.here[key], "%s: key %u %s", after, key, scene.here[key] ? "is gone" : "is still there");
}

static void learn_digest(uint32_t key)
{
    unsigned char out[WIRE_RECORD_BYTES_MAX];
    struct named_key k;
    struct write w = some_value(key, &k);
    uint64_t cursor = ring_tail(&scene.a);
    uint32_t used;
    REQUIRE(cache_set(&scene.a, &w) == STORED, "set of key %u", key);
    REQUIRE(relay_pack(&scene.a, &cursor, 1, out, sizeof out, &used) == RELAY_OK, "pack of key %u", key);
    if (used == WIRE_RECORD_BYTES_MAX)
        memcpy(&scene.digest[key], out + 9, 8);
    REQUIRE((scene.digest[key] != 0) == (key != WIDE_KEY && key != LOCAL_KEY), "digest of key %u", key);
    scene.here[key] = true;
}

static void begin(void)
{
    if (!torture.counters)
        torture.counters = shared_zeroes(COUNTERS * sizeof(a64)); /* guided: nobody has begun */
    if (!scene.open) {
        struct segment_config config = plain_config(SEGMENT_BYTES);
        config.has_bridge = true;
        attach_to(&scene.a, memory_file(), &config);
        scene.a.frozen_ms = 1000000;
        for (uint32_t key = 0; key < KEYS; key++)
            learn_digest(key);
        scene.open = true;
    }
    for (uint32_t key = 0; key < KEYS; key++)
        if (!scene.here[key])
            put(key);
}

/* ---- what a payload means, told independently of relay.c ---- */

static uint32_t length_of(unsigned kind)
{
    bool hash_alone = kind == WIRE_KEY || kind == WIRE_TAG || kind == WIRE_KEY_UNKNOWN;
    return hash_alone ? 9 : kind == WIRE_KEY_SET ? 17 : kind == WIRE_CLEAR || kind == WIRE_ALL || kind == WIRE_ALL_KNOWN ? 1 : 0;
}

/* How many records; -1: malformed. */
static int records_in(const unsigned char *in, uint32_t bytes)
{
    int n = 0;
    for (uint32_t at = 0, length; at < bytes; at += length, n++)
        if ((length = length_of(in[at])) == 0 || length > bytes - at)
            return -1;
    return n;
}

static bool evicts(const unsigned char *record, uint32_t key)
{
    uint64_t hash = 0, digest = 0;
    memcpy(&hash, record + 1, length_of(record[0]) > 1 ? 8 : 0);
    memcpy(&digest, record + 9, length_of(record[0]) > 9 ? 8 : 0);
    if (key == LOCAL_KEY)
        return false;
    switch (record[0]) {
    case WIRE_KEY:
    case WIRE_KEY_UNKNOWN:
        return hash == key_named(&scene.a, key).hash;
    case WIRE_KEY_SET:
        return hash == key_named(&scene.a, key).hash && (digest != scene.digest[key] || !digest);
    case WIRE_TAG: /* another tag may share its fence: evicts more, never less */
        return key == TAGGED_KEY && (hash == tag_hash(0) || !is_here(key));
    default:
        return true;
    }
}

static void apply(unsigned char *in, uint32_t bytes, uint16_t source)
{
    uint64_t tail = ring_tail(&scene.a);
    uint32_t applied = 99;
    int records = records_in(in, bytes);
    enum relay r = relay_apply(&scene.a, source, in, bytes, &applied);
    REQUIRE(r == (records < 0 ? RELAY_MALFORMED : RELAY_OK), "a payload of %d records: %d", records, (int)r);
    uint32_t moved = records < 0 ? 0 : (uint32_t)records;
    REQUIRE(applied == moved && ring_tail(&scene.a) == tail + moved, "%u of %u records applied, %llu positions", applied, moved,
            (unsigned long long)(ring_tail(&scene.a) - tail));
    for (uint32_t at = 0; records >= 0 && at < bytes; at += length_of(in[at]))
        for (uint32_t key = 0; key < KEYS; key++)
            scene.here[key] &= !evicts(in + at, key);
    check_all("applied");
    tally(records < 0 ? REFUSED : APPLIED);
}

/* ---- verbs ---- */

static void apply_raw(struct script *s)
{
    uint32_t wanted = below(s, 256), left = (uint32_t)(s->end - s->at), bytes = wanted < left ? wanted : left;
    unsigned char *in = malloc(bytes);
    memcpy(in, s->at, bytes);
    s->at += bytes;
    apply(in, bytes, (uint16_t)(1 + below(s, 3)));
    free(in);
}

static uint64_t some_hash(struct script *s, uint32_t key)
{
    uint32_t which = below(s, 16);
    uint64_t hash = which < 2 ? tag_hash(which % TAGS) : key_named(&scene.a, key).hash;
    return which == 2 ? word(s, 8) : which == 3 ? hash ^ 1ull << below(s, 64) : hash;
}

static uint32_t make_record(struct script *s, unsigned char *out)
{
    uint32_t key = below(s, KEYS), kind = below(s, 65);
    uint64_t hash = some_hash(s, key), digest = below(s, 4) ? scene.digest[key] : word(s, 8);
    static const unsigned char usual[] = {WIRE_KEY, WIRE_KEY_SET, WIRE_KEY_SET, WIRE_KEY_SET, WIRE_TAG};
    out[0] = kind < 60 ? usual[kind % 5] : (unsigned char)(WIRE_CLEAR + kind - 60); /* CLEAR, ALL, none, KEY_UNKNOWN, ALL_KNOWN */
    memcpy(out + 1, &hash, 8);
    memcpy(out + 9, &digest, 8);
    return length_of(out[0]) ? length_of(out[0]) : 1;
}

static void apply_made(struct script *s)
{
    unsigned char made[RECORDS_MAX * WIRE_RECORD_BYTES_MAX];
    uint32_t bytes = 0, spoil = below(s, 8);
    for (uint32_t n = below(s, RECORDS_MAX + 1); n > 0; n--)
        bytes += make_record(s, made + bytes);
    if (spoil == 1 && bytes)
        bytes -= below(s, bytes < 17 ? bytes : 17);
    if (spoil == 2 && bytes)
        made[word(s, 2) % bytes] = (unsigned char)word(s, 1);
    unsigned char *in = malloc(bytes);
    memcpy(in, made, bytes);
    apply(in, bytes, (uint16_t)(1 + word(s, 2) % SOURCE_SLOTS_MAX));
    free(in);
}

static void write_own(struct script *s)
{
    uint32_t key = below(s, KEYS);
    switch (below(s, 8)) {
    case 0:
        cache_clear(&scene.a);
        for (uint32_t i = 0; i < KEYS; i++)
            scene.here[i] = is_here(i); /* what a clear of one's own spares is not the question here */
        return;
    case 1:
        cache_delete_tag(&scene.a, tag_hash(0));
        scene.here[TAGGED_KEY] = false;
        return;
    case 2:
        cache_delete(&scene.a, key_named(&scene.a, key).hash);
        scene.here[key] = false;
        return;
    default:
        if (!scene.here[key])
            put(key);
    }
}

static void pack(struct script *s)
{
    uint64_t cursor = position(s), before = cursor;
    uint32_t records_max = below(s, 8) ? below(s, 256) : (uint32_t)word(s, 4), used = 0;
    uint32_t bytes = WIRE_RECORD_BYTES_MAX + (below(s, 2) ? below(s, 64) : (uint32_t)word(s, 2) % PACK_BYTES_MAX);
    unsigned char *out = malloc(bytes);
    enum relay r = relay_pack(&scene.a, &cursor, records_max, out, bytes, &used);
    REQUIRE(r == RELAY_OK || (r == RELAY_LAPPED && cursor == before), "pack: %d", (int)r);
    if (r == RELAY_OK) {
        REQUIRE(used <= bytes && cursor >= before && cursor - before <= records_max && cursor <= ring_tail(&scene.a), "pack's bounds");
        REQUIRE(records_in(out, used) >= 0, "pack made what a peer refuses");
        tally(PACKED);
    }
    free(out);
}

/* The frame's bytes lie in its buffer, and say what packing says. */
static void frame_of(struct script *s, uint64_t cursor, uint64_t end)
{
    static const unsigned char any_head[FRAME_HEAD_BYTES_MAX + 1];
    struct stream_frame *frame = malloc(sizeof *frame);
    struct stream_head head = {.at = any_head, .bytes = below(s, 2) ? (uint32_t)sizeof any_head - below(s, 3) : below(s, 40)};
    uint64_t after = cursor - (below(s, 2) ? 0 : (uint32_t)word(s, 4)), first, last;
    uint64_t to = cursor;
    uint32_t records_max = end - cursor < UINT32_MAX ? (uint32_t)(end - cursor) : UINT32_MAX, used, bytes;
    unsigned char packed[PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX];
    bool made = stream_out(&scene.a, &head, after, cursor, end, frame);
    bool may = head.bytes <= FRAME_HEAD_BYTES_MAX && after <= cursor && cursor <= end && end <= FRAME_POSITION_MAX;
    bool packs = may && relay_pack(&scene.a, &to, records_max, packed, sizeof packed, &used) == RELAY_OK;
    REQUIRE(made == packs, "a frame is made of what cannot be packed, or is not made of what can");
    REQUIRE(made || frame->bytes == 0, "a frame that was not made has bytes");
    if (made) {
        REQUIRE(frame->to == to && (frame->bytes > 0) == (used > 0), "the frame speaks of other records");
        REQUIRE(frame->at >= frame->buffer && frame->at + frame->bytes <= frame->buffer + sizeof frame->buffer, "beyond its buffer");
    }
    if (made && used > 0) {
        const unsigned char *end_of = frame->at + frame->bytes, *at = frame->at + FRAME_PREFIX_BYTES + head.bytes;
        REQUIRE(frame_length(frame->at) == frame->bytes - 4 && frame->at[4] == FRAME_TYPE, "the prefix");
        REQUIRE(memcmp(frame->at + FRAME_PREFIX_BYTES, head.at, head.bytes) == 0, "the head");
        at = frame_take_uint(at, end_of, &first);
        at = at ? frame_take_uint(at, end_of, &last) : NULL;
        at = at ? frame_take_bin(at, end_of, &bytes) : NULL;
        REQUIRE(at && first == after + 1 && last == to && at + bytes == end_of, "the range or the length");
        REQUIRE(bytes == used && memcmp(at, packed, used) == 0, "the payload");
        tally(FRAMED);
    }
    free(frame);
}

static void heal(struct script *s)
{
    uint64_t cursor = position(s), before = cursor;
    relay_heal(&scene.a, &cursor, (uint32_t)word(s, 2));
    REQUIRE(cursor <= ring_tail(&scene.a), "healed beyond the tail");
    frame_of(s, before, below(s, 16) ? cursor : before - 1);
    for (uint32_t key = 0; key < KEYS; key++) { /* it may evict again what was filled since, and brings nothing back */
        bool here = is_here(key);
        REQUIRE(!here || scene.here[key], "healing brought key %u back", key);
        scene.here[key] = here;
    }
}

static void ask(struct script *s)
{
    uint64_t cursor = position(s);
    bool owed = relay_owes(&scene.a, cursor);
    REQUIRE(owed || cursor <= ring_tail(&scene.a), "nothing is owed beyond the tail");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const verbs[])(struct script *) = {apply_raw, apply_made, apply_made, apply_made, write_own, pack, heal, ask};
    struct script s = {data, data + bytes};
    begin();
    for (int n = 0; s.at < s.end && n < VERBS_MAX; n++) {
        verbs[below(&s, 8)](&s);
        tally(VERBS);
    }
    check_all("at the end");
    return 0;
}

#ifndef GUIDED
enum { INPUTS_MIN = 2000 }; /* however busy the machine is */

static void run_number(uint64_t number)
{
    unsigned char input[INPUT_BYTES_MAX];
    struct chance c = {number};
    uint32_t bytes = chance_below(&c, INPUT_BYTES_MAX + 1);
    for (uint32_t i = 0; i < bytes; i++)
        input[i] = (unsigned char)chance_next(&c);
    store_release(&torture.counters[INPUTS], number);
    LLVMFuzzerTestOneInput(input, bytes);
}

static void run_many(void *first)
{
    alarm(0); /* the program's own is enough */
    double until = seconds_now() + torture.seconds;
    uint64_t number = *(uint64_t *)first, enough = number + INPUTS_MIN;
    while (seconds_now() < until || number < enough)
        run_number(number++);
}

int main(int argc, char **argv)
{
    torture_begin(argc, argv, "torture_wire");
    uint64_t first = argc > 3 && strcmp(argv[2], "input") == 0 ? strtoull(argv[3], NULL, 10) : 0;
    if (first) {
        run_number(first);
        return 0;
    }
    first = (uint64_t)(seconds_now() * 1e9);
    bool well = in_child(run_many, &first);
    if (!well)
        FAIL("input %llu", (unsigned long long)tallied(INPUTS));
    printf("wire: %llu inputs, %llu verbs, %llu payloads applied, %llu refused, %llu packed, %llu framed\n",
           (unsigned long long)(tallied(INPUTS) - first + 1),
           (unsigned long long)tallied(VERBS), (unsigned long long)tallied(APPLIED), (unsigned long long)tallied(REFUSED),
           (unsigned long long)tallied(PACKED), (unsigned long long)tallied(FRAMED));
    return 0;
}
#endif
