/* evict.h - making room: claiming the oldest page, draining it, filling it again.
 *
 * Each process drains its next page a few entries per write while it fills its open one, so no single write
 * pays for a whole page, and no process needs anything of another to go on. One circular hand over the page
 * table, shared by all, makes the pages one FIFO.
 */
#ifndef CACHEE_EVICT_H
#define CACHEE_EVICT_H

#include "clock.h"
#include "roster.h"

/* Reserve bytes for one entry. False: more live processes than pages (each holds up to two). */
bool evict_make_room(struct attachment *a, uint32_t bytes, struct place *place);

/* Copy an entry whose bytes cannot change under us to `place` (reserved). */
void entry_copy(struct attachment *a, const struct entry_ref *e, const struct place *place);

#endif
