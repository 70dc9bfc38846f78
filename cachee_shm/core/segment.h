/* segment.h - creating, validating, attaching and leaving a segment. segment.c alone maps its memory. */
#ifndef CACHEE_SEGMENT_H
#define CACHEE_SEGMENT_H

#include "recovery.h"

struct segment_config {
    /* the configured size; an existing segment's size wins while any process is attached to it */
    uint64_t total_bytes;
    /* of a typical entry, for the geometry; 0: ENTRY_BYTES_TYPICAL. As total_bytes, the existing one wins */
    uint64_t entry_bytes;
    bool prewarms; /* has room for what pre-warming learns; as total_bytes, the existing one wins */
    double prewarm_weight, prewarm_budget; /* of this process: see attachment.h */
    /* the namespace's hash key; if has_hash_key is false, the creator draws it and others read it from the
     * segment */
    uint64_t hash_key[2];
    uint64_t isolation_ttl_ms, default_ttl_ms;
    /* the highest known incarnation of earlier segments of this name; 0: none is known */
    uint64_t incarnation_seen;
    bool left_seen; /* in the predecessor the bridge had left, and none was back */
    enum on_isolation on_isolation;
    bool has_hash_key, has_bridge;
    bool has_name; /* not anonymous, so the file may be unlinked while we use it */
    const char *host, *name, *doorbell_name;
};

enum attach_result {
    ATTACHED = 0,
    ATTACH_CREATED,    /* attached to a segment that this call made */
    ATTACH_EMPTY,      /* returned by segment_begin: this process must make the segment */
    ATTACH_LAYOUT,     /* made by another build */
    ATTACH_GARBAGE,    /* not a segment, or its geometry contradicts its size */
    ATTACH_RETIRED,    /* it was retired, or its name was removed: the name is free, open it again */
    ATTACH_NOT_OURS,   /* it is retired, but this user may not remove its name */
    ATTACH_NO_SPACE,   /* errno ENOSPC: memory could not be reserved */
    ATTACH_FILE_LIMIT, /* this process may not make files of that size: RLIMIT_FSIZE */
    ATTACH_TIME_NAMESPACE,
    /* the time namespace is unknown: /proc is missing here, or was missing for the creator */
    ATTACH_NO_PROC,
    ATTACH_HASH_KEY, /* the segment's key is not the configured one */
    ATTACH_ROSTER_FULL,
    ATTACH_BUSY, /* another process is making it, or removing its name */
    ATTACH_TOO_SMALL,
    ATTACH_FAILED, /* errno says why */
};

/* Attach to the file behind fd (which the attachment then owns), creating its contents if it has none. It
 * never waits for another process: on ATTACH_BUSY, try again. It has three steps, because the second takes
 * long, and a caller that holds a lock (module.c: the interpreter's) can release it meanwhile. If a step
 * fails, nothing is attached, and fd is closed. segment_begin without a file (-1) puts a stand-in in the
 * segment's place (see below): the result is ATTACHED, and there is nothing to join. */
enum attach_result segment_attach(struct attachment *a, int fd, const struct segment_config *config);
enum attach_result segment_begin(struct attachment *a, int fd, const struct segment_config *config);
/* after ATTACH_EMPTY */
enum attach_result segment_create(struct attachment *a, const struct segment_config *config);
/* after ATTACHED, ATTACH_CREATED */
enum attach_result segment_join(struct attachment *a, const struct segment_config *config);
void segment_detach(struct attachment *a);

/* Replace the segment by a stand-in: private memory in which nothing is ever stored. Every verb works on
 * it, and reads miss. The stand-in is marked as retired, so that each verb first tries to attach to a
 * segment. *left: the old attachment, to be detached by the caller. False: out of memory; nothing has
 * changed. */
bool segment_stand_in(struct attachment *a, struct attachment *left);

/* Do other processes live in the segment? */
bool segment_has_others(const struct attachment *a);

/* Give up this process's slot, and keep the mapping to watch the other slots. */
void segment_only_watch(struct attachment *a);

/* In a forked child: take a roster slot of its own. False: the roster is full or the file is out of
 * reach. */
bool segment_after_fork(struct attachment *a);

/* Does this process still have a slot of its own (false: it was forked)? */
static inline bool segment_is_ours(const struct attachment *a) { return *a->alive != 0; }

static inline bool segment_retired(const struct attachment *a)
{
    return load_acquire(&a->header->state) == SEGMENT_RETIRED;
}

/* CLOCK_MONOTONIC, which no test freezes, in ms. */
uint64_t segment_clock_ms(void);

/* This process becomes the segment's bridge. False: another bridge lives. The new generation tells an older
 * bridge that it has been displaced. */
bool segment_become_bridge(struct attachment *a);

/* Was this process the bridge, and has another replaced it? The kernel keeps the lock as long as the
 * process lives, so this only happens to a process that was checkpointed and restored, or to a fork. Its
 * cursors are old, and must not overwrite the new bridge's. */
static inline bool segment_bridge_ousted(const struct attachment *a)
{
    return a->bridge_generation && load_acquire(&a->header->bridge_generation) != a->bridge_generation;
}

/* The header's page, as every layout keeps it. */
static inline struct kept *segment_kept(struct header *h)
{
    return (struct kept *)(void *)((unsigned char *)h + KEPT_AT);
}

/* The first bytes of a segment's file, for reading and writing; NULL: errno says why. */
void *segment_map(int fd, uint64_t bytes);
void segment_unmap(void *base, uint64_t bytes);

#endif
