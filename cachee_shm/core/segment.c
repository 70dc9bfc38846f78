/* segment.c - see segment.h. Layout and geometry are in layout.h and geometry.h; this file fills them in and
 * checks them.
 *
 * Any number of processes may attach, make, retire and leave a segment at the same time:
 *
 *   making     one process at a time holds the creation lock of the file, a byte lock that the kernel drops
 *              at its death. The file's state says READY only after everything else is stored (READY), so a
 *              process that dies before that leaves an unfinished file, which the next one begins again
 *   attaching  waits for nobody: a file that another process is making is ATTACH_BUSY, to be tried again
 *   retiring   any process stores RETIRED, and no process ever takes that back. The others notice at their
 *              next verb, and attach to the successor. A file is never truncated while it may be mapped
 *   unlinking  under the creation lock, and only if the name still leads to this file
 */
#include "segment.h"

#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HUGE_PAGE_BYTES = 2 << 20,
    /* how long a creator asks for huge pages while others wait for it; the tables come first */
    HUGE_PAGES_MS_MAX = 1000,
    /* fences that one sweep raises for a dead process's shared intents: some milliseconds */
    FENCES_PER_SWEEP = 1 << 18,
    MADVISE_COLLAPSE = 25, /* MADV_COLLAPSE, which older headers lack */
};

static uint64_t segment_align_up(uint64_t v, uint64_t to) { return (v + to - 1) / to * to; }

/* ---- creation ---- */

static uint64_t segment_time_namespace(void)
{
    struct stat s;
    return stat("/proc/self/ns/time", &s) == 0 ? (uint64_t)s.st_ino : 0;
}

static uint64_t segment_wall_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t segment_clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void segment_copy_name(char *to, const char *from)
{
    for (size_t i = 0; i + 1 < NAME_BYTES && from && from[i]; i++)
        to[i] = from[i];
}

/* A higher number than any clock gives (it is reached in the year 2262): damaged bytes. */
#define INCARNATION_MAX ((uint64_t)1 << 63)

/* Incarnations are ordered: wall time first, then random bits. So a recreated segment is always the newer
 * one; `seen` makes that true even if the wall clock was set back since its predecessor was made. */
static uint64_t segment_new_incarnation(uint64_t seen)
{
    uint16_t random = 0;
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != sizeof random)
        random = (uint16_t)getpid();
    uint64_t now = (segment_wall_ns() >> 16 << 16) | random;
    return now <= seen && seen < INCARNATION_MAX ? seen + 1 : now;
}

/* For bridges of other layouts. */
static void segment_describe(struct header *h, const struct geometry *g)
{
    struct kept *kept = segment_kept(h);
    kept->number = KEPT_NUMBER;
    kept->layout = LAYOUT_NUMBER;
    kept->roster_slots = g->roster_slots;
    kept->roster_slot_bytes = sizeof(struct roster_slot);
    kept->ring_slots = g->ring_slots;
    kept->tag_slots = g->tag_slots;
    kept->fences_per_ring_slot = FENCES_PER_RING_SLOT;
    kept->doorbell_at = offsetof(struct header, doorbell);
    kept->roster_at = g->roster_at;
    kept->ring_at = g->ring_at;
    kept->fences_at = g->fences_at;
    kept->own_writes_at = g->own_writes_at;
    kept->tag_fences_at = g->tag_fences_at;
    kept->own_tags_at = g->own_tags_at;
}

static uint64_t segment_entry_bytes_of(const struct segment_config *config)
{
    return config->entry_bytes ? config->entry_bytes : ENTRY_BYTES_TYPICAL;
}

static bool segment_plan(struct geometry *g, const struct segment_config *config)
{
    return geometry_plan(g, config->total_bytes, segment_entry_bytes_of(config), config->prewarms);
}

