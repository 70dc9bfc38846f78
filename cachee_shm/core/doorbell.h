/* doorbell.h - waking a sleeping bridge.
 *
 * The bridge sleeps on a POSIX message queue in its event loop. Ringing costs the writer microseconds, so a
 * writer rings only after a quiet spell. The bridge arms the word before it sleeps. The first writer
 * disarms it and sends the namespace's name; all others see it disarmed and send nothing. Without a queue
 * the bridge polls, and nothing is lost.
 */
#ifndef CACHEE_DOORBELL_H
#define CACHEE_DOORBELL_H

#include "clock.h"

void doorbell_send(struct attachment *a);

/* Give the queue's descriptor back, if one is open. */
void doorbell_close(struct attachment *a);

/* After an event (ring_append and peers_ask have passed their full fence: DOORBELL). */
static inline void doorbell_ring(struct attachment *a)
{
    uint64_t armed = 1;
    if (load_relaxed(&a->header->doorbell) == 1 && cas(&a->header->doorbell, &armed, 0))
        doorbell_send(a);
}

/* The bridge calls this before it sleeps. False: the ring has records after `cursor`, or a process waits
 * for its peers: do not sleep. */
bool doorbell_arm(struct attachment *a, uint64_t cursor);
void doorbell_disarm(struct attachment *a);

#endif
