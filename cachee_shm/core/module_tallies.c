/* module_tallies.c - statistics of loads (module_statistics.c): their outcomes, their durations, and what
 * waits for them have brought. They decide nothing, except load_note_duration: waits use it to know when a
 * load is late. */
#include "module_loading.h"

const uint32_t load_bounds_us[LOAD_BOUNDS] = {
    500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000,
};

void load_note_duration(struct driver *d)
{
    struct attachment *a = d->flight ? attachment_still(d->s, d->attachments) : NULL;
    if (a)
        lease_note(a, d->hash, clock_real_ms() - d->flight->began_ms);
}

void load_took(struct driver *d)
{
    struct attachment *a = d->flight ? attachment_still(d->s, d->attachments) : NULL;
    if (!a)
        return;
    int64_t us = clock_us(CLOCK_MONOTONIC) - d->flight->began_us;
    int bucket = 0;
    while (bucket < LOAD_BOUNDS && us > load_bounds_us[bucket])
        bucket++;
    count(a, (enum statistic)(STAT_LOADS_TOOK + bucket), 1);
    count(a, STAT_LOAD_US, (uint64_t)us);
}

void load_counted(struct driver *d, enum statistic what)
{
    struct attachment *a = attachment_still(d->s, d->attachments);
    if (a)
        count(a, what, 1);
}

/* What a wait has brought. The outcome of another process's load is known only by the value, if there is one.
 * */
enum statistic wait_brought(SegmentObject *s, PyObject *flight, uint64_t hash, const struct key *k)
{
    struct entry_ref e;
    if (flight == Py_None)
        return cache_find(&s->a, hash, k->bytes, k->n, &e) == FOUND ? STAT_WAITS_SERVED : STAT_WAITS_AGAIN;
    enum flight_state state = ((FlightObject *)flight)->state;
    return state == FLIGHT_LOADED   ? STAT_WAITS_SERVED
           : state == FLIGHT_FAILED ? STAT_WAITS_FAILED
                                    : STAT_WAITS_AGAIN;
}