static void segment_fill_header(struct header *h, const struct geometry *g,
                                const struct segment_config *config)
{
    h->magic = LAYOUT_MAGIC;
    h->fingerprint = LAYOUT_FINGERPRINT;
    h->total_bytes = g->total_bytes;
    h->entry_bytes = g->entry_bytes;
    h->prewarms = g->prewarm_sets > 0;
    h->created_wall_ns = segment_wall_ns();
    h->time_namespace = segment_time_namespace();
    h->roster_slots = g->roster_slots;
    h->source_slots = g->source_slots;
    h->lease_slots = g->lease_slots;
    h->ring_slots = g->ring_slots;
    h->tag_slots = g->tag_slots;
    h->bucket_count = g->bucket_count;
    h->page_count = g->page_count;
    h->page_bytes = g->page_bytes;
    memcpy(h->hash_key, config->hash_key, sizeof h->hash_key);
    if (!config->has_hash_key && getrandom(h->hash_key, sizeof h->hash_key, 0) != sizeof h->hash_key)
        h->hash_key[0] = segment_wall_ns(), h->hash_key[1] = (uint64_t)getpid();
    segment_copy_name(h->host, config->host);
    segment_copy_name(h->name, config->name);
    segment_describe(h, g);
    uint64_t suspended_ms = 0;
    clock_suspended(&suspended_ms);
    store_relaxed(&h->suspended_ms, suspended_ms);
    h->born_ms = clock_real_ms() + suspended_ms;
    store_relaxed(&h->incarnation, segment_new_incarnation(config->incarnation_seen));
    store_relaxed(&h->bridge_left, config->left_seen);
    store_relaxed(&h->clear_own, 0);
}

/* ---- mapping ---- */

/* Map at a multiple of the huge page size, so that the kernel can use huge pages. */
static void *segment_map_bytes(int fd, uint64_t bytes)
{
    unsigned char *range =
        mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED)
        return MAP_FAILED;
    unsigned char *at = (unsigned char *)segment_align_up((uintptr_t)range, HUGE_PAGE_BYTES),
                  *end = range + bytes + HUGE_PAGE_BYTES;
    void *mapped = mmap(at, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    unsigned char *behind =
        mapped == MAP_FAILED ? range : (unsigned char *)segment_align_up((uintptr_t)at + bytes, HEADER_BYTES);
    if (mapped != MAP_FAILED && at > range)
        munmap(range, (size_t)(at - range));
    if (end > behind)
        munmap(behind, (size_t)(end - behind));
    return mapped;
}

void *segment_map(int fd, uint64_t bytes)
{
    void *base = segment_map_bytes(fd, bytes);
    return base == MAP_FAILED ? NULL : base;
}

void segment_unmap(void *base, uint64_t bytes) { munmap(base, bytes); }

/* One huge page replaces 512 small ones, so reading a random key needs fewer walks of the page table.
 * MADV_COLLAPSE (Linux 6.1) works whatever the machine's settings are, but only on memory that has been
 * touched. If it is refused, or takes too long, small pages are used. */
static void segment_ask_for_huge_pages(int fd, uint64_t bytes)
{
    unsigned char *at = segment_map_bytes(fd, bytes);
    uint64_t until_ms = segment_clock_ms() + HUGE_PAGES_MS_MAX;
    if (at == MAP_FAILED)
        return;
    for (uint64_t off = 0; off + HUGE_PAGE_BYTES <= bytes && segment_clock_ms() < until_ms;
         off += HUGE_PAGE_BYTES)
        if (posix_fallocate(fd, (off_t)off, HEADER_BYTES) != 0 ||
            madvise(at + off, HUGE_PAGE_BYTES, MADVISE_COLLAPSE) != 0)
            break;
    munmap(at, bytes);
}

/* ---- a new file ---- */

/* The header is read, not mapped: a creator that fails to reserve memory truncates the file, and touching a
 * mapping would then raise SIGBUS. */
static bool segment_read_header(int fd, struct header *h)
{
    ssize_t n = pread(fd, h, sizeof *h, 0);
    fence_acquire(); /* READY */
    return n == (ssize_t)sizeof *h;
}

static uint64_t segment_state_of(int fd)
{
    struct header h;
    return segment_read_header(fd, &h) ? load_acquire(&h.state) : SEGMENT_NEW;
}

