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
 *   + doubts        dues          256 x 16               any process, by 16-byte CAS: see doubt.h
 *   + dues          sources       source_slots x 208     the bridge alone
 *   + sources       leases        lease_slots x 48       see struct lease_slot
 *   + leases        locks         lease_slots / 4 x 32   any process, by CAS: see struct lock_slot
 *   + locks         ring          ring_slots x 16        any process, by 16-byte CAS
 *   + ring          fences        16 x ring_slots x 8    any process, raised only
 *   + fences        own writes    16 x ring_slots x 4    any process: see fence.c
 *   + own writes    tag fences    tag_slots x 8          any process, raised only
 *   + tag fences    own tags      tag_slots x 4          any process: see fence.c
 *   + own tags      index         bucket_count x 64      any process, by CAS
 *   + index         page words    page_count x 8         any process, by CAS
 *   + page words    page notes    page_count x 48        see struct page_note
 *   + page notes    sketch        sketch_blocks x 64     any process; advice, exact or not
 *   + sketch        ghost         ghost_sets x 16        any process; advice, exact or not
 *   + ghost         pages         page_count x page_bytes  the page's owner
 *
 * Regions are rounded up to 64 bytes, pages start on 4 KiB. A page has 16 or 64 KiB (geometry.c). Offsets,
 * never pointers. Whoever attaches computes the geometry once, checks it against the header's counts and the
 * file's size, and bounds every later offset by its own copy: shared memory is input. Everything else is read
 * from the segment at each use.
 *
 * Words
 *
 *   index word   | off 16 | page 20 | page generation 11 | tag 14 | frequency 2 | pending 1 |
 *                 63    48 47     28 27               17 16      3 2         1       0
 *   page word    | generation 48 | owner 12 | main 1 | state 3 |
 *   ring meta    | lap 32 | kind 3 | own 1 | source 12 | digest 16 |
 *   lease        | hash 36 | roster generation 16 | slot 12 |
 *   lease began  | ms 51 | check 12 | late 1 |
 *   lease known  | hash 36 | ms 28 |
 *   lock         | hash 36 | roster generation 16 | slot 12 |, and its mark | fencing number 63 | held 1 |
 *   lock until   | ms 44 | check 20 |
 *   roster word  | generation 32 | sweeper's slot 12 | sweeper's generation 12 | kind 4 | state 4 |
 *   intent owner | generation 32 | unused 16 | slot + 1 16 |
 *
 * An entry is four words, then words of its lifetime (none, one or three), tags (a word each), key, value,
 * each padded to 8 bytes:
 *
 *   0 hash | 1 version 52, undecided 1, key length 11 | 2 expires_ms 48, ttl class 6, add 1, local 1, type 8
 *   3 stored_at 32 (1/16 s), lifetime 1, piece 1, spans 1, tags 5, value length 24
 *
 *   lifetime     | sliding 1 | ms that its load took 15 | grace in ms 48 |
 *                  if it slides, two more words: the ms at which it ends whatever happens (0: never), and
 *                  the ms that a use adds
 *
 * An entry is immutable once its index word is published, but for its verdict: the undecided bit is set while
 * nobody has decided whether a pending word becomes visible. Any process decides, by one CAS: it clears the
 * bit (shown), or the bit and the version (withdrawn). So the writer learns what became of its entry,
 * whatever became of the word.
 *
 * A value of more than an eighth of a page is cut into spans: entries without key and index word, each in any
 * page, which hold the hash of the value's own entry, and their number in the stored-at field. The value's
 * own entry then holds, in the value's place, a word for each span:
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

/* Raised by whoever changes what a shared byte means, because the fingerprint sees sizes alone. 2:
 * page_note.dead names its life. 3: intents, leases and records changed their meaning. */
