/* roster.c - joining, leaving, sweeping. See roster.h. */
#include "roster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where Linux keeps what shm_open makes. */
#define SHARED_MEMORY "/dev/shm"

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

/* Where 0, 1 or 2 are closed, the next file gets that number, and what reports an error would write into it. */
static int beyond_standard(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return moved;
}

/* errno ENOENT: no file has the name, or another one. */
static int open_by_name(const struct attachment *a)
{
    errno = EBADF;
    int fd = a->file_name[0] ? beyond_standard(shm_open(a->file_name, O_RDWR | O_CLOEXEC, 0)) : -1;
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

/* False: the name is of another file, or of none. Under chroot, or where the name cannot be looked up, it is true. */
bool roster_named(const struct attachment *a)
{
    struct stat s;
    char path[sizeof SHARED_MEMORY + sizeof a->file_name];
    snprintf(path, sizeof path, "%s%s", SHARED_MEMORY, a->file_name);
    if (!a->file_name[0])
        return true;
    if (stat(path, &s) == 0)
        return s.st_ino == a->file_inode && s.st_dev == a->file_device;
    return errno != ENOENT || stat(SHARED_MEMORY, &s) != 0 || s.st_dev != a->file_device;
}

static uint64_t changed_ns(const struct stat *s) { return (uint64_t)s->st_ctim.tv_sec * 1000000000u + (uint64_t)s->st_ctim.tv_nsec; }

/* The name is looked up only when the file has changed, or when its descriptor is not ours any more. */
static bool is_gone(struct attachment *a)
{
    struct stat s;
    int fd = roster_checked_fd(a);
    if (fd < 0 || fstat(fd, &s) != 0)
        return !roster_named(a);
    bool cut = (uint64_t)s.st_size < a->geo.total_bytes;
    if (cut)
        segment_map_zeros(a);
    if (cut || s.st_nlink == 0)
        return true;
    if (changed_ns(&s) == a->file_changed_ns)
        return false;
    a->file_changed_ns = changed_ns(&s);
    return !roster_named(a);
}

bool roster_look(struct attachment *a, uint64_t now_ms)
{
    a->looked_ms = now_ms;
    if (!a->file_name[0] || !is_gone(a))
        return false;
    store_release(&a->header->state, SEGMENT_RETIRED);
    return true;
}

/* An open file description of this process alone. Where there is no /proc (in a chroot), the file's name leads to it. */
static int reopen(const struct attachment *a)
{
    int fd = roster_checked_fd(a), again = -1;
    char path[32];
    errno = EBADF;
    if (fd >= 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        again = open(path, O_RDWR | O_CLOEXEC);
    }
    return again < 0 && a->file_name[0] ? open_by_name(a) : again;
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
static bool is_swept(uint64_t word) { return (word & ROSTER_STATE_MASK) == SLOT_SWEPT; }

bool roster_holder_lives(const struct attachment *a, uint64_t word)
{
    uint32_t slot = word & HOLDER_SLOT_BITS;
    if (slot >= a->geo.roster_slots)
        return false;
    uint64_t now = load_acquire(&a->roster[slot].word);
    return is_live(now) && ((now >> ROSTER_GEN_SHIFT) & HOLDER_GEN_BITS) == ((word >> HOLDER_GEN_SHIFT) & HOLDER_GEN_BITS) &&
           roster_alive(a, slot);
}

/* ---- who gives back what the dead held ---- */

static uint64_t swept_by(uint64_t word, uint32_t sweeper, uint32_t generation)
{
    return (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | (uint64_t)sweeper << ROSTER_SWEEPER_SHIFT |
           (generation & ROSTER_SWEEPER_GEN_BITS) << ROSTER_SWEEPER_GEN_SHIFT | SLOT_SWEPT;
}

/* Is the sweeper that the word names still at it? This process is not: it has returned from every sweep. One that takes the
 * slot for itself is named by that slot, and holds its lock byte. */
static bool sweeper_works(const struct attachment *a, uint32_t slot, uint64_t word)
{
    uint32_t sweeper = (word >> ROSTER_SWEEPER_SHIFT) & ROSTER_SWEEPER_BITS;
    if (sweeper == slot)
        return roster_alive(a, slot);
    if (sweeper >= a->geo.roster_slots || sweeper == a->slot)
        return false;
    uint64_t its = load_acquire(&a->roster[sweeper].word);
    uint64_t life = (word >> ROSTER_SWEEPER_GEN_SHIFT) & ROSTER_SWEEPER_GEN_BITS;
    return is_live(its) && ((its >> ROSTER_GEN_SHIFT) & ROSTER_SWEEPER_GEN_BITS) == life && roster_alive(a, sweeper);
}

/* Did the slot's holder die, or whoever was sweeping it? The word was read before: another life's is another word. */
static bool is_left(const struct attachment *a, uint32_t slot, uint64_t word)
{
    return (is_live(word) && !roster_alive(a, slot)) || (is_swept(word) && !sweeper_works(a, slot, word));
}

/* Become the one who gives back what a dead process held. *word: as the slot says then. */
static bool claim(struct attachment *a, uint32_t slot, uint64_t *word)
{
    uint64_t seen = *word;
    *word = swept_by(seen, a->slot, a->slot_generation);
    return cas(&a->roster[slot].word, &seen, *word);
}

/* Announce what a dead process owes. Until its slot is claimed, anybody may be doing the same, and who is stopped here delays
 * nobody. What was SWEPT already has been announced. False: some is left for the next verb of whomever. */
static bool announced(struct attachment *a, uint32_t slot, uint64_t word)
{
    enum announced result = is_live(word) ? roster_announce(a, slot, word, false) : ANNOUNCED_ALL;
    if (result == ANNOUNCED_PART) {
        store_relaxed(&a->header->sweep_at_ms, 0);
        a->house_second = 0;
    }
    return result == ANNOUNCED_ALL;
}

/* The slot is this process's to give back. Safe to die in, at any point: the next one does it again. */
static void give_back(struct attachment *a, uint32_t slot, uint64_t word)
{
    pages_seal_slot(a, slot);
    roster_forget(a, slot, word);
}

/* ---- joining and leaving ---- */

static void settle_in(struct attachment *a, uint32_t slot, uint32_t generation, uint64_t now_ms)
{
    struct roster_slot *me = &a->roster[slot];
    char command[sizeof me->command] = {0};
    a->slot = slot;
    a->me = me;
    a->slot_generation = generation;
    prctl(PR_GET_NAME, command, 0, 0, 0);
    racing_write(me->command, command, sizeof command);
    racing_write(me->service, a->service, sizeof a->service);
    store_relaxed(&me->pid, (uint64_t)getpid());
    store_relaxed(&me->attached_ms, now_ms);
    raise_max(&a->header->roster_high, slot + 1);
}

/* Take a slot that is free, or whose holder is dead: its debts are announced before its lock byte is taken, because then
 * it looks alive to everybody else. Whoever holds the byte of a slot that is as it was seen has the slot. */
static bool take_slot(struct attachment *a, uint32_t slot, uint64_t word, enum roster_kind kind, uint64_t now_ms)
{
    a64 *at = &a->roster[slot].word;
    uint32_t generation = (uint32_t)(word >> ROSTER_GEN_SHIFT) + 1;
    if (is_live(word) && roster_announce(a, slot, word, true) != ANNOUNCED_ALL) {
        errno = EAGAIN;
        return false;
    }
    void *held = roster_hold_byte(a, LOCK_SLOTS + slot);
    if (!held)
        return false;
    if (is_live(word) || is_swept(word)) {
        uint64_t mine = swept_by(word, slot, generation);
        if (!cas(at, &word, mine)) {
            roster_release_byte(held);
            errno = EAGAIN;
            return false;
        }
        give_back(a, slot, word = mine);
    }
    settle_in(a, slot, generation, now_ms);
    uint64_t live = (uint64_t)generation << ROSTER_GEN_SHIFT | (uint64_t)kind << ROSTER_KIND_SHIFT | SLOT_LIVE;
    if (!cas(at, &word, live)) {
        roster_release_byte(held);
        a->me = NULL;
        a->slot = UINT32_MAX;
        errno = EAGAIN;
        return false;
    }
    a->lock_page = held;
    return true;
}

void roster_call(struct attachment *a, const char *service, size_t bytes)
{
    memset(a->service, 0, sizeof a->service);
    memcpy(a->service, service, bytes < sizeof a->service ? bytes : sizeof a->service);
    racing_write(a->me->service, a->service, sizeof a->service);
}

enum roster_join roster_join(struct attachment *a, enum roster_kind kind, uint64_t now_ms)
{
    mend_fd(a);
    a->me = NULL;
    for (int pass = 0; pass < 2; pass++) { /* first the slots that say free, then those whose holder may be dead */
        for (uint32_t slot = 0; slot < a->geo.roster_slots; slot++) {
            uint64_t word = load_acquire(&a->roster[slot].word);
            bool taken = is_live(word) || is_swept(word);
            if (taken != (pass == 1) || (taken && !is_left(a, slot, word)))
                continue;
            if (take_slot(a, slot, word, kind, now_ms))
                return ROSTER_JOINED;
            if (errno != EAGAIN)
                return ROSTER_FAILED;
        }
    }
    return ROSTER_FULL;
}

void roster_abandon(struct attachment *a)
{
    roster_release_byte(a->lock_page);
    a->lock_page = NULL;
}

void roster_leave(struct attachment *a)
{
    uint64_t word = load_acquire(&a->me->word);
    pages_seal_slot(a, a->slot);
    bool paid = !a->intents_open || roster_announce(a, a->slot, word, true) == ANNOUNCED_ALL;
    if (a->intents_open && paid)
        roster_forget(a, a->slot, word);
    if (paid) /* else it looks dead, and whoever leaves this segment clears its successor */
        store_release(&a->me->word, (uint64_t)a->slot_generation << ROSTER_GEN_SHIFT | SLOT_FREE);
    roster_abandon(a);
}

/* ---- sweeping ---- */

static bool sweep_slot(struct attachment *a, uint32_t slot)
{
    uint64_t word = load_acquire(&a->roster[slot].word);
    if (slot == a->slot || !is_left(a, slot, word) || !announced(a, slot, word) || !claim(a, slot, &word))
        return false;
    give_back(a, slot, word);
    store_release(&a->roster[slot].word, (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE);
    count(a, STAT_SWEPT, 1);
    return true;
}

/* Pages whose holder is nobody: a slot that the roster has not, one that is free and whose lock nobody holds, or this
 * process where it knows nothing of it. Only damaged bytes say so, and nobody else would ever take such a page. While it
 * is taken from a free slot, nobody joins in that slot. */
static void take_back(struct attachment *a, uint32_t page, uint32_t holder)
{
    if (holder == a->slot ? !pages_has(a, page) : holder >= a->geo.roster_slots) {
        pages_take_from(a, page, holder);
        return;
    }
    if (holder == a->slot)
        return;
    a64 *at = &a->roster[holder].word;
    uint64_t word = load_acquire(at), free_word = (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE;
    if (is_live(word) || is_swept(word) || roster_alive(a, holder) || !cas(at, &word, swept_by(word, a->slot, a->slot_generation)))
        return;
    pages_take_from(a, page, holder);
    store_release(at, free_word);
}

enum { LOOK_PAGES_MAX = 1 << 14 /* of a sweep: some microseconds */ };

static void look_for_strays(struct attachment *a)
{
    uint32_t n = a->geo.page_count, left = n < LOOK_PAGES_MAX ? n : LOOK_PAGES_MAX, holder[2];
    for (; left > 0; left--) {
        a->house_page = a->house_page + 1 < n ? a->house_page + 1 : 0;
        for (uint32_t i = pages_holders(a, a->house_page, holder); i > 0; i--)
            take_back(a, a->house_page, holder[i - 1]);
    }
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
    look_for_strays(a);
    return swept;
}

uint32_t roster_claim(struct attachment *a)
{
    uint32_t claimed = 0;
    for (uint32_t slot = 0, n = slots_ever_used(a); slot < n; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word);
        claimed += slot != a->slot && is_left(a, slot, word) && claim(a, slot, &word);
    }
    return claimed;
}

void roster_bury(struct attachment *a)
{
    for (uint32_t slot = 0, n = slots_ever_used(a); slot < n; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word), free_word = (word >> ROSTER_GEN_SHIFT << ROSTER_GEN_SHIFT) | SLOT_FREE;
        if (word == swept_by(word, a->slot, a->slot_generation))
            cas(&a->roster[slot].word, &word, free_word);
    }
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
