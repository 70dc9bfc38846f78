/* doorbell.h - waking a sleeping bridge.
 *
 * The bridge sleeps on a POSIX message queue in its event loop. A ring costs the writer microseconds, so it
 * only ends a quiet spell: the bridge arms the word before it sleeps, the first writer disarms it and sends
 * the namespace's name, all others see it disarmed. Where there is no queue, the bridge polls and nothing is
 * lost.
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

/* The bridge, before it sleeps. False: something came since `cursor`, do not sleep. */
bool doorbell_arm(struct attachment *a, uint64_t cursor);
void doorbell_disarm(struct attachment *a);

#endif
