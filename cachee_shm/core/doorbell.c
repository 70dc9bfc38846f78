/* doorbell.c - see doorbell.h. */
#include "doorbell.h"

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <string.h>
#include <sys/stat.h>

enum { REOPEN_AFTER_MS = 1000 };

static uint64_t doorbell_inode_of(int fd)
{
    struct stat s;
    return fd >= 0 && fstat(fd, &s) == 0 ? (uint64_t)s.st_ino : 0;
}

/* The application may have closed all its descriptors: then this number may belong to another file by
 * now. */
void doorbell_close(struct attachment *a)
{
    struct mq_attr attributes;
    bool is_queue = a->doorbell_fd >= 0 && mq_getattr((mqd_t)a->doorbell_fd, &attributes) == 0;
    if (is_queue && doorbell_inode_of(a->doorbell_fd) == a->doorbell_inode)
        mq_close((mqd_t)a->doorbell_fd);
    a->doorbell_fd = -1;
}

/* A restarted bridge has a new queue under the old name. Nobody reads the old one, so a ring sent there
 * would be lost. */
static void doorbell_forget_old_queue(struct attachment *a)
{
    uint64_t generation = load_acquire(&a->header->bridge_generation);
    if (generation == a->doorbell_generation)
        return;
    doorbell_close(a);
    a->doorbell_generation = generation;
    a->doorbell_retry_ms = (uint32_t)clock_ms(a);
}

static void doorbell_open_queue(struct attachment *a)
{
    uint32_t now = (uint32_t)clock_ms(a);
    if (a->doorbell_fd >= 0 || (int32_t)(now - a->doorbell_retry_ms) < 0 || !a->doorbell_name[0])
        return;
    a->doorbell_fd = (int)mq_open(a->doorbell_name, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    a->doorbell_inode = doorbell_inode_of(a->doorbell_fd);
    a->doorbell_retry_ms = now + REOPEN_AFTER_MS;
}

/* What is between the last two dots of "/cachee.HOST.NAMESPACE.LAYOUT": a host's name may have dots, a
 * namespace's has none. The name in the header is the file's, cut to NAME_BYTES, so it may end in the
 * host's. */
static const char *doorbell_namespace_of(const struct attachment *a, size_t *length)
{
    const char *end = memrchr(a->file_name, '.', strnlen(a->file_name, sizeof a->file_name));
    const char *dot = end ? memrchr(a->file_name, '.', (size_t)(end - a->file_name)) : NULL;
    *length = dot ? (size_t)(end - dot - 1) : 0;
    return dot ? dot + 1 : a->file_name;
}

void doorbell_send(struct attachment *a)
{
    size_t length;
    const char *name = doorbell_namespace_of(a, &length);
    for (int tries = 0; tries < 2; tries++) {
        doorbell_forget_old_queue(a);
        doorbell_open_queue(a);
        if (a->doorbell_fd < 0)
            return;
        /* Full is fine: the bridge looks at every ring then. */
        if (mq_send((mqd_t)a->doorbell_fd, name, length, 0) == 0 || errno == EAGAIN) {
            if (a->me) /* without a roster slot there are no counters */
                count(a, STAT_DOORBELLS, 1);
            return;
        }
        doorbell_close(a); /* the application closed it, or the queue does not accept this message */
        a->doorbell_retry_ms = (uint32_t)clock_ms(a);
    }
}

bool doorbell_arm(struct attachment *a, uint64_t cursor)
{
    store_relaxed(&a->header->doorbell, 1);
    fence_seq_cst(); /* DOORBELL */
    if (load_acquire(&a->header->ring_tail) == cursor)
        return true;
    doorbell_disarm(a);
    return false;
}

void doorbell_disarm(struct attachment *a) { store_relaxed(&a->header->doorbell, 0); }
