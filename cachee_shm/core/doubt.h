/* doubt.h - keys whose last write has an unknown outcome: it may or may not have happened.
 *
 * A commit was sent, and its answer never came. Until the database gives up, the row may still change. So
 * the key is announced twice: at once, by a record with RECORD_UNKNOWN, and again `unknown_ttl` later. A
 * fill in between lives until the second announcement at most.
 *
 *   doubts   a deadline for each of 512 ranges of hashes: fills of such keys end there. A host raises it
 *            before it appends the record, its own or a peer's. So a fill whose token is behind the record
 *            sees the deadline.
 *   dues     the second announcements of this host's own writes. They belong to no process: any process
 *            that does housekeeping announces what is due, so no death loses one. It does no harm if a key
 *            is announced twice, so paying a due needs no lock.
 *
 *   own      the end of the last doubt that this host itself announced: header, own_doubt_ms, raised before
 *            the record. Until then, every message that stands for records that a peer has missed (a map of
 *            buckets, an ALL, the tail in a STATE) says that writes of unknown outcome may be among them.
 *            Then that peer raises a doubt for all keys.
 *
 *   due      | due ms 48 | unused 13 | kind 3 |   hash 64
 *            Both words change in one compare-and-swap; 0: free. The kind is RECORD_KEY, RECORD_TAG, or
 *            RECORD_CLEAR with the hash DUE_OF_ALL.
 *
 * If there is no room for another due, everything will be announced at that time instead: header,
 * due_all_ms.
 */
#ifndef CACHEE_DOUBT_H
#define CACHEE_DOUBT_H

#include "index.h"

#define NO_DUE UINT32_MAX
#define DUE_OF_ALL 1ull

/* Fills of this key (doubt_raise_all: of all keys) end unknown_ttl from now at the latest. If unknown_ttl
 * is 0, nothing is raised. */
void doubt_raise(struct attachment *a, uint64_t hash);
void doubt_raise_all(struct attachment *a);

/* The same, for a key that this host announces itself. */
void doubt_raise_own(struct attachment *a, uint64_t hash);

/* May a write that this host has announced still happen? Call this after reading the announced records,
 * because an announcer raises own_doubt_ms before its record. After the doubt's end every row has its final
 * state, so a value that is loaded then needs no cap. A segment that is younger than unknown_ttl answers
 * yes: its predecessor's doubts are not known. */
bool doubt_is_open(const struct attachment *a);

static inline uint64_t doubt_until(const struct attachment *a, uint64_t hash)
{
    return a->doubts ? load_acquire(&a->doubts[hash >> (64 - INTENT_BUCKET_BITS)]) : 0; /* DOUBT */
}

/* Note that the key or tag must be announced again at `due_ms`, by any process. Returns the place, for
 * doubt_settle, or NO_DUE: then everything will be announced. */
uint32_t doubt_owe(struct attachment *a, enum record_kind kind, uint64_t hash, uint64_t due_ms);
void doubt_owe_all(struct attachment *a, uint64_t due_ms);

/* The outcome is known now, so remove the due. If the place holds another due by now, also one of the same
 * key, that one stays. */
void doubt_settle(struct attachment *a, uint32_t place, enum record_kind kind, uint64_t hash,
                  uint64_t due_ms);

/* Is the key, or everything, due to be announced again? Its writer may have sent a commit before it died. */
bool doubt_is_owed(const struct attachment *a, uint64_t hash);

/* Call this before the first announcement of a key, a tag or everything, if its write may or may not
 * happen. It raises the doubt, so that fills after the record are capped, and notes the due, so that a
 * death after the record does not lose it. False: unknown_ttl is 0. */
bool doubt_begin(struct attachment *a, enum record_kind kind, uint64_t hash);

/* The end of a fill of the key that would otherwise end at ends_ms (0: never). */
uint64_t doubt_capped(const struct attachment *a, uint64_t hash, uint64_t now_ms, uint64_t ends_ms);

/* Announce what is due. True. */
bool doubt_pay(struct attachment *a, uint64_t now_ms);

#endif
