/* segment.h - creating, validating, attaching and leaving a segment. segment.c alone maps its memory. */
#ifndef CACHEE_SEGMENT_H
#define CACHEE_SEGMENT_H

#include "recovery.h"

struct segment_config {
    uint64_t total_bytes; /* wanted; an existing segment's size wins while anybody is attached to it */
    /* of a typical entry, for the geometry; 0: ENTRY_BYTES_TYPICAL. As total_bytes, the existing one wins */
    uint64_t entry_bytes;
    /* the namespace's; has_hash_key false: random at creation, read from the segment after */
    uint64_t hash_key[2];
    uint64_t isolation_ttl_ms, default_ttl_ms;
    uint64_t incarnation_seen; /* the highest of this name's earlier segments that is known; 0: none is */
    bool left_seen; /* the bridge has said farewell in the segment that this one follows, and none was back */
    enum on_isolation on_isolation;
    bool has_hash_key, has_bridge;
    bool has_name; /* not anonymous: somebody may unlink it under us */
    const char *host, *name, *doorbell_name;
};

enum attach_result {
    ATTACHED = 0,
    ATTACH_CREATED,    /* attached to a segment that this call made */
    ATTACH_EMPTY,      /* of segment_begin: this process is to make it */
    ATTACH_LAYOUT,     /* made by another build */
    ATTACH_GARBAGE,    /* not a segment, or its geometry contradicts its size */
    ATTACH_RETIRED,    /* or its name was removed: the name is free, open it again */
    ATTACH_NOT_OURS,   /* it is retired, and this user may not remove its name */
    ATTACH_NO_SPACE,   /* errno ENOSPC: memory could not be reserved */
    ATTACH_FILE_LIMIT, /* this process may not make files of that size: RLIMIT_FSIZE */
    ATTACH_TIME_NAMESPACE,
    ATTACH_NO_PROC,  /* that cannot be told: /proc is missing here, or was where it was made */
    ATTACH_HASH_KEY, /* the segment's key is not the configured one */
    ATTACH_ROSTER_FULL,
    ATTACH_BUSY, /* somebody else is making it, or removing its name */
    ATTACH_TOO_SMALL,
    ATTACH_FAILED, /* errno says why */
};

/* Attach to the file behind fd (which the attachment then owns), creating its contents if it has none. Waits
 * for nobody: ATTACH_BUSY is to be tried again. Three steps, because the second takes long: whoever holds a
 * lock of its own (module.c: the interpreter's) lets it go meanwhile. After each that does not succeed
 * nothing is attached, and fd is closed. segment_begin without a file (-1) puts a stand-in in the segment's
 * place (see below): ATTACHED, and there is nothing to join. */
enum attach_result segment_attach(struct attachment *a, int fd, const struct segment_config *config);
enum attach_result segment_begin(struct attachment *a, int fd, const struct segment_config *config);
/* after ATTACH_EMPTY */
enum attach_result segment_create(struct attachment *a, const struct segment_config *config);
/* after ATTACHED, ATTACH_CREATED */
enum attach_result segment_join(struct attachment *a, const struct segment_config *config);
void segment_detach(struct attachment *a);

/* Memory of this process alone takes the segment's place, in which nothing is ever stored: every verb may go
 * on, and misses. It says that it is retired, so that each verb tries for a segment first. *left: the
 * attachment as it was, to be detached. False: there is no memory; all is as it was. */
bool segment_stand_in(struct attachment *a, struct attachment *left);

/* Do others live in it? */
bool segment_has_others(const struct attachment *a);

/* Give up its slot, and go on looking at the others'. */
void segment_only_watch(struct attachment *a);

/* In a forked child: a roster slot and pages of its own. False: the roster is full or the file is out of
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

/* This process becomes the segment's bridge: false if one lives. A new generation tells a zombie that it is
 * one. */
bool segment_become_bridge(struct attachment *a);

/* Was it the bridge, and is another by now? The kernel keeps the lock for as long as the process lives, so
 * this takes a process that was stored away and brought back, or a fork: its cursors are old, and what it
 * would keep of them is not. */
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
