/* attachment.h - one process's private view of a segment.
 *
 * Nothing here is shared. The geometry is computed and checked once at attach (geometry.h); after that every
 * offset read from shared memory is bounded by these numbers and never by numbers in the segment.
 */
#ifndef CACHEE_ATTACHMENT_H
#define CACHEE_ATTACHMENT_H

#include "geometry.h"

enum { NO_PAGE = UINT32_MAX };
#define NO_BRIDGE UINT64_MAX
enum { FILE_NAME_BYTES = 192 }; /* "/cachee.", a host's name of 63, a namespace's of 64, the layout */

/* Which of its values a host serves while it is cut off from a source (promise 5); segment.py has the same
 * order. */
enum on_isolation {
    ON_ISOLATION_CAP,   /* values that were loaded at most isolation_ttl ago */
    ON_ISOLATION_FLUSH, /* of these, only values that were loaded since the cut */
    ON_ISOLATION_SERVE, /* everything; reads of values that are too old are counted */
};

enum { SPARES_MAX = 4, VIEW_PAGES = 64, VIEW_OTHERS = 8 };

/* The pages that a process fills: for each queue the open page, and the gap page: one that had no room for
 * a large entry, but may have room for smaller ones. */
enum open_slot { OPEN_SMALL = QUEUE_SMALL, OPEN_MAIN = QUEUE_MAIN, OPEN_SMALL_GAP, OPEN_MAIN_GAP, OPENS };

struct open_page { /* a page that is being filled */
    uint32_t page, off, entries;
    uint32_t turns; /* as a gap page */
    uint64_t word;  /* of the page, as this process left it */
    uint64_t expires_ms;
};

struct drain { /* a page that is being emptied */
    uint32_t page, off, end;
    bool compact; /* most of its entries are dead: the living ones are kept, whatever their worth */
};

struct sealed { /* of a sealed page */
    uint64_t stamp;
    uint32_t page;
};

struct view { /* a summary of the page words from the last scan: see queue.c */
    struct sealed oldest[QUEUES][VIEW_PAGES];
    uint32_t count[QUEUES], next[QUEUES], poor[QUEUES]; /* the poor ones stand first */
    uint32_t free[VIEW_PAGES], frees;
    bool more_free;                      /* there are more free pages than were noted */
    uint32_t other[VIEW_OTHERS], others; /* spare pages of other processes */
    uint32_t half_full;                  /* a sealed page of the small queue with room in it, or NO_PAGE */
    uint32_t pages[QUEUES], writers;
    uint64_t stamp;       /* page_stamp at the scan */
    uint32_t claims_left; /* until the next scan */
};

struct survey {          /* a search of pages with tagged entries: see survey.c */
    uint64_t moved;      /* tags_moved, as it was when this survey began */
    uint32_t page, left; /* the next page, and how many pages are left */
};

enum { LAG_NOTES = 256 }; /* a quarter of the lag apart: 64 lags of them, for loads that take so long */

struct lag {     /* lag.h */
    uint64_t ms; /* 0: no replica lags */
    uint32_t newest;
    struct lag_note {
        uint64_t position, at_ms;
    } note[LAG_NOTES];
};

enum { JOURNAL_SAMPLES, JOURNAL_ARMED, JOURNAL_RINGS };

struct journal_hand { /* the block of rows that this process fills */
    uint64_t block;
    uint32_t left;
};

struct attachment {
    struct geometry geo;
    unsigned char *base;
    struct header *header;
    struct roster_slot *roster;
    struct intent *intents;
    a64 *range_fences; /* NULL in a segment of another layout, as the two below */
    a64 *doubts;
    pair128 *dues;
    struct journal_head *journal; /* NULL in a segment of another layout */
    struct source_slot *sources;
    struct lease_slot *leases;
    struct lock_slot *locks;
    a64 *tallies; /* NULL in a segment of another layout, where nothing is counted */
    pair128 *ring;
    a64 *fences;
    a32 *own_writes;
    a64 *tag_fences;
    a32 *own_tags;
    a64 *index;
    a64 *page_words;
    struct page_note *page_notes;
    a64 *sketch;
    a64 *ghost;
    struct prewarm *prewarm; /* NULL: the namespace does not ask for pre-warming */
    a64 *prewarm_records;
    a64 *prewarm_mail;
    unsigned char *pages;
    uint32_t span_bytes;
    uint32_t ring_mask, ring_bits, fence_shift;

    uint64_t hash_key[2];

