/* roster_debts.h - what a process owes when it dies: its write under way, and the keys of its open `writing`
 * blocks.
 *
 * A debt is paid by an announcement, as of a delete. That may happen twice, so it needs no lock: any living
 * process announces what a dead one owes, and a process that is stopped while it does so delays nobody. To
 * forget a debt is another matter. Only who gives back the dead one's slot does that, after all debts were
 * announced (recovery.c).
 *
 * An intent is exact as long as one is free (layout.h, struct intent). A process that finds none shares a bit
 * of its slot with all keys whose hash has the same leading bits. Such a bit is announced by a record
 * RECORD_RANGE: it raises the fences and the own writes of the whole range, and the range's own fence, which
 * makes invalid what is stored of it, local entries excepted: nobody looks for those entries. The record has
 * no form on the wire: for it the ring counts as overwritten, so that a peer is sent a map of buckets.
 *
 * What a process owes is announced in steps: its exact debts, then one step for each bucket. How many steps
 * are done stands in its slot. Whoever comes next, after a death as well, goes on from there; a step that is
 * done twice is harmless.
 */
#ifndef CACHEE_ROSTER_DEBTS_H
#define CACHEE_ROSTER_DEBTS_H

#include "index.h"

/* An open `writing` block: leave its key's hash where a sweeper finds it. Returns what roster_settle wants at
 * its end. */
uint64_t roster_intend(struct attachment *a, uint64_t hash);

/* The end of a block: whoever settles has announced the key before. What a fork inherited, or what was left
 * in a segment that has been replaced since, is none of this attachment's intents: nothing happens. A
 * replaced segment's blocks are carried over by another roster_intend in its successor, under the hash that
 * the key has there. */
void roster_settle(struct attachment *a, uint64_t intent);

enum announced {
    ANNOUNCED_ALL,
    ANNOUNCED_PART,  /* the next call goes on */
    ANNOUNCED_NEVER, /* the ring is corrupt: the segment is retired, and who leaves it clears its successor */
};

/* Announce what the holder of a slot owes in the life that `word` names; it is dead, or this process. All of
 * it, or as much as takes some milliseconds at most. */
enum announced roster_announce(struct attachment *a, uint32_t slot, uint64_t word, bool all);

/* Forget it. Only who has the slot to itself: its holder, or the sweeper that its word names. */
void roster_forget(struct attachment *a, uint32_t slot, uint64_t word);

#endif
