/* evict.h - making room: draining the pages that the policy gives up, and filling them again.
 *
 * Each process drains a few entries per write while it fills its open page. So no single write pays for a
 * whole page, and no process depends on another. New entries go into the process's open page of the small
 * queue; entries that are carried forward, or move up, go into its open page of the main queue. It keeps a
 * few spare pages for when these are full.
 *
 * `main_credit` is its account with the main queue: the bytes that it let fall out there, minus the bytes
 * that it put in.
 */
#ifndef CACHEE_EVICT_H
#define CACHEE_EVICT_H

#include "clock.h"
#include "index.h"
#include "queue.h"
#include "roster.h"

/* recovery.c, which stands above this file: pay the debts of the dead, give back their slots and pages, and
 * say how many slots these were. The one call upward: where no page is left that could be taken, those of the
 * dead are looked for at once, not at the next sweep. */
uint32_t recovery_sweep(struct attachment *a);

/* Reserve bytes for one entry. False: more live processes than pages (each holds a few). */
bool evict_make_room(struct attachment *a, uint32_t bytes, struct place *place);

/* The same in the main queue, for an entry that was there before; false if there is no room. */
bool evict_make_room_in_main(struct attachment *a, uint32_t bytes, struct place *place);

/* Copy an entry whose bytes cannot change under us to `place` (reserved). */
void entry_copy(struct attachment *a, const struct entry_ref *e, const struct place *place);

#endif
