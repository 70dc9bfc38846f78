/* queue.h - the order of pages: which is drained next, and which queue a page belongs to.
 *
 * Both queues are FIFOs of pages in the order of their stamps. There is no list in the segment that a death
 * could break. Each process scans the page words, notes the few oldest pages of each queue in its own
 * memory, and scans again when it has used a sixty-fourth of all pages. Meanwhile other processes may take,
 * seal or drain the noted pages: an outdated note costs a failed CAS. A process that dies in this file
 * leaves at most a page that it has just taken, which the sweep gives back.
 */
#ifndef CACHEE_QUEUE_H
#define CACHEE_QUEUE_H

#include "pages.h"

/* Scan the page words again if it is time. */
void queue_refresh(struct attachment *a);

/* Scan now: the notes were of no use. */
void queue_look(struct attachment *a);

/* Take a free page, as a spare one. */
bool queue_take_free(struct attachment *a);

/* Take another process's spare page. */
bool queue_take_from_others(struct attachment *a);

/* Does a queue have no page that could be taken? */
bool queue_empty(struct attachment *a, enum page_queue queue);

/* Take the next page of a queue for draining. */
bool queue_take(struct attachment *a, enum page_queue queue);

/* Take a page with few living bytes, if one is noted. */
bool queue_take_poor(struct attachment *a, enum page_queue queue);

/* Reopen a page that another process sealed half empty. */
bool queue_reopen(struct attachment *a);

/* How many pages the main queue has beyond its share. */
int64_t queue_main_excess(const struct attachment *a);

/* Is the excess larger than the pages that the writers are filling and draining at the moment, which no
 * scan has seen yet? */
bool queue_main_is_large(const struct attachment *a);

/* Give the main queue the pages that it lacks, from the small queue's tail, as they are. */
void queue_balance(struct attachment *a);

#endif
