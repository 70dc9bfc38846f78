/* roster.h - the table of attached processes.
 *
 * A process holds an OFD lock on its slot's byte of the segment's own file. The lock belongs to an open file
 * description that only a mapping of this process refers to (its descriptor is closed at once, the mapping
 * is MADV_DONTFORK), so the kernel drops it exactly when the process dies or unmaps: a forked child cannot
 * keep it, and a daemon that closes all descriptors cannot lose it. Liveness never rests on a pid.
 *
 * recovery.h describes joining, leaving, and what happens to the slot of a dead process.
 */
#ifndef CACHEE_ROSTER_H
#define CACHEE_ROSTER_H

#include "attachment.h"

/* Lock bytes lie beyond any segment's end: they are names, not data. The same in every layout: `cachee
 * segment ls` counts them. */
#define LOCK_BASE ((int64_t)1 << 40)
enum { LOCK_CREATE = 0, LOCK_BRIDGE = 1, LOCK_SLOTS = 16 };

/* Hold a byte of the segment's file until this process dies. Returns the mapping that keeps it, or NULL
 * (errno EAGAIN: a living process holds it). */
void *roster_hold_byte(const struct attachment *a, uint32_t byte);
void roster_release_byte(void *held);

/* Store this process's service name in its slot, and in each slot that it takes later. */
void roster_call(struct attachment *a, const char *service, size_t bytes);

/* The state in a slot's word. */
static inline bool roster_word_live(uint64_t word) { return (word & ROSTER_STATE_MASK) == SLOT_LIVE; }
static inline bool roster_word_swept(uint64_t word) { return (word & ROSTER_STATE_MASK) == SLOT_SWEPT; }

/* Slots from this number on have never been used. */
static inline uint32_t roster_slots_used(const struct attachment *a)
{
    uint64_t high = load_acquire(&a->header->roster_high);
    return high < a->geo.roster_slots ? (uint32_t)high : a->geo.roster_slots;
}

/* True if the slot's process lives, and also when that cannot be told. */
bool roster_alive(const struct attachment *a, uint32_t slot);

/* Words of leases and locks: roster_holder makes one that names this process, holder_hash is its part of
 * the hash, roster_holder_lives asks whether its holder lives. */
static inline uint64_t holder_hash(uint64_t word) { return word >> HOLDER_HASH_SHIFT << HOLDER_HASH_SHIFT; }
static inline uint64_t roster_holder(const struct attachment *a, uint64_t hash)
{
    return holder_hash(hash) | (a->slot_generation & HOLDER_GEN_BITS) << HOLDER_GEN_SHIFT | a->slot;
}
bool roster_holder_lives(const struct attachment *a, uint64_t word);

/* Does a process hold the bridge's byte? True also when that cannot be told. */
bool roster_bridge_alive(const struct attachment *a);

/* Does any other process hold a slot of the segment's file? Asked before this one has a slot. */
bool roster_in_use(const struct attachment *a);

/* Leave as if this process had died, because it owes an announcement that it cannot make. */
void roster_abandon(struct attachment *a);

/* Was the file truncated, its name unlinked, or given to another file? Then the segment is retired for all
 * its processes: they must attach to the successor. False also if that cannot be determined (under chroot).
 * A file that never had a name is never gone. */
bool roster_look(struct attachment *a, uint64_t now_ms);

/* The same, asked at most once for each tick of the coarse clock. That is often enough: the creator of a
 * segment waits for two ticks before the segment is ready (segment.c). So a verb that ends after that has
 * checked after the old name was gone. */
static inline bool roster_gone(struct attachment *a, uint64_t now_ms)
{
    return a->looked_ms != now_ms && roster_look(a, now_ms);
}

/* Does the file's name still lead to this file? */
bool roster_named(const struct attachment *a);

/* Live slots of one kind. */
uint32_t roster_count(const struct attachment *a, enum roster_kind kind);

/* A descriptor of the segment's own file, or -1: the application may have closed ours, as daemons do. Then
 * joining and sweeping open the file again by its name. */
int roster_checked_fd(const struct attachment *a);

/* If ours was closed, open the file again by its name. */
void roster_mend_fd(struct attachment *a);

#endif