#define LAYOUT_NUMBER 3u
/* Raised by whoever changes what geometry.c makes of the same two numbers. */
#define GEOMETRY_NUMBER 1u
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
    /* of the hash: what shared intents evict for each of them is 1/512 of all keys */
    INTENT_BUCKET_BITS = 9,
    INTENT_BUCKET_WORDS = (1 << INTENT_BUCKET_BITS) / 64,
    NAME_BYTES = 64,
    SERVICE_BYTES = 24,
    LEASES_PER_LOCK = 4,
    /* writes of unknown outcome in unknown_ttl; beyond, everything is announced */
    DUE_SLOTS = 256,
    SPANS_PER_PAGE = 8, /* eight spans fill a page to the byte */
    SPANS_MAX = 2048,   /* so a value has at most 16 MiB; 3.6 where pages are small */
    SKETCH_BLOCK_WORDS = 8,
    GHOST_SET_WORDS = 2,
    GUARD_MARKS = 16,
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
/* What names one entry: neither the frequency nor the pending bit. */
#define INDEX_IDENTITY (~(INDEX_FREQ_MASK | INDEX_PENDING))

enum page_state { PAGE_FREE = 0, PAGE_OPEN = 1, PAGE_SEALED = 2, PAGE_DRAIN = 3, PAGE_SPARE = 4 };
enum page_queue { QUEUE_SMALL = 0, QUEUE_MAIN = 1, QUEUES = 2 };
#define PAGE_STATE_MASK 7ull
#define PAGE_MAIN 8ull
#define PAGE_OWNER_SHIFT 4
#define PAGE_OWNER_BITS 0xfffull
#define PAGE_GEN_SHIFT 16

enum record_kind {
    /* a new value where there was none: it evicts nothing here. Not own, of this host: a local one */
    RECORD_ADD = 0,
    /* evict unconditionally; with the digest bits RECORD_RANGE, every key of a range of hashes */
    RECORD_KEY = 1,
    RECORD_SET = 2,   /* a new value, stored; digest bits say which */
    RECORD_TAG = 3,   /* every entry that carries the tag */
    RECORD_CLEAR = 4, /* every entry; a remote one spares local entries */
    RECORD_ALL = 5,   /* applied from a peer only: everything older, local entries spared */
    RECORD_LOCAL = 6, /* a key event that never leaves the host */
    /* a new value, announced and not stored (a remote write was too recent: digest bits say which) */
    RECORD_GUARDED = 7,
};
#define RECORD_RANGE 2u /* of an own RECORD_KEY, in the digest bits */
#define RECORD_UNKNOWN                                                                                       \
    3u /* of a RECORD_KEY, in the digest bits: nobody knows whether the write has happened, see doubt.h */
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
#define LIFETIME_GRACE_BITS 0xffffffffffffull /* of the first of them */
#define LIFETIME_LOAD_SHIFT 48
#define LIFETIME_LOAD_BITS 0x7fffull
#define LIFETIME_SLIDES (1ull << 63)

/* Who holds a lease or a lock: its roster slot and that slot's generation. The rest of the word is the key's
 * or name's hash. */
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

