/* stream_in.h - the receiving half of the bridge's data path: ordinary frames of one source go from a
 * link's bytes into a segment.
 *
 *     link's bytes   | FRAME 41..41 | FRAME 42..90 | FRAME 91..91 | BEAT | FRAME ... | part of a message
 *                     taken in C, in a row                        ^ here Python goes on
 *
 * A frame is ordinary if all of these points hold. Python makes the same checks (in brackets). If one of
 * them fails, the frame is left to Python untouched, and Python handles and reports it.
 *
 *     it is whole, with its seal, and its length is within bounds              (wire/: Decoder)
 *     it is a FRAME of this source, namespace and incarnation                  (Inbox: another incarnation)
 *     its fields have the types and ranges of the wire, and nothing follows    (wire/: the check of a body)
 *     first <= cursor + 1                                                      (Inbox: a gap)
 *     last > cursor                                                            (Inbox: a duplicate)
 *     its payload is empty, or records that are well formed and not too long   (relay_apply, Intake)
 *     its payload is not the one record ALL or ALL_KNOWN, which Python counts and logs      (Inbox, Session)
 *     the process is still the segment's bridge, and the segment is in use     (each verb of the binding)
 *
 * For each frame, fences and evictions come first, then the cursor in the segment. So a death between the
 * two applies a frame twice, and never skips one.
 *
 * Python checks the seals, and the state of the source (it is a member, no map of it is pending, no peer
 * follows it here): it calls this only while these conditions hold.
 */
#ifndef CACHEE_STREAM_IN_H
#define CACHEE_STREAM_IN_H

#include "frame_layout.h"
#include "layout.h"

struct attachment;

/* The state of one source's stream into one segment, before and after a call. All of it is private memory
 * of the caller. */
struct stream_in {
    struct attachment *a;
    struct source_slot *slot;
    const unsigned char *head; /* frame_layout.h */
    uint32_t head_bytes;
    uint32_t seal_bytes;  /* after each frame: 0 or FRAME_SEAL_BYTES */
    uint16_t source;      /* the slot's number */
    uint64_t incarnation; /* of the source; the head contains it too */
    uint64_t cursor;      /* moves with each frame that is taken */
    uint32_t frames;      /* frames taken by this call: begins at 0 */
    uint32_t payloads;    /* frames taken that had records */
    /* the ring is corrupt: the call stopped in the middle of a frame, and the segment must be retired */
    bool corrupt;
};

/* Apply frames from the beginning of `bytes` on, at most frames_max. Returns how many bytes were
 * consumed. */
size_t stream_in_take(struct stream_in *s, const unsigned char *bytes, size_t n, uint32_t frames_max);

#endif
