/* layout.h - every shared byte of a segment. This file is the specification.
 *
 * One POSIX shared-memory object per namespace and host:
 *
 *   offset          region        size                   written by
 *   0               header        4 KiB                  creator; contended words: see struct header
 *   + 3968          kept          (128, in the header)   creator; the bridge of another layout: struct kept
 *   + 4 KiB         roster        roster_slots x 384     the slot's holder; a sweeper after its death
 *   + roster        intents       roster_slots x 8 x 16  any process, by CAS: see struct intent
 *   + intents       range fences  512 x 8                any process, raised only
 *   + range fences  doubts        512 x 8                any process, raised only: see doubt.h
 *   + doubts        journal       see struct journal_head, journal_name, journal_row
 *   + journal       dues          256 x 16               any process, by 16-byte CAS: see doubt.h
 *   + dues          sources       source_slots x 208     the bridge alone
 *   + sources       leases        lease_slots x 48       see struct lease_slot
 *   + leases        locks         lease_slots / 4 x 32   any process, by CAS: see struct lock_slot
 *   + locks         tallies       32 x 8                 any process, fetch_add: see enum statistic
 *   + tallies       ring          ring_slots x 16        any process, by 16-byte CAS
 *   + ring          fences        16 x ring_slots x 8    any process, raised only
 *   + fences        own writes    16 x ring_slots x 4    any process: see fence.c
 *   + own writes    tag fences    tag_slots x 8          any process, raised only
 *   + tag fences    own tags      tag_slots x 4          any process: see fence.c
 *   + own tags      index         bucket_count x 64      any process, by CAS
 *   + index         page words    page_count x 8         any process, by CAS
 *   + page words    page notes    page_count x 48        see struct page_note
 *   + page notes    sketch        sketch_blocks x 64     any process; advice, exact or not
 *   + sketch        ghost         ghost_sets x 16        any process; advice, exact or not
 *   + ghost         prewarm       struct prewarm         any process; advice: see prewarm.h
 *   + prewarm       records       prewarm_sets x 64      any process, by CAS; advice
 *   + records       mailbox       prewarm_mail_words x 8 the bridge; any process takes by CAS: see prewarm.c
 *   + mailbox       pages         page_count x page_bytes  the page's owner
 *
 * The three regions of prewarm are there only where the namespace asks for pre-warming.
 *
 * Regions are rounded up to 64 bytes, pages start on 4 KiB. A page has 16 or 64 KiB (geometry.c). Shared
 * memory holds offsets, never pointers. A process that attaches computes the geometry once, checks it
 * against the header's counts and the file's size, and bounds every later offset by its own copy: shared
 * memory is input. Everything else is read from the segment at each use.
 *
 * Words
 *
 *   index word   | armed 1 | 0 2 | off 13 | page 20 | page generation 11 | tag 14 | frequency 2 | pending 1 |
 *                 63        62  60      48 47     28 27               17 16      3 2         1       0
 *   page word    | generation 48 | owner 12 | main 1 | state 3 |
 *   ring meta    | lap 32 | kind 3 | own 1 | source 12 | digest 16 |
 *   lease        | hash 36 | roster generation 16 | slot 12 |
 *   lease began  | ms 51 | check 12 | late 1 |
 *   lease known  | hash 36 | ms 28 |
 *   lock         | hash 36 | roster generation 16 | slot 12 |, and its mark | fencing number 63 | held 1 |
 *   lock until   | ms 44 | check 20 |
 *   roster word  | generation 32 | sweeper's slot 12 | sweeper's generation 12 | kind 4 | state 4 |
 *   intent owner | generation 32 | unused 16 | slot + 1 16 |
 *   interest     | changes 30 | mode 2 | a bit for each of 32 classes of hashes |
 *
 * An entry is four words, then words of its lifetime (none, one or three), tags (a word each), key, value,
 * each padded to 8 bytes:
 *
 *   0 hash | 1 version 52, undecided 1, key length 11 | 2 expires_ms 48, ttl class 6, add 1, local 1, type 8
 *   3 stored_at 32 (1/16 s), lifetime 1, piece 1, spans 1, tags 5, value length 24
 *
 *   lifetime     | looked at 1 | sliding 1 | ms that its load took 15 | lagging 1 | grace in ms 46 |
 *                  if it slides, two more words: the ms at which it ends whatever happens (0: never), and
 *                  the ms that a use adds
 *
 * An entry is immutable once its index word is published, except for its verdict. The undecided bit is set
 * until a process has decided whether the pending word becomes visible. Any process may decide, by one CAS:
 * it clears the bit (shown), or the bit and the version (withdrawn). So the writer learns the verdict from
 * the entry, even if the index word has changed or gone since.
 *
 * A value of more than an eighth of a page is cut into spans: entries without key and index word, each in any
 * page, which hold the hash of the value's own entry (the head), and their number in the stored-at field.
 * In the value's place, the head holds one word for each span:
 *
 *   span word    | page 20 | off 13 | page generation 31 |
 *
 * A span word is the only word of a published entry that changes: by CAS, when its span is copied to another
 * page.
 *
 * version   sequence << 1 for a set, token << 1 | 1 for a fill: a fill whose token covers a set was loaded
 *           after that set's announcement, so it is the newer of the two (an expired set must not outrank
 *           the fill that replaces it).
 */
