/* ring.h - one multi-producer broadcast ring: it orders everything that moves a fence on this host.
 *
 * A slot is published by one 16-byte compare-and-swap, then the fence is raised, then the tail is advanced.
 * A process that meets a published slot at the tail helps with the rest, in that order. So a record has its
 * sequence at once, a killed producer leaves no hole, and a reader, which stays below the tail, never sees
 * a record before its fence. Sequences begin at 1; record number s lives in slot (s - 1) % ring_slots, lap
 * (s - 1) / ring_slots + 1.
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
    uint16_t digest; /* 0 = none; RECORD_GUARDED: see ring_guarded_bits */
};

/* Is the record about all keys whose hash begins with the same bits (roster_debts.h)? */
static inline bool record_is_range(const struct record *r)
{
    return r->own && r->kind == RECORD_KEY && r->digest == RECORD_RANGE;
}

/* Does the record evict one key's older entries? Neither a record of a range does (it raises that range's
 * fence, which invalidates the entries) nor an add. */
static inline bool record_is_key_event(const struct record *r)
{
    return !record_is_range(r) && (r->kind == RECORD_KEY || r->kind == RECORD_SET ||
                                   r->kind == RECORD_LOCAL || r->kind == RECORD_GUARDED);
}

/* Returned by ring_append and its callers if the ring's words are damaged: no writer could have left
 * them. */
enum { RING_CORRUPT = 0 };

/* The ring's tail. A load reads it before it asks the origin: it is the fill's token. */
static inline uint64_t ring_tail(const struct attachment *a)
{
    return load_acquire(&a->header->ring_tail); /* TAIL */
}

/* Append one record; its fence is raised and a full fence has passed when this returns (DEKKER).
 * Returns the sequence, or RING_CORRUPT. */
uint64_t ring_append(struct attachment *a, const struct record *r);

/* Read one record. False: not published yet, or lapped. */
bool ring_read(const struct attachment *a, uint64_t sequence, struct record *out);

/* Is there a key event of this hash in (after, upto]? Yes, if the records are unreadable or too many. An add
 * is no event. With spare_local, records of peers do not count, because they spare local entries. */
bool ring_conflict(const struct attachment *a, uint64_t hash, uint64_t after, uint64_t upto,
                   bool spare_local);

/* Was the newest event at this key's fence a remote write of the last second with other bytes? See ring.c,
 * "The guard". */
bool ring_guards(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms);

/* What a RECORD_GUARDED carries in place of a digest: bits of its value's digest, and the number of the guard
 * mark of the event to which it gives way. Called before the record is appended. */
uint16_t ring_guarded_bits(const struct attachment *a, uint64_t hash, uint16_t digest, uint64_t now_ms);

/* The bridge calls it before it applies a batch: note from which time the following sequences are. */
void ring_mark(struct attachment *a, uint64_t now_ms);

#endif
