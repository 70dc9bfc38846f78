/* queue.h - the order of pages: which is drained next, and which queue a page belongs to.
 *
 * Both queues are FIFOs of pages in the order of their stamps. There is no list in the segment that a death
 * could break: each process reads the page words through, notes the few oldest of each queue in its own
 * memory, and looks again when it has used a sixty-fourth of all pages. A note that is out of date costs a
 * failed CAS.
 */
#ifndef CACHEE_QUEUE_H
#define CACHEE_QUEUE_H

#include "pages.h"

/* Look the page words through again if it is time. */
void queue_refresh(struct attachment *a);

/* Look now: the notes were of no use. */
void queue_look(struct attachment *a);

/* Take a free page, as a spare one. */
bool queue_take_free(struct attachment *a);

/* Take another process's spare page. */
bool queue_take_from_others(struct attachment *a);

/* Has a queue no page that could be taken? */
bool queue_empty(struct attachment *a, enum page_queue queue);

/* Take the next page of a queue for draining. */
bool queue_take(struct attachment *a, enum page_queue queue);

/* Take one of those that hold little that counts, if any are noted. */
bool queue_take_poor(struct attachment *a, enum page_queue queue);

/* Go on in a page that somebody left half empty. */
bool queue_reopen(struct attachment *a);

/* How many pages the main queue has beyond its share. */
int64_t queue_main_excess(const struct attachment *a);

/* Is that more than what the writers are just filling and emptying, and have not yet told each other of? */
bool queue_main_is_large(const struct attachment *a);

/* Give the main queue the pages that it lacks, from the small queue's tail, as they are. */
void queue_balance(struct attachment *a);

#endif
