/* module_bridge.c - what the bridge and the curious call: relaying, sources, sweeping, statistics. See module.h. */
#include "module.h"
#include "peers.h"
#include "relay_buckets.h"

enum { RING_READ_MAX = 4096, RING_RECORD_BYTES = 24, PACK_BYTES_MAX = PACK_RECORDS_MAX * WIRE_RECORD_BYTES_MAX };

/* ---- the ring ---- */

static PyObject *Segment_pack(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t records_max, bytes_max;
    uint32_t used;
    if (!PyArg_ParseTuple(args, "O&O&O&:pack",
                          number64_from, &cursor, number32_from, &records_max, number32_from, &bytes_max) ||
        !enter(s))
        return NULL;
    if (bytes_max < WIRE_RECORD_BYTES_MAX || records_max < 1)
        return fail(PyExc_ValueError, "pack needs room for one record: %d bytes", WIRE_RECORD_BYTES_MAX);
    unsigned char out[PACK_BYTES_MAX];
    uint64_t to = cursor;
    uint32_t room = bytes_max < sizeof out ? bytes_max : (uint32_t)sizeof out;
    if (relay_pack(&s->a, &to, records_max, out, room, &used) != RELAY_OK)
        Py_RETURN_NONE;
    return Py_BuildValue("(Ky#)", to, (const char *)out, (Py_ssize_t)used);
}

/* Beside the wire's records, what a map of buckets is announced by. */
enum { WIRE_BUCKETS = 6 };

static PyObject *Segment_missed(SegmentObject *s, PyObject *arg)
{
    static const unsigned char kind_of[] = {[OWED_BUCKETS] = WIRE_BUCKETS, [OWED_CLEAR] = WIRE_CLEAR, [OWED_ALL] = WIRE_ALL};
    uint64_t cursor;
    if (!number64_from(arg, &cursor) || !enter(s))
        return NULL;
    enum owed owed = relay_owes(&s->a, cursor);
    return PyBytes_FromStringAndSize((const char *)&kind_of[owed], owed == OWED_NOTHING ? 0 : 1);
}

static PyObject *Segment_heal(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t records_max;
    if (!PyArg_ParseTuple(args, "O&O&:heal",
                          number64_from, &cursor, number32_from, &records_max) || !enter_as_bridge(s))
        return NULL;
    uint64_t to = cursor;
    relay_heal(&s->a, &to, records_max);
    return PyLong_FromUnsignedLongLong(to);
}

PyObject *ring_broken(SegmentObject *s)
{
    struct label label = label_of(s);
    store_release(&s->a.header->state, SEGMENT_RETIRED);
    return fail(errors.segment_retired, "The ring of segment '%.64s' is corrupt; the segment is retired. Attach again.",
                label.text);
}

/* The bytes of a bytes-like object, ours to release. What is not bytes itself is copied: another thread may write to it,
 * and to release its buffer may run Python code. */
static PyObject *bytes_held(PyObject *o)
{
    if (PyBytes_CheckExact(o))
        return Py_NewRef(o);
    if (PyObject_CheckBuffer(o))
        return PyBytes_FromObject(o);
    return fail(PyExc_TypeError, "a bytes-like object is required, not %.100s", Py_TYPE(o)->tp_name);
}

static PyObject *Segment_apply(SegmentObject *s, PyObject *args)
{
    uint32_t source;
    PyObject *payload;
    uint32_t applied;
    if (!PyArg_ParseTuple(args, "O&O:apply",
                          number32_from, &source, &payload) || !(payload = bytes_held(payload)))
        return NULL;
    enum relay result = RELAY_MALFORMED;
    Py_ssize_t n = PyBytes_GET_SIZE(payload);
    bool entered = enter_as_bridge(s);
    if (entered && source <= META_SOURCE_BITS && n <= UINT32_MAX)
        result = relay_apply(&s->a, (uint16_t)source, (const unsigned char *)PyBytes_AS_STRING(payload), (uint32_t)n, &applied);
    PyObject *answer = !entered                    ? NULL
                       : result == RELAY_MALFORMED ? fail(PyExc_ValueError, "malformed payload; nothing of it was applied")
                       : result == RELAY_CORRUPT   ? ring_broken(s)
                                                   : PyLong_FromUnsignedLong(applied);
    Py_DECREF(payload);
    return answer;
}