    /* This process in the roster. */
    int fd; /* for liveness tests and for re-attaching after a fork */
    /* to find the file again if `fd` was closed; empty: there is no file */
    char file_name[FILE_NAME_BYTES];
    uint64_t time_namespace; /* in which this process attached */
    /* to check that `fd` is still the segment's file, because daemons close descriptors */
    uint64_t file_inode, file_device;
    /* the file's ctime when its name was last looked up: linking, renaming and truncating it change its
     * ctime */
    uint64_t file_changed_ns;
    uint64_t looked_ms;        /* roster_gone: when this process last asked the file system */
    uint64_t wrote_ms;         /* when this process last ended a write */
    void *create_lock;         /* held while this process makes the segment */
    uint64_t incarnation_seen; /* the file's, when it was opened; 0: it had none */
    bool left_seen;            /* the file's mark that the bridge has left, at that time */
    uint64_t lock_fence_seen;  /* the file's last fencing number, at that time */
    /* no file: private memory that stores nothing, until a segment can be attached */
    bool stand_in;
    void *lock_page; /* its mapping holds the slot's byte lock: the kernel drops it at death */
    uint32_t slot;
    uint32_t slot_generation;
    struct roster_slot *me;
    char service[SERVICE_BYTES]; /* the service name of this process in the roster; padded with zeros */
    uint32_t intents_open;
    /* open blocks in each bucket that its bit in the slot stands for */
    uint16_t intents_shared[1 << INTENT_BUCKET_BITS];
    /* the number of this attachment, counted over this process and its ancestors */
    uint32_t life;
    volatile uint32_t *alive; /* MADV_WIPEONFORK: reads 0 in a forked child until it has its own slot */

    /* The pages that this process holds. */
    struct open_page open[OPENS];
    struct drain drain[QUEUES];
    uint32_t spare[SPARES_MAX], spares; /* drained, not yet opened */
    struct view view;
    struct survey survey;
    struct journal_hand journal_hand[JOURNAL_RINGS];
    /* the place of this process's name in the journal; number 0: none yet */
    uint32_t journal_name, journal_name_number;
    /* the last entry of the near cache that was no longer current in the segment */
    uint64_t near_hash, near_version;
    uint64_t written;    /* the last position of this process's own announcements in the ring; 0: none */
    int64_t main_credit; /* bytes that this process may put into the main queue without taking any out */
    uint64_t span_words[SPANS_MAX]; /* of the large value being written */
    uint64_t span_hash;             /* its key's; 0: none is being written */

    /* Configuration of this process. */
    bool has_bridge;
    uint64_t isolation_ttl_ms;
    enum on_isolation on_isolation;
    uint64_t default_ttl_ms; /* 0 = never expires */
    uint64_t unknown_ttl_ms; /* 0 = a write of unknown outcome is announced once, as any other */
    /* weight: how many wasted loads an avoided cold read is worth; budget: additional loads, as a share of
     * the loads without pre-warming (0: no limit) */
    double prewarm_weight, prewarm_budget;
    bool looks_ahead; /* this lookup is for a load ahead, not for a reader: see prewarm.h */
    struct lag lag;
    uint64_t late_ms_min, late_ms_unknown; /* when a load is late: see lease.h; tests lower them */
    int64_t frozen_ms;                     /* >= 0: the clock stands here (tests) */
    int doorbell_fd;
    /* to check that the descriptor is still the queue, because daemons close descriptors */
    uint64_t doorbell_inode;
    char doorbell_name[NAME_BYTES + 16];
    uint32_t doorbell_retry_ms;
    uint64_t doorbell_generation;

    void *bridge_lock; /* held: this process is the bridge */
    /* the generation with which it became the bridge; 0: never; NO_BRIDGE: forked from a bridge */
    uint64_t bridge_generation;
    /* how many of a dead process's shared intents one sweep announces; tests lower it */
    uint32_t buckets_per_call;
    uint32_t house_page; /* where its next check of the pages' owners begins */
    /* the second of the wall clock in which this process last checked whether housekeeping is due */
    uint64_t house_second;
};

/* In segment.c, which alone maps memory: map zeros in place of a file that was truncated. */
void segment_map_zeros(struct attachment *a);

/* If `which` is a constant, the compiler keeps only one of the branches. */
static ALWAYS_INLINE void count(struct attachment *a, enum statistic which, uint64_t n)
{
    if (which < SLOT_STATS)
        bump_own(&a->me->stats[which], n);
    else
        add_relaxed(&a->tallies[which - SLOT_STATS], n);
}

/* One counter, summed over all processes that counted. */
static inline uint64_t statistic_of(const struct attachment *a, enum statistic which)
{
    if (which >= SLOT_STATS)
        return load_relaxed(&a->tallies[which - SLOT_STATS]);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < a->geo.roster_slots && i < load_relaxed(&a->header->roster_high); i++)
        sum += load_relaxed(&a->roster[i].stats[which]);
    return sum;
}

#endif