/* May this process fill the file? Only if it holds what an unfinished creator leaves: zeros, or the
 * beginning of a header. */
static bool segment_may_begin(int fd)
{
    uint64_t magic = 0;
    return pread(fd, &magic, sizeof magic, 0) >= 0 && (magic == 0 || magic == LAYOUT_MAGIC);
}

/* Checked in advance: beyond RLIMIT_FSIZE the kernel would send SIGXFSZ, which ends a process that does not
 * ignore it. */
static bool segment_file_may_have(uint64_t bytes)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur;
}

static enum attach_result segment_no_memory(int why)
{
    errno = why;
    return why == EFBIG                     ? ATTACH_FILE_LIMIT
           : why == ENOSPC || why == ENOMEM ? ATTACH_NO_SPACE
                                            : ATTACH_FAILED;
}

/* Reserve every byte first: a small /dev/shm is an error here, never a SIGBUS later. */
static enum attach_result segment_reserve(int fd, uint64_t bytes)
{
    if (!segment_file_may_have(bytes))
        return segment_no_memory(EFBIG);
    if (ftruncate(fd, 0) != 0) /* safe, because no process maps a file before it is ready */
        return ATTACH_FAILED;
    if (ftruncate(fd, (off_t)bytes) == 0)
        segment_ask_for_huge_pages(fd, bytes);
    int why = posix_fallocate(fd, 0, (off_t)bytes);
    return why ? segment_no_memory(why) : ATTACH_CREATED;
}

/* A process that is still in an earlier segment of this name checks once a tick of the coarse clock whether
 * its file still has the name (roster_gone). After two ticks each of them has checked, so no verb that ends
 * after this segment is ready counts as done in the old one. */
static void segment_wait_two_ticks(void)
{
    struct timespec tick = {.tv_nsec = 1000 * 1000};
    clock_getres(CLOCK_MONOTONIC_COARSE, &tick);
    nanosleep(&(struct timespec){.tv_nsec = 2 * tick.tv_nsec + 1000 * 1000}, NULL);
}

/* ---- validation ---- */

static enum attach_result segment_validate(const struct header *h, uint64_t file_bytes, struct geometry *g,
                                           const struct segment_config *config)
{
    if (load_acquire(&h->state) == SEGMENT_RETIRED)
        return ATTACH_RETIRED;
    if (h->magic != LAYOUT_MAGIC)
        return ATTACH_GARBAGE;
    if (h->fingerprint != LAYOUT_FINGERPRINT)
        return ATTACH_LAYOUT;
    if (h->total_bytes > file_bytes || !geometry_plan(g, h->total_bytes, h->entry_bytes, h->prewarms == 1) ||
        !geometry_is(h, g))
        return ATTACH_GARBAGE;
    if (h->time_namespace != segment_time_namespace())
        return h->time_namespace && segment_time_namespace() ? ATTACH_TIME_NAMESPACE : ATTACH_NO_PROC;
    if (config->has_hash_key && memcmp(h->hash_key, config->hash_key, sizeof h->hash_key) != 0)
        return ATTACH_HASH_KEY;
    return ATTACHED;
}

/* ---- making it ---- */

/* Unlink the file's name, unless it leads to another file by now. The creation lock is held, so of the
 * processes that find a file retired, only one at a time checks and unlinks. */
static enum attach_result segment_remove_name(const struct attachment *a)
{
    if (!a->file_name[0] || !roster_named(a) || shm_unlink(a->file_name) == 0 || errno == ENOENT)
        return ATTACH_RETIRED;
    return errno == EACCES || errno == EPERM ? ATTACH_NOT_OURS : ATTACH_FAILED;
}

