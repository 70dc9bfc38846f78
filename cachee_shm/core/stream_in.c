/* stream_in.c - see stream_in.h. */
#include "stream_in.h"

#include "peers.h"
#include "relay.h"
#include "segment.h"

struct frame {
    size_t bytes; /* all of it, the seal included */
    uint64_t first, last;
    const unsigned char *payload;
    uint32_t payload_bytes;
};

/* Where the body of the message at `at` ends; NULL: it is no FRAME, or not whole. */
static const unsigned char *stream_in_body_end(const unsigned char *at, size_t n, uint32_t seal_bytes)
{
    if (n < FRAME_PREFIX_BYTES || at[4] != FRAME_TYPE)
        return NULL;
    uint32_t length = frame_length(at);
    if (length < 1 || length > FRAME_BYTES_MAX)
        return NULL;
    size_t body = length - 1;
    return n - FRAME_PREFIX_BYTES >= body + seal_bytes ? at + FRAME_PREFIX_BYTES + body : NULL;
}

/* False: this is no frame of the stream, or not one that frames.py would accept. */
static bool stream_in_parse(const struct stream_in *s, const unsigned char *bytes, size_t n, struct frame *f)
{
    const unsigned char *end = stream_in_body_end(bytes, n, s->seal_bytes), *at = bytes + FRAME_PREFIX_BYTES;
    if (!end || (size_t)(end - at) < s->head_bytes || memcmp(at, s->head, s->head_bytes) != 0)
        return false;
    at = frame_take_uint(at + s->head_bytes, end, &f->first);
    at = at ? frame_take_uint(at, end, &f->last) : NULL;
    at = at ? frame_take_bin(at, end, &f->payload_bytes) : NULL;
    if (!at || at + f->payload_bytes != end)
        return false;
    f->payload = at;
    f->bytes = (size_t)(end - bytes) + s->seal_bytes;
    return f->last <= FRAME_POSITION_MAX;
}

/* It follows that first is not 0, for 0 - 1 is above every cursor, and that first <= last. */
static bool stream_in_order(const struct stream_in *s, const struct frame *f)
{
    return f->first - 1 <= s->cursor && f->last > s->cursor;
}

static bool stream_in_plain(const struct frame *f)
{
    bool all = f->payload_bytes == 1 && (f->payload[0] == WIRE_ALL || f->payload[0] == WIRE_ALL_KNOWN);
    return f->payload_bytes <= FRAME_KEYS_BYTES_MAX && !all;
}

static bool stream_in_apply(struct stream_in *s, const struct frame *f)
{
    uint32_t applied;
    if (f->payload_bytes) {
        enum relay result = relay_apply(s->a, s->source, f->payload, f->payload_bytes, &applied);
        s->corrupt = result == RELAY_CORRUPT;
        if (result != RELAY_OK)
            return false;
    }
    peers_keep(s->slot, s->incarnation, f->last);
    s->cursor = f->last;
    s->frames++;
    s->payloads += f->payload_bytes > 0;
    return true;
}

size_t stream_in_take(struct stream_in *s, const unsigned char *bytes, size_t n, uint32_t frames_max)
{
    size_t at = 0;
    struct frame f;
    while (s->frames < frames_max && stream_in_parse(s, bytes + at, n - at, &f) && stream_in_order(s, &f) &&
           stream_in_plain(&f)) {
        if (segment_retired(s->a) || segment_bridge_ousted(s->a) || !stream_in_apply(s, &f))
            break;
        at += f.bytes;
    }
    return at;
}
