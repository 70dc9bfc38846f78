/* module_statistics.c - what can be read of a segment: counters, the roster, attributes. See module.h. */
#include "module_loading.h"
#include "relay_buckets.h"

/* ---- counters ---- */

static const char *const stat_names[STAT_LOADS_TOOK] = {
    [STAT_HITS] = "hits",
    [STAT_MISSES] = "misses",
    [STAT_EXPIRED] = "expired",
    [STAT_ISOLATED] = "isolated",
    [STAT_SETS] = "sets",
    [STAT_SETS_LOST] = "sets_lost",
    [STAT_SETS_GUARDED] = "sets_guarded",
    [STAT_DELETES] = "deletes",
    [STAT_FILLS] = "fills",
    [STAT_FILLS_REFUSED] = "fills_refused",
    [STAT_EVICTED] = "evicted",
    [STAT_DROPPED_EXPIRED] = "dropped_expired",
    [STAT_DROPPED_TAG] = "dropped_tag",
    [STAT_DROPPED_FLUSHED] = "dropped_flushed",
    [STAT_DROPPED_CLEARED] = "dropped_cleared",
    [STAT_REINSERTED] = "reinserted",
    [STAT_NO_ROOM] = "no_room",
    [STAT_APPLIED] = "applied",
    [STAT_APPLIED_KEPT] = "applied_kept",
    [STAT_INVALIDATED] = "invalidated",
    [STAT_UNDECODABLE] = "undecodable",
    [STAT_RETRIES] = "retries",
    [STAT_DOORBELLS] = "doorbells",
    [STAT_SWEPT] = "swept",
    [STAT_INTENTS_SWEPT] = "intents_swept",
    [STAT_LEASES_LATE] = "leases_late",
    [STAT_LEASES_NO_ROOM] = "leases_no_room",
    [STAT_CORRUPT] = "corrupt",
    [STAT_LOADS] = "loads",
    [STAT_LOADS_OK] = "loads_ok",
    [STAT_LOADS_FAILED] = "loads_failed",
    [STAT_LOADS_REFUSED] = "loads_refused",
    [STAT_LOADS_STALE] = "loads_stale",
    [STAT_LEASE_WAITS] = "lease_waits",
    [STAT_WAITS_SERVED] = "waits_served",
    [STAT_WAITS_FAILED] = "waits_failed",
    [STAT_WAITS_AGAIN] = "waits_again",
    [STAT_WAITS_STALE] = "waits_stale",
    [STAT_WAITS_OVER] = "waits_over",
    [STAT_WAITS_CIRCULAR] = "waits_circular",
    [STAT_OVEREVICTED] = "overevicted",
    [STAT_LOAD_US] = "load_us",
};

static bool put_number(PyObject *dict, const char *name, uint64_t n)
{
    PyObject *number = PyLong_FromUnsignedLongLong(n);
    bool good = number && PyDict_SetItemString(dict, name, number) == 0;
    Py_XDECREF(number);
    return good;
}

struct numbers { /* of stats(), in the order of its answer */
    const char *name[STAT_LOADS_TOOK + 16];
    uint64_t number[STAT_LOADS_TOOK + 16];
    int count;
};

static void note(struct numbers *n, const char *name, uint64_t number)
{
    n->name[n->count] = name;
    n->number[n->count++] = number;
}

static void look_at_numbers(SegmentObject *s, struct numbers *n, bool with_entries)
{
    const struct geometry *g = &s->a.geo;
    for (int which = 0; which < STAT_LOADS_TOOK; which++)
        note(n, stat_names[which], statistic_of(&s->a, (enum statistic)which));
    if (with_entries)
        note(n, "entries", census_count(&s->a));
    note(n, "memory_bytes", g->total_bytes);
    note(n, "value_bytes", (uint64_t)g->page_count * g->page_bytes);
    note(n, "pages", g->page_count);
    note(n, "page_bytes", g->page_bytes);
    note(n, "ring_slots", g->ring_slots);
    note(n, "ring_tail", ring_tail(&s->a));
    note(n, "attached", roster_count(&s->a, ROSTER_WORKER));
    if (s->near) {
        note(n, "near_hits", s->near_hits);
        note(n, "near_entries", near_count(s));
        note(n, "near_bytes", s->near_bytes);
    }
}