static enum attach_result segment_fill(struct attachment *a, const struct segment_config *config)
{
    struct geometry g;
    if (!segment_plan(&g, config))
        return ATTACH_TOO_SMALL;
    enum attach_result result = segment_reserve(a->fd, g.total_bytes);
    if (result != ATTACH_CREATED)
        return result;
    /* Map the whole segment, as attaching does afterwards. If this process has no address space for that, it
     * fails here, where the caller still removes the file. */
    void *base = segment_map_bytes(a->fd, g.total_bytes);
    if (base == MAP_FAILED)
        return ATTACH_FAILED;
    struct header *h = base;
    segment_fill_header(h, &g, config);
    if (config->has_name)
        segment_wait_two_ticks();
    bool named = roster_named(a);
    store_release(&h->state, named ? SEGMENT_READY : SEGMENT_RETIRED); /* READY */
    segment_unmap(base, g.total_bytes);
    return named ? ATTACH_CREATED : ATTACH_RETIRED;
}

/* If the segment cannot be made, no file is left behind. */
static enum attach_result segment_make(struct attachment *a, const struct segment_config *config)
{
    if (!segment_may_begin(a->fd))
        return ATTACH_GARBAGE;
    enum attach_result result = segment_fill(a, config);
    if (result == ATTACH_CREATED || result == ATTACH_RETIRED)
        return result;
    int why = errno, ignored = ftruncate(a->fd, 0);
    (void)ignored;
    segment_remove_name(a);
    errno = why;
    return result;
}

/* Retire the segment so that a new one is made; its processes notice at their next verb. This is also done
 * if damaged bytes say "new" while processes live in the segment: truncating the file to begin again would
 * send each of them a SIGBUS. */
static enum attach_result segment_retire_file(const struct attachment *a)
{
    uint64_t retired = SEGMENT_RETIRED;
    off_t at = (off_t)offsetof(struct header, state);
    if (pwrite(a->fd, &retired, sizeof retired, at) != sizeof retired)
        return ATTACH_FAILED;
    return segment_remove_name(a);
}

/* Does the segment have other sizes than configured, and is no process attached that would lose its
 * values? */
static bool segment_is_outgrown(const struct attachment *a, const struct segment_config *config)
{
    struct header h;
    struct geometry g;
    struct stat s;
    return config->has_name && segment_read_header(a->fd, &h) &&
           (h.total_bytes != config->total_bytes || h.entry_bytes != segment_entry_bytes_of(config) ||
            h.prewarms != config->prewarms) &&
           fstat(a->fd, &s) == 0 && segment_validate(&h, (uint64_t)s.st_size, &g, config) == ATTACHED &&
           segment_plan(&g, config) && !roster_in_use(a);
}

/* The creation lock is held. If a creator dies, the kernel releases its lock, and the next creator begins
 * again. */
static enum attach_result segment_begin_locked(const struct attachment *a,
                                               const struct segment_config *config)
{
    uint64_t state = segment_state_of(a->fd);
    if (!roster_named(a))
        return ATTACH_RETIRED;
    if (state == SEGMENT_RETIRED)
        return segment_remove_name(a);
    if (state == SEGMENT_NEW)
        return roster_in_use(a) ? segment_retire_file(a) : ATTACH_EMPTY;
    return segment_is_outgrown(a, config) ? segment_retire_file(a) : ATTACHED;
}

/* Remember what a successor of this segment must know. */
static void segment_see_header(struct attachment *a)
{
    struct header h;
    if (!segment_read_header(a->fd, &h) || h.magic != LAYOUT_MAGIC)
        return;
    a->incarnation_seen = load_relaxed(&h.incarnation), a->lock_fence_seen = load_relaxed(&h.lock_fence);
    a->left_seen = load_relaxed(&h.bridge_left) != 0;
}

/* Keeps the creation lock if the file is this process's to fill. */
static enum attach_result segment_begin_file(struct attachment *a, const struct segment_config *config)
{
    segment_see_header(a);
    if (segment_state_of(a->fd) == SEGMENT_READY && !segment_is_outgrown(a, config))
        return ATTACHED;
    a->create_lock = roster_hold_byte(a, LOCK_CREATE);
    if (!a->create_lock)
        return errno == EAGAIN ? ATTACH_BUSY : ATTACH_FAILED;
    return segment_begin_locked(a, config);
}

