/* torture_stream_in.c - whatever a link may bring, through the way in of the bridge's data path.
 *
 * An input is a script: messages that follow each other as a source sends them, some of them odd (a gap, a duplicate, another
 * head, a longer form of a number, a byte too many, a payload that is refused), then cut anywhere and spoiled anywhere.
 *
 *   What is taken is what a second parser (below, written in another way) calls ordinary and in order: as many frames, as
 *   many bytes, and not one more.
 *   The ring moves by the records of these frames and by nothing else; the slot has the cursor of the last of them.
 *
 * Every buffer is exactly as large as is said, so that AddressSanitizer sees one byte beyond it.
 *
 * Its power: each check of stream_in.c and frame_layout.h was left out in a copy of the core, one at a time. These were
 * caught within four seconds of random inputs, mostly within one: a whole message, its type, the head and the room for it, bytes behind
 * the payload, positions of 2^63 and more, a gap, a duplicate, a payload that is the record ALL, one that is malformed, the number of
 * frames, the cursor in the segment, a number or a payload's header that begins or goes on beyond the end, a payload's code.
 * Not caught, since a second bound holds: the length of a message (a payload of its size is too long), a payload's bytes beyond the
 * end (it has to end with the message). A payload of more than FRAME_KEYS_BYTES_MAX is too long for these inputs; it is tested
 * from Python (tests/bridge/test_taken_frames.py).
 *
 *   torture_stream_in [seconds]            random inputs
 *   torture_stream_in 0 input N            the one of that number again
 *   fuzz_stream_in -runs=N CORPUS          the same, guided by what the core's branches see (`make fuzz`, with clang)
 */
#include "peers.h"
#include "stream_in.h"
#include "torture.h"

enum { SEGMENT_BYTES = 1 << 20, INPUT_BYTES_MAX = 512, MESSAGES_MAX = 12, MESSAGE_BYTES_MAX = 512, SLOT = 3 };
enum { INPUTS, MESSAGES, TAKEN, LEFT };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const unsigned char head[] = {0x96, 0xa4, 's', 'h', 'o', 'p', 0xa5, 'w', 'e', 'b', '-', '1', 0xcd, 0x03, 0xe8};
static struct attachment attached;

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

/* ---- what a link brings ---- */

struct link {
    unsigned char bytes[MESSAGES_MAX * MESSAGE_BYTES_MAX];
    size_t n;
    uint64_t next; /* the position that a frame in order begins with */
};

/* A number in its shortest form (0), in one of u8 to u64 (1 to 4), or as if it were signed (5 to 8). */
static unsigned char *put_number(unsigned char *at, uint64_t number, uint32_t form)
{
    if (form == 0)
        return frame_put_uint(at, number);
    *at = (unsigned char)(0xcb + form);
    return frame_put_number(at + 1, number, 1u << ((form - 1) & 3));
}

static unsigned char *put_payload(struct script *s, unsigned char *at)
{
    static const uint8_t length_of[] = {1, 9, 17, 9, 1, 1, 1, 9, 1};
    unsigned char records[4 * WIRE_RECORD_BYTES_MAX];
    uint32_t bytes = 0;
    for (uint32_t n = below(s, 4); n > 0; n--) {
        uint32_t kind = below(s, 32) ? 1 + below(s, 3) : below(s, sizeof length_of);
        records[bytes] = (unsigned char)kind;
        for (uint32_t i = 1; i < length_of[kind]; i++)
            records[bytes + i] = (unsigned char)(i == 1 ? below(s, 256) : 0);
        bytes += length_of[kind];
    }
    if (bytes && !below(s, 16))
        bytes--;
    uint32_t form = below(s, 8) ? 0 : below(s, 3);
    *at = (unsigned char)(0xc4 + form);
    at = frame_put_number(at + 1, bytes, 1u << form);
    memcpy(at, records, bytes);
    return at + bytes;
}

static unsigned char *put_body(struct script *s, unsigned char *at, uint64_t first, uint64_t last)
{
    memcpy(at, head, sizeof head);
    if (!below(s, 16))
        at[below(s, sizeof head)] ^= (unsigned char)(1 << below(s, 8));
    at = put_number(at + sizeof head, first, below(s, 8) ? 0 : below(s, 9));
    at = put_number(at, last, below(s, 8) ? 0 : below(s, 9));
    at = put_payload(s, at);
    if (!below(s, 32))
        *at++ = (unsigned char)below(s, 256);
    return at;
}

