/* stream_out.c - see stream_out.h. */
#include "stream_out.h"

/* Where the payload is packed: before it there is room for the longest possible header. */
enum { PAYLOAD_AT = FRAME_OVERHEAD_BYTES_MAX };

/* The header is written when the payload's length is known, so that it ends where the payload begins. */
static void stream_out_put_header(struct stream_frame *frame, const struct stream_head *head, uint64_t first,
                                  uint32_t payload_bytes)
{
    unsigned char fields[2 * FRAME_UINT_BYTES_MAX + FRAME_BIN_HEADER_BYTES_MAX];
    unsigned char *end =
        frame_put_bin_header(frame_put_uint(frame_put_uint(fields, first), frame->to), payload_bytes);
    uint32_t fields_bytes = (uint32_t)(end - fields), body_bytes = head->bytes + fields_bytes + payload_bytes;
    unsigned char *at = frame->buffer + PAYLOAD_AT - fields_bytes - head->bytes - FRAME_PREFIX_BYTES;
    frame->at = at;
    frame->bytes = FRAME_PREFIX_BYTES + body_bytes;
    at = frame_put_prefix(at, body_bytes);
    memcpy(at, head->at, head->bytes);
    memcpy(at + head->bytes, fields, fields_bytes);
}

bool stream_out(struct attachment *a, const struct stream_head *head, uint64_t after, uint64_t cursor,
                uint64_t end, struct stream_frame *frame)
{
    uint32_t packed = 0;
    frame->at = frame->buffer;
    frame->bytes = 0;
    frame->to = cursor;
    if (head->bytes > FRAME_HEAD_BYTES_MAX || after > cursor || cursor > end || end > FRAME_POSITION_MAX)
        return false;
    uint32_t records_max = end - cursor < UINT32_MAX ? (uint32_t)(end - cursor) : UINT32_MAX;
    if (relay_pack(a, &frame->to, records_max, frame->buffer + PAYLOAD_AT, STREAM_OUT_BYTES_MAX - PAYLOAD_AT,
                   &packed) != RELAY_OK)
        return false;
    if (packed > 0)
        stream_out_put_header(frame, head, after + 1, packed);
    return true;
}
