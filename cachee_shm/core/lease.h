/* lease.h - the right to be the one loader of a key on this host (single flight).
 *
 * A lease names its holder's roster slot and that slot's generation, so a dead holder's lease is taken over
 * by the next who wants it. A lease is advice: losing one, or finding no room for one, costs a second load,
 * never a stale value (fills are fenced).
 */
#ifndef CACHEE_LEASE_H
#define CACHEE_LEASE_H

#include "roster.h"

enum lease { LEASE_TAKEN = 0, LEASE_HELD = 1, LEASE_NO_ROOM = 2 };

enum lease lease_take(struct attachment *a, uint64_t hash);
void lease_release(struct attachment *a, uint64_t hash);

#endif
