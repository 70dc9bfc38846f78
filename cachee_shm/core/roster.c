/* roster.c - joining, leaving, sweeping. See roster.h. */
#include "roster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Lock bytes lie beyond any segment's end: they are names, not data. */
static const off_t LOCK_BASE = (off_t)1 << 40;

static struct flock byte_lock(uint32_t byte, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = LOCK_BASE + byte, .l_len = 1};
}

static bool is_segment(const struct attachment *a, int fd)
{
    struct stat s;
    return fd >= 0 && fstat(fd, &s) == 0 && s.st_ino == a->file_inode && s.st_dev == a->file_device;
}

int roster_checked_fd(const struct attachment *a) { return is_segment(a, a->fd) ? a->fd : -1; }

/* errno ENOENT: no file has the name, or another one. */
static int open_by_name(const struct attachment *a)
{
    errno = EBADF;
    int fd = a->file_name[0] ? shm_open(a->file_name, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0 || is_segment(a, fd))
        return fd;
    close(fd);
    errno = ENOENT;
    return -1;
}

static void mend_fd(struct attachment *a)
{
    int fd = roster_checked_fd(a) < 0 ? open_by_name(a) : -1;
    if (fd >= 0)
        a->fd = fd;
}

bool roster_unlinked(const struct attachment *a)
{
    struct stat s;
    int fd = roster_checked_fd(a);
    if (fd >= 0)
        return a->file_name[0] && fstat(fd, &s) == 0 && s.st_nlink == 0;
    fd = open_by_name(a);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == ENOENT;
}

static int reopen(const struct attachment *a)
{
    int fd = roster_checked_fd(a);
    char path[32];
    if (fd < 0) {
        errno = EBADF;
        return -1;
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_CLOEXEC);
}