static PyObject *numbers_of(SegmentObject *s, bool with_entries)
{
    struct numbers n = {.count = 0};
    if (!enter(s))
        return NULL;
    look_at_numbers(s, &n, with_entries);
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < n.count; i++)
        if (!put_number(dict, n.name[i], n.number[i]))
            Py_CLEAR(dict);
    return dict;
}

static PyObject *Segment_stats(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return numbers_of(s, true);
}

/* For the bridge, which is asked often: _counters(): stats() but for `entries`, which takes a sample. */
static PyObject *Segment_counters(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return numbers_of(s, false);
}

/* (bounds in seconds, number of loads in each bucket, the sum of all durations in seconds). A bucket counts
 * the loads that took at most its bound and more than the bound before; the last one counts longer loads. */
static PyObject *Segment_load_durations(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    uint64_t counts[LOAD_BOUNDS + 1];
    if (!enter(s))
        return NULL;
    for (int i = 0; i <= LOAD_BOUNDS; i++)
        counts[i] = statistic_of(&s->a, (enum statistic)(STAT_LOADS_TOOK + i));
    double sum_s = (double)statistic_of(&s->a, STAT_LOAD_US) / 1e6;
    PyObject *bounds = PyTuple_New(LOAD_BOUNDS), *numbers = PyTuple_New(LOAD_BOUNDS + 1);
    for (int i = 0; bounds && numbers && i <= LOAD_BOUNDS; i++) {
        if (i < LOAD_BOUNDS)
            PyTuple_SET_ITEM(bounds, i, PyFloat_FromDouble((double)load_bounds_us[i] / 1e6));
        PyTuple_SET_ITEM(numbers, i, PyLong_FromUnsignedLongLong(counts[i]));
    }
    if (bounds && numbers && !PyErr_Occurred())
        return Py_BuildValue("(NNd)", bounds, numbers, sum_s);
    Py_XDECREF(bounds);
    Py_XDECREF(numbers);
    return NULL;
}

/* For otel.py: _counted() -> (place, counters): this process's roster slot, and the slot's counters. Earlier
 * processes may have counted in the same slot, so only the difference between two calls is this process's.
 * Counters that the whole host shares are not among them. */
static PyObject *Segment_counted(SegmentObject *s, PyObject *unused)
{
    struct numbers n = {.count = 0};
    (void)unused;
    if (!enter(s))
        return NULL;
    uint32_t place = s->a.slot;
    for (int which = 0; s->a.me && which < SLOT_STATS; which++)
        note(&n, stat_names[which], load_relaxed(&s->a.me->stats[which]));
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < n.count; i++)
        if (!put_number(dict, n.name[i], n.number[i]))
            Py_CLEAR(dict);
    return dict ? Py_BuildValue("(IN)", place, dict) : NULL;
}

/* ---- the roster ---- */

struct roster_row {
    uint32_t index;
    bool is_bridge, alive;
    uint64_t pid;
    char command[sizeof(((struct roster_slot *)0)->command)], service[SERVICE_BYTES];
};

static PyObject *roster_object(const void *at)
{
    const struct roster_row *row = at;
    return Py_BuildValue("(IKNNNN)", row->index, row->pid, PyBool_FromLong(row->is_bridge),
                         text_from(row->command, sizeof row->command),
                         text_from(row->service, sizeof row->service), PyBool_FromLong(row->alive));
}

/* The attached processes: (slot, pid, is_bridge, command, service, alive). */
static PyObject *Segment_roster(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    struct rows rows = rows_for(s->a.geo.roster_slots, sizeof(struct roster_row));
    for (uint32_t i = 0; rows.at && i < s->a.geo.roster_slots && i < load_relaxed(&s->a.header->roster_high);
         i++) {
        struct roster_slot *slot = &s->a.roster[i];
        uint64_t word = load_acquire(&slot->word);
        if ((word & ROSTER_STATE_MASK) != SLOT_LIVE)
            continue;
        struct roster_row *row = rows_next(&rows);
        row->index = i;
        row->is_bridge = ((word >> ROSTER_KIND_SHIFT) & 15) == ROSTER_BRIDGE;
        row->alive = roster_alive(&s->a, i);
        row->pid = load_relaxed(&slot->pid);
        racing_read(row->command, slot->command, sizeof row->command);
        racing_read(row->service, slot->service, sizeof row->service);
    }
    return rows_listed(&rows, roster_object);
}