/* ---- attaching ---- */

static void segment_point_into(struct attachment *a)
{
    const struct geometry *g = &a->geo;
    a->header = (struct header *)(void *)a->base;
    a->roster = (struct roster_slot *)(void *)(a->base + g->roster_at);
    a->intents = (struct intent *)(void *)(a->base + g->intents_at);
    a->range_fences = (a64 *)(void *)(a->base + g->range_fences_at);
    a->journal = (struct journal_head *)(void *)(a->base + g->journal_at);
    a->doubts = (a64 *)(void *)(a->base + g->doubts_at), a->dues = (pair128 *)(void *)(a->base + g->dues_at);
    a->sources = (struct source_slot *)(void *)(a->base + g->sources_at);
    a->leases = (struct lease_slot *)(void *)(a->base + g->leases_at),
    a->locks = (struct lock_slot *)(void *)(a->base + g->locks_at);
    a->tallies = (a64 *)(void *)(a->base + g->tallies_at);
    a->ring = (pair128 *)(void *)(a->base + g->ring_at);
    a->fences = (a64 *)(void *)(a->base + g->fences_at);
    a->own_writes = (a32 *)(void *)(a->base + g->own_writes_at);
    a->tag_fences = (a64 *)(void *)(a->base + g->tag_fences_at);
    a->own_tags = (a32 *)(void *)(a->base + g->own_tags_at);
    a->index = (a64 *)(void *)(a->base + g->index_at);
    a->page_words = (a64 *)(void *)(a->base + g->page_words_at);
    a->page_notes = (struct page_note *)(void *)(a->base + g->page_notes_at);
    a->sketch = (a64 *)(void *)(a->base + g->sketch_at), a->ghost = (a64 *)(void *)(a->base + g->ghost_at);
    a->prewarm = g->prewarm_sets ? (struct prewarm *)(void *)(a->base + g->prewarm_at) : NULL;
    a->prewarm_records = (a64 *)(void *)(a->base + g->prewarm_records_at);
    a->prewarm_mail = (a64 *)(void *)(a->base + g->prewarm_mail_at);
    a->span_bytes = g->page_bytes / SPANS_PER_PAGE - ENTRY_HEADER_WORDS * 8;
    a->pages = a->base + g->pages_at;
    a->ring_mask = g->ring_slots - 1;
    a->buckets_per_call = FENCES_PER_SWEEP / (g->ring_slots * FENCES_PER_RING_SLOT >> INTENT_BUCKET_BITS);
    a->ring_bits = (uint32_t)__builtin_ctz(g->ring_slots);
    a->fence_shift = 64 - a->ring_bits - (uint32_t)__builtin_ctz(FENCES_PER_RING_SLOT);
}

static enum attach_result segment_map_file(struct attachment *a, const struct segment_config *config)
{
    struct stat s;
    if (fstat(a->fd, &s) != 0)
        return ATTACH_FAILED;
    struct header h;
    if (!segment_read_header(a->fd, &h))
        return ATTACH_GARBAGE;
    enum attach_result result = segment_validate(&h, (uint64_t)s.st_size, &a->geo, config);
    if (result != ATTACHED)
        return result;
    a->base = segment_map_bytes(a->fd, a->geo.total_bytes);
    if (a->base == MAP_FAILED) {
        a->base = NULL;
        return ATTACH_FAILED;
    }
    segment_point_into(a);
    memcpy(a->hash_key, h.hash_key, sizeof a->hash_key); /* from the validated copy of the header */
    a->time_namespace = h.time_namespace;
    return ATTACHED;
}