#ifndef CACHEE_LAYOUT_H
#define CACHEE_LAYOUT_H

#include <stddef.h>

#include "atomics.h"

/* Raise this when the meaning of a shared byte changes, because the fingerprint only sees sizes. 2:
 * page_note.dead names its life. 3: intents, leases and records changed their meaning. */
#define LAYOUT_NUMBER 3u
/* Raise this when geometry.c computes something else from the same two numbers. */
#define GEOMETRY_NUMBER 2u
#define LAYOUT_MAGIC 0x3145454843414321ull /* "!CACHEE1" */

enum {
    HEADER_BYTES = 4096,
    PAGE_BYTES_SMALL = 16 << 10,
    PAGE_BYTES_MAX = 64 << 10,
    ENTRY_UNIT = 8,
    ENTRY_HEADER_WORDS = 4,
    BUCKET_WORDS = 8,
    KEY_BYTES_MAX = 1024,
    TAGS_MAX = 16,
    LIFETIME_WORDS_MAX = 3,
    FENCES_PER_RING_SLOT = 16,   /* a peer that missed one whole ring over-evicts at most 1/16 */
    ROSTER_SLOTS_MAX = 4096,     /* 12 bits of the page word */
    SOURCE_SLOTS_MAX = 4095,     /* 12 bits of the ring meta; 0 is this host */
    PAGES_MAX = 1 << 20,         /* 20 bits of the index word */
    INTENTS_PER_ROSTER_SLOT = 8, /* on average: a process may hold half of all */
    /* leading bits of the hash: each shared intent evicts 1/512 of all keys */
    INTENT_BUCKET_BITS = 9,
    INTENT_BUCKET_WORDS = (1 << INTENT_BUCKET_BITS) / 64,
    NAME_BYTES = 64,
    SERVICE_BYTES = 24,
    LEASES_PER_LOCK = 4,
    /* writes of unknown outcome at a time; beyond that, everything is announced */
    DUE_SLOTS = 256,
    TALLY_WORDS = 32,
    LOAD_BOUNDS = 14,   /* of the histogram of how long loads take */
    SPANS_PER_PAGE = 8, /* eight spans fill a page to the byte */
    SPANS_MAX = 2048,   /* so a value has at most 16 MiB; 3.6 where pages are small */
    SKETCH_BLOCK_WORDS = 8,
    GHOST_SET_WORDS = 2,
    GUARD_MARKS = 16,
    JOURNAL_CLASSES = 32,
    JOURNAL_BLOCK_ROWS = 8,
    /* one block in four is for armed keys: few keys, but somebody wants to see them */
    JOURNAL_BLOCKS_PER_ARMED = 4,
    JOURNAL_COMMAND_BYTES = 16,
    ARMED_SETS = 16,
    ARMED_WAYS = 4,
    SEGMENT_BYTES_MIN = 2 << 20,
};

/* ---- words ---- */

#define INDEX_PENDING 1ull
#define INDEX_FREQ_SHIFT 1
#define INDEX_FREQ_MASK (3ull << INDEX_FREQ_SHIFT)
#define INDEX_TAG_SHIFT 3
#define INDEX_TAG_MASK (0x3fffull << INDEX_TAG_SHIFT)
#define INDEX_GEN_SHIFT 17
#define INDEX_GEN_BITS 0x7ffull
#define INDEX_PAGE_SHIFT 28
#define INDEX_PAGE_BITS 0xfffffull
#define INDEX_OFF_SHIFT 48
/* The key is watched: its next reader writes a row into the journal. The bit makes the offset too large for
 * any page, so the bounds check that every reader makes anyway also finds it. */
#define INDEX_ARMED (1ull << 63)
/* Bits that may change while the word stands for the same entry, whether shown or not. */
#define INDEX_MARKS (INDEX_FREQ_MASK | INDEX_ARMED)
/* The bits that identify one entry. */
#define INDEX_IDENTITY (~(INDEX_MARKS | INDEX_PENDING))