static void put_message(struct script *s, struct link *link, uint32_t seal_bytes)
{
    uint64_t first = link->next, last;
    uint32_t odd = below(s, 16);
    first += odd == 1 ? 1 + below(s, 3) : odd == 2 ? -(uint64_t)below(s, 6) : 0;
    last = odd == 3 ? first - 1 : odd == 4 ? word(s, 8) : first + below(s, 4);
    unsigned char *at = link->bytes + link->n, *end = put_body(s, at + FRAME_PREFIX_BYTES, first, last);
    if (below(s, 8) == 1)
        end = at + FRAME_PREFIX_BYTES + below(s, sizeof head + 12);
    uint32_t body = (uint32_t)(end - at) - FRAME_PREFIX_BYTES;
    frame_put_prefix(at, below(s, 32) ? body : body + below(s, 5) - 2);
    if (!below(s, 32))
        at[4] = (unsigned char)below(s, 12);
    memset(end, 0xee, seal_bytes);
    link->n += (size_t)(end - at) + seal_bytes;
    if (odd < 1 || odd > 4)
        link->next = last + 1;
    tally(MESSAGES);
}

/* ---- the second reader: field by field, as msgpack has them ---- */

struct reader {
    const unsigned char *at;
    size_t left;
    bool bad;
};

static unsigned read_byte(struct reader *r)
{
    r->bad |= r->left == 0;
    if (r->bad)
        return 0;
    r->left--;
    return *r->at++;
}

static uint64_t read_big(struct reader *r, uint32_t bytes)
{
    uint64_t number = 0;
    while (bytes-- > 0)
        number = number << 8 | read_byte(r);
    return number;
}

static uint64_t read_uint(struct reader *r)
{
    unsigned code = read_byte(r);
    switch (code) {
    case 0xcc:
        return read_big(r, 1);
    case 0xcd:
        return read_big(r, 2);
    case 0xce:
        return read_big(r, 4);
    case 0xcf:
        return read_big(r, 8);
    default:
        r->bad |= code > 0x7f;
        return code;
    }
}

static struct reader read_bin(struct reader *r)
{
    unsigned code = read_byte(r);
    r->bad |= code != 0xc4 && code != 0xc5 && code != 0xc6;
    uint64_t bytes = r->bad ? 0 : read_big(r, code == 0xc4 ? 1 : code == 0xc5 ? 2 : 4);
    r->bad |= bytes > r->left;
    struct reader payload = {r->at, r->bad ? 0 : bytes, false};
    r->at += payload.left;
    r->left -= payload.left;
    return payload;
}

/* How many records; -1: malformed, or the one record ALL. */
static int records_in(struct reader payload)
{
    static const int rest_of[] = {-1, 8, 16, 8, 0, 0, -1, 8, 0};
    int records = 0;
    bool all = payload.left == 1 && (payload.at[0] == WIRE_ALL || payload.at[0] == WIRE_ALL_KNOWN);
    for (; payload.left > 0; records++) {
        unsigned kind = read_byte(&payload);
        if (kind >= sizeof rest_of / sizeof rest_of[0] || rest_of[kind] < 0 || payload.left < (size_t)rest_of[kind])
            return -1;
        read_big(&payload, (uint32_t)rest_of[kind]);
    }
    return all ? -1 : records;
}

struct expected {
    size_t bytes;
    uint64_t cursor;
    uint32_t frames, payloads;
    uint64_t records;
};

/* Whether the message at the reader's place is to be taken; then the reader stands behind it. */
static bool expect_one(struct reader *r, uint32_t seal_bytes, struct expected *e)
{
    if (r->left < FRAME_PREFIX_BYTES)
        return false;
    uint64_t length = (uint64_t)r->at[3] << 24 | (uint64_t)r->at[2] << 16 | (uint64_t)r->at[1] << 8 | r->at[0];
    if (length == 0 || length > FRAME_BYTES_MAX || 4 + length + seal_bytes > r->left || r->at[4] != FRAME_TYPE)
        return false;
    struct reader body = {r->at + FRAME_PREFIX_BYTES, (size_t)length - 1, false};
    for (size_t i = 0; i < sizeof head; i++)
        if (read_byte(&body) != head[i])
            return false;
    uint64_t first = read_uint(&body), last = read_uint(&body);
    struct reader payload = read_bin(&body);
    int records = body.bad || body.left ? -1 : records_in(payload);
    if (records < 0 || first == 0 || last < first || last >> 63 || first > e->cursor + 1 || last <= e->cursor)
        return false;
    *e = (struct expected){e->bytes + 4 + (size_t)length + seal_bytes, last, e->frames + 1, e->payloads + (payload.left > 0),
                           e->records + (uint64_t)records};
    r->at += 4 + length + seal_bytes;
    r->left -= 4 + (size_t)length + seal_bytes;
    return true;
}

static struct expected expect(const unsigned char *bytes, size_t n, uint64_t cursor, uint32_t seal_bytes, uint32_t frames_max)
{
    struct expected e = {.cursor = cursor};
    struct reader r = {bytes, n, false};
    while (e.frames < frames_max && expect_one(&r, seal_bytes, &e))
        ;
    return e;
}

/* ---- one input ---- */