/* SWEPT: the holder is dead and its debts are announced; the sweeper that the word names gives back the
 * rest. */
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
    /* enum segment_state; RETIRED by whoever finds corruption or replaces the segment */
    a64 state;
    /* creator; raised by the bridge when a peer knows a higher one, or a cursor beyond the tail */
    a64 incarnation;

    /* whoever looks: how long the machine was suspended since it booted, see clock.h */
    a64 suspended_ms;

    /* Contended words, a cache line each. */
    _Alignas(64) a64 ring_tail; /* any process, by CAS: records published so far = the last sequence */
    _Alignas(64) a64 clear_own; /* any process, raised: sequence of the last clear() of this host */
    a64 clear_remote;           /* the bridge, raised: last remote clear or flush; local entries are spared */
    a64 ranges_moved;           /* any process, raised: sequence of the last event of a range of hashes */
    _Alignas(64) a64 page_stamp; /* any process, fetch_add: pages sealed so far */
    a64 tags_moved;              /* any process, raised: sequence of the last event of a tag */
    /* any process, raised: pages sealed before a clear() hold nothing of worth */
    a64 cleared_stamp;
    a64 policy_entries;          /* any process: entries that the pages hold; an estimate, see policy.c */
    a64 ghost_sets;              /* any process: how much of the ghost is in use, see policy.c */
    a64 sketch_additions;        /* any process, fetch_add; taken back by whoever halves the counters */
    a64 climb;                   /* any process, by CAS: see policy.c */
    a64 climb_reads, climb_hits; /* whoever won that CAS */
    /* the bridge alone: beyond it, this host is isolated; or SERVE_NOTHING */
    _Alignas(64) a64 serve_until_ms;
    a64 bridge_generation;        /* whoever takes the bridge's lock: a zombie sees that it moved */
    a64 pump_cursor;              /* the bridge alone: own records re-applied at home up to here */
    a64 guard_marks[GUARD_MARKS]; /* the bridge alone: | sequence 32 | ms 32 |, see ring.c */
    a64 guard_next;               /* the bridge alone */
    a64 bridge_since_ms;          /* whoever takes the bridge's lock, then */
    /* the bridge alone: when it last told of its peers, and how long that counts */
    a64 bridge_told_ms, bridge_until_ms;
    /* creator: as in its predecessor; then the bridge: 1 from its farewell on, 0 once it has the lock */
    a64 bridge_left;
    /* any process, raised, and 0 once it was done: when to announce everything, see doubt.h */
    a64 due_all_ms;
    /* any process, raised: somebody waits until every peer has applied up to here */
    a64 sync_wanted;
    _Alignas(64) a64 doorbell;    /* 1 = the bridge sleeps: the bridge arms, a writer disarms by CAS */
    _Alignas(64) a64 sweep_at_ms; /* any process, by CAS: when the next sweep is due */
    a64 roster_high;              /* any process, raised: roster slots ever used */
    /* any process, by CAS, only upwards: the last fencing number that was drawn, here or before, see
     * lock.h */
    a64 lock_fence;
    /* creator: of a typical entry, which the tables are made for, see geometry.h */
    uint64_t entry_bytes;
};

/* ---- what every layout keeps ----
 *
 * While a host is upgraded it has segments of two layouts. The bridge of one build relays the ring of the
 * other build's segment, and sees to it that nobody serves stale values from it (older.h). So these stay
 * readable from layout to layout:
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
    /* bridge_generation since then: another bridge has served this segment where it differs */
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

enum statistic {
    STAT_HITS,
    STAT_MISSES,
    STAT_EXPIRED,
    STAT_ISOLATED, /* too old for a host that is cut off: withheld, or served where the policy is to serve */
    STAT_SETS,
    STAT_SETS_LOST,
    STAT_SETS_GUARDED,
    STAT_DELETES,
    STAT_FILLS,
    STAT_FILLS_REFUSED,
    STAT_EVICTED,
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
    STAT_LOADS,
    STAT_LEASE_WAITS,
    STAT_LEASES_LATE,    /* their holders take too long: each was relieved by one waiter */
    STAT_LEASES_NO_ROOM, /* loads without one */
    STAT_WAITS_OVER,     /* loads by callers that had waited two load times */
    STAT_WAITS_CIRCULAR, /* loads by loaders that would have waited for one that waits for them */
    STAT_CORRUPT,
    STAT_COUNT
};

struct roster_slot {
    a64 word;        /* holder of the slot's lock byte; after its death the sweeper, by CAS: see roster.h */
    a64 pid;         /* holder; for people, never for liveness */
    a64 attached_ms; /* holder */
    /* holder: hash of the key write under way, 0 = none; sweeper: cleared once it was announced */
    a64 verb_hash;
    /* | life 32 | steps 32 | of announcing what the dead holder owes; any process, by CAS: see
     * roster_debts.c */
    a64 announced;
    a64 command[3]; /* holder; for people */
    /* A bit for each bucket of hashes in which a `writing` block is open that found no intent free. Holder;
     * the sweeper clears them once every key of the bucket was announced. */
    _Alignas(64) a64 shared[INTENT_BUCKET_WORDS];
    _Alignas(64) a64 stats[STAT_COUNT]; /* holder; never reset, so that sums over slots only grow */
    /* holder, when it takes the slot and when it is told; for people. Stays until the next holder */
    a64 service[SERVICE_BYTES / 8];
};