/* No signal handler of ours runs and no fork happens between open and close: module.c holds the interpreter. */
void *roster_hold_byte(const struct attachment *a, uint32_t byte)
{
    int fd = reopen(a);
    if (fd < 0)
        return NULL;
    struct flock lock = byte_lock(byte, F_WRLCK);
    void *held = MAP_FAILED;
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        held = mmap(NULL, HEADER_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (held != MAP_FAILED && madvise(held, HEADER_BYTES, MADV_DONTFORK) != 0) {
        munmap(held, HEADER_BYTES);
        held = MAP_FAILED;
    }
    int why = errno;
    close(fd);
    errno = why == EACCES ? EAGAIN : why;
    return held == MAP_FAILED ? NULL : held;
}

void roster_release_byte(void *held)
{
    if (held)
        munmap(held, HEADER_BYTES);
}

bool roster_alive(const struct attachment *a, uint32_t slot)
{
    if (slot >= a->geo.roster_slots)
        return false;
    int fd = roster_checked_fd(a);
    struct flock lock = byte_lock(LOCK_SLOTS + slot, F_WRLCK);
    if (slot == a->slot || fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return true;
    return lock.l_type != F_UNLCK;
}

bool roster_bridge_alive(const struct attachment *a)
{
    int fd = roster_checked_fd(a);
    struct flock lock = byte_lock(LOCK_BRIDGE, F_WRLCK);
    return fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool roster_in_use(const struct attachment *a)
{
    struct flock locks = byte_lock(LOCK_SLOTS, F_WRLCK);
    locks.l_len = ROSTER_SLOTS_MAX;
    return fcntl(a->fd, F_OFD_GETLK, &locks) != 0 || locks.l_type != F_UNLCK;
}

static bool is_live(uint64_t word) { return (word & ROSTER_STATE_MASK) == SLOT_LIVE; }

static void announce(struct attachment *a, uint64_t hash)
{
    count(a, STAT_INTENTS_SWEPT, 1);
    uint64_t s = ring_append(a, &(struct record){.hash = hash, .kind = RECORD_KEY, .own = true});
    if (s != RING_CORRUPT)
        index_kill_lower(a, hash, s << 1, false);
}

/* The heir of a dead process. Safe to die in, at any point: the next heir does it again. */
static void recover(struct attachment *a, uint32_t slot)
{
    struct roster_slot *dead = &a->roster[slot];
    pages_seal_slot(a, slot);
    if (load_acquire(&dead->overflow))
        ring_append(a, &(struct record){.kind = RECORD_CLEAR, .own = true});
    store_release(&dead->overflow, 0);
    for (int i = 0; i < INTENTS_PER_SLOT; i++) {
        uint64_t hash = load_acquire(&dead->intents[i]); /* INTENT */
        if (hash)
            announce(a, hash);
        store_release(&dead->intents[i], 0);
    }
    uint64_t hash = load_acquire(&dead->verb_hash);
    if (hash)
        announce(a, hash);
    store_release(&dead->verb_hash, 0);
}

static void settle_in(struct attachment *a, uint32_t slot, enum roster_kind kind, uint64_t now_ms)
{
    struct roster_slot *me = &a->roster[slot];
    uint64_t word = load_acquire(&me->word);
    a->slot = slot;
    a->me = me;
    if (is_live(word))
        recover(a, slot);
    a->slot_generation = (uint32_t)(word >> ROSTER_GEN_SHIFT) + 1;
    char command[sizeof me->command] = {0};
    prctl(PR_GET_NAME, command, 0, 0, 0);
    racing_write(me->command, command, sizeof command);
    store_relaxed(&me->pid, (uint64_t)getpid());
    store_relaxed(&me->attached_ms, now_ms);
    store_release(&me->word, (uint64_t)a->slot_generation << ROSTER_GEN_SHIFT | (uint64_t)kind << ROSTER_KIND_SHIFT | SLOT_LIVE);
    raise_max(&a->header->roster_high, slot + 1);
}

enum roster_join roster_join(struct attachment *a, enum roster_kind kind, uint64_t now_ms)
{
    mend_fd(a);
    for (int pass = 0; pass < 2; pass++) { /* first the slots that say free, then those whose holder may be dead */
        for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++) {
            bool live = is_live(load_relaxed(&a->roster[slot].word));
            if (live != (pass == 1) || (live && roster_alive(a, slot)))
                continue;
            a->lock_page = roster_hold_byte(a, LOCK_SLOTS + slot);
            if (a->lock_page) {
                settle_in(a, slot, kind, now_ms);
                return ROSTER_JOINED;
            }
            if (errno != EAGAIN)
                return ROSTER_FAILED;
        }
    }
    return ROSTER_FULL;
}

void roster_leave(struct attachment *a)
{
    pages_seal_slot(a, a->slot);
    if (a->intents_open)
        recover(a, a->slot);
    store_release(&a->me->word, (uint64_t)a->slot_generation << ROSTER_GEN_SHIFT | SLOT_FREE);
    roster_release_byte(a->lock_page);
    a->lock_page = NULL;
}

static bool sweep_slot(struct attachment *a, uint32_t slot)
{
    a64 *at = &a->roster[slot].word;
    if (slot == a->slot || !is_live(load_acquire(at)) || roster_alive(a, slot))
        return false;
    void *held = roster_hold_byte(a, LOCK_SLOTS + slot);
    if (!held)
        return false;
    uint64_t word = load_acquire(at);
    bool dead = is_live(word);
    if (dead) {
        recover(a, slot);
        store_release(at, (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE);
        count(a, STAT_SWEPT, 1);
    }
    roster_release_byte(held);
    return dead;
}

static uint32_t slots_ever_used(const struct attachment *a)
{
    uint64_t high = load_acquire(&a->header->roster_high);
    return high < a->geo.roster_slots ? (uint32_t)high : a->geo.roster_slots;
}

uint32_t roster_sweep(struct attachment *a)
{
    uint32_t swept = 0;
    mend_fd(a);
    for (uint32_t slot = 0, n = slots_ever_used(a); slot < n; slot++)
        swept += sweep_slot(a, slot);
    return swept;
}

uint32_t roster_count(const struct attachment *a, enum roster_kind kind)
{
    uint32_t n = 0;
    for (uint32_t slot = 0, high = slots_ever_used(a); slot < high; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word);
        n += is_live(word) && ((word >> ROSTER_KIND_SHIFT) & 15) == kind && roster_alive(a, slot);
    }
    return n;
}

/* An intent names the life it was left in: what a fork or another segment made of this attachment owes nothing. */
enum { INTENT_LIFE_SHIFT = 8, INTENT_PLACE_BITS = 0xff, INTENT_OVERFLOW = 0xff };

uint64_t roster_intend(struct attachment *a, uint64_t hash)
{
    uint64_t life = (uint64_t)a->life << INTENT_LIFE_SHIFT;
    a->intents_open++;
    for (uint32_t i = 0; i < INTENTS_PER_SLOT; i++) {
        if (!load_relaxed(&a->me->intents[i])) {
            store_release(&a->me->intents[i], hash); /* INTENT */
            return life | i;
        }
    }
    store_release(&a->me->overflow, load_relaxed(&a->me->overflow) + 1);
    return life | INTENT_OVERFLOW;
}

void roster_settle(struct attachment *a, uint64_t intent)
{
    uint32_t place = intent & INTENT_PLACE_BITS;
    if (intent >> INTENT_LIFE_SHIFT != a->life || a->intents_open == 0)
        return;
    a->intents_open--;
    if (place < INTENTS_PER_SLOT)
        store_release(&a->me->intents[place], 0);
    else if (load_relaxed(&a->me->overflow))
        store_release(&a->me->overflow, load_relaxed(&a->me->overflow) - 1);
}