/* ---- maps of buckets ---- */

static PyObject *Segment_map_piece(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t at, room;
    if (!PyArg_ParseTuple(args, "O&O&O&:map_piece",
                          number64_from, &cursor, number32_from, &at, number32_from, &room) || !enter(s))
        return NULL;
    uint32_t bytes = relay_map_bytes(&s->a), left = at < bytes ? bytes - at : 0, n = room < left ? room : left;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (out)
        relay_map_pack(&s->a, cursor, at, (unsigned char *)PyBytes_AS_STRING(out), n);
    return out;
}

/* Enter, and read a map out of bytes that the verb holds. False: an error is set. */
static bool enter_with_map(SegmentObject *s, unsigned int source, PyObject *bytes, struct bucket_map *map)
{
    if (!enter_as_bridge(s))
        return false;
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(bytes);
    if (source <= META_SOURCE_BITS && relay_map_read(at, (uint64_t)PyBytes_GET_SIZE(bytes), map))
        return true;
    fail(PyExc_ValueError, "malformed map of buckets; nothing of it was applied");
    return false;
}

static PyObject *Segment_fence_map(SegmentObject *s, PyObject *args)
{
    uint32_t source, steps_max;
    uint64_t sequence, at;
    PyObject *bytes, *answer = NULL;
    struct bucket_map map;
    if (!PyArg_ParseTuple(args, "O&OO&O&O&:fence_map",
                          number32_from, &source, &bytes, number64_from, &sequence, number64_from, &at,
                          number32_from, &steps_max) || !(bytes = bytes_held(bytes)))
        return NULL;
    if (enter_with_map(s, source, bytes, &map)) {
        struct map_fencing f = {.sequence = sequence, .at = at};
        bool good = relay_map_fence(&s->a, (uint16_t)source, &map, steps_max, &f);
        answer = good ? Py_BuildValue("(KK)", f.sequence, f.at) : ring_broken(s);
    }
    Py_DECREF(bytes);
    return answer;
}

static PyObject *Segment_evict_map(SegmentObject *s, PyObject *args)
{
    uint32_t source, words_max;
    uint64_t version, from;
    PyObject *bytes, *answer = NULL;
    struct bucket_map map;
    if (!PyArg_ParseTuple(args, "O&OO&O&O&:evict_map",
                          number32_from, &source, &bytes, number64_from, &version, number64_from, &from,
                          number32_from, &words_max) || !(bytes = bytes_held(bytes)))
        return NULL;
    if (enter_with_map(s, source, bytes, &map)) {
        uint32_t evicted = 0;
        uint64_t next = relay_map_evict(&s->a, (uint16_t)source, &map, version, from, words_max ? words_max : 1, &evicted);
        answer = Py_BuildValue("(KI)", next, evicted);
    }
    Py_DECREF(bytes);
    return answer;
}

/* Records for events.py, 24 bytes each: sequence u64, hash u64, kind u8, own u8, source u16, digest u16, padding. */
static void pack_event(unsigned char *out, uint64_t sequence, const struct record *r)
{
    memset(out, 0, RING_RECORD_BYTES);
    memcpy(out, &sequence, 8);
    memcpy(out + 8, &r->hash, 8);
    out[16] = (unsigned char)r->kind;
    out[17] = r->own;
    memcpy(out + 18, &r->source, 2);
    memcpy(out + 20, &r->digest, 2);
}

/* (cursor, records), or None: the reader was lapped. */
static PyObject *Segment_read_ring(SegmentObject *s, PyObject *args)
{
    uint64_t cursor;
    uint32_t records_max;
    if (!PyArg_ParseTuple(args, "O&O&:read_ring",
                          number64_from, &cursor, number32_from, &records_max) || !enter(s))
        return NULL;
    uint64_t tail = ring_tail(&s->a);
    if (cursor > tail || tail - cursor > s->a.geo.ring_slots)
        Py_RETURN_NONE;
    uint64_t n = tail - cursor < records_max ? tail - cursor : records_max;
    n = n < RING_READ_MAX ? n : RING_READ_MAX;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n * RING_RECORD_BYTES);
    for (uint64_t i = 0; out && i < n; i++) {
        struct record r;
        if (!ring_read(&s->a, cursor + i + 1, &r)) {
            Py_DECREF(out);
            Py_RETURN_NONE;
        }
        pack_event((unsigned char *)PyBytes_AS_STRING(out) + i * RING_RECORD_BYTES, cursor + i + 1, &r);
    }
    return out ? Py_BuildValue("(KN)", cursor + n, out) : NULL;
}