/* An open `writing` block. Any process takes a free one, or one whose owner's life is over, by CAS of
 * `owner`; then the owner alone writes, until it or its sweeper sets `owner` back to 0. A process holds at
 * most half of them. Its further blocks set bits in its roster slot: if it dies, each of these costs the
 * values of 1/512 of all keys, never all of them. */
struct intent {
    a64 owner; /* the life of a roster slot, 0: free */
    a64 hash;  /* of the key; 0: not yet, or no longer */
};

enum { LEASE_WAITS = 2 }; /* a loader that asks for more keys at once loads the others itself */

struct lease_slot {
    /* whose load of which key, 0: nobody's; any process, by CAS, where it is 0 or its holder is dead */
    a64 word;
    /* when, by clock_real_ms: the holder, once it has the word; its late bit: any process, by CAS */
    a64 began;
    a64 token; /* at which ring position: the holder, before `began` */
    a64 known; /* how long the last load took of a key whose ways begin here; any process */
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
    /* enum source_use. FORGOTTEN: no member any more; kept for its return while there is room. Slot 0 is
     * nobody's: it is FORGOTTEN once a forgotten source's slot was given away, and its name is not known */
    a64 used;
    a64 acked;     /* 1 + how far it says that it has applied this host's ring; 0: it has not said */
    a64 fresh_ms;  /* segment clock: what it announced before is applied here; 0: never yet */
    a64 reachable; /* 1: it was fresh, or met for the first time, within lost_after: see peers.h */
    /* the ring's tail when the slot was given to `name`: its records are above. SOURCE_CHANGES: it is being
     * given */
    a64 since;
    /* the ring's tail when it was last given up: the slot that was given up longest ago is given away
     * first */
    a64 until;
    a64 name[NAME_BYTES / 8];
    /* the same of whose slot it was before: its records are above that, and not above `since` */
    a64 before_since;
    a64 reserved;
    a64 before[NAME_BYTES / 8];
};
#define SOURCE_CHANGES UINT64_MAX

struct page_note {
    a64 watermark; /* | entries 16 | check 16 | bytes 32 | that are whole; the owner. See watermark_word */
    /* | generation 32 | slot + 1 16 | check 16 |: who writes into the page, 0: nobody. See pages.c */
    a64 life;
    a64 stamp; /* page_stamp when it was sealed or changed queues; whoever did that */
    /* | generation 32 | bytes 32 | of entries that no index word names any more: the owner begins it with a
     * life, any process adds by CAS; never too many */
    a64 dead;
    a64 expires_ms; /* when the last of its entries expires, grace included; UINT64_MAX: never; the owner */
    a64 tags_seen; /* tags_moved when it was last looked through for invalid entries: any process; UINT64_MAX:
                       none of them has a tag: the owner */
};

_Static_assert(sizeof(a64) == 8 && ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be plain words");
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header is one page");
_Static_assert(sizeof(struct roster_slot) == 384, "roster slot");
_Static_assert(sizeof(struct intent) == 16, "intent");
_Static_assert(sizeof(struct source_slot) == 208, "source slot");
_Static_assert(sizeof(struct lease_slot) == 48, "lease slot");
_Static_assert(sizeof(struct lock_slot) == 32, "lock slot");
_Static_assert(sizeof(struct page_note) == 48, "page note");
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
     (uint64_t)INTENT_BUCKET_BITS << 36 ^ (uint64_t)STAT_COUNT << 8 ^ (uint64_t)GEOMETRY_NUMBER << 52)

/* An entry is seen as words: all of it may be read while its page is being reused. */
enum { ENTRY_HASH, ENTRY_VERSION, ENTRY_EXPIRES_FLAGS, ENTRY_STORED };

#endif
