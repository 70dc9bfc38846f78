/* segment.h - creating, validating, attaching and leaving a segment. segment.c alone maps its memory. */
#ifndef CACHEE_SEGMENT_H
#define CACHEE_SEGMENT_H

#include "cache.h"

struct segment_config {
    uint64_t total_bytes;     /* wanted; an existing segment's size wins */
    uint64_t hash_key[2];     /* the namespace's; has_hash_key false: random at creation, read from the segment after */
    uint64_t isolation_ttl_ms, default_ttl_ms;
    enum on_isolation on_isolation;
    bool has_hash_key, has_bridge;
    bool has_name; /* not anonymous: somebody may unlink it under us */
    const char *host, *name, *doorbell_name;
};

enum attach_result {
    ATTACHED = 0,
    ATTACH_CREATED,         /* attached to a segment that this call made */
    ATTACH_LAYOUT,          /* made by another build */
    ATTACH_GARBAGE,         /* not a segment, or its geometry contradicts its size */
    ATTACH_RETIRED,
    ATTACH_NO_SPACE,        /* errno ENOSPC: memory could not be reserved */
    ATTACH_TIME_NAMESPACE,
    ATTACH_HASH_KEY,        /* the segment's key is not the configured one */
    ATTACH_ROSTER_FULL,
    ATTACH_BUSY,            /* somebody has been creating it for too long */
    ATTACH_TOO_SMALL,
    ATTACH_FAILED,          /* errno says why */
};

/* Attach to the file behind fd (which the attachment then owns), creating its contents if it has none. */
enum attach_result segment_attach(struct attachment *a, int fd, const struct segment_config *config);
void segment_detach(struct attachment *a);

/* In a forked child: a roster slot and pages of its own. False: the roster is full or the file is out of reach. */
bool segment_after_fork(struct attachment *a);

/* Does this process still have a slot of its own (false: it was forked)? */
static inline bool segment_is_ours(const struct attachment *a) { return *a->alive != 0; }

static inline bool segment_retired(const struct attachment *a)
{
    return load_acquire(&a->header->state) == SEGMENT_RETIRED;
}

/* The same of a file that nobody here has attached to. */
bool segment_file_retired(int fd);

/* This process becomes the segment's bridge: false if one lives. A new generation tells a zombie that it is one. */
bool segment_become_bridge(struct attachment *a);

/* Was it the bridge, and is another by now? The kernel keeps the lock for as long as the process lives, so this takes a
 * process that was stored away and brought back, or a fork: its cursors are old, and what it would keep of them is not. */
static inline bool segment_bridge_ousted(const struct attachment *a)
{
    return a->bridge_generation && load_acquire(&a->header->bridge_generation) != a->bridge_generation;
}

/* The header's page, as every layout keeps it. */
static inline struct kept *segment_kept(struct header *h) { return (struct kept *)(void *)((unsigned char *)h + KEPT_AT); }

/* The first bytes of a segment's file, for reading and writing; NULL: errno says why. */
void *segment_map(int fd, uint64_t bytes);
void segment_unmap(void *base, uint64_t bytes);

#endif
