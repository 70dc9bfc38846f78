/* ring.h - one multi-producer broadcast ring: the host's one order of everything that moved a fence.
 *
 * A slot is published by one 16-byte compare-and-swap, then the fence is raised, then the tail is advanced.
 * Whoever meets a published slot whose tail has not moved helps, in that order. So a sequence exists for
 * every record at once, a killed producer leaves no hole, and nobody below the tail sees a record before its
 * fence. Sequences begin at 1; record number s lives in slot (s - 1) % ring_slots, lap (s - 1) / ring_slots +
 * 1.
 *
 * Consumers own their cursors, read below the tail, and are lapped when a slot's lap is no longer theirs.
 */
#ifndef CACHEE_RING_H
#define CACHEE_RING_H

#include "fence.h"

struct record {
    uint64_t hash;
    enum record_kind kind;
    bool own;        /* this host's own announcement: sent to peers */
    uint16_t source; /* 0 = this host */
    uint16_t digest; /* 0 = none; RECORD_GUARDED: see ring_guard_bits */
};

/* Is it about all keys whose hash has the leading bits of its own (roster_debts.h)? */
static inline bool record_is_range(const struct record *r)
{
    return r->own && r->kind == RECORD_KEY && r->digest == RECORD_RANGE;
}

/* Does it evict one key's older entries? A record of a range does not: it raises that range's fence, and
 * nobody looks for the entries. Nor does an add. */
static inline bool record_is_key_event(const struct record *r)
{
    return !record_is_range(r) && (r->kind == RECORD_KEY || r->kind == RECORD_SET ||
                                   r->kind == RECORD_LOCAL || r->kind == RECORD_GUARDED);
}

/* What ring_append and its callers return when the ring's words are not what any writer could have left. */
enum { RING_CORRUPT = 0 };

/* A token for fills: read before the origin is asked. */
static inline uint64_t ring_tail(const struct attachment *a)
{
    return load_acquire(&a->header->ring_tail); /* TAIL */
}

/* Append one record; its fence is raised and a full fence has passed when this returns (DEKKER).
 * Returns the sequence, or RING_CORRUPT. */
uint64_t ring_append(struct attachment *a, const struct record *r);

/* Read one record. False: not published yet, or lapped. */
bool ring_read(const struct attachment *a, uint64_t sequence, struct record *out);

/* Did a key event of this hash come in (after, upto]? Unreadable or too many: yes. An add is none. With
 * spare_local, what peers announced is none either: it spares local entries. */
bool ring_conflict(const struct attachment *a, uint64_t hash, uint64_t after, uint64_t upto,
                   bool spare_local);

/* Was the newest event at this key's fence a remote write of the last second with other bytes? */
bool ring_guards(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms);

/* What the record of a write that is guarded carries in place of a digest. Before the record is appended. */
uint16_t ring_guard_bits(const struct attachment *a, uint64_t hash);

/* The bridge, before it applies a batch: note when the coming sequences begin. */
void ring_mark(struct attachment *a, uint64_t now_ms);

#endif
