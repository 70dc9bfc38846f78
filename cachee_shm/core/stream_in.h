/* stream_in.h - the way in of the bridge's data path: ordinary frames of one source, from a link's bytes into
 * a segment.
 *
 *     link's bytes   | FRAME 41..41 | FRAME 42..90 | FRAME 91..91 | BEAT | FRAME ... | part of a message
 *                     taken in C, in a row                        ^ here Python goes on
 *
 * A frame is ordinary when all of this holds. Each point is a check that Python makes of every frame, too (in
 * brackets); a frame for which one of them fails is left to Python untouched, so its words and its
 * consequences are Python's.
 *
 *     it is whole, with its seal, and its length is within bounds              (wire/: Decoder)
 *     it is a FRAME of this source, namespace and incarnation                  (Inbox: another incarnation)
 *     its fields have the types and ranges of the wire, and nothing follows    (wire/: the check of a body)
 *     first <= cursor + 1                                                      (Inbox: a gap)
 *     last > cursor                                                            (Inbox: a duplicate)
 *     its payload is empty, or records that are well formed and not too long   (relay_apply, Intake)
 *     its payload is not the one record ALL, which Python counts and logs      (Inbox, Session)
 *     the process is still the segment's bridge, and the segment is in use     (each verb of the binding)
 *
 * For each: fences and evictions first, then the cursor in the segment. So a death between the two applies a
 * frame twice and never skips one.
 *
 * What the frame's caller has to know of the source (is it a member, does a map wait, does anybody follow it
 * here) and of its seals is Python's: it asks for frames of a source only while that holds.
 */
#ifndef CACHEE_STREAM_IN_H
#define CACHEE_STREAM_IN_H

#include "frame_layout.h"
#include "layout.h"

struct attachment;

/* One source's stream into one segment, as it is before and after a call. All of it is private memory of the
 * caller. */
struct stream_in {
    struct attachment *a;
    struct source_slot *slot;
    const unsigned char *head; /* frame_layout.h */
    uint32_t head_bytes;
    uint32_t seal_bytes;  /* after each frame: 0 or FRAME_SEAL_BYTES */
    uint16_t source;      /* the slot's number */
    uint64_t incarnation; /* which the head names too */
    uint64_t cursor;      /* moves with each frame that is taken */
    uint32_t frames;      /* that were taken: begins at 0 */
    uint32_t payloads;    /* of them with records */
    /* the ring is; it stopped in the middle of a frame, and the segment has to be retired */
    bool corrupt;
};

/* Takes frames from the beginning of `bytes` on, up to frames_max. Returns how many bytes they had. */
size_t stream_in_take(struct stream_in *s, const unsigned char *bytes, size_t n, uint32_t frames_max);

#endif