enum page_state { PAGE_FREE = 0, PAGE_OPEN = 1, PAGE_SEALED = 2, PAGE_DRAIN = 3, PAGE_SPARE = 4 };
enum page_queue { QUEUE_SMALL = 0, QUEUE_MAIN = 1, QUEUES = 2 };
#define PAGE_STATE_MASK 7ull
#define PAGE_MAIN 8ull
#define PAGE_OWNER_SHIFT 4
#define PAGE_OWNER_BITS 0xfffull
#define PAGE_GEN_SHIFT 16

enum record_kind {
    /* a new value where there was none, so nothing is evicted here. Of this host and not own: a local
     * one */
    RECORD_ADD = 0,
    /* evict unconditionally; with the digest bits RECORD_RANGE, every key of a range of hashes */
    RECORD_KEY = 1,
    RECORD_SET = 2,   /* a new value, stored; digest bits say which */
    RECORD_TAG = 3,   /* every entry that carries the tag */
    RECORD_CLEAR = 4, /* every entry; a remote one spares local entries */
    RECORD_ALL = 5,   /* applied from a peer only: everything older, local entries spared */
    RECORD_LOCAL = 6, /* a key event that never leaves the host */
    /* A new value that is announced and not stored, since a remote write was too recent; or a peer's new
     * value of which only some bits of the digest are known. In the digest bits: ring.c, "The guard". */
    RECORD_GUARDED = 7,
};
#define GUARDED_DIGEST_BITS 0x7ffu
#define GUARDED_MARK_SHIFT 11
#define RECORD_RANGE 2u /* of an own RECORD_KEY, in the digest bits */
#define RECORD_UNKNOWN                                                                                       \
    3u /* of a RECORD_KEY, in the digest bits: the outcome of the write is unknown, see doubt.h */
#define META_DIGEST_BITS 0xffffull
#define META_SOURCE_SHIFT 16
#define META_SOURCE_BITS 0xfffull
#define META_OWN (1ull << 28)
#define META_KIND_SHIFT 29
#define META_LAP_SHIFT 32

#define ENTRY_TYPE_BITS 0xffull
#define ENTRY_LOCAL (1ull << 8)
#define ENTRY_ADD (1ull << 9)
#define ENTRY_TTL_CLASS_SHIFT 10
#define ENTRY_EXPIRES_SHIFT 16
#define ENTRY_KEY_BITS 0x7ffull      /* of the version word */
#define ENTRY_UNDECIDED (1ull << 11) /* no verdict yet */
#define ENTRY_VERSION_SHIFT 12
#define ENTRY_LENGTH_BITS 0xffffffull /* of the stored word, as all below */
#define ENTRY_TAGS_SHIFT 24
#define ENTRY_TAGS_BITS 0x1full
#define ENTRY_SPANS (1ull << 29)    /* the value is in spans */
#define ENTRY_PIECE (1ull << 30)    /* this is a span */
#define ENTRY_LIFETIME (1ull << 31) /* words of its lifetime follow */
#define ENTRY_MORE_BITS                                                                                      \
    0xff000000ull /* tags and the three above: 0 in most entries, which are header, key and value alone */
#define ENTRY_STORED_SHIFT 32
#define LIFETIME_GRACE_BITS 0x3fffffffffffull /* of the first of them */
/* The value may be the row of a replica that lags: no touch lets it live longer, see lag.h. */
#define LIFETIME_LAGS (1ull << 46)
#define LIFETIME_LOAD_SHIFT 47
#define LIFETIME_LOAD_BITS 0x7fffull
#define LIFETIME_SLIDES (1ull << 62)
/* A read has more to do than to serve the entry: it slides, or (only in the reader's copy of the word) it
 * is armed. */
#define LIFETIME_LOOKED_AT (1ull << 63)

/* The holder of a lease or a lock: its roster slot and that slot's generation. The rest of the word is the
 * key's or name's hash. */
#define HOLDER_SLOT_BITS 0xfffull
#define HOLDER_GEN_SHIFT 12
#define HOLDER_GEN_BITS 0xffffull
#define HOLDER_HASH_SHIFT 28

#define LOCK_UNTIL_SHIFT 20
#define LOCK_CHECK_BITS 0xfffffull

#define LEASE_LATE 1ull /* of the began word */
#define LEASE_CHECK_SHIFT 1
#define LEASE_CHECK_BITS 0xfffull
#define LEASE_MS_SHIFT 13

/* SWEPT: the holder is dead and its debts are announced; the sweeper that the word names still gives back
 * the holder's pages and intents. */
