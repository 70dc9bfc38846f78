/* journal.h - a record of what happened to keys, for people who investigate later.
 *
 * The journal is a bounded part of the segment. A row says what happened to one key: when, why, in which
 * process, and under which position of the ring. Writing a row never waits. If a process dies while it
 * writes a row, the row's check is wrong, and readers ignore the row.
 *
 *   rows    two rings: one of sampled keys, one of armed keys. A process claims a block of rows by one
 *           fetch_add and fills it alone, so that processes do not fight for a counter. When half the ring
 *           has been claimed since, a process gives its block up and claims a new one, so that the newest
 *           rows are kept longest.
 *   names   the process that wrote a row: pid, command, service. A name stays after its process has ended,
 *           until the table is full and a newcomer takes the place of the oldest whose process is gone.
 *   armed   keys that are watched for a while: everything that happens to them is journalled.
 *
 * What is journalled. header.journal_interest has a bit for each of 32 classes of hashes. A verb first
 * looks at the bit of its key's class, and for most verbs that is all. The rest ask the journal whether
 * this key is sampled or armed. Sampling goes by the key's hash alone, so every host of a namespace
 * journals the same keys.
 */
#ifndef CACHEE_JOURNAL_H
#define CACHEE_JOURNAL_H

#include "attachment.h"
#include "hash.h"

enum journal_kind {
    JOURNAL_NOTHING,
    JOURNAL_WRITTEN,
    JOURNAL_DELETED,
    JOURNAL_SENT,
    JOURNAL_RECEIVED,
    JOURNAL_EVICTED,
    JOURNAL_FILLED,
    JOURNAL_REFUSED, /* a fill */
    JOURNAL_STALE_SERVED,
    JOURNAL_FIRST_READ, /* since the key was armed */
    JOURNAL_HELD,       /* when the key was armed: what was here then */
    JOURNAL_KINDS
};

enum journal_why {
    WHY_NONE,
    /* written */
    WHY_LOST,
    WHY_GUARDED,
    WHY_NO_ROOM,
    WHY_TTL_0,
    /* deleted */
    WHY_TAG,
    WHY_CLEAR,
    WHY_LOCAL,
    WHY_UNKNOWN_OUTCOME,
    /* received */
    WHY_HAD_EVICTED,
    WHY_SAME_VALUE,
    WHY_NOT_HELD,
    /* evicted */
    WHY_CAPACITY,
    WHY_EXPIRED,
    WHY_INVALID,
    WHY_REPAIR,
    /* a fill refused */
    WHY_FENCE,
    /* stale served */
    WHY_RELOADING,
    WHY_LOAD_FAILED,
    WHY_ISOLATED,
    WHYS
};

/* Where the reader found it. */
enum journal_layer { LAYER_SEGMENT, LAYER_NEAR };

struct journal_event { /* of one key */
    uint64_t hash;
    enum journal_kind kind;
    enum journal_why why;
    uint64_t sequence; /* a position of this host's ring; 0: none */
    /* when the value of the affected copy was stored, by the wall clock; 0: there is no copy */
    uint64_t since_ms;
    uint16_t source, digest;
    enum journal_layer layer;
};

/* Is this key's bit set? Only then is the journal to be asked. */
static ALWAYS_INLINE bool journal_may_want(const struct attachment *a, uint64_t hash)
{
    uint32_t classes = (uint32_t)load_relaxed(&a->header->journal_interest);
    return UNLIKELY((classes >> (hash % JOURNAL_CLASSES)) & 1);
}

/* Write a row, if the key is sampled or armed. */
void journal_note(struct attachment *a, const struct journal_event *event);

static ALWAYS_INLINE void journal_key(struct attachment *a, uint64_t hash, enum journal_kind kind,
                                      enum journal_why why, uint64_t sequence)
{
    if (journal_may_want(a, hash))
        journal_note(a,
                     &(struct journal_event){.hash = hash, .kind = kind, .why = why, .sequence = sequence});
}

/* Whether keys are sampled: for every process of the segment. */
void journal_set_mode(struct attachment *a, enum journal_mode mode);

/* Journal everything that happens to this key for `for_ms`. If the table is full, the key whose time ends
 * first is replaced. */
void journal_watch(struct attachment *a, uint64_t hash, uint64_t for_ms);
bool journal_watches(const struct attachment *a, uint64_t hash);

struct journal_name {
    uint64_t pid; /* 0: not known any more */
    char command[JOURNAL_COMMAND_BYTES], service[SERVICE_BYTES];
};

struct journal_read { /* a row as it was read */
    struct journal_event event;
    uint64_t number; /* rows of one process in one ring: in their order */
    uint64_t at_ns;  /* wall clock */
    uint64_t incarnation;
    struct journal_name name;
};

/* How many rows there are to look at, and the one with this number. False: it is empty, torn, or about a
 * key other than `hash`. */
static inline uint32_t journal_rows(const struct attachment *a) { return a->geo.journal_rows; }
bool journal_look(const struct attachment *a, uint32_t row, uint64_t hash, struct journal_read *out);

/* Call this at attach: this process has claimed no block yet. */
void journal_begin(struct attachment *a);

/* The wall clock. */
uint64_t journal_wall_ns(void);

#endif