static void take(struct script *s, const struct link *link, uint64_t cursor, uint32_t seal_bytes)
{
    size_t n = below(s, 4) ? link->n : word(s, 2) % (link->n + 1);
    unsigned char *bytes = malloc(n);
    memcpy(bytes, link->bytes, n);
    if (n && !below(s, 8))
        bytes[word(s, 2) % n] = (unsigned char)word(s, 1);
    uint32_t frames_max = below(s, 4) ? 64 : below(s, 4);
    struct expected e = expect(bytes, n, cursor, seal_bytes, frames_max);
    struct source_slot *slot = &attached.sources[SLOT];
    peers_keep(slot, 1000, cursor);
    uint64_t tail = ring_tail(&attached);
    struct stream_in in = {.a = &attached, .slot = slot, .head = head, .head_bytes = sizeof head, .seal_bytes = seal_bytes,
                           .source = SLOT, .incarnation = 1000, .cursor = cursor};
    size_t taken = stream_in_take(&in, bytes, n, frames_max);
    REQUIRE(!in.corrupt && taken == e.bytes && in.frames == e.frames && in.payloads == e.payloads,
            "%zu bytes and %u frames (%u with records) were taken of %zu; %zu, %u and %u are in order", taken, in.frames, in.payloads, n,
            e.bytes, e.frames, e.payloads);
    REQUIRE(in.cursor == e.cursor && load_acquire(&slot->cursor) == e.cursor && load_acquire(&slot->incarnation) == 1000,
            "the cursor is %llu, and %llu in the segment; it should be %llu", (unsigned long long)in.cursor,
            (unsigned long long)load_acquire(&slot->cursor), (unsigned long long)e.cursor);
    REQUIRE(ring_tail(&attached) == tail + e.records, "the ring moved by %llu records, not by %llu",
            (unsigned long long)(ring_tail(&attached) - tail), (unsigned long long)e.records);
    tally(taken == n ? TAKEN : LEFT);
    free(bytes);
}

static void begin(void)
{
    static bool begun;
    if (!torture.counters)
        torture.counters = shared_zeroes(COUNTERS * sizeof(a64)); /* guided: nobody has begun */
    if (begun)
        return;
    struct segment_config config = plain_config(SEGMENT_BYTES);
    config.has_bridge = true;
    attach_to(&attached, memory_file(), &config);
    attached.frozen_ms = 1000000;
    begun = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct link link;
    struct script s = {data, data + bytes};
    begin();
    uint64_t cursor = below(&s, 8) ? word(&s, 1 + below(&s, 4)) : FRAME_POSITION_MAX - below(&s, 8);
    uint32_t seal_bytes = below(&s, 2) ? FRAME_SEAL_BYTES : 0;
    link.n = 0;
    link.next = cursor + 1;
    for (int n = 0; s.at < s.end && n < MESSAGES_MAX; n++)
        put_message(&s, &link, seal_bytes);
    take(&s, &link, cursor, seal_bytes);
    return 0;
}

#ifndef GUIDED
/* A number and a payload's header of each form, cut at each byte. What follows the cut would be a good end of it. */
static void check_cuts(void)
{
    static const uint64_t numbers[] = {0x7f, UINT8_MAX, UINT16_MAX, UINT32_MAX, UINT64_MAX};
    static const uint32_t lengths[] = {1, UINT8_MAX + 1, UINT16_MAX + 1};
    static unsigned char buffer[UINT16_MAX + 16];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const unsigned char *end = frame_put_uint(buffer, numbers[i]);
        uint64_t number = 0;
        for (const unsigned char *cut = buffer; cut < end; cut++)
            REQUIRE(!frame_take_uint(buffer, cut, &number), "of a number of %td bytes, %td are taken for one", end - buffer, cut - buffer);
        REQUIRE(frame_take_uint(buffer, end, &number) == end && number == numbers[i], "a number of %td bytes is not taken", end - buffer);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        const unsigned char *from = frame_put_bin_header(buffer, lengths[i]), *end = from + lengths[i];
        uint32_t bytes = 0;
        for (const unsigned char *cut = buffer; cut < end; cut++)
            REQUIRE(!frame_take_bin(buffer, cut, &bytes), "of a payload of %td bytes, %td are taken for one", end - buffer, cut - buffer);
        REQUIRE(frame_take_bin(buffer, end, &bytes) == from && bytes == lengths[i], "a payload of %td bytes is not taken", end - buffer);
    }
}

enum { INPUTS_MIN = 20000 }; /* however busy the machine is */

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
    torture_begin(argc, argv, "torture_stream_in");
    uint64_t first = argc > 3 && strcmp(argv[2], "input") == 0 ? strtoull(argv[3], NULL, 10) : 0;
    if (first) {
        run_number(first);
        return 0;
    }
    check_cuts();
    first = (uint64_t)(seconds_now() * 1e9);
    bool well = in_child(run_many, &first);
    if (!well)
        FAIL("input %llu", (unsigned long long)tallied(INPUTS));
    printf("stream_in: %llu inputs, %llu messages, %llu buffers taken whole, %llu in part\n",
           (unsigned long long)(tallied(INPUTS) - first + 1), (unsigned long long)tallied(MESSAGES), (unsigned long long)tallied(TAKEN),
           (unsigned long long)tallied(LEFT));
    return 0;
}
#endif