static PyObject *Segment_attached_workers(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLong(roster_count(&s->a, ROSTER_WORKER)) : NULL;
}

static PyObject *Segment_now_ms(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(clock_ms(&s->a)) : NULL;
}

/* ---- attributes ---- */

static PyObject *get_incarnation(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(load_acquire(&s->a.header->incarnation)) : NULL;
}

static PyObject *get_tail(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(ring_tail(&s->a)) : NULL;
}

static PyObject *get_ring_slots(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLong(s->a.geo.ring_slots) : NULL;
}

static PyObject *get_map_bytes(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLong(relay_map_bytes(&s->a)) : NULL;
}

static PyObject *get_pump_cursor(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(load_acquire(&s->a.header->pump_cursor)) : NULL;
}

/* Equal on hosts that hash keys alike; tells nothing of the key. */
static PyObject *get_fingerprint(SegmentObject *s, void *unused)
{
    (void)unused;
    static const char what[] = "cachee hash-key fingerprint";
    return enter(s) ? PyLong_FromUnsignedLongLong(hash_key(s->a.hash_key, what, sizeof what)) : NULL;
}

static PyObject *get_serve_until(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(load_acquire(&s->a.header->serve_until_ms)) : NULL;
}

static PyObject *get_retired(SegmentObject *s, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!s->open || segment_retired(&s->a));
}

static PyObject *get_closed(SegmentObject *s, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!s->open);
}

static PyObject *get_detached(SegmentObject *s, void *unused)
{
    (void)unused;
    return PyBool_FromLong(s->open && s->a.stand_in);
}

static PyObject *get_in_doubt(SegmentObject *s, void *unused)
{
    (void)unused;
    return enter(s) ? PyBool_FromLong(doubt_is_open(&s->a)) : NULL;
}

PyGetSetDef module_attributes[] = {
    {"incarnation", (getter)get_incarnation, NULL, "one life of this segment (int)", NULL},
    {"tail", (getter)get_tail, NULL, "the last ring sequence given; 0 before the first (int)", NULL},
    {"ring_slots", (getter)get_ring_slots, NULL, "records that the ring holds (int)", NULL},
    {"map_bytes", (getter)get_map_bytes, NULL, "bytes of the map of buckets that a lapped peer is sent (int)",
     NULL},
    {"in_doubt", (getter)get_in_doubt, NULL, "some write of this host has an unknown outcome (bool)", NULL},
    {"pump_cursor", (getter)get_pump_cursor, NULL, "own records re-applied at home up to here (int)", NULL},
    {"hash_key_fingerprint", (getter)get_fingerprint, NULL, "equal on hosts that hash keys alike (int)",
     NULL},
    {"serve_until", (getter)get_serve_until, NULL, "segment clock, ms: beyond it this host is isolated (int)",
     NULL},
    {"retired", (getter)get_retired, NULL, "this segment is not to be used any more (bool)", NULL},
    {"detached", (getter)get_detached, NULL,
     "there is no segment at present: reads miss, writes are announced later (bool)", NULL},
    {"closed", (getter)get_closed, NULL, "close() was called (bool)", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef module_statistics[] = {
    {"_counters", (PyCFunction)Segment_counters, METH_NOARGS, NULL},
    {"stats", (PyCFunction)Segment_stats, METH_NOARGS,
     "stats()\n--\n\nA dict of counters (int), summed over every process of this host."},
    {"load_durations", (PyCFunction)Segment_load_durations, METH_NOARGS,
     "load_durations()\n--\n\n(bounds in seconds, loads in each bucket and one more, seconds of all)"},
    {"_counted", (PyCFunction)Segment_counted, METH_NOARGS,
     "_counted() -> (roster slot, counters of it): differences are this process's"},
    {"roster", (PyCFunction)Segment_roster, METH_NOARGS,
     "[(slot, pid, is_bridge, command, alive)] of attached processes"},
    {"attached_workers", (PyCFunction)Segment_attached_workers, METH_NOARGS,
     "live attached processes, bridges not counted"},
    {"now_ms", (PyCFunction)Segment_now_ms, METH_NOARGS, "the segment's clock in ms"},
    {NULL, NULL, 0, NULL},
};
