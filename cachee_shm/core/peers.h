/* peers.h - the source slots: how far each source has been applied here, and what the bridge tells the
 * workers of its peers: how far each says that it has applied this host's ring, and which of them can be
 * reached.
 *
 * Some times a second the bridge writes the slots and then, last, bridge_until_ms; after that time the
 * slots do not count any more. So workers notice by the clock that the bridge is dead, hung or not started
 * yet, and a peer counts as out of reach only if a living bridge says so.
 */
#ifndef CACHEE_PEERS_H
#define CACHEE_PEERS_H

#include "roster.h"

enum { NOT_ACKED = 0 }; /* of source_slot.acked; and of what garbage claims */

struct peer {
    uint64_t acked; /* NOT_ACKED, or a position + 1 */
    uint64_t fresh_ms;
    bool reachable;
};

/* The bridge: store how far a source has been applied here. */
void peers_keep(struct source_slot *slot, uint64_t incarnation, uint64_t cursor);

/* The bridge: the source has said that it has applied this host's ring up to `position`. A position beyond
 * the ring's tail is not stored, because it would look right once the tail has passed it. */
void peers_acked(const struct attachment *a, struct source_slot *slot, uint64_t position);
/* The bridge: store whether a source can be reached; peers_vouch, after all of them: until when these
 * states count. */
void peers_tell(struct source_slot *slot, bool reachable, uint64_t fresh_ms);
void peers_vouch(struct attachment *a, uint64_t until_ms);
/* The bridge: continue this ring under a higher incarnation. Peers then evict everything older, and
 * acknowledge again from the beginning. */
void peers_raise_incarnation(struct attachment *a, uint64_t incarnation);
/* The bridge: store that it leaves for good, so that peers stop waiting for this host; or that it stays
 * after all. */
void peers_leave(struct attachment *a, bool left);
bool peers_left(const struct attachment *a);
/* The bridge: give a slot to another source, whose name has at most NAME_BYTES - 1 bytes. Call this before
 * setting `used`. */
void peers_rename(const struct attachment *a, struct source_slot *slot, const char *name, size_t name_bytes);
void peers_reset(struct source_slot *slot);

/* The name of the source of a record with this sequence and this source slot: NAME_BYTES bytes, padded with
 * zeros. False: the slot has had two other sources since. */
bool peers_name_at(const struct attachment *a, uint32_t source, uint64_t sequence, char *name);

/* False: the slot belongs to no member. */
bool peers_look(const struct attachment *a, uint32_t source, struct peer *out);

/* Has every reachable peer applied everything up to `written`? False also if no living bridge can say. */
bool peers_synced(const struct attachment *a, uint64_t written);

/* A process waits for that: let the bridge ask the peers now, not with the next beat. */
void peers_ask(struct attachment *a, uint64_t written);
/* The bridge: up to which position a process waits; 0: none does. */
uint64_t peers_asked(const struct attachment *a);

#endif
