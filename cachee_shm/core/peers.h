/* peers.h - the source slots: how far each source has been applied here, and what the bridge tells the
 * workers of its peers: how far each says that it has applied this host's ring, and which of them can be
 * reached.
 *
 * The bridge writes the slots first and vouches for them last, some times a second; what it vouched for is
 * void once bridge_until_ms has passed. So a bridge that is dead, hung or not started yet is known by the
 * clock, and a peer is out of reach only because a bridge that lives says so.
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

/* The bridge: how far a source has been applied here. */
void peers_keep(struct source_slot *slot, uint64_t incarnation, uint64_t cursor);

/* The bridge: the source has said that it has applied this host's ring up to `position`. A position beyond
 * the ring's tail is not kept: once the tail had passed it, it would be believed. */
void peers_acked(const struct attachment *a, struct source_slot *slot, uint64_t position);
/* The bridge: whether a source can be reached; and, after all of them, how long what was told counts. */
void peers_tell(struct source_slot *slot, bool reachable, uint64_t fresh_ms);
void peers_vouch(struct attachment *a, uint64_t until_ms);
/* The bridge: this ring goes on under a higher incarnation. Peers evict all that is older and acknowledge
 * anew. */
void peers_raise_incarnation(struct attachment *a, uint64_t incarnation);
/* The bridge: it says farewell to the peers, who then expect nothing of this host; or it stays after all. */
void peers_leave(struct attachment *a, bool left);
bool peers_left(const struct attachment *a);
/* The bridge: a slot is given to another source, whose name has at most NAME_BYTES - 1 bytes. Before `used`
 * says so. */
void peers_rename(const struct attachment *a, struct source_slot *slot, const char *name, size_t name_bytes);
void peers_reset(struct source_slot *slot);

/* Whose record is it that has this sequence and this slot as its source? NAME_BYTES bytes, padded with zeros.
 * False: the slot has had two other sources since. */
bool peers_name_at(const struct attachment *a, uint32_t source, uint64_t sequence, char *name);

/* False: the slot is no member's. */
bool peers_look(const struct attachment *a, uint32_t source, struct peer *out);

/* Has every peer that can be reached applied what this process has announced? False too when no living bridge
 * says. */
bool peers_synced(const struct attachment *a, uint64_t written);

/* Somebody waits for that: the bridge need not wait for the next beat to learn it. */
void peers_ask(struct attachment *a, uint64_t written);
/* The bridge: up to where; 0: nobody has asked. */
uint64_t peers_asked(const struct attachment *a);

#endif
