/* doubt.h - keys of which nobody knows whether their last write has happened.
 *
 * A commit was sent, and its answer never came. The row may change at any time until the database has given
 * up, so the key is announced twice: now, as a record RECORD_UNKNOWN, and again `unknown_ttl` later. What is
 * filled in between lives no longer than until then.
 *
 *   doubts   a deadline for each of 512 ranges of hashes: fills of such keys end there. A host raises it
 *            before it appends the record, its own or a peer's. So a fill whose token is behind the record
 *            sees the deadline.
 *   dues     the second announcements, of this host alone. They belong to no process: any process that
 *            keeps house announces what is due, so no death loses one. A key may be announced twice, so
 *            paying a due needs no lock.
 *
 *   due      | due ms 48 | unused 13 | kind 3 |   hash 64
 *            Both words change in one compare-and-swap; 0: free. The kind is RECORD_KEY, RECORD_TAG, or
 *            RECORD_CLEAR with the hash DUE_OF_ALL.
 *
 * Where there is no room for another due, everything is announced in its place: header, due_all_ms.
 */
#ifndef CACHEE_DOUBT_H
#define CACHEE_DOUBT_H

#include "index.h"

#define NO_DUE UINT32_MAX
#define DUE_OF_ALL 1ull

/* Fills of this key, of all keys, end unknown_ttl from now. If unknown_ttl is 0, nothing is raised. */
void doubt_raise(struct attachment *a, uint64_t hash);
void doubt_raise_all(struct attachment *a);

static inline uint64_t doubt_until(const struct attachment *a, uint64_t hash)
{
    return a->doubts ? load_acquire(&a->doubts[hash >> (64 - INTENT_BUCKET_BITS)]) : 0; /* DOUBT */
}

/* Announce the key or tag again at `due_ms`, by whatever process. Returns the place, for doubt_settle; or
 * NO_DUE: then everything will be announced. */
uint32_t doubt_owe(struct attachment *a, enum record_kind kind, uint64_t hash, uint64_t due_ms);
void doubt_owe_all(struct attachment *a, uint64_t due_ms);

/* It need not be: the outcome is known. Another's due in that place stays, also of the same key. */
void doubt_settle(struct attachment *a, uint32_t place, enum record_kind kind, uint64_t hash,
                  uint64_t due_ms);

/* Is the key, or everything, due to be announced again? Its writer may have sent a commit before it died. */
bool doubt_is_owed(const struct attachment *a, uint64_t hash);

/* Before the first announcement of a key, a tag or everything, whose write may or may not happen: the doubt,
 * for whoever fills behind the record, and the due, which a death after the record does not lose. False:
 * unknown_ttl is 0. */
bool doubt_begin(struct attachment *a, enum record_kind kind, uint64_t hash);

/* When an entry of the key ends that would end at ends_ms, 0: never. */
uint64_t doubt_capped(const struct attachment *a, uint64_t hash, uint64_t now_ms, uint64_t ends_ms);

/* Announce what is due. True. */
bool doubt_pay(struct attachment *a, uint64_t now_ms);

#endif