/* ---- sources: positions that survive the bridge ---- */

enum { NOBODY = 0 }; /* the slot that no source has */

struct source_row {
    uint32_t index;
    uint64_t incarnation, cursor;
    char name[NAME_BYTES];
};

static PyObject *source_object(const void *at)
{
    const struct source_row *row = at;
    return Py_BuildValue("(INKK)", row->index, text_from(row->name, sizeof row->name), row->incarnation, row->cursor);
}

static PyObject *sources_of(SegmentObject *s, enum source_use use)
{
    if (!enter(s))
        return NULL;
    struct rows rows = rows_for(s->a.geo.source_slots, sizeof(struct source_row));
    for (uint32_t i = 0; rows.at && i < s->a.geo.source_slots; i++) {
        struct source_slot *slot = &s->a.sources[i];
        if (load_acquire(&slot->used) != use)
            continue;
        struct source_row *row = rows_next(&rows);
        row->index = i;
        row->incarnation = load_acquire(&slot->incarnation);
        row->cursor = load_acquire(&slot->cursor);
        racing_read(row->name, slot->name, sizeof row->name);
    }
    return rows_listed(&rows, source_object);
}

static PyObject *Segment_sources(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return sources_of(s, SOURCE_MEMBER);
}

static PyObject *Segment_forgotten(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return sources_of(s, SOURCE_FORGOTTEN);
}

static bool source_named(const struct attachment *a, uint32_t i, const char *name)
{
    char have[NAME_BYTES];
    if (!load_acquire(&a->sources[i].used))
        return false;
    racing_read(have, a->sources[i].name, sizeof have);
    return strncmp(have, name, sizeof have) == 0;
}

/* Its own slot, else the one that has been free for longest, else one of a forgotten source; NOBODY: none. */
static uint32_t source_slot_for(const struct attachment *a, const char *name)
{
    uint32_t free_slot = NOBODY, forgotten = NOBODY;
    for (uint32_t i = 1; i < a->geo.source_slots; i++) {
        uint64_t used = load_acquire(&a->sources[i].used);
        if (source_named(a, i, name))
            return i;
        if (used == SOURCE_FREE && (free_slot == NOBODY || load_relaxed(&a->sources[i].until) < load_relaxed(&a->sources[free_slot].until)))
            free_slot = i;
        if (forgotten == NOBODY && used == SOURCE_FORGOTTEN)
            forgotten = i;
    }
    return free_slot != NOBODY ? free_slot : forgotten;
}

static void source_begin(struct attachment *a, struct source_slot *slot, const char *name, size_t n)
{
    if (load_acquire(&slot->used) == SOURCE_FORGOTTEN)
        store_release(&a->sources[NOBODY].used, SOURCE_FORGOTTEN);
    store_release(&slot->used, SOURCE_FREE); /* no death in here leaves one source's cursor under another's name */
    peers_rename(a, slot, name, n);
    store_relaxed(&slot->incarnation, 0);
    store_relaxed(&slot->cursor, 0);
    peers_reset(slot);
}

static PyObject *Segment_source_open(SegmentObject *s, PyObject *arg)
{
    Py_ssize_t n;
    const char *name = PyUnicode_AsUTF8AndSize(arg, &n);
    if (!name || !enter_as_bridge(s))
        return NULL;
    if (n < 1 || n >= NAME_BYTES)
        return fail(PyExc_ValueError, "a source's name has 1 to %d bytes", NAME_BYTES - 1);
    uint32_t i = source_slot_for(&s->a, name);
    if (i == NOBODY)
        return fail(errors.segment_error, "Segment '%.64s' knows %u hosts already and has no room for '%s'. Nothing changed. Forget "
                                          "dead hosts, or give the namespace more memory.",
                    label_of(s).text, s->a.geo.source_slots - 1, name);
    struct source_slot *slot = &s->a.sources[i];
    if (!source_named(&s->a, i, name))
        source_begin(&s->a, slot, name, (size_t)n);
    store_release(&slot->used, SOURCE_MEMBER);
    return PyLong_FromUnsignedLong(i);
}

