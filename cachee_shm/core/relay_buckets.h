/* relay_buckets.h - what a peer is told of announcements that the ring has lost.
 *
 * The tables of own writes and own tags say which buckets this host announced in after a position, however long ago
 * the records themselves were overwritten.
 */
#ifndef CACHEE_RELAY_BUCKETS_H
#define CACHEE_RELAY_BUCKETS_H

#include "relay.h"

/* Did this host announce anything after `cursor`, up to the ring's tail? Sometimes yes where it did not, never no where
 * it did. */
bool relay_owes(const struct attachment *a, uint64_t cursor);

#endif