/* The word `alive`, which reads 0 in a forked child: every verb looks at it. */
static bool segment_make_alive_word(struct attachment *a)
{
    void *page = mmap(NULL, HEADER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return false;
    if (madvise(page, HEADER_BYTES, MADV_WIPEONFORK) != 0) {
        munmap(page, HEADER_BYTES);
        return false;
    }
    a->alive = page;
    *a->alive = 1;
    return true;
}

/* A new life of this attachment begins: it holds no page and owes nothing. */
static void segment_forget_pages(struct attachment *a)
{
    static a64 lives;
    a->life = (uint32_t)add_relaxed(&lives, 1) + 1;
    for (int i = 0; i < OPENS; i++)
        a->open[i].page = NO_PAGE;
    for (int q = 0; q < QUEUES; q++)
        a->drain[q].page = NO_PAGE;
    a->view = (struct view){.half_full = NO_PAGE};
    a->survey = (struct survey){.moved = 0};
    journal_begin(a);
    a->spares = a->intents_open = 0;
    memset(a->intents_shared, 0, sizeof a->intents_shared);
    a->main_credit = 0;
}

static enum attach_result segment_take_slot(struct attachment *a, enum roster_kind kind)
{
    a->slot = UINT32_MAX;
    segment_forget_pages(a);
    switch (recovery_join(a, kind, clock_ms(a))) {
    case RECOVERY_JOINED:
        return ATTACHED;
    case RECOVERY_FULL:
        return ATTACH_ROSTER_FULL;
    default:
        return ATTACH_FAILED;
    }
}

static bool segment_remember_file(struct attachment *a)
{
    struct stat s;
    if (fstat(a->fd, &s) != 0)
        return false;
    a->file_inode = (uint64_t)s.st_ino;
    a->file_device = (uint64_t)s.st_dev;
    return true;
}

static void segment_copy_config(struct attachment *a, const struct segment_config *config)
{
    a->has_bridge = config->has_bridge;
    a->isolation_ttl_ms = config->isolation_ttl_ms;
    a->on_isolation = config->on_isolation;
    a->default_ttl_ms = config->default_ttl_ms;
    a->prewarm_weight = config->prewarm_weight;
    a->prewarm_budget = config->prewarm_budget;
    a->late_ms_min = LEASE_LATE_MS_MIN;
    a->late_ms_unknown = LEASE_LATE_MS_UNKNOWN;
    for (size_t i = 0; config->doorbell_name && config->doorbell_name[i] && i + 1 < sizeof a->doorbell_name;
         i++)
        a->doorbell_name[i] = config->doorbell_name[i];
    for (size_t i = 0; config->has_name && config->name[i] && i + 1 < sizeof a->file_name; i++)
        a->file_name[i] = config->name[i];
}

static void segment_release_create_lock(struct attachment *a)
{
    roster_release_byte(a->create_lock);
    a->create_lock = NULL;
}

/* Return the result; if it is a failure, detach first. */
static enum attach_result segment_done(struct attachment *a, enum attach_result result)
{
    int why = errno;
    if (result != ATTACH_EMPTY)
        segment_release_create_lock(a);
    if (result > ATTACH_EMPTY)
        segment_detach(a);
    errno = why;
    return result;
}

static bool segment_put_stand_in(struct attachment *a)
{
    unsigned char *base = mmap(NULL, SEGMENT_BYTES_MIN, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED)
        return false;
    if (!segment_make_alive_word(a)) {
        munmap(base, SEGMENT_BYTES_MIN);
        return false;
    }
    a->lock_page = a->bridge_lock = NULL;
    a->fd = a->doorbell_fd = -1;
    a->base = base;
    a->stand_in = true;
    a->file_name[0] = 0;
    a->bridge_generation = a->written = a->wrote_ms = a->span_hash = a->slot = 0;
    geometry_plan(&a->geo, SEGMENT_BYTES_MIN, ENTRY_BYTES_TYPICAL, false);
    segment_point_into(a);
    a->me = &a->roster[0];
    segment_forget_pages(a);
    store_relaxed(&a->header->serve_until_ms, UINT64_MAX);
    store_release(&a->header->state, SEGMENT_RETIRED);
    return true;
}

enum attach_result segment_begin(struct attachment *a, int fd, const struct segment_config *config)
{
    memset(a, 0, sizeof *a);
    a->frozen_ms = a->doorbell_fd = -1;
    a->fd = fd;
    segment_copy_config(a, config);
    if (fd < 0)
        return segment_put_stand_in(a) ? ATTACHED : ATTACH_FAILED;
    return segment_done(a, segment_remember_file(a) ? segment_begin_file(a, config) : ATTACH_FAILED);
}

enum attach_result segment_create(struct attachment *a, const struct segment_config *config)
{
    return segment_done(a, segment_make(a, config));
}

enum attach_result segment_join(struct attachment *a, const struct segment_config *config)
{
    enum attach_result result = segment_map_file(a, config);
    if (result == ATTACHED && !segment_make_alive_word(a))
        result = ATTACH_FAILED;
    if (result == ATTACHED)
        result = segment_take_slot(a, ROSTER_WORKER);
    if (result == ATTACHED && !roster_named(a))
        result = ATTACH_RETIRED;
    return segment_done(a, result);
}

enum attach_result segment_attach(struct attachment *a, int fd, const struct segment_config *config)
{
    enum attach_result created = segment_begin(a, fd, config);
    if (created == ATTACH_EMPTY)
        created = segment_create(a, config);
    enum attach_result joined = created <= ATTACH_CREATED ? segment_join(a, config) : created;
    return joined == ATTACHED ? created : joined;
}

void segment_detach(struct attachment *a)
{
    segment_release_create_lock(a);
    /* this also checks whether the file was truncated, because what follows writes into it */
    if (a->base && roster_look(a, 0))
        store_release(&a->header->state, SEGMENT_RETIRED);
    /* in a forked child, slot and mappings belong to the parent */
    if (a->alive && segment_is_ours(a)) {
        if (a->lock_page)
            recovery_leave(a);
        roster_release_byte(a->bridge_lock);
    }
    if (a->base)
        munmap(a->base, a->geo.total_bytes);
    if (a->alive)
        munmap((void *)a->alive, HEADER_BYTES);
    doorbell_close(a);
    if (roster_checked_fd(a) >= 0)
        close(a->fd);
    a->base = NULL;
    a->alive = NULL;
    a->bridge_lock = NULL;
    a->bridge_generation = 0;
    a->fd = -1;
}

/* ---- losing it ---- */

bool segment_has_others(const struct attachment *a)
{
    uint32_t live = roster_count(a, ROSTER_WORKER) + roster_count(a, ROSTER_BRIDGE);
    return live > (a->lock_page != NULL);
}

void segment_only_watch(struct attachment *a)
{
    if (a->lock_page)
        recovery_leave(a);
    roster_release_byte(a->bridge_lock);
    a->bridge_lock = NULL;
}

/* Touching a page beyond the file's end would raise SIGBUS. */
void segment_map_zeros(struct attachment *a)
{
    mmap(a->base, a->geo.total_bytes, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

bool segment_stand_in(struct attachment *a, struct attachment *left)
{
    *left = *a;
    return segment_put_stand_in(a);
}

bool segment_after_fork(struct attachment *a)
{
    a->lock_page = NULL; /* not mapped here: MADV_DONTFORK */
    a->bridge_lock = NULL;
    a->bridge_generation = a->bridge_generation ? NO_BRIDGE : 0;
    if (!a->stand_in && segment_take_slot(a, ROSTER_WORKER) != ATTACHED)
        return false;
    *a->alive = 1;
    return true;
}

bool segment_become_bridge(struct attachment *a)
{
    if (!a->bridge_lock && !(a->bridge_lock = roster_hold_byte(a, LOCK_BRIDGE)))
        return false;
    store_release(&a->me->word, (uint64_t)a->slot_generation << ROSTER_GEN_SHIFT |
                                    (uint64_t)ROSTER_BRIDGE << ROSTER_KIND_SHIFT | SLOT_LIVE);
    store_release(&a->header->bridge_since_ms, clock_ms(a));
    store_release(&a->header->bridge_left, 0);
    add_relaxed(&a->header->bridge_generation, 1);
    /* this process holds the bridge's lock, so no other process changes it */
    a->bridge_generation = load_acquire(&a->header->bridge_generation);
    return true;
}