struct source_slot *source_at(SegmentObject *s, unsigned int i)
{
    if (i >= 1 && i < s->a.geo.source_slots)
        return &s->a.sources[i];
    fail(PyExc_ValueError, "no source %u", i);
    return NULL;
}

/* Incarnation and cursor are two words: a death between them leaves cursor 0 of the new incarnation, which only
 * repairs more than it must. */
static PyObject *Segment_source_store(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    uint64_t incarnation, cursor;
    struct source_slot *slot;
    if (!PyArg_ParseTuple(args, "O&O&O&:source_store",
                          number32_from, &i, number64_from, &incarnation, number64_from, &cursor) ||
        !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    if (load_relaxed(&slot->incarnation) != incarnation) {
        store_release(&slot->cursor, 0);
        store_release(&slot->incarnation, incarnation);
    }
    store_release(&slot->cursor, cursor);
    Py_RETURN_NONE;
}

static PyObject *Segment_source_forget(SegmentObject *s, PyObject *arg)
{
    uint32_t i;
    struct source_slot *slot;
    if (!number32_from(arg, &i) || !enter_as_bridge(s) || !(slot = source_at(s, i)))
        return NULL;
    store_relaxed(&slot->until, ring_tail(&s->a));
    store_release(&slot->used, SOURCE_FREE);
    Py_RETURN_NONE;
}

/* For events.py: source_name(index, sequence) -> the host where a record began; empty: not known any more. */
static PyObject *Segment_source_name(SegmentObject *s, PyObject *args)
{
    uint32_t i;
    uint64_t sequence;
    char name[NAME_BYTES];
    if (!PyArg_ParseTuple(args, "O&O&:_source_name", number32_from, &i, number64_from, &sequence) || !enter(s))
        return NULL;
    bool known = peers_name_at(&s->a, i, sequence, name);
    return text_from(name, known ? sizeof name : 0);
}

static PyObject *Segment_source_set_aside(SegmentObject *s, PyObject *arg)
{
    uint32_t i;
    struct source_slot *slot;
    if (!number32_from(arg, &i) || !enter_as_bridge(s) || !(slot = i == NOBODY ? &s->a.sources[NOBODY] : source_at(s, i)))
        return NULL;
    store_release(&slot->used, SOURCE_FORGOTTEN);
    Py_RETURN_NONE;
}

/* ---- lines: what was loaded before and after one can be told apart ---- */

/* A record that concerns no key and is never sent: tokens read from now on are not below its position. */
static PyObject *Segment_draw_line(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    static const struct record nothing = {.kind = RECORD_LOCAL};
    uint64_t sequence = enter_as_bridge(s) ? ring_append(&s->a, &nothing) : RING_CORRUPT;
    if (PyErr_Occurred())
        return NULL;
    return sequence == RING_CORRUPT ? ring_broken(s) : PyLong_FromUnsignedLongLong(sequence);
}

static PyObject *Segment_evict_before(SegmentObject *s, PyObject *arg)
{
    uint64_t sequence;
    if (!number64_from(arg, &sequence) || !enter_as_bridge(s))
        return NULL;
    if (sequence > ring_tail(&s->a))
        return fail(PyExc_ValueError, "no record has sequence %llu yet", (unsigned long long)sequence);
    fence_clear_before(&s->a, sequence);
    Py_RETURN_NONE;
}

/* ---- the bridge's own words ---- */

static PyObject *Segment_set_serve_until(SegmentObject *s, PyObject *arg)
{
    uint64_t ms;
    if (!number64_from(arg, &ms) || !enter_as_bridge(s))
        return NULL;
    store_release(&s->a.header->serve_until_ms, ms);
    Py_RETURN_NONE;
}

static PyObject *Segment_bridge_acquire(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyBool_FromLong(segment_become_bridge(&s->a)) : NULL;
}

static PyObject *Segment_bridge_generation(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    return enter(s) ? PyLong_FromUnsignedLongLong(load_acquire(&s->a.header->bridge_generation)) : NULL;
}

static PyObject *Segment_bridge_sleep(SegmentObject *s, PyObject *arg)
{
    int sleeping = PyObject_IsTrue(arg);
    if (sleeping < 0 || !enter_as_bridge(s))
        return NULL;
    if (sleeping)
        return PyBool_FromLong(doorbell_arm(&s->a, load_relaxed(&s->a.header->pump_cursor)));
    doorbell_disarm(&s->a);
    Py_RETURN_TRUE;
}

static PyObject *Segment_sweep(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (s->open)
        s->a.house_second = clock_second(); /* it counts what it sweeps: entering must not sweep before it */
    return enter(s) ? PyLong_FromUnsignedLong(roster_sweep(&s->a)) : NULL;
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

static PyObject *Segment_freeze(SegmentObject *s, PyObject *arg)
{
    long long ms = arg == Py_None ? -1 : PyLong_AsLongLong(arg);
    if (PyErr_Occurred() || !enter(s))
        return NULL;
    s->a.frozen_ms = ms;
    Py_RETURN_NONE;
}

/* Whoever removes a segment says so first: its workers notice at their next verb. */
static PyObject *Segment_retire(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    store_release(&s->a.header->state, SEGMENT_RETIRED);
    Py_RETURN_NONE;
}

/* ---- statistics ---- */

static const char *const stat_names[STAT_COUNT] = {
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
    [STAT_LOADS] = "loads",
    [STAT_LEASE_WAITS] = "lease_waits",
    [STAT_LEASES_LATE] = "leases_late",
    [STAT_LEASES_NO_ROOM] = "leases_no_room",
    [STAT_WAITS_OVER] = "waits_over",
    [STAT_WAITS_CIRCULAR] = "waits_circular",
    [STAT_CORRUPT] = "corrupt",
};

static bool put_number(PyObject *dict, const char *name, uint64_t n)
{
    PyObject *number = PyLong_FromUnsignedLongLong(n);
    bool good = number && PyDict_SetItemString(dict, name, number) == 0;
    Py_XDECREF(number);
    return good;
}

struct numbers { /* of stats(), in the order of its answer */
    const char *name[STAT_COUNT + 16];
    uint64_t number[STAT_COUNT + 16];
    int count;
};

static void note(struct numbers *n, const char *name, uint64_t number)
{
    n->name[n->count] = name;
    n->number[n->count++] = number;
}

static void look_at_numbers(SegmentObject *s, struct numbers *n)
{
    const struct geometry *g = &s->a.geo;
    for (int which = 0; which < STAT_COUNT; which++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < g->roster_slots && i < load_relaxed(&s->a.header->roster_high); i++)
            sum += load_relaxed(&s->a.roster[i].stats[which]);
        note(n, stat_names[which], sum);
    }
    note(n, "entries", cache_count(&s->a));
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

static PyObject *Segment_stats(SegmentObject *s, PyObject *unused)
{
    struct numbers n = {.count = 0};
    (void)unused;
    if (!enter(s))
        return NULL;
    look_at_numbers(s, &n);
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < n.count; i++)
        if (!put_number(dict, n.name[i], n.number[i]))
            Py_CLEAR(dict);
    return dict;
}

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
                         text_from(row->command, sizeof row->command), text_from(row->service, sizeof row->service), PyBool_FromLong(row->alive));
}