enum roster_state { SLOT_FREE = 0, SLOT_LIVE = 1, SLOT_SWEPT = 2 };
enum roster_kind { ROSTER_WORKER = 0, ROSTER_BRIDGE = 1 };
#define ROSTER_GEN_SHIFT 32
#define ROSTER_SWEEPER_SHIFT 20
#define ROSTER_SWEEPER_BITS 0xfffull
#define ROSTER_SWEEPER_GEN_SHIFT 8
#define ROSTER_SWEEPER_GEN_BITS 0xfffull
#define ROSTER_KIND_SHIFT 4
#define ROSTER_STATE_MASK 15ull

enum segment_state { SEGMENT_NEW = 0, SEGMENT_READY = 1, SEGMENT_RETIRED = 2 };

/* Value type tags. 0 to 7 are stored and read without a serializer; the others belong to codec.py. */
enum value_type {
    TYPE_BYTES = 0,
    TYPE_ASCII = 1,
    TYPE_UTF8 = 2,
    TYPE_INT64 = 3,
    TYPE_FLOAT = 4,
    TYPE_FALSE = 5,
    TYPE_TRUE = 6,
    TYPE_NONE = 7,
    TYPE_CODEC = 8,
    TYPE_PLAIN = 11, /* msgpack without extensions, see codec.py */
};

/* ---- shared structs ---- */

struct header {
    /* Written once by the creator, under the creation lock, before state becomes READY. */
    uint64_t magic;
    uint64_t fingerprint;
    uint64_t total_bytes;
    uint64_t hash_key[2];
    uint64_t created_wall_ns;
    uint64_t time_namespace; /* inode of /proc/self/ns/time: clocks of two namespaces cannot be compared */
    uint32_t roster_slots, source_slots, lease_slots, ring_slots, tag_slots, bucket_count, page_count,
        page_bytes;
    char host[NAME_BYTES];
    char name[NAME_BYTES]; /* of the file, as far as it fits, for messages */
    /* enum segment_state; any process that finds corruption, or replaces the segment, sets RETIRED */
    a64 state;
    /* creator; raised by the bridge when a peer knows a higher one, or a cursor beyond the tail */
    a64 incarnation;

    /* any process, raised: how long the machine was suspended since it booted, see clock.h */
    a64 suspended_ms;
    /* which keys are journalled: any process, by CAS, see journal.h */
    a64 journal_interest;

    /* Contended words, a cache line each. */
    _Alignas(64) a64 ring_tail; /* any process, by CAS: records published so far = the last sequence */
    _Alignas(64) a64 clear_own; /* any process, raised: sequence of the last clear() of this host */
    /* the bridge, raised: last remote clear or flush; local entries are spared */
    a64 clear_remote;
    a64 ranges_moved;            /* any process, raised: sequence of the last event of a range of hashes */
    _Alignas(64) a64 page_stamp; /* any process, fetch_add: pages sealed so far */
    a64 tags_moved;              /* any process, raised: sequence of the last event of a tag */
    /* any process, raised: pages sealed up to this stamp were sealed before a clear(): all their entries
     * are dead */
    a64 cleared_stamp;
    a64 policy_entries; /* any process: entries that the pages hold; an estimate, see policy.c */
    a64 ghost_sets;     /* any process: how much of the ghost is in use, see policy.c */
    /* any process, fetch_add; the process that halves the counters subtracts */
    a64 sketch_additions;
    a64 climb;                   /* any process, by CAS: see policy.c */
    a64 climb_reads, climb_hits; /* the process that won that CAS */
    /* the bridge alone: beyond it, this host is isolated; or SERVE_NOTHING */
    _Alignas(64) a64 serve_until_ms;
    /* a new bridge, when it has taken the bridge's lock: a displaced bridge sees that it moved */
    a64 bridge_generation;
    a64 pump_cursor;              /* the bridge alone: own records re-applied at home up to here */
    a64 guard_marks[GUARD_MARKS]; /* the bridge alone: | sequence 32 | ms 32 |, see ring.c */
    a64 guard_next;               /* the bridge alone */
    a64 bridge_since_ms;          /* a new bridge, when it has taken the bridge's lock */
    /* the bridge alone: when it last wrote the state of its peers, and until when that counts */
    a64 bridge_told_ms, bridge_until_ms;
    /* creator: copied from the predecessor; then the bridge: 1 from its farewell on, 0 when a bridge has
     * the lock */
    a64 bridge_left;
    /* any process, raised; set to 0 when done: when everything is to be announced, see doubt.h */
    a64 due_all_ms;
    /* any process, raised: until when a write of this host has an unknown outcome, see doubt.h */
    a64 own_doubt_ms;
    /* any process, raised: a process waits until every peer has applied the ring up to here */
    a64 sync_wanted;
    _Alignas(64) a64 doorbell;    /* 1 = the bridge sleeps: the bridge arms, a writer disarms by CAS */
    _Alignas(64) a64 sweep_at_ms; /* any process, by CAS: when the next sweep is due */
    a64 roster_high;              /* any process, raised: roster slots ever used */
    /* any process, by CAS, only upwards: the last fencing number that was given out, in this segment or a
     * predecessor, see lock.h */
    a64 lock_fence;
    /* the bridge, raised: sequence of the last flush, for statistics only; clear_remote covers it */
    a64 flushed;
    /* creator: size of a typical entry, for which the tables are sized, see geometry.h */
    uint64_t entry_bytes;
    uint64_t prewarms; /* creator: 1 where the regions of prewarm are there */
    /* creator: when the segment was made, by clock_ms */
    uint64_t born_ms;
};

