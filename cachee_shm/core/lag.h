/* lag.h - origins with replicas that lag: a value that is loaded soon after a write may be the row from
 * before that write.
 *
 * `origin_lag` says how far a replica may be behind. If a load begins within that time after an
 * invalidation of its key, of one of its tags or of everything, it may return the old row, although its
 * fill token is newer than the invalidation. The beginning of the load counts, because the load may have
 * read the row at once and needed long for the rest. Such a fill ends origin_lag after it is stored, and
 * the next load finds the new row. The entry is marked, so that no touch lets it live longer.
 *
 * When was a key invalidated? Its fence is a position of the ring, not a time. So each process notes where
 * the ring's tail stands as it stores fills, at least a quarter of the lag apart. The newest note that was
 * already origin_lag old when the load began decides: a fence after its position may be too recent. A
 * process without such a note, or with only an old one, treats more keys as recently invalidated than there
 * are; the same happens if a load takes longer than the notes reach back (64 times origin_lag). Each such
 * key costs one more load.
 */
#ifndef CACHEE_LAG_H
#define CACHEE_LAG_H

#include "write.h"

/* The latest end of a fill that is stored now and whose load began at `started_ms`. 0: no limit, because
 * nothing of it was invalidated recently. */
uint64_t lag_end(struct attachment *a, const struct write *w, uint64_t started_ms, uint64_t now_ms);

/* The end of an entry whose lifetime is changed to end at ends_ms (0: never). */
uint64_t lag_touched(const struct entry_ref *e, uint64_t ends_ms);

#endif