/* Who is attached: (slot, pid, is_bridge, command, service, alive). */
static PyObject *Segment_roster(SegmentObject *s, PyObject *unused)
{
    (void)unused;
    if (!enter(s))
        return NULL;
    struct rows rows = rows_for(s->a.geo.roster_slots, sizeof(struct roster_row));
    for (uint32_t i = 0; rows.at && i < s->a.geo.roster_slots && i < load_relaxed(&s->a.header->roster_high); i++) {
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

PyGetSetDef module_attributes[] = {
    {"incarnation", (getter)get_incarnation, NULL, "one life of this segment (int)", NULL},
    {"tail", (getter)get_tail, NULL, "the last ring sequence given; 0 before the first (int)", NULL},
    {"ring_slots", (getter)get_ring_slots, NULL, "records that the ring holds (int)", NULL},
    {"map_bytes", (getter)get_map_bytes, NULL, "bytes of the map of buckets that a lapped peer is sent (int)", NULL},
    {"pump_cursor", (getter)get_pump_cursor, NULL, "own records re-applied at home up to here (int)", NULL},
    {"hash_key_fingerprint", (getter)get_fingerprint, NULL, "equal on hosts that hash keys alike (int)", NULL},
    {"serve_until", (getter)get_serve_until, NULL, "segment clock, ms: beyond it this host is isolated (int)", NULL},
    {"retired", (getter)get_retired, NULL, "this segment is not to be used any more (bool)", NULL},
    {"detached", (getter)get_detached, NULL, "there is no segment at present: reads miss, writes are announced later (bool)", NULL},
    {"closed", (getter)get_closed, NULL, "close() was called (bool)", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMethodDef module_bridge[] = {
    {"pack", (PyCFunction)Segment_pack, METH_VARARGS, "pack(cursor, records_max, bytes_max) -> (to, payload) or None if lapped"},
    {"missed", (PyCFunction)Segment_missed, METH_O, "missed(cursor) -> b'': nothing; CLEAR or ALL: it stands for all; 6: map_piece tells"},
    {"map_piece", (PyCFunction)Segment_map_piece, METH_VARARGS, "map_piece(cursor, at, bytes_max) -> bytes of the map of own writes after cursor"},
    {"fence_map", (PyCFunction)Segment_fence_map, METH_VARARGS, "fence_map(source, map, sequence, at, steps_max) -> (sequence, at), 0 and 0 at first; at 0: done, sequence is evict_map's version"},
    {"evict_map", (PyCFunction)Segment_evict_map, METH_VARARGS, "evict_map(source, map, version, at, words_max) -> (at or 0: done, evicted)"},
    {"heal", (PyCFunction)Segment_heal, METH_VARARGS, "heal(cursor, records_max) -> cursor: re-apply own records at home"},
    {"apply", (PyCFunction)Segment_apply, METH_VARARGS, "apply(source, payload) -> records applied; ValueError: none was"},
    {"read_ring", (PyCFunction)Segment_read_ring, METH_VARARGS, "read_ring(cursor, records_max) -> (cursor, bytes) or None if lapped"},
    {"sources", (PyCFunction)Segment_sources, METH_NOARGS, "[(index, name, incarnation, cursor)] of every host known"},
    {"forgotten", (PyCFunction)Segment_forgotten, METH_NOARGS, "the same of those set aside"},
    {"source_open", (PyCFunction)Segment_source_open, METH_O, "source_open(name) -> index"},
    {"source_store", (PyCFunction)Segment_source_store, METH_VARARGS, "source_store(index, incarnation, cursor)"},
    {"source_forget", (PyCFunction)Segment_source_forget, METH_O, "source_forget(index)"},
    {"_source_name", (PyCFunction)Segment_source_name, METH_VARARGS, "_source_name(index, sequence): the host where that record began, or ''"},
    {"source_set_aside", (PyCFunction)Segment_source_set_aside, METH_O, "source_set_aside(index): forget, but keep for its return; 0: no slot was free"},
    {"draw_line", (PyCFunction)Segment_draw_line, METH_NOARGS, "the sequence of a record of no key"},
    {"evict_before", (PyCFunction)Segment_evict_before, METH_O, "evict_before(sequence): all that was asked for before it, but local"},
    {"set_serve_until", (PyCFunction)Segment_set_serve_until, METH_O, "set_serve_until(ms)"},
    {"bridge_acquire", (PyCFunction)Segment_bridge_acquire, METH_NOARGS, "True if this process is now the segment's bridge"},
    {"bridge_generation", (PyCFunction)Segment_bridge_generation, METH_NOARGS, "how many bridges this segment has had"},
    {"bridge_sleep", (PyCFunction)Segment_bridge_sleep, METH_O, "bridge_sleep(sleeping) -> False: do not sleep, records came"},
    {"sweep", (PyCFunction)Segment_sweep, METH_NOARGS, "return the slots of dead processes -> how many"},
    {"attached_workers", (PyCFunction)Segment_attached_workers, METH_NOARGS, "live attached processes, bridges not counted"},
    {"now_ms", (PyCFunction)Segment_now_ms, METH_NOARGS, "the segment's clock in ms"},
    {"_freeze", (PyCFunction)Segment_freeze, METH_O, "_freeze(ms or None): let this attachment's clock stand"},
    {"retire", (PyCFunction)Segment_retire, METH_NOARGS, "retire(): everybody leaves this segment for its successor"},
    {"stats", (PyCFunction)Segment_stats, METH_NOARGS, "stats()\n--\n\nA dict of counters (int), summed over every process of this host."},
    {"roster", (PyCFunction)Segment_roster, METH_NOARGS, "[(slot, pid, is_bridge, command, alive)] of attached processes"},
    {NULL, NULL, 0, NULL},
};
