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

/* What a host that is cut off from a source serves of what it holds (promise 5); segment.py has the same
 * order. */
enum on_isolation {
    ON_ISOLATION_CAP,   /* what was loaded at most isolation_ttl ago */
    ON_ISOLATION_FLUSH, /* of that, only what was loaded since it is cut off */
    ON_ISOLATION_SERVE, /* everything, and it counts */
};

enum { SPARES_MAX = 4, VIEW_PAGES = 64, VIEW_OTHERS = 8 };

/* The pages that a process fills: one of each queue, and one that was too full for something large, but may
 * yet take something smaller: its gap page. */
enum open_slot { OPEN_SMALL = QUEUE_SMALL, OPEN_MAIN = QUEUE_MAIN, OPEN_SMALL_GAP, OPEN_MAIN_GAP, OPENS };

struct open_page { /* a page that is being filled */
    uint32_t page, off, entries;
    uint32_t turns; /* as a gap page */
    uint64_t word;  /* of the page, as this process left it */
    uint64_t expires_ms;
};

struct drain { /* a page that is being emptied */
    uint32_t page, off, end;
    bool compact; /* most of it is dead: what lives is kept, whatever its worth */
};

struct sealed { /* of a sealed page */
    uint64_t stamp;
    uint32_t page;
};

struct view { /* what the page words said when they were last looked through: see queue.c */
    struct sealed oldest[QUEUES][VIEW_PAGES];
    uint32_t count[QUEUES], next[QUEUES], poor[QUEUES]; /* the poor ones stand first */
    uint32_t free[VIEW_PAGES], frees;
    bool more_free;                      /* than were noted */
    uint32_t other[VIEW_OTHERS], others; /* spare pages of other processes */
    uint32_t half_full;                  /* a sealed page of the small queue with room in it, or NO_PAGE */
    uint32_t pages[QUEUES], writers;
    uint64_t stamp;       /* pages sealed until then */
    uint32_t claims_left; /* until it is looked at again */
};

struct survey {          /* of pages with tagged entries: see survey.c */
    uint64_t moved;      /* the tags' last event that it is about */
    uint32_t page, left; /* where it goes on, and for how many pages */
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
    struct source_slot *sources;
    struct lease_slot *leases;
    struct lock_slot *locks;
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
    unsigned char *pages;
    uint32_t span_bytes;
    uint32_t ring_mask, ring_bits, fence_shift;

    uint64_t hash_key[2];

    /* This process in the roster. */
    int fd; /* for liveness tests and for re-attaching after a fork */
    /* by which the file is found again if `fd` was closed; empty: it has none */
    char file_name[FILE_NAME_BYTES];
    uint64_t time_namespace;          /* in which this process attached */
    uint64_t file_inode, file_device; /* is `fd` still the segment's file? Daemons close descriptors */
    /* its ctime when its name was last looked up: naming, renaming and cutting it change that */
    uint64_t file_changed_ns;
    uint64_t looked_ms;        /* roster_gone: when this process last asked the file system */
    uint64_t wrote_ms;         /* when this process last ended a write */
    void *create_lock;         /* held while this process makes the segment */
    uint64_t incarnation_seen; /* the file's, when it was opened; 0: it had none */
    bool left_seen;            /* the same of its mark that the bridge has left */
    uint64_t lock_fence_seen;  /* and of the last fencing number of its locks */
    /* no file: private memory that stores nothing, until a segment can be attached */
    bool stand_in;
    void *lock_page; /* its mapping holds the slot's byte lock: the kernel drops it at death */
    uint32_t slot;
    uint32_t slot_generation;
    struct roster_slot *me;
    char service[SERVICE_BYTES]; /* what this process is called in the roster; padded with zeros */
    uint32_t intents_open;
    /* open blocks in each bucket that its bit in the slot stands for */
    uint16_t intents_shared[1 << INTENT_BUCKET_BITS];
    uint32_t life;            /* which of this process's and its ancestors' attachments this is */
    volatile uint32_t *alive; /* MADV_WIPEONFORK: reads 0 in a forked child until it has its own slot */

    /* The pages that this process holds. */
    struct open_page open[OPENS];
    struct drain drain[QUEUES];
    uint32_t spare[SPARES_MAX], spares; /* drained, not yet opened */
    struct view view;
    struct survey survey;
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
    uint64_t late_ms_min, late_ms_unknown; /* when a load is late: see lease.h; tests lower them */
    int64_t frozen_ms;                     /* >= 0: the clock stands here (tests) */
    int doorbell_fd;
    uint64_t doorbell_inode; /* is it still the queue? Daemons close descriptors */
    char doorbell_name[NAME_BYTES + 16];
    uint32_t doorbell_retry_ms;
    uint64_t doorbell_generation;

    void *bridge_lock; /* held: this process is the bridge */
    /* with which it became that; 0: never, NO_BRIDGE: it was forked from one that did */
    uint64_t bridge_generation;
    /* of a dead process's shared intents, that one sweep announces; tests lower it */
    uint32_t buckets_per_call;
    uint32_t house_page;   /* where its next look at who holds the pages begins */
    uint64_t house_second; /* of the wall clock: in it, this process has looked whether housekeeping is due */
};

/* segment.c, which alone maps memory: zeros in the place of a file that somebody cut. */
void segment_map_zeros(struct attachment *a);

static inline void count(struct attachment *a, enum statistic which, uint64_t n)
{
    bump_own(&a->me->stats[which], n);
}

#endif
