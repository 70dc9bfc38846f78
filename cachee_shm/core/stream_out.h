/* stream_out.h - the sending half of the bridge's data path: it packs a ring's newest records into the
 * FRAME for its peers.
 *
 * All peers that were sent the same records lack the same ones, so one frame is made for all of them:
 *
 *     ring    1 . . . . after | . . . . . . cursor | . . . . . . to | . . . end
 *             they were sent  | nothing is ours    | packed         | for the next frame
 *
 * Rare cases are left to Python (streams/stream.py, the Outbox): a lapped cursor, a record that has no form
 * on the wire, and peers that were sent less.
 */
#ifndef CACHEE_STREAM_OUT_H
#define CACHEE_STREAM_OUT_H

#include "frame_layout.h"
#include "relay.h"

enum { STREAM_OUT_BYTES_MAX = FRAME_OVERHEAD_BYTES_MAX + PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX };

/* The head of frame_layout.h; at most FRAME_HEAD_BYTES_MAX. */
struct stream_head {
    const unsigned char *at;
    uint32_t bytes;
};

struct stream_frame {
    unsigned char buffer[STREAM_OUT_BYTES_MAX];
    const unsigned char *at; /* the frame lies in the buffer, up to its end or before it */
    uint32_t bytes;          /* 0: none of the records is this host's own, so there is no frame */
    uint64_t to;             /* the last record that was looked at */
};

/* Packs this host's own announcements among the records cursor+1..end. The frame's range begins after
 * `after`, which is not above cursor. False: no frame can be made of these records, and Python must handle
 * them. */
bool stream_out(struct attachment *a, const struct stream_head *head, uint64_t after, uint64_t cursor,
                uint64_t end, struct stream_frame *frame);

#endif