/* ---- what stays the same in every layout ----
 *
 * While a host is upgraded it has segments of two layouts. The bridge of one build relays the ring of the
 * other build's segment, and makes sure that no worker serves stale values from it (older.h). So these
 * parts stay readable from layout to layout:
 *
 *   the header's words that are asserted here   where layout 2 has them; a new word goes behind them
 *   struct kept, at KEPT_AT of the header's     says where the rest is. Layout 2 has zeros there, and older.c
 *   page                                        knows its sizes
 *   roster                                      a slot's first word: its state in the lowest 4 bits, 0 = free
 *   ring                                        16 bytes a record, as drawn above; kinds keep their numbers
 *   fences, tag fences; own writes, own tags    8 bytes each; 4 bytes each
 *   the lock bytes                              roster.h
 *
 * Nothing else does: entries, index, pages and leases are of one layout alone. */
enum { KEPT_AT = HEADER_BYTES - 128, KEPT_NUMBER = 1 };

struct kept {
    /* The creator, before state becomes READY. */
    uint32_t number, layout;
    uint32_t roster_slots, roster_slot_bytes, ring_slots, tag_slots, fences_per_ring_slot, doorbell_at;
    uint64_t roster_at, ring_at, fences_at, own_writes_at, tag_fences_at, own_tags_at;
    /* The bridge of another layout. */
    a64 relayed_to; /* the incarnation of the segment that this one's ring is relayed to; 0: never */
    /* bridge_generation at that time: if it differs now, another bridge has served this segment since */
    a64 relayed_generation;
};

/* In serve_until_ms: a bridge of another layout serves this host, so nothing is served from here. */
#define SERVE_NOTHING 1ull

