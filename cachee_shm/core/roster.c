/* roster.c - which processes are attached, which of them live, and the file that they share.
 *
 * Liveness is one question to the kernel: does a process hold the lock on this slot's byte of the segment's
 * file? These rules make the answer right:
 *
 *   1. The lock is an OFD lock on an open file description of its own (roster_hold_byte opens the file
 *      again). A plain descriptor would not do: a forked child inherits it, and the lock would outlive its
 *      holder; a daemon that closes all descriptors would drop it.
 *   2. One page of that description is mapped, MADV_DONTFORK, and the descriptor is closed at once. The
 *      mapping keeps the description. It ends with the process, and no child has it.
 *   3. Between open and close no fork happens and no signal handler of ours runs: the binding holds the
 *      interpreter's lock.
 *   4. A pid says nothing: it is reused, and means nothing in another pid namespace. Pid, command and service
 *      are for people.
 *   5. If the question cannot be asked (no descriptor, an error), the answer is "lives". Then a slot is
 *      only given back later. With the answer "dead", a living process would lose its pages.
 *
 * The file's name is checked as well. If a segment was truncated, unlinked or replaced under its processes,
 * the first process that notices retires it, and every process attaches to the successor. roster_look asks
 * the file system at most once for each tick of the coarse clock: an fstat, and a lookup of the name only
 * where the file's ctime has changed.
 */
#include "roster.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where Linux keeps what shm_open makes. */
#define SHARED_MEMORY "/dev/shm"

static struct flock roster_byte_lock(uint32_t byte, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = LOCK_BASE + byte, .l_len = 1};
}

static bool roster_is_segment(const struct attachment *a, int fd)
{
    struct stat s;
    return fd >= 0 && fstat(fd, &s) == 0 && s.st_ino == a->file_inode && s.st_dev == a->file_device;
}

int roster_checked_fd(const struct attachment *a) { return roster_is_segment(a, a->fd) ? a->fd : -1; }

/* If descriptor 0, 1 or 2 is closed, the next opened file gets that number, and error messages would be
 * written into it. */
static int roster_beyond_standard(int fd)
{
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    close(fd);
    return moved;
}

/* errno ENOENT: no file has the name, or another file has it. */
static int roster_open_by_name(const struct attachment *a)
{
    errno = EBADF;
    int fd = a->file_name[0] ? roster_beyond_standard(shm_open(a->file_name, O_RDWR | O_CLOEXEC, 0)) : -1;
    if (fd < 0 || roster_is_segment(a, fd))
        return fd;
    close(fd);
    errno = ENOENT;
    return -1;
}

void roster_mend_fd(struct attachment *a)
{
    int fd = roster_checked_fd(a) < 0 ? roster_open_by_name(a) : -1;
    if (fd >= 0)
        a->fd = fd;
}

/* False: the name belongs to another file, or to none. True also if the name cannot be looked up (under
 * chroot, for example). */
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

static uint64_t roster_changed_ns(const struct stat *s)
{
    return (uint64_t)s->st_ctim.tv_sec * 1000000000u + (uint64_t)s->st_ctim.tv_nsec;
}

/* The name is looked up only if the file's ctime has changed, or if the descriptor is not ours any more. */
static bool roster_is_gone(struct attachment *a)
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
    if (roster_changed_ns(&s) == a->file_changed_ns)
        return false;
    a->file_changed_ns = roster_changed_ns(&s);
    return !roster_named(a);
}

bool roster_look(struct attachment *a, uint64_t now_ms)
{
    a->looked_ms = now_ms;
    if (!a->file_name[0] || !roster_is_gone(a))
        return false;
    store_release(&a->header->state, SEGMENT_RETIRED);
    return true;
}

/* An open file description of this process alone. Without /proc (in a chroot), the file is opened by its
 * name. */
static int roster_reopen(const struct attachment *a)
{
    int fd = roster_checked_fd(a), again = -1;
    char path[32];
    errno = EBADF;
    if (fd >= 0) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        again = open(path, O_RDWR | O_CLOEXEC);
    }
    return again < 0 && a->file_name[0] ? roster_open_by_name(a) : again;
}

/* No signal handler of ours runs and no fork happens between open and close: module.c holds the
 * interpreter. */
void *roster_hold_byte(const struct attachment *a, uint32_t byte)
{
    int fd = roster_reopen(a);
    if (fd < 0)
        return NULL;
    struct flock lock = roster_byte_lock(byte, F_WRLCK);
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
    struct flock lock = roster_byte_lock(LOCK_SLOTS + slot, F_WRLCK);
    if (slot == a->slot || fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return true;
    return lock.l_type != F_UNLCK;
}

bool roster_bridge_alive(const struct attachment *a)
{
    int fd = roster_checked_fd(a);
    struct flock lock = roster_byte_lock(LOCK_BRIDGE, F_WRLCK);
    return fd < 0 || fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

bool roster_in_use(const struct attachment *a)
{
    struct flock locks = roster_byte_lock(LOCK_SLOTS, F_WRLCK);
    locks.l_len = ROSTER_SLOTS_MAX;
    return fcntl(a->fd, F_OFD_GETLK, &locks) != 0 || locks.l_type != F_UNLCK;
}

bool roster_holder_lives(const struct attachment *a, uint64_t word)
{
    uint32_t slot = word & HOLDER_SLOT_BITS;
    if (slot >= a->geo.roster_slots)
        return false;
    uint64_t now = load_acquire(&a->roster[slot].word);
    return roster_word_live(now) &&
           ((now >> ROSTER_GEN_SHIFT) & HOLDER_GEN_BITS) == ((word >> HOLDER_GEN_SHIFT) & HOLDER_GEN_BITS) &&
           roster_alive(a, slot);
}

void roster_call(struct attachment *a, const char *service, size_t bytes)
{
    memset(a->service, 0, sizeof a->service);
    memcpy(a->service, service, bytes < sizeof a->service ? bytes : sizeof a->service);
    racing_write(a->me->service, a->service, sizeof a->service);
    /* the journal takes a new name: from now on this process acts under this service */
    a->journal_name_number = 0;
}

void roster_abandon(struct attachment *a)
{
    roster_release_byte(a->lock_page);
    a->lock_page = NULL;
}

uint32_t roster_count(const struct attachment *a, enum roster_kind kind)
{
    uint32_t n = 0;
    for (uint32_t slot = 0, high = roster_slots_used(a); slot < high; slot++) {
        uint64_t word = load_acquire(&a->roster[slot].word);
        n += roster_word_live(word) && ((word >> ROSTER_KIND_SHIFT) & 15) == kind && roster_alive(a, slot);
    }
    return n;
}
