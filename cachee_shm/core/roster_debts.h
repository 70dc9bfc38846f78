/* roster_debts.h - what a process owes when it dies: its write under way, and the keys of its open `writing`
 * blocks.
 *
 * A debt is paid by an announcement, like that of a delete. An announcement may be made twice, so no lock
 * is needed: any living process announces what a dead one owes, and a process that is stopped half-way
 * delays no other. But only the sweeper that frees the dead process's slot deletes its debts, after all of
 * them were announced (recovery.c).
 *
 * An intent is exact as long as one is free (layout.h, struct intent). A process that finds none shares a bit
 * of its slot with all keys whose hash has the same leading bits. Such a bit is announced by a record
 * RECORD_RANGE: it raises the fences and the own writes of the whole range, and the range's own fence. That
 * fence invalidates all stored entries of the range, except local ones, without a search for them. The record
 * has no form on the wire: peers are treated as lapped at this record, and are sent a map of buckets.
 *
 * A dead process's debts are announced in steps: the exact debts, then one step for each bucket. The number
 * of finished steps is in its slot. The next process goes on from there, also if the one before has died
 * meanwhile. A step that is done twice is harmless.
 */
#ifndef CACHEE_ROSTER_DEBTS_H
#define CACHEE_ROSTER_DEBTS_H

#include "index.h"

/* A `writing` block begins: store its key's hash where a sweeper finds it. Returns a handle for
 * roster_settle. */
uint64_t roster_intend(struct attachment *a, uint64_t hash);

/* A `writing` block ends, and its key has been announced. An intent that was inherited by a fork, or that
 * is in a replaced segment, is not this attachment's: then nothing happens. Open blocks of a replaced
 * segment are carried over by another roster_intend in its successor, with the hash that the key has
 * there. */
void roster_settle(struct attachment *a, uint64_t intent);

enum announced {
    ANNOUNCED_ALL,
    ANNOUNCED_PART, /* the next call goes on */
    /* the ring is corrupt: the segment is retired, and processes that leave it clear its successor */
    ANNOUNCED_NEVER,
};

/* Announce what the holder of a slot owes in the life that `word` names. The holder is dead, or is this
 * process. `all`: everything; otherwise as much as takes some milliseconds at most. */
enum announced roster_announce(struct attachment *a, uint32_t slot, uint64_t word, bool all);

/* Delete the debts. Only the slot's holder, or the sweeper that its word names, may call this. */
void roster_forget(struct attachment *a, uint32_t slot, uint64_t word);

#endif