#define KEPT_WORD(word, at)                                                                                  \
    _Static_assert(offsetof(struct header, word) == (at), "every layout keeps this word's place: " #word)
KEPT_WORD(magic, 0);
KEPT_WORD(fingerprint, 8);
KEPT_WORD(total_bytes, 16);
KEPT_WORD(hash_key, 24);
KEPT_WORD(time_namespace, 48);
KEPT_WORD(roster_slots, 56);
KEPT_WORD(state, 216);
KEPT_WORD(incarnation, 224);
KEPT_WORD(suspended_ms, 232); /* 0 in layout 2, which does not know it */
KEPT_WORD(ring_tail, 256);
KEPT_WORD(clear_own, 320);
KEPT_WORD(clear_remote, 328);
KEPT_WORD(page_stamp, 384);
KEPT_WORD(tags_moved, 392);
KEPT_WORD(cleared_stamp, 400);
KEPT_WORD(serve_until_ms, 512);
KEPT_WORD(bridge_generation, 520);
KEPT_WORD(pump_cursor, 528);
KEPT_WORD(bridge_told_ms, 680);
KEPT_WORD(bridge_until_ms, 688);
_Static_assert(LAYOUT_NUMBER < 256, "the fingerprint's highest byte is the layout's number");
_Static_assert(sizeof(struct header) <= KEPT_AT && KEPT_AT + sizeof(struct kept) <= HEADER_BYTES,
               "both are in the first page");

/* Counters. The first SLOT_STATS are in each roster slot and cost a plain store: they count what happens in
 * every verb. The others are in `tallies`, which all processes share, and cost a locked instruction: they
 * count what takes microseconds anyway. Both kinds outlive the process that counted. */
enum statistic {
    STAT_HITS,
    STAT_MISSES,
    STAT_EXPIRED,
    /* reads of values that are too old for a host that is cut off: refused, or served under the policy
     * `serve` */
    STAT_ISOLATED,
    STAT_SETS,
    STAT_SETS_LOST,
    STAT_SETS_GUARDED,
    STAT_DELETES,
    STAT_FILLS,
    STAT_FILLS_REFUSED,
    STAT_EVICTED, /* entries that could still be read, evicted because room was needed */
    /* Entries that could not be read any more, counted when their room is taken: */
    STAT_DROPPED_EXPIRED, /* its lifetime was over */
    STAT_DROPPED_TAG,     /* one of its tags was deleted */
    STAT_DROPPED_FLUSHED, /* everything was flushed, because records of a peer may be missing */
    STAT_DROPPED_CLEARED, /* by a clear(), or with the range of a process that died */
    STAT_REINSERTED,
    STAT_NO_ROOM,
    STAT_APPLIED,
    STAT_APPLIED_KEPT,
    STAT_INVALIDATED,
    STAT_UNDECODABLE,
    STAT_RETRIES,
    STAT_DOORBELLS,
    STAT_SWEPT,
    STAT_INTENTS_SWEPT,
    STAT_LEASES_LATE,    /* their holders take too long: for each, one waiter loads as well */
    STAT_LEASES_NO_ROOM, /* loads without one */
    STAT_CORRUPT,

    SLOT_STATS,
    STAT_LOADS = SLOT_STATS, /* fills that were attempted */
    /* Loads of get_or_load and its variants, by their result: */
    STAT_LOADS_OK,
    STAT_LOADS_FAILED, /* the loader raised, and so did the caller */
    /* the caller got the value, but it was not stored, because the key was written meanwhile */
    STAT_LOADS_REFUSED,
    STAT_LOADS_STALE,    /* the loader raised, and the caller got the older value */
    STAT_LEASE_WAITS,    /* callers that began to wait for the load of another caller */
    STAT_WAITS_SERVED,   /* of these: the load brought the value */
    STAT_WAITS_FAILED,   /* the load raised, and so did they */
    STAT_WAITS_AGAIN,    /* the load stored nothing: they ask again */
    STAT_WAITS_STALE,    /* callers that did not wait, because they had the older value */
    STAT_WAITS_OVER,     /* loads by callers that had waited two load times */
    STAT_WAITS_CIRCULAR, /* loads by loaders that would have waited for one that waits for them */
    STAT_OVEREVICTED,    /* entries evicted by events that name no keys: maps of buckets and flushes */
    STAT_LOAD_US,        /* microseconds of all loads together */
    /* loads that took at most the first bound of load_bounds_us; LOAD_BOUNDS more: each of the others,
     * and longer */
    STAT_LOADS_TOOK,
    STAT_COUNT = STAT_LOADS_TOOK + LOAD_BOUNDS + 1
};
_Static_assert(STAT_COUNT - SLOT_STATS <= TALLY_WORDS, "each has a word");

struct roster_slot {
    /* the holder of the slot's lock byte; after the holder's death a sweeper, by CAS: see roster.h */
    a64 word;
    a64 pid;         /* holder; for people, never for liveness */
    a64 attached_ms; /* holder */
    /* holder: hash of the key write under way, 0 = none; sweeper: cleared once it was announced */
    a64 verb_hash;
    /* | life 32 | steps 32 | of announcing what the dead holder owes; any process, by CAS: see
     * roster_debts.c */
    a64 announced;
    a64 command[3]; /* holder; for people */
    /* A bit for each bucket of hashes that has an open `writing` block for which no intent was free.
     * Holder; the sweeper clears them once every key of the bucket was announced. */
    _Alignas(64) a64 shared[INTENT_BUCKET_WORDS];
    _Alignas(64) a64 stats[SLOT_STATS]; /* holder; never reset, so sums over slots only grow */
    /* holder, when it takes the slot and when its service is named; for people. Stays until the next
     * holder */
    a64 service[SERVICE_BYTES / 8];
};

/* An open `writing` block. Any process takes a free intent, or one whose owner is dead, by CAS of `owner`.
 * Then only the owner writes it, until the owner or its sweeper sets `owner` back to 0. A process holds at
 * most half of all intents. For further blocks it sets bits in its roster slot: if it dies, each such bit
 * evicts 1/512 of all keys, never all of them. */
struct intent {
    a64 owner; /* the owner's roster slot and its generation; 0: free */
    a64 hash;  /* of the key; 0: not yet, or no longer */
};

/* How much is journalled of keys that are not armed (in header.journal_interest). */
enum journal_mode { JOURNAL_SAMPLED, JOURNAL_OFF, JOURNAL_ALL };

struct armed_key {
    a64 hash; /* any process, by CAS; 0: free */
    /* the process that wrote the hash, after writing it. A time in the past: the place is free */
    a64 until_ms;
};

/* The journal begins with this; then its names, then its rows. */
struct journal_head {
    _Alignas(64) a64 blocks_claimed; /* any process, fetch_add: of the ring of sampled keys */
    _Alignas(64) a64 armed_claimed;  /* the same of the ring of armed keys */
    _Alignas(64) a64 names_given;    /* any process, fetch_add */
    _Alignas(64) struct armed_key armed[ARMED_SETS][ARMED_WAYS];
};

/* The process that wrote a row. A process takes the place by CAS of `stamp`; then only it writes, the stamp
 * last. */
struct journal_name_slot {
    /* | number 32 | check 32 |; a check that is wrong: it is being written, or its writer died */
    a64 stamp;
    a64 holder; /* the roster slot and its generation: | generation 32 | slot 32 | */
    a64 pid;
    a64 command[JOURNAL_COMMAND_BYTES / 8];
    a64 service[SERVICE_BYTES / 8];
};

/* Written by the process that has claimed the block, the stamp last. A process that was stopped while half
 * the ring was written may write into a block that is another's by now: readers find that by the check. */
struct journal_row {
    a64 stamp; /* | number 32 | check of all other words 32 | */
    a64 hash;
    a64 at_ns; /* wall clock */
    a64 what;  /* | sequence 52 | kind 8 | layer 4 | */
    a64 by;    /* | name's number 16 | name 12 | source 12 | why 8 | digest 16 | */
    a64 incarnation;
    a64 since_ms; /* wall clock; 0: none */
};

enum { LEASE_WAITS = 2 }; /* a loader that asks for more keys at once loads the others itself */

struct lease_slot {
    /* which process loads which key, 0: free; any process, by CAS, if it is 0 or its holder is dead */
    a64 word;
    /* when the load began, by clock_real_ms: the holder, once it has the word; the late bit: any process,
     * by CAS */
    a64 began;
    a64 token; /* the ring position at which the load began: the holder, before `began` */
    a64 known; /* how long the last load of a key took whose first place is here; any process */
    /* hashes of the keys whose loads this load's loader waits for, 0: none; the holder */
    a64 waits[LEASE_WAITS];
};

/* See lock.h. A vacant place keeps its last mark, so that no state of it comes twice. */
struct lock_slot {
    /* meta: who holds or claims which name, 0: nobody; hash: the mark. Any process, by 16-byte CAS: a claim
     * where it is vacant or its holder is dead or late; then the claimer confirms, the holder gives back */
    pair128 held;
    /* when it ends whatever its holder does, 0 ms: never; the claimer, by CAS, before it confirms */
    a64 until;
    a64 reserved;
};

enum source_use { SOURCE_FREE = 0, SOURCE_MEMBER = 1, SOURCE_FORGOTTEN = 2 };

struct source_slot { /* written by the bridge alone */
    a64 incarnation;
    a64 cursor;
    /* enum source_use. FORGOTTEN: no longer a member, kept for its return while there is room. Slot 0
     * belongs to no source: it is FORGOTTEN from the time when a forgotten source's slot was first given
     * away, because that source's name is then unknown */
    a64 used;
    /* 1 + the position up to which the source says that it has applied this host's ring; 0: it has not
     * said */
    a64 acked;
    /* by the segment's clock: everything that the source announced before this time is applied here; 0:
     * never yet */
    a64 fresh_ms;
    a64 reachable; /* 1: the source was fresh, or was first met, within lost_after: see peers.h */
    /* the ring's tail when the slot was given to `name`: records of this source are above it.
     * SOURCE_CHANGES: the slot is being given to a source */
    a64 since;
    /* the ring's tail when the source was last forgotten: the slot that was forgotten longest ago is reused
     * first */
    a64 until;
    a64 name[NAME_BYTES / 8];
    /* `since` of the source that had the slot before: its records are above this, and not above `since` */
    a64 before_since;
    a64 reserved;
    a64 before[NAME_BYTES / 8];
};
#define SOURCE_CHANGES UINT64_MAX

struct page_note {
    /* | entries 16 | check 16 | bytes 32 | that are complete; the owner. See watermark_word */
    a64 watermark;
    /* | generation 32 | slot + 1 16 | check 16 |: the process that writes into the page, 0: none. See
     * pages.c */
    a64 life;
    a64 stamp; /* page_stamp when the page was sealed or changed queues; the process that did that */
    /* | generation 32 | bytes 32 | of entries that no index word names any more: the owner resets it with
     * each new life of the page, any process adds by CAS. Never too high */
    a64 dead;
    a64 expires_ms; /* when the last of its entries expires, grace included; UINT64_MAX: never; the owner */
    /* tags_moved when the page was last searched for invalid entries: any process. UINT64_MAX (the
     * owner): no entry of the page has a tag */
    a64 tags_seen;
};

/* What pre-warming has learned from all keys: bit patterns of floats and doubles. All zeros is the initial
 * state. Any process stores without locks; see prewarm.h. */
enum {
    /* bins of the time until an event, by the number of its bits in ms; one more: never */
    PREWARM_BINS = 20,
    PREWARM_SHAPES = 13, /* 12 classes, and all of them */
    PREWARM_WEIGHTS = 9 + 32 + 16 + 16,
};

struct prewarm_shape {
    a32 outcomes, read[PREWARM_BINS + 1], written[PREWARM_BINS + 1];
};

struct prewarm {
    a64 tokens, horizon_ms; /* doubles */
    a64 hand;               /* of the sweep */
    a64 loads, useful, wasted;
    a64 evicted;      /* entries that fell out */
    a64 evicted_seen; /* | loads ahead that still pay for it 8 | those that the last one knew of 56 | */
    _Alignas(64) a64 mail_tail;   /* the bridge: words put so far */
    _Alignas(64) a64 mail_head;   /* any process, by CAS: words taken so far */
    a64 weights[PREWARM_WEIGHTS]; /* | sum of squared errors 32 | weight 32 |, floats */
    a32 bias;
    struct prewarm_shape shapes[PREWARM_SHAPES];
};

_Static_assert(sizeof(a64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be plain words");
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header is one page");
_Static_assert(sizeof(struct roster_slot) == 384, "roster slot");
_Static_assert(sizeof(struct intent) == 16, "intent");
_Static_assert(sizeof(struct source_slot) == 208, "source slot");
_Static_assert(sizeof(struct lease_slot) == 48, "lease slot");
_Static_assert(sizeof(struct lock_slot) == 32, "lock slot");
_Static_assert(sizeof(struct page_note) == 48, "page note");
_Static_assert(sizeof(struct prewarm) == 3008, "prewarm");
_Static_assert(sizeof(struct journal_row) == 56, "journal row");
_Static_assert(sizeof(struct journal_name_slot) == 64, "journal name");
_Static_assert(sizeof(pair128) == 16, "ring slot");
_Static_assert(PAGE_BYTES_MAX / ENTRY_UNIT <= 1 << 13, "an entry's offset fits the 13 bits of a span word");
_Static_assert(SPANS_MAX * 8 + KEY_BYTES_MAX + (TAGS_MAX + LIFETIME_WORDS_MAX + ENTRY_HEADER_WORDS) * 8 <
                   PAGE_BYTES_MAX,
               "an entry of spans fits a large page");
_Static_assert(SPANS_MAX *(PAGE_BYTES_MAX / SPANS_PER_PAGE - ENTRY_HEADER_WORDS * 8) <= ENTRY_LENGTH_BITS,
               "the length of the largest value fits its bits");
_Static_assert(KEY_BYTES_MAX <= ENTRY_KEY_BITS && TAGS_MAX <= ENTRY_TAGS_BITS,
               "so do a key's and the number of tags");

/* Two builds whose sizes differ must not share a segment. */
#define LAYOUT_FINGERPRINT                                                                                   \
    ((uint64_t)LAYOUT_NUMBER << 56 ^ (uint64_t)sizeof(struct header) << 40 ^                                 \
     (uint64_t)sizeof(struct roster_slot) << 28 ^ (uint64_t)sizeof(struct source_slot) << 20 ^               \
     (uint64_t)ENTRY_HEADER_WORDS << 16 ^ (uint64_t)ENTRY_UNIT << 4 ^ (uint64_t)sizeof(struct page_note) ^   \
     (uint64_t)sizeof(struct lease_slot) << 32 ^ (uint64_t)sizeof(struct lock_slot) << 44 ^                  \
     (uint64_t)sizeof(struct prewarm) << 24 ^ (uint64_t)INTENT_BUCKET_BITS << 36 ^                           \
     (uint64_t)STAT_COUNT << 8 ^ (uint64_t)SLOT_STATS << 12 ^ (uint64_t)GEOMETRY_NUMBER << 52)

/* An entry is accessed as words, because a reader may read it while its page is being reused. */
enum { ENTRY_HASH, ENTRY_VERSION, ENTRY_EXPIRES_FLAGS, ENTRY_STORED };

#endif
